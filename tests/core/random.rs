//! Made-up tables: short random sequences of commands over a small lab, from fixed seeds.
//!
//! After each command every invariant holds, settling again makes nothing, and the events replay
//! to the same books (`world.rs`). At the end everybody releases until nobody waits who could
//! have what it asks: nobody starves.

use std::collections::BTreeMap;
use std::sync::Arc;

use leasehold::core::apply::Declared;
use leasehold::core::claim::{ClaimSpec, Retry};
use leasehold::core::command::{Claimant, Command, MarkAct, Reply, TtlAsk};
use leasehold::core::event::Event;
use leasehold::core::invariants::Witness;
use leasehold::core::inventory::OnDrop;
use leasehold::core::limits::Limits;
use leasehold::core::session::{Provider, SecretHash, SessionEnd, SessionKind};
use leasehold::core::types::{ClaimId, LabTime, LeaseId, ProviderName, SessionId};

use crate::world::{World, claim, key, name, owner, pool, resource};

/// Sequences, and commands in each.
const SEQUENCES: u64 = 300;
const COMMANDS: usize = 40;

/// A small generator of our own: the same tables on every machine, for ever.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % sides
    }

    fn one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }

    fn of<'a, T>(&mut self, choice: &'a [T]) -> Option<&'a T> {
        let sides = u64::try_from(choice.len()).expect("few").max(1);
        choice.get(usize::try_from(self.roll(sides)).expect("few"))
    }
}

const RESOURCES: &[&str] = &[
    "phone p1 os=android site=a",
    "phone p2 os=android site=b",
    "phone p3 os=ios site=b",
    "board b1 site=a rack=1",
    "board b2 site=a rack=2",
    "board b3 site=b rack=1",
    "seat s1*3",
    "seat s2*2",
    "flat f1",
];

const NEEDS: &[&str] = &[
    "phone",
    "2:phone",
    "phone,os=android",
    "phone where os == 'ios'",
    "board",
    "2:board",
    "phone + board",
    "x=board + y=board",
    "x=phone,os=android + y=phone",
    "seat/2",
    "seat/all",
    "2:seat/1",
    "x=seat/2 + y=seat/2",
    "all:phone",
    "all:board",
    "all:seat/2",
    "flat",
    "flat + phone",
    "flat + board",
    "flat + seat/2",
    "phone + seat/3",
    "rig",
    "2:rig",
    "gone",
];

fn spec(dice: &mut Dice, leases: &[LeaseId]) -> ClaimSpec {
    let mut spec = claim(dice.of(NEEDS).expect("needs"));
    let sited = spec.needs.iter().all(|need| matches!(need.pool.as_str(), "phone" | "board"));
    let boards = spec.needs.iter().all(|need| need.pool.as_str() == "board");
    if sited && dice.one_in(3) {
        spec.same = Some(key("site"));
    }
    if boards && dice.one_in(3) {
        spec.distinct = Some(key("rack"));
    } else if sited && spec.same.is_none() && dice.one_in(4) {
        spec.distinct = Some(key("site"));
    }
    spec.priority = if dice.one_in(4) { 1 } else { 0 };
    spec.wait_ms = dice.of(&[None, None, None, Some(0), Some(20_000)]).copied().flatten();
    spec.hold_ms = dice.of(&[None, None, Some(15_000)]).copied().flatten();
    spec.wait_for_inventory = dice.one_in(3);
    spec.fail_fast = dice.one_in(8);
    if dice.one_in(4) {
        spec.retry = Some(Retry { work: "w".into(), attempt: dice.roll(9) });
    }
    spec.outer = if dice.one_in(4) { dice.of(leases).copied() } else { None };
    spec
}

fn declared(dice: &mut Dice) -> Declared {
    let mut declared = Declared::default();
    declared.pools.push(pool("flat on_drop=immediate"));
    declared.pools.push(pool(if dice.one_in(2) {
        "phone max_per_owner=3 cooldown=3s"
    } else {
        "phone max_waiting_per_owner=2"
    }));
    for text in RESOURCES {
        if dice.one_in(8) {
            continue;
        }
        let mut spec = resource(text);
        if spec.slots > 1 && dice.one_in(3) {
            spec.slots -= 1;
        }
        if dice.one_in(10) {
            spec.labels.insert(key("site"), leasehold::core::types::Value::Text("b".into()));
        }
        if dice.one_in(15) && spec.pool.as_str() != "flat" {
            spec.pool = key("phone");
        }
        declared.resources.push(leasehold::core::apply::DeclaredResource { spec, was: None });
    }
    declared
}

struct Play {
    world: World,
    dice: Dice,
    request: u64,
}

impl Play {
    fn new(seed: u64) -> Self {
        let mut world = World::new(Limits::default());
        let resources =
            RESOURCES.iter().map(|text| leasehold::core::apply::DeclaredResource { spec: resource(text), was: None });
        let pools = vec![pool("flat on_drop=immediate"), pool("phone max_per_owner=3 cooldown=2s")];
        assert_eq!(pools[0].on_drop, OnDrop::Immediate);
        let declared = Arc::new(Declared { pools, resources: resources.collect() });
        world.decide(Command::Apply { declared, prune: false, confirmed: true, dry_run: false });
        let mut play = Self { world, dice: Dice(seed), request: 0 };
        (0..3).for_each(|_| play.open());
        play
    }

    fn open(&mut self) {
        let called: Arc<str> = format!("s{}", self.world.broker.state().lab.last_session + 1).into();
        let kind = SessionKind::Socket { instance: called.clone() };
        let ttl = TtlAsk::Exactly(10_000);
        let (secret, owner) = (SecretHash(called), owner(if self.dice.one_in(2) { "ann" } else { "bob" }));
        let (reply, _) = self.world.decide(Command::OpenSession { owner, ttl, secret, kind });
        let Reply::Opened { session, .. } = reply else { panic!("{reply:?}") };
        self.world.decide(Command::SessionUp(session));
    }

    fn sessions(&self) -> Vec<SessionId> {
        let sessions = self.world.broker.state().sessions.values();
        let sockets = sessions.filter(|session| matches!(session.kind, SessionKind::Socket { .. }));
        sockets.map(|session| session.id).collect()
    }

    fn leases(&self) -> Vec<LeaseId> {
        self.world.broker.state().leases.keys().copied().collect()
    }

    fn step(&mut self) {
        self.world.now = LabTime(self.world.now.0 + self.dice.roll(5_000));
        let (sessions, leases) = (self.sessions(), self.leases());
        let session = self.dice.of(&sessions).copied();
        let lease = self.dice.of(&leases).copied();
        let command = match (self.dice.roll(42), session, lease) {
            (0..=12, Some(session), _) => self.acquire(session, &leases),
            (13, _, _) => Command::AcquireKeyed {
                key: SecretHash(format!("k{}", self.dice.roll(6)).into()),
                request_id: "r".into(),
                owner: owner("ann"),
                ttl_ms: 10_000,
                spec: Arc::new(spec(&mut self.dice, &leases)),
            },
            (14..=19, _, Some(lease)) => self.release(lease),
            (20, _, Some(lease)) => self.revoke(lease),
            (21, _, Some(lease)) => Command::EndingOver(lease),
            (22, _, Some(lease)) => {
                let until = LabTime(self.world.now.0 + self.dice.roll(30_000));
                Command::Extend { lease, claimant: admin(), until }
            }
            (23, Some(session), _) => Command::Cancel { session, request: self.dice.roll(self.request + 2) },
            (24 | 25, Some(session), _) => Command::SessionDown(session),
            (26 | 27, Some(session), _) => Command::SessionUp(session),
            (28, Some(session), _) if self.dice.one_in(2) => Command::EndSession { session, end: SessionEnd::Expired },
            (29, Some(session), _) if self.dice.one_in(2) => Command::Kick { session, by: "root".into() },
            (30..=33, _, _) => self.mark(),
            (34 | 35, _, _) => {
                let declared = Arc::new(declared(&mut self.dice));
                Command::Apply { declared, prune: true, confirmed: true, dry_run: false }
            }
            (36, _, _) => Command::StoreWorks(self.dice.one_in(2)),
            (37, _, _) => {
                self.world.restart();
                Command::Tick
            }
            (38, _, _) if self.dice.one_in(6) => {
                self.world.move_away();
                self.open();
                Command::Tick
            }
            (38, _, _) => Command::ReturnGraceOver,
            (40 | 41, Some(session), _) => self.provide(session),
            _ => return self.open(),
        };
        self.world.decide(command);
    }

    fn acquire(&mut self, session: SessionId, leases: &[LeaseId]) -> Command {
        self.request += 1;
        // Sometimes the same again, or another body under a used number.
        let request = if self.dice.one_in(8) { self.dice.roll(self.request) } else { self.request };
        Command::Acquire { session, request, spec: Arc::new(spec(&mut self.dice, leases)) }
    }

    /// One of two rigs, by one of two keys.
    fn provide(&mut self, session: SessionId) -> Command {
        let name = if self.dice.one_in(2) { "rig" } else { "bench" };
        let key = if self.dice.one_in(4) { "two" } else { "one" };
        let provider = Provider {
            name: ProviderName::parse(name).expect("a name"),
            key: SecretHash(key.into()),
            address: "here".into(),
        };
        let mut declared = Declared::default();
        for text in ["phone v1 os=android site=a", "board v2 site=b rack=2", "seat v3*2", "rig v4"] {
            if self.dice.one_in(4) {
                continue;
            }
            let mut spec = resource(text);
            if !self.dice.one_in(8) {
                spec.name = crate::world::name(&format!("{name}-{}", spec.name));
            }
            declared.resources.push(leasehold::core::apply::DeclaredResource { spec, was: None });
        }
        Command::Provide { session, provider, declared: Arc::new(declared), confirmed: !self.dice.one_in(3) }
    }

    fn release(&mut self, lease: LeaseId) -> Command {
        Command::Release { lease, claimant: admin(), outcome: None }
    }

    fn revoke(&mut self, lease: LeaseId) -> Command {
        Command::Revoke { lease, by: "root".into(), reason: None, forced: self.dice.one_in(3) }
    }

    fn mark(&mut self) -> Command {
        let text = self.dice.of(RESOURCES).expect("resources");
        let (mut chosen, state) = (resource(text).name, self.world.broker.state());
        let marked = state.resources.values().find(|resource| !resource.marks.is_clear());
        let (act, undo) = match self.dice.roll(2) {
            0 => (MarkAct::Drain, MarkAct::Undrain),
            _ => (MarkAct::Quarantine, MarkAct::Restore),
        };
        let act = match marked.filter(|_| self.dice.one_in(2)) {
            Some(resource) => {
                chosen = resource.spec.name.clone();
                undo
            }
            None => act,
        };
        Command::Mark { resource: chosen, act, reason: "so".into(), by: "root".into() }
    }

    /// Whoever holds something gives it back, over and over: then nobody is left who can be granted.
    fn nobody_starves(&mut self) {
        self.world.decide(Command::StoreWorks(true));
        for session in self.sessions() {
            self.world.decide(Command::SessionUp(session));
        }
        self.world.decide(Command::ReturnGraceOver);
        let waiting = self.world.broker.state().claims.len();
        // What a store that moved keeps for its clients comes back within a ttl.
        for _ in 0..waiting + 5 {
            for lease in self.leases() {
                let release = self.release(lease);
                self.world.decide(release);
            }
            // What was given back cools first.
            self.world.now = self.world.now.plus(3_000);
            self.world.decide(Command::Tick);
        }
        let state = self.world.broker.state();
        let stuck: Vec<ClaimId> =
            state.claims.values().filter(|claim| claim.blocked.is_none()).map(|claim| claim.id).collect();
        assert!(state.leases.is_empty() && stuck.is_empty(), "{stuck:?} wait for ever");
    }
}

/// Replays what happened with one event left out, as a damaged journal would tell it: whether that
/// is found. It may never be more than found.
fn is_found_out(history: &[(LabTime, Event)], left_out: usize) -> bool {
    let mut witness = Witness::default();
    let mut rest = history.iter().enumerate().filter(|(index, _)| *index != left_out);
    let told = rest.try_for_each(|(_, (at, event))| {
        witness.fits(*at, event)?;
        witness.see(*at, event)
    });
    told.is_err()
}

fn admin() -> Claimant {
    Claimant { admin: true, name: "root".into(), ..Claimant::default() }
}

#[test]
fn whatever_is_asked_the_promises_hold() {
    assert_eq!(name("p1"), resource(RESOURCES[0]).name);
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for seed in 0..SEQUENCES {
        let played = std::panic::catch_unwind(|| {
            let mut play = Play::new(seed);
            (0..COMMANDS).for_each(|_| play.step());
            play.nobody_starves();
            play.world.history
        });
        let history = played.unwrap_or_else(|_| panic!("seed {seed}"));
        let left_out = Dice(seed).roll(history.len() as u64);
        let left_out = usize::try_from(left_out).expect("few");
        let found = std::panic::catch_unwind(|| is_found_out(&history, left_out));
        let found = found.unwrap_or_else(|_| panic!("seed {seed} without event {left_out}"));
        *seen.entry(if found { "a gap found" } else { "a gap not found" }).or_default() += 1;
        for (_, event) in history {
            *seen.entry(event.kind()).or_default() += 1;
        }
    }
    // A table that never gets there proves nothing.
    for kind in [
        "lease_granted",
        "claim_queued",
        "claim_pinned",
        "claim_blocked",
        "claim_ended",
        "picks_freed",
        "resource_cooled",
        "arrival_noted",
        "store_moved",
        "provider_attached",
        "resource_offline",
        "resource_online",
        "a gap found",
    ] {
        assert!(seen.get(kind).is_some_and(|times| *times > 5), "{kind} is rare: {seen:?}");
    }
}
