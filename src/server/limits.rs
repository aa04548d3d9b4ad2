//! The server's bounds, each with what happens at it.
//!
//! What an operator may set under `[limits]` is a field of [`Limits`]; what the wire format or a
//! session's memory rests on is a constant. The core's own bounds are in `core::limits`.

use std::time::Duration;

/// Bytes that a socket reads or writes at once; a session that idles keeps this much. Longer
/// messages grow the buffers for as long as they pass.
pub const SOCKET_BUFFER_BYTES: usize = 1024;
/// Bytes of the head of an HTTP request. A longer one is answered 431.
pub const HEADER_BYTES_MAX: usize = 16 * 1024;
/// Header fields of an HTTP request. More are answered 431.
pub const HEADERS_MAX: usize = 64;
/// Bytes of the body of an HTTP request, but for an inventory. A longer one is answered 413.
pub const BODY_BYTES_MAX: usize = 256 * 1024;
/// How long a whole HTTP body may take to arrive. A slower one is answered 408.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the broker waits for the peer's half of closing a socket before it drops it.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes read and thrown away after a message that was too long, so that the peer reads why the
/// socket closes rather than a reset.
pub const LINGER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Calls of one socket that are much work (`lease.list`, claims with an expression) that the engine
/// has at a time. Further ones wait in the socket's task, and count among its calls in flight.
pub const HEAVY_CALLS_MAX: usize = 2;
/// Followers of `/v1/events` at one time. One more is answered 503.
pub const FOLLOWERS_MAX: usize = 256;
/// Followers of logs at one time. One more is answered 503.
pub const LOG_FOLLOWERS_MAX: usize = 256;
/// Events a follower is sent from one reading of the journal.
pub const EVENTS_PER_READ_MAX: usize = 500;
/// Items on a page of a listing; more are asked for with `cursor`.
pub const PAGE_ITEMS_MAX: usize = 1_000;
/// Items on a page that names no limit.
pub const PAGE_ITEMS_DEFAULT: usize = 200;
/// Longest time between two pings, and between two comments of `/v1/events`.
pub const PING_MS_MAX: u64 = 20_000;

/// Bounds an operator may set under `[limits]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open connections, WebSocket and HTTP together. One more is answered 503 and closed.
    pub connections_max: usize,
    /// How long a connection may take to send the head of a request, and a WebSocket to open or
    /// resume a session. Then an HTTP connection is closed and a WebSocket gets Close 4002.
    pub handshake_timeout: Duration,
    /// Messages that wait to be written to one socket. One more, and the client reads too slowly:
    /// Close 4001; it may resume.
    pub outbound_messages_max: usize,
    /// How long one write to a socket may take. Longer, and the client reads too slowly: Close 4001.
    pub flush_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 16_384,
            handshake_timeout: Duration::from_secs(10),
            outbound_messages_max: 2_048,
            flush_timeout: Duration::from_secs(10),
        }
    }
}

impl Limits {
    /// Calls of one socket that may wait for their answer. One more is refused as `overloaded`;
    /// so answers alone never fill what waits to be written.
    #[must_use]
    pub fn calls_in_flight_max(&self) -> usize {
        (self.outbound_messages_max / 4).max(1)
    }
}
