//! The book's promises: in tables, and in every order of things that chance comes up with.

mod mistakes;
mod random;
mod world;

use std::sync::Arc;

use super::{Answer, BLOCKED_KEPT_MS, Book, Command, Finished, Found, Gone, Report};
use crate::builds::build::{BuildId, Phase, Subject};
use crate::builds::delivery::{Outcome, Received};
use crate::builds::happening::{Forge, PullAction, What};
use crate::builds::plan::Concurrency;
use world::{World, incoming, plan, pull, push, sha};

#[test]
fn every_phase_goes_only_where_the_table_says() {
    let goes: Vec<(Phase, usize)> =
        Phase::ALL.iter().map(|from| (*from, Phase::ALL.iter().filter(|to| from.can_become(**to)).count())).collect();
    for (from, count) in goes {
        assert_eq!(from.is_final(), count == 0, "{from} has {count} ways on");
    }
    assert!(!Phase::Blocked.can_become(Phase::Preparing), "what nobody allowed never runs");
}

#[test]
fn a_build_goes_from_its_delivery_to_its_end() {
    let mut world = World::default();
    let id = world.delivered(push("main", 1), vec![plan("unit", Concurrency::Queue)])[0];
    assert_eq!(world.phase(id), Phase::Queued);
    world.run(id, Finished::Passed);
    let build = &world.stored.builds[&id];
    assert_eq!((build.phase, build.session, build.exit_code), (Phase::Passed, None, Some(0)));
    assert_eq!(build.picks, [world::phone()], "what it ran on is asked for later");
    assert!(build.times.begun_ms.is_some() && build.times.ended_ms.is_some());
    assert!(world.engine.is_empty(), "nothing is held any more");
    let words: Vec<&str> = world.stored.notes.iter().map(|note| note.what.as_ref()).collect();
    assert_eq!(
        words,
        [
            "made of delivery 1",
            "lease 1 granted, on agent rack, with phone/pixel-1",
            "taken",
            "its steps began",
            "over: all steps passed",
            "its lease is over"
        ]
    );
}

#[test]
fn a_repeat_is_known_by_its_name_and_by_what_it_says() {
    let mut world = World::default();
    let first = incoming("a", push("main", 1));
    assert_eq!(world.receive(first.clone()), Received::Accepted(world::delivery(1)));
    assert_eq!(world.receive(first.clone()), Received::Duplicate(world::delivery(1)));
    assert_eq!(world.receive(incoming("b", push("main", 1))), Received::Duplicate(world::delivery(1)));
    assert_eq!(world.receive(incoming("c", push("main", 2))), Received::Accepted(world::delivery(2)));
    // Back to a commit that was there before is something new.
    let back = What::Push { branch: "main".into(), before: Some(sha(2)), after: Some(sha(1)), title: None };
    assert_eq!(world.receive(incoming("d", back)), Received::Accepted(world::delivery(3)));
    let mut deliberate = first.clone();
    deliberate.repeats = Some(world::delivery(1));
    assert_eq!(world.receive(deliberate), Received::Accepted(world::delivery(4)));
    // A week later nobody repeats it by mistake.
    world.now_ms += super::RECENT_KEPT_MS + 1;
    assert_eq!(world.receive(incoming("e", push("other", 9))), Received::Accepted(world::delivery(5)));
    assert_eq!(world.receive(first), Received::Accepted(world::delivery(6)));
}

#[test]
fn the_repeat_of_one_that_failed_is_worked_on() {
    let mut world = World::default();
    world.receive(incoming("a", push("main", 1)));
    world.work(world::delivery(1), Found::Failed("git was away".into()));
    assert!(matches!(world.stored.deliveries[&world::delivery(1)].outcome, Outcome::Failed { .. }));
    // Also by a broker that knows it from the store alone.
    world.book = Book::new(world.stored.contents());
    assert_eq!(world.receive(incoming("a", push("main", 1))), Received::Accepted(world::delivery(2)));
}

#[test]
fn the_repeat_of_one_that_was_ignored_is_worked_on_and_its_commit_stays_known() {
    let mut world = World::default();
    let old = world.delivered(pull(7, 1, PullAction::Opened, true), vec![plan("unit", Concurrency::Parallel)])[0];
    let newer = incoming("newer", pull(7, 2, PullAction::Pushed, true));
    world.receive(newer.clone());
    assert_eq!(world.receive(newer.clone()), Received::Duplicate(world::delivery(2)), "it waits for its turn");
    world.work(world::delivery(2), Found::Unknown("no [[repository]] is acme/app".into()));
    let approve = Command::Approve { build: old, sha: Some(sha(1)), by: "ann".into() };
    for from_the_store in [false, true] {
        if from_the_store {
            world.book = Book::new(world.stored.contents());
        }
        assert_eq!(world.decide(&approve).expect_err("another commit is there").code, "not_newest");
        assert_eq!(world.book.clone().decide(0, &Command::Receive(newer.clone())).expect("taken").0.len(), 1);
    }
    // Under its old name, and as another forge names a redelivery: anew.
    let mut renamed = newer.clone();
    renamed.forge_id = "another".into();
    assert_eq!(world.receive(renamed), Received::Accepted(world::delivery(3)));
    world.work(world::delivery(3), Found::Nothing("not this branch".into()));
    assert_eq!(world.receive(newer.clone()), Received::Accepted(world::delivery(4)));
    world.work(world::delivery(4), Found::Wanted(vec![plan("unit", Concurrency::Parallel)]));
    assert_eq!(world.phase(BuildId(2)), Phase::Blocked);
    assert_eq!(world.receive(newer), Received::Duplicate(world::delivery(4)), "that one was done");
}

#[test]
fn what_ended_nothing_ends_nothing_later_when_it_is_repeated() {
    let mut world = World::default();
    let closed = incoming("closed", pull(7, 1, PullAction::Closed, false));
    world.receive(closed.clone());
    world.work(world::delivery(1), Found::Wanted(vec![]));
    assert!(matches!(world.stored.deliveries[&world::delivery(1)].outcome, Outcome::Ignored { .. }));
    let unit = vec![plan("unit", Concurrency::Supersede)];
    let id = world.delivered(pull(7, 1, PullAction::Reopened, false), unit)[0];
    assert_eq!(world.receive(closed), Received::Duplicate(world::delivery(1)));
    assert_eq!(world.phase(id), Phase::Queued);
}

#[test]
fn a_draft_whose_pipelines_cannot_be_read_ends_nothing() {
    let mut world = World::default();
    let id = world.delivered(pull(7, 1, PullAction::Opened, false), vec![plan("unit", Concurrency::Supersede)])[0];
    world.receive(incoming("draft", pull(7, 1, PullAction::Drafted, false)));
    world.work(world::delivery(2), Found::Failed("git was away".into()));
    assert_eq!(world.phase(id), Phase::Queued);
    world.receive(incoming("draft", pull(7, 1, PullAction::Drafted, false)));
    world.work(world::delivery(3), Found::Wanted(vec![]));
    assert_eq!(world.phase(id), Phase::Cancelled, "its pipeline builds no drafts");
}

#[test]
fn a_newer_commit_is_known_however_the_repository_is_spelled() {
    let mut world = World::default();
    let id = world.delivered(pull(7, 1, PullAction::Opened, true), vec![plan("unit", Concurrency::Parallel)])[0];
    let mut newer = incoming("newer", pull(7, 2, PullAction::Pushed, true));
    newer.said.as_mut().expect("it says something").repository = "ACME/App".into();
    world.receive(newer);
    let approve = Command::Approve { build: id, sha: Some(sha(1)), by: "ann".into() };
    assert_eq!(world.decide(&approve).expect_err("another commit is there").code, "not_newest");
}

#[test]
fn a_newer_commit_supersedes_and_frees_only_when_the_processes_are_gone() {
    let mut world = World::default();
    let old = world.delivered(pull(7, 1, PullAction::Opened, false), vec![plan("unit", Concurrency::Supersede)])[0];
    world.take(old);
    let new = world.delivered(pull(7, 2, PullAction::Pushed, false), vec![plan("unit", Concurrency::Supersede)])[0];
    let build = world.book.build(old).expect("it still runs").clone();
    assert_eq!(build.phase, Phase::Preparing);
    assert_eq!(
        build.ending.as_ref().map(|ending| (ending.to, ending.superseded_by)),
        Some((Phase::Superseded, Some(new)))
    );
    assert!(world.engine.values().any(|held| held.build == old && held.lease.is_some()));
    world.effects();
    assert_eq!(world.phase(old), Phase::Superseded);
    assert!(!world.engine.values().any(|held| held.build == old));
    world.run(new, Finished::Passed);
    assert_eq!(world.phase(new), Phase::Passed);
}

#[test]
fn pipelines_that_a_newer_commit_does_not_have_end_too_and_parallel_ones_go_on() {
    let mut world = World::default();
    let plans = vec![plan("unit", Concurrency::Supersede), plan("soak", Concurrency::Parallel)];
    let ids = world.delivered(pull(7, 1, PullAction::Opened, false), plans);
    world.delivered(pull(7, 2, PullAction::Pushed, false), Vec::new());
    assert_eq!((world.phase(ids[0]), world.phase(ids[1])), (Phase::Superseded, Phase::Queued));
    assert!(world.stored.builds[&ids[0]].ending.as_ref().is_some_and(|ending| ending.superseded_by.is_none()));
}

#[test]
fn closing_ends_and_drafting_leaves_what_builds_drafts() {
    let mut world = World::default();
    let plans = vec![plan("unit", Concurrency::Supersede), plan("lint", Concurrency::Supersede)];
    let ids = world.delivered(pull(7, 1, PullAction::Opened, false), plans);
    world.delivered(pull(7, 1, PullAction::Drafted, false), vec![plan("lint", Concurrency::Supersede)]);
    assert_eq!((world.phase(ids[0]), world.phase(ids[1])), (Phase::Cancelled, Phase::Queued));
    world.delivered(pull(7, 1, PullAction::Closed, false), Vec::new());
    assert_eq!(world.phase(ids[1]), Phase::Cancelled);
}

#[test]
fn builds_of_a_branch_come_one_after_the_other() {
    let mut world = World::default();
    let first = world.delivered(push("main", 1), vec![plan("deploy", Concurrency::Queue)])[0];
    let second = world.delivered(push("main", 2), vec![plan("deploy", Concurrency::Queue)])[0];
    let build = world.book.build(second).expect("it waits").clone();
    assert_eq!(world.book.waits_for(&build), Some(first));
    assert!(world.decide(&Command::Opened { build: second, session: 77 }).is_err(), "not before its turn");
    world.run(first, Finished::Failed);
    world.run(second, Finished::Passed);
    assert_eq!((world.phase(first), world.phase(second)), (Phase::Failed, Phase::Passed));
}

#[test]
fn a_fork_waits_until_its_very_commit_is_allowed() {
    let mut world = World::default();
    let plans = || vec![plan("unit", Concurrency::Supersede), plan("lint", Concurrency::Supersede)];
    let old = world.delivered(pull(7, 1, PullAction::Opened, true), plans());
    assert_eq!(world.phase(old[0]), Phase::Blocked);
    // Another commit came in, and is not worked on yet: what was looked at is not what is there.
    world.receive(incoming("second", pull(7, 2, PullAction::Pushed, true)));
    let approve = |build, sha| Command::Approve { build, sha, by: "ann".into() };
    assert_eq!(world.decide(&approve(old[0], Some(sha(1)))).expect_err("too late").code, "not_newest");
    world.work(world::delivery(2), Found::Wanted(plans()));
    assert_eq!((world.phase(old[0]), world.phase(BuildId(3))), (Phase::Superseded, Phase::Blocked));
    assert_eq!(world.decide(&approve(BuildId(3), Some(sha(1)))).expect_err("another commit").code, "not_newest");
    world.decide(&approve(BuildId(3), Some(sha(2)))).expect("this one");
    let phases: Vec<Phase> = [3, 4].map(|id| world.phase(BuildId(id))).into();
    assert_eq!(phases, [Phase::Queued; 2], "all pipelines of the commit");
    assert_eq!(world.book.build(BuildId(4)).and_then(|build| build.approved_by.as_deref()), Some("ann"));
}

#[test]
fn a_fork_that_nobody_allows_is_dropped() {
    let mut world = World::default();
    let id = world.delivered(pull(7, 1, PullAction::Opened, true), vec![plan("unit", Concurrency::Supersede)])[0];
    assert_eq!(world.book.due_ms(), Some(world.now_ms + BLOCKED_KEPT_MS));
    world.now_ms += BLOCKED_KEPT_MS;
    world.decide(&Command::Tick).expect("time passes");
    assert_eq!(world.phase(id), Phase::Cancelled);
}

#[test]
fn waiting_ends_when_the_pipeline_says() {
    let mut world = World::default();
    let mut timed = plan("unit", Concurrency::Queue);
    Arc::make_mut(&mut timed).wait_ms = Some(1_000);
    let id = world.delivered(push("main", 1), vec![timed])[0];
    world.open(id);
    world.now_ms += 1_000;
    world.decide(&Command::Tick).expect("time passes");
    assert_eq!(world.phase(id), Phase::Queued, "its session is still there");
    world.effects();
    assert_eq!(world.phase(id), Phase::TimedOut);
}

#[test]
fn a_lost_build_is_tried_again_as_often_as_its_pipeline_says() {
    let mut world = World::default();
    let mut patient = plan("unit", Concurrency::Queue);
    Arc::make_mut(&mut patient).retries = 1;
    let id = world.delivered(push("main", 1), vec![patient])[0];
    let session = world.take(id);
    let old = world.key(id);
    world.lose(session);
    world.look(&Gone::Lost("its agent gave no sign of life".into()));
    let build = world.book.build(id).expect("it is tried again").clone();
    assert_eq!((build.phase, build.attempt, build.lease, build.key_hash.as_ref()), (Phase::Queued, 2, None, None));
    assert_eq!(build.picks, []);
    let before = world.stored.clone();
    let late = Report::Finished { result: Finished::Passed, exit_code: Some(0), message: None, log: world::log_end() };
    let late = Command::Report { build: id, attempt: 1, key_hash: old, what: late };
    assert_eq!(world.decide(&late).expect_err("late").code, "attempt_over");
    assert_eq!(world.stored, before);
    let session = world.take(id);
    world.lose(session);
    world.look(&Gone::Lost("again".into()));
    assert_eq!(world.phase(id), Phase::Lost);
}

#[test]
fn how_a_lease_ended_says_how_a_build_did() {
    for (how, phase) in [
        (Gone::HoldEnded, Phase::TimedOut),
        (Gone::Revoked("root".into(), "battery".into()), Phase::Cancelled),
        (Gone::Lost("gone".into()), Phase::Lost),
    ] {
        let mut world = World::default();
        let id = world.delivered(push("main", 1), vec![plan("unit", Concurrency::Queue)])[0];
        let session = world.take(id);
        world.lose(session);
        world.look(&how);
        assert_eq!(world.phase(id), phase, "{how:?}");
    }
}

#[test]
fn a_grant_that_nobody_takes_is_claimed_again() {
    let mut world = World::default();
    let id = world.delivered(push("main", 1), vec![plan("unit", Concurrency::Queue)])[0];
    let session = world.open(id);
    world.grant(session);
    world.lose(session);
    world.look(&Gone::Lost("it was not taken".into()));
    let build = world.book.build(id).expect("it waits").clone();
    assert_eq!((build.phase, build.attempt, build.session, build.lease), (Phase::Queued, 1, None, None));
    assert_eq!(build.picks, []);
    assert!(world.book.may_claim(&build));
}

#[test]
fn taking_twice_is_taking_once_and_no_other_may() {
    let mut world = World::default();
    let id = world.delivered(push("main", 1), vec![plan("unit", Concurrency::Queue)])[0];
    world.take(id);
    let take = |key: &str| Command::Take { build: id, agent: "rack".into(), key_hash: key.into() };
    let own = world.key(id);
    let before = world.stored.clone();
    assert!(matches!(world.decide(&take(&own)), Ok(Answer::Build(_))));
    assert_eq!(world.decide(&take("other")).expect_err("taken").code, "attempt_over");
    assert_eq!(world.stored, before);
    world.decide(&Command::Untake { build: id, key_hash: own }).expect("the secret is lost");
    world.effects();
    let build = world.book.build(id).expect("it waits again").clone();
    assert_eq!((build.phase, build.attempt, build.session), (Phase::Queued, 2, None));
}

#[test]
fn an_end_that_was_asked_for_stands_whatever_the_agent_says_later() {
    let mut world = World::default();
    let id = world.delivered(push("main", 1), vec![plan("unit", Concurrency::Queue)])[0];
    world.take(id);
    let cancel = Command::Cancel { build: id, reason: Some("wrong branch".into()), by: "ann".into() };
    world.decide(&cancel).expect("it runs");
    world.decide(&cancel).expect("twice is once");
    world.finish(id, Finished::Passed);
    world.effects();
    let build = &world.stored.builds[&id];
    assert_eq!((build.phase, build.reason.as_deref()), (Phase::Cancelled, Some("by ann: wrong branch")));
}

#[test]
fn a_retry_is_a_new_build_unless_a_newer_one_counts() {
    let mut world = World::default();
    let unit = || vec![plan("unit", Concurrency::Supersede)];
    let first = world.delivered(pull(7, 1, PullAction::Opened, true), unit())[0];
    world.decide(&Command::Approve { build: first, sha: None, by: "ann".into() }).expect("allowed");
    assert_eq!(world.retry(first).expect_err("it is not over").code, "build_not_over");
    world.run(first, Finished::Failed);
    let again = world.retry(first).expect("it is over");
    assert_eq!(world.phase(again), Phase::Queued, "its commit was allowed");
    assert_eq!(world.retry(first).expect_err("that one counts").code, "not_newest");
}

#[test]
fn each_forge_keeps_a_pull_requests_head_where_it_does() {
    let happening = incoming("a", pull(7, 1, PullAction::Opened, true)).said.expect("it says something");
    for (forge, git_ref) in [
        (Forge::Github, "refs/pull/7/head"),
        (Forge::Gitea, "refs/pull/7/head"),
        (Forge::Gitlab, "refs/merge-requests/7/head"),
    ] {
        assert_eq!(Subject::of(forge, &happening).expect("it has a commit").git_ref.as_ref(), git_ref);
    }
}
