use std::convert::Infallible;
use std::fs::{self, File};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;

use igloo_control::GuestSequence;
use igloo_control::message::{ExitStatus, Exited, Hello, Usage};
use igloo_control::spec::{GuestLimits, Personality};

use super::*;

fn spec(outputs: &[&str]) -> BuildSpec {
    BuildSpec {
        program: "/p".into(),
        arguments: vec![],
        environment: vec![],
        working_dir: "build".into(),
        inputs_dir: "nix/store".into(),
        scratch_paths: vec![],
        outputs: outputs
            .iter()
            .map(|path| Bytes::copy_from_slice(path.as_bytes()))
            .collect(),
        uid: rustix::process::getuid().as_raw(),
        gid: 0,
        hostname: Bytes::new(),
        domainname: Bytes::new(),
        personality: Personality::Native,
        network: None,
        kvm: false,
        limits: GuestLimits::default(),
    }
}

/// Streams the outputs and checks that the host's own sequence takes every message.
fn streamed(root: &Path, spec: &BuildSpec) -> Vec<GuestMessage> {
    let mut messages = Vec::new();
    let directory = File::open(root).unwrap();
    let mut send = |message| -> Result<(), Infallible> {
        messages.push(message);
        Ok(())
    };
    stream(directory.as_fd(), spec, &mut send).unwrap();
    let mut sequence = GuestSequence::new(u32::try_from(spec.outputs.len()).unwrap());
    let text = String::new;
    let hello = Hello {
        agent_version: text(),
        kernel_release: text(),
        architecture: text(),
        memory_bytes: 0,
        cpus: 1,
        uptime_us: 0,
    };
    let exited = Exited {
        status: ExitStatus::Code(0),
        exhausted: None,
        usage: Usage::default(),
    };
    let before = [
        GuestMessage::Hello(hello),
        GuestMessage::Mounted,
        GuestMessage::Started,
        GuestMessage::Exited(exited),
    ];
    for message in before.iter().chain(&messages) {
        message.check().unwrap();
        sequence.take(message).unwrap();
    }
    messages
}

/// The error a single output gives.
fn refused(root: &Path, path: &str) -> (String, OutputReason) {
    match streamed(root, &spec(&[path])).pop() {
        Some(GuestMessage::OutputError {
            index: 0,
            path,
            reason,
        }) => (String::from_utf8(path.to_vec()).unwrap(), reason),
        other => panic!("{path} was taken: {other:?}"),
    }
}

fn tree() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("out")).unwrap();
    dir
}

fn shown(messages: &[GuestMessage]) -> Vec<String> {
    let text = |bytes: &Bytes| bytes.escape_ascii().to_string();
    messages
        .iter()
        .map(|message| match message {
            GuestMessage::OutputBegin { index } => format!("output {index}"),
            GuestMessage::DirectoryBegin { name } => format!("dir {}", text(name)),
            GuestMessage::FileBegin {
                name,
                executable,
                size,
            } => format!("file {} {executable} {size}", text(name)),
            GuestMessage::FileData(data) => format!("data {}", text(data)),
            GuestMessage::Symlink { name, target } => format!("link {} {}", text(name), text(target)),
            GuestMessage::DirectoryEnd => "up".into(),
            GuestMessage::OutputEnd => "end".into(),
            other => other.name().to_owned(),
        })
        .collect()
}

/// A tree with everything a tree may have, in byte order: upper case first, odd names, links that loop or lead out.
#[test]
fn a_whole_tree() {
    let dir = tree();
    let out = dir.path().join("out");
    fs::create_dir(out.join("b")).unwrap();
    fs::write(out.join("b/x"), "x").unwrap();
    fs::write(out.join("b.d"), "").unwrap();
    fs::write(out.join("B"), "run").unwrap();
    fs::set_permissions(out.join("B"), PermissionsExt::from_mode(0o777)).unwrap();
    fs::hard_link(out.join("b/x"), out.join("same")).unwrap();
    symlink("loop", out.join("loop")).unwrap();
    symlink("/etc/passwd", out.join("outside")).unwrap();
    symlink("..", out.join("up")).unwrap();
    fs::write(out.join(std::ffi::OsStr::new("new\nline \u{1F9CA}")), "i").unwrap();
    fs::write(dir.path().join("flat"), "1").unwrap();
    symlink("flat", dir.path().join("symlink")).unwrap();
    let messages = streamed(dir.path(), &spec(&["out", "flat", "symlink"]));
    let expected = [
        "output 0",
        "dir ",
        "file B true 3",
        "data run",
        "dir b",
        "file x false 1",
        "data x",
        "up",
        "file b.d false 0",
        "link loop loop",
        "file new\\nline \\xf0\\x9f\\xa7\\x8a false 1",
        "data i",
        "link outside /etc/passwd",
        "file same false 1",
        "data x",
        "link up ..",
        "up",
        "end",
        "output 1",
        "file  false 1",
        "data 1",
        "end",
        "output 2",
        "link  flat",
        "end",
        "Collected",
    ];
    assert_eq!(shown(&messages), expected);
}

/// What no store can keep is refused, and named.
#[test]
fn unfit_files_are_named() {
    type Make = fn(&Path);
    let cases: &[(&str, Make, OutputReason)] = &[
        ("fifo", |path| make_node(path, FileType::Fifo), OutputReason::Fifo),
        (
            "socket",
            |path| make_node(path, FileType::Socket),
            OutputReason::Socket,
        ),
    ];
    for (name, make, reason) in cases {
        let dir = tree();
        fs::create_dir(dir.path().join("out/deep")).unwrap();
        make(&dir.path().join("out/deep").join(name));
        assert_eq!(refused(dir.path(), "out"), (format!("out/deep/{name}"), *reason));
        make(&dir.path().join("top"));
        assert_eq!(refused(dir.path(), "top"), ("top".into(), *reason));
    }
}

fn make_node(path: &Path, kind: FileType) {
    let mode = Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).unwrap();
    rustix::fs::chmod(path, mode).unwrap();
}

/// The output itself may not be open to others; what is in it may.
#[test]
fn only_the_top_must_be_closed() {
    let dir = tree();
    let inner = dir.path().join("out/inner");
    fs::write(&inner, "").unwrap();
    fs::set_permissions(&inner, PermissionsExt::from_mode(0o666)).unwrap();
    assert_eq!(streamed(dir.path(), &spec(&["out"])).len(), 6);
    for mode in [0o775, 0o757, 0o1777] {
        fs::set_permissions(dir.path().join("out"), PermissionsExt::from_mode(mode)).unwrap();
        let mode = u16::try_from(mode).unwrap();
        assert_eq!(
            refused(dir.path(), "out"),
            ("out".into(), OutputReason::Writable { mode })
        );
    }
}

/// A missing output, one behind a link, and one that is no path.
#[test]
fn outputs_that_are_not_there() {
    let dir = tree();
    assert_eq!(
        refused(dir.path(), "gone"),
        ("gone".into(), OutputReason::Missing)
    );
    assert_eq!(
        refused(dir.path(), "gone/too"),
        ("gone/too".into(), OutputReason::Missing)
    );
    symlink("/etc", dir.path().join("link")).unwrap();
    let (path, reason) = refused(dir.path(), "link/passwd");
    assert_eq!(path, "link/passwd");
    assert!(matches!(reason, OutputReason::Io { .. }), "{reason:?}");
    assert_eq!(refused(dir.path(), "../etc/passwd").1, OutputReason::NameInvalid);
}

/// The second output is named when it is the one that is wrong.
#[test]
fn the_wrong_output_is_named() {
    let dir = tree();
    let messages = streamed(dir.path(), &spec(&["out", "gone"]));
    let expected = GuestMessage::OutputError {
        index: 1,
        path: "gone".into(),
        reason: OutputReason::Missing,
    };
    assert_eq!(messages.last(), Some(&expected));
}

/// A file of someone else's anywhere is refused. Needs root to make one.
#[test]
fn foreign_files_are_refused() {
    if !rustix::process::getuid().is_root() {
        return skip("foreign_files_are_refused", "only root can give files away");
    }
    let dir = tree();
    fs::write(dir.path().join("out/theirs"), "").unwrap();
    let owner = Some(rustix::fs::Uid::from_raw(4242));
    rustix::fs::chown(dir.path().join("out/theirs"), owner, None).unwrap();
    assert_eq!(
        refused(dir.path(), "out"),
        ("out/theirs".into(), OutputReason::NotOwned { uid: 4242 })
    );
}

fn skip(test: &str, reason: &str) {
    let line = format!("SKIPPED: igloo-guest outputs::{test}: {reason}");
    eprintln!("{line}");
    if let Some(file) = std::env::var_os("IGLOO_TEST_SKIPS") {
        use std::io::Write;
        writeln!(
            File::options().append(true).create(true).open(file).unwrap(),
            "{line}"
        )
        .unwrap();
    }
}

/// The limit counts all outputs together.
#[test]
fn outputs_have_a_limit_together() {
    let dir = tree();
    for name in ["a", "b"] {
        fs::write(dir.path().join(name), vec![0; 600]).unwrap();
    }
    let mut limited = spec(&["a", "b"]);
    limited.limits.output_bytes = Some(1200);
    assert_eq!(
        streamed(dir.path(), &limited).last(),
        Some(&GuestMessage::Collected)
    );
    limited.limits.output_bytes = Some(1199);
    let too_large = GuestMessage::OutputError {
        index: 1,
        path: "b".into(),
        reason: OutputReason::TooLarge,
    };
    assert_eq!(streamed(dir.path(), &limited).last(), Some(&too_large));
}

/// Ten thousand entries come in byte order, and long files in pieces that add up.
#[test]
fn wide_and_long() {
    let dir = tree();
    for index in 0..10_000 {
        File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(dir.path().join(format!("out/f{index}")))
            .unwrap();
    }
    let size = 3 * DATA_SIZE_MAX + 5;
    fs::write(dir.path().join("long"), vec![7; size]).unwrap();
    let messages = streamed(dir.path(), &spec(&["out", "long"]));
    let names: Vec<_> = messages
        .iter()
        .filter_map(|message| match message {
            GuestMessage::FileBegin { name, .. } if !name.is_empty() => Some(name),
            _ => None,
        })
        .collect();
    assert_eq!(names.len(), 10_000);
    assert!(names.is_sorted());
    let data = messages.iter().filter_map(|message| match message {
        GuestMessage::FileData(data) => Some(data.len()),
        _ => None,
    });
    assert_eq!(data.sum::<usize>(), size);
}

/// A tree far deeper than any stack or path: too deep is an answer, no crash.
#[test]
fn depth_has_an_end() {
    let dir = tree();
    let mode = Mode::from_raw_mode(0o700);
    let mut at: OwnedFd = File::open(dir.path().join("out")).unwrap().into();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    for _ in 0..DEPTH_MAX {
        rustix::fs::mkdirat(&at, c"d", mode).unwrap();
        at = openat(&at, c"d", flags, Mode::empty()).unwrap();
    }
    // every open level takes a descriptor
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
    if limit
        .maximum
        .is_some_and(|maximum| maximum < u64::from(DEPTH_MAX) + 64)
    {
        return skip("depth_has_an_end", "the limit of open files is too low");
    }
    let (path, reason) = refused(dir.path(), "out");
    assert_eq!(reason, OutputReason::TooDeep);
    assert!(path.starts_with("out/d/d/d/"));
    assert!(path.len() <= igloo_control::message::TARGET_SIZE_MAX);
}
