//! Taking a build's outputs in: contents, NAR hash and references in one pass.
//!
//! What arrives comes from a machine that may be hostile; the ingest checks it. Nothing is durable or registered here: the
//! caller does that when the build has succeeded.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use igloo_build::{BuildError, OutputSink, RelativePath};
use igloo_castore::ingest::{IngestError, IngestLimits, TreeIngest};
use igloo_castore::node::Node;
use igloo_castore::store::Castore;
use igloo_castore::tree::TreeEvent;

use crate::nar::NarObserver;
use crate::needles::NeedleScanner;

/// Takes outputs into a castore.
#[derive(Debug)]
pub struct OutputIngest {
    castore: Castore,
    limits: IngestLimits,
    needles: Arc<[Bytes]>,
    current: Option<(RelativePath, TreeIngest<NarObserver>)>,
    done: CollectedOutputs,
}

/// An output that is in the castore, not yet durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngestedOutput {
    /// Which.
    pub path: RelativePath,
    /// Its tree.
    pub node: Node,
    /// Bytes of its NAR.
    pub nar_size: u64,
    /// SHA-256 of its NAR.
    pub nar_sha256: [u8; 32],
    /// Positions of the needles found in its NAR, ascending.
    pub needles: Vec<usize>,
}

/// Where the caller finds the outputs when the build has ended.
#[derive(Clone, Debug, Default)]
pub struct CollectedOutputs(Arc<Mutex<Vec<IngestedOutput>>>);

impl CollectedOutputs {
    /// The outputs taken in whole so far, in the order they came; leaves none behind.
    pub fn take(&self) -> Vec<IngestedOutput> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl OutputIngest {
    /// A sink into `castore` that looks for `needles`, and where its results appear.
    pub fn new(castore: Castore, needles: Vec<Bytes>) -> (Self, CollectedOutputs) {
        Self::with_limits(castore, needles, IngestLimits::default())
    }

    /// The same with other limits; they hold for each output by itself.
    pub fn with_limits(
        castore: Castore,
        needles: Vec<Bytes>,
        limits: IngestLimits,
    ) -> (Self, CollectedOutputs) {
        let done = CollectedOutputs::default();
        let ingest = Self {
            castore,
            limits,
            needles: needles.into(),
            current: None,
            done: done.clone(),
        };
        (ingest, done)
    }
}

#[async_trait]
impl OutputSink for OutputIngest {
    async fn begin(&mut self, output: &RelativePath) -> Result<(), BuildError> {
        if let Some((open, _)) = &self.current {
            return Err(protocol(format!("the output {output} begins inside {open}")));
        }
        let observer = NarObserver::with(None, Some(NeedleScanner::new(&self.needles)));
        let ingest = TreeIngest::new(self.castore.clone(), self.limits.clone(), observer);
        self.current = Some((output.clone(), ingest));
        Ok(())
    }

    async fn event(&mut self, event: TreeEvent) -> Result<(), BuildError> {
        let Some((output, ingest)) = &mut self.current else {
            return Err(protocol("a file comes outside of any output".to_owned()));
        };
        ingest.event(event).await.map_err(|error| refused(output, error))
    }

    async fn end(&mut self) -> Result<(), BuildError> {
        let Some((path, ingest)) = self.current.take() else {
            return Err(protocol("an output ends that was not begun".to_owned()));
        };
        let ingested = ingest.finish().await.map_err(|error| refused(&path, error))?;
        let facts = ingested.observer.finish().map_err(|error| BuildError::Host {
            reason: format!("the output {path} makes no NAR"),
            code: error.code(),
            source: Some(Box::new(error)),
        })?;
        let output = IngestedOutput {
            path,
            node: ingested.root,
            nar_size: facts.digest.size,
            nar_sha256: facts.digest.sha256,
            needles: facts.needles,
        };
        self.done
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(output);
        Ok(())
    }
}

fn protocol(reason: String) -> BuildError {
    BuildError::Protocol { reason }
}

/// A broken sequence is the machine's fault; a limit or a full disk is the host's answer to a whole one.
fn refused(output: &RelativePath, error: IngestError) -> BuildError {
    match error {
        IngestError::Store(_)
        | IngestError::TooDeep { .. }
        | IngestError::TooMany { .. }
        | IngestError::TooLarge { .. } => BuildError::Host {
            reason: format!("the output {output} cannot be taken in"),
            code: error.code(),
            source: Some(Box::new(error)),
        },
        error => protocol(format!("in the output {output}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use igloo_castore::memory;
    use igloo_castore::node::NodeName;
    use igloo_status::Code;

    use super::*;

    fn path(text: &str) -> RelativePath {
        RelativePath::try_from(text).unwrap()
    }

    fn file(name: &str, bytes: &'static [u8]) -> [TreeEvent; 2] {
        let name = Some(NodeName::try_from(name).unwrap());
        let begin = TreeEvent::FileBegin {
            name,
            executable: false,
            size: bytes.len() as u64,
        };
        [begin, TreeEvent::FileData(Bytes::from_static(bytes))]
    }

    #[tokio::test]
    async fn outputs_come_with_hash_and_references() {
        let castore = memory::castore("test");
        let first = "0mdqa9w1p6cmli6976v4wi0sw9r4p5pr";
        let second = "1mdqa9w1p6cmli6976v4wi0sw9r4p5pr";
        let needles = vec![Bytes::from(second), Bytes::from(first)];
        let (mut sink, collected) = OutputIngest::new(castore.clone(), needles);
        for output in ["nix/store/a", "nix/store/b"] {
            sink.begin(&path(output)).await.unwrap();
            sink.event(TreeEvent::DirectoryBegin { name: None })
                .await
                .unwrap();
            // names count as well as contents
            for event in file(first, b"nothing") {
                sink.event(event).await.unwrap();
            }
            sink.event(TreeEvent::DirectoryEnd).await.unwrap();
            sink.end().await.unwrap();
        }
        let outputs = collected.take();
        assert_eq!(outputs.len(), 2);
        assert_eq!(outputs[0].needles, [1]);
        let digest = crate::nar::nar_digest(&castore, &outputs[0].node).await.unwrap();
        assert_eq!(
            (digest.sha256, digest.size),
            (outputs[0].nar_sha256, outputs[0].nar_size)
        );
        assert!(collected.take().is_empty());
    }

    #[tokio::test]
    async fn what_makes_no_sense_is_the_machines_fault() {
        let castore = memory::castore("test");
        let (mut sink, _) = OutputIngest::new(castore.clone(), Vec::new());
        let code = |result: Result<(), BuildError>| result.unwrap_err().code();
        assert_eq!(code(sink.end().await), Code::DataLoss);
        assert_eq!(code(sink.event(TreeEvent::DirectoryEnd).await), Code::DataLoss);
        sink.begin(&path("out")).await.unwrap();
        assert_eq!(code(sink.begin(&path("out2")).await), Code::DataLoss);
        assert_eq!(code(sink.event(TreeEvent::DirectoryEnd).await), Code::DataLoss);
        assert_eq!(code(sink.end().await), Code::DataLoss);
        let limits = IngestLimits {
            size_max: 3,
            ..IngestLimits::default()
        };
        let (mut sink, _) = OutputIngest::with_limits(castore, Vec::new(), limits);
        sink.begin(&path("out")).await.unwrap();
        sink.event(TreeEvent::DirectoryBegin { name: None })
            .await
            .unwrap();
        let [begin, _] = file("big", b"1234");
        assert_eq!(code(sink.event(begin).await), Code::ResourceExhausted);
    }
}
