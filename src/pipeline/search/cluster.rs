//! A cluster of OpenSearch or Elasticsearch as the index: a copy, which may be away or behind at any time.
//!
//! It is asked what the embedded index is asked: which pieces of logs have these words. What a piece says is
//! there too, for people who look into the cluster by themselves, and is never read back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, StatusCode, Url};
use serde::Deserialize;
use serde_json::{Value, json};

use super::indexer::Labels;
use super::pieces::Cut;
use crate::builds::log::LogId;
use crate::core::inventory::SecretRef;
use crate::inventory::pipelines::SearchSettings;
use crate::inventory::secrets;
use crate::pipeline::use_ring;
use crate::store::builds::search::{Candidate, Narrowing, PieceId};

/// The index's name where the URL has no path.
const INDEX: &str = "leasehold-logs";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a search may take, for which somebody waits, and how long anything else.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(60);
/// How often what a cluster has no room for now is sent, and the first pause, which doubles.
const SENDS_MAX: u32 = 6;
const PAUSE: Duration = Duration::from_millis(200);
/// The type of error of an index that somebody closed, which comes with the status of a piece that is wrong.
const INDEX_CLOSED: &str = "index_closed_exception";
/// What the fields of an index have to be for a query to find in it what a broker put there.
const FIELDS: [(&str, &str, &str); 5] = [
    ("piece", "type", "long"),
    ("words", "type", "text"),
    ("words", "analyzer", "whitespace"),
    ("repository", "type", "keyword"),
    ("pipeline", "type", "keyword"),
];
/// Bytes of an answer that are shown of an error.
const SHOWN_MAX: usize = 300;

/// Why a cluster did not do what it was asked.
#[derive(Debug)]
pub(super) enum ClusterError {
    /// It cannot be reached, or did not answer in time.
    Away(String),
    /// It has no room for more at present.
    Busy(String),
    /// The index is there, and is none that a broker made.
    NotOurs(String),
    /// It refused.
    Refused(String),
    /// What was sent is too large for it.
    TooLarge,
}

impl std::fmt::Display for ClusterError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Away(what) => write!(f, "the search cluster does not answer: {what}"),
            Self::Busy(what) => write!(f, "the search cluster is busy: {what}"),
            Self::NotOurs(what) => write!(
                f,
                "{what}: no broker made that index, and nothing would be found in it; \
                delete it, or name another in the url of [search]"
            ),
            Self::Refused(what) => write!(f, "the search cluster refused: {what}"),
            Self::TooLarge => f.write_str("the search cluster refused: a request is too large"),
        }
    }
}

type Result<T> = std::result::Result<T, ClusterError>;

/// A cluster.
#[derive(Debug)]
pub(super) struct Cluster {
    client: Client,
    url: Url,
    index: String,
    user: Option<(Arc<str>, SecretRef)>,
}

impl Cluster {
    /// The cluster of the settings; nothing is sent yet.
    pub(super) fn new(url: &str, settings: &SearchSettings) -> std::result::Result<Self, String> {
        use_ring();
        let mut url = Url::parse(url).map_err(|error| format!("[search] url: {error}"))?;
        let path = url.path().trim_matches('/').to_owned();
        // `https://host/prefix/index`: what stands before the index may be a proxy's.
        let (prefix, index) = path.rsplit_once('/').map_or(("", path.as_str()), |parts| parts);
        let index = if index.is_empty() { INDEX.to_owned() } else { index.to_owned() };
        url.set_path(&if prefix.is_empty() { "/".to_owned() } else { format!("/{prefix}/") });
        let client = Client::builder()
            .user_agent(concat!("leasehold/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .build()
            .map_err(|error| format!("[search] requests cannot be sent from here: {error}"))?;
        let user = settings.user.clone().zip(settings.password.clone());
        Ok(Self { client, url, index, user })
    }

    /// What people call it: without a password.
    pub(super) fn name(&self) -> String {
        format!("{}{}", self.url, self.index)
    }

    /// Makes the index where it is not there; answers whether it made it.
    pub(super) async fn prepare(&self) -> Result<bool> {
        let mappings = json!({
            "dynamic": false,
            "_source": { "excludes": ["words"] },
            "properties": {
                "piece": { "type": "long" },
                "build": { "type": "long" },
                "attempt": { "type": "long" },
                "first_line": { "type": "long", "index": false },
                "last_line": { "type": "long", "index": false },
                "repository": { "type": "keyword" },
                "pipeline": { "type": "keyword" },
                "words": { "type": "text", "analyzer": "whitespace", "index_options": "docs", "norms": false },
                "text": { "type": "text", "index": false },
            },
        });
        let template = json!({
            "index_patterns": [self.index],
            "template": { "settings": { "number_of_shards": 1 }, "mappings": mappings },
        });
        self.send(Method::PUT, &format!("_index_template/{}", self.index), Some(&template), TIMEOUT).await?;
        let (status, answer) = self.ask(Method::PUT, &self.index, Some(&json!({})), TIMEOUT).await?;
        match status {
            _ if status.is_success() => Ok(true),
            StatusCode::BAD_REQUEST if answer.contains("resource_already_exists") => self.check().await.map(|()| false),
            status => Err(refused(status, &answer)),
        }
    }

    /// Looks whether an index that was there before is one of a broker's: a template counts for new ones only.
    async fn check(&self) -> Result<()> {
        #[derive(Deserialize)]
        struct Index {
            mappings: Value,
        }
        let answer = self.send(Method::GET, &format!("{}/_mapping", self.index), None, TIMEOUT).await?;
        // Behind an alias they have names of their own.
        let indexes: BTreeMap<String, Index> = serde_json::from_str(&answer)
            .map_err(|error| ClusterError::Refused(format!("its answer cannot be read: {error}")))?;
        for (index, Index { mappings }) in indexes {
            for (field, key, wanted) in FIELDS {
                let has = mappings["properties"][field][key].as_str();
                if has != Some(wanted) {
                    let (has, url) = (has.unwrap_or("none"), &self.url);
                    let what = format!("{url}{index}: the {key} of the field {field} is {has}, and not {wanted}");
                    return Err(ClusterError::NotOurs(what));
                }
            }
        }
        Ok(())
    }

    /// Puts pieces into the index, each in place of one of its number. Sends again only those that there was
    /// no room for. A piece that it will never take is left out, and that is said.
    pub(super) async fn put(&self, pieces: Vec<(Cut, Labels)>) -> Result<()> {
        let mut lots = vec![pieces];
        let (mut sends, mut pause) = (1, PAUSE);
        while let Some(lot) = lots.pop() {
            if lot.is_empty() {
                continue;
            }
            let left = match self.bulk(&lot).await {
                Ok(left) => left,
                Err(ClusterError::TooLarge) if lot.len() > 1 => {
                    let mut first = lot;
                    let second = first.split_off(first.len() / 2);
                    lots.extend([second, first]);
                    continue;
                }
                Err(ClusterError::TooLarge) => {
                    tracing::warn!("a piece of a log is too large for the search cluster, and is left out");
                    continue;
                }
                Err(ClusterError::Busy(what)) if sends < SENDS_MAX => {
                    tracing::debug!("the search cluster is busy: {what}");
                    (0..lot.len()).collect()
                }
                Err(error) => return Err(error),
            };
            if left.is_empty() {
                continue;
            }
            if sends >= SENDS_MAX {
                return Err(ClusterError::Busy(format!("it has no room for {} pieces", left.len())));
            }
            sends += 1;
            tokio::time::sleep(pause).await;
            pause *= 2;
            let mut lot: Vec<_> = lot.into_iter().map(Some).collect();
            lots.push(left.into_iter().filter_map(|at| lot.get_mut(at).and_then(Option::take)).collect());
        }
        Ok(())
    }

    /// One bulk request; answers which of the pieces there was no room for.
    async fn bulk(&self, lot: &[(Cut, Labels)]) -> Result<Vec<usize>> {
        #[derive(Deserialize)]
        struct Answer {
            errors: bool,
            #[serde(default)]
            items: Vec<Item>,
        }
        #[derive(Deserialize)]
        struct Item {
            index: Done,
        }
        #[derive(Deserialize)]
        struct Done {
            #[serde(rename = "_id")]
            id: String,
            status: u16,
            error: Option<Value>,
        }
        let mut body = String::new();
        for (cut, labels) in lot {
            let piece = &cut.piece;
            let LogId { build, attempt } = piece.id.log();
            // The same for the same lines: what is sent twice is there once.
            let id = format!("{}:{attempt}:{}", build.0, piece.first_line);
            body.push_str(&json!({ "index": { "_id": id } }).to_string());
            body.push('\n');
            let document = json!({
                "piece": piece.id.0, "build": build.0, "attempt": attempt,
                "first_line": piece.first_line, "last_line": piece.last_line,
                "repository": labels.repository, "pipeline": labels.pipeline,
                "words": piece.words.join(" "), "text": cut.text,
            });
            body.push_str(&document.to_string());
            body.push('\n');
        }
        let request = self.request(Method::POST, &format!("{}/_bulk", self.index), TIMEOUT)?;
        let request = request.header("content-type", "application/x-ndjson").body(body);
        let (status, answer) = self.answered(request).await?;
        if !status.is_success() {
            return Err(refused(status, &answer));
        }
        let answer: Answer = serde_json::from_str(&answer)
            .map_err(|error| ClusterError::Refused(format!("its answer cannot be read: {error}")))?;
        if !answer.errors {
            return Ok(Vec::new());
        }
        if answer.items.len() != lot.len() {
            let what = format!("it answered for {} pieces of {}", answer.items.len(), lot.len());
            return Err(ClusterError::Refused(what));
        }
        let mut left = Vec::new();
        for (at, Item { index: done }) in answer.items.into_iter().enumerate() {
            match done.status {
                200..=299 => {}
                429 | 500..=599 => left.push(at),
                status => {
                    let closed = done.error.as_ref().is_some_and(|error| error["type"] == INDEX_CLOSED);
                    let why = done.error.map(|error| error.to_string()).unwrap_or_default();
                    if closed || matches!(status, 401 | 403 | 404) {
                        // It is not the piece that is wrong: any other would fare alike.
                        return Err(ClusterError::Refused(format!("{status}: {}", beginning(&why))));
                    }
                    tracing::warn!("the search cluster will not have {}: {}", done.id, beginning(&why));
                }
            }
        }
        Ok(left)
    }

    /// Takes a log out of the index.
    pub(super) async fn forget(&self, log: LogId) -> Result<()> {
        let Some((lowest, highest)) = PieceId::range(log) else { return Ok(()) };
        // What was put in just now is found by a query only after this.
        self.send(Method::POST, &format!("{}/_refresh", self.index), None, TIMEOUT).await?;
        let query = json!({ "query": { "range": { "piece": { "gte": lowest.0, "lte": highest.0 } } } });
        let path = format!("{}/_delete_by_query?conflicts=proceed", self.index);
        self.send(Method::POST, &path, Some(&query), TIMEOUT).await.map(drop)
    }

    /// Pieces that have all the words, from the highest number down. Phases are not in the cluster: whoever
    /// asks looks at the builds.
    pub(super) async fn candidates(&self, narrowing: &Narrowing) -> Result<Vec<Candidate>> {
        #[derive(Deserialize)]
        struct Answer {
            hits: Hits,
        }
        #[derive(Deserialize)]
        struct Hits {
            hits: Vec<Hit>,
        }
        #[derive(Deserialize)]
        struct Hit {
            #[serde(rename = "_source")]
            source: Source,
        }
        #[derive(Deserialize)]
        struct Source {
            piece: u64,
            first_line: u64,
            last_line: u64,
        }
        let kind = |begins| if begins { "prefix" } else { "term" };
        let mut filters: Vec<Value> =
            narrowing.words.iter().map(|word| json!({ kind(word.begins): { "words": word.text } })).collect();
        filters.push(json!({ "range": { "piece": { "gte": narrowing.from.0 } } }));
        for (field, wanted) in [("repository", &narrowing.repository), ("pipeline", &narrowing.pipeline)] {
            filters.extend(wanted.as_ref().map(|wanted| json!({ "term": { field: &**wanted } })));
        }
        let mut query = json!({
            "size": narrowing.limit,
            "query": { "bool": { "filter": filters } },
            "sort": [{ "piece": "desc" }],
            "_source": ["piece", "first_line", "last_line"],
            "track_total_hits": false,
        });
        if narrowing.to < PieceId::END {
            query["search_after"] = json!([narrowing.to.0 + 1]);
        }
        let path = format!("{}/_search", self.index);
        let answer = self.send(Method::POST, &path, Some(&query), SEARCH_TIMEOUT).await?;
        let answer: Answer = serde_json::from_str(&answer)
            .map_err(|error| ClusterError::Refused(format!("its answer cannot be read: {error}")))?;
        let candidate = |Hit { source: Source { piece, first_line, last_line } }| Candidate {
            id: PieceId(piece),
            first_line,
            last_line,
        };
        Ok(answer.hits.hits.into_iter().map(candidate).collect())
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>, within: Duration) -> Result<String> {
        let (status, answer) = self.ask(method, path, body, within).await?;
        if status.is_success() { Ok(answer) } else { Err(refused(status, &answer)) }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        within: Duration,
    ) -> Result<(StatusCode, String)> {
        let mut request = self.request(method, path, within)?;
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        self.answered(request).await
    }

    fn request(&self, method: Method, path: &str, within: Duration) -> Result<RequestBuilder> {
        let url = self.url.join(path).map_err(|error| ClusterError::Refused(format!("[search] url: {error}")))?;
        let request = self.client.request(method, url).timeout(within);
        let Some((user, password)) = &self.user else { return Ok(request) };
        let password = secrets::resolve(password)
            .map_err(|error| ClusterError::Refused(format!("the password of [search] cannot be read: {error}")))?;
        Ok(request.basic_auth(user, Some(password)))
    }

    async fn answered(&self, request: RequestBuilder) -> Result<(StatusCode, String)> {
        let away = |error: reqwest::Error| {
            let what = if error.is_timeout() {
                "it did not answer in time".to_owned()
            } else {
                let mut source: &dyn std::error::Error = &error;
                while let Some(inner) = source.source() {
                    source = inner;
                }
                source.to_string()
            };
            ClusterError::Away(format!("{}: {what}", self.url))
        };
        let answer = request.send().await.map_err(away)?;
        let status = answer.status();
        Ok((status, answer.text().await.map_err(away)?))
    }
}

fn refused(status: StatusCode, answer: &str) -> ClusterError {
    let said = format!("{}: {}", status.as_u16(), beginning(answer));
    match status.as_u16() {
        413 => ClusterError::TooLarge,
        429 => ClusterError::Busy(said),
        500..=599 => ClusterError::Away(said),
        _ => ClusterError::Refused(said),
    }
}

fn beginning(text: &str) -> String {
    text.chars().take(SHOWN_MAX).collect()
}
