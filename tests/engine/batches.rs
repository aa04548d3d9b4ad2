//! Nothing of a batch is told before it is durable, and renewals wait for none.

use leasehold::core::command::{Command, MarkAct};
use leasehold::core::types::ResourceName;
use leasehold::engine::input::{Answer, Call, Input};
use leasehold::engine::machine::GATHERED_MAX;

use super::lab::{Lab, TTL};
use super::words::claim;

#[test]
fn nothing_of_a_batch_leaves_before_it_is_durable() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let (holder, waiter) = (lab.client(TTL), lab.client(TTL));
    let lease = lab.lease(&holder, 1, &["phone"]);
    lab.acquire(&waiter, 1, &["phone"]);
    let told_before = lab.told.values().map(Vec::len).sum::<usize>();
    let released = lab.release_call(&holder, lease);
    let listed = lab.call(waiter.socket, Call::List);
    let refused = lab.release_call(&waiter, lease);
    let mut marked = lab.command(Command::Mark {
        resource: ResourceName::parse("phone-1").unwrap(),
        act: MarkAct::Drain,
        reason: "".into(),
        by: "admin".into(),
    });
    assert!(lab.step());
    assert_eq!(lab.told.values().map(Vec::len).sum::<usize>(), told_before, "not even a refusal by state");
    assert!(marked.try_recv().is_err());
    lab.commit();
    assert!([released, listed, refused].iter().all(|id| lab.is_answered(id)));
    assert!(marked.try_recv().is_ok());
    assert_eq!(lab.notices(waiter.socket), ["granted"]);
}

#[test]
fn what_gathers_while_a_batch_is_committed_is_told_after_the_next_one() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let client = lab.client(TTL);
    let acquired = lab.acquire_call(&client, 1, claim(&["phone"]));
    assert!(lab.step());
    let listed = lab.call(client.socket, Call::List);
    lab.commit();
    assert!(lab.is_answered(&acquired) && !lab.is_answered(&listed));
    assert!(!lab.step(), "a listing changes nothing");
    assert!(lab.is_answered(&listed));
}

#[test]
fn a_renewal_is_answered_while_a_batch_is_committed() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let mut client = lab.client(TTL);
    lab.acquire_call(&client, 1, claim(&["phone"]));
    assert!(lab.step());
    lab.wait(500);
    let renewed = lab.renew(&mut client);
    assert_eq!(renewed.promise_ms, TTL);
    assert_eq!(renewed.now, lab.lab_now().0, "the answer carries the lab's now");
}

#[test]
fn a_renewal_tells_nothing_of_a_session_that_is_not_durable() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let socket = lab.socket();
    let (opened, _) = lab.open_call(socket, TTL);
    let at_once = lab.call(socket, Call::Renew { renewal: 0 });
    assert!(lab.step());
    let meanwhile = lab.call(socket, Call::Renew { renewal: 0 });
    assert!(![&opened, &at_once, &meanwhile].into_iter().any(|id| lab.is_answered(id)));
    lab.commit();
    lab.go();
    for renewal in [at_once, meanwhile] {
        assert!(matches!(lab.answer(&renewal), Some(Ok(Answer::Renewed(_)))), "pipelined calls are answered in order");
    }
}

#[test]
fn an_answer_that_tells_of_no_change_waits_for_no_commit() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let client = lab.client(TTL);
    let listed = lab.call(client.socket, Call::List);
    assert!(!lab.step());
    assert!(lab.is_answered(&listed));
}

#[test]
fn more_calls_than_the_broker_holds_are_refused_and_nobody_is_harmed() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let (mut greedy, other) = (lab.client(TTL), lab.client(TTL));
    lab.acquire_call(&other, 1, claim(&["phone"]));
    assert!(lab.step());
    for _ in 0..GATHERED_MAX {
        let call = Input::Call { socket: greedy.socket, at: lab.now, id: None, call: Call::List };
        lab.machine.input(lab.now, call);
    }
    let refused = lab.call(greedy.socket, Call::List);
    assert_eq!(lab.refusal(&refused), "overloaded");
    let mut command = lab.command(Command::Tick);
    assert_eq!(command.try_recv().expect("an answer").expect_err("a refusal").data.code, "overloaded");
    lab.renew(&mut greedy);
    lab.drop_socket(greedy.socket);
    lab.commit();
    lab.go();
    assert_eq!(lab.lease_of(&other, 1).map(|lease| lease.0), Some(1));
    lab.resume(&mut greedy);
}
