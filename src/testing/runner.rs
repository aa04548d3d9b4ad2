//! The clients: the real machine on a clock of its own, and a user who claims, holds, releases.

use std::collections::BTreeMap;

use super::actions::Picks;
use super::audit::Kept;
use super::dice::{Dice, jitter};
use super::network::{Item, Link};
use super::world::{Ev, World};
use crate::client::error::ClientError;
use crate::client::event::Event;
use crate::client::machine::{Config, Input, Machine, Output};
use crate::clock::BootTime;
use crate::core::types::LeaseId;
use crate::engine::input::SocketId;
use crate::protocol::call::{ClaimRequest, SessionOpen};
use crate::protocol::rpc::Id;

/// How often a connection may be sent on to where the leader is.
const HOPS_MAX: u8 = 2;
/// How far a clock may be off for the promise in the world to hold, parts in a million.
const DRIFT_PPM_MAX: i64 = 10_000;
/// Requests of the simulation's own on a client's socket are numbered from here, so that the
/// client takes their answers for nobody's.
pub(super) const FOREIGN_IDS: u64 = 1 << 40;

/// A client.
pub(super) struct Runner {
    pub machine: Machine,
    pub ttl_ms: u64,
    ppm: i64,
    base_ms: u64,
    pub socket: Option<SocketId>,
    /// The number of the connection last asked for.
    attempt: u64,
    /// Which broker that one is to, and how often it may be sent on.
    url: usize,
    hops: u8,
    wake: u64,
    /// Lives so far: a new session each.
    life: u64,
    pub next_request: u64,
    /// What was asked under each number.
    pub asked: BTreeMap<u64, ClaimRequest>,
    /// Leases as the user knows them: resource names with slots.
    pub held: BTreeMap<u64, Picks>,
    pub frozen_until: u64,
    pub slow_until: u64,
    pub cut_off_until: u64,
}

impl Runner {
    pub(super) fn new(seed: u64, nth: usize, brokers: usize, ttl_ms: u64, ppm: i64) -> Self {
        let base_ms = Dice::new(seed, 100 + nth as u64).between(1_000, 900_000);
        Self {
            machine: machine(nth, 0, ttl_ms, brokers, BootTime(base_ms)),
            ttl_ms,
            ppm,
            base_ms,
            socket: None,
            attempt: 0,
            url: 0,
            hops: 0,
            wake: 0,
            life: 0,
            next_request: 1,
            asked: BTreeMap::new(),
            held: BTreeMap::new(),
            frozen_until: 0,
            slow_until: 0,
            cut_off_until: 0,
        }
    }

    /// What its clock shows at a true moment, microseconds.
    pub(super) fn clock(&self, now: u64) -> BootTime {
        let rate = u64::try_from(1_000_000 + self.ppm).unwrap_or(0);
        BootTime(self.base_ms + now * rate / 1_000_000_000)
    }

    /// The true moment when its clock shows this, microseconds.
    fn moment(&self, at: BootTime) -> u64 {
        let rate = u64::try_from(1_000_000 + self.ppm).unwrap_or(1);
        at.0.saturating_sub(self.base_ms) * 1_000_000_000 / rate + 1
    }

    /// Whether the promise in the world is made to it.
    pub(super) const fn is_sane(&self) -> bool {
        self.ppm.abs() <= DRIFT_PPM_MAX
    }

    /// Whether it believes at this moment that it may use the lease.
    fn believes(&self, now: u64, lease: u64) -> bool {
        self.machine.lease(lease).is_some_and(|state| self.clock(now) < state.deadline)
    }
}

fn machine(nth: usize, life: u64, ttl_ms: u64, brokers: usize, now: BootTime) -> Machine {
    let open = SessionOpen {
        instance: format!("instance-{nth}-{life}"),
        owner: Some(format!("user{nth}@sim")),
        ttl_ms: Some(ttl_ms),
        ..SessionOpen::default()
    };
    let urls = (0..brokers).map(|nth| format!("broker-{nth}")).collect();
    Machine::new(Config { urls, open, connect_timeout_ms: 120_000, jitter }, now)
}

impl World {
    /// Gives a client's machine an input, unless its process is paused, and does what it says.
    pub(super) fn client_input(&mut self, client: usize, input: Input<'_>) {
        let runner = &mut self.runners[client];
        let now = runner.clock(self.now);
        runner.machine.handle(now, input);
        self.client_outputs(client);
    }

    pub(super) fn client_outputs(&mut self, client: usize) {
        while let Some(output) = self.runners[client].machine.poll() {
            writeln!(self.note(), "client {client} {output:?}");
            match output {
                Output::Connect(url) => self.connect(client, url),
                Output::Send(text) => {
                    if let Some(socket) = self.runners[client].socket {
                        self.client_sends(socket, Item::Text(text));
                    }
                }
                Output::Drop => self.client_leaves(client, false),
                Output::Hangup => self.client_leaves(client, true),
                Output::Tell(event) => self.client_told(client, event),
                Output::Answer(..) => {}
            }
        }
        self.arm_client(client);
    }

    fn client_sends(&mut self, socket: SocketId, item: Item) {
        // The other end has gone without a word that came through.
        if self.deaf.get(&socket) != Some(&false) {
            self.send_to_broker(socket, item);
        }
    }

    fn client_leaves(&mut self, client: usize, clean: bool) {
        self.runners[client].attempt += 1;
        if let Some(socket) = self.runners[client].socket.take() {
            self.client_sends(socket, Item::Closed { code: clean.then_some(1000), clean });
        }
    }

    /// Wakes the client when its machine wants to be, a little late as timers are.
    pub(super) fn arm_client(&mut self, client: usize) {
        let late = self.dice.roll(3_000);
        let runner = &mut self.runners[client];
        runner.wake += 1;
        let Some(at) = runner.machine.next_wake() else { return };
        let due = (runner.moment(at) + late).max(self.now + 1).max(runner.frozen_until);
        let wake = runner.wake;
        self.at(due, Ev::Wake(client, wake));
    }

    pub(super) fn wake_client(&mut self, client: usize, wake: u64) {
        if self.runners[client].wake != wake {
            return;
        }
        if self.runners[client].frozen_until > self.now {
            self.arm_client(client);
            return;
        }
        self.client_input(client, Input::Woke);
    }

    fn connect(&mut self, client: usize, url: usize) {
        let delay = self.delay() + self.delay();
        let runner = &mut self.runners[client];
        runner.attempt += 1;
        (runner.url, runner.hops) = (url, HOPS_MAX);
        let attempt = runner.attempt;
        self.after(delay, Ev::Connected(client, attempt));
    }

    pub(super) fn connected(&mut self, client: usize, attempt: u64) {
        let runner = &self.runners[client];
        if runner.attempt != attempt || runner.machine.is_closed() {
            return;
        }
        self.here.me = runner.url;
        let held = runner.cut_off_until.max(runner.frozen_until).max(self.here.frozen_until);
        if held > self.now {
            self.at(held, Ev::Connected(client, attempt));
            return;
        }
        if !self.accepts() && self.sends_on(client) {
            let delay = self.delay() + self.delay();
            self.after(delay, Ev::Connected(client, attempt));
            return;
        }
        if !self.accepts() {
            let error = ClientError::NoBroker("connection refused".to_owned());
            self.client_input(client, Input::ConnectFailed(error));
            return;
        }
        self.sockets += 1;
        let socket = self.sockets;
        let link = Link {
            client,
            life: self.here.life,
            to_broker: std::collections::VecDeque::new(),
            to_client: std::collections::VecDeque::new(),
            dead: false,
        };
        self.links.insert(socket, link);
        self.accept(socket);
        self.runners[client].socket = Some(socket);
        self.client_input(client, Input::Connected);
    }

    /// Whoever stands by answers with where the leader is, as far as it knows.
    fn sends_on(&mut self, client: usize) -> bool {
        let knows = self.here.watch.is_some() && self.here.cut_off_until <= self.now;
        let leader = self.store.row.leader.filter(|_| knows);
        let leader = leader.and_then(|life| self.here.iter().position(|broker| broker.life == life));
        let runner = &mut self.runners[client];
        let Some(leader) = leader.filter(|_| runner.hops > 0) else { return false };
        (runner.url, runner.hops) = (leader, runner.hops - 1);
        true
    }

    pub(super) fn read_by_client(&mut self, client: usize, socket: SocketId, item: Item) {
        match item {
            Item::Text(text) => self.client_input(client, Input::Received(&text)),
            Item::Ping => self.client_sends(socket, Item::Pong),
            Item::Pong => {}
            Item::Closed { code, .. } => {
                self.runners[client].socket = None;
                self.client_input(client, Input::Dropped { code, why: "closed".to_owned() });
            }
        }
    }

    fn client_told(&mut self, client: usize, event: Event) {
        match event {
            Event::Granted { lease, .. } => {
                let picks = lease.resources.values().flatten();
                let picks: Vec<(String, u32)> = picks.map(|pick| (pick.name.clone(), pick.slots)).collect();
                self.runners[client].held.insert(lease.lease, picks);
                self.count("client-granted");
                let kept = self.nobody_else_uses(client, lease.lease);
                self.judge(kept);
                let most = if self.calm { 300 } else { 6_000 };
                let after = self.dice.between(50, most) * 1_000;
                self.after(after, Ev::Release(client, lease.lease));
            }
            Event::Lost { lease } => {
                self.runners[client].held.remove(&lease);
                self.count("client-lost");
            }
            Event::Ended { lease, .. } => {
                self.runners[client].held.remove(&lease);
                self.count("client-ended");
            }
            Event::Ending { lease, .. } => {
                self.count("client-ending");
                // Some finish in time, some do not care.
                if self.dice.one_in(2) {
                    let after = self.dice.between(10, 1_500) * 1_000;
                    self.after(after, Ev::Release(client, lease));
                }
            }
            Event::Offline { .. } => self.count("client-offline"),
            Event::Online { .. } => self.count("client-online"),
            Event::Superseded(_) => self.count("superseded"),
            Event::Closed(_) => {
                self.runners[client].held.clear();
                self.count("client-closed");
                if !self.over {
                    self.after(300_000, Ev::Reborn(client));
                }
            }
            _ => {}
        }
    }

    /// A new process where the client's session is over.
    pub(super) fn reborn(&mut self, client: usize) {
        let (now, brokers) = (self.now, self.here.count());
        let runner = &mut self.runners[client];
        if !runner.machine.is_closed() || self.over {
            return;
        }
        runner.life += 1;
        runner.machine = machine(client, runner.life, runner.ttl_ms, brokers, runner.clock(now));
        runner.next_request = 1;
        runner.asked.clear();
        runner.held.clear();
        runner.socket = None;
        self.client_outputs(client);
    }

    pub(super) fn acquire(&mut self, client: usize, mut claim: ClaimRequest) {
        let runner = &mut self.runners[client];
        if runner.machine.is_closed() || runner.frozen_until > self.now {
            return;
        }
        let request = runner.next_request;
        runner.next_request += 1;
        claim.request_id = Some(Id::Number(request));
        runner.asked.insert(request, claim.clone());
        self.client_input(client, Input::Acquire(request, Box::new(claim)));
    }

    pub(super) fn release(&mut self, client: usize, lease: u64) {
        let runner = &mut self.runners[client];
        if runner.frozen_until > self.now {
            let until = runner.frozen_until;
            self.at(until, Ev::Release(client, lease));
        } else if runner.held.remove(&lease).is_some() {
            self.client_input(client, Input::Release { lease, outcome: None, ticket: None });
        }
    }

    /// Exclusive in the world: nobody else believes that it may use what this one was just given.
    fn nobody_else_uses(&self, client: usize, lease: u64) -> Kept {
        if !self.runners[client].is_sane() || self.auditor.waived(LeaseId(lease)) {
            return Ok(());
        }
        self.runners[client].held[&lease].iter().try_for_each(|(name, _)| self.fits_in(name, lease))
    }

    /// Who believes that it may use the thing: client, lease, slots.
    pub(super) fn users(&self, name: &str) -> Vec<(usize, u64, u32)> {
        let mut users = self.keyed_users(name);
        for (client, runner) in self.runners.iter().enumerate().filter(|(_, runner)| runner.is_sane()) {
            for (lease, picks) in &runner.held {
                if !runner.believes(self.now, *lease) || self.auditor.waived(LeaseId(*lease)) {
                    continue;
                }
                let slots: u32 = picks.iter().filter(|(of, _)| of == name).map(|(_, slots)| slots).sum();
                if slots > 0 {
                    users.push((client, *lease, slots));
                }
            }
        }
        users
    }
}
