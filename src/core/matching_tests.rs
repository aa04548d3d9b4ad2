//! Tests of matching: every function against brute force on small random problems, and the order
//! of preference and the budget by example.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{Choice, Demand, Picks, Problem, Steps, Supply, TooComplex, choose, grant, most, possible};
use crate::core::limits::MATCHING_STEPS_MAX;

/// Free, eventually, per pick.
const fn slots(slots_free: u32, slots_eventually: u32, per_pick: u32) -> Supply {
    Supply { slots_free, slots_eventually, per_pick, same: None, distinct: None }
}

const FREE: Supply = slots(1, 1, 1);
const BUSY: Supply = slots(0, 1, 1);
const OUT: Supply = slots(0, 0, 1);

fn labelled(supply: Supply, same: u32, distinct: u32) -> Supply {
    Supply { same: Some(same), distinct: Some(distinct), ..supply }
}

fn demand(count: u32, candidates: &[u32]) -> Demand {
    Demand { count, candidates: candidates.to_vec() }
}

fn problem(supplies: &[Supply], demands: &[Demand]) -> Problem {
    Problem { supplies: supplies.to_vec(), demands: demands.to_vec(), same: false, distinct: false }
}

fn steps() -> Steps {
    Steps::new(MATCHING_STEPS_MAX)
}

fn granted(problem: &Problem) -> Option<Picks> {
    grant(problem, &mut steps()).unwrap()
}

fn chosen(problem: &Problem) -> Option<Choice> {
    choose(problem, &mut steps()).unwrap()
}

#[test]
fn the_preferred_are_granted_first() {
    let three = [FREE; 3];
    assert_eq!(granted(&problem(&three, &[demand(2, &[2, 0, 1])])), Some(vec![vec![2, 0]]));
    assert_eq!(granted(&problem(&[FREE, BUSY, FREE], &[demand(2, &[1, 2, 0])])), Some(vec![vec![2, 0]]));
    let both = problem(&three, &[demand(1, &[1, 2]), demand(1, &[1, 0])]);
    assert_eq!(granted(&both), Some(vec![vec![1], vec![0]]), "the first need has the first word");
}

#[test]
fn a_need_makes_room_for_another() {
    let tight = problem(&[FREE; 3], &[demand(1, &[0, 1]), demand(1, &[0, 2]), demand(1, &[0])]);
    assert_eq!(granted(&tight), Some(vec![vec![1], vec![2], vec![0]]));
    let chain = problem(&[FREE; 3], &[demand(1, &[0, 1]), demand(1, &[1, 2]), demand(1, &[0])]);
    assert_eq!(granted(&chain), Some(vec![vec![1], vec![2], vec![0]]));
    let short = problem(&[FREE; 2], &[demand(1, &[0, 1]), demand(1, &[0, 1]), demand(1, &[0])]);
    assert_eq!(granted(&short), None);
    assert_eq!(most(&short, &mut steps()).unwrap().iter().map(Vec::len).sum::<usize>(), 2);
}

#[test]
fn needs_share_slots_and_one_need_does_not() {
    let seats = [slots(5, 5, 2)];
    assert_eq!(granted(&problem(&seats, &[demand(1, &[0]), demand(1, &[0])])), Some(vec![vec![0], vec![0]]));
    assert_eq!(granted(&problem(&seats, &[demand(1, &[0]), demand(1, &[0]), demand(1, &[0])])), None);
    assert_eq!(granted(&problem(&seats, &[demand(2, &[0])])), None);
    assert_eq!(granted(&problem(&[slots(4, 5, 5)], &[demand(1, &[0])])), None, "all of it is not free");
}

#[test]
fn same_takes_the_value_whose_first_candidate_comes_first() {
    let supplies = [labelled(FREE, 0, 0), labelled(FREE, 1, 0), labelled(FREE, 1, 1), labelled(FREE, 0, 1)];
    let same = Problem { same: true, ..problem(&supplies, &[demand(1, &[2, 3, 0]), demand(1, &[0, 3, 1])]) };
    assert_eq!(granted(&same), Some(vec![vec![2], vec![1]]));
    let unlabelled = Problem { same: true, ..problem(&[FREE], &[demand(1, &[0])]) };
    assert_eq!(granted(&unlabelled), None, "a resource without the label is no pick");
}

#[test]
fn distinct_moves_needs_between_values() {
    let supplies = [labelled(FREE, 0, 0), labelled(FREE, 0, 0), labelled(FREE, 0, 1)];
    let distinct = Problem { distinct: true, ..problem(&supplies, &[demand(1, &[0, 2]), demand(1, &[1])]) };
    assert_eq!(granted(&distinct), Some(vec![vec![2], vec![1]]));
    let too_many = Problem { distinct: true, ..problem(&supplies, &[demand(3, &[0, 1, 2])]) };
    assert_eq!(granted(&too_many), None);
    assert_eq!(most(&too_many, &mut steps()), Ok(vec![vec![0, 2]]));
}

#[test]
fn possible_counts_what_may_come_back() {
    let busy = problem(&[BUSY, OUT], &[demand(1, &[1, 0])]);
    assert_eq!(granted(&busy), None);
    assert_eq!(possible(&busy, &mut steps()), Ok(true));
    assert_eq!(possible(&problem(&[BUSY, OUT], &[demand(2, &[1, 0])]), &mut steps()), Ok(false));
    assert_eq!(possible(&Problem::default(), &mut steps()), Ok(true), "nothing asked is nothing lacking");
}

#[test]
fn the_choice_lacks_least_and_ties_go_by_order() {
    let value = |same, free| labelled(slots(free, 1, 1), same, same);
    let supplies = [value(0, 0), value(0, 0), value(1, 0), value(1, 1), value(2, 1), value(2, 0)];
    let same = Problem { same: true, ..problem(&supplies, &[demand(2, &[5, 4, 3, 2, 1, 0])]) };
    let choice = chosen(&same).unwrap();
    assert_eq!((choice.value, choice.slots_lacking), (Some(1), 1));
    assert_eq!(choice.picks, vec![vec![3, 2]]);

    let distinct = Problem { distinct: true, ..problem(&supplies, &[demand(2, &[5, 4, 3, 2, 1, 0])]) };
    let choice = chosen(&distinct).unwrap();
    assert_eq!((choice.value, choice.values.as_slice(), choice.slots_lacking), (None, &[1, 2][..], 0));

    let seats = [slots(0, 4, 3), slots(2, 4, 3), slots(1, 4, 3), slots(2, 4, 3), slots(2, 2, 3)];
    let choice = chosen(&problem(&seats, &[demand(2, &[4, 3, 2, 1, 0])])).unwrap();
    assert_eq!((choice.picks, choice.slots_lacking), (vec![vec![1, 3]], 2));
    assert_eq!(chosen(&problem(&seats, &[demand(5, &[0, 1, 2, 3, 4])])), None);
}

#[test]
fn the_choice_shares_where_that_lacks_less() {
    let seats = [slots(2, 2, 1), slots(0, 2, 1)];
    let both = problem(&seats, &[demand(1, &[1, 0]), demand(1, &[1, 0])]);
    let choice = chosen(&both).unwrap();
    assert_eq!((choice.picks, choice.slots_lacking), (vec![vec![0], vec![0]], 0));
    let three = problem(&seats, &[demand(1, &[0, 1]), demand(1, &[0, 1]), demand(1, &[0])]);
    assert_eq!(chosen(&three).unwrap().slots_lacking, 1);
}

#[test]
fn out_of_steps_is_said_and_never_guessed() {
    let small = problem(&[FREE; 9], &[demand(2, &[0, 1, 2]), demand(2, &[0, 1, 2, 3])]);
    assert_eq!(grant(&small, &mut Steps::new(2)), Err(TooComplex));
    assert_eq!(most(&small, &mut Steps::new(2)), Err(TooComplex));
    assert_eq!(possible(&small, &mut Steps::new(2)), Err(TooComplex));
    assert_eq!(choose(&small, &mut Steps::new(2)), Err(TooComplex));
    let mut left = Steps::new(100);
    grant(&small, &mut left).unwrap();
    assert!(left.left() < 100, "looking costs steps");
}

/// Sixteen needs that all want the same resources, which the last can have only by moving the others.
fn crowded(resources: u32, count: u32) -> Problem {
    let all: Vec<u32> = (0..resources).collect();
    let demands = (0..16).map(|need| {
        let start = all.len() - (all.len() * need as usize / 16);
        Demand { count, candidates: all[..start.max(count as usize)].to_vec() }
    });
    Problem { supplies: vec![FREE; resources as usize], demands: demands.collect(), same: false, distinct: false }
}

#[test]
fn the_largest_claims_stay_within_the_budget() {
    let crowd = crowded(256, 16);
    assert!(granted(&crowd).is_some());
    let mut busy = crowd.clone();
    busy.supplies.iter_mut().step_by(2).for_each(|supply| *supply = BUSY);
    assert_eq!(granted(&busy), None);
    assert_eq!(most(&busy, &mut steps()).unwrap().iter().map(Vec::len).sum::<usize>(), 128);
    assert_eq!(possible(&busy, &mut steps()), Ok(true));
    for room in [1, 2, 16] {
        let shared = Problem { supplies: vec![slots(1, 2 * room, 2); 256], ..crowded(256, 16) };
        assert_eq!(chosen(&shared).map(|choice| choice.slots_lacking), Some(256), "{room}");
    }
}

#[test]
fn a_large_pool_costs_little() {
    let supplies: Vec<Supply> = (0..100_000).map(|index| labelled(BUSY, index % 1_000, index / 10)).collect();
    let all: Vec<u32> = (0..100_000).collect();
    for (same, distinct) in [(false, false), (true, false), (false, true), (true, true)] {
        let large = Problem { same, distinct, ..problem(&supplies, &[demand(8, &all), demand(8, &all)]) };
        let mut left = steps();
        assert_eq!(grant(&large, &mut left), Ok(None));
        assert_eq!(possible(&large, &mut left), Ok(true));
        assert!(
            choose(&large, &mut left).unwrap().is_some_and(|choice| choice.slots_lacking == 16),
            "{same} {distinct}"
        );
    }
}

/// Every way to fill the demands, also in part, by trying all.
struct Brute<'a> {
    problem: &'a Problem,
    slots: fn(&Supply) -> u32,
    picks: Picks,
    visit: &'a mut dyn FnMut(&Picks),
}

impl Brute<'_> {
    fn go(&mut self, demand: usize, candidate: usize) {
        let Some(asked) = self.problem.demands.get(demand) else { return (self.visit)(&self.picks) };
        let Some(resource) = asked.candidates.get(candidate) else { return self.go(demand + 1, 0) };
        self.go(demand, candidate + 1);
        if self.picks[demand].len() < asked.count as usize {
            self.picks[demand].push(*resource);
            if fits(self.problem, &self.picks, self.slots) {
                self.go(demand, candidate + 1);
            }
            self.picks[demand].pop();
        }
    }
}

fn every_way(problem: &Problem, slots: fn(&Supply) -> u32, visit: &mut dyn FnMut(&Picks)) {
    Brute { problem, slots, picks: vec![Vec::new(); problem.demands.len()], visit }.go(0, 0);
}

fn fits(problem: &Problem, picks: &Picks, slots: fn(&Supply) -> u32) -> bool {
    let supply = |resource: &u32| &problem.supplies[*resource as usize];
    let all: Vec<u32> = picks.iter().flatten().copied().collect();
    let asked =
        |resource: &u32| all.iter().filter(|other| *other == resource).map(|_| supply(resource).per_pick).sum::<u32>();
    let same: BTreeSet<Option<u32>> = all.iter().map(|resource| supply(resource).same).collect();
    let distinct: BTreeSet<u32> = all.iter().filter_map(|resource| supply(resource).distinct).collect();
    all.iter().all(|resource| asked(resource) <= slots(supply(resource)))
        && (!problem.same || (same.len() <= 1 && !same.contains(&None)))
        && (!problem.distinct || distinct.len() == all.len())
}

fn is_whole(problem: &Problem, picks: &Picks) -> bool {
    problem.demands.iter().zip(picks).all(|(demand, picks)| picks.len() == demand.count as usize)
}

fn is_allowed(problem: &Problem, picks: &Picks, slots: fn(&Supply) -> u32) -> bool {
    let of = |(demand, picks): (&Demand, &Vec<u32>)| {
        let different: BTreeSet<&u32> = picks.iter().collect();
        picks.len() <= demand.count as usize
            && different.len() == picks.len()
            && picks.iter().all(|resource| demand.candidates.contains(resource))
    };
    picks.len() == problem.demands.len() && problem.demands.iter().zip(picks).all(of) && fits(problem, picks, slots)
}

/// What `choose` goes by: slots lacking, the value of `same`, then the sum of the order.
fn merit(problem: &Problem, picks: &Picks) -> (u64, Option<u32>, u64) {
    let all: Vec<u32> = picks.iter().flatten().copied().collect();
    let supply = |resource: u32| problem.supplies[resource as usize];
    let lacking = (0..).zip(&problem.supplies).map(|(resource, supply)| {
        let asked = all.iter().filter(|pick| **pick == resource).map(|_| supply.per_pick).sum::<u32>();
        u64::from(asked.saturating_sub(supply.slots_free))
    });
    let order = |resource: &u32| match supply(*resource).distinct {
        Some(value) if problem.distinct => u64::from(value),
        _ => u64::from(*resource),
    };
    let value = all.first().and_then(|resource| supply(*resource).same).filter(|_| problem.same);
    (lacking.sum(), value, all.iter().map(order).sum())
}

fn free(supply: &Supply) -> u32 {
    supply.slots_free
}

fn eventually(supply: &Supply) -> u32 {
    supply.slots_eventually
}

prop_compose! {
    fn any_supply()(
        slots_free in 0..5_u32, slots_eventually in 0..5_u32, per_pick in 1..4_u32,
        same in prop::option::weighted(0.9, 0..2_u32), distinct in prop::option::weighted(0.9, 0..4_u32),
    ) -> Supply {
        Supply { slots_free: slots_free.min(slots_eventually), slots_eventually, per_pick, same, distinct }
    }
}

prop_compose! {
    fn any_problem()(supplies in prop::collection::vec(any_supply(), 1..6))(
        demands in prop::collection::vec((1..4_u32, prop::sample::subsequence(
            (0..u32::try_from(supplies.len()).unwrap()).collect::<Vec<_>>(), 0..=supplies.len(),
        ).prop_shuffle()), 1..4),
        supplies in Just(supplies), same in prop::bool::weighted(0.4), distinct in prop::bool::weighted(0.4),
    ) -> Problem {
        let demands = demands.into_iter().map(|(count, candidates)| Demand { count, candidates }).collect();
        Problem { supplies, demands, same, distinct }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn a_whole_claim_is_granted_exactly_when_it_can_be(problem in any_problem()) {
        let (mut can_be, mut largest) = (false, 0);
        every_way(&problem, free, &mut |picks| {
            can_be |= is_whole(&problem, picks);
            largest = largest.max(picks.iter().map(Vec::len).sum::<usize>());
        });
        let granted = granted(&problem);
        prop_assert_eq!(granted.is_some(), can_be);
        if let Some(picks) = granted {
            prop_assert!(is_whole(&problem, &picks) && is_allowed(&problem, &picks, free), "{:?}", picks);
        }
        let part = most(&problem, &mut steps()).unwrap();
        prop_assert!(is_allowed(&problem, &part, free), "{:?}", part);
        prop_assert_eq!(part.iter().map(Vec::len).sum::<usize>(), largest);
    }

    #[test]
    fn the_choice_is_the_best_there_is(problem in any_problem()) {
        let mut best: Option<(u64, Option<u32>, u64)> = None;
        every_way(&problem, eventually, &mut |picks| {
            if is_whole(&problem, picks) {
                let merit = merit(&problem, picks);
                best = Some(best.map_or(merit, |best| best.min(merit)));
            }
        });
        prop_assert_eq!(possible(&problem, &mut steps()), Ok(best.is_some()));
        let choice = chosen(&problem);
        prop_assert_eq!(choice.as_ref().map(|choice| merit(&problem, &choice.picks)), best);
        if let Some(choice) = choice {
            prop_assert!(is_whole(&problem, &choice.picks) && is_allowed(&problem, &choice.picks, eventually));
            let (slots_lacking, value, _) = merit(&problem, &choice.picks);
            prop_assert_eq!((choice.slots_lacking, choice.value), (slots_lacking, value));
            let picks = choice.picks.iter().map(Vec::len).sum::<usize>();
            prop_assert_eq!(choice.values.len(), if problem.distinct { picks } else { 0 });
        }
    }
}
