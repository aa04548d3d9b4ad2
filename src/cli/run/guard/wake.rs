//! What wakes the guard: a message from `run`, a child that ended, a moment that came.
//!
//! On Linux the moment is a timer on the clock that counts suspended time. Elsewhere there are no
//! descriptors for signals and timers, so the guard looks around twenty times a second.

use std::os::fd::{BorrowedFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};

use crate::clock::BootTime;

/// Signals that must not end the guard: it ends when its tree has, and those who mean the command
/// tell `run`.
const HELD: &[Signal] = &[
    Signal::SIGCHLD,
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGTSTP,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// Waits for whatever comes first.
#[derive(Debug)]
pub struct Wake {
    held: SigSet,
    #[cfg(target_os = "linux")]
    signals: nix::sys::signalfd::SignalFd,
    #[cfg(target_os = "linux")]
    timer: nix::sys::timerfd::TimerFd,
}

impl Wake {
    /// Holds the signals back and makes the descriptors.
    pub fn new() -> std::io::Result<Self> {
        let held: SigSet = HELD.iter().copied().collect();
        held.thread_set_mask()?;
        #[cfg(target_os = "linux")]
        {
            use nix::sys::signalfd::{SfdFlags, SignalFd};
            use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};
            Ok(Self {
                held,
                signals: SignalFd::with_flags(&held, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?,
                timer: TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?,
            })
        }
        #[cfg(not(target_os = "linux"))]
        Ok(Self { held })
    }

    /// Does `work` with only `blocked` held back: children begin with what their parent holds
    /// back. A signal that ends the guard in between ends the command too, by `run`.
    pub fn with_mask<T>(&self, blocked: &[i32], work: impl FnOnce() -> T) -> std::io::Result<T> {
        let mask: SigSet = blocked.iter().filter_map(|number| Signal::try_from(*number).ok()).collect();
        mask.thread_set_mask()?;
        let done = work();
        self.held.thread_set_mask()?;
        Ok(done)
    }

    /// Waits until `control` has something (answers whether it has), a child ended, or `until`.
    pub fn wait(&self, control: Option<&OwnedFd>, until: Option<BootTime>) -> std::io::Result<bool> {
        use std::os::fd::AsFd;
        let mut waited: Vec<BorrowedFd<'_>> = control.iter().map(|socket| socket.as_fd()).collect();
        #[cfg(target_os = "linux")]
        {
            self.arm(until)?;
            waited.extend([self.signals.as_fd(), self.timer.as_fd()]);
        }
        let mut waited: Vec<PollFd<'_>> = waited.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
        match poll(&mut waited, timeout(until)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready = control.is_some() && waited.first().and_then(PollFd::any).unwrap_or(false);
        #[cfg(target_os = "linux")]
        while matches!(self.signals.read_signal(), Ok(Some(_))) {}
        Ok(ready)
    }

    #[cfg(target_os = "linux")]
    fn arm(&self, until: Option<BootTime>) -> std::io::Result<()> {
        use nix::sys::time::{TimeSpec, TimeValLike};
        use nix::sys::timerfd::{Expiration, TimerSetTimeFlags};
        let Some(until) = until else { return Ok(self.timer.unset()?) };
        // Zero would disarm it.
        let at = TimeSpec::milliseconds(i64::try_from(until.0.max(1)).unwrap_or(i64::MAX));
        Ok(self.timer.set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME)?)
    }
}

#[cfg(target_os = "linux")]
fn timeout(_until: Option<BootTime>) -> PollTimeout {
    PollTimeout::NONE
}

#[cfg(not(target_os = "linux"))]
fn timeout(until: Option<BootTime>) -> PollTimeout {
    let left_ms = until.map_or(u64::MAX, |until| until.since(crate::clock::boot_now()));
    PollTimeout::from(u8::try_from(left_ms.min(50)).unwrap_or(50))
}
