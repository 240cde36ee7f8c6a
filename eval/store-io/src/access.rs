//! What an evaluation may read.
//!
//! Invariants
//! - what the rules name is allowed, and every store path this evaluation made or was given; all else is refused;
//! - directories on the way to something allowed may be looked at, not listed.
//!
//! Source: Nix 2.34 `src/libexpr/eval.cc` (`allowPath`, `checkURI`), `src/libfetchers/filtering-source-accessor.cc`.

use std::cell::RefCell;
use std::collections::HashSet;

use igloo_eval::io::{AccessRules, IoError};
use nix_compat::store_path::{StoreDir, StorePath};

use crate::error::text;

/// Which URIs may be fetched (`allowed-uris` in restricted mode).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum UriRules {
    /// All.
    #[default]
    All,
    /// Those equal to, or below, one of these. Files are also allowed where their path is.
    Below(Vec<String>),
}

/// The rules and what the evaluation has earned since.
#[derive(Debug, Default)]
pub(crate) struct Access {
    pub(crate) rules: AccessRules,
    pub(crate) uris: UriRules,
    earned: RefCell<HashSet<StorePath>>,
}

impl Access {
    /// A store path this evaluation may read from now on.
    pub(crate) fn allow(&self, path: &StorePath) {
        if self.is_restricted() {
            self.earned.borrow_mut().insert(path.clone());
        }
    }

    /// Whether anything is forbidden at all.
    pub(crate) fn is_restricted(&self) -> bool {
        matches!(self.rules, AccessRules::Below(..))
    }

    /// Whether `path` may be read.
    pub(crate) fn read(&self, dir: &StoreDir, path: &[u8]) -> Result<(), IoError> {
        let AccessRules::Below(prefixes, why) = &self.rules else {
            return Ok(());
        };
        // a path with `..` in it is not where it seems to be
        let canonical = !path.split(|byte| *byte == b'/').any(|part| part == b"..");
        let allowed = || prefixes.iter().any(|prefix| is_below(path, prefix)) || self.has_earned(dir, path);
        if canonical && allowed() {
            return Ok(());
        }
        Err(IoError::Forbidden {
            path: text(path),
            why,
        })
    }

    /// Whether it may be asked what `path` is.
    pub(crate) fn look(&self, dir: &StoreDir, path: &[u8]) -> Result<(), IoError> {
        let AccessRules::Below(prefixes, _) = &self.rules else {
            return Ok(());
        };
        let on_the_way = prefixes.iter().any(|prefix| is_below(prefix, path))
            || (is_below(dir.as_str().as_bytes(), path) && !self.earned.borrow().is_empty());
        if on_the_way { Ok(()) } else { self.read(dir, path) }
    }

    /// Whether `uri` may be fetched whatever it is; a file of this machine may be where its path may be read.
    pub(crate) fn fetch(&self, uri: &str) -> bool {
        match &self.uris {
            UriRules::All => true,
            UriRules::Below(prefixes) => prefixes.iter().any(|prefix| uri_is_below(uri, prefix)),
        }
    }

    fn has_earned(&self, dir: &StoreDir, path: &[u8]) -> bool {
        let earned = self.earned.borrow();
        !earned.is_empty() && dir.split(path).is_ok_and(|(stored, _)| earned.contains(&stored))
    }
}

/// Whether `path` is `prefix` or lies below it.
pub(crate) fn is_below(path: &[u8], prefix: &[u8]) -> bool {
    let Some(rest) = path.strip_prefix(prefix) else {
        return false;
    };
    rest.is_empty() || rest.starts_with(b"/") || prefix == b"/"
}

fn uri_is_below(uri: &str, prefix: &str) -> bool {
    let Some(rest) = uri.strip_prefix(prefix) else {
        return false;
    };
    rest.is_empty()
        || (!prefix.is_empty() && (prefix.ends_with('/') || rest.starts_with('/') || prefix.ends_with(':')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(prefixes: &[&str], uris: &[&str]) -> Access {
        Access {
            rules: AccessRules::Below(
                prefixes.iter().map(|prefix| prefix.as_bytes().to_vec()).collect(),
                "in restricted mode",
            ),
            uris: UriRules::Below(uris.iter().map(ToString::to_string).collect()),
            earned: RefCell::default(),
        }
    }

    #[test]
    fn prefixes_end_at_components() {
        let access = access(&["/a/b"], &[]);
        let dir = StoreDir::default();
        assert!(access.read(&dir, b"/a/b").is_ok());
        assert!(access.read(&dir, b"/a/b/c").is_ok());
        assert!(access.read(&dir, b"/a/bc").is_err());
        assert!(access.read(&dir, b"/a").is_err());
        assert!(access.look(&dir, b"/a").is_ok());
        assert!(access.look(&dir, b"/").is_ok());
        assert!(access.look(&dir, b"/c").is_err());
        assert!(access.read(&dir, b"/a/b/../c").is_err());
    }

    #[test]
    fn what_was_made_may_be_read() {
        let access = access(&[], &[]);
        let dir = StoreDir::default();
        let path = StorePath::parse("00000000000000000000000000000000-x").unwrap();
        let inside = format!("{}/y", dir.print(&path));
        assert!(access.read(&dir, inside.as_bytes()).is_err());
        assert!(access.look(&dir, b"/nix").is_err());
        access.allow(&path);
        assert!(access.read(&dir, inside.as_bytes()).is_ok());
        assert!(access.look(&dir, b"/nix").is_ok());
        assert!(access.read(&dir, b"/nix/store").is_err());
        let out = format!("{}/../../../etc/passwd", dir.print(&path));
        assert!(access.read(&dir, out.as_bytes()).is_err());
    }

    /// The cases of Nix's documentation of `allowed-uris`.
    #[test]
    fn uris() {
        let access = access(
            &["/src"],
            &["https://github.com/NixOS", "git+ssh:", "http://h/x/"],
        );
        let allowed = |uri: &str| access.fetch(uri);
        assert!(allowed("https://github.com/NixOS"));
        assert!(allowed("https://github.com/NixOS/nixpkgs"));
        assert!(!allowed("https://github.com/NixOSevil"));
        assert!(!allowed("https://github.com"));
        assert!(allowed("git+ssh://anything"));
        assert!(allowed("http://h/x/y"));
        assert!(!allowed("file:///src/a"));
    }
}
