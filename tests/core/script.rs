//! Tables of who does what and who is told what, in virtual time.
//!
//! ```text
//! 0s   s1 open
//! 1s   s1 acquire 1 phone,os=android      -> granted p1
//!      s2 acquire 1 2:phone | prio=3      -> queued
//! 5s   s1 release 1                       -> released
//!      => s2 1 granted p1 p2
//! ```
//!
//! A line is a time (where it changes), an actor, what it does, and after `->` what it is
//! answered. Lines that begin with `=>` are all that was told to anybody beside that answer, in
//! order: a line too many or too few fails. `..` goes on with the line before. Claims and leases
//! are called by their session and its number for them (`s1/1`). `lab` is the broker, its file and
//! its clock; `admin` is an admin.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use leasehold::core::apply::{Declared, DeclaredResource};
use leasehold::core::claim::{ClaimEnd, ClaimSpec, Pin, Retry};
use leasehold::core::command::{ClaimReply, Claimant, Command, MarkAct, Reply, TtlAsk};
use leasehold::core::event::Event;
use leasehold::core::lease::{LeaseEnd, Outcome};
use leasehold::core::limits::Limits;
use leasehold::core::session::{Provider, SecretHash, SessionEnd, SessionKind};
use leasehold::core::types::{ClaimId, LabTime, LeaseId, ProviderName, ResourceId, ResourceName, SessionId};

use crate::world::{World, claim, duration_ms, key, name, owner, pool, resource};

/// Runs a table over a lab: lines of `pool NAME ...` and of `POOL NAME[*SLOTS] [label=value ...]`.
pub fn run(lab: &str, table: &str) -> Script {
    run_within(Limits::default(), lab, table)
}

/// The same, with limits.
pub fn run_within(limits: Limits, lab: &str, table: &str) -> Script {
    let mut script = Script {
        world: World::new(limits),
        sessions: BTreeMap::new(),
        actors: BTreeMap::new(),
        requests: BTreeMap::new(),
        leases: BTreeMap::new(),
        names: BTreeMap::new(),
    };
    let lab: Vec<&str> = lab.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let (reply, events) = script.world.decide(apply(&format!("yes: {}", lab.join("; "))));
    assert!(matches!(reply, Reply::Applied { applied: true, .. }), "{reply:?}");
    script.learn(&events);
    script.play(table);
    script
}

/// A lab, and what its table calls things.
pub struct Script {
    pub world: World,
    sessions: BTreeMap<String, SessionId>,
    actors: BTreeMap<SessionId, String>,
    /// What every claim is called that ever was.
    requests: BTreeMap<ClaimId, String>,
    leases: BTreeMap<LeaseId, String>,
    names: BTreeMap<ResourceId, ResourceName>,
}

impl Script {
    /// Goes on with another table.
    pub fn play(&mut self, table: &str) {
        let mut joined: Vec<String> = Vec::new();
        for line in table.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            match (line.strip_prefix(".."), joined.last_mut()) {
                (Some(rest), Some(before)) => before.push_str(rest),
                _ => joined.push(line.to_owned()),
            }
        }
        let lines: Vec<&str> = joined.iter().map(String::as_str).collect();
        let mut rest = lines.as_slice();
        while let Some((line, after)) = rest.split_first() {
            let told = after.iter().take_while(|line| line.starts_with("=>")).count();
            let (expected, after) = after.split_at(told);
            rest = after;
            let (command, answer) = line.split_once(" ->").map_or((*line, None), |(c, a)| (c, Some(a.trim())));
            let (answered, mut happened) = self.line(command.trim());
            let answer_ok = answer.map_or_else(|| !answered.starts_with("refused"), |answer| answer == answered);
            let expected: Vec<String> = expected.iter().map(|line| line[2..].trim().to_owned()).collect();
            if !answer_ok || expected != happened {
                happened.iter_mut().for_each(|line| line.insert_str(0, "\n     => "));
                panic!("at\n     {line}\nit was\n     {command} -> {answered}{}", happened.concat());
            }
        }
    }

    /// Does one line without holding anything against it: for making many of them.
    pub fn unwatched(&mut self, line: &str) {
        let (actor, line) = line.split_once(' ').expect("an actor and what it does");
        let (verb, args) = line.split_once(' ').expect("what, and of what");
        let command = self.client(actor, verb, args);
        self.world.unchecked(command);
    }

    fn line(&mut self, line: &str) -> (String, Vec<String>) {
        let (first, others) = line.split_once(' ').expect("an actor and what it does");
        let timed = first.starts_with(|c: char| c.is_ascii_digit());
        let line = if timed { others.trim() } else { line };
        if timed {
            let at = LabTime(duration_ms(first));
            assert!(at >= self.world.now, "{line}: time goes back");
            self.world.now = at;
        }
        let (actor, line) = line.split_once(' ').expect("what the actor does");
        let (verb, args) = line.trim().split_once(' ').unwrap_or_else(|| (line.trim(), ""));
        if let Some(answer) = self.look(actor, verb, args.trim()) {
            return (answer, Vec::new());
        }
        if (actor, verb) == ("lab", "restart") {
            let events = self.world.restart();
            return ("done".to_owned(), self.tell(&events, &Reply::Done, ""));
        }
        let command = match actor {
            "lab" => self.lab(verb, args.trim()),
            "admin" => self.admin(verb, args.trim()),
            _ => self.client(actor, verb, args.trim()),
        };
        let asker = if actor == "lab" || actor == "admin" { "" } else { actor };
        let (reply, events) = self.world.decide(command);
        self.learn_session(actor, verb, &reply, &events);
        self.learn(&events);
        let happened = self.tell(&events, &reply, asker);
        (self.answer(&reply), happened)
    }

    /// Questions that change nothing.
    fn look(&self, actor: &str, verb: &str, args: &str) -> Option<String> {
        let state = self.world.broker.state();
        match (actor, verb) {
            ("lab", "queue") => {
                let waiting = state.queue.iter().map(|seniority| self.requests[&seniority.claim].as_str());
                Some(waiting.collect::<Vec<_>>().join(" "))
            }
            ("lab", "holders") => {
                let resource = state.resource(*state.names.get(&name(args))?);
                Some(resource.holders.iter().map(|lease| self.leases[lease].as_str()).collect::<Vec<_>>().join(" "))
            }
            ("lab", "resources") => Some(state.names.keys().map(ResourceName::as_str).collect::<Vec<_>>().join(" ")),
            (_, "fence") => Some(self.lease(&format!("{actor}/{args}")).to_string()),
            (_, "until") => Some(format!("{:?}", state.lease(self.lease(&format!("{actor}/{args}"))).until?.0)),
            (_, "capped") => {
                let claim = &state.claims[&self.claim(&format!("{actor}/{args}"))];
                Some(state.capped(claim, |_| 1).map_or_else(
                    || "no".to_owned(),
                    |capped| match capped.behind {
                        Some(before) => format!("waits behind {}", self.requests[&before]),
                        None => format!(
                            "holds {} of {} of {}, asks for {}",
                            capped.held, capped.most, capped.pool, capped.asked
                        ),
                    },
                ))
            }
            (_, "eta") => {
                let etas = self.world.broker.etas(self.world.now, None);
                let eta = etas.get(&self.claim(&format!("{actor}/{args}")));
                Some(eta.map_or_else(
                    || "unknown".to_owned(),
                    |eta| format!("{}s to {}s by {}", eta.low_ms / 1000, eta.high_ms / 1000, eta.holds),
                ))
            }
            (_, "blocked") => {
                let claim = &state.claims[&self.claim(&format!("{actor}/{args}"))];
                Some(claim.blocked.as_ref().map_or_else(|| "no".to_owned(), |why| why.message.to_string()))
            }
            _ => None,
        }
    }

    fn lab(&self, verb: &str, args: &str) -> Command {
        match verb {
            "tick" => Command::Tick,
            "return-grace-over" => Command::ReturnGraceOver,
            "stop" => Command::StopGranting,
            "store" => Command::StoreWorks(args == "works"),
            "apply" => apply(args),
            "set" => Command::SetResource(Arc::new(resource(args))),
            "rm" => Command::RemoveResource(name(args)),
            "over" => Command::EndingOver(self.lease(args)),
            "no-secret" => {
                let (lease, resource) = args.split_once(' ').expect("a lease and a resource");
                let reason = "no such file".into();
                Command::SecretUnavailable { lease: self.lease(lease), resource: name(resource), reason }
            }
            other => panic!("the lab does not {other}"),
        }
    }

    fn admin(&self, verb: &str, args: &str) -> Command {
        let by: Arc<str> = "root".into();
        let (what, reason) = args.split_once(' ').unwrap_or((args, "so"));
        let mark = |act| Command::Mark { resource: name(what), act, reason: reason.into(), by: by.clone() };
        match verb {
            "kick" => Command::Kick { session: self.sessions[what], by },
            "revoke" => {
                let reason = (reason != "so" && reason != "--force").then(|| reason.into());
                Command::Revoke { lease: self.lease(what), by, reason, forced: args.ends_with("--force") }
            }
            "release" => {
                let claimant = Claimant { admin: true, name: by, ..Claimant::default() };
                Command::Release { lease: self.lease(what), claimant, outcome: None }
            }
            "cancel" => {
                let claimant = Claimant { admin: true, name: by, ..Claimant::default() };
                Command::CancelClaim { claim: self.claim(what), claimant }
            }
            "drain" => mark(MarkAct::Drain),
            "undrain" => mark(MarkAct::Undrain),
            "quarantine" => mark(MarkAct::Quarantine),
            "restore" => mark(MarkAct::Restore),
            other => panic!("an admin does not {other}"),
        }
    }

    fn client(&self, actor: &str, verb: &str, args: &str) -> Command {
        let session = self.sessions.get(actor).copied();
        let end = |end| Command::EndSession { session: session.expect("an open session"), end };
        let claimant = Claimant { session, name: actor.into(), ..Claimant::default() };
        let (first, rest) = args.split_once(' ').unwrap_or((args, ""));
        // `s1/1` is somebody else's, `1` the actor's own.
        let whole = |what: &str| if what.contains('/') { what.to_owned() } else { format!("{actor}/{what}") };
        let own = || session.unwrap_or(SessionId(u64::MAX));
        match verb {
            "open" => {
                let (acts_for, args) = args.strip_prefix("as ").map_or((actor, args), |owner| (owner, ""));
                let ttl = match args.strip_prefix("for ") {
                    Some(pools) => TtlAsk::Pools(pools.split(' ').map(key).collect()),
                    None if args.is_empty() => TtlAsk::Exactly(30_000),
                    None => TtlAsk::Exactly(duration_ms(args)),
                };
                let kind = SessionKind::Socket { instance: actor.into() };
                Command::OpenSession { owner: owner(acts_for), ttl, secret: SecretHash(actor.into()), kind }
            }
            "provide" => {
                let (head, items) = args.split_once(':').expect("NAME [key=KEY] [yes]: items");
                let mut words = head.split_whitespace();
                let name = ProviderName::parse(words.next().expect("a name")).expect("a name");
                let words: Vec<&str> = words.collect();
                let key = words.iter().find_map(|word| word.strip_prefix("key=")).unwrap_or(actor);
                let provider = Provider { name, key: SecretHash(key.into()), address: actor.into() };
                let Command::Apply { declared, .. } = apply(&format!(": {items}")) else { unreachable!("it applies") };
                Command::Provide { session: own(), provider, declared, confirmed: words.contains(&"yes") }
            }
            "up" => Command::SessionUp(own()),
            "down" => Command::SessionDown(own()),
            "close" => end(SessionEnd::Closed),
            "expire" => end(SessionEnd::Expired),
            "acquire" => {
                let request = first.parse().expect("a request number");
                Command::Acquire { session: own(), request, spec: Arc::new(self.spec(rest)) }
            }
            "post" => Command::AcquireKeyed {
                key: SecretHash(actor.into()),
                request_id: first.into(),
                owner: owner("http"),
                ttl_ms: 180_000,
                spec: Arc::new(self.spec(rest)),
            },
            "cancel" => Command::Cancel { session: own(), request: first.parse().expect("a request number") },
            "cancel-claim" => Command::CancelClaim { claim: self.claim(&whole(first)), claimant },
            "release" => {
                let outcome = match rest {
                    "" => None,
                    "passed" => Some(Outcome::Passed),
                    "failed" => Some(Outcome::Failed),
                    _ => Some(Outcome::Infra),
                };
                Command::Release { lease: self.lease(&whole(first)), claimant, outcome }
            }
            "extend" => {
                let until = LabTime(duration_ms(rest.strip_prefix("to ").expect("extend N to TIME")));
                Command::Extend { lease: self.lease(&whole(first)), claimant, until }
            }
            other => panic!("a client does not {other}"),
        }
    }

    /// `NEED [+ NEED ...] [| option ...]`.
    fn spec(&self, text: &str) -> ClaimSpec {
        let (texts, options) = text.split_once(" | ").unwrap_or((text, ""));
        let mut spec = claim(texts);
        for option in options.split_whitespace() {
            match option.split_once('=').unwrap_or((option, "")) {
                ("same", label) => spec.same = Some(key(label)),
                ("distinct", label) => spec.distinct = Some(key(label)),
                ("prio", priority) => spec.priority = priority.parse().expect("a priority"),
                ("wait", span) => spec.wait_ms = Some(duration_ms(span)),
                ("hold", span) => spec.hold_ms = Some(duration_ms(span)),
                ("note", note) => spec.note = Some(note.into()),
                ("outer", lease) => spec.outer = Some(self.lease(lease)),
                ("retry", work) => {
                    let (work, attempt) = work.split_once('/').expect("retry=WORK/ATTEMPT");
                    spec.retry = Some(Retry { work: work.into(), attempt: attempt.parse().expect("a number") });
                }
                ("fail-fast", _) => spec.fail_fast = true,
                ("wait-for-inventory", _) => spec.wait_for_inventory = true,
                (other, _) => panic!("a claim has no {other}"),
            }
        }
        spec
    }

    fn lease(&self, called: &str) -> LeaseId {
        let known = self.leases.iter().rev().find(|(_, name)| *name == called);
        *known.unwrap_or_else(|| panic!("{called} never was a lease")).0
    }

    fn claim(&self, called: &str) -> ClaimId {
        let known = self.requests.iter().rev().find(|(_, name)| *name == called);
        *known.unwrap_or_else(|| panic!("{called} never was a claim")).0
    }

    fn learn_session(&mut self, actor: &str, verb: &str, reply: &Reply, events: &[Event]) {
        for event in events {
            if let Event::SessionOpened { session, .. } = event {
                self.sessions.insert(actor.to_owned(), *session);
                self.actors.insert(*session, actor.to_owned());
            }
        }
        if let (Reply::Opened { session, .. }, "open") = (reply, verb) {
            self.world.decide(Command::SessionUp(*session));
        }
    }

    /// Remembers what things are called, also when they are gone.
    fn learn(&mut self, events: &[Event]) {
        let state = self.world.broker.state();
        for event in events {
            match event {
                Event::LeaseGranted { lease } => {
                    let called = format!("{}/{}", self.actors[&lease.session], lease.request);
                    self.requests.insert(lease.claim, called.clone());
                    self.leases.insert(lease.id, called);
                }
                Event::ClaimQueued { claim } => {
                    self.requests.insert(claim.id, format!("{}/{}", self.actors[&claim.session], claim.request));
                }
                _ => {}
            }
        }
        self.names.extend(state.resources.values().map(|resource| (resource.id, resource.spec.name.clone())));
    }

    fn answer(&self, reply: &Reply) -> String {
        match reply {
            Reply::Done => "done".to_owned(),
            Reply::Refused(refusal) => format!("refused {}: {}", refusal.code, refusal.message),
            Reply::Opened { ttl_ms, .. } => format!("open {ttl_ms}"),
            Reply::Claim { stands, .. } => match stands {
                ClaimReply::Queued(claim) => {
                    let claim = &self.world.broker.state().claims[claim];
                    let mut text = "queued".to_owned();
                    if let Some(pin) = &claim.pin {
                        let _ = write!(text, " pins {}", self.pin(pin));
                    }
                    if let Some(blocked) = &claim.blocked {
                        let _ = write!(text, " blocked: {}", blocked.message);
                    }
                    text
                }
                ClaimReply::Granted(lease) => format!("granted {}", self.picks(*lease)),
                ClaimReply::LeaseEnded { end, .. } => format!("ended {}", lease_end(end)),
                ClaimReply::Ended(end) => claim_end(end),
            },
            Reply::Lease(lease) => {
                let until = self.world.broker.state().lease(*lease).until;
                format!("until {}", until.map_or_else(|| "released".to_owned(), |at| format!("{}s", at.0 / 1000)))
            }
            Reply::Released { end, .. } => lease_end(end),
            Reply::NotHeld(_) => "not held".to_owned(),
            Reply::Applied { changes, applied, .. } => {
                let each = changes.iter().map(|change| {
                    format!("{} {}{}", change.action, change.name, if change.pending { " pending" } else { "" })
                });
                let each: Vec<String> = each.collect();
                format!("{}{}", if *applied { "" } else { "would " }, each.join(", "))
            }
        }
    }

    fn picks(&self, lease: LeaseId) -> String {
        let state = self.world.broker.state();
        let Some(lease) = state.leases.get(&lease) else { return "and gone".to_owned() };
        let each = lease.picks.iter().map(|pick| match pick.slots {
            1 => pick.name.to_string(),
            slots => format!("{}*{slots}", pick.name),
        });
        each.collect::<Vec<_>>().join(" ")
    }

    fn pin(&self, pin: &Pin) -> String {
        match pin {
            Pin::Value(value) => value.to_string(),
            Pin::Values(values) => values.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
            Pin::Resources(each) => {
                let mut names: Vec<&str> = each.iter().flatten().map(|id| self.names[id].as_str()).collect();
                names.sort_unstable();
                names.join("+")
            }
        }
    }

    /// What was told, beside what the reply says itself.
    fn tell(&self, events: &[Event], reply: &Reply, asker: &str) -> Vec<String> {
        let asked_of = |session: &SessionId, request: &u64| match reply {
            Reply::Claim { session: asker, request: asked, .. } => asker == session && asked == request,
            _ => false,
        };
        let released = |ended: &LeaseId| matches!(reply, Reply::Released { lease, .. } if lease == ended);
        let actor = |session: &SessionId| self.actors[session].as_str();
        let mut told = Vec::new();
        for event in events {
            let line = match event {
                Event::LeaseGranted { lease } if !asked_of(&lease.session, &lease.request) => {
                    format!("{} {} granted {}", actor(&lease.session), lease.request, self.picks(lease.id))
                }
                Event::LeaseEnding { lease, ending } => {
                    format!("{} ending {}", self.leases[lease].replace('/', " "), lease_end(&ending.why))
                }
                Event::LeaseEnded { lease, end, .. } if !released(lease) => {
                    format!("{} ended {}", self.leases[lease].replace('/', " "), lease_end(end))
                }
                Event::ClaimEnded { session, request, end, .. } if !asked_of(session, request) => {
                    format!("{} {request} {}", actor(session), claim_end(end))
                }
                Event::ClaimBlocked { claim, blocked } => {
                    let blocked =
                        blocked.as_ref().map_or_else(|| "unblocked".to_owned(), |b| format!("blocked: {}", b.message));
                    format!("{} {blocked}", self.requests[claim].replace('/', " "))
                }
                Event::ClaimPinned { claim, pin } => {
                    let pin = pin.as_ref().map_or_else(|| "unpins".to_owned(), |pin| format!("pins {}", self.pin(pin)));
                    format!("{} {pin}", self.requests[claim].replace('/', " "))
                }
                Event::PicksFreed { lease, resources } => {
                    let each: Vec<&str> = resources.iter().map(|id| self.names[id].as_str()).collect();
                    format!("{} loses {}", self.leases[lease].replace('/', " "), each.join(" "))
                }
                Event::SessionEnded { session, end } => match end {
                    SessionEnd::Closed if actor(session) == asker => continue,
                    SessionEnd::Closed => format!("{} closed", actor(session)),
                    SessionEnd::Expired => format!("{} expired", actor(session)),
                    SessionEnd::Kicked { by } => format!("{} kicked by {by}", actor(session)),
                    SessionEnd::Moved => format!("{} stayed behind", actor(session)),
                },
                Event::ResourceRemoved { resource } if !matches!(reply, Reply::Applied { .. }) => {
                    format!("{} removed", self.names[resource])
                }
                Event::ResourceChanged { spec, .. } if !matches!(reply, Reply::Applied { .. }) => {
                    format!("{} changed", spec.name)
                }
                Event::ResourceOffline { resource, reason, .. } => {
                    format!("{} offline: {reason}", self.names[resource])
                }
                Event::ResourceOnline { resource } => format!("{} online", self.names[resource]),
                Event::ProviderAttached { session, from: Some(from), .. } => {
                    format!("{} follows {}", actor(session), actor(from))
                }
                Event::ResourceQuarantined { resource, reason, by } if &**by == "broker" => {
                    format!("{} quarantined: {reason}", self.names[resource])
                }
                _ => continue,
            };
            told.push(line);
        }
        told
    }
}

/// `[prune] [yes] [dry-run]: ITEM; ITEM ...`, an item being `pool ...` or a resource.
fn apply(text: &str) -> Command {
    let (options, items) = text.split_once(':').expect("options: items");
    let has = |option| options.split_whitespace().any(|word| word == option);
    let mut declared = Declared::default();
    for item in items.split(';').map(str::trim).filter(|item| !item.is_empty()) {
        if let Some(text) = item.strip_prefix("pool ") {
            declared.pools.push(pool(text));
            continue;
        }
        let (text, was) = item.split_once(" was ").map_or((item, None), |(text, was)| (text, Some(name(was))));
        declared.resources.push(DeclaredResource { spec: resource(text), was });
    }
    Command::Apply { declared: Arc::new(declared), prune: has("prune"), confirmed: has("yes"), dry_run: has("dry-run") }
}

fn claim_end(end: &ClaimEnd) -> String {
    match end {
        ClaimEnd::Cancelled { by } => format!("cancelled by {by}"),
        ClaimEnd::TimedOut => "timed out".to_owned(),
        ClaimEnd::SessionEnded => "gone with its session".to_owned(),
        ClaimEnd::Refused(refusal) => format!("refused {}: {}", refusal.code, refusal.message),
    }
}

fn lease_end(end: &LeaseEnd) -> String {
    match end {
        LeaseEnd::Released { by } => format!("released by {by}"),
        LeaseEnd::SessionClosed => "closed".to_owned(),
        LeaseEnd::SessionExpired => "expired".to_owned(),
        LeaseEnd::Dropped => "dropped".to_owned(),
        LeaseEnd::HoldEnded => "hold over".to_owned(),
        LeaseEnd::Revoked { by, forced, reason } => {
            let reason = reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
            format!("revoked by {by}{}{reason}", if *forced { " by force" } else { "" })
        }
        LeaseEnd::Kicked { by } => format!("kicked by {by}"),
        LeaseEnd::SecretUnavailable { resource } => format!("secret unavailable: {resource}"),
        LeaseEnd::Moved => "moved".to_owned(),
    }
}
