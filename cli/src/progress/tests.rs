//! The display from updates to what a terminal shows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use igloo_build::{BuildEvent, BuildStats};
use igloo_driver::job::{
    BuildEnded, Built, FailureKind, FailureReport, Fetched, JobReport, Remaining, Update,
};
use igloo_status::Code;
use nix_compat::store_path::{StoreDir, StorePath};

use super::block::{self, Size};
use super::model::{Logs, Model, Telling};
use super::screen::Screen;
use super::style::Line;
use super::summary;

const TELLING: Telling = Telling {
    quiet: false,
    verbose: false,
    beginnings: false,
    failures: false,
    logs: Logs::None,
};

fn path(name: &str) -> StorePath {
    let hash = nix_compat::nixbase32::encode(&blake3::hash(name.as_bytes()).as_bytes()[..20]);
    StorePath::parse(&format!("{hash}-{name}")).unwrap()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn started(name: &str, expected: Option<u64>) -> Update {
    Update::BuildStarted {
        drv: path(name),
        attempt: 1,
        builder: "here".into(),
        expected: expected.map(seconds),
        for_evaluation: false,
    }
}

fn logged(name: &str, text: &str) -> Update {
    Update::Build {
        drv: path(name),
        event: BuildEvent::Log {
            sequence: 0,
            bytes: Bytes::copy_from_slice(text.as_bytes()),
        },
    }
}

fn ended(name: &str) -> Update {
    let stats = BuildStats {
        input_bytes_read: 3_400_000,
        ..BuildStats::default()
    };
    Update::BuildEnded {
        drv: path(name),
        end: BuildEnded::Registered(Box::new(stats)),
    }
}

fn remaining(builds: u64, fetches: u64, fetch_bytes: u64) -> Update {
    Update::Remaining(Remaining {
        builds,
        fetches,
        fetch_bytes,
    })
}

/// A model after updates, each at its second, and the story they told.
fn play(telling: Telling, updates: Vec<(u64, Update)>) -> (Model, Vec<String>) {
    let mut model = Model::new(StoreDir::default(), telling);
    let mut story = Vec::new();
    for (second, update) in updates {
        story.extend(model.take(update, seconds(second)).iter().map(Line::text));
    }
    (model, story)
}

fn busy() -> Vec<(u64, Update)> {
    vec![
        (
            0,
            Update::Instantiated {
                count: 1234,
                drv: path("perl-5.38.drv"),
            },
        ),
        (1, remaining(3, 2, 50_000_000)),
        (
            1,
            Update::FetchStarted {
                path: path("glibc-2.40"),
                from: "https://cache.example".into(),
                nar_size: 31_000_000,
                download_size: None,
            },
        ),
        (2, started("gcc-13.3.0.drv", Some(130))),
        (
            3,
            logged(
                "gcc-13.3.0.drv",
                "Running phase: buildPhase\nmake all\n\x1b[31mcc -c\ta.c\x1b[0m\n",
            ),
        ),
        (
            3,
            Update::FetchProgress {
                path: path("glibc-2.40"),
                nar_bytes: 15_500_000,
            },
        ),
        (4, started("hello-2.12.drv", None)),
    ]
}

fn shown(model: &Model, now: u64, columns: usize, rows: usize) -> Vec<String> {
    let lines = block::lines(model, seconds(now), Size { columns, rows });
    lines.iter().map(Line::text).collect()
}

#[test]
fn the_block_says_what_runs() {
    let (model, story) = play(TELLING, busy());
    assert_eq!(story, Vec::<String>::new());
    assert_eq!(model.rate(seconds(4)), 15_500_000 / 3);
    assert_eq!(
        shown(&model, 65, 100, 24),
        [
            "evaluating  1,234 derivations  1m05s  perl-5.38",
            "  gcc-13.3.0 1m03s of ~2m10s  buildPhase      cc -c a.c",
            "  hello-2.12  1m01s  waiting         ",
            "  glibc-2.40    50%  fetching        15.5 MB of 31.0 MB from https://cache.example",
            "• 0/3 built · 0/2 fetched, 15.5 MB of 50.0 MB · 1m05s",
        ]
    );
}

#[test]
fn the_block_fits_any_terminal() {
    let mut updates = busy();
    updates.extend((0..40).map(|index| {
        (
            5,
            started(
                &format!("n{index}-a-very-long-name-that-is-cut-{index}.drv"),
                None,
            ),
        )
    }));
    let (model, _) = play(TELLING, updates);
    for columns in [1, 2, 5, 20, 79, 300] {
        for rows in [1, 2, 3, 4, 10, 24, 100] {
            let lines = block::lines(&model, seconds(9), Size { columns, rows });
            assert!(lines.len() < rows.max(2), "{rows} rows: {}", lines.len());
            assert!(
                lines.iter().all(|line| line.columns() < columns.max(1)),
                "{columns} columns"
            );
        }
    }
    let lines = shown(&model, 9, 80, 10);
    assert_eq!(lines.len(), 9);
    assert_eq!(lines[7], "  … and 37 more");
}

#[test]
fn the_story_is_told_in_lines() {
    let telling = Telling {
        beginnings: true,
        failures: true,
        logs: Logs::Named,
        ..TELLING
    };
    let failure = FailureReport {
        path: path("b.drv"),
        kind: FailureKind::Build,
        headline: "builder for 'b' failed with exit code 1".into(),
        causes: Vec::new(),
        log_tail: Vec::new(),
        code: Code::Unknown,
    };
    let (_, story) = play(
        telling,
        vec![
            (0, started("a.drv", None)),
            (0, logged("a.drv", "one\ntw")),
            (1, started("b.drv", None)),
            (2, logged("a.drv", "o\nthree")),
            (3, ended("a.drv")),
            (
                4,
                Update::BuildEnded {
                    drv: path("b.drv"),
                    end: BuildEnded::Failed(Box::new(failure)),
                },
            ),
            (
                4,
                Update::FetchEnded {
                    path: path("c"),
                    failure: Some("gone".into()),
                },
            ),
        ],
    );
    let print = |name: &str| StoreDir::default().print(&path(name));
    assert_eq!(
        story,
        [
            format!("building '{}'...", print("a.drv")),
            "a> one".into(),
            format!("building '{}'...", print("b.drv")),
            "a> two".into(),
            "a> three".into(),
            format!("built '{}' in 3.0s", print("a.drv")),
            "failed: builder for 'b' failed with exit code 1".into(),
            format!("warning: cannot fetch '{}': gone", print("c")),
        ]
    );
}

#[test]
fn quiet_tells_only_what_the_expression_says() {
    let telling = Telling {
        quiet: true,
        beginnings: true,
        ..TELLING
    };
    let mut updates = busy();
    updates.push((9, Update::Notice(igloo_eval::io::Notice::Trace("x".into()))));
    let (mut model, story) = play(telling, updates);
    assert_eq!(story, ["trace: x"]);
    assert!(model.remind(seconds(500)).is_empty());
}

#[test]
fn a_long_silence_is_broken_where_there_is_no_display() {
    let telling = Telling {
        beginnings: true,
        ..TELLING
    };
    let (mut model, _) = play(telling, busy());
    assert!(model.remind(seconds(20)).is_empty());
    let told: Vec<String> = model.remind(seconds(40)).iter().map(Line::text).collect();
    assert_eq!(told[0], "evaluating: 1,234 derivations so far");
    assert_eq!(told[1], "gcc-13.3.0: 38s buildPhase: cc -c\ta.c");
    assert!(model.remind(seconds(41)).is_empty());
}

/// A terminal of a few rows that understands what [`Screen`] writes, and nothing else.
#[derive(Debug)]
struct Terminal {
    columns: usize,
    rows: Vec<Vec<char>>,
    row: usize,
    column: usize,
}

impl Terminal {
    fn new(columns: usize) -> Self {
        Self {
            columns,
            rows: vec![Vec::new()],
            row: 0,
            column: 0,
        }
    }

    fn feed(&mut self, bytes: &[u8]) {
        let text = std::str::from_utf8(bytes).unwrap();
        let mut chars = text.chars();
        while let Some(char) = chars.next() {
            match char {
                '\r' => self.column = 0,
                '\n' => {
                    self.down();
                    self.column = 0; // the terminal's driver does that (ONLCR)
                }
                '\x1b' => self.escape(&mut chars),
                _ => self.put(char),
            }
        }
    }

    fn put(&mut self, char: char) {
        if self.column == self.columns {
            self.column = 0;
            self.down();
        }
        let row = &mut self.rows[self.row];
        row.resize(row.len().max(self.column + 1), ' ');
        row[self.column] = char;
        self.column += 1;
    }

    fn down(&mut self) {
        self.row += 1;
        if self.row == self.rows.len() {
            self.rows.push(Vec::new());
        }
    }

    fn escape(&mut self, chars: &mut std::str::Chars<'_>) {
        assert_eq!(chars.next(), Some('['));
        let mut number = String::new();
        let end = loop {
            match chars.next().unwrap() {
                char @ ('0'..='9' | '?' | ';') => number.push(char),
                end => break end,
            }
        };
        match (end, number.as_str()) {
            ('A', up) => self.row -= up.parse::<usize>().unwrap(),
            ('K', "") => self.rows[self.row].truncate(self.column),
            ('J', "") => {
                self.rows[self.row].truncate(self.column);
                self.rows.truncate(self.row + 1);
            }
            ('h' | 'l', "?2026") | ('m', _) => {}
            other => panic!("{other:?} is not understood"),
        }
    }

    fn lines(&self) -> Vec<String> {
        self.rows
            .iter()
            .map(|row| row.iter().collect::<String>().trim_end().to_string())
            .collect()
    }
}

fn plain(texts: &[&str]) -> Vec<Line> {
    texts.iter().map(|text| Line::plain(*text)).collect()
}

#[test]
fn the_screen_shows_the_story_and_the_block() {
    let size = Size {
        columns: 20,
        rows: 10,
    };
    let mut screen = Screen::new(Vec::new());
    let mut terminal = Terminal::new(20);
    let mut show = |screen: &mut Screen<Vec<u8>>, expected: &[&str]| {
        terminal.feed(&screen.take_written());
        assert_eq!(terminal.lines(), expected);
    };
    screen.update(&[], plain(&["a 1", "b 1", "sum"]), size, true);
    show(&mut screen, &["a 1", "b 1", "sum"]);
    screen.update(&plain(&["told"]), plain(&["a 2", "sum"]), size, true);
    show(&mut screen, &["told", "a 2", "sum"]);
    screen.above(b"warning: other");
    show(&mut screen, &["told", "warning: other", "a 2", "sum"]);
    screen.update(
        &plain(&["a line that is wider than it"]),
        plain(&["x", "y", "z"]),
        size,
        false,
    );
    show(
        &mut screen,
        &[
            "told",
            "warning: other",
            "a line that is wider",
            " than it",
            "x",
            "y",
            "z",
        ],
    );
    screen.update(&[], plain(&["x", "y", "z"]), size, false);
    assert!(screen.take_written().is_empty(), "nothing has changed");
    screen.clear();
    show(
        &mut screen,
        &["told", "warning: other", "a line that is wider", " than it", ""],
    );
}

#[test]
fn a_narrower_terminal_is_cleared_of_wrapped_lines() {
    let mut screen = Screen::new(Vec::new());
    screen.update(
        &[],
        plain(&["0123456789", "01234"]),
        Size {
            columns: 20,
            rows: 10,
        },
        false,
    );
    // the terminal wraps what it shows when it gets narrower
    let mut terminal = Terminal::new(6);
    terminal.feed(&screen.take_written());
    screen.update(&[], plain(&["new"]), Size { columns: 6, rows: 10 }, false);
    terminal.feed(&screen.take_written());
    assert_eq!(terminal.lines(), ["new"]);
}

fn built(name: &str, started: u64, end: u64, waited_for: Option<&str>) -> Built {
    Built {
        drv: path(name),
        outputs: BTreeMap::new(),
        stats: BuildStats {
            input_bytes_read: 1_000_000,
            input_files_read: 12,
            ..BuildStats::default()
        },
        input_bytes: 10_000_000,
        input_files: 3_843,
        started: seconds(started),
        ended: seconds(end),
        waited_for: waited_for.map(path),
    }
}

#[test]
fn the_summary_names_the_critical_path() {
    let report = JobReport {
        built: vec![
            built("b.drv", 2, 20, Some("a")),
            built("c.drv", 2, 5, Some("a")),
            built("d.drv", 20, 90, Some("b.drv")),
        ],
        fetched: vec![Fetched {
            path: path("a"),
            from: "https://cache.example".into(),
            nar_size: 5_000_000,
        }],
        ..JobReport::default()
    };
    let lines = summary::lines(&report, seconds(91), false);
    let text: Vec<String> = lines.iter().map(Line::text).collect();
    assert_eq!(
        text,
        [
            "built 3 derivations, fetched 1 path (5.0 MB) in 1m31s; builds read 3.0 MB of 30.0 MB of inputs",
            "critical path: a (fetched), b 18s, d 1m10s",
        ]
    );
    let each = summary::lines(&report, seconds(91), true);
    assert_eq!(
        each[0].text(),
        "b: read 1.0 MB of 10.0 MB in 12 of 3,843 input files"
    );
    assert!(summary::lines(&JobReport::default(), seconds(1), true).is_empty());
    let names: BTreeSet<String> = ["x.drv", "y.drv"].map(String::from).into();
    let circle = JobReport {
        built: names.iter().map(|name| built(name, 0, 9, Some(name))).collect(),
        ..JobReport::default()
    };
    assert!(summary::lines(&circle, seconds(9), false).len() <= 2);
}
