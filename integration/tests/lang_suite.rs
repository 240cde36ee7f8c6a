//! Nix's language suites against `igloo nix-instantiate`.
//!
//! `IGLOO_LANG_SUITES` names folders of suites (with `:` between them); `cargo xtask test` sets it to those of the Nix
//! packages it has fetched. `IGLOO_LANG_SUITE` names one more, such as `tests/functional/lang` of a checkout of Nix. A folder
//! is called `lang`: its tests name files as `lang/…`.
//!
//! What passes is judged as Nix's own `lang.sh` does: exit status, and standard output of what succeeds. Where a suite says
//! what a failure prints, the last error line must be the same too. [`OTHER_LINES`] lists where it is not, and why; a row
//! that is no longer needed fails the test.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking and says what it has run"
)]

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use igloo_integration::{Ended, World, finish, finish_reading};
use igloo_testkit::skip;

/// A failure whose last error line is another than the suite's.
struct OtherLine {
    /// Release of Nix whose suite it is.
    release: &'static str,
    /// The test.
    test: &'static str,
    /// What igloo says, as far as it is the same everywhere.
    said: &'static str,
    /// Why that is right, or what is missing.
    reason: &'static str,
}

const OTHER_LINES: &[OtherLine] = &[
    OtherLine {
        release: "2.26",
        test: "eval-fail-fetchTree-negative",
        said: "error: negative value given for 'fetchTree' argument 'owner': -1",
        reason: "Nix 2.34 says this",
    },
    OtherLine {
        release: "2.26",
        test: "eval-fail-hashfile-missing",
        said: "error: path '/pwd/lang/this-file-is-definitely-not-there-7392097' does not exist",
        reason: "Nix 2.34 says this",
    },
    OtherLine {
        release: "2.36",
        test: "eval-fail-fetchTree-relative-path",
        said: "error: this evaluation cannot fetch trees; evaluate with a store that fetches",
        reason: "`igloo nix-instantiate` has no fetcher for trees, so it does not look at the address",
    },
];

/// Every suite has many more tests than this; fewer mean that the folder is not what it seems.
const TESTS_MIN: usize = 100;

#[test]
fn suites_of_packaged_releases() {
    let Some(list) = std::env::var_os("IGLOO_LANG_SUITES") else {
        return skip("IGLOO_LANG_SUITES names no language suites of Nix; `cargo xtask test` fetches them");
    };
    for folder in std::env::split_paths(&list) {
        run_suite(&folder);
    }
}

#[test]
fn suite_of_choice() {
    match std::env::var_os("IGLOO_LANG_SUITE") {
        Some(folder) => run_suite(Path::new(&folder)),
        None => skip("IGLOO_LANG_SUITE does not name tests/functional/lang of a checkout of Nix"),
    }
}

fn run_suite(folder: &Path) {
    let suite = Suite::open(folder);
    let tests = suite.tests();
    assert!(
        tests.len() > TESTS_MIN,
        "only {} tests in {}",
        tests.len(),
        folder.display()
    );
    let wrong: Vec<String> = tests.iter().filter_map(|test| suite.wrong(test)).collect();
    let (count, version) = (tests.len(), &suite.version);
    assert!(
        wrong.is_empty(),
        "Nix {version}: {} of {count} tests:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    eprintln!("{count} tests of Nix {version} pass");
}

struct Suite {
    world: World,
    folder: PathBuf,
    parent: PathBuf,
    version: String,
}

impl Suite {
    fn open(folder: &Path) -> Self {
        let folder = folder.canonicalize().expect("the language suite is a folder");
        assert!(
            folder.ends_with("lang"),
            "{} is not called lang",
            folder.display()
        );
        let parent = folder.parent().expect("a parent").to_path_buf();
        let version = folder
            .ancestors()
            .find_map(|place| fs::read_to_string(place.join(".version")).ok())
            .expect("a file .version, as in Nix's sources, above the suite");
        Self {
            world: World::new(),
            folder,
            parent,
            version: version.trim().to_owned(),
        }
    }

    fn tests(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.folder).expect("a readable folder").flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let tests = names.filter_map(|name| name.strip_suffix(".nix").map(str::to_owned));
        let kinds = ["eval-okay-", "eval-fail-", "parse-okay-", "parse-fail-"];
        let mut tests: Vec<String> = tests
            .filter(|test| kinds.iter().any(|kind| test.starts_with(kind)))
            .filter(|test| !self.has(&format!("{test}.exp-disabled")))
            .collect();
        tests.sort();
        tests
    }

    fn has(&self, name: &str) -> bool {
        self.folder.join(name).exists()
    }

    fn read(&self, name: &str) -> Option<String> {
        let bytes = fs::read(self.folder.join(name)).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Flags from a file beside the test, in which `#` starts a comment.
    fn flags(&self, test: &str) -> Option<Vec<String>> {
        let text = self.read(&format!("{test}.flags"))?;
        let lines = text
            .lines()
            .map(|line| line.split('#').next().unwrap_or_default());
        Some(lines.flat_map(str::split_whitespace).map(str::to_owned).collect())
    }

    /// What is wrong with a test, nothing if it passes.
    fn wrong(&self, test: &str) -> Option<String> {
        let file = format!("lang/{test}.nix");
        let said = if test.starts_with("parse-") {
            let text = fs::File::open(self.parent.join(&file)).expect("the test can be read");
            let ended = finish_reading(&mut self.command(&["--parse", "-"]), text.into());
            self.judge(test, &ended, "exp")
        } else if test.starts_with("eval-fail-") {
            let usual = ["--eval", "--strict", "--show-trace"].map(str::to_owned).to_vec();
            let mut words = self.flags(test).unwrap_or(usual);
            words.push(file);
            self.judge(test, &finish(&mut self.command(&words)), "")
        } else {
            self.wrong_answers(test, &file)
        };
        said.map(|said| format!("{test}: {said}"))
    }

    /// A test of a value may want it in Nix's syntax, as XML, or both.
    fn wrong_answers(&self, test: &str, file: &str) -> Option<String> {
        let xml = ["--eval", "--xml", "--no-location", "--strict"];
        let has_xml = self.has(&format!("{test}.exp.xml"));
        let mut forms: Vec<(&[&str], &str)> = Vec::new();
        if has_xml {
            forms.push((&xml, "exp.xml"));
        }
        if !has_xml || self.has(&format!("{test}.exp")) {
            forms.push((&["--eval", "--strict"], "exp"));
        }
        forms.into_iter().find_map(|(form, expected)| {
            let mut words = self.flags(test).unwrap_or_default();
            words.extend(form.iter().map(|word| (*word).to_owned()));
            words.push(file.to_owned());
            let mut command = self.command(&words);
            command
                .env("NIX_PATH", "lang/dir3:lang/dir4")
                .env("HOME", "/fake-home");
            self.judge(test, &finish(&mut command), expected)
        })
    }

    fn judge(&self, test: &str, ended: &Ended, expected: &str) -> Option<String> {
        let stderr = self.without_place(&ended.stderr);
        let last_line = last_error(&stderr);
        match (test.contains("-okay-"), ended.code) {
            (_, None) => Some(format!("died of a signal: {stderr}")),
            (true, Some(0)) => {
                let stdout = self.without_place(&String::from_utf8_lossy(&ended.stdout));
                let wanted = self.read(&format!("{test}.{expected}"))?;
                let same = wanted.trim_end_matches('\n') == stdout.trim_end_matches('\n');
                (!same).then(|| format!("answers {stdout}"))
            }
            (true, Some(code)) => Some(format!("fails with {code}: {}", last_line.unwrap_or(&stderr))),
            (false, Some(0)) => Some("succeeds".to_owned()),
            (false, Some(_)) => self.wrong_line(test, last_line),
        }
    }

    /// Compares the last error line of a failure, where the suite has one.
    fn wrong_line(&self, test: &str, said: Option<&str>) -> Option<String> {
        let wanted = self.read(&format!("{test}.err.exp"))?;
        let wanted = last_error(&wanted);
        let row = OTHER_LINES
            .iter()
            .find(|row| row.test == test && self.version.starts_with(row.release));
        match row {
            Some(row) if said == wanted => Some(format!(
                "is as in Nix {} now; its row can go ({})",
                row.release, row.reason
            )),
            Some(row) if said == Some(row.said) => None,
            None if said == wanted => None,
            _ => Some(format!("says {said:?} for {wanted:?}")),
        }
    }

    fn command(&self, words: &[impl AsRef<OsStr>]) -> Command {
        let mut command = self.world.igloo();
        command
            .arg("nix-instantiate")
            .args(words)
            .current_dir(&self.parent);
        // as Nix's lang.sh sets it
        command
            .env("TEST_VAR", "foo")
            .env("NIX_STORE_DIR", "/nix/store")
            .env_remove("NIX_PATH")
            .env(
                "NIX_CONFIG",
                "experimental-features = nix-command flakes\nshow-trace = true",
            );
        command
    }

    /// What was printed, with the place of the suite as the suite's own files have it.
    fn without_place(&self, text: &str) -> String {
        text.replace(&*self.parent.to_string_lossy(), "/pwd")
    }
}

fn last_error(text: &str) -> Option<&str> {
    text.lines()
        .map(str::trim)
        .rfind(|line| line.starts_with("error:"))
}
