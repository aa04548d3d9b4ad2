//! The harness of the black-box tests: real processes of the real binary, driven from outside.
//!
//! Nothing here calls into the broker: what a test proves with it holds for the binary that
//! users get. It owns starting and ending processes ([`process`]), a broker with a place for its
//! data ([`broker`]), clients written by hand that know only the documented wire ([`ws`],
//! [`http`]), a network that fails on demand ([`proxy`]), a broker that stands by ([`standby`]), a forge
//! to build for ([`forge`]), what the kernel knows of processes ([`witness`]), and chance that a seed repeats
//! ([`random`]). A test waits for what it can
//! observe, by [`wait`]; no test file sleeps.
//!
//! A test binary takes it in with
//!
//! ```text
//! #[expect(dead_code, reason = "every test binary uses its own part of the harness")]
//! #[path = "../common/mod.rs"]
//! mod common;
//! ```

pub mod broker;
pub mod forge;
pub mod http;
pub mod process;
pub mod proxy;
pub mod random;
pub mod standby;
pub mod wait;
pub mod witness;
pub mod ws;
