//! A log as text: from any byte, as it is now or as it grows.
//!
//! A reader pulls: it is sent what it has room for, and the next part is read when it has some again. So one
//! that reads slowly is never left anything out, and costs a part at most.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE, TRAILER, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::{attempt, build, failed, logs};
use crate::builds::build::Build;
use crate::builds::log::{Gap, LogId, LogStatus};
use crate::pipeline::logs::{Following, Logs, Part};
use crate::protocol::error::{RpcError, code};
use crate::server::http::problem::{Asked, Named, Refusal, with_status};
use crate::server::limits::LOG_FOLLOWERS_MAX;
use crate::server::shared::Shared;

/// Bytes of a part.
const PART_BYTES: usize = 256 * 1024;
/// How often it is looked whether a build is over whose log has not begun.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Bytes so far, those not kept too.
const BYTES: HeaderName = HeaderName::from_static("leasehold-log-bytes");
/// Lines begun so far.
const LINES: HeaderName = HeaderName::from_static("leasehold-log-lines");
/// Which attempt's log it is.
const ATTEMPT: HeaderName = HeaderName::from_static("leasehold-log-attempt");
/// `yes` while more may come.
const MORE: HeaderName = HeaderName::from_static("leasehold-log-more");
/// `FROM-TO`: the bytes that are not kept, the last of them not counted in.
const GAP: HeaderName = HeaderName::from_static("leasehold-log-gap");
/// SHA-256 over all bytes, once it has ended.
const SHA256: HeaderName = HeaderName::from_static("leasehold-log-sha256");

/// Which part, and how.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Which {
    attempt: Option<u32>,
    offset: Option<u64>,
    follow: Option<String>,
}

impl Which {
    fn follows(&self) -> bool {
        self.follow.as_deref().is_some_and(|text| !matches!(text, "0" | "false" | "no"))
    }
}

/// Whether nothing comes of a log that has not begun: its build is over, or tried again.
pub(in crate::server) fn nothing_comes(build: &Build, id: LogId, status: &LogStatus) -> bool {
    status.bytes == 0 && (build.phase.is_final() || build.attempt > id.attempt)
}

/// `GET /builds/{id}/log?attempt=&offset=&follow=`.
pub(super) async fn text(
    State(shared): State<Arc<Shared>>,
    Named(id): Named<String>,
    Asked(which): Asked<Which>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let logs = logs(&shared)?;
    let build = build(logs, &id).await?;
    let id = attempt(&build, which.attempt)?;
    let follows = which.follows();
    let following = if follows { Some(logs.changed(id).await.map_err(|error| failed(&error))?) } else { None };
    let mut status = logs.status(id).await.map_err(|error| failed(&error))?;
    status.never |= nothing_comes(&build, id, &status);
    let offset = which.offset.unwrap_or(0);
    let range = if follows { None } else { headers.get(RANGE).and_then(|range| asked(range, status.bytes)) };
    let (from, until) = range.unwrap_or((offset, status.bytes));
    if from > status.bytes || range.is_some() && from >= until {
        return Ok(beyond(&status, id, from));
    }
    if let Some(gap) = status.gap.filter(|gap| gap.has(from) && (range.is_some() || which.offset.is_some())) {
        return Ok(in_the_gap(&status, id, gap, from));
    }
    // The answer to a range is in one piece: it ends where the gap begins.
    let until = match status.gap.filter(|gap| range.is_some() && (from..until).contains(&gap.from)) {
        Some(gap) => gap.from,
        None => until,
    };
    let permit = if follows { Some(place(&shared)?) } else { None };
    let mut response = Response::new(Body::empty());
    *response.headers_mut() = about(&status, id);
    let headers = response.headers_mut();
    if range.is_some() {
        headers.insert(CONTENT_RANGE, value(&format!("bytes {from}-{}/{}", until - 1, whole(&status))));
    }
    match (follows, status.more()) {
        // How long a log is that goes on is known in the end.
        (true, _) => {
            headers.insert(
                TRAILER,
                HeaderValue::from_static(
                    "leasehold-log-bytes, leasehold-log-lines, \
                leasehold-log-more, leasehold-log-sha256, leasehold-log-gap",
                ),
            );
        }
        (false, true) if range.is_none() => {}
        (false, _) => {
            headers.insert(CONTENT_LENGTH, value(&length(&status, from, until).to_string()));
        }
    }
    if range.is_some() {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    let closing = shared.closing.clone();
    let logs = logs.clone();
    *response.body_mut() = body(Sending {
        logs,
        id,
        at: from,
        until,
        following,
        gone: status.never,
        closing,
        over: false,
        _permit: permit,
    });
    Ok(response)
}

fn place(shared: &Shared) -> Result<OwnedSemaphorePermit, Refusal> {
    shared.log_followers.clone().try_acquire_owned().map_err(|_| {
        let message = format!("{LOG_FOLLOWERS_MAX} follow logs already: read without `follow`, or try later");
        Refusal(RpcError::new(code::OVERLOADED, message))
    })
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("numbers and hexadecimal digits are a header's value")
}

/// The length of the whole, where it is known.
fn whole(status: &LogStatus) -> String {
    if status.more() { "*".to_owned() } else { status.bytes.to_string() }
}

/// What is said of a log in an answer's head.
fn about(status: &LogStatus, id: LogId) -> HeaderMap {
    let mut headers = ended(status);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(ATTEMPT, value(&id.attempt.to_string()));
    headers
}

/// What is said of a log also at the end of an answer.
fn ended(status: &LogStatus) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(BYTES, value(&status.bytes.to_string()));
    headers.insert(LINES, value(&status.lines.to_string()));
    headers.insert(MORE, HeaderValue::from_static(if status.more() { "yes" } else { "no" }));
    if let Some(gap) = status.gap {
        headers.insert(GAP, value(&format!("{}-{}", gap.from, gap.to)));
    }
    if let Some(end) = &status.end {
        headers.insert(SHA256, value(&end.sha256));
    }
    headers
}

/// Bytes of what is sent from here to there, with the line for the gap.
fn length(status: &LogStatus, from: u64, until: u64) -> u64 {
    match status.gap.filter(|gap| from < gap.to && gap.from < until) {
        Some(gap) => gap.from.saturating_sub(from) + line_of(&gap).len() as u64 + until.saturating_sub(gap.to),
        None => until - from,
    }
}

/// The line that stands for the gap.
fn line_of(gap: &Gap) -> String {
    let before = if gap.mid_line { "\n" } else { "" };
    format!("{before}{gap}\n")
}

/// `bytes=FROM-TO`, `bytes=FROM-` or `bytes=-LAST`; `None` where it is something else, which is ignored. The
/// end is not counted in.
fn asked(range: &HeaderValue, bytes: u64) -> Option<(u64, u64)> {
    let (from, to) = range.to_str().ok()?.trim().strip_prefix("bytes=")?.split_once('-')?;
    let number = |text: &str| text.trim().parse::<u64>().ok();
    match (from.trim(), to.trim()) {
        ("", last) => Some((bytes.saturating_sub(number(last)?), bytes)),
        (from, "") => Some((number(from)?, bytes)),
        (from, to) => {
            let (from, to) = (number(from)?, number(to)?);
            (from <= to).then(|| (from, to.saturating_add(1).min(bytes)))
        }
    }
}

fn beyond(status: &LogStatus, id: LogId, from: u64) -> Response {
    let more = if status.more() { ", and goes on" } else { "" };
    let detail = format!("there is no byte {from}: the log has {} bytes{more}", status.bytes);
    refused(status, id, detail)
}

fn in_the_gap(status: &LogStatus, id: LogId, gap: Gap, from: u64) -> Response {
    let detail = format!(
        "byte {from} is not kept: the log is over its limit, and bytes {} to {} were left out; go on from offset {}",
        gap.from,
        gap.to - 1,
        gap.to
    );
    refused(status, id, detail)
}

fn refused(status: &LogStatus, id: LogId, detail: String) -> Response {
    let mut response = with_status(416, "no_such_range", detail);
    let kind = response.headers().get(CONTENT_TYPE).cloned();
    response.headers_mut().extend(about(status, id));
    response.headers_mut().extend(kind.map(|kind| (CONTENT_TYPE, kind)));
    response.headers_mut().insert(CONTENT_RANGE, value(&format!("bytes */{}", status.bytes)));
    response
}

/// A log on its way to a reader.
struct Sending {
    logs: Logs,
    id: LogId,
    at: u64,
    /// Where it ends, unless it is followed.
    until: u64,
    following: Option<Following>,
    /// That nothing will come of it, as it was found.
    gone: bool,
    closing: CancellationToken,
    over: bool,
    _permit: Option<OwnedSemaphorePermit>,
}

fn body(sending: Sending) -> Body {
    let frames = stream::unfold(sending, |mut sending| async move {
        if sending.over {
            return None;
        }
        let frame = sending.next().await.transpose()?;
        Some((frame, sending))
    });
    Body::new(StreamBody::new(frames))
}

impl Sending {
    /// The next part. An error cuts the answer off, so that its reader knows that it has not seen the end,
    /// and goes on from where it was.
    async fn next(&mut self) -> io::Result<Option<Frame<Bytes>>> {
        loop {
            // Looked at before it is read: what comes in between is news.
            let status = self.following.as_mut().map(Following::status);
            let until = if status.is_some() { u64::MAX } else { self.until };
            if self.at >= until {
                return Ok(None);
            }
            let max = usize::try_from(until - self.at).unwrap_or(usize::MAX).min(PART_BYTES);
            match self.logs.read(self.id, self.at, max).await.map_err(io::Error::other)? {
                Part::Bytes(bytes) if !bytes.is_empty() => {
                    self.at += bytes.len() as u64;
                    return Ok(Some(Frame::data(bytes)));
                }
                Part::Gap(gap) => {
                    self.at = gap.to;
                    return Ok(Some(Frame::data(line_of(&gap).into())));
                }
                Part::Bytes(_) => {}
            }
            let (Some(status), Some(following)) = (status, &mut self.following) else {
                return Err(io::Error::other("the log is shorter than it was"));
            };
            if !status.more() || self.gone {
                self.over = true;
                return Ok(Some(Frame::trailers(ended(&LogStatus { never: self.gone, ..status }))));
            }
            let unbegun = status.bytes == 0;
            tokio::select! {
                () = following.news() => {}
                () = tokio::time::sleep(LOOK_EVERY), if unbegun => self.look().await?,
                () = self.closing.cancelled() => return Err(io::Error::other("the broker stops, or leads no more")),
            }
        }
    }

    /// Looks whether nothing will come of a log that has not begun.
    async fn look(&mut self) -> io::Result<()> {
        let build = self.logs.build(self.id.build).await.map_err(io::Error::other)?;
        let status = self.logs.status(self.id).await.map_err(io::Error::other)?;
        self.gone = build.is_none_or(|build| nothing_comes(&build, self.id, &status));
        Ok(())
    }
}
