//! The bottom of a terminal, written over in place.
//!
//! A change is one write: it never scrolls what it will write over, and a terminal that knows synchronised updates (mode 2026)
//! shows it at once. The cursor stays visible and no mode is left behind, so that a process killed at any moment leaves
//! nothing but its last lines.
//!
//! Invariant: `drawn` says how many columns each line on the screen takes, the cursor standing at the end of the last.

use std::fmt::Write as _;
use std::io::Write;

use super::block::Size;
use super::style::Line;

/// A terminal whose last lines are ours.
#[derive(Debug)]
pub struct Screen<W: Write> {
    out: W,
    colours: bool,
    block: Vec<Line>,
    drawn: Vec<usize>,
    size: Option<Size>,
}

const BEGIN: &str = "\x1b[?2026h";
const END: &str = "\x1b[?2026l";
const CLEAR_BELOW: &str = "\x1b[J";
const CLEAR_RIGHT: &str = "\x1b[K";

impl<W: Write> Screen<W> {
    /// Nothing is drawn yet.
    pub fn new(out: W) -> Self {
        Self {
            out,
            colours: false,
            block: Vec::new(),
            drawn: Vec::new(),
            size: None,
        }
    }

    /// Tells `story`, which stays, and shows `block` below it. Writes nothing when nothing changes.
    pub fn update(&mut self, story: &[Line], block: Vec<Line>, size: Size, colours: bool) {
        self.colours = colours;
        if story.is_empty() && self.block == block && self.size == Some(size) {
            return;
        }
        let mut text = String::new();
        self.go_to_start(&mut text, size);
        if !story.is_empty() || self.size != Some(size) {
            text.push_str(CLEAR_BELOW);
        }
        for line in story {
            let _ = write!(text, "{}\r\n", line.paint(self.colours)); // writing to a String cannot fail
        }
        self.block = block;
        self.size = Some(size);
        self.draw(&mut text);
        self.write(&text);
    }

    /// Writes bytes of somebody else above the block.
    pub fn above(&mut self, bytes: &[u8]) {
        let Some(size) = self.size.filter(|_| !self.drawn.is_empty()) else {
            let _ = self.out.write_all(bytes); // a terminal that is gone is no reason to stop
            return;
        };
        let mut text = String::new();
        self.go_to_start(&mut text, size);
        text.push_str(CLEAR_BELOW);
        text.push_str(&String::from_utf8_lossy(bytes));
        if !text.ends_with('\n') {
            text.push('\n');
        }
        self.draw(&mut text);
        self.write(&text);
    }

    /// Takes the block away.
    pub fn clear(&mut self) {
        if let Some(size) = self.size.filter(|_| !self.drawn.is_empty()) {
            let mut text = String::new();
            self.go_to_start(&mut text, size);
            text.push_str(CLEAR_BELOW);
            self.block.clear();
            self.drawn.clear();
            self.write(&text);
        }
    }

    /// To the first column of the first drawn line; lines that a narrower terminal has wrapped take more rows.
    fn go_to_start(&mut self, text: &mut String, size: Size) {
        if self.drawn.is_empty() {
            return;
        }
        let columns = size.columns.max(1);
        let rows: usize = self
            .drawn
            .iter()
            .map(|width| width.div_ceil(columns).max(1))
            .sum();
        text.push('\r');
        let up = rows.saturating_sub(1).min(size.rows.saturating_sub(1));
        if up > 0 {
            let _ = write!(text, "\x1b[{up}A");
        }
    }

    fn draw(&mut self, text: &mut String) {
        self.drawn = self.block.iter().map(Line::columns).collect();
        for (index, line) in self.block.iter().enumerate() {
            if index > 0 {
                text.push_str("\r\n");
            }
            text.push_str(&line.paint(self.colours));
            text.push_str(CLEAR_RIGHT);
        }
        text.push_str(CLEAR_BELOW);
    }

    fn write(&mut self, text: &str) {
        let text = format!("{BEGIN}{text}{END}");
        let _ = self.out.write_all(text.as_bytes()); // as above
        let _ = self.out.flush();
    }
}

#[cfg(test)]
impl Screen<Vec<u8>> {
    /// What was written since this was asked last.
    pub fn take_written(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }
}
