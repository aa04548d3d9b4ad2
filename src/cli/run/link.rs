//! The guard as seen from `run`'s event loop: orders go in without waiting, words come out.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::guard::talk::{self, Lines, Order, Word};
use super::handle::GuardHandle;
use super::tree::{self, Tree};

/// Orders that may wait for the guard to listen. A guard that is this far behind was stopped, and
/// `run` then acts in its place at the deadline.
const ORDERS_MAX: usize = 64;
/// Words that may wait for `run`; the guard has four to say.
const WORDS_MAX: usize = 8;
/// How long the guard may take to hear that it is done and to leave.
const LEAVE: Duration = Duration::from_secs(1);
/// How long is tried to kill what the kernel does not let die.
const KILL_TRIES: u32 = 3_000;

/// The way to a guard.
#[derive(Debug)]
pub struct GuardLink {
    orders: mpsc::Sender<Order>,
    words: mpsc::Receiver<Word>,
    writer: JoinHandle<()>,
}

impl GuardLink {
    /// Takes the socket over; needs the runtime.
    pub fn new(guard: GuardHandle) -> std::io::Result<Self> {
        guard.socket.set_nonblocking(true)?;
        let (read, write) = tokio::net::UnixStream::from_std(guard.socket)?.into_split();
        let (orders, inbox) = mpsc::channel(ORDERS_MAX);
        let (tell, words) = mpsc::channel(WORDS_MAX);
        tokio::spawn(hear(read, tell));
        Ok(Self { orders, words, writer: tokio::spawn(speak(write, inbox)) })
    }

    /// Sends an order; one that does not fit any more is dropped.
    pub fn order(&self, order: Order) {
        let _ = self.orders.try_send(order);
    }

    /// For who sends orders from another task.
    #[must_use]
    pub fn orders(&self) -> mpsc::Sender<Order> {
        self.orders.clone()
    }

    /// The next word; `None` when the guard is gone. May be dropped and called again.
    pub async fn word(&mut self) -> Option<Word> {
        self.words.recv().await
    }

    /// Everything is given back: lets the guard go and waits a little until it has gone.
    pub async fn done(mut self) {
        let _ = self.orders.send_timeout(Order::Done, LEAVE).await;
        drop(self.orders);
        let _ = tokio::time::timeout(LEAVE, async {
            let _ = self.writer.await;
            while self.words.recv().await.is_some() {}
        })
        .await;
    }
}

async fn speak(mut socket: OwnedWriteHalf, mut inbox: mpsc::Receiver<Order>) {
    while let Some(order) = inbox.recv().await {
        let last = order == Order::Done;
        if socket.write_all(&talk::line(&order)).await.is_err() {
            return;
        }
        if last {
            break;
        }
    }
    // Closing while `run` lives and is not done would be taken for its death.
    socket.forget();
}

async fn hear(mut socket: OwnedReadHalf, tell: mpsc::Sender<Word>) {
    let mut lines = Lines::default();
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = socket.read(&mut bytes).await {
        for word in lines.push(&bytes[..count]) {
            if tell.send(word).await.is_err() {
                return;
            }
        }
    }
}

/// In the place of a guard that is dead or stopped: kills it and everything that was below it.
/// Answers whether nothing is left.
pub async fn kill_everything(mut tree: Tree) -> bool {
    let killing = tokio::task::spawn_blocking(move || {
        for _ in 0..KILL_TRIES {
            tree.signal(nix::sys::signal::Signal::SIGKILL);
            drop(tree::reap());
            if tree.is_empty() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    });
    killing.await.unwrap_or(false)
}
