//! What the machine wants done, one small module for each kind of action.
//!
//! | action | step | answer |
//! |---|---|---|
//! | `ReadDrvs` | [`read`] | `DrvKnown`, `DrvUnreadable` |
//! | `QueryStore` | [`query`] | `StoreAnswers` |
//! | `QuerySubstituters` | [`substitute`] | `Offers` |
//! | `Fetch`, `CancelFetch` | [`fetch`] | `Fetched` |
//! | `Resolve`, `NoteRealisations` | [`resolve`] | `Resolved` |
//! | `Dispatch`, `Attach`, `CancelBuild` | [`dispatch`] | `Ended` |
//! | `Commit` | [`commit`] | `Committed` |
//! | `Reply` | [`reply`] | |
//!
//! Invariants
//! - none of them waits: each begins a task, which tells the machine when it is done;
//! - every action that asks is answered, also by an error.

pub(crate) mod call;
pub(crate) mod commit;
pub(crate) mod dispatch;
mod fetch;
mod query;
mod read;
mod reply;
pub(crate) mod resolve;
mod substitute;

use std::sync::Arc;

use igloo_coordinator::Action;

use super::shared::Shared;

pub(crate) use commit::Finished;
pub(crate) use dispatch::FailedRun;
use dispatch::Way;

/// Begins what an action asks for. Records of the journal and wake-ups are the machine's task's own business.
pub(crate) fn begin(shared: &Arc<Shared>, action: Action) {
    match action {
        Action::ReadDrvs { drvs } => read::begin(shared, drvs),
        Action::QueryStore { keys } => query::begin(shared, keys),
        Action::QuerySubstituters { paths } => substitute::begin(shared, paths),
        Action::Fetch { path, source } => fetch::begin(shared, path, source),
        Action::CancelFetch { path } => fetch::cancel(shared, &path),
        Action::Resolve { drv, inputs } => resolve::begin(shared, drv, inputs),
        Action::NoteRealisations { drv, outputs } => resolve::note(shared, drv, outputs),
        Action::Dispatch(order) => dispatch::begin(shared, order, Way::Start),
        Action::Attach(order) => dispatch::begin(shared, order, Way::Attach),
        Action::CancelBuild { lease, builder } => dispatch::cancel(shared, lease, builder),
        Action::Commit {
            drv,
            outputs: _, // those that were told to the machine: the whole records wait in `Transfers`
            provenance,
        } => commit::begin(shared, drv, provenance),
        Action::Reply { client, want, answer } => reply::begin(shared, client, want, answer),
        Action::Journal(_) | Action::WakeAt(_) => {}
    }
}
