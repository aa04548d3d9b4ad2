//! A network that goes silent without closing anything: both ends find out by the clock alone,
//! the holder before the broker.

use leasehold::client::{Client, Standing};
use leasehold::clock::boot_now;
use serde_json::json;

use super::common::broker::Broker;
use super::common::proxy::Proxy;
use super::{LAB, TTL_MS, claim, granted, number, options, queue, runtime, session};

#[test]
fn a_silent_holder_is_given_up_a_ttl_after_its_last_sign_of_life() {
    let broker = Broker::with_inventory(LAB);
    let proxy = Proxy::to(broker.port());
    let mut holder = session(proxy.port(), "holder", TTL_MS);
    let lease = number(&holder.lease(&["phone,name=phone-1"])["lease"]);
    let mut next = broker.session("next");
    queue(&mut next, &["phone,name=phone-1"]);
    let heard = boot_now();
    holder.call("session.renew", json!({}));
    proxy.silence();
    let (given, at) = granted(&mut next);
    assert!(at >= heard.plus(TTL_MS), "given on {} ms after the last sign of life", at.since(heard));
    assert!(number(&given["fence"]) > lease);
    // What is heard again is heard too late.
    proxy.speak();
    assert_eq!(holder.closed().0, 4003, "the session has ended");
    let opened = &holder.opened;
    let params = json!({ "session": opened["session"], "secret": opened["secret"], "instance": "holder" });
    assert_eq!(broker.connect().refused("session.resume", params), "session_gone");
    assert_eq!(next.release(number(&given["lease"]))["why"], "released");
}

#[test]
fn a_client_stops_before_the_broker_leases_on() {
    let broker = Broker::with_inventory(LAB);
    let proxy = Proxy::to(broker.port());
    let runtime = runtime();
    let (client, mut lease) = runtime.block_on(async {
        let client = Client::connect(options(&proxy.url(), "library", TTL_MS)).await.expect("a session can be opened");
        let lease = client.acquire(claim(&["phone,name=phone-1"])).await.expect("it is free");
        (client, lease)
    });
    let mut next = broker.session("next");
    queue(&mut next, &["phone,name=phone-1"]);
    proxy.silence();
    assert_eq!(runtime.block_on(lease.over()), Standing::Lost);
    // The deadline is computed, so it is the same however late this test is woken.
    let stopped_using = lease.deadline();
    let (given, at) = granted(&mut next);
    assert!(stopped_using < at, "given on at {at:?}, its use had to end at {stopped_using:?} only");
    assert!(number(&given["fence"]) > lease.lease());
    // Its session is gone by the time the network speaks again, and it says so.
    proxy.speak();
    assert_eq!(runtime.block_on(client.closed()).code(), "session_gone");
}

#[test]
fn a_short_silence_costs_nothing() {
    let broker = Broker::with_inventory(LAB);
    let proxy = Proxy::to(broker.port());
    let runtime = runtime();
    let (client, lease) = runtime.block_on(async {
        // Long enough that no machine is too slow for it.
        let client = Client::connect(options(&proxy.url(), "library", 60_000)).await.expect("a session can be opened");
        let lease = client.acquire(claim(&["phone,name=phone-1"])).await.expect("it is free");
        (client, lease)
    });
    let (session, accepted) = (client.session(), proxy.accepted());
    proxy.silence();
    proxy.cut();
    proxy.speak();
    let released = runtime.block_on(lease.release(Some("passed"))).expect("the client comes back by itself");
    assert_eq!(released.why, "released");
    assert_eq!(client.session(), session);
    assert!(proxy.accepted() > accepted, "it came back on a new connection");
}
