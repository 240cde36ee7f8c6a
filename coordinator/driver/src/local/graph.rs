//! What is known of derivations and offers: enough to say what needs what.
//!
//! Mirrors what the state machine was told, for what it does not say: who is interested in a build, what a failure took
//! along, which output an input derivation stands for.
//!
//! Invariants
//! - what is known of a derivation does not change; an offer is the latest;
//! - nothing recurses.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use igloo_binary_cache::Candidate;
use igloo_coordinator::DrvInfo;
use nix_compat::derivation::OutputName;
use nix_compat::store_path::StorePath;

/// Derivations, offers, and what is under way.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    drvs: HashMap<StorePath, Arc<DrvInfo>>,
    makers: HashMap<StorePath, StorePath>,
    offers: HashMap<StorePath, Candidate>,
    resolved: HashMap<StorePath, StorePath>,
    /// The same, backwards.
    origins: HashMap<StorePath, Vec<StorePath>>,
    /// Derivations that must be built, and are not.
    planned: HashSet<StorePath>,
}

impl Graph {
    /// A derivation is known. Whether that is new.
    pub(crate) fn learn(&mut self, info: Arc<DrvInfo>) -> bool {
        if self.drvs.contains_key(&info.path) {
            return false;
        }
        for (_, path) in &info.outputs {
            if let Some(path) = path {
                self.makers
                    .entry(path.clone())
                    .or_insert_with(|| info.path.clone());
            }
        }
        self.drvs.insert(info.path.clone(), info);
        true
    }

    pub(crate) fn offered(&mut self, path: &StorePath, candidate: Candidate) {
        self.offers.insert(path.clone(), candidate);
    }

    pub(crate) fn offer(&self, path: &StorePath) -> Option<&Candidate> {
        self.offers.get(path)
    }

    pub(crate) fn take_offer(&mut self, path: &StorePath) {
        self.offers.remove(path);
    }

    pub(crate) fn resolved(&mut self, drv: &StorePath, to: &StorePath) {
        if self.resolved.insert(drv.clone(), to.clone()).is_none() {
            self.origins.entry(to.clone()).or_default().push(drv.clone());
        }
    }

    /// A derivation must be built. Whether that is new.
    pub(crate) fn plan(&mut self, drv: &StorePath) -> bool {
        !self.planned.contains(drv) && self.planned.insert(drv.clone())
    }

    /// A derivation need not be built any more. Whether it had to be.
    pub(crate) fn unplan(&mut self, drv: &StorePath) -> bool {
        self.planned.remove(drv)
    }

    pub(crate) fn is_planned(&self, drv: &StorePath) -> bool {
        self.planned.contains(drv)
    }

    pub(crate) fn drv(&self, drv: &StorePath) -> Option<&Arc<DrvInfo>> {
        self.drvs.get(drv)
    }

    pub(crate) fn maker(&self, path: &StorePath) -> Option<&StorePath> {
        self.makers.get(path)
    }

    /// The path of an output that is known before the build; `None` when derivation or path are not known.
    pub(crate) fn output(&self, drv: &StorePath, name: &OutputName) -> Option<&StorePath> {
        let outputs = &self.drvs.get(drv)?.outputs;
        let (_, path) = outputs.iter().find(|(other, _)| other == name)?;
        path.as_ref()
    }

    /// What whoever is interested in this is interested in as well: what it needs, as far as it must be made.
    pub(crate) fn needs(&self, path: &StorePath) -> Vec<StorePath> {
        let mut needs = Vec::new();
        if let Some(info) = self.drvs.get(path) {
            needs.extend(info.outputs.iter().filter_map(|(_, path)| path.clone()));
            needs.extend(self.resolved.get(path).cloned());
            if self.planned.contains(path) {
                needs.extend(self.inputs(info));
            }
        }
        if let Some(candidate) = self.offers.get(path) {
            needs.extend(candidate.offer.nar.references.iter().cloned());
        }
        let maker = self.makers.get(path);
        needs.extend(maker.filter(|maker| self.planned.contains(*maker)).cloned());
        needs
    }

    /// Input derivations, the output paths wanted of them, and sources.
    pub(crate) fn inputs<'a>(&'a self, info: &'a DrvInfo) -> impl Iterator<Item = StorePath> + 'a {
        let outputs = info.inputs.iter().flat_map(|(drv, names)| {
            let paths = names.iter().filter_map(|name| self.output(drv, name));
            paths.cloned().chain([drv.clone()])
        });
        outputs.chain(info.sources.iter().cloned())
    }

    /// What those need that were resolved to this derivation: its own inputs have no derivations any more.
    pub(crate) fn resolved_from(&self, drv: &StorePath) -> impl Iterator<Item = StorePath> + '_ {
        let origins = self.origins.get(drv).into_iter().flatten();
        let infos = origins.filter_map(|origin| self.drvs.get(origin));
        infos.flat_map(|info| self.inputs(info))
    }

    /// Derivations below `roots` that need one of `failed`, directly or not, without these themselves. Linear in what is
    /// known below the roots.
    pub(crate) fn need_failed(
        &self,
        roots: impl IntoIterator<Item = StorePath>,
        failed: &HashSet<StorePath>,
    ) -> Vec<StorePath> {
        let mut found: HashMap<StorePath, bool> = HashMap::new();
        let mut order = Vec::new();
        let mut stack: Vec<(StorePath, bool)> = roots.into_iter().map(|root| (root, false)).collect();
        while let Some((drv, is_left)) = stack.pop() {
            if is_left {
                let needs = self.inputs_of(&drv);
                let needs_failed = needs
                    .iter()
                    .any(|need| failed.contains(need) || found.get(need) == Some(&true));
                if needs_failed && !failed.contains(&drv) {
                    order.push(drv.clone());
                }
                found.insert(drv, needs_failed);
            } else if !found.contains_key(&drv) {
                found.insert(drv.clone(), false);
                let needs = self.inputs_of(&drv);
                stack.push((drv, true));
                stack.extend(needs.into_iter().map(|need| (need, false)));
            }
        }
        order
    }

    fn inputs_of(&self, drv: &StorePath) -> Vec<StorePath> {
        let Some(info) = self.drvs.get(drv) else {
            return Vec::new();
        };
        let resolved = self.resolved.get(drv).cloned();
        let inputs = info.inputs.iter().map(|(drv, _)| drv.clone());
        inputs
            .chain(info.sources.iter().cloned())
            .chain(resolved)
            .collect()
    }

    /// Forgets what nobody is interested in, when there is more than so much.
    pub(crate) fn prune(&mut self, drvs_max: usize, is_wanted: impl Fn(&StorePath) -> bool) {
        self.offers.retain(|path, _| is_wanted(path));
        self.planned.retain(|drv| is_wanted(drv));
        if self.drvs.len() > drvs_max {
            self.drvs.retain(|drv, _| is_wanted(drv));
            let drvs = &self.drvs;
            self.makers.retain(|_, drv| drvs.contains_key(drv));
            self.resolved.retain(|drv, _| drvs.contains_key(drv));
            self.origins.retain(|drv, _| drvs.contains_key(drv));
        }
    }
}
