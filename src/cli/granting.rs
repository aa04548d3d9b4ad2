//! From a claim to a lease, with everything that people are told on the way. Shared by `run` and
//! `acquire`.

use std::time::Duration;

use super::run::report::Ending;
use super::run::signals::{Caught, Signals};
use super::terminal::Messages;
use super::{exit_code, waiting};
use crate::client::{Client, ClientError, Event, EventStream, LeaseGuard, Options, Waiting};
use crate::clock::{BootTime, boot_now};
use crate::protocol::call::ClaimRequest;
use crate::protocol::info::ClaimInfo;

/// How long a goodbye to the broker may take.
pub const GOODBYE: Duration = Duration::from_secs(2);
/// The same where one broker takes over from another: long enough for that, as what is not given back
/// to the one is held for another ttl by the next.
const GOODBYE_TO_SEVERAL: Duration = Duration::from_secs(6);

/// How soon other news of the same trouble may follow: during a takeover they come by the dozen.
const TROUBLE_AGAIN_MS: u64 = 5_000;

/// Why there is no lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotGranted {
    /// For the report.
    pub ended: Ending,
    /// What to exit with.
    pub code: u8,
    /// For people.
    pub message: String,
}

impl From<ClientError> for NotGranted {
    fn from(error: ClientError) -> Self {
        let (ended, code) = match &error {
            ClientError::Refused { code, .. } if code == "timed_out" => (Ending::TimedOut, exit_code::WAIT_OVER),
            ClientError::Refused { .. } => (Ending::Refused, exit_code::OWN),
            error if error.is_no_broker() => (Ending::NoBroker, exit_code::OWN),
            _ => (Ending::Failed, exit_code::OWN),
        };
        Self { ended, code, message: error.to_string() }
    }
}

impl NotGranted {
    /// A signal ended the wait.
    #[must_use]
    pub fn interrupted(caught: Caught) -> Self {
        let name = nix::sys::signal::Signal::try_from(caught.number).map_or("a signal", |signal| signal.as_str());
        Self {
            ended: Ending::Interrupted,
            code: exit_code::of_signal(caught.number),
            message: format!("{name} ended the wait for a lease"),
        }
    }
}

/// Whether a signal ends the wait; USR1 and USR2 mean something to commands only.
fn ends_the_wait(caught: Caught) -> bool {
    use nix::sys::signal::Signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
    [SIGHUP, SIGINT, SIGQUIT, SIGTERM].iter().any(|signal| *signal as i32 == caught.number)
}

/// Opens a session; says on stderr whom it cannot reach.
pub async fn open(options: Options, messages: &Messages, signals: &mut Signals) -> Result<Client, NotGranted> {
    let client = Client::start(options)?;
    let mut events = client.events();
    let mut said = Said::new(messages, &client);
    loop {
        tokio::select! {
            result = client.connected() => {
                result?;
                said.connected();
                return Ok(client);
            }
            Some(event) = events.next() => said.event(&event),
            caught = signals.next() => if ends_the_wait(caught) {
                return Err(NotGranted::interrupted(caught));
            },
        }
    }
}

/// Claims, and waits for the lease. On any way out but the lease the claim is cancelled.
pub async fn wait(
    client: &Client,
    request: ClaimRequest,
    messages: &Messages,
    signals: &mut Signals,
) -> Result<LeaseGuard, NotGranted> {
    let events = client.events();
    let mut waiting = client.acquire(request);
    let mut said = Said::new(messages, client);
    let result = match until_settled(&mut waiting, events, &mut said, signals).await {
        Some(caught) => Err(NotGranted::interrupted(caught)),
        None => (&mut waiting).await.map_err(NotGranted::from),
    };
    messages.live_over();
    result
}

/// Says what changes until the claim no longer waits; answers the signal that ended it before.
async fn until_settled(
    waiting: &mut Waiting,
    mut events: EventStream,
    said: &mut Said<'_>,
    signals: &mut Signals,
) -> Option<Caught> {
    loop {
        tokio::select! {
            progress = waiting.progress() => match progress {
                Some(claim) => said.claim(&claim),
                None => return None,
            },
            Some(event) = events.next() => said.event(&event),
            caught = signals.next() => if ends_the_wait(caught) {
                return Some(caught);
            },
            () = tokio::time::sleep(said.pause()) => said.again(waiting.last().as_deref()),
        }
    }
}

/// What was said last, so that nothing is said twice and silence is never long.
struct Said<'a> {
    messages: &'a Messages,
    client: &'a Client,
    began: BootTime,
    at: BootTime,
    /// When the broker last told of the claim.
    told: BootTime,
    gist: Option<waiting::Gist>,
    dropped: bool,
    trouble: Option<String>,
}

impl<'a> Said<'a> {
    fn new(messages: &'a Messages, client: &'a Client) -> Self {
        let now = boot_now();
        Self { messages, client, began: now, at: now, told: now, gist: None, dropped: false, trouble: None }
    }

    fn pause(&self) -> Duration {
        let left_ms = self.at.plus(waiting::SAY_AGAIN_MS).since(boot_now());
        Duration::from_millis(if self.messages.has_live() { left_ms.min(1_000) } else { left_ms })
    }

    fn claim(&mut self, claim: &ClaimInfo) {
        let gist = waiting::gist(claim);
        if self.gist.as_ref() != Some(&gist) {
            self.gist = Some(gist);
            self.line(waiting::line(claim, 0));
        }
        self.told = boot_now();
        self.live(claim);
    }

    fn again(&mut self, claim: Option<&ClaimInfo>) {
        let Some(claim) = claim else { return self.at = boot_now() };
        if boot_now().since(self.at) >= waiting::SAY_AGAIN_MS {
            self.line(waiting::line(claim, boot_now().since(self.told)));
        }
        self.live(claim);
    }

    fn line(&mut self, text: String) {
        self.at = boot_now();
        self.messages.line(text);
    }

    fn live(&self, claim: &ClaimInfo) {
        let waited = crate::units::show_duration_ms(boot_now().since(self.began));
        let place = claim.place.map(|place| format!(", place {place}")).unwrap_or_default();
        let eta = waiting::eta(claim, boot_now().since(self.told)).map(|eta| format!(", {eta}")).unwrap_or_default();
        self.messages.live(format!("waiting for {waited}{place}{eta}"));
    }

    fn event(&mut self, event: &Event) {
        match event {
            // Another broker may have taken over: whether none is there, a round of tries will tell.
            Event::Disconnected { .. } => self.dropped = true,
            Event::NoBroker { why } => self.trouble(why),
            Event::Connected { .. } => self.connected(),
            Event::StoreState { working, message } => {
                let state = if *working { "works again" } else { "fails, nothing is granted until it works" };
                self.line(format!("the broker's store {state}: {message}"));
            }
            _ => {}
        }
    }

    /// A broker is there, which is said if it was not.
    fn connected(&mut self) {
        let again = if std::mem::take(&mut self.dropped) { "re" } else { "" };
        if self.trouble.take().is_some() || !again.is_empty() {
            let at = self.client.broker().map(|url| format!(" at {url}")).unwrap_or_default();
            self.line(format!("{again}connected to the broker{at}"));
        }
    }

    fn trouble(&mut self, why: &str) {
        let since_ms = boot_now().since(self.at);
        let is_news = match &self.trouble {
            None => true,
            Some(told) => told != why && since_ms >= TROUBLE_AGAIN_MS,
        };
        if is_news || since_ms >= waiting::SAY_AGAIN_MS {
            self.trouble = Some(why.to_owned());
            self.line(format!("no broker yet: {why}"));
        }
    }
}

/// Waits until `moment`, on the clock that counts suspended time: it is read again each second.
pub async fn sleep_until(moment: BootTime) {
    loop {
        let left_ms = moment.since(boot_now());
        if left_ms == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(left_ms.min(1_000))).await;
    }
}

/// Says goodbye, so that everything of the session is free at once; a broker that does not answer
/// is not waited for.
pub async fn close(client: &Client) {
    let patience = if client.knows_several() { GOODBYE_TO_SEVERAL } else { GOODBYE };
    let _ = tokio::time::timeout(patience, client.close()).await;
}

#[cfg(test)]
mod tests {
    use super::{Ending, NotGranted};
    use crate::client::ClientError;

    #[test]
    fn each_way_to_get_nothing_has_its_code() {
        let refused = |code: &str| ClientError::Refused { code: code.into(), message: "m".into(), need: None };
        for (error, ended, code) in [
            (refused("timed_out"), Ending::TimedOut, 124),
            (refused("impossible"), Ending::Refused, 125),
            (ClientError::NoBroker("x".into()), Ending::NoBroker, 125),
            (ClientError::NotABroker("x".into()), Ending::NoBroker, 125),
            (ClientError::Closed, Ending::Failed, 125),
        ] {
            let not = NotGranted::from(error);
            assert_eq!((not.ended, not.code), (ended, code), "{}", not.message);
        }
    }
}
