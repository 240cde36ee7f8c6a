//! Nix's language suite (`tests/functional/lang` of NixOS/nix) against the evaluator's command-line face.
//!
//! `IGLOO_LANG_SUITE` names the directory, which must be called `lang`: the tests name files as `lang/…`. Without it the
//! test is skipped, loudly. What passes is judged as `lang.sh` does: exit status, and standard output of what succeeds. Last
//! error lines are counted too.

#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test fails by panicking and is skipped loudly"
)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Tests of `eval-fail` whose last error line may differ: those whose text comes from a library of C++.
const LAST_LINES_MAY_DIFFER: usize = 23;

struct Suite {
    dir: PathBuf,
    parent: PathBuf,
}

struct Outcome {
    success: bool,
    stdout: String,
    stderr: String,
}

impl Suite {
    fn read(&self, name: &str) -> Option<String> {
        fs::read(self.dir.join(name))
            .ok()
            .map(|b| String::from_utf8_lossy(&b).into_owned())
    }

    fn flags(&self, name: &str) -> Option<Vec<String>> {
        let text = self.read(&format!("{name}.flags"))?;
        let lines = text.lines().map(|l| l.split('#').next().unwrap_or_default());
        Some(lines.flat_map(str::split_whitespace).map(str::to_owned).collect())
    }

    fn run(&self, args: &[String], stdin: Option<&Path>, okay: bool) -> Outcome {
        let mut command = Command::new(env!("CARGO_BIN_EXE_igloo-eval"));
        command
            .args(args)
            .current_dir(&self.parent)
            .env_remove("NIX_PATH");
        command.env("TEST_VAR", "foo").env("NIX_STORE_DIR", "/nix/store");
        command.env(
            "NIX_CONFIG",
            "experimental-features = nix-command flakes\nshow-trace = true",
        );
        if okay {
            command
                .env("NIX_PATH", "lang/dir3:lang/dir4")
                .env("HOME", "/fake-home");
        }
        command.stdin(match stdin.map(fs::File::open) {
            Some(Ok(file)) => Stdio::from(file),
            _ => Stdio::null(),
        });
        let output = command.output().expect("the evaluator starts");
        let here = self.parent.to_string_lossy().into_owned();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&here, "/pwd");
        assert!(
            output.status.code().is_some(),
            "{args:?} died of a signal: {}",
            text(&output.stderr)
        );
        Outcome {
            success: output.status.success(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    /// Whether the test passes, and whether its last error line is Nix's.
    fn one(&self, name: &str) -> (bool, bool) {
        let file = format!("lang/{name}.nix");
        let strings = |items: &[&str]| items.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        if name.starts_with("parse-") {
            let outcome = self.run(&strings(&["--parse", "-"]), Some(&self.parent.join(&file)), false);
            return self.judge(name, &outcome, &format!("{name}.exp"));
        }
        if name.starts_with("eval-fail-") {
            let mut args = self
                .flags(name)
                .unwrap_or_else(|| strings(&["--eval", "--strict", "--show-trace"]));
            args.push(file);
            return self.judge(name, &self.run(&args, None, false), "");
        }
        let xml = format!("{name}.exp.xml");
        let mut args = self.flags(name).unwrap_or_default();
        let (flags, expected) = if self.dir.join(&xml).exists() {
            (strings(&["--eval", "--xml", "--no-location", "--strict"]), xml)
        } else {
            (strings(&["--eval", "--strict"]), format!("{name}.exp"))
        };
        args.extend(flags);
        args.push(file);
        self.judge(name, &self.run(&args, None, true), &expected)
    }

    fn judge(&self, name: &str, outcome: &Outcome, expected: &str) -> (bool, bool) {
        let okay = name.contains("-okay-");
        if outcome.success != okay {
            return (false, false);
        }
        if okay {
            let expected = self.read(expected);
            let same =
                expected.is_none_or(|e| e.trim_end_matches('\n') == outcome.stdout.trim_end_matches('\n'));
            return (same, true);
        }
        let wanted = self.read(&format!("{name}.err.exp")).unwrap_or_default();
        (true, last_error(&wanted) == last_error(&outcome.stderr))
    }
}

fn last_error(text: &str) -> Option<&str> {
    text.lines().map(str::trim).rfind(|l| l.starts_with("error:"))
}

fn skip(why: &str) {
    let line = format!("SKIPPED: lang_suite: {why}");
    eprintln!("{line}");
    if let Some(path) = std::env::var_os("IGLOO_TEST_SKIPS")
        && let Ok(mut file) = fs::OpenOptions::new().create(true).append(true).open(path)
    {
        let _ = writeln!(file, "{line}"); // said on stderr as well
    }
}

#[test]
fn language_suite() {
    let Some(dir) = std::env::var_os("IGLOO_LANG_SUITE").map(PathBuf::from) else {
        return skip("IGLOO_LANG_SUITE does not name tests/functional/lang of a NixOS/nix checkout");
    };
    let dir = dir.canonicalize().expect("IGLOO_LANG_SUITE is a directory");
    let suite = Suite {
        parent: dir.parent().expect("a parent").to_owned(),
        dir,
    };
    let mut names: Vec<String> = fs::read_dir(&suite.dir)
        .expect("a readable directory")
        .filter_map(|e| {
            e.ok()?
                .file_name()
                .into_string()
                .ok()?
                .strip_suffix(".nix")
                .map(str::to_owned)
        })
        .filter(|n| {
            ["eval-okay-", "eval-fail-", "parse-okay-", "parse-fail-"]
                .iter()
                .any(|p| n.starts_with(p))
        })
        .filter(|n| !suite.dir.join(format!("{n}.exp-disabled")).exists())
        .collect();
    names.sort();
    assert!(names.len() > 400, "only {} tests found", names.len());
    let (mut failed, mut other_line) = (Vec::new(), Vec::new());
    for name in &names {
        let (pass, same_line) = suite.one(name);
        if !pass {
            failed.push(name.as_str());
        }
        if !same_line && name.starts_with("eval-fail-") {
            other_line.push(name.as_str());
        }
    }
    assert!(
        failed.is_empty(),
        "{} of {} fail: {failed:?}",
        failed.len(),
        names.len()
    );
    assert!(
        other_line.len() <= LAST_LINES_MAY_DIFFER,
        "other last error lines: {other_line:?}"
    );
}
