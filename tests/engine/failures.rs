//! A store that fails: what was told is what it holds, and the broker recovers by itself.

use leasehold::engine::input::{Call, Notice, Outgoing};
use leasehold::store::faulty::CommitFault;

use super::broker::{Broker, claim_of};
use super::words::claim;

const FAULTS: [CommitFault; 3] = [CommitFault::Before, CommitFault::In, CommitFault::After];

#[tokio::test]
async fn what_was_told_is_what_the_store_holds() {
    for fault in FAULTS {
        let broker = Broker::of(&[("phone", 2)]).await;
        let mut client = broker.client().await;
        let kept = client.acquire(1, &["phone"]).await.unwrap();
        broker.faults.fail_commit(fault);
        let doubtful = client.acquire(2, &["phone"]).await;
        match (&doubtful, fault) {
            (Ok(told), CommitFault::After) => assert_eq!(told.state, "granted"),
            (Err(code), CommitFault::Before | CommitFault::In) => assert_eq!(code, "unavailable"),
            other => panic!("{other:?}"),
        }
        client.renew().await;
        broker.store_is(false).await;
        let again = client.acquire(2, &["phone"]).await.expect("a repeat");
        assert_eq!(again.state, "granted");
        if let Ok(told) = doubtful {
            assert_eq!(told.lease.map(|lease| lease.lease), again.lease.as_ref().map(|lease| lease.lease));
        }
        let session = client.session;
        drop(client);
        let tables = broker.stored().await;
        let leases: Vec<u64> = tables.leases.iter().map(|lease| lease.id.0).collect();
        assert_eq!(
            leases,
            [kept.lease.unwrap().lease, again.lease.unwrap().lease],
            "one claim for two asks: {fault:?}"
        );
        assert!(tables.sessions.iter().any(|stored| stored.id.0 == session));
    }
}

#[tokio::test]
async fn renewals_are_answered_while_a_commit_stands_still() {
    let broker = Broker::of(&[("phone", 1)]).await;
    let (mut client, mut other) = (broker.client().await, broker.client().await);
    broker.faults.stall();
    let acquired = client.send_acquire(1, claim(&["phone"])).await;
    broker.faults.stalled(1).await;
    for _ in 0..10 {
        client.renew().await;
        other.renew().await;
    }
    broker.faults.fail_commit(CommitFault::Before);
    broker.faults.go_on();
    assert_eq!(claim_of(client.answer(&acquired).await), Err("unavailable".to_owned()));
    client.renew().await;
}

#[tokio::test]
async fn health_and_clients_are_told_while_it_fails_and_when_it_works() {
    let broker = Broker::of(&[("phone", 1)]).await;
    let mut client = broker.client().await;
    broker.faults.fail_commit(CommitFault::Before);
    broker.faults.fail_reopen(u32::MAX);
    let doubtful = client.send_acquire(1, claim(&["phone"])).await;
    broker.store_is(true).await;
    client.renew().await;
    assert_eq!(client.acquire(2, &["phone"]).await.unwrap_err(), "unavailable");
    let listed = broker.handle.read(|view| view.state.leases.len()).await;
    assert_eq!(listed.expect_err("the books are in doubt").data.code, "unavailable");
    broker.faults.fail_reopen(1);
    assert_eq!(claim_of(client.answer(&doubtful).await), Err("unavailable".to_owned()));
    broker.store_is(false).await;
    assert_eq!(client.acquire(1, &["phone"]).await.unwrap().state, "granted");
    let store: Vec<bool> = client
        .told
        .iter()
        .filter_map(|told| match told {
            Outgoing::Notice(Notice::Store(store)) => Some(store.working),
            _ => None,
        })
        .collect();
    assert_eq!(store, [false, true]);
    assert_eq!(broker.handle.read(|view| view.state.leases.len()).await.unwrap(), 1);
}

#[tokio::test]
async fn nothing_is_granted_before_the_store_took_a_probe() {
    let broker = Broker::of(&[("phone", 1)]).await;
    let (mut holder, mut waiter) = (broker.client().await, broker.client().await);
    holder.acquire(1, &["phone"]).await.unwrap();
    assert_eq!(waiter.acquire(1, &["phone"]).await.unwrap().state, "queued");
    broker.faults.fail_commit(CommitFault::Before);
    broker.faults.fail_reopen(u32::MAX);
    let failed = holder.send(Call::Cancel { request: 9 }).await;
    broker.store_is(true).await;
    broker.faults.stall();
    broker.faults.fail_reopen(0);
    broker.faults.stalled(1).await;
    assert!(holder.answer(&failed).await.is_err());
    // A clean close comes in while the store fails: it frees after the recovery, and no sooner.
    assert!(broker.handle.health().borrow().store_failure.is_some());
    holder.leave(true).await;
    waiter.renew().await;
    assert!(!waiter.told.iter().any(|told| matches!(told, Outgoing::Notice(Notice::Granted(_)))));
    broker.faults.go_on();
    assert_eq!(waiter.granted().await.state, "granted");
    assert!(broker.handle.health().borrow().store_failure.is_none());
}

#[tokio::test]
async fn a_clean_close_whose_batch_failed_twice_frees() {
    let broker = Broker::of(&[("phone", 1)]).await;
    let (mut holder, mut waiter) = (broker.client().await, broker.client().await);
    holder.acquire(1, &["phone"]).await.unwrap();
    waiter.acquire(1, &["phone"]).await.unwrap();
    broker.faults.fail_commit(CommitFault::Before);
    broker.faults.fail_reopen(u32::MAX);
    holder.leave(true).await;
    broker.store_is(true).await;
    // The probe after it, which ends the session anew, fails as well.
    broker.faults.fail_commit(CommitFault::In);
    broker.faults.fail_reopen(0);
    assert_eq!(waiter.granted().await.state, "granted");
    drop(waiter);
    let tables = broker.stored().await;
    assert_eq!(tables.sessions.len(), 1);
    assert_eq!(tables.leases.len(), 1);
}

#[tokio::test]
async fn who_reads_too_slowly_is_cut_off_and_harms_nobody() {
    let broker = Broker::of(&[("phone", 1)]).await;
    let mut other = broker.client().await;
    let mut slow = broker.connect(8).await;
    for _ in 0..9 {
        slow.send(Call::List).await;
    }
    while slow.next().await.is_some() {}
    assert_eq!(broker.handle.metrics().slow_readers.load(std::sync::atomic::Ordering::Relaxed), 1);
    other.renew().await;
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let broker = Broker::of(&[("phone", 2)]).await;
    let (mut holder, mut waiter) = (broker.client().await, broker.client().await);
    holder.acquire(1, &["phone"]).await.unwrap();
    waiter.acquire(1, &["2:phone"]).await.unwrap();
    drop((holder, waiter));
    let broker = broker.restarted().await;
    let seen = broker.handle.read(|view| view.state.tables()).await.unwrap();
    let mut stored = broker.stored().await;
    assert_eq!((stored.leases.len(), stored.claims.len(), stored.sessions.len()), (1, 1, 2));
    stored.lab.now = seen.lab.now;
    let books = leasehold::core::tables::Tables {
        batch: stored.batch,
        last_event: stored.last_event,
        wall_ms: stored.wall_ms,
        ..seen
    };
    assert_eq!(stored, books, "what the tables hold is what the books say");
}
