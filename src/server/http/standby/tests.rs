//! Tests of a standby's answers, and of a process that changes its role, over real TCP.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::router;
use crate::protocol::info::BrokerInfo;
use crate::server::front::{Front, Process};
use crate::server::limits::Limits;
use crate::server::listen::listen;
use crate::server::sight::{Leader, Sight};

const OWN_URL: &str = "ws://b2:5327";
const UPGRADE: &str = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: leasehold.v1\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

struct Standby {
    address: SocketAddr,
    sight: watch::Sender<Sight>,
    front: Arc<Front>,
}

/// A response: its status, its head in small letters, its body.
struct Got {
    status: u16,
    head: String,
    text: String,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

fn at(url: &str, http: &str) -> Option<Leader> {
    Some(Leader { url: url.into(), http: http.into() })
}

impl Standby {
    async fn start(leader: Option<Leader>) -> Self {
        let own = BrokerInfo { url: OWN_URL.into(), instance: "i2".into(), leads: false, seen_ms: 10 };
        let seen = Sight {
            own_url: OWN_URL.into(),
            leader,
            epoch: Some(3),
            term_ms: 2_000,
            failure: None,
            brokers: vec![own],
        };
        let (sight, seen) = watch::channel(seen);
        let process = Process::new(Limits::default(), false, "postgres://db/lab".into(), Some(seen));
        let process = Arc::new(process);
        let front = Arc::new(Front::new(process.clone(), router(&process)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(listen(listener, front.clone()));
        Self { address, sight, front }
    }

    async fn ask(&self, method: &str, path: &str, headers: &str) -> Got {
        let request =
            format!("{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n{headers}\r\n", self.address);
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        let (head, text) = response.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let (first, rest) = head.split_once("\r\n").unwrap();
        // Values keep their letters: a path means what it is written in.
        let rest = rest.lines().filter_map(|line| line.split_once(": "));
        let rest: Vec<String> = rest.map(|(name, value)| format!("{}: {value}", name.to_lowercase())).collect();
        Got { status, head: format!("{first}\n{}", rest.join("\n")), text: text.to_owned() }
    }
}

#[tokio::test]
async fn everything_of_the_lab_is_the_leaders() {
    let standby = Standby::start(at("wss://lab.example.org:443/one", "https://lab.example.org/one")).await;
    for (method, path, headers) in [
        ("GET", "/v1/ws", UPGRADE),
        ("GET", "/v1/leases?limit=2&cursor=A%20b", ""),
        ("POST", "/v1/leases", "content-length: 0\r\n"),
        ("DELETE", "/v1/resources/Pixel-1", ""),
        ("GET", "/nothing", ""),
    ] {
        let got = standby.ask(method, path, headers).await;
        assert_eq!(got.status, 307, "{method} {path}: {}", got.text);
        let scheme = if headers == UPGRADE { "wss" } else { "https" };
        let there = format!("{scheme}://lab.example.org/one{path}");
        assert_eq!(got.header("location"), Some(there.as_str()), "{method}");
        assert_eq!(got.header("content-type"), Some("application/problem+json"), "{method} {path}");
        let problem = got.json();
        assert_eq!(
            (&problem["code"], &problem["leader"], &problem["status"]),
            (&json!("standby"), &json!("wss://lab.example.org:443/one"), &json!(307))
        );
    }
}

#[tokio::test]
async fn probes_and_its_own_state_are_its_own() {
    let standby = Standby::start(at("ws://b1:5327", "http://b1:5327")).await;
    let health = standby.ask("GET", "/healthz", "").await;
    assert_eq!((health.status, health.text.as_str()), (200, "ok\n"));
    let ready = standby.ask("GET", "/readyz", "").await;
    assert_eq!((ready.status, ready.header("location")), (503, None));
    assert_eq!((&ready.json()["code"], &ready.json()["leader"]), (&json!("standby"), &json!("ws://b1:5327")));
    assert!(standby.ask("GET", "/metrics", "").await.text.contains("leasehold_leader_known 1\n"));
    let status = standby.ask("GET", "/v1/status", "").await.json();
    for (field, value) in [
        ("role", json!("standby")),
        ("state", json!("standby")),
        ("leader", json!("ws://b1:5327")),
        ("epoch", json!(3)),
        ("term_ms", json!(2_000)),
        ("store", json!("postgres://db/lab")),
    ] {
        assert_eq!(status[field], value, "{status}");
    }
    assert_eq!(status["brokers"][0]["instance"], "i2");
    assert_eq!(standby.ask("POST", "/healthz", "").await.status, 405);
}

#[tokio::test]
async fn nobody_is_sent_to_an_unknown_leader_or_back_here() {
    let standby = Standby::start(None).await;
    let refused = async |why: &str| {
        for (path, headers) in [("/v1/ws", UPGRADE), ("/v1/leases", ""), ("/readyz", "")] {
            let got = standby.ask("GET", path, headers).await;
            assert_eq!((got.status, got.header("retry-after")), (503, Some("1")), "{path}");
            let problem = got.json();
            assert_eq!((&problem["code"], problem.get("leader")), (&json!("standby"), None), "{path}");
            assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(why)), "{problem}");
        }
        assert_eq!(standby.ask("GET", "/v1/status", "").await.json().get("leader"), None);
    };
    refused("no broker leads").await;
    standby.sight.send_modify(|sight| sight.failure = Some("no route to host".into()));
    refused("no route to host").await;
    standby.sight.send_modify(|sight| sight.leader = at(OWN_URL, "http://b2:5327"));
    refused("no route to host").await;
    standby.sight.send_modify(|sight| sight.failure = None);
    refused("give each its own --advertise").await;
}

#[tokio::test]
async fn a_standby_admits_whom_a_leader_admits() {
    let standby = Standby::start(at("ws://b1:5327", "http://b1:5327")).await;
    for header in ["via: 1.1 proxy\r\n", "origin: https://evil.example\r\n"] {
        for path in ["/v1/ws", "/healthz", "/v1/status"] {
            let got = standby.ask("GET", path, header).await;
            assert_eq!((got.status, &got.json()["code"]), (403, &json!("not_admitted")), "{path} {header}");
        }
    }
}

#[tokio::test]
async fn a_connection_outlasts_a_role() {
    let standby = Standby::start(at("ws://b1:5327", "http://b1:5327")).await;
    let mut stream = TcpStream::connect(standby.address).await.unwrap();
    let request = format!("GET /readyz HTTP/1.1\r\nhost: {}\r\n\r\n", standby.address);
    let mut answer = async || {
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut read = String::new();
        while !read.contains("\r\n\r\n") || !(read.ends_with('}') || read.ends_with('\n')) {
            let mut piece = [0; 1024];
            let got = stream.read(&mut piece).await.unwrap();
            assert!(got > 0, "it was closed: {read}");
            read.push_str(std::str::from_utf8(&piece[..got]).unwrap());
        }
        read
    };
    assert!(answer().await.starts_with("HTTP/1.1 503 "));
    let leading = axum::Router::new().route("/readyz", axum::routing::get(async || "ready\n"));
    standby.front.turn(leading);
    assert!(answer().await.starts_with("HTTP/1.1 200 "));
    standby.front.turn(router(&standby.front.process));
    assert!(answer().await.starts_with("HTTP/1.1 503 "));
}
