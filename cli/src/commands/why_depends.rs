//! `igloo why-depends A B`: the shortest chain of references, as Nix prints it with `--precise` (recorded from 2.34).

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;

use bytes::Bytes;
use igloo_castore::export::TreeExport;
use igloo_castore::node::NodeName;
use igloo_castore::tree::TreeEvent;
use igloo_store::{PathInfo, Store};
use nix_compat::store_path::StorePath;

use super::{paths, say};
use crate::args::WhyDependsArguments;
use crate::context::Context;
use crate::failure::Failure;
use crate::stores;

/// Bytes of a path that are looked through for the file that holds a reference, unless all of it is asked for.
const LOOK_SIZE: u64 = 64 << 20;
/// Bytes shown before a hash, and after it.
const MARGIN: usize = 32;
/// Bytes of a hash part.
const HASH_SIZE: usize = 32;

/// Prints the chain; says on stderr when there is none, which is no failure.
pub async fn run(context: &Context, arguments: &WhyDependsArguments) -> Result<(), Failure> {
    let store = stores::open_to_read(context).await?;
    let from = paths::find(&store, &arguments.path).await?;
    let to = paths::parse(&store.dir, &arguments.dependency)?;
    let Some(chain) = shortest(&store, &from, &to).await? else {
        if !context.quiet {
            eprintln!(
                "'{}' does not depend on '{}'",
                store.dir.print(&from.path),
                store.dir.print(&to)
            );
        }
        return Ok(());
    };
    let mut found = Vec::new();
    for pair in chain.windows(2) {
        let look_size = match (arguments.no_files, arguments.precise) {
            (true, _) => 0,
            (_, true) => u64::MAX,
            _ => LOOK_SIZE,
        };
        found.push(look(&store, &pair[0], &pair[1].path, look_size).await?);
    }
    let names: Vec<String> = chain.iter().map(|info| store.dir.print(&info.path)).collect();
    say(tree(&names, &found))
}

/// From the one to the other, both included. Reads the records it passes, each once.
async fn shortest(store: &Store, from: &PathInfo, to: &StorePath) -> Result<Option<Vec<PathInfo>>, Failure> {
    let mut seen: BTreeMap<StorePath, (PathInfo, Option<StorePath>)> = BTreeMap::new();
    seen.insert(from.path.clone(), (from.clone(), None));
    let mut queue = VecDeque::from([from.path.clone()]);
    while let Some(path) = queue.pop_front() {
        if path == *to {
            return Ok(Some(back(&seen, path)));
        }
        let references = seen.get(&path).map(|(info, _)| info.references.clone());
        for reference in references.into_iter().flatten() {
            if seen.contains_key(&reference) {
                continue;
            }
            if let Some(info) = store.path_infos.get(&reference).await? {
                seen.insert(reference.clone(), (info, Some(path.clone())));
                queue.push_back(reference);
            }
        }
    }
    Ok(None)
}

fn back(seen: &BTreeMap<StorePath, (PathInfo, Option<StorePath>)>, last: StorePath) -> Vec<PathInfo> {
    let mut chain = Vec::new();
    let mut at = Some(last);
    while let Some((info, before)) = at.and_then(|path| seen.get(&path)) {
        chain.push(info.clone());
        at = before.clone();
    }
    chain.reverse();
    chain
}

/// The first file in which the hash part of `reference` occurs, and the text around it, as one line.
async fn look(
    store: &Store,
    info: &PathInfo,
    reference: &StorePath,
    look_size: u64,
) -> Result<Option<String>, Failure> {
    if look_size == 0 {
        return Ok(None);
    }
    let printed = reference.to_string();
    let mut search = Search::new(&printed.as_bytes()[..HASH_SIZE]);
    let mut export = TreeExport::new(store.castore.clone(), info.node.clone());
    let mut looked = 0_u64;
    while let Some(event) = export.next().await.map_err(|error| {
        let code = error.code();
        Failure::coded(error, code)
    })? {
        if let TreeEvent::FileData(bytes) = &event {
            looked += bytes.len() as u64;
        }
        if let Some(line) = search.take(event) {
            return Ok(Some(line));
        }
        if looked > look_size {
            return Ok(None);
        }
    }
    Ok(None)
}

/// Looks for a hash part in the events of a tree.
struct Search {
    hash: Vec<u8>,
    folders: Vec<Bytes>,
    file: Bytes,
    left: u64,
    /// The end of what was read of the file: enough for a hash and its margins.
    window: Vec<u8>,
}

impl Search {
    fn new(hash: &[u8]) -> Self {
        Self {
            hash: hash.to_vec(),
            folders: Vec::new(),
            file: Bytes::new(),
            left: 0,
            window: Vec::new(),
        }
    }

    fn take(&mut self, event: TreeEvent) -> Option<String> {
        match event {
            TreeEvent::DirectoryBegin { name } => {
                self.folders.push(bytes_of(name));
                None
            }
            TreeEvent::DirectoryEnd => {
                self.folders.pop();
                None
            }
            TreeEvent::FileBegin { name, size, .. } => {
                self.file = bytes_of(name);
                self.left = size;
                self.window.clear();
                None
            }
            TreeEvent::FileData(bytes) => self.data(&bytes),
            TreeEvent::Symlink { name, target } => {
                memchr::memmem::find(target.as_bytes(), &self.hash)?;
                self.file = bytes_of(name);
                Some(format!("{} -> {}", self.place(), shown(target.as_bytes())))
            }
        }
    }

    fn data(&mut self, bytes: &[u8]) -> Option<String> {
        self.left = self.left.saturating_sub(bytes.len() as u64);
        self.window.extend_from_slice(bytes);
        if let Some(at) = memchr::memmem::find(&self.window, &self.hash) {
            let end = at + HASH_SIZE + MARGIN;
            if self.window.len() >= end || self.left == 0 {
                let text = &self.window[at.saturating_sub(MARGIN)..end.min(self.window.len())];
                return Some(format!("{}: …{}…", self.place(), shown(text)));
            }
        }
        // what a hash that begins here, or one that was found, still needs
        let keep = 2 * MARGIN + HASH_SIZE;
        let surplus = self.window.len().saturating_sub(keep);
        self.window.drain(..surplus);
        None
    }

    /// The file's path below the store path; `/` for the path itself, as Nix has it.
    fn place(&self) -> String {
        let names = self
            .folders
            .iter()
            .chain([&self.file])
            .filter(|name| !name.is_empty());
        let names: Vec<String> = names.map(|name| shown(name)).collect();
        if names.is_empty() {
            "/".into()
        } else {
            names.join("/")
        }
    }
}

fn bytes_of(name: Option<NodeName>) -> Bytes {
    name.map_or_else(Bytes::new, |name| Bytes::copy_from_slice(name.as_bytes()))
}

/// Bytes that are not printable ASCII as dots.
fn shown(bytes: &[u8]) -> String {
    let show = |byte: &u8| {
        if matches!(byte, b' '..=b'~') {
            char::from(*byte)
        } else {
            '.'
        }
    };
    bytes.iter().map(show).collect()
}

fn tree(names: &[String], found: &[Option<String>]) -> String {
    let mut text = String::new();
    for (depth, name) in names.iter().enumerate() {
        let Some(above) = depth.checked_sub(1) else {
            text.push_str(name);
            continue;
        };
        let indent = "    ".repeat(above);
        // writing to a String cannot fail
        let _ = match found.get(above).and_then(Option::as_ref) {
            Some(file) => write!(text, "\n{indent}└───{file}\n{indent}    → {name}"),
            None => write!(text, "\n{indent}└───{name}"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use igloo_castore::node::SymlinkTarget;

    use super::*;

    const HASH: &str = "7mikdl5qyl1kls7v7z9xmz369df1i29a";

    fn name(text: &str) -> Option<NodeName> {
        Some(NodeName::try_from(text).unwrap())
    }

    fn file(search: &mut Search, text: &str, pieces: usize) -> Option<String> {
        let begin = TreeEvent::FileBegin {
            name: name("two"),
            executable: false,
            size: text.len() as u64,
        };
        assert_eq!(search.take(begin), None);
        let mut found = None;
        for piece in text.as_bytes().chunks(pieces) {
            found = found.or(search.take(TreeEvent::FileData(Bytes::copy_from_slice(piece))));
        }
        found
    }

    /// The lines `nix why-depends --precise` printed, however the file is cut.
    #[test]
    fn hits_are_shown_as_nix_shows_them() {
        let before = "something long in front of it\n..";
        let text = format!("{before}x /S/{HASH}-a/y and more text that is long enough to be cut off\n");
        let expected = format!("two: …ng in front of it...x /S/{HASH}-a/y and more text that is long …");
        let from = text.find(HASH).unwrap() - MARGIN;
        let expected = expected.replace(
            "ng in front of it...x /S/",
            &shown(&text.as_bytes()[from..from + MARGIN]),
        );
        for pieces in [1, 7, 31, 32, 64, 1000] {
            let mut search = Search::new(HASH.as_bytes());
            assert_eq!(
                file(&mut search, &text, pieces).as_deref(),
                Some(expected.as_str()),
                "{pieces}"
            );
        }
        let mut search = Search::new(HASH.as_bytes());
        let short = format!("{HASH}\n");
        assert_eq!(file(&mut search, &short, 40).unwrap(), format!("two: …{HASH}.…"));
        assert_eq!(file(&mut search, &HASH[..31], 4), None);
        assert_eq!(file(&mut search, &HASH[31..], 4), None, "files do not touch");
        search.take(TreeEvent::DirectoryBegin { name: None });
        search.take(TreeEvent::DirectoryBegin { name: name("bin") });
        let link = TreeEvent::Symlink {
            name: name("l"),
            target: SymlinkTarget::try_from(format!("/S/{HASH}-a").as_bytes()).unwrap(),
        };
        assert_eq!(search.take(link).unwrap(), format!("bin/l -> /S/{HASH}-a"));
    }

    #[test]
    fn the_tree_is_nix_s() {
        let names = ["/S/d", "/S/b", "/S/a"].map(String::from);
        let found = [Some("f: …x…".to_string()), None];
        assert_eq!(tree(&names, &found), "/S/d\n└───f: …x…\n    → /S/b\n    └───/S/a");
        assert_eq!(tree(&names[..1], &[]), "/S/d");
    }
}
