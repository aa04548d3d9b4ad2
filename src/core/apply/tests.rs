//! What applying does to the books, rule by rule, and that doing it twice does nothing.
//!
//! Small inventories are written as texts: `a` is a resource in pool `p`, `a.3` has three slots,
//! `a@q` is in pool `q`, `a=7` has the property `serial` 7, `a<b` was called `b`.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::{Declared, DeclaredResource, Options, Plan, due_pending, plan, remove_one, set_one};
use crate::core::claim::{Claim, ClaimSpec, Seniority};
use crate::core::event::Event;
use crate::core::inventory::{Origin, Pending, Pool, ResourceSpec};
use crate::core::lease::{Lease, LeaseEnd, Pick};
use crate::core::need::{Count, Need, Slots};
use crate::core::refusal::{Code, Refusal};
use crate::core::session::{SecretHash, SessionKind};
use crate::core::state::State;
use crate::core::types::{ClaimId, Key, LabTime, LeaseId, Owner, ResourceName, SessionId, Value};

const PRUNE: Options = Options { prune: true, confirmed: true };

fn key(text: &str) -> Key {
    Key::parse(text, "key").expect("a key")
}

fn name(text: &str) -> ResourceName {
    ResourceName::parse(text).expect("a name")
}

fn resource(text: &str) -> DeclaredResource {
    let (text, was) = text.split_once('<').map_or((text, None), |(text, was)| (text, Some(name(was))));
    let (text, serial) = text.split_once('=').map_or((text, None), |(text, serial)| (text, serial.parse().ok()));
    let (text, pool) = text.split_once('@').unwrap_or((text, "p"));
    let (text, slots) = text.split_once('.').unwrap_or((text, "1"));
    let properties = serial.map(|serial| (key("serial"), Value::Int(serial))).into_iter().collect();
    let spec = ResourceSpec {
        name: name(text),
        pool: key(pool),
        labels: BTreeMap::new(),
        properties,
        secrets: BTreeMap::new(),
        slots: slots.parse().expect("slots"),
    };
    DeclaredResource { spec, was }
}

fn declared(texts: &str) -> Declared {
    Declared { pools: Vec::new(), resources: texts.split_whitespace().map(resource).collect() }
}

fn pool(name: &str, identity: Option<&str>) -> Pool {
    let identity = identity.map(key);
    Pool { identity, ..Pool::named(key(name)) }
}

fn me() -> Owner {
    Owner { name: "me".into(), verified: false }
}

fn claim_spec() -> ClaimSpec {
    ClaimSpec {
        needs: Vec::new(),
        same: None,
        distinct: None,
        priority: 0,
        wait_ms: None,
        hold_ms: None,
        note: None,
        tags: BTreeMap::new(),
        fail_fast: false,
        wait_for_inventory: false,
        outer: None,
        retry: None,
    }
}

/// A lab to apply to, with one session that holds whatever is held.
struct Lab(State);

impl Default for Lab {
    fn default() -> Self {
        let mut lab = Self(State::default());
        lab.happen(&[Event::SessionOpened {
            session: SessionId(1),
            owner: me(),
            ttl_ms: 2_000,
            secret: SecretHash("hash".into()),
            kind: SessionKind::Socket { instance: "instance".into() },
        }]);
        lab
    }
}

impl Lab {
    fn of(texts: &str) -> Self {
        let mut lab = Self::default();
        lab.apply(texts);
        lab
    }

    fn happen(&mut self, events: &[Event]) {
        for event in events {
            let now = self.0.lab.now.plus(1);
            self.0.apply(now, event);
        }
    }

    fn try_apply(&mut self, declared: &Declared, options: &Options) -> Result<Plan, Refusal> {
        let plan = plan(&self.0, declared, &Origin::File, options)?;
        self.happen(&plan.events);
        let again = super::plan(&self.0, declared, &Origin::File, &Options { confirmed: false, ..*options })?;
        assert_eq!((&again.events, &again.changes), (&Vec::new(), &Vec::new()), "applying twice");
        assert_eq!(again.unchanged, declared.resources.len());
        Ok(plan)
    }

    /// Applies with prune, however much goes.
    fn apply(&mut self, texts: &str) -> Plan {
        self.try_apply(&declared(texts), &PRUNE).unwrap_or_else(|refusal| panic!("{texts}: {refusal}"))
    }

    fn refused(&mut self, texts: &str) -> Refusal {
        self.try_apply(&declared(texts), &PRUNE).expect_err(texts)
    }

    fn hold(&mut self, text: &str) -> LeaseId {
        let resource = self.0.names[&name(text)];
        let id = LeaseId(self.0.lab.last_lease + 1);
        let lease = Lease {
            id,
            claim: ClaimId(id.0),
            session: SessionId(1),
            request: id.0,
            body_hash: 0,
            owner: me(),
            spec: Arc::new(claim_spec()),
            picks: vec![Pick { alias: key("p"), resource, name: name(text), slots: 1 }],
            queued_at: LabTime(0),
            granted_at: LabTime(0),
            until: None,
            ending: None,
            freed: Vec::new(),
        };
        self.happen(&[Event::LeaseGranted { lease: Arc::new(lease) }]);
        id
    }

    /// Ends a lease, and does what was due for it.
    fn release(&mut self, lease: LeaseId) {
        let held: Vec<_> = self.0.lease(lease).picks.iter().map(|pick| pick.resource).collect();
        let session = self.0.lease(lease).session;
        self.happen(&[Event::LeaseEnded { lease, session, end: LeaseEnd::SessionClosed, outcome: None }]);
        for resource in held {
            let due = due_pending(&self.0, resource);
            self.happen(&due);
        }
    }

    fn set(&mut self, text: &str) -> Result<Plan, Refusal> {
        let plan = set_one(&self.0, &resource(text).spec)?;
        self.happen(&plan.events);
        Ok(plan)
    }

    fn remove(&mut self, text: &str) -> Result<Plan, Refusal> {
        let plan = remove_one(&self.0, &name(text))?;
        self.happen(&plan.events);
        Ok(plan)
    }

    /// The books in the same words: pools in brackets where empty, `>x` what will be, `>-` going.
    fn shown(&self) -> String {
        let spec = |spec: &ResourceSpec| {
            let mut text = spec.name.to_string();
            if spec.slots != 1 {
                text += &format!(".{}", spec.slots);
            }
            if spec.pool.as_str() != "p" {
                text += &format!("@{}", spec.pool);
            }
            spec.properties.values().for_each(|value| text += &format!("={value}"));
            text
        };
        let mut texts: Vec<String> = self
            .0
            .resources
            .values()
            .map(|resource| {
                let pending = match &resource.pending {
                    None => String::new(),
                    Some(Pending::Removal) => ">-".to_owned(),
                    Some(Pending::Change(to)) => format!(">{}", spec(to)),
                };
                format!("{}{pending}", spec(&resource.spec))
            })
            .collect();
        texts.sort();
        let empty = self.0.pools.values().filter(|pool| pool.members.is_empty());
        texts.extend(empty.map(|pool| format!("[{}]", pool.pool.name)));
        texts.join(" ")
    }
}

fn words(plan: &Plan) -> Vec<String> {
    let word = |change: &super::Change| {
        let pending = if change.pending { " (pending)" } else { "" };
        format!("{} {} {}: {}{pending}", change.action, change.what, change.name, change.detail)
    };
    plan.changes.iter().map(word).collect()
}

#[test]
fn an_inventory_becomes_what_the_file_says() {
    let mut lab = Lab::default();
    let plan = lab.apply("a b.3 c@q");
    assert_eq!(lab.shown(), "a b.3 c@q");
    assert_eq!(
        words(&plan),
        [
            "add resource a: in pool p",
            "add resource b: in pool p, 3 slots",
            "add resource c: in pool q",
            "add pool p: with the default policy",
            "add pool q: with the default policy",
        ]
    );
    let plan = lab.apply("a=7 b d");
    assert_eq!(lab.shown(), "a=7 b d");
    assert_eq!(
        words(&plan),
        [
            "remove resource c: from pool q",
            "change resource a: property serial added",
            "change resource b: slots 3 -> 1",
            "add resource d: in pool p",
            "remove pool q: it has no resources any more",
        ]
    );
    lab.apply("");
    assert_eq!(lab.shown(), "");
}

#[test]
fn without_prune_nothing_goes() {
    let mut lab = Lab::of("a b");
    let plan = lab.try_apply(&declared("c@q"), &Options::default()).expect("applies");
    assert_eq!((lab.shown().as_str(), plan.unchanged), ("a b c@q", 0));
}

/// Applied, what is then on the books while `a` is held, and what once it is not.
#[test]
fn what_a_holder_was_given_stays_until_it_has_gone() {
    for (before, after, held, released) in [
        ("a b", "b", "a>- b", "b"),
        ("a", "", "a>-", "[p]"),
        ("a", "a=7", "a>a=7", "a=7"),
        ("a", "a@q", "a>a@q [q]", "a@q [p]"),
        ("a", "b<a", "a>b", "b"),
        ("a.3", "a.2", "a.2", "a.2"),
        ("a.3", "a.5", "a.5", "a.5"),
        ("a.3", "a.2=7", "a.2>a.2=7", "a.2=7"),
        ("a.3", "b.1<a", "a>b", "b"),
    ] {
        let mut lab = Lab::of(before);
        let lease = lab.hold("a");
        let plan = lab.apply(after);
        assert_eq!(lab.shown(), held, "{before} -> {after}");
        let pending = held.contains('>');
        assert_eq!(plan.changes.iter().any(|change| change.pending), pending, "{before} -> {after}");
        lab.release(lease);
        assert_eq!(lab.shown(), released, "{before} -> {after}");
    }
}

#[test]
fn what_waits_is_taken_back_when_the_file_is_as_it_was() {
    for changed in ["", "a=7", "a.3=7", "b<a", "a@q"] {
        let mut lab = Lab::of("a");
        let lease = lab.hold("a");
        lab.apply(changed);
        let plan = lab.apply("a");
        assert_eq!(lab.shown(), "a", "after {changed:?}");
        assert!(words(&plan).iter().any(|word| word.contains("is taken back")), "{:?}", words(&plan));
        lab.release(lease);
        assert_eq!(lab.shown(), "a", "after {changed:?}");
    }
}

#[test]
fn two_holders_must_both_be_gone() {
    let mut lab = Lab::of("a.2");
    let (first, second) = (lab.hold("a"), lab.hold("a"));
    let plan = lab.apply("a.2=7");
    assert_eq!(
        words(&plan),
        ["change resource a: property serial added, when the 2 leases on it have ended (pending)"]
    );
    lab.release(first);
    assert_eq!(lab.shown(), "a.2>a.2=7");
    lab.release(second);
    assert_eq!(lab.shown(), "a.2=7");
}

#[test]
fn a_pool_that_something_waits_to_join_stays() {
    let mut lab = Lab::of("a");
    let lease = lab.hold("a");
    lab.apply("a@q");
    lab.apply("a@q b");
    lab.release(lease);
    assert_eq!(lab.shown(), "a@q b");
}

#[test]
fn a_rename_keeps_the_resource_and_its_marks() {
    let mut lab = Lab::of("a b");
    let id = lab.0.names[&name("a")];
    lab.happen(&[Event::ResourceDrained { resource: id, reason: "cable".into(), by: "me".into() }]);
    let plan = lab.apply("c<a b");
    assert_eq!(words(&plan), ["rename resource c: was a"]);
    assert_eq!(lab.0.names[&name("c")], id);
    assert!(lab.0.resource(id).marks.drained.is_some());
    assert_eq!(lab.apply("c b").events, []);
    // Neither name is known: it is new.
    lab.apply("c b e<d");
    assert_eq!(lab.shown(), "b c e");
}

#[test]
fn a_rename_that_waits_is_known_by_its_new_name() {
    let mut lab = Lab::of("a");
    let lease = lab.hold("a");
    lab.apply("b<a");
    assert_eq!(lab.apply("b").events, []);
    // The old name is declared anew: it is the one that is held, and the new name is a new one.
    lab.apply("a b");
    assert_eq!(lab.shown(), "a b");
    lab.release(lease);
    assert_eq!(lab.shown(), "a b");
}

#[test]
fn a_rename_onto_what_is_there_is_refused() {
    let mut lab = Lab::of("a b");
    assert_eq!(lab.refused("b<a").code, Code::NameTaken);
    assert_eq!(lab.refused("a b<a").code, Code::InvalidInventory);
    assert_eq!(lab.refused("c<a d<a").code, Code::InvalidInventory);
    assert_eq!(lab.refused("a a").code, Code::InvalidInventory);
    assert_eq!(lab.shown(), "a b");
}

#[test]
fn marks_are_found_again_and_never_touched() {
    let mut lab = Lab::of("a");
    let id = lab.0.names[&name("a")];
    lab.happen(&[Event::ResourceQuarantined { resource: id, reason: "burnt".into(), by: "me".into() }]);
    let marks = lab.0.resource(id).marks.clone();
    lab.apply("a=7");
    assert_eq!(lab.0.resource(id).marks, marks);
    lab.apply("");
    lab.apply("a");
    assert_eq!(lab.0.resource(lab.0.names[&name("a")]).marks, marks);
}

#[test]
fn each_origin_has_its_own() {
    let mut lab = Lab::of("a");
    lab.set("x").expect("a free name");
    lab.apply("a b c d e f");
    lab.apply("a");
    assert_eq!(lab.shown(), "a x", "prune takes the file's own only");
    let refusal = lab.refused("a x");
    assert_eq!(refusal.code, Code::NameTaken);
    assert!(refusal.message.contains("leasehold resource rm x"), "{refusal}");
    assert_eq!(lab.refused("a y<x").code, Code::NameTaken);
    assert_eq!(lab.set("a=7").expect_err("the file's").code, Code::NameTaken);
    assert_eq!(lab.remove("a").expect_err("the file's").code, Code::NameTaken);
    assert_eq!(lab.remove("z").expect_err("nobody's").code, Code::NotFound);
    assert_eq!(lab.shown(), "a x");
}

#[test]
fn an_old_name_may_become_somebody_elses() {
    let mut lab = Lab::of("a");
    lab.apply("b<a");
    lab.set("a").expect("the old name is free");
    assert_eq!(lab.apply("b<a").events, []);
}

#[test]
fn set_and_rm_follow_the_same_rules() {
    let mut lab = Lab::default();
    lab.set("x").expect("new");
    assert_eq!(lab.set("x").expect("the same").events, []);
    let lease = lab.hold("x");
    lab.set("x=7").expect("waits");
    assert_eq!(lab.shown(), "x>x=7");
    let plan = lab.remove("x").expect("waits");
    assert!(plan.changes[0].pending);
    assert_eq!((lab.shown().as_str(), lab.remove("x").expect("going").unchanged), ("x>-", 1));
    lab.release(lease);
    assert_eq!(lab.shown(), "", "the pool that was only named goes with its last resource");
    lab.set("x").expect("new");
    lab.set("x@q").expect("moves");
    assert_eq!(lab.shown(), "x@q");
    lab.remove("x").expect("free");
    assert_eq!(lab.shown(), "");
    let mut spec = resource("x").spec;
    spec.slots = 0;
    assert_eq!(set_one(&lab.0, &spec).expect_err("no slots").code, Code::InvalidInventory);
}

#[test]
fn more_than_a_fifth_needs_a_yes() {
    let mut lab = Lab::of("a b c d e f g h i j");
    lab.set("x").expect("not the file's");
    let unconfirmed = Options { prune: true, confirmed: false };
    lab.try_apply(&declared("a b c d e f g h"), &unconfirmed).expect("a fifth is no more than a fifth");
    let refusal = lab.try_apply(&declared("a b c d e f"), &unconfirmed).expect_err("a quarter");
    assert_eq!(refusal.code, Code::NeedsConfirmation);
    assert!(refusal.message.contains("2 of the 8 resources"), "{refusal}");
    assert!(refusal.message.contains("leasehold resource apply FILE --prune --yes"), "{refusal}");
    assert_eq!(lab.shown(), "a b c d e f g h x");
    // A rename removes nothing.
    lab.try_apply(&declared("a1<a b1<b c1<c d e f g h"), &unconfirmed).expect("renames");
    // What is going already was agreed to.
    let lease = lab.hold("h");
    lab.try_apply(&declared("a1 b1 c1 d e f g"), &unconfirmed).expect("one of eight");
    lab.try_apply(&declared("a1 b1 c1 d e f"), &unconfirmed).expect("another of eight");
    lab.release(lease);
    assert_eq!(lab.shown(), "a1 b1 c1 d e f x");
}

#[test]
fn pools_follow_their_definition() {
    let mut lab = Lab::default();
    lab.set("x").expect("in a pool that is only named");
    let defined = |identity| Declared { pools: vec![pool("p", identity)], ..declared("a=1") };
    let plan = lab.try_apply(&defined(Some("serial")), &PRUNE).expect("the file may define it");
    assert_eq!(words(&plan)[0], "change pool p: identity none -> serial");
    let state = &lab.0.pools[&key("p")];
    assert_eq!((state.pool.identity.clone(), state.origin.clone()), (Some(key("serial")), Origin::File));
    // Without prune a file that says nothing of the pool changes nothing of it.
    lab.try_apply(&declared("a=1"), &Options::default()).expect("applies");
    assert!(lab.0.pools[&key("p")].pool.identity.is_some());
    lab.apply("a=1");
    assert!(lab.0.pools[&key("p")].pool.identity.is_none());
    let empty = Declared { pools: vec![pool("q", None)], ..declared("a=1") };
    lab.try_apply(&empty, &PRUNE).expect("a pool may be empty");
    assert_eq!(lab.shown(), "a=1 x [q]");
    lab.apply("a=1");
    assert_eq!(lab.shown(), "a=1 x");
}

#[test]
fn an_identity_is_unique_wherever_resources_come_from() {
    let with = |texts: &str| Declared { pools: vec![pool("p", Some("serial"))], ..declared(texts) };
    let mut lab = Lab::default();
    lab.try_apply(&with("a=1 b=2 c d"), &PRUNE).expect("all different");
    for (texts, wrong) in [("a=1 b=1", "serial \"1\""), ("a=2 b=2", "serial \"2\"")] {
        let refusal = lab.try_apply(&with(texts), &PRUNE).expect_err(texts);
        assert_eq!(refusal.code, Code::InvalidInventory);
        assert!(refusal.message.contains(wrong), "{refusal}");
    }
    assert!(lab.set("x=2").expect_err("the file's b").message.contains("also that of \"b\""));
    lab.set("x=3").expect("another");
    lab.set("y@q=2").expect("another pool");
    lab.try_apply(&with("a=3 b=2"), &PRUNE).expect_err("the x of another origin");
    lab.try_apply(&with("a=2 b=1"), &PRUNE).expect("exchanged in one step");
    // A pool that gets an identity is checked as well.
    let mut lab = Lab::of("a=1 b=1");
    lab.try_apply(&with("a=1 b=1"), &PRUNE).expect_err("alike already");
}

#[test]
fn a_device_is_not_leased_under_a_new_name_while_it_is_held() {
    let with = |texts: &str| Declared { pools: vec![pool("p", Some("serial"))], ..declared(texts) };
    let mut lab = Lab::default();
    lab.try_apply(&with("a=1 b=2"), &PRUNE).expect("applies");
    let lease = lab.hold("a");
    let refusal = lab.try_apply(&with("z=1 b=2"), &PRUNE).expect_err("a is held, and z would be the same device");
    assert!(refusal.message.contains("rename with `was`"), "{refusal}");
    lab.try_apply(&with("a=2 b=1"), &PRUNE).expect_err("b would be what a is");
    lab.try_apply(&with("z=1<a b=2"), &PRUNE).expect("a rename is the same device");
    assert_eq!(lab.shown(), "a=1>z=1 b=2");
    lab.release(lease);
    assert_eq!(lab.shown(), "b=2 z=1");
}

#[test]
fn a_name_that_is_still_held_is_not_given_away() {
    let mut lab = Lab::of("a b");
    let lease = lab.hold("a");
    lab.apply("c<a b");
    assert_eq!(lab.set("c").expect_err("the file's, soon").code, Code::NameTaken);
    lab.release(lease);
    assert_eq!(lab.shown(), "b c");
}

#[test]
fn what_a_drop_freed_may_be_removed_and_the_books_still_load() {
    let mut lab = Lab::of("a b");
    let lease = lab.hold("a");
    lab.happen(&[Event::PicksFreed { lease, resources: vec![lab.0.names[&name("a")]] }]);
    lab.apply("b");
    let loaded = Lab(State::from_tables(&lab.0.tables()).expect("the books load"));
    assert_eq!(loaded.shown(), "b");
}

#[test]
fn claims_that_wait_for_a_pool_are_in_its_queue_when_it_comes() {
    let mut lab = Lab::of("a@q");
    let need = Need {
        alias: key("p"),
        count: Count::Exactly(1),
        pool: key("p"),
        slots: Slots::Exactly(1),
        terms: Vec::new(),
        expression: None,
    };
    let seniority = Seniority { rank: 1, claim: ClaimId(1) };
    let claim = Claim {
        id: ClaimId(1),
        session: SessionId(1),
        request: 1,
        body_hash: 0,
        owner: me(),
        spec: Arc::new(ClaimSpec { needs: vec![need], ..claim_spec() }),
        queued_at: LabTime(1),
        seniority,
        wait_until: None,
        pin: None,
        blocked: None,
        first_arrival: None,
    };
    lab.happen(&[Event::ClaimQueued { claim: Box::new(claim) }]);
    for texts in ["a@q b", "a@q", "a@q b"] {
        lab.apply(texts);
    }
    assert!(lab.0.pools[&key("p")].queue.contains(&seniority));
    assert!(lab.0.pools[&key("q")].queue.is_empty());
}

/// A step in the life of a lab: an inventory applied, a resource held, or a lease released.
#[derive(Clone, Debug)]
enum Step {
    Apply(Vec<(u8, u8, u8, Option<u8>)>, bool, bool),
    Hold(u8),
    Release(u8),
    Set(u8, u8),
    Remove(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let one = (0..5_u8, 1..4_u8, 0..4_u8, prop::option::weighted(0.3, 0..5_u8));
    let step = prop_oneof![
        4 => (prop::collection::vec(one, 0..5), any::<bool>(), any::<bool>())
            .prop_map(|(a, b, c)| Step::Apply(a, b, c)),
        3 => (0..8_u8).prop_map(Step::Hold),
        2 => (0..8_u8).prop_map(Step::Release),
        1 => (0..6_u8, 0..4_u8).prop_map(|(n, s)| Step::Set(n, s)),
        1 => (0..6_u8).prop_map(Step::Remove),
    ];
    prop::collection::vec(step, 1..24)
}

fn letter(number: u8) -> char {
    char::from(b'a' + number)
}

fn step_declared(resources: &[(u8, u8, u8, Option<u8>)], identity: bool) -> Declared {
    let mut texts = BTreeMap::new();
    for (name, slots, serial, was) in resources {
        let was = was.filter(|was| was != name).map_or_else(String::new, |was| format!("<{}", letter(was)));
        let pool = if serial % 2 == 0 { "p" } else { "q" };
        texts.insert(*name, format!("{}.{slots}@{pool}={serial}{was}", letter(*name)));
    }
    let texts: Vec<_> = texts.into_values().collect();
    let pools = if identity { vec![pool("p", Some("serial"))] } else { Vec::new() };
    Declared { pools, ..declared(&texts.join(" ")) }
}

/// What must be so after every step, whatever the steps were.
fn check(lab: &Lab) {
    for resource in lab.0.resources.values() {
        assert!(resource.pending.is_none() || !resource.holders.is_empty(), "{} waits for nobody", resource.spec.name);
        assert_eq!(lab.0.names[&resource.spec.name], resource.id);
    }
    for pool in lab.0.pools.values() {
        let Some(identity) = &pool.pool.identity else { continue };
        let values: Vec<_> =
            pool.members.iter().filter_map(|id| lab.0.resource(*id).spec.properties.get(identity)).collect();
        let distinct: std::collections::BTreeSet<_> = values.iter().collect();
        assert_eq!(distinct.len(), values.len(), "{}", lab.shown());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// `try_apply` checks that applying twice does nothing; here for any history of a lab.
    #[test]
    fn any_history_leaves_the_books_whole(steps in steps()) {
        let mut lab = Lab::default();
        let mut leases = Vec::new();
        for step in steps {
            match step {
                Step::Apply(resources, prune, identity) => {
                    let before = lab.shown();
                    let options = Options { prune, confirmed: true };
                    if lab.try_apply(&step_declared(&resources, identity), &options).is_err() {
                        prop_assert_eq!(before, lab.shown());
                    }
                }
                Step::Hold(which) => {
                    let free = |r: &&crate::core::inventory::Resource| r.is_grantable() && r.slots_free() > 0;
                    let names: Vec<_> =
                        lab.0.resources.values().filter(free).map(|r| r.spec.name.to_string()).collect();
                    if let Some(name) = names.get(usize::from(which) % names.len().max(1)) {
                        leases.push(lab.hold(name));
                    }
                }
                Step::Release(which) if !leases.is_empty() => {
                    let lease = leases.remove(usize::from(which) % leases.len());
                    lab.release(lease);
                }
                Step::Release(_) => {}
                Step::Set(name, serial) => { let _ = lab.set(&format!("{}={serial}", letter(name))); }
                Step::Remove(name) => { let _ = lab.remove(&letter(name).to_string()); }
            }
            check(&lab);
        }
        leases.into_iter().for_each(|lease| lab.release(lease));
        check(&lab);
        // With nobody in the way the file gets what it says.
        for own in "abcdef".chars() {
            let _ = lab.remove(&own.to_string());
        }
        lab.apply("a.2=1 b c@q");
        prop_assert_eq!(lab.shown(), "a.2=1 b c@q");
    }
}
