//! A builder whose every build has a machine of its own.
//!
//! Invariants
//! - at most [`MicroVmConfig::slots`] machines run; a build waits for its slot before it touches anything;
//! - a machine sees the request's inputs and nothing else of the store;
//! - when the build's future ends or is dropped, the emulator is dead, its directory removed, its file server stopped;
//! - the host holds a window of the guest's messages and a few directories of its inputs, whatever the build's size.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use igloo_build::{
    BuildError, BuildEvent, BuildIo, BuildOutcome, BuildReport, BuildRequest, BuildStats, Builder,
    BuilderLoad, BuilderOffer, Limits,
};
use igloo_castore::Castore;
use igloo_mount::Counts;
use tokio::sync::Semaphore;

use crate::accelerator::Accelerator;
use crate::host::HostAbilities;
use crate::image::GuestImage;
use crate::load::{machine_name, pressure_permille};
use crate::machine::{MachineSpec, Network, Plan, Resources, Running, ScratchSpec, ShareSpec, Vmm};
use crate::runtime_dir::cleanup_stale;
use crate::session::{
    CollectLimits, Collected, LogSink, Order, Patience, Ready, RunEnd, RunLimits, Session, SessionError,
};
use crate::share::Share;

/// Says how builds are run.
#[derive(Clone, Debug)]
pub struct MicroVmConfig {
    /// What to boot.
    pub image: GuestImage,
    /// What this host can do, see [`crate::probe::Probe`].
    pub host: HostAbilities,
    /// What executes instructions.
    pub accelerator: Accelerator,
    /// Where machines have their directories. Its path must leave room for a socket's: 70 bytes are fine.
    pub runtime_root: PathBuf,
    /// Machines at once.
    pub slots: usize,
    /// Memory and processors.
    pub size: SizePolicy,
    /// Limits for what a request leaves open.
    pub limits: Limits,
    /// Most files, directories and symlinks in a build's outputs.
    pub output_entries_max: u64,
    /// A disk of that many bytes for scratch space, made with the host's mkfs.ext4; none leaves scratch in the machine's
    /// memory.
    pub scratch_disk_bytes: Option<u64>,
    /// Whether requests may ask for the network; see [`Network::User`] for what they can reach then.
    pub network: NetworkPolicy,
    /// Named abilities to announce.
    pub features: BTreeSet<String>,
    /// How long an agent may take.
    pub patience: Patience,
}

/// Memory and processors of machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizePolicy {
    /// For requests that leave it open, MiB.
    pub memory_mib: u32,
    /// Most a request may ask for, MiB.
    pub memory_mib_max: u32,
    /// For requests that leave it open.
    pub cores: u32,
    /// Most a request may ask for.
    pub cores_max: u32,
}

/// Whether requests may ask for the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NetworkPolicy {
    /// They are refused.
    #[default]
    Refuse,
    /// They get [`Network::User`].
    Allow,
}

impl MicroVmConfig {
    /// Modest machines, one at a time, sealed.
    pub fn new(
        image: GuestImage,
        host: HostAbilities,
        accelerator: Accelerator,
        runtime_root: PathBuf,
    ) -> Self {
        const GIB: u64 = 1 << 30;
        const DAY: std::time::Duration = std::time::Duration::from_secs(86_400);
        Self {
            image,
            host,
            accelerator,
            runtime_root,
            slots: 1,
            size: SizePolicy {
                memory_mib: 2048,
                memory_mib_max: 64 << 10,
                cores: 2,
                cores_max: 64,
            },
            limits: Limits {
                wall: Some(DAY),
                silence: None,
                log_bytes: Some(4 * GIB),
                output_bytes: Some(256 * GIB),
                processes: None,
                scratch_bytes: None,
            },
            output_entries_max: 1 << 24,
            scratch_disk_bytes: None,
            network: NetworkPolicy::Refuse,
            features: ["benchmark", "big-parallel"].map(String::from).into(),
            patience: Patience::default(),
        }
    }
}

/// Gives every build its own microVM.
#[derive(Debug)]
pub struct MicroVmBuilder {
    config: MicroVmConfig,
    vmm: Arc<dyn Vmm>,
    slots: Semaphore,
}

impl MicroVmBuilder {
    /// A builder on QEMU. Removes what crashed runs left in the runtime directory.
    pub fn new(config: MicroVmConfig) -> Self {
        Self::with_vmm(config, Arc::new(crate::qemu::Qemu))
    }

    /// A builder on another driver.
    pub fn with_vmm(config: MicroVmConfig, vmm: Arc<dyn Vmm>) -> Self {
        match cleanup_stale(&config.runtime_root) {
            Ok(done) if done != Default::default() => {
                tracing::info!(?done, "removed what an earlier run left behind");
            }
            Ok(_) => {}
            // not in the way of new machines
            Err(error) => tracing::warn!(%error, "leftovers of an earlier run remain"),
        }
        Self {
            slots: Semaphore::new(config.slots.max(1)),
            config,
            vmm,
        }
    }

    fn check_supported(&self, request: &BuildRequest) -> Result<(), BuildError> {
        let unsupported = |reason: String| Err(BuildError::Unsupported { reason });
        let constraints = &request.constraints;
        if !self.systems().contains(&constraints.system) {
            return unsupported(format!(
                "it builds for {}, not for {}",
                self.systems().join(", "),
                constraints.system
            ));
        }
        if let Some(missing) = constraints.features.difference(&self.config.features).next() {
            return unsupported(format!("it has no feature `{missing}`"));
        }
        if constraints.network && self.config.network == NetworkPolicy::Refuse {
            return unsupported("it gives builds no network".into());
        }
        let SizePolicy {
            memory_mib_max,
            cores_max,
            ..
        } = self.config.size;
        if constraints.memory_mib > memory_mib_max || constraints.cores > cores_max {
            return unsupported(format!(
                "its machines have at most {memory_mib_max} MiB and {cores_max} processors"
            ));
        }
        Ok(())
    }

    fn spec(&self, request: &BuildRequest) -> MachineSpec {
        let or = |wanted: u32, default| if wanted == 0 { default } else { wanted };
        let constraints = &request.constraints;
        let size = &self.config.size;
        let mut spec = MachineSpec::of_image(
            &self.config.image,
            or(constraints.memory_mib, size.memory_mib),
            or(constraints.cores, size.cores),
        );
        spec.share = Some(ShareSpec {
            tag: igloo_control::VIRTIOFS_TAG.to_owned(),
        });
        spec.scratch = self
            .config
            .scratch_disk_bytes
            .map(|size_bytes| ScratchSpec { size_bytes });
        if constraints.network {
            spec.network = Network::User;
        }
        spec
    }

    /// The request's limits, the builder's own where it has none.
    fn limits(&self, request: &BuildRequest) -> Limits {
        let (asked, own) = (&request.limits, &self.config.limits);
        Limits {
            wall: asked.wall.or(own.wall),
            silence: asked.silence.or(own.silence),
            log_bytes: asked.log_bytes.or(own.log_bytes),
            output_bytes: asked.output_bytes.or(own.output_bytes),
            processes: asked.processes.or(own.processes),
            scratch_bytes: asked.scratch_bytes.or(own.scratch_bytes),
        }
    }

    async fn start(
        &self,
        plan: &Plan,
        request: &BuildRequest,
        inputs: &Castore,
    ) -> Result<Machine, BuildError> {
        let resources = Resources::prepare(plan, &self.config.runtime_root)
            .await
            .map_err(|error| host_failed("a machine's files", error.code(), error))?;
        let serve = |socket| Share::serve(socket, request.inputs.clone(), inputs.clone());
        let share = resources.share().map(serve).transpose();
        let share = share.map_err(|error| host_failed("serving the inputs", error.code(), error))?;
        let running = self
            .vmm
            .start(plan, &resources)
            .await
            .map_err(|error| BuildError::Machine {
                reason: "it could not be started".into(),
                source: Some(error.into()),
            })?;
        Ok(Machine {
            running,
            share,
            _resources: resources,
        })
    }
}

#[async_trait]
impl Builder for MicroVmBuilder {
    async fn build(&self, request: BuildRequest, io: BuildIo) -> Result<BuildReport, BuildError> {
        request.check()?;
        self.check_supported(&request)?;
        let plan = Plan::resolve(&self.spec(&request), &self.config.host, self.config.accelerator)
            .map_err(plan_failed)?;
        // the semaphore is never closed
        let _slot = self.slots.acquire().await.ok();
        let ordered = Instant::now();
        let machine = plan.describe();
        // a watcher that is gone is no reason to stop
        let _ = io
            .events
            .send(BuildEvent::Preparing {
                machine: machine.clone(),
            })
            .await;
        let mut work = Work {
            limits: self.limits(&request),
            config: &self.config,
            request: &request,
            stats: BuildStats {
                machine: format!("{}, {machine}", self.config.image.id),
                ..BuildStats::default()
            },
            ordered,
        };
        let mut started = self.start(&plan, &request, &io.inputs).await?;
        let ended = work.converse(&mut started, io).await;
        work.count(&started);
        let lost_contents = started.counts().errors;
        let outcome = match ended {
            Ok(outcome) => outcome,
            Err(error) => started.explain(error).await?,
        };
        Ok(BuildReport {
            outcome: unless_starved(outcome, lost_contents)?,
            stats: work.stats,
        })
    }

    fn systems(&self) -> Vec<String> {
        let own = self.config.image.system.clone();
        match own.as_str() {
            "x86_64-linux" => vec![own, "i686-linux".into()],
            _ => vec![own],
        }
    }

    fn offer(&self) -> BuilderOffer {
        BuilderOffer {
            systems: self.systems().into_iter().collect(),
            features: self.config.features.clone(),
            mandatory_features: BTreeSet::new(),
            slots: count(self.config.slots.max(1)),
            memory_mib: 0,
            network: self.config.network == NetworkPolicy::Allow,
            stores: BTreeSet::new(),
            machine: machine_name(),
            unattended: None,
        }
    }

    async fn load(&self) -> Result<BuilderLoad, BuildError> {
        let taken = self
            .config
            .slots
            .max(1)
            .saturating_sub(self.slots.available_permits());
        Ok(BuilderLoad {
            permille: pressure_permille(),
            running: count(taken),
        })
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// A build's machine. Fields are dropped in this order: the emulator dies first, so nobody uses what goes after it.
#[derive(Debug)]
struct Machine {
    running: Running,
    share: Option<Share>,
    _resources: Resources,
}

/// One build on its machine.
#[derive(Debug)]
struct Work<'a> {
    config: &'a MicroVmConfig,
    request: &'a BuildRequest,
    limits: Limits,
    stats: BuildStats,
    ordered: Instant,
}

impl Work<'_> {
    async fn converse(
        &mut self,
        machine: &mut Machine,
        mut io: BuildIo,
    ) -> Result<BuildOutcome, SessionError> {
        let channel = machine.running.take_channel().ok_or(SessionError::Closed {
            waiting: crate::session::Waiting::Hello,
        })?;
        let mut session = Session::new(channel, self.config.patience);
        session.hello().await?;
        self.stats.boot = self.ordered.elapsed();
        session.mounted().await?;
        if let Ready::Ended(outcome) = session.prepare(Order::of(self.request, &self.limits)).await? {
            return Ok(outcome);
        }
        let started = Instant::now();
        let _ = io.events.send(BuildEvent::Started).await;
        let mut log = LogSink::new(&io.events);
        let end = session.run(&self.run_limits(), &mut log).await;
        self.stats.run = started.elapsed();
        self.stats.log_bytes = log.sent_bytes();
        match end? {
            RunEnd::Ended(outcome) => Ok(outcome),
            RunEnd::Succeeded => {
                let _ = io.events.send(BuildEvent::Collecting).await;
                let collected = self.collect(&mut session, &mut io).await?;
                self.stats.output_bytes = collected.bytes;
                Ok(collected.outcome)
            }
        }
    }

    async fn collect<S>(&self, session: &mut Session<S>, io: &mut BuildIo) -> Result<Collected, SessionError>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    {
        let limits = CollectLimits {
            bytes: self.limits.output_bytes.unwrap_or(u64::MAX),
            entries: self.config.output_entries_max,
        };
        session
            .collect(&self.request.outputs, limits, &mut *io.outputs)
            .await
    }

    fn run_limits(&self) -> RunLimits {
        RunLimits {
            wall: self.limits.wall,
            silence: self.limits.silence,
            log_bytes: self.limits.log_bytes,
        }
    }

    fn count(&mut self, machine: &Machine) {
        let counts = machine.counts();
        self.stats.input_bytes_read = counts.bytes_read;
        self.stats.input_files_read = counts.files_read;
        self.stats.total = self.ordered.elapsed();
    }
}

impl Machine {
    fn counts(&self) -> Counts {
        self.share.as_ref().map(Share::counts).unwrap_or_default()
    }

    /// What a broken conversation means. A machine that died for want of memory is the build's doing, everything else is
    /// this host's or the guest's.
    async fn explain(self, error: SessionError) -> Result<BuildOutcome, BuildError> {
        if !error.is_machine_failure() {
            return Err(words_failed(error));
        }
        let lost_contents = self.counts().errors;
        let post_mortem = self.running.autopsy().await;
        let mut reason = format!("{error}; {}", post_mortem.words);
        if post_mortem.is_out_of_memory && error.is_in_build() {
            return Ok(BuildOutcome::OutOfMemory);
        }
        if lost_contents > 0 {
            reason.push_str("\n  note: inputs could not be read from the store while it ran");
        }
        Err(BuildError::Machine {
            reason,
            source: Some(error.into()),
        })
    }
}

/// A conversation that broke off while the machine was well.
fn words_failed(error: SessionError) -> BuildError {
    match error {
        SessionError::Sink(error) => error,
        SessionError::Request { message } => BuildError::Unsupported { reason: message },
        SessionError::Order(source) => BuildError::Unsupported {
            reason: format!("the request is too large to be told to a machine ({source})"),
        },
        other => BuildError::Protocol {
            reason: crate::chain(&other),
        },
    }
}

fn plan_failed(error: crate::machine::PlanError) -> BuildError {
    use crate::machine::PlanError as E;
    match error {
        E::System { .. } | E::NoBoard { .. } => BuildError::Setup {
            what: "an emulator that can boot the guest image".into(),
            hint: error.to_string(),
        },
        other => BuildError::Unsupported {
            reason: other.to_string(),
        },
    }
}

/// A build that failed after inputs could not be read did not fail by itself.
fn unless_starved(outcome: BuildOutcome, lost_contents: u64) -> Result<BuildOutcome, BuildError> {
    if outcome == BuildOutcome::Success || lost_contents == 0 {
        return Ok(outcome);
    }
    let requests = if lost_contents == 1 { "request" } else { "requests" };
    Err(BuildError::Host {
        reason: format!(
            "{lost_contents} {requests} for its inputs could not be answered; `igloo store verify` says what a store has lost"
        ),
        code: igloo_status::Code::Unavailable, // of a store that is far, perhaps for the moment
        source: None,
    })
}

fn host_failed<E>(what: &str, code: igloo_status::Code, error: E) -> BuildError
where
    E: std::error::Error + Send + Sync + 'static,
{
    BuildError::Host {
        reason: what.into(),
        code,
        source: Some(error.into()),
    }
}

#[cfg(test)]
mod tests;
