//! What a machine costs: from the order to the agent's hello, a trivial build beside its program, memory on the host.
//!
//! `machine_costs IMAGE_DIR [BUSYBOX] [RUNS]`: BUSYBOX is a static one, `/bin/busybox` by default. Prints medians, as
//! `name value unit` on each line, for people and for `cargo xtask bench`.
#![allow(clippy::print_stdout, reason = "a command line tool")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use igloo_build::{
    BuildError, BuildIo, BuildOutcome, BuildRequest, BuildStats, Builder, Constraints, Limits, OutputSink,
    RelativePath,
};
use igloo_castore::ingest::put_blob;
use igloo_castore::tree::TreeEvent;
use igloo_castore::{Castore, Node, NodeName};
use igloo_vmm::host::default_search;
use igloo_vmm::probe::KVM_PATIENCE;
use igloo_vmm::qemu::Qemu;
use igloo_vmm::{GuestImage, MicroVmBuilder, MicroVmConfig, Probe, ProbeConfig};

const RUNS: usize = 5;
const TRIVIAL: &str = "echo hello; echo done > /nix/store/out";
/// Much log and a large output: what the host holds must not grow with them.
const BULK: &str =
    "/nix/store/busybox dd if=/dev/zero bs=64k count=512; /nix/store/busybox truncate -s 512M /nix/store/out";

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let image = arguments
        .next()
        .context("usage: machine_costs IMAGE_DIR [BUSYBOX] [RUNS]")?;
    let busybox = arguments
        .next()
        .map_or_else(|| "/bin/busybox".into(), PathBuf::from);
    let runs = arguments
        .next()
        .and_then(|text| text.to_str()?.parse().ok())
        .unwrap_or(RUNS);
    let dir = tempfile::tempdir()?;
    let bench = Bench::new(Path::new(&image), &busybox, dir.path()).await?;
    let mut samples = Vec::new();
    for _ in 0..runs {
        samples.push(bench.build(TRIVIAL).await?);
    }
    let median = |of: fn(&Sample) -> Duration| {
        let mut times: Vec<_> = samples.iter().map(of).collect();
        times.sort();
        times
            .get(times.len() / 2)
            .copied()
            .unwrap_or_default()
            .as_secs_f64()
    };
    println!("order_to_hello {:.3} s", median(|sample| sample.stats.boot));
    println!("program {:.3} s", median(|sample| sample.stats.run));
    println!("request_to_success {:.3} s", median(|sample| sample.wall));
    println!(
        "build_beside_program {:.3} s",
        median(|sample| sample.wall.saturating_sub(sample.stats.run))
    );
    println!(
        "shut_down {:.3} s",
        median(|sample| sample.wall.saturating_sub(sample.stats.total))
    );
    let most = |of: fn(&Memory) -> u64| samples.iter().map(|sample| of(&sample.memory)).max().unwrap_or(0);
    println!("host_process {:.1} MiB", mib(most(|memory| memory.ours_kib)));
    let bulk = bench.build(BULK).await?;
    println!("host_process_with_bulk {:.1} MiB", mib(bulk.memory.ours_kib));
    println!("bulk_run {:.3} s", bulk.stats.run.as_secs_f64());
    println!("bulk_log {:.1} MiB", mib(bulk.stats.log_bytes >> 10));
    println!(
        "bulk_collect {:.3} s",
        (bulk.stats.total - bulk.stats.run - bulk.stats.boot).as_secs_f64()
    );
    println!("bulk_output {:.1} MiB", mib(bulk.stats.output_bytes >> 10));
    samples.push(bulk);
    let most = |of: fn(&Memory) -> u64| samples.iter().map(|sample| of(&sample.memory)).max().unwrap_or(0);
    println!(
        "emulator_without_guest_memory {:.1} MiB",
        mib(most(|memory| memory.emulator_kib))
    );
    println!(
        "guest_memory_touched {:.1} MiB",
        mib(most(|memory| memory.guest_kib))
    );
    Ok(())
}

struct Bench {
    builder: MicroVmBuilder,
    castore: Castore,
    inputs: BTreeMap<NodeName, Node>,
    runtime_root: PathBuf,
}

struct Sample {
    stats: BuildStats,
    wall: Duration,
    memory: Memory,
}

impl Bench {
    async fn new(image: &Path, busybox: &Path, dir: &Path) -> Result<Self> {
        let image = GuestImage::open(image)?;
        let runtime_root = dir.join("run");
        let config = ProbeConfig {
            search: default_search(),
            state_dir: dir.join("state"),
            runtime_root: runtime_root.clone(),
            kvm_patience: KVM_PATIENCE,
        };
        let probe = Probe::run(&config, &image, &Qemu).await?;
        println!("# {}, {}", image.id, probe.choice.accelerator);
        let castore = igloo_castore::memory::castore("bench");
        let bytes =
            std::fs::read(busybox).with_context(|| format!("{} (busybox-static)", busybox.display()))?;
        let (digest, size) = put_blob(&castore, bytes.into()).await?;
        let executable = true;
        let inputs = BTreeMap::from([(
            NodeName::try_from("busybox")?,
            Node::File {
                digest,
                size,
                executable,
            },
        )]);
        let config = MicroVmConfig::new(image, probe.host, probe.choice.accelerator, runtime_root.clone());
        let builder = MicroVmBuilder::new(config);
        Ok(Self {
            builder,
            castore,
            inputs,
            runtime_root,
        })
    }

    fn request(&self, script: &str) -> Result<BuildRequest> {
        let path = |text: &str| RelativePath::try_from(text);
        let words = ["busybox", "sh", "-c", script];
        Ok(BuildRequest {
            inputs: self.inputs.clone(),
            inputs_dir: path("nix/store")?,
            program: "/nix/store/busybox".into(),
            arguments: words.map(|word| Bytes::copy_from_slice(word.as_bytes())).to_vec(),
            environment: BTreeMap::new(),
            working_dir: path("build")?,
            scratch_paths: BTreeSet::from([path("build")?, path("nix/store")?]),
            outputs: vec![path("nix/store/out")?],
            additional_files: BTreeMap::new(),
            constraints: Constraints {
                system: "x86_64-linux".into(),
                memory_mib: 0,
                cores: 0,
                network: false,
                features: BTreeSet::new(),
            },
            limits: Limits::default(),
            needles: Vec::new(),
        })
    }

    async fn build(&self, script: &str) -> Result<Sample> {
        let (events, mut watcher) = tokio::sync::mpsc::channel(16);
        tokio::spawn(async move { while watcher.recv().await.is_some() {} });
        let io = BuildIo {
            inputs: self.castore.clone(),
            outputs: Box::new(Forget),
            events,
        };
        let request = self.request(script)?;
        let began = Instant::now();
        let build = self.builder.build(request, io);
        tokio::pin!(build);
        let mut memory = Memory::default();
        let report = loop {
            tokio::select! {
                report = &mut build => break report?,
                () = tokio::time::sleep(Duration::from_millis(20)) => memory.look(&self.runtime_root),
            }
        };
        let wall = began.elapsed();
        ensure!(
            report.outcome == BuildOutcome::Success,
            "the build ended with {:?}",
            report.outcome
        );
        Ok(Sample {
            stats: report.stats,
            wall,
            memory,
        })
    }
}

/// The most that was resident, KiB (proc_pid_status(5)).
#[derive(Default)]
struct Memory {
    ours_kib: u64,
    emulator_kib: u64,
    guest_kib: u64,
}

impl Memory {
    fn look(&mut self, runtime_root: &Path) {
        self.ours_kib = self.ours_kib.max(status("self", "VmRSS:"));
        let machines = std::fs::read_dir(runtime_root).into_iter().flatten().flatten();
        for machine in machines {
            let recorded = std::fs::read_to_string(machine.path().join("process")).unwrap_or_default();
            let pid = recorded.split(' ').next().unwrap_or_default().to_owned();
            // a shared file is the guest's memory; what is the emulator's own is anonymous or its program
            let own = status(&pid, "RssAnon:") + status(&pid, "RssFile:");
            self.emulator_kib = self.emulator_kib.max(own);
            self.guest_kib = self.guest_kib.max(status(&pid, "RssShmem:"));
        }
    }
}

fn status(pid: &str, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0)
}

#[allow(clippy::cast_precision_loss, reason = "a figure for people")]
fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

#[derive(Debug)]
struct Forget;

#[async_trait]
impl OutputSink for Forget {
    async fn begin(&mut self, _: &RelativePath) -> Result<(), BuildError> {
        Ok(())
    }

    async fn event(&mut self, _: TreeEvent) -> Result<(), BuildError> {
        Ok(())
    }

    async fn end(&mut self) -> Result<(), BuildError> {
        Ok(())
    }
}
