//! The lead moves to another broker when its own is gone, and everything that was told goes with it.

use leasehold::client::{self, BaseUrl, Event, Options};
use leasehold::clock::boot_now;
use leasehold::protocol::call::ClaimRequest;
use leasehold::testing::postgres;
use nix::sys::signal::Signal;
use serde_json::json;

use super::brokers::pair;
use super::common::wait::{clock_reaches, until};
use super::common::ws::Client;
use super::{LAB, number, resume};

/// The default term, milliseconds.
const TERM_MS: u64 = 2_000;

#[test]
fn a_killed_leader_is_followed_with_leases_places_and_request_ids() {
    let Some(server) = postgres::shared() else { return };
    let (mut first, second) = pair(&server.database(), LAB);
    let mut holder = Client::connect(first.port);
    holder.open("holder");
    let one = number(&holder.lease(&["phone,name=phone-1"])["lease"]);
    let two = number(&holder.lease(&["phone,name=phone-2"])["lease"]);
    let waiting: Vec<Client> = ["a", "b"]
        .map(|owner| {
            let mut client = Client::connect(first.port);
            client.open(owner);
            assert_eq!(client.acquire(&["phone"])["state"], "queued");
            client
        })
        .into();
    first.end(Signal::SIGKILL);
    second.wait_leads();
    assert_eq!(second.status()["epoch"], 2);

    let mut holder = resume(second.port, &holder);
    let held = &holder.opened["state"]["claims"];
    assert_eq!((&held[0]["lease"]["lease"], &held[1]["lease"]["lease"]), (&json!(one), &json!(two)), "{held}");
    // Asked twice, granted once.
    let again = holder.call("lease.acquire", json!({ "request_id": 1, "needs": ["phone,name=phone-1"] }));
    assert_eq!(again["lease"]["lease"], json!(one), "{again}");
    let mut waiting: Vec<Client> = waiting.iter().map(|client| resume(second.port, client)).collect();
    for (place, client) in waiting.iter().enumerate() {
        assert_eq!(client.opened["state"]["claims"][0]["place"], place + 1, "{}", client.opened);
    }
    holder.release(one);
    let granted = waiting[0].notice("lease.granted");
    assert!(number(&granted["lease"]["fence"]) > two, "fences go on: {granted}");

    first.start();
    first.wait_follows(&second);
}

#[test]
fn a_leader_that_was_frozen_steps_down_when_it_wakes_and_stands_by() {
    let Some(server) = postgres::shared() else { return };
    let (mut first, second) = pair(&server.database(), LAB);
    let mut holder = Client::connect(first.port);
    holder.open("holder");
    let lease = number(&holder.lease(&["phone,name=phone-1"])["lease"]);
    first.process().signal(Signal::SIGSTOP);
    second.wait_leads();
    clock_reaches(boot_now().plus(TERM_MS));
    let resumed = resume(second.port, &holder);
    assert_eq!(resumed.opened["state"]["claims"][0]["lease"]["lease"], json!(lease));
    // What waits for it when it wakes is answered nothing that gives time.
    let asked = holder.ask("session.renew", json!({}));
    first.process().signal(Signal::SIGCONT);
    first.wait_follows(&second);
    // It serves as one that stands by a moment before it says why.
    until("it says so", || first.said().contains("the lead is lost"));
    let answer = holder.answer_or_close(asked);
    assert!(answer.is_none(), "a broker that leads no more gave time: {answer:?}");
    assert!(first.get("/metrics").body.contains("leasehold_leads_lost_total 1\n"));

    // And back again.
    let mut second = second;
    second.end(Signal::SIGKILL);
    first.wait_leads();
    until("the session is known", || first.get("/v1/leases").body.contains("phone-1"));
    let back = resume(first.port, &resumed);
    assert_eq!(back.opened["state"]["claims"][0]["lease"]["lease"], json!(lease));
}

#[test]
fn a_provider_goes_along_to_the_next_leader() {
    let Some(server) = postgres::shared() else { return };
    let (mut first, mut second) = pair(&server.database(), LAB);
    std::fs::write(first.home.path().join("rig.toml"), "[[resource]]\nname = \"board-1\"\npool = \"board\"\n").unwrap();
    let mut provide = super::common::process::leasehold(first.home.path());
    let urls = format!("ws://127.0.0.1:{},ws://127.0.0.1:{}", first.port, second.port);
    provide.current_dir(first.home.path()).env("LEASEHOLD_URL", urls);
    provide.args(["provide", "rig.toml", "--name", "rack", "--ttl", "10s"]);
    let mut provide = super::common::process::Process::start(&mut provide);
    provide.stderr.wait_for("provider rack is online");
    let mut holder = Client::connect(first.port);
    holder.open("holder");
    let lease = number(&holder.lease(&["board"])["lease"]);
    first.end(Signal::SIGKILL);
    second.wait_leads();
    let mut holder = resume(second.port, &holder);
    provide.stderr.wait_for("reconnected to the broker");
    // By now it is the next leader that hears of it, or not.
    provide.signal(Signal::SIGKILL);
    provide.wait();
    assert_eq!(holder.notice("lease.offline")["resources"], json!(["board-1"]));
    let journal = second.get("/v1/journal?limit=500").body;
    assert_eq!(journal.matches("resource_offline").count(), 1, "only when it was gone itself: {journal}");
    let state = holder.call("lease.list", json!({}));
    assert_eq!(state["claims"][0]["lease"]["lease"], json!(lease), "the lease goes on");
    second.end(Signal::SIGKILL);
    first.start();
    first.wait_leads();
    let shown: serde_json::Value = serde_json::from_str(&first.get("/v1/resources/board-1").body).unwrap();
    assert_eq!((&shown["state"], &shown["origin"]), (&json!("offline"), &json!("provider:rack")), "{shown}");
}

#[test]
fn a_session_with_hundreds_of_leases_keeps_them() {
    /// What describes so many is more than a message to a broker may have.
    const LEASES: usize = 900;
    let Some(server) = postgres::shared() else { return };
    let seats =
        format!("[[pool]]\nname = \"seat\"\n[[resource]]\nname = \"seat-1\"\npool = \"seat\"\nslots = {LEASES}\n");
    let (mut first, second) = pair(&server.database(), &seats);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let urls = BaseUrl::parse_list(&format!("{},{}", first.url(), second.url())).expect("loopback URLs are bases");
        let client = client::Client::connect(Options::new(urls)).await.expect("a broker leads");
        let mut held = Vec::new();
        for _ in 0..LEASES {
            let needs = vec!["seat".to_owned()];
            held.push(client.acquire(ClaimRequest { needs, ..ClaimRequest::default() }).await.expect("a grant"));
        }
        let mut events = client.events();
        first.end(Signal::SIGKILL);
        loop {
            match events.next().await.expect("the client lives") {
                Event::Connected { resumed: true, .. } => break,
                Event::Closed(why) => panic!("closed: {why:?}"),
                Event::Lost { lease } => panic!("lease {lease} is lost"),
                _ => {}
            }
        }
        let last = held.pop().expect("hundreds of leases");
        last.release(None).await.expect("it is held still");
    });
}
