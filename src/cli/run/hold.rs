//! From the grant to the end of the command: deadlines go to the guard, words come back, and
//! whatever ends the lease ends the command.
//!
//! The guard decides nothing but by the clock; why the command is to stop is decided here, and
//! said on stderr.

use std::time::Duration;

use tokio::sync::watch;

use super::guard::talk::{Deadline, Order, Start, Word};
use super::link::{self, GuardLink};
use super::report::Ending;
use super::signals::Signals;
use super::tree::{self, Tree};
use crate::cli::exit_code;
use crate::cli::granting::sleep_until;
use crate::cli::terminal::Messages;
use crate::client::{Event, LeaseGuard, LeaseState, Standing};
use crate::clock::{BootTime, boot_now};
use crate::units::show_duration_ms;

/// How long before its end a hold is warned of, at most.
const WARN_MS_MAX: u64 = 5 * 60_000;
/// How long a broker may be away before that is said: another has taken over by then, as a rule.
const AWAY_MS: u64 = 1_000;
/// How long a word of the guard may take from the socket to here, when it should have come.
const WORD_UNDER_WAY: Duration = Duration::from_millis(10);

/// How the command came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finish {
    /// For the report.
    pub ended: Ending,
    /// What to exit with.
    pub code: u8,
    /// How the command itself ended, where it did.
    pub command: Option<tree::Ended>,
    /// For people, where there is something to say.
    pub message: Option<String>,
}

/// A command under its guard.
#[derive(Debug)]
pub struct Holding<'a> {
    /// What it holds.
    pub lease: &'a LeaseGuard,
    /// The guard.
    pub link: &'a mut GuardLink,
    /// Where people are told.
    pub messages: &'a Messages,
    /// Signals to `run`.
    pub signals: &'a mut Signals,
    /// Between TERM and KILL when the lease is ending.
    pub grace_ms: u64,
    /// Everything below `run`, should the guard be gone.
    pub tree: Tree,
}

/// What is known while the command runs.
#[derive(Default)]
struct Course {
    /// Why the command is being stopped for its lease.
    stopped: Option<(Ending, String)>,
    warned_of: Option<BootTime>,
    away: Option<Away>,
    /// Nothing of the command is left.
    emptied: bool,
    /// The client's task is gone: nothing is renewed, nothing more is told.
    deaf: bool,
}

/// No broker is there.
struct Away {
    since: BootTime,
    why: String,
    said: bool,
}

/// The deadline as the guard is told it.
#[must_use]
pub fn deadline_of(state: &LeaseState) -> Deadline {
    Deadline { terminate_at: state.terminate_at, deadline: state.deadline }
}

impl Holding<'_> {
    /// Starts the command and sees it through; its processes are gone when this returns.
    pub async fn see_through(mut self, start: Start) -> Finish {
        let mut state = self.lease.watch();
        let mut events = self.lease.client().events();
        self.link.order(Order::Start(Box::new(start)));
        // A task of its own: nothing that is done here may hold a deadline up.
        let forward = tokio::spawn(forward_deadlines(state.clone(), self.link.orders()));
        let mut course = Course::default();
        self.look(&state.borrow_and_update().clone(), &mut course);
        let finish = loop {
            let now_state = state.borrow().clone();
            let warning_at = self.warning_at(&now_state);
            tokio::select! {
                word = self.link.word() => if let Some(finish) = self.heard(word, &mut course).await {
                    break finish;
                },
                changed = state.changed(), if !course.deaf => {
                    course.deaf = changed.is_err();
                    let now_state = state.borrow_and_update().clone();
                    self.look(&now_state, &mut course);
                }
                Some(event) = events.next() => self.hear(&event, &mut course),
                caught = self.signals.next() => if !caught.from_terminal {
                    self.link.order(Order::Signal(caught.number));
                },
                () = sleep_until(stand_in_at(&now_state)), if !course.emptied => {
                    if let Some(finish) = self.in_the_guards_place(&mut course).await {
                        break finish;
                    }
                }
                () = sleep_until(say_away_at(&course)) => self.say_away(&mut course),
                () = sleep_until(warning_at), if !has_warned(&now_state, &course) => {
                    course.warned_of = now_state.hold_ends_at;
                    self.warn(&now_state);
                }
            }
        };
        forward.abort();
        finish
    }

    /// Looks where the lease stands, and stops the command when it may not be used any more.
    fn look(&self, state: &LeaseState, course: &mut Course) {
        let (ended, message, grace_ms) = match &state.standing {
            Standing::Active if !course.deaf => return,
            Standing::Ending(ending) => {
                let message = format!("lease {} ends: {}", self.lease.lease(), ending.message);
                (Ending::LeaseEnded, message, self.grace_ms)
            }
            Standing::Ended { message, .. } => {
                // Whoever is next may have it already.
                (Ending::LeaseEnded, format!("lease {} has ended: {message}", self.lease.lease()), 0)
            }
            Standing::Active | Standing::Lost => {
                let why = "the broker did not renew it in time, and may give what it held to another";
                (Ending::Lost, format!("lease {} is lost: {why}", self.lease.lease()), 0)
            }
        };
        if course.stopped.is_none() || state.standing.is_final() {
            if course.stopped.is_none() {
                self.messages.line(format!("{message}; stopping the command"));
                course.stopped = Some((ended, message));
            }
            self.link.order(Order::Stop { grace_ms, lost: true });
        }
    }

    async fn heard(&mut self, word: Option<Word>, course: &mut Course) -> Option<Finish> {
        match word {
            Some(Word::Started { .. }) => None,
            Some(Word::Emptied) => {
                course.emptied = true;
                None
            }
            Some(Word::NotStarted { code, message }) => {
                Some(Finish { ended: Ending::NotStarted, code, command: None, message: Some(message) })
            }
            Some(Word::Ended { status, by_deadline, left }) => {
                if !left.is_empty() {
                    let left: Vec<String> = left.iter().map(ToString::to_string).collect();
                    let left = left.join(" ");
                    self.messages.line(format!("processes of another user are left, stop them yourself: {left}"));
                }
                if by_deadline && course.stopped.is_none() {
                    let lease = self.lease.lease();
                    let message = format!("lease {lease} is lost: the broker did not renew it in time");
                    self.messages.line(format!("{message}; the command was stopped"));
                    course.stopped = Some((Ending::Lost, message));
                }
                Some(finished(status, course))
            }
            None => Some(self.stand_in(course, false).await),
        }
    }

    /// A guard that did its work at the last moment has said so by now, or its word is here to be
    /// read; one that was stopped, or cannot do its work, is killed with all that is below it.
    async fn in_the_guards_place(&mut self, course: &mut Course) -> Option<Finish> {
        if boot_now() < stand_in_at(&self.lease.state()) {
            return None;
        }
        match tokio::time::timeout(WORD_UNDER_WAY, self.link.word()).await {
            Ok(word) => self.heard(word, course).await,
            Err(_) => Some(self.stand_in(course, true).await),
        }
    }

    async fn stand_in(&mut self, course: &Course, late: bool) -> Finish {
        let dead = link::kill_everything(self.tree.clone()).await;
        let left = if dead { "" } else { "; some of its processes do not die" };
        let (ended, code, message) = match &course.stopped {
            Some((ended, message)) => (*ended, exit_code::LEASE_LOST, message.clone()),
            None if late => (
                Ending::Lost,
                exit_code::LEASE_LOST,
                format!("lease {} is lost: the broker did not renew it in time", self.lease.lease()),
            ),
            None => (Ending::Failed, exit_code::OWN, "the guard of the command was killed".to_owned()),
        };
        let message = format!("{message}; the command was stopped{left}");
        if ended != Ending::Failed {
            self.messages.line(message.clone());
        }
        Finish { ended, code, command: None, message: Some(message) }
    }

    /// A broker that is away for a while is worth a line, and so is the one that is there again.
    fn hear(&self, event: &Event, course: &mut Course) {
        match event {
            Event::Offline { lease, message, .. } | Event::Online { lease, message, .. }
                if *lease == self.lease.lease() =>
            {
                self.messages.line(message.clone());
            }
            Event::Disconnected { why } => {
                course.away.get_or_insert_with(|| Away { since: boot_now(), why: why.clone(), said: false });
            }
            Event::NoBroker { why } => {
                if let Some(away) = &mut course.away {
                    away.why.clone_from(why);
                }
            }
            Event::Connected { .. } if course.away.take().is_some() => {
                let at = self.lease.client().broker().map(|url| format!(" at {url}")).unwrap_or_default();
                self.messages.line(format!("reconnected to the broker{at}, and the lease is kept"));
            }
            _ => {}
        }
    }

    fn say_away(&self, course: &mut Course) {
        if let Some(away) = course.away.as_mut().filter(|away| boot_now() >= away.since.plus(AWAY_MS)) {
            away.said = true;
            let left = show_duration_ms(self.lease.state().terminate_at.since(boot_now()));
            let why = &away.why;
            self.messages.line(format!("no broker: {why}; the command is stopped in {left} unless one comes back"));
        }
    }

    fn warning_at(&self, state: &LeaseState) -> BootTime {
        let info = self.lease.info();
        let hold_ms = info.until.map_or(0, |until| until.saturating_sub(info.granted_at));
        state.hold_ends_at.map_or(BootTime(u64::MAX), |end| end.minus(warn_ms(hold_ms)))
    }

    fn warn(&self, state: &LeaseState) {
        let Some(end) = state.hold_ends_at else { return };
        let left = show_duration_ms(end.since(boot_now()));
        let lease = self.lease.lease();
        self.messages.line(format!(
            "the hold ends in {left}, and the command with it; `leasehold extend {lease} --by 30m` asks for more"
        ));
    }
}

/// When `run` does what the guard should have done: behind the guard's own moment, and early enough
/// that everything is dead at the deadline, as then the broker may lease on.
pub(in crate::cli) fn stand_in_at(state: &LeaseState) -> BootTime {
    let kill_at = deadline_of(state).kill_at();
    kill_at.plus(state.deadline.since(kill_at) / 4)
}

fn say_away_at(course: &Course) -> BootTime {
    let away = course.away.as_ref().filter(|away| !away.said);
    away.map_or(BootTime(u64::MAX), |away| away.since.plus(AWAY_MS))
}

fn finished(status: tree::Ended, course: &mut Course) -> Finish {
    if let Some((ended, message)) = course.stopped.take() {
        return Finish { ended, code: exit_code::LEASE_LOST, command: Some(status), message: Some(message) };
    }
    let code = match status {
        tree::Ended::Code(code) => u8::try_from(code).unwrap_or(u8::MAX),
        tree::Ended::Signal(number) => exit_code::of_signal(number),
    };
    Finish { ended: Ending::CommandEnded, code, command: Some(status), message: None }
}

/// Hands each new deadline to the guard, until the lease is over.
pub(in crate::cli) async fn forward_deadlines(
    mut state: watch::Receiver<LeaseState>,
    orders: tokio::sync::mpsc::Sender<Order>,
) {
    while state.changed().await.is_ok() {
        let (deadline, standing) = {
            let state = state.borrow_and_update();
            (deadline_of(&state), state.standing.clone())
        };
        if !standing.is_final() {
            // A guard that does not listen keeps to the earlier deadline, which is safe.
            let _ = orders.try_send(Order::Deadline(deadline));
        }
    }
}

/// How long before its end a hold of this length is warned of.
fn warn_ms(hold_ms: u64) -> u64 {
    (hold_ms / 10).min(WARN_MS_MAX)
}

fn has_warned(state: &LeaseState, course: &Course) -> bool {
    state.hold_ends_at.is_none() || course.warned_of == state.hold_ends_at || course.stopped.is_some()
}

#[cfg(test)]
mod tests {
    use super::{Course, Ending, finished, warn_ms};
    use crate::cli::run::tree::Ended;

    #[test]
    fn a_hold_is_warned_of_five_minutes_or_a_tenth_before() {
        for (hold_ms, expected) in [(60_000, 6_000), (3_600_000, 300_000), (86_400_000, 300_000), (0, 0)] {
            assert_eq!(warn_ms(hold_ms), expected);
        }
    }

    #[test]
    fn the_commands_own_end_is_runs_unless_it_was_stopped_for_its_lease() {
        for (status, code) in [(Ended::Code(7), 7), (Ended::Code(300), 255), (Ended::Signal(15), 143)] {
            assert_eq!(finished(status, &mut Course::default()).code, code);
            let mut course = Course { stopped: Some((Ending::Lost, "lost".into())), ..Course::default() };
            let finish = finished(status, &mut course);
            assert_eq!((finish.code, finish.ended, finish.command), (120, Ending::Lost, Some(status)));
        }
    }
}
