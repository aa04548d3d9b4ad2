//! A session is resumed while its old socket is half open: the old one is told, and whatever
//! still arrives on it changes nothing.

use leasehold::clock::boot_now;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::common::broker::Broker;
use super::common::proxy::Proxy;
use super::common::ws::Client;
use super::{LAB, number, queue, resume, session};

/// Everything that would end a lease or a session, from somebody who has none any more.
fn send_last_words(old: &mut Client, lease: u64) {
    let words = [("lease.release", json!({ "lease": lease })), ("session.close", json!({}))];
    for (id, (method, params)) in (100..).zip(words) {
        let call = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        // Fails where the broker has given the connection up by now.
        let _ = old.send(Message::text(call.to_string()));
    }
    let _ = old.send(Message::Close(None));
}

/// The lease is held by `new` still, and nobody else got what it holds.
#[track_caller]
fn still_held(new: &mut Client, lease: u64, next: &mut Client) {
    let state = new.call("lease.list", json!({}));
    assert_eq!(state["claims"][0]["lease"]["lease"], json!(lease), "{state}");
    assert_eq!(state["claims"][0]["lease"]["state"], "active", "{state}");
    let waiting = next.call("lease.list", json!({}));
    assert_eq!(waiting["claims"][0]["state"], "queued", "{waiting}");
    // And it is released by who may.
    assert_eq!(new.release(lease)["why"], "released");
    assert_eq!(next.notice("lease.granted")["state"], "granted");
}

fn holder_and_next(broker: &Broker, port: u16) -> (Client, u64, Client) {
    let mut holder = session(port, "holder", 60_000);
    let lease = number(&holder.lease(&["phone,name=phone-1"])["lease"]);
    let mut next = broker.session("next");
    queue(&mut next, &["phone,name=phone-1"]);
    (holder, lease, next)
}

#[test]
fn the_old_socket_is_told_and_has_no_say_any_more() {
    let broker = Broker::with_inventory(LAB);
    let (mut old, lease, mut next) = holder_and_next(&broker, broker.port());
    let mut new = resume(broker.port(), &old);
    assert_eq!(new.opened["state"]["claims"][0]["lease"]["lease"], json!(lease), "{}", new.opened);
    // It has not read yet that it is superseded.
    send_last_words(&mut old, lease);
    let (code, words) = old.closed();
    assert_eq!(code, 4000, "{words}");
    assert!(words.starts_with("superseded"), "{words}");
    still_held(&mut new, lease, &mut next);
}

#[test]
fn what_was_stuck_in_the_network_arrives_too_late() {
    let broker = Broker::with_inventory(LAB);
    let proxy = Proxy::to(broker.port());
    let (mut old, lease, mut next) = holder_and_next(&broker, proxy.port());
    proxy.silence_present();
    send_last_words(&mut old, lease);
    let mut new = resume(proxy.port(), &old);
    proxy.speak();
    // The end of the old connection: nothing of it is under way any more.
    let _: (u16, String) = old.closed();
    still_held(&mut new, lease, &mut next);
}

#[test]
fn the_end_of_the_old_connection_is_nobodys_drop() {
    let broker = Broker::with_inventory(
        "[[pool]]\nname = \"phone\"\non_drop = \"immediate\"\n[[resource]]\nname = \"phone-1\"\npool = \"phone\"\n",
    );
    let (old, lease, mut next) = holder_and_next(&broker, broker.port());
    let mut new = resume(broker.port(), &old);
    old.drop_connection();
    still_held(&mut new, lease, &mut next);
}

#[test]
fn another_process_may_close_the_session_and_nothing_else() {
    let broker = Broker::with_inventory(LAB);
    let (mut holder, lease, mut next) = holder_and_next(&broker, broker.port());
    let mut other = broker.connect();
    let (number, secret) = (holder.opened["session"].clone(), holder.opened["secret"].clone());
    let stolen = json!({ "session": number, "secret": secret, "instance": "thief" });
    assert_eq!(other.refused("session.resume", stolen), "wrong_instance");
    let guessed = json!({ "session": number, "secret": "0".repeat(64), "instance": "holder" });
    assert_eq!(other.refused("session.resume", guessed.clone()), "session_gone");
    assert_eq!(other.refused("session.close", guessed), "session_gone");
    assert!(holder.attend(boot_now().plus(1)), "the holder was not disturbed");
    let state: Value = holder.call("lease.list", json!({}));
    assert_eq!(state["claims"][0]["lease"]["lease"], json!(lease), "{state}");
    other.call("session.close", json!({ "session": number, "secret": secret }));
    assert_eq!(next.notice("lease.granted")["state"], "granted");
    assert_eq!(holder.closed().0, 4003);
}
