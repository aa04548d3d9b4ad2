//! Secrets stay: their values, and the secrets of sessions and keys of leases, are nowhere but in
//! the message to whom they belong.

use std::path::Path;

use serde_json::{Value, json};

use super::common::broker::Broker;
use super::common::http;

const FROM_ENV: &str = "tangerine-envelope-7781";
const FROM_FILE: &str = "cobalt-lantern-4402";

fn lab(file: &Path) -> String {
    format!(
        r#"
[[resource]]
name = "phone-1"
pool = "phone"
secrets = {{ pin = {{ env = "PHONE_PIN" }}, key = {{ file = "{}" }} }}

[[resource]]
name = "broken-1"
pool = "broken"
secrets = {{ pin = {{ env = "NOT_SET_ANYWHERE" }} }}

[[resource]]
name = "broken-2"
pool = "gone"
secrets = {{ pin = {{ file = "/nonexistent/pin" }} }}
"#,
        file.display()
    )
}

/// Every file below a directory, with its bytes.
fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
    found
}

fn contains(bytes: &[u8], word: &str) -> bool {
    bytes.windows(word.len()).any(|window| window == word.as_bytes())
}

#[test]
fn a_secret_reaches_its_holder_and_nothing_else() {
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("key");
    std::fs::write(&file, format!("{FROM_FILE}\n")).unwrap();
    let mut broker = Broker::with(&lab(&file)).env("PHONE_PIN", FROM_ENV).env("LEASEHOLD_LOG", "trace").start();
    let mut client = broker.connect();
    client.open_with(json!({"instance": "the-first-process", "owner": "tester@lab"}));
    let session_secret = client.opened["secret"].as_str().unwrap().to_owned();
    let handed = json!({"pin": FROM_ENV, "key": FROM_FILE});
    let lease = client.lease(&["phone"]);
    assert_eq!(lease["resources"]["phone"][0]["secrets"], handed);
    // A repeat and a resume hand it to the holder again; a list need not.
    assert_eq!(client.acquire_with(json!({"request_id": 1, "needs": ["phone"]}))["lease"]["lease"], lease["lease"]);
    let mut again = broker.connect();
    let resumed = again.call(
        "session.resume",
        json!({"session": client.session(), "secret": session_secret, "instance": "the-first-process"}),
    );
    assert_eq!(resumed["state"]["claims"][0]["lease"]["resources"]["phone"][0]["secrets"], handed);
    // Somebody waits, is told who is in the way, and gets it by notification; and one over HTTP.
    let mut waiter = broker.session("waiter@lab");
    let mut told = waiter.acquire(&["phone"]).to_string();
    again.release(lease["lease"].as_u64().unwrap());
    let granted = waiter.notice("lease.granted");
    assert_eq!(granted["lease"]["resources"]["phone"][0]["secrets"], handed);
    let key = "5a".repeat(32);
    let headers = [("leasehold-key", key.as_str()), ("leasehold-owner", "keyed@lab")];
    let body = json!({"request_id": "one", "needs": ["phone"]});
    let waits = http::request(broker.port(), "POST", "/v1/leases?wait_ms=0", &headers, Some(&body));
    assert_eq!(waits.status, 202, "{waits:?}");
    waiter.release(granted["lease"]["lease"].as_u64().unwrap());
    let created = http::request(broker.port(), "POST", "/v1/leases", &headers, Some(&body));
    assert_eq!((created.status, &created.json()["resources"]["phone"][0]["secrets"]), (201, &handed), "{created:?}");
    let keyed = created.json()["lease"].as_u64().unwrap();
    // Everything that anybody may read.
    let port = broker.port();
    let paths = [
        "/v1/status".to_owned(),
        "/v1/resources".to_owned(),
        "/v1/resources/phone-1".to_owned(),
        "/v1/resources/phone-1/history".to_owned(),
        "/v1/leases?all=true".to_owned(),
        format!("/v1/leases/{keyed}"),
        format!("/v1/leases/{}", lease["lease"]),
        format!("/v1/claims/{}", created.json()["claim"]),
        "/v1/queue".to_owned(),
        "/v1/sessions".to_owned(),
        "/v1/journal?limit=1000".to_owned(),
        "/v1/why/resource/phone-1".to_owned(),
        format!("/v1/why/lease/{keyed}"),
        "/metrics".to_owned(),
    ];
    for path in &paths {
        told.push_str(&broker.http("GET", path, None).body);
    }
    told.push_str(&broker.http("POST", "/v1/match", Some(&json!({"need": "phone"}))).body);
    let kept = http::request(port, "POST", &format!("/v1/leases/{keyed}/renew"), &headers, None);
    assert_eq!(kept.status, 200, "{kept:?}");
    told.push_str(&kept.body);
    for line in ["resource show phone-1", "lease ls --all", "session ls", "events", "why resource:phone-1"] {
        let output = broker.sh(line);
        told.push_str(&output.stdout);
        told.push_str(&output.stderr);
    }
    let on_disk_while_it_runs = files(broker.dir());
    broker.term().exits(0);
    let stderr = broker.stderr();
    for word in [FROM_ENV, FROM_FILE, &session_secret, &key] {
        assert!(!told.contains(word), "a listing has {word}");
        assert!(!stderr.contains(word), "the log has {word}");
        for (name, bytes) in on_disk_while_it_runs.iter().chain(&files(broker.dir())) {
            assert!(!contains(bytes, word), "{name} has {word}");
        }
    }
    // Where they are is not told either.
    assert!(!told.contains("PHONE_PIN") && !told.contains(&file.display().to_string()), "a listing has a reference");
}

#[test]
fn a_secret_that_cannot_be_read_ends_the_lease_and_quarantines_the_resource() {
    let elsewhere = tempfile::tempdir().unwrap();
    let broker = Broker::with(&lab(&elsewhere.path().join("absent"))).env("PHONE_PIN", FROM_ENV).start();
    let mut client = broker.session("tester@lab");
    for (pool, resource) in [("broken", "broken-1"), ("gone", "broken-2"), ("phone", "phone-1")] {
        let claim = client.acquire(&[pool]);
        assert_eq!(
            (&claim["state"], &claim["end"]["code"]),
            (&json!("ended"), &json!("secret_unavailable")),
            "{claim}"
        );
        assert_eq!(claim["end"]["need"], pool);
        assert_eq!(claim["lease"], Value::Null, "{claim}");
        let message = claim["end"]["message"].as_str().unwrap();
        assert!(message.contains(resource), "{message}");
        let shown = broker.http("GET", &format!("/v1/resources/{resource}"), None).json();
        assert_eq!(shown["state"], "quarantined", "{shown}");
        assert!(shown.to_string().contains("secret"), "the reason names the secret: {shown}");
        assert!(!shown.to_string().contains(FROM_ENV), "{shown}");
        // It waits for the resource now, and is told what for.
        let next = client.acquire(&[pool]);
        assert_eq!(next["state"], "queued");
        assert!(next["blocked"].to_string().contains("quarantined"), "{next}");
    }
    let history = broker.http("GET", "/v1/resources/broken-1/history", None).json();
    assert_eq!(history["items"][0]["ended"]["why"], "secret_unavailable", "{history}");
    let key = "7c".repeat(32);
    broker.sh("resource restore broken-1");
    let body = json!({"request_id": "one", "needs": ["broken"], "fail_fast": true});
    let answer = http::request(broker.port(), "POST", "/v1/leases", &[("leasehold-key", key.as_str())], Some(&body));
    assert!([201, 409].contains(&answer.status), "{answer:?}");
    assert_ne!(answer.status, 201, "{answer:?}");
}
