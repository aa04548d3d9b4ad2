//! The faults, each by name: what strikes, and what is put right again after.
//!
//! Each answers the moment it struck. It returns when what it broke is whole again; that everything
//! goes on is waited for by whoever let it strike.

use leasehold::clock::{BootTime, boot_now};

use super::cluster::Node;
use super::common::wait::clock_reaches;
use super::trial::Trial;
use super::wire::{Caught, Point};

/// A term, by default; milliseconds.
pub const TERM_MS: u64 = 2_000;

/// A fault.
#[derive(Debug)]
pub struct Fault {
    /// What it is called in the report.
    pub name: &'static str,
    /// Whether it takes longer than the default ttl, so that runs are right to stop.
    pub outlasts_ttl: bool,
    /// Lets it strike.
    pub strike: fn(&mut Trial) -> BootTime,
}

const fn fault(name: &'static str, strike: fn(&mut Trial) -> BootTime) -> Fault {
    Fault { name, outlasts_ttl: false, strike }
}

/// No fault at all.
pub const NONE: Fault = fault("none", |_| boot_now());

/// All of them.
pub const FAULTS: &[Fault] = &[
    fault("leader killed", leader_killed),
    fault("leader stopped as planned", leader_stopped),
    fault("rolling restart", rolling_restart),
    fault("standby killed", standby_killed),
    fault("leader frozen for ten terms", leader_frozen),
    fault("leader frozen for about a term", frozen_about_a_term),
    fault("leader frozen before it sends a write", frozen_before_sending),
    fault("leader frozen, its write delivered late", frozen_write_late),
    fault("leader frozen before it reads a write's answer", frozen_before_answer),
    fault("connection cut before a write arrived", cut_before_write),
    fault("connection cut after a write was committed", cut_after_commit),
    fault("leader alive, its write delivered late", write_late),
    fault("leader cut off from the database, silent", cut_off_silent),
    fault("leader cut off from the database, refused", cut_off_refused),
    fault("leader cut off for about a term", cut_off_about_a_term),
    fault("database slow for a while", database_slow),
    fault("database restarted, fast", restarted_fast),
    fault("database restarted, immediate", restarted_immediate),
    fault("leader killed while a standby is frozen", killed_with_frozen_standby),
    fault("all brokers killed", all_killed),
    fault("leader frozen and database restarted", frozen_and_restarted),
    Fault { name: "database gone for a minute", outlasts_ttl: true, strike: database_gone },
];

/// The fault of this name.
pub fn named(name: &str) -> &'static Fault {
    FAULTS.iter().find(|fault| fault.name == name).unwrap_or_else(|| panic!("there is no fault {name:?}"))
}

fn leader_killed(trial: &mut Trial) -> BootTime {
    let leader = trial.cluster.leader();
    let at = boot_now();
    trial.cluster.nodes[leader].kill9();
    trial.cluster.other_leader(leader);
    trial.granting();
    trial.cluster.nodes[leader].start();
    at
}

fn leader_stopped(trial: &mut Trial) -> BootTime {
    let leader = trial.cluster.leader();
    let at = boot_now();
    trial.cluster.nodes[leader].term();
    trial.cluster.other_leader(leader);
    trial.granting();
    trial.cluster.nodes[leader].start();
    at
}

/// Every broker in turn is stopped as planned and started again, as for an upgrade; the leader first,
/// so that there are as many hand-overs as there can be.
fn rolling_restart(trial: &mut Trial) -> BootTime {
    let at = boot_now();
    let first = trial.cluster.leader();
    for turn in 0..trial.cluster.nodes.len() {
        let place = (first + turn) % trial.cluster.nodes.len();
        trial.cluster.nodes[place].term();
        trial.cluster.nodes[place].start();
        trial.cluster.whole();
    }
    at
}

fn standby_killed(trial: &mut Trial) -> BootTime {
    let standby = trial.cluster.standby();
    let at = boot_now();
    trial.cluster.nodes[standby].kill9();
    trial.granting();
    trial.cluster.nodes[standby].start();
    at
}

fn leader_frozen(trial: &mut Trial) -> BootTime {
    let leader = trial.cluster.leader();
    let at = boot_now();
    trial.cluster.nodes[leader].freeze();
    trial.cluster.other_leader(leader);
    trial.granting();
    clock_reaches(at.plus(10 * TERM_MS));
    trial.cluster.nodes[leader].wake();
    at
}

/// Frozen for so long that it wakes while another is about to take over, or has just done so.
fn frozen_about_a_term(trial: &mut Trial) -> BootTime {
    let leader = trial.cluster.leader();
    let at = boot_now();
    trial.cluster.nodes[leader].freeze();
    clock_reaches(at.plus(about_a_term(trial)));
    trial.cluster.nodes[leader].wake();
    trial.granting();
    at
}

fn about_a_term(trial: &mut Trial) -> u64 {
    TERM_MS / 2 + trial.random.below(2 * TERM_MS)
}

/// Freezes the leader when a write of its is at this point; answers who, when, and what was caught.
fn freeze_at<T>(trial: &mut Trial, point: Point, then: impl FnOnce(&mut Trial, usize, BootTime, Caught) -> T) -> T {
    let leader = trial.cluster.leader();
    let caught = trial.cluster.nodes[leader].wire.catch(point);
    let at = boot_now();
    trial.cluster.nodes[leader].freeze();
    then(trial, leader, at, caught)
}

fn frozen_before_sending(trial: &mut Trial) -> BootTime {
    freeze_at(trial, Point::Told, |trial, leader, at, _| {
        another_takes_over(trial, leader);
        trial.cluster.nodes[leader].wake();
        at
    })
}

/// The statement is on the way while the leader freezes, and arrives when another leads.
fn frozen_write_late(trial: &mut Trial) -> BootTime {
    freeze_at(trial, Point::Sent, |trial, leader, at, caught| {
        another_takes_over(trial, leader);
        refused(caught);
        trial.cluster.nodes[leader].wake();
        at
    })
}

/// The database has it and says so while the leader freezes, who hears of it when another leads.
fn frozen_before_answer(trial: &mut Trial) -> BootTime {
    freeze_at(trial, Point::Answered, |trial, leader, at, caught| {
        caught.deliver();
        another_takes_over(trial, leader);
        trial.cluster.nodes[leader].wake();
        at
    })
}

fn cut_before_write(trial: &mut Trial) -> BootTime {
    cut_at(trial, Point::Sent)
}

fn cut_after_commit(trial: &mut Trial) -> BootTime {
    cut_at(trial, Point::Answered)
}

fn cut_at(trial: &mut Trial, point: Point) -> BootTime {
    let leader = trial.cluster.leader();
    let caught = trial.cluster.nodes[leader].wire.catch(point);
    let at = boot_now();
    caught.cut();
    trial.granting();
    at
}

/// The leader lives, and one write of its comes to the database after another has taken over.
fn write_late(trial: &mut Trial) -> BootTime {
    let leader = trial.cluster.leader();
    let caught = trial.cluster.nodes[leader].wire.catch(Point::Sent);
    let at = boot_now();
    // Nothing else may come through either, or it only writes again.
    trial.cluster.nodes[leader].wire.silence_others();
    another_takes_over(trial, leader);
    refused(caught);
    trial.cluster.nodes[leader].wire.speak();
    at
}

/// What the database says of a write that comes too late: not that it was done.
fn refused(caught: Caught) {
    let told = caught.deliver_and_hear().expect("the database answers");
    assert!(told.starts_with("error") || told.starts_with("0, "), "a write after another took over: {told}");
}

fn cut_off_silent(trial: &mut Trial) -> BootTime {
    let leader = trial.cluster.leader();
    let at = boot_now();
    trial.cluster.nodes[leader].wire.silence();
    another_takes_over(trial, leader);
    trial.cluster.nodes[leader].wire.speak();
    at
}

fn cut_off_refused(trial: &mut Trial) -> BootTime {
    let leader = trial.cluster.leader();
    let at = boot_now();
    trial.cluster.nodes[leader].wire.refuse();
    another_takes_over(trial, leader);
    trial.cluster.nodes[leader].wire.speak();
    at
}

/// The same for its network: what it sent arrives late, and what it asked is answered late.
fn cut_off_about_a_term(trial: &mut Trial) -> BootTime {
    let leader = trial.cluster.leader();
    let at = boot_now();
    trial.cluster.nodes[leader].wire.silence();
    clock_reaches(at.plus(about_a_term(trial)));
    trial.cluster.nodes[leader].wire.speak();
    trial.granting();
    at
}

/// Every message takes a tenth of a second, for two terms: slow, and no reason to change the leader.
fn database_slow(trial: &mut Trial) -> BootTime {
    let at = boot_now();
    for node in &trial.cluster.nodes {
        node.wire.slow(100);
    }
    clock_reaches(at.plus(2 * TERM_MS));
    for node in &trial.cluster.nodes {
        node.wire.speak();
    }
    at
}

fn restarted_fast(trial: &mut Trial) -> BootTime {
    restarted(trial, "fast")
}

fn restarted_immediate(trial: &mut Trial) -> BootTime {
    restarted(trial, "immediate")
}

fn restarted(trial: &mut Trial, how: &str) -> BootTime {
    let at = boot_now();
    trial.cluster.database.stop(how);
    trial.cluster.database.start();
    trial.granting();
    at
}

fn database_gone(trial: &mut Trial) -> BootTime {
    let at = boot_now();
    trial.cluster.database.stop("fast");
    clock_reaches(at.plus(60_000));
    trial.cluster.database.start();
    at
}

fn killed_with_frozen_standby(trial: &mut Trial) -> BootTime {
    let (leader, standby) = (trial.cluster.leader(), trial.cluster.standby());
    trial.cluster.nodes[standby].freeze();
    let at = boot_now();
    trial.cluster.nodes[leader].kill9();
    trial.cluster.other_leader(leader);
    trial.granting();
    trial.cluster.nodes[standby].wake();
    trial.cluster.nodes[leader].start();
    at
}

fn all_killed(trial: &mut Trial) -> BootTime {
    let at = boot_now();
    trial.cluster.nodes.iter_mut().for_each(Node::kill9);
    trial.cluster.nodes.iter_mut().for_each(Node::start);
    at
}

fn frozen_and_restarted(trial: &mut Trial) -> BootTime {
    let leader = trial.cluster.leader();
    let at = boot_now();
    trial.cluster.nodes[leader].freeze();
    trial.cluster.database.stop("immediate");
    trial.cluster.database.start();
    another_takes_over(trial, leader);
    trial.cluster.nodes[leader].wake();
    at
}

/// Waits until another leads and grants, and a term more, in which the one before could do harm.
fn another_takes_over(trial: &mut Trial, before: usize) {
    trial.cluster.other_leader(before);
    trial.granting();
    clock_reaches(boot_now().plus(TERM_MS / 2));
}
