use std::collections::BTreeMap;

use igloo_build::Limits;
use igloo_build::StoredOutput;
use igloo_castore::ingest::put_blob;
use igloo_store::Store;
use igloo_store::output::OutputIngest;
use nix_compat::derivation::{Derivation, DerivationOutput};
use nix_compat::nar::NarWriter;
use nix_compat::store_path::{StoreDir, StorePathName};
use tokio::sync::mpsc;

use super::*;
use crate::request::{RequestOptions, prepare};

/// Has one file at one URL.
#[derive(Debug)]
struct OneFile(&'static str, Bytes);

#[async_trait]
impl FetchUrl for OneFile {
    async fn fetch(&self, url: &str, packing: Packing, castore: &Castore) -> Result<Node, FetchUrlError> {
        assert_eq!(packing == Packing::Xz, url.ends_with(".nar.xz"));
        let error = |message: &str, code| FetchUrlError {
            message: format!("unable to download '{url}': {message}"),
            code,
            is_of_host: url == "https://full/",
        };
        if url == "https://full/" {
            return Err(error("the store is full", Code::ResourceExhausted));
        }
        if url != self.0 {
            return Err(error("HTTP error 404", Code::NotFound));
        }
        let (digest, size) = put_blob(castore, self.1.clone()).await.unwrap();
        Ok(Node::File {
            digest,
            size,
            executable: false,
        })
    }
}

struct Ended {
    result: Result<BuildReport, BuildError>,
    outputs: Vec<StoredOutput>,
    log: String,
}

/// Runs a derivation with these variables.
async fn run(fetcher: OneFile, variables: &[(&str, &str)]) -> Ended {
    let store = Store::memory(StoreDir::default());
    let variables: Vec<_> = variables
        .iter()
        .map(|(name, value)| format!("({name:?},{value:?})"))
        .collect();
    let name = StorePathName::new("fod").unwrap();
    let zeros = "0".repeat(64);
    let output = DerivationOutput::CaFixed {
        address: format!("fixed:r:sha256:{zeros}").parse().unwrap(),
    };
    let path = output
        .path(&store.dir, &name, &"out".parse().unwrap())
        .unwrap()
        .unwrap();
    let text = format!(
        r#"Derive([("out","{}","r:sha256","{zeros}")],[],[],"builtin","builtin:fetchurl",[],[{}])"#,
        store.dir.print(&path),
        variables.join(",")
    );
    let derivation = Derivation::parse(&store.dir, &name, text.as_bytes()).unwrap();
    let drv_path = derivation.store_path(&store.dir).unwrap();
    let options = RequestOptions {
        cores: 1,
        memory_mib: 0,
        limits: Limits::default(),
        impure_environment: BTreeMap::new(),
    };
    let prepared = prepare(&store, &drv_path, &derivation, &BTreeMap::new(), &options)
        .await
        .unwrap();
    assert_eq!(prepared.request.constraints.system, SYSTEM);
    let (outputs, collected) = OutputIngest::new(store.castore.clone(), Vec::new());
    let (events, mut heard) = mpsc::channel(16);
    let io = BuildIo {
        inputs: store.castore.clone(),
        outputs: Box::new(outputs),
        events,
    };
    let result = BuiltinBuilder::new(Arc::new(fetcher))
        .build(prepared.request, io)
        .await;
    let mut log = String::new();
    while let Ok(event) = heard.try_recv() {
        if let BuildEvent::Log { bytes, .. } = event {
            log.push_str(std::str::from_utf8(&bytes).unwrap());
        }
    }
    Ended {
        result,
        outputs: collected.take(),
        log,
    }
}

fn nar() -> Bytes {
    let mut bytes = Vec::new();
    let mut writer = NarWriter::new(&mut bytes);
    writer.directory(b"").unwrap();
    writer.file(b"a", 2, true).unwrap();
    writer.data(b"hi").unwrap();
    writer.end_directory().unwrap();
    writer.finish().unwrap();
    bytes.into()
}

#[tokio::test]
async fn fetches_a_file() {
    for (variable, expected) in [(("a", "1"), false), (("executable", "1"), true)] {
        let file = OneFile("https://x/y", Bytes::from_static(b"content"));
        let ended = run(file, &[variable, ("url", "https://x/y")]).await;
        assert_eq!(ended.result.unwrap().outcome, BuildOutcome::Success);
        let [output] = &ended.outputs[..] else {
            panic!("{:?}", ended.outputs);
        };
        assert!(matches!(output.node, Node::File { size: 7, executable, .. } if executable == expected));
    }
}

#[tokio::test]
async fn unpacks_an_archive() {
    let ended = run(
        OneFile("https://x/y.nar", nar()),
        &[("unpack", "1"), ("url", "https://x/y.nar")],
    )
    .await;
    assert_eq!(ended.result.unwrap().outcome, BuildOutcome::Success);
    let hash = nix_compat::hash::sha256(&nar());
    assert_eq!(ended.outputs[0].nar_sha256, hash);
}

/// What is wrong with the request, the server or the way there is said in the log, as Nix's own builder does; this host's
/// failure is not the build's.
#[tokio::test]
async fn failures_are_told() {
    let file = || OneFile("https://x/y.nar.xz", Bytes::from_static(b"no archive"));
    for (variables, expected) in [
        (
            vec![("url", "https://x/z")],
            "error: unable to download 'https://x/z': HTTP error 404\n",
        ),
        (vec![("a", "b")], "error: attribute 'url' missing\n"),
        (
            vec![("unpack", "1"), ("url", "https://x/y.nar.xz")],
            "error: cannot unpack 'https://x/y.nar.xz': ",
        ),
    ] {
        let ended = run(file(), &variables).await;
        assert_eq!(ended.result.unwrap().outcome, BuildOutcome::ExitCode(1));
        assert!(ended.log.starts_with(expected), "{}", ended.log);
        assert!(ended.outputs.is_empty());
    }
    let ended = run(file(), &[("url", "https://full/")]).await;
    assert_eq!(ended.result.unwrap_err().code(), Code::ResourceExhausted);
}
