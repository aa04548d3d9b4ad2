//! Section 3's client side: renewals, counting, lost, ending.

use serde_json::json;

use super::{MARGIN, Play, TTL, ending, granted, opened, queued, released, renewed};
use crate::client::event::{Event, Standing};
use crate::client::machine::Input;
use crate::clock::BootTime;

#[test]
fn an_answered_open_counts_from_when_it_was_sent() {
    let mut play = Play::new(1);
    play.jump(500);
    play.input(Input::Connected);
    play.jump(2_000);
    let id = play.asked("session.open");
    play.answer(id, opened(10, TTL, &[]));
    play.acquire(1);
    play.jump(2_100);
    let id = play.asked("lease.acquire");
    play.answer(id, granted(1, 7));
    let state = play.lease(7);
    assert_eq!(state.deadline, BootTime(500 + TTL - MARGIN));
    assert_eq!(state.terminate_at, BootTime(500 + TTL - MARGIN - 3_000));
    assert_eq!(state.hold_ends_at, Some(BootTime(2_100 + 60_000)));
}

#[test]
fn renewals_go_out_every_fifth_of_the_ttl_and_name_the_number_counted_by() {
    let mut play = Play::holding();
    let mut number = 10;
    for round in 1..=5 {
        let due = round * TTL / 5;
        play.until(due - 1);
        assert_eq!(play.methods(), [""; 0], "too early at {}", due - 1);
        play.until(due);
        assert_eq!(play.params("session.renew"), json!({"renewal": number}));
        let id = play.asked("session.renew");
        play.jump(due + 1_500);
        number += 3;
        play.answer(id, renewed(number, TTL, &[]));
        assert_eq!(play.deadline(7), due + TTL - MARGIN, "counted from sending, not from the answer");
        play.clear();
    }
}

#[test]
fn a_broker_that_asks_for_it_is_answered_at_once() {
    let mut play = Play::holding();
    play.until(1_000);
    play.notice("session.renew_now", &json!({}));
    assert_eq!(play.params("session.renew"), json!({"renewal": 10}));
    play.until(1_500);
    play.answer(play.asked("session.renew"), renewed(11, TTL, &[]));
    play.clear();
    play.until(1_000 + TTL / 5 - 1);
    assert_eq!(play.methods(), [""; 0]);
    play.until(1_000 + TTL / 5);
    assert_eq!(play.params("session.renew"), json!({"renewal": 11}));
}

#[test]
fn only_the_newest_answer_counts() {
    let mut play = Play::holding();
    play.until(6_000);
    let first = play.asked("session.renew");
    play.jump(6_500);
    play.notice("session.renew_now", &json!({}));
    let second = play.asked("session.renew");
    play.answer(second, renewed(12, TTL, &[]));
    assert_eq!(play.deadline(7), 6_500 + TTL - MARGIN);
    // An older answer would be longer here; it does not count.
    play.answer(first, renewed(11, 10 * TTL, &[]));
    assert_eq!(play.deadline(7), 6_500 + TTL - MARGIN);
}

#[test]
fn a_longer_promise_counts_and_a_shorter_one_after_it() {
    let mut play = Play::holding();
    play.until(2_000);
    play.notice("session.renew_now", &json!({}));
    play.answer(play.asked("session.renew"), renewed(11, 300_000, &[]));
    // The margin grows with what clocks can drift apart.
    assert_eq!(play.deadline(7), 2_000 + 300_000 - 6_000);
    // The stop, 90 s of nothing, the start.
    play.input(Input::Dropped { code: Some(1001), why: "stopping".to_owned() });
    play.clear();
    for refused in 0..200 {
        play.until(2_000 + refused * 450);
        play.input(Input::ConnectFailed(crate::client::ClientError::NoBroker("refused".to_owned())));
    }
    assert_eq!(play.lost(), [0; 0]);
    play.until(95_000);
    play.next_attempt();
    let up = play.now;
    play.input(Input::Connected);
    assert_eq!(play.params("session.resume"), json!({"session": 3, "secret": "hush", "instance": "me", "renewal": 11}));
    play.answer(play.asked("session.resume"), opened(1_000, TTL, &[granted(1, 7)]));
    assert_eq!(play.deadline(7), up + TTL - MARGIN, "shorter, as the newest answer says");
}

#[test]
fn a_lease_is_lost_at_its_deadline_and_not_before() {
    let mut play = Play::holding();
    play.until(TTL - MARGIN - 1);
    assert_eq!(play.lost(), [0; 0]);
    assert!(play.machine.lease(7).is_some());
    play.until(TTL - MARGIN);
    assert_eq!(play.lost(), [7]);
    assert!(play.machine.lease(7).is_none());
}

#[test]
fn lost_is_final_however_good_the_answer_that_is_read_too_late() {
    let mut play = Play::holding();
    play.until(6_000);
    let id = play.asked("session.renew");
    // Stopped for a while, as by Ctrl-Z: the answer has long been there, the deadline has passed.
    play.jump(TTL - MARGIN);
    play.answer(id, renewed(11, TTL, &[]));
    assert_eq!(play.lost(), [7]);
    assert!(play.machine.lease(7).is_none());
    assert_eq!(play.params("lease.release"), json!({"lease": 7}), "and what was lost is released at once");
    play.until(TTL);
    play.notice("lease.granted", &granted(1, 7));
    assert_eq!(play.lost(), [7], "told once");
    assert!(play.machine.lease(7).is_none(), "and never held again");
}

#[test]
fn an_answer_that_was_in_time_is_too_short_when_it_is_read() {
    let mut play = Play::holding();
    play.until(6_000);
    play.notice("session.renew_now", &json!({}));
    play.answer(play.asked("session.renew"), renewed(11, 1_000, &[]));
    assert_eq!(play.deadline(7), 6_900);
    play.until(6_900);
    assert_eq!(play.lost(), [7]);
}

#[test]
fn an_answer_that_names_a_lease_does_not_extend_it() {
    let mut play = Play::holding();
    play.acquire(2);
    play.answer(play.asked("lease.acquire"), granted(2, 8));
    play.clear();
    play.until(6_000);
    play.answer(play.asked("session.renew"), renewed(11, TTL, &[7]));
    assert_eq!((play.deadline(7), play.deadline(8)), (TTL - MARGIN, 6_000 + TTL - MARGIN));
    assert!(matches!(play.lease(7).standing, Standing::Ending(_)));
    assert_eq!(play.events.iter().filter(|event| matches!(event, Event::Ending { lease: 7, .. })).count(), 1);
    // The notice brings the reason; the deadline stays where it is.
    play.notice("lease.ending", &json!({"lease": 7, "ending": ending("revoked"), "now": 1, "now_time": ""}));
    let Standing::Ending(ending) = play.lease(7).standing else { panic!("it was ending") };
    assert_eq!(ending.why, "revoked");
    play.until(12_000);
    play.answer(play.asked("session.renew"), renewed(12, TTL, &[7]));
    assert_eq!((play.deadline(7), play.deadline(8)), (TTL - MARGIN, 12_000 + TTL - MARGIN));
    assert_eq!(play.events.iter().filter(|event| matches!(event, Event::Ending { lease: 7, .. })).count(), 1);
}

#[test]
fn a_notice_of_ending_stops_extensions_too() {
    let mut play = Play::holding();
    play.notice("lease.ending", &json!({"lease": 7, "ending": ending("kicked"), "now": 1, "now_time": ""}));
    assert!(matches!(&play.events[..], [Event::Ending { lease: 7, deadline, .. }] if deadline.0 == TTL - MARGIN));
    play.until(6_000);
    play.answer(play.asked("session.renew"), renewed(11, TTL, &[]));
    assert_eq!(play.deadline(7), TTL - MARGIN);
}

#[test]
fn a_lease_that_ends_under_a_longer_promise_is_cut_and_keeps_the_broker_bound() {
    let mut play = Play::holding();
    play.acquire(2);
    play.answer(play.asked("lease.acquire"), granted(2, 8));
    play.until(6_000);
    play.answer(play.asked("session.renew"), renewed(11, 300_000, &[]));
    play.until(12_000);
    play.answer(play.asked("session.renew"), renewed(12, TTL, &[7]));
    assert_eq!((play.deadline(7), play.deadline(8)), (12_000 + TTL - MARGIN, 12_000 + TTL - MARGIN));
    play.until(18_000);
    // Naming 12 would free the broker of the promise by which lease 7 still counts.
    assert_eq!(play.params("session.renew"), json!({"renewal": 11}));
    play.answer(play.asked("session.renew"), renewed(13, TTL, &[7]));
    assert_eq!((play.deadline(7), play.deadline(8)), (12_000 + TTL - MARGIN, 18_000 + TTL - MARGIN));
    play.input(Input::Release { lease: 7, outcome: None, ticket: None });
    play.until(24_000);
    assert_eq!(play.params("session.renew"), json!({"renewal": 13}));
}

#[test]
fn a_lease_that_is_to_end_before_it_was_taken_is_given_back() {
    let mut play = Play::open();
    play.acquire(1);
    let id = play.asked("lease.acquire");
    play.until(6_000);
    play.answer(play.asked("session.renew"), renewed(11, TTL, &[7]));
    play.answer(id, granted(1, 7));
    assert!(play.machine.lease(7).is_none());
    assert!(matches!(&play.events[..], [Event::ClaimEnded { request_id: 1, error }] if error.code() == "ending"));
    assert_eq!(play.params("lease.release"), json!({"lease": 7}));
}

#[test]
fn a_resume_past_the_deadline_keeps_claims_and_first_releases_what_was_lost() {
    let mut play = Play::holding();
    play.acquire(2);
    play.answer(play.asked("lease.acquire"), queued(2, 4));
    play.acquire(3);
    play.input(Input::Dropped { code: None, why: "reset".to_owned() });
    play.until(0);
    play.clear();
    play.until(TTL);
    assert_eq!(play.lost(), [7]);
    play.sent.clear();
    play.input(Input::ConnectFailed(crate::client::ClientError::NoBroker("refused".to_owned())));
    play.until(TTL + 5_000);
    play.input(Input::Connected);
    assert_eq!(play.methods(), ["session.resume"]);
    let state = [granted(1, 7), queued(2, 1)];
    play.answer(play.asked("session.resume"), opened(50, TTL, &state));
    assert_eq!(play.methods(), ["session.resume", "lease.release", "lease.acquire"]);
    assert_eq!(play.params("lease.release"), json!({"lease": 7}));
    assert_eq!(play.params("lease.acquire"), json!({"request_id": 3, "needs": ["phone"]}));
    assert!(play.machine.lease(7).is_none(), "lost is final");
    assert_eq!(play.lost(), [7], "and told once");
    play.answer(play.asked("lease.release"), released(7, "session_expired"));
    play.notice("lease.granted", &granted(2, 9));
    assert_eq!(play.deadline(9), play.now + TTL - MARGIN);
}

#[test]
fn the_hold_that_is_extended_moves_its_end_but_not_the_deadline() {
    let mut play = Play::holding();
    let mut info = super::lease_info(1, 7);
    info["until"] = json!(121_000);
    play.input(Input::Extend { lease: 7, until: 121_000, ticket: 5 });
    assert_eq!(play.params("lease.extend"), json!({"lease": 7, "until": 121_000}));
    play.answer(play.asked("lease.extend"), info.clone());
    assert!(matches!(&play.answers[..], [(5, Ok(super::Reply::Extended(told)))] if told.until == Some(121_000)));
    assert_eq!(play.lease(7).hold_ends_at, Some(BootTime(120_000)));
    info["until"] = json!(181_000);
    play.notice("lease.extended", &info);
    assert!(matches!(play.events.last(), Some(Event::Extended(told)) if told.until == Some(181_000)));
    assert_eq!(play.deadline(7), TTL - MARGIN);
}
