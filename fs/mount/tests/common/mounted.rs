//! A tree mounted on `/dev/fuse` for the time of a test.

#![allow(dead_code, reason = "each test binary uses its part of it")]
#![allow(unreachable_pub, reason = "a module of test binaries")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use igloo_castore::Node;
use igloo_mount::{CastoreFs, Mount, MountOptions, Roots, SingleRoot};

use crate::common::{Item, TestStore, Watchdog};

/// A mounted tree with its store; unmounted at the end whatever happens.
pub struct Mounted {
    pub mount: Mount,
    pub store: TestStore,
    pub tmp: tempfile::TempDir,
    _watchdog: Watchdog,
}

impl Mounted {
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.mount.dir().join(relative)
    }

    pub fn requests(&self, name: &str) -> u64 {
        self.mount.fs().counters().snapshot().requests(name)
    }
}

pub fn mounted(test: &'static str, tree: &Item) -> Mounted {
    let store = TestStore::new();
    let roots = single(&store, tree);
    mounted_roots(test, store, roots)
}

pub fn single(store: &TestStore, tree: &Item) -> Arc<dyn Roots> {
    let Node::Directory { digest, .. } = store.put(tree) else {
        panic!("a directory is shown")
    };
    Arc::new(SingleRoot::new(digest, store.castore.directories.clone()))
}

pub fn mounted_roots(test: &'static str, store: TestStore, roots: Arc<dyn Roots>) -> Mounted {
    let tmp = tempfile::tempdir().unwrap();
    let watchdog = Watchdog::new(test, tmp.path(), Duration::from_secs(120));
    let fs = CastoreFs::of_store(roots, store.castore.clone(), store.runtime.handle().clone());
    let mount = Mount::new(tmp.path(), Arc::new(fs), &MountOptions::default()).unwrap();
    Mounted {
        mount,
        store,
        tmp,
        _watchdog: watchdog,
    }
}
