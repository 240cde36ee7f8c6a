use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;

use super::*;
use crate::host::native_system;
use crate::image::Bus;
use crate::machine::{Board, Running, StartError};

/// A driver on which no machine starts, and which counts the tries.
#[derive(Debug, Default)]
struct Broken(AtomicUsize);

#[async_trait]
impl Vmm for Broken {
    async fn start(&self, plan: &Plan, _: &Resources) -> Result<Running, StartError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Err(StartError::Spawn {
            program: plan.qemu.clone(),
            source: io::ErrorKind::NotFound.into(),
        })
    }
}

fn image(id: &str) -> GuestImage {
    GuestImage {
        system: native_system().into(),
        kernel: "/k".into(),
        initramfs: "/i".into(),
        command_line: String::new(),
        bus: Bus::Pci,
        id: id.into(),
    }
}

fn config(dir: &Path) -> ProbeConfig {
    ProbeConfig {
        search: vec![dir.join("bin")],
        state_dir: dir.join("state"),
        runtime_root: dir.join("run"),
        kvm_patience: Duration::from_secs(1),
    }
}

/// An emulator that says it can do everything.
fn install_fake(dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let script = r#"#!/bin/sh
        case "$*" in
            -version) echo "QEMU emulator version 7.2.22 (Test)";;
            "-machine help") echo "q35 x"; echo "virt x"; echo "microvm x";;
            "-accel help") echo tcg; echo kvm; echo hvf;;
        esac
    "#;
    let name = match native_system() {
        "aarch64-linux" => "qemu-system-aarch64",
        _ => "qemu-system-x86_64",
    };
    fs::create_dir_all(dir.join("bin")).unwrap();
    let path = dir.join("bin").join(name);
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn has_kvm() -> bool {
    fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_ok()
}

/// The one costly question is asked once for each image and host, and never answered by a device file alone.
#[tokio::test]
async fn kvm_is_tried_once_and_remembered() {
    let dir = tempfile::tempdir().unwrap();
    install_fake(dir.path());
    let (config, vmm) = (config(dir.path()), Broken::default());
    let first = Probe::run(&config, &image("a"), &vmm).await.unwrap();
    assert_eq!(first.choice.accelerator, Accelerator::Tcg);
    let tries = usize::from(has_kvm());
    if tries == 1 {
        assert!(
            first.choice.reason.contains("did not boot with KVM"),
            "{}",
            first.choice.reason
        );
    }
    assert_eq!(Probe::run(&config, &image("a"), &vmm).await.unwrap(), first);
    assert_eq!(vmm.0.load(Ordering::SeqCst), tries);
    Probe::run(&config, &image("b"), &vmm).await.unwrap();
    assert_eq!(vmm.0.load(Ordering::SeqCst), 2 * tries, "another image");
    fs::write(config.state_dir.join(MEMORY_FILE), "{\"damaged").unwrap();
    Probe::run(&config, &image("b"), &vmm).await.unwrap();
    assert_eq!(vmm.0.load(Ordering::SeqCst), 3 * tries, "a damaged memory");
    Probe::forget(&config.state_dir).unwrap();
    Probe::forget(&config.state_dir).unwrap();
    Probe::run(&config, &image("b"), &vmm).await.unwrap();
    assert_eq!(vmm.0.load(Ordering::SeqCst), 4 * tries, "forgotten");
    assert_eq!(fs::read_dir(&config.runtime_root).map_or(0, Iterator::count), 0);
}

#[tokio::test]
async fn a_host_without_an_emulator_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let vmm = Broken::default();
    let probe = Probe::run(&config(dir.path()), &image("a"), &vmm).await.unwrap();
    assert!(probe.host.qemus.is_empty());
    assert_eq!(probe.choice.accelerator, Accelerator::Tcg);
    assert!(probe.choice.reason.contains("no QEMU"), "{}", probe.choice.reason);
    // installed meanwhile: the old answer is not believed
    install_fake(dir.path());
    let probe = Probe::run(&config(dir.path()), &image("a"), &vmm).await.unwrap();
    assert_eq!(
        probe.host.qemu(native_system()).unwrap().boards,
        [Board::Microvm, Board::Q35, Board::Virt]
    );
}

#[tokio::test]
async fn foreign_code_is_emulated() {
    let dir = tempfile::tempdir().unwrap();
    install_fake(dir.path());
    let foreign = match native_system() {
        "aarch64-linux" => "x86_64-linux",
        _ => "aarch64-linux",
    };
    let name = dir.path().join("bin");
    for file in fs::read_dir(&name).unwrap().flatten() {
        let other = if foreign.starts_with('a') {
            "qemu-system-aarch64"
        } else {
            "qemu-system-x86_64"
        };
        fs::copy(file.path(), name.join(other)).unwrap();
    }
    let mut image = image("a");
    image.system = foreign.into();
    let vmm = Broken::default();
    let probe = Probe::run(&config(dir.path()), &image, &vmm).await.unwrap();
    assert!(
        probe.choice.reason.contains("does not run"),
        "{}",
        probe.choice.reason
    );
    assert_eq!(vmm.0.load(Ordering::SeqCst), 0);
}
