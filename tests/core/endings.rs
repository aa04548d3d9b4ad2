//! How leases end under a live holder, and how they are given back.

use crate::script::run;

const LAB: &str = "
    pool board max_hold=60s
    board b1
    flat f1
";

#[test]
fn a_hold_ends_then_the_lease_is_ending_then_over() {
    run(
        LAB,
        "0s   s1 open
              s2 open
              s1 acquire 1 board | hold=10s        -> granted b1
              s2 acquire 1 board                   -> queued
         9s   lab tick                             -> done
         10s  lab tick                             -> done
              => s1 1 ending hold over
              # Nobody has it before the holder gave it back or its ttl is over.
              lab holders b1                       -> s1/1
              lab tick                             -> done
         40s  lab over s1/1                        -> done
              => s1 1 ended hold over
              => s2 1 granted b1
              s1 acquire 1 board | hold=10s        -> ended hold over
              s1 release 1                         -> not held",
    );
}

#[test]
fn releasing_an_ending_lease_frees_it_and_says_why_it_ended() {
    run(
        LAB,
        "0s   s1 open
              s2 open
              s1 acquire 1 board                   -> granted b1
              s2 acquire 1 board                   -> queued
              admin revoke s1/1 fire               -> done
              => s1 1 ending revoked by root: fire
              admin revoke s1/1 again              -> done
              s1 release 1 passed                  -> revoked by root: fire
              => s2 1 granted b1",
    );
}

#[test]
fn force_waits_for_nobody() {
    run(
        LAB,
        "0s   s1 open
              s2 open
              s1 acquire 1 board                   -> granted b1
              s2 acquire 1 board                   -> queued
              admin revoke s1/1                    -> done
              => s1 1 ending revoked by root
              admin revoke s1/1 --force            -> done
              => s1 1 ended revoked by root by force
              => s2 1 granted b1
              admin revoke s1/1 --force            -> not held",
    );
}

#[test]
fn the_smallest_max_hold_is_the_default_and_the_bound() {
    run(
        LAB,
        "0s   s1 open
              s1 acquire 1 board | hold=61s        -> refused hold_too_long: a hold of 1m01s is longer than its
                  .. pools allow (1m): ask for less, and extend while it is held
              s1 acquire 2 board + flat            -> granted b1 f1
              s1 until 2                           -> 60000
              s1 extend 2 to 30s                   -> until 30s
              s1 extend 2 to 30s                   -> until 30s
              s1 extend 2 to 60s                   -> until 60s
         10s  s1 extend 2 to 61s                   -> refused hold_too_long: lease 1 would be held for 1m01s,
             .. and its pools allow at most 1m: it is held as long as they allow already",
    );
}

#[test]
fn an_extension_moves_the_end() {
    run(
        LAB,
        "0s   s1 open
              s1 acquire 1 flat | hold=10s         -> granted f1
              s1 extend 1 to 20s                   -> until 20s
         10s  lab tick                             -> done
         15s  s1 extend 1 to 18s                   -> until 18s
         18s  lab tick                             -> done
              => s1 1 ending hold over
              s1 extend 1 to 90s                   -> refused lease_ending: lease 1 is ending and cannot be
                  .. extended: release it and acquire again",
    );
}

#[test]
fn a_kick_ends_claims_at_once_and_leases_as_ending() {
    run(
        LAB,
        "0s   s1 open
              s2 open
              s1 acquire 1 board                   -> granted b1
              s1 acquire 2 board                   -> queued
              s2 acquire 1 board                   -> queued
              admin kick s1                        -> done
              => s1 2 cancelled by root
              => s1 1 ending kicked by root
              s1 acquire 3 flat                    -> refused session_gone: session s1 has ended: open a new
                  .. one and claim again
              admin kick s1                        -> done
              s1 release 1                         -> kicked by root
              => s1 kicked by root
              => s2 1 granted b1
              admin kick s1                        -> refused not_found: there is no open session s1",
    );
}

#[test]
fn a_kicked_session_without_a_lease_is_over_at_once() {
    run(
        LAB,
        "0s   s1 open
              s2 open
              s2 acquire 1 board                   -> granted b1
              s1 acquire 1 board                   -> queued
              s1 acquire 2 board                   -> queued
              admin kick s1                        -> done
              => s1 1 cancelled by root
              => s1 2 cancelled by root
              => s1 kicked by root",
    );
}

#[test]
fn who_may_release() {
    run(
        LAB,
        "0s   s1 open
              s2 open
              s1 acquire 1 board                   -> granted b1
              s1 acquire 2 board                   -> queued
              s2 release s1/1                      -> refused forbidden: lease 1 belongs to s1: only its
                  .. session, its release key or its owner may do that (an admin takes it back with `leasehold
                  .. lease revoke`)
              s2 cancel-claim s1/2                 -> refused forbidden: claim c2 belongs to s1: only its
                  .. session, its release key or its owner may do that (an admin takes it back with `leasehold
                  .. lease revoke`)
              s2 extend s1/1 to 20s                -> refused forbidden: lease 1 belongs to s1: only its
                  .. session, its release key or its owner may do that (an admin takes it back with `leasehold
                  .. lease revoke`)
              admin cancel s1/2                    -> done
              => s1 2 cancelled by root
              admin cancel s1/2                    -> refused not_found: claim c2 does not wait (any more):
                  .. `leasehold queue` lists those that do
              admin release s1/1                   -> released by root
              s1 release 1                         -> not held",
    );
}

#[test]
fn a_secret_that_cannot_be_read_ends_the_lease_and_quarantines() {
    run(
        LAB,
        "0s   s1 open
              s1 acquire 1 board                   -> granted b1
              s1 acquire 2 board                   -> queued
              lab no-secret s1/1 b1                -> done
              => b1 quarantined: secret_unavailable: no such file
              => s1 1 ended secret unavailable: b1
              => s1 2 blocked: need board waits for resources that are out of use: b1 is quarantined by broker
                  .. (secret_unavailable: no such file)
              admin restore b1                     -> done
              => s1 2 unblocked
              => s1 2 granted b1",
    );
}
