//! What executes a guest's instructions.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What executes a guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// The processor, through Linux's KVM.
    Kvm,
    /// The processor, through macOS's Hypervisor framework.
    Hvf,
    /// Software: every instruction is translated. Slow, and a far larger attack surface than a processor's.
    Tcg,
}

impl Accelerator {
    /// The name QEMU knows it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Hvf => "hvf",
            Self::Tcg => "tcg",
        }
    }
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "KVM",
            Self::Hvf => "HVF",
            Self::Tcg => "software emulation",
        })
    }
}

/// Which accelerator builds use, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceleratorChoice {
    /// Which.
    pub accelerator: Accelerator,
    /// Why, for people.
    pub reason: String,
}
