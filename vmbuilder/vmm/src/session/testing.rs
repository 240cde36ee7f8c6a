//! A guest under the test's control, and a sink that remembers.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use bytes::Bytes;
use igloo_build::{BuildError, BuildRequest, Constraints, Limits, OutputSink, RelativePath};
use igloo_castore::tree::TreeEvent;
use igloo_control::message::{ExitStatus, Exited, GuestMessage, Hello, HostMessage, Usage};
use igloo_control::{Decoder, SendWindow, frame};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};

use crate::session::{Order, Patience, Session};

pub(crate) fn pair() -> (Session<DuplexStream>, Guest<DuplexStream>) {
    let (ours, theirs) = duplex(64 << 10);
    (Session::new(ours, Patience::default()), Guest::new(theirs))
}

pub(crate) struct Guest<S> {
    stream: S,
    decoder: Decoder<HostMessage>,
    pub(crate) window: SendWindow,
    has_spoken: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Guest<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            decoder: Decoder::new(),
            window: SendWindow::default(),
            has_spoken: false,
        }
    }

    pub(crate) async fn say_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    pub(crate) async fn say(&mut self, message: GuestMessage) {
        if !std::mem::replace(&mut self.has_spoken, true) {
            self.say_raw(&frame::PREFACE).await;
        }
        let frame = frame::encode(&message).unwrap();
        self.window.sent(frame.len());
        self.say_raw(&frame).await;
    }

    /// Says without looking whether the host has hung up.
    pub(crate) async fn try_say(&mut self, message: &GuestMessage) -> std::io::Result<()> {
        self.stream.write_all(&frame::encode(message).unwrap()).await
    }

    /// The next message that is no acknowledgement; those go to the window.
    pub(crate) async fn hear(&mut self) -> HostMessage {
        loop {
            match self.hear_any().await {
                HostMessage::Ack { bytes } => self.window.acknowledged(bytes).unwrap(),
                other => return other,
            }
        }
    }

    pub(crate) async fn hear_any(&mut self) -> HostMessage {
        loop {
            if let Some((message, _)) = self.decoder.next_frame().unwrap() {
                return message;
            }
            let count = self.stream.read_buf(self.decoder.buffer_mut()).await.unwrap();
            assert!(count > 0, "the host hung up");
        }
    }

    /// Waits until the host hangs up.
    pub(crate) async fn hear_any_or_end(&mut self) -> std::io::Result<()> {
        while self.stream.read_buf(self.decoder.buffer_mut()).await? > 0 {
            while let Ok(Some(_)) = self.decoder.next_frame() {}
        }
        Ok(())
    }

    pub(crate) async fn boot(&mut self) {
        self.say(hello()).await;
        self.say(GuestMessage::Mounted).await;
    }

    pub(crate) async fn start(&mut self) {
        self.boot().await;
        while self.hear().await != HostMessage::Run {}
        self.say(GuestMessage::Started).await;
    }

    /// To the host's wish for outputs.
    pub(crate) async fn run(&mut self) {
        self.start().await;
        self.say(exited(0)).await;
        assert_eq!(self.hear().await, HostMessage::Collect);
    }

    /// Lives through that many states of a build's life.
    pub(crate) async fn live_until(&mut self, state: usize) {
        match state {
            0 => {}
            1 => self.say(hello()).await,
            2 => {
                self.boot().await;
                while self.hear().await != HostMessage::Run {}
            }
            3 => {
                self.start().await;
                self.say(GuestMessage::Log(Bytes::from_static(b"x"))).await;
            }
            4 => self.run().await,
            _ => {
                self.run().await;
                self.say(GuestMessage::OutputBegin { index: 0 }).await;
                self.say(GuestMessage::DirectoryBegin { name: Bytes::new() })
                    .await;
                // and dies inside a message
                self.say_raw(&[9, 0, 0]).await;
            }
        }
    }
}

pub(crate) fn hello() -> GuestMessage {
    GuestMessage::Hello(Hello {
        agent_version: "1".into(),
        kernel_release: "6.12".into(),
        architecture: "x86_64".into(),
        memory_bytes: 1 << 28,
        cpus: 1,
        uptime_us: 1000,
    })
}

pub(crate) fn exited(code: u8) -> GuestMessage {
    GuestMessage::Exited(Exited {
        status: ExitStatus::Code(code),
        exhausted: None,
        usage: Usage::default(),
    })
}

pub(crate) fn order(file: &[u8]) -> Order {
    let path = |text: &str| RelativePath::try_from(text).unwrap();
    let files = match file {
        [] => BTreeMap::new(),
        _ => BTreeMap::from([(path("build/big"), Bytes::copy_from_slice(file))]),
    };
    let request = BuildRequest {
        inputs: BTreeMap::new(),
        inputs_dir: path("nix/store"),
        program: "/nix/store/program".into(),
        arguments: vec!["program".into()],
        environment: BTreeMap::new(),
        working_dir: path("build"),
        scratch_paths: BTreeSet::from([path("build"), path("nix/store")]),
        outputs: vec![path("nix/store/out")],
        additional_files: files,
        constraints: Constraints {
            system: "x86_64-linux".into(),
            memory_mib: 0,
            cores: 0,
            network: false,
            features: BTreeSet::new(),
        },
        limits: Limits::default(),
        needles: Vec::new(),
    };
    Order::of(&request, &Limits::default())
}

/// Remembers what it was given.
#[derive(Debug, Default)]
pub(crate) struct RecordingSink {
    pub(crate) outputs: Vec<(RelativePath, Vec<TreeEvent>, bool)>,
}

#[async_trait]
impl OutputSink for RecordingSink {
    async fn begin(&mut self, output: &RelativePath) -> Result<(), BuildError> {
        self.outputs.push((output.clone(), Vec::new(), false));
        Ok(())
    }

    async fn event(&mut self, event: TreeEvent) -> Result<(), BuildError> {
        self.outputs.last_mut().unwrap().1.push(event);
        Ok(())
    }

    async fn end(&mut self) -> Result<(), BuildError> {
        self.outputs.last_mut().unwrap().2 = true;
        Ok(())
    }
}
