//! Jobs on the wire.
//!
//! Invariants
//! - a job is one message of at most [`JOB_MESSAGE_BYTES_MAX`]; a report may be of any length, and comes in parts;
//! - a [`Job`] that was read names only absolute folders, and lists that were bounded.
//!
//! Map: [`update`] what a watcher hears, [`report`] how a job ended.

pub mod report;
pub mod update;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use bytes::Bytes;
use igloo_driver::job::{Job, JobError, JobOptions, Wanted};
use prost::Message as _;

use crate::build::{at_most, form, limits_message, read_limits};
use crate::error::{InField, WireError};
use crate::evaluate::{
    EVALUATE_MESSAGE_BYTES_MAX, evaluate_failure_message, evaluate_message, names_message, read_code,
    read_evaluate, read_evaluate_failure, read_names, read_path, read_variables,
};
use crate::event::text;
use crate::igloo::build::v1 as build;
use crate::igloo::coordinator::v1;
use v1::job::Wanted as Kind;

/// Largest message with a job, bytes.
pub const JOB_MESSAGE_BYTES_MAX: usize = EVALUATE_MESSAGE_BYTES_MAX;
/// Largest message of a job's answer, bytes: a text of [`crate::evaluate::EVALUATION_TEXT_BYTES_MAX`], or one failure with
/// all its causes.
pub const JOB_EVENT_BYTES_MAX: usize = 8 << 20;
/// Most derivations or paths wanted by one job.
pub const WANTED_MAX: usize = 1 << 18;
/// Most folders of one job.
pub const FOLDERS_MAX: usize = 1 << 10;
/// Longest folder, bytes (PATH_MAX, linux/limits.h).
const FOLDER_BYTES_MAX: usize = 4096;

/// Writes a job.
///
/// # Errors
/// Over [`JOB_MESSAGE_BYTES_MAX`].
pub fn job_message(job: Job) -> Result<v1::Job, WireError> {
    let wanted = match job.wanted {
        Wanted::Evaluated(request) => Kind::Evaluated(evaluate_message(*request)),
        Wanted::Outputs(derivations) => Kind::Outputs(v1::WantedOutputs {
            derivations: derivations
                .iter()
                .map(|(drv, outputs)| v1::WantedDerivation {
                    drv: drv.to_string(),
                    outputs: names_message(outputs),
                })
                .collect(),
        }),
        Wanted::Paths(paths) => Kind::Paths(v1::WantedPaths {
            paths: paths.iter().map(ToString::to_string).collect(),
        }),
    };
    let message = v1::Job {
        wanted: Some(wanted),
        options: Some(options_message(job.options)),
    };
    at_most(message.encoded_len(), JOB_MESSAGE_BYTES_MAX, "job")?;
    Ok(message)
}

fn options_message(options: JobOptions) -> v1::JobOptions {
    let environment = options.impure_environment.into_iter();
    v1::JobOptions {
        keep_going: options.keep_going,
        substitute: options.substitute,
        dry_run: options.dry_run,
        check: options.check,
        cores: options.cores,
        memory_mib: options.memory_mib,
        limits: Some(limits_message(&options.limits)),
        impure_environment: environment
            .map(|(name, value)| build::EnvironmentVariable { name, value })
            .collect(),
        folders: options
            .folders
            .iter()
            .map(|folder| Bytes::copy_from_slice(folder.as_os_str().as_bytes()))
            .collect(),
    }
}

/// Reads a job.
///
/// # Errors
/// A list over its bound or out of order, a path that is none, a kind that is not known.
pub fn read_job(job: v1::Job) -> Result<Job, WireError> {
    let wanted = match job.wanted.field("wanted")? {
        Kind::Evaluated(request) => Wanted::Evaluated(Box::new(read_evaluate(request)?)),
        Kind::Outputs(outputs) => {
            at_most(outputs.derivations.len(), WANTED_MAX, "derivations")?;
            let derivations = outputs.derivations.iter();
            let wanted: Result<_, WireError> = derivations
                .map(|wanted| Ok((read_path(&wanted.drv, "drv")?, read_names(&wanted.outputs)?)))
                .collect();
            Wanted::Outputs(wanted?)
        }
        Kind::Paths(paths) => {
            at_most(paths.paths.len(), WANTED_MAX, "paths")?;
            let paths: Result<_, _> = paths.paths.iter().map(|path| read_path(path, "paths")).collect();
            Wanted::Paths(paths?)
        }
    };
    let options = read_options(job.options.unwrap_or_default())?;
    Ok(Job { wanted, options })
}

fn read_options(options: v1::JobOptions) -> Result<JobOptions, WireError> {
    at_most(options.folders.len(), FOLDERS_MAX, "folders")?;
    let variables = options.impure_environment.into_iter();
    let pairs = variables.map(|variable| (variable.name, variable.value));
    let folders: Result<_, _> = options.folders.iter().map(|bytes| read_folder(bytes)).collect();
    Ok(JobOptions {
        keep_going: options.keep_going,
        substitute: options.substitute,
        dry_run: options.dry_run,
        check: options.check,
        cores: options.cores,
        memory_mib: options.memory_mib,
        limits: options.limits.as_ref().map(read_limits).unwrap_or_default(),
        impure_environment: read_variables(pairs, "impure_environment")?,
        folders: folders?,
    })
}

fn read_folder(bytes: &[u8]) -> Result<PathBuf, WireError> {
    at_most(bytes.len(), FOLDER_BYTES_MAX, "folders")?;
    if bytes.first() != Some(&b'/') || bytes.contains(&0) {
        return Err(form("folders", "absolute paths without NUL"));
    }
    Ok(PathBuf::from(OsStr::from_bytes(bytes)))
}

/// Writes why a job could not be run.
pub fn job_failure_message(error: JobError) -> v1::JobFailure {
    use v1::job_failure::Failure;
    let code = error.code().number();
    let failure = match error {
        JobError::Evaluate(error) => Failure::Evaluate(evaluate_failure_message(error)),
        JobError::Gone { reason } => Failure::Gone(text(&reason)),
        JobError::Invalid { reason } => Failure::Invalid(text(&reason)),
        JobError::Host { reason, .. } => Failure::Host(text(&reason)),
    };
    v1::JobFailure {
        failure: Some(failure),
        code,
    }
}

/// Reads why a job could not be run. A kind this igloo does not know is the coordinator's failure.
pub fn read_job_failure(failure: v1::JobFailure) -> JobError {
    use v1::job_failure::Failure;
    let code = read_code(failure.code);
    match failure.failure {
        Some(Failure::Evaluate(error)) => JobError::Evaluate(read_evaluate_failure(error)),
        Some(Failure::Gone(reason)) => JobError::Gone {
            reason: text(&reason),
        },
        Some(Failure::Invalid(reason)) => JobError::Invalid {
            reason: text(&reason),
        },
        Some(Failure::Host(reason)) => JobError::Host {
            reason: text(&reason),
            code,
        },
        None => JobError::Host {
            reason: "it failed in a way that this igloo does not know".into(),
            code,
        },
    }
}

#[cfg(test)]
mod tests;
