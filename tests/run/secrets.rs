//! Secrets, end to end: from the broker's environment and files to the command, and nowhere else.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::common::broker::{Broker, Setup};
use super::common::process;
use super::common::wait::until;
use super::run;
use super::witness::Fifo;

const PIN: &str = "pin-4711-of-the-test";
const CERT: &str = "-----BEGIN-----\nline two of the cert\n-----END-----";

/// A phone with a secret from the broker's environment and one from a file, and one without any.
/// The directory has the file, and is where commands put theirs.
struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        std::fs::write(dir.path().join("cert"), format!("{CERT}\n")).expect("a temporary file can be written");
        std::fs::create_dir(dir.path().join("runtime")).expect("a directory can be made");
        Self { dir }
    }

    fn setup(&self) -> Setup {
        Broker::with(&format!(
            "[[pool]]\nname = \"phone\"\nttl = \"10m\"\n[[resource]]\nname = \"pixel\"\npool = \"phone\"\n\
             labels = {{ safe = true }}\n\
             secrets = {{ pin = {{ env = \"PIXEL_PIN\" }}, sim-cert = {{ file = \"{}\" }} }}\n\
             [[pool]]\nname = \"net\"\n[[resource]]\nname = \"vlan\"\npool = \"net\"\n",
            self.dir.path().join("cert").display()
        ))
    }

    fn start(&self) -> Broker {
        self.setup().env("PIXEL_PIN", PIN).start()
    }

    /// A command whose secrets' file is to be in this lab's directory.
    fn command(&self, broker: &Broker, args: &[&str]) -> std::process::Command {
        let mut command = broker.command(args);
        command.env("XDG_RUNTIME_DIR", self.dir.path().join("runtime"));
        command
    }

    /// How many directories with secrets there are.
    fn left(&self) -> usize {
        std::fs::read_dir(self.dir.path().join("runtime")).expect("it is there").count()
    }
}

/// Whether a listing, the journal, the log or the store has a secret.
#[track_caller]
fn nobody_else_knows(broker: &Broker) {
    let mut told = vec![broker.stderr()];
    for line in [
        "lease ls --all --json",
        "resource show pixel --json",
        "resource history pixel",
        "events --json",
        "resource ls --json",
        "why pixel",
    ] {
        let output = broker.sh(line).exits(0);
        assert!(!output.stdout.is_empty(), "{line}");
        told.push(output.stdout + &output.stderr);
    }
    for entry in std::fs::read_dir(broker.dir()).expect("the broker's directory is there").flatten() {
        let bytes = std::fs::read(entry.path()).unwrap_or_default();
        told.push(String::from_utf8_lossy(&bytes).into_owned());
    }
    for text in told {
        assert!(!text.contains(PIN) && !text.contains("line two of the cert"), "{text}");
    }
}

#[test]
fn a_command_reads_them_from_a_file_that_is_gone_with_it() {
    let lab = Lab::new();
    let broker = lab.start();
    let script = "stat -c %a $LEASEHOLD_SECRETS_FILE; env >&2; cat $LEASEHOLD_SECRETS_FILE";
    let output =
        process::run(&mut lab.command(&broker, &["run", "-n", "dut=phone", "--", "sh", "-c", script])).exits(0);
    let (mode, file) = output.stdout.split_once('\n').expect("the mode and the file");
    assert_eq!(mode, "600");
    let file: Value = serde_json::from_str(file).expect("the file is JSON");
    assert_eq!(file, json!({ "dut": [{ "name": "pixel", "secrets": { "pin": PIN, "sim-cert": CERT } }] }));
    assert!(output.stderr.contains("LEASEHOLD_DUT_NAME=pixel") && !output.stderr.contains(PIN), "{}", output.stderr);
    assert_eq!(lab.left(), 0);
    nobody_else_knows(&broker);
}

#[test]
fn a_killed_run_leaves_no_secrets() {
    let lab = Lab::new();
    let broker = lab.start();
    let mut fifo = Fifo::new();
    let script = fifo.script("echo here; sleep 1000");
    let mut command = lab.command(&broker, &["run", "-n", "phone", "--", "sh", "-c", &script]);
    let mut run = process::Process::start(&mut command);
    run.stdout.wait_for("here");
    assert_eq!(lab.left(), 1);
    run.signal(Signal::SIGKILL);
    fifo.all_gone();
    until("the file is removed", || lab.left() == 0);
}

#[test]
fn a_command_reads_them_from_variables_when_asked() {
    let lab = Lab::new();
    let broker = lab.start();
    let script = "echo $LEASEHOLD_PHONE_SECRET_PIN; echo \"$LEASEHOLD_PHONE_0_SECRET_SIM_CERT\"; \
        echo ${LEASEHOLD_SECRETS_FILE-none}; echo $LEASEHOLD_RESOURCES";
    let options = ["run", "-n", "phone", "--secrets", "env", "--", "sh", "-c", script];
    let output = process::run(&mut lab.command(&broker, &options)).exits(0);
    let rest = output.stdout.strip_prefix(&format!("{PIN}\n{CERT}\nnone\n")).expect("both secrets and no file");
    assert!(rest.contains("pixel") && !rest.contains(PIN), "{rest}");
    assert_eq!(lab.left(), 0);
    nobody_else_knows(&broker);
}

#[test]
fn an_inner_run_hands_on_the_outer_secrets_of_other_aliases() {
    let lab = Lab::new();
    let broker = lab.start();
    let inner = format!("{} run -n net -- sh -c 'cat $LEASEHOLD_SECRETS_FILE'", env!("CARGO_BIN_EXE_leasehold"));
    let output = process::run(&mut lab.command(&broker, &["run", "-n", "phone", "--", "sh", "-c", &inner])).exits(0);
    assert_eq!(output.json()["phone"][0]["secrets"]["pin"], PIN);
}

#[test]
fn a_secret_that_cannot_be_read_ends_the_lease_and_quarantines_the_resource() {
    let lab = Lab::new();
    let broker = lab.setup().start();
    let output = run(&broker, &[], "echo started").wait();
    assert_eq!(output.stdout, "");
    assert!(matches!(output.code, Some(120 | 125)), "{output:?}");
    assert!(output.stderr.contains("secret") && output.stderr.contains("quarantined"), "{}", output.stderr);
    let shown = broker.sh("resource show pixel").exits(0).stdout;
    assert!(shown.contains("quarantined") && shown.contains("PIXEL_PIN"), "{shown}");
    let ended = broker.sh("lease ls --all --json").exits(0).json();
    assert_eq!(ended[0]["ended"]["why"], "secret_unavailable", "{ended}");

    // Who needs none of it is not in its way; who comes next waits, and is told why.
    let mut next = run(&broker, &[], "echo started");
    let line = next.stderr.wait_for("waiting, place 1");
    assert!(line.contains("quarantined"), "{line}");
    next.signal(Signal::SIGTERM);
    next.wait().exits(143);
    broker.cli(&["run", "-n", "net", "--", "true"]).exits(0);
    let failed = broker.cli(&["acquire", "-n", "phone", "--fail-fast"]).exits(125);
    assert!(failed.stderr.contains("quarantined"), "{}", failed.stderr);
}

#[test]
fn a_file_that_comes_back_is_read_at_the_next_grant() {
    let lab = Lab::new();
    let broker = lab.start();
    let file = lab.dir.path().join("cert");
    std::fs::remove_file(&file).expect("it is there");
    let output = run(&broker, &[], "true").wait();
    assert!(matches!(output.code, Some(120 | 125)), "{output:?}");
    let shown = broker.sh("resource show pixel").exits(0).stdout;
    assert!(shown.contains("cert"), "{shown}");
    std::fs::write(&file, "second edition").expect("a temporary file can be written");
    broker.sh("resource restore pixel").exits(0);
    let output = run(&broker, &["--secrets", "env"], "echo $LEASEHOLD_PHONE_SECRET_SIM_CERT").wait().exits(0);
    assert_eq!(output.stdout, "second edition\n");
}

#[test]
fn acquire_hands_them_over_only_when_told_to() {
    let lab = Lab::new();
    let broker = lab.start();
    let mut quiet = broker.spawn(&["acquire", "-n", "phone", "--while-stdin"]);
    let line = quiet.stdout.wait_for("granted");
    assert!(line.contains("pixel") && !line.contains(PIN) && !line.contains("SECRETS_FILE"), "{line}");
    quiet.close_stdin();
    quiet.wait().exits(0);

    let mut asked = broker.spawn(&["acquire", "-n", "phone", "--while-stdin", "--secrets", "env"]);
    let line: Value = serde_json::from_str(&asked.stdout.wait_for("granted")).expect("JSON");
    assert_eq!(line["environment"]["LEASEHOLD_PHONE_SECRET_PIN"], PIN, "{line}");
    asked.close_stdin();
    asked.wait().exits(0);

    let options = ["acquire", "-n", "phone", "--while-stdin", "--secrets", "file"];
    let mut file = process::Process::start(&mut lab.command(&broker, &options));
    let line: Value = serde_json::from_str(&file.stdout.wait_for("granted")).expect("JSON");
    let path = line["environment"]["LEASEHOLD_SECRETS_FILE"].as_str().expect("a path").to_owned();
    let secrets: Value = serde_json::from_slice(&std::fs::read(path).expect("the file is there")).expect("JSON");
    assert_eq!(secrets["phone"][0]["secrets"]["sim-cert"], CERT);
    file.close_stdin();
    file.wait().exits(0);
    assert_eq!(lab.left(), 0);
    nobody_else_knows(&broker);
}
