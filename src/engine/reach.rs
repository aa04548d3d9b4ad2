//! What holders are told of resources whose provider goes or comes back, and providers of a successor.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::input::Notice;
use super::machine::Machine;
use crate::core::event::Event;
use crate::core::types::{LeaseId, ResourceId, SessionId};
use crate::protocol::call::{LeaseReach, ProviderSuperseded};

/// The resources of each lease that went the same way, with how.
type Reached = BTreeMap<(LeaseId, Option<Arc<str>>), Vec<String>>;

impl Machine {
    /// One notice for each lease of which resources went offline, or came back, in the events since
    /// `from`; and one for each provider that another session took over from.
    pub(super) fn reach_notices(&self, from: usize) -> Vec<(SessionId, Notice)> {
        let mut reached = Reached::new();
        let mut notices = Vec::new();
        let (now, now_time) = (self.clock.now.0, self.clock.now_time());
        for event in &self.broker.events()[from..] {
            match event {
                Event::ResourceOffline { resource, reason, .. } => {
                    self.reach(*resource, Some(reason.clone()), &mut reached);
                }
                Event::ResourceOnline { resource } => self.reach(*resource, None, &mut reached),
                Event::ProviderAttached { provider, from: Some(before), .. } => {
                    let name = provider.name.to_string();
                    let message = format!(
                        "provider {name} is now at {}, with the key of this one: a session that follows it took over",
                        provider.address
                    );
                    let superseded = ProviderSuperseded { name, message, now, now_time: now_time.clone() };
                    notices.push((*before, Notice::Superseded(superseded)));
                }
                _ => {}
            }
        }
        for ((lease, reason), resources) in reached {
            let Some(session) = self.broker.state().leases.get(&lease).map(|lease| lease.session) else { continue };
            let names = resources.join(", ");
            let message = match &reason {
                Some(reason) => format!("{names} went offline: {reason}; lease {lease} goes on"),
                None => format!("{names} of lease {lease} is online again"),
            };
            let reach = LeaseReach { lease: lease.0, resources, message, now, now_time: now_time.clone() };
            notices.push((session, if reason.is_some() { Notice::Offline(reach) } else { Notice::Online(reach) }));
        }
        notices
    }

    fn reach(&self, resource: ResourceId, reason: Option<Arc<str>>, reached: &mut Reached) {
        let Some(known) = self.broker.state().resources.get(&resource) else { return };
        for lease in &known.holders {
            // A holder knows it by the name under which it was given.
            let lease = self.broker.state().lease(*lease);
            let name = lease.picks.iter().find(|pick| pick.resource == resource).map(|pick| pick.name.to_string());
            reached.entry((lease.id, reason.clone())).or_default().extend(name);
        }
    }
}
