//! What a build is, for every kind of builder: a request that says everything, events while it runs, an outcome.
//!
//! Nothing here knows derivations, virtual machines or gRPC; of Nix, only that outputs have a NAR hash. The derivation-to-request step makes requests, `vmbuilder/vmm` is a
//! [`Builder`], `protos/remote` carries all of it to another process.
//!
//! Map
//! - [`path`]: relative paths inside a build's root;
//! - [`request`]: [`BuildRequest`], its constraints and limits, and the checks every builder relies on;
//! - [`event`]: what a watcher sees while a build runs;
//! - [`outcome`]: how a build ended, and why a builder could not run it;
//! - [`lease`]: builds that outlive the call that started them; [`offer`]: what a builder offers, how busy it is;
//! - [`builder`]: the trait [`Builder`]; [`output`]: where outputs go.

pub mod builder;
pub mod event;
pub mod lease;
pub mod offer;
pub mod outcome;
pub mod output;
pub mod path;
pub mod request;

pub use builder::{BuildIo, Builder};
pub use event::{BuildEvent, EventSender};
pub use lease::{Lease, LeaseError, LeaseOwner, LeaseStatus};
pub use offer::{BuilderLoad, BuilderOffer};
pub use outcome::{BuildError, BuildOutcome, BuildReport, BuildStats};
pub use output::{OutputSink, StoredOutput};
pub use path::RelativePath;
pub use request::{BuildRequest, Constraints, Limits};
