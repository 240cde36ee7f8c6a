//! Closures that a build wants described (`exportReferencesGraph`).
//!
//! A derivation in such a closure brings the closures of its outputs along. What is described need not be shown to the build.
//!
//! Invariants
//! - a description depends on the records of the paths alone, and is sorted by path.
//!
//! Source: Nix 2.34 `exportReferences`, `pathInfoToJSON`, `makeValidityRegistration`; both forms recorded from 2.34.

use std::collections::{BTreeMap, BTreeSet};

use igloo_castore::node::Node;
use igloo_store::{PathInfo, Store};
use nix_compat::derivation::{Derivation, TEXT_SIZE_MAX, derivation_name};
use nix_compat::hash::{HashFormat, NixHash};
use nix_compat::store_path::{StoreDir, StorePath};

use super::InputClosure;
use super::error::RequestError;
use crate::json::Json;

/// Records of a closure's paths.
pub(super) type Graph = BTreeMap<StorePath, PathInfo>;

/// The closure of `roots`, which must be inputs, and of the outputs of all derivations in it.
pub(super) async fn export(
    store: &Store,
    inputs: &InputClosure,
    roots: &BTreeSet<StorePath>,
) -> Result<Graph, RequestError> {
    let mut graph = Graph::new();
    let mut to_visit: Vec<&StorePath> = roots.iter().collect();
    while let Some(path) = to_visit.pop() {
        if graph.contains_key(path) {
            continue;
        }
        let info = inputs.get(path).ok_or_else(|| RequestError::GraphInput {
            path: store.dir.print(path),
        })?;
        to_visit.extend(&info.references);
        graph.insert(path.clone(), info.clone());
    }
    let mut outputs = BTreeSet::new();
    for (path, info) in graph.iter().filter(|(path, _)| path.is_derivation()) {
        outputs.extend(outputs_of(store, path, info).await?);
    }
    graph.extend(store.closure(outputs).await?);
    Ok(graph)
}

async fn outputs_of(
    store: &Store,
    path: &StorePath,
    info: &PathInfo,
) -> Result<Vec<StorePath>, RequestError> {
    let printed = || store.dir.print(path);
    let unreadable = |source| RequestError::GraphRead {
        path: printed(),
        source,
    };
    let (Node::File { digest, size, .. }, Ok(name)) = (&info.node, derivation_name(path)) else {
        return Err(unreadable(None));
    };
    let len = usize::try_from(*size).ok().filter(|size| *size <= TEXT_SIZE_MAX);
    let len = len.ok_or_else(|| unreadable(None))?;
    let text = store.castore.blobs.read_range(digest, 0, len).await;
    let text = text.map_err(|error| unreadable(Some(Box::new(error))))?;
    let derivation = Derivation::parse(&store.dir, &name, &text);
    let derivation = derivation.map_err(|source| RequestError::GraphDerivation {
        path: printed(),
        source: Box::new(source),
    })?;
    let outputs = derivation.outputs.iter();
    let outputs = outputs.map(|(output, how)| {
        let path = how.path(&store.dir, &derivation.name, output)?;
        path.ok_or_else(|| RequestError::GraphFloating { path: printed() })
    });
    outputs.collect()
}

/// What `nix-store --register-validity` reads: of each path its name, an empty line for the deriver, and its references.
pub(super) fn registration(dir: &StoreDir, graph: &Graph) -> Vec<u8> {
    let mut out = String::new();
    for (path, info) in graph {
        dir.print_to(&mut out, path);
        out.push_str("\n\n");
        out.push_str(&info.references.len().to_string());
        out.push('\n');
        for reference in &info.references {
            dir.print_to(&mut out, reference);
            out.push('\n');
        }
    }
    out.into_bytes()
}

/// The same as a list of objects, with sizes and hashes. Quadratic in the closure at worst, as in Nix: each path's own
/// closure is summed up.
pub(super) fn json(dir: &StoreDir, graph: &Graph) -> Json {
    let sizes = ClosureSizes::new(graph);
    let one = |(index, (path, info)): (usize, (&StorePath, &PathInfo))| {
        let string = |text: String| Json::String(text);
        let references = info.references.iter();
        let mut members = BTreeMap::from([
            ("closureSize", number(sizes.of(index))),
            (
                "narHash",
                string(NixHash::Sha256(info.nar_sha256).encode_with_algo(HashFormat::NixBase32)),
            ),
            ("narSize", number(info.nar_size)),
            ("path", string(dir.print(path))),
            (
                "references",
                Json::Array(references.map(|path| string(dir.print(path))).collect()),
            ),
            ("valid", Json::Bool(true)),
        ]);
        if let Some(address) = &info.content_address {
            members.insert("ca", string(address.to_string()));
        }
        let members = members.into_iter().map(|(name, value)| (name.to_owned(), value));
        Json::Object(members.collect())
    };
    Json::Array(graph.iter().enumerate().map(one).collect())
}

fn number(size: u64) -> Json {
    Json::Int(i64::try_from(size).unwrap_or(i64::MAX))
}

/// Sums of NAR sizes over closures; paths are known by their positions in the graph.
struct ClosureSizes {
    sizes: Vec<u64>,
    references: Vec<Vec<usize>>,
}

impl ClosureSizes {
    fn new(graph: &Graph) -> Self {
        let positions: BTreeMap<&StorePath, usize> = graph
            .keys()
            .enumerate()
            .map(|(index, path)| (path, index))
            .collect();
        let references = graph.values().map(|info| {
            let known = info.references.iter();
            known.filter_map(|path| positions.get(path).copied()).collect()
        });
        Self {
            sizes: graph.values().map(|info| info.nar_size).collect(),
            references: references.collect(),
        }
    }

    fn of(&self, root: usize) -> u64 {
        let mut seen = vec![false; self.sizes.len()];
        let mut to_visit = vec![root];
        let mut sum = 0u64;
        while let Some(index) = to_visit.pop() {
            if std::mem::replace(&mut seen[index], true) {
                continue;
            }
            sum = sum.saturating_add(self.sizes[index]);
            to_visit.extend(&self.references[index]);
        }
        sum
    }
}
