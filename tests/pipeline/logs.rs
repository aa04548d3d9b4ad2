//! Logs from outside: what was acknowledged is there after every death of the broker, and over a full disk.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::Command;

use leasehold::protocol::builds::LogStored;

use super::common::broker::{Broker, reserve_port};
use super::common::http::{self, Answer};
use super::common::process;
use super::common::random::Random;
use super::fake::{Agent, Have, Repo, build, comes_to, end_of, lab, pipeline, setup, start};

/// A build that runs, and who has it.
fn running(broker: &Broker) -> Have {
    start(broker);
    let have = Agent::bring(broker.port(), "rack", 1).take_next();
    have.running();
    have
}

/// Appends, and answers what the broker said; `None` where it was not there, or fell silent.
fn append(have: &Have, port: u16, text: &str, from: usize, to: usize) -> Option<Answer> {
    let bytes = &text[from..to];
    let begins = |at: &usize| *at == 0 || text.as_bytes()[at - 1] == b'\n';
    let lines = (from..to).filter(begins).count();
    let times = if lines > 0 { format!("{lines}+0") } else { String::new() };
    let body = format!("1795775073000;{times}\n{bytes}");
    let head = format!(
        "PATCH /v1/builds/{}/log?attempt={}&offset={from} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\
         leasehold-key: {}\r\nContent-Length: {}\r\n\r\n",
        have.build,
        have.attempt,
        have.key,
        body.len()
    );
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body.as_bytes()).ok()?;
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).ok()?;
    answer.contains("\r\n\r\n").then(|| http::parse(&answer))
}

fn stored(answer: &Answer) -> usize {
    let stored: LogStored = serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("{answer:?}"));
    usize::try_from(stored.bytes).expect("a log of a test is short")
}

fn text_of(broker: &Broker, build: u64, query: &str) -> String {
    let answer = broker.http("GET", &format!("/builds/{build}/log{query}"), None);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

/// Numbered lines, so that one that is missing or there twice is seen.
fn numbered(lines: usize) -> String {
    (1..=lines).map(|number| format!("line {number} of {lines}, and what it says\n")).collect()
}

#[test]
fn what_was_acknowledged_outlives_every_death_of_the_broker() {
    let repo = Repo::new();
    let mut broker = lab(&repo, &pipeline("unit", ""));
    let mut have = running(&broker);
    let text = numbered(60_000);
    let mut random = Random::new(11, 0);
    let mut acknowledged = 0;
    let mut read = String::new();
    let mut deaths = 0;
    while acknowledged < text.len() {
        // Small ones are rows, big ones objects.
        let most = if random.below(4) == 0 { 900_000 } else { 60_000 };
        let to = text.len().min(acknowledged + 1 + random.below(most) as usize);
        if random.below(5) == 0 && deaths < 6 {
            deaths += 1;
            // Sent and not waited for: it may be stored by now, or half of it, or nothing.
            let port = broker.port();
            std::thread::scope(|scope| {
                scope.spawn(|| append(&have, port, &text, acknowledged, to));
                broker.kill9();
            });
            broker.start();
            have.moved(broker.port());
        }
        let answer = append(&have, broker.port(), &text, acknowledged, to).expect("it is there");
        assert!(matches!(answer.status, 200 | 409), "{answer:?}");
        let now = stored(&answer);
        assert!(now >= acknowledged, "{acknowledged} bytes were acknowledged, and {now} are there");
        acknowledged = now;
        // A reader that goes on from where it was sees each byte once.
        read.push_str(&text_of(&broker, have.build, &format!("?offset={}", read.len())));
        assert_eq!(read.len(), acknowledged);
    }
    assert!(deaths > 0);
    assert!(read == text, "what was read in parts is not what was sent");
    have.finished_with("passed", &end_of(&text)).ok();
    let over = comes_to(&broker, have.build, "passed");
    assert_eq!(over["log"], end_of(&text));
    assert!(text_of(&broker, have.build, "") == text, "what is read whole is not what was sent");
}

#[test]
fn a_report_before_all_of_the_log_came_is_to_be_repeated() {
    let repo = Repo::new();
    let broker = lab(&repo, &pipeline("unit", ""));
    let have = running(&broker);
    let text = numbered(10);
    append(&have, broker.port(), &text, 0, 100).expect("it is there");
    let early = have.finished_with("passed", &end_of(&text));
    assert!(!(200..300).contains(&early.status), "{early:?}");
    assert_eq!(build(&broker, have.build)["state"], "running");
    append(&have, broker.port(), &text, 100, text.len()).expect("it is there");
    have.finished_with("passed", &end_of(&text)).ok();
    comes_to(&broker, have.build, "passed");
}

#[test]
fn a_follower_over_a_restart_goes_on_where_it_was() {
    let repo = Repo::new();
    let mut broker = lab(&repo, &pipeline("unit", ""));
    let mut have = running(&broker);
    let text = numbered(4);
    let half = text.len() / 2;
    append(&have, broker.port(), &text, 0, half).expect("it is there");
    let mut follower = follow(broker.port(), have.build, 0);
    let mut seen = read_until(&mut follower, half);
    broker.restart();
    have.moved(broker.port());
    let mut rest = String::new();
    while follower.read_line(&mut rest).is_ok_and(|count| count > 0) {}
    assert!(!rest.contains("\r\n0\r\n"), "it was told an end that is none");
    let mut follower = follow(broker.port(), have.build, seen.len());
    append(&have, broker.port(), &text, half, text.len()).expect("it is there");
    seen.push_str(&read_until(&mut follower, text.len() - half));
    assert_eq!(seen, text);
    have.finished_with("passed", &end_of(&text)).ok();
    let mut rest = String::new();
    while follower.read_line(&mut rest).expect("it ends in good order") > 0 {}
    assert!(rest.ends_with("0\r\n\r\n"), "{rest:?}");
}

/// Follows a log from this byte on; its answer's head is read.
fn follow(port: u16, build: u64, offset: usize) -> BufReader<TcpStream> {
    let mut stream = http::connect(port);
    let ask = format!("GET /builds/{build}/log?follow=1&offset={offset} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    stream.write_all(ask.as_bytes()).expect("the broker reads requests");
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        assert!(reader.read_line(&mut line).expect("an answer") > 0);
    }
    reader
}

/// Reads chunks until they have so many bytes.
fn read_until(reader: &mut BufReader<TcpStream>, bytes: usize) -> String {
    let mut text = String::new();
    while text.len() < bytes {
        let mut length = String::new();
        reader.read_line(&mut length).expect("a chunk");
        let length = usize::from_str_radix(length.trim(), 16).expect("a chunk's length");
        let mut chunk = vec![0; length + 2];
        std::io::Read::read_exact(reader, &mut chunk).expect("a chunk");
        text.push_str(std::str::from_utf8(&chunk[..length]).expect("text"));
    }
    text
}

/// Bounds from outside how far the broker's files may grow: a full disk, as far as it can tell.
fn limit_files(broker: &mut Broker, most: &str) -> bool {
    let pid = broker.process().pid().to_string();
    let mut command = Command::new("prlimit");
    let there = command.args(["--pid", &pid, &format!("--fsize={most}")]).output().is_ok();
    if !there {
        eprintln!("there is no prlimit (util-linux); no disk was full");
    }
    there
}

#[test]
fn a_full_disk_is_outlived() {
    let repo = Repo::new();
    let mut broker = lab(&repo, &pipeline("unit", ""));
    let have = running(&broker);
    let text = numbered(40_000);
    let mut acknowledged = stored(&append(&have, broker.port(), &text, 0, 1_000).expect("it is there"));
    for step in [2_000, 700_000] {
        if !limit_files(&mut broker, "0:") {
            return;
        }
        let to = acknowledged + step;
        let failed = append(&have, broker.port(), &text, acknowledged, to).expect("it is there");
        assert_eq!(failed.status, 503, "{failed:?}");
        assert!(limit_files(&mut broker, "unlimited:"));
        acknowledged = super::common::wait::eventually("the same is taken", || {
            let answer = append(&have, broker.port(), &text, acknowledged, to)?;
            (answer.status == 200).then(|| stored(&answer))
        });
        assert_eq!(acknowledged, to);
        assert!(text_of(&broker, have.build, "") == text[..to]);
    }
    let rest = append(&have, broker.port(), &text, acknowledged, text.len().min(acknowledged + 1_000_000));
    acknowledged = stored(&rest.expect("it is there"));
    have.finished_with("passed", &end_of(&text[..acknowledged])).ok();
    comes_to(&broker, have.build, "passed");
}

#[test]
fn a_bucket_in_the_clear_is_refused_unless_that_is_meant() {
    let repo = Repo::new();
    let setup = setup(&repo, &format!("{}\n[logs]\nurl = \"s3://bucket/prefix\"\n", pipeline("unit", "")));
    let mut broker = setup.env("AWS_ALLOW_HTTP", "true").env("AWS_ENDPOINT_URL", "http://127.0.0.1:9").start();
    broker.term();
    let mut command = broker.serve_command();
    command.env("AWS_ENDPOINT_URL", "http://127.0.0.1:9").env_remove("AWS_ALLOW_HTTP");
    let refused = process::run(&mut command).exits(1);
    assert!(refused.stderr.contains("AWS_ALLOW_HTTP"), "{}", refused.stderr);
}

#[test]
fn a_bucket_that_cannot_be_reached_is_known_before_there_is_a_log() {
    let repo = Repo::new();
    // Nobody listens on what is bound and no more.
    let (_reserved, port) = reserve_port();
    let mut broker = setup(&repo, &format!("{}[logs]\nurl = \"s3://lab-logs/ci\"\n", pipeline("unit", "")))
        .env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}"))
        .env("AWS_ALLOW_HTTP", "true")
        .env("AWS_ACCESS_KEY_ID", "key-id")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        .start();
    let said = broker.process().stderr.wait_for("logs cannot be kept in s3://lab-logs/ci");
    assert!(said.contains(&format!("GET http://127.0.0.1:{port}/lab-logs")), "{said}");
}
