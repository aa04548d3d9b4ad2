//! A lease is taken from its holder: who does not let go has it for a ttl more, and not a
//! resource of it is anybody's before.

use serde_json::{Value, json};

use super::common::broker::Broker;
use super::common::proxy::Proxy;
use super::common::ws::Client;
use super::{LAB, TTL_MS, granted, number, queue, session};
use leasehold::clock::boot_now;

/// A holder of `phone-1` behind `port`, and who waits for it at the broker itself.
fn holder_and_next(broker: &Broker, port: u16) -> (Client, u64, Client) {
    let mut holder = session(port, "holder", TTL_MS);
    let lease = number(&holder.lease(&["phone,name=phone-1"])["lease"]);
    let mut next = broker.session("next");
    queue(&mut next, &["phone,name=phone-1"]);
    (holder, lease, next)
}

fn revoke(broker: &Broker, lease: u64, force: bool) -> Value {
    let body = json!({ "force": force, "reason": "the rack is moved" });
    broker.http("POST", &format!("/v1/leases/{lease}/revoke"), Some(&body)).ok()
}

#[test]
fn a_holder_that_will_not_let_go_has_a_ttl() {
    let broker = Broker::with_inventory(LAB);
    let (mut holder, lease, mut next) = holder_and_next(&broker, broker.port());
    let before = boot_now();
    revoke(&broker, lease, false);
    let told = holder.notice("lease.ending");
    assert_eq!((&told["lease"], &told["ending"]["why"]), (&json!(lease), &json!("revoked")), "{told}");
    assert!(told["ending"]["message"].as_str().is_some_and(|text| text.contains("the rack is moved")), "{told}");
    // It lives, and its answers say that this lease is not extended.
    let renewed = holder.call("session.renew", json!({ "renewal": holder.opened["renewal"] }));
    assert_eq!(renewed["ending"], json!([lease]), "{renewed}");
    let (given, at) = loop {
        holder.attend(boot_now().plus(100));
        if let Some(claim) = next.notice_within(std::time::Duration::from_millis(1), "lease.granted") {
            break (claim["lease"].clone(), boot_now());
        }
        assert!(at_most_a_minute(before), "it never came back");
    };
    assert!(at >= before.plus(TTL_MS), "given on after {} ms", at.since(before));
    let waited = number(&given["granted_at"]) - number(&told["ending"]["since"]);
    assert!(waited >= TTL_MS, "given on {waited} ms after the ending began");
    // The lease is over, the session is not.
    assert_eq!(holder.notice("lease.ended")["why"], "revoked");
    assert_eq!(holder.lease(&["phone,name=phone-2"])["state"], "active");
}

#[test]
fn a_holder_that_lets_go_is_waited_for_no_longer() {
    let broker = Broker::with_inventory(LAB);
    let mut holder = broker.session("holder");
    let lease = number(&holder.lease(&["phone,name=phone-1"])["lease"]);
    let mut next = broker.session("next");
    queue(&mut next, &["phone,name=phone-1"]);
    revoke(&broker, lease, false);
    holder.notice("lease.ending");
    let released = holder.release(lease);
    let (given, _) = granted(&mut next);
    // Both in one step, whatever the ttl, which is 30 s here.
    assert!(number(&given["granted_at"]) <= number(&released["now"]), "{given} {released}");
    assert!(number(&given["fence"]) > lease);
}

#[test]
fn a_silent_holder_is_waited_for_as_long_as_it_may_use_it() {
    let broker = Broker::with_inventory(LAB);
    let proxy = Proxy::to(broker.port());
    let (mut holder, lease, mut next) = holder_and_next(&broker, proxy.port());
    let heard = boot_now();
    holder.call("session.renew", json!({}));
    proxy.silence();
    revoke(&broker, lease, false);
    let (_, at) = granted(&mut next);
    assert!(at >= heard.plus(TTL_MS), "given on {} ms after the last sign of life", at.since(heard));
}

#[test]
fn force_waits_for_nobody() {
    let broker = Broker::with_inventory(LAB);
    let mut holder = broker.session("holder");
    let lease = number(&holder.lease(&["phone,name=phone-1"])["lease"]);
    let mut next = broker.session("next");
    queue(&mut next, &["phone,name=phone-1"]);
    revoke(&broker, lease, true);
    let (given, _) = granted(&mut next);
    let ended = holder.notice("lease.ended");
    assert_eq!((&ended["lease"], &ended["why"]), (&json!(lease), &json!("revoked")), "{ended}");
    assert!(ended["message"].as_str().is_some_and(|text| text.contains("force")), "{ended}");
    assert_eq!(given["granted_at"], ended["now"], "in one step");
}

fn at_most_a_minute(since: leasehold::clock::BootTime) -> bool {
    boot_now().since(since) < 60_000
}
