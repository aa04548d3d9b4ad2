//! What the book says against what is there in the world: whatever differs is acted on.
//!
//! After each batch for what it changed, after a start or a failed write for everything. So nothing that is
//! to be done has to be remembered beside the book.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::act::INSTANCE;
use super::claim::{self, Opening, Order};
use super::mending::take_over;
use super::task::{AGAIN_MS, Claim, Task, granted, sleep_till};
use super::{Wish, now_ms, spec, uncertain};
use crate::builds::build::{Build, BuildId, Phase};
use crate::builds::change::Change;
use crate::builds::delivery::Outcome;
use crate::clock::{boot_now, random_secret};
use crate::core::types::Owner;
use crate::store::StoreError;

impl Task {
    /// Takes up what is to be done in the world, by a process that has done nothing yet.
    pub(super) async fn resume(&mut self) {
        // Builds that were not taken claim anew: nobody knows the secrets of their old sessions.
        let known = self.book.open().filter(|build| build.phase != Phase::Queued);
        let known: Vec<u64> = known.filter_map(|build| build.session).collect();
        if !self.hands.sweep(known).await {
            tracing::warn!("sessions of builds that were not taken could not be ended: they expire");
        }
        self.take_up();
    }

    /// Looks at every build and every delivery.
    fn take_up(&mut self) {
        self.postponed.extend(self.sources.take(&self.book));
        let all: Vec<BuildId> = self.book.open().map(|build| build.id).collect();
        all.into_iter().for_each(|id| self.reconcile(id));
        self.look_due = true;
        self.tell_seen(true);
    }

    /// Acts on what was stored.
    pub(super) fn act(&mut self, changes: &[Change]) {
        let mut news = false;
        for change in changes {
            self.figures.count(change);
            match change {
                Change::Accepted(delivery, _) => news |= delivery.outcome == Outcome::Accepted,
                Change::Delivery(delivery) => self.sources.done(delivery),
                Change::Build(build) => {
                    self.reconcile(build.id);
                    if build.phase.is_final() {
                        self.hands.no_more_log(build.id, build.attempt);
                    }
                    // Those that wait for it, and those it waits for.
                    let lane: Vec<BuildId> = self.book.lane_of(build).filter(|id| *id != build.id).collect();
                    lane.into_iter().for_each(|id| self.reconcile(id));
                }
                Change::Note(_) | Change::Status(_) => {}
            }
        }
        if news {
            self.postponed.extend(self.sources.take(&self.book));
        }
    }

    /// Brings what is there in line with what a build is.
    pub(super) fn reconcile(&mut self, id: BuildId) {
        let Some(build) = self.book.build(id).cloned() else {
            self.handed.remove(&id);
            self.revoked.retain(|(known, _)| *known != id);
            self.waits_changed |= self.waits.remove(&id).is_some();
            if let Some(claim) = self.claims.get_mut(&id) {
                claim.close();
            }
            return;
        };
        match build.phase {
            Phase::Queued => self.reconcile_waiting(&build),
            Phase::Preparing | Phase::Running => self.reconcile_taken(&build),
            _ => {}
        }
    }

    fn reconcile_waiting(&mut self, build: &Arc<Build>) {
        self.handed.remove(&build.id);
        if let Some(older) = self.book.waits_for(build) {
            let words: Arc<str> = format!("build {older} of {} goes before it", build.subject.line).into();
            self.waits_changed |= self.waits.insert(build.id, words.clone()).as_ref() != Some(&words);
        }
        let Some(claim) = self.claims.get_mut(&build.id) else {
            match build.session {
                Some(session) => self.end_session(build.id, session),
                None if self.book.may_claim(build) => self.claim(build),
                None => {}
            }
            return;
        };
        let own = claim.session.as_ref().map(|session| session.number);
        // An attempt's before this one, where nobody resumed it.
        let old = claim.asked && build.session != own;
        if build.ending.is_some() || old {
            claim.close();
        } else if build.session.is_some() && build.session == own && !claim.asked && !claim.closing {
            claim.asked = true;
            match spec::claim(build, &self.settings, now_ms()) {
                Ok(spec) => claim.order(Order::Acquire(Box::new(spec))),
                Err(problem) => self.postponed.push(claim.deny(build.id, Phase::Failed, problem.into())),
            }
        }
    }

    fn reconcile_taken(&mut self, build: &Arc<Build>) {
        self.waits_changed |= self.waits.remove(&build.id).is_some();
        let Some(session) = build.session else { return };
        let untaken = build.ending.as_ref().is_some_and(|ending| ending.to == Phase::Queued);
        if build.reported || untaken {
            self.end_session(build.id, session);
        } else if build.ending.is_some()
            && let Some(lease) = build.lease
            && !self.revoked.contains(&(build.id, lease))
            && self.acting.insert(build.id)
        {
            self.revoked.insert((build.id, lease));
            self.hands.revoke(build, lease);
        }
    }

    fn end_session(&mut self, id: BuildId, session: u64) {
        if self.acting.insert(id) {
            self.hands.end_session(id, session);
        }
    }

    /// Opens a session for a build that waits.
    fn claim(&mut self, build: &Build) {
        self.serial += 1;
        let (id, attempt) = (build.id.0, build.attempt);
        let random = random_secret();
        let instance = format!("{INSTANCE}{id}-{attempt}-{}", &random[..16]).into();
        let owner = Owner { name: build.repository.clone(), verified: false };
        let opening =
            Opening { build: build.id, serial: self.serial, instance, owner, pools: spec::pools(&build.plan) };
        let orders = claim::start(opening, self.hands.engine.clone(), self.speak.clone());
        let claim = Claim {
            serial: self.serial,
            orders,
            session: None,
            asked: false,
            granted: None,
            denied: None,
            take_by: None,
            closing: false,
        };
        self.claims.insert(build.id, claim);
    }

    /// Shows what can be seen without asking.
    pub(super) fn tell_seen(&mut self, changed: bool) {
        if !changed && !self.waits_changed {
            return;
        }
        let mut offers: BTreeMap<Arc<str>, std::collections::BTreeSet<BuildId>> = BTreeMap::new();
        for build in self.book.offered() {
            // Only what can be handed over.
            let there = self.claims.get(&build.id).is_some_and(|claim| !claim.closing && claim.granted.is_some());
            if let Some(agent) = build.agent.as_ref().filter(|_| there) {
                offers.entry(agent.clone()).or_default().insert(build.id);
            }
        }
        let waits = std::mem::take(&mut self.waits_changed).then(|| Arc::new(self.waits.clone()));
        self.seen.send_modify(|seen| {
            seen.changes += u64::from(changed);
            seen.offers = Arc::new(offers);
            if let Some(waits) = waits {
                seen.waits = waits;
            }
        });
    }

    /// Reads the book anew after the store failed, for as long as that takes; `false` where another leads.
    pub(super) async fn mend(&mut self) -> bool {
        self.book = loop {
            match take_over(&self.store, now_ms()).await {
                Ok(book) => break book,
                Err(StoreError::Deposed { .. }) => return false,
                Err(error) => tracing::warn!(%error, "the builds cannot be read"),
            }
            tokio::select! {
                () = sleep_till(boot_now().plus(AGAIN_MS)) => {}
                wish = self.wishes.recv() => match wish {
                    Some(Wish::Command(_, asker)) => drop(asker.send(Err(uncertain()))),
                    Some(Wish::Figures(asker)) => drop(asker.send(self.figures.clone())),
                    None => return false,
                },
            }
        };
        self.sources.forget();
        // What claims have told stands; what was not stored of it is decided again.
        for (id, claim) in &mut self.claims {
            let build = self.book.build(*id);
            let own = claim.session.as_ref().map(|session| session.number);
            let noted = build.is_some_and(|build| build.session.is_some() && build.session == own);
            match (&claim.granted, own) {
                _ if own.is_some() && !noted => claim.close(),
                (None, Some(_)) => {
                    let denied = claim.denied.clone();
                    self.postponed.extend(denied.map(|(to, reason)| claim.deny(*id, to, reason)));
                }
                (Some(grant), Some(session)) => self.postponed.push(granted(*id, session, grant.clone())),
                _ => {}
            }
        }
        self.acting.clear();
        self.revoked.clear();
        self.take_up();
        true
    }
}
