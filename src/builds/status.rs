//! Commit statuses on their way to a forge: the outbox, and the words in it.
//!
//! What a forge shows of a commit is a function of the newest build of it: [`Status::of`]. Its
//! [`version`](Status::version) is one too, and grows with the build's number, its attempt and how far it has
//! come. So nobody has to remember what was told before, and of two rows for one place the higher version is
//! the one that counts, in whatever order they arrive: a late report of a superseded build replaces nothing.
//!
//! Beside these, a commit whose pipelines cannot be read has a status of the delivery that found so, in a
//! context of its own, and that a later delivery takes back.
//!
//! A build is told of as waiting, running and over, once for each attempt, and not of what lies between:
//! GitHub takes no more than a thousand statuses for a commit and context.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::build::{Build, BuildId, Phase};
use super::delivery::DeliveryId;
use super::happening::Sha;
use crate::units::show_duration_ms;

/// Characters of a description, at most: GitHub refuses longer ones.
pub const DESCRIPTION_CHARS_MAX: usize = 140;
/// Stands where the middle of a description was cut out.
const CUT: &str = " ... ";
/// Attempts that [`Status::version`] tells apart; later ones are told as this one.
const ATTEMPTS: u64 = 256;
/// Stages of an attempt, for [`Status::version`].
const STAGES: u64 = 4;

/// Where a status goes. There is one row in the outbox for each: what is to be told last replaces what was
/// to be told before, and a report of an older build never replaces a newer one's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StatusKey {
    /// The repository, by its name in the configuration.
    pub repository: Arc<str>,
    /// The commit.
    pub sha: Sha,
    /// `leasehold/PIPELINE`, and `leasehold` for all of them: what the forge keeps apart.
    pub context: Arc<str>,
}

/// What the forge is to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StatusState {
    /// It waits, or waits to be allowed.
    Pending,
    /// It runs. Where a forge has no word for that it is pending.
    Running,
    /// It passed.
    Success,
    /// It failed, or ran out of time.
    Failure,
    /// It was cancelled or superseded.
    Cancelled,
    /// It was lost; or what is to be built cannot be read.
    Error,
}

/// Whose a status is. One place has statuses of one kind only, so that their versions can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whose {
    /// A build's.
    Build(BuildId),
    /// A delivery's, whose pipelines were looked at.
    Delivery(DeliveryId),
}

impl Whose {
    /// Where people read more of it, from the broker's own address on.
    #[must_use]
    pub fn page(self) -> String {
        match self {
            Self::Build(id) => format!("/builds/{}", id.0),
            Self::Delivery(id) => format!("/deliveries/{}", id.0),
        }
    }
}

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Build(id) => write!(f, "build {id}"),
            Self::Delivery(id) => write!(f, "delivery {}", id.0),
        }
    }
}

/// A status, told or still to be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Where it goes.
    pub key: StatusKey,
    /// Whose it is.
    #[serde(flatten)]
    pub whose: Whose,
    /// Grows with every change, and with the number of whose it is; an answer to an older one settles nothing,
    /// and a row never replaces one with a higher one.
    pub version: u64,
    /// What is shown.
    pub state: StatusState,
    /// At most 140 characters.
    pub description: Arc<str>,
    /// Whether this version is settled: the forge has taken it, or it was given up, and `trouble` says why.
    pub told: bool,
    /// Tries of this version that failed.
    pub tries: u32,
    /// When it is to be tried (again), Unix milliseconds.
    pub due_ms: i64,
    /// What the forge, or the way there, said last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Arc<str>>,
}

/// What the forge keeps apart from all pipelines: their own context goes on after a slash.
const CONTEXT: &str = "leasehold";

impl StatusKey {
    /// Where it is said whether a commit's pipelines can be read.
    #[must_use]
    pub fn of_pipelines(repository: &Arc<str>, sha: &Sha) -> Self {
        Self { repository: Arc::clone(repository), sha: sha.clone(), context: CONTEXT.into() }
    }

    /// Where a build's status goes.
    #[must_use]
    pub fn of(build: &Build) -> Self {
        Self {
            repository: Arc::clone(&build.repository),
            sha: build.subject.sha.clone(),
            context: format!("{CONTEXT}/{}", build.plan.name).into(),
        }
    }
}

/// What came of telling a forge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It has taken it.
    Taken,
    /// It has not; worth another try from this moment on.
    Later {
        /// Unix milliseconds.
        due_ms: i64,
        /// What it said.
        trouble: Arc<str>,
    },
    /// It has not, and it is not tried again.
    GivenUp {
        /// Why.
        trouble: Arc<str>,
    },
}

impl Status {
    /// The row for a build as it is now, to be told at once.
    #[must_use]
    pub fn of(build: &Build, now_ms: i64) -> Self {
        Self {
            key: StatusKey::of(build),
            whose: Whose::Build(build.id),
            version: version_of(build),
            state: state_of(build.phase),
            description: description_of(build).into(),
            told: false,
            tries: 0,
            due_ms: now_ms,
            trouble: None,
        }
    }

    /// The row for a commit whose pipelines have a mistake, as a delivery of it found. Its version is the
    /// delivery's number: the last to look says how it stands.
    #[must_use]
    pub fn of_mistake(key: StatusKey, delivery: DeliveryId, mistake: &str, now_ms: i64) -> Self {
        let description = shorten(mistake.trim(), DESCRIPTION_CHARS_MAX).into();
        Self::of_delivery(key, delivery, StatusState::Error, description, now_ms)
    }

    /// The row in its place once a later delivery of the commit has found none.
    #[must_use]
    pub fn of_mended(key: StatusKey, delivery: DeliveryId, now_ms: i64) -> Self {
        Self::of_delivery(key, delivery, StatusState::Success, "its pipelines can be read".into(), now_ms)
    }

    fn of_delivery(
        key: StatusKey,
        delivery: DeliveryId,
        state: StatusState,
        description: Arc<str>,
        now_ms: i64,
    ) -> Self {
        let (whose, version) = (Whose::Delivery(delivery), delivery.0);
        Self { key, whose, version, state, description, told: false, tries: 0, due_ms: now_ms, trouble: None }
    }

    /// Whether it says that the pipelines of a commit have a mistake.
    #[must_use]
    pub fn tells_of_mistake(&self) -> bool {
        matches!(self.whose, Whose::Delivery(_)) && self.state != StatusState::Success
    }

    /// The row to be written when a build changed; `None` where a forge would show the same.
    #[must_use]
    pub fn of_change(before: Option<&Build>, after: &Build, now_ms: i64) -> Option<Self> {
        let same = before.is_some_and(|before| version_of(before) == version_of(after));
        (!same).then(|| Self::of(after, now_ms))
    }

    /// This row after an answer to one of its versions; `None` where that was another version, or the row is
    /// settled already.
    #[must_use]
    pub fn answered(&self, version: u64, answer: &Answer) -> Option<Self> {
        if self.told || self.version != version {
            return None;
        }
        let mut row = self.clone();
        match answer {
            Answer::Taken => {
                row.told = true;
                row.trouble = None;
            }
            Answer::Later { due_ms, trouble } => {
                row.tries = row.tries.saturating_add(1);
                row.due_ms = *due_ms;
                row.trouble = Some(Arc::clone(trouble));
            }
            Answer::GivenUp { trouble } => {
                row.told = true;
                row.tries = row.tries.saturating_add(1);
                row.trouble = Some(Arc::clone(trouble));
            }
        }
        Some(row)
    }
}

/// Grows over a build's life, and from a build to any later one.
fn version_of(build: &Build) -> u64 {
    let attempt = u64::from(build.attempt).min(ATTEMPTS - 1);
    let stage = match build.phase {
        Phase::Blocked => 0,
        Phase::Queued => 1,
        Phase::Preparing | Phase::Running => 2,
        _ => 3,
    };
    (build.id.0.saturating_mul(ATTEMPTS) + attempt).saturating_mul(STAGES) + stage
}

/// What a forge shows of a build in this phase.
#[must_use]
pub const fn state_of(phase: Phase) -> StatusState {
    match phase {
        Phase::Blocked | Phase::Queued => StatusState::Pending,
        Phase::Preparing | Phase::Running => StatusState::Running,
        Phase::Passed => StatusState::Success,
        Phase::Failed | Phase::TimedOut => StatusState::Failure,
        Phase::Cancelled | Phase::Superseded => StatusState::Cancelled,
        Phase::Lost => StatusState::Error,
    }
}

/// A sentence for people, of at most [`DESCRIPTION_CHARS_MAX`] characters on one line.
fn description_of(build: &Build) -> String {
    let reason = build.reason.as_deref().map(str::trim).filter(|reason| !reason.is_empty());
    let words = match build.phase {
        Phase::Blocked => "waits until somebody allows this commit of a fork".to_owned(),
        // Not the reason: it changes while the build waits, and the forge is not told each time.
        Phase::Queued => "waits for its turn and what it needs".to_owned(),
        Phase::Preparing | Phase::Running => {
            build.agent.as_deref().map_or_else(|| "runs".to_owned(), |agent| format!("runs on {agent}"))
        }
        Phase::Passed => {
            let took = build.times.begun_ms.zip(build.times.ended_ms);
            let took_ms = took.and_then(|(begun, ended)| u64::try_from(ended - begun).ok());
            took_ms.map_or_else(|| "passed".to_owned(), |ms| format!("passed in {}", show_duration_ms(ms)))
        }
        phase => {
            let word = if phase == Phase::TimedOut { "timed out" } else { phase.as_str() };
            reason.map_or_else(|| word.to_owned(), |reason| begin_with(word, reason))
        }
    };
    let again = if build.attempt > 1 { format!("attempt {}: ", build.attempt) } else { String::new() };
    shorten(&format!("{again}{words}"), DESCRIPTION_CHARS_MAX)
}

/// The word before the reason, unless the reason begins with it.
fn begin_with(word: &str, reason: &str) -> String {
    if reason.starts_with(word) { reason.to_owned() } else { format!("{word}: {reason}") }
}

/// At most `chars_max` characters, on one line: what is too much is cut out of the middle, as both ends of a
/// sentence say more.
fn shorten(text: &str, chars_max: usize) -> String {
    let line: Vec<char> = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.len() <= chars_max {
        return line.into_iter().collect();
    }
    let kept = chars_max - CUT.len();
    let (head, tail) = (kept.div_ceil(2), kept / 2);
    line[..head].iter().copied().chain(CUT.chars()).chain(line[line.len() - tail..].iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::builds::build::{Cause, Line, Subject, Times};
    use crate::builds::plan::{Concurrency, Plan};

    fn build(id: u64, phase: Phase) -> Build {
        let plan = Plan {
            name: "unit".into(),
            needs: Vec::new(),
            agent: String::new(),
            steps: Vec::new(),
            container: None,
            env: BTreeMap::new(),
            secrets: BTreeSet::new(),
            timeout_ms: 1,
            wait_ms: None,
            grace_ms: 1,
            priority: 0,
            concurrency: Concurrency::Supersede,
            retries: 1,
        };
        let subject = Subject {
            line: Line::Pull(7),
            sha: Sha::parse(&"a1".repeat(20)).expect("a commit"),
            git_ref: "refs/pull/7/head".into(),
            base: None,
            title: None,
            fork: false,
        };
        Build {
            id: BuildId(id),
            repository: "acme/app".into(),
            subject,
            cause: Cause::Asked,
            by: "alice".into(),
            plan: Arc::new(plan),
            phase,
            reason: None,
            ending: None,
            attempt: 1,
            session: None,
            lease: None,
            agent: None,
            picks: Vec::new(),
            key_hash: None,
            exit_code: None,
            times: Times::default(),
            approved_by: None,
            log: None,
            reported: false,
        }
    }

    #[test]
    fn versions_grow_along_every_way_through_a_life() {
        for from in Phase::ALL {
            for to in Phase::ALL.into_iter().filter(|to| from.can_become(*to)) {
                let before = build(3, from);
                let mut after = build(3, to);
                if to == Phase::Queued && from != Phase::Blocked {
                    after.attempt = 2;
                }
                let (old, new) = (Status::of(&before, 0), Status::of(&after, 0));
                let told = Status::of_change(Some(&before), &after, 0);
                if (from, to) == (Phase::Preparing, Phase::Running) {
                    assert_eq!(told, None, "the forge shows both alike");
                } else {
                    assert!(new.version > old.version, "{from} to {to}");
                    assert_eq!(told, Some(new));
                }
            }
        }
    }

    #[test]
    fn a_later_build_of_the_commit_has_the_higher_version_whatever_becomes_of_the_first() {
        let mut first = build(3, Phase::Superseded);
        first.attempt = u32::MAX;
        assert!(Status::of(&build(4, Phase::Blocked), 0).version > Status::of(&first, 0).version);
    }

    #[test]
    fn an_answer_settles_its_own_version_only() {
        let row = Status::of(&build(3, Phase::Running), 5);
        let later = Answer::Later { due_ms: 70, trouble: "503".into() };
        let tried = row.answered(row.version, &later).expect("this version");
        assert_eq!((tried.told, tried.tries, tried.due_ms, tried.trouble.as_deref()), (false, 1, 70, Some("503")));
        let told = tried.answered(row.version, &Answer::Taken).expect("this version");
        assert_eq!((told.told, told.trouble.as_deref()), (true, None));
        assert_eq!(told.answered(row.version, &later), None, "settled");
        assert_eq!(row.answered(row.version - 1, &Answer::Taken), None, "of another version");
        let given_up = row.answered(row.version, &Answer::GivenUp { trouble: "404".into() }).expect("this version");
        assert_eq!((given_up.told, given_up.trouble.as_deref()), (true, Some("404")));
    }

    #[test]
    fn whose_it_is_stands_in_a_record_as_ever() {
        let row = Status::of(&build(3, Phase::Running), 5);
        let record = serde_json::to_value(&row).expect("JSON");
        assert_eq!(record["build"], 3, "{record}");
        let old = r#"{"key":{"repository":"acme/app","sha":"SHA","context":"leasehold/unit"},"build":3,"version":9,
            "state":"running","description":"runs","told":true,"tries":0,"due_ms":4}"#;
        let old: Status = serde_json::from_str(&old.replace("SHA", &"a1".repeat(20))).expect("it was written once");
        assert_eq!((old.whose, old.version), (Whose::Build(BuildId(3)), 9));
        let of_delivery = Status::of_mistake(row.key, DeliveryId(8), "wrong", 5);
        let record = serde_json::to_value(&of_delivery).expect("JSON");
        assert_eq!((&record["delivery"], record.get("build")), (&8.into(), None), "{record}");
        assert_eq!(serde_json::from_value::<Status>(record).expect("it comes back"), of_delivery);
    }

    #[test]
    fn descriptions_say_what_people_ask() {
        let mut it = build(3, Phase::Running);
        it.agent = Some("rack-1".into());
        assert_eq!(&*Status::of(&it, 0).description, "runs on rack-1");
        it.phase = Phase::Passed;
        it.times.begun_ms = Some(1_000);
        it.times.ended_ms = Some(63_000);
        assert_eq!(&*Status::of(&it, 0).description, "passed in 1m02s");
        it.phase = Phase::Failed;
        it.attempt = 2;
        it.reason = Some("step test exited with 1\n".into());
        assert_eq!(&*Status::of(&it, 0).description, "attempt 2: failed: step test exited with 1");
        it.phase = Phase::Superseded;
        it.reason = Some("superseded by #9".into());
        assert_eq!(&*Status::of(&it, 0).description, "attempt 2: superseded by #9");
    }

    #[test]
    fn long_reasons_keep_both_ends_and_whole_characters() {
        let mut it = build(3, Phase::Failed);
        it.reason = Some(format!("begin {} end", "\u{e9}\u{1f980}".repeat(200)).into());
        let description = Status::of(&it, 0).description;
        assert_eq!(description.chars().count(), DESCRIPTION_CHARS_MAX);
        assert!(description.starts_with("failed: begin \u{e9}") && description.ends_with(" end"), "{description}");
        assert!(description.contains(CUT));
    }
}
