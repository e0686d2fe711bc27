//! What is the same for all notifications of a subscription, prepared once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use entity::{Attribute, Entity, Iri};
use ngsi::Context;
use ngsi::decode::NotificationFormat;
use ngsi::encode::{self, Change, Document, NotificationBody};
use ngsi::forward::downgraded;
use ngsi::{JoinStyle, View};
use node::{Notification, Subscription};
use policy::Principal;

use super::http::HttpTarget;
use super::mqtt::MqttTarget;
use super::{Failure, FailureSort, Links};
use crate::ngsi_ld::subscriptions::stored;
use crate::{App, chain};

/// How long an endpoint may take if the subscription does not say.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// How notifications of a subscription look, and where they go.
pub(super) struct Plan {
    id: Iri,
    view: View,
    context: Arc<Context>,
    document: Document,
    show_changes: bool,
    /// The version of the standard that the receiver understands.
    conformance: Option<(u32, u32)>,
    /// After a failure nothing is sent for so long.
    pub(super) cooldown: Duration,
    timeout: Duration,
    target: Target,
}

enum Target {
    Http(HttpTarget),
    Mqtt(MqttTarget),
}

impl Plan {
    /// Errors: the context cannot be had, or the endpoint must not be called; in words for the subscription's owner.
    pub(super) async fn new(app: &App, subscription: &Subscription) -> Result<Self, String> {
        let wished = stored(subscription).map_err(|p| p.detail)?;
        app.contexts.prepare(&wished.context).await.map_err(|p| p.detail)?;
        let context = app.contexts.store().resolve(&wished.context).map_err(|e| e.to_string())?;
        let endpoint = &wished.notification.endpoint;
        let document = match endpoint.accept {
            NotificationFormat::Json => Document::Json,
            NotificationFormat::LdJson => Document::LdJson,
            NotificationFormat::GeoJson if prefers_link(endpoint) => Document::GeoJsonLink,
            NotificationFormat::GeoJson => Document::GeoJson,
        };
        let link = match document {
            Document::Json | Document::GeoJsonLink => {
                let url = app.contexts.link(&context, app.sources.public_url().trim_end_matches('/'));
                Some(format!("<{url}>; rel=\"http://www.w3.org/ns/json-ld#context\"; type=\"application/ld+json\""))
            }
            Document::LdJson | Document::GeoJson => None,
        };
        // Headers and metadata of our own: the context, and in which tenant and snapshot the subscription was made (clause 6.3.8).
        let own = [
            ("Link", link.as_deref()),
            ("NGSILD-Tenant", app.tenant.as_ref().map(|t| t.as_str())),
            ("NGSILD-Snapshot", app.snapshot.as_ref().map(Iri::as_str)),
        ];
        let own: Vec<(&str, &str)> = own.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        let timeout = endpoint.timeout_ms.map_or(ANSWER_WAIT, Duration::from_millis);
        // Checked again: the node may have been restarted with another configuration.
        let url = app.outbound.check_endpoint(&endpoint.uri).map_err(|e| e.to_string())?;
        let target = match url.scheme() {
            "mqtt" | "mqtts" => Target::Mqtt(MqttTarget::new(&url, endpoint, &own)?),
            _ => Target::Http(HttpTarget::new(url, endpoint, &own)?),
        };
        Ok(Self {
            id: subscription.id.parse().map_err(|e: entity::IriError| e.to_string())?,
            view: wished.view(),
            context,
            document,
            show_changes: wished.notification.show_changes,
            conformance: wished.conformance,
            cooldown: endpoint.cooldown_ms.map_or(Duration::ZERO, Duration::from_millis),
            timeout,
            target,
        })
    }

    /// The bytes of a notification.
    ///
    /// Errors: the entities are linked to more than one answer may hold, or what they are linked to cannot be read.
    pub(super) fn body(&self, app: &App, n: &Notification) -> Result<Vec<u8>, String> {
        match self.conformance {
            None => self.body_of(app, n),
            Some(version) => {
                let older = |e: &Arc<Entity>| Arc::new(downgraded((**e).clone(), version));
                let mut n = n.clone();
                n.entities.iter_mut().for_each(|(now, before)| (*now, *before) = (older(now), before.as_ref().map(older)));
                n.deleted.iter_mut().for_each(|(gone, _)| *gone = older(gone));
                self.body_of(app, &n)
            }
        }
    }

    fn body_of(&self, app: &App, n: &Notification) -> Result<Vec<u8>, String> {
        let present = n.entities.iter().map(|(now, before)| {
            let before = before.as_deref();
            Change::Present { entity: now, before, removed: removed(now, before) }
        });
        let deleted = n.deleted.iter().map(|(entity, at)| Change::Deleted { entity, at: *at });
        let data: Vec<_> = present.chain(deleted).collect();
        let body = NotificationBody {
            id: &Iri::known(&n.id(self.id.as_str())),
            subscription_id: &self.id,
            notified_at: app.node.now(),
            data: &data,
            show_changes: self.show_changes,
        };
        let Some(join) = &self.view.join else {
            return Ok(encode::notification(&body, &self.view, &self.context, self.document));
        };
        let from: Vec<Arc<Entity>> = n.entities.iter().map(|(e, _)| Arc::clone(e)).collect();
        // Whoever may subscribe is told of everything.
        let who = Principal::Operator { name: "subscriptions".to_owned() };
        let follows = |name: &Iri| self.view.shows_attribute(name);
        let found = app.node.linked(&who, &from, join.levels, &follows).map_err(|e| chain(&e))?;
        let linked: HashMap<Iri, Arc<Entity>> = found
            .iter()
            .map(|(id, l)| match self.conformance {
                Some(version) => (id.clone(), Arc::new(downgraded((*l.entity).clone(), version))),
                None => (id.clone(), Arc::clone(&l.entity)),
            })
            .collect();
        let is_told = |id: &Iri| from.iter().any(|e| e.id == *id);
        let behind: Vec<(&Entity, View)> = found
            .iter()
            .filter(|(id, _)| join.style == JoinStyle::Flat && !is_told(id))
            .map(|(id, l)| (linked[id].as_ref(), l.via.iter().fold(self.view.clone(), |view, name| view.of_linked(name))))
            .collect();
        Ok(encode::joined_notification(&body, &Linked(&linked), &behind, &self.view, &self.context, self.document))
    }

    /// Brings it to the endpoint.
    pub(super) async fn send(&self, app: &App, links: &Links, body: Vec<u8>) -> Result<(), Failure> {
        let send = async {
            match &self.target {
                Target::Http(target) => target.send(app, &links.http, body).await,
                Target::Mqtt(target) => target.send(app, &links.mqtt, &body).await,
            }
        };
        let late = || Failure::new(FailureSort::Down, format!("timed out: no answer within {} ms", self.timeout.as_millis()));
        tokio::time::timeout(self.timeout, send).await.unwrap_or_else(|_| Err(late()))
    }
}

/// What the entities are linked to, for the encoder.
struct Linked<'a>(&'a HashMap<Iri, Arc<Entity>>);

impl encode::LinkedEntities for Linked<'_> {
    fn linked(&self, id: &Iri) -> Option<&Entity> {
        self.0.get(id).map(AsRef::as_ref)
    }
}

/// The receiver wants the context of features in the `Link` header (clause 6.3.8).
fn prefers_link(endpoint: &ngsi::decode::Endpoint) -> bool {
    let is_wish = |p: &ngsi::decode::KeyValue| p.key.eq_ignore_ascii_case("prefer") && p.value.split(',').any(|v| v.trim() == "body=json");
    endpoint.receiver_info.iter().any(is_wish)
}

/// Attribute instances that the change took away.
fn removed<'a>(now: &Entity, before: Option<&'a Entity>) -> Vec<(&'a Iri, &'a Attribute)> {
    let all = before.into_iter().flat_map(|b| &b.attributes).flat_map(|(name, list)| list.iter().map(move |i| (name, i)));
    all.filter(|(name, i)| now.instance(name.as_str(), i.dataset_id.as_ref()).is_none()).collect()
}
