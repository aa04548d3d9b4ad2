//! Deliveries at the broker's door: who is believed, what is taken once, and that what was taken is done.

use std::io::Write as _;

use serde_json::Value;

use super::common::broker::{Broker, Setup};
use super::common::forge::Kind;
use super::common::forge::delivery::{Delivery, Pull, SECRET};
use super::common::http::{self, Answer};
use super::common::process;
use super::common::wait::eventually;
use super::fake::{APP, PHONE, Repo, config, pipeline};

fn door(repo: &Repo) -> Setup {
    let hooked = Broker::with(PHONE).config(config(repo, &pipeline("unit", "")));
    hooked.env("LEASEHOLD_GITHUB_WEBHOOK_SECRET", format!("one before it,{SECRET}"))
}

fn push(repo: &Repo) -> Delivery {
    let (before, after) = (repo.git(&["rev-parse", "HEAD"]), repo.commit("more"));
    Delivery::push(Kind::Github, APP, "main", &before, &after)
}

/// Waits until a delivery was worked on, and answers it.
#[track_caller]
fn worked_on(broker: &Broker, id: &Value) -> Value {
    eventually(&format!("delivery {id} is worked on"), || {
        let shown = broker.http("GET", &format!("/v1/deliveries/{id}"), None).ok();
        let outcome = shown["outcome"].as_str()?;
        (outcome != "accepted").then(|| shown.clone())
    })
}

fn deliveries(broker: &Broker) -> usize {
    broker.http("GET", "/v1/deliveries", None).ok()["items"].as_array().map_or(0, Vec::len)
}

#[track_caller]
fn refused(answer: &Answer, status: u16, code: &str, says: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    let problem = answer.json();
    assert_eq!(problem["code"], code, "{answer:?}");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(says)), "{answer:?}");
}

#[test]
fn a_signed_delivery_is_accepted_from_anywhere_and_comes_to_a_build() {
    let repo = Repo::new();
    let broker = door(&repo).start();
    let answer = push(&repo).send(broker.port());
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(answer.json()["outcome"], "accepted");
    let done = worked_on(&broker, &answer.json()["delivery"]);
    assert_eq!((&done["outcome"], &done["started"][0]), (&"done".into(), &1.into()), "{done}");
}

#[test]
fn what_does_not_prove_itself_is_refused_and_leaves_nothing() {
    let repo = Repo::new();
    let broker = door(&repo).start();
    let sound = push(&repo);
    let mut forged = sound.clone();
    forged.secret = "another secret".to_owned();
    refused(&forged.send(broker.port()), 403, "bad_signature", "altered on the way");
    let path = "/hooks/github";
    let bare = |lines: &[(&str, &str)]| http::request(broker.port(), "POST", path, lines, Some(&Value::Null));
    refused(&bare(&[]), 400, "invalid_request", "x-github-event");
    let named = [("X-GitHub-Event", "push"), ("X-GitHub-Delivery", "1")];
    refused(&bare(&named), 401, "unsigned", "X-Hub-Signature-256");
    let empty = [named[0], named[1], ("X-Hub-Signature-256", "")];
    refused(&bare(&empty), 401, "unsigned", "sha256=");
    refused(&http::request(broker.port(), "GET", path, &[], None), 405, "method_not_allowed", "Allow");
    refused(
        &http::request(broker.port(), "POST", "/hooks/svn", &[], None),
        404,
        "not_found",
        "github, gitlab and gitea",
    );
    let gitlab = Delivery::push(Kind::Gitlab, APP, "main", &"1".repeat(40), &"2".repeat(40));
    refused(&gitlab.send(broker.port()), 404, "not_found", "LEASEHOLD_GITLAB_WEBHOOK_SECRET");
    assert_eq!(deliveries(&broker), 0);
    // The same door still takes what is sound.
    assert_eq!(sound.send(broker.port()).status, 202);
}

#[test]
fn a_body_beyond_the_bound_is_refused_before_and_while_it_is_read() {
    let repo = Repo::new();
    let broker = door(&repo).start();
    let head = "POST /hooks/github HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-GitHub-Event: push\r\n\
                X-GitHub-Delivery: 1\r\nX-Hub-Signature-256: sha256=";
    let head = format!("{head}{}\r\n", "0".repeat(64));
    let told = format!("{head}Content-Length: {}\r\n\r\n", 25 * 1024 * 1024 + 1);
    refused(&http::first_answer(broker.port(), told.as_bytes()), 413, "body_too_long", "25 MiB");
    // Without a length, a piece at a time, for as long as the broker listens.
    let mut stream = http::connect(broker.port());
    stream.write_all(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes()).expect("it listens");
    let piece = [b"100000\r\n".as_slice(), &[b' '; 0x10_0000], b"\r\n"].concat();
    let sent = (0..40).take_while(|_| stream.write_all(&piece).is_ok()).count();
    assert!((25..40).contains(&sent), "{sent} MiB were read");
    assert_eq!(push(&repo).send(broker.port()).status, 202, "what was read is let go");
}

#[test]
fn the_largest_body_is_taken() {
    let repo = Repo::new();
    let broker = door(&repo).start();
    let mut large = push(&repo);
    large.body.insert_str(large.body.len() - 1, &format!(",\"pad\":\"{}\"", "x".repeat(24 * 1024 * 1024)));
    let answer = large.send(broker.port());
    assert_eq!(answer.status, 202, "{answer:?}");
}

#[test]
fn what_was_said_before_is_not_done_again() {
    let repo = Repo::new();
    let broker = door(&repo).start();
    let delivery = push(&repo);
    let first = delivery.send(broker.port()).ok();
    // As a forge repeats itself when it saw no answer.
    let again = delivery.send(broker.port());
    assert_eq!((again.status, again.json()["outcome"].as_str()), (200, Some("duplicate")), "{again:?}");
    assert_eq!(again.json()["delivery"], first["delivery"]);
    // As two hooks of one repository say the same.
    let mut other_name = delivery.clone();
    other_name.id = "another-name".to_owned();
    let again = other_name.send(broker.port());
    assert_eq!((again.status, &again.json()["delivery"]), (200, &first["delivery"]), "{again:?}");
    worked_on(&broker, &first["delivery"]);
    assert_eq!(broker.http("GET", "/v1/builds", None).ok()["items"].as_array().map(Vec::len), Some(1));
}

#[test]
fn what_is_not_acted_on_says_why() {
    let repo = Repo::new();
    let broker = door(&repo).start();
    let mut ping = push(&repo);
    ping.event = "ping".to_owned();
    let stranger = Delivery::push(Kind::Github, "else/where", "main", &"1".repeat(40), &"2".repeat(40));
    for (delivery, why) in [(ping, "a ping"), (stranger, "else/where of github")] {
        let answer = delivery.send(broker.port());
        assert_eq!((answer.status, answer.json()["outcome"].as_str()), (200, Some("ignored")), "{answer:?}");
        assert!(answer.json()["reason"].as_str().is_some_and(|reason| reason.contains(why)), "{answer:?}");
        assert_eq!(worked_on(&broker, &answer.json()["delivery"])["outcome"], "ignored");
    }
}

#[test]
fn what_was_ignored_is_worked_on_when_it_is_redelivered_to_a_broker_that_knows_it_by_then() {
    let repo = Repo::new();
    let other = config(&repo, &pipeline("unit", "")).replace(APP, "acme/other");
    let secret = ("LEASEHOLD_GITHUB_WEBHOOK_SECRET", SECRET);
    let mut broker = Broker::with(PHONE).config(&other).env(secret.0, secret.1).start();
    let delivery = push(&repo);
    let answer = delivery.send(broker.port()).ok();
    assert_eq!(answer["outcome"], "ignored", "{answer}");
    worked_on(&broker, &answer["delivery"]);
    // The repository is configured, and its pipeline is for another branch; then for this one.
    let elsewhere = pipeline("unit", "branches = [\"release\"]");
    for (pipelines, outcome) in [(elsewhere, "ignored"), (pipeline("unit", ""), "done")] {
        broker.term();
        std::fs::write(broker.dir().join("leasehold.toml"), config(&repo, &pipelines)).expect("written");
        broker.start();
        let answer = delivery.send(broker.port());
        assert_eq!(answer.status, 202, "{answer:?}");
        let shown = worked_on(&broker, &answer.json()["delivery"]);
        assert_eq!(shown["outcome"], outcome, "{shown}");
    }
    let again = delivery.send(broker.port());
    assert_eq!((again.status, &again.json()["delivery"]), (200, &3.into()), "{again:?}");
    assert_eq!(broker.http("GET", "/v1/builds", None).ok()["items"].as_array().map(Vec::len), Some(1));
}

#[test]
fn an_accepted_delivery_survives_the_death_of_the_broker() {
    let repo = Repo::new();
    let mut broker = door(&repo).start();
    let answer = push(&repo).send(broker.port());
    broker.kill9();
    assert_eq!(answer.status, 202, "{answer:?}");
    broker.start();
    let done = worked_on(&broker, &answer.json()["delivery"]);
    assert_eq!(done["started"].as_array().map(Vec::len), Some(1), "{done}");
    assert_eq!(broker.http("GET", "/v1/builds", None).ok()["items"].as_array().map(Vec::len), Some(1));
}

#[test]
fn every_forge_speaks_in_its_own_way() {
    let repo = Repo::new();
    let head = repo.commit("theirs");
    for (kind, variable, git_ref) in [
        (Kind::Gitea, "LEASEHOLD_GITEA_WEBHOOK_SECRET", "refs/pull/7/head"),
        (Kind::Github, "LEASEHOLD_GITHUB_WEBHOOK_SECRET", "refs/pull/7/head"),
        (Kind::Gitlab, "LEASEHOLD_GITLAB_WEBHOOK_SECRET", "refs/merge-requests/7/head"),
    ] {
        repo.git(&["update-ref", git_ref, "HEAD"]);
        let text = config(&repo, &pipeline("unit", "")).replace("\"github\"", &format!("\"{}\"", kind.as_str()));
        let broker = Broker::with(PHONE).config(text).env(variable, SECRET).start();
        let pull = Pull { head: &head, base: &head, ..Pull::default() };
        let opened = Delivery::pull(kind, "opened", &pull).send(broker.port()).ok();
        let done = worked_on(&broker, &opened["delivery"]);
        let what = done["what"].as_str().expect("words");
        assert!(done["outcome"] == "done" && what.starts_with("pull request 7 opened"), "{done}");
        let closed = Delivery::pull(kind, "closed", &pull).send(broker.port()).ok();
        assert_eq!(worked_on(&broker, &closed["delivery"])["ended"][0], 1);
    }
}

#[test]
fn bodies_of_strangers_with_the_secret_hurt_nobody() {
    let repo = Repo::new();
    let broker = door(&repo).start();
    let sound = push(&repo);
    for cut in (0..sound.body.len()).step_by(29) {
        let mut hostile = sound.clone();
        hostile.id = format!("cut-{cut}");
        hostile.body.truncate(cut);
        let answer = hostile.send(broker.port());
        assert_eq!((answer.status, answer.json()["outcome"].as_str()), (200, Some("ignored")), "{answer:?}");
    }
    assert_eq!(sound.send(broker.port()).status, 202, "the door is as before");
}

#[test]
fn a_secret_that_is_none_stops_the_start() {
    let repo = Repo::new();
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    std::fs::write(folder.path().join("leasehold.toml"), config(&repo, &pipeline("unit", ""))).expect("written");
    for (secret, says) in [("", "the secret is empty"), ("long enough,", "number 2 of the list"), ("short", "shorter")]
    {
        let mut command = process::leasehold(folder.path());
        command.current_dir(folder.path()).args(["serve", "--config", "leasehold.toml", "--store", "sqlite:x.db"]);
        command.args(["--listen", "127.0.0.1:0"]).env("LEASEHOLD_GITHUB_WEBHOOK_SECRET", secret);
        let ended = process::run(&mut command).exits(2);
        assert!(ended.stderr.contains(says) && ended.stderr.contains("LEASEHOLD_GITHUB"), "{}", ended.stderr);
    }
}
