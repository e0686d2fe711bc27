//! Delivery of notifications over HTTP (ETSI GS CIM 009 V1.9.1, clauses 5.8.6 and 6.3.8).
//!
//! One task takes notifications from the node and gives each endpoint's deliveries, in order, to a task of its own with a bounded queue:
//! a slow endpoint holds up nobody else. A failed delivery is tried again [`ATTEMPTS_MAX`] times; what is given up is counted and shown in the
//! subscription. Queues do not survive a restart yet.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use entity::Iri;
use ngsi::decode::NotificationFormat;
use ngsi::encode::{self, Change, Document, NotificationBody};
use node::{Notification, Sort};
use tokio::sync::{mpsc, watch};

use crate::ngsi_ld::subscriptions::stored;
use crate::{App, chain};

/// Notifications between the node and this task.
const WAITING_MAX: usize = 4_096;
/// Notifications of one subscription that may wait.
const WAITING_PER_SUBSCRIPTION_MAX: usize = 1_024;
/// How often a delivery is tried.
const ATTEMPTS_MAX: u32 = 3;
/// The pause after the first failure; it doubles.
const RETRY_WAIT: Duration = Duration::from_millis(500);
/// How long an endpoint may take if the subscription does not say.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// Delivers until `stop` turns true.
pub async fn deliver(app: Arc<App>, mut stop: watch::Receiver<bool>) {
    app.contexts.restore(&app.node);
    let (sender, mut inbox) = mpsc::channel(WAITING_MAX);
    app.node.deliver_notifications_to(sender);
    let mut endpoints: HashMap<String, mpsc::Sender<Notification>> = HashMap::new();
    loop {
        let notification = tokio::select! {
            n = inbox.recv() => n,
            _ = stop.wait_for(|s| *s) => None,
        };
        let Some(notification) = notification else { return };
        endpoints.retain(|_, s| !s.is_closed());
        let id = notification.subscription.id.clone();
        let sender = endpoints.entry(id.clone()).or_insert_with(|| {
            let (sender, inbox) = mpsc::channel(WAITING_PER_SUBSCRIPTION_MAX);
            tokio::spawn(deliver_in_order(Arc::clone(&app), inbox));
            sender
        });
        if sender.try_send(notification).is_err() {
            give_up(&app, &id, "the endpoint takes notifications more slowly than they arise");
        }
    }
}

fn give_up(app: &App, id: &str, reason: &str) {
    tracing::warn!(subscription = id, reason, "notification given up");
    app.node.metrics().notifications.get_or_create(&Sort::of("dropped")).inc();
    app.node.note_delivery(id, |s| {
        s.dropped += 1;
        s.last_error = Some(reason.to_owned());
    });
}

/// An idle subscription's task ends after a while.
const IDLE: Duration = Duration::from_secs(60);

async fn deliver_in_order(app: Arc<App>, mut inbox: mpsc::Receiver<Notification>) {
    while let Ok(Some(notification)) = tokio::time::timeout(IDLE, inbox.recv()).await {
        deliver_one(&app, &notification).await;
    }
    // What slipped in while ending is still delivered.
    inbox.close();
    while let Some(notification) = inbox.recv().await {
        deliver_one(&app, &notification).await;
    }
}

async fn deliver_one(app: &App, notification: &Notification) {
    let id = &notification.subscription.id;
    let mut pause = RETRY_WAIT;
    for attempt in 1..=ATTEMPTS_MAX {
        let outcome = post(app, notification).await;
        let now = app.node.now();
        app.node.note_delivery(id, |s| {
            s.times_sent += 1;
            s.last_notification = Some(now);
            match &outcome {
                Ok(()) => {
                    s.last_success = Some(now);
                    s.last_error = None;
                }
                Err(e) => {
                    s.times_failed += 1;
                    s.last_failure = Some(now);
                    s.last_error = Some(e.clone());
                }
            }
        });
        let sort = if outcome.is_ok() { "sent" } else { "failed" };
        app.node.metrics().notifications.get_or_create(&Sort::of(sort)).inc();
        match outcome {
            Ok(()) => return,
            Err(_) if attempt < ATTEMPTS_MAX => {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            Err(e) => give_up(app, id, &e),
        }
    }
}

async fn post(app: &App, notification: &Notification) -> Result<(), String> {
    let wished = stored(&notification.subscription).map_err(|p| p.detail)?;
    app.contexts.prepare(&wished.context).await.map_err(|p| p.detail)?;
    let context = app.contexts.store().resolve(&wished.context).map_err(|e| e.to_string())?;
    let document = match wished.notification.endpoint.accept {
        NotificationFormat::Json => Document::Json,
        NotificationFormat::LdJson => Document::LdJson,
        NotificationFormat::GeoJson => Document::GeoJson,
    };
    let body = body_of(app, notification, &wished, &context, document)?;
    let endpoint = &wished.notification.endpoint;
    // Checked again: the name may point elsewhere by now, and the node may have been restarted without --dev.
    let url = app.outbound.check(&endpoint.uri).map_err(|e| e.to_string())?;
    let timeout = endpoint.timeout_ms.map_or(ANSWER_WAIT, Duration::from_millis);
    let mut request = app.outbound.client().post(url).timeout(timeout).header("content-type", endpoint.accept.media_type()).body(body);
    if document == Document::Json {
        let target = app.contexts.link(&context, &format!("http://{}", app.addresses.http));
        request = request.header("link", format!("<{target}>; rel=\"http://www.w3.org/ns/json-ld#context\"; type=\"application/ld+json\""));
    }
    for pair in &endpoint.receiver_info {
        request = request.header(&pair.key, &pair.value);
    }
    let response = request.send().await.map_err(|e| chain(&e))?;
    if response.status().is_success() { Ok(()) } else { Err(format!("the endpoint answered {}", response.status())) }
}

fn body_of(
    app: &App,
    n: &Notification,
    wished: &ngsi::decode::Subscription,
    context: &ngsi::Context,
    document: Document,
) -> Result<Vec<u8>, String> {
    let view = wished.view();
    let present = n.entities.iter().map(|(now, before)| Change::Present {
        entity: now,
        before: before.as_deref(),
        removed: removed(now, before.as_deref()),
    });
    let deleted = n.deleted.iter().map(|(entity, at)| Change::Deleted { entity, at: *at });
    let data: Vec<_> = present.chain(deleted).collect();
    let subscription_id: Iri = n.subscription.id.parse().map_err(|e: entity::IriError| e.to_string())?;
    let body = NotificationBody {
        id: &Iri::known(&format!("urn:ngsi-ld:Notification:{}", host::random_hex::<12>())),
        subscription_id: &subscription_id,
        notified_at: app.node.now(),
        data: &data,
        show_changes: wished.notification.show_changes,
    };
    Ok(encode::notification(&body, &view, context, document))
}

/// Attribute instances that the change took away.
fn removed<'a>(now: &entity::Entity, before: Option<&'a entity::Entity>) -> Vec<(&'a Iri, &'a entity::Attribute)> {
    let all = before.into_iter().flat_map(|b| &b.attributes).flat_map(|(name, list)| list.iter().map(move |i| (name, i)));
    all.filter(|(name, i)| now.instance(name.as_str(), i.dataset_id.as_ref()).is_none()).collect()
}
