//! `igloo eval`

use igloo_eval::Format;
use igloo_evaluator::{EvaluateEvent, Output};
use igloo_store_io::Writes;

use super::say_bytes;
use crate::args::EvalArguments;
use crate::context::Context;
use crate::evaluation::{Argument, Request, evaluate};
use crate::failure::Failure;

/// Evaluates and prints whole values. What is instantiated on the way is written to the store, as `nix eval` does.
pub fn run(context: &Context, arguments: EvalArguments) -> Result<(), Failure> {
    let format = match (arguments.json, arguments.xml) {
        (true, _) => Format::Json,
        (_, true) => Format::Xml { location: true },
        _ => Format::Nix,
    };
    let pairs = |flat: &[String]| -> Vec<(String, String)> {
        flat.chunks_exact(2)
            .map(|pair| (pair[0].clone(), pair[1].clone()))
            .collect()
    };
    let (inputs, expressions) = match arguments.expr {
        Some(expression) => (vec![expression], true),
        None => (
            vec![arguments.file.unwrap_or_else(|| "./default.nix".into())],
            false,
        ),
    };
    let by_expression = pairs(&arguments.arg)
        .into_iter()
        .map(|(name, text)| Argument::Expression(name, text));
    let by_text = pairs(&arguments.argstr)
        .into_iter()
        .map(|(name, text)| Argument::Text(name, text));
    let mut options = pairs(&arguments.option);
    options.extend(
        arguments
            .pure
            .then(|| ("pure-eval".to_string(), "true".to_string())),
    );
    let request = Request {
        inputs,
        expressions,
        attributes: arguments.attr,
        arguments: by_expression.chain(by_text).collect(),
        search: arguments.include,
        options,
        show_trace: arguments.show_trace,
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
