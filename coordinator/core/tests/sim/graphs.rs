//! Graphs of derivations to schedule.
//!
//! A derivation has a *recipe*; what it makes is a function of recipe and input paths, so that two derivations of one recipe
//! and the same inputs resolve to one. Some recipes make the same whatever goes in (early cut-off).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use igloo_coordinator::{DrvInfo, Requirements};
use nix_compat::derivation::{DerivationKind, OutputName};
use nix_compat::store_path::{StorePath, StorePathName};

use super::rng::{Rng, hash};

/// Derivations, inputs before what needs them.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    pub drvs: Vec<SimDrv>,
    pub by_path: BTreeMap<StorePath, usize>,
}

/// One derivation.
#[derive(Clone, Debug)]
pub struct SimDrv {
    pub info: DrvInfo,
    pub recipe: u64,
    pub ignores_inputs: bool,
    pub run: Duration,
    pub fails: bool,
    /// It, or something it needs, fails.
    pub hopeless: bool,
}

/// How a random graph looks.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub drvs: usize,
    pub inputs_max: u64,
    /// Chances in a hundred.
    pub floating: u64,
    pub fixed: u64,
    pub failing: u64,
    pub two_outputs: u64,
    pub other_system: u64,
    /// Several derivations may fetch one path.
    pub shared_fixed: bool,
}

impl Shape {
    pub fn small(drvs: usize) -> Self {
        Self {
            drvs,
            inputs_max: 3,
            floating: 15,
            fixed: 15,
            failing: 6,
            two_outputs: 25,
            other_system: 20,
            shared_fixed: true,
        }
    }
}

pub fn path_of(number: u64, name: &str) -> StorePath {
    let mut digest = [0; 20];
    digest[..8].copy_from_slice(&number.to_le_bytes());
    digest[8..16].copy_from_slice(&hash(&[number]).to_le_bytes());
    StorePath::new(digest, StorePathName::new(name).unwrap())
}

pub fn number_of(path: &StorePath) -> u64 {
    u64::from_le_bytes(path.digest()[..8].try_into().unwrap())
}

pub fn out() -> OutputName {
    OutputName::new("out").unwrap()
}

impl Graph {
    /// A random one.
    pub fn random(rng: &mut Rng, shape: Shape) -> Self {
        let mut graph = Self::default();
        let salt = rng.next();
        let base = path_of(hash(&[salt, 7]), "source");
        for index in 0..shape.drvs {
            let drv = graph.random_drv(rng, shape, salt, index as u64, &base);
            graph.push(drv);
        }
        graph
    }

    pub fn push(&mut self, mut drv: SimDrv) {
        let mut inputs = drv.info.inputs.iter();
        drv.hopeless = drv.fails || inputs.any(|(path, _)| self.drvs[self.by_path[path]].hopeless);
        self.by_path.insert(drv.info.path.clone(), self.drvs.len());
        self.drvs.push(drv);
    }

    fn random_drv(&self, rng: &mut Rng, shape: Shape, salt: u64, index: u64, base: &StorePath) -> SimDrv {
        let recipe = if rng.chance(20) { rng.below(2) } else { 100 + index };
        let inputs = self.random_inputs(rng, shape);
        let kind = self.random_kind(rng, shape, &inputs);
        let fetched = if shape.shared_fixed { recipe } else { index };
        // who can be had decides whose path it is: else which of two is asked first would decide
        let hopeless = inputs
            .iter()
            .any(|(path, _)| self.drvs[self.by_path[path]].hopeless);
        let drv = path_of(hash(&[salt, index, 1]), "pkg.drv");
        let names = match kind {
            DerivationKind::CaFixed => vec!["out"],
            _ if recipe >= 100 && rng.chance(shape.two_outputs) => vec!["dev", "out"],
            _ => vec!["out"],
        };
        let outputs = names.into_iter().map(|name| {
            let path = match kind {
                DerivationKind::CaFixed => {
                    Some(path_of(hash(&[salt, 3, fetched, u64::from(hopeless)]), "fixed"))
                }
                DerivationKind::InputAddressed => Some(output_path(number_of(&drv), name)),
                _ => None,
            };
            (OutputName::new(name).unwrap(), path)
        });
        let outputs = outputs.collect();
        let needs = Requirements {
            system: if rng.chance(shape.other_system) {
                "b-linux"
            } else {
                "a-linux"
            }
            .to_owned(),
            network: kind == DerivationKind::CaFixed,
            memory_mib: u32::try_from(rng.below(3) * 512).unwrap(),
            features: BTreeSet::new(),
        };
        let run = Duration::from_millis(10 + rng.below(20_000));
        SimDrv {
            info: DrvInfo {
                path: drv,
                kind,
                outputs,
                inputs,
                sources: if rng.chance(50) {
                    vec![base.clone()]
                } else {
                    vec![]
                },
                needs,
                estimate: rng.chance(70).then_some(run),
                substitutable: rng.chance(90),
            },
            recipe,
            ignores_inputs: recipe.is_multiple_of(3),
            run,
            fails: recipe >= 100 && rng.chance(shape.failing),
            hopeless: false,
        }
    }

    fn random_inputs(&self, rng: &mut Rng, shape: Shape) -> Vec<(StorePath, Vec<OutputName>)> {
        if self.drvs.is_empty() {
            return Vec::new();
        }
        let mut chosen = BTreeMap::new();
        for _ in 0..rng.below(shape.inputs_max + 1) {
            let input = &self.drvs[rng.index(self.drvs.len())].info;
            let output = &input.outputs[rng.index(input.outputs.len())].0;
            let names: &mut BTreeSet<_> = chosen.entry(input.path.clone()).or_default();
            names.insert(output.clone());
        }
        chosen
            .into_iter()
            .map(|(path, names)| (path, names.into_iter().collect()))
            .collect()
    }

    fn random_kind(
        &self,
        rng: &mut Rng,
        shape: Shape,
        inputs: &[(StorePath, Vec<OutputName>)],
    ) -> DerivationKind {
        let floats = |path: &StorePath| {
            let kind = self.drvs[self.by_path[path]].info.kind;
            matches!(kind, DerivationKind::CaFloating | DerivationKind::Deferred)
        };
        if rng.chance(shape.fixed) {
            DerivationKind::CaFixed
        } else if rng.chance(shape.floating) {
            DerivationKind::CaFloating
        } else if inputs.iter().any(|(path, _)| floats(path)) {
            DerivationKind::Deferred
        } else {
            DerivationKind::InputAddressed
        }
    }

    /// The derivation with its inputs' paths in it.
    pub fn resolve(&self, index: usize, inputs: &[StorePath]) -> SimDrv {
        let drv = &self.drvs[index];
        let mut parts = vec![drv.recipe, 99];
        let paths: BTreeSet<&StorePath> = inputs.iter().collect();
        parts.extend(paths.iter().map(|path| number_of(path)));
        parts.extend(drv.info.sources.iter().map(number_of));
        parts.push(drv.info.needs.system.len() as u64 + u64::from(drv.info.needs.system.as_bytes()[0]));
        parts.push(drv.info.kind as u64 * 100 + drv.info.outputs.len() as u64);
        let path = path_of(hash(&parts), "resolved.drv");
        let mut info = drv.info.clone();
        info.inputs = Vec::new();
        info.sources.extend(paths.into_iter().cloned());
        if info.kind == DerivationKind::Deferred {
            info.kind = DerivationKind::InputAddressed;
            for (name, output) in &mut info.outputs {
                *output = Some(output_path(number_of(&path), name.as_str()));
            }
        }
        info.path = path;
        SimDrv { info, ..drv.clone() }
    }
}

impl SimDrv {
    /// What it makes.
    pub fn made(&self) -> Vec<(OutputName, StorePath)> {
        let content = if self.ignores_inputs {
            hash(&[self.recipe])
        } else {
            number_of(&self.info.path)
        };
        let outputs = self.info.outputs.iter();
        outputs
            .map(|(name, path)| {
                let made = || output_path(content, name.as_str());
                (name.clone(), path.clone().unwrap_or_else(made))
            })
            .collect()
    }
}

pub fn output_path(number: u64, name: &str) -> StorePath {
    let salt = name.bytes().fold(5, |sum, byte| hash(&[sum, u64::from(byte)]));
    path_of(
        hash(&[number, salt]),
        if name == "out" { "pkg" } else { "pkg-dev" },
    )
}
