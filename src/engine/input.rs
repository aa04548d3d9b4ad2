//! What goes into the engine and what comes out of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, oneshot};

use crate::clock::BootTime;
use crate::core::apply::Declared;
use crate::core::claim::ClaimSpec;
use crate::core::command::{Command, TtlAsk};
use crate::core::inventory::SecretRef;
use crate::core::lease::Outcome;
use crate::core::session::{Provider, SecretHash};
use crate::core::types::{LabTime, LeaseId, Owner, SessionId};
use crate::protocol::call::{
    Done, LeaseEndingNotice, LeaseExtended, LeaseReach, LeaseReleased, ProviderSuperseded, SessionOpened,
    SessionRenewed, SessionState, StoreNotice,
};
use crate::protocol::error::{CloseReason, RpcError};
use crate::protocol::info::{ApplyInfo, ClaimInfo};
use crate::protocol::rpc::Id;
use crate::units::hex;

/// What the books keep of a secret.
#[must_use]
pub fn secret_hash(secret: &str) -> SecretHash {
    SecretHash(hex(&Sha256::digest(secret.as_bytes())).into())
}

/// A socket's number; never used twice in a process.
pub type SocketId = u64;

/// When something was last read from a socket, shared between the task that reads it and the
/// engine: an expiry is decided only after everything already read was counted.
#[derive(Clone, Debug, Default)]
pub struct LastRead(Arc<AtomicU64>);

impl LastRead {
    /// Notes that something was read. To be called before anything is done with it.
    pub fn note(&self, at: BootTime) {
        self.0.fetch_max(at.0, Ordering::SeqCst);
    }

    /// The newest moment noted.
    #[must_use]
    pub fn at(&self) -> BootTime {
        BootTime(self.0.load(Ordering::SeqCst))
    }
}

/// When and how a process takes the books over.
#[derive(Clone, Copy, Debug)]
pub struct Takeover {
    /// This process's clock.
    pub at: BootTime,
    /// The wall clock, Unix milliseconds.
    pub wall_ms: i64,
    /// What the store's own clock says has passed since the last batch in it, milliseconds; `None`
    /// where it has none, and this machine's wall clock is asked.
    pub passed_ms: Option<u64>,
    /// Whether other brokers share the store: then nobody is given time before this process was found
    /// to lead since it was asked for.
    pub shared: bool,
}

/// Something for the engine.
pub enum Input {
    /// A socket was accepted.
    Attach {
        /// Its number.
        socket: SocketId,
        /// Where its answers go. Bounded: a full one means a slow reader, who is disconnected.
        /// Boxed, as a channel keeps room for some messages even while there are none.
        outbox: mpsc::Sender<Box<Outgoing>>,
        /// Where its reading task notes signs of life.
        last_read: LastRead,
    },
    /// A call came in on a socket.
    Call {
        /// On which.
        socket: SocketId,
        /// When it was read.
        at: BootTime,
        /// What ties the answer to it; a notification has none and gets no answer.
        id: Option<Id>,
        /// What is asked.
        call: Call,
    },
    /// A ping or pong came in.
    Alive {
        /// On which socket.
        socket: SocketId,
        /// When it was read.
        at: BootTime,
    },
    /// A socket is gone.
    Detach {
        /// Which.
        socket: SocketId,
        /// Whether the client closed it cleanly (1000 or no code, before the broker sent a Close).
        clean: bool,
    },
    /// The broker has closed a socket, or given it up. That is no drop: its session is not
    /// connected, and pools that free at a drop free nothing.
    CutOff {
        /// Which.
        socket: SocketId,
    },
    /// Something that did not come over a socket: HTTP, the inventory watcher, the broker itself.
    Command {
        /// What.
        command: Box<Command>,
        /// Gets the answer once it is durable.
        answer: oneshot::Sender<Result<Told, RpcError>>,
    },
    /// A request under the key of a lease without a socket: a sign of life of its session.
    Keyed {
        /// When it was received.
        at: BootTime,
        /// The hash of the key.
        key: SecretHash,
        /// What is asked.
        call: KeyedCall,
        /// Gets the answer once it is durable.
        answer: oneshot::Sender<Result<Told, RpcError>>,
        /// Whether this process was found to lead since it came in: `false` for whoever hands it over.
        confirmed: bool,
    },
    /// A question to the books, answered when what it saw is durable.
    Read(Box<dyn FnOnce(&super::view::View<'_>) -> Release + Send>),
    /// Connections are accepted from now on.
    Accepting,
    /// The planned stop begins: no more grants, sessions are asked to renew.
    Stop {
        /// Told when every session has renewed or 5 s are over, and all is stored.
        done: oneshot::Sender<()>,
    },
}

/// What a reading hands back: to be called when what was read is durable, or with an error when
/// it turned out not to be.
pub type Release = Box<dyn FnOnce(Result<(), RpcError>) + Send>;

/// A call on a socket, its form checked.
#[derive(Clone, Debug)]
pub enum Call {
    /// Open a session.
    Open {
        /// The client's random text.
        instance: Arc<str>,
        /// Who it acts for.
        owner: Owner,
        /// How long it lives without a sign of life.
        ttl: TtlAsk,
        /// What resumes it, for the answer.
        secret: Arc<str>,
        /// Its hash, for the books.
        hash: SecretHash,
    },
    /// Resume one.
    Resume {
        /// Which.
        session: SessionId,
        /// The hash of what the client says is its secret.
        hash: SecretHash,
        /// The client's random text.
        instance: Arc<str>,
        /// The number of the answer the client counts by.
        renewal: u64,
    },
    /// Renew.
    Renew {
        /// The number of the answer the client counts by.
        renewal: u64,
    },
    /// Close.
    Close {
        /// Another session than the socket's, with the hash of its secret.
        other: Option<(SessionId, SecretHash)>,
    },
    /// Claim resources.
    Acquire {
        /// The session's number for it.
        request: u64,
        /// What is asked.
        spec: Arc<ClaimSpec>,
    },
    /// Cancel a request.
    Cancel {
        /// The session's number for it.
        request: u64,
    },
    /// Release a lease.
    Release {
        /// Which.
        lease: LeaseId,
        /// What the runner says of its work.
        outcome: Option<Outcome>,
    },
    /// Move the end of a hold.
    Extend {
        /// Which.
        lease: LeaseId,
        /// The new end.
        until: LabTime,
    },
    /// Everything of the session that is open.
    List,
    /// Bring resources along.
    Provide {
        /// As whom.
        provider: Provider,
        /// All of them.
        declared: Arc<Declared>,
        /// Even where it removes more than a fifth of what the provider had.
        confirmed: bool,
    },
}

/// A call under the key of a lease without a socket.
#[derive(Clone, Debug)]
pub enum KeyedCall {
    /// Claim resources, or ask again for the same.
    Acquire {
        /// The client's name for the request.
        request_id: Arc<str>,
        /// Who it acts for.
        owner: Owner,
        /// Milliseconds.
        ttl_ms: u64,
        /// What is asked.
        spec: Arc<ClaimSpec>,
    },
    /// How the claim stands: waiting, granted or ended. A sign of life.
    Ask,
    /// Say a sign of life and get the promise.
    Renew,
    /// Release it, or cancel the claim.
    Release {
        /// What the runner says of its work.
        outcome: Option<Outcome>,
    },
    /// Move the end of the hold.
    Extend {
        /// The new end.
        until: LabTime,
    },
}

/// Which secrets of a lease are to be read at hand-out: per alias, per pick in order.
pub type SecretRefs = BTreeMap<String, Vec<BTreeMap<String, SecretRef>>>;

/// A claim as told to its holder: the server reads the secrets before it leaves.
#[derive(Clone, Debug)]
pub struct ClaimTold {
    /// All but the secrets.
    pub info: ClaimInfo,
    /// Where the secrets are to be read, when it is granted and has any.
    pub secrets: SecretRefs,
}

/// An answer on its way to a socket, durable.
#[derive(Clone, Debug)]
pub enum Answer {
    /// To open and resume. The claims' secrets, by request, in `secrets`.
    Opened(Box<SessionOpened>, BTreeMap<u64, SecretRefs>),
    /// To renew.
    Renewed(SessionRenewed),
    /// To acquire and cancel.
    Claim(Box<ClaimTold>),
    /// To release.
    Released(LeaseReleased),
    /// To extend.
    Lease(Box<LeaseExtended>),
    /// To list.
    State(Box<SessionState>),
    /// To provide.
    Applied(Box<ApplyInfo>),
    /// To close.
    Done(Done),
}

/// Something told unasked, durable.
#[derive(Clone, Debug)]
pub enum Notice {
    /// A waiting claim is granted.
    Granted(Box<ClaimTold>),
    /// A lease is to end.
    Ending(LeaseEndingNotice),
    /// A lease is over.
    Ended(LeaseReleased),
    /// A hold has another end.
    Extended(Box<LeaseExtended>),
    /// Resources of a lease are offline.
    Offline(LeaseReach),
    /// Resources of a lease are online again.
    Online(LeaseReach),
    /// Another session provides under the name.
    Superseded(ProviderSuperseded),
    /// A claim waits at another place, or for another reason.
    Waiting(Box<ClaimInfo>),
    /// A claim ended without a lease.
    ClaimEnded(Box<ClaimInfo>),
    /// Renew at once.
    RenewNow,
    /// The store fails, or works again.
    Store(StoreNotice),
}

/// Something for a socket.
#[derive(Clone, Debug)]
pub enum Outgoing {
    /// An answer to a call.
    Answer {
        /// Which.
        id: Id,
        /// What came of it.
        result: Result<Answer, RpcError>,
    },
    /// Something told unasked.
    Notice(Notice),
    /// The session's ttl is this: ping every min(ttl/3, 20 s).
    PingEvery {
        /// Milliseconds.
        ms: u64,
    },
    /// Send this Close and be gone.
    Close {
        /// Why.
        reason: CloseReason,
        /// More words for people.
        text: String,
    },
}

/// What a command or keyed call came to, durable.
#[derive(Clone, Debug)]
pub enum Told {
    /// Done, or so already.
    Done(Done),
    /// A claim without a socket.
    Claim(Box<ClaimTold>),
    /// The promise to a lease without a socket.
    Renewed(SessionRenewed),
    /// A lease.
    Lease(Box<LeaseExtended>),
    /// A lease is over.
    Released(LeaseReleased),
    /// A lease is not held (any more): the store tells how it ended.
    NotHeld(LeaseId),
    /// An inventory was applied, or would be.
    Applied(ApplyInfo),
}
