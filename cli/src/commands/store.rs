//! `igloo store …`, but for the daemon.

use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use futures::TryStreamExt as _;
use igloo_castore::ingest::PathOptions;
use igloo_store::{PathInfo, Store};
use nix_compat::hash::NixHash;
use nix_compat::store_path::{StorePath, StorePathName};
use serde_json::json;

use super::{paths, say};
use crate::args::{AddArguments, DumpArguments, InfoArguments, ListArguments, VerifyArguments};
use crate::context::Context;
use crate::failure::Failure;
use crate::stores;

/// `igloo store add`
pub async fn add(context: &Context, arguments: AddArguments) -> Result<(), Failure> {
    if arguments.name.is_some() && arguments.paths.len() > 1 {
        return Err(Failure::usage("--name names one path, but there are several"));
    }
    let mut named = Vec::new();
    for path in &arguments.paths {
        named.push((name_in_store(path, arguments.name.as_deref())?, path));
    }
    let store = stores::open(context).await?;
    for (name, path) in named {
        let info = store.add_path(&name, path, &PathOptions::default()).await?;
        say(store.dir.display(&info.path))?;
    }
    Ok(())
}

/// The last part of the path, as `nix-store --add` has it.
fn name_in_store(path: &Path, named: Option<&str>) -> Result<StorePathName, Failure> {
    let name = match (named, path.file_name()) {
        (Some(name), _) => name.to_string(),
        (None, Some(name)) => String::from_utf8_lossy(name.as_bytes()).into_owned(),
        (None, None) => {
            return Err(Failure::usage(format!(
                "{} has no name of its own; give it one with --name",
                path.display()
            )));
        }
    };
    StorePathName::new(&name)
        .map_err(|error| Failure::from(error).with_hint("give it another name in the store with --name"))
}

/// `igloo store dump`
pub async fn dump(context: &Context, arguments: &DumpArguments) -> Result<(), Failure> {
    let store = stores::open_to_read(context).await?;
    let info = paths::find(&store, &arguments.path).await?;
    let mut out = std::io::stdout();
    store
        .dump(&info.node, &mut out)
        .await
        .map_err(Failure::from_dump)?;
    Ok(out.flush()?)
}

/// `igloo store info`
pub async fn info(context: &Context, arguments: &InfoArguments) -> Result<(), Failure> {
    let store = stores::open_to_read(context).await?;
    let mut infos = Vec::new();
    for path in &arguments.paths {
        infos.push(paths::find(&store, path).await?);
    }
    if arguments.json {
        return say(serde_json::Value::from_iter(
            infos.iter().map(|info| as_json(&store, info)),
        ));
    }
    for info in &infos {
        say(as_text(&store, info))?;
    }
    Ok(())
}

/// `igloo store list`
pub async fn list(context: &Context, arguments: &ListArguments) -> Result<(), Failure> {
    let store = stores::open_to_read(context).await?;
    let mut infos = store.path_infos.list();
    let mut all = Vec::new();
    while let Some(info) = infos.try_next().await? {
        if arguments.json {
            all.push(as_json(&store, &info));
        } else {
            say(store.dir.display(&info.path))?;
        }
    }
    if arguments.json {
        say(serde_json::Value::Array(all))
    } else {
        Ok(())
    }
}

/// `igloo store verify`: reads everything, tells every damaged path, fails if there is one.
pub async fn verify(context: &Context, arguments: &VerifyArguments) -> Result<(), Failure> {
    let store = stores::open_to_read(context).await?;
    let mut damaged = 0_usize;
    let mut checked = 0_usize;
    let mut check = async |info: &PathInfo| {
        checked += 1;
        if let Err(error) = store.verify(info).await {
            damaged += 1;
            eprint!("{}", Failure::new(error).message());
        }
    };
    if arguments.paths.is_empty() {
        let mut infos = store.path_infos.list();
        while let Some(info) = infos.try_next().await? {
            check(&info).await;
        }
    }
    for path in &arguments.paths {
        let info = paths::find(&store, path).await?;
        check(&info).await;
    }
    if damaged > 0 {
        return Err(
            Failure::new(anyhow::anyhow!("{damaged} of {checked} store paths are damaged"))
                .with_hint("build or add them again"),
        );
    }
    if !context.quiet {
        eprintln!("{checked} store paths are whole");
    }
    Ok(())
}

fn as_json(store: &Store, info: &PathInfo) -> serde_json::Value {
    let print = |path: &StorePath| store.dir.print(path);
    json!({
        "path": print(&info.path),
        "narHash": NixHash::Sha256(info.nar_sha256).to_string(),
        "narSize": info.nar_size,
        "references": info.references.iter().map(print).collect::<Vec<_>>(),
        "deriver": info.deriver.as_ref().map(print),
        "signatures": info.signatures.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "ca": info.content_address.as_ref().map(ToString::to_string),
    })
}

fn as_text(store: &Store, info: &PathInfo) -> String {
    let print = |path: &StorePath| store.dir.print(path);
    let references: Vec<String> = info.references.iter().map(|path| path.to_string()).collect();
    let mut lines = vec![
        format!("Path: {}", print(&info.path)),
        format!("NarHash: {}", NixHash::Sha256(info.nar_sha256)),
        format!("NarSize: {}", info.nar_size),
        format!("References: {}", references.join(" ")),
    ];
    lines.extend(info.deriver.as_ref().map(|deriver| format!("Deriver: {deriver}")));
    lines.extend(
        info.signatures
            .iter()
            .map(|signature| format!("Sig: {signature}")),
    );
    lines.extend(
        info.content_address
            .as_ref()
            .map(|address| format!("CA: {address}")),
    );
    lines.join("\n")
}
