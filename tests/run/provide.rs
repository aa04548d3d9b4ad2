//! `provide`: what it brings comes and goes with it, whoever is killed.

use nix::sys::signal::Signal;
use serde_json::Value;

use super::common::broker::Broker;
use super::common::process::Process;
use super::common::wait::until;
use super::{ONE_PHONE, all_free};

const RIG: &str = r#"
[[pool]]
name = "board"
labels = { site = "berlin" }

[[resource]]
name = "board-{1..2}"
pool = "board"
labels = { rack = 7 }
properties = { tty = "ttyUSB{0..1}" }
"#;

/// How long the broker waits for a rig that a test kills, or stops; others are never given up.
const SOON: &str = "3s";
const NEVER: &str = "10m";

/// A rig's file beside the broker's.
fn write(broker: &Broker, text: &str) {
    let path = broker.dir().join("rig.toml");
    std::fs::write(path, text).expect("a temporary file can be written");
}

/// A `provide` of it with this ttl.
fn online(broker: &Broker, ttl: &str) -> Process {
    let rig = broker.spawn(&["provide", "rig.toml", "--name", "rack-7", "--ttl", ttl]);
    rig.stderr.wait_for("provider rack-7 is online with 2 resources");
    rig
}

fn state(broker: &Broker, name: &str) -> String {
    let shown = broker.cli(&["resource", "show", name, "--json"]);
    if shown.code == Some(0) {
        shown.json()["state"].as_str().unwrap_or_default().to_owned()
    } else {
        "gone".to_owned()
    }
}

#[track_caller]
fn event(acquire: &Process, event: &str) -> Value {
    let line = acquire.stdout.next().unwrap_or_else(|| panic!("no {event}; stderr:\n{}", acquire.stderr.text()));
    let value: Value = serde_json::from_str(&line).expect("a line is JSON");
    assert_eq!(value["event"], event, "{value}");
    value
}

#[test]
fn a_killed_one_is_offline_after_its_ttl_and_back_when_it_starts_again() {
    let broker = Broker::with_inventory(ONE_PHONE);
    write(&broker, RIG);
    let mut rig = online(&broker, SOON);
    let mut holder = broker.spawn(&["acquire", "-n", "board,site=berlin", "--while-stdin"]);
    assert_eq!(event(&holder, "granted")["resources"]["board"][0]["properties"]["tty"], "ttyUSB0");
    rig.signal(Signal::SIGKILL);
    rig.wait();
    let told = event(&holder, "offline");
    assert_eq!(told["resources"][0], "board-1", "{told}");
    assert!(told["message"].as_str().is_some_and(|text| text.contains("was not heard of for 3s")), "{told}");
    let refused = broker.cli(&["acquire", "-n", "board", "--fail-fast"]).exits(125);
    assert!(refused.stderr.contains("board-2 is offline"), "{refused:?}");
    let listed = broker.sh("resource ls").exits(0).stdout;
    assert!(listed.contains("offline"), "{listed}");
    let why = broker.sh("why board-2").exits(0).stdout;
    assert!(why.contains("offline") && why.contains("provider rack-7 was not heard of"), "{why}");
    let mut waiting = broker.spawn(&["acquire", "-n", "board", "--while-stdin"]);
    waiting.stderr.wait_for("board-2 is offline");

    let mut rig = online(&broker, NEVER);
    assert_eq!(event(&holder, "online")["resources"][0], "board-1");
    assert_eq!(event(&waiting, "granted")["resources"]["board"][0]["name"], "board-2");
    // A clean end says so at once.
    rig.signal(Signal::SIGTERM);
    rig.wait().exits(0);
    assert!(event(&holder, "offline")["message"].as_str().is_some_and(|text| text.contains("has left")));
    for acquire in [&mut holder, &mut waiting] {
        acquire.close_stdin();
    }
    holder.wait().exits(0);
    waiting.wait().exits(0);
    assert!(all_free(&broker));
    let store = format!("sqlite:{}", broker.store_path().display());
    broker.cli(&["store", "check", "--store", &store]).exits(0);
    // What nobody brings any more an admin removes.
    broker.sh("resource rm board-1 board-2").exits(0);
    assert_eq!(state(&broker, "board-1"), "gone");
}

#[test]
fn a_successor_takes_over_at_once_and_nothing_was_offline() {
    let broker = Broker::with_inventory(ONE_PHONE);
    write(&broker, RIG);
    let mut rig = online(&broker, NEVER);
    // Another one beside it on this machine is refused without asking the broker.
    let refused = broker.cli(&["provide", "rig.toml", "--name", "rack-7"]).exits(1);
    assert!(refused.stderr.contains("runs on this machine already"), "{refused:?}");
    rig.signal(Signal::SIGKILL);
    rig.wait();
    let _rig = online(&broker, NEVER);
    let journal = broker.http("GET", "/v1/journal?limit=500", None).body;
    assert!(journal.contains("provider_attached") && !journal.contains("resource_offline"), "{journal}");
    // One on another machine, which has a key of its own.
    let elsewhere = tempfile::tempdir().expect("a temporary directory can be made");
    let mut stranger = broker.command(&["provide", "rig.toml", "--name", "rack-7"]);
    stranger.env("XDG_STATE_HOME", elsewhere.path());
    let refused = super::common::process::run(&mut stranger).exits(1);
    assert!(refused.stderr.contains("provider rack-7 is there already, at "), "{refused:?}");
    assert!(refused.stderr.matches("(127.0.0.1)").count() == 2, "both addresses: {refused:?}");
}

#[test]
fn a_broker_killed_in_between_is_no_matter() {
    let mut broker = Broker::with_inventory(ONE_PHONE);
    write(&broker, RIG);
    let mut rig = online(&broker, NEVER);
    let mut holder = broker.spawn(&["acquire", "-n", "board", "--while-stdin"]);
    event(&holder, "granted");
    broker.restart();
    broker.restart();
    assert_eq!(state(&broker, "board-2"), "free", "it has its ttl to come back");
    rig.stderr.wait_for("reconnected");
    rig.signal(Signal::SIGKILL);
    rig.wait();
    let mut rig = online(&broker, SOON);
    // Killed while the broker is away: the next broker gives it its ttl, and then it is offline.
    broker.kill9();
    rig.signal(Signal::SIGKILL);
    rig.wait();
    broker.start();
    until("the boards are offline", || state(&broker, "board-2") == "offline");
    let _rig = online(&broker, NEVER);
    assert_eq!(state(&broker, "board-2"), "free");
    holder.close_stdin();
    holder.wait().exits(0);
}

#[test]
fn a_frozen_one_comes_back_with_a_session_of_its_own() {
    let broker = Broker::with_inventory(ONE_PHONE);
    write(&broker, RIG);
    let mut rig = online(&broker, SOON);
    rig.signal(Signal::SIGSTOP);
    until("the boards are offline", || state(&broker, "board-1") == "offline");
    rig.signal(Signal::SIGCONT);
    rig.stderr.wait_for("the session is lost");
    until("the boards are back", || state(&broker, "board-1") == "free");
    rig.signal(Signal::SIGINT);
    rig.wait().exits(0);
}

#[test]
fn a_changed_file_takes_effect_and_a_bad_one_none() {
    let broker = Broker::with_inventory(ONE_PHONE);
    write(&broker, RIG);
    let rig = online(&broker, NEVER);
    write(&broker, &RIG.replace("{1..2}", "{1..3}").replace("{0..1}", "{0..2}"));
    until("the third board is there", || state(&broker, "board-3") == "free");
    write(&broker, &RIG.replace("board-{1..2}", "pixel").replace("ttyUSB{0..1}", "x"));
    rig.stderr.wait_for("taken by a resource that the inventory file declared");
    assert_eq!(state(&broker, "board-3"), "free", "what it said before stands");
    write(&broker, "[[resource]]\nname = 7\n");
    rig.stderr.wait_for("rig.toml:2:8");
    assert_eq!(state(&broker, "board-3"), "free");
    drop(rig);
}

#[test]
fn what_a_provider_cannot_bring_is_refused_with_the_reason() {
    let broker = Broker::with_inventory(ONE_PHONE);
    for (text, said) in [
        ("[[pool]]\nname = \"board\"\nmax_hold = \"1h\"\n", "has a policy"),
        ("[[resource]]\nname = \"b\"\npool = \"board\"\nsecrets = { pin = { env = \"PIN\" } }\n", "has secrets"),
        ("[[resource]]\nname = \"pixel\"\npool = \"phone\"\n", "the inventory file"),
        ("[[resource]]\nname = \"b\"\n", "rig.toml:1:1"),
    ] {
        write(&broker, text);
        let refused = broker.cli(&["provide", "rig.toml", "--name", "rack-7"]).exits(1);
        assert!(refused.stderr.contains(said), "{said}: {refused:?}");
    }
    broker.cli(&["provide", "rig.toml", "--name", "a rack"]).exits(2);
    write(&broker, RIG);
    let mut absent = broker.command(&["provide", "rig.toml", "--connect-timeout", "300ms"]);
    absent.env("LEASEHOLD_URL", "ws://127.0.0.1:9");
    super::common::process::run(&mut absent).exits(125);
}
