//! How many bytes go through a unix socket for each second of processor time, both ends together?
//!
//! Client and server in one process, stores in memory, so what is measured is the wire: encoding, HTTP/2, the socket, and
//! BLAKE3 on both ends. Sketch: BLAKE3 twice and four copies bound it at about 1.5 GB for each second. Run on an idle
//! machine: `cargo bench -p igloo-remote`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a program for people"
)]
#![allow(missing_docs, reason = "a program")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use common::{blob, castore, serve};
use futures::stream::{self, StreamExt, TryStreamExt};
use igloo_castore::digest::BlobDigest;
use igloo_castore::store::Castore;
use igloo_remote::{ChunkLists, ContentCache, castore as remote};

const BLOB_BYTES: usize = 512 << 20;
const READ_BYTES: usize = 1 << 20;
const SMALL_COUNT: usize = 20_000;
const SMALL_BYTES: usize = 4096;
const ROUNDS: usize = 5;

fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

async fn measure(what: &str, bytes: usize, run: impl AsyncFn()) {
    let mut rates = Vec::new();
    for _ in 0..ROUNDS {
        let (start, cpu) = (Instant::now(), cpu_seconds());
        run().await;
        let (wall, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        let megabytes = bytes as f64 / 1e6;
        rates.push((megabytes / cpu, megabytes / wall));
    }
    rates.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (per_cpu, per_wall) = rates[ROUNDS / 2];
    println!("{what:44} {per_cpu:7.0} MB/cpu-s {per_wall:7.0} MB/s (median of {ROUNDS})");
}

async fn put(castore: &Castore, bytes: &Bytes) -> BlobDigest {
    let mut writer = castore.blobs.writer().await.unwrap();
    for start in (0..bytes.len()).step_by(READ_BYTES) {
        let piece = bytes.slice(start..bytes.len().min(start + READ_BYTES));
        writer.write(piece).await.unwrap();
    }
    writer.finish().await.unwrap().0
}

async fn read(castore: &Castore, digest: &BlobDigest) {
    let starts = stream::iter((0..BLOB_BYTES as u64).step_by(READ_BYTES));
    let read = starts
        .map(|start| castore.blobs.read_range(digest, start, READ_BYTES))
        .buffered(4);
    let size = read
        .try_fold(0, async |size, bytes| Ok(size + bytes.len()))
        .await
        .unwrap();
    assert_eq!(size, BLOB_BYTES);
}

#[tokio::main]
async fn main() {
    let bytes = Bytes::from(blob(BLOB_BYTES, 1));
    let small: Vec<_> = (0..SMALL_COUNT as u64)
        .map(|seed| Bytes::from(blob(SMALL_BYTES, seed)))
        .collect();
    let named: Vec<_> = small
        .iter()
        .map(|bytes| (BlobDigest::of(bytes), bytes.clone()))
        .collect();
    for igloo in [true, false] {
        let peer = if igloo { "igloo" } else { "snix" };
        let local = castore();
        let service = serve(&local, ChunkLists::Told, igloo).await;
        let connect = async || {
            remote::open(&service.url, Arc::new(ContentCache::new(16 << 20, 0)))
                .await
                .unwrap()
        };
        measure(&format!("{peer}: put a blob"), BLOB_BYTES, async || {
            put(&connect().await, &bytes).await;
        })
        .await;
        let digest = BlobDigest::of(&bytes);
        measure(
            &format!("{peer}: read it in 1 MiB ranges, first time"),
            BLOB_BYTES,
            async || {
                read(&connect().await, &digest).await;
            },
        )
        .await;
        let client = connect().await;
        client.blobs.read_range(&digest, 0, 1).await.unwrap();
        measure(&format!("{peer}: read it again"), BLOB_BYTES, async || {
            read(&client, &digest).await;
        })
        .await;
        measure(
            &format!("{peer}: put 20,000 blobs of 4 KiB"),
            SMALL_COUNT * SMALL_BYTES,
            async || {
                connect().await.blobs.put_small(named.clone()).await.unwrap();
            },
        )
        .await;
        measure(
            &format!("{peer}: read them, 16 at once"),
            SMALL_COUNT * SMALL_BYTES,
            async || {
                let client = connect().await;
                let reads = named
                    .iter()
                    .map(|(digest, _)| client.blobs.read_range(digest, 0, SMALL_BYTES));
                stream::iter(reads)
                    .buffered(16)
                    .try_for_each(async |_| Ok(()))
                    .await
                    .unwrap();
            },
        )
        .await;
    }
}
