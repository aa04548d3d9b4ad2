//! Builds: what people ask of them, and what their agents do.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;

use super::asking::{Asker, number};
use super::problem::{Asked, Named, Refusal, Sent};
use crate::builds::book::{Finished, Report};
use crate::builds::build::{Build, BuildId, Cause, LogEnd, Phase, Pick};
use crate::builds::change::Note;
use crate::builds::happening::Sha;
use crate::builds::log::LogId;
use crate::core::session::OpenRequest;
use crate::core::types::SessionId;
use crate::pipeline::Pipeline;
use crate::pipeline::logs::FinishError;
use crate::protocol::builds::{
    BuildApprove, BuildCancel, BuildInfo, BuildPage, BuildPick, BuildReport, BuildStart, BuildTake, BuildsStarted, Job,
    LogEndInfo, NoteInfo, Reported, WORK_WAIT_MS_MAX, WorkInfo,
};
use crate::protocol::error::{RpcError, code};
use crate::server::convert::{cut, invalid, key_hash};
use crate::server::limits::{PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX};
use crate::server::shared::{App, Shared};
use crate::store::Reader;
use crate::store::builds::BuildFilter;

/// Characters of what people or agents say for a history.
const WORDS_CHARS_MAX: usize = 500;
/// Characters of an agent's name.
const AGENT_BYTES_MAX: usize = 256;

/// The routes of builds.
pub fn routes<R: Reader>() -> Router<App<R>> {
    Router::new()
        .route("/v1/builds", get(list).post(start))
        .route("/v1/builds/{id}", get(show))
        .route("/v1/builds/{id}/cancel", post(cancel))
        .route("/v1/builds/{id}/retry", post(retry))
        .route("/v1/builds/{id}/approve", post(approve))
        .route("/v1/builds/{id}/take", post(take))
        .route("/v1/builds/{id}/report", post(report))
        .route("/v1/agents/{name}/work", get(work))
}

/// Which builds.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Which {
    repository: Option<String>,
    pipeline: Option<String>,
    /// Phases with commas between them.
    state: Option<String>,
    before: Option<u64>,
    limit: Option<usize>,
}

/// `GET /v1/builds?repository=&pipeline=&state=&before=&limit=`.
async fn list(State(shared): State<Arc<Shared>>, Asked(which): Asked<Which>) -> Result<Json<BuildPage>, Refusal> {
    let limit = which.limit.unwrap_or(PAGE_ITEMS_DEFAULT).clamp(1, PAGE_ITEMS_MAX);
    let filter = BuildFilter {
        repository: which.repository.map(Arc::from),
        pipeline: which.pipeline.map(Arc::from),
        phases: which.state.as_deref().map(phases).transpose()?.unwrap_or_default(),
        before: which.before.map(BuildId),
        limit,
    };
    let found = shared.pipeline()?.conductor.builds(&filter).await?;
    let next = (found.len() == limit).then(|| found.last().map(|last| last.id.0)).flatten();
    Ok(Json(BuildPage { items: found.iter().map(|build| info(build, &[])).collect(), next }))
}

/// Phases by their words, with commas between them.
pub(in crate::server) fn phases(text: &str) -> Result<Vec<Phase>, Refusal> {
    let phase = |word: &str| {
        Phase::ALL.into_iter().find(|phase| phase.as_str() == word).ok_or_else(|| {
            let known: Vec<&str> = Phase::ALL.iter().map(|phase| phase.as_str()).collect();
            Refusal(invalid(format!("`state` has `{}`: expected some of {}", cut(word), known.join(", "))))
        })
    };
    text.split(',').map(str::trim).map(phase).collect()
}

fn build_id(text: &str) -> Result<BuildId, Refusal> {
    Ok(BuildId(number(text, "build")?))
}

/// `GET /v1/builds/{id}`.
async fn show(State(shared): State<Arc<Shared>>, Named(id): Named<String>) -> Result<Json<BuildInfo>, Refusal> {
    shown(&shared, build_id(&id)?).await.map(Json)
}

async fn shown(shared: &Shared, id: BuildId) -> Result<BuildInfo, Refusal> {
    let conductor = &shared.pipeline()?.conductor;
    let build = conductor.build(id).await?;
    let build = build.ok_or_else(|| RpcError::new("not_found", format!("there is no build {id}")))?;
    let notes = conductor.notes(id).await?;
    let claim = match build.session.filter(|_| build.phase == Phase::Queued) {
        Some(session) => claim(shared, SessionId(session)).await?,
        None => None,
    };
    let trouble = conductor.status_trouble(&build).await?;
    Ok(BuildInfo { claim, status_trouble: trouble.as_deref().map(str::to_owned), ..info(&build, &notes) })
}

/// The claim that a build's session waits with.
async fn claim(shared: &Shared, session: SessionId) -> Result<Option<u64>, Refusal> {
    let read = shared.handle.read(move |view| {
        let requests = view.state.sessions.get(&session).map(|session| &session.requests.open)?;
        requests.values().find_map(|request| match request {
            OpenRequest::Claim(claim) => Some(claim.0),
            OpenRequest::Lease(_) => None,
        })
    });
    Ok(read.await?)
}

/// `POST /v1/builds`.
async fn start(
    State(shared): State<Arc<Shared>>,
    asker: Asker,
    Sent(asked): Sent<BuildStart>,
) -> Result<Json<BuildsStarted>, Refusal> {
    let builds = shared.pipeline()?.conductor.begin(&asked, asker.by()).await?;
    Ok(Json(BuildsStarted { builds: builds.iter().map(|id| id.0).collect() }))
}

/// `POST /v1/builds/{id}/cancel`.
async fn cancel(
    State(shared): State<Arc<Shared>>,
    Named(id): Named<String>,
    asker: Asker,
    Sent(asked): Sent<BuildCancel>,
) -> Result<Json<BuildInfo>, Refusal> {
    let pipeline = shared.pipeline()?;
    let id = build_id(&id)?;
    let reason = asked.reason.as_deref().map(words).filter(|words| !words.is_empty());
    pipeline.conductor.cancel(id, reason, asker.by()).await?;
    shown(&shared, id).await.map(Json)
}

/// `POST /v1/builds/{id}/retry`.
async fn retry(
    State(shared): State<Arc<Shared>>,
    Named(id): Named<String>,
    asker: Asker,
) -> Result<Json<BuildsStarted>, Refusal> {
    let started = shared.pipeline()?.conductor.retry(build_id(&id)?, asker.by()).await?;
    Ok(Json(BuildsStarted { builds: vec![started.0] }))
}

/// `POST /v1/builds/{id}/approve`.
async fn approve(
    State(shared): State<Arc<Shared>>,
    Named(id): Named<String>,
    asker: Asker,
    Sent(asked): Sent<BuildApprove>,
) -> Result<Json<BuildInfo>, Refusal> {
    let pipeline = shared.pipeline()?;
    let id = build_id(&id)?;
    let sha = asked.sha.as_deref().map(|text| {
        Sha::parse(text).ok_or_else(|| invalid(format!("`sha` is `{}`: expected a commit's full name", cut(text))))
    });
    pipeline.conductor.approve(id, sha.transpose()?, asker.by()).await?;
    shown(&shared, id).await.map(Json)
}

/// How long to wait for work.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Patience {
    wait_ms: Option<u64>,
}

/// `GET /v1/agents/{name}/work?wait_ms=`.
async fn work(
    State(shared): State<Arc<Shared>>,
    Named(agent): Named<String>,
    Asked(patience): Asked<Patience>,
) -> Result<Json<WorkInfo>, Refusal> {
    let wait = Duration::from_millis(patience.wait_ms.unwrap_or(0).min(WORK_WAIT_MS_MAX));
    let conductor = &shared.pipeline()?.conductor;
    let builds = tokio::select! {
        builds = conductor.work(&agent, wait) => builds?,
        () = shared.closing.cancelled() => Vec::new(),
    };
    Ok(Json(WorkInfo { builds: builds.iter().map(|id| id.0).collect() }))
}

/// `POST /v1/builds/{id}/take`.
async fn take(
    State(shared): State<Arc<Shared>>,
    Named(id): Named<String>,
    Sent(asked): Sent<BuildTake>,
) -> Result<Json<Job>, Refusal> {
    if asked.agent.is_empty() || asked.agent.len() > AGENT_BYTES_MAX {
        return Err(Refusal(invalid("`agent` is missing: say the name of the executor that has the build")));
    }
    let key = key_hash(&asked.key)?.0;
    Ok(Json(shared.pipeline()?.conductor.take(build_id(&id)?, asked.agent.as_str().into(), key).await?))
}

/// `POST /v1/builds/{id}/report` under the taker's key.
async fn report(
    State(shared): State<Arc<Shared>>,
    Named(id): Named<String>,
    asker: Asker,
    Sent(asked): Sent<BuildReport>,
) -> Result<Json<BuildInfo>, Refusal> {
    let pipeline = shared.pipeline()?;
    let id = build_id(&id)?;
    let key = asker.needed_key()?.0;
    let what = match asked.what {
        Reported::Running => Report::Running,
        Reported::Finished { result, exit_code, message, log } => {
            let result = finished(&result)?;
            let message = message.as_deref().map(words).filter(|words| !words.is_empty());
            let told = LogEnd { bytes: log.bytes, lines: log.lines, sha256: log.sha256.into() };
            let log = log_end(pipeline, id, asked.attempt, &key, told).await?;
            Report::Finished { result, exit_code, message, log }
        }
    };
    let build = pipeline.conductor.report(id, asked.attempt, key, what).await?;
    Ok(Json(info(&build, &[])))
}

fn finished(word: &str) -> Result<Finished, Refusal> {
    match word {
        "passed" => Ok(Finished::Passed),
        "failed" => Ok(Finished::Failed),
        "timed_out" => Ok(Finished::TimedOut),
        "stopped" => Ok(Finished::Stopped),
        "lost" => Ok(Finished::Lost),
        other => Err(Refusal(invalid(format!(
            "`result` is `{}`: expected passed, failed, timed_out, stopped or lost",
            cut(other)
        )))),
    }
}

/// Ends the log by what its agent counted. Where something else came than that, what came is what there is.
async fn log_end(pipeline: &Pipeline, id: BuildId, attempt: u32, key: &str, told: LogEnd) -> Result<LogEnd, Refusal> {
    let build = pipeline.conductor.build(id).await?;
    let own = build.is_some_and(|build| build.attempt == attempt && build.key_hash.as_deref() == Some(key));
    if !own {
        let message = format!("attempt {attempt} of build {id} is over, or another agent's: stop it");
        return Err(Refusal(RpcError::new("attempt_over", message)));
    }
    match pipeline.logs.finish(LogId { build: id, attempt }, &told).await {
        Ok(()) => Ok(told),
        Err(FinishError::Differs { ours }) => {
            tracing::warn!(build = id.0, attempt, "the log that came is not what its agent counted");
            Ok(ours)
        }
        Err(FinishError::Short { stored, told }) => Err(Refusal(RpcError::new(
            "log_short",
            format!("{stored} of the log's {told} bytes have come: send the rest, then say this again"),
        ))),
        Err(FinishError::Failed(error)) => {
            tracing::warn!(%error, build = id.0, "a log could not be ended");
            Err(Refusal(RpcError::new(code::UNAVAILABLE, "the log cannot be written now: say this again")))
        }
    }
}

/// What people say, for a history: on one line, and not for ever.
fn words(text: &str) -> Arc<str> {
    let line = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c });
    line.take(WORDS_CHARS_MAX).collect::<String>().into()
}

/// A build as the wire has it.
pub(in crate::server) fn info(build: &Build, notes: &[Note]) -> BuildInfo {
    let times = &build.times;
    let ends_early = |to: Phase| matches!(to, Phase::Cancelled | Phase::Superseded);
    let ending = build.ending.as_ref().filter(|_| !build.phase.is_final());
    BuildInfo {
        build: build.id.0,
        repository: build.repository.to_string(),
        pipeline: build.plan.name.to_string(),
        line: build.subject.line.to_string(),
        sha: build.subject.sha.to_string(),
        title: build.subject.title.as_deref().map(str::to_owned),
        fork: build.subject.fork,
        state: build.phase.as_str().to_owned(),
        reason: build.reason.as_deref().map(str::to_owned),
        ending: ending.filter(|ending| ends_early(ending.to)).map(|ending| ending.to.as_str().to_owned()),
        cause: match &build.cause {
            Cause::Delivery { delivery } => format!("delivery {}", delivery.0),
            Cause::Asked => "asked".to_owned(),
            Cause::Retry { of } => format!("retry of {of}"),
        },
        by: build.by.to_string(),
        attempt: build.attempt,
        lease: build.lease,
        claim: None,
        agent: build.agent.as_deref().map(str::to_owned),
        resources: build.picks.iter().map(pick).collect(),
        exit_code: build.exit_code,
        superseded_by: build.ending.as_ref().and_then(|ending| ending.superseded_by).map(|id| id.0),
        approved_by: build.approved_by.as_deref().map(str::to_owned),
        created_ms: times.created_ms,
        queued_ms: times.queued_ms,
        prepared_ms: times.prepared_ms,
        begun_ms: times.begun_ms,
        ended_ms: times.ended_ms,
        needs: build.plan.needs.clone(),
        log: build.log.as_ref().map(|log| LogEndInfo {
            bytes: log.bytes,
            lines: log.lines,
            sha256: log.sha256.to_string(),
        }),
        status_trouble: None,
        history: notes.iter().map(note).collect(),
    }
}

fn pick(pick: &Pick) -> BuildPick {
    let Pick { alias, pool, name, slots } = pick;
    BuildPick { alias: alias.to_string(), pool: pool.to_string(), name: name.to_string(), slots: *slots }
}

fn note(note: &Note) -> NoteInfo {
    NoteInfo {
        at_ms: note.at_ms,
        state: note.phase.as_str().to_owned(),
        attempt: note.attempt,
        what: note.what.to_string(),
        by: note.by.to_string(),
    }
}
