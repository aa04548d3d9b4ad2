//! What a forge delivers: who vouches for it, and what it says.
//!
//! Pure: given headers, a body, secrets and the time. Nothing of a body is believed before its signature
//! was right.

pub mod secret;
