//! From entities to JSON (ETSI GS CIM 009 V1.9.1, clauses 4.5, 5.3 and 6.3).
//!
//! Everything is written straight into bytes. What is shown is a [`View`]; names are made short with a [`Context`].

mod attribute;
mod discovery;
mod notification;
mod patch;
mod problem;
mod registration;
mod subscription;
mod temporal;
mod writer;

use std::cell::RefCell;
use std::collections::HashSet;

use entity::{Attribute, AttributeValue, Entity, Iri, LOCATION};

pub use discovery::{AttributeInfo, TypeInfo, attribute_info, attribute_list, attributes, type_info, type_list, types};
pub use notification::{Change, NotificationBody, joined_notification, notification};
pub use patch::{attribute_patch, entity_patch, is_simplified};
pub use problem::{BatchError, Problem, batch_result, problem, update_result};
pub use registration::registration;
pub use temporal::{
    AggregatedAttribute, AggregatedEntity, AggregatedSeries, Removal, ScopeInstance, TemporalEntity, aggregated, aggregated_list,
    evolution, evolutions,
};

pub use attribute::LinkedEntities;
use attribute::{Before, Links, Style};
use writer::Writer;

use crate::context::Context;
use crate::view::{Member, View};

/// What kind of document an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Document {
    /// `application/json`: the context goes with the `Link` header.
    Json,
    /// `application/ld+json`: the context is in each entity.
    LdJson,
    /// `application/geo+json`: features; the context is at the top.
    GeoJson,
    /// `application/geo+json` with the context in the `Link` header (`Prefer: body=json`).
    GeoJsonLink,
}

impl Document {
    const fn has_context(self) -> bool {
        matches!(self, Self::LdJson | Self::GeoJson)
    }

    /// Is it GeoJSON?
    #[must_use]
    pub const fn is_geo(self) -> bool {
        matches!(self, Self::GeoJson | Self::GeoJsonLink)
    }
}

/// One entity, or one feature.
#[must_use]
pub fn entity(entity: &Entity, view: &View, context: &Context, document: Document) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    write_entity(&mut out, entity, view, context, document);
    out
}

/// One entity, or one feature, at the end of `out`: for answers that are put together from many.
pub fn write_entity(out: &mut Vec<u8>, entity: &Entity, view: &View, context: &Context, document: Document) {
    one(&mut Writer::new(out), entity, Style::plain(context, view), document);
}

/// The same with what it is linked to in its relationships, as far as `view` follows them.
#[must_use]
pub fn joined_entity(entity: &Entity, linked: &dyn LinkedEntities, view: &View, context: &Context, document: Document) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    let met = RefCell::default();
    one(&mut Writer::new(&mut out), entity, joined(entity, linked, &met, Style::plain(context, view)), document);
    out
}

fn joined<'a>(entity: &Entity, linked: &'a dyn LinkedEntities, met: &'a RefCell<HashSet<Iri>>, style: Style<'a>) -> Style<'a> {
    let Some(join) = &style.view.join else { return style };
    let mut known = met.borrow_mut();
    known.clear();
    known.extend(join.contained_by.iter().cloned().chain([entity.id.clone()]));
    drop(known);
    Style { links: Some(Links { entities: linked, levels: join.levels, met }), ..style }
}

fn one(w: &mut Writer<'_>, entity: &Entity, style: Style<'_>, document: Document) {
    if document.is_geo() {
        feature(w, entity, style, document.has_context());
        return;
    }
    w.open(b'{');
    members(w, entity, style, &|_, _| None, &|_| true);
    if document.has_context() {
        w.key("@context");
        w.value(&style.context.json());
    }
    w.close(b'}');
}

/// A list of entities: an array, or a feature collection.
#[must_use]
pub fn entities<'e>(list: impl IntoIterator<Item = &'e Entity>, view: &View, context: &Context, document: Document) -> Vec<u8> {
    written(list.into_iter().map(|e| (e, Style::plain(context, view))), context, document)
}

/// The same with what they are linked to in their relationships, as far as `view` follows them; each entity for itself.
#[must_use]
pub fn joined_entities<'e>(
    list: impl IntoIterator<Item = &'e Entity>,
    linked: &dyn LinkedEntities,
    view: &View,
    context: &Context,
    document: Document,
) -> Vec<u8> {
    let met = RefCell::default();
    let styled = list.into_iter().map(|e| (e, joined(e, linked, &met, Style::plain(context, view))));
    written(styled, context, document)
}

/// The same for entities that are not all shown with the same members.
#[must_use]
pub fn viewed_entities<'e>(list: impl IntoIterator<Item = (&'e Entity, &'e View)>, context: &'e Context, document: Document) -> Vec<u8> {
    written(list.into_iter().map(|(e, view)| (e, Style::plain(context, view))), context, document)
}

fn written<'e, 's>(list: impl Iterator<Item = (&'e Entity, Style<'s>)>, context: &Context, document: Document) -> Vec<u8> {
    let mut out = Vec::with_capacity(4096);
    let mut w = Writer::new(&mut out);
    if document.is_geo() {
        collection(&mut w, list, context, document.has_context());
        return out;
    }
    let context_json = document.has_context().then(|| context.json());
    w.open(b'[');
    for (e, style) in list {
        w.open(b'{');
        members(&mut w, e, style, &|_, _| None, &|_| true);
        if let Some(json) = &context_json {
            w.key("@context");
            w.value(json);
        }
        w.close(b'}');
    }
    w.close(b']');
    out
}

/// What an instance of an attribute was before.
type BeforeOf<'a> = &'a dyn Fn(&Iri, &Attribute) -> Before<'a>;

/// The members of an entity, without braces and context.
fn members(w: &mut Writer<'_>, e: &Entity, style: Style<'_>, before: BeforeOf<'_>, wanted: &dyn Fn(&Iri) -> bool) {
    if style.view.shows(&Member::Id) {
        w.member("id", e.id.as_str());
    }
    if style.view.shows(&Member::Type) {
        w.key("type");
        w.one_or_many(&e.types, |t| style.context.compact(t));
    }
    plain_members(w, e, style);
    attributes_of(w, e, style, before, wanted);
}

fn plain_members(w: &mut Writer<'_>, e: &Entity, style: Style<'_>) {
    if style.view.shows(&Member::Scope) {
        match e.scopes.as_slice() {
            [] => {}
            [one] => w.member("scope", one.as_str()),
            many => {
                w.key("scope");
                w.open(b'[');
                for s in many {
                    w.string(s.as_str());
                }
                w.close(b']');
            }
        }
    }
    if style.view.sys_attrs {
        w.instant_member("createdAt", e.created_at);
        w.instant_member("modifiedAt", e.modified_at);
        if let Some(at) = e.expires_at {
            w.instant_member("expiresAt", at);
        }
    }
}

fn attributes_of(w: &mut Writer<'_>, e: &Entity, style: Style<'_>, before: BeforeOf<'_>, wanted: &dyn Fn(&Iri) -> bool) {
    for (name, instances) in &e.attributes {
        if style.view.shows_attribute(name) && wanted(name) {
            style.instances(w, name, instances, &|a| before(name, a));
        }
    }
}

/// A GeoJSON feature (clause 4.5.16).
fn feature(w: &mut Writer<'_>, e: &Entity, style: Style<'_>, with_context: bool) {
    w.open(b'{');
    w.member("id", e.id.as_str());
    w.member("type", "Feature");
    w.key("geometry");
    match geometry_of(e, style.view) {
        Some(g) => w.value(g),
        None => w.value(&serde_json::Value::Null),
    }
    w.key("properties");
    w.open(b'{');
    if style.view.shows(&Member::Type) {
        w.key("type");
        w.one_or_many(&e.types, |t| style.context.compact(t));
    }
    plain_members(w, e, style);
    attributes_of(w, e, style, &|_, _| None, &|_| true);
    w.close(b'}');
    if with_context {
        w.key("@context");
        w.value(&style.context.json());
    }
    w.close(b'}');
}

/// The geometry of a feature: that of the default instance, or of the instance that is selected.
fn geometry_of<'e>(e: &'e Entity, view: &View) -> Option<&'e serde_json::Value> {
    let instances = e.attributes.get(view.geometry_property.as_ref().map_or(LOCATION, Iri::as_str))?;
    let chosen = match &view.dataset_ids {
        Some(_) => instances.iter().find(|a| view.shows_instance(a)),
        None => instances.iter().find(|a| a.dataset_id.is_none()),
    };
    match &chosen?.value {
        AttributeValue::Geo(g) => Some(g.json()),
        _ => None,
    }
}

fn collection<'e, 's>(w: &mut Writer<'_>, list: impl Iterator<Item = (&'e Entity, Style<'s>)>, context: &Context, with_context: bool) {
    w.open(b'{');
    w.member("type", "FeatureCollection");
    w.key("features");
    w.open(b'[');
    for (e, style) in list {
        feature(w, e, style, false);
    }
    w.close(b']');
    if with_context {
        w.key("@context");
        w.value(&context.json());
    }
    w.close(b'}');
}
