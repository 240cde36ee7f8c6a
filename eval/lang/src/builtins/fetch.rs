//! Fetchers: arguments are checked here, fetching is the world's.

use nix_compat::hash::{HashAlgo, NixHash};
use nix_compat::store_path::StorePathName;

use crate::error::{ErrorKind, EvalError, R, fail};
use crate::flake::{Fallback, tree_value};
use crate::heap::context::Ctx;
use crate::heap::value::{Type, Value};
use crate::interp::{Coerce, Interp};
use crate::io::{FetchAttr, FetchRequest, Fetched};
use crate::pos::Pos;
use crate::pure::flakeref::{Attributes, VerifiedFetches, flake_ref_to_string, parse_flake_ref};
use crate::settings::Purity;
use crate::symbol::sym;

struct Download {
    url: String,
    name: String,
    sha256: Option<NixHash>,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn download(interp: &mut Interp, arg: Value, who: &str, default_name: &str) -> R<Download> {
    let value = interp.force(arg)?;
    let (mut url, mut sha256, mut name) = (None, None, default_name.to_owned());
    let (attrs, mut named) = (value.as_set(), false);
    if let Some(set) = attrs {
        for (attr, value, pos) in interp.heap.flat(set).iter() {
            match attr {
                sym::url => {
                    url = Some(text(interp.plain_string(
                        value,
                        pos,
                        "while evaluating the url we should fetch",
                    )?));
                }
                sym::sha256 => {
                    let what = "while evaluating the sha256 of the content we should fetch";
                    let hash = interp.plain_string(value, pos, what)?;
                    sha256 = Some(super::hash::parse_or_empty(interp, hash, Some(HashAlgo::Sha256))?);
                }
                sym::name => {
                    named = true;
                    let what = "while evaluating the name of the content we should fetch";
                    name = text(interp.plain_string(value, pos, what)?);
                }
                other => {
                    let other = interp.symbols.text(other);
                    return fail(
                        ErrorKind::Eval,
                        format!("unsupported argument '{other}' to '{who}'"),
                    );
                }
            }
        }
    } else {
        url = Some(text(interp.plain_string(
            value,
            Pos::NONE,
            "while evaluating the url we should fetch",
        )?));
    }
    let Some(mut url) = url else {
        return fail(ErrorKind::Eval, "'url' argument required");
    };
    if who == "fetchTarball"
        && let Some(channel) = url.strip_prefix("channel:")
    {
        url = format!("https://channels.nixos.org/{channel}/nixexprs.tar.xz");
    }
    if name.is_empty() {
        url.rsplit('/').next().unwrap_or_default().clone_into(&mut name);
    }
    check_name(&name, &url, who, named, attrs.is_some())?;
    if interp.settings.purity == Purity::Pure && sha256.is_none() {
        let text = format!("in pure evaluation mode, '{who}' requires a 'sha256' argument");
        return fail(ErrorKind::Eval, text);
    }
    Ok(Download { url, name, sha256 })
}

fn check_name(name: &str, url: &str, who: &str, named: bool, set: bool) -> R<()> {
    let Err(error) = StorePathName::new(name) else {
        return Ok(());
    };
    let why = super::derivation::name_error(name, error);
    let end = "so that it can create a valid store path.";
    let how = match (named, set) {
        (true, _) => format!("Please change the value for the 'name' attribute passed to '{who}', {end}"),
        (_, true) => format!("Please add a valid 'name' attribute to the argument for '{who}', {end}"),
        _ => format!("Please pass an attribute set with 'url' and 'name' attributes to '{who}',  {end}"),
    };
    fail(
        ErrorKind::Eval,
        format!("invalid store path name when fetching URL '{url}': {why}. {how}"),
    )
}

fn fetched(interp: &mut Interp, request: &FetchRequest) -> R<Fetched> {
    interp.fetch(request)
}

fn store_string(interp: &mut Interp, fetched: &Fetched) -> Value {
    let path = interp.io.store_dir().print(&fetched.path);
    interp.store_string(path.as_bytes())
}

pub(super) fn fetchurl(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let Download { url, name, sha256 } = download(interp, args[0], "fetchurl", "")?;
    let fetched = fetched(interp, &FetchRequest::Url { url, name, sha256 })?;
    Ok(store_string(interp, &fetched))
}

pub(super) fn fetch_tarball(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let Download { url, name, sha256 } = download(interp, args[0], "fetchTarball", "source")?;
    if let Some(path) = url.strip_prefix("file:")
        && !path.starts_with('/')
    {
        let text = format!(
            "tarball '{url}' must use an absolute path. The 'file' scheme does not support relative paths."
        );
        return fail(ErrorKind::Fetch, text);
    }
    let fetched = fetched(interp, &FetchRequest::Tarball { url, name, sha256 })?;
    Ok(store_string(interp, &fetched))
}

/// Attributes of a fetcher call.
fn attrs_of(interp: &mut Interp, value: Value, who: &str, kind: Option<&str>) -> R<Vec<(String, FetchAttr)>> {
    let mut attrs: Vec<(String, FetchAttr)> = Vec::new();
    let Some(set) = value.as_set() else {
        let mut ctx = Ctx::EMPTY;
        let what = "while evaluating the first argument passed to a fetcher";
        let url = text(&interp.coerce(value, &mut ctx, Coerce::PLAIN, Pos::NONE, what)?);
        if kind.is_none() && !interp.settings.features.flakes {
            let text =
                format!("passing a string argument to '{who}' requires the 'flakes' experimental feature");
            return fail(ErrorKind::Eval, text);
        }
        let Some(kind) = kind else {
            return referenced(&url);
        };
        attrs.push(("type".to_owned(), FetchAttr::String(kind.to_owned())));
        attrs.push(("url".to_owned(), FetchAttr::String(url)));
        return Ok(attrs);
    };
    match (set.get(sym::type_), kind) {
        (Some(_), Some(_)) => return fail(ErrorKind::Eval, "unexpected argument 'type'"),
        (None, None) => {
            return fail(
                ErrorKind::Eval,
                format!("argument 'type' is missing in call to '{who}'"),
            );
        }
        (Some((value, pos)), None) => {
            let what = "while evaluating the `type` argument passed to a fetcher";
            let kind = text(interp.plain_string(value, pos, what)?);
            attrs.push(("type".to_owned(), FetchAttr::String(kind)));
        }
        (None, Some(kind)) => attrs.push(("type".to_owned(), FetchAttr::String(kind.to_owned()))),
    }
    let flat = interp.heap.flat(set);
    for (name, value, pos) in flat.sorted(&interp.heap, &interp.symbols) {
        if name != sym::type_ {
            let attr = fetch_attr(interp, value, &interp.symbols.text(name), who, pos)?;
            attrs.push((interp.symbols.text(name), attr));
        }
    }
    Ok(attrs)
}

/// The attributes of a tree named by a reference.
fn referenced(text: &str) -> R<Vec<(String, FetchAttr)>> {
    if !text.contains(':') {
        return fail(ErrorKind::Eval, format!("'{text}' doesn't have a scheme"));
    }
    let parsed = parse_flake_ref(text, VerifiedFetches::Disabled);
    let parsed = parsed.map_err(|error| EvalError::new(ErrorKind::Eval, error.to_string()))?;
    Ok(parsed.into_iter().collect())
}

fn fetch_attr(interp: &mut Interp, value: Value, name: &str, who: &str, pos: Pos) -> R<FetchAttr> {
    let value = interp.force(value)?;
    match value.kind_of() {
        Type::String | Type::Path => {
            let mut ctx = Ctx::EMPTY;
            Ok(FetchAttr::String(text(&interp.coerce(
                value,
                &mut ctx,
                Coerce::PLAIN,
                pos,
                "",
            )?)))
        }
        Type::Bool => Ok(FetchAttr::Bool(value == Value::TRUE)),
        Type::Int => {
            let n = value.as_int().unwrap_or_default();
            u64::try_from(n).map(FetchAttr::Int).map_err(|_| {
                let text = format!("negative value given for '{who}' argument '{name}': {n}");
                EvalError::new(ErrorKind::Eval, text)
            })
        }
        _ => {
            let what = interp.show_type(value);
            let text = format!(
                "argument '{name}' to '{who}' is {what} while a string, Boolean or integer is expected"
            );
            fail(ErrorKind::Type, text)
        }
    }
}

fn tree(interp: &mut Interp, arg: Value, who: &str, kind: Option<&str>) -> R<Value> {
    let value = interp.force(arg)?;
    let mut attrs = attrs_of(interp, value, who, kind)?;
    if kind.is_none() && attrs.iter().any(|(n, _)| n == "name") {
        return fail(
            ErrorKind::Eval,
            format!("argument 'name' isn’t supported in call to '{who}'"),
        );
    }
    if interp.settings.purity == Purity::Pure {
        must_be_locked(&attrs, who, kind)?;
    }
    add_defaults(&mut attrs, kind, value.kind_of() == Type::Set);
    let fetched = fetched(interp, &FetchRequest::Tree { attrs })?;
    let fallback = if kind == Some("git") {
        Fallback::Zero
    } else {
        Fallback::None
    };
    Ok(tree_value(interp, &fetched, fallback))
}

/// What fetchers of Git repositories do when nothing is said: `fetchGit` leaves out what is not for export, `fetchTree`
/// does without history (of what is named by attributes; not by a reference).
fn add_defaults(attrs: &mut Vec<(String, FetchAttr)>, kind: Option<&str>, by_attrs: bool) {
    let says = |name: &str| {
        attrs
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value)
    };
    let is_git = says("type") == Some(&FetchAttr::String("git".to_owned()));
    let default = match kind {
        Some("git")
            if says("exportIgnore").is_none() && says("submodules") != Some(&FetchAttr::Bool(true)) =>
        {
            "exportIgnore"
        }
        None if by_attrs && is_git && says("shallow").is_none() => "shallow",
        _ => return,
    };
    attrs.push((default.to_owned(), FetchAttr::Bool(true)));
}

/// A tree by the attributes a lock file has of it; for the flakes' own use.
pub(super) fn fetch_locked_tree(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let set = interp.expect_set(args[0], Pos::NONE, "while evaluating a locked input")?;
    let mut attrs = vec![("__final".to_owned(), FetchAttr::Bool(true))];
    let flat = interp.heap.flat(set);
    for (name, value, pos) in flat.sorted(&interp.heap, &interp.symbols) {
        let name = interp.symbols.text(name);
        let attr = fetch_attr(interp, value, &name, "fetchTree", pos)?;
        attrs.push((name, attr));
    }
    let fetched = fetched(interp, &FetchRequest::Tree { attrs })?;
    Ok(tree_value(interp, &fetched, Fallback::None))
}

/// Pure evaluation fetches only what is named by its content.
///
/// Source: recorded from Nix 2.34 (`fetchTree` in `src/libexpr/primops/fetchTree.cc`).
fn must_be_locked(attrs: &[(String, FetchAttr)], who: &str, kind: Option<&str>) -> R<()> {
    let text = |wanted: &str| {
        attrs.iter().find_map(|(name, value)| match value {
            FetchAttr::String(text) if name == wanted => Some(text.as_str()),
            _ => None,
        })
    };
    let has_revision = text("rev").is_some_and(|rev| rev.len() == REVISION_DIGITS);
    if kind == Some("hg") {
        let text = format!("in pure evaluation mode, '{who}' requires a Mercurial revision");
        return if has_revision {
            Ok(())
        } else {
            fail(ErrorKind::Eval, text)
        };
    }
    let has_revisions =
        ["git", "github", "gitlab", "sourcehut", "hg"].contains(&text("type").unwrap_or_default());
    if text("narHash").is_some() || (has_revisions && has_revision) {
        return Ok(());
    }
    let shown = flake_ref_to_string(&as_input(attrs, kind), VerifiedFetches::Disabled);
    let shown = shown.map_err(|error| EvalError::new(ErrorKind::Eval, error.to_string()))?;
    let text = format!("in pure evaluation mode, '{who}' doesn't fetch unlocked input '{shown}'");
    fail(ErrorKind::Eval, text)
}

/// Hexadecimal digits of a revision.
const REVISION_DIGITS: usize = 40;

/// The attributes of a fetcher call with Nix's defaults, as a flake input.
fn as_input(attrs: &[(String, FetchAttr)], kind: Option<&str>) -> Attributes {
    let mut input: Attributes = attrs.iter().cloned().collect();
    if input.get("type") == Some(&FetchAttr::String("git".to_owned())) {
        input.remove("name");
        let default = if kind.is_some() { "exportIgnore" } else { "shallow" };
        input.entry(default.to_owned()).or_insert(FetchAttr::Bool(true));
        if let Some(FetchAttr::String(url)) = input.get_mut("url")
            && url.starts_with('/')
        {
            url.insert_str(0, "file://");
        }
    }
    input
}

pub(super) fn fetch_tree(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    tree(interp, args[0], "fetchTree", None)
}

pub(super) fn fetch_git(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    tree(interp, args[0], "fetchGit", Some("git"))
}

pub(super) fn fetch_mercurial(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    tree(interp, args[0], "fetchMercurial", Some("hg"))
}

pub(super) fn fetch_closure(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    interp.expect_set(
        args[0],
        Pos::NONE,
        "while evaluating the argument passed to builtins.fetchClosure",
    )?;
    fail(
        ErrorKind::Unsupported,
        "fetchClosure is not supported; copy the closure to the store before evaluating",
    )
}

pub(super) fn get_flake(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    super::derivation::require(true, interp.settings.features.flakes, "flakes")?;
    let what = "while evaluating the argument passed to builtins.getFlake";
    let reference = text(interp.plain_string(args[0], Pos::NONE, what)?);
    crate::flake::get_flake(interp, &reference)
}

pub(super) fn output_of(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let what = "while evaluating the second argument to builtins.outputOf";
    interp.plain_string(args[1], Pos::NONE, what)?;
    fail(
        ErrorKind::Unsupported,
        "outputOf is not supported; name the output of a derivation that is known",
    )
}
