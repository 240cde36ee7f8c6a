//! What outputs may refer to, directly or not, and how large they may be.
//!
//! Source: Nix 2.36 `build/derivation-check.cc`; order of checks and messages recorded from 2.34.

use std::collections::{BTreeMap, BTreeSet};

use igloo_store::{ClosureError, PathInfo, Store};
use nix_compat::derivation::OutputName;
use nix_compat::store_path::StorePath;

use super::error::OutputError;
use crate::request::{DerivationOptions, OutputCheck, Specifier};

/// Checks all outputs, in the order of their names.
///
/// # Errors
/// The first rule that is broken.
pub(super) async fn check(
    store: &Store,
    options: &DerivationOptions,
    infos: &BTreeMap<OutputName, PathInfo>,
) -> Result<(), OutputError> {
    for (name, info) in infos {
        if let Some(check) = options.checks.of(name.as_str()) {
            let one = CheckedOutput {
                store,
                infos,
                info,
                check,
            };
            one.check().await?;
        }
    }
    Ok(())
}

struct CheckedOutput<'a> {
    store: &'a Store,
    infos: &'a BTreeMap<OutputName, PathInfo>,
    info: &'a PathInfo,
    check: &'a OutputCheck,
}

/// What a list of specifiers says of the paths it names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// Nothing else.
    Only,
    /// None of them.
    None,
}

impl CheckedOutput<'_> {
    async fn check(&self) -> Result<(), OutputError> {
        let check = self.check;
        if let Some(max) = check.size_max
            && self.info.nar_size > max
        {
            return Err(OutputError::TooLarge {
                path: self.print(&self.info.path),
                size: self.info.nar_size,
                max,
            });
        }
        let wants_closure = check.closure_size_max.is_some()
            || check.allowed_requisites.is_some()
            || !check.disallowed_requisites.is_empty();
        let closure = if wants_closure {
            self.closure().await?
        } else {
            BTreeMap::new()
        };
        if let Some(max) = check.closure_size_max {
            let size = closure.values().fold(0u64, |sum, size| sum.saturating_add(*size));
            if size > max {
                return Err(OutputError::ClosureTooLarge {
                    path: self.print(&self.info.path),
                    size,
                    max,
                });
            }
        }
        let references = &self.info.references;
        let mut requisites: BTreeSet<StorePath> = closure.into_keys().collect();
        if check.ignore_self_requisite {
            requisites.remove(&self.info.path);
        }
        if let Some(allowed) = &check.allowed_references {
            self.refuse(references, allowed, Rule::Only)?;
        }
        if let Some(allowed) = &check.allowed_requisites {
            self.refuse(&requisites, allowed, Rule::Only)?;
        }
        self.refuse(references, &check.disallowed_references, Rule::None)?;
        self.refuse(&requisites, &check.disallowed_requisites, Rule::None)
    }

    /// Refuses used paths that a list does not allow.
    fn refuse(
        &self,
        used: &BTreeSet<StorePath>,
        specifiers: &[Specifier],
        rule: Rule,
    ) -> Result<(), OutputError> {
        let named = specifiers.iter().filter_map(|specifier| match specifier {
            Specifier::Path(path) => Some(path),
            Specifier::Output(name) => self.infos.get(name.as_str()).map(|info| &info.path),
        });
        let named: BTreeSet<&StorePath> = named.collect();
        let bad = used
            .iter()
            .filter(|path| named.contains(path) == (rule == Rule::None));
        let bad: Vec<String> = bad.map(|path| self.print(path)).collect();
        if bad.is_empty() {
            return Ok(());
        }
        Err(OutputError::Disallowed {
            output: self.print(&self.info.path),
            paths: bad,
        })
    }

    /// All the output needs, itself included, with the sizes of their NARs.
    async fn closure(&self) -> Result<BTreeMap<StorePath, u64>, ClosureError> {
        let made: BTreeMap<&StorePath, &PathInfo> =
            self.infos.values().map(|info| (&info.path, info)).collect();
        let mut closure = BTreeMap::new();
        let mut outside = BTreeSet::new();
        let mut to_visit = vec![&self.info.path];
        while let Some(path) = to_visit.pop() {
            match made.get(path) {
                Some(info) if !closure.contains_key(path) => {
                    closure.insert(path.clone(), info.nar_size);
                    to_visit.extend(&info.references);
                }
                Some(_) => {}
                None => _ = outside.insert(path.clone()),
            }
        }
        let outside = self.store.closure(outside).await?;
        closure.extend(outside.into_iter().map(|(path, info)| (path, info.nar_size)));
        Ok(closure)
    }

    fn print(&self, path: &StorePath) -> String {
        self.store.dir.print(path)
    }
}
