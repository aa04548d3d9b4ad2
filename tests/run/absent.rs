//! The broker goes away: for a moment, for an upgrade, for good.

use leasehold::clock::boot_now;

use super::common::broker::Broker;
use super::common::proxy::Proxy;
use super::common::wait::until;
use super::witness::{Exclusive, Fifo, TICKS, await_file, last_tick_ms};
use super::{ONE_PHONE, ONE_PHONE_3S, TTL_MS, run};

#[test]
fn a_run_does_not_notice_that_the_broker_was_killed_and_came_back() {
    let mut broker = Broker::with_inventory(ONE_PHONE);
    let witness = Exclusive::new();
    let mut first = run(&broker, &[], &witness.script(&format!("echo here; {}; exit 7", await_file("go"))));
    first.stdout.wait_for("here");
    let mut second = run(&broker, &[], &witness.script("exit 8"));
    second.stderr.wait_for("waiting, place 1");

    broker.restart();
    first.stderr.wait_for("reconnected to the broker");
    second.stderr.wait_for("connected to the broker");
    let leases = broker.sh("lease ls --json").exits(0).json();
    assert_eq!((leases.as_array().map(Vec::len), &leases[0]["state"]), (Some(1), &"active".into()), "{leases}");
    witness.touch("go");
    first.wait().exits(7);
    second.wait().exits(8);
    assert_eq!(witness.uses().len(), 2);
}

#[test]
fn a_planned_stop_of_several_ttls_stops_nobodys_work() {
    let mut broker = Broker::with_inventory(
        "[[pool]]\nname = \"phone\"\nttl = \"3s\"\n[[resource]]\nname = \"pixel-{1..2}\"\npool = \"phone\"\n",
    );
    let witness = Exclusive::new();
    let mut holds = run(&broker, &[], &witness.script(&format!("echo here; {}; exit 7", await_file("go"))));
    holds.stdout.wait_for("here");

    broker.term().exits(0);
    let stopped = boot_now();
    let mut between = run(&broker, &[], &witness.script("exit 8"));
    between.stderr.wait_for("no broker yet");
    until("several ttls have passed", || boot_now() >= stopped.plus(3 * TTL_MS));
    assert!(holds.poll().is_none(), "{}", holds.stderr.text());
    broker.start();

    between.wait().exits(8);
    holds.stderr.wait_for("reconnected to the broker");
    witness.touch("go");
    holds.wait().exits(7);
    assert_eq!(witness.uses().len(), 2);
}

#[test]
fn a_broker_gone_for_good_stops_the_command_before_the_ttl_is_over() {
    let mut broker = Broker::with_inventory(ONE_PHONE_3S);
    let mut fifo = Fifo::new();
    let mut run = run(&broker, &[], &fifo.script(&format!("(trap '' TERM; {TICKS}) & {TICKS}")));
    until("the command works", || fifo.heard().lines().count() > 3);
    broker.kill9();
    // Whatever was renewed was asked for before this moment.
    let last_promise = boot_now().plus(TTL_MS);
    let output = run.wait().exits(120);
    assert!(!fifo.is_open(), "run has ended, and something of its command has not");
    assert!(last_tick_ms(&fifo.heard()) <= last_promise.0, "the command worked on after the ttl");
    assert!(output.stderr.contains("no broker") && output.stderr.contains("lost"), "{}", output.stderr);
}

#[test]
fn a_network_that_goes_silent_stops_the_command_before_the_phone_is_leased_on() {
    let broker = Broker::with_inventory(ONE_PHONE_3S);
    let proxy = Proxy::to(broker.port());
    let mut fifo = Fifo::new();
    let script = fifo.script(&format!("(trap '' TERM; {TICKS}) & {TICKS}"));
    let mut run = broker.spawn(&["--url", &proxy.url(), "run", "-n", "phone", "--", "sh", "-c", &script]);
    until("the command works", || fifo.heard().lines().count() > 3);
    let mut next = broker.session("next@desk");
    assert_eq!(next.acquire(&["phone"])["state"], "queued");
    proxy.silence();
    next.notice("lease.granted");
    assert!(!fifo.is_open(), "the phone was leased on under a living command");
    run.wait().exits(120);
}

#[test]
fn without_a_broker_run_gives_up_in_time() {
    let mut broker = Broker::with_inventory(ONE_PHONE);
    broker.kill9();
    let output = run(&broker, &["--connect-timeout", "300ms"], "echo started").wait().exits(125);
    assert_eq!(output.stdout, "");
    assert!(output.stderr.contains(&broker.port().to_string()), "{}", output.stderr);
}

#[test]
fn a_run_that_waits_stays_through_a_restart_and_a_cut() {
    let mut broker = Broker::with_inventory(ONE_PHONE);
    let proxy = Proxy::to(broker.port());
    let mut holder = broker.session("holder@desk");
    let lease = holder.lease(&["phone"])["lease"].as_u64().expect("a number");
    let mut waiting = broker.spawn(&["--url", &proxy.url(), "run", "-n", "phone", "--", "echo", "mine"]);
    waiting.stderr.wait_for("waiting, place 1");
    proxy.cut();
    waiting.stderr.wait_for("connected to the broker");
    broker.restart();
    broker.sh(&format!("lease revoke {lease} --force")).exits(0);
    assert_eq!(waiting.wait().exits(0).stdout, "mine\n");
}
