//! Lines for a terminal: text in pieces, each with a meaning that may be shown as a colour.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// What a piece of text means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Nothing more than it says.
    Plain,
    /// A name.
    Strong,
    /// What matters less.
    Faint,
    /// It went well.
    Good,
    /// It went wrong.
    Bad,
    /// It goes on.
    Busy,
}

/// A line, without its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line(Vec<(Style, String)>);

impl Line {
    /// A line of one piece.
    pub fn plain(text: impl Into<String>) -> Self {
        Self::default().with(Style::Plain, text)
    }

    /// The line with one piece more.
    #[must_use]
    pub fn with(mut self, style: Style, text: impl Into<String>) -> Self {
        self.0.push((style, text.into()));
        self
    }

    /// Columns it takes.
    pub fn columns(&self) -> usize {
        self.0.iter().map(|(_, text)| text.width()).sum()
    }

    /// At most this many columns of it; a line that is cut ends with `…`.
    #[must_use]
    pub fn cut(self, columns_max: usize) -> Self {
        if self.columns() <= columns_max {
            return self;
        }
        let mut left = columns_max;
        let mut pieces = Vec::new();
        for (style, text) in self.0 {
            let width = text.width();
            if width < left {
                left -= width;
                pieces.push((style, text));
            } else {
                pieces.push((style, cut(&text, left)));
                break;
            }
        }
        Self(pieces)
    }

    /// The text alone.
    pub fn text(&self) -> String {
        self.0.iter().map(|(_, text)| text.as_str()).collect()
    }

    /// The text as a terminal takes it.
    pub fn paint(&self, colours: bool) -> String {
        if !colours {
            return self.text();
        }
        let mut out = String::new();
        for (style, text) in &self.0 {
            match code(*style) {
                Some(code) => {
                    out.push_str(code);
                    out.push_str(text);
                    out.push_str("\x1b[0m");
                }
                None => out.push_str(text),
            }
        }
        out
    }
}

/// Text that takes at most this many columns, with `…` for what is left out.
pub fn cut(text: &str, columns_max: usize) -> String {
    if text.width() <= columns_max {
        return text.to_string();
    }
    let mut out = String::new();
    let mut left = columns_max.saturating_sub(1);
    for char in text.chars() {
        let width = char.width().unwrap_or(0);
        if width > left {
            break;
        }
        left -= width;
        out.push(char);
    }
    if columns_max > 0 {
        out.push('…');
    }
    out
}

/// Text with blanks after it, up to this many columns.
pub fn pad(text: &str, columns: usize) -> String {
    let mut out = cut(text, columns);
    out.extend(std::iter::repeat_n(' ', columns.saturating_sub(out.width())));
    out
}

/// Text with blanks before it, up to this many columns.
pub fn pad_left(text: &str, columns: usize) -> String {
    let blanks = columns.saturating_sub(text.width());
    format!("{}{text}", " ".repeat(blanks))
}

/// SGR codes of ECMA-48: 16 colours, which themes map to what can be read.
fn code(style: Style) -> Option<&'static str> {
    match style {
        Style::Plain => None,
        Style::Strong => Some("\x1b[1m"),
        Style::Faint => Some("\x1b[2m"),
        Style::Good => Some("\x1b[32m"),
        Style::Bad => Some("\x1b[1;31m"),
        Style::Busy => Some("\x1b[36m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_by_columns() {
        let line = Line::plain("ab")
            .with(Style::Strong, "cdef")
            .with(Style::Faint, "gh");
        assert_eq!(line.clone().cut(8).text(), "abcdefgh");
        assert_eq!(line.clone().cut(7).text(), "abcdef…");
        assert_eq!(line.clone().cut(4).text(), "abc…");
        assert_eq!(line.cut(0).text(), "");
        assert_eq!(cut("日本語", 5), "日本…");
        assert_eq!(cut("日本語", 4), "日…");
        assert_eq!(pad("日", 4), "日  ");
        assert_eq!(pad_left("7s", 4), "  7s");
    }

    #[test]
    fn colours_are_only_around_the_text() {
        let line = Line::plain("a").with(Style::Good, "b");
        assert_eq!(line.paint(true), "a\x1b[32mb\x1b[0m");
        assert_eq!(line.paint(false), "ab");
    }
}
