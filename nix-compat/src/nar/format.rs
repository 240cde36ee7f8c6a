//! The archive's fixed parts: every run of tags that occurs between two variable parts, and the rules for names.

use super::{NAME_LEN_MAX, NameRule, TARGET_LEN_MAX};

/// Bytes of a string of up to 8 bytes: length and one padded word.
const TAG: usize = 16;

/// Starts every archive.
pub(super) const MAGIC: &[u8; 24] = b"\x0d\0\0\0\0\0\0\0nix-archive-1\0\0\0";
/// `(` `type` `regular`
pub(super) const REGULAR: &[u8; 3 * TAG] =
    b"\x01\0\0\0\0\0\0\0(\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0type\0\0\0\0\x07\0\0\0\0\0\0\0regular\0";
/// `(` `type` `symlink`
pub(super) const SYMLINK: &[u8; 3 * TAG] =
    b"\x01\0\0\0\0\0\0\0(\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0type\0\0\0\0\x07\0\0\0\0\0\0\0symlink\0";
/// `(` `type` `directory`
pub(super) const DIRECTORY: &[u8; 3 * TAG + 8] =
    b"\x01\0\0\0\0\0\0\0(\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0type\0\0\0\0\x09\0\0\0\0\0\0\0directory\0\0\0\0\0\0\0";
/// `executable` and an empty string
pub(super) const EXECUTABLE: &[u8; 24 + 8] = b"\x0a\0\0\0\0\0\0\0executable\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
/// `contents`
pub(super) const CONTENTS: &[u8; TAG] = b"\x08\0\0\0\0\0\0\0contents";
/// `target`
pub(super) const TARGET: &[u8; TAG] = b"\x06\0\0\0\0\0\0\0target\0\0";
/// `entry`
pub(super) const ENTRY: &[u8; TAG] = b"\x05\0\0\0\0\0\0\0entry\0\0\0";
/// `(` `name`
pub(super) const NAME: &[u8; 2 * TAG] = b"\x01\0\0\0\0\0\0\0(\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0name\0\0\0\0";
/// `node`
pub(super) const NODE: &[u8; TAG] = b"\x04\0\0\0\0\0\0\0node\0\0\0\0";
/// `)`
pub(super) const CLOSE: &[u8; TAG] = b"\x01\0\0\0\0\0\0\0)\0\0\0\0\0\0\0";

/// The zeros that follow a string of that length: 0 to 7.
pub(super) const fn padding(len: u64) -> usize {
    match len % 8 {
        0 => 0,
        1 => 7,
        2 => 6,
        3 => 5,
        4 => 4,
        5 => 3,
        6 => 2,
        _ => 1,
    }
}

/// Checks the name of a directory entry by itself, without its order among others.
pub(super) fn check_name(name: &[u8]) -> Result<(), NameRule> {
    match name {
        b"" => Err(NameRule::Empty),
        b"." | b".." => Err(NameRule::Dots),
        _ if name.len() > NAME_LEN_MAX => Err(NameRule::TooLong),
        _ if memchr::memchr2(b'/', 0, name).is_some() => Err(NameRule::SlashOrNul),
        _ => Ok(()),
    }
}

/// Checks a symlink's target: 1 to 4095 bytes without NUL.
pub(super) fn check_target(target: &[u8]) -> Result<(), NameRule> {
    if target.is_empty() {
        return Err(NameRule::Empty);
    }
    if target.len() > TARGET_LEN_MAX {
        return Err(NameRule::TooLong);
    }
    if memchr::memchr(0, target).is_some() {
        return Err(NameRule::SlashOrNul);
    }
    Ok(())
}
