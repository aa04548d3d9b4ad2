//! Real agents with a real conductor: from asking for a build to its end, whoever is killed meanwhile.

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::common::broker::Broker;
use crate::common::process::Process;
use crate::common::wait::until;
use crate::common::witness::Fifo;
use crate::fake::{APP, PHONE, Repo, build, comes_to, holder_of_phone, start};

/// A broker that builds `repo` by this script, as the text of a TOML string, under these lines more.
fn lab(repo: &Repo, script: &str, more: &str) -> Broker {
    let url = repo.path().display().to_string();
    let script = toml_text(script);
    Broker::with(PHONE)
        .config(format!(
            "[[repository]]\nname = \"{APP}\"\nforge = \"github\"\nurl = \"{url}\"\npools = [\"phone\"]\n\
             secrets = {{ DEPLOY = {{ env = \"DEPLOY\" }} }}\n\
             [[repository.pipeline]]\nname = \"unit\"\non = [\"push\"]\nneeds = [\"phone\"]\nrun = {script}\n{more}\n"
        ))
        .env("DEPLOY", "deploy-key-17")
        .start()
}

/// As TOML has it; JSON's escapes are its too.
fn toml_text(text: &str) -> String {
    json!(text).to_string()
}

fn agent(broker: &Broker, name: &str, options: &[&str]) -> Process {
    let words = ["agent", "--name", name, "--work", name, "--ttl", "5s"];
    let agent = broker.spawn(&[&words, options].concat());
    agent.stderr.wait_for(&format!("agent {name} is online"));
    agent
}

fn log(broker: &Broker, id: u64) -> String {
    broker.http("GET", &format!("/builds/{id}/log"), None).body
}

fn wait_for_log(broker: &Broker, id: u64, part: &str) {
    until(&format!("the log has {part:?}"), || log(broker, id).contains(part));
}

/// The build passes, and its log [`is_whole`].
#[track_caller]
fn passes_whole(broker: &Broker, id: u64, count: usize) {
    let over = comes_to(broker, id, "passed");
    is_whole(&over, &log(broker, id), count);
}

/// The numbers up to `count` stand in the log, each once, and the build's record says what it comes to.
#[track_caller]
pub fn is_whole(over: &Value, log: &str, count: usize) {
    let numbers: Vec<&str> = log.lines().filter(|line| line.parse::<usize>().is_ok()).collect();
    assert_eq!(numbers.len(), count);
    assert!(numbers.iter().enumerate().all(|(at, number)| number.parse() == Ok(at)));
    assert_eq!(over["log"]["bytes"], log.len());
    assert_eq!(over["log"]["lines"], log.lines().count());
    let hash: String = Sha256::digest(log.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(over["log"]["sha256"], hash);
}

#[test]
fn a_build_passes_with_its_phone_and_its_secret() {
    let repo = Repo::new();
    let script = "cat file; echo $LEASEHOLD_PHONE_NAME; echo $DEPLOY; echo $DEPLOY | wc -c";
    let broker = lab(&repo, script, "secrets = [\"DEPLOY\"]");
    let _agent = agent(&broker, "rack", &[]);
    let id = start(&broker)[0];
    let over = comes_to(&broker, id, "passed");
    assert_eq!((&over["agent"], &over["exit_code"]), (&json!("rack"), &json!(0)));
    let log = log(&broker, id);
    let (checkout, rest) = log.split_once("\nfirst").expect("the file is printed");
    assert!(checkout.starts_with("--- checkout\n") && checkout.contains(&repo.git(&["rev-parse", "HEAD"])), "{log}");
    assert!(rest.starts_with("pixel-1\n***\n14\n--- passed after"), "{log}");
    until("its phone is free", || holder_of_phone(&broker).is_none());
}

#[test]
fn a_cancelled_build_s_phone_is_free_when_its_last_process_is_gone() {
    let repo = Repo::new();
    let fifo = Fifo::make(&repo.path().join("fifo"));
    let script =
        format!("exec 9>{}; setsid sh -c 'trap \"\" TERM; printf x >&9; sleep 600' & sleep 600", fifo.display());
    let broker = lab(&repo, &script, "grace = \"1s\"");
    let _agent = agent(&broker, "rack", &[]);
    let id = start(&broker)[0];
    let held = fifo.meet(1);
    assert_eq!(holder_of_phone(&broker), Some(id));
    broker.sh(&format!("build cancel {id}")).exits(0);
    held.wait();
    comes_to(&broker, id, "cancelled");
    assert_eq!(holder_of_phone(&broker), None, "a build that is over holds nothing");
    assert!(log(&broker, id).contains("--- stopped after"), "{}", log(&broker, id));
}

#[test]
fn a_killed_agent_s_build_runs_again_on_another() {
    let repo = Repo::new();
    let fifo = Fifo::make(&repo.path().join("fifo"));
    let script =
        format!("echo attempt $LEASEHOLD_ATTEMPT; [ $LEASEHOLD_ATTEMPT = 2 ] || exec sleep 600 9>{}", fifo.display());
    let broker = lab(&repo, &script, "retries = 1");
    let mut first = agent(&broker, "rack", &[]);
    let id = start(&broker)[0];
    wait_for_log(&broker, id, "attempt 1");
    first.signal(Signal::SIGKILL);
    let _second = agent(&broker, "bench", &[]);
    let over = comes_to(&broker, id, "passed");
    assert_eq!((&over["agent"], &over["attempt"]), (&json!("bench"), &json!(2)));
    assert!(log(&broker, id).contains("attempt 2\n"));
}

#[test]
fn a_broker_killed_and_started_again_interrupts_nothing() {
    let repo = Repo::new();
    let fifo = Fifo::make(&repo.path().join("fifo"));
    let script = format!("seq 0 99; cat {} > /dev/null; seq 100 29999", fifo.display());
    let mut broker = lab(&repo, &script, "");
    let _agent = agent(&broker, "rack", &[]);
    let id = start(&broker)[0];
    wait_for_log(&broker, id, "\n99\n");
    broker.kill9();
    // It prints on while nobody is there to take it.
    std::fs::write(fifo.path(), "go on\n").expect("the step reads it");
    let spool = broker.dir().join(format!("rack/builds/{id}-1/spool"));
    until("it is kept meanwhile", || {
        let files = std::fs::read_dir(&spool).into_iter().flatten();
        files.filter_map(|file| Some(file.ok()?.metadata().ok()?.len())).sum::<u64>() > 160_000
    });
    broker.start();
    passes_whole(&broker, id, 30_000);
}

#[test]
fn an_agent_that_is_stopped_waits_and_leaves() {
    let repo = Repo::new();
    let fifo = Fifo::make(&repo.path().join("fifo"));
    let broker = lab(&repo, &format!("echo begun; cat {} > /dev/null", fifo.display()), "");
    let mut agent = agent(&broker, "rack", &[]);
    let id = start(&broker)[0];
    wait_for_log(&broker, id, "begun");
    agent.signal(Signal::SIGTERM);
    agent.stderr.wait_for("no new work: 1 build waited for");
    let waiting = start(&broker)[0];
    std::fs::write(fifo.path(), "go on\n").expect("the step reads it");
    comes_to(&broker, id, "passed");
    assert_eq!(agent.wait().code, Some(0));
    assert_eq!(build(&broker, waiting)["state"], "queued");
}
