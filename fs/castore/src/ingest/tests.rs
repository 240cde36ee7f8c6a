use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::*;
use crate::export::TreeExport;
use crate::memory;
use crate::node::SymlinkTarget;

fn name(text: &str) -> Option<NodeName> {
    Some(NodeName::try_from(text).unwrap())
}

fn dir(text: &str) -> TreeEvent {
    TreeEvent::DirectoryBegin { name: name(text) }
}

fn root() -> TreeEvent {
    TreeEvent::DirectoryBegin { name: None }
}

fn end() -> TreeEvent {
    TreeEvent::DirectoryEnd
}

fn file(text: &str, size: u64) -> TreeEvent {
    TreeEvent::FileBegin {
        name: name(text),
        executable: false,
        size,
    }
}

fn data(bytes: &'static [u8]) -> TreeEvent {
    TreeEvent::FileData(Bytes::from_static(bytes))
}

/// Keeps what it sees.
#[derive(Debug, Default)]
struct Recorder(Vec<TreeEvent>);

impl TreeObserver for Recorder {
    fn event(&mut self, event: &TreeEvent) {
        self.0.push(event.clone());
    }
}

async fn ingest_into(
    castore: &Castore,
    limits: IngestLimits,
    events: &[TreeEvent],
) -> Result<Ingested<Recorder>, IngestError> {
    let mut ingest = TreeIngest::new(castore.clone(), limits, Recorder::default());
    for event in events {
        ingest.event(event.clone()).await?;
    }
    ingest.finish().await
}

async fn ingest(events: &[TreeEvent]) -> Result<Ingested<Recorder>, IngestError> {
    ingest_into(&memory::castore("test"), IngestLimits::default(), events).await
}

async fn export(castore: &Castore, node: Node) -> Vec<TreeEvent> {
    let mut export = TreeExport::new(castore.clone(), node);
    let mut events = Vec::new();
    while let Some(event) = export.next().await.unwrap() {
        events.push(event);
    }
    events
}

#[tokio::test]
async fn events_come_back_as_they_went_in() {
    let castore = memory::castore("test");
    let link = TreeEvent::Symlink {
        name: name("z"),
        target: SymlinkTarget::try_from(&b"../\xff"[..]).unwrap(),
    };
    let events = [
        root(),
        dir("a"),
        file("empty", 0),
        file("f", 5),
        data(b"hello"),
        end(),
        dir("b"),
        end(),
        link,
        end(),
    ];
    let ingested = ingest_into(&castore, IngestLimits::default(), &events)
        .await
        .unwrap();
    assert_eq!(ingested.observer.0, events);
    assert_eq!(ingested.stats, IngestStats { entries: 6, bytes: 5 });
    assert_eq!(export(&castore, ingested.root).await, events);
}

#[tokio::test]
async fn broken_sequences_are_refused_by_name() {
    let message = async |events: &[TreeEvent]| ingest(events).await.unwrap_err().to_string();
    assert!(message(&[]).await.contains("ends inside `.`"));
    assert!(message(&[root()]).await.contains("ends inside `.`"));
    assert!(message(&[end()]).await.contains("not begun"));
    assert!(message(&[dir("a")]).await.contains("no name"));
    assert!(message(&[root(), end(), root()]).await.contains("after the end"));
    assert!(message(&[root(), root()]).await.contains("no name"));
    assert!(
        message(&[root(), dir("b"), end(), dir("a")])
            .await
            .contains("`a` does not come after")
    );
    assert!(
        message(&[root(), dir("a"), dir("b"), end(), dir("b")])
            .await
            .contains("`a/b`")
    );
    assert!(
        message(&[root(), file("a", 1), end()])
            .await
            .contains("`a` ends 1 bytes short of the 1")
    );
    assert!(
        message(&[root(), file("a", 1), data(b"ab")])
            .await
            .contains("longer than the 1")
    );
    assert!(
        message(&[root(), file("a", 0), data(b"a")])
            .await
            .contains("no file is open")
    );
    assert!(
        message(&[root(), file("a", 1), data(b"")])
            .await
            .contains("empty piece")
    );
    assert!(
        message(&[root(), file("a", 9), data(b"a")])
            .await
            .contains("inside `a`")
    );
}

#[tokio::test]
async fn limits_are_kept() {
    let limits = |change: fn(&mut IngestLimits)| {
        let mut limits = IngestLimits::default();
        change(&mut limits);
        limits
    };
    let castore = memory::castore("test");
    let deep = ingest_into(
        &castore,
        limits(|l| l.depth_max = 2),
        &[root(), dir("a"), dir("b")],
    )
    .await;
    assert!(matches!(deep, Err(IngestError::TooDeep { path, depth_max: 2 }) if path == "a/b"));
    let many = ingest_into(
        &castore,
        limits(|l| l.entries_max = 2),
        &[root(), dir("a"), end(), dir("b")],
    )
    .await;
    assert!(matches!(many, Err(IngestError::TooMany { entries_max: 2, .. })));
    let open = ingest_into(
        &castore,
        limits(|l| l.entries_open_max = 2),
        &[root(), file("a", 0), file("b", 0)],
    )
    .await;
    assert!(matches!(open, Err(IngestError::TooMany { entries_max: 2, .. })));
    let huge = [root(), file("a", 2), data(b"ab"), file("b", u64::MAX)];
    let large = ingest_into(&castore, limits(|l| l.size_max = 3), &huge).await;
    let error = large.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert!(matches!(error, IngestError::TooLarge { path, size_max: 3 } if path == "b"));
}

#[tokio::test]
async fn nothing_follows_a_failure() {
    let mut ingest = TreeIngest::new(memory::castore("test"), IngestLimits::default(), ());
    ingest.event(root()).await.unwrap();
    ingest.event(data(b"x")).await.unwrap_err();
    assert!(matches!(ingest.event(end()).await, Err(IngestError::Failed)));
    assert!(matches!(ingest.finish().await, Err(IngestError::Failed)));
}

fn path_events(path: &Path) -> Result<(Castore, Ingested<Recorder>), IngestPathError> {
    let castore = memory::castore("test");
    let options = PathOptions::default();
    // without a runtime, in place; and on all cores: the same
    let plain = futures::executor::block_on(ingest_path(&castore, path, &options, Recorder::default()));
    let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
    let wide = runtime.block_on(ingest_path(&castore, path, &options, Recorder::default()));
    match (plain, wide) {
        (Ok(plain), Ok(wide)) => {
            assert_eq!(plain.root, wide.root);
            assert_eq!(plain.observer.0, wide.observer.0);
            Ok((castore, plain))
        }
        (Err(plain), Err(wide)) => {
            assert_eq!(plain.to_string(), wide.to_string());
            Err(plain)
        }
        (plain, wide) => panic!("{plain:?} and {wide:?}"),
    }
}

#[test]
fn a_path_is_taken_in_whole() {
    let tmp = tempfile::tempdir().unwrap();
    let top = tmp.path().join("top");
    fs::create_dir_all(top.join("b/empty")).unwrap();
    fs::write(top.join("a"), b"text").unwrap();
    fs::write(top.join("B"), vec![9; 3_000_000]).unwrap();
    fs::write(top.join(OsStr::from_bytes(b"odd\xff\n")), b"").unwrap();
    fs::set_permissions(top.join("a"), fs::Permissions::from_mode(0o744)).unwrap();
    fs::set_permissions(top.join("B"), fs::Permissions::from_mode(0o655)).unwrap();
    symlink("/etc", top.join("b/link")).unwrap();
    for index in 0..300 {
        fs::write(top.join(format!("b/{index}")), format!("{index}")).unwrap();
    }
    let (castore, ingested) = path_events(&top).unwrap();
    assert_eq!(ingested.stats.entries, 300 + 7);
    let events = &ingested.observer.0;
    assert!(
        matches!(&events[1], TreeEvent::FileBegin { name: Some(name), executable: false, size: 3_000_000 } if name.as_bytes() == b"B")
    );
    let executable: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            TreeEvent::FileBegin {
                name,
                executable: true,
                ..
            } => name.as_ref().map(ToString::to_string),
            _ => None,
        })
        .collect();
    assert_eq!(executable, ["a"]);
    // contents come in other pieces, all else is the same
    let shape = |events: &[TreeEvent]| -> Vec<TreeEvent> {
        let not_data = |event: &&TreeEvent| !matches!(event, TreeEvent::FileData(_));
        events.iter().filter(not_data).cloned().collect()
    };
    let exported = futures::executor::block_on(export(&castore, ingested.root.clone()));
    assert_eq!(shape(&exported), shape(events));
    let again =
        futures::executor::block_on(ingest_into(&castore, IngestLimits::default(), &exported)).unwrap();
    assert_eq!(again.root, ingested.root);
}

#[test]
fn a_root_may_be_a_file_or_a_link() {
    let tmp = tempfile::tempdir().unwrap();
    let (plain, link) = (tmp.path().join("plain"), tmp.path().join("link"));
    fs::write(&plain, b"x").unwrap();
    symlink(tmp.path(), &link).unwrap();
    assert!(matches!(
        path_events(&plain).unwrap().1.root,
        Node::File { size: 1, .. }
    ));
    assert!(matches!(path_events(&link).unwrap().1.root, Node::Symlink { .. }));
    // a trailing slash does not turn the link into what it points at
    assert!(matches!(
        path_events(&link.join("")).unwrap().1.root,
        Node::Symlink { .. }
    ));
}

#[test]
fn what_cannot_be_stored_is_named() {
    let tmp = tempfile::tempdir().unwrap();
    fs::create_dir(tmp.path().join("d")).unwrap();
    let socket = tmp.path().join("d/socket");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let error = path_events(tmp.path()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "{} is a socket; only files, directories and symlinks can be stored",
            socket.display()
        )
    );
    assert_eq!(error.code(), Code::InvalidArgument);
    drop(listener);
    fs::remove_file(&socket).unwrap();
    let fifo = tmp.path().join("d/fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    assert!(
        path_events(tmp.path())
            .unwrap_err()
            .to_string()
            .contains("d/fifo is a named pipe")
    );
    assert!(
        path_events(Path::new("/dev/null"))
            .unwrap_err()
            .to_string()
            .contains("/dev/null is a device")
    );
    let absent = path_events(&tmp.path().join("absent")).unwrap_err();
    assert_eq!(absent.code(), Code::NotFound);
    assert!(absent.to_string().ends_with("absent"), "{absent}");
}

/// Sizes in /proc are lies: what is read is not what was announced.
#[test]
#[cfg(target_os = "linux")]
fn a_file_that_is_not_as_long_as_it_says_is_refused() {
    let error = path_events(Path::new("/proc/self/status")).unwrap_err();
    assert!(
        matches!(
            error,
            IngestPathError::Changed {
                size: 0,
                how: "grew",
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(error.code(), Code::Aborted);
}

/// Deeper than the number of directories held open, and than PATH_MAX allows to name.
#[test]
fn deep_trees_are_walked() {
    let tmp = tempfile::tempdir().unwrap();
    let depth = 400;
    let level = "a-directory-with-a-name";
    let top = tmp.path().join("top");
    fs::create_dir(&top).unwrap();
    let mut at = rustix::fs::open(&top, rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap();
    for _ in 0..depth {
        use rustix::fs::{Mode, OFlags, mkdirat, openat};
        mkdirat(&at, level, Mode::RWXU).unwrap();
        // after the way down there is something to do on the way up
        mkdirat(&at, "z", Mode::RWXU).unwrap();
        let file = openat(&at, "zz", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
        rustix::io::write(&file, b"x").unwrap();
        at = openat(&at, level, OFlags::RDONLY, Mode::empty()).unwrap();
    }
    let (_, ingested) = path_events(&top).unwrap();
    assert_eq!(ingested.stats.entries, 1 + 3 * depth);
    let options = PathOptions {
        limits: IngestLimits {
            depth_max: 100,
            ..IngestLimits::default()
        },
        filter: None,
    };
    let castore = memory::castore("test");
    let error = futures::executor::block_on(ingest_path(&castore, &top, &options, ())).unwrap_err();
    assert!(matches!(
        error,
        IngestPathError::Ingest {
            source: IngestError::TooDeep { .. },
            ..
        }
    ));
}

#[test]
fn a_filter_leaves_out_what_it_refuses() {
    let tmp = tempfile::tempdir().unwrap();
    fs::create_dir_all(tmp.path().join("keep/skip/x")).unwrap();
    fs::write(tmp.path().join("keep/a.o"), b"").unwrap();
    fs::write(tmp.path().join("keep/a.c"), b"").unwrap();
    let options = PathOptions {
        filter: Some(std::sync::Arc::new(|path, kind| {
            path != b"keep/skip" && !(kind == FileKind::File && path.ends_with(b".o"))
        })),
        ..PathOptions::default()
    };
    let castore = memory::castore("test");
    let ingested = futures::executor::block_on(ingest_path(&castore, tmp.path(), &options, ())).unwrap();
    assert_eq!(ingested.stats.entries, 3);
}
