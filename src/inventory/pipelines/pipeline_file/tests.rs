//! What `.leasehold.toml` may say, and how it is told what it may not.

use super::{FILE_BYTES_MAX, read};
use crate::builds::plan::{Concurrency, Container, On, Pipeline, Step};
use crate::inventory::config;
use crate::inventory::pipelines::Repository;

fn repository() -> Repository {
    let text = r#"
        [[repository]]
        name = "acme/app"
        forge = "github"
        url = "https://github.com/acme/app.git"
        pools = ["phone", "port"]
        secrets = { DEPLOY_KEY = { env = "APP_DEPLOY_KEY" } }
        mounts = ["/cache", "/opt/sdk/"]
    "#;
    let config = config::read(text, "leasehold.toml").expect("reads");
    let settings = config.pipelines.expect("a repository").resolve().expect("no secrets");
    Repository::clone(&settings.repositories["acme/app"])
}

fn one(text: &str) -> Pipeline {
    let mut pipelines = read(text, ".leasehold.toml", &repository()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(pipelines.len(), 1);
    pipelines.remove(0)
}

#[test]
fn everything_that_can_be_said_is_read() {
    let pipeline = one(r#"
        [[pipeline]]
        name = "device-tests"
        on = ["push", "pull_request", "tag", "manual"]
        branches = ["main", "release/**", "!release/old"]
        tags = ["v*"]
        paths = ["src/**"]
        drafts = true
        needs = ["phone,os=android", "web=port", "2:port"]
        agent = "os=linux,arch=x86_64"
        steps = [{ name = "build", run = "make" }, { run = "\n  make test\n" }]
        container = { image = "ghcr.io/acme/ci:1@sha256:00", network = "none",
                      mounts = ["/cache/m2:/m2", "/opt/sdk:/sdk:ro"],
                      memory = "2GiB", cpus = 1.5, pids = 512 }
        env = { LANG = "C", EMPTY = "" }
        secrets = ["DEPLOY_KEY"]
        timeout = "20m"
        wait = "1h"
        grace = "30s"
        priority = -3
        concurrency = "parallel"
        retries = 2
    "#);
    assert_eq!(pipeline.on.iter().copied().collect::<Vec<_>>(), On::ALL);
    assert_eq!(pipeline.branches, ["main", "release/**", "!release/old"]);
    assert_eq!((pipeline.tags, pipeline.paths, pipeline.drafts), (vec!["v*".into()], vec!["src/**".into()], true));
    assert_eq!(pipeline.concurrency, Some(Concurrency::Parallel));
    let plan = &*pipeline.plan;
    assert_eq!((&*plan.name, plan.executor_need().as_str()), ("device-tests", "executor,os=linux,arch=x86_64"));
    assert_eq!(plan.needs, ["phone,os=android", "web=port", "2:port"]);
    let step = |name: &str, run: &str| Step { name: name.into(), run: run.into() };
    assert_eq!(plan.steps, [step("build", "make"), step("make test", "\n  make test\n")]);
    let container = Container {
        image: "ghcr.io/acme/ci:1@sha256:00".into(),
        network: Some("none".into()),
        mounts: vec!["/cache/m2:/m2".into(), "/opt/sdk:/sdk:ro".into()],
        memory_bytes: Some(2 << 30),
        cpu_milli: Some(1_500),
        pids: Some(512),
    };
    assert_eq!(plan.container.as_ref(), Some(&container));
    assert_eq!(plan.env["LANG"], "C");
    assert!(plan.secrets.contains("DEPLOY_KEY"));
    assert_eq!((plan.timeout_ms, plan.wait_ms, plan.grace_ms), (1_200_000, Some(3_600_000), 30_000));
    assert_eq!((plan.priority, plan.retries, plan.concurrency), (-3, 2, Concurrency::Parallel));
}

#[test]
fn little_is_enough() {
    let pipeline = one("[[pipeline]]\nname = \"test\"\non = [\"pull_request\"]\nrun = \"make test\"\n");
    let plan = &*pipeline.plan;
    assert_eq!(plan.steps, [Step { name: "make test".into(), run: "make test".into() }]);
    assert_eq!((plan.executor_need().as_str(), plan.needs.len(), plan.retries), ("executor", 0, 0));
    assert_eq!((plan.timeout_ms, plan.wait_ms, plan.grace_ms), (3_600_000, None, 10_000));
    assert_eq!((pipeline.concurrency, pipeline.drafts, plan.container.is_none()), (None, false, true));
    let image = one("[[pipeline]]\nname = \"t\"\non = []\nrun = \"x\"\ncontainer = \"debian:bookworm\"");
    assert_eq!(image.plan.container.as_ref().map(|container| container.image.as_str()), Some("debian:bookworm"));
}

#[test]
fn every_mistake_is_named_with_its_place() {
    let long = format!("run = \"{}\"", "x".repeat(64 * 1024 + 1));
    for (line, wrong, column) in [
        ("neds = []", "did you mean \"needs\"?", 1),
        ("name = \"other\"", "this is not TOML", 1),
        ("on = [\"psh\"]", "\"psh\" in on of [[pipeline]] is no event: expected some of \"push\"", 7),
        ("needs = [\"phone,\"]", "is not a valid need", 10),
        ("needs = [\"phone where labels.\"]", "labels.", 10),
        ("needs = [\"rack\"]", "acme/app may not use the pool rack; it may use: phone, port", 10),
        ("needs = [\"executor=phone\"]", "has its executor by itself", 10),
        ("needs = [\"x=executor\"]", "has its executor by itself", 10),
        ("needs = [\"phone\", \"phone\"]", "two needs are called `phone`", 9),
        ("agent = \"linux\"", "expected labels such as", 9),
        ("agent = \"os=linux where (\"", "expected labels such as", 9),
        ("run = \" \"", "is no command", 7),
        (long.as_str(), "is no command", 7),
        ("steps = [{ name = \"x\" }]", "a step has no run", 10),
        ("steps = [{ name = \"a\\nb\", run = \"x\" }]", "1 to 80 characters, in one line", 19),
        ("container = 3", "expected an image", 13),
        ("container = \"a b\"", "is no image", 13),
        ("container = \"-v\"", "is no image", 13),
        ("container = { network = \"x\" }", "container has no image", 13),
        ("container = { image = \"a\", network = \"lan\" }", "expected \"bridge\", \"none\" or \"host\"", 38),
        ("container = { image = \"a\", mounts = [\"/etc:/etc\"] }", "may not mount \"/etc\"; it may mount: /cache", 38),
        ("container = { image = \"a\", mounts = [\"/cachex:/c\"] }", "may not mount", 38),
        ("container = { image = \"a\", mounts = [\"/cache/../etc:/c\"] }", "is no mount", 38),
        ("container = { image = \"a\", mounts = [\"/cache\"] }", "is no mount", 38),
        ("container = { image = \"a\", cpus = nan }", "a number from 0.01 to 1024", 35),
        ("env = { A = 3 }", "expected a text in quotes", 13),
        ("env = { \"A B\" = \"\" }", "is no variable's name", 9),
        ("env = { leasehold_x = \"\" }", "leasehold's own variables", 9),
        ("secrets = [\"TOKEN\"]", "acme/app has no secret \"TOKEN\"; it has: DEPLOY_KEY", 12),
        ("timeout = \"8d\"", "from 1s to 7d", 11),
        ("grace = \"11m\"", "from 0ms to 10m", 9),
        ("priority = 11", "from -10 to 10", 12),
        ("concurrency = \"wait\"", "expected \"supersede\", \"queue\" or \"parallel\"", 15),
        ("retries = 6", "from 0 to 5", 11),
        ("branches = [\"a[\"]", "is no glob", 13),
        ("tags = [\"v*\"]", "tags has no effect here: it goes with \"tag\" in on", 1),
    ] {
        let run = if line.starts_with("run") || line.starts_with("steps") { "" } else { "run = \"make\"\n" };
        let on = if line.starts_with("on") { "" } else { "on = [\"push\"]\n" };
        let text = format!("[[pipeline]]\nname = \"test\"\n{on}{run}{line}\n");
        let error = read(&text, ".leasehold.toml", &repository()).expect_err(line);
        assert!(error.message.contains(wrong), "{line}: {error}");
        let row = text.trim_end().lines().count();
        assert_eq!((error.line, error.column), (row, column), "{line}: {error}");
    }
}

#[test]
fn what_is_missing_or_there_twice_is_told() {
    let both = "[[pipeline]]\nname = \"a\"\non = []\nrun = \"x\"\nsteps = [{ run = \"y\" }]";
    let twice = "[[pipeline]]\nname = \"a\"\non = []\nrun = \"x\"\n[[pipeline]]\nname = \"a\"\non = []\nrun = \"x\"";
    let shadowed =
        "[[pipeline]]\nname = \"a\"\non = []\nrun = \"x\"\nenv = { DEPLOY_KEY = \"\" }\nsecrets = [\"DEPLOY_KEY\"]";
    for (text, wrong) in [
        ("", "there is no pipeline"),
        ("[[pipeline]]", "has no name"),
        ("[[pipeline]]\nname = \"a\"\nrun = \"x\"", "has no on"),
        ("[[pipeline]]\nname = \"a\"\non = []", "has no run"),
        ("[[pipeline]]\nname = \"A\"\non = []\nrun = \"x\"", "is not a valid pipeline name"),
        (both, "both run and steps"),
        (twice, "already in line 2"),
        (shadowed, "one variable has one value"),
    ] {
        let error = read(text, ".leasehold.toml", &repository()).expect_err(text);
        assert!(error.message.contains(wrong), "{text}: {error}");
    }
}

#[test]
fn everything_is_bounded() {
    let pipelines: String = (0..33).map(|n| format!("[[pipeline]]\nname = \"p{n}\"\non = []\nrun = \"x\"\n")).collect();
    let head = "[[pipeline]]\nname = \"a\"\non = []\n";
    let many = |count: usize, item: &str| vec![item; count].join(", ");
    let env: String = (0..129).map(|n| format!("V{n} = \"\", ")).collect();
    for (text, wrong) in [
        (pipelines, "at most 32 pipelines"),
        (format!("{head}steps = [{}]", many(65, "{ run = \"x\" }")), "at most 64 steps"),
        (format!("{head}run = \"x\"\nneeds = [{}]", many(16, "\"port\"")), "at most 15"),
        (format!("{head}run = \"x\"\nbranches = [{}]", many(65, "\"a\"")), "at most 64"),
        (format!("{head}run = \"x\"\nenv = {{ {} }}", env.trim_end_matches(", ")), "at most 128 variables"),
        (" ".repeat(FILE_BYTES_MAX + 1), "larger than 256 KiB"),
    ] {
        let error = read(&text, ".leasehold.toml", &repository()).expect_err(wrong);
        assert!(error.message.contains(wrong), "{error}");
    }
}
