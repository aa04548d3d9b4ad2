//! The inventory's changes: what a file or an admin declares, and what is said of a resource.

use std::sync::Arc;

use crate::core::apply::{self, Declared, Options, Plan};
use crate::core::broker::Broker;
use crate::core::command::{MarkAct, Reply};
use crate::core::event::Event;
use crate::core::inventory::{Origin, ResourceSpec};
use crate::core::refusal::{Code, Refusal};
use crate::core::spelling::nearest;
use crate::core::types::{LabTime, ResourceName};

impl Broker {
    pub(in crate::core) fn apply_inventory(
        &mut self,
        now: LabTime,
        declared: &Declared,
        prune: bool,
        confirmed: bool,
        dry_run: bool,
    ) -> Reply {
        let options = Options { prune, confirmed: confirmed || dry_run };
        let plan = apply::plan(&self.state, declared, &Origin::File, &options);
        self.carry_out(now, plan, dry_run)
    }

    pub(in crate::core) fn set_resource(&mut self, now: LabTime, spec: &Arc<ResourceSpec>) -> Reply {
        let plan = apply::set_one(&self.state, spec);
        self.carry_out(now, plan, false)
    }

    pub(in crate::core) fn remove_resource(&mut self, now: LabTime, name: &ResourceName) -> Reply {
        let plan = apply::remove_one(&self.state, name);
        self.carry_out(now, plan, false)
    }

    pub(super) fn carry_out(&mut self, now: LabTime, plan: Result<Plan, Refusal>, dry_run: bool) -> Reply {
        let plan = match plan {
            Ok(plan) => plan,
            Err(refusal) => return Reply::Refused(refusal),
        };
        if !dry_run {
            for event in plan.events {
                self.emit(now, event);
            }
        }
        Reply::Applied { changes: plan.changes, unchanged: plan.unchanged, applied: !dry_run }
    }

    pub(in crate::core) fn mark(
        &mut self,
        now: LabTime,
        name: &ResourceName,
        act: MarkAct,
        reason: Arc<str>,
        by: Arc<str>,
    ) -> Reply {
        let Some(resource) = self.state.names.get(name).copied() else {
            let near = nearest(name.as_str(), self.state.names.keys().map(ResourceName::as_str));
            let hint = near.map_or_else(String::new, |near| format!(": did you mean {near:?}?"));
            return Reply::Refused(Refusal::new(
                Code::NotFound,
                format!("there is no resource {:?}{hint}", name.as_str()),
            ));
        };
        let marks = &self.state.resource(resource).marks;
        let event = match act {
            MarkAct::Drain if marks.drained.is_none() => Event::ResourceDrained { resource, reason, by },
            MarkAct::Undrain if marks.drained.is_some() => Event::ResourceUndrained { resource, by },
            MarkAct::Quarantine if marks.quarantined.is_none() => Event::ResourceQuarantined { resource, reason, by },
            MarkAct::Restore if marks.quarantined.is_some() => Event::ResourceRestored { resource, by },
            _ => return Reply::Done,
        };
        self.emit(now, event);
        Reply::Done
    }
}
