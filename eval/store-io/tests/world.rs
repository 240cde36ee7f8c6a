//! What an evaluation sees of a store, and what it leaves there when things go wrong.
#![allow(clippy::unwrap_used, reason = "the helpers of tests")]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use common::{FakeBuilds, Heard, json, memory_store, records, runtime};
use igloo_castore::digest::BlobDigest;
use igloo_castore::error::{ReadBlobError, WriteError};
use igloo_castore::ingest::PathOptions;
use igloo_castore::store::{BlobStat, BlobStore, BlobWriter, Castore};
use igloo_eval::io::{AccessRules, FileType, IoError};
use igloo_eval::{ContextElem, EvalIo, Evaluation, Features, Format, Origin, Settings};
use igloo_status::Code;
use igloo_store::Store;
use igloo_store_io::{
    DependencyKey, HostStore, RealiseError, RealisedOutput, Realiser, StoreIo, Wanted, Writes,
};
use nix_compat::store_path::{StorePath, StorePathName};
use proptest::prelude::*;

fn eval(io: &Rc<StoreIo>, base: &Path, expression: &str) -> Result<String, String> {
    json(io, base.to_str().unwrap(), expression).map_err(|error| error.render(false))
}

/// Counts blobs that are stored.
#[derive(Debug)]
struct Counting(Arc<dyn BlobStore>, Arc<AtomicUsize>);

#[async_trait]
impl BlobStore for Counting {
    async fn stat(&self, digest: &BlobDigest) -> Result<Option<Arc<BlobStat>>, ReadBlobError> {
        self.0.stat(digest).await
    }

    async fn read_range(&self, digest: &BlobDigest, offset: u64, len: usize) -> Result<Bytes, ReadBlobError> {
        self.0.read_range(digest, offset, len).await
    }

    async fn put_small(&self, blobs: Vec<(BlobDigest, Bytes)>) -> Result<(), WriteError> {
        self.1.fetch_add(blobs.len(), Ordering::SeqCst);
        self.0.put_small(blobs).await
    }

    async fn writer(&self) -> Result<Box<dyn BlobWriter>, WriteError> {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.writer().await
    }

    async fn sync(&self) -> Result<(), WriteError> {
        self.0.sync().await
    }
}

fn counting(store: &Store) -> (Store, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let blobs = Counting(Arc::clone(&store.castore.blobs), Arc::clone(&count));
    let castore = Castore {
        blobs: Arc::new(blobs),
        directories: Arc::clone(&store.castore.directories),
    };
    (
        Store {
            castore,
            ..store.clone()
        },
        count,
    )
}

/// A source imported 1000 times is ingested once, under whatever names; a change is noticed.
#[test]
fn sources_are_read_once() {
    let tmp = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(tmp.path().join("src/d")).unwrap();
    for name in ["a", "b", "c"] {
        std::fs::write(tmp.path().join("src/d").join(name), name).unwrap();
    }
    let runtime = runtime();
    let (store, count) = counting(&memory_store("/nix/store"));
    let io = Rc::new(StoreIo::new(store.clone(), runtime.handle().clone()));
    let many = r#"builtins.length (builtins.foldl' (seen: n: let p = builtins.path {
        path = ./src; name = "n${toString (n - n / 10 * 10)}"; }; in builtins.seq p ([ p ] ++ seen))
        [ ] (builtins.genList (n: n) 1000))"#;
    assert_eq!(eval(&io, tmp.path(), many), Ok("1000".into()));
    assert_eq!(count.load(Ordering::SeqCst), 3);
    // each call of a filter is its own, but what it lets through is read once
    let filtered = r#"map (n: builtins.path { path = ./src; name = "f"; filter = path: type: baseNameOf path != "c"; })
        (builtins.genList (n: n) 100)"#;
    eval(&io, tmp.path(), filtered).unwrap();
    assert_eq!(count.load(Ordering::SeqCst), 5);
    io.flush().unwrap();
    assert_eq!(records(&runtime, &store).len(), 11);
    // another evaluator over the same world has no memory of its own; the world notices a new file
    std::fs::write(tmp.path().join("src/new"), "new").unwrap();
    let one = r#"builtins.path { path = ./src; name = "n0"; }"#;
    eval(&io, tmp.path(), one).unwrap();
    assert_eq!(count.load(Ordering::SeqCst), 9);
}

/// A second evaluation of the same thing writes nothing, but says everything again.
#[test]
fn again_costs_no_writes() {
    let tmp = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let store = memory_store("/nix/store");
    let expression = r#"(derivation { name = "x"; system = "s"; builder = "b";
        text = derivation { name = "y"; system = "s"; builder = "b"; }; }).drvPath"#;
    let mut all = Vec::new();
    for round in 0..2 {
        let heard = Arc::new(Heard::default());
        let (store, count) = counting(&store);
        let io = StoreIo::new(store.clone(), runtime.handle().clone()).with_sink(Arc::<Heard>::clone(&heard));
        let io = Rc::new(io);
        eval(&io, tmp.path(), expression).unwrap();
        io.flush().unwrap();
        assert_eq!(count.load(Ordering::SeqCst), if round == 0 { 2 } else { 0 });
        let heard = heard.0.lock().unwrap();
        all.push(heard.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>());
    }
    assert_eq!(all[0].len(), 2);
    assert_eq!(all[0], all[1]);
}

/// What is referred to must be there, as in Nix.
#[test]
fn references_must_exist() {
    let tmp = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let store = memory_store("/nix/store");
    let io =
        Rc::new(StoreIo::new(store.clone(), runtime.handle().clone()).with_host_store(HostStore::Hidden));
    let absent = "/nix/store/00000000000000000000000000000000-absent";
    let context = format!(r#"builtins.appendContext "x" {{ "{absent}" = {{ path = true; }}; }}"#);
    let expected = format!("path '{absent}' is not valid");
    for expression in [
        format!(r#"builtins.toFile "t" ({context})"#),
        format!(r#"(derivation {{ name = "x"; system = "s"; builder = {context}; }}).drvPath"#),
        format!(r#"builtins.readFile ("{absent}/f" + {context})"#),
    ] {
        let error = eval(&io, tmp.path(), &expression).unwrap_err();
        assert!(error.contains(&expected), "{expression}: {error}");
    }
    let error = eval(&io, tmp.path(), &format!(r#"builtins.storePath "{absent}""#)).unwrap_err();
    assert!(
        error.contains("is required, but there is no substituter"),
        "{error}"
    );
    io.flush().unwrap();
    assert!(records(&runtime, &store).is_empty());
}

/// Nix's read-only mode, recorded from 2.34 (`nix-instantiate --eval`): paths are those of a writing evaluation, nothing is
/// written, and what was not written cannot be read.
#[test]
fn paths_are_computed_without_writing() {
    let tmp = tempfile::tempdir().unwrap();
    std::fs::create_dir(tmp.path().join("src")).unwrap();
    std::fs::write(tmp.path().join("src/file"), "text").unwrap();
    let script = tmp.path().join("src/script");
    std::fs::write(&script, "run").unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("file", tmp.path().join("src/link")).unwrap();
    let all = r#"
        let
          d = derivation { name = "d"; system = "s"; builder = ./src; };
          filter = path: type: baseNameOf path != "script";
          flat = builtins.path { path = ./src/file; recursive = false; };
        in [
          "${./src}" "${./src/script}" flat (builtins.filterSource filter ./src) (builtins.toFile "t" "${./src/file}")
          d.drvPath (derivation { name = "e"; system = "s"; builder = "b"; deep = d.drvPath; }).drvPath
        ]"#;
    let runtime = runtime();
    let (written, computed) = (memory_store("/nix/store"), memory_store("/nix/store"));
    let io = Rc::new(StoreIo::new(written, runtime.handle().clone()));
    let expected = eval(&io, tmp.path(), all).unwrap();
    let io = StoreIo::new(computed.clone(), runtime.handle().clone()).with_writes(Writes::Computed);
    let io = Rc::new(io.with_host_store(HostStore::Hidden));
    assert_eq!(eval(&io, tmp.path(), all), Ok(expected));
    for (expression, message) in [
        (r#"builtins.readFile "${./src/file}""#, "-file' is not valid"),
        (
            r#"builtins.readFile (builtins.toFile "a" "b")"#,
            "error: path 'g76zcpqc540lrc8i6g7xy6ip0npn2hnp-a' is not valid",
        ),
        (
            r#"import (derivation { name = "x"; system = "s"; builder = "b"; })"#,
            "-x.drv' is not valid",
        ),
    ] {
        let error = eval(&io, tmp.path(), expression).unwrap_err();
        assert!(error.contains(message), "{expression}: {error}");
    }
    let named = r#"builtins.storePath "/nix/store/00000000000000000000000000000000-x""#;
    assert!(eval(&io, tmp.path(), named).is_ok(), "nothing is looked for");
    io.flush().unwrap();
    assert!(records(&runtime, &computed).is_empty());
}

/// A store that fails is an error of the evaluation, at the latest when it is flushed; nothing later is registered.
#[test]
fn a_full_disk_is_an_error() {
    let tmp = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let store = memory_store("/nix/store");
    let (castore, faults) = igloo_testkit::faults::faulty(store.castore.clone());
    let store = Store { castore, ..store };
    let heard = Arc::new(Heard::default());
    let io = StoreIo::new(store.clone(), runtime.handle().clone()).with_sink(Arc::<Heard>::clone(&heard));
    let io = Rc::new(io);
    let drv =
        |name: &str| format!(r#"(derivation {{ name = "{name}"; system = "s"; builder = "b"; }}).drvPath"#);
    eval(&io, tmp.path(), &drv("before")).unwrap();
    io.flush().unwrap();
    faults.fill_disk(true);
    // the evaluation does not wait for the disk, so it may or may not get to see the failure itself
    let _either = eval(&io, tmp.path(), &drv("full"));
    let error = io.flush().unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
    faults.heal();
    assert!(eval(&io, tmp.path(), &drv("after")).is_err());
    assert!(io.flush().is_err());
    assert_eq!(heard.0.lock().unwrap().len(), 1);
    assert_eq!(records(&runtime, &store).len(), 1);
}

/// Inside an async task the world says so instead of panicking.
#[test]
fn not_inside_a_task() {
    let runtime = runtime();
    let store = memory_store("/nix/store");
    runtime.block_on(async {
        let io = StoreIo::new(store, runtime.handle().clone());
        let error = io
            .read_file(b"/nix/store/00000000000000000000000000000000-x")
            .unwrap_err();
        assert_eq!(error.code(), Code::Unimplemented);
        assert!(error.to_string().contains("thread of its own"), "{error}");
    });
}

/// A runtime that is gone is an error, not a hang.
#[test]
fn a_runtime_that_is_gone() {
    let store = memory_store("/nix/store");
    let gone = runtime();
    let io = StoreIo::new(store, gone.handle().clone());
    io.add_text("x", b"text", &[]).unwrap();
    gone.shutdown_background();
    while io.add_text("y", b"more", &[]).is_ok() && io.flush().is_ok() {
        std::thread::yield_now();
    }
    assert!(io.flush().is_err());
}

type Script = dyn Fn(&[Wanted]) -> Result<Vec<RealisedOutput>, RealiseError> + Send + Sync;

/// Answers as told.
struct Scripted {
    answer: Box<Script>,
}

impl Scripted {
    fn new(
        answer: impl Fn(&[Wanted]) -> Result<Vec<RealisedOutput>, RealiseError> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            answer: Box::new(answer),
        })
    }
}

#[async_trait]
impl Realiser for Scripted {
    async fn realise(&self, wanted: Vec<Wanted>) -> Result<Vec<RealisedOutput>, RealiseError> {
        (self.answer)(&wanted)
    }
}

const DRV: &str = r#"let mk = name: derivation { inherit name; system = "s"; builder = "b"; outputs = [ "out" "doc" ]; content = "content"; }; in "#;

/// Every output asked for is `made`.
fn all_are(made: StorePath) -> impl Fn(&[Wanted]) -> Result<Vec<RealisedOutput>, RealiseError> {
    move |wanted| {
        let mut realised = Vec::new();
        for wanted in wanted {
            if let Wanted::Outputs { derivation, outputs } = wanted {
                realised.extend(outputs.iter().map(|output| RealisedOutput {
                    derivation: derivation.clone(),
                    output: output.clone(),
                    path: made.clone(),
                }));
            }
        }
        Ok(realised)
    }
}

fn text(runtime: &tokio::runtime::Runtime, store: &Store, text: &'static str) -> StorePath {
    let name = StorePathName::new("made").unwrap();
    let add = store.add_text(
        &name,
        Bytes::from_static(text.as_bytes()),
        std::collections::BTreeSet::new(),
    );
    runtime.block_on(add).unwrap().path
}

/// All that one string needs is asked for at once, and what is there is not asked for.
#[test]
fn one_ask_for_one_string() {
    let tmp = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let store = memory_store("/nix/store");
    struct Recording(FakeBuilds, Mutex<Vec<Vec<Wanted>>>);
    #[async_trait]
    impl Realiser for Recording {
        async fn realise(&self, wanted: Vec<Wanted>) -> Result<Vec<RealisedOutput>, RealiseError> {
            self.1.lock().unwrap().push(wanted.clone());
            self.0.realise(wanted).await
        }
    }
    let asked = Arc::new(Recording(FakeBuilds(store.clone()), Mutex::default()));
    let realiser = Arc::<Recording>::clone(&asked);
    let io = Rc::new(StoreIo::new(store, runtime.handle().clone()).with_realiser(realiser));
    let expression = r#"let a = mk "a"; b = mk "b"; c = mk "c"; in
        builtins.pathExists "/nowhere${a}${a.doc}${b}${builtins.substring 0 0 c.outPath}""#;
    eval(&io, tmp.path(), &format!("{DRV}{expression}")).unwrap();
    eval(
        &io,
        tmp.path(),
        &format!(r#"{DRV}builtins.readFile (mk "a").doc"#),
    )
    .unwrap();
    let asked = asked.1.lock().unwrap();
    assert_eq!(asked.len(), 1);
    let mut outputs: Vec<_> = asked[0]
        .iter()
        .map(|wanted| match wanted {
            Wanted::Outputs { derivation, outputs } => (derivation.name().to_string(), outputs.len()),
            Wanted::Path(path) => (path.to_string(), 0),
        })
        .collect();
    outputs.sort();
    assert_eq!(
        outputs,
        [
            ("a.drv".to_owned(), 2),
            ("b.drv".to_owned(), 1),
            ("c.drv".to_owned(), 1)
        ]
    );
}

/// What builds say is checked: nothing named, or a path that is not there, is an error.
#[test]
fn answers_are_checked() {
    let tmp = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let store = memory_store("/nix/store");
    let absent = StorePath::parse("00000000000000000000000000000000-x").unwrap();
    let failing = |wanted: &[Wanted]| match &wanted[0] {
        Wanted::Outputs { derivation, .. } => Err(RealiseError::Build {
            derivation: derivation.clone(),
            reason: format!("cannot build '/nix/store/{derivation}': builder failed with exit code 1"),
            exit: 100,
        }),
        Wanted::Path(path) => Err(RealiseError::Missing { path: path.clone() }),
    };
    let other = text(&runtime, &store, "of another derivation");
    let cases: [(Arc<Scripted>, &str); 5] = [
        (Scripted::new(all_are(other)), "-a is its path"),
        (Scripted::new(|_| Ok(Vec::new())), "does not name its path"),
        (Scripted::new(all_are(absent.clone())), "-x' is not valid"),
        (Scripted::new(failing), "-a.drv': builder failed with exit code 1"),
        (Scripted::new(|_| Err(RealiseError::Cancelled)), "cancelled"),
    ];
    for (realiser, message) in cases {
        let io = Rc::new(StoreIo::new(store.clone(), runtime.handle().clone()).with_realiser(realiser));
        let error = eval(&io, tmp.path(), &format!(r#"{DRV}builtins.readFile (mk "a")"#)).unwrap_err();
        assert!(error.contains(message), "{message}: {error}");
        let failed = error.matches("-a.drv'").count();
        assert!(
            !error.contains("builder failed") || failed == 1,
            "named once: {error}"
        );
    }
    let io = StoreIo::new(store.clone(), runtime.handle().clone()).with_realiser(Scripted::new(failing));
    let io = Rc::new(io);
    let base = tmp.path().to_str().unwrap();
    let error = json(&io, base, &format!(r#"{DRV}builtins.readFile (mk "a")"#)).unwrap_err();
    assert_eq!(error.exit, 100, "the status the builder's failure has in Nix");
    let error = json(&io, base, &format!(r#"builtins.storePath "/nix/store/{absent}""#)).unwrap_err();
    assert_eq!(
        error.message,
        format!("path '/nix/store/{absent}' is required, but there is no substituter that can build it"),
        "recorded from Nix 2.34"
    );
    let io = Rc::new(StoreIo::new(store, runtime.handle().clone()));
    let error = eval(&io, tmp.path(), &format!(r#"{DRV}builtins.readFile (mk "a")"#)).unwrap_err();
    assert!(error.contains("has no builder"), "{error}");
    let missing = format!(
        r#"{DRV}builtins.readFile (builtins.appendContext "/x" {{ ${{builtins.unsafeDiscardStringContext (mk "a").drvPath}} = {{ outputs = [ "none" ]; }}; }})"#
    );
    let error = eval(&io, tmp.path(), &missing).unwrap_err();
    assert!(error.contains("does not have wanted outputs 'none'"), "{error}");
}

/// A path whose place was unknown before the build is put where its placeholder was.
#[test]
fn placeholders_are_replaced() {
    let runtime = runtime();
    let store = memory_store("/nix/store");
    let made = text(&runtime, &store, "floating content");
    let io = StoreIo::new(store, runtime.handle().clone()).with_realiser(Scripted::new(all_are(made)));
    let settings = Settings {
        features: Features {
            ca_derivations: true,
            ..Features::default()
        },
        ..Settings::default()
    };
    let mut evaluation = Evaluation::new(settings, Rc::new(io));
    let expression = r#"builtins.readFile (derivation { name = "x"; system = "s"; builder = "b";
        __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256"; })"#;
    let root = evaluation
        .eval_text(expression.as_bytes(), Origin::String)
        .unwrap();
    let printed = evaluation.print(root, Format::Json, true).unwrap();
    assert_eq!(String::from_utf8(printed).unwrap().trim(), "\"floating content\"");
}

/// `builtins.storePath` of what is nowhere asks for it, once.
#[test]
fn store_paths_are_asked_for() {
    let tmp = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let store = memory_store("/nix/store");
    let other = store.clone();
    let name = StorePathName::new("made").unwrap();
    let path = store.dir.text_path(
        &name,
        &nix_compat::hash::sha256(b"late"),
        &std::collections::BTreeSet::new(),
    );
    let asked = Arc::new(AtomicUsize::new(0));
    struct Late(Store, Arc<AtomicUsize>);
    #[async_trait]
    impl Realiser for Late {
        async fn realise(&self, wanted: Vec<Wanted>) -> Result<Vec<RealisedOutput>, RealiseError> {
            assert!(matches!(wanted.as_slice(), [Wanted::Path(_)]));
            self.1.fetch_add(1, Ordering::SeqCst);
            let name = StorePathName::new("made").unwrap();
            let references = std::collections::BTreeSet::new();
            self.0
                .add_text(&name, Bytes::from_static(b"late"), references)
                .await
                .unwrap();
            Ok(Vec::new())
        }
    }
    let realiser = Arc::new(Late(other, Arc::clone(&asked)));
    let io = StoreIo::new(store.clone(), runtime.handle().clone())
        .with_host_store(HostStore::Hidden)
        .with_realiser(realiser);
    let io = Rc::new(io);
    let printed = store.dir.print(&path);
    let expression = format!(r#"builtins.readFile (builtins.storePath "{printed}")"#);
    assert_eq!(eval(&io, tmp.path(), &expression), Ok("\"late\"".into()));
    assert_eq!(eval(&io, tmp.path(), &expression), Ok("\"late\"".into()));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

/// Two evaluations that wait for builds are both heard before either is answered.
#[test]
fn asks_of_many_evaluations_overlap() {
    struct Together(tokio::sync::Barrier, FakeBuilds);
    #[async_trait]
    impl Realiser for Together {
        async fn realise(&self, wanted: Vec<Wanted>) -> Result<Vec<RealisedOutput>, RealiseError> {
            let both = tokio::time::timeout(Duration::from_secs(20), self.0.wait()).await;
            both.map_err(|_| RealiseError::Cancelled)?;
            self.1.realise(wanted).await
        }
    }
    let runtime = runtime();
    let store = memory_store("/nix/store");
    let realiser = Arc::new(Together(tokio::sync::Barrier::new(3), FakeBuilds(store.clone())));
    let threads: Vec<_> = ["a", "b", "c"]
        .map(|name| {
            let (store, handle, realiser) = (store.clone(), runtime.handle().clone(), Arc::clone(&realiser));
            std::thread::spawn(move || {
                let io = Rc::new(StoreIo::new(store, handle).with_realiser(realiser));
                eval(
                    &io,
                    Path::new("/"),
                    &format!(r#"{DRV}builtins.readFile (mk "{name}")"#),
                )
            })
        })
        .into();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), Ok("\"content\"".into()));
    }
}

/// Restricted: what the rules name, and what the evaluation made; no way around by symlinks.
#[test]
fn restricted() {
    let tmp = tempfile::tempdir().unwrap();
    let root = std::fs::canonicalize(tmp.path()).unwrap();
    std::fs::create_dir_all(root.join("allowed")).unwrap();
    std::fs::write(root.join("allowed/file"), "yes").unwrap();
    std::fs::write(root.join("secret"), "no").unwrap();
    std::os::unix::fs::symlink(root.join("secret"), root.join("allowed/out")).unwrap();
    std::os::unix::fs::symlink("../secret", root.join("allowed/up")).unwrap();
    let runtime = runtime();
    let store = memory_store("/nix/store");
    let given = text(&runtime, &store, "given");
    let rules = AccessRules::Below(
        vec![root.join("allowed").to_str().unwrap().into()],
        "in restricted mode",
    );
    let io = Rc::new(StoreIo::new(store.clone(), runtime.handle().clone()).with_rules(rules));
    let allowed = |expression: &str| eval(&io, &root, expression);
    assert_eq!(allowed("builtins.readFile ./allowed/file"), Ok("\"yes\"".into()));
    assert_eq!(
        allowed(r#"builtins.readFile "${./allowed}/file""#),
        Ok("\"yes\"".into())
    );
    assert_eq!(
        allowed(r#"builtins.readFile (builtins.toFile "t" "made")"#),
        Ok("\"made\"".into())
    );
    for expression in [
        "builtins.readFile ./secret".to_owned(),
        "builtins.readFile ./allowed/out".to_owned(),
        "builtins.readFile ./allowed/up".to_owned(),
        "builtins.readDir ./.".to_owned(),
        "\"${./secret}\"".to_owned(),
        "builtins.path { path = ./secret; recursive = false; }".to_owned(),
        format!(r#"builtins.readFile "{}""#, store.dir.print(&given)),
        "builtins.readDir /nix/store".to_owned(),
    ] {
        let error = allowed(&expression).unwrap_err();
        assert!(
            error.contains("forbidden in restricted mode"),
            "{expression}: {error}"
        );
    }
    // asked directly, without the evaluator's own care for symlinks
    for path in ["allowed/out", "allowed/up"] {
        let path = root.join(path);
        let error = io.read_file(path.to_str().unwrap().as_bytes()).unwrap_err();
        assert!(matches!(error, IoError::Forbidden { .. }), "{error}");
    }
}

/// Everything looked at is on the list, with digests that tell changes.
#[test]
fn dependencies() {
    let tmp = tempfile::tempdir().unwrap();
    std::fs::write(tmp.path().join("a.nix"), "builtins.readDir ./d").unwrap();
    std::fs::create_dir(tmp.path().join("d")).unwrap();
    let runtime = runtime();
    let run = |keep: bool| {
        let io = StoreIo::new(memory_store("/nix/store"), runtime.handle().clone())
            .with_env(Box::new(|name| (name == b"SET").then(|| b"value".to_vec())));
        let io = Rc::new(if keep { io.with_dependencies() } else { io });
        let expression = r#"[ (import ./a.nix) (builtins.getEnv "SET") (builtins.getEnv "UNSET") "${./d}" (builtins.pathExists ./none) ]"#;
        eval(&io, tmp.path(), expression).unwrap();
        let list = io.dependencies();
        list.into_iter()
            .map(|dependency| (format!("{:?}", dependency.key), dependency))
            .collect::<BTreeMap<_, _>>()
    };
    assert!(run(false).is_empty());
    let before = run(true);
    let at = |name: &str| -> Box<[u8]> { tmp.path().join(name).to_str().unwrap().as_bytes().into() };
    for key in [
        DependencyKey::File(at("a.nix")),
        DependencyKey::Directory(at("d")),
        DependencyKey::Type(at("none")),
        DependencyKey::Env((*b"SET").into()),
        DependencyKey::Env((*b"UNSET").into()),
        DependencyKey::Import {
            path: at("d"),
            name: "d".into(),
            flat: false,
            accepted: None,
        },
    ] {
        assert!(before.values().any(|dependency| dependency.key == key), "{key:?}");
    }
    assert_eq!(run(true), before);
    std::fs::write(tmp.path().join("d/new"), "x").unwrap();
    let after = run(true);
    let changed: Vec<_> = after
        .values()
        .filter(|dependency| !before.values().any(|old| old == *dependency))
        .collect();
    assert_eq!(changed.len(), 2, "{changed:?}"); // the listing and the import
}

/// A tree with links of every kind, twice: on the disk, and in a store that is nowhere on the disk.
struct Twice {
    tmp: tempfile::TempDir,
    io: StoreIo,
    object: PathBuf,
    _runtime: tokio::runtime::Runtime,
}

fn twice(links: &[(String, String)]) -> Twice {
    let tmp = tempfile::tempdir().unwrap();
    let dir = std::fs::canonicalize(tmp.path()).unwrap().join("store");
    std::fs::create_dir(&dir).unwrap();
    let base = "00000000000000000000000000000000-tree";
    let object = dir.join(base);
    std::fs::create_dir_all(object.join("a/b")).unwrap();
    std::fs::write(object.join("file"), "file").unwrap();
    std::fs::write(object.join("a/b/file"), "deep").unwrap();
    for (at, target) in links {
        let target = target
            .replace("STORE", dir.to_str().unwrap())
            .replace("TREE", object.to_str().unwrap());
        // a name taken already stays what it is
        let _taken = std::os::unix::fs::symlink(target, object.join(at));
    }
    let runtime = runtime();
    let store = memory_store(dir.to_str().unwrap());
    let name = StorePathName::new("tree").unwrap();
    let options = PathOptions::default();
    let info = runtime
        .block_on(store.add_path(&name, &object, &options))
        .unwrap();
    // under the name it has on the disk
    let info = igloo_store::PathInfo {
        path: StorePath::parse(base).unwrap(),
        content_address: None,
        ..info
    };
    runtime.block_on(store.register(vec![info])).unwrap();
    let io = StoreIo::new(store, runtime.handle().clone()).with_host_store(HostStore::Hidden);
    Twice {
        tmp,
        io,
        object,
        _runtime: runtime,
    }
}

fn kind_on_disk(path: &Path) -> Option<FileType> {
    let kind = std::fs::symlink_metadata(path).ok()?.file_type();
    Some(if kind.is_dir() {
        FileType::Directory
    } else if kind.is_symlink() {
        FileType::Symlink
    } else {
        FileType::Regular
    })
}

fn links() -> impl Strategy<Value = Vec<(String, String)>> {
    let at = prop_oneof!["[l-n]", "a/[l-n]", "a/b/[l-n]"];
    let part = prop_oneof![
        Just("..".to_owned()),
        Just(".".to_owned()),
        Just("a".to_owned()),
        Just("b".to_owned()),
        Just("file".to_owned()),
        "[l-n]"
    ];
    let relative = proptest::collection::vec(part, 1..4).prop_map(|parts| parts.join("/"));
    let target = prop_oneof![
        4 => relative.clone(),
        1 => relative.prop_map(|rest| format!("TREE/{rest}")),
        1 => Just("STORE/00000000000000000000000000000000-tree/a".to_owned()),
        1 => Just("/".to_owned()),
    ];
    proptest::collection::vec((at, target), 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// A store that is nowhere on the disk reads as if it were.
    #[test]
    fn a_store_reads_as_a_disk_does(
        links in links(),
        asked in proptest::collection::vec(proptest::collection::vec(prop_oneof![
            Just("a".to_owned()), Just("b".to_owned()), Just("file".to_owned()), "[l-n]"], 0..5), 1..30),
    ) {
        let twice = twice(&links);
        for parts in asked {
            let path = parts.iter().fold(twice.object.clone(), |path, part| path.join(part));
            let bytes = path.to_str().unwrap().as_bytes();
            // the type of the last component needs canonical parents, which the evaluator sees to; reads need none
            let canonical = path.parent().is_some_and(|parent| {
                std::fs::canonicalize(parent).is_ok_and(|real| real == parent)
            });
            if canonical {
                prop_assert_eq!(twice.io.file_type(bytes).unwrap(), kind_on_disk(&path), "{:?}", path);
                let target = std::fs::read_link(&path).ok();
                let ours = twice.io.read_link(bytes).ok();
                prop_assert_eq!(ours, target.map(|target| target.to_str().unwrap().as_bytes().to_vec()));
            }
            prop_assert_eq!(twice.io.read_file(bytes).ok(), std::fs::read(&path).ok(), "{:?}", path);
            // of the store directory and what is above it, each has its own
            let real = std::fs::canonicalize(&path).unwrap_or_default();
            if !twice.tmp.path().starts_with(&real) && real != twice.object.parent().unwrap() {
                let mut listed: Option<Vec<_>> = std::fs::read_dir(&path).ok().map(|entries| {
                    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
                });
                let mut ours: Option<Vec<_>> = twice.io.read_dir(bytes).ok().map(|entries| {
                    entries.into_iter().map(|(name, _)| String::from_utf8(name).unwrap()).collect()
                });
                listed.iter_mut().for_each(|list| list.sort());
                ours.iter_mut().for_each(|list| list.sort());
                prop_assert_eq!(ours, listed, "{:?}", path);
            }
        }
    }
}

#[test]
fn links_without_end_are_errors() {
    let pairs = [("l", "m"), ("m", "l"), ("n", "n/n")];
    let twice = twice(&pairs.map(|(at, target)| (at.to_owned(), target.to_owned())));
    for name in ["l", "n"] {
        let path = twice.object.join(name);
        let error = twice.io.read_file(path.to_str().unwrap().as_bytes()).unwrap_err();
        assert!(error.to_string().contains("symlink recursion"), "{error}");
    }
}

/// The store directory is there, and lists what is in the store, even on a machine without one.
#[test]
fn the_store_directory() {
    let runtime = runtime();
    let store = memory_store("/nowhere/at/all/store");
    let io = StoreIo::new(store, runtime.handle().clone());
    let path = io.add_text("x", b"text", &[]).unwrap();
    for directory in ["/nowhere", "/nowhere/at/all", "/nowhere/at/all/store"] {
        assert_eq!(
            io.file_type(directory.as_bytes()).unwrap(),
            Some(FileType::Directory),
            "{directory}"
        );
    }
    assert_eq!(io.file_type(b"/nowhere/else").unwrap(), None);
    let listed = io.read_dir(b"/nowhere/at/all/store").unwrap();
    assert_eq!(listed, [(path.to_string().into_bytes(), FileType::Regular)]);
    let elem = ContextElem::Opaque(io.store_dir().print(&path).into_bytes().into());
    assert!(io.realise(&[elem]).unwrap().is_empty());
    assert_eq!(io.references(&path).unwrap(), []);
}
