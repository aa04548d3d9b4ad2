//! The text of messages: JSON-RPC in and out.
//!
//! Reading gives a call whose form is checked, or the error to answer with; the connection goes
//! on either way. Writing never fails: everything told is made of the wire's own types.

use std::net::IpAddr;

use serde::Serialize;
use serde_json::error::Category;

use crate::engine::input::{Answer, Call, Notice};
use crate::protocol::call::{RenewNow, notice};
use crate::protocol::error::{RpcError, code};
use crate::protocol::rpc::{self, Id, Incoming};
use crate::server::convert;

/// Bytes of an id given as text. It is kept until the answer goes out.
const ID_BYTES_MAX: usize = 256;

/// What a text frame turned out to be.
#[derive(Debug)]
pub(crate) enum Read {
    /// A call, or a notification where there is no id.
    Call(Option<Id>, Call),
    /// An answer to something the broker never asked: nothing to do.
    Nothing,
    /// To be answered so. Without an id where none could be read.
    Refused(Option<Id>, RpcError),
}

/// Reads a text frame.
pub(crate) fn read(text: &str, peer: IpAddr) -> Read {
    let incoming: Incoming<'_> = match serde_json::from_str(text) {
        Ok(incoming) => incoming,
        Err(error) => return unreadable(text, &error),
    };
    let refuse = |message: &str| RpcError::new(code::INVALID_REQUEST, message);
    let Some(method) = incoming.method else {
        if incoming.result.is_some() || incoming.error.is_some() {
            return Read::Nothing;
        }
        return Read::Refused(
            incoming.id,
            refuse("`method` is missing: send {\"jsonrpc\": \"2.0\", \"id\", \"method\", \"params\"}"),
        );
    };
    if incoming.jsonrpc.as_deref() != Some("2.0") {
        return Read::Refused(incoming.id, refuse("`jsonrpc` must be \"2.0\": this is JSON-RPC 2.0"));
    }
    if matches!(&incoming.id, Some(Id::Text(text)) if text.len() > ID_BYTES_MAX) {
        return Read::Refused(
            None,
            refuse("`id` is too long: expected a whole number, or a text of at most 256 bytes"),
        );
    }
    match convert::call(&method, incoming.params, peer) {
        Ok(call) => Read::Call(incoming.id, call),
        Err(error) => Read::Refused(incoming.id, error),
    }
}

fn unreadable(text: &str, error: &serde_json::Error) -> Read {
    if error.classify() != Category::Data {
        let message = format!("the message is no JSON: {error}");
        return Read::Refused(None, RpcError::new(code::PARSE_ERROR, message));
    }
    let refuse = |id, message: String| Read::Refused(id, RpcError::new(code::INVALID_REQUEST, message));
    match serde_json::from_str(text) {
        Ok(serde_json::Value::Object(object)) => {
            let id = object.get("id").and_then(|id| serde_json::from_value(id.clone()).ok());
            let problem = if id.is_none() && object.get("id").is_some_and(|id| !id.is_null()) {
                "`id` is neither a whole number from 0 nor a text".to_owned()
            } else {
                format!("the message is no JSON-RPC request: {}", convert::without_place(error))
            };
            refuse(id, problem)
        }
        Ok(serde_json::Value::Array(_)) => {
            refuse(None, "batches are not spoken: send each request as a message of its own".to_owned())
        }
        Ok(_) => refuse(
            None,
            "the message is no object: send {\"jsonrpc\": \"2.0\", \"id\", \"method\", \"params\"}".to_owned(),
        ),
        // Well-formed up to where reading stopped, and broken after it.
        Err(error) => Read::Refused(None, RpcError::new(code::PARSE_ERROR, format!("the message is no JSON: {error}"))),
    }
}

/// The text of an answer.
pub(crate) fn answer(id: &Id, result: &Result<Answer, RpcError>) -> String {
    match result {
        Ok(Answer::Opened(opened, _)) => success(id, opened),
        Ok(Answer::Renewed(renewed)) => success(id, renewed),
        Ok(Answer::Claim(told)) => success(id, &told.info),
        Ok(Answer::Released(released)) => success(id, released),
        Ok(Answer::Lease(lease)) => success(id, lease),
        Ok(Answer::State(state)) => success(id, state),
        Ok(Answer::Applied(applied)) => success(id, applied),
        Ok(Answer::Done(done)) => success(id, done),
        Err(error) => failure(Some(id), error),
    }
}

/// The text of an error answer.
pub(crate) fn failure(id: Option<&Id>, error: &RpcError) -> String {
    text(&rpc::Response::<()> { jsonrpc: "2.0", id, result: None, error: Some(error) })
}

fn success<R: Serialize>(id: &Id, result: R) -> String {
    text(&rpc::Response { jsonrpc: "2.0", id: Some(id), result: Some(result), error: None })
}

/// The text of a notification.
pub(crate) fn notification(told: &Notice) -> String {
    match told {
        // One whose secrets could not be read has ended by now.
        Notice::Granted(told) if told.info.end.is_some() => notify(notice::CLAIM_ENDED, &told.info),
        Notice::Granted(told) => notify(notice::LEASE_GRANTED, &told.info),
        Notice::Ending(ending) => notify(notice::LEASE_ENDING, ending),
        Notice::Ended(released) => notify(notice::LEASE_ENDED, released),
        Notice::Extended(lease) => notify(notice::LEASE_EXTENDED, lease),
        Notice::Offline(reach) => notify(notice::LEASE_OFFLINE, reach),
        Notice::Online(reach) => notify(notice::LEASE_ONLINE, reach),
        Notice::Superseded(by) => notify(notice::PROVIDER_SUPERSEDED, by),
        Notice::Waiting(claim) => notify(notice::CLAIM_WAITING, claim),
        Notice::ClaimEnded(claim) => notify(notice::CLAIM_ENDED, claim),
        Notice::RenewNow => notify(notice::SESSION_RENEW_NOW, RenewNow {}),
        Notice::Store(store) => notify(notice::STORE_STATE, store),
    }
}

fn notify<P: Serialize>(method: &str, params: P) -> String {
    text(&rpc::Notice { jsonrpc: "2.0", method, params })
}

fn text(message: &impl Serialize) -> String {
    // As long as a grant usually is, so that it is not moved as it grows.
    let mut text = Vec::with_capacity(1_024);
    serde_json::to_writer(&mut text, message)
        .expect("the wire's types have only keys that are texts, and finite numbers");
    String::from_utf8(text).expect("JSON is written as UTF-8")
}

#[cfg(test)]
mod tests {
    use super::{IpAddr, Read, answer, failure, notification, read};
    use crate::engine::input::{Answer, Call, Notice};
    use crate::protocol::call::SessionRenewed;
    use crate::protocol::error::RpcError;
    use crate::protocol::rpc::Id;

    const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn what_is_no_request_is_refused_with_the_id_where_there_is_one() {
        let table: &[(&str, Option<u64>, i32, &str)] = &[
            ("", None, -32700, "parse_error"),
            ("{\"jsonrpc\":", None, -32700, "parse_error"),
            ("hello", None, -32700, "parse_error"),
            ("{\"jsonrpc\":\"2.0\",\"method\":7,", None, -32700, "parse_error"),
            ("7", None, -32600, "invalid_request"),
            ("[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"lease.list\"}]", None, -32600, "invalid_request"),
            ("[]", None, -32600, "invalid_request"),
            ("{}", None, -32600, "invalid_request"),
            ("{\"jsonrpc\":\"2.0\",\"id\":1}", Some(1), -32600, "invalid_request"),
            ("{\"id\":2,\"method\":\"lease.list\"}", Some(2), -32600, "invalid_request"),
            ("{\"jsonrpc\":\"1.0\",\"id\":3,\"method\":\"lease.list\"}", Some(3), -32600, "invalid_request"),
            ("{\"jsonrpc\":\"2.0\",\"id\":4,\"method\":7}", Some(4), -32600, "invalid_request"),
            ("{\"jsonrpc\":\"2.0\",\"id\":-1,\"method\":\"lease.list\"}", None, -32600, "invalid_request"),
            ("{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"lease.list\"}", None, -32600, "invalid_request"),
            ("{\"jsonrpc\":\"2.0\",\"id\":5,\"method\":\"fly\"}", Some(5), -32601, "unknown_method"),
            ("{\"jsonrpc\":\"2.0\",\"id\":6,\"method\":\"lease.release\"}", Some(6), -32602, "invalid_params"),
        ];
        for (text, id, number, code) in table {
            let Read::Refused(got, error) = read(text, LOCAL) else { panic!("{text} was read") };
            assert_eq!(got, id.map(Id::Number), "{text}");
            assert_eq!((error.code, error.data.code.as_str()), (*number, *code), "{text}: {error}");
        }
    }

    #[test]
    fn calls_notifications_and_answers_are_told_apart() {
        assert!(matches!(
            read("{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"method\":\"lease.list\",\"more\":1}", LOCAL),
            Read::Call(Some(Id::Text(_)), Call::List)
        ));
        assert!(matches!(
            read("{\"jsonrpc\":\"2.0\",\"method\":\"session.renew\"}", LOCAL),
            Read::Call(None, Call::Renew { .. })
        ));
        assert!(matches!(read("{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}", LOCAL), Read::Nothing));
    }

    #[test]
    fn answers_carry_the_id_they_were_asked_with() {
        let renewed = SessionRenewed { renewal: 4, promise_ms: 30_000, ..SessionRenewed::default() };
        let text = answer(&Id::Number(7), &Ok(Answer::Renewed(renewed)));
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&json["jsonrpc"], &json["id"], &json["result"]["renewal"]), (&"2.0".into(), &7.into(), &4.into()));
        let text = failure(None, &RpcError::new("parse_error", "no"));
        assert!(text.contains("\"id\":null") && text.contains("\"code\":-32700"), "{text}");
        assert_eq!(
            notification(&Notice::RenewNow),
            "{\"jsonrpc\":\"2.0\",\"method\":\"session.renew_now\",\"params\":{}}"
        );
    }
}
