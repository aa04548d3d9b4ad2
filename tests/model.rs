//! Which worlds of the lease protocol's model are checked.
//!
//! Small ones of each kind with every rule kept, in which nothing may be found; and for each rule
//! one in which it is broken, in which the checker must find out. The first is the proof, the
//! second that it could have failed. `docs/model.md` says what is modelled and how to read what
//! is found.
//!
//! `LEASEHOLD_MODEL=wide` checks larger worlds too: minutes, and some gigabytes of memory.

use leasehold_model::check;
use leasehold_model::properties::{
    ALWAYS, COMES_BACK, COVERED, ENDS_SLOWLY, EXCLUSIVE, FENCE_GROWS, GRANTED_TWICE, LONGER, PASSED_ON, SURVIVES,
};
use leasehold_model::rules::{Broken, Size};
use leasehold_model::world::Budget;

/// States of one world, beyond which something is wrong with the model.
const STATES_MAX: usize = 60_000_000;

const NO_FAULTS: Budget = Budget {
    crashes: 0,
    stops: 0,
    store_failures: 0,
    revokes: 0,
    drops: 0,
    pauses: 0,
    freezes: 0,
    deaths: 0,
    repeats: 0,
    takeovers: 0,
};

/// One client and a rival, clocks that differ, and nothing goes wrong.
const DRIFTING: Size = Size {
    clients: 1,
    rival: true,
    claims: 1,
    ttl: 3,
    margin: 1,
    long: 6,
    long_margin: 2,
    drift: Some(3),
    up: 1,
    loses: false,
    budget: NO_FAULTS,
    prompt: false,
    alike: true,
    fences_only: false,
    broken: None,
};

/// The same in fewer ticks, with clocks that agree.
const EVEN: Size = Size { ttl: 2, long: 4, long_margin: 1, drift: None, ..DRIFTING };

/// Nothing is found in it but what is to be possible, and all of it was seen.
fn holds(name: &str, size: Size, possible: &[&str]) {
    let outcome = check(size, STATES_MAX);
    let seconds = outcome.took.as_secs_f64();
    println!("{name}: {} states, {} steps deep, {seconds:.1} s", outcome.states, outcome.depth);
    for property in ALWAYS {
        if let Some(path) = outcome.found(property) {
            panic!("{name}: broken: {property}\n{path}");
        }
    }
    assert!(outcome.whole, "{name}: more than {STATES_MAX} states");
    for property in possible {
        assert!(outcome.found(property).is_some(), "{name}: never: {property}");
    }
}

/// The checker finds a way to break one of the properties.
fn fails(rule: Broken, size: Size, properties: &[&str]) {
    let outcome = check(Size { broken: Some(rule), ..size }, STATES_MAX);
    let seconds = outcome.took.as_secs_f64();
    let found = properties.iter().find_map(|property| Some((property, outcome.found(property)?)));
    let (property, path) = found.unwrap_or_else(|| {
        panic!("{rule:?} goes unnoticed in {} states, {seconds:.1} s; whole: {}", outcome.states, outcome.whole)
    });
    let steps = path.lines().take_while(|line| line.starts_with(' ')).count();
    println!("{rule:?}: \"{property}\" broken in {steps} steps; {} states, {seconds:.1} s", outcome.states);
}

fn with(size: Size, change: impl FnOnce(&mut Budget)) -> Size {
    let mut budget = size.budget;
    change(&mut budget);
    Size { budget, ..size }
}

#[test]
fn silence_and_clocks_that_differ() {
    holds("drifting", DRIFTING, &[GRANTED_TWICE, PASSED_ON]);
    let pauses = with(DRIFTING, |budget| budget.pauses = 1);
    holds("drifting, a pause", pauses, &[GRANTED_TWICE]);
}

#[test]
fn sockets_that_drop_and_sessions_that_resume() {
    holds("drops", with(DRIFTING, |budget| budget.drops = 1), &[GRANTED_TWICE]);
    holds("two drops", with(EVEN, |budget| budget.drops = 2), &[GRANTED_TWICE]);
}

#[test]
fn packets_lost_late_and_repeated() {
    let worse = Size { loses: true, up: 2, ..EVEN };
    holds("worse than TCP", with(worse, |budget| budget.repeats = 1), &[GRANTED_TWICE]);
}

#[test]
fn a_client_that_claims_again() {
    holds("claims twice", with(Size { claims: 2, ..EVEN }, |budget| budget.repeats = 1), &[GRANTED_TWICE]);
}

#[test]
fn crashes_between_any_two_steps() {
    let crashes = with(EVEN, |budget| (budget.crashes, budget.drops) = (1, 1));
    holds("a crash and a drop", crashes, &[SURVIVES]);
    holds("two crashes", with(EVEN, |budget| budget.crashes = 2), &[SURVIVES]);
    holds("a store that fails", with(EVEN, |budget| (budget.crashes, budget.store_failures) = (1, 1)), &[SURVIVES]);
}

#[test]
fn a_leader_that_stands_still_while_another_takes_over() {
    holds("a takeover", with(EVEN, |budget| budget.takeovers = 1), &[SURVIVES]);
    holds("a takeover and a drop", with(EVEN, |budget| (budget.takeovers, budget.drops) = (1, 1)), &[SURVIVES]);
    holds("a takeover and an ending", with(EVEN, |budget| (budget.takeovers, budget.revokes) = (1, 1)), &[SURVIVES]);
}

#[test]
fn endings_under_a_live_holder() {
    holds("an ending", with(DRIFTING, |budget| budget.revokes = 1), &[ENDS_SLOWLY]);
    holds("an ending and a crash", with(EVEN, |budget| (budget.revokes, budget.crashes) = (1, 1)), &[SURVIVES]);
}

#[test]
fn planned_stops() {
    holds("a stop", with(EVEN, |budget| budget.stops = 1), &[LONGER]);
    // Without the rival: what is used and not on the books anybody could be given.
    let alone = Size { rival: false, ..EVEN };
    let ending = with(alone, |budget| (budget.stops, budget.revokes) = (1, 1));
    holds("a stop and an ending", ending, &[LONGER, ENDS_SLOWLY]);
    holds(
        "a stop while the store fails",
        with(alone, |budget| (budget.stops, budget.store_failures) = (1, 1)),
        &[LONGER],
    );
}

#[test]
fn two_whole_clients() {
    holds("two clients", Size { clients: 2, rival: false, ..EVEN }, &[GRANTED_TWICE, PASSED_ON]);
}

#[test]
fn a_prompt_broker_lets_nothing_stay_lost() {
    let prompt = Size { prompt: true, ..EVEN };
    let faults = |budget: &mut Budget| (budget.deaths, budget.store_failures, budget.revokes) = (1, 1, 1);
    holds("prompt", with(prompt, faults), &[PASSED_ON]);
}

#[test]
fn a_machine_that_stands_still_is_what_fences_are_for() {
    let frozen = with(DRIFTING, |budget| budget.freezes = 1);
    let outcome = check(frozen, STATES_MAX);
    assert!(
        [COVERED, EXCLUSIVE].iter().any(|property| outcome.found(property).is_some()),
        "no lease can be exclusive then"
    );
    holds("frozen", Size { fences_only: true, ..frozen }, &[GRANTED_TWICE]);
}

#[test]
fn every_broken_rule_is_noticed() {
    const USE: &[&str] = &[EXCLUSIVE, COVERED];
    let stop = with(EVEN, |budget| budget.stops = 1);
    let drifting_stop = with(DRIFTING, |budget| budget.stops = 1);
    let stop_and_ending = with(Size { rival: false, ..EVEN }, |budget| (budget.stops, budget.revokes) = (1, 1));
    let failing_stop = with(stop, |budget| budget.store_failures = 1);
    let drop = with(EVEN, |budget| budget.drops = 1);
    let crash = with(EVEN, |budget| budget.crashes = 1);
    let longer = Size { drift: None, ..DRIFTING };
    let ending = with(longer, |budget| budget.revokes = 1);
    let takeover = with(longer, |budget| budget.takeovers = 1);
    let store = with(Size { prompt: true, ..EVEN }, |budget| budget.store_failures = 1);
    for (rule, size, properties) in [
        (Broken::CountsFromReceipt, EVEN, USE),
        (Broken::NoMargin, DRIFTING, USE),
        (Broken::MarginOfTtl, drifting_stop, USE),
        (Broken::OlderLongerCounts, failing_stop, USE),
        (Broken::EndingExtends, ending, USE),
        (Broken::NamesNewest, stop_and_ending, USE),
        (Broken::ReclaimsAtDrop, drop, USE),
        (Broken::NoFullTtl, crash, USE),
        (Broken::ForgetsPromise, stop, USE),
        (Broken::PromiseEndsUnnamed, stop, USE),
        (Broken::PromisesFirst, stop, USE),
        (Broken::SkipsEnding, ending, USE),
        (Broken::EndingFromDecision, ending, USE),
        (Broken::LateClose, drop, USE),
        (Broken::AnswersExpiring, drop, USE),
        (Broken::AnswersUnlooked, takeover, USE),
        (Broken::GrantsFirst, crash, USE),
        (Broken::FenceReset, crash, &[FENCE_GROWS]),
        (Broken::StaysExpiring, store, &[COMES_BACK]),
    ] {
        fails(rule, size, properties);
    }
}

#[test]
fn wider_worlds_where_asked_for() {
    if std::env::var("LEASEHOLD_MODEL").as_deref() != Ok("wide") {
        println!("skipped: LEASEHOLD_MODEL=wide checks larger worlds, for minutes");
        return;
    }
    holds("wide: a stop under drift", with(DRIFTING, |budget| budget.stops = 1), &[LONGER]);
    holds("wide: a crash under drift", with(DRIFTING, |budget| budget.crashes = 1), &[SURVIVES]);
    holds("wide: a stop and an ending", with(EVEN, |budget| (budget.stops, budget.revokes) = (1, 1)), &[LONGER]);
    let two = Size { clients: 2, rival: false, ttl: 3, ..EVEN };
    holds("wide: two clients, longer ttl", two, &[GRANTED_TWICE]);
}
