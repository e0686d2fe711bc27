//! Subscriptions (ETSI GS CIM 009 V1.9.1, clauses 5.2.12 to 5.2.15, 5.2.22 and 5.8.1).

use entity::{Filter, GeoCondition, Instant, Iri, Pattern, TypeSelector};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{instant, iri, list_of_strings, object, string};
use crate::context::Context;
use crate::error::{Error, Result, described, shown};
use crate::query::{
    GeoParameters, QOptions, check_reach, id_pattern, join_of, member_list, name_list, parse_q, parse_scopes, parse_types, unknown_member,
};
use crate::view::{Join, LanguageRanges, Member, Representation, View};

/// The most watched attributes, and the most entity selectors.
pub const WATCHED_MAX: usize = 500;

/// The longest time-out and cool-down that a subscriber may wish, in milliseconds: one day.
const DELAY_MS_MAX: u64 = 86_400_000;

/// The longest interval and throttling, in seconds: one year.
const INTERVAL_S_MAX: f64 = 366.0 * 86_400.0;

/// The versions of MQTT, as `notifierInfo` names them; the last one if it does not.
const MQTT_VERSIONS: [&str; 2] = ["mqtt3.1.1", "mqtt5.0"];

/// The most headers that a subscriber may ask for.
const HEADERS_MAX: usize = 50;

const MEMBERS: [&str; 23] = [
    "id",
    "type",
    "subscriptionName",
    "description",
    "entities",
    "watchedAttributes",
    "q",
    "geoQ",
    "scopeQ",
    "timeInterval",
    "throttling",
    "notificationTrigger",
    "isActive",
    "expiresAt",
    "notification",
    "jsonldContext",
    "lang",
    "datasetId",
    "expandValues",
    "localOnly",
    "jsonKeys",
    "ngsildConformance",
    "@context",
];

/// Output only: passed over in requests (clause 5.2.12).
const OUTPUT_ONLY: [&str; 3] = ["status", "createdAt", "modifiedAt"];

const UNSUPPORTED: [&str; 3] = ["csf", "temporalQ", "splitEntities"];

/// A wish to be told. Names are expanded; everything is checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Subscription {
    /// Its id; none if the node is to make one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Iri>,
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A text for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Which entities; empty for any that has a watched attribute.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entities: Vec<EntitySelector>,
    /// A change of one of these tells; none for any attribute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watched: Option<Vec<Iri>>,
    /// The query as it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub q: Option<String>,
    /// The geo-query as it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub geo_q: Option<Value>,
    /// The scope query as it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope_q: Option<String>,
    /// Attributes whose string operands in `q` are names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expand_values: Vec<Iri>,
    /// Query, geo-query and scope query with the names that they had when they were given.
    #[serde(default)]
    pub conditions: Conditions,
    /// Selectors and conditions as one condition.
    pub filter: Filter,
    /// Tell every so many seconds instead of on change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_interval_s: Option<f64>,
    /// At least so many seconds between two notifications.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttling_s: Option<f64>,
    /// Which events tell.
    pub triggers: Vec<Trigger>,
    /// It is not paused.
    pub active: bool,
    /// After this instant nothing is told any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Instant>,
    /// Only what this node has concerns it.
    #[serde(default)]
    pub local_only: bool,
    /// Only these instances; none for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset_ids: Option<Vec<Option<Iri>>>,
    /// The languages wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lang: Option<LanguageRanges>,
    /// Notifications are written for a receiver of this version of the standard, major and minor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conformance: Option<(u32, u32)>,
    /// The context of its notifications, as an `@context` value: what was asked for, or that of the request.
    pub context: Value,
    /// What is told, and where.
    pub notification: Notification,
}

/// The conditions of a subscription, each for itself: a later change of one must not read the others in another context.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Conditions {
    /// From `q`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub q: Option<Filter>,
    /// From `geoQ`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub geo: Option<GeoCondition>,
    /// From `scopeQ`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Filter>,
}

/// Which entities (clause 5.2.33).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EntitySelector {
    /// The types.
    pub types: TypeSelector,
    /// The ids; empty for any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<Iri>,
    /// The pattern of the id; counts only without ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id_pattern: Option<Pattern>,
    /// The pattern as it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id_pattern_text: Option<String>,
    /// The type selection as it was given.
    pub type_text: String,
}

impl EntitySelector {
    /// As a condition.
    #[must_use]
    pub fn filter(&self) -> Filter {
        let types = Filter::Type(self.types.clone());
        match (&self.ids[..], &self.id_pattern) {
            ([], None) => types,
            ([], Some(pattern)) => types.and(Filter::IdPattern(pattern.clone())),
            (ids, _) => types.and(Filter::Id(ids.to_vec())),
        }
    }
}

/// An event that tells (clause 5.2.12).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Trigger {
    /// An entity is new.
    EntityCreated,
    /// An attribute was created, updated or deleted.
    EntityUpdated,
    /// An entity is gone.
    EntityDeleted,
    /// An attribute is new.
    AttributeCreated,
    /// An attribute has another value.
    AttributeUpdated,
    /// An attribute is gone.
    AttributeDeleted,
}

impl Trigger {
    const ALL: [(Self, &'static str); 6] = [
        (Self::EntityCreated, "entityCreated"),
        (Self::EntityUpdated, "entityUpdated"),
        (Self::EntityDeleted, "entityDeleted"),
        (Self::AttributeCreated, "attributeCreated"),
        (Self::AttributeUpdated, "attributeUpdated"),
        (Self::AttributeDeleted, "attributeDeleted"),
    ];

    /// The name as NGSI-LD writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// The media type of notifications.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum NotificationFormat {
    /// `application/json`.
    #[default]
    #[serde(rename = "application/json")]
    Json,
    /// `application/ld+json`.
    #[serde(rename = "application/ld+json")]
    LdJson,
    /// `application/geo+json`.
    #[serde(rename = "application/geo+json")]
    GeoJson,
}

impl NotificationFormat {
    /// The media type.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::LdJson => "application/ld+json",
            Self::GeoJson => "application/geo+json",
        }
    }
}

/// What is told, and where (clause 5.2.14).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notification {
    /// Exactly these members; none for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pick: Option<Vec<Member>>,
    /// All but these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub omit: Vec<Member>,
    /// Only these attributes (deprecated); none for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<Vec<Iri>>,
    /// The form of the entities.
    pub representation: Representation,
    /// Recorded times are shown.
    pub sys_attrs: bool,
    /// Previous values are shown.
    pub show_changes: bool,
    /// What the entities are linked to is shown, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join: Option<Join>,
    /// Where.
    pub endpoint: Endpoint,
}

/// Where notifications go (clause 5.2.15).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// `http`, `https`, `mqtt` or `mqtts`.
    pub uri: String,
    /// The media type.
    pub accept: NotificationFormat,
    /// A delivery that takes longer failed, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// After a failure nothing is sent for so long, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cooldown_ms: Option<u64>,
    /// Headers to send.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub receiver_info: Vec<KeyValue>,
    /// Settings of the transport.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notifier_info: Vec<KeyValue>,
}

impl Endpoint {
    /// The value of a setting of the transport, whose name is written in any case.
    #[must_use]
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.notifier_info.iter().find(|p| p.key.eq_ignore_ascii_case(name)).map(|p| p.value.as_str())
    }
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyValue {
    /// The key.
    pub key: String,
    /// The value.
    pub value: String,
}

/// Reads a subscription.
///
/// Members of the standard that this node does not serve are refused by name. Errors: [`crate::ErrorKind::BadRequestData`].
/// That `expiresAt` lies in the future is for whoever has a clock.
pub fn subscription(value: Value, context: &Context) -> Result<Subscription> {
    let mut map = object(value, "a Subscription")?;
    check_members(&map)?;
    match map.get("type").or_else(|| map.get("@type")).and_then(Value::as_str) {
        Some("Subscription") => {}
        _ => return Err(Error::bad("expected `Subscription`").within("type")),
    }
    let notification = map.shift_remove("notification").ok_or_else(|| Error::bad("the mandatory member `notification` is missing"))?;
    let fields = Fields { map: &map, context };
    let mut s = Subscription {
        id: fields.read("id", iri)?,
        name: fields.text("subscriptionName")?,
        description: fields.text("description")?,
        entities: fields.read("entities", |v| selectors(v, context))?.unwrap_or_default(),
        watched: fields.read("watchedAttributes", |v| names(v, context))?,
        q: fields.text("q")?,
        geo_q: map.get("geoQ").cloned(),
        scope_q: fields.text("scopeQ")?,
        expand_values: fields.read("expandValues", |v| names(v, context))?.unwrap_or_default(),
        conditions: Conditions::default(),
        filter: Filter::all(),
        time_interval_s: fields.read("timeInterval", seconds)?,
        throttling_s: fields.read("throttling", seconds)?,
        triggers: fields
            .read("notificationTrigger", triggers)?
            .unwrap_or_else(|| vec![Trigger::AttributeCreated, Trigger::AttributeUpdated]),
        active: fields.read("isActive", boolean)?.unwrap_or(true),
        expires_at: fields.read("expiresAt", instant)?,
        local_only: fields.read("localOnly", boolean)?.unwrap_or(false),
        dataset_ids: fields.read("datasetId", |v| crate::query::dataset_ids(list_of_strings(v)?.into_iter()))?,
        lang: fields.read("lang", |v| LanguageRanges::parse(string(v)?))?,
        conformance: fields.read("ngsildConformance", version)?,
        context: fields.read("jsonldContext", context_url)?.unwrap_or_else(|| context.json()),
        notification: notification_params(notification, context).map_err(|e| e.within("notification"))?,
    };
    fields.read("jsonKeys", |v| names(v, context))?;
    s.conditions = conditions(&s, context)?;
    s.filter = filter(&s);
    check_together(&s)?;
    Ok(s)
}

/// A subscription after a patch: members that are there replace the present ones as a whole, null and NGSI-LD Null remove them
/// (clauses 5.5.8 and 5.8.2).
///
/// `context` is that of the patch. Errors: as [`subscription`]; the patch names another id or type.
pub fn patched_subscription(current: &Subscription, patch: Value, context: &Context) -> Result<Subscription> {
    let patch = object(patch, "a fragment of a Subscription")?;
    check_members(&patch)?;
    if let Some(id) = patch.get("id").or_else(|| patch.get("@id"))
        && id.as_str() != current.id.as_ref().map(Iri::as_str)
    {
        return Err(Error::bad("the id of a subscription cannot be changed").within("id"));
    }
    let Value::Object(mut merged) = current.to_json(context, std::collections::BTreeMap::new()) else {
        unreachable!("a subscription is written as an object")
    };
    for (key, value) in &patch {
        match (key.as_str(), value) {
            ("notification", Value::Object(changes)) => {
                let inner = merged.entry("notification").or_insert_with(|| Value::Object(Map::new()));
                for (key, value) in changes {
                    inner[key.as_str()] = value.clone();
                }
            }
            (key, Value::Null) => drop(merged.shift_remove(key)),
            (key, Value::String(s)) if s == crate::NGSI_LD_NULL => drop(merged.shift_remove(key)),
            (key, value) => drop(merged.insert(key.to_owned(), value.clone())),
        }
    }
    if let Some(Value::Object(inner)) = merged.get_mut("notification") {
        inner.retain(|_, v| !v.is_null() && v.as_str() != Some(crate::NGSI_LD_NULL));
    }
    let mut s = subscription(Value::Object(merged), context)?;
    // What the patch leaves alone keeps the meaning that it had in its own context.
    if !patch.contains_key("q") && !patch.contains_key("expandValues") {
        s.conditions.q.clone_from(&current.conditions.q);
    }
    if !patch.contains_key("geoQ") {
        s.conditions.geo.clone_from(&current.conditions.geo);
    }
    if !patch.contains_key("jsonldContext") {
        s.context.clone_from(&current.context);
    }
    s.filter = filter(&s);
    Ok(s)
}

struct Fields<'a> {
    map: &'a Map<String, Value>,
    context: &'a Context,
}

impl Fields<'_> {
    fn read<T>(&self, name: &str, read: impl Fn(&Value) -> Result<T>) -> Result<Option<T>> {
        self.map.get(name).map(|v| read(v).map_err(|e| e.within(name))).transpose()
    }

    fn text(&self, name: &str) -> Result<Option<String>> {
        self.read(name, |v| string(v).map(str::to_owned))
    }

    fn members(&self, name: &str) -> Result<Option<Vec<Member>>> {
        self.read(name, |v| member_list(list_of_strings(v)?.into_iter(), self.context))
    }
}

fn check_members(map: &Map<String, Value>) -> Result<()> {
    for key in map.keys().map(String::as_str) {
        let known = MEMBERS.contains(&key) || OUTPUT_ONLY.contains(&key) || matches!(key, "@id" | "@type");
        if !known {
            return Err(unknown_member(key, &MEMBERS, &UNSUPPORTED).within(&shown(key)));
        }
    }
    Ok(())
}

/// What the members must be to one another (clause 5.2.12).
fn check_together(s: &Subscription) -> Result<()> {
    if s.entities.is_empty() && s.watched.is_none() && !s.local_only {
        return Err(Error::bad("at least one of `entities` and `watchedAttributes` is needed, unless `localOnly` is true"));
    }
    if s.entities.iter().any(|e| e.types == TypeSelector::Any) && !s.local_only {
        return Err(Error::bad("the type `*` needs `localOnly` to be true").within("entities"));
    }
    if s.time_interval_s.is_some() {
        for (name, given) in [("watchedAttributes", s.watched.is_some()), ("throttling", s.throttling_s.is_some())] {
            if given {
                return Err(Error::bad(format!("a subscription with `timeInterval` has no `{name}`")).within("timeInterval"));
            }
        }
        if s.entities.is_empty() && !s.local_only {
            return Err(Error::bad("a subscription with `timeInterval` needs `entities`").within("timeInterval"));
        }
    }
    Ok(())
}

fn conditions(s: &Subscription, context: &Context) -> Result<Conditions> {
    let mut found = Conditions::default();
    if let Some(q) = &s.q {
        let options = QOptions { context, expand_values: &s.expand_values, link_levels: 0 };
        found.q = Some(parse_q(q, options).map_err(|e| e.within("q"))?.filter);
    }
    if let Some(geo_q) = &s.geo_q {
        let condition = GeoParameters::from_json(geo_q).and_then(|g| g.condition(context)).map_err(|e| e.within("geoQ"))?;
        found.geo = Some(condition.ok_or_else(|| Error::bad("a geo-query needs georel, geometry and coordinates").within("geoQ"))?);
    }
    if let Some(scope_q) = &s.scope_q {
        found.scope = Some(parse_scopes(scope_q).map_err(|e| e.within("scopeQ"))?);
    }
    Ok(found)
}

fn filter(s: &Subscription) -> Filter {
    let mut selectors: Vec<Filter> = s.entities.iter().map(EntitySelector::filter).collect();
    let entities = match selectors.len() {
        0 => Filter::all(),
        1 => selectors.remove(0),
        _ => Filter::Or(selectors),
    };
    let Conditions { q, geo, scope } = s.conditions.clone();
    [q, geo.map(Filter::Geo), scope].into_iter().flatten().fold(entities, Filter::and)
}

fn selectors(value: &Value, context: &Context) -> Result<Vec<EntitySelector>> {
    let Value::Array(list) = value else { return Err(Error::bad(format!("expected an array, found {}", described(value)))) };
    if list.is_empty() || list.len() > WATCHED_MAX {
        return Err(Error::bad(format!("expected 1 to {WATCHED_MAX} entity selectors, found {}", list.len())));
    }
    list.iter().enumerate().map(|(i, item)| selector(item, context).map_err(|e| e.within(&i.to_string()))).collect()
}

/// Reads one entity selector.
pub(crate) fn selector(item: &Value, context: &Context) -> Result<EntitySelector> {
    let map = item.as_object().ok_or_else(|| Error::bad(format!("expected an entity selector, found {}", described(item))))?;
    let known = ["type", "id", "idPattern"];
    if let Some(other) = map.keys().find(|k| !known.contains(&k.as_str())) {
        return Err(unknown_member(other, &known, &[]).within(&shown(other)));
    }
    let fields = Fields { map, context };
    let type_text = fields.text("type")?.ok_or_else(|| Error::bad("the mandatory member `type` is missing"))?;
    let types = parse_types(&type_text, context).map_err(|e| e.within("type"))?;
    let ids = fields.read("id", |v| {
        list_of_strings(v)?
            .into_iter()
            .map(|s| s.parse().map_err(|e: entity::IriError| Error::bad(e.to_string())))
            .collect::<Result<Vec<Iri>>>()
    })?;
    let id_pattern_text = fields.text("idPattern")?;
    let id_pattern = id_pattern_text.as_deref().map(id_pattern).transpose().map_err(|e| e.within("idPattern"))?;
    Ok(EntitySelector { types, ids: ids.unwrap_or_default(), id_pattern, id_pattern_text, type_text })
}

fn names(value: &Value, context: &Context) -> Result<Vec<Iri>> {
    let list = name_list(list_of_strings(value)?.into_iter().flat_map(|s| s.split(',')), context)?;
    if list.len() > WATCHED_MAX {
        return Err(Error::bad(format!("{} names are more than the limit of {WATCHED_MAX}", list.len())));
    }
    Ok(list)
}

/// `major.minor`.
fn version(value: &Value) -> Result<(u32, u32)> {
    let text = string(value)?;
    let parts = text.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    parts.ok_or_else(|| Error::bad(format!("expected a version of the standard such as 1.6, found `{}`", shown(text))))
}

fn boolean(value: &Value) -> Result<bool> {
    value.as_bool().ok_or_else(|| Error::bad(format!("expected true or false, found {}", described(value))))
}

fn seconds(value: &Value) -> Result<f64> {
    value.as_f64().filter(|s| *s > 0.0 && *s <= INTERVAL_S_MAX).ok_or_else(|| {
        Error::bad(format!("expected a number of seconds greater than 0 and at most {INTERVAL_S_MAX}, found {}", described(value)))
    })
}

fn milliseconds(value: &Value) -> Result<u64> {
    // 1.0 is as good a JSON number as 1.
    value
        .as_f64()
        .filter(|ms| *ms >= 1.0 && *ms <= DELAY_MS_MAX as f64 && ms.fract() == 0.0)
        .map(|ms| ms as u64)
        .ok_or_else(|| Error::bad(format!("expected a whole number of milliseconds from 1 to {DELAY_MS_MAX}, found {}", described(value))))
}

fn triggers(value: &Value) -> Result<Vec<Trigger>> {
    let mut found = Vec::new();
    for name in list_of_strings(value)? {
        let trigger = Trigger::ALL.iter().find(|(_, n)| *n == name).map(|(t, _)| *t).ok_or_else(|| {
            let expected: Vec<&str> = Trigger::ALL.iter().map(|(_, n)| *n).collect();
            Error::bad(format!("`{}` is not a trigger (expected {})", shown(name), expected.join(", ")))
        })?;
        if !found.contains(&trigger) {
            found.push(trigger);
        }
    }
    Ok(found)
}

fn context_url(value: &Value) -> Result<Value> {
    let url = string(value)?;
    if url.starts_with("https://") || url.starts_with("http://") {
        Ok(value.clone())
    } else {
        Err(Error::bad(format!("expected the URL of a context, found `{}`", shown(url))))
    }
}

const NOTIFICATION_MEMBERS: [&str; 9] =
    ["attributes", "pick", "omit", "format", "sysAttrs", "showChanges", "join", "joinLevel", "endpoint"];
/// Those of the standard, and what this node says of the delivery beside them.
const NOTIFICATION_OUTPUT_ONLY: [&str; 12] = [
    "status",
    "timesSent",
    "timesFailed",
    "lastNotification",
    "lastSuccess",
    "lastFailure",
    "timesDropped",
    "lastErrorReason",
    "lastDroppedReason",
    "waiting",
    "waitingSince",
    "nextAttempt",
];

fn notification_params(value: Value, context: &Context) -> Result<Notification> {
    let map = object(value, "notification parameters")?;
    for key in map.keys().map(String::as_str) {
        if !NOTIFICATION_MEMBERS.contains(&key) && !NOTIFICATION_OUTPUT_ONLY.contains(&key) {
            return Err(unknown_member(key, &NOTIFICATION_MEMBERS, &[]).within(&shown(key)));
        }
    }
    let fields = Fields { map: &map, context };
    let representation = fields.read("format", |v| match string(v)? {
        "normalized" => Ok(Representation::Normalized),
        "concise" => Ok(Representation::Concise),
        "simplified" | "keyValues" => Ok(Representation::Simplified),
        other => Err(Error::bad(format!("`{}` is not a format (expected normalized, concise, simplified or keyValues)", shown(other)))),
    })?;
    let level = fields.read("joinLevel", |v| match v {
        Value::String(s) => Ok(s.clone()),
        Value::Number(n) => Ok(n.to_string()),
        other => Err(Error::bad(format!("expected a number, found {}", described(other)))),
    })?;
    let n = Notification {
        join: join_of(fields.text("join")?, level)?,
        pick: fields.members("pick")?,
        omit: fields.members("omit")?.unwrap_or_default(),
        attributes: fields.read("attributes", |v| names(v, context))?,
        representation: representation.unwrap_or_default(),
        sys_attrs: fields.read("sysAttrs", boolean)?.unwrap_or(false),
        show_changes: fields.read("showChanges", boolean)?.unwrap_or(false),
        endpoint: endpoint(map.get("endpoint")).map_err(|e| e.within("endpoint"))?,
    };
    if n.show_changes && n.representation == Representation::Simplified {
        return Err(Error::bad("changes cannot be shown in the simplified format").within("showChanges"));
    }
    let reach = View { join: n.join.clone(), pick: n.pick.clone(), omit: n.omit.clone(), ..View::default() };
    check_reach(&reach)?;
    Ok(n)
}

fn endpoint(value: Option<&Value>) -> Result<Endpoint> {
    let map = value.and_then(Value::as_object).ok_or_else(|| Error::bad("expected an object with `uri`"))?;
    let known = ["uri", "accept", "timeout", "cooldown", "receiverInfo", "notifierInfo"];
    if let Some(other) = map.keys().find(|k| !known.contains(&k.as_str())) {
        return Err(unknown_member(other, &known, &[]).within(&shown(other)));
    }
    let read = |name: &str| map.get(name);
    let uri = read("uri")
        .ok_or_else(|| Error::bad("the mandatory member `uri` is missing"))
        .and_then(endpoint_uri)
        .map_err(|e| e.within("uri"))?;
    let accept = match read("accept").map(string).transpose().map_err(|e| e.within("accept"))? {
        None | Some("application/json") => NotificationFormat::Json,
        Some("application/ld+json") => NotificationFormat::LdJson,
        Some("application/geo+json") => NotificationFormat::GeoJson,
        Some(other) => {
            return Err(Error::bad(format!(
                "`{}` is not possible (expected application/json, application/ld+json or application/geo+json)",
                shown(other)
            ))
            .within("accept"));
        }
    };
    let notifier_info = read("notifierInfo")
        .map(|v| key_values(v, false).and_then(|pairs| check_notifier_info(&pairs).map(|()| pairs)))
        .transpose()
        .map_err(|e| e.within("notifierInfo"))?
        .unwrap_or_default();
    Ok(Endpoint {
        uri,
        accept,
        timeout_ms: read("timeout").map(milliseconds).transpose().map_err(|e| e.within("timeout"))?,
        cooldown_ms: read("cooldown").map(milliseconds).transpose().map_err(|e| e.within("cooldown"))?,
        receiver_info: read("receiverInfo")
            .map(|v| key_values(v, true))
            .transpose()
            .map_err(|e| e.within("receiverInfo"))?
            .unwrap_or_default(),
        notifier_info,
    })
}

fn endpoint_uri(value: &Value) -> Result<String> {
    let text = string(value)?;
    let url = url::Url::parse(text).map_err(|e| Error::bad(format!("`{}` is not a URL: {e}", shown(text))))?;
    let has_host = url.host_str().is_some_and(|h| !h.is_empty());
    match url.scheme() {
        "http" | "https" if has_host => Ok(text.to_owned()),
        "mqtt" | "mqtts" if has_host && url.path().len() > 1 => Ok(text.to_owned()),
        "mqtt" | "mqtts" => {
            Err(Error::bad(format!("expected a host and, as the path, a topic: `mqtt://host/topic`; found `{}`", shown(text))))
        }
        _ => Err(Error::bad(format!("expected an `http`, `https`, `mqtt` or `mqtts` URL, found `{}`", shown(text)))),
    }
}

/// What is said of MQTT must be possible; of other keys nothing is known (clause 7.2).
fn check_notifier_info(pairs: &[KeyValue]) -> Result<()> {
    for (name, possible) in [("MQTT-Version", &MQTT_VERSIONS[..]), ("MQTT-QoS", &["0", "1", "2"])] {
        if let Some(pair) = pairs.iter().find(|p| p.key.eq_ignore_ascii_case(name) && !possible.contains(&p.value.as_str())) {
            return Err(Error::bad(format!("`{}` is not possible (expected {})", shown(&pair.value), possible.join(" or "))).within(name));
        }
    }
    Ok(())
}

/// `[{"key": .., "value": ..}]`; as headers they must not be able to break out of their line.
fn key_values(value: &Value, headers: bool) -> Result<Vec<KeyValue>> {
    let Value::Array(list) = value else { return Err(Error::bad(format!("expected an array, found {}", described(value)))) };
    if list.len() > HEADERS_MAX {
        return Err(Error::bad(format!("{} pairs are more than the limit of {HEADERS_MAX}", list.len())));
    }
    list.iter()
        .enumerate()
        .map(|(i, item)| {
            let at = |e: Error| e.within(&i.to_string());
            let text = |name: &str| item.get(name).and_then(Value::as_str).map(str::to_owned);
            let (Some(key), Some(value)) = (text("key"), text("value")) else {
                return Err(at(Error::bad(format!("expected an object with the strings `key` and `value`, found {}", described(item)))));
            };
            let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
            if headers && (key.is_empty() || !key.chars().all(token) || value.chars().any(char::is_control)) {
                return Err(at(Error::bad(format!("`{}` with its value cannot be an HTTP header", shown(&key)))));
            }
            Ok(KeyValue { key, value })
        })
        .collect()
}

impl Subscription {
    /// How the entities in its notifications look.
    #[must_use]
    pub fn view(&self) -> View {
        let n = &self.notification;
        View {
            representation: n.representation,
            sys_attrs: n.sys_attrs,
            pick: n.pick.clone(),
            omit: n.omit.clone(),
            attrs: n.attributes.clone(),
            lang: self.lang.clone(),
            dataset_ids: self.dataset_ids.clone(),
            join: n.join.clone(),
            ..View::default()
        }
    }

    /// Does this event tell? `entityUpdated` stands for all three of the attributes' (clause 5.2.12).
    #[must_use]
    pub fn listens_to(&self, trigger: Trigger) -> bool {
        let of_attribute = matches!(trigger, Trigger::AttributeCreated | Trigger::AttributeUpdated | Trigger::AttributeDeleted);
        self.triggers.contains(&trigger) || of_attribute && self.triggers.contains(&Trigger::EntityUpdated)
    }
}
