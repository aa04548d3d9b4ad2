//! The WebSocket at `/v1/ws`: the upgrade, and the task that serves a socket.
//!
//! The upgrade is done here, on the connection itself, as its parts are few, every refusal is a
//! problem that says what to offer, and a session's memory is what a broker of thousands is
//! measured by: small buffers, no boxes between the frames and the TCP stream.

pub(crate) mod message;
mod socket;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::http::problem::{self, Refusal};
use super::limits::SOCKET_BUFFER_BYTES;
use super::listen::{Peer, Place};
use super::shared::Shared;
use crate::protocol::error::{RpcError, code};
use crate::protocol::{MESSAGE_BYTES_MAX, SUBPROTOCOL};
use socket::Socket;

/// Answers a request at the WebSocket's path: 101, or the problem with it.
pub async fn upgrade(
    State(shared): State<Arc<Shared>>,
    Extension(peer): Extension<Peer>,
    Extension(place): Extension<Place>,
    mut request: Request,
) -> Response {
    if request.method() != Method::GET {
        return plain_http();
    }
    if let Err(refused) = check(request.headers()) {
        return refused;
    }
    let (Some(key), Some(on_upgrade)) =
        (request.headers().get(SEC_WEBSOCKET_KEY).cloned(), request.extensions_mut().remove::<OnUpgrade>())
    else {
        return plain_http();
    };
    shared.process.tasks.clone().spawn(async move {
        if let Ok(upgraded) = on_upgrade.await {
            serve(upgraded, peer.0, shared, place).await;
        }
    });
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes())).expect("base64 is a header's text");
    let headers = [
        (CONNECTION, HeaderValue::from_static("upgrade")),
        (UPGRADE, HeaderValue::from_static("websocket")),
        (SEC_WEBSOCKET_ACCEPT, accept),
        (SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL)),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

async fn serve(upgraded: Upgraded, peer: SocketAddr, shared: Arc<Shared>, place: Place) {
    let config = WebSocketConfig::default()
        .read_buffer_size(SOCKET_BUFFER_BYTES)
        .write_buffer_size(SOCKET_BUFFER_BYTES)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    match upgraded.downcast::<TokioIo<TcpStream>>() {
        Ok(parts) => {
            // Copied, as what was read stands in the upgrade's own buffer, which is twice as large.
            let (stream, read) = (parts.io.into_inner(), parts.read_buf.to_vec());
            let stream = WebSocketStream::from_partially_read(stream, read, Role::Server, Some(config)).await;
            run(stream, peer, shared, place).await;
        }
        // Some other kind of stream: as good, with a box in between.
        Err(upgraded) => {
            let stream = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
            run(stream, peer, shared, place).await;
        }
    }
}

/// Serves a socket in a task of its own: the one that upgraded it had room for all that, and a
/// socket lives long.
async fn run<S>(stream: WebSocketStream<S>, peer: SocketAddr, shared: Arc<Shared>, place: Place)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Fails only when the engine is gone: whoever comes again is told where to.
    let Ok(socket) = Socket::attach(stream, peer.ip(), shared.clone()).await else { return };
    shared.process.metrics.socket_opened();
    // Boxed, as a future awaited in another has its room there twice.
    let socket = Box::pin(socket.run());
    shared.process.tasks.clone().spawn(async move {
        socket.await;
        shared.process.metrics.socket_closed();
        // The connection counts until here.
        drop(place);
    });
}

#[expect(clippy::result_large_err, reason = "made once per refused upgrade")]
fn check(headers: &HeaderMap) -> Result<(), Response> {
    if !has_token(headers, CONNECTION.as_str(), "upgrade") || !has_token(headers, UPGRADE.as_str(), "websocket") {
        return Err(plain_http());
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let mut response = upgrade_required("`Sec-WebSocket-Version` must be 13");
        response.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return Err(response);
    }
    if !has_token(headers, SEC_WEBSOCKET_PROTOCOL.as_str(), SUBPROTOCOL) {
        let error = RpcError::new(
            code::INVALID_REQUEST,
            format!("offer the WebSocket subprotocol `{SUBPROTOCOL}` (header Sec-WebSocket-Protocol)"),
        );
        return Err(Refusal(error).into_response());
    }
    Ok(())
}

/// Whether one of the values that the header lists is this one.
fn has_token(headers: &HeaderMap, name: &str, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(token))
}

fn plain_http() -> Response {
    let text = format!("this is a WebSocket: connect by GET with the subprotocol `{SUBPROTOCOL}`");
    let mut response = upgrade_required(text);
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response
}

fn upgrade_required(text: impl Into<String>) -> Response {
    problem::with_status(StatusCode::UPGRADE_REQUIRED.as_u16(), code::INVALID_REQUEST, text)
}
