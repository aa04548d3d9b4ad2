//! The one home of OS time and randomness.
//!
//! Everything else is handed the time. Deadlines run on a clock that counts suspended time, as a
//! lease does: ordinary timers only wake, and this clock is read again before each decision.

use std::sync::atomic::{AtomicU64, Ordering};

/// A moment on this machine's clock that counts suspended time, milliseconds since boot. Means
/// nothing in another process after a reboot, and nothing on another machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct BootTime(pub u64);

impl BootTime {
    /// The moment `ms` later; saturates.
    #[must_use]
    pub const fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// The moment `ms` earlier, or boot.
    #[must_use]
    pub const fn minus(self, ms: u64) -> Self {
        Self(self.0.saturating_sub(ms))
    }

    /// How long after `earlier` this is, zero when it is not after it.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Reads the clock that counts suspended time.
#[must_use]
pub fn boot_now() -> BootTime {
    BootTime(boot_now_us() / 1_000)
}

/// The same clock in microseconds, for measuring how long something takes.
#[must_use]
pub fn boot_now_us() -> u64 {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const CLOCK: nix::time::ClockId = nix::time::ClockId::CLOCK_BOOTTIME;
    // macOS's CLOCK_MONOTONIC counts suspended time; the BSDs' does not, and says so in the docs.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const CLOCK: nix::time::ClockId = nix::time::ClockId::CLOCK_MONOTONIC;
    let now = nix::time::clock_gettime(CLOCK).expect("the kernel has this clock since before Rust ran on it");
    u64::try_from(now.tv_sec()).unwrap_or(0) * 1_000_000 + u64::try_from(now.tv_nsec()).unwrap_or(0) / 1_000
}

/// Reads the wall clock, Unix milliseconds. For display, and for what passed while no process ran.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
pub fn wall_now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Draws 256 bits, in hex: a session's secret, a lease's key, an instance.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that draws randomness")]
pub fn random_secret() -> String {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).expect("the kernel gives randomness, or nothing here is safe");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A number for spreading retries out; not for secrets.
#[must_use]
pub fn jitter(below: u64) -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let seed = boot_now().0 ^ (u64::from(std::process::id()) << 32);
    let mut x = LAST.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed) ^ seed;
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (x ^ (x >> 31)).checked_rem(below).unwrap_or(0)
}
