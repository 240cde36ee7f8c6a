//! `igloo repl` on a terminal: what is edited, completed, remembered and interrupted. The terminal is that of `script` (util-linux).

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// How long nothing may be heard before the test fails. Not a promise: it only keeps a hang from lasting.
const SILENCE_MAX: Duration = Duration::from_secs(120);

struct Terminal {
    child: Child,
    keys: ChildStdin,
    screen: Receiver<Vec<u8>>,
    /// What was written and not yet waited for.
    text: String,
}

impl Terminal {
    /// Starts a session with this home directory; `None` when there is no `script`.
    fn open(home: &Path) -> Option<Self> {
        let command = format!("exec {} repl", env!("CARGO_BIN_EXE_igloo"));
        let spawned = Command::new("script")
            .args(["-qec", &command, "/dev/null"])
            .env("NIX_REMOTE", "dummy://")
            .env("IGLOO_STORE", "memory:")
            .env("HOME", home)
            .env("TERM", "xterm")
            .env("NO_COLOR", "1")
            .env("SHELL", "/bin/sh")
            .env("XDG_STATE_HOME", home.join(".local/state"))
            .env_remove("IGLOO_REPL_HISTORY")
            .env_remove("NIX_PATH")
            .env_remove("NIX_CONFIG")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = match spawned {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            child => child.expect("script starts"),
        };
        let keys = child.stdin.take().expect("a pipe");
        let mut output = child.stdout.take().expect("a pipe");
        let (heard, screen) = channel();
        std::thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut part) {
                if heard.send(part[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        let mut terminal = Self {
            child,
            keys,
            screen,
            text: String::new(),
        };
        terminal.wait_for("Type :? for help.");
        terminal.wait_for("igloo> ");
        Some(terminal)
    }

    fn press(&mut self, keys: &str) {
        self.keys
            .write_all(keys.as_bytes())
            .expect("the terminal listens");
        self.keys.flush().expect("the terminal listens");
    }

    /// Waits until this is written, and forgets it with all before it.
    fn wait_for(&mut self, wanted: &str) {
        loop {
            if let Some(at) = self.text.find(wanted) {
                self.text.drain(..at + wanted.len());
                return;
            }
            match self.screen.recv_timeout(SILENCE_MAX) {
                Ok(part) => self.text.push_str(&String::from_utf8_lossy(&part)),
                Err(error) => panic!("waiting for {wanted:?}: {error}; on the screen: {:?}", self.text),
            }
        }
    }

    fn enter(&mut self, keys: &str, answer: &str) {
        self.press(&format!("{keys}\r"));
        self.wait_for(&format!("\n{answer}\r\n"));
        self.wait_for("igloo> ");
    }

    fn leave(mut self, keys: &str) {
        self.press(keys);
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "{status}");
    }
}

#[test]
fn a_terminal_edits_completes_remembers_and_interrupts() {
    let home = tempfile::tempdir().expect("a folder");
    let Some(mut terminal) = Terminal::open(home.path()) else {
        igloo_testkit::skip("there is no `script` (util-linux)");
        return;
    };
    terminal.enter("1 + 4\x7f2", "3");
    terminal.press("x = { alpha = 7; }\r");
    terminal.wait_for("igloo> ");
    terminal.press("x.al\t");
    terminal.wait_for("x.alpha");
    terminal.enter("", "7");
    terminal.enter("(1 +\r8)", "9");
    terminal.press("nonsense\x03");
    terminal.wait_for("igloo> ");
    // about as many calls as a machine makes in minutes
    let calls = "let go = n: if n == 0 then 0 else go (n - 1); in builtins.foldl' (a: b: a + go 1000) 0 (builtins.genList (x: x) 1000000)";
    terminal.press(&format!("builtins.trace \"begun\" ({calls})\r"));
    terminal.wait_for("trace: begun");
    terminal.press("\x03");
    terminal.wait_for("error: interrupted by the user");
    terminal.wait_for("igloo> ");
    terminal.enter("x.alpha + 35", "42");
    terminal.leave(":q\r");

    let mut terminal = Terminal::open(home.path()).expect("it was there before");
    // up twice: over `:q`
    terminal.enter("\x1b[A\x1b[A", "error: undefined variable 'x'");
    terminal.leave("\x04");
}
