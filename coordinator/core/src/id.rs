//! Names of the parties, and of what passes between them.
//!
//! Invariants
//! - an id is given by one side only: clients, wants and builders by the caller, leases by the machine;
//! - a lease's id is never used twice, not even after a restart (it is in the journal before anybody else sees it).

use std::fmt;
use std::time::Duration;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

id! {
    /// Who asks: an evaluator, a command line, a job of a CI server. The caller chooses it.
    ClientId
}
id! {
    /// One thing a client asks for. The client chooses it; it is unique among that client's.
    WantId
}
id! {
    /// Who builds. The caller chooses it; a builder that comes back is known by it.
    BuilderId
}
id! {
    /// One order to one builder. The machine chooses it, counting up over restarts: it is the epoch by which a builder, or a
    /// store, tells a later order for a derivation from an earlier one.
    LeaseId
}
id! {
    /// A substituter, as the caller numbers them.
    SourceId
}

/// A moment: milliseconds since any beginning the caller chooses and keeps while the machine lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The beginning.
    pub const ZERO: Self = Self(0);
    /// A moment that never comes.
    pub const NEVER: Self = Self(u64::MAX);

    /// That many milliseconds after the beginning.
    pub fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the beginning.
    pub fn as_millis(self) -> u64 {
        self.0
    }

    /// This long after; [`Time::NEVER`] where that is past all numbers.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(millis(wait)))
    }

    /// From an earlier moment to this one; zero if it is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Whole milliseconds, as many as fit.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
