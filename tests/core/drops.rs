//! A socket drops: places are kept, nothing is granted to nobody, and what `on_drop` says.

use crate::script::run;

const LAB: &str = "
    pool flat on_drop=immediate
    flat f1
    flat f2
    board b1
";

#[test]
fn the_head_of_the_queue_keeps_its_place_and_is_not_granted() {
    run(
        LAB,
        "0s  s1 open
             s2 open
             s3 open
             s1 acquire 1 board                    -> granted b1
         1s  s2 acquire 1 board                    -> queued
         2s  s3 acquire 1 board                    -> queued
             s2 down                               -> done
             # It keeps back nothing while it is away.
         3s  s1 release 1                          -> released by s1
             => s3 1 granted b1
         4s  s2 up                                 -> done
             lab queue                             -> s2/1
             s3 acquire 2 board                    -> queued
             lab queue                             -> s2/1 s3/2
             s3 release 1                          -> released by s3
             => s2 1 granted b1",
    );
}

#[test]
fn a_lease_outlives_a_drop_until_the_session_expires() {
    run(
        LAB,
        "0s  s1 open
             s2 open
             s1 acquire 1 board                    -> granted b1
             s2 acquire 1 board                    -> queued
             s1 down                               -> done
             s1 up                                 -> done
             s1 down                               -> done
         30s s1 expire                             -> done
             => s1 1 ended expired
             => s1 expired
             => s2 1 granted b1",
    );
}

#[test]
fn immediate_gives_back_at_the_drop() {
    run(
        LAB,
        "0s  s1 open
             s2 open
             s1 acquire 1 2:flat                   -> granted f1 f2
             s2 acquire 1 flat                     -> queued
             s1 down                               -> done
             => s1 1 ended dropped
             => s2 1 granted f1
             s1 up                                 -> done
             s1 acquire 1 2:flat                   -> ended dropped",
    );
}

#[test]
fn a_mixed_lease_gives_back_the_rest_with_its_session() {
    run(
        LAB,
        "0s  s1 open
             s2 open
             s1 acquire 1 flat + board             -> granted f1 b1
             s2 acquire 1 2:flat                   -> queued
             s2 acquire 2 board                    -> queued
             s1 down                               -> done
             => s1 1 ending dropped
             => s1 1 loses f1
             => s2 1 granted f1 f2
             lab holders b1                        -> s1/1
             # Back before the ttl: the lease is ending all the same.
             s1 up                                 -> done
             s1 extend 1 to 60s                    -> refused lease_ending: lease 1 is ending and cannot be
                 .. extended: release it and acquire again
             s1 down                               -> done
         30s lab over s1/1                         -> done
             => s1 1 ended dropped
             => s2 2 granted b1",
    );
}

#[test]
fn what_a_drop_freed_may_leave_the_books() {
    run(
        LAB,
        "0s  s1 open
             s1 acquire 1 flat + board             -> granted f1 b1
             lab apply prune yes: pool flat on_drop=immediate; flat f2; board b1 -> remove f1 pending
             s1 down                               -> done
             => s1 1 ending dropped
             => s1 1 loses f1
             => f1 removed
             s1 up                                 -> done
             s1 down                               -> done
             lab restart                           -> done
             lab over s1/1                         -> done
             => s1 1 ended dropped",
    );
}

#[test]
fn a_clean_close_frees_at_once() {
    run(
        LAB,
        "0s  s1 open
             s2 open
             s1 acquire 1 board                    -> granted b1
             s1 acquire 2 board                    -> queued
             s2 acquire 1 board                    -> queued
             s1 close                              -> done
             => s1 2 gone with its session
             => s1 1 ended closed
             => s2 1 granted b1
             s1 close                              -> done
             s1 acquire 3 board                    -> refused session_gone: session s1 has ended: open a new
                 .. one and claim again",
    );
}
