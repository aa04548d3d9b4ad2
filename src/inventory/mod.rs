//! What an operator writes: the inventory file and `leasehold.toml`, read into the core's words.
//!
//! Owns text formats, files, and the values of secrets. It decides nothing about the lab: what a
//! file means for the books is `core::apply`. Every mistake is told with file, line and column.

mod braces;
pub mod config;
pub mod config_schema;
mod document;
pub mod file;
pub mod pipelines;
pub mod secrets;
pub mod watch;

pub use document::InventoryError;
