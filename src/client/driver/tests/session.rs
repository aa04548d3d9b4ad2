//! Sessions over sockets: grant and release, drops, silence, loss, cancel by dropping.

use serde_json::json;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::{Broker, done, granted, opened, released};
use crate::client::{Client, ClientError, Event, Network, Standing, close_session};
use crate::clock::boot_now;
use crate::protocol::call::ClaimRequest;

/// Long enough that no machine is so slow.
const TTL: u64 = 600_000;

fn phone() -> ClaimRequest {
    ClaimRequest { needs: vec!["phone".to_owned()], ..ClaimRequest::default() }
}

#[tokio::test]
async fn a_lease_is_granted_released_and_the_session_closed_cleanly() {
    let broker = Broker::new().await;
    let script = async {
        let mut peer = broker.opened(TTL).await;
        peer.grant().await;
        let release = peer.request("lease.release").await;
        assert_eq!(release["params"], json!({"lease": 7, "outcome": "passed"}));
        peer.answer(&release, released("released")).await;
        let close = peer.request("session.close").await;
        peer.answer(&close, done()).await;
        match peer.next().await {
            Some(Ok(Message::Close(Some(frame)))) => assert_eq!(frame.code, CloseCode::Normal),
            other => panic!("no clean close: {other:?}"),
        }
    };
    let use_it = async {
        let before = boot_now();
        let client = Client::connect(broker.options()).await.expect("a session");
        assert_eq!((client.session(), client.secret().as_deref()), (Some(3), Some("hush")));
        let lease = client.acquire(phone()).await.expect("a lease");
        assert!(lease.deadline() >= before.plus(TTL - TTL / 50) && lease.deadline() <= boot_now().plus(TTL));
        assert_eq!(lease.state().standing, Standing::Active);
        assert_eq!(lease.release(Some("passed")).await.expect("released").why, "released");
        client.close().await.expect("closed");
        assert_eq!(client.closed().await, ClientError::Closed);
        assert_eq!(client.acquire(phone()).await.expect_err("closed").code(), "closed");
    };
    tokio::join!(script, use_it);
}

#[tokio::test]
async fn a_dropped_socket_is_replaced_and_the_lease_kept() {
    let broker = Broker::new().await;
    let script = async {
        let mut peer = broker.opened(TTL).await;
        peer.grant().await;
        drop(peer);
        let mut peer = broker.socket().await;
        let resume = peer.request("session.resume").await;
        assert_eq!((&resume["params"]["session"], &resume["params"]["secret"]), (&json!(3), &json!("hush")));
        peer.answer(&resume, opened(11, TTL, &[granted(1, 7)])).await;
        let release = peer.request("lease.release").await;
        peer.answer(&release, released("released")).await;
        peer
    };
    let use_it = async {
        let client = Client::connect(broker.options()).await.expect("a session");
        let mut events = client.events();
        let lease = client.acquire(phone()).await.expect("a lease");
        let first = lease.deadline();
        let mut seen = Vec::new();
        loop {
            let event = events.next().await.expect("more events");
            if let Event::Connected { resumed, .. } = &event {
                assert!(resumed);
                break;
            }
            seen.push(event);
        }
        assert!(seen.iter().any(|event| matches!(event, Event::Disconnected { .. })), "{seen:?}");
        assert!(lease.deadline() >= first && client.is_up());
        lease.release(None).await.expect("released");
        client
    };
    tokio::join!(script, use_it);
}

#[tokio::test]
async fn a_silent_broker_is_left_for_another_socket() {
    let broker = Broker::new().await;
    let script = async {
        // Reads nothing and says nothing from here on, but keeps the socket.
        let silent = broker.opened(300).await;
        let mut peer = broker.socket().await;
        let resume = peer.request("session.resume").await;
        peer.answer(&resume, opened(11, TTL, &[])).await;
        (silent, peer)
    };
    let use_it = async {
        let (client, mut events) = Client::start_watched(broker.options()).expect("it starts");
        assert!(matches!(events.next().await, Some(Event::Connected { session: 3, resumed: false, .. })));
        while let Some(event) = events.next().await {
            if matches!(event, Event::Connected { resumed: true, .. }) {
                return client;
            }
        }
        panic!("it gave up");
    };
    tokio::join!(script, use_it);
}

#[tokio::test]
async fn an_unrenewed_lease_is_lost_at_its_deadline_and_released() {
    let broker = Broker::new().await;
    let script = async {
        let mut peer = broker.opened(400).await;
        peer.grant().await;
        // No answer from here on counts: renewals get none, resumes an older number.
        drop(peer);
        loop {
            let mut peer = broker.socket().await;
            let resume = peer.request("session.resume").await;
            peer.answer(&resume, opened(9, TTL, &[granted(1, 7)])).await;
            while let Some(request) = peer.any_request().await {
                if request["method"] == "lease.release" {
                    assert_eq!(request["params"], json!({"lease": 7}));
                    return;
                }
                assert_eq!(request["method"], "session.renew");
            }
        }
    };
    let use_it = async {
        let client = Client::connect(broker.options()).await.expect("a session");
        let mut lease = client.acquire(phone()).await.expect("a lease");
        let deadline = lease.deadline();
        assert_eq!(lease.ended().await, Standing::Lost);
        assert!(boot_now() >= deadline, "not before its deadline");
        assert_eq!(lease.over().await, Standing::Lost);
        (client, lease)
    };
    tokio::join!(script, use_it);
}

#[tokio::test]
async fn an_ending_is_told_with_its_reason() {
    let broker = Broker::new().await;
    let script = async {
        let mut peer = broker.opened(TTL).await;
        peer.grant().await;
        let ending = json!({"why": "revoked", "message": "so", "since": 1, "since_time": ""});
        peer.notice("lease.ending", json!({"lease": 7, "ending": ending, "now": 1, "now_time": ""})).await;
        peer.notice("lease.ended", released("revoked")).await;
        peer
    };
    let use_it = async {
        let client = Client::connect(broker.options()).await.expect("a session");
        let mut lease = client.acquire(phone()).await.expect("a lease");
        let why = match lease.ended().await {
            Standing::Ending(ending) => ending.why,
            Standing::Ended { why, .. } => why,
            other => panic!("not ending: {other:?}"),
        };
        assert_eq!(why, "revoked");
        assert!(matches!(lease.over().await, Standing::Ended { .. }));
    };
    tokio::join!(script, use_it);
}

#[tokio::test]
async fn what_is_dropped_is_cancelled_released_and_closed() {
    let broker = Broker::new().await;
    let script = async {
        let mut peer = broker.opened(TTL).await;
        let acquire = peer.request("lease.acquire").await;
        let waits = json!({"request_id": 1, "claim": 70, "state": "queued", "place": 2, "now": 1, "now_time": ""});
        peer.answer(&acquire, waits).await;
        let cancel = peer.request("lease.cancel").await;
        assert_eq!(cancel["params"], json!({"request_id": 1}));
        peer.grant().await;
        let release = peer.request("lease.release").await;
        assert_eq!(release["params"], json!({"lease": 7}));
        peer.request("session.close").await;
    };
    let use_it = async {
        let client = Client::connect(broker.options()).await.expect("a session");
        let mut waiting = client.acquire(phone());
        assert_eq!(waiting.progress().await.expect("it waits").place, Some(2));
        drop(waiting);
        drop(client.acquire(phone()).await.expect("a lease"));
        drop(client);
    };
    tokio::join!(script, use_it);
}

#[tokio::test]
async fn a_session_that_ended_is_told_to_everyone() {
    let broker = Broker::new().await;
    let script = async {
        let mut peer = broker.opened(TTL).await;
        peer.grant().await;
        peer.request("lease.acquire").await;
        let frame = CloseFrame { code: CloseCode::Library(4003), reason: "session_ended: kicked".into() };
        let _ = peer.socket.close(Some(frame)).await;
        while let Some(Ok(_)) = peer.next().await {}
    };
    let use_it = async {
        let client = Client::connect(broker.options()).await.expect("a session");
        let mut lease = client.acquire(phone()).await.expect("a lease");
        let error = client.acquire(phone()).await.expect_err("the session ends");
        assert!(matches!(&error, ClientError::SessionGone(why) if why.contains("kicked")), "{error}");
        assert_eq!(lease.ended().await, Standing::Lost);
        assert_eq!(client.closed().await.code(), "session_gone");
        assert_eq!(lease.release(None).await.expect_err("nobody is there").code(), "session_gone");
    };
    tokio::join!(script, use_it);
}

#[tokio::test]
async fn a_session_is_closed_from_outside() {
    let broker = Broker::new().await;
    let script = async {
        for refused in [None, Some("session_gone"), Some("forbidden")] {
            let mut peer = broker.socket().await;
            let close = peer.request("session.close").await;
            assert_eq!(close["params"], json!({"session": 3, "secret": "hush"}));
            match refused {
                None => peer.answer(&close, done()).await,
                Some(code) => {
                    let error = json!({"code": -32000, "message": "no", "data": {"code": code}});
                    peer.say(json!({"jsonrpc": "2.0", "id": close["id"], "error": error})).await;
                }
            }
        }
    };
    let close = async {
        let (urls, network) = ([broker.url()], Network::default());
        assert_eq!(close_session(&urls, &network, 3, "hush").await, Ok(()));
        assert_eq!(close_session(&urls, &network, 3, "hush").await, Ok(()), "gone is closed");
        assert_eq!(close_session(&urls, &network, 3, "hush").await.expect_err("refused").code(), "forbidden");
    };
    tokio::join!(script, close);
}
