//! Deliveries to builds: what a newer commit ends, and that nothing accepted is lost or done twice.

use serde_json::Value;

use super::common::broker::Broker;
use super::common::forge::Kind;
use super::common::forge::delivery::{Delivery, Pull, SECRET};
use super::common::wait::{eventually, until};
use super::fake::{Agent, Repo, build, comes_to, holder_of_phone, pipeline, setup};

/// A commit's name.
pub fn sha(number: u8) -> String {
    format!("{number:02x}").repeat(20)
}

pub fn lab(repo: &Repo, pipelines: &str) -> Broker {
    setup(repo, pipelines).env("LEASEHOLD_GITHUB_WEBHOOK_SECRET", SECRET).start()
}

/// Something happens to pull request 7.
pub fn pull(action: &str, head: u8, fork: bool) -> Delivery {
    let (head, base) = (sha(head), sha(0xb0));
    Delivery::pull(Kind::Github, action, &Pull { head: &head, base: &base, fork, ..Pull::default() })
}

/// The builds that a delivery started, once it was worked on.
pub fn started(broker: &Broker, answer: &Value) -> Vec<u64> {
    let id = answer["delivery"].as_u64().unwrap_or_else(|| panic!("not accepted: {answer}"));
    let done = eventually("the delivery is worked on", || {
        let delivery = broker.http("GET", &format!("/v1/deliveries/{id}"), None).ok();
        (delivery["outcome"] != "accepted").then_some(delivery)
    });
    done["started"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect()
}

const UNIT: &str = "needs = [\"phone\"]";

#[test]
fn a_second_push_supersedes_the_first_and_frees_its_phone_when_its_processes_are_gone() {
    let repo = Repo::new();
    let broker = lab(&repo, &pipeline("unit", UNIT));
    let agent = Agent::bring(broker.port(), "rack", 4);
    let first = started(&broker, &pull("opened", 1, false).send(broker.port()).ok())[0];
    let mut have = agent.take_next();
    assert_eq!((have.build, &have.job["checkout"]["git_ref"]), (first, &"refs/pull/7/head".into()));
    have.running();
    let second = started(&broker, &pull("synchronize", 2, false).send(broker.port()).ok())[0];
    have.told_to_stop();
    let ending = build(&broker, first);
    assert_eq!((&ending["ending"], &ending["superseded_by"]), (&"superseded".into(), &second.into()), "{ending}");
    assert_eq!(holder_of_phone(&broker), Some(first), "its processes are still there");
    have.finished("stopped").ok();
    comes_to(&broker, first, "superseded");
    let next = agent.take_next();
    assert_eq!((next.build, holder_of_phone(&broker)), (second, Some(second)));
    next.finished("passed").ok();
    comes_to(&broker, second, "passed");
}

#[test]
fn a_closed_pull_request_ends_what_waits_for_it() {
    let repo = Repo::new();
    let broker = lab(&repo, &pipeline("unit", UNIT));
    let id = started(&broker, &pull("opened", 1, false).send(broker.port()).ok())[0];
    assert_eq!(build(&broker, id)["state"], "queued");
    started(&broker, &pull("closed", 1, false).send(broker.port()).ok());
    comes_to(&broker, id, "cancelled");
}

#[test]
fn a_delivery_that_comes_again_is_answered_and_not_done_again() {
    let repo = Repo::new();
    let mut broker = lab(&repo, &pipeline("unit", UNIT));
    let opened = pull("opened", 1, false);
    let accepted = opened.send(broker.port()).ok();
    let id = started(&broker, &accepted)[0];
    let again = opened.send(broker.port()).ok();
    assert_eq!((&again["outcome"], &again["delivery"]), (&"duplicate".into(), &accepted["delivery"]));
    // Under another name it says the same; and the books remember over a restart.
    broker.restart();
    let alike = pull("opened", 1, false).send(broker.port()).ok();
    assert_eq!((&alike["outcome"], &alike["delivery"]), (&"duplicate".into(), &accepted["delivery"]));
    let redelivered = broker.http("POST", &format!("/v1/deliveries/{}/redeliver", accepted["delivery"]), None).ok();
    let deliberate = started(&broker, &redelivered);
    assert_eq!((redelivered["repeats"].as_u64(), deliberate.len()), (accepted["delivery"].as_u64(), 1));
    comes_to(&broker, id, "superseded");
}

#[test]
fn what_was_accepted_is_worked_on_though_the_broker_died_right_after_the_answer() {
    let repo = Repo::new();
    let mut broker = lab(&repo, &pipeline("unit", UNIT));
    let answers: Vec<Value> = (1..=8_u8)
        .map(|number| {
            let (head, base) = (sha(number), sha(0xb0));
            let pull = Pull { number: number.into(), head: &head, base: &base, ..Pull::default() };
            Delivery::pull(Kind::Github, "opened", &pull).send(broker.port()).ok()
        })
        .collect();
    broker.restart();
    for answer in &answers {
        assert_eq!(started(&broker, answer).len(), 1, "{answer}");
    }
    until("each has one build", || {
        let builds = broker.http("GET", "/v1/builds", None).ok();
        builds["items"].as_array().is_some_and(|items| items.len() == answers.len())
    });
}
