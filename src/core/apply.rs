//! Making the inventory what a file, or an admin, says it is: the difference, as events.

use super::inventory::{Pool, ResourceSpec};
use super::limits::{LABELS_PER_RESOURCE_MAX, SLOTS_MAX, VALUE_BYTES_MAX};
use super::refusal::{Code, Refusal};
use super::types::{Key, ResourceName, Value};

/// An inventory as declared, defaults of the pools already merged into the resources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    /// Every pool that is defined, once. A pool that resources only name has the default policy.
    pub pools: Vec<Pool>,
    /// Every resource, once.
    pub resources: Vec<DeclaredResource>,
}

/// A resource as declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclaredResource {
    /// What it is to be.
    pub spec: ResourceSpec,
    /// The name it had before, for a rename.
    pub was: Option<ResourceName>,
}

/// One difference, for people and for `--dry-run`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// `add`, `change`, `rename` or `remove`.
    pub action: &'static str,
    /// `pool` or `resource`.
    pub what: &'static str,
    /// Its name.
    pub name: String,
    /// What is different, in words.
    pub detail: String,
    /// Whether it waits for the last holder.
    pub pending: bool,
}

/// Whether a label may be called so and have this value.
///
/// # Errors
/// `invalid_inventory`, with what is wrong.
pub fn check_label(key: &Key, value: &Value) -> Result<(), Refusal> {
    check_value("label", key, value)
}

/// Whether a property may be called so and have this value.
///
/// # Errors
/// `invalid_inventory`, with what is wrong.
pub fn check_property(key: &Key, value: &Value) -> Result<(), Refusal> {
    check_value("property", key, value)
}

/// Whether a secret may be called so.
///
/// # Errors
/// `invalid_inventory`, with what is wrong.
pub fn check_secret(_key: &Key) -> Result<(), Refusal> {
    Ok(())
}

fn check_value(what: &str, key: &Key, value: &Value) -> Result<(), Refusal> {
    let Value::Text(text) = value else { return Ok(()) };
    if text.len() > VALUE_BYTES_MAX {
        let got = text.len();
        return invalid(format!("{what} \"{key}\" has {got} bytes: expected at most {VALUE_BYTES_MAX}"));
    }
    if text.contains('\0') {
        return invalid(format!("{what} \"{key}\" contains a NUL, which no environment variable can have: remove it"));
    }
    Ok(())
}

/// Whether a resource, by itself, can be on the books.
///
/// # Errors
/// `invalid_inventory`, with what is wrong.
pub fn check_spec(spec: &ResourceSpec) -> Result<(), Refusal> {
    let name = &spec.name;
    for (what, count) in
        [("labels", spec.labels.len()), ("properties", spec.properties.len()), ("secrets", spec.secrets.len())]
    {
        if count > LABELS_PER_RESOURCE_MAX {
            return invalid(format!(
                "resource \"{name}\" has {count} {what}: expected at most {LABELS_PER_RESOURCE_MAX}"
            ));
        }
    }
    if !(1..=SLOTS_MAX).contains(&spec.slots) {
        return invalid(format!("resource \"{name}\" has {} slots: expected 1 to {SLOTS_MAX}", spec.slots));
    }
    spec.labels.iter().try_for_each(|(key, value)| check_label(key, value))?;
    spec.properties.iter().try_for_each(|(key, value)| check_property(key, value))?;
    spec.secrets.keys().try_for_each(check_secret)
}

fn invalid<T>(message: String) -> Result<T, Refusal> {
    Err(Refusal::new(Code::InvalidInventory, message))
}
