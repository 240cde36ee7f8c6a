//! Messages of one build on disk, from its first output to its last: written once, read by each caller from the start.
//!
//! Invariants
//! - the file has no name, so nothing of it outlives the process;
//! - a frame is four bytes of size, big end first, and so many bytes of message; only whole frames are read, because the
//!   size that readers are told grows after a frame was written.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{BufMut as _, Bytes, BytesMut};

const SIZE_BYTES: usize = 4;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Spool {
    file: Arc<File>,
}

impl Spool {
    /// A new, empty one in that folder, which is made where it is missing.
    pub(super) async fn create(dir: &Path) -> io::Result<Self> {
        let dir = dir.to_owned();
        let file = blocking(move || unnamed_file(&dir)).await?;
        Ok(Self { file: Arc::new(file) })
    }

    /// Writes frames one after the other at `offset`; where the next one goes.
    pub(super) async fn write(&self, offset: u64, message: Bytes) -> io::Result<u64> {
        let file = Arc::clone(&self.file);
        blocking(move || {
            let size = u32::try_from(message.len()).map_err(io::Error::other)?;
            let mut frame = BytesMut::with_capacity(SIZE_BYTES + message.len());
            frame.put_u32(size);
            frame.put_slice(&message);
            file.write_all_at(&frame, offset)?;
            Ok(offset + frame.len() as u64)
        })
        .await
    }

    /// The frame at `offset`, which must be one; and where the next one is.
    pub(super) async fn read(&self, offset: u64) -> io::Result<(Bytes, u64)> {
        let file = Arc::clone(&self.file);
        blocking(move || {
            let mut size = [0; SIZE_BYTES];
            file.read_exact_at(&mut size, offset)?;
            let at = offset + SIZE_BYTES as u64;
            let mut message = vec![0; u32::from_be_bytes(size) as usize];
            file.read_exact_at(&mut message, at)?;
            let next = at + message.len() as u64;
            Ok((Bytes::from(message), next))
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}

fn unnamed_file(dir: &Path) -> io::Result<File> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = dir.join(format!("outputs-{}-{number}", std::process::id()));
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    let file = options.open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_come_back_and_no_name_stays() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::create(&dir.path().join("a/b")).await.unwrap();
        let messages = [
            Bytes::from_static(b"one"),
            Bytes::new(),
            Bytes::from(vec![7; 300_000]),
        ];
        let mut at = 0;
        for message in &messages {
            at = spool.write(at, message.clone()).await.unwrap();
        }
        for _ in 0..2 {
            let mut from = 0;
            for message in &messages {
                let (read, next) = spool.read(from).await.unwrap();
                assert_eq!(read, message);
                from = next;
            }
            assert_eq!(from, at);
        }
        assert!(spool.read(at).await.is_err());
        assert_eq!(std::fs::read_dir(dir.path().join("a/b")).unwrap().count(), 0);
    }
}
