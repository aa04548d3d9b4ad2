//! The contract on PostgreSQL, and what only a database that others write to can do.
//!
//! A server of the tests' own, a database for each test. Where there is no PostgreSQL the tests say so
//! and pass; `scripts/test` sees to it that there is.

use std::sync::atomic::{AtomicU64, Ordering};

use sqlx::Executor as _;

use super::*;
use crate::core::event::Event;
use crate::core::tables::{JournalFilter, LabRecord, PoolRecord, TableChanges};
use crate::core::types::{ClaimId, Key, LeaseId, ResourceId, SessionId};
use crate::store::Reader;
use crate::store::contract::{Factory, contract, records};
use crate::testing::postgres::{self as server, Server};

mod doors;
mod leading;

/// Long enough for no limit of it to be met where nothing hangs.
const TERM_MS: u64 = 60_000;

/// A database of its own.
struct Database {
    server: &'static Server,
    url: String,
    /// Processes that have opened it.
    processes: AtomicU64,
}

impl Database {
    fn new() -> Option<Self> {
        let server = server::shared()?;
        Some(Self { server, url: server.database(), processes: AtomicU64::new(0) })
    }

    fn name(&self) -> &str {
        self.url.rsplit('/').next().unwrap()
    }

    /// Statements of somebody who may do everything.
    fn sql(&self, statements: &str) -> String {
        self.server.sql(self.name(), statements).unwrap()
    }

    /// One more broker.
    async fn shared(&self, term_ms: u64) -> Result<Shared> {
        let process = self.processes.fetch_add(1, Ordering::Relaxed);
        Shared::connect(&self.url, &format!("process-{process}"), &url_of(process), term_ms).await
    }

    /// One more broker, which takes the lead whoever has it.
    async fn lead(&self, term_ms: u64) -> Result<Postgres> {
        let mut shared = self.shared(term_ms).await?;
        let seen = shared.observe().await?;
        Ok(taken(shared.take(seen.epoch, seen.beat).await?))
    }

    /// A connection of somebody else's.
    async fn other(&self) -> PgConnection {
        let target = Target::parse(&self.url).unwrap();
        target.connect(Who::Loader, Limits::of_term(TERM_MS)).await.unwrap()
    }
}

impl Factory for Database {
    type Store = Postgres;

    async fn open(&self) -> Result<Postgres> {
        self.lead(TERM_MS).await
    }
}

contract! { Database::new() =>
    records_come_back_as_they_were,
    events_come_back_as_they_were,
    records_are_replaced_and_deleted,
    requests_are_forgotten_up_to_a_number,
    tables_are_what_the_books_are,
    tables_are_what_the_books_are_in_one_batch,
    batches_out_of_order_are_refused,
    history_is_by_resource_newest_first,
    the_journal_can_be_narrowed,
    reopening_keeps_what_is_committed,
    pruning_keeps_what_is_held_or_young,
}

fn url_of(process: u64) -> String {
    format!("ws://broker-{process}:5327")
}

fn taken(taken: Taken) -> Postgres {
    match taken {
        Taken::Lead(store) => *store,
        Taken::Passed => panic!("another was faster"),
    }
}

/// The batch after the store's last: a process start, and a pool of that number to tell it by.
fn next(store: &Postgres) -> Batch {
    let number = store.last.batch + 1;
    batch(store, vec![Event::BrokerStarted { term: number }], vec![records::some_pool(number)])
}

fn batch(store: &Postgres, events: Vec<Event>, pools: Vec<(Key, Option<PoolRecord>)>) -> Batch {
    let number = store.last.batch + 1;
    let at = LabTime(number * 10);
    let lab = LabRecord { now: at, ..LabRecord::default() };
    let tables = TableChanges { lab, pools, ..TableChanges::default() };
    Batch { number, at, wall_ms: 0, first_event: store.last.event + 1, events, tables }
}

async fn commit_next(store: &mut Postgres) {
    let batch = next(store);
    store.commit(&batch).await.unwrap();
}

/// What was being done when it failed, and why.
fn failure<T: std::fmt::Debug>(result: Result<T>) -> (&'static str, String) {
    match result {
        Err(StoreError::Failed { doing, source }) => (doing, source.to_string()),
        other => panic!("expected a failure, got {other:?}"),
    }
}

/// The store's tables hold exactly the first `batches` of [`next`].
async fn assert_holds(store: &mut Postgres, batches: u64) {
    let tables = store.load().await.unwrap();
    assert_eq!((tables.batch, tables.last_event, tables.pools.len() as u64), (batches, batches, batches));
    let filter = JournalFilter { limit: usize::MAX, ..JournalFilter::default() };
    let numbers = store.reader().journal(&filter).await.unwrap().into_iter().map(|entry| entry.number);
    assert_eq!(numbers.collect::<Vec<_>>(), (1..=batches).collect::<Vec<_>>());
}

#[tokio::test]
async fn people_can_ask_in_sql() {
    let Some(database) = Database::new() else { return };
    let mut store = database.open().await.unwrap();
    let mut claim = records::claim(8);
    claim.owner.name = "an\0n".into();
    let tables = TableChanges {
        pools: vec![records::some_pool(1)],
        resources: vec![(ResourceId(1), Some(records::resource(1, "pixel-1")))],
        sessions: vec![(SessionId(1), Some(records::session(1)))],
        claims: vec![(ClaimId(8), Some(claim.into()))],
        leases: vec![records::lease(7, &["pixel-1"])],
        ended: vec![(LeaseId(7), records::ended(9))],
        arrivals: vec![(ClaimId(8), Some(records::arrival(8)))],
        ..TableChanges::default()
    };
    store.commit(&Batch { tables, ..next(&store) }).await.unwrap();
    for (view, asked, told) in [
        ("pools", "name, origin, on_drop", "p1fileimmediate"),
        (
            "resources",
            "name, pool, slots, last_used, quarantined::json ->> 'by', offline::json ->> 'by'",
            "pixel-1phone317brokerbroker",
        ),
        ("providers", "name, session, address", "rack-71rack-7 (10.0.0.7)"),
        ("sessions", "session, kind, opened_at", "1socket1"),
        // No text of the database can have the character 0, which a client may well send.
        ("claims", "claim, session, note, queued_at, owner", "81nightly4an\u{fffd}n"),
        ("leases", "lease, resources, granted_at, ended_at, why, outcome", "7[\"pixel-1\"]79revokedinfra"),
        ("arrivals", "claim, work", "8github:a/b/9/test"),
    ] {
        let found = database.sql(&format!("SELECT concat({asked}) FROM {view}"));
        assert_eq!(found, told, "{view}");
    }
    assert_eq!(&*store.load().await.unwrap().claims[0].owner.name, "an\0n");
}

#[tokio::test]
async fn readers_cannot_write() {
    let Some(database) = Database::new() else { return };
    let store = database.open().await.unwrap();
    let (pool, _) = store.reader().pool().await;
    let refused = sqlx::raw_sql("DELETE FROM lab").execute(&pool).await.unwrap_err();
    assert!(refused.to_string().contains("read-only"), "{refused}");
}

#[tokio::test]
async fn every_commit_is_synced_and_nothing_of_a_leader_outlives_its_term() {
    let Some(database) = Database::new() else { return };
    database.sql(&format!("ALTER DATABASE {} SET synchronous_commit = off", database.name()));
    let mut store = database.lead(4_000).await.unwrap();
    for _ in 0..2 {
        let writer = store.writer.as_mut().unwrap();
        for (setting, value) in [
            ("synchronous_commit", "on"),
            ("statement_timeout", "2s"),
            ("lock_timeout", "1500ms"),
            ("idle_in_transaction_session_timeout", "2s"),
            ("tcp_user_timeout", "3000"),
            ("tcp_keepalives_idle", "1"),
            ("transaction_isolation", "read committed"),
        ] {
            let ask = sqlx::query_scalar("SELECT current_setting($1)").bind(setting);
            let found: String = ask.fetch_one(&mut *writer).await.unwrap();
            assert_eq!(found, value, "{setting}");
        }
        store.reopen().await.unwrap();
    }
}

#[tokio::test]
async fn pruning_leaves_a_checkpoint_of_the_whole_state() {
    let Some(database) = Database::new() else { return };
    let mut store = database.open().await.unwrap();
    let many = |count| (0..count).map(|term| Event::BrokerStarted { term }).collect();
    let large = batch(&store, many(4_500), vec![records::some_pool(1)]);
    store.commit(&large).await.unwrap();
    let before = store.load().await.unwrap();
    let left = |database: &Database| database.sql("SELECT count(*) FROM journal").parse::<u64>().unwrap();
    let mut deleted = Vec::new();
    let mut known = left(&database);
    while store.prune(LabTime(11)).await.unwrap() {
        let now = left(&database);
        deleted.push(known - now);
        known = now;
    }
    deleted.push(known - left(&database));
    // A call that only waits for the checkpoint deletes nothing.
    deleted.retain(|count| *count > 0);
    assert_eq!(deleted, [2_000, 2_000, 500], "a bounded piece per call");
    let ask = "SELECT event, tables FROM checkpoint";
    let (event, tables): (i64, String) = sqlx::query_as(ask).fetch_one(&mut database.other().await).await.unwrap();
    assert_eq!(event, 4_500);
    assert_eq!(serde_json::from_str::<Tables>(&tables).unwrap(), before);
    // A later piece that the checkpoint does not cover makes another, and only one is kept.
    let later = batch(&store, many(1), vec![records::some_pool(2)]);
    store.commit(&later).await.unwrap();
    while store.prune(LabTime(21)).await.unwrap() {}
    assert_eq!(database.sql("SELECT event FROM checkpoint"), "4501");
    assert_eq!(left(&database), 0);
}

#[tokio::test]
async fn the_time_that_passed_is_by_the_database_s_clock() {
    let Some(database) = Database::new() else { return };
    let mut store = database.open().await.unwrap();
    assert_eq!(store.passed_ms().await.unwrap(), Some(0), "there is no batch to count from");
    commit_next(&mut store).await;
    database.sql("UPDATE lab SET stamp = stamp - 3600000");
    let passed = store.passed_ms().await.unwrap().unwrap();
    assert!((3_600_000..7_200_000).contains(&passed), "{passed}");
    database.sql("UPDATE lab SET stamp = stamp + 36000000");
    assert_eq!(store.passed_ms().await.unwrap(), Some(0), "its clock was set back, and time never goes back");
}
