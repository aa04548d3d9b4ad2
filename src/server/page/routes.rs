//! The routes of the pages: what is asked, and which page or piece of one it is.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::ORIGIN;
use axum::http::request::Parts;
use axum::response::{Html, IntoResponse, Redirect, Response};
use serde::{Deserialize, Serialize};

use super::layout::Sorry;
use super::source::Action;
use super::window::{LINES_MAX, Look, Window};
use super::{Pages, build, delivery, list, search};
use crate::builds::build::{Build, BuildId, Phase};
use crate::builds::delivery::DeliveryId;
use crate::builds::log::LogId;
use crate::clock::wall_now_ms;
use crate::pipeline::search::{HITS_DEFAULT, Query, Question};
use crate::protocol::error::{RpcError, code};
use crate::server::convert::invalid;
use crate::server::http::asking::{Asker, number};
use crate::server::http::builds::phases;
use crate::server::http::problem::{Asked, Named, Refusal, not_found};
use crate::store::builds::BuildFilter;

/// Builds on one page of the list.
const BUILDS_PER_PAGE: usize = 50;
/// How long a page waits for a log to grow before it is told that it did not.
const WAIT_FOR_GROWTH: Duration = Duration::from_secs(20);
/// How long a page waits for the errors of its log; later the script asks for them.
const WAIT_FOR_OUTLINE: Duration = Duration::from_millis(150);

/// The pages, where there are builds.
pub struct At(Arc<Pages>);

impl FromRequestParts<Option<Arc<Pages>>> for At {
    type Rejection = Sorry;

    async fn from_request_parts(_: &mut Parts, pages: &Option<Arc<Pages>>) -> Result<Self, Sorry> {
        let message = "this broker builds nothing: name a [[repository]] in its leasehold.toml";
        pages.clone().map(Self).ok_or_else(|| Sorry(Refusal(RpcError::new("not_found", message))))
    }
}

impl Pages {
    async fn build(&self, id: &str) -> Result<Build, Refusal> {
        let id = BuildId(number(id, "build")?);
        self.source.build(id).await?.ok_or_else(|| not_found(format!("build {id}")))
    }

    /// Which log is meant: an attempt's, or the last one's.
    async fn log(&self, id: &str, attempt: Option<u32>) -> Result<LogId, Refusal> {
        match attempt {
            Some(attempt) => Ok(LogId { build: BuildId(number(id, "build")?), attempt }),
            None => self.build(id).await.map(|build| LogId { build: build.id, attempt: build.attempt }),
        }
    }
}

/// Which builds of the list.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ListAsked {
    /// Of this repository; empty is any.
    pub repository: String,
    /// In this state; empty is any, `open` any that is not over.
    pub state: String,
    /// Below this number.
    pub before: Option<u64>,
}

impl ListAsked {
    fn phases(&self) -> Result<Vec<Phase>, Refusal> {
        match &*self.state {
            "" => Ok(Vec::new()),
            "open" => Ok(Phase::ALL.into_iter().filter(|phase| !phase.is_final()).collect()),
            words => phases(words),
        }
    }
}

/// `GET /builds`: the list.
pub async fn list(At(pages): At, Asked(asked): Asked<ListAsked>) -> Result<Html<String>, Sorry> {
    let filter = BuildFilter {
        repository: (!asked.repository.is_empty()).then(|| asked.repository.as_str().into()),
        phases: asked.phases()?,
        before: asked.before.map(BuildId),
        // One more tells whether there is a next page.
        limit: BUILDS_PER_PAGE + 1,
        ..BuildFilter::default()
    };
    let mut builds = pages.source.builds(&filter).await?;
    let more = builds.len() > BUILDS_PER_PAGE;
    builds.truncate(BUILDS_PER_PAGE);
    Ok(list::page(&asked, &pages.source.repositories(), &builds, more, wall_now_ms()))
}

/// Refuses what no page's form has sent. Every browser names the origin of a form that is posted, and admission
/// has compared it with the broker's own.
fn from_a_page(headers: &HeaderMap) -> Result<(), Refusal> {
    if headers.contains_key(ORIGIN) {
        return Ok(());
    }
    let message = "this route is for the forms of the pages, which say their `Origin`: programs use /v1";
    Err(Refusal(RpcError::new(code::NOT_ADMITTED, message)))
}

/// What to look for in all logs.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct SearchAsked {
    q: String,
    cursor: Option<String>,
}

/// `GET /builds/search`: lines of all logs.
pub async fn search(At(pages): At, Asked(asked): Asked<SearchAsked>) -> Result<Html<String>, Sorry> {
    if asked.q.trim().is_empty() {
        return Ok(search::page("", None));
    }
    let unknown = |()| Refusal(invalid("`cursor` is not one that this broker gave: begin at the first page"));
    let question = Question {
        query: Query::parse(&asked.q).map_err(|said| Refusal(invalid(format!("`q`: {said}"))))?,
        repository: None,
        pipeline: None,
        phases: Vec::new(),
        since_ms: None,
        limit: HITS_DEFAULT,
        cursor: asked.cursor.as_deref().map(str::parse).transpose().map_err(unknown)?,
    };
    let found = pages.source.search(&question).await?;
    Ok(search::page(&asked.q, Some(&found)))
}

/// Which part of a build's page.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct BuildAsked {
    /// Absent is the last attempt.
    pub attempt: Option<u32>,
    /// The first line of the window; absent is the last lines.
    pub from: Option<u64>,
    /// Words to look for, for readers without the script.
    pub q: String,
    /// Anything: only the head is wanted, without a log.
    pub head: Option<String>,
}

/// `GET /builds/{id}`: a build's page, with a window of its log.
pub async fn build(
    At(pages): At,
    Named(id): Named<String>,
    Asked(asked): Asked<BuildAsked>,
) -> Result<Html<String>, Sorry> {
    let build = pages.build(&id).await?;
    let notes = pages.source.notes(build.id).await?;
    let log = LogId { build: build.id, attempt: asked.attempt.unwrap_or(build.attempt) };
    let source = &*pages.source;
    let look = if asked.head.is_some() { None } else { Look::at(source, log).await? };
    let window = match (&look, asked.from) {
        (None, _) => Window::default(),
        (Some(look), None) => look.tail(source).await?,
        (Some(look), Some(from)) => look.from(source, from, LINES_MAX).await?,
    };
    let outline = match &look {
        Some(_) => tokio::time::timeout(WAIT_FOR_OUTLINE, pages.told(log)).await.ok().transpose()?.flatten(),
        None => None,
    };
    let found = match &look {
        Some(look) if !asked.q.is_empty() => Some(pages.found(look, &asked.q, 1).await?),
        _ => None,
    };
    let now_ms = wall_now_ms();
    let view = build::View {
        build: &build,
        notes: &notes,
        log,
        look: look.as_ref(),
        window: &window,
        is_tail: asked.from.is_none(),
        outline: outline.as_ref(),
        q: &asked.q,
        found: found.as_ref(),
        now_ms,
    };
    Ok(view.page())
}

/// Which lines.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct LinesAsked {
    attempt: Option<u32>,
    /// From 1.
    from: u64,
    count: Option<u64>,
    /// How long the asker knows the log to be: it wants to wait until that is different.
    known: Option<u64>,
}

/// Lines as rows.
#[derive(Debug, Serialize)]
struct LinesTold {
    from: u64,
    rows: Vec<String>,
    /// Lines of the log.
    lines: u64,
    /// Bytes of the log.
    bytes: u64,
    /// Whether more may come.
    more: bool,
}

/// `GET /builds/{id}/lines`: a window of rows, at once or when the log has grown.
pub async fn lines(
    At(pages): At,
    Named(id): Named<String>,
    Asked(asked): Asked<LinesAsked>,
) -> Result<Response, Refusal> {
    let log = pages.log(&id, asked.attempt).await?;
    let source = &*pages.source;
    if let Some(known) = asked.known
        && let Ok(_place) = pages.followers.try_acquire()
    {
        tokio::select! {
            grown = source.grown(log, known) => grown?,
            () = tokio::time::sleep(WAIT_FOR_GROWTH) => {}
            () = pages.closing.cancelled() => {}
        }
    }
    let look = Look::at(source, log).await?.ok_or_else(|| not_found(format!("log of build {} any more", log.build)))?;
    let window = look.from(source, asked.from, asked.count.unwrap_or(LINES_MAX)).await?;
    let (lines, bytes, more) = (look.status.lines, look.status.bytes, look.status.more());
    Ok(Json(LinesTold { from: window.from, rows: window.rows, lines, bytes, more }).into_response())
}

/// Which log, and what to look for in it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct LogAsked {
    attempt: Option<u32>,
    q: String,
    from: u64,
}

impl Pages {
    async fn told(&self, log: LogId) -> Result<Option<super::outline::Told>, Refusal> {
        let Ok(_turn) = self.scans.acquire().await else { return Ok(None) };
        self.outlines.of(&*self.source, log).await
    }

    async fn found(&self, look: &Look, q: &str, from: u64) -> Result<super::find::Found, Refusal> {
        let Ok(_turn) = self.scans.acquire().await else { return Ok(super::find::Found::default()) };
        super::find::find(&*self.source, look.log, &look.status, q, from).await
    }
}

/// `GET /builds/{id}/outline`: groups and marks.
pub async fn outline(
    At(pages): At,
    Named(id): Named<String>,
    Asked(asked): Asked<LogAsked>,
) -> Result<Response, Refusal> {
    let log = pages.log(&id, asked.attempt).await?;
    let told = pages.told(log).await?.ok_or_else(|| not_found(format!("log of build {} any more", log.build)))?;
    Ok(Json(told).into_response())
}

/// `GET /builds/{id}/find`: which lines have a text.
pub async fn find(At(pages): At, Named(id): Named<String>, Asked(asked): Asked<LogAsked>) -> Result<Response, Refusal> {
    let log = pages.log(&id, asked.attempt).await?;
    let look = Look::at(&*pages.source, log).await?;
    let look = look.ok_or_else(|| not_found(format!("log of build {} any more", log.build)))?;
    Ok(Json(pages.found(&look, &asked.q, asked.from).await?).into_response())
}

/// `GET /builds/{id}/cancel`: asks whether that is meant.
pub async fn confirm_cancel(At(pages): At, Named(id): Named<String>) -> Result<Html<String>, Sorry> {
    Ok(build::confirm_cancel(&pages.build(&id).await?))
}

/// `POST /builds/{id}/cancel`.
pub async fn cancel(at: At, id: Named<String>, asker: Asker, headers: HeaderMap) -> Result<Redirect, Sorry> {
    act(at, id, asker, &headers, Action::Cancel).await
}

/// `POST /builds/{id}/retry`.
pub async fn retry(at: At, id: Named<String>, asker: Asker, headers: HeaderMap) -> Result<Redirect, Sorry> {
    act(at, id, asker, &headers, Action::Retry).await
}

/// `POST /builds/{id}/approve`.
pub async fn approve(at: At, id: Named<String>, asker: Asker, headers: HeaderMap) -> Result<Redirect, Sorry> {
    act(at, id, asker, &headers, Action::Approve).await
}

/// `GET /deliveries/{id}`: what a forge delivered, and what came of it.
pub async fn delivery(At(pages): At, Named(id): Named<String>) -> Result<Html<String>, Sorry> {
    let (delivery, trouble) = pages.source.delivery(DeliveryId(number(&id, "delivery")?)).await?;
    Ok(delivery::page(&delivery, trouble.as_deref(), wall_now_ms()))
}

/// `POST /deliveries/{id}/redeliver`.
pub async fn redeliver(At(pages): At, Named(id): Named<String>, headers: HeaderMap) -> Result<Redirect, Sorry> {
    from_a_page(&headers)?;
    let again = pages.source.redeliver(DeliveryId(number(&id, "delivery")?)).await?;
    Ok(Redirect::to(&format!("/deliveries/{}", again.0)))
}

/// Does what a form on a page asks for, and goes back to the page.
async fn act(
    At(pages): At,
    Named(id): Named<String>,
    asker: Asker,
    headers: &HeaderMap,
    action: Action,
) -> Result<Redirect, Sorry> {
    from_a_page(headers)?;
    let id = BuildId(number(&id, "build")?);
    let shown = pages.source.act(id, action, &asker.by()).await?;
    Ok(Redirect::to(&format!("/builds/{}", shown.0)))
}
