//! From text to attributes.

use super::names::{is_commit, is_flake_id, is_fragment, is_loose_ref, is_ref_name};
use super::schemes::DOWNLOAD_ATTRIBUTES;
use super::url::{Authority, Liberty, Url, decode, decode_query, is_query};
use super::{Attributes, FlakeRefError, VerifiedFetches, check_common, print};
use crate::io::FetchAttr;

use FlakeRefError::{BadUrl, Unsupported};

/// The attributes of a flake reference, as `builtins.parseFlakeRef` gives them.
///
/// It is read as `id/ref/rev`, else as a URL, else as an absolute path.
///
/// # Errors
/// Nix's, in Nix's words.
pub fn parse_flake_ref(text: &str, verified: VerifiedFetches) -> Result<Attributes, FlakeRefError> {
    let (attributes, fragment) = match short_form(text) {
        Some((url, fragment)) => (input(&url, verified)?, fragment),
        None => match url_form(text, verified) {
            Err(BadUrl(_)) => path_form(text, verified)?,
            result => result?,
        },
    };
    if !fragment.is_empty() {
        return Err(Unsupported(format!(
            "unexpected fragment '{fragment}' in flake reference '{text}'"
        )));
    }
    Ok(attributes)
}

/// `nixpkgs`, `nixpkgs/release`, `nixpkgs/release/<commit>`, each with a fragment.
fn short_form(text: &str) -> Option<(Url, String)> {
    let (name, fragment) = text
        .split_once('#')
        .map_or((text, ""), |(name, fragment)| (name, fragment));
    let id_good = match name.split_once('/') {
        None => is_flake_id(name),
        Some((id, rest)) => is_flake_id(id) && is_loose_ref(rest),
    };
    if !id_good || !is_fragment(fragment) {
        return None;
    }
    let path = name.split('/').map(str::to_owned).collect();
    Some((Url::new("flake", path), decode(fragment)?))
}

fn url_form(text: &str, verified: VerifiedFetches) -> Result<(Attributes, String), FlakeRefError> {
    flake_input(Url::parse(text, Liberty::Lenient).map_err(BadUrl)?, verified)
}

fn path_form(text: &str, verified: VerifiedFetches) -> Result<(Attributes, String), FlakeRefError> {
    let (before, fragment) = text
        .split_once('#')
        .map_or((text, ""), |(before, fragment)| (before, fragment));
    if fragment.contains(['\n', '\r']) {
        return Err(Unsupported(format!("invalid flakeref '{text}'")));
    }
    let (path, query) = before
        .split_once('?')
        .map_or((before, ""), |(path, query)| (path, query));
    let bad_query = || BadUrl(format!("invalid URI query '{query}': leftover"));
    if !is_query(query) {
        return Err(bad_query());
    }
    let query = decode_query(query).ok_or_else(bad_query)?;
    let bad_fragment = || {
        BadUrl(format!(
            "invalid URI parameter '{fragment}': {}",
            bad_escape(fragment)
        ))
    };
    let fragment = decode(fragment).ok_or_else(bad_fragment)?;
    if !path.starts_with('/') {
        return Err(BadUrl(format!(
            "flake reference '{text}' is not an absolute path"
        )));
    }
    let mut segments = vec![String::new()];
    segments.extend(path.split('/').filter(|part| !part.is_empty()).map(str::to_owned));
    if path.ends_with('/') {
        // C++ counts the empty name after the last slash, and Nix adds one more, except for the root.
        let extra = if segments.len() > 1 { 2 } else { 1 };
        segments.extend(std::iter::repeat_n(String::new(), extra));
    }
    let authority = Some(Authority::default());
    flake_input(
        Url {
            scheme: "path".to_owned(),
            authority,
            path: segments,
            query,
            fragment,
        },
        verified,
    )
}

/// What is wrong with the first escape that is none.
fn bad_escape(text: &str) -> &'static str {
    let mut escapes = text.match_indices('%').map(|(at, _)| &text.as_bytes()[at + 1..]);
    let wrong = escapes.find(|rest| rest.len() < 2 || !rest[..2].iter().all(u8::is_ascii_hexdigit));
    if wrong.is_some_and(|rest| rest.len() < 2) {
        "incomplete pct-encoding"
    } else {
        "bad hexdig in pct-encoding"
    }
}

/// Takes `dir` and the fragment away, which are the flake's and not the input's.
fn flake_input(mut url: Url, verified: VerifiedFetches) -> Result<(Attributes, String), FlakeRefError> {
    let dir = url.query.remove("dir").unwrap_or_default();
    let fragment = std::mem::take(&mut url.fragment);
    let mut attributes = input(&url, verified)?;
    if !dir.is_empty() {
        attributes.insert("dir".to_owned(), FetchAttr::String(dir));
    }
    Ok((attributes, fragment))
}

fn input(url: &Url, verified: VerifiedFetches) -> Result<Attributes, FlakeRefError> {
    let attributes = match (url.scheme.as_str(), url.application()) {
        ("flake", _) => indirect(url)?,
        ("path", _) => path(url)?,
        ("github" | "gitlab" | "sourcehut", _) => forge(url)?,
        ("git", _) | (_, Some("git")) => git(url, verified)?,
        ("hg+http" | "hg+https" | "hg+ssh" | "hg+file", _) => mercurial(url)?,
        (_, None | Some("tarball")) if is_download(url) => download(url, "tarball"),
        (_, Some("file")) if is_download(url) => download(url, "file"),
        (_, Some("file")) if url.transport() == "git" => {
            let text = url.print();
            let hint = "did you mean 'git+file' instead of 'file+git'?";
            return Err(Unsupported(format!("input '{text}' is unsupported; {hint}")));
        }
        _ => return Err(Unsupported(format!("input '{}' is unsupported", url.print()))),
    };
    check_common(&attributes)?;
    Ok(attributes)
}

fn indirect(url: &Url) -> Result<Attributes, FlakeRefError> {
    let text = url.print();
    let segments = url.segments();
    let (id, reference, commit) = match segments.as_slice() {
        [id] => (*id, None, None),
        [id, commit] if is_commit(commit) => (*id, None, Some(*commit)),
        [id, name] if is_ref_name(name) => (*id, Some(*name), None),
        [_, name] => {
            return Err(BadUrl(format!(
                "in flake URL '{text}', '{name}' is not a commit hash or branch/tag name"
            )));
        }
        [_, name, _] if !is_ref_name(name) => {
            return Err(BadUrl(format!(
                "in flake URL '{text}', '{name}' is not a branch/tag name"
            )));
        }
        [_, _, commit] if !is_commit(commit) => {
            return Err(BadUrl(format!(
                "in flake URL '{text}', '{commit}' is not a commit hash"
            )));
        }
        [id, name, commit] => (*id, Some(*name), Some(*commit)),
        _ => return Err(BadUrl(format!("GitHub URL '{text}' is invalid"))),
    };
    if !is_flake_id(id) {
        return Err(BadUrl(format!("'{id}' is not a valid flake ID")));
    }
    let mut out = of_type("indirect");
    set(&mut out, "id", id);
    if let Some(commit) = commit {
        set(&mut out, "rev", &commit.to_ascii_lowercase());
    }
    if let Some(name) = reference {
        set(&mut out, "ref", name);
    }
    Ok(out)
}

fn path(url: &Url) -> Result<Attributes, FlakeRefError> {
    let text = url.print();
    if let Some(authority) = &url.authority
        && !authority.host.is_empty()
    {
        let authority = authority.print();
        return Err(Unsupported(format!(
            "path URL '{text}' should not have an authority ('{authority}')"
        )));
    }
    let mut out = of_type("path");
    set(&mut out, "path", &file_path(&url.path)?);
    for (name, value) in &url.query {
        match name.as_str() {
            "rev" | "narHash" => set(&mut out, name, value),
            "revCount" | "lastModified" => {
                let invalid = || Unsupported(format!("path URL '{text}' has invalid parameter '{name}'"));
                let number = number(value).ok_or_else(invalid)?;
                out.insert(name.clone(), FetchAttr::Int(number));
            }
            _ => {
                return Err(Unsupported(format!(
                    "path URL '{text}' has unsupported parameter '{name}'"
                )));
            }
        }
    }
    Ok(out)
}

/// The segments as a path: an empty first one is the root, an empty last one a slash at the end.
fn file_path(segments: &[String]) -> Result<String, FlakeRefError> {
    for segment in segments {
        if segment.contains('/') {
            let what = "contains '/', which is not allowed in file names";
            return Err(BadUrl(format!("URL path component '{segment}' {what}")));
        }
        if segment.contains('\0') {
            let shown = segment.replace('\0', "␀");
            return Err(BadUrl(format!(
                "URL path component '{shown}' contains NUL byte which is not allowed"
            )));
        }
    }
    let mut out = String::new();
    for (index, segment) in segments.iter().enumerate() {
        let root = index == 0 && segment.is_empty();
        if root || (!out.is_empty() && !out.ends_with('/')) {
            out.push('/');
        }
        out.push_str(segment);
    }
    Ok(out)
}

fn forge(url: &Url) -> Result<Attributes, FlakeRefError> {
    let text = url.print();
    let segments = url.segments();
    let [owner, repo, rest @ ..] = segments.as_slice() else {
        return Err(BadUrl(format!("URL '{text}' is invalid")));
    };
    let (mut commit, mut name) = match rest {
        [] => (None, None),
        [one] if is_commit(one) => (Some((*one).to_owned()), None),
        more => (None, Some(more.join("/"))),
    };
    // In the order of a sorted map, as Nix goes through them.
    let query = |name: &str| url.query.get(name).cloned();
    if let Some(value) = query("ref")
        && name.replace(value).is_some()
    {
        return Err(BadUrl(format!("URL '{text}' contains multiple branch/tag names")));
    }
    if let Some(value) = query("rev")
        && commit.replace(value).is_some()
    {
        return Err(BadUrl(format!("URL '{text}' contains multiple commit hashes")));
    }
    let mut out = of_type(&url.scheme);
    set(&mut out, "owner", owner);
    set(&mut out, "repo", repo);
    for (name, value) in [
        ("rev", commit),
        ("ref", name),
        ("host", query("host")),
        ("narHash", query("narHash")),
    ] {
        if let Some(value) = value {
            set(&mut out, name, &value);
        }
    }
    print::check_forge(&out)?;
    Ok(out)
}

fn git(url: &Url, verified: VerifiedFetches) -> Result<Attributes, FlakeRefError> {
    let mut out = of_type("git");
    let mut remote = url.clone();
    remote.query.clear();
    for (name, value) in &url.query {
        match name.as_str() {
            "rev" | "ref" | "keytype" | "publicKey" | "publicKeys" => set(&mut out, name, value),
            "shallow" | "submodules" | "lfs" | "exportIgnore" | "allRefs" | "verifyCommit" => {
                out.insert(name.clone(), FetchAttr::Bool(value == "1"));
            }
            _ => {
                remote.query.insert(name.clone(), value.clone());
            }
        }
    }
    set(&mut out, "url", &remote.print());
    print::check_git(&mut out, verified)?;
    Ok(out)
}

fn mercurial(url: &Url) -> Result<Attributes, FlakeRefError> {
    let mut out = of_type("hg");
    let mut remote = url.clone();
    remote.scheme = url.transport().to_owned();
    remote.query.clear();
    for (name, value) in &url.query {
        if name == "rev" || name == "ref" {
            set(&mut out, name, value);
        } else {
            remote.query.insert(name.clone(), value.clone());
        }
    }
    set(&mut out, "url", &remote.print());
    print::check_mercurial(&out)?;
    Ok(out)
}

fn is_download(url: &Url) -> bool {
    matches!(url.transport(), "file" | "http" | "https")
}

fn download(url: &Url, kind: &str) -> Attributes {
    let mut out = of_type(kind);
    let mut remote = url.clone();
    remote.scheme = url.transport().to_owned();
    for name in ["narHash", "rev"] {
        if let Some(value) = url.query.get(name) {
            set(&mut out, name, value);
        }
    }
    for name in ["revCount", "lastModified"] {
        if let Some(value) = url.query.get(name).and_then(|value| number(value)) {
            out.insert(name.to_owned(), FetchAttr::Int(value));
        }
    }
    for name in DOWNLOAD_ATTRIBUTES {
        remote.query.remove(*name);
    }
    set(&mut out, "url", &remote.print());
    out
}

/// A number as C++ reads it: digits, a plus before them allowed.
fn number(text: &str) -> Option<u64> {
    text.parse().ok()
}

fn of_type(kind: &str) -> Attributes {
    Attributes::from([("type".to_owned(), FetchAttr::String(kind.to_owned()))])
}

fn set(attributes: &mut Attributes, name: &str, value: &str) {
    attributes.insert(name.to_owned(), FetchAttr::String(value.to_owned()));
}
