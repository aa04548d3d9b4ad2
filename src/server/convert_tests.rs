//! Tests of reading calls: what is accepted, and what each mistake is told.

use serde_json::value::RawValue;

use super::{call, claim_spec, key_hash, owner};
use crate::core::command::TtlAsk;
use crate::core::need::Count;
use crate::engine::input::{Call, secret_hash};
use crate::protocol::call::ClaimRequest;

const LOCAL: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn read(method: &str, params: &str) -> Result<Call, crate::protocol::error::RpcError> {
    let params = RawValue::from_string(params.to_owned()).unwrap();
    call(method, Some(&params), LOCAL)
}

#[test]
fn every_mistake_has_a_code_and_names_what_is_wrong() {
    let many = format!("{{\"request_id\":1,\"needs\":[{}\"phone\"]}}", "\"phone\",".repeat(16));
    let long = format!("{{\"request_id\":1,\"needs\":[\"phone,os={}\"]}}", "x".repeat(1 << 20));
    let note = format!("{{\"request_id\":1,\"needs\":[\"phone\"],\"note\":\"{}\"}}", "x".repeat(2000));
    let lease = format!("{{\"lease\":\"{}\"}}", "x".repeat(1 << 16));
    let table: &[(&str, &str, &str, &str)] = &[
        ("lease.release", &lease, "invalid_params", "`lease`"),
        ("lease.steal", "{}", "unknown_method", "lease.acquire"),
        ("lease.release", "{}", "invalid_params", "lease"),
        ("lease.release", r#"{"lease":"seven"}"#, "invalid_params", "`lease`"),
        ("lease.release", r#"{"lease":-1}"#, "invalid_params", "`lease`"),
        ("lease.release", r#"{"lease":1,"outcome":"great"}"#, "invalid_params", "`outcome`"),
        ("lease.release", "[1]", "invalid_params", "`params`"),
        ("lease.release", "7", "invalid_params", "`params`"),
        ("lease.extend", r#"{"lease":1,"until":18446744073709551615}"#, "invalid_params", "`until`"),
        ("lease.cancel", r#"{"request_id":0}"#, "invalid_params", "`request_id`"),
        ("lease.acquire", r#"{"needs":["phone"]}"#, "invalid_params", "`request_id`"),
        ("lease.acquire", r#"{"request_id":"a","needs":["phone"]}"#, "invalid_params", "`request_id`"),
        ("lease.acquire", r#"{"request_id":1}"#, "invalid_params", "need"),
        ("lease.acquire", r#"{"request_id":1,"needs":"phone"}"#, "invalid_params", "`needs`"),
        ("lease.acquire", r#"{"request_id":1,"needs":[7]}"#, "invalid_params", "`needs`"),
        ("lease.acquire", r#"{"request_id":1,"needs":["Phone!"]}"#, "invalid_need", "Phone!"),
        ("lease.acquire", r#"{"request_id":1,"needs":["phone","phone"]}"#, "alias_collision", "phone"),
        ("lease.acquire", r#"{"request_id":1,"needs":["phone"],"priority":11}"#, "invalid_params", "`priority`"),
        ("lease.acquire", r#"{"request_id":1,"needs":["phone"],"priority":1000}"#, "invalid_params", "`priority`"),
        ("lease.acquire", r#"{"request_id":1,"needs":["phone"],"hold_ms":0}"#, "invalid_params", "`hold_ms`"),
        ("lease.acquire", r#"{"request_id":1,"needs":["phone"],"same":"No!"}"#, "invalid_params", "`same`"),
        ("lease.acquire", &many, "too_many_needs", "16"),
        ("lease.acquire", &long, "invalid_need", "2048"),
        ("lease.acquire", &note, "invalid_params", "`note`"),
        ("session.open", "{}", "invalid_params", "`instance`"),
        ("session.open", r#"{"instance":"i","ttl_ms":1000}"#, "invalid_params", "`ttl_ms`"),
        ("session.open", r#"{"instance":"i","owner":"a\nb"}"#, "invalid_params", "`owner`"),
        ("session.open", r#"{"instance":"i","pools":["NO"]}"#, "invalid_params", "pool"),
        ("session.resume", r#"{"session":1,"instance":"i"}"#, "invalid_params", "secret"),
        ("session.close", r#"{"session":1}"#, "invalid_params", "`secret`"),
    ];
    for (method, params, code, named) in table {
        let shown: String = params.chars().take(100).collect();
        let error = read(method, params).expect_err(&shown);
        assert_eq!(error.data.code, *code, "{method} {shown}: {error}");
        assert!(error.message.contains(named), "{method} {shown}: {error}");
        assert!(error.message.len() < 1_000, "{method} {shown}: a message of {} bytes", error.message.len());
    }
}

#[test]
fn unknown_fields_are_ignored_and_absent_parameters_are_none() {
    assert!(matches!(read("lease.list", r#"{"new":1}"#), Ok(Call::List)));
    assert!(matches!(call("session.renew", None, LOCAL), Ok(Call::Renew { renewal: 0 })));
    assert!(matches!(read("session.renew", "null"), Ok(Call::Renew { renewal: 0 })));
}

#[test]
fn an_opening_gets_a_secret_and_an_owner_of_its_own() {
    let Ok(Call::Open { owner, ttl, secret, hash, .. }) = read("session.open", r#"{"instance":"i"}"#) else {
        panic!("not opened");
    };
    assert_eq!((&*owner.name, owner.verified), ("anonymous@127.0.0.1", false));
    assert_eq!(ttl, TtlAsk::Pools(Vec::new()));
    assert_eq!(secret.len(), 64);
    assert_eq!(hash, secret_hash(&secret));
    let Ok(Call::Open { ttl, .. }) = read("session.open", r#"{"instance":"i","needs":["2:phone"],"owner":"a@b"}"#)
    else {
        panic!("not opened");
    };
    assert!(matches!(ttl, TtlAsk::Pools(pools) if pools[0].as_str() == "phone"));
}

#[test]
fn a_request_becomes_a_claim() {
    let request: ClaimRequest = serde_json::from_str(
        r#"{"needs":["2:phone,os=android"],"same":"site","wait_ms":0,"tags":{"job":"7"},"outer":3}"#,
    )
    .unwrap();
    let spec = claim_spec(&request).unwrap();
    assert_eq!(spec.needs[0].count, Count::Exactly(2));
    assert_eq!((spec.wait_ms, spec.hold_ms, spec.outer.map(|outer| outer.0)), (Some(0), None, Some(3)));
    assert_eq!(spec.same.as_ref().map(crate::core::types::Key::as_str), Some("site"));
}

#[test]
fn a_key_must_be_long_enough_to_be_one() {
    assert!(key_hash("short").is_err());
    let hash = key_hash("0123456789abcdef0123456789abcdef").unwrap();
    assert_eq!(&*hash.0, "3eb1bd439947eb762998e566ccc2e099c791118b2f40579cc4f7da2b5061b7f9");
    assert!(owner(Some(""), LOCAL).is_err());
}
