//! The part of the schema that is about builds: repositories, their pipelines, hooks, logs, search.

use serde_json::{Map, Value, json};

use super::{duration, text};
use crate::builds::plan::{On, RETRIES_MAX};
use crate::core::limits::PRIORITY_MAX;
use crate::inventory::pipelines::pipeline_file::PIPELINE;
use crate::inventory::pipelines::pipeline_file::container::CONTAINER;
use crate::inventory::pipelines::{HOOK, HOOKS, LOGS, REPOSITORY, SEARCH};

/// The schema of one of the tables.
pub(super) fn of(table: &str) -> Value {
    match table {
        "hooks" => {
            let files = texts("Files with one secret each, beside those of the environment.");
            closed(HOOKS, |_| closed(HOOK, |_| files.clone(), &[]), &[])
        }
        "logs" => closed(LOGS, log, &[]),
        "search" => closed(SEARCH, search, &["url"]),
        "repository" => json!({ "type": "array", "items": closed(REPOSITORY, repository, &["name", "forge", "url"]) }),
        other => unreachable!("{other} is no table of builds"),
    }
}

fn closed(keys: &[&str], of: impl Fn(&str) -> Value, required: &[&str]) -> Value {
    let properties: Map<String, Value> = keys.iter().map(|key| ((*key).to_owned(), of(key))).collect();
    json!({ "type": "object", "additionalProperties": false, "properties": properties, "required": required })
}

fn log(key: &str) -> Value {
    match key {
        "url" => text("file:///folder or s3://bucket/prefix; else a folder beside the store."),
        "limit" => size("Bytes of one log that are kept, of its head and its tail."),
        "retention" => duration("How long builds and their logs are kept ..."),
        "keep" => {
            let description = "... and how many of each repository, however old.";
            json!({ "type": "integer", "minimum": 0, "description": description })
        }
        other => unreachable!("{other} is a key without a description here"),
    }
}

fn search(key: &str) -> Value {
    match key {
        "url" => text("A cluster of OpenSearch or Elasticsearch."),
        "user" => text("Its user."),
        "password" => secret(),
        other => unreachable!("{other} is a key without a description here"),
    }
}

fn repository(key: &str) -> Value {
    match key {
        "name" => text("The forge's full name of it, owner/name."),
        "forge" => json!({ "enum": ["github", "gitlab", "gitea", "forgejo"] }),
        "url" => text("What git fetches: a URL or a path, without a password."),
        "api" => text("Where the forge's API is; known for what is at the usual place."),
        "user" => text("The user that goes with the token, for git over HTTP."),
        "token" => secret(),
        "statuses" => json!({ "type": "boolean", "description": "Whether commit statuses are told." }),
        "pools" => texts("The pools that its pipelines may use, beside executors."),
        "secrets" => json!({
            "type": "object", "additionalProperties": secret(),
            "description": "Secrets that its pipelines may name, by the variable they become.",
        }),
        "mounts" => texts("Folders that its containers may mount, or folders within."),
        "pipeline" => json!({ "type": "array", "items": closed(PIPELINE, pipeline, &["name", "on"]) }),
        other => unreachable!("{other} is a key without a description here"),
    }
}

fn pipeline(key: &str) -> Value {
    match key {
        "name" => json!({ "type": "string", "pattern": "^[a-z][a-z0-9_-]{0,62}$" }),
        "on" => json!({ "type": "array", "items": { "enum": On::ALL.map(On::as_str) } }),
        "branches" => texts("Globs of the pushed branch, or of a pull request's base; a leading ! excludes."),
        "tags" => texts("Globs of tags; a leading ! excludes."),
        "paths" => texts("Globs of paths, of which one must have changed; a leading ! excludes."),
        "drafts" => json!({ "type": "boolean", "description": "Whether draft pull requests are built." }),
        "needs" => texts("What it needs beside its executor, each a NEED."),
        "agent" => text("What its agent must be: os=linux,arch=x86_64."),
        "run" => text("What is run, by sh -e -c."),
        "steps" => {
            json!({ "type": "array", "items": closed(&["name", "run"], |_| json!({ "type": "string" }), &["run"]) })
        }
        "container" => json!({ "anyOf": [text("An image."), closed(CONTAINER, container, &["image"])] }),
        "env" => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
        "secrets" => texts("Secrets of the repository that it is given, as variables."),
        "timeout" => duration("How long it may run."),
        "wait" => duration("How long it may wait."),
        "grace" => duration("How long its processes may take to end after TERM."),
        "priority" => json!({ "type": "integer", "minimum": -PRIORITY_MAX, "maximum": PRIORITY_MAX }),
        "concurrency" => json!({ "enum": ["supersede", "queue", "parallel"] }),
        "retries" => json!({
            "type": "integer", "minimum": 0, "maximum": RETRIES_MAX,
            "description": "How often it is tried again after its agent or its lease was lost.",
        }),
        other => unreachable!("{other} is a key without a description here"),
    }
}

fn container(key: &str) -> Value {
    match key {
        "image" => text("debian:bookworm."),
        "network" => json!({ "enum": ["bridge", "none", "host"] }),
        "mounts" => texts("HOST:CONTAINER or HOST:CONTAINER:ro."),
        "memory" => size("Bytes of memory."),
        "cpus" => json!({ "type": "number", "minimum": 0.01, "maximum": 1024 }),
        "pids" => json!({ "type": "integer", "minimum": 16, "maximum": 1_000_000 }),
        other => unreachable!("{other} is a key without a description here"),
    }
}

fn secret() -> Value {
    let one = |key: &str| {
        json!({ "type": "object", "additionalProperties": false, "required": [key],
        "properties": { key: { "type": "string" } } })
    };
    json!({ "description": "Where the broker finds it, never the value.", "anyOf": [one("env"), one("file")] })
}

fn size(description: &str) -> Value {
    json!({ "type": "string", "description": description, "examples": ["512KiB", "100MB", "2GiB"] })
}

fn texts(description: &str) -> Value {
    json!({ "type": "array", "items": { "type": "string" }, "description": description })
}
