//! What a subscriber receives (ETSI GS CIM 009 V1.9.1, clauses 5.3.1 and 5.8.6).

use std::cell::RefCell;

use entity::{Attribute, AttributeValue, Entity, Instant, Iri};

use super::attribute::{LinkedEntities, Style, previous_member};
use super::writer::Writer;
use super::{Document, collection, joined, members};
use crate::context::Context;
use crate::view::{JoinStyle, Member, Representation, View};
use crate::{DEFAULT_INSTANCE, NGSI_LD_NULL};

/// One entity of a notification.
#[derive(Debug, Clone)]
pub enum Change<'a> {
    /// The entity is there.
    Present {
        /// As it is now.
        entity: &'a Entity,
        /// As it was before; with `showChanges`, values that differ are shown beside the present ones.
        before: Option<&'a Entity>,
        /// Attribute instances that went away, each as it was.
        removed: Vec<(&'a Iri, &'a Attribute)>,
    },
    /// The entity is gone.
    Deleted {
        /// As it was.
        entity: &'a Entity,
        /// Since when.
        at: Instant,
    },
}

/// A notification.
#[derive(Debug, Clone)]
pub struct NotificationBody<'a> {
    /// Its id.
    pub id: &'a Iri,
    /// The subscription.
    pub subscription_id: &'a Iri,
    /// When it is sent.
    pub notified_at: Instant,
    /// The entities.
    pub data: &'a [Change<'a>],
    /// Previous values are shown (`showChanges`).
    pub show_changes: bool,
}

/// The body of a notification in the form that the endpoint accepts.
///
/// As features, entities that are gone are left out: a deletion has no feature.
#[must_use]
pub fn notification(n: &NotificationBody<'_>, view: &View, context: &Context, document: Document) -> Vec<u8> {
    joined_notification(n, &NoLinks, &[], view, context, document)
}

struct NoLinks;

impl LinkedEntities for NoLinks {
    fn linked(&self, _: &Iri) -> Option<&Entity> {
        None
    }
}

/// The same with what the entities are linked to: in their relationships, as far as `view` follows them, or `behind` them.
#[must_use]
pub fn joined_notification(
    n: &NotificationBody<'_>,
    linked: &dyn LinkedEntities,
    behind: &[(&Entity, View)],
    view: &View,
    context: &Context,
    document: Document,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(4096);
    let mut w = Writer::new(&mut out);
    let plain = Style::plain(context, view);
    let met = RefCell::default();
    let is_inline = view.join.as_ref().is_some_and(|j| j.style == JoinStyle::Inline);
    let style_of = |e: &Entity| if is_inline { joined(e, linked, &met, plain) } else { plain };
    let behind = behind.iter().map(|(e, view)| (*e, Style::plain(context, view)));
    w.open(b'{');
    w.member("id", n.id.as_str());
    w.member("type", "Notification");
    w.member("subscriptionId", n.subscription_id.as_str());
    w.instant_member("notifiedAt", n.notified_at);
    w.key("data");
    if document.is_geo() {
        let present = n.data.iter().filter_map(|c| match c {
            Change::Present { entity, .. } => Some((*entity, style_of(entity))),
            Change::Deleted { .. } => None,
        });
        collection(&mut w, present.chain(behind), context, false);
    } else {
        w.open(b'[');
        for change in n.data {
            w.open(b'{');
            let style = match change {
                Change::Present { entity, .. } => style_of(entity),
                Change::Deleted { .. } => plain,
            };
            write_change(&mut w, change, style, n);
            w.close(b'}');
        }
        for (entity, style) in behind {
            w.open(b'{');
            members(&mut w, entity, style, &|_, _| None, &|_| true);
            w.close(b'}');
        }
        w.close(b']');
    }
    if document.has_context() {
        w.key("@context");
        w.value(&context.json());
    }
    w.close(b'}');
    out
}

fn write_change(w: &mut Writer<'_>, change: &Change<'_>, style: Style<'_>, n: &NotificationBody<'_>) {
    match change {
        Change::Present { entity, before, removed } => {
            let previous = |name: &Iri, a: &Attribute| {
                let before = (*before).filter(|_| n.show_changes)?;
                before.instance(name.as_str(), a.dataset_id.as_ref()).filter(|b| b.value != a.value)
            };
            let (partly, wholly): (Vec<_>, Vec<_>) = removed
                .iter()
                .filter(|(name, was)| style.view.shows_attribute(name) && style.view.shows_instance(was))
                .partition(|(name, _)| entity.attributes.get(*name).is_some_and(|l| l.iter().any(|a| style.view.shows_instance(a))));
            let is_partly = |name: &Iri| partly.iter().any(|(n, _)| *n == name);
            members(w, entity, style, &previous, &|name| !is_partly(name));
            for (name, instances) in entity.attributes.iter().filter(|(name, _)| is_partly(name)) {
                let gone: Vec<&Attribute> = partly.iter().filter(|(n, _)| *n == name).map(|(_, was)| *was).collect();
                partly_removed(w, name, instances, &gone, style, n, &previous);
            }
            for (name, was) in wholly {
                w.key(&style.context.compact(name));
                removed_instance(w, was, n.notified_at, style, n.show_changes);
            }
        }
        Change::Deleted { entity, at } => {
            w.member("id", entity.id.as_str());
            if style.view.shows(&Member::Type) {
                w.key("type");
                w.one_or_many(&entity.types, |t| style.context.compact(t));
            }
            if style.view.sys_attrs {
                w.instant_member("createdAt", entity.created_at);
                w.instant_member("modifiedAt", entity.modified_at);
            }
            w.instant_member("deletedAt", *at);
            if n.show_changes {
                for (name, instances) in entity.attributes.iter().filter(|(name, _)| style.view.shows_attribute(name)) {
                    if let Some(was) = instances.iter().find(|a| style.view.shows_instance(a)) {
                        w.key(&style.context.compact(name));
                        removed_instance(w, was, *at, style, true);
                    }
                }
            }
        }
    }
}

/// An attribute that keeps some of its instances and lost others: all of them side by side.
fn partly_removed<'b>(
    w: &mut Writer<'_>,
    name: &Iri,
    instances: &[Attribute],
    gone: &[&Attribute],
    style: Style<'_>,
    n: &NotificationBody<'_>,
    previous: &dyn Fn(&Iri, &Attribute) -> Option<&'b Attribute>,
) {
    let kept = instances.iter().filter(|a| style.view.shows_instance(a));
    w.key(&style.context.compact(name));
    if style.view.representation == Representation::Simplified {
        w.open(b'{');
        w.key("dataset");
        w.open(b'{');
        for a in kept {
            w.key(a.dataset_id.as_ref().map_or(DEFAULT_INSTANCE, Iri::as_str));
            style.simplified(w, name, a);
        }
        for was in gone {
            w.member(was.dataset_id.as_ref().map_or(DEFAULT_INSTANCE, Iri::as_str), NGSI_LD_NULL);
        }
        w.close(b'}');
        w.close(b'}');
        return;
    }
    w.open(b'[');
    for a in kept {
        style.instance(w, Some(name), a, previous(name, a));
    }
    for was in gone {
        removed_object(w, was, n.notified_at, style, n.show_changes);
    }
    w.close(b']');
}

/// An instance that is gone: NGSI-LD Null, in the simple case bare (clause 5.8.6).
fn removed_instance(w: &mut Writer<'_>, was: &Attribute, at: Instant, style: Style<'_>, show_changes: bool) {
    let simple = was.dataset_id.is_none() && !style.view.sys_attrs && !show_changes;
    if simple || style.view.representation == Representation::Simplified {
        w.string(NGSI_LD_NULL);
    } else {
        removed_object(w, was, at, style, show_changes);
    }
}

/// An instance that is gone, as an object.
pub(super) fn removed_object(w: &mut Writer<'_>, was: &Attribute, at: Instant, style: Style<'_>, show_changes: bool) {
    w.open(b'{');
    w.member("type", was.value.kind().name());
    match &was.value {
        AttributeValue::Property(_) | AttributeValue::Geo(_) => w.member("value", NGSI_LD_NULL),
        AttributeValue::Relationship(_) => w.member("object", NGSI_LD_NULL),
        AttributeValue::Vocab(_) => w.member("vocab", NGSI_LD_NULL),
        AttributeValue::Json(_) => w.member("json", NGSI_LD_NULL),
        AttributeValue::Language(_) => {
            w.key("languageMap");
            w.open(b'{');
            w.member(DEFAULT_INSTANCE, NGSI_LD_NULL);
            w.close(b'}');
        }
        AttributeValue::List(_) => null_list(w, "valueList"),
        AttributeValue::ListRelationship(_) => null_list(w, "objectList"),
    }
    if let Some(d) = &was.dataset_id {
        w.member("datasetId", d.as_str());
    }
    if show_changes {
        previous_member(w, style.context, &was.value);
    }
    w.instant_member("deletedAt", at);
    w.close(b'}');
}

fn null_list(w: &mut Writer<'_>, member: &str) {
    w.key(member);
    w.open(b'[');
    w.string(NGSI_LD_NULL);
    w.close(b']');
}
