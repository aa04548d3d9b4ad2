//! `acquire` in the foreground: holds while it runs, and tells what happens as lines of JSON.

use std::io::Read;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{AcquireCommand, hand_over, say_line};
use crate::cli::granting::{self, sleep_until};
use crate::cli::run::signals::{self, Signals};
use crate::cli::terminal::Messages;
use crate::cli::{Failure, Globals, exit_code, runtime};
use crate::client::{Event, EventStream, LeaseGuard, LeaseState, Standing};
use crate::clock::{BootTime, boot_now};

/// How long before its end a hold is told to be expiring, at most.
const EXPIRING_MS_MAX: u64 = 5 * 60_000;
/// How long a release may take when there is no broker.
const RELEASE: Duration = Duration::from_secs(5);

/// Acquires, holds until a signal or the end of stdin, and answers what to exit with.
pub fn hold(command: &AcquireCommand, globals: &Globals) -> Result<u8, Failure> {
    let options = command.claim.session(globals)?;
    let held = signals::hold().map_err(|error| Failure::own(format!("signals cannot be read: {error}")))?;
    let messages = Messages::to_stderr();
    let runtime = runtime()?;
    let result = runtime.block_on(async {
        let mut signals =
            Signals::new(&held).map_err(|error| Failure::own(format!("signals cannot be read: {error}")))?;
        let client = granting::open(options, &messages, &mut signals).await?;
        let request = command.claim.request(&["leasehold acquire".to_owned()]);
        let granted = granting::wait(&client, request, &messages, &mut signals).await;
        let result = match granted {
            Ok(lease) => {
                let events = client.events();
                Foreground { command, url: &globals.url, signals: &mut signals }.keep(lease, events).await
            }
            Err(not) => Err(not.into()),
        };
        granting::close(&client).await;
        result
    });
    runtime.shutdown_background();
    messages.flush();
    result
}

struct Foreground<'a> {
    command: &'a AcquireCommand,
    url: &'a str,
    signals: &'a mut Signals,
}

/// What has been told, so that it is told once.
#[derive(Default)]
struct Told {
    expiring_of: Option<BootTime>,
    unrenewed_of: Option<BootTime>,
    ending: bool,
    offline: bool,
}

impl Foreground<'_> {
    async fn keep(&mut self, lease: LeaseGuard, mut events: EventStream) -> Result<u8, Failure> {
        let (handed, _secrets) = hand_over(&lease.info(), self.url, self.command.secrets, None)?;
        say_line(&handed.granted)?;
        let mut stdin = self.command.while_stdin.then(stdin_end);
        let mut state = lease.watch();
        let mut told = Told::default();
        loop {
            let now_state = state.borrow_and_update().clone();
            if let Some(code) = tell_standing(&lease, &now_state, &mut told)? {
                return Ok(code);
            }
            let (next, reason) = next_warning(&lease, &now_state, &told);
            tokio::select! {
                changed = state.changed() => if changed.is_err() && !state.borrow().standing.is_final() {
                    say_line(&lost(lease.lease(), "the session is over"))?;
                    return Ok(exit_code::LEASE_LOST);
                },
                Some(event) = events.next() => tell_event(&lease, &event, &mut told)?,
                _ = self.signals.next() => break,
                () = ended(&mut stdin) => break,
                () = sleep_until(next) => {
                    say_line(&json!({"event": "expiring", "lease": lease.lease(), "reason": reason,
                        "in_ms": expires_at(&now_state, reason).since(boot_now())}))?;
                    match reason {
                        "hold" => told.expiring_of = now_state.hold_ends_at,
                        _ => told.unrenewed_of = Some(now_state.deadline),
                    }
                }
            }
        }
        // Without an outcome: this process does not know what became of the work.
        let _ = tokio::time::timeout(RELEASE, lease.release(None)).await;
        Ok(exit_code::DONE)
    }
}

fn expires_at(state: &LeaseState, reason: &str) -> BootTime {
    if reason == "hold" { state.hold_ends_at.unwrap_or(state.deadline) } else { state.deadline }
}

/// When to say next that it is expiring, and why: its hold is nearly over, or no broker renews it.
fn next_warning(lease: &LeaseGuard, state: &LeaseState, told: &Told) -> (BootTime, &'static str) {
    let never = BootTime(u64::MAX);
    if told.ending {
        return (never, "ending");
    }
    let info = lease.info();
    let hold_ms = info.until.map_or(0, |until| until.saturating_sub(info.granted_at));
    let ahead_ms = (hold_ms / 10).min(EXPIRING_MS_MAX);
    let hold = state.hold_ends_at.filter(|end| told.expiring_of != Some(*end)).map_or(never, |end| end.minus(ahead_ms));
    let unrenewed = if told.unrenewed_of == Some(state.deadline) { never } else { state.terminate_at };
    if hold < unrenewed { (hold, "hold") } else { (unrenewed, "not_renewed") }
}

fn lost(lease: u64, message: &str) -> Value {
    json!({"event": "lost", "lease": lease, "message": message})
}

fn tell_standing(lease: &LeaseGuard, state: &LeaseState, told: &mut Told) -> Result<Option<u8>, Failure> {
    let number = lease.lease();
    match &state.standing {
        Standing::Active => Ok(None),
        Standing::Ending(ending) => {
            if !std::mem::replace(&mut told.ending, true) {
                say_line(&json!({"event": "ending", "lease": number, "why": ending.why, "message": ending.message,
                    "in_ms": state.deadline.since(boot_now())}))?;
            }
            Ok(None)
        }
        Standing::Lost => {
            say_line(&lost(number, "the broker did not renew it in time"))?;
            Ok(Some(exit_code::LEASE_LOST))
        }
        Standing::Ended { why, message } => {
            say_line(&json!({"event": "lost", "lease": number, "why": why, "message": message}))?;
            Ok(Some(exit_code::LEASE_LOST))
        }
    }
}

fn tell_event(lease: &LeaseGuard, event: &Event, told: &mut Told) -> Result<(), Failure> {
    let number = lease.lease();
    match event {
        Event::Disconnected { why } if !std::mem::replace(&mut told.offline, true) => say_line(&json!({
            "event": "offline", "lease": number, "message": why, "in_ms": lease.deadline().since(boot_now())})),
        Event::Connected { .. } if std::mem::take(&mut told.offline) => {
            say_line(&json!({"event": "online", "lease": number}))
        }
        Event::Offline { lease: of, resources, message } if *of == number => say_line(&json!({
            "event": "offline", "lease": number, "resources": resources, "message": message})),
        Event::Online { lease: of, resources, message } if *of == number => say_line(&json!({
            "event": "online", "lease": number, "resources": resources, "message": message})),
        Event::Extended(info) if info.lease == number => say_line(&json!({
            "event": "extended", "lease": number, "until": info.until, "until_time": info.until_time})),
        _ => Ok(()),
    }
}

/// Comes when stdin ends. A thread of its own, which ends with the process: a read of stdin cannot
/// be taken back.
fn stdin_end() -> oneshot::Receiver<()> {
    let (tell, end) = oneshot::channel();
    let watch = move || {
        let mut bytes = [0; 4096];
        while !matches!(std::io::stdin().read(&mut bytes), Ok(0) | Err(_)) {}
        let _ = tell.send(());
    };
    let _ = std::thread::Builder::new().name("stdin".to_owned()).spawn(watch);
    end
}

async fn ended(stdin: &mut Option<oneshot::Receiver<()>>) {
    match stdin {
        Some(end) => drop(end.await),
        None => std::future::pending().await,
    }
}
