//! The scratch disk: a sparse file with an empty ext4 file system, thrown away with its machine.
//!
//! The host writes the file system before the guest sees the disk, and never reads it afterwards: what a guest leaves
//! on a disk is no input to the host's kernel or to us.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use igloo_status::Code;

use crate::process::{Launch, Process};
use crate::tail::Tail;

/// Least size of a disk, bytes: below it ext4's own tables take most of it.
pub const SCRATCH_BYTES_MIN: u64 = 16 << 20;
/// Most, bytes: what a 32-bit block number reaches at 4 KiB.
pub const SCRATCH_BYTES_MAX: u64 = 16 << 40;
/// How long making a file system may take; it writes a few MiB.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where distributions keep it.
const PROGRAMS: [&str; 5] = [
    "/usr/sbin/mkfs.ext4",
    "/sbin/mkfs.ext4",
    "/usr/bin/mkfs.ext4",
    "/run/current-system/sw/bin/mkfs.ext4",
    "/opt/homebrew/opt/e2fsprogs/sbin/mkfs.ext4",
];
/// No journal and no reserved blocks: nothing outlives the machine. Tables are written when they are used.
const OPTIONS: [&str; 9] = [
    "-q",
    "-F",
    "-O",
    "^has_journal",
    "-m",
    "0",
    "-E",
    "lazy_itable_init=1,nodiscard",
    "--",
];

/// Makes the disk.
pub(super) async fn make(path: &Path, size_bytes: u64) -> Result<(), MakeScratchError> {
    let program = PROGRAMS.iter().map(PathBuf::from).find(|path| path.is_file());
    let program = program.ok_or(MakeScratchError::NoProgram)?;
    let failed = |source| MakeScratchError::File {
        path: path.to_owned(),
        source,
    };
    File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|file| file.set_len(size_bytes))
        .map_err(failed)?;
    let launch = Launch {
        arguments: OPTIONS
            .iter()
            .map(Into::into)
            .chain([path.as_os_str().to_owned()])
            .collect(),
        program: program.clone(),
        inherited: Vec::new(),
        identity: None,
    };
    let (mut process, stdout, stderr) = Process::start(launch).await.map_err(failed)?;
    let _drained = Tail::follow(stdout.into()).map_err(failed)?;
    let words = Tail::follow(stderr.into()).map_err(failed)?;
    let status = tokio::time::timeout(PATIENCE, process.wait()).await;
    match status {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Err(source)) => Err(failed(source)),
        Ok(Ok(_)) | Err(_) => {
            words.ended(Duration::from_millis(100)).await;
            Err(MakeScratchError::Mkfs {
                program,
                words: words.last_lines(3).join("; "),
            })
        }
    }
}

/// Why a scratch disk could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MakeScratchError {
    /// Nothing to make a file system with.
    #[error("mkfs.ext4 is not installed; install e2fsprogs, or keep scratch space in memory")]
    NoProgram,
    /// No file.
    #[error("the scratch disk {} cannot be made", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// No file system in it.
    #[error("{} could not make a scratch disk: {words}", program.display())]
    Mkfs {
        /// The program.
        program: PathBuf,
        /// What it said.
        words: String,
    },
}

impl MakeScratchError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::NoProgram => Code::FailedPrecondition,
            Self::File { source, .. } => Code::from_io(source),
            Self::Mkfs { .. } => Code::ResourceExhausted,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    /// A large disk costs little until it is written to.
    #[tokio::test]
    async fn a_disk_is_sparse() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        match make(&path, 64 << 30).await {
            Err(MakeScratchError::NoProgram) => return,
            made => made.unwrap(),
        }
        let data = std::fs::metadata(&path).unwrap();
        assert_eq!(data.len(), 64 << 30);
        assert!(data.blocks() * 512 < 64 << 20, "{} blocks", data.blocks());
        assert!(
            matches!(make(&path, 64 << 30).await, Err(MakeScratchError::File { .. })),
            "it exists"
        );
    }
}
