//! Builds that are ended: by their lease, by their agent's end, by somebody's kill. Nothing of them survives.

use nix::sys::signal::Signal;
use serde_json::json;

use super::LAB;
use super::stand_in::StandIn;
use crate::common::wait::until;
use crate::common::witness::{Fifo, children_of, kill9};

/// Forks twice and leaves its session, and holds the FIFO open as descriptor 9 in all of it.
fn daemon(fifo: &Fifo) -> String {
    format!(
        "exec 9>{}; setsid sh -c 'trap \"\" TERM HUP; (trap \"\" TERM; printf x >&9; sleep 600) & sleep 600' & \
         printf x >&9; sleep 600",
        fifo.display()
    )
}

#[test]
fn a_revoked_lease_ends_it_with_everything_that_forked_away() {
    let mut lab = StandIn::new(LAB);
    let _agent = lab.agent(&[]);
    let fifo = lab.fifo();
    let build = lab.build(&["phone"], &[("long", &daemon(&fifo))], |_| {});
    let gone = fifo.meet(2);
    lab.wait_running(build);
    lab.broker.cli(&["lease", "revoke", &lab.lease(build).to_string()]).exits(0);
    gone.wait();
    let report = lab.finished(build);
    assert_eq!(report["result"], "stopped");
    let log = lab.log(build);
    assert!(log.contains("--- stopped after") && log.contains("revoked"), "{log}");
    until("all is free", || lab.broker.sh("lease ls --json").json().as_array().is_some_and(Vec::is_empty));
}

#[test]
fn an_agent_s_death_ends_its_builds_as_lost() {
    let mut lab = StandIn::new(LAB);
    let mut agent = lab.agent(&[]);
    let fifo = lab.fifo();
    let build = lab.build(&["phone"], &[("long", &daemon(&fifo))], |_| {});
    let gone = fifo.meet(2);
    lab.wait_running(build);
    agent.signal(Signal::SIGKILL);
    gone.wait();
    let report = lab.finished(build);
    assert_eq!((&report["result"], &report["message"]), (&json!("lost"), &json!("its agent is gone")));
    until("all is free", || lab.broker.sh("lease ls --json").json().as_array().is_some_and(Vec::is_empty));
    // Its successor takes over at once, and finds a clean place.
    let _next = lab.agent(&[]);
    let again = lab.build(&["phone"], &[("one", "echo again")], |_| {});
    assert_eq!(lab.finished(again)["result"], "passed");
    let builds = lab.work().join("builds");
    until("nothing is left", || std::fs::read_dir(&builds).expect("it is there").count() == 0);
}

#[test]
fn a_build_s_own_process_killed_leaves_nothing_and_frees_its_lease() {
    let mut lab = StandIn::new(LAB);
    let agent = lab.agent(&[]);
    let fifo = lab.fifo();
    let build = lab.build(&["phone"], &[("long", &daemon(&fifo))], |_| {});
    let gone = fifo.meet(2);
    lab.wait_running(build);
    let own = children_of(agent.pid());
    assert_eq!(own.len(), 1, "the agent has one child for its build: {own:?}");
    kill9(own[0]);
    gone.wait();
    until("all is free", || lab.broker.sh("lease ls --json").json().as_array().is_some_and(Vec::is_empty));
    agent.stderr.wait_for("build #1 (acme/app unit): its process died");
    let builds = lab.work().join("builds");
    until("its folder is gone", || std::fs::read_dir(&builds).expect("it is there").count() == 0);
    let next = lab.build(&["phone"], &[("one", "echo next")], |_| {});
    assert_eq!(lab.finished(next)["result"], "passed");
}

#[test]
fn term_waits_for_what_runs_and_takes_nothing_new() {
    let mut lab = StandIn::new(LAB);
    let mut agent = lab.agent(&["--slots", "2"]);
    let fifo = lab.fifo();
    let build = lab.build(&[], &[("wait", &format!("echo begun; cat {}; echo done", fifo.display()))], |_| {});
    lab.wait_for_log(build, "begun");
    agent.signal(Signal::SIGTERM);
    agent.stderr.wait_for("no new work: 1 build waited for");
    until("nobody is offered its executor", || {
        let shown = lab.broker.cli(&["resource", "show", "rack", "--json"]);
        shown.code != Some(0) || shown.json()["state"] != "free" && !shown.json()["pending"].is_null()
    });
    std::fs::write(fifo.path(), "go on\n").expect("the step reads it");
    assert_eq!(lab.finished(build)["result"], "passed");
    assert_eq!(agent.wait().code, Some(0));
}

#[test]
fn one_that_is_being_taken_when_the_agent_is_stopped_is_seen_through() {
    let mut lab = StandIn::new(LAB);
    let mut agent = lab.agent(&[]);
    // More answers are lost than a short outage loses.
    lab.hold_takes(7, true);
    let build = lab.build(&["phone"], &[("one", "echo done")], |_| {});
    lab.wait_handed_over(build);
    agent.signal(Signal::SIGTERM);
    until("nobody is offered its executor", || {
        let shown = lab.broker.cli(&["resource", "show", "rack", "--json"]);
        shown.code != Some(0) || shown.json()["state"] != "free" && !shown.json()["pending"].is_null()
    });
    lab.hold_takes(0, false);
    assert_eq!(lab.finished(build)["result"], "passed");
    assert_eq!(agent.wait().code, Some(0));
}

#[test]
fn a_second_signal_stops_what_runs() {
    let mut lab = StandIn::new(LAB);
    let mut agent = lab.agent(&[]);
    let fifo = lab.fifo();
    let build = lab.build(&["phone"], &[("long", &daemon(&fifo))], |_| {});
    let gone = fifo.meet(2);
    lab.wait_running(build);
    agent.signal(Signal::SIGTERM);
    agent.stderr.wait_for("no new work: 1 build waited for");
    agent.signal(Signal::SIGTERM);
    gone.wait();
    let report = lab.finished(build);
    assert_eq!((&report["result"], &report["message"]), (&json!("lost"), &json!("its agent was told to stop")));
    assert_eq!(agent.wait().code, Some(0));
}

#[test]
fn one_whose_lease_is_gone_before_it_begins_runs_nothing() {
    let mut lab = StandIn::new(LAB);
    let _agent = lab.agent(&[]);
    let marker = lab.dir().join("ran");
    let build = lab.build(&[], &[("one", &format!("touch {}", marker.display()))], |job| {
        job["session"]["secret"] = json!("of another");
    });
    let report = lab.finished(build);
    assert_eq!(report["result"], "lost");
    assert!(!marker.exists());
}
