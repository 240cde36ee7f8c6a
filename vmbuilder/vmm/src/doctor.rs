//! What this machine can do for builds, and how to mend what is missing; the command line prints it.
//!
//! Invariants
//! - every finding that is not [`State::Good`] has a hint that names a command or a setting.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::accelerator::Accelerator;
use crate::host::HostAbilities;
use crate::image::GuestImage;
use crate::machine::Vmm;
use crate::probe::{Probe, ProbeConfig};

/// One thing looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What, in a word or two: `QEMU`, `guest image`.
    pub subject: &'static str,
    /// How it is.
    pub state: State,
    /// What was found.
    pub detail: String,
    /// What to do, unless all is well.
    pub hint: Option<String>,
}

/// How a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// As it should be.
    Good,
    /// Builds work, not as well as they could.
    Degraded,
    /// Builds, or what the subject is for, do not work.
    Missing,
}

/// What to look at.
#[derive(Clone, Debug)]
pub struct DoctorConfig {
    /// Where the image should be.
    pub image_dir: PathBuf,
    /// Where to look and remember.
    pub probe: ProbeConfig,
}

/// Looks at everything builds need. Boots a guest when it is not yet known whether KVM works.
pub async fn examine(config: &DoctorConfig, vmm: &dyn Vmm) -> Vec<Finding> {
    let image = GuestImage::open(&config.image_dir);
    let mut findings = Vec::new();
    match &image {
        Ok(image) => match Probe::run(&config.probe, image, vmm).await {
            Ok(probe) => {
                findings.push(emulator(&probe.host, &image.system));
                findings.push(acceleration(&probe));
            }
            Err(error) => findings.push(broken("QEMU", &error, "reinstall QEMU")),
        },
        Err(_) => match HostAbilities::look(&config.probe.search).await {
            Ok(host) => findings.push(emulator(&host, crate::host::native_system())),
            Err(error) => findings.push(broken("QEMU", &error, "reinstall QEMU")),
        },
    }
    findings.push(match &image {
        Ok(image) => good("guest image", format!("{} ({})", image.id, image.system)),
        Err(error) => broken("guest image", error, "cargo xtask image"),
    });
    findings.push(runtime_dir(&config.probe.runtime_root));
    findings.push(fuse());
    findings
}

fn emulator(host: &HostAbilities, system: &str) -> Finding {
    let Some(qemu) = host.qemu(system) else {
        return missing(
            "QEMU",
            format!("there is none for {system}"),
            "install qemu-system-x86 (Debian, Ubuntu), qemu-kvm (Fedora, RHEL) or qemu (Nix, Homebrew)",
        );
    };
    let detail = format!("{} {}", qemu.path.display(), qemu.version);
    if !qemu.has_virtiofs {
        return missing(
            "QEMU",
            format!("{detail}, built without vhost-user-fs"),
            "install a QEMU with vhost-user-fs devices: it is how a build sees its inputs",
        );
    }
    good("QEMU", detail)
}

fn acceleration(probe: &Probe) -> Finding {
    let detail = format!("{}: {}", probe.choice.accelerator, probe.choice.reason);
    match probe.choice.accelerator {
        Accelerator::Kvm | Accelerator::Hvf => good("acceleration", detail),
        Accelerator::Tcg => Finding {
            subject: "acceleration",
            state: State::Degraded,
            detail,
            hint: Some(
                "builds run some ten times slower than on a processor with KVM; use a host with hardware \
                 virtualisation, and let this user open /dev/kvm (usermod -aG kvm USER)"
                    .into(),
            ),
        },
    }
}

fn runtime_dir(root: &Path) -> Finding {
    let try_it = || -> std::io::Result<()> {
        fs::create_dir_all(root)?;
        tempfile::tempdir_in(root)?.close()
    };
    match try_it() {
        Ok(()) => good("runtime directory", root.display().to_string()),
        Err(error) => missing(
            "runtime directory",
            format!("{}: {error}", root.display()),
            "choose a directory this user can write to, with a short path",
        ),
    }
}

/// For `igloo mount` only: builds need no FUSE on the host.
fn fuse() -> Finding {
    match File::options().read(true).write(true).open("/dev/fuse") {
        Ok(_) => good("FUSE", "/dev/fuse opens (for `igloo mount`)".into()),
        Err(error) => missing(
            "FUSE",
            format!("/dev/fuse: {error} (only `igloo mount` needs it)"),
            "load the module (modprobe fuse), or pass --device /dev/fuse to the container",
        ),
    }
}

fn good(subject: &'static str, detail: String) -> Finding {
    Finding {
        subject,
        state: State::Good,
        detail,
        hint: None,
    }
}

fn missing(subject: &'static str, detail: String, hint: &str) -> Finding {
    Finding {
        subject,
        state: State::Missing,
        detail,
        hint: Some(hint.to_owned()),
    }
}

fn broken(subject: &'static str, error: &dyn std::error::Error, hint: &str) -> Finding {
    missing(subject, crate::chain(error), hint)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::qemu::Qemu;

    /// Nothing there: each thing is named, and says what to do.
    #[tokio::test]
    async fn an_empty_host_is_told_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let config = DoctorConfig {
            image_dir: dir.path().join("images"),
            probe: ProbeConfig {
                search: vec![dir.path().join("bin")],
                state_dir: dir.path().join("state"),
                runtime_root: "/proc/igloo".into(),
                kvm_patience: Duration::from_secs(1),
            },
        };
        let findings = examine(&config, &Qemu).await;
        let bad: Vec<_> = findings
            .iter()
            .filter(|finding| finding.state == State::Missing)
            .map(|finding| finding.subject)
            .collect();
        assert!(
            bad.starts_with(&["QEMU", "guest image", "runtime directory"]),
            "{findings:?}"
        );
        for finding in &findings {
            assert_eq!(
                finding.hint.is_none(),
                finding.state == State::Good,
                "{finding:?}"
            );
        }
    }
}
