//! A decision being made: builds as they will be, and what is remembered and told of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Answer, Book, Refusal};
use crate::builds::build::{Build, BuildId, Ending, Phase};
use crate::builds::change::{Change, Note};
use crate::builds::status::Status;

/// What is changed so far.
pub(super) struct Draft<'b> {
    pub(super) book: &'b Book,
    pub(super) now_ms: i64,
    builds: BTreeMap<BuildId, Build>,
    changes: Vec<Change>,
}

impl<'b> Draft<'b> {
    pub(super) const fn new(book: &'b Book, now_ms: i64) -> Self {
        Self { book, now_ms, builds: BTreeMap::new(), changes: Vec::new() }
    }

    /// The build as it is by now.
    pub(super) fn build(&self, id: BuildId) -> Option<&Build> {
        self.builds.get(&id).or_else(|| self.book.open.get(id).map(Arc::as_ref))
    }

    /// The number of the next new build.
    pub(super) fn next_id(&self) -> BuildId {
        let newest = self.builds.keys().next_back().copied().unwrap_or_default();
        BuildId(self.book.last_build.max(newest).0 + 1)
    }

    /// Puts a build as it will be.
    pub(super) fn put(&mut self, build: Build) {
        self.builds.insert(build.id, build);
    }

    pub(super) fn change(&mut self, change: Change) {
        self.changes.push(change);
    }

    /// Remembers what happened to a build, which is put already.
    pub(super) fn note(&mut self, id: BuildId, what: impl Into<Arc<str>>, by: &Arc<str>) {
        let Some(build) = self.build(id) else { return };
        let (phase, attempt) = (build.phase, build.attempt);
        let note = Note { build: id, at_ms: self.now_ms, phase, attempt, what: what.into(), by: by.clone() };
        self.changes.push(Change::Note(note));
    }

    /// Ends a build: at once where it has no session, else as soon as that is gone. Where it is about to
    /// end already, an end that leaves it waiting gives way to one that does not.
    pub(super) fn end(&mut self, id: BuildId, ending: Ending) -> bool {
        let Some(build) = self.build(id) else { return false };
        let ends = build.ending.as_ref().is_some_and(|known| known.to.is_final());
        if build.phase.is_final() || ends {
            return false;
        }
        let mut build = build.clone();
        let (by, words) = (ending.by.clone(), ending_words(&ending));
        let over = build.session.is_none();
        build.ending = Some(ending);
        if over {
            self.finish(build);
        } else {
            self.put(build);
        }
        self.note(id, words, &by);
        true
    }

    /// Gives a build the phase that its ending says: its session is gone.
    pub(super) fn finish(&mut self, mut build: Build) {
        let Some(ending) = build.ending.clone() else { return };
        build.session = None;
        build.reason = Some(ending.reason.clone());
        enter(&mut build, ending.to);
        build.times.ended_ms = Some(self.now_ms);
        self.put(build);
    }

    /// The decision.
    pub(super) fn done(mut self, answer: Answer) -> Result<(Vec<Change>, Answer), Refusal> {
        let mut changes = Vec::with_capacity(self.builds.len() + self.changes.len() + 1);
        for build in std::mem::take(&mut self.builds).into_values() {
            let status = self.status(&build);
            changes.push(Change::Build(Arc::new(build)));
            changes.extend(status.map(|status| Change::Status(Arc::new(status))));
        }
        changes.append(&mut self.changes);
        Ok((changes, answer))
    }

    /// What is to be told of a build, where that is something new and no newer build's place.
    fn status(&self, build: &Build) -> Option<Status> {
        let before = self.book.open.get(build.id);
        let status = Status::of_change(before.map(Arc::as_ref), build, self.now_ms)?;
        self.is_news(&status).then_some(status)
    }

    /// Tells of a delivery, where that is something new.
    pub(super) fn tell(&mut self, status: Status) {
        if self.is_news(&status) {
            self.changes.push(Change::Status(Arc::new(status)));
        }
    }

    fn is_news(&self, status: &Status) -> bool {
        self.book.statuses.get(&status.key).is_none_or(|known| known.version <= status.version)
    }
}

/// Changes the phase, by the one table that says what may follow what.
pub(super) fn enter(build: &mut Build, next: Phase) {
    assert!(build.phase.can_become(next), "build {} was to go from {} to {next}", build.id, build.phase);
    build.phase = next;
}

fn ending_words(ending: &Ending) -> String {
    let verb = match ending.to {
        Phase::Superseded => "superseded",
        Phase::Cancelled => "cancelled",
        Phase::Queued => "to be tried again",
        Phase::TimedOut => "timed out",
        other => other.as_str(),
    };
    format!("{verb}: {}", ending.reason)
}
