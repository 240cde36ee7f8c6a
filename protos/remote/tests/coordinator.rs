//! A coordinator in another process: updates, reports, errors, logs, cancellation, back-pressure, liars.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeSet;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use common::{Service, blob};
use futures::stream::{self, Stream, StreamExt as _};
use igloo_build::BuildEvent;
use igloo_driver::job::{GoalReport, JobOptions, Wanted};
use igloo_driver::{Coordinator, Job, JobError, JobReport, Update};
use igloo_eval::io::Notice;
use igloo_evaluator::{EvaluateError, EvaluateRequest, Goal, Output};
use igloo_protos::coordinator::JOB_MESSAGE_BYTES_MAX;
use igloo_protos::igloo::coordinator::v1 as wire;
use igloo_protos::igloo::coordinator::v1::coordinator_service_server::{
    CoordinatorService, CoordinatorServiceServer,
};
use igloo_protos::igloo::coordinator::v1::job_event::Event;
use igloo_remote::{Connection, RemoteCoordinator, Services};
use igloo_status::Code;
use nix_compat::store_path::StorePath;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

type Ended = Pin<Box<dyn Future<Output = Result<JobReport, JobError>> + Send>>;
type Script = dyn Fn(Job, mpsc::Sender<Update>) -> Ended + Send + Sync;

/// A coordinator whose jobs do what a test says.
struct Scripted {
    script: Box<Script>,
    log: Option<Bytes>,
}

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scripted")
    }
}

#[async_trait]
impl Coordinator for Scripted {
    async fn run(&self, job: Job, updates: mpsc::Sender<Update>) -> Result<JobReport, JobError> {
        (self.script)(job, updates).await
    }

    async fn log(&self, drv: &StorePath) -> Result<Option<Bytes>, JobError> {
        if drv.name().to_string() == "broken.drv" {
            return Err(JobError::Host {
                reason: "the disk is gone".into(),
                code: Code::DataLoss,
            });
        }
        Ok(self.log.clone())
    }
}

fn scripted<F>(script: impl Fn(Job, mpsc::Sender<Update>) -> F + Send + Sync + 'static) -> Scripted
where
    F: Future<Output = Result<JobReport, JobError>> + Send + 'static,
{
    Scripted {
        script: Box::new(move |job, updates| Box::pin(script(job, updates))),
        log: None,
    }
}

async fn serve(coordinator: Scripted) -> (Service, RemoteCoordinator) {
    let services = Services::new().with_coordinator(Arc::new(coordinator));
    let service = Service::start(tempfile::tempdir().unwrap(), services).await;
    let connection = Connection::open(&service.url).await.unwrap();
    let coordinator = RemoteCoordinator::new(&connection).await.unwrap();
    (service, coordinator)
}

fn path(name: &str) -> StorePath {
    StorePath::parse(&format!("{}-{name}", "0".repeat(32))).unwrap()
}

fn job() -> Job {
    Job {
        wanted: Wanted::Paths(vec![path("a"), path("b")]),
        options: JobOptions::default(),
    }
}

fn goal(name: &str) -> GoalReport {
    GoalReport {
        goal: Goal {
            attribute: name.into(),
            drv: path("x.drv"),
            outputs: BTreeSet::new(),
        },
        outputs: Default::default(),
        failure: None,
        is_valid: true,
    }
}

/// The job arrives whole, updates arrive in order and before the report, and a report too long for a message arrives whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_runs_over_there() {
    let coordinator = scripted(|job, updates| async move {
        let Wanted::Paths(paths) = job.wanted else {
            panic!("another job")
        };
        assert!(job.options.keep_going);
        for path in &paths {
            let update = Update::FetchProgress {
                path: path.clone(),
                nar_bytes: 7,
            };
            updates.send(update).await.unwrap();
        }
        let event = BuildEvent::Log {
            sequence: 0,
            bytes: blob(600_000, 1).into(), // cut on the way
        };
        let drv = path("x.drv");
        updates.send(Update::Build { drv, event }).await.unwrap();
        Ok(JobReport {
            goals: (0..100_000).map(|index| goal(&index.to_string())).collect(),
            not_tried: paths,
            ..JobReport::default()
        })
    });
    let (_service, client) = serve(coordinator).await;
    let (sender, mut updates) = mpsc::channel(1024);
    let mut job = job();
    job.options.keep_going = true;
    let report = client.run(job, sender).await.unwrap();
    assert_eq!(report.goals.len(), 100_000);
    assert_eq!(report.goals[99_999].goal.attribute, "99999");
    assert_eq!(report.not_tried, [path("a"), path("b")]);
    let mut log = Vec::new();
    let mut fetched = Vec::new();
    while let Some(update) = updates.recv().await {
        match update {
            Update::FetchProgress { path, nar_bytes: 7 } => fetched.push(path),
            Update::Build {
                event: BuildEvent::Log { sequence, bytes },
                ..
            } => {
                assert_eq!(sequence, log.len() as u64);
                log.extend_from_slice(&bytes);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(fetched, [path("a"), path("b")]);
    assert_eq!(log, blob(600_000, 1));
}

/// Nobody need watch: a front end that drops the updates still gets its report.
#[tokio::test(flavor = "multi_thread")]
async fn dropped_updates_cost_only_the_show() {
    let coordinator = scripted(|_, updates| async move {
        for index in 0..1000 {
            let text = index.to_string();
            updates.send(Update::Notice(Notice::Trace(text))).await.unwrap();
        }
        Ok(JobReport::default())
    });
    let (_service, client) = serve(coordinator).await;
    let (sender, updates) = mpsc::channel(1);
    drop(updates);
    client.run(job(), sender).await.unwrap();
}

/// Errors keep their type, the text of a failed evaluation is whole, and a bug over there is the coordinator's.
#[tokio::test(flavor = "multi_thread")]
async fn errors_keep_their_type() {
    let whole = format!("error: {}\n\tat \x1b[34m«string»\x1b[0m", "x".repeat(1 << 20));
    let text = whole.clone();
    let coordinator = scripted(move |job, _| {
        let text = text.clone();
        async move {
            Err(match job.options.cores {
                0 => JobError::Evaluate(EvaluateError::Failed {
                    text,
                    exit: 102,
                    code: Code::Aborted,
                }),
                1 => JobError::Gone {
                    reason: "closing".into(),
                },
                2 => JobError::Invalid {
                    reason: "no goal".into(),
                },
                3 => JobError::Host {
                    reason: "disk full".into(),
                    code: Code::ResourceExhausted,
                },
                _ => panic!("a bug"),
            })
        }
    });
    let (_service, client) = serve(coordinator).await;
    let run = async |cores| {
        let mut job = job();
        job.options.cores = cores;
        client.run(job, mpsc::channel(1).0).await.unwrap_err()
    };
    let error = run(0).await;
    let JobError::Evaluate(EvaluateError::Failed {
        text,
        exit: 102,
        code,
    }) = error
    else {
        panic!("{error:?}")
    };
    assert_eq!((text, code), (whole, Code::Aborted));
    assert!(matches!(run(1).await, JobError::Gone { reason } if reason == "closing"));
    assert!(matches!(run(2).await, JobError::Invalid { reason } if reason == "no goal"));
    assert_eq!(run(3).await.code(), Code::ResourceExhausted);
    assert_eq!(run(4).await.code(), Code::Internal);
}

/// What one message cannot hold is refused here, in words.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_too_large_is_invalid() {
    let (_service, client) = serve(scripted(|_, _| async { Ok(JobReport::default()) })).await;
    let request = EvaluateRequest {
        inputs: vec![igloo_evaluator::Input::Stdin(
            vec![b' '; JOB_MESSAGE_BYTES_MAX + 1].into(),
        )],
        attributes: Vec::new(),
        arguments: Vec::new(),
        search_path: Vec::new(),
        options: Vec::new(),
        environment: Default::default(),
        base_dir: "/".into(),
        output: Output::Goals,
    };
    let job = Job {
        wanted: Wanted::Evaluated(Box::new(request)),
        options: JobOptions::default(),
    };
    let error = client.run(job, mpsc::channel(1).0).await.unwrap_err();
    assert!(matches!(error, JobError::Invalid { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_fetched() {
    for log in [Bytes::new(), blob(3 << 20, 3).into()] {
        let mut coordinator = scripted(|_, _| async { Ok(JobReport::default()) });
        coordinator.log = Some(log.clone());
        let (_service, client) = serve(coordinator).await;
        assert_eq!(client.log(&path("x.drv")).await.unwrap(), Some(log));
        let error = client.log(&path("broken.drv")).await.unwrap_err();
        assert_eq!(error.code(), Code::DataLoss);
        assert!(error.to_string().contains("the disk is gone"), "{error}");
    }
    let (_service, client) = serve(scripted(|_, _| async { Ok(JobReport::default()) })).await;
    assert_eq!(client.log(&path("x.drv")).await.unwrap(), None);
}

struct CountDrop(Arc<AtomicUsize>);

impl Drop for CountDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A coordinator that says one word and then waits for ever, and a count of its jobs that were dropped.
fn endless() -> (Scripted, Arc<AtomicUsize>) {
    let dropped = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&dropped);
    let coordinator = scripted(move |_, updates| {
        let guard = CountDrop(Arc::clone(&counter));
        async move {
            let _guard = guard;
            let hello = Update::Notice(Notice::Trace("hello".into()));
            updates.send(hello).await.unwrap();
            std::future::pending().await
        }
    });
    (coordinator, dropped)
}

/// Promise: dropping the future cancels the job.
#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_call_cancels_the_job() {
    let (coordinator, dropped) = endless();
    let (_service, client) = serve(coordinator).await;
    let (sender, mut updates) = mpsc::channel(1);
    let run = tokio::spawn(async move { client.run(job(), sender).await });
    assert!(matches!(updates.recv().await, Some(Update::Notice(_))));
    assert_eq!(dropped.load(Ordering::SeqCst), 0);
    run.abort();
    common::until("the job is dropped", || dropped.load(Ordering::SeqCst) == 1).await;
}

/// A coordinator that dies is gone; that says nothing about the job.
#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_dies_is_gone() {
    let (coordinator, _dropped) = endless();
    // a runtime of its own: taking it down is as sudden as a kill
    let server = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let (service, client) = server.spawn(serve(coordinator)).await.unwrap();
    drop(client);
    let connection = Connection::open(&service.url).await.unwrap();
    let client = RemoteCoordinator::new(&connection).await.unwrap();
    let (sender, mut updates) = mpsc::channel(1);
    let run = tokio::spawn(async move { client.run(job(), sender).await });
    assert!(updates.recv().await.is_some());
    server.shutdown_background();
    let error = run.await.unwrap().unwrap_err();
    assert!(matches!(error, JobError::Gone { .. }), "{error:?}");
}

/// Promise: a slow watcher holds the updates of its job back, and none is dropped.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_watcher_holds_the_job_back() {
    const PIECE: usize = 100_000;
    let sent = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&sent);
    let coordinator = scripted(move |_, updates| {
        let sent = Arc::clone(&counter);
        async move {
            for index in 0..400u64 {
                let event = BuildEvent::Log {
                    sequence: index * PIECE as u64,
                    bytes: vec![b'x'; PIECE].into(),
                };
                let drv = path("x.drv");
                updates.send(Update::Build { drv, event }).await.unwrap();
                sent.store((index + 1) * PIECE as u64, Ordering::SeqCst);
            }
            Ok(JobReport::default())
        }
    });
    let (_service, client) = serve(coordinator).await;
    let (sender, mut updates) = mpsc::channel(1);
    let run = tokio::spawn(async move { client.run(job(), sender).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let held = sent.load(Ordering::SeqCst);
    assert!(held < 20_000_000, "{held} bytes were sent although nobody reads");
    let mut seen = 0;
    while let Some(update) = updates.recv().await {
        let Update::Build {
            event: BuildEvent::Log { bytes, .. },
            ..
        } = update
        else {
            panic!("{update:?}")
        };
        seen += bytes.len();
    }
    assert_eq!(seen, 400 * PIECE);
    run.await.unwrap().unwrap();
}

/// A server that answers as it was told.
#[derive(Clone, Default)]
struct Liar {
    events: Vec<Event>,
    log: Vec<Bytes>,
    endless: bool,
}

#[tonic::async_trait]
impl CoordinatorService for Liar {
    type RunStream = Pin<Box<dyn Stream<Item = Result<wire::JobEvent, Status>> + Send>>;
    type GetLogStream = Pin<Box<dyn Stream<Item = Result<wire::LogPart, Status>> + Send>>;

    async fn run(&self, _: Request<wire::Job>) -> Result<Response<Self::RunStream>, Status> {
        let events = self.events.clone().into_iter();
        let events = events.map(|event| Ok(wire::JobEvent { event: Some(event) }));
        Ok(Response::new(stream::iter(events).boxed()))
    }

    async fn get_log(&self, _: Request<wire::GetLogRequest>) -> Result<Response<Self::GetLogStream>, Status> {
        let parts = self
            .log
            .clone()
            .into_iter()
            .map(|bytes| Ok(wire::LogPart { bytes }));
        Ok(Response::new(match self.endless {
            true => stream::iter(parts.collect::<Vec<_>>()).cycle().boxed(),
            false => stream::iter(parts).boxed(),
        }))
    }
}

async fn victim(liar: Liar) -> (tempfile::TempDir, RemoteCoordinator) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let incoming = UnixListenerStream::new(UnixListener::bind(&socket).unwrap());
    let service = CoordinatorServiceServer::new(liar).max_encoding_message_size(64 << 20);
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(incoming));
    let url = format!("grpc+unix://{}", socket.display());
    let connection = Connection::open(&url).await.unwrap();
    (dir, RemoteCoordinator::new(&connection).await.unwrap())
}

async fn lied_to(events: Vec<Event>) -> Result<JobReport, JobError> {
    let (_dir, client) = victim(Liar {
        events,
        ..Liar::default()
    })
    .await;
    client.run(job(), mpsc::channel(16).0).await
}

#[tokio::test(flavor = "multi_thread")]
async fn liars_get_typed_errors() {
    let finished = |not_tried_count| {
        Event::Finished(wire::Finished {
            not_tried_count,
            ..Default::default()
        })
    };
    let part = |name: &str| {
        Event::Report(wire::ReportPart {
            not_tried: vec![name.into()],
            ..Default::default()
        })
    };
    assert!(lied_to(vec![finished(0)]).await.is_ok());
    let cases = [
        (vec![], Code::Unavailable),
        (vec![finished(1)], Code::DataLoss),
        (vec![finished(u64::MAX)], Code::DataLoss),
        (vec![part("no path"), finished(1)], Code::DataLoss),
        (vec![part(&path("a").to_string())], Code::Unavailable),
        (
            vec![Event::FetchEnded(Default::default()), finished(0)],
            Code::DataLoss,
        ),
        (vec![Event::Failed(Default::default())], Code::Unknown),
    ];
    for (events, code) in cases {
        let error = lied_to(events.clone()).await.unwrap_err();
        assert_eq!(error.code(), code, "{events:?}: {error:?}");
    }
    let huge = wire::Failure {
        log_tail: vec![vec![0; 16 << 20].into()],
        ..Default::default()
    };
    let huge = wire::ReportPart {
        failures: vec![huge],
        ..Default::default()
    };
    let error = lied_to(vec![Event::Report(huge)]).await.unwrap_err();
    assert_eq!(error.code(), Code::OutOfRange, "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_without_end_is_given_up() {
    let liar = Liar {
        log: vec![vec![b'x'; 2 << 20].into()],
        endless: true,
        ..Liar::default()
    };
    let (_dir, client) = victim(liar).await;
    let error = client.log(&path("x.drv")).await.unwrap_err();
    assert_eq!(error.code(), Code::OutOfRange);
}
