//! Builds over the move of the lead to another broker, on PostgreSQL.

use leasehold::testing::postgres;
use nix::sys::signal::Signal;
use serde_json::Value;

use super::agent::whole::is_whole;
use super::brokers::Broker;
use super::common::http;
use super::common::process::{self, Process};
use super::common::wait::{eventually, until};
use super::common::witness::Fifo;
use super::fake::{Agent, PHONE, Repo, config, pipeline};

struct Pair {
    first: Broker,
    second: Broker,
    logs: tempfile::TempDir,
}

impl Pair {
    /// Two brokers that build, of which the first leads.
    fn new(store: &str, repo: &Repo, pipelines: &str) -> Self {
        let logs = tempfile::tempdir().expect("a temporary directory can be made");
        let text = format!("{}[logs]\nurl = \"file://{}\"\n", config(repo, pipelines), logs.path().display());
        let path = logs.path().join("leasehold.toml");
        std::fs::write(&path, text).expect("a file can be written");
        let inventory = PHONE.replace("5s", "30s");
        let broker =
            || Broker::on(store, Some(&inventory)).arg("--config").arg(path.to_str().expect("a plain path")).started();
        let first = broker();
        first.wait_leads();
        let second = broker();
        second.wait_follows(&first);
        Self { first, second, logs }
    }

    /// An agent, as a process, that knows both.
    fn agent(&self) -> Process {
        let mut command = process::leasehold(self.logs.path());
        command.current_dir(self.logs.path());
        command.env("LEASEHOLD_URL", format!("{},{}", self.first.url(), self.second.url()));
        let agent = Process::start(command.args(["agent", "--name", "rack", "--work", "rack", "--ttl", "10s"]));
        agent.stderr.wait_for("agent rack is online");
        agent
    }
}

fn unit() -> String {
    pipeline("unit", "needs = [\"phone\"]")
}

fn start(port: u16) -> u64 {
    let body = serde_json::json!({ "repository": "acme/app", "git_ref": "main" });
    let started = http::request(port, "POST", "/v1/builds", &[], Some(&body)).ok();
    started["builds"][0].as_u64().expect("a build")
}

fn log(port: u16, id: u64) -> String {
    http::request(port, "GET", &format!("/builds/{id}/log"), &[], None).body
}

/// Whether somebody holds the phone.
fn phone_is_held(port: u16) -> bool {
    let leases = http::request(port, "GET", "/v1/leases", &[], None).ok();
    leases["items"].as_array().expect("a list").iter().any(|lease| lease["resources"]["phone"].is_array())
}

fn build(port: u16, id: u64) -> Value {
    http::request(port, "GET", &format!("/v1/builds/{id}"), &[], None).ok()
}

#[test]
fn builds_go_on_when_another_broker_leads() {
    let Some(server) = postgres::shared() else { return };
    let repo = Repo::new();
    let mut pair = Pair::new(&server.database(), &repo, &unit());
    let (old, new) = (pair.first.port, pair.second.port);
    let mut agent = Agent::bring(old, "rack", 2);
    let running = start(old);
    let mut have = agent.take_next();
    have.running();
    have.log("one\ntwo\n");
    let waiting = start(old);
    pair.first.end(Signal::SIGKILL);
    pair.second.wait_leads();

    have.moved(new);
    agent.again(new);
    assert_eq!(build(new, running)["state"], "running");
    assert_eq!(build(new, waiting)["state"], "queued");
    have.finished_with("passed", &super::fake::end_of("one\ntwo\n")).ok();
    let over = eventually("it passed", || Some(build(new, running)).filter(|it| it["state"] == "passed"));
    assert_eq!((&over["attempt"], &over["log"]["lines"]), (&1.into(), &2.into()));
    let text = http::request(new, "GET", &format!("/builds/{running}/log"), &[], None);
    assert_eq!(text.body, "one\ntwo\n", "the log came over too");
    let next = agent.take_next();
    assert_eq!(next.build, waiting);
    next.finished("passed").ok();
    eventually("the other passed", || (build(new, waiting)["state"] == "passed").then_some(()));
}

#[test]
fn a_hand_over_loses_no_build() {
    let Some(server) = postgres::shared() else { return };
    let repo = Repo::new();
    let mut pair = Pair::new(&server.database(), &repo, &unit());
    let mut agent = Agent::bring(pair.first.port, "rack", 2);
    let id = start(pair.first.port);
    assert_eq!(agent.work(), [id]);
    assert_eq!(pair.first.end(Signal::SIGTERM).code, Some(0));
    pair.second.wait_leads();
    let new = pair.second.port;
    agent.again(new);
    let have = agent.take_next();
    assert_eq!((have.build, have.attempt), (id, 1));
    have.finished("passed").ok();
    eventually("it passed", || (build(new, id)["state"] == "passed").then_some(()));
}

/// A build of a real agent runs, prints and holds a phone while the broker that leads gets this signal; the
/// other leads, and the build comes to its end as if nothing had been.
#[track_caller]
fn a_real_agent_s_build_goes_on(signal: Signal) {
    let Some(server) = postgres::shared() else { return };
    let repo = Repo::new();
    let fifo = Fifo::make(&repo.path().join("fifo"));
    let begun = repo.path().join("begun");
    let wait = format!("cat {} > /dev/null", fifo.path().display());
    let go_on = || std::fs::write(fifo.path(), "go on\n").expect("the step reads it");
    let run = format!("echo $$ >> {}; seq 0 99; {wait}; seq 100 29999; {wait}; seq 30000 39999", begun.display());
    let lines = format!(
        "[[repository.pipeline]]\nname = \"unit\"\non = [\"push\"]\nrun = \"{run}\"\n\
         needs = [\"phone\"]\nretries = 3\n"
    );
    let mut pair = Pair::new(&server.database(), &repo, &lines);
    let (old, new) = (pair.first.port, pair.second.port);
    let _agent = pair.agent();
    let id = start(old);
    until("it prints", || log(old, id).contains("\n99\n"));
    pair.first.process().signal(signal);
    // It prints on while nobody leads.
    go_on();
    pair.second.wait_leads();
    until("the rest came over", || log(new, id).contains("\n29999\n"));
    assert_eq!((&build(new, id)["state"], phone_is_held(new)), (&"running".into(), true));
    // And prints where the other leads.
    go_on();
    let over = eventually("it passed", || Some(build(new, id)).filter(|it| it["state"] == "passed"));
    assert_eq!((&over["attempt"], phone_is_held(new)), (&1.into(), false));
    is_whole(&over, &log(new, id), 40_000);
    let processes = std::fs::read_to_string(begun).expect("the step wrote it");
    assert_eq!(processes.lines().count(), 1, "it ran once: {processes}");
    if signal == Signal::SIGSTOP {
        pair.first.process().signal(Signal::SIGCONT);
        pair.first.wait_follows(&pair.second);
        assert_eq!(build(new, id), over, "what wakes up changes nothing of it");
    }
}

#[test]
fn a_real_agent_s_build_goes_on_when_its_broker_is_killed() {
    a_real_agent_s_build_goes_on(Signal::SIGKILL);
}

#[test]
fn a_real_agent_s_build_goes_on_when_its_broker_stands_still() {
    a_real_agent_s_build_goes_on(Signal::SIGSTOP);
}
