//! A copy of the books is put into use: nobody of the original is on it, and what they may still
//! use goes to nobody as long as they may.

use std::sync::Arc;

use leasehold::core::apply::{Declared, DeclaredResource};
use leasehold::core::command::{Command, Reply, TtlAsk};
use leasehold::core::event::Event;
use leasehold::core::lease::LeaseEnd;
use leasehold::core::limits::{FENCE_MAX, FENCES_SKIPPED, Limits};
use leasehold::core::refusal::Code;
use leasehold::core::session::{SecretHash, SessionEnd, SessionKind};
use leasehold::core::types::{LabTime, SessionId};

use crate::world::{World, claim, owner, pool, resource};

/// A lab of one phone and a seat that three share.
fn lab() -> World {
    let mut world = World::new(Limits::default());
    let resources = ["phone p1", "seat s1*3"].map(|text| DeclaredResource { spec: resource(text), was: None });
    let pools = vec![pool("phone"), pool("seat cooldown=15s")];
    let declared = Arc::new(Declared { pools, resources: resources.to_vec() });
    world.decide(Command::Apply { declared, prune: false, confirmed: true, dry_run: false });
    world
}

fn open(world: &mut World, called: &str) -> SessionId {
    let kind = SessionKind::Socket { instance: called.into() };
    let (secret, owner) = (SecretHash(called.into()), owner(called));
    let (reply, _) = world.decide(Command::OpenSession { owner, ttl: TtlAsk::Exactly(10_000), secret, kind });
    let Reply::Opened { session, .. } = reply else { panic!("{reply:?}") };
    world.decide(Command::SessionUp(session));
    session
}

fn acquire(world: &mut World, session: SessionId, request: u64, needs: &str) -> Vec<Event> {
    world.decide(Command::Acquire { session, request, spec: Arc::new(claim(needs)) }).1
}

fn fences(events: &[Event]) -> Vec<u64> {
    let granted = events.iter().filter_map(|event| match event {
        Event::LeaseGranted { lease } => Some(lease.id.0),
        _ => None,
    });
    granted.collect()
}

#[test]
fn every_session_of_a_copy_ends_and_fences_go_on_far_above() {
    let mut world = lab();
    let (ann, bob) = (open(&mut world, "ann"), open(&mut world, "bob"));
    assert_eq!(fences(&acquire(&mut world, ann, 1, "phone")), [1]);
    acquire(&mut world, bob, 1, "phone");
    let events = world.move_away();
    assert!(matches!(events[0], Event::StoreMoved { last_lease, .. } if last_lease == 1 + FENCES_SKIPPED));
    let ended: Vec<SessionId> = events
        .iter()
        .filter_map(|event| match event {
            Event::SessionEnded { session, end: SessionEnd::Moved } => Some(*session),
            _ => None,
        })
        .collect();
    assert_eq!(ended, [ann, bob]);
    assert!(events.iter().any(|event| matches!(event, Event::LeaseEnded { end: LeaseEnd::Moved, .. })), "{events:?}");
    let state = world.broker.state();
    assert!(state.sessions.is_empty() && state.leases.is_empty() && state.claims.is_empty());
    // Numbers of sessions and claims go on: the journal tells them apart.
    world.now = world.now.plus(10_000);
    let eve = open(&mut world, "eve");
    assert!(eve > bob);
    assert_eq!(fences(&acquire(&mut world, eve, 1, "phone")), [2 + FENCES_SKIPPED]);
}

#[test]
fn what_was_held_goes_to_nobody_while_its_holder_may_use_it() {
    for (promise_ms, kept_ms) in [(None, 10_000), (Some(60_000), 60_000), (Some(2_000), 10_000)] {
        let mut world = lab();
        let ann = open(&mut world, "ann");
        acquire(&mut world, ann, 1, "phone");
        world.decide(Command::Promise { session: ann, promise_ms });
        world.now = LabTime(7_000);
        world.move_away();
        let eve = open(&mut world, "eve");
        assert_eq!(fences(&acquire(&mut world, eve, 1, "phone")), [0; 0]);
        world.now = LabTime(7_000 + kept_ms - 1);
        assert_eq!(fences(&world.decide(Command::Tick).1), [0; 0], "{promise_ms:?}");
        world.now = LabTime(7_000 + kept_ms);
        assert_eq!(fences(&world.decide(Command::Tick).1), [2 + FENCES_SKIPPED], "{promise_ms:?}");
    }
}

#[test]
fn a_longer_cooldown_of_the_pool_counts_and_other_slots_are_free() {
    let mut world = lab();
    let ann = open(&mut world, "ann");
    acquire(&mut world, ann, 1, "seat/2");
    world.move_away();
    let eve = open(&mut world, "eve");
    assert_eq!(fences(&acquire(&mut world, eve, 1, "seat/1")).len(), 1);
    acquire(&mut world, eve, 2, "seat/1");
    world.now = world.now.plus(14_999);
    assert_eq!(fences(&world.decide(Command::Tick).1).len(), 0);
    world.now = world.now.plus(1);
    assert_eq!(fences(&world.decide(Command::Tick).1).len(), 1);
}

#[test]
fn a_retry_of_what_was_interrupted_keeps_its_place() {
    let mut world = lab();
    let ann = open(&mut world, "ann");
    let mut spec = claim("phone");
    spec.retry = Some(leasehold::core::claim::Retry { work: "ci/1".into(), attempt: 1 });
    world.decide(Command::Acquire { session: ann, request: 1, spec: Arc::new(spec.clone()) });
    world.now = LabTime(1_000);
    world.move_away();
    let (first, ann) = (open(&mut world, "eve"), open(&mut world, "ann"));
    acquire(&mut world, first, 1, "phone");
    world.decide(Command::Acquire { session: ann, request: 1, spec: Arc::new(spec) });
    world.now = LabTime(11_000);
    let (_, events) = world.decide(Command::Tick);
    let holder = events.iter().find_map(|event| match event {
        Event::LeaseGranted { lease } => Some(lease.session),
        _ => None,
    });
    assert_eq!(holder, Some(ann), "{events:?}");
}

#[test]
fn fences_that_cannot_be_raised_are_refused() {
    let mut world = lab();
    let last_lease = FENCE_MAX - FENCES_SKIPPED;
    let (reply, events) = world.decide(Command::Move { from: "elsewhere".into(), last_lease });
    assert!(matches!(&reply, Reply::Refused(refusal) if refusal.code == Code::InvalidParams), "{reply:?}");
    assert!(events.is_empty());
    let (reply, _) = world.decide(Command::Move { from: "elsewhere".into(), last_lease: last_lease - 1 });
    assert_eq!(reply, Reply::Done);
}
