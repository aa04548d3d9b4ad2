//! Records and events, one of each kind, with every field set to something: what a store must give
//! back as it got it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::core::arrivals::{Arrival, ArrivalKey};
use crate::core::claim::{Blocked, Claim, ClaimEnd, ClaimSpec, Pin, Seniority};
use crate::core::event::Event;
use crate::core::inventory::{Cooling, Mark, Marks, OnDrop, Origin, Pending, Pool, ResourceSpec, SecretRef};
use crate::core::lease::{Ending, Lease, LeaseEnd, Outcome, Pick};
use crate::core::need::{Count, Need, Slots, Term};
use crate::core::refusal::{Code, Refusal};
use crate::core::session::{Provider, RequestEnd, SecretHash, SessionEnd, SessionKind};
use crate::core::tables::{
    Batch, EndedRecord, KeyedRecord, PoolRecord, RequestRecord, ResourceRecord, SessionRecord, TableChanges,
};
use crate::core::types::{
    ClaimId, Key, LabTime, LeaseId, Owner, ProviderName, ResourceId, ResourceName, SessionId, Value,
};

pub fn key(text: &str) -> Key {
    Key::parse(text, "key").unwrap()
}

pub fn name(text: &str) -> ResourceName {
    ResourceName::parse(text).unwrap()
}

pub fn owner() -> Owner {
    Owner { name: "ann \"the\" tester\n\u{1F4F1}".into(), verified: false }
}

pub fn secret(text: &str) -> SecretHash {
    SecretHash(text.into())
}

pub fn pool(pool: &str) -> PoolRecord {
    let pool = Pool {
        max_hold_ms: Some(7_200_000),
        on_drop: OnDrop::Immediate,
        identity: Some(key("serial")),
        ..Pool::named(key(pool))
    };
    PoolRecord { pool: Arc::new(pool), origin: Origin::File }
}

/// One with everything that came later than the first version's pools.
fn capped_pool() -> Arc<Pool> {
    let caps = (Some(4), Some(20), Some(-3));
    let (max_per_owner, max_waiting_per_owner, max_priority) = caps;
    let pool =
        Pool { cooldown_ms: 5_000, max_per_owner, max_waiting_per_owner, max_priority, ..Pool::named(key("capped")) };
    Arc::new(pool)
}

pub fn spec(resource: &str) -> Arc<ResourceSpec> {
    let labels = [
        ("os", Value::Text("android".into())),
        ("api", Value::Int(i64::MIN)),
        ("scale", Value::Float(1.5)),
        ("rooted", Value::Bool(true)),
    ];
    let secrets = [(key("pin"), SecretRef::Env("PIN".into())), (key("cert"), SecretRef::File("/etc/c\\ert".into()))];
    Arc::new(ResourceSpec {
        name: name(resource),
        pool: key("phone"),
        labels: labels.into_iter().map(|(label, value)| (key(label), value)).collect(),
        properties: BTreeMap::from([(key("serial"), Value::Text("x'; DROP TABLE lab; --@".into()))]),
        secrets: BTreeMap::from(secrets),
        slots: 3,
    })
}

pub fn mark(reason: &str) -> Mark {
    Mark { reason: reason.into(), since: LabTime(5), by: "broker".into() }
}

pub fn resource(id: u64, resource: &str) -> ResourceRecord {
    ResourceRecord {
        id: ResourceId(id),
        spec: spec(resource),
        origin: Origin::Api,
        marks: Marks {
            quarantined: Some(mark("screen is dark")),
            drained: None,
            offline: Some(mark("its provider left")),
        },
        pending: Some(Pending::Change(spec("pixel-new"))),
        cooling: vec![Cooling { until: LabTime(77), slots: 1 }],
        last_used: LabTime(17),
    }
}

pub fn provider() -> Provider {
    let name = ProviderName::parse("rack-7").unwrap();
    Provider { name, key: secret("ce11"), address: "rack-7 (10.0.0.7)".into() }
}

pub fn session(id: u64) -> SessionRecord {
    SessionRecord {
        id: SessionId(id),
        owner: owner(),
        ttl_ms: 30_000,
        secret: secret("5e55"),
        kind: SessionKind::Socket { instance: "i-1".into() },
        opened_at: LabTime(1),
        promise_ms: Some(300_000),
        kicked_by: Some("root".into()),
        provides: Some(provider()),
        forgotten: 0,
    }
}

pub fn claim_spec() -> Arc<ClaimSpec> {
    let term = Term { key: key("os"), negated: true, value: "ios".into() };
    let need = Need {
        alias: key("dut"),
        count: Count::Exactly(2),
        pool: key("phone"),
        slots: Slots::All,
        terms: vec![term],
        expression: Some("api >= 34 && os == 'android'".into()),
    };
    Arc::new(ClaimSpec {
        needs: vec![need],
        same: Some(key("site")),
        distinct: None,
        priority: -3,
        wait_ms: Some(0),
        hold_ms: Some(60_000),
        note: Some("nightly".into()),
        tags: BTreeMap::from([("job".into(), "https://ci/1".into())]),
        fail_fast: true,
        wait_for_inventory: false,
        outer: Some(LeaseId(3)),
        retry: None,
    })
}

pub fn claim(id: u64) -> Claim {
    Claim {
        id: ClaimId(id),
        session: SessionId(1),
        request: id,
        body_hash: u64::MAX - id,
        owner: owner(),
        spec: claim_spec(),
        queued_at: LabTime(4),
        seniority: Seniority { rank: -299_996, claim: ClaimId(id) },
        wait_until: Some(LabTime(u64::MAX)),
        pin: Some(Pin::Resources(vec![vec![ResourceId(1), ResourceId(2)]])),
        first_arrival: None,
        blocked: Some(Blocked { alias: key("dut"), message: "all are drained".into() }),
    }
}

pub fn lease(id: u64, resources: &[&str]) -> Arc<Lease> {
    let pick = |resource: &&str| Pick { alias: key("dut"), resource: ResourceId(1), name: name(resource), slots: 3 };
    Arc::new(Lease {
        id: LeaseId(id),
        claim: ClaimId(id),
        session: SessionId(1),
        request: id,
        body_hash: u64::MAX,
        owner: owner(),
        spec: claim_spec(),
        picks: resources.iter().map(pick).collect(),
        queued_at: LabTime(4),
        granted_at: LabTime(id),
        until: Some(LabTime(u64::MAX)),
        ending: Some(Ending { why: LeaseEnd::HoldEnded, since: LabTime(6) }),
        freed: vec![ResourceId(1)],
    })
}

pub fn ended(at: u64) -> EndedRecord {
    let end = LeaseEnd::Revoked { by: "root".into(), forced: true, reason: Some("needed".into()) };
    EndedRecord { at: LabTime(at), end, outcome: Some(Outcome::Infra) }
}

pub fn request(session: u64, request: u64, end: RequestEnd) -> RequestRecord {
    let body_hash = if end == RequestEnd::Tombstone { None } else { Some(u64::MAX - request) };
    RequestRecord { session: SessionId(session), request, body_hash, end }
}

pub fn refused() -> ClaimEnd {
    ClaimEnd::Refused(Refusal::new(Code::Impossible, "no phone has api >= 40").of_need("dut"))
}

pub fn arrival(id: u64) -> Arrival {
    let key = ArrivalKey { owner: "ann".into(), work: "github:a/b/9/test".into(), needs: u64::MAX };
    let (id, first) = (ClaimId(id), LabTime(4));
    Arrival { id, key, first, attempt: 2, carried: 1, failed: true, claim: id }
}

pub fn keyed(text: &str) -> KeyedRecord {
    KeyedRecord {
        key: secret(text),
        request_id: "r-1".into(),
        owner: owner(),
        claim: ClaimId(9),
        body_hash: u64::MAX,
        end: RequestEnd::Claim(refused()),
        ended_at: LabTime(9),
    }
}

/// One event of each kind.
pub fn every_event() -> Vec<Event> {
    let (resource, lease_id, session, by) = (ResourceId(1), LeaseId(7), SessionId(1), Arc::<str>::from("root"));
    vec![
        Event::BrokerStarted { term: 1 },
        Event::PoolSet { pool: pool("phone").pool, origin: Origin::File },
        Event::PoolRemoved { pool: key("board") },
        Event::ResourceAdded { resource, spec: spec("pixel-1"), origin: Origin::Api },
        Event::ResourceChanged { resource, spec: spec("pixel-2") },
        Event::ResourcePending { resource, pending: Some(Pending::Removal) },
        Event::ResourceRemoved { resource },
        Event::ResourceDrained { resource, reason: "moving".into(), by: by.clone() },
        Event::ResourceUndrained { resource, by: by.clone() },
        Event::ResourceQuarantined { resource, reason: "dark".into(), by: by.clone() },
        Event::ResourceRestored { resource, by: by.clone() },
        Event::SessionOpened {
            session,
            owner: owner(),
            ttl_ms: 30_000,
            secret: secret("5e55"),
            kind: SessionKind::Keyed { request_id: "r-1".into() },
        },
        Event::SessionPromised { session, promise_ms: None },
        Event::SessionKicked { session, by: by.clone() },
        Event::ClaimQueued { claim: Box::new(claim(8)) },
        Event::ClaimPinned { claim: ClaimId(8), pin: Some(Pin::Value(Value::Float(0.25))) },
        Event::ClaimBlocked { claim: ClaimId(8), blocked: None },
        Event::ClaimEnded { claim: ClaimId(8), session, request: 8, body_hash: u64::MAX, end: refused() },
        Event::RequestTombstoned { session, request: 9 },
        Event::RequestsForgotten { session, up_to: 2 },
        Event::LeaseGranted { lease: lease(7, &["pixel-1"]) },
        Event::LeaseExtended { lease: lease_id, until: LabTime(99), by: by.clone() },
        Event::LeaseEnding { lease: lease_id, ending: Ending { why: LeaseEnd::HoldEnded, since: LabTime(6) } },
        Event::LeaseEnded { lease: lease_id, session, end: LeaseEnd::Kicked { by: by.clone() }, outcome: None },
        Event::PicksFreed { lease: lease_id, resources: vec![resource] },
        Event::KeyedForgotten { key: secret("1234") },
        Event::SessionEnded { session, end: SessionEnd::Expired },
        Event::PoolSet { pool: capped_pool(), origin: Origin::File },
        Event::ResourceCooling { resource, cooling: Cooling { until: LabTime(77), slots: 1 } },
        Event::ResourceCooled { resource },
        Event::ArrivalNoted { arrival: arrival(8) },
        Event::ArrivalForgotten { claim: ClaimId(9) },
        Event::StoreMoved { from: "sqlite:/var/lib/lab.db".into(), last_lease: 1 << 33 },
        Event::LeaseEnded { lease: LeaseId(9), session: SessionId(3), end: LeaseEnd::Moved, outcome: None },
        Event::SessionEnded { session: SessionId(3), end: SessionEnd::Moved },
        Event::ResourceAdded { resource, spec: spec("pixel-3"), origin: Origin::Provider(provider().name) },
        Event::ResourceOffline { resource, reason: "its provider left".into(), by: by.clone() },
        Event::ResourceOnline { resource },
        Event::ProviderAttached { session, provider: provider(), from: Some(SessionId(1)) },
        Event::ProviderAttached { session, provider: provider(), from: None },
    ]
}

/// A pool named after a number, to tell batches by.
pub fn some_pool(number: u64) -> (Key, Option<PoolRecord>) {
    let named = key(&format!("p{number}"));
    let record = pool(named.as_str());
    (named, Some(record))
}

/// A batch without anything.
pub fn empty_batch() -> Batch {
    let tables = TableChanges::default();
    Batch { number: 1, at: LabTime(0), wall_ms: 0, first_event: 1, events: vec![], tables }
}
