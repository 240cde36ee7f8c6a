//! Skipping a test where the machine cannot run it.

use std::io::Write;

/// The variable that names the file skipped tests are listed in.
const LIST: &str = "IGLOO_TEST_SKIPS";

/// Says that the calling test is skipped and why; the caller returns afterwards.
///
/// Writes `SKIPPED: <test>: <reason>` to stderr, and appends it to the file that `IGLOO_TEST_SKIPS` names, so that a run
/// can show what it did not test.
///
/// # Panics
/// The file cannot be written: a skip must never go unseen.
#[allow(clippy::print_stderr, reason = "what is skipped must be seen")]
pub fn skip(reason: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    // line breaks would make two entries of one
    let line = format!("SKIPPED: {test}: {}\n", reason.replace('\n', " "));
    eprint!("{line}");
    if let Some(path) = std::env::var_os(LIST) {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&path);
        // one write, so that tests running at once do not mix their lines
        let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
        written.unwrap_or_else(|error| panic!("cannot list the skipped test in {}: {error}", path.display()));
    }
}
