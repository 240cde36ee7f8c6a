//! Build requests on the wire: cut into parts of bounded size, and put together again.
//!
//! Invariants
//! - a part that [`request_parts`] makes has at most [`PART_BYTES`] bytes of lists and contents; only the header, whose
//!   arguments, environment and paths `BuildRequest::check` bounds, may be larger;
//! - [`RequestReader`] holds no more than a checked request may have, and gives out checked requests only;
//! - the header says how much follows, so half a request is never run.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use igloo_build::lease::Lease;
use igloo_build::path::RelativePath;
use igloo_build::request::{
    ADDITIONAL_FILES_SIZE_MAX, BuildRequest, Constraints, INPUTS_MAX, Limits, NEEDLES_MAX, OUTPUTS_MAX,
};
use igloo_castore::node::{Node, NodeName};

use crate::castore::{named, named_entry};
use crate::error::{InField, WireError, WireReason, ascending, printable};
use crate::igloo::build::v1;
use crate::lease::{lease_message, read_lease};
use v1::build_request_part::Part;

/// Bytes of lists and contents in one part.
pub const PART_BYTES: usize = 256 << 10;
/// Largest message of a request, bytes: a header of the most arguments, environment and output paths there may be.
pub const REQUEST_MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Most scratch paths, features and input stores: as many as outputs.
const NAMES_MAX: usize = OUTPUTS_MAX;
/// Most additional files.
const FILES_MAX: usize = 1 << 16;
/// What an item of a list takes beside its contents, bytes; an estimate.
const ITEM_BYTES: usize = 64;

/// Where a builder finds the inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InputSource {
    /// A store that the builder knows under this URL.
    Url(String),
    /// The caller itself, over the tunnel of that token.
    Tunnel(TunnelToken),
}

/// Names a tunnel; as good as a key to the caller's store, so it is random and never shown.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TunnelToken([u8; 32]);

impl TunnelToken {
    /// The token with these bytes, which must be random.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Reads a token.
    ///
    /// # Errors
    /// Not 32 bytes.
    pub fn read(bytes: &[u8]) -> Result<Self, WireError> {
        let form = WireReason::Form {
            expected: "a token of 32 bytes",
        };
        Ok(Self(bytes.try_into().map_err(|_| form).field("tunnel")?))
    }

    /// Writes the token.
    pub fn to_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }
}

impl std::fmt::Debug for TunnelToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TunnelToken")
    }
}

/// How a build is asked for, beside what is built.
#[derive(Clone, Copy, Debug, Default)]
pub struct Call<'a> {
    /// Where the inputs are, the caller's first choice first.
    pub sources: &'a [InputSource],
    /// Under which lease, if any.
    pub lease: Option<&'a Lease>,
    /// The URL of the store that outputs go to, if the builder knows it.
    pub output_store: Option<&'a str>,
}

/// Cuts a request into the parts in which it is sent.
pub fn request_parts(
    request: BuildRequest,
    call: &Call<'_>,
) -> impl Iterator<Item = v1::BuildRequestPart> + Send + use<> {
    let header = Part::Header(header(&request, call));
    let inputs = request
        .inputs
        .into_iter()
        .map(|(name, node)| named_entry(&name, &node));
    let inputs =
        batches(inputs.collect(), |_| ITEM_BYTES * 2).map(|entries| Part::Inputs(v1::Inputs { entries }));
    let files = request.additional_files.into_iter().flat_map(|(path, contents)| {
        pieces(contents).map(move |contents| {
            Part::File(v1::AdditionalFile {
                path: path_bytes(&path),
                contents,
            })
        })
    });
    let needles =
        batches(request.needles, |needle| needle.len()).map(|needles| Part::Needles(v1::Needles { needles }));
    std::iter::once(header)
        .chain(inputs)
        .chain(files)
        .chain(needles)
        .map(|part| v1::BuildRequestPart { part: Some(part) })
}

fn header(request: &BuildRequest, call: &Call<'_>) -> v1::BuildHeader {
    v1::BuildHeader {
        program: request.program.clone(),
        arguments: request.arguments.clone(),
        environment: request
            .environment
            .iter()
            .map(|(name, value)| v1::EnvironmentVariable {
                name: name.clone(),
                value: value.clone(),
            })
            .collect(),
        inputs_dir: path_bytes(&request.inputs_dir),
        working_dir: path_bytes(&request.working_dir),
        scratch_paths: request.scratch_paths.iter().map(path_bytes).collect(),
        outputs: request.outputs.iter().map(path_bytes).collect(),
        constraints: Some(v1::Constraints {
            system: request.constraints.system.clone(),
            memory_mib: request.constraints.memory_mib,
            cores: request.constraints.cores,
            network: request.constraints.network,
            features: request.constraints.features.iter().cloned().collect(),
        }),
        limits: Some(limits_message(&request.limits)),
        input_stores: input_stores(call.sources),
        inputs_count: request.inputs.len() as u64,
        files_count: request.additional_files.len() as u64,
        needles_count: request.needles.len() as u64,
        files_bytes: request
            .additional_files
            .values()
            .map(|contents| contents.len() as u64)
            .sum(),
        lease: call.lease.map(lease_message),
        output_store: call.output_store.unwrap_or_default().to_owned(),
    }
}

pub(crate) fn limits_message(limits: &Limits) -> v1::Limits {
    v1::Limits {
        wall_ms: limits.wall.map(millis),
        silence_ms: limits.silence.map(millis),
        log_bytes: limits.log_bytes,
        output_bytes: limits.output_bytes,
        processes: limits.processes,
        scratch_bytes: limits.scratch_bytes,
    }
}

/// Writes where the inputs are.
pub fn input_stores(sources: &[InputSource]) -> Vec<v1::InputStore> {
    sources.iter().map(input_store).collect()
}

fn input_store(source: &InputSource) -> v1::InputStore {
    let store = match source {
        InputSource::Url(url) => v1::input_store::Store::Url(url.clone()),
        InputSource::Tunnel(token) => v1::input_store::Store::Tunnel(token.to_bytes()),
    };
    v1::InputStore { store: Some(store) }
}

/// Rounded up, so that a limit is never made shorter; a limit of 2^64 ms is as good as none.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

pub(crate) fn path_bytes(path: &RelativePath) -> Bytes {
    Bytes::copy_from_slice(path.as_bytes())
}

/// Groups of items of at most about [`PART_BYTES`], none empty.
fn batches<T>(items: Vec<T>, bytes: impl Fn(&T) -> usize) -> impl Iterator<Item = Vec<T>> {
    let mut items = items.into_iter().peekable();
    std::iter::from_fn(move || {
        let mut batch = Vec::new();
        let mut size = 0;
        while size < PART_BYTES
            && let Some(item) = items.next()
        {
            size += ITEM_BYTES + bytes(&item);
            batch.push(item);
        }
        (!batch.is_empty()).then_some(batch)
    })
}

/// The contents in pieces; an empty file is one empty piece.
fn pieces(contents: Bytes) -> impl Iterator<Item = Bytes> {
    let starts = (0..contents.len().max(1)).step_by(PART_BYTES);
    starts.map(move |start| contents.slice(start..contents.len().min(start + PART_BYTES)))
}

/// A request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedRequest {
    /// What is to be built; checked.
    pub request: BuildRequest,
    /// Where its inputs are.
    pub sources: Vec<InputSource>,
    /// Under which lease, if any.
    pub lease: Option<Lease>,
    /// The URL of the store that outputs go to, if the builder knows it.
    pub output_store: Option<String>,
}

/// Puts a request together again.
#[derive(Debug)]
pub struct RequestReader {
    lease: Option<Lease>,
    output_store: Option<String>,
    request: BuildRequest,
    sources: Vec<InputSource>,
    inputs: usize,
    files: usize,
    needles: usize,
    files_bytes: usize,
    taken_bytes: usize,
    open_file: Option<(RelativePath, BytesMut)>,
}

impl RequestReader {
    /// Starts with the first part, which must be the header.
    ///
    /// # Errors
    /// Another part, or a field of the header that is wrong.
    pub fn new(first: v1::BuildRequestPart) -> Result<Self, WireError> {
        let Some(Part::Header(header)) = first.part else {
            return Err(form("part", "the header, in the first part"));
        };
        let inputs = announced(header.inputs_count, INPUTS_MAX, "inputs_count")?;
        let files = announced(header.files_count, FILES_MAX, "files_count")?;
        let needles = announced(header.needles_count, NEEDLES_MAX, "needles_count")?;
        let lease = header.lease.clone();
        Ok(Self {
            lease: lease.map(|lease| read_lease(Some(lease))).transpose()?,
            sources: read_sources(&header.input_stores)?,
            output_store: Some(header.output_store.clone()).filter(|url| !url.is_empty()),
            inputs,
            files,
            needles,
            files_bytes: announced(header.files_bytes, ADDITIONAL_FILES_SIZE_MAX, "files_bytes")?,
            taken_bytes: 0,
            open_file: None,
            request: read_header(header)?,
        })
    }

    /// Takes the next part.
    ///
    /// # Errors
    /// More than was announced, a list out of order, a field that is wrong.
    pub fn part(&mut self, part: v1::BuildRequestPart) -> Result<(), WireError> {
        match part.part.field("part")? {
            Part::Header(_) => Err(form("part", "no second header")),
            Part::Inputs(inputs) => inputs.entries.into_iter().try_for_each(|entry| {
                let (name, node) = named(entry)?;
                self.input(name, node)
            }),
            Part::File(file) => self.file(&file),
            Part::Needles(needles) => {
                at_most(
                    self.request.needles.len() + needles.needles.len(),
                    self.needles,
                    "needles",
                )?;
                self.request.needles.extend(needles.needles);
                Ok(())
            }
        }
    }

    fn input(&mut self, name: NodeName, node: Node) -> Result<(), WireError> {
        at_most(self.request.inputs.len() + 1, self.inputs, "inputs")?;
        if self
            .request
            .inputs
            .last_key_value()
            .is_some_and(|(last, _)| *last >= name)
        {
            return Err(order("inputs", name.as_bytes()));
        }
        self.request.inputs.insert(name, node);
        Ok(())
    }

    fn file(&mut self, file: &v1::AdditionalFile) -> Result<(), WireError> {
        let path = RelativePath::try_from(&file.path[..]).field("path")?;
        self.taken_bytes = self.taken_bytes.saturating_add(file.contents.len());
        at_most(self.taken_bytes, self.files_bytes, "contents")?;
        match &mut self.open_file {
            Some((open, contents)) if *open == path => {
                contents.extend_from_slice(&file.contents);
                return Ok(());
            }
            Some((open, _)) if *open > path => return Err(order("path", path.as_bytes())),
            _ => self.close_file(),
        }
        at_most(self.request.additional_files.len() + 1, self.files, "files")?;
        self.open_file = Some((path, BytesMut::from(&file.contents[..])));
        Ok(())
    }

    fn close_file(&mut self) {
        if let Some((path, contents)) = self.open_file.take() {
            self.request.additional_files.insert(path, contents.freeze());
        }
    }

    /// Ends the request.
    ///
    /// # Errors
    /// Less than was announced, or a request no builder can run.
    pub fn finish(mut self) -> Result<ReceivedRequest, WireError> {
        self.close_file();
        exactly(self.request.inputs.len(), self.inputs, "inputs")?;
        exactly(self.request.additional_files.len(), self.files, "files")?;
        exactly(self.request.needles.len(), self.needles, "needles")?;
        exactly(self.taken_bytes, self.files_bytes, "contents")?;
        self.request.check().field("request")?;
        Ok(ReceivedRequest {
            request: self.request,
            sources: self.sources,
            lease: self.lease,
            output_store: self.output_store,
        })
    }
}

fn read_header(header: v1::BuildHeader) -> Result<BuildRequest, WireError> {
    at_most(header.outputs.len(), OUTPUTS_MAX, "outputs")?;
    let scratch_paths = paths(&header.scratch_paths, "scratch_paths")?;
    ascending(&scratch_paths, "scratch_paths", ToString::to_string)?;
    Ok(BuildRequest {
        inputs: BTreeMap::new(),
        inputs_dir: path(&header.inputs_dir, "inputs_dir")?,
        program: header.program,
        arguments: header.arguments,
        environment: read_environment(header.environment)?,
        working_dir: path(&header.working_dir, "working_dir")?,
        scratch_paths: scratch_paths.into_iter().collect(),
        outputs: paths(&header.outputs, "outputs")?,
        additional_files: BTreeMap::new(),
        constraints: read_constraints(header.constraints.field("constraints")?)?,
        limits: header.limits.as_ref().map(read_limits).unwrap_or_default(),
        needles: Vec::new(),
    })
}

fn read_environment(variables: Vec<v1::EnvironmentVariable>) -> Result<BTreeMap<Bytes, Bytes>, WireError> {
    if let Some([_, late]) = variables.array_windows().find(|[a, b]| a.name >= b.name) {
        return Err(order("environment", &late.name));
    }
    Ok(variables
        .into_iter()
        .map(|variable| (variable.name, variable.value))
        .collect())
}

fn read_constraints(constraints: v1::Constraints) -> Result<Constraints, WireError> {
    at_most(constraints.features.len(), NAMES_MAX, "features")?;
    ascending(&constraints.features, "features", |feature| {
        printable(feature.as_bytes())
    })?;
    Ok(Constraints {
        system: constraints.system,
        memory_mib: constraints.memory_mib,
        cores: constraints.cores,
        network: constraints.network,
        features: BTreeSet::from_iter(constraints.features),
    })
}

pub(crate) fn read_limits(limits: &v1::Limits) -> Limits {
    Limits {
        wall: limits.wall_ms.map(Duration::from_millis),
        silence: limits.silence_ms.map(Duration::from_millis),
        log_bytes: limits.log_bytes,
        output_bytes: limits.output_bytes,
        processes: limits.processes,
        scratch_bytes: limits.scratch_bytes,
    }
}

pub(crate) fn read_sources(stores: &[v1::InputStore]) -> Result<Vec<InputSource>, WireError> {
    at_most(stores.len(), NAMES_MAX, "input_stores")?;
    stores.iter().map(read_source).collect()
}

fn read_source(store: &v1::InputStore) -> Result<InputSource, WireError> {
    Ok(match store.store.as_ref().field("input_stores")? {
        v1::input_store::Store::Url(url) => InputSource::Url(url.clone()),
        v1::input_store::Store::Tunnel(token) => InputSource::Tunnel(TunnelToken::read(token)?),
    })
}

pub(crate) fn path(bytes: &[u8], field: &'static str) -> Result<RelativePath, WireError> {
    RelativePath::try_from(bytes).field(field)
}

fn paths(list: &[Bytes], field: &'static str) -> Result<Vec<RelativePath>, WireError> {
    at_most(list.len(), NAMES_MAX, field)?;
    list.iter().map(|bytes| path(bytes, field)).collect()
}

/// Reads the paths of a build's outputs, which must be those of a request that could be run.
///
/// # Errors
/// None, too many, or one that is no path below the root.
pub fn read_attached(attached: &v1::Attached) -> Result<Vec<RelativePath>, WireError> {
    at_most(attached.outputs.len(), OUTPUTS_MAX, "outputs")?;
    let paths = paths(&attached.outputs, "outputs")?;
    if paths.is_empty() || paths.iter().any(RelativePath::is_root) {
        return Err(form("outputs", "at least one path below the root"));
    }
    Ok(paths)
}

fn announced(count: u64, max: usize, field: &'static str) -> Result<usize, WireError> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    at_most(count, max, field)?;
    Ok(count)
}

pub(crate) fn at_most(size: usize, max: usize, field: &'static str) -> Result<(), WireError> {
    if size <= max {
        Ok(())
    } else {
        Err(wrong_size(size, max, field))
    }
}

pub(crate) fn exactly(size: usize, expected: usize, field: &'static str) -> Result<(), WireError> {
    if size == expected {
        Ok(())
    } else {
        Err(wrong_size(size, expected, field))
    }
}

fn wrong_size(size: usize, expected: usize, field: &'static str) -> WireError {
    let (size, expected) = (size as u64, expected as u64);
    WireError {
        field,
        reason: WireReason::Size { size, expected },
    }
}

pub(crate) fn order(field: &'static str, item: &[u8]) -> WireError {
    WireError {
        field,
        reason: WireReason::Order {
            item: printable(item),
        },
    }
}

pub(crate) fn form(field: &'static str, expected: &'static str) -> WireError {
    WireError {
        field,
        reason: WireReason::Form { expected },
    }
}

#[cfg(test)]
mod tests;
