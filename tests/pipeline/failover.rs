//! Builds over the move of the lead to another broker, on PostgreSQL.

use leasehold::testing::postgres;
use nix::sys::signal::Signal;
use serde_json::Value;

use super::brokers::Broker;
use super::common::http;
use super::common::wait::eventually;
use super::fake::{Agent, PHONE, Repo, config, pipeline};

struct Pair {
    first: Broker,
    second: Broker,
    _logs: tempfile::TempDir,
}

impl Pair {
    /// Two brokers that build, of which the first leads.
    fn new(store: &str, repo: &Repo) -> Self {
        let logs = tempfile::tempdir().expect("a temporary directory can be made");
        let text = format!(
            "{}[logs]\nurl = \"file://{}\"\n",
            config(repo, &pipeline("unit", "needs = [\"phone\"]")),
            logs.path().display()
        );
        let path = logs.path().join("leasehold.toml");
        std::fs::write(&path, text).expect("a file can be written");
        let inventory = PHONE.replace("5s", "30s");
        let broker =
            || Broker::on(store, Some(&inventory)).arg("--config").arg(path.to_str().expect("a plain path")).started();
        let first = broker();
        first.wait_leads();
        let second = broker();
        second.wait_follows(&first);
        Self { first, second, _logs: logs }
    }
}

fn start(port: u16) -> u64 {
    let body = serde_json::json!({ "repository": "acme/app", "git_ref": "main" });
    let started = http::request(port, "POST", "/v1/builds", &[], Some(&body)).ok();
    started["builds"][0].as_u64().expect("a build")
}

fn build(port: u16, id: u64) -> Value {
    http::request(port, "GET", &format!("/v1/builds/{id}"), &[], None).ok()
}

#[test]
fn builds_go_on_when_another_broker_leads() {
    let Some(server) = postgres::shared() else { return };
    let repo = Repo::new();
    let mut pair = Pair::new(&server.database(), &repo);
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
    let mut pair = Pair::new(&server.database(), &repo);
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
