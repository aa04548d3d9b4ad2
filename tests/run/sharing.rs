//! Several runs and too few phones: one after the other, in order, all of them.

use super::common::broker::Broker;
use super::common::process::Process;
use super::witness::{Exclusive, await_file};
use super::{ONE_PHONE, all_free, run};

#[test]
fn two_runners_use_one_phone_one_after_the_other() {
    let broker = Broker::with_inventory(ONE_PHONE);
    let witness = Exclusive::new();
    let mut first = run(&broker, &[], &witness.script(&format!("echo here; {}", await_file("go"))));
    first.stdout.wait_for("here");
    let mut second = run(&broker, &[], &witness.script("echo mine"));
    let line = second.stderr.wait_for("waiting, place 1");
    assert!(line.contains("pixel") && line.contains("held by"), "it is said who holds what: {line}");
    let queue = broker.sh("queue").exits(0).stdout;
    assert!(queue.contains("phone"), "{queue}");
    assert!(!second.stdout.has("mine"));

    witness.touch("go");
    first.wait().exits(0);
    assert_eq!(second.wait().exits(0).stdout, "mine\n");
    assert_eq!(witness.uses().len(), 2);
    let history = broker.sh("resource history pixel").exits(0).stdout;
    assert!(history.lines().count() > 2, "{history}");
}

#[test]
fn twice_as_many_runs_as_phones_all_finish() {
    const PHONES: usize = 3;
    let broker = Broker::with_inventory(
        "[[pool]]\nname = \"phone\"\nttl = \"10m\"\n[[resource]]\nname = \"pixel-{1..3}\"\npool = \"phone\"\n",
    );
    let witness = Exclusive::new();
    // The first ones stay until somebody waits for each of them.
    let script = witness.script(&await_file("go"));
    let mut runs: Vec<Process> = (0..2 * PHONES).map(|_| run(&broker, &[], &script)).collect();
    super::common::wait::until("as many wait as hold", || {
        let waiting = runs.iter().filter(|run| run.stderr.has("waiting, place")).count();
        waiting == PHONES && witness.uses().len() == PHONES
    });
    witness.touch("go");
    for run in &mut runs {
        run.wait().exits(0);
    }
    assert_eq!(witness.uses().len(), 2 * PHONES);
    assert!(all_free(&broker));
}

#[test]
fn all_that_a_claim_needs_comes_together() {
    let broker = Broker::with_inventory(
        "[[pool]]\nname = \"phone\"\n[[resource]]\nname = \"pixel-{1..2}\"\npool = \"phone\"\n\
         [[pool]]\nname = \"net\"\n[[resource]]\nname = \"vlan-7\"\npool = \"net\"\n",
    );
    let script = "echo $LEASEHOLD_PHONE_COUNT $LEASEHOLD_NET_NAME";
    let output = broker.cli(&["run", "-n", "2:phone", "-n", "net", "--", "sh", "-c", script]).exits(0);
    assert_eq!(output.stdout, "2 vlan-7\n");
    let summary = output.stderr.lines().find(|line| line.contains("held")).unwrap_or_default().to_owned();
    assert!(summary.contains("vlan-7") && summary.contains("pixel-1 pixel-2"), "{:?}", output.stderr);
}
