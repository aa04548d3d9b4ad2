//! The engine as a state machine without I/O: inputs and the time go in, a batch to commit and
//! things to tell come out.
//!
//! ```text
//!   input(at, …)      as often as something comes in
//!   decide_ahead(at)  while a commit is under way ─▶ what has gathered is decided, for the next batch
//!   step(at)          when no commit is under way ─▶ maybe a Batch to commit
//!   committed(at)     the batch is durable        ─▶ what was computed after it may leave
//!   store_failed(…)   it is not known to be       ─▶ nothing of it leaves; then
//!   resolved(…)         it was there after all, or the books are read anew without it
//!   take_outputs()    what may be told now
//! ```
//!
//! Between `step` and `committed` presence goes on: signs of life are counted and renewals
//! answered. Everything else gathers for the next batch, and may be decided already: what comes of
//! it is held until that batch is durable, and undone with the one before where that turns out not
//! to be there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::confirm::Door;
use super::held::{Held, Output};
use super::input::{Call, Input, LastRead, Notice, Outgoing, SocketId, Takeover, Told};
use super::presence::Presence;
use super::stop::Stop;
use super::view::{LabClock, Seen, View};
use crate::clock::BootTime;
use crate::core::broker::Broker;
use crate::core::claim::Claim;
use crate::core::command::Command;
use crate::core::eta::Eta;
use crate::core::event::Event;
use crate::core::limits::{Limits, RETURN_GRACE_MS_MAX};
use crate::core::session::SessionEnd;
use crate::core::state::State;
use crate::core::tables::{Batch, PastLease, TableChanges, Tables};
use crate::core::types::{LabTime, SessionId};
use crate::protocol::call::StoreNotice;
use crate::protocol::error::{CloseReason, RpcError, code};

/// Calls and commands that gather while a batch is committed. One more is answered `overloaded`:
/// nothing was decided, so it may be repeated.
pub const GATHERED_MAX: usize = 16_384;
/// Inputs that one batch takes at most, so that its commit stays short.
const BATCH_INPUTS_MAX: usize = 2_048;
/// Sessions and endings that one batch gives up at most. When a switch dies thousands are due at
/// once: what others ask meanwhile is decided between such batches.
const EXPIRIES_AT_ONCE: usize = 128;
/// How far lab time may have gone on since the first decision of a batch for another to be decided
/// ahead of its commit, milliseconds: all of a batch happens at one moment of lab time.
const AHEAD_MS_MAX: u64 = 20;
/// How often changed places in the queue are told at most, milliseconds.
const PLACES_EVERY_MS: u64 = 1_000;

/// What an operator sets.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bounds of the core.
    pub limits: Limits,
    /// The longer promise of a planned stop, milliseconds.
    pub restart_grace_ms: u64,
}

/// What is known of a socket.
pub(super) struct Socket {
    pub(super) session: Option<SessionId>,
    pub(super) read: LastRead,
    /// It was told to close: nothing that arrives on it has any effect.
    pub(super) over: bool,
}

/// How a session's client left, in a batch that may turn out not to be there: it will not say so
/// again.
#[derive(Clone, Copy, Debug)]
pub(super) enum Left {
    /// It closed the session.
    Closed(SessionId),
    /// It dropped.
    Dropped(SessionId),
}

/// A waiting claim as the places task looks at it.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// The claim.
    pub claim: Arc<Claim>,
    /// Where its session is reached.
    pub socket: Option<SocketId>,
    /// Which cap of its owner holds it up.
    pub capped: Option<String>,
    /// When it may be granted.
    pub eta: Option<Eta>,
}

/// The engine without its I/O.
pub struct Machine {
    pub(super) broker: Broker,
    pub(super) presence: Presence,
    pub(super) sockets: BTreeMap<SocketId, Socket>,
    pub(super) options: Options,
    pub(super) held: Held,
    pub(super) gathered: VecDeque<Input>,
    /// Where a store is shared.
    pub(super) door: Option<Door>,
    /// Who left in the batch under way, and in the one that is being made.
    leaving: Vec<Left>,
    pub(super) left_now: Vec<Left>,
    /// Sessions opened in a batch that is not known to be durable.
    pub(super) fresh: BTreeSet<SessionId>,
    /// Sessions whose longer promise binds no more, which the next step tells the books.
    pub(super) unpromised: BTreeSet<SessionId>,
    /// The store works again, which the next step tells the books.
    works_again: bool,
    pub(super) in_flight: bool,
    /// The books hold what is not known to be durable.
    in_doubt: bool,
    failure: Option<Arc<str>>,
    batch: u64,
    /// Inputs decided for the batch that is being made, and the lab time of all its events.
    decided: usize,
    happens_at: LabTime,
    last_made: u64,
    last_event: u64,
    pub(super) renewals: u64,
    pub(super) stop: Option<Stop>,
    return_grace_until: Option<BootTime>,
    places_due: bool,
    places_told: BootTime,
    serving_since: BootTime,
    lab_base: LabTime,
    boot_base: BootTime,
    pub(super) clock: LabClock,
}

impl Machine {
    /// Takes the books over. The first step makes the batch that says so.
    ///
    /// # Errors
    /// In words, where the tables contradict each other.
    pub fn new(tables: &Tables, options: Options, takeover: Takeover) -> Result<Self, String> {
        let Takeover { at, wall_ms, passed_ms, shared } = takeover;
        let broker = Broker::new(tables, options.limits.clone())?;
        // What passed while no process ran is the store's clock to say, or the wall clock's, and never
        // less than nothing.
        let passed = passed_ms.unwrap_or_else(|| u64::try_from(wall_ms.saturating_sub(tables.wall_ms)).unwrap_or(0));
        let lab_base = if tables.batch == 0 { LabTime(0) } else { tables.lab.now.plus(passed) };
        let mut machine = Self {
            broker,
            presence: Presence::new(at),
            sockets: BTreeMap::new(),
            options,
            held: Held::default(),
            gathered: VecDeque::new(),
            door: shared.then(Door::default),
            leaving: Vec::new(),
            left_now: Vec::new(),
            fresh: BTreeSet::new(),
            unpromised: BTreeSet::new(),
            works_again: false,
            in_flight: false,
            in_doubt: false,
            failure: None,
            batch: tables.batch,
            decided: 0,
            happens_at: lab_base,
            last_made: tables.last_event,
            last_event: tables.last_event,
            renewals: 0,
            stop: None,
            return_grace_until: None,
            places_due: false,
            places_told: at,
            serving_since: at,
            lab_base,
            boot_base: at,
            clock: LabClock { now: lab_base, wall_ms },
        };
        machine.meet_sessions(at);
        machine.broker.decide(lab_base, Command::Start);
        machine.return_grace_until = Some(at.plus(RETURN_GRACE_MS_MAX));
        // The number of renewals grows over restarts: the term is its upper half.
        machine.renewals = machine.broker.state().lab.term << 32;
        Ok(machine)
    }

    /// Everyone gets a full ttl from here: connections are accepted.
    pub fn accepting(&mut self, at: BootTime) {
        self.presence.accept_from(at);
        self.return_grace_until = Some(at.plus(RETURN_GRACE_MS_MAX));
        self.serving_since = at;
    }

    /// Tells which leases ended last, newest first: estimates of waiting go by how long they were held.
    pub fn remember(&mut self, past: &[PastLease]) {
        for past in past.iter().rev() {
            if let Some(ended) = &past.ended {
                self.broker.remember_hold(&past.lease, ended.at);
            }
        }
    }

    /// The books, to look at.
    #[must_use]
    pub const fn broker(&self) -> &Broker {
        &self.broker
    }

    /// The number of the last event that is known to be durable.
    #[must_use]
    pub const fn last_event(&self) -> u64 {
        self.last_event
    }

    /// Lab time with its twin, as of the last step.
    #[must_use]
    pub const fn clock(&self) -> LabClock {
        self.clock
    }

    /// What the store said when it failed, while it fails.
    #[must_use]
    pub const fn failure(&self) -> Option<&Arc<str>> {
        self.failure.as_ref()
    }

    /// Whether a planned stop is under way.
    #[must_use]
    pub const fn is_stopping(&self) -> bool {
        self.stop.is_some()
    }

    /// Says that the loop goes round, also while a commit is under way.
    pub fn alive(&mut self, at: BootTime) {
        self.presence.tick(at);
        self.check_stop(at);
    }

    /// Takes an input. What is presence's alone is done at once; the rest gathers.
    pub fn input(&mut self, at: BootTime, input: Input) {
        self.advance(at);
        match &input {
            Input::Call { socket, .. } if self.sockets.get(socket).is_none_or(|known| known.over) => return,
            Input::Call { socket, at, .. } => self.heard(*socket, *at),
            _ => {}
        }
        if let Some(input) = self.at_the_door(input) {
            self.let_in(at, input);
        }
    }

    /// Takes an input that waits at no door (any more).
    pub(super) fn let_in(&mut self, at: BootTime, input: Input) {
        match input {
            Input::Attach { socket, last_read, .. } => {
                self.sockets.insert(socket, Socket { session: None, read: last_read, over: false });
            }
            Input::Alive { socket, at } => self.heard(socket, at),
            Input::Accepting => self.accepting(at),
            Input::Call { socket, at, id, call } => {
                if let (Call::Renew { renewal }, Some(session)) = (&call, self.renews_at_once(socket)) {
                    let result = self.renewed(session, *renewal);
                    self.held.tell_socket(socket, id, result);
                } else if matches!(call, Call::Resume { .. } | Call::List) && self.tells_while_failing() {
                    // It changes nothing on the books: whoever lost its socket keeps its session.
                    self.call(socket, at, id, call);
                    self.held.release();
                } else if self.failure.is_some() || self.gathered.len() >= GATHERED_MAX {
                    let error = self.busy();
                    self.held.tell_socket(socket, id, Err(error));
                } else {
                    self.gathered.push_back(Input::Call { socket, at, id, call });
                }
            }
            Input::Command { answer, .. } | Input::Keyed { answer, .. }
                if self.failure.is_some() || self.gathered.len() >= GATHERED_MAX =>
            {
                let error = self.busy();
                self.held.tell_now(Output::Told(answer, Err(error)));
            }
            Input::Read(reading) if self.failure.is_some() || self.gathered.len() >= GATHERED_MAX => {
                // While the store fails the books can be read as soon as they are what it holds.
                let durable = self.failure.is_some() && !self.in_doubt && self.broker.events().is_empty();
                let result = if durable { Ok(()) } else { Err(self.busy()) };
                let release = self.view(at, reading);
                self.held.tell_now(Output::Release(release, result));
            }
            Input::Stop { done } => self.begin_stop(at, done),
            other => self.gathered.push_back(other),
        }
    }

    /// Whether the store fails while the books are what it holds, and nothing waits to be told.
    fn tells_while_failing(&self) -> bool {
        self.failure.is_some() && !self.in_doubt && self.broker.events().is_empty() && self.held.is_settled()
    }

    /// Does what has gathered and what time has brought about. Answers a batch when something
    /// changed; until it is committed nothing computed from it leaves.
    ///
    /// # Panics
    /// When a batch is under way: there is one writer and one batch at a time.
    pub fn step(&mut self, at: BootTime, wall_ms: i64) -> Option<Batch> {
        assert!(!self.in_flight, "a step was made while batch {} is being committed", self.batch);
        self.tell_time(at, wall_ms);
        self.presence.tick(at);
        if self.failure.is_some() {
            self.check_stop(at);
            return None;
        }
        if std::mem::take(&mut self.works_again) {
            self.decide_quietly(Command::StoreWorks(true));
        }
        self.decide_gathered(at);
        for session in std::mem::take(&mut self.unpromised) {
            self.decide_quietly(Command::Promise { session, promise_ms: None });
        }
        self.pass_time(at);
        let happened_at = self.happening();
        let (events, tables) = self.broker.take_batch();
        if events.is_empty() {
            self.decided = 0;
            self.held.release();
            self.left_now.clear();
            self.check_stop(at);
            return None;
        }
        self.places_due |= events.iter().any(moves_places);
        Some(self.batch_of(happened_at, events, tables, wall_ms))
    }

    /// Decides what has gathered while a batch is being committed, so that the next one is ready
    /// when that is done. Expiries and endings are left to [`Machine::step`]: a commit that stalls
    /// must not keep renewals from being answered.
    pub fn decide_ahead(&mut self, at: BootTime) {
        if !self.in_flight || self.failure.is_some() || self.gathered.is_empty() {
            return;
        }
        self.advance(at);
        if self.clock.now.since(self.happening()) <= AHEAD_MS_MAX {
            self.decide_gathered(at);
        }
    }

    fn decide_gathered(&mut self, at: BootTime) {
        while self.decided < BATCH_INPUTS_MAX {
            let Some(input) = self.gathered.pop_front() else { break };
            self.decided += 1;
            self.take(at, input);
        }
    }

    /// The lab time of what is decided now: that of the batch being made, once it has an event.
    pub(super) fn happening(&mut self) -> LabTime {
        if self.broker.events().is_empty() {
            self.happens_at = self.clock.now;
        }
        self.happens_at
    }

    /// A batch though nothing was asked, to see whether the store takes anything.
    pub fn probe(&mut self, at: BootTime, wall_ms: i64) -> Batch {
        self.tell_time(at, wall_ms);
        let happened_at = self.happening();
        let (events, tables) = self.broker.take_batch();
        self.batch_of(happened_at, events, tables, wall_ms)
    }

    fn batch_of(&mut self, at: LabTime, events: Vec<Event>, mut tables: TableChanges, wall_ms: i64) -> Batch {
        self.in_flight = true;
        if let Some(door) = &mut self.door {
            door.batch_begun();
        }
        self.decided = 0;
        self.in_doubt = !events.is_empty();
        // Stored beside the wall clock of the same moment, events or not: what passes until a
        // restart is counted from there.
        tables.lab.now = tables.lab.now.max(self.clock.now);
        self.batch += 1;
        let first_event = self.last_made + 1;
        self.last_made += events.len() as u64;
        self.leaving = std::mem::take(&mut self.left_now);
        self.held.seal();
        Batch { number: self.batch, at, wall_ms, first_event, events, tables }
    }

    /// The batch under way is durable.
    pub fn committed(&mut self, at: BootTime, batch: &Batch) {
        self.in_flight = false;
        self.settled(at, batch);
        if self.failure.take().is_some() {
            self.works_again = true;
            self.tell_store(true, "the store works again");
        }
        self.confirmed_by_batch(at);
        self.check_stop(at);
    }

    /// The batch under way is not known to be durable, or a probe failed. Nothing of it is told;
    /// calls are answered `unavailable` until [`Machine::resolved`] and a successful probe.
    pub fn store_failed(&mut self, at: BootTime, message: &str) {
        self.advance(at);
        let first = self.failure.is_none();
        self.failure = Some(message.into());
        self.broker.store_fails();
        self.refuse_gathered(at);
        if first {
            self.tell_store(
                false,
                "the broker's store fails: nothing new is granted until it works again; leases are kept",
            );
        }
    }

    /// The store is open again and `tables` is what is in it. Where the batch under way is in it,
    /// what was computed from it may leave; else the books are as they were before it.
    ///
    /// # Errors
    /// In words, where the tables contradict each other.
    pub fn resolved(&mut self, at: BootTime, batch: &Batch, tables: &Tables) -> Result<(), String> {
        self.advance(at);
        if tables.batch == batch.number {
            self.in_flight = false;
            self.settled(at, batch);
            return Ok(());
        }
        let mut broker = Broker::new(tables, self.options.limits.clone())?;
        broker.take_over(&self.broker);
        self.broker = broker;
        let now = self.happening();
        self.broker.decide(now, Command::StoreWorks(false));
        self.in_flight = false;
        self.in_doubt = false;
        self.decided = 0;
        self.batch = tables.batch;
        self.last_made = tables.last_event;
        self.last_event = tables.last_event;
        self.fresh.clear();
        self.held.refuse_all(&unavailable());
        self.presence.undo_expiries(at);
        self.meet_sessions(at);
        self.rebind();
        let mut leaving = std::mem::take(&mut self.leaving);
        leaving.append(&mut self.left_now);
        for left in leaving {
            self.leave_again(left);
        }
        Ok(())
    }

    /// The batch is known to be durable: what was computed from it may leave.
    fn settled(&mut self, at: BootTime, batch: &Batch) {
        self.in_doubt = false;
        self.last_event = self.last_made;
        self.held.release_sealed();
        for event in &batch.events {
            self.know_durable(at, event);
        }
        self.leaving.clear();
    }

    /// Decides anew what a client's leaving means: its client is gone and will not ask again.
    fn leave_again(&mut self, left: Left) {
        match left {
            Left::Closed(session) if self.broker.state().sessions.contains_key(&session) => {
                self.left_now.push(left);
                self.decide_quietly(Command::EndSession { session, end: SessionEnd::Closed });
            }
            Left::Dropped(session) if self.presence.knows(session) && !self.presence.is_connected(session) => {
                self.left_now.push(left);
                let now = self.happening();
                self.broker.decide(now, Command::SessionUp(session));
                self.decide_quietly(Command::SessionDown(session));
            }
            Left::Closed(..) | Left::Dropped(_) => {}
        }
    }

    /// What may be told now.
    pub fn take_outputs(&mut self) -> Vec<Output> {
        self.held.take()
    }

    /// Waiting claims, when places may have changed and were not told for a while.
    pub fn take_places(&mut self, at: BootTime) -> Option<Vec<Waiting>> {
        if !self.places_due || self.in_flight || at.since(self.places_told) < PLACES_EVERY_MS {
            return None;
        }
        self.places_due = false;
        self.places_told = at;
        let state = self.broker.state();
        let sockets: BTreeMap<SessionId, SocketId> =
            self.sockets.iter().filter_map(|(id, socket)| Some((socket.session?, *id))).collect();
        let in_order = state.queue.iter().filter_map(|seniority| state.claims.get(&seniority.claim));
        let etas = self.broker.etas(self.clock.now, None);
        let waiting = in_order.map(|claim| Waiting {
            claim: claim.clone(),
            socket: sockets.get(&claim.session).copied(),
            capped: super::query::capped_words(state, claim),
            eta: etas.get(&claim.id).copied(),
        });
        Some(waiting.collect())
    }

    /// When to step next though nothing comes in, on this process's clock.
    #[must_use]
    pub fn next_wake(&self, at: BootTime) -> BootTime {
        let mut next = at.plus(self.presence.tick_every_ms());
        if let Some(due) = self.confirmation_due() {
            next = next.min(due.max(at));
        }
        if self.in_flight || self.failure.is_some() {
            return next; // What is due cannot be decided now.
        }
        if self.has_work() {
            return at; // More gathered than one batch takes.
        }
        if self.hears_sessions() {
            next = self.presence.next_due().map_or(next, |due| due.min(next));
        }
        if let Some(lab) = self.broker.next_deadline() {
            next = next.min(at.plus(lab.since(self.lab_now(at))));
        }
        next.max(at.plus(1))
    }

    /// Whether something has gathered that a step would take.
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.gathered.is_empty() && self.failure.is_none()
    }

    /// Lab time at a moment of this process's clock.
    #[must_use]
    pub fn lab_now(&self, at: BootTime) -> LabTime {
        self.lab_base.plus(at.since(self.boot_base))
    }

    fn tell_time(&mut self, at: BootTime, wall_ms: i64) {
        self.clock = LabClock { now: self.lab_now(at).max(self.clock.now), wall_ms };
    }

    /// Both clocks as this process counts them, between two looks at the wall clock.
    fn advance(&mut self, at: BootTime) {
        let now = self.lab_now(at).max(self.clock.now);
        let passed = i64::try_from(now.since(self.clock.now)).unwrap_or(0);
        self.clock = LabClock { now, wall_ms: self.clock.wall_ms.saturating_add(passed) };
    }

    /// Does what the time has brought about: expiries, endings, deadlines.
    fn pass_time(&mut self, at: BootTime) {
        if self.return_grace_until.is_some_and(|until| at >= until) {
            self.return_grace_until = None;
            self.decide_quietly(Command::ReturnGraceOver);
        }
        if self.hears_sessions() {
            // The rest stays due: the next step goes on, after everything that came in meanwhile.
            for _ in 0..EXPIRIES_AT_ONCE {
                let Some(session) = self.presence.next_expired(at) else { break };
                self.decide_quietly(Command::EndSession { session, end: SessionEnd::Expired });
            }
            for _ in 0..EXPIRIES_AT_ONCE {
                let Some(lease) = self.presence.next_ending_over(at) else { break };
                self.decide_quietly(Command::EndingOver(lease));
            }
        }
        if self.broker.next_deadline().is_some_and(|due| due <= self.clock.now) {
            self.decide_quietly(Command::Tick);
        }
    }

    /// Not once a stop has closed the sockets: that nobody is heard then is this process's doing,
    /// and the next one counts everybody's ttl anew.
    fn hears_sessions(&self) -> bool {
        self.stop.as_ref().is_none_or(|stop| !stop.over)
    }

    fn take(&mut self, at: BootTime, input: Input) {
        match input {
            Input::Call { socket, at: read_at, id, call } => self.call(socket, read_at, id, call),
            Input::Detach { socket, clean } => self.detach(socket, clean),
            Input::CutOff { socket } => self.cut_off(socket),
            Input::Command { command, answer } => self.command(*command, answer),
            Input::Keyed { at, key, call, answer, confirmed } => self.keyed(at, key, call, answer, confirmed),
            Input::Read(reading) => {
                let release = self.view(at, reading);
                self.held.hold(Output::Release(release, Ok(())));
            }
            Input::Attach { .. } | Input::Alive { .. } | Input::Accepting | Input::Stop { .. } => self.input(at, input),
        }
    }

    fn view(
        &self,
        at: BootTime,
        reading: Box<dyn FnOnce(&View<'_>) -> super::input::Release + Send>,
    ) -> super::input::Release {
        let presence = |session| Seen {
            last_seen_ms: self.presence.last_seen_ms(session, at),
            connected: self.presence.is_connected(session),
        };
        let etas = |claim: Option<&Claim>| {
            let pools = claim.map(State::pools_of);
            self.broker.etas(self.clock.now, pools.as_ref())
        };
        reading(&View {
            etas: &etas,
            state: self.broker.state(),
            presence: &presence,
            clock: self.clock,
            batch: self.batch,
            store_failure: self.failure.as_deref(),
            stopping: self.stop.is_some(),
            serving_since: self.serving_since,
            boot_now: at,
        })
    }

    /// A command of the engine's own: nobody waits for its answer, but holders are told what
    /// came of it.
    pub(super) fn decide_quietly(&mut self, command: Command) {
        let before = self.broker.events().len();
        let now = self.happening();
        self.broker.decide(now, command);
        self.tell_events(before, None);
    }

    fn detach(&mut self, socket: SocketId, clean: bool) {
        let Some(gone) = self.sockets.remove(&socket) else { return };
        let Some(session) = gone.session else { return };
        if !self.presence.detach(session, socket) {
            return;
        }
        if clean {
            self.left_now.push(Left::Closed(session));
            self.decide_quietly(Command::EndSession { session, end: SessionEnd::Closed });
        } else if self.stop.is_none() {
            self.left_now.push(Left::Dropped(session));
            self.decide_quietly(Command::SessionDown(session));
        }
    }

    /// The broker gave the socket up, which is no drop: pools that free at a drop do not.
    fn cut_off(&mut self, socket: SocketId) {
        let session = self.sockets.remove(&socket).and_then(|gone| gone.session);
        if let Some(session) = session.filter(|session| self.presence.detach(*session, socket)) {
            self.decide_quietly(Command::SessionCutOff(session));
        }
    }

    /// The session that a renewal on this socket is for, when it may be answered at once: all
    /// that the answer tells is durable, and no end of the session is decided.
    fn renews_at_once(&self, socket: SocketId) -> Option<SessionId> {
        let session = self.sockets.get(&socket)?.session?;
        let at_once = self.stop.is_none() || self.failure.is_some();
        let stands = !self.fresh.contains(&session) && self.presence.renewable(session).is_some();
        (at_once && stands && self.presence.is_current(session, socket)).then_some(session)
    }

    fn heard(&mut self, socket: SocketId, at: BootTime) {
        let session = self.sockets.get(&socket).and_then(|known| known.session);
        if let Some(session) = session.filter(|session| self.presence.is_current(*session, socket)) {
            self.presence.heard(session, at);
        }
    }

    /// What becomes true only once a batch is durable: endings begin to run, sessions are gone.
    fn know_durable(&mut self, at: BootTime, event: &Event) {
        match event {
            Event::SessionOpened { session, .. } => {
                self.fresh.remove(session);
            }
            Event::SessionEnded { session, .. } => self.forget_session(*session),
            Event::LeaseEnding { lease, .. } => {
                if let Some(session) = self.broker.state().leases.get(lease).map(|lease| lease.session) {
                    self.presence.ending(session, *lease, at);
                }
            }
            Event::LeaseEnded { lease, .. } => self.presence.ended(*lease),
            _ => {}
        }
    }

    fn forget_session(&mut self, session: SessionId) {
        let socket = self.presence.socket(session);
        self.presence.remove(session);
        let Some(socket) = socket else { return };
        if let Some(bound) = self.sockets.get_mut(&socket) {
            bound.session = None;
            bound.over = true;
        }
        let text = "the session has ended: open a new one".to_owned();
        self.held.tell_now(Output::Socket(socket, Outgoing::Close { reason: CloseReason::SessionEnded, text }));
    }

    /// Presence of every session on the books, and of nobody else.
    fn meet_sessions(&mut self, at: BootTime) {
        let gone: Vec<SessionId> =
            self.presence.known().filter(|id| !self.broker.state().sessions.contains_key(id)).collect();
        gone.into_iter().for_each(|id| self.presence.remove(id));
        for session in self.broker.state().sessions.values() {
            if !self.presence.knows(session.id) {
                self.presence.add(session.id, session.ttl_ms, at, session.promise_ms);
            }
        }
        for lease in self.broker.state().leases.values().filter(|lease| lease.ending.is_some()) {
            self.presence.ending(lease.session, lease.id, at);
        }
    }

    /// Tells new books which sessions' sockets are up.
    fn rebind(&mut self) {
        let mut up = Vec::new();
        for (id, socket) in &mut self.sockets {
            let Some(session) = socket.session else { continue };
            if self.presence.is_current(session, *id) {
                up.push(session);
            } else {
                socket.session = None;
            }
        }
        for session in up {
            let now = self.happening();
            self.broker.decide(now, Command::SessionUp(session));
        }
    }

    fn busy(&self) -> RpcError {
        match &self.failure {
            Some(_) => unavailable(),
            None => {
                RpcError::new(code::OVERLOADED, "more requests wait than the broker holds: repeat it a little later")
            }
        }
    }

    /// What cannot be done while the store fails is answered now; drops and clean closes wait.
    fn refuse_gathered(&mut self, at: BootTime) {
        for input in std::mem::take(&mut self.gathered) {
            match input {
                Input::Call { socket, id, call: Call::Renew { renewal }, .. }
                    if self.renews_at_once(socket).is_some() =>
                {
                    // It waited for the longer promise of a stop, which is not to be had now.
                    if let Some(session) = self.renews_at_once(socket) {
                        let result = self.renewed(session, renewal);
                        self.held.tell_socket(socket, id, result);
                    }
                }
                Input::Read(reading) => {
                    let release = self.view(at, reading);
                    self.held.tell_now(Output::Release(release, Err(unavailable())));
                }
                Input::Call { socket, id, .. } => self.held.tell_socket(socket, id, Err(unavailable())),
                Input::Command { answer, .. } | Input::Keyed { answer, .. } => {
                    self.held.tell_now(Output::Told(answer, Err(unavailable())));
                }
                other => self.gathered.push_back(other),
            }
        }
    }

    fn tell_store(&mut self, working: bool, message: &str) {
        let sockets: Vec<SocketId> =
            self.sockets.iter().filter(|(_, socket)| socket.session.is_some()).map(|(id, _)| *id).collect();
        for socket in sockets {
            let notice = Notice::Store(StoreNotice { working, message: message.to_owned() });
            self.held.tell_now(Output::Socket(socket, Outgoing::Notice(notice)));
        }
    }

    pub(super) fn told_done(&self) -> Told {
        Told::Done(crate::protocol::call::Done { now: self.clock.now.0, now_time: self.clock.now_time() })
    }
}

pub(super) fn unavailable() -> RpcError {
    let message = "the broker's store fails at present: this was not done; repeat it with the same request_id";
    RpcError::new(code::UNAVAILABLE, message)
}

/// Whether an event may have changed somebody's place in the queue.
const fn moves_places(event: &Event) -> bool {
    matches!(event, Event::ClaimQueued { .. } | Event::ClaimEnded { .. } | Event::LeaseGranted { .. })
}
