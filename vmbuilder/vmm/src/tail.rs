//! The last words of a stream: what a console or an error output said before the end.
//!
//! Invariants
//! - the stream is always drained, so its writer never waits for us;
//! - at most [`TAIL_SIZE_MAX`] bytes are held, whatever the writer sends.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::watch;

/// Most bytes kept.
pub const TAIL_SIZE_MAX: usize = 64 << 10;
/// Most characters of one line shown.
const LINE_CHARS_MAX: usize = 300;

/// Keeps the end of a pipe's stream.
#[derive(Clone, Debug)]
pub struct Tail {
    bytes: Arc<Mutex<VecDeque<u8>>>,
    ended: watch::Receiver<bool>,
}

impl Tail {
    /// Starts to drain a pipe on the current runtime, until its writers are gone.
    ///
    /// # Errors
    /// When the descriptor is no pipe.
    pub fn follow(fd: OwnedFd) -> io::Result<Self> {
        let mut source = pipe::Receiver::from_owned_fd(fd)?;
        let bytes = Arc::new(Mutex::new(VecDeque::new()));
        let (end, ended) = watch::channel(false);
        let kept = Arc::clone(&bytes);
        tokio::spawn(async move {
            let mut buffer = vec![0; 4096];
            while let Ok(count @ 1..) = source.read(&mut buffer).await {
                keep(
                    &mut kept.lock().unwrap_or_else(PoisonError::into_inner),
                    &buffer[..count],
                );
            }
            // nobody left to hear it is fine
            let _ = end.send(true);
        });
        Ok(Self { bytes, ended })
    }

    /// The last lines so far, control characters made harmless.
    pub fn last_lines(&self, lines_max: usize) -> Vec<String> {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(bytes.make_contiguous());
        let mut lines: Vec<_> = text
            .lines()
            .rev()
            .map(clean)
            .filter(|line| !line.is_empty())
            .take(lines_max)
            .collect();
        lines.reverse();
        lines
    }

    /// Waits until the writers are gone, but not longer than `patience`.
    pub async fn ended(&self, patience: Duration) {
        let mut ended = self.ended.clone();
        // both failures mean: there will be no more
        let _ = tokio::time::timeout(patience, ended.wait_for(|ended| *ended)).await;
    }
}

fn keep(kept: &mut VecDeque<u8>, new: &[u8]) {
    kept.extend(new);
    let excess = kept.len().saturating_sub(TAIL_SIZE_MAX);
    kept.drain(..excess);
}

fn clean(line: &str) -> String {
    line.trim_end()
        .chars()
        .take(LINE_CHARS_MAX)
        .map(|char| if char.is_control() { '\u{fffd}' } else { char })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[tokio::test]
    async fn only_the_end_is_kept_and_shown_clean() {
        let (reader, mut writer) = io::pipe().unwrap();
        let tail = Tail::follow(reader.into()).unwrap();
        std::thread::spawn(move || {
            for _ in 0..1000 {
                writer.write_all(&[b'x'; 1000]).unwrap();
            }
            writer.write_all(b"\nfirst\r\n\n\x1b]0;evil\x07last").unwrap();
        });
        tail.ended(Duration::from_secs(10)).await;
        assert_eq!(tail.bytes.lock().unwrap().len(), TAIL_SIZE_MAX);
        assert_eq!(tail.last_lines(2), ["first", "\u{fffd}]0;evil\u{fffd}last"]);
        assert_eq!(tail.last_lines(9)[0].len(), LINE_CHARS_MAX);
    }
}
