//! The claims and leases of a session, as the client knows them, and until when it may use what.
//!
//! A lease is here while it is held; once it is released, over or lost it is told and forgotten.
//! Lost is decided here and is final.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::asks::AskKind;
use super::promise::{self, Promise};
use super::{Machine, Phase};
use crate::client::error::ClientError;
use crate::client::event::{Event, LeaseState, Standing};
use crate::clock::BootTime;
use crate::protocol::call::{ClaimRequest, LeaseEndingNotice, LeaseReach, LeaseReleased, SessionState};
use crate::protocol::info::{ClaimInfo, EndingInfo, LeaseInfo};

/// A claim that is neither granted nor ended.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) request: ClaimRequest,
    pub(super) ever_sent: bool,
    /// The user wants it no more.
    abandoned: bool,
    /// Another process made it: what it asked for is not known here.
    adopted: bool,
    asked_at: BootTime,
    /// What was told last while it waits.
    told: Option<Arc<ClaimInfo>>,
}

impl Claim {
    fn new(request: ClaimRequest, now: BootTime) -> Self {
        Self { request, ever_sent: false, abandoned: false, adopted: false, asked_at: now, told: None }
    }

    /// One that another process made, and that was granted.
    pub(super) fn adopted(now: BootTime) -> Self {
        Self { ever_sent: true, adopted: true, ..Self::new(ClaimRequest::default(), now) }
    }
}

/// A lease that is held.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) info: Arc<LeaseInfo>,
    /// The answer it counts by: the session's newest, until one names it as ending.
    counts: Promise,
    pub(super) deadline: BootTime,
    ending: Option<EndingInfo>,
}

impl Held {
    pub(super) fn state(&self, ttl_ms: u64, lab: Option<(u64, BootTime)>) -> LeaseState {
        // The lab's moment as one of this machine: what is left of the hold, from when the lab's
        // time was heard.
        let hold_ends_at = self.info.until.zip(lab).map(|(until, (lab_now, heard))| {
            if until >= lab_now { heard.plus(until - lab_now) } else { heard.minus(lab_now - until) }
        });
        LeaseState {
            deadline: self.deadline,
            terminate_at: self.deadline.minus(promise::grace_ms(ttl_ms)),
            hold_ends_at,
            standing: self.ending.clone().map_or(Standing::Active, Standing::Ending),
        }
    }
}

impl Machine {
    // --- deadlines ---

    /// Leases whose deadline has passed are lost. They are released as soon as a broker is there.
    pub(super) fn expire(&mut self, now: BootTime) {
        let lost: Vec<u64> =
            self.leases.iter().filter(|(_, held)| now >= held.deadline).map(|(lease, _)| *lease).collect();
        for lease in lost {
            self.leases.remove(&lease);
            self.tell(Event::Lost { lease });
            self.release_unasked(lease, true);
        }
    }

    /// Counts by an answer, if it is the newest: longer or shorter. Leases it names as ending keep
    /// the deadline they have, or get an earlier one.
    pub(super) fn count(&mut self, promise: Promise, named: &[u64]) {
        let Some(session) = &mut self.session else { return };
        let newer = promise.renewal > session.newest.renewal;
        if newer {
            session.newest = promise;
            session.named = named.to_vec();
        }
        let ordinary = promise.at_most(session.ttl_ms).deadline();
        for (lease, held) in &mut self.leases {
            let told = held.ending.is_some();
            if named.contains(lease) && !told {
                held.ending = Some(unexplained(&held.info));
            }
            if newer && held.ending.is_none() {
                held.counts = promise;
                held.deadline = promise.deadline();
            } else if newer {
                held.deadline = held.deadline.min(ordinary);
            }
            if let Some(ending) = held.ending.clone().filter(|_| !told) {
                let event = Event::Ending { lease: *lease, ending, deadline: held.deadline };
                self.outputs.push_back(super::Output::Tell(event));
            }
        }
    }

    /// The number that a renewal names: the newest answer's, or an older one's by whose longer
    /// promise an ending lease still counts, as naming a newer one frees the broker of it.
    pub(super) fn counted(&self) -> u64 {
        let Some(session) = &self.session else { return 0 };
        let longer = self.leases.values().map(|held| held.counts).filter(|counts| counts.promise_ms > session.ttl_ms);
        longer.map(|counts| counts.renewal).chain([session.newest.renewal]).min().unwrap_or(0)
    }

    // --- claims ---

    pub(super) fn acquire(&mut self, now: BootTime, request_id: u64, request: ClaimRequest) {
        self.claims.insert(request_id, Claim::new(request, now));
        self.add_ask(AskKind::Acquire { request_id }, None);
    }

    /// The user wants a claim no more. One that was granted in the meantime is released.
    pub(super) fn abandon(&mut self, request_id: u64) {
        if let Some(lease) = self.leases.values().find(|held| held.info.request_id == request_id) {
            let lease = lease.info.lease;
            self.release(lease, None, None);
            return;
        }
        let Some(claim) = self.claims.get_mut(&request_id) else { return };
        claim.abandoned = true;
        let ever_sent = claim.ever_sent;
        self.asks.retain(|_, ask| ask.kind != AskKind::Acquire { request_id });
        if ever_sent {
            self.add_ask(AskKind::Cancel { request_id }, None);
        } else {
            self.claims.remove(&request_id);
        }
    }

    /// When a claim that waits fails for want of a broker.
    pub(super) fn claim_fails_at(&self, claim: &Claim) -> Option<BootTime> {
        let since = self.unreached_since.filter(|_| !claim.abandoned)?;
        Some(since.max(claim.asked_at).plus(self.config.connect_timeout_ms))
    }

    pub(super) fn fail_claims(&mut self, now: BootTime) {
        if self.unreached_since.is_none() || self.phase == Phase::Closed {
            return;
        }
        let fails = |claim: &Claim| self.claim_fails_at(claim).is_some_and(|at| now >= at);
        let failed: Vec<u64> = self.claims.iter().filter(|(_, claim)| fails(claim)).map(|(id, _)| *id).collect();
        for request_id in failed {
            self.tell(Event::ClaimEnded { request_id, error: ClientError::NoBroker(self.last_failure.clone()) });
            // The broker may have it all the same: it is cancelled when there is one.
            self.abandon(request_id);
        }
    }

    pub(super) fn end_claim(&mut self, request_id: u64, error: ClientError) {
        self.asks.retain(|_, ask| ask.kind != AskKind::Acquire { request_id });
        if self.claims.remove(&request_id).is_some_and(|claim| !claim.abandoned) {
            self.tell(Event::ClaimEnded { request_id, error });
        }
    }

    pub(super) fn end_claims(&mut self, error: &ClientError) {
        let claims: Vec<u64> = self.claims.keys().copied().collect();
        for request_id in claims {
            self.end_claim(request_id, error.clone());
        }
    }

    /// What the broker says of a claim: as an answer, a notification, or in a session's state.
    pub(super) fn claim_seen(&mut self, now: BootTime, info: ClaimInfo) {
        self.lab = Some((info.now, now));
        let request_id = info.request_id;
        if info.state == "granted"
            && let Some(lease) = info.lease
        {
            self.asks.retain(|_, ask| ask.kind != AskKind::Acquire { request_id });
            self.lease_seen(lease);
        } else if info.state == "ended" {
            let error = match info.end {
                Some(end) => end.into(),
                None => ClientError::refused("ended", "the claim has ended; the broker does not say why"),
            };
            self.end_claim(request_id, error);
        } else if let Some(claim) = self.claims.get_mut(&request_id) {
            let info = Arc::new(info);
            claim.told = Some(Arc::clone(&info));
            if !claim.abandoned {
                self.tell(Event::Queued(info));
            }
        } else if !self.asks.values().any(|ask| ask.kind == AskKind::Cancel { request_id }) {
            // Nobody waits for it any more.
            self.add_ask(AskKind::Cancel { request_id }, None);
        }
    }

    // --- leases ---

    fn lease_seen(&mut self, info: LeaseInfo) {
        let (lease, request_id) = (info.lease, info.request_id);
        if let Some(ended) = &info.ended {
            if self.leases.remove(&lease).is_some() {
                self.tell(Event::Ended { lease, why: ended.why.clone(), message: ended.message.clone() });
            }
            self.end_claim(request_id, ClientError::refused(&ended.why, ended.message.clone()));
            return;
        }
        if self.leases.contains_key(&lease) {
            if let Some(ending) = info.ending.clone() {
                self.mark_ending(lease, ending);
            }
            self.reach_seen(info);
            return;
        }
        let wanted = self.claims.remove(&request_id).is_some_and(|claim| !claim.abandoned);
        let Some(session) = self.session.as_ref().filter(|_| wanted) else {
            self.release_unasked(lease, false);
            return;
        };
        if info.ending.is_some() || session.named.contains(&lease) {
            // Granted and already to end: the newest answer does not cover it, so it is not begun.
            self.release_unasked(lease, false);
            let ending = info.ending.clone().unwrap_or_else(|| unexplained(&info));
            self.tell(Event::ClaimEnded { request_id, error: ClientError::refused(&ending.why, ending.message) });
            return;
        }
        let (counts, info) = (session.newest, Arc::new(info));
        let deadline = counts.deadline();
        self.leases.insert(lease, Held { info: Arc::clone(&info), counts, deadline, ending: None });
        self.tell(Event::Granted { lease: info, deadline });
    }

    /// What the session has at the broker, after a resume, beside what it has here.
    pub(super) fn reconcile(&mut self, now: BootTime, state: SessionState) {
        let mut listed = BTreeSet::new();
        let mut waiting = BTreeSet::new();
        for info in state.claims {
            waiting.insert(info.request_id);
            listed.extend(info.lease.as_ref().map(|lease| lease.lease));
            if info.state == "queued" {
                // It is there: it need not be asked again.
                let request_id = info.request_id;
                self.asks.retain(|_, ask| ask.kind != AskKind::Acquire { request_id });
            }
            self.claim_seen(now, info);
        }
        let over: Vec<u64> = self.leases.keys().filter(|lease| !listed.contains(lease)).copied().collect();
        for lease in over {
            self.leases.remove(&lease);
            let message =
                format!("lease {lease} ended while the connection was down: `leasehold why {lease}` says why");
            self.tell(Event::Ended { lease, why: "ended_meanwhile".to_owned(), message });
        }
        // A claim that the broker does not list has ended: asking again says how.
        let asked = |machine: &Self, request_id: u64| {
            machine.asks.values().any(|ask| match ask.kind {
                AskKind::Acquire { request_id: of } | AskKind::Cancel { request_id: of } => of == request_id,
                _ => false,
            })
        };
        let missing: Vec<u64> =
            self.claims.keys().copied().filter(|id| !waiting.contains(id) && !asked(self, *id)).collect();
        for request_id in missing {
            if self.claims.get(&request_id).is_some_and(|claim| claim.adopted) {
                let message = "the lease that was handed over had ended before this process took it";
                self.end_claim(request_id, ClientError::refused("ended", message));
            } else {
                self.add_ask(AskKind::Acquire { request_id }, None);
            }
        }
    }

    pub(super) fn lease_ending(&mut self, notice: LeaseEndingNotice) {
        self.mark_ending(notice.lease, notice.ending);
    }

    pub(super) fn mark_ending(&mut self, lease: u64, ending: EndingInfo) {
        let Some(held) = self.leases.get_mut(&lease) else { return };
        let told = held.ending.is_some();
        let event = Event::Ending { lease, ending: ending.clone(), deadline: held.deadline };
        held.ending = Some(ending);
        if !told {
            self.tell(event);
        }
    }

    pub(super) fn lease_ended(&mut self, released: &LeaseReleased) {
        if self.leases.remove(&released.lease).is_some() {
            let (why, message) = (released.why.clone(), released.message.clone());
            self.tell(Event::Ended { lease: released.lease, why, message });
        }
    }

    /// Resources of a lease went offline, or came back.
    pub(super) fn lease_reached(&mut self, reach: LeaseReach, offline: bool) {
        let Some(held) = self.leases.get_mut(&reach.lease) else { return };
        let mut info = (*held.info).clone();
        for pick in info.resources.values_mut().flatten().filter(|pick| reach.resources.contains(&pick.name)) {
            pick.offline = offline.then(|| reach.message.clone());
        }
        held.info = Arc::new(info);
        self.tell_reach(reach.lease, reach.resources, reach.message, offline);
    }

    fn tell_reach(&mut self, lease: u64, resources: Vec<String>, message: String, offline: bool) {
        self.tell(if offline {
            Event::Offline { lease, resources, message }
        } else {
            Event::Online { lease, resources, message }
        });
    }

    /// A lease as the broker has it, after a resume: what went offline or came back meanwhile is told.
    fn reach_seen(&mut self, info: LeaseInfo) {
        let Some(held) = self.leases.get_mut(&info.lease) else { return };
        let of = |info: &LeaseInfo| -> BTreeMap<String, Option<String>> {
            let picks = info.resources.values().flatten();
            picks.map(|pick| (pick.name.clone(), pick.offline.clone())).collect()
        };
        let (before, after) = (of(&held.info), of(&info));
        let lease = info.lease;
        held.info = Arc::new(info);
        for (name, why) in after {
            let was_offline = before.get(&name).is_some_and(Option::is_some);
            let message = match &why {
                Some(why) => format!("{name} is offline: {why}"),
                None => format!("{name} of lease {lease} is online again"),
            };
            if was_offline != why.is_some() {
                self.tell_reach(lease, vec![name], message, why.is_some());
            }
        }
    }

    pub(super) fn lease_extended(&mut self, info: LeaseInfo) {
        if let Some(held) = self.leases.get_mut(&info.lease) {
            held.info = Arc::new(info);
            let info = Arc::clone(&held.info);
            self.tell(Event::Extended(info));
        }
    }
}

/// Why a lease is ending where an answer names it and the notice is not here yet.
fn unexplained(info: &LeaseInfo) -> EndingInfo {
    EndingInfo {
        why: "ending".to_owned(),
        message: format!("lease {} is to end: release it; `leasehold why {}` says why", info.lease, info.lease),
        since: info.granted_at,
        since_time: info.granted_at_time.clone(),
    }
}
