//! Subscriptions as clients get them back (ETSI GS CIM 009 V1.9.1, clause 5.2.12).

use std::collections::BTreeMap;

use entity::{Iri, TypeSelector};
use serde_json::{Map, Value};

use crate::context::Context;
use crate::decode::{EntitySelector, Notification, Subscription};
use crate::view::{JoinStyle, Member, Representation};

impl Subscription {
    /// The document as a client gets it, with the names that `context` has; `q`, `geoQ` and `scopeQ` are as they were given.
    ///
    /// `more` are the members that the node adds: `status`, `createdAt`, ... at the top, and those of `notification` under that key.
    #[must_use]
    pub fn to_json(&self, context: &Context, more: BTreeMap<&'static str, Value>) -> Value {
        let short = |list: &[Iri]| -> Value { list.iter().map(|i| context.compact(i).into_owned()).collect() };
        let mut map = Map::new();
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                map.insert(name.to_owned(), value);
            }
        };
        put("id", self.id.as_ref().map(|i| i.as_str().into()));
        put("type", Some("Subscription".into()));
        put("subscriptionName", self.name.clone().map(Value::from));
        put("description", self.description.clone().map(Value::from));
        put("entities", (!self.entities.is_empty()).then(|| self.entities.iter().map(|e| selector_json(e, context)).collect()));
        put("watchedAttributes", self.watched.as_deref().map(short));
        put("q", self.q.clone().map(Value::from));
        put("geoQ", self.geo_q.clone());
        put("scopeQ", self.scope_q.clone().map(Value::from));
        put("expandValues", (!self.expand_values.is_empty()).then(|| short(&self.expand_values)));
        put("timeInterval", self.time_interval_s.map(number));
        put("throttling", self.throttling_s.map(number));
        put("notificationTrigger", Some(self.triggers.iter().map(|t| t.name()).collect()));
        put("isActive", Some(self.active.into()));
        put("expiresAt", self.expires_at.map(|t| t.to_string().into()));
        put("localOnly", self.local_only.then_some(true.into()));
        put("datasetId", self.dataset_ids.as_ref().map(|l| l.iter().map(dataset_text).collect()));
        put("lang", self.lang.as_ref().map(|l| l.as_str().into()));
        put("ngsildConformance", self.conformance.map(|(major, minor)| format!("{major}.{minor}").into()));
        put("jsonldContext", self.context.as_str().map(Value::from));
        let mut notification = notification_json(&self.notification, context);
        for (name, value) in more {
            match (name, value) {
                ("notification", Value::Object(inner)) => notification.extend(inner),
                (name, value) => put(name, Some(value)),
            }
        }
        put("notification", Some(Value::Object(notification)));
        Value::Object(map)
    }
}

fn dataset_text(id: &Option<Iri>) -> &str {
    id.as_ref().map_or(crate::DEFAULT_INSTANCE, Iri::as_str)
}

/// Whole numbers without a fraction, as they were given.
fn number(n: f64) -> Value {
    if n.fract() == 0.0 { Value::from(n as i64) } else { Value::from(n) }
}

fn selector_json(e: &EntitySelector, context: &Context) -> Value {
    let mut map = Map::new();
    map.insert("type".to_owned(), types_text(&e.types, context).into());
    match e.ids.as_slice() {
        [] => {}
        [one] => drop(map.insert("id".to_owned(), one.as_str().into())),
        many => drop(map.insert("id".to_owned(), many.iter().map(Iri::as_str).collect())),
    }
    if let Some(pattern) = &e.id_pattern_text {
        map.insert("idPattern".to_owned(), pattern.as_str().into());
    }
    Value::Object(map)
}

/// A type selection with the names that `context` has.
fn types_text(types: &TypeSelector, context: &Context) -> String {
    let join = |list: &[TypeSelector], separator: &str| list.iter().map(|t| types_text(t, context)).collect::<Vec<_>>().join(separator);
    match types {
        TypeSelector::Any => "*".to_owned(),
        TypeSelector::Is(iri) => context.compact(iri).into_owned(),
        TypeSelector::Or(list) => format!("({})", join(list, "|")),
        TypeSelector::And(list) => format!("({})", join(list, ";")),
    }
}

fn member_text(member: &Member, context: &Context) -> String {
    match member {
        Member::Id => "id".to_owned(),
        Member::Type => "type".to_owned(),
        Member::Scope => "scope".to_owned(),
        Member::Attribute(iri) => context.compact(iri).into_owned(),
        Member::Linked(iri, inner) => {
            let inner: Vec<String> = inner.iter().map(|m| member_text(m, context)).collect();
            format!("{}{{{}}}", context.compact(iri), inner.join(","))
        }
    }
}

fn notification_json(n: &Notification, context: &Context) -> Map<String, Value> {
    let member = |m: &Member| member_text(m, context);
    let mut map = Map::new();
    if let Some(list) = &n.attributes {
        map.insert("attributes".to_owned(), list.iter().map(|i| context.compact(i).into_owned()).collect());
    }
    if let Some(list) = &n.pick {
        map.insert("pick".to_owned(), list.iter().map(member).collect());
    }
    if !n.omit.is_empty() {
        map.insert("omit".to_owned(), n.omit.iter().map(member).collect());
    }
    let format = match n.representation {
        Representation::Normalized => "normalized",
        Representation::Concise => "concise",
        Representation::Simplified => "simplified",
    };
    map.insert("format".to_owned(), format.into());
    for (name, set) in [("sysAttrs", n.sys_attrs), ("showChanges", n.show_changes)] {
        if set {
            map.insert(name.to_owned(), true.into());
        }
    }
    if let Some(join) = &n.join {
        let style = match join.style {
            JoinStyle::Flat => "flat",
            JoinStyle::Inline => "inline",
        };
        map.insert("join".to_owned(), style.into());
        map.insert("joinLevel".to_owned(), join.levels.into());
    }
    let e = &n.endpoint;
    let mut endpoint = Map::new();
    endpoint.insert("uri".to_owned(), e.uri.as_str().into());
    endpoint.insert("accept".to_owned(), e.accept.media_type().into());
    for (name, ms) in [("timeout", e.timeout_ms), ("cooldown", e.cooldown_ms)] {
        if let Some(ms) = ms {
            endpoint.insert(name.to_owned(), ms.into());
        }
    }
    for (name, list) in [("receiverInfo", &e.receiver_info), ("notifierInfo", &e.notifier_info)] {
        if !list.is_empty() {
            endpoint.insert(name.to_owned(), serde_json::to_value(list).expect("keys and values are JSON"));
        }
    }
    map.insert("endpoint".to_owned(), Value::Object(endpoint));
    map
}
