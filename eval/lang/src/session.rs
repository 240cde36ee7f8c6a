//! An evaluation a person talks to: texts read in a scope that grows, values described, documented and shown.
//!
//! A text is an expression, or bindings as they stand in a set (`x = 1`, `inherit (s) a;`). Bindings do not see each other:
//! they are read in the scope as it was, and are evaluated when they are looked at.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use crate::derivations::{self, FoundDerivation};
use crate::error::{Error, ErrorKind, EvalError, R};
use crate::evaluation::{Evaluation, Root};
use crate::heap::object::Func;
use crate::heap::value::{Type, Value};
use crate::interp::Interp;
use crate::num::to_usize;
use crate::pos::{Location, Origin, Pos};
use crate::print::{PromptDepth, PromptStyle};
use crate::settings::ParseSettings;
use crate::symbol::{Symbol, SymbolTable};
use crate::syntax::parser;

mod doc;
#[cfg(test)]
mod tests;

/// Names a text sees besides those every file sees; the later binding of a name counts.
#[derive(Clone, Debug, Default)]
pub struct Scope(BTreeMap<Vec<u8>, Root>);

impl Scope {
    /// Binds a name.
    pub fn bind(&mut self, name: Vec<u8>, value: Root) {
        self.0.insert(name, value);
    }

    /// What a name is bound to.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<Root> {
        self.0.get(name).copied()
    }

    /// All names, in order.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.0.keys().map(Vec::as_slice)
    }
}

/// Names and values, sorted by name.
pub type Attributes = Vec<(Vec<u8>, Root)>;

/// An attribute's name as it stands in a set: quoted unless it is an identifier.
#[must_use]
pub fn attribute_name(name: &[u8]) -> String {
    crate::syntax::show::identifier(name)
}

/// What a text turned out to be.
#[derive(Clone, Debug)]
pub enum Input {
    /// An expression, and its value.
    Value(Root),
    /// Names and what they are to mean, not evaluated yet.
    Bindings(Attributes),
}

/// How far a text typed so far is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputState {
    /// An expression or bindings.
    Complete,
    /// The beginning of one.
    Incomplete,
    /// Neither; more text cannot mend it.
    Wrong,
}

/// How far a text is. Pure: nothing is evaluated, no file is read.
#[must_use]
pub fn input_state(text: &[u8], settings: &ParseSettings) -> InputState {
    let mut symbols = SymbolTable::new();
    let Err(expression) = parser::parse(text, &mut symbols, settings) else {
        return InputState::Complete;
    };
    let Err(bindings) = parser::parse_bindings(text, &mut symbols, settings) else {
        return InputState::Complete;
    };
    // an error at the end of the text is one that more text may mend
    let is_end = |at: u32| to_usize(at) > text.len();
    if is_end(expression.at) || is_end(bindings.at) {
        InputState::Incomplete
    } else {
        InputState::Wrong
    }
}

/// What is known of a value for people.
#[derive(Clone, Debug)]
pub enum Documentation {
    /// A builtin function.
    Builtin {
        /// Its name in `builtins`.
        name: &'static str,
        /// Names of its arguments.
        args: &'static [&'static str],
        /// What it is for.
        text: &'static str,
    },
    /// A function of some file.
    Function {
        /// The name it was bound to, if it was.
        name: Option<String>,
        /// Where it stands.
        location: Option<Location>,
        /// The documentation comment in front of it.
        text: Option<String>,
    },
}

impl Evaluation {
    /// Reads a text in a scope: an expression is evaluated, bindings are not yet.
    ///
    /// # Errors
    /// Whatever is wrong with the text or happens while evaluating it.
    pub fn read(&mut self, text: &[u8], scope: &Scope) -> Result<Input, Error> {
        let names = self.scope_values(scope)?;
        let bindings = self.run(|interp| {
            let (base, parsed, is_binding) = interp.parse_input(&text.into(), Origin::String)?;
            let dir = interp.base_dir().to_vec();
            let code = interp.compile_parsed(parsed, base, &dir, &names)?;
            Ok((interp.run_code(code)?, is_binding))
        })?;
        match bindings {
            (value, false) => Ok(Input::Value(self.keep(value))),
            (set, true) => Ok(Input::Bindings(self.keep_attributes(set))),
        }
    }

    fn scope_values(&mut self, scope: &Scope) -> Result<Vec<(Symbol, Value)>, Error> {
        let mut names = Vec::with_capacity(scope.0.len());
        for (name, root) in &scope.0 {
            let value = self.value(*root)?;
            names.push((self.interp.symbols.intern(name), value));
        }
        Ok(names)
    }

    fn keep_attributes(&mut self, set: Value) -> Attributes {
        let Some(set) = set.as_set() else {
            return Vec::new();
        };
        let interp = &self.interp;
        let attrs: Vec<(Vec<u8>, Value)> = interp
            .heap
            .flat(set)
            .sorted(&interp.heap, &interp.symbols)
            .map(|(name, value, _)| (interp.symbols.name(name).to_vec(), value))
            .collect();
        attrs
            .into_iter()
            .map(|(name, value)| (name, self.keep(value)))
            .collect()
    }

    /// Names and values of a set's attributes, sorted by name; the attributes are not evaluated. `None` when it is no set.
    ///
    /// # Errors
    /// Whatever happens while evaluating the value itself.
    pub fn attributes(&mut self, root: Root) -> Result<Option<Attributes>, Error> {
        let value = self.value(root)?;
        let value = self.run(|interp| interp.force(value))?;
        Ok(value.as_set().map(|_| self.keep_attributes(value)))
    }

    /// As [`Evaluation::attributes`], for a value that must be a set; `what` says what was being done.
    ///
    /// # Errors
    /// When it is no set, or evaluating it fails.
    pub fn expect_attributes(&mut self, root: Root, what: &'static str) -> Result<Attributes, Error> {
        let value = self.value(root)?;
        let set = self.run(|interp| {
            interp.expect_set(value, Pos::NONE, what)?;
            interp.force(value)
        })?;
        Ok(self.keep_attributes(set))
    }

    /// Names that every text sees: those of builtins and constants.
    #[must_use]
    pub fn global_names(&self) -> Vec<Vec<u8>> {
        let names = self.interp.globals.names.keys();
        let mut names: Vec<_> = names.map(|n| self.interp.symbols.name(*n).to_vec()).collect();
        names.sort_unstable();
        names
    }

    /// The kind of a value in words: `an integer`, `the built-in function 'map'`.
    ///
    /// # Errors
    /// Whatever happens while evaluating it.
    pub fn describe(&mut self, root: Root) -> Result<String, Error> {
        let value = self.value(root)?;
        self.run(|interp| {
            let value = interp.force(value)?;
            Ok(interp.show_type(value))
        })
    }

    /// Evaluates and prints a value as a prompt shows it. The text is handed to `sink` in parts, without a final line feed.
    ///
    /// # Errors
    /// Whatever happens while evaluating the value itself, and an interruption; other errors inside it are printed.
    pub fn show(
        &mut self,
        root: Root,
        depth: PromptDepth,
        style: PromptStyle,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Result<(), Error> {
        let value = self.value(root)?;
        self.run(|interp| interp.print_at_prompt(value, depth, style, sink))
    }

    /// What is known of a function; `None` of anything else.
    ///
    /// # Errors
    /// Whatever happens while evaluating the value.
    pub fn documentation(&mut self, root: Root) -> Result<Option<Documentation>, Error> {
        let value = self.value(root)?;
        self.run(|interp| {
            let value = interp.force(value)?;
            Ok(documentation(interp, value))
        })
    }

    /// Where a value is defined: a path's file, a function's place, a package's `meta.position`. `None` when unknown.
    ///
    /// # Errors
    /// Whatever happens while evaluating what says so.
    pub fn definition(&mut self, root: Root) -> Result<Option<(Vec<u8>, u32)>, Error> {
        let value = self.value(root)?;
        self.run(|interp| definition(interp, value))
    }

    /// The derivation a value is; `None` when it is none.
    ///
    /// # Errors
    /// Whatever happens while evaluating it.
    pub fn derivation(&mut self, root: Root) -> Result<Option<FoundDerivation>, Error> {
        let value = self.value(root)?;
        self.run(|interp| {
            let forced = interp.force(value)?;
            match forced.as_set() {
                Some(set) if interp.is_derivation(set)? => {}
                _ => return Ok(None),
            }
            let mut first = None;
            derivations::find(interp, forced, Vec::new(), &mut |found| {
                first = Some(found);
                ControlFlow::Break(())
            })?;
            Ok(first)
        })
    }

    /// Forgets what files held, so that changed ones are read again. Values made of them stay as they are.
    pub fn forget_files(&mut self) {
        self.interp.forget_files();
    }

    /// Whether errors are to carry a frame for every call, from now on.
    pub fn set_show_trace(&mut self, on: bool) {
        self.interp.set_trace_calls(on);
    }
}

fn documentation(interp: &Interp, value: Value) -> Option<Documentation> {
    let (func, given) = match value.as_func()? {
        Func::Partial(inner, args) => (inner.as_func()?, args.len()),
        other => (other, 0),
    };
    match func {
        Func::Builtin(builtin) if given == 0 => Some(Documentation::Builtin {
            name: builtin.public_name(),
            args: builtin.args,
            text: builtin.doc,
        }),
        Func::Closure(code, _) => {
            let param = code.params.get(given)?;
            let read = |path: &[u8]| interp.io.read_file(path).ok();
            let text = interp.sources.text(param.pos, read).and_then(|(base, text, _)| {
                let before = text.get(..to_usize(param.pos.0 - base.0))?;
                doc::comment_before(&String::from_utf8_lossy(before))
            });
            Some(Documentation::Function {
                name: param.name.map(|name| interp.symbols.text(name)),
                location: interp.sources.locate(param.pos, read),
                text,
            })
        }
        _ => None,
    }
}

fn definition(interp: &mut Interp, value: Value) -> R<Option<(Vec<u8>, u32)>> {
    let value = interp.force(value)?;
    match value.kind_of() {
        Type::Path => Ok(Some((value.as_path().unwrap_or_default().to_vec(), 1))),
        Type::String => Ok(Some((interp.realise_path(value)?, 1))),
        Type::Function => {
            let Some(Documentation::Function { location, .. }) = documentation(interp, value) else {
                return Ok(None);
            };
            Ok(location.and_then(|place| match place.origin {
                Origin::File(path) => Some((path.to_vec(), place.line)),
                _ => None,
            }))
        }
        Type::Set => package_position(interp, value),
        _ => Ok(None),
    }
}

/// `meta.position` of a package: a file, a colon, a line.
fn package_position(interp: &mut Interp, package: Value) -> R<Option<(Vec<u8>, u32)>> {
    let mut value = package;
    for name in [&b"meta"[..], b"position"] {
        let name = interp.symbols.intern(name);
        let Some(next) = value.as_set().and_then(|set| set.value_of(name)) else {
            return Ok(None);
        };
        value = interp.force(next)?;
    }
    let what = "while evaluating the 'meta.position' attribute of a derivation";
    let text = interp.plain_string(value, Pos::NONE, what)?;
    let place = String::from_utf8_lossy(text);
    match place.rsplit_once(':').map(|(file, line)| (file, line.parse())) {
        Some((file, Ok(line))) => Ok(Some((file.as_bytes().to_vec(), line))),
        _ => Err(EvalError::new(
            ErrorKind::Eval,
            format!("cannot parse 'meta.position' attribute '{place}'"),
        )),
    }
}
