use igloo_build::path::RelativePath;

use super::*;

fn reports() -> Vec<BuildReport> {
    let stats = BuildStats {
        boot: Duration::from_micros(1),
        run: Duration::from_micros(2),
        total: Duration::from_micros(3),
        log_bytes: 4,
        output_bytes: 5,
        input_bytes_read: 6,
        input_files_read: 7,
        machine: "QEMU".into(),
    };
    let limit = Duration::from_secs(9);
    let outcomes = [
        BuildOutcome::Success,
        BuildOutcome::ExitCode(255),
        BuildOutcome::Signal(9),
        BuildOutcome::StartFailed {
            reason: "no file".into(),
        },
        BuildOutcome::Timeout { limit },
        BuildOutcome::Silence { limit },
        BuildOutcome::LogLimit { limit_bytes: 10 },
        BuildOutcome::OutputMissing {
            path: RelativePath::try_from("out").unwrap(),
        },
        BuildOutcome::OutputInvalid {
            path: "out/x".into(),
            reason: "a device".into(),
        },
        BuildOutcome::OutOfMemory,
        BuildOutcome::DiskFull,
    ];
    let report = |outcome| BuildReport {
        outcome,
        stats: stats.clone(),
    };
    outcomes.map(report).into()
}

#[test]
fn reports_round_trip() {
    for report in reports() {
        assert_eq!(
            BuildReport::try_from(v1::Report::from(report.clone())),
            Ok(report)
        );
    }
}

#[test]
fn impossible_outcomes_are_refused() {
    for end in [End::ExitCode(0), End::ExitCode(256), End::Signal(0)] {
        let outcome = Some(v1::Outcome { outcome: Some(end) });
        let error = BuildReport::try_from(v1::Report { outcome, stats: None }).unwrap_err();
        assert!(matches!(error.reason, WireReason::Range { .. }));
    }
    let none = BuildReport::try_from(v1::Report::default()).unwrap_err();
    assert_eq!(none.reason, WireReason::Missing);
}

#[test]
fn steps_round_trip() {
    let name = Some(NodeName::try_from("n").unwrap());
    let steps = [
        TreeEvent::DirectoryBegin { name: None },
        TreeEvent::FileBegin {
            name: name.clone(),
            executable: true,
            size: 3,
        },
        TreeEvent::FileData(Bytes::from_static(b"abc")),
        TreeEvent::Symlink {
            name,
            target: SymlinkTarget::try_from(&b"t"[..]).unwrap(),
        },
        TreeEvent::DirectoryEnd,
    ];
    for step in steps {
        assert_eq!(read_step(step_message(step.clone())), Ok(step));
    }
}

#[test]
fn steps_no_tree_can_have_are_refused() {
    let step = |step| read_step(v1::TreeStep { step }).unwrap_err().reason;
    assert_eq!(step(None), WireReason::Missing);
    assert!(matches!(
        step(Some(Step::FileData(Bytes::new()))),
        WireReason::Form { .. }
    ));
    let name = Bytes::from_static(b"../x");
    let begin = Step::DirectoryBegin(v1::DirectoryBegin { name });
    assert!(matches!(step(Some(begin)), WireReason::Name(_)));
}

#[test]
fn stored_outputs_round_trip() {
    let path = || RelativePath::try_from("out").unwrap();
    let output = StoredOutput {
        path: path(),
        node: igloo_castore::directory::Directory::new().node(),
        nar_size: 96,
        nar_sha256: [7; 32],
        needles: vec![0, 3, 1 << 19],
    };
    let message = stored_message(5, &output);
    assert_eq!(message.index, 5);
    assert_eq!(read_stored(message.clone(), path()), Ok(output));
    let refused = |change: fn(&mut v1::OutputStored)| {
        let mut message = message.clone();
        change(&mut message);
        read_stored(message, path()).unwrap_err().field
    };
    assert_eq!(refused(|stored| stored.root = None), "root");
    assert_eq!(refused(|stored| stored.nar_sha256 = Bytes::new()), "nar_sha256");
    assert_eq!(refused(|stored| stored.needles = vec![2, 1]), "needles");
    let many = |stored: &mut v1::OutputStored| stored.needles = (0..=NEEDLES_MAX as u64).collect();
    assert_eq!(refused(many), "needles");
}

#[test]
fn failures_keep_their_class_and_causes() {
    let errors = [
        BuildError::Unsupported {
            reason: "no kvm".into(),
        },
        BuildError::Setup {
            what: "QEMU".into(),
            hint: "install it".into(),
        },
        BuildError::Machine {
            reason: "it died".into(),
            source: Some("out of memory".into()),
        },
        BuildError::Protocol { reason: "odd".into() },
        BuildError::Host {
            reason: "no outputs".into(),
            code: Code::ResourceExhausted,
            source: Some("disk full".into()),
        },
    ];
    for error in errors {
        let read = read_failure(v1::Failure::from(&error));
        assert_eq!(read.code(), error.code());
        assert_eq!(std::mem::discriminant(&read), std::mem::discriminant(&error));
        if let Some(cause) = std::error::Error::source(&error) {
            assert!(read.to_string().contains(&cause.to_string()), "{read}");
        }
    }
    assert_eq!(read_failure(v1::Failure::default()).code(), Code::Unavailable);
}

/// Escape sequences of a hostile builder do not reach the terminal, and its texts have an end.
#[test]
fn texts_are_cleaned_and_cut() {
    assert_eq!(text("a\x1b[2Jb\n"), "a\\u{1b}[2Jb\n");
    assert!(text(&"\u{7f}".repeat(1 << 20)).len() < TEXT_BYTES_MAX + 16);
}
