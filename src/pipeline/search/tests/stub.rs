//! A stand-in for a cluster: as much of its API as is used, and what can go wrong with it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// What the next bulk request comes to.
#[derive(Debug)]
pub(super) enum Fault {
    /// It has no room for any of it.
    Busy,
    /// It is too large.
    TooLarge,
    /// Of these pieces: there is no room for some, and some are refused for good.
    Items { busy: Vec<usize>, refused: Vec<usize> },
    /// None of the pieces is taken, with this status and type of error.
    Index(u16, &'static str),
}

#[derive(Debug, Default)]
struct Inside {
    /// The mappings of new indexes, and of the one that is there.
    template: Value,
    made: Option<Value>,
    documents: BTreeMap<String, Value>,
    /// The ids of each bulk request.
    bulks: Vec<Vec<String>>,
    faults: VecDeque<Fault>,
    away: bool,
    hangs: bool,
}

/// A stand-in.
#[derive(Clone, Debug)]
pub(super) struct Stub {
    url: Arc<str>,
    inside: Arc<Mutex<Inside>>,
}

impl Stub {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/prefix/lab-logs", listener.local_addr().unwrap()).into();
        let stub = Self { url, inside: Arc::default() };
        let routes = Router::new()
            .route("/prefix/_index_template/lab-logs", put(template))
            .route("/prefix/lab-logs", put(make))
            .route("/prefix/lab-logs/_mapping", get(mapping))
            .route("/prefix/lab-logs/{what}", post(act))
            .with_state(stub.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        stub
    }

    pub(super) fn url(&self) -> Arc<str> {
        Arc::clone(&self.url)
    }

    /// The ids of what it has.
    pub(super) fn ids(&self) -> Vec<String> {
        self.inside.lock().unwrap().documents.keys().cloned().collect()
    }

    pub(super) fn bulks(&self) -> Vec<Vec<String>> {
        self.inside.lock().unwrap().bulks.clone()
    }

    pub(super) fn fail(&self, faults: impl IntoIterator<Item = Fault>) {
        self.inside.lock().unwrap().faults.extend(faults);
    }

    /// Whether what stands before it finds nobody there.
    pub(super) fn away(&self, away: bool) {
        self.inside.lock().unwrap().away = away;
    }

    /// Somebody makes the index, with fields of these types.
    pub(super) fn made_by_somebody(&self, mappings: Value) {
        self.inside.lock().unwrap().made = Some(mappings);
    }

    /// It never answers a search again.
    pub(super) fn hang(&self) {
        self.inside.lock().unwrap().hangs = true;
    }

    /// Takes everything from it, its index too.
    pub(super) fn empty(&self) {
        *self.inside.lock().unwrap() = Inside::default();
    }
}

async fn make(State(stub): State<Stub>) -> Response {
    let mut inside = stub.inside.lock().unwrap();
    if inside.away {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    if inside.made.is_some() {
        let error = json!({ "error": { "type": "resource_already_exists_exception" } });
        return (StatusCode::BAD_REQUEST, error.to_string()).into_response();
    }
    inside.made = Some(inside.template.clone());
    "{}".into_response()
}

async fn template(State(stub): State<Stub>, Json(template): Json<Value>) -> Response {
    let mut inside = stub.inside.lock().unwrap();
    if inside.away {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    inside.template = template["template"]["mappings"].clone();
    "{}".into_response()
}

async fn mapping(State(stub): State<Stub>) -> Response {
    let inside = stub.inside.lock().unwrap();
    match &inside.made {
        Some(mappings) if !inside.away => json!({ "lab-logs-1": { "mappings": mappings } }).to_string().into_response(),
        _ => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

async fn act(State(stub): State<Stub>, Path(what): Path<String>, request: Request) -> Response {
    let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap();
    let hangs = {
        let inside = stub.inside.lock().unwrap();
        if inside.away {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        inside.hangs && what == "_search"
    };
    if hangs {
        std::future::pending::<()>().await;
    }
    let mut inside = stub.inside.lock().unwrap();
    match what.as_str() {
        "_bulk" => bulk(&mut inside, std::str::from_utf8(&body).unwrap()),
        "_refresh" => "{}".into_response(),
        "_delete_by_query" => {
            let query: Value = serde_json::from_slice(&body).unwrap();
            inside.documents.retain(|_, document| !has(document, &query["query"]));
            "{}".into_response()
        }
        "_search" => search(&inside, &serde_json::from_slice(&body).unwrap()),
        other => panic!("{other} is no part of the API that is used"),
    }
}

fn bulk(inside: &mut Inside, body: &str) -> Response {
    let lines: Vec<Value> = body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let pieces: Vec<(String, Value)> =
        lines.chunks(2).map(|pair| (pair[0]["index"]["_id"].as_str().unwrap().to_owned(), pair[1].clone())).collect();
    // It has an index after that, if not the one that was meant.
    if inside.made.is_none() {
        inside.made = Some(inside.template.clone());
    }
    inside.bulks.push(pieces.iter().map(|(id, _)| id.clone()).collect());
    let (busy, refused) = match inside.faults.pop_front() {
        Some(Fault::Busy) => return StatusCode::TOO_MANY_REQUESTS.into_response(),
        Some(Fault::TooLarge) => return StatusCode::PAYLOAD_TOO_LARGE.into_response(),
        Some(Fault::Items { busy, refused }) => (busy, refused),
        Some(Fault::Index(status, kind)) => {
            let item = |(id, _)| json!({ "index": { "_id": id, "status": status, "error": { "type": kind } } });
            let items: Vec<Value> = pieces.into_iter().map(item).collect();
            return json!({ "errors": true, "items": items }).to_string().into_response();
        }
        None => (vec![], vec![]),
    };
    let mut items = Vec::new();
    for (at, (id, document)) in pieces.into_iter().enumerate() {
        let status = match () {
            () if busy.contains(&at) => 429,
            () if refused.contains(&at) => 400,
            () => 201,
        };
        items.push(json!({ "index": { "_id": id, "status": status, "error": { "type": "some" } } }));
        if status == 201 {
            inside.documents.insert(id, document);
        }
    }
    let errors = !busy.is_empty() || !refused.is_empty();
    json!({ "errors": errors, "items": items }).to_string().into_response()
}

fn search(inside: &Inside, query: &Value) -> Response {
    let filters = query["query"]["bool"]["filter"].as_array().unwrap();
    let after = query["search_after"][0].as_u64().unwrap_or(u64::MAX);
    let number = |document: &Value| document["piece"].as_u64().unwrap();
    let mut found: Vec<&Value> = inside
        .documents
        .values()
        .filter(|document| number(document) < after && filters.iter().all(|filter| has(document, filter)))
        .collect();
    found.sort_by_key(|document| std::cmp::Reverse(number(document)));
    found.truncate(usize::try_from(query["size"].as_u64().unwrap()).unwrap());
    let hits: Vec<Value> = found.iter().map(|document| json!({ "_source": document })).collect();
    json!({ "hits": { "hits": hits } }).to_string().into_response()
}

fn has(document: &Value, filter: &Value) -> bool {
    let (kind, of) = filter.as_object().unwrap().iter().next().unwrap();
    let (field, wanted) = of.as_object().unwrap().iter().next().unwrap();
    match kind.as_str() {
        "term" | "prefix" if field == "words" => {
            let (words, wanted) = (document["words"].as_str().unwrap(), wanted.as_str().unwrap());
            words.split(' ').any(|word| if kind == "term" { word == wanted } else { word.starts_with(wanted) })
        }
        "term" => &document[field] == wanted,
        "range" => {
            let number = document[field].as_u64().unwrap();
            let bound = |name: &str, otherwise| wanted[name].as_u64().unwrap_or(otherwise);
            (bound("gte", 0)..=bound("lte", u64::MAX)).contains(&number)
        }
        other => panic!("{other} is no filter that is used"),
    }
}
