//! The examples run: each client, and the pytest fixture, against a real broker with the lab that
//! the README starts.
//!
//! `scripts/test` installs what Python and Node need and says where by environment variables.
//! Without them the tests of that language say that they were skipped, and pass.

#[expect(dead_code, reason = "every test binary uses its own part of the harness")]
#[path = "../common/mod.rs"]
mod common;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::broker::Broker;
use common::process::{self, Output, Process};
use common::proxy::Proxy;
use common::standby::Standby;
use common::wait::until;

/// The lab of the README.
const LAB: &str = include_str!("../../examples/lab.toml");
/// As many phones as workers, and a ttl that outlasts the test: whoever comes second gets one only
/// because it was given back.
const LAB_OF_TWO: &str = r#"
[[pool]]
name = "phone"
ttl = "10m"

[[resource]]
name = "pixel-{1,2}"
pool = "phone"
labels = { os = "android" }
"#;
/// A lab where what the examples ask for does not exist.
const LAB_WITHOUT: &str = r#"
[[pool]]
name = "phone"

[[resource]]
name = "iphone-15"
pool = "phone"
labels = { os = "ios" }
"#;

/// How long the story may take; it has its own patience with each of its steps.
const STORY_TIME: Duration = Duration::from_secs(600);

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)
}

/// The variable's value; without one, says so past the capture of test output.
fn tool(variable: &str) -> Option<PathBuf> {
    let found = std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    if found.is_none() {
        let _ = writeln!(std::io::stderr(), "SKIPPED: {variable} is not set; scripts/test installs what it names");
    }
    found
}

fn rust(_: &Path) -> Option<Command> {
    let tests = std::env::current_exe().expect("a test knows where it is");
    let program = tests.ancestors().nth(2).map(|profile| profile.join("examples/minimal")).unwrap_or_default();
    assert!(program.exists(), "no {}: `cargo test` builds it, `cargo test --test` does not", program.display());
    Some(Command::new(program))
}

fn python(_: &Path) -> Option<Command> {
    let mut command = Command::new(tool("LEASEHOLD_TEST_PYTHON")?);
    command.arg(example("minimal.py"));
    Some(command)
}

/// Node looks for modules beside the program, so it runs a copy that has them there.
fn node(dir: &Path) -> Option<Command> {
    let modules = tool("LEASEHOLD_TEST_NODE_MODULES")?;
    let program = dir.join("minimal.mjs");
    std::fs::copy(example("minimal.mjs"), &program).expect("the example can be copied");
    std::os::unix::fs::symlink(modules, dir.join("node_modules")).expect("a link can be made");
    let mut command = Command::new("node");
    command.arg(program);
    Some(command)
}

fn run(broker: &Broker, mut command: Command) -> Output {
    process::run(command.env("LEASEHOLD_URL", broker.url()).env("USER", "tester"))
}

/// Runs a minimal client three times over two phones: each has a higher fence, and the third one
/// finds a phone as the others gave theirs back.
#[track_caller]
fn gets_a_phone_and_gives_it_back(client: fn(&Path) -> Option<Command>) {
    let broker = Broker::with_inventory(LAB_OF_TWO);
    let Some(command) = client(broker.dir()) else { return };
    let mut fences = Vec::new();
    for _ in 0..3 {
        let mut again = Command::new(command.get_program());
        again.args(command.get_args());
        let printed = run(&broker, again).exits(0).stdout;
        let (name, fence) = printed.trim().split_once(' ').expect("it prints a name and a fence");
        assert!(name.starts_with("pixel-"), "{printed:?}");
        fences.push(fence.parse::<u64>().expect("the fence is a number"));
    }
    assert!(fences.is_sorted_by(|earlier, later| earlier < later), "{fences:?}");
}

/// What cannot be satisfied ends the client with the broker's words.
#[track_caller]
fn is_told_what_is_impossible(client: fn(&Path) -> Option<Command>) {
    let broker = Broker::with_inventory(LAB_WITHOUT);
    let Some(command) = client(broker.dir()) else { return };
    let output = run(&broker, command);
    assert_ne!(output.code, Some(0), "{output:?}");
    assert!(output.stderr.contains("android"), "{output:?}");
}

/// With several brokers, the first of which is gone and the second of which stands by.
#[track_caller]
fn finds_the_leader(client: fn(&Path) -> Option<Command>) {
    let broker = Broker::with_inventory(LAB_OF_TWO);
    let Some(mut command) = client(broker.dir()) else { return };
    let gone = Proxy::to(broker.port());
    gone.refuse();
    let standby = Standby::of(broker.port());
    let urls = format!("{},{}", gone.url(), standby.url());
    let printed = process::run(command.env("LEASEHOLD_URL", urls).env("USER", "tester")).exits(0).stdout;
    assert!(printed.starts_with("pixel-"), "{printed:?}");
    assert!(standby.asked() > 0);
}

#[test]
fn rust_finds_the_leader() {
    finds_the_leader(rust);
}

#[test]
fn python_finds_the_leader() {
    finds_the_leader(python);
}

#[test]
fn node_finds_the_leader() {
    finds_the_leader(node);
}

/// It holds and it waits while another broker takes over, which stand for one another here by two
/// networks that lead to one broker.
#[test]
fn python_resumes_at_another_broker() {
    let Some(python) = tool("LEASEHOLD_TEST_PYTHON") else { return };
    let one = LAB_OF_TWO.replace("pixel-{1,2}", "pixel");
    let broker = Broker::with_inventory(&one);
    let (first, second) = (Proxy::to(broker.port()), Proxy::to(broker.port()));
    let start = || {
        let mut command = Command::new(&python);
        command.arg(example("resuming.py")).env("LEASEHOLD_URL", format!("{},{}", first.url(), second.url()));
        Process::start(&mut command)
    };
    let mut holds = start();
    holds.stdout.wait_for("pixel");
    let mut waits = start();
    let queued = || broker.sh("queue --json").exits(0).json().as_array().is_some_and(|queue| queue.len() == 1);
    until("the second one waits", queued);

    first.refuse();
    until("both come by the other network", || second.accepted() >= 2);
    holds.write("\n");
    holds.wait().exits(0);
    waits.stdout.wait_for("pixel");
    waits.write("\n");
    waits.wait().exits(0);
    let ended = broker.sh("lease ls --all --json").exits(0).json();
    let why: Vec<&str> = ended.as_array().into_iter().flatten().filter_map(|l| l["ended"]["why"].as_str()).collect();
    assert_eq!(why, ["released", "released"], "{ended}");
}

#[test]
fn rust_gets_a_phone_and_gives_it_back() {
    gets_a_phone_and_gives_it_back(rust);
}

#[test]
fn rust_is_told_what_is_impossible() {
    is_told_what_is_impossible(rust);
}

#[test]
fn python_gets_a_phone_and_gives_it_back() {
    gets_a_phone_and_gives_it_back(python);
}

#[test]
fn python_is_told_what_is_impossible() {
    is_told_what_is_impossible(python);
}

#[test]
fn node_gets_a_phone_and_gives_it_back() {
    gets_a_phone_and_gives_it_back(node);
}

#[test]
fn node_is_told_what_is_impossible() {
    is_told_what_is_impossible(node);
}

#[test]
fn the_lab_of_the_readme_has_the_phones_that_the_examples_ask_for() {
    let broker = Broker::with_inventory(LAB);
    let command = broker.command(&["run", "-n", "phone,os=android", "--", "sh", "-c", "echo $LEASEHOLD_PHONE_NAME"]);
    let output = run(&broker, command).exits(0);
    assert!(LAB.contains(output.stdout.trim().trim_end_matches(char::is_numeric)), "{output:?}");
}

/// Two workers have one phone each for all of their tests, and give them back: a second run finds
/// both free.
#[test]
fn pytest_holds_one_phone_per_worker() {
    let Some(python) = tool("LEASEHOLD_TEST_PYTHON") else { return };
    let broker = Broker::with_inventory(LAB_OF_TWO);
    for _ in 0..2 {
        let report = broker.dir().join("report.xml");
        let mut command = Command::new(&python);
        command
            .args(["-m", "pytest", "-n", "2", "-q", "-p", "no:cacheprovider"])
            .arg(format!("--junitxml={}", report.display()))
            .arg(example("pytest"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("LEASEHOLD", env!("CARGO_BIN_EXE_leasehold"));
        run(&broker, command).exits(0);
        let report = std::fs::read_to_string(report).expect("pytest wrote its report");
        let phones: BTreeSet<&str> =
            report.split("name=\"phone\" value=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert_eq!(phones.len(), 2, "two workers used {phones:?}\n{report}");
    }
}

/// A pull request, its build on a phone, a push that takes its place, a fork, a container: each as told, or the
/// program fails and says what was otherwise.
#[test]
fn the_story_of_the_pipeline_layer_goes_as_told() {
    let Some(python) = tool("LEASEHOLD_TEST_PYTHON") else { return };
    let mut command = Command::new(python);
    command
        .arg(example("pipeline/story.py"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("LEASEHOLD", env!("CARGO_BIN_EXE_leasehold"));
    let told = Process::start(&mut command).wait_within(STORY_TIME).expect("the story comes to its end");
    let told = told.exits(0).stdout;
    assert!(told.contains("All went as told."), "{told}");
    let required = std::env::var_os("LEASEHOLD_TEST_REQUIRE_PODMAN").is_some();
    assert!(!required || !told.contains("skipped, as "), "LEASEHOLD_TEST_REQUIRE_PODMAN is set: {told}");
    if let Some((_, rest)) = told.split_once("skipped, as ") {
        let _ = writeln!(std::io::stderr(), "SKIPPED: the container of the story, as {rest}");
    }
}
