//! A peer's directories: encoded again and hashed before they are given out.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::{self, StreamExt, TryStreamExt};
use igloo_castore::digest::DirectoryDigest;
use igloo_castore::directory::Directory;
use igloo_castore::error::{BackendError, ReadDirectoryError, WriteError};
use igloo_castore::node::Node;
use igloo_castore::store::{DirectoryStore, StoreName};
use igloo_protos::castore::digest_bytes;
use igloo_protos::igloo::castore::v1 as igloo;
use igloo_protos::igloo::castore::v1::content_service_client::ContentServiceClient;
use igloo_protos::snix::castore::v1 as wire;
use igloo_protos::snix::castore::v1::directory_service_client::DirectoryServiceClient;
use igloo_status::Code;
use tonic::Status;
use tonic::transport::Channel;

use super::Peer;
use super::cache::ContentCache;
use crate::connect::Connection;
use crate::limits::{BATCH_BYTES, DIRECTORIES_MAX, DIRECTORY_MESSAGE_BYTES_MAX, PUT_WINDOW};
use crate::status::{RemoteError, backend_error, code, retrying, write_error};

const PUT: &str = "store directories";
/// What an entry takes in a message, bytes; an estimate.
const ENTRY_BYTES: usize = 64;

/// Directories of a peer. Cheap to clone; clones share connection and cache.
#[derive(Clone, Debug)]
pub struct GrpcDirectoryStore {
    name: StoreName,
    snix: DirectoryServiceClient<Channel>,
    igloo: ContentServiceClient<Channel>,
    peer: Arc<Peer>,
    cache: Arc<ContentCache>,
}

impl GrpcDirectoryStore {
    pub(super) fn new(
        connection: &Connection,
        name: StoreName,
        peer: Arc<Peer>,
        cache: Arc<ContentCache>,
    ) -> Self {
        let snix = DirectoryServiceClient::new(connection.channel());
        let igloo = ContentServiceClient::new(connection.channel());
        Self {
            name,
            snix: snix.max_decoding_message_size(DIRECTORY_MESSAGE_BYTES_MAX),
            igloo,
            peer,
            cache,
        }
    }

    async fn fetch(&self, digest: &DirectoryDigest) -> Result<Arc<Directory>, FetchError> {
        let request = || wire::GetDirectoryRequest {
            by_what: Some(wire::get_directory_request::ByWhat::Digest(digest_bytes(digest))),
            recursive: false,
        };
        let attempt = || async {
            let mut stream = self.snix.clone().get(request()).await?.into_inner();
            stream.message().await
        };
        let message = match retrying(attempt).await {
            Ok(Some(message)) => message,
            Ok(None) => return Err(FetchError::Absent),
            Err(status) if code(&status) == Code::NotFound => return Err(FetchError::Absent),
            Err(status) => {
                let error = backend_error(&self.name, "read the directory", &status);
                return Err(FetchError::Read(error.into()));
            }
        };
        // a message that is no directory cannot have the digest of one either
        match Directory::try_from(message) {
            Ok(directory) if directory.digest() == *digest => Ok(Arc::new(directory)),
            _ => Err(FetchError::Read(ReadDirectoryError::Corrupt {
                digest: *digest,
                store: self.name.clone(),
            })),
        }
    }

    async fn put_batches(&self, directories: &[Directory]) -> Result<(), Status> {
        let messages = batches(directories);
        let answer = retrying(|| async {
            let messages = stream::iter(messages.clone());
            self.igloo.clone().put_directories(messages).await
        });
        answer.await.map(|_| ())
    }

    /// For peers that take whole trees only: one call for each directory of the batch that no other refers to.
    async fn put_trees(&self, directories: Vec<Directory>) -> Result<(), WriteError> {
        let known: HashMap<_, _> = directories
            .into_iter()
            .map(|one| (one.digest(), Arc::new(one)))
            .collect();
        let inner: HashSet<_> = known.values().flat_map(|directory| children(directory)).collect();
        let roots: Vec<_> = known
            .keys()
            .filter(|digest| !inner.contains(digest))
            .copied()
            .collect();
        let known = &known;
        stream::iter(roots)
            .map(|root| self.put_tree(root, known))
            .buffer_unordered(PUT_WINDOW)
            .try_collect()
            .await
    }

    async fn put_tree(
        &self,
        root: DirectoryDigest,
        known: &HashMap<DirectoryDigest, Arc<Directory>>,
    ) -> Result<(), WriteError> {
        let tree: Vec<_> = self
            .tree(root, known)
            .await?
            .iter()
            .map(|one| wire::Directory::from(&**one))
            .collect();
        let answer = retrying(|| async { self.snix.clone().put(stream::iter(tree.clone())).await }).await;
        let answer = answer.map_err(|status| write_error(&self.name, PUT, &status))?;
        if answer.get_ref().root_digest == root.as_bytes()[..] {
            return Ok(());
        }
        let error = RemoteError {
            code: Code::DataLoss,
            message: format!("the peer stored something other than {root}"),
        };
        let error = BackendError::new(&self.name, Code::DataLoss, format!("cannot {PUT}"), error);
        Err(WriteError::Backend(error))
    }

    /// A tree, children before parents; what is not in the batch was put before and is asked for.
    async fn tree(
        &self,
        root: DirectoryDigest,
        known: &HashMap<DirectoryDigest, Arc<Directory>>,
    ) -> Result<Vec<Arc<Directory>>, WriteError> {
        let mut done: HashSet<DirectoryDigest> = HashSet::new();
        let mut order = Vec::new();
        let mut stack = vec![(root, false)];
        while let Some((digest, children_done)) = stack.pop() {
            if done.contains(&digest) {
                continue;
            }
            let directory = match known.get(&digest) {
                Some(directory) => Arc::clone(directory),
                None => self.stored(digest).await?,
            };
            if children_done || children(&directory).next().is_none() {
                done.insert(digest);
                order.push(directory);
            } else {
                stack.push((digest, true));
                stack.extend(children(&directory).map(|child| (child, false)));
            }
            if done.len() > DIRECTORIES_MAX {
                return Err(WriteError::TooLarge {
                    what: "a tree of directories",
                    size: done.len() as u64,
                    size_max: DIRECTORIES_MAX as u64,
                });
            }
        }
        Ok(order)
    }

    async fn stored(&self, child: DirectoryDigest) -> Result<Arc<Directory>, WriteError> {
        match self.get(&child).await {
            Ok(Some(directory)) => Ok(directory),
            Ok(None) => Err(WriteError::Dangling { child }),
            Err(error) => {
                let code = error.code();
                let action = format!("cannot {PUT}");
                Err(WriteError::Backend(BackendError::new(
                    &self.name, code, action, error,
                )))
            }
        }
    }
}

#[async_trait]
impl DirectoryStore for GrpcDirectoryStore {
    async fn get(&self, digest: &DirectoryDigest) -> Result<Option<Arc<Directory>>, ReadDirectoryError> {
        if *digest == DirectoryDigest::of(b"") {
            return Ok(Some(Arc::new(Directory::new())));
        }
        match self
            .cache
            .directories
            .get_or_insert_async(digest, self.fetch(digest))
            .await
        {
            Ok(directory) => Ok(Some(directory)),
            Err(FetchError::Absent) => Ok(None),
            Err(FetchError::Read(error)) => Err(error),
        }
    }

    async fn put(&self, directories: Vec<Directory>) -> Result<(), WriteError> {
        if directories.is_empty() {
            return Ok(());
        }
        if self.peer.is_igloo() {
            match self.put_batches(&directories).await {
                Err(status) if self.peer.lacks(&status) => {}
                Err(status) => return Err(write_error(&self.name, PUT, &status)),
                Ok(()) => return Ok(()),
            }
        }
        self.put_trees(directories).await
    }

    /// A peer without `ContentService` stores durably before it answers each put.
    async fn sync(&self) -> Result<(), WriteError> {
        if !self.peer.is_igloo() {
            return Ok(());
        }
        match retrying(|| async { self.igloo.clone().sync(igloo::SyncRequest {}).await }).await {
            Err(status) if !self.peer.lacks(&status) => Err(write_error(&self.name, "sync", &status)),
            _ => Ok(()),
        }
    }
}

/// Absence is no entry of the cache.
enum FetchError {
    Absent,
    Read(ReadDirectoryError),
}

fn children(directory: &Directory) -> impl Iterator<Item = DirectoryDigest> + '_ {
    directory.entries().iter().filter_map(|(_, node)| match node {
        Node::Directory { digest, .. } => Some(*digest),
        Node::File { .. } | Node::Symlink { .. } => None,
    })
}

fn batches(directories: &[Directory]) -> Vec<igloo::PutDirectoriesRequest> {
    let mut messages = Vec::new();
    let mut message = igloo::PutDirectoriesRequest::default();
    let mut size = 0;
    for directory in directories {
        let bytes = (directory.len() + 1) * ENTRY_BYTES;
        if size + bytes > BATCH_BYTES && size > 0 {
            messages.push(std::mem::take(&mut message));
            size = 0;
        }
        size += bytes;
        message.directories.push(wire::Directory::from(directory));
    }
    messages.push(message);
    messages
}
