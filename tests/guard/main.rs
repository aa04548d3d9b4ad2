//! The guard, driven without a broker: whatever the command does, nothing of it survives.
//!
//! Each test plays `run`: it starts the real binary as a guard and talks to it over the socket.
//! A command proves that it is there by what it writes into a FIFO, and that it is gone by the
//! end of that FIFO: the kernel closes it with the last process that has it open, so nothing is
//! waited for by the clock.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[expect(dead_code, reason = "every test binary uses its own part of the harness")]
#[path = "../common/mod.rs"]
mod common;

use std::fs::File;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::Path;

use leasehold::cli::run::guard::talk::{Deadline, Lines, Order, Start, Word};
use leasehold::cli::run::handle::GuardHandle;
use leasehold::cli::run::tree::Ended;
use leasehold::clock::boot_now;
use nix::sys::signal::Signal;

use common::wait::PATIENCE;
use common::witness::{FAMILY, Fifo, Held};

struct Played {
    guard: Option<GuardHandle>,
    lines: Lines,
    words: Vec<Word>,
}

impl Played {
    fn new() -> Self {
        let guard = GuardHandle::spawn(Path::new(env!("CARGO_BIN_EXE_leasehold"))).unwrap();
        guard.socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { guard: Some(guard), lines: Lines::default(), words: Vec::new() }
    }

    fn tell(&mut self, order: Order) {
        self.guard.as_mut().unwrap().tell(&order).unwrap();
    }

    fn start(&mut self, script: &str, change: impl FnOnce(&mut Start)) {
        let mut start = Start {
            command: ["sh", "-c", script].map(Into::into).to_vec(),
            group: nix::unistd::getpgrp().as_raw(),
            leftover_grace_ms: 100,
            ..Start::default()
        };
        change(&mut start);
        self.tell(Order::Start(Box::new(start)));
    }

    fn word(&mut self) -> Word {
        while self.words.is_empty() {
            let mut bytes = [0; 4096];
            let socket: &mut UnixStream = &mut self.guard.as_mut().unwrap().socket;
            let count = match socket.read(&mut bytes) {
                // A machine that stood still in between.
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                read => read.expect("the guard answers"),
            };
            assert!(count > 0, "the guard left without a word");
            self.words = self.lines.push(&bytes[..count]);
        }
        self.words.remove(0)
    }

    fn started(&mut self) -> i32 {
        match self.word() {
            Word::Started { pid } => pid,
            other => panic!("expected the command to start, got {other:?}"),
        }
    }

    fn ended(&mut self) -> (Ended, bool) {
        match self.word() {
            Word::Ended { status, by_deadline, left } => {
                assert_eq!(left, Vec::<i32>::new());
                (status, by_deadline)
            }
            other => panic!("expected the command to end, got {other:?}"),
        }
    }

    /// As `kill -9` of `run` does.
    fn vanish(&mut self) -> i32 {
        let guard = self.guard.take().unwrap();
        guard.pid
    }
}

/// A FIFO that everything of a command keeps open as descriptor 9, in a folder of its own.
struct Witness {
    dir: tempfile::TempDir,
    fifo: Fifo,
}

impl Witness {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fifo = Fifo::make(&dir.path().join("fifo"));
        Self { dir, fifo }
    }

    fn path(&self) -> &Path {
        self.fifo.path()
    }

    /// The script, with the FIFO open in all of it.
    fn script(&self, script: &str) -> String {
        format!("exec 9>{}; {script}", self.fifo.display())
    }

    /// Waits until so many processes have announced themselves by a letter.
    fn meet(&self, letters: usize) -> Held {
        self.fifo.meet(letters)
    }
}

fn wait_for(pid: i32) {
    nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None).unwrap();
}

#[test]
fn a_command_ends_with_its_own_code_or_signal() {
    for (script, expected) in [("exit 7", Ended::Code(7)), ("true", Ended::Code(0)), ("kill -9 $$", Ended::Signal(9))] {
        let mut run = Played::new();
        run.start(script, |_| {});
        run.started();
        assert_eq!(run.ended(), (expected, false), "{script}");
        run.tell(Order::Done);
        wait_for(run.vanish());
    }
}

#[test]
fn nothing_survives_when_run_is_killed() {
    let witness = Witness::new();
    let mut run = Played::new();
    run.start(&witness.script(FAMILY), |_| {});
    let held = witness.meet(5);
    let guard = run.vanish();
    held.wait();
    wait_for(guard);
}

#[test]
fn nothing_survives_the_deadline() {
    let witness = Witness::new();
    let mut run = Played::new();
    run.start(&witness.script(FAMILY), |_| {});
    run.started();
    let held = witness.meet(5);
    let now = boot_now();
    let deadline = Deadline { terminate_at: now.plus(200), deadline: now.plus(600) };
    run.tell(Order::Deadline(deadline));
    held.wait();
    let (_, by_deadline) = run.ended();
    assert!(by_deadline);
    assert!(boot_now() >= deadline.terminate_at);
    run.tell(Order::Done);
    wait_for(run.vanish());
}

#[test]
fn a_later_promise_moves_the_deadline() {
    let mut run = Played::new();
    let now = boot_now();
    let near = Deadline { terminate_at: now.plus(500), deadline: now.plus(1_000) };
    let far = Deadline { terminate_at: now.plus(600_000), deadline: now.plus(700_000) };
    run.start("sleep 1; exit 3", |start| start.deadline = Some(near));
    run.tell(Order::Deadline(far));
    run.started();
    assert_eq!(run.ended(), (Ended::Code(3), false));
}

#[test]
fn what_the_command_leaves_behind_ends_with_it() {
    let witness = Witness::new();
    let mut run = Played::new();
    let script = "printf a >&9; (setsid sh -c '(trap \"\" TERM; printf b >&9; while :; do sleep 1000; done) &' &); \
        while [ ! -e go ]; do sleep 0.05; done; exit 4";
    let script = format!("cd {}; {script}", witness.dir.path().display());
    run.start(&witness.script(&script), |_| {});
    let held = witness.meet(2);
    std::fs::write(witness.dir.path().join("go"), "").unwrap();
    held.wait();
    run.started();
    assert_eq!(run.ended(), (Ended::Code(4), false));
}

#[test]
fn an_order_to_stop_gives_the_grace_and_no_more() {
    let witness = Witness::new();
    let mut run = Played::new();
    run.start(&witness.script("trap 'printf t >&9; exit 5' TERM; printf a >&9; while :; do sleep 0.05; done"), |_| {});
    let held = witness.meet(1);
    run.started();
    run.tell(Order::Stop { grace_ms: 600_000, lost: false });
    held.wait();
    assert_eq!(run.ended(), (Ended::Code(5), false));

    let mut stubborn = Played::new();
    let witness = Witness::new();
    stubborn.start(&witness.script("trap '' TERM; printf a >&9; while :; do sleep 1000; done"), |_| {});
    let held = witness.meet(1);
    stubborn.started();
    stubborn.tell(Order::Stop { grace_ms: 50, lost: false });
    held.wait();
    assert_eq!(stubborn.ended(), (Ended::Signal(9), false));
}

#[test]
fn a_stopped_command_hears_that_it_is_to_end() {
    let witness = Witness::new();
    let mut run = Played::new();
    run.start(&witness.script("trap 'exit 6' TERM; printf a >&9; kill -STOP $$; while :; do sleep 0.05; done"), |_| {});
    let held = witness.meet(1);
    run.started();
    run.tell(Order::Stop { grace_ms: 600_000, lost: false });
    held.wait();
    assert_eq!(run.ended(), (Ended::Code(6), false));
}

#[test]
fn signals_are_passed_on_to_the_command() {
    let witness = Witness::new();
    let mut run = Played::new();
    run.start(&witness.script("trap 'exit 8' HUP; printf a >&9; while :; do sleep 0.05; done"), |_| {});
    let held = witness.meet(1);
    run.started();
    run.tell(Order::Signal(1));
    held.wait();
    assert_eq!(run.ended(), (Ended::Code(8), false));
}

#[test]
fn what_cannot_be_started_has_a_shells_code() {
    for (program, expected) in [("/no/such/program", 127), ("no-such-program-anywhere", 127), ("/etc", 126)] {
        let mut run = Played::new();
        run.start("", |start| start.command = vec![program.into()]);
        match run.word() {
            Word::NotStarted { code, message } => {
                assert_eq!(code, expected, "{message}");
                assert!(message.contains(program), "{message}");
            }
            other => panic!("{program} was started: {other:?}"),
        }
    }
}

#[test]
fn the_command_has_the_leases_environment_and_runs_own_group() {
    let witness = Witness::new();
    let mut run = Played::new();
    let script = "echo \"$GIVEN\" \"${PATH+set}\" \"${HOME-unset}\" $(ps -o pgid= -p $$) >&9";
    run.start(&witness.script(script), |start| {
        start.environment.insert("GIVEN".into(), "a b".into());
        start.removed.push("HOME".into());
    });
    let mut text = String::new();
    File::open(witness.path()).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, format!("a b set unset {}\n", nix::unistd::getpgrp()));
    run.started();
    assert_eq!(run.ended(), (Ended::Code(0), false));
}

#[test]
fn the_command_holds_back_what_run_was_started_holding_back() {
    // Not by way of a shell: some clear the mask.
    for (blocked, mask) in [(vec![], "0000000000000000\n"), (vec![Signal::SIGUSR2], "0000000000000800\n")] {
        let witness = Witness::new();
        let mut run = Played::new();
        let program = format!("/^SigBlk/ {{ print $2 >\"{}\" }}", witness.path().display());
        run.start("", |start| {
            start.command = ["awk", &program, "/proc/self/status"].map(Into::into).to_vec();
            start.blocked = blocked.iter().map(|signal: &Signal| *signal as i32).collect();
        });
        let mut text = String::new();
        File::open(witness.path()).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, mask);
    }
}

#[test]
fn the_hook_runs_when_the_lease_is_lost_and_is_no_part_of_the_tree() {
    let witness = Witness::new();
    let mut run = Played::new();
    let told = witness.dir.path().join("told");
    let hook = format!("sleep 0.3; printf \"$LEASE\" >{}", told.display());
    run.start(&witness.script("printf a >&9; sleep 1000"), |start| {
        start.on_lost = Some(hook);
        start.environment.insert("LEASE".into(), "17".into());
    });
    let held = witness.meet(1);
    run.started();
    run.tell(Order::Stop { grace_ms: 0, lost: true });
    held.wait();
    // The command is gone at once; its end is told only when the hook has done its work.
    assert_eq!(run.word(), Word::Emptied);
    assert!(matches!(run.ended().0, Ended::Signal(_)));
    assert_eq!(std::fs::read_to_string(&told).unwrap(), "17");
}

#[test]
fn the_hook_does_not_run_when_the_command_just_ends() {
    let witness = Witness::new();
    let told = witness.dir.path().join("told");
    let mut run = Played::new();
    run.start("exit 0", |start| start.on_lost = Some(format!("touch {}", told.display())));
    run.started();
    assert_eq!(run.ended(), (Ended::Code(0), false));
    assert!(!told.exists());
}
