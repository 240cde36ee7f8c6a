//! Whole outputs of commands, compared with files that are reviewed.
//!
//! A snapshot is `tests/snapshots/NAME.txt`: each command as typed, its exit code, stdout and stderr. What differs from run to run
//! is replaced by words in capitals. `IGLOO_UPDATE_SNAPSHOTS=1` writes the files; the diff is what a reviewer reads.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::{Ended, World, finish};

/// Commands and what they answered.
#[derive(Debug)]
pub struct Snapshot<'a> {
    world: &'a World,
    name: &'static str,
    text: String,
}

impl<'a> Snapshot<'a> {
    /// A snapshot of commands in this world.
    pub fn new(world: &'a World, name: &'static str) -> Self {
        Self {
            world,
            name,
            text: String::new(),
        }
    }

    /// Runs `igloo` with these words and takes down what it answers.
    pub fn run(&mut self, words: &[&str]) -> Ended {
        self.run_with(words, &[])
    }

    /// The same with variables.
    pub fn run_with(&mut self, words: &[&str], variables: &[(&str, &str)]) -> Ended {
        let mut command = self.world.igloo();
        command.args(words).envs(variables.iter().copied());
        let ended = finish(&mut command);
        let typed: Vec<String> = variables
            .iter()
            .map(|(name, value)| format!("{name}={}", quoted(value)))
            .chain(["igloo".to_string()])
            .chain(words.iter().map(|word| quoted(word)))
            .collect();
        let code = ended.code.map_or("a signal".to_string(), |code| code.to_string());
        let text = format!(
            "$ {}\nexit {code}\n{}{}\n",
            typed.join(" "),
            indented("stdout", &String::from_utf8_lossy(&ended.stdout)),
            indented("stderr", &ended.stderr)
        );
        self.text += &normal(&text, self.world);
        ended
    }

    /// Compares with the file, or writes it.
    ///
    /// # Panics
    /// When they differ.
    pub fn check(self) {
        let path = file(self.name);
        if std::env::var_os("IGLOO_UPDATE_SNAPSHOTS").is_some() {
            std::fs::write(&path, &self.text).expect("a writable snapshot");
            return;
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            expected == self.text,
            "{} has changed; IGLOO_UPDATE_SNAPSHOTS=1 writes it anew\n{}",
            path.display(),
            difference(&expected, &self.text)
        );
    }
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/snapshots/{name}.txt"))
}

fn quoted(word: &str) -> String {
    if !word.is_empty()
        && word
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_./:=+,!".contains(&byte))
    {
        return word.to_string();
    }
    format!("'{word}'")
}

fn indented(name: &str, text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let _ = writeln!(out, "{name}: {line}"); // writing to a String cannot fail
    }
    out
}

/// The text without what differs from run to run: places, hashes, times, sizes of what was read.
pub fn normal(text: &str, world: &World) -> String {
    let root = world.path("");
    let root = root.to_str().expect("a textual path").trim_end_matches('/');
    let text = text.replace(root, "WORLD");
    let lines = text.split_inclusive('\n').filter(|line| !is_of_the_moment(line));
    lines.map(normal_line).collect()
}

/// Lines that a slow machine makes: reminders that something runs, and builders that are tried again.
fn is_of_the_moment(line: &str) -> bool {
    let reminder = line
        .strip_prefix("stderr: ")
        .and_then(|line| line.split_once(": "))
        .is_some_and(|(_, rest)| rest.split([' ', ':']).next().is_some_and(is_time));
    reminder || line.contains("is tried again after") || line.contains("' (try ")
}

fn normal_line(line: &str) -> String {
    let words = line.split_inclusive(|char: char| char.is_whitespace() || "'\"(),;".contains(char));
    let words: Vec<String> = words.map(normal_word).collect();
    let mut out = String::new();
    let mut index = 0;
    while index < words.len() {
        let unit = words
            .get(index + 1)
            .map(|word| word.trim_end_matches(|char: char| !char.is_alphabetic()));
        let is_size = words[index].trim_end().parse::<f64>().is_ok()
            && unit.is_some_and(|unit| ["B", "kB", "MB", "GB"].contains(&unit));
        if is_size {
            let unit = unit.unwrap_or_default();
            out += "SIZE";
            out += &words[index + 1][unit.len()..];
            index += 2;
        } else {
            out += &words[index];
            index += 1;
        }
    }
    out
}

fn normal_word(word: &str) -> String {
    let end = word.trim_end_matches(|char: char| char.is_whitespace() || "'\"(),;".contains(char));
    let rest = &word[end.len()..];
    let word = without_hash(end);
    let word = if is_time(&word) { "TIME".to_string() } else { word };
    format!("{word}{rest}")
}

/// `0.8s`, `1m03s`
fn is_time(word: &str) -> bool {
    word.ends_with('s')
        && word.starts_with(|char: char| char.is_ascii_digit())
        && word
            .bytes()
            .all(|byte| byte.is_ascii_digit() || b"ms.".contains(&byte))
}

/// The word with `HASH` for what stands before a dash after a slash, as in `/nix/store/HASH-name`.
fn without_hash(word: &str) -> String {
    const HASH_SIZE: usize = 32;
    let parts = word.split('/').map(|part| {
        let is_hash = part.len() > HASH_SIZE
            && part.as_bytes()[HASH_SIZE] == b'-'
            && part
                .bytes()
                .take(HASH_SIZE)
                .all(|byte| byte.is_ascii_alphanumeric());
        if is_hash {
            format!("HASH{}", &part[HASH_SIZE..])
        } else {
            part.to_string()
        }
    });
    parts.collect::<Vec<_>>().join("/")
}

/// The lines that differ, with `-` and `+`: enough to see what happened.
fn difference(expected: &str, found: &str) -> String {
    let expected: Vec<&str> = expected.lines().collect();
    let found: Vec<&str> = found.lines().collect();
    let lost = expected.iter().filter(|line| !found.contains(line));
    let new = found.iter().filter(|line| !expected.contains(line));
    let lost = lost.map(|line| format!("-{line}\n"));
    lost.chain(new.map(|line| format!("+{line}\n"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_run_to_run_is_left_out() {
        let world = World::new();
        let place = world.path("work/x");
        let text = format!(
            "a '{}' /nix/store/0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-x!out in 1m03s, 0.8s; 12s\n/nix/store/short 3 cores",
            place.display()
        );
        assert_eq!(
            normal(&text, &world),
            "a 'WORLD/work/x' /nix/store/HASH-x!out in TIME, TIME; TIME\n/nix/store/short 3 cores"
        );
        let text = "stderr: base: 30s: hm\nstderr: x is tried again after 1m00s\nread 3.4 MB (12 B)\n";
        assert_eq!(normal(text, &world), "read SIZE (SIZE)\n");
    }
}
