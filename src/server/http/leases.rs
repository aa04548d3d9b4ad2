//! Leases: the listing, what is done to one, and leases without a socket.
//!
//! A lease without a socket lives by the key in its header: every request under it is a sign of
//! life as of when it was received, however long the broker then takes to answer.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::sync::watch;

use super::asking::{Asker, Paging, Timed, number};
use super::problem::{Asked, Named, Refusal, Sent, not_found, problem, store_failed};
use crate::core::command::Command;
use crate::core::limits::TTL_MS_HTTP_DEFAULT;
use crate::core::refusal::Code;
use crate::core::session::SecretHash;
use crate::core::tables::PastLease;
use crate::core::types::LeaseId;
use crate::engine::handle::Health;
use crate::engine::input::{ClaimTold, KeyedCall, Told};
use crate::engine::query::{lease_end_words, listing, past_lease_info};
use crate::protocol::call::{Done, LeaseExtended, LeaseReleased, SessionRenewed};
use crate::protocol::error::{Problem, RpcError, code};
use crate::protocol::http::{ExtendRequest, LeaseRequest, ReleaseRequest, RevokeRequest};
use crate::protocol::info::{ClaimInfo, EndInfo, LeaseInfo, Page};
use crate::protocol::rpc::Id;
use crate::server::convert;
use crate::server::hand_out::hand_out;
use crate::server::shared::{App, Shared};
use crate::store::Reader;

/// How often a waiting request is looked at, at most: every batch would be too often.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Which leases.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Which {
    /// Ended ones too, newest first.
    all: bool,
    cursor: Option<String>,
    limit: Option<usize>,
}

/// `GET /v1/leases?cursor=&limit=&all=`.
pub async fn list<R: Reader>(
    State(app): State<App<R>>,
    Asked(which): Asked<Which>,
) -> Result<Json<Page<LeaseInfo>>, Refusal> {
    let paging = Paging { cursor: which.cursor, limit: which.limit };
    let (after, limit) = (paging.after()?, paging.limit());
    if !which.all {
        return Ok(Json(app.shared.handle.read(move |view| listing::leases(view, after, limit)).await?));
    }
    let before = paging.cursor.is_some().then_some(LeaseId(after));
    let past = app.reader.leases(before, limit).await.map_err(|error| store_failed(&error))?;
    let clock = app.shared.handle.read(|view| view.clock).await?;
    let next = (past.len() == limit).then(|| past.last().map(|last| last.lease.id.to_string())).flatten();
    let items = past.iter().map(|past| past_lease_info(past, &clock)).collect();
    Ok(Json(listing::page(items, next, &clock)))
}

/// `GET /v1/leases/{id}`, held or ended.
pub async fn show<R: Reader>(
    State(app): State<App<R>>,
    Named(id): Named<String>,
) -> Result<Json<Timed<LeaseInfo>>, Refusal> {
    let id = LeaseId(number(&id, "lease")?);
    let (held, clock) = app
        .shared
        .handle
        .read(move |view| (view.state.leases.get(&id).map(|lease| listing::listed_lease(view, lease)), view.clock))
        .await?;
    let info = match held {
        Some(held) => held,
        None => past_lease_info(&past(&app.reader, id).await?, &clock),
    };
    Ok(Json(Timed::new(info, &clock)))
}

/// A lease that is not on the books, from the store.
pub async fn past<R: Reader>(reader: &R, id: LeaseId) -> Result<PastLease, Refusal> {
    let past = reader.lease(id).await.map_err(|error| store_failed(&error))?;
    past.ok_or_else(|| not_found(format!("lease {id}: `leasehold lease ls --all` lists those there are and were")))
}

/// How long to wait for an answer at most.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Waiting {
    /// Milliseconds; a third of the ttl is the most.
    #[serde(alias = "wait")]
    wait_ms: Option<u64>,
}

/// `POST /v1/leases`: 201 with the lease, 202 with where to ask again, or the problem.
pub async fn acquire(
    State(shared): State<Arc<Shared>>,
    asker: Asker,
    Asked(waiting): Asked<Waiting>,
    Sent(request): Sent<LeaseRequest>,
) -> Result<Response, Refusal> {
    let key = asker.needed_key()?;
    let request_id = match &request.claim.request_id {
        Some(Id::Text(text)) => convert::text_id("request_id", text)?,
        Some(Id::Number(number)) => number.to_string().into(),
        None => return Err(Refusal(convert::invalid("`request_id` is missing: give the request a name of your own"))),
    };
    let owner = match &request.owner {
        Some(name) => convert::owner(Some(name), IpAddr::V4(Ipv4Addr::UNSPECIFIED))?,
        None => asker.owner.clone(),
    };
    let ttl_ms = convert::ttl_ms(request.ttl_ms.unwrap_or(TTL_MS_HTTP_DEFAULT))?;
    let spec = Arc::new(convert::claim_spec(&request.claim)?);
    let call = KeyedCall::Acquire { request_id, owner, ttl_ms, spec };
    let health = watched(&shared);
    let told = shared.handle.keyed(asker.at, key.clone(), call).await?;
    let claim = stands(&shared, &asker, &key, claim_of(told)?, health, patience(ttl_ms, &waiting)).await?;
    Ok(match (claim.lease, claim.end) {
        (Some(lease), _) => (StatusCode::CREATED, Json(Timed::at(lease, claim.now, claim.now_time))).into_response(),
        (None, Some(end)) => ended(&end),
        (None, None) => {
            let place = format!("/v1/claims/{}", claim.claim);
            let place = HeaderValue::from_str(&place).expect("a number is a header's text");
            (StatusCode::ACCEPTED, [(LOCATION, place)], Json(ClaimInfo { lease: None, end: None, ..claim }))
                .into_response()
        }
    })
}

fn patience(ttl_ms: u64, waiting: &Waiting) -> Duration {
    Duration::from_millis(waiting.wait_ms.unwrap_or(u64::MAX).min(ttl_ms / 3))
}

/// The engine's health with everything so far seen: taken before the first look at a claim, so
/// that what changes after it is noticed.
fn watched(shared: &Shared) -> watch::Receiver<Health> {
    let mut health = shared.handle.health();
    health.borrow_and_update();
    health
}

/// Waits until a claim no longer waits, or patience or the broker ends, and hands out.
async fn stands(
    shared: &Shared,
    asker: &Asker,
    key: &SecretHash,
    mut told: Box<ClaimTold>,
    mut health: watch::Receiver<Health>,
    patience: Duration,
) -> Result<ClaimInfo, Refusal> {
    let wait = async {
        while told.info.state == "queued" && !health.borrow().stopping {
            if health.changed().await.is_err() {
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
            // As of when the request came: waiting for it is no sign of the client's life.
            told = claim_of(shared.handle.keyed(asker.at, key.clone(), KeyedCall::Ask).await?)?;
        }
        Ok::<_, Refusal>(told.clone())
    };
    let latest = tokio::select! {
        stands = tokio::time::timeout(patience, wait) => stands.ok().transpose()?,
        () = shared.closing.cancelled() => None,
    };
    let mut told = latest.unwrap_or(told);
    let refs = std::mem::take(&mut told.secrets);
    hand_out(&shared.handle, &mut told.info, refs).await;
    Ok(told.info)
}

/// `GET /v1/claims/{id}` under its key: how it stands, waiting as [`acquire`] does.
pub async fn ask(shared: &Shared, asker: &Asker, id: u64, waiting: &Waiting) -> Result<ClaimInfo, Refusal> {
    let key = asker.needed_key()?;
    let health = watched(shared);
    let told = claim_of(shared.handle.keyed(asker.at, key.clone(), KeyedCall::Ask).await?)?;
    if told.info.claim != 0 && told.info.claim != id {
        return Err(not_found(format!("claim {id} under this key")));
    }
    let hash = key.clone();
    let ttl_ms = shared
        .handle
        .read(move |view| {
            let session = view.state.keys.get(&hash).and_then(|id| view.state.sessions.get(id));
            session.map_or(0, |session| session.ttl_ms)
        })
        .await?;
    stands(shared, asker, &key, told, health, patience(ttl_ms, waiting)).await
}

fn claim_of(told: Told) -> Result<Box<ClaimTold>, Refusal> {
    match told {
        Told::Claim(told) => Ok(told),
        told => Err(unexpected(&told)),
    }
}

/// The engine answered something else than was asked: a defect, told without its insides.
pub fn unexpected(told: &Told) -> Refusal {
    tracing::error!(?told, "the engine answered something else than was asked");
    Refusal(RpcError::new(code::UNAVAILABLE, "the broker answered itself wrongly: please report this"))
}

/// A claim that ended is a problem to whoever wanted a lease.
fn ended(end: &EndInfo) -> Response {
    let mut error = RpcError::new(&end.code, end.message.clone());
    error.data.need.clone_from(&end.need);
    let was_held = ["released", "session_closed", "session_expired", "dropped", "hold_ended", "revoked", "kicked"];
    let status = if was_held.contains(&end.code.as_str()) { 410 } else { error.http_status() };
    problem(Problem { status, ..Problem::from(&error) })
}

/// Whose a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyOf {
    /// A lease without a socket, waited for, held or remembered.
    Keyed,
    /// The session, on a socket, that holds the lease.
    Socket,
    /// Nobody known: of a lease that is not held nothing can be said.
    Nobody,
}

/// Whose a key is; one that does not fit a held lease is refused.
async fn key_of(shared: &Shared, id: LeaseId, key: &SecretHash) -> Result<KeyOf, Refusal> {
    let key = key.clone();
    let fits = shared
        .handle
        .read(move |view| {
            let session = view.state.leases.get(&id).and_then(|lease| view.state.sessions.get(&lease.session));
            if session.is_some_and(|session| session.secret != key) {
                return None;
            }
            let keyed = view.state.keys.contains_key(&key) || view.state.keyed.contains_key(&key);
            Some(match session {
                _ if keyed => KeyOf::Keyed,
                Some(_) => KeyOf::Socket,
                None => KeyOf::Nobody,
            })
        })
        .await?;
    fits.ok_or_else(|| Refusal(RpcError::new("forbidden", format!("that is not the key of lease {id}"))))
}

/// `POST /v1/leases/{id}/renew`, under its key.
pub async fn renew(
    State(shared): State<Arc<Shared>>,
    Named(id): Named<String>,
    asker: Asker,
) -> Result<Json<SessionRenewed>, Refusal> {
    let id = LeaseId(number(&id, "lease")?);
    let key = asker.needed_key()?;
    if key_of(&shared, id, &key).await? == KeyOf::Socket {
        return Err(Refusal(RpcError::new("forbidden", "a lease on a socket is renewed there: `session.renew`")));
    }
    match shared.handle.keyed(asker.at, key, KeyedCall::Renew).await? {
        Told::Renewed(renewed) => Ok(Json(renewed)),
        told => Err(unexpected(&told)),
    }
}

/// `POST /v1/leases/{id}/extend`, under its key or by its owner.
pub async fn extend<R: Reader>(
    State(app): State<App<R>>,
    Named(id): Named<String>,
    asker: Asker,
    Sent(request): Sent<ExtendRequest>,
) -> Result<Json<LeaseExtended>, Refusal> {
    let id = LeaseId(number(&id, "lease")?);
    let until = convert::moment("until", request.until)?;
    let told = match &asker.key {
        Some(key) if key_of(&app.shared, id, key).await? == KeyOf::Keyed => {
            app.shared.handle.keyed(asker.at, key.clone(), KeyedCall::Extend { until }).await?
        }
        _ => app.shared.handle.command(Command::Extend { lease: id, claimant: asker.claimant(), until }).await?,
    };
    match told {
        Told::Lease(lease) => Ok(Json(*lease)),
        Told::NotHeld(id) => {
            let released = how_it_ended(&app, id).await?;
            let message = format!("lease {id} has ended: {}", released.message);
            Err(Refusal(RpcError::new(Code::LeaseEnded.as_str(), message)))
        }
        told => Err(unexpected(&told)),
    }
}

/// What became of a lease: released now, or ended before.
async fn how_it_ended<R: Reader>(app: &App<R>, id: LeaseId) -> Result<LeaseReleased, Refusal> {
    let past = past(&app.reader, id).await?;
    let clock = app.shared.handle.read(|view| view.clock).await?;
    let (why, message) = match &past.ended {
        Some(ended) => lease_end_words(&ended.end),
        None => return Err(Refusal(RpcError::new(code::UNAVAILABLE, format!("lease {id} is changing: ask again")))),
    };
    Ok(LeaseReleased { lease: id.0, why, message, now: clock.now.0, now_time: clock.now_time() })
}

/// `POST /v1/leases/{id}/release`: by its key, its session's secret, or its owner.
pub async fn release<R: Reader>(
    State(app): State<App<R>>,
    Named(id): Named<String>,
    asker: Asker,
    Sent(request): Sent<ReleaseRequest>,
) -> Result<Json<LeaseReleased>, Refusal> {
    let lease = LeaseId(number(&id, "lease")?);
    let outcome = convert::outcome(request.outcome.as_deref())?;
    let command = Command::Release { lease, claimant: asker.claimant(), outcome };
    match app.shared.handle.command(command).await? {
        Told::Released(released) => Ok(Json(released)),
        Told::NotHeld(id) => Ok(Json(how_it_ended(&app, id).await?)),
        told => Err(unexpected(&told)),
    }
}

/// `POST /v1/leases/{id}/revoke`.
pub async fn revoke<R: Reader>(
    State(app): State<App<R>>,
    Named(id): Named<String>,
    asker: Asker,
    Sent(request): Sent<RevokeRequest>,
) -> Result<Response, Refusal> {
    let lease = LeaseId(number(&id, "lease")?);
    let reason = super::resources::reason(request.reason)?;
    let command = Command::Revoke { lease, by: asker.by(), reason, forced: request.force };
    match app.shared.handle.command(command).await? {
        Told::Done(done) => Ok(Json::<Done>(done).into_response()),
        Told::Released(released) => Ok(Json(released).into_response()),
        Told::NotHeld(id) => Ok(Json(how_it_ended(&app, id).await?).into_response()),
        told => Err(unexpected(&told)),
    }
}
