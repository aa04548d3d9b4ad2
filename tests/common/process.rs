//! A process of the binary under test, with everything it prints kept as it comes.
//!
//! It is killed when its value is dropped, so that a failed test leaves nothing behind. Its
//! environment is empty but for what is set here: whatever CI or developer runs the tests, the
//! binary sees the same.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use leasehold::clock::boot_now;
use nix::sys::signal::{SigHandler, Signal};
use nix::unistd::Pid;

use super::wait::{self, PATIENCE};

/// A command line of the binary under test in a clean environment: `PATH`, `HOME` (which is
/// `home`) and `USER=tester`, nothing else.
pub fn leasehold(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_leasehold"));
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home)
        .env("USER", "tester")
        .env("RUST_BACKTRACE", "1");
    command
}

/// How a process ended and what it printed.
#[derive(Clone, Debug)]
pub struct Output {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// All of its stdout.
    pub stdout: String,
    /// All of its stderr.
    pub stderr: String,
}

impl Output {
    /// Itself, when the exit code is `code`; else panics with what it printed.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Its stdout, read as one JSON value.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("stdout is no JSON: {error}\n{}\nstderr:\n{}", self.stdout, self.stderr))
    }
}

/// A running process.
pub struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    /// What it printed to stdout, so far.
    pub stdout: Lines,
    /// What it printed to stderr, so far.
    pub stderr: Lines,
    ended: Option<ExitStatus>,
}

/// Takes back that SIGINT and SIGQUIT are ignored, which whoever started the tests in the background
/// of a script has left to them and they would leave to every process they start.
#[expect(unsafe_code, reason = "the default action is no handler, so none can be unsafe")]
fn heed_interrupts() {
    for signal in [Signal::SIGINT, Signal::SIGQUIT] {
        // SAFETY: as above; no code of this process runs on the signal.
        unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) }.expect("both signals have a default action");
    }
}

impl Process {
    /// Starts `command` with pipes for all three streams, in a process group of its own: tests stop
    /// and kill what stands in it, and the kernel hangs up on a whole group that is left behind by
    /// its last parent with a stopped process in it, which must not be the tests' group.
    pub fn start(command: &mut Command) -> Self {
        heed_interrupts();
        let mut child = command
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary under test can be started");
        let stdin = child.stdin.take();
        let stdout = Lines::of(child.stdout.take().expect("stdout is a pipe"));
        let stderr = Lines::of(child.stderr.take().expect("stderr is a pipe"));
        Self { child, stdin, stdout, stderr, ended: None }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal. One that has been waited for gets none: its number may be another's.
    pub fn signal(&mut self, signal: Signal) {
        if self.poll().is_none() {
            let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a process id fits"));
            nix::sys::signal::kill(pid, signal).expect("a child that was not reaped takes signals");
        }
    }

    /// Writes to its stdin.
    pub fn write(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().expect("stdin was not closed yet");
        stdin.write_all(text.as_bytes()).expect("the process reads its stdin");
    }

    /// Closes its stdin.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// How it ended, if it has.
    pub fn poll(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("a child can be waited for");
        }
        self.ended
    }

    /// Waits until it has ended and all it printed is read. Panics, with what it printed, when
    /// that takes longer than [`PATIENCE`].
    #[track_caller]
    pub fn wait(&mut self) -> Output {
        self.wait_within(PATIENCE)
            .unwrap_or_else(|| panic!("still running after {PATIENCE:?}; stderr:\n{}", self.stderr.text()))
    }

    /// The same with a limit of the test's own; `None` when it still runs.
    pub fn wait_within(&mut self, limit: Duration) -> Option<Output> {
        self.stdin = None;
        let status = wait::within(limit, || self.poll())?;
        // A grandchild may keep the pipes open; what it prints later is not this process's.
        self.stdout.wait_end(Duration::from_secs(2));
        self.stderr.wait_end(Duration::from_secs(2));
        Some(Output { code: status.code(), stdout: self.stdout.text(), stderr: self.stderr.text() })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.poll().is_none() {
            // Fails only where it ended by itself meanwhile.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Runs a command line to its end.
#[track_caller]
pub fn run(command: &mut Command) -> Output {
    let mut process = Process::start(command);
    process.wait()
}

/// `leasehold` with arguments and no broker: for help, completions and usage errors.
#[track_caller]
pub fn leasehold_alone<S: AsRef<OsStr>>(args: &[S]) -> Output {
    let home = tempfile::tempdir().expect("a temporary directory can be made");
    run(leasehold(home.path()).args(args))
}

/// The lines of a stream, read by a thread of their own as they come.
#[derive(Clone)]
pub struct Lines(Arc<(Mutex<Heard>, Condvar)>);

#[derive(Default)]
struct Heard {
    lines: Vec<String>,
    ended: bool,
    /// How many lines [`Lines::next`] has handed out.
    taken: usize,
}

impl Lines {
    fn of(stream: impl Read + Send + 'static) -> Self {
        let lines = Self(Arc::new((Mutex::new(Heard::default()), Condvar::new())));
        let writer = lines.clone();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stream);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
                writer.change(|heard| heard.lines.push(text));
                line.clear();
            }
            writer.change(|heard| heard.ended = true);
        });
        lines
    }

    fn locked(&self) -> MutexGuard<'_, Heard> {
        self.0.0.lock().expect("no reader of a stream panics")
    }

    fn change(&self, change: impl FnOnce(&mut Heard)) {
        change(&mut self.locked());
        self.0.1.notify_all();
    }

    /// Everything so far, with its line ends.
    pub fn text(&self) -> String {
        self.locked().lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// The next line that [`Self::next`] has not answered yet; `None` at the stream's end.
    /// Panics when none comes within [`PATIENCE`].
    #[track_caller]
    pub fn next(&self) -> Option<String> {
        let found = self.watch(PATIENCE, |heard| {
            let line = heard.lines.get(heard.taken).cloned();
            heard.taken += usize::from(line.is_some());
            line
        });
        found.unwrap_or_else(|()| panic!("no further line in {PATIENCE:?}; so far:\n{}", self.text()))
    }

    /// The first line, of all there are and will be, that contains `part`. Panics when the stream
    /// ends or [`PATIENCE`] is over without one.
    #[track_caller]
    pub fn wait_for(&self, part: &str) -> String {
        self.find(PATIENCE, part).unwrap_or_else(|| panic!("never printed {part:?}; printed:\n{}", self.text()))
    }

    /// The same with a limit of the test's own.
    pub fn find(&self, limit: Duration, part: &str) -> Option<String> {
        self.watch(limit, |heard| heard.lines.iter().find(|line| line.contains(part)).cloned()).ok().flatten()
    }

    /// Whether a line contains `part` so far.
    pub fn has(&self, part: &str) -> bool {
        self.locked().lines.iter().any(|line| line.contains(part))
    }

    fn wait_end(&self, limit: Duration) {
        // Not ended in time: what is there is what there is.
        let _ = self.watch::<()>(limit, |_| None);
    }

    /// Answers what `look` finds, `Ok(None)` when the stream ended without it, `Err` at the limit.
    fn watch<T>(&self, limit: Duration, mut look: impl FnMut(&mut Heard) -> Option<T>) -> Result<Option<T>, ()> {
        let deadline = boot_now().plus(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
        let mut heard = self.locked();
        loop {
            if let Some(found) = look(&mut heard) {
                return Ok(Some(found));
            }
            if heard.ended {
                return Ok(None);
            }
            let left_ms = deadline.since(boot_now());
            if left_ms == 0 {
                return Err(());
            }
            let wait = self.0.1.wait_timeout(heard, Duration::from_millis(left_ms));
            heard = wait.expect("no reader of a stream panics").0;
        }
    }
}
