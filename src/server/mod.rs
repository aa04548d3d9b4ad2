//! WebSocket and HTTP in front of the engine.
//!
//! The server turns bytes into the engine's words and its answers into bytes; it decides nothing
//! about the lab and holds nothing of it. It reads the books by questions to the engine and the
//! past by the store's reader, and whatever a peer sends is hostile until it has been parsed.

pub mod admission;
pub mod convert;
#[cfg(test)]
mod double;
pub mod front;
pub mod hand_out;
pub mod http;
pub mod limits;
pub mod listen;
pub mod page;
pub mod shared;
pub mod sight;
pub mod websocket;
