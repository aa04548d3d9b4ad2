//! One session, one socket: resuming, superseding, drops and closes.

use leasehold::core::command::Command;
use leasehold::core::types::SessionId;
use leasehold::engine::input::{Answer, Call, Input, Outgoing};

use super::lab::{Lab, TTL};
use super::words::{claim, hash};

#[test]
fn nothing_on_a_superseded_socket_has_any_effect() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let mut client = lab.client(TTL);
    let lease = lab.lease(&client, 1, &["phone"]);
    let older = client.clone();
    let opened = lab.resume(&mut client);
    assert_eq!(opened.state.claims.len(), 1, "the whole state");
    assert_eq!(lab.notices(older.socket), ["close: superseded"]);
    let calls = [
        lab.release_call(&older, lease),
        lab.call(older.socket, Call::Close { other: None }),
        lab.renew_call(&older),
        lab.resume_call(older.socket, &older),
        lab.open_call(older.socket, TTL).0,
    ];
    lab.go();
    assert!(!calls.iter().any(|id| lab.is_answered(id)));
    lab.close_socket(older.socket);
    lab.go();
    assert!(lab.is_held(lease), "its Close has none either");
    assert_eq!(lab.machine.broker().state().sessions.len(), 1);
}

#[test]
fn signs_of_life_on_a_superseded_socket_do_not_count() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let mut client = lab.client(TTL);
    let lease = lab.lease(&client, 1, &["phone"]);
    let older = client.socket;
    lab.resume(&mut client);
    lab.wait(TTL - 100);
    lab.alive(older);
    lab.wait(100);
    assert!(!lab.is_held(lease));
}

#[test]
fn a_resume_needs_the_secret_the_instance_and_a_session() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let client = lab.client(TTL);
    let mut resume = |session: u64, secret: &str, instance: &str| {
        let socket = lab.socket();
        let call =
            Call::Resume { session: SessionId(session), hash: hash(secret), instance: instance.into(), renewal: 0 };
        let id = lab.call(socket, call);
        lab.go();
        lab.refusal(&id)
    };
    assert_eq!(resume(client.session, "another", "instance"), "session_gone");
    assert_eq!(resume(client.session + 1, &client.secret, "instance"), "session_gone");
    assert_eq!(resume(client.session, &client.secret, "another"), "wrong_instance");
    assert_eq!(lab.notices(client.socket), Vec::<&str>::new(), "its owner is not disturbed");
}

#[test]
fn a_socket_has_one_session() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let (client, other) = (lab.client(TTL), lab.client(TTL));
    let (second, _) = lab.open_call(client.socket, TTL);
    let resumed = lab.resume_call(client.socket, &other);
    let closed = lab.call(client.socket, Call::Close { other: Some((SessionId(other.session), hash(&other.secret))) });
    let none = lab.socket();
    let without = lab.call(none, Call::List);
    lab.go();
    for refused in [second, resumed, closed] {
        assert_eq!(lab.refusal(&refused), "session_already_open");
    }
    assert_eq!(lab.refusal(&without), "no_session");
    assert_eq!(lab.machine.broker().state().sessions.len(), 2);
}

#[test]
fn a_drop_keeps_everything_until_the_ttl_and_starts_no_new_clock() {
    let mut lab = Lab::of(&[("phone", 1), ("vlan", 1)]);
    let (mut client, blocker) = (lab.client(TTL), lab.client(60_000));
    let lease = lab.lease(&client, 1, &["phone"]);
    lab.lease(&blocker, 1, &["vlan"]);
    lab.acquire(&client, 2, &["vlan"]);
    lab.wait(1_000);
    lab.drop_socket(client.socket);
    lab.wait(900);
    assert_eq!(lab.resume(&mut client).state.claims.len(), 2, "lease and place are kept");
    lab.drop_socket(client.socket);
    lab.wait(TTL - 50);
    assert!(lab.is_held(lease));
    lab.wait(50);
    assert!(!lab.is_held(lease));
}

#[test]
fn a_clean_close_frees_at_once() {
    let mut lab = Lab::of(&[("phone", 2)]);
    let (frame, call) = (lab.client(TTL), lab.client(TTL));
    lab.lease(&frame, 1, &["phone"]);
    lab.lease(&call, 1, &["phone"]);
    lab.close_socket(frame.socket);
    let closed = lab.call(call.socket, Call::Close { other: None });
    lab.go();
    assert!(matches!(lab.answer(&closed), Some(Ok(Answer::Done(_)))));
    assert!(!lab.has_session(&frame) && !lab.has_session(&call));
    let told = &lab.told[&call.socket];
    let at = |wanted: fn(&Outgoing) -> bool| told.iter().rposition(wanted);
    let (answered, closed) =
        (at(|told| matches!(told, Outgoing::Answer { .. })), at(|told| matches!(told, Outgoing::Close { .. })));
    assert!(answered < closed, "the answer comes before the end");
    assert_eq!(lab.notices(call.socket), ["close: session ended"], "what ended is told by the answer alone");
}

#[test]
fn a_guard_closes_another_processs_session() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let client = lab.client(TTL);
    let lease = lab.lease(&client, 1, &["phone"]);
    let guard = lab.socket();
    let wrong = lab.call(guard, Call::Close { other: Some((SessionId(client.session), hash("another"))) });
    lab.go();
    assert_eq!(lab.refusal(&wrong), "session_gone");
    assert!(lab.is_held(lease));
    let right = lab.call(guard, Call::Close { other: Some((SessionId(client.session), hash(&client.secret))) });
    assert!(lab.step());
    let renewal = lab.renew_call(&client);
    assert!(!lab.is_answered(&renewal), "its end is decided: it is promised nothing more");
    lab.commit();
    lab.go();
    assert!(lab.is_answered(&right) && !lab.is_held(lease));
    assert_eq!(lab.notices(client.socket), ["ended", "close: session ended"]);
    assert!(!matches!(lab.answer(&renewal), Some(Ok(_))));
}

#[test]
fn a_claim_whose_socket_is_down_waits_and_keeps_its_place() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let (holder, mut senior, junior) = (lab.client(60_000), lab.client(60_000), lab.client(60_000));
    let first = lab.lease(&holder, 1, &["phone"]);
    lab.acquire(&senior, 1, &["phone"]);
    lab.acquire(&junior, 1, &["phone"]);
    lab.drop_socket(senior.socket);
    lab.release_call(&holder, first);
    lab.go();
    let second = lab.lease_of(&junior, 1).expect("the junior is not kept waiting");
    let opened = lab.resume(&mut senior);
    assert_eq!(opened.state.claims[0].place, Some(1));
    lab.release_call(&junior, second);
    lab.go();
    assert!(lab.lease_of(&senior, 1).is_some());
    assert_eq!(lab.notices(senior.socket), ["granted"]);
}

#[test]
fn pools_that_free_at_a_drop_do_so_at_a_clients_drop_only() {
    let mut lab = Lab::of(&[("quick", 3), ("phone", 1)]);
    let (dropped, cut_off, restarted) = (lab.client(TTL), lab.client(TTL), lab.client(TTL));
    let mixed = lab.lease(&dropped, 1, &["quick", "phone"]);
    let kept = lab.lease(&cut_off, 1, &["quick"]);
    let over = lab.lease(&restarted, 1, &["quick"]);
    lab.drop_socket(dropped.socket);
    lab.machine.input(lab.now, Input::CutOff { socket: cut_off.socket });
    lab.go();
    let state = lab.machine.broker().state();
    assert!(state.leases[&mixed].ending.is_some(), "the whole lease ends");
    assert_eq!(state.leases[&mixed].freed.len(), 1, "what is quick is free at once, the rest at the ttl");
    assert!(state.leases[&kept].ending.is_none(), "the broker's own disconnecting is no drop");
    let lab = lab.restarted(1_000);
    let state = lab.machine.broker().state();
    assert!(state.leases[&over].ending.is_none(), "nor is its restart");
}

#[test]
fn a_drop_that_was_not_stored_frees_all_the_same() {
    let mut lab = Lab::of(&[("quick", 1)]);
    let client = lab.client(TTL);
    let lease = lab.lease(&client, 1, &["quick"]);
    lab.drop_socket(client.socket);
    assert!(lab.step());
    lab.fail();
    lab.resolve(false);
    lab.commit();
    lab.go();
    assert!(!lab.is_held(lease) && lab.has_session(&client));
}

#[test]
fn a_clean_close_survives_failures_in_a_row() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let client = lab.client(60_000);
    let lease = lab.lease(&client, 1, &["phone"]);
    lab.close_socket(client.socket);
    assert!(lab.step());
    for _ in 0..3 {
        lab.fail();
        lab.resolve(false);
        assert!(lab.stored.leases.iter().any(|stored| stored.id == lease));
    }
    lab.commit();
    lab.go();
    assert!(!lab.is_held(lease) && !lab.has_session(&client));
}

#[test]
fn a_resume_that_was_refused_while_the_store_failed_can_be_asked_again() {
    let mut lab = Lab::of(&[("phone", 2)]);
    let (mut client, other) = (lab.client(TTL), lab.client(TTL));
    let older = client.socket;
    let socket = lab.socket();
    let refused = lab.resume_call(socket, &client);
    lab.acquire_call(&other, 1, claim(&["phone"]));
    assert!(lab.step());
    lab.fail();
    lab.resolve(false);
    assert_eq!(lab.refusal(&refused), "unavailable");
    assert!(lab.notices(older).contains(&"close: superseded"), "the older socket is over either way");
    lab.commit();
    let again = lab.resume_call(socket, &client);
    lab.go();
    client.socket = socket;
    assert_eq!(lab.opened(&again).session, client.session);
    lab.lease(&client, 1, &["phone"]);
}

#[test]
fn a_session_is_resumed_while_the_store_fails() {
    let mut lab = Lab::of(&[("phone", 2)]);
    let (mut client, other) = (lab.client(TTL), lab.client(TTL));
    let lease = lab.lease(&client, 1, &["phone"]);
    lab.drop_socket(client.socket);
    lab.acquire_call(&other, 1, claim(&["phone"]));
    assert!(lab.step());
    lab.fail();
    lab.resolve(false);
    let socket = lab.socket();
    let resumed = lab.resume_call(socket, &client);
    lab.deliver();
    client.socket = socket;
    assert_eq!(lab.opened(&resumed).state.claims[0].lease.as_ref().map(|lease| lease.lease), Some(lease.0));
    let renewal = lab.renew_call(&client);
    lab.deliver();
    assert!(lab.is_answered(&renewal), "and its promise is renewed");
    lab.commit();
}

#[test]
fn the_end_of_a_kicked_session_is_told() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let client = lab.client(TTL);
    drop(lab.command(Command::Kick { session: SessionId(client.session), by: "admin".into() }));
    lab.go();
    assert_eq!(lab.notices(client.socket), ["close: session ended"]);
}

#[test]
fn a_grant_that_was_not_stored_right_after_a_recovery_comes_again() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let (holder, waiter) = (lab.client(60_000), lab.client(60_000));
    lab.lease(&holder, 1, &["phone"]);
    lab.acquire(&waiter, 1, &["phone"]);
    lab.close_socket(holder.socket);
    assert!(lab.step());
    lab.fail();
    lab.resolve(false);
    lab.commit();
    assert!(lab.step(), "the grant");
    lab.fail();
    lab.resolve(false);
    lab.commit();
    lab.go();
    assert_eq!(lab.notices(waiter.socket), ["store fails", "store works", "store fails", "store works", "granted"]);
}
