//! `igloo eval`

use igloo_eval::Format;
use igloo_evaluator::{EvaluateEvent, Output};
use igloo_store_io::Writes;

use super::say_bytes;
use crate::args::EvalArguments;
use crate::context::Context;
use crate::evaluation::{Request, evaluate};
use crate::failure::Failure;

/// Evaluates and prints whole values. What is instantiated on the way is written to the store, as `nix eval` does.
pub fn run(context: &Context, arguments: EvalArguments) -> Result<(), Failure> {
    let format = match (arguments.json, arguments.xml) {
        (true, _) => Format::Json,
        (_, true) => Format::Xml { location: true },
        _ => Format::Nix,
    };
    let (inputs, expressions) = match arguments.expr {
        Some(expression) => (vec![expression], true),
        None => (
            vec![arguments.file.unwrap_or_else(|| "./default.nix".into())],
            false,
        ),
    };
    let mut options = arguments.expressions.options();
    options.extend(
        arguments
            .pure
            .then(|| ("pure-eval".to_string(), "true".to_string())),
    );
    let request = Request {
        inputs,
        expressions,
        attributes: arguments.attr,
        arguments: arguments.expressions.arguments(),
        search: arguments.expressions.include,
        options,
        show_trace: arguments.expressions.show_trace,
    };
    let writes = match arguments.read_only {
        true => Writes::Computed,
        false => Writes::Stored,
    };
    let output = Output::Printed { format, strict: true };
    evaluate(context, &request, writes, output, &mut |event| match event {
        EvaluateEvent::Printed(text) => say_bytes(&text),
        _ => Ok(()),
    })
}
