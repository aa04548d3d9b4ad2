//! Commands on the core, chosen by bytes: a small lab, a few sessions, and everything that can be
//! asked of them in any order, at any time, with a new process now and then.
//!
//! After each command the books keep every promise that has a check, a witness who saw only the
//! events has the same books, and settling again makes nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use super::bytes::Bytes;
use crate::core::apply::Declared;
use crate::core::broker::Broker;
use crate::core::claim::{ClaimSpec, Retry};
use crate::core::command::{Claimant, Command, MarkAct, TtlAsk};
use crate::core::event::Event;
use crate::core::invariants::{self, Witness};
use crate::core::lease::Outcome;
use crate::core::limits::{Limits, SPAN_MS_MAX};
use crate::core::need::{Need, check_needs};
use crate::core::session::{Provider, SecretHash, SessionEnd, SessionKind};
use crate::core::tables::Tables;
use crate::core::types::{ClaimId, Key, LabTime, LeaseId, Owner, ProviderName, ResourceName, SessionId};
use crate::inventory::file;

/// Commands of one input: the books are looked at whole after each.
const COMMANDS_MAX: usize = 80;

/// The lab, another version of it, and what is left after most of it went.
static LABS: LazyLock<[Arc<Declared>; 3]> = LazyLock::new(|| {
    let read = |text: &str| Arc::new(file::read(text, "lab.toml").expect("a lab"));
    let lab = r#"
        [[pool]]
        name = "phone"
        max_per_owner = 3
        cooldown = "2s"
        [[pool]]
        name = "flat"
        on_drop = "immediate"
        max_hold = "1m"
        ttl = "5s"
        max_waiting_per_owner = 2
        max_priority = 3
        [[resource]]
        name = "p{1..3}"
        pool = "phone"
        labels = { os = "android", site = "a", api = 34 }
        [[resource]]
        name = "i{1..2}"
        pool = "phone"
        labels = { os = "ios", site = "b" }
        [[resource]]
        name = "b{1..3}"
        pool = "board"
        labels = { site = "a", rack = "{1..3}" }
        [[resource]]
        name = "b4"
        pool = "board"
        labels = { site = "b", rack = 1 }
        [[resource]]
        name = "s1"
        pool = "seat"
        slots = 3
        [[resource]]
        name = "s2"
        pool = "seat"
        slots = 2
        [[resource]]
        name = "f1"
        pool = "flat"
    "#;
    let other = lab.replace("slots = 3", "slots = 1").replace("\"ios\"", "\"android\"").replace("b4", "b5");
    let few =
        "[[resource]]\nname = \"p1\"\npool = \"board\"\n[[resource]]\nname = \"p9\"\nwas = \"p2\"\npool = \"phone\"";
    [read(lab), read(&other), read(few)]
});

/// Words of needs; one to three make a claim.
const NEEDS: &[&str] = &[
    "phone",
    "2:phone",
    "phone,os=android",
    "phone where os == 'ios' || api > 30",
    "y=phone,os!=ios",
    "board",
    "2:board",
    "3:board",
    "y=board,rack=1",
    "seat",
    "seat/2",
    "seat/all",
    "2:seat/1",
    "y=seat/3",
    "all:phone",
    "all:board",
    "all:seat/2",
    "flat",
    "gone",
    "16:phone",
];
const NAMES: &[&str] = &["p1", "p2", "p3", "i1", "b1", "b4", "b5", "s1", "f1", "p9", "nobody"];
const SPANS_MS: &[u64] = &[0, 1, 999, 1_000, 5_000, 15_000, 60_000, 300_000, 3_600_000, SPAN_MS_MAX];

/// Runs the commands that the bytes say. True where anything was granted.
pub fn commands(input: &[u8]) -> bool {
    let mut play = Play::new(Bytes::new(input));
    for _ in 0..COMMANDS_MAX {
        if play.bytes.is_empty() {
            break;
        }
        play.step();
    }
    play.has_granted
}

struct Play<'a> {
    bytes: Bytes<'a>,
    broker: Broker,
    witness: Witness,
    limits: Limits,
    now: LabTime,
    has_granted: bool,
}

impl<'a> Play<'a> {
    fn new(bytes: Bytes<'a>) -> Self {
        let limits = Limits { sessions_max: 6, claims_per_session_max: 6, leases_per_session_max: 4 };
        let broker = Broker::new(&Tables::default(), limits.clone()).expect("an empty store");
        let mut play = Self { bytes, broker, witness: Witness::default(), limits, now: LabTime(0), has_granted: false };
        let declared = Arc::clone(&LABS[0]);
        play.decide(Command::Start);
        play.decide(Command::ReturnGraceOver);
        play.decide(Command::Apply { declared, prune: true, confirmed: true, dry_run: false });
        (0..2).for_each(|_| play.open());
        play
    }

    fn decide(&mut self, command: Command) {
        let shown = format!("{command:?} at {}", self.now.0);
        self.taken(command, &shown);
        let held = invariants::check(&self.broker).and_then(|()| self.witness.agrees(self.broker.state()));
        if let Err(broken) = held {
            panic!("{broken}\nafter {shown}");
        }
        if self.broker.next_deadline().is_none_or(|due| due > self.now) {
            let more = self.taken(Command::Tick, &shown);
            assert!(more.is_empty(), "settled after {shown}, and then {more:?}");
        }
    }

    fn taken(&mut self, command: Command, shown: &str) -> Vec<Event> {
        self.broker.decide(self.now, command);
        let (events, _) = self.broker.take_batch();
        for event in &events {
            if let Err(broken) = self.witness.see(self.now, event) {
                panic!("{broken}\nat {event:?}\nof {shown}");
            }
            self.has_granted |= matches!(event, Event::LeaseGranted { .. });
        }
        events
    }

    fn open(&mut self) {
        let called: Arc<str> = format!("s{}", self.broker.state().lab.last_session + 1).into();
        let ttl = match self.bytes.byte() % 3 {
            0 => TtlAsk::Exactly(10_000),
            1 => TtlAsk::Pools(vec![key("flat"), key("gone")]),
            _ => TtlAsk::Exactly(600_000),
        };
        let kind = SessionKind::Socket { instance: called.clone() };
        let owner = self.owner();
        self.decide(Command::OpenSession { owner, ttl, secret: SecretHash(called), kind });
        self.decide(Command::SessionUp(SessionId(self.broker.state().lab.last_session)));
    }

    fn step(&mut self) {
        if self.bytes.flag() {
            self.now = self.now.plus(self.bytes.of(SPANS_MS));
        }
        let command = match self.bytes.byte() % 16 {
            0..=4 => Command::Acquire { session: self.session(), request: self.bytes.number() % 40, spec: self.spec() },
            5 | 6 => self.of_leases(),
            7 | 8 => self.of_sessions(),
            9 => Command::Cancel { session: self.session(), request: self.bytes.number() % 40 },
            10 => Command::CancelClaim { claim: ClaimId(self.bytes.number() % 40), claimant: self.claimant() },
            11 => self.of_keyed(),
            12 | 13 => self.of_inventory(),
            14 => self.of_process(),
            _ => return self.open(),
        };
        self.decide(command);
    }

    fn of_leases(&mut self) -> Command {
        let lease = self.lease();
        match self.bytes.byte() % 8 {
            0..=2 => {
                let outcome =
                    self.bytes.of(&[None, Some(Outcome::Passed), Some(Outcome::Failed), Some(Outcome::Infra)]);
                Command::Release { lease, claimant: self.claimant(), outcome }
            }
            3 => {
                let until = self.now.plus(self.bytes.of(SPANS_MS));
                Command::Extend { lease, claimant: self.claimant(), until }
            }
            4 => Command::Revoke { lease, by: "root".into(), reason: None, forced: self.bytes.flag() },
            5 | 6 => Command::EndingOver(lease),
            _ => Command::SecretUnavailable { lease, resource: self.name(), reason: "no file".into() },
        }
    }

    fn of_sessions(&mut self) -> Command {
        let session = self.session();
        match self.bytes.byte() % 8 {
            0 | 1 => Command::SessionUp(session),
            2 | 3 => Command::SessionDown(session),
            4 => Command::SessionCutOff(session),
            5 => {
                let end = if self.bytes.flag() { SessionEnd::Closed } else { SessionEnd::Expired };
                Command::EndSession { session, end }
            }
            6 => Command::Kick { session, by: "root".into() },
            _ => Command::Promise { session, promise_ms: self.bytes.of(&[None, Some(900_000), Some(3_600_000)]) },
        }
    }

    fn of_keyed(&mut self) -> Command {
        Command::AcquireKeyed {
            key: SecretHash(format!("k{}", self.bytes.byte() % 4).into()),
            request_id: self.bytes.of(&["r", "q"]).into(),
            owner: self.owner(),
            ttl_ms: 10_000,
            spec: self.spec(),
        }
    }

    fn of_inventory(&mut self) -> Command {
        let resource = self.name();
        match self.bytes.byte() % 8 {
            0..=2 => {
                let act = [MarkAct::Drain, MarkAct::Undrain, MarkAct::Quarantine, MarkAct::Restore];
                Command::Mark { resource, act: self.bytes.of(&act), reason: "so".into(), by: "root".into() }
            }
            3 if self.bytes.flag() => self.provide(),
            3 => Command::RemoveResource(resource),
            4 => {
                let lab = &LABS[self.bytes.of(&[0, 1, 2])].resources;
                let mut spec = lab[usize::from(self.bytes.byte()) % lab.len()].spec.clone();
                if self.bytes.flag() {
                    spec.name = resource;
                }
                Command::SetResource(Arc::new(spec))
            }
            _ => {
                let declared = Arc::clone(&LABS[self.bytes.of(&[0, 1, 2])]);
                let (prune, confirmed, dry_run) = (self.bytes.flag(), self.bytes.flag(), self.bytes.flag());
                Command::Apply { declared, prune, confirmed, dry_run }
            }
        }
    }

    fn provide(&mut self) -> Command {
        let lab = &LABS[self.bytes.of(&[0, 1, 2])].resources;
        let (from, count) = (usize::from(self.bytes.byte()), usize::from(self.bytes.byte() % 4));
        let mut resources: Vec<_> = lab.iter().cycle().skip(from % lab.len()).take(count).cloned().collect();
        if self.bytes.flag() {
            for (resource, name) in resources.iter_mut().zip(["v1", "v2", "v3"]) {
                (resource.spec.name, resource.was) = (ResourceName::parse(name).expect("a name"), None);
            }
        }
        let name = ProviderName::parse(self.bytes.of(&["rig", "rig", "bench"])).expect("a name");
        let key = SecretHash(self.bytes.of(&["one", "one", "two"]).into());
        let provider = Provider { name, key, address: "here".into() };
        let declared = Arc::new(Declared { pools: Vec::new(), resources });
        Command::Provide { session: self.session(), provider, declared, confirmed: self.bytes.flag() }
    }

    /// What the engine finds out, and a new process over the same books.
    fn of_process(&mut self) -> Command {
        match self.bytes.byte() % 8 {
            0 | 1 => Command::StoreWorks(false),
            2 | 3 => Command::StoreWorks(true),
            4 => Command::ReturnGraceOver,
            5 => Command::StopGranting,
            6 => Command::Tick,
            _ => {
                let tables = self.broker.state().tables();
                self.broker = Broker::new(&tables, self.limits.clone()).expect("its own tables");
                Command::Start
            }
        }
    }

    fn spec(&mut self) -> Arc<ClaimSpec> {
        let count = 1 + self.bytes.byte() % 3;
        let texts: Vec<&str> = (0..count).map(|_| self.bytes.of(NEEDS)).collect();
        let mut needs: Vec<Need> = texts.iter().map(|text| Need::parse(text).expect("a need")).collect();
        let keys = [None, None, Some("site"), Some("rack")];
        let (mut same, mut distinct) = (self.bytes.of(&keys).map(key), self.bytes.of(&keys).map(key));
        // Whoever gives a command has checked its form.
        if check_needs(&needs, same.as_ref(), distinct.as_ref()).is_err() {
            needs.truncate(1);
            (same, distinct) = (None, None);
        }
        let how = self.bytes.byte();
        let retry = (how & 4 != 0).then(|| Retry { work: "w".into(), attempt: self.bytes.number() % 9 });
        Arc::new(ClaimSpec {
            needs,
            same,
            distinct,
            priority: self.bytes.of(&[0, 0, 1, -10, 10]),
            wait_ms: self.bytes.of(&[None, None, Some(0), Some(20_000), Some(SPAN_MS_MAX)]),
            hold_ms: self.bytes.of(&[None, None, Some(1_000), Some(15_000), Some(SPAN_MS_MAX)]),
            note: None,
            tags: BTreeMap::new(),
            fail_fast: how & 1 != 0,
            wait_for_inventory: how & 2 != 0,
            outer: (how & 8 != 0).then(|| self.lease()),
            retry,
        })
    }

    /// One with a socket, or one that never was: nobody acts for a keyed session but by its key.
    fn session(&mut self) -> SessionId {
        let at = self.bytes.byte();
        let sessions = self.broker.state().sessions.values();
        let sockets: Vec<SessionId> = sessions
            .filter(|session| matches!(session.kind, SessionKind::Socket { .. }))
            .map(|session| session.id)
            .collect();
        let there = sockets.get(usize::from(at >> 2) % sockets.len().max(1)).filter(|_| at & 3 != 0);
        there.copied().unwrap_or(SessionId(1_000_000))
    }

    /// One that is there, or any.
    fn lease(&mut self) -> LeaseId {
        let at = self.bytes.byte();
        let leases = &self.broker.state().leases;
        let there = leases.keys().nth(usize::from(at >> 2) % leases.len().max(1)).filter(|_| at & 3 != 0);
        there.map_or_else(|| LeaseId(u64::from(at >> 2)), |lease| *lease)
    }

    fn claimant(&mut self) -> Claimant {
        match self.bytes.byte() % 4 {
            0 | 1 => Claimant { admin: true, name: "root".into(), ..Claimant::default() },
            2 => Claimant { session: Some(self.session()), name: "ann".into(), ..Claimant::default() },
            _ => Claimant { key: Some(SecretHash("k1".into())), name: "key".into(), ..Claimant::default() },
        }
    }

    fn owner(&mut self) -> Owner {
        Owner { name: self.bytes.of(&["ann", "bob"]).into(), verified: false }
    }

    fn name(&mut self) -> ResourceName {
        ResourceName::parse(self.bytes.of(NAMES)).expect("a name")
    }
}

fn key(text: &str) -> Key {
    Key::parse(text, "key").expect("a key")
}
