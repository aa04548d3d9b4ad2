//! Frames that no client ought to send, and floods of those it may.

use serde_json::{Value, json};

use super::bystander::{Bystander, LAB};
use super::common::broker::Broker;
use super::common::wait::{PATIENCE, until};
use super::common::ws::{Client, Heard, frame};

const TEXT: u8 = 0x81;
const LIST: &str = "{\"jsonrpc\":\"2.0\",\"id\":77,\"method\":\"lease.list\"}";

/// Sends these bytes on a new session's socket and answers how the broker closes.
#[track_caller]
fn closed_after(broker: &Broker, bytes: &[u8]) -> (u16, String, Client) {
    let mut client = broker.session("tester@lab");
    // May fail where the broker closes before all is written; what it says comes all the same.
    let _ = client.write_raw(bytes);
    let (code, reason) = client.closed();
    (code, reason, client)
}

#[test]
fn a_message_over_the_bound_is_closed_with_a_reason_and_no_reset() {
    let broker = Broker::with_inventory(LAB);
    let mut bystander = Bystander::of(&broker);
    let long = vec![b'x'; 1_000_000];
    let mut pieces = frame(0x01, &long[..200_000], true);
    pieces.extend(frame(0x80, &long[..200_000], true));
    let announced_only = [TEXT, 0xFF, 0x3F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0];
    let just_over = frame(TEXT, &vec![b' '; 262_145], true);
    for bytes in [frame(TEXT, &long, true), just_over, pieces, announced_only.to_vec()] {
        let (code, reason, _) = closed_after(&broker, &bytes);
        assert_eq!(code, 1009, "{reason}");
        assert!(reason.starts_with("message_too_long: ") && reason.contains("262144"), "{reason}");
    }
    // At the bound it is read.
    let mut client = broker.session("tester@lab");
    let padded = format!("{LIST}{}", " ".repeat(262_144 - LIST.len()));
    client.write_raw(&frame(TEXT, padded.as_bytes(), true)).unwrap();
    assert!(matches!(client.hear(PATIENCE), Heard::Json(answer) if answer["id"] == 77));
    bystander.unharmed();
}

#[test]
fn a_drop_for_bad_frames_keeps_the_session() {
    let broker = Broker::with_inventory(LAB);
    let (mut client, mut again) = (broker.session("tester@lab"), broker.connect());
    let lease = client.lease(&["phone"]);
    let (session, secret) = (client.session(), client.opened["secret"].clone());
    client.write_raw(&frame(0x82, b"binary", true)).unwrap();
    assert_eq!(client.closed().0, 1003);
    let listed = broker.http("GET", "/v1/leases", None).json();
    assert_eq!(listed["items"][0]["lease"], lease["lease"], "{listed}");
    let wrong = json!({"session": session, "secret": secret, "instance": "not the one that opened"});
    assert_eq!(again.refused("session.resume", wrong), "wrong_instance");
}

#[test]
fn frames_that_break_the_protocol_are_closed_by_name() {
    let broker = Broker::with_inventory(LAB);
    let mut bystander = Bystander::of(&broker);
    let call = LIST.as_bytes();
    let table: &[(&str, Vec<u8>, u16, &str)] = &[
        ("binary", frame(0x82, b"\0\x01", true), 1003, "binary_frame: "),
        ("invalid UTF-8", frame(TEXT, b"\xff\xfe{}", true), 1002, "protocol: "),
        ("half a character", frame(TEXT, b"{\"a\":\"\xc3", true), 1002, "protocol: "),
        ("unmasked", frame(TEXT, call, false), 1002, "protocol: "),
        ("a reserved bit", frame(0xC1, call, true), 1002, "protocol: "),
        ("a reserved opcode", frame(0x83, call, true), 1002, "protocol: "),
        ("a reserved control", frame(0x8B, b"", true), 1002, "protocol: "),
        ("the end of no message", frame(0x80, call, true), 1002, "protocol: "),
        ("a ping in pieces", frame(0x09, b"x", true), 1002, "protocol: "),
        ("a ping of 126 bytes", frame(0x89, &[b'x'; 126], true), 1002, "protocol: "),
        ("a message inside another", [frame(0x01, b"{", true), frame(TEXT, call, true)].concat(), 1002, "protocol: "),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), 1002, "protocol: "),
    ];
    for (what, bytes, code, reason) in table {
        let (got, told, _) = closed_after(&broker, bytes);
        assert_eq!(got, *code, "{what}: {told}");
        assert!(told.starts_with(reason) && told.len() > reason.len(), "{what}: {told}");
    }
    bystander.unharmed();
}

#[test]
fn a_message_in_many_pieces_is_one_message() {
    let broker = Broker::with_inventory(LAB);
    let mut bystander = Bystander::of(&broker);
    let mut client = broker.session("tester@lab");
    let mut bytes = frame(0x01, b"", true);
    for byte in LIST.as_bytes() {
        bytes.extend(frame(0x00, &[*byte], true));
        bytes.extend(frame(0x00, b"", true));
        // A ping may stand between the pieces.
        bytes.extend(frame(0x89, b"p", true));
    }
    for _ in 0..20_000 {
        bytes.extend(frame(0x00, b"", true));
    }
    bytes.extend(frame(0x80, b"", true));
    client.write_raw(&bytes).unwrap();
    assert!(matches!(client.hear(PATIENCE), Heard::Json(answer) if answer["id"] == 77));
    bystander.unharmed();
}

#[test]
fn a_flood_of_pings_takes_nothing_from_others() {
    let broker = Broker::with_inventory(LAB);
    let mut bystander = Bystander::of(&broker);
    let mut client = broker.session("tester@lab");
    let mut writer = client.stream();
    let flood = std::thread::spawn(move || {
        let pings = frame(0x89, &[b'x'; 125], true).repeat(1_000);
        for _ in 0..50 {
            std::io::Write::write_all(&mut writer, &pings).unwrap();
        }
    });
    while !flood.is_finished() {
        bystander.unharmed();
        // Reads what pongs there are, so that the flood can end.
        assert!(matches!(client.hear(std::time::Duration::from_millis(1)), Heard::Nothing));
    }
    flood.join().unwrap();
    client.lease(&["phone"]);
    bystander.unharmed();
}

#[test]
fn a_connection_that_ends_in_the_middle_of_a_frame_is_a_drop() {
    let broker = Broker::with_inventory(LAB);
    let mut bystander = Bystander::of(&broker);
    let mut client = broker.session("tester@lab");
    let lease = client.lease(&["phone"]);
    client.write_raw(&frame(TEXT, LIST.as_bytes(), true)[..20]).unwrap();
    client.drop_connection();
    until("its session is not connected", || {
        let sessions = broker.http("GET", "/v1/sessions", None).json();
        let own = |item: &&Value| item["owner"] == "tester@lab";
        sessions["items"].as_array().unwrap().iter().find(own).is_some_and(|item| item["connected"] == false)
    });
    let shown = broker.http("GET", &format!("/v1/leases/{}", lease["lease"]), None).json();
    assert_eq!(shown["state"], "active", "{shown}");
    bystander.unharmed();
}
