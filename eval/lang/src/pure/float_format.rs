//! Floating-point numbers as Nix prints and reads them.
//!
//! Four forms, each from another C or C++ routine: values and XML are `%g` (six significant digits), `toString` is
//! `%f` (six decimals), JSON is nlohmann's Grisu2 with its own layout, and literals are read by glibc's `strtod`, whose
//! range errors count. No form depends on a locale.
//!
//! Invariants
//! - every finite number printed as JSON reads back as itself;
//! - nothing here allocates more than the longest `%f` form, about 320 bytes.

mod grisu;

use igloo_status::Code;

/// A float as values are printed and as `toXML` writes it: C's `%g`.
///
/// Not-a-number keeps its sign, as glibc prints it (`-nan` is what `0.0 * infinity` gives on x86-64).
pub fn print_value(number: f64) -> String {
    const DIGITS: i32 = 6;
    if let Some(special) = special(number) {
        return special.to_owned();
    }
    let scientific = format!("{:.*e}", (DIGITS - 1) as usize, number);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..DIGITS).contains(&exponent) {
        let decimals = usize::try_from(DIGITS - 1 - exponent).unwrap_or(0);
        return strip_zeros(&format!("{number:.decimals$}")).to_owned();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", strip_zeros(mantissa), exponent.unsigned_abs())
}

/// A float as `builtins.toString` gives it: C's `%f`.
pub fn print_to_string(number: f64) -> String {
    match special(number) {
        Some(special) => special.to_owned(),
        None => format!("{number:.6}"),
    }
}

/// A float as `builtins.toJSON` gives it: the shortest digits Grisu2 finds, always with a point or an exponent; `null`
/// for what JSON has no form for.
pub fn print_json(number: f64) -> String {
    if !number.is_finite() {
        return "null".to_owned();
    }
    let sign = if number.is_sign_negative() { "-" } else { "" };
    if number == 0.0 {
        return format!("{sign}0.0");
    }
    let (digits, exponent) = grisu::shortest(number.abs());
    format!("{sign}{}", lay_out(&digits, exponent))
}

/// Reads a float literal, which the lexer has found to have the shape of one.
///
/// # Errors
/// `Range` where `strtod` sets `ERANGE`: the value is infinite, or too small to be held exactly.
pub fn parse_literal(literal: &str) -> Result<f64, ParseFloatError> {
    let range = || ParseFloatError::Range {
        literal: literal.to_owned(),
    };
    let number: f64 = literal.parse().map_err(|_| range())?;
    let tiny = number.abs() < f64::MIN_POSITIVE;
    if number.is_infinite() || (tiny && !is_exact(literal, number)) {
        return Err(range());
    }
    Ok(number)
}

/// Why a float literal has no value. The message is Nix's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseFloatError {
    /// Too large, or too small to be held exactly.
    #[error("invalid float '{literal}'")]
    Range {
        /// The literal as written.
        literal: String,
    },
}

impl ParseFloatError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        Code::InvalidArgument
    }
}

fn special(number: f64) -> Option<&'static str> {
    match (number.is_nan(), number.is_infinite(), number.is_sign_negative()) {
        (true, _, true) => Some("-nan"),
        (true, _, false) => Some("nan"),
        (_, true, true) => Some("-inf"),
        (_, true, false) => Some("inf"),
        _ => None,
    }
}

fn strip_zeros(decimal: &str) -> &str {
    if decimal.contains('.') {
        decimal.trim_end_matches('0').trim_end_matches('.')
    } else {
        decimal
    }
}

/// nlohmann's layout of `digits` times ten to the `exponent`: plain while the point falls within 15 digits or at most
/// four zeros follow it, else scientific with at least two exponent digits.
fn lay_out(digits: &str, exponent: i32) -> String {
    let count = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    let point = count + exponent;
    let zeros = |n: i32| "0".repeat(usize::try_from(n).unwrap_or(0));
    if count <= point && point <= 15 {
        return format!("{digits}{}.0", zeros(point - count));
    }
    if 0 < point && point <= 15 {
        let (whole, fraction) = digits.split_at(usize::try_from(point).unwrap_or(0));
        return format!("{whole}.{fraction}");
    }
    if -4 < point && point <= 0 {
        return format!("0.{}{digits}", zeros(-point));
    }
    let (first, rest) = digits.split_at(1);
    let dot = if rest.is_empty() { "" } else { "." };
    let sign = if point < 1 { '-' } else { '+' };
    format!("{first}{dot}{rest}e{sign}{:02}", (point - 1).unsigned_abs())
}

/// Whether `number`, the nearest to `literal`, is exactly it. Only asked of subnormal numbers.
fn is_exact(literal: &str, number: f64) -> bool {
    // Every double has at most 1074 decimals, so this prints its exact value.
    decimal_digits(literal) == decimal_digits(&format!("{number:.1074}"))
}

/// The significant digits of a number and the power of ten of the last one.
fn decimal_digits(number: &str) -> (String, i64) {
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_end_matches('0');
    if significant.trim_start_matches('0').is_empty() {
        return (String::new(), 0);
    }
    let length = |text: &str| i64::try_from(text.len()).unwrap_or(i64::MAX);
    let exponent: i64 = exponent.parse().unwrap_or(i64::MAX / 2);
    let last = exponent - length(fraction) + length(&digits) - length(significant);
    (significant.trim_start_matches('0').to_owned(), last)
}

#[cfg(test)]
mod tests;
