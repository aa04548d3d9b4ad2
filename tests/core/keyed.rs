//! Leases without a socket: one claim under a key, remembered for a day after its end.

use crate::script::run;

const LAB: &str = "
    board b1
";

#[test]
fn a_repeat_is_answered_and_another_body_refused() {
    run(
        LAB,
        "0s      k1 post job board                 -> granted b1
                 k2 post job board                 -> queued
                 k1 post job board                 -> granted b1
                 k2 post job board                 -> queued
                 k1 post other board               -> refused request_id_reused: this key was used for another
                     .. request_id: make a new key for each lease
                 k1 post job board | prio=1        -> refused request_id_reused: request_id \"job\" was used
                     .. for another claim: use a new key and id
                 k1 release 1                      -> released by k1
                 => k2 1 granted b1
                 k1 post job board                 -> ended released by k1
                 k1 post job 2:board               -> refused request_id_reused: request_id \"job\" was used
                     .. for another claim: use a new key and id",
    );
}

#[test]
fn how_it_ended_is_remembered_for_a_day() {
    run(
        LAB,
        "0s      k1 post job board                 -> granted b1
                 k2 post job 2:board               -> refused impossible: pool board has 1; 2 asked
         10s     k1 release 1                      -> released by k1
         86399s  k2 post job 2:board               -> refused impossible: pool board has 1; 2 asked
         86400s  k1 post job board                 -> ended released by k1
         86410s  k1 post job board                 -> granted b1",
    );
}

#[test]
fn its_end_is_its_sessions_end() {
    run(
        LAB,
        "0s      k1 post job board                 -> granted b1
                 k2 post job board                 -> queued
                 k3 post job board                 -> queued
                 k2 cancel-claim 1                 -> done
                 => k2 1 cancelled by k2
                 k1 expire                         -> done
                 => k1 1 ended expired
                 => k1 expired
                 => k3 1 granted b1
                 k2 post job board                 -> cancelled by k2
                 admin kick k3                     -> done
                 => k3 1 ending kicked by root
                 lab over k3/1                     -> done
                 => k3 1 ended kicked by root
                 => k3 kicked by root
                 k3 post job board                 -> ended kicked by root",
    );
}

#[test]
fn it_outlives_a_restart() {
    run(
        LAB,
        "0s      k1 post job board                 -> granted b1
                 k2 post job board                 -> queued
                 k3 post job 2:board               -> refused impossible: pool board has 1; 2 asked
                 lab restart                       -> done
                 k1 post job board                 -> granted b1
                 k2 post job board                 -> queued
                 k3 post job 2:board               -> refused impossible: pool board has 1; 2 asked
                 k1 release 1                      -> released by k1
                 => k2 1 granted b1",
    );
}
