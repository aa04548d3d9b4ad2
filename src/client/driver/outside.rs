//! Closing a session from outside, as the guard of a killed process does.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use crate::client::connect::{Network, STEP_TIMEOUT, Socket};
use crate::client::error::ClientError;
use crate::client::url::BaseUrl;
use crate::protocol::call::{SessionClose, method};
use crate::protocol::error::code;
use crate::protocol::rpc::{Incoming, Request};

/// How long closing another's session may take at one broker, connecting apart.
const CLOSE_SESSION_TIMEOUT: Duration = Duration::from_secs(5);
/// All of it, where another URL is there to be tried.
const CLOSE_SESSION_TIMEOUT_SHORT: Duration = Duration::from_secs(3);

/// Closes a session from outside.
pub(crate) async fn close_session(
    urls: &[BaseUrl],
    network: &Network,
    session: u64,
    secret: &str,
) -> Result<(), ClientError> {
    let mut last = ClientError::Config("no broker's URL was given".to_owned());
    for url in urls {
        let closing = async {
            let (mut socket, _) = network.websocket(url, STEP_TIMEOUT).await?;
            let exchange = close_at(&mut socket, session, secret);
            tokio::time::timeout(CLOSE_SESSION_TIMEOUT, exchange)
                .await
                .map_err(|_| ClientError::NoBroker(format!("{url}: closing the session stays unanswered")))?
        };
        let closed = if urls.len() == 1 {
            closing.await
        } else {
            tokio::time::timeout(CLOSE_SESSION_TIMEOUT_SHORT, closing)
                .await
                .unwrap_or_else(|_| Err(ClientError::NoBroker(format!("{url}: closing the session takes too long"))))
        };
        match closed {
            Ok(()) => return Ok(()),
            Err(error) if !error.is_passing() => return Err(error),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn close_at(socket: &mut Socket, session: u64, secret: &str) -> Result<(), ClientError> {
    let broke = |error: WsError| ClientError::NoBroker(format!("the connection broke: {error}"));
    let params = SessionClose { session: Some(session), secret: Some(secret.to_owned()) };
    let request = Request { jsonrpc: "2.0", id: 1, method: method::SESSION_CLOSE, params };
    let text = serde_json::to_string(&request).map_err(|error| ClientError::Config(error.to_string()))?;
    socket.send(Message::text(text)).await.map_err(broke)?;
    while let Some(message) = socket.next().await {
        let Message::Text(text) = message.map_err(broke)? else { continue };
        let answer: Incoming<'_> =
            serde_json::from_str(&text).map_err(|error| ClientError::Protocol(error.to_string()))?;
        if answer.method.is_some() {
            continue;
        }
        // The socket is not waited for any longer: the session is closed.
        return match answer.error {
            Some(error) if error.data.code != code::SESSION_GONE => Err(error.into()),
            Some(_) | None => Ok(()),
        };
    }
    Err(ClientError::NoBroker("the connection ended before the session was closed".to_owned()))
}
