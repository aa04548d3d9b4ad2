//! How a build ends: in the words of the wire, in one line of its log, and for the lease.

use crate::protocol::builds::{LogEndInfo, Reported};
use crate::units::show_duration_ms;

/// What came of a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its steps succeeded.
    Passed,
    /// One did not, or there is nothing to build.
    Failed,
    /// It took too long.
    TimedOut,
    /// Its lease ended under it: cancelled, superseded, revoked.
    Stopped,
    /// Something of the agent's own failed, so it may be tried again elsewhere.
    Lost,
}

impl Outcome {
    /// As in a report.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Stopped => "stopped",
            Self::Lost => "lost",
        }
    }

    /// What is said of the work when the lease is given back.
    #[must_use]
    pub const fn of_the_work(self) -> Option<&'static str> {
        match self {
            Self::Passed => Some("passed"),
            Self::Failed | Self::TimedOut => Some("failed"),
            Self::Stopped | Self::Lost => None,
        }
    }
}

/// How a build ended, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// How.
    pub outcome: Outcome,
    /// Why, where there is more to say.
    pub message: Option<String>,
    /// What the last step exited with.
    pub exit_code: Option<i32>,
}

impl Verdict {
    /// Everything succeeded.
    #[must_use]
    pub const fn passed() -> Self {
        Self { outcome: Outcome::Passed, message: None, exit_code: Some(0) }
    }

    /// It ended so, for this reason.
    pub fn of(outcome: Outcome, message: impl Into<String>) -> Self {
        Self { outcome, message: Some(message.into()), exit_code: None }
    }

    /// The agent could not do its part.
    pub fn lost(message: impl Into<String>) -> Self {
        Self::of(Outcome::Lost, message)
    }

    /// The last line of the log.
    #[must_use]
    pub fn line(&self, took_ms: u64) -> String {
        let word = if self.outcome == Outcome::TimedOut { "timed out" } else { self.outcome.as_str() };
        let why = self.message.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
        format!("--- {word} after {}{why}", show_duration_ms(took_ms)).replace(['\n', '\r'], " ")
    }

    /// The last report.
    #[must_use]
    pub fn report(&self, log: LogEndInfo) -> Reported {
        Reported::Finished {
            result: self.outcome.as_str().to_owned(),
            exit_code: self.exit_code,
            message: self.message.clone(),
            log,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Outcome, Verdict};

    #[test]
    fn the_last_line_is_one_line_that_says_how_and_why() {
        assert_eq!(Verdict::passed().line(3_200), "--- passed after 3s");
        let failed = Verdict::of(Outcome::Failed, "step \"a\nb\" exited with 3");
        assert_eq!(failed.line(61_000), "--- failed after 1m01s: step \"a b\" exited with 3");
        assert_eq!(
            Verdict::of(Outcome::TimedOut, "longer than 1m").line(60_000),
            "--- timed out after 1m: longer than 1m"
        );
    }
}
