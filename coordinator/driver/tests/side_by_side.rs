//! Imports from derivation of one evaluation, all in this process: evaluator, coordinator and builder.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;
#[path = "../../../eval/service/tests/common/mod.rs"]
mod evaluations;
#[path = "common/ifd.rs"]
mod ifd;

use std::sync::Arc;

use evaluations::local;
use igloo_evaluator::Evaluator;

/// "What one evaluation needs independently is built side by side, and what needs none of it is told meanwhile."
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn independent_imports_are_built_at_one_time() {
    ifd::two_at_once_however_asked(async |world| Arc::new(local(&world.store)) as Arc<dyn Evaluator>).await;
}
