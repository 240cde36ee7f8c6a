//! The table of all settings: igloo's own, and Nix's with what they do here.

use std::path::PathBuf;

use super::Config;
use super::value::{Kind, Value, seconds};
use crate::args::NetworkChoice;
use crate::failure::Failure;
use crate::suggest::nearest;

/// One name.
#[derive(Debug)]
pub struct Setting {
    /// How it is called.
    pub name: &'static str,
    /// What it does.
    pub act: Act,
}

/// What a setting does.
#[derive(Debug)]
pub enum Act {
    /// A switch.
    Switch(fn(&mut Config) -> &mut bool),
    /// A number; what it must be when it cannot be kept.
    Number(fn(&mut Config, u64) -> Result<(), &'static str>),
    /// A text; what it must be when it cannot be kept.
    Text(fn(&mut Config, &str) -> Result<(), &'static str>),
    /// A list.
    Words(fn(&mut Config) -> &mut Vec<String>),
    /// The evaluator knows what to do.
    Evaluation(Kind),
    /// Nix has it; here it does nothing, for this reason.
    Nothing(Kind, &'static str),
}

impl Setting {
    /// What it can hold.
    pub fn kind(&self) -> Kind {
        match self.act {
            Act::Switch(_) => Kind::Switch,
            Act::Number(_) => Kind::Number,
            Act::Text(_) => Kind::Text,
            Act::Words(_) => Kind::Words,
            Act::Evaluation(kind) | Act::Nothing(kind, _) => kind,
        }
    }
}

/// Why a setting cannot be set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// Nobody knows it.
    #[error("unknown setting '{name}'")]
    Unknown {
        /// What was asked for.
        name: String,
        /// What may have been meant.
        suggestion: Option<&'static str>,
    },
    /// It cannot hold the value.
    #[error("setting '{name}' should be {expected}, but is '{value}'")]
    Value {
        /// The setting.
        name: String,
        /// What it can hold.
        expected: &'static str,
        /// What it was given.
        value: String,
    },
}

impl SettingError {
    /// Wrong usage; `place` is where it was read.
    pub fn into_failure(self, place: &str) -> Failure {
        let failure = Failure::usage(format!("{place}: {self}"));
        match self {
            Self::Unknown {
                suggestion: Some(suggestion),
                ..
            } => failure.with_hint(format!("did you mean '{suggestion}'?")),
            Self::Unknown { .. } => failure.with_hint("docs/semantics.md lists all settings"),
            Self::Value { .. } => failure,
        }
    }
}

/// The row of a name, old names included.
pub fn find(name: &str) -> Option<&'static Setting> {
    let name = ALIASES
        .iter()
        .find(|(alias, _)| *alias == name)
        .map_or(name, |(_, name)| name);
    let index = SETTINGS.binary_search_by(|setting| setting.name.cmp(name));
    index.ok().map(|index| &SETTINGS[index])
}

/// Sets one; see [`Config::set`].
pub fn set(config: &mut Config, name: &str, value: &Value) -> Result<(), SettingError> {
    let (setting, is_extra) = match (find(name), name.strip_prefix("extra-").and_then(find)) {
        (Some(setting), _) => (setting, false),
        (None, Some(setting)) if setting.kind() == Kind::Words => (setting, true),
        _ => {
            return Err(SettingError::Unknown {
                name: name.into(),
                suggestion: nearest(name, SETTINGS.iter().map(|setting| setting.name)),
            });
        }
    };
    let wrong = |expected: &'static str| SettingError::Value {
        name: name.into(),
        expected,
        value: shown(value),
    };
    let missing = || wrong(setting.kind().describe());
    match setting.act {
        Act::Switch(place) => *place(config) = value.switch().ok_or_else(missing)?,
        Act::Number(keep) => keep(config, value.number().ok_or_else(missing)?).map_err(wrong)?,
        Act::Text(keep) => keep(config, &value.text().ok_or_else(missing)?).map_err(wrong)?,
        Act::Words(place) => {
            let words = value.words().ok_or_else(missing)?;
            let list = place(config);
            if !is_extra {
                list.clear();
            }
            for word in words {
                if !list.contains(&word) {
                    list.push(word);
                }
            }
        }
        Act::Evaluation(kind) => {
            let text = value.as_nix(kind).ok_or_else(missing)?;
            config.evaluation.push((name.into(), text));
        }
        Act::Nothing(kind, why) => {
            value.as_nix(kind).ok_or_else(missing)?;
            config
                .without_effect
                .push(format!("setting '{name}' has no effect: {why}"));
        }
    }
    Ok(())
}

fn shown(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::Switch(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::Words(words) => words.join(" "),
    }
}

const fn row(name: &'static str, act: Act) -> Setting {
    Setting { name, act }
}

const fn nothing(name: &'static str, kind: Kind, why: &'static str) -> Setting {
    row(name, Act::Nothing(kind, why))
}

const FLAKES: &str = "flakes are only read by getFlake, which writes nothing";
const SEALED: &str = "every build has a machine of its own, which is as sealed as can be";
const SHELLS: &str = "igloo has no shells";
const DATABASE: &str = "igloo's store is not Nix's";
const USERS: &str = "igloo serves the user who starts it";
const COLLECTOR: &str = "nothing is collected yet";
const FETCHING: &str = "fetches look after themselves";
const LOGS: &str = "logs are always kept, compressed";
const NATIVE: &str = "foreign code is never loaded";
const LATER: &str = "igloo does not have it yet";

fn text_to(place: &mut Option<String>, text: &str) -> Result<(), &'static str> {
    *place = (!text.is_empty()).then(|| text.to_string());
    Ok(())
}

fn max_jobs(config: &mut Config, text: &str) -> Result<(), &'static str> {
    const EXPECTED: &str = "'auto' or a number from 1 to 256";
    config.max_jobs = if text == "auto" {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        u16::try_from(cores.min(256)).map_err(|_| EXPECTED)?
    } else {
        let number: u16 = text.parse().map_err(|_| EXPECTED)?;
        if !(1..=256).contains(&number) {
            return Err(EXPECTED);
        }
        number
    };
    Ok(())
}

fn network(config: &mut Config, text: &str) -> Result<(), &'static str> {
    config.network = Some(match text {
        "allow" => NetworkChoice::Allow,
        "refuse" => NetworkChoice::Refuse,
        _ => return Err("'allow' or 'refuse'"),
    });
    Ok(())
}

fn sandbox(config: &mut Config, text: &str) -> Result<(), &'static str> {
    match text {
        "true" | "relaxed" => {}
        "false" => config
            .without_effect
            .push(format!("setting 'sandbox' has no effect: {SEALED}")),
        _ => return Err("'true', 'relaxed' or 'false'"),
    }
    Ok(())
}

/// All settings, sorted by name.
pub const SETTINGS: &[Setting] = &[
    row("abort-on-warn", Act::Evaluation(Kind::Switch)),
    nothing("accept-flake-config", Kind::Switch, FLAKES),
    row("access-tokens", Act::Evaluation(Kind::Words)),
    nothing("allow-dirty", Kind::Switch, FLAKES),
    nothing("allow-dirty-locks", Kind::Switch, FLAKES),
    row("allow-import-from-derivation", Act::Evaluation(Kind::Switch)),
    nothing("allow-new-privileges", Kind::Switch, SEALED),
    nothing("allow-symlinked-store", Kind::Switch, DATABASE),
    nothing("allow-unsafe-native-code-during-evaluation", Kind::Switch, NATIVE),
    nothing("allowed-impure-host-deps", Kind::Words, SEALED),
    row("allowed-uris", Act::Evaluation(Kind::Words)),
    nothing("allowed-users", Kind::Words, USERS),
    nothing("always-allow-substitutes", Kind::Switch, LATER),
    nothing("auto-allocate-uids", Kind::Switch, SEALED),
    nothing(
        "auto-optimise-store",
        Kind::Switch,
        "the store keeps every byte once anyway",
    ),
    nothing("bash-prompt", Kind::Text, SHELLS),
    nothing("bash-prompt-prefix", Kind::Text, SHELLS),
    nothing("bash-prompt-suffix", Kind::Text, SHELLS),
    nothing("build-dir", Kind::Text, SEALED),
    nothing(
        "build-hook",
        Kind::Words,
        "igloo's builders speak gRPC (--builder)",
    ),
    nothing("build-poll-interval", Kind::Number, DATABASE),
    nothing("build-users-group", Kind::Text, SEALED),
    row(
        "builder",
        Act::Text(|config, text| text_to(&mut config.builder, text)),
    ),
    nothing("builders", Kind::Text, "igloo's builders speak gRPC (--builder)"),
    nothing(
        "builders-use-substitutes",
        Kind::Switch,
        "builders read inputs as they need them",
    ),
    nothing("commit-lock-file-summary", Kind::Text, FLAKES),
    nothing("compress-build-log", Kind::Switch, LOGS),
    nothing("connect-timeout", Kind::Number, FETCHING),
    row(
        "coordinator",
        Act::Text(|config, text| text_to(&mut config.coordinator, text)),
    ),
    row(
        "cores",
        Act::Number(|config, number| {
            config.cores = match u32::try_from(number) {
                Ok(0) => super::CORES, // Nix: as many as there are; a machine has a fixed number
                Ok(cores) if cores <= 256 => cores,
                _ => return Err("a number up to 256"),
            };
            Ok(())
        }),
    ),
    nothing("debugger-on-trace", Kind::Switch, LATER),
    nothing("debugger-on-warn", Kind::Switch, LATER),
    nothing("diff-hook", Kind::Text, LATER),
    nothing("download-attempts", Kind::Number, FETCHING),
    nothing("download-buffer-size", Kind::Number, FETCHING),
    nothing("download-speed", Kind::Number, FETCHING),
    nothing(
        "eval-attrset-update-layer-rhs-threshold",
        Kind::Number,
        "igloo's sets have other layers",
    ),
    nothing("eval-cache", Kind::Switch, FLAKES),
    row("eval-cores", Act::Evaluation(Kind::Number)),
    nothing("eval-profile-file", Kind::Text, LATER),
    nothing("eval-profiler", Kind::Text, LATER),
    nothing("eval-profiler-frequency", Kind::Number, LATER),
    row("eval-system", Act::Evaluation(Kind::Text)),
    row(
        "evaluator",
        Act::Text(|config, text| text_to(&mut config.evaluator, text)),
    ),
    row("experimental-features", Act::Evaluation(Kind::Words)),
    nothing("external-builders", Kind::Words, LATER),
    row("extra-experimental-features", Act::Evaluation(Kind::Words)),
    nothing("extra-platforms", Kind::Words, "builders say what they can build"),
    nothing("fallback", Kind::Switch, "what cannot be fetched is built anyway"),
    nothing("filter-syscalls", Kind::Switch, SEALED),
    row("flake-registry", Act::Evaluation(Kind::Text)),
    nothing("fsync-metadata", Kind::Switch, DATABASE),
    nothing("fsync-store-paths", Kind::Switch, DATABASE),
    nothing("gc-reserved-space", Kind::Number, COLLECTOR),
    nothing("hashed-mirrors", Kind::Words, LATER),
    nothing("http-connections", Kind::Number, FETCHING),
    nothing("http2", Kind::Switch, FETCHING),
    nothing("id-count", Kind::Number, SEALED),
    nothing("ignore-try", Kind::Switch, LATER),
    nothing("ignored-acls", Kind::Words, DATABASE),
    row(
        "image",
        Act::Text(|config, text| {
            config.image = Some(PathBuf::from(text));
            Ok(())
        }),
    ),
    nothing("impersonate-linux-26", Kind::Switch, SEALED),
    nothing("impure-env", Kind::Words, LATER),
    nothing("json-log-path", Kind::Text, LATER),
    nothing("keep-build-log", Kind::Switch, LOGS),
    nothing("keep-derivations", Kind::Switch, COLLECTOR),
    nothing("keep-env-derivations", Kind::Switch, COLLECTOR),
    row("keep-failed", Act::Switch(|config| &mut config.keep_failed)),
    row("keep-going", Act::Switch(|config| &mut config.keep_going)),
    nothing("keep-outputs", Kind::Switch, COLLECTOR),
    row("lint-absolute-path-literals", Act::Evaluation(Kind::Text)),
    row("lint-short-path-literals", Act::Evaluation(Kind::Text)),
    row("lint-url-literals", Act::Evaluation(Kind::Text)),
    row(
        "log-lines",
        Act::Number(|config, number| {
            config.log_lines = usize::try_from(number).map_err(|_| "a smaller number")?;
            Ok(())
        }),
    ),
    row(
        "max-build-log-size",
        Act::Number(|config, number| {
            config.max_log_bytes = (number > 0).then_some(number);
            Ok(())
        }),
    ),
    row("max-call-depth", Act::Evaluation(Kind::Number)),
    nothing("max-free", Kind::Number, COLLECTOR),
    row("max-jobs", Act::Text(max_jobs)),
    row(
        "max-silent-time",
        Act::Number(|config, number| {
            config.max_silent_time = seconds(number);
            Ok(())
        }),
    ),
    nothing("max-substitution-jobs", Kind::Number, FETCHING),
    row(
        "memory",
        Act::Number(|config, number| {
            config.memory_mib = match u32::try_from(number) {
                Ok(mib) if mib >= 128 => mib,
                _ => return Err("a number of MiB from 128 on"),
            };
            Ok(())
        }),
    ),
    nothing("min-free", Kind::Number, COLLECTOR),
    nothing("min-free-check-interval", Kind::Number, COLLECTOR),
    nothing("nar-buffer-size", Kind::Number, DATABASE),
    nothing("narinfo-cache-meta-ttl", Kind::Number, FETCHING),
    nothing("narinfo-cache-negative-ttl", Kind::Number, FETCHING),
    nothing("narinfo-cache-positive-ttl", Kind::Number, FETCHING),
    row("netrc-file", Act::Evaluation(Kind::Text)),
    row("network", Act::Text(network)),
    row("nix-path", Act::Evaluation(Kind::Words)),
    nothing("nix-shell-always-looks-for-shell-nix", Kind::Switch, SHELLS),
    nothing(
        "nix-shell-shebang-arguments-relative-to-script",
        Kind::Switch,
        SHELLS,
    ),
    nothing("plugin-files", Kind::Words, NATIVE),
    nothing("post-build-hook", Kind::Text, LATER),
    nothing("pre-build-hook", Kind::Text, SEALED),
    nothing("preallocate-contents", Kind::Switch, DATABASE),
    nothing("print-missing", Kind::Switch, "the display says what remains"),
    row("pure-eval", Act::Evaluation(Kind::Switch)),
    nothing("require-drop-supplementary-groups", Kind::Switch, SEALED),
    row(
        "require-sigs",
        Act::Switch(|config| &mut config.require_signatures),
    ),
    row("restrict-eval", Act::Evaluation(Kind::Switch)),
    nothing("run-diff-hook", Kind::Switch, LATER),
    row("sandbox", Act::Text(sandbox)),
    nothing("sandbox-build-dir", Kind::Text, SEALED),
    nothing("sandbox-dev-shm-size", Kind::Text, SEALED),
    nothing("sandbox-fallback", Kind::Switch, SEALED),
    nothing("sandbox-paths", Kind::Words, SEALED),
    row(
        "secret-key-files",
        Act::Words(|config| &mut config.secret_key_files),
    ),
    row("show-trace", Act::Evaluation(Kind::Switch)),
    nothing("ssl-cert-file", Kind::Text, FETCHING),
    nothing("stalled-download-timeout", Kind::Number, FETCHING),
    nothing("start-id", Kind::Number, SEALED),
    row(
        "store",
        Act::Text(|config, text| text_to(&mut config.store, text)),
    ),
    row("substitute", Act::Switch(|config| &mut config.substitute)),
    row("substituters", Act::Words(|config| &mut config.substituters)),
    nothing("sync-before-registering", Kind::Switch, "that is how it is"),
    row("system", Act::Evaluation(Kind::Text)),
    nothing("system-features", Kind::Words, "builders say what they can build"),
    row("tarball-ttl", Act::Evaluation(Kind::Number)),
    row(
        "timeout",
        Act::Number(|config, number| {
            config.timeout = seconds(number);
            Ok(())
        }),
    ),
    nothing("trace-function-calls", Kind::Switch, LATER),
    row("trace-import-from-derivation", Act::Evaluation(Kind::Switch)),
    row("trace-verbose", Act::Evaluation(Kind::Switch)),
    nothing("trust-tarballs-from-git-forges", Kind::Switch, FLAKES),
    row(
        "trusted-public-keys",
        Act::Words(|config| &mut config.trusted_public_keys),
    ),
    nothing("trusted-substituters", Kind::Words, USERS),
    nothing("trusted-users", Kind::Words, USERS),
    nothing("upgrade-nix-store-path-url", Kind::Text, DATABASE),
    nothing("use-case-hack", Kind::Switch, DATABASE),
    nothing("use-cgroups", Kind::Switch, SEALED),
    row("use-registries", Act::Evaluation(Kind::Switch)),
    nothing("use-sqlite-wal", Kind::Switch, DATABASE),
    nothing("use-xdg-base-directories", Kind::Switch, "igloo always uses them"),
    nothing("user-agent-suffix", Kind::Text, FETCHING),
    nothing("warn-dirty", Kind::Switch, FLAKES),
    nothing("warn-large-path-threshold", Kind::Number, LATER),
    nothing("warn-short-path-literals", Kind::Switch, LATER),
];

/// Old names of Nix's settings (2.34, `nix config show --json`).
const ALIASES: &[(&str, &str)] = &[
    ("binary-cache-public-keys", "trusted-public-keys"),
    ("binary-caches", "substituters"),
    ("binary-caches-parallel-connections", "http-connections"),
    ("build-chroot-dirs", "sandbox-paths"),
    ("build-compress-log", "compress-build-log"),
    ("build-cores", "cores"),
    ("build-fallback", "fallback"),
    ("build-impersonate-linux-26", "impersonate-linux-26"),
    ("build-keep-log", "keep-build-log"),
    ("build-max-jobs", "max-jobs"),
    ("build-max-log-size", "max-build-log-size"),
    ("build-max-silent-time", "max-silent-time"),
    ("build-sandbox-paths", "sandbox-paths"),
    ("build-timeout", "timeout"),
    ("build-use-chroot", "sandbox"),
    ("build-use-sandbox", "sandbox"),
    ("build-use-substitutes", "substitute"),
    ("commit-lockfile-summary", "commit-lock-file-summary"),
    ("env-keep-derivations", "keep-env-derivations"),
    ("gc-keep-derivations", "keep-derivations"),
    ("gc-keep-outputs", "keep-outputs"),
    ("substitution-max-jobs", "max-substitution-jobs"),
    ("trusted-binary-caches", "trusted-substituters"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::Text(text.into())
    }

    #[test]
    fn names_are_sorted_and_known_once() {
        assert!(SETTINGS.is_sorted_by(|a, b| a.name < b.name));
        assert!(ALIASES.is_sorted_by(|a, b| a.0 < b.0));
        for (alias, name) in ALIASES {
            assert!(
                find(alias).is_some_and(|setting| setting.name == *name),
                "{alias}"
            );
        }
    }

    #[test]
    fn lists_are_replaced_or_added_to() {
        let mut config = Config::default();
        config.set("substituters", &text("a b")).unwrap();
        config.set("extra-substituters", &text("b c")).unwrap();
        config.set("extra-binary-caches", &text("d")).unwrap();
        assert_eq!(config.substituters, ["a", "b", "c", "d"]);
        assert!(config.set("extra-timeout", &text("3")).is_err());
    }

    #[test]
    fn what_cannot_be_meant_is_named_with_the_way_out() {
        let mut config = Config::default();
        let unknown = config.set("substitutors", &text("x")).unwrap_err();
        let message = unknown.into_failure("--option").message();
        assert_eq!(
            message,
            "error: --option: unknown setting 'substitutors'\nhint: did you mean 'substituters'?\n"
        );
        for (name, value, part) in [
            ("timeout", "soon", "a whole number"),
            ("keep-going", "maybe", "`true` or `false`"),
            ("max-jobs", "0", "'auto' or a number"),
            ("memory", "1", "MiB"),
            ("sandbox", "no", "'relaxed'"),
        ] {
            let error = config.set(name, &text(value)).unwrap_err().to_string();
            assert!(
                error.contains(name) && error.contains(part) && error.contains(value),
                "{error}"
            );
        }
    }
}
