//! Attributes on several threads: the same answers, in the same order, and the same error.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::num::NonZero;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Barrier;

use igloo_eval::io::MemoryIo;
use igloo_eval::{
    Answer, Error, Evaluation, Format, Origin, Question, Ready, Settings, Wanted, ask_on_threads,
};
use nix_compat::store_path::StoreDir;

const SET: &str = r#"let
    fib = n: if n < 2 then n else fib (n - 1) + fib (n - 2);
    made = name: (derivation { inherit name; system = "s"; builder = "b"; input = common; }).drvPath;
    common = derivation { name = "common"; system = "s"; builder = "b"; };
  in { a = fib 15; b = { n, ... }: n + fib 10; c = made "c"; d = throw "d"; e = throw "e"; f = [ fib { x = 1; } ]; }"#;

fn ready() -> Result<Ready, Error> {
    let dir = StoreDir::new("/nix/store").expect("a store directory");
    let mut evaluation = Evaluation::new(Settings::default(), Rc::new(MemoryIo::new(dir)));
    let root = evaluation.eval_text(SET.as_bytes(), Origin::String)?;
    let n = evaluation.eval_text(b"1", Origin::String)?;
    Ok(Ready {
        evaluation,
        root,
        args: vec![("n".to_owned(), n)],
    })
}

const QUESTION: Question = Question {
    what: Wanted::Text {
        format: Format::Nix,
        strict: true,
    },
    call: true,
};

type Heard = (Result<(), String>, Vec<String>);

fn hear(threads: Option<usize>, paths: &[&str], stop: usize) -> Heard {
    let paths: Vec<String> = paths.iter().map(|p| (*p).to_owned()).collect();
    let mut heard = Vec::new();
    let mut each = |answer| {
        if let Answer::Text(text) = answer {
            heard.push(String::from_utf8_lossy(&text).into_owned());
        }
        if heard.len() == stop {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    };
    let result = match threads.and_then(NonZero::new) {
        Some(threads) => ask_on_threads(threads, ready, drop, &paths, QUESTION, &mut each),
        None => ready().and_then(|mut r| r.evaluation.ask(r.root, &paths, &r.args, QUESTION, &mut each)),
    };
    (result.map_err(|e| e.render(true)), heard)
}

#[test]
fn answers_are_those_of_one_thread() {
    let cases: [(&[&str], usize); 5] = [
        (&["a", "b", "c", "f.1"], 9),
        (&["c", "a", "b", "a", "c", "f.1.x", "a"], 9),
        (&["a", "e", "b", "d"], 9),
        (&["a", "b", "nothing", "d"], 9),
        (&["a", "b", "c", "d"], 2),
    ];
    for (paths, stop) in cases {
        let one = hear(None, paths, stop);
        for threads in [1, 2, 3, 8] {
            assert_eq!(hear(Some(threads), paths, stop), one, "{paths:?} on {threads}");
        }
    }
    assert_eq!(hear(Some(2), &[], 9), (Ok(()), Vec::new()));
}

/// Two threads are at work at one time: each waits for the other before it starts.
#[test]
fn threads_run_side_by_side() {
    let both = Barrier::new(2);
    let start = || {
        both.wait();
        ready()
    };
    let paths = ["a".to_owned(), "b".to_owned()];
    let mut count = 0;
    let result = ask_on_threads(
        NonZero::new(2).expect("two"),
        start,
        drop,
        &paths,
        QUESTION,
        &mut |_| {
            count += 1;
            ControlFlow::Continue(())
        },
    );
    assert!(result.is_ok());
    assert_eq!(count, 2);
}

#[test]
fn what_fails_at_the_start_fails() {
    let start = || -> Result<Ready, Error> {
        let mut ready = ready()?;
        ready.root = ready.evaluation.eval_text(b"throw \"start\"", Origin::String)?;
        Ok(ready)
    };
    let paths = ["a".to_owned(), "b".to_owned()];
    let result = ask_on_threads(
        NonZero::new(2).expect("two"),
        start,
        drop,
        &paths,
        QUESTION,
        &mut |_| ControlFlow::Continue(()),
    );
    assert!(result.is_err_and(|e| e.message == "start"));
}
