//! A running command of igloo that serves: a mount, a daemon.
//!
//! Invariant: it is stopped, and so unmounted, in any case.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::shell;

/// A server that is ready.
pub struct Serving {
    child: Child,
    name: &'static str,
}

impl Serving {
    /// Starts `igloo NAME…` and waits until it says that it is ready.
    pub fn start(name: &'static str, command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start igloo {name}"))?;
        let stdout = child.stdout.take();
        let serving = Self { child, name };
        let stdout = stdout.with_context(|| format!("igloo {name} has no output"))?;
        let mut line = String::new();
        BufReader::new(stdout)
            .read_line(&mut line)
            .with_context(|| format!("cannot read from igloo {name}"))?;
        if line.is_empty() {
            bail!("igloo {name} did not start");
        }
        Ok(serving)
    }

    /// Ends it as a user would; it must say that all is well.
    pub fn stop(&mut self) -> Result<()> {
        let name = self.name;
        shell::run(Command::new("kill").args(["-TERM", &self.child.id().to_string()]))?;
        let status = self
            .child
            .wait()
            .with_context(|| format!("cannot wait for igloo {name}"))?;
        if !status.success() {
            bail!("igloo {name} ended with {status}");
        }
        Ok(())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill(); // ended already in the good case
        let _ = self.child.wait();
    }
}
