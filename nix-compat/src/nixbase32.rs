//! Nix's base 32: the text form of digests in store paths and hashes.
//!
//! The bytes are read as one little-endian number and its digits written most significant first, five bits each, in an
//! alphabet without `e`, `o`, `u` and `t`.
//!
//! Invariants
//! - `decode` accepts exactly what `encode` writes: one text per byte string, bits left over must be zero;
//! - texts of equal length sort as the numbers they stand for.
//!
//! Source: Nix 2.36 `src/libutil/base-nix-32.cc`, `doc/manual/source/protocols/nix32.md`.

use igloo_status::Code;

/// The 32 digits, in order of value.
pub const ALPHABET: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";

/// Value of each byte as a digit; [`INVALID`] for bytes outside the alphabet.
pub(crate) const VALUES: [u8; 256] = values();
/// Marks a byte that is no digit in [`VALUES`].
pub(crate) const INVALID: u8 = 0xff;

const fn values() -> [u8; 256] {
    let mut table = [INVALID; 256];
    let mut value = 0u8;
    while value < 32 {
        table[ALPHABET[value as usize] as usize] = value;
        value += 1;
    }
    table
}

/// Number of digits that `bytes` bytes are written in.
pub const fn encoded_len(bytes: usize) -> usize {
    (bytes * 8).div_ceil(5)
}

/// Number of whole bytes that `digits` digits can hold.
pub const fn decoded_len(digits: usize) -> usize {
    // without multiplying first: no length overflows
    digits / 8 * 5 + digits % 8 * 5 / 8
}

/// Writes bytes as digits. Cost: one allocation.
pub fn encode(bytes: &[u8]) -> String {
    let digits = encoded_len(bytes.len());
    (0..digits)
        .rev()
        .map(|digit| char::from(digit_at(bytes, digit)))
        .collect()
}

/// Writes 20 bytes as the 32 digits of a store path's hash part, without allocating.
pub(crate) fn encode_20(bytes: &[u8; 20]) -> [u8; 32] {
    let mut out = [0; 32];
    for (place, slot) in out.iter_mut().rev().enumerate() {
        *slot = digit_at(bytes, place);
    }
    out
}

/// The digit with weight `32^place`.
fn digit_at(bytes: &[u8], place: usize) -> u8 {
    let (byte, shift) = (place * 5 / 8, place * 5 % 8);
    let low = bytes.get(byte).copied().unwrap_or(0);
    let high = bytes.get(byte + 1).copied().unwrap_or(0);
    let pair = u16::from_le_bytes([low, high]);
    ALPHABET[usize::from((pair >> shift) & 31)]
}

/// Reads digits back into bytes; the number of bytes follows from the number of digits.
///
/// # Errors
/// A byte outside the alphabet, a number of digits that no byte string is written in, or bits past the last byte
/// that are not zero.
pub fn decode(text: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut out = vec![0; decoded_len(text.len())];
    decode_into(text, &mut out)?;
    Ok(out)
}

/// Reads exactly 32 digits into 20 bytes, without allocating.
pub(crate) fn decode_20(text: &[u8]) -> Result<[u8; 20], DecodeError> {
    let mut out = [0; 20];
    if text.len() != 32 {
        return Err(DecodeError::Length { digits: text.len() });
    }
    decode_into(text, &mut out)?;
    Ok(out)
}

/// `out` is zeroed and `decoded_len(text)` bytes long.
fn decode_into(text: &[u8], out: &mut [u8]) -> Result<(), DecodeError> {
    if encoded_len(out.len()) != text.len() {
        return Err(DecodeError::Length { digits: text.len() });
    }
    for (place, &digit) in text.iter().rev().enumerate() {
        let value = VALUES[usize::from(digit)];
        if value == INVALID {
            return Err(DecodeError::Digit {
                index: text.len() - 1 - place,
                byte: digit,
            });
        }
        let (byte, shift) = (place * 5 / 8, place * 5 % 8);
        let [low, high] = (u16::from(value) << shift).to_le_bytes();
        for (at, bits) in [(byte, low), (byte + 1, high)] {
            match out.get_mut(at) {
                Some(slot) => *slot |= bits,
                None if bits == 0 => {}
                None => return Err(DecodeError::Padding),
            }
        }
    }
    Ok(())
}

/// Why a text is not nixbase32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A byte that is no digit.
    #[error("byte {byte:#04x} at index {index} is not a nixbase32 digit (0-9, a-z without e, o, u, t)")]
    Digit {
        /// Index of the byte in the text.
        index: usize,
        /// The byte.
        byte: u8,
    },
    /// No byte string has a text of this length.
    #[error("{digits} nixbase32 digits do not make whole bytes")]
    Length {
        /// Digits in the text.
        digits: usize,
    },
    /// The first digit has bits beyond the last byte.
    #[error("the first nixbase32 digit is too large: bits past the last byte must be zero")]
    Padding,
}

impl DecodeError {
    /// Always `InvalidArgument`: the text itself is wrong.
    pub fn code(&self) -> Code {
        Code::InvalidArgument
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Recorded from `nix-hash --type sha256 --to-base32` (Nix 2.8).
    #[test]
    fn known_texts() {
        assert_eq!(encode(&[]), "");
        assert_eq!(encode(&[0x1f]), "0z");
        let sha256_of_empty = data_encoding::HEXLOWER
            .decode(b"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
            .unwrap();
        assert_eq!(
            encode(&sha256_of_empty),
            "0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73"
        );
    }

    #[test]
    fn refuses_what_encode_never_writes() {
        assert_eq!(decode(b"0e"), Err(DecodeError::Digit { index: 1, byte: b'e' }));
        assert_eq!(decode(b"0Z"), Err(DecodeError::Digit { index: 1, byte: b'Z' }));
        assert_eq!(decode(b"0"), Err(DecodeError::Length { digits: 1 }));
        assert_eq!(decode(b"000"), Err(DecodeError::Length { digits: 3 }));
        assert_eq!(decode(b"80"), Err(DecodeError::Padding));
        assert_eq!(decode(b"70"), Ok(vec![0xe0]));
        assert_eq!(decode_20(b"00"), Err(DecodeError::Length { digits: 2 }));
    }

    proptest! {
        #[test]
        fn round_trips(bytes: Vec<u8>) {
            let text = encode(&bytes);
            prop_assert_eq!(text.len(), encoded_len(bytes.len()));
            prop_assert_eq!(decode(text.as_bytes()), Ok(bytes));
        }

        #[test]
        fn fixed_size_agrees(bytes: [u8; 20]) {
            let text = encode_20(&bytes);
            prop_assert_eq!(encode(&bytes).into_bytes(), text.to_vec());
            prop_assert_eq!(decode_20(&text), Ok(bytes));
        }

        /// Whatever is accepted is what `encode` would have written.
        #[test]
        fn accepted_is_canonical(text in "[0-9a-z]{0,12}") {
            if let Ok(bytes) = decode(text.as_bytes()) {
                prop_assert_eq!(encode(&bytes), text);
            }
        }
    }
}
