//! The evaluator service on the wire: events of a running evaluation, what it asks for, and the answers.
//!
//! Invariants
//! - a derivation that was read is the one its path names: its text has that path;
//! - derivations and printed values travel in pieces of at most [`EVENT_PIECE_BYTES`]; what a reader puts together is
//!   bounded by [`DERIVATION_BYTES_MAX`] and [`PRINTED_BYTES_MAX`].

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use igloo_evaluator::EvaluateEvent;
use igloo_store_io::{RealiseError, RealisedOutput, Wanted};
use nix_compat::derivation::{Derivation, derivation_name};
use nix_compat::store_path::{StoreDir, StorePath};

use crate::build::{at_most, form};
use crate::error::{InField, WireError, WireReason};
use crate::evaluate::{
    goal_message, names_message, notice_message, read_goal, read_name, read_names, read_notice, read_path,
};
use crate::event::text;
use crate::igloo::evaluator::v1;
use v1::evaluate_event::Event;

/// Bytes of a derivation or a printed value in one message.
pub const EVENT_PIECE_BYTES: usize = 256 << 10;
/// Largest message of an evaluation's answer, bytes: one notice, with its text as long as it may be.
pub const EVALUATE_EVENT_BYTES_MAX: usize = 8 << 20;
/// Largest derivation that is taken from a peer, bytes of its text.
pub const DERIVATION_BYTES_MAX: usize = 64 << 20;
/// Largest printed value that is taken from a peer, bytes.
pub const PRINTED_BYTES_MAX: usize = 1 << 30;
/// Most paths and derivations in one question, and outputs in one answer.
pub const REALISE_ITEMS_MAX: usize = 1 << 16;

/// Writes an event, in any number of messages.
///
/// # Errors
/// A derivation that has no text, which is none that was in a store.
pub fn event_messages(event: EvaluateEvent, dir: &StoreDir) -> Result<Vec<v1::EvaluateEvent>, WireError> {
    let events = match event {
        EvaluateEvent::Derivation { path, derivation } => {
            let aterm = derivation
                .to_aterm(dir)
                .map_err(|_| form("derivation", "one with paths"))?;
            let path = path.to_string();
            pieces(&aterm.into(), |text, more| {
                let path = path.clone();
                Event::Derivation(v1::DerivationPart { path, text, more })
            })
        }
        EvaluateEvent::Printed(bytes) => pieces(&bytes, |text, more| {
            Event::Printed(v1::PrintedPart { text, more })
        }),
        EvaluateEvent::Goal(goal) => vec![Event::Goal(goal_message(goal))],
        EvaluateEvent::Notice(notice) => vec![Event::Notice(notice_message(notice))],
    };
    let events = events.into_iter();
    Ok(events
        .map(|event| v1::EvaluateEvent { event: Some(event) })
        .collect())
}

/// The pieces of bytes, at least one; all but the last say that more follow.
fn pieces(bytes: &Bytes, piece: impl Fn(Bytes, bool) -> Event) -> Vec<Event> {
    let starts = (0..bytes.len().max(1)).step_by(EVENT_PIECE_BYTES);
    starts
        .map(|start| {
            let end = bytes.len().min(start + EVENT_PIECE_BYTES);
            piece(bytes.slice(start..end), end < bytes.len())
        })
        .collect()
}

/// Puts the events of an evaluation together again.
#[derive(Debug)]
pub struct EventReader {
    dir: StoreDir,
    open: Option<Open>,
}

/// What more pieces are to come of.
#[derive(Debug)]
enum Open {
    Derivation(StorePath, BytesMut),
    Printed(BytesMut),
}

impl EventReader {
    /// For an evaluator whose store has this directory.
    pub fn new(dir: StoreDir) -> Self {
        Self { dir, open: None }
    }

    /// Takes the next event that is none of the service's own; the event, when it is whole.
    ///
    /// # Errors
    /// Pieces out of order or over their bounds, a derivation that is not that of its path, a field that is wrong.
    pub fn event(&mut self, event: Event) -> Result<Option<EvaluateEvent>, WireError> {
        match (self.open.take(), event) {
            (open, Event::Derivation(part)) => self.derivation(open, &part),
            (open, Event::Printed(part)) => self.printed(open, part),
            (Some(_), _) => Err(form("more", "followed by what was announced")),
            (None, Event::Goal(goal)) => read_goal(goal).map(|goal| Some(EvaluateEvent::Goal(goal))),
            (None, Event::Notice(notice)) => {
                read_notice(notice).map(|notice| Some(EvaluateEvent::Notice(notice)))
            }
            (None, Event::Realise(_) | Event::Finished(_) | Event::Failed(_)) => {
                Err(form("event", "one that an evaluation tells"))
            }
        }
    }

    /// Whether nothing was begun that is not whole.
    pub fn is_whole(&self) -> bool {
        self.open.is_none()
    }

    fn derivation(
        &mut self,
        open: Option<Open>,
        part: &v1::DerivationPart,
    ) -> Result<Option<EvaluateEvent>, WireError> {
        let path = read_path(&part.path, "path")?;
        let mut text = match open {
            None => BytesMut::new(),
            Some(Open::Derivation(before, text)) if before == path => text,
            Some(_) => return Err(form("more", "followed by what was announced")),
        };
        at_most(text.len() + part.text.len(), DERIVATION_BYTES_MAX, "text")?;
        text.extend_from_slice(&part.text);
        if part.more {
            self.open = Some(Open::Derivation(path, text));
            return Ok(None);
        }
        let derivation = Arc::new(read_derivation(&self.dir, &path, &text)?);
        Ok(Some(EvaluateEvent::Derivation { path, derivation }))
    }

    fn printed(
        &mut self,
        open: Option<Open>,
        part: v1::PrintedPart,
    ) -> Result<Option<EvaluateEvent>, WireError> {
        let text = match open {
            None if !part.more => return Ok(Some(EvaluateEvent::Printed(part.text))),
            None => BytesMut::from(part.text),
            Some(Open::Printed(mut text)) => {
                at_most(text.len() + part.text.len(), PRINTED_BYTES_MAX, "text")?;
                text.extend_from_slice(&part.text);
                text
            }
            Some(_) => return Err(form("more", "followed by what was announced")),
        };
        if part.more {
            self.open = Some(Open::Printed(text));
            return Ok(None);
        }
        Ok(Some(EvaluateEvent::Printed(text.freeze())))
    }
}

fn read_derivation(dir: &StoreDir, path: &StorePath, text: &[u8]) -> Result<Derivation, WireError> {
    let wrong = || form("text", "the derivation of that path");
    let name = derivation_name(path).map_err(|_| wrong())?;
    let derivation = Derivation::parse(dir, &name, text).map_err(|_| wrong())?;
    let computed = derivation.store_path_of_text(dir, text).map_err(|_| wrong())?;
    if computed == *path {
        Ok(derivation)
    } else {
        Err(wrong())
    }
}

/// Writes a question.
pub fn realise_message(id: u64, wanted: &[Wanted]) -> v1::EvaluateEvent {
    let wanted = wanted.iter().map(|wanted| {
        let wanted = match wanted {
            Wanted::Path(path) => v1::wanted::Wanted::Path(path.to_string()),
            Wanted::Outputs { derivation, outputs } => v1::wanted::Wanted::Outputs(v1::WantedOutputs {
                drv: derivation.to_string(),
                outputs: names_message(outputs),
            }),
        };
        v1::Wanted { wanted: Some(wanted) }
    });
    let wanted = wanted.collect();
    v1::EvaluateEvent {
        event: Some(Event::Realise(v1::Realise { id, wanted })),
    }
}

/// Reads a question: its id, and what is wanted.
///
/// # Errors
/// Nothing or too much wanted, a path that is none, a kind that is not known.
pub fn read_realise(message: v1::Realise) -> Result<(u64, Vec<Wanted>), WireError> {
    let count = message.wanted.len();
    at_most(count, REALISE_ITEMS_MAX, "wanted")?;
    if count == 0 {
        return Err(form("wanted", "at least one thing"));
    }
    let wanted = message.wanted.into_iter().map(|wanted| {
        Ok(match wanted.wanted.field("wanted")? {
            v1::wanted::Wanted::Path(path) => Wanted::Path(read_path(&path, "path")?),
            v1::wanted::Wanted::Outputs(outputs) => Wanted::Outputs {
                derivation: read_path(&outputs.drv, "drv")?,
                outputs: match read_names(&outputs.outputs)? {
                    none if none.is_empty() => return Err(form("outputs", "at least one output")),
                    some => some,
                },
            },
        })
    });
    Ok((message.id, wanted.collect::<Result<_, WireError>>()?))
}

/// Writes the answer to a question.
pub fn realised_message(id: u64, answer: Result<Vec<RealisedOutput>, RealiseError>) -> v1::EvaluateInput {
    use v1::realised::Answer;
    let answer = match answer {
        Ok(outputs) => Answer::Outputs(v1::RealisedOutputs {
            outputs: outputs
                .iter()
                .map(|made| v1::RealisedOutput {
                    drv: made.derivation.to_string(),
                    output: made.output.to_string(),
                    path: made.path.to_string(),
                })
                .collect(),
        }),
        Err(error) => Answer::Failure(v1::RealiseFailure {
            failure: Some(failure_message(&error)),
        }),
    };
    let answer = Some(answer);
    v1::EvaluateInput {
        input: Some(v1::evaluate_input::Input::Realised(v1::Realised { id, answer })),
    }
}

fn failure_message(error: &RealiseError) -> v1::realise_failure::Failure {
    use v1::realise_failure::Failure;
    match error {
        RealiseError::Build {
            derivation,
            reason,
            exit,
        } => Failure::Build(v1::BuildFailure {
            drv: derivation.to_string(),
            reason: text(reason),
            exit: u32::from(*exit),
        }),
        RealiseError::Missing { path } => Failure::Missing(path.to_string()),
        RealiseError::Cancelled => Failure::Cancelled(v1::Cancelled {}),
        RealiseError::Unavailable { source } => Failure::Unavailable(text(&source.to_string())),
    }
}

/// An answer: the id of its question, and what became of that.
pub type Answered = (u64, Result<Vec<RealisedOutput>, RealiseError>);

/// Reads the answer to a question.
///
/// # Errors
/// Too many outputs, a path that is none, a kind that is not known.
pub fn read_realised(message: v1::Realised) -> Result<Answered, WireError> {
    use v1::realised::Answer;
    let outputs = match message.answer.field("answer")? {
        Answer::Outputs(outputs) => outputs.outputs,
        Answer::Failure(failure) => {
            let failure = read_failure(failure.failure.field("failure")?)?;
            return Ok((message.id, Err(failure)));
        }
    };
    at_most(outputs.len(), REALISE_ITEMS_MAX, "outputs")?;
    let outputs = outputs.iter().map(|made| {
        Ok(RealisedOutput {
            derivation: read_path(&made.drv, "drv")?,
            output: read_name(&made.output)?,
            path: read_path(&made.path, "path")?,
        })
    });
    Ok((message.id, Ok(outputs.collect::<Result<_, WireError>>()?)))
}

fn read_failure(failure: v1::realise_failure::Failure) -> Result<RealiseError, WireError> {
    use v1::realise_failure::Failure;
    Ok(match failure {
        Failure::Build(build) => RealiseError::Build {
            derivation: read_path(&build.drv, "drv")?,
            reason: text(&build.reason),
            exit: read_exit(build.exit)?,
        },
        Failure::Missing(path) => RealiseError::Missing {
            path: read_path(&path, "missing")?,
        },
        Failure::Cancelled(_) => RealiseError::Cancelled,
        Failure::Unavailable(reason) => RealiseError::Unavailable {
            source: text(&reason).into(),
        },
    })
}

fn read_exit(exit: u32) -> Result<u8, WireError> {
    let byte = u8::try_from(exit).ok().filter(|exit| *exit != 0);
    let reason = WireReason::Range {
        value: u64::from(exit),
    };
    byte.ok_or(reason).field("exit")
}

#[cfg(test)]
mod tests;
