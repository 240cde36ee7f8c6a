//! Where things are: the environment, read once.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use crate::args::Arguments;

/// What every command may need of its surroundings.
#[derive(Clone, Debug)]
pub struct Context {
    /// The store's URL.
    pub store_url: String,
    /// This command, for messages in other processes.
    pub command_name: &'static str,
    /// Whether only failures are told.
    pub quiet: bool,
    /// Whether stderr is a terminal that may show progress.
    pub terminal: bool,
    /// Folder for sockets and running machines.
    pub runtime_dir: PathBuf,
    /// Folder for what can be found out again.
    pub cache_dir: PathBuf,
    /// Folders in which the guest image may be, in this order, when none is named.
    pub image_dirs: Vec<PathBuf>,
    /// The whole environment, for builds that may see parts of it.
    pub environment: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Context {
    /// Reads the environment.
    pub fn new(arguments: &Arguments) -> Self {
        let get = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let home = Home {
            root: is_root(),
            get: &get,
        };
        let store_url = arguments
            .store
            .clone()
            .unwrap_or_else(|| format!("rocksdb://{}", home.store().display()));
        Self {
            store_url,
            command_name: arguments.command.name(),
            quiet: arguments.quiet,
            terminal: std::io::IsTerminal::is_terminal(&std::io::stderr())
                && get("TERM").is_none_or(|term| term != "dumb"),
            runtime_dir: home.runtime(),
            cache_dir: home.cache(),
            image_dirs: home.images(),
            environment: std::env::vars_os()
                .map(|(name, value)| (name.into_vec(), value.into_vec()))
                .collect(),
        }
    }
}

/// Where a user's files go (XDG base directories; /var and /run for root).
struct Home<'a> {
    root: bool,
    get: &'a dyn Fn(&str) -> Option<OsString>,
}

impl Home<'_> {
    /// Root's data folder is the store itself, which holds nothing else.
    fn images(&self) -> Vec<PathBuf> {
        let own = (!self.root).then(|| {
            self.place("XDG_DATA_HOME", ".local/share", "/var/lib")
                .join("image")
        });
        own.into_iter()
            .chain(["/usr/local/lib/igloo/image", "/usr/lib/igloo/image"].map(PathBuf::from))
            .collect()
    }

    fn store(&self) -> PathBuf {
        let dir = igloo_store::url::default_dir(
            self.root,
            (self.get)("XDG_DATA_HOME").as_deref(),
            (self.get)("HOME").as_deref(),
        );
        dir.unwrap_or_else(|_| PathBuf::from(igloo_store::url::SYSTEM_DIR)) // no home: the system's place, which says what it lacks
    }

    fn cache(&self) -> PathBuf {
        self.place("XDG_CACHE_HOME", ".cache", "/var/cache")
    }

    fn runtime(&self) -> PathBuf {
        match (self.get)("XDG_RUNTIME_DIR") {
            Some(dir) => PathBuf::from(dir).join("igloo"),
            None if self.root => PathBuf::from("/run/igloo"),
            None => self.cache().join("run"),
        }
    }

    fn place(&self, variable: &str, below_home: &str, for_root: &str) -> PathBuf {
        let dir = match ((self.get)(variable), (self.get)("HOME")) {
            (Some(dir), _) => PathBuf::from(dir),
            (None, Some(home)) if !self.root => Path::new(&home).join(below_home),
            _ => PathBuf::from(for_root),
        };
        dir.join("igloo")
    }
}

fn is_root() -> bool {
    // the owner of our own process's folder: no unsafe call, no crate
    std::fs::metadata("/proc/self").is_ok_and(|metadata| std::os::unix::fs::MetadataExt::uid(&metadata) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(root: bool, variables: &[(&str, &str)]) -> (PathBuf, PathBuf, Vec<PathBuf>) {
        let get = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        let home = Home { root, get: &get };
        (home.store(), home.runtime(), home.images())
    }

    #[test]
    fn files_go_where_the_user_says() {
        let (store, runtime, images) =
            home(false, &[("HOME", "/home/a"), ("XDG_RUNTIME_DIR", "/run/user/1")]);
        assert_eq!(store, PathBuf::from("/home/a/.local/share/igloo/store"));
        assert_eq!(runtime, PathBuf::from("/run/user/1/igloo"));
        assert_eq!(images[0], PathBuf::from("/home/a/.local/share/igloo/image"));
        let (store, runtime, images) = home(true, &[("HOME", "/root")]);
        assert_eq!((store, runtime), ("/var/lib/igloo".into(), "/run/igloo".into()));
        assert!(images.iter().all(|image| !image.starts_with("/var/lib/igloo")));
        assert_eq!(
            home(false, &[("HOME", "/h"), ("XDG_DATA_HOME", "/d")]).0,
            PathBuf::from("/d/igloo/store")
        );
    }
}
