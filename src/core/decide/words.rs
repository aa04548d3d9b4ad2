//! Why a claim cannot be satisfied, in words: the need that fails and what comes nearest.

use std::collections::BTreeMap;

use crate::core::broker::Broker;
use crate::core::claim::{Blocked, Claim};
use crate::core::inventory::{Pending, Resource};
use crate::core::need::{Count, Need, Slots, Term};
use crate::core::refusal::{Code, Refusal};
use crate::core::schedule::Ask;
use crate::core::selection::SelectionId;
use crate::core::spelling::nearest;
use crate::core::types::{Key, Value};

/// Names and values listed in a message; more are counted.
const LISTED_MAX: usize = 5;

impl Broker {
    /// The refusal of a claim that nothing on the books can ever satisfy.
    pub(in crate::core) fn nearest_miss(&self, claim: &Claim, selections: &[SelectionId]) -> Refusal {
        for (need, id) in claim.spec.needs.iter().zip(selections) {
            if let Some(message) = self.miss(need, *id) {
                return Refusal::new(Code::Impossible, message).of_need(need.alias.as_str());
            }
        }
        let constraint = match (&claim.spec.same, &claim.spec.distinct) {
            (Some(same), Some(distinct)) => format!("with {same} the same and {distinct} different for all of them"),
            (Some(same), None) => {
                format!("with {same} the same for all of them{}", self.values_hint(claim, selections, same))
            }
            (None, Some(distinct)) => {
                format!("with {distinct} different for each{}", self.values_hint(claim, selections, distinct))
            }
            (None, None) => "together, as they would share the same resources".to_owned(),
        };
        Refusal::new(Code::Impossible, format!("each need can be met alone, but not {constraint}"))
    }

    /// What one need misses by itself, if it does.
    fn miss(&self, need: &Need, id: SelectionId) -> Option<String> {
        let Some(pool) = self.state.pools.get(&need.pool) else {
            let near = nearest(need.pool.as_str(), self.state.pools.keys().map(Key::as_str));
            let pools: Vec<&str> = self.state.pools.keys().map(Key::as_str).collect();
            let hint = match (near, pools.is_empty()) {
                (Some(near), _) => format!(": did you mean {near:?}?"),
                (None, true) => ": the inventory is empty".to_owned(),
                (None, false) => format!(": there are {}", listed(pools.into_iter())),
            };
            return Some(format!("there is no pool {:?}{hint}", need.pool.as_str()));
        };
        if let Some(unknown) = self.unknown_label(need, id) {
            return Some(unknown);
        }
        let mut left: Vec<&Resource> = pool.members.iter().map(|id| self.state.resource(*id)).collect();
        if left.is_empty() {
            return Some(format!("pool {} has no resources", need.pool));
        }
        let asked = match need.count {
            Count::Exactly(count) => count as usize,
            Count::All => 1,
        };
        let mut passed: Vec<String> = Vec::new();
        for term in &need.terms {
            let held = |resource: &&Resource| accepts(term, resource);
            let next: Vec<&Resource> = left.iter().copied().filter(held).collect();
            if next.len() < asked {
                let have = had(need, left.len(), &passed);
                let found =
                    if next.is_empty() { "none of them".to_owned() } else { format!("only {} of them", next.len()) };
                let values = values_of(&left, &term.key);
                return Some(format!("{have}, {found} with {}{values}; {asked} asked", show(term)));
            }
            left = next;
            passed.push(show(term));
        }
        let selection = self.selections.get(id);
        if let Some(expression) = &need.expression
            && selection.matches().len() < asked
        {
            let found = match selection.matches().len() {
                0 => "none of them satisfies".to_owned(),
                some => format!("only {some} of them satisfy"),
            };
            return Some(format!("{}, {found} `{expression}`; {asked} asked", had(need, left.len(), &passed)));
        }
        left.retain(|resource| selection.contains(resource.id));
        if left.len() < asked {
            return Some(format!("{}; {asked} asked", had(need, left.len(), &passed)));
        }
        if let Slots::Exactly(slots) = need.slots {
            let most = left.iter().map(|resource| resource.spec.slots).max().unwrap_or(0);
            let enough = left.iter().filter(|resource| resource.spec.slots >= slots).count();
            if enough < asked {
                let have = had(need, left.len(), &passed);
                return Some(format!(
                    "{have}, {enough} of them with {slots} slots (the most is {most}); {asked} asked"
                ));
            }
        }
        None
    }

    /// A label that the need asks by and no resource of its pool has, with the nearest spelling.
    pub(in crate::core) fn unknown_label(&self, need: &Need, id: SelectionId) -> Option<String> {
        let terms = need.terms.iter().map(|term| term.key.as_str());
        let selection = self.selections.get(id);
        let names = terms.chain(selection.variables());
        for name in names.filter(|name| !matches!(*name, "name" | "pool")) {
            if !self.selections.has_label(&need.pool, name) {
                let known = self.selections.labels_of(&need.pool);
                let hint = match nearest(name, known.iter().map(|key| key.as_str())) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None if known.is_empty() => "they have no labels".to_owned(),
                    None => format!("they have {}", listed(known.iter().map(|key| key.as_str()))),
                };
                return Some(format!("no resource of pool {} has a label {name:?}: {hint}", need.pool));
            }
        }
        None
    }

    /// How many of what a claim asks each value of the label could give.
    fn values_hint(&self, claim: &Claim, selections: &[SelectionId], label: &Key) -> String {
        let mut counts: BTreeMap<Value, usize> = BTreeMap::new();
        for id in claim.spec.needs.iter().zip(selections).map(|(_, id)| id) {
            for resource in self.selections.get(*id).matches().map(|id| self.state.resource(id)) {
                if let Some(value) = resource.label(label.as_str()) {
                    *counts.entry(value).or_default() += 1;
                }
            }
        }
        if counts.is_empty() {
            return format!(" (none of what matches has a label {label})");
        }
        format!(" ({})", listed(counts.iter().map(|(value, count)| format!("{label}={value} has {count}"))))
    }

    /// What keeps a claim from being granted however long the others take.
    pub(in crate::core) fn blocked(&self, claim: &Claim, selections: &[SelectionId]) -> Blocked {
        let failing = claim.spec.needs.iter().zip(selections).find(|(need, id)| {
            let asked = match need.count {
                Count::Exactly(count) => count as usize,
                Count::All => 1,
            };
            self.selections.get(**id).grantable() < asked
        });
        let (need, id) = failing.unwrap_or((&claim.spec.needs[0], &selections[0]));
        let out = self.selections.get(*id).matches().map(|id| self.state.resource(id));
        let out: Vec<String> =
            out.filter_map(|resource| Some(format!("{} {}", resource.spec.name, why_out(resource)?))).collect();
        let message = match failing {
            _ if out.is_empty() => format!("need {} waits for resources that are out of use", need.alias),
            Some(_) => {
                format!("need {} waits for resources that are out of use: {}", need.alias, listed(out.into_iter()))
            }
            None => {
                format!("what is in use cannot satisfy all needs together; out of use: {}", listed(out.into_iter()))
            }
        };
        Blocked { alias: need.alias.clone(), message: message.into() }
    }

    pub(in crate::core) fn alias_of(&self, claim: &Claim, refusal: &Refusal) -> Key {
        let named = claim.spec.needs.iter().find(|need| Some(need.alias.as_str()) == refusal.need.as_deref());
        named.unwrap_or(&claim.spec.needs[0]).alias.clone()
    }

    /// Whether a need names, in its expression, a label that nothing of its pool has.
    pub(in crate::core) fn names_unknown(&self, ask: Ask<'_>) -> bool {
        let mut needs = ask.spec.needs.iter().zip(ask.selections);
        needs.any(|(need, id)| need.expression.is_some() && self.unknown_label(need, *id).is_some())
    }
}

/// Why nobody new gets the resource, if so.
fn why_out(resource: &Resource) -> Option<String> {
    if let Some(mark) = &resource.marks.quarantined {
        return Some(format!("is quarantined by {} ({})", mark.by, mark.reason));
    }
    if let Some(mark) = &resource.marks.drained {
        return Some(format!("is drained by {} ({})", mark.by, mark.reason));
    }
    if let Some(mark) = &resource.marks.offline {
        return Some(format!("is offline ({})", mark.reason));
    }
    match resource.pending {
        Some(Pending::Removal) => Some("is being removed".to_owned()),
        Some(Pending::Change(_)) => Some("is about to change".to_owned()),
        None => None,
    }
}

fn accepts(term: &Term, resource: &Resource) -> bool {
    resource.label(term.key.as_str()).is_some_and(|value| term.accepts(&value))
}

fn show(term: &Term) -> String {
    format!("{}{}{}", term.key, if term.negated { "!=" } else { "=" }, term.value)
}

/// `5 of pool phone have os=android`.
fn had(need: &Need, count: usize, passed: &[String]) -> String {
    let with = if passed.is_empty() { String::new() } else { format!(" with {}", passed.join(",")) };
    format!("pool {} has {count}{with}", need.pool)
}

fn values_of(resources: &[&Resource], key: &Key) -> String {
    let values: std::collections::BTreeSet<Value> = resources.iter().filter_map(|r| r.label(key.as_str())).collect();
    if values.is_empty() {
        String::new()
    } else {
        format!(" (there is {})", listed(values.iter().map(Value::to_string)))
    }
}

/// The first few, and how many more.
fn listed(items: impl ExactSizeIterator<Item = impl std::fmt::Display>) -> String {
    let more = items.len().saturating_sub(LISTED_MAX);
    let mut shown: Vec<String> = items.take(LISTED_MAX).map(|item| item.to_string()).collect();
    if more > 0 {
        shown.push(format!("{more} more"));
    }
    shown.join(", ")
}
