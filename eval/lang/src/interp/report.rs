//! Turns errors into what callers see, and says things while evaluating.

use std::rc::Rc;

use super::Interp;
use crate::error::{
    Error, ErrorDetails, ErrorKind, EvalError, FrameText, Message, TraceLine, render_warning,
};
use crate::io::{IoError, Notice};
use crate::pos::{Location, Origin, Pos};
use crate::pure::path_ops;
use crate::syntax::ast::{Expr, ExprId};
use crate::syntax::parser;
use crate::syntax::show::{self, ShowPath};

/// Exit status for something fetched with a wrong hash (`withExitStatus` in `src/libexpr/primops/fetchTree.cc`).
const EXIT_HASH: u8 = 102;

impl Interp {
    /// An error with everything worked out.
    pub(crate) fn report(&mut self, error: &EvalError) -> Error {
        let message = match &error.message {
            Message::Text(text) => text.clone(),
            Message::Assertion(pos) => format!("assertion '{}' failed", self.assertion_text(*pos)),
        };
        let mut trace = Vec::new();
        for frame in error.frames.iter().rev() {
            let text = match &frame.text {
                FrameText::Text(text) => text.clone().into_owned(),
                FrameText::AssertionCondition(pos) => {
                    format!(
                        "while evaluating the condition of the assertion '{}'",
                        self.assertion_text(*pos)
                    )
                }
            };
            let location = self.locate(frame.pos);
            trace.push(TraceLine {
                text,
                location,
                always: frame.always,
            });
        }
        let location = self.locate(error.pos);
        Error::from(ErrorDetails {
            kind: error.kind,
            message,
            location,
            trace,
            suggestions: error.suggestions.clone(),
            exit: error.exit,
        })
    }

    fn locate(&self, pos: Pos) -> Option<Location> {
        self.sources.locate(pos, |path| self.io.read_file(path).ok())
    }

    /// The condition of the `assert` at a position, read again from its source.
    fn assertion_text(&mut self, pos: Pos) -> String {
        let io = Rc::clone(&self.io);
        let read = |path: &[u8]| io.read_file(path).ok();
        let Some((base, text, origin)) = self.sources.text(pos, read) else {
            return String::new();
        };
        let settings = crate::settings::ParseSettings {
            pipe_operators: true,
            ..Default::default()
        };
        let Ok(parsed) = parser::parse(&text, &mut self.symbols, &settings) else {
            return String::new();
        };
        let at = pos.0 - base.0 + 1;
        let found = parsed.ast.nodes.iter().find_map(|(expr, node_at)| match expr {
            Expr::Assert(condition, _) if *node_at == at => Some(*condition),
            _ => None,
        });
        let Some(condition) = found else {
            return String::new();
        };
        self.show_expr(&parsed.ast, condition, &origin)
    }

    /// An expression as `--parse` prints it.
    pub(crate) fn show_expr(&self, ast: &crate::syntax::ast::Ast, id: ExprId, origin: &Origin) -> String {
        let dir = match origin {
            Origin::File(path) => path_ops::dir_of_path(path).to_vec(),
            _ => self.base_dir().to_vec(),
        };
        let home = self.settings.home.clone().unwrap_or_default();
        show::show(
            ast,
            &self.symbols,
            &Resolved {
                dir: &dir,
                home: home.as_bytes(),
            },
            id,
        )
    }

    /// An error of the world as one of the evaluation.
    pub(crate) fn io_error(error: &IoError) -> Box<EvalError> {
        let kind = match error {
            IoError::Forbidden { .. } | IoError::ForbiddenUri { .. } => ErrorKind::Restricted,
            IoError::InvalidPath { .. } => ErrorKind::InvalidPath,
            IoError::Unsupported { .. } => ErrorKind::Unsupported,
            IoError::Build { .. } | IoError::BuildFailed { .. } => ErrorKind::Build,
            IoError::Fetch { .. } => ErrorKind::Fetch,
            IoError::HashMismatch { .. } => ErrorKind::HashMismatch,
            IoError::Interrupted => ErrorKind::Interrupted,
            IoError::Store { code, .. } => ErrorKind::Store(*code),
            _ => ErrorKind::File,
        };
        let mut shown = EvalError::new(kind, error.to_string());
        shown.exit = match error {
            IoError::HashMismatch { .. } => EXIT_HASH,
            IoError::BuildFailed { exit, .. } => *exit,
            _ => shown.exit,
        };
        shown
    }

    /// Warns about something at a position.
    pub(crate) fn warn_at(&self, message: &str, pos: Pos) {
        self.warn_while(message, None, pos);
    }

    /// Warns about something at a position, met while doing something.
    pub(crate) fn warn_while(&self, message: &str, frame: Option<&str>, pos: Pos) {
        let location = self.locate(pos);
        self.io
            .notice(Notice::Warning(render_warning(message, frame, location.as_ref())));
    }
}

struct Resolved<'a> {
    dir: &'a [u8],
    home: &'a [u8],
}

impl ShowPath for Resolved<'_> {
    fn path(&self, literal: &[u8]) -> Vec<u8> {
        let mut path = path_ops::resolve_path(self.dir, literal);
        if literal.len() > 1 && literal.ends_with(b"/") {
            path.push(b'/');
        }
        path
    }

    fn home_path(&self, rest: &[u8]) -> Vec<u8> {
        [self.home, rest].concat()
    }
}
