//! What can go wrong for a client, by whose fault, each with what to do about it.
//!
//! One error type for WebSocket and HTTP, so that a command maps it to an exit code once.

use crate::protocol::error::{Problem, RpcError};
use crate::protocol::info::EndInfo;

/// Why a client could not do what it was asked. Cloned to everyone who waits for the same thing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// What the client was given cannot be used: a URL, a certificate file, a token file.
    #[error("{0}")]
    Config(String),
    /// The client was closed, or its runtime ended, before this was answered.
    #[error("the client is closed: open a new one")]
    Closed,
    /// The lease was lost: the broker could not be reached in time, and its resources may be
    /// another's by now.
    #[error("lease {lease} is lost: the broker did not renew it in time. Stop what uses it; ask for a new lease")]
    Lost {
        /// Its number.
        lease: u64,
    },
    /// A broker sends to another one in a way that is not followed.
    #[error("a redirect that is not followed: {0}")]
    Misdirected(String),
    /// Nobody answers. Nothing was decided by any broker.
    #[error("no broker: {0}")]
    NoBroker(String),
    /// Somebody answers who is no leasehold broker, or one in between who refuses.
    #[error("not a leasehold broker: {0}")]
    NotABroker(String),
    /// The broker, or whoever answers in its name, breaks the protocol.
    #[error("the broker's answer makes no sense: {0}. Is it a leasehold broker of another version?")]
    Protocol(String),
    /// The broker refuses, or a claim ended without a lease.
    #[error("{message}")]
    Refused {
        /// Stable: `impossible`, `timed_out`, `invalid_params` ...
        code: String,
        /// What, what was expected, what to do next.
        message: String,
        /// The alias of the need that fails, where one does.
        need: Option<String>,
    },
    /// The session has ended at the broker, and all its leases and claims with it.
    #[error("the session has ended at the broker: {0}. Open a new session and ask again")]
    SessionGone(String),
    /// It was sent, no answer came, and doing it twice might not be the same as doing it once.
    #[error("{0}. It is not known whether this was done: look before you ask for it again")]
    Unanswered(String),
}

impl ClientError {
    /// The stable word for it: the broker's code, or the client's own.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::Closed => "closed",
            Self::Config(_) => "config",
            Self::Lost { .. } => "lost",
            Self::Misdirected(_) => "misdirected",
            Self::NoBroker(_) => "no_broker",
            Self::NotABroker(_) => "not_a_broker",
            Self::Protocol(_) => "protocol",
            Self::Refused { code, .. } => code,
            Self::SessionGone(_) => "session_gone",
            Self::Unanswered(_) => "unanswered",
        }
    }

    /// Whether no broker was there to decide, so that the same question may be asked again later.
    #[must_use]
    pub fn is_no_broker(&self) -> bool {
        matches!(self, Self::Misdirected(_) | Self::NoBroker(_) | Self::NotABroker(_))
    }

    /// Whether the same may be asked again in a moment, of this broker or of another: it was not done,
    /// and nobody said that it will not be.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Refused { code, .. } => is_passing(code),
            other => other.is_no_broker(),
        }
    }

    /// What is wrong, without the words in front that say of what kind it is.
    pub(crate) fn why(&self) -> String {
        match self {
            Self::Misdirected(why) | Self::NoBroker(why) | Self::NotABroker(why) => why.clone(),
            other => other.to_string(),
        }
    }

    /// A refusal of the client's own, in the broker's form.
    pub(crate) fn refused(code: &str, message: impl Into<String>) -> Self {
        Self::Refused { code: code.to_owned(), message: message.into(), need: None }
    }
}

/// What to do about a broker that cannot be reached; the end of what is said of it.
pub(crate) const ADVICE: &str = ". Is it running, and is LEASEHOLD_URL right?";

/// What is wrong with each URL, in one text: what is in another's words already, and the advice, once.
pub(crate) fn told_together(whys: &[String]) -> String {
    let bare: Vec<&str> = whys.iter().map(|why| why.strip_suffix(ADVICE).unwrap_or(why)).collect();
    let is_told = |at: usize, why: &str| {
        bare.iter().enumerate().any(|(other, told)| told.ends_with(why) && (told.len() > why.len() || other < at))
    };
    let told: Vec<&str> = (0..).zip(&bare).filter(|(at, why)| !is_told(*at, why)).map(|(_, why)| *why).collect();
    let advice = if whys.iter().any(|why| why.ends_with(ADVICE)) { ADVICE } else { "" };
    told.join("; ") + advice
}

/// Whether a broker's code says that the same may be asked again later.
pub(crate) fn is_passing(code: &str) -> bool {
    use crate::protocol::error::code::{OVERLOADED, STANDBY, UNAVAILABLE};
    matches!(code, OVERLOADED | STANDBY | UNAVAILABLE | "stopping" | "too_many_sessions")
}

impl From<RpcError> for ClientError {
    fn from(error: RpcError) -> Self {
        if error.data.code == crate::protocol::error::code::SESSION_GONE {
            return Self::SessionGone(error.message);
        }
        let code = if error.data.code.is_empty() { error.code.to_string() } else { error.data.code };
        Self::Refused { code, message: error.message, need: error.data.need }
    }
}

impl From<EndInfo> for ClientError {
    fn from(end: EndInfo) -> Self {
        Self::Refused { code: end.code, message: end.message, need: end.need }
    }
}

impl From<Problem> for ClientError {
    fn from(problem: Problem) -> Self {
        Self::Refused { code: problem.code, message: problem.detail, need: problem.need }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_each_url_is_told_once() {
        let gone = format!("ws://b:1: refused{ADVICE}");
        assert_eq!(told_together(std::slice::from_ref(&gone)), gone);
        let sent = format!("ws://a:1 sends to {gone}");
        let silent = "ws://c:1: no answer".to_owned();
        let told = told_together(&[sent, gone.clone(), silent.clone(), gone]);
        assert_eq!(told, format!("ws://a:1 sends to ws://b:1: refused; ws://c:1: no answer{ADVICE}"));
        assert_eq!(told_together(&[silent.clone(), silent.clone()]), silent);
        assert_eq!(told_together(&[]), "");
    }
}
