//! A timer on the clock that counts suspended time.
//!
//! An ordinary timer stops while the machine sleeps and would fire too late by as much. This one
//! only wakes: the clock is read again before it says that a moment has come.

use std::io;
use std::task::{Context, Poll};

use crate::clock::{self, BootTime};

/// No single wait is longer: the next one goes on from there.
const WAIT_MS_MAX: u64 = 24 * 3_600 * 1_000;

#[cfg(any(target_os = "linux", target_os = "android"))]
mod os {
    use std::os::fd::AsFd;
    use std::task::ready;
    use std::time::Duration;

    use nix::sys::time::TimeSpec;
    use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
    use tokio::net::unix::pipe::Receiver;

    use super::{BootTime, Context, Poll, io};

    pub(super) struct Alarm {
        timer: TimerFd,
        /// The same timer for the runtime to wait on. To the runtime it is like the end of a pipe:
        /// something that becomes readable; this is its one safe door for such.
        fired: Receiver,
    }

    impl Alarm {
        pub(super) fn new() -> io::Result<Self> {
            let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
            let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, flags)?;
            let fired = Receiver::from_owned_fd_unchecked(timer.as_fd().try_clone_to_owned()?)?;
            Ok(Self { timer, fired })
        }

        pub(super) fn set(&mut self, at: BootTime) -> io::Result<()> {
            // Zero would disarm it.
            let spec = TimeSpec::from_duration(Duration::from_millis(at.0.max(1)));
            Ok(self.timer.set(Expiration::OneShot(spec), TimerSetTimeFlags::TFD_TIMER_ABSTIME)?)
        }

        pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            loop {
                ready!(self.fired.poll_read_ready(cx))?;
                match self.fired.try_read(&mut [0; 8]) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    read => return Poll::Ready(read.map(drop)),
                }
            }
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod os {
    use std::pin::Pin;
    use std::time::Duration;

    use super::{BootTime, Context, Poll, clock, io};

    pub(super) struct Alarm(Pin<Box<tokio::time::Sleep>>);

    impl Alarm {
        pub(super) fn new() -> io::Result<Self> {
            Ok(Self(Box::pin(tokio::time::sleep(Duration::ZERO))))
        }

        pub(super) fn set(&mut self, at: BootTime) -> io::Result<()> {
            // A second at most: this timer may not count suspended time.
            let wait = at.since(clock::boot_now()).min(1_000);
            self.0 = Box::pin(tokio::time::sleep(Duration::from_millis(wait)));
            Ok(())
        }

        pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.0.as_mut().poll(cx).map(Ok)
        }
    }
}

/// Wakes its task at a moment of the boot clock.
pub(super) struct BootTimer {
    alarm: os::Alarm,
    at: BootTime,
    armed_for: BootTime,
}

impl BootTimer {
    /// Needs a tokio runtime around it.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { alarm: os::Alarm::new()?, at: BootTime(u64::MAX), armed_for: BootTime(0) })
    }

    /// The moment to wake at, instead of the one before.
    pub(super) fn set(&mut self, at: BootTime) {
        self.at = at;
    }

    /// Ready once the moment has come.
    pub(super) fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let now = clock::boot_now();
            if now >= self.at {
                return Poll::Ready(());
            }
            let arm = self.at.min(now.plus(WAIT_MS_MAX));
            if arm != self.armed_for || now >= self.armed_for {
                self.armed_for = arm;
                self.alarm.set(arm).expect("an absolute moment that is neither zero nor negative can be set");
            }
            match self.alarm.poll(cx) {
                Poll::Ready(Ok(())) => {}
                // Only a runtime that is being shut down says so: its tasks are dropped next.
                Poll::Ready(Err(_)) | Poll::Pending => return Poll::Pending,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::BootTimer;
    use crate::clock::{BootTime, boot_now};

    #[tokio::test]
    async fn it_wakes_at_the_moment_and_not_before() {
        let mut timer = BootTimer::new().expect("a timer");
        for wait in [0, 1, 20, 3] {
            let at = boot_now().plus(wait);
            timer.set(at);
            poll_fn(|cx| timer.poll_expired(cx)).await;
            assert!(boot_now() >= at);
        }
    }

    #[tokio::test]
    async fn an_earlier_moment_replaces_a_later_one() {
        let mut timer = BootTimer::new().expect("a timer");
        timer.set(BootTime(u64::MAX));
        let polled = poll_fn(|cx| std::task::Poll::Ready(timer.poll_expired(cx))).await;
        assert!(polled.is_pending());
        timer.set(boot_now().plus(5));
        poll_fn(|cx| timer.poll_expired(cx)).await;
    }
}
