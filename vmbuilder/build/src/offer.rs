//! What a builder offers, and how busy it is.

use std::collections::BTreeSet;
use std::time::Duration;

/// What a builder offers. It changes only when the builder is started anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuilderOffer {
    /// Systems it runs builds for, as in [`crate::Constraints::system`].
    pub systems: BTreeSet<String>,
    /// Features it has.
    pub features: BTreeSet<String>,
    /// Features that a build must ask for to be given to it.
    pub mandatory_features: BTreeSet<String>,
    /// Builds at once; 0 when it does not say. More wait for their turn there.
    pub slots: u32,
    /// Memory for builds together, MiB; 0 when it does not say.
    pub memory_mib: u32,
    /// Whether builds may reach the network there.
    pub network: bool,
    /// URLs of the stores it knows: it can read inputs there and put outputs there by itself.
    pub stores: BTreeSet<String>,
    /// Names the machine it runs on, the same after restarts and for all builders of that machine; empty when it does not
    /// say.
    pub machine: String,
    /// How long a build under a lease goes on without its caller; `None` where builds end with the call.
    pub unattended: Option<Duration>,
}

/// How busy a builder is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BuilderLoad {
    /// How long its machine lets work wait, in thousandths of the time (pressure stall information); 0 when it does not say.
    pub permille: u32,
    /// Builds it runs.
    pub running: u32,
}
