//! Short numbers for names that come again and again.
//!
//! Invariants
//! - tables are hashed with the machine's seed and never iterated, so the order of nothing depends on them;
//! - output names are never forgotten, and there are at most [`NAMES_MAX`].

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, DefaultHasher, Hasher as _};
use std::sync::Arc;

use nix_compat::derivation::OutputName;
use nix_compat::store_path::StorePath;

use crate::drv::Requirements;
use crate::graph::NodeIx;

/// Most different output names. All of nixpkgs has some hundred.
const NAMES_MAX: usize = 1 << 16;

/// A known output name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NameIx(u32);

/// Hashes with a seed, the same in every run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SeededState(pub u64);

impl BuildHasher for SeededState {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0);
        hasher
    }
}

/// All tables.
#[derive(Debug)]
pub(crate) struct Intern {
    pub paths: HashMap<StorePath, NodeIx, SeededState>,
    pub drvs: HashMap<StorePath, NodeIx, SeededState>,
    names: HashMap<OutputName, NameIx, SeededState>,
    name_list: Vec<OutputName>,
    needs: BTreeSet<Arc<Requirements>>,
    needs_swept: usize,
}

impl Intern {
    pub(crate) fn new(seed: u64) -> Self {
        let state = SeededState(seed);
        Self {
            paths: HashMap::with_hasher(state),
            drvs: HashMap::with_hasher(state),
            names: HashMap::with_hasher(state),
            name_list: Vec::new(),
            needs: BTreeSet::new(),
            needs_swept: 64,
        }
    }

    /// The number of a name; `None` when there are too many.
    pub(crate) fn name(&mut self, name: &OutputName) -> Option<NameIx> {
        if let Some(known) = self.names.get(name) {
            return Some(*known);
        }
        if self.name_list.len() >= NAMES_MAX {
            return None;
        }
        let number = NameIx(u32::try_from(self.name_list.len()).ok()?);
        self.name_list.push(name.clone());
        self.names.insert(name.clone(), number);
        Some(number)
    }

    pub(crate) fn name_of(&self, number: NameIx) -> &OutputName {
        &self.name_list[number.0 as usize]
    }

    /// One copy of what many derivations need alike.
    pub(crate) fn needs(&mut self, needs: Requirements) -> Arc<Requirements> {
        if let Some(known) = self.needs.get(&needs) {
            return known.clone();
        }
        if self.needs.len() >= self.needs_swept {
            self.needs.retain(|known| Arc::strong_count(known) > 1);
            self.needs_swept = (self.needs.len() * 2).max(64);
        }
        let needs = Arc::new(needs);
        self.needs.insert(needs.clone());
        needs
    }
}
