//! Settings by Nix's names, and what they mean for an evaluation: the one table for commands, services and tests.
//!
//! Invariants
//! - a setting is known by one row of [`SETTINGS`]; one that Nix knows and no evaluation depends on is taken in silence,
//!   any other is named in a warning and ignored, and so is a value that cannot be: as Nix does;
//! - later settings win.
//!
//! Source: Nix 2.34, `nix config show` and what `nix-instantiate` says of wrong settings, recorded.

use std::num::NonZero;

use igloo_eval::io::AccessRules;
use igloo_eval::{LintLevel, Purity, Settings};
use igloo_store_io::{TreePlaces, UriRules};

mod names;

/// Threads that an evaluation may have.
const THREADS_MAX: usize = 256;

/// What an evaluation gets from settings.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// For the evaluator.
    pub settings: Settings,
    /// What may be read.
    pub files: AccessRules,
    /// What may be fetched.
    pub uris: UriRules,
    /// The registry that everybody has: a URL, an absolute path, or nothing for none (`flake-registry`); `None` for the one
    /// the evaluator knows.
    pub flake_registry: Option<String>,
    /// Threads that several attributes are evaluated on (`eval-cores`).
    pub threads: NonZero<usize>,
    /// What is to be said about the settings, one line each, with `warning: ` in front.
    pub warnings: Vec<String>,
}

/// What settings start from: the facts of the machine, which this crate does not ask for.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// `builtins.currentSystem`, such as `x86_64-linux`.
    pub system: String,
    /// `builtins.currentTime`, seconds since 1970.
    pub seconds: Option<i64>,
    /// Processors, for `eval-cores = 0`; 0 where nobody knows.
    pub cores: usize,
}

/// Sets one thing; false where the value cannot be.
type Set = fn(&mut Draft, &str) -> bool;

/// Settings so far.
#[derive(Debug)]
struct Draft {
    settings: Settings,
    eval_system: Option<String>,
    allowed_uris: Vec<String>,
    eval_cores: usize,
    flake_registry: Option<String>,
    warnings: Vec<String>,
}

/// Settings by Nix's names.
const SETTINGS: &[(&str, Kind, Set)] = &[
    ("abort-on-warn", Kind::Boolean, |draft, value| {
        boolean(&mut draft.settings.abort_on_warn, value)
    }),
    ("allow-import-from-derivation", Kind::Boolean, |draft, value| {
        boolean(&mut draft.settings.allow_import_from_derivation, value)
    }),
    ("allowed-uris", Kind::Other, |draft, value| {
        draft.allowed_uris = words(value);
        true
    }),
    // ours: Nix 2.34 has no such setting
    ("eval-cores", Kind::Number, |draft, value| {
        let cores = value.parse().ok().filter(|cores| *cores <= THREADS_MAX);
        draft.eval_cores = cores.unwrap_or(draft.eval_cores);
        cores.is_some()
    }),
    ("eval-system", Kind::Other, |draft, value| {
        draft.eval_system = Some(value.to_owned()).filter(|system| !system.is_empty());
        true
    }),
    ("experimental-features", Kind::Other, |draft, value| {
        features(draft, value);
        true
    }),
    ("extra-allowed-uris", Kind::Other, |draft, value| {
        draft.allowed_uris.extend(words(value));
        true
    }),
    ("extra-experimental-features", Kind::Other, |draft, value| {
        features(draft, value);
        true
    }),
    ("flake-registry", Kind::Other, |draft, value| {
        draft.flake_registry = Some(value.to_owned());
        true
    }),
    ("lint-absolute-path-literals", Kind::Lint, |draft, value| {
        lint(&mut draft.settings.parse.lint_absolute_path_literals, value)
    }),
    ("lint-short-path-literals", Kind::Lint, |draft, value| {
        lint(&mut draft.settings.parse.lint_short_path_literals, value)
    }),
    ("lint-url-literals", Kind::Lint, |draft, value| {
        lint(&mut draft.settings.parse.lint_url_literals, value)
    }),
    ("max-call-depth", Kind::Number, |draft, value| {
        let depth = value.parse().ok();
        draft.settings.max_call_depth = depth.unwrap_or(draft.settings.max_call_depth);
        depth.is_some()
    }),
    ("pure-eval", Kind::Boolean, |draft, value| {
        purity(draft, value, Purity::Pure)
    }),
    ("restrict-eval", Kind::Boolean, |draft, value| {
        purity(draft, value, Purity::Restricted)
    }),
    ("show-trace", Kind::Boolean, |draft, value| {
        boolean(&mut draft.settings.show_trace, value)
    }),
    ("system", Kind::Other, |draft, value| {
        draft.settings.current_system = Some(value.to_owned());
        true
    }),
    ("trace-verbose", Kind::Boolean, |draft, value| {
        boolean(&mut draft.settings.trace_verbose, value)
    }),
    ("use-registries", Kind::Boolean, |draft, value| {
        boolean(&mut draft.settings.use_registries, value)
    }),
];

/// What a setting takes, for the words about a value it does not take.
#[derive(Clone, Copy)]
enum Kind {
    Boolean,
    Lint,
    Number,
    Other,
}

/// Works out what named settings mean. `nix-path` has been worked into the search path before: see [`search_paths`].
#[must_use]
pub fn configure(
    machine: &Machine,
    options: &[(String, String)],
    search_path: &[(String, String)],
) -> Configuration {
    let mut draft = Draft {
        settings: Settings {
            current_system: Some(machine.system.clone()),
            current_time: machine.seconds,
            nix_path: search_path.to_vec(),
            ..Settings::default()
        },
        eval_system: None,
        allowed_uris: Vec::new(),
        eval_cores: 1,
        flake_registry: None,
        warnings: Vec::new(),
    };
    for (name, value) in options {
        draft.set(name, value);
    }
    let Draft {
        mut settings,
        eval_system,
        allowed_uris,
        eval_cores,
        flake_registry,
        warnings,
    } = draft;
    settings.current_system = eval_system.or(settings.current_system);
    let uris = match settings.purity {
        Purity::Restricted => UriRules::Below(allowed_uris),
        Purity::Impure | Purity::Pure => UriRules::All,
    };
    Configuration {
        settings,
        files: AccessRules::All,
        uris,
        flake_registry,
        threads: NonZero::new(if eval_cores == 0 {
            machine.cores
        } else {
            eval_cores
        })
        .unwrap_or(NonZero::<usize>::MIN),
        warnings,
    }
}

impl Configuration {
    /// These places, with the registry that was configured.
    #[must_use]
    pub fn trees(&self, places: &TreePlaces) -> TreePlaces {
        match &self.flake_registry {
            Some(place) => places.clone().with_global(place),
            None => places.clone(),
        }
    }

    /// The same for an evaluation whose relative paths start from `base_dir`, with what may be read there.
    #[must_use]
    pub fn based_at(mut self, base_dir: &str, home: Option<String>) -> Self {
        let settings = &mut self.settings;
        base_dir.clone_into(&mut settings.base_dir);
        settings.home = home;
        self.files = match settings.purity {
            Purity::Impure => AccessRules::All,
            Purity::Restricted => {
                let allowed = settings
                    .nix_path
                    .iter()
                    .map(|(_, path)| absolute(base_dir, path).into_bytes());
                AccessRules::Below(allowed.collect(), "in restricted mode")
            }
            Purity::Pure => {
                AccessRules::Below(Vec::new(), "in pure evaluation mode (use '--impure' to override)")
            }
        };
        self
    }
}

impl Draft {
    fn set(&mut self, name: &str, value: &str) {
        let Some((_, kind, set)) = SETTINGS.iter().find(|(known, ..)| *known == name) else {
            if !names::is_known(name) {
                self.warnings.push(format!("warning: unknown setting '{name}'"));
            }
            return;
        };
        if set(self, value) {
            return;
        }
        self.warnings.push(match kind {
            Kind::Boolean => format!("warning: Boolean setting '{name}' has invalid value '{value}'"),
            Kind::Lint => format!(
                "warning: option '{name}' has invalid value '{value}' (expected 'ignore', 'warn', or 'fatal')"
            ),
            Kind::Number | Kind::Other => format!("warning: setting '{name}' has invalid value '{value}'"),
        });
    }
}

fn boolean(setting: &mut bool, value: &str) -> bool {
    *setting = match value {
        "true" | "yes" | "1" => true,
        "false" | "no" | "0" => false,
        _ => return false,
    };
    true
}

/// The stricter of both modes holds where both are on.
fn purity(draft: &mut Draft, value: &str, mode: Purity) -> bool {
    let mut on = false;
    if !boolean(&mut on, value) {
        return false;
    }
    let purity = &mut draft.settings.purity;
    if on && *purity != Purity::Pure {
        *purity = mode;
    } else if !on && *purity == mode {
        *purity = Purity::Impure;
    }
    true
}

fn lint(setting: &mut LintLevel, value: &str) -> bool {
    *setting = match value {
        "ignore" => LintLevel::Ignore,
        "warn" => LintLevel::Warn,
        "fatal" => LintLevel::Fatal,
        _ => return false,
    };
    true
}

fn features(draft: &mut Draft, value: &str) {
    let settings = &mut draft.settings;
    for name in value.split_whitespace() {
        match name {
            "pipe-operators" => settings.parse.pipe_operators = true,
            "flakes" => settings.features.flakes = true,
            "fetch-tree" => settings.features.fetch_tree = true,
            "fetch-closure" => settings.features.fetch_closure = true,
            "dynamic-derivations" => settings.features.dynamic_derivations = true,
            "ca-derivations" => settings.features.ca_derivations = true,
            "impure-derivations" => settings.features.impure_derivations = true,
            "parse-toml-timestamps" => settings.features.parse_toml_timestamps = true,
            "blake3-hashes" => settings.features.blake3_hashes = true,
            other if names::is_feature(other) => {}
            other => draft
                .warnings
                .push(format!("warning: unknown experimental feature '{other}'")),
        }
    }
}

fn words(value: &str) -> Vec<String> {
    value.split_whitespace().map(ToOwned::to_owned).collect()
}

/// The search path of a command: what is `given` on its line (`-I`), then that of the variable `NIX_PATH`, or of the
/// setting `nix-path` in its place, then that of `extra-nix-path`.
#[must_use]
pub fn search_paths(given: &[String], options: &[(String, String)], variable: &str) -> Vec<(String, String)> {
    let entries = |value: &String| value.split_whitespace().map(search_entry).collect::<Vec<_>>();
    let named = |wanted: &'static str| options.iter().filter(move |(name, _)| name == wanted);
    let set = named("nix-path").next_back().map(|(_, value)| entries(value));
    let extra = named("extra-nix-path").flat_map(|(_, value)| entries(value));
    let mut paths: Vec<_> = given.iter().map(|entry| search_entry(entry)).collect();
    paths.extend(set.unwrap_or_else(|| search_path(variable)));
    paths.extend(extra);
    paths
}

/// Entries of a search path as `NIX_PATH` has it: colons inside URLs separate nothing.
#[must_use]
pub fn search_path(text: &str) -> Vec<(String, String)> {
    let mut entries = Vec::new();
    let mut start = 0;
    for (index, _) in text.match_indices(':') {
        if !text[index + 1..].starts_with("//") {
            entries.push(&text[start..index]);
            start = index + 1;
        }
    }
    entries.push(&text[start..]);
    let named = entries.into_iter().filter(|entry| !entry.is_empty());
    named.map(search_entry).collect()
}

/// A search path entry, `PATH` or `PREFIX=PATH`: its prefix and its path.
#[must_use]
pub fn search_entry(entry: &str) -> (String, String) {
    match entry.split_once('=') {
        Some((prefix, path)) => (prefix.to_owned(), path.to_owned()),
        None => (String::new(), entry.to_owned()),
    }
}

/// Settings as a file such as `nix.conf` has them, or the variable `NIX_CONFIG`.
///
/// # Errors
/// The first line that sets nothing.
pub fn parse_config(text: &str) -> Result<Vec<(String, String)>, ConfigLineError> {
    let mut settings = Vec::new();
    for line in text.lines() {
        let meant = line.split('#').next().unwrap_or_default().trim();
        if meant.is_empty() {
            continue;
        }
        let (name, value) = meant.split_once('=').ok_or_else(|| ConfigLineError {
            line: line.to_owned(),
        })?;
        settings.push((name.trim().to_owned(), value.trim().to_owned()));
    }
    Ok(settings)
}

/// A line of a configuration that sets nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in configuration line '{line}'")]
pub struct ConfigLineError {
    line: String,
}

impl ConfigLineError {
    /// The class of the failure.
    #[must_use]
    pub fn code(&self) -> igloo_status::Code {
        igloo_status::Code::InvalidArgument
    }
}

/// The path from the root, `.` and `..` resolved in words: links are not followed.
#[must_use]
pub fn absolute(base_dir: &str, path: &str) -> String {
    let whole = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("{base_dir}/{path}")
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests;
