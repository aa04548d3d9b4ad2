//! The builds and logs of this broker, as the pages read them.

use std::sync::Arc;

use super::source::{Action, Answer, LogLine, Source};
use crate::builds::build::{Build, BuildId};
use crate::builds::change::Note;
use crate::builds::delivery::{Delivery, DeliveryId};
use crate::builds::log::{LogId, LogStatus};
use crate::pipeline::Pipeline;
use crate::pipeline::logs::{Line, LogError};
use crate::pipeline::search::{Found, Question};
use crate::protocol::error::{RpcError, code};
use crate::server::http::logs::nothing_comes;
use crate::server::http::problem::Refusal;
use crate::store::builds::BuildFilter;

/// What runs builds here.
pub struct Live(pub Arc<Pipeline>);

fn failed(error: &LogError) -> Refusal {
    tracing::warn!(%error, "a log could not be read for a page");
    Refusal(RpcError::new(code::UNAVAILABLE, "the log cannot be read now: try again"))
}

impl From<Line> for LogLine {
    fn from(line: Line) -> Self {
        let Line { number, offset, at_ms, bytes, cut, ended: _ } = line;
        Self { number, offset, at_ms, bytes, cut }
    }
}

impl Source for Live {
    fn repositories(&self) -> Vec<Arc<str>> {
        self.0.settings.repositories.keys().cloned().collect()
    }

    fn build(&self, id: BuildId) -> Answer<'_, Option<Build>> {
        Box::pin(async move { Ok(self.0.conductor.build(id).await?) })
    }

    fn builds<'a>(&'a self, filter: &'a BuildFilter) -> Answer<'a, Vec<Build>> {
        Box::pin(async move { Ok(self.0.conductor.builds(filter).await?) })
    }

    fn notes(&self, id: BuildId) -> Answer<'_, Vec<Note>> {
        Box::pin(async move { Ok(self.0.conductor.notes(id).await?) })
    }

    fn delivery(&self, id: DeliveryId) -> Answer<'_, (Delivery, Option<Arc<str>>)> {
        Box::pin(async move {
            let (delivery, _) = self.0.conductor.delivery(id).await?;
            let trouble = self.0.conductor.delivery_trouble(&delivery).await?;
            Ok((delivery, trouble))
        })
    }

    fn redeliver(&self, id: DeliveryId) -> Answer<'_, DeliveryId> {
        Box::pin(async move { Ok(self.0.conductor.redeliver(id).await?) })
    }

    fn log(&self, log: LogId) -> Answer<'_, Option<LogStatus>> {
        Box::pin(async move {
            let status = self.0.logs.status(log).await.map_err(|error| failed(&error))?;
            if status.bytes > 0 || status.end.is_some() {
                return Ok(Some(status));
            }
            let Some(build) = self.0.conductor.build(log.build).await? else { return Ok(None) };
            // Its agent has told the end of a log that is not there any more.
            let deleted = build.log.is_some() && build.attempt == log.attempt;
            if deleted || !(1..=build.attempt).contains(&log.attempt) {
                return Ok(None);
            }
            Ok(Some(LogStatus { never: nothing_comes(&build, log, &status), ..status }))
        })
    }

    fn lines(&self, log: LogId, from: u64, count: u64) -> Answer<'_, Vec<LogLine>> {
        Box::pin(async move {
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            let lines = self.0.logs.lines(log, from, count).await.map_err(|error| failed(&error))?;
            Ok(lines.into_iter().map(LogLine::from).collect())
        })
    }

    fn grown(&self, log: LogId, known_bytes: u64) -> Answer<'_, ()> {
        Box::pin(async move {
            let mut following = self.0.logs.changed(log).await.map_err(|error| failed(&error))?;
            loop {
                let status = following.status();
                if !status.more() || status.bytes != known_bytes {
                    return Ok(());
                }
                following.news().await;
            }
        })
    }

    fn search<'a>(&'a self, asked: &'a Question) -> Answer<'a, Found> {
        Box::pin(async move {
            self.0.search.search(asked).await.map_err(|error| {
                tracing::warn!(%error, "a search could not be answered");
                Refusal(RpcError::new(code::UNAVAILABLE, "the logs cannot be searched now: try again"))
            })
        })
    }

    fn act<'a>(&'a self, id: BuildId, action: Action, by: &'a str) -> Answer<'a, BuildId> {
        Box::pin(async move {
            let conductor = &self.0.conductor;
            match action {
                Action::Approve => conductor.approve(id, None, by.into()).await.map(|build| build.id),
                Action::Cancel => conductor.cancel(id, None, by.into()).await.map(|build| build.id),
                Action::Retry => conductor.retry(id, by.into()).await,
            }
            .map_err(Refusal)
        })
    }
}
