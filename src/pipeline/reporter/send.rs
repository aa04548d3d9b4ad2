//! One request to a forge, with everything that can go wrong on the way.
//!
//! The token goes to the configured API and nowhere else: a redirection is followed only within its scheme,
//! host and port. It is in no log and in no trouble, also where the forge repeats it.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{HeaderMap, LOCATION};
use reqwest::{Client, Response, StatusCode, Url};

use super::request::Request;
use super::verdict::{Verdict, judge, spent_until_ms};
use super::{Account, Place, Settings};
use crate::builds::status::Status;
use crate::clock::wall_now_ms;
use crate::inventory::secrets;
use crate::pipeline::use_ring;

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a request may take, with its answer.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes of an answer that are read: enough for any error's message.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// Redirections that are followed.
const REDIRECTIONS_MAX: usize = 3;

/// What came of sending.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) verdict: Verdict,
    /// Until when nothing should be sent with this token.
    pub(super) rests_until_ms: Option<i64>,
    /// Whether the forge may still come to see the request.
    pub(super) unsure: bool,
}

impl Sent {
    const fn plain(verdict: Verdict) -> Self {
        Self { verdict, rests_until_ms: None, unsure: false }
    }

    const fn refused(trouble: String) -> Self {
        Self::plain(Verdict::Refused { trouble })
    }
}

/// Sends statuses.
#[derive(Debug)]
pub(super) struct Sender {
    settings: Settings,
    client: Result<Client, String>,
}

impl Sender {
    pub(super) fn new(settings: Settings) -> Self {
        use_ring();
        let client = Client::builder()
            .user_agent(concat!("leasehold/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .build()
            .map_err(|error| format!("requests cannot be sent from here: {}", in_words(error)));
        Self { settings, client }
    }

    /// Whose limits a row's request counts for.
    pub(super) fn account(&self, row: &Status) -> Account {
        let place = self.settings.places.get(&row.key.repository);
        place.map_or_else(|| ("".into(), String::new()), |place| (Arc::clone(&place.api), format!("{:?}", place.token)))
    }

    /// Tells a forge of a status.
    pub(super) async fn send(&self, row: &Status) -> Sent {
        let Some(place) = self.settings.places.get(&row.key.repository) else {
            return Sent::plain(Verdict::Unwanted);
        };
        let token = match read_token(place).await {
            Ok(token) => token,
            Err(trouble) => return Sent::refused(trouble),
        };
        self.send_with(row, place, &token).await
    }

    async fn send_with(&self, row: &Status, place: &Place, token: &str) -> Sent {
        let target = format!("{}{}", self.settings.public_url, row.whose.page());
        let request = Request::of(row, place, token, &target);
        let (client, mut request) = match (&self.client, request) {
            (Ok(client), Ok(request)) => (client, request),
            (Err(trouble), _) => return Sent::refused(trouble.clone()),
            (_, Err(trouble)) => return Sent::refused(trouble),
        };
        for _ in 0..=REDIRECTIONS_MAX {
            let asked = client.post(request.url.clone()).headers(request.headers.clone()).json(&request.body);
            let mut answer = match asked.send().await {
                Ok(answer) => answer,
                Err(error) => return failed(place, error),
            };
            if let Some(url) = elsewhere(&request.url, answer.status(), answer.headers()) {
                request.url = url;
                continue;
            }
            let body = match beginning(&mut answer).await {
                Ok(body) => body,
                Err(error) => return failed(place, error),
            };
            let (body, now_ms) = (without(&body, token), wall_now_ms());
            let verdict = judge(place.forge, answer.status(), answer.headers(), body.as_bytes(), now_ms);
            let rests_until_ms = match &verdict {
                Verdict::Limited { until_ms, .. } => Some(*until_ms),
                _ => spent_until_ms(answer.headers(), now_ms),
            };
            return Sent { verdict, rests_until_ms, unsure: false };
        }
        Sent::refused(format!("{} sends requests in a circle", place.forge))
    }
}

/// What a forge said, without the token: before anything of it is cut, or a piece of it could stay.
fn without(body: &[u8], token: &str) -> String {
    String::from_utf8_lossy(body).replace(token, "[token]")
}

/// The token, which has at least a character.
async fn read_token(place: &Place) -> Result<String, String> {
    let reference = place.token.clone();
    let read = tokio::task::spawn_blocking(move || secrets::resolve(&reference)).await;
    let token = read.map_err(|error| format!("reading the token ended badly: {error}"))??;
    let token = token.trim();
    if token.is_empty() { Err("the token is empty".to_owned()) } else { Ok(token.to_owned()) }
}

/// Where a redirection leads, where it may be followed: a repository that has another name now.
fn elsewhere(asked: &Url, code: StatusCode, headers: &HeaderMap) -> Option<Url> {
    if !matches!(code.as_u16(), 301 | 302 | 307 | 308) {
        return None;
    }
    let url = asked.join(headers.get(LOCATION)?.to_str().ok()?).ok()?;
    (url.origin() == asked.origin() && url.username().is_empty() && url.password().is_none()).then_some(url)
}

/// The beginning of an answer's body; what follows is not read.
async fn beginning(answer: &mut Response) -> reqwest::Result<Vec<u8>> {
    let mut body = Vec::new();
    while body.len() < ANSWER_BYTES_MAX
        && let Some(chunk) = answer.chunk().await?
    {
        body.extend_from_slice(&chunk[..chunk.len().min(ANSWER_BYTES_MAX - body.len())]);
    }
    Ok(body)
}

/// No answer.
fn failed(place: &Place, error: reqwest::Error) -> Sent {
    let unsure = !error.is_connect() && !error.is_builder();
    let trouble = if error.is_timeout() {
        format!("{} at {} did not answer in time", place.forge, place.api)
    } else {
        format!("{} at {} cannot be asked: {}", place.forge, place.api, in_words(error))
    };
    Sent { verdict: Verdict::Busy { until_ms: None, trouble }, rests_until_ms: None, unsure }
}

/// An error with its causes, and without the address, which the reader has already.
fn in_words(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words.push_str(": ");
        words.push_str(&error.to_string());
        cause = error.source();
    }
    words
}
