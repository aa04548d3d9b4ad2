//! The planned stop: no grants, longer promises, and a new process that honours them.

use leasehold::core::types::SessionId;

use super::lab::{GRACE_MS, Lab, TTL};
use super::words::claim;

#[test]
fn a_renewal_is_answered_with_the_longer_promise_once_that_is_stored() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let mut client = lab.client(TTL);
    lab.stop();
    assert_eq!(lab.notices(client.socket), ["renew now"]);
    assert!(lab.stopped.is_empty());
    let renewal = lab.renew_call(&client);
    assert!(lab.step());
    assert!(!lab.is_answered(&renewal));
    assert!(lab.stopped.is_empty(), "nothing is stored yet");
    lab.commit();
    assert_eq!(lab.renewed(&mut client, &renewal).promise_ms, GRACE_MS);
    assert_eq!(lab.stopped.len(), 1);
    let stored = lab.stored.sessions.iter().find(|session| session.id == SessionId(client.session)).unwrap();
    assert_eq!(stored.promise_ms, Some(GRACE_MS));
}

#[test]
fn a_stop_waits_five_seconds_at_most_even_for_a_store_that_does_not_answer() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let (renews, silent) = (lab.client(60_000), lab.client(60_000));
    lab.stop();
    let renewal = lab.renew_call(&renews);
    assert!(lab.step());
    let since = lab.now;
    lab.wait(4_950);
    assert!(lab.stopped.is_empty());
    lab.wait(50);
    assert_eq!(lab.stopped, [since.plus(5_000)]);
    assert!(!lab.is_answered(&renewal));
    assert_eq!(lab.notices(silent.socket), ["renew now"]);
}

#[test]
fn a_stop_with_nobody_there_is_done_at_once_and_one_asked_twice_is_one() {
    let mut lab = Lab::of(&[("phone", 1)]);
    lab.stop();
    lab.go();
    assert_eq!(lab.stopped.len(), 1);
    lab.stop();
    lab.go();
    assert_eq!(lab.stopped.len(), 2);
}

#[test]
fn claims_of_a_stop_are_queued_and_granted_by_the_next_process() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let mut client = lab.client(TTL);
    lab.stop();
    let id = lab.acquire_call(&client, 1, claim(&["phone"]));
    lab.go();
    assert_eq!(lab.claim(&id).state, "queued");
    let renewal = lab.renew_call(&client);
    lab.go();
    lab.renewed(&mut client, &renewal);
    let mut lab = lab.restarted(90_000);
    assert_eq!(lab.resume(&mut client).state.claims[0].state, "granted");
    assert_eq!(lab.notices(client.socket), Vec::<&str>::new(), "the answer tells it, and once is enough");
}

#[test]
fn a_store_that_fails_during_a_stop_brings_no_grants() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let mut client = lab.client(TTL);
    lab.stop();
    lab.acquire_call(&client, 1, claim(&["phone"]));
    assert!(lab.step());
    let waits = lab.renew_call(&client);
    lab.fail();
    assert_eq!(lab.renewed(&mut client, &waits).promise_ms, TTL, "the ordinary promise needs no store");
    lab.resolve(false);
    assert_eq!(lab.renew(&mut client).promise_ms, TTL);
    lab.commit();
    let again = lab.acquire_call(&client, 1, claim(&["phone"]));
    lab.go();
    assert_eq!(lab.claim(&again).state, "queued");
}

#[test]
fn a_longer_promise_binds_the_next_process_in_full_until_a_later_answer_is_named() {
    let mut lab = Lab::of(&[("phone", 2)]);
    let (mut back, mut gone) = (lab.client(TTL), lab.client(TTL));
    let (kept, promised) = (lab.lease(&back, 1, &["phone"]), lab.lease(&gone, 1, &["phone"]));
    lab.stop();
    for client in [&mut back, &mut gone] {
        let renewal = lab.renew_call(client);
        lab.go();
        lab.renewed(client, &renewal);
    }
    let mut lab = lab.restarted(200_000);
    lab.resume(&mut back);
    lab.wait(1_000);
    lab.renew(&mut back);
    lab.wait(TTL - 50);
    assert!(lab.is_held(kept));
    lab.wait(50);
    assert!(!lab.is_held(kept), "it named a later answer, so the ordinary promise counts");
    lab.wait(GRACE_MS - TTL - 1_000 - 50);
    assert!(lab.is_held(promised));
    lab.wait(50);
    assert!(!lab.is_held(promised), "and no longer than promised");
}

#[test]
fn a_resume_that_names_the_longer_promise_leaves_it_binding() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let mut client = lab.client(TTL);
    let lease = lab.lease(&client, 1, &["phone"]);
    lab.stop();
    let renewal = lab.renew_call(&client);
    lab.go();
    lab.renewed(&mut client, &renewal);
    let mut lab = lab.restarted(1_000);
    // It resumes, and hears nothing of the answer.
    let socket = lab.socket();
    lab.resume_call(socket, &client);
    lab.go();
    lab.drop_socket(socket);
    lab.wait(GRACE_MS - 50);
    assert!(lab.is_held(lease));
    lab.wait(50);
    assert!(!lab.is_held(lease));
}

#[test]
fn an_ending_waits_for_a_longer_promise_that_binds() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let mut client = lab.client(TTL);
    let lease = lab.lease(&client, 1, &["phone"]);
    lab.stop();
    let renewal = lab.renew_call(&client);
    lab.go();
    lab.renewed(&mut client, &renewal);
    lab.revoke(lease);
    lab.go();
    let mut lab = lab.restarted(1_000);
    lab.wait(TTL * 3);
    assert!(lab.is_held(lease), "its client may count by the longer promise");
    lab.resume(&mut client);
    lab.renew(&mut client);
    lab.wait(100);
    assert!(!lab.is_held(lease), "it counts by an answer that names the ending");
    assert!(lab.has_session(&client));
}

#[test]
fn whoever_resumes_during_a_stop_is_asked_to_renew() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let (mut client, _silent) = (lab.client(TTL), lab.client(TTL));
    lab.stop();
    lab.resume(&mut client);
    assert_eq!(lab.notices(client.socket), ["renew now"]);
}
