//! A running `igloo mount`, for tasks that read through one.
//!
//! Invariant: it is stopped, and so unmounted, in any case.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::shell;

/// A mount that is there.
pub struct Mounted {
    child: Child,
}

impl Mounted {
    /// Starts `igloo mount` and waits until it says that the mount is there.
    pub fn start(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start igloo mount")?;
        let stdout = child.stdout.take().context("igloo mount has no output")?;
        let mounted = Self { child };
        let mut line = String::new();
        BufReader::new(stdout)
            .read_line(&mut line)
            .context("cannot read from igloo mount")?;
        if line.is_empty() {
            bail!("igloo mount did not start");
        }
        Ok(mounted)
    }

    /// Ends it as a user would; it must say that all is well.
    pub fn stop(&mut self) -> Result<()> {
        shell::run(Command::new("kill").args(["-TERM", &self.child.id().to_string()]))?;
        let status = self.child.wait().context("cannot wait for igloo mount")?;
        if !status.success() {
            bail!("igloo mount ended with {status}");
        }
        Ok(())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = self.child.kill(); // ended already in the good case
        let _ = self.child.wait();
    }
}
