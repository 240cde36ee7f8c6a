//! Leases: builds that outlive the call that started them.
//!
//! A caller that keeps a journal starts a build under a lease, loses its connection or its life, comes back, and attaches to
//! the build that went on without it. The builder knows a lease by three names and understands none of them.
//!
//! Invariants
//! - owners never meet: what one does with its leases changes nothing for another;
//! - ids of one owner and subject only grow: a builder refuses an id that is not higher than the last it saw for them, and
//!   stops the build of a lower one when a higher comes. So of two callers that both believe they own a build, the one with
//!   the later order wins, whatever the network does.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use igloo_status::Code;

/// Longest name of an owner, bytes.
pub const OWNER_SIZE_MAX: usize = 64;
/// Longest subject, bytes.
pub const SUBJECT_SIZE_MAX: usize = 512;

/// An order to build one thing, as it is known to whom gave it and to whom got it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lease {
    owner: LeaseOwner,
    subject: Bytes,
    id: u64,
}

impl Lease {
    /// The order `id` of `owner` to build `subject`.
    ///
    /// # Errors
    /// A subject that is empty or too long.
    pub fn new(owner: LeaseOwner, subject: Bytes, id: u64) -> Result<Self, ParseLeaseError> {
        if subject.is_empty() || subject.len() > SUBJECT_SIZE_MAX {
            return Err(ParseLeaseError::Subject { size: subject.len() });
        }
        Ok(Self { owner, subject, id })
    }

    /// Who gave the order.
    pub fn owner(&self) -> &LeaseOwner {
        &self.owner
    }

    /// What is built, in the owner's words: orders for the same subject replace each other.
    pub fn subject(&self) -> &Bytes {
        &self.subject
    }

    /// Which order it is.
    pub fn id(&self) -> u64 {
        self.id
    }
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} for {}",
            self.id,
            self.owner,
            self.subject.escape_ascii()
        )
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({self})")
    }
}

/// Who gives orders: a name that a caller keeps over its restarts, and that no other caller has. Whoever knows it can
/// attach to its builds, so it should be hard to guess where callers do not trust each other.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseOwner(Arc<str>);

impl LeaseOwner {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&str> for LeaseOwner {
    type Error = ParseLeaseError;

    /// From 1 to [`OWNER_SIZE_MAX`] ASCII letters, digits, and `-._`.
    fn try_from(name: &str) -> Result<Self, ParseLeaseError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if name.is_empty() || name.len() > OWNER_SIZE_MAX || !name.bytes().all(allowed) {
            return Err(ParseLeaseError::Owner);
        }
        Ok(Self(name.into()))
    }
}

impl fmt::Display for LeaseOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for LeaseOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// A lease that a builder still has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseStatus {
    /// Which.
    pub lease: Lease,
    /// Bytes its program has logged so far.
    pub log_bytes: u64,
    /// Whether the build has ended, and waits to be fetched.
    pub is_ended: bool,
}

/// Why something is no lease.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseLeaseError {
    /// The owner's name.
    #[error("the owner of a lease needs a name of 1 to {OWNER_SIZE_MAX} letters, digits, `-`, `.` and `_`")]
    Owner,
    /// The subject.
    #[error("the subject of a lease has {size} bytes; it must have 1 to {SUBJECT_SIZE_MAX}")]
    Subject {
        /// Bytes given.
        size: usize,
    },
}

impl ParseLeaseError {
    /// Always the sender's fault.
    pub fn code(&self) -> Code {
        Code::InvalidArgument
    }
}

/// Why a builder does not do what is asked of a lease.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// It never had it, or has let it go: nobody came for it in time, or it was released.
    #[error("the builder has no lease {lease}; start the build again")]
    Unknown {
        /// Which.
        lease: Lease,
    },
    /// An order as high or higher was given for the subject: whoever gave this one is not up to date.
    #[error("lease {lease} is outdated: the builder has been given {latest} for the same")]
    Outdated {
        /// Which.
        lease: Lease,
        /// The id it must be above.
        latest: u64,
    },
    /// Somebody else attached to it.
    #[error("lease {lease} was taken over by another caller")]
    TakenOver {
        /// Which.
        lease: Lease,
    },
}

impl LeaseError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Unknown { .. } => Code::NotFound,
            Self::Outdated { .. } => Code::FailedPrecondition,
            Self::TakenOver { .. } => Code::Aborted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        let owner = LeaseOwner::try_from("host-1.a_b").unwrap();
        for wrong in ["", "a b", "ä", "a/b", &"x".repeat(65)] {
            assert_eq!(
                LeaseOwner::try_from(wrong),
                Err(ParseLeaseError::Owner),
                "{wrong}"
            );
        }
        for size in [0, SUBJECT_SIZE_MAX + 1] {
            let lease = Lease::new(owner.clone(), vec![b'x'; size].into(), 1);
            assert_eq!(lease, Err(ParseLeaseError::Subject { size }));
        }
        let lease = Lease::new(owner, Bytes::from_static(b"a\x1b.drv"), 7).unwrap();
        assert_eq!(lease.to_string(), "7 of host-1.a_b for a\\x1b.drv");
    }
}
