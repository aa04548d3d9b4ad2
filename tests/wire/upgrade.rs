//! Connections that do not become a WebSocket: wrong upgrades, plain and broken HTTP, slow and
//! huge requests, and requests that are not admitted.

use std::io::{Read, Write};
use std::time::Duration;

use serde_json::json;

use super::bystander::{Bystander, LAB};
use super::common::broker::Broker;
use super::common::http::{self, Answer};
use super::common::process::{self, leasehold};

const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[track_caller]
fn assert_problem(answer: &Answer, status: u16, code: &str, names: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer:?}");
    let problem = answer.json();
    assert_eq!((&problem["code"], &problem["status"]), (&json!(code), &json!(status)), "{answer:?}");
    assert_eq!(problem["type"], format!("urn:leasehold:{code}"), "{answer:?}");
    assert!(problem["detail"].as_str().unwrap().contains(names), "{names}: {answer:?}");
}

#[test]
fn what_is_no_upgrade_to_leasehold_v1_is_told_what_to_send() {
    let broker = Broker::with_inventory(LAB);
    let mut bystander = Bystander::of(&broker);
    let v13 = "Sec-WebSocket-Version: 13\r\n";
    let table: &[(String, u16, &str)] = &[
        (format!("GET /v1/ws HTTP/1.1\r\n{UPGRADE}"), 400, "leasehold.v1"),
        (format!("GET /v1/ws HTTP/1.1\r\n{UPGRADE}Sec-WebSocket-Protocol: graphql-ws\r\n"), 400, "leasehold.v1"),
        (format!("GET /v1/ws HTTP/1.1\r\n{UPGRADE}Sec-WebSocket-Protocol: leasehold.v2\r\n"), 400, "leasehold.v1"),
        (format!("GET /v1/ws HTTP/1.1\r\n{}", UPGRADE.replace(v13, "")), 426, "Sec-WebSocket-Version"),
        (format!("GET /v1/ws HTTP/1.1\r\n{}", UPGRADE.replace("13", "8")), 426, "Sec-WebSocket-Version"),
        ("GET /v1/ws HTTP/1.1\r\n".to_owned(), 426, "leasehold.v1"),
        ("POST /v1/ws HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}".to_owned(), 426, "leasehold.v1"),
        ("DELETE /v1/ws HTTP/1.1\r\n".to_owned(), 426, "leasehold.v1"),
        (format!("POST /v1/ws HTTP/1.1\r\n{UPGRADE}Sec-WebSocket-Protocol: leasehold.v1\r\n"), 426, "GET"),
    ];
    for (head, status, names) in table {
        let (first, rest) = head.split_once("\r\n").unwrap();
        let text = format!("{first}\r\nHost: 127.0.0.1:{}\r\n{rest}\r\n", broker.port());
        let answer = http::first_answer(broker.port(), text.as_bytes());
        assert_problem(&answer, *status, "invalid_request", names);
    }
    // Several are offered: the one that is spoken is taken.
    let text = format!(
        "GET /v1/ws HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}Sec-WebSocket-Protocol: graphql-ws, leasehold.v1\r\n\r\n"
    );
    let answer = http::first_answer(broker.port(), text.as_bytes());
    assert_eq!((answer.status, answer.header("sec-websocket-protocol")), (101, Some("leasehold.v1")));
    bystander.unharmed();
}

#[test]
fn what_is_no_http_is_answered_or_closed_at_once() {
    let broker = Broker::with_inventory(LAB);
    let mut bystander = Bystander::of(&broker);
    let many = "X-A: b\r\n".repeat(100);
    let table: &[(&str, Vec<u8>, &str)] = &[
        ("words", b"hello broker, how are you\r\n\r\n".to_vec(), "HTTP/1.1 400 "),
        ("zeros", vec![0; 100], "HTTP/1.1 400 "),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03aaaaaaaaaaaaaaaaaaaaaaaaaaaa".to_vec(), "HTTP/1.1 400 "),
        ("no such version", b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n".to_vec(), "HTTP/1.1 400 "),
        (
            "two lengths",
            b"POST /v1/match HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}".to_vec(),
            "HTTP/1.1 400 ",
        ),
        (
            "a bad length",
            b"POST /v1/match HTTP/1.1\r\nHost: localhost\r\nContent-Length: -2\r\n\r\n{}".to_vec(),
            "HTTP/1.1 400 ",
        ),
        ("a header that is none", b"GET / HTTP/1.1\r\nHost localhost\r\n\r\n".to_vec(), "HTTP/1.1 400 "),
        (
            "a long header",
            format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-A: {}\r\n\r\n", "x".repeat(20_000)).into_bytes(),
            "HTTP/1.1 431 ",
        ),
        (
            "a long path",
            format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(20_000)).into_bytes(),
            "HTTP/1.1 4",
        ),
        (
            "many headers",
            format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{many}\r\n").into_bytes(),
            "HTTP/1.1 431 ",
        ),
    ];
    for (what, bytes, begins) in table {
        let answer = http::exchange(broker.port(), bytes);
        assert!(answer.starts_with(begins), "{what}: {answer:?}");
        bystander.unharmed();
    }
}

#[test]
fn who_does_not_say_what_it_wants_in_time_is_closed() {
    let broker = Broker::with(LAB).config("[limits]\nhandshake_timeout = \"1s\"\n").start();
    let mut bystander = Bystander::of(&broker);
    // Nothing; half a head; and a head that never ends.
    for begun in ["", "GET /healthz HTTP/1.1\r\n", "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-A: "] {
        let mut stream = http::connect(broker.port());
        stream.write_all(begun.as_bytes()).unwrap();
        let mut answer = Vec::new();
        // Ends only because the broker closes: a reset is as good here.
        let _ = stream.read_to_end(&mut answer);
        bystander.unharmed();
    }
    let mut trickle = http::connect(broker.port());
    trickle.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    trickle.write_all(b"GET /healthz HTTP/1.1\r\nX-A: ").unwrap();
    let mut scratch = [0; 1024];
    super::common::wait::until("a head that comes byte by byte is not waited for", || {
        let ended = matches!(trickle.read(&mut scratch), Ok(0))
            || matches!(trickle.read(&mut scratch), Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset);
        ended || trickle.write_all(b"x").is_err()
    });
    // A WebSocket that opens no session is told so.
    let mut client = broker.connect();
    let (code, reason) = client.closed();
    assert_eq!(code, 4002, "{reason}");
    assert!(reason.starts_with("handshake_timeout: ") && reason.contains("session.open"), "{reason}");
    // Nor does one that only refuses to open a right one.
    let mut client = broker.connect();
    assert_eq!(client.refused("lease.list", json!({})), "no_session");
    assert_eq!(client.closed().0, 4002);
    bystander.unharmed();
}

#[test]
fn a_body_over_the_bound_is_refused_and_the_answer_arrives() {
    let broker = Broker::with_inventory(LAB);
    let mut bystander = Bystander::of(&broker);
    let request = |path: &str, size: usize| {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {size}\r\n\r\n"
        );
        let mut stream = http::connect(broker.port());
        stream.write_all(head.as_bytes()).unwrap();
        let body = vec![b'x'; size];
        // The broker may answer and close before it has all.
        let _ = stream.write_all(&body);
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("the answer is not lost to a reset");
        http::parse(&answer)
    };
    for path in ["/v1/match", "/v1/leases", "/v1/resources/phone-1/drain"] {
        assert_problem(&request(path, 300_000), 413, "body_too_long", "body");
        assert_problem(&request(path, 3_000_000), 413, "body_too_long", "body");
    }
    assert_problem(&request("/v1/inventory/apply", 34 * 1024 * 1024), 413, "body_too_long", "body");
    bystander.unharmed();
    let chunk = format!("{:x}\r\n{}\r\n", 100_000, "x".repeat(100_000));
    let chunked = format!(
        "POST /v1/match HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Transfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
        chunk.repeat(4)
    );
    assert_problem(&http::raw(broker.port(), chunked.as_bytes()), 413, "body_too_long", "body");
    bystander.unharmed();
}

/// Headers beside or instead of the Host; what the refusal names; whether `--insecure` lifts it.
const NOT_ADMITTED: &[(&str, &str, bool)] = &[
    ("Host: broker.example\r\n", "Host", true),
    ("Host: localhost.evil.example\r\n", "Host", true),
    ("Host: 10.0.0.7:5327\r\n", "Host", true),
    ("Host: localhost\r\nForwarded: for=10.0.0.1\r\n", "forwarded", true),
    ("Host: localhost\r\nX-Forwarded-For: 10.0.0.1\r\n", "x-forwarded-for", true),
    ("Host: localhost\r\nX-Forwarded-Host: localhost\r\n", "x-forwarded-host", true),
    ("Host: localhost\r\nVia: 1.1 proxy\r\n", "via", true),
    ("Host: localhost\r\nOrigin: https://evil.example\r\n", "Origin", false),
    ("Host: localhost\r\nOrigin: http://localhost:3000\r\n", "Origin", false),
    ("Host: localhost\r\nOrigin: null\r\n", "Origin", false),
    ("Host: evil.example\r\nOrigin: https://evil.example:8080\r\n", "", false),
    ("Host: localhost\r\nHost: localhost\r\n", "host", false),
];

fn asked(broker: &Broker, path: &str, headers: &str) -> Answer {
    let upgrade = if path == "/v1/ws" { UPGRADE } else { "Connection: close\r\n" };
    let text = format!("GET {path} HTTP/1.1\r\n{headers}{upgrade}Sec-WebSocket-Protocol: leasehold.v1\r\n\r\n");
    http::first_answer(broker.port(), text.as_bytes())
}

#[test]
fn what_a_page_or_a_proxy_sends_is_not_admitted_on_any_path() {
    let broker = Broker::with_inventory(LAB);
    let mut bystander = Bystander::of(&broker);
    for path in [
        "/v1/ws",
        "/v1/resources",
        "/v1/status",
        "/metrics",
        "/healthz",
        "/builds",
        "/builds/1/approve",
        "/no/such/path",
    ] {
        for (headers, names, _) in NOT_ADMITTED {
            assert_problem(&asked(&broker, path, headers), 403, "not_admitted", names);
        }
        for host in ["localhost", "127.0.0.1:1", "[::1]:5327"] {
            let answer = asked(&broker, path, &format!("Host: {host}\r\nOrigin: http://{host}\r\n"));
            assert_ne!(answer.status, 403, "{path}, {host}: {answer:?}");
        }
    }
    bystander.unharmed();
}

#[test]
fn insecure_lifts_all_but_the_check_of_the_origin() {
    let mut broker = Broker::with(LAB).arg("--insecure").start();
    for path in ["/v1/ws", "/v1/resources", "/healthz"] {
        for (headers, names, lifted) in NOT_ADMITTED {
            let answer = asked(&broker, path, headers);
            if *lifted {
                let expected = if path == "/v1/ws" { 101 } else { 200 };
                assert_eq!(answer.status, expected, "{path}, {headers}: {answer:?}");
            } else {
                assert_problem(&answer, 403, "not_admitted", names);
            }
        }
    }
    assert!(broker.stderr().contains("--insecure: WHOEVER REACHES"), "{}", broker.stderr());
    broker.term().exits(0);
}

#[test]
fn an_address_that_others_reach_is_refused_without_insecure() {
    let dir = tempfile::tempdir().unwrap();
    for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:5327"] {
        let mut command = leasehold(dir.path());
        let store = format!("sqlite:{}", dir.path().join("lab.db").display());
        command.args(["serve", "--listen", listen, "--store", &store]);
        let output = process::run(&mut command).exits(2);
        assert!(output.stderr.contains("--insecure") && output.stderr.contains("tokens"), "{}", output.stderr);
        assert!(!dir.path().join("lab.db").exists(), "the store was touched");
    }
}
