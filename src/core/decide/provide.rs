//! Sessions that bring resources with them: whose name it is, what they bring, and what becomes of
//! it when they go.
//!
//! The rule of names: a name belongs to the session that provides under it, for as long as that
//! lives. Only who has the provider's own key takes it over, which is its successor: it shows that
//! the predecessor's process is gone, as that held the key alone.

use std::sync::Arc;

use crate::core::apply::{self, Declared, Options};
use crate::core::broker::Broker;
use crate::core::command::Reply;
use crate::core::event::Event;
use crate::core::inventory::{Origin, Pool};
use crate::core::refusal::{Code, Refusal};
use crate::core::session::{Provider, SessionEnd};
use crate::core::types::{LabTime, ProviderName, ResourceId, SessionId};
use crate::units::show_duration_ms;

impl Broker {
    /// Makes the provider's part of the inventory what it brings, and brings it online.
    pub(in crate::core) fn provide(
        &mut self,
        now: LabTime,
        session: SessionId,
        provider: Provider,
        declared: &Declared,
        confirmed: bool,
    ) -> Reply {
        let from = match self.may_provide(session, &provider) {
            Ok(from) => from,
            Err(refusal) => return Reply::Refused(refusal),
        };
        let origin = Origin::Provider(provider.name.clone());
        let own = match of_provider(declared) {
            Ok(own) => own,
            Err(refusal) => return Reply::Refused(refusal),
        };
        let plan = match apply::plan(&self.state, &own, &origin, &Options { prune: true, confirmed }) {
            Ok(plan) => plan,
            Err(refusal) => return Reply::Refused(refusal),
        };
        if self.state.sessions[&session].provides.as_ref() != Some(&provider) {
            self.emit(now, Event::ProviderAttached { session, provider: provider.clone(), from });
        }
        let reply = self.carry_out(now, Ok(plan), false);
        for resource in self.brought_by(&provider.name, |offline| offline) {
            self.emit(now, Event::ResourceOnline { resource });
        }
        reply
    }

    /// Whether the session may provide so; answers whom it takes over from.
    fn may_provide(&self, session: SessionId, provider: &Provider) -> Result<Option<SessionId>, Refusal> {
        let name = &provider.name;
        let Some(known) = self.state.sessions.get(&session) else {
            return Err(Refusal::new(Code::SessionGone, format!("there is no open session {session}: open a new one")));
        };
        if let Some(by) = &known.kicked_by {
            let message = format!("session {session} is being ended by {by}: open a new one");
            return Err(Refusal::new(Code::Forbidden, message));
        }
        if let Some(own) = known.provides.as_ref().filter(|own| own.name != *name) {
            let message =
                format!("the session provides as {} already: use another session to provide as {name}", own.name);
            return Err(Refusal::new(Code::InvalidParams, message));
        }
        let other = self.state.providers.get(name).copied().filter(|other| *other != session);
        let Some((other, theirs)) =
            other.and_then(|other| Some((other, self.state.sessions[&other].provides.as_ref()?)))
        else {
            return Ok(None);
        };
        if theirs.key == provider.key {
            return Ok(Some(other));
        }
        let message = format!(
            "provider {name} is there already, at {} (session {other}), and you are at {}: stop that one, wait until \
             its ttl is over, or provide under another name (--name)",
            theirs.address, provider.address
        );
        Err(Refusal::new(Code::ProviderTaken, message))
    }

    /// A session is ending: what it brings goes offline.
    pub(super) fn provider_gone(&mut self, now: LabTime, session: SessionId, end: &SessionEnd) {
        let Some(known) = self.state.sessions.get(&session) else { return };
        let Some(provider) = known.provides.clone() else { return };
        let name = &provider.name;
        let mut who: Arc<str> = "broker".into();
        let reason: Arc<str> = match end {
            SessionEnd::Closed => format!("provider {name} has left").into(),
            SessionEnd::Expired => {
                let ttl = show_duration_ms(known.promise_ms.unwrap_or(0).max(known.ttl_ms));
                format!("provider {name} was not heard of for {ttl}").into()
            }
            SessionEnd::Kicked { by } => {
                who = by.clone();
                format!("the session of provider {name} was ended by {by}").into()
            }
            SessionEnd::Moved => format!("provider {name} has not come back since the store was moved").into(),
        };
        for resource in self.brought_by(name, |offline| !offline) {
            self.emit(now, Event::ResourceOffline { resource, reason: reason.clone(), by: who.clone() });
        }
    }

    /// The provider's resources that are offline, or not.
    fn brought_by(&self, name: &ProviderName, which: impl Fn(bool) -> bool) -> Vec<ResourceId> {
        let own = self.state.resources.values().filter(|resource| {
            matches!(&resource.origin, Origin::Provider(of) if of == name) && which(resource.marks.offline.is_some())
        });
        own.map(|resource| resource.id).collect()
    }
}

/// What a provider may declare: resources. Policies are the lab's, and secrets are read where the
/// broker runs, which is no provider's to name.
fn of_provider(declared: &Declared) -> Result<Declared, Refusal> {
    if let Some(pool) = declared.pools.iter().find(|pool| **pool != Pool::named(pool.name.clone())) {
        let message = format!(
            "a provider cannot give pool \"{}\" a policy: that belongs to the lab, in the broker's inventory file",
            pool.name
        );
        return Err(Refusal::new(Code::InvalidInventory, message));
    }
    if let Some(resource) = declared.resources.iter().find(|resource| !resource.spec.secrets.is_empty()) {
        let message = format!(
            "resource \"{}\" has secrets: a provider's resources cannot have any in this version, as the broker reads \
             them on its own machine",
            resource.spec.name
        );
        return Err(Refusal::new(Code::NotInThisVersion, message));
    }
    Ok(Declared { pools: Vec::new(), resources: declared.resources.clone() })
}
