//! An evaluation as callers see it: text or files in, handles to values, text out.

use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::derivations::{self, FoundDerivation};
use crate::error::{Error, ErrorDetails, ErrorKind, R};
use crate::goals::{Answer, Goals, Question};
use crate::heap::context::ContextElem;
use crate::heap::value::Value;
use crate::interp::Interp;
use crate::io::EvalIo;
use crate::num::{to_u32, to_usize};
use crate::pos::Origin;
use crate::settings::Settings;

/// One evaluation: settings, a world, and everything evaluated so far. Stays on its thread.
pub struct Evaluation {
    pub(crate) interp: Interp,
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
    pub(crate) fn run<T>(&mut self, f: impl FnOnce(&mut Interp) -> R<T>) -> Result<T, Error> {
        self.interp.on_large_stack(|interp| {
            let mark = interp.mark();
            f(interp).map_err(|error| {
                interp.restore(mark);
                interp.report(&error)
            })
        })
    }

    pub(crate) fn keep(&mut self, value: Value) -> Root {
        self.roots.push(value);
        Root {
            index: to_u32(self.roots.len() - 1),
            evaluation: self.id,
        }
    }

    pub(crate) fn value(&self, root: Root) -> Result<Value, Error> {
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
                exit: crate::error::EXIT_FAILED,
            })
        })
    }

    fn args(&self, args: &[(String, Root)]) -> Result<Vec<(String, Value)>, Error> {
        let value = |(name, root): &(String, Root)| Ok((name.clone(), self.value(*root)?));
        args.iter().map(value).collect()
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

    /// The path that a name stands for in the search path, as `<NAME>` in an expression.
    ///
    /// # Errors
    /// When the search path does not have it.
    pub fn look_up(&mut self, name: &str) -> Result<Vec<u8>, Error> {
        self.run(|interp| {
            let entries = interp.settings.nix_path.iter();
            let entries: Vec<_> = entries
                .map(|(prefix, path)| (prefix.clone().into_bytes(), path.clone().into_bytes()))
                .collect();
            interp.find_file(&entries, name.as_bytes())
        })
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
        let args = self.args(args)?;
        let value = self.run(|interp| interp.auto_call(value, &args))?;
        Ok(self.keep(value))
    }

    /// Follows an attribute path such as `a.b."c d".0`, calling functions on the way as [`Evaluation::auto_call`] does.
    ///
    /// # Errors
    /// When something on the path is missing or fails.
    pub fn select(&mut self, root: Root, path: &str, args: &[(String, Root)]) -> Result<Root, Error> {
        let value = self.value(root)?;
        let args = self.args(args)?;
        let value = self.run(|interp| interp.follow(value, path, &args))?;
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
        self.run(|interp| interp.print(value, format, strict))
    }

    /// Hands over the derivations in a value as they are found: itself, its items, its attributes and theirs where these
    /// ask for that. Functions are called as [`Evaluation::auto_call`] does. The search ends where `visit` breaks.
    ///
    /// # Errors
    /// Whatever happens while evaluating, and when the value can hold no derivation.
    pub fn derivations(
        &mut self,
        root: Root,
        args: &[(String, Root)],
        visit: &mut dyn FnMut(FoundDerivation) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let (value, args) = (self.value(root)?, self.args(args)?);
        self.run(|interp| derivations::find(interp, value, args, visit))
    }

    /// Selects attributes of a value as [`Evaluation::select`] does, and asks the same of each. `each` hears the answers in
    /// the order of `paths`, until it breaks or one fails; while one has to wait for the world, those after it go on.
    ///
    /// # Errors
    /// The first thing that goes wrong, in the order of `paths`.
    pub fn ask(
        &mut self,
        root: Root,
        paths: &[String],
        args: &[(String, Root)],
        question: Question,
        each: &mut dyn FnMut(Answer) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let (value, args) = (self.value(root)?, self.args(args)?);
        let goals = Goals::new(value, args, question);
        self.run(|interp| goals.answer_all(interp, paths, each))
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
