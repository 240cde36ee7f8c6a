//! Harness for tests that run the `igloo` command as a user does.
//!
//! Invariants
//! - every test has a world of its own ([`World`]): home, store, runtime folder, all below one temporary folder;
//! - every command has a deadline; one that hangs is killed with everything it started, and the test fails saying so;
//! - nothing is retried.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a library for tests: a broken harness is a failed test"
)]

pub mod builders;
pub mod derivations;
pub mod mounts;
pub mod processes;
pub mod servers;
pub mod snapshots;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Longest any one command of a test may take.
pub const DEADLINE: Duration = Duration::from_secs(600);

/// A user's world for one test.
#[derive(Debug)]
pub struct World {
    dir: tempfile::TempDir,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit code; `None` when killed by a signal.
    pub code: Option<i32>,
    /// All of stdout.
    pub stdout: Vec<u8>,
    /// All of stderr, as text.
    pub stderr: String,
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// A fresh world.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("igloo-test-")
            .tempdir()
            .expect("a temporary folder");
        for name in ["home", "run", "work"] {
            std::fs::create_dir(dir.path().join(name)).expect("folders of the world");
        }
        Self { dir }
    }

    /// A place in the world.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The embedded store's folder.
    pub fn store_dir(&self) -> PathBuf {
        self.path("store")
    }

    /// `igloo` in this world, with the embedded store.
    pub fn igloo(&self) -> Command {
        let mut command = Command::new(igloo_binary());
        command.current_dir(self.path("work"));
        command
            .env("HOME", self.path("home"))
            .env("XDG_RUNTIME_DIR", self.path("run"));
        command
            .env_remove("XDG_DATA_HOME")
            .env("XDG_STATE_HOME", self.path("state"))
            .env_remove("XDG_CACHE_HOME");
        command.env("XDG_CACHE_HOME", shared_cache());
        command.env("IGLOO_STORE", format!("rocksdb://{}", self.store_dir().display()));
        command.env("IGLOO_IMAGE", image_dir());
        command.env("NO_COLOR", "1");
        for name in [
            "IGLOO_BUILDER",
            "IGLOO_COORDINATOR",
            "IGLOO_EVALUATOR",
            "IGLOO_CONFIG",
            "NIX_PATH",
            "XDG_CONFIG_HOME",
        ] {
            command.env_remove(name);
        }
        // a configuration of the user of this machine is none of a test's
        command.env("XDG_CONFIG_HOME", self.path("home/.config"));
        command.env("NIX_CONFIG", "substituters =");
        command
    }

    /// Runs `igloo` with these arguments to its end.
    pub fn run(&self, arguments: &[&str]) -> Ended {
        finish(self.igloo().args(arguments))
    }

    /// The same for a command that must succeed; returns stdout as text without the last newline.
    pub fn answer(&self, arguments: &[&str]) -> String {
        let ended = self.run(arguments);
        assert_eq!(ended.code, Some(0), "igloo {arguments:?}: {}", ended.stderr);
        String::from_utf8(ended.stdout)
            .expect("text")
            .trim_end()
            .to_string()
    }
}

impl World {
    /// Whether this machine can run builds; else the reason.
    pub fn can_build(&self) -> Result<(), String> {
        let ended = self.run(&["doctor", "--json"]);
        let findings: serde_json::Value =
            serde_json::from_slice(&ended.stdout).map_err(|error| error.to_string())?;
        let missing = findings
            .as_array()
            .into_iter()
            .flatten()
            .find(|finding| finding["state"] == "missing" && finding["subject"] != "FUSE");
        missing.map_or(Ok(()), |finding| {
            Err(format!("{}: {}", finding["subject"], finding["detail"]))
        })
    }
}

/// The command under test: built beside this test by the same cargo run.
pub fn igloo_binary() -> PathBuf {
    let test = std::env::current_exe().expect("path of the test");
    let release = test.parent().and_then(Path::parent).expect("a target folder");
    let igloo = release.join("igloo");
    assert!(
        igloo.is_file(),
        "{} is not built; run `cargo xtask test`",
        igloo.display()
    );
    igloo
}

/// Where `cargo xtask image` puts the guest image, unless `IGLOO_IMAGE` says otherwise.
pub fn image_dir() -> PathBuf {
    match std::env::var_os("IGLOO_IMAGE") {
        Some(dir) => dir.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/image/x86_64-linux"),
    }
}

/// What a machine can do is found out once for all tests.
fn shared_cache() -> PathBuf {
    let dir = std::env::temp_dir().join("igloo-test-cache");
    std::fs::create_dir_all(&dir).expect("a cache folder");
    dir
}

/// Runs a command to its end, or kills its process group at the deadline.
pub fn finish(command: &mut Command) -> Ended {
    finish_reading(command, Stdio::null())
}

/// [`finish`] for a command that reads from its stdin.
pub fn finish_reading(command: &mut Command, stdin: Stdio) -> Ended {
    let child = start_reading(command.stdout(Stdio::piped()).stderr(Stdio::piped()), stdin);
    let id = child.id();
    let (done, waiting) = std::sync::mpsc::channel();
    let waiter = std::thread::spawn(move || {
        let output = child.wait_with_output();
        let _ = done.send(()); // the other side is gone only if it has panicked
        output
    });
    if waiting.recv_timeout(DEADLINE).is_err() {
        kill_group(id);
        let output = waiter.join().expect("the waiter").expect("output");
        panic!(
            "{command:?} did not end in {DEADLINE:?}; stderr: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    ended(waiter.join().expect("the waiter").expect("output"))
}

/// Starts a command in a process group of its own.
pub fn start(command: &mut Command) -> Child {
    start_reading(command, Stdio::null())
}

fn start_reading(command: &mut Command, stdin: Stdio) -> Child {
    use std::os::unix::process::CommandExt as _;
    command
        .stdin(stdin)
        .process_group(0)
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Kills a started command and everything it started, as a crash would: no clean-up of its own.
pub fn kill_group(id: u32) {
    let status = Command::new("kill")
        .args(["-KILL", "--", &format!("-{id}")])
        .stderr(Stdio::null())
        .status();
    status.expect("kill can be started");
}

/// Waits until `condition` holds.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(
            start.elapsed() < DEADLINE,
            "{what} did not happen in {DEADLINE:?}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn ended(output: Output) -> Ended {
    Ended {
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// What a command used.
#[derive(Clone, Copy, Debug)]
pub struct Used {
    /// Most memory of its own at once, bytes: anonymous and file pages, but not memory shared with a machine's guest.
    pub peak_bytes: u64,
}

/// [`finish`], with the command's memory watched while it runs.
pub fn finish_measured(command: &mut Command) -> (Ended, Used) {
    let child = start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let status = format!("/proc/{}/status", child.id());
    let (done, waiting) = std::sync::mpsc::channel::<()>();
    let watcher = std::thread::spawn(move || {
        let mut peak_bytes = 0;
        let tick = Duration::from_millis(5);
        while waiting.recv_timeout(tick) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            peak_bytes = peak_bytes.max(own_memory_bytes(&status).unwrap_or(0));
        }
        Used { peak_bytes }
    });
    let output = child.wait_with_output().expect("output");
    drop(done);
    let used = watcher.join().expect("the watcher");
    assert!(used.peak_bytes > 0, "the command ended before it was looked at");
    (ended(output), used)
}

/// `RssAnon` and `RssFile` of a process (proc_pid_status(5)).
fn own_memory_bytes(status: &str) -> Option<u64> {
    let text = std::fs::read_to_string(status).ok()?;
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    Some((field("RssAnon:")? + field("RssFile:")?) * 1024)
}
