//! Whether a claim can be satisfied by some slots: by trying everything, as nobody would who had
//! to be fast.
//!
//! Written without a look at the core's matching. It gives up after many steps and says so, and
//! whoever asks then takes nothing for granted.

use std::collections::BTreeMap;

use super::audit::Thing;
use crate::core::claim::ClaimSpec;
use crate::core::need::{Count, Need, Slots};
use crate::core::types::{Key, ResourceId, Value};

/// Steps before it gives up.
const STEPS_MAX: u32 = 20_000;

/// Slots that may be used, by resource.
pub(super) type Slotted = BTreeMap<ResourceId, u32>;

/// The things there are.
pub(super) type Things = BTreeMap<ResourceId, Thing>;

/// Whether a need could be met by this resource at all, if it is free.
pub(super) fn fits(need: &Need, thing: &Thing) -> bool {
    let spec = &thing.spec;
    let label = |key: &Key| match key.as_str() {
        "name" => Some(Value::Text(spec.name.as_str().into())),
        "pool" => Some(Value::Text(spec.pool.as_str().into())),
        _ => spec.labels.get(key).cloned(),
    };
    let terms = need.terms.iter().all(|term| match label(&term.key) {
        Some(Value::Text(text)) => (*text == *term.value) != term.negated,
        _ => false,
    });
    // The one expression that the workload has.
    let expression = match need.expression.as_deref() {
        None => true,
        Some("os == 'b'") => spec
            .labels
            .iter()
            .any(|(key, value)| key.as_str() == "os" && matches!(value, Value::Text(text) if **text == *"b")),
        Some(other) => unreachable!("the workload has no expression {other}"),
    };
    spec.pool == need.pool && terms && expression
}

/// How many slots of the resource the need takes.
pub(super) fn takes(need: &Need, thing: &Thing) -> u32 {
    match need.slots {
        Slots::Exactly(slots) => slots,
        Slots::All => thing.spec.slots,
    }
}

/// Whether these slots satisfy the claim; `None` where that would take too long to say.
pub(super) fn solvable(spec: &ClaimSpec, things: &Things, free: &Slotted) -> Option<bool> {
    let mut units = Vec::new();
    for (nth, need) in spec.needs.iter().enumerate() {
        let count = match need.count {
            Count::Exactly(count) => count as usize,
            Count::All => things.values().filter(|thing| thing.usable() && fits(need, thing)).count().max(1),
        };
        units.extend(std::iter::repeat_n(nth, count));
    }
    let mut search = Search { spec, things, units, steps: 0, values: Vec::new() };
    search.place(0, None, &mut free.clone())
}

struct Search<'a> {
    spec: &'a ClaimSpec,
    things: &'a Things,
    /// The need of each pick.
    units: Vec<usize>,
    steps: u32,
    /// The values of `same` or `distinct` so far.
    values: Vec<[Option<Value>; 2]>,
}

impl Search<'_> {
    /// Places the picks from `unit` on; those of one need in the order of their resources.
    fn place(&mut self, unit: usize, last: Option<ResourceId>, free: &mut Slotted) -> Option<bool> {
        let Some(nth) = self.units.get(unit).copied() else { return Some(true) };
        let need = &self.spec.needs[nth];
        let last = last.filter(|_| unit > 0 && self.units[unit - 1] == nth);
        let candidates: Vec<ResourceId> =
            free.keys().copied().filter(|id| last.is_none_or(|last| *id > last)).collect();
        for id in candidates {
            self.steps += 1;
            if self.steps > STEPS_MAX {
                return None;
            }
            let Some(thing) = self.things.get(&id) else { continue };
            let slots = takes(need, thing);
            if free[&id] < slots || !fits(need, thing) || !self.agrees(thing) {
                continue;
            }
            *free.get_mut(&id)? -= slots;
            let found = self.place(unit + 1, Some(id), free);
            *free.get_mut(&id)? += slots;
            self.values.pop();
            if found != Some(false) {
                return found;
            }
        }
        Some(false)
    }

    /// Whether the claim's constraints hold with this one too, which is noted if they do.
    fn agrees(&mut self, thing: &Thing) -> bool {
        let value = |key: &Option<Key>| key.as_ref().and_then(|key| thing.spec.labels.get(key).cloned());
        let (same, distinct) = (value(&self.spec.same), value(&self.spec.distinct));
        if self.spec.same.is_some() && (same.is_none() || self.values.iter().any(|had| had[0] != same)) {
            return false;
        }
        if self.spec.distinct.is_some() && (distinct.is_none() || self.values.iter().any(|had| had[1] == distinct)) {
            return false;
        }
        self.values.push([same, distinct]);
        true
    }
}
