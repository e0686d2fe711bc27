//! Registering, and finding who may have what is asked for.

use std::sync::Arc;

use entity::registration::{Registration, Specification};
use entity::{Attribute, AttributeValue, Command, Entity, Iri};
use policy::{Action, Permit, Principal};
use store::state::{PageRequest, Space};
use tokio::sync::broadcast;

use super::{REGISTRATIONS_MAX, Registered, RegistryEvent};
use crate::error::NodeError;
use crate::node::{Node, OpenNodeError};

const REGISTRATION_TYPE: &str = "https://uri.etsi.org/ngsi-ld/ContextSourceRegistration";
const DOCUMENT: &str = "https://conurb.org/ns#document";

impl Node {
    /// Are there registrations at all? Nearly free; without any, nothing is distributed.
    #[must_use]
    pub fn has_registrations(&self) -> bool {
        self.registry.read().len() > 0
    }

    /// Registers a source; durable when this returns.
    ///
    /// Errors: the policy's; the id is taken; it lies in the past; it clashes with another registration or with this node's own entities
    /// (clause 5.9.2.4); there are [`REGISTRATIONS_MAX`] already.
    pub async fn register(&self, who: &Principal, registration: Registration) -> Result<Arc<Registered>, NodeError> {
        self.permit(who, Action::Write, None)?;
        let _one_at_a_time = self.registry.changing.lock().await;
        let known = self.registry.read().get(registration.id.as_str()).cloned();
        match known {
            Some(known) if known.registration.is_valid_at(self.now()) => return Err(NodeError::RegistrationExists { id: registration.id }),
            None if self.registry.read().len() >= REGISTRATIONS_MAX => {
                return Err(NodeError::Limit { what: format!("there are {REGISTRATIONS_MAX} registrations, which is the limit") });
            }
            _ => {}
        }
        let now = self.now();
        self.keep_registration(Registration { created_at: now, modified_at: now, ..registration }).await
    }

    /// Changes a registration: `change` makes the new one of the present one. Durable when this returns.
    ///
    /// Errors: those of `change` and of [`Node::register`]; there is none with this id.
    pub async fn update_registration<E: From<NodeError>>(
        &self,
        who: &Principal,
        id: &str,
        change: impl FnOnce(&Registration) -> Result<Registration, E>,
    ) -> Result<Arc<Registered>, E> {
        self.permit(who, Action::Write, None)?;
        let _one_at_a_time = self.registry.changing.lock().await;
        let present = self.valid_registration(id)?;
        let changed = change(&present.registration)?;
        let kept = Registration { id: present.registration.id.clone(), modified_at: self.now(), ..changed };
        Ok(self.keep_registration(kept).await?)
    }

    async fn keep_registration(&self, registration: Registration) -> Result<Arc<Registered>, NodeError> {
        if !registration.is_valid_at(self.now()) {
            return Err(NodeError::Invalid { what: "expiresAt: lies in the past".to_owned() });
        }
        self.check_clashes(&registration)?;
        let document = serde_json::to_value(&registration).expect("a registration is JSON");
        let stored = Entity::new(registration.id.clone(), Iri::known(REGISTRATION_TYPE))
            .with(Iri::known(DOCUMENT), Attribute::new(AttributeValue::Json(document)));
        self.submit(Space::Node, vec![Command::UpsertReplace(stored)])?.await?.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(self.registry.put(registration))
    }

    /// Proxied registrations exclude each other and this node's own data (clause 5.9.2.4).
    fn check_clashes(&self, registration: &Registration) -> Result<(), NodeError> {
        let clash = |what: String| Err(NodeError::RegistrationClash { id: registration.id.clone(), what });
        let now = self.now();
        let table = self.registry.read();
        let others = table.all().map(|r| &r.registration).filter(|r| r.id != registration.id && r.is_valid_at(now));
        if let Some(what) = others.into_iter().find_map(|other| registration.clash(other)) {
            return clash(what);
        }
        drop(table);
        let Some(filter) = registration.must_be_absent() else { return Ok(()) };
        let request =
            PageRequest { filter: &filter, offset: 0, limit: 1, count: false, after: None, order_by: None, text: None, now: Some(now) };
        match self.store.table(Space::City).try_page(&request)?.entities.first() {
            Some(own) => clash(format!("this node has entity `{}` itself", own.id)),
            None => Ok(()),
        }
    }

    /// Ends a registration.
    pub async fn unregister(&self, who: &Principal, id: &str) -> Result<(), NodeError> {
        self.permit(who, Action::Write, None)?;
        let _one_at_a_time = self.registry.changing.lock().await;
        let present = self.valid_registration(id)?;
        self.drop_registration(&present.registration.id).await
    }

    async fn drop_registration(&self, id: &Iri) -> Result<(), NodeError> {
        self.submit(Space::Node, vec![Command::Delete(id.clone())])?.await?;
        self.registry.remove(id);
        Ok(())
    }

    /// Removes the registrations whose time is over; how many there were.
    pub async fn remove_expired_registrations(&self) -> Result<usize, NodeError> {
        let now = self.now();
        let is_over = |r: &&Arc<Registered>| !r.registration.is_valid_at(now);
        let over: Vec<Iri> = self.registry.read().all().filter(is_over).map(|r| r.registration.id.clone()).collect();
        if over.is_empty() {
            return Ok(0);
        }
        let _one_at_a_time = self.registry.changing.lock().await;
        let mut n_removed = 0;
        for id in over {
            // It may have been registered anew meanwhile.
            if self.registry.read().get(id.as_str()).is_some_and(|r| is_over(&r)) {
                self.drop_registration(&id).await?;
                n_removed += 1;
            }
        }
        Ok(n_removed)
    }

    fn valid_registration(&self, id: &str) -> Result<Arc<Registered>, NodeError> {
        let found = self.registry.read().get(id).cloned();
        found.filter(|r| r.registration.is_valid_at(self.now())).ok_or_else(|| NodeError::NoRegistration { id: id.to_owned() })
    }

    /// One registration.
    pub fn registration(&self, who: &Principal, id: &str) -> Result<Arc<Registered>, NodeError> {
        self.permit(who, Action::Read, None)?;
        self.valid_registration(id)
    }

    /// Registrations that may hold what is asked for (clauses 5.10.2 and 5.12), ordered by id. None for who may see only what an agreement
    /// says: agreements are about this city's own data.
    pub fn sources(&self, who: &Principal, asked: &Specification) -> Result<Vec<Arc<Registered>>, NodeError> {
        if !matches!(self.permit(who, Action::Read, None)?, Permit::Everything) {
            return Ok(Vec::new());
        }
        let now = self.now();
        let mut found = self.registry.read().matching(asked);
        found.retain(|r| r.registration.is_valid_at(now));
        Ok(found)
    }

    /// What happens to registrations from now on.
    #[must_use]
    pub fn follow_registrations(&self) -> broadcast::Receiver<RegistryEvent> {
        self.registry.events.subscribe()
    }
}

/// Brings the stored registrations back to life.
pub(crate) fn load_registrations(node: &Node) -> Result<(), OpenNodeError> {
    for stored in node.store.table(Space::Node).of_type(&Iri::known(REGISTRATION_TYPE)) {
        if let Some(AttributeValue::Json(document)) = stored.attribute(DOCUMENT).map(|a| &a.value) {
            let registration = serde_json::from_value(document.clone())
                .map_err(|source| OpenNodeError::Registration { id: stored.id.to_string(), source })?;
            node.registry.put(registration);
        }
    }
    Ok(())
}
