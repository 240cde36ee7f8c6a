//! Errors over the wire, and when a call is tried again.
//!
//! Invariants
//! - the class of an error ([`Code`]) is the same on both ends: the numbers are gRPC's;
//! - a message of the peer is for people only: it is cleaned, cut, and never matched on;
//! - only calls that change nothing, or nothing more the second time, are tried again, and only when the peer gave no
//!   answer at all.

use std::error::Error;

use igloo_castore::digest::DirectoryDigest;
use igloo_castore::error::{BackendError, WriteError};
use igloo_castore::store::StoreName;
use igloo_protos::event::text;
use igloo_status::Code;
use tonic::Status;
use tonic::metadata::MetadataValue;

use crate::limits::{ANSWER_WITHIN, RETRY_AFTER};

/// Metadata with the digest of the directory that a refused one refers to.
const DANGLING_KEY: &str = "igloo-dangling-bin";

/// What a peer answered instead of what was asked for, or why there was no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({code})")]
pub struct RemoteError {
    /// The class.
    pub code: Code,
    /// The peer's words, cleaned, or the transport's.
    pub message: String,
}

impl RemoteError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        self.code
    }
}

impl From<&Status> for RemoteError {
    fn from(status: &Status) -> Self {
        let message = match status.message() {
            "" => "the peer gave no reason".to_owned(),
            message => text(message),
        };
        Self {
            code: code(status),
            message: with_causes(message, status.source()),
        }
    }
}

/// The class of a status; a connection that broke is `Unavailable`, whatever the transport calls it.
pub(crate) fn code(status: &Status) -> Code {
    // a status that came over the wire has no source
    let broke = status.source().is_some();
    match Code::from_number(status.code() as i32) {
        Some(Code::Unknown | Code::Internal | Code::Cancelled) if broke => Code::Unavailable,
        Some(code) => code,
        None => Code::Unknown,
    }
}

/// The status for an error: its class, and its message with all causes.
pub(crate) fn refuse(code: Code, error: &dyn Error) -> Status {
    let message = with_causes(error.to_string(), error.source());
    Status::new(tonic::Code::from_i32(code.number()), text(&message))
}

fn with_causes(mut text: String, mut cause: Option<&(dyn Error + 'static)>) -> String {
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// The status for a refused write; keeps what `Dangling` names.
pub(crate) fn refuse_write(error: &WriteError) -> Status {
    let mut status = refuse(error.code(), error);
    if let WriteError::Dangling { child } = error {
        let digest = MetadataValue::from_bytes(child.as_bytes());
        status.metadata_mut().insert_bin(DANGLING_KEY, digest);
    }
    status
}

/// A failed write as the caller sees it.
pub(crate) fn write_error(store: &StoreName, action: &str, status: &Status) -> WriteError {
    let digest = status.metadata().get_bin(DANGLING_KEY);
    let digest = digest.and_then(|value| value.to_bytes().ok());
    match digest.and_then(|bytes| DirectoryDigest::try_from(&bytes[..]).ok()) {
        Some(child) => WriteError::Dangling { child },
        None => WriteError::Backend(backend_error(store, action, status)),
    }
}

/// A failed call as the caller sees it.
pub(crate) fn backend_error(store: &StoreName, action: &str, status: &Status) -> BackendError {
    let error = RemoteError::from(status);
    BackendError::new(store, error.code, format!("cannot {action}"), error)
}

/// A peer that broke the protocol.
pub(crate) fn broken(message: impl Into<String>) -> Status {
    Status::data_loss(message)
}

/// Waits for an answer, not for ever.
pub(crate) async fn answer<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    match tokio::time::timeout(ANSWER_WITHIN, call).await {
        Ok(answer) => answer,
        Err(_) => Err(Status::deadline_exceeded(format!(
            "no answer within {} s",
            ANSWER_WITHIN.as_secs()
        ))),
    }
}

/// Makes a call, and again after a while when nobody answered: at most as often as [`RETRY_AFTER`] says.
pub(crate) async fn retrying<T, F>(mut call: impl FnMut() -> F) -> Result<T, Status>
where
    F: Future<Output = Result<T, Status>>,
{
    for wait in RETRY_AFTER {
        match answer(call()).await {
            Err(status) if code(&status) == Code::Unavailable => {
                tracing::debug!(%status, ?wait, "no answer, trying again");
                tokio::time::sleep(wait).await;
            }
            done => return done,
        }
    }
    answer(call()).await
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn classes_survive_the_wire() {
        for number in 1..=16 {
            let code = Code::from_number(number).unwrap();
            let status = refuse(code, &std::fmt::Error);
            assert_eq!(super::code(&status), code);
        }
    }

    #[test]
    fn a_dangling_child_is_named_on_the_other_side() {
        let child = DirectoryDigest::of(b"child");
        let status = refuse_write(&WriteError::Dangling { child });
        let error = write_error(&"peer".into(), "store directories", &status);
        assert!(matches!(error, WriteError::Dangling { child: found } if found == child));
    }

    /// The bound holds, and only silence is retried.
    #[tokio::test(start_paused = true)]
    async fn only_unavailable_is_tried_again_and_not_for_ever() {
        for (status, expected) in [
            (Status::unavailable("gone"), RETRY_AFTER.len() + 1),
            (Status::not_found("no"), 1),
        ] {
            let calls = Cell::new(0);
            let result: Result<(), _> = retrying(|| {
                calls.set(calls.get() + 1);
                std::future::ready(Err(status.clone()))
            })
            .await;
            assert!(result.is_err());
            assert_eq!(calls.get(), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_is_given_up() {
        let error = answer::<()>(std::future::pending()).await.unwrap_err();
        assert_eq!(code(&error), Code::DeadlineExceeded);
    }
}
