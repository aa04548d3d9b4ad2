//! HTTP: the routes, one file per family.
//!
//! Everything the command line does, leases for clients without a socket, the journal, and what
//! probes and scrapers ask. Every request is admitted first, whatever it asks for, but for deliveries of forges.

pub mod asking;
pub mod builds;
pub mod deliveries;
pub mod hooks;
mod journal;
mod leases;
pub mod logs;
pub mod metrics;
pub mod problem;
mod queue;
mod resources;
pub mod search;
pub mod standby;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};

use super::front::Process;
use super::limits::BODY_BYTES_MAX;
use super::shared::App;
use super::{admission, page, websocket};
use crate::protocol::{INVENTORY_BYTES_MAX, WEBSOCKET_PATH};
use crate::store::Reader;

/// Every route of a broker that leads.
pub fn router<R: Reader>(app: App<R>) -> Router {
    let admitted = middleware::from_fn_with_state(app.shared.process.clone(), admit);
    // A file as JSON text is longer than the file: what is escaped takes two bytes.
    let long_body = DefaultBodyLimit::max(2 * INVENTORY_BYTES_MAX);
    let closing = &app.shared.closing;
    let pages = app.shared.pipeline.clone().map(|pipeline| Arc::new(page::Pages::of(pipeline, closing.clone())));
    Router::new()
        .route(WEBSOCKET_PATH, any(websocket::upgrade))
        .route("/healthz", get(status::healthz))
        .route("/readyz", get(status::readyz))
        .route("/metrics", get(status::metrics))
        .route("/v1/status", get(status::status))
        .route("/v1/resources", get(resources::list))
        .route("/v1/resources/{name}", get(resources::show).put(resources::set).delete(resources::remove))
        .route("/v1/resources/{name}/history", get(resources::history::<R>))
        .route("/v1/resources/{name}/drain", post(resources::drain))
        .route("/v1/resources/{name}/undrain", post(resources::undrain))
        .route("/v1/resources/{name}/quarantine", post(resources::quarantine))
        .route("/v1/resources/{name}/restore", post(resources::restore))
        .route("/v1/inventory/apply", post(resources::apply).layer(long_body))
        .route("/v1/match", post(resources::matches))
        .route("/v1/leases", get(leases::list::<R>).post(leases::acquire))
        .route("/v1/leases/{id}", get(leases::show::<R>))
        .route("/v1/leases/{id}/renew", post(leases::renew))
        .route("/v1/leases/{id}/extend", post(leases::extend::<R>))
        .route("/v1/leases/{id}/release", post(leases::release::<R>))
        .route("/v1/leases/{id}/revoke", post(leases::revoke::<R>))
        .route("/v1/queue", get(queue::queue))
        .route("/v1/claims/{id}", get(queue::claim))
        .route("/v1/claims/{id}/cancel", post(queue::cancel))
        .route("/v1/sessions", get(queue::sessions))
        .route("/v1/sessions/{id}/kick", post(queue::kick))
        .route("/v1/why/{kind}/{id}", get(queue::why::<R>))
        .route("/v1/journal", get(journal::journal::<R>))
        .route("/v1/events", get(journal::events::<R>))
        .merge(builds::routes())
        .merge(deliveries::routes())
        .merge(logs::routes())
        .merge(page::routes(pages))
        .merge(search::routes())
        .fallback(problem::unknown_route)
        .method_not_allowed_fallback(problem::wrong_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(admitted)
        // Beside the admission: these prove themselves.
        .merge(hooks::routes())
        .with_state(app)
}

async fn admit(State(process): State<Arc<Process>>, request: Request, next: Next) -> Response {
    match admission::admit(request.headers(), process.insecure) {
        Ok(()) => next.run(request).await,
        Err(error) => problem::Refusal(error).into_response(),
    }
}
