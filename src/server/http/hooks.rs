//! `POST /hooks/{forge}`: what forges deliver.
//!
//! The one family of routes that is not admitted by `Host` and `Origin`: a delivery proves itself by its
//! signature. In this order: method, headers, size, signature, and only then what it says; it is in the store
//! before it is answered, and nothing in the world is asked before that. What is read of bodies at one time is
//! bounded, all of them together.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use futures_util::StreamExt as _;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::problem::{self, Named, Refusal, with_status};
use crate::builds::delivery::{Incoming, Received};
use crate::builds::happening::{Forge, Happening};
use crate::builds::hook::secret::Secret;
use crate::builds::hook::{BODY_BYTES_MAX, Fault, Headers, Refused, said};
use crate::clock::wall_now_ms;
use crate::inventory::pipelines::secret_variable;
use crate::protocol::builds::HookAnswer;
use crate::protocol::error::{RpcError, code};
use crate::server::convert::cut;
use crate::server::shared::{App, Shared};
use crate::store::Reader;

/// Bytes of all bodies that are being read or worked on, at most; beyond it a delivery is told 503, and its
/// forge sends it again.
pub const BODIES_BYTES_MAX: usize = 64 * 1024 * 1024;
/// What bodies are counted in.
const UNIT_BYTES: usize = 16 * 1024;
/// How long a body may take to arrive; forges wait ten seconds at most for the answer.
const ARRIVAL_MAX: Duration = Duration::from_secs(10);
/// A body of more bytes is hashed and read beside the broker's thread, which such work would hold up.
const ASIDE_BYTES: usize = 64 * 1024;

/// Places for bodies of deliveries.
#[must_use]
pub fn places() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(BODIES_BYTES_MAX / UNIT_BYTES))
}

/// The route of deliveries.
pub fn routes<R: Reader>() -> Router<App<R>> {
    Router::new().route("/hooks/{forge}", post(receive)).method_not_allowed_fallback(problem::wrong_method)
}

async fn receive(State(shared): State<Arc<Shared>>, Named(forge): Named<String>, request: Request) -> Response {
    match deliver(&shared, &forge, request).await {
        Ok((status, answer)) => (status, Json(answer)).into_response(),
        Err(refusal) => refusal,
    }
}

async fn deliver(shared: &Shared, forge: &str, request: Request) -> Result<(StatusCode, HookAnswer), Response> {
    let pipeline = shared.pipeline().map_err(|error| Refusal(error).into_response())?;
    let forge = named(forge).map_err(IntoResponse::into_response)?;
    let secrets = pipeline.settings.hooks.of(forge);
    if secrets.is_empty() {
        let message = format!(
            "the broker has no webhook secret for {forge}: set {} where it is started, or secret_files under [hooks]",
            secret_variable(forge)
        );
        return Err(with_status(404, "not_found", message));
    }
    let (parts, body) = request.into_parts();
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let headers = Headers::read(forge, header).map_err(|refused| refusal(&refused))?;
    let mut places = Places { all: &shared.hook_bodies, held: Vec::new() };
    let body = arrive(&parts.headers, body, &mut places).await?;
    let (said, forge_id) = examine(forge, &headers, secrets, &body).await?;
    let unknown =
        said.as_ref().ok().filter(|happening| pipeline.settings.repository(forge, &happening.repository).is_none());
    let reason = match (&said, unknown) {
        (Err(reason), _) => Some(reason.to_string()),
        (Ok(_), Some(happening)) => {
            Some(format!("no [[repository]] of the broker's configuration is {} of {forge}", happening.repository))
        }
        (Ok(_), None) => None,
    };
    let incoming = Incoming { forge, forge_id, event: headers.event, said, body, repeats: None };
    let received = pipeline.conductor.receive(incoming).await.map_err(|error| Refusal(error).into_response())?;
    Ok(answer(received, reason))
}

fn answer(received: Received, reason: Option<String>) -> (StatusCode, HookAnswer) {
    let told = |outcome: &str, id, reason| HookAnswer { outcome: outcome.to_owned(), delivery: Some(id), reason };
    match (received, reason) {
        (Received::Duplicate(id), _) => {
            (StatusCode::OK, told("duplicate", id.0, Some(format!("delivery {} said the same", id.0))))
        }
        (Received::Accepted(id), Some(reason)) => (StatusCode::OK, told("ignored", id.0, Some(reason))),
        (Received::Accepted(id), None) => (StatusCode::ACCEPTED, told("accepted", id.0, None)),
    }
}

fn named(forge: &str) -> Result<Forge, Refusal> {
    Forge::parse(forge).ok_or_else(|| {
        let message = format!("there is no forge `{}`: there are github, gitlab and gitea", cut(forge));
        Refusal(RpcError::new("not_found", message))
    })
}

fn refusal(refused: &Refused) -> Response {
    let (status, code) = match refused.fault {
        Fault::Headers => (400, code::INVALID_REQUEST),
        Fault::Unsigned => (401, "unsigned"),
        Fault::Signature => (403, "bad_signature"),
    };
    tracing::info!(%refused, "a delivery is refused");
    with_status(status, code, &refused.message)
}

/// The places that a body takes, given back when it is dropped.
struct Places<'p> {
    all: &'p Semaphore,
    held: Vec<SemaphorePermit<'p>>,
}

impl Places<'_> {
    /// Takes what is missing for so many bytes.
    fn fit(&mut self, bytes: usize) -> Result<(), Refusal> {
        while self.held.len() * UNIT_BYTES < bytes {
            match self.all.try_acquire() {
                Ok(permit) => self.held.push(permit),
                Err(_) => {
                    let message = "the broker is reading as much of deliveries as it may: send it again";
                    return Err(Refusal(RpcError::new(code::OVERLOADED, message)));
                }
            }
        }
        Ok(())
    }
}

/// Reads the body, in time and within its bound.
async fn arrive(headers: &HeaderMap, body: Body, places: &mut Places<'_>) -> Result<Arc<[u8]>, Response> {
    let too_long = || {
        let message = format!("a delivery has at most {} MiB", BODY_BYTES_MAX / (1024 * 1024));
        with_status(413, "body_too_long", message)
    };
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > BODY_BYTES_MAX as u64) {
        return Err(too_long());
    }
    let reading = async {
        let mut kept = Vec::new();
        let mut pieces = body.into_data_stream();
        while let Some(piece) = pieces.next().await {
            let piece: Bytes = piece.map_err(|error| {
                with_status(400, code::INVALID_REQUEST, format!("the body broke off: {}", cut(&error.to_string())))
            })?;
            let bytes = kept.len() + piece.len();
            if bytes > BODY_BYTES_MAX {
                return Err(too_long());
            }
            places.fit(bytes).map_err(IntoResponse::into_response)?;
            kept.extend_from_slice(&piece);
        }
        Ok::<Vec<u8>, Response>(kept)
    };
    let late = |_| with_status(408, "body_too_slow", "the body did not arrive in time: send it at once");
    tokio::time::timeout(ARRIVAL_MAX, reading).await.map_err(late)?.map(Arc::from)
}

/// What a delivery says, and its name.
type Examined = (Result<Happening, Arc<str>>, Arc<str>);

/// Checks the signature, and only then looks at what it says. A long body is kept off the broker's thread.
async fn examine(forge: Forge, headers: &Headers, secrets: &[Secret], body: &Arc<[u8]>) -> Result<Examined, Response> {
    let now_s = wall_now_ms().div_euclid(1_000);
    if body.len() <= ASIDE_BYTES {
        return examined(forge, headers, secrets, body, now_s).map_err(|refused| refusal(&refused));
    }
    let (headers, secrets, body) = (headers.clone(), secrets.to_vec(), body.clone());
    let aside = tokio::task::spawn_blocking(move || examined(forge, &headers, &secrets, &body, now_s)).await;
    let stopping = |_| Refusal(RpcError::new(code::UNAVAILABLE, "the broker stops")).into_response();
    aside.map_err(stopping)?.map_err(|refused| refusal(&refused))
}

fn examined(forge: Forge, headers: &Headers, secrets: &[Secret], body: &[u8], now_s: i64) -> Result<Examined, Refused> {
    headers.verify(secrets, body, now_s)?;
    Ok((said(forge, &headers.event, body), headers.forge_id(body)))
}
