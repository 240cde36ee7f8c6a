//! Decides what is built, fetched and answered, where, and in which order.
//!
//! [`Machine`] is told what happened ([`Event`]) and when ([`Time`]), and says what is to be done ([`Action`]). It does
//! nothing itself: no I/O, no thread, no clock, no chance but a seed. So one driver runs it over a network, another in a test
//! with years in seconds, and a journal ([`Record`]) brings it back after a crash. `examples/bare_machine.rs` shows a driver.
//!
//! Invariants (the simulation in `tests/` checks them)
//! - same seed, same events, same actions;
//! - a derivation has one live lease at a time, and a later lease has a higher id (its epoch), over restarts as well;
//! - a want is answered once, with success only after all of it is committed, unless its client goes;
//! - no slot is free while a build is ready that fits it;
//! - what is restored from any prefix of the journal ends with the same results;
//! - the cost of an event does not grow with the graph, but with what the event settles, in bounded portions.

pub mod action;
mod builders;
mod config;
mod drv;
pub mod event;
mod failure;
mod graph;
mod history;
mod id;
mod intern;
pub mod journal;
mod lane;
mod leases;
mod machine;
mod node;
mod ready;
pub mod resolve;
mod spread;
mod timers;
mod urgency;

pub use action::{Action, Answer, Dispatch, Provenance};
pub use config::{Config, Hedge};
pub use drv::{
    DescribeDerivationError, DrvInfo, FEATURES_MAX, INPUTS_MAX, OUTPUTS_MAX, RefuseDerivationError,
    Requirements,
};
pub use event::{
    BuildEnd, BuildFault, BuilderOffer, ClientOptions, CommitResult, Event, FetchResult, MadeOutput, Offer,
    OfferAnswer, OnFailure, StoreAnswer, StoreKey, Target, Want,
};
pub use failure::{Failure, FailureKind};
pub use history::History;
pub use id::{BuilderId, ClientId, LeaseId, SourceId, Time, WantId};
pub use journal::Record;
pub use machine::{Machine, Stats};
pub use resolve::{ResolveError, ResolvedInput, resolve};
pub use urgency::{Priority, Purpose};
