//! HTTP: the routes, one file per family.

pub mod metrics;
pub mod problem;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use std::sync::Arc;

use super::limits::BODY_BYTES_MAX;
use super::shared::{App, Shared};
use super::{admission, websocket};
use crate::protocol::WEBSOCKET_PATH;
use crate::store::Reader;

/// Every route of a broker.
pub fn router<R: Reader>(app: App<R>) -> Router {
    let admitted = middleware::from_fn_with_state(app.shared.clone(), admit);
    Router::new()
        .route(WEBSOCKET_PATH, any(websocket::upgrade))
        .fallback(problem::unknown_route)
        .method_not_allowed_fallback(problem::wrong_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(admitted)
        .with_state(app)
}

async fn admit(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    match admission::admit(request.headers(), shared.about.insecure) {
        Ok(()) => next.run(request).await,
        Err(error) => problem::Refusal(error).into_response(),
    }
}
