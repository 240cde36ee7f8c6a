//! Listening: a unix socket that only its owner can reach, or a loopback port.
//!
//! Invariants
//! - a socket lies in a directory that nobody else can change, and never has a mode wider than 0600: it is made in a
//!   directory of mode 0700 and moved into place;
//! - one listener for each path: a lock on `PATH.lock` lives as long as the listener, so the socket of a dead process is
//!   told from that of a live one without guessing; the lock file stays, because removing it would race;
//! - only a socket is ever replaced or removed, and on drop only the one this listener made.

use std::fs::{DirBuilder, File, Metadata, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use igloo_status::Code;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tonic::transport::server::Connected;

use crate::address::Address;

/// A socket that takes connections.
#[derive(Debug)]
pub struct Listener {
    address: Address,
    socket: Socket,
    /// Removes the socket file, then gives up the lock.
    _place: Option<Place>,
}

#[derive(Debug)]
enum Socket {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    /// Listens. Needs a tokio runtime.
    ///
    /// # Errors
    /// See [`ListenError`].
    pub async fn bind(address: &Address) -> Result<Self, ListenError> {
        match address {
            Address::Unix(path) => {
                let (listener, place) = bind_unix(path)?;
                Ok(Self {
                    address: address.clone(),
                    socket: Socket::Unix(listener),
                    _place: Some(place),
                })
            }
            Address::Tcp(socket_address) => {
                let fail = |source| ListenError::Io {
                    what: address.to_string(),
                    source,
                };
                let listener = TcpListener::bind(socket_address).await.map_err(fail)?;
                let address = Address::Tcp(listener.local_addr().map_err(fail)?);
                let socket = Socket::Tcp(listener);
                Ok(Self {
                    address,
                    socket,
                    _place: None,
                })
            }
        }
    }

    /// Where it listens, with the port that was chosen.
    pub fn address(&self) -> &Address {
        &self.address
    }

    pub(crate) async fn accept(&self) -> io::Result<Stream> {
        match &self.socket {
            Socket::Unix(listener) => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
            Socket::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
        }
    }
}

/// A socket file and the lock that says whose it is.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    identity: (u64, u64),
    _lock: File,
}

impl Drop for Place {
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path).is_ok_and(|found| identity(&found) == self.identity);
        if ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the socket could not be removed");
        }
    }
}

fn bind_unix(path: &Path) -> Result<(UnixListener, Place), ListenError> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    check_directory(parent)?;
    let lock = lock(path)?;
    remove_stale(path)?;
    let io = |source| ListenError::Io {
        what: path.display().to_string(),
        source,
    };
    // short, because it must fit into `sun_path` as well; ours alone, because the lock is held
    let nursery = parent.join(format!(".{}", std::process::id()));
    DirBuilder::new().mode(0o700).create(&nursery).map_err(io)?;
    let made = make_socket(&nursery.join("s"), path);
    let removed = std::fs::remove_dir_all(&nursery);
    let (listener, identity) = made.map_err(io)?;
    let place = Place {
        path: path.into(),
        identity,
        _lock: lock,
    };
    removed.map_err(io)?;
    Ok((listener, place))
}

fn make_socket(nursery: &Path, path: &Path) -> io::Result<(UnixListener, (u64, u64))> {
    let listener = UnixListener::bind(nursery)?;
    std::fs::set_permissions(nursery, std::fs::Permissions::from_mode(0o600))?;
    let identity = identity(&std::fs::symlink_metadata(nursery)?);
    std::fs::rename(nursery, path)?;
    Ok((listener, identity))
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Whoever can rename files in the directory could put a socket of its own in place of ours.
fn check_directory(directory: &Path) -> Result<(), ListenError> {
    let metadata = std::fs::metadata(directory).map_err(|source| ListenError::Io {
        what: directory.display().to_string(),
        source,
    })?;
    let mode = metadata.mode();
    let sticky = mode & 0o1000 != 0;
    let ours = metadata.uid() == 0 || metadata.uid() == effective_uid();
    if !metadata.is_dir() || !ours || (mode & 0o022 != 0 && !sticky) {
        return Err(ListenError::Directory {
            directory: directory.into(),
        });
    }
    Ok(())
}

/// The uid files are made with: that of a file just made would be the same.
fn effective_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn lock(path: &Path) -> Result<File, ListenError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let io = |source| ListenError::Io {
        what: Path::new(&name).display().to_string(),
        source,
    };
    let file = rustix::fs::open(
        &name,
        rustix::fs::OFlags::CREATE
            | rustix::fs::OFlags::RDWR
            | rustix::fs::OFlags::CLOEXEC
            | rustix::fs::OFlags::NOFOLLOW,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
    );
    let file = File::from(file.map_err(|error| io(error.into()))?);
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(ListenError::InUse { path: path.into() }),
        Err(TryLockError::Error(source)) => Err(io(source)),
    }
}

/// Removes the socket of a process that died. The caller holds the lock.
fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let io = |source| ListenError::Io {
        what: path.display().to_string(),
        source,
    };
    let metadata = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found.map_err(io)?,
    };
    if !metadata.file_type().is_socket() {
        return Err(ListenError::NotASocket { path: path.into() });
    }
    // somebody who takes no lock may listen here
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(ListenError::InUse { path: path.into() }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(io)
        }
        Err(error) => Err(io(error)),
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Connected for Stream {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Unix(stream) => stream.is_write_vectored(),
            Self::Tcp(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another process listens there.
    #[error("another process listens on {path}; stop it, or choose another socket")]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something that is no socket has the name.
    #[error("{path} exists and is no socket; remove it, or choose another path")]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
    /// Others could replace the socket.
    #[error(
        "the directory {directory} is not safe for a socket: it must belong to you or root, \
         and only its owner may write to it"
    )]
    Directory {
        /// The directory.
        directory: PathBuf,
    },
    /// The system refused.
    #[error("cannot listen: {what}")]
    Io {
        /// The file or address.
        what: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

impl ListenError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::InUse { .. } | Self::NotASocket { .. } | Self::Directory { .. } => Code::FailedPrecondition,
            Self::Io { source, .. } => Code::from_io(source),
        }
    }
}

#[cfg(test)]
mod tests;
