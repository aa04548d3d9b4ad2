//! `acquire --no-keeper`, and what is done to leases from outside: renew, release, extend.

use serde_json::Value;

use leasehold::clock::boot_now;

use super::common::broker::{Broker, Setup};
use super::common::process;
use super::common::wait::until;
use super::witness::Fifo;
use super::{ONE_PHONE, all_free, run, shown};

/// A lease over HTTP: its number and its key.
struct Keyed {
    lease: String,
    key: String,
}

#[track_caller]
fn no_keeper(broker: &Broker, options: &[&str]) -> Keyed {
    let granted = broker.cli(&[&["acquire", "-n", "phone", "--no-keeper"], options].concat()).exits(0).json();
    let key = granted["environment"]["LEASEHOLD_LEASE_KEY"].as_str().expect("a key").to_owned();
    Keyed { lease: granted["lease"].to_string(), key }
}

impl Keyed {
    /// Runs a command in the environment that the lease gave.
    fn run(&self, broker: &Broker, args: &[&str]) -> process::Output {
        let mut command = broker.command(args);
        command.env("LEASEHOLD_LEASE", &self.lease).env("LEASEHOLD_LEASE_KEY", &self.key);
        process::run(&mut command)
    }
}

#[test]
fn it_is_released_by_its_key_and_twice_is_once() {
    let broker = Broker::with_inventory(ONE_PHONE);
    let keyed = no_keeper(&broker, &["--ttl", "60s"]);
    let renewed = keyed.run(&broker, &["renew"]).exits(0);
    assert!(renewed.stderr.contains("kept for"), "{}", renewed.stderr);
    assert_eq!(keyed.run(&broker, &["renew", "--json"]).exits(0).json()["promise_ms"], 60_000);
    let released = keyed.run(&broker, &["release"]).exits(0);
    assert!(released.stderr.contains("is released"), "{}", released.stderr);
    assert!(all_free(&broker));
    let again = keyed.run(&broker, &["release"]).exits(0);
    assert!(again.stderr.contains("had ended") || again.stderr.contains("is released"), "{}", again.stderr);
    let late = keyed.run(&broker, &["renew"]).exits(1);
    assert!(late.stderr.len() > 20, "{}", late.stderr);
}

#[test]
fn it_lives_by_being_renewed_and_expires_without() {
    let broker = Broker::with_inventory(ONE_PHONE);
    let ttl_ms = 4_000;
    let keyed = no_keeper(&broker, &["--ttl", "4s"]);
    let granted = boot_now();
    while boot_now() < granted.plus(ttl_ms * 3 / 2) {
        keyed.run(&broker, &["renew"]).exits(0);
    }
    assert!(!all_free(&broker));
    let before = boot_now();
    keyed.run(&broker, &["renew"]).exits(0);
    until("the phone is free", || all_free(&broker));
    assert!(boot_now() >= before.plus(ttl_ms), "it was taken back too soon");
    let ended = broker.sh(&format!("lease show {} --json", keyed.lease)).exits(0).json();
    assert_eq!(ended["state"], "ended", "{ended}");
    let released = keyed.run(&broker, &["release"]).exits(0);
    assert!(released.stderr.contains("had ended"), "{}", released.stderr);
}

#[test]
fn it_waits_in_the_queue_like_everybody() {
    let broker = Broker::with_inventory(ONE_PHONE);
    let mut holder = broker.session("holder@desk");
    let lease = holder.lease(&["phone"])["lease"].as_u64().expect("a number");
    broker.cli(&["acquire", "-n", "phone", "--no-keeper", "--wait", "0"]).exits(124);
    broker.cli(&["acquire", "-n", "phone", "--no-keeper", "--wait", "500ms"]).exits(124);
    broker.cli(&["acquire", "-n", "phone,os=ios", "--no-keeper"]).exits(125);
    let mut interrupted = broker.spawn(&["acquire", "-n", "phone", "--no-keeper"]);
    interrupted.stderr.wait_for("waiting, place 1");
    interrupted.signal(nix::sys::signal::Signal::SIGTERM);
    interrupted.wait().exits(143);
    assert!(broker.sh("queue --json").exits(0).json().as_array().is_some_and(Vec::is_empty));
    let mut waiting = broker.spawn(&["acquire", "-n", "phone", "--no-keeper"]);
    waiting.stderr.wait_for("waiting, place 1");
    holder.release(lease);
    assert_eq!(waiting.wait().exits(0).json()["resources"]["phone"][0]["name"], "pixel");
}

#[test]
fn a_strangers_lease_is_not_released() {
    let broker = Broker::with_inventory(ONE_PHONE);
    let mut stranger = broker.session("stranger@desk");
    let lease = stranger.lease(&["phone"])["lease"].as_u64().expect("a number");
    for line in [format!("release {lease}"), format!("extend {lease} --by 1m"), format!("renew {lease}")] {
        let refused = broker.sh(&line).exits(1);
        assert!(refused.stderr.len() > 20, "{line}: {}", refused.stderr);
    }
    assert!(broker.sh(&format!("release {lease}")).stderr.contains("stranger@desk"), "it is said whose it is");
    let wrong = Keyed { lease: lease.to_string(), key: "0".repeat(64) };
    wrong.run(&broker, &["release"]).exits(1);
    wrong.run(&broker, &["renew"]).exits(1);
    assert!(!all_free(&broker));
    assert_eq!(stranger.release(lease)["why"], "released");
    // What is over is over, whoever asks.
    let over = broker.sh(&format!("release {lease}")).exits(0);
    assert!(over.stderr.contains("had ended") || over.stderr.contains("is released"), "{}", over.stderr);
}

#[test]
fn an_owner_needs_no_key_and_releases_under_a_living_run() {
    let broker = Broker::with_inventory(ONE_PHONE);
    let keyed = no_keeper(&broker, &[]);
    broker.sh(&format!("release {}", keyed.lease)).exits(0);
    assert!(all_free(&broker));
    let mut fifo = Fifo::new();
    let mut running = run(&broker, &[], &fifo.script("echo here; sleep 1000"));
    running.stdout.wait_for("here");
    let lease = broker.sh("lease ls --json").exits(0).json()[0]["lease"].to_string();
    broker.sh(&format!("release {lease}")).exits(0);
    // It may not be used any more.
    running.wait().exits(120);
    assert!(!fifo.is_open());
}

#[test]
fn a_lease_that_never_was_is_not_found() {
    let broker = Broker::with_inventory(ONE_PHONE);
    for line in ["release 4711", "renew 4711", "extend 4711 --by 1m"] {
        let output = broker.sh(line).exits(1);
        assert!(output.stderr.contains("4711"), "{line}: {}", output.stderr);
    }
    for line in ["release", "renew", "extend --by 1m", "extend 1", "release x", "release 1 --outcome maybe"] {
        broker.sh(line).exits(2);
    }
}

#[test]
fn a_hold_is_extended_as_far_as_its_pool_allows() {
    let broker = Broker::with_inventory(ONE_PHONE);
    let mut holding = broker.spawn(&["acquire", "-n", "phone", "--while-stdin", "--hold", "1h"]);
    let granted: Value = serde_json::from_str(&holding.stdout.wait_for("granted")).expect("JSON");
    let lease = granted["lease"].to_string();
    let extended = broker.sh(&format!("extend {lease} --by 30m --json")).exits(0).json();
    let until = granted["until"].as_u64().expect("a moment");
    assert_eq!(extended["until"].as_u64(), Some(until + 30 * 60_000));
    let told: Value = serde_json::from_str(&holding.stdout.wait_for("extended")).expect("JSON");
    assert_eq!(told["until"], extended["until"]);
    let said = broker.sh(&format!("extend {lease} --by 1m")).exits(0);
    assert!(said.stderr.contains("held until"), "{}", said.stderr);
    let refused = broker.sh(&format!("extend {lease} --by 2h")).exits(1);
    assert!(refused.stderr.contains("2h"), "{}", refused.stderr);
    holding.close_stdin();
    holding.wait().exits(0);
    broker.sh(&format!("extend {lease} --by 1m")).exits(1);
}

/// A phone with a secret.
fn with_secret() -> Setup {
    Broker::with(
        "[[pool]]\nname = \"phone\"\n[[resource]]\nname = \"pixel\"\npool = \"phone\"\n\
         secrets = { pin = { env = \"PIXEL_PIN\" } }\n",
    )
    .env("PIXEL_PIN", "pin-of-the-test")
}

#[test]
fn github_actions_gets_its_files_and_its_masks() {
    let broker = with_secret().start();
    let (env, output) = (broker.dir().join("env"), broker.dir().join("output"));
    std::fs::write(&env, "BEFORE=1\n").expect("a temporary file can be written");
    let acquire = |options: &[&str]| {
        let line = [&["acquire", "-n", "phone", "--no-keeper", "--format", "github"], options].concat();
        process::run(broker.command(&line).env("GITHUB_ENV", &env).env("GITHUB_OUTPUT", &output))
    };
    let read = |path| std::fs::read_to_string(path).expect("it was written");
    let printed = acquire(&[]).exits(0).stdout;
    let variables = github(&read(&env));
    let outputs = github(&read(&output));
    let value = |pairs: &[(String, String)], name: &str| {
        pairs.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone())
    };
    let key = value(&variables, "LEASEHOLD_LEASE_KEY").expect("a key");
    assert_eq!(printed, format!("::add-mask::{key}\n"));
    assert!(read(&env).starts_with("BEFORE=1\n"));
    assert_eq!(value(&variables, "LEASEHOLD_PHONE_NAME").as_deref(), Some("pixel"));
    assert_eq!(value(&outputs, "phone_name").as_deref(), Some("pixel"));
    assert!(!read(&env).contains("pin-of-the-test") && !read(&output).contains(&key), "{}", read(&output));
    let lease = value(&variables, "LEASEHOLD_LEASE").expect("a lease");
    Keyed { lease, key }.run(&broker, &["release"]).exits(0);

    let printed = acquire(&["--secrets", "env"]).exits(0).stdout;
    assert!(printed.contains("::add-mask::pin-of-the-test\n"), "{printed}");
    assert_eq!(value(&github(&read(&env)), "LEASEHOLD_PHONE_SECRET_PIN").as_deref(), Some("pin-of-the-test"));
}

/// The pairs of a file of GitHub's, read as GitHub does: `name<<delimiter`, lines, `delimiter`.
fn github(text: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some((name, delimiter)) = line.split_once("<<") else { continue };
        let value: Vec<&str> = lines.by_ref().take_while(|line| *line != delimiter).collect();
        pairs.push((name.to_owned(), value.join("\n")));
    }
    pairs
}

#[test]
fn github_actions_is_told_when_it_is_not_there() {
    let broker = with_secret().start();
    let line = ["acquire", "-n", "phone", "--no-keeper", "--format", "github"];
    let output = broker.cli(&line).exits(125);
    assert!(output.stderr.contains("GITHUB_ENV"), "{}", output.stderr);
    let nowhere = broker.dir().join("no/such/file");
    let output =
        process::run(broker.command(&line).env("GITHUB_ENV", &nowhere).env("GITHUB_OUTPUT", &nowhere)).exits(125);
    assert!(output.stderr.contains(&shown(&nowhere)), "{}", output.stderr);
    // A lease that nobody was told of is nobody's.
    assert!(all_free(&broker));
}
