//! Evaluations for commands: settings by name, the search path, the world.
//!
//! Invariant: a setting is known by one row of [`SETTINGS`]; a name that is in no row is kept for Nix's sake and ignored
//! with a warning, as Nix does.

use std::ffi::OsStr;
use std::io::Read as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use igloo_eval::io::{AccessRules, FsIo, Notice};
use igloo_eval::{Error, Evaluation, LintLevel, Origin, Purity, Root, Settings};
use igloo_status::Code;
use nix_compat::store_path::StoreDir;

use crate::failure::Failure;

/// What commands that evaluate have in common.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Files to evaluate, or expressions when `expressions` is set; `-` is stdin.
    pub inputs: Vec<String>,
    /// Whether the inputs are expressions.
    pub expressions: bool,
    /// Attribute paths to select; none for the whole.
    pub attributes: Vec<String>,
    /// Arguments for functions.
    pub arguments: Vec<Argument>,
    /// Search path entries in front of `NIX_PATH`'s.
    pub search: Vec<String>,
    /// `--option NAME VALUE`
    pub options: Vec<(String, String)>,
    /// Whether errors show every call.
    pub show_trace: bool,
}

/// An argument for a function.
#[derive(Clone, Debug)]
pub enum Argument {
    /// `--arg NAME EXPRESSION`
    Expression(String, String),
    /// `--argstr NAME TEXT`
    Text(String, String),
}

/// A selected value and the evaluation it lives in.
pub type Visit<'a> = dyn FnMut(&mut Evaluation, Root) -> Result<(), Failure> + 'a;

type Set = fn(&mut Settings, &str);

/// Settings by Nix's names.
const SETTINGS: &[(&str, Set)] = &[
    ("abort-on-warn", |settings, value| {
        settings.abort_on_warn = value == "true";
    }),
    ("allow-import-from-derivation", |settings, value| {
        settings.allow_import_from_derivation = value == "true";
    }),
    ("eval-system", set_system),
    ("experimental-features", set_features),
    ("extra-experimental-features", set_features),
    ("lint-absolute-path-literals", |settings, value| {
        settings.parse.lint_absolute_path_literals = lint(value);
    }),
    ("lint-short-path-literals", |settings, value| {
        settings.parse.lint_short_path_literals = lint(value);
    }),
    ("lint-url-literals", |settings, value| {
        settings.parse.lint_url_literals = lint(value);
    }),
    ("max-call-depth", |settings, value| {
        settings.max_call_depth = value.parse().unwrap_or(settings.max_call_depth);
    }),
    ("pure-eval", |settings, value| {
        set_purity(settings, value, Purity::Pure);
    }),
    ("restrict-eval", |settings, value| {
        set_purity(settings, value, Purity::Restricted);
    }),
    ("show-trace", |settings, value| {
        settings.show_trace = value == "true";
    }),
    ("system", set_system),
    ("trace-verbose", |settings, value| {
        settings.trace_verbose = value == "true";
    }),
];

/// Evaluates what is asked for and hands every selected value over.
pub fn evaluate(request: &Request, visit: &mut Visit<'_>) -> Result<(), Failure> {
    let settings = settings(request);
    let show_trace = settings.show_trace;
    let io = world(&settings)?;
    let mut evaluation = Evaluation::new(settings, Rc::new(io));
    let result =
        evaluate_all(&mut evaluation, request, visit).map_err(|error| error.into_failure(show_trace));
    // the process ends soon: giving every block back would only cost time
    let _ = std::mem::ManuallyDrop::new(evaluation);
    result
}

/// What the parser makes of the inputs, as `nix-instantiate --parse` prints it.
pub fn parse(request: &Request) -> Result<Vec<String>, Failure> {
    let settings = settings(request);
    let show_trace = settings.show_trace;
    let io = world(&settings)?;
    let mut evaluation = Evaluation::new(settings, Rc::new(io));
    let mut parsed = Vec::new();
    for input in &request.inputs {
        let (text, origin) = text_of(input, request.expressions)?;
        let text = evaluation
            .parse(&text, &origin)
            .map_err(|error| Trouble::Eval(error).into_failure(show_trace))?;
        parsed.push(text);
    }
    Ok(parsed)
}

/// An error of the evaluation, or of the command around it.
enum Trouble {
    Eval(Error),
    Command(Failure),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Eval(error)
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Command(failure)
    }
}

impl Trouble {
    /// The evaluator renders its errors itself, excerpt and trace included.
    fn into_failure(self, show_trace: bool) -> Failure {
        match self {
            Self::Eval(error) => Failure::rendered(error.render(show_trace)),
            Self::Command(failure) => failure,
        }
    }
}

fn evaluate_all(
    evaluation: &mut Evaluation,
    request: &Request,
    visit: &mut Visit<'_>,
) -> Result<(), Trouble> {
    let mut arguments = Vec::new();
    for argument in &request.arguments {
        arguments.push(match argument {
            Argument::Expression(name, text) => (
                name.clone(),
                evaluation.eval_text(text.as_bytes(), Origin::String)?,
            ),
            Argument::Text(name, text) => (name.clone(), evaluation.string(text.as_bytes())),
        });
    }
    let whole = [String::new()];
    let attributes = if request.attributes.is_empty() {
        &whole[..]
    } else {
        &request.attributes
    };
    for input in &request.inputs {
        let root = match (input.as_str(), request.expressions) {
            ("-", false) => evaluation.eval_text(&stdin()?, Origin::Stdin)?,
            (text, true) => evaluation.eval_text(text.as_bytes(), Origin::String)?,
            (path, false) => evaluation.eval_file(&absolute(path))?,
        };
        for attribute in attributes {
            let value = evaluation.select(root, attribute, &arguments)?;
            visit(evaluation, value)?;
        }
    }
    Ok(())
}

fn text_of(input: &str, is_expression: bool) -> Result<(Vec<u8>, Origin), Failure> {
    match (input, is_expression) {
        ("-", false) => Ok((stdin()?, Origin::Stdin)),
        (text, true) => Ok((text.as_bytes().to_vec(), Origin::String)),
        (path, false) => {
            let text = std::fs::read(path).map_err(|error| {
                let code = Code::from_io(&error);
                Failure::coded(
                    anyhow::Error::new(error).context(format!("cannot read {path}")),
                    code,
                )
            })?;
            Ok((text, Origin::File(absolute(path).into())))
        }
    }
}

fn stdin() -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    let read = std::io::stdin().read_to_end(&mut text);
    read.map_err(|error| Failure::new(anyhow::Error::new(error).context("cannot read stdin")))?;
    Ok(text)
}

fn settings(request: &Request) -> Settings {
    let os = if std::env::consts::OS == "macos" {
        "darwin"
    } else {
        std::env::consts::OS
    };
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .ok();
    let mut settings = Settings {
        current_system: Some(format!("{}-{os}", std::env::consts::ARCH)),
        current_time: now.and_then(|now| i64::try_from(now.as_secs()).ok()),
        home: std::env::var("HOME").ok(),
        base_dir: String::from_utf8_lossy(&absolute(".")).into_owned(),
        ..Settings::default()
    };
    let config = std::env::var("NIX_CONFIG").unwrap_or_default();
    for line in config.lines() {
        if let Some((name, value)) = line.split_once('=') {
            set(&mut settings, name.trim(), value.trim());
        }
    }
    for (name, value) in &request.options {
        set(&mut settings, name, value);
    }
    settings.show_trace |= request.show_trace;
    settings.nix_path = search_path(&request.search, &std::env::var("NIX_PATH").unwrap_or_default());
    settings
}

fn set(settings: &mut Settings, name: &str, value: &str) {
    if let Some((_, set)) = SETTINGS.iter().find(|(known, _)| *known == name) {
        set(settings, value);
    }
}

fn set_system(settings: &mut Settings, value: &str) {
    settings.current_system = Some(value.to_string());
}

fn set_purity(settings: &mut Settings, value: &str, purity: Purity) {
    if value == "true" {
        settings.purity = purity;
    }
}

fn set_features(settings: &mut Settings, value: &str) {
    let features = &mut settings.features;
    for name in value.split_whitespace() {
        match name {
            "pipe-operators" => settings.parse.pipe_operators = true,
            "flakes" => features.flakes = true,
            "fetch-tree" => features.fetch_tree = true,
            "fetch-closure" => features.fetch_closure = true,
            "dynamic-derivations" => features.dynamic_derivations = true,
            "ca-derivations" => features.ca_derivations = true,
            "impure-derivations" => features.impure_derivations = true,
            "parse-toml-timestamps" => features.parse_toml_timestamps = true,
            "blake3-hashes" => features.blake3_hashes = true,
            _ => {}
        }
    }
}

fn lint(level: &str) -> LintLevel {
    match level {
        "warn" => LintLevel::Warn,
        "fatal" => LintLevel::Fatal,
        _ => LintLevel::Ignore,
    }
}

/// Entries of `-I`, then of `NIX_PATH`, whose colons inside URLs separate nothing.
fn search_path(given: &[String], from_environment: &str) -> Vec<(String, String)> {
    let mut entries: Vec<&str> = given.iter().map(String::as_str).collect();
    let mut start = 0;
    for (index, _) in from_environment.match_indices(':') {
        if !from_environment[index + 1..].starts_with("//") {
            entries.push(&from_environment[start..index]);
            start = index + 1;
        }
    }
    entries.push(&from_environment[start..]);
    let named = entries.into_iter().filter(|entry| !entry.is_empty());
    let split = |entry: &str| match entry.split_once('=') {
        Some((prefix, path)) => (prefix.to_string(), path.to_string()),
        None => (String::new(), entry.to_string()),
    };
    named.map(split).collect()
}

fn world(settings: &Settings) -> Result<FsIo, Failure> {
    let dir = std::env::var("NIX_STORE_DIR").unwrap_or_else(|_| "/nix/store".into());
    let dir = StoreDir::new(&dir).map_err(|error| Failure::usage(error.to_string()))?;
    let rules = match settings.purity {
        Purity::Impure => AccessRules::All,
        Purity::Restricted => {
            let allowed = settings.nix_path.iter().map(|(_, path)| absolute(path)).collect();
            AccessRules::Below(allowed, "in restricted mode")
        }
        Purity::Pure => {
            AccessRules::Below(Vec::new(), "in pure evaluation mode (use '--impure' to override)")
        }
    };
    let env = |name: &[u8]| std::env::var_os(OsStr::from_bytes(name)).map(std::ffi::OsString::into_vec);
    let notices = |notice: Notice| match notice {
        Notice::Trace(text) => eprintln!("trace: {text}"),
        Notice::EvaluationWarning(text) => eprintln!("evaluation warning: {text}"),
        Notice::Warning(text) => eprintln!("{text}"),
    };
    let io = FsIo::new(dir)
        .with_rules(rules)
        .with_env(Box::new(env))
        .with_notices(Box::new(notices));
    Ok(io.with_store_on_disk(true))
}

/// The path from the root, `.` and `..` resolved in words: links are not followed.
pub fn absolute(path: &str) -> Vec<u8> {
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    let mut clean = PathBuf::from("/");
    for part in here.join(Path::new(path)).components() {
        match part {
            Component::ParentDir => {
                clean.pop();
            }
            Component::Normal(name) => clean.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean.into_os_string().into_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_search_path_keeps_urls_whole() {
        let given = ["x=/y".to_string()];
        let entries = search_path(&given, "/a:nixpkgs=https://host/path:b=/c");
        let expected = [
            ("x", "/y"),
            ("", "/a"),
            ("nixpkgs", "https://host/path"),
            ("b", "/c"),
        ];
        assert_eq!(
            entries,
            expected.map(|(prefix, path)| (prefix.to_string(), path.to_string()))
        );
    }

    #[test]
    fn settings_are_sorted_and_known_once() {
        assert!(SETTINGS.is_sorted_by(|(a, _), (b, _)| a < b));
    }

    #[test]
    fn paths_are_made_absolute_in_words() {
        assert_eq!(absolute("/a/./b/../c"), b"/a/c");
        assert_eq!(absolute("/../x"), b"/x");
    }
}
