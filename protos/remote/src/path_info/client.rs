//! A peer's path infos.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use igloo_castore::error::BackendError;
use igloo_castore::store::StoreName;
use igloo_protos::WireError;
use igloo_protos::igloo::store::v1 as igloo;
use igloo_protos::igloo::store::v1::registry_service_client::RegistryServiceClient;
use igloo_protos::snix::store::v1 as snix;
use igloo_protos::snix::store::v1::path_info_service_client::PathInfoServiceClient;
use igloo_status::Code;
use igloo_store::path_info::{PathInfo, PathInfoStore, ReadPathInfoError, RegisterError};
use nix_compat::store_path::{DIGEST_LEN, StorePath};
use tonic::Status;
use tonic::transport::Channel;

use super::{PATH_KEY, REFERENCE_KEY};
use crate::castore::Peer;
use crate::connect::Connection;
use crate::limits::{BATCH_BYTES, BLOB_MESSAGE_BYTES_MAX};
use crate::status::{answer, backend_error, code, retrying};

const REGISTER: &str = "register the paths";
/// What a record takes in a message beside its references, bytes; an estimate.
const INFO_BYTES: usize = 512;
/// What a reference takes in a message, bytes; an estimate.
const REFERENCE_BYTES: usize = 96;

/// Path infos of a peer. Cheap to clone.
#[derive(Clone, Debug)]
pub struct GrpcPathInfoStore {
    name: StoreName,
    snix: PathInfoServiceClient<Channel>,
    igloo: RegistryServiceClient<Channel>,
    peer: Arc<Peer>,
}

impl GrpcPathInfoStore {
    /// The path infos behind a connection.
    pub fn new(connection: &Connection) -> Self {
        let snix = PathInfoServiceClient::new(connection.channel());
        let igloo = RegistryServiceClient::new(connection.channel());
        Self {
            name: StoreName::from(connection.url()),
            snix: snix.max_decoding_message_size(BLOB_MESSAGE_BYTES_MAX),
            igloo: igloo.max_decoding_message_size(BLOB_MESSAGE_BYTES_MAX),
            peer: Arc::default(),
        }
    }

    async fn register_at_once(&self, infos: &[snix::PathInfo]) -> Result<(), Status> {
        let messages = batches(infos);
        let call = || async { self.igloo.clone().register(stream::iter(messages.clone())).await };
        retrying(call).await.map(|_| ())
    }

    /// For peers without batches: one after the other, what is referred to first. A failure half way leaves the paths
    /// before it registered, each whole.
    async fn register_one_by_one(&self, infos: Vec<PathInfo>) -> Result<(), RegisterError> {
        let along: BTreeMap<_, _> = infos.into_iter().map(|info| (info.path.clone(), info)).collect();
        for info in by_references(&along) {
            for reference in info.references.iter().filter(|path| !along.contains_key(*path)) {
                if self.get(reference).await?.is_none() {
                    return Err(RegisterError::Dangling {
                        path: info.path.clone(),
                        reference: reference.clone(),
                    });
                }
            }
            let message = snix::PathInfo::try_from(info).map_err(|error| self.unspeakable(error))?;
            let call = || async { self.snix.clone().put(message.clone()).await };
            retrying(call).await.map_err(|status| self.refused(&status))?;
        }
        Ok(())
    }

    fn refused(&self, status: &Status) -> RegisterError {
        let path = |key| {
            let text = status.metadata().get(key)?.to_str().ok()?;
            StorePath::parse(text).ok()
        };
        match (path(PATH_KEY), path(REFERENCE_KEY)) {
            (Some(path), Some(reference)) => RegisterError::Dangling { path, reference },
            _ => RegisterError::Backend(backend_error(&self.name, REGISTER, status)),
        }
    }

    fn unspeakable(&self, error: WireError) -> RegisterError {
        let action = format!("cannot {REGISTER}");
        RegisterError::Backend(BackendError::new(&self.name, error.code(), action, error))
    }

    fn failed(&self, status: &Status) -> ReadPathInfoError {
        ReadPathInfoError::Backend(backend_error(&self.name, "read the record", status))
    }
}

#[async_trait]
impl PathInfoStore for GrpcPathInfoStore {
    async fn get_by_digest(&self, digest: &[u8; DIGEST_LEN]) -> Result<Option<PathInfo>, ReadPathInfoError> {
        let request = || snix::GetPathInfoRequest {
            by_what: Some(snix::get_path_info_request::ByWhat::ByOutputHash(
                Bytes::copy_from_slice(digest),
            )),
        };
        let message = match retrying(|| async { self.snix.clone().get(request()).await }).await {
            Ok(response) => response.into_inner(),
            Err(status) if code(&status) == Code::NotFound => return Ok(None),
            Err(status) => return Err(self.failed(&status)),
        };
        let info = read(message)?;
        if info.path.digest() != digest {
            return Err(ReadPathInfoError::Corrupt {
                path: info.path.to_string(),
                reason: format!("{} sent it when asked for another path", self.name),
            });
        }
        Ok(Some(info))
    }

    async fn register(&self, infos: Vec<PathInfo>) -> Result<(), RegisterError> {
        if infos.is_empty() {
            return Ok(());
        }
        if self.peer.is_igloo() {
            let messages: Result<Vec<_>, _> = infos.iter().map(snix::PathInfo::try_from).collect();
            let messages = messages.map_err(|error| self.unspeakable(error))?;
            match self.register_at_once(&messages).await {
                Err(status) if self.peer.lacks(&status) => {}
                Err(status) => return Err(self.refused(&status)),
                Ok(()) => return Ok(()),
            }
        }
        self.register_one_by_one(infos).await
    }

    fn list(&self) -> BoxStream<'_, Result<PathInfo, ReadPathInfoError>> {
        let open = async {
            let call = || async { self.snix.clone().list(snix::ListPathInfoRequest {}).await };
            let stream = retrying(call)
                .await
                .map_err(|status| self.failed(&status))?
                .into_inner();
            Ok::<_, ReadPathInfoError>(stream::try_unfold(stream, |mut stream| async {
                let message = answer(stream.message())
                    .await
                    .map_err(|status| self.failed(&status))?;
                let info = message.map(read).transpose()?;
                Ok(info.map(|info| (info, stream)))
            }))
        };
        stream::once(open).try_flatten().boxed()
    }
}

fn read(message: snix::PathInfo) -> Result<PathInfo, ReadPathInfoError> {
    let name = message
        .entry
        .clone()
        .and_then(|entry| igloo_protos::castore::named(entry).ok());
    PathInfo::try_from(message).map_err(|error| ReadPathInfoError::Corrupt {
        path: name.map_or_else(
            || "a path without a name".to_owned(),
            |(name, _)| name.to_string(),
        ),
        reason: format!("{error}: {}", error.reason),
    })
}

fn batches(infos: &[snix::PathInfo]) -> Vec<igloo::RegisterRequest> {
    let mut messages = Vec::new();
    let mut message = igloo::RegisterRequest::default();
    let mut size = 0;
    for info in infos {
        let bytes = INFO_BYTES + info.references.len() * REFERENCE_BYTES;
        if size + bytes > BATCH_BYTES && size > 0 {
            messages.push(std::mem::take(&mut message));
            size = 0;
        }
        size += bytes;
        message.infos.push(info.clone());
    }
    messages.push(message);
    messages
}

/// What is referred to before who refers to it; within a cycle, which no store makes, in any order.
fn by_references(infos: &BTreeMap<StorePath, PathInfo>) -> Vec<&PathInfo> {
    let mut seen = BTreeSet::new();
    let mut order = Vec::with_capacity(infos.len());
    for start in infos.keys() {
        let mut stack = vec![(start, false)];
        while let Some((path, references_done)) = stack.pop() {
            let Some(info) = infos.get(path) else { continue };
            if references_done {
                order.push(info);
            } else if seen.insert(path) {
                stack.push((path, true));
                stack.extend(info.references.iter().map(|reference| (reference, false)));
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use igloo_castore::digest::BlobDigest;
    use igloo_castore::node::Node;

    #[test]
    fn what_is_referred_to_comes_first() {
        let path =
            |digit: char| StorePath::parse(&format!("{}-{digit}", digit.to_string().repeat(32))).unwrap();
        let info = |digit, references: &str| PathInfo {
            path: path(digit),
            node: Node::File {
                digest: BlobDigest::of(b""),
                size: 0,
                executable: false,
            },
            nar_size: 0,
            nar_sha256: [0; 32],
            references: references.chars().map(path).collect(),
            deriver: None,
            signatures: Vec::new(),
            content_address: None,
        };
        let infos = [info('0', "0123"), info('1', "2"), info('2', "3"), info('3', "39")];
        let infos: BTreeMap<_, _> = infos.into_iter().map(|info| (info.path.clone(), info)).collect();
        let order: Vec<_> = by_references(&infos)
            .into_iter()
            .map(|info| info.path.clone())
            .collect();
        assert_eq!(order, ['3', '2', '1', '0'].map(path));
    }
}
