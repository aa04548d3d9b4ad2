//! A log that grows while it is read, and what can happen meanwhile.

use leasehold::builds::build::{BuildId, Ending, Phase};

use crate::browser::{Browser, Setup};
use crate::fixture::{Fixture, MADE_MS, build};

const LAST: &str = "document.querySelector('#shown .l:last-child')";
const AT_END: &str = "(() => { const view = document.getElementById('view');
                       return view.scrollTop + view.clientHeight >= view.scrollHeight - 2; })()";

async fn running(log: &str) -> Option<(Browser, Fixture)> {
    let browser = Browser::open(Setup::default()).await?;
    let fixture = Fixture::new();
    fixture.put(build(1, Phase::Running, "Follow"), log);
    let at = fixture.serve().await;
    browser.goto(&format!("http://{at}/builds/1")).await;
    browser.until("document.getElementById('view')").await;
    Some((browser, fixture))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_lines_appear_and_the_view_stays_at_the_end_until_it_is_moved() {
    let lines: String = (1..=100).map(|line| format!("line {line}\n")).collect();
    let Some((browser, fixture)) = running(&lines).await else { return };
    browser.until(&format!("{AT_END} && {LAST}.id === 'L100'")).await;
    fixture.append(1, "a new line\n");
    browser.until(&format!("{AT_END} && {LAST}.id === 'L101' && {LAST}.textContent.includes('a new line')")).await;
    // A line that goes on is shown as far as it is.
    fixture.append(1, "10%");
    browser.until(&format!("{LAST}.querySelector('.t').textContent === '10%'")).await;
    fixture.append(1, "\r20%");
    browser.until(&format!("{LAST}.querySelector('.t').textContent === '20%'")).await;
    // Somebody who reads above is left there.
    browser.run("document.getElementById('view').scrollTop = 200").await;
    browser.until("document.getElementById('follow').getAttribute('aria-pressed') === 'false'").await;
    fixture.append(1, "\nmore\n");
    browser.until("document.getElementById('size').textContent === '103 lines'").await;
    assert_eq!(browser.run("return document.getElementById('view').scrollTop").await, 200);
    browser.run("document.getElementById('follow').click()").await;
    browser.until(&format!("{AT_END} && {LAST}.id === 'L103'")).await;
}

/// How long it takes is told and not judged: nothing here depends on how fast the machine is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_is_shown_soon_after_it_came() {
    let Some((browser, fixture)) = running("begin\n").await else { return };
    let mut waits = Vec::new();
    for line in 0..20 {
        let before = leasehold::clock::boot_now_us();
        fixture.append(1, &format!("tick {line}\n"));
        browser.until(&format!("document.getElementById('shown').textContent.includes('tick {line}')")).await;
        waits.push((leasehold::clock::boot_now_us() - before) / 1_000);
    }
    waits.sort_unstable();
    println!("from a log's growth to its line in the page: median {} ms, longest {} ms", waits[10], waits[19]);
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

/// Lets the page's answers from here on be changed on the way: `on` is asked for each, with its path.
fn on_answers(on: &str) -> String {
    format!(
        "const real = window.fetch, view = document.getElementById('view');
         window.fetch = async (path, ...rest) => {{
             const answer = await real(path, ...rest);
             return {{ ok: answer.ok, status: answer.status, text: () => answer.text(), json: async () => {{
                 const told = await answer.json();
                 {on}
                 return told;
             }} }};
         }};"
    )
}

/// A reader may scroll between the last event of the view and an answer: then the page has not heard of it yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_takes_no_reader_back_of_whom_the_page_has_not_heard_yet() {
    let lines: String = (1..=100).map(|line| format!("line {line}\n")).collect();
    for answer in ["lines", "outline"] {
        let Some((browser, fixture)) = running(&lines).await else { return };
        browser.until(&format!("{AT_END} && {LAST}.id === 'L100'")).await;
        browser
            .run(&on_answers(&format!(
                "if (window.armed && path.includes('/{answer}?')) {{
                     window.armed = false;
                     view.scrollTop = 200;
                     requestAnimationFrame(() => requestAnimationFrame(() => window.moved = true));
                 }}"
            )))
            .await;
        // The question under way was asked before.
        fixture.append(1, "a new line\n");
        browser.until(&format!("{AT_END} && {LAST}.id === 'L101'")).await;
        browser.run("window.armed = true").await;
        fixture.append(1, "another\n");
        browser.until("window.moved").await;
        assert_eq!(browser.run("return view.scrollTop").await, 200, "{answer}");
        assert_eq!(browser.run("return document.getElementById('follow').ariaPressed").await, "false", "{answer}");
        fixture.append(1, "more\n");
        browser.until("document.getElementById('size').textContent === '103 lines'").await;
        assert_eq!(browser.run("return view.scrollTop").await, 200, "{answer}");
        assert_eq!(browser.complaints().await, Vec::<String>::new());
    }
}

/// A broker that holds a question says after a while that there is nothing new. What comes then must not wait for
/// the page to ask again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_that_was_held_in_vain_is_asked_again_at_once() {
    let Some((browser, fixture)) = running("begin\n").await else { return };
    browser.until("document.getElementById('L1')").await;
    // In the page no time passes but what the first of its questions took.
    browser
        .run(
            "const real = window.fetch, timeout = window.setTimeout;
             let clock = performance.now();
             performance.now = () => clock;
             window.asked = 0;
             window.pauses = [];
             window.setTimeout = (then, ms) => {
                 window.pauses.push(ms);
                 return timeout(then, ms);
             };
             window.fetch = (path, ...rest) => {
                 if (!path.includes('known=')) return real(path, ...rest);
                 window.asked++;
                 if (window.asked === 1) clock += 20000;
                 return real(window.asked > 2 ? path : path.replace(/&known=\\d+/, ''), ...rest);
             };",
        )
        .await;
    fixture.append(1, "next\n");
    browser.until("window.asked === 3").await;
    // One that is not held is asked once a second.
    let pauses = browser.run("return window.pauses.filter((ms) => ms < 0 || ms === 1000)").await;
    assert_eq!(pauses, serde_json::json!([-19_000, 1_000]));
    fixture.append(1, "last\n");
    browser.until("document.getElementById('L3')").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_tells_when_the_build_ends_and_its_log_is_deleted() {
    let Some((browser, fixture)) = running("begin\n").await else { return };
    browser.until("document.querySelector('.state.running')").await;
    fixture.change(1, |build, _| {
        build.ending = Some(Ending {
            to: Phase::Superseded,
            reason: "pull request 7 was pushed to".into(),
            by: "octocat".into(),
            since_ms: MADE_MS,
            superseded_by: Some(BuildId(2)),
        });
    });
    browser.until("document.querySelector('.state.ending') && document.querySelector('a[href=\"/builds/2\"]')").await;
    fixture.append(1, "error: the last line\n");
    fixture.end(1, Phase::Superseded);
    browser.until("document.querySelector('.state.superseded')").await;
    browser.until(&format!("{LAST}.id === 'L2' && {LAST}.classList.contains('e')")).await;
    browser.until("document.getElementById('follow').textContent === 'End'").await;
    fixture.delete(1);
    browser.client.refresh().await.expect("the page is there again");
    browser.until("document.getElementById('nothing').textContent.startsWith('There is no log')").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_deleted_under_a_reader_says_so() {
    let Some((browser, fixture)) = running("begin\n").await else { return };
    browser.until("document.getElementById('L1')").await;
    fixture.delete(1);
    browser.until("document.getElementById('toast').textContent === 'The log was deleted meanwhile.'").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forms_do_what_they_say_after_a_second_thought() {
    let Some((browser, fixture)) = running("begin\n").await else { return };
    browser.until("document.querySelector('a[href$=\"/cancel\"]')").await;
    browser.run("document.querySelector('a[href$=\"/cancel\"]').click()").await;
    browser.until("document.querySelector('form .danger')").await;
    assert_eq!(fixture.done(), []);
    browser.run("document.querySelector('form .danger').click()").await;
    browser.until("location.pathname === '/builds/1' && document.getElementById('view')").await;
    assert_eq!(fixture.done(), [(1, leasehold::server::page::source::Action::Cancel)]);
}
