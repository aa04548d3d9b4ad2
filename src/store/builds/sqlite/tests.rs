//! The contract on SQLite, and what only a file can do.

use std::future::Future as _;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use tempfile::TempDir;

use super::*;
use crate::builds::build::Phase;
use crate::store::Store as _;
use crate::store::builds::contract::{
    Factory, OLD_STATUS, an_old_status_is_as_good_as_a_new_one, build, changed, contract,
};
use crate::store::builds::{BuildFilter, BuildStore as _, BuildsAt, Opened};
use crate::store::sqlite::Sqlite;

/// A folder of its own.
pub(super) struct Folder(TempDir);

impl Folder {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("lab-builds.db")
    }
}

impl Factory for Folder {
    async fn open(&self) -> Result<Opened> {
        BuildsAt::File(self.path()).open().await
    }
}

contract! { Some(Folder::new()) }

#[tokio::test]
async fn it_lies_beside_the_leases_and_is_opened_by_one() {
    let folder = Folder::new();
    let leases = Sqlite::open(folder.0.path().join("lab.db")).await.unwrap();
    let at = leases.builds();
    assert!(!folder.path().exists(), "nobody has asked for builds yet");
    let opened = at.clone().open().await.unwrap();
    opened.builds.take_over(0).await.unwrap();
    assert!(folder.path().exists());
    assert!(matches!(at.open().await, Err(StoreError::Locked { .. })));
    let wrong = BuildsAt::File(folder.0.path().join("lab.db")).open().await;
    assert!(matches!(wrong, Err(StoreError::Locked { .. })), "its lock is the leases'");
    drop((leases, opened));
    let leases = Sqlite::open(folder.path()).await;
    assert!(leases.unwrap_err().to_string().contains("another program's"), "books are not mistaken for others");
}

#[tokio::test]
async fn a_write_that_was_dropped_on_the_way_leaves_nothing_and_no_lock() {
    let folder = Folder::new();
    let store = SqliteBuilds::open(&folder.path()).await.unwrap();
    let first = [changed(&build(1, Phase::Queued))];
    {
        let mut committing = pin!(store.commit(&first));
        let polled = committing.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Pending));
    }
    let mut half = store.begin("write half").await.unwrap();
    half.execute(sqlx::query("UPDATE builds_last SET build = 9")).await.unwrap();
    drop(half);
    store.commit(&[changed(&build(2, Phase::Queued))]).await.unwrap();
    let loaded = store.take_over(0).await.unwrap();
    assert_eq!(loaded.last_build, BuildId(2));
    assert!(loaded.open.contains(&build(2, Phase::Queued)));
}

#[tokio::test]
async fn a_file_whose_opening_again_was_dropped_on_the_way_is_read_all_the_same() {
    let folder = Folder::new();
    let store = SqliteBuilds::open(&folder.path()).await.unwrap();
    store.commit(&[changed(&build(1, Phase::Queued))]).await.unwrap();
    drop(store.begin("write nothing").await.unwrap());
    // It keeps the file from being opened again at once.
    let reader = store.reader("read").await.unwrap();
    {
        let mut beginning = pin!(store.begin("write"));
        assert!(beginning.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    assert!(store.readers.read().await.is_closed());
    drop(reader);
    assert_eq!(store.builds(&BuildFilter { limit: 9, ..BuildFilter::default() }).await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_was_taken_back_is_not_there_and_nothing_was_opened_anew() {
    let folder = Folder::new();
    let store = SqliteBuilds::open(&folder.path()).await.unwrap();
    let mut writing = store.begin("write").await.unwrap();
    writing.execute(sqlx::query("UPDATE builds_last SET build = 9")).await.unwrap();
    writing.undo().await.unwrap();
    assert!(store.writer.lock().await.is_some());
    assert_eq!(store.take_over(0).await.unwrap().last_build, BuildId(0));
}

#[tokio::test]
async fn statuses_of_a_file_from_before_those_of_deliveries_are_kept() {
    let folder = Folder::new();
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(folder.path()).create_if_missing(true);
    let mut file = SqliteConnection::connect_with(&options).await.unwrap();
    for statements in [
        include_str!("../../../../schema/sqlite_builds/0001_first.sql"),
        include_str!("../../../../schema/sqlite_builds/0002_logs.sql"),
        include_str!("../../../../schema/sqlite_builds/0003_search.sql"),
        "PRAGMA application_id = 0x6C686264; PRAGMA user_version = 3",
        OLD_STATUS,
    ] {
        sqlx::raw_sql(statements).execute(&mut file).await.unwrap();
    }
    file.close().await.unwrap();
    an_old_status_is_as_good_as_a_new_one(&folder).await;
    let mut file = SqliteConnection::connect_with(&options).await.unwrap();
    let shown: (Option<i64>, Option<i64>, String) =
        sqlx::query_as("SELECT build, delivery, state FROM statuses").fetch_one(&mut file).await.unwrap();
    assert_eq!(shown, (None, Some(2), "running".to_owned()));
}
