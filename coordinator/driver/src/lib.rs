//! From derivations to registered outputs.
//!
//! Map
//! - [`job`]: what a front end asks for and hears;
//! - [`local`]: the coordinator of this process;
//! - [`source`]: where derivations are read from;
//! - [`request`]: one derivation as a build request, by Nix's rules;
//! - [`builtin`]: builders that are no programs, `builtin:fetchurl`;
//! - [`outputs`]: what a finished build left, checked, as records to register.
//!
//! Invariants
//! - an output is registered only after its build has succeeded, its checks have passed, its content is durable, and
//!   everything it refers to is registered;
//! - a failure of the machine ([`igloo_build::BuildError`]) is never recorded against a derivation.

pub mod builtin;
pub mod job;
mod json;
pub mod local;
pub mod outputs;
pub mod request;
pub mod source;

pub use job::{Coordinator, Job, JobError, JobOptions, JobReport, Update};
pub use local::LocalCoordinator;
pub use local::config::{LocalConfig, NamedBuilder};
pub use outputs::{FinishedOutputs, OutputError};
pub use source::{DerivationSource, ReadDerivationError};

/// Compiled with the tests, so that the page stays true.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/front-end.md")]
struct FrontEndPage;
