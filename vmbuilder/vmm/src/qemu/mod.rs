//! The QEMU driver.
//!
//! Every machine is one QEMU process of ours, which reads no configuration file, has only the devices of [`devices`],
//! may start no program (`-sandbox`), and dies with us ([`crate::process`]). Its standard output is the guest's serial
//! console, its error output its own words; both are drained for as long as it lives.

mod arguments;
mod devices;

use std::os::fd::AsRawFd;

pub use arguments::{Arguments, Wiring};
use async_trait::async_trait;

use crate::channel::Channel;
use crate::machine::{Plan, Resources, Running, StartError, Tails, Vmm};
use crate::process::{Launch, Process};
use crate::tail::Tail;

/// Starts machines with QEMU.
#[derive(Clone, Copy, Debug, Default)]
pub struct Qemu;

#[async_trait]
impl Vmm for Qemu {
    async fn start(&self, plan: &Plan, resources: &Resources) -> Result<Running, StartError> {
        let (channel, theirs) = Channel::pair().map_err(|source| StartError::Channel { source })?;
        let wiring = Wiring {
            control_fd: theirs.as_raw_fd(),
            share_socket: resources.share().map(|share| share.path.clone()),
            scratch: resources.scratch().map(ToOwned::to_owned),
        };
        let launch = Launch {
            program: plan.qemu.clone(),
            arguments: Arguments::of(plan, &wiring).into_vec(),
            inherited: vec![theirs],
        };
        let (process, console, errors) =
            Process::start(launch).await.map_err(|source| StartError::Spawn {
                program: plan.qemu.clone(),
                source,
            })?;
        resources.record(process.id())?;
        let follow = |fd| Tail::follow(fd).map_err(|source| StartError::Channel { source });
        let tails = Tails {
            console: follow(console.into())?,
            errors: follow(errors.into())?,
        };
        Ok(Running::new(process, channel, tails))
    }
}
