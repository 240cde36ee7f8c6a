//! `igloo nix-build`: builds with the flags, links, output and exit codes of Nix's command of that name.
//!
//! Also reached through a link called `nix-build`. Flags are parsed as Nix 2.34 does it (recorded): `-QA x` is `-Q -A x`,
//! `-j4` is `-j 4`; a setting that is a switch is `--NAME` and `--no-NAME`, any other is `--NAME VALUE`.

use igloo_evaluator::Argument;

use super::build::{Wish, fulfil};
use super::say;
use crate::config::settings::find;
use crate::config::value::Kind;
use crate::context::Context;
use crate::failure::{EXIT_FAILED, Failure};
use crate::progress::model::Logs;
use crate::stop::Stop;

/// What was asked for, on the way.
struct Options {
    wish: Wish,
    quiet: bool,
    verbosity: u8,
    help: bool,
    version: bool,
}

/// What a flag does with the words after it.
enum Effect {
    Alone(fn(&mut Options)),
    One(fn(&mut Options, String)),
    Two(fn(&mut Options, String, String)),
    /// Refused, for this reason.
    Refused(&'static str),
}

const FLAGS: &[(&[&str], Effect)] = &[
    (&["--help"], Effect::Alone(|options| options.help = true)),
    (&["--version"], Effect::Alone(|options| options.version = true)),
    (
        &["--attr", "-A"],
        Effect::One(|options, path| options.wish.attributes.push(path)),
    ),
    (
        &["--expr", "-E"],
        Effect::Alone(|options| options.wish.expressions = true),
    ),
    (
        &["--arg"],
        Effect::Two(|options, name, text| {
            options
                .wish
                .arguments
                .push(Argument::Expression(name, text.into()));
        }),
    ),
    (
        &["--argstr"],
        Effect::Two(|options, name, text| options.wish.arguments.push(Argument::Text(name, text))),
    ),
    (
        &["--include", "-I"],
        Effect::One(|options, entry| options.wish.search.push(entry)),
    ),
    (
        &["--option"],
        Effect::Two(|options, name, value| options.wish.config.set_as_nix(&name, &value)),
    ),
    (
        &["--out-link", "-o"],
        Effect::One(|options, name| options.wish.link = Some(name)),
    ),
    (
        &["--no-out-link", "--no-link"],
        Effect::Alone(|options| options.wish.link = None),
    ),
    (
        &["--dry-run"],
        Effect::Alone(|options| options.wish.dry_run = true),
    ),
    (&["--check"], Effect::Alone(|options| options.wish.check = true)),
    (
        &["-k"],
        Effect::Alone(|options| options.wish.config.keep_going = true),
    ),
    (
        &["-K"],
        Effect::Alone(|options| options.wish.config.keep_failed = true),
    ),
    (
        &["-j"],
        Effect::One(|options, count| options.wish.config.set_as_nix("max-jobs", &count)),
    ),
    (
        &["--no-build-output", "-Q"],
        Effect::Alone(|options| options.wish.logs = Logs::None),
    ),
    (
        &["--verbose", "-v"],
        Effect::Alone(|options| options.verbosity += 1),
    ),
    (&["--debug"], Effect::Alone(|options| options.verbosity = 4)),
    (&["--quiet"], Effect::Alone(|options| options.quiet = true)),
    (
        &["--repair"],
        Effect::Refused(
            "igloo's store is checked by `igloo store verify`; what is damaged is built or added again",
        ),
    ),
    // what these ask for is how it is anyway, or is about files that Nix no longer makes
    (
        &[
            "--",
            "--add-drv-link",
            "--fallback",
            "--impure",
            "--read-write-mode",
            "--readonly-mode",
            "--no-keep-going",
        ],
        Effect::Alone(|_| ()),
    ),
    (
        &["--drv-link", "--eval-store", "--exclude", "--log-format"],
        Effect::One(|_, _| ()),
    ),
];

/// Runs with the words after the command's name.
pub async fn run(mut context: Context, words: Vec<String>, stop: Stop) -> Result<(), Failure> {
    let mut options = options(&context);
    parse(&mut options, words)?;
    if options.version {
        return say(format_args!("nix-build (igloo) {}", env!("CARGO_PKG_VERSION")));
    }
    if options.help {
        return help();
    }
    context.quiet |= options.quiet;
    context.verbosity += options.verbosity;
    let store = options.wish.config.store.clone();
    if store != context.config.store {
        context.use_store(store.as_deref())?;
    }
    fulfil(&context, &options.wish, stop).await
}

fn help() -> Result<(), Failure> {
    say("nix-build (igloo) [FLAGS] [FILES or DERIVATIONS]: builds as Nix's nix-build does\n\nflags:")?;
    for (names, effect) in FLAGS {
        let words = match effect {
            Effect::Alone(_) | Effect::Refused(_) => "",
            Effect::One(_) => " VALUE",
            Effect::Two(_) => " NAME VALUE",
        };
        say(format_args!("  {}{words}", names.join(", ")))?;
    }
    say("  --NAME, --no-NAME, --NAME VALUE for Nix's settings (docs/semantics.md)")
}

fn options(context: &Context) -> Options {
    Options {
        wish: Wish {
            inputs: Vec::new(),
            expressions: false,
            attributes: Vec::new(),
            arguments: Vec::new(),
            search: Vec::new(),
            config: context.config.clone(),
            check: false,
            dry_run: false,
            link: Some("result".into()),
            json: false,
            logs: Logs::Raw,
            is_nix_build: true,
        },
        quiet: false,
        verbosity: 0,
        help: false,
        version: false,
    }
}

fn parse(options: &mut Options, words: Vec<String>) -> Result<(), Failure> {
    let words: Vec<String> = words.into_iter().flat_map(expanded).collect();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let mut next = || {
            words
                .next()
                .ok_or_else(|| wrong(format!("flag '{word}' requires an argument")))
        };
        match FLAGS.iter().find(|(names, _)| names.contains(&word.as_str())) {
            Some((_, Effect::Alone(act))) => act(options),
            Some((_, Effect::One(act))) => act(options, next()?),
            Some((_, Effect::Two(act))) => act(options, next()?, next()?),
            Some((_, Effect::Refused(reason))) => {
                return Err(wrong(format!("'{word}' is not supported")).with_hint(*reason));
            }
            None if word == "-" || !word.starts_with('-') => options.wish.inputs.push(word),
            None => setting(options, &word, &mut next)?,
        }
    }
    Ok(())
}

/// `--NAME`, `--no-NAME` or `--NAME VALUE` of a setting.
fn setting(
    options: &mut Options,
    word: &str,
    next: &mut dyn FnMut() -> Result<String, Failure>,
) -> Result<(), Failure> {
    let unknown =
        || wrong(format!("unrecognised flag '{word}'")).with_hint("`igloo nix-build --help` lists all flags");
    let name = word.strip_prefix("--").ok_or_else(unknown)?;
    let is_switch = |name: &str| find(name).is_some_and(|setting| setting.kind() == Kind::Switch);
    let (name, value) = match name.strip_prefix("no-") {
        _ if is_switch(name) => (name, "true".to_string()),
        Some(name) if is_switch(name) => (name, "false".to_string()),
        _ if find(name.strip_prefix("extra-").unwrap_or(name)).is_some() => (name, next()?),
        _ => return Err(unknown()),
    };
    let value = crate::config::value::Value::Text(value);
    let set = options.wish.config.set(name, &value);
    set.map_err(|error| wrong(error.to_string()))
}

/// `-QA` is `-Q -A`, `-j4` is `-j 4`.
fn expanded(word: String) -> Vec<String> {
    let mut chars = word.chars();
    let is_compound = chars.next() == Some('-')
        && chars.next().is_some_and(|char| char.is_ascii_alphabetic())
        && chars.next().is_some();
    if !is_compound {
        return vec![word];
    }
    let mut words = Vec::new();
    for (index, char) in word.char_indices().skip(1) {
        if !char.is_ascii_alphabetic() {
            words.push(word[index..].to_string());
            break;
        }
        words.push(format!("-{char}"));
    }
    words
}

/// Nix answers wrong usage with 1.
fn wrong(message: String) -> Failure {
    Failure::usage(message).with_exit(EXIT_FAILED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::CommonArguments;

    fn parsed(words: &[&str]) -> Result<Options, String> {
        let common = CommonArguments {
            config: Some("/dev/null".into()),
            store: Some("memory:".into()),
            ..CommonArguments::default()
        };
        let context = Context::new(&common, "nix-build").unwrap();
        let mut options = options(&context);
        parse(
            &mut options,
            words.iter().map(|word| (*word).to_string()).collect(),
        )
        .map(|()| options)
        .map_err(|failure| failure.message())
    }

    #[test]
    fn flags_are_nix_s() {
        let options = parsed(&[
            "x.nix",
            "-QA",
            "app",
            "-j4",
            "--no-substitute",
            "--keep-going",
            "--timeout",
            "3",
            "--extra-substituters",
            "file:///x",
            "--option",
            "cores",
            "5",
            "--arg",
            "a",
            "1",
            "-o",
            "out",
            "--show-trace",
        ])
        .unwrap();
        let wish = options.wish;
        assert_eq!(wish.inputs, ["x.nix"]);
        assert_eq!(wish.attributes, ["app"]);
        assert_eq!((wish.config.max_jobs, wish.config.cores), (4, 5));
        assert!(!wish.config.substitute && wish.config.keep_going);
        assert_eq!(wish.config.timeout, Some(std::time::Duration::from_secs(3)));
        assert_eq!(wish.config.substituters.last().unwrap(), "file:///x");
        assert_eq!(wish.link.as_deref(), Some("out"));
        assert_eq!(wish.logs, Logs::None);
        assert!(
            wish.config
                .evaluation
                .contains(&("show-trace".into(), "true".into()))
        );
    }

    #[test]
    fn wrong_flags_are_named() {
        for (words, part) in [
            (&["--frobnicate"][..], "unrecognised flag '--frobnicate'"),
            (&["-Alib"], "unrecognised flag '-i'"), // -A takes -l
            (&["--arg", "x"], "flag '--arg' requires an argument"),
            (&["--timeout", "abc"], "'timeout' should be a whole number"),
            (&["--max-jobs=4"], "unrecognised flag '--max-jobs=4'"),
            (&["--repair"], "igloo store verify"),
        ] {
            let message = parsed(words).err().unwrap();
            assert!(message.contains(part), "{message}");
        }
    }
}
