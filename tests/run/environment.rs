//! What a command is told of its lease, by its environment.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::common::broker::Broker;

const LAB: &str = r#"
[[pool]]
name = "phone"
labels = { site = "berlin" }

[[resource]]
name = "pixel-{1..2}"
pool = "phone"
labels = { os = "android", api = 34, is-5g = true }
properties = { serial = "emulator-{5554..5556..2}", usb-port = "it's $HOME" }

[[pool]]
name = "seats"

[[resource]]
name = "licence"
pool = "seats"
slots = 5
"#;

/// The variables of ours that a command printed with `env -0`.
fn ours(printed: &str) -> BTreeMap<String, String> {
    let pairs = printed.split('\0').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(name, _)| name.starts_with("LEASEHOLD_")).map(|(name, value)| (name.into(), value.into())).collect()
}

#[test]
fn every_resource_is_told_with_its_properties_and_labels() {
    let broker = Broker::with_inventory(LAB);
    let needs = ["run", "-n", "dut=2:phone,os=android", "-n", "seats/3", "--", "env", "-0"];
    let mut told = ours(&broker.cli(&needs).exits(0).stdout);
    let lease = told.remove("LEASEHOLD_LEASE").expect("the lease is told");
    assert_eq!(told.remove("LEASEHOLD_FENCE").as_ref(), Some(&lease));
    assert_eq!(told.remove("LEASEHOLD_URL"), Some(broker.url()));

    let resources: Value =
        serde_json::from_str(&told.remove("LEASEHOLD_RESOURCES").expect("all are told")).expect("JSON");
    let phone = |number: u32, port: u32| {
        json!({
            "name": format!("pixel-{number}"), "pool": "phone", "slots": 1,
            "labels": { "site": "berlin", "os": "android", "api": 34, "is-5g": true },
            "properties": { "serial": format!("emulator-{port}"), "usb-port": "it's $HOME" },
        })
    };
    let licence = json!({ "name": "licence", "pool": "seats", "slots": 3, "labels": {}, "properties": {} });
    assert_eq!(resources, json!({ "dut": [phone(1, 5554), phone(2, 5556)], "seats": [licence] }));

    let mut expected = BTreeMap::new();
    let mut add = |name: &str, value: &str| expected.insert(format!("LEASEHOLD_{name}"), value.to_owned());
    for (prefix, number, port) in [("DUT_", 1, 5554), ("DUT_0_", 1, 5554), ("DUT_1_", 2, 5556)] {
        add(&format!("{prefix}NAME"), &format!("pixel-{number}"));
        add(&format!("{prefix}SLOTS"), "1");
        add(&format!("{prefix}SERIAL"), &format!("emulator-{port}"));
        add(&format!("{prefix}USB_PORT"), "it's $HOME");
        add(&format!("{prefix}LABEL_SITE"), "berlin");
        add(&format!("{prefix}LABEL_OS"), "android");
        add(&format!("{prefix}LABEL_API"), "34");
        add(&format!("{prefix}LABEL_IS_5G"), "true");
    }
    for prefix in ["SEATS_", "SEATS_0_"] {
        add(&format!("{prefix}NAME"), "licence");
        add(&format!("{prefix}SLOTS"), "3");
    }
    add("DUT_COUNT", "2");
    add("SEATS_COUNT", "1");
    assert_eq!(told, expected);
}

#[test]
fn everything_else_is_the_callers_and_reaches_the_command() {
    let broker = Broker::with_inventory(LAB);
    let script = "echo $MINE; cat; pwd";
    let mut command = broker.command(&["run", "-n", "phone", "--", "sh", "-c", script]);
    let mut run = super::common::process::Process::start(command.env("MINE", "own").current_dir("/"));
    run.write("typed\n");
    run.close_stdin();
    assert_eq!(run.wait().exits(0).stdout, "own\ntyped\n/\n");
}

#[test]
fn the_job_is_told_to_who_waits_from_what_ci_says() {
    let broker = Broker::with_inventory(LAB);
    let mut command =
        broker.command(&["run", "-n", "phone", "--tag", "suite=smoke", "--note", "nightly", "--", "true"]);
    let ci = [
        ("GITHUB_ACTIONS", "true"),
        ("GITHUB_SERVER_URL", "https://git.example"),
        ("GITHUB_REPOSITORY", "a/b"),
        ("GITHUB_RUN_ID", "17"),
        ("GITHUB_RUN_ATTEMPT", "2"),
        ("GITHUB_SHA", "c0ffee"),
        ("GITHUB_ACTOR", "ann"),
    ];
    super::common::process::run(command.envs(ci)).exits(0);
    let lease = &broker.sh("lease ls --all --json").exits(0).json()[0];
    let tags = &lease["tags"];
    assert!(tags["job"].as_str().is_some_and(|job| job.contains("a/b/actions/runs/17")), "{tags}");
    for (tag, value) in [("suite", "smoke"), ("actor", "ann"), ("commit", "c0ffee"), ("command", "true")] {
        assert_eq!(tags[tag], value, "{tags}");
    }
    assert_eq!(lease["note"], "nightly");
}
