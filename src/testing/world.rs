//! The world: one queue of what happens when, and everything it happens to.
//!
//! True time is microseconds from the beginning; every clock is a function of it. What happens at
//! the same instant happens in the order in which it was put into the queue.

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use super::actions::KeyedUser;
use super::audit::{Auditor, Broken};
use super::brokers::Brokers;
use super::dice::{Dice, seed_jitter};
use super::network::Link;
use super::runner::Runner;
use super::script::{Point, Script, Timed};
use super::store::Store;
use super::workload::{self, FAULTS_MS};
use crate::client::machine::Input;
use crate::core::invariants::Witness;
use crate::core::tables::Batch;
use crate::engine::input::SocketId;
use crate::store::postgres::Seen;

/// How long the calm phase is, milliseconds: whoever waits has a return grace, a longer promise
/// and a ttl to wait for, and then a turn.
const CALM_MS: u64 = 60_000;
/// How long everybody then has to leave, milliseconds.
const LEAVE_MS: u64 = 3_000;
/// Steps that no run needs.
const STEPS_MAX: u64 = 400_000;

/// What can happen.
#[derive(Clone, Debug)]
pub(super) enum Ev {
    Act(usize),
    ToBroker(SocketId),
    ToClient(SocketId),
    Turn(u64),
    Written(u64),
    Known(u64),
    Reopened(u64),
    Ping(SocketId),
    Wake(usize, u64),
    Connected(usize, u64),
    Release(usize, u64),
    Reborn(usize),
    Keyed(usize, u64),
    Observe(u64),
    /// A read of the row, begun at this moment of its reader's clock: gets to the store, or back.
    Observed(u64, u64, Option<Seen>),
    Take(u64, u64, u64, u64),
    Lead(u64, u64),
    Looked(u64),
    LookedUp(u64),
    Late(u64, Rc<Batch>),
    Thaw(usize),
    Start(usize),
    Calm,
    Leave,
}

/// What a run wrote down, where it is asked to.
#[derive(Default)]
pub(super) struct Trace(Option<String>);

impl Trace {
    /// Formats nothing unless somebody reads it.
    pub(super) fn write_fmt(&mut self, what: fmt::Arguments<'_>) {
        if let Some(text) = &mut self.0 {
            let _: fmt::Result = fmt::Write::write_fmt(text, what);
        }
    }
}

/// What happened, by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Inputs delivered, timers fired and steps of commits.
    pub steps: u64,
    /// Faults and actions, as the script orders them and as they came about.
    pub happened: BTreeMap<&'static str, u64>,
    /// Durable events.
    pub events: BTreeMap<&'static str, u64>,
}

impl Stats {
    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        for (kind, times) in &other.happened {
            *self.happened.entry(kind).or_default() += times;
        }
        for (kind, times) in &other.events {
            *self.events.entry(kind).or_default() += times;
        }
    }
}

/// How long a claim waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Its number.
    pub claim: u64,
    /// From arrival to grant, milliseconds of lab time.
    pub actual_ms: u64,
}

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The promise that was broken, if one was.
    pub broken: Option<Broken>,
    /// What happened.
    pub stats: Stats,
    /// The waits of all claims that were granted after waiting.
    pub waits: Vec<Wait>,
    /// All of it in words, where asked for.
    pub trace: String,
}

/// Everything there is.
pub(super) struct World {
    pub now: u64,
    queue: BTreeMap<(u64, u64), Ev>,
    numbers: u64,
    pub dice: Dice,
    actions: Vec<Timed>,
    pub runners: Vec<Runner>,
    pub keyed: Vec<KeyedUser>,
    pub links: BTreeMap<SocketId, Link>,
    /// Connections of which one end is gone without the other's knowing: whether the client's is.
    pub deaf: BTreeMap<SocketId, bool>,
    pub sockets: SocketId,
    pub store: Store,
    pub here: Brokers,
    /// Grows with each start and end of a process, and each takeover.
    pub lives: u64,
    /// Who leads by the store, and until when those before it did.
    pub leader: Option<u64>,
    pub led_until: BTreeMap<u64, u64>,
    /// When what is not answered yet was read.
    pub asked: BTreeMap<(SocketId, u64), u64>,
    pub stalled_until: u64,
    pub wall_offset_ms: i64,
    pub fails: Option<(bool, u32)>,
    pub reopens: u32,
    pub pause_looking: Option<u64>,
    pub kill_at: Option<(Point, u64, bool)>,
    pub auditor: Auditor,
    pub witness: Witness,
    pub calm: bool,
    pub over: bool,
    pub foreign: u64,
    broken: Option<Broken>,
    stats: Stats,
    trace: Trace,
}

impl World {
    fn new(script: &Script, traced: bool) -> Self {
        seed_jitter(script.seed);
        let plans = workload::clients(script.seed).into_iter().enumerate();
        let runners = plans.map(|(nth, plan)| Runner::new(script.seed, nth, script.brokers, plan.ttl_ms, plan.ppm));
        let mut world = Self {
            now: 0,
            queue: BTreeMap::new(),
            numbers: 0,
            dice: Dice::new(script.seed, 3),
            actions: script.actions.clone(),
            runners: runners.collect(),
            keyed: (0..3).map(KeyedUser::new).collect(),
            links: BTreeMap::new(),
            deaf: BTreeMap::new(),
            sockets: 0,
            store: Store::default(),
            here: Brokers::new(script.seed, script.brokers),
            lives: 0,
            leader: None,
            led_until: BTreeMap::new(),
            asked: BTreeMap::new(),
            stalled_until: 0,
            wall_offset_ms: 0,
            fails: None,
            reopens: 0,
            pause_looking: None,
            kill_at: None,
            auditor: Auditor::default(),
            witness: Witness::default(),
            calm: false,
            over: false,
            foreign: 0,
            broken: None,
            stats: Stats::default(),
            trace: Trace(traced.then(String::new)),
        };
        for (nth, timed) in script.actions.iter().enumerate() {
            world.at(timed.at_ms * 1_000, Ev::Act(nth));
        }
        world.at(FAULTS_MS * 1_000, Ev::Calm);
        world.at((FAULTS_MS + CALM_MS) * 1_000, Ev::Leave);
        world
    }

    /// Puts something into the queue.
    pub(super) fn at(&mut self, when: u64, what: Ev) {
        self.numbers += 1;
        self.queue.insert((when.max(self.now), self.numbers), what);
    }

    pub(super) fn after(&mut self, us: u64, what: Ev) {
        self.at(self.now + us, what);
    }

    /// Where to write down what happens now.
    pub(super) fn note(&mut self) -> &mut Trace {
        let now = self.now;
        write!(self.trace, "{now} ");
        &mut self.trace
    }

    pub(super) fn count(&mut self, kind: &'static str) {
        *self.stats.happened.entry(kind).or_default() += 1;
    }

    /// Notes the first promise that is broken; what follows from it proves nothing.
    pub(super) fn judge<T>(&mut self, kept: Result<T, Broken>) -> Option<T> {
        match kept {
            Ok(value) => Some(value),
            Err(broken) => {
                self.broken.get_or_insert(broken);
                None
            }
        }
    }

    fn go(&mut self) {
        for nth in 0..self.here.count() {
            self.here.me = nth;
            self.start();
        }
        if !self.here.are_several() {
            self.inventory(0);
        }
        for client in 0..self.runners.len() {
            self.client_outputs(client);
        }
        while let Some(((when, _), event)) = self.queue.pop_first() {
            self.now = when;
            if self.broken.is_some() || when > (FAULTS_MS + CALM_MS + LEAVE_MS) * 1_000 {
                break;
            }
            self.stats.steps += 1;
            if self.stats.steps > STEPS_MAX {
                self.judge::<()>(Err(Broken { promise: "bounded", how: "the run takes no end".to_owned() }));
            }
            writeln!(self.note(), "{event:?}");
            self.happens(event);
        }
    }

    fn happens(&mut self, event: Ev) {
        let Some(broker) = self.broker_of(&event) else {
            return self.happens_outside(event);
        };
        if !self.here.enter(broker) {
            return; // It is not what it was.
        }
        // A paused process does nothing until it goes on; what it sent gets to the store all the same.
        let at_store = matches!(event, Ev::Written(_) | Ev::Looked(_) | Ev::Take(..) | Ev::Observed(_, _, None));
        if !at_store && self.here.frozen_until > self.now {
            // Of what waited for it the process takes up first whatever it comes upon.
            let late = if self.here.are_several() { self.dice.roll(2_000) } else { 0 };
            self.at(self.here.frozen_until + late, event);
            return;
        }
        match event {
            Ev::Turn(_) => self.turn(),
            Ev::Written(_) => self.written(),
            Ev::Known(_) => self.known(),
            Ev::Reopened(_) => self.reopened(),
            Ev::Ping(socket) => self.ping(socket),
            Ev::Observe(_) => self.observe(),
            Ev::Observed(_, before_ms, seen) => self.observed(before_ms, seen),
            Ev::Take(_, sent_ms, epoch, beat) => self.take(sent_ms, epoch, beat),
            Ev::Lead(_, sent_ms) => self.lead(Some(sent_ms)),
            Ev::Looked(_) => self.looked(),
            Ev::LookedUp(_) => self.looked_up(),
            other => self.happens_outside(other),
        }
    }

    /// The life of the broker that this happens to.
    fn broker_of(&self, event: &Ev) -> Option<u64> {
        match event {
            Ev::Turn(life) | Ev::Written(life) | Ev::Known(life) | Ev::Reopened(life) => Some(*life),
            Ev::Observe(life) | Ev::Observed(life, ..) | Ev::Take(life, ..) | Ev::Lead(life, _) => Some(*life),
            Ev::Looked(life) | Ev::LookedUp(life) => Some(*life),
            Ev::Ping(socket) => Some(self.links.get(socket).map_or(0, |link| link.life)),
            _ => None,
        }
    }

    fn happens_outside(&mut self, event: Ev) {
        match event {
            Ev::Act(nth) => self.act(self.actions[nth].action.clone()),
            Ev::ToBroker(socket) => self.arrives_at_broker(socket),
            Ev::ToClient(socket) => self.arrives_at_client(socket),
            Ev::Wake(client, wake) => self.wake_client(client, wake),
            Ev::Connected(client, attempt) => self.connected(client, attempt),
            Ev::Release(client, lease) => self.release(client, lease),
            Ev::Reborn(client) => self.reborn(client),
            Ev::Keyed(user, turn) => self.keyed_turn(user, turn),
            Ev::Late(epoch, batch) => self.late(epoch, &batch),
            Ev::Thaw(nth) => {
                self.here.me = nth;
                if self.here.frozen_until <= self.now {
                    self.thaw();
                }
            }
            Ev::Start(nth) => {
                self.here.me = nth;
                self.start();
            }
            Ev::Calm => self.calm(),
            Ev::Leave => self.leave(),
            _ => {}
        }
    }

    /// Faults cease: everything that can be put right is, and nobody holds for long.
    fn calm(&mut self) {
        self.calm = true;
        for nth in 0..self.here.count() {
            self.here.me = nth;
            self.thaw();
            self.here.cut_off_until = self.now;
        }
        self.stalled_until = self.now;
        self.fails = None;
        self.kill_at = None;
        self.pause_looking = None;
        for runner in &mut self.runners {
            runner.frozen_until = self.now;
            runner.slow_until = self.now;
            runner.cut_off_until = self.now;
        }
        for client in 0..self.runners.len() {
            for lease in self.runners[client].held.keys().copied().collect::<Vec<_>>() {
                self.after(200_000, Ev::Release(client, lease));
            }
            self.arm_client(client);
        }
        self.restore();
    }

    /// Whoever could be granted has been by now; everybody leaves.
    fn leave(&mut self) {
        let kept = self.auditor.nobody_waits();
        self.judge(kept);
        self.over = true;
        for client in 0..self.runners.len() {
            self.client_input(client, Input::Close { ticket: 1 });
        }
    }
}

/// Carries a script out. `traced` writes everything down, which takes long.
#[must_use]
pub fn run(script: &Script, traced: bool) -> Outcome {
    let mut world = World::new(script, traced);
    world.go();
    let waits = world.auditor.waited.iter().map(|(claim, actual_ms)| Wait { claim: claim.0, actual_ms: *actual_ms });
    Outcome {
        broken: world.broken,
        stats: Stats { events: world.auditor.seen.clone(), ..world.stats },
        waits: waits.collect(),
        trace: world.trace.0.unwrap_or_default(),
    }
}
