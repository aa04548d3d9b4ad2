//! The smallest server that could be a lease broker: WebSocket and JSON in front, one thread that
//! writes to SQLite behind. Each reply is sent after the transaction that holds its change has been
//! committed. No queue, no expiry, no matching: a probe for what transport and disk allow, not a
//! design.
//!
//! `--synchronous FULL|NORMAL|NONE` (`NONE`: no database at all), `--events 1` inserts a row for
//! each change beside it, as a journal does.

use std::path::Path;
use std::sync::mpsc;

use anyhow::Result;
use futures_util::{SinkExt, StreamExt};
use leasehold_peers::Options;
use leasehold_peers::bare::{Reply, Request};
use rusqlite::{Connection, params};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

const POOL: i64 = 4000;
const MAX_BATCH: usize = 1024;

enum Op {
    Acquire,
    Release { resource: i64, lease: i64 },
}

struct Job {
    op: Op,
    holder: String,
    /// (resource, lease), or None when refused.
    done: oneshot::Sender<Option<(i64, i64)>>,
}

struct Store {
    db: Option<Connection>,
    events: bool,
    free: Vec<i64>,
    lease: Vec<i64>,
    held: Vec<bool>,
}

const SCHEMA: &str = "
CREATE TABLE resources (id INTEGER PRIMARY KEY, holder TEXT, lease INTEGER NOT NULL, expires_at INTEGER);
CREATE TABLE events (seq INTEGER PRIMARY KEY, resource INTEGER NOT NULL, kind TEXT NOT NULL,
                     holder TEXT NOT NULL, at INTEGER NOT NULL);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000)
INSERT INTO resources SELECT i, NULL, 0, NULL FROM n;";

impl Store {
    fn open(path: &Path, synchronous: &str, events: bool) -> Result<Self> {
        let db = if synchronous == "NONE" {
            None
        } else {
            for suffix in ["", "-wal", "-shm"] {
                let _ = std::fs::remove_file(format!("{}{suffix}", path.display()));
            }
            let db = Connection::open(path)?;
            db.pragma_update(None, "journal_mode", "WAL")?;
            db.pragma_update(None, "synchronous", synchronous)?;
            db.execute_batch(SCHEMA)?;
            Some(db)
        };
        let n = POOL as usize + 1;
        Ok(Self { db, events, free: (1..=POOL).rev().collect(), lease: vec![0; n], held: vec![false; n] })
    }

    fn decide(&mut self, op: &Op) -> Option<(i64, i64)> {
        match *op {
            Op::Acquire => {
                let id = self.free.pop()?;
                self.lease[id as usize] += 1;
                self.held[id as usize] = true;
                Some((id, self.lease[id as usize]))
            }
            Op::Release { resource, lease } => {
                let i = usize::try_from(resource).ok().filter(|i| *i < self.held.len())?;
                if !self.held[i] || self.lease[i] != lease {
                    return None;
                }
                self.held[i] = false;
                self.free.push(resource);
                Some((resource, lease))
            }
        }
    }

    fn commit(&mut self, jobs: &[Job]) -> Result<Vec<Option<(i64, i64)>>> {
        let decided: Vec<_> = jobs.iter().map(|j| self.decide(&j.op)).collect();
        let Some(db) = &mut self.db else { return Ok(decided) };
        let tx = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        {
            let mut update =
                tx.prepare_cached("UPDATE resources SET holder = ?2, lease = ?3, expires_at = ?4 WHERE id = ?1")?;
            let mut event =
                tx.prepare_cached("INSERT INTO events (resource, kind, holder, at) VALUES (?1, ?2, ?3, ?4)")?;
            for (job, got) in jobs.iter().zip(&decided) {
                let Some((resource, lease)) = got else { continue };
                let at = 1_800_000_000_000_i64;
                let kind = match job.op {
                    Op::Acquire => {
                        update.execute(params![resource, job.holder, lease, at])?;
                        "acquired"
                    }
                    Op::Release { .. } => {
                        update.execute(params![resource, None::<&str>, lease, None::<i64>])?;
                        "released"
                    }
                };
                if self.events {
                    event.execute(params![resource, kind, job.holder, at])?;
                }
            }
        }
        tx.commit()?;
        Ok(decided)
    }
}

fn writer(mut store: Store, jobs: mpsc::Receiver<Job>) -> Result<()> {
    let mut batch = Vec::with_capacity(MAX_BATCH);
    while let Ok(first) = jobs.recv() {
        batch.push(first);
        while batch.len() < MAX_BATCH {
            match jobs.try_recv() {
                Ok(job) => batch.push(job),
                Err(_) => break,
            }
        }
        let decided = store.commit(&batch)?;
        for (job, got) in batch.drain(..).zip(decided) {
            let _ = job.done.send(got);
        }
    }
    Ok(())
}

async fn connection(stream: TcpStream, jobs: mpsc::Sender<Job>) -> Result<()> {
    let config = WebSocketConfig::default().read_buffer_size(4096).write_buffer_size(4096);
    let mut ws = tokio_tungstenite::accept_async_with_config(stream, Some(config)).await?;
    while let Some(message) = ws.next().await {
        let Message::Text(text) = message? else { continue };
        let request: Request = serde_json::from_str(&text)?;
        let op = if request.kind == "acquire" {
            Op::Acquire
        } else {
            Op::Release { resource: request.resource, lease: request.lease }
        };
        let (done, wait) = oneshot::channel();
        jobs.send(Job { op, holder: request.client.to_owned(), done })?;
        let reply = match wait.await? {
            Some((resource, lease)) => Reply {
                kind: if request.kind == "acquire" { "acquired" } else { "released" },
                id: request.id,
                pool: request.pool,
                resource,
                lease,
                expires_at_ms: 1_800_000_000_000,
            },
            None => {
                Reply { kind: "refused", id: request.id, pool: request.pool, resource: 0, lease: 0, expires_at_ms: 0 }
            }
        };
        ws.send(Message::Text(serde_json::to_string(&reply)?.into())).await?;
    }
    Ok(())
}

async fn serve(o: Options) -> Result<()> {
    let store =
        Store::open(Path::new(&o.text("db", "ceiling.db")), &o.text("synchronous", "FULL"), o.get("events", 0)? == 1)?;
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        if let Err(e) = writer(store, receiver) {
            eprintln!("writer: {e:#}");
            std::process::exit(1);
        }
    });
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(o.text("addr", "127.0.0.1:7500").parse()?)?;
    let listener = socket.listen(4096)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(connection(stream, sender.clone()));
    }
}

fn main() -> Result<()> {
    let o = Options::from_env()?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(o))
}
