//! The wire: what clients and brokers of `leasehold.v1` say to each other.
//!
//! The messages are these Rust types, used by both ends; the schemas under `schema/` are made
//! from them and a test keeps them current. Nothing here knows the core: the server turns these
//! into the core's words, where they are checked.
//!
//! Rules of the version: unknown fields are ignored, unknown methods get the standard error,
//! errors carry a stable `data.code`. Every moment is an integer of lab milliseconds with an
//! RFC 3339 twin whose name ends in `_time`; every duration is an integer of milliseconds whose
//! name ends in `_ms`; every answer carries the lab's `now`.

pub mod builds;
pub mod call;
pub mod error;
pub mod http;
pub mod info;
pub mod log_times;
pub mod rpc;
pub mod schema;

/// The WebSocket subprotocol both ends must speak.
pub const SUBPROTOCOL: &str = "leasehold.v1";
/// Where the WebSocket lives, below the base URL.
pub const WEBSOCKET_PATH: &str = "/v1/ws";
/// The port of a broker that names none.
pub const PORT_DEFAULT: u16 = 5327;
/// The base URL when `LEASEHOLD_URL` is not set.
pub const URL_DEFAULT: &str = "ws://127.0.0.1:5327";
/// Bytes of one message in either direction; a longer one closes the connection with 1009.
pub const MESSAGE_BYTES_MAX: usize = 256 * 1024;
/// Bytes of an inventory sent over HTTP.
pub const INVENTORY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The header that carries the key of a lease without a socket.
pub const LEASE_KEY_HEADER: &str = "leasehold-key";
