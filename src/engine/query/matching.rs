//! Which resources match a need, which are free, and why the others are not: what a person asks
//! before queueing, and what `why` counts.

use super::listing::{LOOKS_MAX, Part, by_name};
use super::told::terms_hold;
use crate::core::cel::Program;
use crate::core::inventory::{Pending, Resource};
use crate::core::need::{Need, Slots};
use crate::core::refusal::{Code, Refusal};
use crate::core::spelling::nearest;
use crate::core::state::State;
use crate::core::types::LabTime;
use crate::engine::view::View;
use crate::protocol::info::{MatchInfo, Page};
use crate::units::show_duration_ms;

/// A need, ready to be held against resources.
#[derive(Debug)]
pub struct Asked {
    need: Need,
    program: Option<Program>,
}

/// What a pool has for a need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Resources in the pool, as far as looked at.
    pub members: usize,
    /// Those that match.
    pub matching: usize,
    /// Matching ones that could be given now.
    pub free: usize,
    /// Matching ones that are held.
    pub held: usize,
    /// Matching ones that nobody holds and that cool.
    pub cooling: usize,
    /// Matching ones that are drained, offline, quarantined or going.
    pub out: usize,
}

impl Asked {
    /// Takes a need with its expression compiled.
    ///
    /// # Errors
    /// `invalid_need`, where the expression cannot be read.
    pub fn new(need: Need) -> Result<Self, Refusal> {
        let program = need.expression.as_deref().map(Program::parse).transpose().map_err(|problem| {
            let message = format!("the expression of `{}` cannot be read: {problem}", need.shown());
            Refusal::new(Code::InvalidNeed, message)
        })?;
        Ok(Self { need, program })
    }

    /// Resources that one page may look at: evaluating an expression is the dear part.
    pub(super) fn looks_max(&self) -> usize {
        if self.program.is_some() { LOOKS_MAX / 10 } else { LOOKS_MAX }
    }

    /// Why a resource can never be given for it, as it is; `None` when it matches.
    pub(super) fn mismatch(&self, resource: &Resource) -> Option<String> {
        let spec = &resource.spec;
        if spec.pool != self.need.pool {
            return Some(format!("it is in the pool {}", spec.pool));
        }
        for term in &self.need.terms {
            match resource.label(term.key.as_str()) {
                None => return Some(format!("it has no label {}", term.key)),
                Some(value) if !term.accepts(&value) => return Some(format!("its {} is {value}", term.key)),
                Some(_) => {}
            }
        }
        if let Slots::Exactly(slots) = self.need.slots
            && spec.slots < slots
        {
            return Some(format!("it has {} slots", spec.slots));
        }
        let program = self.program.as_ref()?;
        if program.holds(resource) {
            return None;
        }
        // Which labels an expression misses is most often why it does not hold.
        let missing = program.variables().find(|name| resource.label(name).is_none());
        Some(
            missing.map_or_else(
                || "the expression is not true of it".to_owned(),
                |name| format!("it has no label {name}"),
            ),
        )
    }

    /// Why a resource that matches cannot be given now; `None` when it can.
    fn hindrance(&self, state: &State, resource: &Resource, now: LabTime) -> Option<String> {
        if let Some(mark) = &resource.marks.quarantined {
            return Some(format!("it is quarantined by {}: {}", mark.by, mark.reason));
        }
        if let Some(mark) = &resource.marks.drained {
            return Some(format!("it is drained by {}: {}", mark.by, mark.reason));
        }
        if let Some(mark) = &resource.marks.offline {
            return Some(format!("it is offline: {}", mark.reason));
        }
        match &resource.pending {
            Some(Pending::Change(_)) => return Some("a change of it waits for its holders".to_owned()),
            Some(Pending::Removal) => return Some("it is removed when its holders are done".to_owned()),
            None => {}
        }
        let enough = match self.need.slots {
            Slots::Exactly(slots) => resource.slots_free() >= slots,
            Slots::All => resource.slots_free() == resource.spec.slots,
        };
        if enough {
            return None;
        }
        if let (true, Some(last)) = (resource.holders.is_empty(), resource.cooling.last()) {
            return Some(format!("it cools for {} more after its last lease", show_duration_ms(last.until.since(now))));
        }
        let holder = resource.holders.iter().find_map(|id| state.leases.get(id));
        Some(holder.map_or_else(
            || format!("{} of its slots are free", resource.slots_free()),
            |lease| match resource.holders.len() {
                1 => format!("it is held by {} (lease {})", lease.owner, lease.id),
                more => format!("it is held by {more} leases, such as {} of {}", lease.id, lease.owner),
            },
        ))
    }
}

/// How every resource of a need's pool stands to it, by name.
///
/// # Errors
/// `not_found`, when there is no such pool.
pub fn matches(view: &View<'_>, asked: &Asked, part: &Part) -> Result<Page<MatchInfo>, Refusal> {
    let pool = &asked.need.pool;
    if !view.state.pools.contains_key(pool) {
        return Err(no_pool(view.state, pool.as_str()));
    }
    Ok(by_name(view, part, asked.looks_max(), |resource| {
        (resource.spec.pool == *pool).then(|| {
            let mismatch = asked.mismatch(resource);
            let matches = mismatch.is_none();
            let reason = mismatch.or_else(|| asked.hindrance(view.state, resource, view.clock.now));
            MatchInfo { name: resource.spec.name.to_string(), matches, free: reason.is_none(), reason }
        })
    }))
}

/// There is no such pool; the nearest name is proposed.
pub(super) fn no_pool(state: &State, name: &str) -> Refusal {
    let near = nearest(name, state.pools.keys().map(crate::core::types::Key::as_str));
    let hint =
        near.map_or_else(|| "`leasehold status` lists the pools".to_owned(), |near| format!("did you mean {near}?"));
    Refusal::new(Code::NotFound, format!("there is no pool {name}: {hint}"))
}

/// What the pool has for a need, within the bounds of a page.
pub(super) fn tally(state: &State, need: &Need) -> Tally {
    let mut tally = Tally::default();
    let (Some(pool), Ok(asked)) = (state.pools.get(&need.pool), Asked::new(need.clone())) else { return tally };
    for resource in pool.members.iter().take(asked.looks_max()).filter_map(|id| state.resources.get(id)) {
        tally.members += 1;
        if !terms_hold(need, resource) || asked.mismatch(resource).is_some() {
            continue;
        }
        tally.matching += 1;
        if !resource.is_grantable() {
            tally.out += 1;
        } else if asked.hindrance(state, resource, LabTime::default()).is_none() {
            tally.free += 1;
        } else if resource.holders.is_empty() && !resource.cooling.is_empty() {
            tally.cooling += 1;
        } else {
            tally.held += 1;
        }
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::super::books::{books, view};
    use super::{Asked, Need, Part, Tally, matches, tally};

    fn asked(text: &str) -> Asked {
        Asked::new(Need::parse(text).unwrap()).unwrap()
    }

    #[test]
    fn each_resource_says_why_not() {
        let state = books();
        let view = view(&state);
        let all = Part { after: None, limit: 10 };
        let table = [
            ("phone", [(true, true, None), (true, false, Some("it is held by max@lab (lease 1)"))]),
            ("phone,os=ios", [(true, true, None), (false, false, Some("its os is android"))]),
            ("phone,api=3", [(false, false, Some("it has no label api")), (false, false, Some("it has no label api"))]),
            ("phone where os == 'ios'", [(true, true, None), (false, false, Some("the expression is not true of it"))]),
            ("phone/3", [(false, false, Some("it has 1 slots")), (false, false, Some("it has 1 slots"))]),
        ];
        for (need, expected) in table {
            let page = matches(&view, &asked(need), &all).unwrap();
            let got: Vec<_> = page.items.iter().map(|info| (info.matches, info.free, info.reason.as_deref())).collect();
            assert_eq!(got, expected, "{need}");
        }
        let refusal = matches(&view, &asked("phones"), &all).unwrap_err();
        assert!(refusal.message.contains("did you mean phone?"), "{refusal}");
    }

    #[test]
    fn a_tally_counts_what_matches_by_how_it_stands() {
        let state = books();
        let expected = Tally { members: 2, matching: 1, free: 0, held: 1, cooling: 0, out: 0 };
        assert_eq!(tally(&state, &Need::parse("phone,os=android").unwrap()), expected);
    }
}
