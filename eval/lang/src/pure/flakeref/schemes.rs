//! The attributes that each kind of input knows.

/// The attributes of a download, none of which is sent to the server.
pub(super) const DOWNLOAD_ATTRIBUTES: &[&str] = &[
    "url",
    "narHash",
    "name",
    "unpack",
    "rev",
    "revCount",
    "lastModified",
];

const GIT_ATTRIBUTES: &[&str] = &[
    "url",
    "ref",
    "rev",
    "shallow",
    "submodules",
    "lfs",
    "exportIgnore",
    "lastModified",
    "revCount",
    "narHash",
    "allRefs",
    "name",
    "dirtyRev",
    "dirtyShortRev",
    "verifyCommit",
    "keytype",
    "publicKey",
    "publicKeys",
];

const FORGE_ATTRIBUTES: &[&str] = &[
    "owner",
    "repo",
    "ref",
    "rev",
    "narHash",
    "lastModified",
    "host",
    "treeHash",
];

/// The attributes that inputs of this type may have beside `type` and `__final`; `None` for types that Nix 2.34 does not
/// know.
pub fn scheme_attributes(kind: &str) -> Option<&'static [&'static str]> {
    Some(match kind {
        "path" => &["path", "rev", "revCount", "lastModified", "narHash"],
        "indirect" => &["id", "ref", "rev", "narHash"],
        "github" | "gitlab" | "sourcehut" => FORGE_ATTRIBUTES,
        "git" => GIT_ATTRIBUTES,
        "hg" => &["url", "ref", "rev", "revCount", "narHash", "name"],
        "tarball" | "file" => DOWNLOAD_ATTRIBUTES,
        _ => return None,
    })
}
