//! Arithmetic.

use crate::error::{ErrorKind, EvalError, R};
use crate::heap::value::Value;
use crate::interp::Interp;
use crate::pos::Pos;
use crate::pure::float_format;

/// The words for one operation's errors.
struct Words {
    first: &'static str,
    second: &'static str,
    doing: &'static str,
    sign: &'static str,
}

fn arith(
    interp: &mut Interp,
    args: &[Value],
    words: &Words,
    ints: fn(i64, i64) -> Option<i64>,
    floats: fn(f64, f64) -> f64,
) -> R<Value> {
    let (a, b) = (interp.force(args[0])?, interp.force(args[1])?);
    if a.as_float().is_some() || b.as_float().is_some() {
        let x = interp.expect_float(a, Pos::NONE, words.first)?;
        let y = interp.expect_float(b, Pos::NONE, words.second)?;
        return Ok(interp.heap.float(floats(x, y)));
    }
    let x = interp.expect_int(a, Pos::NONE, words.first)?;
    let y = interp.expect_int(b, Pos::NONE, words.second)?;
    let result = ints(x, y).ok_or_else(|| {
        EvalError::new(
            ErrorKind::Eval,
            format!("integer overflow in {} {x} {} {y}", words.doing, words.sign),
        )
    })?;
    Ok(interp.heap.int(result))
}

pub(super) fn add(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    const WORDS: Words = Words {
        first: "while evaluating the first argument of the addition",
        second: "while evaluating the second argument of the addition",
        doing: "adding",
        sign: "+",
    };
    arith(interp, args, &WORDS, i64::checked_add, |x, y| x + y)
}

/// `sub` and `-`.
pub(crate) fn subtract(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    const WORDS: Words = Words {
        first: "while evaluating the first argument of the subtraction",
        second: "while evaluating the second argument of the subtraction",
        doing: "subtracting",
        sign: "-",
    };
    arith(interp, args, &WORDS, i64::checked_sub, |x, y| x - y)
}

/// `mul` and `*`.
pub(crate) fn multiply(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    const WORDS: Words = Words {
        first: "while evaluating the first argument of the multiplication",
        second: "while evaluating the second argument of the multiplication",
        doing: "multiplying",
        sign: "*",
    };
    arith(interp, args, &WORDS, i64::checked_mul, |x, y| x * y)
}

/// `div` and `/`.
pub(crate) fn divide(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    const WORDS: Words = Words {
        first: "while evaluating the first operand of the division",
        second: "while evaluating the second operand of the division",
        doing: "dividing",
        sign: "/",
    };
    let (a, b) = (interp.force(args[0])?, interp.force(args[1])?);
    if interp.expect_float(b, Pos::NONE, WORDS.second)? == 0.0 {
        return Err(EvalError::new(ErrorKind::Eval, "division by zero"));
    }
    arith(interp, &[a, b], &WORDS, i64::checked_div, |x, y| x / y)
}

fn bits(interp: &mut Interp, args: &[Value], names: [&'static str; 2], op: fn(i64, i64) -> i64) -> R<Value> {
    let a = interp.expect_int(args[0], Pos::NONE, names[0])?;
    let b = interp.expect_int(args[1], Pos::NONE, names[1])?;
    Ok(interp.heap.int(op(a, b)))
}

macro_rules! bit_operations {
    ($($name:ident, $public:literal, $op:tt;)*) => {
        $(pub(super) fn $name(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
            let names = [
                concat!("while evaluating the first argument passed to builtins.", $public),
                concat!("while evaluating the second argument passed to builtins.", $public),
            ];
            bits(interp, args, names, |a, b| a $op b)
        })*
    };
}

bit_operations! {
    bit_and, "bitAnd", &;
    bit_or, "bitOr", |;
    bit_xor, "bitXor", ^;
}

pub(super) fn less_than(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    Ok(Value::bool(interp.less_than(args[0], args[1], "")?))
}

/// The first float that is too large for an integer.
const INT_END: f64 = 9_223_372_036_854_775_808.0;

const BUG: &str = "Due to a bug (see https://github.com/NixOS/nix/issues/12899)";
const FUTURE: &str = "\n\tFuture Nix versions might implement the correct behavior.";

fn round(interp: &mut Interp, args: &[Value], what: &'static str, round: fn(f64) -> f64) -> R<Value> {
    let value = interp.force(args[0])?;
    let float = interp.expect_float(value, Pos::NONE, what)?;
    let rounded = round(float);
    let fits = (-INT_END..INT_END).contains(&rounded);
    let eval = |text: String| Err(EvalError::new(ErrorKind::Eval, text));
    #[expect(clippy::cast_possible_truncation, reason = "the range was checked")]
    let result = rounded as i64;
    match value.as_int() {
        Some(int) if !fits => eval(format!(
            "{BUG} the NixInt argument {int} caused undefined behavior in previous Nix versions.{FUTURE}"
        )),
        Some(int) if int != result => eval(format!(
            "{BUG} a loss of precision occurred in previous Nix versions because the NixInt argument {int} was rounded to {result}.{FUTURE}"
        )),
        None if !fits => eval(format!(
            "NixFloat argument {} is not in the range of NixInt",
            float_format::print_value(float)
        )),
        _ => Ok(interp.heap.int(result)),
    }
}

pub(super) fn ceil(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    round(
        interp,
        args,
        "while evaluating the first argument passed to builtins.ceil",
        f64::ceil,
    )
}

pub(super) fn floor(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    round(
        interp,
        args,
        "while evaluating the first argument passed to builtins.floor",
        f64::floor,
    )
}
