//! A builder that gives every build its own microVM.
//!
//! Map, from the outside in
//! - [`host`], [`image`], [`accelerator`]: what this host can run machines with, and what to boot;
//! - [`machine`]: a machine in stages, and [`machine::Vmm`], what starts one;
//! - [`qemu`]: the QEMU driver;
//! - [`channel`], [`tail`], [`share`]: a machine's ends on the host: its agent's stream, its last words, its inputs;
//! - [`process`], [`runtime_dir`]: children and directories that cannot outlive us.

pub mod accelerator;
pub mod channel;
pub mod host;
pub mod image;
pub mod machine;
pub mod process;
pub mod qemu;
pub mod runtime_dir;
pub mod share;
pub mod tail;
