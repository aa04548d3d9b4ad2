//! `acquire --detach`: a keeper holds the lease for as long as another process lives.

use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::common::broker::Broker;
use super::common::process::{self, Process};
use super::common::wait::{eventually, until};
use super::common::witness::lives;
use super::{ONE_PHONE, ONE_PHONE_3S, all_free, shown};

const LEASEHOLD: &str = env!("CARGO_BIN_EXE_leasehold");

/// A process for which a lease is held; it does what the script says.
fn job(script: &str) -> Process {
    let job =
        Process::start(std::process::Command::new("sh").args(["-c", &format!("{script}\necho here; exec sleep 1000")]));
    job.stdout.wait_for("here");
    job
}

/// Leaves a keeper for the job; answers what was granted.
#[track_caller]
fn detach(broker: &Broker, job: &Process, options: &[&str]) -> Value {
    let pid = job.pid().to_string();
    let line = [&["acquire", "-n", "phone", "--detach", "--while-pid", &pid], options].concat();
    broker.cli(&line).exits(0).json()
}

/// The keepers of this broker's leases: each test has its own home.
fn keepers(home: &Path) -> Vec<Pid> {
    let home = format!("HOME={}\0", shown(home)).into_bytes();
    let entries = std::fs::read_dir("/proc").expect("there are processes").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let ours = pids.filter(|pid| {
        let file = |name: &str| std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        file("comm").starts_with(b"leasehold-keep") && file("environ").windows(home.len()).any(|part| part == home)
    });
    ours.filter(|pid| lives(*pid)).map(Pid::from_raw).collect()
}

#[track_caller]
fn keeper(broker: &Broker) -> Pid {
    let keepers = keepers(broker.dir());
    assert_eq!(keepers.len(), 1, "{keepers:?}");
    keepers[0]
}

#[track_caller]
fn no_keeper(broker: &Broker) {
    until("the keeper is gone", || keepers(broker.dir()).is_empty());
}

#[test]
fn a_keeper_holds_until_release_and_spares_the_process() {
    let broker = Broker::with_inventory(ONE_PHONE);
    let mut job = job("");
    let granted = detach(&broker, &job, &[]);
    assert_eq!(granted["resources"]["phone"][0]["name"], "pixel");
    let lease = granted["lease"].to_string();
    keeper(&broker);
    assert!(!all_free(&broker));
    process::run(broker.command(&["release", "--outcome", "passed"]).env("LEASEHOLD_LEASE", &lease)).exits(0);
    assert!(all_free(&broker));
    no_keeper(&broker);
    assert!(job.poll().is_none());
    let again = broker.sh(&format!("release {lease}")).exits(0);
    assert!(again.stderr.contains("released"), "{}", again.stderr);
}

#[test]
fn a_keeper_ends_with_the_process() {
    let broker = Broker::with_inventory(ONE_PHONE);
    let mut job = job("");
    detach(&broker, &job, &[]);
    let mut next = broker.session("next@desk");
    assert_eq!(next.acquire(&["phone"])["state"], "queued");
    job.signal(Signal::SIGKILL);
    // Seen though nobody has asked yet how the process ended.
    next.notice("lease.granted");
    no_keeper(&broker);
    job.wait();
}

#[test]
fn at_the_end_of_the_hold_the_process_is_stopped() {
    let broker = Broker::with_inventory(ONE_PHONE);
    let mut polite = job("");
    detach(&broker, &polite, &["--hold", "1s"]);
    assert_eq!(signal_of(&mut polite), Signal::SIGTERM);
    until("the phone is free", || all_free(&broker));

    let mut stubborn = job("trap '' TERM");
    detach(&broker, &stubborn, &["--hold", "1s", "--grace", "100ms"]);
    assert_eq!(signal_of(&mut stubborn), Signal::SIGKILL);
    until("the phone is free", || all_free(&broker));
    no_keeper(&broker);
}

/// Waits for its end by a signal.
#[track_caller]
fn signal_of(job: &mut Process) -> Signal {
    use std::os::unix::process::ExitStatusExt;
    let status = eventually("the process has ended", || job.poll());
    Signal::try_from(status.signal().expect("a signal ended it")).expect("a signal has a name")
}

#[test]
fn a_lost_or_revoked_lease_stops_the_process() {
    let mut broker = Broker::with_inventory(ONE_PHONE_3S);
    let mut revoked = job("");
    let lease = detach(&broker, &revoked, &[])["lease"].to_string();
    broker.sh(&format!("lease revoke {lease}")).exits(0);
    assert_eq!(signal_of(&mut revoked), Signal::SIGTERM);
    until("the phone is free", || all_free(&broker));

    let mut lost = job("trap '' TERM");
    detach(&broker, &lost, &[]);
    broker.kill9();
    assert_eq!(signal_of(&mut lost), Signal::SIGKILL);
    no_keeper(&broker);
}

#[test]
fn a_keeper_survives_a_restart_of_the_broker() {
    let mut broker = Broker::with_inventory(ONE_PHONE);
    let mut job = job("");
    let lease = detach(&broker, &job, &[])["lease"].clone();
    broker.restart();
    until("the keeper is back", || broker.sh("session ls --json").exits(0).json()[0]["connected"] == true);
    assert_eq!(broker.sh("lease ls --json").exits(0).json()[0]["lease"], lease);
    assert!(job.poll().is_none());
    job.signal(Signal::SIGKILL);
    until("the phone is free", || all_free(&broker));
}

#[test]
fn a_killed_keeper_gives_its_lease_back() {
    let broker = Broker::with_inventory(ONE_PHONE_3S);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let mut job = job("");
        detach(&broker, &job, &[]);
        kill(keeper(&broker), signal).expect("the keeper is there");
        until("the phone is free", || all_free(&broker));
        no_keeper(&broker);
        assert!(job.poll().is_none());
    }
}

#[test]
fn without_a_process_there_is_no_keeper() {
    let broker = Broker::with_inventory(ONE_PHONE);
    let mut over = job("");
    over.signal(Signal::SIGKILL);
    over.wait();
    let pid = over.pid().to_string();
    let failed = broker.cli(&["acquire", "-n", "phone", "--detach", "--while-pid", &pid]).exits(125);
    assert!(failed.stderr.contains(&pid), "{}", failed.stderr);
    assert!(all_free(&broker));
}

#[test]
fn a_wait_that_fails_or_is_interrupted_leaves_nothing() {
    let broker = Broker::with_inventory(ONE_PHONE);
    let mut holder = broker.session("holder@desk");
    holder.lease(&["phone"]);
    let mut job = job("");
    let pid = job.pid().to_string();
    let line = ["acquire", "-n", "phone", "--detach", "--while-pid", &pid];
    broker.cli(&[&line[..], &["--wait", "0"]].concat()).exits(124);
    let nobody_waits = || broker.sh("queue --json").exits(0).json().as_array().is_some_and(Vec::is_empty);
    // Killed while it waits: its keeper leaves the queue.
    let mut waiting = broker.spawn(&line);
    waiting.stderr.wait_for("waiting, place 1");
    waiting.signal(Signal::SIGKILL);
    until("nobody waits", nobody_waits);
    // The process ends while it waits.
    let mut waiting = broker.spawn(&line);
    waiting.stderr.wait_for("waiting, place 1");
    job.signal(Signal::SIGKILL);
    job.wait();
    waiting.wait().exits(125);
    until("nobody waits", nobody_waits);
    no_keeper(&broker);
}

/// Runs a shell's script with `leasehold` on its path.
fn shell(broker: &Broker, script: &str) -> process::Output {
    let mut command = std::process::Command::new("sh");
    let bin = Path::new(LEASEHOLD).parent().expect("the binary is in a directory");
    let path = format!("{}:{}", shown(bin), std::env::var("PATH").unwrap_or_default());
    command.env_clear().env("PATH", path).env("HOME", broker.dir()).env("USER", "tester");
    process::run(command.env("LEASEHOLD_URL", broker.url()).args(["-c", script]))
}

#[test]
fn a_shell_evaluates_what_it_got() {
    let broker = Broker::with_inventory(ONE_PHONE);
    let script = "set -e; eval \"$(leasehold acquire --format env --detach --while-pid $$ -n phone)\"; \
        echo $LEASEHOLD_PHONE_NAME $LEASEHOLD_PHONE_COUNT; leasehold lease ls --json; leasehold release; echo released";
    let output = shell(&broker, script).exits(0);
    assert!(output.stdout.starts_with("pixel 1\n") && output.stdout.ends_with("released\n"), "{}", output.stdout);
    assert!(all_free(&broker));
    // Without a release it comes back with the shell.
    shell(&broker, "eval \"$(leasehold acquire --format env --detach --while-pid $$ -n phone)\"").exits(0);
    until("the phone is free", || all_free(&broker));
}

#[test]
fn a_shells_eval_fails_as_the_acquire_did() {
    let broker = Broker::with_inventory(ONE_PHONE);
    let acquire = "eval \"$(leasehold acquire --format env --detach --while-pid $$";
    let output = shell(&broker, &format!("{acquire} -n phone,os=ios)\"; echo $?")).exits(0);
    assert_eq!(output.stdout, "125\n");
    assert!(output.stderr.contains("os=ios"), "{}", output.stderr);
    shell(&broker, &format!("set -e; {acquire} -n phone,os=ios)\"; echo not reached")).exits(125);
    let mut holder = broker.session("holder@desk");
    holder.lease(&["phone"]);
    let output = shell(&broker, &format!("{acquire} -n phone --wait 0)\" || echo $?")).exits(0);
    assert_eq!(output.stdout, "124\n");
    let output = shell(&broker, &format!("{acquire} --wait ten -n phone)\" || echo $?")).exits(0);
    assert_eq!(output.stdout, "125\n", "a mistake on the command line fails too");
}
