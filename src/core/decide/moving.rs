//! Putting a copy of the books into use.
//!
//! The clients of the books' sessions belong to the store that was copied, and whoever was granted
//! something after a backup is not on its books at all. So every session ends, and fences go on far
//! above. What the sessions held goes to nobody for as long as their clients may use it after the
//! original was last heard of, which was before this moment.

use std::sync::Arc;

use crate::core::broker::Broker;
use crate::core::command::Reply;
use crate::core::event::Event;
use crate::core::limits::{FENCE_MAX, FENCES_SKIPPED};
use crate::core::refusal::{Code, Refusal};
use crate::core::session::SessionEnd;
use crate::core::types::{LabTime, SessionId};

impl Broker {
    pub(in crate::core) fn move_store(&mut self, now: LabTime, from: Arc<str>, last_lease: u64) -> Reply {
        let last_lease = last_lease.max(self.state.lab.last_lease);
        let Some(last_lease) = last_lease.checked_add(FENCES_SKIPPED).filter(|raised| *raised < FENCE_MAX) else {
            let message = format!("its fences are at {last_lease} already, and none may be above {FENCE_MAX}");
            return Reply::Refused(Refusal::new(Code::InvalidParams, message));
        };
        self.emit(now, Event::StoreMoved { from, last_lease });
        let sessions: Vec<SessionId> = self.state.sessions.keys().copied().collect();
        for session in sessions {
            self.end_session(now, session, SessionEnd::Moved);
        }
        Reply::Done
    }
}
