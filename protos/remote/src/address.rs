//! Where a service is: a unix socket, or a port of this machine.
//!
//! Invariants
//! - a TCP address is a loopback address: there is neither TLS nor a token yet, so nothing else may be listened on or
//!   connected to;
//! - a socket path is absolute and fits into `sockaddr_un`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use igloo_status::Code;

/// Longest path of a socket, bytes: 104 on macOS, 108 on Linux, less a NUL (`sun_path`, unix(7)).
pub const SOCKET_PATH_BYTES_MAX: usize = 103;

/// An address a service listens on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A unix socket.
    Unix(PathBuf),
    /// A TCP port of a loopback address.
    Tcp(SocketAddr),
}

impl Address {
    /// Reads a listen address: `unix:/run/igloo.sock`, `127.0.0.1:9000`, `[::1]:9000`. Port 0 means any free one.
    ///
    /// # Errors
    /// See [`ParseAddressError`].
    pub fn parse_listen(text: &str) -> Result<Self, ParseAddressError> {
        match text.strip_prefix("unix:") {
            Some(path) => Self::unix(text, path),
            None => Self::tcp(text, text),
        }
    }

    /// Reads a URL: `grpc+unix:///run/igloo.sock`, `grpc+http://127.0.0.1:9000`.
    ///
    /// # Errors
    /// See [`ParseAddressError`].
    pub fn parse_url(url: &str) -> Result<Self, ParseAddressError> {
        let (scheme, rest) = url
            .split_once("://")
            .ok_or_else(|| ParseAddressError::Form { text: url.into() })?;
        match scheme {
            "grpc+unix" => Self::unix(url, rest),
            "grpc+http" => Self::tcp(url, rest.strip_suffix('/').unwrap_or(rest)),
            "grpc+https" => Err(ParseAddressError::Tls { text: url.into() }),
            _ => Err(ParseAddressError::Form { text: url.into() }),
        }
    }

    /// Whether a URL is one of ours, so that another reader need not try it.
    pub fn is_url(url: &str) -> bool {
        url.starts_with("grpc+")
    }

    fn unix(text: &str, path: &str) -> Result<Self, ParseAddressError> {
        if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
            return Err(ParseAddressError::Path { text: text.into() });
        }
        if path.len() > SOCKET_PATH_BYTES_MAX {
            return Err(ParseAddressError::TooLong {
                path: path.into(),
                size: path.len(),
            });
        }
        Ok(Self::Unix(path.into()))
    }

    fn tcp(text: &str, address: &str) -> Result<Self, ParseAddressError> {
        // `localhost` is not looked up: the answer would decide who may connect
        let address = match address.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None => address.to_owned(),
        };
        let form = |_| ParseAddressError::Form { text: text.into() };
        let address = SocketAddr::from_str(&address).map_err(form)?;
        if is_loopback(address.ip()) {
            Ok(Self::Tcp(address))
        } else {
            Err(ParseAddressError::NotLoopback { address })
        }
    }
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

/// The URL.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "grpc+unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "grpc+http://{address}"),
        }
    }
}

/// Why a text is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseAddressError {
    /// No form we know.
    #[error(
        "`{text}` is no address of a service: write `unix:/path/to/socket` or `127.0.0.1:PORT` to listen, \
         `grpc+unix:///path/to/socket` or `grpc+http://127.0.0.1:PORT` to connect"
    )]
    Form {
        /// The text.
        text: String,
    },
    /// A socket path that is not absolute.
    #[error("the socket in `{text}` is no absolute path")]
    Path {
        /// The text.
        text: String,
    },
    /// A socket path that no kernel takes.
    #[error(
        "the socket path `{path}` has {size} bytes, more than the {SOCKET_PATH_BYTES_MAX} \
         a socket may have; choose a shorter one"
    )]
    TooLong {
        /// The path.
        path: String,
        /// Its size, bytes.
        size: usize,
    },
    /// An address that other machines could reach.
    #[error(
        "{address} is not of this machine alone; TLS and tokens are not there yet, \
         so use 127.0.0.1, [::1] or a unix socket (ssh can forward either)"
    )]
    NotLoopback {
        /// The address.
        address: SocketAddr,
    },
    /// TLS is not there yet.
    #[error(
        "`{text}`: TLS is not there yet; use grpc+unix:// or grpc+http:// on this machine (ssh can forward either)"
    )]
    Tls {
        /// The text.
        text: String,
    },
}

impl ParseAddressError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Tls { .. } | Self::NotLoopback { .. } => Code::Unimplemented,
            Self::Form { .. } | Self::Path { .. } | Self::TooLong { .. } => Code::InvalidArgument,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_round_trip() {
        for (listen, url) in [
            ("unix:/run/igloo.sock", "grpc+unix:///run/igloo.sock"),
            ("127.0.0.1:80", "grpc+http://127.0.0.1:80"),
            ("[::1]:80", "grpc+http://[::1]:80"),
            ("localhost:80", "grpc+http://127.0.0.1:80"),
        ] {
            let address = Address::parse_listen(listen).unwrap();
            assert_eq!(Address::parse_url(url).as_ref(), Ok(&address));
            assert_eq!(address.to_string(), url);
        }
        let slash = Address::parse_url("grpc+http://127.0.0.1:80/");
        assert_eq!(slash, Address::parse_listen("127.0.0.1:80"));
    }

    #[test]
    fn other_forms_are_refused() {
        let url = |text: &str| Address::parse_url(text).unwrap_err();
        assert!(matches!(url("grpc+unix://run/x"), ParseAddressError::Path { .. }));
        assert!(matches!(
            url("http://127.0.0.1:1"),
            ParseAddressError::Form { .. }
        ));
        assert!(matches!(
            url("grpc+http://example.org:1"),
            ParseAddressError::Form { .. }
        ));
        assert!(matches!(
            url("grpc+https://127.0.0.1:1"),
            ParseAddressError::Tls { .. }
        ));
        assert!(matches!(url("nothing"), ParseAddressError::Form { .. }));
        let long = format!("unix:/{}", "a".repeat(SOCKET_PATH_BYTES_MAX));
        let long = Address::parse_listen(&long).unwrap_err();
        assert!(matches!(long, ParseAddressError::TooLong { .. }));
    }

    #[test]
    fn only_this_machine_is_spoken_to() {
        for text in ["0.0.0.0:1", "10.0.0.1:1", "[::]:1", "[2001:db8::1]:1"] {
            let error = Address::parse_listen(text).unwrap_err();
            assert!(matches!(error, ParseAddressError::NotLoopback { .. }), "{text}");
        }
        assert!(Address::parse_listen("127.9.9.9:1").is_ok());
        assert!(Address::parse_listen("[::ffff:127.0.0.1]:1").is_ok());
    }
}
