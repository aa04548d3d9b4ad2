//! What a build claims, and what it waits for, in words.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::claim::Grant;
use crate::builds::build::{Build, Pick};
use crate::builds::plan::{EXECUTOR_POOL, Plan};
use crate::core::claim::{ClaimSpec, Retry};
use crate::core::limits::{FENCE_MAX, SPAN_MS_MAX, TAG_BYTES_MAX};
use crate::core::need::{Need, check_needs};
use crate::core::types::Key;
use crate::inventory::pipelines::{PipelineSettings, Repository};
use crate::protocol::info::{ClaimInfo, PickInfo};

/// How much longer a lease may be held than a build may take with its end, milliseconds: its agent tells
/// how it went before the lease's own end does.
const SPARE_MS: u64 = 60_000;

/// Whether the repository may use what a plan asks for, now: a build that waits, or is built once more, has a
/// plan that was read under an older configuration.
fn allowed(repository: &Repository, plan: &Plan, needs: &[Need]) -> Result<(), String> {
    let Repository { name, pools, secrets, .. } = repository;
    // The last is the executor's.
    let own = &needs[..needs.len() - 1];
    if let Some(pool) = own.iter().map(|need| &need.pool).find(|pool| !pools.contains(*pool)) {
        return Err(format!("{name} may not use pool {pool}: `pools` of its [[repository]] says which it may"));
    }
    if let Some(secret) = plan.secrets.iter().find(|secret| !secrets.contains_key(secret.as_str())) {
        return Err(format!("{name} has no secret {secret}: `secrets` of its [[repository]] has them"));
    }
    let mounts = plan.container.iter().flat_map(|container| &container.mounts);
    let host = |mount: &str| mount.split(':').next().unwrap_or_default().to_owned();
    match mounts.into_iter().find(|mount| !repository.may_mount(&host(mount))) {
        Some(mount) => Err(format!("{name} may not mount {mount}: `mounts` of its [[repository]] says what it may")),
        None => Ok(()),
    }
}

/// A plan's needs, and after them its executor: what fails first is told, and whether agents are there is
/// the least to say of a build that could not run on any.
fn needs(plan: &Plan) -> Result<Vec<Need>, String> {
    let parse = |text: &str| Need::parse(text).map_err(|error| error.to_string());
    let mut needs = plan.needs.iter().map(|text| parse(text)).collect::<Result<Vec<Need>, String>>()?;
    needs.push(parse(&plan.executor_need())?);
    check_needs(&needs, None, None).map_err(|refusal| refusal.message.to_string())?;
    Ok(needs)
}

/// The pools that a plan claims from; a session's ttl is the longest of theirs.
pub(super) fn pools(plan: &Plan) -> Vec<Key> {
    needs(plan).map(|needs| needs.into_iter().map(|need| need.pool).collect()).unwrap_or_default()
}

/// The claim of a build.
///
/// # Errors
/// In words, where its needs cannot be read, or its repository may not use (any more) what it asks for.
pub(super) fn claim(build: &Build, settings: &PipelineSettings, now_ms: i64) -> Result<ClaimSpec, String> {
    let plan = &build.plan;
    let repository = settings.repositories.get(&build.repository).ok_or_else(|| {
        let name = &build.repository;
        format!("{name} is no [[repository]] of the broker's configuration any more: name it there, then retry")
    })?;
    let needs = needs(plan)?;
    allowed(repository, plan, &needs)?;
    let hold_ms = plan.timeout_ms.saturating_add(plan.grace_ms).saturating_add(SPARE_MS).min(SPAN_MS_MAX);
    // Each claim of it comes after the one before, and has its place in the queue.
    let attempt = u64::try_from(now_ms).unwrap_or(0).min(FENCE_MAX);
    Ok(ClaimSpec {
        needs,
        same: None,
        distinct: None,
        priority: plan.priority,
        wait_ms: None,
        hold_ms: Some(hold_ms),
        note: None,
        tags: tags(build, &settings.public_url),
        fail_fast: false,
        wait_for_inventory: false,
        outer: None,
        retry: Some(Retry { work: format!("build/{}", build.id.0).into(), attempt }),
    })
}

fn tags(build: &Build, public_url: &str) -> BTreeMap<Arc<str>, Arc<str>> {
    let tags = [
        ("build", build.id.0.to_string()),
        ("job", format!("{public_url}/builds/{}", build.id.0)),
        ("repository", build.repository.to_string()),
        ("pipeline", build.plan.name.to_string()),
        ("commit", build.subject.sha.to_string()),
        ("actor", build.by.to_string()),
    ];
    tags.map(|(key, mut value)| {
        value.truncate(value.floor_char_boundary(TAG_BYTES_MAX));
        (Arc::from(key), Arc::from(value))
    })
    .into()
}

/// What a granted claim has: the executor names the agent.
pub(super) fn grant(info: &ClaimInfo, request: u64) -> Option<Grant> {
    let lease = info.lease.as_ref()?;
    let agent = lease.resources.get(EXECUTOR_POOL)?.first()?.name.as_str().into();
    let own = lease.resources.iter().filter(|(alias, _)| *alias != EXECUTOR_POOL);
    let own = own.flat_map(|(alias, given)| given.iter().map(move |pick| (alias, pick)));
    let picks = own.map(|(alias, PickInfo { name, pool, slots, .. })| Pick {
        alias: alias.as_str().into(),
        pool: pool.as_str().into(),
        name: name.as_str().into(),
        slots: *slots,
    });
    Some(Grant { lease: lease.lease, agent, picks: picks.collect(), request })
}

/// What a claim waits for.
pub(super) fn waits_for(info: &ClaimInfo) -> String {
    if let Some(blocked) = info.blocked.as_ref().or(info.capped.as_ref()) {
        return blocked.clone();
    }
    let place = match info.place {
        Some(1) | None => "it is next".to_owned(),
        Some(place) => format!("{} are before it", place - 1),
    };
    match info.in_the_way.as_slice() {
        [] => format!("it waits in the queue: {place}"),
        [way, more @ ..] => {
            let job = way.job.as_deref().map(|job| format!(", {job}")).unwrap_or_default();
            let more = if more.is_empty() { String::new() } else { format!(", and {} more are taken", more.len()) };
            format!("{} is held by {} (lease {}{job}){more}; {place}", way.resource, way.owner, way.lease)
        }
    }
}
