//! What forges are told of pipelines that cannot be read, and when that is taken back.

use super::world::{World, delivery, incoming, plan, pull, push, sha};
use crate::builds::book::{Book, Command, Found, MISTAKES_MAX};
use crate::builds::change::Change;
use crate::builds::delivery::{Outcome, Received};
use crate::builds::happening::{PullAction, What};
use crate::builds::plan::Concurrency;
use crate::builds::status::{Answer, Status, StatusKey, StatusState, Whose};

const WRONG: &str = ".leasehold.toml:3:8: no such pool";

/// Has something that happened worked on; answers the delivery's number.
fn comes_to(world: &mut World, name: &str, what: What, found: Found) -> u64 {
    let Received::Accepted(id) = world.receive(incoming(name, what)) else { panic!("{name} is no repeat") };
    world.work(id, found);
    id.0
}

fn wrong() -> Found {
    Found::Mistaken(WRONG.into())
}

fn readable() -> Found {
    Found::Wanted(vec![plan("unit", Concurrency::Supersede)])
}

fn row(world: &World, number: u8) -> Option<Status> {
    let key = StatusKey::of_pipelines(&"acme/app".into(), &sha(number));
    world.stored.statuses.get(&key).cloned()
}

fn state(world: &World, number: u8) -> Option<StatusState> {
    row(world, number).map(|row| row.state)
}

/// The forge takes what is to be told.
fn told(world: &mut World) {
    for row in world.book.statuses_due(world.now_ms, 100) {
        let key = row.key.clone();
        world.decide(&Command::Status { key, version: row.version, answer: Answer::Taken }).expect("it is answered");
    }
}

#[test]
fn a_mistake_is_told_and_taken_back_when_the_same_commit_can_be_read() {
    let mut world = World::default();
    comes_to(&mut world, "a", push("main", 1), wrong());
    let first = row(&world, 1).expect("told of");
    assert_eq!((first.state, &*first.description, &*first.key.context), (StatusState::Error, WRONG, "leasehold"));
    assert_eq!(first.whose, Whose::Delivery(delivery(1)));
    assert!(matches!(world.stored.deliveries[&delivery(1)].outcome, Outcome::Failed { .. }));
    told(&mut world);
    // Another commit says nothing of this one.
    comes_to(&mut world, "b", push("main", 2), readable());
    assert_eq!((state(&world, 1), state(&world, 2)), (Some(StatusState::Error), None));
    // Also by a broker that knows it from the store alone.
    world.book = Book::new(world.stored.contents());
    let again = comes_to(&mut world, "a", push("main", 1), readable());
    let row = row(&world, 1).expect("told of");
    assert_eq!((row.state, row.whose, row.told), (StatusState::Success, Whose::Delivery(delivery(again)), false));
    told(&mut world);
    assert_eq!((world.book.statuses_untold(), world.book.knows_of_mistake(&row.key)), (0, false));
}

#[test]
fn what_was_not_read_takes_nothing_back() {
    let mut world = World::default();
    comes_to(&mut world, "a", pull(7, 1, PullAction::Opened, false), wrong());
    told(&mut world);
    comes_to(&mut world, "b", pull(7, 1, PullAction::Retargeted, false), Found::Failed("git was away".into()));
    comes_to(&mut world, "c", pull(7, 1, PullAction::Closed, false), Found::Wanted(vec![]));
    comes_to(&mut world, "d", pull(7, 1, PullAction::Reopened, false), Found::Unknown("no such repository".into()));
    assert_eq!(state(&world, 1), Some(StatusState::Error));
    // It was read, and asks for nothing.
    comes_to(&mut world, "e", pull(7, 1, PullAction::Ready, false), Found::Nothing("not this base".into()));
    assert_eq!(state(&world, 1), Some(StatusState::Success));
}

#[test]
fn git_that_was_away_and_commits_that_can_be_read_are_not_told_of() {
    let mut world = World::default();
    comes_to(&mut world, "a", push("main", 1), Found::Failed("git was away".into()));
    comes_to(&mut world, "b", push("main", 2), readable());
    comes_to(&mut world, "c", push("main", 3), Found::Nothing("not this branch".into()));
    assert_eq!((state(&world, 1), state(&world, 2), state(&world, 3)), (None, None, None));
}

#[test]
fn a_mistake_that_comes_back_is_told_again() {
    let mut world = World::default();
    for (name, found, is) in [
        ("a", wrong(), StatusState::Error),
        ("b", readable(), StatusState::Success),
        ("c", wrong(), StatusState::Error),
        ("d", wrong(), StatusState::Error),
    ] {
        let mut again = incoming(name, push("main", 1));
        again.repeats = Some(delivery(1));
        let Received::Accepted(id) = world.receive(again) else { panic!("on purpose") };
        world.work(id, found);
        let row = row(&world, 1).expect("told of");
        assert_eq!((row.state, row.version, row.told), (is, id.0, false), "{name}");
        told(&mut world);
    }
}

#[test]
fn very_many_mistakes_are_told_and_the_oldest_forgotten() {
    let mut book = Book::default();
    let last = MISTAKES_MAX as u64 + 3;
    let row = |number: u64| {
        let commit = crate::builds::happening::Sha::parse(&format!("{number:040x}")).expect("a commit");
        let key = StatusKey::of_pipelines(&"acme/app".into(), &commit);
        Status::of_mistake(key, delivery(number), WRONG, 0)
    };
    for number in 1..=last {
        book.apply(&Change::Status(row(number).into()));
    }
    assert_eq!(book.statuses_untold() as u64, last, "what is not told is never dropped");
    for number in 1..=last {
        let told = row(number).answered(number, &Answer::Taken).expect("it is untold");
        book.apply(&Change::Status(told.into()));
    }
    assert_eq!(book.statuses_untold(), 0);
    let known = (1..=last).filter(|number| book.knows_of_mistake(&row(*number).key));
    assert_eq!(known.collect::<Vec<_>>(), (4..=last).collect::<Vec<_>>());
}
