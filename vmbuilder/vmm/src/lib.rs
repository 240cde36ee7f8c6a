//! A builder that gives every build its own microVM.
//!
//! Map, from the outside in
//! - [`builder`]: [`MicroVmBuilder`], an [`igloo_build::Builder`];
//! - [`probe`], [`host`], [`image`], [`accelerator`]: what this host can run machines with, and what to boot;
//! - [`machine`]: a machine in stages, and [`machine::Vmm`], what starts one;
//! - [`load`]: how busy this host is;
//! - [`doctor`]: what is missing on this host, and how to mend it;
//! - [`session`]: the conversation with the agent in it;
//! - [`qemu`]: the QEMU driver;
//! - [`channel`], [`tail`], [`share`]: a machine's ends on the host: its agent's stream, its last words, its inputs;
//! - [`process`], [`runtime_dir`]: children and directories that cannot outlive us.

pub mod accelerator;
pub mod builder;
pub mod channel;
pub mod doctor;
pub mod host;
pub mod image;
pub mod load;
pub mod machine;
pub mod probe;
pub mod process;
pub mod qemu;
pub mod runtime_dir;
pub mod session;
pub mod share;
pub mod tail;

pub use accelerator::{Accelerator, AcceleratorChoice};
pub use builder::{MicroVmBuilder, MicroVmConfig, NetworkPolicy, SizePolicy};
pub use image::GuestImage;
pub use probe::{Probe, ProbeConfig};

/// An error with its causes, for a field that has no source.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let words: Vec<_> = causes.map(ToString::to_string).collect();
    words.join(": ")
}
