//! Builders whose builds do what a test says, and what they are asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use igloo_build::{
    BuildError, BuildEvent, BuildIo, BuildOutcome, BuildReport, BuildRequest, BuildStats, Builder,
    Constraints, Limits, OutputSink, RelativePath, StoredOutput,
};
use igloo_castore::store::Castore;
use igloo_castore::tree::TreeEvent;
use tokio::sync::mpsc;

type Script = dyn Fn(BuildRequest, BuildIo) -> Pin<Box<dyn Future<Output = Result<BuildReport, BuildError>> + Send>>
    + Send
    + Sync;

/// A builder whose builds do what a test says.
struct FakeBuilder(Box<Script>);

impl fmt::Debug for FakeBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FakeBuilder")
    }
}

#[async_trait]
impl Builder for FakeBuilder {
    async fn build(&self, request: BuildRequest, io: BuildIo) -> Result<BuildReport, BuildError> {
        (self.0)(request, io).await
    }

    fn systems(&self) -> Vec<String> {
        vec!["x86_64-linux".into()]
    }
}

pub fn fake<F>(script: impl Fn(BuildRequest, BuildIo) -> F + Send + Sync + 'static) -> Arc<dyn Builder>
where
    F: Future<Output = Result<BuildReport, BuildError>> + Send + 'static,
{
    Arc::new(FakeBuilder(Box::new(move |request, io| {
        Box::pin(script(request, io))
    })))
}

pub fn report(outcome: BuildOutcome) -> BuildReport {
    BuildReport {
        outcome,
        stats: BuildStats {
            log_bytes: 7,
            machine: "fake".into(),
            ..BuildStats::default()
        },
    }
}

pub fn path(text: &str) -> RelativePath {
    RelativePath::try_from(text).unwrap()
}

pub fn request() -> BuildRequest {
    BuildRequest {
        inputs: BTreeMap::new(),
        inputs_dir: path("nix/store"),
        program: Bytes::from_static(b"/bin/sh"),
        arguments: vec![Bytes::from_static(b"sh")],
        environment: BTreeMap::new(),
        working_dir: path("build"),
        scratch_paths: BTreeSet::new(),
        outputs: vec![path("nix/store/b"), path("nix/store/a")],
        additional_files: BTreeMap::new(),
        constraints: Constraints {
            system: "x86_64-linux".into(),
            memory_mib: 0,
            cores: 0,
            network: false,
            features: BTreeSet::new(),
        },
        limits: Limits::default(),
        needles: Vec::new(),
    }
}

/// Writes down what it is given.
#[derive(Debug)]
pub struct Recorder(mpsc::UnboundedSender<String>);

impl Recorder {
    pub fn new() -> (Box<Self>, mpsc::UnboundedReceiver<String>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Box::new(Self(sender)), receiver)
    }
}

#[async_trait]
impl OutputSink for Recorder {
    async fn begin(&mut self, output: &RelativePath) -> Result<(), BuildError> {
        self.0.send(format!("begin {output}")).unwrap();
        Ok(())
    }

    async fn event(&mut self, event: TreeEvent) -> Result<(), BuildError> {
        let line = match event {
            TreeEvent::FileData(bytes) => format!("data {}", bytes.len()),
            other => format!("{other:?}"),
        };
        self.0.send(line).unwrap();
        Ok(())
    }

    async fn end(&mut self) -> Result<(), BuildError> {
        self.0.send("end".into()).unwrap();
        Ok(())
    }

    async fn stored(&mut self, output: StoredOutput) -> Result<(), BuildError> {
        self.0.send(format!("stored {}", output.path)).unwrap();
        Ok(())
    }
}

pub fn drain(mut lines: mpsc::UnboundedReceiver<String>) -> Vec<String> {
    std::iter::from_fn(|| lines.try_recv().ok()).collect()
}

pub fn io(
    inputs: &Castore,
) -> (
    BuildIo,
    mpsc::UnboundedReceiver<String>,
    mpsc::Receiver<BuildEvent>,
) {
    let (outputs, lines) = Recorder::new();
    let (events, receiver) = mpsc::channel(1024);
    let io = BuildIo {
        inputs: inputs.clone(),
        outputs,
        events,
    };
    (io, lines, receiver)
}

pub fn file(size: u64) -> TreeEvent {
    TreeEvent::FileBegin {
        name: None,
        executable: false,
        size,
    }
}

pub async fn write_outputs(
    io: &mut BuildIo,
    outputs: &[RelativePath],
    bytes: &Bytes,
) -> Result<(), BuildError> {
    for output in outputs {
        io.outputs.begin(output).await?;
        io.outputs.event(file(bytes.len() as u64)).await?;
        io.outputs.event(TreeEvent::FileData(bytes.clone())).await?;
        io.outputs.end().await?;
    }
    Ok(())
}
