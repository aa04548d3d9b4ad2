//! Reading the books: what is on them, in the words of the wire.
//!
//! Everything here is a function of what it is given: it changes nothing, reads no clock and does
//! no I/O, as it runs on the engine's task between two batches. The engine tells holders with
//! `told`; the server asks for listings, matches and reasons. Whatever has no bound is paged.

#[cfg(test)]
mod books;
pub mod listing;
pub mod matching;
mod told;
pub mod why;

pub use told::{
    capped_words, end_info, ended_lease_info, eta_info, in_the_way, lease_end_words, lease_info, outcome_word,
    past_lease_info, place, queued_info, refusal_error, secret_refs, wire_value, wire_values,
};
