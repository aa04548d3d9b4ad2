//! A socket that is up: writes and reads by turns, and never waits for one of them only.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use super::Happening;
use crate::client::connect::Socket;

/// A socket that is up, with what waits to be written: no more than the machine asks for before it
/// gives the socket up.
pub(super) struct Connection {
    socket: Box<Socket>,
    outbox: VecDeque<String>,
    unflushed: bool,
}

impl Connection {
    pub(super) fn new(socket: Box<Socket>) -> Self {
        Self { socket, outbox: VecDeque::new(), unflushed: false }
    }

    /// Has a message written as soon as the socket takes it.
    pub(super) fn send(&mut self, text: String) {
        self.outbox.push_back(text);
    }

    /// Writes what it can, then reads the next message.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Happening> {
        if let Poll::Ready(Err(error)) = self.poll_write(cx) {
            return Poll::Ready(broken(&error));
        }
        loop {
            let happening = match ready!(Pin::new(&mut *self.socket).poll_next(cx)) {
                Some(Ok(Message::Text(text))) => Happening::Text(text),
                // Pings are answered by the library; binary frames are not spoken.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Binary(_) | Message::Frame(_))) => continue,
                Some(Ok(Message::Close(frame))) => Happening::Dropped {
                    code: frame.as_ref().map(|frame| frame.code.into()),
                    why: frame.map_or_else(
                        || "the broker closed the connection".to_owned(),
                        |frame| format!("the broker closed the connection: {} ({})", frame.reason, frame.code),
                    ),
                },
                Some(Err(error)) => broken(&error),
                None => Happening::Dropped { code: None, why: "the connection ended".to_owned() },
            };
            return Poll::Ready(happening);
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WsError>> {
        while !self.outbox.is_empty() {
            ready!(Pin::new(&mut *self.socket).poll_ready(cx))?;
            if let Some(text) = self.outbox.pop_front() {
                Pin::new(&mut *self.socket).start_send(Message::text(text))?;
                self.unflushed = true;
            }
        }
        if self.unflushed {
            ready!(Pin::new(&mut *self.socket).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes the rest, then closes with code 1000 and waits for the answer.
    pub(super) async fn hang_up(mut self) -> Result<(), WsError> {
        poll_fn(|cx| self.poll_write(cx)).await?;
        close_normally(&mut self.socket).await
    }
}

async fn close_normally(socket: &mut Socket) -> Result<(), WsError> {
    socket.send(Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }))).await?;
    while let Some(message) = socket.next().await {
        message?;
    }
    Ok(())
}

fn broken(error: &WsError) -> Happening {
    Happening::Dropped { code: None, why: format!("the connection broke: {error}") }
}
