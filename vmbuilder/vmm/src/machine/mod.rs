//! A machine in four stages: what is wanted, what that means on this host, what it holds here, and the running thing.
//!
//! [`MachineSpec`] → [`Plan`] (checked, no effect yet) → [`Resources`] (directory, sockets, file server; gone on drop) →
//! [`Running`] (a process; killed on drop). [`Vmm`] is the trait of what turns the second and third into the fourth.

mod plan;
mod resources;
mod running;
mod scratch;
mod spec;
mod vmm;

pub use plan::{Board, Plan, PlanError, SharePlan};
pub use resources::{PrepareError, Resources, ShareSocket};
pub use running::{PostMortem, Running, Tails};
pub use scratch::MakeScratchError;
pub use spec::{MachineSpec, Network, ScratchSpec, ShareSpec};
pub use vmm::{StartError, Vmm};
