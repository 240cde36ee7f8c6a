//! Files that `<nix/…>` finds in every search path.

use crate::io::FileType;

/// Where they are; nothing of the world can be there.
pub(super) const DIR: &[u8] = b"/__corepkgs__";

/// A fixed-output derivation that Nix's own `builtin:fetchurl` builds.
const FETCHURL: &[u8] = br#"
{
  url,
  system ? "",
  name ? baseNameOf (toString url),
  hash ? "",
  md5 ? "",
  sha1 ? "",
  sha256 ? "",
  sha512 ? "",
  outputHash ? builtins.head (builtins.filter (h: h != "") [ hash sha512 sha1 md5 ] ++ [ sha256 ]),
  outputHashAlgo ?
    if hash != "" then "" else
    if sha512 != "" then "sha512" else
    if sha1 != "" then "sha1" else
    if md5 != "" then "md5" else
    "sha256",
  executable ? false,
  unpack ? false,
  impure ? false,
}:
derivation ({
  inherit name url executable unpack;
  urls = [ url ];
  system = "builtin";
  builder = "builtin:fetchurl";
  outputHashMode = if executable || unpack then "recursive" else "flat";
  preferLocalBuild = true;
  impureEnvVars = map (scheme: "${scheme}_proxy") [ "http" "https" "ftp" "all" "no" ];
} // (if impure then { __impure = true; } else { inherit outputHash outputHashAlgo; }))
"#;

/// The text of a file.
pub(super) fn read(path: &[u8]) -> Option<&'static [u8]> {
    (path.strip_prefix(DIR)? == b"/fetchurl.nix").then_some(FETCHURL)
}

/// What is at a path.
pub(super) fn file_type(path: &[u8]) -> Option<FileType> {
    if path == DIR {
        return Some(FileType::Directory);
    }
    read(path).map(|_| FileType::Regular)
}
