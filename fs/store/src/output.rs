//! Taking a build's outputs in: contents, NAR hash and references in one pass.
//!
//! What arrives comes from a machine that may be hostile; the ingest checks it. Nothing is durable or registered here: the
//! caller does that when the build has succeeded.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use igloo_build::{BuildError, OutputSink, RelativePath, StoredOutput};
use igloo_castore::ingest::{IngestError, IngestLimits, TreeIngest};
use igloo_castore::presence::check_present;
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

/// Where the caller finds the outputs when the build has ended.
#[derive(Clone, Debug, Default)]
pub struct CollectedOutputs(Arc<Mutex<Vec<StoredOutput>>>);

impl CollectedOutputs {
    /// The outputs taken in whole so far, in the order they came; leaves none behind.
    pub fn take(&self) -> Vec<StoredOutput> {
        std::mem::take(&mut *self.lock())
    }

    fn push(&self, output: StoredOutput) {
        self.lock().push(output);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<StoredOutput>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OutputIngest {
    /// A sink into `castore` that looks for `needles`, and where its results appear. Nothing in it is durable yet.
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
        let output = StoredOutput {
            path,
            node: ingested.root,
            nar_size: facts.digest.size,
            nar_sha256: facts.digest.sha256,
            needles: facts.needles,
        };
        self.done.push(output);
        Ok(())
    }

    /// All of it must be in the castore; its NAR is not made again.
    async fn stored(&mut self, output: StoredOutput) -> Result<(), BuildError> {
        let path = &output.path;
        if let Some((open, _)) = &self.current {
            return Err(protocol(format!("the output {path} is stored inside {open}")));
        }
        if output
            .needles
            .last()
            .is_some_and(|last| *last >= self.needles.len())
        {
            return Err(protocol(format!(
                "the output {path} has a needle that nobody looked for"
            )));
        }
        let present = check_present(&self.castore, &output.node).await;
        present.map_err(|error| BuildError::Host {
            reason: format!(
                "the output {path} is not whole in the store the builder put it into; do both use the same store?"
            ),
            code: error.code(),
            source: Some(Box::new(error)),
        })?;
        self.done.push(output);
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

    /// Promise: what a builder says it stored is taken only when all of it is there.
    #[tokio::test]
    async fn stored_outputs_are_looked_for() {
        let castore = memory::castore("test");
        let (mut sink, collected) = OutputIngest::new(castore.clone(), vec![Bytes::from_static(&[b'0'; 32])]);
        sink.begin(&path("a")).await.unwrap();
        for event in [TreeEvent::DirectoryBegin { name: None }]
            .into_iter()
            .chain(file("f", b"x"))
        {
            sink.event(event).await.unwrap();
        }
        sink.event(TreeEvent::DirectoryEnd).await.unwrap();
        sink.end().await.unwrap();
        let output = collected.take().remove(0);

        sink.stored(output.clone()).await.unwrap();
        assert_eq!(collected.take(), std::slice::from_ref(&output));
        let needle = StoredOutput {
            needles: vec![1],
            ..output.clone()
        };
        assert_eq!(sink.stored(needle).await.unwrap_err().code(), Code::DataLoss);
        let (mut elsewhere, collected) = OutputIngest::new(memory::castore("other"), Vec::new());
        let error = elsewhere.stored(output.clone()).await.unwrap_err();
        assert!(matches!(error, BuildError::Host { .. }), "{error}");
        sink.begin(&path("b")).await.unwrap();
        assert!(matches!(
            sink.stored(output).await.unwrap_err(),
            BuildError::Protocol { .. }
        ));
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
