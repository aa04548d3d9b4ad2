//! Doubles for the server's tests: an engine whose inputs the test reads, and an empty store.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use super::front::{Front, Process};
use super::http::router;
use super::limits::Limits;
use super::listen::listen;
use super::shared::{App, Inventory, Shared};
use crate::core::tables::{JournalEntry, JournalFilter, PastLease};
use crate::core::types::{LeaseId, ResourceName};
use crate::engine::handle::{Handle, Health};
use crate::engine::input::{Input, Outgoing, SocketId};
use crate::store::{Reader, StoreError};

/// A store with nothing in it.
#[derive(Clone)]
pub(super) struct Nothing;

impl Reader for Nothing {
    async fn journal(&self, _: &JournalFilter) -> Result<Vec<JournalEntry>, StoreError> {
        Ok(Vec::new())
    }
    async fn history(&self, _: &ResourceName, _: Option<LeaseId>, _: usize) -> Result<Vec<PastLease>, StoreError> {
        Ok(Vec::new())
    }
    async fn lease(&self, _: LeaseId) -> Result<Option<PastLease>, StoreError> {
        Ok(None)
    }
    async fn leases(&self, _: Option<LeaseId>, _: usize) -> Result<Vec<PastLease>, StoreError> {
        Ok(Vec::new())
    }
}

/// A server whose engine is the test.
pub(super) struct Double {
    pub(super) address: SocketAddr,
    pub(super) inputs: mpsc::Receiver<Input>,
    pub(super) shared: Arc<Shared>,
    /// Kept, as the engine's health is asked for after.
    _health: watch::Sender<Health>,
}

impl Double {
    pub(super) async fn start(limits: Limits) -> Self {
        let (sender, inputs) = mpsc::channel(64);
        let (health, healthy) = watch::channel(Health::default());
        let (_, error) = watch::channel(None);
        let handle = Handle::new(sender, healthy, Arc::default(), Arc::default());
        let process = Arc::new(Process::new(limits, false, "nowhere".into(), None));
        let shared = Arc::new(Shared::new(process.clone(), handle, Inventory { file: None, error }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = App { shared: shared.clone(), reader: Nothing };
        tokio::spawn(listen(listener, Arc::new(Front::new(process, router(app)))));
        Self { address, inputs, shared, _health: health }
    }

    /// The next input; panics when there is none any more.
    pub(super) async fn input(&mut self) -> Input {
        self.inputs.recv().await.unwrap()
    }

    /// The socket that was accepted next, with its outbox.
    pub(super) async fn attached(&mut self) -> (SocketId, mpsc::Sender<Box<Outgoing>>) {
        match self.input().await {
            Input::Attach { socket, outbox, .. } => (socket, outbox),
            _ => panic!("another input than an attach"),
        }
    }

    /// How the next socket to go is told to have gone, past its signs of life.
    pub(super) async fn detached(&mut self) -> bool {
        loop {
            match self.input().await {
                Input::Detach { clean, .. } => return clean,
                Input::CutOff { .. } => return false,
                Input::Alive { .. } | Input::Call { .. } => {}
                _ => panic!("another input than a detach"),
            }
        }
    }
}
