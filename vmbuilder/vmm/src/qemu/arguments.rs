//! QEMU's command line.

use std::ffi::OsString;
use std::fmt;
use std::os::fd::RawFd;

use super::devices::DEVICES;
use crate::machine::Plan;

/// The descriptors QEMU inherits: the host's ends of a machine's devices, and all the files it uses. It reaches nothing
/// by a path but its own installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wiring {
    /// The kernel, open for reading.
    pub kernel_fd: RawFd,
    /// The initramfs, open for reading.
    pub initramfs_fd: RawFd,
    /// The control channel.
    pub control_fd: RawFd,
    /// A connection to the file server.
    pub share_fd: Option<RawFd>,
    /// The scratch disk, open for reading and writing.
    pub scratch_fd: Option<RawFd>,
}

/// A command line, flag by flag.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arguments {
    flags: Vec<(&'static str, Option<String>)>,
}

impl Arguments {
    /// The command line of a machine.
    pub fn of(plan: &Plan, wiring: &Wiring) -> Self {
        let mut arguments = Self::default();
        for device in DEVICES {
            device(plan, wiring, &mut arguments);
        }
        arguments
    }

    /// Adds a flag.
    pub(super) fn flag(&mut self, flag: &'static str) {
        self.flags.push((flag, None));
    }

    /// Adds a flag with its value.
    pub(super) fn option(&mut self, flag: &'static str, value: impl Into<String>) {
        self.flags.push((flag, Some(value.into())));
    }

    /// As exec takes it.
    pub fn into_vec(self) -> Vec<OsString> {
        let words = |(flag, value): (&'static str, Option<String>)| {
            [Some(flag.to_owned()), value].into_iter().flatten()
        };
        self.flags
            .into_iter()
            .flat_map(words)
            .map(OsString::from)
            .collect()
    }
}

/// One flag on each line.
impl fmt::Display for Arguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (flag, value) in &self.flags {
            match value {
                Some(value) => writeln!(f, "{flag} {value}")?,
                None => writeln!(f, "{flag}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
