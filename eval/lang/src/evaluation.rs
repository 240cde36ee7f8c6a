//! An evaluation as callers see it: text or files in, handles to values, text out.

use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, ErrorDetails, ErrorKind, EvalError, R};
use crate::heap::attrs::Attr;
use crate::heap::context::{ContextElem, Ctx};
use crate::heap::object::Func;
use crate::heap::value::Value;
use crate::interp::Interp;
use crate::io::EvalIo;
use crate::num::{to_u32, to_usize};
use crate::pos::{Origin, Pos};
use crate::settings::Settings;
use crate::symbol::sym;

/// One evaluation: settings, a world, and everything evaluated so far. Stays on its thread.
pub struct Evaluation {
    interp: Interp,
    roots: Vec<Value>,
    id: u64,
}

/// A value of an [`Evaluation`], kept as long as that lives. Using it with another evaluation is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root {
    index: u32,
    evaluation: u64,
}

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As `nix-instantiate --eval` does.
    Nix,
    /// JSON; paths stay paths.
    Json,
    /// XML, with or without source locations.
    Xml {
        /// Whether positions of attributes and functions are written.
        location: bool,
    },
}

/// A derivation found in a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundDerivation {
    /// Its store path.
    pub drv_path: String,
    /// The output meant.
    pub output_name: String,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Evaluation {
    /// A fresh evaluation.
    #[must_use]
    pub fn new(settings: Settings, io: Rc<dyn EvalIo>) -> Self {
        let interp = Interp::new(Rc::new(settings), io);
        Self {
            interp,
            roots: Vec::new(),
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Runs `f` on the large stack and reports its error.
    fn run<T>(&mut self, f: impl FnOnce(&mut Interp) -> R<T>) -> Result<T, Error> {
        self.interp.on_large_stack(|interp| {
            let mark = interp.mark();
            f(interp).map_err(|error| {
                interp.restore(mark);
                interp.report(&error)
            })
        })
    }

    fn keep(&mut self, value: Value) -> Root {
        self.roots.push(value);
        Root {
            index: to_u32(self.roots.len() - 1),
            evaluation: self.id,
        }
    }

    fn value(&self, root: Root) -> Result<Value, Error> {
        let value = self
            .roots
            .get(to_usize(root.index))
            .filter(|_| root.evaluation == self.id);
        value.copied().ok_or_else(|| {
            Error::from(ErrorDetails {
                kind: ErrorKind::Unsupported,
                message: "the value belongs to another evaluation".to_owned(),
                location: None,
                trace: Vec::new(),
                suggestions: Vec::new(),
            })
        })
    }

    /// Evaluates a text; relative paths in it start from the base directory of the settings.
    ///
    /// # Errors
    /// Whatever is wrong with the text or happens while evaluating it.
    pub fn eval_text(&mut self, text: &[u8], origin: Origin) -> Result<Root, Error> {
        let value = self.run(|interp| {
            let dir = interp.base_dir().to_vec();
            let code = interp.compile(&text.into(), origin, &dir, &[])?;
            interp.run_code(code)
        })?;
        Ok(self.keep(value))
    }

    /// Evaluates a file, or `default.nix` in a directory. The path is absolute.
    ///
    /// # Errors
    /// Whatever is wrong with the file or happens while evaluating it.
    pub fn eval_file(&mut self, path: &[u8]) -> Result<Root, Error> {
        let value = self.run(|interp| interp.eval_main(path))?;
        Ok(self.keep(value))
    }

    /// A string value.
    pub fn string(&mut self, text: &[u8]) -> Root {
        let value = self.interp.heap.string(text);
        self.keep(value)
    }

    /// Parses a text, resolves its names, and prints it in canonical form (`--parse`).
    ///
    /// # Errors
    /// Whatever is wrong with the text.
    pub fn parse(&mut self, text: &[u8], origin: &Origin) -> Result<String, Error> {
        self.run(|interp| {
            let dir = interp.base_dir().to_vec();
            interp.compile(&text.into(), origin.clone(), &dir, &[])?;
            let (_, parsed) = interp.parse(&text.into(), origin.clone())?;
            Ok(interp.show_expr(&parsed.ast, parsed.root, origin))
        })
    }

    /// Calls a function that takes a set, with those of `args` it wants; anything else is returned as it is.
    ///
    /// # Errors
    /// When an argument without default is missing, or the function fails.
    pub fn auto_call(&mut self, root: Root, args: &[(String, Root)]) -> Result<Root, Error> {
        let value = self.value(root)?;
        let args = args
            .iter()
            .map(|(n, r)| Ok((n.clone(), self.value(*r)?)))
            .collect::<Result<Vec<_>, Error>>()?;
        let value = self.run(|interp| auto_call(interp, value, &args))?;
        Ok(self.keep(value))
    }

    /// Follows an attribute path such as `a.b."c d".0`, calling functions on the way as [`Evaluation::auto_call`] does.
    ///
    /// # Errors
    /// When something on the path is missing or fails.
    pub fn select(&mut self, root: Root, path: &str, args: &[(String, Root)]) -> Result<Root, Error> {
        let value = self.value(root)?;
        let args = args
            .iter()
            .map(|(n, r)| Ok((n.clone(), self.value(*r)?)))
            .collect::<Result<Vec<_>, Error>>()?;
        let value = self.run(|interp| select(interp, value, path, &args))?;
        Ok(self.keep(value))
    }

    /// Evaluates a value and everything in it.
    ///
    /// # Errors
    /// Whatever happens while evaluating.
    pub fn force_deep(&mut self, root: Root) -> Result<(), Error> {
        let value = self.value(root)?;
        self.run(|interp| interp.force_deep(value))
    }

    /// Writes a value. `strict` evaluates everything in it first (JSON) or on the way (XML).
    ///
    /// # Errors
    /// When the value cannot be written in the format, or evaluating it fails.
    pub fn print(&mut self, root: Root, format: Format, strict: bool) -> Result<Vec<u8>, Error> {
        let value = self.value(root)?;
        self.run(|interp| {
            let mut ctx = Ctx::EMPTY;
            match format {
                Format::Nix => {
                    interp.force(value)?;
                    if strict {
                        interp.force_deep(value)?;
                    }
                    interp.print_ambiguous(value, strict)
                }
                Format::Json => interp.write_json(value, strict, false, &mut ctx, Pos::NONE),
                Format::Xml { location } => interp.write_xml(value, strict, location, &mut ctx),
            }
        })
    }

    /// The derivations in a value: itself, its items, or its attributes where it asks for that.
    ///
    /// # Errors
    /// Whatever happens while evaluating, and when the value has no derivation.
    pub fn derivations(&mut self, root: Root) -> Result<Vec<FoundDerivation>, Error> {
        let value = self.value(root)?;
        self.run(|interp| {
            let mut found = Vec::new();
            if !find_derivations(interp, value, &mut found, true)? {
                let text = "expression does not evaluate to a derivation (or a set or list of those)";
                return Err(EvalError::new(ErrorKind::Type, text));
            }
            Ok(found)
        })
    }

    /// References of a string value.
    ///
    /// # Errors
    /// When the root is of another evaluation.
    pub fn context(&self, root: Root) -> Result<Vec<ContextElem>, Error> {
        Ok(self.interp.contexts.elems(self.value(root)?.ctx()))
    }

    /// Bytes reserved for values and code so far.
    #[must_use]
    pub fn reserved_bytes(&self) -> usize {
        self.interp.heap.reserved_bytes()
    }
}

fn auto_call(interp: &mut Interp, value: Value, args: &[(String, Value)]) -> R<Value> {
    let mut value = interp.force(value)?;
    while let Some((functor, pos)) = value.as_set().and_then(|s| s.get(sym::functor)) {
        value = interp.call(functor, &[value], pos)?;
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
        let name = interp.symbols.intern(name.as_bytes());
        if formals.ellipsis || formals.list.iter().any(|f| f.name == name) {
            attrs.push((name, *arg, Pos::NONE));
        }
    }
    if !formals.ellipsis {
        let missing = |f: &&crate::code::Formal| f.default.is_none() && !attrs.iter().any(|a| a.0 == f.name);
        if let Some(formal) = formals.list.iter().find(missing) {
            let name = interp.symbols.text(formal.name);
            let text = format!(
                "cannot evaluate a function that has an argument without a value ('{name}')\nNix attempted to evaluate a function as a top level expression; in\nthis case it must have its arguments supplied either by default\nvalues, or passed explicitly with '--arg' or '--argstr'. See\nhttps://nix.dev/manual/nix/stable/language/syntax.html#functions."
            );
            return Err(EvalError::new(ErrorKind::MissingArgument, text).at(formal.pos));
        }
    }
    let arg = interp.heap.set_of(attrs);
    interp.call(value, &[arg], pos)
}

fn select(interp: &mut Interp, value: Value, path: &str, args: &[(String, Value)]) -> R<Value> {
    let mut value = value;
    for name in split_path(path)? {
        value = auto_call(interp, value, args)?;
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
            value = interp.force(*item)?;
            continue;
        }
        let Some(set) = value.as_set() else {
            let what = interp.show_type(value);
            return fail(format!(
                "the expression selected by the selection path '{path}' should be a set but is {what}"
            ));
        };
        let symbol = interp.symbols.intern(name.as_bytes());
        let Some((found, _)) = set.get(symbol) else {
            let mut error = EvalError::new(
                ErrorKind::Type,
                format!("attribute '{name}' in selection path '{path}' not found"),
            );
            error.suggestions = interp.missing(set, symbol).suggestions;
            return Err(error);
        };
        value = interp.force(found)?;
    }
    Ok(value)
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

/// Collects derivations; false when the value holds none by its kind.
fn find_derivations(
    interp: &mut Interp,
    value: Value,
    found: &mut Vec<FoundDerivation>,
    top: bool,
) -> R<bool> {
    let value = interp.force(value)?;
    if let Some(items) = value.as_list() {
        return interp.deeper(Pos::NONE, |s| {
            for item in items {
                find_derivations(s, *item, found, false)?;
            }
            Ok(true)
        });
    }
    let Some(set) = value.as_set() else {
        return Ok(false);
    };
    if interp.is_derivation(set)? {
        let text = |interp: &mut Interp, name, what| -> R<String> {
            let (value, pos) = interp.expect_attr(set, name, "")?;
            let mut ctx = Ctx::EMPTY;
            let text = interp.expect_string(value, &mut ctx, pos, what)?;
            Ok(String::from_utf8_lossy(text).into_owned())
        };
        let drv_path = text(
            interp,
            sym::drv_path,
            "while evaluating the 'drvPath' attribute of a derivation",
        )?;
        let output_name = match set.value_of(sym::output_name) {
            Some(_) => text(
                interp,
                sym::output_name,
                "while evaluating the output name of a derivation",
            )?,
            None => "out".to_owned(),
        };
        found.push(FoundDerivation {
            drv_path,
            output_name,
        });
        return Ok(true);
    }
    let recurse = interp.symbols.intern(b"recurseForDerivations");
    let wanted = match set.value_of(recurse) {
        Some(flag) => interp.force(flag)? == Value::TRUE,
        None => false,
    };
    if !(top || wanted) {
        return Ok(false);
    }
    let flat = interp.heap.flat(set);
    interp.deeper(Pos::NONE, |s| {
        for (_, value, _) in flat.sorted(&s.heap, &s.symbols) {
            find_derivations(s, value, found, false)?;
        }
        Ok(true)
    })
}
