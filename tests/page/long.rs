//! A log of a million lines: the page stays small wherever one goes in it.

use leasehold::builds::build::Phase;

use crate::browser::{Browser, Setup};
use crate::fixture::{Fixture, build};

const LINES: u64 = 1_000_000;
/// Rows that the page has at one time, at most: those in view, and some around.
const ROWS_MAX: u64 = 150;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_million_lines_are_a_few_rows() {
    let Some(browser) = Browser::open(Setup::default()).await else { return };
    let fixture = Fixture::new();
    let log: String =
        (1..=LINES).map(|line| format!("{line}: as long as the lines of logs usually are, more or less\n")).collect();
    fixture.put(build(1, Phase::Passed, "A million lines"), log);
    let at = fixture.serve().await;
    browser.goto(&format!("http://{at}/builds/1")).await;
    browser.until("document.querySelector('#L1000000 .t')").await;
    let first = browser.run("return performance.getEntriesByName('rows')[0].startTime").await;
    let paint = browser.run("return performance.getEntriesByName('first-contentful-paint')[0]?.startTime").await;
    println!("a million lines: first rows after {first} ms, first paint after {paint} ms (debug build)");

    let text = |line: u64| format!("document.querySelector('#L{line} .t')?.textContent.startsWith('{line}:')");
    for line in [1, 2, 500_000, 499_000, 999_999, 250_123, LINES] {
        browser.run(&format!("location.hash = '#L{line}'")).await;
        browser.until(&text(line)).await;
        rows_are_few(&browser).await;
    }
    // By the scroll bar, to every part; rows are those of the place, one after the other.
    for part in [0.0, 0.1, 0.333, 0.5, 0.777, 0.999, 1.0] {
        browser
            .run(&format!(
                "const view = document.getElementById('view');
                 view.scrollTop = {part} * (view.scrollHeight - view.clientHeight);"
            ))
            .await;
        let wanted = format!("Math.abs({part} * {LINES} - +document.querySelector('#shown .l').id.slice(1)) < 150");
        browser.until(&format!("{wanted} && !document.querySelector('.wait')")).await;
        let apart = "return [...document.querySelectorAll('#shown .l')].every((row, at, rows) =>
                         !at || +row.id.slice(1) === +rows[at - 1].id.slice(1) + 1)";
        assert_eq!(browser.run(apart).await, true, "rows at {part}");
        rows_are_few(&browser).await;
    }
    // One that the page hears of late is not taken back by what it does after the one before.
    browser
        .run(
            "const view = document.getElementById('view'), all = view.scrollHeight - view.clientHeight;
             view.addEventListener('scroll', () => {
                 for (const end = performance.now() + 200; performance.now() < end;);
                 view.scrollTop = 0.6 * all;
             }, { once: true });
             view.scrollTop = 0.2 * all;",
        )
        .await;
    browser.until(&format!("Math.abs(0.6 * {LINES} - +document.querySelector('#shown .l').id.slice(1)) < 150")).await;
    // In small steps too, where each moves by as much as it says.
    browser.run("location.hash = '#L700000'").await;
    browser.until(&text(700_000)).await;
    let place = "return document.getElementById('L700000').getBoundingClientRect().top";
    let before = browser.run(place).await.as_f64().expect("a place");
    browser.run("document.getElementById('view').scrollBy(0, 40)").await;
    browser.until(&format!("(() => {{ {place} }})() < {before} - 30")).await;
    let after = browser.run(place).await.as_f64().expect("a place");
    assert!((before - after - 40.0).abs() < 2.0, "{before} {after}");
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

async fn rows_are_few(browser: &Browser) {
    let rows = browser.run("return document.querySelectorAll('.l').length").await.as_u64().expect("a number");
    assert!(rows <= ROWS_MAX, "{rows} rows");
    let nodes = browser.run("return document.querySelectorAll('*').length").await.as_u64().expect("a number");
    assert!(nodes <= 1_500, "{nodes} elements");
}
