//! Search across the logs of all builds, over HTTP.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;

use super::builds::phases;
use super::problem::{Asked, Refusal};
use crate::pipeline::search::{Found, HITS_DEFAULT, HITS_MAX, Hit, Query, Question, SearchError};
use crate::protocol::builds::{SearchHit, SearchPage};
use crate::protocol::error::{RpcError, code};
use crate::server::convert::invalid;
use crate::server::shared::{App, Shared};
use crate::store::Reader;

/// Lines above a hit that its link shows.
const LINES_BEFORE: u64 = 20;

/// The routes of the search.
pub fn routes<R: Reader>() -> Router<App<R>> {
    Router::new().route("/v1/builds/search", get(search))
}

/// What is looked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Which {
    q: String,
    repository: Option<String>,
    pipeline: Option<String>,
    /// Phases with commas between them.
    state: Option<String>,
    /// Unix milliseconds.
    since: Option<i64>,
    limit: Option<usize>,
    cursor: Option<String>,
}

/// `GET /v1/builds/search?q=&repository=&pipeline=&state=&since=&limit=&cursor=`.
async fn search(State(shared): State<Arc<Shared>>, Asked(which): Asked<Which>) -> Result<Json<SearchPage>, Refusal> {
    let search = &shared.pipeline()?.search;
    let found = search.search(&question(which)?).await.map_err(|error| failed(&error))?;
    Ok(Json(page(&found)))
}

fn question(which: Which) -> Result<Question, Refusal> {
    let phases = which.state.as_deref().map(phases).transpose()?;
    let cursor = which.cursor.map(|text| {
        let refused = || Refusal(invalid("`cursor` is not one that this broker gave: begin at the first page"));
        text.parse().map_err(|()| refused())
    });
    Ok(Question {
        query: Query::parse(&which.q).map_err(|said| Refusal(invalid(format!("`q`: {said}"))))?,
        repository: which.repository.map(Arc::from),
        pipeline: which.pipeline.map(Arc::from),
        phases: phases.unwrap_or_default(),
        since_ms: which.since,
        limit: which.limit.unwrap_or(HITS_DEFAULT).clamp(1, HITS_MAX),
        cursor: cursor.transpose()?,
    })
}

/// What was found, as it is told.
pub fn page(found: &Found) -> SearchPage {
    SearchPage {
        items: found.hits.iter().map(told).collect(),
        next: found.next.map(|next| next.to_string()),
        unfinished: found.unfinished,
        to_index: found.to_index,
        trouble: found.trouble.clone(),
    }
}

fn told(hit: &Hit) -> SearchHit {
    let build = &hit.build;
    SearchHit {
        build: build.id.0,
        attempt: hit.attempt,
        line: hit.line,
        at_ms: hit.at_ms.map(u64::cast_signed),
        text: hit.text.clone(),
        more_in_log: hit.more_in_log,
        repository: build.repository.to_string(),
        pipeline: build.plan.name.to_string(),
        branch: build.subject.line.to_string(),
        state: build.phase.as_str().to_owned(),
        url: link(hit),
    }
}

/// Where people see the hit among its neighbours.
pub fn link(hit: &Hit) -> String {
    let (id, attempt, line) = (hit.build.id.0, hit.attempt, hit.line);
    let from = line.saturating_sub(LINES_BEFORE).max(1);
    format!("/builds/{id}?attempt={attempt}&from={from}#L{line}")
}

fn failed(error: &SearchError) -> Refusal {
    if matches!(error, SearchError::Busy) {
        return Refusal(RpcError::new(code::OVERLOADED, format!("{error}: repeat it a little later")));
    }
    tracing::warn!(%error, "a search could not be answered");
    Refusal(RpcError::new(code::UNAVAILABLE, "the logs cannot be searched now: try again"))
}
