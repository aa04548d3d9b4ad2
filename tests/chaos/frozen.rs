//! A broker that stands still for longer than a ttl: it knows nothing of that time, so it holds
//! it against nobody. Clients do not know that, and stop in time.

use leasehold::client::{Client, Standing};
use leasehold::clock::boot_now;
use nix::sys::signal::Signal;
use serde_json::json;

use super::common::broker::Broker;
use super::common::wait::clock_reaches;
use super::{LAB, TTL_MS, claim, granted, number, options, queue, runtime, session};

#[test]
fn a_frozen_broker_gives_everyone_a_full_ttl_again() {
    let mut broker = Broker::with_inventory(LAB);
    let mut live = session(broker.port(), "live", TTL_MS);
    let kept = number(&live.lease(&["phone,name=phone-1"])["lease"]);
    let mut silent = session(broker.port(), "silent", TTL_MS);
    silent.lease(&["phone,name=phone-2"]);
    let mut next = broker.session("next");
    queue(&mut next, &["phone,name=phone-2"]);
    live.call("session.renew", json!({}));
    silent.call("session.renew", json!({}));
    broker.process().signal(Signal::SIGSTOP);
    clock_reaches(boot_now().plus(TTL_MS * 2));
    let asked = live.ask("session.renew", json!({}));
    let thawed = boot_now();
    broker.process().signal(Signal::SIGCONT);
    // Whoever speaks has everything still.
    let state = live.call("lease.list", json!({}));
    assert_eq!(state["claims"][0]["lease"]["lease"], json!(kept), "after renewal {asked}: {state}");
    // Whoever does not has a full ttl from here.
    let (_, at) = granted(&mut next);
    assert!(at >= thawed.plus(TTL_MS), "given on after {} ms", at.since(thawed));
}

#[test]
fn a_client_of_a_frozen_broker_loses_its_lease_and_gives_it_back() {
    let mut broker = Broker::with_inventory(LAB);
    let runtime = runtime();
    let (client, mut lease) = runtime.block_on(async {
        let client = Client::connect(options(&broker.url(), "library", TTL_MS)).await.expect("a session can be opened");
        let lease = client.acquire(claim(&["phone,name=phone-1"])).await.expect("it is free");
        (client, lease)
    });
    let mut next = broker.session("next");
    queue(&mut next, &["phone,name=phone-1"]);
    broker.process().signal(Signal::SIGSTOP);
    assert_eq!(runtime.block_on(lease.over()), Standing::Lost);
    let stopped_using = lease.deadline();
    broker.process().signal(Signal::SIGCONT);
    let (given, at) = granted(&mut next);
    assert!(at > stopped_using, "given on before its use had ended");
    assert!(number(&given["fence"]) > lease.lease());
    // The session is the same, and takes part again.
    let session = client.session();
    let again = runtime.block_on(client.acquire(claim(&["phone,name=phone-3"]))).expect("the session lives");
    assert_eq!(again.info().session, session.expect("it was open"));
    assert_eq!(again.state().standing, Standing::Active);
}
