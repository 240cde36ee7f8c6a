//! Where a store is: a URL, checked, and the default place for those who give none.
//!
//! Pure: no file is touched and no environment read here.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use igloo_status::Code;

/// Where the store of the super user is.
pub const SYSTEM_DIR: &str = "/var/lib/igloo";

/// A store's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// `memory:`, gone with the process.
    Memory,
    /// `rocksdb:///DIR`, the embedded database.
    Rocksdb {
        /// The directory, absolute.
        dir: PathBuf,
    },
    /// A server: `grpc+unix:///SOCKET`, `grpc+http://HOST:PORT` or `grpc+https://HOST:PORT`; opened by the remote crate.
    Remote {
        /// The URL as given.
        url: String,
    },
}

const REMOTE_SCHEMES: [&str; 3] = ["grpc+unix", "grpc+http", "grpc+https"];

impl FromStr for StoreUrl {
    type Err = ParseStoreUrlError;

    fn from_str(url: &str) -> Result<Self, ParseStoreUrlError> {
        let Some((scheme, rest)) = url.split_once(':') else {
            return Err(ParseStoreUrlError::NoScheme { url: url.to_owned() });
        };
        match scheme {
            "memory" if rest.is_empty() || rest == "//" => Ok(Self::Memory),
            "memory" => Err(ParseStoreUrlError::Trailing {
                url: url.to_owned(),
                rest: rest.to_owned(),
            }),
            "rocksdb" => Ok(Self::Rocksdb {
                dir: parse_dir(url, rest)?,
            }),
            scheme if REMOTE_SCHEMES.contains(&scheme) => Ok(Self::Remote { url: url.to_owned() }),
            scheme => Err(ParseStoreUrlError::Scheme {
                url: url.to_owned(),
                scheme: scheme.to_owned(),
            }),
        }
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory:"),
            Self::Remote { url } => f.write_str(url),
            Self::Rocksdb { dir } => {
                f.write_str("rocksdb://")?;
                for byte in dir.as_os_str().as_encoded_bytes() {
                    match byte {
                        b'A'..=b'Z'
                        | b'a'..=b'z'
                        | b'0'..=b'9'
                        | b'/'
                        | b'-'
                        | b'_'
                        | b'.'
                        | b'~'
                        | b'+'
                        | b',' => {
                            write!(f, "{}", char::from(*byte))?;
                        }
                        byte => write!(f, "%{byte:02X}")?,
                    }
                }
                Ok(())
            }
        }
    }
}

/// The store's directory where the user names none: `/var/lib/igloo` for root, else `igloo/store` below the XDG data
/// home.
///
/// The arguments are what the environment says: `XDG_DATA_HOME`, which counts only when it is absolute, and `HOME`.
///
/// # Errors
/// Neither says where.
///
/// Source: XDG Base Directory Specification 0.8.
pub fn default_dir(
    is_root: bool,
    xdg_data_home: Option<&OsStr>,
    home: Option<&OsStr>,
) -> Result<PathBuf, NoDefaultDirError> {
    if is_root {
        return Ok(SYSTEM_DIR.into());
    }
    let absolute = |dir: &&Path| dir.is_absolute();
    let data_home = match xdg_data_home.map(Path::new).filter(absolute) {
        Some(dir) => dir.to_owned(),
        None => home
            .map(Path::new)
            .filter(absolute)
            .ok_or(NoDefaultDirError)?
            .join(".local/share"),
    };
    Ok(data_home.join("igloo/store"))
}

/// Why a text names no store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseStoreUrlError {
    /// No `:`.
    #[error("`{url}` is no store URL; write rocksdb:///DIRECTORY, memory: or grpc+unix:///SOCKET")]
    NoScheme {
        /// The text.
        url: String,
    },
    /// A kind of store igloo does not have.
    #[error("`{url}`: there is no kind of store `{scheme}`; there are rocksdb, memory, {}", REMOTE_SCHEMES.join(", "))]
    Scheme {
        /// The text.
        url: String,
        /// Its scheme.
        scheme: String,
    },
    /// A relative path or a host where a directory belongs.
    #[error("`{url}` names no absolute directory; write rocksdb:///DIRECTORY with three slashes")]
    NotAbsolute {
        /// The text.
        url: String,
    },
    /// `%` without two hexadecimal digits after it, or `%00`.
    #[error(
        "`{url}`: a `%` must be followed by two hexadecimal digits that are not 00; write %25 for a percent sign"
    )]
    Percent {
        /// The text.
        url: String,
    },
    /// `?` or `#`, or anything after `memory:`.
    #[error("`{url}`: nothing is known about `{rest}`")]
    Trailing {
        /// The text.
        url: String,
        /// What is too much.
        rest: String,
    },
}

impl ParseStoreUrlError {
    /// Always the caller's fault.
    pub fn code(&self) -> Code {
        Code::InvalidArgument
    }
}

/// No home directory is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no place for the store is known: set HOME, or name a store such as rocksdb:///DIRECTORY")]
pub struct NoDefaultDirError;

impl NoDefaultDirError {
    /// The environment must be changed first.
    pub fn code(&self) -> Code {
        Code::FailedPrecondition
    }
}

fn parse_dir(url: &str, rest: &str) -> Result<PathBuf, ParseStoreUrlError> {
    let path = rest.strip_prefix("//").unwrap_or(rest);
    if !path.starts_with('/') {
        return Err(ParseStoreUrlError::NotAbsolute { url: url.to_owned() });
    }
    if let Some(at) = path.find(['?', '#']) {
        return Err(ParseStoreUrlError::Trailing {
            url: url.to_owned(),
            rest: path[at..].to_owned(),
        });
    }
    let bytes =
        percent_decode(path.as_bytes()).ok_or_else(|| ParseStoreUrlError::Percent { url: url.to_owned() })?;
    Ok(OsString::from_vec(bytes).into())
}

fn percent_decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(*rest.next()?).to_digit(16);
                let value = u8::try_from(digit()? * 16 + digit()?).ok()?;
                (value != 0).then_some(value)?
            }
            byte => *byte,
        });
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn urls_are_checked() {
        let parse = |url: &str| url.parse::<StoreUrl>();
        assert_eq!(parse("memory:"), Ok(StoreUrl::Memory));
        let dir = |dir: &str| Ok(StoreUrl::Rocksdb { dir: dir.into() });
        assert_eq!(parse("rocksdb:///var/x"), dir("/var/x"));
        assert_eq!(parse("rocksdb:/var/x"), dir("/var/x"));
        assert_eq!(parse("rocksdb:///a%20b"), dir("/a b"));
        assert!(matches!(parse("grpc+unix:///run/s"), Ok(StoreUrl::Remote { .. })));
        assert!(matches!(
            parse("rocksdb://host/x"),
            Err(ParseStoreUrlError::NotAbsolute { .. })
        ));
        assert!(matches!(
            parse("rocksdb:x"),
            Err(ParseStoreUrlError::NotAbsolute { .. })
        ));
        assert!(
            matches!(parse("rocksdb:///x?mode=1"), Err(ParseStoreUrlError::Trailing { rest, .. }) if rest == "?mode=1")
        );
        assert!(matches!(
            parse("rocksdb:///%0"),
            Err(ParseStoreUrlError::Percent { .. })
        ));
        assert!(matches!(
            parse("rocksdb:///%00"),
            Err(ParseStoreUrlError::Percent { .. })
        ));
        assert!(matches!(parse("/nix"), Err(ParseStoreUrlError::NoScheme { .. })));
        assert!(matches!(parse("ftp://x"), Err(ParseStoreUrlError::Scheme { .. })));
        assert!(matches!(
            parse("memory:x"),
            Err(ParseStoreUrlError::Trailing { .. })
        ));
    }

    #[test]
    fn the_default_place_follows_xdg() {
        let dir = |root, xdg: Option<&str>, home: Option<&str>| {
            default_dir(root, xdg.map(OsStr::new), home.map(OsStr::new)).map(|dir| dir.display().to_string())
        };
        assert_eq!(dir(true, Some("/x"), Some("/h")).unwrap(), "/var/lib/igloo");
        assert_eq!(dir(false, Some("/x"), Some("/h")).unwrap(), "/x/igloo/store");
        assert_eq!(
            dir(false, Some("x"), Some("/h")).unwrap(),
            "/h/.local/share/igloo/store"
        );
        assert_eq!(
            dir(false, Some(""), Some("/h")).unwrap(),
            "/h/.local/share/igloo/store"
        );
        assert_eq!(dir(false, None, None), Err(NoDefaultDirError));
        assert_eq!(dir(false, None, Some("")), Err(NoDefaultDirError));
    }

    proptest! {
        #[test]
        fn directories_round_trip(path in prop::collection::vec(1u8.., 0..40)) {
            let dir: PathBuf = OsString::from_vec([b"/".as_slice(), &path].concat()).into();
            let url = StoreUrl::Rocksdb { dir };
            prop_assert_eq!(url.to_string().parse(), Ok(url));
        }
    }
}
