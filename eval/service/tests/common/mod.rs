//! What tests of evaluators share: requests, listeners, realisers.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use igloo_castore::ingest::put_blob;
use igloo_castore::node::Node;
use igloo_eval::Format;
use igloo_evaluator::settings::Machine;
use igloo_evaluator::{
    EvaluateError, EvaluateEvent, EvaluateIo, EvaluateReport, EvaluateRequest, Evaluator, Input,
    LocalEvaluator, Output,
};
use igloo_store::nar::nar_digest;
use igloo_store::{PathInfo, Store};
use igloo_store_io::{RealiseError, RealisedOutput, Realiser, Wanted};
use nix_compat::derivation::Derivation;
use nix_compat::store_path::{StoreDir, StorePath};
use tokio::sync::mpsc;

pub fn memory_store() -> Store {
    Store::memory(StoreDir::default())
}

pub fn local(store: &Store) -> LocalEvaluator {
    let machine = || Machine {
        system: "x86_64-linux".to_owned(),
        seconds: Some(1_700_000_000),
        cores: 2,
    };
    LocalEvaluator::new(
        store.clone(),
        tokio::runtime::Handle::current(),
        Arc::new(machine),
    )
}

pub fn request(text: &str, output: Output) -> EvaluateRequest {
    EvaluateRequest {
        inputs: vec![Input::Text(Bytes::copy_from_slice(text.as_bytes()))],
        attributes: Vec::new(),
        arguments: Vec::new(),
        search_path: Vec::new(),
        options: Vec::new(),
        environment: BTreeMap::new(),
        base_dir: "/".to_owned(),
        output,
    }
}

pub fn goals(text: &str) -> EvaluateRequest {
    request(text, Output::Goals)
}

pub fn json(text: &str) -> EvaluateRequest {
    let output = Output::Printed {
        format: Format::Json,
        strict: true,
    };
    request(text, output)
}

/// Runs an evaluation with a listener that keeps everything.
pub async fn evaluate(
    evaluator: &dyn Evaluator,
    request: EvaluateRequest,
    realiser: Arc<dyn Realiser>,
) -> (Result<EvaluateReport, EvaluateError>, Vec<EvaluateEvent>) {
    let (events, mut receiver) = mpsc::channel(1);
    let io = EvaluateIo { events, realiser };
    let listen = async {
        let mut heard = Vec::new();
        while let Some(event) = receiver.recv().await {
            heard.push(event);
        }
        heard
    };
    futures::join!(evaluator.evaluate(request, io), listen)
}

/// What an evaluation said, a line for each event.
pub fn lines(events: &[EvaluateEvent]) -> Vec<String> {
    let line = |event: &EvaluateEvent| match event {
        EvaluateEvent::Derivation { derivation, .. } => format!("derivation {}", derivation.name),
        EvaluateEvent::Goal(goal) => {
            let outputs: Vec<_> = goal.outputs.iter().map(ToString::to_string).collect();
            format!(
                "goal {} {} {}",
                goal.attribute,
                goal.drv.name(),
                outputs.join(",")
            )
        }
        EvaluateEvent::Printed(text) => format!("printed {}", String::from_utf8_lossy(text).trim_end()),
        EvaluateEvent::Notice(notice) => format!("{notice:?}"),
    };
    events.iter().map(line).collect()
}

/// Builds nothing.
pub struct Nobody;

#[async_trait]
impl Realiser for Nobody {
    async fn realise(&self, _: Vec<Wanted>) -> Result<Vec<RealisedOutput>, RealiseError> {
        Err(RealiseError::Cancelled)
    }
}

/// Never answers; remembers what it was asked.
#[derive(Default)]
pub struct Silent(pub tokio::sync::Notify);

#[async_trait]
impl Realiser for Silent {
    async fn realise(&self, _: Vec<Wanted>) -> Result<Vec<RealisedOutput>, RealiseError> {
        self.0.notify_one();
        std::future::pending().await
    }
}

/// "Builds" derivations by making their variable `content` the output, and remembers which.
pub struct Copies {
    pub store: Store,
    pub asked: Mutex<Vec<Wanted>>,
}

impl Copies {
    pub fn new(store: &Store) -> Arc<Self> {
        Arc::new(Self {
            store: store.clone(),
            asked: Mutex::default(),
        })
    }

    async fn build(&self, drv: &StorePath) -> BTreeMap<nix_compat::derivation::OutputName, StorePath> {
        let store = &self.store;
        let info = store.path_infos.get(drv).await.unwrap().unwrap();
        let Node::File { digest, size, .. } = &info.node else {
            panic!("a derivation is a file");
        };
        let size = usize::try_from(*size).unwrap();
        let text = store.castore.blobs.read_range(digest, 0, size).await.unwrap();
        let name = nix_compat::derivation::derivation_name(drv).unwrap();
        let parsed = Derivation::parse(&store.dir, &name, &text).unwrap();
        let mut made = BTreeMap::new();
        for (output, kind) in &parsed.outputs {
            let path = kind.path(&store.dir, &parsed.name, output).unwrap().unwrap();
            let content = parsed.env.get(b"content".as_slice()).cloned().unwrap_or_default();
            let (digest, size) = put_blob(&store.castore, content.into()).await.unwrap();
            let node = Node::File {
                digest,
                size,
                executable: false,
            };
            let nar = nar_digest(&store.castore, &node).await.unwrap();
            let info = PathInfo {
                path: path.clone(),
                node,
                nar_size: nar.size,
                nar_sha256: nar.sha256,
                references: BTreeSet::new(),
                deriver: Some(drv.clone()),
                signatures: Vec::new(),
                content_address: None,
            };
            store.register(vec![info]).await.unwrap();
            made.insert(output.clone(), path);
        }
        made
    }
}

#[async_trait]
impl Realiser for Copies {
    async fn realise(&self, wanted: Vec<Wanted>) -> Result<Vec<RealisedOutput>, RealiseError> {
        self.asked.lock().unwrap().extend(wanted.iter().cloned());
        let mut realised = Vec::new();
        for wanted in wanted {
            let Wanted::Outputs { derivation, .. } = wanted else {
                panic!("only builds are asked for here");
            };
            for (output, path) in self.build(&derivation).await {
                realised.push(RealisedOutput {
                    derivation: derivation.clone(),
                    output,
                    path,
                });
            }
        }
        Ok(realised)
    }
}

/// Every record of the store refers to records of the store.
pub async fn assert_whole(store: &Store) -> usize {
    use futures::StreamExt as _;
    let infos: Vec<_> = store.path_infos.list().collect().await;
    let mut count = 0;
    for info in infos {
        let info = info.unwrap();
        store.closure([info.path.clone()]).await.unwrap();
        store.verify(&info).await.unwrap();
        count += 1;
    }
    count
}
