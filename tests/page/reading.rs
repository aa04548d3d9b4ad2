//! Finding one's way in a log: groups, errors, lines by their links, words.

use leasehold::builds::build::Phase;

use crate::browser::{Browser, Setup};
use crate::fixture::{Fixture, build};

/// The line that is chosen, and whether it is in view.
const CHOSEN: &str = "(() => {
    const row = document.querySelector('.chosen'), view = document.getElementById('view').getBoundingClientRect();
    const at = row?.getBoundingClientRect();
    return row && at.top >= view.top - 1 && at.bottom <= view.bottom + 1 ? row.id : null;
})()";

fn log() -> String {
    let mut log = String::from("--- checkout\n");
    (0..60).for_each(|object| log.push_str(&format!("fetched {object}\n")));
    log.push_str("--- test\n");
    (0..500).for_each(|test| log.push_str(&format!("test reads_{test} ... ok\n")));
    log.push_str("test writes ... FAILED\n");
    (0..500).for_each(|test| log.push_str(&format!("test lists_{test} ... ok\n")));
    log.push_str("\x1b[1;31mer\x1b[0;1mror\x1b[0m: it failed\n--- after\nneedle: N\x1b[31meed\x1b[0mle\n");
    log
}

async fn opened(path: &str) -> Option<Browser> {
    let browser = Browser::open(Setup::default()).await?;
    let fixture = Fixture::new();
    fixture.put(build(1, Phase::Failed, "Read"), log());
    let at = fixture.serve().await;
    browser.goto(&format!("http://{at}/builds/{path}")).await;
    browser.until("!document.getElementById('next').disabled").await;
    Some(browser)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_are_stepped_through() {
    let Some(browser) = opened("1#L1").await else { return };
    for (press, line) in [("next", 563), ("next", 1064), ("next", 563), ("previous", 1064), ("previous", 563)] {
        browser.run(&format!("document.getElementById('{press}').click()")).await;
        browser.until(&format!("{CHOSEN} === 'L{line}'")).await;
    }
    // The keys do the same, but not while somebody types.
    let key = |key: &str, on: &str| {
        format!("{on}.dispatchEvent(new KeyboardEvent('keydown', {{ key: '{key}', bubbles: true }}))")
    };
    browser.run(&key("n", "document.body")).await;
    browser.until(&format!("{CHOSEN} === 'L1064'")).await;
    browser.run(&key("n", "document.getElementById('q')")).await;
    assert_eq!(browser.run("return location.hash").await, "#L1064");
    let listed = "return [...document.querySelectorAll('#marks li')].map((li) => li.textContent)";
    assert_eq!(browser.run(listed).await, serde_json::json!(["563 test writes ... FAILED", "1064 error: it failed"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_groups_are_folded_and_open_for_links_and_clicks() {
    let Some(browser) = opened("1#L1").await else { return };
    let open = |line: u64| format!("document.querySelector('#L{line} .k').getAttribute('aria-expanded') === 'true'");
    // The checkout went well and is long; the test failed.
    browser.until(&format!("!document.getElementById('L2') && !({}) && {}", open(1), open(62))).await;
    browser.run("document.querySelector('#L1 .k').click()").await;
    browser.until(&format!("document.getElementById('L2') && {}", open(1))).await;
    browser.run("document.querySelector('#L1 .k').click()").await;
    browser.until("!document.getElementById('L2')").await;
    browser.run("location.hash = '#L40'").await;
    browser.until(&format!("{CHOSEN} === 'L40'")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_leads_to_its_lines() {
    let Some(browser) = opened("1#L300-L302").await else { return };
    let chosen = "[...document.querySelectorAll('.chosen')].map((row) => row.id).join()";
    browser.until(&format!("{CHOSEN} === 'L300' && {chosen} === 'L300,L301,L302'")).await;
    // A click on a number makes such a link, one with shift a range.
    browser.run("document.querySelector('#L305 .n').click()").await;
    browser.until(&format!("{chosen} === 'L305' && location.hash === '#L305'")).await;
    browser
        .run(
            "document.querySelector('#L303 .n').dispatchEvent(
                 new MouseEvent('click', { shiftKey: true, bubbles: true, cancelable: true }))",
        )
        .await;
    browser.until(&format!("{chosen} === 'L303,L304,L305' && location.hash === '#L303-L305'")).await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_are_found_in_all_of_the_log_whatever_their_colours() {
    let Some(browser) = opened("1#L1").await else { return };
    let find =
        |text: &str| format!("const q = document.getElementById('q'); q.value = '{text}'; q.form.requestSubmit()");
    // In capitals, in a folded group, and with escapes within.
    for (text, line, count) in [("FETCHED 33", 35, "1/1"), ("needle: needle", 1066, "1/1"), ("error: it", 1064, "1/1")]
    {
        browser.run(&find(text)).await;
        let count = format!("document.getElementById('count').textContent === '{count}'");
        browser.until(&format!("{CHOSEN} === 'L{line}' && {count}")).await;
    }
    // Around, and on at each asking.
    browser.run(&find("_499")).await;
    browser.until(&format!("{CHOSEN} === 'L562'")).await;
    browser.run(&find("_499")).await;
    browser.until(&format!("{CHOSEN} === 'L1063'")).await;
    assert_eq!(browser.run("return CSS.highlights.get('found').size > 0").await, true);
    browser.run(&find("nowhere")).await;
    browser.until("document.getElementById('toast').textContent === 'Nothing has it.'").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn times_are_shown_when_wanted_and_stay_so() {
    let Some(browser) = opened("1#L100").await else { return };
    let shown = "getComputedStyle(document.querySelector('#L100 time')).display !== 'none'";
    assert_eq!(browser.run(&format!("return {shown}")).await, false);
    browser.run("document.getElementById('times').click()").await;
    browser.until(shown).await;
    // Ten lines a second: the hundredth came 9.9 seconds after the first.
    assert_eq!(browser.run("return document.querySelector('#L100 time').textContent").await, "0:09.900");
    browser.client.refresh().await.expect("the page is there again");
    browser.until(shown).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_kept_is_one_row_that_says_so() {
    let Some(browser) = Browser::open(Setup::default()).await else { return };
    let fixture = Fixture::new();
    let log: String = (1..=5_000).map(|line| format!("line {line}\n")).collect();
    fixture.put(build(1, Phase::Passed, "Long"), log);
    fixture.lose(1, 101, 4_000);
    let at = fixture.serve().await;
    browser.goto(&format!("http://{at}/builds/1#L100")).await;
    browser.until("document.querySelector('#L101.gap') && document.querySelector('#L4101 .t')").await;
    let text = browser.run("return document.querySelector('#L101 .t').textContent").await;
    assert!(text.as_str().is_some_and(|text| text.contains("4,000 lines") && text.contains("not kept")), "{text}");
    // The rows around it stand next to each other.
    let next = "return document.getElementById('L101').nextElementSibling.id";
    assert_eq!(browser.run(next).await, "L4101");
}
