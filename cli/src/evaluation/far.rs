//! Evaluations in another process: what the setting `evaluator` asks for.

use std::sync::Arc;

use async_trait::async_trait;
use igloo_evaluator::{EvaluateEvent, EvaluateIo, EvaluateRequest, Evaluator as _};
use igloo_remote::{Connection, RemoteEvaluator};
use igloo_store::StoreUrl;
use igloo_store_io::{RealiseError, RealisedOutput, Realiser, Wanted, Writes};
use tokio::sync::mpsc;

use super::builds::Builds;
use super::{Tell, WORKERS, print_notice};
use crate::context::Context;
use crate::failure::Failure;
use crate::stores;

/// Events on their way to the screen.
const EVENTS_MAX: usize = 64;

/// Has an evaluation run by the evaluator of that URL; the first failure to tell what it says ends it.
pub fn evaluate(
    context: &Context,
    url: &str,
    request: EvaluateRequest,
    tell: &mut Tell<'_>,
) -> Result<(), Failure> {
    let builds = builds_for(context, &request)?;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(WORKERS).enable_all().build();
    let runtime = runtime
        .map_err(|error| Failure::new(anyhow::Error::new(error).context("cannot wait for the evaluator")))?;
    runtime.block_on(async {
        let connection = Connection::open(url).await?;
        let evaluator = RemoteEvaluator::new(&connection, stores::dir()?).await?;
        let (events, mut receiver) = mpsc::channel(EVENTS_MAX);
        let realiser: Arc<dyn Realiser> = match &builds {
            Some(builds) => Arc::<Builds>::clone(builds),
            None => Arc::new(Nobody),
        };
        let mut evaluation = evaluator.evaluate(request, EvaluateIo { events, realiser });
        let result = loop {
            tokio::select! {
                biased;
                Some(event) = receiver.recv() => hear(event, tell)?,
                result = &mut evaluation => break result,
            }
        };
        while let Ok(event) = receiver.try_recv() {
            hear(event, tell)?;
        }
        if let Some(builds) = &builds {
            builds.close().await;
        }
        Ok(result.map(drop)?)
    })
}

/// What the evaluator wrote can be built if it wrote it to the store of this command.
fn builds_for(context: &Context, request: &EvaluateRequest) -> Result<Option<Arc<Builds>>, Failure> {
    let is_served = matches!(context.store_url.parse()?, StoreUrl::Remote { .. });
    if !is_served {
        return Ok(None);
    }
    let store = stores::lazy(context, Writes::Stored)?;
    Ok(Some(Arc::new(Builds::new(context, &request.options, store))))
}

fn hear(event: EvaluateEvent, tell: &mut Tell<'_>) -> Result<(), Failure> {
    match event {
        EvaluateEvent::Notice(notice) => {
            print_notice(notice);
            Ok(())
        }
        event => tell(event),
    }
}

/// Builds nothing: the evaluator writes to another store than this command's.
struct Nobody;

#[async_trait]
impl Realiser for Nobody {
    async fn realise(&self, _: Vec<Wanted>) -> Result<Vec<RealisedOutput>, RealiseError> {
        Err(RealiseError::Unavailable {
            source: "the evaluator is another process, and this command's store is not served; serve it with `igloo store \
                     daemon`, and give its URL to both"
                .into(),
        })
    }
}
