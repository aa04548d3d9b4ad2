//! A store that brokers share: whatever gives a client time waits until this process was found to
//! lead since it came in.

use std::sync::Arc;

use leasehold::engine::input::{Answer, Call, KeyedCall, Told};

use super::lab::{Answered, Client, Lab, TTL};
use super::words::{claim, hash, owner};

/// As often as a look may begin.
const LOOK_MS: u64 = 100;

/// A lab in which nobody looked for a while.
fn lab() -> (Lab, Client) {
    let mut lab = Lab::shared(&[("phone", 1)]);
    let client = lab.client(TTL);
    lab.wait(LOOK_MS);
    (lab, client)
}

#[test]
fn a_renewal_waits_for_a_look_begun_after_it_came() {
    let (mut lab, mut client) = lab();
    let first = lab.renew_call(&client);
    lab.go();
    assert!(!lab.is_answered(&first));
    assert!(lab.look(), "the first begins at once");
    let second = lab.renew_call(&client);
    assert!(!lab.look(), "one at a time");
    lab.seen();
    assert!(lab.is_answered(&first) && !lab.is_answered(&second), "the look was begun before the second came");
    assert!(!lab.look(), "they are a while apart");
    lab.wait(LOOK_MS);
    assert!(lab.look());
    lab.seen();
    lab.renewed(&mut client, &first);
    lab.renewed(&mut client, &second);
    lab.wait(LOOK_MS);
    assert!(!lab.look(), "nobody waits");
}

#[test]
fn one_look_is_for_all_that_wait() {
    let (mut lab, one) = lab();
    let other = lab.client(TTL);
    lab.wait(LOOK_MS);
    let calls = [lab.renew_call(&one), lab.renew_call(&other), lab.renew_call(&one)];
    assert!(lab.look());
    lab.seen();
    assert!(calls.iter().all(|call| lab.is_answered(call)));
}

#[test]
fn a_look_that_finds_nothing_out_leaves_them_waiting() {
    let (mut lab, mut client) = lab();
    let renewal = lab.renew_call(&client);
    assert!(lab.look());
    lab.unseen();
    assert!(!lab.is_answered(&renewal));
    lab.wait(LOOK_MS);
    assert!(lab.look());
    lab.seen();
    lab.renewed(&mut client, &renewal);
}

#[test]
fn a_batch_begun_since_proves_as_much() {
    let (mut lab, mut client) = lab();
    lab.call(client.socket, Call::Cancel { request: 8 });
    let before = lab.renew_call(&client);
    assert!(lab.step());
    let after = lab.renew_call(&client);
    lab.commit();
    assert!(lab.is_answered(&before) && !lab.is_answered(&after));
    lab.renewed(&mut client, &before);
}

#[test]
fn an_expiry_that_was_decided_meanwhile_refuses_it() {
    let (mut lab, client) = lab();
    let lease = lab.lease(&client, 1, &["phone"]);
    lab.wait(TTL - 50);
    let renewal = lab.renew_call(&client);
    lab.wait(TTL - 50);
    assert!(lab.is_held(lease), "it was a sign of life");
    assert!(lab.look());
    lab.stand_still(50);
    assert!(lab.step(), "the expiry is decided");
    lab.seen();
    assert!(!lab.is_answered(&renewal), "neither granted nor refused: the expiry is not durable");
    lab.commit();
    lab.go();
    assert!(!lab.has_session(&client));
    assert!(!matches!(lab.answer(&renewal), Some(Ok(_))));
}

#[test]
fn an_ending_that_is_known_meanwhile_is_named() {
    let (mut lab, mut client) = lab();
    let lease = lab.lease(&client, 1, &["phone"]);
    lab.revoke(lease);
    assert!(lab.step());
    let renewal = lab.renew_call(&client);
    lab.wait(LOOK_MS);
    assert!(lab.look());
    lab.commit();
    assert!(!lab.is_answered(&renewal), "the batch was begun before it came");
    lab.seen();
    assert_eq!(lab.renewed(&mut client, &renewal).ending, [lease.0]);
}

#[test]
fn a_resume_waits_and_what_came_after_it_on_its_socket_comes_after_it() {
    let (mut lab, client) = lab();
    let lease = lab.lease(&client, 1, &["phone"]);
    let socket = lab.socket();
    let resume = lab.resume_call(socket, &client);
    let release = lab.call(socket, Call::Release { lease, outcome: None });
    lab.go();
    assert!(!lab.is_answered(&resume) && !lab.is_answered(&release));
    lab.wait(LOOK_MS);
    assert!(lab.look());
    let list = lab.call(socket, Call::List);
    lab.seen();
    lab.go();
    assert_eq!(lab.opened(&resume).state.claims.len(), 1);
    assert!(matches!(lab.answer(&release), Some(Ok(Answer::Released(_)))));
    assert!(matches!(lab.answer(&list), Some(Ok(Answer::State(_)))), "it gives no time and waits for no look");
}

#[test]
fn a_clean_close_behind_a_resume_closes_the_session() {
    let (mut lab, client) = lab();
    let lease = lab.lease(&client, 1, &["phone"]);
    let socket = lab.socket();
    lab.resume_call(socket, &client);
    lab.close_socket(socket);
    lab.go();
    assert!(lab.has_session(&client));
    lab.wait(LOOK_MS);
    assert!(lab.look());
    lab.seen();
    lab.go();
    assert!(!lab.has_session(&client) && !lab.is_held(lease));
}

#[test]
fn a_resume_that_waits_is_a_sign_of_life() {
    let (mut lab, mut client) = lab();
    let lease = lab.lease(&client, 1, &["phone"]);
    lab.drop_socket(client.socket);
    lab.wait(TTL - 50);
    client.socket = lab.socket();
    let resume = lab.resume_call(client.socket, &client);
    lab.wait(TTL - 100);
    assert!(lab.is_held(lease));
    assert!(lab.look());
    lab.seen();
    lab.go();
    assert_eq!(lab.opened(&resume).session, client.session);
}

#[test]
fn an_opening_needs_no_look_as_it_is_in_a_batch() {
    let mut lab = Lab::shared(&[("phone", 1)]);
    let client = lab.client(TTL);
    assert_eq!(client.promise_ms, TTL);
    assert!(!lab.look());
}

#[test]
fn a_renewal_in_a_planned_stop_has_its_longer_promise_after_both() {
    let (mut lab, mut client) = lab();
    lab.stop();
    let renewal = lab.renew_call(&client);
    assert!(!lab.step());
    lab.wait(LOOK_MS);
    assert!(lab.look());
    lab.seen();
    assert!(!lab.is_answered(&renewal), "the promise is not stored");
    lab.go();
    assert_eq!(lab.renewed(&mut client, &renewal).promise_ms, super::lab::GRACE_MS);
    // The same again is in no batch, as nothing changes.
    let again = lab.renew_call(&client);
    lab.go();
    assert!(!lab.is_answered(&again));
    lab.wait(LOOK_MS);
    assert!(lab.look());
    lab.seen();
    lab.go();
    assert_eq!(lab.renewed(&mut client, &again).promise_ms, super::lab::GRACE_MS);
}

#[test]
fn under_a_key_whatever_says_that_it_stands_waits_unless_a_batch_takes_it_along() {
    let mut lab = Lab::shared(&[("phone", 1)]);
    let key = hash("key");
    let acquire = || KeyedCall::Acquire {
        request_id: "build-7".into(),
        owner: owner(),
        ttl_ms: TTL,
        spec: Arc::new(claim(&["phone"])),
    };
    let waits = |lab: &mut Lab, call: KeyedCall| -> Answered {
        let mut told = lab.keyed_call(&key, call);
        lab.go();
        told.try_recv().expect_err("no answer yet");
        lab.wait(LOOK_MS);
        assert!(lab.look());
        lab.seen();
        lab.go();
        told.try_recv().expect("an answer")
    };
    assert!(matches!(lab.keyed(&key, acquire()), Ok(Told::Claim(_))), "its grant is in a batch");
    assert!(matches!(waits(&mut lab, KeyedCall::Renew), Ok(Told::Renewed(_))));
    assert!(matches!(waits(&mut lab, KeyedCall::Ask), Ok(Told::Claim(_))));
    assert!(matches!(waits(&mut lab, acquire()), Ok(Told::Claim(_))), "a repeat is in none");
    assert!(matches!(lab.keyed(&key, KeyedCall::Release { outcome: None }), Ok(Told::Released(_))));
    assert!(matches!(lab.keyed(&key, KeyedCall::Release { outcome: None }), Ok(Told::Released(_))), "it gives no time");
    assert_eq!(lab.keyed(&key, KeyedCall::Renew).expect_err("it ended").data.code, "lease_ended");
}

#[test]
fn a_key_that_is_not_known_may_be_known_to_another_that_leads() {
    let (mut lab, _) = lab();
    for call in [KeyedCall::Renew, KeyedCall::Ask, KeyedCall::Release { outcome: None }] {
        let mut told = lab.keyed_call(&hash("key"), call);
        lab.go();
        told.try_recv().expect_err("no answer yet");
        assert!(lab.look());
        lab.seen();
        lab.go();
        let refused = told.try_recv().expect("an answer").expect_err("nobody has it");
        assert_eq!(refused.data.code, "not_found");
        lab.wait(LOOK_MS);
    }
}

#[test]
fn who_renews_without_reading_is_refused_and_harms_nobody() {
    let (mut lab, hostile) = lab();
    let other = lab.client(TTL);
    lab.wait(LOOK_MS);
    let calls: Vec<_> = (0..1_000).map(|_| lab.renew_call(&hostile)).collect();
    let renewal = lab.renew_call(&other);
    let refused = calls.iter().filter(|call| lab.is_answered(call)).count();
    assert_eq!(refused, 984);
    assert_eq!(lab.refusal(&calls[999]), "overloaded");
    assert!(lab.look());
    lab.seen();
    assert!(matches!(lab.answer(&renewal), Some(Ok(_))));
    assert!(calls.iter().all(|call| lab.is_answered(call)));
}

#[test]
fn whose_socket_is_gone_or_superseded_is_answered_nothing() {
    let (mut lab, mut client) = lab();
    let older = client.clone();
    let late = lab.renew_call(&older);
    client.socket = lab.socket();
    let resume = lab.resume_call(client.socket, &client);
    assert!(lab.look());
    let later = lab.renew_call(&older);
    lab.seen();
    lab.go();
    assert_eq!(lab.opened(&resume).session, client.session);
    assert!(lab.is_answered(&late), "it was its session's socket then");
    lab.wait(LOOK_MS);
    lab.look();
    lab.seen();
    lab.go();
    assert!(!lab.is_answered(&later));
}

#[test]
fn nobody_looks_where_a_store_is_not_shared() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let mut client = lab.client(TTL);
    lab.renew(&mut client);
    lab.resume(&mut client);
    assert!(!lab.look());
}
