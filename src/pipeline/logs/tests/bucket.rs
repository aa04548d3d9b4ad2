//! Logs in a bucket: a stand-in that speaks as much of S3 as logs need, and is unfriendly in the ways that
//! real ones are.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use object_store::aws::AmazonS3Builder;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;

use super::super::{AppendError, Logs, Objects, Retention};
use super::world::World;
use super::{ID, ROOMY, append, append_all, check, end_of, numbered};

/// Keys of one answer to a listing; the rest has to be asked for.
const PAGE: usize = 3;

#[derive(Default)]
struct Stored {
    objects: BTreeMap<String, Bytes>,
    /// Answers that are to be 500.
    to_fail: usize,
    /// There is no such bucket.
    is_missing: bool,
    /// Requests that were not signed as they must be.
    unsigned: usize,
}

type Shared = Arc<Mutex<Stored>>;

/// Begins one; answers where it is.
async fn bucket() -> (Shared, String) {
    let stored = Shared::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let routes = Router::new().fallback(answer).with_state(stored.clone());
    tokio::spawn(serve(listener, routes));
    (stored, endpoint)
}

async fn serve(listener: TcpListener, routes: Router) {
    while let Ok((stream, _)) = listener.accept().await {
        let routes = routes.clone();
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let mut routes = routes.clone();
            async move { routes.call(request.map(Body::new)).await }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer(State(stored): State<Shared>, method: Method, uri: Uri, headers: HeaderMap, body: Body) -> Response {
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let mut stored = stored.lock().unwrap();
    let signed = headers.get("authorization").and_then(|value| value.to_str().ok()).is_some_and(|value| {
        value.starts_with("AWS4-HMAC-SHA256 Credential=key-id/") && value.contains("/eu-north-1/s3/aws4_request")
    });
    if !signed {
        stored.unsigned += 1;
        return StatusCode::FORBIDDEN.into_response();
    }
    if stored.to_fail > 0 {
        stored.to_fail -= 1;
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    if stored.is_missing {
        return (StatusCode::NOT_FOUND, NO_BUCKET).into_response();
    }
    let query = uri.query().unwrap_or_default();
    let key = uri.path().strip_prefix("/lab-logs").expect("the bucket").trim_start_matches('/').to_owned();
    match method {
        Method::PUT => {
            stored.objects.insert(key, body);
            [("etag", "\"1\"")].into_response()
        }
        Method::GET if query.contains("list-type=2") => list(&stored, query),
        Method::GET => match stored.objects.get(&key) {
            Some(object) => ([("etag", "\"1\""), ("last-modified", MOMENT)], object.clone()).into_response(),
            None => StatusCode::NOT_FOUND.into_response(),
        },
        Method::POST if query.starts_with("delete") => {
            let text = String::from_utf8(body.to_vec()).unwrap();
            let mut deleted = String::new();
            for key in text.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next()) {
                stored.objects.remove(key);
                let _ = write!(deleted, "<Deleted><Key>{key}</Key></Deleted>");
            }
            format!("<?xml version=\"1.0\"?><DeleteResult>{deleted}</DeleteResult>").into_response()
        }
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

/// As SeaweedFS says it.
const NO_BUCKET: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>NoSuchBucket</Code>\
    <Message>The specified bucket does not exist</Message><Resource>/lab-logs/x</Resource></Error>";
const MOMENT: &str = "Fri, 27 Nov 2026 10:00:00 GMT";

fn list(stored: &Stored, query: &str) -> Response {
    let asked = |name: &str| {
        let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
        Some(value.replace("%2F", "/"))
    };
    let prefix = asked("prefix").unwrap_or_default();
    let after = asked("continuation-token").unwrap_or_default();
    let below: Vec<_> = stored.objects.iter().filter(|(key, _)| key.starts_with(&prefix) && **key > after).collect();
    let mut text = String::from("<?xml version=\"1.0\"?><ListBucketResult>");
    for (key, object) in below.iter().take(PAGE) {
        let size = object.len();
        let _ = write!(
            text,
            "<Contents><Key>{key}</Key><LastModified>2026-11-27T10:00:00.000Z</LastModified><ETag>\"1\"</ETag>\
             <Size>{size}</Size></Contents>"
        );
    }
    if let Some((last, _)) = below.get(PAGE.wrapping_sub(1)).filter(|_| below.len() > PAGE) {
        let _ = write!(text, "<IsTruncated>true</IsTruncated><NextContinuationToken>{last}</NextContinuationToken>");
    }
    text.push_str("</ListBucketResult>");
    ([("content-type", "application/xml")], text).into_response()
}

fn builder(endpoint: &str) -> AmazonS3Builder {
    AmazonS3Builder::new()
        .with_access_key_id("key-id")
        .with_secret_access_key("secret")
        .with_region("eu-north-1")
        .with_endpoint(endpoint)
}

fn logs(endpoint: &str) -> Logs {
    let builder = builder(endpoint).with_allow_http(true);
    let objects = Objects::bucket("s3://lab-logs/a/prefix", "lab-logs/a/prefix", builder).unwrap();
    let world = World::default();
    world.start_in(objects, ROOMY)
}

#[tokio::test]
async fn a_bucket_keeps_logs_below_its_prefix() {
    let (stored, endpoint) = bucket().await;
    stored.lock().unwrap().objects.insert("a/other".to_owned(), Bytes::new());
    let logs = logs(&endpoint);
    let source = numbered(200);
    append_all(&logs, &source, 90).await;
    // An object of which a crash left no row.
    let folder = {
        let stored = stored.lock().unwrap();
        let (key, _) = stored.objects.iter().find(|(key, _)| key.ends_with(".zst")).unwrap();
        key.rsplit_once('/').unwrap().0.to_owned()
    };
    assert!(folder.starts_with("a/prefix/7/1-"), "{folder}");
    stored.lock().unwrap().objects.insert(format!("{folder}/00000000000090-0.zst"), Bytes::new());
    logs.finish(ID, &end_of(&source)).await.unwrap();
    logs.settle(ID).await.unwrap();
    check(&logs, &source, ROOMY).await;
    let count = stored.lock().unwrap().objects.len();
    assert!(!stored.lock().unwrap().objects.contains_key(&format!("{folder}/00000000000090-0.zst")));
    assert!(count > 2 * PAGE, "listings have several pages: {count}");
    logs.delete(&[ID.build]).await.unwrap();
    let left: Vec<String> = stored.lock().unwrap().objects.keys().cloned().collect();
    assert_eq!(left, ["a/other"]);
    assert_eq!(stored.lock().unwrap().unsigned, 0);
}

#[tokio::test]
async fn a_bucket_that_stumbles_is_asked_again() {
    let (stored, endpoint) = bucket().await;
    let logs = logs(&endpoint);
    let source = numbered(40);
    append(&logs, &source, 0, 100).await.unwrap();
    stored.lock().unwrap().to_fail = 1;
    append(&logs, &source, 100, 300).await.unwrap();
    check(&logs, &source, ROOMY).await;
}

#[tokio::test]
async fn what_a_bucket_refuses_is_said_in_its_words_on_one_line() {
    let (stored, endpoint) = bucket().await;
    stored.lock().unwrap().is_missing = true;
    let logs = logs(&endpoint);
    let source = numbered(40);
    append(&logs, &source, 0, 50).await.unwrap();
    let Err(AppendError::Failed(error)) = append(&logs, &source, 50, 400).await else { panic!("it is stored") };
    let said = error.to_string();
    let expected = format!(
        "the place of logs: NoSuchBucket: The specified bucket does not exist (PUT {endpoint}/lab-logs/a/prefix/7/1-"
    );
    assert!(said.starts_with(&expected) && said.ends_with(".zst)"), "{said}");
    let said = logs.place_is_there().await.unwrap_err().to_string();
    assert!(said.contains(&format!("(GET {endpoint}/lab-logs?list-type=2")), "{said}");
}

#[tokio::test]
async fn a_bucket_that_hangs_does_not_hold_up_a_broker_that_stops() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stop = CancellationToken::new();
    let keeping = logs(&format!("http://{}", listener.local_addr().unwrap())).keep(Retention::default(), stop.clone());
    let keeping = tokio::spawn(keeping);
    let _unanswered = listener.accept().await.unwrap();
    stop.cancel();
    // Less than a request is waited for.
    tokio::time::timeout(Duration::from_secs(15), keeping).await.expect("it stops").unwrap();
}

#[tokio::test]
async fn an_append_fails_while_there_is_no_bucket_and_is_taken_later() {
    // A port that nobody listens on.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let objects = {
        let retry = object_store::RetryConfig { max_retries: 0, ..Default::default() };
        let store = builder(&endpoint).with_allow_http(true).with_bucket_name("lab-logs").with_retry(retry);
        Objects::of(Arc::new(store.build().unwrap()))
    };
    let world = World::default();
    let logs = world.start_in(objects, ROOMY);
    let source = numbered(40);
    append(&logs, &source, 0, 50).await.unwrap();
    let failed = append(&logs, &source, 50, 300).await;
    assert!(matches!(failed, Err(AppendError::Failed(_))), "{failed:?}");
    // It is there again, and so is the log.
    let logs = world.start(ROOMY);
    append(&logs, &source, 50, 300).await.unwrap();
    check(&logs, &source, ROOMY).await;
}

#[test]
fn a_place_that_is_none_is_refused_with_what_was_expected() {
    for (url, said) in [
        ("http://x", "expected file:///FOLDER or s3://"),
        ("file://relative", "file:///FOLDER"),
        ("s3://", "names no bucket"),
        ("s3:///prefix", "names no bucket"),
    ] {
        let refused = Objects::by_url(url).unwrap_err();
        assert!(refused.contains(said), "{url}: {refused}");
    }
    let refused = Objects::bucket("s3://b", "b", builder("http://127.0.0.1:9")).unwrap_err();
    assert!(refused.contains("AWS_ALLOW_HTTP"), "{refused}");
    assert!(Objects::bucket("s3://b", "b", builder("https://127.0.0.1:9")).is_ok());
}
