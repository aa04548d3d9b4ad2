//! A broker among others on one database: it stands by, leads when the lead falls to it, and stands by
//! again when it has lost it, on one listener all the while.
//!
//! ```text
//!            the lead was taken                    another leads, or a term went by without a write
//!  standby ─────────────────────▶ leading ─────────────────────────────────────────────▶ standby
//!     │ SIGTERM                      │ SIGTERM
//!     ▼                              ▼
//!    gone       another stands by: hand over; nobody does: the planned stop, then give up
//! ```
//!
//! Losing the lead never ends the process, nor does a database that is away.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

use super::lead::{Lead, Serving, goodbye};
use super::lookout::{Look, Lookout};
use super::options::{Database, Settings};
use super::signals::Signals;
use super::{Failure, at_once, exit_code, warn_insecure};
use crate::client::url::BaseUrl;
use crate::engine::Ended;
use crate::server::front::{Front, Process};
use crate::server::http::standby;
use crate::server::listen::listen;
use crate::store::postgres::{Postgres, Step, Watch, name_of};
use crate::units::show_duration_ms;

/// How long a hand-over waits to see another lead before its clients are sent off all the same.
const SUCCESSOR_WAIT: Duration = Duration::from_secs(2);
/// How often it looks for that.
const SUCCESSOR_LOOK: Duration = Duration::from_millis(10);
/// How long a broker that goes takes to tell the others.
const LEAVE_WAIT: Duration = Duration::from_millis(500);
/// How soon the row is looked at again after another was faster, milliseconds.
const PASSED_MS: u64 = 20;
/// For how many terms the lead is left alone by a broker that could not take the books over: any other
/// that stands by waits a term, a margin and the pause between two looks.
const LEFT_TERMS: u64 = 2;

/// A broker among others.
struct Member<'s> {
    settings: &'s Settings,
    process: Arc<Process>,
    front: Arc<Front>,
    lookout: Lookout,
    serving: Serving,
}

/// Serves on a database that brokers share until it is told to stop.
pub(super) async fn serve(
    settings: &Settings,
    database: &Database,
    listener: TcpListener,
    address: SocketAddr,
    mut signals: Signals,
) -> Result<u8, Failure> {
    let name = name_of(&database.url).map_err(|error| Failure::usage(error.to_string()))?;
    let listens = BaseUrl::parse(&format!("ws://{address}")).map_err(|error| Failure::refused(error.to_string()))?;
    let own = database.advertise.clone().unwrap_or(listens);
    say!("data in {name}");
    warn_insecure(settings, address);
    let (lookout, sight) = Lookout::new(database, own.clone());
    let process = Process::new(settings.server.clone(), settings.insecure, name, Some(sight));
    let process = Arc::new(process);
    let front = Arc::new(Front::new(process.clone(), standby::router(&process)));
    let serving = Some(tokio::spawn(listen(listener, front.clone())));
    say!("listening on ws://{address}, clients are sent to {own}");
    let mut member = Member { settings, process, front, lookout, serving };
    loop {
        let Some(store) = member.stand_by(&mut signals).await? else { return Ok(member.leave().await) };
        if let Some(code) = member.lead(store, &mut signals).await? {
            return Ok(code);
        }
    }
}

impl Member<'_> {
    /// Stands by until the lead falls to this process; `None` when it is told to stop.
    async fn stand_by(&mut self, signals: &mut Signals) -> Result<Option<Postgres>, Failure> {
        let mut watch = Watch::new(self.lookout.term_ms);
        let mut told = false;
        loop {
            let looked = tokio::select! {
                looked = self.lookout.look() => looked?,
                _ = signals.next() => return Ok(None),
            };
            let step = looked.as_ref().map(|look| self.lookout.step(&mut watch, look));
            let pause_ms = match step {
                None => watch.look_ms(),
                Some(Step::Wait { ms }) => {
                    if !std::mem::replace(&mut told, true) {
                        self.tell_standby();
                    }
                    ms
                }
                Some(Step::TakeOver { epoch, beat }) => match self.lookout.take(epoch, beat).await? {
                    Some(store) => return Ok(Some(store)),
                    None => PASSED_MS,
                },
            };
            if told_to_stop_within(signals, pause_ms).await {
                return Ok(None);
            }
        }
    }

    fn tell_standby(&self) {
        let leader = self.process.seen().and_then(|sight| sight.leader);
        let leader = leader.map_or_else(|| "no broker leads yet".to_owned(), |leader| format!("{} leads", leader.url));
        say!("standing by: {leader}");
    }

    /// Leads until that is over; answers the exit code when it is told to stop meanwhile.
    async fn lead(&mut self, store: Postgres, signals: &mut Signals) -> Result<Option<u8>, Failure> {
        let (mut lead, routes) = match Lead::begin(store, self.settings, &self.process).await {
            Ok(begun) => begun,
            Err(failure) => {
                say!("the lead was taken, and the books cannot be: {failure}");
                // Whoever else stands by may do better. The row says that this broker leads, so it would be
                // the first again, and for ever, if it came back sooner than others may.
                let stop = told_to_stop_within(signals, LEFT_TERMS * self.lookout.term_ms).await;
                return if stop { Ok(Some(self.leave().await)) } else { Ok(None) };
            }
        };
        self.front.turn(routes);
        self.process.metrics.lead_taken();
        self.lookout.leads(true);
        if let Ok(holdings) = lead.holdings().await {
            say!("leading: {holdings}");
        }
        let ended = tokio::select! {
            ended = lead.ended() => Some(ended),
            looked = self.lookout.keep_looking() => match looked {
                Err(failure) => return Err(failure),
            },
            _ = signals.next() => None,
        };
        let Some(ended) = ended else { return Ok(Some(self.stop(lead, signals).await)) };
        let ended = ended.map_err(|error| Failure::refused(format!("the engine ended: {error}")))?;
        self.process.metrics.lead_lost();
        self.step_down();
        // Those that the engine could not tell.
        lead.close().await;
        match ended {
            Ended::Deposed { by: Some(by) } => say!("the lead is lost: {by} leads now"),
            Ended::Deposed { by: None } => say!("the lead is lost: another broker leads now, or the lead is free"),
            _ => {
                let term = show_duration_ms(self.lookout.term_ms);
                say!("the lead is lost: nothing could be written to the database for {term}");
            }
        }
        Ok(None)
    }

    /// Serves as one that stands by.
    fn step_down(&mut self) {
        self.lookout.leads(false);
        self.front.turn(standby::router(&self.process));
    }

    /// Stops as planned while leading: hands over to whoever stands by, and where nobody does lets
    /// everybody take the longer promise.
    async fn stop(&mut self, mut lead: Lead, signals: &mut Signals) -> u8 {
        lead.unfollow();
        let standbys = self.lookout.standbys().await;
        let stopping = async {
            if standbys > 0 {
                self.hand_over(lead, standbys).await;
            } else {
                lead.wind_down(self.settings.engine.restart_grace_ms, &mut self.serving).await;
                // The engine ends, and gives the lead up, when nobody is left to ask it anything.
                self.step_down();
                lead.end().await;
            }
        };
        tokio::select! {
            () = stopping => {}
            number = signals.next() => return at_once(number),
        }
        self.leave().await
    }

    async fn hand_over(&mut self, mut lead: Lead, standbys: usize) {
        match standbys {
            1 => say!("stopping: the lead goes to the broker that stands by"),
            _ => say!("stopping: the lead goes to one of {standbys} brokers that stand by"),
        }
        let given_up = lead.hand_over().await;
        self.step_down();
        // Sockets are silent by now. They are closed once there is a broker to come to: sent off before,
        // clients would find nobody who leads, and come to the successor only after a pause.
        if !given_up {
            say!("it is not known whether the lead was given up: it falls to another when its term is over");
        } else if !self.successor().await {
            say!("no other broker was seen to take the lead");
        }
        lead.close().await;
    }

    /// Waits until another leads and is about to accept connections; `false` where that is not seen. It
    /// costs nobody time while the row says that nobody leads; when the row cannot be read it is over, as
    /// clients find out by themselves then.
    async fn successor(&mut self) -> bool {
        let seen = timeout(SUCCESSOR_WAIT, async {
            let mut free = None;
            while let Ok(Some(Look { seen, .. })) = self.lookout.look().await {
                match seen.leader {
                    None => free = Some(seen.batch),
                    // Its first write comes when it has read the books, right before it accepts.
                    Some(_) if free.is_none_or(|last| seen.batch > last) => return true,
                    Some(_) => {}
                }
                sleep(SUCCESSOR_LOOK).await;
            }
            false
        });
        seen.await.unwrap_or(false)
    }

    /// Ends as one that does not lead.
    async fn leave(&mut self) -> u8 {
        let _ = timeout(LEAVE_WAIT, self.lookout.leave()).await;
        goodbye(&self.process, &mut self.serving).await;
        say!("stopped");
        exit_code::DONE
    }
}

async fn told_to_stop_within(signals: &mut Signals, ms: u64) -> bool {
    tokio::select! {
        () = sleep(Duration::from_millis(ms)) => false,
        _ = signals.next() => true,
    }
}
