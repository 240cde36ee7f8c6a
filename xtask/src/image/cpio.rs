//! Writing an initramfs: a cpio archive in the kernel's `newc` form.
//!
//! Deterministic: entries sorted by name, times 0, owner root, inode numbers counted from 1, so the same files give the
//! same bytes on every machine.
//!
//! Source: Documentation/driver-api/early-userspace/buffer-format.rst.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

const TRAILER: &str = "TRAILER!!!";

/// Files and directories of an archive.
#[derive(Default)]
pub struct Archive {
    entries: BTreeMap<String, Entry>,
}

struct Entry {
    mode: u32,
    content: Vec<u8>,
}

impl Archive {
    /// Adds a file, and the directories above it. The path has no leading slash.
    pub fn file(&mut self, path: &str, permissions: u32, content: Vec<u8>) {
        for (at, _) in path.match_indices('/') {
            let directory = Entry {
                mode: 0o040_755,
                content: Vec::new(),
            };
            self.entries.entry(path[..at].to_owned()).or_insert(directory);
        }
        let mode = 0o100_000 | permissions;
        self.entries.insert(path.to_owned(), Entry { mode, content });
    }

    /// The archive's bytes.
    ///
    /// # Errors
    /// When a file is too large for the format (4 GiB).
    pub fn bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for (inode, (name, entry)) in (1u32..).zip(&self.entries) {
            write_entry(&mut bytes, inode, name, entry)?;
        }
        write_entry(
            &mut bytes,
            0,
            TRAILER,
            &Entry {
                mode: 0,
                content: Vec::new(),
            },
        )?;
        Ok(bytes)
    }
}

fn write_entry(bytes: &mut Vec<u8>, inode: u32, name: &str, entry: &Entry) -> Result<()> {
    let size = u32::try_from(entry.content.len()).with_context(|| format!("{name} is too large"))?;
    let name_size = u32::try_from(name.len() + 1)?;
    let links = if entry.mode & 0o170_000 == 0o040_000 { 2 } else { 1 };
    // inode, mode, uid, gid, links, mtime, size, device (2), device number (2), name size, checksum
    let fields = [inode, entry.mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_size, 0];
    bytes.extend_from_slice(b"070701");
    for field in fields {
        bytes.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(0);
    pad(bytes);
    bytes.extend_from_slice(&entry.content);
    pad(bytes);
    Ok(())
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Another reader of the format sees the same tree, in order, with the directories before what is in them.
    #[test]
    fn the_archive_reads_back() {
        let mut archive = Archive::default();
        archive.file("lib/modules/b.ko", 0o644, b"module".to_vec());
        archive.file("init", 0o755, b"#!".to_vec());
        let bytes = archive.bytes().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let listed = read(&bytes);
        let expected = [
            ("init", 0o100_755, "#!"),
            ("lib", 0o040_755, ""),
            ("lib/modules", 0o040_755, ""),
            ("lib/modules/b.ko", 0o100_644, "module"),
            (TRAILER, 0, ""),
        ];
        let expected: Vec<_> = expected
            .iter()
            .map(|(n, m, c)| (n.to_string(), *m, c.as_bytes().to_vec()))
            .collect();
        assert_eq!(listed, expected);
    }

    fn read(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        while !bytes.is_empty() {
            assert_eq!(&bytes[..6], b"070701");
            let field = |index: usize| {
                let text = std::str::from_utf8(&bytes[6 + 8 * index..14 + 8 * index]).unwrap();
                u32::from_str_radix(text, 16).unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
            let name = String::from_utf8(bytes[110..110 + name_size - 1].to_vec()).unwrap();
            let start = (110 + name_size).next_multiple_of(4);
            entries.push((name, mode, bytes[start..start + size].to_vec()));
            bytes = &bytes[(start + size).next_multiple_of(4)..];
        }
        entries
    }
}
