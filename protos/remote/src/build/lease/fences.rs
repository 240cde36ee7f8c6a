//! The last id seen for each owner and subject.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use igloo_build::lease::{Lease, LeaseError, LeaseOwner};

type Key = (LeaseOwner, Bytes);

/// See the module. Remembers the subjects that were new last.
#[derive(Debug)]
pub(super) struct Fences {
    last: HashMap<Key, u64>,
    order: VecDeque<Key>,
    subjects_max: usize,
}

impl Fences {
    pub(super) fn new(subjects_max: usize) -> Self {
        Self {
            last: HashMap::new(),
            order: VecDeque::new(),
            subjects_max,
        }
    }

    /// Lets an id pass once, and from then on only higher ones.
    pub(super) fn pass(&mut self, lease: &Lease) -> Result<(), LeaseError> {
        let key = (lease.owner().clone(), lease.subject().clone());
        if let Some(last) = self.last.get_mut(&key) {
            if *last >= lease.id() {
                return Err(LeaseError::Outdated {
                    lease: lease.clone(),
                    latest: *last,
                });
            }
            *last = lease.id();
            return Ok(());
        }
        if self.order.len() >= self.subjects_max
            && let Some(oldest) = self.order.pop_front()
        {
            self.last.remove(&oldest);
        }
        self.order.push_back(key.clone());
        self.last.insert(key, lease.id());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(owner: &str, subject: &'static str, id: u64) -> Lease {
        let owner = LeaseOwner::try_from(owner).unwrap();
        Lease::new(owner, Bytes::from_static(subject.as_bytes()), id).unwrap()
    }

    #[test]
    fn ids_only_grow_for_one_owner_and_subject() {
        let mut fences = Fences::new(8);
        assert_eq!(fences.pass(&lease("a", "x", 5)), Ok(()));
        for (id, passes) in [(5, false), (4, false), (6, true), (5, false)] {
            assert_eq!(fences.pass(&lease("a", "x", id)).is_ok(), passes, "{id}");
        }
        assert_eq!(fences.pass(&lease("a", "y", 1)), Ok(()));
        assert_eq!(fences.pass(&lease("b", "x", 1)), Ok(()));
    }

    #[test]
    fn the_memory_has_a_bound() {
        let mut fences = Fences::new(2);
        for subject in ["x", "y", "z"] {
            fences.pass(&lease("a", subject, 5)).unwrap();
        }
        assert_eq!((fences.last.len(), fences.order.len()), (2, 2));
        assert!(fences.pass(&lease("a", "y", 1)).is_err());
    }
}
