//! Imports from derivation of one evaluation that runs behind gRPC, for a coordinator here.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../../../coordinator/driver/tests/common/mod.rs"]
mod common;
#[path = "../../../eval/service/tests/common/mod.rs"]
mod evaluations;
#[path = "../../../coordinator/driver/tests/common/ifd.rs"]
mod ifd;
#[path = "common/mod.rs"]
mod services;

use std::sync::{Arc, Mutex};

use evaluations::local;
use igloo_evaluator::Evaluator;
use igloo_remote::{Connection, EvaluatorService, RemoteEvaluator, Services};
use nix_compat::store_path::StoreDir;
use services::Service;

/// "What one evaluation needs independently is built side by side, and what needs none of it is told meanwhile", also when
/// questions, answers and derivations go over the wire.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn independent_imports_are_built_at_one_time() {
    let services = Mutex::new(Vec::new());
    ifd::two_at_once_however_asked(async |world| {
        let service = EvaluatorService {
            evaluator: Arc::new(local(&world.store)),
            dir: StoreDir::default(),
            evaluations_max: 1,
        };
        let offered = Services::new().with_evaluator(service);
        let service = Service::start(tempfile::tempdir().unwrap(), offered).await;
        let connection = Connection::open(&service.url).await.unwrap();
        services.lock().unwrap().push(service);
        let remote = RemoteEvaluator::new(&connection, StoreDir::default()).await;
        Arc::new(remote.unwrap()) as Arc<dyn Evaluator>
    })
    .await;
}
