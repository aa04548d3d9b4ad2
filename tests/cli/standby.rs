//! Commands where the URL is that of a broker that stands by, or where several are given.

use std::io::{Read, Write};
use std::net::TcpListener;

use serde_json::json;

use super::LAB;
use super::common::broker::Broker;
use super::common::process::{self, Process};
use super::common::proxy::Proxy;
use super::common::standby::Standby;
use super::common::wait::until;

#[test]
fn a_standby_sends_every_command_to_the_leader() {
    let broker = Broker::with_inventory(LAB);
    let standby = Standby::of(broker.port());
    let at_standby = |line: &str| {
        let mut command = broker.command(&line.split(' ').collect::<Vec<_>>());
        process::run(command.env("LEASEHOLD_URL", standby.url()))
    };
    let resources = at_standby("resource ls --json").exits(0).json();
    assert_eq!(resources, broker.sh("resource ls --json").exits(0).json());
    let name = resources[0]["name"].as_str().expect("a name").to_owned();
    at_standby(&format!("resource drain {name} --reason x")).exits(0);
    let shown = at_standby(&format!("resource show {name} --json")).exits(0).json();
    assert!(shown["drained"].is_object(), "{shown}");
    at_standby("resource rm nothing").exits(1);
    let report = at_standby("bench -c 2 --duration 300ms --warm-up 10ms --json").exits(0).json();
    assert!(report["cycles_per_s"].as_u64().is_some_and(|cycles| cycles > 0), "{report}");
}

#[test]
fn a_command_waits_for_a_takeover() {
    let broker = Broker::with_inventory(LAB);
    let (standby, other) = (Standby::new(), Standby::new());
    let mut command = broker.command(&["lease", "ls", "--json"]);
    let mut waits = Process::start(command.env("LEASEHOLD_URL", format!("{},{}", other.url(), standby.url())));
    until("both are asked more than once", || standby.asked() > 1 && other.asked() > 1);
    standby.knows(Some(broker.port()));
    assert_eq!(waits.wait().exits(0).json(), json!([]));
}

#[test]
fn with_no_broker_behind_any_url_each_is_named_at_once() {
    let broker = Broker::with_inventory(LAB);
    let output =
        process::run(broker.command(&["lease", "ls"]).env("LEASEHOLD_URL", "ws://127.0.0.1:1,ws://127.0.0.1:2"));
    let told = output.exits(125).stderr;
    assert!(told.contains("ws://127.0.0.1:1:") && told.contains("ws://127.0.0.1:2:"), "{told}");
}

/// Takes requests, and closes without an answer.
fn swallows() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = listener.local_addr().expect("it is bound").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 4096]).and_then(|_| stream.flush());
        }
    });
    port
}

#[test]
fn what_was_sent_and_not_answered_is_sent_again_only_if_that_is_the_same_as_once() {
    let broker = Broker::with_inventory(LAB);
    let urls = format!("ws://127.0.0.1:{},{}", swallows(), broker.url());
    let with = |line: &str| {
        let mut command = broker.command(&line.split(' ').collect::<Vec<_>>());
        process::run(command.env("LEASEHOLD_URL", &urls))
    };
    let resources = with("resource ls --json").exits(0).json();
    let name = resources[0]["name"].as_str().expect("a name");
    let told = with(&format!("resource drain {name}")).exits(125).stderr;
    assert!(told.contains("not known whether this was done"), "{told}");
    let shown = broker.sh(&format!("resource show {name} --json")).exits(0).json();
    assert!(!shown["drained"].is_object(), "it was asked of nobody else: {shown}");
}

#[test]
fn events_are_followed_at_whoever_leads() {
    let broker = Broker::with_inventory(LAB);
    let (first, second) = (Proxy::to(broker.port()), Proxy::to(broker.port()));
    let mut command = broker.command(&["events", "--follow", "--json"]);
    let follows = Process::start(command.env("LEASEHOLD_URL", format!("{},{}", first.url(), second.url())));
    let resources = broker.sh("resource ls --json").exits(0).json();
    let name = resources[0]["name"].as_str().expect("a name");
    broker.sh(&format!("resource drain {name}")).exits(0);
    follows.stdout.wait_for("drained");
    first.refuse();
    broker.sh(&format!("resource undrain {name}")).exits(0);
    follows.stdout.wait_for("undrained");
    assert!(second.accepted() > 0);
}
