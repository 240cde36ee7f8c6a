//! `igloo path-info`, with the output of Nix's command of that name (recorded from 2.34).

use std::collections::{BTreeMap, BTreeSet};

use igloo_store::{PathInfo, Store};
use nix_compat::hash::NixHash;
use nix_compat::store_path::StorePath;
use serde_json::{Map, Value, json};

use super::build::dry_run::size;
use super::{paths, say};
use crate::args::PathInfoArguments;
use crate::context::Context;
use crate::failure::Failure;
use crate::stores;

/// Columns of a size in bytes, and of one for people.
const SIZE_COLUMNS: [usize; 2] = [11, 10];

/// Prints what is known of paths, or of their closures.
pub async fn run(context: &Context, arguments: &PathInfoArguments) -> Result<(), Failure> {
    let store = stores::open_to_read(context).await?;
    let mut wanted = Vec::new();
    let mut missing = Vec::new();
    for text in &arguments.paths {
        let path = paths::parse(&store.dir, text)?;
        if arguments.json && store.path_infos.get(&path).await?.is_none() {
            missing.push(path);
        } else {
            let info = paths::find(&store, text).await?;
            if !wanted.contains(&info) {
                wanted.push(info);
            }
        }
    }
    let infos = if arguments.recursive {
        closure(&store, &wanted).await?
    } else {
        wanted
    };
    let mut sizes = BTreeMap::new();
    if arguments.closure_size {
        for info in &infos {
            sizes.insert(info.path.clone(), closure_size(&store, info).await?);
        }
    }
    if arguments.json {
        return say(as_json(&store, arguments.json_format, &infos, &missing, &sizes));
    }
    let columns = infos
        .iter()
        .map(|info| store.dir.print(&info.path).len())
        .max()
        .unwrap_or(0);
    for info in &infos {
        say(line(
            &store,
            arguments,
            info,
            sizes.get(&info.path).copied(),
            columns,
        ))?;
    }
    Ok(())
}

/// The closure, what is referred to before what refers to it.
async fn closure(store: &Store, wanted: &[PathInfo]) -> Result<Vec<PathInfo>, Failure> {
    let mut all = store.closure(wanted.iter().map(|info| info.path.clone())).await?;
    let mut sorted = Vec::new();
    let mut placed = BTreeSet::new();
    // a stack of paths to place, each seen twice: before and after what it refers to
    let mut stack: Vec<(StorePath, bool)> = all.keys().rev().map(|path| (path.clone(), false)).collect();
    while let Some((path, is_ready)) = stack.pop() {
        if is_ready {
            sorted.extend(all.remove(&path));
        } else if placed.insert(path.clone()) {
            stack.push((path.clone(), true));
            let references = all.get(&path).map(|info| info.references.clone());
            stack.extend(
                references
                    .into_iter()
                    .flatten()
                    .map(|reference| (reference, false)),
            );
        }
    }
    Ok(sorted)
}

async fn closure_size(store: &Store, info: &PathInfo) -> Result<u64, Failure> {
    let closure = store.closure([info.path.clone()]).await?;
    Ok(closure.values().map(|info| info.nar_size).sum())
}

fn line(
    store: &Store,
    arguments: &PathInfoArguments,
    info: &PathInfo,
    closure: Option<u64>,
    columns: usize,
) -> String {
    let path = store.dir.print(&info.path);
    let sized = |bytes: u64| {
        let (text, columns) = if arguments.human_readable {
            (size(bytes), SIZE_COLUMNS[1])
        } else {
            (bytes.to_string(), SIZE_COLUMNS[0])
        };
        format!("\t{text:>columns$}")
    };
    let mut text = path;
    if arguments.size || closure.is_some() || arguments.sigs {
        text = format!("{text:<columns$}");
    }
    if arguments.size {
        text += &sized(info.nar_size);
    }
    if let Some(closure) = closure {
        text += &sized(closure);
    }
    if arguments.sigs {
        let mut words: Vec<String> = Vec::new();
        words.extend(
            info.content_address
                .as_ref()
                .map(|address| format!("ca:{address}")),
        );
        words.extend(info.signatures.iter().map(ToString::to_string));
        text = format!("{text}\t{}", words.join(" "));
    }
    text.trim_end().to_string()
}

fn as_json(
    store: &Store,
    format: u8,
    infos: &[PathInfo],
    missing: &[StorePath],
    sizes: &BTreeMap<StorePath, u64>,
) -> Value {
    // format 1 names paths in full, format 2 by their base names
    let name = |path: &StorePath| {
        if format == 1 {
            store.dir.print(path)
        } else {
            path.to_string()
        }
    };
    let mut all = Map::new();
    for info in infos {
        let mut one = json!({
            "ca": info.content_address.as_ref().map(ToString::to_string),
            "deriver": info.deriver.as_ref().map(name),
            "narHash": NixHash::Sha256(info.nar_sha256).to_string(),
            "narSize": info.nar_size,
            "references": info.references.iter().map(name).collect::<Vec<_>>(),
            "signatures": info.signatures.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "storeDir": store.dir.as_str(),
            "version": format,
        });
        if let Some(size) = sizes.get(&info.path) {
            one["closureSize"] = json!(size);
        }
        all.insert(name(&info.path), one);
    }
    all.extend(missing.iter().map(|path| (name(path), Value::Null)));
    if format == 1 {
        return Value::Object(all);
    }
    json!({ "info": all, "storeDir": store.dir.as_str(), "version": format })
}
