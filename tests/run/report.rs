//! `--report FILE`: what happened, whatever it was.

use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use super::common::broker::Broker;
use super::common::process::Process;
use super::witness::guard_of;
use super::{ONE_PHONE, ONE_PHONE_3S, run, shown};

/// A `run` that reports.
struct Reporting {
    run: Process,
    file: std::path::PathBuf,
}

impl Reporting {
    fn start(broker: &Broker, options: &[&str], script: &str) -> Self {
        let file = broker.dir().join("report.json");
        Self { run: run(broker, &[&["--report", &shown(&file)], options].concat(), script), file }
    }

    /// Waits for its end; answers the report, in which its code stands too.
    #[track_caller]
    fn ends(mut self, ended: &str, code: i32) -> Value {
        let output = self.run.wait().exits(code);
        let text = std::fs::read_to_string(&self.file).expect("there is a report");
        let report: Value = serde_json::from_str(&text).expect("a report is JSON");
        assert_eq!((&report["ended"], &report["exit_code"]), (&ended.into(), &code.into()), "{report}");
        assert_eq!(report["command"][0], "sh", "{report}");
        let message = report["message"].as_str();
        assert_eq!(message.is_some(), ended != "command_ended", "{report}\n{}", output.stderr);
        report
    }
}

#[test]
fn a_commands_end_is_told_apart_from_runs_own() {
    let broker = Broker::with_inventory(ONE_PHONE);
    let report = Reporting::start(&broker, &[], "exit 120").ends("command_ended", 120);
    assert_eq!((&report["command_exit_code"], &report["outcome"]), (&120.into(), &"failed".into()));
    assert_eq!((&report["resources"]["phone"][0], &report["needs"][0]), (&"pixel".into(), &"phone".into()));
    assert!(report["lease"].is_u64() && report["held_ms"].is_u64() && report["waited_ms"].is_u64(), "{report}");
    let report = Reporting::start(&broker, &[], "exit 0").ends("command_ended", 0);
    assert_eq!(report["outcome"], "passed");
    let report = Reporting::start(&broker, &[], "kill -9 $$").ends("command_ended", 137);
    assert_eq!(report["command_signal"], 9);
    let ended = broker.sh("lease ls --all --json").exits(0).json();
    let outcomes: Vec<&Value> =
        ended.as_array().into_iter().flatten().map(|lease| &lease["ended"]["outcome"]).collect();
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == "passed").count(), 1, "{ended}");
}

#[test]
fn what_never_came_to_a_lease_is_told() {
    let mut broker = Broker::with_inventory(ONE_PHONE);
    let report = Reporting::start(&broker, &["-n", "net"], "true").ends("refused", 125);
    assert!(report["lease"].is_null() && report["held_ms"].is_null(), "{report}");
    let mut holder = broker.session("holder@desk");
    holder.lease(&["phone"]);
    Reporting::start(&broker, &["--wait", "0"], "true").ends("timed_out", 124);
    let mut waiting = Reporting::start(&broker, &[], "true");
    waiting.run.stderr.wait_for("waiting, place 1");
    waiting.run.signal(Signal::SIGTERM);
    waiting.ends("interrupted", 143);
    broker.kill9();
    Reporting::start(&broker, &["--connect-timeout", "300ms"], "true").ends("no_broker", 125);
}

#[test]
fn a_lease_that_ended_or_was_lost_is_told() {
    let mut broker = Broker::with_inventory(ONE_PHONE_3S);
    let revoked = Reporting::start(&broker, &[], "echo here; exec sleep 1000");
    revoked.run.stdout.wait_for("here");
    let lease = broker.sh("lease ls --json").exits(0).json()[0]["lease"].to_string();
    broker.cli(&["lease", "revoke", &lease, "--reason", "a demo"]).exits(0);
    let report = revoked.ends("lease_ended", 120);
    assert!(report["message"].as_str().is_some_and(|message| message.contains("a demo")), "{report}");
    assert_eq!(report["command_signal"], 15);

    let killed = Reporting::start(&broker, &[], "echo here; exec sleep 1000");
    killed.run.stdout.wait_for("here");
    kill(guard_of(killed.run.pid()), Signal::SIGKILL).expect("the guard can be killed");
    killed.ends("failed", 125);

    let lost = Reporting::start(&broker, &[], "echo here; exec sleep 1000");
    lost.run.stdout.wait_for("here");
    broker.kill9();
    lost.ends("lost", 120);
}

#[test]
fn a_command_that_cannot_be_started_is_told() {
    let broker = Broker::with_inventory(ONE_PHONE);
    let file = broker.dir().join("report.json");
    broker.cli(&["run", "-n", "phone", "--report", &shown(&file), "--", "no-such-program"]).exits(127);
    let report: Value =
        serde_json::from_slice(&std::fs::read(file).expect("there is a report")).expect("a report is JSON");
    assert_eq!((&report["ended"], &report["exit_code"]), (&"not_started".into(), &127.into()), "{report}");
}
