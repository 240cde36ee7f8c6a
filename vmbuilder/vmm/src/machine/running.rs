//! A machine that runs.

use std::process::ExitStatus;
use std::time::Duration;

use crate::channel::Channel;
use crate::process::{Process, ProcessId};
use crate::tail::Tail;

/// How long the emulator's last words may take after its end.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Lines of each stream shown.
const LINES_MAX: usize = 12;

/// How a kernel says that it ends for want of memory (out_of_memory() and dump_header(), linux/mm/oom_kill.c).
const OUT_OF_MEMORY: [&str; 2] = ["System is deadlocked on memory", "panic_on_oom"];

/// A running machine; dropping it kills it before `drop` returns.
#[derive(Debug)]
pub struct Running {
    process: Process,
    channel: Option<Channel>,
    tails: Tails,
}

/// What a machine says besides its channel.
#[derive(Clone, Debug)]
pub struct Tails {
    /// The guest's serial console.
    pub console: Tail,
    /// The emulator's error output.
    pub errors: Tail,
}

impl Running {
    /// Puts together what a driver started.
    pub fn new(process: Process, channel: Channel, tails: Tails) -> Self {
        Self {
            process,
            channel: Some(channel),
            tails,
        }
    }

    /// The stream to the agent; `None` when it was taken before.
    pub fn take_channel(&mut self) -> Option<Channel> {
        self.channel.take()
    }

    /// Who runs it.
    pub fn process_id(&self) -> ProcessId {
        self.process.id()
    }

    /// Waits for the machine's end.
    pub async fn wait(&mut self) -> std::io::Result<ExitStatus> {
        self.process.wait().await
    }

    /// Kills the machine and tells, for people, how it ended and what it said last.
    pub async fn autopsy(mut self) -> PostMortem {
        // a machine whose channel broke is often just about to say why
        let ended = tokio::time::timeout(LAST_WORDS, self.process.wait()).await;
        let mut words = match ended {
            Ok(Ok(status)) => format!("the emulator ended ({status})"),
            Ok(Err(error)) => format!("the emulator's end is unknown ({error})"),
            Err(_) => "the emulator was still running".to_owned(),
        };
        // killing fails only for a process that is gone
        let _ = self.process.kill();
        self.tails.errors.ended(LAST_WORDS).await;
        self.tails.console.ended(LAST_WORDS).await;
        let console = self.tails.console.last_lines(LINES_MAX);
        let errors = self.tails.errors.last_lines(LINES_MAX);
        for (name, lines) in [("emulator", &errors), ("console", &console)] {
            for line in lines {
                words.push_str(&format!("\n  {name}: {line}"));
            }
        }
        PostMortem {
            words,
            is_out_of_memory: console
                .iter()
                .any(|line| OUT_OF_MEMORY.iter().any(|sign| line.contains(sign))),
        }
    }
}

/// What is known of a machine that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostMortem {
    /// For people: how it ended and what it said last.
    pub words: String,
    /// The guest's kernel ended for want of memory, by its own account.
    pub is_out_of_memory: bool,
}
