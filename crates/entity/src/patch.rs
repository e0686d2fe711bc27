//! Changes of parts of an entity (ETSI GS CIM 009 V1.9.1, clauses 5.5.8 and 5.5.12): what is named is changed, the rest stays.

use serde_json::{Map, Value};
use smol_str::SmolStr;
use std::sync::Arc;

use indexmap::IndexMap;

use crate::{
    Attribute, AttributeKind, AttributeValue, Attributes, CommandError, Delta, Entity, Geometry, Instances, Instant, Iri, Outcome,
    Qualifiers, Resolved, Scope,
};

/// The string that stands for "remove this" (clause 4.5.0).
pub const NGSI_LD_NULL: &str = "urn:ngsi-ld:null";

/// What to do with one member.
#[derive(Clone, PartialEq, Debug, Default)]
pub enum Edit<T> {
    /// It is not named: it stays.
    #[default]
    Keep,
    /// It is this from now on.
    Set(T),
    /// It goes away.
    Remove,
}

impl<T> Edit<T> {
    /// What becomes of a member.
    fn of(self, present: Option<T>) -> Option<T> {
        match self {
            Self::Keep => present,
            Self::Set(new) => Some(new),
            Self::Remove => None,
        }
    }

    const fn is_keep(&self) -> bool {
        matches!(self, Self::Keep)
    }
}

/// What to change of an entity. Names are expanded.
#[derive(Clone, PartialEq, Debug)]
pub struct EntityPatch {
    /// The entity.
    pub id: Iri,
    /// Types to add; types are never removed by a patch (clause 4.16).
    pub types: Vec<Iri>,
    /// The scopes.
    pub scopes: Edit<Vec<Scope>>,
    /// When the entity expires.
    pub expires_at: Edit<Instant>,
    /// Attributes by name; a name comes once for each instance.
    pub attributes: Vec<(Iri, InstancePatch)>,
}

impl EntityPatch {
    /// A patch that changes nothing of entity `id`.
    #[must_use]
    pub const fn of(id: Iri) -> Self {
        Self { id, types: Vec::new(), scopes: Edit::Keep, expires_at: Edit::Keep, attributes: Vec::new() }
    }
}

/// What to do with one instance of an attribute.
#[derive(Clone, PartialEq, Debug)]
pub enum InstancePatch {
    /// It goes away: the one with this `datasetId`, none for the default one.
    Remove(Option<Iri>),
    /// Parts of it change.
    Change(Box<AttributePatch>),
}

/// What to change of one instance of an attribute.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct AttributePatch {
    /// Which instance; none for the default one.
    pub dataset_id: Option<Iri>,
    /// The kind, if it is named; a patch never changes it.
    pub kind: Option<AttributeKind>,
    /// The value; none if it stays.
    pub value: Option<ValuePatch>,
    /// When it was observed.
    pub observed_at: Edit<Instant>,
    /// The unit.
    pub unit_code: Edit<SmolStr>,
    /// Datatype of the value.
    pub value_type: Edit<Iri>,
    /// Types of the targets.
    pub object_types: Edit<Vec<Iri>>,
    /// When it expires.
    pub expires_at: Edit<Instant>,
    /// Attributes of the attribute by name; a name comes once for each instance.
    pub sub_attributes: Vec<(Iri, InstancePatch)>,
}

/// A new value, as the member that holds it says; what it means may depend on the attribute that there is.
#[derive(Clone, PartialEq, Debug)]
pub enum ValuePatch {
    /// `value`: of a Property or, if it is one or is a geometry, of a GeoProperty. NGSI-LD Null in it removes keys.
    Value(Value),
    /// `object`.
    Object(Vec<Iri>),
    /// `languageMap`; none removes the text of a language.
    LanguageMap(IndexMap<SmolStr, Option<Value>>),
    /// `vocab`.
    Vocab(Vec<Iri>),
    /// `json`. NGSI-LD Null in it removes keys.
    Json(Value),
    /// `valueList`.
    ValueList(Vec<Value>),
    /// `objectList`.
    ObjectList(Vec<Iri>),
    /// A bare value in simplified form: of the kind that there is.
    Bare(Value),
}

/// How a patch is applied.
#[derive(Clone, PartialEq, Debug)]
pub enum PatchMode {
    /// Each instance that is named is replaced (Update Attributes, clause 5.6.2).
    Update,
    /// To any depth: what is named is merged into what there is (Merge Entity, clause 5.6.17).
    Merge(MergeOptions),
    /// Each member that is named is replaced; the instances must be there (Partial Attribute Update, clause 5.6.4).
    Partial,
    /// Each instance that is named is replaced and must be there (Replace Attribute, clause 5.6.19).
    Replace,
}

/// What goes for all attributes of a merge (clause 5.6.17).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MergeOptions {
    /// When attributes that have such a time were observed, unless they say so themselves.
    pub observed_at: Option<Instant>,
    /// The language of texts that are given without one.
    pub lang: Option<SmolStr>,
}

/// What is wrong with a patch of the state that there is: where, and what.
struct Misfit(String);

type Fit<T> = Result<T, Misfit>;

/// Resolves a patch against the present state.
pub(crate) fn resolve(patch: EntityPatch, mode: &PatchMode, current: &Entity) -> Result<Resolved, CommandError> {
    let EntityPatch { id, mut types, scopes, expires_at, attributes } = patch;
    types.retain(|t| !current.types.contains(t));
    let scopes = match (scopes, mode) {
        (Edit::Keep, _) => None,
        // Update Attributes replaces the scopes that there are and ignores new ones (clause 5.6.2).
        (Edit::Set(_), PatchMode::Update) if current.scopes.is_empty() => None,
        (Edit::Set(new), _) => Some(new),
        (Edit::Remove, _) => (!current.scopes.is_empty()).then(Vec::new),
    };
    let expires_at = match expires_at {
        Edit::Keep => None,
        Edit::Set(at) => Some(Some(at)),
        Edit::Remove => current.expires_at.map(|_| None),
    };
    let mut delta = Delta { types, scopes, expires_at, ..Delta::of(&id) };
    let (mut updated, mut left) = (Vec::new(), Vec::new());
    for (name, change) in attributes {
        let dataset_id = match &change {
            InstancePatch::Remove(dataset_id) => dataset_id,
            InstancePatch::Change(change) => &change.dataset_id,
        };
        let present = current.instance_named(&name, dataset_id.as_ref());
        let misfit = |Misfit(what)| CommandError::Misfit { id: id.clone(), name: name.clone(), what };
        match (change, present, mode) {
            (InstancePatch::Remove(dataset_id), Some(_), _) => delta.remove.push((name.clone(), dataset_id)),
            (InstancePatch::Remove(_), None, PatchMode::Update) => {
                left.push((name, "there is no such attribute, or no such instance of it".to_owned()));
                continue;
            }
            (InstancePatch::Remove(_), None, PatchMode::Merge(_)) => continue,
            (InstancePatch::Remove(dataset_id), None, _) => return Err(CommandError::NoAttribute { id, name, dataset_id }),
            (InstancePatch::Change(change), None, PatchMode::Partial | PatchMode::Replace) => {
                return Err(CommandError::NoAttribute { id, name, dataset_id: change.dataset_id });
            }
            (InstancePatch::Change(change), Some(_), PatchMode::Update | PatchMode::Replace) | (InstancePatch::Change(change), None, _) => {
                let new = change.into_attribute().map_err(misfit)?;
                delta.put.push((name.clone(), Arc::new(new)));
            }
            (InstancePatch::Change(change), Some(present), PatchMode::Merge(options)) => {
                let new = change.merged_into(present, options, true).map_err(misfit)?;
                delta.put.push((name.clone(), Arc::new(new)));
            }
            (InstancePatch::Change(change), Some(present), PatchMode::Partial) => {
                let new = change.put_into(present).map_err(misfit)?;
                delta.put.push((name.clone(), Arc::new(new)));
            }
        }
        if updated.last() != Some(&name) {
            updated.push(name);
        }
    }
    let delta = (!delta.is_empty()).then_some(delta);
    Ok(Resolved { delta, outcome: Outcome::Updated { updated, left } })
}

impl AttributePatch {
    /// The instance that it is by itself. Errors: it has no value.
    fn into_attribute(self) -> Fit<Attribute> {
        let value = self.value.ok_or_else(|| Misfit("a new attribute needs a value".to_owned()))?.into_value(self.kind)?;
        let mut sub_attributes = Attributes::default();
        for (name, change) in self.sub_attributes {
            if let InstancePatch::Change(change) = change {
                let new = change.into_attribute().map_err(|e| e.within(&name))?;
                sub_attributes.entry(name).or_default().put(new);
            }
        }
        let mut attribute = Attribute { dataset_id: self.dataset_id, ..Attribute::new(value) };
        attribute.observed_at = self.observed_at.of(None);
        attribute.unit_code = self.unit_code.of(None);
        attribute.sub_attributes = sub_attributes.into();
        attribute.set_qualifiers(Qualifiers {
            object_types: self.object_types.of(None).unwrap_or_default(),
            value_type: self.value_type.of(None),
            expires_at: self.expires_at.of(None),
        });
        Ok(attribute)
    }

    /// The present instance with the members that are named replaced.
    fn put_into(mut self, present: &Attribute) -> Fit<Attribute> {
        let mut new = present.clone();
        if let Some(value) = self.value.take() {
            new.value = value.in_place_of(self.kind, &present.value)?;
        }
        self.check_kind(&present.value)?;
        for (name, change) in std::mem::take(&mut self.sub_attributes) {
            match change {
                InstancePatch::Remove(dataset_id) => remove(&mut new.sub_attributes, &name, dataset_id.as_ref()),
                InstancePatch::Change(change) => {
                    let sub = change.into_attribute().map_err(|e| e.within(&name))?;
                    new.sub_attributes.entry(name).or_default().put(sub);
                }
            }
        }
        self.members_into(&mut new);
        Ok(new)
    }

    /// The present instance with what is named merged into it, to any depth.
    fn merged_into(mut self, present: &Attribute, options: &MergeOptions, is_outermost: bool) -> Fit<Attribute> {
        let mut new = present.clone();
        if let Some(value) = self.value.take() {
            new.value = value.merged_into(self.kind, &present.value, options)?;
        }
        self.check_kind(&present.value)?;
        for (name, change) in std::mem::take(&mut self.sub_attributes) {
            let dataset_id = match &change {
                InstancePatch::Remove(dataset_id) => dataset_id.clone(),
                InstancePatch::Change(change) => change.dataset_id.clone(),
            };
            let sub = new.sub_attributes.get(&name).and_then(|all| all.iter().find(|a| a.dataset_id == dataset_id));
            let merged = match (change, sub) {
                (InstancePatch::Remove(_), _) => {
                    remove(&mut new.sub_attributes, &name, dataset_id.as_ref());
                    continue;
                }
                (InstancePatch::Change(change), Some(sub)) => change.merged_into(sub, options, false),
                (InstancePatch::Change(change), None) => change.into_attribute(),
            };
            new.sub_attributes.entry(name.clone()).or_default().put(merged.map_err(|e| e.within(&name))?);
        }
        if let Some(at) = options.observed_at.filter(|_| is_outermost && self.observed_at.is_keep())
            && present.observed_at.is_some()
        {
            self.observed_at = Edit::Set(at);
        }
        self.members_into(&mut new);
        Ok(new)
    }

    fn check_kind(&self, present: &AttributeValue) -> Fit<()> {
        match self.kind.filter(|k| *k != present.kind()) {
            Some(kind) => Err(of_other_kind(kind, present.kind())),
            None => Ok(()),
        }
    }

    /// The plain members.
    fn members_into(self, new: &mut Attribute) {
        new.observed_at = self.observed_at.of(new.observed_at);
        new.unit_code = self.unit_code.of(new.unit_code.take());
        let present = new.qualifiers.take().map(|q| *q).unwrap_or_default();
        new.set_qualifiers(Qualifiers {
            object_types: self.object_types.of(Some(present.object_types)).unwrap_or_default(),
            value_type: self.value_type.of(present.value_type),
            expires_at: self.expires_at.of(present.expires_at),
        });
    }
}

impl ValuePatch {
    /// The value of a new attribute.
    fn into_value(self, kind: Option<AttributeKind>) -> Fit<AttributeValue> {
        Ok(match self {
            Self::Value(value) | Self::Bare(value) => match kind {
                Some(AttributeKind::Geo) => AttributeValue::Geo(geometry(value)?),
                None if Geometry::looks_like_one(&value) => AttributeValue::Geo(geometry(value)?),
                _ => AttributeValue::Property(merged(Value::Null, value)),
            },
            Self::Object(iris) => AttributeValue::Relationship(iris),
            Self::LanguageMap(map) => AttributeValue::Language(map.into_iter().filter_map(|(tag, text)| Some((tag, text?))).collect()),
            Self::Vocab(iris) => AttributeValue::Vocab(iris),
            Self::Json(value) => AttributeValue::Json(merged(Value::Null, value)),
            Self::ValueList(list) => AttributeValue::List(list),
            Self::ObjectList(iris) => AttributeValue::ListRelationship(iris),
        })
    }

    /// The value in place of another, which it must be of the kind of.
    fn in_place_of(self, kind: Option<AttributeKind>, present: &AttributeValue) -> Fit<AttributeValue> {
        // A `value` without a kind is of the kind that there is.
        let kind = kind.or_else(|| matches!(present, AttributeValue::Geo(_)).then_some(AttributeKind::Geo));
        let kind = kind.or_else(|| matches!(present, AttributeValue::Property(_)).then_some(AttributeKind::Property));
        let new = self.into_value(kind)?;
        if new.kind() == present.kind() { Ok(new) } else { Err(of_other_kind(new.kind(), present.kind())) }
    }

    /// The value merged into the present one.
    fn merged_into(self, kind: Option<AttributeKind>, present: &AttributeValue, options: &MergeOptions) -> Fit<AttributeValue> {
        Ok(match (self, present) {
            (Self::Value(new) | Self::Bare(new), AttributeValue::Property(old)) => AttributeValue::Property(merged(old.clone(), new)),
            (Self::Value(new) | Self::Bare(new), AttributeValue::Geo(old)) => {
                AttributeValue::Geo(geometry(merged(old.json().clone(), new))?)
            }
            (Self::Json(new), AttributeValue::Json(old)) => AttributeValue::Json(merged(old.clone(), new)),
            (Self::LanguageMap(new), AttributeValue::Language(old)) => {
                let mut map = old.clone();
                for (tag, text) in new {
                    match text {
                        Some(text) => drop(map.insert(tag, text)),
                        None => drop(map.shift_remove(&tag)),
                    }
                }
                AttributeValue::Language(map)
            }
            (Self::Value(text) | Self::Bare(text), AttributeValue::Language(old)) if kind.is_none() && options.lang.is_some() => {
                let is_text = text.is_string() || text.as_array().is_some_and(|list| list.iter().all(Value::is_string));
                let tag = options.lang.clone().filter(|_| is_text);
                let tag = tag.ok_or_else(|| Misfit("with `lang`, a text or an array of texts is needed".to_owned()))?;
                let mut map = old.clone();
                map.insert(tag, text);
                AttributeValue::Language(map)
            }
            (Self::Bare(value), AttributeValue::Relationship(_)) => AttributeValue::Relationship(iris(&value)?),
            (Self::Bare(value), AttributeValue::ListRelationship(_)) => AttributeValue::ListRelationship(iris(&value)?),
            (Self::Bare(Value::Array(list)), AttributeValue::List(_)) => AttributeValue::List(list),
            (Self::Bare(_), present) => {
                return Err(Misfit(format!("the value is not one of a {}, which the attribute is", present.kind().name())));
            }
            (new, present) => new.in_place_of(kind, present)?,
        })
    }
}

fn remove(attributes: &mut Attributes, name: &Iri, dataset_id: Option<&Iri>) {
    if let Some(instances) = attributes.get_mut(name) {
        instances.retain(|a| a.dataset_id.as_ref() != dataset_id);
        if instances.is_empty() {
            attributes.shift_remove(name);
        }
    }
}

/// A JSON merge patch (RFC 7396), in which NGSI-LD Null is what removes.
fn merged(target: Value, patch: Value) -> Value {
    let Value::Object(patch) = patch else { return patch };
    let mut members = match target {
        Value::Object(members) => members,
        _ => Map::new(),
    };
    for (key, value) in patch {
        if value.as_str() == Some(NGSI_LD_NULL) {
            members.shift_remove(&key);
        } else {
            let old = members.shift_remove(&key);
            members.insert(key, merged(old.unwrap_or_default(), value));
        }
    }
    Value::Object(members)
}

fn geometry(value: Value) -> Fit<Geometry> {
    Geometry::from_json(value).map_err(|e| Misfit(e.to_string()))
}

fn iris(value: &Value) -> Fit<Vec<Iri>> {
    let list = match value {
        Value::Array(list) => list.as_slice(),
        one => std::slice::from_ref(one),
    };
    let iri = |v: &Value| v.as_str().and_then(|s| s.parse().ok());
    let all: Option<Vec<Iri>> = list.iter().map(iri).collect();
    all.filter(|l| !l.is_empty()).ok_or_else(|| Misfit("the targets of a relationship are URIs".to_owned()))
}

fn of_other_kind(found: AttributeKind, present: AttributeKind) -> Misfit {
    Misfit(format!("the attribute is a {} and cannot become a {} (replace it, or the entity)", present.name(), found.name()))
}

impl Misfit {
    fn within(self, name: &Iri) -> Self {
        Self(format!("{name}: {}", self.0))
    }
}

/// Removes attributes from an entity: those that are named, or all others.
pub(crate) fn remove_attributes(id: &Iri, names: &[Iri], others: bool, current: &Entity) -> Resolved {
    let goes = |name: &&Iri| names.contains(name) != others;
    let updated: Vec<Iri> = current.attributes.keys().filter(goes).cloned().collect();
    let instances = |name: &Iri| current.attributes.get(name).map(Instances::as_slice).unwrap_or_default();
    let remove: Vec<_> = updated.iter().flat_map(|name| instances(name).iter().map(|i| (name.clone(), i.dataset_id.clone()))).collect();
    let delta = (!remove.is_empty()).then(|| Delta { remove, ..Delta::of(id) });
    Resolved { delta, outcome: Outcome::Updated { updated, left: Vec::new() } }
}

#[cfg(test)]
mod tests;
