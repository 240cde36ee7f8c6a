//! A build in the machine's terms.
//!
//! Paths are relative to the build's root, clean (no leading, doubled or trailing slash, no `.` or `..`); the agent
//! checks them again with [`is_clean_path`], since one slip there would reach outside the root.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Longest path, bytes (PATH_MAX less a root in front).
pub const PATH_SIZE_MAX: usize = 3072;

/// Everything the agent must know of a build, but the files placed before its start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildSpec {
    /// The program, an absolute path in the build's root.
    pub program: Bytes,
    /// Its arguments, the zeroth included, given as they are.
    pub arguments: Vec<Bytes>,
    /// Its whole environment, names and values, given in this order.
    pub environment: Vec<(Bytes, Bytes)>,
    /// Where it starts.
    pub working_dir: Bytes,
    /// Where the inputs appear. When it is also a scratch path, writes land in a layer above and are thrown away.
    pub inputs_dir: Bytes,
    /// Directories the build may write in, empty at the start; mode 0700 and owned by the build, `inputs_dir` 01775.
    pub scratch_paths: Vec<Bytes>,
    /// What must exist at the end, in the order wanted.
    pub outputs: Vec<Bytes>,
    /// The user the build runs as.
    pub uid: u32,
    /// The user's only group.
    pub gid: u32,
    /// What `gethostname` answers.
    pub hostname: Bytes,
    /// What `getdomainname` answers.
    pub domainname: Bytes,
    /// Which instruction set and kernel personality the program sees.
    pub personality: Personality,
    /// The machine's network, shared with the build; without one it sees a loopback of its own and nothing else.
    pub network: Option<Network>,
    /// Whether `/dev/kvm` is shown.
    pub kvm: bool,
    /// Bounds kept inside the machine.
    pub limits: GuestLimits,
}

/// Kernel personality of the build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Personality {
    /// That of the machine.
    Native,
    /// `uname -m` names the 32-bit relative (PER_LINUX32), for `i686-linux` on x86_64 and `armv7l-linux` on aarch64.
    Linux32,
}

/// How the machine's one network card (`eth0`) is set up. Names are resolved by files the host places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// IPv4 address of the card.
    pub address: [u8; 4],
    /// Length of its network prefix, bits.
    pub prefix_bits: u8,
    /// Where packets to other networks go.
    pub gateway: [u8; 4],
}

/// Bounds kept inside the machine; `None` leaves what the machine has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestLimits {
    /// Most processes and threads at once.
    pub processes: Option<u32>,
    /// Most bytes in scratch directories and outputs together.
    pub scratch_bytes: Option<u64>,
    /// Most files and directories in scratch directories and outputs together.
    pub scratch_files: Option<u64>,
    /// Most bytes in `/dev/shm`.
    pub shm_bytes: Option<u64>,
    /// Most bytes of all outputs together.
    pub output_bytes: Option<u64>,
}

impl BuildSpec {
    /// Checks every path of the spec. The agent calls it before it touches a file.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn check(&self) -> Result<(), SpecError> {
        let paths = [
            ("working directory", &self.working_dir),
            ("inputs directory", &self.inputs_dir),
        ];
        let scratch = self.scratch_paths.iter().map(|path| ("scratch path", path));
        let outputs = self.outputs.iter().map(|path| ("output", path));
        for (field, path) in paths.into_iter().chain(scratch).chain(outputs) {
            let is_root = path.is_empty();
            if (is_root && field != "working directory") || (!is_root && !is_clean_path(path)) {
                return Err(SpecError::Path {
                    field,
                    path: path.escape_ascii().to_string(),
                });
            }
        }
        if self.program.first() != Some(&b'/') {
            return Err(SpecError::Path {
                field: "program",
                path: self.program.escape_ascii().to_string(),
            });
        }
        let nul = |bytes: &Bytes| bytes.contains(&0);
        let name_wrong = |name: &Bytes| name.is_empty() || name.contains(&b'=') || nul(name);
        if nul(&self.program)
            || self.arguments.iter().any(nul)
            || self
                .environment
                .iter()
                .any(|(name, value)| name_wrong(name) || nul(value))
            || nul(&self.hostname)
            || nul(&self.domainname)
        {
            return Err(SpecError::Nul);
        }
        Ok(())
    }

    /// Whether a path lies in a scratch directory (and is none itself).
    pub fn is_in_scratch(&self, path: &[u8]) -> bool {
        self.scratch_paths.iter().any(|scratch| {
            path.strip_prefix(scratch.as_ref())
                .is_some_and(|rest| rest.first() == Some(&b'/'))
        })
    }
}

/// Whether a path is relative, clean and not the root: only such paths are joined to a root.
pub fn is_clean_path(path: &[u8]) -> bool {
    !path.is_empty()
        && path.len() <= PATH_SIZE_MAX
        && path.split(|byte| *byte == b'/').all(|part| {
            !part.is_empty() && part.len() <= 255 && part != b"." && part != b".." && !part.contains(&0)
        })
}

/// Why a spec cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// A path that is absolute where it must be relative, or the other way round, or not clean.
    #[error("the {field} `{path}` is no path inside the build's root")]
    Path {
        /// Which.
        field: &'static str,
        /// The path, escaped.
        path: String,
    },
    /// A NUL byte, or an environment name no program can be given.
    #[error("an argument, name or variable holds a NUL byte, or a variable's name is empty or holds `=`")]
    Nul,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only clean relative paths are ever joined to a root.
    #[test]
    fn clean_paths() {
        for good in ["a", "nix/store", "build/.attrs.json", "a/..b", "..."] {
            assert!(is_clean_path(good.as_bytes()), "{good}");
        }
        let long = "x/".repeat(PATH_SIZE_MAX) + "x";
        let name = "n".repeat(256);
        for bad in [
            "", "/", "/a", "a/", "a//b", ".", "a/.", "..", "../a", "a/../b", "a\0b", &long, &name,
        ] {
            assert!(!is_clean_path(bad.as_bytes()), "{bad:?}");
        }
    }
}
