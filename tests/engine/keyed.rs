//! Leases without a socket: each request under their key is a sign of life.

use std::sync::Arc;

use leasehold::core::claim::ClaimSpec;
use leasehold::engine::input::{KeyedCall, Told};

use super::lab::{Lab, TTL};
use super::words::{claim, hash, owner};

fn acquire(spec: ClaimSpec) -> KeyedCall {
    KeyedCall::Acquire { request_id: "build-7".into(), owner: owner(), ttl_ms: TTL, spec: Arc::new(spec) }
}

fn state_of(told: Result<Told, leasehold::protocol::error::RpcError>) -> String {
    match told.expect("an answer") {
        Told::Claim(told) => told.info.state,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_lease_lives_as_long_as_it_is_asked_for() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let key = hash("key");
    assert_eq!(state_of(lab.keyed(&key, acquire(claim(&["phone"])))), "granted");
    for call in [KeyedCall::Ask, KeyedCall::Renew, acquire(claim(&["phone"]))] {
        lab.wait(TTL - 50);
        lab.keyed(&key, call).expect("it stands");
    }
    match lab.keyed(&key, KeyedCall::Renew) {
        Ok(Told::Renewed(renewed)) => assert_eq!(renewed.promise_ms, TTL),
        other => panic!("{:?}", other.map(|_| ())),
    }
    lab.wait(TTL);
    assert!(lab.machine.broker().state().leases.is_empty());
    let refused = lab.keyed(&key, KeyedCall::Renew).expect_err("it ended");
    assert_eq!(refused.data.code, "lease_ended");
}

#[test]
fn a_repeat_after_the_end_says_how_it_ended() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let key = hash("key");
    lab.keyed(&key, acquire(claim(&["phone"]))).unwrap();
    lab.keyed(&key, KeyedCall::Release { outcome: None }).unwrap();
    let Ok(Told::Claim(told)) = lab.keyed(&key, acquire(claim(&["phone"]))) else { panic!("an ended claim") };
    assert_eq!(told.info.state, "ended");
    assert_eq!(told.info.end.expect("an end").code, "released");
    assert!(lab.machine.broker().state().leases.is_empty(), "never a second claim");
    assert!(matches!(lab.keyed(&key, KeyedCall::Release { outcome: None }), Ok(Told::Released(_))));
    let lab = &mut lab.restarted(1_000);
    assert_eq!(state_of(lab.keyed(&key, KeyedCall::Ask)), "ended", "kept over a restart");
}

#[test]
fn another_body_or_name_under_a_used_key_is_refused() {
    let mut lab = Lab::of(&[("phone", 2)]);
    let key = hash("key");
    lab.keyed(&key, acquire(claim(&["phone"]))).unwrap();
    let other = lab.keyed(&key, acquire(claim(&["2:phone"]))).expect_err("another body");
    assert_eq!(other.data.code, "request_id_reused");
    let unknown = lab.keyed(&hash("another"), KeyedCall::Ask).expect_err("no lease");
    assert_eq!(unknown.data.code, "not_found");
}

#[test]
fn a_waiting_claim_is_granted_without_a_socket_and_kept_over_a_restart() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let holder = lab.client(60_000);
    let lease = lab.lease(&holder, 1, &["phone"]);
    let key = hash("key");
    assert_eq!(state_of(lab.keyed(&key, acquire(claim(&["phone"])))), "queued");
    let mut lab = lab.restarted(10_000);
    lab.wait(TTL - 50);
    assert_eq!(state_of(lab.keyed(&key, KeyedCall::Ask)), "queued", "a full ttl after a restart");
    let mut holder = holder;
    lab.resume(&mut holder);
    lab.release_call(&holder, lease);
    lab.go();
    assert_eq!(state_of(lab.keyed(&key, KeyedCall::Ask)), "granted");
}

#[test]
fn a_lease_that_was_not_stored_is_not_told_and_a_repeat_makes_one() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let key = hash("key");
    let mut told = lab.keyed_call(&key, acquire(claim(&["phone"])));
    assert!(lab.step());
    lab.fail();
    lab.resolve(false);
    assert_eq!(told.try_recv().unwrap().expect_err("not done").data.code, "unavailable");
    lab.commit();
    assert_eq!(state_of(lab.keyed(&key, acquire(claim(&["phone"])))), "granted");
    assert_eq!(lab.machine.broker().state().leases.len(), 1);
}
