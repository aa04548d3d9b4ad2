//! Several brokers: a standby that sends to the leader or knows none, one that stands still, one
//! that is gone. For WebSocket and HTTP.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::reach::{CERTIFICATE, acceptor, head};
use super::{Broker, done, granted, opened, released};
use crate::client::{BaseUrl, Client, ClientError, Event, Http, Network, Options, close_session};
use crate::protocol::call::ClaimRequest;

/// Long enough that no machine is so slow.
const TTL: u64 = 600_000;

const NO_LEADER: &str = concat!(
    r#"{"type":"urn:leasehold:standby","title":"standby","status":503,"code":"standby","#,
    r#""detail":"this broker stands by, and no broker leads at present: try again in a second"}"#,
);

fn phone() -> ClaimRequest {
    ClaimRequest { needs: vec!["phone".to_owned()], ..ClaimRequest::default() }
}

fn options(urls: &[BaseUrl]) -> Options {
    Options::new(urls.to_vec())
}

fn http(urls: &[BaseUrl]) -> Http {
    Http::with_network(urls.to_vec(), Network::default())
}

fn redirect(location: &str) -> String {
    format!("HTTP/1.1 307 Temporary Redirect\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n")
}

fn no_leader() -> String {
    let length = NO_LEADER.len();
    format!("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: {length}\r\n\r\n{NO_LEADER}")
}

/// Reads a request's head and answers it; gives the head.
async fn meet(tcp: &mut TcpStream, answer: &str) -> String {
    let asked = head(tcp).await;
    tcp.write_all(answer.as_bytes()).await.expect("the client reads");
    asked
}

/// Answers everybody so, in a task of its own, and counts them.
fn always(broker: Broker, answer: String) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        loop {
            let mut tcp = broker.tcp().await;
            counted.fetch_add(1, Ordering::Relaxed);
            meet(&mut tcp, &answer).await;
        }
    });
    count
}

#[tokio::test]
async fn a_standby_sends_the_websocket_to_the_leader_and_that_is_no_failure() {
    for scheme in ["http", "ws"] {
        let (standby, leader) = (Broker::new().await, Broker::new().await);
        let location = format!("{scheme}://127.0.0.1:{}/lab/v1/ws", leader.url().port);
        let urls = [standby.url()];
        let asked = always(standby, redirect(&location));
        let (client, mut events) = Client::start_watched(options(&urls)).expect("it starts");
        let mut peer = leader.opened(TTL).await;
        client.connected().await.expect("a session");
        assert!(matches!(events.next().await, Some(Event::Connected { session: 3, url: 0, .. })));
        assert_eq!(client.broker(), Some(leader.url()));
        // A drop begins at the standby again, which may know another leader by now.
        let (lease, ()) = tokio::join!(client.acquire(phone()), peer.grant());
        drop(peer);
        let mut peer = leader.socket().await;
        let resume = peer.request("session.resume").await;
        peer.answer(&resume, opened(11, TTL, &[granted(1, 7)])).await;
        let lease = lease.expect("a lease");
        let (told, ()) = tokio::join!(lease.release(None), async {
            let release = peer.request("lease.release").await;
            peer.answer(&release, released("released")).await;
        });
        told.expect("released");
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }
}

#[tokio::test]
async fn a_lease_goes_on_at_another_broker_when_the_first_is_gone() {
    let (first, second) = (Broker::new().await, Broker::new().await);
    let urls = [first.url(), second.url()];
    let client = Client::start(options(&urls)).expect("it starts");
    let mut events = client.events();
    let mut peer = first.opened(TTL).await;
    let (lease, ()) = tokio::join!(client.acquire(phone()), peer.grant());
    let lease = lease.expect("a lease");
    let waiting = client.acquire(phone());
    let asked = peer.request("lease.acquire").await;
    drop((peer, first));

    let mut peer = second.socket().await;
    let resume = peer.request("session.resume").await;
    assert_eq!((&resume["params"]["session"], &resume["params"]["secret"]), (&json!(3), &json!("hush")));
    peer.answer(&resume, opened(11, TTL, &[granted(1, 7)])).await;
    // What was not answered is asked again, with the same number.
    let again = peer.request("lease.acquire").await;
    assert_eq!(again["params"], asked["params"]);
    peer.answer(&again, granted(2, 8)).await;
    assert_eq!(waiting.await.expect("a lease").lease(), 8);
    assert_eq!((lease.lease(), client.broker()), (7, Some(second.url())));
    let mut resumed = Vec::new();
    while let Some(event) = events.next().await {
        if let Event::Connected { url, resumed: true, .. } = event {
            resumed.push(url);
            break;
        }
    }
    assert_eq!(resumed, [1]);
}

#[tokio::test]
async fn who_knows_no_leader_and_who_stands_still_are_left_for_the_next_url() {
    let (standby, frozen, leader) = (Broker::new().await, Broker::new().await, Broker::new().await);
    let urls = [standby.url(), frozen.url(), leader.url()];
    always(standby, no_leader());
    let (client, mut events) = Client::start_watched(options(&urls)).expect("it starts");
    // Its kernel takes the connection; nobody ever reads from it.
    let _peer = leader.opened(TTL).await;
    client.connected().await.expect("a session");
    let mut failed = Vec::new();
    while let Some(event) = events.next().await {
        match event {
            Event::ConnectFailed { url, why } => failed.push((url, why)),
            Event::Connected { url, .. } => {
                assert_eq!(url, 2);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    let [(0, stands_by), (1, still)] = &failed[..] else { panic!("{failed:?}") };
    assert!(stands_by.contains("no broker leads at present") && !stands_by.contains('{'), "{stands_by}");
    assert!(still.contains(&frozen.url().to_string()) && still.contains("no answer"), "{still}");
}

#[tokio::test]
async fn a_token_is_never_sent_from_tls_to_plain_text() {
    let leader = Broker::new().await;
    let standby = Broker::new().await;
    let url = BaseUrl::parse(&format!("wss://localhost:{}", standby.url().port)).expect("a URL");
    let location = format!("http://127.0.0.1:{}/v1/ws", leader.url().port);
    let network = Network::default().with_ca_file(CERTIFICATE).with_token("t0k").expect("a token");
    let script = async {
        for path in ["/v1/ws", "/v1/leases"] {
            let mut tls = acceptor().accept(standby.tcp().await).await.expect("it trusts us");
            let asked = head(&mut tls).await;
            assert!(asked.contains(&format!("GET {path} ")) && asked.to_lowercase().contains("bearer t0k"), "{asked}");
            tls.write_all(redirect(&location).as_bytes()).await.expect("it reads");
            tls.flush().await.expect("it reads");
        }
    };
    let ask = async {
        let client = Options { network: network.clone(), ..options(std::slice::from_ref(&url)) };
        let error = Client::connect(client).await.expect_err("that is not followed");
        assert!(matches!(&error, ClientError::Misdirected(why) if why.contains("not encrypted")), "{error}");
        let error = Http::with_network(vec![url.clone()], network).get("/v1/leases").await.expect_err("nor that");
        assert!(matches!(&error, ClientError::Misdirected(why) if why.contains("not encrypted")), "{error}");
    };
    tokio::select! {
        _ = leader.tcp() => panic!("it went to where the token can be read on the way"),
        ((), ()) = async { tokio::join!(script, ask) } => {}
    }
}

#[tokio::test]
async fn a_standby_that_sends_in_a_circle_is_an_error() {
    let (one, other) = (Broker::new().await, Broker::new().await);
    let url = one.url();
    let there = format!("http://127.0.0.1:{}/lab/v1/ws", other.url().port);
    let back = format!("http://127.0.0.1:{}/lab/v1/ws", url.port);
    always(one, redirect(&there));
    always(other, redirect(&back));
    let error = Client::connect(options(&[url])).await.expect_err("nowhere");
    assert!(matches!(&error, ClientError::Misdirected(why) if why.contains("circle")), "{error}");
}

#[tokio::test]
async fn a_session_is_closed_from_outside_at_whoever_leads() {
    let (gone, standby, leader) = (Broker::new().await.url(), Broker::new().await, Broker::new().await);
    let urls = [gone, standby.url()];
    always(standby, redirect(&format!("http://127.0.0.1:{}/lab/v1/ws", leader.url().port)));
    let script = async {
        let mut peer = leader.socket().await;
        let close = peer.request("session.close").await;
        peer.answer(&close, done()).await;
    };
    let network = Network::default();
    let (closed, ()) = tokio::join!(close_session(&urls, &network, 3, "hush"), script);
    assert_eq!(closed, Ok(()));
}

// --- HTTP ---

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{\"b\":2}";

#[tokio::test]
async fn a_standby_sends_a_request_to_the_leader_with_all_that_belongs_to_it() {
    let (standby, leader) = (Broker::new().await, Broker::new().await);
    let urls = [standby.url()];
    always(standby, redirect(&format!("http://127.0.0.1:{}/x/v1/leases?wait_ms=0", leader.url().port)));
    let network = Network::default().with_token("t0k").expect("a token");
    let body = json!({"needs": ["phone"]});
    let bytes = body.to_string();
    let script = async {
        let mut tcp = leader.tcp().await;
        let asked = head(&mut tcp).await;
        let mut got = vec![0; bytes.len()];
        tcp.read_exact(&mut got).await.expect("a whole body");
        tcp.write_all(OK.as_bytes()).await.expect("the client reads");
        (asked, String::from_utf8(got).expect("JSON is UTF-8"))
    };
    let http = Http::with_network(urls.to_vec(), network);
    let (got, (asked, sent)) = tokio::join!(http.post("/v1/leases?wait_ms=0", Some(&body)), script);
    assert_eq!(got.expect("an answer").json::<Value>().expect("JSON"), json!({"b": 2}));
    assert!(asked.starts_with("POST /x/v1/leases?wait_ms=0 HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("authorization: Bearer t0k\r\n"), "{asked}");
    assert!(asked.contains("content-type: application/json\r\n"), "{asked}");
    assert_eq!(sent, bytes);
}

#[tokio::test]
async fn a_long_body_is_sent_on_though_the_standby_did_not_read_it() {
    let (standby, leader) = (Broker::new().await, Broker::new().await);
    let urls = [standby.url()];
    always(standby, redirect(&format!("http://127.0.0.1:{}/v1/inventory/apply", leader.url().port)));
    let long = "x".repeat(8 * 1024 * 1024);
    let script = async {
        let mut tcp = leader.tcp().await;
        head(&mut tcp).await;
        let mut got = vec![0; long.len() + 2];
        tcp.read_exact(&mut got).await.expect("a whole body");
        tcp.write_all(OK.as_bytes()).await.expect("the client reads");
    };
    let http = http(&urls);
    let (got, ()) = tokio::join!(http.post("/v1/inventory/apply", Some(&long)), script);
    assert!(got.expect("an answer").is_success());
}

#[tokio::test]
async fn a_takeover_is_waited_for() {
    let (standby, leader) = (Broker::new().await, Broker::new().await);
    let urls = [Broker::new().await.url(), standby.url()];
    let script = async {
        // First it sends to a leader that is gone, then it knows none, then it knows the next.
        let gone = redirect(&format!("http://127.0.0.1:{}/v1/leases", urls[0].port));
        let next = redirect(&format!("http://127.0.0.1:{}/v1/leases", leader.url().port));
        for answer in [gone, no_leader(), no_leader(), next] {
            meet(&mut standby.tcp().await, &answer).await;
        }
        meet(&mut leader.tcp().await, OK).await
    };
    let http = http(&urls);
    let (got, asked) = tokio::join!(http.get("/v1/leases"), script);
    assert!(got.expect("an answer").is_success());
    assert!(asked.starts_with("GET /v1/leases "), "{asked}");
}

#[tokio::test]
async fn what_may_not_be_done_twice_is_not_sent_twice() {
    let table = [("/v1/leases/7/release", true), ("/v1/resources/x/drain", false)];
    for (path, repeats) in table {
        let (breaks, second) = (Broker::new().await, Broker::new().await);
        let urls = [breaks.url(), second.url()];
        let script = async {
            let mut tcp = breaks.tcp().await;
            head(&mut tcp).await;
            drop(tcp);
            if repeats {
                meet(&mut second.tcp().await, OK).await;
            }
        };
        let (http, nothing) = (http(&urls), json!({}));
        let (got, ()) = tokio::join!(http.post(path, Some(&nothing)), script);
        match got {
            Ok(answer) => assert!(repeats && answer.is_success()),
            Err(error) => {
                assert!(!repeats && !error.is_no_broker(), "{error}");
                assert!(error.to_string().contains("not known whether this was done"), "{error}");
                assert!(error.to_string().contains(&breaks.url().http()), "{error}");
            }
        }
    }
}

#[tokio::test]
async fn what_was_refused_for_the_moment_is_asked_of_the_next_and_told_if_nobody_can() {
    let busy =
        r#"{"type":"urn:leasehold:overloaded","title":"o","status":503,"code":"overloaded","detail":"too much"}"#;
    let busy = format!("HTTP/1.1 503 Service Unavailable\r\nContent-Length: {}\r\n\r\n{busy}", busy.len());
    let (first, second) = (Broker::new().await, Broker::new().await);
    let urls = [first.url(), second.url()];
    always(first, busy.clone());
    let answers = async {
        for answer in [OK, &busy] {
            meet(&mut second.tcp().await, answer).await;
        }
    };
    let ask = async {
        let first = http(&urls);
        assert!(first.post("/v1/resources/x/drain", Some(&json!({}))).await.expect("an answer").is_success());
        let error = http(&urls).get("/v1/leases").await.expect("an answer").text().expect_err("busy");
        assert_eq!((error.code(), error.to_string().as_str()), ("overloaded", "too much"));
    };
    tokio::join!(answers, ask);
}

#[tokio::test]
async fn the_url_that_answered_last_is_asked_first() {
    let gone = Broker::new().await;
    let leader = Broker::new().await;
    let urls = [gone.url(), leader.url()];
    let asked = always(gone, no_leader());
    always(leader, OK.to_owned());
    let http = http(&urls);
    for _ in 0..3 {
        assert!(http.get("/v1/leases").await.expect("an answer").is_success());
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}
