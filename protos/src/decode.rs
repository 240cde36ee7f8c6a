//! From bytes to domain types in one step: what a peer's message goes through, without a connection.
//!
//! One function for each message that is decoded whole, so that a fuzzer can feed each. What is accepted is written again
//! and read again: the second reading must succeed, else the function panics in debug builds.

use bytes::Bytes;
use igloo_build::{BuildReport, BuildRequest, BuilderOffer, Lease};
use igloo_driver::job::{Job, Update};
use igloo_evaluator::EvaluateRequest;
use prost::{DecodeError, Message};

use crate::WireError;
use crate::build::RequestReader;
use crate::coordinator::update::{read_update, update_message};
use crate::coordinator::{job_message, read_job};
use crate::evaluate::{evaluate_message, read_evaluate};
use crate::igloo::build::v1 as build;
use crate::igloo::coordinator::v1 as coordinator;
use crate::igloo::evaluator::v1 as evaluator;
use crate::lease::{read_attach, read_offer};

/// Why bytes are no message we take.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DecodeMessageError {
    /// No message of that schema.
    #[error("the bytes are no message of this kind")]
    Protobuf(#[from] DecodeError),
    /// A message that breaks a rule.
    #[error(transparent)]
    Wire(#[from] WireError),
}

impl DecodeMessageError {
    /// Always the sender's fault.
    pub fn code(&self) -> igloo_status::Code {
        igloo_status::Code::InvalidArgument
    }
}

/// A job (`igloo.coordinator.v1.Job`).
///
/// # Errors
/// See [`DecodeMessageError`].
pub fn job(bytes: &[u8]) -> Result<Job, DecodeMessageError> {
    let job = read_job(message::<coordinator::Job>(bytes)?)?;
    debug_assert!(job_message(job.clone()).and_then(read_job).is_ok());
    Ok(job)
}

/// An update (`igloo.coordinator.v1.JobEvent`); `None` for a kind that is not known, and for the end.
///
/// # Errors
/// See [`DecodeMessageError`].
pub fn job_event(bytes: &[u8]) -> Result<Option<Update>, DecodeMessageError> {
    let Some(event) = message::<coordinator::JobEvent>(bytes)?.event else {
        return Ok(None);
    };
    let update = read_update(event)?;
    if let Some(update) = &update {
        let again = update_message(update.clone()).event.map(read_update);
        debug_assert!(matches!(again, Some(Ok(Some(_)))));
    }
    Ok(update)
}

/// An evaluation (`igloo.evaluator.v1.EvaluateRequest`).
///
/// # Errors
/// See [`DecodeMessageError`].
pub fn evaluate_request(bytes: &[u8]) -> Result<EvaluateRequest, DecodeMessageError> {
    let request = read_evaluate(message::<evaluator::EvaluateRequest>(bytes)?)?;
    debug_assert_eq!(
        read_evaluate(evaluate_message(request.clone())).as_ref(),
        Ok(&request)
    );
    Ok(request)
}

/// A build request, as parts (`igloo.build.v1.BuildRequestPart`) each after its size in two bytes, big end first.
///
/// # Errors
/// See [`DecodeMessageError`].
pub fn build_request(mut bytes: &[u8]) -> Result<BuildRequest, DecodeMessageError> {
    let mut next = || {
        let (size, rest) = bytes.split_first_chunk::<2>()?;
        let size = usize::from(u16::from_be_bytes(*size)).min(rest.len());
        let (part, rest) = rest.split_at(size);
        bytes = rest;
        Some(part)
    };
    let first = message::<build::BuildRequestPart>(next().unwrap_or_default())?;
    let mut reader = RequestReader::new(first)?;
    while let Some(part) = next() {
        reader.part(message(part)?)?;
    }
    Ok(reader.finish()?.request)
}

/// An order to attend a build (`igloo.build.v1.AttachRequest`).
///
/// # Errors
/// See [`DecodeMessageError`].
pub fn attach(bytes: &[u8]) -> Result<Lease, DecodeMessageError> {
    Ok(read_attach(message::<build::AttachRequest>(bytes)?)?.0)
}

/// What a builder offers (`igloo.build.v1.Capabilities`).
///
/// # Errors
/// See [`DecodeMessageError`].
pub fn offer(bytes: &[u8]) -> Result<BuilderOffer, DecodeMessageError> {
    Ok(read_offer(&message::<build::Capabilities>(bytes)?)?)
}

/// How a build ended (`igloo.build.v1.Report`).
///
/// # Errors
/// See [`DecodeMessageError`].
pub fn build_report(bytes: &[u8]) -> Result<BuildReport, DecodeMessageError> {
    Ok(BuildReport::try_from(message::<build::Report>(bytes)?)?)
}

/// Decodes a copy, because what is decoded shares the buffer.
fn message<M: Message + Default>(bytes: &[u8]) -> Result<M, DecodeError> {
    M::decode(Bytes::copy_from_slice(bytes))
}
