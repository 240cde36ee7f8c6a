//! The one table from error codes to errno.
//!
//! A guest or a process learns nothing but the errno; the typed error with its cause goes to the log.

use std::ffi::c_int;

use igloo_status::Code;

/// The errno a failure of this class is answered with.
///
/// Damaged, missing and unreachable content are all `EIO`: a program that reads a file can do nothing about either, and
/// `ENOENT` in the middle of a file would be a lie.
pub fn errno(code: Code) -> c_int {
    match code {
        Code::Cancelled => libc::EINTR,
        Code::InvalidArgument | Code::OutOfRange => libc::EINVAL,
        Code::PermissionDenied | Code::Unauthenticated => libc::EACCES,
        Code::ResourceExhausted => libc::ENOMEM,
        Code::Unimplemented => libc::ENOSYS,
        Code::AlreadyExists => libc::EEXIST,
        _ => libc::EIO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_content_is_an_input_output_error() {
        for code in [
            Code::NotFound,
            Code::DataLoss,
            Code::Unavailable,
            Code::DeadlineExceeded,
            Code::Internal,
        ] {
            assert_eq!(errno(code), libc::EIO);
        }
    }
}
