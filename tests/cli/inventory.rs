//! `resource apply`: dry runs, pruning, the confirmation, and bad files.

use serde_json::json;

use super::common::broker::Broker;
use super::common::process::Process;
use super::row;

/// `count` resources named `port-1`, `port-2` ...
fn ports(count: usize) -> String {
    format!("[[resource]]\nname = \"port-{{1..{count}}}\"\npool = \"port\"\n")
}

fn write(broker: &Broker, name: &str, text: &str) {
    std::fs::write(broker.dir().join(name), text).expect("a temporary file can be written");
}

#[test]
fn a_dry_run_shows_the_difference_and_makes_none() {
    let broker = Broker::empty().start();
    write(&broker, "new.toml", &ports(3));
    let dry = broker.sh("resource apply new.toml --dry-run").exits(0);
    assert_eq!(row(&dry.stdout, "add").first(), Some(&"add"));
    assert!(dry.stdout.contains("port-3"), "{}", dry.stdout);
    assert!(dry.stderr.contains("a dry run"), "{}", dry.stderr);
    assert_eq!(broker.sh("resource ls --json").exits(0).json(), json!([]));

    let done = broker.sh("resource apply new.toml --json").exits(0).json();
    assert_eq!(done["applied"], true, "{done}");
    let again = broker.sh("resource apply new.toml").exits(0);
    assert!(again.stdout.is_empty() && again.stderr.contains("nothing changes; 3 resources"), "{again:?}");
}

#[test]
fn what_a_file_no_longer_has_goes_with_prune_only() {
    let broker = Broker::empty().start();
    write(&broker, "all.toml", &ports(10));
    write(&broker, "fewer.toml", &ports(9));
    broker.sh("resource apply all.toml").exits(0);
    broker.sh("resource apply fewer.toml").exits(0);
    broker.sh("resource show port-10").exits(0);
    let pruned = broker.sh("resource apply fewer.toml --prune").exits(0);
    assert_eq!(row(&pruned.stdout, "remove")[..3], ["remove", "resource", "port-10"]);
    broker.sh("resource show port-10").exits(1);
}

#[test]
fn removing_more_than_a_fifth_needs_a_yes() {
    let broker = Broker::empty().start();
    write(&broker, "all.toml", &ports(10));
    write(&broker, "few.toml", &ports(2));
    broker.sh("resource apply all.toml").exits(0);
    let refused = broker.sh("resource apply few.toml --prune").exits(1);
    assert!(refused.stderr.contains("--yes"), "{}", refused.stderr);
    broker.sh("resource show port-10").exits(0);
    broker.sh("resource apply few.toml --prune --yes").exits(0);
    broker.sh("resource show port-10").exits(1);
    broker.sh("resource show port-2").exits(0);
}

#[test]
fn a_held_resource_is_removed_when_it_is_released() {
    let broker = Broker::empty().start();
    write(&broker, "all.toml", &ports(10));
    write(&broker, "fewer.toml", &ports(9));
    broker.sh("resource apply all.toml").exits(0);
    let mut holder = broker.session("ci@runner");
    let lease = holder.lease(&["port,name=port-10"])["lease"].as_u64().expect("a number");
    let pruned = broker.sh("resource apply fewer.toml --prune").exits(0).stdout;
    assert!(pruned.contains("when its last lease ends"), "{pruned}");
    let shown = broker.sh("resource show port-10").exits(0).stdout;
    assert!(row(&shown, "pending")[1].contains("removal"), "{shown}");
    holder.release(lease);
    broker.sh("resource show port-10").exits(1);
}

#[test]
fn a_bad_file_is_refused_whole_with_the_place() {
    let broker = Broker::empty().start();
    write(&broker, "bad.toml", &format!("{}\n[[resource]]\nname = \"x\"\npool = \"port\"\nslot = 2\n", ports(2)));
    let refused = broker.sh("resource apply bad.toml").exits(1);
    assert!(refused.stderr.contains("bad.toml") && refused.stderr.contains("slot"), "{}", refused.stderr);
    assert!(refused.stderr.contains(":8:") || refused.stderr.contains("line 8"), "{}", refused.stderr);
    assert_eq!(broker.sh("resource ls --json").exits(0).json(), json!([]));
    let missing = broker.sh("resource apply nowhere.toml").exits(1);
    assert!(missing.stderr.contains("nowhere.toml cannot be read"), "{}", missing.stderr);
}

#[test]
fn a_file_can_come_from_stdin() {
    let broker = Broker::empty().start();
    let mut apply: Process = broker.spawn(&["resource", "apply", "-"]);
    apply.write(&ports(2));
    apply.close_stdin();
    apply.wait().exits(0);
    broker.sh("resource show port-2").exits(0);
}
