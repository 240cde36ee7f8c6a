//! Chunks, chunk lists and directories as rows.
//!
//! Rows
//! - `chunks`: digest to the place of the chunk's bytes in a pack;
//! - `blobs`: digest to the chunk list, for each chunk its digest and its size (u32, little endian);
//! - `directories`: digest to the canonical encoding.
//!
//! What is read is checked against its digest; a chunk list, which no digest covers, against its form.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use igloo_status::Code;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::{BLOBS, DIRECTORIES, RocksDatabase, Shared};
use crate::chunked::BlobIndex;
use crate::digest::{BlobDigest, ChunkDigest, DIGEST_SIZE, DirectoryDigest};
use crate::directory::Directory;
use crate::error::{BackendError, ReadBlobError, ReadDirectoryError, WriteError};
use crate::node::Node;
use crate::store::{BlobStat, ChunkStore, DirectoryStore};

/// Budget for decoded directories, bytes.
const DIRECTORY_CACHE_BYTES: u64 = 16 << 20;
/// Bytes of one chunk in a list.
const LIST_ENTRY_SIZE: usize = DIGEST_SIZE + 4;

#[derive(Debug)]
pub(super) struct RocksChunkStore {
    database: RocksDatabase,
}

impl RocksChunkStore {
    pub(super) fn new(database: RocksDatabase) -> Self {
        Self { database }
    }
}

#[async_trait]
impl ChunkStore for RocksChunkStore {
    async fn contains(&self, digests: &[ChunkDigest]) -> Result<Vec<bool>, BackendError> {
        let digests = digests.to_vec();
        self.database
            .blocking(move |shared| {
                let contains = |digest: &ChunkDigest| Ok(shared.chunk_place(digest)?.is_some());
                digests.iter().map(contains).collect()
            })
            .await
    }

    async fn get(&self, digest: &ChunkDigest) -> Result<Option<Bytes>, ReadBlobError> {
        let digest = *digest;
        self.database
            .blocking(move |shared| match shared.chunk(&digest)? {
                None => Ok(None),
                Some(Some(bytes)) => Ok(Some(bytes)),
                Some(None) => Err(corrupt(shared, digest.to_string())),
            })
            .await
    }

    async fn put(&self, chunks: Vec<(ChunkDigest, Bytes)>) -> Result<(), WriteError> {
        let put = move |shared: &Shared| shared.put_chunks(chunks);
        Ok(self.database.blocking(put).await?)
    }

    async fn sync(&self) -> Result<(), WriteError> {
        self.database.sync().await
    }
}

#[derive(Debug)]
pub(super) struct RocksBlobIndex {
    database: RocksDatabase,
}

impl RocksBlobIndex {
    pub(super) fn new(database: RocksDatabase) -> Self {
        Self { database }
    }
}

#[async_trait]
impl BlobIndex for RocksBlobIndex {
    async fn get(&self, digest: &BlobDigest) -> Result<Option<Arc<BlobStat>>, ReadBlobError> {
        let digest = *digest;
        self.database
            .blocking(move |shared| {
                let list = shared
                    .get(BLOBS, digest.as_bytes())
                    .map_err(|error| damaged_blob(shared, digest.to_string(), error))?;
                let Some(list) = list else {
                    return Ok(None);
                };
                let stat = decode_list(&list).ok_or_else(|| corrupt(shared, digest.to_string()))?;
                Ok(Some(Arc::new(stat)))
            })
            .await
    }

    async fn put(&self, blobs: Vec<(BlobDigest, Arc<BlobStat>)>) -> Result<(), WriteError> {
        let put = move |shared: &Shared| {
            let rows: Vec<_> = blobs
                .iter()
                .map(|(digest, stat)| (*digest.as_bytes(), encode_list(stat)))
                .collect();
            shared.put_content(BLOBS, rows)
        };
        Ok(self.database.blocking(put).await?)
    }

    async fn sync(&self) -> Result<(), WriteError> {
        self.database.sync().await
    }
}

fn encode_list(stat: &BlobStat) -> Bytes {
    let mut list = BytesMut::with_capacity(stat.chunks.len() * LIST_ENTRY_SIZE);
    for (digest, size) in &stat.chunks {
        list.extend_from_slice(digest.as_bytes());
        list.extend_from_slice(&size.to_le_bytes());
    }
    list.freeze()
}

fn decode_list(list: &[u8]) -> Option<BlobStat> {
    let (entries, []) = list.as_chunks::<LIST_ENTRY_SIZE>() else {
        return None;
    };
    let mut chunks = Vec::with_capacity(entries.len());
    let mut total = 0u64;
    for entry in entries {
        let (digest, size) = entry.split_first_chunk::<DIGEST_SIZE>()?;
        let size = u32::from_le_bytes(size.try_into().ok()?);
        total = total.checked_add(u64::from(size))?;
        chunks.push((ChunkDigest::from_bytes(*digest), size));
    }
    // a shorter list has no record
    (chunks.len() > 1 && chunks.iter().all(|(_, size)| *size > 0)).then_some(BlobStat { size: total, chunks })
}

pub(super) struct RocksDirectoryStore {
    database: RocksDatabase,
    empty: DirectoryDigest,
    cache: Arc<Cache<DirectoryDigest, Arc<Directory>, ByEntries>>,
}

impl RocksDirectoryStore {
    pub(super) fn new(database: RocksDatabase) -> Self {
        Self {
            database,
            empty: Directory::new().digest(),
            cache: Arc::new(Cache::with_weighter(8192, DIRECTORY_CACHE_BYTES, ByEntries)),
        }
    }
}

#[async_trait]
impl DirectoryStore for RocksDirectoryStore {
    async fn get(&self, digest: &DirectoryDigest) -> Result<Option<Arc<Directory>>, ReadDirectoryError> {
        let digest = *digest;
        if digest == self.empty {
            return Ok(Some(Arc::default()));
        }
        if let Some(directory) = self.cache.get(&digest) {
            return Ok(Some(directory));
        }
        let found = self
            .database
            .blocking(move |shared| load(shared, &digest).map(|found| found.map(Arc::new)))
            .await?;
        if let Some(directory) = &found {
            self.cache.insert(digest, Arc::clone(directory));
        }
        Ok(found)
    }

    async fn put(&self, directories: Vec<Directory>) -> Result<(), WriteError> {
        let (empty, cache) = (self.empty, Arc::clone(&self.cache));
        self.database
            .blocking(move |shared| {
                let mut rows = Vec::with_capacity(directories.len());
                let mut sizes = HashMap::from([(empty, 0)]);
                for directory in &directories {
                    let encoding = Bytes::from(directory.encode());
                    let digest = DirectoryDigest::of(&encoding);
                    check_children(shared, directory, &mut sizes, &cache)?;
                    sizes.insert(digest, directory.size());
                    rows.push((*digest.as_bytes(), encoding));
                }
                let digests: Vec<_> = rows.iter().map(|(digest, _)| *digest).collect();
                shared.put_content(DIRECTORIES, rows)?;
                for (directory, digest) in directories.into_iter().zip(digests) {
                    // so that the parent's check finds its child in memory
                    cache.insert(DirectoryDigest::from_bytes(digest), Arc::new(directory));
                }
                Ok(())
            })
            .await
    }

    async fn sync(&self) -> Result<(), WriteError> {
        self.database.sync().await
    }
}

fn check_children(
    shared: &Shared,
    directory: &Directory,
    sizes: &mut HashMap<DirectoryDigest, u64>,
    cache: &Cache<DirectoryDigest, Arc<Directory>, ByEntries>,
) -> Result<(), WriteError> {
    for (_, node) in directory.entries() {
        let Node::Directory { digest, size } = node else {
            continue;
        };
        let known = match sizes.get(digest) {
            Some(size) => *size,
            None => {
                let size = match cache.get(digest) {
                    Some(child) => child.size(),
                    None => stored_size(shared, digest)?,
                };
                sizes.insert(*digest, size);
                size
            }
        };
        if known != *size {
            return Err(WriteError::Dangling { child: *digest });
        }
    }
    Ok(())
}

fn stored_size(shared: &Shared, digest: &DirectoryDigest) -> Result<u64, WriteError> {
    match load(shared, digest) {
        Ok(Some(child)) => Ok(child.size()),
        Err(ReadDirectoryError::Backend(error)) => Err(error.into()),
        // a damaged child is as good as none
        Ok(None) | Err(_) => Err(WriteError::Dangling { child: *digest }),
    }
}

fn load(shared: &Shared, digest: &DirectoryDigest) -> Result<Option<Directory>, ReadDirectoryError> {
    let corrupt = || ReadDirectoryError::Corrupt {
        digest: *digest,
        store: shared.name.clone(),
    };
    let bytes = match shared.get(DIRECTORIES, digest.as_bytes()) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Ok(None),
        Err(error) if error.code() == Code::DataLoss => return Err(corrupt()),
        Err(error) => return Err(error.into()),
    };
    if !digest.matches(&bytes) {
        return Err(corrupt());
    }
    let directory = Directory::decode(&bytes).map_err(|source| ReadDirectoryError::Malformed {
        digest: *digest,
        store: shared.name.clone(),
        source,
    })?;
    Ok(Some(directory))
}

fn damaged_blob(shared: &Shared, digest: String, error: BackendError) -> ReadBlobError {
    match error.code() {
        Code::DataLoss => corrupt(shared, digest),
        _ => error.into(),
    }
}

fn corrupt(shared: &Shared, digest: String) -> ReadBlobError {
    ReadBlobError::Corrupt {
        digest,
        store: shared.name.clone(),
    }
}

impl std::fmt::Debug for RocksDirectoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RocksDirectoryStore")
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}

#[derive(Clone)]
struct ByEntries;

impl Weighter<DirectoryDigest, Arc<Directory>> for ByEntries {
    /// An estimate: an entry with its name, and the encoding that the names share.
    fn weight(&self, _: &DirectoryDigest, directory: &Arc<Directory>) -> u64 {
        160 + directory.len() as u64 * 200
    }
}
