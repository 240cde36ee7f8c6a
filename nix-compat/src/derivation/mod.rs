//! Derivations: what to build, from what, into what.

mod output;

pub use output::{DerivationOutput, OutputName, OutputNameError};
