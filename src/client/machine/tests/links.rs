//! Sockets that come and go: resume and repeat, silence, backoff, refusals, closing.

use serde_json::json;

use super::{Play, TTL, ended, granted, lease_info, opened, queued, released, renewed};
use crate::client::error::ClientError;
use crate::client::event::Event;
use crate::client::machine::{Input, Reply};
use crate::protocol::call::{ClaimRequest, ProviderProvide};

fn refused() -> Input<'static> {
    Input::ConnectFailed(ClientError::NoBroker("connection refused".to_owned()))
}

fn claims_ended(play: &Play) -> Vec<(u64, &str)> {
    let ended = play.events.iter().filter_map(|event| match event {
        Event::ClaimEnded { request_id, error } => Some((*request_id, error.code())),
        _ => None,
    });
    ended.collect()
}

#[test]
fn a_resume_names_the_session_and_repeats_what_is_unanswered() {
    let mut play = Play::holding();
    play.acquire(2);
    play.acquire(3);
    play.input(Input::Extend { lease: 7, until: 90_000, ticket: 1 });
    play.input(Input::Release { lease: 7, outcome: Some("passed".to_owned()), ticket: Some(2) });
    play.answer(play.asked("lease.extend"), lease_info(1, 7));
    play.reconnect();
    assert_eq!(play.params("session.resume"), json!({"session": 3, "secret": "hush", "instance": "me", "renewal": 10}));
    play.answer(play.asked("session.resume"), opened(11, TTL, &[granted(1, 7), queued(2, 1)]));
    // 2 is in the state; 3 and the release are asked again, the answered extension is not.
    assert_eq!(play.methods(), ["session.resume", "lease.acquire", "lease.release"]);
    assert_eq!(play.params("lease.acquire")["request_id"], 3);
    assert_eq!(play.params("lease.release"), json!({"lease": 7, "outcome": "passed"}));
    play.answer(play.asked("lease.release"), released(7, "released"));
    assert!(matches!(&play.answers[1], (2, Ok(Reply::Released(told))) if told.why == "released"));
    assert!(play.events.iter().any(|event| matches!(event, Event::Connected { session: 3, resumed: true, .. })));
}

#[test]
fn a_claim_the_broker_no_longer_lists_is_asked_for_again_and_says_how_it_ended() {
    let mut play = Play::open();
    play.acquire(1);
    play.answer(play.asked("lease.acquire"), queued(1, 2));
    play.reconnect();
    play.answer(play.asked("session.resume"), opened(11, TTL, &[]));
    play.answer(play.asked("lease.acquire"), ended(1, "timed_out"));
    assert_eq!(claims_ended(&play), [(1, "timed_out")]);
}

#[test]
fn a_lease_the_broker_no_longer_lists_is_over() {
    let mut play = Play::holding();
    play.reconnect();
    play.answer(play.asked("session.resume"), opened(11, TTL, &[]));
    assert!(matches!(play.events.last(), Some(Event::Ended { lease: 7, .. })), "{:?}", play.events);
    assert!(play.machine.lease(7).is_none());
}

#[test]
fn a_lease_granted_while_nobody_listened_is_told_at_the_resume() {
    let mut play = Play::open();
    play.acquire(1);
    play.reconnect();
    play.answer(play.asked("session.resume"), opened(11, TTL, &[granted(1, 7), granted(9, 99)]));
    assert!(play.machine.lease(7).is_some());
    // Nobody here knows request 9: what it holds is given back.
    assert_eq!(play.methods(), ["session.resume", "lease.release"]);
    assert_eq!(play.params("lease.release"), json!({"lease": 99}));
}

#[test]
fn an_answer_of_an_older_socket_has_no_effect() {
    let mut play = Play::holding();
    play.until(6_000);
    let renew = play.asked("session.renew");
    play.input(Input::Dropped { code: None, why: "reset".to_owned() });
    play.answer(renew, renewed(11, 10 * TTL, &[]));
    play.until(6_000);
    play.input(Input::Connected);
    play.answer(renew, renewed(12, 10 * TTL, &[]));
    assert_eq!(play.deadline(7), TTL - super::MARGIN);
}

#[test]
fn a_silent_network_is_given_up_before_the_lease_is() {
    let mut play = Play::holding();
    play.until(6_000);
    assert_eq!(play.methods(), ["session.renew"]);
    play.until(11_999);
    assert_eq!(play.links, [""; 0]);
    play.until(12_000);
    assert_eq!(play.links, ["drop", "connect 0"]);
    assert!(matches!(&play.events[..], [Event::Disconnected { why }] if why.contains("silent")));
    // The next attempts hang as well and are given up in turn, each after twice the time.
    play.until(13_999);
    assert_eq!(play.links, ["drop", "connect 0"]);
    play.until(14_050);
    assert_eq!(play.links, ["drop", "connect 0", "drop", "connect 0"]);
    play.until(18_149);
    assert_eq!(play.links.len(), 5, "4 s, then a pause of 100 ms");
    play.until(18_150);
    assert_eq!(play.links.last().map(String::as_str), Some("connect 0"));
    play.until(TTL);
    assert_eq!(play.lost(), [7]);
}

#[test]
fn a_broker_that_accepts_and_never_answers_is_given_up() {
    let mut play = Play::new(2);
    play.input(Input::Connected);
    play.clear();
    play.until(15_000);
    assert_eq!(play.links, ["drop", "connect 1"]);
    assert!(matches!(&play.events[..], [Event::ConnectFailed { url: 0, .. }]));
}

#[test]
fn urls_are_tried_in_turn_with_growing_pauses_between_rounds() {
    let mut play = Play::new(2);
    let mut tries = vec![(0, "connect 0".to_owned())];
    play.clear();
    while tries.len() < 120 {
        play.input(refused());
        if play.links.is_empty() {
            let wake = play.machine.next_wake().expect("it goes on").0;
            play.until(wake);
        }
        tries.push((play.now, play.links.remove(0)));
    }
    let at: Vec<u64> = tries.iter().map(|(at, _)| *at).collect();
    assert_eq!(at[..14], [0, 0, 50, 50, 150, 150, 350, 350, 550, 550, 750, 750, 950, 950]);
    // Later a twentieth of the trouble so far, which is half of the longest that it may be.
    let pauses = at.chunks(2).map(|round| round[0]).collect::<Vec<_>>();
    let late = pauses.windows(2).find(|pair| pair[0] > 8_000).expect("it goes on");
    assert_eq!(late[1] - late[0], late[0] / 20);
    assert!(tries.iter().enumerate().all(|(at, (_, what))| *what == format!("connect {}", at % 2)), "{tries:?}");
}

#[test]
fn opening_fails_when_no_broker_is_there_in_time() {
    let mut play = Play::new(1);
    play.acquire(1);
    play.input(refused());
    while play.machine.next_wake().is_some_and(|wake| wake.0 < 120_000) {
        play.until(play.machine.next_wake().expect("just seen").0);
        play.input(refused());
    }
    play.until(120_000);
    assert!(play.machine.is_closed());
    assert_eq!(claims_ended(&play), [(1, "no_broker")]);
    assert!(
        matches!(play.events.last(), Some(Event::Closed(Some(ClientError::NoBroker(why)))) if why.contains("refused"))
    );
}

#[test]
fn a_claim_that_waits_fails_when_no_broker_is_there_in_time_and_is_cancelled_after() {
    let mut play = Play::open();
    play.acquire(1);
    play.answer(play.asked("lease.acquire"), queued(1, 1));
    play.input(Input::Dropped { code: None, why: "reset".to_owned() });
    while play.machine.next_wake().is_some_and(|wake| wake.0 < 120_000) {
        play.until(play.machine.next_wake().expect("just seen").0);
        play.input(refused());
    }
    play.until(119_999);
    assert_eq!(claims_ended(&play), []);
    play.until(120_000);
    assert_eq!(claims_ended(&play), [(1, "no_broker")]);
    assert!(!play.machine.is_closed());
    play.until(124_000);
    play.input(Input::Connected);
    play.answer(play.asked("session.resume"), opened(11, TTL, &[queued(1, 1)]));
    assert_eq!(play.params("lease.cancel"), json!({"request_id": 1}));
    play.answer(play.asked("lease.cancel"), granted(1, 7));
    assert_eq!(play.params("lease.release"), json!({"lease": 7}), "granted in the meantime: given back");
}

#[test]
fn whoever_is_no_broker_is_said_at_once_but_not_once_a_session_is_open() {
    let no_broker = || Input::ConnectFailed(ClientError::NotABroker("nginx answered 404".to_owned()));
    let mut play = Play::new(2);
    play.input(no_broker());
    assert!(!play.machine.is_closed());
    play.input(no_broker());
    assert!(matches!(play.events.last(), Some(Event::Closed(Some(ClientError::NotABroker(_))))));
    let mut play = Play::holding();
    play.input(Input::Dropped { code: None, why: "reset".to_owned() });
    play.until(0);
    play.input(no_broker());
    assert!(!play.machine.is_closed(), "a proxy in between may answer for a broker that restarts");
}

#[test]
fn a_refused_opening_is_final_unless_it_may_pass() {
    for (code, is_final) in [("forbidden", true), ("invalid_params", true), ("unavailable", false), ("stopping", false)]
    {
        let mut play = Play::new(1);
        play.input(Input::Connected);
        play.refuse(play.asked("session.open"), code);
        assert_eq!(play.machine.is_closed(), is_final, "{code}");
    }
}

#[test]
fn an_opening_that_makes_no_sense_is_tried_elsewhere() {
    for (field, value) in [("secret", json!(null)), ("ttl_ms", json!(0)), ("session", json!("three"))] {
        let mut play = Play::new(1);
        play.input(Input::Connected);
        let mut answer = opened(10, TTL, &[]);
        answer[field] = value;
        play.answer(play.asked("session.open"), answer);
        assert_eq!(play.links.last().map(String::as_str), Some("drop"), "{field}");
        assert!(play.machine.session().is_none() && !play.machine.is_closed(), "{field}");
    }
}

#[test]
fn a_session_that_is_gone_loses_everything_at_once() {
    let gone: [fn(&mut Play); 3] = [
        |play| {
            play.reconnect();
            play.refuse(play.asked("session.resume"), "session_gone");
        },
        |play| play.input(Input::Dropped { code: Some(4003), why: "session_ended: expired".to_owned() }),
        |play| {
            play.until(6_000);
            play.refuse(play.asked("session.renew"), "session_gone");
        },
    ];
    for make in gone {
        let mut play = Play::holding();
        play.acquire(2);
        play.input(Input::Extend { lease: 7, until: 1, ticket: 8 });
        make(&mut play);
        assert_eq!(play.lost(), [7]);
        assert_eq!(claims_ended(&play), [(2, "session_gone")]);
        assert!(matches!(&play.answers[..], [(8, Err(ClientError::SessionGone(_)))]));
        assert!(matches!(play.events.last(), Some(Event::Closed(Some(ClientError::SessionGone(_))))));
        assert_eq!(play.machine.next_wake(), None);
    }
}

#[test]
fn claims_tell_their_place_and_how_they_end() {
    let mut play = Play::open();
    play.acquire(1);
    play.acquire(2);
    assert_eq!(play.params("lease.acquire"), json!({"request_id": 2, "needs": ["phone"]}));
    play.refuse(play.asked("lease.acquire"), "impossible");
    play.answer(play.asked("lease.acquire") - 1, queued(1, 3));
    play.notice("claim.waiting", &queued(1, 2));
    play.notice("claim.ended", &ended(1, "timed_out"));
    let places = play.events.iter().filter_map(|event| match event {
        Event::Queued(info) => info.place,
        _ => None,
    });
    assert_eq!(places.collect::<Vec<_>>(), [3, 2]);
    assert_eq!(claims_ended(&play), [(2, "impossible"), (1, "timed_out")]);
}

#[test]
fn what_the_broker_could_not_do_is_asked_again_under_the_same_number() {
    let mut play = Play::open();
    play.acquire(1);
    for pause in [250, 500, 1_000] {
        play.refuse(play.asked("lease.acquire"), "unavailable");
        play.clear();
        play.until(play.now + pause - 1);
        assert_eq!(play.methods(), [""; 0]);
        play.until(play.now + 1);
        assert_eq!(play.params("lease.acquire")["request_id"], 1);
    }
    assert_eq!(claims_ended(&play), []);
}

#[test]
fn an_abandoned_claim_is_cancelled_or_given_back() {
    // Never sent: nothing to say.
    let mut play = Play::new(1);
    play.acquire(1);
    play.input(Input::Abandon(1));
    play.input(Input::Connected);
    play.answer(play.asked("session.open"), opened(10, TTL, &[]));
    assert_eq!(play.methods(), ["session.open"]);
    // Sent: cancelled, and given back when the grant was under way.
    play.acquire(2);
    play.input(Input::Abandon(2));
    assert_eq!(play.params("lease.cancel"), json!({"request_id": 2}));
    play.notice("lease.granted", &granted(2, 7));
    play.answer(play.asked("lease.cancel"), granted(2, 7));
    assert_eq!(play.methods().iter().filter(|method| **method == "lease.release").count(), 1);
    // Granted: released.
    play.acquire(3);
    play.answer(play.asked("lease.acquire"), granted(3, 8));
    play.input(Input::Abandon(3));
    assert_eq!(play.params("lease.release"), json!({"lease": 8}));
    assert_eq!(claims_ended(&play), []);
}

#[test]
fn a_request_too_long_for_the_wire_is_refused_here() {
    let mut play = Play::open();
    let request = ClaimRequest { note: Some("x".repeat(300_000)), ..ClaimRequest::default() };
    play.input(Input::Acquire(1, Box::new(request)));
    assert_eq!(claims_ended(&play), [(1, "message_too_long")]);
    assert_eq!(play.methods(), [""; 0]);
}

#[test]
fn what_makes_no_sense_drops_the_socket_and_what_is_unknown_does_not() {
    for text in ["", "[]", "{\"jsonrpc\":\"2.0\",\"method\":\"lease.ending\",\"params\":{\"lease\":\"x\"}}"] {
        let mut play = Play::holding();
        play.input(Input::Received(text));
        assert_eq!(play.links.first().map(String::as_str), Some("drop"), "{text}");
        assert!(play.machine.lease(7).is_some(), "leases are kept");
    }
    let mut play = Play::holding();
    play.notice("lease.sung", &json!({"la": "la"}));
    play.receive(&json!({"jsonrpc": "2.0", "id": 4_711, "result": {}}));
    assert_eq!(play.links, [""; 0]);
    play.receive(&json!({"jsonrpc": "2.0", "id": "x", "method": "client.sing", "params": {}}));
    assert_eq!(play.sent[0]["error"]["code"], -32601);
}

#[test]
fn a_lease_ended_by_others_is_told() {
    let mut play = Play::holding();
    play.notice("lease.ended", &released(7, "revoked"));
    assert!(matches!(&play.events[..], [Event::Ended { lease: 7, why, .. }] if why == "revoked"));
    assert!(play.machine.lease(7).is_none());
}

#[test]
fn closing_says_so_and_hangs_up() {
    let mut play = Play::holding();
    play.acquire(2);
    play.input(Input::Close { ticket: 4 });
    assert_eq!(claims_ended(&play), [(2, "closed")]);
    play.answer(play.asked("session.close"), json!({"now": 1, "now_time": ""}));
    assert_eq!(play.links, ["hangup"]);
    assert_eq!(play.answers, [(4, Ok(Reply::Closed))]);
    assert_eq!(play.events.last(), Some(&Event::Closed(None)));
    play.acquire(5);
    play.input(Input::Close { ticket: 6 });
    assert_eq!(claims_ended(&play), [(2, "closed"), (5, "closed")]);
    assert_eq!(play.answers.last(), Some(&(6, Ok(Reply::Closed))));
}

#[test]
fn closing_without_a_socket_closes_on_the_next_one_or_gives_up() {
    let mut play = Play::holding();
    play.reconnect();
    play.input(Input::Close { ticket: 4 });
    play.input(Input::Dropped { code: None, why: "reset".to_owned() });
    play.until(1_000);
    play.input(Input::Connected);
    assert_eq!(play.params("session.close"), json!({"session": 3, "secret": "hush"}));
    play.until(1_499);
    assert!(!play.machine.is_closed());
    play.until(1_500);
    assert!(matches!(&play.answers[..], [(4, Err(ClientError::NoBroker(_)))]));
    assert!(play.machine.is_closed());

    let mut play = Play::new(1);
    play.input(Input::Close { ticket: 1 });
    assert_eq!(play.answers, [(1, Ok(Reply::Closed))]);
}

#[test]
fn the_store_of_the_broker_is_told_of() {
    let mut play = Play::open();
    play.notice("store.state", &json!({"working": false, "message": "disk full"}));
    assert!(matches!(&play.events[..], [Event::StoreState { working: false, .. }]));
}

#[test]
fn what_went_offline_while_the_socket_was_down_is_told_after_the_resume() {
    let mut play = Play::holding();
    let reach = json!({"lease": 7, "resources": ["p1"], "message": "p1 went offline", "now": 1, "now_time": ""});
    let mut here = granted(1, 7);
    here["lease"]["resources"] =
        json!({"phone": [{"name": "p1", "pool": "phone", "labels": {}, "properties": {}, "slots": 1}]});
    let mut gone = here.clone();
    gone["lease"]["resources"]["phone"][0]["offline"] = json!("provider rack has left");
    let mut resumed = |renewal: u64, state: &serde_json::Value| {
        play.events.clear();
        play.reconnect();
        play.answer(play.asked("session.resume"), opened(renewal, TTL, std::slice::from_ref(state)));
        // Its trouble is over with an answered renewal: the next drop is the first again.
        play.until(play.now + TTL / 5);
        play.answer(play.asked("session.renew"), renewed(renewal + 1, TTL, &[]));
        let told = play.events.iter().filter_map(|event| match event {
            Event::Offline { lease, resources, .. } => Some(format!("{lease} {resources:?} offline")),
            Event::Online { lease, resources, .. } => Some(format!("{lease} {resources:?} online")),
            _ => None,
        });
        told.collect::<Vec<_>>()
    };
    assert_eq!(resumed(20, &here), [""; 0]);
    assert_eq!(resumed(30, &gone), ["7 [\"p1\"] offline"]);
    assert_eq!(resumed(40, &gone), [""; 0], "once");
    assert_eq!(resumed(50, &here), ["7 [\"p1\"] online"]);
    play.receive(&json!({"jsonrpc": "2.0", "method": "lease.offline", "params": reach}));
    assert!(matches!(play.events.last(), Some(Event::Offline { lease: 7, .. })), "{:?}", play.events);
    assert!(play.machine.lease(7).is_some(), "the lease goes on");
}

#[test]
fn what_is_provided_is_asked_again_until_it_is_answered() {
    let mut play = Play::open();
    let request = ProviderProvide { name: "rack".to_owned(), ..ProviderProvide::default() };
    play.input(Input::Provide { request: Box::new(request), ticket: 4 });
    assert_eq!(play.params("provider.provide")["name"], "rack");
    play.reconnect();
    play.answer(play.asked("session.resume"), opened(11, TTL, &[]));
    let applied = json!({"changes": [], "unchanged": 1, "applied": true, "now": 1, "now_time": ""});
    play.answer(play.asked("provider.provide"), applied);
    assert!(matches!(&play.answers[..], [(4, Ok(Reply::Provided(_)))]), "{:?}", play.answers);
}
