//! Errors over HTTP: RFC 9457 problems, and the extractors that answer with them.

use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;

use crate::protocol::error::{Problem, RpcError, code};
use crate::server::convert::{self, cut};
use crate::server::limits::BODY_TIMEOUT;

/// An error on its way out: `application/problem+json` with its status.
#[derive(Debug)]
pub struct Refusal(pub RpcError);

impl From<RpcError> for Refusal {
    fn from(error: RpcError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        problem(Problem::from(&self.0))
    }
}

/// The response that a problem is.
pub fn problem(problem: Problem) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = serde_json::to_string(&problem).expect("a problem has only texts and a number");
    let kind = HeaderValue::from_static("application/problem+json");
    (status, [(CONTENT_TYPE, kind)], body).into_response()
}

/// A problem under a status that its code alone does not have.
pub fn with_status(status: u16, code: &str, detail: impl Into<String>) -> Response {
    problem(Problem { status, ..Problem::from(&RpcError::new(code, detail)) })
}

/// There is no such thing.
pub fn not_found(what: impl std::fmt::Display) -> Refusal {
    Refusal(RpcError::new("not_found", format!("there is no {what}")))
}

/// The store could not be read.
pub fn store_failed(error: &crate::store::StoreError) -> Refusal {
    tracing::warn!(%error, "the store could not be read");
    Refusal(RpcError::new(code::UNAVAILABLE, "the store could not be read: see /readyz, and try again"))
}

/// A path that is none.
pub async fn unknown_route(request: Request) -> Response {
    with_status(
        404,
        "not_found",
        format!("there is nothing at `{}`: docs/protocol.md lists the routes", cut(request.uri().path())),
    )
}

/// A path that is one, with another method. axum adds `Allow`.
pub async fn wrong_method(request: Request) -> Response {
    let detail = format!("`{}` is not spoken here: the header `Allow` says what is", cut(request.method().as_str()));
    with_status(405, "method_not_allowed", detail)
}

/// What stands behind the `?`.
pub struct Asked<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(asked)) => Ok(Self(asked)),
            Err(error) => Err(Refusal(convert::invalid(format!("the query is wrong: {}", cut(&error.body_text()))))),
        }
    }
}

/// What stands in the path. As many names as the route has, each as text.
pub struct Named<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Named<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(names)) => Ok(Self(names)),
            Err(error) => Err(Refusal(convert::invalid(format!("the path is wrong: {}", cut(&error.body_text()))))),
        }
    }
}

/// A JSON body, in time and within its bound. None at all is an empty object.
pub struct Sent<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Sent<T> {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let text = match tokio::time::timeout(BODY_TIMEOUT, String::from_request(request, state)).await {
            Ok(Ok(text)) => text,
            Ok(Err(refused)) if refused.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                return Err(with_status(413, "body_too_long", "the body is longer than this route takes"));
            }
            Ok(Err(refused)) => return Err(with_status(400, code::INVALID_REQUEST, refused.body_text())),
            Err(_) => {
                return Err(with_status(408, "body_too_slow", "the body did not arrive in time: send it at once"));
            }
        };
        let text = if text.trim().is_empty() { "{}" } else { text.trim() };
        if !text.starts_with('{') {
            return Err(with_status(400, code::INVALID_REQUEST, "the body must be a JSON object"));
        }
        if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text) {
            return Err(with_status(400, code::PARSE_ERROR, format!("the body is no JSON: {error}")));
        }
        convert::read_object(text).map(Self).map_err(|error| Refusal(error).into_response())
    }
}
