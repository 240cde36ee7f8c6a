//! `builtin:fetchurl` from the command line, against a server on loopback: no machine is needed, hashes are checked, and output
//! paths are those of Nix.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const PLAIN: &[u8] = b"hello file";
const NAR: &[u8] = include_bytes!("fetchurl/t.nar");
const XZ: &[u8] = include_bytes!("fetchurl/t.nar.xz");
const TREE_PATH: &str = "/nix/store/0dk5dzpviwamnf004apfxqrvc5697pw7-t.nar";

/// Serves the files of the test until the process ends; its URL.
fn serve() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
    format!("http://{address}/")
}

fn answer(mut stream: TcpStream) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?)
        .lines()
        .map_while(Result::ok);
    let request = lines.next()?;
    while !lines.next()?.is_empty() {}
    let body = match request.split(' ').nth(1)? {
        "/plain" => PLAIN,
        "/prog" => b"#!/bin/sh\necho hi\n",
        "/t.nar" => NAR,
        "/t.nar.xz" => XZ,
        "/torn.xz" => &XZ[..XZ.len() / 2],
        "/moved" => {
            let head = "HTTP/1.1 302 F\r\nLocation: /plain\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            return stream.write_all(head.as_bytes()).ok();
        }
        _ => {
            let head = "HTTP/1.1 404 N\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            return stream.write_all(head.as_bytes()).ok();
        }
    };
    let size = body.len();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body).ok()
}

struct World(tempfile::TempDir);

impl World {
    fn igloo(&self, arguments: &[&str]) -> Output {
        let home = self.0.path().join("home");
        Command::new(env!("CARGO_BIN_EXE_igloo"))
            .args(arguments)
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fetchurl"))
            .env("HOME", &home)
            .env("XDG_RUNTIME_DIR", &home)
            .env("XDG_CACHE_HOME", home.join("cache"))
            .env("XDG_CONFIG_HOME", home.join("config"))
            .env("IGLOO_STORE", format!("rocksdb://{}", self.store().display()))
            .env("IGLOO_IMAGE", "/nonexistent") // no machine can be had
            .env("NIX_CONFIG", "substituters =")
            .env("NO_COLOR", "1")
            .env_remove("NIX_PATH")
            .output()
            .unwrap()
    }

    fn store(&self) -> PathBuf {
        self.0.path().join("store")
    }

    fn build(&self, base: &str, attribute: &str) -> Output {
        let expression = ["nix-build", "expression.nix", "--no-out-link", "-A", attribute];
        self.igloo(&[&expression[..], &["--argstr", "base", base]].concat())
    }
}

fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("home")).unwrap();
    World(dir)
}

/// Promise: files over HTTP and of this machine are fetched, made executable, unpacked; the paths are Nix's.
#[test]
fn what_is_fetched_has_nixs_paths() {
    let (world, base) = (world(), serve());
    for (attribute, path) in [
        ("plain", "/nix/store/darkhdkaygdg32y4zw714nkn9hzspvwh-plain"),
        ("prog", "/nix/store/qrpia7mxdv0hvyfc48x0bck66zf83k2m-prog"),
        ("nar", TREE_PATH),
        ("xz", "/nix/store/3w3gj7a1x1zip4chxndk8mb7i21b7fv3-t.nar.xz"),
    ] {
        let built = world.build(&base, attribute);
        let said = String::from_utf8_lossy(&built.stderr).into_owned();
        assert!(built.status.success(), "{attribute}: {said}");
        assert_eq!(
            String::from_utf8(built.stdout).unwrap().trim_end(),
            path,
            "{said}"
        );
    }
    let dumped = world.igloo(&["store", "dump", TREE_PATH]).stdout;
    assert!(dumped == NAR);
    // redirects, and files: in a store of their own, that they are fetched at all
    let files = self::world();
    std::fs::write(files.0.path().join("plain"), PLAIN).unwrap();
    let url = format!("file://{}/", files.0.path().display());
    for (world, base, attribute) in [(&files, &url, "plain"), (&self::world(), &base, "moved")] {
        let built = world.build(base, attribute);
        let said = String::from_utf8_lossy(&built.stderr).into_owned();
        assert!(built.status.success(), "{attribute}: {said}");
        assert!(built.stdout.ends_with(b"-plain\n"));
    }
}

/// Promise: a wrong hash ends with 102 and both hashes; what cannot be fetched or unpacked is said in the build's log, with the
/// URL, and ends with 100.
#[test]
fn failures_name_the_url_and_the_hashes() {
    let (world, base) = (world(), serve());
    for (attribute, code, expected) in [
        (
            "wrong",
            102,
            &[
                "hash mismatch",
                "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
                "84d+ij2Y+AnZ+EQGD76ihkpLZpgKIv8iKXAU0MFo2y4=",
            ][..],
        ),
        (
            "gone",
            100,
            &["nothere': HTTP error 404", "failed with exit code 1"],
        ),
        (
            "notnar",
            100,
            &["cannot unpack '", "/plain'", "failed with exit code 1"],
        ),
        (
            "notxz",
            100,
            &["cannot decode '", "/torn.xz'", "failed with exit code 1"],
        ),
    ] {
        let built = world.build(&base, attribute);
        let said = String::from_utf8_lossy(&built.stderr).into_owned();
        assert_eq!(built.status.code(), Some(code), "{attribute}: {said}");
        for text in expected {
            assert!(said.contains(text), "{attribute}: {text}: {said}");
        }
        assert!(built.stdout.is_empty());
    }
}
