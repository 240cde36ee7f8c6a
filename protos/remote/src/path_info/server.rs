//! Serves `snix.store.v1.PathInfoService` and `igloo.store.v1.RegistryService` over any [`Store`].

use std::pin::Pin;

use futures::stream::{Stream, StreamExt};
use igloo_castore::node::Node;
use igloo_protos::WireError;
use igloo_protos::castore::root;
use igloo_protos::igloo::store::v1 as igloo;
use igloo_protos::igloo::store::v1::registry_service_server::{RegistryService, RegistryServiceServer};
use igloo_protos::path_info::path_digest;
use igloo_protos::snix::castore::v1::Entry;
use igloo_protos::snix::store::v1 as snix;
use igloo_protos::snix::store::v1::path_info_service_server::{PathInfoService, PathInfoServiceServer};
use igloo_store::path_info::{PathInfo, PathInfoStore, ReadPathInfoError, RegisterError};
use igloo_store::store::{CommitError, VerifyError};
use igloo_store::{Store, nar};
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status, Streaming};

use super::{PATH_KEY, REFERENCE_KEY};
use crate::limits::{BLOB_MESSAGE_BYTES_MAX, PATH_INFOS_MAX, REFERENCES_MAX};
use crate::status::{answer, refuse, refuse_write};

/// What a server checks of content before it registers a path for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// That its root is there: for clients that are trusted as much as the server's owner.
    Root,
    /// All of it: every byte is read and the NAR hash compared, about a second for each GB.
    Nar,
}

type Infos = Pin<Box<dyn Stream<Item = Result<snix::PathInfo, Status>> + Send>>;
type Found = Pin<Box<dyn Stream<Item = Result<igloo::GetManyResponse, Status>> + Send>>;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct PathInfoServer {
    store: Store,
    admission: Admission,
}

impl PathInfoServer {
    pub(crate) fn service(store: Store, admission: Admission) -> PathInfoServiceServer<Self> {
        PathInfoServiceServer::new(Self { store, admission })
            .max_decoding_message_size(BLOB_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(BLOB_MESSAGE_BYTES_MAX)
    }

    async fn register(&self, infos: Vec<PathInfo>) -> Result<(), Status> {
        for info in &infos {
            self.admit(info).await?;
        }
        self.store
            .register(infos)
            .await
            .map_err(|error| refuse_commit(&error))
    }

    async fn admit(&self, info: &PathInfo) -> Result<(), Status> {
        let castore = &self.store.castore;
        let (found, size) = match &info.node {
            Node::Symlink { .. } => (Some(0), 0),
            Node::Directory { digest, size } => {
                let directory = castore.directories.get(digest).await;
                let directory = directory.map_err(|error| refuse(error.code(), &error))?;
                (directory.map(|directory| directory.size()), *size)
            }
            Node::File { digest, size, .. } => {
                let stat = crate::castore::stat(&*castore.blobs, digest).await?;
                (stat.map(|stat| stat.size), *size)
            }
        };
        match found {
            Some(found) if found == size => {}
            Some(found) => {
                let message = format!("{} records size {size}, its content has {found}", info.path);
                return Err(Status::invalid_argument(message));
            }
            None => {
                let message = format!("the content of {} is not here; upload it first", info.path);
                return Err(Status::failed_precondition(message));
            }
        }
        if self.admission == Admission::Root {
            return Ok(());
        }
        self.store.verify(info).await.map_err(|error| match error {
            VerifyError::Mismatch { .. } => Status::invalid_argument(error.to_string()),
            VerifyError::Dump { .. } => refuse(error.code(), &error),
        })
    }

    async fn find(&self, digest: &[u8]) -> Result<Option<PathInfo>, Status> {
        let digest = path_digest(digest, "by_output_hash").map_err(|error| refuse(error.code(), &error))?;
        let info = self.store.path_infos.get_by_digest(&digest).await;
        info.map_err(|error| refuse(error.code(), &error))
    }
}

#[tonic::async_trait]
impl PathInfoService for PathInfoServer {
    type ListStream = Infos;

    async fn get(
        &self,
        request: Request<snix::GetPathInfoRequest>,
    ) -> Result<Response<snix::PathInfo>, Status> {
        let Some(snix::get_path_info_request::ByWhat::ByOutputHash(digest)) = request.into_inner().by_what
        else {
            return Err(Status::invalid_argument("the request names no path"));
        };
        let info = self.find(&digest).await?;
        let info = info.ok_or_else(|| Status::not_found("the path is not registered here"))?;
        message(&info).map(Response::new)
    }

    async fn put(&self, request: Request<snix::PathInfo>) -> Result<Response<snix::PathInfo>, Status> {
        let info = read(request.into_inner())?;
        let digest = *info.path.digest();
        self.register(vec![info]).await?;
        // what was there first stays, so the answer is what is there now
        let info = self.find(&digest).await?;
        let info = info.ok_or_else(|| Status::internal("the path was registered and is gone"))?;
        message(&info).map(Response::new)
    }

    async fn calculate_nar(
        &self,
        request: Request<Entry>,
    ) -> Result<Response<snix::CalculateNarResponse>, Status> {
        let node = root(request.into_inner()).map_err(|error| refuse_wire(&error))?;
        let digest = nar::nar_digest(&self.store.castore, &node).await;
        let digest = digest.map_err(|error| refuse(error.code(), &error))?;
        Ok(Response::new(snix::CalculateNarResponse {
            nar_size: digest.size,
            nar_sha256: bytes::Bytes::copy_from_slice(&digest.sha256),
        }))
    }

    async fn list(&self, _: Request<snix::ListPathInfoRequest>) -> Result<Response<Infos>, Status> {
        let path_infos = std::sync::Arc::clone(&self.store.path_infos);
        Ok(Response::new(listing(path_infos)))
    }
}

/// A stream that owns the store it lists.
fn listing(path_infos: std::sync::Arc<dyn PathInfoStore>) -> Infos {
    let (sender, receiver) = tokio::sync::mpsc::channel(64);
    let task = crate::task::OwnedTask::spawn(async move {
        let mut infos = path_infos.list();
        while let Some(info) = infos.next().await {
            let info: Result<PathInfo, ReadPathInfoError> = info;
            let info = info.map_err(|error| refuse(error.code(), &error));
            if sender.send(info.and_then(|info| message(&info))).await.is_err() {
                return;
            }
        }
    });
    Box::pin(futures::stream::unfold(
        (receiver, task),
        |(mut receiver, task)| async { Some((receiver.recv().await?, (receiver, task))) },
    ))
}

/// Serves batches over the same store.
#[derive(Debug)]
pub(crate) struct RegistryServer(PathInfoServer);

impl RegistryServer {
    pub(crate) fn service(store: Store, admission: Admission) -> RegistryServiceServer<Self> {
        RegistryServiceServer::new(Self(PathInfoServer { store, admission }))
            .max_decoding_message_size(BLOB_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(BLOB_MESSAGE_BYTES_MAX)
    }
}

#[tonic::async_trait]
impl RegistryService for RegistryServer {
    type GetManyStream = Found;

    async fn get_many(&self, request: Request<igloo::GetManyRequest>) -> Result<Response<Found>, Status> {
        let request = request.into_inner();
        let server = self.0.clone();
        let found = futures::stream::iter((0..).zip(request.digests)).filter_map(move |(index, digest)| {
            let server = server.clone();
            async move {
                let info = server.find(&digest).await.transpose()?;
                let info = info.and_then(|info| match request.without_infos {
                    true => Ok(None),
                    false => message(&info).map(Some),
                });
                Some(info.map(|info| igloo::GetManyResponse { index, info }))
            }
        });
        Ok(Response::new(Box::pin(found)))
    }

    async fn register(
        &self,
        request: Request<Streaming<igloo::RegisterRequest>>,
    ) -> Result<Response<igloo::RegisterResponse>, Status> {
        let mut stream = request.into_inner();
        let mut infos = Vec::new();
        let mut references = 0;
        while let Some(message) = answer(stream.message()).await? {
            for info in message.infos {
                references += info.references.len();
                if infos.len() >= PATH_INFOS_MAX || references > REFERENCES_MAX {
                    return Err(Status::resource_exhausted(format!(
                        "one call registers at most {PATH_INFOS_MAX} paths with {REFERENCES_MAX} references"
                    )));
                }
                infos.push(read(info)?);
            }
        }
        self.0.register(infos).await?;
        Ok(Response::new(igloo::RegisterResponse {}))
    }
}

fn read(message: snix::PathInfo) -> Result<PathInfo, Status> {
    PathInfo::try_from(message).map_err(|error| refuse_wire(&error))
}

fn message(info: &PathInfo) -> Result<snix::PathInfo, Status> {
    snix::PathInfo::try_from(info).map_err(|error| Status::internal(format!("{error}: {}", error.reason)))
}

fn refuse_wire(error: &WireError) -> Status {
    refuse(error.code(), error)
}

fn refuse_commit(error: &CommitError) -> Status {
    let register = match error {
        CommitError::Sync(error) => return refuse_write(error),
        CommitError::Register(error) => error,
    };
    let mut status = refuse(register.code(), register);
    if let RegisterError::Dangling { path, reference } = register {
        for (key, path) in [(PATH_KEY, path), (REFERENCE_KEY, reference)] {
            if let Ok(value) = MetadataValue::try_from(path.to_string()) {
                status.metadata_mut().insert(key, value);
            }
        }
    }
    status
}
