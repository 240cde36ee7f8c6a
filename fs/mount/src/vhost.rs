//! virtiofs: the file system served to one virtual machine over a vhost-user socket.
//!
//! One [`VhostServer`] listens for one VMM, serves the machine's high-priority queue and its request queues from guest
//! memory, and ends when the VMM hangs up.
//!
//! Threads: one for the control connection, `threads` for requests. A request thread takes one request off a ring while
//! holding that ring's lock, lets go, serves it, and takes the lock again to hand back the answer with its true length;
//! so a slow fetch delays nobody else. While one thread waits for kicks the others rest behind a lock (leader and
//! followers): a request wakes one thread, not two.
//!
//! Invariants
//! - everything from the guest (rings, descriptors, requests) and from the VMM (sizes, addresses, files) is checked; what
//!   is wrong stops that ring or that connection, never the process;
//! - a guest reaches what the file system shows and nothing else;
//! - the socket is created for its owner only and is gone after the drop.
//!
//! Lock order: `leader`, then one ring at a time. Source: vhost-user protocol (QEMU, docs/interop/vhost-user.rst), virtio
//! 1.2 sections 2.7 (split virtqueues) and 5.11 (file system device).

mod device;
mod handler;
mod ring;

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use igloo_status::Code;
use rustix::event::{PollFd, PollFlags, poll};
use vhost::vhost_user::{BackendReqHandler, Error as VhostUserError};

use self::device::Device;
use self::handler::Handler;
use crate::fs::CastoreFs;
use crate::server::FsServer;
use crate::sync::{Arc, Mutex, lock};

/// Most request queues a device has.
pub const QUEUES_MAX: usize = 64;
/// Most descriptors in a queue; a power of two.
pub const QUEUE_SIZE_MAX: u16 = 1024;

/// How long a drop waits for requests that are being served.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// A virtiofs device waiting for, or serving, one machine.
#[derive(Debug)]
pub struct VhostServer {
    socket: PathBuf,
    device: Arc<Device>,
    connection: Arc<Mutex<Option<UnixStream>>>,
    ended: tokio::sync::watch::Receiver<Option<ConnectionEnd>>,
}

/// How a server came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionEnd {
    /// The VMM hung up: the machine is gone.
    Disconnected,
    /// [`VhostServer::stop`] was called, or the server dropped.
    Stopped,
    /// The VMM or the socket did something unexpected; the text says what.
    Failed(String),
}

impl VhostServer {
    /// Binds `socket` and serves the first VMM that connects, with `queues` request queues and `threads` threads.
    ///
    /// `socket` must not exist and lie in a directory that only its owner can enter. The threads wait for the store: take
    /// as many as fetches should run at a time (4 is a good start). Returns once the socket can be connected to.
    ///
    /// # Errors
    /// Each says what to change; nothing is left behind.
    pub fn start(
        socket: &Path,
        fs: Arc<CastoreFs>,
        threads: usize,
        queues: usize,
    ) -> Result<Self, StartVhostError> {
        if !(1..=QUEUES_MAX).contains(&queues) {
            return Err(StartVhostError::Queues { queues });
        }
        let resources = |source| StartVhostError::Resources { source };
        let server = FsServer::new(fs).map_err(resources)?;
        let device = Arc::new(Device::new(server, queues + 1).map_err(resources)?);
        let listener = bind(socket)?;
        let connection = Arc::new(Mutex::new(None));
        let (end, ended) = tokio::sync::watch::channel(None);
        let this = Self {
            socket: socket.to_owned(),
            device,
            connection,
            ended,
        };
        let threads = device::Threads::start(&this.device, threads.max(1)).map_err(resources)?;
        let (device, connection) = (this.device.clone(), this.connection.clone());
        std::thread::Builder::new()
            .name("igloo-vhost".into())
            .spawn(move || {
                let how = serve_one(&listener, &device, &connection);
                drop(listener);
                device.stop();
                threads.join();
                lock(&connection).take();
                tracing::debug!(?how, "a virtiofs device has ended");
                end.send_replace(Some(how));
            })
            .map_err(resources)?;
        Ok(this)
    }

    /// The socket to give to the VMM.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The file system served.
    pub fn fs(&self) -> &Arc<CastoreFs> {
        self.device.server().fs()
    }

    /// Waits until the machine is gone or the server stopped, and says which.
    pub async fn ended(&self) -> ConnectionEnd {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(end) => end.clone().unwrap_or(ConnectionEnd::Stopped),
            Err(_) => ConnectionEnd::Failed("the control thread is gone".into()),
        }
    }

    /// How it ended, if it has.
    pub fn try_ended(&self) -> Option<ConnectionEnd> {
        self.ended.borrow().clone()
    }

    /// Ends it: hangs up on the VMM, lets requests that are being served finish. Returns at once.
    pub fn stop(&self) {
        self.device.stop();
        if let Some(stream) = &*lock(&self.connection) {
            let _ = stream.shutdown(std::net::Shutdown::Both); // fails when the peer was first
        }
    }
}

impl Drop for VhostServer {
    /// Stops, waits up to 5 seconds for requests that are being served, and removes the socket. Blocks: where that hurts,
    /// call [`VhostServer::stop`] and await [`VhostServer::ended`] first.
    fn drop(&mut self) {
        self.stop();
        let _ = std::fs::remove_file(&self.socket); // the owner may have removed its directory already
        let deadline = std::time::Instant::now() + STOP_DEADLINE;
        while self.ended.borrow().is_none() && self.ended.has_changed().is_ok() {
            if std::time::Instant::now() > deadline {
                tracing::warn!(
                    "a virtiofs request is still waiting for the store; its thread is left behind"
                );
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Accepts one VMM and follows its control messages to the end.
fn serve_one(
    listener: &UnixListener,
    device: &Arc<Device>,
    connection: &Mutex<Option<UnixStream>>,
) -> ConnectionEnd {
    let stream = match accept(listener, device) {
        Ok(Some(stream)) => stream,
        Ok(None) => return ConnectionEnd::Stopped,
        Err(error) => return ConnectionEnd::Failed(format!("accepting the VMM: {error}")),
    };
    match stream.try_clone() {
        Ok(clone) => *lock(connection) = Some(clone),
        Err(error) => return ConnectionEnd::Failed(format!("accepting the VMM: {error}")),
    }
    let handler = Arc::new(Mutex::new(Handler::new(device.clone())));
    let mut requests = BackendReqHandler::from_stream(stream, handler);
    loop {
        if device.is_stopping() {
            return ConnectionEnd::Stopped;
        }
        match requests.handle_request() {
            Ok(()) | Err(VhostUserError::SocketRetry(_)) => {}
            Err(_) if device.is_stopping() => return ConnectionEnd::Stopped,
            Err(
                VhostUserError::Disconnected
                | VhostUserError::PartialMessage
                | VhostUserError::SocketBroken(_),
            ) => return ConnectionEnd::Disconnected,
            Err(error) => {
                tracing::warn!(%error, "the VMM's vhost-user connection is given up");
                return ConnectionEnd::Failed(error.to_string());
            }
        }
    }
}

fn accept(listener: &UnixListener, device: &Device) -> io::Result<Option<UnixStream>> {
    loop {
        let mut fds = [
            PollFd::new(listener, PollFlags::IN),
            PollFd::from_borrowed_fd(device.stop_event(), PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if device.is_stopping() {
            return Ok(None);
        }
        if !fds[0].revents().is_empty() {
            return listener.accept().map(|(stream, _)| Some(stream));
        }
    }
}

fn bind(socket: &Path) -> Result<UnixListener, StartVhostError> {
    let path = || socket.to_owned();
    let size = socket.as_os_str().len();
    if size > SOCKET_PATH_SIZE_MAX {
        return Err(StartVhostError::PathTooLong { path: path(), size });
    }
    let listener = UnixListener::bind(socket).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => StartVhostError::InUse { path: path() },
        _ => StartVhostError::Bind { path: path(), source },
    })?;
    let permissions = std::fs::Permissions::from_mode(0o600);
    if let Err(source) = std::fs::set_permissions(socket, permissions) {
        let _ = std::fs::remove_file(socket);
        return Err(StartVhostError::Bind { path: path(), source });
    }
    Ok(listener)
}

/// Longest path of a unix socket, bytes (sun_path less the NUL, unix(7)).
const SOCKET_PATH_SIZE_MAX: usize = 107;

/// Why a virtiofs device could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartVhostError {
    /// No queue, or too many.
    #[error("a virtiofs device has 1 to {QUEUES_MAX} request queues, not {queues}")]
    Queues {
        /// What was asked for.
        queues: usize,
    },
    /// The kernel takes no longer socket paths.
    #[error("the socket path {} has {size} bytes; at most {SOCKET_PATH_SIZE_MAX} fit: use a shorter directory", path.display())]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length, bytes.
        size: usize,
    },
    /// Something is there already.
    #[error("{} exists; remove it if no other igloo serves it", path.display())]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// The socket cannot be made there.
    #[error("the socket {} cannot be made; check that its directory exists and is yours", path.display())]
    Bind {
        /// The path.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Out of threads or file descriptors.
    #[error("no more threads or files can be had; raise the limits (ulimit -u, ulimit -n)")]
    Resources {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl StartVhostError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Queues { .. } | Self::PathTooLong { .. } => Code::InvalidArgument,
            Self::InUse { .. } => Code::AlreadyExists,
            Self::Bind { source, .. } => Code::from_io(source),
            Self::Resources { .. } => Code::ResourceExhausted,
        }
    }
}

#[cfg(test)]
mod tests;
