//! `run`, its guard and its command stopped and killed: nothing goes on using what is leased on.

use nix::sys::signal::{Signal, kill};

use super::common::broker::Broker;
use super::common::wait::until;
use super::common::witness::{FAMILY, lives};
use super::witness::{Fifo, TICKS, await_file, guard_of, last_tick_ms};
use super::{ONE_PHONE, ONE_PHONE_3S, all_free, run};

#[test]
fn killing_run_ends_all_it_started_and_frees_the_phone_long_before_the_ttl() {
    let broker = Broker::with_inventory(ONE_PHONE);
    let mut fifo = Fifo::new();
    let mut killed = run(&broker, &[], &fifo.script(FAMILY));
    fifo.wait_for("abcde");
    let mut next = broker.session("next@desk");
    assert_eq!(next.acquire(&["phone"])["state"], "queued");

    killed.signal(Signal::SIGKILL);
    let granted = next.notice("lease.granted");
    // Everything was gone before the guard gave the phone back; the ttl is ten minutes.
    assert!(!fifo.is_open(), "the phone was leased on under a living command: {granted}");
    let ended = broker.sh("lease ls --all --json").exits(0).json();
    let ended =
        ended.as_array().into_iter().flatten().find(|lease| lease["state"] == "ended" || lease["ended"].is_object());
    assert_eq!(ended.map(|lease| &lease["ended"]["why"]), Some(&"session_closed".into()));
}

#[test]
fn a_stopped_run_has_lost_its_command_before_the_phone_is_leased_on() {
    let broker = Broker::with_inventory(ONE_PHONE_3S);
    let mut fifo = Fifo::new();
    let mut stopped = run(&broker, &[], &fifo.script(&format!("(trap '' TERM; {TICKS}) & {TICKS}")));
    until("the command works", || fifo.heard().lines().count() > 3);
    let mut next = broker.session("next@desk");
    assert_eq!(next.acquire(&["phone"])["state"], "queued");

    stopped.signal(Signal::SIGSTOP);
    next.notice("lease.granted");
    let granted_ms = leasehold::clock::boot_now().0;
    assert!(!fifo.is_open(), "the phone was leased on under a living command");
    assert!(last_tick_ms(&fifo.heard()) <= granted_ms);

    stopped.signal(Signal::SIGCONT);
    let output = stopped.wait().exits(120);
    assert!(output.stderr.contains("lost"), "{}", output.stderr);
}

#[test]
fn a_stopped_guard_is_stood_in_for() {
    let broker = Broker::with_inventory(&ONE_PHONE_3S.replace("3s", "6s"));
    let mut fifo = Fifo::new();
    let mut run = run(&broker, &[], &fifo.script(FAMILY));
    fifo.wait_for("abcde");
    let guard = guard_of(run.pid());
    kill(guard, Signal::SIGSTOP).expect("the guard can be stopped");
    // A stopped guard is no trouble while the lease is renewed.
    let lease = broker.sh("lease ls --json").exits(0).json()[0]["lease"].to_string();
    let mut next = broker.session("next@desk");
    assert_eq!(next.acquire(&["phone"])["state"], "queued");
    broker.sh(&format!("lease revoke {lease}")).exits(0);
    next.notice("lease.granted");
    assert!(!fifo.is_open(), "the phone was leased on under a living command");
    run.wait().exits(120);
    until("the guard is gone", || !lives(guard.as_raw()));
}

#[test]
fn a_killed_guard_takes_its_command_along() {
    let broker = Broker::with_inventory(ONE_PHONE);
    let mut fifo = Fifo::new();
    let mut run = run(&broker, &[], &fifo.script(FAMILY));
    fifo.wait_for("abcde");
    kill(guard_of(run.pid()), Signal::SIGKILL).expect("the guard can be killed");
    fifo.all_gone();
    let output = run.wait().exits(125);
    assert!(output.stderr.contains("guard"), "{}", output.stderr);
    assert!(all_free(&broker));
}

#[test]
fn what_a_command_leaves_behind_ends_with_it() {
    let broker = Broker::with_inventory(ONE_PHONE);
    let mut fifo = Fifo::new();
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let go = dir.path().join("go");
    let leaver = FAMILY.replace("; wait", &format!("; {}; exit 3", await_file(&super::shown(&go))));
    let mut run = run(&broker, &["--grace", "0"], &fifo.script(&leaver));
    fifo.wait_for("abcde");
    std::fs::write(&go, "").expect("a temporary file can be written");
    run.wait().exits(3);
    assert!(!fifo.is_open(), "run has ended, and something of its command has not");
    assert!(all_free(&broker));
}

#[test]
fn a_run_that_is_killed_while_it_waits_leaves_the_queue() {
    let broker = Broker::with_inventory(ONE_PHONE);
    let mut holder = broker.session("holder@desk");
    holder.lease(&["phone"]);
    let mut waiting = run(&broker, &[], "true");
    waiting.stderr.wait_for("waiting, place 1");
    waiting.signal(Signal::SIGKILL);
    until("nobody waits", || broker.sh("queue --json").exits(0).json().as_array().is_some_and(Vec::is_empty));
}
