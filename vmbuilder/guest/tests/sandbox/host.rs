//! A small host: one agent on a thread of its own, and the words to drive it.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use igloo_control::message::{Exited, FileOwner, OutputReason};
use igloo_control::spec::{GuestLimits, Personality};
use igloo_control::stream::{FrameReader, FrameWriter};
use igloo_control::{BuildSpec, GuestMessage, HostMessage, ReceiveWindow};
use igloo_guest::agent::Agent;
use igloo_guest::channel::{Channel, ChannelError};
use igloo_guest::root::Ground;
use igloo_guest::scratch::Medium;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};

const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";
const MEMORY_BYTES: u64 = 256 << 20;
/// An agent silent for longer is stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// An agent has one thread and one build. Two in one process would fork each other's open files, and a program that is
/// open for writing in any process does not start (ETXTBSY).
static ALONE: Mutex<()> = Mutex::new(());

/// An agent and the host's end of its channel.
pub struct Host {
    reader: FrameReader<UnixStream, GuestMessage>,
    writer: Option<FrameWriter<UnixStream>>,
    window: ReceiveWindow,
    /// Whether what is read is acknowledged.
    pub acknowledges: bool,
    agent: Option<JoinHandle<Result<(), ChannelError>>>,
    _dir: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

/// How a build went.
#[derive(Debug, Default)]
pub struct Ran {
    pub log: String,
    pub exited: Option<Exited>,
    pub failed: Option<GuestMessage>,
    pub outputs: Vec<GuestMessage>,
}

impl Ran {
    pub fn output_error(&self) -> Option<OutputReason> {
        match self.outputs.last() {
            Some(GuestMessage::OutputError { reason, .. }) => Some(*reason),
            _ => None,
        }
    }

    pub fn files(&self) -> String {
        let data = self.outputs.iter().filter_map(|message| match message {
            GuestMessage::FileData(data) => Some(String::from_utf8_lossy(data)),
            _ => None,
        });
        data.collect()
    }
}

/// A spec that runs a shell script with this machine's programs.
pub fn shell(script: &str) -> BuildSpec {
    BuildSpec {
        program: "/usr/bin/sh".into(),
        arguments: vec![
            "sh".into(),
            "-c".into(),
            Bytes::copy_from_slice(script.as_bytes()),
        ],
        environment: vec![
            ("PATH".into(), "/usr/bin".into()),
            ("out".into(), "/usr/out".into()),
        ],
        working_dir: "build".into(),
        inputs_dir: "usr".into(),
        scratch_paths: vec!["build".into(), "usr".into()],
        outputs: vec!["usr/out".into()],
        uid: 1000,
        gid: 100,
        hostname: "localhost".into(),
        domainname: "(none)".into(),
        personality: Personality::Native,
        network: None,
        kvm: false,
        limits: GuestLimits::default(),
    }
}

impl Host {
    /// Starts an agent; `None`, said loudly, where that cannot be.
    pub fn start(test: &str) -> Option<Self> {
        if !rustix::process::getuid().is_root() {
            return skip(test, "needs root, to mount and to start namespaces");
        }
        if !Path::new(LOADER).exists() {
            return skip(
                test,
                "needs an x86_64 machine with glibc: its programs are what is run",
            );
        }
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        ours.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        let run_dir = dir.path().to_owned();
        let agent = std::thread::spawn(move || {
            enter_namespace(&run_dir);
            let medium = Medium::Memory {
                memory_bytes: MEMORY_BYTES,
            };
            let ground = Ground {
                run_dir,
                inputs: "/usr".into(),
                medium,
            };
            Agent::new(Channel::open(theirs)?, ground, |_| Ok(None)).serve()
        });
        let reader = FrameReader::new(ours.try_clone().expect("a second descriptor"));
        let writer = Some(FrameWriter::new(ours));
        let window = ReceiveWindow::default();
        Some(Self {
            reader,
            writer,
            window,
            acknowledges: true,
            agent: Some(agent),
            _dir: dir,
            _alone: alone,
        })
    }

    pub fn say(&mut self, message: &HostMessage) {
        self.writer
            .as_mut()
            .expect("an open channel")
            .write(message)
            .expect("the agent listens");
    }

    pub fn place(&mut self, path: &str, owner: FileOwner, mode: u16, content: &[u8]) {
        self.say(&HostMessage::File {
            path: path.to_owned().into(),
            owner,
            mode,
            size: content.len() as u64,
        });
        for piece in content.chunks(100_000) {
            self.say(&HostMessage::FileData(Bytes::copy_from_slice(piece)));
        }
    }

    /// Prepares a build with the loader and the files of `/etc`.
    pub fn prepare(&mut self, spec: &BuildSpec) {
        self.say(&HostMessage::Prepare(Box::new(spec.clone())));
        let loader = std::fs::read(LOADER).expect("the loader");
        self.place(&LOADER[1..], FileOwner::System, 0o755, &loader);
        for (path, content) in igloo_control::etc::sealed_files("/build") {
            self.place(
                path,
                FileOwner::System,
                igloo_control::etc::FILE_MODE,
                content.as_bytes(),
            );
        }
    }

    pub fn hear(&mut self) -> GuestMessage {
        let (message, size) = self.reader.read().expect("a message").expect("the agent speaks");
        self.window.received(size).expect("the agent keeps to its window");
        if self.acknowledges
            && let Some(bytes) = self.window.consumed(size)
        {
            self.say(&HostMessage::Ack { bytes });
        }
        message
    }

    /// Runs a prepared build, takes the outputs if it succeeds, and ends the agent.
    pub fn finish(mut self) -> Ran {
        self.say(&HostMessage::Run);
        let ran = self.listen();
        self.say(&HostMessage::PowerOff);
        self.join().expect("the agent ends in order");
        ran
    }

    /// Hears everything until the build is over.
    pub fn listen(&mut self) -> Ran {
        let mut ran = Ran::default();
        loop {
            match self.hear() {
                GuestMessage::Started => {}
                GuestMessage::Log(bytes) => ran.log += &String::from_utf8_lossy(&bytes),
                GuestMessage::Exited(exited) => {
                    ran.exited = Some(exited);
                    if exited.status != igloo_control::message::ExitStatus::Code(0) {
                        return ran;
                    }
                    self.say(&HostMessage::Collect);
                }
                failed @ GuestMessage::Failed { .. } => {
                    ran.failed = Some(failed);
                    return ran;
                }
                message => {
                    let is_last = matches!(
                        message,
                        GuestMessage::Collected | GuestMessage::OutputError { .. }
                    );
                    ran.outputs.push(message);
                    if is_last {
                        return ran;
                    }
                }
            }
        }
    }

    /// Closes the channel and gives how the agent took it.
    pub fn hang_up(mut self) -> Result<(), ChannelError> {
        self.writer = None;
        let (closed, _) = UnixStream::pair().expect("a socket pair");
        self.reader = FrameReader::new(closed);
        self.join()
    }

    fn join(&mut self) -> Result<(), ChannelError> {
        self.agent
            .take()
            .expect("an agent")
            .join()
            .expect("the agent does not panic")
    }
}

/// Runs a script to its end.
pub fn run(test: &str, script: &str) -> Option<Ran> {
    run_spec(test, &shell(script))
}

/// Runs a spec to its end.
pub fn run_spec(test: &str, spec: &BuildSpec) -> Option<Ran> {
    let mut host = Host::start(test)?;
    host.prepare(spec);
    Some(host.finish())
}

/// This thread's mounts are its own; the agent's stay in a small file system that goes away with it.
fn enter_namespace(run_dir: &Path) {
    #[allow(
        unsafe_code,
        reason = "rustix marks all of unshare unsafe because of one flag"
    )]
    // SAFETY: the unsafe flag is FILES, which is not given.
    unsafe {
        rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS).expect("a mount namespace");
    }
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).expect("private mounts");
    mount("run", run_dir, "tmpfs", MountFlags::empty(), None).expect("a place for mounts");
}

fn skip<T>(test: &str, reason: &str) -> Option<T> {
    let line = format!("SKIPPED: igloo-guest sandbox {test}: {reason}");
    eprintln!("{line}");
    if let Some(file) = std::env::var_os("IGLOO_TEST_SKIPS") {
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(file)
            .expect("the skip list");
        writeln!(file, "{line}").expect("a line in the skip list");
    }
    None
}
