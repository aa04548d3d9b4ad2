//! How long it takes until a hundred megabytes that a step prints are in its build's log, and what memory the broker
//! needs for that, measured by hand: it asserts nothing that a busy machine would break.
//!
//! `cargo test --release --all-features --test pipeline -- --ignored --nocapture a_hundred_megabytes` prints it.
//!
//! A real broker and a real agent. Beside the step that prints stand one that does nothing, for what a build takes by
//! itself, and one that writes the same into a file, for what the machine takes.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;

use super::common::broker::Broker;
use super::common::random::Random;
use super::common::wait::eventually;
use super::fake::{APP, Repo, comes_to, lab, pipeline};

/// Bytes that are printed, and about how often.
const BYTES: usize = 100_000_000;
const TIMES: usize = 5;
/// What lines are made of.
const WORDS: [&str; 12] = [
    "compiling",
    "test",
    "login",
    "ok",
    "warning",
    "phone",
    "network",
    "connected",
    "retry",
    "request",
    "timeout",
    "worker",
];

/// Lines such as builds print.
fn text() -> String {
    let mut random = Random::new(17, 1);
    let mut text = String::with_capacity(BYTES + 100);
    while text.len() < BYTES {
        let mut word = || WORDS[random.below(WORDS.len() as u64) as usize];
        let words = [word(), word(), word(), word()];
        let (number, id) = (random.below(100_000), random.below(1 << 32));
        writeln!(text, "12:00:00.000 {} {}: {} {number} {} id={id:08x}", words[0], words[1], words[2], words[3])
            .expect("a string takes it");
    }
    text
}

/// Builds this pipeline; answers how long its steps and its log took, milliseconds.
fn took_ms(broker: &Broker, name: &str) -> i64 {
    let body = json!({ "repository": APP, "git_ref": "main", "pipeline": name });
    let started = broker.http("POST", "/v1/builds", Some(&body)).ok();
    let build = comes_to(broker, started["builds"][0].as_u64().expect("a number"), "passed");
    let at = |moment: &str| build[moment].as_i64().expect("a moment");
    at("ended_ms") - at("begun_ms")
}

/// MiB of a process, by this line of what the kernel says of it.
fn mib(pid: u32, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let told = status.lines().find_map(|told| told.strip_prefix(line)?.strip_prefix(':'));
    told.and_then(|told| told.trim().strip_suffix(" kB")?.parse::<u64>().ok()).expect("a number of kB") / 1024
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("a file can be written");
}

#[test]
#[ignore = "it measures, and is to have the machine for itself"]
fn a_hundred_megabytes() {
    let folder = tempfile::tempdir().expect("a folder");
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    write(&from, &text());
    let (from, to) = (from.display(), to.display());
    let steps = [
        ("nothing", "true".to_owned()),
        ("file", format!("cat {from} > {to}")),
        ("disk", format!("cat {from} > {to}; sync {to}")),
        ("log", format!("cat {from}")),
    ];
    let pipelines = steps.iter().map(|(name, step)| pipeline(name, "").replace("make test", step));
    let repo = Repo::new();
    let mut broker = lab(&repo, &pipelines.collect::<String>());
    let agent = broker.spawn(&["agent", "--name", "rack", "--work", "work"]);
    agent.stderr.wait_for("agent rack is online");
    let pid = broker.process().pid();
    took_ms(&broker, "nothing");

    println!("a {} build:", if cfg!(debug_assertions) { "debug" } else { "release" });
    for (name, what) in [("nothing", "nothing"), ("file", "into a file"), ("disk", "into a file, and onto the disk")] {
        let took: Vec<i64> = (0..3).map(|_| took_ms(&broker, name)).collect();
        println!("    {what}: {took:?} ms");
    }
    for _ in 0..TIMES {
        // The highest so far is forgotten.
        write(Path::new(&format!("/proc/{pid}/clear_refs")), "5");
        let before = mib(pid, "VmRSS");
        let took = took_ms(&broker, "log");
        let at_end = mib(pid, "VmHWM") - before;
        eventually("the log is indexed", || {
            let found = broker.http("GET", "/v1/builds/search?q=nowhere", None).ok();
            (found["to_index"] == 0).then_some(())
        });
        let indexed = mib(pid, "VmHWM") - before;
        println!("    as a log: {took} ms; the broker had {before} MiB,");
        println!("        then at most {at_end} more, and {indexed} more until it was indexed");
    }
}
