//! Words of the command line as jobs.
//!
//! Neighbours of one kind make one job, so that what they share is evaluated and built once; jobs keep the order of the words.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use igloo_build::Limits;
use igloo_driver::DerivationSource;
use igloo_driver::job::{Job, JobOptions, Wanted};
use igloo_evaluator::settings::search_paths;
use igloo_evaluator::{EvaluateRequest, Input, Output};
use igloo_status::Code;
use nix_compat::derivation::OutputName;
use nix_compat::store_path::{StoreDir, StorePath};

use super::Wish;
use crate::config::Config;
use crate::context::Context;
use crate::evaluation::absolute;
use crate::failure::Failure;

/// Most bytes of an expression on stdin.
const STDIN_SIZE_MAX: u64 = 64 << 20;
/// The word for it.
const STDIN: &str = "-";

/// One word.
enum Given {
    Nix(Input),
    Derivation(StorePath, BTreeSet<OutputName>, PathBuf),
    Path(StorePath),
}

/// The jobs of a wish, at least one.
///
/// `stdin` is what the word `-` means.
pub fn jobs(context: &Context, wish: &Wish, stdin: Option<&Bytes>) -> Result<Vec<Job>, Failure> {
    let words = if wish.inputs.is_empty() {
        &["./default.nix".to_string()][..]
    } else {
        &wish.inputs
    };
    let mut jobs: Vec<Job> = Vec::new();
    for word in words {
        let given = understand(word, wish, stdin)?;
        add(&mut jobs, given, context, wish);
    }
    Ok(jobs)
}

fn add(jobs: &mut Vec<Job>, given: Given, context: &Context, wish: &Wish) {
    let last = jobs.last_mut();
    match (given, last) {
        (
            Given::Nix(input),
            Some(Job {
                wanted: Wanted::Evaluated(request),
                ..
            }),
        ) => request.inputs.push(input),
        (
            Given::Path(path),
            Some(Job {
                wanted: Wanted::Paths(paths),
                ..
            }),
        ) => paths.push(path),
        (
            Given::Derivation(path, outputs, folder),
            Some(Job {
                wanted: Wanted::Outputs(goals),
                options,
            }),
        ) => {
            goals.push((path, outputs));
            if !options.folders.contains(&folder) {
                options.folders.push(folder);
            }
        }
        (given, _) => {
            let mut options = options(context, wish);
            let wanted = match given {
                Given::Nix(input) => Wanted::Evaluated(Box::new(request(context, wish, input))),
                Given::Path(path) => Wanted::Paths(vec![path]),
                Given::Derivation(path, outputs, folder) => {
                    options.folders.push(folder);
                    Wanted::Outputs(vec![(path, outputs)])
                }
            };
            jobs.push(Job { wanted, options });
        }
    }
}

fn understand(word: &str, wish: &Wish, stdin: Option<&Bytes>) -> Result<Given, Failure> {
    if wish.expressions {
        return Ok(Given::Nix(Input::Text(Bytes::copy_from_slice(word.as_bytes()))));
    }
    if word == STDIN {
        return Ok(Given::Nix(Input::Stdin(stdin.cloned().unwrap_or_default())));
    }
    if let Some((file, outputs)) = derivation(word) {
        return of_derivation(file, outputs, wish);
    }
    if !wish.is_nix_build
        && let Ok(path) = StoreDir::default().parse(word)
        && !path.name().as_str().ends_with(".nix")
    {
        return Ok(Given::Path(path));
    }
    Ok(Given::Nix(Input::File(file(word)?)))
}

/// `FILE.drv`, `FILE.drv!OUTPUTS` as Nix's older commands have it, or `FILE.drv^OUTPUTS` as the newer ones do.
fn derivation(word: &str) -> Option<(&str, &str)> {
    if word.ends_with(".drv") {
        return Some((word, ""));
    }
    let (file, outputs) = word.rsplit_once(['!', '^'])?;
    file.ends_with(".drv").then_some((file, outputs))
}

fn of_derivation(file: &str, outputs: &str, wish: &Wish) -> Result<Given, Failure> {
    if !wish.attributes.is_empty() && !wish.is_nix_build {
        return Err(Failure::usage(format!(
            "-A {} selects from a Nix file, but {file} is a derivation",
            wish.attributes[0]
        ))
        .with_hint(format!("{file}!OUTPUT names one of its outputs")));
    }
    let names: Result<BTreeSet<OutputName>, _> = outputs
        .split(',')
        .filter(|name| !name.is_empty() && *name != "*")
        .map(str::parse)
        .collect();
    let mut names = names.map_err(|error| Failure::usage(error.to_string()))?;
    if names.is_empty() && wish.is_nix_build && outputs.is_empty() {
        names.extend("out".parse::<OutputName>()); // recorded from nix-build 2.8 and 2.34
    }
    let file = Path::new(file);
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_path_buf(),
        _ => PathBuf::from("."),
    };
    Ok(Given::Derivation(
        DerivationSource::path_of_file(file)?,
        names,
        folder,
    ))
}

/// What the evaluator takes for a file: absolute, unless it is no path; and there, for nobody knows better what to do.
fn file(word: &str) -> Result<String, Failure> {
    if word.starts_with('<') || word.contains("://") || word.starts_with("channel:") {
        return Ok(word.to_string());
    }
    let path = String::from_utf8(absolute(word))
        .map_err(|_| Failure::usage(format!("{word} leads to a path that is no text")))?;
    let missing = |path: &str, hint: &str| {
        Err(Failure::coded(anyhow::anyhow!("path '{path}' does not exist"), Code::NotFound).with_hint(hint))
    };
    const NO_FILE: &str = "name a Nix file or a folder with a default.nix, or give an expression with -E";
    match std::fs::metadata(&path) {
        Ok(metadata) if metadata.is_dir() && !Path::new(&path).join("default.nix").exists() => {
            missing(&format!("{path}/default.nix"), NO_FILE)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => missing(&path, NO_FILE),
        _ => Ok(path),
    }
}

/// Reads stdin, if the wish asks for it, in a thread of its own: whoever waits for a person can still be stopped.
pub async fn stdin(wish: &Wish) -> Result<Option<Bytes>, Failure> {
    if wish.expressions || !wish.inputs.iter().any(|word| word == STDIN) {
        return Ok(None);
    }
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = sender.send(read_stdin()); // stopped meanwhile: nobody wants it
    });
    let text = receiver
        .await
        .unwrap_or_else(|_| Err(std::io::ErrorKind::UnexpectedEof.into()));
    let text = text.map_err(|error| Failure::new(anyhow::Error::new(error).context("cannot read stdin")))?;
    Ok(Some(text.into()))
}

fn read_stdin() -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    std::io::stdin().take(STDIN_SIZE_MAX + 1).read_to_end(&mut text)?;
    if text.len() as u64 > STDIN_SIZE_MAX {
        return Err(std::io::Error::other(format!(
            "it has more than {STDIN_SIZE_MAX} bytes"
        )));
    }
    Ok(text)
}

fn request(context: &Context, wish: &Wish, input: Input) -> EvaluateRequest {
    let nix_path = context.environment.get("NIX_PATH".as_bytes());
    let nix_path = nix_path.map(|path| String::from_utf8_lossy(path).into_owned());
    EvaluateRequest {
        inputs: vec![input],
        attributes: wish.attributes.clone(),
        arguments: wish.arguments.clone(),
        search_path: search_paths(
            &wish.search,
            &wish.config.evaluation,
            &nix_path.unwrap_or_default(),
        ),
        options: wish.config.evaluation.clone(),
        environment: environment(context),
        base_dir: String::from_utf8_lossy(&absolute(".")).into_owned(),
        output: Output::Goals,
    }
}

fn options(context: &Context, wish: &Wish) -> JobOptions {
    JobOptions {
        dry_run: wish.dry_run,
        check: wish.check,
        ..job_options(context, &wish.config)
    }
}

/// How jobs are run by this configuration.
pub fn job_options(context: &Context, config: &Config) -> JobOptions {
    let limits = Limits {
        wall: config.timeout,
        silence: config.max_silent_time,
        log_bytes: config.max_log_bytes,
        ..Limits::default()
    };
    JobOptions {
        keep_going: config.keep_going,
        substitute: config.substitute,
        dry_run: false,
        check: false,
        cores: config.cores,
        memory_mib: config.memory_mib,
        limits,
        impure_environment: environment(context),
        folders: Vec::new(),
    }
}

fn environment(context: &Context) -> std::collections::BTreeMap<Bytes, Bytes> {
    let variables = context.environment.iter();
    variables
        .map(|(name, value)| (Bytes::copy_from_slice(name), Bytes::copy_from_slice(value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivations_are_told_from_files() {
        assert_eq!(derivation("a.drv"), Some(("a.drv", "")));
        assert_eq!(derivation("x/a.drv!out,dev"), Some(("x/a.drv", "out,dev")));
        assert_eq!(derivation("a.drv^*"), Some(("a.drv", "*")));
        assert_eq!(derivation("a!b.nix"), None);
        assert_eq!(derivation("default.nix"), None);
    }

    #[test]
    fn files_that_are_missing_are_named_with_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let text = dir.path().to_str().unwrap();
        let message = file(text).unwrap_err().message();
        assert!(
            message.contains(&format!("path '{text}/default.nix' does not exist")),
            "{message}"
        );
        assert!(message.contains("hint: "), "{message}");
        std::fs::write(dir.path().join("default.nix"), "1").unwrap();
        assert_eq!(file(text).unwrap(), text);
        assert_eq!(file("<nixpkgs>").unwrap(), "<nixpkgs>");
    }
}
