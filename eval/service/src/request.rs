//! The request: all that an evaluation depends on besides files, URLs and the store.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::evaluator::EvaluateError;

/// An evaluation: these inputs, these parts of them, written or built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvaluateRequest {
    /// Evaluated one after the other, in one evaluation.
    pub inputs: Vec<Input>,
    /// Attribute paths selected in every input; none means the whole.
    pub attributes: Vec<String>,
    /// Arguments for functions.
    pub arguments: Vec<Argument>,
    /// The whole search path: prefix and place, in order ([`crate::settings::search_paths`]).
    pub search_path: Vec<(String, String)>,
    /// Settings by Nix's names; unknown ones are ignored with a warning, as Nix does. Later ones win.
    pub options: Vec<(String, String)>,
    /// What `getEnv` sees.
    pub environment: BTreeMap<Bytes, Bytes>,
    /// Absolute path that relative ones start from.
    pub base_dir: String,
    /// What is made of the values.
    pub output: Output,
}

/// Something to evaluate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A file, or a folder with a `default.nix`, or `<NAME>` of the search path; absolute where it is a path.
    File(String),
    /// An expression.
    Text(Bytes),
    /// What came on the caller's stdin: an expression, named so in messages.
    Stdin(Bytes),
}

/// An argument for a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Argument {
    /// An expression.
    Expression(String, Bytes),
    /// A string.
    Text(String, String),
}

/// What is made of the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Their derivations are goals ([`crate::EvaluateEvent::Goal`]).
    Goals,
    /// They are written ([`crate::EvaluateEvent::Printed`]).
    Printed {
        /// How.
        format: igloo_eval::Format,
        /// Whether everything in them is evaluated first.
        strict: bool,
    },
}

impl EvaluateRequest {
    /// Whether an evaluator can do anything with it.
    ///
    /// # Errors
    /// A base directory or a file's place that depends on where the evaluator runs.
    pub fn check(&self) -> Result<(), EvaluateError> {
        let wrong = |reason: String| Err(EvaluateError::Request { reason });
        if !self.base_dir.starts_with('/') {
            return wrong(format!("the base directory '{}' is not absolute", self.base_dir));
        }
        for input in &self.inputs {
            if let Input::File(file) = input
                && !(file.starts_with(['/', '<']) || file.contains(':'))
            {
                return wrong(format!("the file '{file}' is not absolute"));
            }
        }
        Ok(())
    }
}
