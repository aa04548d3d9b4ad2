//! Estimates of waiting: what is said where the records give it, and nothing where they do not.
//! How far off they are is measured by `examples/eta.rs`.

use crate::script::{Script, run};

const LAB: &str = "
    phone p1
    phone p2
    board b1 os=a
    board b2 os=b
    flat f1*2
";

/// A lab in which each of the needs was held for a minute so many times, by `old`.
fn lab_with(holds: u64, need: &str) -> Script {
    let mut script = run(LAB, "0s old open\n a open\n b open\n c open");
    for index in 0..holds {
        let (from, to) = (index * 60, index * 60 + 60);
        script.play(&format!("{from}s old acquire {index} {need}\n {to}s old release {index}", index = index + 1));
    }
    script
}

#[test]
fn too_few_records_are_no_basis() {
    let mut script = lab_with(9, "2:phone");
    script.play("1000s a acquire 1 2:phone\n b acquire 1 phone\n b eta 1 -> unknown");
    script.play("1060s a release 1 -> released by a\n => b 1 granted p1");
    script.play("1061s b acquire 2 2:phone\n b eta 2 -> 59s to 59s by 10");
}

#[test]
fn each_place_waits_for_those_before_it() {
    lab_with(10, "2:phone").play(
        "1000s a acquire 1 phone
         1020s a acquire 2 phone
         1040s b acquire 1 phone
               b acquire 2 2:phone
               c acquire 1 phone
               b eta 1                     -> 20s to 20s by 10
               b eta 2                     -> 80s to 80s by 10
               c eta 1                     -> 140s to 140s by 10",
    );
}

#[test]
fn a_holder_that_outlasts_every_record_ends_with_its_hold_or_nobody_knows() {
    let mut script = lab_with(10, "2:phone");
    script.play("1000s a acquire 1 2:phone | hold=10m\n 1100s b acquire 1 phone\n b eta 1 -> 500s to 500s by 10");
    script.play("1100s a release 1\n => b 1 granted p1\n a acquire 2 phone\n 1300s c acquire 1 phone");
    script.play("1300s c eta 1 -> unknown");
}

#[test]
fn who_wants_other_resources_is_not_in_the_way() {
    lab_with(10, "2:board").play(
        "1000s a acquire 1 board,os=a
               a acquire 2 board,os=b
         1030s b acquire 1 board,os=a
               b acquire 2 board,os=a
               c acquire 1 board,os=b
               b eta 2                     -> 90s to 90s by 10
               c eta 1                     -> 30s to 30s by 10",
    );
}

#[test]
fn nothing_is_said_of_what_cannot_be_played() {
    lab_with(10, "2:board").play(
        "1000s a acquire 1 board,os=a
               a acquire 2 board,os=b
               b acquire 1 board | same=os
               c acquire 1 board
               b eta 1                     -> unknown
               c eta 1                     -> unknown
               b cancel 1
               c eta 1                     -> 60s to 60s by 10",
    );
}

#[test]
fn a_restart_of_the_books_knows_nothing_until_it_is_told() {
    let mut script = lab_with(10, "2:phone");
    script.play("1000s a acquire 1 2:phone\n b acquire 1 phone\n b eta 1 -> 60s to 60s by 10");
    script.world.restart();
    script.play("1000s b eta 1 -> unknown");
}
