//! The request: everything a builder must know, and nothing else.
//!
//! Invariants (checked by [`BuildRequest::check`], which every builder calls first)
//! - outputs and scratch paths are no root, outputs are distinct and none lies in another;
//! - the program and every argument are free of NUL, environment names are non-empty and free of `=` and NUL;
//! - counts and sizes are within the bounds below, so a request fits in memory many times over.
//!
//! Fields follow `snix.build.v1.BuildRequest` where that has them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use igloo_castore::node::{Node, NodeName};
use igloo_status::Code;

use crate::path::RelativePath;

/// Most inputs of one build.
pub const INPUTS_MAX: usize = 1 << 20;
/// Most outputs of one build.
pub const OUTPUTS_MAX: usize = 1 << 10;
/// Bytes of arguments and environment together: what Linux gives a new program (a quarter of an 8 MiB stack).
pub const ARGUMENTS_SIZE_MAX: usize = 2 << 20;
/// Longest single argument or `NAME=value`, bytes (MAX_ARG_STRLEN, linux/binfmts.h).
pub const ARGUMENT_SIZE_MAX: usize = 128 << 10;
/// Bytes of additional files together.
pub const ADDITIONAL_FILES_SIZE_MAX: usize = 64 << 20;
/// Most needles to look for in outputs.
pub const NEEDLES_MAX: usize = 1 << 20;

/// A build: run one program in a fresh root that shows exactly these inputs, and keep these outputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildRequest {
    /// What is shown in `inputs_dir`, by name.
    pub inputs: BTreeMap<NodeName, Node>,
    /// Where the inputs appear, relative to the root (`nix/store`).
    pub inputs_dir: RelativePath,
    /// The program: an absolute path in the build's root.
    pub program: Bytes,
    /// Its arguments, the zeroth included.
    pub arguments: Vec<Bytes>,
    /// Its whole environment.
    pub environment: BTreeMap<Bytes, Bytes>,
    /// Where it starts, relative to the root.
    pub working_dir: RelativePath,
    /// Directories it may write in, empty at the start.
    pub scratch_paths: BTreeSet<RelativePath>,
    /// What must exist when it has ended, in the order the caller wants them back.
    pub outputs: Vec<RelativePath>,
    /// Small files placed before the start, owned by the build user, mode 0644.
    pub additional_files: BTreeMap<RelativePath, Bytes>,
    /// What the machine must offer.
    pub constraints: Constraints,
    /// When to stop it.
    pub limits: Limits,
    /// Byte strings to look for in the outputs; the finder reports their positions in this list.
    pub needles: Vec<Bytes>,
}

/// What a build needs of its machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constraints {
    /// Architecture and kernel as Nix names them, `x86_64-linux`.
    pub system: String,
    /// Memory of the machine, MiB; 0 leaves it to the builder.
    pub memory_mib: u32,
    /// Processors; 0 leaves it to the builder.
    pub cores: u32,
    /// Whether it may reach the network.
    pub network: bool,
    /// Named abilities the builder must have, all of them.
    pub features: BTreeSet<String>,
}

/// Bounds on a running build; `None` leaves the builder's own default in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Longest run time.
    pub wall: Option<Duration>,
    /// Longest time without a byte of log.
    pub silence: Option<Duration>,
    /// Most bytes of log.
    pub log_bytes: Option<u64>,
    /// Most bytes of all outputs together.
    pub output_bytes: Option<u64>,
    /// Most processes at once.
    pub processes: Option<u32>,
    /// Most bytes written in scratch directories and outputs together.
    pub scratch_bytes: Option<u64>,
}

impl BuildRequest {
    /// Checks what the types alone do not promise. Linear in the request.
    ///
    /// # Errors
    /// The first field found wrong, by name.
    pub fn check(&self) -> Result<(), CheckRequestError> {
        self.check_counts()?;
        self.check_paths()?;
        self.check_arguments()?;
        let files: usize = self.additional_files.values().map(Bytes::len).sum();
        at_most("additional files", files, ADDITIONAL_FILES_SIZE_MAX)
    }

    fn check_counts(&self) -> Result<(), CheckRequestError> {
        at_most("inputs", self.inputs.len(), INPUTS_MAX)?;
        at_most("outputs", self.outputs.len(), OUTPUTS_MAX)?;
        at_most("needles", self.needles.len(), NEEDLES_MAX)?;
        if self.outputs.is_empty() {
            return Err(CheckRequestError::NoOutputs);
        }
        if self.constraints.system.is_empty() {
            return Err(CheckRequestError::NoSystem);
        }
        Ok(())
    }

    fn check_paths(&self) -> Result<(), CheckRequestError> {
        let root = RelativePath::root();
        let places = self
            .outputs
            .iter()
            .chain(&self.scratch_paths)
            .chain(self.additional_files.keys());
        if places.into_iter().any(|path| *path == root) || self.inputs_dir == root {
            return Err(CheckRequestError::Root);
        }
        // by parts, not by bytes: `a-b` would come between `a` and `a/b`
        let mut sorted: Vec<_> = self.outputs.iter().collect();
        sorted.sort_by(|a, b| a.components().cmp(b.components()));
        match sorted.array_windows().find(|[a, b]| b.starts_with(a)) {
            Some([outer, inner]) => Err(CheckRequestError::Nested {
                outer: RelativePath::clone(outer),
                inner: RelativePath::clone(inner),
            }),
            None => Ok(()),
        }
    }

    fn check_arguments(&self) -> Result<(), CheckRequestError> {
        if self.program.first() != Some(&b'/') {
            return Err(CheckRequestError::Program {
                program: self.program.escape_ascii().to_string(),
            });
        }
        for (name, value) in &self.environment {
            if name.is_empty() || name.contains(&b'=') || name.contains(&0) || value.contains(&0) {
                return Err(CheckRequestError::Environment {
                    name: name.escape_ascii().to_string(),
                });
            }
            at_most(
                "one environment variable",
                name.len() + 1 + value.len(),
                ARGUMENT_SIZE_MAX - 1,
            )?;
        }
        for argument in self.arguments.iter().chain([&self.program]) {
            if argument.contains(&0) {
                return Err(CheckRequestError::Nul {
                    argument: argument.escape_ascii().to_string(),
                });
            }
            at_most("one argument", argument.len(), ARGUMENT_SIZE_MAX - 1)?;
        }
        let environment: usize = self
            .environment
            .iter()
            .map(|(name, value)| name.len() + value.len() + 10)
            .sum();
        let arguments: usize = self.arguments.iter().map(|argument| argument.len() + 9).sum();
        at_most(
            "arguments and environment",
            environment + arguments,
            ARGUMENTS_SIZE_MAX,
        )
    }
}

/// Why a request cannot be run by any builder.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckRequestError {
    /// Over one of the bounds of this module.
    #[error("the request's {what}: {size}, more than the {size_max} allowed")]
    TooLarge {
        /// What is counted.
        what: &'static str,
        /// Count or bytes given.
        size: usize,
        /// The bound.
        size_max: usize,
    },
    /// Nothing to build.
    #[error("the request names no output")]
    NoOutputs,
    /// No architecture.
    #[error("the request names no system")]
    NoSystem,
    /// A path that must lie below the root is the root.
    #[error("an output, scratch path, additional file or the inputs directory is the root itself")]
    Root,
    /// One output lies in another or is named twice.
    #[error("the output `{inner}` lies in the output `{outer}`")]
    Nested {
        /// The outer.
        outer: RelativePath,
        /// The inner.
        inner: RelativePath,
    },
    /// The program is no absolute path.
    #[error("the program `{program}` is not an absolute path")]
    Program {
        /// The path, escaped.
        program: String,
    },
    /// A variable no program can be given.
    #[error("the environment variable `{name}` has an impossible name or a NUL byte in its value")]
    Environment {
        /// The name, escaped.
        name: String,
    },
    /// An argument no program can be given.
    #[error("the argument `{argument}` holds a NUL byte")]
    Nul {
        /// The argument, escaped.
        argument: String,
    },
}

impl CheckRequestError {
    /// Always the sender's fault.
    pub fn code(&self) -> Code {
        Code::InvalidArgument
    }
}

fn at_most(what: &'static str, size: usize, size_max: usize) -> Result<(), CheckRequestError> {
    if size > size_max {
        Err(CheckRequestError::TooLarge { what, size, size_max })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
