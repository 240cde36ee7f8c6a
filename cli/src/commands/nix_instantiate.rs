//! `igloo nix-instantiate`: evaluation with the flags, output and exit codes of Nix's command of that name.
//!
//! Also reached through a link called `nix-instantiate`. Flags are parsed as Nix does it: a table, and whatever else starts
//! with two dashes is a setting with a value.

use igloo_eval::Format;
use igloo_evaluator::{Argument, EvaluateEvent, Goal, Output};
use igloo_store_io::Writes;
use nix_compat::store_path::StoreDir;

use super::{say, say_bytes};
use crate::context::Context;
use crate::evaluation::{Request, evaluate, parse};
use crate::failure::{EXIT_FAILED, Failure};
use crate::stores;

/// What was asked for.
#[derive(Default)]
struct Options {
    request: Request,
    eval: bool,
    parse: bool,
    strict: bool,
    json: bool,
    xml: bool,
    no_location: bool,
    /// `--readonly-mode` or `--read-write-mode`, the last one given.
    writes: Option<Writes>,
    /// A flag that is known but cannot be obeyed.
    unsupported: Option<String>,
}

type Words<'a> = dyn Iterator<Item = String> + 'a;
/// What a flag does with the words after it.
enum Effect {
    Alone(fn(&mut Options)),
    One(fn(&mut Options, String)),
    Two(fn(&mut Options, String, String)),
}

const FLAGS: &[(&[&str], Effect)] = &[
    (&["--eval"], Effect::Alone(|options| options.eval = true)),
    (&["--strict"], Effect::Alone(|options| options.strict = true)),
    (&["--json"], Effect::Alone(|options| options.json = true)),
    (&["--xml"], Effect::Alone(|options| options.xml = true)),
    (
        &["--no-location"],
        Effect::Alone(|options| options.no_location = true),
    ),
    (&["--parse"], Effect::Alone(|options| options.parse = true)),
    (
        &["--expr", "-E"],
        Effect::Alone(|options| options.request.expressions = true),
    ),
    (
        &["--show-trace"],
        Effect::Alone(|options| options.request.show_trace = true),
    ),
    (
        &["--no-show-trace"],
        Effect::Alone(|options| options.request.show_trace = false),
    ),
    // what this asks for is how it is anyway
    (&["--impure"], Effect::Alone(|_| ())),
    (
        &["--read-write-mode"],
        Effect::Alone(|options| options.writes = Some(Writes::Stored)),
    ),
    (
        &["--readonly-mode"],
        Effect::Alone(|options| options.writes = Some(Writes::Computed)),
    ),
    (
        &["--indirect"],
        Effect::Alone(|options| options.unsupported = Some("--indirect".to_string())),
    ),
    (
        &["--add-root"],
        Effect::One(|options, _| options.unsupported = Some("--add-root".to_string())),
    ),
    (
        &["--pure-eval"],
        Effect::Alone(|options| options.set("pure-eval", "true")),
    ),
    (
        &["--restrict-eval"],
        Effect::Alone(|options| options.set("restrict-eval", "true")),
    ),
    (
        &["-A", "--attr"],
        Effect::One(|options, path| options.request.attributes.push(path)),
    ),
    (
        &["-I", "--include"],
        Effect::One(|options, entry| options.request.search.push(entry)),
    ),
    (
        &["--arg"],
        Effect::Two(|options, name, text| {
            let argument = Argument::Expression(name, text.into());
            options.request.arguments.push(argument);
        }),
    ),
    (
        &["--argstr"],
        Effect::Two(|options, name, text| options.request.arguments.push(Argument::Text(name, text))),
    ),
    (
        &["--option"],
        Effect::Two(|options, name, value| options.set(&name, &value)),
    ),
];

impl Options {
    fn set(&mut self, name: &str, value: &str) {
        self.request.options.push((name.to_string(), value.to_string()));
    }

    /// As in Nix (recorded from 2.8 and 2.34): evaluating writes nothing unless it is asked to, instantiating does.
    fn writes(&self) -> Writes {
        match self.writes {
            _ if stores::is_dummy() => Writes::Computed,
            Some(writes) => writes,
            None if self.eval => Writes::Computed,
            None => Writes::Stored,
        }
    }

    fn output(&self) -> Output {
        let format = match (self.xml, self.json) {
            (true, _) => Format::Xml {
                location: !self.no_location,
            },
            (_, true) => Format::Json,
            _ => Format::Nix,
        };
        match self.eval {
            true => Output::Printed {
                format,
                strict: self.strict,
            },
            false => Output::Goals,
        }
    }
}

/// Runs with the words after the command's name.
pub fn run(context: &Context, words: Vec<String>) -> Result<(), Failure> {
    if words.iter().any(|word| word == "--version") {
        return say_bytes(format!("nix-instantiate (igloo) {}", env!("CARGO_PKG_VERSION")).as_bytes());
    }
    let mut options = parse_words(&mut words.into_iter())?;
    if options.request.inputs.is_empty() {
        options.request.inputs.push("./default.nix".into());
    }
    if let Some(flag) = &options.unsupported {
        let failure = wrong(format!(
            "flag '{flag}' is not supported: instantiating registers no garbage collector root"
        ));
        return Err(failure.with_hint("leave it out, and keep the printed path"));
    }
    if options.parse {
        for text in parse(context, &options.request)? {
            say_bytes(text.as_bytes())?;
        }
        return Ok(());
    }
    let dir = stores::dir()?;
    let mut tell = |event| match event {
        EvaluateEvent::Printed(text) => say_bytes(&text),
        EvaluateEvent::Goal(goal) => say(shown(&dir, &goal)),
        EvaluateEvent::Derivation { .. } | EvaluateEvent::Notice(_) => Ok(()),
    };
    evaluate(
        context,
        &options.request,
        options.writes(),
        options.output(),
        &mut tell,
    )
}

/// A derivation, and the output meant where that is not `out`.
fn shown(dir: &StoreDir, goal: &Goal) -> String {
    let mut text = dir.print(&goal.drv);
    for output in goal.outputs.iter().filter(|output| output.as_str() != "out") {
        text = format!("{text}!{output}");
    }
    text
}

fn parse_words(words: &mut Words<'_>) -> Result<Options, Failure> {
    let mut options = Options::default();
    while let Some(word) = words.next() {
        let mut next = || {
            words
                .next()
                .ok_or_else(|| wrong(format!("flag '{word}' requires an argument")))
        };
        if let Some((_, effect)) = FLAGS.iter().find(|(names, _)| names.contains(&word.as_str())) {
            match effect {
                Effect::Alone(act) => act(&mut options),
                Effect::One(act) => act(&mut options, next()?),
                Effect::Two(act) => act(&mut options, next()?, next()?),
            }
        } else if let Some(name) = word.strip_prefix("--") {
            let value = next()?;
            options.set(name, &value);
        } else if word.starts_with('-') && word != "-" {
            return Err(wrong(format!("unrecognised flag '{word}'")));
        } else {
            options.request.inputs.push(word);
        }
    }
    Ok(options)
}

/// Nix answers wrong usage with 1.
fn wrong(message: String) -> Failure {
    Failure::usage(message).with_exit(EXIT_FAILED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(words: &[&str]) -> Result<Options, Failure> {
        parse_words(&mut words.iter().map(|word| (*word).to_string()))
    }

    #[test]
    fn flags_are_nix_s() {
        let options = options(&[
            "--eval",
            "--strict",
            "-E",
            "1",
            "--arg",
            "x",
            "2",
            "-A",
            "a.b",
            "--max-call-depth",
            "7",
        ]);
        let options = options.unwrap();
        assert!(options.eval && options.strict && options.request.expressions);
        assert_eq!(options.request.inputs, ["1"]);
        assert_eq!(options.request.attributes, ["a.b"]);
        assert_eq!(
            options.request.options,
            [("max-call-depth".to_string(), "7".to_string())]
        );
        assert!(matches!(&options.request.arguments[..], [Argument::Expression(name, _)] if name == "x"));
    }

    #[test]
    fn wrong_flags_are_named() {
        for words in [&["--arg", "x"][..], &["-Z"]] {
            let failure = options(words).err().unwrap();
            assert!(failure.message().contains(words[0]), "{}", failure.message());
        }
    }
}
