//! Reading `nix-cache-info`.
//!
//! Source: Nix 2.36 `BinaryCacheStore::init` (src/libstore/binary-cache-store.cc).

use nix_compat::store_path::{StoreDir, StoreDirError};

use crate::substituter::CacheInfo;

/// Bytes of the longest text looked at.
pub(crate) const TEXT_SIZE_MAX: usize = 64 << 10;
/// What binary caches have that say nothing.
pub(crate) const PRIORITY_DEFAULT: u32 = 50;

impl CacheInfo {
    /// Reads `nix-cache-info`; what it does not say is `dir`, 50 and no. Unknown lines are skipped, as Nix does.
    ///
    /// # Errors
    /// See [`ParseCacheInfoError`].
    pub fn parse(text: &str, dir: &StoreDir) -> Result<Self, ParseCacheInfoError> {
        let mut info = Self {
            store_dir: dir.clone(),
            priority: PRIORITY_DEFAULT,
            want_mass_query: false,
        };
        for line in text.lines() {
            let Some((name, value)) = line.split_once(':') else {
                continue;
            };
            let value = value.trim();
            match name {
                "StoreDir" => info.store_dir = StoreDir::new(value)?,
                "Priority" => info.priority = value.parse().map_err(|_| ParseCacheInfoError::Priority)?,
                "WantMassQuery" => info.want_mass_query = value == "1",
                _ => {}
            }
        }
        Ok(info)
    }

    /// The text of `nix-cache-info`, as Nix writes it.
    pub fn print(&self) -> String {
        let mut text = format!("StoreDir: {}\n", self.store_dir.as_str());
        if self.want_mass_query {
            text.push_str("WantMassQuery: 1\n");
        }
        text.push_str(&format!("Priority: {}\n", self.priority));
        text
    }
}

/// A text that is no `nix-cache-info`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseCacheInfoError {
    /// A store directory that cannot be one.
    #[error("bad StoreDir")]
    StoreDir(#[from] StoreDirError),
    /// A priority that is no number.
    #[error("bad Priority")]
    Priority,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_are_read() {
        let dir = StoreDir::default();
        let parse = |text: &str| CacheInfo::parse(text, &dir);
        let info = parse("StoreDir: /other/store\nWantMassQuery: 1\nPriority: 40\nNew: x\n").unwrap();
        assert_eq!(info.store_dir.as_str(), "/other/store");
        assert_eq!((info.priority, info.want_mass_query), (40, true));
        let info = parse("StoreDir: /nix/store\n").unwrap();
        assert_eq!((info.priority, info.want_mass_query), (50, false));
        assert_eq!(parse("Priority: high\n"), Err(ParseCacheInfoError::Priority));
        assert!(matches!(
            parse("StoreDir: nix\n"),
            Err(ParseCacheInfoError::StoreDir(_))
        ));
    }

    proptest! {
        #[test]
        fn round_trips(priority: u32, want_mass_query: bool, text in "\\PC{0,40}") {
            let info = CacheInfo { store_dir: StoreDir::new("/a/b").unwrap(), priority, want_mass_query };
            prop_assert_eq!(CacheInfo::parse(&info.print(), &StoreDir::default()), Ok(info));
            let _ = CacheInfo::parse(&text, &StoreDir::default());
        }
    }
}
