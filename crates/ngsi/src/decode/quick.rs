//! Batches of ordinary entities without a tree of JSON values in between.
//!
//! Nearly everything that devices and departments send is Properties with a plain value, perhaps a unit and a time. A tree costs more than all
//! the rest of decoding such an attribute: a map, four keys, and a hash of each. So an entity is split into its members, which stay text,
//! and each ordinary attribute is read straight from its text. Whatever is not ordinary goes the long way, which alone decides what is right
//! and what is said of what is wrong: this module only ever answers "like the long way" or "I do not know".

use std::fmt;

use entity::{Attribute, Attributes, Entity, Instances, Instant, Iri};
use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use smol_str::SmolStr;

use super::{ATTRIBUTES_MAX, BATCH_ITEMS_MAX, BatchItem, attribute};
use crate::NGSI_LD_NULL;
use crate::context::Context;
use crate::error::Result;

/// The items of a batch in plain JSON, if each of them is an ordinary entity.
pub(super) fn batch(bytes: &[u8], context: &Context) -> Option<Vec<BatchItem>> {
    let items: Vec<Members<'_>> = serde_json::from_slice(bytes).ok()?;
    if items.is_empty() || items.len() > BATCH_ITEMS_MAX {
        return None;
    }
    let mut memo = Memo { context, names: Vec::new(), entity_type: None, time: None };
    items.iter().map(|item| entity(item, &mut memo).map(Ok)).collect()
}

/// What one entity of a batch has in common with the one before: mostly its type, its attributes in their order, and the time.
struct Memo<'a> {
    context: &'a Context,
    names: Vec<(&'a str, Iri)>,
    entity_type: Option<(&'a str, Iri)>,
    time: Option<(&'a str, Instant)>,
}

impl<'a> Memo<'a> {
    /// The name of the attribute at a position of an entity.
    fn name(&mut self, at: usize, name: &'a str) -> Option<Iri> {
        if let Some((_, iri)) = self.names.get(at).filter(|(known, _)| *known == name) {
            return Some(iri.clone());
        }
        attribute::check_name(name).ok()?;
        let iri = self.context.expand(name).ok()?;
        self.names.truncate(at);
        if self.names.len() == at {
            self.names.push((name, iri.clone()));
        }
        Some(iri)
    }

    fn entity_type(&mut self, name: &'a str) -> Option<Iri> {
        if let Some((_, iri)) = self.entity_type.as_ref().filter(|(known, _)| *known == name) {
            return Some(iri.clone());
        }
        let iri = super::parts::vocabulary(name, self.context).ok()?;
        self.entity_type = Some((name, iri.clone()));
        Some(iri)
    }

    fn time(&mut self, text: &'a str) -> Option<Instant> {
        if let Some((_, at)) = self.time.filter(|(known, _)| *known == text) {
            return Some(at);
        }
        let at = text.parse().ok()?;
        self.time = Some((text, at));
        Some(at)
    }
}

/// An entity with an id, a type and attributes.
fn entity<'a>(members: &Members<'a>, memo: &mut Memo<'a>) -> Option<Entity> {
    let context = memo.context;
    let tree = |raw: &RawValue| super::json(raw.get().as_bytes()).ok();
    let mut id = None;
    let mut types = Vec::new();
    let (mut scopes, mut expires_at) = (Vec::new(), None);
    let mut attributes = Attributes::with_capacity_and_hasher(members.0.len(), Default::default());
    for (i, &(key, raw)) in members.0.iter().enumerate() {
        // Of members that are there twice the last one counts; that is for the long way.
        if members.0[..i].iter().any(|(earlier, _)| *earlier == key) {
            return None;
        }
        match key {
            "id" => id = Some(plain_text(raw)?.parse::<Iri>().ok()?),
            "type" => {
                types = match plain_text(raw) {
                    Some(name) => vec![memo.entity_type(name)?],
                    None => super::parts::names(&tree(raw)?, context).ok()?,
                }
            }
            "scope" => scopes = super::parts::scopes(&tree(raw)?).ok()?,
            "expiresAt" => expires_at = Some(super::instant(&tree(raw)?).ok()?),
            "createdAt" | "modifiedAt" | "deletedAt" => {}
            keyword if keyword.starts_with('@') => return None,
            name => {
                let iri = memo.name(attributes.len(), name)?;
                let instances = instances(raw, memo).ok()?;
                if attributes.len() >= ATTRIBUTES_MAX || attributes.insert(iri, instances).is_some() {
                    return None;
                }
            }
        }
    }
    let id = id.filter(|id: &Iri| id.as_str() != NGSI_LD_NULL)?;
    if types.is_empty() {
        return None;
    }
    let unset = Instant::default();
    Some(Entity { id, types, scopes, attributes, created_at: unset, modified_at: unset, expires_at })
}

fn instances<'a>(raw: &'a RawValue, memo: &mut Memo<'a>) -> Result<Instances> {
    let mut json = serde_json::Deserializer::from_str(raw.get());
    if let Ok(plain) = Plain(memo).deserialize(&mut json) {
        return Ok(plain);
    }
    let value = super::json(raw.get().as_bytes())?;
    Ok(attribute::instances(value, memo.context, 0, super::Series::No)?.into())
}

/// A string without escapes.
fn plain_text(raw: &RawValue) -> Option<&str> {
    serde_json::from_str(raw.get()).ok()
}

/// The members of an object, in their order, as text.
struct Members<'a>(Vec<(&'a str, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct OfObject;
        impl<'de> Visitor<'de> for OfObject {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Members<'de>, A::Error> {
                let mut members = Vec::with_capacity(8);
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(OfObject)
    }
}

/// Reads `{"type": "Property", "value": plain, "unitCode": text, "observedAt": time}`, the last two if they are there.
struct Plain<'m, 'a>(&'m mut Memo<'a>);

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "camelCase")]
enum Member {
    Type,
    Value,
    UnitCode,
    ObservedAt,
}

impl<'a> DeserializeSeed<'a> for Plain<'_, 'a> {
    type Value = Instances;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> std::result::Result<Instances, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'a> Visitor<'a> for Plain<'_, 'a> {
    type Value = Instances;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an ordinary Property")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> std::result::Result<Instances, A::Error> {
        let unusual = || de::Error::custom("unusual");
        let (mut is_property, mut value, mut unit_code, mut observed_at) = (false, None, None, None);
        while let Some(member) = map.next_key()? {
            let is_second = match member {
                Member::Type => std::mem::replace(&mut is_property, map.next_value::<&str>()? == "Property"),
                Member::Value => value.replace(map.next_value::<Scalar>()?.0).is_some(),
                Member::UnitCode => {
                    let text: &str = map.next_value()?;
                    if text.is_empty() || text == NGSI_LD_NULL {
                        return Err(unusual());
                    }
                    unit_code.replace(SmolStr::new(text)).is_some()
                }
                Member::ObservedAt => observed_at.replace(self.0.time(map.next_value()?).ok_or_else(unusual)?).is_some(),
            };
            if is_second {
                return Err(unusual());
            }
        }
        match value {
            Some(value) if is_property => Ok(Attribute { unit_code, observed_at, ..Attribute::property(value) }.into()),
            _ => Err(unusual()),
        }
    }
}

/// A number, a truth value or a text other than NGSI-LD Null.
struct Scalar(Value);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct OfScalar;
        impl<'de> Visitor<'de> for OfScalar {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a plain value")
            }

            fn visit_bool<E>(self, v: bool) -> std::result::Result<Scalar, E> {
                Ok(Scalar(v.into()))
            }

            fn visit_u64<E>(self, v: u64) -> std::result::Result<Scalar, E> {
                Ok(Scalar(v.into()))
            }

            fn visit_i64<E>(self, v: i64) -> std::result::Result<Scalar, E> {
                Ok(Scalar(v.into()))
            }

            fn visit_f64<E: de::Error>(self, v: f64) -> std::result::Result<Scalar, E> {
                serde_json::Number::from_f64(v).map(|n| Scalar(n.into())).ok_or_else(|| E::custom("not finite"))
            }

            fn visit_str<E: de::Error>(self, v: &str) -> std::result::Result<Scalar, E> {
                if v == NGSI_LD_NULL { Err(E::custom("null")) } else { Ok(Scalar(v.into())) }
            }

            fn visit_map<A: MapAccess<'de>>(self, _: A) -> std::result::Result<Scalar, A::Error> {
                Err(de::Error::custom("an object"))
            }
        }
        deserializer.deserialize_any(OfScalar)
    }
}
