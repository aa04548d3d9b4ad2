//! One socket: its frames, its answers, its timers, in one task.
//!
//! Reading and writing are polled side by side without a lock between them. Answers are drained
//! from the outbox, buffered and flushed once. While a write is stuck nothing is read, so that a
//! client that does not read is not served; when it is stuck for too long the socket is closed.
//! What is a clean close is decided here, after section "Sockets" of `docs/protocol.md`: a Close
//! frame with code 1000 or none, received before the broker has sent one.

use std::collections::VecDeque;
use std::future::Future;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::Sleep;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use super::message::{self, Read};
use crate::clock::{BootTime, boot_now};
use crate::engine::input::{Answer, Call, Input, LastRead, Notice, Outgoing, SocketId};
use crate::protocol::error::{CloseReason, RpcError, code};
use crate::protocol::rpc::Id;
use crate::server::hand_out::hand_out;
use crate::server::limits::{CLOSE_TIMEOUT, HEAVY_CALLS_MAX, LINGER_BYTES_MAX, PING_MS_MAX};
use crate::server::shared::Shared;

/// Messages buffered in a row before what came in is looked at again.
const STREAK_MAX: u32 = 64;
/// Shortest time between two pings, whatever the ttl.
const PING_MS_MIN: u64 = 100;
/// Bytes of a Close frame's reason.
const REASON_BYTES_MAX: usize = 123;

/// Something to do.
enum Event {
    /// Something came in; `None` at the end.
    Frame(Option<Result<Message, WsError>>),
    /// Something is to go out; `None` when the engine gave the socket up.
    Out(Option<Box<Outgoing>>),
    /// A deadline may be over.
    Timer,
    /// The server closes its sockets.
    Stopping,
    /// A write failed: the peer is gone.
    Gone,
}

/// How a socket's life goes on.
enum Next {
    /// It does.
    Go,
    /// The peer closed it, cleanly or not, or is gone.
    Left { clean: bool },
    /// The broker closes it.
    Close(CloseReason, String),
}

/// A socket.
pub(super) struct Socket<S> {
    stream: WebSocketStream<S>,
    outbox: mpsc::Receiver<Box<Outgoing>>,
    last_read: LastRead,
    id: SocketId,
    peer: IpAddr,
    shared: Arc<Shared>,
    /// Calls whose answer has not gone out.
    in_flight: usize,
    /// Those of them that are much work, and are with the engine.
    heavy: Vec<Id>,
    /// Those that are much work too, until one of those is answered.
    deferred: VecDeque<(Id, Input)>,
    streak: u32,
    /// The engine is gone: nothing comes from it any more, and nothing is read that nobody would take,
    /// so that a Close that comes now counts as one that came after the broker's.
    orphaned: bool,
    unflushed: bool,
    /// Set while a write is stuck.
    flush_by: Option<BootTime>,
    /// Set while there is no session.
    handshake_by: Option<BootTime>,
    ping_every_ms: u64,
    ping_at: Option<BootTime>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// Makes a socket known to the engine.
    pub(super) async fn attach(
        stream: WebSocketStream<S>,
        peer: IpAddr,
        shared: Arc<Shared>,
    ) -> Result<Self, RpcError> {
        let (id, outbox, last_read) = shared.handle.attach(shared.process.limits.outbound_messages_max).await?;
        let handshake_by = Some(boot_now().plus(millis(shared.process.limits.handshake_timeout)));
        Ok(Self {
            stream,
            outbox,
            last_read,
            id,
            peer,
            shared,
            in_flight: 0,
            heavy: Vec::new(),
            deferred: VecDeque::new(),
            streak: 0,
            orphaned: false,
            unflushed: false,
            flush_by: None,
            handshake_by,
            ping_every_ms: PING_MS_MAX,
            ping_at: None,
        })
    }

    /// Serves it until it is over.
    pub(super) async fn run(mut self) {
        let next = self.serve().await;
        // First: a clean close frees at once, and the engine forgets the outbox.
        let end = match next {
            Next::Left { clean } => Input::Detach { socket: self.id, clean },
            Next::Close(..) | Next::Go => Input::CutOff { socket: self.id },
        };
        let _ = self.shared.handle.send(end).await;
        self.outbox.close();
        match next {
            // Boxed, as what is rare need not have room in every socket's task.
            Next::Close(reason, text) => Box::pin(self.close(reason, &text)).await,
            // The answer to the peer's Close is written while waiting for the end.
            Next::Left { clean: true } => {
                let _ = Box::pin(tokio::time::timeout(CLOSE_TIMEOUT, self.read_to_end())).await;
            }
            Next::Left { clean: false } | Next::Go => {}
        }
    }

    async fn serve(&mut self) -> Next {
        let shared = self.shared.clone();
        let mut closing = pin!(shared.closing.cancelled());
        let mut timer = pin!(tokio::time::sleep(Duration::ZERO));
        let mut armed_for = BootTime(0);
        loop {
            let due = self.due();
            if due < armed_for || armed_for == BootTime(0) {
                timer.set(tokio::time::sleep(Duration::from_millis(due.since(boot_now()))));
                armed_for = due;
            }
            let event = std::future::poll_fn(|cx| self.poll_event(cx, timer.as_mut(), closing.as_mut())).await;
            let next = match event {
                Event::Frame(frame) => self.on_frame(frame).await,
                Event::Out(Some(outgoing)) => self.on_outgoing(*outgoing).await,
                Event::Out(None) if self.shared.handle.is_gone() => {
                    // Whoever had the engine ended closes the socket too, and knows when.
                    self.orphaned = true;
                    Next::Go
                }
                Event::Out(None) => slow_reader("more messages waited for it than the broker holds"),
                Event::Timer => {
                    armed_for = BootTime(0);
                    self.on_timer()
                }
                Event::Stopping => self.parting(),
                Event::Gone => Next::Left { clean: false },
            };
            if !matches!(next, Next::Go) {
                return next;
            }
        }
    }

    /// The soonest deadline.
    fn due(&self) -> BootTime {
        let deadlines = [self.flush_by, self.handshake_by, self.ping_at];
        // Without any there is still a look now and then, so that the timer is never without an end.
        deadlines.into_iter().flatten().min().unwrap_or_else(|| boot_now().plus(PING_MS_MAX))
    }

    fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
        timer: Pin<&mut Sleep>,
        closing: Pin<&mut impl Future<Output = ()>>,
    ) -> Poll<Event> {
        let mut stuck = false;
        match Pin::new(&mut self.stream).poll_ready(cx) {
            Poll::Ready(Ok(())) if self.streak < STREAK_MAX && !self.orphaned => {
                if let Poll::Ready(outgoing) = self.outbox.poll_recv(cx) {
                    self.streak += 1;
                    return Poll::Ready(Event::Out(outgoing));
                }
            }
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => return Poll::Ready(Event::Gone),
            Poll::Pending => stuck = true,
        }
        // After what waited for it: the promise that outlasts the stop may be the last of it.
        if self.streak < STREAK_MAX && closing.poll(cx).is_ready() {
            return Poll::Ready(Event::Stopping);
        }
        if self.unflushed && !stuck {
            match Pin::new(&mut self.stream).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(_)) => return Poll::Ready(Event::Gone),
                Poll::Pending => stuck = true,
            }
        }
        if stuck {
            if self.flush_by.is_none() {
                self.flush_by = Some(boot_now().plus(millis(self.shared.process.limits.flush_timeout)));
                // Returns so that the timer is armed for it.
                return Poll::Ready(Event::Timer);
            }
        } else {
            self.flush_by = None;
            if !self.orphaned
                && let Poll::Ready(frame) = Pin::new(&mut self.stream).poll_next(cx)
            {
                if matches!(frame, Some(Ok(_))) {
                    self.last_read.note(boot_now());
                }
                self.streak = 0;
                return Poll::Ready(Event::Frame(frame));
            }
            if self.streak >= STREAK_MAX {
                self.streak = 0;
                cx.waker().wake_by_ref();
            }
        }
        timer.poll(cx).map(|()| Event::Timer)
    }

    async fn on_frame(&mut self, frame: Option<Result<Message, WsError>>) -> Next {
        let at = self.last_read.at();
        let input = match frame {
            Some(Ok(Message::Text(text))) => match message::read(text.as_str(), self.peer) {
                Read::Call(id, call) => match self.take(at, id.clone(), call) {
                    Ok(input) => input,
                    Err(error) => return self.write(message::failure(id.as_ref(), &error)).await,
                },
                Read::Nothing => Input::Alive { socket: self.id, at },
                Read::Refused(id, error) => return self.write(message::failure(id.as_ref(), &error)).await,
            },
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => Input::Alive { socket: self.id, at },
            Some(Ok(Message::Binary(_))) => {
                return Next::Close(CloseReason::Binary, "only text frames are spoken here".to_owned());
            }
            Some(Ok(Message::Close(frame))) => {
                let clean = frame.is_none_or(|frame| frame.code == CloseCode::Normal);
                return Next::Left { clean };
            }
            // Raw frames are never read as messages.
            Some(Ok(Message::Frame(_))) => return Next::Go,
            Some(Err(error)) => return broken(&error),
            None => return Next::Left { clean: false },
        };
        // Fails only when the engine is gone, which what is left in the outbox, or its end, will tell.
        let _ = self.shared.handle.send(input).await;
        Next::Go
    }

    /// Closes because the process stops, or leads no more.
    fn parting(&self) -> Next {
        if self.shared.process.closing.is_cancelled() || self.shared.process.sight.is_none() {
            return Next::Close(CloseReason::Stopping, "the broker stops: connect again".to_owned());
        }
        Next::Close(CloseReason::Standby, "this broker leads no more: connect again, it says who does".to_owned())
    }

    /// Takes a call in: what goes to the engine now, or the refusal. Of what is much work the engine
    /// gets a few at a time, so that whoever sends a thousand of it waits for itself; what is read
    /// meanwhile overtakes it.
    fn take(&mut self, at: BootTime, id: Option<Id>, call: Call) -> Result<Input, RpcError> {
        let most = self.shared.process.limits.calls_in_flight_max();
        let heavy = is_heavy(&call);
        match &id {
            Some(_) if self.in_flight >= most => {
                let message =
                    format!("{most} calls of this socket wait for their answers: read those first, then repeat");
                return Err(RpcError::new(code::OVERLOADED, message));
            }
            Some(_) => self.in_flight += 1,
            None if heavy => {
                return Err(RpcError::new(
                    code::INVALID_REQUEST,
                    "this call needs an `id`: without one it has no answer",
                ));
            }
            None => {}
        }
        let input = Input::Call { socket: self.id, at, id: id.clone(), call };
        match id {
            Some(id) if heavy && self.heavy.len() >= HEAVY_CALLS_MAX => {
                self.deferred.push_back((id, input));
                Ok(Input::Alive { socket: self.id, at })
            }
            Some(id) if heavy => {
                self.heavy.push(id);
                Ok(input)
            }
            _ => Ok(input),
        }
    }

    /// Notes that a call was answered. Where it was much work, the next of that is answered: the
    /// engine's turn.
    fn answered(&mut self, id: &Id) -> Option<Input> {
        self.in_flight = self.in_flight.saturating_sub(1);
        let place = self.heavy.iter().position(|heavy| heavy == id)?;
        self.heavy.swap_remove(place);
        let (id, next) = self.deferred.pop_front()?;
        self.heavy.push(id);
        Some(next)
    }

    async fn on_outgoing(&mut self, outgoing: Outgoing) -> Next {
        match outgoing {
            Outgoing::Answer { id, mut result } => {
                // Fails only when the engine is gone, which what is read next will tell.
                if let Some(next) = self.answered(&id) {
                    let _ = self.shared.handle.send(next).await;
                }
                match &mut result {
                    Ok(Answer::Opened(opened, secrets)) => {
                        self.handshake_by = None;
                        for claim in &mut opened.state.claims {
                            if let Some(refs) = secrets.remove(&claim.request_id) {
                                Box::pin(hand_out(&self.shared.handle, claim, refs)).await;
                            }
                        }
                    }
                    Ok(Answer::Claim(told)) => {
                        let refs = std::mem::take(&mut told.secrets);
                        Box::pin(hand_out(&self.shared.handle, &mut told.info, refs)).await;
                    }
                    // The session is closed: another may be opened, in good time.
                    Ok(Answer::Done(_)) => {
                        self.ping_at = None;
                        self.handshake_by = Some(boot_now().plus(millis(self.shared.process.limits.handshake_timeout)));
                    }
                    _ => {}
                }
                // It was heard and hears now: a ping would say no more.
                self.ping_at = self.ping_at.map(|at| at.max(self.last_read.at().plus(self.ping_every_ms)));
                self.write(message::answer(&id, &result)).await
            }
            Outgoing::Notice(mut notice) => {
                if let Notice::Granted(told) = &mut notice {
                    let refs = std::mem::take(&mut told.secrets);
                    Box::pin(hand_out(&self.shared.handle, &mut told.info, refs)).await;
                }
                self.write(message::notification(&notice)).await
            }
            Outgoing::PingEvery { ms } => {
                self.ping_every_ms = ms.clamp(PING_MS_MIN, PING_MS_MAX);
                self.ping_at = Some(boot_now().plus(self.ping_every_ms));
                self.handshake_by = None;
                Next::Go
            }
            Outgoing::Close { reason, text } => Next::Close(reason, text),
        }
    }

    fn on_timer(&mut self) -> Next {
        let now = boot_now();
        let over = |deadline: Option<BootTime>| deadline.is_some_and(|deadline| deadline <= now);
        if over(self.flush_by) {
            return slow_reader("what was written to it was not read in time");
        }
        if over(self.handshake_by) {
            let text = "no session was opened in time: call session.open or session.resume first".to_owned();
            return Next::Close(CloseReason::HandshakeTimeout, text);
        }
        if over(self.ping_at) {
            self.ping_at = Some(now.plus(self.ping_every_ms));
            // A stuck socket gets no further pings: it would only buffer them.
            if self.flush_by.is_none() {
                return self.buffer(Message::Ping(Vec::new().into()));
            }
        }
        Next::Go
    }

    async fn write(&mut self, text: String) -> Next {
        // Reads and writes are only done while the last write is not stuck, so this is at once.
        match std::future::poll_fn(|cx| Pin::new(&mut self.stream).poll_ready(cx)).await {
            Ok(()) => self.buffer(Message::text(text)),
            Err(_) => Next::Left { clean: false },
        }
    }

    fn buffer(&mut self, message: Message) -> Next {
        self.unflushed = true;
        match Pin::new(&mut self.stream).start_send(message) {
            Ok(()) => Next::Go,
            Err(_) => Next::Left { clean: false },
        }
    }

    /// Sends a Close and waits a little for the peer's, which is a drop whatever its code.
    async fn close(&mut self, reason: CloseReason, text: &str) {
        let (code, word) = reason.frame();
        let frame = CloseFrame { code: code.into(), reason: cut(&format!("{word}: {text}")).to_owned().into() };
        let whole = async {
            self.stream.send(Message::Close(Some(frame))).await?;
            if reason == CloseReason::TooLong { self.linger().await } else { self.read_to_end().await }
        };
        // A peer that neither reads nor answers is dropped.
        let _: Result<Result<(), WsError>, _> = tokio::time::timeout(CLOSE_TIMEOUT, whole).await;
    }

    async fn read_to_end(&mut self) -> Result<(), WsError> {
        while let Some(frame) = self.stream.next().await {
            frame?;
        }
        Ok(())
    }

    /// Reads what is left of a message that was too long, as closing with bytes unread would
    /// reset the connection and might take the Close with it.
    async fn linger(&mut self) -> Result<(), WsError> {
        let raw = self.stream.get_mut();
        raw.shutdown().await?;
        let mut scratch = [0_u8; 1024];
        let mut left = LINGER_BYTES_MAX;
        while left > 0 {
            match raw.read(&mut scratch).await? {
                0 => break,
                some => left = left.saturating_sub(some),
            }
        }
        Ok(())
    }
}

/// Whether a call may be a thousand times the work of another as long: a list, whose answer has all
/// that a session holds, and a claim whose expression is evaluated on a whole pool.
fn is_heavy(call: &Call) -> bool {
    match call {
        Call::List | Call::Provide { .. } => true,
        Call::Acquire { spec, .. } => spec.needs.iter().any(|need| need.expression.is_some()),
        _ => false,
    }
}

fn slow_reader(how: &str) -> Next {
    Next::Close(CloseReason::SlowReader, format!("{how}: read faster, then resume the session"))
}

/// What to do about a frame that cannot be read.
fn broken(error: &WsError) -> Next {
    match error {
        WsError::Capacity(_) => Next::Close(
            CloseReason::TooLong,
            format!("a message may have {} bytes", crate::protocol::MESSAGE_BYTES_MAX),
        ),
        WsError::Protocol(_) | WsError::Utf8(_) if !is_reset(error) => {
            Next::Close(CloseReason::Protocol, error.to_string())
        }
        _ => Next::Left { clean: false },
    }
}

fn is_reset(error: &WsError) -> bool {
    use tokio_tungstenite::tungstenite::error::ProtocolError;
    matches!(error, WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake))
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(REASON_BYTES_MAX)]
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
