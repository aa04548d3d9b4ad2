//! The lease ends under a living command: its hold is over, it is revoked, its session is kicked.

use nix::sys::signal::Signal;

use super::common::broker::Broker;
use super::common::process::Process;
use super::witness::Fifo;
use super::{ONE_PHONE, ONE_PHONE_3S, all_free, run, shown};

/// Ignores TERM, but says that it came.
const STUBBORN: &str = "trap 'printf t >&9' TERM; printf a >&9; echo here; while :; do sleep 0.05; done";

/// The number of the one lease that is held.
fn held(broker: &Broker) -> String {
    broker.sh("lease ls --json").exits(0).json()[0]["lease"].to_string()
}

/// How the newest lease ended.
fn why(broker: &Broker) -> String {
    let all = broker.sh("lease ls --all --json").exits(0).json();
    let newest = all.as_array().into_iter().flatten().max_by_key(|lease| lease["lease"].as_u64());
    newest.and_then(|lease| lease["ended"]["why"].as_str()).unwrap_or("it has not").to_owned()
}

fn here(run: &Process) {
    run.stdout.wait_for("here");
}

#[test]
fn the_end_of_a_hold_is_warned_of_and_comes_with_term_grace_and_kill() {
    let broker = Broker::with_inventory(ONE_PHONE);
    let mut fifo = Fifo::new();
    let mut run = run(&broker, &["--hold", "2s", "--grace", "500ms"], &fifo.script(STUBBORN));
    let output = run.wait().exits(120);
    assert!(!fifo.is_open(), "run has ended, and something of its command has not");
    assert!(fifo.heard().starts_with("at"), "the command was not asked to end: {}", fifo.heard());
    let warning = output.stderr.find("the hold ends in").expect("a warning");
    let stopping = output.stderr.find("stopping the command").expect("a line when it is stopped");
    assert!(warning < stopping, "{}", output.stderr);
    assert!(output.stderr.contains("leasehold extend"), "{}", output.stderr);
    assert!(all_free(&broker));
    assert_eq!(why(&broker), "hold_ended");
}

#[test]
fn a_command_that_ends_within_its_grace_is_waited_for() {
    let broker = Broker::with_inventory(ONE_PHONE);
    let mut fifo = Fifo::new();
    let script = "trap 'sleep 0.3; printf t >&9; exit 0' TERM; echo here; while :; do sleep 0.05; done";
    let mut run = run(&broker, &["--grace", "50s"], &fifo.script(script));
    here(&run);
    broker.sh(&format!("lease revoke {}", held(&broker))).exits(0);
    run.wait().exits(120);
    assert_eq!(fifo.heard(), "t");
}

#[test]
fn revoking_stops_a_run_and_gives_the_phone_to_the_next() {
    let broker = Broker::with_inventory(ONE_PHONE);
    let mut fifo = Fifo::new();
    let mut run = run(&broker, &["--grace", "200ms"], &fifo.script(STUBBORN));
    here(&run);
    let mut next = broker.session("next@desk");
    assert_eq!(next.acquire(&["phone"])["state"], "queued");
    broker.cli(&["lease", "revoke", &held(&broker), "--reason", "needed for a demo"]).exits(0);
    // The ttl is ten minutes: it came because run gave it back, after the grace it was given.
    next.notice("lease.granted");
    assert!(!fifo.is_open(), "the phone was leased on under a living command");
    let output = run.wait().exits(120);
    assert!(output.stderr.contains("needed for a demo"), "{}", output.stderr);
    assert!(fifo.heard().contains('t'));
}

#[test]
fn a_forced_revoke_and_a_kick_stop_a_run_too() {
    let broker = Broker::with_inventory(ONE_PHONE_3S);
    let mut fifo = Fifo::new();
    let mut forced = run(&broker, &[], &fifo.script(STUBBORN));
    here(&forced);
    broker.sh(&format!("lease revoke --force {}", held(&broker))).exits(0);
    forced.wait().exits(120);
    assert!(!fifo.is_open());

    let mut fifo = Fifo::new();
    let mut kicked = run(&broker, &["--grace", "200ms"], &fifo.script(STUBBORN));
    here(&kicked);
    let session = broker.sh("lease ls --json").exits(0).json()[0]["session"].to_string();
    broker.sh(&format!("session kick s{session}")).exits(0);
    kicked.wait().exits(120);
    assert!(!fifo.is_open());
    assert!(all_free(&broker));
}

#[test]
fn on_lost_runs_when_the_lease_ends_under_the_command_and_only_then() {
    let mut broker = Broker::with_inventory(ONE_PHONE_3S);
    let told = broker.dir().join("told");
    let hook = format!("echo $LEASEHOLD_PHONE_NAME $LEASEHOLD_LEASE >>{}", shown(&told));
    let read = || std::fs::read_to_string(&told).unwrap_or_default();
    run(&broker, &["--on-lost", &hook], "exit 7").wait().exits(7);
    assert_eq!(read(), "");

    let mut expected = String::new();
    let mut fifo = Fifo::new();
    let mut revoked = run(&broker, &["--on-lost", &hook, "--grace", "100ms"], &fifo.script(STUBBORN));
    here(&revoked);
    let lease = held(&broker);
    broker.sh(&format!("lease revoke {lease}")).exits(0);
    revoked.wait().exits(120);
    expected.push_str(&format!("pixel {lease}\n"));
    assert_eq!(read(), expected);

    let mut killed = run(&broker, &["--on-lost", &hook], &fifo.script(STUBBORN));
    here(&killed);
    expected.push_str(&format!("pixel {}\n", held(&broker)));
    killed.signal(Signal::SIGKILL);
    super::common::wait::until("the guard has run the hook", || read() == expected);
    fifo.all_gone();

    super::common::wait::until("the phone is free", || all_free(&broker));
    let mut lost = run(&broker, &["--on-lost", &hook], &fifo.script(STUBBORN));
    here(&lost);
    expected.push_str(&format!("pixel {}\n", held(&broker)));
    broker.kill9();
    lost.wait().exits(120);
    assert_eq!(read(), expected);
}
