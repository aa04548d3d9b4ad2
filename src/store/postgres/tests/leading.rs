//! Leading and being deposed: two writers, answers that were lost, writes that come late.

use tokio::task::JoinHandle;

use super::*;
use crate::clock::{BootTime, boot_now};

/// Holds a table that every batch with a pool needs, so that a commit waits after it was sent.
struct Obstacle(PgConnection);

impl Obstacle {
    async fn put_up(database: &Database) -> Self {
        let mut other = database.other().await;
        other.execute("SET default_transaction_read_only = off").await.unwrap();
        other.execute("BEGIN").await.unwrap();
        other.execute("LOCK TABLE pool IN ACCESS EXCLUSIVE MODE").await.unwrap();
        Self(other)
    }

    /// Waits until somebody waits for it; answers which connection of the server's that is.
    async fn waited_for(&mut self) -> i32 {
        const ASK: &str = "SELECT pid FROM pg_locks WHERE NOT granted AND relation = 'pool'::regclass";
        loop {
            let found: Option<i32> = sqlx::query_scalar(ASK).fetch_optional(&mut self.0).await.unwrap();
            if let Some(pid) = found {
                return pid;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn take_away(mut self) {
        self.0.execute("ROLLBACK").await.unwrap();
    }
}

/// The store commits its next batch, elsewhere.
fn committing(mut store: Postgres) -> JoinHandle<(Postgres, Result<()>)> {
    let batch = next(&store);
    tokio::spawn(async move {
        let committed = store.commit(&batch).await;
        (store, committed)
    })
}

fn deposed_by<T: std::fmt::Debug>(result: Result<T>) -> Option<String> {
    match result {
        Err(StoreError::Deposed { by }) => by,
        other => panic!("expected to be deposed, got {other:?}"),
    }
}

/// A second store of the same lead: its writes are what was sent on a connection before.
async fn ghost(database: &Database, store: &Postgres) -> Postgres {
    let target = Target::parse(&database.url).unwrap();
    let writer = target.connect(Who::Leader, store.limits).await.unwrap();
    Postgres::led(target, TERM_MS, writer, store.lead.clone(), store.last).await.unwrap()
}

#[tokio::test]
async fn whoever_takes_over_while_a_write_is_under_way_is_not_disturbed_by_it() {
    let Some(database) = Database::new() else { return };
    let mut first = database.open().await.unwrap();
    commit_next(&mut first).await;
    let mut obstacle = Obstacle::put_up(&database).await;
    let under_way = committing(first);
    obstacle.waited_for().await;
    let mut second = database.open().await.unwrap();
    obstacle.take_away().await;
    let (mut first, committed) = under_way.await.unwrap();
    assert_eq!(deposed_by(committed), Some(url_of(1)));
    assert_holds(&mut second, 1).await;
    commit_next(&mut second).await;
    // Nothing that the first tries has any effect, or finds that it leads.
    failure(first.beat().await);
    assert_eq!(deposed_by(first.reopen().await), Some(url_of(1)));
    assert_eq!(deposed_by(first.load().await), Some(url_of(1)));
    assert_eq!(deposed_by(first.reader().confirm().await), Some(url_of(1)));
    assert_holds(&mut second, 2).await;
}

#[tokio::test]
async fn every_kind_of_write_finds_that_another_leads() {
    let Some(database) = Database::new() else { return };
    for kind in 0..4 {
        let mut first = database.open().await.unwrap();
        commit_next(&mut first).await;
        let held = first.last.batch;
        let mut second = database.open().await.unwrap();
        let refused = match kind {
            0 => first.commit(&next(&first)).await,
            1 => first.beat().await,
            2 => first.prune(LabTime(u64::MAX)).await.map(drop),
            _ => first.give_up().await,
        };
        assert_eq!(deposed_by(refused), second_url(&second), "{kind}");
        assert_holds(&mut second, held).await;
    }
}

fn second_url(store: &Postgres) -> Option<String> {
    store.lead.instance.rsplit('-').next().and_then(|number| number.parse().ok()).map(url_of)
}

#[tokio::test]
async fn a_late_duplicate_of_a_write_fails() {
    let Some(database) = Database::new() else { return };
    let mut store = database.open().await.unwrap();
    commit_next(&mut store).await;
    let (mut twice, mut late) = (ghost(&database, &store).await, ghost(&database, &store).await);
    commit_next(&mut store).await;
    let refused = twice.commit(&next(&twice)).await;
    assert!(matches!(refused, Err(StoreError::OutOfOrder { last: 2, offered: 2 })), "{refused:?}");
    assert_holds(&mut store, 2).await;
    // After opening again not even the batch that would be next is taken from an older connection.
    assert_eq!(store.reopen().await.unwrap(), 2);
    late.last = store.last;
    let (_, why) = failure(late.commit(&next(&late)).await);
    assert!(why.contains("came late"), "{why}");
    assert_holds(&mut store, 2).await;
    commit_next(&mut store).await;
    assert_holds(&mut store, 3).await;
}

#[tokio::test]
async fn opening_again_settles_what_was_done_and_not_heard_of() {
    let Some(database) = Database::new() else { return };
    let mut store = database.open().await.unwrap();
    commit_next(&mut store).await;
    // The batch is there, and the answer was lost.
    let mut unheard = ghost(&database, &store).await;
    commit_next(&mut unheard).await;
    // So was the answer of an opening, twice.
    for _ in 0..2 {
        let mut lead = store.lead.clone();
        lead.renew(unheard.writer.as_mut().unwrap(), store.limits).await.unwrap();
    }
    let (_, why) = failure(store.beat().await);
    assert!(why.contains("the epoch is 3, not 1"), "{why}");
    assert_eq!(store.reopen().await.unwrap(), 2);
    assert_holds(&mut store, 2).await;
    commit_next(&mut store).await;
    assert_holds(&mut store, 3).await;
}

#[tokio::test]
async fn a_later_lead_of_the_same_process_is_another_s_to_the_earlier() {
    let Some(database) = Database::new() else { return };
    let mut shared = database.shared(TERM_MS).await.unwrap();
    let mut leads = Vec::new();
    for _ in 0..2 {
        let seen = shared.observe().await.unwrap();
        leads.push(taken(shared.take(seen.epoch, seen.beat).await.unwrap()));
    }
    let (mut later, mut earlier) = (leads.pop().unwrap(), leads.pop().unwrap());
    assert_eq!(deposed_by(earlier.reopen().await), Some(url_of(0)));
    commit_next(&mut later).await;
    assert_holds(&mut later, 1).await;
}

#[tokio::test]
async fn a_connection_that_is_killed_in_a_commit_is_settled_by_opening_again() {
    let Some(database) = Database::new() else { return };
    let store = database.open().await.unwrap();
    let mut obstacle = Obstacle::put_up(&database).await;
    let under_way = committing(store);
    let pid = obstacle.waited_for().await;
    database.sql(&format!("SELECT pg_terminate_backend({pid})"));
    let (mut store, committed) = under_way.await.unwrap();
    assert_eq!(failure(committed).0, "commit a batch to the store");
    obstacle.take_away().await;
    let batch = next(&store);
    let (_, why) = failure(store.commit(&batch).await);
    assert!(why.contains("was not opened again since"), "{why}");
    assert_eq!(store.reopen().await.unwrap(), 0);
    store.commit(&batch).await.unwrap();
    assert_holds(&mut store, 1).await;
}

#[tokio::test]
async fn a_commit_that_nobody_waited_for_is_settled_by_opening_again() {
    let Some(database) = Database::new() else { return };
    let mut store = database.open().await.unwrap();
    let mut obstacle = Obstacle::put_up(&database).await;
    let batch = next(&store);
    tokio::select! {
        biased;
        committed = store.commit(&batch) => panic!("it cannot go on: {committed:?}"),
        _ = obstacle.waited_for() => {}
    }
    failure(store.commit(&batch).await);
    // It goes on after its connection is gone, so opening again waits for its end.
    obstacle.take_away().await;
    let last = store.reopen().await.unwrap();
    assert_holds(&mut store, last).await;
    commit_next(&mut store).await;
    assert_holds(&mut store, last + 1).await;
}

#[tokio::test]
async fn a_serialization_failure_is_a_failure_like_any() {
    let Some(database) = Database::new() else { return };
    let mut store = database.open().await.unwrap();
    commit_next(&mut store).await;
    database.sql(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'try again' USING ERRCODE = 'serialization_failure'; END $$;
        CREATE TRIGGER fail BEFORE INSERT ON journal EXECUTE FUNCTION fail()",
    );
    let batch = next(&store);
    let (doing, why) = failure(store.commit(&batch).await);
    assert!(doing == "commit a batch to the store" && why.contains("try again"), "{doing}: {why}");
    failure(store.commit(&batch).await);
    database.sql("DROP TRIGGER fail ON journal");
    assert_eq!(store.reopen().await.unwrap(), 1, "nothing of it was written");
    store.commit(&batch).await.unwrap();
    assert_holds(&mut store, 2).await;
}

#[tokio::test]
async fn a_lead_that_is_given_up_is_free_at_once() {
    let Some(database) = Database::new() else { return };
    let mut store = database.open().await.unwrap();
    commit_next(&mut store).await;
    let mut standby = database.shared(TERM_MS).await.unwrap();
    let mut watch = standby.watch();
    let led = standby.observe().await.unwrap();
    assert_eq!((led.batch, led.leader.as_deref(), led.url), (1, Some("process-0"), Some(url_of(0))));
    assert!(matches!(watch.saw(boot_now(), boot_now(), &standby.observe().await.unwrap()), Step::Wait { .. }));
    store.reader().confirm().await.unwrap();
    store.give_up().await.unwrap();
    failure(store.commit(&next(&store)).await);
    assert_eq!(deposed_by(store.reader().confirm().await), None);
    let seen = standby.observe().await.unwrap();
    let Step::TakeOver { epoch, beat } = watch.saw(BootTime(0), BootTime(0), &seen) else { panic!("{seen:?}") };
    // Of two that see it one is faster.
    let mut third = database.shared(TERM_MS).await.unwrap();
    let mut next_one = taken(standby.take(epoch, beat).await.unwrap());
    assert!(matches!(third.take(epoch, beat).await.unwrap(), Taken::Passed));
    assert_eq!(deposed_by(store.reopen().await), Some(url_of(1)));
    commit_next(&mut next_one).await;
    assert_holds(&mut next_one, 2).await;
}

#[tokio::test]
async fn every_write_is_a_beat() {
    let Some(database) = Database::new() else { return };
    let mut store = database.open().await.unwrap();
    let mut standby = database.shared(TERM_MS).await.unwrap();
    let mut beats = vec![standby.observe().await.unwrap().beat];
    for kind in 0..4 {
        match kind {
            0 => commit_next(&mut store).await,
            1 => store.beat().await.unwrap(),
            2 => drop(store.prune(LabTime(0)).await.unwrap()),
            _ => drop(store.reopen().await.unwrap()),
        }
        beats.push(standby.observe().await.unwrap().beat);
    }
    assert!(beats.is_sorted_by(|before, after| before < after), "{beats:?}");
}

#[tokio::test]
async fn a_leader_beats_while_it_reads_a_large_lab() {
    let Some(database) = Database::new() else { return };
    let mut store = database.lead(4_000).await.unwrap();
    commit_next(&mut store).await;
    let mut standby = database.shared(4_000).await.unwrap();
    let before = standby.observe().await.unwrap().beat;
    let obstacle = Obstacle::put_up(&database).await;
    let loading = tokio::spawn(async move { store.load().await });
    while standby.observe().await.unwrap().beat < before + 2 {
        assert!(!loading.is_finished(), "it cannot read the pools");
    }
    obstacle.take_away().await;
    assert_eq!(loading.await.unwrap().unwrap().pools.len(), 1);
}

#[tokio::test]
async fn a_look_at_who_leads_survives_the_loss_of_its_connection() {
    let Some(database) = Database::new() else { return };
    let mut store = database.open().await.unwrap();
    let reader = store.reader();
    reader.confirm().await.unwrap();
    let cut = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE datname = '{}' AND application_name = 'leasehold reader'",
        database.name()
    );
    assert_eq!(database.sql(&cut), "1");
    reader.confirm().await.unwrap();
    store.reopen().await.unwrap();
    reader.confirm().await.unwrap();
}

#[tokio::test]
async fn a_question_that_takes_long_does_not_cost_the_lead_when_the_store_is_opened_again() {
    let Some(database) = Database::new() else { return };
    let term_ms = 4_000;
    let mut store = database.lead(term_ms).await.unwrap();
    commit_next(&mut store).await;
    let mut other = database.other().await;
    other.execute("SET default_transaction_read_only = off").await.unwrap();
    other.execute("BEGIN").await.unwrap();
    other.execute("LOCK TABLE lease IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let reader = store.reader();
    let asking = tokio::spawn(async move { reader.lease(LeaseId(1)).await });
    const ASK: &str = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'lease'::regclass";
    while sqlx::query_scalar::<_, i64>(ASK).fetch_one(&mut other).await.unwrap() == 0 {}
    let began = boot_now();
    assert_eq!(store.reopen().await.unwrap(), 1);
    let took = boot_now().since(began);
    assert!(took < term_ms, "whoever stands by leads by now: it took {took} ms");
    other.execute("ROLLBACK").await.unwrap();
    assert!(asking.await.unwrap().unwrap().is_none(), "it is answered all the same");
}

#[tokio::test]
async fn a_leader_that_stands_still_in_a_transaction_does_not_keep_the_row() {
    let Some(database) = Database::new() else { return };
    let mut store = database.lead(4_000).await.unwrap();
    commit_next(&mut store).await;
    let writer = store.writer.as_mut().unwrap();
    writer.execute("BEGIN").await.unwrap();
    store.lead.beat(writer, store.limits).await.unwrap();
    let mut standby = database.shared(4_000).await.unwrap();
    let seen = standby.observe().await.unwrap();
    // It may have to wait for the row more than once.
    let mut second = loop {
        match standby.take(seen.epoch, seen.beat).await {
            Ok(led) => break taken(led),
            Err(error) => assert!(error.to_string().contains("timeout"), "{error}"),
        }
    };
    assert_eq!(failure(store.beat().await).0, "beat");
    commit_next(&mut second).await;
    assert_holds(&mut second, 2).await;
}

#[tokio::test]
async fn a_leader_that_the_database_cannot_time_out_is_cleared_away() {
    let Some(database) = Database::new() else { return };
    let mut store = database.lead(4_000).await.unwrap();
    let writer = store.writer.as_mut().unwrap();
    // As when it stands still with a write half sent, in which no time limit of the database runs.
    writer.execute("SET idle_in_transaction_session_timeout = 0; BEGIN; UPDATE lab SET beat = beat").await.unwrap();
    let mut standby = database.shared(4_000).await.unwrap();
    let seen = standby.observe().await.unwrap();
    let mut second = loop {
        match standby.take(seen.epoch, seen.beat).await {
            Ok(led) => break taken(led),
            Err(StoreError::Failed { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    };
    second.beat().await.unwrap();
}

#[tokio::test]
async fn brokers_that_stand_by_are_seen() {
    let Some(database) = Database::new() else { return };
    let mut leader = database.shared(TERM_MS).await.unwrap();
    assert_eq!(leader.standbys().await.unwrap(), []);
    let seen = leader.observe().await.unwrap();
    let _store = taken(leader.take(seen.epoch, seen.beat).await.unwrap());
    let mut standby = database.shared(TERM_MS).await.unwrap();
    let found =
        |brokers: Vec<Broker>| brokers.into_iter().map(|broker| (broker.instance, broker.url)).collect::<Vec<_>>();
    assert_eq!(found(leader.standbys().await.unwrap()), [("process-1".to_owned(), url_of(1))]);
    assert_eq!(found(standby.standbys().await.unwrap()), [], "neither itself nor the leader");
    database.sql("UPDATE broker SET noted = noted - 86400000 WHERE instance = 'process-1'");
    assert_eq!(found(leader.standbys().await.unwrap()), [], "it has not noted itself lately");
    let mut third = database.shared(TERM_MS).await.unwrap();
    assert_eq!(found(leader.standbys().await.unwrap()), [("process-2".to_owned(), url_of(2))]);
    third.leave().await;
    standby.leave().await;
    assert_eq!(found(leader.standbys().await.unwrap()), []);
    assert_eq!(database.sql("SELECT string_agg(instance, ',') FROM broker"), "process-0");
}
