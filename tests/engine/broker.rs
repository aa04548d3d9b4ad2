//! The engine's task over a real store that fails on demand.

use std::path::PathBuf;
use std::sync::Arc;

use leasehold::clock::boot_now;
use leasehold::core::claim::ClaimSpec;
use leasehold::core::command::TtlAsk;
use leasehold::core::tables::Tables;
use leasehold::core::types::LeaseId;
use leasehold::engine::handle::Handle;
use leasehold::engine::input::{Answer, Call, Input, Notice, Outgoing, SocketId};
use leasehold::engine::machine::Options;
use leasehold::engine::{Ended, start};
use leasehold::protocol::error::RpcError;
use leasehold::protocol::info::ClaimInfo;
use leasehold::protocol::rpc::Id;
use leasehold::store::faulty::{Faults, Faulty};
use leasehold::store::sqlite::Sqlite;
use leasehold::store::{Sharing, Store as _};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::lab::GRACE_MS;
use super::words;

/// Far longer than any test: nothing here comes about by an expiry.
pub const TTL: u64 = 600_000;

pub struct Broker {
    pub handle: Handle,
    pub faults: Faults,
    task: JoinHandle<Ended>,
    folder: TempDir,
}

impl Broker {
    pub async fn of(pools: &[(&str, usize)]) -> Self {
        let broker = Self::over(TempDir::new().unwrap()).await;
        broker.handle.command(words::inventory(pools)).await.expect("an inventory");
        broker
    }

    /// A broker that leads a store which others share.
    pub async fn leading(pools: &[(&str, usize)], sharing: Sharing) -> Self {
        let broker = Self::begin(TempDir::new().unwrap(), Some(sharing)).await;
        broker.handle.command(words::inventory(pools)).await.expect("an inventory");
        broker
    }

    async fn over(folder: TempDir) -> Self {
        Self::begin(folder, None).await
    }

    async fn begin(folder: TempDir, sharing: Option<Sharing>) -> Self {
        let (store, faults) = Faulty::new(Sqlite::open(path(&folder)).await.unwrap());
        let store = sharing.into_iter().fold(store, Faulty::shared);
        let options = Options { limits: Default::default(), restart_grace_ms: GRACE_MS };
        let (handle, task) = start(store, options, 0).await.unwrap();
        handle.accepting().await.unwrap();
        Self { handle, faults, task, folder }
    }

    /// What the store holds when the engine is gone.
    pub async fn stored(self) -> Tables {
        let Self { handle, task, folder, .. } = self;
        drop(handle);
        task.await.unwrap();
        let mut store = Sqlite::open(path(&folder)).await.unwrap();
        let tables = store.load().await.unwrap();
        store.close().await;
        tables
    }

    /// Another process over what the store holds. Clients of this one must be gone.
    pub async fn restarted(self) -> Self {
        let Self { handle, task, folder, .. } = self;
        drop(handle);
        task.await.unwrap();
        Self::over(folder).await
    }

    /// How the engine ends, of which nobody let go. What it holds can still be asked.
    pub async fn ended(&mut self) -> Ended {
        (&mut self.task).await.unwrap()
    }

    pub async fn client(&self) -> Client {
        let mut client = self.connect(4_096).await;
        let secret = format!("secret-{}", client.socket);
        let call = Call::Open {
            instance: "instance".into(),
            owner: words::owner(),
            ttl: TtlAsk::Exactly(TTL),
            secret: secret.as_str().into(),
            hash: words::hash(&secret),
        };
        let Ok(Answer::Opened(opened, _)) = client.call(call).await else { panic!("no session") };
        client.session = opened.session;
        client.renewal = opened.renewed.renewal;
        client
    }

    pub async fn connect(&self, outbound_max: usize) -> Client {
        let (socket, outbox, _) = self.handle.attach(outbound_max).await.unwrap();
        Client { handle: self.handle.clone(), socket, outbox, session: 0, renewal: 0, numbers: 0, told: Vec::new() }
    }

    /// Waits until the store is known to fail, or to work.
    pub async fn store_is(&self, fails: bool) {
        let mut health = self.handle.health();
        health.wait_for(|health| health.store_failure.is_some() == fails).await.expect("an engine");
    }
}

fn path(folder: &TempDir) -> PathBuf {
    folder.path().join("lab.db")
}

/// A client on a socket.
pub struct Client {
    handle: Handle,
    pub socket: SocketId,
    outbox: mpsc::Receiver<Box<Outgoing>>,
    pub session: u64,
    pub renewal: u64,
    numbers: u64,
    /// What was told unasked, and answers nobody waited for.
    pub told: Vec<Outgoing>,
}

impl Client {
    pub async fn send(&mut self, call: Call) -> Id {
        self.numbers += 1;
        let id = Id::Number(self.numbers);
        let input = Input::Call { socket: self.socket, at: boot_now(), id: Some(id.clone()), call };
        self.handle.send(input).await.expect("an engine");
        id
    }

    /// The next message; `None` once the engine gave the socket up.
    pub async fn next(&mut self) -> Option<Outgoing> {
        self.outbox.recv().await.map(|outgoing| *outgoing)
    }

    pub async fn answer(&mut self, id: &Id) -> Result<Answer, RpcError> {
        let known = self.told.iter().position(|told| matches!(told, Outgoing::Answer { id: of, .. } if of == id));
        if let Some(Outgoing::Answer { result, .. }) = known.map(|at| self.told.remove(at)) {
            return result;
        }
        loop {
            match self.next().await.expect("a socket") {
                Outgoing::Answer { id: of, result } if of == *id => return result,
                other => self.told.push(other),
            }
        }
    }

    pub async fn call(&mut self, call: Call) -> Result<Answer, RpcError> {
        let id = self.send(call).await;
        self.answer(&id).await
    }

    pub async fn renew(&mut self) {
        let renewal = self.renewal;
        match self.call(Call::Renew { renewal }).await {
            Ok(Answer::Renewed(renewed)) => self.renewal = renewed.renewal,
            other => panic!("{other:?}"),
        }
    }

    pub async fn send_acquire(&mut self, request: u64, spec: ClaimSpec) -> Id {
        self.send(Call::Acquire { request, spec: Arc::new(spec) }).await
    }

    pub async fn acquire(&mut self, request: u64, needs: &[&str]) -> Result<ClaimInfo, String> {
        let id = self.send_acquire(request, words::claim(needs)).await;
        claim_of(self.answer(&id).await)
    }

    pub async fn release(&mut self, lease: u64) -> Result<Answer, RpcError> {
        self.call(Call::Release { lease: LeaseId(lease), outcome: None }).await
    }

    /// Waits for a notice that a claim is granted.
    pub async fn granted(&mut self) -> ClaimInfo {
        loop {
            match self.next().await.expect("a socket") {
                Outgoing::Notice(Notice::Granted(told)) => return told.info,
                other => self.told.push(other),
            }
        }
    }

    /// Closes the socket with 1000, or drops it.
    pub async fn leave(self, clean: bool) {
        self.handle.send(Input::Detach { socket: self.socket, clean }).await.expect("an engine");
    }
}

/// A claim as it was told, or the code of the refusal.
pub fn claim_of(answer: Result<Answer, RpcError>) -> Result<ClaimInfo, String> {
    match answer {
        Ok(Answer::Claim(told)) => Ok(told.info),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error.data.code),
    }
}
