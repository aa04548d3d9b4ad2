//! What `run` exits with: its command's own code, or one of its own.

use super::common::broker::Broker;
use super::common::process::leasehold_alone;
use super::{ONE_PHONE, all_free, run};

#[test]
fn the_commands_own_code_is_passed_through() {
    let broker = Broker::with_inventory(ONE_PHONE);
    for (script, code) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 120", 120),
        ("exit 126", 126),
        ("exit 127", 127),
        ("exit 255", 255),
        ("kill -9 $$", 137),
        ("kill -TERM $$", 143),
    ] {
        let output = run(&broker, &[], script).wait();
        assert_eq!(output.code, Some(code), "{script}: {}", output.stderr);
    }
    assert!(all_free(&broker));
}

#[test]
fn what_cannot_be_started_is_told_as_a_shell_tells_it() {
    let broker = Broker::with_inventory(ONE_PHONE);
    let file = broker.dir().join("no-program");
    std::fs::write(&file, "text").expect("a temporary file can be written");
    for (command, code) in [("no-such-program-anywhere", 127), ("/etc", 126), (&*super::shown(&file), 126)] {
        let output = broker.cli(&["run", "-n", "phone", "--", command]).exits(code);
        assert!(output.stderr.contains(command), "{}", output.stderr);
    }
    assert!(all_free(&broker));
}

#[test]
fn what_is_impossible_is_said_at_once_with_what_comes_nearest() {
    let broker = Broker::with_inventory(ONE_PHONE);
    for (need, parts) in [
        ("phone,os=ios", &["phone", "os=ios"][..]),
        ("phone where api >= 40", &["api >= 40"]),
        ("2:phone", &["2", "1"]),
        ("phnoe", &["phnoe", "phone"]),
        ("phone where oss == 'android'", &["oss", "os"]),
    ] {
        let output = broker.cli(&["run", "-n", need, "--wait", "10m", "--", "echo", "started"]).exits(125);
        assert_eq!(output.stdout, "", "{need}");
        for part in parts {
            assert!(output.stderr.contains(part), "{need}: no {part:?} in {}", output.stderr);
        }
    }
    let mistaken = broker.cli(&["run", "-n", "phone,,", "--", "true"]).exits(125);
    assert!(mistaken.stderr.contains("phone,,"), "{}", mistaken.stderr);
    let too_long = broker.cli(&["run", "-n", "phone", "--hold", "3h", "--", "true"]).exits(125);
    assert!(too_long.stderr.contains("2h"), "{}", too_long.stderr);
}

#[test]
fn a_wait_that_is_over_is_124() {
    let broker = Broker::with_inventory(ONE_PHONE);
    let mut holder = broker.session("holder@desk");
    holder.lease(&["phone"]);
    for wait in ["1s", "0"] {
        let output = run(&broker, &["--wait", wait], "echo started").wait().exits(124);
        assert_eq!(output.stdout, "");
        assert!(output.stderr.contains("its wait was over"), "--wait {wait}: {}", output.stderr);
        assert!(broker.sh("queue --json").exits(0).json().as_array().is_some_and(Vec::is_empty));
    }
    holder.close();
    run(&broker, &["--wait", "0"], "exit 7").wait().exits(7);
}

#[test]
fn fail_fast_and_wait_for_inventory_turn_into_each_other() {
    let broker = Broker::with_inventory(ONE_PHONE);
    broker.sh("resource drain pixel --reason repair").exits(0);
    let output = run(&broker, &["--fail-fast"], "true").wait().exits(125);
    assert!(output.stderr.contains("drained"), "{}", output.stderr);
    let mut waits = run(&broker, &[], "exit 7");
    let line = waits.stderr.wait_for("waiting, place 1");
    assert!(line.contains("drained"), "{line}");
    broker.sh("resource undrain pixel").exits(0);
    waits.wait().exits(7);

    let mut later = broker.spawn(&["run", "-n", "phone,os=ios", "--wait-for-inventory", "--", "sh", "-c", "exit 9"]);
    later.stderr.wait_for("waiting, place 1");
    broker.sh("resource set iphone --pool phone --label os=ios").exits(0);
    later.wait().exits(9);
}

#[test]
fn a_mistake_on_the_command_line_is_125() {
    for line in [
        &["run", "--", "true"][..],
        &["run", "-n", "phone"],
        &["run", "-n", "phone", "--wait", "10", "--", "true"],
        &["run", "-n", "phone", "--frobnicate", "--", "true"],
        &["run", "-n", "phone", "--report", "/no/such/directory/x", "--", "true"],
        &["--url", "lab:5327", "run", "-n", "phone", "--", "true"],
        &["acquire"],
        &["acquire", "-n", "phone", "--detach"],
        &["acquire", "-n", "phone", "--format", "env"],
        &["acquire", "-n", "phone", "--no-keeper", "--secrets", "file"],
    ] {
        let output = leasehold_alone(line);
        assert_eq!(output.code, Some(125), "{line:?}: {}", output.stderr);
        assert!(output.stderr.len() > 20, "{line:?}: {}", output.stderr);
    }
}
