//! Without the script: what the broker sends is a page by itself.

use std::net::SocketAddr;

use leasehold::builds::build::Phase;

use crate::common::http::{self, Answer};
use crate::fixture::{Fixture, build};

async fn get(at: SocketAddr, path: &str) -> Answer {
    ask(at, "GET", path, &[]).await
}

async fn ask(at: SocketAddr, method: &'static str, path: &str, headers: &[(&'static str, &'static str)]) -> Answer {
    let (path, headers) = (path.to_owned(), headers.to_vec());
    let asking = tokio::task::spawn_blocking(move || http::request(at.port(), method, &path, &headers, None));
    asking.await.expect("it is answered")
}

fn rows(answer: &Answer) -> Vec<u64> {
    let ids = answer.body.split("id=\"L").skip(1).filter_map(|rest| rest.split('"').next()?.parse().ok());
    ids.collect()
}

#[tokio::test]
async fn the_last_lines_are_there_with_ways_to_the_others() {
    let fixture = Fixture::new();
    let log: String = (1..=2_500).map(|line| format!("line {line}\n")).collect();
    fixture.put(build(1, Phase::Passed, "Read me"), log);
    let at = fixture.serve().await;
    let page = get(at, "/builds/1").await;
    assert_eq!(page.status, 200);
    assert_eq!(rows(&page), (1_501..=2_500).collect::<Vec<_>>());
    assert!(page.body.contains("<h1>Read me</h1>") && page.body.contains("/builds/1/log?attempt=1"));
    assert!(page.body.contains("?attempt=1&amp;from=501") && !page.body.contains("http-equiv"));
    let older = get(at, "/builds/1?attempt=1&from=501").await;
    assert_eq!(rows(&older), (501..=1_500).collect::<Vec<_>>());
    assert!(older.body.contains("?attempt=1&amp;from=1501"));
    // Looking for words is a form, and its answer a list of links.
    let found = get(at, "/builds/1?q=line+24").await;
    assert!(found.body.contains("#L2400\">2400</a>") && found.body.contains("from=4#L24\">24</a>"), "{}", found.body);
}

#[tokio::test]
async fn a_page_follows_by_itself_while_the_build_goes_on() {
    let fixture = Fixture::new();
    fixture.put(build(1, Phase::Running, "Follow me"), "line\n");
    fixture.put(build(2, Phase::Queued, "Wait"), "");
    let at = fixture.serve().await;
    for path in ["/builds/1", "/builds/2"] {
        let page = get(at, path).await;
        assert!(page.body.contains("<noscript><meta http-equiv=\"refresh\" content=\"5\"></noscript>"), "{path}");
    }
    assert!(!get(at, "/builds/1?from=1").await.body.contains("http-equiv"));
}

#[tokio::test]
async fn every_answer_carries_the_policy() {
    let fixture = Fixture::new();
    fixture.put(build(1, Phase::Passed, "Read me"), "line\n");
    let at = fixture.serve().await;
    let page = get(at, "/builds/1").await;
    let asset = page.body.split("src=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a script").to_owned();
    for path in ["/builds", "/builds/1", "/builds/9", "/builds/x", "/builds/1/lines?from=1", "/builds/1/cancel", &asset]
    {
        let answer = get(at, path).await;
        let policy = answer.header("content-security-policy").unwrap_or_default();
        let parts: Vec<&str> = policy.split(';').map(str::trim).collect();
        let wanted = [
            "default-src 'none'",
            "script-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'self'",
        ];
        assert!(wanted.iter().all(|part| parts.contains(part)), "{path}: {policy}");
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("referrer-policy"), Some("same-origin"), "{path}");
        let kept = if path == asset { "public, max-age=31536000, immutable" } else { "no-store" };
        assert_eq!(answer.header("cache-control"), Some(kept), "{path}");
    }
    assert_eq!(get(at, "/assets/page-0000000000000000.js").await.status, 404);
    assert_eq!(get(at, "/builds/9").await.status, 404);
}

#[tokio::test]
async fn a_form_without_an_origin_does_nothing() {
    let fixture = Fixture::new();
    fixture.put(build(1, Phase::Running, "Run"), "line\n");
    let at = fixture.serve().await;
    // Admission has refused a foreign origin before this; one that is missing is no form of a page.
    let refused = ask(at, "POST", "/builds/1/cancel", &[]).await;
    assert_eq!((refused.status, fixture.done().len()), (403, 0));
    let done = ask(at, "POST", "/builds/1/cancel", &[("Origin", "http://localhost")]).await;
    assert_eq!((done.status, done.header("location")), (303, Some("/builds/1")));
    assert_eq!(get(at, "/builds/1/retry").await.status, 405);
}

#[tokio::test]
async fn the_list_is_narrowed_and_goes_on() {
    let fixture = Fixture::new();
    for id in 1..=120 {
        let phase = if id % 2 == 0 { Phase::Failed } else { Phase::Passed };
        fixture.put(build(id, phase, &format!("Build <{id}>")), "");
    }
    let at = fixture.serve().await;
    let builds = |answer: &Answer| answer.body.matches("class=\"name\"").count();
    let page = get(at, "/builds").await;
    assert_eq!(builds(&page), 50);
    assert!(page.body.contains("Build &lt;120&gt;") && page.body.contains("before=71"), "{}", page.body);
    let failed = get(at, "/builds?repository=acme%2Fapp&state=failed&before=71").await;
    assert_eq!(builds(&failed), 35);
    assert!(!failed.body.contains("Older builds") && failed.body.contains("Newest"));
    assert_eq!(builds(&get(at, "/builds?repository=nobody").await), 0);
    let unknown = get(at, "/builds?state=nonsense").await;
    assert!(unknown.status == 400 && unknown.body.contains("timed_out"), "{}: {}", unknown.status, unknown.body);
}

#[tokio::test]
async fn lines_of_all_logs_are_links_to_their_place() {
    let fixture = Fixture::new();
    fixture.put(build(7, Phase::Failed, "Find me"), "line\n");
    let at = fixture.serve().await;
    let page = get(at, "/builds/search?q=needle").await;
    assert!(page.body.contains("href=\"/builds/7?attempt=1&amp;from=10#L30\">30</a>"), "{}", page.body);
    assert!(page.body.contains("&lt;b&gt;needle&lt;/b&gt;") && page.body.contains("2 logs that have ended"));
    assert_eq!(get(at, "/builds/search").await.status, 200);
    assert_eq!(get(at, "/builds/search?q=x&cursor=y").await.status, 400);
}

#[tokio::test]
async fn a_page_of_long_lines_stays_bounded() {
    let fixture = Fixture::new();
    let long = format!("{}\n", "<".repeat(1_000_000));
    fixture.put(build(1, Phase::Passed, "Long"), long.repeat(40));
    let at = fixture.serve().await;
    let page = get(at, "/builds/1").await;
    assert!(page.body.len() < 3_000_000, "{} bytes", page.body.len());
    assert_eq!(rows(&page).last(), Some(&40));
    assert!(page.body.contains("all of 1.0 MB raw</a>"), "{}", &page.body[page.body.len() - 2_000..]);
}
