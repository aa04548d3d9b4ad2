//! The decisions about builds that are there: their sessions, their agents, and their ends.

use std::sync::Arc;

use super::draft::{Draft, enter};
use super::{Answer, Book, Command, Finished, Gone, Refusal, Report};
use crate::builds::build::{Build, BuildId, Ending, Phase, Pick, Times};
use crate::builds::change::Change;
use crate::builds::happening::Sha;
use crate::builds::status::{self, StatusKey};

/// A decision on its way.
type Decided = Result<(Vec<Change>, Answer), Refusal>;

/// Who does what nobody asked for.
pub(super) fn the_broker() -> Arc<str> {
    "the broker".into()
}

impl Book {
    /// What a command changes, and what is answered once that is stored.
    ///
    /// # Errors
    /// Why nothing is changed.
    pub fn decide(&self, now_ms: i64, command: &Command) -> Decided {
        let draft = Draft::new(self, now_ms);
        match command {
            Command::Receive(incoming) => draft.receive(incoming),
            Command::Work { delivery, repository, found } => draft.work(*delivery, repository, found),
            Command::Start { repository, subject, wanted, by } => draft.start(repository, subject, wanted, by),
            Command::Retry { of, by } => draft.retry(of, by),
            Command::Cancel { build, reason, by } => draft.cancel(*build, reason.as_ref(), by),
            Command::Approve { build, sha, by } => draft.approve(*build, sha.as_ref(), by),
            Command::Opened { build, session } => draft.opened(*build, *session),
            Command::Granted { build, session, lease, agent, picks } => {
                draft.granted(*build, *session, *lease, (agent, picks))
            }
            Command::Denied { build, to, reason, by } => draft.denied(*build, *to, reason, by),
            Command::Take { build, agent, key_hash } => draft.take(*build, agent, key_hash),
            Command::Untake { build, key_hash } => draft.untake(*build, key_hash),
            Command::Report { build, attempt, key_hash, what } => draft.report(*build, *attempt, key_hash, what),
            Command::Gone { build, session, how } => draft.gone(*build, *session, how),
            Command::Tick => draft.tick(),
            Command::Status { key, version, answer } => draft.status_answered(key, *version, answer),
        }
    }
}

impl Draft<'_> {
    /// A build that is not over.
    fn known(&self, id: BuildId) -> Result<Build, Refusal> {
        self.build(id).cloned().ok_or_else(|| Refusal::new("build_over", format!("build {id} is over, or never was")))
    }

    fn answer(self, id: BuildId) -> Decided {
        let build = Arc::new(self.known(id)?);
        self.done(Answer::Build(build))
    }

    fn ending(&self, to: Phase, reason: impl Into<Arc<str>>, by: &Arc<str>) -> Ending {
        Ending { to, reason: reason.into(), by: by.clone(), since_ms: self.now_ms, superseded_by: None }
    }

    fn cancel(mut self, id: BuildId, reason: Option<&Arc<str>>, by: &Arc<str>) -> Decided {
        self.known(id)?;
        let words = reason.map_or_else(|| format!("by {by}"), |reason| format!("by {by}: {reason}"));
        let ending = self.ending(Phase::Cancelled, words, by);
        self.end(id, ending);
        self.answer(id)
    }

    /// Allows a commit: all blocked builds of it may go on.
    fn approve(mut self, id: BuildId, sha: Option<&Sha>, by: &Arc<str>) -> Decided {
        let build = self.known(id)?;
        let own = &build.subject.sha;
        if build.phase != Phase::Blocked {
            let message = format!("build {id} is {}: only one that is blocked can be allowed", build.phase);
            return Err(Refusal::new("not_blocked", message));
        }
        if let Some(sha) = sha.filter(|sha| *sha != own) {
            let message = format!("build {id} is of commit {own}, and what was looked at is {sha}: look at that one");
            return Err(Refusal::new("not_newest", message));
        }
        if let Some(newer) = self.newer_head(&build) {
            let message = format!("{} has commit {newer} by now: look at that one", build.subject.line);
            return Err(Refusal::new("not_newest", message));
        }
        let alike = |other: &&Arc<Build>| other.phase == Phase::Blocked && other.subject.sha == *own;
        let of_line = self.book.open.of_line(&build.repository, &build.subject.line).into_iter();
        let all: Vec<Build> = of_line.filter(alike).map(|other| Build::clone(other)).collect();
        for mut other in all {
            let id = other.id;
            other.approved_by = Some(by.clone());
            other.reason = None;
            other.times.queued_ms = Some(self.now_ms);
            enter(&mut other, Phase::Queued);
            let what = format!("commit {} allowed", other.subject.sha.short());
            self.put(other);
            self.note(id, what, by);
        }
        self.answer(id)
    }

    /// Another commit that the build's pull request has by now.
    fn newer_head(&self, build: &Build) -> Option<Sha> {
        let crate::builds::build::Line::Pull(number) = build.subject.line else { return None };
        let newest = self.book.recent.head(&build.repository, number);
        newest.filter(|head| **head != build.subject.sha).cloned()
    }

    fn opened(mut self, id: BuildId, session: u64) -> Decided {
        let mut build = self.known(id)?;
        if !self.book.may_claim(&build) {
            return Err(Refusal::new("build_not_waiting", format!("build {id} does not wait for a session")));
        }
        build.session = Some(session);
        self.put(build);
        self.answer(id)
    }

    fn granted(mut self, id: BuildId, session: u64, lease: u64, given: (&Arc<str>, &[Pick])) -> Decided {
        let (agent, picks) = given;
        let mut build = self.known(id)?;
        if build.phase != Phase::Queued || build.session != Some(session) || build.ending.is_some() {
            return Err(Refusal::new("build_not_waiting", format!("build {id} does not wait for lease {lease}")));
        }
        if build.lease == Some(lease) {
            return self.answer(id);
        }
        build.lease = Some(lease);
        build.agent = Some(agent.clone());
        build.picks = picks.to_vec();
        build.reason = Some(format!("agent {agent} is to take it").into());
        self.put(build);
        let picks: Vec<String> = picks.iter().map(Pick::to_string).collect();
        let with = if picks.is_empty() { String::new() } else { format!(", with {}", picks.join(", ")) };
        self.note(id, format!("lease {lease} granted, on agent {agent}{with}"), &the_broker());
        self.answer(id)
    }

    fn denied(mut self, id: BuildId, to: Phase, reason: &Arc<str>, by: &Arc<str>) -> Decided {
        let build = self.known(id)?;
        if build.phase == Phase::Queued {
            let ending = self.ending(to, reason.clone(), by);
            self.end(id, ending);
        }
        self.answer(id)
    }

    fn take(mut self, id: BuildId, agent: &Arc<str>, key_hash: &Arc<str>) -> Decided {
        let mut build = self.known(id)?;
        let again =
            matches!(build.phase, Phase::Preparing | Phase::Running) && build.key_hash.as_ref() == Some(key_hash);
        if again && !build.reported {
            return self.answer(id);
        }
        let there = build.phase == Phase::Queued && build.session.is_some() && build.lease.is_some();
        if !there || build.ending.is_some() || build.agent.as_ref() != Some(agent) {
            let message = format!("build {id} is not there for {agent} to take (any more): ask for work again");
            return Err(Refusal::new("attempt_over", message));
        }
        enter(&mut build, Phase::Preparing);
        build.key_hash = Some(key_hash.clone());
        build.reason = None;
        build.times.prepared_ms = Some(self.now_ms);
        self.put(build);
        self.note(id, "taken", agent);
        self.answer(id)
    }

    fn untake(mut self, id: BuildId, key_hash: &Arc<str>) -> Decided {
        let build = self.known(id)?;
        if build.phase == Phase::Preparing && build.key_hash.as_ref() == Some(key_hash) && !build.reported {
            let reason = "the broker went down before its agent was told its session";
            let ending = self.ending(Phase::Queued, reason, &the_broker());
            self.end(id, ending);
        }
        self.answer(id)
    }

    fn report(mut self, id: BuildId, attempt: u32, key_hash: &Arc<str>, what: &Report) -> Decided {
        let mut build = self.known(id)?;
        if build.attempt != attempt || build.key_hash.as_ref() != Some(key_hash) {
            let message = format!("attempt {attempt} of build {id} is over, or another agent's: stop it");
            return Err(Refusal::new("attempt_over", message));
        }
        // It is said again.
        if build.reported || (*what == Report::Running && build.phase == Phase::Running) {
            return self.answer(id);
        }
        let agent = build.agent.clone().unwrap_or_else(the_broker);
        match what {
            Report::Running => {
                enter(&mut build, Phase::Running);
                build.times.begun_ms = Some(self.now_ms);
                self.put(build);
                self.note(id, "its steps began", &agent);
            }
            Report::Finished { result, exit_code, message, log } => {
                build.reported = true;
                build.exit_code = *exit_code;
                build.log = Some(log.clone());
                let words = finished_words(*result, *exit_code, message.as_ref());
                let to = match result {
                    Finished::Passed => Some(Phase::Passed),
                    Finished::Failed => Some(Phase::Failed),
                    Finished::TimedOut => Some(Phase::TimedOut),
                    Finished::Lost => Some(lost(&build)),
                    // Why is for the lease's end to say.
                    Finished::Stopped => None,
                };
                if let Some(to) = to.filter(|_| build.ending.as_ref().is_none_or(|known| known.to == Phase::Queued)) {
                    build.ending = Some(self.ending(to, words.clone(), &agent));
                }
                self.put(build);
                self.note(id, format!("over: {words}"), &agent);
            }
        }
        self.answer(id)
    }

    fn gone(mut self, id: BuildId, session: u64, how: &Gone) -> Decided {
        let mut build = self.known(id)?;
        if build.session != Some(session) {
            return Err(Refusal::new("attempt_over", format!("session {session} is not build {id}'s")));
        }
        build.session = None;
        if let Some(ending) = build.ending.clone() {
            if ending.to == Phase::Queued {
                self.again(build, &ending.reason.clone(), &ending.by);
            } else {
                let held = build.lease.is_some();
                self.finish(build);
                if held {
                    self.note(id, "its lease is over", &ending.by);
                }
            }
            return self.end_of(id);
        }
        let taken = build.phase != Phase::Queued;
        let by = the_broker();
        match how {
            Gone::Revoked(who, why) if taken || build.lease.is_some() => {
                self.over(build, Phase::Cancelled, format!("its lease was ended by {who}: {why}"), who);
            }
            Gone::HoldEnded if taken => {
                self.over(build, Phase::TimedOut, "the time for which it could hold its lease is over".into(), &by);
            }
            Gone::Lost(words) if taken => match lost(&build) {
                Phase::Queued => self.again(build, words, &by),
                to => self.over(build, to, words.to_string(), &by),
            },
            // It was not taken: nothing of it has run, and it claims again.
            Gone::Lost(_) | Gone::HoldEnded | Gone::Revoked(..) => self.unclaimed(build, &by),
        }
        self.end_of(id)
    }

    /// Ends a build whose session is gone.
    fn over(&mut self, mut build: Build, to: Phase, reason: String, by: &Arc<str>) {
        let id = build.id;
        let ending = self.ending(to, reason, by);
        let words = format!("{to}: {}", ending.reason);
        build.ending = Some(ending);
        self.finish(build);
        self.note(id, words, by);
    }

    /// Lets a build wait again as another attempt.
    fn again(&mut self, build: Build, reason: &Arc<str>, by: &Arc<str>) {
        let id = build.id;
        let words = format!("attempt {} was lost: {reason}; it is tried again", build.attempt);
        let mut next = Build {
            session: None,
            lease: None,
            agent: None,
            picks: Vec::new(),
            key_hash: None,
            exit_code: None,
            log: None,
            reported: false,
            ending: None,
            reason: None,
            attempt: build.attempt + 1,
            times: Times {
                created_ms: build.times.created_ms,
                queued_ms: Some(self.now_ms),
                prepared_ms: None,
                begun_ms: None,
                ended_ms: None,
            },
            ..build
        };
        if next.phase != Phase::Queued {
            enter(&mut next, Phase::Queued);
        }
        self.put(next);
        self.note(id, words, by);
    }

    fn unclaimed(&mut self, mut build: Build, by: &Arc<str>) {
        let id = build.id;
        let agent = build.agent.take();
        build.picks.clear();
        let granted = build.lease.take().is_some();
        build.reason = None;
        self.put(build);
        if granted {
            let agent = agent.as_deref().unwrap_or("its agent");
            self.note(id, format!("{agent} did not take it in time: it claims again"), by);
        }
    }

    fn end_of(self, id: BuildId) -> Decided {
        let build = self.build(id).cloned().map(Arc::new);
        self.done(build.map_or(Answer::Done, Answer::Build))
    }

    fn tick(mut self) -> Decided {
        let due: Vec<(BuildId, Phase)> = self.book.open.due(self.now_ms).map(|it| (it.id, it.phase)).collect();
        for (id, phase) in due {
            let (to, reason) = match phase {
                Phase::Blocked => (Phase::Cancelled, "nobody allowed its commit for 30 days"),
                _ => (Phase::TimedOut, "it waited as long as its pipeline lets it wait"),
            };
            let ending = self.ending(to, reason, &the_broker());
            self.end(id, ending);
        }
        self.done(Answer::Done)
    }

    fn status_answered(mut self, key: &StatusKey, version: u64, answer: &status::Answer) -> Decided {
        let row = self.book.statuses.get(key).and_then(|status| status.answered(version, answer));
        if let Some(row) = row {
            self.change(Change::Status(Arc::new(row)));
        }
        self.done(Answer::Done)
    }
}

/// What becomes of an attempt that was lost.
fn lost(build: &Build) -> Phase {
    if build.attempt <= build.plan.retries { Phase::Queued } else { Phase::Lost }
}

fn finished_words(result: Finished, exit_code: Option<i32>, message: Option<&Arc<str>>) -> String {
    if let Some(message) = message {
        return message.to_string();
    }
    match (result, exit_code) {
        (Finished::Passed, _) => "all steps passed".to_owned(),
        (Finished::Failed, Some(code)) => format!("a step exited with {code}"),
        (Finished::Failed, None) => "a step failed".to_owned(),
        (Finished::TimedOut, _) => "it took longer than its pipeline lets it".to_owned(),
        (Finished::Lost, _) => "its agent could not run it".to_owned(),
        (Finished::Stopped, _) => "it was stopped".to_owned(),
    }
}
