//! What is shown on stderr while a job runs.
//!
//! Lines when something begins or ends; between them, on a terminal, a block of lines that is written over. Drawn here and not by
//! a crate, for two reasons: the block is a pure function that tests can read, and a log is a stranger's text.
//!
//! Map: [`model`] updates in, story lines out; [`block`] the model as lines; [`screen`] lines on a terminal; [`summary`] what is
//! told at the end; [`log`] lines and phases of logs; [`style`], [`figures`] text.
//!
//! Invariant: the terminal is written at most once each [`TICK`], whatever the builds do; updates never wait for it longer.

pub mod block;
pub mod figures;
pub mod log;
pub mod model;
pub mod screen;
pub mod style;
pub mod summary;
#[cfg(test)]
mod tests;

use std::io::Stderr;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use igloo_driver::job::Update;
use nix_compat::store_path::StoreDir;
use tokio::sync::mpsc;

use block::Size;
use model::{Logs, Model, Telling};
use screen::Screen;
use style::Line;

use crate::context::Context;

/// How often the terminal is written.
const TICK: Duration = Duration::from_millis(100);
/// Lines that wait for a tick at most.
const PENDING_MAX: usize = 512;
/// Size of a terminal that does not say it.
const USUAL_SIZE: Size = Size {
    columns: 80,
    rows: 24,
};

/// Shows updates as they come.
#[derive(Debug)]
pub struct Progress {
    model: Model,
    start: Instant,
    terminal: bool,
    colours: bool,
    pending: Vec<Line>,
}

impl Progress {
    /// For a command with this context.
    pub fn new(context: &Context, dir: StoreDir, logs: Logs, keeps_going: bool) -> Self {
        let telling = Telling {
            quiet: context.quiet,
            verbose: context.verbosity > 0,
            beginnings: !context.terminal || logs == Logs::Raw,
            failures: keeps_going,
            logs,
        };
        Self {
            model: Model::new(dir, telling),
            start: Instant::now(),
            terminal: context.terminal && !context.quiet,
            colours: context.colours,
            pending: Vec::new(),
        }
    }

    /// Shows updates until there are no more; gives back what it knows.
    ///
    /// Writes to the terminal, which may block: run it where that hurts nobody.
    pub async fn follow(mut self, mut updates: mpsc::Receiver<Update>) -> Model {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                update = updates.recv() => match update {
                    Some(update) => self.take(update),
                    None => break,
                },
                _ = tick.tick() => self.tick(),
            }
        }
        self.flush();
        screen().clear();
        self.model
    }

    fn take(&mut self, update: Update) {
        let lines = self.model.take(update, self.start.elapsed());
        self.pending.extend(lines);
        if self.pending.len() >= PENDING_MAX || (!self.terminal && !self.pending.is_empty()) {
            self.flush();
        }
    }

    fn tick(&mut self) {
        let lines = self.model.remind(self.start.elapsed());
        self.pending.extend(lines);
        self.flush();
    }

    fn flush(&mut self) {
        let story = std::mem::take(&mut self.pending);
        if !self.terminal {
            for line in story {
                tell(&line, self.colours);
            }
            return;
        }
        let size = size();
        let block = block::lines(&self.model, self.start.elapsed(), size);
        screen().update(&story, block, size, self.colours);
    }
}

/// Tells a line on stderr, above whatever is shown there.
pub fn tell(line: &Line, colours: bool) {
    let text = format!("{}\n", line.paint(colours));
    screen().above(text.as_bytes());
}

/// stderr for others who write to it: what they write goes above the block.
#[derive(Clone, Copy, Debug)]
pub struct AboveBlock;

impl std::io::Write for AboveBlock {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        screen().above(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The one screen of this process.
fn screen() -> MutexGuard<'static, Screen<Stderr>> {
    static SCREEN: LazyLock<Mutex<Screen<Stderr>>> =
        LazyLock::new(|| Mutex::new(Screen::new(std::io::stderr())));
    SCREEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The terminal's size now: it may change at any time.
fn size() -> Size {
    match terminal_size::terminal_size_of(std::io::stderr()) {
        Some((columns, rows)) if columns.0 > 0 && rows.0 > 0 => Size {
            columns: columns.0.into(),
            rows: rows.0.into(),
        },
        _ => USUAL_SIZE,
    }
}
