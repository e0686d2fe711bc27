//! Who wants to be told of registrations (ETSI GS CIM 009 V1.9.1, clause 5.11): kept like subscriptions; matching and delivery are the edge's.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use entity::{Attribute, AttributeValue, Command, Entity, Iri};
use policy::{Action, Principal};
use serde_json::Value;
use store::state::Space;

use super::RegistryEvent;
use crate::error::NodeError;
use crate::node::{Node, OpenNodeError};
use crate::subscription::DeliveryStatus;

/// Registration subscriptions of a node.
pub const FOLLOWERS_MAX: usize = 1_000;

const FOLLOWER_TYPE: &str = "https://conurb.org/ns#RegistrationSubscription";
const DOCUMENT: &str = "https://conurb.org/ns#document";

/// A registration subscription: the edge's description, and how telling goes since the start.
#[derive(Debug)]
pub struct Follower {
    /// Its id.
    pub id: String,
    /// What the edge keeps.
    pub document: Value,
    status: Arc<Mutex<DeliveryStatus>>,
}

impl Follower {
    /// How telling goes.
    #[must_use]
    pub fn status(&self) -> DeliveryStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes how a delivery went.
    pub fn note(&self, note: impl FnOnce(&mut DeliveryStatus)) {
        note(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// By id.
#[derive(Default)]
pub(crate) struct Followers(RwLock<BTreeMap<String, Arc<Follower>>>);

impl Followers {
    fn get(&self, id: &str) -> Option<Arc<Follower>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    fn put(&self, id: String, document: Value) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let status = all.get(&id).map(|f| Arc::clone(&f.status)).unwrap_or_default();
        all.insert(id.clone(), Arc::new(Follower { id, document, status }));
    }

    fn all(&self) -> Vec<Arc<Follower>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

impl Node {
    /// Makes or (if `replace`) changes a registration subscription; durable when this returns.
    ///
    /// Errors: the policy's; the id is taken, or not known; there are [`FOLLOWERS_MAX`] already.
    pub async fn put_follower(&self, who: &Principal, id: &Iri, document: Value, replace: bool) -> Result<(), NodeError> {
        self.permit(who, Action::Write, None)?;
        let _one_at_a_time = self.registry.changing.lock().await;
        match self.registry.followers.get(id.as_str()) {
            Some(_) if !replace => return Err(NodeError::SubscriptionExists { id: id.to_string() }),
            None if replace => return Err(NodeError::NoSubscription { id: id.to_string() }),
            None if self.registry.followers.all().len() >= FOLLOWERS_MAX => {
                return Err(NodeError::Limit { what: format!("there are {FOLLOWERS_MAX} registration subscriptions, which is the limit") });
            }
            _ => {}
        }
        let stored = Entity::new(id.clone(), Iri::known(FOLLOWER_TYPE))
            .with(Iri::known(DOCUMENT), Attribute::new(AttributeValue::Json(document.clone())));
        self.submit(Space::Node, vec![Command::UpsertReplace(stored)])?.await?.into_iter().collect::<Result<Vec<_>, _>>()?;
        self.registry.followers.put(id.to_string(), document);
        // Nobody follows if this fails.
        let _ = self.registry.events.send(RegistryEvent::Subscribed(id.to_string()));
        Ok(())
    }

    /// Ends a registration subscription.
    pub async fn delete_follower(&self, who: &Principal, id: &str) -> Result<(), NodeError> {
        self.permit(who, Action::Write, None)?;
        let _one_at_a_time = self.registry.changing.lock().await;
        let missing = || NodeError::NoSubscription { id: id.to_owned() };
        self.registry.followers.get(id).ok_or_else(missing)?;
        let iri = id.parse().map_err(|_| missing())?;
        self.submit(Space::Node, vec![Command::Delete(iri)])?.await?;
        self.registry.followers.0.write().unwrap_or_else(PoisonError::into_inner).remove(id);
        Ok(())
    }

    /// One registration subscription.
    pub fn follower(&self, who: &Principal, id: &str) -> Result<Arc<Follower>, NodeError> {
        self.permit(who, Action::Read, None)?;
        self.registry.followers.get(id).ok_or_else(|| NodeError::NoSubscription { id: id.to_owned() })
    }

    /// All registration subscriptions, ordered by id.
    pub fn followers(&self, who: &Principal) -> Result<Vec<Arc<Follower>>, NodeError> {
        self.permit(who, Action::Read, None)?;
        Ok(self.registry.followers.all())
    }

    /// The same for who tells them.
    #[must_use]
    pub fn all_followers(&self) -> Vec<Arc<Follower>> {
        self.registry.followers.all()
    }
}

/// Brings the stored ones back to life.
pub(crate) fn load_followers(node: &Node) -> Result<(), OpenNodeError> {
    for stored in node.store.table(Space::Node).of_type(&Iri::known(FOLLOWER_TYPE)) {
        if let Some(AttributeValue::Json(document)) = stored.attribute(DOCUMENT).map(|a| &a.value) {
            node.registry.followers.put(stored.id.to_string(), document.clone());
        }
    }
    Ok(())
}
