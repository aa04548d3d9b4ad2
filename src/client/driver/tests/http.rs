//! HTTP for the commands: answers, refusals, streams, and URLs in turn.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Broker;
use super::reach::head;
use crate::client::{ClientError, Http, Network};

/// Answers one request with these bytes; gives the request's head and body.
async fn answer_once(broker: &Broker, body_bytes: usize, answer: &str) -> (String, String) {
    let mut tcp = broker.tcp().await;
    let asked = head(&mut tcp).await;
    let mut body = vec![0; body_bytes];
    tcp.read_exact(&mut body).await.expect("a whole body");
    tcp.write_all(answer.as_bytes()).await.expect("the client reads");
    (asked, String::from_utf8(body).expect("JSON is UTF-8"))
}

#[tokio::test]
async fn bodies_go_out_and_come_in_as_json() {
    let broker = Broker::new().await;
    let http = Http::with_network(vec![broker.url()], Network::default());
    let body = json!({"a": 1});
    let answer = "HTTP/1.1 201 Created\r\nContent-Length: 7\r\n\r\n{\"b\":2}";
    let (got, (asked, sent)) = tokio::join!(http.post("/v1/leases", Some(&body)), answer_once(&broker, 7, answer));
    let got = got.expect("an answer");
    assert_eq!((got.status, got.json::<Value>().expect("JSON")), (201, json!({"b": 2})));
    assert!(asked.starts_with("POST /lab/v1/leases HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("content-type: application/json\r\n"), "{asked}");
    assert_eq!(sent, body.to_string());
}

#[tokio::test]
async fn a_problem_becomes_a_refusal_and_anything_else_says_who_answered() {
    let broker = Broker::new().await;
    let http = Http::with_network(vec![broker.url()], Network::default());
    let problem = json!({
        "type": "urn:leasehold:not_found", "title": "not found", "status": 404, "detail": "no such thing: look again",
        "code": "not_found",
    });
    let problem = problem.to_string();
    let answer = format!("HTTP/1.1 404 Not Found\r\nContent-Length: {}\r\n\r\n{problem}", problem.len());
    let (got, _) = tokio::join!(http.get("/v1/resources/x"), answer_once(&broker, 0, &answer));
    let error = got.expect("an answer").json::<Value>().expect_err("refused");
    assert_eq!((error.code(), error.to_string().as_str()), ("not_found", "no such thing: look again"));

    let answer = "HTTP/1.1 502 Bad Gateway\r\nServer: nginx\r\nContent-Length: 6\r\n\r\n<html>";
    let (got, _) = tokio::join!(http.get("/v1/status"), answer_once(&broker, 0, answer));
    let error = got.expect("an answer").text().expect_err("refused");
    let ClientError::NotABroker(text) = &error else { panic!("{error}") };
    assert!(text.contains("nginx") && text.contains("502") && text.contains("<html>"), "{text}");
}

#[tokio::test]
async fn another_url_is_tried_where_nobody_was_reached() {
    let gone = Broker::new().await.url();
    let broker = Broker::new().await;
    let http = Http::with_network(vec![gone.clone(), broker.url()], Network::default());
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
    let (got, _) = tokio::join!(http.get("/v1/status"), answer_once(&broker, 0, answer));
    assert!(got.expect("the second answers").is_success());
    let error = Http::with_network(vec![gone.clone()], Network::default()).get("/v1/status").await;
    let error = error.expect_err("nobody listens");
    assert!(error.is_no_broker() && error.to_string().contains(&gone.to_string()), "{error}");
}

#[tokio::test]
async fn events_are_read_as_they_come() {
    let broker = Broker::new().await;
    let http = Http::with_network(vec![broker.url()], Network::default());
    let (go_on, gone_on) = tokio::sync::oneshot::channel::<()>();
    let script = async {
        let mut tcp = broker.tcp().await;
        let asked = head(&mut tcp).await;
        assert!(asked.contains("last-event-id: 6\r\n"), "{asked}");
        let first = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nid: 7\ndata: {}\n\nid: 8\nda";
        tcp.write_all(first.as_bytes()).await.expect("the client reads");
        // The rest follows only once the first event was read.
        gone_on.await.expect("the first event is read");
        tcp.write_all(b"ta: x\n\n").await.expect("the client reads");
    };
    let read = async {
        let stream = http.stream("/v1/events?follow=true", &[("last-event-id", "6")]).await.expect("a stream");
        let mut events = stream.events();
        let first = events.next().await.expect("no error").expect("an event");
        assert_eq!((first.id.as_deref(), first.data.as_str()), (Some("7"), "{}"));
        go_on.send(()).expect("the script waits");
        assert_eq!(events.next().await.expect("no error").expect("an event").data, "x");
        assert_eq!(events.next().await, Ok(None));
    };
    tokio::join!(script, read);
}

#[tokio::test]
async fn who_cannot_do_it_is_asked_again_while_another_stands_by() {
    let (leader, standby) = (Broker::new().await, Broker::new().await);
    let http = Http::with_network(vec![leader.url(), standby.url()], Network::default());
    let refusal = |code: &str| {
        let problem = json!({
            "type": format!("urn:leasehold:{code}"), "title": code, "status": 503, "detail": "not now", "code": code,
        });
        let problem = problem.to_string();
        format!("HTTP/1.1 503 Service Unavailable\r\nContent-Length: {}\r\n\r\n{problem}", problem.len())
    };
    let takeover = async {
        answer_once(&leader, 0, &refusal("unavailable")).await;
        answer_once(&standby, 0, &refusal("standby")).await;
        answer_once(&leader, 0, &refusal("standby")).await;
        answer_once(&standby, 0, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await;
        std::future::pending().await
    };
    let got = tokio::select! {
        got = http.get("/v1/status") => got.expect("an answer"),
        () = takeover => unreachable!("it has no end"),
    };
    assert_eq!(got.status, 200, "{got:?}");
}
