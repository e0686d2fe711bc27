//! Fragments for patches (ETSI GS CIM 009 V1.9.1, clauses 5.4, 5.5.4, 5.5.8 and 5.5.12): parts of entities and attributes, in which
//! NGSI-LD Null removes.

use entity::{AttributeKind as Kind, AttributePatch, Edit, EntityPatch, Geometry, InstancePatch, Iri, ValuePatch};
use indexmap::IndexMap;
use serde_json::{Map, Value};
use smol_str::SmolStr;

use super::attribute::{
    INSTANCES_MAX, OUTPUT_ONLY, SUB_ATTRIBUTE_DEPTH_MAX, VALUE_MEMBERS, check_name, is_reified, kind_of, kind_of_name, language_map,
    names_kind, object_list, object_types, unit_code, value_type, vocab,
};
use super::parts::{check_value, geometry, iri, iris, names, null_refused, scopes};
use super::{ATTRIBUTES_MAX, instant};
use crate::context::Context;
use crate::error::{Error, Result, described, shown};
use crate::{DEFAULT_INSTANCE, NGSI_LD_NULL};

/// What a fragment is for, which decides what may be in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchForm {
    /// Whole instances, or their removal (Update Attributes, clause 5.6.2).
    Instances,
    /// Whole instances (Replace Attribute, clause 5.6.19).
    Replacement,
    /// Members of instances; sub-attributes may be removed, instances not (Partial Attribute Update, clause 5.6.4).
    Members,
    /// Anything, to any depth (Merge Entity, clause 5.6.17).
    Merge,
    /// The same in simplified form.
    SimplifiedMerge,
}

impl PatchForm {
    const fn is_merge(self) -> bool {
        matches!(self, Self::Merge | Self::SimplifiedMerge)
    }
}

/// What to change in entity `id`: as [`super::fragment`], but instances, scopes and, in a merge, parts of values may be removed.
///
/// Errors: [`crate::ErrorKind::BadRequestData`] naming the attribute and the member.
pub fn entity_patch(value: Value, id: &Iri, form: PatchForm, context: &Context) -> Result<EntityPatch> {
    let Value::Object(map) = value else {
        return Err(Error::bad(format!("expected a fragment of an entity (a JSON object), found {}", described(&value))));
    };
    let mut patch = EntityPatch::of(id.clone());
    let mut n_attributes = 0;
    for (key, value) in map {
        match key.as_str() {
            "id" | "@id" => {
                let found = iri(&value).map_err(|e| e.within("id"))?;
                if found != *id {
                    return Err(Error::bad(format!("`{found}` is not the entity that the request is about, `{id}`")).within("id"));
                }
            }
            "type" | "@type" => {
                let types = names(&value, context).map_err(|e| e.within("type"))?;
                patch.types = types.iter().map(Iri::interned).collect();
            }
            "scope" => patch.scopes = edit(&value, scopes).map_err(|e| e.within("scope"))?,
            "expiresAt" => patch.expires_at = edit(&value, instant).map_err(|e| e.within("expiresAt"))?,
            "@context" | "createdAt" | "modifiedAt" | "deletedAt" => {}
            _ => {
                n_attributes += 1;
                if n_attributes > ATTRIBUTES_MAX {
                    return Err(Error::bad(format!("more than {ATTRIBUTES_MAX} attributes in one entity")));
                }
                let (name, instances) = attribute_patch(&key, value, form, context)?;
                if patch.attributes.iter().any(|(n, _)| *n == name) {
                    let twice = Error::bad("given twice under different names that mean the same");
                    return Err(twice.within(&format!("attribute {}", shown(&key))));
                }
                patch.attributes.extend(instances.into_iter().map(|i| (name.clone(), i)));
            }
        }
    }
    Ok(patch)
}

/// What to change of the instances of one attribute, `name` being its short or full name.
///
/// Errors: as [`entity_patch`].
pub fn attribute_patch(name: &str, value: Value, form: PatchForm, context: &Context) -> Result<(Iri, Vec<InstancePatch>)> {
    let at = |e: Error| e.within(&format!("attribute {}", shown(name)));
    check_name(name).map_err(at)?;
    let iri = context.expand(name).map_err(at)?.interned();
    let reader = Reader { form, context };
    let instances = match form {
        PatchForm::SimplifiedMerge => reader.simplified(value).map(|one| vec![one]),
        _ => reader.instances(value, 0),
    };
    Ok((iri, instances.map_err(at)?))
}

#[derive(Clone, Copy)]
struct Reader<'a> {
    form: PatchForm,
    context: &'a Context,
}

impl Reader<'_> {
    fn instances(self, value: Value, depth: usize) -> Result<Vec<InstancePatch>> {
        if depth > SUB_ATTRIBUTE_DEPTH_MAX {
            return Err(Error::bad(format!("attributes are nested more than {SUB_ATTRIBUTE_DEPTH_MAX} deep")));
        }
        let list = match value {
            Value::Array(list) if list.iter().any(is_fragment) && list.iter().all(Value::is_object) => list,
            one => return Ok(vec![self.instance(one, depth)?]),
        };
        if list.len() > INSTANCES_MAX {
            return Err(Error::bad(format!("{} instances are more than the limit of {INSTANCES_MAX}", list.len())));
        }
        let mut all: Vec<InstancePatch> = Vec::with_capacity(list.len());
        for (i, item) in list.into_iter().enumerate() {
            let at = |e: Error| e.within(&i.to_string());
            let new = self.instance(item, depth).map_err(at)?;
            if all.iter().any(|old| dataset_of(old) == dataset_of(&new)) {
                return Err(at(Error::bad(match dataset_of(&new) {
                    Some(d) => format!("two instances have the datasetId `{d}`"),
                    None => "two instances have no datasetId (at most one default instance is possible)".to_owned(),
                })));
            }
            all.push(new);
        }
        Ok(all)
    }

    fn instance(self, value: Value, depth: usize) -> Result<InstancePatch> {
        let map = match value {
            Value::String(s) if s == NGSI_LD_NULL => return self.removal(None, depth),
            Value::Null => return Err(Error::bad(format!("null is not an attribute (write `{NGSI_LD_NULL}` to remove it)"))),
            // Members of the one attribute that the request is about are an object always (clause 5.6.4), or its value in concise form.
            Value::Object(map) if is_fragment_of(&map) || self.form == PatchForm::Members && depth == 0 => map,
            Value::Object(map) => {
                let value = Value::Object(map);
                let value = if Geometry::looks_like_one(&value) { geometry(value)?.json().clone() } else { self.json(value)? };
                return Ok(change(ValuePatch::Value(value)));
            }
            plain => return Ok(change(ValuePatch::Value(self.json(plain)?))),
        };
        self.fragment(map, depth)
    }

    /// The whole instance goes.
    fn removal(self, dataset_id: Option<Iri>, depth: usize) -> Result<InstancePatch> {
        let may_go = match self.form {
            PatchForm::Instances => depth == 0,
            PatchForm::Members => depth > 0,
            PatchForm::Merge | PatchForm::SimplifiedMerge => true,
            PatchForm::Replacement => false,
        };
        if may_go { Ok(InstancePatch::Remove(dataset_id)) } else { Err(null_refused()) }
    }

    fn fragment(self, map: Map<String, Value>, depth: usize) -> Result<InstancePatch> {
        let kind = kind_of(&map)?;
        let mut patch = AttributePatch { kind: kind.filter(|(_, is_named)| *is_named).map(|(kind, _)| kind), ..AttributePatch::default() };
        let kind = kind.map(|(kind, _)| kind);
        let mut is_removal = false;
        // Where the kind is not told, nothing is held against the members: the attribute that there is decides.
        let some_kind = kind.unwrap_or(Kind::Property);
        for (key, member) in map {
            let at = |e: Error| e.within(&shown(&key));
            match key.as_str() {
                "type" | "@type" => {
                    if member.as_str().is_none_or(|t| kind_of_name(t).is_none()) {
                        return Err(at(Error::bad(format!("expected a kind of attribute, found {}", described(&member)))));
                    }
                }
                "datasetId" => {
                    if member.as_str() != Some(DEFAULT_INSTANCE) {
                        patch.dataset_id = Some(iri(&member).map_err(at)?);
                    }
                }
                "observedAt" => patch.observed_at = self.edit(&member, instant).map_err(at)?,
                "expiresAt" => patch.expires_at = self.edit(&member, instant).map_err(at)?,
                "unitCode" => patch.unit_code = self.edit(&member, |v| unit_code(some_kind, v)).map_err(at)?,
                "valueType" => patch.value_type = self.edit(&member, |v| value_type(some_kind, v, self.context)).map_err(at)?,
                "objectType" => {
                    let kind = kind.unwrap_or(Kind::Relationship);
                    patch.object_types = self.edit(&member, |v| object_types(kind, v, self.context)).map_err(at)?;
                }
                output_only if OUTPUT_ONLY.contains(&output_only) => {}
                "@context" => return Err(at(Error::bad("a context is only possible at the top of the document"))),
                value_member if VALUE_MEMBERS.contains(&value_member) => {
                    if some_kind.value_member() != value_member {
                        let what = format!("a {} holds `{}`, not `{value_member}`", some_kind.name(), some_kind.value_member());
                        return Err(at(Error::bad(what)));
                    }
                    match self.value(some_kind, member).map_err(at)? {
                        Some(value) => patch.value = Some(value),
                        None => is_removal = true,
                    }
                }
                name => {
                    check_name(name).map_err(at)?;
                    let iri = self.context.expand(name).map_err(at)?;
                    let instances = self.instances(member, depth + 1).map_err(at)?;
                    if patch.sub_attributes.iter().any(|(n, _)| *n == iri) {
                        return Err(at(Error::bad("given twice under different names that mean the same")));
                    }
                    patch.sub_attributes.extend(instances.into_iter().map(|i| (iri.clone(), i)));
                    if patch.sub_attributes.len() > ATTRIBUTES_MAX {
                        return Err(Error::bad(format!("more than {ATTRIBUTES_MAX} attributes of one attribute")));
                    }
                }
            }
        }
        if is_removal {
            return self.removal(patch.dataset_id, depth);
        }
        let is_whole = matches!(self.form, PatchForm::Instances | PatchForm::Replacement) || self.form == PatchForm::Members && depth > 0;
        if is_whole && patch.value.is_none() {
            return Err(Error::bad(format!("a {} needs the member `{}`", some_kind.name(), some_kind.value_member())));
        }
        Ok(InstancePatch::Change(Box::new(patch)))
    }

    fn edit<T>(self, member: &Value, read: impl Fn(&Value) -> Result<T>) -> Result<Edit<T>> {
        match self.form {
            // Whole instances have nothing to remove from.
            PatchForm::Instances | PatchForm::Replacement => read(member).map(Edit::Set),
            PatchForm::Members | PatchForm::Merge | PatchForm::SimplifiedMerge => edit(member, read),
        }
    }

    /// A JSON value; in a merge, NGSI-LD Null may remove keys of objects.
    fn json(self, value: Value) -> Result<Value> {
        if self.form.is_merge() {
            check_merged(&value)?;
        } else {
            check_value(&value)?;
        }
        Ok(value)
    }

    /// The new value; none if it is NGSI-LD Null.
    fn value(self, kind: Kind, value: Value) -> Result<Option<ValuePatch>> {
        let is_null = |v: &Value| v.as_str() == Some(NGSI_LD_NULL);
        let is_null_list = |v: &Value| v.as_array().is_some_and(|list| list.len() == 1 && is_null(&list[0]));
        Ok(Some(match kind {
            Kind::Property | Kind::Geo | Kind::Relationship | Kind::Vocab | Kind::Json if is_null(&value) => return Ok(None),
            Kind::List | Kind::ListRelationship if is_null(&value) || is_null_list(&value) => return Ok(None),
            Kind::Language if is_null(&value) => return Ok(None),
            Kind::Property => ValuePatch::Value(self.json(value)?),
            // In a merge the parts of a geometry may be given; the whole is checked when it is known.
            Kind::Geo if self.form.is_merge() => ValuePatch::Value(self.json(value)?),
            Kind::Geo => ValuePatch::Value(geometry(value)?.json().clone()),
            Kind::Relationship => ValuePatch::Object(iris(&value)?),
            Kind::Vocab => ValuePatch::Vocab(vocab(&value, self.context)?),
            Kind::Json => ValuePatch::Json(value),
            Kind::List => match self.json(value)? {
                Value::Array(list) => ValuePatch::ValueList(list),
                other => return Err(Error::bad(format!("expected an array, found {}", described(&other)))),
            },
            Kind::ListRelationship => ValuePatch::ObjectList(object_list(&value)?),
            Kind::Language => match self.texts(value)? {
                Some(texts) => ValuePatch::LanguageMap(texts),
                None => return Ok(None),
            },
        }))
    }

    /// Texts by language, of which a merge may remove some; none if all go.
    fn texts(self, value: Value) -> Result<Option<IndexMap<SmolStr, Option<Value>>>> {
        let Value::Object(mut map) = value else {
            return Err(Error::bad(format!("expected an object of texts by language tag, found {}", described(&value))));
        };
        if map.len() == 1 && map.get(DEFAULT_INSTANCE).and_then(Value::as_str) == Some(NGSI_LD_NULL) {
            return Ok(None);
        }
        let mut texts = IndexMap::new();
        if self.form.is_merge() {
            let gone: Vec<String> = map.iter().filter(|(_, v)| v.as_str() == Some(NGSI_LD_NULL)).map(|(tag, _)| tag.clone()).collect();
            for tag in gone {
                map.shift_remove(&tag);
                texts.insert(SmolStr::new(tag), None);
            }
        }
        if !map.is_empty() || texts.is_empty() {
            texts.extend(language_map(Value::Object(map))?.into_iter().map(|(tag, text)| (tag, Some(text))));
        }
        Ok(Some(texts))
    }

    /// An attribute in simplified form: a bare value, or `languageMap`, `vocab` or `json` with one (clause 4.5.4).
    fn simplified(self, value: Value) -> Result<InstancePatch> {
        let wrapper = match &value {
            Value::String(s) if s == NGSI_LD_NULL => return Ok(InstancePatch::Remove(None)),
            Value::Null => return Err(Error::bad(format!("null is not a value (write `{NGSI_LD_NULL}` to remove the attribute)"))),
            Value::Object(map) if map.len() == 1 => map.keys().next().cloned(),
            _ => None,
        };
        let kind = match wrapper.as_deref() {
            Some("languageMap") => Kind::Language,
            Some("vocab") => Kind::Vocab,
            Some("json") => Kind::Json,
            _ => return Ok(change(ValuePatch::Bare(self.json(value)?))),
        };
        let inner = value.get(kind.value_member()).cloned().unwrap_or_default();
        Ok(self.value(kind, inner).map_err(|e| e.within(kind.value_member()))?.map_or(InstancePatch::Remove(None), change))
    }
}

fn change(value: ValuePatch) -> InstancePatch {
    InstancePatch::Change(Box::new(AttributePatch { value: Some(value), ..AttributePatch::default() }))
}

fn dataset_of(patch: &InstancePatch) -> Option<&Iri> {
    match patch {
        InstancePatch::Remove(dataset_id) => dataset_id.as_ref(),
        InstancePatch::Change(change) => change.dataset_id.as_ref(),
    }
}

fn edit<T>(member: &Value, read: impl Fn(&Value) -> Result<T>) -> Result<Edit<T>> {
    if member.as_str() == Some(NGSI_LD_NULL) { Ok(Edit::Remove) } else { read(member).map(Edit::Set) }
}

/// Does this value read as a part of an attribute rather than as a bare value?
fn is_fragment(value: &Value) -> bool {
    value.as_object().is_some_and(is_fragment_of)
}

/// It names a kind, holds a value, has a member that only attributes have, or has attributes itself.
fn is_fragment_of(map: &Map<String, Value>) -> bool {
    const MEMBERS: [&str; 6] = ["datasetId", "observedAt", "unitCode", "valueType", "objectType", "expiresAt"];
    let names_its_kind = map.get("type").or_else(|| map.get("@type")).and_then(Value::as_str).is_some_and(|t| kind_of_name(t).is_some());
    names_its_kind
        || VALUE_MEMBERS.iter().chain(&MEMBERS).any(|m| map.contains_key(*m))
        || map.values().any(|v| names_kind(v) || is_reified(v))
}

/// What may be merged into a value: no null, and NGSI-LD Null for keys of objects only (clause 5.5.12).
fn check_merged(value: &Value) -> Result<()> {
    match value {
        Value::Object(map) if map.get("@type").and_then(Value::as_str) != Some("@json") => map
            .iter()
            .filter(|(_, v)| v.as_str() != Some(NGSI_LD_NULL))
            .try_for_each(|(key, v)| check_merged(v).map_err(|e| e.within(&shown(key)))),
        other => check_value(other),
    }
}
