//! HTTP/1.1 to a broker, for commands: one request per connection, URLs tried in turn.
//!
//! Over the same streams as the WebSocket, so that proxies, certificates and tokens mean the same
//! for every command. A problem in an answer becomes [`ClientError::Refused`] with its code.

use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, SERVER};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::connect::{Network, first_bytes};
use super::error::ClientError;
use super::url::BaseUrl;
use crate::protocol::error::Problem;

/// Bytes of an answer that is read whole. A page of a listing stays far below.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long the head of an answer may take: longer than a broker waits for its store.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
const AGENT: &str = concat!("leasehold/", env!("CARGO_PKG_VERSION"));

/// Speaks HTTP with whichever of some brokers answers first.
#[derive(Clone, Debug)]
pub struct Http {
    urls: Vec<BaseUrl>,
    network: Network,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status, whatever it is.
    pub status: u16,
    /// The body, whole.
    pub body: Bytes,
    /// Who answered, for errors: the URL, and what it calls itself.
    from: String,
}

impl Http {
    /// For these URLs, tried in turn; the network as the environment has it.
    pub fn new(urls: Vec<BaseUrl>) -> Result<Self, ClientError> {
        Ok(Self::with_network(urls, Network::from_env()?))
    }

    /// For these URLs over a network of the caller's.
    #[must_use]
    pub fn with_network(urls: Vec<BaseUrl>, network: Network) -> Self {
        Self { urls, network }
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
    /// Another URL is tried where nobody was reached; once a request is sent its failure is the
    /// answer, as nobody knows whether it was done.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, Bytes)>,
        headers: &[(&str, &str)],
    ) -> Result<Answer, ClientError> {
        let (response, from) = self.exchange(method, path, body, headers).await?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| ClientError::NoBroker(format!("{from}: its answer broke off: {error}")))?;
        Ok(Answer { status, body: body.to_bytes(), from })
    }

    /// `GET path` whose body is read as it comes, such as `/v1/events`.
    pub async fn stream(&self, path: &str, headers: &[(&str, &str)]) -> Result<BodyStream, ClientError> {
        let (response, from) = self.exchange(Method::GET, path, None, headers).await?;
        if response.status().is_success() {
            return Ok(BodyStream { body: response.into_body(), from });
        }
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        Err(Answer { status, body, from }.refusal())
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, Bytes)>,
        headers: &[(&str, &str)],
    ) -> Result<(Response<Incoming>, String), ClientError> {
        let mut failures = Vec::new();
        for url in &self.urls {
            let stream = match self.network.stream(url).await {
                Ok(stream) => stream,
                Err(ClientError::NoBroker(why) | ClientError::NotABroker(why)) => {
                    failures.push(why);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let mut request = self.request(url, method.clone(), path, body.clone(), headers)?;
            let broke = |error: hyper::Error| {
                ClientError::NoBroker(format!("{} broke off before it answered: {error}", url.http()))
            };
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broke)?;
            tokio::spawn(async move {
                // Its error is the request's too, and told there.
                let _ = connection.await;
            });
            request.headers_mut().insert(hyper::header::USER_AGENT, HeaderValue::from_static(AGENT));
            let response = tokio::time::timeout(ANSWER_TIMEOUT, sender.send_request(request)).await.map_err(|_| {
                ClientError::NoBroker(format!("{}: no answer within {} s", url.http(), ANSWER_TIMEOUT.as_secs()))
            })?;
            let response = response.map_err(broke)?;
            let server = response.headers().get(SERVER).and_then(|value| value.to_str().ok());
            let from = server.map_or_else(|| url.http(), |server| format!("{} (server: {server})", url.http()));
            return Ok((response, from));
        }
        Err(ClientError::NoBroker(failures.join("; ")))
    }

    fn request(
        &self,
        url: &BaseUrl,
        method: Method,
        path: &str,
        body: Option<(&str, Bytes)>,
        headers: &[(&str, &str)],
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let (content_type, bytes) = body.map_or((None, Bytes::new()), |(kind, bytes)| (Some(kind), bytes));
        let bad = |error: String| ClientError::Config(format!("{path:?} cannot be asked for: {error}"));
        let mut request = Request::builder()
            .method(method)
            .uri(url.path(path))
            .header(HOST, url.authority(false))
            .header(ACCEPT, "application/json, text/event-stream, */*;q=0.1")
            .body(Full::new(bytes))
            .map_err(|error| bad(error.to_string()))?;
        if let Some(kind) = content_type {
            let value = HeaderValue::from_str(kind).map_err(|error| bad(error.to_string()))?;
            request.headers_mut().insert(CONTENT_TYPE, value);
        }
        if let Some(authorization) = self.network.authorization() {
            request.headers_mut().insert(AUTHORIZATION, authorization);
        }
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| bad(error.to_string()))?;
            let value = HeaderValue::from_str(value).map_err(|error| bad(error.to_string()))?;
            request.headers_mut().insert(name, value);
        }
        Ok(request)
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
        while let Some(frame) = self.body.frame().await {
            let frame = frame
                .map_err(|error| ClientError::NoBroker(format!("{}: its answer broke off: {error}", self.from)))?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
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
