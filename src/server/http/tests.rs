//! Tests of the routes against a real engine on a real store, over real TCP.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::router;
use crate::core::limits::Limits as CoreLimits;
use crate::engine::machine::Options;
use crate::server::front::{Front, Process};
use crate::server::limits::Limits;
use crate::server::listen::listen;
use crate::server::shared::{App, Inventory, Shared};
use crate::store::Store;
use crate::store::sqlite::Sqlite;

const KEY: (&str, &str) = ("leasehold-key", "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff");
const OTHER_KEY: (&str, &str) = ("leasehold-key", "ff112233445566778899aabbccddeeff00112233445566778899aabbccddeeff");
const ME: (&str, &str) = ("leasehold-owner", "me@here");

struct Lab {
    address: SocketAddr,
    shared: Arc<Shared>,
    _folder: tempfile::TempDir,
}

/// A response, its body as JSON where it is some.
struct Got {
    status: u16,
    head: String,
    body: Value,
}

impl Lab {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::open(folder.path().join("lab.db")).await.unwrap();
        let reader = store.reader();
        let options = Options { limits: CoreLimits::default(), restart_grace_ms: 300_000 };
        let (handle, _) = crate::engine::start(store, options, 0).await.unwrap();
        handle.accepting().await.unwrap();
        let (_, error) = watch::channel(None);
        let process = Arc::new(Process::new(Limits::default(), false, "sqlite:lab.db".into(), None));
        let shared = Arc::new(Shared::new(process.clone(), handle, Inventory { file: None, error }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = router(App { shared: shared.clone(), reader });
        tokio::spawn(listen(listener, Arc::new(Front::new(process, routes))));
        let lab = Self { address, shared, _folder: folder };
        let text = "[[pool]]\nname = \"phone\"\n[[resource]]\nname = \"pixel-{1..2}\"\npool = \"phone\"\n\
                    labels = { os = \"android\" }\n";
        let got = lab.post("/v1/inventory/apply", &[], &json!({ "text": text, "file": "lab.toml" })).await;
        assert_eq!((got.status, &got.body["applied"]), (200, &json!(true)), "{}", got.body);
        lab
    }

    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Got {
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", self.address);
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Got { status, head: head.to_lowercase(), body: serde_json::from_str(body).unwrap_or_default() }
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Got {
        self.ask("GET", path, headers, "").await
    }

    async fn post(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Got {
        self.ask("POST", path, headers, &body.to_string()).await
    }

    /// Claims under a key, without waiting.
    async fn claim(&self, key: (&str, &str), need: &str) -> Got {
        self.post("/v1/leases?wait_ms=0", &[key, ME], &json!({ "request_id": "a", "needs": [need] })).await
    }
}

#[tokio::test]
async fn a_lease_without_a_socket_lives_and_ends_by_its_key() {
    let lab = Lab::start().await;
    let granted = lab.claim(KEY, "2:phone").await;
    assert_eq!(granted.status, 201, "{}", granted.body);
    let lease = granted.body["lease"].as_u64().unwrap();
    assert_eq!(lab.claim(KEY, "2:phone").await.body["lease"], lease, "asking twice is asking once");
    assert_eq!(lab.claim(KEY, "phone").await.body["code"], "request_id_reused");
    let renewed = lab.post(&format!("/v1/leases/{lease}/renew"), &[KEY], &json!({})).await;
    assert_eq!((renewed.status, &renewed.body["promise_ms"]), (200, &json!(180_000)));
    let until = granted.body["granted_at"].as_u64().unwrap() + 60_000;
    let extended = lab.post(&format!("/v1/leases/{lease}/extend"), &[KEY], &json!({ "until": until })).await;
    assert_eq!((extended.status, &extended.body["until"]), (200, &json!(until)), "{}", extended.body);
    for (headers, status) in
        [(vec![], 403), (vec![OTHER_KEY], 403), (vec![("leasehold-owner", "you@there")], 403), (vec![KEY], 200)]
    {
        let released =
            lab.post(&format!("/v1/leases/{lease}/release"), &headers, &json!({ "outcome": "passed" })).await;
        assert_eq!(released.status, status, "{headers:?}: {}", released.body);
    }
    let again = lab.post(&format!("/v1/leases/{lease}/release"), &[], &json!({})).await;
    assert_eq!((again.status, &again.body["why"]), (200, &json!("released")), "releasing what has ended says how");
    let repeat = lab.claim(KEY, "2:phone").await;
    assert_eq!((repeat.status, &repeat.body["code"]), (410, &json!("released")));
    let shown = lab.get(&format!("/v1/leases/{lease}"), &[]).await.body;
    assert_eq!((&shown["state"], &shown["ended"]["outcome"]), (&json!("ended"), &json!("passed")));
    let history = lab.get("/v1/resources/pixel-1/history", &[]).await.body;
    assert_eq!(history["items"][0]["lease"], lease);
}

#[tokio::test]
async fn a_claim_that_waits_is_asked_again_and_granted_while_asking() {
    let lab = Lab::start().await;
    let held = lab.claim(KEY, "2:phone").await.body["lease"].as_u64().unwrap();
    let waiting = lab.claim(OTHER_KEY, "phone").await;
    assert_eq!((waiting.status, &waiting.body["place"]), (202, &json!(1)), "{}", waiting.body);
    assert_eq!(waiting.body["in_the_way"][0]["lease"], held);
    let claim = waiting.body["claim"].as_u64().unwrap();
    assert!(waiting.head.contains(&format!("location: /v1/claims/{claim}")), "{}", waiting.head);
    assert_eq!(lab.get("/v1/queue", &[]).await.body["items"][0]["claim"], claim);
    let why = lab.get(&format!("/v1/why/claim/{claim}"), &[]).await.body;
    assert!(why["reasons"].to_string().contains("is held by me@here"), "{why}");
    let path = format!("/v1/claims/{claim}");
    let (release_path, key) = (format!("/v1/leases/{held}/release"), [KEY]);
    let body = json!({});
    let (asked, released) = tokio::join!(lab.get(&path, &[OTHER_KEY]), lab.post(&release_path, &key, &body));
    assert_eq!(released.status, 200);
    assert_eq!((asked.status, &asked.body["state"]), (200, &json!("granted")), "{}", asked.body);
    let lease = asked.body["lease"]["lease"].as_u64().unwrap();
    let listed = lab.get("/v1/leases", &[]).await.body;
    assert_eq!(listed["items"][0]["lease"], lease);
    let revoked = lab.post(&format!("/v1/leases/{lease}/revoke"), &[ME], &json!({ "force": true })).await;
    assert_eq!(revoked.status, 200, "{}", revoked.body);
    let past = lab.get("/v1/leases?all=true&limit=1", &[]).await.body;
    assert_eq!((&past["items"][0]["lease"], past["items"].as_array().map(Vec::len)), (&json!(lease), Some(1)));
    assert_eq!(past["next"], lease.to_string());
}

#[tokio::test]
async fn refusals_are_problems_with_their_code() {
    let lab = Lab::start().await;
    let body = |text: &str| text.to_owned();
    let claim = |need: &str| json!({ "request_id": "a", "needs": [need] }).to_string();
    let table: Vec<(&str, &str, String, u16, &str)> = vec![
        ("GET", "/v1/nothing", body(""), 404, "not_found"),
        ("PATCH", "/v1/leases", body(""), 405, "method_not_allowed"),
        ("GET", "/v1/leases/seven", body(""), 400, "invalid_params"),
        ("GET", "/v1/leases/77", body(""), 404, "not_found"),
        ("GET", "/v1/leases?limit=x", body(""), 400, "invalid_params"),
        ("GET", "/v1/leases?cursor=x", body(""), 400, "invalid_params"),
        ("GET", "/v1/resources/none", body(""), 404, "not_found"),
        ("GET", "/v1/resources?need=phone,,", body(""), 400, "invalid_need"),
        ("GET", "/v1/claims/9", body(""), 404, "not_found"),
        ("GET", "/v1/why/life/1", body(""), 404, "not_found"),
        ("POST", "/v1/leases", body("{nonsense"), 400, "parse_error"),
        ("POST", "/v1/leases", body("[]"), 400, "invalid_request"),
        ("POST", "/v1/leases", body("{\"needs\":7}"), 400, "invalid_params"),
        ("POST", "/v1/leases", body("{\"needs\":[\"phone\"]}"), 400, "invalid_params"),
        ("POST", "/v1/leases", claim("phone,os=ios"), 422, "impossible"),
        ("POST", "/v1/leases", claim("fax"), 422, "impossible"),
        ("POST", "/v1/leases/77/release", body("{}"), 404, "not_found"),
        ("POST", "/v1/leases/77/renew", body("{}"), 404, "not_found"),
        ("POST", "/v1/match", body("{\"need\":\"fax\"}"), 404, "not_found"),
        ("POST", "/v1/match", body("{}"), 400, "invalid_params"),
        ("POST", "/v1/sessions/77/kick", body("{}"), 404, "not_found"),
        ("POST", "/v1/claims/77/cancel", body("{}"), 404, "not_found"),
        ("POST", "/v1/resources/pixel-1/fly", body("{}"), 404, "not_found"),
        ("POST", "/v1/resources/none/drain", body("{}"), 404, "not_found"),
        ("PUT", "/v1/resources/pixel-1", body("{\"pool\":\"phone\"}"), 409, "name_taken"),
        ("PUT", "/v1/resources/a", body("{\"pool\":\"phone\",\"labels\":{\"os\":[]}}"), 400, "invalid_params"),
        ("PUT", "/v1/resources/a", body("{\"pool\":\"phone\",\"secrets\":{}}"), 400, "not_in_this_version"),
        ("POST", "/v1/inventory/apply", body("{\"text\":\"[[pool]]\"}"), 400, "invalid_inventory"),
        ("POST", "/v1/leases", "x".repeat(300 * 1024), 413, "body_too_long"),
    ];
    for (index, (method, path, body, status, code)) in table.into_iter().enumerate() {
        let key = format!("{index:064}");
        let got = lab.ask(method, path, &[("leasehold-key", &key)], &body).await;
        let shown: String = body.chars().take(60).collect();
        assert_eq!((got.status, &got.body["code"]), (status, &json!(code)), "{method} {path} {shown}: {}", got.body);
        assert!(got.head.contains("application/problem+json"), "{method} {path}: {}", got.head);
        assert_eq!(got.body["type"], format!("urn:leasehold:{code}"));
    }
    assert_eq!(lab.post("/v1/leases", &[], &json!({})).await.status, 403, "no key, no lease");
    let short = lab.post("/v1/leases", &[("leasehold-key", "short")], &json!({})).await;
    assert_eq!((short.status, &short.body["code"]), (400, &json!("invalid_params")));
    let foreign = lab.get("/v1/status", &[("origin", "https://evil.example")]).await;
    assert_eq!((foreign.status, &foreign.body["code"]), (403, &json!("not_admitted")));
}

#[tokio::test]
async fn resources_are_set_marked_matched_and_removed() {
    let lab = Lab::start().await;
    let body = json!({ "pool": "phone", "labels": { "os": "ios", "api": 17, "new": true }, "slots": 2 });
    let set = lab.ask("PUT", "/v1/resources/iphone-1", &[ME], &body.to_string()).await;
    assert_eq!((set.status, &set.body["changes"][0]["action"]), (200, &json!("add")), "{}", set.body);
    let shown = lab.get("/v1/resources/iphone-1", &[]).await.body;
    assert_eq!(
        (&shown["state"], &shown["labels"]["api"], &shown["origin"]),
        (&json!("free"), &json!(17), &json!("api"))
    );
    let drained = lab.post("/v1/resources/iphone-1/drain", &[ME], &json!({ "reason": "battery" })).await;
    assert_eq!(drained.status, 200);
    let shown = lab.get("/v1/resources/iphone-1", &[]).await.body;
    assert_eq!((&shown["drained"]["by"], &shown["drained"]["reason"]), (&json!("me@here"), &json!("battery")));
    let matches = lab.post("/v1/match", &[], &json!({ "need": "phone where os == 'ios'" })).await.body;
    assert_eq!(matches["items"][0]["reason"], "it is drained by me@here: battery");
    let listed = lab.get("/v1/resources?need=phone,os%3Dandroid&limit=1", &[]).await.body;
    assert_eq!((&listed["items"][0]["name"], &listed["next"]), (&json!("pixel-1"), &json!("pixel-1")));
    let rest = lab.get("/v1/resources?need=phone,os%3Dandroid&cursor=pixel-1", &[]).await.body;
    assert_eq!((&rest["items"][0]["name"], &rest["next"]), (&json!("pixel-2"), &Value::Null));
    assert_eq!(lab.ask("DELETE", "/v1/resources/iphone-1", &[ME], "").await.status, 200);
    assert_eq!(lab.get("/v1/resources/iphone-1", &[]).await.status, 404);
    let journal = lab.get("/v1/journal?limit=1000", &[]).await.body;
    let kinds: Vec<&str> =
        journal["items"].as_array().unwrap().iter().filter_map(|e| e["body"]["type"].as_str()).collect();
    assert_eq!(kinds.last(), Some(&"resource_removed"), "{kinds:?}");
    let page = lab.get("/v1/journal?after=1&limit=1", &[]).await.body;
    assert_eq!((&page["items"][0]["event"], &page["next"]), (&json!(2), &json!("2")));
}

#[tokio::test]
async fn a_follower_is_sent_what_was_and_what_comes() {
    let lab = Lab::start().await;
    let mut stream = TcpStream::connect(lab.address).await.unwrap();
    let request = format!("GET /v1/events HTTP/1.1\r\nhost: {}\r\nlast-event-id: 1\r\n\r\n", lab.address);
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut seen = String::new();
    let mut chunk = [0_u8; 4096];
    while !seen.contains("resource_added") {
        let some = stream.read(&mut chunk).await.unwrap();
        seen.push_str(std::str::from_utf8(&chunk[..some]).unwrap());
    }
    assert!(seen.contains("id: 2\n") && !seen.contains("id: 1\n"), "{seen}");
    lab.post("/v1/resources/pixel-1/quarantine", &[ME], &json!({ "reason": "cracked" })).await;
    while !seen.contains("resource_quarantined") {
        let some = stream.read(&mut chunk).await.unwrap();
        seen.push_str(std::str::from_utf8(&chunk[..some]).unwrap());
    }
    lab.shared.process.closing.cancel();
    while stream.read(&mut chunk).await.unwrap() > 0 {}
}

#[tokio::test]
async fn probes_and_scrapers_are_answered() {
    let lab = Lab::start().await;
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(lab.get(path, &[]).await.status, 200, "{path}");
    }
    let status = lab.get("/v1/status", &[]).await.body;
    assert_eq!((&status["state"], &status["pools"][0]["slots_free"]), (&json!("serving"), &json!(2)));
    lab.shared.handle.stop().await;
    let ready = lab.get("/readyz", &[]).await;
    assert_eq!((ready.status, &ready.body["code"]), (503, &json!("stopping")));
    assert_eq!(lab.get("/healthz", &[]).await.status, 200);
}

#[tokio::test]
async fn every_described_route_is_there() {
    let lab = Lab::start().await;
    let documents = crate::protocol::schema::documents();
    let (_, openapi) = documents.iter().find(|(name, _)| *name == "openapi.json").unwrap();
    for (path, verbs) in openapi["paths"].as_object().unwrap() {
        // Followers are answered for as long as they like.
        for verb in verbs.as_object().unwrap().keys().filter(|_| path != "/v1/events") {
            let asked = path.replace("{name}", "pixel-1").replace("{kind}", "lease").replace("{id}", "77");
            let got = lab.ask(&verb.to_uppercase(), &asked, &[], "{}").await;
            assert_ne!(got.status, 405, "{verb} {path}");
            assert!(!got.body["detail"].to_string().contains("there is nothing at"), "{verb} {path}: {}", got.body);
        }
    }
}
