//! Signals to `run`: held back from before any thread exists, then read one by one.
//!
//! A signal that the terminal sent (Ctrl-C) reached the whole foreground group, so the command
//! has it already; one that another process sent to `run` alone is to be passed on. The kernel
//! says which it was. Ctrl-Z is left alone: `run` stops like every other program.

use nix::sys::signal::{SigSet, Signal};

/// A signal that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caught {
    /// Which.
    pub number: i32,
    /// Whether the kernel sent it, to everybody in the group.
    pub from_terminal: bool,
}

/// Passed on to the command; while there is none they end the wait.
const PASSED_ON: &[Signal] =
    &[Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGUSR2];

/// Signals held back by this thread, and by all threads it starts from now on.
#[derive(Debug)]
pub struct Held {
    /// What was held back already when this process began, for its command.
    pub before: Vec<i32>,
    set: SigSet,
}

/// Holds the signals back. To be called before there are threads.
pub fn hold() -> std::io::Result<Held> {
    let now = SigSet::thread_get_mask()?;
    let before = Signal::iterator().filter(|signal| now.contains(*signal)).map(|signal| signal as i32).collect();
    let set: SigSet = PASSED_ON.iter().copied().collect();
    #[cfg(target_os = "linux")]
    set.thread_block()?;
    Ok(Held { before, set })
}

#[cfg(target_os = "linux")]
mod system {
    use nix::sys::signalfd::{SfdFlags, SignalFd};
    use tokio::sync::mpsc;

    use super::{Caught, Held};

    /// Signals that may wait to be looked at; the kernel itself keeps one of each kind.
    const SIGNALS_MAX: usize = 32;

    /// The signals as they arrive.
    #[derive(Debug)]
    pub struct Signals {
        inbox: mpsc::Receiver<Caught>,
    }

    impl Signals {
        /// Begins to read them, on a thread of its own that ends with the process.
        pub fn new(held: &Held) -> std::io::Result<Self> {
            let descriptor = SignalFd::with_flags(&held.set, SfdFlags::SFD_CLOEXEC)?;
            let (tell, inbox) = mpsc::channel(SIGNALS_MAX);
            std::thread::Builder::new().name("signals".to_owned()).spawn(move || read(&descriptor, &tell))?;
            Ok(Self { inbox })
        }

        /// The next one. May be dropped and called again.
        pub async fn next(&mut self) -> Caught {
            match self.inbox.recv().await {
                Some(caught) => caught,
                None => std::future::pending().await,
            }
        }
    }

    fn read(descriptor: &SignalFd, tell: &mpsc::Sender<Caught>) {
        loop {
            match descriptor.read_signal() {
                Ok(Some(signal)) => {
                    let number = i32::try_from(signal.ssi_signo).unwrap_or(0);
                    let from_terminal = signal.ssi_code == nix::libc::SI_KERNEL;
                    if tell.blocking_send(Caught { number, from_terminal }).is_err() {
                        return;
                    }
                }
                Ok(None) | Err(nix::errno::Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use tokio::signal::unix::{Signal, SignalKind, signal};

    use super::{Caught, Held, PASSED_ON};

    /// The signals as they arrive.
    #[derive(Debug)]
    pub struct Signals {
        each: Vec<(i32, Signal)>,
    }

    impl Signals {
        /// Begins to read them; needs the runtime.
        pub fn new(_held: &Held) -> std::io::Result<Self> {
            let listen = |number: i32| Ok((number, signal(SignalKind::from_raw(number))?));
            Ok(Self { each: PASSED_ON.iter().map(|one| listen(*one as i32)).collect::<std::io::Result<_>>()? })
        }

        /// The next one. Who sent it is not told here: in the terminal's foreground it is taken
        /// to be the terminal.
        pub async fn next(&mut self) -> Caught {
            let number = std::future::poll_fn(|cx| {
                for (number, signal) in &mut self.each {
                    if signal.poll_recv(cx).is_ready() {
                        return std::task::Poll::Ready(*number);
                    }
                }
                std::task::Poll::Pending
            })
            .await;
            let foreground =
                nix::unistd::tcgetpgrp(std::io::stdin()).is_ok_and(|group| group == nix::unistd::getpgrp());
            let typed = [nix::libc::SIGINT, nix::libc::SIGQUIT].contains(&number);
            Caught { number, from_terminal: foreground && typed }
        }
    }
}

pub use system::Signals;
