//! What was asked for, by whatever command.

use igloo_evaluator::Argument;

use super::super::machines;
use crate::args::BuildArguments;
use crate::config::Config;
use crate::config::value::Value;
use crate::context::Context;
use crate::failure::Failure;
use crate::progress::model::Logs;

/// A build, as it was asked for.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Words that name what to build; none means `./default.nix`.
    pub inputs: Vec<String>,
    /// Whether the words are expressions.
    pub expressions: bool,
    /// Attribute paths; none means the whole.
    pub attributes: Vec<String>,
    /// Arguments for functions.
    pub arguments: Vec<Argument>,
    /// Search path entries in front of `NIX_PATH`'s.
    pub search: Vec<String>,
    /// Everything configured, flags included.
    pub config: Config,
    /// Whether what is there is built again and compared.
    pub check: bool,
    /// Whether it is only said what would be done.
    pub dry_run: bool,
    /// Name of the links.
    pub link: Option<String>,
    /// Whether the answer is JSON.
    pub json: bool,
    /// Lines of logs to show.
    pub logs: Logs,
    /// Whether words mean what they mean to nix-build: a store path is a file to evaluate, a derivation its output `out`.
    pub is_nix_build: bool,
}

impl Wish {
    /// From the arguments of `igloo build`.
    pub fn from_arguments(context: &Context, given: BuildArguments) -> Result<Self, Failure> {
        let config = configure(context, &given)?;
        let expressions = given.expr.is_some();
        let inputs = match (given.expr, given.file) {
            (Some(expression), _) => vec![expression],
            (None, Some(file)) => vec![file],
            (None, None) => given.inputs,
        };
        Ok(Self {
            inputs,
            expressions,
            attributes: given.attr,
            arguments: given.expressions.arguments(),
            search: given.expressions.include,
            config,
            check: given.check,
            dry_run: given.dry_run,
            link: (!given.no_link).then_some(given.out_link),
            json: given.json,
            logs: if given.print_build_logs {
                Logs::Named
            } else {
                Logs::None
            },
            is_nix_build: false,
        })
    }
}

fn configure(context: &Context, given: &BuildArguments) -> Result<Config, Failure> {
    let mut config = context.config.clone();
    for (name, value) in given.expressions.options() {
        config.set_option(&name, &value)?;
    }
    machines::configure(&mut config, &given.machines)?;
    if let Some(substituters) = &given.substituters {
        let value = Value::Text(substituters.clone());
        config
            .set("substituters", &value)
            .map_err(|error| error.into_failure("--substituters"))?;
    }
    config.builder = given.builder.clone().or(config.builder);
    config.coordinator = given.coordinator.clone().or(config.coordinator);
    config.evaluator = given.evaluator.clone().or(config.evaluator);
    config.keep_going |= given.keep_going;
    config.keep_failed |= given.keep_failed;
    config.substitute &= !given.no_substitute;
    if let Some(seconds) = given.timeout {
        config.timeout = crate::config::value::seconds(seconds);
    }
    if let Some(seconds) = given.max_silent_time {
        config.max_silent_time = crate::config::value::seconds(seconds);
    }
    if given.expressions.show_trace {
        config.evaluation.push(("show-trace".into(), "true".into()));
    }
    Ok(config)
}
