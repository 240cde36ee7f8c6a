//! Builds over the wire.
//!
//! Invariants
//! - the client's future owns the call: dropping it cancels the build on the other side, and closes the tunnel;
//! - a build that a peer did not report on to its end is a failure of the machine (`BuildError::Machine`), never an
//!   outcome;
//! - the caller's store can be read by the builder, never written: see [`read_only`];
//! - a build under a lease is not cancelled so: it goes on for a while, and the next caller attends it (see [`lease`]);
//! - inputs that could not be read are never blamed on the build;
//! - nothing is buffered without bound: a slow watcher or sink slows the build.
//!
//! Inputs come from a store that both sides know under one URL, else from the caller, over a [`tunnel`]. The tunnel lets
//! the builder read whatever it can name of `BuildIo::inputs`, so who keeps secrets from a builder hands in a store
//! without them.

mod client;
mod inputs;
mod lease;
mod read_only;
mod relay;
mod server;
mod snix;
mod tunnel;
mod watch;

pub use client::GrpcBuilder;
pub use lease::LeasePolicy;
pub(crate) use server::BuildServer;
pub use server::BuildService;
pub(crate) use snix::SnixBuildServer;
