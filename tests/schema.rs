//! The descriptions under `schema/` are what the types say.
//!
//! `UPDATE_SCHEMA=1 cargo test --test schema` writes them anew after a change of the wire that
//! is meant.

use std::path::Path;

#[test]
fn the_descriptions_are_current() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema");
    let update = std::env::var_os("UPDATE_SCHEMA").is_some();
    let config = ("config.schema.json", leasehold::inventory::config_schema::document());
    for (name, document) in leasehold::protocol::schema::documents().into_iter().chain([config]) {
        let mut current = serde_json::to_string_pretty(&document).expect("a document is JSON");
        current.push('\n');
        let path = folder.join(name);
        if update {
            std::fs::create_dir_all(&folder).expect("schema/ can be made");
            std::fs::write(&path, current).expect("schema/ can be written");
            continue;
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == current,
            "schema/{name} is not what the types say: if the change of the wire is meant, run \
             `UPDATE_SCHEMA=1 cargo test --test schema` and commit it"
        );
    }
}

#[test]
fn every_reference_has_its_definition() {
    for (name, document) in leasehold::protocol::schema::documents() {
        let mut references = Vec::new();
        collect(&document, &mut references);
        assert!(references.len() > 20, "{name} refers to {} types only", references.len());
        for reference in references {
            let pointer = reference.strip_prefix('#').expect("references stay in the document");
            assert!(document.pointer(pointer).is_some(), "{name}: {reference} leads nowhere");
        }
    }
}

fn collect(value: &serde_json::Value, references: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            references.extend(fields.get("$ref").and_then(|reference| reference.as_str()).map(str::to_owned));
            fields.values().for_each(|value| collect(value, references));
        }
        serde_json::Value::Array(items) => items.iter().for_each(|value| collect(value, references)),
        _ => {}
    }
}
