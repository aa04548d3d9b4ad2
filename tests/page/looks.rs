//! What the pages look like: pictures for people, under `target/page`.

use leasehold::builds::build::Phase;

use crate::browser::{Browser, Setup};
use crate::fixture::{Fixture, build};

fn sample() -> String {
    let mut log = String::from("--- checkout\n");
    for step in 0..40 {
        log.push_str(&format!("\x1b[2mFetching object {step} of 40\x1b[0m\n"));
    }
    log.push_str("--- cargo test\n\x1b[1m\x1b[32m   Compiling\x1b[0m app v0.1.0 (https://git.example/acme/app)\n");
    log.push_str("\x1b[1m\x1b[33mwarning\x1b[0m\x1b[1m: unused variable: `x`\x1b[0m\n");
    log.push_str(" \x1b[1m\x1b[34m-->\x1b[0m src/lib.rs:14:9\n");
    for test in 0..30 {
        log.push_str(&format!("test store::reads_{test:02} ... \x1b[32mok\x1b[0m\n"));
    }
    log.push_str("test store::writes ... \x1b[31mFAILED\x1b[0m\n\nfailures:\n\n");
    log.push_str("thread 'store::writes' panicked at src/store.rs:88:5:\nassertion `left == right` failed\n");
    log.push_str("  left: \x1b[31m3\x1b[0m\n right: \x1b[32m4\x1b[0m\n");
    log.push_str(
        "\x1b[38;5;208morange\x1b[0m \x1b[44;97m blue ground \x1b[0m \x1b[7mreversed\x1b[0m \x1b[3;4mitalic\x1b[0m\n",
    );
    log.push_str("a \u{202e}desrever\u{202c} word, a nul \0, bad bytes\n");
    log.push_str("test result: \x1b[31mFAILED\x1b[0m. 30 passed; 1 failed; finished in 2.13s\n");
    log.push_str("##[error]Process completed with exit code 101.\n");
    log
}

#[tokio::test]
async fn pictures() {
    let fixture = Fixture::new();
    let titles = ["Lease phones by label", "Say why a claim waits", "Bump tokio to 1.54", "Draw the queue", "Fix typo"];
    let phases = [Phase::Passed, Phase::Superseded, Phase::Cancelled, Phase::TimedOut, Phase::Lost];
    for (id, (title, phase)) in titles.into_iter().zip(phases).enumerate() {
        fixture.put(build(id as u64 + 1, phase, title), "ok\n");
    }
    fixture.put(build(6, Phase::Failed, "Retry the store when the disk is full"), sample());
    fixture.put(build(7, Phase::Running, "Keep people's rights on a view"), sample());
    fixture.put(build(8, Phase::Queued, "Tell the queue's order"), "");
    fixture.put(build(9, Phase::Blocked, "A stranger's idea"), "");
    fixture.put_delivery(
        12,
        ".leasehold.toml:3:10: acme/app may not use pool \"fridge\": `pools` of its [[repository]] has phone, port",
    );
    let at = fixture.serve().await;
    for (name, setup) in [
        ("light", Setup::default()),
        ("dark", Setup { dark: true, ..Setup::default() }),
        ("phone", Setup { size: (500, 844), ..Setup::default() }),
        ("bare", Setup { scripts: false, ..Setup::default() }),
    ] {
        let Some(browser) = Browser::open(setup).await else { return };
        for (page, path) in [
            ("list", "builds"),
            ("failed", "builds/6"),
            ("blocked", "builds/9"),
            ("cancel", "builds/7/cancel"),
            ("mistake", "deliveries/12"),
        ] {
            browser.goto(&format!("http://{at}/{path}")).await;
            if page == "failed" && setup.scripts {
                browser.until("document.querySelectorAll('.l .k').length > 0").await;
            }
            browser.picture(&format!("{name}-{page}")).await;
        }
        let complaints = browser.complaints().await;
        assert!(complaints.is_empty(), "{complaints:?}");
    }
}
