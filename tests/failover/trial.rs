//! One fault under load, and what came of it: when granting went on, who was stopped, whether books
//! and witness agree.

use std::collections::BTreeSet;

use leasehold::clock::{BootTime, boot_now};

use super::books::Books;
use super::cluster::Cluster;
use super::common::random::Random;
use super::common::wait::eventually;
use super::faults::Fault;
use super::load::{Finished, KINDS, Load, PROBES};
use super::report::Round;
use super::witness::Witness;

/// Grants that the probes must see again before a round is over, and between two rounds.
const GRANTS_AFTER: usize = 10;
/// Exit code of a run that was stopped for its lease.
const STOPPED: i32 = 120;

/// Brokers, load and witness.
pub struct Trial {
    /// The brokers and their database.
    pub cluster: Cluster,
    /// The runners.
    pub load: Load,
    /// For what is not to be the same in every round.
    pub random: Random,
    witness: Witness,
    books: Books,
}

impl Trial {
    /// Starts everything, and waits until everybody has had something.
    pub fn start(cluster: Cluster, seed: u64) -> Self {
        let urls: Vec<String> = (0..cluster.nodes.len()).map(|first| cluster.urls(first)).collect();
        let witness = Witness::new();
        let load = Load::start(&urls, &witness, seed);
        let (random, books) = (Random::new(seed, u64::MAX), Books::default());
        let trial = Self { cluster, load, random, witness, books };
        let mut kinds = BTreeSet::new();
        eventually("every kind of runner has had its turn", || {
            kinds.extend(trial.load.take_finished().iter().map(|run| run.kind));
            // Those that take long need not have ended.
            (kinds.len() >= KINDS.len() - 1 && trial.load.grants() > GRANTS_AFTER).then_some(())
        });
        trial
    }

    /// Waits until the probes have seen so many more grants.
    #[track_caller]
    pub fn granting(&self) {
        let before = self.load.grants();
        eventually("granting goes on", || (self.load.grants() >= before + GRANTS_AFTER).then_some(()));
    }

    /// Lets the fault strike, waits until all is well again, and looks at what it did.
    pub fn round(&mut self, fault: &Fault, number: u32) -> Round {
        self.cluster.whole();
        self.granting();
        let before = boot_now();
        let struck = (fault.strike)(self);
        self.cluster.whole();
        self.load.everyone();
        self.calm();
        let seen = self.witness.read();
        let probed = self.load.take_grants();
        let mut grants: Vec<BootTime> = seen.begun.iter().map(|(_, at)| *at).collect();
        grants.extend(probed.iter().map(|(_, at)| *at));
        let mut round = Round { fault: fault.name.to_owned(), number, ..Round::default() };
        (round.outage_ms, round.granting_ms) = outage(grants, before, struck);
        round.everyone_ms = everyone(&probed, struck, round.granting_ms);
        round.violations = seen.violations;
        round.violations.extend(self.load.take_complaints());
        self.books.check(&self.cluster, &seen.begun, &mut round);
        note_runs(self.load.take_finished(), fault, &mut round);
        eprintln!("{}", round.line());
        round
    }

    /// Waits until every session that is left has a socket. A run that ended while no broker could be
    /// told leaves its session behind, which every takeover gives another full ttl: struck again and
    /// again before that is over, everything would soon be held by nobody.
    #[track_caller]
    fn calm(&self) {
        eventually("what was left behind comes back", || {
            let sessions = self.cluster.ask("/v1/sessions");
            let all = sessions["items"].as_array()?;
            all.iter().all(|session| session["connected"] == true).then_some(())
        });
    }

    /// Lets everybody finish, and looks once more at what they did.
    pub fn finish(mut self) -> (Round, Cluster) {
        let mut round = Round { fault: "the end".to_owned(), ..Round::default() };
        let finished = self.load.finish();
        let seen = self.witness.read();
        round.violations = seen.violations;
        self.books.check(&self.cluster, &seen.begun, &mut round);
        // A run that reaches no broker leaves its lease to the ttl.
        eventually("everything comes back", || {
            let held = self.cluster.ask("/v1/leases");
            held["items"].as_array().is_some_and(Vec::is_empty).then_some(())
        });
        note_runs(finished, &super::faults::NONE, &mut round);
        (round, self.cluster)
    }
}

/// The longest stretch without a grant that ended after the fault, and from the fault to its end;
/// milliseconds.
fn outage(mut grants: Vec<BootTime>, begun: BootTime, struck: BootTime) -> (u64, u64) {
    grants.push(begun);
    grants.sort_unstable();
    let pairs = grants.windows(2).filter(|pair| pair[1] > struck);
    let longest = pairs.max_by_key(|pair| pair[1].since(pair[0]));
    longest.map_or((0, 0), |pair| (pair[1].since(pair[0]), pair[1].since(struck)))
}

/// From the fault to when every probe, whatever broker it was with, had a grant again; milliseconds.
fn everyone(probed: &[(usize, BootTime)], struck: BootTime, granting_ms: u64) -> u64 {
    let again = |probe| {
        let of = probed.iter().filter(|(whose, at)| *whose == probe && *at >= struck.plus(granting_ms));
        of.map(|(_, at)| at.since(struck)).min()
    };
    (0..PROBES).filter_map(again).max().unwrap_or(0)
}

/// Sorts what became of runs: well, stopped as the fault allows, stopped and never should have been,
/// and anything else.
fn note_runs(finished: Vec<Finished>, fault: &Fault, round: &mut Round) {
    for run in finished {
        round.runs += 1;
        let kind = KINDS.iter().find(|kind| kind.name == run.kind).expect("a run has a kind");
        match run.code {
            0 => {}
            STOPPED if !kind.has_default_ttl() => round.stopped_brief += 1,
            STOPPED if fault.outlasts_ttl => round.stopped += 1,
            STOPPED => {
                round.stopped += 1;
                round.lost += 1;
                round.notes.push(format!("a run ({}) lost its lease: {}", run.kind, run.said));
            }
            code => round.violations.push(format!("a run ({}) ended with {code}: {}", run.kind, run.said)),
        }
    }
}

#[test]
fn an_outage_is_the_longest_stretch_that_ends_after_the_fault() {
    let at = |moments: &[u64]| moments.iter().map(|ms| BootTime(*ms)).collect::<Vec<_>>();
    // Grants at 100 and 150 come after a fault at 90 from what was under way.
    assert_eq!(outage(at(&[3_000, 10, 100, 150, 2_900, 80]), BootTime(0), BootTime(90)), (2_750, 2_810));
    assert_eq!(outage(at(&[10, 5_000]), BootTime(4_900), BootTime(6_000)), (0, 0));
}
