//! A book with a store, an engine of leases and agents that exist in this file only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::builds::book::{Answer, Book, Command, Contents, Finished, Found, Gone, Refusal, Report};
use crate::builds::build::{Build, BuildId, LogEnd, Phase, Pick};
use crate::builds::change::{Change, Note};
use crate::builds::delivery::{Delivery, DeliveryId, Incoming, Outcome, Received};
use crate::builds::happening::{Forge, Happening, Pull, PullAction, Sha, What};
use crate::builds::plan::{Concurrency, Plan, Step};
use crate::builds::status::{Status, StatusKey};

/// What was committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    pub builds: BTreeMap<BuildId, Build>,
    pub deliveries: BTreeMap<DeliveryId, Delivery>,
    pub statuses: BTreeMap<StatusKey, Status>,
    pub notes: Vec<Note>,
}

impl Stored {
    fn commit(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Accepted(delivery, _) | Change::Delivery(delivery) => {
                    self.deliveries.insert(delivery.id, Delivery::clone(delivery));
                }
                Change::Build(build) => {
                    self.builds.insert(build.id, Build::clone(build));
                }
                Change::Note(note) => self.notes.push(note.clone()),
                Change::Status(status) => {
                    self.statuses.insert(status.key.clone(), Status::clone(status));
                }
            }
        }
    }

    /// What a process reads that takes over.
    pub fn contents(&self) -> Contents {
        let open: Vec<Build> = self.builds.values().filter(|build| !build.phase.is_final()).cloned().collect();
        let keys: BTreeSet<StatusKey> = open.iter().map(StatusKey::of).collect();
        let waiting = self.deliveries.values().filter(|it| it.outcome == Outcome::Accepted).cloned().collect();
        Contents {
            waiting,
            recent: self.deliveries.values().cloned().collect(),
            statuses: self
                .statuses
                .values()
                .filter(|it| !it.told || it.tells_of_mistake() || keys.contains(&it.key))
                .cloned()
                .collect(),
            last_build: self.builds.keys().next_back().copied().unwrap_or_default(),
            last_delivery: self.deliveries.keys().next_back().copied().unwrap_or_default(),
            open,
        }
    }
}

/// A session of the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub build: BuildId,
    pub lease: Option<u64>,
}

#[derive(Debug, Default)]
pub struct World {
    pub book: Book,
    pub stored: Stored,
    pub engine: BTreeMap<u64, Held>,
    pub now_ms: i64,
    sessions: u64,
    leases: u64,
    names: u64,
}

impl World {
    /// Decides, stores and applies.
    pub fn decide(&mut self, command: &Command) -> Result<Answer, Refusal> {
        let (changes, answer) = self.book.decide(self.now_ms, command)?;
        self.stored.commit(&changes);
        for change in &changes {
            self.book.apply(change);
        }
        Ok(answer)
    }

    pub fn receive(&mut self, incoming: Incoming) -> Received {
        match self.decide(&Command::Receive(incoming)) {
            Ok(Answer::Received(received)) => received,
            other => panic!("{other:?}"),
        }
    }

    pub fn work(&mut self, delivery: DeliveryId, found: Found) {
        let repository = "acme/app".into();
        self.decide(&Command::Work { delivery, repository, found }).expect("work is never refused");
    }

    /// Receives and works on something that happened; answers the builds that began.
    pub fn delivered(&mut self, what: What, plans: Vec<Arc<Plan>>) -> Vec<BuildId> {
        self.names += 1;
        let name = format!("delivered-{}", self.names);
        let Received::Accepted(id) = self.receive(incoming(&name, what)) else { panic!("it is new") };
        self.work(id, Found::Wanted(plans));
        match &self.stored.deliveries[&id].outcome {
            Outcome::Done { started, .. } => started.clone(),
            _ => Vec::new(),
        }
    }

    pub fn phase(&self, id: BuildId) -> Phase {
        self.stored.builds[&id].phase
    }

    pub fn key(&self, id: BuildId) -> Arc<str> {
        self.stored.builds[&id].key_hash.clone().expect("it was taken")
    }

    /// Opens the session of a build that may claim.
    pub fn open(&mut self, build: BuildId) -> u64 {
        self.sessions += 1;
        let session = self.sessions;
        self.engine.insert(session, Held { build, lease: None });
        if self.decide(&Command::Opened { build, session }).is_err() {
            self.engine.remove(&session);
        }
        session
    }

    pub fn grant(&mut self, session: u64) {
        self.leases += 1;
        let lease = self.leases;
        let Some(held) = self.engine.get_mut(&session).filter(|held| held.lease.is_none()) else { return };
        held.lease = Some(lease);
        let build = held.build;
        // Refused where it is to end meanwhile.
        let _ = self.decide(&Command::Granted { build, session, lease, agent: "rack".into(), picks: vec![phone()] });
    }

    /// Brings a build to where an agent has it.
    pub fn take(&mut self, build: BuildId) -> u64 {
        let session = self.open(build);
        self.grant(session);
        let key_hash = format!("key-{session}").into();
        self.decide(&Command::Take { build, agent: "rack".into(), key_hash }).expect("it is there");
        session
    }

    pub fn say(&mut self, id: BuildId, what: Report) -> Result<Answer, Refusal> {
        let attempt = self.stored.builds[&id].attempt;
        self.decide(&Command::Report { build: id, attempt, key_hash: self.key(id), what })
    }

    pub fn finish(&mut self, id: BuildId, result: Finished) {
        let exit_code = (result == Finished::Passed).then_some(0);
        self.say(id, Report::Finished { result, exit_code, message: None, log: log_end() }).expect("it is its own");
    }

    /// A build's whole life from where it waits.
    pub fn run(&mut self, id: BuildId, result: Finished) {
        self.take(id);
        self.say(id, Report::Running).expect("it is its own");
        self.finish(id, result);
        self.effects();
    }

    pub fn lose(&mut self, session: u64) {
        self.engine.remove(&session);
    }

    /// Tells the book of every session of its that is gone.
    pub fn look(&mut self, how: &Gone) {
        let sessions: Vec<(BuildId, u64)> =
            self.book.open().filter_map(|build| Some((build.id, build.session?))).collect();
        for (build, session) in sessions {
            if self.engine.contains_key(&session) {
                continue;
            }
            self.decide(&Command::Gone { build, session, how: how.clone() }).expect("it is its own");
        }
    }

    /// Does what is to be done in the world: sessions that are to end do, and agents that are told to stop
    /// stop and say so.
    pub fn effects(&mut self) {
        let ending: Vec<Arc<Build>> =
            self.book.open().filter(|build| build.ending.is_some() || build.reported).cloned().collect();
        for build in ending {
            let Some(session) = build.session else { continue };
            if build.phase != Phase::Queued && !build.reported {
                let stopped = Finished::Stopped;
                let what = Report::Finished { result: stopped, exit_code: None, message: None, log: log_end() };
                self.say(build.id, what).expect("it is its own");
            }
            self.engine.remove(&session);
        }
        self.look(&Gone::Lost("its session was closed".into()));
    }

    pub fn retry(&mut self, id: BuildId) -> Result<BuildId, Refusal> {
        let of = Arc::new(self.stored.builds[&id].clone());
        match self.decide(&Command::Retry { of, by: "ann".into() })? {
            Answer::Started(started) => Ok(started[0]),
            other => panic!("{other:?}"),
        }
    }
}

pub fn delivery(id: u64) -> DeliveryId {
    DeliveryId(id)
}

pub fn sha(number: u8) -> Sha {
    Sha::parse(&format!("{:040x}", u32::from(number) + 1)).expect("it has 40 digits")
}

pub fn push(branch: &str, number: u8) -> What {
    What::Push { branch: branch.into(), before: None, after: Some(sha(number)), title: None }
}

pub fn pull(number: u64, head: u8, action: PullAction, fork: bool) -> What {
    let draft = action == PullAction::Drafted;
    let pull = Pull {
        number,
        title: "a change".into(),
        head: sha(head),
        head_branch: "topic".into(),
        base_branch: "main".into(),
        base: None,
        fork,
        draft,
    };
    What::Pull { action, pull }
}

pub fn incoming(name: &str, what: What) -> Incoming {
    Incoming {
        forge: Forge::Github,
        forge_id: name.into(),
        event: "push".into(),
        said: Ok(Happening { repository: "acme/app".into(), what, by: "ann".into() }),
        body: Arc::from(*b"{}"),
        repeats: None,
    }
}

pub fn plan(name: &str, concurrency: Concurrency) -> Arc<Plan> {
    Arc::new(Plan {
        name: name.into(),
        needs: vec!["phone".to_owned()],
        agent: String::new(),
        steps: vec![Step { name: "test".to_owned(), run: "make test".to_owned() }],
        container: None,
        env: BTreeMap::new(),
        secrets: BTreeSet::new(),
        timeout_ms: 60_000,
        wait_ms: None,
        grace_ms: 1_000,
        priority: 0,
        concurrency,
        retries: 0,
    })
}

/// What every build here is given.
pub fn phone() -> Pick {
    Pick { alias: "phone".into(), pool: "phone".into(), name: "pixel-1".into(), slots: 1 }
}

pub fn log_end() -> LogEnd {
    LogEnd { bytes: 3, lines: 1, sha256: "00".into() }
}
