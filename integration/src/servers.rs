//! igloo's parts in processes of their own.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::{World, start, wait_until};

/// A serving igloo; killed when dropped.
#[derive(Debug)]
pub struct Server(Child);

impl Server {
    /// Starts `igloo ARGUMENTS unix:SOCKET` and waits until it listens.
    pub fn start(world: &World, arguments: &[&str], socket: &Path) -> Self {
        let mut command = world.igloo();
        command
            .args(arguments)
            .arg(format!("unix:{}", socket.display()))
            .stdout(Stdio::null());
        let server = Self(start(&mut command));
        wait_until("a server listens", || socket.exists());
        server
    }

    /// Asks it to end, and waits until it has ended well.
    pub fn stop(mut self) {
        let told = Command::new("kill")
            .args(["-TERM", &self.0.id().to_string()])
            .status()
            .expect("kill");
        assert!(told.success() && self.0.wait().expect("its end").success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill(); // ended already in the good case
        let _ = self.0.wait();
    }
}
