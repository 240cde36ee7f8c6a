//! Flake registries: what names like `nixpkgs` stand for.
//!
//! A name that a flake is asked for by is looked up in all registries, in order; names of inputs only in the global one, so
//! that what a lock file records does not depend on whose machine wrote it.
//!
//! Invariant: registries are read once in an evaluation; one that is not there has no entries.
//!
//! Source: Nix manual 2.34, `nix3-registry` (format, order of registries); behaviour recorded from Nix 2.34.

use std::io::Read as _;
use std::path::PathBuf;
use std::rc::Rc;

use igloo_eval::io::{FetchAttr, IoError};
use serde_json::Value;

use super::{Attr, Request, refused};
use crate::store_io::StoreIo;

/// Most bytes of a registry.
const BYTES_MAX: u64 = 16 << 20;
/// Names that stand for names.
const HOPS_MAX: usize = 100;
/// The attribute of a request that asks all registries; for our own evaluator.
pub(super) const ALL_REGISTRIES: &str = "__registries";

/// A registry of flakes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Registry {
    /// A file of this machine or user.
    Own(PathBuf),
    /// The one everybody has: a URL or an absolute path.
    Global(String),
}

/// What a name stands for.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    from: Vec<Attr>,
    to: Vec<Attr>,
    is_exact: bool,
}

/// A tree that a name stands for.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) attrs: Vec<Attr>,
    /// The folder of `flake.nix` that the registry names.
    pub(super) dir: Option<Attr>,
}

impl StoreIo {
    /// What a name stands for, name by name; `None` while a registry is being fetched.
    pub(super) fn registered(&self, request: Request<'_>) -> Result<Option<Resolved>, IoError> {
        let all = request.flag(ALL_REGISTRIES)?;
        let is_ours = |(name, _): &&Attr| name != ALL_REGISTRIES && name != "__final";
        let mut attrs: Vec<Attr> = request.0.iter().filter(is_ours).cloned().collect();
        let mut dir = None;
        for _ in 0..HOPS_MAX {
            if Request(&attrs).text("type")? != Some("indirect") {
                return Ok(Some(Resolved { attrs, dir }));
            }
            Request(&attrs).required("id")?;
            let Some(found) = self.look_up(&attrs, all)? else {
                return Ok(None);
            };
            let Some(entry) = found else {
                let name = name_of(&attrs);
                return Err(refused(format!(
                    "cannot find flake '{name}' in the flake registries"
                )));
            };
            attrs = applied(&entry, &attrs);
            if let Some(at) = attrs.iter().position(|(name, _)| name == "dir") {
                dir = Some(attrs.remove(at));
            }
        }
        let name = name_of(request.0);
        Err(refused(format!("cycle detected in flake registry for '{name}'")))
    }

    /// The first entry for a name; the outer `None` while a registry is being fetched.
    fn look_up(&self, attrs: &[Attr], all: bool) -> Result<Option<Option<Entry>>, IoError> {
        for (index, registry) in self.trees.places.registries.iter().enumerate() {
            if !all && matches!(registry, Registry::Own(_)) {
                continue;
            }
            let Some(entries) = self.entries_of(index, registry)? else {
                return Ok(None);
            };
            if let Some(entry) = entries.iter().find(|entry| entry.is_for(attrs)) {
                return Ok(Some(Some(entry.clone())));
            }
        }
        Ok(Some(None))
    }

    fn entries_of(&self, index: usize, registry: &Registry) -> Result<Option<Rc<[Entry]>>, IoError> {
        if let Some(known) = self.trees.entries.borrow().get(&index) {
            return Ok(Some(Rc::clone(known)));
        }
        let (text, shown) = match registry {
            Registry::Own(path) => (text_of(path)?, path.display().to_string()),
            Registry::Global(place) if place.starts_with('/') => (text_of(place.as_ref())?, place.clone()),
            Registry::Global(url) => match self.text_at_url(url)? {
                Some(text) => (Some(text), url.clone()),
                None => return Ok(None),
            },
        };
        let entries = match text {
            Some(text) => parse(&text)
                .map_err(|why| refused(format!("cannot read the flake registry '{shown}': {why}")))?,
            None => Vec::new(),
        };
        let entries: Rc<[Entry]> = entries.into();
        self.trees.entries.borrow_mut().insert(index, Rc::clone(&entries));
        Ok(Some(entries))
    }
}

impl Entry {
    fn is_for(&self, attrs: &[Attr]) -> bool {
        let get = |attrs: &[Attr], name: &str| Request(attrs).get(name).cloned();
        let (from, same) = (&self.from, |name| get(&self.from, name) == get(attrs, name));
        let fits = |name| get(from, name).is_none() || same(name);
        if self.is_exact {
            return ["type", "id", "ref", "rev"].into_iter().all(same);
        }
        same("type") && same("id") && fits("ref") && fits("rev")
    }
}

/// What an entry says, with the branch and commit that were asked for where it is for all of them.
fn applied(entry: &Entry, asked: &[Attr]) -> Vec<Attr> {
    let mut attrs = entry.to.clone();
    for name in ["ref", "rev", "narHash"] {
        let asked = asked.iter().find(|(known, _)| known == name);
        let is_free = !entry.is_exact && entry.from.iter().all(|(known, _)| known != name);
        if let Some(asked) = asked.filter(|_| is_free) {
            // a commit says more than the branch of the entry
            attrs.retain(|(known, _)| known != name && !(name == "rev" && known == "ref"));
            attrs.push(asked.clone());
        }
    }
    attrs
}

fn name_of(attrs: &[Attr]) -> String {
    let parts = ["id", "ref", "rev"].map(|name| Request(attrs).text(name).ok().flatten());
    let parts: Vec<&str> = parts.into_iter().flatten().collect();
    format!("flake:{}", parts.join("/"))
}

fn text_of(path: &std::path::Path) -> Result<Option<String>, IoError> {
    let failed = |source| IoError::System {
        path: path.display().to_string(),
        source,
    };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut text = String::new();
    let read = file.take(BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    if read as u64 >= BYTES_MAX {
        let path = path.display();
        return Err(refused(format!(
            "the flake registry '{path}' is too long to be read"
        )));
    }
    Ok(Some(text))
}

fn parse(text: &str) -> Result<Vec<Entry>, String> {
    let json: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    match json["version"].as_u64() {
        Some(2) => {}
        other => return Err(format!("its version is {other:?}, not 2")),
    }
    let entries = json["flakes"].as_array().ok_or("it has no list 'flakes'")?;
    let entry = |entry: &Value| {
        Some(Entry {
            from: attrs_of(&entry["from"])?,
            to: attrs_of(&entry["to"])?,
            is_exact: entry["exact"].as_bool().unwrap_or(false),
        })
    };
    let entries: Option<Vec<Entry>> = entries.iter().map(entry).collect();
    entries.ok_or_else(|| "it has an entry that is none".to_owned())
}

fn attrs_of(json: &Value) -> Option<Vec<Attr>> {
    let attr = |(name, value): (&String, &Value)| {
        let value = match value {
            Value::String(text) => FetchAttr::String(text.clone()),
            Value::Bool(flag) => FetchAttr::Bool(*flag),
            Value::Number(number) => FetchAttr::Int(number.as_u64()?),
            _ => return None,
        };
        Some((name.clone(), value))
    };
    json.as_object()?.iter().map(attr).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn words(pairs: &[(&str, &str)]) -> Vec<Attr> {
        let word = |(name, text): &(&str, &str)| ((*name).to_owned(), FetchAttr::String((*text).to_owned()));
        pairs.iter().map(word).collect()
    }

    #[test]
    fn entries_are_for_names_and_give_way_to_what_is_asked() {
        let text = r#"{"version": 2, "flakes": [
            {"from": {"type": "indirect", "id": "a"}, "to": {"type": "github", "owner": "o", "repo": "r", "ref": "x"}},
            {"from": {"type": "indirect", "id": "a", "ref": "b"}, "to": {"type": "path", "path": "/p"}, "exact": true}]}"#;
        let [open, exact] = &parse(text).unwrap()[..] else {
            unreachable!("two entries")
        };
        let plain = words(&[("type", "indirect"), ("id", "a")]);
        let branch = words(&[("type", "indirect"), ("id", "a"), ("ref", "b")]);
        assert!(open.is_for(&plain) && open.is_for(&branch));
        assert!(!exact.is_for(&plain) && exact.is_for(&branch));
        assert!(!open.is_for(&words(&[("type", "indirect"), ("id", "c")])));
        let reference = |entry, asked: &[Attr]| {
            let attrs = applied(entry, asked);
            Request(&attrs).text("ref").unwrap().map(ToOwned::to_owned)
        };
        assert_eq!(reference(open, &plain).as_deref(), Some("x"));
        assert_eq!(reference(open, &branch).as_deref(), Some("b"));
        assert_eq!(reference(exact, &branch), None);
        let commit = words(&[("type", "indirect"), ("id", "a"), ("rev", "1")]);
        assert_eq!(reference(open, &commit), None);
        assert_eq!(name_of(&branch), "flake:a/b");
    }

    #[test]
    fn damaged_registries_are_refused() {
        for text in [
            "",
            "{}",
            r#"{"version": 1, "flakes": []}"#,
            r#"{"version": 2}"#,
            r#"{"version": 2, "flakes": [1]}"#,
            r#"{"version": 2, "flakes": [{"from": {"a": []}, "to": {}}]}"#,
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
