//! Peers that lie, break off, and never end: each gets a typed error, and nothing of theirs is kept.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{Service, Wire, blob, castore};
use futures::stream::{self, Stream, StreamExt};
use igloo_castore::digest::{BlobDigest, DirectoryDigest};
use igloo_castore::directory::Directory;
use igloo_castore::error::{ReadBlobError, ReadDirectoryError};
use igloo_castore::store::Castore;
use igloo_protos::igloo::castore::v1 as igloo;
use igloo_protos::igloo::castore::v1::content_service_server::{ContentService, ContentServiceServer};
use igloo_protos::snix::castore::v1 as snix;
use igloo_protos::snix::castore::v1::blob_service_server::{BlobService, BlobServiceServer};
use igloo_protos::snix::castore::v1::directory_service_server::{DirectoryService, DirectoryServiceServer};
use igloo_remote::{ChunkLists, ContentCache, Services, castore as remote};
use igloo_status::Code;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status, Streaming};

type Stream_<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Chunks = Stream_<snix::BlobChunk>;

/// A server that answers as it was told, whatever it is asked.
#[derive(Clone, Default)]
struct Liar {
    stat: Vec<(Bytes, u64)>,
    read: Vec<Bytes>,
    endless: bool,
    open: Option<igloo::OpenBlobResponse>,
    put: Bytes,
    directory: snix::Directory,
}

impl Liar {
    fn chunks(&self) -> Chunks {
        let chunks = self
            .read
            .clone()
            .into_iter()
            .map(|data| Ok(snix::BlobChunk { data }));
        let piece = Ok(snix::BlobChunk {
            data: Bytes::from(vec![7; 64 << 10]),
        });
        match self.endless {
            true => stream::repeat_with(move || piece.clone()).boxed(),
            false => stream::iter(chunks.collect::<Vec<_>>()).boxed(),
        }
    }
}

#[tonic::async_trait]
impl BlobService for Liar {
    type ReadStream = Chunks;

    async fn stat(
        &self,
        _: Request<snix::StatBlobRequest>,
    ) -> Result<Response<snix::StatBlobResponse>, Status> {
        let chunk = |(digest, size): &(Bytes, u64)| snix::stat_blob_response::ChunkMeta {
            digest: digest.clone(),
            size: *size,
        };
        Ok(Response::new(snix::StatBlobResponse {
            chunks: self.stat.iter().map(chunk).collect(),
            bao: Bytes::new(),
        }))
    }

    async fn read(&self, _: Request<snix::ReadBlobRequest>) -> Result<Response<Chunks>, Status> {
        Ok(Response::new(self.chunks()))
    }

    async fn put(
        &self,
        request: Request<Streaming<snix::BlobChunk>>,
    ) -> Result<Response<snix::PutBlobResponse>, Status> {
        let mut stream = request.into_inner();
        while stream.message().await?.is_some() {}
        let digest = self.put.clone();
        Ok(Response::new(snix::PutBlobResponse { digest }))
    }
}

#[tonic::async_trait]
impl DirectoryService for Liar {
    type GetStream = Stream_<snix::Directory>;

    async fn get(&self, _: Request<snix::GetDirectoryRequest>) -> Result<Response<Self::GetStream>, Status> {
        Ok(Response::new(stream::iter([Ok(self.directory.clone())]).boxed()))
    }

    async fn put(
        &self,
        _: Request<Streaming<snix::Directory>>,
    ) -> Result<Response<snix::PutDirectoryResponse>, Status> {
        let root_digest = self.put.clone();
        Ok(Response::new(snix::PutDirectoryResponse { root_digest }))
    }
}

#[tonic::async_trait]
impl ContentService for Liar {
    type ReadRangeStream = Chunks;

    async fn open_blob(
        &self,
        _: Request<igloo::OpenBlobRequest>,
    ) -> Result<Response<igloo::OpenBlobResponse>, Status> {
        let open = self.open.clone();
        open.map(Response::new)
            .ok_or_else(|| Status::unimplemented("not here"))
    }

    async fn read_range(&self, _: Request<igloo::ReadRangeRequest>) -> Result<Response<Chunks>, Status> {
        Ok(Response::new(self.chunks()))
    }

    async fn put_small_blobs(
        &self,
        _: Request<Streaming<igloo::PutSmallBlobsRequest>>,
    ) -> Result<Response<igloo::PutSmallBlobsResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn put_directories(
        &self,
        _: Request<Streaming<igloo::PutDirectoriesRequest>>,
    ) -> Result<Response<igloo::PutDirectoriesResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn sync(&self, _: Request<igloo::SyncRequest>) -> Result<Response<igloo::SyncResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

/// A client of a liar.
struct Victim {
    store: Castore,
    cache: Arc<ContentCache>,
    _dir: tempfile::TempDir,
}

async fn victim(liar: Liar) -> Victim {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let incoming = UnixListenerStream::new(UnixListener::bind(&socket).unwrap());
    let server = tonic::transport::Server::builder()
        .add_service(BlobServiceServer::new(liar.clone()).max_encoding_message_size(64 << 20))
        .add_service(ContentServiceServer::new(liar.clone()))
        .add_service(DirectoryServiceServer::new(liar));
    tokio::spawn(server.serve_with_incoming(incoming));
    let cache = Arc::new(ContentCache::default());
    let url = format!("grpc+unix://{}", socket.display());
    let store = remote::open(&url, Arc::clone(&cache)).await.unwrap();
    Victim {
        store,
        cache,
        _dir: dir,
    }
}

/// What a read ends with: within seconds, and without a byte kept.
async fn read_error(liar: Liar, digest: BlobDigest) -> ReadBlobError {
    let victim = victim(liar).await;
    let read = victim.store.blobs.read_range(&digest, 0, 10);
    let error = tokio::time::timeout(Duration::from_secs(30), read)
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(victim.cache.bytes(), 0, "bytes of a liar were kept");
    error
}

fn pieces(bytes: &[u8]) -> Vec<Bytes> {
    bytes.chunks(100_000).map(Bytes::copy_from_slice).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_are_corrupt() {
    let bytes = blob(300_000, 1);
    let digest = BlobDigest::of(&bytes);
    let mut flipped = bytes.clone();
    flipped[200_000] ^= 1;
    let longer = [&bytes[..], b"x"].concat();
    for wrong in [&flipped[..], &bytes[..299_999], &longer, b""] {
        let read = pieces(wrong);
        let error = read_error(
            Liar {
                read,
                ..Liar::default()
            },
            digest,
        )
        .await;
        assert!(matches!(error, ReadBlobError::Corrupt { .. }), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_end_is_given_up() {
    let sum = 5u64 << 20;
    let digest = Bytes::from_static(&[1; 32]);
    let stat = vec![(digest, 1 << 20); 5];
    // with a chunk list: bounded by its sum, and the first chunk is wrong already
    let endless = Liar {
        stat,
        endless: true,
        ..Liar::default()
    };
    let error = read_error(endless, BlobDigest::of(b"x")).await;
    assert!(matches!(error, ReadBlobError::Corrupt { .. }), "{error:?} {sum}");
    // with a small one: bounded by what is kept whole, then only hashed, up to the largest blob in one piece
    let endless = Liar {
        endless: true,
        ..Liar::default()
    };
    let error = read_error(endless, BlobDigest::of(b"x")).await;
    assert_eq!(error.code(), Code::DataLoss, "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversized_message_is_refused() {
    let read = vec![Bytes::from(vec![0; 16 << 20])];
    let error = read_error(
        Liar {
            read,
            ..Liar::default()
        },
        BlobDigest::of(b"x"),
    )
    .await;
    assert!(matches!(error, ReadBlobError::Backend(_)), "{error:?}");
    assert_eq!(error.code(), Code::OutOfRange, "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_chunk_lists_are_corrupt() {
    let bytes = blob(6 << 20, 1);
    let digest = BlobDigest::of(&bytes);
    let chunk = |range: std::ops::Range<usize>| {
        let size = (range.end - range.start) as u64;
        let digest = blake3::hash(&bytes[range]);
        (Bytes::copy_from_slice(digest.as_bytes()), size)
    };
    let (a, b) = (chunk(0..3 << 20), chunk(3 << 20..6 << 20));
    let lists = [
        vec![b.clone(), a.clone()],
        vec![a.clone(), b.clone(), a.clone()],
        vec![(a.0.clone(), a.1 + 1), (b.0.clone(), b.1 - 1)],
        vec![a.clone(), (b.0.clone(), u64::MAX)],
        vec![a.clone(), (b.0.clone(), 0), b.clone()],
        vec![a.clone(), (Bytes::from_static(b"short"), b.1)],
        vec![(b.0.clone(), u64::from(u32::MAX)); 1000],
    ];
    for stat in lists {
        let read = pieces(&bytes);
        let victim = victim(Liar {
            stat,
            read,
            ..Liar::default()
        })
        .await;
        let error = victim.store.blobs.read_range(&digest, 0, 10).await.unwrap_err();
        assert!(matches!(error, ReadBlobError::Corrupt { .. }), "{error:?}");
    }
    // the honest list passes, so the refusals above are about the lists
    let liar = Liar {
        stat: vec![a, b],
        read: pieces(&bytes),
        ..Liar::default()
    };
    let read = victim(liar)
        .await
        .store
        .blobs
        .read_range(&digest, 0, 10)
        .await
        .unwrap();
    assert_eq!(read, bytes[..10]);
}

/// An honest answer to OpenBlob, taken from an honest server.
async fn honest_open(bytes: &[u8]) -> igloo::OpenBlobResponse {
    let local = castore();
    let mut writer = local.blobs.writer().await.unwrap();
    writer.write(Bytes::copy_from_slice(bytes)).await.unwrap();
    writer.finish().await.unwrap();
    let services = Services::new().with_castore(&local, ChunkLists::Told);
    let service = Service::start(tempfile::tempdir().unwrap(), services).await;
    let channel = common::channel(&service).await;
    let mut client = igloo::content_service_client::ContentServiceClient::new(channel);
    let digest = Bytes::copy_from_slice(BlobDigest::of(bytes).as_bytes());
    client
        .open_blob(igloo::OpenBlobRequest { digest })
        .await
        .unwrap()
        .into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_outlines_are_corrupt() {
    let bytes = blob(1_000_000, 1);
    let digest = BlobDigest::of(&bytes);
    let honest = honest_open(&bytes).await;
    type Change = fn(&mut igloo::OpenBlobResponse);
    let changes: [Change; 8] = [
        |open| open.size += 1,
        |open| open.size = u64::MAX,
        |open| open.group_log2 = 17,
        |open| open.group_log2 = u32::MAX,
        |open| open.outline = open.outline.slice(..96),
        |open| open.outline = Bytes::new(),
        |open| open.data = Bytes::new(),
        |open| open.data = Bytes::from(vec![0; open.data.len()]),
    ];
    for change in changes {
        let mut open = honest.clone();
        change(&mut open);
        let liar = Liar {
            open: Some(open),
            ..Liar::default()
        };
        let error = read_error(liar, digest).await;
        assert!(matches!(error, ReadBlobError::Corrupt { .. }), "{error:?}");
    }
}

/// The outline is honest, the groups are not: none of their bytes is given out, the proven rest still is.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_groups_are_corrupt() {
    let bytes = blob(1_000_000, 1);
    let digest = BlobDigest::of(&bytes);
    let open = Some(honest_open(&bytes).await);
    let mut flipped = bytes[..262_144].to_vec();
    flipped[9] ^= 1;
    for (wrong, code) in [
        (&flipped[..], Code::DataLoss),
        (&bytes[..9], Code::DataLoss),
        (&bytes, Code::DataLoss),
    ] {
        let liar = Liar {
            open: open.clone(),
            read: pieces(wrong),
            ..Liar::default()
        };
        let victim = victim(liar).await;
        let error = victim.store.blobs.read_range(&digest, 0, 10).await.unwrap_err();
        assert_eq!(error.code(), code, "{error:?}");
        let last = victim.store.blobs.read_range(&digest, 999_990, 10).await.unwrap();
        assert_eq!(last, bytes[999_990..]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_stores_something_else_is_found_out() {
    let victim = victim(Liar {
        put: Bytes::from_static(&[5; 32]),
        ..Liar::default()
    })
    .await;
    let blobs = &victim.store.blobs;
    let small = vec![(BlobDigest::of(b"a"), Bytes::from_static(b"a"))];
    assert_eq!(blobs.put_small(small).await.unwrap_err().code(), Code::DataLoss);
    let mut writer = blobs.writer().await.unwrap();
    writer.write(Bytes::from_static(b"abc")).await.unwrap();
    assert_eq!(writer.finish().await.unwrap_err().code(), Code::DataLoss);
    let put = victim.store.directories.put(vec![Directory::new()]).await;
    assert_eq!(put.unwrap_err().code(), Code::DataLoss);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_directories_are_corrupt() {
    let file = |name: &'static str, digest: &'static [u8]| snix::FileEntry {
        name: Bytes::from_static(name.as_bytes()),
        digest: Bytes::from_static(digest),
        size: 1,
        executable: false,
    };
    let files = |files: Vec<snix::FileEntry>| snix::Directory {
        files,
        ..snix::Directory::default()
    };
    let other = files(vec![file("a", &[1; 32])]);
    let unsorted = files(vec![file("b", &[1; 32]), file("a", &[1; 32])]);
    let evil = files(vec![file("../a", &[1; 32])]);
    let short = files(vec![file("a", &[1; 3])]);
    let wanted = DirectoryDigest::of(b"wanted");
    for directory in [other, unsorted, evil, short, snix::Directory::default()] {
        let victim = victim(Liar {
            directory,
            ..Liar::default()
        })
        .await;
        let error = victim.store.directories.get(&wanted).await.unwrap_err();
        assert!(matches!(error, ReadDirectoryError::Corrupt { .. }), "{error:?}");
        assert_eq!(victim.cache.bytes(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_is_unavailable() {
    let local = castore();
    let bytes = blob(8 << 20, 1);
    let mut writer = local.blobs.writer().await.unwrap();
    writer.write(Bytes::from(bytes.clone())).await.unwrap();
    let (digest, _) = writer.finish().await.unwrap();
    for igloo in [true, false] {
        let service = common::serve(&local, ChunkLists::Told, igloo).await;
        let url = Wire::cut_after(100_000).lay(&service).await;
        let cache = Arc::new(ContentCache::default());
        let store = remote::open(&url, Arc::clone(&cache)).await.unwrap();
        let error = store.blobs.read_range(&digest, 0, 8 << 20).await.unwrap_err();
        assert_eq!(error.code(), Code::Unavailable, "{error:?}");
        assert_eq!(cache.bytes(), 0);
    }
}
