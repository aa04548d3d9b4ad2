//! A build's life from where it is asked for to its end, over the wire that agents and people use.

use serde_json::json;

use super::fake::{self, Agent, Repo, build, comes_to, end_of, holder_of_phone, lab, pipeline, start};

const UNIT: &str = "needs = [\"phone\"]\nagent = \"os=linux\"\nenv = { MODE = \"fast\" }";

#[test]
fn a_build_waits_runs_and_frees_what_it_held() {
    let repo = Repo::new();
    let broker = lab(&repo, &pipeline("unit", UNIT));
    let id = start(&broker)[0];
    let waiting = super::common::wait::eventually("it says what it waits for", || {
        Some(build(&broker, id)).filter(|it| it["reason"].as_str().is_some_and(|it| it.contains("agent")))
    });
    assert_eq!(waiting["state"], "queued", "{waiting}");
    assert!(waiting["reason"].as_str().unwrap().starts_with("no agent is online that fits"), "{waiting}");

    let agent = Agent::bring(broker.port(), "rack", 2);
    let have = agent.take_next();
    assert_eq!(have.build, id);
    let job = &have.job;
    assert_eq!((&job["pipeline"], &job["env"]["MODE"]), (&json!("unit"), &json!("fast")));
    assert_eq!(job["checkout"]["sha"], repo.git(&["rev-parse", "HEAD"]));
    assert_eq!(build(&broker, id)["state"], "preparing");
    assert_eq!(holder_of_phone(&broker), Some(id));
    have.running();
    let running = build(&broker, id);
    let phone = json!([{ "alias": "phone", "pool": "phone", "name": "pixel-1", "slots": 1 }]);
    assert_eq!((&running["state"], &running["resources"]), (&json!("running"), &phone));
    have.log("one\ntwo\n");
    let short = have.finished_with("passed", &end_of("one\ntwo\nthree\n"));
    assert_eq!((short.status, &short.json()["code"]), (409, &json!("log_short")));
    have.finished_with("passed", &end_of("one\ntwo\n")).ok();
    let over = comes_to(&broker, id, "passed");
    assert_eq!(holder_of_phone(&broker), None, "a build that is over holds nothing");
    assert_eq!((&over["exit_code"], &over["log"]["lines"], &over["agent"]), (&json!(0), &json!(2), &json!("rack")));
    assert_eq!(over["resources"], phone, "what it ran on is still known");
    let shown = broker.sh(&format!("build show {id}")).exits(0).stdout;
    assert!(shown.lines().any(|line| line.starts_with("had") && line.contains("phone pixel-1")), "{shown}");
    let page = broker.http("GET", &format!("/builds/{id}"), None).body;
    assert!(page.contains("Ran on") && page.contains("pixel-1</span>"), "{page}");
    let history: Vec<&str> = over["history"].as_array().unwrap().iter().filter_map(|it| it["what"].as_str()).collect();
    assert_eq!(history[0], "asked for", "{history:?}");
    // Said again it changes nothing.
    have.finished_with("passed", &end_of("one\ntwo\n")).ok();
    let text = broker.http("GET", &format!("/builds/{id}/log"), None);
    assert_eq!((text.status, text.body.as_str()), (200, "one\ntwo\n"));
}

#[test]
fn nobody_takes_a_build_but_the_agent_that_has_its_executor() {
    let repo = Repo::new();
    let broker = lab(&repo, &pipeline("unit", "needs = [\"phone\"]"));
    let agent = Agent::bring(broker.port(), "rack", 1);
    let id = start(&broker)[0];
    assert_eq!(agent.work(), [id]);
    let body = json!({ "agent": "other", "key": "0".repeat(64) });
    let refused = broker.http("POST", &format!("/v1/builds/{id}/take"), Some(&body));
    assert_eq!((refused.status, &refused.json()["code"]), (410, &json!("attempt_over")));
    let key = "1".repeat(64);
    let first = agent.try_take(id, &key).ok();
    assert_eq!(agent.try_take(id, &key).ok(), first, "asked again it is answered the same");
    assert_eq!(agent.try_take(id, &"2".repeat(64)).status, 410);
}

#[test]
fn what_can_never_be_met_fails_at_once_with_the_nearest_miss() {
    let repo = Repo::new();
    let broker = lab(&repo, &pipeline("unit", "needs = [\"phone,os=plan9\"]"));
    // Whether an agent is there or not.
    let missed = comes_to(&broker, start(&broker)[0], "failed");
    assert!(missed["reason"].as_str().unwrap().contains("no resource of pool phone has a label"), "{missed}");
    let _agent = Agent::bring(broker.port(), "rack", 1);
    let missed = comes_to(&broker, start(&broker)[0], "failed");
    assert!(missed["reason"].as_str().unwrap().contains("no resource of pool phone has a label"), "{missed}");
}

#[test]
fn cancelling_stops_the_processes_before_it_frees_the_phone() {
    let repo = Repo::new();
    let broker = lab(&repo, &pipeline("unit", "needs = [\"phone\"]"));
    let agent = Agent::bring(broker.port(), "rack", 2);
    let id = start(&broker)[0];
    let mut have = agent.take_next();
    have.running();
    let cancelled = broker.http("POST", &format!("/v1/builds/{id}/cancel"), Some(&json!({ "reason": "wrong" }))).ok();
    assert_eq!((&cancelled["state"], &cancelled["ending"]), (&json!("running"), &json!("cancelled")));
    let told = have.told_to_stop();
    assert!(told["ending"]["message"].as_str().unwrap().contains("wrong"), "{told}");
    assert_eq!((build(&broker, id)["state"].as_str(), holder_of_phone(&broker)), (Some("running"), Some(id)));
    have.finished("stopped").ok();
    let over = comes_to(&broker, id, "cancelled");
    assert!(over["reason"].as_str().unwrap().contains("wrong"), "{over}");
    assert_eq!(holder_of_phone(&broker), None);
}

#[test]
fn an_agent_that_is_gone_makes_its_build_lost_and_it_is_tried_again() {
    let repo = Repo::new();
    let broker = lab(&repo, &pipeline("unit", "needs = [\"phone\"]\nretries = 1"));
    let agent = Agent::bring(broker.port(), "rack", 2);
    let id = start(&broker)[0];
    let have = agent.take_next();
    have.running();
    let (first, key) = (have.attempt, have.key.clone());
    // It says nothing any more: its session lives for its ttl.
    have.session.drop_connection();
    let again = agent.take_next();
    assert_eq!((again.build, again.attempt), (id, first + 1));
    let late = json!({ "attempt": first, "state": "running" });
    let late = super::common::http::request(
        broker.port(),
        "POST",
        &format!("/v1/builds/{id}/report"),
        &[("leasehold-key", &key)],
        Some(&late),
    );
    assert_eq!((late.status, &late.json()["code"]), (410, &json!("attempt_over")));
    again.session.drop_connection();
    let lost = comes_to(&broker, id, "lost");
    assert!(lost["reason"].as_str().unwrap().contains("no sign of life"), "{lost}");
}

#[test]
fn what_nobody_takes_is_claimed_again() {
    let repo = Repo::new();
    let broker = lab(&repo, &pipeline("unit", "needs = [\"phone\"]"));
    let agent = Agent::bring(broker.port(), "rack", 1);
    let id = start(&broker)[0];
    assert_eq!(agent.work(), [id]);
    let lease = build(&broker, id)["lease"].clone();
    super::common::wait::until("it has another lease", || {
        let now = build(&broker, id);
        now["lease"].is_u64() && now["lease"] != lease
    });
    let have = agent.take_next();
    have.finished("passed").ok();
    let over = comes_to(&broker, id, "passed");
    assert_eq!(over["attempt"], 1, "{over}");
}

#[test]
fn builds_of_a_branch_come_one_after_the_other_and_say_so() {
    let repo = Repo::new();
    let broker = lab(&repo, &pipeline("deploy", ""));
    let agent = Agent::bring(broker.port(), "rack", 4);
    let (first, second) = (start(&broker)[0], start(&broker)[0]);
    let have = agent.take_next();
    assert_eq!(have.build, first);
    let waiting = build(&broker, second);
    assert!(waiting["reason"].as_str().unwrap().contains(&format!("build #{first}")), "{waiting}");
    have.finished("failed").ok();
    comes_to(&broker, first, "failed");
    let have = agent.take_next();
    assert_eq!(have.build, second);
    have.finished("passed").ok();
    comes_to(&broker, second, "passed");
    let again = broker.http("POST", &format!("/v1/builds/{first}/retry"), None).ok();
    let again = again["builds"][0].as_u64().expect("a build");
    assert_eq!(build(&broker, again)["cause"], format!("retry of #{first}"));
    let page = broker.http("GET", "/v1/builds?state=passed,failed&limit=1", None).ok();
    assert_eq!((&page["items"][0]["build"], &page["next"]), (&json!(second), &json!(second)));
    let metrics = broker.http("GET", "/metrics", None).body;
    assert!(metrics.contains("leasehold_builds_open{state=\"queued\"}"), "{metrics}");
}

#[test]
fn an_agent_that_says_stopped_leaves_why_to_the_end_of_its_lease() {
    let repo = Repo::new();
    let broker = lab(&repo, &pipeline("unit", "needs = [\"phone\"]"));
    let agent = Agent::bring(broker.port(), "rack", 1);
    let id = start(&broker)[0];
    let mut have = agent.take_next();
    have.running();
    let lease = have.job["session"]["lease"].as_u64().expect("a lease");
    broker.http("POST", &format!("/v1/leases/{lease}/revoke"), Some(&json!({ "reason": "battery" }))).ok();
    have.told_to_stop();
    have.finished("stopped").ok();
    let over = comes_to(&broker, id, "cancelled");
    assert!(over["reason"].as_str().unwrap().contains("battery"), "{over}");
}

#[test]
fn a_broker_without_repositories_says_what_to_configure() {
    let broker = super::common::broker::Broker::with_inventory(fake::PHONE);
    let answer = broker.http("GET", "/v1/builds", None);
    assert_eq!(answer.status, 404);
    assert!(answer.json()["detail"].as_str().unwrap().contains("[[repository]]"), "{answer:?}");
}
