//! What an evaluation looked at, with digests of the answers: what a cache must check before it may give an old result.
//!
//! Invariants
//! - every answer of the world that can differ between two evaluations is here; what follows from content alone (a text
//!   added, a derivation written) is not;
//! - a thing asked twice is here once, with its first answer: an evaluation sees one state of the world;
//! - switched off, it costs one test of an option for each call.

use std::cell::RefCell;
use std::collections::HashMap;

use igloo_eval::io::{FileType, IngestMethod, IoError};
use nix_compat::derivation::OutputName;
use nix_compat::store_path::StorePath;

/// A question to the world and the digest of its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// The question.
    pub key: DependencyKey,
    /// BLAKE3 of the answer; of its error's class when there was none.
    pub digest: [u8; 32],
}

/// A question to the world. Paths are as the evaluation gave them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DependencyKey {
    /// The bytes of a file.
    File(Box<[u8]>),
    /// What is at a path.
    Type(Box<[u8]>),
    /// Where a symlink points.
    Link(Box<[u8]>),
    /// The entries of a directory: names and types.
    Directory(Box<[u8]>),
    /// An environment variable.
    Env(Box<[u8]>),
    /// A source that became a store path; the answer is that path.
    Import {
        /// Where it is.
        path: Box<[u8]>,
        /// Name of the store path.
        name: Box<str>,
        /// Whether the bytes of one file were taken, not a tree.
        flat: bool,
        /// Digest of the list of entries a filter let through.
        accepted: Option<[u8; 32]>,
    },
    /// Whether a store path is there.
    StorePath(StorePath),
    /// What a store path refers to.
    References(StorePath),
    /// An output that was built, or was there; the answer is its path and NAR hash.
    Output {
        /// The derivation.
        derivation: StorePath,
        /// The output.
        output: OutputName,
    },
    /// Something fetched; the answer is its store path.
    Fetch {
        /// Where from.
        url: Box<str>,
        /// Whether it was unpacked.
        unpacked: bool,
    },
}

/// The list, when it is kept.
#[derive(Debug, Default)]
pub(crate) struct Log(Option<RefCell<Answers>>);

/// For each question, its place in the list and the digest of its answer.
type Answers = HashMap<DependencyKey, (usize, [u8; 32])>;

impl Log {
    pub(crate) fn on() -> Self {
        Self(Some(RefCell::default()))
    }

    /// Records an answer; both functions run only when the list is kept.
    pub(crate) fn record<T>(
        &self,
        key: impl FnOnce() -> DependencyKey,
        answer: &Result<T, IoError>,
        bytes: impl FnOnce(&T, &mut blake3::Hasher),
    ) {
        let Some(log) = &self.0 else {
            return;
        };
        let mut hasher = blake3::Hasher::new();
        match answer {
            Ok(value) => {
                hasher.update(b"ok");
                bytes(value, &mut hasher);
            }
            Err(error) => {
                hasher.update(b"error");
                hasher.update(error.code().name().as_bytes());
            }
        }
        let mut log = log.borrow_mut();
        let index = log.len();
        log.entry(key())
            .or_insert_with(|| (index, *hasher.finalize().as_bytes()));
    }

    /// What was recorded, in the order of first questions.
    pub(crate) fn list(&self) -> Vec<Dependency> {
        let Some(log) = &self.0 else {
            return Vec::new();
        };
        let mut list: Vec<_> = log
            .borrow()
            .iter()
            .map(|(key, (index, digest))| (*index, key.clone(), *digest))
            .collect();
        list.sort_unstable_by_key(|(index, ..)| *index);
        list.into_iter()
            .map(|(_, key, digest)| Dependency { key, digest })
            .collect()
    }
}

/// Whether a method takes one file.
pub(crate) fn is_flat(method: IngestMethod) -> bool {
    method == IngestMethod::Flat
}

/// A byte for each kind of file.
pub(crate) fn type_byte(kind: FileType) -> u8 {
    match kind {
        FileType::Regular => b'r',
        FileType::Directory => b'd',
        FileType::Symlink => b'l',
        FileType::Unknown => b'?',
    }
}

/// Appends a list of names and types so that no two lists give the same bytes.
pub(crate) fn hash_entries(entries: &[(Vec<u8>, FileType)], hasher: &mut blake3::Hasher) {
    let mut sorted: Vec<_> = entries.iter().collect();
    sorted.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    for (name, kind) in sorted {
        hasher.update(&[type_byte(*kind)]);
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_answers_in_order() {
        let log = Log::on();
        let ask = |path: &[u8], answer: &[u8]| {
            log.record(
                || DependencyKey::File(path.into()),
                &Ok(answer.to_vec()),
                |bytes, hasher| {
                    hasher.update(bytes);
                },
            );
        };
        ask(b"/b", b"1");
        ask(b"/a", b"1");
        ask(b"/b", b"2");
        let list = log.list();
        assert_eq!(list.len(), 2);
        assert_eq!(list[0].key, DependencyKey::File((*b"/b").into()));
        assert_eq!(list[0].digest, list[1].digest);
    }

    #[test]
    fn failures_are_answers() {
        let log = Log::on();
        let missing: Result<Vec<u8>, _> = Err(IoError::NotFound { path: "/x".into() });
        log.record(|| DependencyKey::File((*b"/x").into()), &missing, |_, _| ());
        log.record(
            || DependencyKey::File((*b"/y").into()),
            &Ok(Vec::<u8>::new()),
            |_, _| (),
        );
        let list = log.list();
        assert_ne!(list[0].digest, list[1].digest);
    }

    #[test]
    fn off_records_nothing() {
        let log = Log::default();
        log.record(
            || unreachable!("the key is not even made"),
            &Ok(()),
            |(), _| unreachable!(),
        );
        assert!(log.list().is_empty());
    }

    #[test]
    fn listings_do_not_run_together() {
        let digest = |entries: &[(Vec<u8>, FileType)]| {
            let mut hasher = blake3::Hasher::new();
            hash_entries(entries, &mut hasher);
            hasher.finalize()
        };
        let file = |name: &str| (name.as_bytes().to_vec(), FileType::Regular);
        assert_ne!(digest(&[file("ab")]), digest(&[file("a"), file("b")]));
        assert_eq!(digest(&[file("b"), file("a")]), digest(&[file("a"), file("b")]));
    }
}
