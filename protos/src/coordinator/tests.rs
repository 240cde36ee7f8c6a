use std::time::Duration;

use igloo_build::{BuildEvent, BuildStats, Limits};
use igloo_driver::job::{
    BuildEnded, Built, FailureKind, FailureReport, Fetched, GoalReport, JobReport, Planned, Remaining, Update,
};
use igloo_eval::io::Notice;
use igloo_evaluator::{EvaluateError, EvaluateReport};
use igloo_status::Code;
use nix_compat::derivation::OutputName;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use super::report::{ReportReader, report_parts};
use super::update::{read_update, update_messages};
use super::*;
use crate::build::PART_BYTES;
use crate::error::WireReason;
use crate::evaluate::tests::{drv, goal, names, request, variables};
use v1::job_event::Event;

fn job() -> impl Strategy<Value = Job> {
    let wanted = prop_oneof![
        request().prop_map(|request| Wanted::Evaluated(Box::new(request))),
        vec((drv(), names()), 0..4).prop_map(Wanted::Outputs),
        vec(drv(), 0..4).prop_map(Wanted::Paths),
    ];
    let folders = vec("/[ -~]{0,9}".prop_map(PathBuf::from), 0..3);
    (
        wanted,
        any::<[bool; 4]>(),
        any::<[u32; 2]>(),
        option::of(any::<u32>()),
        variables(),
        folders,
    )
        .prop_map(|(wanted, flags, sizes, wall, impure_environment, folders)| Job {
            wanted,
            options: JobOptions {
                keep_going: flags[0],
                substitute: flags[1],
                dry_run: flags[2],
                check: flags[3],
                cores: sizes[0],
                memory_mib: sizes[1],
                limits: Limits {
                    wall: wall.map(|millis| Duration::from_millis(millis.into())),
                    ..Limits::default()
                },
                impure_environment,
                folders,
            },
        })
}

fn stats() -> impl Strategy<Value = BuildStats> {
    (any::<[u32; 3]>(), any::<[u64; 4]>(), "[a-z]{0,5}").prop_map(|(times, counts, machine)| BuildStats {
        boot: Duration::from_micros(times[0].into()),
        run: Duration::from_micros(times[1].into()),
        total: Duration::from_micros(times[2].into()),
        log_bytes: counts[0],
        output_bytes: counts[1],
        input_bytes_read: counts[2],
        input_files_read: counts[3],
        machine,
    })
}

fn failure() -> impl Strategy<Value = FailureReport> {
    let kind = prop::sample::select(vec![
        FailureKind::Build,
        FailureKind::Timeout,
        FailureKind::HashMismatch,
        FailureKind::NotDeterministic,
        FailureKind::Output,
        FailureKind::Unavailable,
        FailureKind::Infrastructure,
    ]);
    let line = any::<Vec<u8>>().prop_map(Bytes::from);
    let code = (1..=16).prop_map(|number| Code::from_number(number).unwrap());
    (
        drv(),
        kind,
        "[ -~]{0,9}",
        vec("[ -~]{0,9}", 0..3),
        vec(line, 0..3),
        code,
    )
        .prop_map(|(path, kind, headline, causes, log_tail, code)| FailureReport {
            path,
            kind,
            headline,
            causes,
            log_tail,
            code,
        })
}

fn used() -> impl Strategy<Value = EvaluateReport> {
    any::<[u32; 4]>().prop_map(|counts| EvaluateReport {
        elapsed: Duration::from_micros(counts[0].into()),
        cpu: Duration::from_micros(counts[1].into()),
        heap_bytes: counts[2].into(),
        derivations: counts[3].into(),
    })
}

fn update() -> impl Strategy<Value = Update> {
    let notice = "(?s).{0,9}".prop_map(Notice::Trace);
    let event = prop_oneof![
        Just(BuildEvent::Started),
        Just(BuildEvent::Collecting),
        "[a-z]{0,9}".prop_map(|machine| BuildEvent::Preparing { machine }),
        (any::<u32>(), vec(any::<u8>(), 1..9)).prop_map(|(sequence, bytes)| BuildEvent::Log {
            sequence: sequence.into(),
            bytes: bytes.into()
        }),
    ];
    let end = prop_oneof![
        stats().prop_map(|stats| BuildEnded::Registered(Box::new(stats))),
        "[ -~]{0,9}".prop_map(|reason| BuildEnded::Retried { reason }),
        failure().prop_map(|failure| BuildEnded::Failed(Box::new(failure))),
        Just(BuildEnded::Cancelled),
    ];
    prop_oneof![
        notice.prop_map(Update::Notice),
        (any::<u64>(), drv()).prop_map(|(count, drv)| Update::Instantiated { count, drv }),
        goal().prop_map(Update::Goal),
        used().prop_map(Update::Evaluated),
        any::<[u64; 3]>().prop_map(|counts| Update::Remaining(Remaining {
            builds: counts[0],
            fetches: counts[1],
            fetch_bytes: counts[2]
        })),
        (drv(), "[ -~]{0,9}", any::<u64>(), option::of(any::<u64>())).prop_map(
            |(path, from, nar_size, download_size)| Update::FetchStarted {
                path,
                from,
                nar_size,
                download_size
            }
        ),
        (drv(), any::<u64>()).prop_map(|(path, nar_bytes)| Update::FetchProgress { path, nar_bytes }),
        (drv(), option::of("[ -~]{0,9}")).prop_map(|(path, failure)| Update::FetchEnded { path, failure }),
        (
            drv(),
            any::<u32>(),
            "[ -~]{0,9}",
            option::of(any::<u32>()),
            any::<bool>()
        )
            .prop_map(
                |(drv, attempt, builder, expected, for_evaluation)| Update::BuildStarted {
                    drv,
                    attempt,
                    builder,
                    expected: expected.map(|millis| Duration::from_millis(millis.into())),
                    for_evaluation
                }
            ),
        (drv(), event).prop_map(|(drv, event)| Update::Build { drv, event }),
        (drv(), end).prop_map(|(drv, end)| Update::BuildEnded { drv, end }),
    ]
}

fn report() -> impl Strategy<Value = JobReport> {
    let outputs = || {
        btree_map(
            "[a-z]{1,4}".prop_map(|name| OutputName::new(&name).unwrap()),
            drv(),
            0..3,
        )
    };
    let goal = (goal(), outputs(), option::of(0..3usize), any::<bool>());
    let goal = goal.prop_map(|(goal, outputs, failure, is_valid)| GoalReport {
        goal,
        outputs,
        failure,
        is_valid,
    });
    let built = (drv(), outputs(), stats(), any::<[u32; 4]>(), option::of(drv()));
    let built = built.prop_map(|(drv, outputs, stats, counts, waited_for)| Built {
        drv,
        outputs,
        stats,
        input_bytes: counts[0].into(),
        input_files: counts[1].into(),
        started: Duration::from_micros(counts[2].into()),
        ended: Duration::from_micros(counts[3].into()),
        waited_for,
    });
    let fetched = (drv(), "[ -~]{0,9}", any::<u64>());
    let fetched = fetched.prop_map(|(path, from, nar_size)| Fetched { path, from, nar_size });
    let plan = (
        vec(drv(), 0..3),
        vec((drv(), any::<u64>(), option::of(any::<u64>())), 0..3),
    );
    let plan = plan.prop_map(|(builds, fetches)| Planned { builds, fetches });
    let lists = (
        vec(goal, 0..3),
        vec(built, 0..3),
        vec(fetched, 0..3),
        vec(failure(), 3..5),
    );
    (lists, vec(drv(), 0..3), option::of(used()), option::of(plan)).prop_map(
        |((goals, built, fetched, failures), not_tried, evaluation, plan)| JobReport {
            goals,
            built,
            fetched,
            failures,
            not_tried,
            evaluation,
            plan,
        },
    )
}

fn sent(report: JobReport) -> Result<JobReport, WireError> {
    let (parts, finished) = report_parts(report);
    let mut reader = ReportReader::default();
    for part in parts {
        reader.part(part)?;
    }
    reader.finish(&finished)
}

proptest! {
    #[test]
    fn jobs_round_trip(job in job()) {
        let shown = format!("{job:?}");
        prop_assert_eq!(format!("{:?}", read_job(job_message(job).unwrap()).unwrap()), shown);
    }

    #[test]
    fn updates_round_trip(update in update()) {
        let shown = format!("{update:?}");
        let mut messages = update_messages(update, 1 << 20);
        let message = messages.next().unwrap();
        prop_assert!(messages.next().is_none());
        let read = read_update(message.event.unwrap()).unwrap().unwrap();
        prop_assert_eq!(format!("{read:?}"), shown);
    }

    #[test]
    fn reports_round_trip(report in report()) {
        let shown = format!("{report:?}");
        prop_assert_eq!(format!("{:?}", sent(report).unwrap()), shown);
    }

    /// Whatever bytes a peer sends: an answer or a typed error.
    #[test]
    fn no_bytes_are_too_odd(bytes in vec(any::<u8>(), 0..200)) {
        let _ = crate::decode::job(&bytes);
        let _ = crate::decode::job_event(&bytes);
        let _ = crate::decode::evaluate_request(&bytes);
    }
}

fn path(name: &str) -> nix_compat::store_path::StorePath {
    nix_compat::store_path::StorePath::parse(&format!("{}-{name}", "0".repeat(32))).unwrap()
}

/// A report of any size is sent in messages that have a bound.
#[test]
fn long_reports_come_in_parts() {
    let not_tried = vec![path("x"); 100_000];
    let report = JobReport {
        not_tried,
        ..JobReport::default()
    };
    let (parts, finished) = report_parts(report);
    let mut reader = ReportReader::default();
    let mut count = 0;
    for part in parts {
        use prost::Message as _;
        assert!(part.encoded_len() < 2 * PART_BYTES);
        count += 1;
        reader.part(part).unwrap();
    }
    assert!(count > 10, "{count}");
    assert_eq!(reader.finish(&finished).unwrap().not_tried.len(), 100_000);
}

#[test]
fn half_a_report_is_none() {
    let report = JobReport {
        not_tried: vec![path("x"); 3],
        ..JobReport::default()
    };
    let (_, finished) = report_parts(report.clone());
    let error = ReportReader::default().finish(&finished).unwrap_err();
    assert_eq!(
        (error.field, error.reason),
        ("not_tried", WireReason::Size { size: 0, expected: 3 })
    );
    let mut twice = ReportReader::default();
    for _ in 0..2 {
        report_parts(report.clone())
            .0
            .for_each(|part| twice.part(part).unwrap());
    }
    assert_eq!(twice.finish(&finished).unwrap_err().field, "not_tried");
}

#[test]
fn reports_that_contradict_themselves_are_refused() {
    let goal = GoalReport {
        goal: igloo_evaluator::Goal {
            attribute: String::new(),
            drv: path("x"),
            outputs: Default::default(),
        },
        outputs: Default::default(),
        failure: Some(0),
        is_valid: false,
    };
    let report = JobReport {
        goals: vec![goal],
        ..JobReport::default()
    };
    assert_eq!(sent(report).unwrap_err().field, "failure");
    let mut unplanned = ReportReader::default();
    let part = v1::ReportPart {
        planned_builds: vec![path("x").to_string()],
        ..Default::default()
    };
    unplanned.part(part).unwrap();
    let finished = v1::Finished {
        planned_builds_count: 1,
        ..Default::default()
    };
    assert_eq!(unplanned.finish(&finished).unwrap_err().field, "planned_builds");
}

#[test]
fn wrong_jobs_are_refused() {
    let paths = |paths: Vec<String>| v1::Job {
        wanted: Some(Kind::Paths(v1::WantedPaths { paths })),
        options: None,
    };
    let folder = |folder: &'static [u8]| v1::Job {
        options: Some(v1::JobOptions {
            folders: vec![Bytes::from_static(folder)],
            ..Default::default()
        }),
        ..paths(Vec::new())
    };
    assert!(read_job(paths(vec![path("x").to_string()])).is_ok());
    for (job, field) in [
        (v1::Job::default(), "wanted"),
        (paths(vec!["/nix/store/x".into()]), "paths"),
        (paths(vec![String::new(); WANTED_MAX + 1]), "paths"),
        (folder(b"here"), "folders"),
        (folder(b"/a\0b"), "folders"),
        (folder(&[b'/'; 5000]), "folders"),
    ] {
        assert_eq!(read_job(job).unwrap_err().field, field);
    }
}

#[test]
fn failures_keep_their_kind() {
    let errors = [
        JobError::Evaluate(EvaluateError::Failed {
            text: "error: \x1b[31mno\n".into(),
            exit: 100,
            code: Code::Aborted,
        }),
        JobError::Gone {
            reason: "down".into(),
        },
        JobError::Invalid {
            reason: "no goal".into(),
        },
        JobError::Host {
            reason: "full".into(),
            code: Code::ResourceExhausted,
        },
    ];
    for error in errors {
        let (shown, code) = (format!("{error:?}"), error.code());
        let read = read_job_failure(job_failure_message(error));
        assert_eq!((format!("{read:?}"), read.code()), (shown, code));
    }
    let unknown = read_job_failure(v1::JobFailure::default());
    assert!(matches!(unknown, JobError::Host { .. }));
}

/// A newer coordinator may say more than this igloo knows.
#[test]
fn unknown_updates_are_left_out() {
    let update = Event::BuildEnded(v1::BuildEnded {
        drv: path("x").to_string(),
        end: None,
    });
    assert!(matches!(read_update(update), Ok(None)));
    assert!(matches!(read_update(Event::Notice(Default::default())), Ok(None)));
    let wrong = Event::FetchProgress(v1::FetchProgress::default());
    assert!(read_update(wrong).is_err());
}

#[test]
fn the_end_of_a_log_is_cut_to_whole_lines() {
    let failure = FailureReport {
        path: path("x"),
        kind: FailureKind::Build,
        headline: "x".repeat(1 << 20),
        causes: vec!["y".repeat(1 << 20); 1000],
        log_tail: (0..4).map(|byte| Bytes::from(vec![byte; 400_000])).collect(),
        code: Code::Aborted,
    };
    let end = BuildEnded::Failed(Box::new(failure));
    let update = Update::BuildEnded { drv: path("x"), end };
    let message = update_messages(update, 1).next().unwrap();
    use prost::Message as _;
    assert!(
        message.encoded_len() < JOB_EVENT_BYTES_MAX,
        "{}",
        message.encoded_len()
    );
    let Ok(Some(Update::BuildEnded {
        end: BuildEnded::Failed(read),
        ..
    })) = read_update(message.event.unwrap())
    else {
        panic!("another update")
    };
    assert_eq!(
        read.log_tail.iter().map(|line| line[0]).collect::<Vec<_>>(),
        [2, 3]
    );
}
