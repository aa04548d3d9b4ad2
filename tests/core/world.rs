//! A broker under watch: every command it decides is checked, recorded and replayed.
//!
//! Owns no rules of its own: it is what a test drives, and it fails the test as soon as an
//! invariant does.

use std::collections::BTreeMap;
use std::sync::Arc;

use leasehold::core::broker::Broker;
use leasehold::core::claim::ClaimSpec;
use leasehold::core::command::{Command, Reply};
use leasehold::core::event::Event;
use leasehold::core::invariants::{self, Witness};
use leasehold::core::inventory::{OnDrop, Pool, ResourceSpec};
use leasehold::core::limits::Limits;
use leasehold::core::need::Need;
use leasehold::core::tables::Tables;
use leasehold::core::types::{Key, LabTime, Owner, ResourceName, Value};

/// A broker, the witness of its events, and all of them.
pub struct World {
    pub broker: Broker,
    pub now: LabTime,
    pub history: Vec<(LabTime, Event)>,
    witness: Witness,
    limits: Limits,
}

impl World {
    pub fn new(limits: Limits) -> Self {
        let broker = Broker::new(&Tables::default(), limits.clone()).expect("an empty store");
        let mut world = Self { broker, now: LabTime(0), history: Vec::new(), witness: Witness::default(), limits };
        world.decide(Command::Start);
        world.decide(Command::ReturnGraceOver);
        world
    }

    /// Decides a command; answers what it replied and the events it made. Then nothing is left to
    /// do, and every invariant holds.
    pub fn decide(&mut self, command: Command) -> (Reply, Vec<Event>) {
        let shown = format!("{command:?}");
        let (reply, events) = self.step(command);
        self.check(&shown);
        if self.broker.next_deadline().is_none_or(|due| due > self.now) {
            let (_, more) = self.step(Command::Tick);
            assert!(more.is_empty(), "settled after {shown}, and then {more:?}");
        }
        (reply, events)
    }

    /// Decides a command; only the witness looks.
    pub fn unchecked(&mut self, command: Command) {
        self.step(command);
    }

    fn step(&mut self, command: Command) -> (Reply, Vec<Event>) {
        let reply = self.broker.decide(self.now, command);
        let (events, _) = self.broker.take_batch();
        for event in &events {
            if let Err(odd) = self.witness.fits(self.now, event) {
                panic!("what was just decided does not fit: {odd}\nat {event:?}\nafter {:#?}", self.history);
            }
            if let Err(broken) = self.witness.see(self.now, event) {
                panic!("{broken}\nat {event:?}\nafter {:#?}", self.history);
            }
            self.history.push((self.now, event.clone()));
        }
        (reply, events)
    }

    pub fn check(&self, after: &str) {
        let held = invariants::check(&self.broker).and_then(|()| self.witness.agrees(self.broker.state()));
        if let Err(broken) = held {
            panic!("{broken}\nafter {after}");
        }
    }

    /// A new process takes the books over.
    pub fn restart(&mut self) -> Vec<Event> {
        let tables = self.broker.state().tables();
        self.broker = Broker::new(&tables, self.limits.clone()).expect("its own tables");
        self.decide(Command::Start).1
    }

    /// The books are copied, and the copy is put into use.
    pub fn move_away(&mut self) -> Vec<Event> {
        let tables = self.broker.state().tables();
        self.broker = Broker::new(&tables, self.limits.clone()).expect("its own tables");
        self.decide(Command::Move { from: "elsewhere".into(), last_lease: 0 }).1
    }
}

pub fn key(text: &str) -> Key {
    Key::parse(text, "key").expect("a key")
}

pub fn name(text: &str) -> ResourceName {
    ResourceName::parse(text).expect("a name")
}

pub fn owner(name: &str) -> Owner {
    Owner { name: name.into(), verified: false }
}

/// `POOL NAME[*SLOTS] [label=value ...]`.
pub fn resource(text: &str) -> ResourceSpec {
    let mut words = text.split_whitespace();
    let pool = key(words.next().expect("a pool"));
    let (name_text, slots) = words.next().expect("a name").split_once('*').map_or_else(
        || (text.split_whitespace().nth(1).expect("a name"), 1),
        |(name, slots)| (name, slots.parse().expect("a number of slots")),
    );
    let labels = words.map(|word| {
        let (label, text) = word.split_once('=').expect("label=value");
        let value = match (text.parse(), text.parse()) {
            (Ok(truth), _) => Value::Bool(truth),
            (_, Ok(number)) => Value::Int(number),
            _ => Value::Text(text.into()),
        };
        (key(label), value)
    });
    ResourceSpec {
        name: name(name_text),
        pool,
        labels: labels.collect(),
        properties: BTreeMap::new(),
        secrets: BTreeMap::new(),
        slots,
    }
}

/// `NAME [on_drop=immediate] [max_hold=1h] [ttl=10s] [cooldown=30s] [max_per_owner=2] ...`.
pub fn pool(text: &str) -> Pool {
    let mut words = text.split_whitespace();
    let name = key(words.next().expect("a pool"));
    let mut pool = Pool::named(name);
    for word in words {
        match word.split_once('=').expect("key=value") {
            ("on_drop", "immediate") => pool.on_drop = OnDrop::Immediate,
            ("max_hold", span) => pool.max_hold_ms = Some(duration_ms(span)),
            ("ttl", span) => pool.ttl_ms = Some(duration_ms(span)),
            ("cooldown", span) => pool.cooldown_ms = duration_ms(span),
            ("max_per_owner", count) => pool.max_per_owner = Some(count.parse().expect("a number")),
            ("max_waiting_per_owner", count) => pool.max_waiting_per_owner = Some(count.parse().expect("a number")),
            ("max_priority", steps) => pool.max_priority = Some(steps.parse().expect("a priority")),
            (other, _) => panic!("a pool has no {other}"),
        }
    }
    pool
}

pub fn duration_ms(text: &str) -> u64 {
    if text == "0" { 0 } else { leasehold::units::parse_duration_ms(text).expect("a duration") }
}

pub fn needs(texts: &str) -> Vec<Need> {
    texts.split(" + ").map(|text| Need::parse(text).expect("a need")).collect()
}

/// A claim for these needs that waits for ever.
pub fn claim(texts: &str) -> ClaimSpec {
    ClaimSpec {
        needs: needs(texts),
        same: None,
        distinct: None,
        priority: 0,
        wait_ms: None,
        hold_ms: None,
        note: None,
        tags: BTreeMap::<Arc<str>, Arc<str>>::new(),
        fail_fast: false,
        wait_for_inventory: false,
        outer: None,
        retry: None,
    }
}
