//! Finding needles in a stream: hash parts of store paths by the reference scan, other byte strings one by one.
//!
//! Invariants
//! - how the stream is cut makes no difference;
//! - memory is bounded by the needles' total size.
//!
//! Source: Nix 2.36 `src/libstore/references.cc`.

use nix_compat::refscan::RefScanner;
use nix_compat::store_path::{HASH_PART_LEN, StorePath};

use bytes::Bytes;

/// Looks for many byte strings at once; knows them by their position in the list.
#[derive(Debug)]
pub struct NeedleScanner {
    hashes: RefScanner,
    /// Store paths made up for the needles that are hash parts.
    paths: Vec<(usize, StorePath)>,
    others: Vec<Other>,
}

/// A needle that is no hash part.
#[derive(Debug)]
struct Other {
    index: usize,
    needle: Bytes,
    found: bool,
    /// The end of the stream so far, shorter than the needle.
    carry: Vec<u8>,
}

impl NeedleScanner {
    /// A scanner for these needles. An empty needle is found everywhere.
    pub fn new(needles: &[Bytes]) -> Self {
        let mut paths = Vec::new();
        let mut others = Vec::new();
        for (index, needle) in needles.iter().enumerate() {
            match path_of(needle) {
                Some(path) => paths.push((index, path)),
                None => others.push(Other {
                    index,
                    needle: needle.clone(),
                    found: needle.is_empty(),
                    carry: Vec::new(),
                }),
            }
        }
        Self {
            hashes: RefScanner::new(paths.iter().map(|(_, path)| path)),
            paths,
            others,
        }
    }

    /// The next bytes of the stream.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.hashes.feed(bytes);
        for other in self.others.iter_mut().filter(|other| !other.found) {
            other.feed(bytes);
        }
    }

    /// Positions of the needles found, ascending.
    pub fn finish(self) -> Vec<usize> {
        let hashes = self
            .paths
            .iter()
            .filter(|(_, path)| self.hashes.is_found(path))
            .map(|(index, _)| *index);
        let others = self
            .others
            .iter()
            .filter(|other| other.found)
            .map(|other| other.index);
        let mut found: Vec<_> = hashes.chain(others).collect();
        found.sort_unstable();
        found
    }
}

impl Other {
    fn feed(&mut self, bytes: &[u8]) {
        let keep = self.needle.len() - 1;
        // a match across the seam lies in the carry and as many bytes again
        self.carry.extend_from_slice(&bytes[..bytes.len().min(keep)]);
        self.found = contains(&self.carry, &self.needle) || contains(bytes, &self.needle);
        if bytes.len() >= keep {
            self.carry.clear();
            self.carry.extend_from_slice(&bytes[bytes.len() - keep..]);
        } else {
            let excess = self.carry.len().saturating_sub(keep);
            self.carry.drain(..excess);
        }
    }
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(bytes, needle).is_some()
}

/// The store path that needle would be the hash part of.
fn path_of(needle: &[u8]) -> Option<StorePath> {
    if needle.len() != HASH_PART_LEN {
        return None;
    }
    StorePath::parse_bytes(&[needle, b"-x"].concat()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HASH: &[u8] = b"0mdqa9w1p6cmli6976v4wi0sw9r4p5pr";

    proptest! {
        /// Pieces or not, what is found is what is in the whole.
        #[test]
        fn agrees_with_searching_the_whole(
            text in prop::collection::vec(prop_oneof![Just(b"a".to_vec()), Just(b"b".to_vec()), Just(HASH.to_vec()), Just(HASH[..20].to_vec())], 0..30),
            needles in prop::collection::vec(prop_oneof!["[ab]{0,6}".prop_map(Bytes::from), Just(Bytes::from_static(HASH)), Just(Bytes::from_static(b"1mdqa9w1p6cmli6976v4wi0sw9r4p5pr"))], 0..6),
            piece in 1usize..40,
        ) {
            let text = text.concat();
            let mut scanner = NeedleScanner::new(&needles);
            for piece in text.chunks(piece) {
                scanner.feed(piece);
            }
            let expected: Vec<usize> = (0..needles.len())
                .filter(|index| needles[*index].is_empty() || contains(&text, &needles[*index]))
                .collect();
            prop_assert_eq!(scanner.finish(), expected);
        }
    }
}
