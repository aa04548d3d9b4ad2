//! How honest the estimates of waiting are: the real core in virtual time, many pools of many
//! sorts of work, and what was estimated held against what came.
//!
//! `cargo run --release --all-features --example eta` prints the table of `docs/scheduling.md`. Two
//! runs of one seed print the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use leasehold::core::apply::{Declared, DeclaredResource};
use leasehold::core::broker::Broker;
use leasehold::core::claim::ClaimSpec;
use leasehold::core::command::{Claimant, Command, Reply, TtlAsk};
use leasehold::core::eta::Eta;
use leasehold::core::event::Event;
use leasehold::core::inventory::{Pool, ResourceSpec};
use leasehold::core::limits::Limits;
use leasehold::core::need::Need;
use leasehold::core::session::{SecretHash, SessionKind};
use leasehold::core::tables::Tables;
use leasehold::core::types::{ClaimId, Key, LabTime, LeaseId, Owner, ResourceName, SessionId};

/// Claims that each world sees.
const CLAIMS: u64 = 4_000;
/// The mean hold, milliseconds: ten minutes.
const MEAN_MS: f64 = 600_000.0;

/// How long work holds what it got.
#[derive(Clone, Copy, Debug)]
enum Work {
    Constant,
    Lognormal,
    Bimodal,
}

/// A lab and what is asked of it.
struct Sort {
    name: &'static str,
    work: Work,
    resources: u64,
    /// Offered work over what the lab can do.
    load: f64,
    /// What each claim asks, in turn.
    needs: &'static [&'static str],
}

const SORTS: &[Sort] = &[
    Sort { name: "constant, 4 phones", work: Work::Constant, resources: 4, load: 0.9, needs: &["phone"] },
    Sort { name: "lognormal, 1 phone", work: Work::Lognormal, resources: 1, load: 0.8, needs: &["phone"] },
    Sort { name: "lognormal, 4 phones", work: Work::Lognormal, resources: 4, load: 0.9, needs: &["phone"] },
    Sort { name: "lognormal, 40 phones", work: Work::Lognormal, resources: 40, load: 0.97, needs: &["phone"] },
    Sort { name: "bimodal, 4 phones", work: Work::Bimodal, resources: 4, load: 0.9, needs: &["phone"] },
    Sort {
        name: "lognormal, 8 phones of two sites, some take two",
        work: Work::Lognormal,
        resources: 8,
        load: 0.85,
        needs: &["phone,site=a", "phone", "2:phone", "phone,site=b"],
    },
    Sort {
        name: "bimodal, 8 phones, longer queues",
        work: Work::Bimodal,
        resources: 8,
        load: 0.99,
        needs: &["phone", "phone", "2:phone"],
    },
];

/// splitmix64, of its own: what happens must not be what the estimate draws.
struct Dice(u64);

impl Dice {
    #[expect(clippy::cast_precision_loss, reason = "a fraction needs no more than 53 bits")]
    fn fraction(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.fraction()).ln()
    }

    fn hold(&mut self, work: Work) -> f64 {
        match work {
            Work::Constant => MEAN_MS * (0.98 + 0.04 * self.fraction()),
            Work::Lognormal => {
                let radius = (-2.0 * (1.0 - self.fraction()).ln()).sqrt();
                let normal = radius * (std::f64::consts::TAU * self.fraction()).cos();
                // Sigma 1, with the mean that is asked for.
                MEAN_MS * (normal - 0.5).exp()
            }
            // Most are short, some take an hour.
            Work::Bimodal if self.fraction() < 0.85 => MEAN_MS * 0.2 * (0.5 + self.fraction()),
            Work::Bimodal => MEAN_MS * 5.5 * (0.8 + 0.4 * self.fraction()),
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "spans of time, none negative")]
const fn whole(ms: f64) -> u64 {
    ms as u64
}

struct World {
    broker: Broker,
    now: LabTime,
    dice: Dice,
    work: Work,
    releases: BTreeSet<(LabTime, LeaseId)>,
    estimates: BTreeMap<ClaimId, (LabTime, Option<Eta>)>,
    /// What was estimated at queueing, and what came.
    outcomes: Vec<(Option<Eta>, u64)>,
}

impl World {
    fn decide(&mut self, command: Command) -> Result<Reply, String> {
        let reply = self.broker.decide(self.now, command);
        for event in self.broker.take_batch().0 {
            if let Event::LeaseGranted { lease } = event {
                let hold_ms = whole(self.dice.hold(self.work)).max(1);
                self.releases.insert((self.now.plus(hold_ms), lease.id));
                if let Some((queued_at, eta)) = self.estimates.remove(&lease.claim) {
                    self.outcomes.push((eta, self.now.since(queued_at)));
                }
            } else if let Event::ClaimQueued { claim } = event {
                let pools: BTreeSet<&Key> = claim.spec.needs.iter().map(|need| &need.pool).collect();
                let eta = self.broker.etas(self.now, Some(&pools)).get(&claim.id).copied();
                self.estimates.insert(claim.id, (self.now, eta));
            }
        }
        match reply {
            Reply::Refused(refusal) => Err(refusal.to_string()),
            reply => Ok(reply),
        }
    }

    fn release_until(&mut self, until: LabTime) -> Result<(), String> {
        while let Some((at, lease)) = self.releases.first().copied().filter(|(at, _)| *at <= until) {
            self.releases.remove(&(at, lease));
            self.now = at;
            let claimant = Claimant { admin: true, ..Claimant::default() };
            self.decide(Command::Release { lease, claimant, outcome: None })?;
        }
        self.now = until;
        Ok(())
    }
}

fn lab(resources: u64) -> Result<Declared, String> {
    let key = |text: &str| Key::parse(text, "key").map_err(|error| error.to_string());
    let mut declared = Declared { pools: vec![Pool::named(key("phone")?)], resources: Vec::new() };
    for number in 0..resources {
        let site = if number % 2 == 0 { "a" } else { "b" };
        let spec = ResourceSpec {
            name: ResourceName::parse(&format!("p{number}")).map_err(|error| error.to_string())?,
            pool: key("phone")?,
            labels: BTreeMap::from([(key("site")?, leasehold::core::types::Value::Text(site.into()))]),
            properties: BTreeMap::new(),
            secrets: BTreeMap::new(),
            slots: 1,
        };
        declared.resources.push(DeclaredResource { spec, was: None });
    }
    Ok(declared)
}

fn spec(need: &str) -> Result<ClaimSpec, String> {
    let needs = vec![Need::parse(need).map_err(|error| error.to_string())?];
    let json = serde_json::json!({ "needs": serde_json::to_value(needs).map_err(|error| error.to_string())? });
    serde_json::from_value(json).map_err(|error| error.to_string())
}

#[expect(clippy::cast_precision_loss, reason = "small counts")]
fn play(sort: &Sort, seed: u64) -> Result<Vec<(Option<Eta>, u64)>, String> {
    let mut world = World {
        broker: Broker::new(&Tables::default(), Limits { claims_per_session_max: 100_000, ..Limits::default() })?,
        now: LabTime(0),
        dice: Dice(seed),
        work: sort.work,
        releases: BTreeSet::new(),
        estimates: BTreeMap::new(),
        outcomes: Vec::new(),
    };
    world.decide(Command::Start)?;
    world.decide(Command::ReturnGraceOver)?;
    let declared = Arc::new(lab(sort.resources)?);
    world.decide(Command::Apply { declared, prune: false, confirmed: true, dry_run: false })?;
    let owner = Owner { name: "ci".into(), verified: false };
    let kind = SessionKind::Socket { instance: "i".into() };
    let (ttl, secret) = (TtlAsk::Exactly(30_000), SecretHash("s".into()));
    world.decide(Command::OpenSession { owner, ttl, secret, kind })?;
    let session = SessionId(1);
    world.decide(Command::SessionUp(session))?;
    let specs: Vec<Arc<ClaimSpec>> =
        sort.needs.iter().map(|need| spec(need).map(Arc::new)).collect::<Result<_, _>>()?;
    let picks = sort.needs.iter().map(|need| if need.starts_with("2:") { 2.0 } else { 1.0 }).sum::<f64>();
    let per_claim = picks / sort.needs.len() as f64;
    let apart_ms = MEAN_MS * per_claim / (sort.load * sort.resources as f64);
    for (request, spec) in (1..=CLAIMS).zip(specs.iter().cycle()) {
        let next = world.now.plus(whole(world.dice.exponential(apart_ms)));
        world.release_until(next)?;
        world.decide(Command::Acquire { session, request, spec: spec.clone() })?;
    }
    Ok(world.outcomes)
}

#[expect(clippy::cast_precision_loss, reason = "shares of small counts")]
fn main() -> Result<(), String> {
    println!("| lab | waited | estimated | within | sooner | later | median wait | median range | median error |");
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for (seed, sort) in (1..).zip(SORTS) {
        let outcomes = play(sort, seed)?;
        let known: Vec<(Eta, u64)> = outcomes.iter().filter_map(|(eta, wait)| Some(((*eta)?, *wait))).collect();
        let share = |count: usize| format!("{:.0} %", 100.0 * count as f64 / known.len().max(1) as f64);
        let sooner = known.iter().filter(|(eta, wait)| *wait < eta.low_ms).count();
        let later = known.iter().filter(|(eta, wait)| *wait > eta.high_ms).count();
        let median = |mut values: Vec<u64>| {
            values.sort_unstable();
            values.get(values.len() / 2).copied().unwrap_or(0)
        };
        let minutes = |ms: u64| format!("{:.1} min", ms as f64 / 60_000.0);
        // The middle of the range against what came, in percent of what came.
        let error = |(eta, wait): &(Eta, u64)| {
            u64::midpoint(eta.low_ms, eta.high_ms).abs_diff(*wait).saturating_mul(100) / (*wait).max(1)
        };
        println!(
            "| {} | {} | {:.0} % | {} | {} | {} | {} | {} | {} % |",
            sort.name,
            outcomes.len(),
            100.0 * known.len() as f64 / outcomes.len().max(1) as f64,
            share(known.len() - sooner - later),
            share(sooner),
            share(later),
            minutes(median(known.iter().map(|(_, wait)| *wait).collect())),
            minutes(median(known.iter().map(|(eta, _)| eta.high_ms - eta.low_ms).collect())),
            median(known.iter().map(error).collect()),
        );
    }
    Ok(())
}
