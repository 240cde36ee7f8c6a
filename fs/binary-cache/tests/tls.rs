//! https: certificates are checked although contents are, and HTTP/2 is spoken where it is offered.
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests")]

mod common;

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use common::{Closure, chain, open_with, path, paths, quick, registered, substituters};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use igloo_binary_cache::compression::Compression;
use igloo_binary_cache::{LookUpError, RequestError, Substituter as _, TlsRoots};
use igloo_status::Code;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

struct Server {
    url: String,
    pem: String,
    versions: Arc<Mutex<Vec<Version>>>,
    handshakes: Arc<AtomicUsize>,
}

async fn serve(dir: PathBuf, protocols: &[&[u8]]) -> Server {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let secret = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], secret)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server {
        url: format!("https://localhost:{}", listener.local_addr().unwrap().port()),
        pem: cert.pem(),
        versions: Arc::default(),
        handshakes: Arc::default(),
    };
    let (versions, handshakes) = (server.versions.clone(), server.handshakes.clone());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            handshakes.fetch_add(1, Ordering::SeqCst);
            let (acceptor, versions, dir) = (acceptor.clone(), versions.clone(), dir.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                    versions.lock().unwrap().push(request.version());
                    let file = dir.join(&request.uri().path()[1..]);
                    async move {
                        let mut response = Response::new(Full::new(Bytes::new()));
                        match std::fs::read(file) {
                            Ok(body) => *response.body_mut() = Full::new(body.into()),
                            Err(_) => *response.status_mut() = StatusCode::NOT_FOUND,
                        }
                        Ok::<_, Infallible>(response)
                    }
                });
                let server = auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_server_is_asked_by_the_best_protocol_it_has() {
    let closure = Closure::write(Compression::Zstd).await;
    for (protocols, version) in [
        (&[&b"h2"[..], b"http/1.1"][..], Version::HTTP_2),
        (&[b"http/1.1"], Version::HTTP_11),
        (&[], Version::HTTP_11),
    ] {
        let server = serve(closure.dir.path().to_owned(), protocols).await;
        let mut options = quick();
        options.http.roots = TlsRoots::Pem(server.pem.clone().into());
        let (store, all) = substituters(&[open_with(&server.url, options)]);
        let answer = all.substitute(&[path("app")], &()).await.unwrap();
        assert!(answer.failed.is_empty(), "{:?}", answer.failed);
        assert_eq!(registered(&store).await, paths(&["app", "base", "lib"]));
        let versions = server.versions.lock().unwrap().clone();
        assert_eq!(versions, vec![version; 7]);
        if version == Version::HTTP_2 {
            assert_eq!(
                server.handshakes.load(Ordering::SeqCst),
                1,
                "one connection for all"
            );
        }
    }
}

#[tokio::test]
async fn an_unknown_server_is_refused_without_trying_again() {
    let closure = Closure::write(Compression::None).await;
    let server = serve(closure.dir.path().to_owned(), &[b"h2"]).await;
    let other = serve(closure.dir.path().to_owned(), &[b"h2"]).await;
    for roots in [TlsRoots::System, TlsRoots::Pem(other.pem.clone().into())] {
        let before = server.handshakes.load(Ordering::SeqCst);
        let mut options = quick();
        options.http.roots = roots;
        let error = open_with(&server.url, options)
            .look_up(&path("app"))
            .await
            .unwrap_err();
        assert!(
            matches!(error, LookUpError::Request(RequestError::Certificate { .. })),
            "{error:?}"
        );
        assert_eq!(error.code(), Code::PermissionDenied);
        assert!(chain(&error).contains(&server.url), "{}", chain(&error));
        assert_eq!(server.handshakes.load(Ordering::SeqCst), before + 1);
    }
    // the name counts as well
    let mut options = quick();
    options.http.roots = TlsRoots::Pem(server.pem.clone().into());
    let by_number = server.url.replace("localhost", "127.0.0.1");
    let error = open_with(&by_number, options)
        .look_up(&path("app"))
        .await
        .unwrap_err();
    assert!(
        matches!(error, LookUpError::Request(RequestError::Certificate { .. })),
        "{error:?}"
    );
    assert!(server.versions.lock().unwrap().is_empty(), "nothing was asked");
}
