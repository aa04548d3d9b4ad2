//! Builds that come to their ends by themselves: what their steps see, and how they are told.

use serde_json::json;

use super::LAB;
use super::stand_in::StandIn;
use crate::common::wait::until;

#[test]
fn a_build_passes_and_leaves_nothing() {
    let mut lab = StandIn::new(LAB);
    let sha = lab.commit("greeting", "good morning");
    let agent = lab.agent(&[]);
    let build =
        lab.build(&[], &[("look", "cat greeting; echo"), ("say", "echo to stderr >&2; echo to stdout")], |_| {});
    let report = lab.finished(build);
    assert_eq!((&report["result"], &report["exit_code"], &report["attempt"]), (&json!("passed"), &json!(0), &json!(1)));
    let log = lab.log(build);
    let (checkout, rest) = log.split_once("--- look\n").expect("a heading");
    assert!(checkout.starts_with("--- checkout\n") && checkout.contains(&sha), "{log}");
    assert!(rest.starts_with("good morning\n--- say\nto stderr\nto stdout\n--- passed after "), "{log}");
    assert_eq!(report["log"]["bytes"], log.len());
    assert_eq!(report["log"]["lines"], log.lines().count());
    agent.stderr.wait_for("build #1 (acme/app unit): passed after");
    until("its folder is gone", || std::fs::read_dir(lab.work().join("builds")).expect("it is there").count() == 0);
    let state = |name: &str| lab.broker.cli(&["resource", "show", name, "--json"]).json()["state"].clone();
    until("its executor is free", || state("rack") == "free");
}

#[test]
fn steps_see_a_clean_environment_and_what_they_hold() {
    let mut lab = StandIn::new(LAB);
    lab.agent_runs(&["--env-pass", "AGENTS_OWN"], |lab| {
        let steps = [(
            "env",
            "env; echo home is $HOME; ls -a $HOME $TMPDIR; cat $LEASEHOLD_SECRETS_FILE; pwd; read x || echo no stdin",
        )];
        let build = lab.build(&["phone,os=android"], &steps, |job| {
            job["env"] = json!({ "MODE": "release", "LEASEHOLD_BUILD": "forged" });
        });
        lab.finished(build);
        let log = lab.log(build);
        for line in [
            "CI=true",
            "MODE=release",
            "AGENTS_OWN=hush-hush",
            "LEASEHOLD_BUILD=1",
            "LEASEHOLD_REPOSITORY=acme/app",
            "LEASEHOLD_PIPELINE=unit",
            "LEASEHOLD_REF=refs/heads/main",
            "LEASEHOLD_PHONE_SERIAL=emulator-5554",
            "LEASEHOLD_EXECUTOR_NAME=rack",
            "no stdin",
        ] {
            assert!(log.lines().any(|seen| seen == line), "no {line} in:\n{log}");
        }
        assert!(log.contains(&format!("LEASEHOLD_LEASE={}", lab.lease(build))), "{log}");
        assert!(!log.contains("USER=tester") && !log.contains(super::PIN), "{log}");
        assert!(log.contains(r#""pin":"***""#), "{log}");
    });
}

#[test]
fn the_first_step_that_fails_ends_it() {
    let mut lab = StandIn::new(LAB);
    let _agent = lab.agent(&[]);
    let steps = [("one", "echo first\nfalse\necho never"), ("two", "echo never")];
    let build = lab.build(&[], &steps, |_| {});
    let report = lab.finished(build);
    assert_eq!((&report["result"], &report["exit_code"]), (&json!("failed"), &json!(1)));
    assert_eq!(report["message"], "step \"one\" exited with 1");
    let log = lab.log(build);
    assert!(log.contains("--- one\nfirst\n--- failed after ") && !log.contains("never"), "{log}");

    let killed = lab.build(&[], &[("one", "kill -9 $$")], |_| {});
    let report = lab.finished(killed);
    assert_eq!((&report["result"], &report["exit_code"]), (&json!("failed"), &json!(137)));
    assert_eq!(report["message"], "step \"one\" was ended by SIGKILL");
}

#[test]
fn a_step_that_removes_the_workspace_fails_the_build_and_is_said_to() {
    let mut lab = StandIn::new(LAB);
    let _agent = lab.agent(&[]);
    let build = lab.build(&[], &[("clean", "rm -rf \"$PWD\""), ("two", "echo never")], |_| {});
    let report = lab.finished(build);
    let message = "step \"two\" has no workspace to run in: a step before removed it";
    assert_eq!((&report["result"], &report["message"]), (&json!("failed"), &json!(message)));
    assert!(!lab.log(build).contains("never"), "{}", lab.log(build));
}

#[test]
fn a_commit_that_does_not_exist_fails_and_a_repository_that_cannot_be_had_loses() {
    let mut lab = StandIn::new(LAB);
    let _agent = lab.agent(&[]);
    let build = lab.build(&[], &[("one", "true")], |job| job["checkout"]["sha"] = json!("1a".repeat(20)));
    assert_eq!(lab.finished(build)["result"], "failed");
    assert!(lab.log(build).contains("not our ref 1a1a"), "{}", lab.log(build));
    let build = lab.build(&[], &[("one", "true")], |job| {
        job["checkout"]["url"] = json!("http://127.0.0.1:1/acme/app.git");
        job["checkout"]["user"] = json!("robot");
        job["checkout"]["token"] = json!("forge-token-9");
    });
    assert_eq!(lab.finished(build)["result"], "lost");
    assert!(!lab.log(build).contains("forge-token-9"), "{}", lab.log(build));
}

#[test]
fn what_takes_too_long_is_ended_with_all_it_started() {
    let mut lab = StandIn::new(LAB);
    let _agent = lab.agent(&[]);
    let fifo = lab.fifo();
    let script =
        format!("exec 9>{}; printf x >&9; trap 'echo told to end; exit 0' TERM; sleep 600 & wait", fifo.display());
    let build = lab.build(&[], &[("long", &script)], |job| job["timeout_ms"] = json!(3_000));
    fifo.wait_gone();
    let report = lab.finished(build);
    assert_eq!((&report["result"], &report["message"]), (&json!("timed_out"), &json!("it took longer than 3s")));
    assert!(lab.log(build).contains("told to end\n--- timed out after 3s"), "{}", lab.log(build));
}

#[test]
fn two_slots_run_two_builds_side_by_side() {
    let mut lab = StandIn::new(LAB);
    let _agent = lab.agent(&["--slots", "2"]);
    let here = lab.dir().display().to_string();
    // Each waits for the other: alone neither ends.
    let meet = |own: &str, other: &str| format!("echo x > {here}/{other} & cat {here}/{own}; wait");
    for name in ["a", "b"] {
        nix::unistd::mkfifo(&lab.dir().join(name), nix::sys::stat::Mode::S_IRWXU).expect("a FIFO can be made");
    }
    let first = lab.build(&[], &[("meet", &meet("a", "b"))], |_| {});
    let second = lab.build(&[], &[("meet", &meet("b", "a"))], |_| {});
    assert_eq!((&lab.finished(first)["result"], &lab.finished(second)["result"]), (&json!("passed"), &json!("passed")));
}

#[test]
fn failed_builds_folders_are_kept_where_that_is_asked_for() {
    let mut lab = StandIn::new(LAB);
    let agent = lab.agent(&["--cleanup", "passed"]);
    let passed = lab.build(&[], &[("one", "touch made")], |_| {});
    lab.finished(passed);
    agent.stderr.wait_for("build #1 (acme/app unit): passed");
    let failed = lab.build(&[], &[("one", "touch made; false")], |_| {});
    lab.finished(failed);
    agent.stderr.wait_for("build #2 (acme/app unit): failed");
    let kept = lab.work().join("kept");
    assert!(kept.join("2-1/workspace/made").exists() && !kept.join("1-1").exists());
    assert!(!kept.join("2-1/private").exists(), "what only its helpers were told is gone");
}
