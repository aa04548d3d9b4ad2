//! The queue, its claims, the sessions, and why things are as they are.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::asking::{Asker, Paging, Timed, number};
use super::leases::{self, Waiting, unexpected};
use super::problem::{Asked, Named, Refusal, not_found, store_failed};
use crate::core::command::{Claimant, Command};
use crate::core::tables::JournalFilter;
use crate::core::types::{ClaimId, LeaseId, SessionId};
use crate::engine::input::Told;
use crate::engine::query::{listing, why};
use crate::protocol::call::Done;
use crate::protocol::info::{ClaimInfo, Page, SessionInfo, WaitingInfo, WhyInfo};
use crate::server::convert;
use crate::server::limits::EVENTS_PER_READ_MAX;
use crate::server::shared::{App, Shared};
use crate::store::Reader;

/// `GET /v1/queue`.
pub async fn queue(
    State(shared): State<Arc<Shared>>,
    Asked(paging): Asked<Paging>,
) -> Result<Json<Page<WaitingInfo>>, Refusal> {
    let part = paging.part();
    Ok(Json(shared.handle.read(move |view| listing::queue(view, &part)).await?))
}

/// `GET /v1/claims/{id}`: under its key how it stands, waiting for a while; else as the queue
/// sees it.
pub async fn claim(
    State(shared): State<Arc<Shared>>,
    Named(id): Named<String>,
    asker: Asker,
    Asked(waiting): Asked<Waiting>,
) -> Result<Json<ClaimInfo>, Refusal> {
    let id = number(&id, "claim")?;
    if asker.key.is_some() {
        return Ok(Json(leases::ask(&shared, &asker, id, &waiting).await?));
    }
    let found = shared.handle.read(move |view| listing::claim(view, ClaimId(id))).await?;
    found.map(Json).ok_or_else(|| {
        not_found(format!("claim {id} that waits or is held: `leasehold why claim:{id}` says what became of it"))
    })
}

/// `POST /v1/claims/{id}/cancel`.
pub async fn cancel(
    State(shared): State<Arc<Shared>>,
    Named(id): Named<String>,
    asker: Asker,
) -> Result<Json<Done>, Refusal> {
    let claim = ClaimId(number(&id, "claim")?);
    // Without tokens everybody admitted may do what an admin may.
    let claimant = Claimant { admin: true, ..asker.claimant() };
    done(shared.handle.command(Command::CancelClaim { claim, claimant }).await?)
}

/// `GET /v1/sessions`.
pub async fn sessions(
    State(shared): State<Arc<Shared>>,
    Asked(paging): Asked<Paging>,
) -> Result<Json<Page<SessionInfo>>, Refusal> {
    let (after, limit) = (paging.after()?, paging.limit());
    Ok(Json(shared.handle.read(move |view| listing::sessions(view, after, limit)).await?))
}

/// `POST /v1/sessions/{id}/kick`.
pub async fn kick(
    State(shared): State<Arc<Shared>>,
    Named(id): Named<String>,
    asker: Asker,
) -> Result<Json<Done>, Refusal> {
    let session = SessionId(number(&id, "session")?);
    done(shared.handle.command(Command::Kick { session, by: asker.by() }).await?)
}

fn done(told: Told) -> Result<Json<Done>, Refusal> {
    match told {
        Told::Done(done) => Ok(Json(done)),
        told => Err(unexpected(&told)),
    }
}

/// `GET /v1/why/{claim|lease|resource}/{id}`.
pub async fn why<R: Reader>(
    State(app): State<App<R>>,
    Named((kind, id)): Named<(String, String)>,
) -> Result<Json<Timed<WhyInfo>>, Refusal> {
    match kind.as_str() {
        "claim" => why_claim(&app, ClaimId(number(&id, "claim")?)).await.map(Json),
        "lease" => why_lease(&app, LeaseId(number(&id, "lease")?)).await.map(Json),
        "resource" => {
            let name = convert::resource_name(&id)?;
            let asked = name.clone();
            let found = app.shared.handle.read(move |view| {
                let resource = view.state.names.get(&name).map(|id| view.state.resource(*id))?;
                Some(Timed::new(why::resource(view, resource), &view.clock))
            });
            found.await?.map(Json).ok_or_else(|| super::resources::no_resource(&asked))
        }
        other => Err(not_found(format!("`{}` to ask why of: expected claim, lease or resource", convert::cut(other)))),
    }
}

async fn why_claim<R: Reader>(app: &App<R>, id: ClaimId) -> Result<Timed<WhyInfo>, Refusal> {
    let (found, clock) = app.shared.handle.read(move |view| (why::claim(view, id), view.clock)).await?;
    if let Some(found) = found {
        return Ok(Timed::new(found, &clock));
    }
    let filter = JournalFilter { claim: Some(id), limit: EVENTS_PER_READ_MAX, ..JournalFilter::default() };
    let events = app.reader.journal(&filter).await.map_err(|error| store_failed(&error))?;
    let past = why::past_claim(id, &events, &clock);
    past.map(|past| Timed::new(past, &clock)).ok_or_else(|| not_found(format!("claim {}, now or in the journal", id.0)))
}

async fn why_lease<R: Reader>(app: &App<R>, id: LeaseId) -> Result<Timed<WhyInfo>, Refusal> {
    let (found, clock) = app.shared.handle.read(move |view| (why::lease(view, id), view.clock)).await?;
    match found {
        Some(found) => Ok(Timed::new(found, &clock)),
        None => Ok(Timed::new(why::past_lease(&leases::past(&app.reader, id).await?, &clock), &clock)),
    }
}
