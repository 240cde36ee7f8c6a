//! From the errors of stores to those an evaluation shows.

use std::error::Error;
use std::io;

use igloo_eval::io::IoError;
use igloo_status::Code;

/// An error and its causes in one line: the evaluator prints messages, not chains.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // transparent wrappers say the same twice
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

/// The store failed, or what it holds of `what`.
pub(crate) fn store_error(
    what: impl Into<String>,
    code: Code,
    source: impl Error + Send + Sync + 'static,
) -> IoError {
    IoError::Store {
        what: what.into(),
        code,
        source: Box::new(source),
    }
}

/// What the system said of `path`.
pub(crate) fn system_error(path: &[u8], source: io::Error) -> IoError {
    let path = text(path);
    match source.kind() {
        io::ErrorKind::NotFound => IoError::NotFound { path },
        io::ErrorKind::NotADirectory => IoError::WrongType {
            path,
            wanted: "directory",
        },
        io::ErrorKind::IsADirectory => IoError::WrongType {
            path,
            wanted: "regular file",
        },
        _ => IoError::System { path, source },
    }
}

pub(crate) fn not_found(path: &[u8]) -> IoError {
    IoError::NotFound { path: text(path) }
}

/// A path for a message.
pub(crate) fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
