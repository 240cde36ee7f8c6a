//! Processes that a test starts to kill them.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The test of a test program that is killed, and how it is told that it is meant.
///
/// The victim is a test named `crash_victim` that returns at once where `variable` is not set, and else works in the folder
/// the variable names until it is killed.
#[derive(Clone, Copy, Debug)]
pub struct Victim {
    /// The variable that names the victim's folder.
    pub variable: &'static str,
}

impl Victim {
    /// Runs the victim of this test program as a process that works in `dir`, and kills it after `life`. Blocks until then.
    ///
    /// # Panics
    /// The process cannot be started or killed.
    pub fn die(self, dir: &Path, life: Duration) {
        let program = std::env::current_exe().expect("the test program");
        let mut child = Command::new(program)
            .args(["--exact", "crash_victim"])
            .env(self.variable, dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a process");
        std::thread::sleep(life);
        child.kill().expect("it can be killed");
        child.wait().expect("it has ended");
    }
}
