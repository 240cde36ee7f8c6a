//! `front_end STORE FILE SLOTS ATTRIBUTE..`: a front end of the coordinator, as a CI server would be one.
//!
//! It evaluates FILE over an embedded store and builds what the attributes name, as many at once as there are slots.
//! Its builder runs nothing: every output is a file of its own name. So the figures of `cargo xtask bench coordinator` are what
//! evaluation, store and coordinator cost; a real front end passes a builder of `vmbuilder/vmm` or `protos/remote`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use igloo_build::{BuildError, BuildIo, BuildOutcome, BuildReport, BuildRequest, BuildStats, Builder};
use igloo_driver::job::{Coordinator, Job, JobOptions, Update, Wanted};
use igloo_driver::local::LocalCoordinator;
use igloo_driver::local::config::{LocalConfig, NamedBuilder};
use igloo_evaluator::settings::Machine;
use igloo_evaluator::{EvaluateRequest, Input, LocalEvaluator, Output};
use igloo_store::{OpenOptions, StoreUrl};
use tokio::sync::mpsc;

const SYSTEM: &str = "x86_64-linux";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, file, slots, attributes @ ..] = arguments.as_slice() else {
        return Err("usage: front_end STORE FILE SLOTS ATTRIBUTE..".into());
    };

    // the parts: a store, a builder, an evaluator; each could be in another process
    let url: StoreUrl = format!("rocksdb://{folder}").parse()?;
    let store = igloo_store::open(&url, &OpenOptions::default())?;
    let builder = NamedBuilder::new("nothing", Arc::new(RunsNothing), slots.parse()?);
    let mut config = LocalConfig::new(store.clone(), Path::new(folder).join("state"), vec![builder]);
    let runtime = tokio::runtime::Handle::current();
    let machine = || Machine {
        system: SYSTEM.into(),
        seconds: None,
        cores: 0,
    };
    config.evaluator = Some(Arc::new(LocalEvaluator::new(store, runtime, Arc::new(machine))));
    let coordinator = LocalCoordinator::open(config).await?;

    // what is wanted, and someone who watches
    let wanted = Wanted::Evaluated(Box::new(EvaluateRequest {
        inputs: vec![Input::File(file.clone())],
        attributes: attributes.to_vec(),
        arguments: Vec::new(),
        search_path: Vec::new(),
        options: Vec::new(),
        environment: Default::default(),
        base_dir: "/".into(),
        output: Output::Goals,
    }));
    let options = JobOptions::default();
    let (sender, mut updates) = mpsc::channel(64);
    let watch = async {
        while let Some(update) = updates.recv().await {
            if let Update::BuildEnded { drv, end } = update {
                eprintln!("{drv}: {end:?}");
            }
        }
    };
    let (report, ()) = tokio::join!(coordinator.run(Job { wanted, options }, sender), watch);

    let report = report?;
    for failure in &report.failures {
        eprintln!("{}: {}", failure.headline, failure.causes.join(": "));
    }
    for goal in report.goals {
        println!("{}: {:?}", goal.goal.drv, goal.outputs);
    }
    coordinator.close().await;
    Ok(())
}

/// A builder whose outputs are files that hold their own paths.
#[derive(Debug)]
struct RunsNothing;

#[async_trait]
impl Builder for RunsNothing {
    async fn build(&self, request: BuildRequest, mut io: BuildIo) -> Result<BuildReport, BuildError> {
        for output in &request.outputs {
            let content = Bytes::copy_from_slice(output.as_bytes());
            io.write_file(output, content).await?;
        }
        let (outcome, stats) = (BuildOutcome::Success, BuildStats::default());
        Ok(BuildReport { outcome, stats })
    }

    fn systems(&self) -> Vec<String> {
        vec![SYSTEM.into()]
    }
}
