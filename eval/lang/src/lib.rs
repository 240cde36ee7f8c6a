//! The Nix language as a library: source text in, values out.
//!
//! Source text is parsed ([`syntax`]), its names are resolved ([`code`]), and it is run ([`interp`]) over values in one
//! heap ([`heap`]). The world is one trait, [`EvalIo`]; the crate has no runtime, clock or environment of its own.
//!
//! An evaluation stays on its thread: the table of names, shapes, contexts, the file cache and compiled code are its own and
//! not locked. Inside it, what waits for builds and fetches does so side by side (`interp::fibers`); several attributes can
//! be given to several threads, each with an evaluation of its own ([`ask_on_threads`]).
//!
//! Compatible with Nix 2.34: all builtins, string contexts, error classes and texts, printing of numbers and strings.

mod builtins;
mod code;
mod derivations;
mod error;
mod evaluation;
mod flake;
mod goals;
mod heap;
mod interp;
pub mod io;
pub mod json;
mod num;
mod pos;
mod print;
mod pure;
mod session;
mod settings;
mod symbol;
mod syntax;
#[cfg(test)]
mod tests;
mod threads;

pub use builtins::documentation as builtin_documentation;
pub use derivations::FoundDerivation;
pub use error::{Error, ErrorDetails, ErrorKind, TraceLine};
pub use evaluation::{Evaluation, Format, Root};
pub use goals::{Answer, Question, Wanted};
pub use heap::context::ContextElem;
pub use io::EvalIo;
pub use pos::{Location, Origin};
pub use print::{PromptDepth, PromptStyle};
pub use session::{Attributes, Documentation, Input, InputState, Scope, attribute_name, input_state};
pub use settings::{Features, LintLevel, ParseSettings, Purity, Settings};
pub use threads::{Ready, ask_on_threads};
