//! What is asked of an evaluation: attributes, derivations, text; one by one, or several at a time.

use std::ops::ControlFlow;
use std::rc::Rc;

use crate::derivations::{self, FoundDerivation};
use crate::error::{ErrorKind, EvalError, R};
use crate::evaluation::Format;
use crate::heap::attrs::Attr;
use crate::heap::context::Ctx;
use crate::heap::object::Func;
use crate::heap::value::Value;
use crate::interp::Interp;
use crate::interp::fibers::wide::{Items, Job, Outcome};
use crate::pos::Pos;
use crate::symbol::sym;

/// What is asked of each of several attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// What is wanted.
    pub what: Wanted,
    /// Whether a function that is selected is called with the arguments.
    pub call: bool,
}

/// What is wanted of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Its derivations, as [`crate::Evaluation::derivations`] finds them.
    Derivations,
    /// Its text, as [`crate::Evaluation::print`] writes it.
    Text {
        /// How it is written.
        format: Format,
        /// Whether everything in it is evaluated.
        strict: bool,
    },
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Derivations.
    Derivations(Vec<FoundDerivation>),
    /// Text.
    Text(Vec<u8>),
}

/// Several attributes of one value, and a question.
pub(crate) struct Goals {
    root: Value,
    args: Vec<(String, Value)>,
    question: Question,
}

impl Goals {
    pub(crate) fn new(root: Value, args: Vec<(String, Value)>, question: Question) -> Rc<Self> {
        Rc::new(Self { root, args, question })
    }

    /// Answers for every path, in order.
    pub(crate) fn answer_all(
        self: &Rc<Self>,
        interp: &mut Interp,
        paths: &[String],
        each: &mut dyn FnMut(Answer) -> ControlFlow<()>,
    ) -> R<()> {
        let values: Vec<Value> = paths.iter().map(|p| interp.heap.string(p.as_bytes())).collect();
        let items = Items::list(interp.heap.keep_slice(&values));
        let mut enough = false;
        let result = interp.each_item(items, Job::Goal(Rc::clone(self)), |interp, i, early| {
            let answer = match early? {
                Some(Outcome::Goal(answer)) => answer,
                _ => self.answer(interp, items.get(i).1)?,
            };
            enough = each(answer).is_break();
            if enough {
                return Err(EvalError::new(ErrorKind::Cancelled, "enough"));
            }
            Ok(())
        });
        if enough { Ok(()) } else { result }
    }

    /// Answers for one path.
    pub(crate) fn answer(&self, interp: &mut Interp, path: Value) -> R<Answer> {
        let path = String::from_utf8_lossy(path.as_str().unwrap_or_default());
        let mut value = interp.follow(self.root, &path, &self.args)?;
        if self.question.call {
            value = interp.auto_call(value, &self.args)?;
        }
        match self.question.what {
            Wanted::Derivations => {
                let mut all = Vec::new();
                derivations::find(interp, value, self.args.clone(), &mut |found| {
                    all.push(found);
                    ControlFlow::Continue(())
                })?;
                Ok(Answer::Derivations(all))
            }
            Wanted::Text { format, strict } => interp.print(value, format, strict).map(Answer::Text),
        }
    }
}

impl Interp {
    /// Calls a function that takes a set with those of `args` it wants.
    pub(crate) fn auto_call(&mut self, value: Value, args: &[(String, Value)]) -> R<Value> {
        let mut value = self.force(value)?;
        while let Some((functor, pos)) = value.as_set().and_then(|s| s.get(sym::functor)) {
            value = self.call(functor, &[value], pos)?;
        }
        let (param, pos) = match value.as_func() {
            Some(Func::Closure(code, _)) => (
                code.params.first(),
                code.params.first().map_or(Pos::NONE, |p| p.pos),
            ),
            Some(Func::Partial(inner, given)) => match inner.as_func() {
                Some(Func::Closure(code, _)) => (code.params.get(given.len()), Pos::NONE),
                _ => (None, Pos::NONE),
            },
            _ => (None, Pos::NONE),
        };
        let Some(formals) = param.and_then(|p| p.formals) else {
            return Ok(value);
        };
        let mut attrs: Vec<Attr> = Vec::new();
        for (name, arg) in args {
            let name = self.symbols.intern(name.as_bytes());
            if formals.ellipsis || formals.list.iter().any(|f| f.name == name) {
                attrs.push((name, *arg, Pos::NONE));
            }
        }
        if !formals.ellipsis {
            let missing =
                |f: &&crate::code::Formal| f.default.is_none() && !attrs.iter().any(|a| a.0 == f.name);
            if let Some(formal) = formals.list.iter().find(missing) {
                let name = self.symbols.text(formal.name);
                let text = format!(
                    "cannot evaluate a function that has an argument without a value ('{name}')\nNix attempted to evaluate a function as a top level expression; in\nthis case it must have its arguments supplied either by default\nvalues, or passed explicitly with '--arg' or '--argstr'. See\nhttps://nix.dev/manual/nix/stable/language/syntax.html#functions."
                );
                return Err(EvalError::new(ErrorKind::MissingArgument, text).at(formal.pos));
            }
        }
        let arg = self.heap.set_of(attrs);
        self.call(value, &[arg], pos)
    }

    /// Follows an attribute path.
    pub(crate) fn follow(&mut self, value: Value, path: &str, args: &[(String, Value)]) -> R<Value> {
        let mut value = value;
        for name in split_path(path)? {
            value = self.auto_call(value, args)?;
            let fail = |text: String| Err(EvalError::new(ErrorKind::Type, text));
            if let Some(items) = value.as_list() {
                let Ok(i) = name.parse::<usize>() else {
                    return fail(format!(
                        "the expression selected by the selection path '{path}' should be a set but is a list"
                    ));
                };
                let Some(item) = items.get(i) else {
                    return fail(format!(
                        "list index {i} in selection path '{path}' is out of range"
                    ));
                };
                value = self.force(*item)?;
                continue;
            }
            let Some(set) = value.as_set() else {
                let what = self.show_type(value);
                return fail(format!(
                    "the expression selected by the selection path '{path}' should be a set but is {what}"
                ));
            };
            let symbol = self.symbols.intern(name.as_bytes());
            let Some((found, _)) = set.get(symbol) else {
                let mut error = EvalError::new(
                    ErrorKind::Type,
                    format!("attribute '{name}' in selection path '{path}' not found"),
                );
                error.suggestions = self.missing(set, symbol).suggestions;
                return Err(error);
            };
            value = self.force(found)?;
        }
        Ok(value)
    }

    /// A value as text.
    pub(crate) fn print(&mut self, value: Value, format: Format, strict: bool) -> R<Vec<u8>> {
        let mut ctx = Ctx::EMPTY;
        match format {
            Format::Nix => {
                self.force(value)?;
                if strict {
                    self.force_deep(value)?;
                }
                self.print_ambiguous(value, strict)
            }
            Format::Json => self.write_json(value, strict, false, &mut ctx, Pos::NONE),
            Format::Xml { location } => self.write_xml(value, strict, location, &mut ctx),
        }
    }
}

/// The names of an attribute path; quotes protect dots.
fn split_path(path: &str) -> R<Vec<String>> {
    let mut names = Vec::new();
    let mut name = String::new();
    let mut chars = path.chars();
    while let Some(c) = chars.next() {
        match c {
            '.' => names.push(std::mem::take(&mut name)),
            '"' => loop {
                match chars.next() {
                    Some('"') => break,
                    Some(c) => name.push(c),
                    None => {
                        let text = format!("missing closing quote in selection path '{path}'");
                        return Err(EvalError::new(ErrorKind::Eval, text));
                    }
                }
            },
            c => name.push(c),
        }
    }
    if !name.is_empty() {
        names.push(name);
    }
    Ok(names)
}
