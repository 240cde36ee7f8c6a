//! Where a coordinator keeps its journal and its logs: beside the embedded store, which has one writer at a time; for a store in
//! another process in a folder of the user, one for each such store.
//!
//! Several commands may use a store of another process at once. The first takes the folder, the next one its neighbour
//! (`NAME-2`, …), each under a lock that ends with its process; who comes later goes on with what an earlier one left there.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use igloo_status::Code;
use igloo_store::StoreUrl;

use crate::context::Context;
use crate::failure::Failure;

/// Commands on one store at once.
const NEIGHBOURS_MAX: u32 = 64;
/// Name of the file that is locked.
const LOCK: &str = "in-use";

/// A folder, and the claim to it.
#[derive(Debug)]
pub struct State {
    /// The folder.
    pub dir: PathBuf,
    /// Ends the claim when it is dropped; none where the store itself is claimed.
    _claim: Option<File>,
}

/// A folder for this command alone.
///
/// # Errors
/// When it cannot be made, or 64 other commands use this store.
pub fn take(context: &Context) -> Result<State, Failure> {
    let place = place(context)?;
    if place.own {
        return Ok(State {
            dir: place.dir,
            _claim: None,
        });
    }
    for dir in neighbours(&place.dir) {
        let claimed = claim(&dir).map_err(|error| {
            let code = Code::from_io(&error);
            let error = anyhow::Error::new(error).context(format!("cannot use the folder {}", dir.display()));
            Failure::coded(error, code)
        })?;
        if claimed.is_some() {
            return Ok(State { dir, _claim: claimed });
        }
    }
    let message = format!(
        "{NEIGHBOURS_MAX} other commands use the store {}",
        context.store_url
    );
    Err(Failure::usage(message).with_hint("one `igloo coordinator` can serve them all: --coordinator URL"))
}

/// The folders that may hold logs: those of commands that run, or ran, at once.
///
/// # Errors
/// When the store's URL is none.
pub fn all(context: &Context) -> Result<Vec<PathBuf>, Failure> {
    let place = place(context)?;
    if place.own {
        return Ok(vec![place.dir]);
    }
    Ok(neighbours(&place.dir).filter(|dir| dir.exists()).collect())
}

/// Where this command's folders are.
struct Place {
    dir: PathBuf,
    /// Nobody else can have it.
    own: bool,
}

fn place(context: &Context) -> Result<Place, Failure> {
    let (dir, own) = match context.store_url.parse()? {
        StoreUrl::Rocksdb { dir } => (dir.join("coordinator"), true),
        StoreUrl::Memory => {
            let name = format!("coordinator-{}", std::process::id());
            (context.runtime_dir.join(name), true)
        }
        StoreUrl::Remote { url } => {
            let digest = blake3::hash(url.as_bytes());
            let name = nix_compat::nixbase32::encode(&digest.as_bytes()[..20]);
            (context.state_dir.join("coordinators").join(name), false)
        }
    };
    Ok(Place { dir, own })
}

fn neighbours(dir: &Path) -> impl Iterator<Item = PathBuf> {
    (1..=NEIGHBOURS_MAX).map(move |number| match number {
        1 => dir.to_owned(),
        number => {
            let mut name = dir.as_os_str().to_owned();
            name.push(format!("-{number}"));
            name.into()
        }
    })
}

/// The lock of a folder, which is made where it is not there; nothing where somebody has it.
fn claim(dir: &Path) -> std::io::Result<Option<File>> {
    std::fs::create_dir_all(dir)?;
    let options = File::options().create(true).truncate(false).write(true).clone();
    let file = options.open(dir.join(LOCK))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claimed_folder_is_left_to_its_owner() {
        let temporary = tempfile::tempdir().unwrap();
        let dirs: Vec<_> = neighbours(&temporary.path().join("store")).take(3).collect();
        assert!(dirs[1].ends_with("store-2"));
        let first = claim(&dirs[0]).unwrap();
        assert!(first.is_some());
        assert!(claim(&dirs[0]).unwrap().is_none());
        assert!(claim(&dirs[1]).unwrap().is_some());
        drop(first);
        assert!(claim(&dirs[0]).unwrap().is_some());
    }
}
