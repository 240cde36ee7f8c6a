//! A build's log as it comes: lines, the phase, the last words.
//!
//! Log bytes are a stranger's: control characters never reach the terminal, and memory is bounded: [`TAIL_LINES`] lines of at
//! most [`LINE_SIZE_MAX`] bytes.

use std::collections::VecDeque;

/// Lines kept.
const TAIL_LINES: usize = 25;
/// Longest line kept, bytes.
const LINE_SIZE_MAX: usize = 1024;

/// What is known of one log.
#[derive(Clone, Debug, Default)]
pub struct Log {
    partial: Vec<u8>,
    tail: VecDeque<String>,
    /// The phase it is in, when it said so.
    pub phase: Option<String>,
}

impl Log {
    /// Takes bytes as they come; returns the lines they end.
    pub fn take(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = LINE_SIZE_MAX.saturating_sub(self.partial.len());
            self.partial.extend_from_slice(&part[..part.len().min(room)]);
            if part.ends_with(b"\n") {
                lines.extend(self.end());
            }
        }
        lines
    }

    /// Ends the line that has begun, at the end of the log.
    pub fn end(&mut self) -> Option<String> {
        let bytes = std::mem::take(&mut self.partial);
        if let Some(phase) = internal(&bytes) {
            self.phase = phase.or(self.phase.take());
            return None;
        }
        let line = printable(last_written(&bytes));
        if line.is_empty() {
            return None;
        }
        if let Some(phase) = header(&line) {
            self.phase = Some(phase);
        }
        if self.tail.len() == TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(line.clone());
        Some(line)
    }

    /// The last line that says something.
    pub fn last(&self) -> &str {
        self.tail.back().map_or("", String::as_str)
    }
}

/// A line for the program around the build, and the phase it tells of: `@nix {"action": "setPhase", "phase": "buildPhase"}`.
fn internal(line: &[u8]) -> Option<Option<String>> {
    let json = line.trim_ascii().strip_prefix(b"@nix ")?;
    let value: serde_json::Value = serde_json::from_slice(json).ok()?;
    let phase = (value["action"] == "setPhase")
        .then(|| value["phase"].as_str())
        .flatten();
    Some(phase.map(|phase| printable(phase.as_bytes())))
}

/// The phase that stdenv announces with this line: nixpkgs from 23.11 on, and before.
fn header(line: &str) -> Option<String> {
    const HEADERS: &[(&str, &str)] = &[
        ("unpacking sources", "unpackPhase"),
        ("patching sources", "patchPhase"),
        ("configuring", "configurePhase"),
        ("building", "buildPhase"),
        ("running tests", "checkPhase"),
        ("installing", "installPhase"),
        ("post-installation fixup", "fixupPhase"),
        ("running install tests", "installCheckPhase"),
    ];
    let old = HEADERS.iter().find(|(header, _)| *header == line);
    let new = line.strip_prefix("Running phase: ").filter(|phase| {
        phase
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
    });
    old.map(|(_, phase)| *phase).or(new).map(String::from)
}

/// What a terminal would show at last of a line that is written over with carriage returns.
fn last_written(line: &[u8]) -> &[u8] {
    let line = line.trim_ascii_end();
    line.rsplit(|byte| *byte == b'\r').next().unwrap_or(line)
}

/// Text without line ends and with every control character but tabs left out, colours included.
pub fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        if char == '\x1b' {
            skip_escape(&mut chars);
        } else if char == '\t' || !char.is_control() && !turns(char) {
            out.push(char);
        }
    }
    out
}

/// CSI sequences end with a byte from `@` to `~`, OSC with BEL or ST, others after one byte (ECMA-48).
fn skip_escape(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match chars.next() {
        Some('[') => {
            while chars.next_if(|char| !('@'..='~').contains(char)).is_some() {}
            chars.next();
        }
        Some(']') => {
            while chars.next_if(|char| *char != '\x07' && *char != '\x1b').is_some() {}
            if chars.next() == Some('\x1b') {
                chars.next_if_eq(&'\\');
            }
        }
        _ => {}
    }
}

/// Marks that change the direction of text after them (Unicode's bidirectional controls).
fn turns(char: char) -> bool {
    matches!(char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{061c}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_cannot_drive_the_terminal() {
        assert_eq!(
            printable(b"\x1b[31mred\x1b[0m \x1b]0;title\x07ok\r\n\x1b]8;;http://x\x1b\\link\x1b(B"),
            "red oklinkB"
        );
        assert_eq!(printable(b"a\tb\xff\x9b31m"), "a\tb\u{fffd}\u{fffd}31m");
        assert_eq!(printable("a\u{202e}b".as_bytes()), "ab");
        assert_eq!(printable(b"\x1b"), "");
        assert_eq!(printable(b"\x1b["), "");
    }

    #[test]
    fn lines_are_put_together_and_bounded() {
        let mut log = Log::default();
        assert!(log.take(b"hel").is_empty());
        assert_eq!(log.take(b"lo\n\nworld\n"), ["hello", "world"]);
        assert_eq!(log.take(b" 10%\r 20%\r 30%\n"), [" 30%"]);
        assert_eq!(log.last(), " 30%");
        let long = vec![b'x'; 10 * LINE_SIZE_MAX];
        log.take(&long);
        log.take(b"\n");
        assert_eq!(log.last().len(), LINE_SIZE_MAX);
        for _ in 0..100 {
            log.take(b"line\n");
        }
        assert_eq!(log.tail.len(), TAIL_LINES);
    }

    #[test]
    fn phases_are_found() {
        let mut log = Log::default();
        let lines = log.take(
            b"@nix { \"action\": \"setPhase\", \"phase\": \"unpackPhase\" }\nunpacking source archive\n",
        );
        assert_eq!(lines, ["unpacking source archive"]);
        assert_eq!(log.phase.as_deref(), Some("unpackPhase"));
        log.take(b"Running phase: buildPhase\n");
        assert_eq!(log.phase.as_deref(), Some("buildPhase"));
        log.take(b"running tests\n");
        assert_eq!(log.phase.as_deref(), Some("checkPhase"));
        log.take(b"building everything\nRunning phase: a b\n@nix {\"action\": \"msg\"}\n@nix not json\n");
        assert_eq!(log.phase.as_deref(), Some("checkPhase"));
        assert_eq!(log.last(), "@nix not json");
    }
}
