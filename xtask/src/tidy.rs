//! `cargo xtask tidy`: formatting, lints, and the crate graph.
//!
//! Invariants it keeps
//! - `docs/architecture.md` shows exactly the dependencies between our crates;
//! - a crate uses only rows above its own (`ROWS`);
//! - tonic and prost stop at the wire and the face; the language, the formats and the core know no runtime.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::shell;

/// Our crates, ground first: a crate may use those before it. Rows of one wing may not use another wing's unless listed
/// earlier, so the order is the architecture.
const ROWS: &[(&str, &str)] = &[
    ("igloo-status", "ground"),
    ("nix-compat", "ground"),
    ("igloo-castore", "store"),
    ("igloo-control", "builder"),
    ("igloo-build", "builder"),
    ("igloo-store", "store"),
    ("igloo-binary-cache", "store"),
    ("igloo-mount", "store"),
    ("igloo-guest", "builder"),
    ("igloo-vmm", "builder"),
    ("igloo-eval", "evaluator"),
    ("igloo-store-io", "evaluator"),
    ("igloo-evaluator", "evaluator"),
    ("igloo-coordinator", "coordinator"),
    ("igloo-driver", "coordinator"),
    ("igloo-protos", "wire"),
    ("igloo-remote", "wire"),
    ("igloo-cli", "face"),
    ("igloo-mutate", "proof"),
    ("igloo-testkit", "proof"),
    ("igloo-integration", "proof"),
    ("igloo-example-hello", "examples"),
    ("xtask", "chores"),
];

/// What may not be used outside some crates, and why.
const STOPS: &[(&str, &[&str], &str)] = &[
    (
        "tonic",
        &["igloo-protos", "igloo-remote", "igloo-cli"],
        "gRPC stops at the wire",
    ),
    (
        "prost",
        &["igloo-protos", "igloo-remote", "igloo-cli"],
        "wire types stop at the wire",
    ),
];

/// What some crates may not use, and why.
const ABSENCES: &[(&str, &[&str], &str)] = &[
    ("igloo-status", &["tokio"], "codes know no runtime"),
    (
        "nix-compat",
        &["tokio", "igloo-castore"],
        "formats know no runtime and no store",
    ),
    (
        "igloo-eval",
        &["tokio", "igloo-castore", "igloo-store"],
        "the language knows the world through one trait",
    ),
    (
        "igloo-mount",
        &["nix-compat", "igloo-store"],
        "the mount shows any root, knowing nothing of Nix",
    ),
    ("igloo-castore", &["nix-compat"], "content knows nothing of Nix"),
    (
        "igloo-coordinator",
        &["tokio", "igloo-store", "igloo-vmm"],
        "the core only decides",
    ),
];

const BEGIN: &str = "<!-- crate graph: `cargo xtask tidy --fix` writes it -->\n```text\n";
const END: &str = "```\n<!-- end of crate graph -->";

/// Runs the task; `--fix` mends what it can, `--graph` only redraws the crate graph.
pub fn run(options: &[String]) -> Result<()> {
    if options.iter().any(|option| option == "--graph") {
        return graph(true);
    }
    if options.iter().any(|option| option == "--fix") {
        shell::run(shell::cargo().args(["fmt", "--all"]))?;
        return graph(true);
    }
    check()
}

/// Fails on the first thing that is not tidy. A toolchain without rustfmt or clippy checks the rest and says so.
pub fn check() -> Result<()> {
    graph(false)?;
    if has_component("fmt") {
        shell::run(shell::cargo().args(["fmt", "--all", "--check"]))
            .context("run `cargo xtask tidy --fix`")?;
    }
    if !has_component("clippy") {
        return Ok(());
    }
    let lints = [
        "clippy",
        "--release",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ];
    shell::run(shell::cargo().args(lints))
}

/// Whether this toolchain has a cargo subcommand.
fn has_component(name: &str) -> bool {
    let found = shell::output(shell::cargo().args([name, "--version"])).is_ok();
    if !found {
        eprintln!("tidy: this toolchain has no `cargo {name}`, so that part is not checked");
    }
    found
}

fn graph(fix: bool) -> Result<()> {
    let dependencies = dependencies()?;
    check_rows(&dependencies)?;
    let drawn = draw(&dependencies);
    let path = shell::root().join("docs/architecture.md");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let (begin, end) = (text.find(BEGIN), text.find(END));
    let (Some(begin), Some(end)) = (begin, end) else {
        bail!("{} has lost the marks around the crate graph", path.display());
    };
    let begin = begin + BEGIN.len();
    if text[begin..end] == drawn {
        return Ok(());
    }
    if !fix {
        bail!("the crate graph in docs/architecture.md and the code differ; run `cargo xtask tidy --fix`");
    }
    let mended = format!("{}{drawn}{}", &text[..begin], &text[end..]);
    std::fs::write(&path, mended).with_context(|| format!("cannot write {}", path.display()))
}

/// Names of the packages each of our crates uses (not for tests), ours and others.
fn dependencies() -> Result<BTreeMap<String, Vec<String>>> {
    let text = shell::output(shell::cargo().args(["metadata", "--format-version", "1", "--no-deps"]))?;
    let metadata: Value = serde_json::from_str(&text).context("cargo metadata is not JSON")?;
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata lists no packages")?;
    let mut all = BTreeMap::new();
    for package in packages {
        let name = package["name"].as_str().context("a package has no name")?;
        let used = package["dependencies"]
            .as_array()
            .context("a package lists no dependencies")?;
        let used = used.iter().filter(|dependency| dependency["kind"] != "dev");
        let mut used: Vec<String> = used
            .filter_map(|dependency| Some(dependency["name"].as_str()?.into()))
            .collect();
        used.sort();
        used.dedup();
        all.insert(name.to_string(), used);
    }
    Ok(all)
}

fn check_rows(dependencies: &BTreeMap<String, Vec<String>>) -> Result<()> {
    let row = |name: &str| ROWS.iter().position(|(crate_name, _)| *crate_name == name);
    for (name, used) in dependencies {
        let Some(own) = row(name) else {
            bail!("{name} is in no row of xtask/src/tidy.rs")
        };
        if let Some(below) = used
            .iter()
            .find(|used| row(used).is_some_and(|other| other >= own))
        {
            bail!("{name} uses {below}, which is a row below it (xtask/src/tidy.rs)");
        }
        for (stopped, allowed, reason) in STOPS {
            if used.iter().any(|used| used == stopped) && !allowed.contains(&name.as_str()) {
                bail!("{name} uses {stopped}: {reason}");
            }
        }
        for (crate_name, absent, reason) in ABSENCES {
            if let Some(found) = used
                .iter()
                .find(|used| crate_name == name && absent.contains(&used.as_str()))
            {
                bail!("{name} uses {found}: {reason}");
            }
        }
    }
    Ok(())
}

fn draw(dependencies: &BTreeMap<String, Vec<String>>) -> String {
    let mut drawn = String::new();
    for (name, wing) in ROWS {
        let Some(used) = dependencies.get(*name) else {
            continue;
        };
        let ours: Vec<&str> = ROWS
            .iter()
            .map(|(name, _)| *name)
            .filter(|ours| used.iter().any(|used| used == ours))
            .collect();
        let line = format!("{wing:<12} {name:<20} {}", ours.join(" "));
        let _ = writeln!(drawn, "{}", line.trim_end()); // writing to a String cannot fail
    }
    drawn
}
