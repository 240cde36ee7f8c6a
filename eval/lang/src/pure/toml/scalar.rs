//! Strings, numbers, dates and times.

use super::Value;
use super::parse::Cursor;
use super::tree::Wrong;

const BASIC: Wrong = "toml::parse_basic_string: invalid string format";
const LITERAL: Wrong = "toml::parse_literal_string: invalid string format";
const ML_BASIC: Wrong = "toml::parse_ml_basic_string: invalid string format";
const ML_LITERAL: Wrong = "toml::parse_ml_literal_string: invalid string format";
const UNKNOWN: Wrong = "bad format: unknown value appeared";
const BAD_INTEGER: Wrong = "bad integer: `_` must be surrounded by digits";
const LEADING_ZERO: Wrong = "bad integer: leading zero";
const BAD_FLOAT: Wrong = "bad float: invalid format";
const BAD_TIME: Wrong = "bad time: must be HH:MM:SS.subsec";

/// Reads one value that is no container.
pub(super) fn scalar(cursor: &mut Cursor<'_>) -> Result<Value, Wrong> {
    match cursor.peek() {
        Some(b'"') if cursor.eat(b"\"\"\"") => ml_basic_string(cursor).map(Value::String),
        Some(b'\'') if cursor.eat(b"'''") => ml_literal_string(cursor).map(Value::String),
        Some(b'"') => basic_string(cursor).map(Value::String),
        Some(b'\'') => literal_string(cursor).map(Value::String),
        Some(b't') if cursor.eat(b"true") => Ok(Value::Bool(true)),
        Some(b'f') if cursor.eat(b"false") => Ok(Value::Bool(false)),
        Some(b'0'..=b'9') if looks_like_date(cursor.rest()) || looks_like_time(cursor.rest()) => {
            timestamp(cursor).map(Value::Timestamp)
        }
        Some(b'0'..=b'9' | b'+' | b'-' | b'i' | b'n') => number(cursor),
        Some(b'.') => Err("bad float: integer part is required before decimal point"),
        Some(b'_') => Err("bad number: `_` must be surrounded by digits"),
        Some(b'T') => {
            Err("toml::parse_value: `true` must be in lowercase. A string must be surrounded by quotes.")
        }
        Some(b'F') => {
            Err("toml::parse_value: `false` must be in lowercase. A string must be surrounded by quotes.")
        }
        _ => Err(UNKNOWN),
    }
}

/// A string in `"`, on one line.
pub(super) fn basic_string(cursor: &mut Cursor<'_>) -> Result<String, Wrong> {
    cursor.take();
    let mut out = Vec::new();
    loop {
        let rest = cursor.rest();
        let plain = cursor.skip_while(|byte| is_text(byte) && byte != b'"' && byte != b'\\');
        out.extend_from_slice(&rest[..plain]);
        match cursor.take() {
            Some(b'"') => return String::from_utf8(out).map_err(|_| BASIC),
            Some(b'\\') => push(&mut out, escape(cursor, BASIC)?),
            _ => return Err(BASIC),
        }
    }
}

/// A string in `'`, on one line.
pub(super) fn literal_string(cursor: &mut Cursor<'_>) -> Result<String, Wrong> {
    cursor.take();
    let rest = cursor.rest();
    let len = cursor.skip_while(|byte| is_text(byte) && byte != b'\'');
    if cursor.take() != Some(b'\'') {
        return Err(LITERAL);
    }
    String::from_utf8(rest[..len].to_vec()).map_err(|_| LITERAL)
}

fn ml_basic_string(cursor: &mut Cursor<'_>) -> Result<String, Wrong> {
    cursor.eat_newline();
    let mut out = Vec::new();
    loop {
        let rest = cursor.rest();
        let plain = cursor.skip_while(|byte| is_text(byte) && byte != b'"' && byte != b'\\');
        out.extend_from_slice(&rest[..plain]);
        if let Some(quotes) = closing_quotes(cursor, b'"') {
            out.extend(std::iter::repeat_n(b'"', quotes));
            return String::from_utf8(out).map_err(|_| ML_BASIC);
        }
        if let Some(line_end) = line_end(cursor) {
            out.extend_from_slice(line_end);
            continue;
        }
        match cursor.take() {
            Some(b'"') => out.push(b'"'),
            Some(b'\\') if !folds_line(cursor) => push(&mut out, escape(cursor, ML_BASIC)?),
            Some(b'\\') => {}
            _ => return Err(ML_BASIC),
        }
    }
}

fn ml_literal_string(cursor: &mut Cursor<'_>) -> Result<String, Wrong> {
    cursor.eat_newline();
    let mut out = Vec::new();
    loop {
        let rest = cursor.rest();
        let plain = cursor.skip_while(|byte| is_text(byte) && byte != b'\'');
        out.extend_from_slice(&rest[..plain]);
        if let Some(quotes) = closing_quotes(cursor, b'\'') {
            out.extend(std::iter::repeat_n(b'\'', quotes));
            return String::from_utf8(out).map_err(|_| ML_LITERAL);
        }
        if let Some(line_end) = line_end(cursor) {
            out.extend_from_slice(line_end);
            continue;
        }
        match cursor.take() {
            Some(b'\'') => out.push(b'\''),
            _ => return Err(ML_LITERAL),
        }
    }
}

/// At the end of a string over lines: how many quotes (at most two) belong to it before the three that close it.
fn closing_quotes(cursor: &mut Cursor<'_>, quote: u8) -> Option<usize> {
    let run = cursor
        .rest()
        .iter()
        .take(5)
        .take_while(|&&byte| byte == quote)
        .count();
    let inner = run.checked_sub(3)?;
    cursor.position += run;
    Some(inner)
}

fn line_end<'t>(cursor: &mut Cursor<'t>) -> Option<&'t [u8]> {
    let rest = cursor.rest();
    let start = cursor.position;
    cursor.eat_newline().then(|| &rest[..cursor.position - start])
}

/// After a backslash: skips blanks and line ends if the line ends here; `false` and nothing skipped otherwise.
fn folds_line(cursor: &mut Cursor<'_>) -> bool {
    let start = cursor.position;
    cursor.skip_while(|byte| byte == b' ' || byte == b'\t');
    if !cursor.eat_newline() {
        cursor.position = start;
        return false;
    }
    while cursor.skip_while(|byte| byte == b' ' || byte == b'\t') > 0 || cursor.eat_newline() {}
    true
}

/// What may stand in a string: everything but control characters, of which only the tab may.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= 0x20 && byte != 0x7F)
}

fn push(out: &mut Vec<u8>, character: char) {
    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
}

fn escape(cursor: &mut Cursor<'_>, wrong: Wrong) -> Result<char, Wrong> {
    Ok(match cursor.take() {
        Some(b'b') => '\u{8}',
        Some(b't') => '\t',
        Some(b'n') => '\n',
        Some(b'f') => '\u{c}',
        Some(b'r') => '\r',
        Some(b'"') => '"',
        Some(b'\\') => '\\',
        Some(b'u') => return code_point(cursor, 4, wrong),
        Some(b'U') => return code_point(cursor, 8, wrong),
        _ => return Err(wrong),
    })
}

fn code_point(cursor: &mut Cursor<'_>, digits: usize, wrong: Wrong) -> Result<char, Wrong> {
    let mut value: u32 = 0;
    for _ in 0..digits {
        let digit = cursor
            .take()
            .and_then(|byte| char::from(byte).to_digit(16))
            .ok_or(wrong)?;
        value = value << 4 | digit;
    }
    match value {
        0xD800..=0xDFFF => Err("toml::parse_utf8_codepoint: [0xD800, 0xDFFF] is not a valid UTF-8"),
        _ => char::from_u32(value).ok_or("toml::parse_utf8_codepoint: input codepoint is too large."),
    }
}

fn number(cursor: &mut Cursor<'_>) -> Result<Value, Wrong> {
    for (prefix, radix, bad, large) in RADIXES {
        if cursor.eat(prefix) {
            return with_radix(cursor, radix, bad, large);
        }
    }
    let start = cursor.position;
    let negative = cursor.peek() == Some(b'-');
    if negative || cursor.peek() == Some(b'+') {
        cursor.take();
    }
    if cursor.eat(b"inf") {
        return Ok(Value::Float(if negative {
            f64::NEG_INFINITY
        } else {
            f64::INFINITY
        }));
    }
    if cursor.eat(b"nan") {
        return Ok(Value::Float(if negative { -f64::NAN } else { f64::NAN }));
    }
    let whole_start = cursor.position;
    digits(cursor, UNKNOWN, BAD_INTEGER)?;
    let whole = &cursor.text[whole_start..cursor.position];
    if whole.len() > 1 && whole[0] == b'0' {
        return Err(LEADING_ZERO);
    }
    let mut float = false;
    if cursor.eat(b".") {
        float = true;
        digits(cursor, BAD_FLOAT, BAD_FLOAT)?;
    }
    if cursor.eat(b"e") || cursor.eat(b"E") {
        float = true;
        if !cursor.eat(b"+") {
            cursor.eat(b"-");
        }
        digits(cursor, BAD_FLOAT, BAD_FLOAT)?;
    }
    let text: String = cursor.text[start..cursor.position]
        .iter()
        .filter(|&&byte| byte != b'_')
        .map(|&byte| char::from(byte))
        .collect();
    if float { finite(&text) } else { integer(&text) }
}

fn finite(text: &str) -> Result<Value, Wrong> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(Value::Float(value)),
        _ => Err("toml::parse_floating: failed to read floating point value from stream"),
    }
}

fn integer(text: &str) -> Result<Value, Wrong> {
    let value = text
        .parse()
        .map_err(|_| "toml::parse_dec_integer: too large integer: current max digits = 2^63")?;
    Ok(Value::Int(value))
}

/// Digits with single underscores between them.
fn digits(cursor: &mut Cursor<'_>, none: Wrong, underscore: Wrong) -> Result<(), Wrong> {
    digits_of(cursor, |byte| byte.is_ascii_digit(), none, underscore)
}

fn digits_of(
    cursor: &mut Cursor<'_>,
    digit: impl Fn(u8) -> bool,
    none: Wrong,
    underscore: Wrong,
) -> Result<(), Wrong> {
    if cursor.skip_while(&digit) == 0 {
        return Err(none);
    }
    while cursor.eat(b"_") {
        if cursor.skip_while(&digit) == 0 {
            return Err(underscore);
        }
    }
    Ok(())
}

/// Prefix, base, the error for bad digits, the error for too many.
const RADIXES: [(&[u8], u32, Wrong, Wrong); 3] = [
    (
        b"0x",
        16,
        "toml::parse_hex_integer: invalid integer: hex_int must be like: 0xC0FFEE, 0xdead_beef",
        "toml::parse_hex_integer: too large integer: current max value = 2^63",
    ),
    (
        b"0o",
        8,
        "toml::parse_oct_integer: invalid integer: oct_int must be like: 0o775, 0o04_44",
        "toml::parse_oct_integer: too large integer: current max value = 2^63",
    ),
    (
        b"0b",
        2,
        "toml::parse_bin_integer: invalid integer: bin_int must be like: 0b0101, 0b1111_0000",
        "toml::parse_bin_integer: too large integer: current max value = 2^63",
    ),
];

fn with_radix(cursor: &mut Cursor<'_>, radix: u32, bad: Wrong, large: Wrong) -> Result<Value, Wrong> {
    let start = cursor.position;
    digits_of(cursor, |byte| char::from(byte).is_digit(radix), bad, BAD_INTEGER)?;
    let text: String = cursor.text[start..cursor.position]
        .iter()
        .filter(|&&byte| byte != b'_')
        .map(|&byte| char::from(byte))
        .collect();
    i64::from_str_radix(&text, radix)
        .map(Value::Int)
        .map_err(|_| large)
}

fn looks_like_date(rest: &[u8]) -> bool {
    matches!(rest, [a, b, c, d, b'-', ..] if [a, b, c, d].iter().all(|byte| byte.is_ascii_digit()))
}

fn looks_like_time(rest: &[u8]) -> bool {
    matches!(rest, [a, b, b':', ..] if a.is_ascii_digit() && b.is_ascii_digit())
}

/// A date, a time, or both with or without an offset, in the form Nix prints.
fn timestamp(cursor: &mut Cursor<'_>) -> Result<String, Wrong> {
    if looks_like_time(cursor.rest()) {
        return time(cursor);
    }
    let date = date(cursor)?;
    match cursor.rest() {
        [b'T' | b't', ..] => {}
        [b' ', digit, ..] if digit.is_ascii_digit() => {}
        _ => return Ok(date),
    }
    cursor.take();
    let time = time(cursor)?;
    let offset = offset(cursor)?;
    Ok(format!("{date}T{time}{offset}"))
}

fn date(cursor: &mut Cursor<'_>) -> Result<String, Wrong> {
    const FORMAT: Wrong = "bad datetime: invalid format";
    let year = fixed_digits(cursor, 4).ok_or(FORMAT)?;
    let month = separated(cursor, b"-").ok_or(FORMAT)?;
    let day = separated(cursor, b"-").ok_or(FORMAT)?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    };
    if day == 0 || day > days {
        return Err("toml::parse_local_date: invalid date.");
    }
    Ok(format!("{year:04}-{month:02}-{day:02}"))
}

fn time(cursor: &mut Cursor<'_>) -> Result<String, Wrong> {
    let hour = fixed_digits(cursor, 2).ok_or(BAD_TIME)?;
    let minute = separated(cursor, b":").ok_or(BAD_TIME)?;
    let second = separated(cursor, b":").ok_or(BAD_TIME)?;
    if hour > 23 || minute > 59 || second > 60 {
        return Err("toml::parse_local_time: invalid time.");
    }
    let mut fraction = String::new();
    if cursor.peek() == Some(b'.')
        && cursor
            .text
            .get(cursor.position + 1)
            .is_some_and(u8::is_ascii_digit)
    {
        cursor.take();
        let rest = cursor.rest();
        let len = cursor.skip_while(|byte| byte.is_ascii_digit());
        fraction = shown_fraction(&rest[..len]);
    }
    Ok(format!("{hour:02}:{minute:02}:{second:02}{fraction}"))
}

/// At most nine digits, of which groups of three that are all zero at the end are left out.
fn shown_fraction(digits: &[u8]) -> String {
    let mut shown: Vec<u8> = digits
        .iter()
        .copied()
        .chain(std::iter::repeat(b'0'))
        .take(9)
        .collect();
    while shown.ends_with(b"000") {
        shown.truncate(shown.len() - 3);
    }
    let dot = if shown.is_empty() { "" } else { "." };
    format!("{dot}{}", String::from_utf8_lossy(&shown))
}

fn offset(cursor: &mut Cursor<'_>) -> Result<String, Wrong> {
    let sign = match cursor.peek() {
        Some(b'Z' | b'z') => {
            cursor.take();
            return Ok("Z".to_owned());
        }
        Some(b'+') => '+',
        Some(b'-') => '-',
        _ => return Ok(String::new()),
    };
    cursor.take();
    let hour = fixed_digits(cursor, 2).ok_or("bad offset: must be [+-]HH:MM or Z")?;
    let minute = separated(cursor, b":").ok_or("bad offset: must be [+-]HH:MM or Z")?;
    // toml11 takes 60 minutes for an hour.
    if hour > 24 || minute > 60 {
        return Err("toml::parse_offset_datetime: too large offset: |hour| <= 24, |minute| <= 60");
    }
    let minutes = hour * 60 + minute;
    if minutes == 0 {
        return Ok("Z".to_owned());
    }
    Ok(format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60))
}

fn separated(cursor: &mut Cursor<'_>, separator: &[u8]) -> Option<u32> {
    if cursor.eat(separator) {
        fixed_digits(cursor, 2)
    } else {
        None
    }
}

fn fixed_digits(cursor: &mut Cursor<'_>, count: usize) -> Option<u32> {
    let digits = cursor.rest().get(..count)?;
    let value = std::str::from_utf8(digits)
        .ok()
        .filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?;
    cursor.position += count;
    value.parse().ok()
}
