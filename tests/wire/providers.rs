//! Sessions that bring resources, over the wire: what is answered, told and shown, and what a bad
//! provider is told.

use serde_json::{Value, json};

use super::bystander::{Bystander, LAB};
use super::common::broker::Broker;

const KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const OTHER: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";

fn rig(resources: &Value) -> Value {
    json!({"name": "rack-7", "key": KEY, "host": "rack-7.lab", "resources": resources})
}

fn virtual_phone(name: &str) -> Value {
    json!({"name": name, "pool": "phone", "labels": {"os": "ios", "api": 17}, "properties": {"serial": name}})
}

#[test]
fn what_a_session_brings_is_shown_leased_and_offline_when_it_is_gone() {
    let broker = Broker::with_inventory(LAB);
    let mut bystander = Bystander::of(&broker);
    let mut provider = broker.session("rack@lab");
    let both = rig(&json!([virtual_phone("v1"), virtual_phone("v2")]));
    let applied = provider.call("provider.provide", both.clone());
    assert_eq!(applied["changes"].as_array().unwrap().len(), 2, "{applied}");
    let again = provider.call("provider.provide", both.clone());
    assert_eq!((&again["changes"], &again["unchanged"]), (&json!([]), &json!(2)), "asked twice is asked once");
    let shown = broker.http("GET", "/v1/resources/v1", None).json();
    assert_eq!((&shown["origin"], &shown["state"]), (&json!("provider:rack-7"), &json!("free")), "{shown}");
    let sessions = broker.http("GET", "/v1/sessions", None).json();
    assert!(sessions["items"].as_array().unwrap().iter().any(|it| it["provides"] == "rack-7"), "{sessions}");

    let mut holder = broker.session("ci@lab");
    let lease = holder.lease(&["phone,os=ios"]);
    assert_eq!(lease["resources"]["phone"][0]["properties"]["serial"], "v1");
    provider.close();
    let told = holder.notice("lease.offline");
    assert_eq!((&told["lease"], &told["resources"]), (&lease["lease"], &json!(["v1"])), "{told}");
    assert!(told["message"].as_str().unwrap().contains("provider rack-7 has left"), "{told}");
    let shown = broker.http("GET", "/v1/resources/v2", None).json();
    assert_eq!((&shown["state"], &shown["offline"]["by"]), (&json!("offline"), &json!("broker")), "{shown}");
    let shown = broker.http("GET", &format!("/v1/leases/{}", lease["lease"]), None).json();
    assert!(shown["resources"]["phone"][0]["offline"].is_string() && shown["state"] == "active", "{shown}");
    let matches = broker.http("POST", "/v1/match", Some(&json!({"need": "phone,name=v2"}))).json();
    let of_v2 = matches["items"].as_array().unwrap().iter().find(|it| it["name"] == "v2").unwrap().clone();
    assert_eq!((&of_v2["free"], &of_v2["reason"]), (&json!(false), &json!("it is offline: provider rack-7 has left")));
    let waiting = holder.acquire(&["phone,os=ios"]);
    assert!(waiting["blocked"].as_str().unwrap().contains("v2 is offline (provider rack-7 has left)"), "{waiting}");
    let why = broker.http("GET", "/v1/why/resource/v2", None).json();
    assert!(why["reasons"][0].as_str().unwrap().starts_with("it is offline since"), "{why}");
    let status = broker.http("GET", "/v1/status", None).json();
    let phones = status["pools"].as_array().unwrap().iter().find(|it| it["pool"] == "phone").unwrap().clone();
    assert_eq!((&phones["resources"], &phones["out"]), (&json!(4), &json!(2)), "{phones}");

    let mut provider = broker.session("rack@lab");
    provider.call("provider.provide", both);
    assert_eq!(holder.notice("lease.online")["resources"], json!(["v1"]));
    assert_eq!(holder.notice("lease.granted")["lease"]["resources"]["phone"][0]["name"], "v2");
    bystander.unharmed();
}

#[test]
fn a_name_has_one_provider_that_lives_or_its_successor() {
    let broker = Broker::with_inventory(LAB);
    let mut first = broker.session("rack@lab");
    first.call("provider.provide", rig(&json!([virtual_phone("v1")])));
    let mut stranger = broker.session("other@lab");
    let mut asked = rig(&json!([virtual_phone("v9")]));
    (asked["key"], asked["host"]) = (json!(OTHER), json!("desk.lab"));
    let refused = stranger.try_call("provider.provide", asked).unwrap_err();
    assert_eq!(refused["data"]["code"], "provider_taken");
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("rack-7.lab (127.0.0.1)") && message.contains("desk.lab (127.0.0.1)"), "{message}");
    let mut successor = broker.session("rack@lab");
    successor.call("provider.provide", rig(&json!([virtual_phone("v1")])));
    assert_eq!(first.notice("provider.superseded")["name"], "rack-7");
    first.close();
    assert_eq!(broker.http("GET", "/v1/resources/v1", None).json()["state"], "free");
}

#[test]
fn a_bad_provider_is_told_what_is_wrong() {
    let broker = Broker::with_inventory(LAB);
    let mut bystander = Bystander::of(&broker);
    let mut provider = broker.session("rack@lab");
    let table: &[(&str, Value, &str, &str)] = &[
        ("name", json!(""), "invalid_params", "provider name"),
        ("name", json!("a rack"), "invalid_params", "provider name"),
        ("name", json!("x".repeat(200)), "invalid_params", "provider name"),
        ("key", json!("short"), "invalid_params", "`key`"),
        ("key", json!("x".repeat(300)), "invalid_params", "`key`"),
        ("resources", json!({}), "invalid_params", "`resources`"),
        ("resources", json!([{"name": "v 1", "pool": "phone"}]), "invalid_params", "v 1"),
        ("resources", json!([{"name": "v1", "pool": "Phone"}]), "invalid_params", "Phone"),
        ("resources", json!([{"name": "v1", "pool": "p", "labels": {"a": []}}]), "invalid_params", "`a`"),
        ("resources", json!([{"name": "v1", "pool": "p", "labels": {"pool": 1}}]), "invalid_inventory", "`pool`"),
        ("resources", json!([{"name": "v1", "pool": "p", "slots": 0}]), "invalid_inventory", "0 slots"),
        ("resources", json!([virtual_phone("v1"), virtual_phone("v1")]), "invalid_inventory", "twice"),
        ("resources", json!([virtual_phone("phone-1")]), "name_taken", "the inventory file"),
    ];
    for (field, value, code, names) in table {
        let mut asked = rig(&json!([virtual_phone("v1")]));
        asked[*field] = value.clone();
        let refused = provider.try_call("provider.provide", asked).unwrap_err();
        assert_eq!(refused["data"]["code"], *code, "{field}: {refused}");
        assert!(refused["message"].as_str().unwrap().contains(names), "{field}: {refused}");
    }
    assert_eq!(broker.http("GET", "/v1/resources/v1", None).status, 404);
    assert_eq!(broker.connect().refused("provider.provide", rig(&json!([]))), "no_session");
    bystander.unharmed();
}
