//! Wall clocks in trouble: minutes apart from broker to broker, jumping back and forward under load.
//!
//! Nothing may rely on them. What a broker decides by must go on at the pace of real time: lab time
//! over all failovers, the end of a hold, the limit of a wait. The clocks are faked under the brokers'
//! feet by libfaketime, which leaves alone those that do not jump in reality either.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use leasehold::clock::boot_now;

use super::cluster::Cluster;
use super::common::process::Process;
use super::common::wait::{PATIENCE, clock_reaches, eventually};
use super::faults::named;
use super::trial::Trial;
use super::{cluster, seed, settle, variable};

/// Names libfaketime where it is not where Debian keeps it.
const LIBRARY: &str = "LEASEHOLD_TEST_FAKETIME";
/// What strikes, each after another jump of all clocks.
const FAULTS: [&str; 4] = ["leader killed", "leader stopped as planned", "leader killed", "rolling restart"];
/// The clocks' offsets before the first fault, and after each jump; seconds.
const OFFSETS: [[i64; 3]; 5] =
    [[-600, 0, 600], [600, -600, 0], [0, 3_600, -3_600], [-86_400, 86_400, 7], [120, -120, 0]];
/// By how much lab time may seem to have gone off over all faults, milliseconds: it is read on a busy
/// machine. The smallest jump is four times that.
const LAB_OFF_MS: u64 = 30_000;
/// Until every process has read a new offset, which it does once a second. Not looked at, as the date
/// of an answer is kept until the clock is past it, which takes its time after a jump back.
const OFFSET_READ_MS: u64 = 2_500;
/// A hold and a wait that lie across failovers; seconds.
const HOLD_S: u64 = 20;
const WAIT_S: u64 = 12;
/// By how much lab time may be ahead after a failover or two, milliseconds.
const SOONER_MS: u64 = 1_000;

#[test]
fn brokers_whose_wall_clocks_jump_keep_time() {
    let Some(library) = library() else { return };
    let Some(mut cluster) = cluster() else { return };
    for node in &mut cluster.nodes {
        node.env("LD_PRELOAD", library.display().to_string());
        node.env("FAKETIME_TIMESTAMP_FILE", node.home().join("offset").display().to_string());
        node.env("FAKETIME_CACHE_DURATION", "1");
        node.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        node.env("NO_FAKE_STAT", "1");
    }
    set_clocks(&cluster, OFFSETS[0]);
    cluster.start();
    clocks_are(&cluster, OFFSETS[0]);
    let mut trial = Trial::start(cluster, seed());
    let (lab, real) = (lab_now(&trial), boot_now());
    let timed = Timed::start(&trial);
    let mut rounds = Vec::new();
    for (fault, offsets) in FAULTS.into_iter().zip(&OFFSETS[1..]) {
        set_clocks(&trial.cluster, *offsets);
        clock_reaches(boot_now().plus(OFFSET_READ_MS));
        rounds.push(trial.round(named(fault), 1));
    }
    let (lab_passed, real_passed) = (lab_now(&trial).saturating_sub(lab), boot_now().since(real));
    assert!(lab_passed.abs_diff(real_passed) < LAB_OFF_MS, "lab time: {lab_passed} ms in {real_passed} ms");
    timed.end();
    settle(trial, rounds);
}

/// The library, or why it is not used.
fn library() -> Option<PathBuf> {
    let debian = || {
        let folders = std::fs::read_dir("/usr/lib").ok()?.filter_map(Result::ok);
        folders.map(|folder| folder.path().join("faketime/libfaketime.so.1")).find(|path| path.exists())
    };
    let found = variable(LIBRARY).map(PathBuf::from).or_else(debian);
    if found.is_none() {
        // Past the capture of test output; fails only where nobody reads.
        let _ = writeln!(std::io::stderr(), "SKIPPED: there is no libfaketime here: no wall clock jumped");
    }
    found
}

fn set_clocks(cluster: &Cluster, offsets: [i64; 3]) {
    for (node, offset) in cluster.nodes.iter().zip(offsets) {
        // In one step, as the brokers read it at any time.
        let (new, file) = (node.home().join("offset.new"), node.home().join("offset"));
        std::fs::write(&new, format!("{offset:+}")).expect("a temporary file can be written");
        std::fs::rename(&new, &file).expect("a temporary file can be renamed");
    }
}

/// Waits until every broker's wall clock, which is the date of its answers, goes by its offset.
fn clocks_are(cluster: &Cluster, offsets: [i64; 3]) {
    for (node, offset) in cluster.nodes.iter().zip(offsets) {
        eventually("the wall clock has jumped", || {
            let answer = node.ask("/healthz")?;
            let date = jiff::fmt::rfc2822::parse(answer.header("date")?).ok()?.timestamp().as_millisecond();
            let ahead = date - leasehold::clock::wall_now_ms();
            // The date is in seconds, and an answer takes its time.
            (ahead - offset * 1_000).abs().lt(&10_000).then_some(())
        });
    }
}

fn lab_now(trial: &Trial) -> u64 {
    trial.cluster.ask("/v1/status")["now"].as_u64().expect("an answer carries the lab's now")
}

/// A run that holds for so long, and one that waits for it for so long, across failovers.
struct Timed {
    holder: Process,
    waiter: Process,
    home: tempfile::TempDir,
}

impl Timed {
    fn start(trial: &Trial) -> Self {
        let home = tempfile::tempdir().expect("a temporary directory can be made");
        let run = |limit: [&str; 2], command: [&str; 2]| {
            let mut run = trial.cluster.command(home.path(), 0);
            let report = home.path().join(limit[0]);
            run.args(["run", "-n", "timed"]).args(limit).arg("--report").arg(report).arg("--").args(command);
            Process::start(&mut run)
        };
        let holder = run(["--hold", &format!("{HOLD_S}s")], ["sleep", "1000"]);
        eventually("it is held", || {
            let resource = trial.cluster.ask("/v1/resources/timed");
            resource["holders"].as_array().is_some_and(|holders| !holders.is_empty()).then_some(())
        });
        let waiter = run(["--wait", &format!("{WAIT_S}s")], ["sleep", "0"]);
        Self { holder, waiter, home }
    }

    /// Both have come to their ends, and not before their time.
    fn end(self) {
        let ends = [(self.waiter, WAIT_S, 124, "--wait", "waited_ms"), (self.holder, HOLD_S, 120, "--hold", "held_ms")];
        for (mut process, seconds, code, limit, lasted) in ends {
            process.wait_within(PATIENCE + Duration::from_secs(seconds)).expect("its time is over").exits(code);
            let report = std::fs::read_to_string(self.home.path().join(limit)).expect("a run writes its report");
            let report: serde_json::Value = serde_json::from_str(&report).expect("a report is JSON");
            let lasted_ms = report[lasted].as_u64().unwrap_or(0);
            assert!(lasted_ms + SOONER_MS >= seconds * 1_000, "{limit} was over early: {report}");
        }
    }
}
