//! Reference scan: which store paths a stream of bytes names.
//!
//! A reference is the 32 characters of a store path's hash part, anywhere: in file data, file names and symlink targets
//! alike, since what is scanned is the NAR. Nothing else of the path need follow, and occurrences may overlap.
//!
//! The scan looks at a window's last byte first: a byte that is no nixbase32 digit rules out all 32 windows it is in, so
//! most bytes are never looked at. Windows of digits only are searched for when their last few digits are some candidate's.
//!
//! Invariants
//! - how the stream is cut makes no difference: the last 31 bytes are kept from one piece to the next;
//! - the cost of a byte grows with the logarithm of the number of candidates at most, whatever they are.
//!
//! Source: Nix 2.36 `src/libstore/references.cc`.

use std::collections::BTreeSet;

use crate::nixbase32::{self, INVALID, VALUES};
use crate::store_path::{HASH_PART_LEN, StorePath};

/// Filter bits for each candidate, as a power of two: about one window in 128 passes by chance.
const FILTER_EACH_LOG2: u32 = 7;
/// Smallest and largest filter, as powers of two of bits: 4 KiB to 1 MiB.
const FILTER_LOG2: (u32, u32) = (15, 23);
/// Bytes that may begin a hash part whose rest is in the next piece.
const CARRY_LEN: usize = HASH_PART_LEN - 1;

/// Scans a stream for a set of candidates.
///
/// ```
/// # use nix_compat::{StorePath, refscan::RefScanner};
/// let path = StorePath::parse("0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-hello")?;
/// let candidates = [path].into();
/// let mut scanner = RefScanner::new(&candidates);
/// scanner.feed(b"#!/nix/store/0mdqa9w1p6cm");
/// scanner.feed(b"li6976v4wi0sw9r4p5pr-hello/bin/sh");
/// assert_eq!(scanner.found_of(&candidates), candidates);
/// # Ok::<(), nix_compat::store_path::ParseStorePathError>(())
/// ```
#[derive(Clone, Debug)]
pub struct RefScanner {
    /// Sorted.
    candidates: Box<[[u8; HASH_PART_LEN]]>,
    found: Box<[bool]>,
    missing: usize,
    filter: Filter,
    carry: Vec<u8>,
}

impl RefScanner {
    /// A scanner for the hash parts of those paths.
    pub fn new<'a>(candidates: impl IntoIterator<Item = &'a StorePath>) -> Self {
        Self::of_checked(candidates.into_iter().map(StorePath::hash_part).collect())
    }

    /// A scanner for hash parts alone, where the paths are not known.
    ///
    /// # Errors
    /// One of them is not 32 digits of nixbase32, so it could never be found.
    pub fn from_hash_parts<T: AsRef<[u8]>>(
        candidates: impl IntoIterator<Item = T>,
    ) -> Result<Self, nixbase32::DecodeError> {
        let digests = candidates
            .into_iter()
            .map(|part| nixbase32::decode_20(part.as_ref()));
        let parts = digests.map(|digest| digest.map(|digest| nixbase32::encode_20(&digest)));
        Ok(Self::of_checked(parts.collect::<Result<_, _>>()?))
    }

    fn of_checked(candidates: BTreeSet<[u8; HASH_PART_LEN]>) -> Self {
        let candidates: Box<[_]> = candidates.into_iter().collect();
        Self {
            found: vec![false; candidates.len()].into(),
            missing: candidates.len(),
            filter: Filter::new(&candidates),
            carry: Vec::with_capacity(2 * CARRY_LEN),
            candidates,
        }
    }

    /// Scans the next bytes of the stream.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.missing == 0 {
            return;
        }
        let kept = self.carry.len();
        if kept > 0 {
            self.carry.extend_from_slice(&bytes[..bytes.len().min(CARRY_LEN)]);
            let seam = std::mem::take(&mut self.carry);
            self.scan(&seam);
            self.carry = seam;
        }
        self.scan(bytes);
        if bytes.len() >= CARRY_LEN {
            self.carry.clear();
            self.carry.extend_from_slice(&bytes[bytes.len() - CARRY_LEN..]);
        } else {
            self.carry.truncate(kept);
            self.carry.extend_from_slice(bytes);
            let excess = self.carry.len().saturating_sub(CARRY_LEN);
            self.carry.drain(..excess);
        }
    }

    /// Whether that path was found so far; never for a path that was no candidate.
    pub fn is_found(&self, path: &StorePath) -> bool {
        self.candidates
            .binary_search(&path.hash_part())
            .is_ok_and(|index| self.found[index])
    }

    /// Those of the given paths that were found so far.
    pub fn found_of<'a>(&self, paths: impl IntoIterator<Item = &'a StorePath>) -> BTreeSet<StorePath> {
        paths
            .into_iter()
            .filter(|path| self.is_found(path))
            .cloned()
            .collect()
    }

    /// The hash parts that were found so far, ascending.
    pub fn found(&self) -> impl Iterator<Item = &[u8; HASH_PART_LEN]> {
        self.candidates
            .iter()
            .zip(&self.found)
            .filter(|(_, found)| **found)
            .map(|(part, _)| part)
    }

    /// Whether everything was found: what follows in the stream cannot change the result.
    pub fn is_complete(&self) -> bool {
        self.missing == 0
    }

    fn scan(&mut self, bytes: &[u8]) {
        let mut start = 0;
        while let Some(window) = bytes.get(start..start + HASH_PART_LEN) {
            match window
                .iter()
                .rposition(|&byte| VALUES[usize::from(byte)] == INVALID)
            {
                Some(index) => start += index + 1,
                None => start = self.scan_digits(bytes, start),
            }
        }
    }

    /// Looks up each window of a run of digits, the first of which begins at `start`; gives where the run has ended.
    fn scan_digits(&mut self, bytes: &[u8], start: usize) -> usize {
        let (head, tail) = bytes[start..].split_at(CARRY_LEN);
        let mut key = head
            .iter()
            .fold(0, |key, &byte| next_key(key, VALUES[usize::from(byte)]));
        for (index, &byte) in tail.iter().enumerate() {
            let value = VALUES[usize::from(byte)];
            if value == INVALID {
                return start + index + HASH_PART_LEN;
            }
            key = next_key(key, value);
            if self.filter.may_contain(key) {
                let window = start + index;
                self.look_up(&bytes[window..window + HASH_PART_LEN]);
            }
        }
        bytes.len()
    }

    fn look_up(&mut self, window: &[u8]) {
        if let Ok(index) = self
            .candidates
            .binary_search_by(|candidate| candidate.as_slice().cmp(window))
        {
            self.missing -= usize::from(!self.found[index]);
            self.found[index] = true;
        }
    }
}

/// The last twelve digits, five bits each.
fn next_key(key: u64, value: u8) -> u64 {
    (key << 5) | u64::from(value)
}

/// One bit for every ending of a window: whether some candidate ends so. Hash parts are evenly spread, so their last
/// bits need no hashing.
#[derive(Clone, Debug)]
struct Filter {
    words: Box<[u64]>,
    mask: u64,
}

impl Filter {
    fn new(candidates: &[[u8; HASH_PART_LEN]]) -> Self {
        let wanted = candidates.len().next_power_of_two().trailing_zeros() + FILTER_EACH_LOG2;
        let log2 = wanted.clamp(FILTER_LOG2.0, FILTER_LOG2.1);
        let mut filter = Self {
            words: vec![0; 1 << (log2 - 6)].into(),
            mask: (1 << log2) - 1,
        };
        for candidate in candidates {
            let key = candidate
                .iter()
                .fold(0, |key, &byte| next_key(key, VALUES[usize::from(byte)]));
            let (word, bit) = filter.place(key);
            filter.words[word] |= bit;
        }
        filter
    }

    fn may_contain(&self, key: u64) -> bool {
        let (word, bit) = self.place(key);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }

    fn place(&self, key: u64) -> (usize, u64) {
        let index = key & self.mask;
        // at most 2^17 words by `FILTER_LOG2`
        (usize::try_from(index >> 6).unwrap_or(0), 1 << (index & 63))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nixbase32::ALPHABET;
    use crate::store_path::StorePathName;
    use proptest::prelude::*;

    fn path(digest: [u8; 20]) -> StorePath {
        StorePath::new(digest, StorePathName::new("x").unwrap())
    }

    /// The definition: some window is the hash part.
    fn naive(stream: &[u8], candidates: &[StorePath]) -> BTreeSet<StorePath> {
        let named = |path: &&StorePath| stream.windows(32).any(|window| window == path.hash_part());
        candidates.iter().filter(named).cloned().collect()
    }

    /// Streams rich in digits, in pieces of candidates, and in candidates.
    fn any_stream(candidates: Vec<StorePath>) -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            4 => (prop::sample::select(candidates), 0usize..32, 0usize..=32).prop_map(|(path, from, to)| {
                path.hash_part()[from.min(to)..to].to_vec()
            }),
            2 => prop::collection::vec(prop::sample::select(ALPHABET.to_vec()), 0..50),
            1 => prop::collection::vec(any::<u8>(), 0..50),
        ];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    /// Digests like `aaaa…` make hash parts that overlap themselves and each other.
    fn any_case() -> impl Strategy<Value = (Vec<StorePath>, Vec<u8>)> {
        let digest = prop_oneof![any::<[u8; 20]>(), any::<u8>().prop_map(|byte| [byte; 20])];
        prop::collection::vec(digest.prop_map(path), 1..8)
            .prop_flat_map(|candidates| (Just(candidates.clone()), any_stream(candidates)))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn agrees_with_definition((candidates, stream) in any_case(), cut in 1usize..80) {
            let expected = naive(&stream, &candidates);
            for cut in [usize::MAX, cut, 1, 31, 32] {
                let mut scanner = RefScanner::new(&candidates);
                stream.chunks(cut).for_each(|piece| scanner.feed(piece));
                prop_assert_eq!(&scanner.found_of(&candidates), &expected, "cut {}", cut);
                let all = candidates.iter().collect::<BTreeSet<_>>().len();
                prop_assert_eq!(scanner.is_complete(), expected.len() == all);
            }
        }
    }

    #[test]
    fn many_candidates() {
        let digest = |n: u32| {
            let hash = crate::hash::sha256(&n.to_le_bytes());
            let mut digest = [0; 20];
            digest.copy_from_slice(&hash[..20]);
            digest
        };
        let candidates: BTreeSet<_> = (0..50_000).map(|n| path(digest(n))).collect();
        let mut scanner = RefScanner::new(&candidates);
        let named: BTreeSet<_> = candidates.iter().step_by(3).cloned().collect();
        for path in &named {
            scanner.feed(&path.hash_part());
        }
        assert_eq!(scanner.found_of(&candidates), named);
    }

    #[test]
    fn hash_parts_alone() {
        let parts = [path([1; 20]).hash_part(), path([2; 20]).hash_part()];
        let mut scanner = RefScanner::from_hash_parts(parts).unwrap();
        scanner.feed(&parts[1]);
        assert_eq!(scanner.found().collect::<Vec<_>>(), [&parts[1]]);
        for wrong in ["", "short", "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee"] {
            assert!(RefScanner::from_hash_parts([wrong]).is_err());
        }
    }

    #[test]
    fn nothing_to_find() {
        let mut scanner = RefScanner::new([]);
        scanner.feed(&[b'0'; 100]);
        assert!(scanner.is_complete());
        assert!(!scanner.is_found(&path([0; 20])));
    }
}
