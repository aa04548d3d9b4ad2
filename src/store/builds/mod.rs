//! Where builds, deliveries, statuses and logs' tables live, beside the books of the leases.
//!
//! On SQLite that is a file of its own beside the broker's, so that a busy log delays no lease; on
//! PostgreSQL tables of their own in the same database. Everything is by trait object: nobody above knows
//! which it is, and no answer here is waited for by a lease.
//!
//! - Every write is one transaction, durable when it answers `Ok`. After an error it is there whole or not
//!   at all, and only [`BuildStore::take_over`] tells which.
//! - Where brokers share the database, a write is made only while this process is the one that took the
//!   builds over last; else it answers [`StoreError::Deposed`](super::StoreError::Deposed).

mod alike;
#[cfg(test)]
mod contract;
pub mod logs;
pub mod postgres;
mod rows;
pub mod search;
pub mod sqlite;
mod tables;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use self::logs::LogTables;
pub use self::postgres::Led;
use self::postgres::PostgresBuilds;
use self::search::SearchTables;
use self::sqlite::SqliteBuilds;
use super::StoreError;
use crate::builds::build::{Build, BuildId, Phase};
use crate::builds::change::{Change, Note};
use crate::builds::delivery::{Delivery, DeliveryId};
use crate::builds::status::{Status, StatusKey};

/// An answer on its way.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Where the builds beside a store are: closed until they are opened, as most brokers have none.
#[derive(Clone, Debug)]
pub enum BuildsAt {
    /// In this file.
    File(PathBuf),
    /// In the database that this process leads.
    Database(Box<Led>),
}

/// The tables of builds, opened.
#[derive(Clone)]
pub struct Opened {
    /// Builds, deliveries and statuses.
    pub builds: Arc<dyn BuildStore>,
    /// Logs.
    pub logs: Arc<dyn LogTables>,
    /// The search across them.
    pub search: Arc<dyn SearchTables>,
}

impl BuildsAt {
    /// Opens them, and makes the tables where there are none. Nothing is written before
    /// [`BuildStore::take_over`].
    ///
    /// # Errors
    /// [`StoreError::Locked`] while another broker has the file open, [`StoreError::TooNew`] when a newer
    /// version wrote it. A database is only called when it is asked something.
    pub async fn open(self) -> Result<Opened, StoreError> {
        match self {
            Self::File(path) => {
                let store = Arc::new(SqliteBuilds::open(&path).await?);
                Ok(Opened { builds: store.clone(), logs: store.clone(), search: store })
            }
            Self::Database(led) => {
                let store = Arc::new(PostgresBuilds::new(*led));
                Ok(Opened { builds: store.clone(), logs: store.clone(), search: store })
            }
        }
    }
}

/// What is read when builds are taken over.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// Builds whose phase is not final.
    pub open: Vec<Build>,
    /// Deliveries that nobody has worked on, oldest first.
    pub waiting: Vec<Delivery>,
    /// Deliveries since the moment asked for, oldest first, the newest 100,000 of them: for knowing repeats.
    pub recent: Vec<Delivery>,
    /// Statuses that the forge has not taken.
    pub untold: Vec<Status>,
    /// Statuses of deliveries, told or not; of the newest 10,000 deliveries that have one.
    pub of_deliveries: Vec<Status>,
    /// The highest numbers given; 0 where there is none.
    pub last_build: BuildId,
    /// Likewise.
    pub last_delivery: DeliveryId,
}

/// Which builds.
#[derive(Clone, Debug, Default)]
pub struct BuildFilter {
    /// Of this repository.
    pub repository: Option<Arc<str>>,
    /// Of this pipeline.
    pub pipeline: Option<Arc<str>>,
    /// In these phases; empty is any.
    pub phases: Vec<Phase>,
    /// Below this number: the next page.
    pub before: Option<BuildId>,
    /// At most so many.
    pub limit: usize,
}

/// The tables of builds.
pub trait BuildStore: Send + Sync + 'static {
    /// Makes this process the one that writes, and reads what there is to go on with. Nothing that another
    /// process wrote before is missed, and nothing of it comes after.
    fn take_over(&self, recent_since_ms: i64) -> Answer<'_, Loaded>;

    /// Writes changes, in one transaction.
    fn commit<'a>(&'a self, changes: &'a [Change]) -> Answer<'a, ()>;

    /// One build.
    fn build(&self, id: BuildId) -> Answer<'_, Option<Build>>;

    /// Builds, newest first.
    fn builds<'a>(&'a self, filter: &'a BuildFilter) -> Answer<'a, Vec<Build>>;

    /// What happened to a build, oldest first.
    fn notes(&self, build: BuildId) -> Answer<'_, Vec<Note>>;

    /// One delivery, with its body.
    fn delivery(&self, id: DeliveryId) -> Answer<'_, Option<(Delivery, Arc<[u8]>)>>;

    /// Deliveries, newest first, below this number where given.
    fn deliveries(&self, before: Option<DeliveryId>, limit: usize) -> Answer<'_, Vec<Delivery>>;

    /// One status.
    fn status<'a>(&'a self, key: &'a StatusKey) -> Answer<'a, Option<Status>>;

    /// Builds that ended before, and are not among the newest `keep` of their repository; at most 500.
    fn forgettable(&self, before_ms: i64, keep: u32) -> Answer<'_, Vec<BuildId>>;

    /// Deletes these builds with their notes and statuses, and deliveries worked on that came before. Their
    /// logs are to be deleted first.
    fn forget<'a>(&'a self, builds: &'a [BuildId], deliveries_before_ms: i64) -> Answer<'a, ()>;
}
