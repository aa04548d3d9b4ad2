//! What the tests say to an engine: an inventory, claims, owners.

use std::collections::BTreeMap;
use std::sync::Arc;

use leasehold::core::apply::{Declared, DeclaredResource};
use leasehold::core::claim::ClaimSpec;
use leasehold::core::command::Command;
use leasehold::core::inventory::{OnDrop, Pool, ResourceSpec};
use leasehold::core::need::Need;
use leasehold::core::session::SecretHash;
use leasehold::core::types::{Key, Owner, ResourceName};

pub fn key(text: &str) -> Key {
    Key::parse(text, "key").unwrap()
}

pub fn owner() -> Owner {
    Owner { name: "ci@runner".into(), verified: false }
}

pub fn hash(text: &str) -> SecretHash {
    SecretHash(text.into())
}

/// A claim of these needs that waits as long as it takes.
pub fn claim(needs: &[&str]) -> ClaimSpec {
    ClaimSpec {
        needs: needs.iter().map(|text| Need::parse(text).unwrap()).collect(),
        same: None,
        distinct: None,
        priority: 0,
        wait_ms: None,
        hold_ms: None,
        note: None,
        tags: BTreeMap::new(),
        fail_fast: false,
        wait_for_inventory: false,
        outer: None,
        retry: None,
    }
}

/// `count` resources of each pool, named `<pool>-<n>`; a pool whose name starts with `quick`
/// frees at a drop.
pub fn inventory(pools: &[(&str, usize)]) -> Command {
    let mut declared = Declared::default();
    for (name, count) in pools {
        let on_drop = if name.starts_with("quick") { OnDrop::Immediate } else { OnDrop::AfterTtl };
        declared.pools.push(Pool { on_drop, ..Pool::named(key(name)) });
        for n in 1..=*count {
            let spec = ResourceSpec {
                name: ResourceName::parse(&format!("{name}-{n}")).unwrap(),
                pool: key(name),
                labels: BTreeMap::new(),
                properties: BTreeMap::new(),
                secrets: BTreeMap::new(),
                slots: 1,
            };
            declared.resources.push(DeclaredResource { spec, was: None });
        }
    }
    Command::Apply { declared: Arc::new(declared), prune: false, confirmed: true, dry_run: false }
}
