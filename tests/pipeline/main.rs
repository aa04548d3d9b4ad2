//! The pipeline layer from outside: what a forge, an agent and people see of it.
//!
//! One module an area. Forges are stand-ins that speak the real ones' APIs ([`common::forge`]).

#[expect(dead_code, reason = "every test binary uses its own part of the harness")]
#[path = "../common/mod.rs"]
mod common;

#[expect(dead_code, reason = "every test binary uses its own part of the harness")]
#[path = "../lead/brokers.rs"]
mod brokers;

#[expect(dead_code, reason = "every test binary uses its own part of the harness")]
#[path = "../page/browser.rs"]
mod browser;

mod agent;
mod builds;
mod command;
mod crowd_load;
mod failover;
mod fake;
mod follow_load;
mod forks;
mod hooks;
mod hooks_load;
mod log_load;
mod logs;
mod mistakes;
mod pages;
mod recipes;
mod restart;
mod search;
mod settings;
mod statuses;
mod superseding;
mod told;
