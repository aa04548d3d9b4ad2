//! What an event names, for the columns by which people look in the journal.

use crate::core::event::Event;
use crate::core::types::{ClaimId, LeaseId, ResourceId, SessionId};

/// The things an event names, each where it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// A lease.
    pub lease: Option<LeaseId>,
    /// A claim.
    pub claim: Option<ClaimId>,
    /// A session.
    pub session: Option<SessionId>,
    /// A resource, but not those of a lease.
    pub resource: Option<ResourceId>,
}

/// What `event` names.
#[must_use]
pub fn names(event: &Event) -> Names {
    let none = Names::default();
    match event {
        Event::BrokerStarted { .. }
        | Event::StoreMoved { .. }
        | Event::PoolSet { .. }
        | Event::PoolRemoved { .. }
        | Event::KeyedForgotten { .. } => none,
        Event::ResourceAdded { resource, .. }
        | Event::ResourceChanged { resource, .. }
        | Event::ResourcePending { resource, .. }
        | Event::ResourceRemoved { resource }
        | Event::ResourceDrained { resource, .. }
        | Event::ResourceUndrained { resource, .. }
        | Event::ResourceQuarantined { resource, .. }
        | Event::ResourceRestored { resource, .. }
        | Event::ResourceOffline { resource, .. }
        | Event::ResourceOnline { resource }
        | Event::ResourceCooling { resource, .. }
        | Event::ResourceCooled { resource } => Names { resource: Some(*resource), ..none },
        Event::SessionOpened { session, .. }
        | Event::SessionPromised { session, .. }
        | Event::SessionKicked { session, .. }
        | Event::ProviderAttached { session, .. }
        | Event::SessionEnded { session, .. }
        | Event::RequestTombstoned { session, .. }
        | Event::RequestsForgotten { session, .. } => Names { session: Some(*session), ..none },
        Event::ClaimQueued { claim } => Names { claim: Some(claim.id), session: Some(claim.session), ..none },
        Event::ArrivalNoted { arrival } => Names { claim: Some(arrival.claim), ..none },
        Event::ArrivalForgotten { claim } => Names { claim: Some(*claim), ..none },
        Event::ClaimPinned { claim, .. } | Event::ClaimBlocked { claim, .. } => Names { claim: Some(*claim), ..none },
        Event::ClaimEnded { claim, session, .. } => Names { claim: Some(*claim), session: Some(*session), ..none },
        Event::LeaseGranted { lease } => {
            Names { lease: Some(lease.id), claim: Some(lease.claim), session: Some(lease.session), ..none }
        }
        Event::LeaseEnded { lease, session, .. } => Names { lease: Some(*lease), session: Some(*session), ..none },
        Event::LeaseExtended { lease, .. } | Event::LeaseEnding { lease, .. } | Event::PicksFreed { lease, .. } => {
            Names { lease: Some(*lease), ..none }
        }
    }
}
