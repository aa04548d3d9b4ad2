//! One HTTP request to whichever broker leads: URLs in turn, redirects, and takeovers.
//!
//! ```text
//!   each URL, that which answered last first:
//!     nobody reached ------------------------> the next URL
//!     307 -> where the Location says --------> as if it had been that URL
//!     503 -----------------------------------> the next URL; it was not done there
//!     sent, no answer: may be sent again ----> the next URL
//!                      may not --------------> it is not known whether it was done
//!   all tried, and one of them stands by ----> again, for as long as a takeover may last
//! ```
//!
//! What may be sent again is what is the same done once or twice, whoever else does what meanwhile:
//! reading, what goes by a request id, what ends or keeps a thing whose number is never used again, and
//! what the taker of a build says of it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, LOCATION, SERVER, USER_AGENT};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;

use super::connect::{STEP_TIMEOUT, STEP_TIMEOUT_SHORT, Stream};
use super::error::{ClientError, told_together};
use super::http::{Answer, Http};
use super::redirect::{Trail, sends_elsewhere};
use super::url::BaseUrl;
use crate::clock::{BootTime, boot_now, jitter};
use crate::protocol::error::{Problem, code};

/// Bytes of an answer that is read whole. A page of a listing stays far below.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long the head of an answer may take, and each piece of its body: longer than a broker waits
/// for its store.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// The same where another URL can be asked instead; if none answers they get the longer time.
const ANSWER_TIMEOUT_SHORT: Duration = Duration::from_secs(5);
/// How long a takeover is waited for, from the request on: twice as long as one should last.
const TAKEOVER_MS_MAX: u64 = 10_000;
/// The first pause before all URLs are asked again; each further one is twice as long.
const PAUSE_MS: u64 = 100;
const PAUSE_MS_MAX: u64 = 800;
const AGENT: &str = concat!("leasehold/", env!("CARGO_PKG_VERSION"));

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Asked<'a> {
    pub(super) method: Method,
    pub(super) path: &'a str,
    /// Content type and bytes.
    pub(super) body: Option<(&'a str, Bytes)>,
    pub(super) headers: &'a [(&'a str, &'a str)],
    /// Whether the body of an answer with 2xx is read as it comes.
    pub(super) streams: bool,
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Got {
    Whole(Answer),
    /// The head; who answered.
    Begun(Response<Incoming>, String),
}

/// What came of it at one URL, or where that sent to.
enum Tried {
    Got(Got),
    /// It was not done there; this is the answer if no other URL has a better one.
    Busy(Answer),
    /// It was not done there. Whether a broker is there that stands by.
    Failed(ClientError, bool),
    /// It was sent, and may have been done.
    Unanswered(String),
}

/// What came of it at all URLs, none of which had an answer.
#[derive(Default)]
struct Round {
    busy: Option<Answer>,
    stands_by: bool,
    /// One of them might have answered, had it been given longer.
    slow: bool,
    failures: Vec<ClientError>,
    /// Who was asked, redirects too: what they say is known for this round.
    places: Vec<BaseUrl>,
}

/// How long things may take.
#[derive(Clone, Copy)]
struct Patience {
    step: Duration,
    answer: Duration,
}

impl Asked<'_> {
    /// Whether it may be sent again though it may have been done.
    fn may_repeat(&self) -> bool {
        let path = self.path.split('?').next().unwrap_or_default();
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        match (&self.method, &parts[..]) {
            (&Method::GET, _) | (&Method::POST, ["v1", "match" | "leases"]) => true,
            (&Method::POST, ["v1", "leases", _, act]) => ["renew", "extend", "release", "revoke"].contains(act),
            (&Method::POST, ["v1", "claims", _, "cancel"]) => true,
            // Under the taker's key, and by offset.
            (&Method::POST, ["v1", "builds", _, act]) => ["take", "report"].contains(act),
            (&Method::PATCH, ["v1", "builds", _, "log"]) => true,
            _ => false,
        }
    }

    /// How long it asks the broker to wait before it answers.
    fn waits(&self) -> Duration {
        let query = self.path.split_once('?').map_or("", |(_, query)| query);
        let wait = query.split('&').find_map(|pair| pair.strip_prefix("wait_ms="));
        Duration::from_millis(wait.and_then(|ms| ms.parse().ok()).unwrap_or(0))
    }

    fn patience(&self, hurried: bool) -> Patience {
        Patience {
            step: if hurried { STEP_TIMEOUT_SHORT } else { STEP_TIMEOUT },
            answer: if hurried && self.may_repeat() { ANSWER_TIMEOUT_SHORT + self.waits() } else { ANSWER_TIMEOUT },
        }
    }
}

impl Http {
    /// Asks until a broker answers, or none is there to.
    pub(super) async fn exchange(&self, asked: &Asked<'_>) -> Result<Got, ClientError> {
        let began = boot_now();
        let mut hurried = self.urls.len() > 1;
        let mut pause_ms = PAUSE_MS;
        loop {
            let mut round = Round::default();
            if let Some(got) = self.round(asked, asked.patience(hurried), &mut round).await? {
                return Ok(got);
            }
            if round.stands_by && boot_now().since(began) < TAKEOVER_MS_MAX {
                tokio::time::sleep(Duration::from_millis(pause_ms / 2 + jitter(pause_ms / 2 + 1))).await;
                pause_ms = (pause_ms * 2).min(PAUSE_MS_MAX);
            } else if let Some(busy) = round.busy {
                return Ok(Got::Whole(busy));
            } else if round.slow && hurried {
                hurried = false;
            } else {
                return Err(joined(round.failures));
            }
        }
    }

    /// Asks at each URL in turn, that which answered last first.
    async fn round(
        &self,
        asked: &Asked<'_>,
        patience: Patience,
        round: &mut Round,
    ) -> Result<Option<Got>, ClientError> {
        let first = self.answered_last.load(Ordering::Relaxed);
        for turn in 0..self.urls.len() {
            let index = (first + turn) % self.urls.len();
            let began = boot_now();
            match self.at(&self.urls[index], asked, patience, &mut round.places).await? {
                Tried::Got(got) => {
                    self.answered_last.store(index, Ordering::Relaxed);
                    return Ok(Some(got));
                }
                Tried::Unanswered(why) if !asked.may_repeat() => return Err(ClientError::Unanswered(why)),
                Tried::Busy(answer) => drop(round.busy.get_or_insert(answer)),
                Tried::Unanswered(why) => round.failures.push(ClientError::NoBroker(why)),
                Tried::Failed(why, stands_by) => {
                    round.stands_by |= stands_by;
                    round.failures.push(why);
                }
            }
            round.slow |= took(began) >= patience.step;
        }
        Ok(None)
    }

    /// Asks at one URL, and wherever that sends to.
    async fn at(
        &self,
        url: &BaseUrl,
        asked: &Asked<'_>,
        patience: Patience,
        places: &mut Vec<BaseUrl>,
    ) -> Result<Tried, ClientError> {
        let mut trail = Trail::new(url, asked.path);
        loop {
            let base = trail.base();
            if places.contains(base) {
                let why = ClientError::NoBroker(format!("{base} was asked already"));
                return Ok(Tried::Failed(trail.told(why), trail.is_redirected()));
            }
            places.push(base.clone());
            let stream = match self.network.stream(base, patience.step).await {
                Ok(stream) => stream,
                Err(error) if error.is_no_broker() => {
                    return Ok(Tried::Failed(trail.told(error), trail.is_redirected()));
                }
                Err(error) => return Err(error),
            };
            let request = self.request(&trail, asked)?;
            let response = match ask(stream, request, patience.answer).await {
                Ok(response) => response,
                Err(why) => return Ok(Tried::Unanswered(format!("{} {why}", base.http()))),
            };
            if !sends_elsewhere(response.status().as_u16()) {
                return Ok(self.read(response, base, asked, patience.answer).await);
            }
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            if let Err(misdirected) = trail.follow(location) {
                return Ok(Tried::Failed(misdirected, false));
            }
        }
    }

    fn request(&self, trail: &Trail, asked: &Asked<'_>) -> Result<Request<Full<Bytes>>, ClientError> {
        let (content_type, bytes) =
            asked.body.clone().map_or((None, Bytes::new()), |(kind, bytes)| (Some(kind), bytes));
        let bad = |error: String| ClientError::Config(format!("{:?} cannot be asked for: {error}", asked.path));
        let mut request = Request::builder()
            .method(asked.method.clone())
            .uri(trail.path())
            .header(HOST, trail.base().authority(false))
            .header(ACCEPT, "application/json, text/event-stream, */*;q=0.1")
            .header(USER_AGENT, AGENT)
            .body(Full::new(bytes))
            .map_err(|error| bad(error.to_string()))?;
        if let Some(kind) = content_type {
            let value = HeaderValue::from_str(kind).map_err(|error| bad(error.to_string()))?;
            request.headers_mut().insert(CONTENT_TYPE, value);
        }
        if let Some(authorization) = self.network.authorization() {
            request.headers_mut().insert(AUTHORIZATION, authorization);
        }
        for (name, value) in asked.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| bad(error.to_string()))?;
            let value = HeaderValue::from_str(value).map_err(|error| bad(error.to_string()))?;
            request.headers_mut().insert(name, value);
        }
        Ok(request)
    }

    /// Reads the answer, unless it is to be read as it comes.
    async fn read(&self, response: Response<Incoming>, base: &BaseUrl, asked: &Asked<'_>, patience: Duration) -> Tried {
        let server = response.headers().get(SERVER).and_then(|value| value.to_str().ok());
        let from = server.map_or_else(|| base.http(), |server| format!("{} (server: {server})", base.http()));
        let status = response.status();
        if asked.streams && status.is_success() {
            return Tried::Got(Got::Begun(response, from));
        }
        let body = match whole(response.into_body(), patience).await {
            Ok(body) => body,
            Err(why) => return Tried::Unanswered(format!("{from} {why}")),
        };
        let answer = Answer { status: status.as_u16(), body, from };
        match (status.as_u16(), serde_json::from_slice::<Problem>(&answer.body)) {
            (503, Ok(problem)) if self.is_passing(&problem) => {
                Tried::Failed(ClientError::NoBroker(format!("{}: {}", base.http(), problem.detail)), true)
            }
            (503, _) => Tried::Busy(answer),
            // Something in between got no answer, or none that it understood.
            (502 | 504, Err(_)) if asked.may_repeat() => Tried::Busy(answer),
            _ => Tried::Got(Got::Whole(answer)),
        }
    }

    /// Whether another broker will do it, or this one in a moment.
    fn is_passing(&self, problem: &Problem) -> bool {
        problem.code == code::STANDBY || problem.code == "stopping" && self.urls.len() > 1
    }
}

/// Sends it and reads the head of the answer; an error says what went wrong, as the rest of a
/// sentence about who was asked.
async fn ask(stream: Stream, request: Request<Full<Bytes>>, patience: Duration) -> Result<Response<Incoming>, String> {
    let broke = |error: hyper::Error| format!("broke off before it answered: {error}");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broke)?;
    tokio::spawn(async move {
        // Its error is the request's too, and told there.
        let _ = connection.await;
    });
    let answered = tokio::time::timeout(patience, sender.send_request(request)).await;
    answered.map_err(|_| format!("did not answer within {} s", patience.as_secs()))?.map_err(broke)
}

async fn whole(body: Incoming, patience: Duration) -> Result<Bytes, String> {
    let mut body = Limited::new(body, ANSWER_BYTES_MAX);
    let mut read = Vec::new();
    loop {
        match tokio::time::timeout(patience, body.frame()).await {
            Ok(None) => return Ok(read.into()),
            Ok(Some(Ok(frame))) => read.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
            Ok(Some(Err(error))) => return Err(format!("broke off while it answered: {error}")),
            Err(_) => return Err(format!("stopped answering for {} s", patience.as_secs())),
        }
    }
}

fn took(since: BootTime) -> Duration {
    Duration::from_millis(boot_now().since(since))
}

/// One error of all, as each URL has its own.
fn joined(mut failures: Vec<ClientError>) -> ClientError {
    if failures.len() == 1
        && let Some(only) = failures.pop()
    {
        return only;
    }
    let words = failures.iter().map(ClientError::why).collect::<Vec<_>>();
    if words.is_empty() {
        return ClientError::Config("no broker's URL was given".to_owned());
    }
    ClientError::NoBroker(told_together(&words))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hyper::Method;

    use super::Asked;

    fn asked(method: Method, path: &str) -> Asked<'_> {
        Asked { method, path, body: None, headers: &[], streams: false }
    }

    #[test]
    fn only_what_is_the_same_done_twice_may_be_sent_twice() {
        let table = [
            (Method::GET, "/v1/leases?all=true", true),
            (Method::POST, "/v1/leases?wait_ms=0", true),
            (Method::POST, "/v1/match", true),
            (Method::POST, "/v1/leases/7/renew", true),
            (Method::POST, "/v1/leases/7/extend", true),
            (Method::POST, "/v1/leases/7/release", true),
            (Method::POST, "/v1/leases/7/revoke", true),
            (Method::POST, "/v1/claims/7/cancel", true),
            (Method::POST, "/v1/builds/7/take", true),
            (Method::POST, "/v1/builds/7/report", true),
            (Method::PATCH, "/v1/builds/7/log?attempt=1&offset=0", true),
            (Method::POST, "/v1/builds/7/retry", false),
            (Method::POST, "/v1/builds", false),
            (Method::POST, "/v1/sessions/7/kick", false),
            (Method::POST, "/v1/resources/x/drain", false),
            (Method::POST, "/v1/resources/renew/undrain", false),
            (Method::POST, "/v1/inventory/apply?dry_run=true", false),
            (Method::PUT, "/v1/resources/x", false),
            (Method::DELETE, "/v1/resources/x", false),
        ];
        for (method, path, repeats) in table {
            assert_eq!(asked(method.clone(), path).may_repeat(), repeats, "{method} {path}");
        }
    }

    #[test]
    fn who_asks_to_wait_is_given_that_time_too() {
        let hurried = |path| asked(Method::POST, path).patience(true);
        assert_eq!(hurried("/v1/leases?wait_ms=15000").answer, Duration::from_secs(20));
        assert_eq!(hurried("/v1/leases").answer, Duration::from_secs(5));
        assert_eq!(hurried("/v1/resources/x/drain").answer, Duration::from_secs(60));
        assert_eq!(hurried("/v1/resources/x/drain").step, Duration::from_secs(2));
        assert_eq!(asked(Method::GET, "/v1/leases").patience(false).answer, Duration::from_secs(60));
    }
}
