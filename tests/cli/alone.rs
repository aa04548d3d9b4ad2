//! What needs no broker: help, completions, usage errors, and saying that there is no broker.

use std::io::{Read, Write};
use std::net::TcpListener;

use super::common::process::{Output, leasehold_alone};

/// Every command of an admin, each in its simplest form.
const COMMANDS: &[&str] = &[
    "status",
    "resource ls",
    "resource show x",
    "resource match phone",
    "resource set x --pool phone",
    "resource rm x",
    "resource drain x",
    "resource history x",
    "lease ls",
    "lease show 1",
    "lease revoke 1",
    "queue",
    "queue ls",
    "queue cancel c1",
    "session ls",
    "session kick s1",
    "why c1",
    "events",
    "events --follow",
    "bench",
];

fn alone(line: &str) -> Output {
    leasehold_alone(&line.split_whitespace().collect::<Vec<_>>())
}

#[test]
fn help_and_completions_need_no_broker() {
    for line in ["--help", "completions bash", "completions zsh", "completions fish", "man", "man resource"] {
        let output = alone(line).exits(0);
        assert!(output.stdout.contains("leasehold"), "{line}: {}", output.stdout);
        assert_eq!(output.stderr, "", "{line}");
    }
}

#[test]
fn every_command_has_help_that_says_what_it_does() {
    for line in COMMANDS {
        let words: Vec<&str> = line.split(' ').take_while(|word| *word != "x").collect();
        let command = words.iter().take(2).copied().filter(|word| word.chars().all(char::is_alphabetic));
        let help = alone(&format!("{} --help", command.collect::<Vec<_>>().join(" "))).exits(0).stdout;
        assert!(help.contains("Usage: leasehold"), "{line}: {help}");
        assert!(help.lines().next().is_some_and(|first| first.len() > 15), "{line}: {help}");
    }
    let help = alone("--help").exits(0).stdout;
    for name in ["resource", "lease", "queue", "session", "why", "events", "status", "store", "bench"] {
        let line = help.lines().find(|line| line.trim_start().starts_with(&format!("{name} ")));
        assert!(line.is_some_and(|line| line.trim().len() > name.len() + 10), "{name} is not told in\n{help}");
    }
}

#[test]
fn without_a_broker_every_command_exits_125_and_says_where_it_looked() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = listener.local_addr().expect("it is bound").port();
    drop(listener);
    for line in COMMANDS {
        let output = alone(&format!("--url ws://127.0.0.1:{port} {line}")).exits(125);
        assert!(output.stderr.contains(&port.to_string()), "{line}: {}", output.stderr);
        assert_eq!(output.stdout, "", "{line}");
    }
}

#[test]
fn somebody_else_on_the_port_is_told_as_such() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = listener.local_addr().expect("it is bound").port();
    let other = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the command connects");
        let mut head = [0_u8; 1_024];
        let read = stream.read(&mut head).expect("it asks");
        let page = "HTTP/1.1 502 Bad Gateway\r\nServer: other\r\nContent-Length: 11\r\n\r\n<h1>no</h1>";
        stream.write_all(page.as_bytes()).expect("it reads");
        read
    });
    let output = alone(&format!("--url http://127.0.0.1:{port} status")).exits(125);
    assert!(output.stderr.contains("502") && output.stderr.contains("other"), "{}", output.stderr);
    assert!(other.join().expect("the other server answered") > 0);
}

#[test]
fn what_cannot_be_read_is_a_usage_error() {
    for (line, part) in [
        ("resource", "Usage"),
        ("resource frobnicate", "frobnicate"),
        ("resource set x", "--pool"),
        ("resource set x --pool p --slots 0", "slots"),
        ("resource set x --pool p --label noequals", "KEY=VALUE"),
        ("resource set x --pool p --label a=1 --label a=2", "twice"),
        ("resource drain", "NAME"),
        ("lease show seven", "seven"),
        ("queue cancel s7", "claim"),
        ("session kick c7", "session"),
        ("bench --duration 10", "10"),
        ("bench --mode sideways", "cycle"),
        ("--url lab:5327 status", "scheme"),
    ] {
        let output = alone(line).exits(2);
        assert!(output.stderr.contains(part), "{line}: {}", output.stderr);
        assert_eq!(output.stdout, "", "{line}");
    }
}
