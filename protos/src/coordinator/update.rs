//! What a watcher of a job hears, on the wire.
//!
//! Invariants
//! - an update of a kind that is not known is no error: a watcher loses only the show;
//! - texts of builders and stores are cut and cleaned ([`crate::event::text`]), those of expressions are not
//!   ([`crate::evaluate`]), and log bytes are raw.

use std::time::Duration;

use bytes::Bytes;
use igloo_build::BuildEvent;
use igloo_driver::job::{BuildEnded, FailureKind, FailureReport, Remaining, Update};

use crate::build::{at_most, millis};
use crate::error::{InField, WireError};
use crate::evaluate::{
    evaluate_report_message, goal_message, notice_message, read_code, read_evaluate_report, read_goal,
    read_notice, read_path,
};
use crate::event::{event_message, read_event, read_stats, stats_message, text};
use crate::igloo::build::v1 as build;
use crate::igloo::coordinator::v1;
use v1::build_ended::End;
use v1::failure::Kind;
use v1::job_event::Event;

/// Most causes of a failure.
const CAUSES_MAX: usize = 256;
/// Most lines of a log's end.
const TAIL_LINES_MAX: usize = 1 << 10;
/// Bytes of a log's end.
const TAIL_BYTES_MAX: usize = 1 << 20;

/// Writes an update.
pub fn update_message(update: Update) -> v1::JobEvent {
    let event = match update {
        Update::Notice(notice) => Event::Notice(notice_message(notice)),
        Update::Instantiated { count, drv } => Event::Instantiated(v1::Instantiated {
            count,
            drv: drv.to_string(),
        }),
        Update::Goal(goal) => Event::Goal(goal_message(goal)),
        Update::Evaluated(report) => Event::Evaluated(evaluate_report_message(&report)),
        Update::Remaining(remaining) => Event::Remaining(v1::Remaining {
            builds: remaining.builds,
            fetches: remaining.fetches,
            fetch_bytes: remaining.fetch_bytes,
        }),
        Update::FetchStarted {
            path,
            from,
            nar_size,
            download_size,
        } => Event::FetchStarted(v1::FetchStarted {
            path: path.to_string(),
            from: text(&from),
            nar_size,
            download_size,
        }),
        Update::FetchProgress { path, nar_bytes } => Event::FetchProgress(v1::FetchProgress {
            path: path.to_string(),
            nar_bytes,
        }),
        Update::FetchEnded { path, failure } => Event::FetchEnded(v1::FetchEnded {
            path: path.to_string(),
            failure: failure.as_deref().map(text),
        }),
        Update::BuildStarted {
            drv,
            attempt,
            builder,
            expected,
            for_evaluation,
        } => Event::BuildStarted(v1::BuildStarted {
            drv: drv.to_string(),
            attempt,
            builder: text(&builder),
            expected_ms: expected.map(millis),
            for_evaluation,
        }),
        Update::Build { drv, event } => Event::Build(v1::BuildUpdate {
            drv: drv.to_string(),
            event: Some(event_message(event)),
        }),
        Update::BuildEnded { drv, end } => Event::BuildEnded(v1::BuildEnded {
            drv: drv.to_string(),
            end: Some(end_message(end)),
        }),
    };
    v1::JobEvent { event: Some(event) }
}

/// The same update in messages of at most about `bytes_max` bytes of log.
pub fn update_messages(update: Update, bytes_max: usize) -> impl Iterator<Item = v1::JobEvent> {
    let (whole, log) = match update {
        Update::Build {
            drv,
            event: BuildEvent::Log { sequence, bytes },
        } => (None, Some((drv, sequence, bytes))),
        update => (Some(update_message(update)), None),
    };
    let pieces = log.into_iter().flat_map(move |(drv, sequence, bytes)| {
        let starts = (0..bytes.len()).step_by(bytes_max);
        starts.map(move |start| {
            let event = BuildEvent::Log {
                sequence: sequence + start as u64,
                bytes: bytes.slice(start..bytes.len().min(start + bytes_max)),
            };
            update_message(Update::Build {
                drv: drv.clone(),
                event,
            })
        })
    });
    whole.into_iter().chain(pieces)
}

fn end_message(end: BuildEnded) -> End {
    match end {
        BuildEnded::Registered(stats) => End::Registered(stats_message(*stats)),
        BuildEnded::Retried { reason } => End::Retried(text(&reason)),
        BuildEnded::Failed(failure) => End::Failed(failure_message(&failure)),
        BuildEnded::Cancelled => End::Cancelled(v1::Cancelled {}),
    }
}

/// Reads an update; `None` for a kind that is not known. The report and the end are no updates: they are of no kind that is
/// known here.
///
/// # Errors
/// A path that is none, a list over its bound.
pub fn read_update(event: Event) -> Result<Option<Update>, WireError> {
    Ok(Some(match event {
        Event::Notice(notice) => return Ok(read_notice(notice).ok().map(Update::Notice)),
        Event::Instantiated(instantiated) => Update::Instantiated {
            count: instantiated.count,
            drv: read_path(&instantiated.drv, "drv")?,
        },
        Event::Goal(goal) => Update::Goal(read_goal(goal)?),
        Event::Evaluated(report) => Update::Evaluated(read_evaluate_report(&report)),
        Event::Remaining(remaining) => Update::Remaining(Remaining {
            builds: remaining.builds,
            fetches: remaining.fetches,
            fetch_bytes: remaining.fetch_bytes,
        }),
        Event::FetchStarted(started) => Update::FetchStarted {
            path: read_path(&started.path, "path")?,
            from: text(&started.from),
            nar_size: started.nar_size,
            download_size: started.download_size,
        },
        Event::FetchProgress(progress) => Update::FetchProgress {
            path: read_path(&progress.path, "path")?,
            nar_bytes: progress.nar_bytes,
        },
        Event::FetchEnded(ended) => Update::FetchEnded {
            path: read_path(&ended.path, "path")?,
            failure: ended.failure.as_deref().map(text),
        },
        Event::BuildStarted(started) => Update::BuildStarted {
            drv: read_path(&started.drv, "drv")?,
            attempt: started.attempt,
            builder: text(&started.builder),
            expected: started.expected_ms.map(Duration::from_millis),
            for_evaluation: started.for_evaluation,
        },
        Event::Build(update) => return read_build(update),
        Event::BuildEnded(ended) => {
            let drv = read_path(&ended.drv, "drv")?;
            let Some(end) = ended.end else { return Ok(None) };
            Update::BuildEnded {
                drv,
                end: read_end(end)?,
            }
        }
        Event::Report(_) | Event::Finished(_) | Event::Failed(_) => return Ok(None),
    }))
}

fn read_build(update: v1::BuildUpdate) -> Result<Option<Update>, WireError> {
    let drv = read_path(&update.drv, "drv")?;
    let build::BuildEvent { event } = update.event.field("event")?;
    let event = event.and_then(read_event);
    Ok(event.map(|event| Update::Build { drv, event }))
}

fn read_end(end: End) -> Result<BuildEnded, WireError> {
    Ok(match end {
        End::Registered(stats) => BuildEnded::Registered(Box::new(read_stats(&stats))),
        End::Retried(reason) => BuildEnded::Retried {
            reason: text(&reason),
        },
        End::Failed(failure) => BuildEnded::Failed(Box::new(read_failure_report(failure)?)),
        End::Cancelled(_) => BuildEnded::Cancelled,
    })
}

/// Writes a failure. Of its log's end the last [`TAIL_BYTES_MAX`] bytes, in whole lines.
pub(super) fn failure_message(failure: &FailureReport) -> v1::Failure {
    let kind = match failure.kind {
        FailureKind::Build => Kind::Build,
        FailureKind::Timeout => Kind::Timeout,
        FailureKind::HashMismatch => Kind::HashMismatch,
        FailureKind::NotDeterministic => Kind::NotDeterministic,
        FailureKind::Output => Kind::Output,
        FailureKind::Unavailable => Kind::Unavailable,
        FailureKind::Infrastructure => Kind::Infrastructure,
    };
    let causes = failure.causes.iter().take(CAUSES_MAX);
    v1::Failure {
        path: failure.path.to_string(),
        kind: kind.into(),
        headline: text(&failure.headline),
        causes: causes.map(|cause| text(cause)).collect(),
        log_tail: last_lines(&failure.log_tail),
        code: failure.code.number(),
    }
}

fn last_lines(lines: &[Bytes]) -> Vec<Bytes> {
    let mut room = TAIL_BYTES_MAX;
    let fits = |line: &&Bytes| {
        let fits = line.len() <= room;
        room = room.saturating_sub(line.len());
        fits
    };
    let last = lines.iter().rev().take(TAIL_LINES_MAX).take_while(fits);
    let mut last: Vec<_> = last.cloned().collect();
    last.reverse();
    last
}

/// Reads a failure. A kind that is not known is igloo's own failure.
pub(super) fn read_failure_report(failure: v1::Failure) -> Result<FailureReport, WireError> {
    at_most(failure.causes.len(), CAUSES_MAX, "causes")?;
    at_most(failure.log_tail.len(), TAIL_LINES_MAX, "log_tail")?;
    let kind = match Kind::try_from(failure.kind) {
        Ok(Kind::Build) => FailureKind::Build,
        Ok(Kind::Timeout) => FailureKind::Timeout,
        Ok(Kind::HashMismatch) => FailureKind::HashMismatch,
        Ok(Kind::NotDeterministic) => FailureKind::NotDeterministic,
        Ok(Kind::Output) => FailureKind::Output,
        Ok(Kind::Unavailable) => FailureKind::Unavailable,
        Ok(Kind::Infrastructure | Kind::Unspecified) | Err(_) => FailureKind::Infrastructure,
    };
    Ok(FailureReport {
        path: read_path(&failure.path, "path")?,
        kind,
        headline: text(&failure.headline),
        causes: failure.causes.iter().map(|cause| text(cause)).collect(),
        log_tail: failure.log_tail,
        code: read_code(failure.code),
    })
}
