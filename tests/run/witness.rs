//! Witnesses of the kernel: who lives, and who uses a resource at the same time as another.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::common::wait::{eventually, until};
use super::common::witness::children_of;
use super::shown;

/// A FIFO that everything of a command keeps open as descriptor 9. The kernel tells when the last
/// process that has it open is gone. Unlike the harness's it can be looked at whenever a test wants,
/// also before anybody has it open.
pub struct Fifo {
    _dir: tempfile::TempDir,
    path: PathBuf,
    file: File,
    heard: Vec<u8>,
}

impl Fifo {
    /// Made and opened for reading.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let path = dir.path().join("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO can be made");
        let flags = nix::fcntl::OFlag::O_NONBLOCK.bits();
        let file = File::options().read(true).custom_flags(flags).open(&path).expect("a FIFO can be opened");
        Self { _dir: dir, path, file, heard: Vec::new() }
    }

    /// The script, with the FIFO open in all of it.
    pub fn script(&self, script: &str) -> String {
        format!("exec 9>{}; {script}", shown(&self.path))
    }

    /// Reads what is there; answers whether somebody has it open.
    pub fn is_open(&mut self) -> bool {
        let mut bytes = [0; 4096];
        loop {
            match self.file.read(&mut bytes) {
                Ok(0) => return false,
                Ok(count) => self.heard.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return true,
                Err(error) => panic!("the FIFO cannot be read: {error}"),
            }
        }
    }

    /// Everything that was written into it.
    pub fn heard(&mut self) -> String {
        self.is_open();
        String::from_utf8_lossy(&self.heard).into_owned()
    }

    /// Waits until every one of these letters was written into it.
    #[track_caller]
    pub fn wait_for(&mut self, letters: &str) {
        until(&format!("{letters:?} in the FIFO"), || {
            let heard = self.heard();
            letters.chars().all(|letter| heard.contains(letter))
        });
    }

    /// Waits until nobody has it open.
    #[track_caller]
    pub fn all_gone(&mut self) {
        until("everything of the command is gone", || !self.is_open());
    }
}

/// A script that writes the moment into the FIFO again and again, each on a line, in hundredths of
/// a second of the clock that [`leasehold::clock::boot_now`] reads.
pub const TICKS: &str = "while :; do read now rest </proc/uptime; echo $now >&9; sleep 0.05; done";

/// The last moment that [`TICKS`] wrote, in milliseconds.
#[track_caller]
pub fn last_tick_ms(heard: &str) -> u64 {
    let last = heard.lines().rev().find_map(|line| {
        let (seconds, hundredths) = line.trim_matches(|c: char| !c.is_ascii_digit()).split_once('.')?;
        Some(seconds.parse::<u64>().ok()? * 1_000 + hundredths.parse::<u64>().ok()? * 10)
    });
    last.unwrap_or_else(|| panic!("no tick in {heard:?}"))
}

/// A directory in which commands prove that each had its resource for itself: a lock that the
/// whole tree holds, and the fence of the last one.
pub struct Exclusive {
    dir: tempfile::TempDir,
}

impl Exclusive {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary directory can be made") }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A script that uses the phone while it does `then`. Exits with 98 or 99, and leaves a line,
    /// when it was not alone or its fence is no higher than the one before.
    pub fn script(&self, then: &str) -> String {
        let dir = shown(self.path());
        format!(
            "cd {dir}; p=$LEASEHOLD_PHONE_NAME; exec 8>>$p.lock; \
             flock -n 8 || {{ echo $p is shared >>wrong; exit 99; }}; \
             last=$(cat $p.fence 2>/dev/null || echo 0); \
             [ $LEASEHOLD_FENCE -gt $last ] || {{ echo $p: $LEASEHOLD_FENCE after $last >>wrong; exit 98; }}; \
             echo $LEASEHOLD_FENCE >$p.fence; echo $p $LEASEHOLD_FENCE >>used; {then}"
        )
    }

    /// The uses so far, each as `resource fence`. Panics where one was wrong.
    #[track_caller]
    pub fn uses(&self) -> Vec<String> {
        let wrong = std::fs::read_to_string(self.path().join("wrong")).unwrap_or_default();
        assert_eq!(wrong, "", "commands were not alone");
        let used = std::fs::read_to_string(self.path().join("used")).unwrap_or_default();
        used.lines().map(str::to_owned).collect()
    }

    /// Makes the file `name`, which a script may wait for.
    pub fn touch(&self, name: &str) {
        std::fs::write(self.path().join(name), "").expect("a temporary file can be written");
    }
}

/// Shell for waiting until the file `name` is there.
pub fn await_file(name: &str) -> String {
    format!("while [ ! -e {name} ]; do sleep 0.05; done")
}

/// The guard of a `run`.
#[track_caller]
pub fn guard_of(run: u32) -> nix::unistd::Pid {
    let guard = eventually("run has a guard", || {
        children_of(run).into_iter().find(|pid| {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("leasehold-guard"))
        })
    });
    nix::unistd::Pid::from_raw(guard)
}
