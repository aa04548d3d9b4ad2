//! Leases without a socket: one claim under a key that its client made.

use std::sync::Arc;

use super::claim::{ended_reply, fingerprint};
use crate::core::broker::Broker;
use crate::core::claim::ClaimSpec;
use crate::core::command::{ClaimReply, Reply, TtlAsk};
use crate::core::limits::KEYED_PER_OWNER_MAX;
use crate::core::refusal::{Code, Refusal};
use crate::core::session::{OpenRequest, SecretHash, SessionKind};
use crate::core::types::{LabTime, Owner, SessionId};

/// A keyed session has one request; this is its number.
pub const KEYED_REQUEST: u64 = 1;

impl Broker {
    pub(in crate::core) fn acquire_keyed(
        &mut self,
        now: LabTime,
        key: SecretHash,
        request_id: Arc<str>,
        owner: Owner,
        ttl_ms: u64,
        spec: Arc<ClaimSpec>,
    ) -> Reply {
        let body_hash = fingerprint(&spec);
        if let Some((known_id, known_hash, session, stands)) = self.keyed_before(&key) {
            if known_id != request_id {
                let message = "this key was used for another request_id: make a new key for each lease";
                return Reply::Refused(Refusal::new(Code::RequestIdReused, message));
            }
            if known_hash != body_hash {
                let message = format!("request_id {request_id:?} was used for another claim: use a new key and id");
                return Reply::Refused(Refusal::new(Code::RequestIdReused, message));
            }
            return Reply::Claim { session, request: KEYED_REQUEST, stands };
        }
        let remembered = self.state.keyed.values().filter(|record| record.owner.name == owner.name).count();
        if remembered >= KEYED_PER_OWNER_MAX {
            let message = format!(
                "{} leases without a socket of {owner} are remembered for a day after their end, as many as may be: \
                 use a session over WebSocket, or wait",
                remembered
            );
            return Reply::Refused(Refusal::new(Code::TooManyRequests, message));
        }
        let kind = SessionKind::Keyed { request_id };
        let session = match self.open_session(now, owner, TtlAsk::Exactly(ttl_ms), key, kind) {
            Reply::Opened { session, .. } => session,
            refused => return refused,
        };
        let claim = self.newcomer(now, session, KEYED_REQUEST, body_hash, spec);
        let stands = match self.admit(now, claim) {
            Ok(stands) | Err(stands) => stands,
        };
        self.request_ended(now, session);
        Reply::Claim { session, request: KEYED_REQUEST, stands }
    }

    /// Where the request under this key stands: its id, its body, its session (0 once it is over).
    #[must_use]
    pub fn keyed_before(&self, key: &SecretHash) -> Option<(Arc<str>, u64, SessionId, ClaimReply)> {
        if let Some(id) = self.state.keys.get(key) {
            let session = self.state.sessions.get(id)?;
            let SessionKind::Keyed { request_id } = &session.kind else { return None };
            let (body_hash, stands) = match session.requests.open.get(&KEYED_REQUEST)? {
                OpenRequest::Claim(claim) => (self.state.claims.get(claim)?.body_hash, ClaimReply::Queued(*claim)),
                OpenRequest::Lease(lease) => (self.state.lease(*lease).body_hash, ClaimReply::Granted(*lease)),
            };
            return Some((request_id.clone(), body_hash, *id, stands));
        }
        let record = self.state.keyed.get(key)?;
        Some((record.request_id.clone(), record.body_hash, SessionId(0), ended_reply(&record.end)))
    }
}
