//! What the machine wants done.
//!
//! Rules for whoever does it
//! - actions of one batch, and batches, are begun in order; what follows an [`Action::Journal`] begins when that record is
//!   durable. Several records may become durable together;
//! - doing an action twice is harmless: after a restart, some are given again.

use std::sync::Arc;

use nix_compat::derivation::OutputName;
use nix_compat::store_path::StorePath;

use crate::event::{MadeOutput, StoreKey};
use crate::failure::Failure;
use crate::id::{BuilderId, ClientId, LeaseId, SourceId, Time, WantId};
use crate::journal::Record;
use crate::resolve::ResolvedInput;

/// Something to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Append to the journal; see the rules above.
    Journal(Record),
    /// Read derivations; [`crate::Event::DrvKnown`] or `DrvUnreadable` answers for each.
    ReadDrvs {
        /// Their paths, the more urgent first.
        drvs: Vec<StorePath>,
    },
    /// Ask the store; [`crate::Event::StoreAnswers`] answers for each.
    QueryStore {
        /// What for, the more urgent first.
        keys: Vec<StoreKey>,
    },
    /// Ask the substituters; [`crate::Event::Offers`] answers for each.
    QuerySubstituters {
        /// What for, the more urgent first.
        paths: Vec<StorePath>,
    },
    /// Fetch a path and make it valid; its references are. [`crate::Event::Fetched`] answers.
    Fetch {
        /// What.
        path: StorePath,
        /// From where.
        source: SourceId,
    },
    /// Stop a fetch; no answer is awaited.
    CancelFetch {
        /// Of what.
        path: StorePath,
    },
    /// Put its inputs' paths into a derivation ([`crate::resolve()`]); [`crate::Event::Resolved`] answers.
    Resolve {
        /// The derivation.
        drv: StorePath,
        /// All inputs it names.
        inputs: Vec<ResolvedInput>,
    },
    /// Give a build to a builder; [`crate::Event::Ended`] answers.
    Dispatch(Dispatch),
    /// Attend a build that its builder still has, from before a restart or a silence, unless that is done already;
    /// [`crate::Event::Ended`] answers. Order and lease are those the builder was given.
    Attach(Dispatch),
    /// Stop a build; [`crate::Event::Ended`] still answers.
    CancelBuild {
        /// Which.
        lease: LeaseId,
        /// Where it runs.
        builder: BuilderId,
    },
    /// Check the outputs of a build, sign them, make them valid in one step; [`crate::Event::Committed`] answers.
    Commit {
        /// The derivation. A resolved one makes its realisations known as well.
        drv: StorePath,
        /// Its outputs.
        outputs: Vec<MadeOutput>,
        /// Where they come from, to be kept with them.
        provenance: Provenance,
    },
    /// Note which paths the outputs of a derivation have that another, resolved one made: its realisations. No answer is
    /// awaited; what is not noted is only found out again.
    NoteRealisations {
        /// The derivation, not resolved.
        drv: StorePath,
        /// Those of its outputs that are known.
        outputs: Vec<(OutputName, StorePath)>,
    },
    /// Tell a client.
    Reply {
        /// Whom.
        client: ClientId,
        /// Of what.
        want: WantId,
        /// How it ended.
        answer: Answer,
    },
    /// Send an [`crate::Event::Tick`] at that time, or when there is nothing to do after it. The latest such order counts.
    WakeAt(Time),
}

/// An order to build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dispatch {
    /// Its id: higher than that of every earlier lease, so whoever fences takes the highest.
    pub lease: LeaseId,
    /// How often this derivation has been given to a builder since the machine knows of it, this time included.
    pub attempt: u32,
    /// To whom.
    pub builder: BuilderId,
    /// What: a derivation whose inputs are all valid, and none of them without a path.
    pub drv: StorePath,
    /// Memory to give it, MiB; 0 leaves it to the builder.
    pub memory_mib: u32,
}

/// Where outputs come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provenance {
    /// The lease they were made under.
    pub lease: LeaseId,
    /// How often the derivation had been given to a builder.
    pub attempt: u32,
    /// Who made them.
    pub builder: BuilderId,
    /// When the builder was told, on the caller's clock.
    pub ordered: Time,
    /// When it was heard to have ended.
    pub ended: Time,
}

/// How a want ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// All of it is valid.
    Valid {
        /// The outputs wanted, by name; for a path, nothing.
        outputs: Vec<(OutputName, StorePath)>,
    },
    /// Some of it cannot be had. Its root says whether the wanted derivation failed, or one it needs.
    Failed(Arc<Failure>),
    /// It was cancelled: by the client, or by the failure of another want of a client that stops at failures.
    Cancelled,
}
