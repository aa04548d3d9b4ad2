//! Whole stores: proving one, putting a copy of one into use.
//!
//! ```text
//!   check    journal ──▶ core ──▶ books, and are they what the tables hold?
//!   fill     one store's rows into an empty one, and are they the same?
//!   moving   what the core says of books that are put into use elsewhere
//! ```
//!
//! Stores are seen as [`crate::store::archive`] shows them, so that each works on all of them. What a
//! broker does meanwhile, and what files are called, is the stores' and the commands' business.

pub mod check;
pub mod fill;
pub mod findings;
mod history;
pub mod moving;
mod state;
#[cfg(test)]
#[cfg(feature = "testing")]
mod tests;
