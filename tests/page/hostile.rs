//! Nothing that a log or a branch's name contains can run in the page, or lead where it should not.

use leasehold::builds::build::Phase;

use crate::browser::{Browser, Setup};
use crate::fixture::{Fixture, build};

/// What each of these would do if it ran.
const RUN: &str = "window.pwned = 1";

fn attacks() -> Vec<u8> {
    let mut log = format!(
        "<script>{RUN}</script>\n\
         <img src=x onerror=\"{RUN}\">\n\
         \"><svg onload='{RUN}'>\n\
         </span></div></main><script>{RUN}</script>\n\
         <!-- <a href='javascript:{RUN}'>\n\
         \x1b]8;;javascript:{RUN}\x1b\\click me\x1b]8;;\x1b\\\n\
         \x1b]8;;JaVaScRiPt:{RUN}\x07click me\x1b]8;;\x07\n\
         \x1b]8;;data:text/html,<script>{RUN}</script>\x07click me\x1b]8;;\x07\n\
         \x1b]8;;https://a.example/\" onmouseover=\"{RUN}\x07click me\x1b]8;;\x07\n\
         \x1b]8;;vbscript:x\x07click me\x1b]8;;\x07 javascript:{RUN}\n\
         https://a.example/\"onmouseover=\"{RUN} https://b.example/'><script>{RUN}</script>\n\
         \x1b[31;<script>{RUN}</script>m \x1b[38;5;999999999999mred\x1b[{}m\n\
         ::group::<script>{RUN}</script>\n\
         <img src=x onerror=\"{RUN}\">\n\
         ::endgroup::\n\
         section_start:1:x\"onclick=\"{RUN}[collapsed=true]\r\x1b[0K<b onclick=\"{RUN}\">b</b>\n\
         section_end:1:x\r\x1b[0K\n\
         --- \" onclick=\"{RUN}\n\
         error: <img src=x onerror=\"{RUN}\">\n\
         ##[error]\x1b]8;;javascript:{RUN}\x07x\x1b]8;;\x07\n\
         &lt;script&gt;{RUN}&lt;/script&gt; &#60;script&#62;\n",
        "9;".repeat(5_000),
    )
    .into_bytes();
    log.extend(b"\xff\xfe\xc0\xaf\xed\xa0\x80<script>\xf0\x9f\n\0\x01\x07\x7f\xc2\x85\n");
    log.extend(b"\x1b".repeat(50_000));
    log.push(b'\n');
    log.extend(b"\x1b[1K\x1b[2Kx\r".repeat(20_000));
    log.push(b'\n');
    log.extend(b"<script>".repeat(130_000));
    log.extend("\n\u{202e}txet\u{2066}<b>\u{200b}\nerror: \u{202e}txet\n--- \u{202e}txet\n".as_bytes());
    log
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_in_a_log_runs() {
    let Some(browser) = Browser::open(Setup::default()).await else { return };
    let fixture = Fixture::new();
    let evil = format!("\"><script>{RUN}</script>\u{202e}");
    let mut build = build(1, Phase::Failed, &evil);
    build.by = evil.as_str().into();
    build.reason = Some(evil.as_str().into());
    build.agent = Some(evil.as_str().into());
    build.repository = evil.as_str().into();
    fixture.put(build, attacks());
    let at = fixture.serve().await;
    for path in ["builds", "builds/1?q=%22%3E%3Cscript%3E", "builds/1?from=1", "builds/1/cancel", "builds/1"] {
        browser.goto(&format!("http://{at}/{path}")).await;
        if path == "builds/1" {
            browser.until("document.querySelectorAll('#view .k').length > 0").await;
            // Every line is in view once, and everything is unfolded and moved over.
            browser.run("document.querySelectorAll('#view .k[aria-expanded=false]').forEach((k) => k.click())").await;
            browser.until("document.querySelector('#L14 .t')").await;
        }
        browser.until("document.readyState === 'complete' && !document.querySelector('.wait')").await;
        browser
            .run(
                "document.querySelectorAll('#view *').forEach((element) => ['mouseover', 'click'].forEach((type) =>
                     element.tagName !== 'A' && element.dispatchEvent(new MouseEvent(type, { bubbles: true }))))",
            )
            .await;
        assert_eq!(browser.run("return window.pwned === undefined").await, true, "something ran at {path}");
        let tags = "return [...new Set([...document.querySelectorAll('.t *')].map((e) => e.tagName))].sort().join()";
        let tags = browser.run(tags).await;
        let ours = ["A", "I", "SPAN", ""];
        assert!(tags.as_str().is_some_and(|tags| tags.split(',').all(|tag| ours.contains(&tag))), "{path}: {tags}");
        let hrefs = "return [...document.querySelectorAll('a')].map((a) => a.href).filter((href) =>
                         !/^https?:\\/\\/[a-z0-9.:]+\\//.test(href) && !/^https?:\\/\\/[a-z0-9.:]+$/.test(href))";
        assert_eq!(browser.run(hrefs).await, serde_json::json!([]), "links at {path}");
        let inline = "return document.querySelectorAll('[onclick], [onerror], [onload], [onmouseover], .t [style], \
                      .t [id]').length + [...document.scripts].filter((script) => !script.src).length";
        assert_eq!(browser.run(inline).await, 0, "handlers at {path}");
        let turned = "return /[\\u202a-\\u202e\\u2066-\\u2069]/.test(document.body.textContent)";
        assert_eq!(browser.run(turned).await, false, "{path} turns the direction of what it shows");
        // The policy had nothing to forbid: none of it was markup in the first place.
        let complaints = browser.complaints().await;
        assert!(complaints.is_empty(), "{path}: {complaints:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_policy_would_stop_what_slipped_through() {
    let Some(browser) = Browser::open(Setup::default()).await else { return };
    let fixture = Fixture::new();
    fixture.put(build(1, Phase::Passed, "fine"), "fine\n");
    let at = fixture.serve().await;
    browser.goto(&format!("http://{at}/builds/1")).await;
    browser
        .run(
            "window.broken = [];
             document.addEventListener('securitypolicyviolation', (event) => broken.push(event.effectiveDirective));
             const script = document.createElement('script');
             script.textContent = 'window.pwned = 1';
             document.body.append(script);
             document.body.insertAdjacentHTML('beforeend',
                 '<img src=x onerror=\"window.pwned = 1\"><p style=\"color:red\"></p>' +
                 '<img src=\"http://b.example/x\">');",
        )
        .await;
    browser.until("broken.length >= 4").await;
    assert_eq!(browser.run("return window.pwned === undefined").await, true);
}
