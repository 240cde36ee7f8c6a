//! What an evaluation is, for those who ask for one: a request that says everything, events while it runs, an end.
//!
//! The evaluator may be a thread of this process or another process behind gRPC (`protos/remote`); who asks cannot tell.
//!
//! Map
//! - [`request`]: the request, [`EvaluateRequest`];
//! - [`event`]: what the caller hears while it runs;
//! - [`evaluator`]: the trait [`Evaluator`], and why an evaluation fails;
//! - [`settings`]: settings by Nix's names, search paths;
//! - [`run`]: an evaluation from its request to its end, on the thread that calls;
//! - [`local`]: [`LocalEvaluator`], evaluations on threads of this process.
//!
//! Files and the machine's own store are those of the machine the evaluator runs on.

pub mod evaluator;
pub mod event;
pub mod local;
pub mod request;
pub mod run;
pub mod settings;

pub use evaluator::{EvaluateError, EvaluateIo, EvaluateReport, Evaluator};
pub use event::{EvaluateEvent, Goal};
pub use local::LocalEvaluator;
pub use request::{Argument, EvaluateRequest, Input, Output};
