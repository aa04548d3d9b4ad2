//! Several brokers of which one leads: it goes away, or stands still, and another takes over.
//!
//! One real broker is reached over two networks, which stand for two brokers with one store; a double
//! stands by. With real ones it is in `tests/failover`.

use serde_json::Value;

use super::common::broker::Broker;
use super::common::process::{self, Process};
use super::common::proxy::Proxy;
use super::common::standby::Standby;
use super::common::wait::until;
use super::witness::{Exclusive, Fifo, await_file};
use super::{ONE_PHONE, all_free};

/// A broker over two networks, and one that stands by.
struct Lab {
    broker: Broker,
    first: Proxy,
    second: Proxy,
    standby: Standby,
}

impl Lab {
    fn new(inventory: &str) -> Self {
        let broker = Broker::with_inventory(inventory);
        let (first, second) = (Proxy::to(broker.port()), Proxy::to(broker.port()));
        let standby = Standby::of(first.port());
        Self { broker, first, second, standby }
    }

    /// What clients are given: the first network, and who stands by.
    fn urls(&self) -> String {
        format!("{},{}", self.first.url(), self.standby.url())
    }

    fn command(&self, args: &[&str]) -> std::process::Command {
        let mut command = self.broker.command(args);
        command.env("LEASEHOLD_URL", self.urls());
        command
    }

    fn run(&self, script: &str) -> Process {
        Process::start(&mut self.command(&["run", "-n", "phone", "--", "sh", "-c", script]))
    }

    /// The first network is gone, and the second one leads when the standby was asked for it a few
    /// times.
    fn fails_over(&self) {
        self.standby.knows(None);
        self.first.refuse();
        let asked = self.standby.asked();
        until("the standby is asked for the leader", || self.standby.asked() > asked + 2);
        self.standby.knows(Some(self.second.port()));
    }
}

fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

#[test]
fn a_command_does_not_notice_that_another_broker_leads() {
    let lab = Lab::new(ONE_PHONE);
    let witness = Exclusive::new();
    let script = format!("echo $LEASEHOLD_URL; {}; exit 7", await_file("go"));
    let mut holds = lab.run(&witness.script(&script));
    assert_eq!(holds.stdout.wait_for("ws://").trim(), lab.urls(), "the command has the whole list");
    let mut waits = lab.run(&witness.script("exit 8"));
    waits.stderr.wait_for("waiting, place 1");

    lab.fails_over();
    let reconnected = format!("reconnected to the broker at {}", lab.second.url());
    holds.stderr.wait_for(&reconnected);
    waits.stderr.wait_for(&reconnected);
    witness.touch("go");
    let told = holds.wait().exits(7).stderr;
    assert_eq!(count(&told, "reconnected"), 1, "{told}");
    waits.wait().exits(8);
    assert_eq!(witness.uses().len(), 2);
}

#[test]
fn a_broker_that_stands_still_is_left_before_the_lease_is_lost() {
    let lab = Lab::new("[[pool]]\nname = \"phone\"\nttl = \"6s\"\n[[resource]]\nname = \"pixel\"\npool = \"phone\"\n");
    let witness = Exclusive::new();
    let mut holds = lab.run(&witness.script(&format!("echo here; {}; exit 7", await_file("go"))));
    holds.stdout.wait_for("here");
    lab.standby.knows(Some(lab.second.port()));
    lab.first.silence();
    holds.stderr.wait_for(&format!("reconnected to the broker at {}", lab.second.url()));
    witness.touch("go");
    holds.wait().exits(7);
}

#[test]
fn a_run_that_begins_during_a_takeover_waits_for_its_end() {
    let lab = Lab::new(ONE_PHONE);
    lab.standby.knows(None);
    lab.first.refuse();
    let mut run = lab.run("echo mine");
    let line = run.stderr.wait_for("no broker yet");
    assert!(line.contains("it stands by") && line.contains(&lab.first.port().to_string()), "{line}");
    lab.standby.knows(Some(lab.second.port()));
    let output = run.wait().exits(0);
    assert_eq!(output.stdout, "mine\n");
    assert_eq!(count(&output.stderr, "connected to the broker at"), 1, "{}", output.stderr);
}

#[test]
fn the_guard_of_a_killed_run_gives_back_at_whoever_leads() {
    let lab = Lab::new(ONE_PHONE);
    let mut fifo = Fifo::new();
    let mut killed = lab.run(&fifo.script("printf a >&9; sleep 1000"));
    fifo.wait_for("a");
    lab.standby.knows(Some(lab.second.port()));
    lab.first.refuse();
    killed.stderr.wait_for("reconnected");
    killed.signal(nix::sys::signal::Signal::SIGKILL);
    fifo.all_gone();
    // The ttl is ten minutes.
    until("the phone is free", || all_free(&lab.broker));
}

#[test]
fn a_keeper_holds_on_and_is_released_at_whoever_leads() {
    let lab = Lab::new(ONE_PHONE);
    let job = Process::start(std::process::Command::new("sleep").arg("1000"));
    let pid = job.pid().to_string();
    let line = ["acquire", "-n", "phone", "--detach", "--while-pid", &pid];
    let granted = process::run(&mut lab.command(&line)).exits(0).json();
    assert_eq!(granted["environment"]["LEASEHOLD_URL"], lab.urls().as_str());
    lab.fails_over();
    let connected = || {
        let sessions = lab.broker.sh("session ls --json").exits(0).json();
        sessions.as_array().into_iter().flatten().any(|session| session["connected"] == true)
    };
    until("the keeper is connected again", || lab.second.accepted() > 0 && connected());
    let lease = granted["lease"].to_string();
    process::run(&mut lab.command(&["release", &lease])).exits(0);
    assert!(all_free(&lab.broker));
}

#[test]
fn a_lease_without_a_socket_is_renewed_and_released_at_whoever_leads() {
    let lab = Lab::new(ONE_PHONE);
    let granted: Value = process::run(&mut lab.command(&["acquire", "-n", "phone", "--no-keeper"])).exits(0).json();
    lab.standby.knows(Some(lab.second.port()));
    lab.first.refuse();
    let under_key = |args: &[&str]| {
        let mut command = lab.command(args);
        let key = granted["environment"]["LEASEHOLD_LEASE_KEY"].as_str().expect("a key");
        command.env("LEASEHOLD_LEASE", granted["lease"].to_string()).env("LEASEHOLD_LEASE_KEY", key);
        process::run(&mut command)
    };
    under_key(&["renew"]).exits(0);
    under_key(&["extend", "--by", "0s"]).exits(0);
    under_key(&["release"]).exits(0);
    assert!(all_free(&lab.broker));
}
