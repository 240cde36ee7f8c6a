//! Builders that are part of Nix instead of programs: `builtin:fetchurl`.
//!
//! Map: [`FetchUrl`] gets bytes, [`UrlFetch`] as evaluations do.
//!
//! [`BuiltinBuilder`] runs derivations of the system `builtin` in this process, without a machine. What it fetches is a fixed
//! output, so its content is checked as that of any other.
//!
//! Invariants
//! - it reads nothing of the host but what its [`FetchUrl`] fetches, and writes nothing but content;
//! - it knows no program: `builtin:buildenv` and `builtin:unpack-channel` are refused before they get here.
//!
//! Source: Nix 2.36 `libstore/builtins/fetchurl.cc`; messages recorded from 2.34.

mod fetch;

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use igloo_build::{
    BuildError, BuildEvent, BuildIo, BuildOutcome, BuildReport, BuildRequest, BuildStats, Builder,
};
use igloo_castore::export::TreeExport;
use igloo_castore::node::Node;
use igloo_castore::store::Castore;
use igloo_castore::tree::TreeEvent;
use igloo_status::Code;
use igloo_store::nar::tree_event;
use nix_compat::nar::NarParser;

use crate::json::Json;
use crate::request::STRUCTURED_FILE;

pub use fetch::UrlFetch;

/// The system of derivations that run here.
pub const SYSTEM: &str = "builtin";
/// What a builder that is no program begins with.
pub(crate) const PREFIX: &str = "builtin:";
/// Those that are done, without the prefix.
pub(crate) const DONE: &[&str] = &["fetchurl"];

/// Fetches what builtin builders ask for.
#[async_trait]
pub trait FetchUrl: std::fmt::Debug + Send + Sync {
    /// Puts the bytes at `url`, redirects followed, into `castore` as one file, unpacked where `packing` says so. Tries again
    /// where that can help.
    ///
    /// # Errors
    /// Whatever kept it from that, for people; the content need not be durable.
    async fn fetch(&self, url: &str, packing: Packing, castore: &Castore) -> Result<Node, FetchUrlError>;
}

/// How what is fetched is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Not at all: it is kept as it comes.
    None,
    /// With xz, and what is in it is wanted.
    Xz,
}

/// A URL that could not be fetched.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct FetchUrlError {
    /// What happened, naming the URL.
    pub message: String,
    /// The class of the failure.
    pub code: Code,
    /// Whether this host failed, and not the URL, its server, or the way there.
    pub is_of_host: bool,
}

impl FetchUrlError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        self.code
    }
}

/// Runs builtin builders.
#[derive(Clone, Debug)]
pub struct BuiltinBuilder {
    fetcher: Arc<dyn FetchUrl>,
}

impl BuiltinBuilder {
    /// One that fetches with `fetcher`.
    pub fn new(fetcher: Arc<dyn FetchUrl>) -> Self {
        Self { fetcher }
    }

    async fn run(&self, request: &BuildRequest, io: &mut BuildIo) -> Result<BuildStats, Failure> {
        let program = request.program.strip_prefix(PREFIX.as_bytes());
        if program != Some(b"fetchurl") {
            let program = String::from_utf8_lossy(&request.program);
            return Err(Failure::said(format!("unsupported builtin builder '{program}'")));
        }
        let wish = Wish::read(request)?;
        let fetched = self.fetcher.fetch(&wish.url, wish.packing(), &io.inputs).await;
        let node = fetched.map_err(|error| match error.is_of_host {
            true => Failure::Host(BuildError::Host {
                reason: error.to_string(),
                code: error.code,
                source: None,
            }),
            false => Failure::said(error.to_string()),
        })?;
        let Node::File { digest, size, .. } = node else {
            return Err(Failure::said(format!("'{}' is no file", wish.url)));
        };
        let node = Node::File {
            digest,
            size,
            executable: wish.executable,
        };
        let [output] = &request.outputs[..] else {
            return Err(Failure::said("'builtin:fetchurl' makes one output, 'out'".into()));
        };
        io.outputs.begin(output).await?;
        match wish.unpack {
            true => unpack(io, node, &wish.url).await?,
            false => copy(io, node).await?,
        }
        io.outputs.end().await?;
        Ok(BuildStats {
            output_bytes: size,
            machine: format!("this process ({PREFIX}fetchurl)"),
            ..BuildStats::default()
        })
    }
}

#[async_trait]
impl Builder for BuiltinBuilder {
    async fn build(&self, request: BuildRequest, mut io: BuildIo) -> Result<BuildReport, BuildError> {
        let started = Instant::now();
        let _ = io.events.send(BuildEvent::Started).await; // who does not listen misses it
        match self.run(&request, &mut io).await {
            Ok(stats) => Ok(BuildReport {
                outcome: BuildOutcome::Success,
                stats: BuildStats {
                    run: started.elapsed(),
                    total: started.elapsed(),
                    ..stats
                },
            }),
            Err(Failure::Said { message }) => {
                let bytes = Bytes::from(format!("error: {message}\n"));
                let stats = BuildStats {
                    log_bytes: bytes.len() as u64,
                    total: started.elapsed(),
                    ..BuildStats::default()
                };
                let _ = io.events.send(BuildEvent::Log { sequence: 0, bytes }).await;
                Ok(BuildReport {
                    outcome: BuildOutcome::ExitCode(1),
                    stats,
                })
            }
            Err(Failure::Host(error)) => Err(error),
        }
    }

    fn systems(&self) -> Vec<String> {
        vec![SYSTEM.to_owned()]
    }
}

/// How a builtin builder ends when it does not succeed.
enum Failure {
    /// It says why in its log, and exits with 1, as in Nix.
    Said { message: String },
    /// This host failed it.
    Host(BuildError),
}

impl Failure {
    fn said(message: String) -> Self {
        Self::Said { message }
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        Self::Host(error)
    }
}

/// What a derivation wants fetched.
struct Wish {
    url: String,
    executable: bool,
    unpack: bool,
}

impl Wish {
    fn read(request: &BuildRequest) -> Result<Self, Failure> {
        let structured = request
            .additional_files
            .iter()
            .find(|(path, _)| path.file_name() == Some(STRUCTURED_FILE.as_bytes()));
        let members = match structured.map(|(_, text)| Json::parse(text)) {
            None => None,
            Some(Ok(Json::Object(members))) => Some(members),
            Some(_) => return Err(Failure::said("its structured attributes are no object".into())),
        };
        let get = |name: &str| match &members {
            None => {
                let value = request.environment.get(name.as_bytes())?;
                Some(String::from_utf8_lossy(value).into_owned())
            }
            Some(members) => match members.get(name)? {
                Json::String(text) => Some(text.clone()),
                Json::Bool(value) => Some(if *value { "1" } else { "" }.to_owned()),
                _ => None,
            },
        };
        let url = get("url").ok_or_else(|| Failure::said("attribute 'url' missing".into()))?;
        Ok(Self {
            url,
            executable: get("executable").as_deref() == Some("1"),
            unpack: get("unpack").as_deref() == Some("1"),
        })
    }

    /// Only what is unpacked may be packed with xz, and its URL says so.
    fn packing(&self) -> Packing {
        match self.unpack && self.url.ends_with(".xz") {
            true => Packing::Xz,
            false => Packing::None,
        }
    }
}

async fn copy(io: &mut BuildIo, node: Node) -> Result<(), Failure> {
    let mut export = TreeExport::new(io.inputs.clone(), node);
    while let Some(event) = export.next().await.map_err(unreadable)? {
        io.outputs.event(event).await?;
    }
    Ok(())
}

/// What was just fetched cannot be read back.
fn unreadable(error: igloo_castore::export::ExportError) -> Failure {
    Failure::Host(BuildError::Host {
        reason: "what was fetched cannot be read back".to_owned(),
        code: error.code(),
        source: Some(Box::new(error)),
    })
}

/// Gives the tree in the NAR `node` to the output that was begun.
async fn unpack(io: &mut BuildIo, node: Node, url: &str) -> Result<(), Failure> {
    let wrong = |error: &dyn std::error::Error| Failure::said(format!("cannot unpack '{url}': {error}"));
    let mut parser = NarParser::new();
    let mut export = TreeExport::new(io.inputs.clone(), node);
    while let Some(event) = export.next().await.map_err(unreadable)? {
        let TreeEvent::FileData(bytes) = event else {
            continue; // the beginning of the file that is the archive
        };
        let mut input = &bytes[..];
        // an event borrows from the parser, so it is made the output's own before that waits
        while let Some(event) = parser
            .next(&mut input)
            .map_err(|error| wrong(&error))?
            .map(tree_event)
        {
            if let Some(event) = event.map_err(|error| wrong(&error))? {
                io.outputs.event(event).await?;
            }
        }
    }
    parser.finish().map_err(|error| wrong(&error))
}

#[cfg(test)]
mod tests;
