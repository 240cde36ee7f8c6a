//! What the caller hears while an evaluation runs.
//!
//! Invariants
//! - a derivation is told after all it refers to, and is in the store when it is told;
//! - goals and printed values come in the order of the request, a goal after its derivation where this evaluation made it.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use igloo_eval::io::Notice;
use nix_compat::derivation::{Derivation, OutputName};
use nix_compat::store_path::StorePath;

/// Something that happened in an evaluation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EvaluateEvent {
    /// A derivation was instantiated.
    Derivation {
        /// Its path.
        path: StorePath,
        /// The derivation.
        derivation: Arc<Derivation>,
    },
    /// A part that was asked for is this derivation.
    Goal(Goal),
    /// A value that was asked for, as text.
    Printed(Bytes),
    /// The expression or the evaluator says something.
    Notice(Notice),
}

/// A derivation that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goal {
    /// The attribute path it was found at; empty for the whole.
    pub attribute: String,
    /// The derivation.
    pub drv: StorePath,
    /// The outputs wanted; none means all.
    pub outputs: BTreeSet<OutputName>,
}
