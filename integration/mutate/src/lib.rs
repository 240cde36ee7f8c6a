//! Mutations of good input: what a fuzzer does, without one, and the same in every run.

/// A small generator of numbers (splitmix64).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number; all 64 bits are good.
    #[allow(
        clippy::should_implement_trait,
        reason = "a generator has no end, an iterator's next may"
    )]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 when that is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap_or(0)
    }

    /// Flips, cuts, repeats, moves, or overwrites with a byte or a length that means something.
    pub fn mutate(&mut self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return bytes.push(self.next().to_le_bytes()[0]);
        }
        let at = self.below(bytes.len());
        let end = (at + 1 + self.below(40)).min(bytes.len());
        match self.below(8) {
            0 => bytes[at] ^= 1 << (self.next() % 8),
            1 => bytes.truncate(at),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let piece = bytes[at..end].to_vec();
                let to = self.below(bytes.len());
                bytes.splice(to..to, piece);
            }
            4 => bytes[at] = SPECIAL_BYTES[self.below(SPECIAL_BYTES.len())],
            5 => self.place_length(bytes, at / 8 * 8),
            6 => bytes.swap(at, end - 1),
            _ => bytes.extend_from_slice(&self.next().to_le_bytes()),
        }
    }

    fn place_length(&mut self, bytes: &mut [u8], at: usize) {
        let length = LENGTHS[self.below(LENGTHS.len())].to_le_bytes();
        let places = bytes.iter_mut().skip(at);
        places.zip(length).for_each(|(byte, new)| *byte = new);
    }
}

const SPECIAL_BYTES: &[u8] = b"\0\x01\x07\x08\x0a\x12\x7f\x80\xff\"\\\n:-,[](){}/.$";

const LENGTHS: &[u64] = &[
    0,
    1,
    8,
    255,
    256,
    4095,
    4096,
    1 << 31,
    1 << 63,
    u64::MAX,
    u64::MAX - 7,
];

/// Runs a property over good inputs and over `rounds` mutations of each.
///
/// # Panics
/// When the property does; the number of the round and the bytes are printed then.
pub fn mutants(good: &[Vec<u8>], rounds: u64, property: fn(&[u8])) {
    for (index, good) in good.iter().enumerate() {
        property(good);
        for round in 0..rounds {
            let mut random = Random(round);
            let mut bytes = good.clone();
            for _ in 0..=random.below(4) {
                random.mutate(&mut bytes);
            }
            let guard = Round(index, round, &bytes);
            property(&bytes);
            drop(guard);
        }
    }
}

/// Names the round when a property fails in it.
struct Round<'a>(usize, u64, &'a [u8]);

impl Drop for Round<'_> {
    #[allow(clippy::print_stderr, reason = "a failure says how to repeat it")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self(index, round, bytes) = self;
            eprintln!("input {index}, round {round}: {}", bytes.escape_ascii());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mutation_is_repeatable_and_some_change_something() {
        let mutant = |seed| {
            let mut bytes = b"some good input".to_vec();
            Random(seed).mutate(&mut bytes);
            bytes
        };
        let changed = (0..100)
            .filter(|seed| mutant(*seed) != b"some good input")
            .count();
        assert!(changed > 50, "{changed} of 100");
        assert!((0..100).all(|seed| mutant(seed) == mutant(seed)));
    }

    #[test]
    #[should_panic(expected = "found")]
    fn a_property_that_fails_for_a_mutant_is_found() {
        mutants(&[b"aaaa".to_vec()], 1000, |bytes| {
            assert!(!bytes.contains(&b'\\'), "found");
        });
    }
}
