//! Why a message was refused: the field, and the rule it breaks.

use igloo_build::path::ParsePathError;
use igloo_build::request::CheckRequestError;
use igloo_castore::digest::ParseDigestError;
use igloo_castore::directory::MakeDirectoryError;
use igloo_castore::node::{ParseNameError, ParseTargetError};
use igloo_status::Code;
use nix_compat::store_path::ParseStorePathError;

/// A message that breaks a rule of its schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message's field `{field}` is wrong")]
pub struct WireError {
    /// The field, as the schema names it.
    pub field: &'static str,
    /// The rule.
    #[source]
    pub reason: WireReason,
}

/// The rule a field breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireReason {
    /// Absent, or a oneof of which this igloo knows no member.
    #[error("it is missing, or of a kind that this igloo does not know")]
    Missing,
    /// Has a value where there must be none.
    #[error("it must be empty")]
    NotEmpty,
    /// A list that must strictly ascend does not, or names something twice.
    #[error("`{item}` is out of order or repeated")]
    Order {
        /// The item that should have come earlier, escaped.
        item: String,
    },
    /// A count or size over its bound, or other than announced.
    #[error("its count or size is {size}, where {expected} is allowed")]
    Size {
        /// Given.
        size: u64,
        /// Most allowed, or the size announced.
        expected: u64,
    },
    /// A value outside its range.
    #[error("{value} is outside its range")]
    Range {
        /// The value.
        value: u64,
    },
    /// Something other than what the schema asks for.
    #[error("it must be {expected}")]
    Form {
        /// What it must be.
        expected: &'static str,
    },
    /// Not 32 bytes.
    #[error(transparent)]
    Digest(#[from] ParseDigestError),
    /// No file name.
    #[error(transparent)]
    Name(#[from] ParseNameError),
    /// No symlink target.
    #[error(transparent)]
    Target(#[from] ParseTargetError),
    /// No clean relative path.
    #[error(transparent)]
    Path(#[from] ParsePathError),
    /// Entries that make no directory.
    #[error(transparent)]
    Directory(#[from] MakeDirectoryError),
    /// No store path.
    #[error(transparent)]
    StorePath(#[from] ParseStorePathError),
    /// A request no builder can run.
    #[error(transparent)]
    Request(#[from] CheckRequestError),
}

impl WireError {
    /// Always the sender's fault.
    pub fn code(&self) -> Code {
        Code::InvalidArgument
    }
}

/// Adds the field's name to what is wrong with it.
pub(crate) trait InField<T> {
    fn field(self, field: &'static str) -> Result<T, WireError>;
}

impl<T, E: Into<WireReason>> InField<T> for Result<T, E> {
    fn field(self, field: &'static str) -> Result<T, WireError> {
        self.map_err(|reason| WireError {
            field,
            reason: reason.into(),
        })
    }
}

impl<T> InField<T> for Option<T> {
    fn field(self, field: &'static str) -> Result<T, WireError> {
        self.ok_or(WireError {
            field,
            reason: WireReason::Missing,
        })
    }
}

/// Refuses a sequence that does not strictly ascend.
pub(crate) fn ascending<T: Ord>(
    items: &[T],
    field: &'static str,
    show: impl Fn(&T) -> String,
) -> Result<(), WireError> {
    match items.array_windows().find(|[a, b]| a >= b) {
        None => Ok(()),
        Some([_, item]) => Err(WireError {
            field,
            reason: WireReason::Order { item: show(item) },
        }),
    }
}

/// Bytes of a stranger made fit for a message: escaped, at most 256 of them.
pub(crate) fn printable(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(256)].escape_ascii().to_string()
}
