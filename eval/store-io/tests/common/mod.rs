//! What the tests of this crate share: evaluations over a store in memory.
#![allow(clippy::panic, clippy::unwrap_used, reason = "the helpers of tests")]
#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use igloo_castore::ingest::put_blob;
use igloo_castore::node::Node;
use igloo_eval::{Evaluation, Format, Origin, Settings};
use igloo_store::nar::nar_digest;
use igloo_store::{PathInfo, Store};
use igloo_store_io::{DerivationSink, RealiseError, RealisedOutput, Realiser, StoreIo, Wanted};
use nix_compat::derivation::Derivation;
use nix_compat::store_path::{StoreDir, StorePath};
use tokio::runtime::Runtime;

/// A runtime for the store's side.
pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

pub fn memory_store(dir: &str) -> Store {
    Store::memory(StoreDir::new(dir).unwrap())
}

pub fn evaluation(io: &Rc<StoreIo>, base: &str) -> Evaluation {
    let settings = Settings {
        base_dir: base.to_owned(),
        current_system: Some("x86_64-linux".to_owned()),
        ..Settings::default()
    };
    let io: Rc<dyn igloo_eval::EvalIo> = Rc::<StoreIo>::clone(io);
    Evaluation::new(settings, io)
}

/// The value of an expression as JSON.
pub fn json(io: &Rc<StoreIo>, base: &str, text: &str) -> Result<String, igloo_eval::Error> {
    let mut evaluation = evaluation(io, base);
    let root = evaluation.eval_text(text.as_bytes(), Origin::String)?;
    let printed = evaluation.print(root, Format::Json, true)?;
    Ok(String::from_utf8(printed).unwrap().trim().to_owned())
}

/// All records of a store, by printed path.
pub fn records(runtime: &Runtime, store: &Store) -> BTreeMap<String, PathInfo> {
    runtime.block_on(async {
        let infos: Vec<_> = store.path_infos.list().collect().await;
        infos
            .into_iter()
            .map(|info| info.unwrap())
            .map(|info| (store.dir.print(&info.path), info))
            .collect()
    })
}

pub fn nar(runtime: &Runtime, store: &Store, info: &PathInfo) -> Vec<u8> {
    let mut nar = Vec::new();
    runtime.block_on(store.dump(&info.node, &mut nar)).unwrap();
    nar
}

/// Remembers what it heard.
#[derive(Default)]
pub struct Heard(pub Mutex<Vec<(StorePath, Arc<Derivation>)>>);

#[async_trait]
impl DerivationSink for Heard {
    async fn derivation(&self, path: &StorePath, derivation: &Arc<Derivation>) {
        self.0
            .lock()
            .unwrap()
            .push((path.clone(), Arc::clone(derivation)));
    }
}

/// "Builds" as the shell script of these tests does: the variable `content` becomes the output.
pub struct FakeBuilds(pub Store);

#[async_trait]
impl Realiser for FakeBuilds {
    async fn realise(&self, wanted: Vec<Wanted>) -> Result<Vec<RealisedOutput>, RealiseError> {
        let mut made = Vec::new();
        for wanted in wanted {
            let Wanted::Outputs { derivation, outputs } = wanted else {
                panic!("only builds are asked for here");
            };
            let info = self.0.path_infos.get(&derivation).await.unwrap().unwrap();
            let Node::File { digest, size, .. } = &info.node else {
                panic!("a derivation is a file");
            };
            let size = usize::try_from(*size).unwrap();
            let text = self.0.castore.blobs.read_range(digest, 0, size).await.unwrap();
            let name = nix_compat::derivation::derivation_name(&derivation).unwrap();
            let parsed = Derivation::parse(&self.0.dir, &name, &text).unwrap();
            for output in outputs {
                let path = parsed.outputs[&output].path(&self.0.dir, &parsed.name, &output);
                let path = path.unwrap().unwrap();
                let content = parsed.env.get(b"content".as_slice()).cloned().unwrap_or_default();
                let content = Bytes::from(content);
                let (digest, size) = put_blob(&self.0.castore, content).await.unwrap();
                let node = Node::File {
                    digest,
                    size,
                    executable: false,
                };
                let nar = nar_digest(&self.0.castore, &node).await.unwrap();
                let info = PathInfo {
                    path: path.clone(),
                    node,
                    nar_size: nar.size,
                    nar_sha256: nar.sha256,
                    references: BTreeSet::new(),
                    deriver: Some(derivation.clone()),
                    signatures: Vec::new(),
                    content_address: None,
                };
                self.0.register(vec![info]).await.unwrap();
                made.push(RealisedOutput {
                    derivation: derivation.clone(),
                    output,
                    path,
                });
            }
        }
        Ok(made)
    }
}
