//! Waiting for what can be observed, with a deadline that only a broken program reaches.
//!
//! The one sleep of the tests is here: it spaces out looks at a condition that nothing announces
//! (a process's state, an answer over HTTP). It is never what a test's result depends on.

use std::time::Duration;

use leasehold::clock::{BootTime, boot_now};

/// How long a condition may take before the test fails. Far beyond what a slow machine under
/// load needs, so that only something broken gets there.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How long to let pass between two looks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// Looks until `look` answers something, and answers that. Panics with `what` when [`PATIENCE`]
/// is over: name what was waited for.
pub fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, look).unwrap_or_else(|| panic!("waited {PATIENCE:?} in vain: {what}"))
}

/// The same for a plain condition.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    eventually(what, || holds().then_some(()));
}

/// Looks until `look` answers something or `limit` is over; looks once more at the limit.
pub fn within<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = boot_now().plus(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
    loop {
        let late = boot_now() >= deadline;
        if let Some(found) = look() {
            return Some(found);
        }
        if late {
            return None;
        }
        std::thread::sleep(BETWEEN_LOOKS);
    }
}

/// Waits until this machine's clock has reached a moment: for tests of what happens, or must not,
/// while time passes and nothing else does.
pub fn clock_reaches(moment: BootTime) {
    until("the clock goes on", || boot_now() >= moment);
}
