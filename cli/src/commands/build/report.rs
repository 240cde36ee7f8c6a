//! Failures, told once with what is behind them, and the exit code.

use std::fmt::Write as _;

use igloo_driver::job::{FailureKind, FailureReport, JobError, JobReport};
use igloo_evaluator::EvaluateError;
use nix_compat::store_path::StoreDir;

use super::Wish;
use crate::failure::{EXIT_FAILED, Failure};
use crate::progress::log::printable;
use crate::progress::model::Logs;

/// Exit codes of failed builds, one bit for each kind (recorded from nix-build 2.8 and 2.34: 100 to 104).
const EXIT_BUILD: u8 = 0b110_0100;
const EXIT_TIMEOUT: u8 = EXIT_BUILD | 0b1;
const EXIT_HASH: u8 = EXIT_BUILD | 0b10;
const EXIT_NOT_DETERMINISTIC: u8 = 0b110_1000;

/// Tells every failure with the last lines of its log. The last one is left to the caller to print.
///
/// # Errors
/// When there is one.
pub fn failures(dir: &StoreDir, wish: &Wish, reports: &[JobReport]) -> Result<(), Failure> {
    let all: Vec<&FailureReport> = reports.iter().flat_map(|report| &report.failures).collect();
    let Some((last, others)) = all.split_last() else {
        return complete(dir, reports);
    };
    for failure in others {
        eprint!("{}", describe(dir, wish, failure).message());
    }
    for path in reports.iter().flat_map(|report| &report.not_tried) {
        eprintln!("not built: '{}'", dir.print(path));
    }
    Err(describe(dir, wish, last).with_exit(exit(&all)))
}

/// A goal that is neither there nor failed was cancelled.
fn complete(dir: &StoreDir, reports: &[JobReport]) -> Result<(), Failure> {
    let missing = reports
        .iter()
        .filter(|report| report.plan.is_none())
        .flat_map(|report| &report.goals)
        .find(|goal| !goal.is_valid);
    match missing {
        None => Ok(()),
        Some(goal) => Err(Failure::new(anyhow::anyhow!(
            "the build of '{}' was cancelled",
            dir.print(&goal.goal.drv)
        ))
        .with_hint("somebody stopped it; run the same command again")),
    }
}

/// As Nix: bits of all kinds together, 1 when there are none.
pub fn exit(failures: &[&FailureReport]) -> u8 {
    let bits = failures
        .iter()
        .map(|failure| match failure.kind {
            FailureKind::Build => EXIT_BUILD,
            FailureKind::Timeout => EXIT_TIMEOUT,
            FailureKind::HashMismatch => EXIT_HASH,
            FailureKind::NotDeterministic => EXIT_NOT_DETERMINISTIC,
            FailureKind::Output | FailureKind::Unavailable | FailureKind::Infrastructure => 0,
        })
        .fold(0, |all, bits| all | bits);
    if bits == 0 { EXIT_FAILED } else { bits }
}

fn describe(dir: &StoreDir, wish: &Wish, failure: &FailureReport) -> Failure {
    let mut text = failure.headline.clone();
    let lines: Vec<String> = failure
        .log_tail
        .iter()
        .map(|line| printable(line))
        .filter(|line| !line.is_empty())
        .collect();
    let lines = &lines[lines.len().saturating_sub(wish.config.log_lines)..];
    if !lines.is_empty() && wish.logs == Logs::None {
        let _ = write!(text, ";\n       last {} log lines:", lines.len()); // writing to a String cannot fail
        for line in lines {
            let _ = write!(text, "\n       > {line}");
        }
        let _ = write!(
            text,
            "\n       For full logs, run 'igloo log {}'.",
            dir.print(&failure.path)
        );
    }
    let error = failure
        .causes
        .iter()
        .rev()
        .fold(None, |below: Option<anyhow::Error>, cause| {
            Some(match below {
                Some(below) => below.context(cause.clone()),
                None => anyhow::anyhow!(cause.clone()),
            })
        });
    let error = match error {
        Some(below) => below.context(text),
        None => anyhow::anyhow!(text),
    };
    Failure::coded(error, failure.code)
}

/// A job that could not be run.
pub fn job_failed(error: JobError) -> Failure {
    match error {
        JobError::Evaluate(EvaluateError::Failed { text, exit, .. }) => {
            Failure::rendered(text.trim_end().to_string()).with_exit(exit)
        }
        error => {
            let code = error.code();
            Failure::coded(error, code)
        }
    }
}

#[cfg(test)]
mod tests {
    use igloo_status::Code;
    use nix_compat::store_path::StorePath;

    use super::*;

    fn failure(kind: FailureKind) -> FailureReport {
        FailureReport {
            path: StorePath::parse("0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-x.drv").unwrap(),
            kind,
            headline: "x failed".into(),
            causes: Vec::new(),
            log_tail: Vec::new(),
            code: Code::Unknown,
        }
    }

    /// Recorded: 100 failed, 101 timed out, 102 another hash, 103 all three, 104 not deterministic, 1 no output.
    #[test]
    fn exit_codes_are_nix_s() {
        use FailureKind as K;
        let code = |kinds: &[K]| {
            let failures: Vec<_> = kinds.iter().map(|kind| failure(*kind)).collect();
            exit(&failures.iter().collect::<Vec<_>>())
        };
        assert_eq!(code(&[K::Build]), 100);
        assert_eq!(code(&[K::Timeout]), 101);
        assert_eq!(code(&[K::HashMismatch]), 102);
        assert_eq!(code(&[K::HashMismatch, K::Timeout, K::Build]), 103);
        assert_eq!(code(&[K::NotDeterministic]), 104);
        assert_eq!(code(&[K::Output]), 1);
        assert_eq!(code(&[K::Infrastructure, K::Unavailable]), 1);
    }
}
