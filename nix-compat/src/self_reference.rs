//! Contents that name their own store path: hashing them although the path follows from the hash, and giving them the path.
//!
//! A floating content-addressed output is built under a provisional path. [`SelfHasher`] hashes it with every own hash part
//! zeroed; the path follows from that; [`HashPartRewriter`] then puts the new hash part where the provisional one was. The
//! hash is the same before and after.
//!
//! Nix 2.8 also hashed the places of the own hash parts; 2.34 means to, and does not (recorded from both). Paths of both
//! kinds exist, so both hashes are given; new paths are made as 2.34 makes them.
//!
//! Invariants
//! - how the stream is cut makes no difference;
//! - occurrences are taken from the left and do not overlap, as Nix takes them.
//!
//! Source: Nix 2.36 `src/libstore/references.cc`, `RewritingSink` and `HashModuloSink`.

use igloo_status::Code;
use memchr::memmem;

use crate::hash::{HashAlgo, Hasher, NixHash};
use crate::store_path::{HASH_PART_LEN, StorePath};

/// Places that [`SelfHasher`] remembers at most: 128 MiB of them.
pub const SELF_REFERENCE_COUNT_MAX: usize = 1 << 24;
/// Bytes rewritten at once.
const PIECE_LEN: usize = 64 * 1024;

/// Replaces one hash part by another of the same length in a stream.
#[derive(Clone, Debug)]
pub struct HashPartRewriter {
    from: memmem::Finder<'static>,
    to: [u8; HASH_PART_LEN],
    /// Up to 31 bytes that may begin an occurrence, between calls.
    buffer: Vec<u8>,
    /// Offset of the buffer in the stream.
    offset: u64,
}

/// What comes out of a [`HashPartRewriter`], in the order of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewritten<'a> {
    /// An occurrence was replaced at that offset of the stream, in bytes; its data comes later.
    Match {
        /// Offset of its first byte.
        offset: u64,
    },
    /// The next bytes.
    Data(&'a [u8]),
}

impl HashPartRewriter {
    /// A rewriter from one hash part to another.
    pub fn new(from: &[u8; HASH_PART_LEN], to: &[u8; HASH_PART_LEN]) -> Self {
        let from = memmem::Finder::new(from).into_owned();
        Self {
            from,
            to: *to,
            buffer: Vec::with_capacity(PIECE_LEN + HASH_PART_LEN),
            offset: 0,
        }
    }

    /// Takes the next bytes of the stream. The last 31 are held back, in case an occurrence begins in them.
    ///
    /// Cost: one copy of the bytes and a search.
    pub fn feed(&mut self, bytes: &[u8], mut out: impl FnMut(Rewritten<'_>)) {
        for piece in bytes.chunks(PIECE_LEN) {
            self.buffer.extend_from_slice(piece);
            let mut from = 0;
            while let Some(at) = self.from.find(&self.buffer[from..]) {
                let at = from + at;
                from = at + HASH_PART_LEN;
                self.buffer[at..from].copy_from_slice(&self.to);
                out(Rewritten::Match {
                    offset: self.offset + at as u64,
                });
            }
            // what was replaced is final, even among the last bytes
            let done = (self.buffer.len().saturating_sub(HASH_PART_LEN - 1)).max(from);
            out(Rewritten::Data(&self.buffer[..done]));
            self.buffer.drain(..done);
            self.offset += done as u64;
        }
    }

    /// Gives what was held back; the stream is at its end.
    pub fn finish(self, mut out: impl FnMut(Rewritten<'_>)) {
        out(Rewritten::Data(&self.buffer));
    }
}

/// Hashes a stream modulo one store path's hash part.
#[derive(Clone, Debug)]
pub struct SelfHasher {
    rewriter: HashPartRewriter,
    sum: Sum,
}

#[derive(Clone, Debug)]
struct Sum {
    hasher: Hasher,
    size: u64,
    places: Vec<u64>,
    excess: bool,
}

impl Sum {
    fn add(&mut self, rewritten: Rewritten<'_>) {
        match rewritten {
            Rewritten::Match { .. } if self.places.len() >= SELF_REFERENCE_COUNT_MAX => self.excess = true,
            Rewritten::Match { offset } => self.places.push(offset),
            Rewritten::Data(bytes) => {
                self.hasher.update(bytes);
                self.size += bytes.len() as u64;
            }
        }
    }
}

impl SelfHasher {
    /// A hasher for contents that may name `path`.
    pub fn new(algo: HashAlgo, path: &StorePath) -> Self {
        let rewriter = HashPartRewriter::new(&path.hash_part(), &[0; HASH_PART_LEN]);
        Self {
            rewriter,
            sum: Sum {
                hasher: Hasher::new(algo),
                size: 0,
                places: Vec::new(),
                excess: false,
            },
        }
    }

    /// Takes the next bytes of the stream.
    pub fn update(&mut self, bytes: &[u8]) {
        self.rewriter.feed(bytes, |rewritten| self.sum.add(rewritten));
    }

    /// The hash of everything seen.
    ///
    /// # Errors
    /// The stream names its path more often than can be remembered.
    pub fn finish(self) -> Result<SelfHash, TooManySelfReferences> {
        let Self { rewriter, mut sum } = self;
        rewriter.finish(|rewritten| sum.add(rewritten));
        if sum.excess {
            return Err(TooManySelfReferences {
                max: SELF_REFERENCE_COUNT_MAX,
            });
        }
        let hash = sum.hasher.clone().finish();
        for place in &sum.places {
            sum.hasher.update(format!("|{place}").as_bytes());
        }
        Ok(SelfHash {
            hash,
            hash_with_places: sum.hasher.finish(),
            size: sum.size,
            count: sum.places.len(),
        })
    }
}

/// What [`SelfHasher`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelfHash {
    /// The hash modulo self-references, as Nix 2.34 makes it.
    pub hash: NixHash,
    /// The same with the places of the self-references, as Nix 2.8 made it.
    pub hash_with_places: NixHash,
    /// Bytes in the stream.
    pub size: u64,
    /// How often the stream names its own path.
    pub count: usize,
}

/// Contents made of little but their own name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the contents name their own store path more than {max} times")]
pub struct TooManySelfReferences {
    /// Places allowed.
    pub max: usize,
}

impl TooManySelfReferences {
    /// Always `ResourceExhausted`.
    pub fn code(&self) -> Code {
        Code::ResourceExhausted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nar::NarWriter;
    use crate::store_path::{StoreDir, StorePathName};
    use proptest::prelude::*;

    /// What Nix gave as the hash of a fixed output that is a directory with its own path in the file `a`: 2.34 and 2.8.
    #[test]
    fn hashes_are_those_nix_gives() {
        let path = StorePath::new([7; 20], StorePathName::new("f17").unwrap());
        let content = format!("{}\n", StoreDir::default().print(&path));
        let mut nar = Vec::new();
        let mut writer = NarWriter::new(&mut nar);
        writer.directory(b"").unwrap();
        writer.file(b"a", content.len() as u64, false).unwrap();
        writer.data(content.as_bytes()).unwrap();
        writer.end_directory().unwrap();
        writer.finish().unwrap();
        let mut hasher = SelfHasher::new(HashAlgo::Sha256, &path);
        hasher.update(&nar);
        let found = hasher.finish().unwrap();
        for (hash, expected) in [
            (found.hash, "sha256-r4K58oTueHZrYy3gmBbRR7QGQi+bIfV7j8nsAp4S3BQ="),
            (
                found.hash_with_places,
                "sha256-c36V04AT++dbHOTiYnY2LZCGvkWg+mCtAkIMg31ItVw=",
            ),
        ] {
            assert_eq!(hash.to_string(), expected);
        }
    }

    fn path(byte: u8) -> StorePath {
        StorePath::new([byte; 20], StorePathName::new("x").unwrap())
    }

    /// Pieces of the hash part, so that occurrences touch and overlap.
    fn any_stream() -> impl Strategy<Value = (u8, Vec<u8>)> {
        any::<u8>().prop_flat_map(|byte| {
            let part = path(byte).hash_part();
            let piece = prop_oneof![
                (0usize..32, 0usize..=32).prop_map(move |(from, to)| part[from.min(to)..to].to_vec()),
                Just(part.to_vec()),
                prop::collection::vec(any::<u8>(), 0..40),
            ];
            (
                Just(byte),
                prop::collection::vec(piece, 0..10).prop_map(|pieces| pieces.concat()),
            )
        })
    }

    /// The whole stream at once: places, and the bytes with each replaced.
    fn naive(stream: &[u8], from: &[u8], to: &[u8]) -> (Vec<u64>, Vec<u8>) {
        let (mut places, mut out) = (Vec::new(), stream.to_vec());
        let mut at = 0;
        while at + from.len() <= out.len() {
            if &out[at..at + from.len()] == from {
                out[at..at + from.len()].copy_from_slice(to);
                places.push(at as u64);
                at += from.len();
            } else {
                at += 1;
            }
        }
        (places, out)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn rewriting_agrees_with_definition((byte, stream) in any_stream(), other: u8, cut in 1usize..70) {
            let (from, to) = (path(byte).hash_part(), path(other).hash_part());
            let expected = naive(&stream, &from, &to);
            for cut in [usize::MAX, cut, 1] {
                let mut rewriter = HashPartRewriter::new(&from, &to);
                let (mut places, mut out) = (Vec::new(), Vec::new());
                let mut take = |rewritten: Rewritten<'_>| match rewritten {
                    Rewritten::Match { offset } => places.push(offset),
                    Rewritten::Data(bytes) => out.extend_from_slice(bytes),
                };
                stream.chunks(cut).for_each(|piece| rewriter.feed(piece, &mut take));
                rewriter.finish(&mut take);
                prop_assert_eq!(&(places, out), &expected);
            }
        }

        /// The hash is of the zeroed stream, with and without the places, and survives the rewriting it leads to.
        #[test]
        fn hash_does_not_depend_on_the_path((byte, stream) in any_stream(), cut in 1usize..70) {
            let hash = |path: &StorePath, stream: &[u8]| {
                let mut hasher = SelfHasher::new(HashAlgo::Sha256, path);
                stream.chunks(cut).for_each(|piece| hasher.update(piece));
                hasher.finish().unwrap()
            };
            let before = hash(&path(byte), &stream);
            let (places, mut zeroed) = naive(&stream, &path(byte).hash_part(), &[0; 32]);
            prop_assert_eq!(before.hash, NixHash::of(HashAlgo::Sha256, &zeroed));
            places.iter().for_each(|place| zeroed.extend_from_slice(format!("|{place}").as_bytes()));
            prop_assert_eq!(before.hash_with_places, NixHash::of(HashAlgo::Sha256, &zeroed));
            prop_assert_eq!((before.size, before.count), (stream.len() as u64, places.len()));
            // a fresh digest, which the stream does not name by chance
            let digest: [u8; 20] = crate::hash::sha256(&stream)[..20].try_into().unwrap();
            let fresh = StorePath::new(digest, StorePathName::new("x").unwrap());
            let (_, moved) = naive(&stream, &path(byte).hash_part(), &fresh.hash_part());
            prop_assert_eq!(hash(&fresh, &moved), before);
        }
    }
}
