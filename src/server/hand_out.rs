//! Handing out: the secrets of a lease are read at the last moment, for its holder alone.
//!
//! The engine tells where they are; their values exist only in the message to the holder. One
//! that cannot be read ends the lease, and the holder is told that it ended instead of getting
//! resources it could not use.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::core::command::Command;
use crate::core::inventory::SecretRef;
use crate::core::types::{LeaseId, ResourceName};
use crate::engine::handle::Handle;
use crate::engine::input::SecretRefs;
use crate::inventory::secrets;
use crate::protocol::info::{ClaimInfo, EndInfo};

/// How long the books may take to note that a lease ended for want of its secret. The holder is
/// told then in any case.
const NOTING_TIMEOUT: Duration = Duration::from_secs(5);

/// Values per alias, per pick in order.
type Values = BTreeMap<String, Vec<BTreeMap<String, String>>>;

/// What could not be read.
struct Unreadable {
    alias: String,
    pick: usize,
    reason: String,
}

/// Puts the secrets of a granted claim into it. Where one cannot be read, the lease is ended on
/// the books and `info` says so instead: state `ended`, code `secret_unavailable`.
pub async fn hand_out(handle: &Handle, info: &mut ClaimInfo, refs: SecretRefs) {
    let Some(lease) = info.lease.as_mut() else { return };
    if refs.is_empty() {
        return;
    }
    match resolve(refs).await {
        Ok(values) => {
            for (alias, of_alias) in values {
                let picks = lease.resources.get_mut(&alias).into_iter().flatten();
                for (pick, values) in picks.zip(of_alias) {
                    pick.secrets = values;
                }
            }
        }
        Err(unreadable) => {
            let pick = lease.resources.get(&unreadable.alias).and_then(|picks| picks.get(unreadable.pick));
            let name = pick.map(|pick| pick.name.clone()).unwrap_or_default();
            let number = LeaseId(lease.lease);
            tracing::warn!(lease = number.0, resource = name, reason = unreadable.reason, "a secret cannot be read");
            note_unreadable(handle, number, &name, &unreadable.reason).await;
            info.state = "ended".to_owned();
            info.lease = None;
            info.end = Some(EndInfo {
                code: "secret_unavailable".to_owned(),
                message: format!(
                    "a secret of {name} could not be read by the broker, so the lease ended and {name} is \
                     quarantined: ask again for another, or tell whoever keeps the inventory"
                ),
                need: Some(unreadable.alias),
            });
        }
    }
}

async fn note_unreadable(handle: &Handle, lease: LeaseId, name: &str, reason: &str) {
    let Ok(resource) = ResourceName::parse(name) else { return };
    let command = Command::SecretUnavailable { lease, resource, reason: reason.into() };
    match tokio::time::timeout(NOTING_TIMEOUT, handle.command(command)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::warn!(lease = lease.0, %error, "the end of a lease could not be noted"),
        Err(_) => tracing::warn!(lease = lease.0, "the end of a lease was not noted in time"),
    }
}

/// Files may block for as long as a file system does, so they are read elsewhere.
async fn resolve(refs: SecretRefs) -> Result<Values, Unreadable> {
    let is_file = |reference: &SecretRef| matches!(reference, SecretRef::File(_));
    if !refs.values().flatten().flat_map(BTreeMap::values).any(is_file) {
        return read_all(refs);
    }
    tokio::task::spawn_blocking(move || read_all(refs)).await.unwrap_or_else(|_| {
        let reason = "reading it failed inside the broker".to_owned();
        Err(Unreadable { alias: String::new(), pick: 0, reason })
    })
}

fn read_all(refs: SecretRefs) -> Result<Values, Unreadable> {
    let mut values = Values::new();
    for (alias, picks) in refs {
        let mut of_alias = Vec::with_capacity(picks.len());
        for (pick, secrets) in picks.into_iter().enumerate() {
            let read = |(key, reference): (String, SecretRef)| match secrets::resolve(&reference) {
                Ok(value) => Ok((key, value)),
                Err(problem) => {
                    Err(Unreadable { alias: alias.clone(), pick, reason: format!("secret {key}: {problem}") })
                }
            };
            of_alias.push(secrets.into_iter().map(read).collect::<Result<_, _>>()?);
        }
        values.insert(alias, of_alias);
    }
    Ok(values)
}
