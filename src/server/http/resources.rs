//! Resources, the inventory, and what matches a need.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;

use super::asking::{Asker, Paging, Timed};
use super::problem::{Asked, Named, Refusal, Sent, not_found, store_failed};
use crate::core::apply::check_spec;
use crate::core::command::{Command, MarkAct};
use crate::core::inventory::ResourceSpec;
use crate::core::limits::NOTE_BYTES_MAX;
use crate::core::refusal::Code;
use crate::core::types::{Key, LeaseId, ResourceName};
use crate::engine::input::Told;
use crate::engine::query::{listing, matching, past_lease_info, refusal_error};
use crate::inventory::file;
use crate::protocol::call::Done;
use crate::protocol::error::RpcError;
use crate::protocol::http::{ApplyRequest, MarkRequest, MatchRequest, ResourceRequest};
use crate::protocol::info::{ApplyInfo, LeaseInfo, MatchInfo, Page, ResourceInfo};
use crate::server::convert;
use crate::server::shared::{App, Shared};
use crate::store::Reader;

/// Bytes of a file's name as errors show it.
const FILE_NAME_CHARS_MAX: usize = 200;

/// Narrows the listing.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Narrowing {
    pool: Option<String>,
    need: Option<String>,
    cursor: Option<String>,
    limit: Option<usize>,
}

fn asked(need: &str) -> Result<matching::Asked, Refusal> {
    matching::Asked::new(convert::need(need)?).map_err(refused)
}

fn refused(refusal: crate::core::refusal::Refusal) -> Refusal {
    Refusal(refusal_error(&refusal))
}

/// `GET /v1/resources?pool=&need=&cursor=&limit=`.
pub async fn list(
    State(shared): State<Arc<Shared>>,
    Asked(narrowing): Asked<Narrowing>,
) -> Result<Json<Page<ResourceInfo>>, Refusal> {
    let need = narrowing.need.as_deref().map(asked).transpose()?;
    let part = Paging { cursor: narrowing.cursor, limit: narrowing.limit }.part();
    let pool = narrowing.pool;
    let page = shared.handle.read(move |view| listing::resources(view, pool.as_deref(), need.as_ref(), &part)).await?;
    Ok(Json(page))
}

/// `GET /v1/resources/{name}`.
pub async fn show(
    State(shared): State<Arc<Shared>>,
    Named(name): Named<String>,
) -> Result<Json<Timed<ResourceInfo>>, Refusal> {
    let name = convert::resource_name(&name)?;
    let asked = name.clone();
    let found = shared
        .handle
        .read(move |view| {
            let resource = view.state.names.get(&name).map(|id| view.state.resource(*id))?;
            Some(Timed::new(listing::resource_info(view, resource), &view.clock))
        })
        .await?;
    found.map(Json).ok_or_else(|| no_resource(&asked))
}

/// There is no such resource.
pub fn no_resource(name: &ResourceName) -> Refusal {
    not_found(format!("resource {name}: `leasehold resource ls` lists those there are"))
}

/// `GET /v1/resources/{name}/history`: the leases that had it, newest first. A name that is not
/// on the books any more still has its history.
pub async fn history<R: Reader>(
    State(app): State<App<R>>,
    Named(name): Named<String>,
    Asked(paging): Asked<Paging>,
) -> Result<Json<Page<LeaseInfo>>, Refusal> {
    let name = convert::resource_name(&name)?;
    let before = paging.cursor.is_some().then(|| paging.after()).transpose()?.map(LeaseId);
    let limit = paging.limit();
    let past = app.reader.history(&name, before, limit).await.map_err(|error| store_failed(&error))?;
    let clock = app.shared.handle.read(|view| view.clock).await?;
    let next = (past.len() == limit).then(|| past.last().map(|last| last.lease.id.to_string())).flatten();
    let items = past.iter().map(|past| past_lease_info(past, &clock)).collect();
    Ok(Json(listing::page(items, next, &clock)))
}

/// `PUT /v1/resources/{name}`.
pub async fn set(
    State(shared): State<Arc<Shared>>,
    Named(name): Named<String>,
    Sent(request): Sent<ResourceRequest>,
) -> Result<Json<ApplyInfo>, Refusal> {
    if request.secrets.is_some() {
        let message = "secrets over HTTP are not in this version: declare the resource in the inventory file";
        return Err(Refusal(RpcError::new(Code::NotInThisVersion.as_str(), message)));
    }
    let spec = ResourceSpec {
        name: convert::resource_name(&name)?,
        pool: Key::parse(&request.pool, "pool name").map_err(|error| convert::invalid(error.to_string()))?,
        labels: convert::values("label", request.labels)?,
        properties: convert::values("property", request.properties)?,
        secrets: BTreeMap::new(),
        slots: request.slots,
    };
    check_spec(&spec).map_err(refused)?;
    applied(&shared, Command::SetResource(Arc::new(spec))).await
}

/// `DELETE /v1/resources/{name}`.
pub async fn remove(State(shared): State<Arc<Shared>>, Named(name): Named<String>) -> Result<Json<ApplyInfo>, Refusal> {
    applied(&shared, Command::RemoveResource(convert::resource_name(&name)?)).await
}

/// `POST /v1/inventory/apply`.
pub async fn apply(
    State(shared): State<Arc<Shared>>,
    Sent(request): Sent<ApplyRequest>,
) -> Result<Json<ApplyInfo>, Refusal> {
    let ApplyRequest { text, file, dry_run, prune, confirmed } = request;
    let name: String = file.as_deref().unwrap_or("the inventory").chars().take(FILE_NAME_CHARS_MAX).collect();
    // Ranges make small files large, so reading one is work for a thread that may take its time.
    let read = tokio::task::spawn_blocking(move || file::read(&text, &name)).await;
    let declared = read
        .map_err(|_| RpcError::new(crate::protocol::error::code::UNAVAILABLE, "the inventory could not be read"))?
        .map_err(|error| refused(error.into()))?;
    applied(&shared, Command::Apply { declared: Arc::new(declared), prune, confirmed, dry_run }).await
}

async fn applied(shared: &Shared, command: Command) -> Result<Json<ApplyInfo>, Refusal> {
    match shared.handle.command(command).await? {
        Told::Applied(info) => Ok(Json(info)),
        told => Err(super::leases::unexpected(&told)),
    }
}

/// `POST /v1/resources/{name}/drain`.
pub async fn drain(shared: State<Arc<Shared>>, name: Named<String>, asker: Asker, sent: Sent<MarkRequest>) -> Marked {
    mark(MarkAct::Drain, shared, name, asker, sent).await
}

/// `POST /v1/resources/{name}/undrain`.
pub async fn undrain(shared: State<Arc<Shared>>, name: Named<String>, asker: Asker, sent: Sent<MarkRequest>) -> Marked {
    mark(MarkAct::Undrain, shared, name, asker, sent).await
}

/// `POST /v1/resources/{name}/quarantine`.
pub async fn quarantine(
    shared: State<Arc<Shared>>,
    name: Named<String>,
    asker: Asker,
    sent: Sent<MarkRequest>,
) -> Marked {
    mark(MarkAct::Quarantine, shared, name, asker, sent).await
}

/// `POST /v1/resources/{name}/restore`.
pub async fn restore(shared: State<Arc<Shared>>, name: Named<String>, asker: Asker, sent: Sent<MarkRequest>) -> Marked {
    mark(MarkAct::Restore, shared, name, asker, sent).await
}

type Marked = Result<Json<Done>, Refusal>;

async fn mark(
    act: MarkAct,
    State(shared): State<Arc<Shared>>,
    Named(name): Named<String>,
    asker: Asker,
    Sent(request): Sent<MarkRequest>,
) -> Marked {
    let reason = reason(request.reason)?.unwrap_or_else(|| "no reason given".into());
    let command = Command::Mark { resource: convert::resource_name(&name)?, act, reason, by: asker.by() };
    match shared.handle.command(command).await? {
        Told::Done(done) => Ok(Json(done)),
        told => Err(super::leases::unexpected(&told)),
    }
}

/// A reason within its bound; an empty one is none.
///
/// # Errors
/// `invalid_params`.
pub fn reason(text: Option<String>) -> Result<Option<Arc<str>>, RpcError> {
    match text {
        Some(text) if text.len() > NOTE_BYTES_MAX => {
            Err(convert::invalid(format!("`reason` has {} bytes: expected at most {NOTE_BYTES_MAX}", text.len())))
        }
        Some(text) if !text.trim().is_empty() => Ok(Some(text.into())),
        _ => Ok(None),
    }
}

/// `POST /v1/match`.
pub async fn matches(
    State(shared): State<Arc<Shared>>,
    Sent(request): Sent<MatchRequest>,
) -> Result<Json<Page<MatchInfo>>, Refusal> {
    let need = asked(&request.need)?;
    let part = Paging { cursor: request.cursor, limit: request.limit }.part();
    let page = shared.handle.read(move |view| matching::matches(view, &need, &part)).await?;
    page.map(Json).map_err(refused)
}
