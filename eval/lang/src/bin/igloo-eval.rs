//! `igloo-eval`: the evaluator behind a `nix-instantiate` face, for conformance suites and measurements.
//!
//! Reads flags, `NIX_PATH`, `NIX_CONFIG`, `NIX_STORE_DIR` and `HOME`; writes nothing but its output.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line prints")]

use std::io::{Read, Write};
use std::num::NonZero;
use std::ops::ControlFlow;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::ExitCode;
use std::rc::Rc;

use igloo_eval::io::{AccessRules, FsIo, Notice};
use igloo_eval::{
    Answer, Error, Evaluation, Format, LintLevel, Origin, Purity, Question, Ready, Root, Settings, Wanted,
    ask_on_threads,
};
use nix_compat::store_path::StoreDir;

#[derive(Default)]
struct Options {
    eval: bool,
    strict: bool,
    json: bool,
    xml: bool,
    no_location: bool,
    parse: bool,
    expr: bool,
    show_trace: bool,
    stats: bool,
    attrs: Vec<String>,
    args: Vec<(String, String, bool)>,
    files: Vec<String>,
    search: Vec<String>,
    allowed: Vec<String>,
    /// Threads that attributes are evaluated on.
    cores: usize,
}

fn main() -> ExitCode {
    let mut settings = base_settings();
    let mut options = Options::default();
    if let Ok(config) = std::env::var("NIX_CONFIG") {
        for line in config.lines() {
            if let Some((name, value)) = line.split_once('=') {
                set_option(&mut settings, &mut options, name.trim(), value.trim());
            }
        }
    }
    if let Err(message) = parse_args(std::env::args().skip(1), &mut settings, &mut options) {
        eprintln!("error: {message}");
        return ExitCode::from(1);
    }
    settings.show_trace = options.show_trace;
    match run(settings, &options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Eval(error)) => {
            eprintln!("{}", error.render(options.show_trace));
            ExitCode::from(1)
        }
        Err(Failure::Other(message)) => {
            eprintln!("error: {message}");
            ExitCode::from(1)
        }
    }
}

enum Failure {
    Eval(Error),
    Other(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Eval(error)
    }
}

fn base_settings() -> Settings {
    let arch = std::env::consts::ARCH;
    let os = if std::env::consts::OS == "macos" {
        "darwin"
    } else {
        std::env::consts::OS
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let cwd = std::env::current_dir()
        .map(|d| d.into_os_string().into_vec())
        .unwrap_or_else(|_| b"/".to_vec());
    Settings {
        current_system: Some(format!("{arch}-{os}")),
        current_time: now.ok().and_then(|t| i64::try_from(t.as_secs()).ok()),
        home: std::env::var("HOME").ok(),
        base_dir: String::from_utf8_lossy(&cwd).into_owned(),
        ..Settings::default()
    }
}

fn set_option(settings: &mut Settings, options: &mut Options, name: &str, value: &str) {
    let on = value == "true";
    match name {
        "experimental-features" | "extra-experimental-features" => {
            value
                .split_whitespace()
                .for_each(|feature| enable(settings, feature));
        }
        "eval-cores" => options.cores = value.parse().unwrap_or(1),
        "show-trace" => options.show_trace = on,
        "max-call-depth" => settings.max_call_depth = value.parse().unwrap_or(settings.max_call_depth),
        "restrict-eval" if on => settings.purity = Purity::Restricted,
        "pure-eval" if on => settings.purity = Purity::Pure,
        "eval-system" | "system" => settings.current_system = Some(value.to_owned()),
        "trace-verbose" => settings.trace_verbose = on,
        "abort-on-warn" => settings.abort_on_warn = on,
        "allow-import-from-derivation" => settings.allow_import_from_derivation = on,
        "lint-url-literals" => settings.parse.lint_url_literals = lint(value),
        "lint-short-path-literals" => settings.parse.lint_short_path_literals = lint(value),
        "lint-absolute-path-literals" => settings.parse.lint_absolute_path_literals = lint(value),
        _ => {}
    }
}

fn lint(level: &str) -> LintLevel {
    match level {
        "warn" => LintLevel::Warn,
        "fatal" => LintLevel::Fatal,
        _ => LintLevel::Ignore,
    }
}

fn enable(settings: &mut Settings, feature: &str) {
    let features = &mut settings.features;
    match feature {
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

fn parse_args(
    mut args: impl Iterator<Item = String>,
    settings: &mut Settings,
    options: &mut Options,
) -> Result<(), String> {
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("'{arg}' requires an argument"));
        match arg.as_str() {
            "--eval" => options.eval = true,
            "--strict" => options.strict = true,
            "--json" => options.json = true,
            "--xml" => options.xml = true,
            "--no-location" => options.no_location = true,
            "--parse" => options.parse = true,
            "--expr" | "-E" => options.expr = true,
            "--show-trace" => options.show_trace = true,
            "--no-show-trace" => options.show_trace = false,
            "--stats" => options.stats = true,
            "--impure" | "--read-write-mode" | "--readonly-mode" => {}
            "--pure-eval" => settings.purity = Purity::Pure,
            "--restrict-eval" => settings.purity = Purity::Restricted,
            "--allowed" => options.allowed.push(value()?),
            "-A" | "--attr" => options.attrs.push(value()?),
            "-I" | "--include" => options.search.push(value()?),
            "--arg" => options.args.push((value()?, value()?, true)),
            "--argstr" => options.args.push((value()?, value()?, false)),
            "--option" => {
                let (name, text) = (value()?, value()?);
                set_option(settings, options, &name, &text);
            }
            "-" => options.files.push(arg),
            other => match other.strip_prefix("--") {
                Some(name) => {
                    let text = value()?;
                    set_option(settings, options, name, &text);
                }
                None if other.starts_with('-') => return Err(format!("unrecognised flag '{other}'")),
                None => options.files.push(arg),
            },
        }
    }
    Ok(())
}

fn search_path(options: &Options) -> Vec<(String, String)> {
    let from_env = std::env::var("NIX_PATH").unwrap_or_default();
    let entries = options
        .search
        .iter()
        .map(String::as_str)
        .chain(split_nix_path(&from_env));
    entries
        .map(|entry| match entry.split_once('=') {
            Some((prefix, path)) => (prefix.to_owned(), path.to_owned()),
            None => (String::new(), entry.to_owned()),
        })
        .collect()
}

/// The entries of `NIX_PATH`; a colon inside a URL separates nothing.
fn split_nix_path(text: &str) -> Vec<&str> {
    let mut entries = Vec::new();
    let mut start = 0;
    for (i, _) in text.match_indices(':') {
        if text[i + 1..].starts_with("//") || i < start {
            continue;
        }
        entries.push(&text[start..i]);
        start = i + 1;
    }
    entries.push(&text[start..]);
    entries.retain(|e| !e.is_empty());
    entries
}

fn world(options: &Options, purity: Purity, search: &[(String, String)]) -> Result<FsIo, Failure> {
    let dir = std::env::var("NIX_STORE_DIR").unwrap_or_else(|_| "/nix/store".to_owned());
    let dir = StoreDir::new(&dir).map_err(|e| Failure::Other(e.to_string()))?;
    let mut prefixes: Vec<Vec<u8>> = options.allowed.iter().map(|p| absolute(p)).collect();
    let rules = match purity {
        Purity::Impure => AccessRules::All,
        Purity::Restricted => {
            prefixes.extend(search.iter().map(|(_, p)| absolute(p)));
            AccessRules::Below(prefixes, "in restricted mode")
        }
        Purity::Pure => AccessRules::Below(prefixes, "in pure evaluation mode (use '--impure' to override)"),
    };
    let env = |name: &[u8]| std::env::var_os(std::ffi::OsStr::from_bytes(name)).map(OsStringExt::into_vec);
    let notices = |notice: Notice| match notice {
        Notice::Trace(text) => eprintln!("trace: {text}"),
        Notice::EvaluationWarning(text) | Notice::Warning(text) => eprintln!("{text}"),
    };
    Ok(FsIo::new(dir)
        .with_rules(rules)
        .with_env(Box::new(env))
        .with_notices(Box::new(notices))
        .with_store_on_disk(true))
}

fn absolute(path: &str) -> Vec<u8> {
    let path = std::path::Path::new(path);
    let full = if path.is_absolute() {
        path.to_owned()
    } else {
        std::env::current_dir().unwrap_or_default().join(path)
    };
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in full.as_os_str().as_bytes().split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    [b"/".as_slice(), &parts.join(&b'/')].concat()
}

fn read_stdin() -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    std::io::stdin()
        .read_to_end(&mut text)
        .map_err(|e| Failure::Other(e.to_string()))?;
    Ok(text)
}

#[expect(
    clippy::mem_forget,
    reason = "the process ends: giving every block back would only cost time"
)]
fn run(mut settings: Settings, options: &Options) -> Result<(), Failure> {
    settings.nix_path = search_path(options);
    let io = world(options, settings.purity, &settings.nix_path)?;
    let mut evaluation = Evaluation::new(settings.clone(), Rc::new(io));
    let result = run_all(&mut evaluation, &settings, options);
    if options.stats {
        eprintln!("heap: {} KiB", evaluation.reserved_bytes() / 1024);
    }
    std::mem::forget(evaluation);
    result
}

fn run_all(evaluation: &mut Evaluation, settings: &Settings, options: &Options) -> Result<(), Failure> {
    let args = arguments(evaluation, options)?;
    let default = ["./default.nix".to_owned()];
    let files: &[String] = if options.files.is_empty() {
        &default
    } else {
        &options.files
    };
    for file in files {
        one(evaluation, settings, options, file, &args)?;
    }
    Ok(())
}

fn arguments(evaluation: &mut Evaluation, options: &Options) -> Result<Vec<(String, Root)>, Failure> {
    let mut args = Vec::new();
    for (name, text, is_expr) in &options.args {
        let value = if *is_expr {
            evaluation.eval_text(text.as_bytes(), Origin::String)?
        } else {
            evaluation.string(text.as_bytes())
        };
        args.push((name.clone(), value));
    }
    Ok(args)
}

/// The value of a file or expression.
fn root_of(evaluation: &mut Evaluation, options: &Options, file: &str) -> Result<Root, Failure> {
    Ok(match (file, options.expr) {
        ("-", false) => evaluation.eval_text(&read_stdin()?, Origin::Stdin)?,
        (text, true) => evaluation.eval_text(text.as_bytes(), Origin::String)?,
        (path, false) => evaluation.eval_file(&absolute(path))?,
    })
}

/// A fresh evaluation on this thread.
fn ready(settings: &Settings, options: &Options, file: &str) -> Result<Ready, Failure> {
    let io = world(options, settings.purity, &settings.nix_path)?;
    let mut evaluation = Evaluation::new(settings.clone(), Rc::new(io));
    let args = arguments(&mut evaluation, options)?;
    let root = root_of(&mut evaluation, options, file)?;
    Ok(Ready {
        evaluation,
        root,
        args,
    })
}

fn one(
    evaluation: &mut Evaluation,
    settings: &Settings,
    options: &Options,
    file: &str,
    args: &[(String, Root)],
) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let mut write = |bytes: &[u8]| {
        out.write_all(bytes)
            .and_then(|()| out.write_all(b"\n"))
            .map_err(|e| Failure::Other(e.to_string()))
    };
    if options.parse {
        let (text, origin) = match (file, options.expr) {
            ("-", false) => (read_stdin()?, Origin::Stdin),
            (text, true) => (text.as_bytes().to_vec(), Origin::String),
            (path, false) => {
                let text = std::fs::read(path).map_err(|e| Failure::Other(e.to_string()))?;
                (text, Origin::File(absolute(path).into()))
            }
        };
        return write(evaluation.parse(&text, &origin)?.as_bytes());
    }
    let no_path = [String::new()];
    let paths: &[String] = if options.attrs.is_empty() {
        &no_path
    } else {
        &options.attrs
    };
    let format = match (options.xml, options.json) {
        (true, _) => Format::Xml {
            location: !options.no_location,
        },
        (_, true) => Format::Json,
        _ => Format::Nix,
    };
    let what = if options.eval {
        Wanted::Text {
            format,
            strict: options.strict,
        }
    } else {
        Wanted::Derivations
    };
    let call = !options.eval || !args.is_empty();
    let mut written = Ok(());
    let question = Question { what, call };
    let mut each = |answer| {
        written = match answer {
            Answer::Derivations(found) => found.iter().try_for_each(|found| {
                let output = if found.output_name == "out" {
                    String::new()
                } else {
                    format!("!{}", found.output_name)
                };
                write(format!("{}{output}", found.drv_path).as_bytes())
            }),
            Answer::Text(text) => write(text.strip_suffix(b"\n").unwrap_or(&text)),
        };
        if written.is_ok() {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    };
    match NonZero::new(options.cores) {
        Some(cores) if cores.get() > 1 && paths.len() > 1 && (options.expr || file != "-") => {
            ask_on_threads(
                cores,
                || ready(settings, options, file),
                paths,
                question,
                &mut each,
            )?;
        }
        _ => {
            let root = root_of(evaluation, options, file)?;
            evaluation.ask(root, paths, args, question, &mut each)?;
        }
    }
    written
}
