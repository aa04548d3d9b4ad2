//! Builds over the death of the broker: nothing accepted is lost, nothing runs twice, nothing is held for
//! nobody.

use super::common::broker::Broker;
use super::common::wait::{eventually, until};
use super::fake::{Agent, PHONE, Repo, build, comes_to, config, holder_of_phone, lab, pipeline, start};

const UNIT: &str = "needs = [\"phone\"]";

#[test]
fn a_build_that_waits_claims_again_after_the_broker_died() {
    let repo = Repo::new();
    let mut broker = lab(&repo, &pipeline("unit", UNIT));
    let id = start(&broker)[0];
    until("it waits", || build(&broker, id)["reason"].is_string());
    broker.restart();
    assert_eq!(build(&broker, id)["state"], "queued");
    let agent = Agent::bring(broker.port(), "rack", 1);
    let have = agent.take_next();
    have.finished("passed").ok();
    comes_to(&broker, id, "passed");
}

#[test]
fn a_grant_that_was_not_taken_dies_with_the_broker_and_comes_again() {
    let repo = Repo::new();
    let mut broker = lab(&repo, &pipeline("unit", UNIT));
    let mut agent = Agent::bring(broker.port(), "rack", 2);
    let id = start(&broker)[0];
    assert_eq!(agent.work(), [id]);
    let lease = build(&broker, id)["lease"].clone();
    broker.restart();
    agent.again(broker.port());
    assert_eq!(agent.work(), [id]);
    assert_ne!(build(&broker, id)["lease"], lease);
    let have = agent.take_next();
    have.finished("passed").ok();
    let over = comes_to(&broker, id, "passed");
    assert_eq!(over["attempt"], 1, "nothing of it had run: {over}");
}

#[test]
fn a_build_that_runs_does_not_notice_that_the_broker_died() {
    let repo = Repo::new();
    let mut broker = lab(&repo, &pipeline("unit", UNIT));
    let agent = Agent::bring(broker.port(), "rack", 2);
    let id = start(&broker)[0];
    let mut have = agent.take_next();
    have.running();
    broker.restart();
    have.moved(broker.port());
    assert_eq!((build(&broker, id)["state"].as_str(), holder_of_phone(&broker)), (Some("running"), Some(id)));
    have.finished("passed").ok();
    let over = comes_to(&broker, id, "passed");
    assert_eq!((over["attempt"].as_u64(), holder_of_phone(&broker)), (Some(1), None));
}

#[test]
fn a_cancel_that_was_stored_is_carried_out_by_the_next_broker() {
    let repo = Repo::new();
    let mut broker = lab(&repo, &pipeline("unit", UNIT));
    let agent = Agent::bring(broker.port(), "rack", 2);
    let id = start(&broker)[0];
    let mut have = agent.take_next();
    have.running();
    broker.http("POST", &format!("/v1/builds/{id}/cancel"), None).ok();
    broker.restart();
    have.moved(broker.port());
    // Told when it resumed, or when the conductor asked for it again.
    eventually("its lease is ending", || {
        let lease = have.job["session"]["lease"].clone();
        let leases = broker.http("GET", &format!("/v1/leases/{lease}"), None).ok();
        (leases["state"] == "ending").then_some(())
    });
    have.finished("stopped").ok();
    comes_to(&broker, id, "cancelled");
    assert_eq!(holder_of_phone(&broker), None);
}

#[test]
fn an_agent_that_asks_again_for_what_only_the_dead_broker_knew_gets_the_next_attempt() {
    let repo = Repo::new();
    let mut broker = lab(&repo, &pipeline("unit", UNIT));
    let mut agent = Agent::bring(broker.port(), "rack", 2);
    let id = start(&broker)[0];
    assert_eq!(agent.work(), [id]);
    let key = "7".repeat(64);
    // As if the answer was lost with the broker.
    agent.try_take(id, &key).ok();
    broker.restart();
    agent.again(broker.port());
    assert_eq!(agent.try_take(id, &key).status, 410);
    let have = agent.take_next();
    assert_eq!((have.build, have.attempt), (id, 2));
    have.finished("passed").ok();
    comes_to(&broker, id, "passed");
}

#[test]
fn a_planned_stop_loses_nothing() {
    let repo = Repo::new();
    // It waits some seconds for everybody to renew.
    let inventory = PHONE.replace("5s", "2m");
    let mut broker = Broker::with(&inventory).config(config(&repo, &pipeline("unit", UNIT))).start();
    let agent = Agent::bring(broker.port(), "rack", 2);
    let (running, waiting) = (start(&broker)[0], start(&broker)[0]);
    let mut have = agent.take_next();
    have.running();
    let stopped = broker.term();
    assert_eq!(stopped.code, Some(0), "{stopped:?}");
    broker.start();
    have.moved(broker.port());
    have.finished("passed").ok();
    comes_to(&broker, running, "passed");
    assert_eq!(build(&broker, waiting)["state"], "queued");
}
