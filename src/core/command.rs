//! Commands: every way into the core, and what it answers.
//!
//! A command is what somebody wants, or what the engine found out; it is never stored. Whoever
//! gives one has checked its form; the core checks it against the books.

use std::sync::Arc;

use super::apply::{Change, Declared};
use super::claim::{ClaimEnd, ClaimSpec};
use super::inventory::ResourceSpec;
use super::lease::{LeaseEnd, Outcome};
use super::refusal::Refusal;
use super::session::{Provider, SecretHash, SessionEnd, SessionKind};
use super::types::{ClaimId, Key, LabTime, LeaseId, Owner, ResourceName, SessionId};

/// How long a new session lives without a sign of life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TtlAsk {
    /// This long, milliseconds.
    Exactly(u64),
    /// The longest ttl of these pools, or the default where none of them names one.
    Pools(Vec<Key>),
}

/// Who may do something to a lease: any one of these that fits is enough.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claimant {
    /// The session on whose socket it was asked.
    pub session: Option<SessionId>,
    /// The hash of a release key: the session's secret, or the key of a lease without a socket.
    pub key: Option<SecretHash>,
    /// The owner who asks.
    pub owner: Option<Arc<str>>,
    /// An admin asks.
    pub admin: bool,
    /// What the journal shall say of who it was.
    pub name: Arc<str>,
}

/// What an admin says of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkAct {
    /// Take it out.
    Drain,
    /// Put it back.
    Undrain,
    /// It is unfit.
    Quarantine,
    /// It is fit again.
    Restore,
}

/// A way into the core.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// A process took the books over and accepts connections. Every session is away until it
    /// resumes; until `ReturnGraceOver` its claims keep back as if it were there.
    Start,
    /// The time for sessions to come back after a start is over.
    ReturnGraceOver,
    /// No new grants from here on: the broker is stopping.
    StopGranting,
    /// Grants are possible, or not, as the store works or fails.
    StoreWorks(bool),
    /// Lab time has come to a deadline.
    Tick,
    /// The books are a copy that is put into use: every session of theirs ends, and fences are given
    /// far above those that the original may give. Answers [`Reply::Done`].
    Move {
        /// What people call the store that stays behind.
        from: Arc<str>,
        /// The highest fence known to have been given by any store of this lab.
        last_lease: u64,
    },
    /// Open a session. Answers [`Reply::Opened`].
    OpenSession {
        /// Who it acts for.
        owner: Owner,
        /// How long it lives without a sign of life.
        ttl: TtlAsk,
        /// What resumes it.
        secret: SecretHash,
        /// Socket or keyed.
        kind: SessionKind,
    },
    /// Its socket is up.
    SessionUp(SessionId),
    /// Its socket dropped.
    SessionDown(SessionId),
    /// The broker closed its socket, which is no drop.
    SessionCutOff(SessionId),
    /// It is over: the client closed it, or its ttl is over.
    EndSession {
        /// Which.
        session: SessionId,
        /// How.
        end: SessionEnd,
    },
    /// An admin ends it: claims at once, leases as `ending`.
    Kick {
        /// Which.
        session: SessionId,
        /// Who.
        by: Arc<str>,
    },
    /// Promise it longer than its ttl, or no longer.
    Promise {
        /// Which.
        session: SessionId,
        /// Milliseconds.
        promise_ms: Option<u64>,
    },
    /// Claim resources. Answers [`Reply::Claim`].
    Acquire {
        /// Whose.
        session: SessionId,
        /// The session's number for it.
        request: u64,
        /// What is asked.
        spec: Arc<ClaimSpec>,
    },
    /// Claim resources without a socket, under a key. Answers [`Reply::Claim`].
    AcquireKeyed {
        /// The hash of the key.
        key: SecretHash,
        /// The client's name for the request.
        request_id: Arc<str>,
        /// Who it acts for.
        owner: Owner,
        /// Milliseconds.
        ttl_ms: u64,
        /// What is asked.
        spec: Arc<ClaimSpec>,
    },
    /// Cancel a request of a session; a number not seen yet leaves a tombstone. Answers
    /// [`Reply::Claim`].
    Cancel {
        /// Whose.
        session: SessionId,
        /// The session's number for it.
        request: u64,
    },
    /// Cancel a waiting claim by its number. Answers [`Reply::Done`].
    CancelClaim {
        /// Which.
        claim: ClaimId,
        /// Who asks.
        claimant: Claimant,
    },
    /// Release a lease. Answers [`Reply::Released`]. One that has ended is not on these books:
    /// answers [`Reply::NotHeld`], and the store tells how it ended.
    Release {
        /// Which.
        lease: LeaseId,
        /// Who asks.
        claimant: Claimant,
        /// What the runner says of its work.
        outcome: Option<Outcome>,
    },
    /// Move the end of a hold. Answers [`Reply::Lease`].
    Extend {
        /// Which.
        lease: LeaseId,
        /// Who asks.
        claimant: Claimant,
        /// The new end.
        until: LabTime,
    },
    /// Take a lease back. Answers [`Reply::Done`].
    Revoke {
        /// Which.
        lease: LeaseId,
        /// Who.
        by: Arc<str>,
        /// In the admin's words.
        reason: Option<Arc<str>>,
        /// Without waiting for the holder.
        forced: bool,
    },
    /// The holder of an ending lease has had its ttl.
    EndingOver(LeaseId),
    /// A secret could not be read at hand-out.
    SecretUnavailable {
        /// Which lease.
        lease: LeaseId,
        /// Which resource.
        resource: ResourceName,
        /// Why; never has the value.
        reason: Arc<str>,
    },
    /// Make the file's part of the inventory what the file says. Answers [`Reply::Applied`].
    Apply {
        /// What the file says.
        declared: Arc<Declared>,
        /// Remove what the file no longer has.
        prune: bool,
        /// Even where it removes more than a fifth.
        confirmed: bool,
        /// Change nothing, answer what would.
        dry_run: bool,
    },
    /// A session brings these resources: they are the provider's part of the inventory, all of it.
    /// Answers [`Reply::Applied`].
    Provide {
        /// Which session.
        session: SessionId,
        /// As whom.
        provider: Provider,
        /// What it brings.
        declared: Arc<Declared>,
        /// Even where it removes more than a fifth of what the provider has.
        confirmed: bool,
    },
    /// Declare one resource. Answers [`Reply::Applied`].
    SetResource(Arc<ResourceSpec>),
    /// Remove one resource that was declared so. Answers [`Reply::Applied`].
    RemoveResource(ResourceName),
    /// Say something of a resource. Answers [`Reply::Done`].
    Mark {
        /// Which.
        resource: ResourceName,
        /// What.
        act: MarkAct,
        /// Why.
        reason: Arc<str>,
        /// Who.
        by: Arc<str>,
    },
}

/// Where a claim stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimReply {
    /// It waits.
    Queued(ClaimId),
    /// It is held, or ending.
    Granted(LeaseId),
    /// It was granted and is over.
    LeaseEnded {
        /// The lease.
        lease: LeaseId,
        /// How it ended.
        end: LeaseEnd,
    },
    /// It ended without a lease.
    Ended(ClaimEnd),
}

/// What the core answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// Done, or so already.
    Done,
    /// No.
    Refused(Refusal),
    /// A session is open.
    Opened {
        /// Its number.
        session: SessionId,
        /// Milliseconds.
        ttl_ms: u64,
    },
    /// Where the claim stands.
    Claim {
        /// Whose.
        session: SessionId,
        /// The session's number for it.
        request: u64,
        /// Where.
        stands: ClaimReply,
    },
    /// The lease as it is now.
    Lease(LeaseId),
    /// It is over.
    Released {
        /// Which.
        lease: LeaseId,
        /// How it ended.
        end: LeaseEnd,
    },
    /// It is not held (any more).
    NotHeld(LeaseId),
    /// The inventory is so now, or would be.
    Applied {
        /// What changes.
        changes: Vec<Change>,
        /// How many resources stay as they are.
        unchanged: usize,
        /// Whether it was done.
        applied: bool,
    },
}
