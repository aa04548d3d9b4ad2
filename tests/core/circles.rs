//! Holders who wait for each other: a claim that would close the circle is refused.

use crate::script::run;

const LAB: &str = "
    phone p1
    phone p2
    board b1
    flat f1
";

#[test]
fn who_waits_for_itself_is_refused() {
    run(
        LAB,
        "0s  a open
             a acquire 1 board                     -> granted b1
             a acquire 2 board | outer=a/1         -> refused would_deadlock: granting this would need the end
                 .. of a lease whose holder waits for it in turn (lease 1 of a): claim everything in one `run
                 .. -n ... -n ...`, or release the outer lease first
             # Asked for nothing in particular, it waits as anybody does.
             a acquire 3 board                     -> queued",
    );
}

#[test]
fn two_holders_who_wait_for_each_other() {
    run(
        LAB,
        "0s  a open
             b open
             a acquire 1 board                     -> granted b1
             b acquire 1 flat                      -> granted f1
             a acquire 2 flat | outer=a/1          -> queued
             b acquire 2 board | outer=b/1         -> refused would_deadlock: granting this would need the end
                 .. of a lease whose holder waits for it in turn (lease 1 of a, lease 2 of b): claim everything
                 .. in one `run -n ... -n ...`, or release the outer lease first
             b release 1                           -> released by b
             => a 2 granted f1",
    );
}

#[test]
fn three_holders_in_a_ring() {
    run(
        LAB,
        "0s  a open
             b open
             c open
             a acquire 1 board                     -> granted b1
             b acquire 1 flat                      -> granted f1
             c acquire 1 2:phone                   -> granted p1 p2
             a acquire 2 flat | outer=a/1          -> queued
             b acquire 2 phone | outer=b/1         -> queued
             c acquire 2 board | outer=c/1         -> refused would_deadlock: granting this would need the end
                 .. of a lease whose holder waits for it in turn (lease 1 of a, lease 2 of b, lease 3 of c):
                 .. claim everything in one `run -n ... -n ...`, or release the outer lease first
             c release 1                           -> released by c
             => b 2 granted p1",
    );
}

#[test]
fn a_way_out_is_no_circle() {
    run(
        LAB,
        "0s  a open
             b open
             c open
             a acquire 1 phone                     -> granted p1
             b acquire 1 board                     -> granted b1
             c acquire 1 phone                     -> granted p2
             a acquire 2 board | outer=a/1         -> queued
             # One of the two phones comes back without anybody of the circle.
             b acquire 2 phone | outer=b/1         -> queued
             c release 1                           -> released by c
             => b 2 granted p2",
    );
}

#[test]
fn an_inner_lease_holds_its_outer_one() {
    run(
        LAB,
        "0s  a open
             b open
             a acquire 1 board                     -> granted b1
             a acquire 2 flat | outer=a/1          -> granted f1
             b acquire 1 phone                     -> granted p1
             b acquire 2 board | outer=b/1         -> queued
             # The innermost waits for b, who waits for the outermost.
             a acquire 3 2:phone | outer=a/2       -> refused would_deadlock: granting this would need the end
                 .. of a lease whose holder waits for it in turn (lease 1 of a, lease 2 of a, lease 3 of b):
                 .. claim everything in one `run -n ... -n ...`, or release the outer lease first",
    );
}

#[test]
fn what_is_out_of_use_is_no_circle() {
    run(
        LAB,
        "0s  a open
             a acquire 1 board                     -> granted b1
             admin drain f1 broken                 -> done
             a acquire 2 flat | outer=a/1          -> queued blocked: need flat waits for resources that are
                 .. out of use: f1 is drained by root (broken)
             a acquire 3 tablet | outer=a/1 wait-for-inventory -> queued blocked: there is no pool \"tablet\":
                 .. there are board, flat, phone
             admin undrain f1                      -> done
             => a 2 unblocked
             => a 2 granted f1",
    );
}

#[test]
fn out_of_use_and_held_by_the_circle_is_one() {
    run(
        LAB,
        "0s  a open
             b open
             a acquire 1 board                     -> granted b1
             b acquire 1 flat                      -> granted f1
             admin drain f1 broken                 -> done
             a acquire 2 flat | outer=a/1          -> queued blocked: need flat waits for resources that are
                 .. out of use: f1 is drained by root (broken)
             b acquire 2 board | outer=b/1         -> refused would_deadlock: granting this would need the end
                 .. of a lease whose holder waits for it in turn (lease 1 of a, lease 2 of b): claim everything
                 .. in one `run -n ... -n ...`, or release the outer lease first",
    );
}

#[test]
fn nobody_makes_a_circle_of_somebody_elses_lease() {
    run(
        LAB,
        "0s  a open
             b open
             m open
             a acquire 1 board                     -> granted b1
             b acquire 1 flat                      -> granted f1
             m acquire 1 flat | outer=a/1          -> queued
             b acquire 2 board | outer=b/1         -> queued
             a release 1                           -> released by a
             => b 2 granted b1",
    );
}

#[test]
fn a_lease_that_is_ending_holds_up_nobody() {
    run(
        LAB,
        "0s  a open
             b open
             a acquire 1 board                     -> granted b1
             b acquire 1 flat                      -> granted f1
             a acquire 2 flat | outer=a/1          -> queued
             admin revoke a/1                      -> done
             => a 1 ending revoked by root
             b acquire 2 board | outer=b/1         -> queued
             lab over a/1                          -> done
             => a 1 ended revoked by root
             => b 2 granted b1",
    );
}
