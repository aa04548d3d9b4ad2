//! Who is told what unasked, and that an asker is not told twice.

use std::sync::Arc;

use leasehold::core::command::{Claimant, Command, MarkAct};
use leasehold::core::types::{LabTime, ResourceName};
use leasehold::engine::input::Call;

use super::lab::{Lab, TTL};
use super::words::claim;

fn mark(act: MarkAct) -> Command {
    let resource = ResourceName::parse("phone-1").unwrap();
    Command::Mark { resource, act, reason: "screen".into(), by: "admin".into() }
}

fn admin() -> Claimant {
    Claimant { admin: true, name: "admin".into(), ..Claimant::default() }
}

#[test]
fn an_asker_learns_from_its_answer_alone() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let client = lab.client(TTL);
    let lease = lab.lease(&client, 1, &["phone"]);
    lab.call(client.socket, Call::Extend { lease, until: LabTime(9_000_000) });
    lab.go();
    lab.release_call(&client, lease);
    lab.go();
    lab.lease(&client, 2, &["phone"]);
    lab.acquire(&client, 3, &["phone"]);
    lab.call(client.socket, Call::Cancel { request: 3 });
    lab.go();
    let refused = lab.acquire(&client, 4, &["phone,os=plan9"]);
    assert_eq!(refused.end.expect("an end").code, "impossible");
    assert_eq!(lab.notices(client.socket), Vec::<&str>::new());
}

#[test]
fn a_grant_goes_to_the_waiting_session_and_to_nobody_else() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let (holder, waiter, other) = (lab.client(TTL), lab.client(TTL), lab.client(TTL));
    let lease = lab.lease(&holder, 1, &["phone"]);
    lab.acquire(&waiter, 1, &["phone"]);
    lab.release_call(&holder, lease);
    lab.go();
    assert_eq!(lab.notices(waiter.socket), ["granted"]);
    assert!(lab.notices(holder.socket).is_empty() && lab.notices(other.socket).is_empty());
}

#[test]
fn what_others_do_to_a_lease_is_told_to_its_holder() {
    let mut lab = Lab::of(&[("phone", 2)]);
    let client = lab.client(TTL);
    let first = lab.lease(&client, 1, &["phone"]);
    let second = lab.lease(&client, 2, &["phone"]);
    drop(lab.command(Command::Extend { lease: first, claimant: admin(), until: LabTime(9_000_000) }));
    drop(lab.command(Command::Release { lease: first, claimant: admin(), outcome: None }));
    drop(lab.command(Command::Revoke { lease: second, by: "admin".into(), reason: None, forced: true }));
    lab.go();
    assert_eq!(lab.notices(client.socket), ["extended", "ended", "ended"]);
}

#[test]
fn a_waiting_claim_is_told_what_blocks_it_and_when_that_changes() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let (holder, waiter) = (lab.client(TTL), lab.client(TTL));
    lab.lease(&holder, 1, &["phone"]);
    lab.acquire(&waiter, 1, &["phone"]);
    drop(lab.command(mark(MarkAct::Drain)));
    lab.go();
    assert_eq!(lab.notices(waiter.socket), ["waiting"]);
    drop(lab.command(mark(MarkAct::Undrain)));
    lab.go();
    assert_eq!(lab.notices(waiter.socket), ["waiting", "waiting"]);
}

#[test]
fn the_end_of_a_wait_is_told() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let (holder, mut waiter) = (lab.client(60_000), lab.client(60_000));
    lab.lease(&holder, 1, &["phone"]);
    let mut spec = claim(&["phone"]);
    spec.wait_ms = Some(10_000);
    lab.acquire_call(&waiter, 1, spec.clone());
    lab.go();
    lab.wait(9_950);
    assert!(lab.notices(waiter.socket).is_empty());
    lab.wait(50);
    assert_eq!(lab.notices(waiter.socket), ["claim ended"]);
    let again = lab.call(waiter.socket, Call::Acquire { request: 1, spec: Arc::new(spec) });
    lab.go();
    assert_eq!(lab.claim(&again).state, "ended", "a repeat answers how it ended");
    lab.renew(&mut waiter);
}

#[test]
fn a_failing_store_is_told_once_and_its_recovery_too() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let client = lab.client(60_000);
    lab.acquire_call(&client, 1, claim(&["phone"]));
    assert!(lab.step());
    lab.fail();
    lab.resolve(false);
    lab.fail();
    lab.resolve(false);
    assert_eq!(lab.notices(client.socket), ["store fails"]);
    lab.commit();
    assert_eq!(lab.notices(client.socket), ["store fails", "store works"]);
}
