//! What `run` and its guard say to each other, as lines of JSON over a socket pair.
//!
//! The socket is also the sign that `run` lives: when it closes without [`Order::Done`], `run`
//! was killed. Times are this machine's [`BootTime`], the same in both processes.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::super::tree::Ended;
use crate::clock::BootTime;

/// What `run` tells its guard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// The session is open: what to close should `run` be killed.
    Session(SessionKey),
    /// Start the command; another one when nothing of the one before is left.
    Start(Box<Start>),
    /// The promise was renewed, or runs out sooner.
    Deadline(Deadline),
    /// Pass this signal on to the command.
    Signal(i32),
    /// Stop the tree: TERM, then KILL after `grace_ms`, or sooner by the deadline.
    Stop {
        /// Between TERM and KILL.
        grace_ms: u64,
        /// Whether the lease is gone or going: then the `--on-lost` command runs.
        lost: bool,
    },
    /// Everything is given back: leave without closing anything.
    Done,
}

/// What a session is closed with by another process than the one it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionKey {
    /// As `--url` has it.
    pub url: String,
    /// Its number.
    pub session: u64,
    /// What opening it answered.
    pub secret: String,
}

/// The command and what it is started with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// The program and its arguments; never empty.
    pub command: Vec<OsString>,
    /// Variables beside those the guard itself was started with.
    pub environment: BTreeMap<String, String>,
    /// Variables of those it must not see.
    pub removed: Vec<String>,
    /// Whether it sees none of the guard's own.
    #[serde(default)]
    pub bare: bool,
    /// The folder it is started in; absent is the guard's.
    #[serde(default)]
    pub folder: Option<PathBuf>,
    /// The process group that `run` was started in: the terminal's, where there is one. 0 makes it one of
    /// its own.
    pub group: i32,
    /// Signals that were blocked when `run` was started, and are for the command again.
    pub blocked: Vec<i32>,
    /// For `sh -c` when the lease is lost, with the command's environment.
    pub on_lost: Option<String>,
    /// Between TERM and KILL for what is left when the command itself has ended.
    pub leftover_grace_ms: u64,
    /// The first promise.
    pub deadline: Option<Deadline>,
    /// The directory with the secrets, to be removed should `run` be killed.
    pub remove: Option<PathBuf>,
}

/// Until when the lease may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadline {
    /// TERM goes out now, unless a later promise came.
    pub terminate_at: BootTime,
    /// Everything is killed and reaped by now.
    pub deadline: BootTime,
}

impl Deadline {
    /// When KILL goes out, so that everything is dead and reaped at the deadline.
    #[must_use]
    pub fn kill_at(self) -> BootTime {
        let grace_ms = self.deadline.since(self.terminate_at);
        self.deadline.minus((grace_ms / 4).min(250))
    }
}

/// What the guard tells `run`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// The command runs.
    Started {
        /// Its number.
        pid: i32,
    },
    /// The command could not be started; nothing runs.
    NotStarted {
        /// 126 or 127, as a shell has it.
        code: u8,
        /// Why, for people.
        message: String,
    },
    /// Nothing of the command is left; what was started for the loss still works.
    Emptied,
    /// The command and everything below it has ended and was reaped.
    Ended {
        /// How the command itself ended.
        status: Ended,
        /// Whether the guard stopped it because the deadline came.
        by_deadline: bool,
        /// Processes of other users that the guard could not stop.
        left: Vec<i32>,
    },
}

/// Cuts what has arrived into lines, and keeps the rest for later.
#[derive(Debug, Default)]
pub struct Lines {
    kept: Vec<u8>,
}

impl Lines {
    /// Takes bytes in; answers the messages that are whole now. What cannot be read as one is
    /// skipped: both ends are the same binary, and an upgrade under a running one must not stop it.
    pub fn push<T: for<'de> Deserialize<'de>>(&mut self, bytes: &[u8]) -> Vec<T> {
        self.kept.extend_from_slice(bytes);
        let Some(end) = self.kept.iter().rposition(|byte| *byte == b'\n') else { return Vec::new() };
        let rest = self.kept.split_off(end + 1);
        let whole = std::mem::replace(&mut self.kept, rest);
        whole.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }
}

/// A message as a line.
#[must_use]
pub fn line<T: Serialize>(message: &T) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).expect("messages have text keys only, which JSON can say");
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    use super::{Deadline, Lines, Order, Start, line};
    use crate::clock::BootTime;

    #[test]
    fn messages_survive_being_cut_anywhere() {
        let odd = OsString::from_vec(vec![b'a', 0xff, b'\n']);
        let orders = vec![
            Order::Signal(15),
            Order::Start(Box::new(Start { command: vec!["sh".into(), odd], ..Start::default() })),
            Order::Done,
        ];
        let bytes: Vec<u8> = std::iter::once(b"\n".to_vec()).chain(orders.iter().map(line)).flatten().collect();
        for cut in 0..bytes.len() {
            let mut lines = Lines::default();
            let mut read: Vec<Order> = lines.push(&bytes[..cut]);
            read.extend(lines.push::<Order>(&bytes[cut..]));
            assert_eq!(read, orders, "cut at {cut}");
        }
    }

    #[test]
    fn kill_leaves_time_to_reap() {
        for (grace, lead) in [(400, 100), (3_000, 250), (0, 0)] {
            let deadline = Deadline { terminate_at: BootTime(10_000 - grace), deadline: BootTime(10_000) };
            assert_eq!(deadline.kill_at(), BootTime(10_000 - lead));
        }
    }
}
