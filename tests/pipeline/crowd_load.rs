//! What builds that wait cost those that come, measured by hand: as many as may be open at once. It asserts nothing
//! that a busy machine would break.
//!
//! `cargo test --release --all-features --test pipeline -- --ignored --nocapture beside_builds_that_wait` prints it.

use std::hint::black_box;
use std::sync::Arc;
use std::thread;

use leasehold::builds::book::{Book, Contents, OPEN_BUILDS_MAX};
use leasehold::builds::build::Build;
use leasehold::builds::change::Change;
use leasehold::builds::status::Status;
use leasehold::clock::boot_now_us;
use serde_json::{Value, json};

use super::common::broker::Broker;
use super::common::forge::delivery::SECRET;
use super::common::wait::until;
use super::fake::{APP, PHONE, Repo, config, pipeline};
use super::hooks_load::load;

/// Pipelines of the builds that wait: as many as a repository may have, less the one of those that come.
const PIPELINES: u64 = 31;
/// Builds of each; with those that come as many as may be open, or nearly.
const OF_EACH: u64 = 318;
/// Who asks for them at once.
const ASKERS: u64 = 4;
/// How often each thing is done in memory.
const TIMES: u64 = 200;

/// A build that waits, on a line of its own.
fn waits(id: u64) -> Build {
    let record = json!({
        "id": id, "repository": APP, "cause": { "cause": "asked" }, "by": "ann", "phase": "queued", "attempt": 1,
        "session": id,
        "subject": {
            "line": { "branch": format!("topic/{id}") }, "sha": format!("{id:040x}"),
            "git_ref": format!("refs/heads/topic/{id}"), "fork": false,
        },
        "plan": {
            "name": "unit", "needs": ["phone"], "agent": "", "steps": [{ "name": "test", "run": "make test" }],
            "container": null, "env": {}, "secrets": [], "timeout_ms": 60_000, "wait_ms": 1_000_000 + id,
            "grace_ms": 1_000, "priority": 0, "concurrency": "supersede", "retries": 0,
        },
        "times": {
            "created_ms": id, "queued_ms": id, "prepared_ms": null, "begun_ms": null, "ended_ms": null,
        },
    });
    serde_json::from_value(record).expect("it is a build")
}

/// Does something often, and tells the middle and the longest of what it took.
fn each(what: &str, mut work: impl FnMut()) {
    let mut took_us: Vec<u64> = (0..TIMES)
        .map(|_| {
            let began = boot_now_us();
            work();
            boot_now_us() - began
        })
        .collect();
    took_us.sort_unstable();
    println!("    {what}: p50 {} us, longest {} us", took_us[took_us.len() / 2], took_us[took_us.len() - 1]);
}

#[test]
#[ignore = "it measures"]
fn the_book_beside_builds_that_wait() {
    let open: Vec<Build> = (1..=OPEN_BUILDS_MAX as u64).map(waits).collect();
    let statuses: Vec<Status> = open.iter().map(|build| Status { told: true, ..Status::of(build, 0) }).collect();
    let mut book = Book::new(Contents { open, ..Contents::default() });
    println!("the book, beside {OPEN_BUILDS_MAX} builds that wait:");
    each("when something is due", || {
        black_box(book.due_ms());
    });
    each("what agents are offered", || {
        black_box(book.offered().count());
    });
    // Of the newest builds: a walk from the oldest on comes to them last.
    let mut told = statuses.into_iter().rev().map(|status| Change::Status(Arc::new(status)));
    each("a status is told", || book.apply(&told.next().expect("there are more")));
}

#[test]
#[ignore = "it measures, for a minute or two, and is to have the machine for itself"]
fn deliveries_beside_builds_that_wait() {
    let repo = Repo::new();
    let head = repo.commit("more");
    repo.git(&["branch", "crowd"]);
    let crowd = (0..PIPELINES)
        .map(|number| pipeline(&format!("crowd-{number}"), "branches = [\"crowd\"]\nconcurrency = \"parallel\""));
    let unit = pipeline("unit", "branches = [\"main\"]\nconcurrency = \"supersede\"");
    let text = config(&repo, &format!("{unit}{}", crowd.collect::<String>()));
    let broker = Broker::with(PHONE).config(text).env("LEASEHOLD_GITHUB_WEBHOOK_SECRET", SECRET).start();
    // Whoever asks gets all pipelines, whatever their branches are, unless one is named.
    let ask = |body: &Value| broker.http("POST", "/v1/builds", Some(body)).ok();
    println!("a broker, alone and beside {} builds that wait:", PIPELINES * OF_EACH);
    each("a build is asked for", || drop(ask(&json!({ "repository": APP, "git_ref": "main", "pipeline": "unit" }))));
    load("deliveries", broker.port(), &head);
    thread::scope(|scope| {
        for asker in 0..ASKERS {
            let share = (OF_EACH + asker) / ASKERS;
            scope.spawn(move || (0..share).for_each(|_| drop(ask(&json!({ "repository": APP, "git_ref": "crowd" })))));
        }
    });
    until("each of them waits", || {
        broker.http("GET", "/v1/status", None).ok()["waiting"].as_u64() > Some(PIPELINES * OF_EACH)
    });
    each("a build is asked for", || drop(ask(&json!({ "repository": APP, "git_ref": "main", "pipeline": "unit" }))));
    load("deliveries", broker.port(), &head);
}
