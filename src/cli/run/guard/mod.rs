//! The guard: the small process between `run` and its command.
//!
//! ```text
//!   run ── orders, deadlines ──▶ guard ──▶ command ──▶ whatever it starts
//!    ▲ ◀── words ─────────────────┘ subreaper: all of it stays below the guard
//!    └── subreaper: gets it all should the guard die
//! ```
//!
//! It is the binary re-executed, with one thread and a process group of its own. It owns the
//! command's life: it starts it, kills its whole tree when the deadline comes, when `run` says so
//! or when `run` is gone, and in the last case closes the session itself. It must not talk to the
//! broker while `run` lives, and must not depend on anything that could block: no runtime, no
//! locks, no output but its words.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::Args;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags};

pub mod talk;

mod wake;

use self::talk::{Deadline, Lines, Order, SessionKey, Start, Word};
use self::wake::Wake;
use super::tree::{self, Ended, Tree};
use crate::cli::{Failure, exit_code};
use crate::client::{self, BaseUrl, Network};
use crate::clock::{BootTime, boot_now};

/// How long the `--on-lost` command may take before it is killed too.
const HOOK_MS_MAX: u64 = 30_000;
/// How often a tree that is being killed is looked at again.
const KILL_AGAIN_MS: u64 = 20;
/// After each attempt to close the session that found no broker.
const CLOSE_PAUSES_MS: &[u64] = &[100, 200, 400, 800, 1_600, 1_600, 1_600, 0];

/// The guard of a `run`, or of a build; started by those only.
#[derive(Debug, Args)]
pub struct GuardCommand {}

impl GuardCommand {
    /// Serves until `run` is done with it or gone. Its stdin is the socket to `run`.
    pub fn execute(self) -> Result<u8, Failure> {
        // Else it is called by the link it was started through.
        #[cfg(target_os = "linux")]
        let _ = nix::sys::prctl::set_name(c"leasehold-guard");
        let control = std::io::stdin().as_fd().try_clone_to_owned();
        control.and_then(|control| Guard::new(control)?.serve()).map_err(|error| {
            Failure::own(format!("the guard cannot work: {error}. It is started by `leasehold run` only"))
        })?;
        Ok(exit_code::DONE)
    }
}

/// Where the command is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Not started, or it could not be.
    Idle,
    Running,
    /// TERM has gone out.
    Stopping {
        kill_at: BootTime,
    },
    Killing,
    /// Nothing of it is left; `run` has been told, or will be when the hook has ended.
    Over {
        told: bool,
    },
}

/// The `--on-lost` command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hook {
    NotNeeded,
    Running { pid: i32, kill_at: BootTime },
    Over,
}

/// Whether `run` is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parent {
    Alive,
    /// It said that it is done.
    Done,
    /// It was killed.
    Gone,
}

struct Guard {
    control: OwnedFd,
    lines: Lines,
    wake: Wake,
    tree: Tree,
    parent: Parent,
    stage: Stage,
    hook: Hook,
    session: Option<SessionKey>,
    start: Option<Start>,
    main: Option<i32>,
    status: Option<Ended>,
    deadline: Option<Deadline>,
    by_deadline: bool,
    said_empty: bool,
}

impl Guard {
    fn new(control: OwnedFd) -> std::io::Result<Self> {
        let wake = Wake::new()?;
        tree::become_subreaper()?;
        Ok(Self {
            control,
            lines: Lines::default(),
            wake,
            tree: Tree::below_self(),
            parent: Parent::Alive,
            stage: Stage::Idle,
            hook: Hook::NotNeeded,
            session: None,
            start: None,
            main: None,
            status: None,
            deadline: None,
            by_deadline: false,
            said_empty: false,
        })
    }

    fn serve(mut self) -> std::io::Result<()> {
        while !self.may_leave(boot_now()) {
            let control = (self.parent == Parent::Alive).then_some(&self.control);
            if self.wake.wait(control, self.next_wake())? {
                self.listen();
            }
            self.collect();
            // Read again behind the wait: a timer only wakes, and the machine may have slept.
            self.advance(boot_now());
        }
        if self.parent == Parent::Gone {
            if let Some(directory) = self.start.as_ref().and_then(|start| start.remove.as_ref()) {
                let _ = std::fs::remove_dir_all(directory);
            }
            if let Some(session) = &self.session {
                close_session(session)?;
            }
        }
        Ok(())
    }

    /// When to look again, should nothing happen before.
    fn next_wake(&self) -> Option<BootTime> {
        let kill_at = self.deadline.map(Deadline::kill_at);
        let stage = match self.stage {
            Stage::Idle | Stage::Over { .. } => None,
            Stage::Running => self.deadline.map(|deadline| deadline.terminate_at),
            Stage::Stopping { kill_at: own } => Some(kill_at.map_or(own, |kill_at| kill_at.min(own))),
            Stage::Killing => Some(boot_now().plus(KILL_AGAIN_MS)),
        };
        let hook = match self.hook {
            Hook::Running { kill_at, .. } if self.parent == Parent::Alive => Some(kill_at),
            Hook::Running { kill_at, .. } => Some(self.deadline.map_or(kill_at, |d| d.deadline.min(kill_at))),
            Hook::NotNeeded | Hook::Over => None,
        };
        stage.into_iter().chain(hook).min()
    }

    fn may_leave(&self, now: BootTime) -> bool {
        let still = matches!(self.stage, Stage::Idle | Stage::Over { .. });
        let hook_may_be_left = match self.hook {
            Hook::NotNeeded | Hook::Over => true,
            Hook::Running { kill_at, .. } => {
                now >= kill_at || self.deadline.is_some_and(|deadline| now >= deadline.deadline)
            }
        };
        match self.parent {
            Parent::Alive => false,
            Parent::Done => still,
            Parent::Gone => still && hook_may_be_left,
        }
    }

    fn listen(&mut self) {
        let mut bytes = [0_u8; 64 * 1024];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut carried = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let got = rustix::net::recvmsg(&self.control, &mut slices, &mut carried, RecvFlags::DONTWAIT);
        for message in carried.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                // The command's stdin takes the place of the socket, which is open under another number.
                for stdin in descriptors {
                    // Fails only for want of the very number that is there already.
                    let _ = nix::unistd::dup2_stdin(stdin);
                }
            }
        }
        match got {
            Ok(message) if message.bytes > 0 => {
                for order in self.lines.push(&bytes[..message.bytes]) {
                    self.obey(order);
                }
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Ok(_) | Err(_) => self.abandoned(),
        }
    }

    /// `run` is gone without having said so: nothing may go on using the resource.
    fn abandoned(&mut self) {
        if self.parent == Parent::Alive {
            self.parent = Parent::Gone;
            if !matches!(self.stage, Stage::Idle | Stage::Over { .. }) {
                self.lose();
                self.stage = Stage::Killing;
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Session(session) => self.session = Some(session),
            Order::Start(start) if self.may_begin() => self.begin(*start),
            Order::Start(_) => {}
            Order::Deadline(deadline) => self.deadline = Some(deadline),
            Order::Signal(number) => self.pass_on(number),
            Order::Stop { grace_ms, lost } => {
                if matches!(self.stage, Stage::Running | Stage::Stopping { .. }) {
                    if lost {
                        self.lose();
                    }
                    self.stop(boot_now().plus(grace_ms));
                }
            }
            Order::Done => {
                self.parent = Parent::Done;
                if !matches!(self.stage, Stage::Idle | Stage::Over { .. }) {
                    self.stage = Stage::Killing;
                }
            }
        }
    }

    /// Whether nothing of a command is left, and no lease was lost under one.
    fn may_begin(&self) -> bool {
        matches!(self.stage, Stage::Idle | Stage::Over { told: true })
            && self.hook == Hook::NotNeeded
            && self.parent == Parent::Alive
    }

    fn begin(&mut self, start: Start) {
        self.deadline = start.deadline;
        (self.main, self.status, self.by_deadline, self.said_empty) = (None, None, false, false);
        let Some((program, arguments)) = start.command.split_first() else {
            return self.not_started(exit_code::NOT_FOUND, "there is no command".to_owned());
        };
        let mut command = Command::new(program);
        command.args(arguments).process_group(start.group);
        surround(&mut command, &start);
        match self.wake.with_mask(&start.blocked, || command.spawn()).and_then(|spawned| spawned) {
            Ok(child) => {
                let pid = i32::try_from(child.id()).unwrap_or(i32::MAX);
                self.main = Some(pid);
                self.stage = Stage::Running;
                self.start = Some(start);
                self.say(&Word::Started { pid });
            }
            Err(error) => {
                let code = match error.kind() {
                    std::io::ErrorKind::NotFound => exit_code::NOT_FOUND,
                    _ => exit_code::NOT_EXECUTABLE,
                };
                let program = program.to_string_lossy();
                self.not_started(code, format!("{program:?} cannot be run: {error}"));
            }
        }
    }

    fn not_started(&mut self, code: u8, message: String) {
        self.stage = Stage::Over { told: true };
        self.say(&Word::NotStarted { code, message });
    }

    fn pass_on(&self, number: i32) {
        if let (Some(pid), None, Ok(signal)) = (self.main, self.status, Signal::try_from(number)) {
            // Not reaped yet, so the number is still its own.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// The lease is gone or going: what is beyond the tree is the hook's business.
    fn lose(&mut self) {
        let Some(start) = &self.start else { return };
        let (Hook::NotNeeded, Some(script)) = (self.hook, &start.on_lost) else { return };
        let mut command = Command::new("sh");
        command.arg("-c").arg(script).stdin(Stdio::null()).process_group(0);
        surround(&mut command, start);
        if let Ok(stderr) = std::io::stderr().as_fd().try_clone_to_owned() {
            command.stdout(stderr);
        }
        self.hook = match self.wake.with_mask(&start.blocked, || command.spawn()).and_then(|spawned| spawned) {
            Ok(child) => {
                let pid = i32::try_from(child.id()).unwrap_or(i32::MAX);
                self.tree.spare(pid);
                Hook::Running { pid, kill_at: boot_now().plus(HOOK_MS_MAX) }
            }
            Err(_) => Hook::Over,
        };
    }

    fn stop(&mut self, kill_at: BootTime) {
        self.tree.terminate();
        let kill_at = match self.stage {
            Stage::Stopping { kill_at: sooner } => sooner.min(kill_at),
            _ => kill_at,
        };
        self.stage = Stage::Stopping { kill_at };
    }

    fn collect(&mut self) {
        for (pid, ended) in tree::reap() {
            if self.main == Some(pid) && self.status.is_none() {
                self.status = Some(ended);
            }
            if matches!(self.hook, Hook::Running { pid: hook, .. } if hook == pid) {
                self.hook = Hook::Over;
                self.tree.unspare(pid);
            }
        }
    }

    /// Does what is due. May be called any number of times.
    fn advance(&mut self, now: BootTime) {
        if let Hook::Running { pid, kill_at } = self.hook
            && now >= kill_at
        {
            self.tree.unspare(pid);
            self.stage = Stage::Killing;
        }
        if self.stage == Stage::Running {
            if let Some(deadline) = self.deadline.filter(|deadline| now >= deadline.terminate_at) {
                self.by_deadline = true;
                self.lose();
                self.stop(deadline.kill_at());
            } else if self.status.is_some() {
                let grace_ms = self.start.as_ref().map_or(0, |start| start.leftover_grace_ms);
                self.stop(now.plus(grace_ms));
            }
        }
        if let Stage::Stopping { kill_at } = self.stage {
            let due = self.deadline.map_or(kill_at, |deadline| deadline.kill_at().min(kill_at));
            if self.deadline.is_some_and(|deadline| now >= deadline.kill_at()) {
                self.lose();
            }
            if now >= due {
                self.stage = Stage::Killing;
            }
        }
        if self.stage == Stage::Killing {
            self.tree.signal(Signal::SIGKILL);
            self.collect();
        }
        if matches!(self.stage, Stage::Stopping { .. } | Stage::Killing)
            && self.status.is_some()
            && self.tree.is_empty()
        {
            self.stage = Stage::Over { told: false };
        }
        self.tell_the_end();
    }

    fn tell_the_end(&mut self) {
        let (Stage::Over { told: false }, Some(status)) = (self.stage, self.status) else { return };
        if matches!(self.hook, Hook::Running { .. }) {
            if !std::mem::replace(&mut self.said_empty, true) {
                self.say(&Word::Emptied);
            }
            return;
        }
        self.stage = Stage::Over { told: true };
        let left = self.tree.beyond_reach().iter().copied().collect();
        self.say(&Word::Ended { status, by_deadline: self.by_deadline, left });
    }

    fn say(&self, word: &Word) {
        let line = talk::line(word);
        // A `run` that is gone is noticed by reading; there is nobody to tell.
        let _ = rustix::net::sendmsg(
            &self.control,
            &[IoSlice::new(&line)],
            &mut rustix::net::SendAncillaryBuffer::default(),
            SendFlags::empty(),
        );
    }
}

/// Gives a command the environment that goes with the lease.
fn surround(command: &mut Command, start: &Start) {
    if start.bare {
        command.env_clear();
    }
    if let Some(folder) = &start.folder {
        command.current_dir(folder);
    }
    for name in &start.removed {
        command.env_remove(name);
    }
    command.envs(&start.environment);
}

/// Frees what the session has, in the place of the `run` that was killed. A broker that cannot be
/// reached for a while frees it by itself, a ttl after the last sign of life.
fn close_session(key: &SessionKey) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (Ok(urls), Ok(network)) = (BaseUrl::parse_list(&key.url), Network::from_env()) else { return };
        for pause_ms in CLOSE_PAUSES_MS {
            match client::close_session(&urls, &network, key.session, &key.secret).await {
                Err(error) if error.is_passing() => tokio::time::sleep(Duration::from_millis(*pause_ms)).await,
                // Closed, or there was nothing to close any more.
                _ => return,
            }
        }
    });
    Ok(())
}
