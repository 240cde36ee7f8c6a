//! A build of the fixture program, as Nix would ask for it, and what came of it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use igloo_build::{
    BuildError, BuildEvent, BuildIo, BuildReport, BuildRequest, Builder, Constraints, Limits, RelativePath,
};
use tokio::sync::mpsc;

use super::Rig;
use super::inputs::Inputs;
use super::sink::{Entry, MapSink};

/// The fixture program's name in the inputs.
pub const PROGRAM: &str = "0a-program";
/// The output's path, relative.
pub const OUT: &str = "nix/store/0b-out";

/// What came of a build.
pub struct Built {
    pub result: Result<BuildReport, BuildError>,
    pub log: String,
    pub outputs: BTreeMap<String, Entry>,
    pub events: Vec<&'static str>,
}

impl Built {
    /// The report of a build that reached its end, with what went wrong in full otherwise.
    pub fn report(&self) -> &BuildReport {
        match &self.result {
            Ok(report) => report,
            Err(error) => panic!("{error}: {error:?}\nlog: {}", self.log),
        }
    }

    /// Checks that the log has this line.
    pub fn says(&self, line: &str) {
        assert!(
            self.log.lines().any(|said| said == line),
            "`{line}` is not in the log:\n{}",
            self.log
        );
    }
}

pub fn path(text: &str) -> RelativePath {
    RelativePath::try_from(text).unwrap()
}

/// A request to run commands of the fixture program; they are separated by ` ; `, words by blanks.
pub async fn request(rig: &Rig, inputs: &Inputs, commands: &str) -> BuildRequest {
    let mut nodes = inputs.nodes.clone();
    let program = std::fs::read(&rig.program).unwrap();
    nodes.insert(super::inputs::name(PROGRAM), inputs.file(program, true).await);
    let arguments = ["program"]
        .into_iter()
        .chain(commands.split(' ').filter(|word| !word.is_empty()));
    BuildRequest {
        inputs: nodes,
        inputs_dir: path("nix/store"),
        program: format!("/nix/store/{PROGRAM}").into(),
        arguments: arguments
            .map(|word| Bytes::copy_from_slice(word.as_bytes()))
            .collect(),
        environment: BTreeMap::from([(Bytes::from("out"), Bytes::from(format!("/{OUT}")))]),
        working_dir: path("build"),
        scratch_paths: BTreeSet::from([path("build"), path("nix/store")]),
        outputs: vec![path(OUT)],
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
    }
}

/// Runs a request to its end, reading its events as they come.
pub async fn run(builder: &dyn Builder, inputs: &Inputs, request: BuildRequest) -> Built {
    let (events, mut watcher) = mpsc::channel(16);
    let (sink, outputs) = MapSink::new();
    let io = BuildIo {
        inputs: inputs.castore.clone(),
        outputs: Box::new(sink),
        events,
    };
    let watch = async {
        let (mut log, mut names) = (Vec::new(), Vec::new());
        while let Some(event) = watcher.recv().await {
            match event {
                BuildEvent::Preparing { .. } => names.push("preparing"),
                BuildEvent::Started => names.push("started"),
                BuildEvent::Collecting => names.push("collecting"),
                BuildEvent::Log { sequence, bytes } => {
                    assert_eq!(sequence, log.len() as u64, "a gap in the log");
                    log.extend_from_slice(&bytes);
                }
            }
        }
        (log, names)
    };
    let (result, (log, events)) = tokio::join!(builder.build(request, io), watch);
    let outputs = std::mem::take(&mut *outputs.lock().unwrap());
    Built {
        result,
        log: String::from_utf8_lossy(&log).into_owned(),
        outputs,
        events,
    }
}

/// Runs commands on the shared builder, with no inputs but the program.
pub async fn run_commands(rig: &Rig, commands: &str) -> Built {
    let inputs = Inputs::new();
    let request = request(rig, &inputs, commands).await;
    run(rig.builder(), &inputs, request).await
}
