//! Whatever a broker and a network do: no panic, no spinning, and no lease beyond its promise.
//!
//! An auditor of its own keeps, from the messages alone, the latest moment at which each lease may
//! be held, and looks after every step.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::adopt::adopting;
use super::{Play, TTL, granted, opened, queued, released, renewed};
use crate::client::error::ClientError;
use crate::client::event::Event;
use crate::client::machine::Input;

#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    Jump(u64),
    Connect(bool),
    Drop,
    Acquire,
    Release(u64),
    Abandon(u64),
    /// Answers the oldest request with a promise of so long; names a lease as ending.
    Answer {
        promise_ms: u64,
        ending: Option<u64>,
        grant: bool,
    },
    Refuse(&'static str),
    RenewNow,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (1_u64..8_000).prop_map(Step::Pass),
        1 => (1_u64..40_000).prop_map(Step::Jump),
        4 => any::<bool>().prop_map(Step::Connect),
        1 => Just(Step::Drop),
        2 => Just(Step::Acquire),
        1 => (1_u64..6).prop_map(Step::Release),
        1 => (1_u64..6).prop_map(Step::Abandon),
        8 => (prop_oneof![Just(TTL), Just(TTL), Just(300_000), Just(1_000)], prop::option::of(1_u64..6), any::<bool>())
            .prop_map(|(promise_ms, ending, grant)| Step::Answer { promise_ms, ending, grant }),
        1 => prop_oneof![Just("unavailable"), Just("impossible"), Just("stopping")].prop_map(Step::Refuse),
        1 => Just(Step::RenewNow),
    ];
    prop::collection::vec(step, 1..120)
}

/// What the broker has said, and when it was asked.
#[derive(Default)]
struct Auditor {
    asked: BTreeMap<u64, (u64, Value)>,
    number: u64,
    newest: u64,
    bound: u64,
    ended: Vec<u64>,
    named: Vec<u64>,
    lost: Vec<u64>,
    /// Lease 1 was handed over with the session.
    adopted: bool,
}

impl Auditor {
    fn look(&mut self, play: &mut Play) {
        // What was asked on a socket that is gone is never answered.
        if !play.links.is_empty() {
            play.links.clear();
            self.asked.clear();
        }
        for request in play.sent.drain(..) {
            if let Some(id) = request["id"].as_u64() {
                self.asked.insert(id, (play.now, request));
            }
        }
        for event in play.events.drain(..) {
            match event {
                Event::Lost { lease } => {
                    assert!(!self.lost.contains(&lease), "lease {lease} is lost twice");
                    self.lost.push(lease);
                }
                Event::Granted { lease, .. } => assert!(!self.named.contains(&lease.lease)),
                _ => {}
            }
        }
        for lease in 1..200 {
            let Some(state) = play.machine.lease(lease) else { continue };
            assert!(state.deadline.0 <= self.bound, "lease {lease} until {:?}, bound {}", state.deadline, self.bound);
            assert!(state.deadline.0 > play.now, "lease {lease} is held past its deadline");
            assert!(!self.lost.contains(&lease), "lease {lease} was lost");
        }
        let wake = play.machine.next_wake();
        assert!(wake.is_none_or(|wake| wake.0 > play.now), "it would spin at {}", play.now);
    }

    fn answer(&mut self, play: &mut Play, promise_ms: u64, ending: Option<u64>, grant: bool) {
        let Some((id, (sent, request))) = self.asked.pop_first() else { return };
        self.number += 1;
        let promised = |auditor: &mut Self| {
            auditor.newest = auditor.number;
            auditor.bound = sent + promise_ms - (promise_ms / 50).max(100);
        };
        let number = self.number;
        let named: Vec<u64> = ending.into_iter().collect();
        let request_id = request["params"]["request_id"].as_u64().unwrap_or(0);
        let lease = request["params"]["lease"].as_u64().unwrap_or(0);
        let handed = granted(1, 1);
        let answer = match request["method"].as_str().unwrap_or_default() {
            "session.open" | "session.resume" => {
                promised(self);
                self.named.clear();
                let listed = self.adopted && !self.ended.contains(&1) && !self.lost.contains(&1);
                opened(number, promise_ms, if listed { std::slice::from_ref(&handed) } else { &[] })
            }
            "session.renew" => {
                // A bound of a longer promise stays good for what an answer names as ending.
                let before = self.bound;
                promised(self);
                self.bound = if named.is_empty() { self.bound } else { self.bound.max(before) };
                self.named.clone_from(&named);
                renewed(number, promise_ms, &named)
            }
            "lease.acquire" if grant && !self.ended.contains(&request_id) => granted(request_id, request_id),
            "lease.acquire" => queued(request_id, 1),
            "lease.cancel" => super::ended(request_id, "cancelled"),
            "lease.release" => {
                self.ended.push(lease);
                released(lease, "released")
            }
            _ => json!({}),
        };
        play.answer(id, answer);
    }
}

proptest! {
    #[test]
    fn no_lease_is_held_beyond_what_was_promised(steps in steps(), adopted in any::<bool>()) {
        let mut play = if adopted { adopting(2) } else { Play::new(2) };
        let mut auditor = Auditor { adopted, ..Auditor::default() };
        let mut request_id = u64::from(adopted);
        for step in steps {
            match step {
                Step::Pass(ms) => play.until(play.now + ms),
                Step::Jump(ms) => {
                    play.jump(play.now + ms);
                    play.input(Input::Woke);
                }
                Step::Connect(true) => play.input(Input::Connected),
                Step::Connect(false) => play.input(Input::ConnectFailed(ClientError::NoBroker(String::new()))),
                Step::Drop => {
                    play.input(Input::Dropped { code: None, why: String::new() });
                    auditor.asked.clear();
                }
                Step::Acquire => {
                    request_id += 1;
                    play.acquire(request_id);
                }
                Step::Release(lease) => play.input(Input::Release { lease, outcome: None, ticket: None }),
                Step::Abandon(request_id) => play.input(Input::Abandon(request_id)),
                Step::Answer { promise_ms, ending, grant } => auditor.answer(&mut play, promise_ms, ending, grant),
                Step::Refuse(code) => {
                    if let Some((id, _)) = auditor.asked.pop_first() {
                        play.refuse(id, code);
                    }
                }
                Step::RenewNow => play.notice("session.renew_now", &json!({})),
            }
            auditor.look(&mut play);
        }
    }
}
