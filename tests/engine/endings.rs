//! Endings under a live holder, whose time runs from when the decision is durable.

use leasehold::core::types::LabTime;
use leasehold::engine::input::Call;

use super::lab::{Lab, TTL};
use super::words::claim;

#[test]
fn an_ending_runs_from_when_it_is_durable() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let mut client = lab.client(TTL);
    let lease = lab.lease(&client, 1, &["phone"]);
    lab.revoke(lease);
    assert!(lab.step());
    lab.wait(1_000);
    assert!(lab.renew(&mut client).ending.is_empty(), "the decision is not durable");
    assert!(lab.notices(client.socket).is_empty());
    lab.commit();
    assert_eq!(lab.notices(client.socket), ["ending"]);
    for _ in 0..19 {
        lab.wait(100);
        assert_eq!(lab.renew(&mut client).ending, [lease.0], "every answer after it names it");
    }
    lab.wait(50);
    assert!(lab.is_held(lease), "not earlier, however often it is renewed or not");
    lab.wait(50);
    assert!(!lab.is_held(lease));
    assert!(lab.has_session(&client));
    assert_eq!(lab.notices(client.socket), ["ending", "ended"]);
    assert!(lab.renew(&mut client).ending.is_empty());
}

#[test]
fn a_holder_may_release_what_is_ending_and_not_extend_it() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let client = lab.client(TTL);
    let lease = lab.lease(&client, 1, &["phone"]);
    lab.revoke(lease);
    lab.go();
    let extended = lab.call(client.socket, Call::Extend { lease, until: LabTime(u64::MAX / 4) });
    let released = lab.release_call(&client, lease);
    lab.go();
    assert_eq!(lab.refusal(&extended), "lease_ending");
    assert!(lab.answer(&released).unwrap().is_ok());
    assert!(!lab.is_held(lease));
}

#[test]
fn a_hold_ends_by_lab_time_and_its_holder_has_a_ttl_more() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let mut client = lab.client(TTL);
    let mut spec = claim(&["phone"]);
    spec.hold_ms = Some(10_000);
    lab.acquire_call(&client, 1, spec);
    lab.go();
    let lease = lab.lease_of(&client, 1).unwrap();
    for _ in 0..10 {
        lab.wait(1_000);
        lab.renew(&mut client);
    }
    assert_eq!(lab.notices(client.socket), ["ending"]);
    assert!(lab.is_held(lease));
    lab.wait(TTL - 50);
    assert!(lab.is_held(lease));
    lab.wait(50);
    assert!(!lab.is_held(lease));
}

#[test]
fn after_a_restart_an_ending_runs_from_when_connections_are_accepted() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let client = lab.client(TTL);
    let lease = lab.lease(&client, 1, &["phone"]);
    lab.revoke(lease);
    lab.go();
    let mut lab = lab.restarted(60_000);
    let mut client = client;
    assert_eq!(lab.resume(&mut client).renewed.ending, [lease.0], "a resume counts as a renewal");
    lab.wait(1_900);
    lab.renew(&mut client);
    lab.wait(50);
    assert!(lab.is_held(lease));
    lab.wait(50);
    assert!(!lab.is_held(lease));
}

#[test]
fn an_end_that_was_not_stored_is_decided_again_at_once() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let mut client = lab.client(TTL);
    let lease = lab.lease(&client, 1, &["phone"]);
    lab.revoke(lease);
    lab.go();
    lab.wait(1_500);
    lab.renew(&mut client);
    lab.wait(450);
    lab.stand_still(50);
    assert!(lab.step(), "the ending is over");
    lab.fail();
    lab.resolve(false);
    assert_eq!(lab.renew(&mut client).ending, [lease.0], "it is ending still");
    lab.commit();
    lab.go();
    assert!(!lab.is_held(lease), "its holder has had its time");
}
