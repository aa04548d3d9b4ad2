//! The broker's process: the engine's machine, and around it again what `engine/task.rs` and a
//! socket's task do, without a runtime.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;

use tokio::sync::{mpsc, oneshot};

use super::audit::{Broken, hold};
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
use crate::engine::input::{Answer, Call, Input, LastRead, Outgoing, SocketId, Takeover};
use crate::engine::machine::{Machine, Options};
use crate::protocol::rpc::Id;
use crate::server::convert::secret_hash;
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
    /// A commit. `fails`: whether it is durable although it is reported to have failed.
    Commit { batch: Rc<Batch>, fails: Option<bool>, written: bool },
    /// Opening again, after so many more failures.
    Reopen { batch: Rc<Batch>, left: u32 },
}

/// A broker that runs.
pub(super) struct Process {
    pub machine: Machine,
    pub sockets: BTreeMap<SocketId, Sock>,
    incoming: VecDeque<Input>,
    /// Clients that lost a socket since the last step.
    left: BTreeSet<usize>,
    work: Option<Work>,
    turned_at: u64,
    /// Its next turn, so that no more than one is due.
    turn_due: u64,
    pub stop: Option<u64>,
    ending: bool,
    looks: u64,
    returning_until: u64,
}

impl World {
    /// The broker's clock.
    pub(super) const fn boot(&self) -> BootTime {
        BootTime(1_000_000 + self.now / 1_000)
    }

    pub(super) fn wall(&self) -> i64 {
        1_800_000_000_000 + self.wall_offset_ms + i64::try_from(self.now / 1_000).unwrap_or(0)
    }

    pub(super) fn accepts(&self) -> bool {
        self.process.as_ref().is_some_and(|process| !process.ending)
    }

    /// A process starts on what is stored.
    pub(super) fn start(&mut self) {
        if self.process.is_some() {
            return;
        }
        let (at, wall) = (self.boot(), self.wall());
        let tables = self.store.load().map_err(|how| Broken { promise: "everything leaves a trace", how });
        let Some(tables) = self.judge(tables) else { return };
        let options = Options { limits: LIMITS, restart_grace_ms: RESTART_GRACE_MS };
        let machine = Machine::new(&tables, options, Takeover { at, wall_ms: wall, passed_ms: None, shared: false });
        let machine = machine.map_err(|how| Broken { promise: "everything leaves a trace", how });
        let Some(mut machine) = self.judge(machine) else { return };
        if let Some(batch) = machine.step(at, wall) {
            self.write(&batch);
            machine.committed(at, &batch);
        }
        self.life += 1;
        self.auditor.everybody_anew(at.0, true);
        self.process = Some(Process {
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
        });
        self.count("started");
        self.turn_in(1);
    }

    /// The process is gone at this instant.
    pub(super) fn die(&mut self, away_ms: u64, heard: bool) {
        let Some(process) = self.process.take() else { return };
        writeln!(self.note(), "broker dies");
        self.life += 1;
        self.kill_at = None;
        self.auditor.bound.clear();
        let sockets: Vec<SocketId> = process.sockets.keys().copied().collect();
        for socket in sockets {
            if heard {
                self.broker_sends(socket, Item::Closed { code: None, clean: false });
            } else if let Some(link) = self.links.get_mut(&socket) {
                link.dead = true;
            }
        }
        self.after(away_ms * 1_000, Ev::Start);
    }

    pub(super) fn kill(&mut self, point: Point, away_ms: u64, heard: bool) {
        let under_way = self.process.as_ref().and_then(|process| match &process.work {
            Some(Work::Commit { batch, fails: None, written: false }) => Some(batch.clone()),
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
        let Some(process) = &mut self.process else { return };
        let last_read = LastRead::default();
        let (outbox, _) = mpsc::channel(1);
        process.incoming.push_back(Input::Attach { socket, outbox, last_read: last_read.clone() });
        let sock = Sock { outbox: VecDeque::new(), last_read, session: None, ping_every_ms: 20_000 };
        process.sockets.insert(socket, sock);
        self.turn_in(20);
    }

    pub(super) fn read_by_broker(&mut self, socket: SocketId, item: Item) {
        let at = self.boot();
        let delay = self.dice.between(1, 1_500);
        let Some(process) = &mut self.process else { return };
        let Some(sock) = process.sockets.get(&socket) else { return };
        if !matches!(item, Item::Closed { .. }) {
            sock.last_read.note(at);
            if let Some(session) = sock.session {
                self.auditor.heard(at.0, session);
            }
        }
        let input = match item {
            Item::Text(text) => match message::read(&text, IpAddr::V4(Ipv4Addr::LOCALHOST)) {
                Read::Call(id, call) => Input::Call { socket, at, id, call: without_chance(call, socket) },
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
        if let Some(process) = &mut self.process {
            process.incoming.push_back(input);
            self.turn_in(10);
        }
    }

    /// Writes to a socket what waits for it, as far as its reader keeps up.
    pub(super) fn pump(&mut self, socket: SocketId) {
        loop {
            let unread = self.links.get(&socket).map_or(0, |link| link.to_client.len());
            let Some(sock) = self.process.as_mut().and_then(|process| process.sockets.get_mut(&socket)) else { return };
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
        let Some(process) = &mut self.process else { return };
        process.sockets.remove(&socket);
        let input = if crossed { Input::Detach { socket, clean } } else { Input::CutOff { socket } };
        process.incoming.push_back(input);
        self.broker_sends(socket, Item::Closed { code: Some(code), clean: false });
        self.turn_in(30);
    }

    pub(super) fn ping(&mut self, socket: SocketId) {
        let Some(sock) = self.process.as_ref().and_then(|process| process.sockets.get(&socket)) else { return };
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
        let life = self.life;
        if let Some(process) = &mut self.process
            && due < process.turn_due
        {
            process.turn_due = due;
            self.at(due, Ev::Turn(life));
        }
    }

    pub(super) fn turn(&mut self) {
        let (at, wall) = (self.boot(), self.wall());
        let smallest = self.runners.iter().map(|runner| runner.ttl_ms).min().unwrap_or(2_000);
        let Some(process) = &mut self.process else { return };
        if process.turn_due > self.now {
            return;
        }
        process.turn_due = u64::MAX;
        if self.now - process.turned_at > smallest * 1_000 / 4 {
            self.auditor.everybody_anew(at.0, false);
        }
        process.turned_at = self.now;
        while let Some(input) = process.incoming.pop_front() {
            if let Input::Detach { socket, .. } | Input::CutOff { socket } = &input {
                self.auditor.unbound(*socket);
                process.left.extend(self.links.get(socket).map(|link| link.client));
            }
            if matches!(input, Input::Accepting) {
                self.auditor.everybody_anew(at.0, true);
                process.returning_until = self.now + RETURN_GRACE_MS * 1_000;
            }
            process.machine.input(at, input);
        }
        if process.work.is_none() {
            self.meet();
            let Some(process) = &mut self.process else { return };
            match process.machine.step(at, wall) {
                Some(batch) if self.kill_at.is_none_or(|(point, ..)| point != Point::Decided) => self.commit(batch),
                Some(_) => {
                    self.dies_at(Point::Decided);
                    return;
                }
                None => drop(process.machine.take_places(at)),
            }
        } else {
            process.machine.decide_ahead(at);
        }
        self.deliver();
        if let Some(process) = &mut self.process {
            process.machine.alive(at);
        }
        self.deliver();
        self.settled();
        self.rest();
    }

    /// Notes who is there for a batch about to be made: who is bound, and lost no socket since the
    /// last one was made, while which it may have been decided.
    fn meet(&mut self) {
        let Some(process) = &mut self.process else { return };
        let left = std::mem::take(&mut process.left);
        let stays = |socket: &SocketId| self.links.get(socket).is_some_and(|link| !left.contains(&link.client));
        let bound = self.auditor.bound.iter().filter(|(_, socket)| stays(socket));
        self.auditor.present = bound.map(|(session, _)| *session).collect();
    }

    /// Looks at everything when nothing is under way.
    fn settled(&mut self) {
        let at = self.boot();
        let Some(process) = &mut self.process else { return };
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
        let at = self.boot();
        let Some(process) = &mut self.process else { return };
        let idle = process.incoming.is_empty() && !process.machine.has_work();
        let done = process.work.is_none() && idle || process.machine.failure().is_some();
        if process.ending && done {
            let away_ms = process.stop.unwrap_or(100);
            self.die(away_ms, true);
            return;
        }
        let wake = process.machine.next_wake(at).since(at).max(1);
        self.turn_in(wake * 1_000);
    }

    fn commit(&mut self, batch: Batch) {
        let took = self.dice.between(100, 3_000);
        let heard = self.dice.roll(800);
        let fails = self.fails.take();
        let took = took.max(self.stalled_until.saturating_sub(self.now));
        let Some(process) = &mut self.process else { return };
        let committed = fails.map(|(committed, reopens)| {
            self.reopens = reopens;
            committed
        });
        process.work = Some(Work::Commit { batch: Rc::new(batch), fails: committed, written: false });
        let life = self.life;
        self.after(took, Ev::Written(life));
        self.after(took + heard, Ev::Known(life));
    }

    pub(super) fn written(&mut self) {
        let Some(Work::Commit { batch, fails, written }) = self.process.as_mut().and_then(|it| it.work.as_mut()) else {
            return;
        };
        if *fails == Some(false) || *written {
            return;
        }
        *written = true;
        let batch = batch.clone();
        self.write(&batch);
        self.dies_at(Point::Durable);
    }

    /// A batch becomes durable.
    fn write(&mut self, batch: &Batch) {
        writeln!(self.note(), "durable {} {:?}", batch.number, batch.events);
        let at = self.boot();
        let kept = self.store.write(batch).map_err(|how| Broken { promise: "everything leaves a trace", how });
        self.judge(kept);
        for event in &batch.events {
            let seen = self.witness.see(batch.at, event);
            self.judge(seen.map_err(|how| Broken { promise: "the core's own invariants", how }));
        }
        let kept = self.auditor.durable(at.0, batch);
        self.judge(kept);
    }

    /// The engine hears what came of the commit.
    pub(super) fn known(&mut self) {
        let at = self.boot();
        let Some(process) = &mut self.process else { return };
        let Some(Work::Commit { batch, fails, .. }) = process.work.take() else { return };
        if fails.is_some() {
            process.machine.store_failed(at, "a fault of the simulation");
            process.work = Some(Work::Reopen { batch, left: self.reopens });
            let life = self.life;
            self.after(50_000, Ev::Reopened(life));
            self.deliver();
            self.rest();
            return;
        }
        process.machine.committed(at, &batch);
        self.auditor.later(at.0);
        if self.dies_at(Point::Known) {
            return;
        }
        self.deliver();
        if self.dies_at(Point::Told) {
            return;
        }
        self.turn_in(1);
    }

    pub(super) fn reopened(&mut self) {
        let (at, wall) = (self.boot(), self.wall());
        let life = self.life;
        let Some(process) = &mut self.process else { return };
        let Some(Work::Reopen { batch, left }) = process.work.take() else { return };
        if left > 0 {
            process.work = Some(Work::Reopen { batch, left: left - 1 });
            self.after(100_000, Ev::Reopened(life));
            return;
        }
        let tables = self.store.load().map_err(|how| Broken { promise: "everything leaves a trace", how });
        let Some(tables) = self.judge(tables) else { return };
        let Some(process) = &mut self.process else { return };
        let resolved = process.machine.resolved(at, &batch, &tables);
        let resolved = resolved.map_err(|how| Broken { promise: "everything leaves a trace", how });
        self.meet();
        let Some(process) = &mut self.process else { return };
        // Whoever was told that its resume failed is on that socket all the same until it leaves it.
        process.returning_until = process.returning_until.max(self.now + TTL_MS_MOST * 1_000);
        let probe = process.machine.probe(at, wall);
        self.judge(resolved);
        self.commit(probe);
        self.deliver();
    }

    /// Hands out what may be told; whoever's outbox is full is cut off.
    pub(super) fn deliver(&mut self) {
        let at = self.boot();
        loop {
            let Some(process) = &mut self.process else { return };
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
        let Some(process) = &mut self.process else { return };
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
        let kept = self.auditor.told(at.0, socket, of, &outgoing);
        self.judge(kept);
        let Some(sock) = self.process.as_mut().and_then(|process| process.sockets.get_mut(&socket)) else { return };
        if sock.outbox.len() < OUTBOX_MAX {
            sock.outbox.push_back(outgoing);
            return;
        }
        self.count("slow-reader-cut-off");
        self.auditor.unbound(socket);
        if let Some(process) = &mut self.process {
            process.sockets.remove(&socket);
            process.machine.input(at, Input::CutOff { socket });
        }
        self.broker_sends(socket, Item::Closed { code: Some(4001), clean: false });
        self.turn_in(10);
    }

    pub(super) fn begin_stop(&mut self, away_ms: u64) {
        let Some(process) = self.process.as_mut().filter(|process| process.stop.is_none()) else { return };
        process.stop = Some(away_ms);
        let (done, _) = oneshot::channel();
        self.broker_input(Input::Stop { done });
    }

    /// Everybody has renewed, or had the time to: sockets are closed under their sessions.
    fn stopped(&mut self) {
        let Some(process) = &mut self.process else { return };
        process.ending = true;
        // Somebody is cut off for so long that it lives by the longer promise alone.
        if self.dice.one_in(2) && !self.calm {
            let nth = self.dice.roll(self.runners.len() as u64);
            if let Some(runner) = self.runners.get_mut(usize::try_from(nth).unwrap_or(0)) {
                runner.cut_off_until = self.now + RESTART_GRACE_MS * 1_000 + 5_000_000;
            }
        }
        let Some(process) = &mut self.process else { return };
        let sockets: Vec<SocketId> = process.sockets.keys().copied().collect();
        for socket in sockets {
            self.pump(socket);
            let Some(process) = &mut self.process else { return };
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
