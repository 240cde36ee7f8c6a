//! From attributes to text, and the checks each kind of input makes of its attributes.

use nix_compat::hash::{HashAlgo, HashFormat, NixHash};

use super::names::{is_commit, is_flake_id, is_host, is_loose_ref, is_ref_name};
use super::schemes::scheme_attributes;
use super::url::{Authority, Liberty, Url};
use super::{Attributes, FlakeRefError, VerifiedFetches, check_common, flag, required, string, to_json};
use crate::io::FetchAttr;
use crate::pure::hash_text::{parse_any, parse_any_prefixed, parse_sri};

use FlakeRefError::{BadUrl, Unsupported};

/// A flake reference as text, as `builtins.flakeRefToString` gives it.
///
/// # Errors
/// Nix's, in Nix's words.
pub fn flake_ref_to_string(
    attributes: &Attributes,
    verified: VerifiedFetches,
) -> Result<String, FlakeRefError> {
    let mut input = attributes.clone();
    input.remove("dir");
    let Some(kind) = string(&input, "type")? else {
        return Err(Unsupported(
            "'type' attribute to specify input scheme is required but not provided".to_owned(),
        ));
    };
    check(&mut input, &kind, verified)?;
    let dir = string(attributes, "dir")?.unwrap_or_default();
    let mut url = to_url(&input, &kind)?;
    if !dir.is_empty() {
        // What the URL says already stays.
        url.query.entry("dir".to_owned()).or_insert(dir);
    }
    Ok(url.print())
}

fn check(input: &mut Attributes, kind: &str, verified: VerifiedFetches) -> Result<(), FlakeRefError> {
    // Nix keeps inputs it does not know, and fails when it has to show them.
    let Some(allowed) = scheme_attributes(kind) else {
        return check_common(input);
    };
    let unknown = |name: &&String| *name != "type" && *name != "__final" && !allowed.contains(&name.as_str());
    if let Some(name) = input.keys().find(unknown) {
        return Err(Unsupported(format!(
            "input attribute '{name}' not supported by scheme '{kind}'"
        )));
    }
    match kind {
        "path" => {
            required(input, "path")?;
        }
        "indirect" => {
            let id = required(input, "id")?;
            if !is_flake_id(&id) {
                return Err(BadUrl(format!("'{id}' is not a valid flake ID")));
            }
        }
        "github" | "gitlab" | "sourcehut" => check_forge(input)?,
        "git" => check_git(input, verified)?,
        "hg" => check_mercurial(input)?,
        _ => {}
    }
    check_common(input)
}

pub(super) fn check_forge(input: &Attributes) -> Result<(), FlakeRefError> {
    required(input, "owner")?;
    required(input, "repo")?;
    let (name, commit) = (string(input, "ref")?, string(input, "rev")?);
    let all = || to_json(input);
    if let (Some(name), Some(commit)) = (&name, &commit) {
        let both = format!("contains both a commit hash ('{commit}') and a branch/tag name ('{name}')");
        return Err(BadUrl(format!("input {} {both}", all())));
    }
    if let Some(commit) = commit {
        parse_any(&commit, Some(HashAlgo::Sha1))?;
    }
    if name.is_some_and(|name| !is_ref_name(&name)) {
        return Err(BadUrl(format!(
            "input {} contains an invalid branch/tag name",
            all()
        )));
    }
    if string(input, "host")?.is_some_and(|host| !is_host(&host)) {
        return Err(BadUrl(format!(
            "input {} contains an invalid instance host",
            all()
        )));
    }
    Ok(())
}

pub(super) fn check_git(input: &mut Attributes, verified: VerifiedFetches) -> Result<(), FlakeRefError> {
    let signed = ["verifyCommit", "keytype", "publicKey", "publicKeys"];
    if verified == VerifiedFetches::Disabled && signed.iter().any(|name| input.contains_key(*name)) {
        return Err(FlakeRefError::FeatureDisabled);
    }
    flag(input, "verifyCommit")?;
    if let Some(name) = string(input, "ref")?
        && !is_ref_name(&name)
    {
        return Err(BadUrl(format!("invalid Git branch/tag name '{name}'")));
    }
    let url = git_url(&required(input, "url")?)?;
    input.insert("url".to_owned(), FetchAttr::String(url.print()));
    for name in ["shallow", "submodules", "allRefs"] {
        flag(input, name)?;
    }
    Ok(())
}

pub(super) fn check_mercurial(input: &Attributes) -> Result<(), FlakeRefError> {
    strict_url(&required(input, "url")?)?;
    match string(input, "ref")? {
        Some(name) if !is_loose_ref(&name) => {
            Err(BadUrl(format!("invalid Mercurial branch/tag name '{name}'")))
        }
        _ => Ok(()),
    }
}

/// The URL git is given: `user@host:path` and bare paths are made into URLs, `git+` is dropped.
fn git_url(text: &str) -> Result<Url, FlakeRefError> {
    let text = scp_form(text).unwrap_or_else(|| text.to_owned());
    let is_url = text.starts_with("file:") || text.starts_with("git+file:") || text.contains("://");
    if is_url {
        let mut url = strict_url(&text)?;
        if url.application() == Some("git") {
            url.scheme = url.transport().to_owned();
        }
        return Ok(url);
    }
    let path: Vec<String> = text.split('/').map(str::to_owned).collect();
    if path.first().is_some_and(|first| first.contains(':')) {
        let hint = "is not supported; use SSH URL syntax instead (ssh://...)";
        return Err(BadUrl(format!("SCP-like URL '{text}' {hint}")));
    }
    let mut url = Url::new("file", path);
    if text.starts_with('/') {
        url.authority = Some(Authority::default());
    }
    Ok(url)
}

/// `user@host:path` as an SSH URL: the user holds no slash, the host goes up to the last colon.
fn scp_form(text: &str) -> Option<String> {
    if text.starts_with('/') || text.contains(['\n', '\r']) {
        return None;
    }
    let mut ends = text.split('/').next()?.match_indices('@').map(|(at, _)| at);
    let at = ends.rfind(|&at| text[at..].contains(':'))?;
    let (user, rest) = (&text[..at], &text[at + 1..]);
    let (host, path) = rest.rsplit_once(':')?;
    Some(format!("ssh://{user}@{host}/{path}"))
}

fn strict_url(text: &str) -> Result<Url, FlakeRefError> {
    Url::parse(text, Liberty::Strict).map_err(BadUrl)
}

fn to_url(input: &Attributes, kind: &str) -> Result<Url, FlakeRefError> {
    match kind {
        "path" => path_url(input),
        "indirect" => indirect_url(input),
        "github" | "gitlab" | "sourcehut" => forge_url(input, kind),
        "git" => remote_git_url(input),
        "hg" => mercurial_url(input),
        "tarball" | "file" => {
            let mut url = strict_url(&required(input, "url")?)?;
            set_nar_hash(&mut url, input)?;
            Ok(url)
        }
        _ => Err(Unsupported(format!(
            "cannot show unsupported input '{}'",
            to_json(input)
        ))),
    }
}

fn path_url(input: &Attributes) -> Result<Url, FlakeRefError> {
    let path = required(input, "path")?;
    let mut url = Url::new("path", path.split('/').map(str::to_owned).collect());
    for (name, value) in input {
        if !["path", "type", "__final"].contains(&name.as_str()) {
            let value = match value {
                FetchAttr::String(text) => text.clone(),
                FetchAttr::Int(number) => number.to_string(),
                FetchAttr::Bool(value) => u8::from(*value).to_string(),
            };
            url.query.insert(name.clone(), value);
        }
    }
    Ok(url)
}

fn indirect_url(input: &Attributes) -> Result<Url, FlakeRefError> {
    let mut path = vec![required(input, "id")?];
    path.extend(string(input, "ref")?);
    path.extend(commit(input)?);
    Ok(Url::new("flake", path))
}

fn forge_url(input: &Attributes, kind: &str) -> Result<Url, FlakeRefError> {
    let mut path = vec![required(input, "owner")?, required(input, "repo")?];
    path.extend(string(input, "ref")?);
    path.extend(commit(input)?);
    let mut url = Url::new(kind, path);
    set_nar_hash(&mut url, input)?;
    if let Some(host) = string(input, "host")? {
        url.query.insert("host".to_owned(), host);
    }
    Ok(url)
}

fn remote_git_url(input: &Attributes) -> Result<Url, FlakeRefError> {
    let mut url = strict_url(&required(input, "url")?)?;
    if url.scheme != "git" {
        url.scheme = format!("git+{}", url.scheme);
    }
    if let Some(commit) = commit(input)? {
        url.query.insert("rev".to_owned(), commit);
    }
    if let Some(name) = string(input, "ref")? {
        url.query.insert("ref".to_owned(), name);
    }
    for name in ["shallow", "lfs", "submodules", "exportIgnore", "verifyCommit"] {
        if flag(input, name)? {
            url.query.insert(name.to_owned(), "1".to_owned());
        }
    }
    if let Some(keys) = string(input, "publicKeys")? {
        url.query.insert("publicKeys".to_owned(), keys);
    } else if let Some(key) = string(input, "publicKey")? {
        let kind = string(input, "keytype")?.unwrap_or_else(|| "ssh-ed25519".to_owned());
        url.query.insert("keytype".to_owned(), kind);
        url.query.insert("publicKey".to_owned(), key);
    }
    Ok(url)
}

fn mercurial_url(input: &Attributes) -> Result<Url, FlakeRefError> {
    let mut url = strict_url(&required(input, "url")?)?;
    url.scheme = format!("hg+{}", url.scheme);
    if let Some(commit) = commit(input)? {
        url.query.insert("rev".to_owned(), commit);
    }
    if let Some(name) = string(input, "ref")? {
        url.query.insert("ref".to_owned(), name);
    }
    Ok(url)
}

/// The commit in hexadecimal: any form of hash that names its algorithm, else one of SHA-1.
fn commit(input: &Attributes) -> Result<Option<String>, FlakeRefError> {
    let Some(text) = string(input, "rev")? else {
        return Ok(None);
    };
    if is_commit(&text) {
        return Ok(Some(text.to_ascii_lowercase()));
    }
    let hash = match parse_any_prefixed(&text) {
        Ok(hash) => hash,
        Err(_) => parse_any(&text, Some(HashAlgo::Sha1))?,
    };
    Ok(Some(hash.encode(HashFormat::Base16)))
}

fn set_nar_hash(url: &mut Url, input: &Attributes) -> Result<(), FlakeRefError> {
    let Some(text) = string(input, "narHash")? else {
        return Ok(());
    };
    let hash = if text.is_empty() {
        NixHash::Sha256([0; 32])
    } else {
        parse_sri(&text)?
    };
    if hash.algo() != HashAlgo::Sha256 {
        return Err(FlakeRefError::NarHashAlgo);
    }
    url.query
        .insert("narHash".to_owned(), hash.encode(HashFormat::Sri));
    Ok(())
}
