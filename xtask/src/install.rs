//! Installing what a task needs from the system's packages.
//!
//! Invariants
//! - nothing is installed that is there already, and each need is shown before it is installed;
//! - without root, the exact command is shown instead of a failure somewhere later.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::shell;

/// Something a task needs, and the Debian package that has it.
pub struct Need {
    /// What it is for, shown to the user.
    pub purpose: &'static str,
    /// Debian's package.
    pub package: &'static str,
    /// Whether it is there.
    pub present: fn() -> bool,
}

/// To compile igloo: RocksDB is C++, and its Rust bindings are made by libclang.
pub const COMPILE: &[Need] = &[
    Need {
        purpose: "a C++ compiler for RocksDB",
        package: "g++",
        present: || shell::has_program("c++"),
    },
    Need {
        purpose: "libclang, which reads RocksDB's headers",
        package: "libclang-dev",
        present: has_libclang,
    },
];

/// To run builds in microVMs.
pub const MACHINES: &[Need] = &[Need {
    purpose: "QEMU, which runs the build machines",
    package: "qemu-system-x86",
    present: || shell::has_program("qemu-system-x86_64"),
}];

/// To unpack Debian packages as build inputs.
pub const UNPACK: &[Need] = &[
    Need {
        purpose: "dpkg-deb, which unpacks packages",
        package: "dpkg",
        present: || shell::has_program("dpkg-deb"),
    },
    Need {
        purpose: "tar",
        package: "tar",
        present: || shell::has_program("tar"),
    },
];

/// To compare with Nix in tests, and to have something small to build with.
pub const ORACLES: &[Need] = &[
    Need {
        purpose: "Nix, which the tests compare with",
        package: "nix-bin",
        present: || shell::has_program("nix-store"),
    },
    Need {
        purpose: "a static shell, which the tests build with",
        package: "busybox-static",
        present: || shell::has_program("busybox"),
    },
];

/// Installs what is missing of `needs`.
///
/// # Errors
/// Without apt-get, or without root and sudo, says what to install by hand.
pub fn ensure(needs: &[&[Need]]) -> Result<()> {
    let missing: Vec<&Need> = needs
        .iter()
        .copied()
        .flatten()
        .filter(|need| !(need.present)())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    for need in &missing {
        eprintln!("installing {} ({})", need.package, need.purpose);
    }
    let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    let by_hand = format!("apt-get install --no-install-recommends {}", packages.join(" "));
    if !shell::has_program("apt-get") {
        bail!("this machine has no apt-get; install by hand what `{by_hand}` would");
    }
    let Some(prefix) = privilege() else {
        bail!("not root and no password-less sudo; run `{by_hand}` as root, then try again");
    };
    apt_get(&prefix, &["update", "-qq"])?;
    let mut arguments = vec!["install", "-y", "-qq", "--no-install-recommends"];
    arguments.extend(packages);
    apt_get(&prefix, &arguments)
}

/// Makes sure the toolchain can compile for `target` (the guest agent is a static musl program).
pub fn ensure_rust_target(target: &str) -> Result<()> {
    let sysroot = shell::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    if Path::new(&sysroot)
        .join("lib/rustlib")
        .join(target)
        .join("lib")
        .is_dir()
    {
        return Ok(());
    }
    if !shell::has_program("rustup") {
        bail!(
            "the Rust toolchain lacks the target {target} and there is no rustup to add it; install its standard library"
        );
    }
    shell::run(Command::new("rustup").args(["target", "add", target]))
}

/// What to put before a command that needs root.
fn privilege() -> Option<Vec<&'static str>> {
    let id = Command::new("id").arg("-u").output().ok()?;
    if id.stdout.trim_ascii() == b"0" {
        return Some(Vec::new());
    }
    let sudo = Command::new("sudo").args(["-n", "true"]).output();
    matches!(sudo, Ok(output) if output.status.success()).then(|| vec!["sudo", "-n"])
}

fn apt_get(prefix: &[&str], arguments: &[&str]) -> Result<()> {
    let mut words = prefix.to_vec();
    words.push("apt-get");
    words.extend(arguments);
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).env("DEBIAN_FRONTEND", "noninteractive");
    command.stdout(std::process::Stdio::null());
    shell::run(&mut command)
}

/// Whether bindgen will find libclang where it looks: LIBCLANG_PATH and the usual library folders.
fn has_libclang() -> bool {
    let named = std::env::var_os("LIBCLANG_PATH").map(std::path::PathBuf::from);
    let llvm = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let llvm = llvm
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("llvm"))
        .map(|entry| entry.path().join("lib"));
    let system = [
        "/usr/lib",
        "/usr/lib64",
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
    ];
    let mut places = named
        .into_iter()
        .chain(llvm)
        .chain(system.iter().map(std::path::PathBuf::from));
    places.any(|place| {
        let files = std::fs::read_dir(place).into_iter().flatten().flatten();
        files.map(|file| file.file_name()).any(|name| {
            let name = name.to_string_lossy();
            name == "libclang.so" || (name.starts_with("libclang-") && name.contains(".so"))
        })
    })
}
