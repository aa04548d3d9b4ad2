//! What a claim keeps back that needs one choice: `same`, `distinct`, k slots, whole resources.

use crate::script::run;

const SITES: &str = "
    board a1 site=a rack=1
    board a2 site=a rack=2
    board b1 site=b rack=1
    board b2 site=b rack=2
    board c1
";

#[test]
fn same_pins_the_value_that_lacks_least() {
    run(
        SITES,
        "0s  s1 open
             s1 acquire 1 board,name=a1            -> granted a1
             s1 acquire 2 board,name=b1            -> granted b1
             s1 acquire 3 board,name=b2            -> granted b2
         1s  s1 acquire 4 2:board | same=site      -> queued pins a
             # Nobody gets what it pinned, but what it did not.
             s1 acquire 5 board,site=a             -> queued
             s1 release 2                          -> released by s1
             s1 acquire 6 board,site=b             -> granted b1
         2s  s1 release 1                          -> released by s1
             => s1 4 granted a1 a2
         3s  s1 release 4                          -> released by s1
             => s1 5 granted a1",
    );
}

#[test]
fn a_pin_is_left_when_another_choice_is_wholly_free() {
    run(
        SITES,
        "0s  s1 open
             s1 acquire 1 board,name=a1            -> granted a1
             s1 acquire 2 board,name=b1            -> granted b1
             s1 acquire 3 board,name=b2            -> granted b2
         1s  s1 acquire 4 2:board | same=site      -> queued pins a
             s1 release 2                          -> released by s1
             s1 release 3                          -> released by s1
             => s1 4 granted b1 b2",
    );
}

#[test]
fn a_pin_is_left_when_it_can_no_longer_come_true() {
    run(
        SITES,
        "0s  s1 open
             s1 acquire 1 board,name=a1            -> granted a1
             s1 acquire 2 board,name=b1            -> granted b1
             s1 acquire 3 board,name=b2            -> granted b2
         1s  s1 acquire 4 2:board | same=site      -> queued pins a
             s1 acquire 5 board,site=a             -> queued
             admin drain a1 broken                 -> done
             => s1 4 pins b
             => s1 5 granted a2
             admin undrain a1                      -> done
             s1 release 2                          -> released by s1
             s1 release 3                          -> released by s1
             => s1 4 granted b1 b2",
    );
}

#[test]
fn distinct_pins_the_values() {
    run(
        SITES,
        "0s  s1 open
             s1 acquire 1 board,name=a1            -> granted a1
             s1 acquire 2 board,name=b1            -> granted b1
         1s  s1 acquire 3 2:board | distinct=rack  -> queued pins 1,2
             # Rack 2 has one more than is kept back.
             s1 acquire 4 board,rack=2             -> granted b2
             s1 acquire 5 board,rack=2             -> queued
         2s  s1 release 1                          -> released by s1
             => s1 3 granted a1 a2",
    );
}

#[test]
fn same_and_distinct_pin_the_resources() {
    run(
        SITES,
        "0s  s1 open
             s1 acquire 1 board,name=a1            -> granted a1
             s1 acquire 2 board,name=b1            -> granted b1
             s1 acquire 3 2:board | same=site distinct=rack -> queued pins a1+a2
             s1 acquire 4 board,site=b             -> granted b2
             s1 acquire 5 board,site=a             -> queued
             s1 release 1                          -> released by s1
             => s1 3 granted a1 a2",
    );
}

#[test]
fn a_resource_without_the_label_is_no_pick() {
    run(
        SITES,
        "0s  s1 open
             s1 acquire 1 3:board | same=site      -> refused impossible: each need can be met alone, but not
                 .. with site the same for all of them (site=a has 2, site=b has 2)
             s1 acquire 2 3:board | distinct=rack  -> refused impossible: each need can be met alone, but not
                 .. with rack different for each (rack=1 has 2, rack=2 has 2)",
    );
}

#[test]
fn a_pin_does_not_outlive_its_labels() {
    run(
        SITES,
        "0s  s1 open
             s1 acquire 1 board,name=b1            -> granted b1
             s1 acquire 2 board,name=a2            -> granted a2
             s1 acquire 3 2:board/all | same=site  -> queued pins a1+a2
             lab apply : board a1 site=b rack=1    -> change a1
             => s1 3 granted a1 b2",
    );
}

const SEATS: &str = "
    seat s1*4
    seat s2*4
";

#[test]
fn k_slots_pin_the_resource_that_lacks_fewest() {
    run(
        SEATS,
        "0s  a open
             a acquire 1 seat/3,name=s1            -> granted s1*3
             a acquire 2 seat/2,name=s2            -> granted s2*2
         1s  a acquire 3 seat/3                    -> queued pins s2
             # The two free seats of s2 are kept back, the one of s1 is not.
             a acquire 4 seat                      -> granted s1
             a acquire 5 seat                      -> queued
         2s  a release 4                           -> released by a
             => a 5 granted s1
         3s  a release 2                           -> released by a
             => a 3 granted s2*3",
    );
}

#[test]
fn the_whole_of_a_resource_waits_for_every_slot() {
    run(
        SEATS,
        "0s  a open
             a acquire 1 seat,name=s1              -> granted s1
             a acquire 2 seat,name=s2              -> granted s2
             a acquire 3 seat,name=s2              -> granted s2
             a acquire 4 seat/all                  -> queued pins s1
             a acquire 5 seat/3                    -> queued pins s2
             a acquire 6 seat                      -> queued
             a release 1                           -> released by a
             => a 4 granted s1*4
             a release 4                           -> released by a
             => a 5 granted s1*3
             => a 6 granted s1",
    );
}

#[test]
fn two_needs_share_a_resource_and_one_does_not() {
    run(
        SEATS,
        "0s  a open
             a acquire 1 seat,name=s1              -> granted s1
             a acquire 2 x=seat/2,name=s2 + y=seat/2,name=s2 -> granted s2*2 s2*2
             a acquire 3 3:seat                    -> refused impossible: pool seat has 2; 3 asked
             a acquire 4 2:seat/4                  -> queued pins s1+s2
             a release 1                           -> released by a
             a release 2                           -> released by a
             => a 4 granted s1*4 s2*4",
    );
}

#[test]
fn all_of_a_pool_is_counted_again_at_every_pass() {
    run(
        SITES,
        "0s  a open
             a acquire 1 board,name=a1             -> granted a1
             a acquire 2 all:board                 -> queued
             a acquire 3 board                     -> queued
             lab set board d1                      -> add d1
             admin drain b2 broken                 -> done
             a release 1                           -> released by a
             => a 2 granted a1 a2 b1 c1 d1
             admin undrain b2                      -> done
             => a 3 granted b2",
    );
}

#[test]
fn all_of_it_with_slots_pins_what_is_new_too() {
    run(
        SEATS,
        "0s  a open
             a acquire 1 seat,name=s1              -> granted s1
             a acquire 2 all:seat/2 | prio=1       -> granted s1*2 s2*2
             a acquire 3 all:seat/all              -> queued pins s1+s2
             lab set seat s3*4                     -> add s3
             => a 3 pins s1+s2+s3
             a acquire 4 seat,name=s3              -> queued
             a release 1                           -> released by a
             a release 2                           -> released by a
             => a 3 granted s1*4 s2*4 s3*4",
    );
}
