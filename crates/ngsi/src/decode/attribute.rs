//! Attributes of all kinds.

use entity::{Attribute, AttributeKind as Kind, AttributeValue, Geometry, Instant, Iri, NGSI_LD_NS, Qualifiers, SubAttributes};
use indexmap::IndexMap;
use serde_json::{Map, Value};
use smol_str::SmolStr;

use super::parts::{check_value, geometry, iri, iris, names, null_refused, vocabulary};
use super::{ATTRIBUTES_MAX, Series, instant};
use crate::context::Context;
use crate::error::{Error, Result, described, shown};
use crate::{DEFAULT_INSTANCE, NGSI_LD_NULL};

/// How deep attributes may have attributes.
pub const SUB_ATTRIBUTE_DEPTH_MAX: usize = 16;

/// The most instances one attribute may have in an entity.
pub const INSTANCES_MAX: usize = 1_000;

/// The members that hold values: one of them tells the kind in concise form, and a second one is a contradiction.
pub(super) const VALUE_MEMBERS: [&str; 7] = ["value", "object", "languageMap", "vocab", "json", "valueList", "objectList"];

/// How the values of a kind are written as an array of values and times (clause 4.5.9).
pub(super) struct TemporalForm {
    pub(super) plural: &'static str,
    /// The member of one instance.
    pub(super) member: &'static str,
    pub(super) kinds: &'static [&'static str],
    /// Each value is an object with the member.
    pub(super) is_wrapped: bool,
}

pub(super) const TEMPORAL_FORMS: [TemporalForm; 7] = [
    TemporalForm { plural: "values", member: "value", kinds: &["Property", "GeoProperty"], is_wrapped: false },
    TemporalForm { plural: "objects", member: "object", kinds: &["Relationship"], is_wrapped: false },
    TemporalForm { plural: "languageMaps", member: "languageMap", kinds: &["LanguageProperty"], is_wrapped: true },
    TemporalForm { plural: "vocabs", member: "vocab", kinds: &["VocabProperty"], is_wrapped: true },
    TemporalForm { plural: "jsons", member: "json", kinds: &["JsonProperty"], is_wrapped: true },
    TemporalForm { plural: "valueLists", member: "valueList", kinds: &["ListProperty"], is_wrapped: false },
    TemporalForm { plural: "objectLists", member: "objectList", kinds: &["ListRelationship"], is_wrapped: false },
];

/// Core terms that are plain members and so no names of attributes (clause 4.5.1).
///
/// `value` is one too, but the Smart Data Models' Device, the most common model of all, has an attribute of that name.
const PLAIN_MEMBERS: [&str; 13] = [
    "datasetId",
    "instanceId",
    "unitCode",
    "observedAt",
    "valueType",
    "objectType",
    "object",
    "languageMap",
    "vocab",
    "json",
    "valueList",
    "objectList",
    "lang",
];

/// Output only: passed over in requests (clause 5.2.5 and following).
pub(super) const OUTPUT_ONLY: [&str; 14] = [
    "createdAt",
    "modifiedAt",
    "deletedAt",
    "instanceId",
    "entity",
    "entityList",
    "lang",
    "previousValue",
    "previousObject",
    "previousLanguageMap",
    "previousVocab",
    "previousJson",
    "previousValueList",
    "previousObjectList",
];

/// The kind of this name, short or full.
pub(super) fn kind_of_name(name: &str) -> Option<Kind> {
    let name = name.strip_prefix(NGSI_LD_NS).unwrap_or(name);
    Kind::ALL.into_iter().find(|kind| kind.name() == name)
}

/// The kind whose values a member holds; a Property if it may be a GeoProperty.
pub(super) fn kind_of_value_member(member: &str) -> Option<Kind> {
    Kind::ALL.into_iter().find(|kind| kind.value_member() == member)
}

/// Refuses names that denote something else.
pub(super) fn check_name(name: &str) -> Result<()> {
    if PLAIN_MEMBERS.contains(&name) {
        return Err(Error::bad(format!("`{name}` is a member of attributes and cannot be the name of one")));
    }
    if name.starts_with('@') {
        return Err(Error::bad(format!("`{}` is a JSON-LD keyword and cannot be the name of an attribute", shown(name))));
    }
    Ok(())
}

/// The instances of an attribute: an object or a bare value is one, an array of attribute objects is several.
pub(super) fn instances(value: Value, context: &Context, depth: usize, series: Series) -> Result<Vec<Attribute>> {
    if depth > SUB_ATTRIBUTE_DEPTH_MAX {
        return Err(Error::bad(format!("attributes are nested more than {SUB_ATTRIBUTE_DEPTH_MAX} deep")));
    }
    let list = match value {
        Value::Array(list) if reads_as_instances(&list) => list,
        one => return Ok(vec![instance(one, context, depth)?]),
    };
    if series == Series::No && list.len() > INSTANCES_MAX {
        return Err(Error::bad(format!("{} instances are more than the limit of {INSTANCES_MAX}", list.len())));
    }
    let mut instances: Vec<Attribute> = Vec::with_capacity(list.len());
    for (i, item) in list.into_iter().enumerate() {
        let at = |e: Error| e.within(&i.to_string());
        let new = instance(item, context, depth).map_err(at)?;
        if series == Series::No && instances.iter().any(|old| old.dataset_id == new.dataset_id) {
            return Err(at(Error::bad(match &new.dataset_id {
                Some(d) => format!("two instances have the datasetId `{d}`"),
                None => "two instances have no datasetId (at most one default instance is possible)".to_owned(),
            })));
        }
        instances.push(new);
    }
    Ok(instances)
}

/// An array of attribute objects is several instances; any other array is a value. One that names its kind makes it instances, so that
/// a mistake in another is reported rather than stored.
pub(crate) fn reads_as_instances(list: &[Value]) -> bool {
    !list.is_empty() && (list.iter().all(is_reified) || list.iter().any(names_kind))
}

pub(super) fn names_kind(value: &Value) -> bool {
    value.get("type").or_else(|| value.get("@type")).and_then(Value::as_str).is_some_and(|t| kind_of_name(t).is_some())
}

/// Does this value read as an attribute object rather than as a bare value?
pub(super) fn is_reified(value: &Value) -> bool {
    value.as_object().is_some_and(|map| VALUE_MEMBERS.iter().any(|m| map.contains_key(*m))) || names_kind(value)
}

/// Would this bare value, written in concise form, be read back as the value of a Property?
pub(crate) fn reads_as_plain_value(value: &Value) -> bool {
    match value {
        Value::Array(list) => !reads_as_instances(list),
        Value::Object(_) => !is_reified(value) && !Geometry::looks_like_one(value),
        _ => true,
    }
}

fn instance(value: Value, context: &Context, depth: usize) -> Result<Attribute> {
    let map = match value {
        Value::Object(map) => map,
        Value::Null => return Err(Error::bad("null is not an attribute")),
        plain => {
            check_value(&plain)?;
            return Ok(Attribute::new(AttributeValue::Property(plain)));
        }
    };
    match kind_of(&map)? {
        Some((kind, typed)) => reified(map, kind, typed, context, depth),
        None => {
            let value = Value::Object(map);
            if Geometry::looks_like_one(&value) {
                return Ok(Attribute::new(AttributeValue::Geo(geometry(value)?)));
            }
            check_value(&value)?;
            Ok(Attribute::new(AttributeValue::Property(value)))
        }
    }
}

/// The kind of an attribute object and whether it is written out; none if the object is a bare value (clauses 4.5.2.3 and 4.7.3).
pub(super) fn kind_of(map: &Map<String, Value>) -> Result<Option<(Kind, bool)>> {
    let name = map.get("type").or_else(|| map.get("@type"));
    if let Some(kind) = name.and_then(Value::as_str).and_then(kind_of_name) {
        return Ok(Some((kind, true)));
    }
    let Some(member) = VALUE_MEMBERS.iter().find(|m| map.contains_key(**m)) else { return Ok(None) };
    if let Some(name) = name {
        let kinds: Vec<&str> = Kind::ALL.iter().map(|k| k.name()).collect();
        return Err(Error::bad(format!(
            "{} is not a kind of attribute (expected {}; a value that has such members itself goes into `value`)",
            described(name),
            kinds.join(", ")
        ))
        .within("type"));
    }
    let kind = kind_of_value_member(member).expect("every value member belongs to a kind");
    if kind == Kind::Property && Geometry::looks_like_one(&map["value"]) {
        return Ok(Some((Kind::Geo, false)));
    }
    Ok(Some((kind, false)))
}

/// What the members of an attribute object come to, besides the value.
#[derive(Default)]
struct Members {
    dataset_id: Option<Iri>,
    observed_at: Option<Instant>,
    unit_code: Option<SmolStr>,
    qualifiers: Qualifiers,
    sub_attributes: SubAttributes,
}

fn reified(map: Map<String, Value>, kind: Kind, typed: bool, context: &Context, depth: usize) -> Result<Attribute> {
    let mut value = None;
    let mut members = Members::default();
    for (key, member) in map {
        if key == kind.value_member() {
            value = Some(value_of(kind, member, context).map_err(|e| e.within(kind.value_member()))?);
        } else {
            other_member(&mut members, kind, &key, member, context, depth)?;
        }
    }
    let value = value.ok_or_else(|| {
        debug_assert!(typed, "the kind was told by the value member");
        Error::bad(format!("a {} needs the member `{}`", kind.name(), kind.value_member()))
    })?;
    let mut attribute = Attribute {
        dataset_id: members.dataset_id,
        observed_at: members.observed_at,
        unit_code: members.unit_code,
        sub_attributes: members.sub_attributes,
        ..Attribute::new(value)
    };
    attribute.set_qualifiers(members.qualifiers);
    Ok(attribute)
}

fn other_member(members: &mut Members, kind: Kind, key: &str, value: Value, context: &Context, depth: usize) -> Result<()> {
    let at = |e: Error| e.within(&shown(key));
    match key {
        "type" | "@type" => {}
        "datasetId" => {
            if value.as_str() != Some(DEFAULT_INSTANCE) {
                members.dataset_id = Some(iri(&value).map_err(at)?);
            }
        }
        "observedAt" => members.observed_at = Some(instant(&value).map_err(at)?),
        "expiresAt" => members.qualifiers.expires_at = Some(instant(&value).map_err(at)?),
        "unitCode" => members.unit_code = Some(unit_code(kind, &value).map_err(at)?),
        "valueType" => members.qualifiers.value_type = Some(value_type(kind, &value, context).map_err(at)?),
        "objectType" => members.qualifiers.object_types = object_types(kind, &value, context).map_err(at)?,
        output_only if OUTPUT_ONLY.contains(&output_only) => {}
        "@context" => return Err(at(Error::bad("a context is only possible at the top of the document"))),
        contradiction if VALUE_MEMBERS.contains(&contradiction) => {
            return Err(at(Error::bad(format!("a {} holds `{}`, not `{contradiction}`", kind.name(), kind.value_member()))));
        }
        name => {
            check_name(name).map_err(at)?;
            if members.sub_attributes.len() >= ATTRIBUTES_MAX {
                return Err(Error::bad(format!("more than {ATTRIBUTES_MAX} attributes of one attribute")));
            }
            let iri = context.expand(name).map_err(at)?;
            let instances = instances(value, context, depth + 1, Series::No).map_err(at)?;
            if members.sub_attributes.insert(iri, instances.into()).is_some() {
                return Err(at(Error::bad("given twice under different names that mean the same")));
            }
        }
    }
    Ok(())
}

pub(super) fn unit_code(kind: Kind, value: &Value) -> Result<SmolStr> {
    if kind == Kind::Language || kind.is_relationship() {
        return Err(Error::bad(format!("a {} has no unit", kind.name())));
    }
    match value {
        Value::String(s) if s == NGSI_LD_NULL => Err(null_refused()),
        Value::String(s) if !s.is_empty() => Ok(s.into()),
        other => Err(Error::bad(format!("expected a UN/CEFACT unit code such as `CEL`, found {}", described(other)))),
    }
}

pub(super) fn value_type(kind: Kind, value: &Value, context: &Context) -> Result<Iri> {
    if kind.is_relationship() {
        return Err(Error::bad(format!("a {} has no `valueType`", kind.name())));
    }
    let name = value.as_str().ok_or_else(|| Error::bad(format!("expected a name, found {}", described(value))))?;
    vocabulary(name, context)
}

pub(super) fn object_types(kind: Kind, value: &Value, context: &Context) -> Result<Vec<Iri>> {
    if !kind.is_relationship() {
        return Err(Error::bad(format!("a {} has no `objectType`", kind.name())));
    }
    names(value, context)
}

fn value_of(kind: Kind, value: Value, context: &Context) -> Result<AttributeValue> {
    Ok(match kind {
        Kind::Property => {
            check_value(&value)?;
            AttributeValue::Property(value)
        }
        Kind::Geo => AttributeValue::Geo(geometry(value)?),
        Kind::Relationship => AttributeValue::Relationship(iris(&value)?),
        Kind::Language => AttributeValue::Language(language_map(value)?),
        Kind::Vocab => AttributeValue::Vocab(vocab(&value, context)?),
        Kind::Json => {
            if value.as_str() == Some(NGSI_LD_NULL) {
                return Err(null_refused());
            }
            AttributeValue::Json(value)
        }
        Kind::List => match value {
            Value::Array(list) => {
                list.iter().enumerate().try_for_each(|(i, v)| check_value(v).map_err(|e| e.within(&i.to_string())))?;
                AttributeValue::List(list)
            }
            other => return Err(Error::bad(format!("expected an array, found {}", described(&other)))),
        },
        Kind::ListRelationship => AttributeValue::ListRelationship(object_list(&value)?),
    })
}

pub(super) fn vocab(value: &Value, context: &Context) -> Result<Vec<Iri>> {
    super::list_of_strings(value)?.into_iter().map(|name| vocabulary(name, context)).collect()
}

/// `[{"object": uri}]`, or in concise form `[uri]` (clause 4.5.22).
pub(super) fn object_list(value: &Value) -> Result<Vec<Iri>> {
    let Value::Array(list) = value else {
        return Err(Error::bad(format!("expected an array, found {}", described(value))));
    };
    list.iter().enumerate().map(|(i, item)| iri(item.get("object").unwrap_or(item)).map_err(|e| e.within(&i.to_string()))).collect()
}

/// The longest language tag; RFC 5646, section 4.4.1, recommends room for 35.
const LANGUAGE_TAG_BYTES_MAX: usize = 35;

pub(super) fn language_map(value: Value) -> Result<IndexMap<SmolStr, Value>> {
    let Value::Object(map) = value else {
        return Err(Error::bad(format!("expected an object of texts by language tag, found {}", described(&value))));
    };
    if map.is_empty() {
        return Err(Error::bad("expected at least one text by language tag, found an empty object"));
    }
    map.into_iter()
        .map(|(tag, text)| {
            let at = |e: Error| e.within(&shown(&tag));
            let tag_ok = tag == DEFAULT_INSTANCE
                || tag.starts_with(|c: char| c.is_ascii_alphabetic())
                    && tag.len() <= LANGUAGE_TAG_BYTES_MAX
                    && tag.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
            if !tag_ok {
                return Err(at(Error::bad("not a language tag (expected e.g. `en`, `zh-Hans` or `@none`)")));
            }
            let text_ok = match &text {
                Value::String(s) if s == NGSI_LD_NULL => return Err(at(null_refused())),
                Value::String(_) => true,
                Value::Array(list) => list.iter().all(Value::is_string),
                _ => false,
            };
            if !text_ok {
                return Err(at(Error::bad(format!("expected a string or an array of strings, found {}", described(&text)))));
            }
            Ok((SmolStr::new(&tag), text))
        })
        .collect()
}
