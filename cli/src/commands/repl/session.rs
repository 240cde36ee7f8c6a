//! What a text or a command does: the evaluation, the names in scope, the files they came from.

use std::io::Write as _;

use igloo_eval::{
    Error, ErrorKind, Evaluation, Input, InputState, PromptDepth, PromptStyle, Root, Scope, input_state,
};

use super::interrupt::Interrupt;
use super::verbs::{self, Verb};
use crate::evaluation::{Opened, World, absolute};
use crate::failure::Failure;

/// Names told when a set is added; the rest are counted.
const NAMES_SHOWN_MAX: usize = 20;
const MERGING: &str = "while evaluating an attribute set to be merged in the global scope";

/// A conversation.
pub struct Session {
    pub(super) evaluation: Evaluation,
    pub(super) scope: Scope,
    pub(super) interrupt: Interrupt,
    pub(super) show_trace: bool,
    world: World,
    arguments: Vec<(String, Root)>,
    style: PromptStyle,
    /// What `:reload` loads again, in order.
    sources: Vec<Source>,
    /// Names added last.
    last: Vec<Vec<u8>>,
}

/// Where names in scope came from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    File(String),
    Flake(String),
    /// An expression given at the start.
    Expression(String),
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Read on.
    Continue,
    /// The user has had enough.
    Quit,
}

/// Why a text or a command failed.
pub enum Trouble {
    /// The evaluation did.
    Eval(Error),
    /// Something else, in words.
    Other(String),
    /// The conversation cannot go on.
    Fatal(Failure),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Eval(error)
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Fatal(failure)
    }
}

impl From<std::io::Error> for Trouble {
    /// For writes to stdout.
    fn from(error: std::io::Error) -> Self {
        Self::Fatal(error.into())
    }
}

/// How a command ends.
pub type Done = Result<Next, Trouble>;

impl Session {
    /// A conversation in which nothing has been said.
    pub fn new(opened: Opened, style: PromptStyle, interrupt: Interrupt) -> Self {
        Self {
            evaluation: opened.evaluation,
            scope: Scope::default(),
            interrupt,
            show_trace: opened.world.configuration.settings.show_trace,
            world: opened.world,
            arguments: opened.arguments,
            style,
            sources: Vec::new(),
            last: Vec::new(),
        }
    }

    /// Loads what the command line names. What fails is told, and is tried again by `:reload`.
    pub fn start(&mut self, files: &[String], expression: Option<&str>) {
        let files = files.iter().cloned().map(Source::File);
        let expression = expression.map(|text| Source::Expression(text.to_string()));
        for source in files.chain(expression) {
            if let Err(trouble) = self.load(&source) {
                let _ = self.tell(trouble); // nothing was written to stdout that could have failed
            }
        }
    }

    /// How far a text typed so far is.
    pub fn state_of(&self, input: &str) -> InputState {
        let text = match verbs::split(input) {
            None if input.trim().is_empty() => return InputState::Complete,
            None => input,
            Some((
                Some(Verb {
                    is_expression: true, ..
                }),
                argument,
            )) => argument,
            Some(_) => return InputState::Complete,
        };
        input_state(text.as_bytes(), &self.world.configuration.settings.parse)
    }

    /// Does what a text asks for and tells what comes of it.
    pub fn process(&mut self, input: &str) -> Result<Next, Failure> {
        self.interrupt.clear();
        let done = match verbs::split(input) {
            None if input.trim().is_empty() => Ok(Next::Continue),
            None => self.text(input),
            Some((Some(verb), argument)) => (verb.run)(self, argument),
            Some((None, _)) => {
                let name = input.split_whitespace().next().unwrap_or_default();
                Err(Trouble::Other(format!("unknown command '{name}'")))
            }
        };
        match done {
            Ok(next) => Ok(next),
            Err(trouble) => self.tell(trouble).map(|()| Next::Continue),
        }
    }

    /// Waits until all that was made is in the store.
    pub fn flush(&self) -> Result<(), Failure> {
        Ok(self.world.io.flush()?)
    }

    fn tell(&self, trouble: Trouble) -> Result<(), Failure> {
        match trouble {
            Trouble::Eval(error) if error.kind == ErrorKind::Interrupted => eprintln!("error: {error}"),
            Trouble::Eval(error) => eprintln!("{}", error.render(self.show_trace)),
            Trouble::Other(text) => eprintln!("error: {text}"),
            Trouble::Fatal(failure) => return Err(failure),
        }
        Ok(())
    }

    fn text(&mut self, text: &str) -> Done {
        match self.evaluation.read(text.as_bytes(), &self.scope)? {
            Input::Value(value) => self.show(value, PromptDepth::Outermost)?,
            Input::Bindings(bindings) => {
                for (name, value) in bindings {
                    self.scope.bind(name, value);
                }
            }
        }
        Ok(Next::Continue)
    }

    /// The value of an expression.
    pub(super) fn evaluate(&mut self, text: &str) -> Result<Root, Trouble> {
        match self.evaluation.read(text.as_bytes(), &self.scope)? {
            Input::Value(value) => Ok(value),
            Input::Bindings(_) => Err(Trouble::Other(
                "bindings cannot stand here; an expression is expected".into(),
            )),
        }
    }

    /// Prints a value.
    pub(super) fn show(&mut self, value: Root, depth: PromptDepth) -> Result<(), Trouble> {
        let mut out = std::io::stdout().lock();
        let mut written = Ok(());
        let mut any = false;
        let shown = self.evaluation.show(value, depth, self.style, &mut |part| {
            any = true;
            if written.is_ok() {
                written = out.write_all(part);
            }
        });
        written?;
        if any {
            out.write_all(b"\n")?;
        }
        out.flush()?;
        Ok(shown?)
    }

    /// Adds a set's attributes to the scope and tells their names.
    pub(super) fn add(&mut self, value: Root) -> Result<(), Trouble> {
        let attributes = self.evaluation.expect_attributes(value, MERGING)?;
        self.last = attributes.iter().map(|(name, _)| name.clone()).collect();
        let shown: Vec<String> = self
            .last
            .iter()
            .take(NAMES_SHOWN_MAX)
            .map(|n| quoted(n))
            .collect();
        eprintln!("Added {} variables.\n{}", attributes.len(), shown.join(", "));
        if let Some(more) = attributes.len().checked_sub(NAMES_SHOWN_MAX).filter(|n| *n > 0) {
            eprintln!("... and {more} more; view with :ll");
        }
        for (name, value) in attributes {
            self.scope.bind(name, value);
        }
        Ok(())
    }

    /// Names added last.
    pub(super) fn last_added(&self) -> &[Vec<u8>] {
        &self.last
    }

    /// Loads a file and adds its attributes.
    pub(super) fn load_file(&mut self, file: &str) -> Result<(), Trouble> {
        self.load(&Source::File(file.to_string()))
    }

    /// Loads a flake and adds its attributes.
    pub(super) fn load_flake(&mut self, reference: &str) -> Result<(), Trouble> {
        if !self.world.configuration.settings.features.flakes {
            return Err(Trouble::Other(
                "experimental Nix feature 'flakes' is disabled; add '--option extra-experimental-features flakes' to enable it"
                    .into(),
            ));
        }
        self.load(&Source::Flake(reference.to_string()))
    }

    fn load(&mut self, source: &Source) -> Result<(), Trouble> {
        self.sources.retain(|other| other != source);
        self.sources.push(source.clone());
        let value = match source {
            Source::File(file) => {
                let path = self.file_of(file)?;
                let value = self.evaluation.eval_file(&path)?;
                self.evaluation.auto_call(value, &self.arguments)?
            }
            Source::Flake(reference) => {
                let reference = self.evaluation.string(super::places::flake(reference).as_bytes());
                let mut scope = Scope::default();
                scope.bind(b"reference".to_vec(), reference);
                match self.evaluation.read(b"builtins.getFlake reference", &scope)? {
                    Input::Value(value) => value,
                    Input::Bindings(_) => return Ok(()),
                }
            }
            Source::Expression(text) => {
                let value = self.evaluate(text)?;
                self.evaluation.auto_call(value, &self.arguments)?
            }
        };
        self.add(value)
    }

    /// The path of a file as it is named at the prompt: `<name>` looks in the search path, `~` is the home directory.
    pub(super) fn file_of(&mut self, name: &str) -> Result<Vec<u8>, Trouble> {
        if name.starts_with('<') && name.ends_with('>') {
            let value = self.evaluate(name)?;
            let place = self.evaluation.definition(value)?;
            return place
                .map(|(path, _)| path)
                .ok_or_else(|| Trouble::Other(format!("'{name}' is no path")));
        }
        Ok(absolute(&super::places::with_home(name)))
    }

    /// Starts anew with the files loaded so far, as they are now.
    pub(super) fn reload(&mut self) -> Result<(), Trouble> {
        self.scope = Scope::default();
        self.evaluation.forget_files();
        for source in self.sources.clone() {
            match &source {
                Source::File(name) => eprintln!("Loading \"{name}\"..."),
                Source::Flake(name) => eprintln!("Loading flake \"{name}\"..."),
                Source::Expression(_) => eprintln!("Loading the expression of --expr..."),
            }
            self.load(&source)?;
        }
        Ok(())
    }
}

/// A name as it stands in a set.
pub fn quoted(name: &[u8]) -> String {
    igloo_eval::attribute_name(name)
}
