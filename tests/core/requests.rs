//! Asking twice is asking once: numbers of requests, repeats, tombstones, and what is forgotten.

use leasehold::core::limits::{ENDED_REQUESTS_KEPT, ENDED_REQUESTS_SLACK};
use leasehold::core::session::{RequestEnd, Requests};

use crate::script::run;

const LAB: &str = "
    board b1
    board b2
";

#[test]
fn a_repeat_answers_the_present_state() {
    run(
        LAB,
        "0s  s1 open
             s1 acquire 1 board                    -> granted b1
             s1 acquire 1 board                    -> granted b1
             s1 acquire 2 2:board                  -> queued
             s1 acquire 2 2:board                  -> queued
             lab queue                             -> s1/2
             s1 release 1                          -> released by s1
             => s1 2 granted b1 b2
             s1 acquire 2 2:board                  -> granted b1 b2
             s1 acquire 1 board                    -> ended released by s1
             s1 release 1                          -> not held
             s1 cancel 1                           -> ended released by s1",
    );
}

#[test]
fn another_body_under_a_used_number_is_an_error() {
    run(
        LAB,
        "0s  s1 open
             s1 acquire 1 board                    -> granted b1
             s1 acquire 1 board | prio=1           -> refused request_id_reused: request_id 1 was used for
                 .. another claim: use a new number for a new claim
             s1 acquire 2 2:board                  -> queued
             s1 acquire 2 2:board | note=x         -> refused request_id_reused: request_id 2 was used for
                 .. another claim: use a new number for a new claim
             s1 cancel 2                           -> cancelled by s1
             s1 acquire 2 board                    -> refused request_id_reused: request_id 2 was used for
                 .. another claim: use a new number for a new claim
             s1 acquire 2 2:board                  -> cancelled by s1
             # What was refused by state stays refused.
             s1 acquire 3 9:board                  -> refused impossible: pool board has 2; 9 asked
             s1 acquire 3 9:board                  -> refused impossible: pool board has 2; 9 asked
             # Written otherwise, it is the same.
             s1 acquire 1 1:board                  -> granted b1",
    );
}

#[test]
fn a_cancel_comes_first_and_leaves_a_tombstone() {
    run(
        LAB,
        "0s  s1 open
             s1 cancel 1                           -> cancelled by its client
             s1 cancel 1                           -> cancelled by its client
             s1 acquire 1 board                    -> cancelled by its client
             s1 acquire 1 2:board                  -> cancelled by its client
             lab holders b1                        ->",
    );
}

#[test]
fn a_cancel_of_what_is_held_says_so() {
    run(
        LAB,
        "0s  s1 open
             s1 acquire 1 board                    -> granted b1
             s1 cancel 1                           -> granted b1
             lab holders b1                        -> s1/1",
    );
}

#[test]
fn the_last_ten_thousand_are_remembered_and_older_ones_too_old() {
    let mut script = run(
        LAB,
        "0s s1 open
            s1 acquire 5 board                     -> granted b1",
    );
    for request in 10..10 + ENDED_REQUESTS_KEPT + ENDED_REQUESTS_SLACK - 1 {
        script.unwatched(&format!("s1 cancel {request}"));
    }
    script.play("s1 cancel 10 -> cancelled by its client");
    script.unwatched("s1 cancel 20000");
    script.play(
        "s1 cancel 1009    -> refused request_id_too_old: request_id 1009 is older than the 1010 that this
            .. session's last requests are remembered from: use a number above every earlier one
         s1 acquire 3 board -> refused request_id_too_old: request_id 3 is older than the 1010 that this
             .. session's last requests are remembered from: use a number above every earlier one
         s1 acquire 1010 board -> cancelled by its client
         # What is open is known however old it is, and so is its end.
         s1 acquire 5 board -> granted b1
         s1 release 5       -> released by s1
         s1 acquire 5 board -> ended released by s1
         s1 acquire 20001 board -> granted b1",
    );
}

#[test]
fn what_is_forgotten_stays_so_when_old_ones_end_late() {
    let kept = u64::try_from(ENDED_REQUESTS_KEPT + ENDED_REQUESTS_SLACK).expect("a few");
    let slack = u64::try_from(ENDED_REQUESTS_SLACK).expect("a few");
    let late = 1..=slack;
    let new = 50_000..50_000 + kept - slack;
    let ended = late.chain(new).map(|request| (request, (None, RequestEnd::Tombstone)));
    let requests = Requests { forgotten: 20_000, ended: ended.collect(), ..Requests::default() };
    assert_eq!(requests.forgettable(), Some(20_000));
}
