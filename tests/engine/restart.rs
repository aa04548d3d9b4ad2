//! What a new process finds: everything, in the same order, and no number used twice.

use leasehold::core::types::{LabTime, LeaseId};
use leasehold::engine::input::Call;

use super::lab::{Lab, TTL};
use super::words::claim;

#[test]
fn everything_is_there_after_a_restart() {
    let mut lab = Lab::of(&[("phone", 2), ("vlan", 1)]);
    let clients: Vec<_> = (0..4).map(|_| lab.client(60_000)).collect();
    lab.lease(&clients[0], 1, &["phone", "vlan"]);
    lab.acquire(&clients[1], 1, &["2:phone"]);
    let mut pinned = claim(&["phone/all", "vlan"]);
    pinned.priority = 3;
    lab.acquire_call(&clients[2], 7, pinned);
    lab.call(clients[3].socket, Call::Cancel { request: 4 });
    lab.go();
    let before = lab.machine.broker().state().tables();
    let queue = lab.machine.broker().state().queue.clone();
    let lab = lab.restarted(5_000);
    let mut after = lab.machine.broker().state().tables();
    assert_eq!(lab.machine.broker().state().queue, queue);
    assert_eq!(after.lab.term, before.lab.term + 1);
    assert!(after.lab.now >= before.lab.now.plus(5_000));
    after.lab = before.lab;
    assert_eq!(after, before);
}

#[test]
fn the_queue_goes_on_in_its_order_with_larger_fences() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let mut clients: Vec<_> = (0..3).map(|_| lab.client(60_000)).collect();
    let mut held = lab.lease(&clients[0], 1, &["phone"]);
    lab.acquire(&clients[1], 1, &["phone"]);
    lab.acquire(&clients[2], 1, &["phone"]);
    for next in 1..3 {
        lab = lab.restarted(1_000);
        for client in clients.iter_mut().rev() {
            lab.resume(client);
        }
        lab.release_call(&clients[next - 1], held);
        lab.go();
        let granted = lab.lease_of(&clients[next], 1).expect("the senior's turn");
        assert!(granted > held);
        held = granted;
    }
    assert_eq!(held, LeaseId(3));
}

#[test]
fn a_repeat_after_a_restart_is_the_same_claim() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let mut client = lab.client(60_000);
    let lease = lab.lease(&client, 5, &["phone"]);
    lab.acquire(&client, 6, &["phone"]);
    let mut lab = lab.restarted(1_000);
    lab.resume(&mut client);
    assert_eq!(lab.lease(&client, 5, &["phone"]), lease);
    assert_eq!(lab.acquire(&client, 6, &["phone"]).state, "queued");
    let other = lab.acquire_call(&client, 6, claim(&["2:phone"]));
    lab.go();
    assert_eq!(lab.refusal(&other), "request_id_reused");
    assert_eq!(lab.machine.broker().state().claims.len(), 1);
}

#[test]
fn what_was_not_committed_was_not_told_and_is_not_there() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let mut client = lab.client(60_000);
    let lost = lab.acquire_call(&client, 1, claim(&["phone"]));
    assert!(lab.step());
    assert!(!lab.is_answered(&lost));
    let mut lab = lab.restarted(1_000);
    assert!(lab.resume(&mut client).state.claims.is_empty());
    lab.lease(&client, 1, &["phone"]);
}

#[test]
fn lab_time_never_goes_back() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let mut client = lab.client(TTL);
    let mut seen = LabTime(0);
    let day = 86_400_000;
    for (request, jump) in (1..).zip([-day, -1, 0, 3_000, -3_000]) {
        lab.wait(700);
        let lease = lab.lease(&client, request, &["phone"]);
        lab.release_call(&client, lease);
        lab.go();
        let before = lab.lab_now();
        assert!(before >= seen);
        seen = before;
        let wall_ms = lab.wall_ms + jump;
        lab = lab.restarted_at(wall_ms);
        assert!(lab.lab_now() >= seen, "the wall clock was put {jump} ms elsewhere");
        lab.resume(&mut client);
    }
}

#[test]
fn the_time_of_a_failure_counts_as_lab_time() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let client = lab.client(60_000);
    lab.acquire_call(&client, 1, claim(&["phone"]));
    assert!(lab.step());
    lab.fail();
    lab.stand_still(20_000);
    lab.resolve(false);
    lab.commit();
    lab.stand_still(1_000);
    let before = lab.lab_now();
    let lab = lab.restarted(0);
    assert!(lab.lab_now() >= before, "though nothing but a probe was stored since");
}
