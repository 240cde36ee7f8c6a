//! Strings and regular expressions.

use std::rc::Rc;

use crate::error::{ErrorKind, EvalError, R, fail};
use crate::heap::context::Ctx;
use crate::heap::value::Value;
use crate::interp::{Coerce, Interp};
use crate::num::len_to_int;
use crate::pos::Pos;
use crate::pure::regex::{Captures, Regex, RegexError};
use crate::pure::string_ops;

pub(super) fn to_string(interp: &mut Interp, args: &[Value], pos: Pos) -> R<Value> {
    let value = interp.force(args[0])?;
    if value.is_string() {
        return Ok(value);
    }
    let mut ctx = Ctx::EMPTY;
    let what = "while evaluating the first argument passed to builtins.toString";
    let text = interp.coerce(value, &mut ctx, Coerce::TO_STRING, pos, what)?;
    Ok(interp.heap.string_ctx(&text, ctx))
}

pub(super) fn string_length(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let mut ctx = Ctx::EMPTY;
    let what = "while evaluating the argument passed to builtins.stringLength";
    let text = interp.coerce(args[0], &mut ctx, Coerce::STRICT, Pos::NONE, what)?;
    Ok(interp.heap.int(len_to_int(text.len())))
}

pub(super) fn substring(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let what = "while evaluating the first argument (the start offset) passed to builtins.substring";
    let start = interp.expect_int(args[0], Pos::NONE, what)?;
    if start < 0 {
        return fail(ErrorKind::Eval, "negative start position in 'substring'");
    }
    let what = "while evaluating the second argument (the substring length) passed to builtins.substring";
    let len = interp.expect_int(args[1], Pos::NONE, what)?;
    let mut ctx = Ctx::EMPTY;
    let what = "while evaluating the third argument (the string) passed to builtins.substring";
    let text = interp.coerce(args[2], &mut ctx, Coerce::STRICT, Pos::NONE, what)?;
    let part = string_ops::substring(&text, start, len);
    let part = part.map_err(|e| EvalError::new(ErrorKind::Eval, e.to_string()))?;
    Ok(interp.heap.string_ctx(part, ctx))
}

pub(super) fn concat_strings_sep(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let mut ctx = Ctx::EMPTY;
    let what =
        "while evaluating the first argument (the separator string) passed to builtins.concatStringsSep";
    let separator = interp.expect_string(args[0], &mut ctx, Pos::NONE, what)?;
    let what = "while evaluating the second argument (the list of strings to concat) passed to builtins.concatStringsSep";
    let items = interp.expect_list(args[1], Pos::NONE, what)?;
    let mut out = Vec::new();
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.extend_from_slice(separator);
        }
        let what = "while evaluating one element of the list of strings to concat passed to builtins.concatStringsSep";
        out.extend_from_slice(&interp.coerce(*item, &mut ctx, Coerce::STRICT, Pos::NONE, what)?);
    }
    Ok(interp.heap.string_ctx(&out, ctx))
}

pub(super) fn replace_strings(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let what = "while evaluating the first argument passed to builtins.replaceStrings";
    let from = interp.expect_list(args[0], Pos::NONE, what)?;
    let what = "while evaluating the second argument passed to builtins.replaceStrings";
    let to = interp.expect_list(args[1], Pos::NONE, what)?;
    if from.len() != to.len() {
        let text = "'from' and 'to' arguments passed to builtins.replaceStrings have different lengths";
        return fail(ErrorKind::Eval, text);
    }
    let mut patterns: Vec<&[u8]> = Vec::with_capacity(from.len());
    for pattern in from {
        let mut ctx = Ctx::EMPTY;
        let what = "while evaluating one of the strings to replace passed to builtins.replaceStrings";
        patterns.push(interp.expect_string(*pattern, &mut ctx, Pos::NONE, what)?);
    }
    let mut ctx = Ctx::EMPTY;
    let what = "while evaluating the third argument passed to builtins.replaceStrings";
    let text = interp.expect_string(args[2], &mut ctx, Pos::NONE, what)?;
    let replaced = string_ops::replace_strings(text, &patterns, |i| {
        let what = "while evaluating one of the replacement strings passed to builtins.replaceStrings";
        interp.expect_string(to[i], &mut ctx, Pos::NONE, what)
    })?;
    Ok(interp.heap.string_ctx(&replaced, ctx))
}

fn regex(interp: &mut Interp, pattern: &[u8]) -> R<Rc<Regex>> {
    if let Some(regex) = interp.caches.regexes.get(pattern) {
        return Ok(Rc::clone(regex));
    }
    let regex = Rc::new(Regex::new(pattern).map_err(|e| regex_error(pattern, e))?);
    interp.caches.regexes.insert(pattern.into(), Rc::clone(&regex));
    Ok(regex)
}

fn regex_error(pattern: &[u8], error: RegexError) -> Box<EvalError> {
    let shown = String::from_utf8_lossy(pattern);
    let text = match error {
        RegexError::TooLarge => format!("memory limit exceeded by regular expression '{shown}'"),
        _ => format!("invalid regular expression '{shown}'"),
    };
    EvalError::new(ErrorKind::Eval, text)
}

fn groups(interp: &Interp, text: &[u8], found: &Captures) -> Value {
    interp
        .heap
        .list_with(found.groups.len(), |i| match found.groups[i] {
            Some((start, end)) => interp.heap.string(&text[start..end]),
            None => Value::NULL,
        })
}

pub(super) fn match_(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let what = "while evaluating the first argument passed to builtins.match";
    let pattern = interp.plain_string(args[0], Pos::NONE, what)?;
    let regex = regex(interp, pattern)?;
    let mut ctx = Ctx::EMPTY;
    let what = "while evaluating the second argument passed to builtins.match";
    let text = interp.expect_string(args[1], &mut ctx, Pos::NONE, what)?;
    match regex.match_whole(text).map_err(|e| regex_error(pattern, e))? {
        Some(found) => Ok(groups(interp, text, &found)),
        None => Ok(Value::NULL),
    }
}

pub(super) fn split(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let what = "while evaluating the first argument passed to builtins.split";
    let pattern = interp.plain_string(args[0], Pos::NONE, what)?;
    let regex = regex(interp, pattern)?;
    let mut ctx = Ctx::EMPTY;
    let what = "while evaluating the second argument passed to builtins.split";
    let text = interp.expect_string(args[1], &mut ctx, Pos::NONE, what)?;
    let mut parts = Vec::new();
    let mut end = 0;
    for found in regex.matches(text) {
        let found = found.map_err(|e| regex_error(pattern, e))?;
        parts.push(interp.heap.string(&text[end..found.span.0]));
        parts.push(groups(interp, text, &found));
        end = found.span.1;
    }
    if parts.is_empty() {
        return Ok(interp.heap.list(&[args[1]]));
    }
    parts.push(interp.heap.string(&text[end..]));
    Ok(interp.heap.list(&parts))
}
