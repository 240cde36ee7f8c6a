//! Trees that are fetched: repositories over HTTP, archives of forges.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use igloo_eval::Purity;
use igloo_store_io::fetch::FetchError;
use igloo_store_io::{Fetcher, UrlFetcher};

use super::world::{EXPORTED, FIRST, SECOND, SIDE, World, attributes_of, git};

/// Remote repositories are fetched into the cache, and from there when nothing new is needed.
#[test]
fn repositories_elsewhere() {
    let Some(world) = World::new() else { return };
    let repo = world.repository();
    git(Path::new(&repo), "2021-01-02T03:04:05Z", &["update-server-info"]);
    let (url, server) = serve_files(PathBuf::from(format!("{repo}/.git")));
    let fetcher: Arc<dyn Fetcher> = Arc::new(UrlFetcher::new(igloo_store_io::fetch::HttpOptions::default()));
    let io = world.io(Some(Arc::clone(&fetcher)));
    let fetch = attributes_of(&format!(
        "builtins.fetchGit {{ url = \"{url}\"; ref = \"main\"; }}"
    ));
    let found = world.eval_in(&io, Purity::Impure, &fetch).unwrap();
    assert_eq!(
        (&found["rev"], &found["narHash"], &found["revCount"]),
        (&SECOND.into(), &EXPORTED.into(), &2.into())
    );
    let asked = server.lock().unwrap().len();
    assert!(asked > 0);
    let known = attributes_of(&format!(
        "builtins.fetchGit {{ url = \"{url}\"; rev = \"{FIRST}\"; }}"
    ));
    let found = world
        .eval_in(&world.io(Some(fetcher)), Purity::Pure, &known)
        .unwrap();
    assert_eq!(found["rev"], FIRST);
    assert_eq!(
        server.lock().unwrap().len(),
        asked,
        "a commit that is in the cache is not asked for"
    );
}

/// Serves files of a folder over HTTP, as Git's "dumb" protocol needs; what was asked for is noted.
fn serve_files(folder: PathBuf) -> (String, Arc<Mutex<Vec<String>>>) {
    use std::io::{BufRead as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/repo.git", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = std::io::BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            let mut header = String::new();
            while reader.read_line(&mut header).unwrap_or(0) > 2 {
                header.clear();
            }
            let path = line.split(' ').nth(1).unwrap_or_default();
            noted.lock().unwrap().push(path.to_owned());
            let path = path.trim_start_matches("/repo.git/").split('?').next().unwrap();
            let (status, body) = match std::fs::read(folder.join(path)) {
                Ok(bytes) => ("200 OK", bytes),
                Err(_) => ("404 Not Found", Vec::new()),
            };
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let _gone = stream
                .write_all(head.as_bytes())
                .and_then(|()| stream.write_all(&body));
        }
    });
    (url, asked)
}

/// Answers URLs from memory.
struct Answers {
    bodies: HashMap<String, Vec<u8>>,
    asked: Mutex<Vec<String>>,
}

impl Fetcher for Answers {
    fn open(&self, url: &str) -> Result<Box<dyn Read>, FetchError> {
        self.asked.lock().unwrap().push(url.to_owned());
        match self.bodies.get(url) {
            Some(body) => Ok(Box::new(std::io::Cursor::new(body.clone()))),
            None => Err(FetchError::Status {
                url: url.to_owned(),
                status: 404,
            }),
        }
    }
}

fn archive(time: u64) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(4);
    header.set_mode(0o644);
    header.set_mtime(time);
    archive
        .append_data(&mut header, "repo-main/file", &b"text"[..])
        .unwrap();
    archive.into_inner().unwrap()
}

#[test]
fn trees_of_forges() {
    let Some(world) = World::new() else { return };
    let bodies = [
        (
            "https://api.github.com/repos/o/r/commits/HEAD".to_owned(),
            format!("{{\"sha\": \"{FIRST}\"}}").into_bytes(),
        ),
        (
            format!("https://github.com/o/r/archive/{FIRST}.tar.gz"),
            archive(1_600_000_000),
        ),
        (
            "https://h.example/api/v4/projects/o%2Fr/repository/commits?ref_name=b".to_owned(),
            format!("[{{\"id\": \"{FIRST}\"}}]").into_bytes(),
        ),
        (
            format!("https://h.example/api/v4/projects/o%2Fr/repository/archive.tar.gz?sha={FIRST}"),
            archive(1_600_000_000),
        ),
        (
            "https://git.sr.ht/~o/r/HEAD".to_owned(),
            b"ref: refs/heads/trunk\n".to_vec(),
        ),
        (
            "https://git.sr.ht/~o/r/info/refs".to_owned(),
            format!("{SIDE}\trefs/heads/x\n{FIRST}\trefs/heads/trunk\n").into_bytes(),
        ),
        (
            format!("https://git.sr.ht/~o/r/archive/{FIRST}.tar.gz"),
            archive(1_600_000_000),
        ),
    ];
    let answers = Arc::new(Answers {
        bodies: bodies.into_iter().collect(),
        asked: Mutex::default(),
    });
    for fetch in [
        "builtins.fetchTree { type = \"github\"; owner = \"o\"; repo = \"r\"; }",
        "builtins.fetchTree \"github:o/r\"",
        "builtins.fetchTree { type = \"gitlab\"; owner = \"o\"; repo = \"r\"; ref = \"b\"; host = \"h.example\"; }",
        "builtins.fetchTree { type = \"sourcehut\"; owner = \"~o\"; repo = \"r\"; }",
    ] {
        let io = world.io(Some(Arc::<Answers>::clone(&answers)));
        let found = world.eval_in(&io, Purity::Impure, &attributes_of(fetch)).unwrap();
        let expected = serde_json::json!({
            "rev": FIRST, "shortRev": "5a1b0d7", "lastModified": 1_600_000_000, "lastModifiedDate": "20200913122640",
            "narHash": found["narHash"], "out": found["out"],
        });
        assert_eq!(found, expected, "{fetch}");
    }
    let before = answers.asked.lock().unwrap().len();
    let locked = format!(
        "builtins.fetchTree {{ type = \"github\"; owner = \"o\"; repo = \"r\"; rev = \"{FIRST}\"; }}"
    );
    let io = world.io(Some(Arc::<Answers>::clone(&answers)));
    assert!(world.eval_in(&io, Purity::Pure, &attributes_of(&locked)).is_ok());
    assert_eq!(
        answers.asked.lock().unwrap().len(),
        before + 1,
        "a commit is not asked for"
    );
    let error = world
        .eval_in(&io, Purity::Pure, "builtins.fetchTree \"github:o/r\"")
        .unwrap_err();
    assert!(
        error.contains("doesn't fetch unlocked input 'github:o/r'"),
        "{error}"
    );
}
