//! The contract on PostgreSQL, and what only brokers that share a database can do to each other.
//!
//! Where there is no PostgreSQL the tests say so and pass; `scripts/test` sees to it that there is.

use std::time::Duration;

use super::*;
use crate::builds::build::Phase;
use crate::core::tables::{Batch, TableChanges};
use crate::core::types::LabTime;
use crate::store::builds::contract::{
    Factory, OLD_STATUS, an_old_status_is_as_good_as_a_new_one, build, changed, contract,
};
use crate::store::builds::{BuildStore as _, BuildsAt, Opened};
use crate::store::postgres::{Postgres as Leases, Shared, Taken};
use crate::store::{Store as _, StoreError};
use crate::testing::postgres::{self as server, Server};

const TERM_MS: u64 = 60_000;

/// A database of its own.
pub(super) struct Database {
    server: &'static Server,
    url: String,
}

impl Database {
    pub(super) fn new() -> Option<Self> {
        let server = server::shared()?;
        Some(Self { server, url: server.database() })
    }

    fn sql(&self, statements: &str) -> String {
        self.server.sql(self.url.rsplit('/').next().unwrap(), statements).unwrap()
    }

    /// One more process, which takes the lead whoever has it.
    async fn lead(&self, instance: &str) -> Result<(Leases, Opened)> {
        let mut shared = Shared::connect(&self.url, instance, &format!("ws://{instance}:1"), TERM_MS).await?;
        let seen = shared.observe().await?;
        let Taken::Lead(leases) = shared.take(seen.epoch, seen.beat).await? else { panic!("another was faster") };
        let opened = leases.builds().open().await?;
        Ok((*leases, opened))
    }

    /// Returns once somebody waits for a row that another has locked.
    async fn somebody_waits(&self) {
        while self.sql("SELECT count(*) FROM pg_locks WHERE NOT granted") == "0" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Factory for Database {
    async fn open(&self) -> Result<Opened> {
        Ok(self.lead("process-1").await?.1)
    }
}

contract! { Database::new() }

fn number(store: &PostgresBuilds) -> i64 {
    store.taken.load(Ordering::Relaxed)
}

#[tokio::test]
async fn an_older_leader_writes_nothing_once_another_has_taken_over() {
    let Some(database) = Database::new() else { return };
    let (_, old) = database.lead("old").await.unwrap();
    assert!(matches!(old.builds.commit(&[]).await, Err(StoreError::Failed { .. })), "not taken over yet");
    old.builds.take_over(0).await.unwrap();
    old.builds.commit(&[changed(&build(1, Phase::Queued))]).await.unwrap();
    let (_, new) = database.lead("new").await.unwrap();
    old.builds.commit(&[changed(&build(2, Phase::Queued))]).await.expect("nobody has taken the builds over yet");
    let loaded = new.builds.take_over(0).await.unwrap();
    assert_eq!(loaded.open, [build(1, Phase::Queued), build(2, Phase::Queued)]);
    for refused in [old.builds.commit(&[changed(&build(3, Phase::Queued))]).await, old.builds.forget(&[], 0).await] {
        assert!(matches!(refused, Err(StoreError::Deposed { by: Some(by) }) if by == "ws://new:1"));
    }
    let refused = old.builds.take_over(0).await;
    assert!(matches!(refused, Err(StoreError::Deposed { .. })), "it leads no more");
    new.builds.commit(&[changed(&build(3, Phase::Running))]).await.expect("the attempt changed nothing");
    assert_eq!(new.builds.take_over(0).await.unwrap().open.len(), 3);
}

#[tokio::test]
async fn taking_over_waits_for_a_write_under_way_and_sees_it() {
    let Some(database) = Database::new() else { return };
    let (leases, _) = database.lead("old").await.unwrap();
    let BuildsAt::Database(led) = leases.builds() else { panic!("a database has builds in it") };
    let old = PostgresBuilds::new(*led);
    old.take_over(0).await.unwrap();
    let mut writing = old.begin("write").await.unwrap();
    writing.execute(sqlx::query("UPDATE builds_last SET build = 41")).await.unwrap();
    let (_, new) = database.lead("new").await.unwrap();
    let taking = tokio::spawn(async move { new.builds.take_over(0).await.unwrap().last_build });
    database.somebody_waits().await;
    assert!(!taking.is_finished());
    writing.commit().await.unwrap();
    assert_eq!(taking.await.unwrap(), BuildId(41));
}

#[tokio::test]
async fn a_lease_waits_for_no_build() {
    let Some(database) = Database::new() else { return };
    let (mut leases, opened) = database.lead("only").await.unwrap();
    opened.builds.take_over(0).await.unwrap();
    let BuildsAt::Database(led) = leases.builds() else { panic!("a database has builds in it") };
    let store = PostgresBuilds::new(*led);
    store.take_over(0).await.unwrap();
    let mut writing = store.begin("write").await.unwrap();
    writing.execute(sqlx::query("UPDATE builds_last SET build = 41")).await.unwrap();
    let tables = TableChanges::default();
    let batch = Batch { number: 1, at: LabTime(10), wall_ms: 0, first_event: 1, events: vec![], tables };
    leases.commit(&batch).await.expect("the lab's row is nobody's who writes builds");
    leases.reopen().await.expect("neither is its epoch");
    writing.commit().await.unwrap();
    assert_eq!(store.take_over(0).await.unwrap().last_build, BuildId(41), "a raised epoch is the same lead");
}

#[tokio::test]
async fn what_was_written_before_the_same_process_took_over_anew_comes_not_after() {
    let Some(database) = Database::new() else { return };
    let (leases, _) = database.lead("only").await.unwrap();
    let BuildsAt::Database(led) = leases.builds() else { panic!("a database has builds in it") };
    let store = PostgresBuilds::new(*led);
    store.take_over(0).await.unwrap();
    let before = number(&store);
    store.take_over(0).await.unwrap();
    let now = number(&store);
    assert!(now > before);
    store.taken.store(before, Ordering::Relaxed);
    let late = store.commit(&[changed(&build(1, Phase::Queued))]).await;
    assert!(matches!(late, Err(StoreError::Failed { .. })), "it is not deposed, and writes nothing");
    store.taken.store(now, Ordering::Relaxed);
    assert!(store.take_over(0).await.unwrap().open.is_empty());
}

#[tokio::test]
async fn statuses_of_a_database_from_before_those_of_deliveries_are_kept() {
    let Some(database) = Database::new() else { return };
    for statements in [
        "CREATE TABLE leasehold_version (version BIGINT PRIMARY KEY, applied TIMESTAMP WITH TIME ZONE)",
        include_str!("../../../../schema/postgres/0001_first.sql"),
        include_str!("../../../../schema/postgres/0002_providers.sql"),
        include_str!("../../../../schema/postgres/0003_builds.sql"),
        include_str!("../../../../schema/postgres/0004_logs.sql"),
        include_str!("../../../../schema/postgres/0005_search.sql"),
        "INSERT INTO leasehold_version SELECT generate_series(1, 5)",
        OLD_STATUS,
    ] {
        database.sql(&format!("SET ROLE leasehold; {statements}"));
    }
    an_old_status_is_as_good_as_a_new_one(&database).await;
    let shown = database.sql("SELECT build IS NULL, delivery, state FROM statuses");
    assert_eq!(shown, "t|2|running");
}
