//! `igloo build FILE.drv`

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use igloo_build::{BuildOutcome, Builder, Limits};
use igloo_driver::plan::Wanted;
use igloo_driver::realise::{BuildFailure, Built, RealiseError, Realised};
use igloo_driver::request::RequestOptions;
use igloo_driver::{DerivationSource, OutputError, Plan, Realise};
use igloo_mount::tree::DIRECTORY_CACHE_BYTES;
use igloo_mount::{Totals, Tree};
use igloo_store::Store;
use nix_compat::derivation::OutputName;
use nix_compat::store_path::StorePath;
use serde_json::json;
use tokio::sync::mpsc;

use super::{machines, say};
use crate::args::{BuildArguments, NetworkChoice};
use crate::context::Context;
use crate::failure::{EXIT_FAILED, Failure};
use crate::progress::{Progress, ProgressOptions, bytes_for_people, summary};
use crate::stores;

/// Events on their way to the screen.
const EVENTS_MAX: usize = 256;

/// Exit codes of failed builds, one bit for each kind: Nix's (`Worker::failingExitStatus`, build/worker.cc).
const EXIT_BUILD: u8 = 0b110_0100;
const EXIT_TIMEOUT_BIT: u8 = 0b1;
const EXIT_HASH_BIT: u8 = 0b10;

/// Builds what is missing and prints the wanted output paths.
pub async fn run(context: &Context, arguments: BuildArguments) -> Result<(), Failure> {
    let store = stores::open(context).await?;
    let (wanted, folders) = wanted(&arguments.derivations)?;
    let source = DerivationSource::new(store.dir.clone(), folders);
    let plan = Plan::make(&store, &source, wanted).await?;
    let mut built = Vec::new();
    if !plan.builds.is_empty() {
        let builder = builder(context, &arguments).await?;
        let (realised, progress) = realise(context, &arguments, &store, builder, &plan).await;
        report_failures(&store, &realised, &progress)?;
        built = realised.built;
        report_reads(context, &store, &plan, &built).await?;
    }
    answer(&store, &plan, &built, arguments.json)
}

/// What was asked for, and the folders in which derivations lie.
fn wanted(derivations: &[String]) -> Result<(Vec<Wanted>, Vec<PathBuf>), Failure> {
    let mut wanted = Vec::new();
    let mut folders = Vec::new();
    for text in derivations {
        let (file, outputs) = text
            .split_once('!')
            .map_or((text.as_str(), ""), |(file, outputs)| (file, outputs));
        let outputs: Result<BTreeSet<OutputName>, _> = outputs
            .split(',')
            .filter(|name| !name.is_empty() && *name != "*")
            .map(str::parse)
            .collect();
        let outputs = outputs.map_err(|error| Failure::usage(error.to_string()))?;
        let file = Path::new(file);
        wanted.push((DerivationSource::path_of_file(file)?, outputs));
        let folder = match file.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_path_buf(),
            _ => PathBuf::from("."),
        };
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    Ok((wanted, folders))
}

async fn builder(context: &Context, arguments: &BuildArguments) -> Result<Arc<dyn Builder>, Failure> {
    match &arguments.builder {
        Some(url) => stores::remote_builder(context, url).await,
        None => machines::builder(context, &arguments.machines, NetworkChoice::Allow).await,
    }
}

async fn realise(
    context: &Context,
    arguments: &BuildArguments,
    store: &Store,
    builder: Arc<dyn Builder>,
    plan: &Plan,
) -> (Realised, Progress) {
    let seconds = |seconds: u64| (seconds > 0).then(|| Duration::from_secs(seconds));
    let limits = Limits {
        wall: seconds(arguments.timeout),
        silence: seconds(arguments.max_silent_time),
        ..Limits::default()
    };
    let realise = Realise {
        store: store.clone(),
        builder,
        options: RequestOptions {
            cores: arguments.machines.cores,
            memory_mib: arguments.machines.memory,
            limits,
            impure_environment: context.environment.clone(),
        },
        slots: usize::from(arguments.machines.max_jobs),
        keep_going: arguments.keep_going,
    };
    let options = ProgressOptions {
        quiet: context.quiet,
        terminal: context.terminal,
        logs: arguments.print_build_logs,
    };
    let progress = Progress::new(options, store.dir.clone(), plan.builds.len());
    let (sender, receiver) = mpsc::channel(EVENTS_MAX);
    tokio::join!(realise.run(plan, sender), progress.follow(receiver))
}

/// Tells every failure with the last lines of its log; the exit code is Nix's.
fn report_failures(store: &Store, realised: &Realised, progress: &Progress) -> Result<(), Failure> {
    let Some((last, others)) = realised.failed.split_last() else {
        return Ok(());
    };
    for error in others {
        eprint!("{}", describe(store, error, progress).message());
    }
    for path in &realised.not_tried {
        eprintln!("not built: '{}'", store.dir.print(path));
    }
    let bits = realised
        .failed
        .iter()
        .map(|error| exit_bits(&error.failure))
        .fold(0, |all, bits| all | bits);
    Err(describe(store, last, progress).with_exit(if bits == 0 { EXIT_FAILED } else { bits }))
}

fn describe(store: &Store, error: &RealiseError, progress: &Progress) -> Failure {
    let tail: Vec<&str> = store
        .dir
        .parse(&error.drv_path)
        .map(|path| progress.tail(&path).collect())
        .unwrap_or_default();
    let mut text = error.to_string();
    if !tail.is_empty() {
        text = format!("{text};\n       last {} log lines:", tail.len());
        for line in tail {
            text = format!("{text}\n       > {line}");
        }
    }
    let mut causes = Vec::new();
    let mut source = cause(&error.failure);
    while let Some(error) = source {
        causes.push(error.to_string());
        source = error.source();
    }
    let failure = causes
        .into_iter()
        .rev()
        .fold(None, |below: Option<anyhow::Error>, text| {
            Some(below.map_or_else(
                || anyhow::anyhow!(text.clone()),
                |below| below.context(text.clone()),
            ))
        });
    let failure = failure.map_or_else(
        || anyhow::anyhow!(text.clone()),
        |below| below.context(text.clone()),
    );
    Failure::coded(failure, error.failure.code())
}

/// What is below the headline: the headline of an outcome says all itself.
fn cause(failure: &BuildFailure) -> Option<&dyn std::error::Error> {
    match failure {
        BuildFailure::Outcome(_) => None,
        BuildFailure::Output(OutputError::HashMismatch(mismatch)) => Some(mismatch),
        other => Some(other),
    }
}

/// As in Nix, an output that is missing or cannot be kept fails the request (1), not the build (100).
fn exit_bits(failure: &BuildFailure) -> u8 {
    match failure {
        BuildFailure::Outcome(BuildOutcome::Timeout { .. } | BuildOutcome::Silence { .. }) => {
            EXIT_BUILD | EXIT_TIMEOUT_BIT
        }
        BuildFailure::Outcome(BuildOutcome::OutputMissing { .. } | BuildOutcome::OutputInvalid { .. }) => 0,
        BuildFailure::Outcome(_) => EXIT_BUILD,
        BuildFailure::Output(OutputError::HashMismatch(_)) => EXIT_BUILD | EXIT_HASH_BIT,
        _ => 0,
    }
}

/// What the builds read of what they could have read.
async fn report_reads(context: &Context, store: &Store, plan: &Plan, built: &[Built]) -> Result<(), Failure> {
    if context.quiet {
        return Ok(());
    }
    let tree = Tree::new(store.castore.clone(), DIRECTORY_CACHE_BYTES);
    for built in built {
        let Some(planned) = plan
            .builds
            .iter()
            .find(|planned| planned.drv_path == built.drv_path)
        else {
            continue;
        };
        let roots = planned.derivation.input_srcs.iter().chain(&planned.inputs);
        let closure = store.closure(roots.cloned()).await?;
        let totals = Totals::of(&tree, closure.values().map(|info| &info.node)).await?;
        eprintln!(
            "{}: read {} of {} in {} of {} input files",
            planned.derivation.name,
            bytes_for_people(built.stats.input_bytes_read),
            bytes_for_people(totals.bytes),
            built.stats.input_files_read,
            totals.files,
        );
    }
    Ok(())
}

fn answer(store: &Store, plan: &Plan, built: &[Built], as_json: bool) -> Result<(), Failure> {
    let print = |path: &StorePath| store.dir.print(path);
    if !as_json {
        for (_, outputs) in &plan.wanted {
            for path in outputs.values() {
                say(print(path))?;
            }
        }
        return Ok(());
    }
    let one = |(drv_path, outputs): &(StorePath, BTreeMap<OutputName, StorePath>)| {
        let outputs: serde_json::Map<_, _> = outputs
            .iter()
            .map(|(name, path)| (name.to_string(), json!(print(path))))
            .collect();
        let stats = built
            .iter()
            .find(|built| built.drv_path == *drv_path)
            .map(|built| {
                json!({
                    "bootSeconds": built.stats.boot.as_secs_f64(),
                    "runSeconds": built.stats.run.as_secs_f64(),
                    "totalSeconds": built.stats.total.as_secs_f64(),
                    "inputBytesRead": built.stats.input_bytes_read,
                    "inputFilesRead": built.stats.input_files_read,
                    "machine": built.stats.machine,
                    "summary": summary(&built.stats),
                })
            });
        json!({ "drvPath": print(drv_path), "outputs": outputs, "build": stats })
    };
    say(serde_json::Value::from_iter(plan.wanted.iter().map(one)))
}
