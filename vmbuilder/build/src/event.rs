//! What a watcher sees while a build runs.
//!
//! Invariants
//! - log bytes are raw: not text, not cut at lines, not cleaned of escape sequences; who shows them cleans them;
//! - `Log::sequence` is the number of log bytes before it, so a watcher that comes back knows what it missed;
//! - sending waits when the watcher is slow: back-pressure reaches the build, no log is dropped.

use bytes::Bytes;
use tokio::sync::mpsc;

/// Something that happened in a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildEvent {
    /// A machine is being prepared.
    Preparing {
        /// What runs it, for people ("QEMU, software emulation").
        machine: String,
    },
    /// The program has been started.
    Started,
    /// The program wrote to its output.
    Log {
        /// Log bytes before these.
        sequence: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// The program has ended and its outputs are being taken in.
    Collecting,
}

/// Where a builder reports events.
pub type EventSender = mpsc::Sender<BuildEvent>;
