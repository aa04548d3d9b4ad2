//! Logs that somebody writes or follows: for each the lock of its writer, the appends that are under way, and
//! what wakes its followers.
//!
//! One is there as long as somebody has it, and the last few that were used stay a while, so that an append
//! does not read what the one before it knew.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::watch;

use super::writer::Writer;
use crate::builds::build::BuildId;
use crate::builds::log::{LogId, LogStatus};

/// Logs that stay though nobody has them.
const STAY_MAX: usize = 64;
/// Names of logs that are gone, before they are swept out.
const GONE_MAX: usize = 1_024;

/// A log that somebody has open.
#[derive(Debug)]
pub(super) struct Open {
    pub id: LogId,
    /// What its writer knows; `None` where it has to be read. Whoever writes holds this.
    pub writer: tokio::sync::Mutex<Option<Writer>>,
    /// How far it is, as of what is durable, once `read` is set.
    pub told: watch::Sender<LogStatus>,
    /// Set for good when it was read how far it is.
    pub read: AtomicBool,
    /// What its writer knew when it had written last, for who does not wait until it has written again; `None`
    /// before the first write.
    known: Mutex<Option<Known>>,
    /// Where the appends belong that are under way.
    under_way: watch::Sender<Vec<u64>>,
}

/// What is known of a log that has begun.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// Under whose key it is sent; for good.
    pub key_hash: Option<Arc<str>>,
    /// Where it ends, or is further by now, and the folder of its objects, as long as it takes more.
    pub end: Option<(u64, Arc<str>)>,
}

impl Open {
    /// What its writer knew last.
    pub(super) fn known(&self) -> Option<Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes what its writer knows.
    pub(super) fn note(&self, known: Option<Known>) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = known;
    }

    /// Notes that an append is under way which belongs at this offset.
    pub(super) fn begin(self: &Arc<Self>, offset: u64) -> UnderWay {
        self.under_way.send_modify(|offsets| offsets.push(offset));
        UnderWay { open: Arc::clone(self), offset }
    }
}

/// An append that is under way, until this is dropped.
#[derive(Debug)]
pub(super) struct UnderWay {
    pub open: Arc<Open>,
    pub offset: u64,
}

impl UnderWay {
    /// Waits until the log has come up to it, or none is under way that belongs before it. One before it may hang,
    /// and have been sent once more meanwhile.
    pub(super) async fn turn(&self) {
        let (mut under_way, mut told) = (self.open.under_way.subscribe(), self.open.told.subscribe());
        // The senders are held here, so neither can fail.
        tokio::select! {
            _ = under_way.wait_for(|offsets| offsets.iter().all(|offset| *offset >= self.offset)) => {}
            _ = told.wait_for(|told| told.bytes >= self.offset) => {}
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.open.under_way.send_modify(|offsets| {
            if let Some(at) = offsets.iter().position(|offset| *offset == self.offset) {
                offsets.swap_remove(at);
            }
        });
    }
}

/// All that are open.
#[derive(Debug, Default)]
pub(super) struct Table {
    logs: Mutex<Logs>,
}

#[derive(Debug, Default)]
struct Logs {
    known: BTreeMap<LogId, Weak<Open>>,
    stay: VecDeque<Arc<Open>>,
}

impl Table {
    /// The log, opened where it is not.
    pub(super) fn of(&self, id: LogId) -> Arc<Open> {
        let mut logs = self.logs();
        if let Some(open) = logs.known.get(&id).and_then(Weak::upgrade) {
            return open;
        }
        if logs.known.len() >= GONE_MAX {
            logs.known.retain(|_, open| open.strong_count() > 0);
        }
        let open = Arc::new(Open {
            id,
            writer: tokio::sync::Mutex::new(None),
            told: watch::Sender::default(),
            read: AtomicBool::new(false),
            known: Mutex::default(),
            under_way: watch::Sender::default(),
        });
        logs.known.insert(id, Arc::downgrade(&open));
        logs.stay.push_back(Arc::clone(&open));
        if logs.stay.len() > STAY_MAX {
            logs.stay.pop_front();
        }
        open
    }

    /// Lets go what is known of these builds' logs, which were deleted, and their followers with it.
    pub(super) async fn forget(&self, builds: &[BuildId]) {
        let gone: Vec<Arc<Open>> = {
            let mut logs = self.logs();
            logs.stay.retain(|open| !builds.contains(&open.id.build));
            let known = logs.known.iter().filter(|(id, _)| builds.contains(&id.build));
            known.filter_map(|(_, open)| open.upgrade()).collect()
        };
        for open in gone {
            *open.writer.lock().await = None;
            open.note(None);
            open.told.send_modify(|told| *told = LogStatus { never: true, ..LogStatus::default() });
        }
    }

    fn logs(&self) -> MutexGuard<'_, Logs> {
        // Nothing in here is left half done by a panic.
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
