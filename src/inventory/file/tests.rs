//! What the inventory file means, and every mistake in it with its place.

use super::read;
use crate::core::apply::Declared;
use crate::core::inventory::{OnDrop, SecretRef};
use crate::core::refusal::Code;
use crate::core::types::{Key, Value};

fn key(text: &str) -> Key {
    Key::parse(text, "key").expect("a key")
}

fn declared(text: &str) -> Declared {
    read(text, "lab.toml").unwrap_or_else(|error| panic!("{error}\n{text}"))
}

const DESIGN: &str = r#"
[[pool]]
name = "phone"
max_hold = "2h"
ttl = "45s"
on_drop = "immediate"
clean = false
cooldown = "0s"
identity = "serial"
labels = { site = "berlin", os = "none" }
properties = { rack = "{{7}}" }

[[resource]]
name = "pixel-8-{01..04}"
was = "pixel8-{1..4}"
pool = "phone"
labels = { os = "android", api = 34, weight = 0.5, whole = 34.0, beta = true, slot = "{a,b,c,d}" }
properties = { serial = "emulator-{5554..5560..2}" }
secrets = { pin = { env = "PIXEL_PIN_{1..4}" }, key = { file = "/etc/keys/{1..4}" }, one = { env = "ALL" } }

[[resource]]
name = "port-{20000..20002}"
pool = "port"

[[resource]]
name = "perforce-licence"
pool = "seats"
slots = 5
"#;

#[test]
fn the_whole_format_is_read() {
    let lab = declared(DESIGN);
    assert_eq!(lab.pools.len(), 1, "pools that are only named are not defined");
    let pool = &lab.pools[0];
    assert_eq!((pool.max_hold_ms, pool.ttl_ms, pool.on_drop), (Some(7_200_000), Some(45_000), OnDrop::Immediate));
    assert_eq!(pool.identity, Some(key("serial")));
    let names: Vec<_> = lab.resources.iter().map(|resource| resource.spec.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "pixel-8-01",
            "pixel-8-02",
            "pixel-8-03",
            "pixel-8-04",
            "port-20000",
            "port-20001",
            "port-20002",
            "perforce-licence"
        ]
    );
    let third = &lab.resources[2];
    assert_eq!(third.was.as_ref().map(|was| was.as_str()), Some("pixel8-3"));
    for (label, value) in [
        ("site", Value::Text("berlin".into())),
        ("os", Value::Text("android".into())),
        ("api", Value::Int(34)),
        ("weight", Value::Float(0.5)),
        ("beta", Value::Bool(true)),
        ("slot", Value::Text("c".into())),
    ] {
        assert_eq!(third.spec.labels.get(&key(label)), Some(&value), "{label}");
    }
    assert!(matches!(third.spec.labels.get(&key("whole")), Some(Value::Int(34))), "a whole number is one");
    assert_eq!(third.spec.properties.get(&key("serial")), Some(&Value::Text("emulator-5558".into())));
    assert_eq!(third.spec.properties.get(&key("rack")), Some(&Value::Text("{7}".into())));
    assert_eq!(third.spec.secrets.get(&key("pin")), Some(&SecretRef::Env("PIXEL_PIN_3".into())));
    assert_eq!(third.spec.secrets.get(&key("key")), Some(&SecretRef::File("/etc/keys/3".into())));
    assert_eq!(third.spec.secrets.get(&key("one")), Some(&SecretRef::Env("ALL".into())));
    assert_eq!((third.spec.slots, lab.resources[7].spec.slots), (1, 5));
}

#[test]
fn an_empty_file_is_an_empty_lab() {
    assert_eq!(declared(""), Declared::default());
    assert_eq!(declared("# nothing yet\n"), Declared::default());
}

#[test]
fn two_pools_may_have_one_identity_and_no_identity_is_no_mistake() {
    let text = r#"
        pool = [{ name = "a", identity = "serial" }, { name = "b", identity = "serial" }]
        resource = [
            { name = "a1", pool = "a", properties = { serial = 1 } },
            { name = "b1", pool = "b", properties = { serial = 1 } },
            { name = "b2", pool = "b" }, { name = "b3", pool = "b" },
        ]"#;
    assert_eq!(declared(text).resources.len(), 4);
}

const POOL: &str = "[[pool]]\nname = \"p\"\n";
const RESOURCE: &str = "[[resource]]\nname = \"r-{1..3}\"\npool = \"p\"\n";

/// Each text stands after `[[pool]]` and its name (lines 1, 2); the mistake is in the line given.
const POOL_MISTAKES: &[(&str, &str, usize)] = &[
    ("colour = 1", "unknown key \"colour\" in [[pool]]: expected one of name, max_hold, ttl", 3),
    ("on_drpo = \"immediate\"", "did you mean \"on_drop\"?", 3),
    ("on_drop = \"at-once\"", "on_drop of [[pool]] is \"at-once\": expected \"after-ttl\" or \"immediate\"", 3),
    ("on_drop = 3", "on_drop of [[pool]] is 3: expected a text in quotes", 3),
    ("ttl = \"1s\"", "ttl of [[pool]] is \"1s\": expected a duration in quotes with a unit, from 2s to 10m", 3),
    ("ttl = \"11m\"", "from 2s to 10m", 3),
    ("ttl = 30", "ttl of [[pool]] is 30: expected a duration in quotes with a unit", 3),
    ("max_hold = \"2 lunches\"", "max_hold of [[pool]] is \"2 lunches\": expected a duration", 3),
    ("max_hold = 0", "max_hold of [[pool]] is 0: expected a duration in quotes with a unit, from 1s", 3),
    ("clean = \"no\"", "clean of [[pool]] is \"no\": expected true or false, without quotes", 3),
    ("cooldown = true", "cooldown of [[pool]] is true: expected a duration", 3),
    ("max_per_owner = 0", "max_per_owner of [[pool]] is 0: expected a whole number from 1 to", 3),
    ("max_waiting_per_owner = \"4\"", "max_waiting_per_owner of [[pool]] is \"4\": expected a whole number", 3),
    ("max_priority = 11", "max_priority of [[pool]] is 11: expected a whole number from -10 to 10", 3),
    ("identity = \"Serial\"", "\"Serial\" is not a valid property name", 3),
    ("labels = { \"Site\" = 1 }", "\"Site\" is not a valid label name", 3),
    ("labels = 3", "labels of [[pool]] is 3: expected a table such as", 3),
    ("labels = { site = [1] }", "label \"site\" is an array: expected a text in quotes, a finite number", 3),
    ("labels = { site = \"{a,b}\" }", "cannot expand in \"site\": put it into the [[resource]]", 3),
    ("properties = { rack = nan }", "property \"rack\" is nan: expected a text in quotes, a finite number", 3),
    ("properties = { rack = \"a}\" }", "closes nothing", 3),
    ("\n[[pool]]\nname = \"p\"", "pool \"p\" is already defined in line 2", 5),
    ("\n[[pool]]\nttl = \"2s\"", "[[pool]] has no name: expected name = \"a-name\"", 4),
    ("\n[[pool]]\nname = \"P\"", "\"P\" is not a valid pool name: expected a small letter", 5),
    ("name = \"q\"", "this is not TOML: duplicate key", 3),
];

/// Each text stands after `[[resource]]`, a name of three and its pool (lines 1 to 3).
const RESOURCE_MISTAKES: &[(&str, &str, usize)] = &[
    ("lables = {}", "unknown key \"lables\" in [[resource]]: expected one of name, was, pool, labels", 4),
    ("lables = {}", "did you mean \"labels\"?", 4),
    ("slots = 0", "slots of [[resource]] is 0: expected a whole number from 1 to 10000", 4),
    ("slots = 10001", "slots of [[resource]] is 10001: expected a whole number from 1 to 10000", 4),
    ("slots = -1", "slots of [[resource]] is -1", 4),
    ("slots = 1.5", "slots of [[resource]] is 1.5", 4),
    ("slots = \"5\"", "slots of [[resource]] is \"5\"", 4),
    ("labels = { api = 99999999999999999999 }", "label \"api\" is 99999999999999999999", 4),
    ("labels = { when = 2026-01-01 }", "label \"when\" is a date or time", 4),
    ("labels = { l = inf }", "label \"l\" is inf", 4),
    ("[resource.labels]\napi = 1\n9 = 2", "\"9\" is not a valid label name", 6),
    ("labels = { n = \"{1..4}\" }", "this expands to 4, but what stands in line 2 to 3: ranges and lists", 4),
    ("labels = { n = \"{1..2}{1..3}\" }", "this expands to 2, but what stands in line 2 to 3", 4),
    ("labels = { n = \"{x}\" }", "{x} is neither a range nor a list", 4),
    ("was = \"old-{1..2}\"", "this expands to 2, but what stands in line 2 to 3", 4),
    ("was = \"old\"", "\"old\" is already renamed in line 4", 4),
    ("was = \"r-{1..3}\"", "resource \"r-1\" was \"r-1\" already", 4),
    ("was = \"r-{2..4}\"", "\"r-2\" is renamed here and still defined in line 2", 4),
    ("was = \"a b\"", "not a valid resource name", 4),
    ("labels = { name = 1 }", "a label cannot be called `name`", 4),
    ("labels = { while = 1 }", "reserved word of CEL", 4),
    ("labels = { a-b = 1, a_b = 2 }", "the labels `a-b` and `a_b` would be one environment variable", 4),
    ("[resource.properties]\nserial = 1\nslots = 2", "a property cannot be called `slots`", 6),
    ("properties = { label_x = 1 }", "a property cannot be called `label_x`", 4),
    ("[resource.secrets]\na-b.env = \"A\"\na_b.env = \"B\"", "the secrets `a-b` and `a_b`", 6),
    ("labels = { l = \"a\\u0000b\" }", "contains a NUL", 4),
    ("secrets = { pin = \"1234\" }", "never the value itself", 4),
    ("secrets = { pin = {} }", "{ env = \"VARIABLE\" } or { file = \"/absolute/path\" }", 4),
    ("secrets = { pin = { env = \"A\", file = \"/a\" } }", "{ env = \"VARIABLE\" } or", 4),
    ("secrets = { pin = { evn = \"A\" } }", "unknown key \"evn\" in a secret: expected one of env, file", 4),
    ("secrets = { pin = { env = 5 } }", "env of a secret is 5: expected a text in quotes", 4),
    ("secrets = { pin = { env = \"A=B\" } }", "the name of an environment variable", 4),
    ("secrets = { pin = { env = \"\" } }", "the name of an environment variable", 4),
    ("secrets = { pin = { file = \"pins/1\" } }", "an absolute path on the broker's machine", 4),
    ("secrets = { PIN = { env = \"A\" } }", "\"PIN\" is not a valid secret name", 4),
    ("\n[[resource]]\nname = \"r-2\"\npool = \"q\"", "resource \"r-2\" is already defined in line 2", 6),
    ("\n[[resource]]\npool = \"q\"", "[[resource]] has no name", 5),
    ("\n[[resource]]\nname = \"x\"", "[[resource]] has no pool: expected pool = \"a-pool\"", 5),
    ("\n[[resource]]\nname = \"x\"\npool = \"the pool\"", "\"the pool\" is not a valid pool name", 7),
    ("\n[[resource]]\nname = 7\npool = \"q\"", "name of [[resource]] is 7: expected a text in quotes", 6),
    ("\n[[resource]]\nname = \"-x\"\npool = \"q\"", "\"-x\" is not a valid resource name", 6),
    ("\n[[resource]]\nname = \"x\"\npool = \"q\"\nlabels.n = \"{1..2}\"", "the name does not", 8),
    ("\n[[resource]]\nname = \"x{1..999999999}\"\npool = \"q\"", "at most 200000 resources", 6),
    ("\n[[resources]]\nname = \"x\"", "unknown key \"resources\" in the inventory file", 5),
    ("\n[resourc]", "did you mean \"resource\"?", 5),
    ("\n[pool]\nname = \"q\"", "pool of the inventory file is a table: expected tables, each under [[pool]]", 5),
    ("labels = { a = 1", "this is not TOML", 4),
    ("labels = \"unclosed", "this is not TOML", 4),
];

fn assert_refused(text: &str, wrong: &str, line: usize) {
    let error = read(text, "lab.toml").expect_err(text);
    assert!(error.message.contains(wrong), "{error}\nexpected: {wrong}\n{text}");
    assert_eq!(error.line, line, "{error}\n{text}");
    assert!(error.column >= 1 && error.to_string().starts_with(&format!("lab.toml:{line}:")), "{error}");
}

#[test]
fn every_mistake_in_a_pool_is_named_with_its_line() {
    for (text, wrong, line) in POOL_MISTAKES {
        assert_refused(&format!("{POOL}{text}\n"), wrong, *line);
    }
}

#[test]
fn every_mistake_in_a_resource_is_named_with_its_line() {
    for (text, wrong, line) in RESOURCE_MISTAKES {
        assert_refused(&format!("{RESOURCE}{text}\n"), wrong, *line);
    }
}

#[test]
fn what_this_version_has_not_is_refused_by_name_with_its_own_code() {
    let error = read(&format!("{POOL}clean = true\n"), "lab.toml").expect_err("cleaning");
    assert_eq!((error.code, error.line), (Code::NotInThisVersion, 3), "{error}");
    assert_eq!(error.message, "clean = true of [[pool]] is not in this version yet: remove it");
    declared(&format!("{POOL}clean = false\ncooldown = \"0s\"\n"));
    declared(&format!("{POOL}cooldown = 0\n"));
}

#[test]
fn a_pool_has_a_cooldown_and_caps() {
    let text = "cooldown = \"5m\"\nmax_per_owner = 4\nmax_waiting_per_owner = 20\nmax_priority = -1\n";
    let pool = declared(&format!("{POOL}{text}")).pools.remove(0);
    let caps = (pool.cooldown_ms, pool.max_per_owner, pool.max_waiting_per_owner, pool.max_priority);
    assert_eq!(caps, (300_000, Some(4), Some(20), Some(-1)));
}

#[test]
fn one_identity_for_two_resources_is_refused_at_the_second() {
    let pool = "[[pool]]\nname = \"p\"\nidentity = \"serial\"\n";
    let first = "[[resource]]\nname = \"a\"\npool = \"p\"\nproperties = { serial = 7 }\n";
    let second = "[[resource]]\nname = \"b\"\npool = \"p\"\nproperties = { serial = 7.0 }\n";
    let error = read(&format!("{pool}{first}{second}"), "lab.toml").expect_err("alike");
    assert_eq!((error.line, error.column), (11, 25), "{error}");
    assert!(error.message.contains("serial \"7\" of resource \"b\" is also that of \"a\" in line 7"), "{error}");
    let inherited = "[[pool]]\nname = \"p\"\nidentity = \"serial\"\nproperties = { serial = 1 }\n\
                     [[resource]]\nname = \"r{1..2}\"\npool = \"p\"\n";
    let error = read(inherited, "lab.toml").expect_err("alike");
    assert_eq!((error.line, error.column), (6, 8), "{error}");
}

#[test]
fn the_column_counts_characters() {
    let error = read("# ä\n[[pool]]\nname = \"ü\" # ö\n", "lab.toml").expect_err("a bad name");
    assert_eq!(error.to_string().split(": ").next(), Some("lab.toml:3:8"));
    let error = read("pool = [{ name = \"a\" }, { nöme = 1 }]", "lab.toml").expect_err("not TOML");
    assert_eq!(error.line, 1);
}

#[test]
fn bounds_of_a_resource_hold_after_its_pool_gave_its_defaults() {
    let labels = |from: usize, to: usize| {
        let each: Vec<_> = (from..to).map(|n| format!("l{n} = 1")).collect();
        format!("labels = {{ {} }}\n", each.join(", "))
    };
    let text = format!("{POOL}{}{RESOURCE}{}", labels(0, 40), labels(40, 65));
    let error = read(&text, "lab.toml").expect_err("65 labels");
    assert!(error.message.contains("has 65 labels: expected at most 64"), "{error}");
    assert_eq!(error.line, 4);
    declared(&format!("{POOL}{}{RESOURCE}{}", labels(0, 40), labels(39, 64)));
    assert_refused(&format!("{RESOURCE}{}", labels(0, 65)), "too many labels: expected at most 64", 4);
    let (default, own) = ("properties = { a-b = 1 }\n", "properties = { a_b = 1 }\n");
    assert_refused(&format!("{POOL}{default}{RESOURCE}{own}"), "resource \"r-1\": the properties `a-b` and `a_b`", 4);
    let long = "x".repeat(4097);
    assert_refused(&format!("{RESOURCE}labels = {{ l = \"{long}\" }}"), "has 4097 bytes: expected at most 4096", 4);
}

#[test]
fn nothing_that_can_be_typed_ends_the_process() {
    for text in
        ["\u{feff}", "\0", "[[[[", "a = [[[[[[[[", "= = =", "'''", "[[resource]]", "resource = 1", "pool.a.b = 1"]
    {
        let _ = read(text, "lab.toml");
    }
    let deep = format!("a = {}", "[".repeat(100_000));
    assert!(read(&deep, "lab.toml").is_err());
}

#[test]
fn the_example_is_a_lab_that_works_as_it_is() {
    let lab = read(include_str!("../../../examples/lab.toml"), "examples/lab.toml").expect("the example reads");
    let count = |pool: &str| lab.resources.iter().filter(|resource| resource.spec.pool.as_str() == pool).count();
    let pools = ["phone", "board", "account", "vlan", "port", "seats"];
    assert_eq!(pools.map(count), [10, 5, 4, 7, 100, 2]);
    assert_eq!(lab.resources.len(), 128);
    let without = lab.resources.iter().all(|resource| resource.spec.secrets.is_empty());
    assert!(without, "a secret that is not there would quarantine its resource");
}

#[test]
fn the_message_that_the_manual_shows_is_the_one_that_is_told() {
    let text = format!("{}{}lables = {{}}\n", "\n".repeat(8), RESOURCE);
    let error = read(&text, "lab.toml").expect_err("a typo");
    assert!(include_str!("../../../docs/inventory.md").contains(&error.to_string()), "{error}");
}
