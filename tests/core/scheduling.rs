//! The examples of `docs/scheduling.md`, played as they stand there.
//!
//! The page is the source: a table that the core does not follow fails here, and an example that
//! nobody plays fails too, so the page cannot lie.

use crate::script;

const PAGE: &str = include_str!("../../docs/scheduling.md");

/// A test for each example, named like its heading.
macro_rules! examples {
    ($($test:ident,)*) => {
        const PLAYED: &[&str] = &[$(stringify!($test)),*];
        $(
            #[test]
            fn $test() {
                play(stringify!($test));
            }
        )*
    };
}

examples! {
    a_cap_per_owner,
    a_cap_that_one_s_own_outer_lease_fills,
    a_claim_whose_only_match_is_drained,
    a_cooldown,
    a_disconnected_head_of_the_queue,
    a_pinned_same,
    a_retry_keeps_its_first_arrival,
    caps_on_waiting_and_on_priority,
    exclusive_use_of_a_seat_server,
    passed_is_over,
    priority_is_a_head_start,
    slots_cool_one_by_one,
    the_same_attempt_again,
    two_boards_and_a_phone_against_a_stream_of_single_phones,
}

#[test]
fn every_example_of_the_page_is_played() {
    let mut on_the_page: Vec<String> = sections().map(|(heading, _)| test_name(heading)).collect();
    on_the_page.sort_unstable();
    assert_eq!(on_the_page, PLAYED);
}

fn play(test: &str) {
    let (_, text) = sections().find(|(heading, _)| test_name(heading) == test).expect("an example of this name");
    script::run(block(text, "lab"), block(text, "table"));
}

/// The examples: heading and what stands under it.
fn sections() -> impl Iterator<Item = (&'static str, &'static str)> {
    PAGE.split("\n### ").skip(1).map(|section| section.split_once('\n').expect("a heading and its text"))
}

fn test_name(heading: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    heading.chars().map(plain).collect()
}

/// The one fenced block of this kind.
fn block<'a>(text: &'a str, kind: &str) -> &'a str {
    let (_, rest) = text.split_once(&format!("```{kind}\n")).expect("a block of this kind");
    rest.split_once("```").expect("the end of the block").0
}
