//! What the machine is told.
//!
//! Rules for whoever tells it
//! - every action that asks gets an answer, an error at the least; the machine puts no clock on stores or substituters;
//! - events may be repeated and may come late: what fits nothing is dropped and counted ([`crate::Stats::ignored`]);
//! - a path is said to be valid only when its whole closure is.

use std::collections::BTreeSet;
use std::time::Duration;

use nix_compat::derivation::OutputName;
use nix_compat::store_path::StorePath;

use crate::drv::DrvInfo;
use crate::id::{BuilderId, ClientId, LeaseId, SourceId, WantId};
use crate::urgency::{Priority, Purpose};

/// Something that happened outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A client opens. Repeating it changes its options.
    ClientCame {
        /// Who.
        client: ClientId,
        /// How it wants to be served.
        options: ClientOptions,
    },
    /// A client is gone: its wants are dropped, without replies.
    ClientGone {
        /// Who.
        client: ClientId,
    },
    /// A client wants something; exactly one reply follows, unless the client goes.
    Wanted {
        /// Who. One that never came is opened with the default options.
        client: ClientId,
        /// What.
        want: Want,
    },
    /// A client does not want something any more. The reply is `Cancelled`.
    Cancelled {
        /// Who.
        client: ClientId,
        /// What.
        want: WantId,
    },
    /// A derivation is known: it was read, or an evaluator tells of it unasked.
    DrvKnown(Box<DrvInfo>),
    /// A derivation cannot be read.
    DrvUnreadable {
        /// Its path.
        drv: StorePath,
        /// Why.
        reason: String,
    },
    /// The answer to [`crate::Action::Resolve`].
    Resolved {
        /// The derivation that was to be resolved.
        drv: StorePath,
        /// The resolved one, or why there is none.
        resolved: Result<Box<DrvInfo>, String>,
    },
    /// Answers of the store, in any portions.
    StoreAnswers(Vec<(StoreKey, StoreAnswer)>),
    /// Answers of the substituters together, in any portions.
    Offers(Vec<(StorePath, OfferAnswer)>),
    /// A fetch has ended.
    Fetched {
        /// What was fetched.
        path: StorePath,
        /// How it ended.
        result: FetchResult,
    },
    /// A path that was valid is gone (garbage collection, damage).
    PathGone {
        /// The path.
        path: StorePath,
    },
    /// A builder is there, or there again.
    BuilderUp {
        /// Who.
        builder: BuilderId,
        /// What it offers.
        offers: BuilderOffer,
        /// Leases that it still runs, or has ended without having been heard.
        running: BTreeSet<LeaseId>,
    },
    /// A builder takes nothing new; what runs there goes on.
    BuilderDraining {
        /// Who.
        builder: BuilderId,
    },
    /// A builder is gone, with all it ran.
    BuilderDown {
        /// Who.
        builder: BuilderId,
    },
    /// A builder is still there.
    Heartbeat {
        /// Who.
        builder: BuilderId,
        /// How busy its machine is, in thousandths (pressure stall information); only to choose among equals.
        load_permille: u32,
    },
    /// A build has ended.
    Ended {
        /// Which.
        lease: LeaseId,
        /// How.
        end: BuildEnd,
    },
    /// The answer to [`crate::Action::Commit`].
    Committed {
        /// The lease whose outputs were to be committed.
        lease: LeaseId,
        /// Whether they are valid now.
        result: CommitResult,
    },
    /// Failures of a derivation or a path are forgotten: the next want tries again.
    Forget {
        /// The derivation or path.
        path: StorePath,
    },
    /// Time has passed ([`crate::Action::WakeAt`]).
    Tick,
}

/// How a client wants to be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    /// What a failure does to its other wants.
    pub on_failure: OnFailure,
    /// Its share of the builders against other clients; 0 counts as 1.
    pub weight: u32,
}

/// What a failed want does to the others of its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// They are cancelled, and the failure is told at once.
    Stop,
    /// They go on, and all that can be built for the failed one is built before the failure is told (`--keep-going`).
    KeepGoing,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            on_failure: OnFailure::Stop,
            weight: 1,
        }
    }
}

/// Something to be made valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// The client's name for it.
    pub id: WantId,
    /// What.
    pub target: Target,
    /// What for.
    pub purpose: Purpose,
    /// Order among its like.
    pub priority: Priority,
}

/// What may be wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Outputs of a derivation.
    Outputs {
        /// The derivation.
        drv: StorePath,
        /// Which outputs; none means all.
        outputs: BTreeSet<OutputName>,
    },
    /// A store path, whoever makes it.
    Path(StorePath),
}

/// What the store is asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StoreKey {
    /// A path: is it valid?
    Path(StorePath),
    /// An output whose path is not known: is a realisation of it known, and valid?
    Output {
        /// The derivation, as it is named (not resolved).
        drv: StorePath,
        /// The output.
        output: OutputName,
    },
}

/// What the store says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreAnswer {
    /// It is valid, with its closure.
    Present {
        /// Where: the path asked for, or the output's.
        path: StorePath,
        /// Bytes of its NAR.
        nar_size: u64,
    },
    /// It is not there.
    Absent,
    /// The store gave no answer.
    Error {
        /// Why.
        reason: String,
    },
}

/// What substituters say of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OfferAnswer {
    /// One has it, and is trusted with it.
    Offer(Offer),
    /// None has it.
    None,
    /// They gave no answer: counts as none, for now.
    Error {
        /// Why.
        reason: String,
    },
}

/// A path that can be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// From where.
    pub source: SourceId,
    /// Bytes of its NAR.
    pub nar_size: u64,
    /// What it refers to; itself may be among them.
    pub references: Vec<StorePath>,
    /// How long the fetch may take.
    pub estimate: Duration,
}

/// How a fetch ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchResult {
    /// The path is valid.
    Valid,
    /// What came is not what was offered. It is not fetched again.
    Corrupt {
        /// What is wrong with it.
        reason: String,
    },
    /// It did not come.
    Error {
        /// Why.
        reason: String,
    },
}

/// What a builder offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuilderOffer {
    /// Systems it builds for.
    pub systems: BTreeSet<String>,
    /// Features it has.
    pub features: BTreeSet<String>,
    /// Features that a build must ask for to be given to it.
    pub mandatory_features: BTreeSet<String>,
    /// Memory for builds together, MiB; 0 leaves it to the builder.
    pub memory_mib: u32,
    /// Builds at once.
    pub slots: u32,
    /// Further builds at once that an evaluation waits for.
    pub slots_for_evaluation: u32,
    /// Whether builds may reach the network there.
    pub network: bool,
    /// Names of the stores it knows: it reads inputs there and puts outputs there by itself.
    pub stores: BTreeSet<String>,
}

/// How a build ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildEnd {
    /// Its outputs are taken in, and wait to be committed.
    Built {
        /// All of them.
        outputs: Vec<MadeOutput>,
        /// How long it ran.
        run: Duration,
    },
    /// It failed, or the builder did.
    Failed(BuildFault),
}

/// An output that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MadeOutput {
    /// Its name.
    pub name: OutputName,
    /// Its path.
    pub path: StorePath,
    /// Bytes of its NAR.
    pub nar_size: u64,
}

/// Who is to blame, and what would help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildFault {
    /// The build: its exit code, a limit it reached, a wrong output. It would fail again.
    Permanent {
        /// What happened.
        reason: String,
    },
    /// The moment: a download that broke off, a full disk. It is tried again, anywhere.
    Transient {
        /// What happened.
        reason: String,
    },
    /// The machine had too little memory. It is tried once more with twice as much.
    OutOfMemory {
        /// How much it had, MiB.
        memory_mib: u32,
    },
    /// The builder, its machine or the way to it. It is tried again, elsewhere.
    Infrastructure {
        /// What happened.
        reason: String,
    },
    /// Inputs are not valid any more. They are looked for again.
    InputsMissing {
        /// Which.
        paths: Vec<StorePath>,
    },
    /// It was stopped: the machine said so, or the builder is closing down, which counts as its failure.
    Cancelled,
}

/// Whether outputs were committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitResult {
    /// They are valid, durable and signed.
    Valid,
    /// They may not be: another content is stated, a forbidden reference. It would happen again.
    Rejected {
        /// Why.
        reason: String,
    },
    /// The store could not; the build is done again.
    Error {
        /// Why.
        reason: String,
    },
}
