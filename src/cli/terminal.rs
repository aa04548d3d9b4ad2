//! What people see while a command works: lines on stderr, and on a terminal one live line.
//!
//! Printing happens on a thread of its own: a terminal that was paused with Ctrl-S, or a pipe that
//! nobody reads, must not keep a lease from being renewed. What cannot be printed is dropped.

use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp};

/// Lines that may wait for a reader; beyond it they are dropped.
const LINES_MAX: usize = 256;
/// How long the end waits for what was said to be printed.
const FLUSH: Duration = Duration::from_millis(500);

enum Said {
    Line(String),
    /// Replaces the live line; `None` takes it away.
    Live(Option<String>),
    Flush(SyncSender<()>),
}

/// Says things on stderr without ever waiting.
#[derive(Clone, Debug)]
pub struct Messages {
    said: SyncSender<Said>,
    live: bool,
}

impl Messages {
    /// Begins; `live` lines are shown only where stderr is a terminal.
    #[must_use]
    pub fn to_stderr() -> Self {
        let (said, inbox) = sync_channel(LINES_MAX);
        let live = std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let printer = std::thread::Builder::new().name("messages".to_owned());
        // Without a thread nothing is printed, which is no reason not to work.
        let _ = printer.spawn(move || print(&inbox));
        Self { said, live }
    }

    /// A line, behind the name of the program.
    pub fn line(&self, text: impl Into<String>) {
        let _ = self.said.try_send(Said::Line(text.into()));
    }

    /// Whether there is a live line to show.
    #[must_use]
    pub const fn has_live(&self) -> bool {
        self.live
    }

    /// Shows `text` in the place of the live line before.
    pub fn live(&self, text: impl Into<String>) {
        if self.live {
            let _ = self.said.try_send(Said::Live(Some(text.into())));
        }
    }

    /// Takes the live line away.
    pub fn live_over(&self) {
        if self.live {
            let _ = self.said.try_send(Said::Live(None));
        }
    }

    /// Waits a little for everything said to be printed. A terminal that takes nothing is not
    /// waited for.
    pub fn flush(&self) {
        let (done, printed) = sync_channel(1);
        if self.said.try_send(Said::Flush(done)).is_ok() {
            match printed.recv_timeout(FLUSH) {
                Ok(()) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
    }
}

fn print(inbox: &Receiver<Said>) {
    let mut stderr = std::io::stderr();
    let mut shown = false;
    while let Ok(said) = inbox.recv() {
        let mut text = String::new();
        if std::mem::take(&mut shown) {
            text.push_str("\r\x1b[K");
        }
        match said {
            Said::Line(line) => line.lines().for_each(|line| {
                text.push_str("leasehold: ");
                text.push_str(&clean(line));
                text.push('\n');
            }),
            Said::Live(Some(line)) => {
                text.push_str(&fitted(&line, width()));
                shown = true;
            }
            Said::Live(None) => {}
            Said::Flush(done) => {
                let _ = done.send(());
            }
        }
        // Where stderr is closed there is nobody to tell.
        let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
    }
}

fn width() -> usize {
    rustix::termios::tcgetwinsize(std::io::stderr()).map_or(80, |size| usize::from(size.ws_col)).max(20)
}

/// What others chose (owners, notes, jobs) must not steer the terminal.
fn clean(line: &str) -> String {
    line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A live line must not wrap, or its next version cannot take its place.
fn fitted(line: &str, width: usize) -> String {
    let clean = clean(line);
    if clean.chars().count() < width {
        return clean;
    }
    clean.chars().take(width.saturating_sub(2)).chain(['…']).collect()
}

/// The modes of the terminal and who is in its foreground, to be put back at the end: a command
/// that was killed cannot tidy up after itself.
#[derive(Debug)]
pub struct TerminalState {
    modes: Termios,
    foreground: Pid,
}

impl TerminalState {
    /// As they are now; `None` where stdin is no terminal, or another's at present.
    #[must_use]
    pub fn save() -> Option<Self> {
        let stdin = std::io::stdin();
        let foreground = tcgetpgrp(stdin.as_fd()).ok()?;
        (foreground == getpgrp()).then_some(())?;
        Some(Self { modes: tcgetattr(stdin.as_fd()).ok()?, foreground })
    }

    /// Puts them back.
    pub fn restore(&self) {
        let stdin = std::io::stdin();
        let stop: SigSet = std::iter::once(Signal::SIGTTOU).collect();
        // Held back, this signal does not stop a process that is in the background by now.
        let Ok(before) = stop.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK) else { return };
        let _ = tcsetpgrp(stdin.as_fd(), self.foreground);
        let _ = tcsetattr(stdin.as_fd(), SetArg::TCSANOW, &self.modes);
        let _ = before.thread_set_mask();
    }
}

#[cfg(test)]
mod tests {
    use super::fitted;

    #[test]
    fn a_live_line_neither_wraps_nor_steers_the_terminal() {
        assert_eq!(fitted("place 3\x1b[2J", 80), "place 3 [2J");
        assert_eq!(fitted("0123456789", 8), "012345…");
        assert_eq!(fitted("0123456", 8), "0123456");
    }
}
