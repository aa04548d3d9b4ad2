//! Claims that ask for too much: needs, picks, labels, expressions.

use serde_json::{Value, json};

use super::bystander::{Bystander, LAB, next_request, no_lease, told};
use super::common::broker::Broker;
use super::common::http;
use super::common::wait::PATIENCE;
use super::common::ws::Heard;

#[test]
fn claims_and_needs_beyond_their_bounds_are_refused_by_name() {
    let broker = Broker::with_inventory(LAB);
    let mut bystander = Bystander::of(&broker);
    let mut client = broker.session("tester@lab");
    let thousand: Vec<String> = (0..1_000).map(|n| format!("a{n}=port")).collect();
    let seventeen: Vec<String> = (0..17).map(|n| format!("a{n}=port")).collect();
    let terms = format!("port{}", ",l=1".repeat(33));
    let table: &[(Value, &str, &str)] = &[
        (json!(thousand), "too_many_needs", "1000"),
        (json!(seventeen), "too_many_needs", "17"),
        (json!(["257:port"]), "invalid_need", "256"),
        (json!(["200:port", "b=57:port"]), "too_many_picks", "257"),
        (json!(["0:port"]), "invalid_need", "0"),
        (json!(["99999999999999999999:port"]), "invalid_need", "256"),
        (json!(["port", "port"]), "alias_collision", "`port`"),
        (json!(["a-b=port", "a_b=port"]), "alias_collision", "`a_b`"),
        (json!(["token=port"]), "alias_collision", "`token`"),
        (json!([""]), "invalid_need", ""),
        (json!(["Port"]), "invalid_need", "Port"),
        (json!(["port,"]), "invalid_need", "port"),
        (json!(["port,site"]), "invalid_need", "site"),
        (json!(["port,site=\"open"]), "invalid_need", "open"),
        (json!(["port/0"]), "invalid_need", "0"),
        (json!(["port/10001"]), "invalid_need", "10001"),
        (json!([terms]), "invalid_need", "32"),
        (json!(["x".repeat(100_000)]), "invalid_need", "2048"),
        (json!([format!("port,site={}", "x".repeat(200_000))]), "invalid_need", "2048"),
        (json!(["port,L=1"]), "invalid_need", "at character 6"),
        (json!(["port\u{0}"]), "invalid_need", ""),
        (json!(["port,site=\u{1b}[2J"]), "invalid_need", "at character 11"),
        (json!(["nosuchpool"]), "impossible", "nosuchpool"),
        (json!(["phone,os=ios"]), "impossible", "os"),
        (json!(["3:phone"]), "impossible", "phone"),
    ];
    for (needs, code, names) in table {
        let shown: String = needs.to_string().chars().take(80).collect();
        let (got, message) = no_lease(&mut client, json!({"request_id": null, "needs": needs}));
        assert_eq!(got, *code, "{shown}: {message}");
        assert!(message.contains(names), "{shown}: {message}");
    }
    // A megabyte is more than a message may have: that socket is closed, with a reason.
    let mut long = broker.session("long@lab");
    let params = json!({"request_id": 1, "needs": [format!("phone,os={}", "x".repeat(1_000_000))]});
    let _ = long.write_raw(&super::common::ws::call_frame(1, "lease.acquire", &params));
    assert_eq!(long.closed().0, 1009);
    assert_eq!(client.call("lease.list", json!({}))["claims"], json!([]));
    bystander.unharmed();
}

/// Expressions that would cost without a bound, or end the process.
fn bombs() -> Vec<String> {
    let filled = |open: &str, middle: &str, close: &str| {
        let times = (1_000 - middle.len()) / (open.len() + close.len());
        format!("{}{middle}{}", open.repeat(times), close.repeat(times))
    };
    let mut texts: Vec<String> = [
        ("(", "true", ")"),
        ("[", "1", "]"),
        ("{1:", "1", "}"),
        ("!", "true", ""),
        ("-", "api", ""),
        ("1+", "1", ""),
        ("true&&", "true", ""),
        ("true||", "true", ""),
        ("true?", "true", ":true"),
        ("size(", "os", ")"),
        ("'a'+", "'a'", " == 'a'"),
        ("(", "", ""),
        ("os.contains(", "os", ")"),
        ("[0].map(x,", "x", ")"),
    ]
    .iter()
    .map(|(open, middle, close)| filled(open, middle, close))
    .collect();
    texts.extend(
        [
            "[1,2,3].all(x, [1,2,3].all(y, [1,2,3].all(z, true)))",
            "labels.exists(k, true)",
            "[1].map(x, x)",
            "os.matches('(a+)+(b+)+(c+)+(d+)+$(')",
            "os.matches('(((((a{1,1000}){1,1000}){1,1000}){1,1000}){1,1000})')",
            "os.matches(name)",
            "a.b.c.d",
            "timestamp('now')",
            "os == '",
            "\u{0}",
        ]
        .map(str::to_owned),
    );
    texts.push(format!("os == '{}'", "x".repeat(2_000)));
    texts
}

#[test]
fn an_expression_that_explodes_is_refused_and_nothing_else_happens() {
    let broker = Broker::with_inventory(LAB);
    let mut bystander = Bystander::of(&broker);
    let mut client = broker.session("tester@lab");
    for bomb in bombs() {
        let need = format!("phone where {bomb}");
        let params = json!({"request_id": next_request(), "needs": [need], "wait_ms": 0});
        // What is within the bounds may be evaluated; then it is answered like any other.
        match client.try_call("lease.acquire", params) {
            Ok(claim) if claim["state"] == "granted" => {
                client.release(claim["lease"]["lease"].as_u64().unwrap());
            }
            Ok(claim) => {
                let (code, message) = told(&claim["end"]);
                assert!(["invalid_need", "impossible", "timed_out"].contains(&code.as_str()), "{bomb}: {message}");
            }
            Err(error) => {
                let (code, message) = told(&error);
                assert_eq!(code, "invalid_need", "{bomb}: {message}");
            }
        }
        let matched = broker.http("POST", "/v1/match", Some(&json!({"need": need})));
        assert!([200, 400, 422].contains(&matched.status), "{bomb}: {matched:?}");
    }
    for (bomb, names) in [
        ("[1,2,3].all(x, true)", "`all`"),
        ("os.matches('(')", "pattern"),
        ("os.matches('((a{1,1000}){1,1000}){1,1000}')", "pattern"),
        ("api >= ", "at character"),
    ] {
        let needs = json!([format!("phone where {bomb}")]);
        let (code, message) = no_lease(&mut client, json!({"request_id": null, "needs": needs}));
        assert_eq!(code, "invalid_need", "{message}");
        assert!(message.contains(names), "{bomb}: {message}");
    }
    bystander.unharmed();
}

#[test]
fn hundreds_of_expressions_that_wait_cost_others_nothing() {
    let broker = Broker::with_inventory(LAB);
    let mut bystander = Bystander::of(&broker);
    let mut client = broker.session("tester@lab");
    let all = client.lease(&["2:phone"])["lease"].as_u64().unwrap();
    // Each is another expression, so that none is shared.
    for request in 2..=300_u64 {
        let need = format!("phone where name.matches('^[a-z]+-[0-9]{{1,{request}}}$') && api != {request}");
        client.ask("lease.acquire", json!({"request_id": request, "needs": [need]}));
    }
    client.release(all);
    for _ in 0..2 {
        client.notice("lease.granted");
    }
    bystander.unharmed();
}

#[test]
fn expensive_expressions_by_the_hundred_wait_for_themselves() {
    let lab = format!("{LAB}\n[[resource]]\nname = \"vm-{{1..2000}}\"\npool = \"vm\"\nlabels = {{ os = \"linux\" }}\n");
    let broker = Broker::with_inventory(&lab);
    let mut bystander = Bystander::of(&broker);
    let mut client = broker.session("tester@lab");
    for request in 1..=100_u64 {
        let need = format!("vm where os == '{request}'{}", " || os.contains('z')".repeat(40));
        client.ask("lease.acquire", json!({"request_id": request, "needs": [need], "wait_for_inventory": true}));
    }
    bystander.unharmed();
    // Had they been served in the order they came, all of them would be there before anybody else.
    let waiting = broker.http("GET", "/v1/queue?limit=1000", None).json()["items"].as_array().unwrap().len();
    assert!(waiting < 50, "{waiting} were served before the bystander");
    // A call that cannot be answered cannot be waited for.
    let quiet = "{\"jsonrpc\":\"2.0\",\"method\":\"lease.list\"}";
    let mut other = broker.session("other@lab");
    other.send(tokio_tungstenite::tungstenite::Message::text(quiet)).unwrap();
    let Heard::Json(answer) = other.hear(PATIENCE) else { panic!("no answer") };
    assert_eq!(answer["error"]["data"]["code"], "invalid_request", "{answer}");
}

#[test]
fn a_listing_by_a_bad_need_is_a_problem() {
    let broker = Broker::with_inventory(LAB);
    for need in ["Phone", "phone%20where%20(((", "phone,os", "257:phone"] {
        let answer = http::request(broker.port(), "GET", &format!("/v1/resources?need={need}"), &[], None);
        assert_eq!((answer.status, &answer.json()["code"]), (400, &json!("invalid_need")), "{answer:?}");
    }
}
