//! Guest images: a kernel and an initramfs with the agent, described by `image.json` beside them.
//!
//! Invariants
//! - both files exist and are not empty when an image is open; their paths are absolute;
//! - the image's agent speaks this host's version of the control protocol.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use igloo_status::Code;
use serde::Deserialize;

/// The file that describes an image.
pub const IMAGE_FILE: &str = "image.json";
/// Largest description read, bytes.
const DESCRIPTION_SIZE_MAX: u64 = 64 << 10;
/// The form of the description this code reads.
const FORMAT: u32 = 1;

/// A kernel and an initramfs that can be booted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestImage {
    /// What it runs, as Nix names it: `x86_64-linux`.
    pub system: String,
    /// The kernel.
    pub kernel: PathBuf,
    /// The initramfs, with the agent as `/init`.
    pub initramfs: PathBuf,
    /// Words the kernel's command line must hold.
    pub command_line: String,
    /// How its kernel finds devices.
    pub bus: Bus,
    /// Names kernel and agent, for provenance and caches.
    pub id: String,
}

/// How a kernel finds its virtio devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bus {
    /// On PCI, as every distribution kernel can.
    #[default]
    Pci,
    /// Memory mapped, named on the command line: the kernel needs VIRTIO_MMIO_CMDLINE_DEVICES.
    Mmio,
}

#[derive(Debug, Deserialize)]
struct Description {
    format: u32,
    system: String,
    kernel: PathBuf,
    initramfs: PathBuf,
    #[serde(default)]
    command_line: String,
    #[serde(default)]
    bus: Bus,
    control_version: u32,
    id: String,
}

impl GuestImage {
    /// Opens the image in a directory.
    ///
    /// # Errors
    /// Every error says how to make an image that fits.
    pub fn open(dir: &Path) -> Result<Self, OpenImageError> {
        let path = dir.join(IMAGE_FILE);
        let text = read_bounded(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => OpenImageError::Missing { dir: dir.to_owned() },
            _ => OpenImageError::Read {
                path: path.clone(),
                source,
            },
        })?;
        let description: Description =
            serde_json::from_str(&text).map_err(|source| OpenImageError::Parse {
                path: path.clone(),
                source,
            })?;
        let wanted = (FORMAT, igloo_control::frame::VERSION);
        if (description.format, description.control_version) != wanted {
            return Err(OpenImageError::Version { path });
        }
        check_words(&path, &description)?;
        Ok(Self {
            kernel: checked_file(dir, &description.kernel)?,
            initramfs: checked_file(dir, &description.initramfs)?,
            system: description.system,
            command_line: description.command_line,
            bus: description.bus,
            id: description.id,
        })
    }
}

/// The name of the directory an image for this system lies in, below a directory of images.
pub fn image_dir(images: &Path, system: &str) -> PathBuf {
    images.join(system)
}

fn read_bounded(path: &Path) -> io::Result<String> {
    use io::Read;
    let mut text = String::new();
    fs::File::open(path)?
        .take(DESCRIPTION_SIZE_MAX)
        .read_to_string(&mut text)?;
    Ok(text)
}

/// The command line is one QEMU argument and one line of the kernel's: printable ASCII only.
fn check_words(path: &Path, description: &Description) -> Result<(), OpenImageError> {
    let printable = |text: &str| text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    if printable(&description.command_line) && printable(&description.id) {
        Ok(())
    } else {
        Err(OpenImageError::Words {
            path: path.to_owned(),
        })
    }
}

fn checked_file(dir: &Path, name: &Path) -> Result<PathBuf, OpenImageError> {
    let joined = dir.join(name);
    let check = || {
        let path = joined.canonicalize()?;
        let metadata = fs::metadata(&path)?;
        if metadata.is_file() && metadata.len() > 0 {
            Ok(path)
        } else {
            Err(io::Error::other("it is empty or no regular file"))
        }
    };
    check().map_err(|source| OpenImageError::File {
        path: joined.clone(),
        source,
    })
}

/// Why there is no image to boot.
#[derive(Debug, thiserror::Error)]
pub enum OpenImageError {
    /// Never made, or somewhere else.
    #[error("there is no guest image in {}; make one with `cargo xtask image`, or say where it is (`igloo doctor` shows where igloo looks)", dir.display())]
    Missing {
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// There, and cannot be read.
    #[error("the guest image's {} cannot be read", path.display())]
    Read {
        /// The description.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// No description.
    #[error("{} does not describe a guest image; make it again with `cargo xtask image`", path.display())]
    Parse {
        /// The description.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// Of another release.
    #[error("the guest image of {} is of another igloo release; make it again with `cargo xtask image`", path.display())]
    Version {
        /// The description.
        path: PathBuf,
    },
    /// Holds characters no kernel command line can.
    #[error("{} holds a command line or an id with characters that are not printable", path.display())]
    Words {
        /// The description.
        path: PathBuf,
    },
    /// A part is missing.
    #[error("the guest image's {} cannot be used; make it again with `cargo xtask image`", path.display())]
    File {
        /// The kernel or the initramfs.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl OpenImageError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Missing { .. } | Self::Version { .. } | Self::File { .. } => Code::FailedPrecondition,
            Self::Read { source, .. } => Code::from_io(source),
            Self::Parse { .. } | Self::Words { .. } => Code::DataLoss,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn describe(version: u32, command_line: &str) -> String {
        format!(
            r#"{{"format": 1, "system": "x86_64-linux", "kernel": "vmlinuz", "initramfs": "initramfs.img",
                 "command_line": "{command_line}", "bus": "mmio", "control_version": {version}, "id": "6.12-x", "new": 1}}"#
        )
    }

    #[test]
    fn an_image_is_opened_only_when_whole() {
        let dir = tempfile::tempdir().unwrap();
        let open = || GuestImage::open(dir.path());
        assert!(matches!(open(), Err(OpenImageError::Missing { .. })));
        let version = igloo_control::frame::VERSION;
        fs::write(dir.path().join(IMAGE_FILE), describe(version, "quiet")).unwrap();
        assert!(matches!(open(), Err(OpenImageError::File { .. })));
        fs::write(dir.path().join("vmlinuz"), "k").unwrap();
        fs::write(dir.path().join("initramfs.img"), "").unwrap();
        assert!(
            matches!(open(), Err(OpenImageError::File { .. })),
            "an empty file"
        );
        fs::write(dir.path().join("initramfs.img"), "i").unwrap();
        let image = open().unwrap();
        assert_eq!((image.bus, image.command_line.as_str()), (Bus::Mmio, "quiet"));
        assert!(image.kernel.is_absolute());
    }

    #[test]
    fn another_release_or_a_bad_description_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let version = igloo_control::frame::VERSION;
        for (text, wanted) in [
            (describe(version + 1, ""), "another igloo release"),
            (describe(version, r"a\nb"), "not printable"),
            ("{".to_owned(), "does not describe"),
        ] {
            fs::write(dir.path().join(IMAGE_FILE), text).unwrap();
            let error = GuestImage::open(dir.path()).unwrap_err();
            assert!(error.to_string().contains(wanted), "{error}");
        }
    }
}
