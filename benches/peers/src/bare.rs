//! The messages of the bare path: acquire any free resource, release it.

use serde::{Deserialize, Serialize};

#[derive(Deserialize, Serialize)]
pub struct Request<'a> {
    #[serde(rename = "type")]
    pub kind: &'a str,
    pub id: u64,
    pub client: &'a str,
    pub pool: &'a str,
    pub resource: i64,
    pub lease: i64,
    pub ttl_ms: u64,
}

#[derive(Deserialize, Serialize)]
pub struct Reply<'a> {
    #[serde(rename = "type")]
    pub kind: &'a str,
    pub id: u64,
    pub pool: &'a str,
    pub resource: i64,
    pub lease: i64,
    pub expires_at_ms: u64,
}
