//! What the tests share: stores, services on sockets in directories of their own, bytes.

#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

pub mod builders;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use igloo_castore::digest::BlobDigest;
use igloo_castore::error::{ReadBlobError, WriteError};
use igloo_castore::memory;
use igloo_castore::store::{BlobStat, BlobStore, BlobWriter, Castore};
use igloo_remote::{Address, ChunkLists, Listener, Services};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// An empty store in memory.
pub fn castore() -> Castore {
    memory::castore("memory")
}

/// Bytes that do not repeat, told by a seed.
pub fn blob(size: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; size];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

/// A running service; dropping it stops it.
pub struct Service {
    pub url: String,
    pub dir: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Service {
    pub async fn start(dir: tempfile::TempDir, services: Services) -> Self {
        let address = Address::Unix(dir.path().join("socket"));
        let listener = Listener::bind(&address).await.unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = services.serve(listener, async {
            let _ = stopped.await;
        });
        Self {
            url: address.to_string(),
            dir,
            stop: Some(stop),
            task: tokio::spawn(async move { serving.await.unwrap() }),
        }
    }

    /// Stops it, waits until it is gone, and starts another one in its place.
    pub async fn restart(mut self, castore: &Castore) -> Self {
        self.stop.take();
        (&mut self.task).await.unwrap();
        assert!(!self.dir.path().join("socket").exists());
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap());
        Self::start(dir, Services::new().with_castore(castore, ChunkLists::Told)).await
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.take();
    }
}

/// Serves a store, with igloo's own services or only with those that snix has.
pub async fn serve(castore: &Castore, lists: ChunkLists, igloo: bool) -> Service {
    let services = Services::new();
    let services = match igloo {
        true => services.with_castore(castore, lists),
        false => services.with_snix_castore(castore, lists),
    };
    Service::start(tempfile::tempdir().unwrap(), services).await
}

/// A bare channel, for peers that do not use our clients.
pub async fn channel(service: &Service) -> tonic::transport::Channel {
    let path = service.dir.path().join("socket");
    let connect = tower::service_fn(move |_: tonic::transport::Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(hyper_util::rt::TokioIo::new) }
    });
    let endpoint = tonic::transport::Endpoint::from_static("http://localhost");
    endpoint.connect_with_connector(connect).await.unwrap()
}

/// Waits until something has come true; fails after some seconds.
pub async fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..500 {
        if done() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

/// Counts bytes read.
#[derive(Debug)]
pub struct CountingBlobs {
    inner: Arc<dyn BlobStore>,
    bytes: AtomicU64,
}

impl CountingBlobs {
    pub fn new(inner: Arc<dyn BlobStore>) -> Self {
        Self {
            inner,
            bytes: AtomicU64::new(0),
        }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl BlobStore for CountingBlobs {
    async fn stat(&self, digest: &BlobDigest) -> Result<Option<Arc<BlobStat>>, ReadBlobError> {
        self.inner.stat(digest).await
    }

    async fn read_range(&self, digest: &BlobDigest, offset: u64, len: usize) -> Result<Bytes, ReadBlobError> {
        let bytes = self.inner.read_range(digest, offset, len).await?;
        self.bytes.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        Ok(bytes)
    }

    async fn put_small(&self, blobs: Vec<(BlobDigest, Bytes)>) -> Result<(), WriteError> {
        self.inner.put_small(blobs).await
    }

    async fn writer(&self) -> Result<Box<dyn BlobWriter>, WriteError> {
        self.inner.writer().await
    }

    async fn sync(&self) -> Result<(), WriteError> {
        self.inner.sync().await
    }
}

/// A wire to a service, with a fault in what the server sends.
#[derive(Clone, Copy)]
pub struct Wire {
    bytes_max: u64,
    piece: usize,
    pause: std::time::Duration,
}

impl Wire {
    /// Cut after so many bytes, on every connection.
    pub fn cut_after(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            piece: 64 << 10,
            pause: std::time::Duration::ZERO,
        }
    }

    /// A piece of so many bytes at most, then a pause, and so on.
    pub fn slow(piece: usize, pause: std::time::Duration) -> Self {
        Self {
            bytes_max: u64::MAX,
            piece,
            pause,
        }
    }

    /// Lays it; the URL of the near end.
    pub async fn lay(self, service: &Service) -> String {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let far = service.dir.path().join("socket");
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let near = service.dir.path().join(format!("near{number}"));
        let listener = UnixListener::bind(&near).unwrap();
        tokio::spawn(async move {
            while let (Ok((client, _)), Ok(server)) =
                (listener.accept().await, UnixStream::connect(&far).await)
            {
                tokio::spawn(self.carry(client, server));
            }
        });
        format!("grpc+unix://{}", near.display())
    }

    async fn carry(self, client: UnixStream, server: UnixStream) {
        let (mut client_read, mut client_write) = client.into_split();
        let (mut server_read, mut server_write) = server.into_split();
        let down = async {
            let (mut left, mut piece) = (self.bytes_max, vec![0; self.piece]);
            while left > 0 {
                let room = usize::try_from(left).unwrap_or(usize::MAX).min(self.piece);
                let Ok(size @ 1..) = server_read.read(&mut piece[..room]).await else {
                    break;
                };
                left -= size as u64;
                if client_write.write_all(&piece[..size]).await.is_err() {
                    break;
                }
                tokio::time::sleep(self.pause).await;
            }
        };
        let up = tokio::io::copy(&mut client_read, &mut server_write);
        tokio::select! { () = down => {}, _ = up => {} }
        let _ = client_write.shutdown().await;
    }
}
