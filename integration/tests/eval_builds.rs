//! Import from derivation in commands that only evaluate, as a user sees it.
//!
//! The builder here is this test, so that no machine is needed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use igloo_build::{BuildError, BuildIo, BuildOutcome, BuildReport, BuildRequest, BuildStats, Builder};
use igloo_integration::builders::{serve, url};
use igloo_integration::{Ended, World, finish};
use tokio::sync::Barrier;

/// Longer than anything here takes; then the test fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(60);

/// A builder whose program writes its last argument to its output, or fails where that says so. Builds called `together` end
/// only when two of them are there.
#[derive(Debug)]
struct Writer(Barrier);

#[async_trait]
impl Builder for Writer {
    async fn build(&self, request: BuildRequest, mut io: BuildIo) -> Result<BuildReport, BuildError> {
        let report = |outcome| BuildReport {
            outcome,
            stats: BuildStats::default(),
        };
        let content = request.arguments.last().unwrap().clone();
        if content == "fail" {
            return Ok(report(BuildOutcome::ExitCode(3)));
        }
        if request.environment[&b"name"[..]] == "together"
            && tokio::time::timeout(PATIENCE, self.0.wait()).await.is_err()
        {
            return Err(BuildError::Machine {
                reason: "the other build did not begin".into(),
                source: None,
            });
        }
        for output in &request.outputs {
            io.write_file(output, content.clone()).await?;
        }
        Ok(report(BuildOutcome::Success))
    }

    fn systems(&self) -> Vec<String> {
        vec!["x86_64-linux".into()]
    }
}

const D: &str = r#"let d = name: text: derivation {
    inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ text ];
  }; in "#;

/// Promise: `igloo eval` and `igloo nix-instantiate` build what an expression imports, as `igloo build` would.
#[test]
fn what_is_imported_is_built() {
    let world = World::new();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let builder = world.path("builder.sock");
    let writer = Arc::new(Writer(Barrier::new(2)));
    runtime.block_on(serve(writer, BTreeMap::new(), &builder, &world.path("spool")));
    let asked = |words: &[&str], expression: &str, builder: &str| -> Ended {
        let mut command = world.igloo();
        command.args(words).args(["-E", &format!("{D}{expression}")]);
        finish(command.env("IGLOO_BUILDER", builder))
    };
    let here = url(&builder);
    let text = |ended: &Ended| String::from_utf8_lossy(&ended.stdout).trim_end().to_owned();

    let printed = asked(&["eval"], r#"import (d "n" "41 + 1")"#, &here);
    assert_eq!(
        (printed.code, &*text(&printed)),
        (Some(0), "42"),
        "{}",
        printed.stderr
    );
    // what needs no build needs no builder
    let plain = asked(&["eval"], r#"(d "n" "41 + 1").outPath"#, "grpc+unix:///nowhere");
    assert_eq!(plain.code, Some(0), "{}", plain.stderr);
    // and what was built is there
    let again = asked(&["eval"], r#"import (d "n" "41 + 1")"#, "grpc+unix:///nowhere");
    assert_eq!((again.code, &*text(&again)), (Some(0), "42"), "{}", again.stderr);

    let both = r#"map import [ (d "together" "1") (d "together" "2") ]"#;
    let both = asked(&["eval", "--json"], both, &here);
    assert_eq!((both.code, &*text(&both)), (Some(0), "[1,2]"), "{}", both.stderr);

    let made = asked(&["nix-instantiate"], r#"d (import (d "m" "''x''")) """#, &here);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    assert!(text(&made).ends_with("-x.drv"), "{}", text(&made));
    let words = ["nix-instantiate", "--eval", "--read-write-mode"];
    let read = asked(&words, r#"import (d "o" "7")"#, &here);
    assert_eq!((read.code, &*text(&read)), (Some(0), "7"), "{}", read.stderr);

    let failed = asked(&["eval"], r#"import (d "bad" "fail")"#, &here);
    assert_eq!(failed.code, Some(100), "{}", failed.stderr);
    assert!(failed.stderr.contains("bad.drv"), "{}", failed.stderr);

    let nowhere = asked(&["eval"], r#"import (d "p" "1")"#, "grpc+unix:///nowhere.sock");
    assert_eq!(nowhere.code, Some(1));
    assert!(nowhere.stderr.contains("nowhere.sock"), "{}", nowhere.stderr);
}

/// Recorded from `nix-instantiate` 2.34 with `--read-write-mode`.
#[test]
fn imports_can_be_forbidden() {
    let world = World::new();
    for words in [
        &["eval"][..],
        &["nix-instantiate"],
        &["nix-instantiate", "--eval", "--read-write-mode"],
    ] {
        let mut command = world.igloo();
        command
            .args(words)
            .args(["--option", "allow-import-from-derivation", "false", "-E"]);
        command.arg(
            r#"import (derivation { name = "n"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo 1 > $out" ]; })"#,
        );
        let ended = finish(&mut command);
        assert_eq!(ended.code, Some(1));
        let words = "error: cannot build '/nix/store/20jclq9yvnmzcyf40zikrn3l9qp4ijda-n.drv^out' during evaluation because the \
                     option 'allow-import-from-derivation' is disabled";
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
    }
}
