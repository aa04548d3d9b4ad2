//! When a session is given up, and when it is not.

use leasehold::engine::input::Call;

use super::lab::{Lab, TTL};

#[test]
fn a_silent_session_is_given_up_a_ttl_after_its_last_sign_of_life() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let (holder, mut waiter) = (lab.client(TTL), lab.client(TTL));
    let lease = lab.lease(&holder, 1, &["phone"]);
    lab.acquire(&waiter, 1, &["phone"]);
    lab.wait(500);
    lab.alive(holder.socket);
    for _ in 0..19 {
        lab.wait(100);
        lab.renew(&mut waiter);
    }
    lab.wait(50);
    assert!(lab.is_held(lease), "the ping counted");
    lab.wait(50);
    assert!(!lab.has_session(&holder));
    assert!(lab.lease_of(&waiter, 1) > Some(lease), "fences grow");
    assert_eq!(lab.notices(holder.socket), ["ended", "close: session ended"], "what ended is told before the end");
}

#[test]
fn no_renewal_is_answered_once_an_expiry_is_decided() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let client = lab.client(TTL);
    lab.lease(&client, 1, &["phone"]);
    lab.wait(TTL - 50);
    lab.stand_still(50);
    assert!(lab.step(), "the expiry is decided");
    let renewal = lab.renew_call(&client);
    assert!(!lab.is_answered(&renewal), "neither granted nor refused: the expiry is not durable");
    lab.commit();
    lab.go();
    assert!(!lab.has_session(&client));
    assert!(!matches!(lab.answer(&renewal), Some(Ok(_))));
}

#[test]
fn an_expiry_that_was_not_stored_is_open_again() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let mut client = lab.client(TTL);
    let lease = lab.lease(&client, 1, &["phone"]);
    lab.wait(TTL - 50);
    lab.stand_still(50);
    assert!(lab.step());
    let renewal = lab.renew_call(&client);
    lab.fail();
    assert_eq!(lab.refusal(&renewal), "unavailable", "whether the session has ended is not known");
    lab.resolve(false);
    lab.commit();
    lab.go();
    assert!(lab.is_held(lease), "the renewal was a sign of life");
    lab.renew(&mut client);
}

#[test]
fn what_was_read_counts_before_it_is_handed_over() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let client = lab.client(TTL);
    let lease = lab.lease(&client, 1, &["phone"]);
    lab.wait(TTL - 100);
    lab.note_read(client.socket);
    lab.wait(TTL - 50);
    assert!(lab.is_held(lease));
    lab.wait(50);
    assert!(!lab.is_held(lease));
}

#[test]
fn a_slow_commit_is_no_loop_that_stands_still() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let (silent, loud) = (lab.client(TTL), lab.client(TTL));
    let lease = lab.lease(&silent, 1, &["phone"]);
    lab.call(loud.socket, Call::Cancel { request: 9 });
    assert!(lab.step());
    lab.wait(TTL - 50);
    lab.alive(loud.socket);
    lab.commit();
    lab.wait(50);
    assert!(!lab.is_held(lease), "signs of life were counted all along, and there was none");
    assert!(lab.has_session(&loud));
}

#[test]
fn a_loop_that_stood_still_gives_everyone_a_full_ttl() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let mut client = lab.client(TTL);
    let lease = lab.lease(&client, 1, &["phone"]);
    lab.stand_still(60_000);
    lab.go();
    lab.wait(TTL - 100);
    assert!(lab.is_held(lease));
    lab.renew(&mut client);
    lab.wait(TTL - 50);
    assert!(lab.is_held(lease));
    lab.wait(50);
    assert!(!lab.is_held(lease));
}

#[test]
fn after_a_restart_everyone_has_a_full_ttl_from_the_first_connection_accepted() {
    let mut lab = Lab::of(&[("phone", 2)]);
    let (mut comes, stays_away) = (lab.client(TTL), lab.client(TTL));
    let kept = lab.lease(&comes, 1, &["phone"]);
    let lost = lab.lease(&stays_away, 1, &["phone"]);
    lab.wait(1_500);
    let mut lab = lab.restarted(3_600_000);
    lab.stand_still(400);
    lab.machine.accepting(lab.now);
    lab.wait(TTL - 50);
    assert!(lab.is_held(kept) && lab.is_held(lost));
    lab.resume(&mut comes);
    lab.wait(50);
    assert!(lab.is_held(kept) && !lab.is_held(lost));
}

#[test]
fn renewal_numbers_grow_over_restarts() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let mut client = lab.client(TTL);
    for _ in 0..3 {
        for _ in 0..5 {
            lab.renew(&mut client);
        }
        let before = client.renewal;
        lab = lab.restarted(100);
        let opened = lab.resume(&mut client);
        assert!(opened.renewed.renewal > before);
    }
}

#[test]
fn a_claim_that_the_return_grace_kept_back_is_granted_and_told() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let (holder, away, junior) = (lab.client(60_000), lab.client(60_000), lab.client(60_000));
    let lease = lab.lease(&holder, 1, &["phone"]);
    lab.acquire(&away, 1, &["phone"]);
    lab.acquire(&junior, 1, &["phone"]);
    let mut lab = lab.restarted(100);
    let (mut holder, mut junior) = (holder, junior);
    lab.resume(&mut holder);
    lab.resume(&mut junior);
    lab.release_call(&holder, lease);
    lab.go();
    assert_eq!(lab.lease_of(&junior, 1), None, "its senior may come back any moment");
    lab.wait(31_000);
    assert!(lab.lease_of(&junior, 1).is_some());
    assert_eq!(lab.notices(junior.socket), ["granted"]);
}
