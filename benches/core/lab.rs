//! A lab of any size, everything of it leased and as many claims waiting.
//!
//! Fifty resources a pool, three operating systems, four sites, nine versions; every tenth claim
//! asks in CEL. Made with a generator of fixed seed, so that counts are the same on every machine.

use std::sync::Arc;

use leasehold::core::apply::{Declared, DeclaredResource};
use leasehold::core::broker::Broker;
use leasehold::core::claim::ClaimSpec;
use leasehold::core::command::{ClaimReply, Claimant, Command, Reply, TtlAsk};
use leasehold::core::event::Event;
use leasehold::core::inventory::{Pool, ResourceSpec};
use leasehold::core::limits::Limits;
use leasehold::core::need::Need;
use leasehold::core::session::{SecretHash, SessionKind};
use leasehold::core::tables::{Batch, TableChanges, Tables};
use leasehold::core::types::{LabTime, LeaseId, Owner, SessionId};
use serde_json::{from_value, json};

/// Claims and leases of one session.
const PER_SESSION: usize = 50;

/// A reply, and the batch that came of it.
pub type Decided = (Reply, Vec<Event>, TableChanges);

/// A broker's core with the books full.
pub struct Lab {
    pub broker: Broker,
    now: LabTime,
    dice: u64,
    sessions: Vec<SessionId>,
    requests: Vec<u64>,
    /// Leases with whose they are, in no order.
    pub held: Vec<(LeaseId, SessionId)>,
    pools: usize,
}

impl Lab {
    /// Books with so many resources, `per_pool` of them in each pool, and nobody there.
    pub fn of(resources: usize, per_pool: usize) -> Self {
        let pools = resources.div_ceil(per_pool).max(1);
        let limits = Limits { sessions_max: usize::MAX, ..Limits::default() };
        let broker = Broker::new(&Tables::default(), limits).expect("an empty store");
        let mut lab = Self {
            broker,
            now: LabTime(1),
            dice: 7,
            sessions: Vec::new(),
            requests: Vec::new(),
            held: Vec::new(),
            pools,
        };
        lab.decide(Command::Start);
        lab.decide(Command::ReturnGraceOver);
        let pool = |number: usize| -> Pool {
            let policy = json!({
                "name": format!("pool-{number}"), "max_hold_ms": null, "ttl_ms": null, "on_drop": "after-ttl",
                "identity": null,
            });
            from_value(policy).expect("a pool")
        };
        let resource = |number| resource(number, &format!("pool-{}", number % pools), labels_of(number / pools));
        let resources = (0..resources).map(resource);
        let declared = Declared { pools: (0..pools).map(pool).collect(), resources: resources.collect() };
        lab.decide(Command::Apply { declared: Arc::new(declared), prune: false, confirmed: true, dry_run: false });
        lab
    }

    /// Leases everything, then lets so many claims wait.
    pub fn fill(mut self, waiters: usize) -> Self {
        let resources = self.broker.state().resources.len();
        for _ in 0..(resources + waiters).div_ceil(PER_SESSION) {
            self.join();
        }
        for number in 0..resources {
            let text = format!("pool-{}", number % self.pools);
            self.ask(number / PER_SESSION, &text);
        }
        for number in 0..waiters {
            let text = self.condition(number);
            self.ask((resources + number) / PER_SESSION, &text);
        }
        self
    }

    /// Adds a pool `beside` in which something is free.
    pub fn declare_beside(&mut self, resources: usize) {
        for number in 0..resources {
            let spec = resource(900_000 + number, "beside", labels_of(number)).spec;
            self.decide(Command::SetResource(Arc::new(spec)));
        }
    }

    /// A session, by its place.
    pub fn join(&mut self) -> usize {
        let number = self.sessions.len();
        let opened = self.decide(Command::OpenSession {
            owner: Owner { name: format!("team-{}", number % 100).into(), verified: false },
            ttl: TtlAsk::Exactly(30_000),
            secret: SecretHash(format!("{number:064x}").into()),
            kind: SessionKind::Socket { instance: format!("instance-{number}").into() },
        });
        let Reply::Opened { session, .. } = opened else { panic!("a session is refused: {opened:?}") };
        self.decide(Command::SessionUp(session));
        self.sessions.push(session);
        self.requests.push(0);
        number
    }

    /// What the claim of this number asks for; every tenth in CEL.
    pub fn condition(&mut self, number: usize) -> String {
        let pool = self.roll(self.pools);
        let labels = labels_of(self.roll(36));
        let (os, site, api) = (&labels["os"], &labels["site"], &labels["api"]);
        let (os, site) = (os.as_str().unwrap_or_default(), site.as_str().unwrap_or_default());
        match number % 10 {
            0 => format!("pool-{pool} where os == '{os}' && api >= {api}"),
            1..=3 => format!("pool-{pool}"),
            4..=6 => format!("pool-{pool},os={os}"),
            _ => format!("pool-{pool},os={os},site={site}"),
        }
    }

    /// A claim; the lease where it was granted at once.
    pub fn ask(&mut self, session: usize, need: &str) -> Option<LeaseId> {
        let command = self.asking(session, need);
        let reply = self.decide(command);
        match reply {
            Reply::Claim { stands: ClaimReply::Granted(lease), .. } => Some(lease),
            Reply::Claim { stands: ClaimReply::Queued(_), .. } => None,
            other => panic!("{need} is answered with {other:?}"),
        }
    }

    /// The command of a claim.
    pub fn asking(&mut self, session: usize, need: &str) -> Command {
        self.asking_all(session, &[need.to_owned()], None, None)
    }

    /// The command of a claim for several needs.
    pub fn asking_all(
        &mut self,
        session: usize,
        needs: &[String],
        same: Option<&str>,
        distinct: Option<&str>,
    ) -> Command {
        self.requests[session] += 1;
        let needs: Vec<Need> = needs.iter().map(|need| Need::parse(need).expect("a need")).collect();
        let spec = json!({ "needs": needs, "same": same, "distinct": distinct });
        let spec: ClaimSpec = from_value(spec).expect("a claim");
        Command::Acquire { session: self.sessions[session], request: self.requests[session], spec: Arc::new(spec) }
    }

    /// The command of a release.
    pub fn releasing(lease: LeaseId, session: SessionId) -> Command {
        let claimant = Claimant { session: Some(session), key: None, owner: None, admin: false, name: "bench".into() };
        Command::Release { lease, claimant, outcome: None }
    }

    /// Decides, and takes what came of it as a batch of its own.
    pub fn decide(&mut self, command: Command) -> Reply {
        let (reply, events, _) = self.decided(command);
        self.note(&events);
        reply
    }

    /// The same, for measuring: what came of it is not looked at.
    pub fn decided(&mut self, command: Command) -> Decided {
        self.now = self.now.plus(1);
        let reply = self.broker.decide(self.now, command);
        let (events, changes) = self.broker.take_batch();
        (reply, events, changes)
    }

    /// So many batches of sixteen cycles each, from the first that a store may be given.
    pub fn batches(&mut self, batches: u64, session: usize) -> Vec<Batch> {
        self.broker = Broker::new(&self.broker.state().tables(), Limits::default()).expect("its own tables");
        self.decide(Command::SessionUp(self.sessions[session]));
        let (mut made, mut first_event) = (Vec::new(), 1);
        for number in 1..=batches {
            for _ in 0..16 {
                self.now = self.now.plus(1);
                let command = self.asking(session, "beside");
                let reply = self.broker.decide(self.now, command);
                let Reply::Claim { stands: ClaimReply::Granted(lease), .. } = reply else { panic!("{reply:?}") };
                self.broker.decide(self.now, Self::releasing(lease, self.sessions[session]));
            }
            let (events, tables) = self.broker.take_batch();
            let count = events.len() as u64;
            made.push(Batch { number, at: self.now, wall_ms: 1, first_event, events, tables });
            first_event += count;
        }
        made
    }

    /// The same for several, in order.
    pub fn all(&mut self, commands: Vec<Command>) -> Vec<Decided> {
        commands.into_iter().map(|command| self.decided(command)).collect()
    }

    /// Keeps the list of who holds what.
    pub fn note(&mut self, events: &[Event]) {
        for event in events {
            if let Event::LeaseGranted { lease } = event {
                self.held.push((lease.id, lease.session));
            }
        }
    }

    /// Some lease, off the list.
    pub fn some_lease(&mut self) -> (LeaseId, SessionId) {
        let index = self.roll(self.held.len());
        self.held.swap_remove(index)
    }

    /// The session's place in [`Lab::ask`].
    pub fn place_of(&self, session: SessionId) -> usize {
        self.sessions.binary_search(&session).expect("sessions are numbered as they open")
    }

    /// The session at this place.
    pub fn session(&self, place: usize) -> SessionId {
        self.sessions[place]
    }

    /// The place of some session, few claims to each.
    pub const fn place(&self, number: usize) -> usize {
        number / PER_SESSION
    }

    /// A number below `sides`.
    pub fn roll(&mut self, sides: usize) -> usize {
        self.dice = self.dice.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.dice;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((mixed ^ (mixed >> 31)) % sides as u64).expect("below a usize")
    }
}

fn resource(number: usize, pool: &str, labels: serde_json::Value) -> DeclaredResource {
    let spec = json!({
        "name": format!("device-{number:06}"), "pool": pool, "labels": labels, "properties": {}, "secrets": {},
        "slots": 1,
    });
    DeclaredResource { spec: from_value::<ResourceSpec>(spec).expect("a resource"), was: None }
}

fn labels_of(number: usize) -> serde_json::Value {
    let os = ["android", "ios", "linux"][number % 3];
    let site = ["berlin", "paris", "rome", "oslo"][number / 3 % 4];
    json!({ "os": os, "site": site, "api": 28 + number % 9 })
}
