//! Who gets what first: seniority, priority, all or nothing, and what is kept back.

use crate::script::run;

const PHONES: &str = "
    phone p1 os=android
    phone p2 os=ios
    board b1
    board b2
";

#[test]
fn one_after_the_other() {
    run(
        PHONES,
        "0s  s1 open                              -> open 30000
         1s  s1 acquire 1 phone,os=android        -> granted p1
             s2 open
         2s  s2 acquire 1 phone,os=android        -> queued
             s3 open
         3s  s3 acquire 1 phone,os=android        -> queued
             s3 acquire 2 phone,os=ios            -> granted p2
             lab queue                            -> s2/1 s3/1
         4s  s1 release 1                         -> released by s1
             => s2 1 granted p1
         5s  s2 close                             -> done
             => s2 1 ended closed
             => s3 1 granted p1",
    );
}

#[test]
fn all_or_nothing() {
    run(
        PHONES,
        "0s  s1 open
             s2 open
             s1 acquire 1 board                   -> granted b1
             s2 acquire 1 2:board + phone,os=ios  -> queued
             lab holders p2                       ->
             lab holders b2                       ->
         9s  s1 release 1                         -> released by s1
             => s2 1 granted b1 b2 p2",
    );
}

#[test]
fn priority_is_worth_five_minutes_a_step() {
    run(
        PHONES,
        "0s    s1 open
               s1 acquire 1 phone,os=ios          -> granted p2
         10s   s1 acquire 2 phone,os=ios          -> queued
         309s  s1 acquire 3 phone,os=ios | prio=1 -> queued
         310s  s1 acquire 4 phone,os=ios | prio=1 -> queued
         311s  s1 acquire 5 phone,os=ios | prio=1 -> queued
               s1 acquire 6 phone,os=ios | prio=-10 -> queued
               s1 acquire 7 phone,os=ios          -> queued
               lab queue                          -> s1/3 s1/2 s1/4 s1/5 s1/7 s1/6
         312s  s1 release 1                       -> released by s1
               => s1 3 granted p2",
    );
}

#[test]
fn a_junior_passes_where_it_takes_nothing_that_a_senior_keeps_back() {
    run(
        PHONES,
        "0s  s1 open
             s1 acquire 1 board,name=b1           -> granted b1
             s1 acquire 2 2:board                 -> queued
             s1 acquire 3 board                   -> queued
             s1 acquire 4 phone                   -> granted p1
             s1 acquire 5 board | wait=0          -> timed out
         1s  s1 release 1                         -> released by s1
             => s1 2 granted b1 b2",
    );
}

#[test]
fn two_boards_and_a_phone_against_a_stream_of_single_phones() {
    run(
        PHONES,
        "0s  big open
             a open
             a acquire 1 phone,os=android         -> granted p1
             a acquire 2 board,name=b1            -> granted b1
         1s  big acquire 1 2:board + phone,os=android -> queued
             a acquire 3 phone,os=android         -> queued
             a acquire 4 board                    -> queued
             # The phone is kept back as soon as it is free, however many ask for it.
         2s  a release 1                          -> released by a
             a acquire 5 phone,os=android         -> queued
             lab holders p1                       ->
         3s  a release 2                          -> released by a
             => big 1 granted b1 b2 p1
         4s  big release 1                        -> released by big
             => a 3 granted p1
             => a 4 granted b1
         5s  a release 3                          -> released by a
             => a 5 granted p1",
    );
}

#[test]
fn what_a_cancelled_senior_kept_back_is_free_at_once() {
    run(
        PHONES,
        "0s  s1 open
             s1 acquire 1 board,name=b1           -> granted b1
             s1 acquire 2 2:board                 -> queued
             s1 acquire 3 board                   -> queued
             s1 cancel 2                          -> cancelled by s1
             => s1 3 granted b2",
    );
}

#[test]
fn a_high_priority_newcomer_is_senior_to_those_who_wait() {
    run(
        PHONES,
        "0s  s1 open
             s1 acquire 1 board,name=b1           -> granted b1
             s1 acquire 2 2:board                 -> queued
         1s  s1 acquire 3 board | prio=1          -> granted b2
             s1 release 1                         -> released by s1
             s1 release 3                         -> released by s1
             => s1 2 granted b1 b2",
    );
}

#[test]
fn wait_zero_takes_part_once_and_keeps_back_nothing() {
    run(
        PHONES,
        "0s  s1 open
             s1 acquire 1 board | wait=0          -> granted b1
             s1 acquire 2 2:board | wait=0        -> timed out
             s1 acquire 3 board | wait=0          -> granted b2
             lab queue                            ->
             s1 acquire 2 2:board | wait=0        -> timed out",
    );
}

#[test]
fn a_wait_has_an_end() {
    run(
        PHONES,
        "0s  s1 open
             s1 acquire 1 2:board                 -> granted b1 b2
         1s  s1 acquire 2 board | wait=10s        -> queued
             s1 acquire 3 board                   -> queued
         10s lab tick                             -> done
         11s lab tick                             -> done
             => s1 2 timed out
             s1 release 1                         -> released by s1
             => s1 3 granted b1",
    );
}

#[test]
fn a_wait_that_is_over_gets_nothing_even_before_anybody_ticks() {
    run(
        PHONES,
        "0s  s1 open
             s1 acquire 1 2:board                 -> granted b1 b2
             s1 acquire 2 board | wait=10s        -> queued
         11s s1 release 1                         -> released by s1
             => s1 2 timed out",
    );
}

#[test]
fn the_least_recently_used_goes_first() {
    run(
        PHONES,
        "0s  s1 open
         1s  s1 acquire 1 board                   -> granted b1
         2s  s1 acquire 2 board                   -> granted b2
         3s  s1 release 2                         -> released by s1
         4s  s1 release 1                         -> released by s1
         5s  s1 acquire 3 board                   -> granted b1
             s1 release 3                         -> released by s1
         6s  s1 acquire 4 board                   -> granted b2
             s1 release 4                         -> released by s1
         7s  s1 acquire 5 2:board                 -> granted b1 b2",
    );
}

#[test]
fn a_store_that_fails_grants_nothing_until_it_works() {
    run(
        PHONES,
        "0s  s1 open
             s1 acquire 1 2:board                 -> granted b1 b2
             s1 acquire 2 board                   -> queued
             lab store fails                      -> done
             s1 release 1                         -> released by s1
             # Nor does somebody else's question.
             s1 acquire 3 board                   -> queued
             lab store works                      -> done
             => s1 2 granted b1
             => s1 3 granted b2",
    );
}

#[test]
fn a_broker_that_stops_grants_nothing() {
    run(
        PHONES,
        "0s  s1 open
             s1 acquire 1 2:board                 -> granted b1 b2
             s1 acquire 2 board                   -> queued
             lab stop                             -> done
             s1 release 1                         -> released by s1
             s1 acquire 3 board                   -> queued
             s1 acquire 4 phone | wait=0          -> timed out
             lab restart
             s1 up
             => s1 2 granted b1
             => s1 3 granted b2",
    );
}
