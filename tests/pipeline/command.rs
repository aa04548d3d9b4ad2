//! The commands of people, with a real agent: looking, following, ending, repeating.

use super::common::broker::Broker;
use super::common::process::Process;
use super::common::wait::{eventually, until};
use super::fake::{Repo, comes_to, lab, pipeline};

/// A lab whose pipeline runs this, and an agent. `REPO` is the repository's folder.
fn yard(run: &str) -> (Repo, Broker, Process) {
    let repo = Repo::new();
    let run = run.replace("REPO", repo.path().to_str().expect("a path is text"));
    let text = pipeline("unit", "needs = [\"phone\"]").replace("\"make test\"", &format!("'''{run}'''"));
    let broker = lab(&repo, &text);
    let agent = agent(&broker);
    (repo, broker, agent)
}

fn agent(broker: &Broker) -> Process {
    let work = broker.dir().join("work");
    let agent = broker.spawn(&["agent", "--name", "rack", "--work", work.to_str().expect("a path is text")]);
    agent.stderr.wait_for("agent rack is online");
    agent
}

#[test]
fn a_build_is_started_followed_and_shown() {
    let (_repo, broker, _agent) = yard("printf 'one\\n\\033[31mtwo\\033[0m\\n'; echo on $LEASEHOLD_PHONE_NAME");
    let started = broker.sh("build start acme/app --ref main").exits(0);
    assert!(started.stderr.contains("build #1 is started"), "{}", started.stderr);
    let log = broker.sh("build log -f 1").exits(0).stdout;
    assert!(log.contains("one\n\u{1b}[31mtwo\u{1b}[0m\non pixel-1\n"), "{log:?}");
    // Over, and the same from the same place.
    assert_eq!(broker.sh("build log #1").exits(0).stdout, log);
    let shown = broker.sh("build show 1").exits(0).stdout;
    for part in ["build #1", "passed", "branch main of acme/app, pipeline unit", "rack", "its steps began (rack)"] {
        assert!(shown.contains(part), "no {part} in:\n{shown}");
    }
    let listed = broker.sh("build ls --json --state passed").exits(0).json();
    assert_eq!((listed.as_array().map(Vec::len), &listed[0]["build"]), (Some(1), &1.into()));
    assert!(broker.sh("build ls --state failed").exits(0).stdout.is_empty());

    broker.sh("build retry 1").exits(0);
    comes_to(&broker, 2, "passed");
    let table = broker.sh("build ls").exits(0).stdout;
    assert_eq!(table.lines().count(), 3, "{table}");
}

#[test]
fn who_follows_a_build_is_told_how_it_failed() {
    let (_repo, broker, _agent) = yard("echo begun; exit 7");
    broker.sh("build start acme/app --ref main --pipeline unit").exits(0);
    let followed = broker.sh("build log --follow 1").exits(1);
    assert!(followed.stderr.contains("build #1 is failed"), "{}", followed.stderr);
    let shown = broker.sh("build show 1 --json").exits(0).json();
    assert_eq!((&shown["state"], &shown["exit_code"]), (&"failed".into(), &7.into()));
}

#[test]
fn following_outlives_the_broker_and_misses_nothing() {
    let (repo, mut broker, _agent) = yard("echo first; until [ -e REPO/go ]; do sleep 0.1; done; seq 10000");
    broker.sh("build start acme/app --ref main").exits(0);
    let mut follower = broker.spawn(&["build", "log", "-f", "1"]);
    follower.stdout.wait_for("first");
    broker.restart();
    std::fs::write(repo.path().join("go"), "").expect("a file can be written");
    let output = follower.wait().exits(0);
    let whole: String = (1..=10_000).map(|number| format!("{number}\n")).collect();
    assert!(output.stdout.contains(&whole), "{}", output.stdout.len());
    assert_eq!(broker.sh("build log 1").exits(0).stdout, output.stdout);
}

#[test]
fn a_cancelled_build_gives_its_phone_back() {
    let (_repo, broker, _agent) = yard("echo begun; sleep 600");
    broker.sh("build start acme/app --ref main").exits(0);
    let mut follower = broker.spawn(&["build", "log", "-f", "1"]);
    follower.stdout.wait_for("begun");
    broker.cli(&["build", "cancel", "1", "--reason", "had enough"]).exits(0);
    let followed = follower.wait().exits(1);
    assert!(followed.stderr.contains("cancelled") && followed.stderr.contains("had enough"), "{}", followed.stderr);
    until("its phone is free", || broker.sh("lease ls --json").json() == serde_json::json!([]));
    let again = broker.sh("build cancel 1").exits(0);
    assert!(again.stderr.contains("build #1 is cancelled"), "{}", again.stderr);
    let refused = broker.sh("build approve 1").exits(1);
    assert!(!refused.stderr.is_empty());
}

#[test]
fn what_is_not_there_is_said() {
    let repo = Repo::new();
    let broker = lab(&repo, &pipeline("unit", ""));
    for line in ["build show 9", "build log 9", "build cancel 9", "hook show 9", "hook redeliver 9"] {
        let answer = broker.sh(line).exits(1);
        assert!(answer.stderr.contains('9'), "{line}: {}", answer.stderr);
    }
    assert!(broker.sh("build start acme/other --ref main").exits(1).stderr.contains("acme/other"));
    assert!(broker.sh("build start acme/app --ref nowhere").exits(1).stderr.contains("nowhere"));
    assert!(broker.sh("hook ls").exits(0).stdout.is_empty());
    broker.sh("build show x").exits(2);
}

#[test]
fn a_build_that_waits_says_for_what_and_with_which_claim() {
    let repo = Repo::new();
    let broker = lab(&repo, &pipeline("unit", "needs = [\"phone\"]"));
    broker.sh("build start acme/app --ref main").exits(0);
    let claim = eventually("it claims", || broker.sh("build show 1 --json").exits(0).json()["claim"].as_u64());
    assert!(broker.sh("build show 1").exits(0).stdout.contains("no agent is online that fits"));
    assert!(broker.sh(&format!("why c{claim}")).exits(0).stdout.contains("executor"));
}
