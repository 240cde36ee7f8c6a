//! How long builds took, by what they are called.
//!
//! An estimate is the moving average of builds of the same package name (without version) and system. Whoever drives the
//! machine keeps one of these, and fills [`crate::DrvInfo::estimate`] from it.
//!
//! Invariants
//! - at most `names_max` names are kept; the one not seen for longest goes first.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::millis;

/// Past durations.
#[derive(Clone, Debug)]
pub struct History {
    known: BTreeMap<(String, String), Entry>,
    by_age: BTreeMap<u64, (String, String)>,
    names_max: usize,
    clock: u64,
}

#[derive(Clone, Debug)]
struct Entry {
    millis: u64,
    seen: u64,
}

impl History {
    /// An empty history of at most so many names.
    pub fn new(names_max: usize) -> Self {
        Self {
            known: BTreeMap::new(),
            by_age: BTreeMap::new(),
            names_max: names_max.max(1),
            clock: 0,
        }
    }

    /// A build ended well after this long. `name` is the derivation's, without hash and `.drv`.
    pub fn add(&mut self, name: &str, system: &str, run: Duration) {
        let key = key(name, system);
        self.clock += 1;
        let run = millis(run);
        let millis = match self.known.get(&key) {
            Some(old) => {
                self.by_age.remove(&old.seen);
                // a quarter of the new one
                old.millis - old.millis / 4 + run / 4
            }
            None => run,
        };
        let seen = self.clock;
        self.by_age.insert(seen, key.clone());
        self.known.insert(key, Entry { millis, seen });
        if self.known.len() > self.names_max
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.known.remove(&oldest);
        }
    }

    /// How long a build may take; `None` where nothing like it is known.
    pub fn estimate(&self, name: &str, system: &str) -> Option<Duration> {
        let entry = self.known.get(&key(name, system))?;
        Some(Duration::from_millis(entry.millis))
    }
}

fn key(name: &str, system: &str) -> (String, String) {
    (package(name).to_owned(), system.to_owned())
}

/// The name before the version: before the first dash that no letter follows (Nix's `parseDrvName`).
fn package(name: &str) -> &str {
    let bytes = name.as_bytes();
    let cut = (1..bytes.len()).find(|at| bytes[at - 1] == b'-' && !bytes[*at].is_ascii_alphabetic());
    cut.and_then(|at| name.get(..at - 1)).unwrap_or(name)
}
