//! Fetching from a server on this machine that does what servers do at their worst.
#![allow(clippy::unwrap_used, reason = "the helpers of tests")]

mod common;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{json, memory_store, records, runtime};
use igloo_store::Store;
use igloo_store_io::fetch::{HttpOptions, TrustedRoots};
use igloo_store_io::{DependencyKey, FetchLimits, StoreIo, UriRules, UrlFetcher};
use nix_compat::hash::{HashAlgo, HashFormat, NixHash};

/// What the server answers to a path.
#[derive(Clone)]
enum Answer {
    /// 200 with these bytes.
    Bytes(Vec<u8>),
    /// A status, nothing more.
    Status(u16),
    /// A redirect.
    To(String),
    /// Promises all, sends so many bytes, and hangs up.
    Truncated(Vec<u8>, usize),
    /// Sends so many bytes and then nothing, keeping the connection.
    Stalls(Vec<u8>, usize),
    /// Sends a byte now and then.
    Drips(Vec<u8>),
    /// Says nothing at all.
    Silent,
    /// Hangs up before the answer.
    HangsUp,
    /// In chunks, the last one missing.
    BrokenChunks(Vec<u8>),
    /// No length: the end of the connection is the end.
    Unsized(Vec<u8>),
    /// The first answer so often, then the second.
    AtFirst(usize, Box<Answer>, Box<Answer>),
}

struct Server {
    url: String,
    hits: Arc<Mutex<HashMap<String, usize>>>,
}

impl Server {
    fn start(answers: Vec<(&'static str, Answer)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let hits = Arc::new(Mutex::new(HashMap::new()));
        let counted = Arc::clone(&hits);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (answers, counted) = (answers.clone(), Arc::clone(&counted));
                std::thread::spawn(move || serve(&stream.unwrap(), &answers, &counted));
            }
        });
        Self { url, hits }
    }

    fn hits(&self, path: &str) -> usize {
        self.hits.lock().unwrap().get(path).copied().unwrap_or(0)
    }
}

fn serve(stream: &TcpStream, answers: &[(&str, Answer)], hits: &Mutex<HashMap<String, usize>>) {
    let mut reader = BufReader::new(stream);
    let mut request = String::new();
    if reader.read_line(&mut request).unwrap_or(0) == 0 {
        return;
    }
    let mut line = String::new();
    while reader.read_line(&mut line).unwrap_or(0) > 2 {
        line.clear();
    }
    let path = request.split(' ').nth(1).unwrap().to_owned();
    let hit = {
        let mut hits = hits.lock().unwrap();
        let count = hits.entry(path.clone()).or_insert(0);
        *count += 1;
        *count
    };
    let answer = answers.iter().find(|(known, _)| *known == path);
    let answer = answer.map_or(Answer::Status(404), |(_, answer)| answer.clone());
    // the client may hang up first: that is its right
    let _gone = send(stream, &answer, hit);
}

fn send(mut stream: &TcpStream, answer: &Answer, hit: usize) -> std::io::Result<()> {
    let head = |status: u16, rest: &str| format!("HTTP/1.1 {status} X\r\nConnection: close\r\n{rest}\r\n");
    let sized = |bytes: &[u8]| head(200, &format!("Content-Length: {}\r\n", bytes.len()));
    match answer {
        Answer::Bytes(bytes) => {
            stream.write_all(sized(bytes).as_bytes())?;
            stream.write_all(bytes)
        }
        Answer::Status(status) => stream.write_all(head(*status, "Content-Length: 0\r\n").as_bytes()),
        Answer::To(place) => {
            let rest = format!("Location: {place}\r\nContent-Length: 0\r\n");
            stream.write_all(head(302, &rest).as_bytes())
        }
        Answer::Truncated(bytes, count) => {
            stream.write_all(sized(bytes).as_bytes())?;
            stream.write_all(&bytes[..*count])
        }
        Answer::Stalls(bytes, count) => {
            stream.write_all(sized(bytes).as_bytes())?;
            stream.write_all(&bytes[..*count])?;
            stream.flush()?;
            // until the client has had enough
            let _closed = stream.read(&mut [0]);
            Ok(())
        }
        Answer::Drips(bytes) => {
            stream.write_all(sized(bytes).as_bytes())?;
            bytes.chunks(1).try_for_each(|byte| {
                stream.write_all(byte)?;
                std::thread::sleep(Duration::from_millis(50));
                Ok(())
            })
        }
        Answer::Silent => {
            let _closed = stream.read(&mut [0]);
            Ok(())
        }
        Answer::HangsUp => Ok(()),
        Answer::BrokenChunks(bytes) => {
            stream.write_all(head(200, "Transfer-Encoding: chunked\r\n").as_bytes())?;
            stream.write_all(format!("{:x}\r\n", bytes.len()).as_bytes())?;
            stream.write_all(bytes)?;
            stream.write_all(b"\r\n")
        }
        Answer::Unsized(bytes) => {
            stream.write_all(head(200, "").as_bytes())?;
            stream.write_all(bytes)
        }
        Answer::AtFirst(count, first, then) => send(stream, if hit <= *count { first } else { then }, hit),
    }
}

/// A world that fetches without patience.
fn world(runtime: &tokio::runtime::Runtime, store: &Store, limits: FetchLimits) -> StoreIo {
    let options = HttpOptions {
        connect_max: Duration::from_secs(5),
        stall_max: Duration::from_millis(300),
        total_max: Some(Duration::from_secs(1)),
        redirects_max: 4,
        ..HttpOptions::default()
    };
    let fetcher = Arc::new(UrlFetcher::new(options));
    StoreIo::new(store.clone(), runtime.handle().clone()).with_fetcher(fetcher, limits)
}

fn quick() -> FetchLimits {
    FetchLimits {
        attempts_max: 3,
        retry_wait: Duration::from_millis(1),
        ..FetchLimits::default()
    }
}

fn base32(bytes: &[u8]) -> String {
    NixHash::of(HashAlgo::Sha256, bytes).encode(HashFormat::NixBase32)
}

/// The value or message of an expression.
fn eval(io: &Rc<StoreIo>, expression: &str) -> Result<String, String> {
    json(io, "/", expression).map_err(|error| error.render(false))
}

fn fetch(url: &str, path: &str, bytes: &[u8]) -> String {
    format!(
        r#"builtins.readFile (builtins.fetchurl {{ url = "{url}{path}"; sha256 = "{}"; }})"#,
        base32(bytes)
    )
}

/// A tar of one directory with one file.
fn tarball(text: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(1_700_000_000);
    builder
        .append_data(&mut header, "top-1.0/file.txt", text)
        .unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&builder.into_inner().unwrap()).unwrap();
    gzip.finish().unwrap()
}

#[test]
fn files_and_redirects() {
    let big: Vec<u8> = (0..700_000u32)
        .map(|n| b'a' + u8::try_from(n * 7 % 26).unwrap())
        .collect();
    let server = Server::start(vec![
        ("/file", Answer::Bytes(b"content".to_vec())),
        ("/big", Answer::Bytes(big.clone())),
        ("/unsized", Answer::Unsized(b"content".to_vec())),
        ("/empty", Answer::Bytes(Vec::new())),
        ("/moved", Answer::To("/again".into())),
        ("/again", Answer::To("file".into())),
    ]);
    let runtime = runtime();
    let store = memory_store("/nix/store");
    let io = Rc::new(world(&runtime, &store, quick()));
    for path in ["/file", "/unsized", "/moved"] {
        assert_eq!(
            eval(&io, &fetch(&server.url, path, b"content")),
            Ok("\"content\"".into()),
            "{path}"
        );
    }
    assert_eq!(eval(&io, &fetch(&server.url, "/empty", b"")), Ok("\"\"".into()));
    let length = format!("builtins.stringLength ({})", fetch(&server.url, "/big", &big));
    assert_eq!(eval(&io, &length), Ok("700000".into()));
    io.flush().unwrap();
    for info in records(&runtime, &store).values() {
        runtime.block_on(store.verify(info)).unwrap();
    }
}

/// "Something whose hash is given and that is in the store already is not fetched", not even by a later evaluation.
#[test]
fn what_is_there_is_not_fetched() {
    let server = Server::start(vec![("/file", Answer::Bytes(b"content".to_vec()))]);
    let runtime = runtime();
    let store = memory_store("/nix/store");
    for _ in 0..2 {
        let io = Rc::new(world(&runtime, &store, quick()));
        for _ in 0..3 {
            eval(&io, &fetch(&server.url, "/file", b"content")).unwrap();
        }
        io.flush().unwrap();
    }
    assert_eq!(server.hits("/file"), 1);
}

/// Without a hash, one URL is fetched once in an evaluation, and again in the next.
#[test]
fn without_a_hash() {
    let server = Server::start(vec![("/file", Answer::Bytes(b"content".to_vec()))]);
    let runtime = runtime();
    let store = memory_store("/nix/store");
    let expression = format!(r#"builtins.readFile (builtins.fetchurl "{}/file")"#, server.url);
    for round in 1..3 {
        let io = Rc::new(world(&runtime, &store, quick()).with_dependencies());
        assert_eq!(eval(&io, &expression), Ok("\"content\"".into()));
        assert_eq!(eval(&io, &expression), Ok("\"content\"".into()));
        assert_eq!(server.hits("/file"), round);
        let key = DependencyKey::Fetch {
            url: format!("{}/file", server.url).into(),
            unpacked: false,
        };
        assert!(io.dependencies().iter().any(|dependency| dependency.key == key));
    }
}

#[test]
fn a_wrong_hash_leaves_nothing() {
    let server = Server::start(vec![
        ("/file", Answer::Bytes(b"other".to_vec())),
        ("/tar", Answer::Bytes(tarball(b"other"))),
    ]);
    let runtime = runtime();
    let store = memory_store("/nix/store");
    let io = Rc::new(world(&runtime, &store, quick()));
    let error = eval(&io, &fetch(&server.url, "/file", b"content")).unwrap_err();
    let expected = format!(
        "hash mismatch in file downloaded from '{}/file':\n  specified: sha256:{}\n  got:       sha256:{}",
        server.url,
        base32(b"content"),
        base32(b"other")
    );
    let flat = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(flat(&error).contains(&flat(&expected)), "{error}");
    let tar = format!(
        r#"builtins.fetchTarball {{ url = "{}/tar"; sha256 = "{}"; }}"#,
        server.url,
        base32(b"content")
    );
    assert!(eval(&io, &tar).unwrap_err().contains("hash mismatch"));
    let error = json(&io, "/", &tar).unwrap_err();
    assert_eq!(error.exit, 102, "Nix's status for a wrong hash");
    assert_eq!(error.code(), igloo_status::Code::DataLoss);
    io.flush().unwrap();
    assert!(records(&runtime, &store).is_empty());
}

#[test]
fn faults_that_pass_are_tried_again() {
    let ok = || Box::new(Answer::Bytes(b"content".to_vec()));
    let after = |count, first| Answer::AtFirst(count, Box::new(first), ok());
    let bytes = vec![b'x'; 100_000];
    let server = Server::start(vec![
        ("/busy", after(2, Answer::Status(503))),
        ("/truncated", after(1, Answer::Truncated(bytes.clone(), 50_000))),
        ("/hangs-up", after(1, Answer::HangsUp)),
        ("/stalls", after(1, Answer::Stalls(bytes.clone(), 50_000))),
        ("/chunks", after(1, Answer::BrokenChunks(bytes))),
    ]);
    let runtime = runtime();
    for path in ["/busy", "/truncated", "/hangs-up", "/stalls", "/chunks"] {
        let store = memory_store("/nix/store");
        let io = Rc::new(world(&runtime, &store, quick()));
        assert_eq!(
            eval(&io, &fetch(&server.url, path, b"content")),
            Ok("\"content\"".into()),
            "{path}"
        );
        assert_eq!(server.hits(path), if path == "/busy" { 3 } else { 2 }, "{path}");
    }
}

#[test]
fn faults_that_stay_are_errors() {
    let bytes = vec![b'x'; 100_000];
    let server = Server::start(vec![
        ("/busy", Answer::Status(500)),
        ("/forbidden", Answer::Status(403)),
        ("/truncated", Answer::Truncated(bytes.clone(), 50_000)),
        ("/stalls", Answer::Stalls(bytes.clone(), 10)),
        ("/drips", Answer::Drips(bytes.clone())),
        ("/silent", Answer::Silent),
        ("/loop", Answer::To("/loop".into())),
        ("/file-scheme", Answer::To("file:///etc/passwd".into())),
        ("/long", Answer::Bytes(bytes.clone())),
        ("/long-unsized", Answer::Unsized(bytes.clone())),
    ]);
    let runtime = runtime();
    let store = memory_store("/nix/store");
    let limits = FetchLimits {
        transfer_bytes_max: 50_000,
        ..quick()
    };
    let io = Rc::new(world(&runtime, &store, limits));
    let started = Instant::now();
    for (path, message, hits) in [
        ("/missing", "HTTP error 404", 1),
        ("/forbidden", "HTTP error 403", 1),
        ("/busy", "HTTP error 500", 3),
        ("/truncated", "unable to download", 3),
        ("/stalls", "no answer in time", 3),
        ("/drips", "no answer in time", 3),
        ("/silent", "no answer in time", 3),
        ("/loop", "too many redirects", 5),
        ("/file-scheme", "unable to download", 1),
        ("/long", "more than the 50000 bytes", 1),
        ("/long-unsized", "more than the 50000 bytes", 1),
    ] {
        let error = eval(&io, &fetch(&server.url, path, &bytes)).unwrap_err();
        assert!(error.contains(message), "{path}: {error}");
        assert!(error.contains(path), "{path}: {error}");
        assert!(!error.contains("root:"), "{path}: {error}");
        assert_eq!(server.hits(path), hits, "{path}");
    }
    assert!(started.elapsed() < Duration::from_secs(20));
    io.flush().unwrap();
    assert!(records(&runtime, &store).is_empty());
}

#[test]
fn nobody_listens() {
    let port = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let runtime = runtime();
    let store = memory_store("/nix/store");
    let io = Rc::new(world(&runtime, &store, quick()));
    let error = eval(&io, &fetch(&format!("http://127.0.0.1:{port}"), "/x", b"")).unwrap_err();
    assert!(error.contains("unable to download"), "{error}");
}

#[test]
fn tarballs() {
    let bytes = tarball(b"text");
    let server = Server::start(vec![
        ("/a.tar.gz", Answer::Bytes(bytes.clone())),
        ("/cut", Answer::Truncated(bytes.clone(), bytes.len() / 2)),
        ("/short", Answer::Bytes(bytes[..bytes.len() / 2].to_vec())),
        ("/page", Answer::Bytes(b"<html>not found</html>".to_vec())),
        (
            "/flaky",
            Answer::AtFirst(
                1,
                Box::new(Answer::Truncated(bytes.clone(), 40)),
                Box::new(Answer::Bytes(bytes)),
            ),
        ),
    ]);
    let runtime = runtime();
    let store = memory_store("/nix/store");
    let io = Rc::new(world(&runtime, &store, quick()));
    let read = |path: &str| {
        let expression = format!(
            r#"builtins.readFile "${{builtins.fetchTarball "{}{path}"}}/file.txt""#,
            server.url
        );
        eval(&io, &expression)
    };
    assert_eq!(read("/a.tar.gz"), Ok("\"text\"".into()));
    assert_eq!(read("/flaky"), Ok("\"text\"".into()));
    assert!(read("/cut").unwrap_err().contains("unable to download"));
    assert_eq!(server.hits("/cut"), 3);
    // whole as far as HTTP knows: no use in trying again
    assert!(read("/short").unwrap_err().contains("failed to extract archive"));
    assert_eq!(server.hits("/short"), 1);
    assert!(read("/page").unwrap_err().contains("no tar archive"));
    // the same tree by its hash, and as a tree with what is known of it
    let path = eval(
        &io,
        &format!(r#"builtins.fetchTarball "{}/a.tar.gz""#, server.url),
    )
    .unwrap();
    io.flush().unwrap();
    let records = records(&runtime, &store);
    let info = &records[path.trim_matches('"')];
    let hash = NixHash::Sha256(info.nar_sha256).encode(HashFormat::Sri);
    let again = format!(
        r#"builtins.fetchTarball {{ url = "{}/gone"; sha256 = "{hash}"; }}"#,
        server.url
    );
    assert_eq!(eval(&io, &again), Ok(path));
    assert_eq!(server.hits("/gone"), 0);
}

/// A tarball unpacked by Nix and by us is one tree.
#[test]
fn tarballs_are_what_nix_makes_of_them() {
    let tmp = tempfile::tempdir().unwrap();
    let at = |path: &str| tmp.path().join(path);
    std::fs::create_dir_all(at("t/a/b")).unwrap();
    std::fs::write(at("t/a/b/file"), "text").unwrap();
    std::fs::write(at("t/run"), "#!").unwrap();
    std::os::unix::fs::symlink("a/b", at("t/link")).unwrap();
    std::fs::hard_link(at("t/run"), at("t/twin")).unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(at("t/run"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let tar = |arguments: &[&str]| {
        std::process::Command::new("tar")
            .args(arguments)
            .current_dir(tmp.path())
            .status()
            .is_ok_and(|status| status.success())
    };
    let nix_there = std::process::Command::new("nix-instantiate")
        .arg("--version")
        .output()
        .is_ok();
    if !nix_there || !tar(&["-cJf", "t.tar.xz", "t"]) {
        return igloo_testkit::skip("there is no nix-instantiate, or no tar with xz, to compare with");
    }
    let url = format!("file://{}", at("t.tar.xz").display());
    let expression = format!(r#"builtins.fetchTarball "{url}""#);
    let output = std::process::Command::new("nix-instantiate")
        .args(["--eval", "--json", "--read-write-mode", "-E", &expression])
        .args(["--option", "build-users-group", "", "--store"])
        .arg(format!("local?root={}", at("root").display()))
        .env("HOME", at("home"))
        .env("XDG_CACHE_HOME", at("cache"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let theirs = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    let runtime = runtime();
    let io = Rc::new(world(&runtime, &memory_store("/nix/store"), quick()));
    assert_eq!(eval(&io, &expression), Ok(theirs));
}

#[test]
fn trees() {
    let server = Server::start(vec![("/a.tar.gz", Answer::Bytes(tarball(b"text")))]);
    let runtime = runtime();
    let store = memory_store("/nix/store");
    let io = Rc::new(world(&runtime, &store, quick()));
    let request = |attrs: &[(&str, &str)]| {
        let attr = |(name, value): &(&str, &str)| {
            (
                (*name).to_owned(),
                igloo_eval::io::FetchAttr::String((*value).to_owned()),
            )
        };
        let attrs = attrs.iter().map(attr).collect();
        igloo_eval::EvalIo::fetch(&*io, &igloo_eval::io::FetchRequest::Tree { attrs })
    };
    let url = format!("{}/a.tar.gz", server.url);
    let fetched = request(&[("type", "tarball"), ("url", &url)]).unwrap();
    let text = |name: &str| {
        let found = fetched.attrs.iter().find(|(known, _)| known == name);
        format!("{:?}", found.unwrap().1)
    };
    assert!(text("lastModified").contains("1700000000"));
    let hash = text("narHash");
    let hash = hash.split('"').nth(1).unwrap();
    assert!(request(&[("type", "tarball"), ("url", &url), ("narHash", hash)]).is_ok());
    let wrong = NixHash::of(HashAlgo::Sha256, b"").encode(HashFormat::Sri);
    let error = request(&[("type", "tarball"), ("url", &url), ("narHash", &wrong)]).unwrap_err();
    assert!(error.to_string().contains("hash mismatch"), "{error}");
    for kind in ["git", "hg", ""] {
        let error = request(&[("type", kind), ("url", "https://example.org/repo")]).unwrap_err();
        assert_eq!(error.code(), igloo_status::Code::Unimplemented);
        assert!(error.to_string().contains("https://example.org/repo"), "{error}");
    }
}

#[test]
fn files_of_this_machine_and_rules() {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("a file");
    std::fs::write(&path, "local").unwrap();
    let url = format!("file://{}/a%20file", tmp.path().display());
    let expression = format!(r#"builtins.readFile (builtins.fetchurl {{ url = "{url}"; name = "x"; }})"#);
    let runtime = runtime();
    let store = memory_store("/nix/store");
    let io = Rc::new(world(&runtime, &store, quick()));
    assert_eq!(eval(&io, &expression), Ok("\"local\"".into()));
    let rules = UriRules::Below(vec!["https://example.org/".into()]);
    let io = Rc::new(world(&runtime, &store, quick()).with_uris(rules).with_rules(
        igloo_eval::io::AccessRules::Below(Vec::new(), "in restricted mode"),
    ));
    assert!(
        eval(&io, &expression)
            .unwrap_err()
            .contains("forbidden in restricted mode")
    );
    let http = r#"builtins.fetchurl "http://127.0.0.1:1/x""#;
    assert!(
        eval(&io, http)
            .unwrap_err()
            .contains("access to URI 'http://127.0.0.1:1/x' is forbidden")
    );
    let error = json(&io, "/", http).unwrap_err();
    assert_eq!(error.code(), igloo_status::Code::PermissionDenied);
}

#[test]
fn search_paths_of_urls() {
    let server = Server::start(vec![("/a.tar.gz", Answer::Bytes(tarball(b"text")))]);
    let runtime = runtime();
    let store = memory_store("/nix/store");
    let io = world(&runtime, &store, quick());
    let resolve = |entry: &str| igloo_eval::EvalIo::resolve_search_path(&io, entry);
    let path = resolve(&format!("{}/a.tar.gz", server.url)).unwrap().unwrap();
    assert!(path.starts_with(b"/nix/store/") && path.ends_with(b"-source"));
    assert_eq!(resolve("/some/path").unwrap(), None);
    assert_eq!(resolve("relative").unwrap(), None);
}

#[test]
fn without_a_fetcher() {
    let runtime = runtime();
    let store = memory_store("/nix/store");
    let io = Rc::new(StoreIo::new(store, runtime.handle().clone()));
    let error = eval(&io, &fetch("http://example.org", "/x", b"")).unwrap_err();
    assert!(error.contains("no network"), "{error}");
}

/// An authority that vouches for servers.
fn authority(name: &str) -> (rcgen::Issuer<'static, rcgen::KeyPair>, String) {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let key = rcgen::KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    (rcgen::Issuer::new(params, key), pem)
}

/// HTTPS to a server whose certificate only the bundle given vouches for.
#[test]
fn https_trusts_the_bundle_and_nobody_else() {
    let (issuer, trusted) = authority("trusted");
    let (_, stranger) = authority("stranger");
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    static SERVED: AtomicUsize = AtomicUsize::new(0);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut tls = rustls::StreamOwned::new(connection, stream.unwrap());
            let mut request = [0; 1024];
            // a client that trusts nobody breaks off here
            if tls.read(&mut request).is_ok_and(|count| count > 0) {
                SERVED.fetch_add(1, Ordering::SeqCst);
                let _sent = tls
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\ncontent");
                tls.conn.send_close_notify();
                let _sent = tls.flush();
            }
        }
    });
    let runtime = runtime();
    let tmp = tempfile::tempdir().unwrap();
    let bundle = tmp.path().join("ca.crt");
    std::fs::write(&bundle, trusted).unwrap();
    let with = |roots: TrustedRoots| {
        let options = HttpOptions {
            roots,
            ..HttpOptions::default()
        };
        let store = memory_store("/nix/store");
        let io = StoreIo::new(store, runtime.handle().clone());
        let io = Rc::new(io.with_fetcher(Arc::new(UrlFetcher::new(options)), quick()));
        eval(&io, &fetch(&url, "/file", b"content"))
    };
    assert_eq!(with(TrustedRoots::File(bundle)), Ok("\"content\"".into()));
    assert_eq!(SERVED.load(Ordering::SeqCst), 1);
    let other = tmp.path().join("other.crt");
    std::fs::write(&other, stranger).unwrap();
    let error = with(TrustedRoots::File(other)).unwrap_err();
    assert!(error.contains("cannot be trusted"), "{error}");
    assert_eq!(SERVED.load(Ordering::SeqCst), 1);
    let error = with(TrustedRoots::File(tmp.path().join("none"))).unwrap_err();
    assert!(error.contains("no certificates to trust"), "{error}");
}
