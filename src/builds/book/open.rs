//! The builds that are not over, and which of them there is something to do about.
//!
//! There may be ten thousand, and to walk over all of them takes as long as several writes to the disk. So whatever
//! is asked after every batch, or for every thing that happens, stands in sets of its own. [`Open::put`] keeps
//! them, and nothing else changes them; the tests compare them with a walk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::BLOCKED_KEPT_MS;
use crate::builds::build::{Build, BuildId, Line, Phase};
use crate::builds::status::StatusKey;

/// Builds that concern one another: of one pipeline, on one line. In the order in which lines have theirs together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Lane {
    repository: Arc<str>,
    line: Line,
    pipeline: Arc<str>,
}

impl Lane {
    fn of(build: &Build) -> Self {
        Self {
            repository: build.repository.clone(),
            line: build.subject.line.clone(),
            pipeline: build.plan.name.clone(),
        }
    }
}

/// Builds that are not over.
#[derive(Clone, Debug, Default)]
pub(super) struct Open {
    builds: BTreeMap<BuildId, Arc<Build>>,
    lanes: BTreeMap<Lane, BTreeSet<BuildId>>,
    /// Those that time alone ends, by when.
    due: BTreeSet<(i64, BuildId)>,
    /// Those that have a session.
    held: BTreeSet<BuildId>,
    /// Those that are granted, and wait to be taken.
    offered: BTreeSet<BuildId>,
    /// How many may have something to tell in a place.
    places: BTreeMap<StatusKey, usize>,
}

impl Open {
    /// Puts a build in the place of what it was before; one that is over leaves.
    pub(super) fn put(&mut self, build: &Arc<Build>) {
        self.remove(build.id);
        if build.phase.is_final() {
            return;
        }
        let id = build.id;
        self.lanes.entry(Lane::of(build)).or_default().insert(id);
        self.due.extend(due_ms(build).map(|due_ms| (due_ms, id)));
        self.held.extend(build.session.map(|_| id));
        self.offered.extend(is_offered(build).then_some(id));
        *self.places.entry(StatusKey::of(build)).or_default() += 1;
        self.builds.insert(id, build.clone());
    }

    fn remove(&mut self, id: BuildId) {
        let Some(build) = self.builds.remove(&id) else { return };
        let lane = Lane::of(&build);
        if let Some(members) = self.lanes.get_mut(&lane) {
            members.remove(&id);
            if members.is_empty() {
                self.lanes.remove(&lane);
            }
        }
        if let Some(due_ms) = due_ms(&build) {
            self.due.remove(&(due_ms, id));
        }
        self.held.remove(&id);
        self.offered.remove(&id);
        let place = StatusKey::of(&build);
        if let Some(count) = self.places.get_mut(&place) {
            *count -= 1;
            if *count == 0 {
                self.places.remove(&place);
            }
        }
    }

    pub(super) fn get(&self, id: BuildId) -> Option<&Arc<Build>> {
        self.builds.get(&id)
    }

    pub(super) fn len(&self) -> usize {
        self.builds.len()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Build>> + Clone {
        self.builds.values()
    }

    /// Builds of the same lane, this one too.
    pub(super) fn lane_of(&self, build: &Build) -> Option<&BTreeSet<BuildId>> {
        self.lanes.get(&Lane::of(build))
    }

    /// Builds of a line, of whatever pipelines, oldest first.
    pub(super) fn of_line(&self, repository: &Arc<str>, line: &Line) -> Vec<&Arc<Build>> {
        let first = Lane { repository: repository.clone(), line: line.clone(), pipeline: "".into() };
        let lanes = self.lanes.range(first..);
        let lanes = lanes.take_while(|(lane, _)| lane.repository == *repository && lane.line == *line);
        let mut builds: Vec<_> = lanes.flat_map(|(_, ids)| ids).filter_map(|id| self.get(*id)).collect();
        builds.sort_unstable_by_key(|build| build.id);
        builds
    }

    /// When time alone ends the next, Unix milliseconds.
    pub(super) fn due_ms(&self) -> Option<i64> {
        self.due.first().map(|(due_ms, _)| *due_ms)
    }

    /// Those that time has ended by this moment, those first that were due first.
    pub(super) fn due(&self, now_ms: i64) -> impl Iterator<Item = &Arc<Build>> {
        self.due.range(..=(now_ms, BuildId(u64::MAX))).filter_map(|(_, id)| self.get(*id))
    }

    pub(super) fn held(&self) -> impl Iterator<Item = &Arc<Build>> {
        self.held.iter().filter_map(|id| self.get(*id))
    }

    pub(super) fn offered(&self) -> impl Iterator<Item = &Arc<Build>> {
        self.offered.iter().filter_map(|id| self.get(*id))
    }

    /// Whether one may have more to tell in this place.
    pub(super) fn tells_in(&self, place: &StatusKey) -> bool {
        self.places.contains_key(place)
    }
}

fn is_offered(build: &Build) -> bool {
    build.phase == Phase::Queued && build.ending.is_none() && build.lease.is_some()
}

/// When time alone ends a build.
fn due_ms(build: &Build) -> Option<i64> {
    if build.ending.is_some() {
        return None;
    }
    match build.phase {
        Phase::Blocked => Some(build.times.created_ms.saturating_add(BLOCKED_KEPT_MS)),
        // One that is granted does not wait any more.
        Phase::Queued if build.lease.is_none() => {
            let wait_ms = i64::try_from(build.plan.wait_ms?).unwrap_or(i64::MAX);
            Some(build.times.queued_ms?.saturating_add(wait_ms))
        }
        _ => None,
    }
}

/// That the sets say what a walk over all builds does.
#[cfg(test)]
pub(super) fn check(open: &Open) {
    let ids = |which: &dyn Fn(&Build) -> bool| -> Vec<BuildId> {
        open.all().filter(|build| which(build)).map(|build| build.id).collect()
    };
    let mut due: Vec<(i64, BuildId)> = open.all().filter_map(|build| Some((due_ms(build)?, build.id))).collect();
    due.sort_unstable();
    assert!(open.due.iter().eq(&due), "{:?}, and due are {due:?}", open.due);
    assert_eq!(open.held.iter().copied().collect::<Vec<_>>(), ids(&|build| build.session.is_some()));
    assert_eq!(open.offered.iter().copied().collect::<Vec<_>>(), ids(&is_offered));
    let (mut places, mut lanes) = (BTreeMap::<_, usize>::new(), BTreeMap::<_, BTreeSet<BuildId>>::new());
    for build in open.all() {
        assert!(!build.phase.is_final(), "{build:?}");
        *places.entry(StatusKey::of(build)).or_default() += 1;
        lanes.entry(Lane::of(build)).or_default().insert(build.id);
        let line = (&build.repository, &build.subject.line);
        let of_line = open.of_line(line.0, line.1).into_iter().map(|build| build.id);
        assert!(of_line.eq(ids(&|other| (&other.repository, &other.subject.line) == line)), "line of {}", build.id);
    }
    assert_eq!((&open.places, &open.lanes), (&places, &lanes));
}
