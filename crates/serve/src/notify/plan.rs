//! What is the same for all notifications of a subscription, prepared once.

use std::sync::Arc;
use std::time::Duration;

use entity::{Attribute, Entity, Instant, Iri};
use ngsi::Context;
use ngsi::View;
use ngsi::decode::NotificationFormat;
use ngsi::encode::{self, Change, Document, NotificationBody};
use node::{Notification, Subscription};

use super::http::HttpTarget;
use super::mqtt::MqttTarget;
use super::{Failure, FailureSort, Links};
use crate::App;
use crate::ngsi_ld::subscriptions::stored;

/// How long an endpoint may take if the subscription does not say.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// How notifications of a subscription look, and where they go.
pub(super) struct Plan {
    id: Iri,
    view: View,
    context: Arc<Context>,
    document: Document,
    show_changes: bool,
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
        let timeout = endpoint.timeout_ms.map_or(ANSWER_WAIT, Duration::from_millis);
        // Checked again: the node may have been restarted with another configuration.
        let url = app.outbound.check_endpoint(&endpoint.uri).map_err(|e| e.to_string())?;
        let target = match url.scheme() {
            "mqtt" | "mqtts" => Target::Mqtt(MqttTarget::new(&url, endpoint, link.as_deref())?),
            _ => Target::Http(HttpTarget::new(url, endpoint, link.as_deref())?),
        };
        Ok(Self {
            id: subscription.id.parse().map_err(|e: entity::IriError| e.to_string())?,
            view: wished.view(),
            context,
            document,
            show_changes: wished.notification.show_changes,
            cooldown: endpoint.cooldown_ms.map_or(Duration::ZERO, Duration::from_millis),
            timeout,
            target,
        })
    }

    /// The bytes of a notification.
    pub(super) fn body(&self, n: &Notification, now: Instant) -> Vec<u8> {
        let present = n.entities.iter().map(|(now, before)| {
            let before = before.as_deref();
            Change::Present { entity: now, before, removed: removed(now, before) }
        });
        let deleted = n.deleted.iter().map(|(entity, at)| Change::Deleted { entity, at: *at });
        let data: Vec<_> = present.chain(deleted).collect();
        let body = NotificationBody {
            id: &Iri::known(&n.id(self.id.as_str())),
            subscription_id: &self.id,
            notified_at: now,
            data: &data,
            show_changes: self.show_changes,
        };
        encode::notification(&body, &self.view, &self.context, self.document)
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
