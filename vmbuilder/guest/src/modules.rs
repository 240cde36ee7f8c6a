//! Loading kernel modules, for kernels that do not have all they need built in.
//!
//! The image lists them in `/modules`, in the order to load them: one file name a line, after it the virtio device number
//! the module is for; a module for a device the machine lacks is not loaded. A module-free kernel has no such list.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use crate::error::{Step, StepError};

/// The list, in the initramfs.
pub const LIST: &str = "/modules";
/// Where the files are, in the initramfs.
pub const DIRECTORY: &str = "/lib/modules";
/// The machine's virtio devices, once the bus's own modules are loaded.
const DEVICES: &str = "/sys/bus/virtio/devices";

/// A line of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// The file's name.
    pub file: String,
    /// The device it is for (linux/virtio_ids.h); none for what every machine needs.
    pub device: Option<u32>,
}

/// Reads the list; lines that are none are skipped.
pub fn parse_list(text: &str) -> Vec<Module> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let file = words.next()?.to_owned();
        Some(Module {
            file,
            device: words.next().and_then(|word| word.parse().ok()),
        })
    };
    text.lines().filter_map(line).collect()
}

/// Loads what the list names. Those for a device come last, when the devices are known.
///
/// # Errors
/// The first module that does not load; one that is loaded already is fine.
pub fn load_all() -> Result<(), StepError> {
    let text = match fs::read_to_string(LIST) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        text => text.step("read", LIST)?,
    };
    let modules = parse_list(&text);
    for module in modules.iter().filter(|module| module.device.is_none()) {
        load(&module.file)?;
    }
    let present = present_devices();
    for module in &modules {
        if module.device.is_some_and(|device| present.contains(&device)) {
            load(&module.file)?;
        }
    }
    Ok(())
}

fn load(file: &str) -> Result<(), StepError> {
    let path = Path::new(DIRECTORY).join(file);
    let module = fs::File::open(&path).step("open", &path)?;
    match rustix::system::finit_module(&module, c"", 0) {
        Err(rustix::io::Errno::EXIST) => Ok(()),
        result => result.step("load", &path),
    }
}

/// Numbers of the virtio devices on the bus; `device` holds `0x0003`.
fn present_devices() -> BTreeSet<u32> {
    let entries = fs::read_dir(DEVICES).into_iter().flatten().flatten();
    let number = |entry: fs::DirEntry| {
        let text = fs::read_to_string(entry.path().join("device")).ok()?;
        u32::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok()
    };
    entries.filter_map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let module = |file: &str, device| Module {
            file: file.into(),
            device,
        };
        assert_eq!(
            parse_list("virtio.ko\n\nvirtio_net.ko 1\n"),
            [module("virtio.ko", None), module("virtio_net.ko", Some(1))]
        );
        assert_eq!(parse_list(""), []);
    }
}
