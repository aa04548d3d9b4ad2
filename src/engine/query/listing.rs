//! Listings: resources, the queue, leases, sessions, and the broker at a glance.
//!
//! A page is read between two batches, so every page has a bound on what it looks at, not only on
//! what it shows: one that found little says where to go on.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::matching::Asked;
use super::told::{capped_words, eta_info, in_the_way, lease_info, queued_info, texts, wire_values};
use crate::core::claim::{Claim, Seniority};
use crate::core::eta::Eta;
use crate::core::inventory::{Mark, Pending, Resource};
use crate::core::lease::Lease;
use crate::core::need::Need;
use crate::core::session::{OpenRequest, Session, SessionKind};
use crate::core::state::{PoolState, State};
use crate::core::types::{ClaimId, Key, LeaseId, ResourceName, SessionId};
use crate::engine::view::{LabClock, View};
use crate::protocol::info::{
    ClaimInfo, HolderInfo, LeaseInfo, MarkInfo, Page, PoolStatus, ResourceInfo, SessionInfo, StatusInfo, WaitingInfo,
};

/// Resources looked at for one page; with an expression to evaluate, a tenth of it.
pub(super) const LOOKS_MAX: usize = 10_000;

/// Which part of a listing.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// After this, as an earlier page said.
    pub after: Option<String>,
    /// At most this many.
    pub limit: usize,
}

/// A page of things that is complete as it is.
pub fn page<T>(items: Vec<T>, next: Option<String>, clock: &LabClock) -> Page<T> {
    Page { items, next, now: clock.now.0, now_time: clock.now_time() }
}

/// Resources by name, of one pool or all, those that match a need or all.
#[must_use]
pub fn resources(view: &View<'_>, pool: Option<&str>, asked: Option<&Asked>, part: &Part) -> Page<ResourceInfo> {
    let wanted = |resource: &Resource| {
        pool.is_none_or(|pool| resource.spec.pool.as_str() == pool)
            && asked.is_none_or(|asked| asked.mismatch(resource).is_none())
    };
    let looks = asked.map_or(LOOKS_MAX, Asked::looks_max);
    by_name(view, part, looks, |resource| wanted(resource).then(|| resource_info(view, resource)))
}

/// Goes through resources by name, keeping what `keep` makes of them, within the bounds.
pub(super) fn by_name<T>(
    view: &View<'_>,
    part: &Part,
    looks_max: usize,
    keep: impl Fn(&Resource) -> Option<T>,
) -> Page<T> {
    let after = part.after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let mut items = Vec::new();
    let mut last: Option<&ResourceName> = None;
    for (looks, (name, id)) in view.state.names.range::<str, _>((after, Bound::Unbounded)).enumerate() {
        if looks == looks_max || items.len() == part.limit {
            return page(items, last.map(ToString::to_string), &view.clock);
        }
        items.extend(keep(view.state.resource(*id)));
        last = Some(name);
    }
    page(items, None, &view.clock)
}

/// One resource.
#[must_use]
pub fn resource_info(view: &View<'_>, resource: &Resource) -> ResourceInfo {
    let spec = &resource.spec;
    let holders: Vec<HolderInfo> =
        resource.holders.iter().filter_map(|id| view.state.leases.get(id)).map(|l| holder(view, resource, l)).collect();
    ResourceInfo {
        name: spec.name.to_string(),
        pool: spec.pool.to_string(),
        labels: wire_values(&spec.labels),
        properties: wire_values(&spec.properties),
        secrets: spec.secrets.keys().map(Key::to_string).collect(),
        slots: spec.slots,
        slots_free: resource.slots_free(),
        slots_cooling: Some(resource.slots_cooling()).filter(|slots| *slots > 0),
        cooling_until: resource.cooling.last().map(|cooling| cooling.until.0),
        cooling_until_time: resource.cooling.last().map(|cooling| view.clock.time(cooling.until)),
        origin: resource.origin.to_string(),
        state: state_word(resource, &holders).to_owned(),
        quarantined: resource.marks.quarantined.as_ref().map(|mark| mark_info(mark, &view.clock)),
        drained: resource.marks.drained.as_ref().map(|mark| mark_info(mark, &view.clock)),
        offline: resource.marks.offline.as_ref().map(|mark| mark_info(mark, &view.clock)),
        pending: resource.pending.as_ref().map(|pending| {
            match pending {
                Pending::Change(_) => "change",
                Pending::Removal => "removal",
            }
            .to_owned()
        }),
        holders,
    }
}

fn state_word(resource: &Resource, holders: &[HolderInfo]) -> &'static str {
    if resource.marks.quarantined.is_some() {
        "quarantined"
    } else if resource.marks.drained.is_some() {
        "drained"
    } else if resource.marks.offline.is_some() {
        "offline"
    } else if resource.pending.is_some() {
        "pending"
    } else if holders.is_empty() && resource.slots_free() == 0 && !resource.cooling.is_empty() {
        "cooling"
    } else if holders.is_empty() {
        "free"
    } else if resource.slots_free() > 0 {
        "shared"
    } else if holders.iter().all(|holder| holder.state == "ending") {
        "ending"
    } else {
        "leased"
    }
}

fn mark_info(mark: &Mark, clock: &LabClock) -> MarkInfo {
    MarkInfo {
        reason: mark.reason.to_string(),
        by: mark.by.to_string(),
        since: mark.since.0,
        since_time: clock.time(mark.since),
    }
}

fn holder(view: &View<'_>, resource: &Resource, lease: &Lease) -> HolderInfo {
    let seen = (view.presence)(lease.session);
    HolderInfo {
        lease: lease.id.0,
        owner: lease.owner.to_string(),
        session: lease.session.0,
        slots: lease.picks.iter().filter(|pick| pick.resource == resource.id).map(|pick| pick.slots).sum(),
        state: if lease.ending.is_some() { "ending" } else { "active" }.to_owned(),
        tags: texts(&lease.spec.tags),
        note: lease.spec.note.as_deref().map(str::to_owned),
        since: lease.granted_at.0,
        since_time: view.clock.time(lease.granted_at),
        until: lease.until.map(|until| until.0),
        until_time: lease.until.map(|until| view.clock.time(until)),
        last_seen_ms: seen.last_seen_ms,
        connected: seen.connected,
    }
}

/// Leases that are held, by number.
#[must_use]
pub fn leases(view: &View<'_>, after: u64, limit: usize) -> Page<LeaseInfo> {
    let mut held = view.state.leases.range((Bound::Excluded(LeaseId(after)), Bound::Unbounded));
    let items: Vec<LeaseInfo> = held.by_ref().take(limit).map(|(_, lease)| listed_lease(view, lease)).collect();
    let next = held.next().and_then(|_| items.last()).map(|last| last.lease.to_string());
    page(items, next, &view.clock)
}

/// One lease as listings show it: with its session's last sign of life.
#[must_use]
pub fn listed_lease(view: &View<'_>, lease: &Lease) -> LeaseInfo {
    let last_seen_ms = Some((view.presence)(lease.session).last_seen_ms);
    LeaseInfo { last_seen_ms, ..lease_info(view.state, lease, &view.clock) }
}

/// The queue, most senior first. A cursor is what [`cursor_of`] makes.
#[must_use]
pub fn queue(view: &View<'_>, part: &Part) -> Page<WaitingInfo> {
    let after = part.after.as_deref().and_then(seniority_of);
    let mut before: BTreeMap<&Key, u64> = BTreeMap::new();
    let mut items = Vec::new();
    let mut last = None;
    let mut etas = None;
    for seniority in &view.state.queue {
        let Some(claim) = view.state.claims.get(&seniority.claim) else { continue };
        // Places are counted from the head even where the page begins later.
        let mut place = 0;
        for pool in State::pools_of(claim) {
            let count = before.entry(pool).or_default();
            *count += 1;
            place = place.max(*count);
        }
        if after.is_some_and(|after| *seniority <= after) {
            continue;
        }
        if items.len() == part.limit {
            return page(items, last.map(cursor_of), &view.clock);
        }
        let eta = etas.get_or_insert_with(|| (view.etas)(None)).get(&claim.id).copied();
        items.push(waiting(view, claim, place, eta));
        last = Some(*seniority);
    }
    page(items, None, &view.clock)
}

fn waiting(view: &View<'_>, claim: &Claim, place: u64, eta: Option<Eta>) -> WaitingInfo {
    WaitingInfo {
        claim: claim.id.0,
        session: claim.session.0,
        owner: claim.owner.to_string(),
        place,
        needs: claim.spec.needs.iter().map(Need::to_string).collect(),
        priority: claim.spec.priority,
        note: claim.spec.note.as_deref().map(str::to_owned),
        tags: texts(&claim.spec.tags),
        queued_at: claim.queued_at.0,
        queued_at_time: view.clock.time(claim.queued_at),
        first_arrival: claim.first_arrival.map(|first| first.0),
        wait_until: claim.wait_until.map(|until| until.0),
        wait_until_time: claim.wait_until.map(|until| view.clock.time(until)),
        blocked: claim.blocked.as_ref().map(|blocked| blocked.message.to_string()),
        capped: capped_words(view.state, claim),
        eta: eta.map(eta_info),
        connected: (view.presence)(claim.session).connected,
    }
}

fn cursor_of(seniority: Seniority) -> String {
    format!("{}_{}", seniority.rank, seniority.claim.0)
}

fn seniority_of(cursor: &str) -> Option<Seniority> {
    let (rank, claim) = cursor.split_once('_')?;
    Some(Seniority { rank: rank.parse().ok()?, claim: ClaimId(claim.parse().ok()?) })
}

/// A claim as the queue sees it, or its lease when it is granted; `None` for one that has ended.
#[must_use]
pub fn claim(view: &View<'_>, id: ClaimId) -> Option<ClaimInfo> {
    if let Some(claim) = view.state.claims.get(&id) {
        let eta = (view.etas)(Some(claim)).get(&id).copied().map(eta_info);
        return Some(ClaimInfo { eta, ..queued_info(view.state, claim, &view.clock) });
    }
    let lease = view.state.leases.values().find(|lease| lease.claim == id)?;
    Some(ClaimInfo {
        request_id: lease.request,
        claim: id.0,
        state: "granted".to_owned(),
        place: None,
        blocked: None,
        capped: None,
        eta: None,
        in_the_way: Vec::new(),
        lease: Some(listed_lease(view, lease)),
        end: None,
        now: view.clock.now.0,
        now_time: view.clock.now_time(),
    })
}

/// Sessions by number.
#[must_use]
pub fn sessions(view: &View<'_>, after: u64, limit: usize) -> Page<SessionInfo> {
    let mut open = view.state.sessions.range((Bound::Excluded(SessionId(after)), Bound::Unbounded));
    let items: Vec<SessionInfo> = open.by_ref().take(limit).map(|(_, session)| session_info(view, session)).collect();
    let next = open.next().and_then(|_| items.last()).map(|last| last.session.to_string());
    page(items, next, &view.clock)
}

fn session_info(view: &View<'_>, session: &Session) -> SessionInfo {
    let seen = (view.presence)(session.id);
    let (mut leases, mut claims) = (Vec::new(), Vec::new());
    for open in session.requests.open.values() {
        match open {
            OpenRequest::Claim(claim) => claims.push(claim.0),
            OpenRequest::Lease(lease) => leases.push(lease.0),
        }
    }
    SessionInfo {
        session: session.id.0,
        owner: session.owner.to_string(),
        owner_verified: session.owner.verified,
        kind: match session.kind {
            SessionKind::Socket { .. } => "socket",
            SessionKind::Keyed { .. } => "keyed",
        }
        .to_owned(),
        ttl_ms: session.ttl_ms,
        connected: seen.connected,
        last_seen_ms: seen.last_seen_ms,
        opened_at: session.opened_at.0,
        opened_at_time: view.clock.time(session.opened_at),
        leases,
        claims,
        provides: session.provides.as_ref().map(|provider| provider.name.to_string()),
    }
}

/// The broker at a glance. What is not on the books (where its data is, its inventory file) is
/// left for the server to fill in.
#[must_use]
pub fn status(view: &View<'_>) -> StatusInfo {
    let (state, message) = match (view.store_failure, view.stopping) {
        (Some(failure), _) => ("store_failing", Some(format!("nothing new is granted: the store fails: {failure}"))),
        (None, true) => ("stopping", Some("the broker stops; nothing new is granted".to_owned())),
        (None, false) => ("serving", None),
    };
    StatusInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        role: "leading".to_owned(),
        state: state.to_owned(),
        message,
        leader: None,
        epoch: None,
        term_ms: None,
        brokers: Vec::new(),
        store: String::new(),
        inventory: None,
        inventory_error: None,
        uptime_ms: view.boot_now.since(view.serving_since),
        batch: view.batch,
        pools: view.state.pools.values().map(|pool| pool_status(view.state, pool)).collect(),
        sessions: count(view.state.sessions.len()),
        leases: count(view.state.leases.len()),
        waiting: count(view.state.claims.len()),
        now: view.clock.now.0,
        now_time: view.clock.now_time(),
    }
}

fn pool_status(state: &State, pool: &PoolState) -> PoolStatus {
    let mut status = PoolStatus {
        pool: pool.pool.name.to_string(),
        resources: count(pool.members.len()),
        slots: 0,
        slots_free: 0,
        slots_leased: 0,
        slots_cooling: 0,
        out: 0,
        waiting: count(pool.queue.len()),
    };
    for resource in pool.members.iter().filter_map(|id| state.resources.get(id)) {
        status.slots += u64::from(resource.spec.slots);
        status.slots_leased += u64::from(resource.slots_used);
        status.slots_cooling += u64::from(resource.slots_cooling());
        if resource.is_grantable() {
            status.slots_free += u64::from(resource.slots_free());
        } else {
            status.out += 1;
        }
    }
    status
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// Up to five who hold what a waiting claim could be given, in words.
pub(super) fn in_the_way_words(view: &View<'_>, claim: &Claim) -> Vec<String> {
    let ways = in_the_way(view.state, claim, &view.clock);
    ways.into_iter()
        .map(|way| {
            let job = way.job.map(|job| format!(" for {job}")).unwrap_or_default();
            let until = way.until_time.map(|until| format!(", until {until} at most")).unwrap_or_default();
            format!(
                "{} is held by {}{job} (lease {}) since {}{until}",
                way.resource, way.owner, way.lease, way.since_time
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::books::{books, name, view};
    use super::{Part, leases, queue, resource_info, resources, sessions, status};

    fn part(after: Option<&str>, limit: usize) -> Part {
        Part { after: after.map(str::to_owned), limit }
    }

    #[test]
    fn resources_are_paged_by_name() {
        let state = books();
        let view = view(&state);
        let first = resources(&view, None, None, &part(None, 1));
        assert_eq!((first.items[0].name.as_str(), first.next.as_deref()), ("iphone-1", Some("iphone-1")));
        let second = resources(&view, None, None, &part(first.next.as_deref(), 1));
        assert_eq!((second.items[0].name.as_str(), second.next), ("pixel-1", None));
        assert!(resources(&view, Some("board"), None, &part(None, 9)).items.is_empty());
    }

    #[test]
    fn a_resource_says_who_has_it_and_names_its_secrets_only() {
        let state = books();
        let view = view(&state);
        let info = resource_info(&view, state.resource(state.names[&name("pixel-1")]));
        assert_eq!((info.state.as_str(), info.slots_free), ("leased", 0));
        let holder = &info.holders[0];
        assert_eq!((holder.owner.as_str(), holder.last_seen_ms, holder.connected), ("max@lab", 40, true));
        assert_eq!(info.secrets, ["pin"]);
        assert!(!serde_json::to_string(&info).unwrap().contains("PIXEL_PIN"));
    }

    #[test]
    fn the_queue_is_paged_by_seniority_with_places_from_its_head() {
        let state = books();
        let view = view(&state);
        let first = queue(&view, &part(None, 1));
        assert_eq!((first.items[0].claim, first.items[0].place), (2, 1));
        let second = queue(&view, &part(first.next.as_deref(), 5));
        assert_eq!((second.items[0].claim, second.items[0].place, second.items.len()), (3, 2, 1));
        assert_eq!(second.next, None);
        assert!(!second.items[0].connected);
    }

    #[test]
    fn leases_sessions_and_the_status_count_what_is_there() {
        let state = books();
        let view = view(&state);
        assert_eq!(leases(&view, 0, 10).items[0].last_seen_ms, Some(40));
        assert!(leases(&view, 1, 10).items.is_empty());
        let open = sessions(&view, 0, 1);
        assert_eq!((open.items[0].leases.as_slice(), open.next.as_deref()), ([1].as_slice(), Some("1")));
        assert_eq!(sessions(&view, 1, 1).items[0].claims, [2, 3]);
        let status = status(&view);
        assert_eq!((status.state.as_str(), status.leases, status.waiting, status.uptime_ms), ("serving", 1, 2, 5_000));
        let pool = &status.pools[0];
        assert_eq!((pool.slots, pool.slots_free, pool.slots_leased, pool.out, pool.waiting), (2, 1, 1, 0, 2));
    }
}
