//! Statuses from end to end: a broker that is told of pull requests, and what their forge comes to show.
//!
//! No agent is there, so builds wait: a status is wanted when they begin to wait, when somebody ends them, and
//! whatever becomes of the broker and of the way to the forge in between.

use serde_json::Value;

use crate::common::broker::Broker;
use crate::common::forge::delivery::{Delivery, Pull, SECRET};
use crate::common::forge::{Forge, Kind, TOKEN, Trouble};
use crate::common::wait::{eventually, until};

const APP: &str = "acme/app";
const CONTEXT: &str = "leasehold/unit";
const FIRST: &str = "a1b2c3d4a1b2c3d4a1b2c3d4a1b2c3d4a1b2c3d4";
const SECOND: &str = "b2c3d4e5b2c3d4e5b2c3d4e5b2c3d4e5b2c3d4e5";
const BASE: &str = "00112233445566778899aabbccddeeff00112233";
const LAB: &str = "[[pool]]\nname = \"phone\"\n\n[[resource]]\nname = \"pixel\"\npool = \"phone\"\n";

/// A broker that builds `acme/app` of this forge, and sends its statuses there.
fn broker(forge: &Forge) -> Broker {
    let kind = forge.kind().as_str();
    let config = format!(
        r#"
public_url = "https://lab.example"

[[repository]]
name = "{APP}"
forge = "{kind}"
url = "https://{kind}.example/{APP}.git"
api = "{}"
token = {{ env = "FORGE_TOKEN" }}
pools = ["phone"]

[[repository.pipeline]]
name = "unit"
on = ["pull_request"]
needs = ["phone"]
run = "true"
"#,
        forge.api()
    );
    for sha in [FIRST, SECOND] {
        forge.know(APP, sha);
    }
    let secret = format!("LEASEHOLD_{}_WEBHOOK_SECRET", kind.to_ascii_uppercase());
    Broker::with(LAB).config(config).env(secret, SECRET).env("FORGE_TOKEN", TOKEN).start()
}

#[track_caller]
fn deliver(broker: &Broker, forge: &Forge, action: &str, head: &str, fork: bool) {
    let pull = Pull { head, base: BASE, fork, ..Pull::default() };
    let answer = Delivery::pull(forge.kind(), action, &pull).send(broker.port());
    assert_eq!(answer.status, 202, "{answer:?}");
}

/// The newest build of a commit.
#[track_caller]
fn build_of(broker: &Broker, sha: &str) -> Value {
    eventually("there is a build", || {
        let page = broker.http("GET", "/v1/builds", None).ok();
        page["items"].as_array()?.iter().find(|build| build["sha"] == sha).cloned()
    })
}

#[track_caller]
fn cancel(broker: &Broker, build: &Value) {
    let path = format!("/v1/builds/{}/cancel", build["build"]);
    broker.http("POST", &path, Some(&serde_json::json!({ "reason": "not today" }))).ok();
}

#[track_caller]
fn is_told_of_waiting_and_its_end(kind: Kind, ended: &str) {
    let forge = Forge::start(kind);
    let broker = broker(&forge);
    deliver(&broker, &forge, "opened", FIRST, false);
    let shown = forge.comes_to_show(APP, FIRST, CONTEXT, "pending");
    let build = build_of(&broker, FIRST);
    assert_eq!(shown.target_url, format!("https://lab.example/builds/{}", build["build"]));
    cancel(&broker, &build);
    let shown = forge.comes_to_show(APP, FIRST, CONTEXT, ended);
    assert!(shown.description.contains("not today"), "{shown:?}");
}

#[test]
fn github_is_told() {
    is_told_of_waiting_and_its_end(Kind::Github, "failure");
}

#[test]
fn gitlab_is_told() {
    is_told_of_waiting_and_its_end(Kind::Gitlab, "canceled");
}

#[test]
fn gitea_is_told() {
    is_told_of_waiting_and_its_end(Kind::Gitea, "failure");
}

#[test]
fn a_fork_is_shown_to_wait_for_somebody() {
    let forge = Forge::start(Kind::Github);
    let broker = broker(&forge);
    deliver(&broker, &forge, "opened", FIRST, true);
    let shown = forge.comes_to_show(APP, FIRST, CONTEXT, "pending");
    assert!(shown.description.contains("allows"), "{shown:?}");
}

#[test]
fn what_was_not_told_before_a_crash_is_told_after_it() {
    let mut forge = Forge::start(Kind::Github);
    let mut broker = broker(&forge);
    forge.close();
    deliver(&broker, &forge, "opened", FIRST, false);
    build_of(&broker, FIRST);
    broker.kill9();
    forge.open();
    broker.start();
    forge.comes_to_show(APP, FIRST, CONTEXT, "pending");
}

#[test]
fn what_ended_while_the_forge_was_busy_is_all_that_is_told_of_it() {
    let forge = Forge::start(Kind::Gitlab);
    let broker = broker(&forge);
    // The first request is answered too late, and by then the build is over.
    forge.misbehave(Trouble::Sleepy);
    deliver(&broker, &forge, "opened", FIRST, false);
    until("the forge is asked", || forge.requests().len() == 1);
    cancel(&broker, &build_of(&broker, FIRST));
    forge.wake();
    forge.comes_to_show(APP, FIRST, CONTEXT, "canceled");
    let states: Vec<String> = forge.history(APP, FIRST, CONTEXT).into_iter().map(|shown| shown.state).collect();
    assert_eq!(states, ["pending", "canceled"]);
}

#[test]
fn a_push_supersedes_what_waits_and_each_commit_shows_its_own() {
    let forge = Forge::start(Kind::Github);
    let broker = broker(&forge);
    deliver(&broker, &forge, "opened", FIRST, false);
    forge.comes_to_show(APP, FIRST, CONTEXT, "pending");
    deliver(&broker, &forge, "synchronize", SECOND, false);
    let newer = build_of(&broker, SECOND);
    let shown = forge.comes_to_show(APP, FIRST, CONTEXT, "failure");
    assert!(shown.description.contains("superseded"), "{shown:?}");
    let link = forge.comes_to_show(APP, SECOND, CONTEXT, "pending").target_url;
    assert_eq!(link, format!("https://lab.example/builds/{}", newer["build"]));
}

#[test]
fn what_the_forge_refuses_is_shown_with_the_build() {
    let forge = Forge::start(Kind::Github);
    let broker = broker(&forge);
    let unknown = "c3d4e5f6c3d4e5f6c3d4e5f6c3d4e5f6c3d4e5f6";
    deliver(&broker, &forge, "opened", unknown, false);
    let build = build_of(&broker, unknown);
    let path = format!("/v1/builds/{}", build["build"]);
    let trouble = eventually("the trouble is shown", || {
        broker.http("GET", &path, None).ok()["status_trouble"].as_str().map(str::to_owned)
    });
    assert!(trouble.contains("No commit found"), "{trouble}");
    let shown = broker.sh(&format!("build show {}", build["build"])).exits(0).stdout;
    assert!(shown.contains("No commit found"), "{shown}");
}
