//! A store that fails on demand, around a real one: for tests of what an engine does then.
//!
//! Faults are ordered through a [`Faults`] handle, which the test keeps while the engine owns the
//! store. Each order is carried out once, by the next call that it fits.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::{Sharing, Store, StoreError};
use crate::core::tables::{Batch, Tables};
use crate::core::types::LabTime;

/// What the next commit does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitFault {
    /// Fails before anything is written.
    Before,
    /// Fails with the batch half written, of which its transaction leaves nothing.
    In,
    /// Commits, and reports a failure all the same.
    After,
}

/// Orders faults from a store that somebody else owns.
#[derive(Clone, Debug)]
pub struct Faults {
    orders: Arc<Mutex<Orders>>,
    stalled: Arc<watch::Sender<bool>>,
    waiting: Arc<watch::Sender<u64>>,
}

#[derive(Debug, Default)]
struct Orders {
    commit: Option<CommitFault>,
    reopens_to_fail: u32,
}

impl Faults {
    fn orders(&self) -> std::sync::MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the next commit fail in this way.
    pub fn fail_commit(&self, fault: CommitFault) {
        self.orders().commit = Some(fault);
    }

    /// Makes the next `times` reopenings fail.
    pub fn fail_reopen(&self, times: u32) {
        self.orders().reopens_to_fail = times;
    }

    /// Makes every commit wait from now on.
    pub fn stall(&self) {
        self.stalled.send_replace(true);
    }

    /// Lets waiting commits, and all later ones, go on.
    pub fn go_on(&self) {
        self.stalled.send_replace(false);
    }

    /// Returns once `count` commits have been stalled since the beginning.
    pub async fn stalled(&self, count: u64) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.waiting.subscribe().wait_for(|seen| *seen >= count).await;
    }

    async fn wait(&self) {
        let mut stalled = self.stalled.subscribe();
        if *stalled.borrow_and_update() {
            self.waiting.send_modify(|count| *count += 1);
            let _ = stalled.wait_for(|stalled| !stalled).await;
        }
    }
}

/// A store that fails on demand.
#[derive(Debug)]
pub struct Faulty<S> {
    inner: S,
    faults: Faults,
    /// After a failed commit nothing is written before the store was opened again.
    in_doubt: bool,
}

impl<S: Store> Faulty<S> {
    /// Wraps `inner`; it behaves like it until told otherwise.
    pub fn new(inner: S) -> (Self, Faults) {
        let faults = Faults {
            orders: Arc::default(),
            stalled: Arc::new(watch::Sender::new(false)),
            waiting: Arc::new(watch::Sender::new(0)),
        };
        (Self { inner, faults: faults.clone(), in_doubt: false }, faults)
    }
}

fn failed(doing: &'static str) -> StoreError {
    StoreError::Failed { doing, source: "a fault ordered by a test".into() }
}

impl<S: Store> Store for Faulty<S> {
    type Reader = S::Reader;

    async fn load(&mut self) -> Result<Tables, StoreError> {
        self.inner.load().await
    }

    async fn commit(&mut self, batch: &Batch) -> Result<(), StoreError> {
        self.faults.wait().await;
        if self.in_doubt {
            return Err(failed("commit a batch after a failure"));
        }
        let fault = self.faults.orders().commit.take();
        self.in_doubt = fault.is_some();
        match fault {
            None => self.inner.commit(batch).await,
            Some(CommitFault::Before) => Err(failed("begin to commit a batch")),
            // A transaction leaves nothing of half a batch, so there is nothing to do by halves here.
            Some(CommitFault::In) => Err(failed("commit the second half of a batch")),
            Some(CommitFault::After) => {
                self.inner.commit(batch).await?;
                Err(failed("hear that a batch was committed"))
            }
        }
    }

    async fn reopen(&mut self) -> Result<u64, StoreError> {
        {
            let mut orders = self.faults.orders();
            if orders.reopens_to_fail > 0 {
                orders.reopens_to_fail -= 1;
                return Err(failed("open the store again"));
            }
        }
        let last = self.inner.reopen().await?;
        self.in_doubt = false;
        Ok(last)
    }

    async fn prune(&mut self, before: LabTime) -> Result<bool, StoreError> {
        self.inner.prune(before).await
    }

    fn sharing(&self) -> Option<Sharing> {
        self.inner.sharing()
    }

    async fn beat(&mut self) -> Result<(), StoreError> {
        self.inner.beat().await
    }

    async fn give_up(&mut self) -> Result<(), StoreError> {
        self.inner.give_up().await
    }

    async fn passed_ms(&mut self) -> Result<Option<u64>, StoreError> {
        self.inner.passed_ms().await
    }

    fn reader(&self) -> S::Reader {
        self.inner.reader()
    }

    fn name(&self) -> String {
        self.inner.name()
    }
}
