//! What is shown on stderr while builds run.
//!
//! Lines when something begins or ends; between them, on a terminal, one line that is written over and shows the
//! builds that run with their last log line. Log bytes are a stranger's: control characters never reach the terminal.
//!
//! Invariant: memory is bounded, [`TAIL_LINES`] lines of at most [`LINE_SIZE_MAX`] bytes for each running build.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write as _;
use std::time::{Duration, Instant};

use igloo_build::{BuildEvent, BuildStats};
use igloo_driver::realise::{RealiseEvent, RealiseEventKind};
use nix_compat::store_path::{StoreDir, StorePath};
use tokio::sync::mpsc;

/// Lines of log shown when a build fails; as many as Nix shows.
pub const TAIL_LINES: usize = 10;
/// Longest line kept, bytes.
const LINE_SIZE_MAX: usize = 1024;
/// How often the overwritten line is renewed.
const TICK: Duration = Duration::from_millis(200);
/// How often a silent story tells that it goes on, where there is no terminal.
const REMINDER: Duration = Duration::from_secs(30);

/// How much is told.
#[derive(Clone, Copy, Debug)]
pub struct ProgressOptions {
    /// Nothing but what callers print themselves.
    pub quiet: bool,
    /// Whether stderr is a terminal.
    pub terminal: bool,
    /// Every line of every log.
    pub logs: bool,
}

/// Shows events as they come; knows the last lines of every log.
#[derive(Debug)]
pub struct Progress {
    options: ProgressOptions,
    dir: StoreDir,
    total: usize,
    done: usize,
    running: BTreeMap<StorePath, Running>,
    tails: BTreeMap<StorePath, VecDeque<String>>,
    overwritten: bool,
    last_line: Instant,
}

#[derive(Debug)]
struct Running {
    since: Instant,
    partial: Vec<u8>,
    tail: VecDeque<String>,
}

impl Progress {
    /// Shows `total` builds.
    pub fn new(options: ProgressOptions, dir: StoreDir, total: usize) -> Self {
        Self {
            options,
            dir,
            total,
            done: 0,
            running: BTreeMap::new(),
            tails: BTreeMap::new(),
            overwritten: false,
            last_line: Instant::now(),
        }
    }

    /// Shows events until there are no more; gives itself back for what it knows of failed builds.
    pub async fn follow(mut self, mut events: mpsc::Receiver<RealiseEvent>) -> Self {
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.take(event),
                    None => break,
                },
                _ = tick.tick() => self.renew(),
            }
        }
        self.clear();
        self
    }

    /// The last lines of a failed build's log.
    pub fn tail(&self, drv_path: &StorePath) -> impl Iterator<Item = &str> {
        self.tails.get(drv_path).into_iter().flatten().map(String::as_str)
    }

    fn take(&mut self, event: RealiseEvent) {
        let path = event.drv_path;
        match event.kind {
            RealiseEventKind::Began => {
                let running = Running {
                    since: Instant::now(),
                    partial: Vec::new(),
                    tail: VecDeque::new(),
                };
                self.running.insert(path, running);
            }
            RealiseEventKind::Build(BuildEvent::Preparing { machine }) => {
                self.line(&format!("building '{}' ({machine})", self.dir.print(&path)));
            }
            RealiseEventKind::Build(BuildEvent::Log { bytes, .. }) => self.log(&path, &bytes),
            RealiseEventKind::Build(_) => {}
            RealiseEventKind::Registered { stats } => {
                self.running.remove(&path);
                self.done += 1;
                self.line(&format!("built '{}': {}", self.dir.print(&path), summary(&stats)));
            }
            RealiseEventKind::Failed { .. } => {
                if let Some(mut running) = self.running.remove(&path) {
                    if let Some(line) = running.end() {
                        running.keep(line);
                    }
                    self.tails.insert(path, running.tail);
                }
            }
        }
    }

    fn log(&mut self, path: &StorePath, bytes: &[u8]) {
        let Some(running) = self.running.get_mut(path) else {
            return;
        };
        let mut lines = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            running
                .partial
                .extend_from_slice(&part[..part.len().min(LINE_SIZE_MAX)]);
            if part.ends_with(b"\n") || running.partial.len() >= LINE_SIZE_MAX {
                lines.extend(running.end());
            }
        }
        for line in &lines {
            running.keep(line.clone());
        }
        if self.options.logs {
            for line in lines {
                self.line(&format!("{}> {line}", short(path)));
            }
        }
    }

    /// A line that stays.
    fn line(&mut self, text: &str) {
        if self.options.quiet {
            return;
        }
        self.clear();
        self.last_line = Instant::now();
        eprintln!("{text}");
    }

    fn renew(&mut self) {
        if self.options.quiet || self.running.is_empty() {
            return;
        }
        if self.options.terminal {
            self.overwrite();
        } else if self.last_line.elapsed() >= REMINDER {
            let running: Vec<String> = self
                .running
                .iter()
                .map(|(path, running)| running.describe(path))
                .collect();
            for text in running {
                self.line(&text);
            }
        }
    }

    fn overwrite(&mut self) {
        let running: Vec<String> = self
            .running
            .iter()
            .map(|(path, running)| running.describe(path))
            .collect();
        let text = format!("[{}/{}] {}", self.done, self.total, running.join(" | "));
        let width = 100; // what every terminal has; nothing is lost, the lines above tell the story
        let text: String = text.chars().take(width).collect();
        let mut err = std::io::stderr().lock();
        let _ = write!(err, "\r\x1b[K{text}"); // a terminal that is gone is no reason to stop
        let _ = err.flush();
        self.overwritten = true;
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.overwritten) {
            let _ = write!(std::io::stderr().lock(), "\r\x1b[K"); // as above
        }
    }
}

impl Running {
    /// The line that has ended, made safe to show; none when it is empty.
    fn end(&mut self) -> Option<String> {
        let line = printable(&std::mem::take(&mut self.partial));
        (!line.is_empty()).then_some(line)
    }

    fn keep(&mut self, line: String) {
        if self.tail.len() == TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }

    fn describe(&self, path: &StorePath) -> String {
        let last = self.tail.back().map_or("", String::as_str);
        format!("{} {} s: {last}", short(path), self.since.elapsed().as_secs())
    }
}

/// What a build used, for people.
pub fn summary(stats: &BuildStats) -> String {
    format!(
        "machine ready in {:.2} s, ran {:.2} s, {:.2} s in all; read {} in {} input files, wrote {}",
        stats.boot.as_secs_f64(),
        stats.run.as_secs_f64(),
        stats.total.as_secs_f64(),
        bytes_for_people(stats.input_bytes_read),
        stats.input_files_read,
        bytes_for_people(stats.output_bytes),
    )
}

/// `1.2 MB`
#[allow(clippy::cast_precision_loss, reason = "a figure for people")]
pub fn bytes_for_people(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

/// The name without hash and extension.
fn short(path: &StorePath) -> &str {
    let name = path.name().as_str();
    name.strip_suffix(".drv").unwrap_or(name)
}

/// Text without line ends and with every control character but tabs left out, colours included.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        if char == '\x1b' && chars.next_if_eq(&'[').is_some() {
            while chars.next_if(|char| !('@'..='~').contains(char)).is_some() {}
            chars.next();
        } else if char == '\t' || !char.is_control() {
            out.push(char);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_cannot_drive_the_terminal() {
        assert_eq!(
            printable(b"\x1b[31mred\x1b[0m \x1b]0;title\x07ok\r\n"),
            "red ]0;titleok"
        );
        assert_eq!(printable(b"a\tb\xff"), "a\tb\u{fffd}");
    }

    #[test]
    fn sizes_are_readable() {
        assert_eq!(bytes_for_people(999), "999 B");
        assert_eq!(bytes_for_people(1_500_000), "1.5 MB");
    }
}
