//! What a seed makes of a run: the lab, the clients, and the list of what happens.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::dice::Dice;
use super::script::{Action, Admin, Point, Script, Timed};
use crate::core::apply::{Declared, DeclaredResource};
use crate::core::inventory::{OnDrop, Pool, ResourceSpec};
use crate::core::types::{Key, ResourceName, Value};
use crate::protocol::call::{ClaimRequest, ProvidedResource, ProviderProvide, RetryRequest};

/// The stream of chance that makes the providers: apart, so that the rest of a seed stays what it was.
const RIGS_STREAM: u64 = 10;
/// How long the faults go on, milliseconds; a calm phase follows.
pub(super) const FAULTS_MS: u64 = 60_000;

/// A resource: name, pool, labels, slots.
type Row = (&'static str, &'static str, &'static [(&'static str, &'static str)], u32);

/// What every run has: few things, so that all of them are fought for.
const RESOURCES: &[Row] = &[
    ("phone-1", "phone", &[("os", "a"), ("site", "x")], 1),
    ("phone-2", "phone", &[("os", "a"), ("site", "y")], 1),
    ("phone-3", "phone", &[("os", "b"), ("site", "x")], 1),
    ("phone-4", "phone", &[("os", "b"), ("site", "y")], 1),
    ("board-1", "board", &[("site", "x")], 1),
    ("board-2", "board", &[("site", "y")], 1),
    ("seat-1", "seat", &[], 4),
    ("seat-2", "seat", &[], 2),
    ("quick-1", "quick", &[], 1),
    ("quick-2", "quick", &[], 1),
    ("spare-1", "spare", &[("os", "a")], 1),
];

/// Needs, `same`, `distinct`.
type Asked = (&'static [&'static str], Option<&'static str>, Option<&'static str>);

/// Claims as people make them: needs, `same`, `distinct`. The last ones nothing ever satisfies.
const CLAIMS: &[Asked] = &[
    (&["phone"], None, None),
    (&["phone"], None, None),
    (&["phone,os=a"], None, None),
    (&["2:phone"], None, None),
    (&["3:phone"], None, None),
    (&["any=phone", "mine=phone,os=a"], None, None),
    (&["any=2:phone", "mine=phone,site=x"], None, None),
    (&["phone", "board"], None, None),
    (&["2:phone", "board"], None, None),
    (&["phone", "board"], Some("site"), None),
    (&["2:phone"], Some("os"), None),
    (&["2:phone"], None, Some("site")),
    (&["all:board"], None, None),
    (&["board"], None, None),
    (&["seat"], None, None),
    (&["seat/2"], None, None),
    (&["seat/all"], None, None),
    (&["2:seat"], None, None),
    (&["quick"], None, None),
    (&["quick", "phone"], None, None),
    (&["spare"], None, None),
    (&["phone where os == 'b'"], None, None),
    (&["5:phone"], None, None),
    (&["phone,os=c"], None, None),
];

fn key(text: &str) -> Key {
    Key::parse(text, "key").expect("a name of the simulation's own")
}

/// The inventory but for the resources of these bits.
pub(super) fn declared(without: u32) -> Arc<Declared> {
    let mut declared = Declared::default();
    for name in ["phone", "board", "seat", "quick", "spare"] {
        let on_drop = if name == "quick" { OnDrop::Immediate } else { OnDrop::AfterTtl };
        let cooldown_ms = if name == "board" { 400 } else { 0 };
        let max_per_owner = (name == "seat").then_some(2);
        declared.pools.push(Pool { on_drop, cooldown_ms, max_per_owner, ..Pool::named(key(name)) });
    }
    for (bit, (name, pool, labels, slots)) in RESOURCES.iter().enumerate() {
        if without & (1 << bit) != 0 {
            continue;
        }
        let labels = labels.iter().map(|(label, value)| (key(label), Value::Text((*value).into())));
        let spec = ResourceSpec {
            name: name_of(name),
            pool: key(pool),
            labels: labels.collect(),
            properties: BTreeMap::new(),
            secrets: BTreeMap::new(),
            slots: *slots,
        };
        declared.resources.push(DeclaredResource { spec, was: None });
    }
    Arc::new(declared)
}

/// The nth resource's name, counted round.
pub(super) fn nth_name(nth: usize) -> ResourceName {
    name_of(RESOURCES[nth % RESOURCES.len()].0)
}

/// How many resources there are.
pub(super) const fn resources() -> usize {
    RESOURCES.len()
}

fn name_of(text: &str) -> ResourceName {
    ResourceName::parse(text).expect("a name of the simulation's own")
}

/// A client as the seed makes it.
pub(super) struct Plan {
    /// Its session's ttl, milliseconds.
    pub ttl_ms: u64,
    /// How much faster its clock is than the broker's, parts in a million.
    pub ppm: i64,
}

/// The clients of a run. One run in eight has one whose clock is outside the bound.
pub(super) fn clients(seed: u64) -> Vec<Plan> {
    let mut dice = Dice::new(seed, 1);
    let count = dice.between(3, 6);
    let wild = dice.one_in(8);
    let plan = |nth: u64| {
        let ttl_ms = dice.of(&[2_000, 2_000, 3_000, 5_000, 10_000]);
        let ppm = dice.of(&[0, 0, 10_000, -10_000, -9_900, 5_000]);
        Plan { ttl_ms, ppm: if wild && nth == 0 { -150_000 } else { ppm } }
    };
    (0..count).map(plan).collect()
}

/// How many brokers a run has. Two runs in five have several.
pub(super) fn brokers(seed: u64) -> usize {
    let mut dice = Dice::new(seed, 4);
    dice.of(&[1, 1, 1, 2, 3])
}

/// The script of a seed.
pub(super) fn script(seed: u64, brokers: usize) -> Script {
    let clients = clients(seed).len() as u64;
    let mut dice = Dice::new(seed, 2);
    // From nearly calm to a storm.
    let faults = dice.of(&[2, 6, 12, 20]);
    let mut at_ms = 200;
    let mut actions = Vec::new();
    while at_ms < FAULTS_MS {
        let client = usize::try_from(dice.roll(clients)).unwrap_or(0);
        let action = match dice.roll(100) {
            roll if roll >= faults => work(&mut dice, client),
            _ if brokers > 1 && dice.one_in(2) => fault_of_several(&mut dice),
            _ => fault(&mut dice, client),
        };
        actions.push(Timed { at_ms, action });
        at_ms += if dice.one_in(3) { dice.roll(40) } else { dice.between(50, 700) };
    }
    rigs(seed, clients, &mut actions);
    Script { seed, brokers, actions }
}

/// Providers, in one run of three: clients that bring things, and claims for those.
fn rigs(seed: u64, clients: u64, actions: &mut Vec<Timed>) {
    let mut dice = Dice::new(seed, RIGS_STREAM);
    if !dice.one_in(3) {
        return;
    }
    let mut at_ms = 500;
    while at_ms < FAULTS_MS {
        let client = dice.roll(clients);
        let nth = |client: u64| usize::try_from(client).unwrap_or(0);
        // Most often the rig of one client, and its successor's; sometimes a stranger's.
        let rig = u8::try_from(if dice.one_in(4) { dice.roll(2) } else { client % 2 }).unwrap_or(0);
        let without = if dice.one_in(2) { 0 } else { u8::try_from(dice.roll(16)).unwrap_or(0) };
        let provide = Action::Provide { client: nth(client), rig, key: u8::from(dice.one_in(6)), without };
        match dice.roll(5) {
            0 | 1 => actions.push(Timed { at_ms, action: provide }),
            2 => {
                // It goes, and another brings the same soon after, most often while they are held.
                actions.push(Timed { at_ms, action: Action::Close { client: nth(client) } });
                let action = Action::Provide { client: nth((client + 2) % clients), rig, key: 0, without: 0 };
                actions.push(Timed { at_ms: at_ms + dice.between(20, 1_500), action });
            }
            _ => {
                let need = dice.of(&["rig", "2:rig", "rig,rig=r1", "all:rig", "phone,rig=r0"]).to_owned();
                let hold_ms = dice.of(&[None, Some(4_000)]);
                let claim = Box::new(ClaimRequest { needs: vec![need], hold_ms, ..ClaimRequest::default() });
                actions.push(Timed { at_ms, action: Action::Acquire { client: nth(client), claim } });
            }
        }
        at_ms += dice.between(300, 3_000);
    }
    actions.sort_by_key(|timed| timed.at_ms);
}

/// What a rig brings, but for the things of these bits.
pub(super) fn rig(rig: u8, key: u8, without: u8) -> ProviderProvide {
    let things: [(&str, &str, u32); 4] =
        [("a", "rig", 1), ("b", "rig", 2), ("phone", "phone", 1), ("board", "board", 1)];
    let left = things.iter().enumerate().filter(|(bit, _)| without & (1 << bit) == 0);
    let resources = left.map(|(_, (name, pool, slots))| ProvidedResource {
        name: format!("rig{rig}-{name}"),
        pool: (*pool).to_owned(),
        labels: [("rig", format!("r{rig}")), ("os", "a".to_owned()), ("site", "x".to_owned())]
            .map(|(label, value)| (label.to_owned(), value.into()))
            .into(),
        slots: Some(*slots),
        ..ProvidedResource::default()
    });
    ProviderProvide {
        name: format!("rig{rig}"),
        key: format!("the key of rig {rig}, number {key}, made up"),
        host: Some("sim".to_owned()),
        resources: resources.collect(),
        confirmed: true,
    }
}

fn work(dice: &mut Dice, client: usize) -> Action {
    match dice.roll(100) {
        0..=61 => Action::Acquire { client, claim: Box::new(claim(dice)) },
        62..=69 => Action::Release { client },
        70..=74 => Action::Abandon { client },
        75..=77 => Action::Extend { client, by_ms: dice.between(0, 8_000) },
        78 => Action::Close { client },
        79..=86 => Action::Repeat { client, back: dice.roll(4), other: dice.one_in(3) },
        87..=89 => {
            let need = dice.of(&["phone", "board", "seat", "phone,os=a"]).to_owned();
            Action::Keyed { user: dice.roll(3), need }
        }
        90 | 91 => Action::Admin(Admin::Revoke { nth: pick(dice), forced: dice.one_in(3) }),
        92 => Action::Admin(Admin::Kick { nth: pick(dice) }),
        93..=97 => Action::Admin(Admin::Mark { nth: pick(dice), act: dice.of(&[0, 1, 1, 2, 3, 3]) }),
        _ => {
            let some = u32::try_from(dice.number() & dice.number() & dice.number() & 0x7FF).unwrap_or(0);
            Action::Admin(Admin::Apply { without: if dice.one_in(2) { 0 } else { some } })
        }
    }
}

fn pick(dice: &mut Dice) -> usize {
    usize::try_from(dice.roll(64)).unwrap_or(0)
}

fn claim(dice: &mut Dice) -> ClaimRequest {
    let (needs, same, distinct) = dice.of(CLAIMS);
    ClaimRequest {
        needs: needs.iter().map(|need| (*need).to_owned()).collect(),
        same: same.map(str::to_owned),
        distinct: distinct.map(str::to_owned),
        priority: dice.one_in(5).then(|| dice.of(&[-2, -1, 1, 3])),
        wait_ms: dice.of(&[None, None, None, Some(0), Some(1_500), Some(9_000)]),
        hold_ms: dice.of(&[None, None, Some(1_000), Some(5_000)]),
        fail_fast: dice.one_in(12),
        retry: dice
            .one_in(6)
            .then(|| RetryRequest { work: format!("job-{}", dice.roll(3)), attempt: dice.between(1, 3) }),
        wait_for_inventory: dice.one_in(12),
        ..ClaimRequest::default()
    }
}

fn fault(dice: &mut Dice, client: usize) -> Action {
    match dice.roll(100) {
        0..=19 => Action::Cut { client, client_hears: !dice.one_in(3), broker_hears: !dice.one_in(3) },
        20..=31 => Action::Partition { client, ms: dice.of(&[300, 900, 2_500, 6_000, 15_000]) },
        32..=39 => Action::FreezeClient { client, ms: dice.of(&[200, 1_000, 3_000, 12_000]) },
        40..=44 => Action::Slow { client, ms: dice.of(&[1_000, 4_000]) },
        45..=50 => Action::FreezeBroker { ms: dice.of(&[100, 600, 1_500, 4_000, 12_000]) },
        51..=66 => {
            let point =
                dice.of(&[Point::Now, Point::NowDurable, Point::Decided, Point::Durable, Point::Known, Point::Told]);
            Action::Kill { point, away_ms: dice.of(&[20, 300, 2_000, 9_000]), heard: !dice.one_in(4) }
        }
        67..=71 => Action::Stop { away_ms: dice.of(&[100, 1_500, 8_000]) },
        72..=75 => Action::WallJump { ms: dice.of(&[-3_600_000, -5_000, 4_000, 600_000]) },
        76..=85 => Action::CommitFails { committed: dice.one_in(2), reopens: dice.of(&[0, 0, 1, 3]) },
        86..=90 => Action::Stall { ms: dice.of(&[300, 2_000, 7_000]) },
        _ => Action::LateClose { client },
    }
}

/// What happens to brokers that share a store.
fn fault_of_several(dice: &mut Dice) -> Action {
    let nth = usize::try_from(dice.of(&[0, 0, 0, 1, 2])).unwrap_or(0);
    match dice.roll(100) {
        0..=9 => Action::PauseLooking { ms: dice.of(&[1_400, 2_500, 4_000]) },
        10..=39 => Action::Pause { nth, ms: dice.of(&[200, 900, 1_400, 2_500, 4_000, 11_000]), whole: dice.one_in(2) },
        40..=64 => Action::CutOff { nth, ms: dice.of(&[300, 900, 1_500, 5_000, 12_000]) },
        65..=84 => Action::KillNth { nth, away_ms: dice.of(&[20, 300, 2_000, 9_000]) },
        _ => Action::HandOver,
    }
}
