//! A process takes the books over: nothing is lost, and whoever has not come back yet keeps back.

use crate::script::run;

const BOARDS: &str = "
    board b1
    board b2
";

#[test]
fn a_claim_whose_session_is_not_back_yet_keeps_back_until_the_grace_is_over() {
    run(
        BOARDS,
        "0s   s1 open
              s2 open
              s3 open
              s1 acquire 1 2:board                 -> granted b1 b2
         1s   s2 acquire 1 board                   -> queued
         2s   s3 acquire 1 board                   -> queued
         3s   s3 acquire 2 board                   -> queued
         10s  lab restart                          -> done
              s3 up                                -> done
         11s  s1 up                                -> done
              # The first is for s2, who may come back; the next for s3, who is here.
              s1 release 1                         -> released by s1
              => s3 1 granted b2
         41s  lab return-grace-over                -> done
              => s3 2 granted b1
         42s  s2 up                                -> done
              s3 release 1                         -> released by s3
              => s2 1 granted b2",
    );
}

#[test]
fn who_comes_back_in_time_has_its_place() {
    run(
        BOARDS,
        "0s   s1 open
              s2 open
              s1 acquire 1 2:board                 -> granted b1 b2
              s2 acquire 1 board                   -> queued
         1s   s1 acquire 2 board                   -> queued
              lab restart                          -> done
              s1 up                                -> done
              s1 release 1                         -> released by s1
              => s1 2 granted b2
              s2 up                                -> done
              => s2 1 granted b1",
    );
}

#[test]
fn what_ended_in_time_does_not_come_back() {
    run(
        BOARDS,
        "0s   s1 open
              s1 acquire 1 board | hold=10s        -> granted b1
              s1 acquire 2 2:board | wait=20s      -> queued
              s1 cancel 7                          -> cancelled by its client
              lab restart                          -> done
              s1 up                                -> done
              s1 acquire 1 board | hold=10s        -> granted b1
              s1 acquire 7 board                   -> cancelled by its client
         10s  lab tick                             -> done
              => s1 1 ending hold over
              lab restart                          -> done
              s1 up                                -> done
         20s  lab tick                             -> done
              => s1 2 timed out
              lab over s1/1                        -> done
              => s1 1 ended hold over
              s1 acquire 1 board | hold=10s        -> ended hold over",
    );
}

#[test]
fn fences_grow_over_restarts() {
    run(
        BOARDS,
        "0s   s1 open
              s1 acquire 1 board                   -> granted b1
              s1 fence 1                           -> 1
              s1 release 1                         -> released by s1
         1s   lab restart                          -> done
              s1 up                                -> done
              s1 acquire 2 board                   -> granted b1
              s1 fence 2                           -> 2
              s1 close                             -> done
              => s1 2 ended closed
              lab restart                          -> done
              s2 open
              s2 acquire 1 board                   -> granted b2
              s2 fence 1                           -> 3",
    );
}
