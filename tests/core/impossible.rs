//! Impossible is said at once, with the nearest miss; what may come true waits, and is told why.

use crate::script::run;

const LAB: &str = "
    phone p1 os=android api=30
    phone p2 os=android api=34
    phone p3 os=ios
    seat s1*3
";

#[test]
fn the_nearest_miss() {
    run(
        LAB,
        "0s  s1 open
             s1 acquire 1 phones                   -> refused impossible: there is no pool \"phones\": did you
                 .. mean \"phone\"?
             s1 acquire 2 zeppelin                 -> refused impossible: there is no pool \"zeppelin\": there
                 .. are phone, seat
             s1 acquire 3 4:phone                  -> refused impossible: pool phone has 3; 4 asked
             s1 acquire 4 phone,os=windows         -> refused impossible: pool phone has 3, none of them with
                 .. os=windows (there is android, ios); 1 asked
             s1 acquire 5 phone,os=android,api=40  -> refused impossible: pool phone has 2 with os=android,
                 .. none of them with api=40 (there is 30, 34); 1 asked
             s1 acquire 6 2:phone,os=android,api=30 -> refused impossible: pool phone has 2 with os=android,
                 .. only 1 of them with api=30 (there is 30, 34); 2 asked
             s1 acquire 7 phone where api >= 40    -> refused impossible: pool phone has 3, none of them
                 .. satisfies `api >= 40`; 1 asked
             s1 acquire 8 3:phone where api >= 30  -> refused impossible: pool phone has 3, only 2 of them
                 .. satisfy `api >= 30`; 3 asked",
    );
}

#[test]
fn unknown_names_and_slots() {
    run(
        LAB,
        "0s  s1 open
             s1 acquire 1 phone,oz=android         -> refused impossible: no resource of pool phone has a label
                 .. \"oz\": did you mean \"os\"?
             s1 acquire 2 phone where apy > 3      -> refused impossible: no resource of pool phone has a label
                 .. \"apy\": did you mean \"api\"?
             s1 acquire 3 seat,colour=red          -> refused impossible: no resource of pool seat has a label
                 .. \"colour\": they have no labels
             s1 acquire 4 seat/4                   -> refused impossible: pool seat has 1, 0 of them with 4
                 .. slots (the most is 3); 1 asked
             s1 acquire 5 x=seat/2 + y=seat/2      -> refused impossible: each need can be met alone, but not
                 .. together, as they would share the same resources
             s1 acquire 6 phone,os!=android where true || nope -> refused impossible: no resource of pool phone
                 .. has a label \"nope\": they have api, os",
    );
}

#[test]
fn what_is_out_of_use_is_waited_for_and_told() {
    run(
        LAB,
        "0s  s1 open
             admin drain p3 swollen battery        -> done
             s1 acquire 1 phone,os=ios             -> queued blocked: need phone waits for resources that are
                 .. out of use: p3 is drained by root (swollen battery)
             admin quarantine p3 unsafe            -> done
             => s1 1 blocked: need phone waits for resources that are out of use: p3 is quarantined by root (unsafe)
             s1 blocked 1                          -> need phone waits for resources that are out of use: p3 is
                 .. quarantined by root (unsafe)
             admin restore p3                      -> done
             => s1 1 blocked: need phone waits for resources that are out of use: p3 is drained by root
                 .. (swollen battery)
             admin undrain p3                      -> done
             => s1 1 unblocked
             => s1 1 granted p3",
    );
}

#[test]
fn who_is_blocked_keeps_back_nothing() {
    run(
        LAB,
        "0s  s1 open
             admin drain p3                        -> done
             s1 acquire 1 2:phone + x=phone,os=ios -> queued blocked: need x waits for resources that are out
                 .. of use: p3 is drained by root (so)
             s1 acquire 2 2:phone                  -> granted p1 p2",
    );
}

#[test]
fn fail_fast_does_not_wait_for_what_is_out_of_use() {
    run(
        LAB,
        "0s  s1 open
             s1 acquire 1 phone,os=ios             -> granted p3
             s1 acquire 2 phone,os=ios | fail-fast -> queued
             admin drain p3 old                    -> done
             => s1 2 refused unavailable_resources: need phone waits for resources that are out of use: p3 is
                 .. drained by root (old): it would wait, and --fail-fast says not to
             s1 acquire 3 phone,os=ios | fail-fast -> refused unavailable_resources: need phone waits for
                 .. resources that are out of use: p3 is drained by root (old): it would wait, and --fail-fast
                 .. says not to",
    );
}

#[test]
fn wait_for_inventory_waits_where_it_would_be_refused() {
    run(
        LAB,
        "0s  s1 open
             s1 acquire 1 tablet | wait-for-inventory -> queued blocked: there is no pool \"tablet\": there are
                 .. phone, seat
             s1 acquire 2 phone,os=web | wait-for-inventory -> queued blocked: pool phone has 3, none of them
                 .. with os=web (there is android, ios); 1 asked
             lab set phone p4 os=web               -> add p4
             => s1 2 unblocked
             => s1 2 granted p4
             lab set tablet t1                     -> add t1, add tablet
             => s1 1 unblocked
             => s1 1 granted t1",
    );
}

#[test]
fn what_becomes_impossible_later_ends() {
    run(
        LAB,
        "0s  s1 open
             s2 open
             s1 acquire 1 3:phone                  -> granted p1 p2 p3
             s2 acquire 1 3:phone                  -> queued
             s2 acquire 2 phone                    -> queued
             lab apply prune yes: phone p1 os=android api=30; phone p2 os=android api=34; seat s1*3 -> remove
                 .. p3 pending
             => s2 1 blocked: need phone waits for resources that are out of use: p3 is being removed
             s1 release 1                          -> released by s1
             => p3 removed
             => s2 1 refused impossible: pool phone has 2; 3 asked
             => s2 2 granted p1",
    );
}

#[test]
fn a_claim_whose_pool_goes_is_told() {
    run(
        LAB,
        "0s  s1 open
             lab set tablet t1                     -> add t1, add tablet
             s1 acquire 1 tablet                   -> granted t1
             s1 acquire 2 tablet                   -> queued
             s1 acquire 3 tablet | wait-for-inventory -> queued
             lab rm t1                             -> remove t1 pending
             => s1 2 blocked: need tablet waits for resources that are out of use: t1 is being removed
             => s1 3 blocked: need tablet waits for resources that are out of use: t1 is being removed
             s1 release 1                          -> released by s1
             => t1 removed
             => s1 2 refused impossible: there is no pool \"tablet\": there are phone, seat
             => s1 3 blocked: there is no pool \"tablet\": there are phone, seat",
    );
}

#[test]
fn what_a_claim_kept_back_is_free_when_its_hope_goes() {
    run(
        "seat s1*3\n phone p1\n phone p2",
        "0s  s1 open
             s1 acquire 1 phone,name=p1            -> granted p1
             s1 acquire 2 seat + 2:phone | wait-for-inventory -> queued
             s1 acquire 3 3:seat/1 | wait-for-inventory -> queued blocked: pool seat has 1; 3 asked
             s1 acquire 4 seat/3                   -> queued pins s1
             lab apply prune yes: seat s1*3; phone p1 -> remove p2
             => s1 2 blocked: pool phone has 1; 2 asked
             => s1 4 granted s1*3",
    );
}
