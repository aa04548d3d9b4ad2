//! What a broker that stands by answers: probes and its own state by itself, everything else by
//! where the leader is.
//!
//! 307 keeps method and body, and libraries follow it, for an upgrade too. While no leader is known
//! there is nothing to lead anybody to: 503, to be asked again soon. Nobody is ever sent back to this
//! broker itself.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{LOCATION, RETRY_AFTER, UPGRADE};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware;
use axum::response::Response;
use axum::routing::get;

use super::{admit, metrics, problem, status};
use crate::clock::{boot_now, wall_now_ms};
use crate::protocol::error::{Problem, RpcError, code};
use crate::protocol::info::StatusInfo;
use crate::server::front::Process;
use crate::server::sight::{Leader, Sight};
use crate::units::rfc3339;

/// How soon to ask again while no leader is known, seconds.
const RETRY_AFTER_S: &str = "1";

/// Every route of a broker that stands by.
pub fn router(process: &Arc<Process>) -> Router {
    let since = boot_now();
    let status = move |State(process): State<Arc<Process>>| async move { Json(of(&process, boot_now().since(since))) };
    Router::new()
        .route("/healthz", get(status::healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
        .route("/v1/status", get(status))
        .method_not_allowed_fallback(problem::wrong_method)
        .fallback(elsewhere)
        .layer(middleware::from_fn_with_state(process.clone(), admit))
        .with_state(process.clone())
}

/// The leader to send clients to: never this broker itself.
fn leader(sight: &Sight) -> Option<&Leader> {
    sight.leader.as_ref().filter(|leader| leader.url != sight.own_url)
}

/// In words, for people who came here.
fn words(sight: &Sight) -> String {
    match (leader(sight), &sight.failure) {
        (Some(leader), _) => format!("this broker stands by; the one that leads is at {}", leader.url),
        (None, Some(failure)) => {
            format!("this broker stands by and cannot reach the database, so it does not know who leads: {failure}")
        }
        // Only one with this broker's own URL is passed over.
        (None, None) if sight.leader.is_some() => {
            let own = &sight.own_url;
            format!("this broker stands by, and the one that leads is at {own} too: give each its own --advertise")
        }
        (None, None) => "this broker stands by, and no broker leads at present: try again in a second".to_owned(),
    }
}

fn problem_of(sight: &Sight, status: StatusCode) -> Problem {
    let error = RpcError::new(code::STANDBY, words(sight));
    let leader = leader(sight).map(|leader| leader.url.clone());
    Problem { status: status.as_u16(), leader, ..Problem::from(&error) }
}

fn unavailable(sight: &Sight) -> Response {
    let mut response = problem::problem(problem_of(sight, StatusCode::SERVICE_UNAVAILABLE));
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
    response
}

/// `GET /readyz`: nothing is granted here, and where it is.
async fn readyz(State(process): State<Arc<Process>>) -> Response {
    unavailable(&process.seen().unwrap_or_default())
}

/// `GET /metrics`, as OpenMetrics.
async fn scrape(State(process): State<Arc<Process>>) -> Response {
    status::open_metrics(metrics::standing_by(&process))
}

/// Everything else, a WebSocket too: the leader's.
async fn elsewhere(State(process): State<Arc<Process>>, request: Request) -> Response {
    let sight = process.seen().unwrap_or_default();
    let location = leader(&sight).and_then(|leader| location(leader, &request));
    let Some(location) = location else { return unavailable(&sight) };
    let mut response = problem::problem(problem_of(&sight, StatusCode::TEMPORARY_REDIRECT));
    response.headers_mut().insert(LOCATION, location);
    response
}

/// The same path and query at the leader's. For a WebSocket with `ws` or `wss`: most of their
/// libraries follow to no other scheme, as those for HTTP follow to `http` and `https` only.
fn location(leader: &Leader, asked: &Request) -> Option<HeaderValue> {
    let path = asked.uri().path_and_query().map_or("/", |path| path.as_str());
    // `*` and an authority are asked of this broker, not of a place in it.
    let path = if path.starts_with('/') { path } else { "/" };
    let upgrades = asked.headers().get(UPGRADE).is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let base = if upgrades { leader.http.replacen("http", "ws", 1) } else { leader.http.clone() };
    HeaderValue::from_str(&format!("{base}{path}")).ok()
}

/// What `GET /v1/status` tells here.
fn of(process: &Process, uptime_ms: u64) -> StatusInfo {
    let sight = process.seen().unwrap_or_default();
    StatusInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        role: "standby".to_owned(),
        state: "standby".to_owned(),
        message: Some(words(&sight)),
        leader: leader(&sight).map(|leader| leader.url.clone()),
        epoch: sight.epoch,
        term_ms: Some(sight.term_ms),
        brokers: sight.brokers,
        store: process.store.clone(),
        inventory: None,
        inventory_error: None,
        uptime_ms,
        batch: 0,
        pools: Vec::new(),
        sessions: 0,
        leases: 0,
        waiting: 0,
        now: 0,
        now_time: rfc3339(wall_now_ms()),
    }
}

#[cfg(test)]
mod tests;
