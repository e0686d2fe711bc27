//! What an operator watches.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// One label: what sort.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Sort {
    /// The sort.
    pub sort: String,
}

impl Sort {
    /// A label value.
    #[must_use]
    pub fn of(sort: impl Into<String>) -> Self {
        Self { sort: sort.into() }
    }
}

/// Counters and gauges of a node.
pub struct Metrics {
    registry: Registry,
    /// Changes refused, by reason.
    pub writes_refused: Family<Sort, Counter>,
    /// From submission to durable, seconds.
    pub commit_seconds: Histogram,
    /// HTTP answers, by status class.
    pub http_responses: Family<Sort, Counter>,
    /// Open MQTT connections.
    pub mqtt_connections: Gauge,
    /// MQTT publications taken in, by result.
    pub mqtt_publications: Family<Sort, Counter>,
    /// MQTT messages to subscribers that were dropped, by reason.
    pub mqtt_dropped: Family<Sort, Counter>,
    /// Notifications, by result.
    pub notifications: Family<Sort, Counter>,
    /// Notifications that wait.
    notifications_waiting: Gauge,
    /// How long ago that was recorded which the oldest waiting notification tells, seconds.
    notifications_lag_seconds: Gauge,
    /// Subscriptions whose last delivery failed.
    subscriptions_failing: Gauge,
    /// Questions to and from other cities, by direction and result.
    pub peer_questions: Family<Sort, Counter>,
    /// Backups, by result.
    pub backups: Family<Sort, Counter>,
    /// When the last backup of this run was complete, seconds since 1970; 0 if there was none.
    pub backup_last_success: Gauge,
    /// Bytes that it wrote.
    pub backup_last_bytes: Gauge,
    history_bytes: Family<Sort, Gauge>,
    history_rows: Family<Sort, Gauge>,
    entities: Gauge,
    changes: Gauge,
    syncs: Gauge,
    log_bytes: Gauge,
    recent_facts: Gauge,
    write_failed: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("conurb");
        macro_rules! register {
            ($name:literal, $help:literal, $metric:expr) => {{
                let metric = $metric;
                registry.register($name, $help, metric.clone());
                metric
            }};
        }
        Self {
            writes_refused: register!("writes_refused", "Changes refused, by reason", Family::default()),
            // 0.25 ms to about 2 s.
            commit_seconds: register!(
                "commit_seconds",
                "Time from submission to durable",
                Histogram::new(exponential_buckets(0.000_25, 2.0, 14))
            ),
            http_responses: register!("http_responses", "HTTP answers, by status class", Family::default()),
            mqtt_connections: register!("mqtt_connections", "Open MQTT connections", Gauge::default()),
            mqtt_publications: register!("mqtt_publications", "MQTT publications taken in, by result", Family::default()),
            mqtt_dropped: register!("mqtt_dropped", "MQTT messages to subscribers that were dropped", Family::default()),
            notifications: register!("notifications", "Notifications, by result", Family::default()),
            notifications_waiting: register!("notifications_waiting", "Notifications that wait for delivery", Gauge::default()),
            notifications_lag_seconds: register!(
                "notifications_lag_seconds",
                "Age of what the oldest waiting notification tells",
                Gauge::default()
            ),
            subscriptions_failing: register!("subscriptions_failing", "Subscriptions whose last delivery failed", Gauge::default()),
            peer_questions: register!("peer_questions", "Questions between cities, by direction and result", Family::default()),
            backups: register!("backups", "Backups made by this node, by result", Family::default()),
            backup_last_success: register!(
                "backup_last_success_timestamp_seconds",
                "When the last backup was complete, 0 if none was made since the start",
                Gauge::default()
            ),
            backup_last_bytes: register!("backup_last_bytes", "Bytes that the last backup wrote", Gauge::default()),
            history_bytes: register!("history_bytes", "Bytes of the history's files, by entity type", Family::default()),
            history_rows: register!("history_rows", "Rows in the history's files, by entity type", Family::default()),
            entities: register!("entities", "Entities now", Gauge::default()),
            changes: register!("changes_committed", "Changes committed since the start", Gauge::default()),
            syncs: register!("log_syncs", "Batches synced since the start", Gauge::default()),
            log_bytes: register!("log_bytes", "Bytes of log on disk", Gauge::default()),
            recent_facts: register!("history_recent_facts", "Facts of the history not yet in segments", Gauge::default()),
            write_failed: register!("write_failed", "1 if the last write could not be made durable", Gauge::default()),
            registry,
        }
    }
}

impl Metrics {
    /// Notes what the history takes: type, rows, bytes.
    pub fn set_history(&self, by_type: &[(entity::Iri, u64, u64)]) {
        self.history_bytes.clear();
        self.history_rows.clear();
        for (entity_type, rows, bytes) in by_type {
            let sort = Sort::of(entity_type.as_str());
            self.history_rows.get_or_create(&sort).set(i64::try_from(*rows).unwrap_or(i64::MAX));
            self.history_bytes.get_or_create(&sort).set(i64::try_from(*bytes).unwrap_or(i64::MAX));
        }
    }

    /// Notes what waits, subscription by subscription.
    pub(crate) fn note_waiting(&self, all: impl Iterator<Item = crate::DeliveryStatus>, now: entity::Instant) {
        let (mut n_waiting, mut lag_us, mut n_failing) = (0_i64, 0, 0);
        for status in all {
            n_waiting += i64::try_from(status.waiting).unwrap_or(i64::MAX);
            lag_us = lag_us.max(status.waiting_since.map_or(0, |since| now.micros_since(since)));
            n_failing += i64::from(status.last_error.is_some());
        }
        self.notifications_waiting.set(n_waiting);
        self.notifications_lag_seconds.set(lag_us / 1_000_000);
        self.subscriptions_failing.set(n_failing);
    }

    /// The OpenMetrics text.
    #[must_use]
    pub fn render(&self, stats: &store::Stats) -> String {
        let as_i64 = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.entities.set(as_i64(stats.n_entities as u64));
        self.changes.set(as_i64(stats.n_changes));
        self.syncs.set(as_i64(stats.n_batches));
        self.log_bytes.set(as_i64(stats.log_bytes));
        self.recent_facts.set(as_i64(stats.n_recent_facts as u64));
        self.write_failed.set(i64::from(stats.write_error.is_some()));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).expect("a String takes any text");
        text
    }
}
