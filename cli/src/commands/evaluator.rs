//! `igloo evaluator --listen ADDRESS`

use std::sync::Arc;

use igloo_evaluator::LocalEvaluator;
use igloo_remote::{Address, EvaluatorService, Listener, Services};
use igloo_store_io::FetchLimits;
use tokio::runtime::Handle;

use super::say;
use crate::args::EvaluatorArguments;
use crate::context::Context;
use crate::evaluation::{fetcher, machine, trees};
use crate::failure::Failure;
use crate::stop::Stop;
use crate::stores;

/// Runs evaluations for others until it is told to stop.
///
/// Files are read on this machine. What evaluations make goes to the store, which the callers read as well: a server both
/// know, for an embedded store has one writer.
pub async fn run(context: &Context, arguments: &EvaluatorArguments, stop: Stop) -> Result<(), Failure> {
    let address = Address::parse_listen(&arguments.listen)?;
    let store = stores::open(context).await?;
    let dir = store.dir.clone();
    let evaluator = LocalEvaluator::new(store, Handle::current(), Arc::new(machine))
        .with_fetcher(Arc::new(fetcher()), FetchLimits::default())
        .with_trees(trees());
    let service = EvaluatorService {
        evaluator: Arc::new(evaluator),
        dir,
        evaluations_max: u32::from(arguments.max_jobs),
    };
    let listener = Listener::bind(&address).await?;
    say(format_args!("listening on {}", listener.address()))?;
    Ok(Services::new()
        .with_evaluator(service)
        .serve(listener, stop.asked())
        .await?)
}
