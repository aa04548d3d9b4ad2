//! What the conductor does in the world: sessions ended, leases revoked, and looks at what became of both.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::task::Event;
use crate::builds::book::Gone;
use crate::builds::build::{Build, BuildId};
use crate::builds::log::LogId;
use crate::core::command::Command;
use crate::core::lease::LeaseEnd;
use crate::core::session::{SessionEnd, SessionKind};
use crate::core::tables::PastLease;
use crate::core::types::{LeaseId, SessionId};
use crate::engine::handle::Handle;
use crate::pipeline::logs::Logs;
use crate::store::{Reader, StoreError};

/// How the instance of a build's session begins.
pub(super) const INSTANCE: &str = "build-";

/// How leases ended, as the store has it.
pub trait PastLeases: Send + Sync + 'static {
    /// One lease, ended or not.
    fn lease(&self, id: LeaseId) -> Pin<Box<dyn Future<Output = Result<Option<PastLease>, StoreError>> + Send + '_>>;
}

impl<R: Reader> PastLeases for R {
    fn lease(&self, id: LeaseId) -> Pin<Box<dyn Future<Output = Result<Option<PastLease>, StoreError>> + Send + '_>> {
        Box::pin(Reader::lease(self, id))
    }
}

/// A session of a build, to be looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watched {
    pub(super) build: BuildId,
    pub(super) session: u64,
    pub(super) lease: Option<u64>,
}

/// Does things at the engine.
#[derive(Clone)]
pub(super) struct Hands {
    pub(super) engine: Handle,
    pub(super) leases: Arc<dyn PastLeases>,
    pub(super) logs: Logs,
    pub(super) events: mpsc::Sender<Event>,
}

impl Hands {
    /// Ends a session of which nothing runs.
    pub(super) fn end_session(&self, build: BuildId, session: u64) {
        let hands = self.clone();
        tokio::spawn(async move {
            let command = Command::EndSession { session: SessionId(session), end: SessionEnd::Closed };
            let done = hands.engine.command(command).await.is_ok();
            let _ = hands.events.send(Event::SessionEnded(build, session, done)).await;
        });
    }

    /// Tells a lease's holder to stop.
    pub(super) fn revoke(&self, build: &Build, lease: u64) {
        let hands = self.clone();
        let id = build.id;
        let (by, reason) = build.ending.as_ref().map_or_else(
            || (Arc::from("the broker"), None),
            |ending| (ending.by.clone(), Some(format!("build {id}: {}", ending.reason).into())),
        );
        tokio::spawn(async move {
            let command = Command::Revoke { lease: LeaseId(lease), by, reason, forced: false };
            let done = match hands.engine.command(command).await {
                Ok(_) => true,
                // It is over, which a look will find.
                Err(error) => matches!(error.data.code.as_str(), "not_found" | "lease_ended" | "lease_ending"),
            };
            let _ = hands.events.send(Event::Revoked(id, done)).await;
        });
    }

    /// Lets go those who wait for a log that does not come: the build is over.
    pub(super) fn no_more_log(&self, build: BuildId, attempt: u32) {
        let logs = self.logs.clone();
        tokio::spawn(async move {
            if let Err(error) = logs.over(LogId { build, attempt }).await {
                tracing::warn!(%error, build = build.0, "its log could not be looked at");
            }
        });
    }

    /// Looks which sessions are gone, and how.
    pub(super) fn look(&self, watched: Vec<Watched>) {
        let hands = self.clone();
        tokio::spawn(async move {
            let gone = hands.gone(watched).await;
            let _ = hands.events.send(Event::Looked(gone)).await;
        });
    }

    async fn gone(&self, watched: Vec<Watched>) -> Vec<(BuildId, u64, Gone)> {
        let missing = self.engine.read(move |view| {
            let open = |it: &Watched| view.state.sessions.contains_key(&SessionId(it.session));
            watched.into_iter().filter(|it| !open(it)).collect::<Vec<_>>()
        });
        let mut gone = Vec::new();
        for it in missing.await.unwrap_or_default() {
            // What cannot be read now is looked at again.
            if let Some(how) = self.how(it.lease).await {
                gone.push((it.build, it.session, how));
            }
        }
        gone
    }

    async fn how(&self, lease: Option<u64>) -> Option<Gone> {
        let Some(lease) = lease else { return Some(Gone::Lost("its session was lost".into())) };
        let past = self.leases.lease(LeaseId(lease)).await.ok()?;
        let end = past.and_then(|past| past.ended).map(|ended| ended.end);
        Some(end.map_or_else(|| Gone::Lost("nobody knows how its lease ended".into()), |end| gone(&end)))
    }

    /// Ends the sessions of builds that the engine has and the book does not know: their secrets went with
    /// the process that opened them, and they hold nothing that anybody uses.
    pub(super) async fn sweep(&self, known: Vec<u64>) -> bool {
        let strays = self.engine.read(move |view| {
            let ours =
                |kind: &SessionKind| matches!(kind, SessionKind::Socket { instance } if instance.starts_with(INSTANCE));
            let all = view.state.sessions.iter().filter(|(_, session)| ours(&session.kind));
            all.map(|(id, _)| *id).filter(|id| !known.contains(&id.0)).collect::<Vec<SessionId>>()
        });
        let Ok(strays) = strays.await else { return false };
        for session in strays {
            let end = SessionEnd::Closed;
            if self.engine.command(Command::EndSession { session, end }).await.is_err() {
                return false;
            }
        }
        true
    }
}

/// How a build's session ended, by how its lease did.
fn gone(end: &LeaseEnd) -> Gone {
    match end {
        LeaseEnd::HoldEnded => Gone::HoldEnded,
        LeaseEnd::Revoked { by, reason, .. } => {
            Gone::Revoked(by.clone(), reason.clone().unwrap_or_else(|| "its lease was revoked".into()))
        }
        LeaseEnd::Kicked { by } => Gone::Revoked(by.clone(), "its session was ended".into()),
        LeaseEnd::SessionExpired => Gone::Lost("its agent gave no sign of life for as long as its ttl".into()),
        LeaseEnd::SessionClosed | LeaseEnd::Released { .. } => {
            Gone::Lost("its lease was given back before its agent said how it went".into())
        }
        LeaseEnd::Dropped => Gone::Lost("its agent's connection dropped".into()),
        LeaseEnd::SecretUnavailable { resource } => {
            Gone::Lost(format!("a secret of {resource} could not be read").into())
        }
        LeaseEnd::Moved => Gone::Lost("the broker's data was copied or restored".into()),
    }
}
