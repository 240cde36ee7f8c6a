//! Where things are: the environment, read once, and the configuration.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use crate::args::CommonArguments;
use crate::config::value::Value;
use crate::config::{Config, environment, file};
use crate::failure::Failure;
use crate::suggest::nearest;

/// What every command may need of its surroundings.
#[derive(Clone, Debug)]
pub struct Context {
    /// The store's URL.
    pub store_url: String,
    /// This command, for messages in other processes.
    pub command_name: &'static str,
    /// Whether only failures are told.
    pub quiet: bool,
    /// How much more than usual is told.
    pub verbosity: u8,
    /// Whether stderr is a terminal that may show progress.
    pub terminal: bool,
    /// Whether stderr may have colours.
    pub colours: bool,
    /// What is configured, but for the flags of the command.
    pub config: Config,
    /// Folder for sockets and running machines.
    pub runtime_dir: PathBuf,
    /// Folder for what can be found out again.
    pub cache_dir: PathBuf,
    /// Folder for what is kept from run to run.
    pub state_dir: PathBuf,
    /// Folders in which the guest image may be, in this order, when none is named.
    pub image_dirs: Vec<PathBuf>,
    /// The whole environment, for builds that may see parts of it.
    pub environment: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Context {
    /// Reads the environment and the configuration file.
    ///
    /// # Errors
    /// When the configuration says what cannot be meant.
    pub fn new(arguments: &CommonArguments, command_name: &'static str) -> Result<Self, Failure> {
        let get = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let home = Home {
            root: is_root(),
            get: &get,
        };
        let config = configuration(arguments, &home)?;
        let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr())
            && get("TERM").is_none_or(|term| term != "dumb");
        let mut context = Self {
            store_url: format!("rocksdb://{}", home.store().display()),
            command_name,
            quiet: arguments.quiet,
            verbosity: arguments.verbose,
            terminal,
            colours: terminal && get("NO_COLOR").is_none(),
            config,
            runtime_dir: home.runtime(),
            cache_dir: home.cache(),
            state_dir: home.state(),
            image_dirs: home.images(),
            environment: std::env::vars_os()
                .map(|(name, value)| (name.into_vec(), value.into_vec()))
                .collect(),
        };
        let store = arguments.store.clone().or_else(|| context.config.store.clone());
        context.use_store(store.as_deref())?;
        Ok(context)
    }

    /// Makes this URL, or the store of this name, the command's store; `None` and `auto` change nothing.
    ///
    /// # Errors
    /// When it is neither.
    pub fn use_store(&mut self, store: Option<&str>) -> Result<(), Failure> {
        if let Some(store) = store.filter(|store| *store != "auto") {
            self.store_url = resolve(store, &self.config.stores, "store")?;
        }
        Ok(())
    }

    /// The URL of a builder given as one, or by name.
    ///
    /// # Errors
    /// When it is neither.
    pub fn builder_url(&self, builder: &str) -> Result<String, Failure> {
        resolve(builder, &self.config.builders, "builder")
    }
}

/// Variables that are settings.
const VARIABLES: [(&str, &str); 4] = [
    ("IGLOO_BUILDER", "builder"),
    ("IGLOO_COORDINATOR", "coordinator"),
    ("IGLOO_EVALUATOR", "evaluator"),
    ("IGLOO_IMAGE", "image"),
];

/// The file, then `NIX_CONFIG`, then our own variables. Flags come last, and are the commands' own.
fn configuration(arguments: &CommonArguments, home: &Home<'_>) -> Result<Config, Failure> {
    let mut config = Config::default();
    match &arguments.config {
        Some(path) => file::merge(&mut config, path, true)?,
        None => file::merge(&mut config, &home.config(), false)?,
    }
    if let Ok(text) = std::env::var("NIX_CONFIG") {
        environment::merge(&mut config, &text);
    }
    for (variable, setting) in VARIABLES {
        if let Some(value) = (home.get)(variable) {
            let value = Value::Text(value.to_string_lossy().into_owned());
            config
                .set(setting, &value)
                .map_err(|error| error.into_failure(variable))?;
        }
    }
    Ok(config)
}

/// What has a colon or a slash is a URL; anything else must be a name.
fn resolve(given: &str, names: &BTreeMap<String, String>, what: &str) -> Result<String, Failure> {
    if let Some(url) = names.get(given) {
        return Ok(url.clone());
    }
    if given.contains([':', '/']) {
        return Ok(given.to_string());
    }
    let failure = Failure::usage(format!("there is no {what} called '{given}'"));
    Err(match nearest(given, names.keys().map(String::as_str)) {
        Some(near) => failure.with_hint(format!("did you mean '{near}'?")),
        None => failure.with_hint(format!(
            "give a URL such as grpc+unix:///run/{what}.sock, or name one under [{what}s] in the configuration file"
        )),
    })
}

/// Where a user's files go (XDG base directories; /var and /run for root).
struct Home<'a> {
    root: bool,
    get: &'a dyn Fn(&str) -> Option<OsString>,
}

impl Home<'_> {
    /// Root's data folder is the store itself, which holds nothing else.
    fn images(&self) -> Vec<PathBuf> {
        let own = (!self.root).then(|| {
            self.place("XDG_DATA_HOME", ".local/share", "/var/lib")
                .join("image")
        });
        own.into_iter()
            .chain(["/usr/local/lib/igloo/image", "/usr/lib/igloo/image"].map(PathBuf::from))
            .collect()
    }

    fn store(&self) -> PathBuf {
        let dir = igloo_store::url::default_dir(
            self.root,
            (self.get)("XDG_DATA_HOME").as_deref(),
            (self.get)("HOME").as_deref(),
        );
        dir.unwrap_or_else(|_| PathBuf::from(igloo_store::url::SYSTEM_DIR)) // no home: the system's place, which says what it lacks
    }

    /// Not in root's data folder, which is the store.
    fn state(&self) -> PathBuf {
        match (self.get)("XDG_STATE_HOME") {
            None if self.root => PathBuf::from("/var/lib/igloo-state"),
            _ => self.place("XDG_STATE_HOME", ".local/state", "/var/lib"),
        }
    }

    fn config(&self) -> PathBuf {
        self.place("XDG_CONFIG_HOME", ".config", "/etc")
            .join("config.toml")
    }

    fn cache(&self) -> PathBuf {
        self.place("XDG_CACHE_HOME", ".cache", "/var/cache")
    }

    fn runtime(&self) -> PathBuf {
        match (self.get)("XDG_RUNTIME_DIR") {
            Some(dir) => PathBuf::from(dir).join("igloo"),
            None if self.root => PathBuf::from("/run/igloo"),
            None => self.cache().join("run"),
        }
    }

    fn place(&self, variable: &str, below_home: &str, for_root: &str) -> PathBuf {
        let dir = match ((self.get)(variable), (self.get)("HOME")) {
            (Some(dir), _) => PathBuf::from(dir),
            (None, Some(home)) if !self.root => Path::new(&home).join(below_home),
            _ => PathBuf::from(for_root),
        };
        dir.join("igloo")
    }
}

fn is_root() -> bool {
    // the owner of our own process's folder: no unsafe call, no crate
    std::fs::metadata("/proc/self").is_ok_and(|metadata| std::os::unix::fs::MetadataExt::uid(&metadata) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(root: bool, variables: &[(&str, &str)]) -> (PathBuf, PathBuf, Vec<PathBuf>) {
        let get = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        let home = Home { root, get: &get };
        assert!(
            !home.state().starts_with(home.store()),
            "a store holds nothing else"
        );
        (home.store(), home.runtime(), home.images())
    }

    #[test]
    fn stores_and_builders_have_names() {
        let names = BTreeMap::from([("work".to_string(), "rocksdb:///w".to_string())]);
        assert_eq!(resolve("work", &names, "store").unwrap(), "rocksdb:///w");
        assert_eq!(resolve("memory:", &names, "store").unwrap(), "memory:");
        let failure = resolve("wrok", &names, "store").unwrap_err();
        assert_eq!(
            failure.message(),
            "error: there is no store called 'wrok'\nhint: did you mean 'work'?\n"
        );
    }

    #[test]
    fn files_go_where_the_user_says() {
        let (store, runtime, images) =
            home(false, &[("HOME", "/home/a"), ("XDG_RUNTIME_DIR", "/run/user/1")]);
        assert_eq!(store, PathBuf::from("/home/a/.local/share/igloo/store"));
        assert_eq!(runtime, PathBuf::from("/run/user/1/igloo"));
        assert_eq!(images[0], PathBuf::from("/home/a/.local/share/igloo/image"));
        let (store, runtime, images) = home(true, &[("HOME", "/root")]);
        assert_eq!((store, runtime), ("/var/lib/igloo".into(), "/run/igloo".into()));
        assert!(images.iter().all(|image| !image.starts_with("/var/lib/igloo")));
        assert_eq!(
            home(false, &[("HOME", "/h"), ("XDG_DATA_HOME", "/d")]).0,
            PathBuf::from("/d/igloo/store")
        );
    }
}
