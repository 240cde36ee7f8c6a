//! Evaluations in another process: what the setting `evaluator` asks for.

use std::sync::Arc;

use async_trait::async_trait;
use igloo_evaluator::{EvaluateEvent, EvaluateIo, EvaluateRequest, Evaluator as _};
use igloo_remote::{Connection, RemoteEvaluator};
use igloo_store_io::{RealiseError, RealisedOutput, Realiser, Wanted};
use tokio::sync::mpsc;

use super::{Tell, print_notice};
use crate::failure::Failure;
use crate::stores;

/// Events on their way to the screen.
const EVENTS_MAX: usize = 64;

/// Has an evaluation run by the evaluator of that URL; the first failure to tell what it says ends it.
pub fn evaluate(url: &str, request: EvaluateRequest, tell: &mut Tell<'_>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime
        .map_err(|error| Failure::new(anyhow::Error::new(error).context("cannot wait for the evaluator")))?;
    runtime.block_on(async {
        let connection = Connection::open(url).await?;
        let evaluator = RemoteEvaluator::new(&connection, stores::dir()?).await?;
        let (events, mut receiver) = mpsc::channel(EVENTS_MAX);
        let realiser = Arc::new(Nobody);
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
        Ok(result.map(drop)?)
    })
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

/// Builds nothing.
struct Nobody;

#[async_trait]
impl Realiser for Nobody {
    async fn realise(&self, _: Vec<Wanted>) -> Result<Vec<RealisedOutput>, RealiseError> {
        Err(RealiseError::Unavailable {
            source: "this command builds nothing; build it first".into(),
        })
    }
}
