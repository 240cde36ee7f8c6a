//! What is mounted where, from `/proc/self/mountinfo` (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MountPoint {
    pub(super) device: Device,
    pub(super) dir: PathBuf,
    pub(super) file_system: String,
}

/// The device number of a mounted file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) major: u32,
    pub(super) minor: u32,
}

/// The mount seen at `dir`, an absolute path without symlinks: the last one made there.
pub(super) fn top_at(dir: &Path) -> io::Result<Option<MountPoint>> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    let lines = table.split(|byte| *byte == b'\n');
    Ok(lines.filter_map(parse).rfind(|mount| mount.dir == dir))
}

/// A line: id, parent, major:minor, root, directory, options, tags..., `-`, type, source, options.
fn parse(line: &[u8]) -> Option<MountPoint> {
    let mut fields = line.split(|byte| *byte == b' ');
    let (major, minor) = std::str::from_utf8(fields.nth(2)?).ok()?.split_once(':')?;
    let dir = unescape(fields.nth(1)?);
    let file_system = fields.skip_while(|field| *field != b"-").nth(1)?;
    Some(MountPoint {
        device: Device {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
        },
        dir: OsString::from_vec(dir).into(),
        file_system: std::ffi::OsStr::from_bytes(file_system)
            .to_string_lossy()
            .into_owned(),
    })
}

/// Blanks, tabs, newlines and backslashes are written as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| *first == b'\\').and_then(|digits| {
            let text = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(text, 8).ok()
        });
        match octal {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_mountinfo_are_read() {
        let line =
            b"36 35 0:54 / /mnt/a\\040b\\134c rw,nosuid master:1 shared:2 - fuse.igloo igloo ro,user_id=0";
        let mount = parse(line).unwrap();
        assert_eq!(mount.device, Device { major: 0, minor: 54 });
        assert_eq!(mount.dir, Path::new("/mnt/a b\\c"));
        assert_eq!(mount.file_system, "fuse.igloo");
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"36 35 0:54 / /mnt rw"), None);
    }

    #[test]
    fn the_root_is_a_mount() {
        assert!(top_at(Path::new("/")).unwrap().is_some());
    }
}
