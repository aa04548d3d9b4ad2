//! A broker's process: the engine's machine, and around it again what `engine/task.rs` and a socket's
//! task do, without a runtime. All of it is done for the broker that is looked at.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;

use tokio::sync::{mpsc, oneshot};

use super::audit::{Broken, hold};
use super::brokers::Lead;
use super::network::{Item, WINDOW};
use super::runner::FOREIGN_IDS;
use super::script::Point;
use super::world::{Ev, World};
use crate::clock::BootTime;
use crate::core::invariants;
use crate::core::limits::Limits;
use crate::core::tables::Batch;
use crate::core::types::SessionId;
use crate::engine::held::Output;
use crate::engine::input::{Answer, Call, Input, LastRead, Outgoing, SocketId, Takeover, secret_hash};
use crate::engine::machine::{Machine, Options};
use crate::protocol::rpc::Id;
use crate::server::websocket::message::{self, Read};

/// Messages that wait for a socket at most; one more and it is cut off.
const OUTBOX_MAX: usize = 12;
/// The longer promise of a planned stop, milliseconds.
pub(super) const RESTART_GRACE_MS: u64 = 15_000;
/// For this long after a start sessions that are away may keep back, milliseconds.
const RETURN_GRACE_MS: u64 = 31_000;
/// The longest ttl of a client.
const TTL_MS_MOST: u64 = 10_000;
/// Between two looks of the core's own invariants at all of the books.
const LOOK_EVERY: u64 = 64;
/// Sessions and claims, so few that the bounds are met.
const LIMITS: Limits = Limits { sessions_max: 12, claims_per_session_max: 8, leases_per_session_max: 10 };

/// A socket as its task knows it.
pub(super) struct Sock {
    outbox: VecDeque<Outgoing>,
    last_read: LastRead,
    /// As told.
    pub session: Option<SessionId>,
    ping_every_ms: u64,
}

/// What the store is at.
pub(super) enum Work {
    /// A commit. `fails`: whether it is durable although it is reported to have failed. `epoch`: what
    /// it is conditional on, where the store is shared; `deposed`: that it was not so.
    Commit { batch: Rc<Batch>, fails: Option<bool>, written: bool, epoch: Option<u64>, deposed: bool },
    /// Opening again, after so many more failures.
    Reopen { batch: Rc<Batch>, left: u32 },
    /// A beat, and whether the store took it.
    Beat { taken: bool },
}

/// A broker that runs.
pub(super) struct Process {
    pub machine: Machine,
    pub sockets: BTreeMap<SocketId, Sock>,
    incoming: VecDeque<Input>,
    /// Clients that lost a socket since the last step.
    left: BTreeSet<usize>,
    pub work: Option<Work>,
    turned_at: u64,
    /// Its next turn, so that no more than one is due.
    turn_due: u64,
    pub stop: Option<u64>,
    ending: bool,
    looks: u64,
    returning_until: u64,
    /// Where the store is shared.
    pub lead: Option<Lead>,
}

impl World {
    /// The clock by which the auditor counts, which stands never still.
    pub(super) const fn boot(&self) -> BootTime {
        BootTime(1_000_000 + self.now / 1_000)
    }

    /// The clock of the broker looked at.
    pub(super) fn boot_here(&self) -> BootTime {
        let now = self.here.paused_since.unwrap_or(self.now);
        BootTime(1_000_000 + (now - self.here.stood_still) / 1_000)
    }

    pub(super) fn wall(&self) -> i64 {
        let offset_ms = self.wall_offset_ms + self.here.wall_offset_ms;
        1_800_000_000_000 + offset_ms + i64::try_from(self.now / 1_000).unwrap_or(0)
    }

    /// Whether the broker looked at takes sockets in: it leads, as far as it knows.
    pub(super) fn accepts(&self) -> bool {
        self.here.process.as_ref().is_some_and(|process| !process.ending)
    }

    /// The process of the broker looked at begins: it stands by where others may lead.
    pub(super) fn start(&mut self) {
        if self.here.process.is_some() || self.here.watch.is_some() {
            return;
        }
        if self.here.are_several() {
            return self.stand_by();
        }
        self.lives += 1;
        self.here.life = self.lives;
        self.lead(None);
    }

    /// Serves what is stored. `since_ms`: before the takeover was sent, on this broker's clock.
    pub(super) fn lead(&mut self, since_ms: Option<u64>) {
        if !self.leads() {
            return self.stand_by();
        }
        self.here.watch = None;
        let (at, wall) = (self.boot_here(), self.wall());
        let tables = self.store.load().map_err(|how| Broken { promise: "everything leaves a trace", how });
        let Some(tables) = self.judge(tables) else { return };
        let options = Options { limits: LIMITS, restart_grace_ms: RESTART_GRACE_MS };
        let shared = since_ms.is_some();
        let passed_ms = shared.then(|| (self.now - self.store.written_at) / 1_000);
        let takeover = Takeover { at, wall_ms: wall, passed_ms, shared };
        let machine = Machine::new(&tables, options, takeover);
        let machine = machine.map_err(|how| Broken { promise: "everything leaves a trace", how });
        let Some(mut machine) = self.judge(machine) else { return };
        if let Some(batch) = machine.step(at, wall) {
            self.write(&batch);
            machine.committed(at, &batch);
        }
        self.auditor.everybody_anew(self.boot().0, true);
        let lead = since_ms.map(|since_ms| Lead::new(self.store.row.epoch, since_ms));
        self.here.process = Some(Process {
            machine,
            sockets: BTreeMap::new(),
            incoming: VecDeque::from([Input::Accepting]),
            left: BTreeSet::new(),
            work: None,
            turned_at: self.now,
            turn_due: u64::MAX,
            stop: None,
            ending: false,
            looks: 0,
            returning_until: self.now + RETURN_GRACE_MS * 1_000,
            lead,
        });
        self.count("started");
        self.turn_in(1);
        if shared && self.store.last_batch() <= 1 {
            self.inventory(0);
        }
    }

    /// The process is gone at this instant.
    pub(super) fn die(&mut self, away_ms: u64, heard: bool) {
        let me = self.here.me;
        if self.here.watch.take().is_some() {
            self.here.life = 0;
            self.after(away_ms * 1_000, Ev::Start(me));
        }
        let Some(process) = self.here.process.take() else { return };
        writeln!(self.note(), "broker {me} dies");
        if self.leads() {
            self.auditor.bound.clear();
        }
        self.here.life = 0;
        self.kill_at = None;
        self.abandon(process.work);
        let sockets: Vec<SocketId> = process.sockets.keys().copied().collect();
        for socket in sockets {
            if heard {
                self.broker_sends(socket, Item::Closed { code: None, clean: false });
            } else if let Some(link) = self.links.get_mut(&socket) {
                link.dead = true;
            }
        }
        self.after(away_ms * 1_000, Ev::Start(me));
    }

    pub(super) fn kill(&mut self, point: Point, away_ms: u64, heard: bool) {
        let leads = self.leads();
        let under_way = self.here.process.as_ref().and_then(|process| match &process.work {
            Some(Work::Commit { batch, fails: None, written: false, .. }) if leads => Some(batch.clone()),
            _ => None,
        });
        match point {
            Point::Now => self.die(away_ms, heard),
            Point::NowDurable => {
                if let Some(batch) = under_way {
                    self.write(&batch);
                }
                self.die(away_ms, heard);
            }
            point => self.kill_at = Some((point, away_ms, heard)),
        }
    }

    /// Dies here if it is to; answers whether it did.
    fn dies_at(&mut self, here: Point) -> bool {
        match self.kill_at {
            Some((point, away_ms, heard)) if point == here => {
                self.die(away_ms, heard);
                true
            }
            _ => false,
        }
    }

    // ---- sockets ----

    pub(super) fn accept(&mut self, socket: SocketId) {
        let Some(process) = &mut self.here.process else { return };
        let last_read = LastRead::default();
        let (outbox, _) = mpsc::channel(1);
        process.incoming.push_back(Input::Attach { socket, outbox, last_read: last_read.clone() });
        let sock = Sock { outbox: VecDeque::new(), last_read, session: None, ping_every_ms: 20_000 };
        process.sockets.insert(socket, sock);
        self.turn_in(20);
    }

    pub(super) fn read_by_broker(&mut self, socket: SocketId, item: Item) {
        let (at, heard_at, leads) = (self.boot_here(), self.boot(), self.leads());
        let delay = self.dice.between(1, 1_500);
        let Some(process) = &mut self.here.process else { return };
        let Some(sock) = process.sockets.get(&socket) else { return };
        if !matches!(item, Item::Closed { .. }) {
            sock.last_read.note(at);
            if let Some(session) = sock.session.filter(|_| leads) {
                self.auditor.heard(heard_at.0, session);
            }
        }
        let input = match item {
            Item::Text(text) => match message::read(&text, IpAddr::V4(Ipv4Addr::LOCALHOST)) {
                Read::Call(id, call) => {
                    if let Some(Id::Number(id)) = &id {
                        self.asked.insert((socket, *id), self.now);
                    }
                    Input::Call { socket, at, id, call: without_chance(call, socket) }
                }
                Read::Nothing => Input::Alive { socket, at },
                Read::Refused(id, error) => {
                    self.broker_sends(socket, Item::Text(message::failure(id.as_ref(), &error)));
                    return;
                }
            },
            Item::Ping | Item::Pong => Input::Alive { socket, at },
            Item::Closed { clean, .. } => {
                process.sockets.remove(&socket);
                Input::Detach { socket, clean }
            }
        };
        process.incoming.push_back(input);
        self.turn_in(delay);
    }

    pub(super) fn broker_sends(&mut self, socket: SocketId, item: Item) {
        if self.deaf.get(&socket) != Some(&true) {
            self.send_to_client(socket, item);
        }
    }

    /// Something for the engine that did not come over a socket.
    pub(super) fn broker_input(&mut self, input: Input) {
        if let Some(process) = &mut self.here.process {
            process.incoming.push_back(input);
            self.turn_in(10);
        }
    }

    /// Writes to a socket what waits for it, as far as its reader keeps up.
    pub(super) fn pump(&mut self, socket: SocketId) {
        loop {
            let unread = self.links.get(&socket).map_or(0, |link| link.to_client.len());
            let Some(sock) = self.here.process.as_mut().and_then(|process| process.sockets.get_mut(&socket)) else {
                return;
            };
            if unread >= WINDOW {
                return;
            }
            let Some(outgoing) = sock.outbox.pop_front() else { return };
            let item = match outgoing {
                Outgoing::Answer { id, result } => Item::Text(message::answer(&id, &result)),
                Outgoing::Notice(notice) => Item::Text(message::notification(&notice)),
                Outgoing::PingEvery { ms } => {
                    sock.ping_every_ms = ms;
                    self.after(ms * 1_000, Ev::Ping(socket));
                    continue;
                }
                Outgoing::Close { reason, .. } => {
                    self.broker_closes(socket, reason.frame().0);
                    return;
                }
            };
            writeln!(self.note(), "tell {socket} {item:?}");
            self.broker_sends(socket, item);
        }
    }

    fn broker_closes(&mut self, socket: SocketId, code: u16) {
        // The client's own Close may cross this one, and a clean one may come from a superseded socket.
        let crossed = self.dice.one_in(2);
        let clean = self.dice.one_in(2);
        let Some(process) = &mut self.here.process else { return };
        process.sockets.remove(&socket);
        let input = if crossed { Input::Detach { socket, clean } } else { Input::CutOff { socket } };
        process.incoming.push_back(input);
        self.broker_sends(socket, Item::Closed { code: Some(code), clean: false });
        self.turn_in(30);
    }

    pub(super) fn ping(&mut self, socket: SocketId) {
        let Some(sock) = self.here.process.as_ref().and_then(|process| process.sockets.get(&socket)) else { return };
        let every_us = sock.ping_every_ms * 1_000;
        // A stuck socket gets no further pings.
        if self.links.get(&socket).is_some_and(|link| link.to_client.len() < WINDOW) {
            self.broker_sends(socket, Item::Ping);
        }
        self.after(every_us, Ev::Ping(socket));
    }

    // ---- the loop ----

    pub(super) fn turn_in(&mut self, us: u64) {
        let due = self.now + us;
        let life = self.here.life;
        if let Some(process) = &mut self.here.process
            && due < process.turn_due
        {
            process.turn_due = due;
            self.at(due, Ev::Turn(life));
        }
    }

    pub(super) fn turn(&mut self) {
        let (at, counted, wall, leads) = (self.boot_here(), self.boot(), self.wall(), self.leads());
        let smallest = self.runners.iter().map(|runner| runner.ttl_ms).min().unwrap_or(2_000);
        let Some(process) = &mut self.here.process else { return };
        if process.turn_due > self.now {
            return;
        }
        process.turn_due = u64::MAX;
        if process.lead.as_ref().is_some_and(|lead| lead.handing_over) {
            // Nothing comes in any more, and nothing is decided; a commit under way is waited for.
            if !matches!(process.work, Some(Work::Commit { .. })) {
                self.gives_up();
            }
            return;
        }
        if self.now - process.turned_at > smallest * 1_000 / 4 {
            self.auditor.everybody_anew(counted.0, false);
        }
        process.turned_at = self.now;
        while let Some(input) = process.incoming.pop_front() {
            if let Input::Detach { socket, .. } | Input::CutOff { socket } = &input {
                self.auditor.unbound(*socket);
                process.left.extend(self.links.get(socket).map(|link| link.client));
            }
            if matches!(input, Input::Accepting) && leads {
                self.auditor.everybody_anew(counted.0, true);
                process.returning_until = self.now + RETURN_GRACE_MS * 1_000;
            }
            process.machine.input(at, input);
        }
        if process.work.is_none() {
            self.meet();
            let Some(process) = &mut self.here.process else { return };
            match process.machine.step(at, wall) {
                Some(batch) if self.kill_at.is_none_or(|(point, ..)| point != Point::Decided) => self.commit(batch),
                Some(_) => {
                    self.dies_at(Point::Decided);
                    return;
                }
                None => {
                    drop(process.machine.take_places(at));
                    self.beat();
                }
            }
        } else {
            process.machine.decide_ahead(at);
        }
        self.look();
        self.deliver();
        if let Some(process) = &mut self.here.process {
            process.machine.alive(at);
        }
        self.deliver();
        self.settled();
        self.rest();
    }

    /// Notes who is there for a batch about to be made: who is bound, and lost no socket since the
    /// last one was made, while which it may have been decided.
    fn meet(&mut self) {
        if !self.leads() {
            return;
        }
        let Some(process) = &mut self.here.process else { return };
        let left = std::mem::take(&mut process.left);
        let stays = |socket: &SocketId| self.links.get(socket).is_some_and(|link| !left.contains(&link.client));
        let bound = self.auditor.bound.iter().filter(|(_, socket)| stays(socket));
        self.auditor.present = bound.map(|(session, _)| *session).collect();
    }

    /// Looks at everything when nothing is under way.
    fn settled(&mut self) {
        let at = self.boot();
        if !self.leads() {
            return; // Who leads no more without knowing is right about nothing.
        }
        let Some(process) = &mut self.here.process else { return };
        let failing = process.machine.failure().is_some();
        if process.work.is_some() || failing {
            // What falls due meanwhile cannot be decided.
            self.auditor.later(at.0);
            return;
        }
        if process.machine.has_work() || !process.incoming.is_empty() || process.machine.is_stopping() {
            return;
        }
        process.looks += 1;
        let look = process.looks % LOOK_EVERY == 0;
        let returning = self.now < process.returning_until;
        let core = if look { invariants::check(process.machine.broker()) } else { Ok(()) };
        let sessions = process.machine.broker().state().sessions.len();
        let kept = core
            .map_err(|how| Broken { promise: "the core's own invariants", how })
            .and_then(|()| hold("bounded", sessions <= LIMITS.sessions_max, || format!("{sessions} sessions")))
            .and_then(|()| self.auditor.came_back(at.0))
            .and_then(|()| self.auditor.grants_are_told())
            .and_then(|()| self.auditor.granted_when_it_can_be(returning));
        self.judge(kept);
    }

    /// Comes round again when the machine wants to; a stopped process ends here.
    fn rest(&mut self) {
        let at = self.boot_here();
        let Some(process) = &mut self.here.process else { return };
        let idle = process.incoming.is_empty() && !process.machine.has_work();
        let done = process.work.is_none() && idle || process.machine.failure().is_some();
        if process.ending && done {
            let away_ms = process.stop.unwrap_or(100);
            self.leave_row();
            self.die(away_ms, true);
            return;
        }
        let mut wake = process.machine.next_wake(at).since(at).max(1);
        if let Some(lead) = &process.lead {
            wake = wake.min(lead.next_ms(at, process.work.is_none()));
        }
        self.turn_in(wake * 1_000);
    }

    fn commit(&mut self, batch: Batch) {
        let at = self.boot_here();
        let fails = self.fails.take();
        let Some(process) = &mut self.here.process else { return };
        let fails = fails.map(|(committed, reopens)| {
            self.reopens = reopens;
            committed
        });
        let epoch = process.lead.as_mut().map(|lead| {
            lead.sent_ms = at.0;
            lead.epoch
        });
        let batch = Rc::new(batch);
        process.work = Some(Work::Commit { batch, fails, written: false, epoch, deposed: false });
        self.goes_to_store();
    }

    /// What is under way gets to the store.
    pub(super) fn written(&mut self) {
        let (row_epoch, leads) = (self.store.row.epoch, self.leads());
        let Some(process) = &mut self.here.process else { return };
        match &mut process.work {
            Some(Work::Beat { taken }) => {
                *taken = leads && process.lead.as_ref().is_some_and(|lead| lead.epoch == row_epoch);
                self.store.row.beat += u64::from(*taken);
            }
            Some(Work::Commit { epoch: Some(epoch), deposed, .. }) if *epoch != row_epoch => *deposed = true,
            Some(Work::Commit { batch, fails, written, deposed, .. })
                if *fails != Some(false) && !*written && !*deposed =>
            {
                *written = true;
                let batch = batch.clone();
                self.write(&batch);
                self.dies_at(Point::Durable);
            }
            _ => {}
        }
    }

    /// A batch becomes durable.
    pub(super) fn write(&mut self, batch: &Batch) {
        writeln!(self.note(), "durable {} {:?}", batch.number, batch.events);
        let at = self.boot();
        self.store.written_at = self.now;
        self.store.row.beat += 1;
        let kept = self.store.write(batch).map_err(|how| Broken { promise: "everything leaves a trace", how });
        self.judge(kept);
        for event in &batch.events {
            let seen = self.witness.see(batch.at, event);
            self.judge(seen.map_err(|how| Broken { promise: "the core's own invariants", how }));
        }
        let kept = self.auditor.durable(at.0, batch);
        self.judge(kept);
    }

    /// The engine hears what came of it.
    pub(super) fn known(&mut self) {
        let at = self.boot_here();
        let Some(process) = &mut self.here.process else { return };
        let batch = match process.work.take() {
            Some(Work::Beat { taken: false } | Work::Commit { deposed: true, .. }) => {
                return self.leads_no_more("deposed");
            }
            Some(Work::Commit { batch, fails: Some(_), .. }) => {
                process.machine.store_failed(at, "a fault of the simulation");
                process.work = Some(Work::Reopen { batch, left: self.reopens });
                let life = self.here.life;
                self.after(50_000, Ev::Reopened(life));
                self.deliver();
                return self.rest();
            }
            Some(Work::Commit { batch, .. }) => Some(batch),
            Some(Work::Beat { .. }) => None,
            other => {
                process.work = other;
                return;
            }
        };
        if let Some(lead) = &mut process.lead {
            lead.wrote();
        }
        if let Some(batch) = batch {
            process.machine.committed(at, &batch);
            self.auditor.later(self.boot().0);
            if self.dies_at(Point::Known) {
                return;
            }
        }
        self.deliver();
        if self.dies_at(Point::Told) {
            return;
        }
        self.turn_in(1);
    }

    pub(super) fn reopened(&mut self) {
        let (at, wall, life, leads) = (self.boot_here(), self.wall(), self.here.life, self.leads());
        let cut_off = self.here.cut_off_until > self.now;
        let Some(process) = &mut self.here.process else { return };
        let Some(Work::Reopen { batch, left }) = process.work.take() else { return };
        if left > 0 || cut_off {
            process.work = Some(Work::Reopen { batch, left: left.saturating_sub(1) });
            self.after(100_000, Ev::Reopened(life));
            return;
        }
        if !leads {
            return self.leads_no_more("deposed");
        }
        if let Some(lead) = &mut process.lead {
            // Whatever is under way on the connection before comes too late from here on.
            self.store.row.epoch += 1;
            self.store.row.beat += 1;
            (lead.epoch, lead.sent_ms) = (self.store.row.epoch, at.0);
            lead.wrote();
        }
        let tables = self.store.load().map_err(|how| Broken { promise: "everything leaves a trace", how });
        let Some(tables) = self.judge(tables) else { return };
        let Some(process) = &mut self.here.process else { return };
        let resolved = process.machine.resolved(at, &batch, &tables);
        let resolved = resolved.map_err(|how| Broken { promise: "everything leaves a trace", how });
        self.meet();
        let Some(process) = &mut self.here.process else { return };
        // Whoever was told that its resume failed is on that socket all the same until it leaves it.
        process.returning_until = process.returning_until.max(self.now + TTL_MS_MOST * 1_000);
        let probe = process.machine.probe(at, wall);
        self.judge(resolved);
        self.commit(probe);
        self.deliver();
    }

    /// A leader that has written nothing for a while beats.
    fn beat(&mut self) {
        let at = self.boot_here();
        let Some(process) = &mut self.here.process else { return };
        let Some(lead) = process.lead.as_mut().filter(|lead| lead.next_ms(at, true) == 0) else { return };
        lead.sent_ms = at.0;
        process.work = Some(Work::Beat { taken: false });
        self.goes_to_store();
    }

    /// What is under way goes to the store, and then its answer back.
    fn goes_to_store(&mut self) {
        let took = self.dice.between(100, 3_000);
        let heard = self.dice.roll(800);
        let took = took.max(self.stalled_until.max(self.here.cut_off_until).saturating_sub(self.now));
        let life = self.here.life;
        self.after(took, Ev::Written(life));
        self.after(took + heard, Ev::Known(life));
    }

    /// Hands out what may be told; whoever's outbox is full is cut off.
    pub(super) fn deliver(&mut self) {
        let at = self.boot_here();
        if self.term_is_over() {
            return self.leads_no_more("term-over");
        }
        loop {
            let Some(process) = &mut self.here.process else { return };
            let outputs = process.machine.take_outputs();
            if outputs.is_empty() {
                break;
            }
            let mut touched = BTreeSet::new();
            for output in outputs {
                match output {
                    Output::Socket(socket, outgoing) => {
                        touched.insert(socket);
                        self.tell(at, socket, outgoing);
                    }
                    Output::Told(answer, told) => drop(answer.send(told)),
                    Output::Release(release, durable) => release(durable),
                    Output::Stopped(done) => {
                        let _: Result<(), ()> = done.send(());
                        self.stopped();
                    }
                }
            }
            touched.into_iter().for_each(|socket| self.pump(socket));
        }
        self.keyed_answers();
    }

    fn tell(&mut self, at: BootTime, socket: SocketId, outgoing: Outgoing) {
        let Some(process) = &mut self.here.process else { return };
        let Some(sock) = process.sockets.get_mut(&socket) else {
            if let Outgoing::Answer { result: Ok(Answer::Opened(opened, _)), .. } = &outgoing {
                // It took the session over, and was gone before it heard so.
                self.auditor.bound.remove(&SessionId(opened.session));
            }
            return;
        };
        if let Outgoing::Answer { result: Ok(Answer::Opened(opened, _)), .. } = &outgoing {
            sock.session = Some(SessionId(opened.session));
        }
        let of = sock.session;
        if let Outgoing::Answer { id: Id::Number(id), result } = &outgoing
            && *id >= FOREIGN_IDS
        {
            let kept = super::actions::repeat_answered(*id, result);
            self.judge(kept);
        }
        let (asked, leads) = (self.asked_when(socket, &outgoing), self.leads());
        let kept = self.gave_time(asked).and_then(|()| {
            let counted = self.boot().0;
            if leads { self.auditor.told(counted, socket, of, &outgoing) } else { self.auditor.told_late(&outgoing) }
        });
        self.judge(kept);
        let Some(sock) = self.here.process.as_mut().and_then(|process| process.sockets.get_mut(&socket)) else {
            return;
        };
        if sock.outbox.len() < OUTBOX_MAX {
            sock.outbox.push_back(outgoing);
            return;
        }
        self.count("slow-reader-cut-off");
        self.auditor.unbound(socket);
        if let Some(process) = &mut self.here.process {
            process.sockets.remove(&socket);
            process.machine.input(at, Input::CutOff { socket });
        }
        self.broker_sends(socket, Item::Closed { code: Some(4001), clean: false });
        self.turn_in(10);
    }

    /// When what this answers was asked, where the answer gives time.
    fn asked_when(&mut self, socket: SocketId, outgoing: &Outgoing) -> Option<u64> {
        let Outgoing::Answer { id: Id::Number(id), result } = outgoing else { return None };
        let asked = self.asked.remove(&(socket, *id));
        asked.filter(|_| matches!(result, Ok(Answer::Opened(..) | Answer::Renewed(_))))
    }

    pub(super) fn begin_stop(&mut self, away_ms: u64) {
        let Some(process) = self.here.process.as_mut().filter(|process| process.stop.is_none()) else { return };
        process.stop = Some(away_ms);
        let (done, _) = oneshot::channel();
        self.broker_input(Input::Stop { done });
    }

    /// Everybody has renewed, or had the time to: sockets are closed under their sessions.
    fn stopped(&mut self) {
        let Some(process) = &mut self.here.process else { return };
        process.ending = true;
        // Somebody is cut off for so long that it lives by the longer promise alone.
        if self.dice.one_in(2) && !self.calm {
            let nth = self.dice.roll(self.runners.len() as u64);
            if let Some(runner) = self.runners.get_mut(usize::try_from(nth).unwrap_or(0)) {
                runner.cut_off_until = self.now + RESTART_GRACE_MS * 1_000 + 5_000_000;
            }
        }
        let Some(process) = &mut self.here.process else { return };
        let sockets: Vec<SocketId> = process.sockets.keys().copied().collect();
        for socket in sockets {
            self.pump(socket);
            let Some(process) = &mut self.here.process else { return };
            process.sockets.remove(&socket);
            process.incoming.push_back(Input::CutOff { socket });
            self.broker_sends(socket, Item::Closed { code: Some(1001), clean: false });
        }
        self.turn_in(50);
    }
}

/// The wire's reader draws a secret for a new session: here it follows from the socket.
fn without_chance(call: Call, socket: SocketId) -> Call {
    match call {
        Call::Open { instance, owner, ttl, .. } => {
            let secret = format!("secret-of-{socket}");
            Call::Open { instance, owner, ttl, hash: secret_hash(&secret), secret: secret.into() }
        }
        other => other,
    }
}
