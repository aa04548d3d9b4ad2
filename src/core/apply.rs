//! Making the inventory what a file, or an admin, says it is: the difference, as events.

use super::inventory::{Pool, ResourceSpec};
use super::types::ResourceName;

/// An inventory as declared, defaults of the pools already merged into the resources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    /// Every pool that is named, once.
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
