//! The contract on SQLite, and what only a file can do: be torn, be full, be another's.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::pin::pin;
use std::task::Poll;

use tempfile::TempDir;

use super::rows::Rows;
use super::*;
use crate::core::event::Event;
use crate::core::tables::{JournalFilter, LabRecord, PoolRecord, TableChanges};
use crate::core::types::{ClaimId, Key, LeaseId, ResourceId, SessionId};
use crate::store::Reader;
use crate::store::contract::{Factory, contract, records};
use crate::store::faulty::{CommitFault, Faulty};

/// A store in a folder of its own.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("lab/store.db")
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        self.0.path().join(format!("lab/store.db{suffix}"))
    }
}

impl Factory for Folder {
    type Store = Sqlite;

    async fn open(&self) -> Result<Sqlite> {
        Sqlite::open(self.path()).await
    }
}

contract! { Some(Folder::new()) =>
    records_come_back_as_they_were,
    events_come_back_as_they_were,
    records_are_replaced_and_deleted,
    requests_are_forgotten_up_to_a_number,
    tables_are_what_the_books_are,
    tables_are_what_the_books_are_in_one_batch,
    batches_out_of_order_are_refused,
    a_second_opener_is_refused,
    history_is_by_resource_newest_first,
    the_journal_can_be_narrowed,
    reopening_keeps_what_is_committed,
    pruning_keeps_what_is_held_or_young,
}

/// The batch after the store's last: a process start, and a pool of that number to tell it by.
fn next(store: &Sqlite) -> Batch {
    let number = store.last.batch + 1;
    batch(store, vec![Event::BrokerStarted { term: number }], vec![records::some_pool(number)])
}

fn batch(store: &Sqlite, events: Vec<Event>, pools: Vec<(Key, Option<PoolRecord>)>) -> Batch {
    let number = store.last.batch + 1;
    let at = LabTime(number * 10);
    let lab = LabRecord { now: at, ..LabRecord::default() };
    let tables = TableChanges { lab, pools, ..TableChanges::default() };
    Batch { number, at, wall_ms: 0, first_event: store.last.event + 1, events, tables }
}

async fn commit_next(store: &mut Sqlite) {
    let batch = next(store);
    store.commit(&batch).await.unwrap();
}

async fn run(store: &mut Sqlite, statement: String) {
    let writer = store.writer.as_mut().unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(writer).await.unwrap();
}

fn failed_while(result: Result<()>) -> &'static str {
    match result {
        Err(StoreError::Failed { doing, .. }) => doing,
        other => panic!("expected a failure, got {other:?}"),
    }
}

/// The store's tables hold exactly the first `batches` of [`next`].
async fn assert_holds(store: &mut Sqlite, batches: u64) {
    let tables = store.load().await.unwrap();
    assert_eq!((tables.batch, tables.last_event, tables.pools.len() as u64), (batches, batches, batches));
    let filter = JournalFilter { limit: usize::MAX, ..JournalFilter::default() };
    let numbers = store.reader().journal(&filter).await.unwrap().into_iter().map(|entry| entry.number);
    assert_eq!(numbers.collect::<Vec<_>>(), (1..=batches).collect::<Vec<_>>());
}

#[tokio::test]
async fn folders_and_files_are_for_their_user_alone() {
    let folder = Folder::new();
    let mut store = folder.open().await.unwrap();
    commit_next(&mut store).await;
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(folder.0.path().join("lab")), 0o700);
    for suffix in ["", "-wal", "-shm", ".lock"] {
        assert_eq!(mode(folder.beside(suffix)), 0o600, "store.db{suffix}");
    }
    assert_eq!(store.name(), format!("sqlite:{}", fs::canonicalize(folder.path()).unwrap().display()));
}

#[tokio::test]
async fn every_commit_is_synced() {
    let folder = Folder::new();
    let mut store = folder.open().await.unwrap();
    let ask = "SELECT journal_mode, synchronous FROM pragma_journal_mode, pragma_synchronous";
    for _ in 0..2 {
        let writer = store.writer.as_mut().unwrap();
        let found: (String, i64) = sqlx::query_as(ask).fetch_one(writer).await.unwrap();
        assert_eq!(found, ("wal".to_owned(), 2), "2 is FULL");
        store.reopen().await.unwrap();
    }
}

#[tokio::test]
async fn two_ways_to_one_file_meet_in_one_lock() {
    let folder = Folder::new();
    let _store = folder.open().await.unwrap();
    let link = folder.0.path().join("link.db");
    std::os::unix::fs::symlink(folder.path(), &link).unwrap();
    assert!(matches!(Sqlite::open(&link).await, Err(StoreError::Locked { .. })));
}

#[tokio::test]
async fn a_newer_store_is_refused_and_left_alone() {
    let folder = Folder::new();
    let mut store = folder.open().await.unwrap();
    commit_next(&mut store).await;
    run(&mut store, format!("PRAGMA user_version = {}", LEASES.newest() + 1)).await;
    store.close().await;
    let before = fs::read(folder.path()).unwrap();
    let refused = folder.open().await;
    assert!(
        matches!(refused, Err(StoreError::TooNew { found, known }) if found == known + 1 && known == LEASES.newest()),
        "{refused:?}"
    );
    assert_eq!(fs::read(folder.path()).unwrap(), before);
}

#[tokio::test]
async fn what_is_no_store_is_refused_and_left_alone() {
    let folder = Folder::new();
    fs::create_dir(folder.0.path().join("lab")).unwrap();
    let mut other = options(&folder.path()).create_if_missing(true).connect().await.unwrap();
    sqlx::raw_sql("CREATE TABLE cookies (host)").execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    let before = fs::read(folder.path()).unwrap();
    assert_eq!(failed_while(folder.open().await.map(drop)), "open the store");
    assert_eq!(fs::read(folder.path()).unwrap(), before);
    fs::write(folder.path(), "not a database at all, ".repeat(100)).unwrap();
    let refused = folder.open().await.map(drop);
    assert_eq!(failed_while(refused), "read the store's version");
}

#[tokio::test]
async fn a_torn_log_loses_whole_batches_from_its_end_only() {
    let folder = Folder::new();
    let mut store = folder.open().await.unwrap();
    for _ in 0..5 {
        commit_next(&mut store).await;
    }
    let (database, log) = (fs::read(folder.path()).unwrap(), fs::read(folder.beside("-wal")).unwrap());
    let mut found = Vec::new();
    for cut in (0..=log.len()).step_by(1_777).chain([log.len() - 1, log.len()]) {
        let torn = Folder::new();
        fs::create_dir(torn.0.path().join("lab")).unwrap();
        fs::write(torn.path(), &database).unwrap();
        fs::write(torn.beside("-wal"), &log[..cut]).unwrap();
        let mut store = torn.open().await.unwrap();
        let last = store.last.batch;
        assert_holds(&mut store, last).await;
        commit_next(&mut store).await;
        assert_eq!(store.reopen().await.unwrap(), last + 1);
        found.push(last);
    }
    assert!(found.is_sorted(), "{found:?}");
    assert_eq!((found.first(), found.last()), (Some(&0), Some(&5)));
}

#[tokio::test]
async fn a_full_disk_refuses_whole_batches_until_there_is_space() {
    let folder = Folder::new();
    let mut store = folder.open().await.unwrap();
    commit_next(&mut store).await;
    // As many pages as there are; a new connection knows nothing of it.
    run(&mut store, "PRAGMA max_page_count = 1".to_owned()).await;
    let many = (0..1_000).map(|term| Event::BrokerStarted { term }).collect();
    let large = batch(&store, many, vec![]);
    assert_eq!(failed_while(store.commit(&large).await), "commit a batch to the store");
    let small = next(&store);
    assert_eq!(failed_while(store.commit(&small).await), "commit a batch to the store");
    assert_holds(&mut store, 1).await;
    assert_eq!(store.reopen().await.unwrap(), 1);
    store.commit(&small).await.unwrap();
    assert_holds(&mut store, 2).await;
}

#[tokio::test]
async fn another_writer_is_noticed() {
    let folder = Folder::new();
    let mut store = folder.open().await.unwrap();
    commit_next(&mut store).await;
    let mut other = options(&folder.path()).connect().await.unwrap();
    sqlx::raw_sql("UPDATE lab SET batch = 2").execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    let offered = next(&store);
    let refused = store.commit(&offered).await;
    assert!(matches!(refused, Err(StoreError::OutOfOrder { last: 2, offered: 2 })), "{refused:?}");
    assert_eq!(store.load().await.unwrap().pools.len(), 1, "nothing of it was written");
}

#[tokio::test]
async fn a_commit_that_nobody_waited_for_is_settled_by_reopening() {
    let folder = Folder::new();
    let mut store = folder.open().await.unwrap();
    let abandoned = next(&store);
    {
        let mut commit = pin!(store.commit(&abandoned));
        let polled = std::future::poll_fn(|context| Poll::Ready(commit.as_mut().poll(context))).await;
        assert!(polled.is_pending(), "the driver answers from another thread");
    }
    assert_eq!(failed_while(store.commit(&abandoned).await), "commit a batch to the store");
    let last = store.reopen().await.unwrap();
    assert_holds(&mut store, last).await;
    commit_next(&mut store).await;
    assert_holds(&mut store, last + 1).await;
}

#[tokio::test]
async fn readers_cannot_write() {
    let folder = Folder::new();
    let store = folder.open().await.unwrap();
    let pool = store.reader().pool.read().await.clone();
    let refused = sqlx::raw_sql("DELETE FROM lab").execute(&pool).await.unwrap_err();
    assert!(refused.to_string().contains("readonly"), "{refused}");
}

#[tokio::test]
async fn people_can_ask_in_sql() {
    let folder = Folder::new();
    let mut store = folder.open().await.unwrap();
    let one = |id| (SessionId(id), Some(records::session(id)));
    let tables = TableChanges {
        pools: vec![records::some_pool(1)],
        resources: vec![(ResourceId(1), Some(records::resource(1, "pixel-1")))],
        sessions: vec![one(1)],
        claims: vec![(ClaimId(8), Some(records::claim(8).into()))],
        leases: vec![records::lease(7, &["pixel-1"])],
        ended: vec![(LeaseId(7), records::ended(9))],
        ..TableChanges::default()
    };
    store.commit(&Batch { tables, ..next(&store) }).await.unwrap();
    let reader = store.reader();
    let pool = reader.pool.read().await.clone();
    for (view, asked, told) in [
        ("pools", "name || origin || on_drop", "p1fileimmediate"),
        (
            "resources",
            "name || pool || slots || last_used || (quarantined ->> '$.by') || (offline ->> '$.by')",
            "pixel-1phone317brokerbroker",
        ),
        ("providers", "name || session || address", "rack-71rack-7 (10.0.0.7)"),
        ("sessions", "session || kind || opened_at", "1socket1"),
        ("claims", "claim || session || note || queued_at", "81nightly4"),
        ("leases", "lease || resources || granted_at || ended_at || why || outcome", "7[\"pixel-1\"]79revokedinfra"),
    ] {
        let ask = sqlx::AssertSqlSafe(format!("SELECT {asked} FROM {view}"));
        let found: Option<String> = sqlx::query_scalar(ask).fetch_one(&pool).await.unwrap();
        assert_eq!(found.as_deref(), Some(told), "{view}");
    }
}

#[tokio::test]
async fn leases_of_an_older_version_keep_their_ends() {
    let folder = Folder::new();
    fs::create_dir_all(folder.path().parent().unwrap()).unwrap();
    let mut old = options(&folder.path()).create_if_missing(true).connect().await.unwrap();
    for version in [
        include_str!("../../../schema/sqlite/0001_first.sql"),
        include_str!("../../../schema/sqlite/0002_arrivals.sql"),
        "PRAGMA application_id = 0x6C686C64; PRAGMA user_version = 2",
    ] {
        sqlx::raw_sql(version).execute(&mut old).await.unwrap();
    }
    let ended = records::ended(9);
    for (id, at) in [(7_u64, Some(9_i64)), (8, None)] {
        let insert = "INSERT INTO lease (lease, ended_at, outcome, ended, record) VALUES ($1, $2, $3, $4, $5)";
        sqlx::query(insert)
            .bind(id.cast_signed())
            .bind(at)
            .bind(at.and(ended.outcome).map(write::outcome_text))
            .bind(at.map(|_| serde_json::to_string(&ended.end).unwrap()))
            .bind(serde_json::to_string(&records::lease(id, &["pixel-1"])).unwrap())
            .execute(&mut old)
            .await
            .unwrap();
    }
    old.close().await.unwrap();
    let mut store = folder.open().await.unwrap();
    let held: Vec<LeaseId> = store.load().await.unwrap().leases.iter().map(|lease| lease.id).collect();
    assert_eq!(held, [LeaseId(8)]);
    let past = store.reader().lease(LeaseId(7)).await.unwrap().unwrap();
    assert_eq!(past.ended, Some(ended));
}

#[tokio::test]
async fn pruning_leaves_a_checkpoint_of_the_whole_state() {
    let folder = Folder::new();
    let mut store = folder.open().await.unwrap();
    let many = |count| (0..count).map(|term| Event::BrokerStarted { term }).collect();
    let large = batch(&store, many(4_500), vec![records::some_pool(1)]);
    store.commit(&large).await.unwrap();
    let before = store.load().await.unwrap();
    let mut calls = 1;
    while store.prune(LabTime(11)).await.unwrap() {
        calls += 1;
    }
    assert_eq!(calls, 3, "a bounded piece per call");
    let writer = store.writer.as_mut().unwrap();
    let (event, tables): (i64, String) =
        sqlx::query_as("SELECT event, tables FROM checkpoint").fetch_one(&mut *writer).await.unwrap();
    assert_eq!(event, 4_500);
    assert_eq!(serde_json::from_str::<Tables>(&tables).unwrap(), before);
    // A later piece that the checkpoint does not cover makes another, and only one is kept.
    let later = batch(&store, many(1), vec![records::some_pool(2)]);
    store.commit(&later).await.unwrap();
    assert!(!store.prune(LabTime(21)).await.unwrap());
    let writer = store.writer.as_mut().unwrap();
    let events: Vec<i64> = sqlx::query_scalar("SELECT event FROM checkpoint").fetch_all(writer).await.unwrap();
    assert_eq!(events, [4_501]);
}

#[tokio::test]
async fn ordered_faults_are_what_an_engine_would_see() {
    let folder = Folder::new();
    let (mut store, faults) = Faulty::new(folder.open().await.unwrap());
    for (fault, there) in [(CommitFault::Before, 0), (CommitFault::In, 0), (CommitFault::After, 1)] {
        let offered = Batch { number: 1, first_event: 1, ..records::empty_batch() };
        faults.fail_commit(fault);
        failed_while(store.commit(&offered).await);
        failed_while(store.commit(&offered).await);
        faults.fail_reopen(2);
        for _ in 0..2 {
            failed_while(store.reopen().await.map(drop));
        }
        assert_eq!(store.reopen().await.unwrap(), there, "{fault:?}");
    }
    faults.stall();
    let second = Batch { number: 2, first_event: 1, ..records::empty_batch() };
    let commit = tokio::spawn(async move { store.commit(&second).await });
    faults.stalled(1).await;
    assert!(!commit.is_finished());
    faults.go_on();
    commit.await.unwrap().unwrap();
}

#[tokio::test]
async fn packed_rows_of_every_size_are_read_as_written() {
    let folder = Folder::new();
    let mut store = folder.open().await.unwrap();
    let numbers = [0, 1, u64::MAX, 1 << 53, 1 << 63, (1 << 63) - 1];
    let sizes = [0, 1, 11, 12, 13, 255, 256, 65_535, 65_536, 1 << 20];
    let mut rows = Rows::default();
    assert!(rows.is_empty());
    for (number, size) in numbers.iter().cycle().zip(sizes) {
        rows.row(|row| {
            row.number(*number);
            row.null();
            row.text(&"\"é".repeat(size)[..size / 3 * 3]);
            row.json(&"\\".repeat(size)).map(drop)
        })
        .unwrap();
    }
    let ask = "SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM jsonb_each($1)";
    let writer = store.writer.as_mut().unwrap();
    let found: Vec<(i64, Option<i64>, String, String)> =
        sqlx::query_as(ask).bind(rows.finish()).fetch_all(writer).await.unwrap();
    assert_eq!(found.len(), sizes.len());
    for (((number, size), row), index) in numbers.iter().cycle().zip(sizes).zip(found).zip(0..) {
        assert_eq!((row.0.cast_unsigned(), row.1), (*number, None), "row {index}");
        assert_eq!(row.2, "\"é".repeat(size)[..size / 3 * 3], "row {index}");
        assert_eq!(serde_json::from_str::<String>(&row.3).unwrap(), "\\".repeat(size), "row {index}");
    }
    assert_eq!(Rows::default().finish(), None);
}
