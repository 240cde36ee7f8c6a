//! Facts over the wire: `igloo.store.v1.FactService`.
//!
//! Invariants
//! - a client of a peer without the service remembers facts itself, and loses them with its process; nothing else changes;
//! - a server takes only kinds it knows, and rows within bounds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use igloo_castore::error::{BackendError, WriteError};
use igloo_castore::store::StoreName;
use igloo_protos::igloo::store::v1 as wire;
use igloo_protos::igloo::store::v1::fact_service_client::FactServiceClient;
use igloo_protos::igloo::store::v1::fact_service_server::{FactService, FactServiceServer};
use igloo_store::facts::{Fact, FactKind, FactStore, MemoryFactStore};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::connect::Connection;
use crate::limits::{
    BATCH_BYTES, BLOB_MESSAGE_BYTES_MAX, FACT_KEY_BYTES_MAX, FACT_VALUE_BYTES_MAX, FACTS_MAX,
};
use crate::status::{backend_error, refuse, refuse_write, retrying, write_error};

/// Facts of a peer.
#[derive(Debug)]
pub struct GrpcFactStore {
    name: StoreName,
    client: FactServiceClient<Channel>,
    /// Holds them where the peer cannot.
    own: MemoryFactStore,
    peer_lacks: AtomicBool,
}

impl GrpcFactStore {
    /// The facts behind a connection.
    pub fn new(connection: &Connection) -> Self {
        let client = FactServiceClient::new(connection.channel());
        Self {
            name: StoreName::from(connection.url()),
            client: client.max_decoding_message_size(BLOB_MESSAGE_BYTES_MAX),
            own: MemoryFactStore::new(),
            peer_lacks: AtomicBool::new(false),
        }
    }

    /// Whether this answer says that the peer has no such service; that is remembered.
    fn lacks(&self, status: &Status) -> bool {
        let lacks = status.code() == tonic::Code::Unimplemented;
        if lacks {
            self.peer_lacks.store(true, Ordering::Relaxed);
        }
        lacks
    }

    async fn put_batch(&self, facts: Vec<wire::Fact>) -> Result<(), Status> {
        let request = wire::PutFactsRequest { facts };
        let call = || async { self.client.clone().put_facts(request.clone()).await };
        retrying(call).await.map(|_| ())
    }
}

#[async_trait]
impl FactStore for GrpcFactStore {
    async fn get(&self, kind: FactKind, key: &[u8]) -> Result<Option<Bytes>, BackendError> {
        if self.peer_lacks.load(Ordering::Relaxed) {
            return self.own.get(kind, key).await;
        }
        let request = wire::GetFactRequest {
            kind: number(kind).into(),
            key: Bytes::copy_from_slice(key),
        };
        let call = || async { self.client.clone().get_fact(request.clone()).await };
        match retrying(call).await {
            Ok(response) => Ok(response.into_inner().value),
            Err(status) if self.lacks(&status) => self.own.get(kind, key).await,
            Err(status) => Err(backend_error(
                &self.name,
                "read what is known of the path",
                &status,
            )),
        }
    }

    /// In batches of about [`BATCH_BYTES`], each of them all or nothing.
    async fn put(&self, facts: Vec<Fact>) -> Result<(), WriteError> {
        if self.peer_lacks.load(Ordering::Relaxed) {
            return self.own.put(facts).await;
        }
        for batch in batches(&facts) {
            match self.put_batch(batch).await {
                Ok(()) => {}
                Err(status) if self.lacks(&status) => return self.own.put(facts).await,
                Err(status) => return Err(write_error(&self.name, "keep what is known of paths", &status)),
            }
        }
        Ok(())
    }
}

fn batches(facts: &[Fact]) -> Vec<Vec<wire::Fact>> {
    let mut batches: Vec<Vec<wire::Fact>> = Vec::new();
    let mut bytes = usize::MAX;
    for (kind, key, value) in facts {
        let size = key.len() + value.len();
        let full = batches.last().is_none_or(|batch| batch.len() >= FACTS_MAX);
        if full || bytes.saturating_add(size) > BATCH_BYTES {
            batches.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        let fact = wire::Fact {
            kind: number(*kind).into(),
            key: key.clone(),
            value: value.clone(),
        };
        if let Some(batch) = batches.last_mut() {
            batch.push(fact);
        }
    }
    batches
}

/// Serves the facts of a store.
#[derive(Debug)]
pub(crate) struct FactServer(Arc<dyn FactStore>);

impl FactServer {
    pub(crate) fn service(facts: Arc<dyn FactStore>) -> FactServiceServer<Self> {
        FactServiceServer::new(Self(facts)).max_decoding_message_size(BLOB_MESSAGE_BYTES_MAX)
    }
}

#[tonic::async_trait]
impl FactService for FactServer {
    async fn get_fact(
        &self,
        request: Request<wire::GetFactRequest>,
    ) -> Result<Response<wire::GetFactResponse>, Status> {
        let request = request.into_inner();
        let kind = known(request.kind())?;
        bounded("a fact's key", &request.key, FACT_KEY_BYTES_MAX)?;
        let value = self.0.get(kind, &request.key).await;
        let value = value.map_err(|error| refuse(error.code(), &error))?;
        Ok(Response::new(wire::GetFactResponse { value }))
    }

    async fn put_facts(
        &self,
        request: Request<wire::PutFactsRequest>,
    ) -> Result<Response<wire::PutFactsResponse>, Status> {
        let facts = request.into_inner().facts;
        if facts.len() > FACTS_MAX {
            let message = format!("one call sets at most {FACTS_MAX} facts");
            return Err(Status::resource_exhausted(message));
        }
        let facts: Result<Vec<Fact>, Status> = facts.into_iter().map(read).collect();
        let put = self.0.put(facts?).await;
        put.map_err(|error| refuse_write(&error))?;
        Ok(Response::new(wire::PutFactsResponse {}))
    }
}

fn read(fact: wire::Fact) -> Result<Fact, Status> {
    let kind = known(fact.kind())?;
    bounded("a fact's key", &fact.key, FACT_KEY_BYTES_MAX)?;
    bounded("a fact", &fact.value, FACT_VALUE_BYTES_MAX)?;
    Ok((kind, fact.key, fact.value))
}

fn bounded(what: &str, bytes: &Bytes, bytes_max: usize) -> Result<(), Status> {
    if bytes.len() > bytes_max {
        let message = format!("{what} of {} bytes; at most {bytes_max} are taken", bytes.len());
        return Err(Status::invalid_argument(message));
    }
    Ok(())
}

fn number(kind: FactKind) -> wire::FactKind {
    match kind {
        FactKind::Realisation => wire::FactKind::Realisation,
        FactKind::Provenance => wire::FactKind::Provenance,
    }
}

fn known(kind: wire::FactKind) -> Result<FactKind, Status> {
    match kind {
        wire::FactKind::Realisation => Ok(FactKind::Realisation),
        wire::FactKind::Provenance => Ok(FactKind::Provenance),
        wire::FactKind::Unspecified => Err(Status::invalid_argument(
            "a fact of a kind that is not known here",
        )),
    }
}
