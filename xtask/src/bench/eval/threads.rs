//! Several attributes of one package set, on one thread and on two.
//!
//! Question: how much sooner do two threads answer, and what do they repeat. The one figure of this benchmark that is a time
//! on the wall: it means something only while nothing else runs, so the load of the machine is printed beside it.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::bench::measure::{Used, interleave, measure_into, median};
use crate::nix::Evaluator;

/// What is asked for: about as much work for each thread.
const ATTRIBUTES: [&str; 4] = ["firefox", "python3", "gcc", "libreoffice"];
/// Its row.
pub const NAME: &str = "nixpkgs on two threads";
/// How much sooner two threads are to answer.
const TARGET: f64 = 1.5;

/// Runs both alternately, and prints what they took: for a set that the attributes share, and for the tree itself, a function
/// that each attribute calls anew, as in Nix.
pub fn row(igloo: &Evaluator, tree: &Path, runs: usize, folder: &Path) -> Result<()> {
    let tree = tree
        .canonicalize()
        .with_context(|| format!("no folder {}", tree.display()))?;
    let tree = tree.display();
    println!("\n{NAME}: drvPath of {}", ATTRIBUTES.join(" "));
    let set = format!("import {tree} {{ system = \"x86_64-linux\"; config = {{ }}; }}");
    of("of one set", igloo, &set, runs, folder)?;
    of("of the tree", igloo, &format!("import {tree}"), runs, folder)
}

fn of(name: &str, igloo: &Evaluator, expression: &str, runs: usize, folder: &Path) -> Result<()> {
    let printed = ["one", "two"].map(|name| folder.join(format!("answer-{name}")));
    let before = load();
    let once = |threads: &str, printed: &Path| {
        let answer = fs::File::create(printed).context("cannot make a file for the answer")?;
        let mut command = igloo.command();
        command.args(["--option", "eval-cores", threads, "--eval", "-E"]);
        command.arg(expression);
        for attribute in ATTRIBUTES {
            command.args(["-A", &format!("{attribute}.drvPath")]);
        }
        measure_into(&mut command, Stdio::from(answer))
    };
    let (one, two) = interleave(runs, || once("1", &printed[0]), || once("2", &printed[1]))?;
    if fs::read(&printed[0])? != fs::read(&printed[1])? {
        bail!("two threads answer otherwise than one");
    }
    let wall = |runs: &[Used]| median(runs, |used| used.wall).as_secs_f64();
    let cpu = |runs: &[Used]| median(runs, |used| used.cpu).as_secs_f64();
    let mib = |runs: &[Used]| median(runs, |used| used.rss_kib) / 1024;
    let ratio = wall(&one) / wall(&two).max(f64::EPSILON);
    println!("{name}: load {before} before, {} after", load());
    for (threads, runs) in [(1, &one), (2, &two)] {
        println!(
            "  {threads} threads: wall s {:.3}, CPU s {:.3}, MiB {}",
            wall(runs),
            cpu(runs),
            mib(runs)
        );
    }
    let verdict = if ratio < TARGET { "MISS" } else { "met" };
    println!("  wall ratio {ratio:.2}x, wanted {TARGET}x: {verdict}");
    Ok(())
}

/// Programs that ran or wanted to, over the last minute.
fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or("unknown").to_owned()
}
