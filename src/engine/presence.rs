//! Presence: when each session was last heard of, and what it was promised.
//!
//! All of it is this process's clock, which counts suspended time; none of it is stored but the
//! longer promise of a planned stop. This is the one decider of expiries: a session is given up
//! only when everything already read from its socket was counted and every promise to it has run
//! out. See `docs/timing.md` for the rule this carries out.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use super::input::{LastRead, SocketId};
use crate::clock::BootTime;
use crate::core::types::{LeaseId, SessionId};

/// A promise longer than the ttl, given at a planned stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LongPromise {
    /// The number of the answer that gave it; 0 where an earlier process gave it.
    renewal: u64,
    /// When it was given, or taken over from an earlier process.
    from: BootTime,
    /// How long it is.
    ms: u64,
}

impl LongPromise {
    const fn until(self) -> BootTime {
        self.from.plus(self.ms)
    }
}

/// What is known of one session.
#[derive(Clone, Debug)]
struct Present {
    ttl_ms: u64,
    /// When it was last heard of, as far as the engine has counted.
    last: BootTime,
    long: Option<LongPromise>,
    /// Its current socket, and where that one's reader notes what it has read.
    socket: Option<(SocketId, LastRead)>,
    /// An end of it is decided and not yet known to be committed: no renewal is answered.
    expiring: bool,
}

/// When sessions were last heard of, and what they were promised.
#[derive(Debug, Default)]
pub struct Presence {
    sessions: BTreeMap<SessionId, Present>,
    /// When to look at a session next; never later than its expiry.
    watch: BTreeSet<(BootTime, SessionId)>,
    ttls: BTreeMap<u64, usize>,
    /// Endings known to be committed, since when, by session.
    endings: BTreeMap<SessionId, BTreeMap<LeaseId, BootTime>>,
    ending_watch: BTreeSet<(BootTime, SessionId, LeaseId)>,
    ending_of: BTreeMap<LeaseId, SessionId>,
    /// Everyone is taken to have been heard of at this moment at least: a start, or a loop that
    /// stood still.
    floor: BootTime,
    ticked: BootTime,
}

impl Presence {
    /// Begins, with nobody known.
    #[must_use]
    pub fn new(at: BootTime) -> Self {
        Self { floor: at, ticked: at, ..Self::default() }
    }

    /// A session is known from `at` on. `promise_ms` is a longer promise of an earlier process.
    pub fn add(&mut self, id: SessionId, ttl_ms: u64, at: BootTime, promise_ms: Option<u64>) {
        let long = promise_ms.map(|ms| LongPromise { renewal: 0, from: at, ms });
        let present = Present { ttl_ms, last: at, long, socket: None, expiring: false };
        if self.sessions.insert(id, present).is_none() {
            *self.ttls.entry(ttl_ms).or_default() += 1;
        }
        self.watch.insert((at.plus(ttl_ms), id));
    }

    /// A session is over.
    pub fn remove(&mut self, id: SessionId) {
        let Some(gone) = self.sessions.remove(&id) else { return };
        if let Some(count) = self.ttls.get_mut(&gone.ttl_ms) {
            *count -= 1;
            if *count == 0 {
                self.ttls.remove(&gone.ttl_ms);
            }
        }
        for lease in self.endings.remove(&id).into_iter().flatten() {
            self.ending_of.remove(&lease.0);
        }
    }

    /// Sessions known.
    pub fn known(&self) -> impl Iterator<Item = SessionId> {
        self.sessions.keys().copied()
    }

    /// Whether the session is known.
    #[must_use]
    pub fn knows(&self, id: SessionId) -> bool {
        self.sessions.contains_key(&id)
    }

    /// Everyone gets a full ttl from `at`: the moment connections are accepted.
    pub fn accept_from(&mut self, at: BootTime) {
        self.floor = self.floor.max(at);
        self.ticked = self.ticked.max(at);
        for present in self.sessions.values_mut() {
            if let Some(long) = &mut present.long
                && long.renewal == 0
            {
                // What an earlier process promised is counted in full from here.
                long.from = long.from.max(at);
            }
        }
    }

    /// The session's socket is this one now. Answers the one it had.
    pub fn attach(&mut self, id: SessionId, socket: SocketId, read: LastRead) -> Option<SocketId> {
        let present = self.sessions.get_mut(&id)?;
        present.last = present.last.max(read.at());
        present.socket.replace((socket, read)).map(|(before, _)| before)
    }

    /// The session's socket, when this is it, is gone. Answers whether it was.
    pub fn detach(&mut self, id: SessionId, socket: SocketId) -> bool {
        let Some(present) = self.sessions.get_mut(&id) else { return false };
        let current = matches!(&present.socket, Some((known, _)) if *known == socket);
        if current && let Some((_, read)) = present.socket.take() {
            present.last = present.last.max(read.at());
        }
        current
    }

    /// Whether this is the session's current socket.
    #[must_use]
    pub fn is_current(&self, id: SessionId, socket: SocketId) -> bool {
        let current = self.sessions.get(&id).and_then(|present| present.socket.as_ref());
        current.is_some_and(|(known, _)| *known == socket)
    }

    /// The session's current socket.
    #[must_use]
    pub fn socket(&self, id: SessionId) -> Option<SocketId> {
        self.sessions.get(&id)?.socket.as_ref().map(|(socket, _)| *socket)
    }

    /// Whether the session's socket is up.
    #[must_use]
    pub fn is_connected(&self, id: SessionId) -> bool {
        self.sessions.get(&id).is_some_and(|present| present.socket.is_some())
    }

    /// The session was heard of.
    pub fn heard(&mut self, id: SessionId, at: BootTime) {
        if let Some(present) = self.sessions.get_mut(&id) {
            present.last = present.last.max(at);
        }
    }

    /// A renewal names the answer that its client counts by. Answers whether that ends a longer
    /// promise: a later answer than the one that gave it is counted by.
    pub fn counts_by(&mut self, id: SessionId, renewal: u64, first_of_process: u64) -> bool {
        let Some(present) = self.sessions.get_mut(&id) else { return false };
        let ended = present.long.is_some_and(|long| renewal > long.renewal.max(first_of_process.saturating_sub(1)));
        if ended {
            present.long = None;
            // They were to be looked at when the longer promise would have run out.
            self.watch.insert((promised_until(present, self.floor), id));
            for (lease, since) in self.endings.get(&id).into_iter().flatten() {
                self.ending_watch.insert((since.plus(present.ttl_ms), id, *lease));
            }
        }
        ended
    }

    /// The session was promised longer than its ttl, counted from `at`.
    pub fn promise(&mut self, id: SessionId, at: BootTime, ms: u64, renewal: u64) {
        if let Some(present) = self.sessions.get_mut(&id) {
            present.long = Some(LongPromise { renewal, from: at, ms });
        }
    }

    /// The session's ttl, unless an end of it is decided: then no renewal may be answered.
    #[must_use]
    pub fn renewable(&self, id: SessionId) -> Option<u64> {
        self.sessions.get(&id).filter(|present| !present.expiring).map(|present| present.ttl_ms)
    }

    /// An end of the session is decided: no renewal of it is answered from here on.
    pub fn give_up(&mut self, id: SessionId) {
        if let Some(present) = self.sessions.get_mut(&id) {
            present.expiring = true;
        }
    }

    /// How long ago the session was heard of.
    #[must_use]
    pub fn last_seen_ms(&self, id: SessionId, now: BootTime) -> u64 {
        self.sessions.get(&id).map_or(0, |present| now.since(heard_of(present)))
    }

    /// An ending of a lease of the session is known to be committed since `at`.
    pub fn ending(&mut self, session: SessionId, lease: LeaseId, at: BootTime) {
        let Some(present) = self.sessions.get(&session) else { return };
        // One that is known runs already.
        if let Entry::Vacant(fresh) = self.endings.entry(session).or_default().entry(lease) {
            fresh.insert(at);
            self.ending_watch.insert((at.plus(present.ttl_ms), session, lease));
            self.ending_of.insert(lease, session);
        }
    }

    /// A lease is over.
    pub fn ended(&mut self, lease: LeaseId) {
        let Some(session) = self.ending_of.remove(&lease) else { return };
        if let Some(leases) = self.endings.get_mut(&session) {
            leases.remove(&lease);
            if leases.is_empty() {
                self.endings.remove(&session);
            }
        }
    }

    /// The leases of the session that are ending.
    #[must_use]
    pub fn endings_of(&self, session: SessionId) -> Vec<LeaseId> {
        self.endings.get(&session).map_or_else(Vec::new, |leases| leases.keys().copied().collect())
    }

    /// Notes that the loop is alive. When it stood still for longer than a quarter of the
    /// smallest ttl, everyone gets a full ttl before anyone is given up: what they sent meanwhile
    /// has not been read.
    pub fn tick(&mut self, now: BootTime) {
        let smallest = self.ttls.keys().next().copied().unwrap_or(u64::MAX);
        if now.since(self.ticked) > smallest / 4 {
            self.floor = now;
        }
        self.ticked = now;
    }

    /// How often at least [`Presence::tick`] is to be called so that a busy loop is not taken for
    /// one that stood still, milliseconds.
    #[must_use]
    pub fn tick_every_ms(&self) -> u64 {
        let smallest = self.ttls.keys().next().copied().unwrap_or(u64::MAX);
        (smallest / 16).clamp(20, 1_000)
    }

    /// The next session that must be given up, marked as expiring. All that was read before the
    /// call must have been noted.
    pub fn next_expired(&mut self, now: BootTime) -> Option<SessionId> {
        while let Some((due, id)) = self.watch.first().copied() {
            if due > now {
                return None;
            }
            self.watch.pop_first();
            let floor = self.floor;
            let Some(present) = self.sessions.get_mut(&id) else { continue };
            if present.expiring {
                continue;
            }
            let until = promised_until(present, floor);
            if until > now {
                self.watch.insert((until, id));
                continue;
            }
            present.expiring = true;
            return Some(id);
        }
        None
    }

    /// The next ending whose holder has had its time. A longer promise that binds still is waited
    /// for: its client may count by it.
    pub fn next_ending_over(&mut self, now: BootTime) -> Option<LeaseId> {
        while let Some((due, session, lease)) = self.ending_watch.first().copied() {
            if due > now {
                return None;
            }
            self.ending_watch.pop_first();
            let since = self.endings.get(&session).and_then(|leases| leases.get(&lease)).copied();
            let (Some(since), Some(present)) = (since, self.sessions.get(&session)) else { continue };
            let long = present.long.map_or(BootTime(0), LongPromise::until);
            let until = since.max(self.floor).plus(present.ttl_ms).max(long);
            if until > now {
                self.ending_watch.insert((until, session, lease));
                continue;
            }
            // Looked at again, should what is decided now not be committed.
            self.ending_watch.insert((now.plus(present.ttl_ms), session, lease));
            return Some(lease);
        }
        None
    }

    /// When something may be due next.
    #[must_use]
    pub fn next_due(&self) -> Option<BootTime> {
        let session = self.watch.first().map(|(due, _)| *due);
        let ending = self.ending_watch.first().map(|(due, ..)| *due);
        session.into_iter().chain(ending).min()
    }

    /// Ends that were decided and not committed are open again.
    pub fn undo_expiries(&mut self, now: BootTime) {
        for (id, present) in &mut self.sessions {
            if present.expiring {
                present.expiring = false;
                self.watch.insert((now, *id));
            }
        }
        for (session, leases) in &self.endings {
            self.ending_watch.extend(leases.keys().map(|lease| (now, *session, *lease)));
        }
    }
}

fn heard_of(present: &Present) -> BootTime {
    let read = present.socket.as_ref().map_or(BootTime(0), |(_, read)| read.at());
    present.last.max(read)
}

/// Until when nothing of the session may be given to another.
fn promised_until(present: &Present, floor: BootTime) -> BootTime {
    let long = present.long.map_or(BootTime(0), LongPromise::until);
    heard_of(present).max(floor).plus(present.ttl_ms).max(long)
}

#[cfg(test)]
mod tests {
    use super::{BootTime, LastRead, LeaseId, Presence, SessionId};

    const S: SessionId = SessionId(1);
    const L: LeaseId = LeaseId(7);

    fn at(ms: u64) -> BootTime {
        BootTime(ms)
    }

    /// A presence whose loop ticks often enough.
    fn run_to(presence: &mut Presence, from: u64, to: u64) -> Option<(u64, SessionId)> {
        for now in (from..=to).step_by(100) {
            presence.tick(at(now));
            if let Some(session) = presence.next_expired(at(now)) {
                return Some((now, session));
            }
        }
        None
    }

    #[test]
    fn a_session_is_given_up_a_ttl_after_it_was_last_heard_of() {
        let mut presence = Presence::new(at(0));
        presence.add(S, 2_000, at(0), None);
        presence.heard(S, at(1_500));
        assert_eq!(run_to(&mut presence, 0, 10_000), Some((3_500, S)));
        assert_eq!(presence.renewable(S), None, "no renewal is answered once an expiry is decided");
    }

    #[test]
    fn what_was_read_and_not_yet_counted_counts() {
        let mut presence = Presence::new(at(0));
        presence.add(S, 2_000, at(0), None);
        let read = LastRead::default();
        presence.attach(S, 1, read.clone());
        read.note(at(1_900));
        assert_eq!(run_to(&mut presence, 0, 10_000), Some((3_900, S)));
    }

    #[test]
    fn a_drop_starts_no_new_clock() {
        let mut presence = Presence::new(at(0));
        presence.add(S, 2_000, at(0), None);
        let read = LastRead::default();
        presence.attach(S, 1, read.clone());
        read.note(at(500));
        assert!(presence.detach(S, 1));
        assert!(!presence.is_connected(S));
        assert_eq!(run_to(&mut presence, 500, 10_000), Some((2_500, S)));
    }

    #[test]
    fn a_loop_that_stood_still_gives_everyone_a_full_ttl() {
        let mut presence = Presence::new(at(0));
        presence.add(S, 2_000, at(0), None);
        presence.tick(at(100));
        presence.tick(at(5_000));
        assert_eq!(presence.next_expired(at(5_000)), None);
        assert_eq!(run_to(&mut presence, 5_100, 20_000), Some((7_000, S)));
    }

    #[test]
    fn a_longer_promise_binds_until_a_later_answer_is_named() {
        let mut presence = Presence::new(at(0));
        presence.add(S, 2_000, at(0), None);
        presence.promise(S, at(0), 10_000, 5);
        assert!(!presence.counts_by(S, 5, 1), "the answer that gave it is no later one");
        assert_eq!(run_to(&mut presence, 0, 9_900), None);
        presence.heard(S, at(9_900));
        assert!(presence.counts_by(S, 6, 1));
        assert_eq!(run_to(&mut presence, 9_900, 20_000), Some((11_900, S)));
    }

    #[test]
    fn an_earlier_process_s_promise_is_counted_in_full() {
        let mut presence = Presence::new(at(100));
        presence.add(S, 2_000, at(100), Some(10_000));
        assert!(!presence.counts_by(S, 7, 1_000), "an answer of the earlier process");
        assert_eq!(run_to(&mut presence, 100, 20_000), Some((10_100, S)));
    }

    #[test]
    fn an_ending_waits_for_a_ttl_and_for_a_longer_promise() {
        let mut presence = Presence::new(at(0));
        presence.add(S, 2_000, at(0), None);
        presence.ending(S, L, at(1_000));
        assert_eq!(presence.endings_of(S), [L]);
        assert_eq!(presence.next_ending_over(at(2_900)), None);
        presence.promise(S, at(2_900), 5_000, 3);
        assert_eq!(presence.next_ending_over(at(3_000)), None);
        assert_eq!(presence.next_ending_over(at(7_900)), Some(L));
        presence.ended(L);
        assert_eq!(presence.next_ending_over(at(60_000)), None);
    }

    #[test]
    fn only_the_current_socket_counts() {
        let mut presence = Presence::new(at(0));
        presence.add(S, 2_000, at(0), None);
        presence.attach(S, 1, LastRead::default());
        assert_eq!(presence.attach(S, 2, LastRead::default()), Some(1));
        assert!(!presence.is_current(S, 1));
        assert!(!presence.detach(S, 1), "what happens to an older socket has no effect");
        assert!(presence.is_connected(S));
    }
}
