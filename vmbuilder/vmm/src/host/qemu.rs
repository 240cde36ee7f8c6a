//! An installed QEMU: where it is and what it says of itself.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use igloo_status::Code;
use serde::{Deserialize, Serialize};

use crate::accelerator::Accelerator;
use crate::machine::Board;
use crate::process::{Launch, Process};

/// Longest answer read, bytes.
const ANSWER_SIZE_MAX: u64 = 256 << 10;

/// A QEMU system emulator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Qemu {
    /// What its guests are, `x86_64-linux`.
    pub system: String,
    /// The program.
    pub path: PathBuf,
    /// `7.2.22`.
    pub version: String,
    /// The boards it can be, of those we use.
    pub boards: Vec<Board>,
    /// What it was built with; whether it works is another question.
    pub accelerators: Vec<Accelerator>,
    /// Whether it has virtiofs devices whose file server is another process.
    pub has_virtiofs: bool,
}

impl Qemu {
    /// Asks the emulator about itself.
    ///
    /// # Errors
    /// When it does not run, or not within `patience`, or answers something else.
    pub(super) async fn ask(path: PathBuf, system: &str, patience: Duration) -> Result<Self, LookError> {
        let (version, boards, accelerators, devices) = tokio::try_join!(
            answer(&path, &["-version"], patience),
            answer(&path, &["-machine", "help"], patience),
            answer(&path, &["-accel", "help"], patience),
            answer(&path, &["-device", "help"], patience),
        )?;
        let version = parse_version(&version).ok_or_else(|| LookError::Version { path: path.clone() })?;
        Ok(Self {
            system: system.to_owned(),
            version: version.to_owned(),
            boards: [Board::Microvm, Board::Q35, Board::Virt]
                .into_iter()
                .filter(|board| lists(&boards, board.name()))
                .collect(),
            accelerators: [Accelerator::Kvm, Accelerator::Hvf, Accelerator::Tcg]
                .into_iter()
                .filter(|accelerator| lists(&accelerators, accelerator.name()))
                .collect(),
            has_virtiofs: devices.contains("\"vhost-user-fs-pci\""),
            path,
        })
    }
}

/// The first emulator for a system in these directories; `qemu-kvm` is what RHEL calls its own.
pub(super) fn find(search: &[PathBuf], system: &str) -> Option<PathBuf> {
    let names: &[&str] = match system {
        "aarch64-linux" => &["qemu-system-aarch64"],
        _ => &["qemu-system-x86_64", "qemu-kvm"],
    };
    search
        .iter()
        .flat_map(|dir| names.iter().map(move |name| dir.join(name)))
        .find(|path| path.is_file())
}

async fn answer(path: &Path, arguments: &[&str], patience: Duration) -> Result<String, LookError> {
    let failed = |source| LookError::Run {
        path: path.to_owned(),
        source,
    };
    let launch = Launch {
        program: path.to_owned(),
        arguments: arguments.iter().map(Into::into).collect(),
        inherited: Vec::new(),
        identity: None,
    };
    let (process, stdout, _stderr) = Process::start(launch).await.map_err(failed)?;
    let reading = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        stdout
            .take(ANSWER_SIZE_MAX)
            .read_to_string(&mut text)
            .map(|_| text)
    });
    let text = tokio::time::timeout(patience, reading).await;
    drop(process);
    match text {
        Ok(Ok(text)) => text.map_err(failed),
        Ok(Err(error)) => Err(failed(io::Error::other(error))),
        Err(_) => Err(failed(io::ErrorKind::TimedOut.into())),
    }
}

/// `QEMU emulator version 7.2.22 (Debian ...)`
fn parse_version(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once(" version ")?;
    let version = rest.split_whitespace().next()?;
    version
        .starts_with(|char: char| char.is_ascii_digit())
        .then_some(version)
}

/// Whether a list, one item at the start of each line, holds a name.
fn lists(text: &str, name: &str) -> bool {
    text.lines()
        .any(|line| line.split_whitespace().next() == Some(name))
}

/// Why an emulator is not known.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// It does not run.
    #[error("{} does not answer when asked about itself; reinstall QEMU", path.display())]
    Run {
        /// The emulator.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It is something else.
    #[error("{} does not say which version of QEMU it is; is it one?", path.display())]
    Version {
        /// The program.
        path: PathBuf,
    },
}

impl LookError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Run { source, .. } => Code::from_io(source),
            Self::Version { .. } => Code::FailedPrecondition,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn fake(dir: &Path, script: &str) -> PathBuf {
        let path = dir.join("qemu-system-x86_64");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[tokio::test]
    async fn an_emulator_is_asked() {
        let dir = tempfile::tempdir().unwrap();
        let path = fake(
            dir.path(),
            r#"case "$*" in
                -version) echo "QEMU emulator version 9.1.2 (Test)";;
                "-machine help") echo "Supported machines are:"; echo "q35  PC"; echo "pc-q35-9.1  old microvm";;
                "-device help") echo 'name "vhost-user-fs-pci", bus PCI';;
                "-accel help") echo "Accelerators supported in QEMU binary:"; echo tcg;;
            esac"#,
        );
        assert_eq!(find(&[dir.path().to_owned()], "x86_64-linux"), Some(path.clone()));
        assert_eq!(find(&[dir.path().to_owned()], "aarch64-linux"), None);
        let qemu = Qemu::ask(path, "x86_64-linux", Duration::from_secs(10))
            .await
            .unwrap();
        assert_eq!(qemu.version, "9.1.2");
        assert_eq!(qemu.boards, [Board::Q35]);
        assert!(qemu.has_virtiofs);
        assert_eq!(qemu.accelerators, [Accelerator::Tcg]);
    }

    #[tokio::test]
    async fn one_that_hangs_or_is_none_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = fake(dir.path(), "exec sleep 1000");
        let hung = Qemu::ask(path, "x86_64-linux", Duration::from_millis(50)).await;
        assert!(matches!(hung, Err(LookError::Run { .. })), "{hung:?}");
        let path = fake(dir.path(), "echo hello");
        let other = Qemu::ask(path, "x86_64-linux", Duration::from_secs(10)).await;
        assert!(matches!(other, Err(LookError::Version { .. })), "{other:?}");
    }
}
