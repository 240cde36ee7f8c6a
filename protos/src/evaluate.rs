//! Evaluations on the wire: requests, goals, notices, reports, failures.
//!
//! Invariants
//! - what the expression said is carried as it is, up to [`EVALUATION_TEXT_BYTES_MAX`]: a message shown by a remote front
//!   end is the one a local front end would show. Who shows it cleans it;
//! - a failure keeps its kind, its exit status and its class.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use igloo_eval::Format;
use igloo_eval::io::Notice;
use igloo_evaluator::{Argument, EvaluateError, EvaluateReport, EvaluateRequest, Goal, Input, Output};
use igloo_status::Code;
use nix_compat::derivation::OutputName;
use nix_compat::store_path::StorePath;

use crate::build::{at_most, form, order};
use crate::error::{InField, WireError};
use crate::igloo::evaluator::v1;
use crate::path_info::store_path;
use v1::evaluate_request::Output as Made;
use v1::printed::Format as WireFormat;

/// Largest message with a request, bytes.
pub const EVALUATE_MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Longest text of an expression that is carried, bytes.
pub const EVALUATION_TEXT_BYTES_MAX: usize = 4 << 20;
/// Most inputs, attributes, arguments, search path entries, and settings of one request, each.
pub const EVALUATE_ITEMS_MAX: usize = 1 << 16;
/// Most outputs of one derivation that are named.
pub const OUTPUT_NAMES_MAX: usize = 1 << 10;

/// Writes a request.
pub fn evaluate_message(request: EvaluateRequest) -> v1::EvaluateRequest {
    let (environment, inputs) = (request.environment, request.inputs);
    v1::EvaluateRequest {
        inputs: inputs.into_iter().map(input_message).collect(),
        attributes: request.attributes,
        arguments: request.arguments.into_iter().map(argument_message).collect(),
        search_path: request
            .search_path
            .into_iter()
            .map(|(prefix, place)| v1::SearchPathEntry { prefix, place })
            .collect(),
        options: request
            .options
            .into_iter()
            .map(|(name, value)| v1::Setting { name, value })
            .collect(),
        environment: environment
            .into_iter()
            .map(|(name, value)| v1::Variable { name, value })
            .collect(),
        base_dir: request.base_dir,
        output: Some(made_message(request.output)),
    }
}

fn input_message(input: Input) -> v1::Input {
    use v1::input::Input as Kind;
    let input = match input {
        Input::File(file) => Kind::File(file),
        Input::Text(text) => Kind::Text(text),
        Input::Stdin(text) => Kind::Stdin(text),
    };
    v1::Input { input: Some(input) }
}

fn argument_message(argument: Argument) -> v1::Argument {
    use v1::argument::Value;
    let (name, value) = match argument {
        Argument::Expression(name, expression) => (name, Value::Expression(expression)),
        Argument::Text(name, text) => (name, Value::Text(text)),
    };
    v1::Argument {
        name,
        value: Some(value),
    }
}

fn made_message(output: Output) -> Made {
    match output {
        Output::Goals => Made::Goals(v1::Goals {}),
        Output::Printed { format, strict } => {
            let format = match format {
                Format::Nix => WireFormat::Nix,
                Format::Json => WireFormat::Json,
                Format::Xml { location: false } => WireFormat::Xml,
                Format::Xml { location: true } => WireFormat::XmlLocated,
            };
            Made::Printed(v1::Printed {
                format: format.into(),
                strict,
            })
        }
    }
}

/// Reads a request.
///
/// # Errors
/// A list over its bound or out of order, a place that is not absolute, a kind that is not known.
pub fn read_evaluate(message: v1::EvaluateRequest) -> Result<EvaluateRequest, WireError> {
    at_most(message.inputs.len(), EVALUATE_ITEMS_MAX, "inputs")?;
    at_most(message.attributes.len(), EVALUATE_ITEMS_MAX, "attributes")?;
    at_most(message.arguments.len(), EVALUATE_ITEMS_MAX, "arguments")?;
    at_most(message.search_path.len(), EVALUATE_ITEMS_MAX, "search_path")?;
    at_most(message.options.len(), EVALUATE_ITEMS_MAX, "options")?;
    if !message.base_dir.starts_with('/') {
        return Err(form("base_dir", "an absolute path"));
    }
    let pairs = message
        .environment
        .into_iter()
        .map(|variable| (variable.name, variable.value));
    let inputs: Result<_, _> = message.inputs.into_iter().map(read_input).collect();
    let arguments: Result<_, _> = message.arguments.into_iter().map(read_argument).collect();
    Ok(EvaluateRequest {
        inputs: inputs?,
        attributes: message.attributes,
        arguments: arguments?,
        search_path: message
            .search_path
            .into_iter()
            .map(|entry| (entry.prefix, entry.place))
            .collect(),
        options: message
            .options
            .into_iter()
            .map(|setting| (setting.name, setting.value))
            .collect(),
        environment: read_variables(pairs, "environment")?,
        base_dir: message.base_dir,
        output: read_made(&message.output.field("output")?)?,
    })
}

/// Variables by name, which no program could be given under another form.
pub(crate) fn read_variables(
    pairs: impl Iterator<Item = (Bytes, Bytes)>,
    field: &'static str,
) -> Result<BTreeMap<Bytes, Bytes>, WireError> {
    let mut variables = BTreeMap::new();
    for (name, value) in pairs {
        if name.is_empty() || name.contains(&b'=') || name.contains(&0) || value.contains(&0) {
            return Err(form(field, "names without `=`, names and values without NUL"));
        }
        if variables.last_key_value().is_some_and(|(last, _)| *last >= name) {
            return Err(order(field, &name));
        }
        at_most(variables.len() + 1, EVALUATE_ITEMS_MAX, field)?;
        variables.insert(name, value);
    }
    Ok(variables)
}

fn read_input(input: v1::Input) -> Result<Input, WireError> {
    use v1::input::Input as Kind;
    Ok(match input.input.field("inputs")? {
        Kind::File(file) => Input::File(file),
        Kind::Text(text) => Input::Text(text),
        Kind::Stdin(text) => Input::Stdin(text),
    })
}

fn read_argument(argument: v1::Argument) -> Result<Argument, WireError> {
    use v1::argument::Value;
    Ok(match argument.value.field("arguments")? {
        Value::Expression(expression) => Argument::Expression(argument.name, expression),
        Value::Text(text) => Argument::Text(argument.name, text),
    })
}

fn read_made(made: &Made) -> Result<Output, WireError> {
    let Made::Printed(printed) = made else {
        return Ok(Output::Goals);
    };
    let format = match WireFormat::try_from(printed.format) {
        Ok(WireFormat::Nix) => Format::Nix,
        Ok(WireFormat::Json) => Format::Json,
        Ok(WireFormat::Xml) => Format::Xml { location: false },
        Ok(WireFormat::XmlLocated) => Format::Xml { location: true },
        Ok(WireFormat::Unspecified) | Err(_) => return Err(form("format", "a format this igloo knows")),
    };
    let strict = printed.strict;
    Ok(Output::Printed { format, strict })
}

/// Writes a goal.
pub fn goal_message(goal: Goal) -> v1::Goal {
    v1::Goal {
        attribute: goal.attribute,
        drv: goal.drv.to_string(),
        outputs: names_message(&goal.outputs),
    }
}

/// Reads a goal.
///
/// # Errors
/// No store path, outputs out of order.
pub fn read_goal(goal: v1::Goal) -> Result<Goal, WireError> {
    Ok(Goal {
        attribute: goal.attribute,
        drv: read_path(&goal.drv, "drv")?,
        outputs: read_names(&goal.outputs)?,
    })
}

pub(crate) fn read_path(base_name: &str, field: &'static str) -> Result<StorePath, WireError> {
    store_path(base_name.as_bytes(), field)
}

pub(crate) fn names_message(names: &BTreeSet<OutputName>) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

pub(crate) fn read_names(names: &[String]) -> Result<BTreeSet<OutputName>, WireError> {
    at_most(names.len(), OUTPUT_NAMES_MAX, "outputs")?;
    let mut read = BTreeSet::new();
    for name in names {
        let next = read_name(name)?;
        if read.last().is_some_and(|last| *last >= next) {
            return Err(order("outputs", name.as_bytes()));
        }
        read.insert(next);
    }
    Ok(read)
}

pub(crate) fn read_name(name: &str) -> Result<OutputName, WireError> {
    OutputName::new(name).map_err(|_| form("outputs", "names an output may have"))
}

/// Writes a notice; longer than [`EVALUATION_TEXT_BYTES_MAX`], it is cut and says so.
pub fn notice_message(notice: Notice) -> v1::Notice {
    use v1::notice::Notice as Kind;
    let notice = match notice {
        Notice::Trace(text) => Kind::Trace(cut(text)),
        Notice::EvaluationWarning(text) => Kind::EvaluationWarning(cut(text)),
        Notice::Warning(text) => Kind::Warning(cut(text)),
    };
    v1::Notice { notice: Some(notice) }
}

/// Reads a notice.
///
/// # Errors
/// One of a kind that is not known.
pub fn read_notice(notice: v1::Notice) -> Result<Notice, WireError> {
    use v1::notice::Notice as Kind;
    Ok(match notice.notice.field("notice")? {
        Kind::Trace(text) => Notice::Trace(cut(text)),
        Kind::EvaluationWarning(text) => Notice::EvaluationWarning(cut(text)),
        Kind::Warning(text) => Notice::Warning(cut(text)),
    })
}

/// At most [`EVALUATION_TEXT_BYTES_MAX`] of a text, the end marked where some is left out.
fn cut(mut text: String) -> String {
    const MARK: &str = " [the rest is left out]";
    if text.len() > EVALUATION_TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(EVALUATION_TEXT_BYTES_MAX - MARK.len()));
        text.push_str(MARK);
    }
    text
}

/// Writes what an evaluation used.
pub fn evaluate_report_message(report: &EvaluateReport) -> v1::EvaluateReport {
    v1::EvaluateReport {
        elapsed_us: micros(report.elapsed),
        cpu_us: micros(report.cpu),
        heap_bytes: report.heap_bytes,
        derivations: report.derivations,
    }
}

/// Reads what an evaluation used.
pub fn read_evaluate_report(report: &v1::EvaluateReport) -> EvaluateReport {
    EvaluateReport {
        elapsed: Duration::from_micros(report.elapsed_us),
        cpu: Duration::from_micros(report.cpu_us),
        heap_bytes: report.heap_bytes,
        derivations: report.derivations,
    }
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Writes a failure.
pub fn evaluate_failure_message(error: EvaluateError) -> v1::EvaluateFailure {
    use v1::evaluate_failure::Failure as Kind;
    let code = error.code().number();
    let failure = match error {
        EvaluateError::Failed { text, exit, .. } => Kind::Failed(v1::Failed {
            text: cut(text),
            exit: u32::from(exit),
        }),
        EvaluateError::Request { reason } => Kind::Request(cut(reason)),
        EvaluateError::Store { reason, .. } => Kind::Store(cut(reason)),
        EvaluateError::Unavailable { reason } => Kind::Unavailable(cut(reason)),
    };
    v1::EvaluateFailure {
        failure: Some(failure),
        code,
    }
}

/// Reads a failure. One this igloo does not know is the evaluator's, so that it is never blamed on the expression; an exit
/// status that none can be is 1.
pub fn read_evaluate_failure(failure: v1::EvaluateFailure) -> EvaluateError {
    use v1::evaluate_failure::Failure as Kind;
    let code = read_code(failure.code);
    match failure.failure {
        Some(Kind::Failed(failed)) => EvaluateError::Failed {
            text: cut(failed.text),
            exit: u8::try_from(failed.exit)
                .ok()
                .filter(|exit| *exit != 0)
                .unwrap_or(1),
            code,
        },
        Some(Kind::Request(reason)) => EvaluateError::Request { reason: cut(reason) },
        Some(Kind::Store(reason)) => EvaluateError::Store {
            reason: cut(reason),
            code,
        },
        Some(Kind::Unavailable(reason)) => EvaluateError::Unavailable { reason: cut(reason) },
        None => EvaluateError::Unavailable {
            reason: "it failed in a way that this igloo does not know".into(),
        },
    }
}

/// The class of that number; `Unknown` for one there is not.
pub(crate) fn read_code(number: i32) -> Code {
    Code::from_number(number).unwrap_or(Code::Unknown)
}

#[cfg(test)]
pub(crate) mod tests;
