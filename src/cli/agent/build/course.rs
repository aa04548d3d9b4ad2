//! A build's commands, one after the other under its guard, until one fails or there is a reason to stop.
//!
//! As in `run` the guard owns the processes: it kills all of them when told, when the lease's deadline comes
//! and when this process is gone. Here is decided why, and what is in the guard's place should it be gone.

use std::time::Duration;

use super::reasons::{Reason, Reasons};
use super::verdict::Verdict;
use crate::cli::agent::output::tap::Tap;
use crate::cli::granting::sleep_until;
use crate::cli::run::guard::talk::{Order, Start, Word};
use crate::cli::run::hold::{forward_deadlines, stand_in_at};
use crate::cli::run::link::{self, GuardLink};
use crate::cli::run::tree::{Ended, Tree};
use crate::client::LeaseGuard;
use crate::clock::boot_now;

/// How long a word of the guard may take from the socket to here, when it should have come.
const WORD_UNDER_WAY: Duration = Duration::from_millis(10);

/// The commands of a build, under way.
pub struct Course {
    link: GuardLink,
    tree: Tree,
    tap: Tap,
    lease: LeaseGuard,
    reasons: Reasons,
    /// Why it stops, once it does.
    stopped: Option<Verdict>,
}

impl Course {
    /// Begins: from now on the guard is told each new deadline.
    pub fn new(link: GuardLink, tree: Tree, tap: Tap, lease: LeaseGuard, reasons: Reasons) -> Self {
        // A task of its own: nothing that is done here may hold a deadline up.
        tokio::spawn(forward_deadlines(lease.watch(), link.orders()));
        Self { link, tree, tap, lease, reasons, stopped: None }
    }

    /// What is held.
    pub const fn lease(&self) -> &LeaseGuard {
        &self.lease
    }

    /// Runs one command to its end: nothing of it is left, and all that it printed was taken in.
    ///
    /// # Errors
    /// With how the build ends, where it was stopped or the command could not be run.
    pub async fn run(&mut self, start: Start) -> Result<Ended, Verdict> {
        if let Some(reason) = self.reasons.of_the_lease() {
            self.stopped.get_or_insert(reason.verdict);
        }
        if let Some(verdict) = &self.stopped {
            return Err(verdict.clone());
        }
        self.link.order(Order::Start(Box::new(start)));
        let ended = loop {
            let stand_in_at = stand_in_at(&self.lease.state());
            tokio::select! {
                word = self.link.word() => if let Some(ended) = self.heard(word).await {
                    break ended;
                },
                reason = self.reasons.next() => self.stop(reason),
                () = sleep_until(stand_in_at) => if let Some(ended) = self.in_the_guards_place().await {
                    break ended;
                },
            }
        };
        let tap = self.tap.clone();
        // Its error would be that the runtime ends, and this with it.
        let _ = tokio::task::spawn_blocking(move || tap.drain()).await;
        match &self.stopped {
            Some(verdict) => Err(verdict.clone()),
            None => ended,
        }
    }

    fn stop(&mut self, reason: Reason) {
        self.link.order(Order::Stop { grace_ms: reason.grace_ms, lost: reason.gone });
        self.stopped.get_or_insert(reason.verdict);
    }

    async fn heard(&mut self, word: Option<Word>) -> Option<Result<Ended, Verdict>> {
        match word {
            Some(Word::Started { .. } | Word::Emptied) => None,
            Some(Word::NotStarted { message, .. }) => Some(Err(Verdict::lost(message))),
            Some(Word::Ended { status, by_deadline, left }) => {
                if !left.is_empty() {
                    let left: Vec<String> = left.iter().map(ToString::to_string).collect();
                    let line = format!("processes of another user are left, and go on: {}", left.join(" "));
                    let tap = self.tap.clone();
                    let _ = tokio::task::spawn_blocking(move || tap.say(&line)).await;
                }
                if by_deadline && self.stopped.is_none() {
                    self.stopped = Some(self.lost());
                }
                Some(Ok(status))
            }
            None => Some(Err(self.stand_in("its guard was killed").await)),
        }
    }

    /// A guard that did its work at the last moment has said so by now, or its word is here to be read; one
    /// that was stopped, or cannot do its work, is killed with all that is below it.
    async fn in_the_guards_place(&mut self) -> Option<Result<Ended, Verdict>> {
        if boot_now() < stand_in_at(&self.lease.state()) {
            return None;
        }
        match tokio::time::timeout(WORD_UNDER_WAY, self.link.word()).await {
            Ok(word) => self.heard(word).await,
            Err(_) => {
                let verdict = self.lost();
                self.stopped.get_or_insert(verdict);
                Some(Err(self.stand_in("its guard stood still").await))
            }
        }
    }

    async fn stand_in(&mut self, why: &str) -> Verdict {
        let dead = link::kill_everything(self.tree.clone()).await;
        let left = if dead { "" } else { "; some of its processes do not die" };
        let verdict = Verdict::lost(format!("{why}{left}"));
        self.stopped.get_or_insert(verdict).clone()
    }

    fn lost(&self) -> Verdict {
        Verdict::lost(format!("lease {} is lost: the broker did not renew it in time", self.lease.lease()))
    }

    /// No command follows.
    pub fn finish(self) -> (GuardLink, LeaseGuard) {
        (self.link, self.lease)
    }
}
