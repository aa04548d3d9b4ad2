//! Builds in containers of a real engine: what is in there, what is printed, and that none is left.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::podman::{IMAGE, Podman};
use super::stand_in::StandIn;
use super::{LAB, PIN};
use crate::common::process::{Process, run};
use crate::common::wait::until;
use crate::common::witness::{children_of, kill9};

struct Yard {
    lab: StandIn,
    podman: Podman,
    agent: Process,
}

impl Yard {
    fn start(options: &[&str]) -> Option<Self> {
        let podman = Podman::start()?;
        let lab = StandIn::new(LAB);
        let agent = lab.agent(&[&["--container-socket", &podman.socket()], options].concat());
        Some(Self { lab, podman, agent })
    }

    fn build(&mut self, needs: &[&str], steps: &[(&str, &str)], change: impl FnOnce(&mut Value)) -> u64 {
        self.lab.build(needs, steps, |job| {
            job["container"] = json!({ "image": IMAGE, "network": "none" });
            change(job);
        })
    }

    /// A build whose container runs until it is ended, and whose first step then ends well.
    fn running(&mut self) -> u64 {
        let steps =
            [("long", "trap 'echo told to end; exit 0' TERM; echo begun; sleep 600 & wait"), ("next", "echo never")];
        let build = self.build(&["phone"], &steps, |_| {});
        self.lab.wait_for_log(build, "begun");
        build
    }

    fn nothing_is_left(&self) {
        until("no container is left", || self.podman.containers().is_empty());
        let held = || self.lab.broker.sh("lease ls --json").json();
        until("all is free", || held().as_array().is_some_and(Vec::is_empty));
    }
}

#[test]
fn a_build_runs_in_its_container_with_what_it_holds() {
    let Some(mut yard) = Yard::start(&[]) else { return };
    let long = "x".repeat(40_000);
    yard.lab.commit("greeting", &format!("{long}\n"));
    let steps = [
        ("look", "cat greeting; pwd; id -u; env; cat $LEASEHOLD_SECRETS_FILE; touch made; cd /tmp"),
        ("both", "pwd; echo to stderr >&2; echo to stdout; ls /workspace"),
    ];
    let build = yard.build(&["phone"], &steps, |job| job["env"] = json!({ "MODE": "release" }));
    let report = yard.lab.finished(build);
    let log = yard.lab.log(build);
    assert_eq!(report["result"], "passed", "{report}\n{log}");
    for line in [long.as_str(), "/workspace", "MODE=release", "CI=true", "LEASEHOLD_PHONE_SERIAL=emulator-5554"] {
        assert!(log.lines().any(|seen| seen == line), "no {line:.40} in:\n{log}");
    }
    assert!(log.lines().any(|line| line == nix::unistd::getuid().to_string()), "{log}");
    assert!(log.contains(r#""pin":"***""#) && !log.contains(PIN) && !log.contains("AGENTS_OWN"), "{log}");
    // A step's folder is its own business; what it made stays.
    assert!(log.contains("--- both\n/workspace\n"), "{log}");
    let (_, both) = log.split_once("--- both\n").expect("a heading");
    for line in ["to stderr", "to stdout", "made"] {
        assert!(both.lines().any(|seen| seen == line), "no {line} in:\n{both}");
    }
    yard.nothing_is_left();
}

#[test]
fn its_exit_code_is_the_steps_and_bad_wishes_fail() {
    let Some(mut yard) = Yard::start(&[]) else { return };
    let build = yard.build(&[], &[("one", "exit 7"), ("two", "echo never")], |_| {});
    let report = yard.lab.finished(build);
    assert_eq!((&report["result"], &report["exit_code"]), (&json!("failed"), &json!(7)));
    assert!(!yard.lab.log(build).contains("never"));
    let build = yard.build(&[], &[("one", "true")], |job| job["container"]["mounts"] = json!(["/etc:/x"]));
    let report = yard.lab.finished(build);
    assert_eq!(report["result"], "failed");
    assert!(report["message"].as_str().is_some_and(|why| why.contains("--mount-allow")), "{report}");
    yard.nothing_is_left();
}

#[test]
fn a_revoked_lease_stops_the_container_gently() {
    let Some(mut yard) = Yard::start(&[]) else { return };
    let build = yard.running();
    let lease = yard.lab.lease(build).to_string();
    yard.lab.broker.cli(&["lease", "revoke", &lease]).exits(0);
    assert_eq!(yard.lab.finished(build)["result"], "stopped");
    let log = yard.lab.log(build);
    assert!(log.contains("told to end\n") && !log.contains("never"), "{log}");
    yard.nothing_is_left();
}

#[test]
fn whoever_is_killed_no_container_is_left() {
    let Some(mut yard) = Yard::start(&[]) else { return };
    yard.running();
    let own = children_of(yard.agent.pid());
    kill9(own[0]);
    yard.nothing_is_left();

    let build = yard.running();
    yard.agent.signal(Signal::SIGKILL);
    assert_eq!(yard.lab.finished(build)["result"], "lost");
    yard.nothing_is_left();

    // Both at once: the guard is the last that can.
    yard.agent = yard.lab.agent(&["--container-socket", &yard.podman.socket()]);
    yard.running();
    let own = children_of(yard.agent.pid());
    yard.agent.signal(Signal::SIGKILL);
    kill9(own[0]);
    yard.nothing_is_left();
}

#[test]
fn while_its_container_may_run_a_build_holds_its_lease() {
    let Some(mut yard) = Yard::start(&[]) else { return };
    let build = yard.running();
    yard.podman.leave();
    yard.lab.wait_for_log(build, "its container cannot be removed, which is tried on: ");
    assert_eq!(yard.podman.containers().len(), 1);
    let held = yard.lab.broker.sh("lease ls --json").json();
    assert_eq!(held.as_array().map(Vec::len), Some(1), "{held}");
    yard.podman.serve();
    assert_eq!(yard.lab.finished(build)["result"], "lost");
    yard.nothing_is_left();
}

#[test]
fn a_dead_agent_s_container_goes_at_the_next_start() {
    let Some(mut yard) = Yard::start(&[]) else { return };
    // As after everything but the engine died: by its label it is known as this agent's.
    let mut left = yard.podman.command();
    left.args(["run", "--detach", "--network=none", "--label", "leasehold.agent=rack", IMAGE, "sleep", "600"]);
    run(&mut left).exits(0);
    assert_eq!(yard.podman.containers().len(), 1);
    yard.agent.signal(Signal::SIGTERM);
    yard.agent.wait();
    yard.agent = yard.lab.agent(&["--container-socket", &yard.podman.socket()]);
    yard.agent.stderr.wait_for("containers left by builds of before, removed: 1");
    yard.nothing_is_left();
}

#[test]
fn without_an_engine_a_build_is_lost() {
    let mut lab = StandIn::new(LAB);
    let _agent = lab.agent(&["--container-socket", "unix:///nowhere/docker.sock"]);
    let build = lab.build(&[], &[("one", "true")], |job| job["container"] = json!({ "image": IMAGE }));
    let report = lab.finished(build);
    assert_eq!(report["result"], "lost");
    assert!(report["message"].as_str().is_some_and(|why| why.contains("no container engine answers")), "{report}");
}
