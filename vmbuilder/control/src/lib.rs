//! The words between a build's host and the agent in its machine.
//!
//! One byte stream each way (a virtio-serial port, or vsock), open for the machine's life. Each way starts with a
//! preface ([`frame::PREFACE`]), then frames: a length and one message. Nothing here does I/O but [`stream`]; the host
//! feeds [`frame::Decoder`] from whatever runtime it has.
//!
//! # Sequence
//!
//! ```text
//! guest (agent)                         host
//!   boot
//!   preface, Hello  ------------------>   Booting -> Mounting     host's own deadline runs until here
//!   Mounted         ------------------>   Idle                    pooled machines wait here, with an empty closure
//!                   <------------------ preface, Prepare(spec)    closure has been swapped in before
//!                   <------------------ File, FileData*           any number of times; bytes as announced
//!                   <------------------ Run
//!   Started         ------------------>   Running
//!   Log*            ------------------>
//!                   <------------------ Kill                      at any time; the answer is Exited
//!   Exited          ------------------>   Exited                  everything but the agent is dead, the log is whole
//!                   <------------------ Collect                   only if the host wants the outputs
//!   OutputBegin .. OutputEnd  --------->  Collecting              each output of the spec, in the spec's order
//!     or OutputError                      Finished                the first thing wrong ends it
//!   Collected       ------------------>   Finished
//!                   <------------------ PowerOff                  from any state
//! ```
//!
//! In every state the agent may say `Failed`; it then only waits for `PowerOff`. The agent powers the machine off by
//! itself when the channel closes. [`sequence::GuestSequence`] holds the guest to this order, and
//! [`sequence::HostSequence`] the host.
//!
//! # Flow
//!
//! The guest may have [`window::WINDOW_BYTES`] on the way that the host has not acknowledged with `Ack`; then it stops
//! reading the build's output, and the build waits. So the host's memory is bounded, nothing is dropped, and `Kill` is
//! still heard. The other way needs no window: the agent always reads.
//!
//! Invariants
//! - the guest is hostile: any bytes give an error or a message within the bounds of [`frame`] and [`message`], never a
//!   panic, never an allocation larger than a few frames;
//! - both sides are released together: a different [`frame::VERSION`] is an error, there is no negotiation.

pub mod etc;
pub mod frame;
pub mod message;
pub mod sequence;
pub mod spec;
pub mod stream;
pub mod window;

pub use frame::{Decoder, FrameError};
pub use message::{GuestMessage, HostMessage};
pub use sequence::{GuestSequence, HostSequence};
pub use spec::BuildSpec;
pub use window::{ReceiveWindow, SendWindow};

/// Name of the virtio-serial port that carries the channel (`/sys/class/virtio-ports/*/name`).
pub const PORT_NAME: &str = "igloo.control";

/// Tag of the virtiofs device that shows the inputs.
pub const VIRTIOFS_TAG: &str = "igloo";

/// Serial number (`/sys/block/vd*/serial`) of the optional scratch disk; the agent formats nothing and mounts it as ext4.
pub const SCRATCH_SERIAL: &str = "igloo-scratch";
