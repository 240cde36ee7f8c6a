//! What a node of the graph is, and how far it has come.
//!
//! Three kinds: a *path* is valid when it is in the store, was fetched, or was made (either will do); a *build* is one
//! derivation and needs all its inputs; a *want* is what a client asked for.
//!
//! ```text
//! path   Idle -> Info? -> Checking -> Obtaining { fetch track | producer } -> Valid | Failed
//! build  Idle -> Reading? -> NeedsInputs -> Resolving? -> Ready -> Leased -> Committing -> Idle (its paths are valid)
//!                            |              -> Joined (another build does it)   |-> Backoff -> Ready
//!                            '-> Failed                                         '-> Failed
//! ```
//!
//! Invariants
//! - a node does something only while it is wanted; what is in flight when that ends may still end well, and then counts;
//! - a build is `Leased` under one lease; older leases of it are lost or being cancelled.

use std::sync::Arc;

use nix_compat::derivation::{DerivationKind, OutputName};
use nix_compat::store_path::StorePath;

use crate::drv::Requirements;
use crate::event::{Offer, Want};
use crate::failure::Failure;
use crate::graph::NodeIx;
use crate::id::{BuilderId, ClientId, LeaseId, Time};
use crate::intern::NameIx;

/// What a node is.
#[derive(Debug)]
pub(crate) enum Kind {
    /// A free place.
    Free,
    Path(Box<PathNode>),
    Build(Box<BuildNode>),
    Want(Box<WantNode>),
}

/// A failure that answers until a time.
#[derive(Debug, Clone)]
pub(crate) struct Failed {
    pub failure: Arc<Failure>,
    pub until: Time,
}

/// A store path, or an output whose path is not known yet.
#[derive(Debug)]
pub(crate) struct PathNode {
    /// `None` until the derivation is known, or built where it is floating.
    pub path: Option<StorePath>,
    /// The output it was first named as.
    pub output: Option<(NodeIx, NameIx)>,
    /// Derivations that make it, the first to be tried first.
    pub producers: Vec<NodeIx>,
    /// Of the producers, how many have failed in this try.
    pub tried: usize,
    pub state: PathState,
    pub fetch: FetchTrack,
    /// A question about it is out (store, then substituters).
    pub asked_store: bool,
    pub asked_offers: bool,
    /// A fetch of it is out.
    pub fetching: bool,
    pub attempts: u32,
    pub nar_size: u64,
    pub no_offer_until: Time,
    pub offer: Option<Box<Offer>>,
}

#[derive(Debug, Clone)]
pub(crate) enum PathState {
    /// Nobody wants it, or not yet.
    Idle,
    /// Waits for its derivation to be read.
    Info,
    /// The store is asked.
    Checking,
    /// The store gave no answer; asked again at that time.
    Retry(Time),
    /// It is not in the store: fetched, or made, or both.
    Obtaining,
    /// It stands for another node, which has its path.
    Joined,
    Valid {
        since: Time,
    },
    Failed(Failed),
}

/// The way of a path from a substituter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FetchTrack {
    /// None, or given up.
    Off,
    /// The substituters are asked.
    Asking,
    /// What it refers to is not valid yet.
    References,
    /// Some of that cannot be had.
    Broken,
    /// Waits for its turn.
    Queued,
    /// Being fetched.
    Running,
    /// Tried again at that time.
    Retry(Time),
}

/// One derivation.
#[derive(Debug)]
pub(crate) struct BuildNode {
    pub drv: StorePath,
    pub info: Option<Box<Info>>,
    /// Its outputs that anybody has named: their path nodes.
    pub outputs: Vec<(NameIx, NodeIx)>,
    pub state: BuildState,
    /// It is being read.
    pub reading: bool,
    /// Wants of all its outputs, which wait for its info.
    pub waiting_for_info: Vec<NodeIx>,
    pub attempt: u32,
    pub infrastructure_failures: u32,
    pub transient_failures: u32,
    /// Given to a larger builder after running out of memory.
    pub larger: Option<Arc<Requirements>>,
    /// Builders that failed with it.
    pub avoid: Vec<BuilderId>,
    /// A lease from before a restart, whose builder may come back.
    pub restored: Option<LeaseId>,
    /// The resolved derivation it has joined.
    pub joined: Option<NodeIx>,
    /// Paths it may not lose sight of though they are valid: their paths are asked for when all are there.
    pub held: Vec<NodeIx>,
}

/// What is known of a derivation.
#[derive(Debug)]
pub(crate) struct Info {
    pub kind: DerivationKind,
    pub inputs: Box<[(NodeIx, NameIx)]>,
    pub sources: Box<[NodeIx]>,
    /// All outputs, in order of name.
    pub outputs: Box<[(NameIx, Option<StorePath>)]>,
    pub needs: Arc<Requirements>,
    pub estimate_millis: u64,
    pub substitutable: bool,
}

#[derive(Debug, Clone)]
pub(crate) enum BuildState {
    Idle,
    Reading,
    NeedsInputs,
    Resolving,
    Joined,
    Ready,
    Leased(LeaseId),
    Committing,
    Backoff(Time),
    Failed(Failed),
}

/// Something a client wants.
#[derive(Debug)]
pub(crate) struct WantNode {
    pub client: ClientId,
    pub want: Want,
    /// Names and path nodes, when they are known.
    pub outputs: Vec<(Option<OutputName>, NodeIx)>,
    pub state: WantState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WantState {
    Info,
    Waiting,
    Answered,
}

impl PathNode {
    pub(crate) fn new(path: Option<StorePath>, output: Option<(NodeIx, NameIx)>) -> Self {
        Self {
            path,
            output,
            producers: Vec::new(),
            tried: 0,
            state: PathState::Idle,
            fetch: FetchTrack::Off,
            asked_store: false,
            asked_offers: false,
            fetching: false,
            attempts: 0,
            nar_size: 0,
            no_offer_until: Time::ZERO,
            offer: None,
        }
    }

    pub(crate) fn is_valid(&self) -> bool {
        matches!(self.state, PathState::Valid { .. })
    }
}

impl BuildNode {
    pub(crate) fn new(drv: StorePath) -> Self {
        Self {
            drv,
            info: None,
            outputs: Vec::new(),
            state: BuildState::Idle,
            reading: false,
            waiting_for_info: Vec::new(),
            attempt: 0,
            infrastructure_failures: 0,
            transient_failures: 0,
            larger: None,
            avoid: Vec::new(),
            restored: None,
            joined: None,
            held: Vec::new(),
        }
    }

    /// The path node of an output, where anybody has named it.
    pub(crate) fn output(&self, name: NameIx) -> Option<NodeIx> {
        let found = self.outputs.iter().find(|(other, _)| *other == name);
        found.map(|(_, node)| *node)
    }

    /// The lease it runs under.
    pub(crate) fn lease(&self) -> Option<LeaseId> {
        match self.state {
            BuildState::Leased(lease) => Some(lease),
            _ => None,
        }
    }
}
