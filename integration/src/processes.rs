//! What runs on this machine.

use std::path::Path;

use crate::wait_until;

/// Command lines of processes that name a place below `path`, this one's own not counted.
pub fn mentions(path: &Path) -> Vec<String> {
    let needle = path.to_str().expect("a textual path").trim_end_matches('/');
    let own = std::process::id().to_string();
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    let others = processes.filter(|entry| entry.file_name().to_string_lossy() != own);
    let lines = others.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(needle)).collect()
}

/// Waits until no process names a place below `path`: a killed emulator takes a moment to go.
pub fn none_mentions(path: &Path, what: &str) {
    wait_until(what, || mentions(path).is_empty());
}
