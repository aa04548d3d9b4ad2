//! The book under chance: leases granted and lost, agents late, brokers killed, stores that fail.
//!
//! After every step the book's promises are checked, and from wherever a run has come to a calm ending must
//! exist: every delivery worked on, every build over, nothing held.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::world::{Held, World, incoming, log_end, plan, pull, push};
use crate::builds::book::{BLOCKED_KEPT_MS, Book, Command, Finished, Found, Gone, Report};
use crate::builds::build::{Build, BuildId, Cause, Phase};
use crate::builds::change::Change;
use crate::builds::delivery::{Delivery, DeliveryId, Outcome, Received};
use crate::builds::happening::PullAction;
use crate::builds::matching::starts;
use crate::builds::plan::Concurrency;

/// One thing that happens; the numbers choose among what there is.
#[derive(Clone, Copy, Debug)]
enum Step {
    Deliver(u8, u8),
    Repeat(u8),
    Work(u8, u8),
    Open(u8),
    Grant(u8),
    Take(u8),
    Say(u8, u8),
    Late(u8),
    Lose(u8),
    Look(u8),
    Effects,
    Cancel(u8),
    Approve(u8),
    Retry(u8),
    Pass(u16),
    Untake(u8),
    Crash,
    LostCommit(u8),
}

fn step() -> impl Strategy<Value = Step> {
    use Step::*;
    prop_oneof![
        3 => (any::<u8>(), any::<u8>()).prop_map(|(a, b)| Deliver(a, b)),
        1 => any::<u8>().prop_map(Repeat),
        4 => (any::<u8>(), any::<u8>()).prop_map(|(a, b)| Work(a, b)),
        4 => any::<u8>().prop_map(Open),
        4 => any::<u8>().prop_map(Grant),
        4 => any::<u8>().prop_map(Take),
        4 => (any::<u8>(), any::<u8>()).prop_map(|(a, b)| Say(a, b)),
        1 => any::<u8>().prop_map(Late),
        2 => any::<u8>().prop_map(Lose),
        2 => any::<u8>().prop_map(Look),
        3 => Just(Effects),
        1 => any::<u8>().prop_map(Cancel),
        2 => any::<u8>().prop_map(Approve),
        1 => any::<u8>().prop_map(Retry),
        1 => any::<u16>().prop_map(Pass),
        1 => any::<u8>().prop_map(Untake),
        1 => Just(Crash),
        1 => any::<u8>().prop_map(LostCommit),
    ]
}

const ACTIONS: [PullAction; 6] = [
    PullAction::Opened,
    PullAction::Pushed,
    PullAction::Closed,
    PullAction::Reopened,
    PullAction::Drafted,
    PullAction::Ready,
];

struct Run {
    world: World,
    names: u64,
    /// Keys of attempts, in the order in which they were taken.
    keys: Vec<(BuildId, u32, Arc<str>)>,
}

impl Run {
    fn happen(&mut self, step: Step) {
        let world = &mut self.world;
        world.now_ms += 1;
        match step {
            Step::Deliver(a, b) => {
                self.names += 1;
                let what = if a % 3 == 0 {
                    push(if b % 2 == 0 { "main" } else { "next" }, b / 2 % 16)
                } else {
                    let number = u64::from(a % 2);
                    pull(number, b % 16, ACTIONS[usize::from(b / 16) % ACTIONS.len()], number == 1)
                };
                world.receive(incoming(&format!("name-{}", self.names), what));
            }
            Step::Repeat(a) => {
                let Some(known) = pick(world.stored.deliveries.values(), a).cloned() else { return };
                let came_of_it = |one: &&Delivery| {
                    let starts = one.said.as_ref().is_ok_and(|said| starts(&said.what));
                    let done = matches!(one.outcome, Outcome::Accepted | Outcome::Done { .. });
                    one.forge_id == known.forge_id
                        && (done || !starts && !matches!(one.outcome, Outcome::Failed { .. }))
                };
                let first = world.stored.deliveries.values().find(came_of_it).map(|one| one.id);
                let count = world.stored.deliveries.len();
                let said = known.said.clone().expect("all say something");
                let received = world.receive(incoming(&known.forge_id, said.what));
                if let Some(first) = first {
                    assert_eq!(received, Received::Duplicate(first), "something came of it");
                    assert_eq!(world.stored.deliveries.len(), count, "a repeat was accepted");
                }
            }
            Step::Work(a, b) => work(world, a, b),
            Step::Open(a) => {
                let may: Vec<BuildId> =
                    world.book.open().filter(|build| world.book.may_claim(build)).map(|build| build.id).collect();
                if let Some(id) = pick(may.iter(), a) {
                    world.open(*id);
                }
            }
            Step::Grant(a) => {
                if let Some(session) = pick(world.engine.keys(), a).copied() {
                    world.grant(session);
                }
            }
            Step::Take(a) => self.take(a),
            Step::Say(a, b) => {
                let taken = of_phases(world, &[Phase::Preparing, Phase::Running]);
                if let Some(build) = pick(taken.iter(), a) {
                    world.say(build.id, report(b)).expect("it is its own");
                }
            }
            Step::Late(a) => self.late(a),
            Step::Lose(a) => {
                if let Some(session) = pick(world.engine.keys(), a).copied() {
                    world.lose(session);
                }
            }
            Step::Look(a) => world.look(&gone(a)),
            Step::Effects => world.effects(),
            Step::Cancel(a) => {
                if let Some(build) = pick(world.book.open(), a).map(|build| build.id) {
                    world.decide(&Command::Cancel { build, reason: None, by: "ann".into() }).expect("it is open");
                }
            }
            Step::Approve(a) => {
                if let Some(build) = pick(of_phases(world, &[Phase::Blocked]).iter(), a).map(|build| build.id) {
                    // Refused where a newer commit is known.
                    let _ = world.decide(&Command::Approve { build, sha: None, by: "ann".into() });
                }
            }
            Step::Retry(a) => {
                if let Some(id) = pick(world.stored.builds.keys(), a).copied() {
                    let _ = world.retry(id);
                }
            }
            Step::Pass(ms) => {
                world.now_ms += i64::from(ms);
                world.decide(&Command::Tick).expect("time passes");
            }
            Step::Untake(a) => {
                if let Some((build, _, key_hash)) = pick(self.keys.iter(), a).cloned() {
                    let _ = world.decide(&Command::Untake { build, key_hash });
                }
            }
            Step::Crash => self.crash(),
            Step::LostCommit(a) => {
                // It is decided and applied, and never stored: whoever did that throws the book away.
                let Some(build) = pick(world.book.open(), a).map(|build| build.id) else { return };
                let cancel = Command::Cancel { build, reason: None, by: "ann".into() };
                let (changes, _) = world.book.decide(world.now_ms, &cancel).expect("it is open");
                changes.iter().for_each(|change: &Change| world.book.apply(change));
                self.crash();
            }
        }
    }

    fn take(&mut self, a: u8) {
        let granted: Vec<Arc<Build>> =
            of_phases(&self.world, &[Phase::Queued]).into_iter().filter(|build| build.lease.is_some()).collect();
        let Some(build) = pick(granted.iter(), a) else { return };
        let key_hash: Arc<str> = format!("key-{}-{}", build.id, self.keys.len()).into();
        let take = Command::Take { build: build.id, agent: "rack".into(), key_hash: key_hash.clone() };
        // Refused where it is to end.
        if self.world.decide(&take).is_ok() {
            self.keys.push((build.id, build.attempt, key_hash));
        }
    }

    /// An agent says something of an attempt that is over: it changes nothing.
    fn late(&mut self, a: u8) {
        let world = &mut self.world;
        let Some((build, attempt, key_hash)) = pick(self.keys.iter(), a).cloned() else { return };
        let current = world.book.build(build).is_some_and(|it| it.key_hash.as_ref() == Some(&key_hash));
        if current {
            return;
        }
        let before = world.stored.clone();
        let refused = world.decide(&Command::Report { build, attempt, key_hash, what: report(a) });
        assert!(refused.is_err(), "a late report was taken");
        assert_eq!(world.stored, before, "a late report changed something");
    }

    /// Another process takes over: what it knows is what was stored. Of builds that nobody took nobody knows
    /// the secrets any more, so their sessions are ended.
    fn crash(&mut self) {
        let world = &mut self.world;
        world.book = Book::new(world.stored.contents());
        let waiting: Vec<u64> = of_phases(world, &[Phase::Queued]).iter().filter_map(|build| build.session).collect();
        world.engine.retain(|session, held| !waiting.contains(session) && noted(&world.book, *session, held));
        world.look(&Gone::Lost("the broker was started anew".into()));
    }

    fn check(&self) {
        let World { book, stored, engine, .. } = &self.world;
        crate::builds::book::open::check(&book.open);
        for build in stored.builds.values() {
            let idle = build.phase.is_final() || build.phase == Phase::Blocked;
            if idle {
                assert_eq!(build.session, None, "{build:?}");
                let held = engine.values().find(|held| held.build == build.id);
                assert_eq!(held, None, "{} is {} and has a session", build.id, build.phase);
            }
            if build.subject.fork && (build.session.is_some() || build.key_hash.is_some()) {
                assert!(build.approved_by.is_some(), "a fork ran that nobody allowed: {build:?}");
            }
            if build.phase.is_final() {
                assert!(build.times.ended_ms.is_some(), "{build:?}");
            }
        }
        let again = Book::new(stored.contents());
        assert!(again.open().eq(book.open()), "what is stored is another book");
        assert!(again.waiting().eq(book.waiting()), "what is stored has other deliveries");
        self.check_lanes();
        self.check_deliveries();
    }

    /// Of builds that supersede one another only the newest is without an ending.
    fn check_lanes(&self) {
        let mut alive: BTreeMap<_, Vec<BuildId>> = BTreeMap::new();
        let supersedes = |build: &&Arc<Build>| build.plan.concurrency == Concurrency::Supersede;
        for build in self.world.book.open().filter(supersedes).filter(|build| build.ending.is_none()) {
            alive.entry((build.plan.name.clone(), build.subject.line.clone())).or_default().push(build.id);
        }
        for (lane, builds) in alive {
            assert!(builds.len() <= 1 || self.reported_late(&builds), "{lane:?} has {builds:?}");
        }
    }

    /// An agent that was stopped said so before anybody asked it to: its lease's end says why.
    fn reported_late(&self, builds: &[BuildId]) -> bool {
        let older = &builds[..builds.len() - 1];
        older.iter().all(|id| self.world.book.build(*id).is_some_and(|build| build.reported))
    }

    /// Each delivery made at most one build of a pipeline.
    fn check_deliveries(&self) {
        let mut made: BTreeMap<(DeliveryId, Arc<str>), u32> = BTreeMap::new();
        for build in self.world.stored.builds.values() {
            if let Cause::Delivery { delivery } = &build.cause {
                *made.entry((*delivery, build.plan.name.clone())).or_default() += 1;
            }
        }
        assert!(made.values().all(|count| *count == 1), "{made:?}");
    }

    /// From here on everything goes well: all deliveries are worked on, and all builds end.
    fn calm_down(&mut self) {
        let world = &mut self.world;
        for id in world.book.waiting().map(|delivery| delivery.id).collect::<Vec<_>>() {
            world.work(id, Found::Wanted(vec![plan("unit", Concurrency::Queue)]));
        }
        world.now_ms += BLOCKED_KEPT_MS + 1;
        world.decide(&Command::Tick).expect("time passes");
        for _ in 0..=2 * world.book.open().count() {
            world.look(&Gone::Lost("lost".into()));
            world.effects();
            let may: Vec<BuildId> =
                world.book.open().filter(|build| world.book.may_claim(build)).map(|build| build.id).collect();
            for id in may {
                world.open(id);
            }
            for session in world.engine.keys().copied().collect::<Vec<_>>() {
                world.grant(session);
            }
            for build in of_phases(world, &[Phase::Queued]) {
                if build.lease.is_some() && build.ending.is_none() {
                    let key_hash = format!("calm-{}", build.id).into();
                    world.decide(&Command::Take { build: build.id, agent: "rack".into(), key_hash }).expect("granted");
                }
            }
            for build in of_phases(world, &[Phase::Preparing, Phase::Running]) {
                world.finish(build.id, Finished::Passed);
            }
            world.effects();
        }
        let left: Vec<_> = world.book.open().collect();
        assert!(left.is_empty(), "no way to an end: {left:?}");
        assert!(world.engine.is_empty(), "{:?} is held by nobody", world.engine);
        assert!(world.stored.deliveries.values().all(|delivery| delivery.outcome != Outcome::Accepted));
        self.check();
    }
}

/// Whether a session is one that the book knows: others were opened, and the process died before that was
/// stored, so they hold nothing and are ended.
fn noted(book: &Book, session: u64, held: &Held) -> bool {
    book.build(held.build).is_some_and(|build| build.session == Some(session))
}

fn work(world: &mut World, a: u8, b: u8) {
    let Some(id) = pick(world.book.waiting(), a).map(|delivery| delivery.id) else { return };
    let plans =
        [plan("unit", Concurrency::Supersede), plan("deploy", Concurrency::Queue), plan("soak", Concurrency::Parallel)];
    let found = match b % 8 {
        0 => Found::Nothing("no pipeline wants it".into()),
        1 => Found::Failed("git was away".into()),
        bits => {
            let chosen = plans.into_iter().enumerate().filter(|(index, _)| bits >> index & 1 == 1);
            let chosen = chosen.map(|(_, mut plan)| {
                Arc::make_mut(&mut plan).retries = u32::from(b / 64);
                Arc::make_mut(&mut plan).wait_ms = (b & 16 == 0).then_some(5_000);
                plan
            });
            Found::Wanted(chosen.collect())
        }
    };
    world.work(id, found.clone());
    // The answer came twice: the second changes nothing.
    let before = world.stored.clone();
    world.work(id, found);
    assert_eq!(world.stored, before);
}

fn report(b: u8) -> Report {
    let result = match b % 6 {
        0 => return Report::Running,
        1 => Finished::Passed,
        2 => Finished::Failed,
        3 => Finished::TimedOut,
        4 => Finished::Lost,
        _ => Finished::Stopped,
    };
    Report::Finished { result, exit_code: None, message: None, log: log_end() }
}

fn gone(a: u8) -> Gone {
    match a % 4 {
        0 => Gone::HoldEnded,
        1 => Gone::Revoked("root".into(), "battery".into()),
        _ => Gone::Lost("its agent gave no sign of life".into()),
    }
}

fn pick<T>(mut from: impl Iterator<Item = T> + Clone, a: u8) -> Option<T> {
    let count = from.clone().count();
    from.nth(usize::from(a).checked_rem(count)?)
}

fn of_phases(world: &World, phases: &[Phase]) -> Vec<Arc<Build>> {
    world.book.open().filter(|build| phases.contains(&build.phase)).cloned().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_promises_hold_and_an_end_is_there(steps in prop::collection::vec(step(), 1..120)) {
        let mut run = Run { world: World::default(), names: 0, keys: Vec::new() };
        for step in steps {
            run.happen(step);
            run.check();
        }
        run.calm_down();
    }
}
