//! Reading what is to be evaluated: edited on a terminal, line by line from a pipe.
//!
//! Invariant: what is handed on is complete, or wrong whatever might follow, or the last there is.

use std::cell::RefCell;
use std::io::{BufRead as _, StdinLock};
use std::path::PathBuf;
use std::rc::Rc;

use igloo_eval::InputState;
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::{Highlighter, MatchingBracketHighlighter};
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Config, Context, Editor, Helper};

use super::complete;
use super::session::Session;
use crate::failure::Failure;

/// Lines kept in the history file.
const HISTORY_MAX: usize = 10_000;
const PROMPT: &str = "igloo> ";

/// Where inputs come from.
pub enum Lines {
    /// A terminal.
    Edited(Box<EditedLines>),
    /// A pipe or a file.
    Piped(StdinLock<'static>, Rc<RefCell<Session>>),
}

/// What was read.
pub enum Read {
    /// A text or a command, of one or more lines.
    Input(String),
    /// The line was given up.
    Cleared,
    /// There is no more.
    End,
}

impl Lines {
    /// Prepares reading. `history` names the history file; an empty name means none.
    pub fn open(
        is_interactive: bool,
        history: PathBuf,
        session: &Rc<RefCell<Session>>,
    ) -> Result<Self, Failure> {
        let session = Rc::clone(session);
        if !is_interactive {
            return Ok(Self::Piped(std::io::stdin().lock(), session));
        }
        let history = Some(history).filter(|path| !path.as_os_str().is_empty());
        Ok(Self::Edited(Box::new(EditedLines::open(history, session)?)))
    }

    /// The next input.
    pub fn read(&mut self) -> Result<Read, Failure> {
        match self {
            Self::Edited(lines) => lines.read(),
            Self::Piped(stdin, session) => read_piped(stdin, &session.borrow()),
        }
    }
}

fn read_piped(stdin: &mut StdinLock<'static>, session: &Session) -> Result<Read, Failure> {
    let mut input = String::new();
    loop {
        let read = stdin.read_line(&mut input);
        let bytes =
            read.map_err(|error| Failure::new(anyhow::Error::new(error).context("cannot read stdin")))?;
        if bytes == 0 && input.trim().is_empty() {
            return Ok(Read::End);
        }
        let text = input.strip_suffix('\n').unwrap_or(&input);
        if bytes == 0 || session.state_of(text) != InputState::Incomplete {
            return Ok(Read::Input(text.to_string()));
        }
    }
}

/// A terminal with a line editor.
pub struct EditedLines {
    editor: Editor<Assistant, FileHistory>,
    history: Option<PathBuf>,
}

impl EditedLines {
    fn open(history: Option<PathBuf>, session: Rc<RefCell<Session>>) -> Result<Self, Failure> {
        let config = Config::builder()
            .max_history_size(HISTORY_MAX)
            .and_then(|config| config.history_ignore_dups(true))
            .map_err(|error| failed(error, "cannot prepare the terminal"))?
            .history_ignore_space(true)
            .completion_type(rustyline::CompletionType::List)
            .auto_add_history(true)
            .build();
        let editor = Editor::with_config(config);
        let mut editor = editor.map_err(|error| failed(error, "cannot prepare the terminal"))?;
        let brackets = MatchingBracketHighlighter::new();
        editor.set_helper(Some(Assistant { session, brackets }));
        if let Some(file) = &history {
            // a history that cannot be read or written is no reason not to evaluate
            if let Some(folder) = file.parent()
                && let Err(error) = std::fs::create_dir_all(folder)
            {
                eprintln!("warning: cannot keep a history in {}: {error}", folder.display());
            }
            match editor.load_history(file) {
                Err(ReadlineError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => eprintln!("warning: cannot read the history {}: {error}", file.display()),
                Ok(()) => {}
            }
        }
        Ok(Self { editor, history })
    }

    fn read(&mut self) -> Result<Read, Failure> {
        match self.editor.readline(PROMPT) {
            Ok(line) => {
                if let Some(file) = &self.history {
                    let _ = self.editor.append_history(file); // said when it was opened
                }
                Ok(Read::Input(line))
            }
            Err(ReadlineError::Interrupted) => Ok(Read::Cleared),
            Err(ReadlineError::Eof) => Ok(Read::End),
            Err(error) => Err(failed(error, "cannot read from the terminal")),
        }
    }
}

fn failed(error: ReadlineError, what: &'static str) -> Failure {
    Failure::new(anyhow::Error::new(error).context(what))
}

/// What the line editor asks about the text in it.
struct Assistant {
    session: Rc<RefCell<Session>>,
    brackets: MatchingBracketHighlighter,
}

impl Helper for Assistant {}

impl Hinter for Assistant {
    type Hint = String;
}

impl Highlighter for Assistant {
    fn highlight<'l>(&self, line: &'l str, pos: usize) -> std::borrow::Cow<'l, str> {
        self.brackets.highlight(line, pos)
    }

    fn highlight_char(&self, line: &str, pos: usize, kind: rustyline::highlight::CmdKind) -> bool {
        self.brackets.highlight_char(line, pos, kind)
    }
}

impl Validator for Assistant {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(match self.session.borrow().state_of(context.input()) {
            InputState::Incomplete => ValidationResult::Incomplete,
            InputState::Complete | InputState::Wrong => ValidationResult::Valid(None),
        })
    }
}

impl Completer for Assistant {
    type Candidate = String;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(complete::complete(&mut self.session.borrow_mut(), line, pos))
    }
}
