//! Which kernel modules a guest needs, in the order to load them.
//!
//! An unpacked kernel package has no `modules.dep` (depmod writes it at installation), so dependencies are read from the
//! modules themselves: the `depends=` line of their `.modinfo` section.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell;

/// What every machine needs.
const ALWAYS: &[&str] = &["virtio_pci", "overlay"];

/// What a virtio device needs, by its number (linux/virtio_ids.h).
const DEVICES: &[(u32, &[&str])] = &[
    (1, &["virtio_net"]),
    (2, &["virtio_blk", "ext4"]),
    (3, &["virtio_console"]),
    (4, &["virtio_rng"]),
    (26, &["virtiofs"]),
];

/// A module to put into an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// File name in the image.
    pub file: String,
    /// The virtio device it is for, none for every machine.
    pub device: Option<u32>,
    /// The module, decompressed.
    pub content: Vec<u8>,
}

/// The modules below `directory` (`lib/modules/VERSION`) that a guest needs; none for a kernel that has all built in.
///
/// # Errors
/// When the kernel has something needed neither built in nor as a module.
pub fn choose(directory: &Path) -> Result<Vec<Wanted>> {
    let mut kernel = Kernel::open(directory)?;
    let mut always = Vec::new();
    for name in ALWAYS {
        kernel.add(name, &BTreeSet::new(), &mut always)?;
    }
    let loaded: BTreeSet<String> = always.iter().cloned().collect();
    let mut wanted = kernel.read(&always, None)?;
    for (device, names) in DEVICES {
        let mut order = Vec::new();
        for name in *names {
            kernel.add(name, &loaded, &mut order)?;
        }
        wanted.extend(kernel.read(&order, Some(*device))?);
    }
    Ok(wanted)
}

struct Kernel {
    files: BTreeMap<String, PathBuf>,
    builtin: BTreeSet<String>,
    contents: BTreeMap<String, Vec<u8>>,
}

impl Kernel {
    fn open(directory: &Path) -> Result<Self> {
        let builtin = std::fs::read_to_string(directory.join("modules.builtin"))
            .with_context(|| format!("{} is no folder of kernel modules", directory.display()))?;
        let builtin = builtin
            .lines()
            .filter_map(|line| module_name(Path::new(line)))
            .collect();
        let mut files = BTreeMap::new();
        let mut folders = vec![directory.join("kernel")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten() {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    folders.push(entry.path());
                } else if let Some(name) = module_name(&entry.path()) {
                    files.insert(name, entry.path());
                }
            }
        }
        Ok(Self {
            files,
            builtin,
            contents: BTreeMap::new(),
        })
    }

    /// Adds a module after what it depends on. `loaded` are those that come before anyway.
    fn add(&mut self, name: &str, loaded: &BTreeSet<String>, order: &mut Vec<String>) -> Result<()> {
        // a module is visited twice: to find what it needs, then, after that, to be added
        let mut stack = vec![(name.to_owned(), false)];
        let mut seen = BTreeSet::new();
        while let Some((name, has_dependencies)) = stack.pop() {
            if self.builtin.contains(&name) || loaded.contains(&name) || order.contains(&name) {
                continue;
            }
            if has_dependencies {
                order.push(name);
                continue;
            }
            if !seen.insert(name.clone()) {
                continue;
            }
            let dependencies = dependencies(self.content(&name)?);
            stack.push((name, true));
            stack.extend(dependencies.into_iter().map(|dependency| (dependency, false)));
        }
        Ok(())
    }

    fn content(&mut self, name: &str) -> Result<&[u8]> {
        if !self.contents.contains_key(name) {
            let Some(path) = self.files.get(name) else {
                bail!("the kernel has `{name}` neither built in nor as a module; guests need it");
            };
            self.contents.insert(name.to_owned(), decompress(path)?);
        }
        Ok(&self.contents[name])
    }

    fn read(&mut self, names: &[String], device: Option<u32>) -> Result<Vec<Wanted>> {
        let mut wanted = Vec::new();
        for name in names {
            let content = self.content(name)?.to_vec();
            wanted.push(Wanted {
                file: format!("{name}.ko"),
                device,
                content,
            });
        }
        Ok(wanted)
    }
}

/// `virtio_rng` for `drivers/char/hw_random/virtio-rng.ko.xz`.
fn module_name(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let (name, rest) = file.split_once('.')?;
    (rest == "ko" || rest.starts_with("ko.")).then(|| name.replace('-', "_"))
}

fn decompress(path: &Path) -> Result<Vec<u8>> {
    let program = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return std::fs::read(path).with_context(|| format!("cannot read {}", path.display())),
    };
    if !shell::has_program(program) {
        bail!("the kernel's modules are compressed: install `{program}`, then try again");
    }
    let output = Command::new(program).arg("-dc").arg(path).output()?;
    if !output.status.success() {
        bail!("{program} cannot decompress {}", path.display());
    }
    Ok(output.stdout)
}

/// What a module's `.modinfo` says it depends on.
fn dependencies(module: &[u8]) -> Vec<String> {
    let section = section(module, b".modinfo").unwrap_or_default();
    let lines = section.split(|byte| *byte == 0);
    let names = lines
        .filter_map(|line| line.strip_prefix(b"depends="))
        .flat_map(|names| names.split(|b| *b == b','));
    names
        .filter(|name| !name.is_empty())
        .map(|name| String::from_utf8_lossy(name).replace('-', "_"))
        .collect()
}

/// The bytes of a section of a 64-bit little-endian ELF file; `None` for anything else.
fn section<'a>(elf: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    if elf.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let table = usize::try_from(number(elf, 0x28, 8)?).ok()?;
    let (entry_size, count, names_index) = (
        number(elf, 0x3a, 2)?,
        number(elf, 0x3c, 2)?,
        number(elf, 0x3e, 2)?,
    );
    let header = |index: u64| {
        let at = table.checked_add(usize::try_from(index.checked_mul(entry_size)?).ok()?)?;
        let (offset, size) = (
            number(elf, at.checked_add(0x18)?, 8)?,
            number(elf, at.checked_add(0x20)?, 8)?,
        );
        let end = usize::try_from(offset.checked_add(size)?).ok()?;
        let content = elf.get(usize::try_from(offset).ok()?..end)?;
        Some((usize::try_from(number(elf, at, 4)?).ok()?, content))
    };
    let (_, names) = header(names_index)?;
    (0..count).filter_map(header).find_map(|(at, content)| {
        let rest = names.get(at..)?.strip_prefix(name)?;
        (rest.first() == Some(&0)).then_some(content)
    })
}

fn number(bytes: &[u8], at: usize, size: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(size)?)?;
    Some(
        bytes
            .iter()
            .rev()
            .fold(0, |number, byte| number << 8 | u64::from(*byte)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A smallest ELF file with a `.modinfo` section.
    fn module(depends: &str) -> Vec<u8> {
        let info = format!("license=GPL\0depends={depends}\0name=x\0");
        let names = b"\0.modinfo\0";
        let mut elf = b"\x7fELF\x02\x01".to_vec();
        elf.resize(64, 0);
        let info_at = elf.len();
        elf.extend(info.bytes());
        let names_at = elf.len();
        elf.extend(names);
        let table = elf.len();
        let mut header = |name: u32, offset: usize, size: usize| {
            let mut bytes = vec![0; 64];
            bytes[..4].copy_from_slice(&name.to_le_bytes());
            bytes[0x18..0x20].copy_from_slice(&(offset as u64).to_le_bytes());
            bytes[0x20..0x28].copy_from_slice(&(size as u64).to_le_bytes());
            elf.extend(bytes);
        };
        header(1, info_at, info.len());
        header(0, names_at, names.len());
        elf[0x28..0x30].copy_from_slice(&(table as u64).to_le_bytes());
        elf[0x3a..0x3c].copy_from_slice(&64u16.to_le_bytes());
        elf[0x3c..0x3e].copy_from_slice(&2u16.to_le_bytes());
        elf[0x3e..0x40].copy_from_slice(&1u16.to_le_bytes());
        elf
    }

    #[test]
    fn dependencies_come_from_modinfo() {
        assert_eq!(
            dependencies(&module("virtio,virtio-ring")),
            ["virtio", "virtio_ring"]
        );
        assert!(dependencies(&module("")).is_empty());
        let whole = module("a");
        for size in 0..whole.len() {
            dependencies(&whole[..size]);
        }
    }

    /// Dependencies come first, built-in ones not at all, and device modules repeat nothing every machine loads.
    #[test]
    fn modules_come_in_loading_order() {
        let dir = std::env::temp_dir().join(format!("igloo-xtask-modules-{}", std::process::id()));
        let kernel = dir.join("kernel/drivers");
        std::fs::create_dir_all(&kernel).unwrap();
        std::fs::write(
            dir.join("modules.builtin"),
            "kernel/fs/ext4/ext4.ko\nkernel/fs/fuse/fuse.ko\n",
        )
        .unwrap();
        let files = [
            ("virtio_pci", "virtio_ring,virtio"),
            ("virtio", "virtio_ring"),
            ("virtio_ring", ""),
            ("overlay", ""),
            ("virtio_net", "virtio,net_failover"),
            ("net_failover", ""),
            ("virtio_blk", "virtio"),
            ("virtio_console", ""),
            ("virtio-rng", ""),
        ];
        for (name, depends) in files {
            std::fs::write(kernel.join(format!("{name}.ko")), module(depends)).unwrap();
        }
        let missing = choose(&dir).unwrap_err().to_string();
        assert!(missing.contains("virtiofs"), "{missing}");
        std::fs::write(kernel.join("virtiofs.ko"), module("fuse")).unwrap();
        let order: Vec<_> = choose(&dir)
            .unwrap()
            .into_iter()
            .map(|module| (module.file, module.device))
            .collect();
        std::fs::remove_dir_all(&dir).unwrap();
        let order: Vec<_> = order
            .iter()
            .map(|(file, device)| (file.trim_end_matches(".ko"), *device))
            .collect();
        assert_eq!(
            order,
            [
                ("virtio_ring", None),
                ("virtio", None),
                ("virtio_pci", None),
                ("overlay", None),
                ("net_failover", Some(1)),
                ("virtio_net", Some(1)),
                ("virtio_blk", Some(2)),
                ("virtio_console", Some(3)),
                ("virtio_rng", Some(4)),
                ("virtiofs", Some(26)),
            ]
        );
    }
}
