//! Sessions that bring resources, as the engine keeps them: by presence, and with everybody told.

use std::collections::BTreeMap;
use std::sync::Arc;

use leasehold::core::apply::{Declared, DeclaredResource};
use leasehold::core::inventory::ResourceSpec;
use leasehold::core::session::Provider;
use leasehold::core::types::{ProviderName, ResourceName};
use leasehold::engine::input::{Answer, Call, Notice, Outgoing};
use leasehold::protocol::rpc::Id;

use super::lab::{Client, Lab, TTL};
use super::words::{hash, key};

fn call(secret: &str, names: &[&str]) -> Call {
    let one = |name: &&str| DeclaredResource {
        spec: ResourceSpec {
            name: ResourceName::parse(name).unwrap(),
            pool: key("rig"),
            labels: BTreeMap::new(),
            properties: BTreeMap::new(),
            secrets: BTreeMap::new(),
            slots: 1,
        },
        was: None,
    };
    let name = ProviderName::parse("rack").unwrap();
    let provider = Provider { name, key: hash(secret), address: "10.0.0.7".into() };
    let declared = Arc::new(Declared { pools: Vec::new(), resources: names.iter().map(one).collect() });
    Call::Provide { provider, declared, confirmed: true }
}

fn provide(lab: &mut Lab, client: &Client, secret: &str, names: &[&str]) -> Id {
    let id = lab.call(client.socket, call(secret, names));
    lab.go();
    id
}

#[track_caller]
fn provided(lab: &mut Lab, client: &Client, secret: &str, names: &[&str]) {
    let id = provide(lab, client, secret, names);
    assert!(matches!(lab.answer(&id), Some(Ok(Answer::Applied(applied))) if applied.applied), "{:?}", lab.answer(&id));
}

fn offline(lab: &Lab) -> Vec<&str> {
    let resources = lab.machine.broker().state().resources.values();
    resources.filter(|it| it.marks.offline.is_some()).map(|it| it.spec.name.as_str()).collect()
}

#[test]
fn what_it_brought_is_offline_a_ttl_after_it_was_last_heard_of_and_holders_are_told_once_a_lease() {
    let mut lab = Lab::of(&[("phone", 1)]);
    let (rig, holder) = (lab.client(TTL), lab.client(60_000));
    provided(&mut lab, &rig, "k", &["v1", "v2", "v3"]);
    let lease = lab.lease(&holder, 1, &["2:rig", "phone"]);
    lab.wait(1_000);
    lab.alive(rig.socket);
    lab.drop_socket(rig.socket);
    lab.wait(TTL - 100);
    assert!(offline(&lab).is_empty(), "a drop starts no new clock");
    lab.wait(200);
    assert_eq!(offline(&lab), ["v1", "v2", "v3"]);
    assert!(lab.is_held(lease), "who holds it keeps it");
    assert_eq!(lab.notices(holder.socket), ["offline"]);
    let told = lab.told[&holder.socket].iter().find_map(|outgoing| match outgoing {
        Outgoing::Notice(Notice::Offline(reach)) => Some(reach),
        _ => None,
    });
    assert_eq!(told.unwrap().resources, ["v1", "v2"]);
    // Whoever resumes learns it from the state.
    let mut holder = holder;
    let state = lab.resume(&mut holder).state;
    let picks = &state.claims[0].lease.as_ref().unwrap().resources["rig"];
    assert!(picks.iter().all(|pick| pick.offline.is_some()), "{picks:?}");
    let rig = lab.client(TTL);
    provided(&mut lab, &rig, "k", &["v1", "v2", "v3"]);
    assert!(offline(&lab).is_empty());
    assert_eq!(lab.notices(holder.socket), ["online"]);
}

#[test]
fn a_successor_takes_over_at_once_and_a_stranger_waits_for_the_ttl() {
    let mut lab = Lab::of(&[]);
    let (first, holder) = (lab.client(TTL), lab.client(60_000));
    provided(&mut lab, &first, "k", &["v1"]);
    lab.lease(&holder, 1, &["rig"]);
    lab.drop_socket(first.socket);
    let stranger = lab.client(60_000);
    let refused = provide(&mut lab, &stranger, "another", &["v1"]);
    assert_eq!(lab.refusal(&refused), "provider_taken");
    let successor = lab.client(60_000);
    provided(&mut lab, &successor, "k", &["v1"]);
    lab.wait(2 * TTL);
    assert!(!lab.has_session(&first) && offline(&lab).is_empty(), "its predecessor's end takes nothing along");
    assert!(lab.notices(holder.socket).is_empty());
    // One that lives all the same is told.
    let mut first = lab.client(60_000);
    provided(&mut lab, &first, "k", &["v1"]);
    assert_eq!(lab.notices(successor.socket), ["superseded"]);
    lab.close_socket(first.socket);
    lab.go();
    assert_eq!(offline(&lab), ["v1"]);
    first = lab.client(60_000);
    provided(&mut lab, &first, "another", &["v1"]);
    assert!(offline(&lab).is_empty(), "nobody lives under the name: it is anybody's");
}

#[test]
fn after_a_restart_a_provider_has_its_ttl() {
    let mut lab = Lab::of(&[]);
    let mut rig = lab.client(10_000);
    provided(&mut lab, &rig, "k", &["v1"]);
    let holder = lab.client(60_000);
    // Away for longer than its ttl, which was the broker's doing.
    let mut lab = lab.restarted(60_000);
    lab.wait(9_000);
    assert!(offline(&lab).is_empty());
    lab.resume(&mut rig);
    lab.wait(9_000);
    assert!(offline(&lab).is_empty(), "it is there, and need not say again what it brings");
    lab.renew(&mut rig);
    let mut lab = lab.restarted(0);
    lab.wait(9_900);
    assert!(offline(&lab).is_empty());
    lab.wait(200);
    assert_eq!(offline(&lab), ["v1"]);
    drop(holder);
}

#[test]
fn what_was_not_stored_did_not_happen() {
    let mut lab = Lab::of(&[]);
    let rig = lab.client(60_000);
    let id = lab.call(rig.socket, call("k", &["v1"]));
    assert!(lab.step());
    assert!(!lab.is_answered(&id), "it is not durable yet");
    lab.fail();
    lab.resolve(false);
    assert_eq!(lab.refusal(&id), "unavailable");
    assert!(lab.machine.broker().state().providers.is_empty());
    lab.commit();
    let again = lab.call(rig.socket, call("k", &["v1"]));
    lab.go();
    assert!(matches!(lab.answer(&again), Some(Ok(Answer::Applied(_)))));
}
