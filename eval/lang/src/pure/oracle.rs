//! Reads the recorded answers of Nix 2.34 that the tests replay.
//!
//! One case per line, fields separated by tabs; a field writes every byte outside printable ASCII, and the backslash
//! itself, as `\xHH`. Lines starting with `#` and empty lines are comments.

/// The cases of one table, each a list of decoded fields.
pub(crate) fn cases(table: &str) -> Vec<Vec<Vec<u8>>> {
    table
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split('\t').map(decode).collect())
        .collect()
}

fn decode(field: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = field.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'\\' {
            let digits = std::str::from_utf8(&tail[1..3]).expect("two hex digits follow \\x");
            out.push(u8::from_str_radix(digits, 16).expect("two hex digits follow \\x"));
            rest = &tail[3..];
        } else {
            out.push(byte);
            rest = tail;
        }
    }
    out
}
