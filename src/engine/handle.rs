//! The one door to the engine, for the server and whatever else runs beside it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::input::{Input, KeyedCall, LastRead, Outgoing, SocketId, Told};
use super::metrics::Metrics;
use super::view::View;
use crate::clock::BootTime;
use crate::core::command::Command;
use crate::core::session::SecretHash;
use crate::protocol::error::{RpcError, code};

/// Inputs that wait for the engine. When it is full whoever brings one waits, which slows the
/// sockets' reading and nothing else.
pub const INPUTS_MAX: usize = 8_192;

/// What is known of the engine from outside without asking it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Number of the last event that is durable; followers of the journal wait for it to grow.
    pub last_event: u64,
    /// What the store said when it failed, while it fails.
    pub store_failure: Option<Arc<str>>,
    /// Whether the broker is stopping.
    pub stopping: bool,
    /// Whether the engine ended, as another broker leads, or may.
    pub ended: bool,
}

/// A way to talk to the engine; cloned freely.
#[derive(Clone)]
pub struct Handle {
    inputs: mpsc::Sender<Input>,
    sockets: Arc<AtomicU64>,
    health: watch::Receiver<Health>,
    metrics: Arc<Metrics>,
    hand_over: Arc<Notify>,
}

impl Handle {
    pub(crate) fn new(
        inputs: mpsc::Sender<Input>,
        health: watch::Receiver<Health>,
        metrics: Arc<Metrics>,
        hand_over: Arc<Notify>,
    ) -> Self {
        Self { inputs, sockets: Arc::new(AtomicU64::new(1)), health, metrics, hand_over }
    }

    /// What the engine counted.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Says that connections are accepted from now on: every session has a full ttl from here.
    ///
    /// # Errors
    /// When the engine is gone.
    pub async fn accepting(&self) -> Result<(), RpcError> {
        self.send(Input::Accepting).await
    }

    /// Makes a new socket known, with room for `outbound_max` messages that it has not sent yet.
    ///
    /// # Errors
    /// When the engine is gone.
    pub async fn attach(
        &self,
        outbound_max: usize,
    ) -> Result<(SocketId, mpsc::Receiver<Box<Outgoing>>, LastRead), RpcError> {
        let socket = self.sockets.fetch_add(1, Ordering::Relaxed);
        let (outbox, outgoing) = mpsc::channel(outbound_max);
        let last_read = LastRead::default();
        self.send(Input::Attach { socket, outbox, last_read: last_read.clone() }).await?;
        Ok((socket, outgoing, last_read))
    }

    /// Hands an input over, waiting while the engine is behind.
    ///
    /// # Errors
    /// When the engine is gone.
    pub async fn send(&self, input: Input) -> Result<(), RpcError> {
        self.inputs.send(input).await.map_err(|_| gone())
    }

    /// Gives a command and waits until what came of it is durable.
    ///
    /// # Errors
    /// What the core refuses, or that it could not be stored.
    pub async fn command(&self, command: Command) -> Result<Told, RpcError> {
        let (answer, told) = oneshot::channel();
        self.send(Input::Command { command: Box::new(command), answer }).await?;
        told.await.map_err(|_| gone())?
    }

    /// Makes a call under the key of a lease without a socket.
    ///
    /// # Errors
    /// What the core refuses, or that it could not be stored.
    pub async fn keyed(&self, at: BootTime, key: SecretHash, call: KeyedCall) -> Result<Told, RpcError> {
        let (answer, told) = oneshot::channel();
        self.send(Input::Keyed { at, key, call, answer, confirmed: false }).await?;
        told.await.map_err(|_| gone())?
    }

    /// Asks the books; the answer leaves when what it saw is durable.
    ///
    /// # Errors
    /// When what it saw turned out not to be durable.
    pub async fn read<T: Send + 'static>(
        &self,
        question: impl FnOnce(&View<'_>) -> T + Send + 'static,
    ) -> Result<T, RpcError> {
        let (answer, told) = oneshot::channel();
        let reading = move |view: &View<'_>| {
            let seen = question(view);
            let release: super::input::Release = Box::new(move |durable| {
                let _ = answer.send(durable.map(|()| seen));
            });
            release
        };
        self.send(Input::Read(Box::new(reading))).await?;
        told.await.map_err(|_| gone())?
    }

    /// Whether the engine has ended, or is about to.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.inputs.is_closed()
    }

    /// Begins the planned stop and waits until it may proceed.
    pub async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        if self.send(Input::Stop { done }).await.is_ok() {
            let _ = stopped.await;
        }
    }

    /// Hands the lead over, where brokers share the store: the engine takes nothing more in, waits for
    /// the write under way, gives the lead up and ends. What it was asked and had not stored by then
    /// is answered `unavailable`. Its task says how it ended. Sockets hear nothing more, and whoever
    /// serves them closes them.
    pub fn hand_over(&self) {
        self.hand_over.notify_one();
    }

    /// What is known of the engine without asking it; changes can be awaited.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }
}

fn gone() -> RpcError {
    RpcError::new(
        code::UNAVAILABLE,
        "the broker is going down, or another leads: connect again, and repeat with the same request_id",
    )
}
