//! The end of the process.
//!
//! Invariant: nothing runs after the last line is written. A thread of the database, of a mount or of a dropped job may be at
//! work to the last moment; the C library's and C++'s own tidying would take its locks away under its hands. What has to last
//! is synced by then, and what has not is what a kill would leave too.
#![allow(
    unsafe_code,
    reason = "ending without the C library's tidying has no safe face"
)]

use std::io::Write as _;

/// Ends the process with this code, once what was printed is out.
pub fn leave(code: u8) -> ! {
    let _ = std::io::stdout().flush(); // nowhere left to say that it failed
    let _ = std::io::stderr().flush();
    // SAFETY: takes a number, returns never
    unsafe { libc::_exit(i32::from(code)) }
}
