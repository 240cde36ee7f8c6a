use std::collections::BTreeSet;
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use igloo_build::{BuildError, BuildIo, BuildOutcome, BuildReport, BuildRequest, Limits};
use igloo_castore::tree::TreeEvent;
use nix_compat::content_address::{ContentAddress, ContentAddressMethod};
use nix_compat::derivation::{Derivation, DerivationOutput, HashModuloMemo, OutputName};
use nix_compat::hash::{HashAlgo, NixHash};
use nix_compat::store_path::{StoreDir, StorePathName};

use super::*;
use crate::outputs::OutputError;
use crate::source::DerivationSource;

/// Runs no program: writes the first argument's file content to every output, or fails when told to.
#[derive(Debug, Default)]
struct FakeBuilder {
    ran: Mutex<Vec<String>>,
    most_at_once: Mutex<(usize, usize)>,
}

#[async_trait]
impl Builder for FakeBuilder {
    async fn build(&self, request: BuildRequest, mut io: BuildIo) -> Result<BuildReport, BuildError> {
        request.check()?;
        let name = String::from_utf8(request.environment[&b"name"[..]].to_vec()).unwrap();
        self.ran.lock().unwrap().push(name.clone());
        {
            let mut counts = self.most_at_once.lock().unwrap();
            counts.0 += 1;
            counts.1 = counts.1.max(counts.0);
        }
        tokio::task::yield_now().await;
        io.events
            .send(BuildEvent::Log {
                sequence: 0,
                bytes: Bytes::from_static(b"hi\n"),
            })
            .await
            .unwrap();
        let mut outcome = BuildOutcome::Success;
        if name.starts_with("fail") {
            outcome = BuildOutcome::ExitCode(3);
        } else {
            for output in &request.outputs {
                let content = request.arguments[1].clone();
                io.outputs.begin(output).await?;
                let size = content.len() as u64;
                io.outputs
                    .event(TreeEvent::FileBegin {
                        name: None,
                        executable: false,
                        size,
                    })
                    .await?;
                io.outputs.event(TreeEvent::FileData(content)).await?;
                io.outputs.end().await?;
            }
        }
        self.most_at_once.lock().unwrap().0 -= 1;
        Ok(BuildReport {
            outcome,
            stats: BuildStats::default(),
        })
    }

    fn systems(&self) -> Vec<String> {
        vec!["x86_64-linux".into()]
    }
}

/// Derivations on disk and an empty store.
struct Fixture {
    folder: tempfile::TempDir,
    memo: HashModuloMemo,
    store: Store,
    builder: Arc<FakeBuilder>,
}

struct Drv {
    path: StorePath,
    out: StorePath,
}

impl Fixture {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            memo: HashModuloMemo::new(StoreDir::default()),
            store: Store::memory(StoreDir::default()),
            builder: Arc::default(),
        }
    }

    fn drv(&mut self, name: &str, content: &str, inputs: &[&Drv]) -> Drv {
        self.drv_with(name, content, inputs, DerivationOutput::Deferred)
    }

    fn drv_with(&mut self, name: &str, content: &str, inputs: &[&Drv], output: DerivationOutput) -> Drv {
        let dir = StoreDir::default();
        let out: OutputName = "out".parse().unwrap();
        let mut derivation = Derivation {
            name: StorePathName::new(name).unwrap(),
            outputs: BTreeMap::from([(out.clone(), output)]),
            input_drvs: inputs
                .iter()
                .map(|input| (input.path.clone(), BTreeSet::from([out.clone()])))
                .collect(),
            input_srcs: BTreeSet::new(),
            platform: b"x86_64-linux".to_vec(),
            builder: b"/bin/sh".to_vec(),
            args: vec![content.as_bytes().to_vec()],
            env: BTreeMap::from([
                (b"name".to_vec(), name.as_bytes().to_vec()),
                (b"out".to_vec(), Vec::new()),
            ]),
        };
        derivation.fill_output_paths(&self.memo).unwrap();
        let text = derivation.to_aterm(&dir).unwrap();
        let path = derivation.store_path_of_text(&dir, &text).unwrap();
        std::fs::write(self.folder.path().join(path.to_string()), text).unwrap();
        self.memo.add(path.clone(), &derivation).unwrap();
        let out = derivation.outputs[&out]
            .path(&dir, &derivation.name, &out)
            .unwrap()
            .unwrap();
        Drv { path, out }
    }

    async fn plan(&self, wanted: &[&Drv]) -> Plan {
        let source = DerivationSource::new(StoreDir::default(), vec![self.folder.path().to_path_buf()]);
        let wanted = wanted
            .iter()
            .map(|drv| (drv.path.clone(), BTreeSet::new()))
            .collect();
        Plan::make(&self.store, &source, wanted).await.unwrap()
    }

    async fn realise(&self, wanted: &[&Drv], keep_going: bool) -> Realised {
        let options = RequestOptions {
            cores: 1,
            memory_mib: 0,
            limits: Limits::default(),
            impure_environment: BTreeMap::new(),
        };
        let builder = self.builder.clone();
        let realise = Realise {
            store: self.store.clone(),
            builder,
            options,
            slots: 2,
            keep_going,
        };
        let (sender, mut receiver) = mpsc::channel(1);
        let plan = self.plan(wanted).await;
        let drain = async { while receiver.recv().await.is_some() {} };
        tokio::join!(realise.run(&plan, sender), drain).0
    }

    fn ran(&self) -> Vec<String> {
        std::mem::take(&mut *self.builder.ran.lock().unwrap())
    }
}

/// Inputs before what needs them; what is registered is not built again; references are those found in the content.
#[tokio::test]
async fn builds_in_order_and_only_what_is_missing() {
    let mut fixture = Fixture::new();
    let base = fixture.drv("base", "nothing", &[]);
    let left = fixture.drv("left", &format!("uses {}", base.out), &[&base]);
    let right = fixture.drv("right", "uses nothing", &[&base]);
    let top = fixture.drv("top", &format!("{} {}", left.out, right.out), &[&left, &right]);
    let realised = fixture.realise(&[&top], false).await;
    assert!(realised.failed.is_empty() && realised.not_tried.is_empty());
    let ran = fixture.ran();
    assert_eq!(ran.len(), 4);
    assert_eq!((ran[0].as_str(), ran[3].as_str()), ("base", "top"));
    assert!(fixture.builder.most_at_once.lock().unwrap().1 <= 2);
    let references = |path: &StorePath| {
        let (store, path) = (fixture.store.clone(), path.clone());
        async move { store.path_infos.get(&path).await.unwrap().unwrap().references }
    };
    assert_eq!(references(&left.out).await, BTreeSet::from([base.out.clone()]));
    assert_eq!(references(&right.out).await, BTreeSet::new());
    assert_eq!(
        references(&top.out).await,
        BTreeSet::from([left.out.clone(), right.out.clone()])
    );
    let again = fixture.realise(&[&top], false).await;
    assert!(again.built.is_empty() && fixture.ran().is_empty());
}

/// A failure stops what needs it; with keep-going the rest is built.
#[tokio::test]
async fn a_failure_stops_what_needs_it() {
    let mut fixture = Fixture::new();
    let bad = fixture.drv("fail", "x", &[]);
    let above = fixture.drv("above", "x", &[&bad]);
    let good = fixture.drv("good", "x", &[]);
    let realised = fixture.realise(&[&above, &good], true).await;
    assert_eq!(realised.failed.len(), 1);
    assert!(matches!(
        realised.failed[0].failure,
        BuildFailure::Outcome(BuildOutcome::ExitCode(3))
    ));
    assert_eq!(realised.not_tried, [above.path]);
    assert_eq!(realised.built.len(), 1);
    assert!(fixture.store.path_infos.get(&good.out).await.unwrap().is_some());
    assert!(fixture.store.path_infos.get(&bad.out).await.unwrap().is_none());
}

/// A fixed output with other content is refused and not registered; with the promised content it is kept.
#[tokio::test]
async fn fixed_outputs_are_checked() {
    for (content, is_kept) in [("right", true), ("wrong", false)] {
        let mut fixture = Fixture::new();
        let hash = NixHash::of(HashAlgo::Sha512, b"right");
        let address = ContentAddress::new(ContentAddressMethod::Flat, hash).unwrap();
        let fixed = fixture.drv_with("fixed", content, &[], DerivationOutput::CaFixed { address });
        let realised = fixture.realise(&[&fixed], false).await;
        let info = fixture.store.path_infos.get(&fixed.out).await.unwrap();
        assert_eq!(info.is_some(), is_kept);
        assert_eq!(realised.failed.is_empty(), is_kept);
        if let Some(error) = realised.failed.first() {
            assert!(matches!(
                error.failure,
                BuildFailure::Output(OutputError::HashMismatch(_))
            ));
            assert!(
                error
                    .to_string()
                    .starts_with("hash mismatch in fixed-output derivation"),
                "{error}"
            );
        }
    }
}

/// A missing input source is found while planning, and named.
#[tokio::test]
async fn a_missing_input_is_named() {
    let mut fixture = Fixture::new();
    let drv = fixture.drv("x", "x", &[]);
    let file = fixture.folder.path().join(drv.path.to_string());
    let dir = StoreDir::default();
    let name = StorePathName::new("y").unwrap();
    let mut derivation = Derivation::parse(&dir, &name, &std::fs::read(file).unwrap()).unwrap();
    let input = dir
        .parse("/nix/store/59209gx1b93k17d049isa072bka4iv8w-missing")
        .unwrap();
    derivation.input_srcs.insert(input);
    let path = derivation.store_path(&dir).unwrap();
    std::fs::write(
        fixture.folder.path().join(path.to_string()),
        derivation.to_aterm(&dir).unwrap(),
    )
    .unwrap();
    let source = DerivationSource::new(dir, vec![fixture.folder.path().to_path_buf()]);
    let error = Plan::make(&fixture.store, &source, vec![(path, BTreeSet::new())])
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("59209gx1b93k17d049isa072bka4iv8w-missing"),
        "{error}"
    );
}

/// An input that lies beside the derivations is taken in, if its content has its path.
#[tokio::test]
async fn inputs_beside_a_derivation_are_taken_in() {
    let dir = StoreDir::default();
    let name = StorePathName::new("source").unwrap();
    let scratch = Store::memory(dir.clone());
    let fixture = Fixture::new();
    let tree = fixture.folder.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("file"), "content").unwrap();
    let options = igloo_castore::ingest::PathOptions::default();
    let input = scratch.add_path(&name, &tree, &options).await.unwrap().path;
    let text = format!(
        r#"Derive([("out","/nix/store/64gg0rb54s3zs6ikyqllwvhh05hnwz4q-x","","")],[],["{}"],"x86_64-linux","/bin/sh",[],[])"#,
        dir.print(&input)
    );
    let derivation = Derivation::parse(&dir, &StorePathName::new("x").unwrap(), text.as_bytes()).unwrap();
    let path = derivation.store_path(&dir).unwrap();
    std::fs::write(fixture.folder.path().join(path.to_string()), text).unwrap();
    let source = DerivationSource::new(dir, vec![fixture.folder.path().to_path_buf()]);
    let plan = async || Plan::make(&fixture.store, &source, vec![(path.clone(), BTreeSet::new())]).await;
    let beside = fixture.folder.path().join(input.to_string());
    std::fs::write(&beside, "something else").unwrap();
    assert!(matches!(
        plan().await,
        Err(crate::plan::PlanError::MissingInput { .. })
    ));
    std::fs::remove_file(&beside).unwrap();
    std::fs::rename(&tree, &beside).unwrap();
    assert_eq!(plan().await.unwrap().builds.len(), 1);
    assert!(fixture.store.path_infos.get(&input).await.unwrap().is_some());
}
