//! Images that come from a registry, or do not: it has none of the name, is away, wants a login, or says nothing.

use std::io::Read;
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::containers::Yard;
use super::registry::{LOGIN, Registry, free_port};
use crate::common::wait::PATIENCE;

/// A build of this image whose one step says that it runs.
fn build(yard: &mut Yard, image: &str) -> u64 {
    yard.build(&["phone"], &[("one", "echo it runs")], |job| job["container"]["image"] = json!(image))
}

/// How it ended, and why.
fn ends(yard: &mut Yard, build: u64) -> (String, String) {
    let report = yard.lab.finished(build);
    let text = |name: &str| report[name].as_str().unwrap_or_default().to_owned();
    yard.nothing_is_left();
    (text("result"), text("message"))
}

#[test]
fn an_image_that_is_not_there_is_pulled_once() {
    let Some(mut yard) = Yard::start(&[]) else { return };
    let Some(registry) = Registry::start(false) else { return };
    let (tagged, other) = (registry.image("lab/busy:one"), registry.image("lab/other"));
    let digest = yard.podman.push(&tagged, None);
    yard.podman.push(&format!("{other}:latest"), None);
    for image in [&tagged, &other] {
        for pulled in [true, false] {
            let build = build(&mut yard, image);
            assert_eq!(ends(&mut yard, build).0, "passed", "{}", yard.lab.log(build));
            assert_eq!(yard.lab.log(build).contains("\npulling "), pulled, "{}", yard.lab.log(build));
            assert!(yard.lab.log(build).contains("\nit runs\n"));
        }
    }
    let by_digest = format!("{}@{digest}", registry.image("lab/busy"));
    let build = build(&mut yard, &by_digest);
    assert_eq!(ends(&mut yard, build).0, "passed", "{}", yard.lab.log(build));
}

#[test]
fn no_such_image_fails_and_a_registry_that_is_away_is_tried_again() {
    let Some(mut yard) = Yard::start(&[]) else { return };
    let Some(registry) = Registry::start(false) else { return };
    let nowhere = format!("127.0.0.1:{}/lab/busy:one", free_port());
    let images = [(registry.image("lab/none:one"), "failed", "manifest unknown"), (nowhere, "lost", "refused")];
    for (image, result, why) in images {
        let build = build(&mut yard, &image);
        let (ended, message) = ends(&mut yard, build);
        assert_eq!(ended, result, "{message}");
        assert!(message.contains(&image) && message.contains(why), "{message}");
        assert!(yard.lab.log(build).contains(&message), "{}", yard.lab.log(build));
    }
}

#[test]
fn a_closed_registry_is_opened_by_the_login_of_the_agent_s_user() {
    let Some(mut yard) = Yard::start(&[]) else { return };
    let Some(registry) = Registry::start(true) else { return };
    let image = registry.image("lab/busy:one");
    yard.podman.push(&image, Some(LOGIN));
    let without = build(&mut yard, &image);
    let (ended, message) = ends(&mut yard, without);
    assert_eq!(ended, "failed", "{message}");
    assert!(message.contains("the agent's user has no login there"), "{message}");

    let folder = yard.lab.broker.dir().join(".docker");
    std::fs::create_dir_all(&folder).expect("a folder can be made");
    let file = |login: &str| {
        let logins = json!({ "auths": { registry.image("lab"): { "auth": STANDARD.encode(login) } } });
        std::fs::write(folder.join("config.json"), logins.to_string()).expect("a file can be written");
    };
    file("ann:of another");
    let wrong = build(&mut yard, &image);
    let (ended, message) = ends(&mut yard, wrong);
    assert_eq!(ended, "failed", "{message}");
    assert!(message.contains(".docker/config.json") && !yard.lab.log(wrong).contains("of another"), "{message}");
    file(LOGIN);
    let right = build(&mut yard, &image);
    assert_eq!(ends(&mut yard, right).0, "passed", "{}", yard.lab.log(right));
    assert!(!yard.lab.log(right).contains("hush"), "{}", yard.lab.log(right));
}

/// A registry that takes connections and says nothing: where it is, and each connection's end as it comes.
fn silent() -> (u16, Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let port = listener.local_addr().expect("it is bound").port();
    let (tell, gone) = channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let tell = tell.clone();
            std::thread::spawn(move || {
                let _ = stream.read_to_end(&mut Vec::new());
                let _ = tell.send(());
            });
        }
    });
    (port, gone)
}

#[test]
fn a_pull_that_hangs_ends_with_its_build() {
    let Some(mut yard) = Yard::start(&[]) else { return };
    let (port, gone) = silent();
    let image = format!("127.0.0.1:{port}/lab/busy:one");
    let given_up = || gone.recv_timeout(PATIENCE).expect("the engine gives the pull up");

    let timed = yard.build(&["phone"], &[("one", "true")], |job: &mut Value| {
        (job["container"]["image"], job["timeout_ms"]) = (json!(image), json!(3_000));
    });
    assert_eq!(ends(&mut yard, timed).0, "timed_out");
    given_up();

    let revoked = build(&mut yard, &image);
    yard.lab.wait_for_log(revoked, "pulling ");
    let lease = yard.lab.lease(revoked).to_string();
    yard.lab.broker.cli(&["lease", "revoke", &lease]).exits(0);
    assert_eq!(ends(&mut yard, revoked).0, "stopped");
    given_up();

    let stopped = build(&mut yard, &image);
    yard.lab.wait_for_log(stopped, "pulling ");
    yard.agent.signal(Signal::SIGTERM);
    yard.agent.stderr.wait_for("a second signal stops what runs");
    yard.agent.signal(Signal::SIGTERM);
    assert_eq!(ends(&mut yard, stopped).0, "lost");
    assert_eq!(yard.agent.wait().code, Some(0));
    given_up();
}
