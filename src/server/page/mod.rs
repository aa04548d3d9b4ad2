//! The pages for people: builds, and what they print.
//!
//! Made here, from one style sheet and one script that the binary carries; useful without the script. All
//! that they show came from outside (logs, branches, titles) and is hostile: it is escaped where it is
//! shown, and the policy of every answer lets nothing run or load but those two files.
//!
//! - [`terminal`], [`links`], [`palette`]: a line of a log as HTML;
//! - [`marks`], [`folds`], [`outline`], [`find`], [`window`]: a log in pieces of bounded size;
//! - [`source`]: where builds and logs come from.

mod assets;
mod build;
mod delivery;
pub mod find;
pub mod folds;
mod humans;
mod layout;
pub mod links;
mod list;
mod live;
pub mod marks;
pub mod outline;
mod palette;
mod routes;
mod search;
pub mod source;
pub mod terminal;
pub mod window;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use self::outline::Outlines;
use self::source::Source;
use crate::pipeline::Pipeline;

/// Pages that wait for a log to grow, at one time. One more is answered at once, and asks again later.
const FOLLOWERS_MAX: usize = 256;
/// Outlines and searches at one time; others wait for their turn.
const SCANS_MAX: usize = 2;

/// Nothing runs or loads but what this broker serves by itself, nothing frames the page, no form leaves it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'";

/// What the pages share.
pub struct Pages {
    source: Arc<dyn Source>,
    outlines: Outlines,
    followers: Semaphore,
    scans: Semaphore,
    closing: CancellationToken,
}

impl Pages {
    /// Pages of the builds that this broker runs. Nobody waits any more when it is `closing`.
    #[must_use]
    pub fn of(pipeline: Arc<Pipeline>, closing: CancellationToken) -> Self {
        Self::new(Arc::new(live::Live(pipeline)), closing)
    }

    /// Pages of these builds.
    #[must_use]
    pub fn new(source: Arc<dyn Source>, closing: CancellationToken) -> Self {
        let (followers, scans) = (Semaphore::new(FOLLOWERS_MAX), Semaphore::new(SCANS_MAX));
        Self { source, outlines: Outlines::default(), followers, scans, closing }
    }
}

/// The routes of the pages; without any builds they say what to configure.
pub fn routes<S: Clone + Send + Sync + 'static>(pages: Option<Arc<Pages>>) -> Router<S> {
    Router::new()
        .route("/assets/{file}", get(assets::serve))
        .route("/builds", get(routes::list))
        .route("/builds/search", get(routes::search))
        .route("/builds/{id}", get(routes::build))
        .route("/builds/{id}/lines", get(routes::lines))
        .route("/builds/{id}/outline", get(routes::outline))
        .route("/builds/{id}/find", get(routes::find))
        .route("/builds/{id}/cancel", get(routes::confirm_cancel).post(routes::cancel))
        .route("/builds/{id}/retry", post(routes::retry))
        .route("/builds/{id}/approve", post(routes::approve))
        .route("/deliveries/{id}", get(routes::delivery))
        .route("/deliveries/{id}/redeliver", post(routes::redeliver))
        .layer(middleware::from_fn(guarded))
        .with_state(pages)
}

/// Puts the policy on every answer.
async fn guarded(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Nobody else learns where a link was followed from. Not `no-referrer`: under that a browser sends a
    // form's `Origin` as `null`, and the check of it could not tell this page from others.
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
