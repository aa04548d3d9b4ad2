//! Why something is as it is, in sentences: a claim, a lease, a resource.

use super::listing::{in_the_way_words, resource_info};
use super::matching::tally;
use super::told::{capped_words, end_info, lease_end_words, outcome_word, place};
use crate::core::claim::Claim;
use crate::core::event::Event;
use crate::core::inventory::Resource;
use crate::core::lease::Lease;
use crate::core::need::{Count, Need};
use crate::core::state::State;
use crate::core::tables::{JournalEntry, PastLease};
use crate::core::types::{ClaimId, LeaseId};
use crate::engine::view::{LabClock, View};
use crate::protocol::info::WhyInfo;
use crate::units::show_duration_ms;

/// Why a waiting claim waits, or what lease it became; `None` for one that is not on the books.
#[must_use]
pub fn claim(view: &View<'_>, id: ClaimId) -> Option<WhyInfo> {
    if let Some(claim) = view.state.claims.get(&id) {
        return Some(waiting(view, claim));
    }
    let lease = view.state.leases.values().find(|lease| lease.claim == id)?;
    let summary = format!("it was granted as lease {} at {}", lease.id, view.clock.time(lease.granted_at));
    Some(WhyInfo { subject: format!("claim {}", id.0), summary, reasons: held_reasons(view, lease) })
}

fn waiting(view: &View<'_>, claim: &Claim) -> WhyInfo {
    let place = place(view.state, claim);
    let connected = (view.presence)(claim.session).connected;
    let summary = if let Some(failure) = view.store_failure {
        format!("it waits because nothing is granted while the store fails: {failure}")
    } else if view.stopping {
        "it waits because the broker is stopping; it keeps its place over the restart".to_owned()
    } else if let Some(blocked) = &claim.blocked {
        format!("it cannot be granted however long the others take: {}", blocked.message)
    } else if !connected {
        "its socket is down: it keeps its place, and is granted when its client is back".to_owned()
    } else if let Some(words) = capped_words(view.state, claim) {
        format!("it waits for its own owner: {words}")
    } else {
        format!("it waits at place {place}, as what it asks for is held or kept back for claims before it")
    };
    let mut reasons: Vec<String> = claim.spec.needs.iter().map(|need| need_words(view.state, need)).collect();
    reasons.extend(in_the_way_words(view, claim));
    reasons.extend(senior_words(view.state, claim, place));
    reasons.push(match (view.etas)(Some(claim)).get(&claim.id) {
        None => "when it is granted cannot be said: there is no basis for an estimate".to_owned(),
        Some(eta) => format!(
            "it is granted in {} to {}, going by the last {} holds",
            show_duration_ms(eta.low_ms / 1_000 * 1_000),
            show_duration_ms(eta.high_ms.div_ceil(1_000) * 1_000),
            eta.holds
        ),
    });
    reasons.push(format!(
        "{} waits for {} since {}",
        claim.owner,
        show_duration_ms(view.clock.now.since(claim.queued_at)),
        view.clock.time(claim.queued_at)
    ));
    if let Some(first) = claim.first_arrival {
        let first = view.clock.time(first);
        reasons.push(format!("it is a retry, and its place counts from the first arrival of its work at {first}"));
    }
    reasons.push(claim.wait_until.map_or_else(
        || "it waits without a limit".to_owned(),
        |until| format!("it stops waiting at {}", view.clock.time(until)),
    ));
    WhyInfo { subject: format!("claim {}", claim.id.0), summary, reasons }
}

fn need_words(state: &State, need: &Need) -> String {
    let tally = tally(state, need);
    let count = match need.count {
        Count::Exactly(count) => count.to_string(),
        Count::All => "every one".to_owned(),
    };
    let cooling = if tally.cooling == 0 { String::new() } else { format!(" {} are cooling,", tally.cooling) };
    format!(
        "`{need}` asks for {count}: of {} in the pool {} match, of which {} are free, {} are held,{cooling} and {} are \
         drained, offline, quarantined or going",
        tally.members, tally.matching, tally.free, tally.held, tally.out
    )
}

fn senior_words(state: &State, claim: &Claim, place: u64) -> Option<String> {
    let first = State::pools_of(claim).into_iter().filter_map(|pool| state.pools.get(pool)?.queue.first()).min()?;
    if first.claim == claim.id {
        return Some("no claim on its pools is before it".to_owned());
    }
    let senior = state.claims.get(&first.claim)?;
    Some(format!(
        "{} claims on its pools are before it; the first is claim {} of {}",
        place - 1,
        senior.id.0,
        senior.owner
    ))
}

/// Why a lease is held or ending; `None` for one that is not on the books.
#[must_use]
pub fn lease(view: &View<'_>, id: LeaseId) -> Option<WhyInfo> {
    let lease = view.state.leases.get(&id)?;
    let names: Vec<&str> = lease.picks.iter().map(|pick| pick.name.as_str()).collect();
    let summary = match &lease.ending {
        Some(ending) => format!(
            "it is ending since {}: {}; {} go to nobody before its holder has released or its time is over",
            view.clock.time(ending.since),
            lease_end_words(&ending.why).1,
            names.join(", ")
        ),
        None => format!("{} holds {}", lease.owner, names.join(", ")),
    };
    Some(WhyInfo { subject: format!("lease {id}"), summary, reasons: held_reasons(view, lease) })
}

fn held_reasons(view: &View<'_>, lease: &Lease) -> Vec<String> {
    let seen = (view.presence)(lease.session);
    let ttl = view.state.sessions.get(&lease.session).map_or(0, |session| session.ttl_ms);
    let mut reasons = asked_reasons(lease, &view.clock);
    reasons.push(match lease.until {
        Some(until) => format!("its hold ends at {}", view.clock.time(until)),
        None => "its hold has no end".to_owned(),
    });
    reasons.push(format!(
        "session {} gave its last sign of life {} ago, its ttl is {}, its socket is {}",
        lease.session.0,
        show_duration_ms(seen.last_seen_ms),
        show_duration_ms(ttl),
        if seen.connected { "up" } else { "down" }
    ));
    reasons
}

fn asked_reasons(lease: &Lease, clock: &LabClock) -> Vec<String> {
    let needs: Vec<String> = lease.spec.needs.iter().map(Need::to_string).collect();
    let mut reasons =
        vec![format!("{} asked for {} at {}", lease.owner, needs.join(" and "), clock.time(lease.queued_at))];
    let waited = show_duration_ms(lease.granted_at.since(lease.queued_at));
    reasons.push(format!("it was granted at {} after {waited}", clock.time(lease.granted_at)));
    if let Some(job) = lease.spec.tags.get("job") {
        reasons.push(format!("its job is {job}"));
    }
    if let Some(note) = &lease.spec.note {
        reasons.push(format!("its note is: {note}"));
    }
    reasons
}

/// Why a lease of the history ended.
#[must_use]
pub fn past_lease(past: &PastLease, clock: &LabClock) -> WhyInfo {
    let lease = &past.lease;
    let mut reasons = asked_reasons(lease, clock);
    let summary = past.ended.as_ref().map_or_else(
        || "it is held".to_owned(),
        |ended| format!("it ended at {}: {}", clock.time(ended.at), lease_end_words(&ended.end).1),
    );
    if let Some(ended) = &past.ended {
        reasons.push(format!("it was held for {}", show_duration_ms(ended.at.since(lease.granted_at))));
        reasons.extend(ended.outcome.map(|outcome| format!("its work was said to be: {}", outcome_word(outcome))));
    }
    WhyInfo { subject: format!("lease {}", lease.id), summary, reasons }
}

/// What became of a claim that is not on the books, by the events that name it.
#[must_use]
pub fn past_claim(id: ClaimId, events: &[JournalEntry], clock: &LabClock) -> Option<WhyInfo> {
    let mut reasons = Vec::new();
    let mut summary = None;
    for entry in events {
        let when = clock.time(entry.at);
        match &entry.event {
            Event::ClaimQueued { claim } if claim.id == id => {
                let needs: Vec<String> = claim.spec.needs.iter().map(Need::to_string).collect();
                reasons.push(format!("{} asked for {} at {when}", claim.owner, needs.join(" and ")));
            }
            Event::ClaimBlocked { claim, blocked: Some(blocked) } if *claim == id => {
                reasons.push(format!("it was blocked at {when}: {}", blocked.message));
            }
            Event::ClaimEnded { claim, end, .. } if *claim == id => {
                summary = Some(format!("it ended at {when} without a lease: {}", end_info(end).message));
            }
            Event::LeaseGranted { lease } if lease.claim == id => {
                summary = Some(format!("it was granted as lease {} at {when}, which has ended", lease.id));
                reasons.push(format!("`leasehold why lease:{}` says how", lease.id));
            }
            _ => {}
        }
    }
    summary.map(|summary| WhyInfo { subject: format!("claim {}", id.0), summary, reasons })
}

/// Why a resource is in the state it is in.
#[must_use]
pub fn resource(view: &View<'_>, resource: &Resource) -> WhyInfo {
    let info = resource_info(view, resource);
    let mut reasons = Vec::new();
    for (what, mark) in [("quarantined", &info.quarantined), ("drained", &info.drained), ("offline", &info.offline)] {
        if let Some(mark) = mark {
            reasons.push(format!("it is {what} since {} by {}: {}", mark.since_time, mark.by, mark.reason));
        }
    }
    match info.pending.as_deref() {
        Some("removal") => reasons.push("it is removed when its last holder is done".to_owned()),
        Some(_) => reasons.push("it is changed when its last holder is done, and gets no new one before".to_owned()),
        None => {}
    }
    if let (Some(slots), Some(until)) = (info.slots_cooling, &info.cooling_until_time) {
        reasons.push(format!(
            "{slots} of {} slots cool after their last lease, the last of them until {until}",
            info.slots
        ));
    }
    for holder in &info.holders {
        let job = holder.tags.get("job").map(|job| format!(" for {job}")).unwrap_or_default();
        reasons.push(format!(
            "{} holds {} of {} slots{job} (lease {}, {}) since {}, last sign of life {} ago",
            holder.owner,
            holder.slots,
            info.slots,
            holder.lease,
            holder.state,
            holder.since_time,
            show_duration_ms(holder.last_seen_ms)
        ));
    }
    if let Some(pool) = view.state.pools.get(&resource.spec.pool).filter(|pool| !pool.queue.is_empty()) {
        reasons.push(format!("{} claims wait for its pool {}", pool.queue.len(), info.pool));
    }
    let summary = match info.state.as_str() {
        "free" => "it is free: nobody who could be granted it asks for it".to_owned(),
        "shared" => format!("{} of its {} slots are free", info.slots_free, info.slots),
        "pending" => "it gets no new holder, as it is about to change".to_owned(),
        state => format!("it is {state}"),
    };
    WhyInfo { subject: format!("resource {}", info.name), summary, reasons }
}

#[cfg(test)]
mod tests {
    use super::super::books::{books, name, view};
    use super::{claim, lease, resource};
    use crate::core::types::{ClaimId, LeaseId};

    #[test]
    fn a_waiting_claim_says_what_is_in_its_way() {
        let state = books();
        let why = claim(&view(&state), ClaimId(3)).unwrap();
        assert!(why.summary.contains("socket is down"), "{why:?}");
        let all = why.reasons.join("\n");
        assert!(all.contains("of 2 in the pool 1 match, of which 0 are free, 1 are held,"), "{all}");
        assert!(all.contains("pixel-1 is held by max@lab for https://ci/7 (lease 1)"), "{all}");
        assert!(all.contains("the first is claim 2 of tina@ci"), "{all}");
        assert_eq!(claim(&view(&state), ClaimId(9)), None);
    }

    #[test]
    fn a_lease_and_a_resource_say_who_and_since_when() {
        let state = books();
        let why = lease(&view(&state), LeaseId(1)).unwrap();
        assert_eq!(why.summary, "max@lab holds pixel-1");
        assert!(why.reasons.iter().any(|reason| reason.contains("ttl is 30s, its socket is up")), "{why:?}");
        let why = resource(&view(&state), state.resource(state.names[&name("pixel-1")]));
        assert_eq!(why.summary, "it is leased");
        assert!(why.reasons[0].starts_with("max@lab holds 1 of 1 slots"), "{why:?}");
    }
}
