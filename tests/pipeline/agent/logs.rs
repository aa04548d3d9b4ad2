//! What builds print, at the broker: every byte once and in order, whatever fails on the way, and no secret.

use nix::sys::signal::Signal;
use sha2::{Digest, Sha256};

use super::stand_in::{Fault, StandIn};
use super::{LAB, PIN};
use crate::common::witness::{children_of, kill9};

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a build prints must have arrived whole, and its end must say so.
#[track_caller]
fn is_whole(lab: &StandIn, build: u64, printed: &[u8]) {
    let report = lab.finished(build);
    assert_eq!(report["result"], "passed", "{report}");
    let log = lab.raw_log(build);
    let begins = log.windows(11).position(|window| window == b"--- print\n0").expect("a heading") + 10;
    assert!(log[begins..].starts_with(printed), "{} bytes of {}", log.len() - begins, printed.len());
    assert!(log[begins + printed.len()..].starts_with(b"--- passed after"));
    assert_eq!(report["log"]["bytes"], log.len());
    assert_eq!(report["log"]["lines"], log.iter().filter(|byte| **byte == b'\n').count());
    assert_eq!(report["log"]["sha256"], sha256(&log));
    let lines: usize = lab.times(build).iter().map(|times| lines_in(times)).sum();
    assert_eq!(lines, log.iter().filter(|byte| **byte == b'\n').count(), "each line has one time");
}

fn lines_in(times: &str) -> usize {
    let (_, entries) = times.split_once(';').expect("a moment first");
    let counts = entries.split(',').filter_map(|entry| entry.split_once('+'));
    counts.map(|(count, _)| count.parse::<usize>().expect("a number")).sum()
}

fn numbers(count: u32) -> Vec<u8> {
    (0..count).flat_map(|number| format!("{number}\n").into_bytes()).collect()
}

#[test]
fn megabytes_arrive_whole_whatever_fails_on_the_way() {
    let mut lab = StandIn::new(LAB);
    let _agent = lab.agent(&[]);
    use Fault::{AnswerLost, Broken, Busy, Half};
    lab.fail(&[AnswerLost, Half, Broken, Half, Half, Busy, AnswerLost, AnswerLost, Broken, Half]);
    let build = lab.build(&[], &[("print", "seq 0 999999")], |_| {});
    is_whole(&lab, build, &numbers(1_000_000));
}

#[test]
fn a_broker_that_is_away_gets_it_all_when_it_is_back() {
    let mut lab = StandIn::new(LAB);
    let agent = lab.agent(&[]);
    let fifo = lab.fifo();
    let script = format!("seq 0 99; cat {} > /dev/null; seq 100 299999", fifo.display());
    let build = lab.build(&[], &[("print", &script)], |_| {});
    lab.wait_for_log(build, "\n99\n");
    lab.away(true);
    let before = lab.stored(build);
    std::fs::write(fifo.path(), "go on\n").expect("the step reads it");
    crate::common::wait::until("it is kept on disk meanwhile", || spooled(&lab, build) > 1_900_000);
    agent.stderr.wait_for("build #1: its log waits on this disk until it can be stored: ");
    assert_eq!(lab.stored(build), before);
    lab.away(false);
    is_whole(&lab, build, &numbers(300_000));
    agent.stderr.wait_for("build #1: its log is being stored again");
}

#[test]
fn a_broker_killed_and_started_again_interrupts_nothing() {
    let mut lab = StandIn::new(LAB);
    let _agent = lab.agent(&[]);
    let fifo = lab.fifo();
    let script = format!("seq 0 99; cat {} > /dev/null; seq 100 1999", fifo.display());
    let build = lab.build(&["phone"], &[("print", &script)], |_| {});
    lab.wait_for_log(build, "\n99\n");
    lab.broker.restart();
    std::fs::write(fifo.path(), "go on\n").expect("the step reads it");
    is_whole(&lab, build, &numbers(2_000));
}

#[test]
fn no_secret_is_sent_however_it_is_printed() {
    let mut lab = StandIn::new(LAB);
    let _agent = lab.agent(&[]);
    // Byte by byte, encoded, and across the ends of reads.
    let steps = [
        ("plain", "printf 'pin-47'; printf '11-of-the-test\\n'; echo $DEPLOY | tr -d '\\n'; echo"),
        ("encoded", "echo x$DEPLOY | base64"),
        ("slowly", "for c in d e p l o y - k e y - 1 7; do printf $c; done; echo; echo true"),
        ("much", "yes \"0123456789 $DEPLOY\" | head -c 3000000"),
    ];
    let build = lab.build(&["phone"], &steps, |job| {
        job["secrets"] = serde_json::json!({ "DEPLOY": "deploy-key-17", "FLAG": "true" });
    });
    assert_eq!(lab.finished(build)["result"], "passed");
    let log = lab.log(build);
    for secret in [PIN, "deploy-key-17", "ZGVwbG95LWtleS0x", "kZXBsb3kta2V5LT"] {
        assert!(!log.contains(secret), "{secret} in the log");
    }
    assert!(log.contains("--- plain\n***\n***\n") && log.contains("--- slowly\n***\ntrue\n"), "{}", &log[..400]);
    let masked = log.matches("0123456789 ***\n").count();
    assert!(masked > 100_000, "{masked} lines");
}

#[test]
fn a_prompt_without_a_line_feed_shows_while_the_step_waits() {
    let mut lab = StandIn::new(LAB);
    let _agent = lab.agent(&[]);
    let fifo = lab.fifo();
    let build = lab.build(&[], &[("ask", &format!("printf 'name? '; cat {}", fifo.display()))], |_| {});
    lab.wait_for_log(build, "--- ask\nname? ");
    std::fs::write(fifo.path(), "ann\n").expect("the step reads it");
    lab.finished(build);
    assert!(lab.log(build).contains("name? ann\n--- passed"), "{}", lab.log(build));
}

#[test]
fn a_log_that_is_closed_holds_no_build_up() {
    let mut lab = StandIn::new(LAB);
    let agent = lab.agent(&[]);
    let fifo = lab.fifo();
    let script = format!("echo begun; cat {} > /dev/null; head -c 3000000 /dev/zero", fifo.display());
    let build = lab.build(&[], &[("print", &script)], |_| {});
    lab.wait_for_log(build, "begun");
    lab.close_log(build);
    std::fs::write(fifo.path(), "go on\n").expect("the step reads it");
    assert_eq!(lab.finished(build)["result"], "passed");
    agent.stderr.wait_for("not all of its log is stored: the log is closed");
}

#[test]
fn what_a_dead_agent_had_not_sent_is_sent_by_its_successor() {
    let mut lab = StandIn::new(LAB);
    let mut agent = lab.agent(&[]);
    let fifo = lab.fifo();
    let script = format!("echo begun; cat {} > /dev/null; seq 0 9999; sleep 600", fifo.display());
    let build = lab.build(&[], &[("print", &script)], |_| {});
    lab.wait_for_log(build, "begun");
    lab.away(true);
    std::fs::write(fifo.path(), "go on\n").expect("the step reads it");
    let printed = numbers(10_000);
    crate::common::wait::until("it is kept on disk", || spooled(&lab, build) > printed.len() as u64);
    let own = children_of(agent.pid());
    agent.signal(Signal::SIGKILL);
    kill9(own[0]);
    assert!(!lab.log(build).contains("9999"));
    lab.away(false);
    let next = lab.agent(&[]);
    next.stderr.wait_for("build #1: the rest of its log is stored");
    let log = lab.log(build);
    let (_, rest) = log.split_once("begun\n").expect("its beginning is there");
    assert_eq!(rest.as_bytes(), printed);
}

/// Bytes of a build's spool.
fn spooled(lab: &StandIn, build: u64) -> u64 {
    let files = std::fs::read_dir(lab.work().join(format!("builds/{build}-1/spool"))).into_iter().flatten();
    files.filter_map(|file| Some(file.ok()?.metadata().ok()?.len())).sum()
}
