//! Why a build is to stop before its steps are through, as it comes: its lease, its time, its agent.
//!
//! Each reason is told once. What is said of it stands in the log and in the report.

use std::io;

use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};

use super::verdict::{Outcome, Verdict};
use crate::cli::agent::handover::ToBuild;
use crate::cli::agent::output::tap::Tap;
use crate::cli::granting::sleep_until;
use crate::cli::run::guard::talk::Lines;
use crate::cli::run::signals::Signals;
use crate::client::{Event, EventStream, LeaseGuard, LeaseState, Standing};
use crate::clock::BootTime;
use crate::units::show_duration_ms;

/// Why a build ends whose agent was killed.
pub const AGENT_GONE: &str = "its agent is gone";

/// A reason to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// What the build comes to by it.
    pub verdict: Verdict,
    /// Between TERM and KILL.
    pub grace_ms: u64,
    /// Whether what the build holds may be another's already.
    pub gone: bool,
}

/// Reasons that have nothing to do with the lease.
pub struct Outside {
    /// The agent's words; `None` when it is gone.
    agent: Option<mpsc::Receiver<ToBuild>>,
    signals: Signals,
    /// Why the log cannot be kept.
    unkept: Option<watch::Receiver<Option<String>>>,
    timeout_at: Option<BootTime>,
    timeout_ms: u64,
    grace_ms: u64,
}

impl Outside {
    /// Hears the agent on `socket`, of which `lines` has read the beginning. Needs the runtime.
    ///
    /// # Errors
    /// When the socket cannot be used.
    pub fn new(
        socket: std::os::unix::net::UnixStream,
        lines: Lines,
        signals: Signals,
        tap: &Tap,
        times: Times,
    ) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let socket = UnixStream::from_std(socket)?;
        // There is one word to hear.
        let (tell, agent) = mpsc::channel(4);
        tokio::spawn(hear(socket, lines, tell));
        let Times { taken_at, timeout_ms, grace_ms } = times;
        let timeout_at = Some(taken_at.plus(timeout_ms));
        Ok(Self { agent: Some(agent), signals, unkept: Some(tap.failure()), timeout_at, timeout_ms, grace_ms })
    }

    /// The next reason. May be dropped and called again.
    pub async fn next(&mut self) -> Reason {
        tokio::select! {
            word = heard(&mut self.agent) => match word {
                Some(_) => self.softly("its agent was told to stop"),
                None => {
                    self.agent = None;
                    Reason { verdict: Verdict::lost(AGENT_GONE), grace_ms: 0, gone: false }
                }
            },
            caught = self.signals.next() => {
                let signal = nix::sys::signal::Signal::try_from(caught.number);
                let name = signal.map_or("a signal", |signal| signal.as_str());
                self.softly(&format!("{name} ended it"))
            }
            why = failed(&mut self.unkept) => {
                self.unkept = None;
                Reason { verdict: Verdict::lost(format!("its log cannot be kept: {why}")), grace_ms: 0, gone: false }
            }
            () = sleep_until(self.timeout_at.unwrap_or(BootTime(u64::MAX))) => {
                self.timeout_at = None;
                let message = format!("it took longer than {}", show_duration_ms(self.timeout_ms));
                Reason { verdict: Verdict::of(Outcome::TimedOut, message), grace_ms: self.grace_ms, gone: false }
            }
        }
    }

    fn softly(&self, message: &str) -> Reason {
        Reason { verdict: Verdict::lost(message), grace_ms: self.grace_ms, gone: false }
    }
}

/// How long a build may take.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// When it was taken.
    pub taken_at: BootTime,
    /// From then on.
    pub timeout_ms: u64,
    /// Between TERM and KILL.
    pub grace_ms: u64,
}

async fn heard(agent: &mut Option<mpsc::Receiver<ToBuild>>) -> Option<ToBuild> {
    match agent {
        Some(agent) => agent.recv().await,
        None => std::future::pending().await,
    }
}

async fn failed(unkept: &mut Option<watch::Receiver<Option<String>>>) -> String {
    if let Some(unkept) = unkept
        && let Ok(why) = unkept.wait_for(Option::is_some).await
    {
        return why.clone().unwrap_or_default();
    }
    std::future::pending().await
}

/// Hands on what the agent says; the channel closes when it is gone.
async fn hear(mut socket: UnixStream, mut lines: Lines, tell: mpsc::Sender<ToBuild>) {
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = socket.read(&mut bytes).await {
        for word in lines.push(&bytes[..count]) {
            if tell.send(word).await.is_err() {
                return;
            }
        }
    }
}

/// Reasons of the lease, and all others.
pub struct Reasons {
    outside: Outside,
    lease: u64,
    state: watch::Receiver<LeaseState>,
    /// What was told of it.
    told: Option<Told>,
    events: EventStream,
    tap: Tap,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Ending,
    Gone,
}

impl Reasons {
    /// For a lease that is held.
    pub fn new(outside: Outside, lease: &LeaseGuard, tap: Tap) -> Self {
        let events = lease.client().events();
        Self { outside, lease: lease.lease(), state: lease.watch(), told: None, events, tap }
    }

    /// The next reason. May be dropped and called again.
    pub async fn next(&mut self) -> Reason {
        loop {
            if let Some(reason) = self.of_the_lease() {
                return reason;
            }
            tokio::select! {
                reason = self.outside.next() => return reason,
                changed = self.state.changed(), if self.told != Some(Told::Gone) => if changed.is_err() {
                    return self.lost();
                },
                Some(event) = self.events.next() => self.hear(event),
            }
        }
    }

    /// A reason that is there already.
    pub fn of_the_lease(&mut self) -> Option<Reason> {
        let standing = self.state.borrow_and_update().standing.clone();
        match standing {
            Standing::Active => None,
            Standing::Ending(_) | Standing::Ended { .. } | Standing::Lost if self.told == Some(Told::Gone) => None,
            Standing::Ending(_) if self.told.is_some() => None,
            Standing::Ending(ending) => {
                self.told = Some(Told::Ending);
                let verdict = Verdict::of(Outcome::Stopped, ending.message);
                Some(Reason { verdict, grace_ms: self.outside.grace_ms, gone: false })
            }
            Standing::Ended { message, .. } => {
                self.told = Some(Told::Gone);
                Some(Reason { verdict: Verdict::of(Outcome::Stopped, message), grace_ms: 0, gone: true })
            }
            Standing::Lost => Some(self.lost()),
        }
    }

    fn lost(&mut self) -> Reason {
        self.told = Some(Told::Gone);
        let message = format!("lease {} is lost: the broker did not renew it in time", self.lease);
        Reason { verdict: Verdict::lost(message), grace_ms: 0, gone: true }
    }

    /// What it holds went offline, or came back: worth a line where its steps fail for that.
    fn hear(&self, event: Event) {
        if let Event::Offline { message, .. } | Event::Online { message, .. } = event {
            let tap = self.tap.clone();
            tokio::task::spawn_blocking(move || tap.note(&message));
        }
    }
}
