//! Evaluators over the wire: who asks cannot tell; a peer that misbehaves gains nothing.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;
#[path = "../../../eval/service/tests/common/mod.rs"]
mod evaluations;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use common::{Service, channel};
use evaluations::{Copies, Nobody, Silent, assert_whole, evaluate, goals, json, lines, local, memory_store};
use futures::StreamExt as _;
use igloo_evaluator::{EvaluateError, EvaluateEvent, EvaluateIo, EvaluateReport, EvaluateRequest, Evaluator};
use igloo_protos::evaluate::evaluate_message;
use igloo_protos::igloo::evaluator::v1 as wire;
use igloo_protos::igloo::evaluator::v1::evaluator_service_client::EvaluatorServiceClient;
use igloo_protos::igloo::evaluator::v1::evaluator_service_server::{self, EvaluatorServiceServer};
use igloo_remote::{Connection, EvaluatorService, RemoteEvaluator, Services};
use igloo_status::Code;
use igloo_store::Store;
use nix_compat::store_path::StoreDir;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

/// Longest time until something that happens "soon" must have happened: a hang fails the test, slowness does not.
const SOON: Duration = Duration::from_secs(120);

async fn serve(evaluator: Arc<dyn Evaluator>) -> (Service, RemoteEvaluator) {
    let service = EvaluatorService {
        evaluator,
        dir: StoreDir::default(),
        evaluations_max: 4,
    };
    let services = Services::new().with_evaluator(service);
    let service = Service::start(tempfile::tempdir().unwrap(), services).await;
    let connection = Connection::open(&service.url).await.unwrap();
    let remote = RemoteEvaluator::new(&connection, StoreDir::default())
        .await
        .unwrap();
    (service, remote)
}

async fn remote(store: &Store) -> (Service, RemoteEvaluator) {
    serve(Arc::new(local(store))).await
}

const D: &str = r#"let d = name: derivation { inherit name; system = "s"; builder = "b"; }; in "#;

/// The same requests in this process and in another: the same events, in the same order, and the same end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_cannot_tell() {
    let large = "x".repeat(600 << 10);
    let texts = [
        goals(&format!(
            r#"{D} {{ a = builtins.trace "seen" (d "a"); b = [ (d "b") ]; c = builtins.warn "w" (d "c"); }}"#
        )),
        goals(&format!(r#"{D} d "a" // {{ outputName = "dev"; }}"#)),
        goals(&format!(
            r#"derivation {{ name = "large"; system = "s"; builder = "b"; text = "{large}"; }}"#
        )),
        json(&format!(r#"{{ large = "{large}"; n = 1.5; }}"#)),
        json(r#"throw "no""#),
        json("1 +"),
        json(r#"import (derivation { name = "n"; system = "s"; builder = "b"; content = "41 + 1"; })"#),
        json(
            r#"builtins.readFile (derivation { name = "n"; system = "s"; builder = "b"; content = "text"; })"#,
        ),
        EvaluateRequest {
            options: vec![("nonsense".to_owned(), "1".to_owned())],
            ..json("builtins.currentTime")
        },
        EvaluateRequest {
            base_dir: "relative".to_owned(),
            ..json("1")
        },
    ];
    for request in texts {
        let mut both = Vec::new();
        for far in [false, true] {
            let store = memory_store();
            let realiser = Copies::new(&store);
            let (result, events) = if far {
                let (_service, remote) = remote(&store).await;
                evaluate(&remote, request.clone(), realiser).await
            } else {
                evaluate(&local(&store), request.clone(), realiser).await
            };
            let end = match result {
                Ok(EvaluateReport { derivations, .. }) => format!("{derivations} derivations"),
                Err(EvaluateError::Failed { text, exit, code }) => format!("{text} {exit} {code}"),
                Err(error) => error.to_string(),
            };
            both.push((events, end, assert_whole(&store).await));
        }
        assert_eq!(both[0], both[1], "{:.200}", format!("{request:?}"));
    }
}

/// "What the evaluator told before it asked goes out before the question."
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_come_behind_what_was_told() {
    let store = memory_store();
    let (_service, remote) = remote(&store).await;
    let realiser = Copies::new(&store);
    let (events, mut receiver) = mpsc::channel(64);
    let io = EvaluateIo {
        events,
        realiser: Arc::<Copies>::clone(&realiser),
    };
    let text = r#"import (derivation { name = "n"; system = "s"; builder = "b"; content = "7"; })"#;
    let evaluation = tokio::spawn(async move { remote.evaluate(json(text), io).await });
    let first = receiver.recv().await.unwrap();
    assert_eq!(lines(&[first]), ["derivation n"]);
    let second = receiver.recv().await.unwrap();
    assert_eq!(lines(&[second]), ["printed 7"]);
    assert_eq!(realiser.asked.lock().unwrap().len(), 1);
    assert_eq!(evaluation.await.unwrap().unwrap().derivations, 1);
}

/// Dropping the client's future stops an evaluation that waits for a build, on the other side too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_leaves_takes_the_evaluation_along() {
    let store = memory_store();
    let watched = Arc::new(Watched {
        inner: Arc::new(local(&store)),
        ended: Arc::default(),
    });
    let ended = Arc::clone(&watched.ended);
    let (_service, remote) = serve(watched).await;
    let realiser = Arc::new(Silent::default());
    let (events, _receiver) = mpsc::channel(64);
    let io = EvaluateIo {
        events,
        realiser: Arc::<Silent>::clone(&realiser),
    };
    let text = r#"import (derivation { name = "n"; system = "s"; builder = "b"; })"#;
    let evaluation = tokio::spawn(async move { remote.evaluate(json(text), io).await });
    realiser.0.notified().await;
    evaluation.abort();
    tokio::time::timeout(SOON, ended.notified()).await.unwrap();
    assert_whole(&store).await;
}

/// Tells when an evaluation is over, however it ends.
#[derive(Debug)]
struct Watched {
    inner: Arc<dyn Evaluator>,
    ended: Arc<tokio::sync::Notify>,
}

#[async_trait]
impl Evaluator for Watched {
    async fn evaluate(
        &self,
        request: EvaluateRequest,
        io: EvaluateIo,
    ) -> Result<EvaluateReport, EvaluateError> {
        struct Tell(Arc<tokio::sync::Notify>);
        impl Drop for Tell {
            fn drop(&mut self) {
                self.0.notify_one();
            }
        }
        let _tell = Tell(Arc::clone(&self.ended));
        self.inner.evaluate(request, io).await
    }
}

/// Panics.
#[derive(Debug)]
struct Broken;

#[async_trait]
impl Evaluator for Broken {
    async fn evaluate(&self, _: EvaluateRequest, _: EvaluateIo) -> Result<EvaluateReport, EvaluateError> {
        panic!("a bug");
    }
}

/// A bug of the evaluator is not blamed on the expression.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_is_the_evaluators_fault() {
    let (_service, remote) = serve(Arc::new(Broken)).await;
    let (result, _) = evaluate(&remote, json("1"), Arc::new(Nobody)).await;
    assert!(
        matches!(result, Err(EvaluateError::Unavailable { .. })),
        "{result:?}"
    );
}

/// What callers send that they may not ends their own call, and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_break_the_protocol_are_refused() {
    use wire::evaluate_input::Input;
    let store = memory_store();
    let (service, remote) = remote(&store).await;
    let request = Input::Request(evaluate_message(json(
        r#"import (derivation { name = "n"; system = "s"; builder = "b"; })"#,
    )));
    let answer = |id| {
        Input::Realised(wire::Realised {
            id,
            answer: Some(wire::realised::Answer::Outputs(wire::RealisedOutputs::default())),
        })
    };
    let too_many = Input::Request(wire::EvaluateRequest {
        inputs: vec![wire::Input::default(); (1 << 16) + 1],
        base_dir: "/".to_owned(),
        ..wire::EvaluateRequest::default()
    });
    let nameless = Input::Realised(wire::Realised {
        id: 0,
        answer: Some(wire::realised::Answer::Outputs(wire::RealisedOutputs {
            outputs: vec![wire::RealisedOutput::default()],
        })),
    });
    let cases: Vec<Vec<Option<Input>>> = vec![
        vec![],
        vec![None],
        vec![Some(answer(0))],
        vec![Some(too_many)],
        vec![Some(request.clone()), Some(request.clone())],
        vec![Some(request.clone()), Some(answer(99))],
        vec![Some(request.clone()), Some(nameless)],
        vec![Some(request), None],
    ];
    for case in cases {
        let shown = format!("{case:.300?}");
        let inputs = case.into_iter().map(|input| wire::EvaluateInput { input });
        let sent = futures::stream::iter(inputs.collect::<Vec<_>>()).chain(futures::stream::pending());
        let mut client = EvaluatorServiceClient::new(channel(&service).await);
        let call = async {
            let mut events = client.evaluate(sent).await?.into_inner();
            while events.message().await?.is_some() {}
            Ok::<_, Status>(())
        };
        // a caller that sends nothing is waited for, but holds nothing
        let Ok(ended) = tokio::time::timeout(Duration::from_secs(2), call).await else {
            assert!(shown.starts_with("[]"), "{shown}");
            continue;
        };
        assert_eq!(ended.unwrap_err().code(), tonic::Code::InvalidArgument, "{shown}");
    }
    let (result, _) = evaluate(&remote, json("1"), Arc::new(Nobody)).await;
    result.unwrap();
}

/// An evaluator that sends what it was told to.
#[derive(Debug)]
struct Lying(Vec<wire::evaluate_event::Event>);

#[tonic::async_trait]
impl evaluator_service_server::EvaluatorService for Lying {
    type EvaluateStream =
        std::pin::Pin<Box<dyn futures::Stream<Item = Result<wire::EvaluateEvent, Status>> + Send>>;

    async fn evaluate(
        &self,
        _: Request<Streaming<wire::EvaluateInput>>,
    ) -> Result<Response<Self::EvaluateStream>, Status> {
        let events = self.0.clone().into_iter();
        let events = events.map(|event| Ok(wire::EvaluateEvent { event: Some(event) }));
        Ok(Response::new(Box::pin(futures::stream::iter(
            events.collect::<Vec<_>>(),
        ))))
    }
}

async fn lie(
    events: Vec<wire::evaluate_event::Event>,
) -> (Result<EvaluateReport, EvaluateError>, Vec<EvaluateEvent>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
    let server = tonic::transport::Server::builder().add_service(EvaluatorServiceServer::new(Lying(events)));
    let serving = tokio::spawn(server.serve_with_incoming(incoming));
    let url = format!("grpc+unix://{}", path.display());
    let connection = Connection::open(&url).await.unwrap();
    let remote = RemoteEvaluator::new(&connection, StoreDir::default())
        .await
        .unwrap();
    let told = evaluate(&remote, json("1"), Arc::new(Nobody)).await;
    serving.abort();
    told
}

/// An evaluator that lies, stops short or asks without end is given up, and never blamed on the expression.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn evaluators_that_break_the_protocol_are_given_up() {
    use wire::evaluate_event::Event;
    let drv = "00000000000000000000000000000000-d.drv".to_owned();
    let printed = |more| {
        Event::Printed(wire::PrintedPart {
            text: (&b"x"[..]).into(),
            more,
        })
    };
    let question = |id| {
        Event::Realise(wire::Realise {
            id,
            wanted: vec![wire::Wanted {
                wanted: Some(wire::wanted::Wanted::Path(drv.clone())),
            }],
        })
    };
    let finished = Event::Finished(wire::EvaluateReport::default());
    let cases = vec![
        vec![],
        vec![printed(false)],
        vec![printed(true), finished.clone()],
        vec![Event::Derivation(wire::DerivationPart {
            path: drv.clone(),
            text: (&b"Derive([],[],[],\"\",\"\",[],[])"[..]).into(),
            more: false,
        })],
        vec![Event::Goal(wire::Goal {
            drv: "../../etc".to_owned(),
            ..wire::Goal::default()
        })],
        vec![Event::Realise(wire::Realise::default())],
    ];
    for case in cases {
        let shown = format!("{case:?}");
        let (result, _) = lie(case).await;
        let error = result.unwrap_err();
        assert!(
            matches!(error, EvaluateError::Unavailable { .. }),
            "{shown}: {error}"
        );
        assert_eq!(error.code(), Code::Unavailable);
    }
    let (result, events) = lie(vec![question(1), printed(false), finished]).await;
    result.unwrap();
    assert_eq!(lines(&events), ["printed x"]);
}
