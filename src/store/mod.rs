//! Stores: where the journal and the tables beside it live.
//!
//! A store keeps what the core decided; it never decides. SQL appears under this folder and
//! nowhere else, and nothing else in the code knows which store it talks to. The contract:
//!
//! - [`Store::commit`] is one transaction: when it answers `Ok`, the whole batch survives
//!   `kill -9` and loss of power. When it answers an error, the batch is there whole or not at
//!   all, and only [`Store::reopen`] tells which.
//! - Batches come in order, each number one above the last; a store refuses any other.
//! - [`Reader`]s see only what is committed.
//!
//! A store that several brokers share has one leader at a time, who alone writes. Taking the lead is
//! the store's own business, before it is given to an engine; from then on every write is made only
//! while this process leads, and answers [`StoreError::Deposed`] once another does.

pub mod archive;
pub mod builds;
#[cfg(test)]
mod contract;
mod error;
#[cfg(any(test, feature = "testing"))]
pub mod faulty;
pub mod names;
pub mod postgres;
pub mod sqlite;
mod whole;

use std::future::Future;

pub use error::StoreError;

use self::builds::BuildsAt;
use crate::core::tables::{Batch, JournalEntry, JournalFilter, PastLease, Tables};
use crate::core::types::{LabTime, LeaseId, ResourceName};

/// How the brokers that share a store take turns at leading it; milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sharing {
    /// How long others leave a leader alone that writes nothing. A leader that has written nothing
    /// for so long, counted from before it sent its last successful write, leads no more.
    pub term_ms: u64,
    /// How long a leader lets pass without a write before it writes a beat.
    pub beat_ms: u64,
}

/// The writing half, owned by the engine's task alone.
pub trait Store: Send + 'static {
    /// What reads beside it.
    type Reader: Reader;

    /// Reads the tables, whole.
    fn load(&mut self) -> impl Future<Output = Result<Tables, StoreError>> + Send;

    /// Writes one batch in one transaction, durable when it answers `Ok`.
    fn commit(&mut self, batch: &Batch) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Closes every connection, readers too, opens the store again so that its recovery runs,
    /// makes what is found durable, and answers the number of the last batch in it.
    fn reopen(&mut self) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Deletes events and ended leases older than `before`, after storing a checkpoint from
    /// which checking and replaying can start. Bounded work per call; answers whether more is
    /// left to delete.
    fn prune(&mut self, before: LabTime) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// How this store is shared with other brokers; `None` where it is this process's alone.
    fn sharing(&self) -> Option<Sharing> {
        None
    }

    /// Tells the others that this process leads on; never called where nobody shares the store.
    fn beat(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send {
        std::future::ready(Ok(()))
    }

    /// Gives the lead up, so that another may take it at once; nothing is written after. Refused after a
    /// write that failed, until the store was opened again: the lead is left to its term then.
    fn give_up(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send {
        std::future::ready(Ok(()))
    }

    /// What the store's own clock says has passed since the last batch in it, milliseconds; `None`
    /// where it has no clock but this machine's.
    fn passed_ms(&mut self) -> impl Future<Output = Result<Option<u64>, StoreError>> + Send {
        std::future::ready(Ok(None))
    }

    /// A reader of what is committed.
    fn reader(&self) -> Self::Reader;

    /// Where the builds beside these books are, which stay closed until somebody opens them.
    fn builds(&self) -> BuildsAt;

    /// What people call it: `sqlite:PATH`.
    fn name(&self) -> String;
}

/// The reading half, cloned freely, used by whoever answers questions about the past.
pub trait Reader: Clone + Send + Sync + 'static {
    /// Looks whether this process still leads, by a read that begins after the call: nobody else
    /// had taken the lead when it was called.
    ///
    /// # Errors
    /// [`StoreError::Deposed`] when another leads, another error when that cannot be known now.
    fn confirm(&self) -> impl Future<Output = Result<(), StoreError>> + Send {
        std::future::ready(Ok(()))
    }

    /// The journal, oldest first, after the filter.
    fn journal(&self, filter: &JournalFilter) -> impl Future<Output = Result<Vec<JournalEntry>, StoreError>> + Send;

    /// The leases that had the resource of this name (at their grant), newest first, older than
    /// `before` where given.
    fn history(
        &self,
        name: &ResourceName,
        before: Option<LeaseId>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<PastLease>, StoreError>> + Send;

    /// One lease, ended or not.
    fn lease(&self, lease: LeaseId) -> impl Future<Output = Result<Option<PastLease>, StoreError>> + Send;

    /// Leases, newest first, older than `before` where given, ended ones too.
    fn leases(
        &self,
        before: Option<LeaseId>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<PastLease>, StoreError>> + Send;
}
