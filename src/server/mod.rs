//! WebSocket and HTTP in front of the engine.
pub mod admission;
pub mod limits;
