//! What a broker says to a client: messages on the socket, events on a stream.
//!
//! A client believes no broker to be sound: whatever it says, the client neither panics nor
//! spins, sends only what is JSON, and holds no lease past the deadline it tells its user.

use std::collections::BTreeSet;

use super::bytes::Bytes;
use crate::client::machine::{Config, Input, Machine, Output};
use crate::client::{ClientError, Event, sse as stream};
use crate::clock::BootTime;
use crate::protocol::call::{ClaimRequest, SessionOpen};

/// Outputs to one input: more is a machine that talks to itself.
const OUTPUTS_MAX: usize = 1_000;
/// Milliseconds that pass before a line, by its first letter.
const PASSES_MS: &[(u8, u64)] = &[(b'1', 100), (b'2', 3_000), (b'3', 12_000), (b'4', 40_000), (b'5', 86_400_000)];

/// A client's machine. A line of the input that begins with `{` is a message of the broker's, when
/// there is a socket; other lines are letters, each of which is something that happens. True
/// where the session opened.
pub fn broker_says(input: &[u8]) -> bool {
    let open = SessionOpen { instance: "me".to_owned(), ..SessionOpen::default() };
    let config = Config { urls: vec![String::new(); 2], open, connect_timeout_ms: 120_000, jitter: |below| below / 2 };
    let machine = Machine::new(config, BootTime(0));
    let mut play = Play { machine, now: 0, link: Link::None, request: 0, held: BTreeSet::new(), has_opened: false };
    play.drain();
    for line in String::from_utf8_lossy(input).lines().take(100) {
        if line.starts_with('{') {
            if play.link == Link::Up {
                play.input(Input::Received(line));
            }
        } else {
            line.bytes().take(100).for_each(|letter| play.letter(letter));
        }
    }
    play.has_opened
}

#[derive(Clone, Copy, PartialEq)]
enum Link {
    None,
    Tried,
    Up,
}

struct Play {
    machine: Machine,
    now: u64,
    link: Link,
    request: u64,
    /// Leases that were granted.
    held: BTreeSet<u64>,
    has_opened: bool,
}

impl Play {
    fn letter(&mut self, letter: u8) {
        let lease = self.held.last().copied().unwrap_or(1);
        let ticket = u64::from(letter);
        match letter {
            b'c' if self.link == Link::Tried => {
                self.link = Link::Up;
                self.input(Input::Connected);
            }
            b'f' if self.link == Link::Tried => {
                self.link = Link::None;
                self.input(Input::ConnectFailed(ClientError::Protocol("no".to_owned())));
            }
            b'd' if self.link == Link::Up => {
                self.link = Link::None;
                self.input(Input::Dropped { code: Some(1001), why: "gone".to_owned() });
            }
            b'a' => {
                self.request += 1;
                let request = ClaimRequest { needs: vec!["phone".to_owned()], ..ClaimRequest::default() };
                self.input(Input::Acquire(self.request, Box::new(request)));
            }
            b'b' => self.input(Input::Abandon(self.request)),
            b'r' => self.input(Input::Release { lease, outcome: None, ticket: Some(ticket) }),
            b'e' => self.input(Input::Extend { lease, until: 60_000, ticket }),
            b'q' => self.input(Input::Close { ticket }),
            b'w' => self.wake(),
            _ => {
                let passes = PASSES_MS.iter().find(|(named, _)| *named == letter);
                self.now += passes.map_or(0, |(_, ms)| *ms);
                self.input(Input::Woke);
            }
        }
    }

    /// Time passes until the machine wants to be woken.
    fn wake(&mut self) {
        if let Some(wake) = self.machine.next_wake() {
            self.now = wake.0;
            self.input(Input::Woke);
        }
    }

    fn input(&mut self, input: Input<'_>) {
        let shown = format!("{input:?} at {}", self.now);
        self.machine.handle(BootTime(self.now), input);
        self.drain();
        let wake = self.machine.next_wake();
        assert!(wake.is_none_or(|wake| wake.0 > self.now), "it would spin after {shown}: {wake:?}");
        for lease in &self.held {
            if let Some(state) = self.machine.lease(*lease) {
                assert!(state.deadline.0 > self.now, "lease {lease} is held past its deadline after {shown}");
                assert!(state.terminate_at <= state.deadline, "{state:?} after {shown}");
            }
        }
    }

    fn drain(&mut self) {
        let mut outputs = 0;
        while let Some(output) = self.machine.poll() {
            outputs += 1;
            assert!(outputs < OUTPUTS_MAX, "it does not stop: {output:?}");
            match output {
                Output::Connect(_) => self.link = Link::Tried,
                Output::Drop | Output::Hangup => self.link = Link::None,
                Output::Send(text) => {
                    let sent: Result<serde_json::Value, _> = serde_json::from_str(&text);
                    // A request, or the answer that it does not know what the broker asks.
                    let sound = sent.is_ok_and(|sent| sent["method"].is_string() || sent["error"].is_object());
                    assert!(sound, "it sends {text}");
                }
                Output::Tell(Event::Granted { lease, .. }) => {
                    self.held.insert(lease.lease);
                }
                Output::Tell(Event::Connected { .. }) => self.has_opened = true,
                Output::Tell(_) | Output::Answer(..) => {}
            }
        }
    }
}

/// A stream of server-sent events: the same however the network cuts it. The first byte says into
/// pieces of how many.
pub fn sse(input: &[u8]) -> bool {
    let size = usize::from(Bytes::new(input).byte()) % 64 + 1;
    let body = input.get(1..).unwrap_or_default();
    let whole = stream::events([body]).expect("what is short is no event that is too long");
    assert_eq!(stream::events(body.chunks(size)).as_ref(), Ok(&whole), "in pieces of {size}");
    assert!(whole.iter().all(|event| !event.event.contains('\n')), "{whole:?}");
    !whole.is_empty()
}
