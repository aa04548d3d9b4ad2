//! Bounds: sessions, claims and leases of a session, and what matching may cost.

use leasehold::core::limits::Limits;

use crate::script::{run, run_within};

const LAB: &str = "
    pool board ttl=10s
    pool flat ttl=20s
    board b1
    board b2
    flat f1
";

#[test]
fn sessions() {
    let limits = Limits { sessions_max: 2, ..Limits::default() };
    run_within(
        limits,
        LAB,
        "0s  s1 open
             s2 open
             s3 open                               -> refused too_many_sessions: the broker has 2 open
                 .. sessions, as many as it may: close some, or raise sessions_max under [limits]
             k1 post job board                     -> refused too_many_sessions: the broker has 2 open
                 .. sessions, as many as it may: close some, or raise sessions_max under [limits]
             s1 close                              -> done
             s3 open                               -> open 30000",
    );
}

#[test]
fn claims_and_leases_of_a_session() {
    let limits = Limits { claims_per_session_max: 1, leases_per_session_max: 2, ..Limits::default() };
    run_within(
        limits,
        LAB,
        "0s  s1 open
             s1 acquire 1 board                    -> granted b1
             s1 acquire 2 2:board                  -> queued
             s1 acquire 3 flat                     -> refused too_many_claims: the session has 1 waiting
                 .. claims, as many as it may: cancel some, or wait
             s1 cancel 2                           -> cancelled by s1
             s1 acquire 3 flat                     -> granted f1
             s1 acquire 4 board                    -> refused too_many_leases: the session holds 2 leases, as
                 .. many as it may: release some first
             # A repeat is no new claim.
             s1 acquire 3 flat                     -> granted f1",
    );
}

#[test]
fn the_ttl_of_a_session() {
    run(
        LAB,
        "0s  s1 open                               -> open 30000
             s2 open 2s                            -> open 2000
             s3 open 1s                            -> refused invalid_params: a ttl of 1000 ms is out of range:
                 .. expected 2000 to 600000
             s3 open 601s                          -> refused invalid_params: a ttl of 601000 ms is out of
                 .. range: expected 2000 to 600000
             s3 open for board                     -> open 10000
             s4 open for board flat                -> open 20000
             s5 open for zeppelin                  -> open 30000",
    );
}

/// `all:` counts as many picks as there are.
#[test]
fn all_of_more_than_a_claim_may_have() {
    let lab: Vec<String> = (0..1_500).map(|n| format!("port p{n}*4")).collect();
    let mut script = run(&lab.join("\n"), "0s s1 open");
    script.play(
        "s1 acquire 1 port -> granted p0
         s1 acquire 2 x=all:port/2 + y=all:port/2 -> refused too_many_picks: the claim is for 3000 resources,
             .. and 256 is the most: narrow `all:` down by labels
         s1 acquire 3 3:port/2 -> granted p0*2 p1*2 p2*2",
    );
}
