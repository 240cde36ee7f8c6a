//! Writes strings as nlohmann's `dump` does.

use igloo_status::Code;

/// Appends `text` in quotes: `"` and `\` and control characters are escaped, everything else stays as it is.
///
/// # Errors
/// When `text` is not UTF-8; then nothing is appended.
pub fn write_string(out: &mut Vec<u8>, text: &[u8]) -> Result<(), WriteStringError> {
    if let Err(error) = std::str::from_utf8(text) {
        return Err(ill_formed(text, &error));
    }
    out.reserve(text.len() + 2);
    out.push(b'"');
    let mut rest = text;
    while let Some(at) = rest
        .iter()
        .position(|&byte| byte == b'"' || byte == b'\\' || byte < 0x20)
    {
        out.extend_from_slice(&rest[..at]);
        match rest[at] {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x09 => out.extend_from_slice(b"\\t"),
            0x0A => out.extend_from_slice(b"\\n"),
            0x0C => out.extend_from_slice(b"\\f"),
            0x0D => out.extend_from_slice(b"\\r"),
            control => out.extend_from_slice(format!("\\u{control:04x}").as_bytes()),
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
    Ok(())
}

/// A string that JSON cannot hold. The messages are nlohmann's, as Nix shows them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteStringError {
    /// A byte that cannot stand there in UTF-8.
    #[error("[json.exception.type_error.316] invalid UTF-8 byte at index {index}: 0x{byte:02X}")]
    Invalid {
        /// Where, in bytes.
        index: usize,
        /// Which byte.
        byte: u8,
    },
    /// The string ends within a character.
    #[error("[json.exception.type_error.316] incomplete UTF-8 string; last byte: 0x{byte:02X}")]
    Incomplete {
        /// The last byte.
        byte: u8,
    },
}

impl WriteStringError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        Code::InvalidArgument
    }
}

fn ill_formed(text: &[u8], error: &std::str::Utf8Error) -> WriteStringError {
    let start = error.valid_up_to();
    match error.error_len() {
        None => WriteStringError::Incomplete {
            byte: text.last().copied().unwrap_or(0),
        },
        Some(len) => {
            // `len` bytes began a character; what is wrong is the byte after them, or a lone byte that begins none.
            let index = if len == 1 && !begins_character(text[start]) {
                start
            } else {
                start + len
            };
            WriteStringError::Invalid {
                index,
                byte: text.get(index).copied().unwrap_or(0),
            }
        }
    }
}

fn begins_character(byte: u8) -> bool {
    matches!(byte, 0xC2..=0xF4)
}
