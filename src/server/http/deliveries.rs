//! Deliveries of forges, to look at and to work on again.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;

use super::asking::number;
use super::problem::{Asked, Named, Refusal};
use crate::builds::delivery::{Delivery, DeliveryId, Outcome};
use crate::builds::happening::{PullAction, What};
use crate::protocol::builds::{DeliveryInfo, DeliveryPage, DeliveryShown};
use crate::server::limits::{PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX};
use crate::server::shared::{App, Shared};
use crate::store::Reader;

/// The routes of deliveries.
pub fn routes<R: Reader>() -> Router<App<R>> {
    Router::new()
        .route("/v1/deliveries", get(list))
        .route("/v1/deliveries/{id}", get(show))
        .route("/v1/deliveries/{id}/redeliver", post(redeliver))
}

/// Which deliveries.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Which {
    before: Option<u64>,
    limit: Option<usize>,
}

/// `GET /v1/deliveries?before=&limit=`.
async fn list(State(shared): State<Arc<Shared>>, Asked(which): Asked<Which>) -> Result<Json<DeliveryPage>, Refusal> {
    let limit = which.limit.unwrap_or(PAGE_ITEMS_DEFAULT).clamp(1, PAGE_ITEMS_MAX);
    let found = shared.pipeline()?.conductor.deliveries(which.before.map(DeliveryId), limit).await?;
    let next = (found.len() == limit).then(|| found.last().map(|last| last.id.0)).flatten();
    Ok(Json(DeliveryPage { items: found.iter().map(info).collect(), next }))
}

/// `GET /v1/deliveries/{id}`.
async fn show(State(shared): State<Arc<Shared>>, Named(id): Named<String>) -> Result<Json<DeliveryShown>, Refusal> {
    let id = DeliveryId(number(&id, "delivery")?);
    let conductor = &shared.pipeline()?.conductor;
    let (delivery, body) = conductor.delivery(id).await?;
    let trouble = conductor.delivery_trouble(&delivery).await?;
    // Up to 25 MiB.
    let payload = tokio::task::spawn_blocking(move || {
        serde_json::from_slice(&body).unwrap_or_else(|_| String::from_utf8_lossy(&body).into_owned().into())
    });
    let payload = payload.await.unwrap_or(serde_json::Value::Null);
    let delivery = DeliveryInfo { status_trouble: trouble.as_deref().map(str::to_owned), ..info(&delivery) };
    Ok(Json(DeliveryShown { delivery, payload }))
}

/// `POST /v1/deliveries/{id}/redeliver`.
async fn redeliver(State(shared): State<Arc<Shared>>, Named(id): Named<String>) -> Result<Json<DeliveryInfo>, Refusal> {
    let id = DeliveryId(number(&id, "delivery")?);
    let conductor = &shared.pipeline()?.conductor;
    let again = conductor.redeliver(id).await?;
    let (delivery, _) = conductor.delivery(again).await?;
    Ok(Json(info(&delivery)))
}

fn info(delivery: &Delivery) -> DeliveryInfo {
    let said = delivery.said.as_ref();
    let (outcome, reason, started, ended) = match &delivery.outcome {
        Outcome::Accepted => ("accepted", None, Vec::new(), Vec::new()),
        Outcome::Done { started, ended } => {
            let numbers = |builds: &[crate::builds::build::BuildId]| builds.iter().map(|id| id.0).collect();
            ("done", None, numbers(started), numbers(ended))
        }
        Outcome::Failed { reason } => ("failed", Some(reason), Vec::new(), Vec::new()),
        Outcome::Ignored { reason } => ("ignored", Some(reason), Vec::new(), Vec::new()),
    };
    DeliveryInfo {
        delivery: delivery.id.0,
        forge: delivery.forge.as_str().to_owned(),
        forge_id: delivery.forge_id.to_string(),
        event: delivery.event.to_string(),
        repository: said.ok().map(|happening| happening.repository.to_string()),
        what: said.map_or_else(|why| why.to_string(), |happening| words(&happening.what)),
        received_ms: delivery.received_ms,
        repeats: delivery.repeats.map(|id| id.0),
        outcome: outcome.to_owned(),
        reason: reason.map(|reason| reason.to_string()),
        status_trouble: None,
        started,
        ended,
    }
}

/// What happened, in words.
pub(in crate::server) fn words(what: &What) -> String {
    match what {
        What::Push { branch, after: Some(after), .. } => format!("branch {branch} pushed to {}", after.short()),
        What::Push { branch, after: None, .. } => format!("branch {branch} deleted"),
        What::Tag { tag, sha: Some(sha) } => format!("tag {tag} set to {}", sha.short()),
        What::Tag { tag, sha: None } => format!("tag {tag} deleted"),
        What::Pull { action, pull } => {
            let done = match action {
                PullAction::Closed => "closed",
                PullAction::Drafted => "became a draft",
                PullAction::Opened => "opened",
                PullAction::Pushed => "pushed to",
                PullAction::Ready => "is ready for review",
                PullAction::Reopened => "reopened",
                PullAction::Retargeted => "goes to another branch",
            };
            let fork = if pull.fork { " (from a fork)" } else { "" };
            format!("pull request {} {done}, at {}{fork}", pull.number, pull.head.short())
        }
    }
}
