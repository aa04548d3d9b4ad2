//! The admin commands, from outside: the real binary against a real broker.
//!
//! Each module is one family of commands. They go by what is printed and by exit codes, never by
//! how the broker works inside.

#[expect(dead_code, reason = "every test binary uses its own part of the harness")]
#[path = "../common/mod.rs"]
mod common;

mod alone;
mod bench;
mod events;
mod hostile;
mod inventory;
mod leases;
mod queue;
mod resources;
mod standby;
mod store;

/// A small lab: two androids, an iphone, and a licence that three may share.
const LAB: &str = r#"
[[pool]]
name = "phone"
max_hold = "2h"

[[resource]]
name = "pixel-{1..2}"
pool = "phone"
labels = { os = "android", api = 34 }
properties = { serial = "emulator-{5554..5556..2}" }

[[resource]]
name = "iphone-1"
pool = "phone"
labels = { os = "ios" }

[[resource]]
name = "licence"
pool = "seats"
slots = 3
"#;

/// The cells of a row, split where a table has its gaps.
fn cells(line: &str) -> Vec<&str> {
    line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()
}

/// The row of a table whose first cell is `first`.
#[track_caller]
fn row<'a>(table: &'a str, first: &str) -> Vec<&'a str> {
    let found = table.lines().map(cells).find(|cells| cells.first() == Some(&first));
    found.unwrap_or_else(|| panic!("no row {first:?} in\n{table}"))
}
