//! Store paths over the castore.
//!
//! Map
//! - [`path_info`]: what is known of a store path, and the stores of it;
//! - [`store`]: [`Store`], content and records together: register, dump, closure, verify;
//! - [`facts`]: realisations, and where paths come from;
//! - [`add`]: adding paths, texts and NARs;
//! - [`output`]: taking a build's outputs in;
//! - [`nar`]: NARs of trees; [`needles`]: what is looked for in them;
//! - [`url`], [`mod@open`]: where a store is, and opening it; [`lazy`](mod@lazy): opening it when it is first used.

pub mod add;
pub mod facts;
pub mod lazy;
pub mod nar;
pub mod needles;
pub mod open;
pub mod output;
pub mod path_info;
pub mod store;
pub mod url;

pub use add::{AddError, DeclaredNar};
pub use facts::{FactKind, FactStore};
pub use nar::DumpError;
pub use open::{Access, OpenOptions, OpenStoreError, open};
pub use output::{CollectedOutputs, OutputIngest};
pub use path_info::{PathInfo, PathInfoStore};
pub use store::{ClosureError, CommitError, Store, VerifyError};
pub use url::{ParseStoreUrlError, StoreUrl};
