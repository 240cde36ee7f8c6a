//! Events, tree steps, reports and failures on the wire.
//!
//! Invariants
//! - texts of a builder are for people: [`text`] cuts them to [`TEXT_BYTES_MAX`] and drops control characters;
//! - a failure keeps its class: `BuildError::code` is the same on both ends.

use std::time::Duration;

use bytes::Bytes;
use igloo_build::event::BuildEvent;
use igloo_build::outcome::{BuildError, BuildOutcome, BuildReport, BuildStats};
use igloo_build::output::StoredOutput;
use igloo_build::path::RelativePath;
use igloo_build::request::NEEDLES_MAX;
use igloo_castore::node::{NodeName, SymlinkTarget};
use igloo_castore::tree::TreeEvent;
use igloo_status::Code;
use prost::Message as _;

use crate::build::{at_most, form, millis, path, path_bytes};
use crate::castore::{root, root_entry};
use crate::error::{InField, WireError, WireReason};
use crate::igloo::build::v1;
use crate::lease::{lease_failure, read_lease_failure};
use v1::build_event::Event;
use v1::failure::Failure as Kind;
use v1::outcome::Outcome as End;
use v1::tree_step::Step;

/// Longest text for people that is taken from a peer, bytes.
pub const TEXT_BYTES_MAX: usize = 4 << 10;

/// A text of a peer made fit to be shown: cut at [`TEXT_BYTES_MAX`], control characters escaped.
pub fn text(foreign: &str) -> String {
    let mut out = String::new();
    for character in foreign.chars() {
        if character.is_control() && character != '\n' {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
        if out.len() >= TEXT_BYTES_MAX {
            break;
        }
    }
    out
}

/// An event as bytes, for who keeps events.
pub fn encode_event(event: Event) -> Bytes {
    let event = Some(event);
    v1::BuildEvent { event }.encode_to_vec().into()
}

/// An event of [`encode_event`].
///
/// # Errors
/// Other bytes.
pub fn decode_event(bytes: Bytes) -> Result<Event, WireError> {
    let form = WireReason::Form {
        expected: "an event that was kept",
    };
    let message = v1::BuildEvent::decode(bytes).map_err(|_| form).field("event")?;
    message.event.field("event")
}

/// Writes a watcher's event.
pub fn event_message(event: BuildEvent) -> v1::BuildEvent {
    let event = match event {
        BuildEvent::Preparing { machine } => Event::Preparing(v1::Preparing { machine }),
        BuildEvent::Started => Event::Started(v1::Started {}),
        BuildEvent::Log { sequence, bytes } => Event::Log(v1::Log { sequence, bytes }),
        BuildEvent::Collecting => Event::Collecting(v1::Collecting {}),
    };
    v1::BuildEvent { event: Some(event) }
}

/// Reads a watcher's event; `None` for what a watcher is not told: outputs and ends, and what this igloo does not know.
pub fn read_event(event: Event) -> Option<BuildEvent> {
    Some(match event {
        Event::Preparing(preparing) => BuildEvent::Preparing {
            machine: text(&preparing.machine),
        },
        Event::Started(_) => BuildEvent::Started,
        Event::Log(log) => BuildEvent::Log {
            sequence: log.sequence,
            bytes: log.bytes,
        },
        Event::Collecting(_) => BuildEvent::Collecting,
        _ => return None,
    })
}

/// Writes a step through an output.
pub fn step_message(event: TreeEvent) -> v1::TreeStep {
    let text = |name: Option<NodeName>| {
        name.map(|name| Bytes::copy_from_slice(name.as_bytes()))
            .unwrap_or_default()
    };
    let step = match event {
        TreeEvent::DirectoryBegin { name } => Step::DirectoryBegin(v1::DirectoryBegin { name: text(name) }),
        TreeEvent::DirectoryEnd => Step::DirectoryEnd(v1::DirectoryEnd {}),
        TreeEvent::FileBegin {
            name,
            executable,
            size,
        } => Step::FileBegin(v1::FileBegin {
            name: text(name),
            executable,
            size,
        }),
        TreeEvent::FileData(bytes) => Step::FileData(bytes),
        TreeEvent::Symlink { name, target } => Step::Symlink(v1::Symlink {
            name: text(name),
            target: Bytes::copy_from_slice(target.as_bytes()),
        }),
    };
    v1::TreeStep { step: Some(step) }
}

/// Reads a step through an output. Whether the steps make a tree is for the sink to check.
///
/// # Errors
/// A name or target that no file system could hold, an empty piece of data.
pub fn read_step(step: v1::TreeStep) -> Result<TreeEvent, WireError> {
    Ok(match step.step.field("step")? {
        Step::DirectoryBegin(begin) => TreeEvent::DirectoryBegin {
            name: optional_name(begin.name)?,
        },
        Step::DirectoryEnd(_) => TreeEvent::DirectoryEnd,
        Step::FileBegin(begin) => TreeEvent::FileBegin {
            name: optional_name(begin.name)?,
            executable: begin.executable,
            size: begin.size,
        },
        Step::FileData(bytes) if bytes.is_empty() => return Err(form("file_data", "at least one byte")),
        Step::FileData(bytes) => TreeEvent::FileData(bytes),
        Step::Symlink(link) => TreeEvent::Symlink {
            name: optional_name(link.name)?,
            target: SymlinkTarget::try_from(link.target).field("target")?,
        },
    })
}

/// Writes that an output is in a store; `index` is its position in the request.
pub fn stored_message(index: u32, output: &StoredOutput) -> v1::OutputStored {
    v1::OutputStored {
        index,
        root: Some(root_entry(&output.node)),
        nar_size: output.nar_size,
        nar_sha256: Bytes::copy_from_slice(&output.nar_sha256),
        needles: output.needles.iter().map(|needle| *needle as u64).collect(),
    }
}

/// Reads that the output at `path` is in a store.
///
/// # Errors
/// A tree that is none, a hash of another length, needles out of order.
pub fn read_stored(stored: v1::OutputStored, path: RelativePath) -> Result<StoredOutput, WireError> {
    at_most(stored.needles.len(), NEEDLES_MAX, "needles")?;
    if !stored.needles.is_sorted_by(|a, b| a < b) {
        return Err(form("needles", "strictly ascending positions"));
    }
    let needles = stored.needles.iter().map(|needle| usize::try_from(*needle));
    Ok(StoredOutput {
        path,
        node: root(stored.root.field("root")?)?,
        nar_size: stored.nar_size,
        nar_sha256: stored.nar_sha256[..]
            .try_into()
            .map_err(|_| form("nar_sha256", "32 bytes"))?,
        needles: needles
            .collect::<Result<_, _>>()
            .map_err(|_| form("needles", "positions in the request"))?,
    })
}

fn optional_name(bytes: Bytes) -> Result<Option<NodeName>, WireError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    NodeName::try_from(bytes).field("name").map(Some)
}

impl From<BuildReport> for v1::Report {
    fn from(report: BuildReport) -> Self {
        Self {
            outcome: Some(v1::Outcome {
                outcome: Some(outcome_message(report.outcome)),
            }),
            stats: Some(stats_message(report.stats)),
        }
    }
}

fn outcome_message(outcome: BuildOutcome) -> End {
    match outcome {
        BuildOutcome::Success => End::Success(v1::Success {}),
        BuildOutcome::ExitCode(code) => End::ExitCode(u32::from(code)),
        BuildOutcome::Signal(signal) => End::Signal(u32::from(signal)),
        BuildOutcome::StartFailed { reason } => End::StartFailed(reason),
        BuildOutcome::Timeout { limit } => End::TimeoutMs(millis(limit)),
        BuildOutcome::Silence { limit } => End::SilenceMs(millis(limit)),
        BuildOutcome::LogLimit { limit_bytes } => End::LogLimitBytes(limit_bytes),
        BuildOutcome::OutputMissing { path } => End::OutputMissing(path_bytes(&path)),
        BuildOutcome::OutputInvalid { path, reason } => {
            End::OutputInvalid(v1::InvalidOutput { path, reason })
        }
        BuildOutcome::OutOfMemory => End::OutOfMemory(v1::OutOfMemory {}),
        BuildOutcome::DiskFull => End::DiskFull(v1::DiskFull {}),
    }
}

pub(crate) fn stats_message(stats: BuildStats) -> v1::Stats {
    let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    v1::Stats {
        boot_us: micros(stats.boot),
        run_us: micros(stats.run),
        total_us: micros(stats.total),
        log_bytes: stats.log_bytes,
        output_bytes: stats.output_bytes,
        input_bytes_read: stats.input_bytes_read,
        input_files_read: stats.input_files_read,
        machine: stats.machine,
    }
}

impl TryFrom<v1::Report> for BuildReport {
    type Error = WireError;

    fn try_from(report: v1::Report) -> Result<Self, WireError> {
        let outcome = report.outcome.field("outcome")?.outcome.field("outcome")?;
        Ok(Self {
            outcome: read_outcome(outcome)?,
            stats: report.stats.as_ref().map(read_stats).unwrap_or_default(),
        })
    }
}

fn read_outcome(outcome: End) -> Result<BuildOutcome, WireError> {
    Ok(match outcome {
        End::Success(_) => BuildOutcome::Success,
        End::ExitCode(code) => BuildOutcome::ExitCode(nonzero_byte(code, "exit_code")?),
        End::Signal(signal) => BuildOutcome::Signal(nonzero_byte(signal, "signal")?),
        End::StartFailed(reason) => BuildOutcome::StartFailed {
            reason: text(&reason),
        },
        End::TimeoutMs(limit) => BuildOutcome::Timeout {
            limit: Duration::from_millis(limit),
        },
        End::SilenceMs(limit) => BuildOutcome::Silence {
            limit: Duration::from_millis(limit),
        },
        End::LogLimitBytes(limit_bytes) => BuildOutcome::LogLimit { limit_bytes },
        End::OutputMissing(bytes) => BuildOutcome::OutputMissing {
            path: path(&bytes, "output_missing")?,
        },
        End::OutputInvalid(output) => BuildOutcome::OutputInvalid {
            path: text(&output.path),
            reason: text(&output.reason),
        },
        End::OutOfMemory(_) => BuildOutcome::OutOfMemory,
        End::DiskFull(_) => BuildOutcome::DiskFull,
    })
}

fn nonzero_byte(value: u32, field: &'static str) -> Result<u8, WireError> {
    let byte = u8::try_from(value).ok().filter(|byte| *byte != 0);
    let reason = WireReason::Range {
        value: u64::from(value),
    };
    byte.ok_or(reason).field(field)
}

pub(crate) fn read_stats(stats: &v1::Stats) -> BuildStats {
    BuildStats {
        boot: Duration::from_micros(stats.boot_us),
        run: Duration::from_micros(stats.run_us),
        total: Duration::from_micros(stats.total_us),
        log_bytes: stats.log_bytes,
        output_bytes: stats.output_bytes,
        input_bytes_read: stats.input_bytes_read,
        input_files_read: stats.input_files_read,
        machine: text(&stats.machine),
    }
}

impl From<&BuildError> for v1::Failure {
    fn from(error: &BuildError) -> Self {
        let kind = match error {
            BuildError::Request(error) => Kind::Request(error.to_string()),
            BuildError::Unsupported { reason } => Kind::Unsupported(reason.clone()),
            BuildError::Setup { what, hint } => Kind::Setup(v1::Setup {
                what: what.clone(),
                hint: hint.clone(),
            }),
            BuildError::Machine { reason, .. } => Kind::Machine(with_causes(reason, error)),
            BuildError::Protocol { reason } => Kind::Protocol(reason.clone()),
            BuildError::Lease(error) => Kind::Lease(lease_failure(error)),
            BuildError::Host { reason, .. } => Kind::Host(v1::Host {
                reason: with_causes(reason, error),
            }),
        };
        Self {
            failure: Some(kind),
            code: error.code().number(),
        }
    }
}

/// The reason and the causes below it, which do not travel as values.
fn with_causes(reason: &str, error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(reason.to_owned(), |text, cause| format!("{text}: {cause}"))
}

/// Reads a failure. One this igloo does not know is a failure of the machine, so it is never blamed on the build.
pub fn read_failure(failure: v1::Failure) -> BuildError {
    let machine = |reason: String| BuildError::Machine { reason, source: None };
    match failure.failure {
        None => machine("the builder failed in a way that this igloo does not know".into()),
        // the request passed the check on this side: what the builder finds wrong with it is the builder's limit
        Some(Kind::Request(reason) | Kind::Unsupported(reason)) => BuildError::Unsupported {
            reason: text(&reason),
        },
        Some(Kind::Setup(setup)) => BuildError::Setup {
            what: text(&setup.what),
            hint: text(&setup.hint),
        },
        Some(Kind::Machine(reason)) => machine(text(&reason)),
        Some(Kind::Protocol(reason)) => BuildError::Protocol {
            reason: text(&reason),
        },
        Some(Kind::Lease(failure)) => match read_lease_failure(failure) {
            Ok(error) => error.into(),
            Err(error) => BuildError::Protocol {
                reason: format!(
                    "the builder sent a failure of no lease: {error}: {}",
                    error.reason
                ),
            },
        },
        Some(Kind::Host(host)) => BuildError::Host {
            reason: text(&host.reason),
            code: Code::from_number(failure.code).unwrap_or(Code::Unknown),
            source: None,
        },
    }
}

#[cfg(test)]
mod tests;
