//! What one evaluation needs independently is asked for and fetched side by side.
#![allow(clippy::unwrap_used, reason = "the helpers of tests")]

mod common;

use std::io::{Cursor, Read};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use common::{FakeBuilds, Heard, json, memory_store, records, runtime};
use igloo_store_io::fetch::FetchError;
use igloo_store_io::{FetchLimits, Fetcher, RealiseError, RealisedOutput, Realiser, Shared, StoreIo, Wanted};
use tokio::sync::Notify;

/// Longer than anything here takes; then the test fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(60);

const BUILD: &str = r#"let made = name: builtins.readFile (derivation { inherit name; system = "s"; builder = "b"; content = name; }); in "#;

fn eval(io: &Rc<StoreIo>, expression: &str) -> Result<String, String> {
    json(io, "/", &format!("{BUILD}{expression}")).map_err(|error| error.render(false))
}

fn names(wanted: &[Wanted]) -> Vec<String> {
    let name = |wanted: &Wanted| match wanted {
        Wanted::Outputs { derivation, .. } => derivation.name().to_string(),
        Wanted::Path(path) => path.name().to_string(),
    };
    wanted.iter().map(name).collect()
}

#[test]
fn asks_of_one_evaluation_overlap() {
    struct Together(tokio::sync::Barrier, FakeBuilds);
    #[async_trait]
    impl Realiser for Together {
        async fn realise(&self, wanted: Vec<Wanted>) -> Result<Vec<RealisedOutput>, RealiseError> {
            let all = tokio::time::timeout(PATIENCE, self.0.wait()).await;
            all.map_err(|_| RealiseError::Cancelled)?;
            self.1.realise(wanted).await
        }
    }
    let runtime = runtime();
    let store = memory_store("/nix/store");
    let builds = FakeBuilds(store.clone());
    let realiser = Arc::new(Together(tokio::sync::Barrier::new(3), builds));
    let io = Rc::new(StoreIo::new(store, runtime.handle().clone()).with_realiser(realiser));
    assert_eq!(
        eval(&io, r#"{ a = made "a"; b = [ (made "b") { c = made "c"; } ]; }"#),
        Ok(r#"{"a":"a","b":["b",{"c":"c"}]}"#.into())
    );
}

/// `a` is answered once `b` was asked for; `b` never is.
#[test]
fn an_answer_nobody_wants_is_dropped() {
    #[derive(Default)]
    struct State {
        asked_b: Notify,
        dropped_b: AtomicBool,
        drops: Notify,
    }
    struct OnlyA(Arc<State>, FakeBuilds);
    struct Dropped(Arc<State>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.dropped_b.store(true, Ordering::SeqCst);
            self.0.drops.notify_one();
        }
    }
    #[async_trait]
    impl Realiser for OnlyA {
        async fn realise(&self, wanted: Vec<Wanted>) -> Result<Vec<RealisedOutput>, RealiseError> {
            if names(&wanted) == ["b.drv"] {
                let _dropped = Dropped(Arc::clone(&self.0));
                self.0.asked_b.notify_one();
                std::future::pending::<()>().await;
            }
            let asked = tokio::time::timeout(PATIENCE, self.0.asked_b.notified()).await;
            asked.map_err(|_| RealiseError::Cancelled)?;
            self.1.realise(wanted).await
        }
    }
    let runtime = runtime();
    let store = memory_store("/nix/store");
    let state = Arc::new(State::default());
    let realiser = Arc::new(OnlyA(Arc::clone(&state), FakeBuilds(store.clone())));
    let io = Rc::new(StoreIo::new(store, runtime.handle().clone()).with_realiser(realiser));
    let expression =
        r#"builtins.tryEval (builtins.deepSeq [ (builtins.seq (made "a") (throw "x")) (made "b") ] 1)"#;
    assert_eq!(
        eval(&io, expression),
        Ok(r#"{"success":false,"value":false}"#.into())
    );
    runtime.block_on(async {
        let drops = tokio::time::timeout(PATIENCE, state.drops.notified());
        drops.await.unwrap();
    });
    assert!(state.dropped_b.load(Ordering::SeqCst));
}

#[test]
fn a_realiser_that_panics_is_an_error() {
    struct Panics;
    #[async_trait]
    impl Realiser for Panics {
        async fn realise(&self, _: Vec<Wanted>) -> Result<Vec<RealisedOutput>, RealiseError> {
            std::panic::resume_unwind(Box::new("on purpose"));
        }
    }
    let runtime = runtime();
    let io =
        StoreIo::new(memory_store("/nix/store"), runtime.handle().clone()).with_realiser(Arc::new(Panics));
    let error = eval(&Rc::new(io), r#"[ (made "a") (made "b") ]"#).unwrap_err();
    assert!(error.contains("ended without an answer"), "{error}");
}

/// Answers each URL with its own text, once so many are open.
struct Gate {
    wanted: usize,
    open: Mutex<usize>,
    changed: Condvar,
    opened: AtomicUsize,
}

impl Gate {
    fn new(wanted: usize) -> Arc<Self> {
        Arc::new(Self {
            wanted,
            open: Mutex::default(),
            changed: Condvar::new(),
            opened: AtomicUsize::new(0),
        })
    }
}

impl Fetcher for Gate {
    fn open(&self, url: &str) -> Result<Box<dyn Read>, FetchError> {
        self.opened.fetch_add(1, Ordering::SeqCst);
        let mut open = self.open.lock().unwrap();
        *open += 1;
        self.changed.notify_all();
        let (open, waited) = self
            .changed
            .wait_timeout_while(open, PATIENCE, |open| *open < self.wanted)
            .unwrap();
        assert!(!waited.timed_out(), "only {} were fetched at one time", *open);
        Ok(Box::new(Cursor::new(url.to_owned().into_bytes())))
    }
}

#[test]
fn fetches_overlap_and_one_url_is_fetched_once() {
    let runtime = runtime();
    let gate = Gate::new(2);
    let fetcher = Arc::<Gate>::clone(&gate);
    let io = StoreIo::new(memory_store("/nix/store"), runtime.handle().clone())
        .with_fetcher(fetcher, FetchLimits::default());
    let expression = r#"map (n: builtins.readFile (builtins.fetchurl "http://h/${n}")) [ "a" "a" "b" "a" ]"#;
    assert_eq!(
        eval(&Rc::new(io), expression),
        Ok(r#"["http://h/a","http://h/a","http://h/b","http://h/a"]"#.into())
    );
    assert_eq!(gate.opened.load(Ordering::SeqCst), 2);
}

#[test]
fn a_search_path_entry_is_fetched_while_others_are_on_their_way() {
    let runtime = runtime();
    let gate = Gate::new(1);
    let fetcher = Arc::<Gate>::clone(&gate);
    let io = StoreIo::new(memory_store("/nix/store"), runtime.handle().clone())
        .with_fetcher(fetcher, FetchLimits::default());
    // the entry is no archive: it is passed over with a warning, and nobody's answer is lost
    let expression = r#"map (n: if n == "" then (builtins.tryEval (builtins.findFile [ { prefix = "x"; path = "http://h/x.tar"; } ] "x")).success else builtins.readFile (builtins.fetchurl "http://h/${n}")) [ "a" "" "b" ]"#;
    assert_eq!(
        eval(&Rc::new(io), expression),
        Ok(r#"["http://h/a",false,"http://h/b"]"#.into())
    );
}

/// "A derivation that several of them make is registered, and told, once, behind all it refers to"; "without a hash, one URL
/// gives the same to all of them; while one fetches it, the others wait."
#[test]
fn threads_of_one_evaluation_share_what_they_make() {
    let runtime = runtime();
    let store = memory_store("/nix/store");
    let (gate, heard, shared) = (Gate::new(1), Arc::new(Heard::default()), Shared::default());
    let text = r#"let
        d = n: derivation { name = "d${toString n}"; system = "s"; builder = "b"; input = if n == 0 then "" else d (n - 1); };
      in "${d 40}${builtins.readFile (builtins.fetchurl "http://h/a")}""#;
    let both = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let fetcher = Arc::<Gate>::clone(&gate);
                let io = StoreIo::new(store.clone(), runtime.handle().clone())
                    .with_fetcher(fetcher, FetchLimits::default())
                    .with_sink(Arc::<Heard>::clone(&heard))
                    .beside(&shared);
                let io = Rc::new(io);
                both.wait();
                let value = json(&io, "/", text).map_err(|error| error.render(false));
                assert!(value.unwrap().ends_with("-d40http://h/a\""));
                io.flush().unwrap();
            });
        }
    });
    assert_eq!(gate.opened.load(Ordering::SeqCst), 1);
    let heard = heard.0.lock().unwrap();
    let names: Vec<_> = heard.iter().map(|(path, _)| path.name().to_string()).collect();
    assert_eq!(names, (0..=40).map(|n| format!("d{n}.drv")).collect::<Vec<_>>());
    // and each is there
    assert!(records(&runtime, &store).len() > 41);
}
