//! Serves `snix.castore.v1.DirectoryService` over any [`DirectoryStore`].
//!
//! Invariants
//! - a directory is stored only after every child of it, with the size the parent records;
//! - a tree of any size passes through in batches: what is kept of it is a digest and a size for each directory. A Put
//!   that is refused half way leaves directories that nothing refers to, which the collector removes.

use std::collections::{HashMap, HashSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;

use futures::stream::{self, Stream};
use igloo_castore::digest::DirectoryDigest;
use igloo_castore::directory::Directory;
use igloo_castore::error::{ReadDirectoryError, WriteError};
use igloo_castore::node::Node;
use igloo_castore::store::DirectoryStore;
use igloo_protos::castore::digest_bytes;
use igloo_protos::snix::castore::v1 as wire;
use igloo_protos::snix::castore::v1::directory_service_server::{DirectoryService, DirectoryServiceServer};
use tonic::{Request, Response, Status, Streaming};

use super::blob_server::read_digest;
use crate::limits::{DIRECTORIES_MAX, DIRECTORY_MESSAGE_BYTES_MAX};
use crate::status::{answer, refuse, refuse_write};

/// Entries put into the store at once.
const PUT_ENTRIES: usize = 16 << 10;

type DirectoryStream = Pin<Box<dyn Stream<Item = Result<wire::Directory, Status>> + Send>>;

/// See the module.
#[derive(Debug)]
pub(crate) struct DirectoryServer {
    directories: Arc<dyn DirectoryStore>,
}

impl DirectoryServer {
    pub(crate) fn service(directories: Arc<dyn DirectoryStore>) -> DirectoryServiceServer<Self> {
        DirectoryServiceServer::new(Self { directories })
            .max_decoding_message_size(DIRECTORY_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(DIRECTORY_MESSAGE_BYTES_MAX)
    }
}

#[tonic::async_trait]
impl DirectoryService for DirectoryServer {
    type GetStream = DirectoryStream;

    async fn get(
        &self,
        request: Request<wire::GetDirectoryRequest>,
    ) -> Result<Response<DirectoryStream>, Status> {
        let request = request.into_inner();
        let Some(wire::get_directory_request::ByWhat::Digest(digest)) = request.by_what else {
            return Err(Status::invalid_argument("the request names no directory"));
        };
        let digest = read_digest(&digest)?;
        let Some(root) = get(&*self.directories, &digest).await? else {
            if request.recursive {
                return Ok(Response::new(Box::pin(stream::empty())));
            }
            return Err(Status::not_found(format!("directory {digest} is not here")));
        };
        if request.recursive {
            return Ok(Response::new(closure(
                Arc::clone(&self.directories),
                digest,
                root,
            )));
        }
        let message = Ok(wire::Directory::from(&*root));
        Ok(Response::new(Box::pin(stream::iter([message]))))
    }

    async fn put(
        &self,
        request: Request<Streaming<wire::Directory>>,
    ) -> Result<Response<wire::PutDirectoryResponse>, Status> {
        let mut stream = request.into_inner();
        let mut intake = Intake::new(Arc::clone(&self.directories));
        while let Some(message) = answer(stream.message()).await? {
            let directory = Directory::try_from(message).map_err(|error| refuse(error.code(), &error))?;
            intake.take(directory).await?;
        }
        let root = intake.root()?;
        intake.finish().await?;
        Ok(Response::new(wire::PutDirectoryResponse {
            root_digest: digest_bytes(&root),
        }))
    }
}

/// The empty directory is everywhere, whatever the store behind says.
async fn get(
    directories: &dyn DirectoryStore,
    digest: &DirectoryDigest,
) -> Result<Option<Arc<Directory>>, Status> {
    if *digest == DirectoryDigest::of(b"") {
        return Ok(Some(Arc::new(Directory::new())));
    }
    let directory = directories.get(digest).await;
    directory.map_err(|error| refuse(error.code(), &error))
}

/// Root first, then breadth first, each directory once.
fn closure(
    directories: Arc<dyn DirectoryStore>,
    digest: DirectoryDigest,
    root: Arc<Directory>,
) -> DirectoryStream {
    let walk = Walk {
        directories,
        seen: HashSet::from([digest]),
        queue: VecDeque::new(),
        next: Some(root),
    };
    Box::pin(stream::try_unfold(walk, |mut walk| async {
        let next = walk.step().await?;
        Ok(next.map(|directory| (wire::Directory::from(&*directory), walk)))
    }))
}

struct Walk {
    directories: Arc<dyn DirectoryStore>,
    seen: HashSet<DirectoryDigest>,
    queue: VecDeque<DirectoryDigest>,
    next: Option<Arc<Directory>>,
}

impl Walk {
    async fn step(&mut self) -> Result<Option<Arc<Directory>>, Status> {
        let directory = match (self.next.take(), self.queue.pop_front()) {
            (Some(root), _) => root,
            (None, None) => return Ok(None),
            (None, Some(digest)) => get(&*self.directories, &digest).await?.ok_or_else(|| {
                let store = "this store".into();
                let error = ReadDirectoryError::Missing { digest, store };
                refuse(igloo_status::Code::DataLoss, &error)
            })?,
        };
        for (digest, _) in children(&directory) {
            if self.seen.insert(digest) {
                self.queue.push_back(digest);
            }
        }
        if self.seen.len() > DIRECTORIES_MAX {
            let message =
                format!("the tree has more than {DIRECTORIES_MAX} directories; ask for parts of it");
            return Err(Status::resource_exhausted(message));
        }
        Ok(Some(directory))
    }
}

fn children(directory: &Directory) -> impl Iterator<Item = (DirectoryDigest, u64)> + '_ {
    directory.entries().iter().filter_map(|(_, node)| match node {
        Node::Directory { digest, size } => Some((*digest, *size)),
        Node::File { .. } | Node::Symlink { .. } => None,
    })
}

/// Takes directories in, children before parents.
pub(crate) struct Intake {
    directories: Arc<dyn DirectoryStore>,
    /// Size of each directory taken, and whether one taken later refers to it.
    taken: HashMap<DirectoryDigest, (u64, bool)>,
    last: Option<DirectoryDigest>,
    unreferenced: usize,
    batch: Vec<Directory>,
    batch_entries: usize,
}

impl Intake {
    pub(crate) fn new(directories: Arc<dyn DirectoryStore>) -> Self {
        Self {
            directories,
            taken: HashMap::new(),
            last: None,
            unreferenced: 0,
            batch: Vec::new(),
            batch_entries: 0,
        }
    }

    /// Takes one. Its children must be in the store or have been taken, and have the sizes it says.
    pub(crate) async fn take(&mut self, directory: Directory) -> Result<(), Status> {
        for (child, size) in children(&directory) {
            self.child(child, size).await?;
        }
        let digest = directory.digest();
        self.last = Some(digest);
        if self.taken.contains_key(&digest) {
            return Ok(());
        }
        if self.taken.len() >= DIRECTORIES_MAX {
            let message =
                format!("more than {DIRECTORIES_MAX} directories in one call; put parts of the tree first");
            return Err(Status::resource_exhausted(message));
        }
        self.taken.insert(digest, (directory.size(), false));
        self.unreferenced += 1;
        self.batch_entries += directory.len() + 1;
        self.batch.push(directory);
        if self.batch_entries >= PUT_ENTRIES {
            self.flush().await?;
        }
        Ok(())
    }

    async fn child(&mut self, child: DirectoryDigest, recorded: u64) -> Result<(), Status> {
        let size = match self.taken.get_mut(&child) {
            Some((size, referenced)) => {
                if !*referenced {
                    *referenced = true;
                    self.unreferenced -= 1;
                }
                *size
            }
            None => match get(&*self.directories, &child).await? {
                Some(directory) => directory.size(),
                None => return Err(refuse_write(&WriteError::Dangling { child })),
            },
        };
        if size == recorded {
            return Ok(());
        }
        Err(refuse_write(&WriteError::Dangling { child }))
    }

    /// The root of the one tree that was taken.
    pub(crate) fn root(&self) -> Result<DirectoryDigest, Status> {
        match self.last {
            None => Err(Status::invalid_argument("no directory was sent")),
            Some(root)
                if self.unreferenced == 1
                    && self.taken.get(&root).is_some_and(|(_, referenced)| !referenced) =>
            {
                Ok(root)
            }
            Some(_) => Err(Status::invalid_argument(
                "the directories do not form one tree whose root comes last",
            )),
        }
    }

    /// Stores what was taken and is not stored yet.
    pub(crate) async fn finish(mut self) -> Result<(), Status> {
        self.flush().await
    }

    async fn flush(&mut self) -> Result<(), Status> {
        self.batch_entries = 0;
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() {
            return Ok(());
        }
        self.directories
            .put(batch)
            .await
            .map_err(|error| refuse_write(&error))
    }
}
