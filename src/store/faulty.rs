//! A store that fails on demand, around a real one: for tests of what an engine does then.
//!
//! Faults are ordered through a [`Faults`] handle, which the test keeps while the engine owns the
//! store. Each order is carried out once, by the next call that it fits. It can also behave as a store
//! that brokers share, whose lead another takes on order.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::builds::BuildsAt;
use super::{Reader, Sharing, Store, StoreError};
use crate::core::tables::{Batch, JournalEntry, JournalFilter, PastLease, Tables};
use crate::core::types::{LabTime, LeaseId, ResourceName};

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

/// Something that waits while it is told to, and counts who waited.
#[derive(Clone, Debug)]
struct Gate {
    shut: Arc<watch::Sender<bool>>,
    waited: Arc<watch::Sender<u64>>,
}

impl Gate {
    fn new() -> Self {
        Self { shut: Arc::new(watch::Sender::new(false)), waited: Arc::new(watch::Sender::new(0)) }
    }

    async fn pass(&self) {
        let mut shut = self.shut.subscribe();
        if *shut.borrow_and_update() {
            self.waited.send_modify(|count| *count += 1);
            let _ = shut.wait_for(|shut| !shut).await;
        }
    }

    async fn waited(&self, count: u64) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.waited.subscribe().wait_for(|seen| *seen >= count).await;
    }
}

/// Orders faults from a store that somebody else owns.
#[derive(Clone, Debug)]
pub struct Faults {
    orders: Arc<Mutex<Orders>>,
    commits: Gate,
    looks: Gate,
    /// Calls of a leader, by name, in order.
    led: Arc<watch::Sender<Vec<&'static str>>>,
}

#[derive(Debug, Default)]
struct Orders {
    commit: Option<CommitFault>,
    reopens_to_fail: u32,
    looks_to_fail: u32,
    deposed: Option<String>,
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

    /// Makes the next `times` looks at who leads fail.
    pub fn fail_look(&self, times: u32) {
        self.orders().looks_to_fail = times;
    }

    /// Another broker, reached at this URL, leads from now on.
    pub fn depose(&self, by: &str) {
        self.orders().deposed = Some(by.to_owned());
    }

    /// Makes every commit wait from now on.
    pub fn stall(&self) {
        self.commits.shut.send_replace(true);
    }

    /// Lets waiting commits, and all later ones, go on.
    pub fn go_on(&self) {
        self.commits.shut.send_replace(false);
    }

    /// Returns once `count` commits have been stalled since the beginning.
    pub async fn stalled(&self, count: u64) {
        self.commits.waited(count).await;
    }

    /// Makes every look at who leads wait from now on.
    pub fn stall_looks(&self) {
        self.looks.shut.send_replace(true);
    }

    /// Lets waiting looks, and all later ones, go on.
    pub fn looks_go_on(&self) {
        self.looks.shut.send_replace(false);
    }

    /// Returns once `count` looks have been stalled since the beginning.
    pub async fn looks_stalled(&self, count: u64) {
        self.looks.waited(count).await;
    }

    /// What a leader called by now: `commit`, `beat`, `prune`, `reopen`, `look` and `give up`, in order.
    #[must_use]
    pub fn led(&self) -> Vec<&'static str> {
        self.led.borrow().clone()
    }

    /// Returns once a leader has made this call `times` times.
    pub async fn called(&self, call: &str, times: usize) {
        let enough = |led: &Vec<&str>| led.iter().filter(|made| **made == call).count() >= times;
        let _ = self.led.subscribe().wait_for(enough).await;
    }

    /// Notes a call; answers whom this process was deposed by, if it was.
    fn leads(&self, call: &'static str) -> Result<(), StoreError> {
        self.led.send_modify(|led| led.push(call));
        match &self.orders().deposed {
            Some(by) => Err(StoreError::Deposed { by: Some(by.clone()) }),
            None => Ok(()),
        }
    }
}

/// A store that fails on demand.
#[derive(Debug)]
pub struct Faulty<S> {
    inner: S,
    sharing: Option<Sharing>,
    faults: Faults,
    /// After a failed commit nothing is written before the store was opened again.
    in_doubt: bool,
}

impl<S: Store> Faulty<S> {
    /// Wraps `inner`; it behaves like it until told otherwise.
    pub fn new(inner: S) -> (Self, Faults) {
        let faults = Faults { orders: Arc::default(), commits: Gate::new(), looks: Gate::new(), led: Arc::default() };
        let sharing = inner.sharing();
        (Self { inner, sharing, faults: faults.clone(), in_doubt: false }, faults)
    }

    /// The same as a store that brokers share.
    #[must_use]
    pub fn shared(self, sharing: Sharing) -> Self {
        Self { sharing: Some(sharing), ..self }
    }
}

fn failed(doing: &'static str) -> StoreError {
    StoreError::Failed { doing, source: "a fault ordered by a test".into() }
}

impl<S: Store> Store for Faulty<S> {
    type Reader = FaultyReader<S::Reader>;

    async fn load(&mut self) -> Result<Tables, StoreError> {
        self.inner.load().await
    }

    async fn commit(&mut self, batch: &Batch) -> Result<(), StoreError> {
        self.faults.leads("commit")?;
        self.faults.commits.pass().await;
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
        self.faults.leads("reopen")?;
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
        self.faults.leads("prune")?;
        self.inner.prune(before).await
    }

    fn sharing(&self) -> Option<Sharing> {
        self.sharing
    }

    async fn beat(&mut self) -> Result<(), StoreError> {
        self.faults.leads("beat")?;
        self.inner.beat().await
    }

    async fn give_up(&mut self) -> Result<(), StoreError> {
        self.faults.leads("give up")?;
        self.inner.give_up().await
    }

    async fn passed_ms(&mut self) -> Result<Option<u64>, StoreError> {
        self.inner.passed_ms().await
    }

    fn reader(&self) -> Self::Reader {
        FaultyReader { inner: self.inner.reader(), faults: self.faults.clone() }
    }

    fn builds(&self) -> BuildsAt {
        self.inner.builds()
    }

    fn name(&self) -> String {
        self.inner.name()
    }
}

/// A reader of a store that fails on demand.
#[derive(Clone, Debug)]
pub struct FaultyReader<R> {
    inner: R,
    faults: Faults,
}

impl<R: Reader> Reader for FaultyReader<R> {
    async fn confirm(&self) -> Result<(), StoreError> {
        self.faults.leads("look")?;
        self.faults.looks.pass().await;
        {
            let mut orders = self.faults.orders();
            if orders.looks_to_fail > 0 {
                orders.looks_to_fail -= 1;
                return Err(failed("see whether this broker leads"));
            }
            if let Some(by) = &orders.deposed {
                return Err(StoreError::Deposed { by: Some(by.clone()) });
            }
        }
        self.inner.confirm().await
    }

    async fn journal(&self, filter: &JournalFilter) -> Result<Vec<JournalEntry>, StoreError> {
        self.inner.journal(filter).await
    }

    async fn history(
        &self,
        name: &ResourceName,
        before: Option<LeaseId>,
        limit: usize,
    ) -> Result<Vec<PastLease>, StoreError> {
        self.inner.history(name, before, limit).await
    }

    async fn lease(&self, lease: LeaseId) -> Result<Option<PastLease>, StoreError> {
        self.inner.lease(lease).await
    }

    async fn leases(&self, before: Option<LeaseId>, limit: usize) -> Result<Vec<PastLease>, StoreError> {
        self.inner.leases(before, limit).await
    }
}
