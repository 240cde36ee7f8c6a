//! Inputs: shown as they are, and fetched when read.

use igloo_build::BuildOutcome;

use crate::support::build::{path, request, run};
use crate::support::inputs::{Inputs, symlink};
use crate::support::rig;
use crate::support::sink::Entry;

const MIB: usize = 1 << 20;

/// One boot: what is read is fetched and no more, and modes, links and contents are right.
#[tokio::test(flavor = "multi_thread")]
async fn inputs_are_right_and_lazy() {
    let Some(rig) = rig("inputs_are_right_and_lazy") else {
        return;
    };
    let mut inputs = Inputs::new();
    // 40 files of 4 MiB, each with its number somewhere inside
    let mut files = Vec::new();
    for index in 0..40 {
        let mut contents = vec![b'.'; 4 * MIB];
        let mark = format!("mark {index:02}");
        contents[3 * MIB..3 * MIB + mark.len()].copy_from_slice(mark.as_bytes());
        files.push((format!("f{index:02}"), inputs.file(contents, false).await));
    }
    let big = inputs
        .dir(
            files
                .iter()
                .map(|(name, node)| (name.as_str(), node.clone()))
                .collect(),
        )
        .await;
    let script = inputs.file("same bytes", true).await;
    let text = inputs.file("same bytes", false).await;
    let empty = inputs.file("", false).await;
    let tree = inputs
        .dir(vec![
            ("script", script),
            ("text", text),
            ("empty", empty),
            ("to", symlink("text")),
            ("up", symlink("../big")),
        ])
        .await;
    inputs = inputs
        .with("big", big)
        .with("tree", tree)
        .with("a-link", symlink("/nix/store/tree/text"));
    let commands = "ls /nix/store ; ls /nix/store/tree ; stat /nix/store/tree/script ; stat /nix/store/tree/text \
        ; stat /nix/store/tree/empty ; readlink /nix/store/tree/to ; readlink /nix/store/a-link ; cat /nix/store/a-link \
        ; stat /nix/store/big/f39 ; read /nix/store/big/f07 3145728 7 ; spawn /nix/store/tree/text \
        ; mkdir /nix/store/0b-out ; write /nix/store/0b-out/plain one ; write /nix/store/0b-out/run two \
        ; chmod 755 /nix/store/0b-out/run ; link ../x /nix/store/0b-out/link ; mkdir /nix/store/0b-out/sub";
    let request = request(rig, &inputs, commands).await;
    let program_size = std::fs::metadata(&rig.program).unwrap().len();
    let built = run(rig.builder(), &inputs, request).await;
    let report = built.report();
    assert_eq!(report.outcome, BuildOutcome::Success, "{}", built.log);
    for line in [
        "/nix/store: 0a-program a-link big tree",
        "/nix/store/tree: empty script text to up",
        "/nix/store/tree/to -> text",
        "/nix/store/a-link -> /nix/store/tree/text",
        "/nix/store/a-link: same bytes",
        "/nix/store/tree/script: mode 100555 owner (0, 0) mtime 1 size 10",
        "/nix/store/tree/text: mode 100444 owner (0, 0) mtime 1 size 10",
        "/nix/store/tree/empty: mode 100444 owner (0, 0) mtime 1 size 0",
        "/nix/store/big/f39: mode 100444 owner (0, 0) mtime 1 size 4194304",
        "/nix/store/big/f07@3145728: mark 07",
        "spawn /nix/store/tree/text: Permission denied (os error 13)",
    ] {
        built.says(line);
    }
    // the program, one text, and a corner of one big file with the kernel's read-ahead
    assert_eq!(report.stats.input_files_read, 3, "{:?}", report.stats);
    let most = program_size + MIB as u64;
    assert!(
        report.stats.input_bytes_read <= most,
        "{:?}, at most {most}",
        report.stats
    );
    let file = |contents: &[u8], executable| Entry::File {
        contents: contents.into(),
        executable,
    };
    let wanted = [
        ("", Entry::Directory),
        ("/link", Entry::Symlink("../x".into())),
        ("/plain", file(b"one", false)),
        ("/run", file(b"two", true)),
        ("/sub", Entry::Directory),
    ];
    let wanted = wanted.map(|(path, entry)| (format!("{}{path}", crate::support::build::OUT), entry));
    assert_eq!(built.outputs.into_iter().collect::<Vec<_>>(), wanted);
    assert_eq!(built.result.unwrap().stats.output_bytes, 10);
}

/// The machine has the size that was asked for, and the files placed before the start are there.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_as_it_was_ordered() {
    let Some(rig) = rig("a_machine_is_as_it_was_ordered") else {
        return;
    };
    let inputs = Inputs::new();
    let commands = "lines /proc/cpuinfo processor ; lines /proc/meminfo MemTotal: ; stat /build/.attrs.json \
        ; cat /build/.attrs.json ; stat /build/deep/er ; stat /build/deep ; cat /etc/passwd ; write /nix/store/0b-out x";
    let mut wanted = request(rig, &inputs, commands).await;
    wanted.constraints.cores = 2;
    wanted.constraints.memory_mib = 512;
    for (at, contents) in [
        ("build/.attrs.json", "{}"),
        ("build/deep/er", "x"),
        ("etc/passwd", "mine"),
    ] {
        wanted.additional_files.insert(path(at), contents.into());
    }
    let built = run(rig.builder(), &inputs, wanted).await;
    assert_eq!(built.report().outcome, BuildOutcome::Success, "{}", built.log);
    let processors = built
        .log
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    assert_eq!(processors, 2, "{}", built.log);
    let memory = built.log.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib: u64 = memory
        .unwrap_or_default()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    assert!((400 << 10..512 << 10).contains(&kib), "{kib} KiB");
    built.says("/build/.attrs.json: {}");
    built.says("/etc/passwd: mine");
    for file in [
        "/build/.attrs.json: mode 100644 owner (1000, 100)",
        "/build/deep/er: mode 100644 owner (1000, 100)",
    ] {
        assert!(
            built.log.lines().any(|line| line.starts_with(file)),
            "{file}: {}",
            built.log
        );
    }
}
