//! The brokers of a world: one, or several that share the store, of which one leads.
//!
//! Each is a process that leads, stands by, or is away; each has a clock of its own, which stands
//! still while its whole machine does, a wall clock that nobody else's agrees with, and a way to the
//! store that can be cut. Standing by is the real rule of [`Watch`]; taking the lead and writing are
//! conditional on the store's row, as a shared store's are.

use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use super::audit::{Kept, hold};
use super::broker::{Process, Work};
use super::dice::Dice;
use super::network::Item;
use super::world::{Ev, World};
use crate::clock::BootTime;
use crate::core::tables::Batch;
use crate::engine::input::SocketId;
use crate::store::Sharing;
use crate::store::postgres::{Seen, Step, Watch};

/// The term, shorter than every ttl, and how soon a leader that writes nothing beats.
pub(super) const SHARING: Sharing = Sharing { term_ms: 1_000, beat_ms: 300 };

/// A broker.
pub(super) struct Broker {
    /// Where it is a leader's, as far as it knows.
    pub process: Option<Process>,
    /// Where it stands by.
    pub watch: Option<Watch>,
    /// The number of what it is now: another with each start, takeover and end.
    pub life: u64,
    pub frozen_until: u64,
    /// Since when it is frozen with its whole machine, whose clock stands still too.
    pub paused_since: Option<u64>,
    /// How long its clock stood still before, microseconds.
    pub stood_still: u64,
    /// Until when nothing passes between it and the store.
    pub cut_off_until: u64,
    pub wall_offset_ms: i64,
}

impl Broker {
    const fn thinks_it_leads(&self) -> bool {
        self.process.is_some()
    }
}

/// All of them, of which one is looked at.
pub(super) struct Brokers {
    all: Vec<Broker>,
    pub me: usize,
}

impl Brokers {
    pub(super) fn new(seed: u64, count: usize) -> Self {
        let mut dice = Dice::new(seed, 5);
        let mut broker = |nth: usize| Broker {
            process: None,
            watch: None,
            life: 0,
            frozen_until: 0,
            paused_since: None,
            stood_still: 0,
            cut_off_until: 0,
            wall_offset_ms: if nth == 0 { 0 } else { dice.of(&[-3_600_000, -90_000, 90_000, 3_600_000]) },
        };
        Self { all: (0..count).map(&mut broker).collect(), me: 0 }
    }

    pub(super) const fn are_several(&self) -> bool {
        self.all.len() > 1
    }

    pub(super) const fn count(&self) -> usize {
        self.all.len()
    }

    /// Looks at the one that has this life; answers whether there is one.
    pub(super) fn enter(&mut self, life: u64) -> bool {
        let found = self.all.iter().position(|broker| broker.life == life && life > 0);
        self.me = found.unwrap_or(self.me);
        found.is_some()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Broker> {
        self.all.iter()
    }

    pub(super) fn get(&self, nth: usize) -> Option<&Broker> {
        self.all.get(nth)
    }
}

impl Deref for Brokers {
    type Target = Broker;

    fn deref(&self) -> &Broker {
        &self.all[self.me]
    }
}

impl DerefMut for Brokers {
    fn deref_mut(&mut self) -> &mut Broker {
        &mut self.all[self.me]
    }
}

/// What a leader knows of its lead.
pub(super) struct Lead {
    /// What its writes are conditional on.
    pub epoch: u64,
    /// Before its last successful write was sent, on its clock.
    pub since_ms: u64,
    /// When the write under way was sent.
    pub sent_ms: u64,
    /// The look under way: what the store answered, once it did.
    pub look: Option<Option<bool>>,
    pub handing_over: bool,
}

impl Lead {
    pub(super) const fn new(epoch: u64, since_ms: u64) -> Self {
        Self { epoch, since_ms, sent_ms: since_ms, look: None, handing_over: false }
    }

    /// The write that was sent last was successful.
    pub(super) fn wrote(&mut self) {
        self.since_ms = self.since_ms.max(self.sent_ms);
    }

    /// How soon there is something to do: a beat, where the store is idle, or to give up.
    pub(super) fn next_ms(&self, now: BootTime, idle: bool) -> u64 {
        let since = now.since(BootTime(self.since_ms));
        let beat = if idle { SHARING.beat_ms } else { SHARING.term_ms };
        beat.min(SHARING.term_ms).saturating_sub(since)
    }
}

impl World {
    /// Looks at the broker that clients are led to: the one that leads by the store, else any that
    /// thinks it does, else the first.
    pub(super) fn look_at_leader(&mut self) {
        let leader = self.store.row.leader.and_then(|life| self.here.iter().position(|broker| broker.life == life));
        let thinks = || self.here.iter().position(|broker| broker.process.is_some());
        self.here.me = leader.or_else(thinks).unwrap_or(0);
    }

    /// Looks at a broker that thinks it leads, as something in front of them all that asks them would.
    pub(super) fn look_at_somebody(&mut self) {
        self.look_at_leader();
        let all = 0..self.here.count();
        let think: Vec<usize> = all.filter(|nth| self.here.get(*nth).is_some_and(Broker::thinks_it_leads)).collect();
        if think.len() > 1 {
            self.here.me = self.dice.of(&think);
        }
    }

    /// Whether the broker looked at leads, by the store.
    pub(super) fn leads(&self) -> bool {
        !self.here.are_several() || self.store.row.leader == Some(self.here.life)
    }

    /// When something sent to the store now gets there.
    fn reaches_store(&mut self) -> u64 {
        let delay = self.dice.between(50, 1_500);
        (self.now + delay).max(self.here.cut_off_until)
    }

    // ---- standing by ----

    /// The broker looked at stands by from here on.
    pub(super) fn stand_by(&mut self) {
        self.lives += 1;
        self.here.life = self.lives;
        self.here.process = None;
        self.here.watch = Some(Watch::new(SHARING.term_ms));
        let wait = self.dice.between(100, 20_000);
        let life = self.here.life;
        self.after(wait, Ev::Observe(life));
    }

    /// Begins to read the row.
    pub(super) fn observe(&mut self) {
        let (life, before) = (self.here.life, self.boot_here());
        let there = self.reaches_store();
        self.at(there, Ev::Observed(life, before.0, None));
    }

    /// The row is read; and then the reader knows.
    pub(super) fn observed(&mut self, before_ms: u64, seen: Option<Seen>) {
        let life = self.here.life;
        let Some(seen) = seen else {
            let row = &self.store.row;
            let leader = row.leader.map(|leader| leader.to_string());
            let seen = Seen { epoch: row.epoch, beat: row.beat, batch: 0, leader, url: None };
            let back = self.reaches_store();
            self.at(back, Ev::Observed(life, before_ms, Some(seen)));
            return;
        };
        let after = self.boot_here();
        let Some(watch) = &mut self.here.watch else { return };
        match watch.saw(BootTime(before_ms), after, &seen) {
            Step::Wait { ms } => self.after(ms * 1_000, Ev::Observe(life)),
            Step::TakeOver { epoch, beat } => {
                let there = self.reaches_store();
                let sent = self.boot_here().0;
                self.at(there, Ev::Take(life, sent, epoch, beat));
            }
        }
    }

    /// A takeover reaches the store: the row is another's, or it is as it was seen.
    pub(super) fn take(&mut self, sent_ms: u64, epoch: u64, beat: u64) {
        let life = self.here.life;
        if (self.store.row.epoch, self.store.row.beat) != (epoch, beat) {
            self.after(1_000, Ev::Observe(life));
            return;
        }
        self.count("takeover");
        self.lives += 1;
        self.here.life = self.lives;
        let row = &mut self.store.row;
        (row.epoch, row.beat, row.leader) = (epoch + 1, beat + 1, Some(self.lives));
        let now = self.now;
        self.led_until.extend(self.leader.replace(self.lives).map(|before| (before, now)));
        self.auditor.bound.clear();
        // The answer, and reading the books, take their time; the snapshot is of after the takeover.
        let back = self.reaches_store() + self.dice.between(1_000, 60_000);
        let life = self.lives;
        self.at(back, Ev::Lead(life, sent_ms));
    }

    // ---- leading ----

    /// Whether the term of the broker looked at is over, by its own clock.
    pub(super) fn term_is_over(&self) -> bool {
        let now = self.boot_here().0;
        let lead = self.here.process.as_ref().and_then(|process| process.lead.as_ref());
        lead.is_some_and(|lead| now.saturating_sub(lead.since_ms) >= SHARING.term_ms)
    }

    /// The engine of the broker looked at ends: its sockets are closed, and it stands by.
    pub(super) fn leads_no_more(&mut self, why: &'static str) {
        let Some(process) = self.here.process.take() else { return };
        let me = self.here.me;
        writeln!(self.note(), "broker {me} leads no more: {why}");
        self.count(why);
        self.abandon(process.work);
        let sockets: Vec<SocketId> = process.sockets.keys().copied().collect();
        for socket in sockets {
            self.auditor.unbound(socket);
            self.broker_sends(socket, Item::Closed { code: Some(1001), clean: false });
        }
        self.stand_by();
    }

    /// What is under way to the store arrives all the same, later, or it does not.
    pub(super) fn abandon(&mut self, work: Option<Work>) {
        if let Some(Work::Commit { batch, epoch: Some(epoch), written: false, fails: None, .. }) = work
            && self.dice.one_in(2)
        {
            let late = self.reaches_store() + self.dice.of(&[0, 100_000, 2_000_000]);
            self.at(late, Ev::Late(epoch, batch));
        }
    }

    /// A batch whose sender has given it up arrives.
    pub(super) fn late(&mut self, epoch: u64, batch: &Rc<Batch>) {
        let row = &self.store.row;
        if row.epoch == epoch && self.store.last_batch() + 1 == batch.number {
            self.count("late-batch");
            self.write(batch);
        }
    }

    /// Begins a look at who leads, where somebody waits for one.
    pub(super) fn look(&mut self) {
        let (now, life) = (self.boot_here(), self.here.life);
        let Some(process) = &mut self.here.process else { return };
        let Some(lead) = process.lead.as_mut().filter(|lead| lead.look.is_none()) else { return };
        if process.machine.wants_confirmation(now) {
            process.machine.confirmation_begun(now);
            lead.look = Some(None);
            let there = self.reaches_store();
            self.at(there, Ev::Looked(life));
        }
    }

    /// The look gets to the store, and then its answer back.
    pub(super) fn looked(&mut self) {
        let (life, leads) = (self.here.life, self.leads());
        let Some(lead) = self.here.process.as_mut().and_then(|process| process.lead.as_mut()) else { return };
        if let Some(found) = &mut lead.look {
            *found = Some(leads);
        }
        let back = self.reaches_store();
        self.at(back, Ev::LookedUp(life));
        if let Some(ms) = self.pause_looking.take() {
            self.pause(ms, true);
        }
    }

    pub(super) fn looked_up(&mut self) {
        let now = self.boot_here();
        let Some(process) = &mut self.here.process else { return };
        let Some(found) = process.lead.as_mut().and_then(|lead| lead.look.take()) else { return };
        match found {
            Some(true) => process.machine.confirmed(now),
            _ => return self.leads_no_more("deposed"),
        }
        self.turn_in(1);
    }

    /// Leaves the row to whoever is first, if this broker may write it still.
    pub(super) fn leave_row(&mut self) {
        let epoch = self.here.process.as_ref().and_then(|process| Some(process.lead.as_ref()?.epoch));
        if self.leads() && epoch == Some(self.store.row.epoch) && self.here.cut_off_until <= self.now {
            self.store.row.leader = None;
            self.store.row.beat += 1;
            let now = self.now;
            self.led_until.extend(self.leader.take().map(|before| (before, now)));
        }
    }

    /// The planned hand-over, once nothing is under way.
    pub(super) fn gives_up(&mut self) {
        self.leave_row();
        self.leads_no_more("handed-over");
    }

    /// Whatever gives time was asked for before another took the lead from who answers.
    pub(super) fn gave_time(&self, asked: Option<u64>) -> Kept {
        let until = self.led_until.get(&self.here.life).copied();
        let (Some(asked), Some(until)) = (asked, until) else { return Ok(()) };
        hold("only who leads gives time", asked <= until, || {
            format!("asked at {asked} of broker {}, which had led until {until}", self.here.me)
        })
    }

    // ---- faults ----

    /// Looks at the nth broker, counted from the leader round.
    pub(super) fn look_at_nth(&mut self, nth: usize) {
        self.look_at_leader();
        self.here.me = (self.here.me + nth) % self.here.count();
    }

    /// Pauses the broker looked at, with or without its clock.
    pub(super) fn pause(&mut self, ms: u64, whole: bool) {
        if self.here.frozen_until > self.now {
            return;
        }
        self.here.frozen_until = self.now + ms * 1_000;
        if whole {
            self.here.paused_since = Some(self.now);
            let (until, me) = (self.here.frozen_until, self.here.me);
            self.at(until, Ev::Thaw(me));
        }
    }

    /// The broker looked at goes on.
    pub(super) fn thaw(&mut self) {
        self.here.frozen_until = self.now;
        if let Some(since) = self.here.paused_since.take() {
            self.here.stood_still += self.now - since;
        }
    }

    /// The planned hand-over begins, where somebody leads.
    pub(super) fn hand_over(&mut self) {
        self.look_at_leader();
        if let Some(lead) = self.here.process.as_mut().and_then(|process| process.lead.as_mut()) {
            lead.handing_over = true;
            self.turn_in(1);
        }
    }
}
