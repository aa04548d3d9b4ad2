//! The broker's own state: at a glance, for probes, for the metrics' reader.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use super::metrics;
use super::problem::Refusal;
use crate::engine::handle::Health;
use crate::engine::query::listing;
use crate::protocol::error::{RpcError, code};
use crate::protocol::info::StatusInfo;
use crate::server::shared::Shared;

/// `GET /v1/status`.
pub async fn status(State(shared): State<Arc<Shared>>) -> Result<Json<StatusInfo>, Refusal> {
    Ok(Json(read(&shared).await?))
}

async fn read(shared: &Shared) -> Result<StatusInfo, RpcError> {
    let mut status = shared.handle.read(listing::status).await?;
    status.store.clone_from(&shared.process.store);
    status.inventory.clone_from(&shared.inventory.file);
    status.inventory_error = shared.inventory.error.borrow().as_deref().map(str::to_owned);
    if let Some(sight) = shared.process.seen() {
        status.leader = Some(sight.own_url);
        status.epoch = sight.epoch;
        status.term_ms = Some(sight.term_ms);
        status.brokers = sight.brokers;
    }
    Ok(status)
}

/// `GET /healthz`: the process answers.
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: whether anything can be granted, or why not.
pub async fn readyz(State(shared): State<Arc<Shared>>) -> Result<&'static str, Refusal> {
    let health = shared.handle.health().borrow().clone();
    match health {
        Health { ended: true, .. } => Err(Refusal(RpcError::new(code::UNAVAILABLE, "this broker leads no more"))),
        Health { store_failure: Some(failure), .. } => Err(Refusal(RpcError::new(
            code::UNAVAILABLE,
            format!("nothing new is granted: the store fails: {failure}"),
        ))),
        Health { stopping: true, .. } => {
            Err(Refusal(RpcError::new("stopping", "nothing new is granted: the broker is stopping")))
        }
        _ => Ok("ready\n"),
    }
}

/// `GET /metrics`, as OpenMetrics.
pub async fn metrics(State(shared): State<Arc<Shared>>) -> Result<Response, Refusal> {
    let status = read(&shared).await?;
    let failing = shared.handle.health().borrow().store_failure.is_some();
    let builds = match &shared.pipeline {
        Some(pipeline) => Some(pipeline.conductor.figures().await?),
        None => None,
    };
    let text = metrics::leading(&status, shared.handle.metrics(), &shared.process, failing, builds.as_ref());
    Ok(open_metrics(text))
}

/// A scrape's answer.
pub(super) fn open_metrics(text: String) -> Response {
    ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
}
