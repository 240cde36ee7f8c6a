//! References to flakes: fetcher attributes and a folder inside the tree.

use super::{Attr, flake_error};
use crate::error::R;
use crate::io::FetchAttr;
use crate::pure::flakeref::{self, VerifiedFetches};

/// A flake, or a tree that is an input of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    /// Sorted by name; without `dir`.
    pub(super) attrs: Vec<Attr>,
    /// The folder of `flake.nix` in the tree; empty for the tree itself.
    pub(super) dir: String,
}

impl Reference {
    /// Reads a reference that stands for itself: a path in it is absolute.
    pub(super) fn parse(text: &str) -> R<Self> {
        let parsed = flakeref::parse_flake_ref(text, VerifiedFetches::Disabled);
        let parsed = parsed.map_err(|error| flake_error(error.to_string()))?;
        Ok(Self::of(parsed.into_iter().collect()))
    }

    /// Reads a reference of an input, whose path may be relative to the flake it is in.
    pub(super) fn parse_input(text: &str) -> R<Self> {
        let path = text.split('?').next().unwrap_or_default();
        let is_relative =
            ["./", "../"].iter().any(|start| path.starts_with(start)) || matches!(path, "." | "..");
        if is_relative {
            return Self::parse(&format!("path:{text}"));
        }
        Self::parse(text)
    }

    /// A reference of attributes, `dir` among them.
    pub(super) fn of(mut attrs: Vec<Attr>) -> Self {
        let mut dir = String::new();
        attrs.retain(|(name, value)| match value {
            FetchAttr::String(text) if name == "dir" => {
                dir.clone_from(text);
                false
            }
            _ => true,
        });
        attrs.sort_by(|a, b| a.0.cmp(&b.0));
        Self {
            attrs,
            dir: dir.trim_matches('/').to_owned(),
        }
    }

    pub(super) fn text(&self, wanted: &str) -> Option<&str> {
        self.attrs.iter().find_map(|(name, value)| match value {
            FetchAttr::String(text) if name == wanted => Some(text.as_str()),
            _ => None,
        })
    }

    /// Where it is inside the flake that asks for it, if it is.
    pub(super) fn relative_path(&self) -> Option<&str> {
        let path = self.text("path").filter(|_| self.text("type") == Some("path"))?;
        (!path.starts_with('/')).then_some(path)
    }

    /// Whether it can only mean one tree.
    pub(super) fn is_locked(&self) -> bool {
        if self.text("type") == Some("indirect") {
            return false;
        }
        self.text("narHash").is_some() || (self.text("rev").is_some() && self.text("type") != Some("path"))
    }

    /// For messages.
    pub(super) fn shown(&self) -> String {
        let mut attrs: flakeref::Attributes = self.attrs.iter().cloned().collect();
        if !self.dir.is_empty() {
            attrs.insert("dir".to_owned(), FetchAttr::String(self.dir.clone()));
        }
        let shown = flakeref::flake_ref_to_string(&attrs, VerifiedFetches::Disabled);
        shown.unwrap_or_else(|_| self.text("path").unwrap_or("a flake").to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_kept_apart_and_paths_may_be_relative() {
        let reference = Reference::parse("github:o/r/main?dir=a/b").expect("a reference");
        assert_eq!(
            (reference.dir.as_str(), reference.text("ref")),
            ("a/b", Some("main"))
        );
        assert!(!reference.is_locked());
        assert_eq!(reference.shown(), "github:o/r/main?dir=a/b");
        let inside = Reference::parse_input("./sub").expect("a reference");
        assert_eq!(inside.relative_path(), Some("./sub"));
        let inside = Reference::parse_input("path:../sub").expect("a reference");
        assert_eq!(inside.relative_path(), Some("../sub"));
        let inside = Reference::parse_input("path:sub").expect("a reference");
        assert_eq!(inside.relative_path(), Some("sub"));
        let inside = Reference::parse_input("./sub?dir=a").expect("a reference");
        assert_eq!(
            (inside.relative_path(), inside.dir.as_str()),
            (Some("./sub"), "a")
        );
        let outside = Reference::parse_input("path:/a").expect("a reference");
        assert_eq!(outside.relative_path(), None);
        assert!(Reference::parse("./sub").is_err());
    }
}
