//! Exit codes, and the failures that carry them.
//!
//! Scripts go by these numbers, so each has one constant here and nothing else in the command
//! line writes a number of its own. `run` and `acquire` use the codes that shells and `timeout`
//! made familiar, as their other numbers belong to the command they run.

use std::fmt;

/// Done, also when it was so already.
pub const DONE: u8 = 0;
/// Refused, or not found.
pub const REFUSED: u8 = 1;
/// The command line cannot be read. `run` and `acquire` use [`OWN`] instead.
pub const USAGE: u8 = 2;
/// The lease was lost or ended, and what used it was stopped for that.
pub const LEASE_LOST: u8 = 120;
/// No lease came within `--wait`.
pub const WAIT_OVER: u8 = 124;
/// Everything else of `run`'s own: usage, refused, no permission. Of every command: no broker.
pub const OWN: u8 = 125;
/// The command exists and cannot be run.
pub const NOT_EXECUTABLE: u8 = 126;
/// The command does not exist.
pub const NOT_FOUND: u8 = 127;

/// What a process that died of signal `number` is said to have exited with.
#[must_use]
pub fn of_signal(number: i32) -> u8 {
    u8::try_from(number.clamp(0, 127)).unwrap_or(127) + 128
}

/// Why a command could not do what it was asked, with the code to exit with. The message goes to
/// stderr behind `leasehold: `: it names the thing, what was expected and what to do next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Failure {
    /// What the process exits with.
    pub code: u8,
    /// For people; empty where everything has been said already.
    pub message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Failure {
    /// A failure with any code.
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The broker said no, or there is no such thing.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(REFUSED, message)
    }

    /// The command line makes no sense.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(USAGE, message)
    }

    /// No broker answers.
    pub fn no_broker(message: impl Into<String>) -> Self {
        Self::new(OWN, message)
    }

    /// A failure of `run` or `acquire` itself.
    pub fn own(message: impl Into<String>) -> Self {
        Self::new(OWN, message)
    }
}

#[cfg(test)]
mod tests {
    use super::of_signal;

    #[test]
    fn signals_are_told_as_a_shell_tells_them() {
        for (number, code) in [(1, 129), (2, 130), (9, 137), (15, 143)] {
            assert_eq!(of_signal(number), code);
        }
    }
}
