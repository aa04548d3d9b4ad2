//! The journal: page by page, and as server-sent events.
//!
//! A follower pulls: it is sent what it has room for, and reads the rest from the store when it
//! has some again. Nothing is kept for it but where it stands.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::asking::Paging;
use super::problem::{Asked, Refusal, store_failed};
use crate::core::tables::{JournalEntry, JournalFilter};
use crate::core::types::{ClaimId, LeaseId, ResourceId, SessionId};
use crate::engine::handle::Health;
use crate::engine::query::listing;
use crate::protocol::error::{RpcError, code};
use crate::protocol::info::{EventInfo, Page};
use crate::server::convert;
use crate::server::limits::{EVENTS_PER_READ_MAX, FOLLOWERS_MAX, PING_MS_MAX};
use crate::server::shared::{App, Shared};
use crate::store::Reader;
use crate::units::rfc3339;

/// Which events.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Which {
    /// Only after this number.
    after: Option<u64>,
    lease: Option<u64>,
    claim: Option<u64>,
    session: Option<u64>,
    /// By name.
    resource: Option<String>,
    cursor: Option<String>,
    limit: Option<usize>,
}

impl Which {
    async fn filter(&self, shared: &Shared) -> Result<JournalFilter, Refusal> {
        let resource = match &self.resource {
            Some(name) => Some(resource(shared, name).await?),
            None => None,
        };
        Ok(JournalFilter {
            after: self.after.unwrap_or(0),
            lease: self.lease.map(LeaseId),
            claim: self.claim.map(ClaimId),
            session: self.session.map(SessionId),
            resource,
            limit: EVENTS_PER_READ_MAX,
        })
    }
}

async fn resource(shared: &Shared, name: &str) -> Result<ResourceId, Refusal> {
    let name = convert::resource_name(name)?;
    let asked = name.clone();
    let found = shared.handle.read(move |view| view.state.names.get(&name).copied()).await?;
    found.ok_or_else(|| super::resources::no_resource(&asked))
}

/// `GET /v1/journal?after=&limit=&lease=&claim=&session=&resource=`.
pub async fn journal<R: Reader>(
    State(app): State<App<R>>,
    Asked(which): Asked<Which>,
) -> Result<Json<Page<EventInfo>>, Refusal> {
    let mut filter = which.filter(&app.shared).await?;
    let paging = Paging { cursor: which.cursor, limit: which.limit };
    filter.limit = paging.limit();
    filter.after = filter.after.max(paging.after()?);
    let entries = app.reader.journal(&filter).await.map_err(|error| store_failed(&error))?;
    let clock = app.shared.handle.read(|view| view.clock).await?;
    let next = (entries.len() == filter.limit).then(|| entries.last().map(|last| last.number.to_string())).flatten();
    Ok(Json(listing::page(entries.iter().map(event_info).collect(), next, &clock)))
}

/// An event as told: hashes of secrets, and where secrets are, stay behind.
fn event_info(entry: &JournalEntry) -> EventInfo {
    let mut body = serde_json::to_value(&entry.event).unwrap_or_default();
    redact(&mut body);
    EventInfo { event: entry.number, at: entry.at.0, at_time: rfc3339(entry.wall_ms), body }
}

fn redact(body: &mut Value) {
    let Value::Object(fields) = body else { return };
    fields.remove("secret");
    if fields.get("type").is_some_and(|kind| kind == "keyed_forgotten") {
        fields.remove("key");
    }
    for (name, value) in fields.iter_mut() {
        match value {
            // References become names: what is there, not where.
            Value::Object(secrets) if name == "secrets" => {
                *value = secrets.keys().cloned().map(Value::String).collect();
            }
            Value::Object(_) => redact(value),
            _ => {}
        }
    }
}

/// `GET /v1/events`: the journal as it grows. Begins after `Last-Event-ID`, else after `after`,
/// else with what comes next.
pub async fn events<R: Reader>(
    State(app): State<App<R>>,
    headers: HeaderMap,
    Asked(which): Asked<Which>,
) -> Result<Response, Refusal> {
    let health = app.shared.handle.health();
    let mut filter = which.filter(&app.shared).await?;
    filter.after = match (last_event_id(&headers)?, which.after) {
        (Some(last), _) => last,
        (None, Some(after)) => after,
        (None, None) => health.borrow().last_event,
    };
    let permit = app.shared.followers.clone().try_acquire_owned().map_err(|_| {
        let message =
            format!("{FOLLOWERS_MAX} follow the journal already: read /v1/journal page by page, or try later");
        Refusal(RpcError::new(code::OVERLOADED, message))
    })?;
    let follower = Follower { app, filter, health, ready: VecDeque::new(), _permit: permit };
    let told = stream::unfold(follower, |mut follower| async move {
        let event = follower.next().await?;
        Some((Ok::<_, Infallible>(event), follower))
    });
    let keep_alive = KeepAlive::new().interval(Duration::from_millis(PING_MS_MAX)).text("ping");
    Ok(Sse::new(told).keep_alive(keep_alive).into_response())
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, Refusal> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    let number = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    number.map(Some).ok_or_else(|| Refusal(convert::invalid("the header `Last-Event-ID` must be an event's number")))
}

struct Follower<R> {
    app: App<R>,
    filter: JournalFilter,
    health: watch::Receiver<Health>,
    ready: VecDeque<JournalEntry>,
    _permit: OwnedSemaphorePermit,
}

impl<R: Reader> Follower<R> {
    /// The next event; `None` when the broker stops or the store cannot be read. The client then
    /// comes back with the last number it saw.
    async fn next(&mut self) -> Option<Sent> {
        let shared: Arc<Shared> = self.app.shared.clone();
        while self.ready.is_empty() {
            // Read before the journal is: what comes in between is found the next time.
            let durable = self.health.borrow_and_update().last_event;
            let entries = self.app.reader.journal(&self.filter).await.ok()?;
            if entries.len() < self.filter.limit {
                self.filter.after = self.filter.after.max(durable);
            }
            if let Some(last) = entries.last() {
                self.filter.after = self.filter.after.max(last.number);
            }
            self.ready = entries.into();
            if self.ready.is_empty() {
                tokio::select! {
                    changed = self.health.changed() => changed.ok()?,
                    () = shared.closing.cancelled() => return None,
                }
            }
        }
        let info = event_info(&self.ready.pop_front()?);
        Sent::default().id(info.event.to_string()).json_data(&info).ok()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::redact;

    #[test]
    fn no_hash_and_no_place_of_a_secret_is_told() {
        let mut body = json!({"type": "session_opened", "session": 1, "secret": "hash"});
        redact(&mut body);
        assert_eq!(body, json!({"type": "session_opened", "session": 1}));
        let mut body = json!({"type": "keyed_forgotten", "key": "hash"});
        redact(&mut body);
        assert_eq!(body, json!({"type": "keyed_forgotten"}));
        let mut body = json!({"type": "resource_added", "spec": {"name": "a", "secrets": {"pin": {"env": "PIN"}}}});
        redact(&mut body);
        assert_eq!(body, json!({"type": "resource_added", "spec": {"name": "a", "secrets": ["pin"]}}));
    }
}
