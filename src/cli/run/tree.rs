//! The process tree of a command: finding all of it, signalling it, and killing it to the last.
//!
//! Whoever uses this is a child subreaper, so that what a daemon leaves behind by forking twice,
//! or by a session of its own, comes back here as a child instead of going to `init`. A tree is
//! then everything below this process, whatever group or session it moved to. What left before (a
//! daemon that was already running, a container engine) is not in it, and neither is a process of
//! another user: it is found, but the kernel refuses the signal.
//!
//! Elsewhere than on Linux there is no subreaper: there the tree is what `ps` shows below this
//! process, and a daemon that forked twice gets away.

use std::collections::{BTreeMap, BTreeSet};

use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// A process as it was seen. The start tells it from a later process that got the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    pid: i32,
    parent: i32,
    /// In the kernel's ticks since boot; 0 where the system does not tell.
    start: u64,
    /// Dead, and waiting for its parent to ask how it ended.
    zombie: bool,
}

/// Everything below one process.
#[derive(Clone, Debug)]
pub struct Tree {
    root: i32,
    spared: BTreeSet<i32>,
    beyond_reach: BTreeSet<i32>,
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// Makes this process the parent of every orphan below it.
pub fn become_subreaper() -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_child_subreaper(true)?;
    Ok(())
}

/// Asks how children ended, without waiting: every one that has ended since the last time.
#[must_use]
pub fn reap() -> Vec<(i32, Ended)> {
    let mut ended = Vec::new();
    loop {
        match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => ended.push((pid.as_raw(), Ended::Code(code))),
            Ok(WaitStatus::Signaled(pid, signal, _)) => ended.push((pid.as_raw(), Ended::Signal(signal as i32))),
            Ok(WaitStatus::StillAlive) => return ended,
            Err(nix::errno::Errno::EINTR) | Ok(_) => {}
            Err(_) => return ended,
        }
    }
}

impl Tree {
    /// Everything below this process.
    #[must_use]
    pub fn below_self() -> Self {
        let root = i32::try_from(std::process::id()).unwrap_or(i32::MAX);
        Self { root, spared: BTreeSet::new(), beyond_reach: BTreeSet::new() }
    }

    /// Leaves out `pid` and what is below it.
    pub fn spare(&mut self, pid: i32) {
        self.spared.insert(pid);
    }

    /// Leaves out everything that is there already: a process that was put in another's place
    /// (`exec`) may have children that are none of its business.
    pub fn spare_present(&mut self) {
        self.spared.extend(self.living().iter().map(|process| process.pid));
    }

    /// No longer leaves out `pid`.
    pub fn unspare(&mut self, pid: i32) {
        self.spared.remove(&pid);
    }

    /// Processes that were found and could not be signalled: another user's.
    #[must_use]
    pub const fn beyond_reach(&self) -> &BTreeSet<i32> {
        &self.beyond_reach
    }

    /// Whether nothing of the tree lives that this process could do anything about.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.living().iter().all(|process| self.beyond_reach.contains(&process.pid))
    }

    /// Sends `signal` to everything that lives now; answers how many that were. What a dying
    /// process forks meanwhile is found by the next call.
    pub fn signal(&mut self, signal: Signal) -> usize {
        let mut reached = 0;
        for process in self.living() {
            match send(process, signal) {
                Ok(()) => {
                    self.beyond_reach.remove(&process.pid);
                    reached += 1;
                }
                Err(nix::errno::Errno::EPERM) => {
                    self.beyond_reach.insert(process.pid);
                }
                // Gone in between: what was wanted.
                Err(_) => {}
            }
        }
        reached
    }

    /// Asks everything to end, and wakes what is stopped so that it hears it.
    pub fn terminate(&mut self) {
        self.signal(Signal::SIGTERM);
        self.signal(Signal::SIGCONT);
    }

    fn living(&self) -> Vec<Process> {
        below(&processes(), self.root, &self.spared)
    }
}

/// The living below `root`, without the subtrees of the spared.
fn below(all: &[Process], root: i32, spared: &BTreeSet<i32>) -> Vec<Process> {
    let mut children: BTreeMap<i32, Vec<Process>> = BTreeMap::new();
    for process in all {
        children.entry(process.parent).or_default().push(*process);
    }
    let mut found = Vec::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        // Taken out, as two looks at a changing world could show a circle.
        for child in children.remove(&parent).unwrap_or_default() {
            if !spared.contains(&child.pid) {
                parents.push(child.pid);
                found.push(child);
            }
        }
    }
    found.retain(|process| !process.zombie);
    found
}

/// Sends through a handle of the process, after looking that the number still means it.
#[cfg(target_os = "linux")]
fn send(process: Process, signal: Signal) -> nix::Result<()> {
    use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};
    let errno = |error: rustix::io::Errno| nix::errno::Errno::from_raw(error.raw_os_error());
    let (Some(pid), Some(number)) =
        (rustix::process::Pid::from_raw(process.pid), rustix::process::Signal::from_named_raw(signal as i32))
    else {
        return Err(nix::errno::Errno::EINVAL);
    };
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(handle) => match read_process(process.pid) {
            Some(now) if now.start == process.start => pidfd_send_signal(handle, number).map_err(errno),
            _ => Err(nix::errno::Errno::ESRCH),
        },
        // A kernel before 5.3, or a sandbox that forbids the call.
        Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => {
            nix::sys::signal::kill(Pid::from_raw(process.pid), signal)
        }
        Err(error) => Err(errno(error)),
    }
}

#[cfg(not(target_os = "linux"))]
fn send(process: Process, signal: Signal) -> nix::Result<()> {
    nix::sys::signal::kill(Pid::from_raw(process.pid), signal)
}

#[cfg(target_os = "linux")]
fn processes() -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).filter_map(read_process).collect()
}

#[cfg(target_os = "linux")]
fn read_process(pid: i32) -> Option<Process> {
    parse_stat(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// Reads a line of `/proc/PID/stat`. The name may hold anything, so counting begins behind its
/// last parenthesis.
#[cfg(target_os = "linux")]
fn parse_stat(line: &[u8]) -> Option<Process> {
    let line = String::from_utf8_lossy(line);
    let (pid, _) = line.split_once(" (")?;
    let (_, rest) = line.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let threads: u32 = fields.nth(15)?.parse().ok()?;
    let start = fields.nth(1)?.parse().ok()?;
    // A process whose first thread has ended looks dead while its other threads go on.
    let zombie = matches!(state, "X" | "x") || (state == "Z" && threads <= 1);
    Some(Process { pid: pid.parse().ok()?, parent, start, zombie })
}

#[cfg(not(target_os = "linux"))]
fn processes() -> Vec<Process> {
    let Ok(listing) = std::process::Command::new("ps").args(["-A", "-o", "pid=,ppid=,state="]).output() else {
        return Vec::new();
    };
    String::from_utf8_lossy(&listing.stdout)
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (pid, parent) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            Some(Process { pid, parent, start: 0, zombie: words.next()?.starts_with('Z') })
        })
        .collect()
}

/// When the process `pid` started, in the kernel's ticks since boot: with the number it names one
/// process for ever. `None` when there is none, or it is dead and waits to be asked.
#[must_use]
pub fn start_of(pid: i32) -> Option<u64> {
    #[cfg(target_os = "linux")]
    return read_process(pid).filter(|process| !process.zombie).map(|process| process.start);
    #[cfg(not(target_os = "linux"))]
    return nix::sys::signal::kill(Pid::from_raw(pid), None).ok().map(|()| 0);
}

/// Sends `signal` to that one process, if it is still there.
pub fn signal_one(pid: i32, start: u64, signal: Signal) {
    // Gone, or another user's: nothing more can be done about either.
    let _ = send(Process { pid, parent: 0, start, zombie: false }, signal);
}

/// Waits until that one process has ended, whoever's child it is. Where the system does not tell,
/// it is looked for every `look_every`.
pub fn wait_until_gone(pid: i32, start: u64, look_every: std::time::Duration) {
    #[cfg(target_os = "linux")]
    if let Some(number) = rustix::process::Pid::from_raw(pid)
        && let Ok(handle) = rustix::process::pidfd_open(number, rustix::process::PidfdFlags::empty())
    {
        use std::os::fd::AsFd;
        let mut waited = [nix::poll::PollFd::new(handle.as_fd(), nix::poll::PollFlags::POLLIN)];
        while start_of(pid) == Some(start) {
            match nix::poll::poll(&mut waited, nix::poll::PollTimeout::NONE) {
                Ok(_) => return,
                Err(nix::errno::Errno::EINTR) => {}
                Err(_) => break,
            }
        }
    }
    while start_of(pid) == Some(start) {
        std::thread::sleep(look_every);
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::collections::BTreeSet;

    use super::{Process, below, parse_stat, start_of};

    const fn process(pid: i32, parent: i32, zombie: bool) -> Process {
        Process { pid, parent, start: 1, zombie }
    }

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_confuse() {
        let line = b"4711 (a) S (b c) R 17 4711 17 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2";
        assert_eq!(parse_stat(line), Some(Process { pid: 4711, parent: 17, start: 98765, zombie: false }));
        assert_eq!(parse_stat(b"4711 (gone"), None);
    }

    #[test]
    fn a_process_is_dead_only_with_its_last_thread() {
        let line = |threads: u32| format!("5 (x) Z 1 5 5 0 -1 0 0 0 0 0 0 0 0 0 20 0 {threads} 0 9 1 2").into_bytes();
        assert_eq!(parse_stat(&line(1)).map(|process| process.zombie), Some(true));
        assert_eq!(parse_stat(&line(2)).map(|process| process.zombie), Some(false));
    }

    #[test]
    fn the_tree_is_everything_below_without_the_spared_and_the_dead() {
        let all = [
            process(1, 0, false),
            process(10, 1, false),
            process(11, 10, false),
            process(12, 11, true),
            process(13, 12, false),
            process(14, 10, false),
            process(15, 14, false),
            process(20, 1, false),
        ];
        let pids = |spared: &[i32]| -> BTreeSet<i32> {
            below(&all, 10, &spared.iter().copied().collect()).iter().map(|process| process.pid).collect()
        };
        assert_eq!(pids(&[]), BTreeSet::from([11, 13, 14, 15]));
        assert_eq!(pids(&[14]), BTreeSet::from([11, 13]));
    }

    #[test]
    fn a_circle_that_two_looks_made_ends() {
        let all = [process(2, 1, false), process(3, 2, false), process(2, 3, false)];
        assert_eq!(below(&all, 1, &BTreeSet::new()).len(), 3);
    }

    #[test]
    fn this_process_has_a_start() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(start_of(own).is_some());
        assert_eq!(start_of(i32::MAX), None);
    }
}
