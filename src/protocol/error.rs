//! Errors on the wire: the JSON-RPC error, its stable codes, and what each is over HTTP.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An error as it stands in a JSON-RPC answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{message}")]
pub struct RpcError {
    /// JSON-RPC's number: -32700 parse, -32600 request, -32601 method, -32602 parameters,
    /// -32000 everything that the broker refuses.
    pub code: i32,
    /// For people: what, what was expected, what to do next.
    pub message: String,
    /// For programs.
    pub data: ErrorData,
}

/// The machine-readable half of an error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ErrorData {
    /// Stable; see `docs/protocol.md` for the table.
    pub code: String,
    /// The alias of the need that fails, where one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub need: Option<String>,
}

/// Codes the wire itself adds to the core's.
pub mod code {
    /// The message is no JSON.
    pub const PARSE_ERROR: &str = "parse_error";
    /// The message is JSON and no request.
    pub const INVALID_REQUEST: &str = "invalid_request";
    /// No such method.
    pub const UNKNOWN_METHOD: &str = "unknown_method";
    /// A parameter is missing, of the wrong type or out of its range.
    pub const INVALID_PARAMS: &str = "invalid_params";
    /// The first call on a socket must open, resume or close a session.
    pub const NO_SESSION: &str = "no_session";
    /// The socket has a session already.
    pub const SESSION_ALREADY_OPEN: &str = "session_already_open";
    /// The broker could not store it: it was not done, repeat it with the same request id.
    pub const UNAVAILABLE: &str = "unavailable";
    /// More requests wait than the broker holds; repeat later.
    pub const OVERLOADED: &str = "overloaded";
    /// The request came in a way that is not admitted (Host, Origin, forwarding).
    pub const NOT_ADMITTED: &str = "not_admitted";
    /// Binary frames are not spoken.
    pub const BINARY_FRAME: &str = "binary_frame";
    /// The session has ended, or the secret is not its secret.
    pub const SESSION_GONE: &str = "session_gone";
    /// This broker stands by: another leads, and `leader` says where it is when that is known.
    pub const STANDBY: &str = "standby";
}

impl RpcError {
    /// An error of the broker's own kind with a stable code.
    #[must_use]
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        let number = match code {
            code::PARSE_ERROR => -32700,
            code::INVALID_REQUEST => -32600,
            code::UNKNOWN_METHOD => -32601,
            code::INVALID_PARAMS => -32602,
            _ => -32000,
        };
        Self { code: number, message: message.into(), data: ErrorData { code: code.to_owned(), need: None } }
    }

    /// The HTTP status that says the same.
    #[must_use]
    pub fn http_status(&self) -> u16 {
        match self.data.code.as_str() {
            code::PARSE_ERROR
            | code::INVALID_REQUEST
            | code::INVALID_PARAMS
            | "invalid_need"
            | "invalid_inventory"
            | "too_many_needs"
            | "too_many_picks"
            | "alias_collision"
            | "not_in_this_version" => 400,
            code::NOT_ADMITTED | "forbidden" => 403,
            "not_found" | code::UNKNOWN_METHOD => 404,
            "session_gone" | "lease_ended" | "attempt_over" => 410,
            "impossible" | "hold_too_long" | "over_cap" | "priority_too_high" | "too_complex" => 422,
            "too_many_sessions" | "too_many_builds" | "too_many_claims" | "too_many_leases" | "too_many_requests" => {
                429
            }
            code::UNAVAILABLE | code::OVERLOADED | code::STANDBY | "stopping" => 503,
            _ => 409,
        }
    }
}

/// A problem as RFC 9457 has it, the body of every HTTP error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// `urn:leasehold:` and the stable code.
    #[serde(rename = "type")]
    pub kind: String,
    /// The code in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What, what was expected, what to do next.
    pub detail: String,
    /// The stable code.
    pub code: String,
    /// The alias of the need that fails, where one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub need: Option<String>,
    /// Where the broker is that leads, told by one that stands by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
}

impl From<&RpcError> for Problem {
    fn from(error: &RpcError) -> Self {
        Self {
            kind: format!("urn:leasehold:{}", error.data.code),
            title: error.data.code.replace('_', " "),
            status: error.http_status(),
            detail: error.message.clone(),
            code: error.data.code.clone(),
            need: error.data.need.clone(),
            leader: None,
        }
    }
}

/// Why the broker closes a socket: the code of its Close frame. The reason's text begins with
/// the word given here. The broker never sends 1000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The broker stops; resume with it, or with another, when it is back. 1001.
    Stopping,
    /// The broker leads the lab no more; resume with the one that does, as it tells. 1001.
    Standby,
    /// The client broke the protocol. 1002.
    Protocol,
    /// A binary frame. 1003.
    Binary,
    /// A message over the size limit. 1009.
    TooLong,
    /// The session was resumed on another socket. 4000.
    Superseded,
    /// The client reads too slowly. 4001.
    SlowReader,
    /// No session was opened in time. 4002.
    HandshakeTimeout,
    /// The session has ended: it expired or was kicked. 4003.
    SessionEnded,
    /// The broker has as many connections as it may. 1013.
    TooMany,
}

impl CloseReason {
    /// The code and the word.
    #[must_use]
    pub const fn frame(self) -> (u16, &'static str) {
        match self {
            Self::Stopping => (1001, "stopping"),
            Self::Standby => (1001, "standby"),
            Self::Protocol => (1002, "protocol"),
            Self::Binary => (1003, "binary_frame"),
            Self::TooLong => (1009, "message_too_long"),
            Self::TooMany => (1013, "too_many_connections"),
            Self::Superseded => (4000, "superseded"),
            Self::SlowReader => (4001, "slow_reader"),
            Self::HandshakeTimeout => (4002, "handshake_timeout"),
            Self::SessionEnded => (4003, "session_ended"),
        }
    }
}
