//! Logs over HTTP: agents append to them, everybody reads them, as text and in windows of lines.
//!
//! The text has one URL for the whole life of a log. A byte's offset never changes, so whoever was cut off
//! goes on from where it was; where a log is over its limit one line stands for what is not kept, and offsets
//! go on counting what it stands for.

#[cfg(test)]
mod tests;
mod text;

pub(in crate::server) use text::nothing_comes;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch};
use axum::{Json, Router};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use hyper::body::Body as _;
use serde::Deserialize;

use super::asking::{Asker, number};
use super::problem::{Asked, Named, Refusal, not_found, with_status};
use crate::builds::build::{Build, BuildId};
use crate::builds::log::{Gap, LogId};
use crate::pipeline::logs::{AppendError, LogError, Logs};
use crate::protocol::builds::{LOG_CHUNK_BYTES_MAX, LogGap, LogLine, LogLines, LogStored};
use crate::protocol::error::{RpcError, code};
use crate::protocol::log_times::{LOG_TIMES_BYTES_MAX, LineTimes};
use crate::server::convert::invalid;
use crate::server::limits::BODY_TIMEOUT;
use crate::server::shared::{App, Shared};
use crate::store::Reader;

/// Bytes of an append with its line of times.
const APPEND_BYTES_MAX: usize = LOG_CHUNK_BYTES_MAX + LOG_TIMES_BYTES_MAX + 1;
/// Lines of a window that names no count.
const WINDOW_LINES_DEFAULT: usize = 1_000;
/// Lines of a window.
const WINDOW_LINES_MAX: usize = 10_000;

/// The routes of logs.
pub fn routes<R: Reader>() -> Router<App<R>> {
    Router::new()
        .route("/v1/builds/{id}/log", patch(append))
        .route("/v1/builds/{id}/lines", get(lines))
        .route("/builds/{id}/log", get(text::text))
}

/// The logs, where builds are configured.
fn logs(shared: &Shared) -> Result<&Logs, Refusal> {
    Ok(shared.logs()?)
}

async fn build(logs: &Logs, id: &str) -> Result<Build, Refusal> {
    let id = BuildId(number(id, "build")?);
    logs.build(id).await.map_err(|error| failed(&error))?.ok_or_else(|| not_found(format!("build {id}")))
}

/// The attempt that is meant: the newest unless another is named.
fn attempt(build: &Build, asked: Option<u32>) -> Result<LogId, Refusal> {
    match asked.unwrap_or(build.attempt) {
        attempt if (1..=build.attempt).contains(&attempt) => Ok(LogId { build: build.id, attempt }),
        attempt => Err(not_found(format!("attempt {attempt} of build {}", build.id))),
    }
}

fn failed(error: &LogError) -> Refusal {
    tracing::warn!(%error, "a log could not be read or written");
    Refusal(RpcError::new(code::UNAVAILABLE, "the log cannot be read or written now: try again"))
}

/// Where an append belongs.
#[derive(Debug, Deserialize)]
pub struct Place {
    attempt: u32,
    offset: u64,
}

/// `PATCH /v1/builds/{id}/log?attempt=&offset=`: a line of times, and bytes.
async fn append(
    State(shared): State<Arc<Shared>>,
    Named(build): Named<String>,
    asker: Asker,
    Asked(place): Asked<Place>,
    request: Request,
) -> Result<Response, Response> {
    let refused = |refusal: Refusal| refusal.into_response();
    let logs = logs(&shared).map_err(refused)?;
    let id = LogId { build: BuildId(number(&build, "build").map_err(refused)?), attempt: place.attempt };
    let key = asker.needed_key().map_err(refused)?;
    if !logs.takes_key(id, &key.0).await.map_err(|error| refused(failed(&error)))? {
        let message = "this is not the key of whoever took that attempt of the build";
        return Err(refused(Refusal(RpcError::new("forbidden", message))));
    }
    // Before the body: what is received has a place to be worked on.
    let admitted = logs.admit(id, place.offset).await.map_err(|error| refused(failed(&error)))?;
    let body = received(request.into_body()).await?;
    let (times, bytes) = split(body).map_err(|message| refused(Refusal(invalid(message))))?;
    match logs.append(admitted, times, bytes, Some(&key.0)).await {
        Ok(bytes) => Ok(Json(LogStored { bytes }).into_response()),
        Err(AppendError::Elsewhere(bytes)) => Ok((StatusCode::CONFLICT, Json(LogStored { bytes })).into_response()),
        Err(AppendError::Closed) => Err(with_status(410, "log_closed", "the log has ended, and takes nothing more")),
        Err(AppendError::Malformed(message)) => Err(refused(Refusal(invalid(message)))),
        Err(AppendError::Failed(error)) => Err(refused(failed(&error))),
    }
}

async fn received(body: Body) -> Result<Bytes, Response> {
    match tokio::time::timeout(BODY_TIMEOUT, gathered(body)).await {
        Ok(bytes) => bytes,
        Err(_) => Err(with_status(408, "body_too_slow", "the body did not arrive in time: send it at once")),
    }
}

/// The body in one buffer of its size: as parts and then put together, it would be there twice.
async fn gathered(body: Body) -> Result<Bytes, Response> {
    let told = body.size_hint().exact().and_then(|told| usize::try_from(told).ok()).unwrap_or(0);
    let mut bytes = BytesMut::with_capacity(told.min(APPEND_BYTES_MAX));
    let mut parts = body.into_data_stream();
    while let Some(part) = parts.next().await {
        let part = part.map_err(|_| with_status(400, code::INVALID_REQUEST, "the body ended before its end"))?;
        if bytes.len() + part.len() > APPEND_BYTES_MAX {
            let message = format!("an append has at most {LOG_CHUNK_BYTES_MAX} bytes: send it in parts");
            return Err(with_status(413, "body_too_long", message));
        }
        bytes.extend_from_slice(&part);
    }
    Ok(bytes.freeze())
}

/// The line of times, and what comes after it.
fn split(body: Bytes) -> Result<(LineTimes, Bytes), String> {
    let end = memchr::memchr(b'\n', &body[..body.len().min(LOG_TIMES_BYTES_MAX + 1)]);
    let end = end.ok_or("the body must begin with a line of times: UNIXMS;COUNT+DELTA,... and a line feed")?;
    let times = LineTimes::parse(&body[..end])?;
    let bytes = body.slice(end + 1..);
    if bytes.len() > LOG_CHUNK_BYTES_MAX {
        return Err(format!("an append has at most {LOG_CHUNK_BYTES_MAX} bytes: send it in parts"));
    }
    Ok((times, bytes))
}

/// Which lines.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Which {
    attempt: Option<u32>,
    /// From 1; absent is the last ones.
    from: Option<u64>,
    count: Option<usize>,
}

/// `GET /v1/builds/{id}/lines?attempt=&from=&count=`.
async fn lines(
    State(shared): State<Arc<Shared>>,
    Named(id): Named<String>,
    Asked(which): Asked<Which>,
) -> Result<Response, Refusal> {
    let logs = logs(&shared)?;
    let build = build(logs, &id).await?;
    let id = attempt(&build, which.attempt)?;
    let status = logs.status(id).await.map_err(|error| failed(&error))?;
    let count = which.count.unwrap_or(WINDOW_LINES_DEFAULT).min(WINDOW_LINES_MAX);
    let from = which.from.unwrap_or_else(|| (status.lines + 1).saturating_sub(count as u64)).max(1);
    let found = logs.lines(id, from, count).await.map_err(|error| failed(&error))?;
    let more = status.more() && !nothing_comes(&build, id, &status);
    let written = tokio::task::spawn_blocking(move || {
        let items = found.into_iter().map(|line| LogLine {
            number: line.number,
            offset: line.offset,
            at_ms: line.at_ms,
            text: String::from_utf8_lossy(&line.bytes).into_owned(),
            cut: line.cut,
            ended: line.ended,
        });
        serde_json::to_vec(&LogLines {
            build: id.build.0,
            attempt: id.attempt,
            bytes: status.bytes,
            lines: status.lines,
            more,
            gap: status.gap.map(told),
            items: items.collect(),
        })
    });
    let written = written.await.map_err(std::io::Error::other).and_then(|json| json.map_err(std::io::Error::other));
    let json = written.map_err(|error| failed(&LogError::Compression(error)))?;
    Ok(([(CONTENT_TYPE, "application/json")], json).into_response())
}

fn told(gap: Gap) -> LogGap {
    LogGap { from: gap.from, to: gap.to, first_line: gap.first_line, lines: gap.lines }
}
