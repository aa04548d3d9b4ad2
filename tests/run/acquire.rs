//! `acquire` in the foreground: lines of JSON for whatever language reads them.

use nix::sys::signal::Signal;
use serde_json::Value;

use super::common::broker::Broker;
use super::common::process::Process;
use super::{ONE_PHONE, ONE_PHONE_3S, all_free};

/// Starts one for the phone.
fn acquire(broker: &Broker, options: &[&str]) -> Process {
    broker.spawn(&[&["acquire", "-n", "phone"], options].concat())
}

/// The next line, which tells of this event.
#[track_caller]
fn event(acquire: &Process, event: &str) -> Value {
    let line = acquire.stdout.next().unwrap_or_else(|| panic!("no {event}; stderr:\n{}", acquire.stderr.text()));
    let value: Value = serde_json::from_str(&line).expect("a line is JSON");
    assert_eq!(value["event"], event, "{value}");
    value
}

/// All lines from the next one to this event, whose line is answered.
#[track_caller]
fn event_after_others(acquire: &Process, event: &str, others: &[&str]) -> Value {
    loop {
        let line = acquire.stdout.next().unwrap_or_else(|| panic!("no {event}; stderr:\n{}", acquire.stderr.text()));
        let value: Value = serde_json::from_str(&line).expect("a line is JSON");
        if value["event"] == event {
            return value;
        }
        assert!(others.iter().any(|other| value["event"] == **other), "{value}");
    }
}

#[test]
fn it_tells_what_it_got_and_holds_until_a_signal() {
    let broker = Broker::with_inventory(ONE_PHONE);
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut acquire = acquire(&broker, &["--hold", "1h"]);
        let granted = event(&acquire, "granted");
        assert_eq!(granted["fence"], granted["lease"]);
        assert_eq!(granted["resources"]["phone"][0]["name"], "pixel");
        assert_eq!(granted["environment"]["LEASEHOLD_PHONE_LABEL_API"], "34");
        assert_eq!(granted["environment"]["LEASEHOLD_LEASE"], granted["lease"].to_string());
        assert!(granted["until"].is_u64() && granted["until_time"].is_string(), "{granted}");
        assert!(!all_free(&broker));
        acquire.signal(signal);
        acquire.wait().exits(0);
        assert_eq!(acquire.stdout.next(), None);
        assert!(all_free(&broker));
    }
}

#[test]
fn it_holds_while_stdin_is_open() {
    let broker = Broker::with_inventory(ONE_PHONE);
    let mut first = acquire(&broker, &["--while-stdin"]);
    event(&first, "granted");
    let mut second = acquire(&broker, &["--while-stdin"]);
    second.stderr.wait_for("waiting, place 1");
    first.write("whatever is typed is ignored\n");
    first.close_stdin();
    first.wait().exits(0);
    event(&second, "granted");
    second.close_stdin();
    second.wait().exits(0);
    assert!(all_free(&broker));
}

#[test]
fn a_killed_one_is_as_a_dropped_connection() {
    let broker = Broker::with_inventory(ONE_PHONE_3S);
    let mut killed = acquire(&broker, &[]);
    event(&killed, "granted");
    let mut next = broker.session("next@desk");
    next.acquire(&["phone"]);
    killed.signal(Signal::SIGKILL);
    next.notice("lease.granted");
}

#[test]
fn what_cannot_be_had_is_told_by_the_exit_code() {
    let broker = Broker::with_inventory(ONE_PHONE);
    let impossible = broker.cli(&["acquire", "-n", "phone,os=ios"]).exits(125);
    assert!(impossible.stdout.is_empty() && impossible.stderr.contains("os=ios"), "{impossible:?}");
    let mut holder = broker.session("holder@desk");
    holder.lease(&["phone"]);
    acquire(&broker, &["--wait", "0"]).wait().exits(124);
    acquire(&broker, &["--wait", "500ms"]).wait().exits(124);
    let mut waiting = acquire(&broker, &[]);
    waiting.stderr.wait_for("waiting, place 1");
    waiting.signal(Signal::SIGTERM);
    assert_eq!(waiting.wait().exits(143).stdout, "");
}

#[test]
fn an_end_of_the_lease_is_told_and_exits_120() {
    let broker = Broker::with_inventory(ONE_PHONE_3S);
    let mut revoked = acquire(&broker, &[]);
    let lease = event(&revoked, "granted")["lease"].to_string();
    broker.cli(&["lease", "revoke", &lease, "--reason", "a demo"]).exits(0);
    let ending = event(&revoked, "ending");
    assert_eq!(ending["why"], "revoked");
    assert!(ending["message"].as_str().is_some_and(|message| message.contains("a demo")), "{ending}");
    event(&revoked, "lost");
    revoked.wait().exits(120);

    let mut held = acquire(&broker, &["--hold", "1s"]);
    event(&held, "granted");
    assert_eq!(event(&held, "expiring")["reason"], "hold");
    assert_eq!(event(&held, "ending")["why"], "hold_ended");
    event(&held, "lost");
    held.wait().exits(120);
}

#[test]
fn a_lease_released_by_somebody_else_of_its_owner_is_told() {
    let broker = Broker::with_inventory(ONE_PHONE);
    let mut acquire = acquire(&broker, &[]);
    let lease = event(&acquire, "granted")["lease"].to_string();
    broker.sh(&format!("release {lease} --outcome passed")).exits(0);
    assert_eq!(event(&acquire, "lost")["why"], "released");
    acquire.wait().exits(120);
    assert!(all_free(&broker));
}

#[test]
fn a_broker_that_goes_is_told_and_so_is_one_that_comes_back() {
    let mut broker = Broker::with_inventory(ONE_PHONE);
    let mut acquire = acquire(&broker, &["--while-stdin"]);
    event(&acquire, "granted");
    broker.restart();
    event(&acquire, "offline");
    event(&acquire, "online");
    acquire.close_stdin();
    acquire.wait().exits(0);
    assert!(all_free(&broker));
}

#[test]
fn a_broker_gone_for_good_loses_the_lease() {
    let mut broker = Broker::with_inventory(ONE_PHONE_3S);
    let mut acquire = acquire(&broker, &["--while-stdin"]);
    event(&acquire, "granted");
    broker.kill9();
    event_after_others(&acquire, "expiring", &["offline"]);
    event_after_others(&acquire, "lost", &["offline"]);
    // Stdin is still open: it left because there is nothing to hold any more.
    super::common::wait::until("it has ended", || acquire.poll().is_some());
    acquire.wait().exits(120);
}
