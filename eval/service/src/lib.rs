//! What an evaluation is, for those who ask for one: a request that says everything, events while it runs, an end.
//!
//! The evaluator may be a thread of this process or another process behind gRPC (`protos/remote`); who asks cannot tell.
//!
//! Map
//! - [`request`]: the request, [`EvaluateRequest`];
//! - [`event`]: what the caller hears while it runs;
//! - [`evaluator`]: the trait [`Evaluator`], and why an evaluation fails.

pub mod evaluator;
pub mod event;
pub mod request;

pub use evaluator::{EvaluateError, EvaluateIo, EvaluateReport, Evaluator};
pub use event::{EvaluateEvent, Goal};
pub use request::{Argument, EvaluateRequest, Input, Output};
