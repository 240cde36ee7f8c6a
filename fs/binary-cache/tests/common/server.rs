//! A small HTTP/1.1 server of a directory, which counts and misbehaves on demand.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// What goes wrong with one answer.
#[derive(Clone, Debug)]
pub enum Fault {
    /// This status instead.
    Status(u16),
    /// The whole is announced, this many bytes come, then the connection ends.
    Truncate(usize),
    /// As many bytes come, then nothing.
    Stall(usize),
    /// One bit in the middle is wrong.
    Flip,
    /// Another body.
    Body(Vec<u8>),
    /// Another place.
    Redirect(String),
    /// So many bytes are announced.
    Length(u64),
    /// It takes its time.
    Delay(Duration),
    /// The connection ends without an answer.
    Close,
    /// There is no length, the end of the connection ends the body, after this many bytes.
    NoLength(usize),
    /// Another header.
    Header(&'static str),
}

#[derive(Debug, Default)]
pub struct State {
    dir: PathBuf,
    pub latency: Duration,
    pub no_ranges: bool,
    faults: Mutex<HashMap<String, Vec<Fault>>>,
    log: Mutex<Vec<String>>,
    connections: AtomicUsize,
    in_flight: AtomicUsize,
    in_flight_max: AtomicUsize,
    /// Connections the client left while it was answered.
    left: AtomicUsize,
}

pub struct Server {
    pub url: String,
    pub state: Arc<State>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub async fn start(dir: impl Into<PathBuf>) -> Self {
        Self::start_with(dir, Duration::ZERO, false).await
    }

    pub async fn start_with(dir: impl Into<PathBuf>, latency: Duration, no_ranges: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State {
            dir: dir.into(),
            latency,
            no_ranges,
            ..State::default()
        });
        let serving = state.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serving.connections.fetch_add(1, Ordering::SeqCst);
                stream.set_nodelay(true).unwrap();
                tokio::spawn(serving.clone().connection(stream));
            }
        });
        Self { url, state, task }
    }

    /// The next answers for this file are wrong, one after the other; then they are right again.
    pub fn fault(&self, file: &str, faults: &[Fault]) {
        let mut faults = faults.to_vec();
        faults.reverse();
        self.state
            .faults
            .lock()
            .unwrap()
            .insert(format!("/{file}"), faults);
    }

    /// Requests for this file so far.
    pub fn requests(&self, file: &str) -> usize {
        let file = format!("/{file}");
        let log = self.state.log.lock().unwrap();
        log.iter()
            .filter(|line| line.split(' ').next() == Some(&file))
            .count()
    }

    pub fn log(&self) -> Vec<String> {
        self.state.log.lock().unwrap().clone()
    }

    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    pub fn in_flight_max(&self) -> usize {
        self.state.in_flight_max.load(Ordering::SeqCst)
    }

    pub fn left(&self) -> usize {
        self.state.left.load(Ordering::SeqCst)
    }
}

impl State {
    /// Answers until the client leaves.
    pub async fn connection<S: AsyncRead + AsyncWrite + Unpin>(self: Arc<Self>, mut stream: S) {
        while let Some((file, from)) = read_head(&mut stream).await {
            let range = from.map_or_else(String::new, |from| format!(" {from}-"));
            self.log.lock().unwrap().push(format!("{file}{range}"));
            let going_on = self.answer(&mut stream, &file, from).await;
            if !going_on {
                return;
            }
        }
    }

    /// Whether the connection goes on.
    async fn answer(
        &self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        file: &str,
        from: Option<usize>,
    ) -> bool {
        let now = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        self.in_flight_max.fetch_max(now, Ordering::SeqCst);
        sleep(self.latency).await;
        // before the answer: whoever has it may ask again at once
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        let fault = self.faults.lock().unwrap().get_mut(file).and_then(Vec::pop);
        let Ok(mut body) = std::fs::read(self.dir.join(&file[1..])) else {
            if let Some(fault) = fault {
                return self.wrong(stream, Vec::new(), 0, fault).await;
            }
            return send(stream, "404 Not Found", "", 9, b"not here\n").await;
        };
        let from = from.filter(|_| !self.no_ranges);
        if from.is_some_and(|from| from >= body.len()) {
            return send(stream, "416 Range Not Satisfiable", "", 0, b"").await;
        }
        let size = body.len();
        let body = body.split_off(from.unwrap_or(0));
        match (fault, from) {
            (Some(fault), _) => self.wrong(stream, body, size, fault).await,
            (None, Some(from)) => {
                let range = format!("Content-Range: bytes {from}-{}/{size}\r\n", size - 1);
                send(stream, "206 Partial Content", &range, body.len() as u64, &body).await
            }
            (None, None) => send(stream, "200 OK", "", size as u64, &body).await,
        }
    }

    async fn wrong(
        &self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        mut body: Vec<u8>,
        size: usize,
        fault: Fault,
    ) -> bool {
        let length = body.len() as u64;
        let from = size.saturating_sub(body.len());
        let (status, range) = if from > 0 {
            let range = format!("Content-Range: bytes {from}-{}/{size}\r\n", size - 1);
            ("206 Partial Content", range)
        } else {
            ("200 OK", String::new())
        };
        match fault {
            Fault::Status(code) => send(stream, &format!("{code} Fault"), "", 6, b"fault\n").await,
            Fault::Truncate(count) => {
                send(stream, status, &range, length, &body[..count]).await;
                false
            }
            Fault::Stall(count) => {
                send(stream, status, &range, length, &body[..count]).await;
                // the client leaves: reading ends
                let mut byte = [0];
                if !matches!(stream.read(&mut byte).await, Ok(1..)) {
                    self.left.fetch_add(1, Ordering::SeqCst);
                }
                false
            }
            Fault::Flip => {
                let middle = body.len() / 2;
                body[middle] ^= 1;
                send(stream, status, &range, length, &body).await
            }
            Fault::Body(other) => send(stream, "200 OK", "", other.len() as u64, &other).await,
            Fault::Redirect(to) => {
                send(stream, "302 Found", &format!("Location: {to}\r\n"), 6, b"there\n").await
            }
            Fault::Length(length) => {
                send(stream, "200 OK", "", length, &body).await;
                sleep(Duration::from_secs(60)).await;
                false
            }
            Fault::Delay(delay) => {
                sleep(delay).await;
                send(stream, status, &range, length, &body).await
            }
            Fault::Close => false,
            Fault::NoLength(count) => {
                let head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
                let _ = stream.write_all(&[head, &body[..count]].concat()).await;
                let _ = stream.shutdown().await;
                false
            }
            Fault::Header(header) => send(stream, status, header, length, &body).await,
        }
    }
}

async fn send(
    stream: &mut (impl AsyncWrite + Unpin),
    status: &str,
    headers: &str,
    length: u64,
    body: &[u8],
) -> bool {
    let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n");
    let sent = stream.write_all(&[head.as_bytes(), body].concat()).await;
    sent.is_ok() && stream.flush().await.is_ok()
}

/// The file asked for, and from which byte.
async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Option<(String, Option<usize>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let file = head.split(' ').nth(1).unwrap().to_owned();
    assert!(head.starts_with("GET "), "only GET is expected: {head}");
    let range = head.lines().find_map(|line| {
        let lower = line.to_ascii_lowercase();
        let range = lower.strip_prefix("range: bytes=")?.strip_suffix('-')?;
        range.parse().ok()
    });
    Some((file, range))
}

/// An address nobody listens at.
pub async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// An address that takes connections and never answers.
pub async fn silence() -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        let mut kept: Vec<TcpStream> = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            kept.push(stream);
        }
    });
    (url, task)
}
