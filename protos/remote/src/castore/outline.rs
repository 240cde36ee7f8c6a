//! Outlines: the upper part of a blob's BLAKE3 tree, by which any group of its bytes can be checked without the rest.
//!
//! Invariants
//! - an [`Outline`] exists only when its values merge to the blob's digest and the last group has the length that the
//!   size says: so the size is proven as well;
//! - merging is iterative; the number of groups is bounded by [`GROUPS_MAX`].
//!
//! Source: BLAKE3 paper section 2.1 (the left subtree is the largest power of two of chunks that leaves something for the
//! right one), `blake3::hazmat`.

use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use bytes::Bytes;
use igloo_castore::digest::BlobDigest;

/// Most groups in an outline, 2 MiB of values.
pub(crate) const GROUPS_MAX: u64 = 1 << 16;
/// Smallest and largest group, as powers of two of bytes.
pub(crate) const GROUP_LOG2: std::ops::RangeInclusive<u32> = 14..=24;
/// The group size we choose where it gives few enough groups.
const GROUP_LOG2_USUAL: u32 = 18;

/// The checked values of a blob's groups.
#[derive(Clone, Debug)]
pub(crate) struct Outline {
    size: u64,
    group_log2: u32,
    values: Bytes,
}

/// A blob that is too large for an outline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a blob of {size} bytes is too large for an outline")]
pub(crate) struct TooLarge {
    size: u64,
}

/// The group size for a blob.
pub(crate) fn group_log2(size: u64) -> Result<u32, TooLarge> {
    let mut choices = GROUP_LOG2_USUAL..=*GROUP_LOG2.end();
    choices
        .find(|log2| groups(size, *log2) <= GROUPS_MAX)
        .ok_or(TooLarge { size })
}

fn groups(size: u64, log2: u32) -> u64 {
    size.div_ceil(1 << log2)
}

impl Outline {
    /// Checks what a peer says of a blob of two groups or more: `values` are its outline, `last` the last group's bytes.
    pub(crate) fn prove(
        digest: &BlobDigest,
        size: u64,
        group_log2: u32,
        values: Bytes,
        last: &[u8],
    ) -> Option<Self> {
        if !GROUP_LOG2.contains(&group_log2) || groups(size, group_log2) > GROUPS_MAX {
            return None;
        }
        let count = groups(size, group_log2);
        if count < 2 || values.len() as u64 != count * 32 {
            return None;
        }
        let outline = Self {
            size,
            group_log2,
            values,
        };
        let whole = outline.merge() == *digest.as_bytes();
        (whole && outline.check(count - 1, last)).then_some(outline)
    }

    /// The blob's size, bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Start and size of a group in the blob, bytes.
    pub(crate) fn group(&self, index: u64) -> (u64, u64) {
        let start = index << self.group_log2;
        (start, self.size.saturating_sub(start).min(1 << self.group_log2))
    }

    /// The groups that `[offset, end)` touches; `end` lies within the blob.
    pub(crate) fn touched(&self, offset: u64, end: u64) -> std::ops::Range<u64> {
        offset >> self.group_log2..end.div_ceil(1 << self.group_log2)
    }

    /// A group's value. Panics never: an index past the end has the value of no bytes.
    pub(crate) fn value(&self, index: u64) -> ChainingValue {
        let at = usize::try_from(index)
            .ok()
            .and_then(|index| index.checked_mul(32));
        let value = at
            .and_then(|at| self.values.get(at..))
            .and_then(|rest| rest.first_chunk());
        value.copied().unwrap_or_default()
    }

    /// Whether these are a group's bytes.
    pub(crate) fn check(&self, index: u64, bytes: &[u8]) -> bool {
        let (start, size) = self.group(index);
        // no group is empty, and `blake3::hazmat` panics on empty subtrees
        !bytes.is_empty() && bytes.len() as u64 == size && group_value(start, bytes) == self.value(index)
    }

    pub(crate) fn values(&self) -> Bytes {
        self.values.clone()
    }

    pub(crate) fn group_log2(&self) -> u32 {
        self.group_log2
    }

    /// The root hash of the values.
    fn merge(&self) -> [u8; 32] {
        let count = groups(self.size, self.group_log2);
        let mut stack: Vec<ChainingValue> = Vec::with_capacity(64);
        for index in 0..count {
            stack.push(self.value(index));
            // complete subtrees are merged at once, but the last group's only with the root
            let mut complete = index + 1;
            while complete % 2 == 0 && complete < count {
                merge_top(&mut stack);
                complete /= 2;
            }
        }
        while stack.len() > 2 {
            merge_top(&mut stack);
        }
        match stack.as_slice() {
            [left, right] => *merge_subtrees_root(left, right, Mode::Hash).as_bytes(),
            _ => [0; 32], // fewer than two groups, which `prove` refused
        }
    }
}

fn merge_top(stack: &mut Vec<ChainingValue>) {
    if let (Some(right), Some(left)) = (stack.pop(), stack.pop()) {
        stack.push(merge_subtrees_non_root(&left, &right, Mode::Hash));
    }
}

/// The value of a group that starts at a multiple of its size.
fn group_value(start: u64, bytes: &[u8]) -> ChainingValue {
    blake3::Hasher::new()
        .set_input_offset(start)
        .update(bytes)
        .finalize_non_root()
}

/// Makes the outline of a blob that is read from front to back, one whole group after the other.
pub(crate) struct OutlineBuilder {
    size: u64,
    group_log2: u32,
    values: Vec<u8>,
    offset: u64,
}

impl OutlineBuilder {
    pub(crate) fn new(size: u64) -> Result<Self, TooLarge> {
        Ok(Self {
            size,
            group_log2: group_log2(size)?,
            values: Vec::new(),
            offset: 0,
        })
    }

    /// Start and size of the group that is wanted next, `None` at the end.
    pub(crate) fn wanted(&self) -> Option<(u64, usize)> {
        let size = self.size.saturating_sub(self.offset).min(1 << self.group_log2);
        let size = usize::try_from(size).ok().filter(|size| *size > 0)?;
        Some((self.offset, size))
    }

    /// Takes the group that was wanted.
    pub(crate) fn push(&mut self, group: &[u8]) {
        self.values.extend_from_slice(&group_value(self.offset, group));
        self.offset += group.len() as u64;
    }

    /// The outline, unchecked: the store it was read from checked the bytes.
    pub(crate) fn finish(self) -> Outline {
        Outline {
            size: self.size,
            group_log2: self.group_log2,
            values: self.values.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: usize = 1 << GROUP_LOG2_USUAL;

    fn outline_of(blob: &[u8]) -> Outline {
        let mut builder = OutlineBuilder::new(blob.len() as u64).unwrap();
        while let Some((start, size)) = builder.wanted() {
            let start = usize::try_from(start).unwrap();
            builder.push(&blob[start..start + size]);
        }
        builder.finish()
    }

    fn prove(blob: &[u8], outline: &Outline, size: u64) -> Option<Outline> {
        let last = blob.len() - (blob.len() - 1) % GROUP - 1;
        Outline::prove(
            &BlobDigest::of(blob),
            size,
            outline.group_log2,
            outline.values(),
            &blob[last..],
        )
    }

    /// The merged values are BLAKE3's hash for every shape of tree: all counts of groups up to 18, ragged or not.
    #[test]
    fn merged_values_are_the_hash() {
        let bytes: Vec<u8> = (0..=250u8).cycle().take(19 * GROUP).collect();
        for groups in 2..=18 {
            for size in [(groups - 1) * GROUP + 1, groups * GROUP - 1, groups * GROUP] {
                let blob = &bytes[..size];
                let proven = prove(blob, &outline_of(blob), size as u64);
                assert!(proven.is_some(), "{size}");
            }
        }
    }

    #[test]
    fn lies_prove_nothing() {
        let blob = vec![7u8; 3 * GROUP + 5];
        let honest = outline_of(&blob);
        assert!(prove(&blob, &honest, blob.len() as u64).is_some());
        for size in [blob.len() - 1, blob.len() + 1, 2 * GROUP + 5, 9 * GROUP] {
            assert!(prove(&blob, &honest, size as u64).is_none(), "{size}");
        }
        for at in 0..honest.values.len() {
            let mut values = honest.values.to_vec();
            values[at] ^= 1;
            let wrong = Outline {
                values: values.into(),
                ..honest.clone()
            };
            assert!(prove(&blob, &wrong, blob.len() as u64).is_none(), "{at}");
        }
        let digest = BlobDigest::of(&blob);
        for log2 in [0, 13, 25, 64, u32::MAX] {
            assert!(Outline::prove(&digest, blob.len() as u64, log2, honest.values(), &[]).is_none());
        }
        assert!(Outline::prove(&digest, u64::MAX, 18, honest.values(), &[]).is_none());
    }

    #[test]
    fn a_group_is_checked_by_itself() {
        let blob = [vec![0; GROUP], vec![1; GROUP], vec![2; GROUP]].concat();
        let outline = outline_of(&blob);
        assert!(outline.check(1, &blob[GROUP..2 * GROUP]));
        assert!(!outline.check(0, &blob[GROUP..2 * GROUP]));
        assert!(!outline.check(1, &blob[GROUP..2 * GROUP - 1]));
        assert!(!outline.check(3, &[]));
        assert_eq!(outline.touched(GROUP as u64 - 1, GROUP as u64 + 1), 0..2);
    }

    #[test]
    fn large_blobs_have_larger_groups_until_there_are_none() {
        assert_eq!(group_log2(1 << 34), Ok(18));
        assert_eq!(group_log2((1 << 34) + 1), Ok(19));
        assert_eq!(group_log2(1 << 40), Ok(24));
        assert_eq!(group_log2(u64::MAX), Err(TooLarge { size: u64::MAX }));
    }
}
