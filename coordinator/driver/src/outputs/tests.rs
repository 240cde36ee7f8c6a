use std::fmt::Write as _;

use bytes::Bytes;
use igloo_build::{Limits, OutputSink as _};
use igloo_castore::node::{Node, NodeName, SymlinkTarget};
use igloo_castore::tree::TreeEvent;
use igloo_store::output::OutputIngest;
use nix_compat::store_path::{StoreDir, StorePathName};

use super::*;
use crate::request::{RequestOptions, prepare};

/// What stands where in an output; `@NAME@` is where output NAME is written, `@a@` and `@b@` are inputs.
enum Tree {
    File(&'static str),
    Program(&'static str),
    Link(&'static str),
    Folder(Vec<(&'static str, Tree)>),
}

use Tree::{File, Folder, Link, Program};

const A: &str = "/nix/store/j6jr023f68f2hx3p62ywa1n6f2pp1072-a";
const B: &str = "/nix/store/d6ldnz36m8g7hng5wkpkjcz3qbq81xwp-b";

/// Two inputs with the sizes and references that Nix 2.34 recorded of them; their content is never read.
fn inputs(dir: &StoreDir) -> BTreeMap<StorePath, PathInfo> {
    let (a, b) = (dir.parse(A).unwrap(), dir.parse(B).unwrap());
    let info = |path: &StorePath, nar_size, references: &[&StorePath]| PathInfo {
        path: path.clone(),
        node: Node::Symlink {
            target: SymlinkTarget::try_from(&b"x"[..]).unwrap(),
        },
        nar_size,
        nar_sha256: [0; 32],
        references: references.iter().copied().cloned().collect(),
        deriver: None,
        signatures: Vec::new(),
        content_address: None,
    };
    BTreeMap::from([
        (a.clone(), info(&a, 120, &[])),
        (b.clone(), info(&b, 560, &[&a, &b])),
    ])
}

/// Runs the rules over a build that leaves these trees, outputs in the order of their names.
async fn build(name: &str, text: &str, trees: &[Tree]) -> (Store, Result<FinishedOutputs, OutputError>) {
    let store = Store::memory(StoreDir::default());
    let closure = inputs(&store.dir);
    store.register(closure.values().cloned().collect()).await.unwrap();
    let name = StorePathName::new(name).unwrap();
    let derivation = Derivation::parse(&store.dir, &name, text.as_bytes()).unwrap();
    let drv_path = derivation.store_path(&store.dir).unwrap();
    let options = RequestOptions {
        cores: 1,
        memory_mib: 0,
        limits: Limits::default(),
        impure_environment: BTreeMap::new(),
    };
    let prepared = prepare(&store, &drv_path, &derivation, &closure, &options)
        .await
        .unwrap();
    let mut names = vec![("@a@".to_owned(), A.to_owned()), ("@b@".to_owned(), B.to_owned())];
    for (output, path) in &prepared.outputs {
        names.push((format!("@{output}@"), store.dir.print(path)));
    }
    let (mut sink, collected) = OutputIngest::new(store.castore.clone(), prepared.request.needles.clone());
    for (path, tree) in prepared.request.outputs.iter().zip(trees) {
        sink.begin(path).await.unwrap();
        for event in events(None, tree, &names) {
            sink.event(event).await.unwrap();
        }
        sink.end().await.unwrap();
    }
    let outputs = collected.take();
    let finished = finish(&store, &drv_path, &derivation, &prepared, outputs).await;
    (store, finished)
}

fn events(name: Option<NodeName>, tree: &Tree, names: &[(String, String)]) -> Vec<TreeEvent> {
    let text = |text: &str| {
        let fill = |text: String, (from, to): &(String, String)| text.replace(from, to);
        names.iter().fold(text.to_owned(), fill)
    };
    match tree {
        File(content) | Program(content) => {
            let content = text(content);
            let mut events = vec![TreeEvent::FileBegin {
                name,
                executable: matches!(tree, Program(_)),
                size: content.len() as u64,
            }];
            if !content.is_empty() {
                events.push(TreeEvent::FileData(Bytes::from(content)));
            }
            events
        }
        Link(target) => vec![TreeEvent::Symlink {
            name,
            target: SymlinkTarget::try_from(text(target).as_bytes()).unwrap(),
        }],
        Folder(entries) => {
            let mut events = vec![TreeEvent::DirectoryBegin { name }];
            for (name, tree) in entries {
                let name = NodeName::try_from(text(name).replace('/', "_").as_str()).unwrap();
                events.extend(self::events(Some(name), tree, names));
            }
            events.push(TreeEvent::DirectoryEnd);
            events
        }
    }
}

/// As in `oracle/NAME.txt`.
fn describe(store: &Store, finished: &FinishedOutputs) -> String {
    let mut out = String::new();
    for (name, path) in &finished.outputs {
        let info = finished.infos.iter().find(|info| info.path == *path).unwrap();
        let hash = NixHash::Sha256(info.nar_sha256).encode_with_algo(HashFormat::Base16);
        let address = info.content_address.unwrap();
        let realisation = finished
            .realisations
            .iter()
            .find(|one| one.output == *name)
            .unwrap();
        let id = realisation.id();
        let (id, _) = id.split_once('!').unwrap();
        let references: Vec<_> = info.references.iter().map(|path| store.dir.print(path)).collect();
        let size = info.nar_size;
        let path = store.dir.print(path);
        writeln!(
            out,
            "{name} {path} {hash} {size} {address} {id} {}",
            references.join(" ")
        )
        .unwrap();
    }
    out
}

/// References in another order are the same.
fn sorted(text: &str) -> Vec<Vec<&str>> {
    let mut lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(' ').collect()).collect();
    lines.iter_mut().for_each(|words| words[6..].sort_unstable());
    lines
}

macro_rules! oracle {
    ($name:literal, $($tree:expr),+) => {
        (
            $name,
            include_str!(concat!("oracle/", $name, ".drv")),
            include_str!(concat!("oracle/", $name, ".txt")),
            vec![$($tree),+],
        )
    };
}

/// Path, NAR hash and size, content address, realisation and references of floating outputs are those that Nix 2.34 gave
/// the same content: names of their own in contents, file names and symlinks, of each other, of inputs, and none.
#[tokio::test]
async fn floating_outputs_are_those_nix_makes() {
    let itself = Folder(vec![
        ("@out@", File("")),
        ("link", Link("@out@/self")),
        ("self", File("@out@\n")),
        ("two", File("twice @out@ @out@\n")),
        ("x", Program("#!@out@")),
    ]);
    let cases = [
        oracle!("plain", File("hello\n")),
        oracle!("itself", itself),
        oracle!(
            "several",
            Folder(vec![("f", File("@out@\n@a@\n"))]),
            Folder(vec![("f", File("@lib@\n"))]),
            Folder(vec![("f", File("@lib@ @out@\n"))])
        ),
        oracle!("flat", File("hi\n")),
        oracle!("sha512", File("x\n")),
        oracle!("text", File("@a@\n")),
        oracle!("discarded", File("x\n"), File("@lib@ @out@ @a@\n")),
    ];
    for (name, drv, expected, trees) in cases {
        let (store, finished) = build(name, drv, &trees).await;
        let finished = finished.unwrap();
        assert_eq!(sorted(&describe(&store, &finished)), sorted(expected), "{name}");
        store.register(finished.infos.clone()).await.unwrap();
        for info in &finished.infos {
            store.verify(info).await.unwrap();
        }
    }
}

fn floating(method: &str) -> String {
    format!(
        r#"Derive([("out","","{method}","")],[],["{A}"],"x86_64-linux","/bin/sh",[],[("out","/1rz4g4znpzjwh1xymhjpm42vipw92pr73vdgl6xs1hycac8kf2n9")])"#
    )
}

/// What cannot have a content address is told as Nix 2.34 tells it.
#[tokio::test]
async fn floating_outputs_without_an_address() {
    let refused = "fixed output derivation 'c5' is not allowed to refer to other store paths.\nYou may need to use the 'unsafeDiscardReferences' derivation attribute, see the manual for more details.";
    for (method, content, expected) in [
        ("sha256", "@out@\n", refused),
        ("r:sha512", "@out@\n", refused),
        ("sha256", "@a@\n", refused),
        (
            "text:sha256",
            "@out@\n",
            "self-reference not allowed with text hashing",
        ),
    ] {
        let (_, finished) = build("c5", &floating(method), &[File(content)]).await;
        assert_eq!(finished.unwrap_err().to_string(), expected);
    }
    // names that are no longer in order (Nix: "NAR directory is not sorted")
    let finished = unsorted_names().await;
    assert!(matches!(finished, Err(OutputError::Rewrite(_))), "{finished:?}");
}

/// An output with a file named by the output's own base name, between others that its final name does not fit between.
async fn unsorted_names() -> Result<FinishedOutputs, OutputError> {
    let store = Store::memory(StoreDir::default());
    let name = StorePathName::new("c18").unwrap();
    let derivation = Derivation::parse(&store.dir, &name, floating("r:sha256").as_bytes()).unwrap();
    let drv_path = derivation.store_path(&store.dir).unwrap();
    let own = store
        .dir
        .provisional_path(&drv_path, &name, &"out".parse().unwrap())
        .unwrap();
    let digits = "0123456789abcdfghijklmnpqrsvwxyz".chars();
    let mut names: Vec<String> = digits.map(String::from).collect();
    names.push(own.to_string());
    names.sort();
    let mut events = vec![TreeEvent::DirectoryBegin { name: None }];
    for name in &names {
        events.push(TreeEvent::FileBegin {
            name: Some(NodeName::try_from(name.as_str()).unwrap()),
            executable: false,
            size: 0,
        });
    }
    events.push(TreeEvent::DirectoryEnd);
    let options = RequestOptions {
        cores: 1,
        memory_mib: 0,
        limits: Limits::default(),
        impure_environment: BTreeMap::new(),
    };
    let prepared = prepare(&store, &drv_path, &derivation, &BTreeMap::new(), &options)
        .await
        .unwrap();
    let (mut sink, collected) = OutputIngest::new(store.castore.clone(), prepared.request.needles.clone());
    sink.begin(&prepared.request.outputs[0]).await.unwrap();
    for event in events {
        sink.event(event).await.unwrap();
    }
    sink.end().await.unwrap();
    finish(&store, &drv_path, &derivation, &prepared, collected.take()).await
}

/// Impure outputs have content addresses as floating ones, and are told to nobody.
#[tokio::test]
async fn impure_outputs_are_not_remembered() {
    let text = floating("r:sha256").replace(r#""r:sha256","""#, r#""r:sha256","impure""#);
    let (_, finished) = build("x", &text, &[File("@out@")]).await;
    let finished = finished.unwrap();
    assert!(finished.realisations.is_empty());
    assert_eq!(
        finished.infos[0].references,
        BTreeSet::from([finished.infos[0].path.clone()])
    );
}

/// Hashes of fixed outputs and what is said of them, recorded from Nix 2.34 (and 2.8, where no output names itself).
#[tokio::test]
async fn fixed_outputs_are_hashed_as_nix_hashes() {
    let folder = || Folder(vec![("a", File("a\n"))]);
    for (method, zeros, tree, got) in [
        (
            "sha256",
            64,
            File("a\n"),
            "sha256-h0KPxSKAPTEGXnvOPPA/5HUJZjHl4Hu9eg/eYMTPJcc=",
        ),
        (
            "r:sha256",
            64,
            folder(),
            "sha256-ZC9jnmoT/hJWt2mz/0FE9wqQ0718VSOdPlkpQKJXNLg=",
        ),
        (
            "r:sha512",
            128,
            folder(),
            "sha512-1iS8ttEXoOS3cXpQ2ym/R692YsrKQiWLBhtELdxVlILF6X21EqDxP5CLfTrXz0RWqjhYAQsJFkpuVA+9+X3jfQ==",
        ),
        ("r:md5", 32, folder(), "md5-OqdZgRymiYpPvSZm/2f7+A=="),
        (
            "text:sha256",
            64,
            File("hello\n"),
            "sha256-WJG1tSLV3whtD/CxEPvZ0hu0/HFjrzTQgoai6Eb2vgM=",
        ),
        (
            "r:sha256",
            64,
            Folder(vec![("a", File("@out@\n"))]),
            "sha256-r4K58oTueHZrYy3gmBbRR7QGQi+bIfV7j8nsAp4S3BQ=",
        ),
        (
            "r:sha256",
            64,
            Folder(vec![("a", File("@a@\n"))]),
            "sha256-1JT16utVTUASnFNA1/8TcoqD+6Orpqn+Kpgsbr5ja6g=",
        ),
    ] {
        let (_, finished) = build("f17", &fixed("f17", method, &"0".repeat(zeros)), &[tree]).await;
        match finished.unwrap_err() {
            OutputError::HashMismatch(mismatch) => assert_eq!(mismatch.got, got),
            error => panic!("{method}: {error}"),
        }
    }
}

/// What a fixed output may not be, in Nix's words (2.34).
#[tokio::test]
async fn fixed_outputs_that_are_refused() {
    let text = format!("{A}\n");
    let hash = NixHash::of(HashAlgo::Sha256, text.as_bytes()).encode(HashFormat::Base16);
    let refused = "fixed output derivation 'f8' is not allowed to refer to other store paths.";
    let flat = "its output should be a non-executable regular file since recursive hashing is not enabled (one of outputHashMode={flat,text} is true)";
    let references = "fixed-output derivations must not reference store paths: '/nix/store/";
    for (method, tree, expected) in [
        ("sha256", File("@a@\n"), refused),
        ("sha256", File("@out@\n"), refused),
        ("sha256", Program("x"), flat),
        ("sha256", Link("/x"), flat),
        ("sha256", Folder(vec![]), flat),
        ("text:sha256", File("@a@\n"), references),
    ] {
        let (_, finished) = build("f8", &fixed("f8", method, &hash), &[tree]).await;
        let error = finished.unwrap_err();
        assert!(error.to_string().starts_with(expected), "{error}");
        assert_eq!(error.is_broken_promise(), expected == references);
    }
    let (_, finished) = build("f8", &fixed("f8", "text:sha256", &hash), &[File("@a@\n")]).await;
    let error = finished.unwrap_err().to_string();
    assert!(
        error.ends_with(&format!("-f8.drv' references 1 distinct paths, e.g. '{A}'")),
        "{error}"
    );
}

fn fixed(name: &str, method: &str, hash: &str) -> String {
    let address = {
        let (method, algo) = ContentAddressMethod::parse_with_algo(method).unwrap();
        let hash = NixHash::parse_digest(hash, algo).unwrap();
        ContentAddress::new(method, hash).unwrap()
    };
    let dir = StoreDir::default();
    let name = StorePathName::new(name).unwrap();
    let output = DerivationOutput::CaFixed { address };
    let path = output
        .path(&dir, &name, &"out".parse().unwrap())
        .unwrap()
        .unwrap();
    format!(
        r#"Derive([("out","{}","{method}","{hash}")],[],["{A}"],"x86_64-linux","/bin/sh",[],[])"#,
        dir.print(&path)
    )
}

const OUT: &str = "/nix/store/030n0sg13h4sjkscad2s5rr6q912pi4q-x";
const LIB: &str = "/nix/store/bz310mymdmppdzganis84skq4524gdm0-x-lib";

/// A derivation with the outputs `lib` and `out`.
fn two_outputs(variable: &str, value: &str) -> String {
    let value = value.replace('"', "\\\"").replace("@a@", A).replace("@b@", B);
    format!(
        r#"Derive([("lib","{LIB}","",""),("out","{OUT}","","")],[],["{B}"],"x86_64-linux","/bin/sh",[],[("{variable}","{value}")])"#
    )
}

/// Each case is one of Nix 2.34's: what it let pass, and its words where it did not.
#[tokio::test]
async fn checks_are_those_of_nix() {
    let disallowed = |output: &str, paths: &[&str]| {
        let paths: String = paths.iter().map(|path| format!("\n  {path}")).collect();
        format!("output '{output}' is not allowed to refer to the following paths:{paths}")
    };
    let none = || String::new();
    for (variable, value, out, expected) in [
        ("allowedReferences", "", "@a@", disallowed(OUT, &[A])),
        (
            "allowedReferences",
            "",
            "@a@ @b@ @out@",
            disallowed(OUT, &[OUT, B, A]),
        ),
        ("allowedReferences", "@a@", "@a@ @out@", disallowed(OUT, &[OUT])),
        ("allowedReferences", "@a@ out", "@a@ @out@", none()),
        ("allowedRequisites", "@b@", "@b@", disallowed(OUT, &[A])),
        ("allowedRequisites", "@a@ @b@", "@b@ @out@", none()),
        ("disallowedReferences", "@a@", "@b@", none()),
        (
            "disallowedReferences",
            "@a@ out",
            "@b@ @out@",
            disallowed(OUT, &[OUT]),
        ),
        ("disallowedReferences", "@b@", "@b@", disallowed(OUT, &[B])),
        ("disallowedRequisites", "@a@", "@b@", disallowed(OUT, &[A])),
        ("disallowedRequisites", "out", "@b@ @out@", none()),
        (
            "__json",
            r#"{"outputChecks":{"out":{"allowedReferences":[]}}}"#,
            "@out@",
            disallowed(OUT, &[OUT]),
        ),
        (
            "__json",
            r#"{"outputChecks":{"out":{"allowedRequisites":[]}}}"#,
            "@out@",
            disallowed(OUT, &[OUT]),
        ),
        (
            "__json",
            r#"{"outputChecks":{"out":{"allowedRequisites":["@a@","@b@"],"ignoreSelfRefs":true}}}"#,
            "@b@ @out@",
            disallowed(OUT, &[OUT]),
        ),
        (
            "__json",
            r#"{"outputChecks":{"out":{"disallowedReferences":["out"]}}}"#,
            "@out@",
            disallowed(OUT, &[OUT]),
        ),
        (
            "__json",
            r#"{"outputChecks":{"lib":{"allowedReferences":[]}}}"#,
            "@out@",
            none(),
        ),
        (
            "__json",
            r#"{"outputChecks":{"out":{"maxSize":-1}}}"#,
            "@out@",
            none(),
        ),
        ("__json", r#"{"allowedReferences":[]}"#, "@a@", none()),
        (
            "__json",
            r#"{"outputChecks":{"out":{"allowedReferences":[]}},"unsafeDiscardReferences":{"out":true}}"#,
            "@b@ @out@",
            none(),
        ),
        (
            "__json",
            r#"{"outputChecks":{"out":{"maxSize":10}}}"#,
            "@out@",
            format!("path '{OUT}' is too large at 160 bytes; limit is 10 bytes"),
        ),
        (
            "__json",
            r#"{"outputChecks":{"out":{"maxClosureSize":500}}}"#,
            "@b@",
            format!("closure of path '{OUT}' is too large at 840 bytes; limit is 500 bytes"),
        ),
    ] {
        let (_, finished) = build("x", &two_outputs(variable, value), &[File("x"), File(out)]).await;
        let found = finished.err().map(|error| error.to_string()).unwrap_or_default();
        assert_eq!(found, expected, "{variable} {value}");
    }
    let (_, finished) = build(
        "x",
        &two_outputs("allowedReferences", "@a@"),
        &[File("@out@"), File("@a@")],
    )
    .await;
    assert_eq!(finished.unwrap_err().to_string(), disallowed(LIB, &[OUT]));
    let (_, finished) = build(
        "x",
        &two_outputs("allowedRequisites", "@a@ @b@"),
        &[File("@out@"), File("@b@")],
    )
    .await;
    assert_eq!(finished.unwrap_err().to_string(), disallowed(LIB, &[OUT]));
}

/// Outputs that name each other are refused with both named, as Nix 2.8 and 2.34 do, whatever kind they are.
#[tokio::test]
async fn circles_are_refused() {
    let (_, finished) = build("x", &two_outputs("x", ""), &[File("@out@"), File("@lib@")]).await;
    let error = finished.unwrap_err().to_string();
    assert!(
        error.starts_with("cycle detected in build of '/nix/store/"),
        "{error}"
    );
    assert!(
        error.ends_with("' in the references of output 'lib' from output 'out'"),
        "{error}"
    );
}
