//! Which derivations must be built.
//!
//! Found lazily, from the wanted outputs down: a derivation whose wanted outputs are registered is not descended into, so
//! cost grows with what is missing, not with the graph. Nothing recurses.
//!
//! Invariants
//! - every derivation comes after those whose outputs it needs;
//! - every input of a planned derivation is registered or an output of an earlier one.

use std::collections::{BTreeMap, BTreeSet};

use igloo_castore::ingest::PathOptions;
use igloo_status::Code;
use igloo_store::path_info::ReadPathInfoError;
use igloo_store::{AddError, Store};
use nix_compat::derivation::{Derivation, OutputName};
use nix_compat::store_path::StorePath;

use crate::request::{self, RequestError};
use crate::source::{DerivationSource, ReadDerivationError};

/// Derivations to build, in an order that works.
#[derive(Debug, Default)]
pub struct Plan {
    /// The derivations, inputs first.
    pub builds: Vec<PlannedBuild>,
    /// What was asked for: each derivation with its wanted outputs' paths.
    pub wanted: Vec<(StorePath, BTreeMap<OutputName, StorePath>)>,
}

/// A derivation to build.
#[derive(Debug)]
pub struct PlannedBuild {
    /// Its path.
    pub drv_path: StorePath,
    /// The derivation.
    pub derivation: Derivation,
    /// Output paths it needs as inputs, besides its input sources.
    pub inputs: BTreeSet<StorePath>,
    /// Positions in the plan of those that make these inputs.
    pub after: Vec<usize>,
}

/// A derivation somebody wants outputs of; no names means all.
pub type Wanted = (StorePath, BTreeSet<OutputName>);

impl Plan {
    /// Plans what is missing for `wanted`.
    ///
    /// # Errors
    /// A derivation that cannot be read, an input source that is not in the store, an output that is not one of its
    /// derivation's.
    pub async fn make(
        store: &Store,
        source: &DerivationSource,
        wanted: Vec<Wanted>,
    ) -> Result<Self, PlanError> {
        let mut planner = Planner {
            store,
            source,
            known: BTreeMap::new(),
            planned: BTreeMap::new(),
            plan: Self::default(),
        };
        for (drv_path, outputs) in wanted {
            let paths = planner.add(&drv_path, &outputs).await?;
            planner.plan.wanted.push((drv_path, paths));
        }
        Ok(planner.plan)
    }
}

struct Planner<'a> {
    store: &'a Store,
    source: &'a DerivationSource,
    known: BTreeMap<StorePath, Derivation>,
    planned: BTreeMap<StorePath, usize>,
    plan: Plan,
}

/// A step of the walk: come to a derivation, or leave it with all it needs planned.
enum Step {
    Enter(StorePath, BTreeSet<OutputName>),
    Leave(StorePath),
}

impl Planner<'_> {
    /// Plans one derivation and what it needs; the paths of its wanted outputs.
    async fn add(
        &mut self,
        drv_path: &StorePath,
        outputs: &BTreeSet<OutputName>,
    ) -> Result<BTreeMap<OutputName, StorePath>, PlanError> {
        let mut entered = BTreeSet::new();
        let mut steps = vec![Step::Enter(drv_path.clone(), outputs.clone())];
        while let Some(step) = steps.pop() {
            match step {
                Step::Enter(path, outputs) => {
                    if self.is_done(&path, &outputs).await? || self.planned.contains_key(&path) {
                        continue;
                    }
                    if !entered.insert(path.clone()) {
                        return Err(PlanError::Cycle {
                            path: self.print(&path),
                        });
                    }
                    let inputs = self.derivation(&path).await?.input_drvs.clone();
                    steps.push(Step::Leave(path));
                    steps.extend(
                        inputs
                            .into_iter()
                            .map(|(path, outputs)| Step::Enter(path, outputs)),
                    );
                }
                Step::Leave(path) => {
                    entered.remove(&path);
                    if !self.planned.contains_key(&path) {
                        self.leave(&path).await?;
                    }
                }
            }
        }
        self.wanted_paths(drv_path, outputs).await
    }

    /// Whether all of these outputs are registered.
    async fn is_done(&mut self, path: &StorePath, outputs: &BTreeSet<OutputName>) -> Result<bool, PlanError> {
        for output in self.wanted_paths(path, outputs).await?.values() {
            if self.store.path_infos.get(output).await?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn leave(&mut self, path: &StorePath) -> Result<(), PlanError> {
        let derivation = self.derivation(path).await?.clone();
        for input in &derivation.input_srcs {
            if self.store.path_infos.get(input).await?.is_none() && !self.import(input).await? {
                return Err(PlanError::MissingInput {
                    derivation: self.print(path),
                    input: self.print(input),
                });
            }
        }
        let mut inputs = BTreeSet::new();
        let mut after = Vec::new();
        for (input, outputs) in &derivation.input_drvs {
            inputs.extend(self.wanted_paths(input, outputs).await?.into_values());
            after.extend(self.planned.get(input));
        }
        self.planned.insert(path.clone(), self.plan.builds.len());
        self.plan.builds.push(PlannedBuild {
            drv_path: path.clone(),
            derivation,
            inputs,
            after,
        });
        Ok(())
    }

    /// Takes an input into the store that lies beside the derivations, when its content has that very path: as a source
    /// tree, or as a text without references. Anything else that lies there is as good as missing.
    async fn import(&self, input: &StorePath) -> Result<bool, PlanError> {
        match self.source.find_input(input).await {
            Some(file) => Ok(self
                .store
                .add_expected(input, &file, &PathOptions::default())
                .await?),
            None => Ok(false),
        }
    }

    async fn wanted_paths(
        &mut self,
        path: &StorePath,
        outputs: &BTreeSet<OutputName>,
    ) -> Result<BTreeMap<OutputName, StorePath>, PlanError> {
        let printed = self.print(path);
        let dir = self.store.dir.clone();
        let derivation = self.derivation(path).await?;
        let all = request::output_paths(&dir, derivation).map_err(|source| PlanError::Request {
            derivation: printed.clone(),
            source,
        })?;
        let all: BTreeMap<_, _> = all.into_iter().collect();
        if outputs.is_empty() {
            return Ok(all);
        }
        let one = |name: &OutputName| match all.get(name) {
            Some(path) => Ok((name.clone(), path.clone())),
            None => Err(PlanError::NoSuchOutput {
                derivation: printed.clone(),
                output: name.clone(),
            }),
        };
        outputs.iter().map(one).collect()
    }

    async fn derivation(&mut self, path: &StorePath) -> Result<&Derivation, PlanError> {
        if !self.known.contains_key(path) {
            let derivation = self.source.read(path).await?;
            self.known.insert(path.clone(), derivation);
        }
        self.known.get(path).ok_or_else(|| PlanError::Cycle {
            path: path.to_string(),
        })
    }

    fn print(&self, path: &StorePath) -> String {
        self.store.dir.print(path)
    }
}

/// Why nothing can be planned.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A derivation cannot be read.
    #[error(transparent)]
    Read(#[from] ReadDerivationError),
    /// A derivation cannot be built by igloo.
    #[error("cannot build {derivation}")]
    Request {
        /// The derivation.
        derivation: String,
        /// Why.
        #[source]
        source: RequestError,
    },
    /// A derivation names an input nobody has.
    #[error("{derivation} needs {input}, which is not in the store and which no derivation makes")]
    MissingInput {
        /// The derivation.
        derivation: String,
        /// The input.
        input: String,
    },
    /// A derivation has no such output.
    #[error("{derivation} has no output `{output}`")]
    NoSuchOutput {
        /// The derivation.
        derivation: String,
        /// The output.
        output: OutputName,
    },
    /// A derivation needs itself. Its hash makes that impossible unless files were forged.
    #[error("{path} needs itself")]
    Cycle {
        /// The derivation.
        path: String,
    },
    /// An input that lies beside a derivation cannot be taken into the store.
    #[error("an input cannot be added to the store")]
    Add(#[from] AddError),
    /// The store's records cannot be read.
    #[error("the store's records cannot be read")]
    Store(#[from] ReadPathInfoError),
}

impl PlanError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Read(error) => error.code(),
            Self::Request { source, .. } => source.code(),
            Self::MissingInput { .. } => Code::FailedPrecondition,
            Self::NoSuchOutput { .. } | Self::Cycle { .. } => Code::InvalidArgument,
            Self::Add(error) => error.code(),
            Self::Store(error) => error.code(),
        }
    }
}
