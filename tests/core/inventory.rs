//! The inventory changes under holders and waiters: what takes effect when.

use crate::script::run;

const LAB: &str = "
    phone p1 os=android
    phone p2 os=android
    seat s1*4
";

#[test]
fn a_change_waits_for_the_holder_and_for_nobody_else() {
    run(
        LAB,
        "0s  s1 open
             s1 acquire 1 phone                    -> granted p1
             lab apply : phone p1 os=ios; phone p2 os=ios -> change p1 pending, change p2
             # Until then it gets no new holder, and its holder has what it was given.
             s1 acquire 2 phone,os=android         -> queued blocked: need phone waits for resources that are
                 .. out of use: p1 is about to change
             s1 acquire 3 phone,os=ios             -> granted p2
             s1 acquire 4 phone,os=ios             -> queued
             s1 release 1                          -> released by s1
             => p1 changed
             => s1 2 refused impossible: pool phone has 2, none of them with os=android (there is ios); 1 asked
             => s1 4 granted p1",
    );
}

#[test]
fn a_change_taken_back_before_the_holder_is_gone_is_none() {
    run(
        LAB,
        "0s  s1 open
             s1 acquire 1 phone                    -> granted p1
             lab apply : phone p1 os=ios           -> change p1 pending
             lab apply : phone p1 os=android       -> change p1
             s1 release 1                          -> released by s1
             s1 acquire 2 2:phone,os=android       -> granted p1 p2",
    );
}

#[test]
fn a_rename_keeps_the_lease_and_the_marks() {
    run(
        LAB,
        "0s  s1 open
             admin drain p2 broken                 -> done
             s1 acquire 1 phone                    -> granted p1
             lab apply prune yes: phone q1 os=android was p1; phone q2 os=android was p2; seat s1*4 -> rename
                 .. q1 pending, rename q2
             lab resources                         -> p1 q2 s1
             s1 acquire 2 phone                    -> queued blocked: need phone waits for resources that are
                 .. out of use: p1 is about to change, q2 is drained by root (broken)
             s1 release 1                          -> released by s1
             => q1 changed
             => s1 2 unblocked
             => s1 2 granted q1",
    );
}

#[test]
fn a_name_that_comes_back_finds_its_marks() {
    run(
        LAB,
        "0s  s1 open
             admin drain p2 broken                 -> done
             lab apply prune yes: phone p1 os=android; seat s1*4 -> remove p2
             lab apply : phone p2 os=android       -> add p2
             s1 acquire 1 2:phone                  -> queued blocked: need phone waits for resources that are
                 .. out of use: p2 is drained by root (broken)",
    );
}

#[test]
fn fewer_slots_bound_new_grants_at_once() {
    run(
        LAB,
        "0s  s1 open
             s1 acquire 1 seat/2                   -> granted s1*2
             s1 acquire 2 seat                     -> granted s1
             s1 acquire 3 seat/2                   -> queued pins s1
             s1 acquire 4 seat                     -> queued
             lab apply : seat s1*2                 -> change s1
             s1 release 2                          -> released by s1
             s1 acquire 5 seat/3                   -> refused impossible: pool seat has 1, 0 of them with 3
                 .. slots (the most is 2); 1 asked
             s1 release 1                          -> released by s1
             => s1 3 granted s1*2
             lab apply : seat s1*3                 -> change s1
             => s1 4 granted s1",
    );
}

#[test]
fn a_resource_that_leaves_its_pool_leaves_its_waiters() {
    run(
        LAB,
        "0s  s1 open
             s1 acquire 1 phone,name=p1            -> granted p1
             s1 acquire 2 2:phone                  -> queued
             s1 acquire 3 phone                    -> queued
             lab apply : tablet p2                 -> change p2, add tablet
             => s1 2 refused impossible: pool phone has 1; 2 asked
             s1 release 1                          -> released by s1
             => s1 3 granted p1",
    );
}

#[test]
fn a_dry_run_changes_nothing() {
    run(
        LAB,
        "0s  s1 open
             lab apply prune dry-run: phone p1 os=ios -> would remove p2, remove s1, change p1, remove seat
             lab resources                         -> p1 p2 s1
             lab apply prune: phone p1 os=android  -> refused needs_confirmation: this would remove 2 of the 3
                 .. resources that came from the inventory file, more than a fifth, so nothing was changed: if
                 .. that is meant, `leasehold resource apply FILE --prune --yes`
             s1 acquire 1 2:phone                  -> granted p1 p2
             s1 acquire 2 seat/4                   -> granted s1*4",
    );
}
