//! Batches of ordinary entities without a tree of JSON values in between.
//!
//! Nearly everything that devices and departments send is Properties with a plain value, perhaps a unit and a time. A tree costs more than all
//! the rest of decoding such an attribute: a map, four keys, and a hash of each. So the text is read once, and ordinary attributes are made of
//! it as it is read. Of an attribute that is not ordinary a tree is made, and it goes the long way. Whatever else is unusual or wrong
//! sends the whole batch the long way, which alone decides what is right and what is said of what is wrong: this module only ever
//! answers "like the long way" or "I do not know".

use std::fmt;

use entity::{Attribute, Attributes, Entity, Instances, Instant, Iri};
use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use smol_str::SmolStr;

use super::{ATTRIBUTES_MAX, BATCH_ITEMS_MAX, BatchItem, attribute};
use crate::NGSI_LD_NULL;
use crate::context::Context;

/// About what an entity of a few attributes takes as text.
const ITEM_BYTES: usize = 512;

/// The items of a batch in plain JSON, if each of them is an ordinary entity.
pub(super) fn batch(bytes: &[u8], context: &Context) -> Option<Vec<BatchItem>> {
    let mut memo = Memo { context, names: Vec::new(), entity_type: None, time: None };
    // Looked at once: that each of its texts is UTF-8 need not be asked then.
    let mut json = serde_json::Deserializer::from_str(std::str::from_utf8(bytes).ok()?);
    let room = (bytes.len() / ITEM_BYTES).min(BATCH_ITEMS_MAX);
    let items = Items { memo: &mut memo, room }.deserialize(&mut json).ok()?;
    json.end().ok()?;
    (!items.is_empty()).then_some(items)
}

/// This is for the long way.
fn unusual<E: de::Error>() -> E {
    E::custom("unusual")
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
        let iri = self.context.expand(name).ok()?.interned();
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
        let iri = super::parts::vocabulary(name, self.context).ok()?.interned();
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

/// Reads the array of entities.
struct Items<'m, 'a> {
    memo: &'m mut Memo<'a>,
    /// For how many there is to be room at first.
    room: usize,
}

impl<'a> DeserializeSeed<'a> for Items<'_, 'a> {
    type Value = Vec<BatchItem>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'a> Visitor<'a> for Items<'_, 'a> {
    type Value = Vec<BatchItem>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of entities")
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut read: Vec<BatchItem> = Vec::with_capacity(self.room);
        let mut n_attributes = 8;
        while let Some(entity) = items.next_element_seed(OneEntity { memo: &mut *self.memo, n_attributes })? {
            if read.len() == BATCH_ITEMS_MAX {
                return Err(unusual());
            }
            n_attributes = entity.attributes.len();
            read.push(Ok(entity));
        }
        Ok(read)
    }
}

/// Reads an entity with an id, a type and attributes.
struct OneEntity<'m, 'a> {
    memo: &'m mut Memo<'a>,
    /// For how many there is to be room: those of the entity before.
    n_attributes: usize,
}

impl<'a> DeserializeSeed<'a> for OneEntity<'_, 'a> {
    type Value = Entity;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Entity, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'a> Visitor<'a> for OneEntity<'_, 'a> {
    type Value = Entity;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an entity")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut members: A) -> Result<Entity, A::Error> {
        let Self { memo, n_attributes } = self;
        let (mut id, mut types, mut scopes, mut expires_at) = (None, None, None, None);
        let mut attributes = Attributes::with_capacity_and_hasher(n_attributes, Default::default());
        while let Some(key) = members.next_key::<&str>()? {
            // Of members that are there twice the last one counts; that is for the long way.
            let is_second = match key {
                "id" => id.replace(members.next_value::<&str>()?.parse::<Iri>().map_err(|_| unusual())?).is_some(),
                "type" => {
                    let named = match members.next_value()? {
                        Text::Plain(name) => vec![memo.entity_type(name).ok_or_else(unusual)?],
                        Text::Other(tree) => super::parts::names(&tree, memo.context).map_err(|_| unusual())?,
                    };
                    types.replace(named).is_some()
                }
                "scope" => scopes.replace(super::parts::scopes(&members.next_value()?).map_err(|_| unusual())?).is_some(),
                "expiresAt" => expires_at.replace(super::instant(&members.next_value()?).map_err(|_| unusual())?).is_some(),
                "createdAt" | "modifiedAt" | "deletedAt" => {
                    members.next_value::<IgnoredAny>()?;
                    false
                }
                keyword if keyword.starts_with('@') => return Err(unusual()),
                name => {
                    let iri = memo.name(attributes.len(), name).ok_or_else(unusual)?;
                    let instances = members.next_value_seed(AttributeMembers(&mut *memo))?;
                    attributes.len() >= ATTRIBUTES_MAX || attributes.insert(iri, instances).is_some()
                }
            };
            if is_second {
                return Err(unusual());
            }
        }
        match (id, types) {
            (Some(id), Some(types)) if id.as_str() != NGSI_LD_NULL && !types.is_empty() => {
                let unset = Instant::default();
                Ok(Entity { id, types, scopes: scopes.unwrap_or_default(), attributes, created_at: unset, modified_at: unset, expires_at })
            }
            _ => Err(unusual()),
        }
    }
}

/// Reads an attribute, of which `{"type": "Property", "value": plain, "unitCode": text, "observedAt": time}`, the last two if they are
/// there, is the ordinary form.
struct AttributeMembers<'m, 'a>(&'m mut Memo<'a>);

impl AttributeMembers<'_, '_> {
    /// The long way.
    fn of_tree<E: de::Error>(self, tree: Value) -> Result<Instances, E> {
        let instances = attribute::instances(tree, self.0.context, 0, super::Series::No).map_err(|_| unusual())?;
        Ok(instances.into())
    }
}

impl<'a> DeserializeSeed<'a> for AttributeMembers<'_, 'a> {
    type Value = Instances;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Instances, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for AttributeMembers<'_, 'a> {
    type Value = Instances;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an attribute")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut members: A) -> Result<Instances, A::Error> {
        let (mut kind, mut value, mut unit_code, mut observed) = (None, None, None, None);
        // What makes the attribute an unusual one.
        let mut others = Map::new();
        while let Some(key) = members.next_key::<&str>()? {
            let is_second = match key {
                "type" => match members.next_value()? {
                    Text::Plain(name) => kind.replace(name).is_some(),
                    Text::Other(tree) => others.insert(key.to_owned(), tree).is_some(),
                },
                "value" => value.replace(members.next_value::<Value>()?).is_some(),
                "unitCode" => match members.next_value()? {
                    Text::Plain(text) => unit_code.replace(text).is_some(),
                    Text::Other(tree) => others.insert(key.to_owned(), tree).is_some(),
                },
                "observedAt" => match members.next_value()? {
                    Text::Plain(text) => observed.replace(text).is_some(),
                    Text::Other(tree) => others.insert(key.to_owned(), tree).is_some(),
                },
                other => others.insert(other.to_owned(), members.next_value()?).is_some(),
            };
            if is_second {
                return Err(unusual());
            }
        }
        let is_plain = match &value {
            Some(Value::String(text)) => text != NGSI_LD_NULL,
            Some(Value::Bool(_) | Value::Number(_)) => true,
            _ => false,
        };
        if is_plain && others.is_empty() && kind == Some("Property") && !unit_code.is_some_and(|u| u.is_empty() || u == NGSI_LD_NULL) {
            let observed_at = match observed {
                Some(text) => Some(self.0.time(text).ok_or_else(unusual)?),
                None => None,
            };
            let value = value.ok_or_else(unusual)?;
            return Ok(Attribute { unit_code: unit_code.map(SmolStr::new), observed_at, ..Attribute::property(value) }.into());
        }
        let texts = [("type", kind), ("unitCode", unit_code), ("observedAt", observed)];
        let texts = texts.into_iter().filter_map(|(key, text)| Some((key, Value::from(text?))));
        for (key, member) in texts.chain(value.map(|v| ("value", v))) {
            if others.insert(key.to_owned(), member).is_some() {
                return Err(unusual());
            }
        }
        self.of_tree(Value::Object(others))
    }

    fn visit_seq<A: SeqAccess<'a>>(self, items: A) -> Result<Instances, A::Error> {
        self.of_tree(Value::deserialize(SeqAccessDeserializer::new(items))?)
    }

    fn visit_bool<E: de::Error>(self, v: bool) -> Result<Instances, E> {
        self.of_tree(v.into())
    }

    fn visit_u64<E: de::Error>(self, v: u64) -> Result<Instances, E> {
        self.of_tree(v.into())
    }

    fn visit_i64<E: de::Error>(self, v: i64) -> Result<Instances, E> {
        self.of_tree(v.into())
    }

    fn visit_f64<E: de::Error>(self, v: f64) -> Result<Instances, E> {
        self.of_tree(v.into())
    }

    fn visit_str<E: de::Error>(self, v: &str) -> Result<Instances, E> {
        self.of_tree(v.into())
    }
}

/// A string without escapes, or something else.
enum Text<'a> {
    Plain(&'a str),
    Other(Value),
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfText;
        impl<'de> Visitor<'de> for OfText {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, v: &'de str) -> Result<Text<'de>, E> {
                Ok(Text::Plain(v))
            }

            fn visit_str<E>(self, v: &str) -> Result<Text<'de>, E> {
                Ok(Text::Other(v.into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Text<'de>, A::Error> {
                Value::deserialize(SeqAccessDeserializer::new(items)).map(Text::Other)
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Text<'de>, A::Error> {
                Value::deserialize(MapAccessDeserializer::new(members)).map(Text::Other)
            }
        }
        deserializer.deserialize_any(OfText)
    }
}
