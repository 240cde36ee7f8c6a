//! `cargo xtask compare --nixpkgs DIR`: every derivation of a package set, as igloo and as current Nix have it.
//!
//! What there is comes from Nix (`nix-env --query --available`); igloo is asked for the same attributes, in one evaluation.
//! The task fails where a path of a derivation or of an output differs.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::nix::Evaluator;
use crate::{install, shell};

/// Large package sets nest deeper than either evaluator allows unless told to (texlive of nixpkgs 20.09).
const DEPTH: [&str; 3] = ["--option", "max-call-depth", "1000000"];
/// Differences that are shown.
const SHOWN: usize = 20;

/// One derivation, by attribute path: its own path and those of its outputs.
struct Entry {
    name: String,
    paths: BTreeSet<String>,
}

/// Compares, and prints how many are equal and which are not.
pub fn run(words: &[String]) -> Result<()> {
    let [option, tree] = words else {
        bail!("give a nixpkgs tree: cargo xtask compare --nixpkgs DIR")
    };
    if option != "--nixpkgs" {
        bail!("`{option}` is no option; there is --nixpkgs DIR");
    }
    let tree = fs::canonicalize(tree).with_context(|| format!("cannot find {tree}"))?;
    install::ensure(&[install::COMPILE])?;
    shell::run(shell::cargo().args(["build", "--release", "--package", "igloo-cli"]))?;
    let nix = Evaluator::current()?;
    let theirs = of_nix(&nix, &tree)?;
    let ours = of_igloo(&theirs, &tree)?;
    let mut different = 0;
    for (entry, ours) in theirs.iter().zip(&ours) {
        if ours.as_ref() == Some(&entry.paths) {
            continue;
        }
        different += 1;
        if different <= SHOWN {
            println!("{}", entry.name);
            println!("  {}: {:?}", nix.name, entry.paths);
            match ours {
                Some(paths) => println!("  igloo: {paths:?}"),
                None => println!("  igloo: none"),
            }
        }
    }
    println!(
        "{} derivations in {}: {} as {} has them, {different} not",
        theirs.len(),
        tree.display(),
        theirs.len() - different,
        nix.name
    );
    if different > 0 {
        bail!("igloo and {} differ", nix.name);
    }
    Ok(())
}

/// Lines of attribute path, derivation, and `NAME=PATH;PATH`.
fn of_nix(nix: &Evaluator, tree: &Path) -> Result<Vec<Entry>> {
    let mut query = nix.face("nix-env");
    query
        .arg("--file")
        .arg(tree)
        .args(["--query", "--available", "--attr-path", "--no-name"])
        .args(["--drv-path", "--out-path", "--argstr", "system", "x86_64-linux"])
        .args(DEPTH);
    let listed = shell::output(&mut query)?;
    let entries: Option<Vec<Entry>> = listed.lines().map(entry).collect();
    let entries = entries.context("a line of nix-env is not what it should be")?;
    if entries.is_empty() {
        bail!("{} finds no derivation in {}", nix.name, tree.display());
    }
    Ok(entries)
}

fn entry(line: &str) -> Option<Entry> {
    let mut words = line.split_whitespace();
    let (name, derivation, outputs) = (words.next()?, words.next()?, words.next()?);
    // a name may have `=` in it, too
    let outputs = outputs.split(';').map(|output| match output.split_once("=/") {
        Some((name, _)) if !output.starts_with('/') => &output[name.len() + 1..],
        _ => output,
    });
    Some(Entry {
        name: name.to_owned(),
        paths: outputs.chain([derivation]).map(str::to_owned).collect(),
    })
}

fn of_igloo(entries: &[Entry], tree: &Path) -> Result<Vec<Option<BTreeSet<String>>>> {
    let folder = shell::target().join("compare");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let (expression, names) = (folder.join("compare.nix"), folder.join("names.json"));
    fs::write(&expression, include_str!("compare.nix"))?;
    let listed: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    fs::write(&names, serde_json::to_string(&listed)?)?;
    let printed = shell::output(asking(
        &mut Evaluator::igloo()?.command(),
        &expression,
        tree,
        &names,
    ))?;
    let answers: Vec<Option<BTreeSet<String>>> =
        serde_json::from_str(&printed).context("what igloo prints is not a list of paths")?;
    if answers.len() != entries.len() {
        bail!("igloo answers {} of {} questions", answers.len(), entries.len());
    }
    Ok(answers)
}

fn asking<'c>(command: &'c mut Command, expression: &PathBuf, tree: &Path, names: &Path) -> &'c mut Command {
    command
        .args(["--eval", "--strict", "--json"])
        .args(DEPTH)
        .arg(expression)
        .args(["--arg", "tree"])
        .arg(tree)
        .args(["--arg", "names"])
        .arg(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let read = entry("a.b  /s/x-a.drv  doc=/s/d-a=1-doc;/s/o-a=1").expect("a line");
        assert_eq!(read.name, "a.b");
        let paths = ["/s/d-a=1-doc", "/s/o-a=1", "/s/x-a.drv"].map(str::to_owned);
        assert_eq!(read.paths, BTreeSet::from(paths));
        assert!(entry("a /s/x-a.drv").is_none());
    }
}
