//! Look-ups: what a cache may answer, and how often it is asked.
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests")]

mod common;

use std::time::{Duration, Instant};

use common::server::{Fault, Server, nobody, silence};
use common::{Closure, chain, narinfo_name, open, open_with, path, quick, substituters};
use igloo_binary_cache::compression::Compression;
use igloo_binary_cache::{LookUpError, Refusal, RequestError, SubstituteError, Substituter as _, Vouched};
use igloo_status::Code;
use nix_compat::signature::SecretKey;

const INFO: &str = "nix-cache-info";

async fn cache() -> (Closure, Server) {
    let closure = Closure::write(Compression::Zstd).await;
    let server = Server::start(closure.dir.path()).await;
    (closure, server)
}

async fn refusal(server: &Server, name: &str) -> Refusal {
    match open(&server.url).look_up(&path(name)).await {
        Err(LookUpError::Refused(refusal)) => {
            let text = chain(&*refusal);
            assert!(text.contains(&server.url), "the message names the URL: {text}");
            (*refusal).clone()
        }
        other => panic!("refused, not {other:?}"),
    }
}

#[tokio::test]
async fn an_offer_says_what_the_narinfo_says_and_is_asked_for_once() {
    let (closure, server) = cache().await;
    let cache = open(&server.url);
    let wanted = vec![path("app"); 100];
    let offers = cache.query(&wanted).await;
    let offer = offers[0].as_ref().unwrap().clone().unwrap();
    let info = closure.store.path_infos.get(&path("app")).await.unwrap().unwrap();
    assert_eq!(
        (offer.nar.nar_sha256, offer.nar.nar_size),
        (info.nar_sha256, info.nar_size)
    );
    assert_eq!(offer.nar.references, info.references);
    assert_eq!(offer.vouched, Vouched::Key("test-1".into()));
    let size = std::fs::metadata(closure.dir.path().join(closure.archive("app")))
        .unwrap()
        .len();
    assert_eq!(offer.download_size, Some(size));
    assert!(offers.iter().all(|offer| offer.as_ref().unwrap().is_some()));
    assert_eq!(
        server.log(),
        [format!("/{INFO}"), format!("/{}", narinfo_name("app"))]
    );
}

#[tokio::test]
async fn what_is_not_there_is_remembered_for_a_while() {
    let (_closure, server) = cache().await;
    let mut options = quick();
    options.absent_ttl = Duration::from_millis(300);
    let cache = open_with(&server.url, options);
    for _ in 0..3 {
        assert!(cache.look_up(&path("other")).await.unwrap().is_none());
    }
    assert_eq!(server.requests(&narinfo_name("other")), 1);
    tokio::time::sleep(Duration::from_millis(350)).await;
    assert!(cache.look_up(&path("other")).await.unwrap().is_none());
    assert_eq!(server.requests(&narinfo_name("other")), 2);
    // object stores that may not list answer so
    server.fault(&narinfo_name("third"), &[Fault::Status(403)]);
    assert!(cache.look_up(&path("third")).await.unwrap().is_none());
    assert_eq!(server.connections(), 1, "misses keep the connection");
}

#[tokio::test]
async fn what_fails_for_the_moment_is_tried_again() {
    let (_closure, server) = cache().await;
    let narinfo = narinfo_name("app");
    for (count, faults) in [
        (3, vec![Fault::Status(500), Fault::Status(503)]),
        (2, vec![Fault::Truncate(20)]),
        (3, vec![Fault::Close, Fault::Stall(10)]),
        (2, vec![Fault::Status(429)]),
    ] {
        let before = server.requests(&narinfo);
        server.fault(&narinfo, &faults);
        let offer = open(&server.url).look_up(&path("app")).await;
        assert!(offer.unwrap().is_some(), "{faults:?}");
        assert_eq!(server.requests(&narinfo) - before, count, "{faults:?}");
    }
    let before = server.requests(&narinfo);
    server.fault(&narinfo, &[const { Fault::Status(500) }; 9]);
    let error = open(&server.url).look_up(&path("app")).await.unwrap_err();
    assert!(
        matches!(&error, LookUpError::Request(RequestError::Status { url, status: 500, .. })
            if *url == format!("{}/{narinfo}", server.url)),
        "{error:?}"
    );
    assert_eq!(error.code(), Code::Unavailable);
    assert_eq!(
        server.requests(&narinfo) - before,
        4,
        "as often as the options say"
    );
    let before = server.requests(&narinfo);
    server.fault(&narinfo, &[const { Fault::Status(401) }; 9]);
    let error = open(&server.url).look_up(&path("app")).await.unwrap_err();
    assert_eq!(error.code(), Code::Unauthenticated);
    assert_eq!(server.requests(&narinfo) - before, 1, "trying again cannot help");
}

#[tokio::test]
async fn redirects_are_followed_where_they_may_lead() {
    let (closure, server) = cache().await;
    let narinfo = narinfo_name("app");
    std::fs::copy(closure.narinfo("app"), closure.dir.path().join("moved")).unwrap();
    let other = Server::start(closure.dir.path()).await;
    for to in [
        "/moved".to_owned(),
        "moved".to_owned(),
        format!("{}/moved", other.url),
    ] {
        server.fault(&narinfo, &[Fault::Redirect(to)]);
        assert!(open(&server.url).look_up(&path("app")).await.unwrap().is_some());
    }
    server.fault(&narinfo, &[const { Fault::Status(302) }; 1]);
    let there = format!("/{narinfo}");
    server.fault(&narinfo, &vec![Fault::Redirect(there); 50]);
    let error = open(&server.url).look_up(&path("app")).await.unwrap_err();
    assert!(
        matches!(error, LookUpError::Request(RequestError::Redirects { .. })),
        "{error:?}"
    );
    server.fault(&narinfo, &[Fault::Redirect("file:///etc/passwd".into())]);
    let error = open(&server.url).look_up(&path("app")).await.unwrap_err();
    assert!(
        matches!(error, LookUpError::Request(RequestError::Location { .. })),
        "{error:?}"
    );
}

#[tokio::test]
async fn what_cannot_be_believed_or_used_is_refused_by_name() {
    let (closure, server) = cache().await;
    let narinfo = narinfo_name("app");
    let original = std::fs::read_to_string(closure.narinfo("app")).unwrap();
    let garbage: [Vec<u8>; 4] = [
        b"<html>hello</html>".to_vec(),
        Vec::new(),
        original.replace("NarSize: ", "NarSize: -").into_bytes(),
        original.replace("/nix/store/", "/other/store/").into_bytes(),
    ];
    for body in garbage {
        server.fault(&narinfo, &[Fault::Body(body)]);
        assert!(matches!(refusal(&server, "app").await, Refusal::NarInfo { .. }));
    }
    server.fault(&narinfo, &[Fault::Body(vec![0xff; 100])]);
    assert!(matches!(refusal(&server, "app").await, Refusal::NotText { .. }));
    let other = std::fs::read(closure.narinfo("lib")).unwrap();
    server.fault(&narinfo, &[Fault::Body(other)]);
    assert!(matches!(refusal(&server, "app").await, Refusal::OtherPath { .. }));
    let changed = original.replace("Compression: zstd", "Compression: lzip");
    server.fault(&narinfo, &[Fault::Body(changed.into_bytes())]);
    assert!(matches!(
        refusal(&server, "app").await,
        Refusal::Compression { .. }
    ));
    let changed = original.replace("URL: nar/", "URL: file:///nar/");
    server.fault(&narinfo, &[Fault::Body(changed.into_bytes())]);
    assert!(matches!(refusal(&server, "app").await, Refusal::Location { .. }));
}

#[tokio::test]
async fn signatures_decide_who_is_believed() {
    let (closure, server) = cache().await;
    let original = std::fs::read_to_string(closure.narinfo("app")).unwrap();
    let unsigned: String = original
        .split_inclusive('\n')
        .filter(|line| !line.starts_with("Sig: "))
        .collect();
    let stranger = SecretKey::from_seed("stranger-1", &[9; 32]).unwrap();
    let imitator = SecretKey::from_seed("test-1", &[9; 32]).unwrap();
    let wrong = [
        (unsigned.clone(), vec![]),
        (
            format!("{unsigned}Sig: {}\n", stranger.sign(b"x")),
            vec!["stranger-1"],
        ),
        (
            format!("{unsigned}Sig: {}\n", imitator.sign(b"x")),
            vec!["test-1"],
        ),
        // a signature for other contents
        (original.replace("NarSize: 1", "NarSize: 2"), vec!["test-1"]),
    ];
    for (text, by) in wrong {
        closure.edit("app", |_| text);
        let Refusal::Untrusted { signed_by, .. } = refusal(&server, "app").await else {
            panic!("it is a matter of trust");
        };
        assert_eq!(signed_by, by);
    }
    // the user's own word
    closure.edit("app", |_| unsigned);
    let trusting = open(&format!("{}?trusted=1", server.url));
    let offer = trusting.look_up(&path("app")).await.unwrap().unwrap();
    assert_eq!(offer.vouched, Vouched::Anyone);
    // a refusal is remembered
    let cache = open(&server.url);
    let before = server.requests(&narinfo_name("app"));
    for _ in 0..5 {
        assert!(cache.look_up(&path("app")).await.is_err());
    }
    assert_eq!(server.requests(&narinfo_name("app")) - before, 1);
}

#[tokio::test]
async fn a_cache_of_another_store_is_asked_nothing_else() {
    let (_closure, server) = cache().await;
    for (body, count) in [
        (&b"StoreDir: /other/store\n"[..], 1),
        (b"StoreDir: nonsense\n", 2),
        (b"\xff", 3),
    ] {
        server.fault(INFO, &[Fault::Body(body.to_vec())]);
        let cache = open(&server.url);
        for name in ["app", "lib"] {
            let error = cache.look_up(&path(name)).await.unwrap_err();
            assert!(matches!(error, LookUpError::Refused(_)), "{error:?}");
        }
        assert_eq!(server.log().len(), count, "asked once");
    }
    server.fault(INFO, &[Fault::Status(404)]);
    let error = open(&server.url).info().await.unwrap_err();
    let LookUpError::Refused(refusal) = &error else {
        panic!("{error:?}")
    };
    assert!(matches!(**refusal, Refusal::NotACache { .. }));
    server.fault(
        INFO,
        &[Fault::Body(b"StoreDir: /nix/store\nPriority: 30\n".to_vec())],
    );
    let info = open(&format!("{}?want-mass-query=1", server.url))
        .info()
        .await
        .unwrap();
    assert_eq!((info.priority, info.want_mass_query), (30, true));
    let info = open(&format!("{}?priority=3", server.url)).info().await.unwrap();
    assert_eq!(info.priority, 3);
}

#[tokio::test]
async fn answers_are_bounded() {
    let (_closure, server) = cache().await;
    let narinfo = narinfo_name("app");
    let mut options = quick();
    options.narinfo_size_max = 10_000;
    for fault in [
        Fault::Length(u64::MAX / 2),
        Fault::Body(vec![b'x'; 20_000]),
        Fault::Length(20_000),
    ] {
        server.fault(&narinfo, std::slice::from_ref(&fault));
        let error = open_with(&server.url, options.clone())
            .look_up(&path("app"))
            .await
            .unwrap_err();
        assert!(
            matches!(
                error,
                LookUpError::Request(RequestError::TooLarge { size_max: 10_000, .. })
            ),
            "{fault:?}: {error:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn look_ups_in_flight_are_bounded() {
    let closure = Closure::write(Compression::None).await;
    let server = Server::start_with(closure.dir.path(), Duration::from_millis(5), false).await;
    let mut options = quick();
    options.http.requests_max = 7;
    let (_store, all) = substituters(&[open_with(&server.url, options)]);
    let wanted: Vec<_> = (0..200).map(|number| path(&format!("p{number}"))).collect();
    let answers = all.query(&wanted).await;
    assert!(answers.iter().all(|answer| matches!(answer, Ok(None))));
    assert_eq!(server.log().len(), 201);
    assert_eq!(server.in_flight_max(), 7);
    // a few more than in flight: hyper connects while it waits for one that is about to be free
    assert!(server.connections() <= 40, "{}", server.connections());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_slow_is_not_waited_for_alone() {
    let closure = Closure::write(Compression::None).await;
    let slow = Server::start_with(closure.dir.path(), Duration::from_millis(900), false).await;
    let fast = Server::start(closure.dir.path()).await;
    let (first, second) = (
        open(&format!("{}?priority=1", slow.url)),
        open(&format!("{}?priority=2", fast.url)),
    );
    first.info().await.unwrap();
    let (_store, all) = substituters(&[second.clone(), first]);
    let start = Instant::now();
    let candidate = all.look_up(&path("app")).await.unwrap().unwrap();
    assert_eq!(candidate.offer.from, *second.name());
    let took = start.elapsed();
    assert!(
        took >= Duration::from_millis(150) && took < Duration::from_millis(800),
        "hedged after 150 ms: {took:?}"
    );
    // and the fast one alone is not asked when the first answers in time
    let (first, second) = (
        open(&format!("{}?priority=1", fast.url)),
        open(&format!("{}?priority=2", slow.url)),
    );
    let before = slow.requests(&narinfo_name("app"));
    let (_store, all) = substituters(&[second, first]);
    assert!(all.look_up(&path("app")).await.unwrap().is_some());
    assert_eq!(slow.requests(&narinfo_name("app")), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dead_cost_little_and_then_nothing() {
    let closure = Closure::write(Compression::None).await;
    let alive = Server::start(closure.dir.path()).await;
    let (silent, _task) = silence().await;
    let dead = nobody().await;
    let sources: Vec<_> = [
        &format!("{dead}?priority=1"),
        &format!("{silent}?priority=2"),
        &alive.url,
    ]
    .map(|url| open(url))
    .into();
    let (_store, all) = substituters(&sources);
    let start = Instant::now();
    assert!(all.look_up(&path("app")).await.unwrap().is_some());
    assert!(
        start.elapsed() < Duration::from_millis(1500),
        "{:?}",
        start.elapsed()
    );
    // nobody has it, so all are waited for; the silent one takes its timeouts once
    let error = all.look_up(&path("nowhere")).await.unwrap_err();
    assert!(matches!(error, SubstituteError::LookUp { .. }));
    let text = chain(&error);
    assert!(text.contains(&dead[7..]) && text.contains(&silent[7..]), "{text}");
    let start = Instant::now();
    let wanted: Vec<_> = (0..100).map(|number| path(&format!("p{number}"))).collect();
    let answers = all.query(&wanted).await;
    assert!(answers.iter().all(Result::is_err), "two gave no answer");
    assert!(
        start.elapsed() < Duration::from_millis(500),
        "{:?}",
        start.elapsed()
    );
    let error = answers.into_iter().next().unwrap().unwrap_err();
    assert!(error.code().is_transient(), "{error}");
    assert!(chain(&error).contains("is asked again in"), "{}", chain(&error));
}

#[tokio::test]
async fn packed_narinfos_are_unpacked() {
    let (closure, server) = cache().await;
    let narinfo = narinfo_name("app");
    let text = std::fs::read(closure.narinfo("app")).unwrap();
    let mut packed = Vec::new();
    let mut encoder = igloo_binary_cache::compression::Encoder::new(Compression::Zstd).unwrap();
    let result = encoder.encode(&text, true, |bytes| {
        packed.extend_from_slice(bytes);
        Ok(())
    });
    result.unwrap();
    std::fs::write(closure.narinfo("app"), packed).unwrap();
    server.fault(&narinfo, &[Fault::Header("Content-Encoding: zstd\r\n")]);
    assert!(open(&server.url).look_up(&path("app")).await.unwrap().is_some());
    server.fault(&narinfo, &[Fault::Header("Content-Encoding: gzip\r\n")]);
    let error = open(&server.url).look_up(&path("app")).await.unwrap_err();
    assert!(
        matches!(error, LookUpError::Request(RequestError::Encoding { .. })),
        "{error:?}"
    );
}
