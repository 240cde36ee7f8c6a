//! The agent's side of a build, from `Prepare` to `PowerOff`.
//!
//! Invariants
//! - one build, then no other: what a build left behind never meets the next;
//! - a failure is told once, and after it only `PowerOff` is heard.

use std::io::{Read, Write};
use std::os::fd::AsFd;

use bytes::Bytes;
use igloo_control::message::{Exited, FailureClass, FileOwner, Stage};
use igloo_control::{BuildSpec, GuestMessage, HostMessage};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::cgroup::Cgroup;
use crate::channel::{Channel, ChannelError};
use crate::error::{Step, StepError};
use crate::files::{PlaceError, PlacedFile};
use crate::log::LogReader;
use crate::network;
use crate::outputs;
use crate::program::{Program, StartError};
use crate::root::{BuildRootError, Ground, Root};

/// Makes the build's control group, `None` where there are none.
pub type MakeCgroup = fn(Option<u32>) -> Result<Option<Cgroup>, StepError>;

/// The agent of one machine.
#[derive(Debug)]
pub struct Agent<S> {
    channel: Channel<S>,
    ground: Ground,
    make_cgroup: MakeCgroup,
}

/// A build on its way.
#[derive(Debug)]
struct Build {
    spec: BuildSpec,
    root: Root,
    file: Option<PlacedFile>,
    has_ended: bool,
}

impl<S: Read + Write + AsFd> Agent<S> {
    /// An agent that has said hello on its channel and mounted the inputs.
    pub fn new(channel: Channel<S>, ground: Ground, make_cgroup: MakeCgroup) -> Self {
        Self {
            channel,
            ground,
            make_cgroup,
        }
    }

    /// Serves the host until it ends the machine or goes away.
    ///
    /// # Errors
    /// Why the conversation ended, when the host did not end it.
    pub fn serve(mut self) -> Result<(), ChannelError> {
        let result = self.converse();
        let told = match result {
            Ok(()) | Err(End::Channel(ChannelError::PowerOff)) => return Ok(()),
            Err(End::Channel(error)) if error.is_protocol() => Failure {
                stage: Stage::Run,
                class: FailureClass::Protocol,
                message: describe(&error),
            },
            Err(End::Channel(error)) => return Err(error),
            Err(End::Failure(failure)) => failure,
        };
        tell(&mut self.channel, told)
    }

    fn converse(&mut self) -> Result<(), End> {
        let mut build = None;
        loop {
            let message = self.channel.receive()?;
            match (message, &mut build) {
                (HostMessage::PowerOff, _) => return Ok(()),
                (HostMessage::Prepare(spec), None) => build = Some(self.prepare(*spec)?),
                (
                    HostMessage::File {
                        path, owner, mode, ..
                    },
                    Some(build),
                ) => {
                    build.place(&path, owner, mode)?;
                }
                (HostMessage::FileData(bytes), Some(build)) => build.write(&bytes)?,
                (HostMessage::Run, Some(build)) => self.run(build)?,
                (HostMessage::Collect, Some(build)) if build.has_ended => self.collect(build)?,
                // it crossed the end of the program on the way
                (HostMessage::Kill, Some(build)) if build.has_ended => {}
                (message, _) => {
                    return Err(Failure {
                        stage: Stage::Run,
                        class: FailureClass::Protocol,
                        message: format!("{} at the wrong time", message.name()),
                    }
                    .into());
                }
            }
        }
    }

    fn prepare(&mut self, spec: BuildSpec) -> Result<Build, Failure> {
        if let Some(network) = &spec.network {
            network::configure(network)
                .map_err(|error| Failure::of(Stage::Prepare, error.class(), &error))?;
        }
        let root = Root::build(&spec, &self.ground)?;
        Ok(Build {
            spec,
            root,
            file: None,
            has_ended: false,
        })
    }

    fn run(&mut self, build: &mut Build) -> Result<(), End> {
        build.file = None;
        let at_start = |error: StepError| Failure::of(Stage::Start, error.class(), &error);
        build.root.seal().map_err(at_start)?;
        let cgroup = (self.make_cgroup)(build.spec.limits.processes).map_err(at_start)?;
        let (program, log) = Program::start(&build.spec, &build.root, cgroup).map_err(Failure::from)?;
        self.channel.send(&GuestMessage::Started)?;
        let exited = self.watch(program, log, &build.root)?;
        self.channel.send(&GuestMessage::Exited(exited))?;
        build.has_ended = true;
        Ok(())
    }

    /// Streams the log and hears the host until the program has ended; then the rest of the log.
    fn watch(&mut self, program: Program, mut log: LogReader, root: &Root) -> Result<Exited, End> {
        loop {
            let ready = wait(&self.channel, &program, &log).map_err(at_run)?;
            if ready.log {
                send_log(&mut self.channel, log.read().map_err(at_run)?)?;
            }
            if ready.host {
                let mut message = self.channel.receive_ready()?;
                while let Some(said) = message {
                    match said {
                        HostMessage::Kill => program.kill(),
                        HostMessage::PowerOff => return Err(ChannelError::PowerOff.into()),
                        other => return Err(wrong_time(&other).into()),
                    }
                    message = self.channel.take()?;
                }
            }
            if ready.ended {
                break;
            }
        }
        let exited = program.wait(root).map_err(at_run)?;
        loop {
            let rest = log.drain().map_err(at_run)?;
            if rest.is_empty() {
                return Ok(exited);
            }
            send_log(&mut self.channel, rest)?;
        }
    }

    fn collect(&mut self, build: &Build) -> Result<(), End> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(build.root.path(), flags, Mode::empty())
            .step("open", build.root.path())
            .map_err(|error| Failure::of(Stage::Collect, error.class(), &error))?;
        let channel = &mut self.channel;
        Ok(outputs::stream(root.as_fd(), &build.spec, &mut |message| {
            channel.send(&message)
        })?)
    }
}

impl Build {
    fn place(&mut self, path: &Bytes, owner: FileOwner, mode: u16) -> Result<(), Failure> {
        self.file = Some(PlacedFile::create(&self.root, &self.spec, path, owner, mode)?);
        Ok(())
    }

    fn write(&mut self, bytes: &Bytes) -> Result<(), Failure> {
        // the sequence lets no bytes come without a file
        match &mut self.file {
            Some(file) => Ok(file.write(bytes)?),
            None => Ok(()),
        }
    }
}

/// Tells the host of a failure, and waits for it to end the machine.
///
/// # Errors
/// When the host goes away instead.
pub fn tell<S: Read + Write + AsFd>(channel: &mut Channel<S>, failure: Failure) -> Result<(), ChannelError> {
    let mut message = failure.message;
    let mut size = message.len().min(igloo_control::message::TEXT_SIZE_MAX);
    while !message.is_char_boundary(size) {
        size -= 1;
    }
    message.truncate(size);
    channel.send(&GuestMessage::Failed {
        stage: failure.stage,
        class: failure.class,
        message,
    })?;
    loop {
        match channel.receive() {
            Ok(HostMessage::PowerOff) | Err(ChannelError::PowerOff) => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(error),
        }
    }
}

fn send_log<S: Read + Write + AsFd>(channel: &mut Channel<S>, bytes: &[u8]) -> Result<(), ChannelError> {
    if bytes.is_empty() {
        return Ok(());
    }
    channel.send(&GuestMessage::Log(Bytes::copy_from_slice(bytes)))
}

/// What there is to do.
struct Ready {
    host: bool,
    ended: bool,
    log: bool,
}

fn wait<S: Read + Write + AsFd>(
    channel: &Channel<S>,
    program: &Program,
    log: &LogReader,
) -> Result<Ready, StepError> {
    let (host, end) = (channel.poll_fd(), program.poll_fd());
    let mut fds = vec![
        PollFd::new(&host, PollFlags::IN),
        PollFd::new(&end, PollFlags::IN),
    ];
    // with a full window the build waits, and the host is still heard
    let terminal = log.poll_fd().filter(|_| channel.has_room());
    if let Some(terminal) = &terminal {
        fds.push(PollFd::new(terminal, PollFlags::IN));
    }
    match poll(&mut fds, None) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(errno) => return Err(errno).step("wait for", "the build"),
    }
    let is_ready = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
    Ok(Ready {
        host: is_ready(0),
        ended: is_ready(1),
        log: is_ready(2),
    })
}

/// Why the agent cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// When.
    pub stage: Stage,
    /// Whose fault.
    pub class: FailureClass,
    /// For people.
    pub message: String,
}

impl Failure {
    /// A failure that an error tells of.
    pub fn of(stage: Stage, class: FailureClass, error: &dyn std::error::Error) -> Self {
        Self {
            stage,
            class,
            message: describe(error),
        }
    }
}

impl From<BuildRootError> for Failure {
    fn from(error: BuildRootError) -> Self {
        let class = match &error {
            BuildRootError::Spec(_) => FailureClass::Request,
            BuildRootError::Step(step) => step.class(),
        };
        Self::of(Stage::Prepare, class, &error)
    }
}

impl From<PlaceError> for Failure {
    fn from(error: PlaceError) -> Self {
        Self::of(Stage::Prepare, error.class(), &error)
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self::of(Stage::Start, error.class(), &error)
    }
}

/// How a conversation ends early.
#[derive(Debug)]
enum End {
    Channel(ChannelError),
    Failure(Failure),
}

impl From<ChannelError> for End {
    fn from(error: ChannelError) -> Self {
        Self::Channel(error)
    }
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "map_err gives the error away")]
fn at_run(error: StepError) -> Failure {
    Failure::of(Stage::Run, error.class(), &error)
}

fn wrong_time(message: &HostMessage) -> Failure {
    let message = format!("the host sent {} while the program runs", message.name());
    Failure {
        stage: Stage::Run,
        class: FailureClass::Protocol,
        message,
    }
}

/// An error and its causes on one line.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
