//! A running `igloo mount`.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::{World, kill_group, start};

/// A mounted store; unmounted in any case.
#[derive(Debug)]
pub struct RunningMount {
    child: Option<Child>,
    dir: PathBuf,
}

impl World {
    /// Mounts the store and waits until it is there.
    pub fn mount(&self, dir: &Path) -> RunningMount {
        let mut command = self.igloo();
        command.arg("mount").arg(dir).stdout(Stdio::piped());
        let mut child = start(&mut command);
        let stdout = child.stdout.take().expect("a pipe");
        let mounted = RunningMount {
            child: Some(child),
            dir: dir.to_path_buf(),
        };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        assert!(line.starts_with("mounted on"), "igloo mount said {line:?}");
        mounted
    }
}

impl RunningMount {
    /// Ends it as a user would; it must say that all is well. If it does not, the drop still unmounts.
    pub fn stop(mut self) {
        let child = self.child.as_mut().expect("a running mount");
        let told = Command::new("kill")
            .args(["-TERM", &child.id().to_string()])
            .status();
        assert!(told.expect("kill can be started").success());
        let status = child.wait().expect("the end of igloo mount");
        assert!(status.success(), "igloo mount ended with {status}");
        self.child = None;
    }

    /// Ends it as a crash would: the kernel keeps a mount that nobody serves.
    pub fn kill(mut self) {
        let mut child = self.child.take().expect("a running mount");
        kill_group(child.id());
        child.wait().expect("the end of igloo mount");
    }
}

impl Drop for RunningMount {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            kill_group(child.id());
            let _ = child.wait(); // it is our own child
            let _ = Command::new("umount")
                .arg("-l")
                .arg(&self.dir)
                .stderr(Stdio::null())
                .status();
        }
    }
}
