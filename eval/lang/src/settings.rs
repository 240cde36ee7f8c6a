//! What the caller decides about an evaluation. Nothing here is read from the environment.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What a lint does when it finds something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LintLevel {
    /// Nothing.
    #[default]
    Ignore,
    /// A warning.
    Warn,
    /// An error.
    Fatal,
}

/// What the parser accepts.
#[derive(Clone, Debug, Default)]
pub struct ParseSettings {
    /// The experimental feature `pipe-operators`.
    pub pipe_operators: bool,
    /// `lint-url-literals`.
    pub lint_url_literals: LintLevel,
    /// `lint-short-path-literals`.
    pub lint_short_path_literals: LintLevel,
    /// `lint-absolute-path-literals`.
    pub lint_absolute_path_literals: LintLevel,
}

/// How much of the world an expression may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Purity {
    /// Everything.
    #[default]
    Impure,
    /// Files below allowed paths; no environment (`restrict-eval`).
    Restricted,
    /// Only the store and what is locked (`pure-eval`).
    Pure,
}

/// Experimental features that change what builtins exist or accept.
#[derive(Clone, Copy, Debug, Default)]
pub struct Features {
    /// `flakes`.
    pub flakes: bool,
    /// `fetch-tree`.
    pub fetch_tree: bool,
    /// `fetch-closure`.
    pub fetch_closure: bool,
    /// `dynamic-derivations`.
    pub dynamic_derivations: bool,
    /// `ca-derivations`.
    pub ca_derivations: bool,
    /// `impure-derivations`.
    pub impure_derivations: bool,
    /// `parse-toml-timestamps`.
    pub parse_toml_timestamps: bool,
    /// `blake3-hashes`.
    pub blake3_hashes: bool,
}

/// Everything the caller decides.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The parser's part.
    pub parse: ParseSettings,
    /// What may be seen.
    pub purity: Purity,
    /// Experimental features.
    pub features: Features,
    /// Calls that may be open at once; one more is a stack overflow error.
    pub max_call_depth: u32,
    /// Calls that may be made in all, over the whole evaluation; one more is an error. Every loop makes calls.
    pub max_steps: u64,
    /// Bytes that values may take; the first call after that is an error. A single value may be larger by as much as one
    /// builtin makes at once (twice, for what doubles).
    pub max_heap_bytes: usize,
    /// Bytes of stack reserved for the evaluator; committed as used. Exhausting it is an error, not a crash.
    pub stack_bytes: usize,
    /// `builtins.currentSystem`; `None` leaves it out, as pure evaluation does.
    pub current_system: Option<String>,
    /// `builtins.currentTime`, in seconds since 1970.
    pub current_time: Option<i64>,
    /// `builtins.nixVersion`.
    pub nix_version: String,
    /// `builtins.nixPath`: prefix and path, in order of search.
    pub nix_path: Vec<(String, String)>,
    /// Directory that relative paths outside files start from (search path entries, `-E`); absolute.
    pub base_dir: String,
    /// What `~` in a path literal stands for.
    pub home: Option<String>,
    /// Whether errors carry a frame for every call (`--show-trace`).
    pub show_trace: bool,
    /// Whether `traceVerbose` prints.
    pub trace_verbose: bool,
    /// Whether `warn` ends the evaluation.
    pub abort_on_warn: bool,
    /// Whether names of flakes may be looked up in registries; never in pure evaluation.
    pub use_registries: bool,
    /// Whether builtins may ask for builds.
    pub allow_import_from_derivation: bool,
    /// Ends the evaluation with an error of kind `Interrupted` while it is true. Looked at on every call, so that a signal
    /// handler or another thread can stop an evaluation; who set it clears it.
    pub interrupt: Arc<AtomicBool>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            parse: ParseSettings::default(),
            purity: Purity::Impure,
            features: Features::default(),
            max_call_depth: 10_000,
            max_steps: u64::MAX,
            max_heap_bytes: usize::MAX,
            stack_bytes: 1 << 30,
            current_system: None,
            current_time: None,
            nix_version: "2.34.8".to_owned(),
            nix_path: Vec::new(),
            base_dir: "/".to_owned(),
            home: None,
            show_trace: false,
            trace_verbose: false,
            abort_on_warn: false,
            use_registries: true,
            allow_import_from_derivation: true,
            interrupt: Arc::default(),
        }
    }
}
