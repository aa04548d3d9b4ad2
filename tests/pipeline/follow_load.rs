//! How soon a line that a step prints is with whoever follows its log, measured by hand: it asserts nothing that a
//! busy machine would break.
//!
//! `cargo test --release --all-features --test pipeline -- --ignored --nocapture a_line_to_its_followers` prints it.
//!
//! A real broker, a real agent, and steps that print the moment at which they do: at irregular moments, sometimes
//! several lines at once, and once nothing for so long that every question that waits for more has ended meanwhile.
//! Three follow: the text of each build as it grows, the command line, and a page in a real browser where there is
//! one. All are on one machine and go by its wall clock, which nobody may set meanwhile.

use std::io::{BufRead as _, BufReader, Write as _};
use std::thread;

use leasehold::clock::wall_now_ms;
use serde_json::Value;

use super::browser::{Browser, Setup};
use super::common::http;
use super::common::process::Process;
use super::common::random::Random;
use super::fake::{Repo, comes_to, lab, pipeline, start};

/// Times that each step prints something.
const TIMES: u64 = 120;
/// Pauses between them are shorter, milliseconds.
const PAUSE_MS_MAX: u64 = 600;
/// After so many times it prints nothing for a while: for a little longer than the broker holds a page's question.
const SILENT_AFTER: u64 = 60;
const SILENCE_MS: u64 = 20_400;
/// What lines begin with that tell their moment.
const MARK: &str = "printed at ";

/// A script that prints at moments of its own, once `go` is there, and how many lines.
fn script(number: u64, go: &str) -> (String, usize) {
    let mut random = Random::new(17, number);
    let mut script = format!("until [ -e '{go}' ]; do sleep 0.1; done\n");
    let mut count = 0;
    for time in 0..TIMES {
        let pause_ms = if time == SILENT_AFTER { SILENCE_MS } else { random.below(PAUSE_MS_MAX) };
        script.push_str(&format!("sleep {}.{:03}\n", pause_ms / 1_000, pause_ms % 1_000));
        // Each is one process that reads the clock, prints that and ends.
        let lines = if random.below(4) == 0 { 2 + random.below(4) } else { 1 };
        (0..lines).for_each(|_| script.push_str(&format!("date '+{MARK}%s%N'\n")));
        count += usize::try_from(lines).expect("a few");
    }
    (script, count)
}

/// How long ago a line was printed, by its text.
fn waited_ms(line: &str) -> Option<i64> {
    let now_ms = wall_now_ms();
    let printed_ns: i64 = line.strip_prefix(MARK)?.parse().ok()?;
    Some((now_ms - printed_ns / 1_000_000).max(0))
}

fn tell(what: &str, mut waits_ms: Vec<i64>) {
    waits_ms.sort_unstable();
    let at = |part: f64| waits_ms[((waits_ms.len() - 1) as f64 * part) as usize];
    let (p50, p99, longest) = (at(0.5), at(0.99), at(1.0));
    println!("    {what}: p50 {p50} ms, p99 {p99} ms, longest {longest} ms of {}", waits_ms.len());
}

/// Reads the text of a log as it grows, to its end.
fn follow_text(port: u16, build: u64) -> Vec<i64> {
    let mut stream = http::connect(port);
    let ask = format!("GET /builds/{build}/log?follow=1 HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    stream.write_all(ask.as_bytes()).expect("the broker reads requests");
    // Lines are printed whole, and so sent in one chunk.
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    lines.filter_map(|line| waited_ms(&line)).collect()
}

/// The same at the command line.
fn follow_command(command: &Process) -> Vec<i64> {
    std::iter::from_fn(|| command.stdout.next()).filter_map(|line| waited_ms(&line)).collect()
}

/// Notes in the page when rows come into it, which is in the frame that shows them.
const WATCH: &str = "
    window.seen = new Map();
    new MutationObserver(() => {
        const now = Date.now();
        for (const row of document.querySelectorAll('#shown .t')) {
            const [, at] = /^printed at (\\d+)$/.exec(row.textContent) || [];
            if (at && !window.seen.has(at)) window.seen.set(at, now);
        }
    }).observe(document.getElementById('shown'), { childList: true, subtree: true });";
const SEEN: &str = "return [...window.seen].map(([at, now]) => Math.max(0, now - Math.floor(Number(at) / 1e6)))";

async fn open_page(port: u16, build: u64) -> Option<Browser> {
    let browser = Browser::open(Setup::default()).await?;
    browser.goto(&format!("http://127.0.0.1:{port}/builds/{build}")).await;
    browser.until("document.getElementById('shown')").await;
    browser.run(WATCH).await;
    Some(browser)
}

async fn page_saw(browser: &Browser, lines: usize) -> Vec<i64> {
    browser.until(&format!("window.seen.size === {lines}")).await;
    let seen = browser.run(SEEN).await;
    seen.as_array().expect("a list").iter().filter_map(Value::as_i64).collect()
}

/// So many builds at once on one agent: each one's text is followed, the first one also in a page and at the
/// command line.
fn follow(builds: u64) {
    let repo = Repo::new();
    let folder = tempfile::tempdir().expect("a folder");
    let go = folder.path().join("go");
    let scripts: Vec<(String, usize)> =
        (0..builds).map(|number| script(number, go.to_str().expect("a path is text"))).collect();
    let pipelines = scripts.iter().enumerate().map(|(number, (script, _))| {
        pipeline(&format!("unit-{number}"), "").replace("\"make test\"", &Value::from(script.as_str()).to_string())
    });
    let broker = lab(&repo, &pipelines.collect::<String>());
    let agent = broker.spawn(&["agent", "--name", "rack", "--work", "work", "--slots", &builds.to_string()]);
    agent.stderr.wait_for("agent rack is online");
    let (port, ids) = (broker.port(), start(&broker));
    assert_eq!(ids.len(), scripts.len());
    let command = broker.spawn(&["build", "log", "-f", &ids[0].to_string()]);
    command.stdout.wait_for("--- ");
    ids.iter().for_each(|id| drop(comes_to(&broker, *id, "running")));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let page = runtime.block_on(open_page(port, ids[0]));
    let at_command = thread::spawn(move || follow_command(&command));
    let texts: Vec<_> = ids.iter().map(|&id| (id, thread::spawn(move || follow_text(port, id)))).collect();
    std::fs::write(&go, "").expect("a file can be written");

    println!("{builds} at once, a {} build:", if cfg!(debug_assertions) { "debug" } else { "release" });
    let mut waits_ms = Vec::new();
    for ((id, text), (_, lines)) in texts.into_iter().zip(&scripts) {
        let seen = text.join().expect("it reads to the end");
        assert_eq!(seen.len(), *lines, "lines of build {id}");
        waits_ms.extend(seen);
    }
    tell("in the text that is followed", waits_ms);
    let seen = at_command.join().expect("it reads to the end");
    assert_eq!(seen.len(), scripts[0].1, "lines at the command line");
    tell("at the command line", seen);
    if let Some(page) = page {
        tell("in the page", runtime.block_on(page_saw(&page, scripts[0].1)));
    }
}

#[test]
#[ignore = "it measures, for two minutes, and is to have the machine for itself"]
fn a_line_to_its_followers() {
    follow(1);
    follow(10);
}
