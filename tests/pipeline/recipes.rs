//! The recipes of `docs/recipes.md`: their own lines, under stand-ins for the runners of CI systems that start and
//! cancel as the real ones do. Afterwards the lease is free, and long before a ttl.
//!
//! The waits between a system's signals are shortened: what counts is who gets which, in which order.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::broker::Broker;
use crate::common::process::Process;
use crate::common::wait::{eventually, until, within};
use crate::common::witness::lives;

const PAGE: &str = include_str!("../../docs/recipes.md");
/// One phone, with a ttl that no test waits for: what comes back was given back.
const LAB: &str = r#"
[[pool]]
name = "phone"
ttl = "10m"
max_hold = "2h"

[[resource]]
name = "pixel"
pool = "phone"
labels = { os = "android" }
"#;
/// A test that ends when it is asked to.
const WELL_BEHAVED: &str = "exec sleep 1000";
/// One that does not.
const STUBBORN: &str = "trap '' INT TERM; while :; do sleep 1; done";
/// How long a stand-in waits between its signals.
const BETWEEN_SIGNALS: Duration = Duration::from_millis(700);

/// The block of the page with this name.
#[track_caller]
fn block(name: &str) -> String {
    let mark = format!("<!-- recipe: {name} -->\n```");
    let (_, rest) = PAGE.split_once(&mark).unwrap_or_else(|| panic!("no recipe {name} on the page"));
    let (_, rest) = rest.split_once('\n').expect("the fence has a line of its own");
    rest.split_once("```").expect("the fence ends").0.to_owned()
}

/// What stands after each `key:` of a block of YAML, in order; a key that begins a list answers its entries.
fn yaml(block: &str, key: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut list = false;
    for line in block.lines().map(str::trim) {
        let unlisted = line.strip_prefix("- ").unwrap_or(line);
        if let Some(value) = unlisted.strip_prefix(key).and_then(|rest| rest.strip_prefix(':')) {
            list = value.is_empty();
            found.extend(Some(value.trim().to_owned()).filter(|value| !value.is_empty()));
        } else if list && line.starts_with("- ") {
            found.push(unlisted.to_owned());
        } else {
            list = false;
        }
    }
    assert!(!found.is_empty(), "no {key} in {block}");
    found
}

/// The scripts of `sh` steps in a block of Groovy.
fn groovy(block: &str) -> Vec<String> {
    let quoted = |quote: &str| -> Vec<String> {
        let mark = format!("sh {quote}");
        block.split(&mark).skip(1).filter_map(|rest| Some(rest.split_once(quote)?.0.to_owned())).collect()
    };
    let long = quoted("'''");
    let found = if long.is_empty() { quoted("'") } else { long };
    assert!(!found.is_empty(), "no sh in {block}");
    found
}

/// A broker, and a workspace with what the recipes run: `./flash`, and a `./test` with this script.
struct Lab {
    broker: Broker,
}

impl Lab {
    fn new(inventory: &str, test: &str) -> Self {
        let lab = Self { broker: Broker::with_inventory(inventory) };
        lab.write("test", &format!("#!/bin/sh\necho \"$LEASEHOLD_PHONE_NAME\" > began\n{test}\n"));
        lab.write("flash", "#!/bin/sh\necho \"$1\" > flashed\n");
        lab
    }

    fn dir(&self) -> &Path {
        self.broker.dir()
    }

    /// Puts a program into the workspace.
    fn write(&self, name: &str, text: &str) {
        let path = self.dir().join(name);
        std::fs::write(&path, text).expect("the workspace can be written");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("it can be made a program");
    }

    fn has(&self, name: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.dir().join(name)).ok()?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    /// A shell in the workspace, as a runner starts one; `leasehold` is on its path.
    fn shell(&self, args: &[&str], variables: &BTreeMap<&str, String>) -> Process {
        let binary = Path::new(env!("CARGO_BIN_EXE_leasehold"));
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("bash");
        command.args(args).current_dir(self.dir()).env_clear();
        command.env("PATH", format!("{}:{path}", binary.parent().expect("it is in a folder").display()));
        command.env("HOME", self.dir()).env("USER", "tester").env("LEASEHOLD_URL", self.broker.url());
        Process::start(command.envs(variables))
    }

    /// Waits until the test runs on the phone.
    #[track_caller]
    fn test_began(&self) {
        assert_eq!(eventually("the test begins", || self.has("began")), "pixel");
        assert!(!self.is_free());
    }

    fn is_free(&self) -> bool {
        self.broker.sh("lease ls --json").exits(0).json().as_array().is_some_and(Vec::is_empty)
    }

    #[track_caller]
    fn comes_back(&self) {
        until("the phone is free", || self.is_free());
        until("nobody waits for it", || {
            self.broker.sh("queue --json").exits(0).json().as_array().is_some_and(Vec::is_empty)
        });
    }
}

fn signal(pid: i32, signal: Signal) {
    // It may be gone by now, which is what the signal is for.
    let _ = kill(Pid::from_raw(pid), signal);
}

/// Processes for which this holds of what `/proc` says of them.
fn processes(holds: impl Fn(i32) -> bool) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").expect("there are processes").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(|pid| holds(*pid)).collect()
}

/// A process and all that descend from it.
fn tree(root: i32) -> Vec<i32> {
    let parent = |pid: i32| -> Option<i32> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
    };
    let mut found = vec![root];
    let mut at = 0;
    while let Some(pid) = found.get(at).copied() {
        found.extend(processes(|other| parent(other) == Some(pid)));
        at += 1;
    }
    found
}

/// GitHub's runner: a worker that runs each step in a shell of its own, with the variables that steps before left.
struct Actions<'a> {
    lab: &'a Lab,
    worker: Process,
    steps: usize,
}

/// Reads names of scripts and runs one after the other. Job control, so that a step heeds SIGINT.
const WORKER: &str = r#"
set -m
load() {
    while IFS= read -r line; do
        name=${line%%<<*} end=${line#*<<} value=
        while IFS= read -r part && [ "$part" != "$end" ]; do value=${value:+$value$'\n'}$part; done
        export "$name=$value"
    done < "$GITHUB_ENV"
}
while read -r step; do
    load
    count=$((count + 1))
    bash -e "$step" & echo "step $count: $!"
    wait $!
    echo "ended $count: $?"
done
"#;

impl<'a> Actions<'a> {
    fn start(lab: &'a Lab) -> Self {
        let file = |name: &str| lab.dir().join(name).display().to_string();
        let variables = BTreeMap::from([
            ("GITHUB_ACTIONS", "true".to_owned()),
            ("GITHUB_ENV", file("github_env")),
            ("GITHUB_OUTPUT", file("github_output")),
        ]);
        lab.write("github_env", "");
        Self { lab, worker: lab.shell(&["-c", WORKER], &variables), steps: 0 }
    }

    /// Begins a step; answers its first process.
    fn begin(&mut self, script: &str) -> i32 {
        self.steps += 1;
        let name = format!("step-{}.sh", self.steps);
        self.lab.write(&name, script);
        self.worker.write(&format!("{name}\n"));
        self.says("step").parse().expect("its number")
    }

    /// What the step that was begun last exited with.
    #[track_caller]
    fn ended(&mut self) -> String {
        self.says("ended")
    }

    #[track_caller]
    fn says(&self, what: &str) -> String {
        let mark = format!("{what} {}: ", self.steps);
        self.worker.stdout.wait_for(&mark).trim_start_matches(&mark).to_owned()
    }

    /// Cancels a step: its first process is signalled, and at last the tree killed.
    fn cancel(&self, first: i32) {
        for sent in [Signal::SIGINT, Signal::SIGTERM] {
            signal(first, sent);
            if within(BETWEEN_SIGNALS, || (!lives(first)).then_some(())).is_some() {
                return;
            }
        }
        for pid in tree(first) {
            signal(pid, Signal::SIGKILL);
        }
    }
}

#[test]
fn actions_run_gives_back_when_cancelled() {
    let lab = Lab::new(LAB, WELL_BEHAVED);
    let steps = yaml(&block("actions-run"), "run");
    let mut runner = Actions::start(&lab);
    let first = runner.begin(&steps[0]);
    lab.test_began();
    runner.cancel(first);
    assert_eq!(runner.ended(), "130", "by SIGINT, which reached the test");
    lab.comes_back();
}

#[test]
fn actions_run_of_a_stubborn_test_gives_back_within_a_ttl() {
    let lab = Lab::new(&LAB.replace("10m", "2s"), STUBBORN);
    let mut runner = Actions::start(&lab);
    let first = runner.begin(&yaml(&block("actions-run"), "run")[0]);
    lab.test_began();
    let all = tree(first);
    runner.cancel(first);
    runner.ended();
    lab.comes_back();
    assert!(!all.into_iter().any(lives), "nothing of it is left");
}

#[test]
fn actions_run_is_cancelled_while_it_waits() {
    let lab = Lab::new(LAB, WELL_BEHAVED);
    let mut holder = lab.broker.session("holder@desk");
    holder.lease(&["phone"]);
    let mut runner = Actions::start(&lab);
    let first = runner.begin(&yaml(&block("actions-run"), "run")[0]);
    until("it waits", || {
        lab.broker.sh("queue --json").exits(0).json().as_array().is_some_and(|queue| !queue.is_empty())
    });
    runner.cancel(first);
    runner.ended();
    drop(holder);
    until("nobody waits", || lab.broker.sh("queue --json").exits(0).json().as_array().is_some_and(Vec::is_empty));
    assert_eq!(lab.has("began"), None);
}

#[test]
fn actions_steps_share_a_lease_and_the_last_gives_it_back() {
    let lab = Lab::new(LAB, WELL_BEHAVED);
    let steps = yaml(&block("actions-acquire"), "run");
    let [acquire, flash, test, release] = steps.as_slice() else { panic!("four steps: {steps:?}") };
    let mut runner = Actions::start(&lab);
    for step in [acquire, flash] {
        runner.begin(step);
        assert_eq!(runner.ended(), "0", "{}", runner.worker.stderr.text());
    }
    assert_eq!(lab.has("flashed").as_deref(), Some("pixel"));
    let first = runner.begin(test);
    lab.test_began();
    runner.cancel(first);
    runner.ended();
    assert!(!lab.is_free(), "cancelling a step ends no lease of the job's");
    runner.begin(release);
    assert_eq!(runner.ended(), "0", "{}", runner.worker.stderr.text());
    lab.comes_back();
}

#[test]
fn actions_lease_ends_with_a_worker_that_is_killed() {
    let lab = Lab::new(LAB, WELL_BEHAVED);
    let mut runner = Actions::start(&lab);
    runner.begin(&yaml(&block("actions-acquire"), "run")[0]);
    assert_eq!(runner.ended(), "0", "{}", runner.worker.stderr.text());
    assert!(!lab.is_free());
    runner.worker.signal(Signal::SIGKILL);
    lab.comes_back();
}

#[test]
fn gitea_kills_the_first_process_and_the_guard_gives_back() {
    let lab = Lab::new(LAB, STUBBORN);
    let mut runner = Actions::start(&lab);
    let first = runner.begin(&yaml(&block("actions-run"), "run")[0]);
    lab.test_began();
    let all = tree(first);
    signal(first, Signal::SIGKILL);
    lab.comes_back();
    until("nothing of it is left", || !all.iter().copied().any(lives));
}

/// GitLab's shell executor: one script for `before_script` and `script`, and signals to its group.
fn gitlab(lab: &Lab, block: &str) -> Process {
    let mut lines = if block.contains("before_script") { yaml(block, "before_script") } else { Vec::new() };
    lines.extend(yaml(block, "script"));
    let quoted = lines.join("\n").replace('\'', r"'\''");
    let script = format!("set -eo pipefail\n: | eval '{quoted}'\nexit 0\n");
    lab.shell(&["-c", &script], &BTreeMap::from([("GITLAB_CI", "true".to_owned())]))
}

#[track_caller]
fn gitlab_gives_back(recipe: &str) {
    let lab = Lab::new(LAB, WELL_BEHAVED);
    let job = gitlab(&lab, &block(recipe));
    lab.test_began();
    let group = i32::try_from(job.pid()).expect("a process id fits");
    signal(-group, Signal::SIGTERM);
    lab.comes_back();
}

#[test]
fn gitlab_run_gives_back_when_cancelled() {
    gitlab_gives_back("gitlab-run");
}

#[test]
fn gitlab_shell_gives_back_when_cancelled() {
    gitlab_gives_back("gitlab-acquire");
}

#[test]
fn gitlab_run_of_a_stubborn_test_gives_back_when_the_group_is_killed() {
    let lab = Lab::new(LAB, STUBBORN);
    let job = gitlab(&lab, &block("gitlab-run"));
    lab.test_began();
    let group = i32::try_from(job.pid()).expect("a process id fits");
    // The runner waits for the end of the output, not of the shell, which ends at once.
    for sent in [Signal::SIGTERM, Signal::SIGKILL] {
        assert!(!lab.is_free());
        signal(-group, sent);
    }
    lab.comes_back();
}

/// Jenkins: a shell with a cookie, and SIGTERM to whatever has the cookie.
fn jenkins(lab: &Lab, script: &str, cookie: &str) -> Process {
    lab.write("script.sh", script);
    let variables = BTreeMap::from([
        ("JENKINS_URL", "http://jenkins.example/".to_owned()),
        ("JENKINS_SERVER_COOKIE", cookie.to_owned()),
        ("JENKINS_NODE_COOKIE", "1e2d3c".to_owned()),
    ]);
    lab.shell(&["-xe", "script.sh"], &variables)
}

fn jenkins_aborts(cookie: &str) {
    let variable = format!("JENKINS_SERVER_COOKIE={cookie}\0").into_bytes();
    let has_it = |pid: i32| {
        std::fs::read(format!("/proc/{pid}/environ"))
            .is_ok_and(|all| all.windows(variable.len()).any(|part| part == variable))
    };
    for pid in processes(has_it) {
        signal(pid, Signal::SIGTERM);
    }
}

#[track_caller]
fn jenkins_gives_back(recipe: &str) {
    let lab = Lab::new(LAB, WELL_BEHAVED);
    let cookie = format!("durable-{}", leasehold::clock::random_secret());
    let job = jenkins(&lab, &groovy(&block(recipe))[0], &cookie);
    lab.test_began();
    jenkins_aborts(&cookie);
    lab.comes_back();
    drop(job);
}

#[test]
fn jenkins_run_gives_back_when_aborted() {
    jenkins_gives_back("jenkins-run");
}

#[test]
fn jenkins_script_gives_back_when_aborted() {
    jenkins_gives_back("jenkins-script");
}

/// Buildkite's agent: hooks in shells of their own whose exports it takes over, the command in a group of its own,
/// and `pre-exit` whatever became of it.
const JOB: &str = r#"
hook() { bash -c '. "$1"; export -p | sed "s/^declare -x/export/" > exported' hook "./$1" && . ./exported; }
set -m
hook pre-command || exit 1
bash -e -c "$BUILDKITE_COMMAND" & command=$!
trap 'kill -TERM -- -$command' TERM
while kill -0 $command 2>/dev/null; do wait $command; done
trap - TERM
hook pre-exit
echo "over"
"#;

fn buildkite(lab: &Lab, command: &str, hooks: [&str; 2]) -> Process {
    lab.write("pre-command", hooks[0]);
    lab.write("pre-exit", hooks[1]);
    let variables = BTreeMap::from([("BUILDKITE", "true".to_owned()), ("BUILDKITE_COMMAND", command.to_owned())]);
    lab.shell(&["-c", JOB], &variables)
}

#[test]
fn buildkite_run_gives_back_when_cancelled() {
    let lab = Lab::new(LAB, WELL_BEHAVED);
    let mut job = buildkite(&lab, &yaml(&block("buildkite-run"), "command")[0], ["", ""]);
    lab.test_began();
    job.signal(Signal::SIGTERM);
    job.stdout.wait_for("over");
    lab.comes_back();
}

#[test]
fn buildkite_hooks_lease_around_a_command() {
    let lab = Lab::new(LAB, WELL_BEHAVED);
    let hooks = [block("buildkite-pre-command"), block("buildkite-pre-exit")];
    let mut job = buildkite(&lab, "./flash \"$LEASEHOLD_PHONE_NAME\"; ./test", [&hooks[0], &hooks[1]]);
    lab.test_began();
    assert_eq!(lab.has("flashed").as_deref(), Some("pixel"));
    job.signal(Signal::SIGTERM);
    job.stdout.wait_for("over");
    assert!(lab.is_free(), "pre-exit has given it back");

    // And where not even that comes to run.
    std::fs::remove_file(lab.dir().join("began")).expect("it began");
    let mut job = buildkite(&lab, "./test", [&hooks[0], &hooks[1]]);
    lab.test_began();
    let all = tree(i32::try_from(job.pid()).expect("a process id fits"));
    job.signal(Signal::SIGKILL);
    lab.comes_back();
    all.into_iter().for_each(|pid| signal(pid, Signal::SIGKILL));
}
