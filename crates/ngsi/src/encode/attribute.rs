//! Attributes of all kinds in the three forms (ETSI GS CIM 009 V1.9.1, clauses 4.5.2 to 4.5.4).

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashSet;

use entity::{Attribute, AttributeValue, Entity, Instant, Iri, Qualifiers};
use indexmap::IndexMap;
use serde_json::Value;
use smol_str::SmolStr;

use super::writer::Writer;
use crate::DEFAULT_INSTANCE;
use crate::context::Context;
use crate::decode::reads_as_plain_value;
use crate::view::{Representation, View};

/// How attributes are written.
#[derive(Clone, Copy)]
pub(super) struct Style<'a> {
    pub(super) context: &'a Context,
    pub(super) view: &'a View,
    /// A recorded time that is shown even without `sysAttrs`, because it was asked about.
    pub(super) shown_time: Option<&'static str>,
    /// Entities to show in the relationships that lead to them.
    pub(super) links: Option<Links<'a>>,
}

/// Entities that relationships lead to.
pub trait LinkedEntities {
    /// The entity with this id, if it is one of them.
    fn linked(&self, id: &Iri) -> Option<&Entity>;
}

/// Entities to show in relationships (clause 4.5.23).
#[derive(Clone, Copy)]
pub(super) struct Links<'a> {
    pub(super) entities: &'a dyn LinkedEntities,
    /// How many relationships are followed from here on.
    pub(super) levels: usize,
    /// What is shown already: it is not shown again.
    pub(super) met: &'a RefCell<HashSet<Iri>>,
}

impl<'a> Links<'a> {
    /// The entity behind a target, if it is not shown yet; it is, then.
    fn take(&self, id: &Iri) -> Option<&'a Entity> {
        if self.levels == 0 || self.met.borrow().contains(id) {
            return None;
        }
        let entity = self.entities.linked(id)?;
        self.met.borrow_mut().insert(id.clone());
        Some(entity)
    }
}

/// What an attribute was before, to be shown beside what it is (`showChanges`).
pub(super) type Before<'a> = Option<&'a Attribute>;

impl<'a> Style<'a> {
    /// A plain answer: nothing linked, no further time.
    pub(super) const fn plain(context: &'a Context, view: &'a View) -> Self {
        Self { context, view, shown_time: None, links: None }
    }

    /// The instances of one attribute that the view shows: one as itself, several as an array. False if there is none to show.
    pub(super) fn instances<'b>(
        &self,
        w: &mut Writer<'_>,
        name: &Iri,
        instances: &[Attribute],
        before: &dyn Fn(&Attribute) -> Before<'b>,
    ) -> bool {
        let mut shown = instances.iter().filter(|a| self.view.shows_instance(a));
        let Some(first) = shown.next() else { return false };
        let Some(second) = shown.next() else {
            w.key(&self.context.compact(name));
            match self.view.representation {
                Representation::Simplified => self.simplified(w, name, first),
                Representation::Concise if before(first).is_none() && self.bare(w, first) => {}
                _ => self.instance(w, Some(name), first, before(first)),
            }
            return true;
        };
        w.key(&self.context.compact(name));
        let all = [first, second].into_iter().chain(shown);
        if self.view.representation == Representation::Simplified {
            w.open(b'{');
            w.key("dataset");
            w.open(b'{');
            for a in all {
                w.key(a.dataset_id.as_ref().map_or(DEFAULT_INSTANCE, Iri::as_str));
                self.simplified(w, name, a);
            }
            w.close(b'}');
            w.close(b'}');
        } else {
            w.open(b'[');
            for a in all {
                self.instance(w, Some(name), a, before(a));
            }
            w.close(b']');
        }
        true
    }

    /// Writes the bare value if the concise form allows it; in an array of instances it does not.
    fn bare(&self, w: &mut Writer<'_>, a: &Attribute) -> bool {
        match &a.value {
            AttributeValue::Property(v) if reads_as_plain_value(v) && self.is_bare(a) => w.value(v),
            AttributeValue::Geo(g) if self.is_bare(a) => w.value(g.json()),
            _ => return false,
        }
        true
    }

    /// One instance as an object, normalized or concise; `name` is that of the attribute if what it leads to may be shown in it.
    pub(super) fn instance(&self, w: &mut Writer<'_>, name: Option<&Iri>, a: &Attribute, before: Before<'_>) {
        w.open(b'{');
        self.value_members(w, a, self.view.representation == Representation::Concise);
        if let (Some(links), Some(name)) = (self.links, name) {
            self.linked_member(w, links, name, &a.value);
        }
        if let Some(previous) = before {
            previous_member(w, self.context, &previous.value);
        }
        self.other_members(w, a);
        w.close(b'}');
    }

    /// `entity` or `entityList`: what a relationship leads to.
    fn linked_member(&self, w: &mut Writer<'_>, links: Links<'a>, name: &Iri, value: &AttributeValue) {
        let (member, iris) = match value {
            AttributeValue::Relationship(iris) => ("entity", iris),
            AttributeValue::ListRelationship(iris) => ("entityList", iris),
            _ => return,
        };
        let found: Vec<&Entity> = iris.iter().filter_map(|id| links.take(id)).collect();
        if found.is_empty() {
            return;
        }
        let is_list = member == "entityList" || iris.len() > 1;
        w.key(member);
        if is_list {
            w.open(b'[');
        }
        for entity in found {
            self.linked_entity(w, links, name, entity);
        }
        if is_list {
            w.close(b']');
        }
    }

    fn linked_entity(&self, w: &mut Writer<'_>, links: Links<'a>, name: &Iri, entity: &Entity) {
        let view = self.view.of_linked(name);
        let style = Style { view: &view, links: Some(Links { levels: links.levels - 1, ..links }), ..*self };
        w.open(b'{');
        super::members(w, entity, style, &|_, _| None, &|_| true);
        w.close(b'}');
    }

    /// The targets of a relationship in simplified form, those that are known as what they are.
    fn linked_targets(&self, w: &mut Writer<'_>, links: Links<'a>, name: &Iri, iris: &[Iri], is_list: bool) {
        if is_list {
            w.open(b'[');
        }
        for id in iris {
            match links.take(id) {
                Some(entity) => self.linked_entity(w, links, name, entity),
                None => w.string(id.as_str()),
            }
        }
        if is_list {
            w.close(b']');
        }
    }

    /// Has it nothing to say but its value?
    fn is_bare(&self, a: &Attribute) -> bool {
        a.dataset_id.is_none()
            && a.observed_at.is_none()
            && a.unit_code.is_none()
            && a.sub_attributes.is_empty()
            && !self.view.sys_attrs
            && self.shown_time.is_none()
            && a.qualifiers.as_ref().is_none_or(|q| q.object_types.is_empty() && q.value_type.is_none())
    }

    pub(super) fn value_members(&self, w: &mut Writer<'_>, a: &Attribute, concise: bool) {
        if let (AttributeValue::Language(map), Some(lang)) = (&a.value, &self.view.lang)
            && let Some((tag, text)) = lang.best(map)
        {
            // With a language filter a LanguageProperty becomes a Property (clause 4.15).
            if !concise {
                w.member("type", "Property");
            }
            w.key("value");
            w.value(text);
            return w.member("lang", tag);
        }
        // The one thing that the concise form cannot say is a Property whose value is a geometry.
        let needs_type = !concise || matches!(&a.value, AttributeValue::Property(v) if !reads_as_plain_value(v));
        if needs_type {
            w.member("type", a.value.kind().name());
        }
        match &a.value {
            AttributeValue::Property(v) => {
                w.key("value");
                w.value(v);
            }
            AttributeValue::Geo(g) => {
                w.key("value");
                w.value(g.json());
            }
            AttributeValue::Relationship(iris) => {
                w.key("object");
                w.one_or_many(iris, plain);
            }
            AttributeValue::Language(map) => {
                w.key("languageMap");
                language_map(w, map);
            }
            AttributeValue::Vocab(iris) => {
                w.key("vocab");
                w.one_or_many(iris, |i| self.context.compact(i));
            }
            AttributeValue::Json(v) => {
                w.key("json");
                w.value(v);
            }
            AttributeValue::List(list) => {
                w.key("valueList");
                values(w, list);
            }
            AttributeValue::ListRelationship(iris) => {
                w.key("objectList");
                object_list(w, iris, concise);
            }
        }
    }

    pub(super) fn other_members(&self, w: &mut Writer<'_>, a: &Attribute) {
        if let Some(d) = &a.dataset_id {
            w.member("datasetId", d.as_str());
        }
        if let Some(at) = a.observed_at {
            w.instant_member("observedAt", at);
        }
        if let Some(u) = &a.unit_code {
            w.member("unitCode", u);
        }
        if let Some(q) = &a.qualifiers {
            self.qualifiers(w, q);
        }
        self.recorded_times(w, a.created_at, a.modified_at);
        // A selection by datasetId concerns the attributes of the entity, not theirs.
        let unselected = self.view.dataset_ids.as_ref().map(|_| View { dataset_ids: None, ..self.view.clone() });
        let style = Style { view: unselected.as_ref().unwrap_or(self.view), links: None, ..*self };
        for (name, instances) in &a.sub_attributes {
            style.instances(w, name, instances, &|_| None);
        }
    }

    fn qualifiers(&self, w: &mut Writer<'_>, q: &Qualifiers) {
        if !q.object_types.is_empty() {
            w.key("objectType");
            w.one_or_many(&q.object_types, |i| self.context.compact(i));
        }
        if let Some(t) = &q.value_type {
            w.member("valueType", &self.context.compact(t));
        }
        if let Some(at) = q.expires_at.filter(|_| self.view.sys_attrs) {
            w.instant_member("expiresAt", at);
        }
    }

    pub(super) fn recorded_times(&self, w: &mut Writer<'_>, created_at: Instant, modified_at: Instant) {
        if self.view.sys_attrs || self.shown_time == Some("createdAt") {
            w.instant_member("createdAt", created_at);
        }
        if self.view.sys_attrs || self.shown_time == Some("modifiedAt") {
            w.instant_member("modifiedAt", modified_at);
        }
    }

    /// Only the value (clause 4.5.4).
    pub(super) fn simplified(&self, w: &mut Writer<'_>, name: &Iri, a: &Attribute) {
        if let (AttributeValue::Language(map), Some(lang)) = (&a.value, &self.view.lang)
            && let Some((_, text)) = lang.best(map)
        {
            return w.value(text);
        }
        match (&a.value, self.links) {
            (AttributeValue::Relationship(iris), Some(links)) => self.linked_targets(w, links, name, iris, iris.len() > 1),
            (AttributeValue::ListRelationship(iris), Some(links)) => self.linked_targets(w, links, name, iris, true),
            (value, _) => self.raw_value(w, value),
        }
    }

    /// A value as the simplified forms have it: raw, but texts, vocabularies and JSON wrapped.
    pub(super) fn raw_value(&self, w: &mut Writer<'_>, value: &AttributeValue) {
        match value {
            AttributeValue::Property(v) => w.value(v),
            AttributeValue::Geo(g) => w.value(g.json()),
            AttributeValue::Relationship(iris) => w.one_or_many(iris, plain),
            AttributeValue::List(list) => values(w, list),
            AttributeValue::ListRelationship(iris) => object_list(w, iris, true),
            AttributeValue::Language(map) => {
                w.open(b'{');
                w.key("languageMap");
                language_map(w, map);
                w.close(b'}');
            }
            AttributeValue::Vocab(iris) => {
                w.open(b'{');
                w.key("vocab");
                w.one_or_many(iris, |i| self.context.compact(i));
                w.close(b'}');
            }
            AttributeValue::Json(v) => {
                w.open(b'{');
                w.key("json");
                w.value(v);
                w.close(b'}');
            }
        }
    }
}

fn plain(iri: &Iri) -> Cow<'_, str> {
    Cow::Borrowed(iri.as_str())
}

fn values(w: &mut Writer<'_>, list: &[Value]) {
    w.open(b'[');
    for v in list {
        w.value(v);
    }
    w.close(b']');
}

fn language_map(w: &mut Writer<'_>, map: &IndexMap<SmolStr, Value>) {
    w.open(b'{');
    for (tag, text) in map {
        w.key(tag);
        w.value(text);
    }
    w.close(b'}');
}

/// Bare URIs in the short forms, `{"object": uri}` in the normalized one (clause 4.5.22).
fn object_list(w: &mut Writer<'_>, iris: &[Iri], bare: bool) {
    w.open(b'[');
    for iri in iris {
        if bare {
            w.string(iri.as_str());
        } else {
            w.open(b'{');
            w.member("object", iri.as_str());
            w.close(b'}');
        }
    }
    w.close(b']');
}

/// `previousValue` and its sisters (clause 5.2.5 and following).
pub(super) fn previous_member(w: &mut Writer<'_>, context: &Context, before: &AttributeValue) {
    match before {
        AttributeValue::Property(v) => {
            w.key("previousValue");
            w.value(v);
        }
        AttributeValue::Geo(g) => {
            w.key("previousValue");
            w.value(g.json());
        }
        AttributeValue::Relationship(iris) => {
            w.key("previousObject");
            w.one_or_many(iris, plain);
        }
        AttributeValue::Language(map) => {
            w.key("previousLanguageMap");
            language_map(w, map);
        }
        AttributeValue::Vocab(iris) => {
            w.key("previousVocab");
            w.one_or_many(iris, |i| context.compact(i));
        }
        AttributeValue::Json(v) => {
            w.key("previousJson");
            w.value(v);
        }
        AttributeValue::List(list) => {
            w.key("previousValueList");
            values(w, list);
        }
        AttributeValue::ListRelationship(iris) => {
            w.key("previousObjectList");
            object_list(w, iris, false);
        }
    }
}
