//! Signals to `run` reach its command, once each, and end a wait.

use std::process::Command;

use nix::sys::signal::Signal;

use super::common::broker::Broker;
use super::common::process::Process;
use super::common::wait::until;
use super::witness::{Fifo, await_file};
use super::{ONE_PHONE, all_free, run, shown};

#[test]
fn a_signal_is_passed_on_once() {
    let broker = Broker::with_inventory(ONE_PHONE);
    let go = broker.dir().join("go");
    for (signal, letter) in
        [(Signal::SIGINT, "i"), (Signal::SIGTERM, "t"), (Signal::SIGHUP, "h"), (Signal::SIGUSR1, "u")]
    {
        let mut fifo = Fifo::new();
        let traps = "trap 'printf i >&9' INT; trap 'printf t >&9' TERM; trap 'printf h >&9' HUP; \
            trap 'printf u >&9' USR1; printf a >&9";
        let script = format!("{traps}; {}; exit 7", await_file(&shown(&go)));
        let mut run = run(&broker, &[], &fifo.script(&script));
        fifo.wait_for("a");
        run.signal(signal);
        fifo.wait_for(letter);
        std::fs::write(&go, "").expect("a temporary file can be written");
        run.wait().exits(7);
        assert_eq!(fifo.heard(), format!("a{letter}"));
        std::fs::remove_file(&go).expect("a file that was made can be removed");
    }
}

#[test]
fn a_command_that_dies_of_a_signal_makes_run_say_so() {
    let broker = Broker::with_inventory(ONE_PHONE);
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let mut run = run(&broker, &[], "echo here; exec sleep 1000");
        run.stdout.wait_for("here");
        run.signal(signal);
        run.wait().exits(code);
        assert!(all_free(&broker));
    }
}

#[test]
fn a_signal_ends_the_wait_and_the_place_in_the_queue() {
    let broker = Broker::with_inventory(ONE_PHONE);
    let mut holder = broker.session("holder@desk");
    holder.lease(&["phone"]);
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143), (Signal::SIGHUP, 129)] {
        let mut waiting = run(&broker, &[], "echo started");
        waiting.stderr.wait_for("waiting, place 1");
        waiting.signal(signal);
        assert_eq!(waiting.wait().exits(code).stdout, "");
        assert!(broker.sh("queue --json").exits(0).json().as_array().is_some_and(Vec::is_empty));
    }
}

/// `script` gives its command a terminal, and types what it reads.
#[test]
fn what_the_terminal_sends_reaches_the_command_once_and_the_terminal_is_its_own() {
    let broker = Broker::with_inventory(ONE_PHONE);
    let go = broker.dir().join("go");
    let traps = "trap 'echo caught-$((n=n+1))' INT; [ -t 0 ] && [ -t 1 ] && read line && echo read-$line";
    let command_script = format!("{traps}; {}; echo n=$n; exit 7", await_file(&shown(&go)));
    let script = broker.dir().join("command.sh");
    std::fs::write(&script, command_script).expect("a temporary file can be written");
    let leasehold = env!("CARGO_BIN_EXE_leasehold");
    let line = format!("exec {leasehold} run -n phone -- sh {}", shown(&script));
    let mut command = Command::new("script");
    command.args(["-q", "-e", "-c", &line, "/dev/null"]).env("LEASEHOLD_URL", broker.url()).env("SHELL", "/bin/sh");
    let mut terminal = Process::start(&mut command);
    terminal.write("words\n");
    terminal.stdout.wait_for("read-words");
    terminal.write("\x03");
    terminal.stdout.wait_for("caught-1");
    std::fs::write(&go, "").expect("a temporary file can be written");
    terminal.stdout.wait_for("n=1");
    until("it has ended", || terminal.poll().is_some());
    terminal.wait().exits(7);
    assert!(all_free(&broker));
}
