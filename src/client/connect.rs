//! Streams to a broker: TCP, a proxy where one is set, TLS, and the WebSocket upgrade.
//!
//! The one place that opens sockets, for WebSocket and HTTP alike. A broker that stands by sends to
//! the one that leads: that is followed here. When something in between answers in the broker's
//! stead, the error says who answered what.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::{Error as WsError, ProtocolError};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::{AUTHORIZATION, LOCATION, SEC_WEBSOCKET_PROTOCOL};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::error::{ADVICE, ClientError};
use super::proxy::{Proxies, tunnel};
use super::redirect::{Trail, sends_elsewhere};
use super::url::BaseUrl;
use crate::protocol::error::{Problem, code};
use crate::protocol::{SUBPROTOCOL, WEBSOCKET_PATH};

/// Longest time for each step: connecting, the proxy's tunnel, TLS, the upgrade.
pub(crate) const STEP_TIMEOUT: Duration = Duration::from_secs(10);
/// The same where another URL is there to be tried: a broker that stands still, or whose machine is
/// gone, must not keep anybody long.
pub(crate) const STEP_TIMEOUT_SHORT: Duration = Duration::from_secs(2);
/// Bytes buffered per socket and direction; the library's default is 128 KiB, for nothing here.
const BUFFER_BYTES: usize = 4 * 1024;
/// Bytes of a message of a broker's. Resuming is answered with all that the session has: up to thousands of
/// leases and claims, with what describes their resources.
const RECEIVED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of a refusal's body that an error shows.
const SHOWN_BYTES_MAX: usize = 200;

/// A WebSocket to a broker.
pub(crate) type Socket = WebSocketStream<Stream>;

/// How to reach brokers: what is the same for every URL. Cheap to clone.
#[derive(Clone, Default)]
pub struct Network {
    token: Option<Arc<str>>,
    ca_file: Option<PathBuf>,
    proxies: Proxies,
    tls: Arc<OnceLock<Arc<rustls::ClientConfig>>>,
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let token = self.token.as_ref().map(|_| "(kept)");
        f.debug_struct("Network").field("token", &token).field("ca_file", &self.ca_file).finish_non_exhaustive()
    }
}

impl Network {
    /// Reads `LEASEHOLD_TOKEN` or `LEASEHOLD_TOKEN_FILE`, `LEASEHOLD_CA_FILE`, `HTTPS_PROXY` and
    /// `NO_PROXY`.
    pub fn from_env() -> Result<Self, ClientError> {
        let token = match (env("LEASEHOLD_TOKEN")?, env("LEASEHOLD_TOKEN_FILE")?) {
            (Some(token), _) => Some(token),
            (None, Some(file)) => Some(std::fs::read_to_string(&file).map_err(|error| {
                ClientError::Config(format!("LEASEHOLD_TOKEN_FILE {file:?} cannot be read: {error}"))
            })?),
            (None, None) => None,
        };
        let proxy = match env("HTTPS_PROXY")? {
            Some(proxy) => Some(proxy),
            None => env("https_proxy")?,
        };
        let no_proxy = match env("NO_PROXY")? {
            Some(hosts) => Some(hosts),
            None => env("no_proxy")?,
        };
        let network = Self {
            ca_file: env("LEASEHOLD_CA_FILE")?.map(PathBuf::from),
            proxies: Proxies::new(proxy.as_deref(), no_proxy.as_deref())?,
            ..Self::default()
        };
        match token {
            Some(token) => network.with_token(token.trim()),
            None => Ok(network),
        }
    }

    /// The same with a token, sent as a bearer token with every request.
    pub fn with_token(mut self, token: &str) -> Result<Self, ClientError> {
        if HeaderValue::from_str(token).is_err() || token.is_empty() {
            return Err(ClientError::Config("the token is empty or has characters no token has".to_owned()));
        }
        self.token = Some(token.into());
        Ok(self)
    }

    /// The same trusting the certificates of this PEM file too.
    #[must_use]
    pub fn with_ca_file(self, file: impl Into<PathBuf>) -> Self {
        Self { ca_file: Some(file.into()), tls: Arc::default(), ..self }
    }

    /// The `Authorization` header, where there is a token.
    pub(crate) fn authorization(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", self.token.as_ref()?)).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Opens a stream to `url`, through a proxy and TLS where they are due; each step within `step`.
    pub(crate) async fn stream(&self, url: &BaseUrl, step: Duration) -> Result<Stream, ClientError> {
        let proxy = if url.tls { self.proxies.of(&url.host, url.port) } else { None };
        let tcp = match proxy {
            None => dial(&url.host, url.port, &url.to_string(), step).await?,
            Some(proxy) => {
                let tcp = dial(&proxy.host, proxy.port, &format!("the proxy {proxy} of HTTPS_PROXY"), step).await?;
                within(step, &format!("{url} through the proxy {proxy}"), tunnel(tcp, proxy, url)).await?
            }
        };
        // Small messages must not wait for each other; where the system refuses, they do.
        let _ = tcp.set_nodelay(true);
        if !url.tls {
            return Ok(Stream::Plain(tcp));
        }
        let name = ServerName::try_from(url.host.clone())
            .map_err(|_| ClientError::Config(format!("{url}: its host can be in no certificate")))?;
        let connector = TlsConnector::from(self.tls_config()?);
        let shaken = async {
            connector.connect(name, tcp).await.map_err(|error| {
                ClientError::NoBroker(format!(
                    "{url}: TLS failed: {error}. For a private authority set LEASEHOLD_CA_FILE; is it a TLS port?"
                ))
            })
        };
        within(step, &url.to_string(), shaken).await.map(|tls| Stream::Tls(Box::new(tls)))
    }

    /// Opens a WebSocket to the broker at `url`, or to the one that it sends to, with our subprotocol
    /// agreed; says where that is.
    pub(crate) async fn websocket(&self, url: &BaseUrl, step: Duration) -> Result<(Socket, BaseUrl), ClientError> {
        let mut trail = Trail::new(url, WEBSOCKET_PATH);
        loop {
            match self.upgrade(&trail, step).await.map_err(|error| trail.told(error))? {
                Upgraded::Here(socket) => return Ok((*socket, trail.base().clone())),
                Upgraded::Elsewhere(location) => trail.follow(location.as_deref())?,
            }
        }
    }

    async fn upgrade(&self, trail: &Trail, step: Duration) -> Result<Upgraded, ClientError> {
        let url = trail.base();
        let stream = self.stream(url, step).await?;
        let scheme = if url.tls { "wss" } else { "ws" };
        let address = format!("{scheme}://{}{}", url.authority(false), trail.path());
        let mut request = address
            .as_str()
            .into_client_request()
            .map_err(|error| ClientError::Config(format!("{address:?} is no URL: {error}")))?;
        let headers = request.headers_mut();
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        if let Some(authorization) = self.authorization() {
            headers.insert(AUTHORIZATION, authorization);
        }
        let mut config = WebSocketConfig::default();
        config.read_buffer_size = BUFFER_BYTES;
        config.write_buffer_size = BUFFER_BYTES;
        config.max_message_size = Some(RECEIVED_BYTES_MAX);
        config.max_frame_size = Some(RECEIVED_BYTES_MAX);
        let upgraded = async {
            match tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await {
                Ok((socket, _)) => Ok(Upgraded::Here(Box::new(socket))),
                Err(WsError::Http(response)) if sends_elsewhere(response.status().as_u16()) => {
                    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
                    Ok(Upgraded::Elsewhere(location.map(str::to_owned)))
                }
                Err(error) => Err(upgrade_refused(&address, error)),
            }
        };
        within(step, &address, upgraded).await
    }

    fn tls_config(&self) -> Result<Arc<rustls::ClientConfig>, ClientError> {
        if let Some(config) = self.tls.get() {
            return Ok(Arc::clone(config));
        }
        let mut roots = rustls::RootCertStore::empty();
        if let Some(file) = &self.ca_file {
            let refuse = |why: String| ClientError::Config(format!("LEASEHOLD_CA_FILE {}: {why}", file.display()));
            let certificates = CertificateDer::pem_file_iter(file)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|error| refuse(format!("cannot be read as PEM: {error}")))?;
            if certificates.is_empty() {
                return Err(refuse("has no certificate: expected PEM blocks BEGIN CERTIFICATE".to_owned()));
            }
            for certificate in certificates {
                roots.add(certificate).map_err(|error| refuse(format!("has a bad certificate: {error}")))?;
            }
        }
        // One unreadable certificate of the system's must not take the others along.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| ClientError::Config(format!("TLS cannot be set up: {error}")))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Arc::clone(self.tls.get_or_init(|| Arc::new(config))))
    }
}

/// A variable that is set and not empty.
fn env(name: &str) -> Result<Option<String>, ClientError> {
    match std::env::var(name) {
        Ok(text) if text.trim().is_empty() => Ok(None),
        Ok(text) => Ok(Some(text)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(ClientError::Config(format!("{name} is not UTF-8"))),
    }
}

/// What came of asking for a WebSocket.
enum Upgraded {
    Here(Box<Socket>),
    /// Another broker leads; its `Location`.
    Elsewhere(Option<String>),
}

async fn dial(host: &str, port: u16, what: &str, step: Duration) -> Result<TcpStream, ClientError> {
    let connecting = async {
        TcpStream::connect((host, port))
            .await
            .map_err(|error| ClientError::NoBroker(format!("{what}: {error}{ADVICE}")))
    };
    within(step, what, connecting).await
}

async fn within<T>(
    time: Duration,
    what: &str,
    step: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    tokio::time::timeout(time, step)
        .await
        .unwrap_or_else(|_| Err(ClientError::NoBroker(format!("{what}: no answer within {} s", time.as_secs()))))
}

/// Who answered what, where the upgrade did not come about.
fn upgrade_refused(address: &str, error: WsError) -> ClientError {
    match error {
        WsError::Http(response) => {
            let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
            let body = response.body().as_deref().unwrap_or_default();
            if let Some(problem) = standby(response.status().as_u16(), body) {
                return ClientError::NoBroker(format!("{address}: {}", problem.detail));
            }
            let who = header("server").map_or_else(String::new, |server| format!(" (server: {server})"));
            let told =
                format!("{address} answered {}{who} instead of upgrading{}", response.status(), first_bytes(body),);
            if response.status().is_server_error() || response.status().as_u16() == 429 {
                ClientError::NoBroker(told)
            } else {
                ClientError::NotABroker(told)
            }
        }
        WsError::Protocol(ProtocolError::SecWebSocketSubProtocolError(_)) => {
            ClientError::NotABroker(format!("{address} speaks WebSocket, but not {SUBPROTOCOL}"))
        }
        WsError::Io(error) => ClientError::NoBroker(format!("{address}: the upgrade broke off: {error}")),
        other => ClientError::NotABroker(format!("{address} does not speak WebSocket: {other}")),
    }
}

/// What a broker says that stands by while it knows no leader.
pub(crate) fn standby(status: u16, body: &[u8]) -> Option<Problem> {
    let problem: Problem = serde_json::from_slice(body).ok().filter(|_| status == 503)?;
    (problem.code == code::STANDBY).then_some(problem)
}

/// The beginning of a body in one printable line, as `: "..."`; nothing where it is empty.
pub(crate) fn first_bytes(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(SHOWN_BYTES_MAX)]).trim().to_owned();
    if text.is_empty() { String::new() } else { format!(": {text:?}") }
}

/// A stream with TLS or without.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
