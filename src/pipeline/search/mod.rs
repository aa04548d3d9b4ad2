//! Search across the logs of all builds.
//!
//! ```text
//!   log ends ──▶ queue (database) ──▶ indexer ──▶ index: embedded, or a cluster
//!   query ──words──▶ index ──pieces of logs, newest first──▶ scanner over the stored logs ──▶ hits
//! ```
//!
//! An index only narrows: it says in which pieces of logs all the words are. Whether a line has them, as they
//! were asked for, is decided here from the stored log. So every index answers alike, and one that is behind
//! or away makes a search slower or shorter, never wrong. A question does a bounded amount of work, and says
//! where to go on.

mod cluster;
mod indexer;
mod pieces;
mod query;
mod scan;
#[cfg(test)]
mod tests;
mod text;

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tokio::sync::Semaphore;

use self::cluster::Cluster;
pub use self::query::{QUERY_BYTES_MAX, Query};
use self::scan::{Scanned, Span};
use crate::builds::build::{Build, BuildId, Phase};
use crate::builds::log::LogId;
use crate::clock::{BootTime, boot_now};
use crate::inventory::pipelines::SearchSettings;
use crate::pipeline::logs::{LogError, Logs};
use crate::store::StoreError;
use crate::store::builds::search::{Candidate, Narrowing, PieceId, SearchTables};
use crate::store::builds::{BuildFilter, BuildStore};

/// Hits of a page, and how many where nothing is said.
pub const HITS_MAX: usize = 200;
/// Hits of a page where nothing is said.
pub const HITS_DEFAULT: usize = 50;
/// Hits of one log on a page: a word that is in each line of a log leaves room for other builds.
const HITS_OF_LOG_MAX: usize = 20;
/// Pieces asked of the index at once, and scanned at the same time.
const LOT: usize = 32;
const AT_ONCE: usize = 4;
/// Questions that are worked on at once: each reads and scans up to [`AT_ONCE`] pieces.
const SEARCHES_MAX: usize = 8;
/// How long a question is worked on before it is answered with what was found.
const TIME_MAX: Duration = Duration::from_secs(2);

/// The search. Cheap to clone.
#[derive(Clone)]
pub struct Search {
    inner: Arc<Inner>,
}

struct Inner {
    tables: Arc<dyn SearchTables>,
    builds: Arc<dyn BuildStore>,
    logs: Logs,
    place: Place,
    /// For how many more questions there is room.
    room: Semaphore,
    /// What keeps logs from being indexed.
    trouble: Mutex<Option<String>>,
}

/// Where the index is.
enum Place {
    Embedded,
    Cluster(Cluster),
}

impl fmt::Debug for Search {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Search").finish_non_exhaustive()
    }
}

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// What for.
    pub query: Query,
    /// In builds of this repository.
    pub repository: Option<Arc<str>>,
    /// Of this pipeline.
    pub pipeline: Option<Arc<str>>,
    /// In these phases; empty is any.
    pub phases: Vec<Phase>,
    /// Made at this moment or later, Unix milliseconds.
    pub since_ms: Option<i64>,
    /// At most so many hits.
    pub limit: usize,
    /// Where to go on.
    pub cursor: Option<Cursor>,
}

/// A place in the order of answers: in this piece's log, behind this line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    piece: PieceId,
    line: u64,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.piece.0, self.line)
    }
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (piece, line) = text.split_once('-').ok_or(())?;
        let piece = PieceId(piece.parse().map_err(|_| ())?);
        let line = line.parse().map_err(|_| ())?;
        if piece <= PieceId::END { Ok(Self { piece, line }) } else { Err(()) }
    }
}

/// A line that was looked for.
#[derive(Clone, Debug)]
pub struct Hit {
    /// Whose.
    pub build: Arc<Build>,
    /// Of this attempt's log.
    pub attempt: u32,
    /// Its number, from 1.
    pub line: u64,
    /// When it began, Unix milliseconds.
    pub at_ms: Option<u64>,
    /// What it says, around the first term.
    pub text: String,
    /// That the log has more such lines, which are passed over.
    pub more_in_log: bool,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Newest builds first, and lines of a log in their order.
    pub hits: Vec<Hit>,
    /// Where to go on; `None` where there is nothing more.
    pub next: Option<Cursor>,
    /// That time ran out before the page was full.
    pub unfinished: bool,
    /// Logs that have ended and are not in the index yet.
    pub to_index: u64,
    /// Why the index is not used or not up to date, in words.
    pub trouble: Option<String>,
}

/// Why a search has no answer.
#[derive(Debug)]
pub enum SearchError {
    /// As many questions are worked on as there is room for.
    Busy,
    /// A log.
    Log(LogError),
    /// The tables.
    Store(StoreError),
}

impl fmt::Display for SearchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => write!(f, "{SEARCHES_MAX} searches are under way, and there is no room for more"),
            Self::Log(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SearchError {}

impl From<StoreError> for SearchError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Search {
    /// The search over these logs; [`Search::index`] is to be run beside it.
    ///
    /// # Errors
    /// What is wrong with the settings.
    pub fn new(
        tables: Arc<dyn SearchTables>,
        builds: Arc<dyn BuildStore>,
        logs: Logs,
        settings: &SearchSettings,
    ) -> Result<Self, String> {
        let place = match &settings.url {
            Some(url) => Place::Cluster(Cluster::new(url, settings)?),
            None => Place::Embedded,
        };
        let (room, trouble) = (Semaphore::new(SEARCHES_MAX), Mutex::new(None));
        Ok(Self { inner: Arc::new(Inner { tables, builds, logs, place, room, trouble }) })
    }

    /// Answers a question.
    ///
    /// # Errors
    /// When builds or logs cannot be read, or too much is searched already. A cluster that is away is no error:
    /// it goes without.
    pub async fn search(&self, question: &Question) -> Result<Found, SearchError> {
        let _room = self.inner.room.try_acquire().map_err(|_| SearchError::Busy)?;
        let trouble = self.inner.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut looking = Looking {
            search: self,
            question,
            deadline: deadline(),
            from: self.first_since(question.since_ms).await?,
            without_index: false,
            full: None,
            builds: HashMap::new(),
            found: Found { trouble, ..Found::default() },
        };
        looking.found.to_index = self.inner.tables.to_index_count().await?;
        looking.go().await?;
        Ok(looking.found)
    }

    /// The lowest number of pieces of builds made since then. Builds are made in the order of their numbers,
    /// so this is found by halving.
    async fn first_since(&self, since_ms: Option<i64>) -> Result<PieceId, SearchError> {
        let Some(since_ms) = since_ms else { return Ok(PieceId(0)) };
        let newest_below = async |before: Option<u64>| {
            let filter = BuildFilter { before: before.map(BuildId), limit: 1, ..BuildFilter::default() };
            self.inner.builds.builds(&filter).await.map(|found| found.into_iter().next())
        };
        let Some(newest) = newest_below(None).await? else { return Ok(PieceId(0)) };
        // All below `low` are older; those from `high` on are not.
        let (mut low, mut high) = (0, newest.id.0 + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            match newest_below(Some(middle + 1)).await? {
                Some(build) if build.times.created_ms >= since_ms => high = build.id.0,
                _ => low = middle + 1,
            }
        }
        Ok(PieceId::first_of(BuildId(low)))
    }
}

/// A question that is being answered.
struct Looking<'a> {
    search: &'a Search,
    question: &'a Question,
    deadline: BootTime,
    from: PieceId,
    /// Whether the cluster is away, and logs are scanned whole.
    without_index: bool,
    /// The log that was last found to have more hits than a page takes.
    full: Option<LogId>,
    /// Builds that were looked at.
    builds: HashMap<BuildId, Option<Arc<Build>>>,
    found: Found,
}

impl Looking<'_> {
    async fn go(&mut self) -> Result<(), SearchError> {
        let mut cursor = self.question.cursor.unwrap_or(Cursor { piece: PieceId::END, line: 0 });
        loop {
            let lot = self.candidates(cursor.piece).await?;
            let Some(last) = lot.last().map(|candidate| candidate.id) else { return Ok(()) };
            let whole = !self.without_index && lot.len() < LOT;
            if let Some(next) = self.scan(lot, cursor).await? {
                self.found.next = Some(next);
                return Ok(());
            }
            // The rest of a log that was looked at whole, or is well known by now, is passed over.
            let last_log = last.log();
            let lowest = match PieceId::range(last_log) {
                Some((lowest, _)) if self.without_index || self.full == Some(last_log) => lowest,
                _ => last,
            };
            if whole || lowest.0 == 0 {
                return Ok(());
            }
            let next = PieceId(lowest.0 - 1);
            let same_log = next.log() == cursor.piece.log();
            cursor = Cursor { piece: next, line: if same_log { cursor.line } else { 0 } };
            if boot_now() >= self.deadline {
                self.found.unfinished = true;
                self.found.next = Some(cursor);
                return Ok(());
            }
        }
    }

    /// The next pieces from this number down.
    async fn candidates(&mut self, to: PieceId) -> Result<Vec<Candidate>, SearchError> {
        if to < self.from {
            return Ok(Vec::new());
        }
        let narrowing = Narrowing {
            words: self.question.query.words().into_iter().collect(),
            repository: self.question.repository.clone(),
            pipeline: self.question.pipeline.clone(),
            phases: self.question.phases.clone(),
            from: self.from,
            to,
            limit: LOT,
        };
        if !self.without_index {
            match &self.search.inner.place {
                Place::Embedded => return Ok(self.search.inner.tables.candidates(&narrowing).await?),
                Place::Cluster(cluster) => match cluster.candidates(&narrowing).await {
                    Ok(found) => return Ok(found),
                    Err(error) => {
                        self.without_index = true;
                        // What was waited for in vain leaves the logs no less time to be read in.
                        self.deadline = deadline();
                        self.found.trouble = Some(format!("{error}; the newest logs are read through without it"));
                    }
                },
            }
        }
        self.whole_logs(&narrowing).await
    }

    /// Without an index: the logs of the next builds, whole.
    async fn whole_logs(&mut self, narrowing: &Narrowing) -> Result<Vec<Candidate>, SearchError> {
        let filter = BuildFilter {
            repository: narrowing.repository.clone(),
            pipeline: narrowing.pipeline.clone(),
            phases: narrowing.phases.clone(),
            before: Some(BuildId(narrowing.to.build().0.saturating_add(1))),
            limit: AT_ONCE,
        };
        let mut found = Vec::new();
        for build in self.search.inner.builds.builds(&filter).await? {
            for attempt in (1..=build.attempt).rev() {
                let log = LogId { build: build.id, attempt };
                let id = PieceId::new(log, 0)
                    .filter(|_| PieceId::range(log).is_some_and(|(lowest, _)| lowest <= narrowing.to));
                let Some(id) = id.filter(|id| *id >= narrowing.from) else { continue };
                let last_line = self.search.inner.logs.status(log).await.map_err(SearchError::Log)?.lines;
                // One without lines keeps its place, so that it is known to have been looked at.
                found.push(Candidate { id, first_line: 1, last_line });
            }
            self.builds.insert(build.id, Some(Arc::new(build)));
        }
        Ok(found)
    }

    /// Looks through pieces, in order; answers where to go on once the page is full or time is over.
    async fn scan(&mut self, lot: Vec<Candidate>, cursor: Cursor) -> Result<Option<Cursor>, SearchError> {
        let (logs, query, deadline) = (&self.search.inner.logs, &self.question.query, self.deadline);
        let spans = lot.into_iter().map(|candidate| {
            let after = if candidate.id.log() == cursor.piece.log() { cursor.line } else { 0 };
            Span { id: candidate.id, first_line: candidate.first_line.max(after + 1), last_line: candidate.last_line }
        });
        let scans = spans.map(|span| scan::scan(logs, query, span, HITS_OF_LOG_MAX, deadline));
        let mut scans = stream::iter(scans).buffered(AT_ONCE);
        // How many hits the log has that is being looked at.
        let (mut log, mut of_log) = (None, 0);
        while let Some(scanned) = scans.next().await {
            let Scanned { span, lines, until } = scanned.map_err(SearchError::Log)?;
            let this = span.id.log();
            if log != Some(this) {
                (log, of_log) = (Some(this), self.found.hits.iter().filter(|hit| hit.is_of(this)).count());
            }
            let Some(build) = self.wanted(this.build).await? else { continue };
            for line in lines {
                if of_log >= HITS_OF_LOG_MAX {
                    self.full = Some(this);
                    if let Some(last) = self.found.hits.last_mut() {
                        last.more_in_log = true;
                    }
                    break;
                }
                if self.found.hits.len() >= self.question.limit {
                    return Ok(Some(Cursor { piece: span.id, line: line.number - 1 }));
                }
                of_log += 1;
                let scan::Match { number, at_ms, text } = line;
                let (build, attempt) = (build.clone(), this.attempt);
                self.found.hits.push(Hit { build, attempt, line: number, at_ms, text, more_in_log: false });
            }
            if of_log < HITS_OF_LOG_MAX && until < span.last_line {
                self.found.unfinished = true;
                return Ok(Some(Cursor { piece: span.id, line: until }));
            }
        }
        Ok(None)
    }

    /// The build, where it is there and one of those that are asked for.
    async fn wanted(&mut self, id: BuildId) -> Result<Option<Arc<Build>>, SearchError> {
        if let Some(known) = self.builds.get(&id) {
            return Ok(known.clone());
        }
        let build = self.search.inner.builds.build(id).await?;
        let phases = &self.question.phases;
        let wanted = build.filter(|build| phases.is_empty() || phases.contains(&build.phase)).map(Arc::new);
        self.builds.insert(id, wanted.clone());
        Ok(wanted)
    }
}

/// Until when a question is worked on from now on.
fn deadline() -> BootTime {
    boot_now().plus(u64::try_from(TIME_MAX.as_millis()).unwrap_or(u64::MAX))
}

impl Hit {
    fn is_of(&self, log: LogId) -> bool {
        self.build.id == log.build && self.attempt == log.attempt
    }
}
