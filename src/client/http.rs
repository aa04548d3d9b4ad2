//! HTTP/1.1 to a broker, for commands: one request per connection, to whichever broker leads.
//!
//! Over the same streams as the WebSocket, so that proxies, certificates and tokens mean the same
//! for every command. A problem in an answer becomes [`ClientError::Refused`] with its code. Which
//! broker is asked, and what is asked twice, is in [`exchange`](super::exchange).

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::Method;
use hyper::body::{Bytes, Incoming};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::connect::{Network, first_bytes};
use super::error::ClientError;
use super::exchange::{Asked, Got};
use super::url::BaseUrl;
use crate::protocol::error::Problem;

/// How long a body that is read as it comes may be silent: a broker says something in it as often as
/// it pings, every 20 s at the latest.
const SILENCE: Duration = Duration::from_secs(60);

/// Speaks HTTP with whichever of some brokers answers first.
#[derive(Clone, Debug)]
pub struct Http {
    pub(super) urls: Vec<BaseUrl>,
    pub(super) network: Network,
    /// The place of the URL that answered last, which is asked first.
    pub(super) answered_last: Arc<AtomicUsize>,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status, whatever it is.
    pub status: u16,
    /// The body, whole.
    pub body: Bytes,
    /// Who answered, for errors: the URL, and what it calls itself.
    pub(super) from: String,
}

impl Http {
    /// For these URLs, tried in turn; the network as the environment has it.
    pub fn new(urls: Vec<BaseUrl>) -> Result<Self, ClientError> {
        Ok(Self::with_network(urls, Network::from_env()?))
    }

    /// For these URLs over a network of the caller's.
    #[must_use]
    pub fn with_network(urls: Vec<BaseUrl>, network: Network) -> Self {
        Self { urls, network, answered_last: Arc::default() }
    }

    /// `GET path`; a path begins with `/v1/` and may have a query.
    pub async fn get(&self, path: &str) -> Result<Answer, ClientError> {
        self.send(Method::GET, path, None, &[]).await
    }

    /// `POST path` with a JSON body, or none.
    pub async fn post<B: Serialize + ?Sized>(&self, path: &str, body: Option<&B>) -> Result<Answer, ClientError> {
        self.send(Method::POST, path, body.map(json_body).transpose()?, &[]).await
    }

    /// `PUT path` with a JSON body, or none.
    pub async fn put<B: Serialize + ?Sized>(&self, path: &str, body: Option<&B>) -> Result<Answer, ClientError> {
        self.send(Method::PUT, path, body.map(json_body).transpose()?, &[]).await
    }

    /// `DELETE path` with a JSON body, or none.
    pub async fn delete<B: Serialize + ?Sized>(&self, path: &str, body: Option<&B>) -> Result<Answer, ClientError> {
        self.send(Method::DELETE, path, body.map(json_body).transpose()?, &[]).await
    }

    /// Any request: `body` is its content type and bytes; `headers` are added.
    ///
    /// Another URL is tried where it was not done; a takeover that is under way is waited for. Sent
    /// and unanswered it is asked for again where asking twice is asking once, and is
    /// [`ClientError::Unanswered`] where not.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, Bytes)>,
        headers: &[(&str, &str)],
    ) -> Result<Answer, ClientError> {
        match self.exchange(&Asked { method, path, body, headers, streams: false }).await? {
            Got::Whole(answer) => Ok(answer),
            Got::Begun(_, from) => Err(ClientError::Protocol(format!("{from} answers what was not asked"))),
        }
    }

    /// `GET path` whose body is read as it comes, such as `/v1/events`.
    pub async fn stream(&self, path: &str, headers: &[(&str, &str)]) -> Result<BodyStream, ClientError> {
        match self.exchange(&Asked { method: Method::GET, path, body: None, headers, streams: true }).await? {
            Got::Begun(response, from) => Ok(BodyStream { body: response.into_body(), from }),
            Got::Whole(answer) => Err(answer.refusal()),
        }
    }
}

impl Answer {
    /// Whether it is 2xx.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body as `T` where the status is 2xx; else the refusal.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        if !self.is_success() {
            return Err(self.refusal());
        }
        serde_json::from_slice(&self.body)
            .map_err(|error| ClientError::Protocol(format!("{}: {error}{}", self.from, first_bytes(&self.body))))
    }

    /// The body as text where the status is 2xx; else the refusal.
    pub fn text(&self) -> Result<String, ClientError> {
        if !self.is_success() {
            return Err(self.refusal());
        }
        String::from_utf8(self.body.to_vec())
            .map_err(|_| ClientError::Protocol(format!("{} answers what is not UTF-8", self.from)))
    }

    /// What an answer other than 2xx says: the broker's problem, or who answered what.
    #[must_use]
    pub fn refusal(&self) -> ClientError {
        match serde_json::from_slice::<Problem>(&self.body) {
            Ok(problem) => problem.into(),
            Err(_) => ClientError::NotABroker(format!(
                "{} answered {} without saying why{}",
                self.from,
                self.status,
                first_bytes(&self.body)
            )),
        }
    }
}

/// A body that is read as it comes.
#[derive(Debug)]
pub struct BodyStream {
    body: Incoming,
    from: String,
}

impl BodyStream {
    /// The next bytes; `None` at the end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            let frame = tokio::time::timeout(SILENCE, self.body.frame()).await.map_err(|_| {
                ClientError::NoBroker(format!("{}: nothing came for {} s", self.from, SILENCE.as_secs()))
            })?;
            let Some(frame) = frame else { return Ok(None) };
            let frame = frame
                .map_err(|error| ClientError::NoBroker(format!("{}: its answer broke off: {error}", self.from)))?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
    }

    /// Reads it as server-sent events.
    #[must_use]
    pub fn events(self) -> super::sse::Events {
        super::sse::Events::new(self)
    }
}

fn json_body<B: Serialize + ?Sized>(body: &B) -> Result<(&'static str, Bytes), ClientError> {
    let bytes = serde_json::to_vec(body).map_err(|error| ClientError::Config(format!("no JSON: {error}")))?;
    Ok(("application/json", bytes.into()))
}
