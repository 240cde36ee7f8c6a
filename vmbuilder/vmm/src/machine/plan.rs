//! A machine as it will be started on this host: everything decided and checked, nothing done yet.
//!
//! Invariants
//! - every text that reaches QEMU's comma-separated options is free of commas and control characters;
//! - memory, cores and paths are within what QEMU and the kernel take, so a start does not fail for them.

use std::path::{Path, PathBuf};

use igloo_status::Code;
use serde::{Deserialize, Serialize};

use super::scratch::{SCRATCH_BYTES_MAX, SCRATCH_BYTES_MIN};
use super::spec::{MachineSpec, Network, ScratchSpec};
use crate::accelerator::Accelerator;
use crate::host::HostAbilities;
use crate::image::Bus;

/// Least memory an agent and a small build need, MiB.
pub const MEMORY_MIB_MIN: u32 = 96;
/// Most memory of one machine, MiB.
pub const MEMORY_MIB_MAX: u32 = 1 << 20;
/// Most processors of one machine.
pub const CORES_MAX: u32 = 255;
/// Longest kernel command line, bytes (COMMAND_LINE_SIZE, arch/x86/include/asm/setup.h).
const COMMAND_LINE_SIZE_MAX: usize = 2047;
/// The cheapest boards first: no legacy devices to find.
const X86_BOARDS: [Board; 2] = [Board::Microvm, Board::Q35];

/// A machine as it will be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The emulator.
    pub qemu: PathBuf,
    /// What executes instructions.
    pub accelerator: Accelerator,
    /// Which board.
    pub board: Board,
    /// How devices are attached.
    pub bus: Bus,
    /// The kernel.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initramfs: PathBuf,
    /// The kernel's whole command line.
    pub command_line: String,
    /// Memory, MiB.
    pub memory_mib: u32,
    /// Processors.
    pub cores: u32,
    /// The file system it sees.
    pub share: Option<SharePlan>,
    /// A disk.
    pub scratch: Option<ScratchSpec>,
    /// What it can reach.
    pub network: Network,
}

/// A virtiofs device as it will be attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharePlan {
    /// The name the guest mounts it by.
    pub tag: String,
    /// Request queues: one for each processor, as a guest uses no more.
    pub queues: u32,
}

/// A kind of machine QEMU can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Board {
    /// x86, no legacy devices.
    Microvm,
    /// x86, a PC.
    Q35,
    /// aarch64.
    Virt,
}

impl Board {
    /// The name QEMU knows it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::Microvm => "microvm",
            Self::Q35 => "q35",
            Self::Virt => "virt",
        }
    }

    fn console(self) -> &'static str {
        match self {
            Self::Microvm | Self::Q35 => "ttyS0",
            Self::Virt => "ttyAMA0",
        }
    }
}

impl Plan {
    /// Decides how a machine is run here. Looks at nothing but its arguments.
    ///
    /// # Errors
    /// The first wish this host or QEMU cannot grant.
    pub fn resolve(
        spec: &MachineSpec,
        host: &HostAbilities,
        accelerator: Accelerator,
    ) -> Result<Self, PlanError> {
        let qemu = host.qemu(&spec.system).ok_or_else(|| PlanError::System {
            system: spec.system.clone(),
        })?;
        let board = choose_board(spec, qemu, accelerator, host.tsc_khz)?;
        check_range("MiB of memory", spec.memory_mib, MEMORY_MIB_MIN, MEMORY_MIB_MAX)?;
        check_range("processors", spec.cores, 1, CORES_MAX)?;
        if let Some(scratch) = &spec.scratch {
            check_range(
                "MiB of scratch disk",
                mib(scratch.size_bytes),
                mib(SCRATCH_BYTES_MIN),
                mib(SCRATCH_BYTES_MAX),
            )?;
        }
        check_option_path(&spec.kernel)?;
        check_option_path(&spec.initramfs)?;
        let share = spec
            .share
            .as_ref()
            .map(|share| plan_share(&share.tag, spec.cores));
        Ok(Self {
            qemu: qemu.path.clone(),
            accelerator,
            board,
            bus: spec.bus,
            kernel: spec.kernel.clone(),
            initramfs: spec.initramfs.clone(),
            command_line: command_line(spec, board, accelerator, host.tsc_khz)?,
            memory_mib: spec.memory_mib,
            cores: spec.cores,
            share: share.transpose()?,
            scratch: spec.scratch.clone(),
            network: spec.network,
        })
    }

    /// What runs the machine, for people.
    pub fn describe(&self) -> String {
        format!(
            "QEMU {}, {}, {} MiB, {} cores",
            self.board.name(),
            self.accelerator,
            self.memory_mib,
            self.cores
        )
    }
}

/// On `microvm` with ACPI a kernel finds the clock's rate by a legacy timer, which fails under load and hangs it; so that
/// board is used only when the rate can be told, or KVM tells it.
fn choose_board(
    spec: &MachineSpec,
    qemu: &crate::host::Qemu,
    accelerator: Accelerator,
    tsc_khz: Option<u32>,
) -> Result<Board, PlanError> {
    let has = |board: &Board| qemu.boards.contains(board);
    let board = match spec.system.as_str() {
        "aarch64-linux" => [Board::Virt].into_iter().find(has),
        _ => X86_BOARDS
            .into_iter()
            .filter(|board| *board != Board::Microvm || accelerator != Accelerator::Tcg || tsc_khz.is_some())
            .filter(|board| spec.bus == Bus::Pci || *board == Board::Microvm)
            .find(has),
    };
    board.ok_or_else(|| PlanError::NoBoard {
        qemu: qemu.path.clone(),
        system: spec.system.clone(),
    })
}

fn command_line(
    spec: &MachineSpec,
    board: Board,
    accelerator: Accelerator,
    tsc_khz: Option<u32>,
) -> Result<String, PlanError> {
    let mut words = vec![format!("console={}", board.console())];
    words.extend(spec.command_line.split_ascii_whitespace().map(str::to_owned));
    // a guest that panics is of no use to anyone: reboot at once, which ends QEMU (-no-reboot)
    words.extend(["panic=-1".into(), "reboot=t".into(), "random.trust_cpu=on".into()]);
    if let (Board::Microvm, Accelerator::Tcg, Some(khz)) = (board, accelerator, tsc_khz) {
        // emulated, the counter is the host's own
        words.extend([format!("tsc_early_khz={khz}"), "tsc=reliable".into()]);
    }
    let line = words.join(" ");
    if line.len() > COMMAND_LINE_SIZE_MAX {
        return Err(PlanError::CommandLine { size: line.len() });
    }
    Ok(line)
}

fn plan_share(tag: &str, cores: u32) -> Result<SharePlan, PlanError> {
    let fits = (1..=35).contains(&tag.len()) && tag.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if !fits {
        return Err(PlanError::Tag { tag: tag.to_owned() });
    }
    Ok(SharePlan {
        tag: tag.to_owned(),
        queues: cores.min(crate::share::QUEUES_MAX),
    })
}

fn mib(bytes: u64) -> u32 {
    u32::try_from(bytes >> 20).unwrap_or(u32::MAX)
}

fn check_range(what: &'static str, value: u32, min: u32, max: u32) -> Result<(), PlanError> {
    if (min..=max).contains(&value) {
        Ok(())
    } else {
        Err(PlanError::Range {
            what,
            value,
            min,
            max,
        })
    }
}

/// Paths go into options where a comma ends the value.
fn check_option_path(path: &Path) -> Result<(), PlanError> {
    let text = path
        .to_str()
        .filter(|text| !text.contains([',', '\n', '\0']) && text.starts_with('/'));
    match text {
        Some(_) => Ok(()),
        None => Err(PlanError::Path {
            path: path.to_owned(),
        }),
    }
}

/// Why a machine cannot be run here.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// No emulator for that architecture.
    #[error(
        "there is no QEMU for {system} on this machine; install qemu-system-x86 or qemu-system-arm (`igloo doctor` shows what was looked for)"
    )]
    System {
        /// What was asked for.
        system: String,
    },
    /// An emulator without a board that fits.
    #[error("{} has no machine type that can boot the image for {system}; install a QEMU with `microvm`, `q35` or `virt`", qemu.display())]
    NoBoard {
        /// The emulator.
        qemu: PathBuf,
        /// What was asked for.
        system: String,
    },
    /// A number no machine can have.
    #[error("a machine cannot have {value} {what}: it must be {min} to {max}")]
    Range {
        /// Of what.
        what: &'static str,
        /// Asked for.
        value: u32,
        /// Least.
        min: u32,
        /// Most.
        max: u32,
    },
    /// A path QEMU cannot be given.
    #[error("the path {} is not absolute, or holds a comma or a line break, which QEMU's options do not take", path.display())]
    Path {
        /// The path.
        path: PathBuf,
    },
    /// A tag virtiofs cannot have.
    #[error("`{tag}` is no virtiofs tag: 1 to 35 letters and digits")]
    Tag {
        /// The tag.
        tag: String,
    },
    /// Longer than the kernel reads.
    #[error("the kernel's command line would have {size} bytes, more than {COMMAND_LINE_SIZE_MAX}")]
    CommandLine {
        /// Its size.
        size: usize,
    },
}

impl PlanError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::System { .. } | Self::NoBoard { .. } => Code::FailedPrecondition,
            Self::Range { .. } | Self::Path { .. } | Self::Tag { .. } | Self::CommandLine { .. } => {
                Code::InvalidArgument
            }
        }
    }
}

#[cfg(test)]
mod tests;
