//! Small books for the tests of the questions: two phones, one held, two claims waiting.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::clock::BootTime;
use crate::core::claim::{Claim, ClaimSpec, Seniority};
use crate::core::eta::Eta;
use crate::core::event::Event;
use crate::core::inventory::{Origin, Pool, ResourceSpec, SecretRef};
use crate::core::lease::{Lease, Pick};
use crate::core::need::Need;
use crate::core::session::{SecretHash, SessionKind};
use crate::core::state::State;
use crate::core::types::{ClaimId, Key, LabTime, LeaseId, Owner, ResourceId, ResourceName, SessionId, Value};
use crate::engine::view::{LabClock, Seen, View};

pub(super) fn key(text: &str) -> Key {
    Key::parse(text, "key").unwrap()
}

pub(super) fn name(text: &str) -> ResourceName {
    ResourceName::parse(text).unwrap()
}

pub(super) fn owner(text: &str) -> Owner {
    Owner { name: text.into(), verified: false }
}

pub(super) fn spec(needs: &[&str]) -> Arc<ClaimSpec> {
    Arc::new(ClaimSpec {
        needs: needs.iter().map(|text| Need::parse(text).unwrap()).collect(),
        same: None,
        distinct: None,
        priority: 0,
        wait_ms: None,
        hold_ms: None,
        note: None,
        tags: BTreeMap::from([("job".into(), "https://ci/7".into())]),
        fail_fast: false,
        wait_for_inventory: false,
        outer: None,
        retry: None,
    })
}

pub(super) fn claim(id: u64, session: u64, needs: &[&str]) -> Claim {
    Claim {
        id: ClaimId(id),
        session: SessionId(session),
        request: id,
        body_hash: id,
        owner: owner("tina@ci"),
        spec: spec(needs),
        queued_at: LabTime(2_000 + id),
        seniority: Seniority { rank: i64::try_from(id).unwrap(), claim: ClaimId(id) },
        wait_until: None,
        pin: None,
        blocked: None,
        first_arrival: None,
    }
}

fn resource(state: &mut State, id: u64, text: &str, os: &str) {
    let spec = ResourceSpec {
        name: name(text),
        pool: key("phone"),
        labels: BTreeMap::from([(key("os"), Value::Text(os.into()))]),
        properties: BTreeMap::from([(key("serial"), Value::Int(5_554))]),
        secrets: BTreeMap::from([(key("pin"), SecretRef::Env("PIXEL_PIN".into()))]),
        slots: 1,
    };
    let event = Event::ResourceAdded { resource: ResourceId(id), spec: Arc::new(spec), origin: Origin::File };
    state.apply(LabTime(1_000), &event);
}

/// Phones `pixel-1` (android, held by lease 1 of session 1) and `iphone-1` (ios, free); claims 2
/// and 3 of session 2 wait for an android.
pub(super) fn books() -> State {
    let mut state = State::default();
    let pool = Pool::named(key("phone"));
    state.apply(LabTime(1_000), &Event::PoolSet { pool: Arc::new(pool), origin: Origin::File });
    resource(&mut state, 1, "pixel-1", "android");
    resource(&mut state, 2, "iphone-1", "ios");
    for (id, who) in [(1, "max@lab"), (2, "tina@ci")] {
        let event = Event::SessionOpened {
            session: SessionId(id),
            owner: owner(who),
            ttl_ms: 30_000,
            secret: SecretHash(format!("hash{id}").into()),
            kind: SessionKind::Socket { instance: "i".into() },
        };
        state.apply(LabTime(1_500), &event);
    }
    let lease = Lease {
        id: LeaseId(1),
        claim: ClaimId(1),
        session: SessionId(1),
        request: 1,
        body_hash: 1,
        owner: owner("max@lab"),
        spec: spec(&["phone,os=android"]),
        picks: vec![Pick { alias: key("phone"), resource: ResourceId(1), name: name("pixel-1"), slots: 1 }],
        queued_at: LabTime(1_600),
        granted_at: LabTime(1_700),
        until: Some(LabTime(61_700)),
        ending: None,
        freed: Vec::new(),
    };
    state.apply(LabTime(1_700), &Event::LeaseGranted { lease: Arc::new(lease) });
    for id in [2, 3] {
        let claim = claim(id, 2, &["phone,os=android"]);
        state.apply(claim.queued_at, &Event::ClaimQueued { claim: Box::new(claim) });
    }
    state
}

pub(super) const CLOCK: LabClock = LabClock { now: LabTime(11_700), wall_ms: 1_795_400_000_000 };

pub(super) fn view(state: &State) -> View<'_> {
    View {
        state,
        presence: &|session| Seen { last_seen_ms: 40, connected: session == SessionId(1) },
        etas: &|_| BTreeMap::from([(ClaimId(2), Eta { low_ms: 60_000, high_ms: 300_000, holds: 12 })]),
        clock: CLOCK,
        batch: 9,
        store_failure: None,
        stopping: false,
        serving_since: BootTime(1_000),
        boot_now: BootTime(6_000),
    }
}
