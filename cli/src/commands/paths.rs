//! Store paths as people give them: absolute, a base name, or a link to one.

use std::path::Path;

use igloo_status::Code;
use igloo_store::{PathInfo, Store};
use nix_compat::store_path::{StoreDir, StorePath};

use crate::failure::Failure;

/// Most links that are followed.
const LINKS_MAX: usize = 16;

/// The store path meant by a text; files inside one mean the path itself.
pub fn parse(dir: &StoreDir, text: &str) -> Result<StorePath, Failure> {
    if !text.contains('/')
        && let Ok(path) = StorePath::parse(text)
    {
        return Ok(path);
    }
    let mut place = Path::new(text).to_path_buf();
    for _ in 0..LINKS_MAX {
        if let Ok(below) = place.strip_prefix(dir.as_str()) {
            let first = below.components().next();
            let name = first.map(|name| name.as_os_str().to_string_lossy().into_owned());
            return Ok(StorePath::parse(&name.unwrap_or_default())?);
        }
        match std::fs::read_link(&place) {
            Ok(target) => place = place.parent().unwrap_or(Path::new("/")).join(target),
            Err(_) => break,
        }
    }
    Err(
        Failure::usage(format!("'{text}' is neither a store path nor a link to one"))
            .with_hint("`igloo store list` shows what is in the store"),
    )
}

/// The record of a path given by the user.
pub async fn find(store: &Store, text: &str) -> Result<PathInfo, Failure> {
    let path = parse(&store.dir, text)?;
    match store.path_infos.get(&path).await? {
        Some(info) => Ok(info),
        None => Err(Failure::coded(
            anyhow::anyhow!("{} is not in the store", store.dir.display(&path)),
            Code::NotFound,
        )
        .with_hint("`igloo store list` shows what is")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_files_mean_their_store_path() {
        let dir = StoreDir::default();
        let folder = tempfile::tempdir().unwrap();
        let name = "0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-x";
        let path = StorePath::parse(name).unwrap();
        std::os::unix::fs::symlink(format!("/nix/store/{name}"), folder.path().join("result")).unwrap();
        std::os::unix::fs::symlink("result", folder.path().join("second")).unwrap();
        std::os::unix::fs::symlink("circle", folder.path().join("circle")).unwrap();
        for text in ["result", "second"] {
            let link = folder.path().join(text);
            assert_eq!(parse(&dir, link.to_str().unwrap()).unwrap(), path);
        }
        for text in [
            name,
            &format!("/nix/store/{name}"),
            &format!("/nix/store/{name}/bin/x"),
        ] {
            assert_eq!(parse(&dir, text).unwrap(), path);
        }
        let circle = folder.path().join("circle");
        for text in [
            "/etc/passwd",
            "nothing",
            circle.to_str().unwrap(),
            "/nix/store",
            "/nix/store/x",
        ] {
            assert!(parse(&dir, text).is_err(), "{text}");
        }
    }
}
