//! Import from derivation: what a string refers to is made to exist.
//!
//! Everything one string needs is asked for at once; asks of one evaluation that do not need each other, and those of
//! several evaluations, reach the [`Realiser`] side by side; it sees all that is wanted and decides what to build first.
//!
//! Source: Nix 2.34 `src/libexpr/primops.cc` (`realiseContext`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use igloo_eval::ContextElem;
use igloo_eval::io::{IoError, Pending, Started};
use nix_compat::derivation::{Derivation, OutputName};
use nix_compat::store_path::{StorePath, downstream_placeholder};

use crate::answers::Task;
use crate::dependencies::DependencyKey;
use crate::error::{chain, store_error, text};
use crate::realiser::{RealiseError, RealisedOutput, Realiser, Wanted};
use crate::store_io::{StoreIo, Writes};

/// Derivations with the outputs wanted of each.
type Outputs = BTreeMap<StorePath, BTreeSet<OutputName>>;

impl StoreIo {
    pub(crate) fn realise_context(&self, context: &[ContextElem]) -> Result<Vec<(String, String)>, IoError> {
        let (mut need, wanted) = self.need(context)?;
        if !wanted.is_empty() {
            self.ask(wanted, &mut need.known)?;
        }
        self.taken(&need)
    }

    /// As [`StoreIo::realise_context`], without waiting for the realiser.
    pub(crate) fn start_context<'a>(
        &'a self,
        context: &[ContextElem],
    ) -> Result<Started<'a, Vec<(String, String)>>, IoError> {
        let (need, wanted) = self.need(context)?;
        if wanted.is_empty() {
            return Ok(Started::Done(self.taken(&need)));
        }
        let realiser = Arc::clone(self.realiser_for(&wanted)?);
        self.flush_made()?;
        let paths = paths_of(&wanted);
        let work = async move { realiser.realise(wanted).await };
        let task = self.bell.spawn(&self.view.runtime, work);
        Ok(Started::Pending(Box::new(Realising {
            io: self,
            need,
            paths,
            task,
        })))
    }

    /// What a context needs, and what of it is to be asked for.
    fn need(&self, context: &[ContextElem]) -> Result<(Need, Vec<Wanted>), IoError> {
        let (outputs, mut wanted) = self.needs(context)?;
        let mut need = Need {
            outputs,
            derivations: BTreeMap::new(),
            known: Known::default(),
        };
        for (path, names) in &need.outputs {
            let derivation = self
                .derivation_at(path)
                .map_err(|error| self.unwritten(error, path))?;
            self.check_names(path, &derivation, names)?;
            let missing = self.missing_outputs(path, &derivation, names, &mut need.known)?;
            if !missing.is_empty() {
                wanted.push(Wanted::Outputs {
                    derivation: path.clone(),
                    outputs: missing,
                });
            }
            need.derivations.insert(path.clone(), derivation);
        }
        Ok((need, wanted))
    }

    /// Notes that the evaluation uses what it needed, now that it is there; gives the replacements for placeholders.
    fn taken(&self, need: &Need) -> Result<Vec<(String, String)>, IoError> {
        let mut rewrites = Vec::new();
        for (path, names) in &need.outputs {
            for name in names {
                let made = need.known.0.get(&(path.clone(), name.clone()));
                let made = made.ok_or_else(|| IoError::Build {
                    what: format!(
                        "'{}^{name}' was asked for, but the answer does not name its path",
                        self.print(path)
                    ),
                })?;
                let placeholder = self.placeholder(path, need.derivations.get(path), name, made)?;
                rewrites.extend(placeholder.map(|text| (text, self.print(made))));
                self.took(path, name, made)?;
            }
        }
        Ok(rewrites)
    }

    /// Outputs named by the context, and other paths of it that are not there.
    fn needs(&self, context: &[ContextElem]) -> Result<(Outputs, Vec<Wanted>), IoError> {
        let mut outputs = Outputs::new();
        let mut wanted = Vec::new();
        for elem in context {
            let invalid = || IoError::InvalidPath {
                path: text(elem.path()),
            };
            let path = self
                .view
                .store
                .dir
                .parse_bytes(elem.path())
                .map_err(|_| invalid())?;
            match elem {
                ContextElem::Opaque(_) | ContextElem::DrvDeep(_) => {
                    // reading it is another matter: restricted modes allow what the evaluation made
                    if !self.is_there(&path)? {
                        wanted.push(Wanted::Path(path));
                    }
                }
                ContextElem::Built { output, .. } => {
                    let name = OutputName::new(&text(output)).map_err(|_| invalid())?;
                    outputs.entry(path).or_default().insert(name);
                }
            }
        }
        Ok((outputs, wanted))
    }

    fn check_names(
        &self,
        path: &StorePath,
        derivation: &Derivation,
        names: &BTreeSet<OutputName>,
    ) -> Result<(), IoError> {
        match names.iter().find(|name| !derivation.outputs.contains_key(*name)) {
            Some(name) => Err(IoError::Build {
                what: format!(
                    "derivation '{}' does not have wanted outputs '{name}'",
                    self.print(path)
                ),
            }),
            None => Ok(()),
        }
    }

    /// The outputs that are not there; the paths of those that are go to `known`.
    fn missing_outputs(
        &self,
        path: &StorePath,
        derivation: &Derivation,
        names: &BTreeSet<OutputName>,
        known: &mut Known,
    ) -> Result<BTreeSet<OutputName>, IoError> {
        let mut missing = BTreeSet::new();
        for name in names {
            let made = match derivation.outputs.get(name) {
                Some(output) => output.path(&self.view.store.dir, &derivation.name, name),
                None => Ok(None),
            };
            let made = made.map_err(|error| store_error(self.print(path), error.code(), error))?;
            match made {
                Some(made) if self.is_ours(&made)? => {
                    known.0.insert((path.clone(), name.clone()), made);
                }
                _ => {
                    missing.insert(name.clone());
                }
            }
        }
        Ok(missing)
    }

    /// Asks the realiser, and waits.
    fn ask(&self, wanted: Vec<Wanted>, known: &mut Known) -> Result<(), IoError> {
        let realiser = self.realiser_for(&wanted)?;
        self.flush_made()?;
        let paths = paths_of(&wanted);
        let made = self.view.runtime.wait(realiser.realise(wanted))?;
        self.learn_made(made, &paths, known)
    }

    /// Whom to ask, if what is wanted may be asked for.
    fn realiser_for(&self, wanted: &[Wanted]) -> Result<&Arc<dyn Realiser>, IoError> {
        if let (Writes::Computed, Some(Wanted::Path(path))) = (self.writes, wanted.first()) {
            return Err(self.unwritten(IoError::InvalidPath { path: String::new() }, path));
        }
        let realiser = self.realiser.as_ref();
        realiser.ok_or_else(|| self.nobody_to_ask(wanted.first()))
    }

    /// Takes note of an answer, and checks that what it names is there.
    fn learn_made(
        &self,
        made: Result<Vec<RealisedOutput>, RealiseError>,
        paths: &[StorePath],
        known: &mut Known,
    ) -> Result<(), IoError> {
        for made in made.map_err(|error| self.realise_error(&error))? {
            self.must_be_there(&made.path)?;
            known.0.insert((made.derivation, made.output), made.path);
        }
        paths.iter().try_for_each(|path| self.must_be_there(path))
    }

    fn must_be_there(&self, path: &StorePath) -> Result<(), IoError> {
        if self.is_ours(path)? {
            return Ok(());
        }
        Err(IoError::InvalidPath {
            path: self.print(path),
        })
    }

    /// In read-only mode Nix names what is not there without its directory (recorded from 2.34).
    fn unwritten(&self, error: IoError, path: &StorePath) -> IoError {
        match (self.writes, error) {
            (Writes::Computed, IoError::InvalidPath { .. }) => IoError::InvalidPath {
                path: path.to_string(),
            },
            (_, error) => error,
        }
    }

    fn nobody_to_ask(&self, wanted: Option<&Wanted>) -> IoError {
        match wanted {
            Some(Wanted::Outputs { derivation, outputs }) => {
                let names: Vec<_> = outputs.iter().map(OutputName::as_str).collect();
                IoError::Build {
                    what: format!(
                        "cannot build '{}^{}': this evaluation has no builder; build it first, or evaluate with one",
                        self.print(derivation),
                        names.join(",")
                    ),
                }
            }
            Some(Wanted::Path(path)) => IoError::InvalidPath {
                path: self.print(path),
            },
            None => IoError::Build {
                what: "there is nothing to build".to_owned(),
            },
        }
    }

    fn realise_error(&self, error: &RealiseError) -> IoError {
        match error {
            RealiseError::Missing { path } => IoError::InvalidPath {
                path: self.print(path),
            },
            RealiseError::Build { reason, exit, .. } => IoError::BuildFailed {
                what: reason.clone(),
                exit: *exit,
            },
            other => IoError::Build { what: chain(other) },
        }
    }

    /// Notes that the evaluation uses an output.
    fn took(&self, derivation: &StorePath, output: &OutputName, made: &StorePath) -> Result<(), IoError> {
        self.access.allow(made);
        let info = self.info_of(made)?;
        self.dependencies.record(
            || DependencyKey::Output {
                derivation: derivation.clone(),
                output: output.clone(),
            },
            &Ok(info),
            |info, hasher| {
                hasher.update(made.to_string().as_bytes());
                if let Some(info) = info {
                    hasher.update(&info.nar_sha256);
                }
            },
        );
        Ok(())
    }

    /// What strings hold in place of an output's path, where that was not known before the build; where it was, it must be
    /// the one made.
    fn placeholder(
        &self,
        path: &StorePath,
        derivation: Option<&Derivation>,
        name: &OutputName,
        made: &StorePath,
    ) -> Result<Option<String>, IoError> {
        let stated = derivation.and_then(|derivation| {
            let output = derivation.outputs.get(name)?;
            Some(output.path(&self.view.store.dir, &derivation.name, name))
        });
        let stated = stated.transpose();
        let stated = stated.map_err(|error| store_error(self.print(path), error.code(), error))?;
        match stated.flatten() {
            Some(stated) if stated == *made => Ok(None),
            Some(stated) => Err(IoError::Build {
                what: format!(
                    "'{}^{name}' was built as '{}', but {} is its path",
                    self.print(path),
                    self.print(made),
                    self.print(&stated)
                ),
            }),
            None => downstream_placeholder(path, name)
                .map(Some)
                .map_err(|error| store_error(self.print(path), error.code(), error)),
        }
    }
}

/// Paths of outputs.
#[derive(Default)]
struct Known(BTreeMap<(StorePath, OutputName), StorePath>);

/// What a context needs.
struct Need {
    outputs: Outputs,
    derivations: BTreeMap<StorePath, Derivation>,
    known: Known,
}

/// A context that is being made to exist.
struct Realising<'a> {
    io: &'a StoreIo,
    need: Need,
    /// Paths that must be there in the end.
    paths: Vec<StorePath>,
    task: Task<Result<Vec<RealisedOutput>, RealiseError>>,
}

impl Pending<Vec<(String, String)>> for Realising<'_> {
    fn poll(&mut self) -> Option<Result<Vec<(String, String)>, IoError>> {
        let made = self.task.poll()?;
        let learnt = made.and_then(|made| self.io.learn_made(made, &self.paths, &mut self.need.known));
        Some(learnt.and_then(|()| self.io.taken(&self.need)))
    }
}

fn paths_of(wanted: &[Wanted]) -> Vec<StorePath> {
    let path = |wanted: &Wanted| match wanted {
        Wanted::Path(path) => Some(path.clone()),
        Wanted::Outputs { .. } => None,
    };
    wanted.iter().filter_map(path).collect()
}
