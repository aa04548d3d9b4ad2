//! A `run` inside another: what it sees of the outer lease, and circles of waiting.

use super::common::broker::Broker;
use super::witness::await_file;
use super::{run, shown};

const LAB: &str = r#"
[[pool]]
name = "phone"
[[resource]]
name = "pixel-{1..2}"
pool = "phone"
properties = { serial = "s-{1..2}" }

[[pool]]
name = "net"
[[resource]]
name = "vlan-7"
pool = "net"
"#;

const LEASEHOLD: &str = env!("CARGO_BIN_EXE_leasehold");

#[test]
fn an_inner_run_keeps_the_outer_variables_of_other_aliases() {
    let broker = Broker::with_inventory(LAB);
    let inner = "echo $LEASEHOLD_PHONE_NAME $LEASEHOLD_NET_NAME $LEASEHOLD_LEASE; echo $LEASEHOLD_RESOURCES";
    let script = format!("echo $LEASEHOLD_LEASE; {LEASEHOLD} run -n net -- sh -c '{inner}'");
    let output = run(&broker, &[], &script).wait().exits(0);
    let lines: Vec<&str> = output.stdout.lines().collect();
    let words: Vec<&str> = lines[1].split(' ').collect();
    assert_eq!(words[..2], ["pixel-1", "vlan-7"]);
    assert_ne!(words[2], lines[0], "the inner lease is another one");
    let resources: serde_json::Value = serde_json::from_str(lines[2]).expect("JSON");
    assert_eq!((&resources["phone"][0]["name"], &resources["net"][0]["name"]), (&"pixel-1".into(), &"vlan-7".into()));
}

#[test]
fn an_inner_run_hides_the_outer_variables_of_its_own_alias() {
    let broker = Broker::with_inventory(LAB);
    let inner =
        "echo $LEASEHOLD_DUT_COUNT $LEASEHOLD_DUT_NAME ${LEASEHOLD_DUT_SERIAL-none} ${LEASEHOLD_DUT_1_NAME-none}";
    let inner = format!("{LEASEHOLD} run -n dut=net -- sh -c '{inner}'");
    let output = broker.cli(&["run", "-n", "dut=2:phone", "--", "sh", "-c", &inner]).exits(0);
    assert_eq!(output.stdout, "1 vlan-7 none none\n");
}

#[test]
fn what_its_own_outer_run_holds_is_refused_at_once() {
    let broker = Broker::with_inventory(LAB);
    let script = format!("{LEASEHOLD} run -n net -- echo started; echo inner $?");
    let output = broker.cli(&["run", "-n", "net", "--", "sh", "-c", &script]).exits(0);
    assert_eq!(output.stdout, "inner 125\n");
    assert!(output.stderr.contains("outer"), "{}", output.stderr);
}

#[test]
fn two_nested_runs_that_would_wait_for_each_other_for_ever_are_refused() {
    let broker = Broker::with_inventory(LAB);
    let go = broker.dir().join("go");
    // One holds the net and will want a phone; the other holds both phones and wants the net.
    let second =
        format!("echo here; {}; {LEASEHOLD} run -n phone -- echo started; echo inner $?", await_file(&shown(&go)));
    let mut second = broker.spawn(&["run", "-n", "net", "--", "sh", "-c", &second]);
    second.stdout.wait_for("here");
    let first = format!("{LEASEHOLD} run -n net -- echo got-net");
    let mut first = broker.spawn(&["run", "-n", "2:phone", "--", "sh", "-c", &first]);
    first.stderr.wait_for("waiting, place 1");
    std::fs::write(&go, "").expect("a temporary file can be written");
    let output = second.wait().exits(0);
    assert_eq!(output.stdout, "here\ninner 125\n");
    assert!(output.stderr.contains("wait"), "{}", output.stderr);
    assert_eq!(first.wait().exits(0).stdout, "got-net\n");
}
