//! The QEMU driver.
//!
//! Every machine is one QEMU process of ours, which reads no configuration file, has only the devices of [`devices`],
//! may start no program (`-sandbox`), and dies with us ([`crate::process`]). It inherits every file and socket it uses, so
//! it needs no rights of its own: started by root, it runs as nobody. Its standard output is the guest's serial
//! console, its error output its own words; both are drained for as long as it lives.

mod arguments;
mod devices;

use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

pub use arguments::{Arguments, Wiring};
use async_trait::async_trait;

use crate::accelerator::Accelerator;
use crate::channel::Channel;
use crate::machine::{Plan, Resources, Running, StartError, Tails, Vmm};
use crate::process::{Identity, Launch, Process, may_become};
use crate::tail::Tail;

/// Starts machines with QEMU.
#[derive(Clone, Copy, Debug, Default)]
pub struct Qemu;

/// What root becomes to run an emulator: nobody, who owns nothing (65534, the kernel's overflow id).
const NOBODY: u32 = 65534;

#[async_trait]
impl Vmm for Qemu {
    async fn start(&self, plan: &Plan, resources: &Resources) -> Result<Running, StartError> {
        let (channel, theirs) = Channel::pair().map_err(|source| StartError::Channel { source })?;
        let ends = Ends::open(plan, resources, theirs)?;
        let launch = Launch {
            program: plan.qemu.clone(),
            arguments: Arguments::of(plan, &ends.wiring()).into_vec(),
            inherited: ends.into_vec(),
            identity: identity(plan.accelerator),
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

/// Who an emulator is: nobody, when we can choose, with the group that may open /dev/kvm when it must.
fn identity(accelerator: Accelerator) -> Option<Identity> {
    if !may_become(NOBODY) {
        return None;
    }
    let groups = match accelerator {
        Accelerator::Kvm => kvm_groups(&fs::metadata("/dev/kvm").ok()?)?,
        Accelerator::Hvf | Accelerator::Tcg => Vec::new(),
    };
    Some(Identity {
        uid: NOBODY,
        gid: NOBODY,
        groups,
    })
}

/// The groups that nobody needs to open the device; none when root alone can, and then root must run the emulator.
fn kvm_groups(device: &fs::Metadata) -> Option<Vec<u32>> {
    match device.mode() {
        mode if mode & 0o006 == 0o006 => Some(Vec::new()),
        mode if mode & 0o060 == 0o060 => Some(vec![device.gid()]),
        _ => {
            tracing::warn!(
                "only root can open /dev/kvm, so the emulator runs as root; give the device a group"
            );
            None
        }
    }
}

/// Everything an emulator inherits.
struct Ends {
    kernel: OwnedFd,
    initramfs: OwnedFd,
    control: OwnedFd,
    share: Option<OwnedFd>,
    scratch: Option<OwnedFd>,
}

impl Ends {
    fn open(plan: &Plan, resources: &Resources, control: OwnedFd) -> Result<Self, StartError> {
        let open = |path: &Path, options: &mut OpenOptions| {
            let opened = options.open(path).map(OwnedFd::from);
            opened.map_err(|source| StartError::File {
                path: path.to_owned(),
                source,
            })
        };
        let share = resources.share().map(|share| {
            let connected = UnixStream::connect(&share.path).map(OwnedFd::from);
            connected.map_err(|source| StartError::File {
                path: share.path.clone(),
                source,
            })
        });
        let scratch = resources
            .scratch()
            .map(|path| open(path, File::options().read(true).write(true)));
        Ok(Self {
            kernel: open(&plan.kernel, File::options().read(true))?,
            initramfs: open(&plan.initramfs, File::options().read(true))?,
            control,
            share: share.transpose()?,
            scratch: scratch.transpose()?,
        })
    }

    fn wiring(&self) -> Wiring {
        Wiring {
            kernel_fd: self.kernel.as_raw_fd(),
            initramfs_fd: self.initramfs.as_raw_fd(),
            control_fd: self.control.as_raw_fd(),
            share_fd: self.share.as_ref().map(AsRawFd::as_raw_fd),
            scratch_fd: self.scratch.as_ref().map(AsRawFd::as_raw_fd),
        }
    }

    fn into_vec(self) -> Vec<OwnedFd> {
        let always = [self.kernel, self.initramfs, self.control];
        always.into_iter().chain(self.share).chain(self.scratch).collect()
    }
}
