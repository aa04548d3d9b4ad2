//! Tests of sockets against an engine that is the test itself, over real TCP.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::engine::input::{Answer, Call, Input, Notice, Outgoing};
use crate::protocol::MESSAGE_BYTES_MAX;
use crate::protocol::call::{Done, SessionRenewed};
use crate::protocol::error::CloseReason;
use crate::server::double::Double;
use crate::server::limits::Limits;

type Client = WebSocketStream<TcpStream>;

async fn connect(double: &Double) -> Client {
    let stream = TcpStream::connect(double.address).await.unwrap();
    let mut request = format!("ws://{}/v1/ws", double.address).into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("leasehold.v1"));
    let (client, response) = client_async(request, stream).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "leasehold.v1");
    client
}

async fn text(client: &mut Client) -> Value {
    loop {
        match client.next().await.unwrap().unwrap() {
            Message::Text(text) => return serde_json::from_str(&text).unwrap(),
            Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// The code and reason of the Close that comes next.
async fn closed(client: &mut Client) -> (u16, String) {
    loop {
        match client.next().await.unwrap().unwrap() {
            Message::Close(Some(frame)) => return (frame.code.into(), frame.reason.to_string()),
            Message::Close(None) => panic!("a Close without a code"),
            _ => {}
        }
    }
}

async fn raw(double: &Double, head: &str) -> String {
    let mut stream = TcpStream::connect(double.address).await.unwrap();
    let request = format!("{head}\r\nHost: {}\r\nConnection: close\r\n\r\n", double.address);
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    response
}

#[tokio::test]
async fn only_the_subprotocol_is_upgraded() {
    let double = Double::start(Limits::default()).await;
    let upgrade = "GET /v1/ws HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    for (head, status, says) in [
        ("GET /v1/ws HTTP/1.1".to_owned(), "426", "leasehold.v1"),
        (upgrade.to_owned(), "400", "leasehold.v1"),
        (format!("{upgrade}\r\nSec-WebSocket-Protocol: graphql-ws"), "400", "leasehold.v1"),
        (format!("{upgrade}\r\nSec-WebSocket-Protocol: leasehold.v1\r\nOrigin: http://evil.example"), "403", "Origin"),
        ("GET /nothing HTTP/1.1".to_owned(), "404", "not_found"),
        ("GET /v1/ws HTTP/1.1\r\nVia: 1.1 proxy".to_owned(), "403", "via"),
    ] {
        let response = raw(&double, &head).await;
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{head}: {response}");
        assert!(response.contains(says), "{head}: {response}");
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_answered_and_the_connection_goes_on() {
    let mut double = Double::start(Limits::default()).await;
    let mut client = connect(&double).await;
    let (socket, outbox) = double.attached().await;
    client.send(Message::text("{nonsense")).await.unwrap();
    let answer = text(&mut client).await;
    assert_eq!((&answer["id"], &answer["error"]["data"]["code"]), (&Value::Null, &json!("parse_error")));
    client.send(Message::text(json!({"jsonrpc": "2.0", "id": 4, "method": "fly"}).to_string())).await.unwrap();
    let answer = text(&mut client).await;
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(4), &json!(-32601)));
    client
        .send(Message::text(json!({"jsonrpc": "2.0", "id": 5, "method": "session.renew"}).to_string()))
        .await
        .unwrap();
    let Input::Call { socket: on, id: Some(id), call: Call::Renew { .. }, .. } = double.input().await else {
        panic!("no renewal");
    };
    assert_eq!(on, socket);
    let result = Ok(Answer::Renewed(SessionRenewed { renewal: 9, ..SessionRenewed::default() }));
    outbox.send(Box::new(Outgoing::Answer { id, result })).await.unwrap();
    let answer = text(&mut client).await;
    assert_eq!((&answer["id"], &answer["result"]["renewal"]), (&json!(5), &json!(9)));
}

#[tokio::test]
async fn what_is_told_comes_in_order() {
    let mut double = Double::start(Limits::default()).await;
    let mut client = connect(&double).await;
    let (_, outbox) = double.attached().await;
    for renewal in 0..500 {
        let renewed = SessionRenewed { renewal, ..SessionRenewed::default() };
        let id = crate::protocol::rpc::Id::Number(renewal);
        outbox.send(Box::new(Outgoing::Answer { id, result: Ok(Answer::Renewed(renewed)) })).await.unwrap();
    }
    outbox.send(Box::new(Outgoing::Notice(Notice::RenewNow))).await.unwrap();
    for renewal in 0..500 {
        assert_eq!(text(&mut client).await["id"], json!(renewal));
    }
    assert_eq!(text(&mut client).await["method"], json!("session.renew_now"));
}

#[tokio::test]
async fn frames_that_are_not_spoken_close_the_socket_with_a_reason() {
    let mut double = Double::start(Limits::default()).await;
    for (message, code, word) in [
        (Message::binary(vec![1, 2, 3]), 1003, "binary_frame"),
        (Message::text("x".repeat(MESSAGE_BYTES_MAX + 1)), 1009, "message_too_long"),
        (Message::text("x".repeat(3 * MESSAGE_BYTES_MAX)), 1009, "message_too_long"),
    ] {
        let mut client = connect(&double).await;
        let (_, _outbox) = double.attached().await;
        client.send(message).await.unwrap();
        let (got, reason) = closed(&mut client).await;
        assert_eq!(got, code);
        assert!(reason.starts_with(word), "{reason}");
        assert!(!double.detached().await, "the broker's own close is not the client's");
    }
}

#[tokio::test]
async fn a_close_is_clean_with_code_1000_or_none() {
    let mut double = Double::start(Limits::default()).await;
    let frame = |code: u16| Some(CloseFrame { code: code.into(), reason: "".into() });
    for (frame, clean) in [(frame(1000), true), (None, true), (frame(1001), false), (frame(4999), false)] {
        let mut client = connect(&double).await;
        let (_, _outbox) = double.attached().await;
        client.send(Message::Close(frame.clone())).await.unwrap();
        assert_eq!(double.detached().await, clean, "{frame:?}");
    }
    let client = connect(&double).await;
    let (_, _outbox) = double.attached().await;
    drop(client);
    assert!(!double.detached().await, "a connection that just ends is a drop");
}

#[tokio::test]
async fn after_the_brokers_close_every_close_is_a_drop() {
    let mut double = Double::start(Limits::default()).await;
    let mut client = connect(&double).await;
    let (_, outbox) = double.attached().await;
    let text = "the session was resumed elsewhere".to_owned();
    outbox.send(Box::new(Outgoing::Close { reason: CloseReason::Superseded, text })).await.unwrap();
    assert!(!double.detached().await);
    let (code, reason) = closed(&mut client).await;
    assert_eq!((code, reason.as_str()), (4000, "superseded: the session was resumed elsewhere"));
}

#[tokio::test]
async fn whom_the_engine_gave_up_read_too_slowly() {
    let mut double = Double::start(Limits::default()).await;
    let mut client = connect(&double).await;
    let (_, outbox) = double.attached().await;
    drop(outbox);
    assert_eq!(closed(&mut client).await.0, 4001);
    assert!(!double.detached().await);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed_and_holds_nobody_up() {
    let limits = Limits { flush_timeout: Duration::from_millis(50), ..Limits::default() };
    let mut double = Double::start(limits).await;
    let _client = connect(&double).await;
    let (_, outbox) = double.attached().await;
    let flood = tokio::spawn(async move {
        let message = "x".repeat(100_000);
        loop {
            let notice = crate::protocol::call::StoreNotice { working: true, message: message.clone() };
            if outbox.send(Box::new(Outgoing::Notice(Notice::Store(notice)))).await.is_err() {
                return;
            }
        }
    });
    assert!(!double.detached().await);
    flood.await.unwrap();
}

#[tokio::test]
async fn a_socket_without_a_session_is_closed_in_time_and_pinged_with_one() {
    let limits = Limits { handshake_timeout: Duration::from_millis(50), ..Limits::default() };
    let mut double = Double::start(limits).await;
    let mut idle = connect(&double).await;
    let (_, _outbox) = double.attached().await;
    assert_eq!(closed(&mut idle).await.0, 4002);
    assert!(!double.detached().await);
    let mut client = connect(&double).await;
    let (_, outbox) = double.attached().await;
    outbox.send(Box::new(Outgoing::PingEvery { ms: 100 })).await.unwrap();
    for _ in 0..2 {
        assert!(matches!(client.next().await.unwrap().unwrap(), Message::Ping(_)));
    }
    assert!(matches!(double.input().await, Input::Alive { .. }), "the pong is a sign of life");
}

#[tokio::test]
async fn too_many_calls_in_flight_are_refused_one_by_one() {
    let limits = Limits { outbound_messages_max: 4, ..Limits::default() };
    let mut double = Double::start(limits).await;
    let mut client = connect(&double).await;
    let (_, outbox) = double.attached().await;
    for id in 1..=2 {
        client
            .send(Message::text(json!({"jsonrpc": "2.0", "id": id, "method": "lease.list"}).to_string()))
            .await
            .unwrap();
    }
    let answer = text(&mut client).await;
    assert_eq!((&answer["id"], &answer["error"]["data"]["code"]), (&json!(2), &json!("overloaded")));
    let Input::Call { id: Some(id), .. } = double.input().await else { panic!("no call") };
    outbox.send(Box::new(Outgoing::Answer { id, result: Ok(Answer::Done(Done::default())) })).await.unwrap();
    assert_eq!(text(&mut client).await["id"], json!(1));
}

#[tokio::test]
async fn what_was_told_before_the_stop_goes_out_before_the_close() {
    let mut double = Double::start(Limits::default()).await;
    let mut client = connect(&double).await;
    let (_, outbox) = double.attached().await;
    for renewal in 0..100 {
        let renewed = SessionRenewed { renewal, ..SessionRenewed::default() };
        let id = crate::protocol::rpc::Id::Number(renewal);
        outbox.try_send(Box::new(Outgoing::Answer { id, result: Ok(Answer::Renewed(renewed)) })).unwrap();
    }
    // At once: all of it is there when the socket looks.
    double.shared.process.closing.cancel();
    for renewal in 0..100 {
        assert_eq!(text(&mut client).await["id"], json!(renewal));
    }
    assert_eq!(closed(&mut client).await.0, 1001);
}

#[tokio::test]
async fn without_an_engine_a_socket_is_silent_until_it_is_told_to_close() {
    let mut double = Double::start(Limits::default()).await;
    let mut client = connect(&double).await;
    let (_, outbox) = double.attached().await;
    let id = crate::protocol::rpc::Id::Number(1);
    outbox.try_send(Box::new(Outgoing::Answer { id, result: Ok(Answer::Done(Done::default())) })).unwrap();
    double.inputs.close();
    drop(outbox);
    assert_eq!(text(&mut client).await["id"], json!(1), "what was told before is not lost");
    // Neither what would be refused nor what would be passed on is taken up.
    client.send(Message::text("{nonsense")).await.unwrap();
    client
        .send(Message::text(json!({"jsonrpc": "2.0", "id": 2, "method": "session.renew"}).to_string()))
        .await
        .unwrap();
    client.send(Message::Close(Some(CloseFrame { code: 1000.into(), reason: "".into() }))).await.unwrap();
    // Whatever the socket does about it is done by the time this is answered.
    raw(&double, "GET /healthz HTTP/1.1").await;
    double.shared.closing.cancel();
    let Message::Close(Some(frame)) = client.next().await.unwrap().unwrap() else { panic!("something was said") };
    assert_eq!(u16::from(frame.code), 1001);
    drop(client);
    double.shared.process.closing.cancel();
    double.shared.process.tasks.wait().await;
}

#[tokio::test]
async fn stopping_closes_every_socket_and_ends_every_task() {
    let mut double = Double::start(Limits::default()).await;
    let mut client = connect(&double).await;
    let (_, _outbox) = double.attached().await;
    double.shared.process.closing.cancel();
    assert_eq!(closed(&mut client).await.0, 1001);
    drop(client);
    double.shared.process.tasks.wait().await;
}
