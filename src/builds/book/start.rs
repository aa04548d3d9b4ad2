//! What a delivery, or somebody who asks, comes to: builds that begin, and builds that end for it.

use std::sync::Arc;

use super::draft::Draft;
use super::recent::line;
use super::{Answer, Command, Found, OPEN_BUILDS_MAX, Refusal};
use crate::builds::build::{Build, BuildId, Cause, Ending, Line, Phase, Subject, Times};
use crate::builds::change::Change;
use crate::builds::delivery::{Delivery, DeliveryId, Incoming, Outcome, Received};
use crate::builds::happening::{Forge, Happening, PullAction, What};
use crate::builds::matching::{event, starts};
use crate::builds::plan::{Concurrency, Plan};
use crate::builds::status::{Status, StatusKey};

/// A decision on its way.
type Decided = Result<(Vec<Change>, Answer), Refusal>;

/// What new builds have in common.
struct Origin<'a> {
    repository: &'a Arc<str>,
    subject: &'a Subject,
    cause: Cause,
    by: &'a Arc<str>,
}

impl Subject {
    /// What is built when this has happened; `None` where there is no commit (any more).
    #[must_use]
    pub fn of(forge: Forge, happening: &Happening) -> Option<Self> {
        let line = line(&happening.what);
        Some(match &happening.what {
            What::Push { branch, after, title, .. } => Self {
                line,
                sha: after.clone()?,
                git_ref: format!("refs/heads/{branch}").into(),
                base: None,
                title: title.clone(),
                fork: false,
            },
            What::Tag { tag, sha } => Self {
                line,
                sha: sha.clone()?,
                git_ref: format!("refs/tags/{tag}").into(),
                base: None,
                title: None,
                fork: false,
            },
            What::Pull { pull, .. } => Self {
                line,
                sha: pull.head.clone(),
                git_ref: forge.pull_ref(pull.number).into(),
                base: Some((pull.base_branch.clone(), pull.base.clone())),
                title: Some(pull.title.clone()),
                fork: pull.fork,
            },
        })
    }
}

impl Draft<'_> {
    pub(super) fn receive(mut self, incoming: &Incoming) -> Decided {
        if let Some(known) = self.book.recent.repeated(incoming) {
            return self.done(Answer::Received(Received::Duplicate(known)));
        }
        if self.book.waiting.len() >= super::WAITING_DELIVERIES_MAX {
            let message = format!("{} deliveries wait to be worked on: send it again later", self.book.waiting.len());
            return Err(Refusal::new("overloaded", message));
        }
        let id = DeliveryId(self.book.last_delivery.0 + 1);
        let outcome = match &incoming.said {
            Ok(_) => Outcome::Accepted,
            Err(reason) => Outcome::Ignored { reason: reason.clone() },
        };
        let delivery = Delivery {
            id,
            forge: incoming.forge,
            forge_id: incoming.forge_id.clone(),
            event: incoming.event.clone(),
            said: incoming.said.clone(),
            received_ms: self.now_ms,
            repeats: incoming.repeats,
            outcome,
        };
        self.change(Change::Accepted(Arc::new(delivery), incoming.body.clone()));
        self.done(Answer::Received(Received::Accepted(id)))
    }

    pub(super) fn work(mut self, id: DeliveryId, repository: &Arc<str>, found: &Found) -> Decided {
        // Worked on before: what was found for it a second time changes nothing.
        let Some(delivery) = self.book.waiting.get(&id).cloned() else { return self.done(Answer::Done) };
        let Ok(happening) = &delivery.said else { return self.done(Answer::Done) };
        let subject = Subject::of(delivery.forge, happening);
        let wanted = match found {
            Found::Wanted(wanted) => wanted.as_slice(),
            Found::Nothing(_) | Found::Mistaken(_) | Found::Failed(_) | Found::Unknown(_) => &[],
        };
        if let Some(subject) = &subject {
            self.tell_of_pipelines(&delivery, repository, happening, subject, found);
        }
        let room = self.book.open.len() + wanted.len() <= OPEN_BUILDS_MAX;
        let mut started = Vec::new();
        if let Some(subject) = subject.as_ref().filter(|_| room && starts(&happening.what)) {
            let cause = Cause::Delivery { delivery: id };
            let origin = Origin { repository, subject, cause, by: &happening.by };
            started = self.begin_all(&origin, wanted);
        }
        // Which of a draft's builds go on, only its pipelines can say.
        let unknown = matches!(found, Found::Mistaken(_) | Found::Failed(_))
            && matches!(happening.what, What::Pull { action: PullAction::Drafted, .. });
        let ended = if unknown { Vec::new() } else { self.end_older(repository, happening, wanted, &started) };
        let outcome = match found {
            Found::Mistaken(reason) | Found::Failed(reason) => Outcome::Failed { reason: reason.clone() },
            Found::Wanted(_) if !room => Outcome::Failed {
                reason: format!("{OPEN_BUILDS_MAX} builds are not over yet, as many as may be").into(),
            },
            Found::Nothing(reason) | Found::Unknown(reason) if ended.is_empty() => {
                Outcome::Ignored { reason: reason.clone() }
            }
            _ if started.is_empty() && ended.is_empty() => {
                Outcome::Ignored { reason: "no build was to be started or ended".into() }
            }
            _ => Outcome::Done { started, ended },
        };
        self.change(Change::Delivery(Arc::new(Delivery { outcome, ..Delivery::clone(&delivery) })));
        self.done(Answer::Done)
    }

    /// Tells the forge of a mistake in the pipelines of a commit; and that there is none any more, where they
    /// can be read by now: the broker's configuration was mended, or the base of a fork.
    fn tell_of_pipelines(
        &mut self,
        delivery: &Delivery,
        repository: &Arc<str>,
        happening: &Happening,
        subject: &Subject,
        found: &Found,
    ) {
        let key = StatusKey::of_pipelines(repository, &subject.sha);
        let mistaken = self.book.knows_of_mistake(&key);
        match found {
            Found::Mistaken(reason) => self.tell(Status::of_mistake(key, delivery.id, reason, self.now_ms)),
            // Of what is closed or deleted they are not read.
            Found::Wanted(_) | Found::Nothing(_) if mistaken && event(&happening.what).is_some() => {
                self.tell(Status::of_mended(key, delivery.id, self.now_ms));
            }
            _ => {}
        }
    }

    pub(super) fn start(
        mut self,
        repository: &Arc<str>,
        subject: &Subject,
        wanted: &[Arc<Plan>],
        by: &Arc<str>,
    ) -> Decided {
        self.room(wanted.len())?;
        let started = self.begin_all(&Origin { repository, subject, cause: Cause::Asked, by }, wanted);
        self.supersede_older(&started, by);
        self.done(Answer::Started(started))
    }

    pub(super) fn retry(mut self, of: &Build, by: &Arc<str>) -> Decided {
        if self.book.open.get(of.id).is_some() || !of.phase.is_final() {
            let message = format!("build {} is not over: cancel it first, or wait for its end", of.id);
            return Err(Refusal::new("build_not_over", message));
        }
        let newest = self.book.lane_of(of).filter(|id| *id > of.id).last();
        if let Some(newest) = newest.filter(|_| of.plan.concurrency == Concurrency::Supersede) {
            let message = format!("build {newest} of {} is newer and not over: that one counts", of.subject.line);
            return Err(Refusal::new("not_newest", message));
        }
        self.room(1)?;
        let cause = Cause::Retry { of: of.id };
        let origin = Origin { repository: &of.repository, subject: &of.subject, cause, by };
        let allowed_by = of.approved_by.clone();
        let id = self.begin(&origin, &of.plan, allowed_by);
        self.supersede_older(&[id], by);
        self.done(Answer::Started(vec![id]))
    }

    fn room(&self, more: usize) -> Result<(), Refusal> {
        if self.book.open.len() + more > OPEN_BUILDS_MAX {
            let message = format!("{} builds are not over yet, as many as may be: end some", self.book.open.len());
            return Err(Refusal::new("too_many_builds", message));
        }
        Ok(())
    }

    fn begin_all(&mut self, origin: &Origin<'_>, wanted: &[Arc<Plan>]) -> Vec<BuildId> {
        wanted.iter().map(|plan| self.begin(origin, plan, None)).collect()
    }

    /// Makes a build. A fork's is blocked until somebody allows its commit.
    fn begin(&mut self, origin: &Origin<'_>, plan: &Arc<Plan>, allowed_by: Option<Arc<str>>) -> BuildId {
        let id = self.next_id();
        let blocked = origin.subject.fork && allowed_by.is_none();
        let build = Build {
            id,
            repository: origin.repository.clone(),
            subject: origin.subject.clone(),
            cause: origin.cause.clone(),
            by: origin.by.clone(),
            plan: plan.clone(),
            phase: if blocked { Phase::Blocked } else { Phase::Queued },
            reason: blocked.then(|| "a fork's commit: it waits until somebody allows it".into()),
            ending: None,
            attempt: 1,
            session: None,
            lease: None,
            agent: None,
            picks: Vec::new(),
            key_hash: None,
            exit_code: None,
            times: Times { created_ms: self.now_ms, queued_ms: (!blocked).then_some(self.now_ms), ..Times::default() },
            approved_by: allowed_by,
            log: None,
            reported: false,
        };
        let what = match &origin.cause {
            Cause::Delivery { delivery } => format!("made of delivery {}", delivery.0),
            Cause::Asked => "asked for".to_owned(),
            Cause::Retry { of } => format!("asked for once more, as {of}"),
        };
        self.put(build);
        self.note(id, what, origin.by);
        id
    }

    /// Ends builds that what happened makes pointless.
    fn end_older(
        &mut self,
        repository: &Arc<str>,
        happening: &Happening,
        wanted: &[Arc<Plan>],
        started: &[BuildId],
    ) -> Vec<BuildId> {
        let by = &happening.by;
        let line = line(&happening.what);
        let cancel = |reason: String| Ending {
            to: Phase::Cancelled,
            reason: reason.into(),
            by: by.clone(),
            since_ms: self.now_ms,
            superseded_by: None,
        };
        let (ending, kept) = match &happening.what {
            What::Push { after: Some(_), .. } | What::Tag { sha: Some(_), .. } => {
                return self.supersede_older(started, by);
            }
            What::Push { after: None, .. } | What::Tag { sha: None, .. } => {
                (cancel(format!("{line} was deleted")), &[][..])
            }
            What::Pull { action: PullAction::Closed, .. } => (cancel(format!("{line} was closed")), &[][..]),
            // Pipelines that build drafts go on.
            What::Pull { action: PullAction::Drafted, .. } => (cancel(format!("{line} became a draft")), wanted),
            What::Pull { .. } => return self.supersede_pull(repository, &line, started, by),
        };
        let kept = |build: &Build| kept.iter().any(|kept| kept.name == build.plan.name);
        let ends = self.of_line(repository, &line, |build| !kept(build));
        ends.into_iter().filter(|id| self.end(*id, ending.clone())).collect()
    }

    /// Another commit, or another base, makes pointless what was built of a pull request before, also by
    /// pipelines that it does not have any more.
    fn supersede_pull(
        &mut self,
        repository: &Arc<str>,
        line: &Line,
        started: &[BuildId],
        by: &Arc<str>,
    ) -> Vec<BuildId> {
        let supersedes = |build: &Build| build.plan.concurrency == Concurrency::Supersede;
        let ends = self.of_line(repository, line, |build| supersedes(build) && !started.contains(&build.id));
        ends.into_iter().filter(|id| self.supersede(*id, started, line, by)).collect()
    }

    /// New builds take the place of older ones of their lanes, where their pipelines say so.
    fn supersede_older(&mut self, started: &[BuildId], by: &Arc<str>) -> Vec<BuildId> {
        let mut ended = Vec::new();
        for id in started {
            let Some(build) = self.build(*id).filter(|build| build.plan.concurrency == Concurrency::Supersede) else {
                continue;
            };
            let line = build.subject.line.clone();
            let older: Vec<BuildId> = self.book.lane_of(build).filter(|older| older < id).collect();
            ended.extend(older.into_iter().filter(|older| self.supersede(*older, &[*id], &line, by)));
        }
        ended
    }

    fn supersede(&mut self, id: BuildId, started: &[BuildId], line: &Line, by: &Arc<str>) -> bool {
        let Some(build) = self.build(id) else { return false };
        let name = build.plan.name.clone();
        let successor = started.iter().filter_map(|id| self.build(*id)).find(|newer| newer.plan.name == name);
        let superseded_by = successor.map(|newer| newer.id);
        let reason = superseded_by
            .map_or_else(|| format!("{line} has changed"), |newer| format!("build {newer} of {line} took its place"));
        let ending = Ending {
            to: Phase::Superseded,
            reason: reason.into(),
            by: by.clone(),
            since_ms: self.now_ms,
            superseded_by,
        };
        self.end(id, ending)
    }

    fn of_line(&self, repository: &Arc<str>, line: &Line, which: impl Fn(&Build) -> bool) -> Vec<BuildId> {
        let of_line = self.book.open.of_line(repository, line).into_iter();
        of_line.filter(|build| which(build)).map(|build| build.id).collect()
    }
}

/// The command that a delivery comes to when nothing can be asked for by it.
impl Command {
    /// A delivery of a repository that is not known here, in words.
    #[must_use]
    pub fn unknown(delivery: DeliveryId, repository: Arc<str>, reason: impl Into<Arc<str>>) -> Self {
        Self::Work { delivery, repository, found: Found::Unknown(reason.into()) }
    }
}
