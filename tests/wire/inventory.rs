//! Inventory files over HTTP: each mistake is refused whole, with its place.

use serde_json::json;

use super::bystander::{Bystander, LAB};
use super::common::broker::Broker;

/// What stands after a sound pool and resource (lines 1 to 5); the line of the mistake; what the
/// message names; the code where it is not `invalid_inventory`.
const MISTAKES: &[(&str, usize, &str, &str)] = &[
    ("[[pool]]\nname = \"q\"\ncolour = 1\n", 8, "colour", ""),
    ("[[pool]]\nname = \"q\"\non_drop = \"later\"\n", 8, "on_drop", ""),
    ("[[pool]]\nname = \"q\"\nttl = \"1s\"\n", 8, "ttl", ""),
    ("[[pool]]\nname = \"q\"\nttl = 30\n", 8, "unit", ""),
    ("[[pool]]\nname = \"Q\"\n", 7, "pool name", ""),
    ("[[pool]]\nname = \"p\"\n", 7, "already defined", ""),
    ("[[pool]]\nttl = \"5s\"\n", 6, "no name", ""),
    ("[[pool]]\nname = \"q\"\nclean = true\n", 8, "clean", "not_in_this_version"),
    ("[[pool]]\nname = \"q\"\nmax_per_owner = 0\n", 8, "max_per_owner", "invalid_inventory"),
    ("[[resource]]\nname = \"r\"\npool = \"p\"\n", 7, "already defined", ""),
    ("[[resource]]\nname = \"b\"\n", 6, "no pool", ""),
    ("[[resource]]\nname = \"b b\"\npool = \"p\"\n", 7, "resource name", ""),
    ("[[resource]]\nname = \"b-{1..3}\"\npool = \"p\"\nlabels = { n = \"{1..4}\" }\n", 9, "expands to 4", ""),
    ("[[resource]]\nname = \"b-{x}\"\npool = \"p\"\n", 7, "{x}", ""),
    ("[[resource]]\nname = \"b-{1..99999999}\"\npool = \"p\"\n", 7, "200000", ""),
    ("[[resource]]\nname = \"b\"\npool = \"p\"\nslots = 0\n", 9, "slots", ""),
    ("[[resource]]\nname = \"b\"\npool = \"p\"\nlabels = { name = 1 }\n", 9, "name", ""),
    ("[[resource]]\nname = \"b\"\npool = \"p\"\nlabels = { while = 1 }\n", 9, "CEL", ""),
    ("[[resource]]\nname = \"b\"\npool = \"p\"\nlabels = { a = inf }\n", 9, "inf", ""),
    ("[[resource]]\nname = \"b\"\npool = \"p\"\nproperties = { slots = 1 }\n", 9, "slots", ""),
    ("[[resource]]\nname = \"b\"\npool = \"p\"\nsecrets = { pin = \"hunter2\" }\n", 9, "never the value", ""),
    ("[[resource]]\nname = \"b\"\npool = \"p\"\nwas = \"r\"\n", 9, "still defined", ""),
    ("[[resources]]\nname = \"b\"\n", 6, "did you mean", ""),
    ("resource = 5\n", 6, "", ""),
    ("labels = {\n", 6, "not TOML", ""),
    ("= =\n", 6, "not TOML", ""),
    ("[[resource]]\nname = \"b\u{1b}[2J\"\n", 7, "not TOML", ""),
];

const SOUND: &str = "[[pool]]\nname = \"p\"\n[[resource]]\nname = \"r\"\npool = \"p\"\n";

#[test]
fn each_mistake_is_refused_whole_with_file_line_and_column() {
    let broker = Broker::with_inventory(LAB);
    let mut bystander = Bystander::of(&broker);
    let before = broker.http("GET", "/v1/resources", None).json()["items"].clone();
    for (text, line, names, code) in MISTAKES {
        // What is sound in it is not applied either.
        let body = json!({"text": format!("{SOUND}{text}"), "file": "mine.toml", "prune": true, "confirmed": true});
        let answer = broker.http("POST", "/v1/inventory/apply", Some(&body));
        let problem = answer.json();
        let code = if code.is_empty() { "invalid_inventory" } else { code };
        assert_eq!((answer.status, &problem["code"]), (400, &json!(code)), "{text}: {problem}");
        let detail = problem["detail"].as_str().unwrap();
        let place = detail.strip_prefix("mine.toml:").unwrap_or_else(|| panic!("{text}: no place: {detail}"));
        let (at_line, rest) = place.split_once(':').unwrap();
        let (column, told) = rest.split_once(": ").unwrap();
        assert_eq!(at_line.parse(), Ok(*line), "{text}: {detail}");
        assert!(column.parse::<usize>().is_ok_and(|column| column >= 1), "{text}: {detail}");
        assert!(told.contains(names), "{text}: {detail}");
        assert!(!detail.contains("hunter2") && !detail.contains(|c: char| c.is_control()), "{text}: {detail:?}");
    }
    assert_eq!(broker.http("GET", "/v1/resources", None).json()["items"], before);
    bystander.unharmed();
}

#[test]
fn a_file_that_removes_much_needs_a_word_and_one_that_nests_deeply_ends_nothing() {
    let broker = Broker::with_inventory(LAB);
    let mut bystander = Bystander::of(&broker);
    let apply = |body: serde_json::Value| broker.http("POST", "/v1/inventory/apply", Some(&body));
    let answer = apply(json!({"text": SOUND, "prune": true}));
    assert_eq!((answer.status, &answer.json()["code"]), (409, &json!("needs_confirmation")), "{answer:?}");
    let deep = format!("a = {}", "[".repeat(200_000));
    let dotted = format!("{}a = 1", "a.".repeat(200_000));
    for text in [deep, dotted, "\0".repeat(1_000), "\u{feff}[[".to_owned(), "'''".to_owned()] {
        let answer = apply(json!({"text": text}));
        assert_eq!((answer.status, &answer.json()["code"]), (400, &json!("invalid_inventory")), "{answer:?}");
        assert!(answer.body.len() < 2_000, "{}", answer.body.len());
    }
    bystander.unharmed();
    let dry = apply(json!({"text": SOUND, "dry_run": true}));
    assert_eq!(dry.status, 200, "{dry:?}");
    assert_eq!(broker.http("GET", "/v1/resources/r", None).status, 404, "a dry run changes nothing");
    bystander.unharmed();
}
