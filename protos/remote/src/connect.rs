//! Connecting: one HTTP/2 connection, made again by itself when the peer comes back.

use std::io;
use std::path::PathBuf;

use hyper_util::rt::TokioIo;
use igloo_status::Code;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::address::{Address, ParseAddressError};
use crate::limits::{CONNECT_WITHIN, CONNECTION_WINDOW_BYTES, KEEP_ALIVE, STREAM_WINDOW_BYTES};

/// A connection to a peer. Cheap to clone; clones share it.
#[derive(Clone, Debug)]
pub struct Connection {
    url: String,
    channel: Channel,
}

impl Connection {
    /// Connects to a URL (see [`Address::parse_url`]).
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn open(url: &str) -> Result<Self, ConnectError> {
        Self::connect(&Address::parse_url(url)?).await
    }

    /// Connects to an address. A connection that breaks later is made again by the next call.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(address: &Address) -> Result<Self, ConnectError> {
        let url = address.to_string();
        let fail = |error: tonic::transport::Error| ConnectError::from_transport(address, error);
        let channel = match address {
            Address::Unix(path) => {
                let path = path.clone();
                let connector = tower::service_fn(move |_: Uri| dial(path.clone()));
                endpoint("http://localhost")
                    .connect_with_connector(connector)
                    .await
            }
            Address::Tcp(socket_address) => endpoint(&format!("http://{socket_address}")).connect().await,
        };
        Ok(Self {
            url,
            channel: channel.map_err(fail)?,
        })
    }

    pub(crate) fn over(url: &str, channel: Channel) -> Self {
        Self {
            url: url.to_owned(),
            channel,
        }
    }

    /// The peer's URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Asks the peer whether it serves the service of that full name (`snix.castore.v1.BlobService`). A peer without
    /// health service is taken to serve it.
    ///
    /// # Errors
    /// `NotServed`, or `Broken` when there is no answer.
    pub async fn check(&self, service: &str) -> Result<(), ConnectError> {
        use tonic_health::pb::health_check_response::ServingStatus;
        let mut client = tonic_health::pb::health_client::HealthClient::new(self.channel());
        let request = tonic_health::pb::HealthCheckRequest {
            service: service.to_owned(),
        };
        let not_served = || ConnectError::NotServed {
            url: self.url.clone(),
            service: service.to_owned(),
        };
        match crate::status::answer(client.check(request)).await {
            Ok(answer) if answer.get_ref().status() == ServingStatus::Serving => Ok(()),
            Ok(_) => Err(not_served()),
            Err(status) => match crate::status::code(&status) {
                Code::Unimplemented => Ok(()),
                Code::NotFound => Err(not_served()),
                code => Err(ConnectError::Broken {
                    url: self.url.clone(),
                    code,
                    source: Box::new(crate::status::RemoteError::from(&status)),
                }),
            },
        }
    }
}

/// How every connection is set up.
pub(crate) fn endpoint(uri: &str) -> Endpoint {
    let uri = Uri::try_from(uri).unwrap_or_else(|_| Uri::from_static("http://localhost"));
    Endpoint::from(uri)
        .connect_timeout(CONNECT_WITHIN)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .tcp_nodelay(true)
}

async fn dial(path: PathBuf) -> io::Result<TokioIo<UnixStream>> {
    UnixStream::connect(path).await.map(TokioIo::new)
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL is wrong.
    #[error(transparent)]
    Address(#[from] ParseAddressError),
    /// Nobody is there.
    #[error(
        "nothing listens on {url}: start the service (`igloo store daemon` or `igloo builder`) or mend the URL"
    )]
    NothingListens {
        /// The peer.
        url: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The socket is somebody else's.
    #[error("{url} may not be used by this user")]
    Denied {
        /// The peer.
        url: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Somebody is there but does not offer what is needed.
    #[error("{url} answers, but does not serve {service}")]
    NotServed {
        /// The peer.
        url: String,
        /// What was asked for.
        service: String,
    },
    /// Anything else.
    #[error("the connection to {url} failed")]
    Broken {
        /// The peer.
        url: String,
        /// The class.
        code: Code,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl ConnectError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Address(error) => error.code(),
            Self::NothingListens { .. } => Code::Unavailable,
            Self::Denied { .. } => Code::PermissionDenied,
            Self::NotServed { .. } => Code::Unimplemented,
            Self::Broken { code, .. } => *code,
        }
    }

    fn from_transport(address: &Address, error: tonic::transport::Error) -> Self {
        use io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied};
        let url = address.to_string();
        let mut causes = std::iter::successors(std::error::Error::source(&error), |cause| cause.source());
        let io = causes.find_map(|cause| cause.downcast_ref::<io::Error>());
        // a copy: the original stays inside the transport's error
        match io.map(|io| io::Error::new(io.kind(), io.to_string())) {
            Some(source) if matches!(source.kind(), ConnectionRefused | NotFound) => {
                Self::NothingListens { url, source }
            }
            Some(source) if source.kind() == PermissionDenied => Self::Denied { url, source },
            _ => Self::Broken {
                url,
                code: Code::Unavailable,
                source: Box::new(error),
            },
        }
    }
}
