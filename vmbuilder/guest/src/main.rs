//! Process 1 of a build's machine: see the library.

#[cfg(target_os = "linux")]
fn main() {
    agent::main();
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("igloo-guest runs inside a Linux machine");
}

#[cfg(target_os = "linux")]
mod agent {
    #![allow(
        clippy::print_stderr,
        reason = "the kernel's console is where a machine that cannot talk says why"
    )]

    use igloo_control::GuestMessage;
    use igloo_control::message::Stage;
    use igloo_guest::agent::{Agent, Failure, tell};
    use igloo_guest::channel::{Channel, ChannelError};
    use igloo_guest::error::StepError;
    use igloo_guest::{boot, port, power};

    pub(crate) fn main() {
        if std::process::id() != 1 {
            eprintln!("igloo-guest is process 1 of a build's machine; it does nothing elsewhere");
            return;
        }
        if let Err(error) = serve() {
            eprintln!("igloo-guest: {error}");
        }
        power::off()
    }

    fn serve() -> Result<(), Fatal> {
        boot::boot()?;
        let mut channel = Channel::open(port::open()?)?;
        channel.send(&GuestMessage::Hello(boot::hello()))?;
        if let Err(error) = boot::mount_inputs() {
            tell(&mut channel, Failure::of(Stage::Mount, error.class(), &error))?;
            return Ok(());
        }
        channel.send(&GuestMessage::Mounted)?;
        Agent::new(channel, boot::ground(), boot::build_cgroup).serve()?;
        Ok(())
    }

    /// What ends a machine before its host does.
    #[derive(Debug, thiserror::Error)]
    enum Fatal {
        #[error(transparent)]
        Step(#[from] StepError),
        #[error(transparent)]
        Channel(#[from] ChannelError),
    }
}
