//! The signals by which a broker is told to stop: once for a planned stop, twice for at once.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Failure;

/// SIGTERM, SIGINT and SIGHUP. One that comes while nobody waits is answered to who waits next.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    /// Taken, never looked at: where files may not grow any further, the store's failure says so,
    /// and the broker goes on; by default the system would kill it.
    _file_too_large: Signal,
}

impl Signals {
    /// Takes them from here on.
    ///
    /// # Errors
    /// When the system does not let it.
    pub(super) fn new() -> Result<Self, Failure> {
        let on = |kind| signal(kind).map_err(|error| Failure::refused(format!("cannot listen for signals: {error}")));
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
            hang_up: on(SignalKind::hangup())?,
            _file_too_large: on(SignalKind::from_raw(nix::sys::signal::Signal::SIGXFSZ as i32))?,
        })
    }

    /// The number of the signal that comes next.
    pub(super) async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate().as_raw_value(),
            _ = self.interrupt.recv() => SignalKind::interrupt().as_raw_value(),
            _ = self.hang_up.recv() => SignalKind::hangup().as_raw_value(),
        }
    }
}
