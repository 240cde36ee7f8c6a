//! Loads files: parse, compile, evaluate once.

use std::rc::Rc;

use super::Interp;
use crate::code::ThunkCode;
use crate::code::compile::{self, Unit};
use crate::error::{ErrorKind, EvalError, R};
use crate::heap::object::Captured;
use crate::heap::value::Value;
use crate::io::{FileType, Notice};
use crate::pos::{Origin, Pos};
use crate::pure::path_ops;
use crate::settings::Purity;
use crate::symbol::Symbol;
use crate::syntax::parser::{self, Parsed, SyntaxError};

/// Syntax trees up to this size lend their memory to the next file.
const SPARE_NODES_MAX: usize = 1 << 14;
/// Symlinks followed one after another before giving up.
const FOLLOW_MAX: usize = 1024;

impl Interp {
    /// The directory that relative paths outside files start from.
    pub(crate) fn base_dir(&self) -> &[u8] {
        self.settings.base_dir.as_bytes()
    }

    /// The value of a file (or of `default.nix` in a directory), evaluated once.
    pub(crate) fn eval_file(&mut self, path: &[u8]) -> R<Value> {
        let file = match self.caches.resolved.get(path) {
            Some(file) => Rc::clone(file),
            None => {
                let file: Rc<[u8]> = self.resolve_file(path)?.into();
                self.caches.resolved.insert(path.into(), Rc::clone(&file));
                file
            }
        };
        if let Some(value) = self.caches.files.get(&file) {
            return self.force(*value);
        }
        let path = self.heap.path(&file);
        let value = self.heap.apply(crate::builtins::load_file(self), &[path]);
        self.caches.files.insert(file, value);
        self.force(value)
    }

    /// The value of the file an evaluation starts with: errors do not say that it was being evaluated.
    pub(crate) fn eval_main(&mut self, path: &[u8]) -> R<Value> {
        let file = self.resolve_file(path)?;
        let code = self.load_code(&file, &[])?;
        self.run_code(code)
    }

    fn load_code(&mut self, path: &[u8], scope: &[(Symbol, Value)]) -> R<&'static ThunkCode> {
        let text = self.read_file(path)?;
        self.compile(
            &text.into(),
            Origin::File(path.into()),
            path_ops::dir_of_path(path),
            scope,
        )
    }

    /// Parses and evaluates a file; behind the cache of [`Interp::eval_file`].
    pub(crate) fn load_file(&mut self, path: &[u8], scope: &[(Symbol, Value)]) -> R<Value> {
        let code = self.load_code(path, scope)?;
        self.run_code(code).map_err(|e| {
            let shown = String::from_utf8_lossy(path);
            e.frame(Pos::NONE, format!("while evaluating the file '{shown}':"))
        })
    }

    /// Evaluates code without captures.
    pub(crate) fn run_code(&mut self, code: &'static ThunkCode) -> R<Value> {
        let top = self.stack.top();
        let frame = self.push_frame(code.frame, Captured::NONE)?;
        let result = self.run(code.body, frame);
        self.stack.truncate(top);
        result
    }

    /// Parses and compiles a text.
    pub(crate) fn compile(
        &mut self,
        text: &Rc<[u8]>,
        origin: Origin,
        dir: &[u8],
        scope: &[(Symbol, Value)],
    ) -> R<&'static ThunkCode> {
        let (base, parsed) = self.parse(text, origin)?;
        self.compile_parsed(parsed, base, dir, scope)
    }

    /// Compiles what was parsed; `base` is the position of its first byte.
    pub(crate) fn compile_parsed(
        &mut self,
        parsed: Parsed,
        base: Pos,
        dir: &[u8],
        scope: &[(Symbol, Value)],
    ) -> R<&'static ThunkCode> {
        let settings = Rc::clone(&self.settings);
        let home = match (&settings.home, settings.purity) {
            (_, Purity::Pure) => Err("in pure mode"),
            (Some(home), _) => Ok(home.as_bytes()),
            (None, _) => Err("because the home directory is not known"),
        };
        let unit = Unit {
            ast: &parsed.ast,
            symbols: &self.symbols,
            heap: &self.heap,
            globals: &self.globals,
            scope,
            base,
            dir,
            home,
            stack_floor: self.stack_floor,
        };
        let code = compile::compile(&unit, &mut self.scopes, parsed.root);
        if parsed.ast.nodes.len() <= SPARE_NODES_MAX {
            self.caches.spare_ast = parsed.ast;
        }
        code.map_err(|e| self.syntax_error(&e, base))
    }

    /// Parses a text; lints speak up.
    pub(crate) fn parse(&mut self, text: &Rc<[u8]>, origin: Origin) -> R<(Pos, Parsed)> {
        let base = self.sources.add(origin, text).ok_or_else(Self::too_much_text)?;
        let ast = std::mem::take(&mut self.caches.spare_ast);
        let parsed = parser::parse_into(ast, text, &mut self.symbols, &self.settings.parse);
        let parsed = parsed.map_err(|e| self.syntax_error(&e, base))?;
        self.say_warnings(&parsed, base);
        Ok((base, parsed))
    }

    /// Parses one expression, or bindings as they stand in a set; of two errors, the one further on is told.
    pub(crate) fn parse_input(&mut self, text: &Rc<[u8]>, origin: Origin) -> R<(Pos, Parsed, bool)> {
        let base = self.sources.add(origin, text).ok_or_else(Self::too_much_text)?;
        let settings = Rc::clone(&self.settings);
        let expression = parser::parse(text, &mut self.symbols, &settings.parse);
        let (parsed, is_binding) = match expression {
            Ok(parsed) => (parsed, false),
            Err(error) => match parser::parse_bindings(text, &mut self.symbols, &settings.parse) {
                Ok(parsed) => (parsed, true),
                Err(other) => {
                    let told = if other.at > error.at { other } else { error };
                    return Err(self.syntax_error(&told, base));
                }
            },
        };
        self.say_warnings(&parsed, base);
        Ok((base, parsed, is_binding))
    }

    fn too_much_text() -> Box<EvalError> {
        let text = "more than 4 GiB of source text in one evaluation";
        EvalError::new(ErrorKind::Eval, text)
    }

    fn say_warnings(&self, parsed: &Parsed, base: Pos) {
        for warning in &parsed.warnings {
            let message = self.with_places(&warning.message, base);
            match warning.at.checked_sub(1) {
                Some(offset) => self.warn_at(&message, Pos(base.0 + offset)),
                None => self.io.notice(Notice::Warning(format!("warning: {message}"))),
            }
        }
    }

    /// Forgets what files held: those that changed are read again. Values made of them stay as they are.
    pub(crate) fn forget_files(&mut self) {
        let caches = &mut self.caches;
        caches.resolved.clear();
        caches.files.clear();
        caches.file_types.clear();
        caches.links.clear();
        caches.search_paths.clear();
        caches.imported.clear();
    }

    /// A syntax error with its place; places inside the message (between two bytes 1) are written out.
    fn syntax_error(&self, error: &SyntaxError, base: Pos) -> Box<EvalError> {
        let place = |at: u32| if at == 0 { Pos::NONE } else { Pos(base.0 + at - 1) };
        let message = self.with_places(&error.message, base);
        let kind = match () {
            () if message.starts_with("undefined variable") => ErrorKind::UndefinedVariable,
            () if message.starts_with("stack overflow") => ErrorKind::StackOverflow,
            () => ErrorKind::Syntax,
        };
        EvalError::new(kind, message).at(place(error.at))
    }

    /// A message of the parser with places (offsets between two bytes 1) written out.
    fn with_places(&self, text: &str, base: Pos) -> String {
        let mut message = String::new();
        for (i, part) in text.split('\u{1}').enumerate() {
            match part.parse::<u32>() {
                Ok(at) if i % 2 == 1 => message.push_str(&self.sources.place(Pos(base.0 + at - 1))),
                _ => message.push_str(part),
            }
        }
        message
    }

    /// The file that importing a path evaluates: symlinks at the end are followed, a directory means its `default.nix`.
    pub(crate) fn resolve_file(&mut self, path: &[u8]) -> R<Vec<u8>> {
        let mut path = path.to_vec();
        for _ in 0..FOLLOW_MAX {
            if path == b"/" {
                break;
            }
            let parent = self.resolve_symlinks(path_ops::dir_of_path(&path))?;
            let here = path_ops::resolve_path(&parent, path_ops::base_name_of(&path));
            match self.file_type(&here)? {
                Some(FileType::Symlink) => {
                    let target = self.read_link(&here)?;
                    path = path_ops::resolve_path(path_ops::dir_of_path(&path), &target);
                }
                Some(_) => break,
                None => return Err(Self::not_there(&path)),
            }
        }
        let real = self.resolve_symlinks(&path)?;
        if self.file_type(&real)? == Some(FileType::Directory) {
            return Ok(path_ops::resolve_path(&path, b"default.nix"));
        }
        Ok(path)
    }

    pub(crate) fn not_there(path: &[u8]) -> Box<EvalError> {
        let shown = String::from_utf8_lossy(path);
        EvalError::new(ErrorKind::File, format!("path '{shown}' does not exist"))
    }
}
