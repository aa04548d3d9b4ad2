//! What is asked of the tables, in words that both stores understand: the tables are called alike, and
//! every question answers one column of text.
//!
//! What a store has of its own is [`Tables`]; a [`BuildStore`] is made of that here.

use std::fmt::Write as _;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::rows::{Rows, decompressed};
use super::search::{ATTEMPT_BITS, NTH_BITS, Narrowing};
use super::{Answer, BuildFilter, BuildStore, Loaded};
use crate::builds::build::{Build, BuildId, Phase};
use crate::builds::change::{Change, Note};
use crate::builds::delivery::{Delivery, DeliveryId};
use crate::builds::status::{Status, StatusKey};
use crate::store::StoreError;

type Result<T> = std::result::Result<T, StoreError>;

/// Deliveries that a broker knows repeats by, at most.
const RECENT_MAX: i64 = 100_000;
/// Statuses of deliveries that are read: as many mistakes as a book keeps.
const OF_DELIVERIES_MAX: i64 = 10_000;
/// Builds, notes or deliveries that one answer has at most, whatever is asked for.
const ANSWER_MAX: usize = 10_000;
/// Builds that are named for forgetting at once.
const FORGETTABLE_MAX: i64 = 500;
/// Deliveries that are deleted at once: the rest is left for the next time.
pub(super) const DELIVERIES_FORGOTTEN_MAX: i64 = 10_000;
/// Which they are: worked on, and older than `$1`; at most `$2`. Asked twice in one transaction it is the same.
pub(super) const DELIVERIES_FORGOTTEN: &str = "SELECT delivery FROM delivery WHERE received_ms < $1 AND waiting = 0
    ORDER BY received_ms, delivery LIMIT $2";
/// Records that are parsed on the broker's own thread; more are parsed on another.
const PARSED_INLINE_MAX: usize = 64;

/// A value of a statement.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Number(i64),
    Text(Arc<str>),
}

/// A question: a statement that answers one column of text, and its values, `$1` first.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub text: String,
    pub values: Vec<Value>,
}

impl Ask {
    pub(super) fn new(text: &str) -> Self {
        Self { text: text.to_owned(), values: Vec::new() }
    }

    pub(super) fn number(mut self, number: i64) -> Self {
        self.values.push(Value::Number(number));
        self
    }

    pub(super) fn words(mut self, text: &Arc<str>) -> Self {
        self.values.push(Value::Text(Arc::clone(text)));
        self
    }

    /// Adds a value; answers what stands for it in the text.
    fn place(&mut self, value: Value) -> String {
        self.values.push(value);
        format!("${}", self.values.len())
    }
}

/// What each store does in its own way.
pub(super) trait Tables: Send + Sync + 'static {
    /// Answers a question as of what is committed.
    fn ask(&self, ask: Ask) -> impl Future<Output = Result<Vec<String>>> + Send;

    /// Makes this process the one that writes, and answers these questions as of one moment after that.
    fn take(&self, asks: Vec<Ask>) -> impl Future<Output = Result<Vec<Vec<String>>>> + Send;

    /// Writes rows in one transaction.
    fn write(&self, rows: Rows<'_>) -> impl Future<Output = Result<()>> + Send;

    /// A delivery's compressed body.
    fn body(&self, id: DeliveryId) -> impl Future<Output = Result<Option<Vec<u8>>>> + Send;

    /// Deletes, in one transaction.
    fn delete(&self, builds: &[BuildId], deliveries_before_ms: i64) -> impl Future<Output = Result<()>> + Send;
}

impl<T: Tables> BuildStore for T {
    fn take_over(&self, recent_since_ms: i64) -> Answer<'_, Loaded> {
        Box::pin(async move {
            let asks = vec![
                Ask::new(&format!("SELECT record FROM build WHERE phase IN ({}) ORDER BY build", open_phases())),
                Ask::new("SELECT record FROM delivery WHERE waiting = 1 ORDER BY delivery"),
                Ask::new(
                    "SELECT record FROM (
                        SELECT delivery, record FROM delivery WHERE received_ms >= $1 ORDER BY delivery DESC LIMIT $2
                    ) AS newest ORDER BY delivery",
                )
                .number(recent_since_ms)
                .number(RECENT_MAX),
                Ask::new("SELECT record FROM status WHERE told = 0 ORDER BY due_ms, repository, sha, context"),
                Ask::new("SELECT record FROM status WHERE delivery IS NOT NULL ORDER BY delivery DESC LIMIT $1")
                    .number(OF_DELIVERIES_MAX),
                Ask::new("SELECT CAST(build AS TEXT) FROM builds_last"),
                Ask::new("SELECT CAST(delivery AS TEXT) FROM builds_last"),
            ];
            let found = self.take(asks).await?;
            let Ok([open, waiting, recent, untold, of_deliveries, last_build, last_delivery]) =
                <[Vec<String>; 7]>::try_from(found)
            else {
                return Err(StoreError::Inconsistent { what: "a question was not answered".to_owned() });
            };
            let number = |found: Vec<String>| found.first().and_then(|text| text.parse().ok()).unwrap_or_default();
            Ok(Loaded {
                open: parsed(open, "build").await?,
                waiting: parsed(waiting, "delivery").await?,
                recent: parsed(recent, "delivery").await?,
                untold: parsed(untold, "status").await?,
                of_deliveries: parsed(of_deliveries, "status").await?,
                last_build: BuildId(number(last_build)),
                last_delivery: DeliveryId(number(last_delivery)),
            })
        })
    }

    fn commit<'a>(&'a self, changes: &'a [Change]) -> Answer<'a, ()> {
        Box::pin(async move { self.write(Rows::of(changes).await?).await })
    }

    fn build(&self, id: BuildId) -> Answer<'_, Option<Build>> {
        Box::pin(async move {
            let ask = Ask::new("SELECT record FROM build WHERE build = $1").number(signed(id.0));
            one(self.ask(ask).await?, "build").await
        })
    }

    fn builds<'a>(&'a self, filter: &'a BuildFilter) -> Answer<'a, Vec<Build>> {
        Box::pin(async move { parsed(self.ask(builds_ask(filter)).await?, "build").await })
    }

    fn notes(&self, build: BuildId) -> Answer<'_, Vec<Note>> {
        Box::pin(async move {
            let ask = Ask::new("SELECT record FROM note WHERE build = $1 ORDER BY note LIMIT $2");
            parsed(self.ask(ask.number(signed(build.0)).number(bound(ANSWER_MAX))).await?, "note").await
        })
    }

    fn delivery(&self, id: DeliveryId) -> Answer<'_, Option<(Delivery, Arc<[u8]>)>> {
        Box::pin(async move {
            let ask = Ask::new("SELECT record FROM delivery WHERE delivery = $1").number(signed(id.0));
            let Some(delivery) = one(self.ask(ask).await?, "delivery").await? else { return Ok(None) };
            // Deleted between the two reads, it is gone as well.
            let Some(body) = self.body(id).await? else { return Ok(None) };
            Ok(Some((delivery, decompressed(body).await?)))
        })
    }

    fn deliveries(&self, before: Option<DeliveryId>, limit: usize) -> Answer<'_, Vec<Delivery>> {
        Box::pin(async move {
            let ask = Ask::new("SELECT record FROM delivery WHERE delivery < $1 ORDER BY delivery DESC LIMIT $2")
                .number(before.map_or(i64::MAX, |id| signed(id.0)))
                .number(bound(limit));
            parsed(self.ask(ask).await?, "delivery").await
        })
    }

    fn status<'a>(&'a self, key: &'a StatusKey) -> Answer<'a, Option<Status>> {
        Box::pin(async move {
            let ask = Ask::new("SELECT record FROM status WHERE repository = $1 AND sha = $2 AND context = $3")
                .words(&key.repository)
                .words(&key.sha.as_str().into())
                .words(&key.context);
            one(self.ask(ask).await?, "status").await
        })
    }

    fn forgettable(&self, before_ms: i64, keep: u32) -> Answer<'_, Vec<BuildId>> {
        Box::pin(async move {
            // Not among the newest: as many of its repository are newer.
            const ASK: &str = "SELECT CAST(build AS TEXT) FROM build AS old WHERE ended_ms < $1
                AND build <= coalesce((SELECT build FROM build AS newer WHERE newer.repository = old.repository
                    ORDER BY build DESC LIMIT 1 OFFSET $2), -1)
                ORDER BY ended_ms, build LIMIT $3";
            let ask = Ask::new(ASK).number(before_ms).number(i64::from(keep)).number(FORGETTABLE_MAX);
            Ok(self.ask(ask).await?.iter().filter_map(|id| id.parse().ok()).map(BuildId).collect())
        })
    }

    fn forget<'a>(&'a self, builds: &'a [BuildId], deliveries_before_ms: i64) -> Answer<'a, ()> {
        Box::pin(self.delete(builds, deliveries_before_ms))
    }
}

fn open_phases() -> String {
    let open = Phase::ALL.into_iter().filter(|phase| !phase.is_final());
    open.map(|phase| format!("'{phase}'")).collect::<Vec<_>>().join(", ")
}

/// The builds that a filter lets through, newest first: their numbers from the indexes alone, a part for
/// each phase so that a seldom one is not looked for among all; and only then their records.
fn builds_ask(filter: &BuildFilter) -> Ask {
    let mut ask = Ask::new("");
    let limit = ask.place(Value::Number(bound(filter.limit)));
    let before = ask.place(Value::Number(filter.before.map_or(i64::MAX, |id| signed(id.0))));
    let mut conditions = format!("build < {before}");
    for (column, wanted) in [("repository", &filter.repository), ("pipeline", &filter.pipeline)] {
        if let Some(text) = wanted {
            let place = ask.place(Value::Text(Arc::clone(text)));
            let _ = write!(conditions, " AND {column} = {place}");
        }
    }
    let numbers = |phase: &str| {
        let part = format!("SELECT build FROM build WHERE {conditions}{phase} ORDER BY build DESC LIMIT {limit}");
        format!("SELECT build FROM ({part}) AS part")
    };
    let mut phases = filter.phases.clone();
    phases.sort_unstable();
    phases.dedup();
    let parts: Vec<String> = match phases.as_slice() {
        [] => vec![numbers("")],
        phases => phases.iter().map(|phase| numbers(&format!(" AND phase = '{phase}'"))).collect(),
    };
    let parts = parts.join(" UNION ALL ");
    ask.text = format!("SELECT record FROM build WHERE build IN ({parts}) ORDER BY build DESC LIMIT {limit}");
    ask
}

/// What a narrowing says of the builds of its pieces, as conditions that follow others, and their values; the
/// first of them has the number after `taken`.
pub(super) fn conditions(narrowing: &Narrowing, taken: usize) -> (String, Vec<Arc<str>>) {
    let (mut text, mut values) = (String::new(), Vec::new());
    for (column, wanted) in [("repository", &narrowing.repository), ("pipeline", &narrowing.pipeline)] {
        if let Some(wanted) = wanted {
            values.push(Arc::clone(wanted));
            let _ = write!(text, " AND {column} = ${}", taken + values.len());
        }
    }
    if !narrowing.phases.is_empty() {
        let phases: Vec<String> = narrowing.phases.iter().map(|phase| format!("'{phase}'")).collect();
        let _ = write!(text, " AND phase IN ({})", phases.join(", "));
    }
    if !text.is_empty() {
        let shift = ATTEMPT_BITS + NTH_BITS;
        text = format!(" AND EXISTS (SELECT 1 FROM build WHERE build.build = piece >> {shift}{text})");
    }
    (text, values)
}

async fn one<T: DeserializeOwned + Send + 'static>(found: Vec<String>, table: &'static str) -> Result<Option<T>> {
    Ok(parsed(found, table).await?.pop())
}

/// Reads records; many of them on another thread.
async fn parsed<T: DeserializeOwned + Send + 'static>(found: Vec<String>, table: &'static str) -> Result<Vec<T>> {
    if found.len() <= PARSED_INLINE_MAX {
        return parse(&found, table);
    }
    let parsing = tokio::task::spawn_blocking(move || parse(&found, table));
    parsing.await.map_err(|error| StoreError::Failed { doing: "parse records", source: error.into() })?
}

fn parse<T: DeserializeOwned>(found: &[String], table: &'static str) -> Result<Vec<T>> {
    let read = |record: &String| {
        serde_json::from_str(record).map_err(|error| {
            let shown: String = record.chars().take(200).collect();
            let what = format!("a record of the table `{table}` cannot be read ({error}): {shown}");
            StoreError::Inconsistent { what }
        })
    };
    found.iter().map(read).collect()
}

pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn bound(limit: usize) -> i64 {
    i64::try_from(limit.min(ANSWER_MAX)).unwrap_or(i64::MAX)
}
