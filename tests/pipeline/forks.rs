//! Pull requests from other repositories: nothing of them runs, holds or sees anything before somebody has
//! allowed that very commit.

use serde_json::json;

use super::fake::{Agent, Repo, build, comes_to, holder_of_phone, pipeline};
use super::superseding::{lab, pull, sha, started};

#[test]
fn a_fork_holds_nothing_until_its_commit_is_allowed() {
    let repo = Repo::new();
    let broker = lab(&repo, &pipeline("unit", "needs = [\"phone\"]"));
    let agent = Agent::bring(broker.port(), "rack", 2);
    let first = started(&broker, &pull("opened", 1, true).send(broker.port()).ok())[0];
    let blocked = build(&broker, first);
    assert_eq!((&blocked["state"], &blocked["fork"]), (&json!("blocked"), &json!(true)));
    let sessions = broker.http("GET", "/v1/sessions", None).ok();
    assert_eq!(sessions["items"].as_array().map(Vec::len), Some(1), "the agent's alone: {sessions}");
    assert_eq!(holder_of_phone(&broker), None);

    let approve = |id: u64, head: u8| {
        broker.http("POST", &format!("/v1/builds/{id}/approve"), Some(&json!({ "sha": sha(head) })))
    };
    let wrong = approve(first, 9);
    assert_eq!((wrong.status, &wrong.json()["code"]), (409, &json!("not_newest")));
    let second = started(&broker, &pull("synchronize", 2, true).send(broker.port()).ok())[0];
    comes_to(&broker, first, "superseded");
    let late = approve(first, 1);
    assert_eq!((late.status, &late.json()["code"]), (409, &json!("not_newest")));
    assert_eq!(build(&broker, second)["state"], "blocked");

    let allowed = approve(second, 2).ok();
    assert_eq!((&allowed["state"], allowed["approved_by"].is_string()), (&json!("queued"), true), "{allowed}");
    let have = agent.take_next();
    assert_eq!((have.build, &have.job["checkout"]["sha"]), (second, &json!(sha(2))));
    have.finished("passed").ok();
    comes_to(&broker, second, "passed");
}

#[test]
fn a_blocked_build_can_be_ended() {
    let repo = Repo::new();
    let mut broker = lab(&repo, &pipeline("unit", "needs = [\"phone\"]"));
    let id = started(&broker, &pull("opened", 1, true).send(broker.port()).ok())[0];
    broker.restart();
    assert_eq!(build(&broker, id)["state"], "blocked", "over a restart too");
    let cancelled = broker.http("POST", &format!("/v1/builds/{id}/cancel"), None).ok();
    assert_eq!(cancelled["state"], "cancelled");
}
