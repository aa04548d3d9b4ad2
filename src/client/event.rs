//! What a session tells its user: events, and where each lease stands.
//!
//! Data only: made by the machine, handed on by the driver.

use std::sync::Arc;

use super::error::ClientError;
use crate::clock::BootTime;
use crate::protocol::call::ProviderSuperseded;
use crate::protocol::info::{ClaimInfo, EndingInfo, LeaseInfo};

/// Something that happened to the session, its claims or its leases.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The session is open, or resumed.
    Connected {
        /// Its number.
        session: u64,
        /// Which of the URLs answered, by its place in the list.
        url: usize,
        /// Whether it was there before.
        resumed: bool,
    },
    /// An attempt to reach a broker at one URL failed; the next one follows by itself.
    ConnectFailed {
        /// Which of the URLs, by its place in the list.
        url: usize,
        /// Why, for people.
        why: String,
    },
    /// All URLs were tried, and there was no broker behind any. The next round follows by
    /// itself, after a pause.
    NoBroker {
        /// What was wrong with each, for people.
        why: String,
    },
    /// The socket dropped; leases and places are kept, and the session resumes by itself.
    Disconnected {
        /// Why, for people.
        why: String,
    },
    /// A claim waits: its place, who is in its way, or what blocks it is new.
    Queued(Arc<ClaimInfo>),
    /// A claim is granted.
    Granted {
        /// The lease.
        lease: Arc<LeaseInfo>,
        /// When its use must have ended unless renewed.
        deadline: BootTime,
    },
    /// A claim ended without a lease.
    ClaimEnded {
        /// The session's number for it.
        request_id: u64,
        /// Why.
        error: ClientError,
    },
    /// A lease is to end: stop using it and release it before the deadline, which moves no more.
    Ending {
        /// Its number.
        lease: u64,
        /// Why.
        ending: EndingInfo,
        /// When its use must have ended.
        deadline: BootTime,
    },
    /// A lease is over at the broker, by someone else's doing.
    Ended {
        /// Its number.
        lease: u64,
        /// `revoked`, `hold_ended` ...
        why: String,
        /// In words.
        message: String,
    },
    /// A lease is lost, for good: its deadline passed. Its resources may be another's.
    Lost {
        /// Its number.
        lease: u64,
    },
    /// A lease's hold has another end.
    Extended(Arc<LeaseInfo>),
    /// Resources of a lease are offline: their provider is gone. The lease goes on.
    Offline {
        /// Its number.
        lease: u64,
        /// Names of those resources.
        resources: Vec<String>,
        /// In words.
        message: String,
    },
    /// Resources of a lease are online again.
    Online {
        /// Its number.
        lease: u64,
        /// Names of those resources.
        resources: Vec<String>,
        /// In words.
        message: String,
    },
    /// Another session provides under the name of this one, with its key.
    Superseded(ProviderSuperseded),
    /// The broker's store fails, or works again. Leases are kept either way.
    StoreState {
        /// Whether it works.
        working: bool,
        /// In words.
        message: String,
    },
    /// The session is over; nothing follows. `None` where the user closed it.
    Closed(Option<ClientError>),
}

/// Where a lease stands. Deadlines are of this machine's boot clock: compare them with
/// [`crate::clock::boot_now`], read anew each time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseState {
    /// When its use must have ended. Moves with each renewal, to later or (after a planned stop)
    /// to earlier; never to later once `standing` is not [`Standing::Active`].
    pub deadline: BootTime,
    /// When to begin ending its use, so that it has ended by the deadline.
    pub terminate_at: BootTime,
    /// When its hold is over, as well as this machine can tell the lab's time. For warnings; the
    /// broker's word ([`Standing::Ending`]) is what counts.
    pub hold_ends_at: Option<BootTime>,
    /// Whether it may be used.
    pub standing: Standing,
}

/// Whether a lease may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Until the deadline.
    Active,
    /// Only to finish, until the deadline.
    Ending(EndingInfo),
    /// No more: the deadline passed, or the session is gone. Final.
    Lost,
    /// No more: it is over at the broker. Final.
    Ended {
        /// `released`, `revoked` ...
        why: String,
        /// In words.
        message: String,
    },
}

impl Standing {
    /// Whether nothing follows any more.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Lost | Self::Ended { .. })
    }
}
