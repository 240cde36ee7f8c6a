//! Where an output comes from: a record beside its path info.
//!
//! The digest is of the whole request: two builders given one digest were asked for the very same.
//!
//! Invariants
//! - printing and parsing are inverse; a record is text, a field a line.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use igloo_build::BuildRequest;
use igloo_castore::node::Node;
use igloo_status::Code;
use nix_compat::store_path::StorePath;

/// First line of a record.
const FORMAT: &str = "igloo provenance 1";

/// Where an output comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvenanceRecord {
    /// The derivation.
    pub drv: StorePath,
    /// BLAKE3 digest of the build request ([`request_digest`]).
    pub request: [u8; 32],
    /// The builder's name.
    pub builder: String,
    /// The machine's kernel and image, as the builder names them.
    pub machine: String,
    /// The lease it was built under: a higher one was given later.
    pub lease: u64,
    /// How often the derivation had been given to a builder.
    pub attempt: u32,
    /// When the builder was told.
    pub ordered: SystemTime,
    /// When it was heard to have ended.
    pub ended: SystemTime,
}

impl ProvenanceRecord {
    pub(crate) fn encode(&self) -> Bytes {
        let one_line = |text: &str| text.replace(char::is_control, " ");
        let text = format!(
            "{FORMAT}\ndrv {}\nrequest {}\nbuilder {}\nmachine {}\nlease {}\nattempt {}\nordered {}\nended {}\n",
            self.drv,
            blake3::Hash::from_bytes(self.request),
            one_line(&self.builder),
            one_line(&self.machine),
            self.lease,
            self.attempt,
            millis(self.ordered),
            millis(self.ended),
        );
        Bytes::from(text)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, ParseProvenanceError> {
        let text = std::str::from_utf8(bytes).map_err(|_| ParseProvenanceError { field: "text" })?;
        let mut lines = text.lines();
        if lines.next() != Some(FORMAT) {
            return Err(ParseProvenanceError { field: "format" });
        }
        let mut field = |name: &'static str| {
            let line = lines.next().and_then(|line| line.strip_prefix(name));
            let value = line.and_then(|line| line.strip_prefix(' '));
            value.ok_or(ParseProvenanceError { field: name })
        };
        let wrong = |field| move |_| ParseProvenanceError { field };
        let drv = field("drv")?;
        let request = field("request")?;
        let record = Self {
            drv: drv.parse().map_err(|_| ParseProvenanceError { field: "drv" })?,
            request: *blake3::Hash::from_hex(request)
                .map_err(|_| ParseProvenanceError { field: "request" })?
                .as_bytes(),
            builder: field("builder")?.to_owned(),
            machine: field("machine")?.to_owned(),
            lease: field("lease")?.parse().map_err(wrong("lease"))?,
            attempt: field("attempt")?.parse().map_err(wrong("attempt"))?,
            ordered: time(field("ordered")?.parse().map_err(wrong("ordered"))?),
            ended: time(field("ended")?.parse().map_err(wrong("ended"))?),
        };
        Ok(record)
    }
}

/// A digest of all of a request: its fields in the order of their declaration, each with its length before it.
pub fn request_digest(request: &BuildRequest) -> [u8; 32] {
    let mut digest = Digest(blake3::Hasher::new());
    digest.text(b"igloo build request 1");
    digest.count(request.inputs.len());
    for (name, node) in &request.inputs {
        digest.text(name.as_bytes());
        digest.node(node);
    }
    digest.text(request.inputs_dir.as_bytes());
    digest.text(&request.program);
    digest.texts(request.arguments.iter().map(AsRef::as_ref));
    let environment = request.environment.iter();
    digest.texts(environment.flat_map(|(name, value)| [name.as_ref(), value.as_ref()]));
    digest.text(request.working_dir.as_bytes());
    digest.texts(request.scratch_paths.iter().map(|path| path.as_bytes()));
    digest.texts(request.outputs.iter().map(|path| path.as_bytes()));
    let files = request.additional_files.iter();
    digest.texts(files.flat_map(|(path, bytes)| [path.as_bytes(), bytes.as_ref()]));
    let constraints = &request.constraints;
    digest.text(constraints.system.as_bytes());
    digest.count(constraints.memory_mib as usize);
    digest.count(constraints.cores as usize);
    digest.count(usize::from(constraints.network));
    digest.texts(constraints.features.iter().map(|feature| feature.as_bytes()));
    // limits and needles say when to stop and what to look for, not what is built
    *digest.0.finalize().as_bytes()
}

struct Digest(blake3::Hasher);

impl Digest {
    fn count(&mut self, count: usize) {
        self.0.update(&(count as u64).to_le_bytes());
    }

    fn text(&mut self, text: &[u8]) {
        self.count(text.len());
        self.0.update(text);
    }

    fn texts<'a>(&mut self, texts: impl Iterator<Item = &'a [u8]>) {
        let texts: Vec<&[u8]> = texts.collect();
        self.count(texts.len());
        for text in texts {
            self.text(text);
        }
    }

    fn node(&mut self, node: &Node) {
        match node {
            Node::Directory { digest, .. } => {
                self.text(b"directory");
                self.text(digest.as_bytes());
            }
            Node::File {
                digest, executable, ..
            } => {
                self.text(if *executable { b"program" } else { b"file" });
                self.text(digest.as_bytes());
            }
            Node::Symlink { target } => {
                self.text(b"symlink");
                self.text(target.as_bytes());
            }
        }
    }
}

/// A record of provenance is damaged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the record of where the path comes from is damaged: its {field} cannot be read")]
pub struct ParseProvenanceError {
    /// What cannot be read.
    pub field: &'static str,
}

impl ParseProvenanceError {
    /// Always `DataLoss`.
    pub fn code(&self) -> Code {
        Code::DataLoss
    }
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn time(millis: u64) -> SystemTime {
    UNIX_EPOCH
        .checked_add(Duration::from_millis(millis))
        .unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_they_were_written() {
        let record = ProvenanceRecord {
            drv: "64gg0rb54s3zs6ikyqllwvhh05hnwz4q-x.drv".parse().unwrap(),
            request: [7; 32],
            builder: "a builder of two words".into(),
            machine: String::new(),
            lease: 3,
            attempt: 1,
            ordered: time(1_700_000_000_123),
            ended: time(1_700_000_000_456),
        };
        let bytes = record.encode();
        assert_eq!(ProvenanceRecord::decode(&bytes).unwrap(), record);
        let short = ProvenanceRecord::decode(&bytes[..40]).unwrap_err();
        assert_eq!(short.field, "request");
        assert_eq!(ProvenanceRecord::decode(b"what").unwrap_err().field, "format");
    }
}
