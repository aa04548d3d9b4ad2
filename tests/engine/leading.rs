//! The engine's task over a store that brokers share: it beats, it looks, and it ends when it leads
//! no more.

use leasehold::engine::Ended;
use leasehold::engine::input::{Call, Outgoing};
use leasehold::protocol::error::CloseReason;
use leasehold::store::Sharing;
use leasehold::store::faulty::CommitFault;

use super::broker::{Broker, Client, claim_of};
use super::words::claim;

/// A term and a beat so long that neither comes about by itself.
const FOR_EVER: Sharing = Sharing { term_ms: 600_000, beat_ms: 600_000 };

/// Whatever else a socket is told; answers whether it ended with a Close for those who go on elsewhere.
async fn is_sent_away(mut client: Client) -> bool {
    let mut last = client.told.pop();
    while let Some(told) = client.next().await {
        last = Some(told);
    }
    matches!(last, Some(Outgoing::Close { reason: CloseReason::Standby, .. }))
}

#[tokio::test]
async fn renewals_are_answered_after_a_look_and_one_is_for_all() {
    let broker = Broker::leading(&[("phone", 1)], FOR_EVER).await;
    let (mut one, mut other) = (broker.client().await, broker.client().await);
    broker.faults.stall_looks();
    let first = one.send(Call::Renew { renewal: one.renewal }).await;
    broker.faults.looks_stalled(1).await;
    let mut later = Vec::new();
    for _ in 0..5 {
        later.push(other.send(Call::Renew { renewal: other.renewal }).await);
    }
    other.call(Call::List).await.expect("it gives no time");
    one.call(Call::List).await.expect("it gives no time");
    assert!(!one.told.iter().chain(&other.told).any(|told| matches!(told, Outgoing::Answer { .. })));
    broker.faults.looks_go_on();
    one.answer(&first).await.expect("a renewal");
    for call in &later {
        other.answer(call).await.expect("a renewal");
    }
    assert_eq!(broker.faults.led().iter().filter(|call| **call == "look").count(), 2);
}

#[tokio::test]
async fn a_look_that_fails_is_repeated() {
    let broker = Broker::leading(&[("phone", 1)], FOR_EVER).await;
    let mut client = broker.client().await;
    broker.faults.fail_look(2);
    client.renew().await;
    assert_eq!(broker.faults.led().iter().filter(|call| **call == "look").count(), 3);
}

#[tokio::test]
async fn no_renewal_is_answered_once_another_leads() {
    let mut broker = Broker::leading(&[("phone", 1)], FOR_EVER).await;
    let mut client = broker.client().await;
    broker.faults.depose("ws://other:5327");
    let renewal = client.send(Call::Renew { renewal: client.renewal }).await;
    assert_eq!(broker.ended().await, Ended::Deposed { by: Some("ws://other:5327".to_owned()) });
    assert!(broker.handle.health().borrow().ended, "it is not ready");
    assert!(!client.told.iter().any(|told| matches!(told, Outgoing::Answer { id, .. } if *id == renewal)));
    assert!(is_sent_away(client).await);
    let refused = broker.handle.read(|view| view.batch).await.expect_err("the engine is gone");
    assert_eq!(refused.data.code, "unavailable");
}

#[tokio::test]
async fn nothing_of_a_batch_is_told_once_another_leads() {
    let mut broker = Broker::leading(&[("phone", 1)], FOR_EVER).await;
    let mut client = broker.client().await;
    broker.faults.stall();
    let acquire = client.send_acquire(1, claim(&["phone"])).await;
    broker.faults.stalled(1).await;
    broker.faults.fail_commit(CommitFault::After);
    broker.faults.depose("ws://other:5327");
    broker.faults.go_on();
    assert!(matches!(broker.ended().await, Ended::Deposed { .. }));
    assert!(!client.told.iter().any(|told| matches!(told, Outgoing::Answer { id, .. } if *id == acquire)));
    assert!(is_sent_away(client).await);
}

#[tokio::test]
async fn a_leader_that_writes_nothing_beats() {
    let broker = Broker::leading(&[("phone", 1)], Sharing { term_ms: 600_000, beat_ms: 1 }).await;
    let before = broker.faults.led().iter().filter(|call| **call == "beat").count();
    broker.faults.called("beat", before + 3).await;
    broker.client().await.renew().await;
}

#[tokio::test]
async fn a_leader_that_writes_needs_no_beat() {
    let broker = Broker::leading(&[("phone", 1)], FOR_EVER).await;
    let mut client = broker.client().await;
    client.acquire(1, &["phone"]).await.unwrap();
    client.renew().await;
    assert!(!broker.faults.led().contains(&"beat"));
}

#[tokio::test]
async fn a_term_without_a_write_ends_the_lead_though_the_store_hangs() {
    let mut broker = Broker::leading(&[("phone", 1)], Sharing { term_ms: 5_000, beat_ms: 600_000 }).await;
    let mut client = broker.client().await;
    broker.faults.stall();
    let acquire = client.send_acquire(1, claim(&["phone"])).await;
    assert_eq!(broker.ended().await, Ended::TermOver);
    assert!(!client.told.iter().any(|told| matches!(told, Outgoing::Answer { id, .. } if *id == acquire)));
    assert!(is_sent_away(client).await);
}

#[tokio::test]
async fn a_term_of_failed_reopenings_ends_the_lead() {
    let mut broker = Broker::leading(&[("phone", 1)], Sharing { term_ms: 5_000, beat_ms: 600_000 }).await;
    let mut client = broker.client().await;
    broker.faults.fail_commit(CommitFault::Before);
    broker.faults.fail_reopen(u32::MAX);
    let doubtful = client.send_acquire(1, claim(&["phone"])).await;
    assert_eq!(broker.ended().await, Ended::TermOver);
    assert!(!client.told.iter().any(|told| matches!(told, Outgoing::Answer { id, .. } if *id == doubtful)));
    assert!(is_sent_away(client).await);
}

#[tokio::test]
async fn a_planned_hand_over_finishes_the_write_under_way_and_gives_up_last() {
    let mut broker = Broker::leading(&[("phone", 1)], FOR_EVER).await;
    let mut client = broker.client().await;
    broker.faults.stall();
    let acquire = client.send_acquire(1, claim(&["phone"])).await;
    broker.faults.stalled(1).await;
    let later = client.send_acquire(2, claim(&["phone"])).await;
    broker.handle.hand_over();
    let mut health = broker.handle.health();
    health.wait_for(|health| health.stopping).await.expect("an engine");
    broker.faults.go_on();
    assert_eq!(broker.ended().await, Ended::GaveUp);
    assert_eq!(broker.faults.led().last(), Some(&"give up"));
    assert_eq!(claim_of(client.answer(&acquire).await).unwrap().state, "granted", "it was stored in time");
    assert!(!client.told.iter().any(|told| matches!(told, Outgoing::Answer { id, .. } if *id == later)));
    assert!(!is_sent_away(client).await, "whoever serves the socket sends it on, once another leads");
}

#[tokio::test]
async fn a_write_without_an_end_is_not_waited_for_and_nothing_given_up() {
    let mut broker = Broker::leading(&[("phone", 1)], FOR_EVER).await;
    let mut client = broker.client().await;
    broker.faults.stall();
    client.send_acquire(1, claim(&["phone"])).await;
    broker.faults.stalled(1).await;
    broker.handle.hand_over();
    assert_eq!(broker.ended().await, Ended::TermOver);
    assert!(!broker.faults.led().contains(&"give up"));
}

#[tokio::test]
async fn a_leader_that_nobody_needs_any_more_gives_up() {
    let broker = Broker::leading(&[("phone", 1)], FOR_EVER).await;
    let client = broker.client().await;
    let faults = broker.faults.clone();
    drop(client);
    broker.stored().await;
    assert_eq!(faults.led().last(), Some(&"give up"));
}
