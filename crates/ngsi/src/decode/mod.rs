//! From JSON to entities, normalized or concise (ETSI GS CIM 009 V1.9.1, clauses 4.5.2 to 4.5.24 and 5.2).
//!
//! Everything is checked; members that only a broker may set (`createdAt`, `instanceId`, ...) are passed over as the standard asks.
//! Deleting by NGSI-LD Null belongs to patch operations ([`entity_patch`], [`attribute_patch`]) and is refused elsewhere.

mod attribute;
mod body;
mod evolution;
mod parts;
mod patch;
mod quick;
mod registration;
mod subscription;
#[cfg(test)]
mod tests;

use entity::{Attribute, Attributes, Entity, Instant, Iri};
use serde_json::{Map, Value};

pub use attribute::{INSTANCES_MAX, SUB_ATTRIBUTE_DEPTH_MAX};
pub use body::{BATCH_ITEMS_MAX, Body, BodyItem, MediaType, body, json};
pub use evolution::{INSTANCES_IN_EVOLUTION_MAX, evolution, evolution_fragment, evolution_instance};
pub use patch::{PatchForm, attribute_patch, entity_patch};
pub use registration::{INFORMATION_MAX, conformance, patched_registration, registration};
pub use subscription::{
    Conditions, Endpoint, EntitySelector, KeyValue, Notification, NotificationFormat, Subscription, Trigger, WATCHED_MAX,
    patched_subscription, subscription,
};

pub(crate) use attribute::reads_as_plain_value;
pub(crate) use parts::{instant, iri, list_of_strings, string};
pub(crate) use registration::scope_texts;
pub(crate) use subscription::selector;

use crate::context::Context;
use crate::error::{Error, Result, described, shown};

/// The most attributes one entity, and one attribute, may have.
pub const ATTRIBUTES_MAX: usize = 1_000;

/// The most types or scopes one entity may have.
pub const TYPES_MAX: usize = 100;

/// An entity: id and at least one type are mandatory (clause 5.2.4).
///
/// `context` is the one of the request; a member `@context` is passed over. Errors: [`crate::ErrorKind::BadRequestData`].
pub fn entity(value: Value, context: &Context) -> Result<Entity> {
    let parts = entity_parts(value, context, Series::No)?;
    let id = parts.id.ok_or_else(|| Error::bad("the mandatory member `id` is missing").within("entity"))?;
    if parts.types.is_empty() {
        return Err(Error::bad("the mandatory member `type` is missing").within("entity"));
    }
    Ok(Entity { id, ..Entity::from(Parts { id: None, ..parts }) })
}

/// What to change in entity `id`: id and type may be absent; an id that is there must be `id` (clause 5.4).
///
/// The entity has no type if the fragment has none. Errors: as [`entity`].
pub fn fragment(value: Value, id: &Iri, context: &Context) -> Result<Entity> {
    let parts = entity_parts(value, context, Series::No)?;
    if let Some(found) = parts.id.as_ref().filter(|found| *found != id) {
        return Err(Error::bad(format!("`{found}` is not the entity that the request is about, `{id}`")).within("id"));
    }
    Ok(Entity { id: id.clone(), ..Entity::from(Parts { id: None, ..parts }) })
}

/// The instances of one attribute, `name` being its short or full name: one object or bare value, or an array of instances told apart by
/// `datasetId`.
///
/// Errors: as [`entity`].
pub fn attribute(name: &str, value: Value, context: &Context) -> Result<(Iri, Vec<Attribute>)> {
    let at = |e: Error| e.within(&format!("attribute {}", shown(name)));
    let iri = context.expand(name).map_err(at)?;
    attribute::check_name(name).map_err(at)?;
    let instances = attribute::instances(value, context, 0, Series::No).map_err(at)?;
    Ok((iri, instances))
}

/// One item of a batch: an entity, or the id as far as it could be read and what is wrong.
pub type BatchItem<T = Entity> = std::result::Result<T, (Option<Iri>, Error)>;

/// The entities of a batch (clauses 5.6.7 to 5.6.9), each for itself.
///
/// Errors: the body as a whole is wrong: not an array, empty, too long, or with a null item.
pub fn batch(body: Body) -> Result<Vec<BatchItem>> {
    items(body, |value, _, context| entity(value, context))
}

/// The patches of a batch merge (clause 5.6.20), each for itself; each names its entity.
///
/// Errors: as [`batch`].
pub fn batch_patches(body: Body, form: PatchForm) -> Result<Vec<BatchItem<entity::EntityPatch>>> {
    items(body, |value, id, context| {
        let id = id.ok_or_else(|| Error::bad("the mandatory member `id` is missing, or is not a URI").within("entity"))?;
        entity_patch(value, id, form, context)
    })
}

fn items<T>(body: Body, read: impl Fn(Value, Option<&Iri>, &Context) -> Result<T>) -> Result<Vec<BatchItem<T>>> {
    let items = body.into_items()?;
    let read = |item: BodyItem| {
        let (value, context) = item.map_err(|(id, e)| (id.as_deref().and_then(|s| s.parse().ok()), e))?;
        let id = value.get("id").or_else(|| value.get("@id")).and_then(Value::as_str).and_then(|s| s.parse::<Iri>().ok());
        read(value, id.as_ref(), &context).map_err(|e| (id, e))
    };
    Ok(items.into_iter().map(read).collect())
}

/// The same for a body of type `application/json` whose context is `context`, much quicker; none if the body is not only well-formed ordinary
/// entities, so that [`body`] and [`batch`] must judge it.
#[must_use]
pub fn plain_batch(bytes: &[u8], context: &Context) -> Option<Vec<BatchItem>> {
    quick::batch(bytes, context)
}

/// The ids of a batch delete (clause 5.6.10).
///
/// Errors: not a non-empty array of URIs.
pub fn batch_ids(value: Value) -> Result<Vec<Iri>> {
    let Value::Array(list) = value else {
        return Err(Error::bad(format!("expected an array of entity ids, found {}", described(&value))));
    };
    if list.is_empty() {
        return Err(Error::bad("the array of entity ids is empty"));
    }
    if list.len() > BATCH_ITEMS_MAX {
        return Err(Error::bad(format!("{} items are more than the limit of {BATCH_ITEMS_MAX}", list.len())));
    }
    list.iter().enumerate().map(|(i, v)| iri(v).map_err(|e| e.within(&format!("item {i}")))).collect()
}

/// Whether an array of instances is a series in time, in which a `datasetId` may occur again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Series {
    Yes,
    No,
}

/// The members of an entity as far as they are there.
#[derive(Debug, Default)]
struct Parts {
    id: Option<Iri>,
    types: Vec<Iri>,
    scopes: Vec<entity::Scope>,
    expires_at: Option<Instant>,
    attributes: Attributes,
}

impl From<Parts> for Entity {
    fn from(p: Parts) -> Self {
        Self {
            id: p.id.unwrap_or_else(|| Iri::known("urn:ngsi-ld:none")),
            types: p.types,
            scopes: p.scopes,
            attributes: p.attributes,
            created_at: Instant::default(),
            modified_at: Instant::default(),
            expires_at: p.expires_at,
        }
    }
}

fn entity_parts(value: Value, context: &Context, series: Series) -> Result<Parts> {
    let Value::Object(map) = value else {
        return Err(Error::bad(format!("expected an entity (a JSON object), found {}", described(&value))));
    };
    let mut parts = Parts::default();
    for (key, value) in map {
        match key.as_str() {
            "id" | "@id" => {
                if parts.id.replace(iri(&value).map_err(|e| e.within("id"))?).is_some() {
                    return Err(Error::bad("given twice, as `id` and as `@id`").within("id"));
                }
            }
            "type" | "@type" => {
                if !parts.types.is_empty() {
                    return Err(Error::bad("given twice, as `type` and as `@type`").within("type"));
                }
                let names = parts::names(&value, context).map_err(|e| e.within("type"))?;
                parts.types = names.iter().map(Iri::interned).collect();
            }
            "scope" if series == Series::Yes && !is_plain_scope(&value) => {
                parts.scopes = parts::scopes_of_series(&value).map_err(|e| e.within("scope"))?;
            }
            "scope" => parts.scopes = parts::scopes(&value).map_err(|e| e.within("scope"))?,
            "expiresAt" => parts.expires_at = Some(instant(&value).map_err(|e| e.within("expiresAt"))?),
            "@context" | "createdAt" | "modifiedAt" | "deletedAt" => {}
            _ => put_attribute(&mut parts.attributes, &key, value, context, series)?,
        }
    }
    Ok(parts)
}

fn is_plain_scope(value: &Value) -> bool {
    match value {
        Value::String(_) => true,
        Value::Array(list) => list.iter().all(Value::is_string),
        _ => false,
    }
}

fn put_attribute(attributes: &mut Attributes, key: &str, value: Value, context: &Context, series: Series) -> Result<()> {
    let at = |e: Error| e.within(&format!("attribute {}", shown(key)));
    attribute::check_name(key).map_err(at)?;
    let name = context.expand(key).map_err(at)?.interned();
    if attributes.len() >= ATTRIBUTES_MAX {
        return Err(Error::bad(format!("more than {ATTRIBUTES_MAX} attributes in one entity")));
    }
    let instances = attribute::instances(value, context, 0, series).map_err(at)?;
    if attributes.insert(name, instances.into()).is_some() {
        return Err(at(Error::bad("given twice under different names that mean the same")));
    }
    Ok(())
}

/// The members of an object, for readers of other documents.
pub(crate) fn object(value: Value, what: &str) -> Result<Map<String, Value>> {
    match value {
        Value::Object(map) => Ok(map),
        other => Err(Error::bad(format!("expected {what} (a JSON object), found {}", described(&other)))),
    }
}
