//! What a snapshot is, as documents: read, kept in its folder, shown.

use entity::{Attribute, Entity, Filter, Instant, Iri};
use ngsi::query::{QOptions, lifetime_us, parse_q};
use ngsi::{Context, Error};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Queries;
use crate::problem::Problem;

/// How long a snapshot lives if nothing else is asked, and at most, µs.
const LIFETIME_US: i64 = 24 * 3600 * 1_000_000;
const LIFETIME_US_MAX: i64 = 31 * LIFETIME_US;

/// Queries of one snapshot.
const QUERIES_MAX: usize = 50;

/// The priority of a snapshot that says none (clause 5.2.41).
const PRIORITY: u64 = 5;
const PRIORITY_MAX: u64 = 10;

/// What a snapshot is (clause 5.2.41), with what has become of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Document {
    pub(super) id: Iri,
    pub(super) priority: u64,
    pub(super) lifetime: Option<String>,
    pub(super) endpoint: Option<String>,
    /// Headers for the endpoint.
    pub(super) receiver_info: Vec<(String, String)>,
    pub(super) queries: Queries,
    pub(super) temporal_queries: Queries,
    pub(super) status: Status,
    pub(super) details: Vec<Detail>,
    pub(super) temporal_details: Vec<Detail>,
    pub(super) created_at: Instant,
    pub(super) modified_at: Instant,
    pub(super) expires_at: Instant,
    pub(super) last_used_at: Option<Instant>,
}

/// How far a snapshot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Status {
    Preparing,
    Success,
    Partial,
    Empty,
    Failure,
}

/// What became of one query.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Detail {
    Success,
    Empty,
    Failure(String),
}

impl Detail {
    fn json(&self) -> Value {
        match self {
            Self::Success => json!({"resultStatus": "success"}),
            Self::Empty => json!({"resultStatus": "empty"}),
            Self::Failure(what) => json!({
                "resultStatus": "failure",
                "problemDetails": {"type": "https://uri.etsi.org/ngsi-ld/errors/InternalError", "title": "the query failed", "detail": what},
            }),
        }
    }
}

fn wrong(at: &str, what: impl std::fmt::Display) -> Problem {
    Problem::bad_data(format!("{at}: {what}"))
}

impl Document {
    /// Reads a new one; `with_queries`: it must have some, otherwise it may not.
    pub(super) fn read(value: Value, context: &Context, now: Instant, with_queries: bool) -> Result<Self, Problem> {
        let Value::Object(map) = value else { return Err(Problem::bad_data("expected a Snapshot (a JSON object)")) };
        let mut document = Self {
            id: Iri::known(&format!("urn:ngsi-ld:Snapshot:{}", host::random_hex::<12>())),
            priority: PRIORITY,
            lifetime: None,
            endpoint: None,
            receiver_info: Vec::new(),
            queries: Vec::new(),
            temporal_queries: Vec::new(),
            status: Status::Preparing,
            details: Vec::new(),
            temporal_details: Vec::new(),
            created_at: now,
            modified_at: now,
            expires_at: now.plus_micros(LIFETIME_US),
            last_used_at: None,
        };
        let kind = map.get("type").or_else(|| map.get("@type")).and_then(Value::as_str);
        if kind != Some("Snapshot") {
            return Err(wrong("type", "expected `Snapshot`"));
        }
        for (key, value) in &map {
            match key.as_str() {
                "id" | "@id" => {
                    let text = value.as_str().ok_or_else(|| wrong("id", "expected a URI"))?;
                    document.id = text.parse().map_err(|e: entity::IriError| wrong("id", e))?;
                }
                "snapshotQueries" if with_queries => document.queries = queries(key, value)?,
                "snapshotTemporalQueries" if with_queries => document.temporal_queries = queries(key, value)?,
                "snapshotQueries" | "snapshotTemporalQueries" => return Err(wrong(key, "a clone has the queries of its origin")),
                _ => document.set(key, value, now)?,
            }
        }
        if with_queries && document.queries.is_empty() && document.temporal_queries.is_empty() {
            return Err(Problem::bad_data("a snapshot needs snapshotQueries or snapshotTemporalQueries"));
        }
        // Names in the queries are those of this request, whenever they are run.
        for query in document.queries.iter_mut().chain(&mut document.temporal_queries) {
            if let Some(members) = query.as_object_mut() {
                members.insert("@context".to_owned(), context.json());
            }
        }
        Ok(document)
    }

    /// Sets one of the members that can also be changed later; those that only the node sets are passed over.
    fn set(&mut self, key: &str, value: &Value, now: Instant) -> Result<(), Problem> {
        const OUTPUT_ONLY: [&str; 10] = [
            "type",
            "@type",
            "@context",
            "snapshotStatus",
            "snapshotQueriesDetails",
            "snapshotTemporalQueriesDetails",
            "createdAt",
            "modifiedAt",
            "expiresAt",
            "lastUsedAt",
        ];
        let text = || value.as_str().ok_or_else(|| wrong(key, "expected a string"));
        match key {
            "snapshotLifetime" => {
                let lifetime = text()?;
                let us = lifetime_us(lifetime).map_err(|e: Error| wrong(key, e))?;
                self.expires_at = now.plus_micros(us.min(LIFETIME_US_MAX));
                self.lifetime = Some(lifetime.to_owned());
            }
            "snapshotPriority" => {
                let found = value.as_u64().filter(|p| (1..=PRIORITY_MAX).contains(p));
                self.priority = found.ok_or_else(|| wrong(key, format!("expected a whole number from 1 to {PRIORITY_MAX}")))?;
            }
            "endpoint" => {
                let uri = value.as_str().or_else(|| value.get("uri")?.as_str());
                self.endpoint = Some(uri.ok_or_else(|| wrong(key, "expected the URL that is told"))?.to_owned());
            }
            "receiverInfo" => {
                let pair = |item: &Value| Some((item.get("key")?.as_str()?.to_owned(), item.get("value")?.as_str()?.to_owned()));
                let pairs = value.as_array().and_then(|list| list.iter().map(pair).collect::<Option<Vec<_>>>());
                self.receiver_info = pairs.ok_or_else(|| wrong(key, "expected an array of objects with `key` and `value`"))?;
            }
            known if OUTPUT_ONLY.contains(&known) => {}
            other => {
                let known = "id, snapshotQueries, snapshotTemporalQueries, snapshotLifetime, snapshotPriority, endpoint, receiverInfo";
                return Err(wrong(other, format!("is not a member of a Snapshot (expected {known})")));
            }
        }
        Ok(())
    }

    /// As a patch changes it: its queries are what they are.
    pub(super) fn patched(mut self, patch: &Value, now: Instant) -> Result<Self, Problem> {
        let map = patch.as_object().ok_or_else(|| Problem::bad_data("expected a fragment of a Snapshot (a JSON object)"))?;
        for (key, value) in map {
            match key.as_str() {
                "id" | "@id" if value.as_str() == Some(self.id.as_str()) => {}
                "id" | "@id" => return Err(wrong("id", "the id of a snapshot cannot be changed")),
                "snapshotQueries" | "snapshotTemporalQueries" => {}
                _ => self.set(key, value, now)?,
            }
        }
        self.modified_at = now;
        Ok(self)
    }

    /// Takes what a patch can change.
    pub(super) fn take_settings_of(&mut self, other: &Self) {
        self.priority = other.priority;
        self.lifetime.clone_from(&other.lifetime);
        self.endpoint.clone_from(&other.endpoint);
        self.receiver_info.clone_from(&other.receiver_info);
        self.expires_at = other.expires_at;
        self.modified_at = other.modified_at;
    }

    pub(super) fn take_queries_of(&mut self, origin: &Self) {
        self.queries.clone_from(&origin.queries);
        self.temporal_queries.clone_from(&origin.temporal_queries);
        self.details.clone_from(&origin.details);
        self.temporal_details.clone_from(&origin.temporal_details);
    }

    /// The node stopped while it was filled.
    pub(super) fn interrupted(&mut self) {
        let n_missing = |list: &Queries, details: &[Detail]| list.len().saturating_sub(details.len());
        let stopped = || Detail::Failure("the node was stopped before the query was done".to_owned());
        self.details.extend((0..n_missing(&self.queries, &self.details)).map(|_| stopped()));
        self.temporal_details.extend((0..n_missing(&self.temporal_queries, &self.temporal_details)).map(|_| stopped()));
        self.finish(self.modified_at);
    }

    /// All queries are done (the statuses of digest 2.22, clause 5.16.1.4).
    pub(super) fn finish(&mut self, now: Instant) {
        let all: Vec<&Detail> = self.details.iter().chain(&self.temporal_details).collect();
        let (found, failed) = (all.contains(&&Detail::Success), all.iter().any(|d| matches!(d, Detail::Failure(_))));
        let empty = all.contains(&&Detail::Empty);
        self.status = match (found, failed, empty) {
            (true, false, false) => Status::Success,
            (true, ..) => Status::Partial,
            (false, _, true) => Status::Empty,
            (false, ..) => Status::Failure,
        };
        self.modified_at = now;
    }

    /// The same, gone: what expired before it is told of (clause 5.3.4).
    pub(super) fn gone(&self, now: Instant) -> Self {
        Self { expires_at: self.expires_at.min(now.plus_micros(-1)), modified_at: now, ..self.clone() }
    }

    pub(super) fn json(&self) -> Value {
        let plain = |queries: &Queries| -> Value {
            let without = |q: &Value| {
                let members = q.as_object().cloned().unwrap_or_default();
                Value::Object(members.into_iter().filter(|(k, _)| k != "@context").collect())
            };
            queries.iter().map(without).collect()
        };
        let mut map = self.told();
        map.insert("id".to_owned(), json!(self.id));
        map.insert("type".to_owned(), json!("Snapshot"));
        for (key, list) in [("snapshotQueries", &self.queries), ("snapshotTemporalQueries", &self.temporal_queries)] {
            if !list.is_empty() {
                map.insert(key.to_owned(), plain(list));
            }
        }
        if let Some(lifetime) = &self.lifetime {
            map.insert("snapshotLifetime".to_owned(), json!(lifetime));
        }
        if let Some(endpoint) = &self.endpoint {
            map.insert("endpoint".to_owned(), json!(endpoint));
        }
        if !self.receiver_info.is_empty() {
            let pairs = self.receiver_info.iter().map(|(key, value)| json!({"key": key, "value": value}));
            map.insert("receiverInfo".to_owned(), pairs.collect());
        }
        for (key, at) in [("createdAt", Some(self.created_at)), ("modifiedAt", Some(self.modified_at)), ("lastUsedAt", self.last_used_at)] {
            if let Some(at) = at {
                map.insert(key.to_owned(), json!(at.to_string()));
            }
        }
        Value::Object(map)
    }

    /// What both the document and a notification say.
    fn told(&self) -> Map<String, Value> {
        let details = |list: &[Detail]| -> Value { list.iter().map(Detail::json).collect() };
        let mut map = Map::new();
        map.insert("snapshotStatus".to_owned(), json!(self.status));
        map.insert("snapshotPriority".to_owned(), json!(self.priority));
        map.insert("expiresAt".to_owned(), json!(self.expires_at.to_string()));
        for (key, list) in [("snapshotQueriesDetails", &self.details), ("snapshotTemporalQueriesDetails", &self.temporal_details)] {
            if !list.is_empty() {
                map.insert(key.to_owned(), details(list));
            }
        }
        map
    }

    /// A `SnapshotNotification` (clause 5.3.4).
    pub(super) fn notification(&self, now: Instant) -> Value {
        let mut map = self.told();
        map.insert("id".to_owned(), json!(format!("urn:ngsi-ld:SnapshotNotification:{}", host::random_hex::<12>())));
        map.insert("type".to_owned(), json!("SnapshotNotification"));
        map.insert("snapshotId".to_owned(), json!(self.id));
        map.insert("notifiedAt".to_owned(), json!(now.to_string()));
        Value::Object(map)
    }

    /// The members as attributes, for conditions on them.
    pub(super) fn as_entity(&self, core: &Context) -> Entity {
        let named = |name: &str| core.expand(name).expect("a name of the core context");
        let mut entity = Entity::new(self.id.clone(), named("Snapshot"))
            .with(named("snapshotPriority"), Attribute::property(self.priority))
            .with(named("snapshotStatus"), Attribute::property(json!(self.status)))
            .with(named("expiresAt"), Attribute::property(self.expires_at.to_string()));
        for (name, at) in [
            ("snapshotLifetime", self.lifetime.clone()),
            ("lastUsedAt", self.last_used_at.map(|at| at.to_string())),
            ("endpoint", self.endpoint.clone()),
        ] {
            if let Some(value) = at {
                entity.put(named(name), Attribute::property(value));
            }
        }
        (entity.created_at, entity.modified_at) = (self.created_at, self.modified_at);
        entity
    }
}

/// A condition on the members of snapshots.
pub(super) fn condition(q: &str, core: &Context) -> Result<Filter, Problem> {
    let parsed = parse_q(q, QOptions { context: core, expand_values: &[], link_levels: 0 });
    Ok(parsed.map_err(|e| e.within("parameter q"))?.filter)
}

fn queries(key: &str, value: &Value) -> Result<Queries, Problem> {
    let list = value.as_array().filter(|l| (1..=QUERIES_MAX).contains(&l.len()) && l.iter().all(Value::is_object));
    list.cloned().ok_or_else(|| wrong(key, format!("expected an array of 1 to {QUERIES_MAX} queries")))
}
