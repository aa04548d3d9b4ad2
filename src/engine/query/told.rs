//! Claims and leases as their holders are told of them.
//!
//! Used by the engine for every answer and notification, so it is quick: nothing here walks more
//! than a bounded number of resources.

use std::collections::BTreeMap;

use crate::core::caps::Capped;
use crate::core::cel::Program;
use crate::core::claim::{Claim, ClaimEnd};
use crate::core::eta::Eta;
use crate::core::inventory::Resource;
use crate::core::lease::{Lease, LeaseEnd, Outcome, Pick};
use crate::core::need::Need;
use crate::core::refusal::Refusal;
use crate::core::state::State;
use crate::core::tables::PastLease;
use crate::core::types::{Key, LeaseId, Value};
use crate::engine::input::SecretRefs;
use crate::engine::view::LabClock;
use crate::protocol::error::RpcError;
use crate::protocol::info::{ClaimInfo, EndInfo, EndedInfo, EndingInfo, EtaInfo, InTheWay, LeaseInfo, PickInfo};

/// Holders told of as being in a waiting claim's way.
const IN_THE_WAY_MAX: usize = 5;
/// Resources looked at to find them: a busy pool shows five long before.
const IN_THE_WAY_LOOKS_MAX: usize = 512;

/// A lease on the books, without its secrets and without the sign of life.
#[must_use]
pub fn lease_info(state: &State, lease: &Lease, clock: &LabClock) -> LeaseInfo {
    describe(lease, clock, |pick| state.resources.get(&pick.resource))
}

/// A lease from the history, ended or not. What its resources were like then is not known any
/// more, so labels and properties are empty.
#[must_use]
pub fn past_lease_info(past: &PastLease, clock: &LabClock) -> LeaseInfo {
    let mut info = describe(&past.lease, clock, |_| None);
    if let Some(ended) = &past.ended {
        let (why, message) = lease_end_words(&ended.end);
        info.state = "ended".to_owned();
        info.ending = None;
        info.ended = Some(EndedInfo {
            why,
            message,
            outcome: ended.outcome.map(outcome_word),
            at: ended.at.0,
            at_time: clock.time(ended.at),
        });
    }
    info
}

/// A lease of which only its end is known: what a repeat of its request is answered with.
#[must_use]
pub fn ended_lease_info(lease: LeaseId, end: &LeaseEnd) -> EndInfo {
    let (code, message) = lease_end_words(end);
    EndInfo { code, message: format!("lease {lease} has ended: {message}"), need: None }
}

fn describe<'a>(lease: &Lease, clock: &LabClock, resource: impl Fn(&Pick) -> Option<&'a Resource>) -> LeaseInfo {
    let mut resources: BTreeMap<String, Vec<PickInfo>> = BTreeMap::new();
    for pick in &lease.picks {
        let pool = pool_of(lease, pick);
        resources.entry(pick.alias.to_string()).or_default().push(pick_info(pick, resource(pick), pool));
    }
    LeaseInfo {
        lease: lease.id.0,
        fence: lease.id.0,
        state: if lease.ending.is_some() { "ending" } else { "active" }.to_owned(),
        claim: lease.claim.0,
        session: lease.session.0,
        request_id: lease.request,
        owner: lease.owner.to_string(),
        owner_verified: lease.owner.verified,
        needs: lease.spec.needs.iter().map(Need::to_string).collect(),
        resources,
        note: lease.spec.note.as_deref().map(str::to_owned),
        tags: texts(&lease.spec.tags),
        queued_at: lease.queued_at.0,
        queued_at_time: clock.time(lease.queued_at),
        granted_at: lease.granted_at.0,
        granted_at_time: clock.time(lease.granted_at),
        until: lease.until.map(|until| until.0),
        until_time: lease.until.map(|until| clock.time(until)),
        ending: lease.ending.as_ref().map(|ending| {
            let (why, message) = lease_end_words(&ending.why);
            EndingInfo { why, message, since: ending.since.0, since_time: clock.time(ending.since) }
        }),
        ended: None,
        last_seen_ms: None,
    }
}

fn pool_of<'a>(lease: &'a Lease, pick: &Pick) -> Option<&'a Key> {
    lease.spec.needs.iter().find(|need| need.alias == pick.alias).map(|need| &need.pool)
}

fn pick_info(pick: &Pick, resource: Option<&Resource>, pool: Option<&Key>) -> PickInfo {
    let spec = resource.map(|resource| &resource.spec);
    let pool = spec.map(|spec| &spec.pool).or(pool);
    PickInfo {
        name: pick.name.to_string(),
        pool: pool.map(Key::to_string).unwrap_or_default(),
        labels: spec.map(|spec| wire_values(&spec.labels)).unwrap_or_default(),
        properties: spec.map(|spec| wire_values(&spec.properties)).unwrap_or_default(),
        slots: pick.slots,
        secrets: BTreeMap::new(),
        offline: resource.and_then(|resource| resource.marks.offline.as_ref()).map(|mark| mark.reason.to_string()),
    }
}

/// Where a lease's secrets are to be read: per alias, per pick in order. Empty when none of its
/// resources has any, so that whoever hands out has nothing to do.
#[must_use]
pub fn secret_refs(state: &State, lease: &Lease) -> SecretRefs {
    let mut refs = SecretRefs::new();
    let mut any = false;
    for pick in &lease.picks {
        let of_pick: BTreeMap<_, _> = state.resources.get(&pick.resource).map_or_else(BTreeMap::new, |resource| {
            resource.spec.secrets.iter().map(|(key, reference)| (key.to_string(), reference.clone())).collect()
        });
        any |= !of_pick.is_empty();
        refs.entry(pick.alias.to_string()).or_default().push(of_pick);
    }
    if any { refs } else { SecretRefs::new() }
}

/// A waiting claim: its place, what blocks it, who is in its way.
#[must_use]
pub fn queued_info(state: &State, claim: &Claim, clock: &LabClock) -> ClaimInfo {
    ClaimInfo {
        request_id: claim.request,
        claim: claim.id.0,
        state: "queued".to_owned(),
        place: Some(place(state, claim)),
        blocked: claim.blocked.as_ref().map(|blocked| blocked.message.to_string()),
        capped: capped_words(state, claim),
        eta: None,
        in_the_way: in_the_way(state, claim, clock),
        lease: None,
        end: None,
        now: clock.now.0,
        now_time: clock.now_time(),
    }
}

/// A waiting claim's place, from 1, in the longest of the queues of its pools: who waits for
/// something else is not before it.
#[must_use]
pub fn place(state: &State, claim: &Claim) -> u64 {
    let before = |pool: &Key| state.pools.get(pool).map_or(0, |pool| pool.queue.range(..claim.seniority).count());
    let most = State::pools_of(claim).into_iter().map(before).max().unwrap_or(0);
    u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1)
}

/// Up to five who hold what a waiting claim could be given.
#[must_use]
pub fn in_the_way(state: &State, claim: &Claim, clock: &LabClock) -> Vec<InTheWay> {
    let mut found: Vec<InTheWay> = Vec::new();
    if let Some(capped) = capped(state, claim) {
        return own_in_the_way(state, claim, &capped, clock);
    }
    for need in &claim.spec.needs {
        let Some(pool) = state.pools.get(&need.pool) else { continue };
        let program = need.expression.as_deref().and_then(|text| Program::parse(text).ok());
        let looks_max = if program.is_some() { IN_THE_WAY_LOOKS_MAX / 4 } else { IN_THE_WAY_LOOKS_MAX };
        let matches = |resource: &&Resource| {
            !resource.holders.is_empty()
                && terms_hold(need, resource)
                && program.as_ref().is_none_or(|program| program.holds(resource))
        };
        let members = pool.members.iter().take(looks_max).filter_map(|id| state.resources.get(id));
        for resource in members.filter(matches) {
            for lease in resource.holders.iter().filter_map(|id| state.leases.get(id)) {
                let name = resource.spec.name.as_str();
                if found.iter().any(|known| known.lease == lease.id.0 && known.resource == name) {
                    continue;
                }
                found.push(holding(name, lease, clock));
                if found.len() == IN_THE_WAY_MAX {
                    return found;
                }
            }
        }
    }
    found
}

/// An estimate as it stands on the wire.
#[must_use]
pub fn eta_info(eta: Eta) -> EtaInfo {
    let holds = u32::try_from(eta.holds).unwrap_or(u32::MAX);
    EtaInfo { low_ms: eta.low_ms, high_ms: eta.high_ms, holds }
}

/// The cap that holds a waiting claim up, if one does and nothing worse.
fn capped(state: &State, claim: &Claim) -> Option<Capped> {
    let all = |need: &Need| {
        let tally = super::matching::tally(state, need);
        u32::try_from(tally.matching - tally.out).unwrap_or(u32::MAX)
    };
    if claim.blocked.is_some() { None } else { state.capped(claim, all) }
}

/// The same in words.
#[must_use]
pub fn capped_words(state: &State, claim: &Claim) -> Option<String> {
    let Capped { pool, most, held, asked, behind } = capped(state, claim)?;
    let owner = &claim.owner;
    let has = format!("{owner} holds {held} of the {most} in pool {pool} that one owner may");
    Some(match behind {
        None => format!("{has}, and this asks for {asked}"),
        Some(before) => format!("{has}, and their claim {} is before it and waits for that", before.0),
    })
}

/// What its own owner holds of the pool whose cap holds a claim up.
fn own_in_the_way(state: &State, claim: &Claim, capped: &Capped, clock: &LabClock) -> Vec<InTheWay> {
    let members = state.pools.get(&capped.pool).into_iter().flat_map(|pool| &pool.members);
    let held = members.take(IN_THE_WAY_LOOKS_MAX).filter_map(|id| state.resources.get(id)).flat_map(|resource| {
        let leases = resource.holders.iter().filter_map(|id| state.leases.get(id));
        let own = leases.filter(|lease| lease.owner.name == claim.owner.name);
        own.map(|lease| holding(resource.spec.name.as_str(), lease, clock))
    });
    held.take(IN_THE_WAY_MAX).collect()
}

/// Whether the label terms of a need hold. Its expression is not looked at here.
pub(super) fn terms_hold(need: &Need, resource: &Resource) -> bool {
    need.terms.iter().all(|term| resource.label(term.key.as_str()).is_some_and(|value| term.accepts(&value)))
}

fn holding(resource: &str, lease: &Lease, clock: &LabClock) -> InTheWay {
    InTheWay {
        resource: resource.to_owned(),
        lease: lease.id.0,
        owner: lease.owner.to_string(),
        job: lease.spec.tags.get("job").map(|job| job.to_string()),
        since: lease.granted_at.0,
        since_time: clock.time(lease.granted_at),
        until: lease.until.map(|until| until.0),
        until_time: lease.until.map(|until| clock.time(until)),
    }
}

/// A refusal of the core as it stands on the wire.
#[must_use]
pub fn refusal_error(refusal: &Refusal) -> RpcError {
    let mut error = RpcError::new(refusal.code.as_str(), refusal.message.as_ref());
    error.data.need = refusal.need.as_deref().map(str::to_owned);
    error
}

/// How a claim ended without a lease.
#[must_use]
pub fn end_info(end: &ClaimEnd) -> EndInfo {
    let plain = |code: &str, message: String| EndInfo { code: code.to_owned(), message, need: None };
    match end {
        ClaimEnd::Cancelled { by } => plain("cancelled", format!("it was cancelled by {by}")),
        ClaimEnd::TimedOut => plain("timed_out", "its wait was over before it could be granted".to_owned()),
        ClaimEnd::SessionEnded => plain("session_ended", "its session ended while it waited".to_owned()),
        ClaimEnd::Refused(refusal) => EndInfo {
            code: refusal.code.as_str().to_owned(),
            message: refusal.message.to_string(),
            need: refusal.need.as_deref().map(str::to_owned),
        },
    }
}

/// Why a lease ended or is ending: the stable word and the sentence.
#[must_use]
pub fn lease_end_words(end: &LeaseEnd) -> (String, String) {
    let (why, message) = match end {
        LeaseEnd::Released { by } => ("released", format!("it was released by {by}")),
        LeaseEnd::SessionClosed => ("session_closed", "its session was closed".to_owned()),
        LeaseEnd::SessionExpired => {
            ("session_expired", "its session gave no sign of life for as long as its ttl".to_owned())
        }
        LeaseEnd::Dropped => {
            ("dropped", "its connection dropped, and a pool of it takes its resources back at once".to_owned())
        }
        LeaseEnd::HoldEnded => ("hold_ended", "the time it was to be held is over".to_owned()),
        LeaseEnd::Revoked { by, forced, reason } => {
            let how = if *forced { "revoked by force" } else { "revoked" };
            let reason = reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
            ("revoked", format!("it was {how} by {by}{reason}"))
        }
        LeaseEnd::Kicked { by } => ("kicked", format!("its session was ended by {by}")),
        LeaseEnd::SecretUnavailable { resource } => {
            ("secret_unavailable", format!("a secret of {resource} could not be read; {resource} is quarantined"))
        }
        LeaseEnd::Moved => {
            ("moved", "the broker's data was copied or restored, and its session stayed behind".to_owned())
        }
    };
    (why.to_owned(), message)
}

/// An outcome as it stands on the wire.
#[must_use]
pub fn outcome_word(outcome: Outcome) -> String {
    match outcome {
        Outcome::Passed => "passed",
        Outcome::Failed => "failed",
        Outcome::Infra => "infra",
    }
    .to_owned()
}

/// A label's or property's value as JSON.
#[must_use]
pub fn wire_value(value: &Value) -> serde_json::Value {
    match value {
        Value::Bool(truth) => (*truth).into(),
        Value::Int(number) => (*number).into(),
        Value::Float(number) => (*number).into(),
        Value::Text(text) => text.to_string().into(),
    }
}

/// Labels or properties as JSON.
#[must_use]
pub fn wire_values(values: &BTreeMap<Key, Value>) -> BTreeMap<String, serde_json::Value> {
    values.iter().map(|(key, value)| (key.to_string(), wire_value(value))).collect()
}

pub(super) fn texts(tags: &BTreeMap<std::sync::Arc<str>, std::sync::Arc<str>>) -> BTreeMap<String, String> {
    tags.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::super::books::{CLOCK, books};
    use super::{LeaseEnd, in_the_way, lease_end_words, lease_info, queued_info, secret_refs};
    use crate::core::types::{ClaimId, LeaseId};

    #[test]
    fn a_lease_names_its_resources_and_never_its_secrets() {
        let state = books();
        let lease = state.lease(LeaseId(1));
        let info = lease_info(&state, lease, &CLOCK);
        let pick = &info.resources["phone"][0];
        assert_eq!((pick.name.as_str(), pick.pool.as_str(), pick.slots), ("pixel-1", "phone", 1));
        assert_eq!(pick.labels["os"], "android");
        assert_eq!(pick.properties["serial"], 5_554);
        assert!(pick.secrets.is_empty());
        assert_eq!((info.state.as_str(), info.until), ("active", Some(61_700)));
        assert_eq!(info.granted_at_time, "2026-11-23T02:13:10.000Z");
        assert!(!serde_json::to_string(&info).unwrap().contains("PIXEL_PIN"));
        assert!(secret_refs(&state, lease)["phone"][0].contains_key("pin"));
    }

    #[test]
    fn a_waiting_claim_is_told_its_place_and_who_is_in_its_way() {
        let state = books();
        let places: Vec<_> =
            [2, 3].iter().map(|id| queued_info(&state, &state.claims[&ClaimId(*id)], &CLOCK).place).collect();
        assert_eq!(places, [Some(1), Some(2)]);
        let holders = in_the_way(&state, &state.claims[&ClaimId(2)], &CLOCK);
        let seen: Vec<_> =
            holders.iter().map(|way| (way.resource.as_str(), way.owner.as_str(), way.job.as_deref())).collect();
        assert_eq!(seen, [("pixel-1", "max@lab", Some("https://ci/7"))]);
    }

    #[test]
    fn an_end_says_who_and_why() {
        let end = LeaseEnd::Revoked { by: "root".into(), forced: true, reason: Some("battery".into()) };
        assert_eq!(lease_end_words(&end), ("revoked".into(), "it was revoked by force by root: battery".into()));
    }
}
