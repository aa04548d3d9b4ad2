//! The core in virtual time: what it promises, as tables of who does what and who is told what.
//!
//! Every module is one behaviour. The tables are run by `script.rs` over `world.rs`, which holds
//! the books against every invariant after each line; `random.rs` makes up tables of its own.

mod circles;
mod drops;
mod endings;
mod eta;
mod impossible;
mod inventory;
mod keyed;
mod limits;
mod moving;
mod order;
mod pins;
mod providers;
mod random;
mod requests;
mod restart;
mod scheduling;
mod script;
mod world;
