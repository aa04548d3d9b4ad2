//! Builds in containers of a real engine: what is in there, what is printed, and that none is left.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::podman::{IMAGE, Podman};
use super::stand_in::StandIn;
use super::{LAB, PIN};
use crate::common::process::{Process, run};
use crate::common::wait::until;
use crate::common::witness::{children_of, kill9};

/// An engine, an agent that uses it, and what stands for a broker.
pub struct Yard {
    pub lab: StandIn,
    pub podman: Podman,
    pub agent: Process,
}

impl Yard {
    pub fn start(options: &[&str]) -> Option<Self> {
        let podman = Podman::start()?;
        let lab = StandIn::new(LAB);
        let agent = lab.agent(&[&["--container-socket", &podman.socket()], options].concat());
        Some(Self { lab, podman, agent })
    }

    pub fn build(&mut self, needs: &[&str], steps: &[(&str, &str)], change: impl FnOnce(&mut Value)) -> u64 {
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

    pub fn nothing_is_left(&self) {
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
fn all_that_a_container_prints_is_in_its_log_in_that_order() {
    let Some(mut yard) = Yard::start(&[]) else { return };
    // It ends right after: an engine that ends the log then takes the rest of it with it.
    let both = "i=0; while [ $i -lt 500 ]; do echo to stdout $i; echo to stderr $i >&2; i=$((i+1)); done";
    let long = "head -c 100000 /dev/zero | tr '\\0' x; echo; seq 0 99999";
    let build = yard.build(&[], &[("both", both), ("long", long)], |_| {});
    assert_eq!(yard.lab.finished(build)["result"], "passed");
    let log = yard.lab.log(build);
    let (_, printed) = log.split_once("--- both\n").expect("a heading");
    let pairs = (0..500).flat_map(|number| [format!("to stdout {number}\n"), format!("to stderr {number}\n")]);
    let numbers = (0..100_000).map(|number| format!("{number}\n"));
    let line = format!("{}\n", "x".repeat(100_000));
    let all: String = pairs.chain(["--- long\n".to_owned(), line]).chain(numbers).collect();
    assert!(printed.starts_with(&all), "{} bytes of {}", printed.len(), all.len());
    assert!(printed[all.len()..].starts_with("--- passed after"), "{}", &printed[all.len()..]);
}

#[test]
fn memory_that_ran_out_is_in_the_verdict_with_its_bound() {
    let Some(mut yard) = Yard::start(&[]) else { return };
    let bounded = |job: &mut Value| job["container"]["memory_bytes"] = json!(64 << 20);
    let eats = "x=xxxxxxxxxxxxxxxx; while :; do x=$x$x; done";
    let build = yard.build(&["phone"], &[("eats", eats), ("next", "echo never")], bounded);
    let report = yard.lab.finished(build);
    assert_eq!((&report["result"], &report["exit_code"]), (&json!("failed"), &json!(137)), "{report}");
    let message = report["message"].as_str().expect("a message");
    assert_eq!(message, "memory ran out in the container, which has 64MiB, and it exited with 137");
    assert!(!yard.lab.log(build).contains("never") && !yard.lab.log(build).contains("OUT-OF"));
    // A step that takes it well is its own business, and the log says what happened.
    let build = yard.build(&["phone"], &[("takes it well", &format!("sh -c '{eats}' || echo well"))], bounded);
    assert_eq!(yard.lab.finished(build)["result"], "passed");
    let log = yard.lab.log(build);
    assert!(log.contains("well\nmemory ran out, and something in the container was killed for it\n"), "{log}");
    yard.nothing_is_left();
}

#[test]
fn its_bounds_are_those_of_its_pipeline() {
    let Some(mut yard) = Yard::start(&[]) else { return };
    // cgroups v2, else v1; the number of processes is tried out.
    let look = "cd /sys/fs/cgroup
        for file in memory.max cpu.max memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us; do
            [ ! -r $file ] || echo $file $(cat $file)
        done
        ls /sys/class/net | cat";
    let forks = "i=0; while [ $i -lt 40 ]; do sleep 60 & i=$((i+1)); done; echo forty";
    let build = yard.build(&[], &[("look", look), ("forks", forks)], |job| {
        for (name, value) in [("memory_bytes", 64 << 20), ("cpu_milli", 500), ("pids", 20)] {
            job["container"][name] = json!(value);
        }
    });
    assert_eq!(yard.lab.finished(build)["result"], "failed");
    let log = yard.lab.log(build);
    let has = |line: &str| log.lines().any(|seen| seen == line);
    assert!(has("memory.max 67108864") || has("memory/memory.limit_in_bytes 67108864"), "{log}");
    assert!(has("cpu.max 50000 100000") || has("cpu/cpu.cfs_quota_us 50000"), "{log}");
    // What has no network has itself; a kernel may show it tunnels that lead nowhere.
    assert!(has("lo") && !log.contains("eth"), "{log}");
    assert!(!has("forty") && log.contains("fork"), "{log}");
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
