//! What a setting can hold, as text and as TOML.

use std::time::Duration;

/// A value as it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Text: of the environment, of a flag, or a TOML string.
    Text(String),
    /// A TOML boolean.
    Switch(bool),
    /// A TOML integer.
    Number(i64),
    /// A TOML list of strings.
    Words(Vec<String>),
}

/// What a setting can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Switch,
    /// A whole number that is not negative; `K`, `M`, `G`, `T` multiply by powers of 1024.
    Number,
    /// Any text.
    Text,
    /// Words between blanks.
    Words,
}

impl Kind {
    /// For messages.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Switch => "`true` or `false`",
            Self::Number => "a whole number",
            Self::Text => "a text",
            Self::Words => "a list of words",
        }
    }
}

impl Value {
    /// As Nix reads a switch.
    pub fn switch(&self) -> Option<bool> {
        match self {
            Self::Switch(value) => Some(*value),
            Self::Text(text) => match text.as_str() {
                "true" | "yes" | "1" => Some(true),
                "false" | "no" | "0" => Some(false),
                _ => None,
            },
            Self::Number(_) | Self::Words(_) => None,
        }
    }

    /// As Nix reads a number.
    pub fn number(&self) -> Option<u64> {
        match self {
            Self::Number(number) => u64::try_from(*number).ok(),
            Self::Text(text) => number(text),
            Self::Switch(_) | Self::Words(_) => None,
        }
    }

    /// The text; numbers and switches are texts too, as in `max-jobs = 4`.
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.clone()),
            Self::Switch(value) => Some(value.to_string()),
            Self::Number(number) => Some(number.to_string()),
            Self::Words(_) => None,
        }
    }

    /// The words.
    pub fn words(&self) -> Option<Vec<String>> {
        match self {
            Self::Text(text) => Some(text.split_whitespace().map(String::from).collect()),
            Self::Words(words) => Some(words.clone()),
            Self::Switch(_) | Self::Number(_) => None,
        }
    }

    /// As Nix would write it, when it is of this kind.
    pub fn as_nix(&self, kind: Kind) -> Option<String> {
        match kind {
            Kind::Switch => self.switch().map(|value| value.to_string()),
            Kind::Number => self.number().map(|value| value.to_string()),
            Kind::Text => self.text(),
            Kind::Words => self.words().map(|words| words.join(" ")),
        }
    }
}

/// Seconds, where none means no bound.
pub fn seconds(number: u64) -> Option<Duration> {
    (number > 0).then(|| Duration::from_secs(number))
}

fn number(text: &str) -> Option<u64> {
    let (digits, factor) = match text.bytes().last()?.to_ascii_uppercase() {
        b'K' => (&text[..text.len() - 1], 1 << 10),
        b'M' => (&text[..text.len() - 1], 1 << 20),
        b'G' => (&text[..text.len() - 1], 1 << 30),
        b'T' => (&text[..text.len() - 1], 1 << 40),
        _ => (text, 1_u64),
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_nix_does() {
        let read = |text: &str| Value::Text(text.into()).number();
        assert_eq!(read("12"), Some(12));
        assert_eq!(read("3k"), Some(3072));
        assert_eq!(read("1T"), Some(1 << 40));
        for wrong in ["", "-1", "x", "3x", "K", "99999999999999999999", "99999999T", "é"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
