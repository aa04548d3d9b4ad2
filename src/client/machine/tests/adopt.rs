//! A session that was opened elsewhere: resumed, its lease told when the broker has answered, and from
//! then on a session like any other.

use serde_json::json;

use super::{Config, MARGIN, Play, TTL, ended, ending, granted, opened, queued, released, renewed};
use crate::client::error::ClientError;
use crate::client::event::{Event, Standing};
use crate::client::machine::{Input, Machine};
use crate::clock::BootTime;
use crate::protocol::builds::HandedSession;
use crate::protocol::call::SessionOpen;

/// Session 3 with lease 7 under request 1, handed over by another process.
pub(super) fn adopting(urls: usize) -> Play {
    let handed = HandedSession {
        session: 3,
        secret: "hush".to_owned(),
        instance: "build-5-1-x".to_owned(),
        request_id: 1,
        lease: 7,
        ttl_ms: TTL,
    };
    let open = SessionOpen { instance: handed.instance.clone(), ..SessionOpen::default() };
    let urls = (0..urls).map(|url| format!("ws://{url}")).collect();
    let config = Config { urls, open, connect_timeout_ms: 120_000, jitter: |_| 0 };
    Play::of(Machine::adopting(config, &handed, BootTime(0)))
}

/// Resumed at moment 0, by an answer with number 10.
fn adopted() -> Play {
    let mut play = adopting(1);
    play.input(Input::Connected);
    let id = play.asked("session.resume");
    play.answer(id, opened(10, TTL, &[granted(1, 7)]));
    play
}

#[test]
fn nothing_is_held_before_the_resume_is_answered() {
    let mut play = adopting(1);
    assert_eq!(play.links, ["connect 0"]);
    play.input(Input::Connected);
    assert_eq!(play.methods(), ["session.resume"], "it opens nothing and asks for nothing");
    assert_eq!(
        play.params("session.resume"),
        json!({"session": 3, "secret": "hush", "instance": "build-5-1-x", "renewal": 0})
    );
    assert!(play.machine.lease(7).is_none() && play.events.is_empty());
    play.jump(4_000);
    let id = play.asked("session.resume");
    play.answer(id, opened(10, TTL, &[granted(1, 7)]));
    let told: Vec<&Event> = play.events.iter().filter(|event| matches!(event, Event::Granted { .. })).collect();
    assert_eq!(told.len(), 1, "{:?}", play.events);
    // Counted from when the resume was sent, not from its answer.
    assert_eq!(play.deadline(7), TTL - MARGIN);
}

#[test]
fn afterwards_it_renews_resumes_and_fences_itself() {
    let mut play = adopted();
    play.clear();
    play.until(TTL / 5);
    let id = play.asked("session.renew");
    assert_eq!(play.params("session.renew"), json!({"renewal": 10}));
    play.answer(id, renewed(11, TTL, &[]));
    assert_eq!(play.deadline(7), TTL / 5 + TTL - MARGIN);
    play.reconnect();
    let id = play.asked("session.resume");
    play.answer(id, opened(12, TTL, &[granted(1, 7)]));
    assert!(play.lost().is_empty());
    let deadline = play.deadline(7);
    play.input(Input::Dropped { code: None, why: "reset".to_owned() });
    play.until(deadline);
    assert_eq!(play.lost(), [7]);
}

#[test]
fn another_url_is_tried_where_the_first_is_no_broker() {
    let mut play = adopting(2);
    play.input(Input::ConnectFailed(ClientError::NoBroker("refused".to_owned())));
    assert_eq!(play.links, ["connect 0", "connect 1"]);
    play.input(Input::Connected);
    play.asked("session.resume");
}

#[test]
fn one_that_has_ended_or_is_to_end_is_never_begun() {
    let gone = ClientError::refused("ended", "the lease that was handed over had ended before this process took it");
    let mut over = adopting(1);
    over.input(Input::Connected);
    let id = over.asked("session.resume");
    over.clear();
    over.answer(id, opened(10, TTL, &[]));
    assert!(over.events.contains(&Event::ClaimEnded { request_id: 1, error: gone }), "{:?}", over.events);
    assert!(over.methods().is_empty(), "what it asked for is not known here: {:?}", over.sent);

    let mut to_end = adopting(1);
    to_end.input(Input::Connected);
    let id = to_end.asked("session.resume");
    let mut claim = granted(1, 7);
    claim["lease"]["ending"] = ending("revoked");
    to_end.answer(id, opened(10, TTL, &[claim]));
    assert!(to_end.machine.lease(7).is_none());
    assert!(to_end.events.iter().any(|event| matches!(event, Event::ClaimEnded { request_id: 1, .. })));
    assert_eq!(to_end.params("lease.release")["lease"], 7);
}

#[test]
fn a_session_that_is_gone_ends_it() {
    let mut play = adopting(1);
    play.input(Input::Connected);
    let id = play.asked("session.resume");
    play.refuse(id, "session_gone");
    assert!(play.machine.is_closed());
    assert!(play.events.iter().any(|event| matches!(event, Event::ClaimEnded { request_id: 1, .. })));
}

#[test]
fn without_a_broker_it_fails_in_time_and_gives_the_lease_back_later() {
    let mut play = adopting(1);
    while play.now < 120_000 {
        play.next_attempt();
        play.input(Input::ConnectFailed(ClientError::NoBroker("refused".to_owned())));
        let wake = play.machine.next_wake().expect("it goes on");
        play.until(wake.0);
    }
    assert!(
        play.events
            .iter()
            .any(|event| matches!(event, Event::ClaimEnded { request_id: 1, error: ClientError::NoBroker(_) }))
    );
    play.next_attempt();
    play.input(Input::Connected);
    let id = play.asked("session.resume");
    play.answer(id, opened(10, TTL, &[granted(1, 7)]));
    assert!(play.machine.lease(7).is_none());
    let methods = play.methods();
    assert!(methods.contains(&"lease.cancel") || methods.contains(&"lease.release"), "{methods:?}");
}

#[test]
fn its_end_is_told_like_any_others() {
    let mut play = adopted();
    play.notice("lease.ending", &json!({"lease": 7, "ending": ending("revoked"), "now": 1, "now_time": ""}));
    assert!(matches!(play.lease(7).standing, Standing::Ending(_)));
    play.input(Input::Release { lease: 7, outcome: None, ticket: Some(1) });
    let id = play.asked("lease.release");
    play.answer(id, released(7, "revoked"));
    assert!(play.answers[0].1.is_ok());
    // What a later claim is asked under is above the adopted one's number.
    play.acquire(2);
    let id = play.asked("lease.acquire");
    play.answer(id, queued(2, 1));
    play.notice("claim.ended", &ended(2, "timed_out"));
    assert!(play.events.iter().any(|event| matches!(event, Event::ClaimEnded { request_id: 2, .. })));
}
