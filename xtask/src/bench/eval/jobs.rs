//! What is evaluated: jobs of a nixpkgs tree, and small programs that lie in `eval/lang/benches`.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::shell;

/// One expression to evaluate.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its row in the table.
    pub name: String,
    /// What to evaluate.
    pub expression: String,
    /// The same with four times the work, where there is such a thing.
    pub larger: Option<String>,
    /// What igloo may use of what current Nix uses.
    pub target: Target,
}

/// The most that igloo may use, as parts of current Nix's figures.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// CPU seconds.
    pub cpu: f64,
    /// Peak resident memory; none is set for small programs, whose memory is mostly the process.
    pub memory: Option<f64>,
}

/// How much more work the larger of two sizes is.
pub const GROWTH: u64 = 4;

/// Small programs: file in `eval/lang/benches`, and the size for which Nix takes some tenths of a second.
const PROGRAMS: &[(&str, u64)] = &[
    ("list-map", 300_000),
    ("list-filter", 200_000),
    ("list-foldl", 100_000),
    ("list-concat-lists", 400_000),
    ("list-concat-map", 200_000),
    ("list-gen", 150_000),
    ("list-elem", 50_000),
    ("string-concat-sep", 400_000),
    ("string-replace", 150_000),
    ("string-split", 100_000),
    ("string-match", 50_000),
    ("string-substring", 100_000),
    ("string-interpolate", 100_000),
    ("attrs-update", 200_000),
    ("attrs-update-large", 20_000),
    ("attrs-update-growing", 3_000),
    ("attrs-map", 75_000),
    ("attrs-list-to-attrs", 75_000),
    ("attrs-remove", 75_000),
    ("attrs-intersect", 200_000),
    ("attrs-select", 200_000),
    ("attrs-zip", 100_000),
    ("attrs-equal", 75_000),
    ("sort", 40_000),
    ("group-by", 150_000),
    ("generic-closure", 50_000),
    ("calls", 300_000),
    ("calls-pattern", 200_000),
    ("with-scopes", 150_000),
    ("fixed-point", 100_000),
    ("derivations", 8_000),
    ("hash-string", 100_000),
    ("versions", 25_000),
    ("json", 25_000),
    ("toml", 10_000),
    ("xml", 40_000),
];

/// The small programs.
///
/// # Errors
/// The table and the folder differ: a program that nobody runs proves nothing.
pub fn programs() -> Result<Vec<Job>> {
    let folder = shell::root().join("eval/lang/benches");
    let entries = std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let known = PROGRAMS
            .iter()
            .any(|(program, _)| name == format!("{program}.nix"));
        if !known && name != MACHINE {
            bail!("{name} in eval/lang/benches is in no row of xtask/src/bench/eval/jobs.rs");
        }
    }
    let target = Target {
        cpu: 1.0,
        memory: None,
    };
    let job = |(name, size): &(&str, u64)| {
        let call = |size: u64| format!("import {}/{name}.nix {size}", folder.display());
        Job {
            name: (*name).to_owned(),
            expression: call(*size),
            larger: Some(call(size * GROWTH)),
            target,
        }
    };
    Ok(PROGRAMS.iter().map(job).collect())
}

/// The configuration of the machine that is evaluated.
const MACHINE: &str = "nixos-minimal.nix";

/// Two packages and a machine out of a nixpkgs tree.
///
/// # Errors
/// The folder is no such tree.
pub fn nixpkgs(tree: &Path) -> Result<Vec<Job>> {
    let tree = tree
        .canonicalize()
        .with_context(|| format!("no folder {}", tree.display()))?;
    if !tree.join("nixos/default.nix").is_file() {
        bail!(
            "{} is no nixpkgs tree: it has no nixos/default.nix",
            tree.display()
        );
    }
    let tree = tree.display();
    let machine = shell::root().join("eval/lang/benches").join(MACHINE);
    let package = |name: &str| {
        format!("(import {tree} {{ system = \"x86_64-linux\"; config = {{ }}; }}).{name}.drvPath")
    };
    let target = Target {
        cpu: 0.6,
        memory: Some(0.85),
    };
    let job = |name: &str, expression: String| Job {
        name: name.to_owned(),
        expression,
        larger: None,
        target,
    };
    Ok(vec![
        job("nixpkgs hello", package("hello")),
        job("nixpkgs firefox", package("firefox")),
        job(
            "NixOS minimal",
            format!(
                "(import {tree}/nixos {{ system = \"x86_64-linux\"; configuration = {}; }}).system.drvPath",
                machine.display()
            ),
        ),
    ])
}
