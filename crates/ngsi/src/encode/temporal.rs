//! Entities over time (ETSI GS CIM 009 V1.9.1, clauses 4.5.6 to 4.5.9).

use entity::{Attribute, AttributeValue, InstanceId, Instant, Iri, Scope, Value};
use indexmap::IndexMap;

use super::attribute::Style;
use super::notification::removed_object;
use super::writer::Writer;
use crate::NGSI_LD_NULL;
use crate::context::Context;
use crate::query::TimeProperty;
use crate::view::{Member, Representation, View};

/// One entity over time, as the history gives it.
#[derive(Debug, Clone, Copy)]
pub struct TemporalEntity<'a> {
    /// Its id.
    pub id: &'a Iri,
    /// Its types.
    pub types: &'a [Iri],
    /// The instances of each attribute in the order in which they are to be shown.
    pub attributes: &'a IndexMap<Iri, Vec<Attribute>>,
    /// The ends of attribute instances, shown behind the instances (clauses 4.5.7 and 4.5.8).
    pub removals: &'a [Removal],
    /// When it was removed, if it is to be said.
    pub deleted_at: Option<Instant>,
    /// When it was first recorded; shown with the other times that the system gives.
    pub created_at: Option<Instant>,
    /// When it was last changed; shown as `created_at` is.
    pub modified_at: Option<Instant>,
    /// The scopes that it had, in the order in which they are to be shown.
    pub scopes: &'a [ScopeInstance],
}

/// The scopes of an entity for some time (clause 4.5.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopeInstance {
    /// At least one.
    pub scopes: Vec<Scope>,
    /// When the entity was first in any scope.
    pub created_at: Instant,
    /// Since when it had these; shown as `observedAt`, too.
    pub modified_at: Instant,
    /// When they were removed, if they were not only replaced.
    pub deleted_at: Option<Instant>,
}

/// The end of an attribute instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Removal {
    /// The attribute.
    pub name: Iri,
    /// An instance as it was: only its kind and `datasetId` are shown.
    pub was: Attribute,
    /// When it was removed.
    pub at: Instant,
}

/// One entity over time: every attribute an array of instances, or with [`View::temporal_values`] an array of values and times.
///
/// `time` is the time that was asked about; the instances show it whatever the view says. `with_context` puts the context into the
/// document (`application/ld+json`).
#[must_use]
pub fn evolution(e: TemporalEntity<'_>, time: TimeProperty, view: &View, context: &Context, with_context: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(4096);
    write(&mut Writer::new(&mut out), e, time, view, context, with_context);
    out
}

/// Several entities over time, as an array.
#[must_use]
pub fn evolutions<'e>(
    list: impl IntoIterator<Item = TemporalEntity<'e>>,
    time: TimeProperty,
    view: &View,
    context: &Context,
    with_context: bool,
) -> Vec<u8> {
    array(list, |w, e| write(w, e, time, view, context, with_context))
}

/// One entity over time, aggregated over periods.
#[derive(Debug, Clone, Copy)]
pub struct AggregatedEntity<'a> {
    /// Its id.
    pub id: &'a Iri,
    /// Its types.
    pub types: &'a [Iri],
    /// Its attributes in the order in which they are to be shown.
    pub attributes: &'a [AggregatedAttribute],
}

/// What the values of one attribute come to.
#[derive(Debug, Clone, PartialEq)]
pub struct AggregatedAttribute {
    /// The attribute.
    pub name: Iri,
    /// It is a relationship, not a property.
    pub is_relationship: bool,
    /// Of each method a series.
    pub series: Vec<AggregatedSeries>,
}

/// What one method gives.
#[derive(Debug, Clone, PartialEq)]
pub struct AggregatedSeries {
    /// Name of the method.
    pub method: &'static str,
    /// Result, start and end of each period with values.
    pub periods: Vec<(Value, Instant, Instant)>,
}

/// One entity over time, aggregated: each attribute an object with an array of `[value, start, end]` per method (clause 4.5.19).
#[must_use]
pub fn aggregated(e: AggregatedEntity<'_>, view: &View, context: &Context, with_context: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(4096);
    write_aggregated(&mut Writer::new(&mut out), e, view, context, with_context);
    out
}

fn write_aggregated(w: &mut Writer<'_>, e: AggregatedEntity<'_>, view: &View, context: &Context, with_context: bool) {
    w.open(b'{');
    if view.shows(&Member::Id) {
        w.member("id", e.id.as_str());
    }
    if view.shows(&Member::Type) {
        w.key("type");
        w.one_or_many(e.types, |t| context.compact(t));
    }
    for attribute in e.attributes.iter().filter(|a| view.shows_attribute(&a.name)) {
        w.key(&context.compact(&attribute.name));
        w.open(b'{');
        w.member("type", if attribute.is_relationship { "Relationship" } else { "Property" });
        for series in &attribute.series {
            w.key(series.method);
            w.open(b'[');
            for (value, start, end) in &series.periods {
                w.open(b'[');
                w.value(value);
                w.instant(*start);
                w.instant(*end);
                w.close(b']');
            }
            w.close(b']');
        }
        w.close(b'}');
    }
    if with_context {
        w.key("@context");
        w.value(&context.json());
    }
    w.close(b'}');
}

fn write(w: &mut Writer<'_>, e: TemporalEntity<'_>, time: TimeProperty, view: &View, context: &Context, with_context: bool) {
    // The temporal form is a normalized one (clause 4.5.6).
    let normalized = View { representation: Representation::Normalized, ..view.clone() };
    let shown_time = (time != TimeProperty::ObservedAt).then(|| time.name());
    let style = Style { shown_time, ..Style::plain(context, &normalized) };
    w.open(b'{');
    if view.shows(&Member::Id) {
        w.member("id", e.id.as_str());
    }
    if view.shows(&Member::Type) {
        w.key("type");
        w.one_or_many(e.types, |t| context.compact(t));
    }
    if view.sys_attrs {
        for (name, at) in [("createdAt", e.created_at), ("modifiedAt", e.modified_at)] {
            if let Some(at) = at {
                w.instant_member(name, at);
            }
        }
    }
    if let Some(at) = e.deleted_at {
        w.instant_member("deletedAt", at);
    }
    if view.shows(&Member::Scope) && !e.scopes.is_empty() {
        scopes(w, e.scopes, time, style);
    }
    let is_gone_only = |name: &Iri| !e.attributes.contains_key(name);
    let mut gone_only: Vec<&Iri> = e.removals.iter().map(|r| &r.name).filter(|name| is_gone_only(name)).collect();
    gone_only.sort();
    gone_only.dedup();
    for name in e.attributes.keys().chain(gone_only).filter(|name| view.shows_attribute(name)) {
        let instances = e.attributes.get(name).map(Vec::as_slice).unwrap_or_default();
        let shown: Vec<&Attribute> = instances.iter().filter(|a| view.shows_instance(a)).collect();
        let removals: Vec<&Removal> = e.removals.iter().filter(|r| r.name == *name && view.shows_instance(&r.was)).collect();
        if shown.is_empty() && removals.is_empty() {
            continue;
        }
        w.key(&context.compact(name));
        if view.temporal_values && time == TimeProperty::DeletedAt {
            removal_series(w, &removals);
        } else if view.temporal_values {
            series(w, &shown, time, style);
        } else {
            w.open(b'[');
            for a in shown {
                w.open(b'{');
                style.value_members(w, a, false);
                w.member("instanceId", &InstanceId::of(e.id, name, a).to_string());
                style.other_members(w, a);
                w.close(b'}');
            }
            for r in removals {
                removed_object(w, &r.was, r.at, style, false);
            }
            w.close(b']');
        }
    }
    if with_context {
        w.key("@context");
        w.value(&context.json());
    }
    w.close(b'}');
}

/// The scopes as a Property (clauses 4.5.6 and 4.18); one that was recorded with the entity was true since then.
fn scopes(w: &mut Writer<'_>, list: &[ScopeInstance], time: TimeProperty, style: Style<'_>) {
    let value = |w: &mut Writer<'_>, s: &ScopeInstance| match s.scopes.as_slice() {
        [one] => w.string(one.as_str()),
        many => {
            w.open(b'[');
            many.iter().for_each(|scope| w.string(scope.as_str()));
            w.close(b']');
        }
    };
    w.key("scope");
    if style.view.temporal_values {
        w.open(b'{');
        w.member("type", "Property");
        w.key("values");
        w.open(b'[');
        for s in list {
            w.open(b'[');
            value(w, s);
            w.instant(if time == TimeProperty::CreatedAt { s.created_at } else { s.modified_at });
            w.close(b']');
        }
        w.close(b']');
        return w.close(b'}');
    }
    w.open(b'[');
    for s in list {
        w.open(b'{');
        w.member("type", "Property");
        w.key("value");
        value(w, s);
        w.instant_member("observedAt", s.modified_at);
        style.recorded_times(w, s.created_at, s.modified_at);
        if let Some(at) = s.deleted_at.filter(|_| style.view.sys_attrs) {
            w.instant_member("deletedAt", at);
        }
        w.close(b'}');
    }
    w.close(b']');
}

/// One object per kind and `datasetId`, each with its array of `[value, time]` (clause 4.5.9).
fn series(w: &mut Writer<'_>, instances: &[&Attribute], time: TimeProperty, style: Style<'_>) {
    pairs(
        w,
        instances,
        |a| a,
        |w, a| {
            // A language filter leaves of texts what fits best (clause 4.15).
            match (&a.value, &style.view.lang) {
                (AttributeValue::Language(map), Some(lang)) if !map.is_empty() => {
                    w.value(lang.best(map).map_or(&Value::Null, |(_, text)| text));
                }
                (value, _) => style.raw_value(w, value),
            }
            w.instant(time_of(a, time));
        },
        style.view.lang.is_some(),
    );
}

/// The ends of an attribute's instances in the same form: NGSI-LD Null and the time of each end.
fn removal_series(w: &mut Writer<'_>, removals: &[&Removal]) {
    pairs(
        w,
        removals,
        |r| &r.was,
        |w, r| {
            w.string(NGSI_LD_NULL);
            w.instant(r.at);
        },
        false,
    );
}

/// One object per kind and `datasetId` of the attribute that an item is `of`, each with what `pair` writes of its items. `lang`: texts are
/// shown in one language, as a Property.
fn pairs<T>(w: &mut Writer<'_>, items: &[&T], of: impl Fn(&T) -> &Attribute, pair: impl Fn(&mut Writer<'_>, &T), lang: bool) {
    let form = |value: &AttributeValue| match value {
        AttributeValue::Language(_) if lang => ("Property", "values"),
        other => (other.kind().name(), plural_member(other)),
    };
    let mut groups: IndexMap<(&'static str, Option<&Iri>), Vec<&T>> = IndexMap::new();
    for &item in items {
        let attribute = of(item);
        groups.entry((form(&attribute.value).0, attribute.dataset_id.as_ref())).or_default().push(item);
    }
    let several = groups.len() > 1;
    if several {
        w.open(b'[');
    }
    for ((kind, dataset_id), list) in groups {
        w.open(b'{');
        w.member("type", kind);
        if let Some(d) = dataset_id {
            w.member("datasetId", d.as_str());
        }
        w.key(form(&of(list[0]).value).1);
        w.open(b'[');
        for item in list {
            w.open(b'[');
            pair(w, item);
            w.close(b']');
        }
        w.close(b']');
        w.close(b'}');
    }
    if several {
        w.close(b']');
    }
}

/// The time that was asked about; an instance without `observedAt` (a question about all time finds these too) has its recorded one.
fn time_of(a: &Attribute, time: TimeProperty) -> Instant {
    match time {
        TimeProperty::ObservedAt => a.observed_at.unwrap_or(a.modified_at),
        TimeProperty::CreatedAt => a.created_at,
        // What has no end is shown with the time of its change.
        TimeProperty::ModifiedAt | TimeProperty::DeletedAt => a.modified_at,
    }
}

const fn plural_member(value: &AttributeValue) -> &'static str {
    match value {
        AttributeValue::Property(_) | AttributeValue::Geo(_) => "values",
        AttributeValue::Relationship(_) => "objects",
        AttributeValue::Language(_) => "languageMaps",
        AttributeValue::Vocab(_) => "vocabs",
        AttributeValue::Json(_) => "jsons",
        AttributeValue::List(_) => "valueLists",
        AttributeValue::ListRelationship(_) => "objectLists",
    }
}

/// Several aggregated entities, as an array.
#[must_use]
pub fn aggregated_list<'e>(
    list: impl IntoIterator<Item = AggregatedEntity<'e>>,
    view: &View,
    context: &Context,
    with_context: bool,
) -> Vec<u8> {
    array(list, |w, e| write_aggregated(w, e, view, context, with_context))
}

/// Several documents, as an array.
fn array<T>(list: impl IntoIterator<Item = T>, mut write: impl FnMut(&mut Writer<'_>, T)) -> Vec<u8> {
    let mut out = Vec::with_capacity(4096);
    let mut w = Writer::new(&mut out);
    w.open(b'[');
    for item in list {
        write(&mut w, item);
    }
    w.close(b']');
    out
}
