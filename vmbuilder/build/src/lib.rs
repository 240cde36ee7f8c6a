//! What a build is, for every kind of builder: a request that says everything, events while it runs, an outcome.
//!
//! Nothing here knows Nix, virtual machines or gRPC. The derivation-to-request step makes requests, `vmbuilder/vmm` is a
//! [`Builder`], `protos/remote` carries all of it to another process.
//!
//! Map
//! - [`path`]: relative paths inside a build's root;
//! - [`request`]: [`BuildRequest`], its constraints and limits, and the checks every builder relies on;
//! - [`event`]: what a watcher sees while a build runs;
//! - [`outcome`]: how a build ended, and why a builder could not run it;
//! - [`lease`]: builds that outlive the call that started them; [`offer`]: what a builder offers, how busy it is;
//! - [`builder`]: the traits [`Builder`] and [`OutputSink`].

pub mod builder;
pub mod event;
pub mod lease;
pub mod offer;
pub mod outcome;
pub mod path;
pub mod request;

pub use builder::{BuildIo, Builder, OutputSink};
pub use event::{BuildEvent, EventSender};
pub use lease::{Lease, LeaseError, LeaseOwner, LeaseStatus};
pub use offer::{BuilderLoad, BuilderOffer};
pub use outcome::{BuildError, BuildOutcome, BuildReport, BuildStats};
pub use path::RelativePath;
pub use request::{BuildRequest, Constraints, Limits};
