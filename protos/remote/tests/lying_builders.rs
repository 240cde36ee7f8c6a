//! Builders that lie about builds, leases and themselves: typed errors, and nothing of theirs is taken for a fact.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::pin::Pin;

use bytes::Bytes;
use common::builders::{drain, io, request};
use common::castore;
use futures::stream::{self, Stream, StreamExt as _};
use igloo_build::lease::{Lease, LeaseError, LeaseOwner};
use igloo_build::{BuildError, BuildReport, Builder as _};
use igloo_castore::directory::Directory;
use igloo_protos::castore::root_entry;
use igloo_protos::igloo::build::v1 as wire;
use igloo_protos::igloo::build::v1::build_event::Event;
use igloo_protos::igloo::build::v1::build_service_server::{BuildService, BuildServiceServer};
use igloo_remote::{Connection, GrpcBuilder};
use igloo_status::Code;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status, Streaming};

type Stream_<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A builder that answers as it was told, whatever it is asked.
#[derive(Clone, Default)]
struct Liar {
    capabilities: wire::Capabilities,
    events: Vec<Event>,
    leases: Vec<wire::LeaseStatus>,
    permille: u32,
}

impl Liar {
    fn events(&self) -> Stream_<wire::BuildEvent> {
        let events = self.events.clone().into_iter();
        stream::iter(events.map(|event| Ok(wire::BuildEvent { event: Some(event) }))).boxed()
    }
}

#[tonic::async_trait]
impl BuildService for Liar {
    type BuildStream = Stream_<wire::BuildEvent>;
    type AttachStream = Stream_<wire::BuildEvent>;
    type ServeInputsStream = Stream_<wire::TunnelFrame>;

    async fn get_capabilities(
        &self,
        _: Request<wire::GetCapabilitiesRequest>,
    ) -> Result<Response<wire::Capabilities>, Status> {
        Ok(Response::new(self.capabilities.clone()))
    }

    async fn get_load(&self, _: Request<wire::GetLoadRequest>) -> Result<Response<wire::Load>, Status> {
        Ok(Response::new(wire::Load {
            permille: self.permille,
            running: u32::MAX,
        }))
    }

    async fn build(
        &self,
        request: Request<Streaming<wire::BuildRequestPart>>,
    ) -> Result<Response<Self::BuildStream>, Status> {
        let mut parts = request.into_inner();
        while parts.message().await?.is_some() {}
        Ok(Response::new(self.events()))
    }

    async fn attach(&self, _: Request<wire::AttachRequest>) -> Result<Response<Self::AttachStream>, Status> {
        Ok(Response::new(self.events()))
    }

    async fn list_leases(
        &self,
        _: Request<wire::ListLeasesRequest>,
    ) -> Result<Response<wire::ListLeasesResponse>, Status> {
        let leases = self.leases.clone();
        Ok(Response::new(wire::ListLeasesResponse { leases }))
    }

    async fn release_lease(
        &self,
        _: Request<wire::ReleaseLeaseRequest>,
    ) -> Result<Response<wire::ReleaseLeaseResponse>, Status> {
        Ok(Response::new(wire::ReleaseLeaseResponse {}))
    }

    async fn serve_inputs(
        &self,
        _: Request<Streaming<wire::TunnelFrame>>,
    ) -> Result<Response<Self::ServeInputsStream>, Status> {
        let welcome = stream::iter([Ok(wire::TunnelFrame::default())]);
        Ok(Response::new(welcome.chain(stream::pending()).boxed()))
    }
}

async fn victim(mut liar: Liar) -> (tempfile::TempDir, GrpcBuilder) {
    liar.capabilities.unattended_ms.get_or_insert(1000);
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let incoming = UnixListenerStream::new(UnixListener::bind(&socket).unwrap());
    let server = tonic::transport::Server::builder().add_service(BuildServiceServer::new(liar));
    tokio::spawn(server.serve_with_incoming(incoming));
    let connection = Connection::open(&format!("grpc+unix://{}", socket.display()))
        .await
        .unwrap();
    (dir, GrpcBuilder::new(&connection).await.unwrap())
}

fn lease() -> Lease {
    Lease::new(
        LeaseOwner::try_from("me").unwrap(),
        Bytes::from_static(b"x.drv"),
        1,
    )
    .unwrap()
}

fn attached(paths: &[&'static str]) -> Event {
    Event::Attached(wire::Attached {
        outputs: paths
            .iter()
            .map(|path| Bytes::from_static(path.as_bytes()))
            .collect(),
    })
}

fn log(sequence: u64) -> Event {
    Event::Log(wire::Log {
        sequence,
        bytes: Bytes::from_static(b"log"),
    })
}

fn finished() -> Event {
    let success = wire::outcome::Outcome::Success(wire::Success {});
    Event::Finished(wire::Report {
        outcome: Some(wire::Outcome {
            outcome: Some(success),
        }),
        stats: None,
    })
}

fn output(index: u32) -> [Event; 2] {
    let begin = Event::OutputBegin(wire::OutputBegin { index });
    [begin, Event::OutputEnd(wire::OutputEnd {})]
}

fn stored_output(index: u32) -> wire::OutputStored {
    wire::OutputStored {
        index,
        root: Some(root_entry(&Directory::new().node())),
        nar_size: 96,
        nar_sha256: Bytes::from_static(&[7; 32]),
        needles: vec![0, 3],
    }
}

async fn attach(events: Vec<Event>, log_from: u64) -> (Result<BuildReport, BuildError>, Vec<String>) {
    let (_dir, client) = victim(Liar {
        events,
        ..Liar::default()
    })
    .await;
    let (io, lines, _events) = io(&castore());
    let done = client.attach(&lease(), log_from, io).await;
    (done, drain(lines))
}

/// The honest sequence passes, so the refusals below are about what differs from it.
#[tokio::test(flavor = "multi_thread")]
async fn an_honest_sequence_passes() {
    let mut events = vec![attached(&["a"]), log(10), log(13)];
    events.extend(output(0));
    events.push(finished());
    let (done, lines) = attach(events, 5).await;
    done.unwrap();
    assert_eq!(lines, ["begin a", "end"]);
    let stored = Event::OutputStored(stored_output(0));
    let (done, lines) = attach(vec![attached(&["a"]), stored, finished()], 0).await;
    done.unwrap();
    assert_eq!(lines, ["stored a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn impossible_sequences_are_refused() {
    let [begin, end] = output(0);
    let wrong = |change: fn(&mut wire::OutputStored)| {
        let mut stored = stored_output(0);
        change(&mut stored);
        vec![attached(&["a"]), Event::OutputStored(stored)]
    };
    let [other, _] = output(1);
    let cases = [
        vec![finished()],                         // no outputs were told
        vec![begin.clone()],                      // of a path that is not known
        vec![attached(&["a"]), attached(&["a"])], // twice
        vec![attached(&[])],                      // nothing
        vec![attached(&[""])],                    // the root
        vec![attached(&["../a"])],                // outside
        vec![attached(&["a"]), other],            // one there is not
        vec![attached(&["a"]), end],              // not begun
        vec![attached(&["a"]), finished()],       // success without it
        vec![attached(&["a"]), Event::OutputStored(stored_output(1))],
        vec![Event::OutputStored(stored_output(0))],
        vec![
            attached(&["a"]),
            begin.clone(),
            Event::OutputStored(stored_output(0)),
        ],
        wrong(|stored| stored.nar_sha256 = Bytes::from_static(&[0; 31])),
        wrong(|stored| stored.root = None),
        wrong(|stored| stored.needles = vec![1, 1]),
        vec![attached(&["a"]), log(4)],           // the caller has these
        vec![attached(&["a"]), log(10), log(10)], // again
        vec![attached(&["a"]), log(10), log(20)], // a gap that nobody asked for
        vec![attached(&["a"]), log(u64::MAX)],    // past all numbers
    ];
    for events in cases {
        let (done, lines) = attach(events.clone(), 5).await;
        let error = done.unwrap_err();
        assert_eq!(error.code(), Code::DataLoss, "{events:?}: {error:?}");
        assert!(
            lines.iter().all(|line| line == "begin a"),
            "{events:?}: {lines:?}"
        );
    }
    // a build that starts now knows its paths, and its log starts at 0
    for events in [vec![attached(&["a"])], vec![log(1)]] {
        let (_dir, client) = victim(Liar {
            events,
            ..Liar::default()
        })
        .await;
        let (io, _lines, _events) = io(&castore());
        let error = client.build_leased(&lease(), request(), io).await.unwrap_err();
        assert_eq!(error.code(), Code::DataLoss, "{error:?}");
    }
}

/// A stream that ends early, and failures of no lease.
#[tokio::test(flavor = "multi_thread")]
async fn an_attached_build_that_is_not_reported_on_is_unavailable() {
    let (done, _) = attach(vec![attached(&["a"]), log(10)], 0).await;
    assert_eq!(done.unwrap_err().code(), Code::Unavailable);
    let failure = |lease: Option<wire::Lease>| {
        let kind = wire::lease_failure::Failure::Unknown(wire::Unknown {});
        let failure = wire::LeaseFailure {
            lease,
            failure: Some(kind),
        };
        Event::Failed(wire::Failure {
            failure: Some(wire::failure::Failure::Lease(failure)),
            code: 0,
        })
    };
    let (done, _) = attach(vec![failure(None)], 0).await;
    assert_eq!(done.unwrap_err().code(), Code::DataLoss);
    let ours = wire::Lease {
        owner: "me".into(),
        subject: Bytes::from_static(b"x.drv"),
        id: 1,
    };
    let (done, _) = attach(vec![failure(Some(ours))], 0).await;
    let error = done.unwrap_err();
    assert!(
        matches!(&error, BuildError::Lease(LeaseError::Unknown { lease: of }) if *of == lease()),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_of_leases_are_checked() {
    let status = |owner: &str| wire::LeaseStatus {
        lease: Some(wire::Lease {
            owner: owner.into(),
            subject: Bytes::from_static(b"x"),
            id: 1,
        }),
        ..Default::default()
    };
    let cases = [
        vec![status("you")],
        vec![status("")],
        vec![wire::LeaseStatus::default()],
        vec![status("me"); 5000],
    ];
    for leases in cases {
        let (_dir, client) = victim(Liar {
            leases,
            ..Liar::default()
        })
        .await;
        let error = client.leases(lease().owner()).await.unwrap_err();
        assert_eq!(error.code(), Code::DataLoss, "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_builder_says_of_itself_is_bounded() {
    let capabilities = wire::Capabilities {
        systems: vec!["\x1b[2J".into(); 10_000],
        machine: "m".repeat(1 << 20),
        unattended_ms: Some(u64::MAX),
        ..Default::default()
    };
    let (_dir, client) = victim(Liar {
        capabilities,
        permille: u32::MAX,
        ..Liar::default()
    })
    .await;
    let offer = client.offer();
    assert!(offer.machine.len() < 10_000);
    assert_eq!(offer.systems, ["\\u{1b}[2J".to_owned()].into());
    assert_eq!(client.load().await.unwrap().permille, 1000);
}
