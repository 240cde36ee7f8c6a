//! URLs as Nix reads and writes them: RFC 3986 with three liberties in queries and fragments.
//!
//! Invariants
//! - a path is its segments, decoded: `/a/b` is an empty one, `a`, and `b`;
//! - printing escapes everything that is not unreserved, but for `:@` in paths and `:@/?` in queries, so a URL may
//!   come out with other bytes than it went in with.
//!
//! Source: RFC 3986; Nix 2.34 `url.cc`; behaviour recorded in `oracle/flakeref.tsv`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv6Addr;

/// A URL in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) scheme: String,
    pub(super) authority: Option<Authority>,
    pub(super) path: Vec<String>,
    pub(super) query: BTreeMap<String, String>,
    pub(super) fragment: String,
}

/// The part after `//`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Authority {
    user: Option<String>,
    password: Option<String>,
    pub(super) host: String,
    /// The host stood in brackets.
    bracketed: bool,
    port: Option<u16>,
}

/// Whether a query may hold blanks and quotes, and a fragment `^` as well.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Liberty {
    Lenient,
    Strict,
}

impl Url {
    /// Reads a URL.
    ///
    /// # Errors
    /// Nix's message for what is no URL.
    pub(super) fn parse(text: &str, liberty: Liberty) -> Result<Self, String> {
        let bad = || format!("'{text}' is not a valid URL: leftover");
        let (before_fragment, fragment) = cut(text, '#');
        let (before_query, query) = cut(before_fragment, '?');
        let lenient = liberty == Liberty::Lenient;
        let in_query = |c: u8| is_pchar(c) || b"/?[]".contains(&c) || (lenient && b" \"".contains(&c));
        let in_fragment = |c: u8| is_pchar(c) || b"/?#".contains(&c) || (lenient && b" \"^".contains(&c));
        let Some((scheme, rest)) = split_scheme(before_query) else {
            return Err(format!("'{text}' doesn't have a scheme"));
        };
        let (authority, path) = match rest.strip_prefix("//") {
            Some(rest) => {
                let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                (Some(Authority::parse(authority).ok_or_else(bad)?), path)
            }
            None => (None, rest),
        };
        let parts_good = is_encoded(path, |c| is_pchar(c) || c == b'/')
            && is_encoded(query.unwrap_or(""), in_query)
            && is_encoded(fragment.unwrap_or(""), in_fragment);
        if !parts_good {
            return Err(bad());
        }
        let is_file = transport(scheme) == "file";
        if let Some(authority) = &authority
            && is_file
            && !authority.host.is_empty()
        {
            return Err(format!(
                "file:// URL '{text}' has unexpected authority '{}'",
                authority.print()
            ));
        }
        let path = if is_file && path.is_empty() { "/" } else { path };
        Ok(Self {
            scheme: scheme.to_owned(),
            authority,
            path: path
                .split('/')
                .map(decode)
                .collect::<Option<_>>()
                .ok_or_else(bad)?,
            query: decode_query(query.unwrap_or("")).ok_or_else(bad)?,
            fragment: decode(fragment.unwrap_or("")).ok_or_else(bad)?,
        })
    }

    /// A URL without authority, query and fragment.
    pub(super) fn new(scheme: &str, path: Vec<String>) -> Self {
        let scheme = scheme.to_owned();
        Self {
            scheme,
            authority: None,
            path,
            query: BTreeMap::new(),
            fragment: String::new(),
        }
    }

    pub(super) fn print(&self) -> String {
        let mut out = format!("{}:", self.scheme);
        if let Some(authority) = &self.authority {
            out.push_str("//");
            out.push_str(&authority.print());
        }
        let path: Vec<String> = self.path.iter().map(|segment| encode(segment, ":@")).collect();
        out.push_str(&path.join("/"));
        for (index, (name, value)) in self.query.iter().enumerate() {
            out.push(if index == 0 { '?' } else { '&' });
            out.push_str(&encode(name, ":@/?"));
            out.push('=');
            out.push_str(&encode(value, ":@/?"));
        }
        if !self.fragment.is_empty() {
            out.push('#');
            out.push_str(&encode(&self.fragment, ""));
        }
        out
    }

    /// The segments of the path that are not empty.
    pub(super) fn segments(&self) -> Vec<&str> {
        self.path
            .iter()
            .map(String::as_str)
            .filter(|segment| !segment.is_empty())
            .collect()
    }

    /// `git` of `git+https`.
    pub(super) fn application(&self) -> Option<&str> {
        self.scheme.split_once('+').map(|(application, _)| application)
    }

    /// `https` of `git+https`, and of `https`.
    pub(super) fn transport(&self) -> &str {
        transport(&self.scheme)
    }
}

impl Authority {
    fn parse(text: &str) -> Option<Self> {
        let (user_info, host_port) = match text.split_once('@') {
            Some((user_info, host_port)) => (Some(user_info), host_port),
            None => (None, text),
        };
        let (user, password) = match user_info.map(|info| cut(info, ':')) {
            None => (None, None),
            Some((user, None)) => (Some(part(user, b"")?), None),
            Some((user, Some(password))) => (Some(part(user, b"")?), Some(part(password, b":")?)),
        };
        let (host, bracketed, port) = split_host(host_port)?;
        let port = match port {
            None | Some("") => None,
            Some(digits) if digits.bytes().all(|c| c.is_ascii_digit()) => {
                Some(digits.parse().ok().filter(|&port: &u16| port != 0)?)
            }
            Some(_) => return None,
        };
        Some(Self {
            user,
            password,
            host,
            bracketed,
            port,
        })
    }

    pub(super) fn print(&self) -> String {
        let mut out = String::new();
        if let Some(user) = &self.user {
            out.push_str(&encode(user, ""));
            if let Some(password) = &self.password {
                out.push(':');
                out.push_str(&encode(password, ""));
            }
            out.push('@');
        }
        if self.bracketed {
            let _ = write!(out, "[{}]", encode(&self.host, ":"));
        } else {
            out.push_str(&encode(&self.host, ""));
        }
        if let Some(port) = self.port {
            let _ = write!(out, ":{port}");
        }
        out
    }
}

/// The host, whether it stood in brackets, and what follows the colon after it.
fn split_host(text: &str) -> Option<(String, bool, Option<&str>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (literal, after) = rest.split_once(']')?;
        let (address, zone) = literal
            .split_once("%25")
            .map_or((literal, None), |(a, zone)| (a, Some(zone)));
        if zone.is_some_and(|zone| zone.is_empty() || !is_encoded(zone, is_unreserved)) {
            return None;
        }
        let future = literal.strip_prefix('v').and_then(|rest| rest.split_once('.'));
        let is_future = future.is_some_and(|(version, rest)| {
            let hex = version.bytes().all(|c| c.is_ascii_hexdigit()) && !version.is_empty();
            hex && !rest.is_empty()
                && rest
                    .bytes()
                    .all(|c| is_unreserved(c) || is_sub_delim(c) || c == b':')
        });
        if address.parse::<Ipv6Addr>().is_err() && !is_future {
            return None;
        }
        let port = if after.is_empty() {
            None
        } else {
            Some(after.strip_prefix(':')?)
        };
        return Some((decode(literal)?, true, port));
    }
    let (host, port) = text
        .split_once(':')
        .map_or((text, None), |(host, port)| (host, Some(port)));
    Some((part(host, b"")?, false, port))
}

/// A decoded part of an authority: unreserved bytes, sub-delimiters, escapes, and `extra`.
fn part(text: &str, extra: &[u8]) -> Option<String> {
    let good = is_encoded(text, |c| {
        is_unreserved(c) || is_sub_delim(c) || extra.contains(&c)
    });
    if good { decode(text) } else { None }
}

/// Decodes the parts of a query; of two with one name the first counts, and one without `=` does not.
pub(super) fn decode_query(query: &str) -> Option<BTreeMap<String, String>> {
    let mut out = BTreeMap::new();
    for pair in query.split('&') {
        let Some((name, value)) = pair.split_once('=') else {
            continue;
        };
        let (name, value) = (decode(name)?, decode(value)?);
        out.entry(name).or_insert(value);
    }
    Some(out)
}

/// Whether a query, read leniently, holds only what it may, escapes included.
pub(super) fn is_query(query: &str) -> bool {
    is_encoded(query, |c| is_pchar(c) || b"/?[] \"".contains(&c))
}

/// Resolves `%XX`; `None` when an escape is incomplete, or the result is not UTF-8.
pub(super) fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let high = char::from(bytes.next()?).to_digit(16)?;
            let low = char::from(bytes.next()?).to_digit(16)?;
            out.push(u8::try_from(high << 4 | low).ok()?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

fn encode(text: &str, keep: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if is_unreserved(byte) || keep.as_bytes().contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// Whether every byte is `allowed` or part of an escape.
fn is_encoded(text: &str, allowed: impl Fn(u8) -> bool) -> bool {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let hex = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_hexdigit());
        let good = if byte == b'%' {
            hex(bytes.next()) && hex(bytes.next())
        } else {
            allowed(byte)
        };
        if !good {
            return false;
        }
    }
    true
}

fn split_scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let first = scheme.bytes().next().is_some_and(|c| c.is_ascii_alphabetic());
    let good = scheme
        .bytes()
        .all(|c| c.is_ascii_alphanumeric() || b"+-.".contains(&c));
    (first && good).then_some((scheme, rest))
}

fn transport(scheme: &str) -> &str {
    scheme.split_once('+').map_or(scheme, |(_, transport)| transport)
}

fn cut(text: &str, at: char) -> (&str, Option<&str>) {
    text.split_once(at)
        .map_or((text, None), |(before, after)| (before, Some(after)))
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

fn is_sub_delim(byte: u8) -> bool {
    b"!$&'()*+,;=".contains(&byte)
}

fn is_pchar(byte: u8) -> bool {
    is_unreserved(byte) || is_sub_delim(byte) || byte == b':' || byte == b'@'
}
