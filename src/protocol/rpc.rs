//! The JSON-RPC 2.0 envelope: requests, answers, notifications.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::error::RpcError;

/// A request or notification as it arrives; parameters are read once the method is known.
#[derive(Debug, Deserialize)]
pub struct Incoming<'a> {
    /// `"2.0"`; anything else is refused.
    #[serde(borrow)]
    pub jsonrpc: Option<std::borrow::Cow<'a, str>>,
    /// What is asked. `None` in an answer.
    #[serde(borrow)]
    pub method: Option<std::borrow::Cow<'a, str>>,
    /// Its parameters.
    #[serde(borrow)]
    pub params: Option<&'a RawValue>,
    /// The number the answer will carry; a request without one is a notification.
    pub id: Option<Id>,
    /// In an answer: what came of it.
    #[serde(borrow)]
    pub result: Option<&'a RawValue>,
    /// In an answer: what went wrong.
    pub error: Option<RpcError>,
}

/// What ties an answer to its request: a number or a text, chosen by the asker.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Id {
    /// A whole number.
    Number(u64),
    /// A text.
    Text(String),
}

/// A request on its way out.
#[derive(Debug, Serialize)]
pub struct Request<'a, P> {
    /// Always `"2.0"`.
    pub jsonrpc: &'a str,
    /// The number the answer will carry.
    pub id: u64,
    /// What is asked.
    pub method: &'a str,
    /// Its parameters.
    pub params: P,
}

/// An answer on its way out.
#[derive(Debug, Serialize)]
pub struct Response<'a, R> {
    /// Always `"2.0"`.
    pub jsonrpc: &'a str,
    /// The request's.
    pub id: Option<&'a Id>,
    /// What came of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<R>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'a RpcError>,
}

/// A notification on its way out.
#[derive(Debug, Serialize)]
pub struct Notice<'a, P> {
    /// Always `"2.0"`.
    pub jsonrpc: &'a str,
    /// What is told.
    pub method: &'a str,
    /// Its parameters.
    pub params: P,
}
