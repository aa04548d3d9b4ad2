//! The planned stop: who renews when asked keeps everything over a long absence; who does not is
//! treated as ever.

use leasehold::clock::boot_now;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::common::broker::Broker;
use super::common::process::Process;
use super::common::wait::{clock_reaches, until};
use super::{LAB, TTL_MS, granted, held, number, queue, resume, session};

/// What a planned stop promises unless told otherwise.
const RESTART_GRACE_MS: u64 = 300_000;

fn run(broker: &Broker, need: &str) -> Process {
    let script = "echo got $LEASEHOLD_RESOURCES";
    broker.spawn(&["run", "-n", need, "--wait", "10m", "--", "sh", "-c", script])
}

/// Sends SIGTERM, renews when asked to, and waits for the end. Answers what the renewal said.
fn stop_and_renew(broker: &mut Broker, renewing: &mut super::common::ws::Client) -> Value {
    broker.process().signal(Signal::SIGTERM);
    renewing.notice("session.renew_now");
    let promised = renewing.call("session.renew", json!({ "renewal": renewing.opened["renewal"] }));
    assert_eq!(promised["promise_ms"], RESTART_GRACE_MS, "{promised}");
    let (code, words) = renewing.closed();
    assert_eq!(code, 1001, "{words}");
    assert!(words.starts_with("stopping"), "{words}");
    let output = broker.process().wait().exits(0);
    assert!(output.stderr.contains("leasehold: stopped\n"), "{}", output.stderr);
    promised
}

#[test]
fn a_long_planned_stop_takes_nothing_from_who_renewed() {
    let mut broker = Broker::with_inventory(LAB);
    let mut renewing = session(broker.port(), "renewing", TTL_MS);
    let lease = number(&renewing.lease(&["phone,name=phone-1"])["lease"]);
    let mut deaf = session(broker.port(), "deaf", TTL_MS);
    deaf.lease(&["phone,name=phone-2"]);
    // It answers pings, and no more than that.
    let deaf = std::thread::spawn(move || deaf.attend(boot_now().plus(60_000)));
    let mut next = session(broker.port(), "next", 60_000);
    queue(&mut next, &["phone,name=phone-2"]);
    let promised = stop_and_renew(&mut broker, &mut renewing);
    assert!(!deaf.join().expect("it only reads"), "its socket was closed");

    let mut started_meanwhile = run(&broker, "board");
    let mut wants_what_is_kept = run(&broker, "phone,name=phone-1");
    clock_reaches(boot_now().plus(TTL_MS * 3));
    let back = boot_now();
    broker.start();
    let mut next = resume(broker.port(), &next);
    let output = started_meanwhile.wait().exits(0);
    assert!(output.stdout.contains("got {\"board\""), "{}", output.stdout);

    // The ordinary promise of who did not renew counts from now; then the next one gets it.
    let (_, at) = granted(&mut next);
    assert!(at >= back.plus(TTL_MS), "given on {} ms after the start", at.since(back));
    // The longer one goes on.
    until("the other run waits", || {
        broker.http("GET", "/v1/queue", None).ok()["items"].as_array().is_some_and(|queue| !queue.is_empty())
    });
    assert_eq!(held(&broker).iter().filter(|held| held["lease"] == lease).count(), 1);
    assert!(!wants_what_is_kept.stdout.has("got"));

    let mut renewing = resume(broker.port(), &renewing);
    assert_eq!(renewing.opened["state"]["claims"][0]["lease"]["lease"], json!(lease), "{}", renewing.opened);
    assert!(number(&renewing.opened["renewal"]) > number(&promised["renewal"]), "numbers grow over restarts");
    assert_eq!(renewing.release(lease)["why"], "released");
    let output = wants_what_is_kept.wait().exits(0);
    assert!(output.stdout.contains("\"phone-1\""), "{}", output.stdout);
}

#[test]
fn a_longer_promise_ends_when_its_client_counts_by_a_later_answer() {
    let mut broker = Broker::with_inventory(LAB);
    let mut renewing = session(broker.port(), "renewing", TTL_MS);
    renewing.lease(&["phone,name=phone-1"]);
    let mut next = session(broker.port(), "next", 60_000);
    queue(&mut next, &["phone,name=phone-1"]);
    stop_and_renew(&mut broker, &mut renewing);
    broker.start();
    let mut next = resume(broker.port(), &next);
    let mut renewing = resume(broker.port(), &renewing);
    assert_eq!(renewing.opened["promise_ms"], TTL_MS, "{}", renewing.opened);
    let sent = boot_now();
    renewing.call("session.renew", json!({ "renewal": renewing.opened["renewal"] }));
    renewing.drop_connection();
    let (_, at) = granted(&mut next);
    assert!(at >= sent.plus(TTL_MS), "given on {} ms after the last sign of life", at.since(sent));
}

#[test]
fn a_second_signal_waits_for_nobody() {
    let mut broker = Broker::with_inventory(LAB);
    // It is asked to renew and never does.
    let mut deaf = broker.session("deaf");
    let lease = number(&deaf.lease(&["phone,name=phone-1"])["lease"]);
    broker.process().signal(Signal::SIGTERM);
    broker.process().stderr.wait_for("stopping: no more grants");
    broker.process().signal(Signal::SIGTERM);
    let output = broker.process().wait().exits(128 + Signal::SIGTERM as i32);
    assert!(output.stderr.contains("stopping at once"), "{}", output.stderr);
    broker.start();
    let deaf = resume(broker.port(), &deaf);
    assert_eq!(deaf.opened["state"]["claims"][0]["lease"]["lease"], json!(lease), "{}", deaf.opened);
}

#[test]
fn while_it_stops_nothing_is_granted() {
    let mut broker = Broker::with_inventory(LAB);
    let mut deaf = broker.session("deaf");
    let mut asking = broker.session("asking");
    broker.process().signal(Signal::SIGTERM);
    asking.notice("session.renew_now");
    let ready = broker.http("GET", "/readyz", None);
    assert_eq!(ready.status, 503, "{ready:?}");
    let claim = asking.acquire(&["phone"]);
    assert_eq!(claim["state"], "queued", "{claim}");
    asking.call("session.renew", json!({}));
    deaf.call("session.renew", json!({}));
    broker.process().wait().exits(0);
    broker.start();
    let mut asking = resume(broker.port(), &asking);
    let (given, _) = granted(&mut asking);
    assert_eq!(asking.release(number(&given["lease"]))["why"], "released");
}
