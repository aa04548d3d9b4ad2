//! A connection of the load generator: the wire with as little work as it can be done with.
//!
//! It knows the protocol but not the client library, whose watch over leases would be measured
//! too. Requests are written into one text; of an answer only what the next request needs is
//! read. Whatever does not look as expected is read properly, so that nothing is miscounted.

use std::fmt::Write as _;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::Plan;
use crate::cli::Failure;
use crate::client::connect::{STEP_TIMEOUT, Socket};
use crate::client::default_owner;
use crate::clock;
use crate::protocol::call::{SessionOpened, method, notice};

/// A session on a socket of its own.
pub(super) struct Connection {
    socket: Socket,
    /// What stands before the number in an acquire, and between it and the request id, and after.
    acquire: [String; 2],
    calls: u64,
    requests: u64,
    text: String,
    /// Milliseconds.
    pub(super) ttl_ms: u64,
}

/// What came of an acquire, or of waiting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Claimed {
    /// The lease, and the name of its first resource.
    Granted(u64, String),
    Queued,
}

impl Connection {
    /// Connects and opens a session that will ask for `needs`.
    pub(super) async fn open(plan: &Plan, needs: &[String]) -> Result<Self, Failure> {
        let (socket, _) = plan.network.websocket(&plan.url, STEP_TIMEOUT).await?;
        let needs = Value::from(needs.to_vec());
        let acquire = [
            format!(r#","method":"{}","params":{{"request_id":"#, method::LEASE_ACQUIRE),
            format!(r#","needs":{needs}}}}}"#),
        ];
        let mut connection = Self { socket, acquire, calls: 0, requests: 0, text: String::new(), ttl_ms: 0 };
        let params = json!({ "instance": clock::random_secret(), "owner": default_owner(), "ttl_ms": plan.ttl_ms });
        let answer = connection.call(method::SESSION_OPEN, &params).await?;
        let opened: SessionOpened =
            serde_json::from_value(answer).map_err(|error| odd(&format!("to {}: {error}", method::SESSION_OPEN)))?;
        connection.ttl_ms = opened.ttl_ms;
        Ok(connection)
    }

    /// Asks for the needs.
    pub(super) async fn acquire(&mut self) -> Result<Claimed, Failure> {
        self.calls += 1;
        self.requests += 1;
        self.text.clear();
        let [before, after] = &self.acquire;
        let _ = write!(self.text, r#"{{"jsonrpc":"2.0","id":{}{before}{}{after}"#, self.calls, self.requests);
        self.send().await?;
        let answer = self.answer().await?;
        match lease_in(&answer) {
            Some((lease, name)) => Ok(Claimed::Granted(lease, name.to_owned())),
            None => claim_of(&answer),
        }
    }

    /// Waits for the grant of a claim that is queued.
    pub(super) async fn granted(&mut self) -> Result<(u64, String), Failure> {
        loop {
            let text = self.heard().await?;
            if !text.contains(notice::LEASE_GRANTED) {
                let message: Value = serde_json::from_str(&text).map_err(|error| odd(&error.to_string()))?;
                if message["method"] == notice::CLAIM_ENDED {
                    return Err(Failure::refused(message["params"]["end"]["message"].to_string()));
                }
                continue;
            }
            let (lease, name) = lease_in(&text).ok_or_else(|| odd("a grant without a lease"))?;
            return Ok((lease, name.to_owned()));
        }
    }

    /// Releases a lease.
    pub(super) async fn release(&mut self, lease: u64) -> Result<(), Failure> {
        self.calls += 1;
        self.text.clear();
        let (id, name) = (self.calls, method::LEASE_RELEASE);
        let _ = write!(self.text, r#"{{"jsonrpc":"2.0","id":{id},"method":"{name}","params":{{"lease":{lease}}}}}"#);
        self.send().await?;
        self.answer().await.map(drop)
    }

    /// Any call, for what is not measured often.
    pub(super) async fn call(&mut self, method: &str, params: &Value) -> Result<Value, Failure> {
        self.calls += 1;
        self.text = json!({ "jsonrpc": "2.0", "id": self.calls, "method": method, "params": params }).to_string();
        self.send().await?;
        let answer: Value = serde_json::from_str(&self.answer().await?).map_err(|error| odd(&error.to_string()))?;
        Ok(answer["result"].clone())
    }

    /// Reads whatever comes, answering pings, until the connection breaks.
    pub(super) async fn idle(&mut self) -> Failure {
        loop {
            if let Err(failure) = self.heard().await {
                return failure;
            }
        }
    }

    /// Closes cleanly: everything of the session is free at once.
    pub(super) async fn close(mut self) {
        // One that is broken already is closed too.
        if self.call(method::SESSION_CLOSE, &json!({})).await.is_ok() {
            let _ = self.socket.close(None).await;
        }
    }

    async fn send(&mut self) -> Result<(), Failure> {
        let message = Message::Text(self.text.as_str().into());
        self.socket.send(message).await.map_err(|error| broken(&error.to_string()))
    }

    /// The answer to the last call; refusals are failures.
    async fn answer(&mut self) -> Result<Utf8Bytes, Failure> {
        let mut id = String::new();
        let _ = write!(id, r#""id":{},"#, self.calls);
        loop {
            let text = self.heard().await?;
            // The envelope comes first, so neither search goes far.
            let head = text.get(..96).unwrap_or(&text);
            if head.contains(&id) && head.contains(r#""result":"#) {
                return Ok(text);
            }
            let message: Value = serde_json::from_str(&text).map_err(|error| odd(&error.to_string()))?;
            if message["id"] != self.calls {
                continue;
            }
            if let Some(error) = message.get("error") {
                return Err(Failure::refused(error["message"].as_str().unwrap_or("refused").to_owned()));
            }
            return Ok(text);
        }
    }

    async fn heard(&mut self) -> Result<Utf8Bytes, Failure> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => return Ok(text),
                Some(Ok(Message::Close(Some(frame)))) => {
                    return Err(broken(&format!("the broker closed with {}: {}", frame.code, frame.reason)));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(broken(&error.to_string())),
                None => return Err(broken("it ended")),
            }
        }
    }
}

/// The lease's number and the name of its first resource, by their place in a granted claim.
fn lease_in(text: &str) -> Option<(u64, &str)> {
    const LEASE: &str = r#""lease":{"lease":"#;
    const NAME: &str = r#""name":""#;
    let rest = &text[text.find(LEASE)? + LEASE.len()..];
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let lease = rest[..digits].parse().ok()?;
    let name = &rest[rest.find(NAME)? + NAME.len()..];
    Some((lease, &name[..name.find('"')?]))
}

/// The same, read properly.
fn claim_of(text: &str) -> Result<Claimed, Failure> {
    let message: Value = serde_json::from_str(text).map_err(|error| odd(&error.to_string()))?;
    let claim = &message["result"];
    match (claim["state"].as_str(), claim["lease"]["lease"].as_u64()) {
        (Some("queued"), _) => Ok(Claimed::Queued),
        (Some("granted"), Some(lease)) => {
            let pick = claim["lease"]["resources"].as_object().and_then(|map| map.values().next());
            let name = pick.and_then(|picks| picks[0]["name"].as_str()).unwrap_or_default();
            Ok(Claimed::Granted(lease, name.to_owned()))
        }
        _ => Err(Failure::refused(match claim["end"]["message"].as_str() {
            Some(message) => message.to_owned(),
            None => format!("an acquire was answered with {claim}"),
        })),
    }
}

fn odd(what: &str) -> Failure {
    Failure::refused(format!("the broker answers what is not understood: {what}"))
}

fn broken(what: &str) -> Failure {
    Failure::no_broker(format!("a connection broke: {what}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Claimed, claim_of, lease_in};

    #[test]
    fn a_grant_is_read_by_the_quick_way_and_by_the_slow_one() {
        let quick = concat!(
            r#"{"jsonrpc":"2.0","id":7,"result":{"request_id":3,"claim":9,"state":"granted","#,
            r#""lease":{"lease":42,"fence":42,"resources":{"bench":[{"name":"bench-0003","pool":"bench"}]}}}}"#,
        );
        assert_eq!(lease_in(quick), Some((42, "bench-0003")));
        let otherwise = json!({ "result": {
            "lease": { "fence": 42, "resources": { "bench": [{ "name": "bench-0003" }] }, "lease": 42 },
            "state": "granted",
        }});
        assert_eq!(lease_in(&otherwise.to_string()), None);
        assert_eq!(claim_of(&otherwise.to_string()), Ok(Claimed::Granted(42, "bench-0003".into())));
    }

    #[test]
    fn what_is_no_grant_is_not_taken_for_one() {
        let queued = json!({ "result": { "state": "queued", "in_the_way": [{ "lease": 3 }] } }).to_string();
        assert_eq!((lease_in(&queued), claim_of(&queued)), (None, Ok(Claimed::Queued)));
        let ended = json!({ "result": { "state": "ended", "end": { "message": "no such pool" } } }).to_string();
        assert_eq!(claim_of(&ended).map_err(|failure| failure.message), Err("no such pool".to_owned()));
    }
}
