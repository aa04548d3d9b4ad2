//! Figures of the search: how long the embedded index takes to be made, and to answer, over many builds.
//!
//!     cargo bench --features testing --bench search -- [BUILDS] [LINES]     by default 10,000 and 1,000
//!
//! On SQLite, and on PostgreSQL where there is one. Logs are as builds print them: words that are everywhere,
//! words of one build, and numbers that never come again.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use leasehold::builds::build::{Build, BuildId};
use leasehold::builds::change::Change;
use leasehold::builds::log::LogId;
use leasehold::clock::boot_now_us;
use leasehold::inventory::pipelines::SearchSettings;
use leasehold::pipeline::logs::{LogLimits, Logs, Objects, Retention};
use leasehold::pipeline::search::{HITS_DEFAULT, Query, Question, Search};
use leasehold::protocol::log_times::LineTimes;
use leasehold::store::Store as _;
use leasehold::store::builds::{BuildsAt, Opened};
use leasehold::store::postgres::{Shared, Taken};
use leasehold::testing::postgres;
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// How often each question is asked.
const TIMES: usize = 21;

fn main() {
    let numbers: Vec<u64> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    let (builds, lines) = (numbers.first().copied().unwrap_or(10_000), numbers.get(1).copied().unwrap_or(1_000));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let folder = tempfile::tempdir_in("target").expect("a folder");
        let sqlite = BuildsAt::File(folder.path().join("builds.db"));
        measure("SQLite", sqlite.open().await.expect("a store"), builds, lines).await;
        let Some(server) = postgres::shared() else { return };
        let mut shared = Shared::connect(&server.database(), "bench", "ws://bench:1", 60_000).await.expect("a store");
        let seen = shared.observe().await.expect("a row");
        let Taken::Lead(leases) = shared.take(seen.epoch, seen.beat).await.expect("the lead") else { return };
        measure("PostgreSQL", leases.builds().open().await.expect("a store"), builds, lines).await;
    });
}

async fn measure(name: &str, store: Opened, builds: u64, lines: u64) {
    let folder = tempfile::tempdir_in("target").expect("a folder");
    store.builds.take_over(0).await.expect("nobody else has it");
    let objects = Objects::folder(folder.path()).expect("a folder");
    let logs = Logs::new(store.logs.clone(), store.builds.clone(), objects, LogLimits::of(100_000_000));
    let stop = CancellationToken::new();
    tokio::spawn(logs.clone().keep(Retention { kept_ms: u64::MAX, builds: u32::MAX }, stop.clone()));
    let settings = SearchSettings { url: None, user: None, password: None };
    let search = Search::new(store.search.clone(), store.builds.clone(), logs.clone(), &settings).expect("settings");
    let began = boot_now_us();
    tokio::spawn(search.clone().index(stop.clone()));
    for id in 1..=builds {
        let build: Build = serde_json::from_value(finished(id)).expect("a build");
        store.builds.commit(&[Change::Build(Arc::new(build))]).await.expect("it is written");
        let log = LogId { build: BuildId(id), attempt: 1 };
        let mut times = LineTimes::starting(1_000);
        (0..lines).for_each(|_| times.begin_line(1_000));
        let admitted = logs.admit(log, 0).await.expect("it is empty");
        logs.append(admitted, times, text(id, lines).into(), None).await.expect("it is stored");
        logs.close(log).await.expect("it is ended");
    }
    while store.search.to_index_count().await.expect("a count") > 0
        || store
            .logs
            .unsettled_logs(LogId { build: BuildId(0), attempt: 0 }, 1)
            .await
            .is_ok_and(|found| !found.is_empty())
    {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!(
        "{name}: {builds} builds of {lines} lines stored and indexed in {} s",
        (boot_now_us() - began) / 1_000_000
    );
    let (rare, once) = (format!("build{}", builds / 2), format!("build{} suite", builds / 3));
    for (what, query, repository) in [
        ("a word of one build", &*rare, None),
        ("a word of every line", "test", None),
        ("a word of every line, in the repository of the oldest build", "test", Some("acme/old")),
        ("a word of every line, in the repository of one build in a hundred", "test", Some("acme/web")),
        ("two words of one line in every build", "case_550 failed", None),
        ("two words of one line in one build", &once, None),
        ("a phrase of one line in a hundred", "\"failed with code\"", None),
        ("a phrase of one build, of words of every build", "\"failed in\"", None),
        ("two words of every build, never in one line", "failed passed", None),
        ("a beginning", "fail*", None),
        ("a beginning of a thousand words", "abc*", None),
        ("a word that is nowhere", "nowhere", None),
    ] {
        ask(&search, name, what, query, repository).await;
    }
    stop.cancel();
}

async fn ask(search: &Search, name: &str, what: &str, query: &str, repository: Option<&str>) {
    let question = Question {
        query: Query::parse(query).expect("a query"),
        repository: repository.map(Arc::from),
        pipeline: None,
        phases: Vec::new(),
        since_ms: None,
        limit: HITS_DEFAULT,
        cursor: None,
    };
    let mut took = Vec::new();
    let mut found = search.search(&question).await.expect("an answer");
    for _ in 0..TIMES {
        let began = boot_now_us();
        found = search.search(&question).await.expect("an answer");
        took.push(boot_now_us() - began);
    }
    took.sort_unstable();
    let (median, highest) = (took[took.len() / 2] / 1_000, took[took.len() - 1] / 1_000);
    let (hits, unfinished) = (found.hits.len(), if found.unfinished { ", unfinished" } else { "" });
    println!("{name}: {what:<65} {median:>5} ms median, {highest:>5} ms at most, {hits} hits{unfinished}");
}

/// About seventy bytes a line, all printed as a test runner does.
fn text(build: u64, lines: u64) -> String {
    let mut text = String::new();
    if build == 1 {
        text.push_str("test failed in setup\n");
    }
    for line in u64::from(build == 1)..lines {
        let number = (build * lines + line).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let _ = match line % 100 {
            0 => writeln!(text, "[{line:>5}] build{build} begins suite {} on rig-{}", line / 100, build % 7),
            50 => {
                writeln!(text, "[{line:>5}] test module_{}::case_{line} failed with code {}", line % 37, number % 256)
            }
            _ => writeln!(
                text,
                "[{line:>5}] test module_{}::case_{line} passed in {} us, id {number:016x}",
                line % 37,
                number % 9_999
            ),
        };
    }
    text
}

fn finished(id: u64) -> serde_json::Value {
    let repository = match id {
        1 => "acme/old",
        _ if id.is_multiple_of(100) => "acme/web",
        _ => "acme/app",
    };
    json!({
        "id": id, "repository": repository, "by": "ann", "phase": "passed", "attempt": 1,
        "subject": { "line": { "branch": "main" }, "sha": "a".repeat(40), "git_ref": "refs/heads/main", "fork": false },
        "cause": { "cause": "asked" },
        "plan": {
            "name": "ci", "needs": [], "agent": "", "steps": [], "container": null, "env": {}, "secrets": [],
            "timeout_ms": 1, "wait_ms": null, "grace_ms": 1, "priority": 0, "concurrency": "parallel", "retries": 0,
        },
        "times": { "created_ms": id, "queued_ms": null, "prepared_ms": null, "begun_ms": null, "ended_ms": id },
    })
}
