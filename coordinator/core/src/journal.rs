//! What must outlive the process.
//!
//! The journal holds what nobody else knows: who wants what, and which builder was given what. What is valid is for the store
//! to say, and what a derivation needs is for the derivation; neither is here but for the reader of a journal.
//!
//! Invariants
//! - any prefix of a journal is a journal;
//! - a record is given before the action it covers ([`crate::action`]), so after a crash nothing runs that no record names;
//! - replies are at least once: the record that a want is answered follows the reply.

mod text;

use nix_compat::derivation::OutputName;
use nix_compat::store_path::StorePath;

use crate::event::{ClientOptions, Want};
use crate::id::{BuilderId, ClientId, LeaseId, WantId};

pub use text::{FORMAT, ParseRecordError, RECORD_SIZE_MAX};

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A client opened, or changed its options.
    ClientCame {
        /// Who.
        client: ClientId,
        /// How it wants to be served.
        options: ClientOptions,
    },
    /// A client is gone, with its wants.
    ClientGone {
        /// Who.
        client: ClientId,
    },
    /// A client wants something.
    Wanted {
        /// Who.
        client: ClientId,
        /// What.
        want: Want,
    },
    /// A want was answered or cancelled.
    Answered {
        /// Whose.
        client: ClientId,
        /// Which.
        want: WantId,
    },
    /// A builder was given a build.
    Leased {
        /// The order.
        lease: LeaseId,
        /// How often the derivation had been given to a builder, this time included.
        attempt: u32,
        /// To whom.
        builder: BuilderId,
        /// What.
        drv: StorePath,
    },
    /// A lease is over: the build ended, was lost, or nobody wants it.
    Released {
        /// Which.
        lease: LeaseId,
    },
    /// Outputs are valid. For the reader; replay asks the store.
    Committed {
        /// The derivation.
        drv: StorePath,
        /// The lease they were made under.
        lease: LeaseId,
        /// Its outputs.
        outputs: Vec<(OutputName, StorePath)>,
    },
    /// A derivation failed for good. For the reader; after a restart it is tried again if it is still wanted.
    Failed {
        /// The derivation.
        drv: StorePath,
        /// Why.
        reason: String,
    },
    /// Leases up to this one have been given, whether or not a record of them is kept. First in a compacted journal.
    LeasesGiven {
        /// The last.
        last: LeaseId,
    },
}
