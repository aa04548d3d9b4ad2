//! Planned stops: of a leader with and without somebody to take over, and of one that stands by.

use leasehold::testing::postgres;
use nix::sys::signal::Signal;
use serde_json::json;

use super::brokers::{Broker, pair};
use super::common::wait::until;
use super::common::ws::Client;
use super::{LAB, number, resume};

#[test]
fn a_leader_that_is_told_to_stop_hands_over() {
    let Some(server) = postgres::shared() else { return };
    let (mut first, second) = pair(&server.database(), LAB);
    until("the leader knows of the other", || first.status()["brokers"].as_array().is_some_and(|all| all.len() == 2));
    let mut holder = Client::connect(first.port);
    holder.open("holder");
    let lease = number(&holder.lease(&["phone"])["lease"]);
    first.process().signal(Signal::SIGTERM);
    let (code, words) = holder.closed();
    assert_eq!(code, 1001, "{words}");
    // It was silent, and not sent away, until there was another to come to.
    let epoch = second.get("/v1/status").json()["epoch"].clone();
    let output = first.end(Signal::SIGCONT).exits(0);
    let in_vain = output.stderr.contains("no other broker was seen to take the lead");
    assert!(epoch == 2 || in_vain, "{epoch}: {}", output.stderr);
    assert!(output.stderr.contains("the lead goes to the broker that stands by"), "{}", output.stderr);
    second.wait_leads();
    let resumed = resume(second.port, &holder);
    assert_eq!(resumed.opened["state"]["claims"][0]["lease"]["lease"], json!(lease));
    // Nobody was promised longer: somebody else is there.
    assert_eq!(resumed.opened["promise_ms"], resumed.opened["ttl_ms"], "{}", resumed.opened);
    // What the stopped one noted of itself is gone with it.
    until("it is forgotten", || second.status()["brokers"].as_array().is_some_and(|all| all.len() == 1));
}

#[test]
fn a_hand_over_to_nobody_ends_all_the_same() {
    let Some(server) = postgres::shared() else { return };
    let (mut first, mut second) = pair(&server.database(), LAB);
    let mut holder = Client::connect(first.port);
    holder.open("holder");
    // It noted itself a moment ago, and is believed to be there for three terms.
    second.process().signal(Signal::SIGSTOP);
    first.process().signal(Signal::SIGTERM);
    let (code, words) = holder.closed();
    assert_eq!(code, 1001, "{words}");
    let output = first.end(Signal::SIGCONT).exits(0);
    assert!(output.stderr.contains("no other broker was seen to take the lead"), "{}", output.stderr);
    second.process().signal(Signal::SIGCONT);
    second.wait_leads();
    resume(second.port, &holder);
}

#[test]
fn a_leader_alone_promises_longer_and_leaves_the_lead_free() {
    let Some(server) = postgres::shared() else { return };
    let mut alone = Broker::on(&server.database(), Some(LAB)).started();
    alone.wait_leads();
    let mut holder = Client::connect(alone.port);
    holder.open("holder");
    let lease = number(&holder.lease(&["phone"])["lease"]);
    alone.process().signal(Signal::SIGTERM);
    holder.notice("session.renew_now");
    let promised = holder.call("session.renew", json!({ "renewal": holder.opened["renewal"] }));
    assert_eq!(promised["promise_ms"], 300_000, "{promised}");
    let (code, words) = holder.closed();
    assert_eq!((code, words.starts_with("stopping")), (1001, true), "{words}");
    alone.end(Signal::SIGCONT).exits(0);
    alone.start();
    alone.wait_leads();
    // It had not to wait a term for itself: it never stood by.
    assert!(!alone.said().contains("standing by"), "{}", alone.said());
    let resumed = resume(alone.port, &holder);
    assert_eq!(resumed.opened["state"]["claims"][0]["lease"]["lease"], json!(lease));
}

#[test]
fn a_standby_goes_at_once_and_is_no_heir() {
    let Some(server) = postgres::shared() else { return };
    let (mut first, mut second) = pair(&server.database(), LAB);
    let output = second.end(Signal::SIGTERM).exits(0);
    assert!(output.stderr.contains("leasehold: stopped\n"), "{}", output.stderr);
    let mut holder = Client::connect(first.port);
    holder.open("holder");
    first.process().signal(Signal::SIGTERM);
    // So this is the stop of a leader alone.
    holder.notice("session.renew_now");
    holder.call("session.renew", json!({ "renewal": holder.opened["renewal"] }));
    first.end(Signal::SIGCONT).exits(0);
}

#[test]
fn all_are_stopped_one_after_the_other_and_started_again() {
    let Some(server) = postgres::shared() else { return };
    let (mut first, mut second) = pair(&server.database(), LAB);
    let mut holder = Client::connect(first.port);
    holder.open("holder");
    let lease = number(&holder.lease(&["phone"])["lease"]);
    for _ in 0..2 {
        first.end(Signal::SIGTERM).exits(0);
        second.wait_leads();
        holder = resume(second.port, &holder);
        assert_eq!(holder.opened["state"]["claims"][0]["lease"]["lease"], json!(lease), "{}", holder.opened);
        first.start();
        first.wait_follows(&second);
        std::mem::swap(&mut first, &mut second);
    }
}
