//! Evaluations for commands: what their words ask for, and the world they run in.
//!
//! The store is opened when something is first read from it or written to it, so that what needs none costs none.

mod builds;
mod far;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use igloo_eval::io::Notice;
use igloo_eval::{EvalIo, Evaluation, Origin, Root};
use igloo_evaluator::run::{Threads, failed, run};
use igloo_evaluator::settings::{self, Configuration, Machine, configure};
use igloo_evaluator::{Argument, EvaluateError, EvaluateEvent, EvaluateRequest, Input, Output};
use igloo_status::Code;
use igloo_store::Store;
use igloo_store_io::fetch::{HttpOptions, TrustedRoots};
use igloo_store_io::{FetchLimits, Registry, Shared, StoreIo, TreePlaces, UrlFetcher, Writes};
use tokio::runtime::{Handle, Runtime};

use self::builds::Builds;
use crate::context::Context;
use crate::failure::Failure;
use crate::stores;

/// What commands that evaluate have in common.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Files to evaluate, or expressions when `expressions` is set; `-` is stdin.
    pub inputs: Vec<String>,
    /// Whether the inputs are expressions.
    pub expressions: bool,
    /// Attribute paths to select; none for the whole.
    pub attributes: Vec<String>,
    /// Arguments for functions.
    pub arguments: Vec<Argument>,
    /// Search path entries in front of `NIX_PATH`'s.
    pub search: Vec<String>,
    /// `--option NAME VALUE`
    pub options: Vec<(String, String)>,
    /// Whether errors show every call.
    pub show_trace: bool,
}

/// Hears goals and printed values; the first failure ends the evaluation.
pub type Tell<'a> = dyn FnMut(EvaluateEvent) -> Result<(), Failure> + 'a;

/// Evaluates what is asked for over the command's store. All it made is durable when this returns.
pub fn evaluate(
    context: &Context,
    request: &Request,
    writes: Writes,
    output: Output,
    tell: &mut Tell<'_>,
) -> Result<(), Failure> {
    let asked = request.to_evaluate(context, output)?;
    // what is only computed needs no store, so it needs nobody else
    if let (Some(url), Writes::Stored) = (&context.config.evaluator, writes) {
        return far::evaluate(context, url, asked, tell);
    }
    let world = World::open(context, &asked, writes)?;
    let show_trace = world.configuration.settings.show_trace;
    let mut evaluation = world.evaluation();
    let mut failure = None;
    let (parts, configuration) = (&world.parts, &world.configuration);
    let threads = Threads {
        count: configuration.threads,
        open: &|| {
            let io: Rc<dyn EvalIo> = Rc::new(parts.world(configuration));
            (
                Evaluation::new(configuration.settings.clone(), Rc::clone(&io)),
                io,
            )
        },
        close: &std::mem::forget,
    };
    let result = run(
        &mut evaluation,
        &*world.io,
        &asked,
        show_trace,
        Some(threads),
        &mut |event| {
            failure = tell(event).err();
            failure.is_none()
        },
    );
    let flushed = world.io.flush();
    world.close();
    // the process ends soon: giving every block back would only cost time
    let _ = std::mem::ManuallyDrop::new(evaluation);
    flushed?;
    match (failure, result) {
        (Some(failure), _) => Err(failure),
        (None, result) => Ok(result?),
    }
}

/// An evaluation that stays open, for a prompt.
pub struct Opened {
    /// The evaluation.
    pub evaluation: Evaluation,
    /// The world it runs in.
    pub world: World,
    /// Arguments for functions.
    pub arguments: Vec<(String, Root)>,
}

/// Opens an evaluation with what the request says, but for its inputs; setting `interrupt` ends what is being evaluated.
pub fn open(
    context: &Context,
    request: &Request,
    writes: Writes,
    interrupt: Arc<AtomicBool>,
) -> Result<Opened, Failure> {
    let asked = request.to_evaluate(context, Output::Goals)?;
    let mut world = World::open(context, &asked, writes)?;
    world.configuration.settings.interrupt = interrupt;
    let show_trace = world.configuration.settings.show_trace;
    let mut evaluation = world.evaluation();
    let mut arguments = Vec::with_capacity(request.arguments.len());
    for argument in &request.arguments {
        let (name, value) = match argument {
            Argument::Expression(name, text) => {
                let value = evaluation.eval_text(text, Origin::String);
                (name, value.map_err(|error| failed(&error, show_trace))?)
            }
            Argument::Text(name, text) => (name, evaluation.string(text.as_bytes())),
        };
        arguments.push((name.clone(), value));
    }
    Ok(Opened {
        evaluation,
        world,
        arguments,
    })
}

/// What the parser makes of the inputs, as `nix-instantiate --parse` prints it.
pub fn parse(context: &Context, request: &Request) -> Result<Vec<String>, Failure> {
    let output = Output::Goals;
    let asked = request.to_evaluate(context, output)?;
    let world = World::open(context, &asked, Writes::Computed)?;
    let show_trace = world.configuration.settings.show_trace;
    let mut evaluation = world.evaluation();
    let mut parsed = Vec::new();
    for input in &asked.inputs {
        let (text, origin) = match input {
            Input::Text(text) => (text.clone(), Origin::String),
            Input::Stdin(text) => (text.clone(), Origin::Stdin),
            Input::File(path) => {
                let text = std::fs::read(path).map_err(|error| {
                    let code = Code::from_io(&error);
                    let error = anyhow::Error::new(error).context(format!("cannot read {path}"));
                    Failure::coded(error, code)
                })?;
                (text.into(), Origin::File(path.as_bytes().into()))
            }
        };
        let text = evaluation.parse(&text, &origin);
        parsed.push(text.map_err(|error| failed(&error, show_trace))?);
    }
    Ok(parsed)
}

impl Request {
    /// The same as an evaluator takes it, with what the environment says.
    pub fn to_evaluate(&self, context: &Context, output: Output) -> Result<EvaluateRequest, Failure> {
        let here = here();
        let inputs: Result<_, Failure> = self.inputs.iter().map(|input| self.input(&here, input)).collect();
        let mut options = context.config.evaluation.clone();
        options.extend_from_slice(&self.options);
        if self.show_trace {
            options.push(("show-trace".to_owned(), "true".to_owned()));
        }
        let variable = context.environment.get(b"NIX_PATH".as_slice());
        let variable = variable.map(|path| String::from_utf8_lossy(path).into_owned());
        let environment = context.environment.iter();
        Ok(EvaluateRequest {
            inputs: inputs?,
            attributes: self.attributes.clone(),
            arguments: self.arguments.clone(),
            search_path: settings::search_paths(&self.search, &options, &variable.unwrap_or_default()),
            options,
            environment: environment
                .map(|(name, value)| (Bytes::copy_from_slice(name), Bytes::copy_from_slice(value)))
                .collect(),
            base_dir: here,
            output,
        })
    }

    fn input(&self, here: &str, input: &str) -> Result<Input, Failure> {
        if self.expressions {
            return Ok(Input::Text(Bytes::copy_from_slice(input.as_bytes())));
        }
        if input == "-" {
            return Ok(Input::Stdin(stdin()?.into()));
        }
        let elsewhere = input.starts_with('<') || input.contains("://") || input.starts_with("channel:");
        Ok(Input::File(if elsewhere {
            input.to_owned()
        } else {
            settings::absolute(here, input)
        }))
    }
}

/// The world of an evaluation.
pub struct World {
    /// Settings and rules.
    pub configuration: Configuration,
    /// The world.
    pub io: Rc<StoreIo>,
    parts: Parts,
    builds: Option<Arc<Builds>>,
    /// Serves the store while it lives.
    runtime: Runtime,
}

impl World {
    /// The world that a request asks for, over the command's store.
    pub fn open(context: &Context, request: &EvaluateRequest, writes: Writes) -> Result<Self, Failure> {
        let home = std::env::var("HOME").ok();
        let configuration = configure(&machine(), &request.options, &request.search_path);
        let configuration = configuration.based_at(&request.base_dir, home);
        for warning in &configuration.warnings {
            eprintln!("{warning}");
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .enable_all()
            .build()
            .map_err(|error| {
                Failure::new(anyhow::Error::new(error).context("cannot start worker threads"))
            })?;
        let store = stores::lazy(context, writes)?;
        // what is only computed cannot be built
        let builds = (writes == Writes::Stored)
            .then(|| Arc::new(Builds::new(context, &request.options, store.clone())));
        let parts = Parts {
            store,
            runtime: runtime.handle().clone(),
            writes,
            environment: Arc::new(request.environment.clone()),
            fetcher: Arc::new(fetcher()),
            trees: trees(),
            builds: builds.clone(),
            shared: Shared::default(),
        };
        Ok(Self {
            io: Rc::new(parts.world(&configuration)),
            configuration,
            parts,
            builds,
            runtime,
        })
    }

    /// Stops builds that still go on.
    pub fn close(&self) {
        if let Some(builds) = &self.builds {
            self.runtime.block_on(builds.close());
        }
    }

    /// A fresh evaluation in this world.
    pub fn evaluation(&self) -> Evaluation {
        let io: Rc<dyn EvalIo> = Rc::<StoreIo>::clone(&self.io);
        Evaluation::new(self.configuration.settings.clone(), io)
    }
}

/// What worlds of one evaluation are made of, on whatever thread.
struct Parts {
    store: Store,
    runtime: Handle,
    writes: Writes,
    environment: Arc<BTreeMap<Bytes, Bytes>>,
    fetcher: Arc<UrlFetcher>,
    trees: TreePlaces,
    builds: Option<Arc<Builds>>,
    shared: Shared,
}

impl Parts {
    /// A world for the thread that calls.
    fn world(&self, configuration: &Configuration) -> StoreIo {
        let environment = Arc::clone(&self.environment);
        let fetcher = Arc::<UrlFetcher>::clone(&self.fetcher);
        let io = StoreIo::new(self.store.clone(), self.runtime.clone())
            .with_writes(self.writes)
            .with_rules(configuration.files.clone())
            .with_uris(configuration.uris.clone())
            .with_env(Box::new(move |name| {
                environment.get(name).map(|value| value.to_vec())
            }))
            .with_notices(Box::new(print_notice))
            .with_fetcher(fetcher, FetchLimits::default())
            .with_trees(configuration.trees(&self.trees))
            .beside(&self.shared);
        match &self.builds {
            Some(builds) => io.with_realiser(Arc::<Builds>::clone(builds)),
            None => io,
        }
    }
}

/// What names of flakes stand for, for everybody: the default of Nix 2.34's `flake-registry`.
const FLAKE_REGISTRY: &str = "https://channels.nixos.org/flake-registry.json";
/// Threads that serve the store of an evaluation.
const WORKERS: usize = 2;

/// The facts of this machine.
pub fn machine() -> Machine {
    let os = match std::env::consts::OS {
        "macos" => "darwin",
        os => os,
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Machine {
        system: format!("{}-{os}", std::env::consts::ARCH),
        seconds: now.ok().and_then(|now| i64::try_from(now.as_secs()).ok()),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
    }
}

/// Fetches URLs, trusting whom `NIX_SSL_CERT_FILE` or the system names.
pub fn fetcher() -> UrlFetcher {
    let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let file = named("NIX_SSL_CERT_FILE").or_else(|| named("SSL_CERT_FILE"));
    UrlFetcher::new(HttpOptions {
        roots: file.map_or(TrustedRoots::System, |file| {
            TrustedRoots::File(PathBuf::from(file))
        }),
        ..HttpOptions::default()
    })
}

/// Where trees are: copies of Git repositories below the XDG cache home, names of flakes in Nix's registries.
pub fn trees() -> TreePlaces {
    let below = |variable: &str, inside: &str| {
        let given = std::env::var_os(variable).map(PathBuf::from);
        given.filter(|path| path.is_absolute()).or_else(|| {
            let home = std::env::var_os("HOME").filter(|home| !home.is_empty())?;
            Some(PathBuf::from(home).join(inside))
        })
    };
    let user = below("XDG_CONFIG_HOME", ".config").map(|folder| folder.join("nix/registry.json"));
    let own = user.into_iter().chain([PathBuf::from("/etc/nix/registry.json")]);
    let global = Registry::Global(FLAKE_REGISTRY.to_owned());
    TreePlaces {
        git_cache: below("XDG_CACHE_HOME", ".cache").map(|folder| folder.join("igloo/git")),
        registries: own.map(Registry::Own).chain([global]).collect(),
    }
}

/// Says what an evaluation says, as Nix does.
pub fn print_notice(notice: Notice) {
    match notice {
        Notice::Trace(text) => eprintln!("trace: {text}"),
        Notice::EvaluationWarning(text) | Notice::Warning(text) => eprintln!("{text}"),
    }
}

impl From<EvaluateError> for Failure {
    /// The evaluator renders its errors itself, excerpt and trace included.
    fn from(error: EvaluateError) -> Self {
        match error {
            EvaluateError::Failed { text, exit, .. } => Self::rendered(text).with_exit(exit),
            error => {
                let code = error.code();
                Self::coded(error, code)
            }
        }
    }
}

fn stdin() -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    let read = std::io::stdin().read_to_end(&mut text);
    read.map_err(|error| Failure::new(anyhow::Error::new(error).context("cannot read stdin")))?;
    Ok(text)
}

/// The path from the root, `.` and `..` resolved in words: links are not followed.
pub fn absolute(path: &str) -> Vec<u8> {
    settings::absolute(&here(), path).into_bytes()
}

fn here() -> String {
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    here.to_string_lossy().into_owned()
}
