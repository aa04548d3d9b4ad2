//! What each command decides, one file per word of the design. All of it is `impl Broker`: the
//! control flow they share is in `broker.rs`.

mod claim;
mod inventory;
mod keyed;
mod lease;
mod moving;
mod provide;
mod session;
mod words;

pub(super) use claim::fingerprint_of_needs;
pub use keyed::KEYED_REQUEST;
