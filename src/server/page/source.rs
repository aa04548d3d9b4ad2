//! What the pages read and do, apart from where it comes from.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use crate::builds::build::{Build, BuildId};
use crate::builds::change::Note;
use crate::builds::delivery::{Delivery, DeliveryId};
use crate::builds::log::{LogId, LogStatus};
use crate::pipeline::search::{Found, Question};
use crate::server::http::problem::Refusal;
use crate::store::builds::BuildFilter;

/// An answer on its way.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Refusal>> + Send + 'a>>;

/// A line of a log.
#[derive(Clone, Debug)]
pub struct LogLine {
    /// From 1.
    pub number: u64,
    /// Where it begins in the log, bytes.
    pub offset: u64,
    /// When it began, Unix milliseconds, as its agent says.
    pub at_ms: Option<u64>,
    /// What it says, without its line feed; a very long one the beginning.
    pub bytes: Bytes,
    /// Whether there is more of it.
    pub cut: bool,
}

/// What somebody may do to a build from its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Allows a fork's commit.
    Approve,
    /// Ends it.
    Cancel,
    /// Has it once more.
    Retry,
}

/// Builds and their logs.
pub trait Source: Send + Sync + 'static {
    /// The repositories there are, for choosing one.
    fn repositories(&self) -> Vec<Arc<str>>;

    /// One build.
    fn build(&self, id: BuildId) -> Answer<'_, Option<Build>>;

    /// Builds, newest first.
    fn builds<'a>(&'a self, filter: &'a BuildFilter) -> Answer<'a, Vec<Build>>;

    /// What happened to a build, oldest first.
    fn notes(&self, id: BuildId) -> Answer<'_, Vec<Note>>;

    /// One delivery, and what is in the way of telling its forge of a mistake that it came upon.
    fn delivery(&self, id: DeliveryId) -> Answer<'_, (Delivery, Option<Arc<str>>)>;

    /// Has a delivery worked on again; answers the one that this is.
    fn redeliver(&self, id: DeliveryId) -> Answer<'_, DeliveryId>;

    /// How far a log is; `None` where there is none (any more).
    fn log(&self, log: LogId) -> Answer<'_, Option<LogStatus>>;

    /// Lines from a number on, those that are not kept left out; fewer than asked for at the end, or where
    /// they are long. Never none while there are some.
    fn lines(&self, log: LogId, from: u64, count: u64) -> Answer<'_, Vec<LogLine>>;

    /// Comes back when a log has another length than this, or its end.
    fn grown(&self, log: LogId, known_bytes: u64) -> Answer<'_, ()>;

    /// Looks for words in the logs of all builds.
    fn search<'a>(&'a self, asked: &'a Question) -> Answer<'a, Found>;

    /// Does something to a build; answers the build to go on with, which of a retry is the new one.
    fn act<'a>(&'a self, id: BuildId, action: Action, by: &'a str) -> Answer<'a, BuildId>;
}
