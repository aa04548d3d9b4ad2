//! The JSON Schema of `leasehold.toml`, for editors that check TOML against one.
//!
//! Made from the lists that the reader itself goes by, so that neither knows a key the other
//! does not; a test keeps the committed file current.

mod pipelines;

use serde_json::{Map, Value, json};

use super::config::{COUNT_MAX, KEYS, LIMITS};

/// The schema, as it stands in `schema/config.schema.json`.
#[must_use]
pub fn document() -> Value {
    let bounds: Map<String, Value> = LIMITS.iter().map(|key| ((*key).to_owned(), bound(key))).collect();
    let limits = json!({ "type": "object", "additionalProperties": false, "properties": bounds });
    let keys = KEYS.iter().map(|key| {
        let schema = match *key {
            "limits" => limits.clone(),
            "restart_grace" => duration("What a planned stop promises to those who renew."),
            "retention" => duration("How long the journal and ended leases are kept."),
            "listen" => text("HOST:PORT, such as 127.0.0.1:5327."),
            "store" => text("sqlite:PATH, a relative path starts from this file's folder; or postgres://..."),
            "advertise" => text("Where clients reach this broker, told by the others that share its store."),
            "term" => duration("How long a leader is left alone that writes nothing, from 1s to 1m."),
            "inventory" => text("The inventory file; a relative path starts from this file's folder."),
            "public_url" => text("Where people and forges reach the broker, for links."),
            "hooks" | "repository" | "logs" | "search" => pipelines::of(key),
            other => unreachable!("{other} is a key without a description here"),
        };
        ((*key).to_owned(), schema)
    });
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "leasehold.toml",
        "type": "object",
        "additionalProperties": false,
        "properties": keys.collect::<Map<String, Value>>(),
    })
}

fn bound(key: &str) -> Value {
    if key.ends_with("_timeout") {
        return duration("From 1s to 10m.");
    }
    json!({ "type": "integer", "minimum": 1, "maximum": COUNT_MAX })
}

fn duration(description: &str) -> Value {
    json!({ "type": "string", "description": description, "examples": ["500ms", "90s", "10m", "1h30m", "30d"] })
}

fn text(description: &str) -> Value {
    json!({ "type": "string", "description": description })
}
