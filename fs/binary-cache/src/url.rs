//! Where a binary cache is.
//!
//! `https://HOST[:PORT][/PATH]`, `http://…` or `file:///DIRECTORY`, with Nix's parameters `priority`, `want-mass-query` and
//! `trusted` behind a `?`.
//!
//! Invariants
//! - a cache's URL holds no secret: passwords are refused, so every URL may be printed;
//! - what a cache or a redirect names is never fetched from a weaker place: not from `http` for `https`, from HTTP only for
//!   HTTP, from below the directory only for a directory.
//!
//! Source: Nix 2.36 `src/libstore/http-binary-cache-store.cc` (makeRequest), store reference parameters.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use hyper::Uri;
use igloo_status::Code;

/// Bytes in the longest URL.
pub const URL_SIZE_MAX: usize = 8 << 10;

/// A cache's URL, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheUrl {
    /// Where it is.
    pub place: CachePlace,
    /// `priority`: what counts instead of what the cache says of itself; lower is asked first.
    pub priority: Option<u32>,
    /// `want-mass-query`: what counts instead of what the cache says.
    pub want_mass_query: Option<bool>,
    /// `trusted`: what it says needs no signature.
    pub trusted: bool,
}

/// Where a cache is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CachePlace {
    /// On a server; the path has no slash at its end.
    Http(Uri),
    /// In a directory of this machine.
    Directory(PathBuf),
}

impl FromStr for CacheUrl {
    type Err = ParseCacheUrlError;

    fn from_str(text: &str) -> Result<Self, ParseCacheUrlError> {
        let (place, query) = text.split_once('?').unwrap_or((text, ""));
        let mut url = Self {
            place: parse_place(place)?,
            priority: None,
            want_mass_query: None,
            trusted: false,
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            url.parameter(text, name, value)?;
        }
        Ok(url)
    }
}

impl CacheUrl {
    fn parameter(&mut self, text: &str, name: &str, value: &str) -> Result<(), ParseCacheUrlError> {
        let wrong = || ParseCacheUrlError::Value {
            url: without_password(text),
            name: name.to_owned(),
        };
        match name {
            "priority" => self.priority = Some(value.parse().map_err(|_| wrong())?),
            "want-mass-query" => self.want_mass_query = Some(parse_bool(value).ok_or_else(wrong)?),
            "trusted" => self.trusted = parse_bool(value).ok_or_else(wrong)?,
            _ => {
                return Err(ParseCacheUrlError::Parameter {
                    url: without_password(text),
                    name: name.to_owned(),
                });
            }
        }
        Ok(())
    }
}

/// The URL without its parameters.
impl fmt::Display for CacheUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            CachePlace::Http(uri) => {
                let text = uri.to_string();
                f.write_str(text.strip_suffix('/').unwrap_or(&text))
            }
            CachePlace::Directory(dir) => write!(f, "file://{}", dir.display()),
        }
    }
}

/// The URL of a file of a cache on a server: below it, or wherever else an absolute URL says.
///
/// # Errors
/// See [`LocationError`].
pub(crate) fn file_of_cache(cache: &Uri, file: &str) -> Result<Uri, LocationError> {
    if file.contains("://") {
        return resolve(cache, file);
    }
    let base = cache.to_string();
    let base = base.strip_suffix('/').unwrap_or(&base);
    parse_uri(&format!("{base}/{}", file.trim_start_matches('/')))
}

/// What a reference (of a redirect, say) in the document at `base` names.
///
/// # Errors
/// See [`LocationError`].
///
/// Source: RFC 3986 section 5, but for `.` and `..`, which servers resolve.
pub(crate) fn resolve(base: &Uri, reference: &str) -> Result<Uri, LocationError> {
    let reference = reference.split('#').next().unwrap_or_default();
    let scheme = base.scheme_str().unwrap_or("https");
    let authority = base.authority().map_or("", |authority| authority.as_str());
    let absolute = if reference.contains("://") {
        reference.to_owned()
    } else if reference.starts_with("//") {
        format!("{scheme}:{reference}")
    } else if reference.starts_with('/') {
        format!("{scheme}://{authority}{reference}")
    } else {
        let dir = base.path().rsplit_once('/').map_or("", |(dir, _)| dir);
        format!("{scheme}://{authority}{dir}/{reference}")
    };
    let uri = parse_uri(&absolute)?;
    if scheme == "https" && uri.scheme_str() != Some("https") {
        return Err(LocationError::Weaker);
    }
    Ok(uri)
}

/// The part of a directory cache that a narinfo's URL names.
///
/// # Errors
/// It leads out of the directory.
pub(crate) fn file_of_directory(file: &str) -> Result<PathBuf, LocationError> {
    let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
    if file.len() > URL_SIZE_MAX || file.contains("://") || !file.split('/').all(plain) {
        return Err(LocationError::Outside);
    }
    Ok(file.into())
}

/// Why a location cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// It is no URL.
    #[error("it is no URL")]
    Malformed,
    /// It is neither `http` nor `https`.
    #[error("only http and https can be fetched")]
    Scheme,
    /// It has a user or a password in it.
    #[error("it names a user or a password")]
    Secret,
    /// It leads from `https` to less.
    #[error("it leads from https to a connection that is not protected")]
    Weaker,
    /// It leads out of the cache's directory.
    #[error("it leads out of the cache's directory")]
    Outside,
}

/// Why a text is no cache's URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseCacheUrlError {
    /// A place that cannot be one.
    #[error("`{url}` names no binary cache; write https://HOST, http://HOST or file:///DIRECTORY")]
    Place {
        /// The text.
        url: String,
        /// What is wrong.
        #[source]
        source: LocationError,
    },
    /// A parameter nobody knows.
    #[error("`{url}`: there is no parameter `{name}`; there are priority, want-mass-query and trusted")]
    Parameter {
        /// The text.
        url: String,
        /// The parameter.
        name: String,
    },
    /// A parameter's value is wrong.
    #[error(
        "`{url}`: the value of `{name}` is wrong; write a number for priority, true or false for the others"
    )]
    Value {
        /// The text.
        url: String,
        /// The parameter.
        name: String,
    },
}

impl ParseCacheUrlError {
    /// Always the caller's fault.
    pub fn code(&self) -> Code {
        Code::InvalidArgument
    }
}

fn parse_place(text: &str) -> Result<CachePlace, ParseCacheUrlError> {
    let wrong = |source| ParseCacheUrlError::Place {
        url: without_password(text),
        source,
    };
    let Some(path) = text.strip_prefix("file://") else {
        let uri = parse_uri(text.trim_end_matches('/')).map_err(wrong)?;
        return Ok(CachePlace::Http(uri));
    };
    if !path.starts_with('/') || path.contains('\0') {
        return Err(wrong(LocationError::Malformed));
    }
    Ok(CachePlace::Directory(path.into()))
}

fn parse_uri(text: &str) -> Result<Uri, LocationError> {
    if text.len() > URL_SIZE_MAX {
        return Err(LocationError::Malformed);
    }
    let uri: Uri = text.parse().map_err(|_| LocationError::Malformed)?;
    match uri.scheme_str() {
        Some("http" | "https") => {}
        Some(_) => return Err(LocationError::Scheme),
        None => return Err(LocationError::Malformed),
    }
    let authority = uri.authority().ok_or(LocationError::Malformed)?;
    if authority.as_str().contains('@') {
        return Err(LocationError::Secret);
    }
    if authority.host().is_empty() {
        return Err(LocationError::Malformed);
    }
    Ok(uri)
}

fn parse_bool(value: &str) -> Option<bool> {
    match value {
        "1" | "true" | "yes" => Some(true),
        "0" | "false" | "no" => Some(false),
        _ => None,
    }
}

/// For messages: what stands before an `@` may be a password.
fn without_password(text: &str) -> String {
    match (text.split_once("://"), text.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://…@{host}"),
        (None, Some((_, host))) => format!("…@{host}"),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn urls_are_checked() {
        let parse = |text: &str| text.parse::<CacheUrl>();
        let url = parse("https://cache.example/a/?priority=7&want-mass-query=true&trusted=1").unwrap();
        assert_eq!(url.to_string(), "https://cache.example/a");
        assert_eq!(
            (url.priority, url.want_mass_query, url.trusted),
            (Some(7), Some(true), true)
        );
        assert_eq!(parse("http://h:1").unwrap().to_string(), "http://h:1");
        assert_eq!(
            parse("file:///a b").unwrap().place,
            CachePlace::Directory("/a b".into())
        );
        for wrong in [
            "cache.example",
            "ftp://h",
            "file://h/x",
            "https://",
            "https:///x",
            "",
        ] {
            assert!(
                matches!(parse(wrong), Err(ParseCacheUrlError::Place { .. })),
                "{wrong}"
            );
        }
        assert!(matches!(
            parse("http://h?compression=xz"),
            Err(ParseCacheUrlError::Parameter { .. })
        ));
        assert!(matches!(
            parse("http://h?priority=-1"),
            Err(ParseCacheUrlError::Value { .. })
        ));
    }

    #[test]
    fn a_password_is_refused_and_not_repeated() {
        for text in [
            "https://me:secret@h/x",
            "https://h?priority=secret@h",
            "me:secret@h",
        ] {
            let error = text.parse::<CacheUrl>().unwrap_err();
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn locations_stay_where_they_may() {
        let base: Uri = "https://h/a/b".parse().unwrap();
        let to = |reference: &str| resolve(&base, reference).map(|uri| uri.to_string());
        assert_eq!(to("/c").unwrap(), "https://h/c");
        assert_eq!(to("c?d#e").unwrap(), "https://h/a/c?d");
        assert_eq!(to("//i/c").unwrap(), "https://i/c");
        assert_eq!(to("https://i/c").unwrap(), "https://i/c");
        assert_eq!(to("http://h/c"), Err(LocationError::Weaker));
        assert_eq!(to("file:///etc/passwd"), Err(LocationError::Malformed));
        assert_eq!(to("gopher://h/c"), Err(LocationError::Scheme));
        assert_eq!(to("https://a:b@h/c"), Err(LocationError::Secret));
        let cache: Uri = "http://h/cache".parse().unwrap();
        let file = |file: &str| file_of_cache(&cache, file).map(|uri| uri.to_string());
        assert_eq!(file("nar/x.nar").unwrap(), "http://h/cache/nar/x.nar");
        assert_eq!(file("https://i/x.nar").unwrap(), "https://i/x.nar");
        assert_eq!(file_of_directory("nar/x.nar"), Ok("nar/x.nar".into()));
        for outside in [
            "../x",
            "/etc/passwd",
            "nar/../../x",
            "file:///x",
            "a//b",
            "a\0b",
            "",
        ] {
            assert_eq!(
                file_of_directory(outside),
                Err(LocationError::Outside),
                "{outside}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in "\\PC{0,60}", base in "https?://[a-z]{1,3}/[a-z/]{0,9}") {
            let _ = text.parse::<CacheUrl>();
            let base: Uri = base.parse().unwrap();
            if let Ok(uri) = resolve(&base, &text) {
                prop_assert!(base.scheme_str() != Some("https") || uri.scheme_str() == Some("https"));
            }
            let _ = file_of_cache(&base, &text);
        }
    }
}
