//! Fragments of entities as another system is sent them (ETSI GS CIM 009 V1.9.1, clauses 5.4, 5.5.8 and 5.5.12).

use entity::{AttributePatch, Edit, EntityPatch, Geometry, InstancePatch, Iri, NGSI_LD_NULL, Scope, ValuePatch};
use serde_json::{Map, Value};

use crate::context::Context;

/// A fragment that reads back as `patch`. Whole instances (`is_whole`, for Update Attributes) are told with their kind.
#[must_use]
pub fn entity_patch(patch: &EntityPatch, context: &Context, is_whole: bool) -> Value {
    let mut map = Map::new();
    if !patch.types.is_empty() {
        map.insert("type".to_owned(), patch.types.iter().map(|t| context.compact(t).into_owned()).collect());
    }
    put(&mut map, "scope", &patch.scopes, |list| list.iter().map(Scope::as_str).collect());
    put(&mut map, "expiresAt", &patch.expires_at, |at| at.to_string().into());
    let writer = Writer { context, is_whole };
    writer.attributes(&mut map, &patch.attributes);
    Value::Object(map)
}

/// The instances of one attribute, as [`entity_patch`] writes them.
#[must_use]
pub fn attribute_patch(instances: &[&InstancePatch], context: &Context, is_whole: bool) -> Value {
    Writer { context, is_whole }.instances(instances)
}

/// Is it in simplified form, in which bare values have the kind that there is?
#[must_use]
pub fn is_simplified(patch: &EntityPatch) -> bool {
    patch.attributes.iter().any(|(_, i)| matches!(i, InstancePatch::Change(c) if matches!(c.value, Some(ValuePatch::Bare(_)))))
}

fn put<T>(map: &mut Map<String, Value>, name: &str, edit: &Edit<T>, value: impl Fn(&T) -> Value) {
    let written = match edit {
        Edit::Keep => return,
        Edit::Set(new) => value(new),
        Edit::Remove => NGSI_LD_NULL.into(),
    };
    map.insert(name.to_owned(), written);
}

#[derive(Clone, Copy)]
struct Writer<'a> {
    context: &'a Context,
    is_whole: bool,
}

impl Writer<'_> {
    fn attributes(self, map: &mut Map<String, Value>, attributes: &[(Iri, InstancePatch)]) {
        let mut done: Vec<&Iri> = Vec::new();
        for (name, _) in attributes {
            if !done.contains(&name) {
                done.push(name);
                let instances: Vec<&InstancePatch> = attributes.iter().filter(|(n, _)| n == name).map(|(_, i)| i).collect();
                map.insert(self.context.compact(name).into_owned(), self.instances(&instances));
            }
        }
    }

    fn instances(self, instances: &[&InstancePatch]) -> Value {
        match instances {
            [one] => self.instance(one),
            many => many.iter().map(|i| self.instance(i)).collect(),
        }
    }

    fn instance(self, instance: &InstancePatch) -> Value {
        match instance {
            InstancePatch::Remove(None) => NGSI_LD_NULL.into(),
            InstancePatch::Remove(Some(dataset_id)) => {
                serde_json::json!({"type": "Property", "value": NGSI_LD_NULL, "datasetId": dataset_id.as_str()})
            }
            InstancePatch::Change(change) => self.change(change),
        }
    }

    fn change(self, c: &AttributePatch) -> Value {
        if let Some(ValuePatch::Bare(value)) = &c.value {
            return value.clone();
        }
        let names = |list: &[Iri]| list.iter().map(|i| self.context.compact(i).into_owned()).collect::<Value>();
        let iris = |list: &[Iri]| match list {
            [one] => Value::from(one.as_str()),
            many => many.iter().map(Iri::as_str).collect(),
        };
        let mut map = Map::new();
        if let Some(kind) = c.kind.map(|k| k.name()).or_else(|| c.value.as_ref().filter(|_| self.is_whole).map(kind_of)) {
            map.insert("type".to_owned(), kind.into());
        }
        let value = c.value.as_ref().map(|value| match value {
            ValuePatch::Value(v) | ValuePatch::Bare(v) => ("value", v.clone()),
            ValuePatch::Object(list) => ("object", iris(list)),
            ValuePatch::LanguageMap(texts) => {
                let text = |t: &Option<Value>| t.clone().unwrap_or_else(|| NGSI_LD_NULL.into());
                ("languageMap", Value::Object(texts.iter().map(|(tag, t)| (tag.to_string(), text(t))).collect()))
            }
            ValuePatch::Vocab(list) => match list.as_slice() {
                [one] => ("vocab", self.context.compact(one).into_owned().into()),
                many => ("vocab", names(many)),
            },
            ValuePatch::Json(v) => ("json", v.clone()),
            ValuePatch::ValueList(list) => ("valueList", Value::Array(list.clone())),
            ValuePatch::ObjectList(list) => ("objectList", list.iter().map(|i| serde_json::json!({"object": i.as_str()})).collect()),
        });
        if let Some((member, value)) = value {
            map.insert(member.to_owned(), value);
        }
        if let Some(dataset_id) = &c.dataset_id {
            map.insert("datasetId".to_owned(), dataset_id.as_str().into());
        }
        put(&mut map, "observedAt", &c.observed_at, |at| at.to_string().into());
        put(&mut map, "unitCode", &c.unit_code, |u| u.as_str().into());
        put(&mut map, "valueType", &c.value_type, |t| self.context.compact(t).into_owned().into());
        put(&mut map, "objectType", &c.object_types, |list| names(list));
        put(&mut map, "expiresAt", &c.expires_at, |at| at.to_string().into());
        self.attributes(&mut map, &c.sub_attributes);
        Value::Object(map)
    }
}

fn kind_of(value: &ValuePatch) -> &'static str {
    match value {
        ValuePatch::Value(v) if Geometry::looks_like_one(v) => "GeoProperty",
        ValuePatch::Value(_) | ValuePatch::Bare(_) => "Property",
        ValuePatch::Object(_) => "Relationship",
        ValuePatch::LanguageMap(_) => "LanguageProperty",
        ValuePatch::Vocab(_) => "VocabProperty",
        ValuePatch::Json(_) => "JsonProperty",
        ValuePatch::ValueList(_) => "ListProperty",
        ValuePatch::ObjectList(_) => "ListRelationship",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ContextStore;
    use crate::decode::{self, PatchForm};
    use serde_json::json;

    #[test]
    fn a_fragment_reads_back_the_same() {
        let contexts = ContextStore::new(None, None).unwrap();
        let core = contexts.core_context();
        let id = Iri::known("urn:x:1");
        let check = |form: PatchForm, given: Value| {
            let patch = decode::entity_patch(given, &id, form, core).unwrap();
            let written = entity_patch(&patch, core, form == PatchForm::Instances);
            assert_eq!(is_simplified(&patch), form == PatchForm::SimplifiedMerge);
            let mut back = decode::entity_patch(written.clone(), &id, form, core).unwrap();
            for (_, i) in &mut back.attributes {
                // The kind is told although it was not asked to be.
                if let InstancePatch::Change(c) = i
                    && !given_kind(&patch, c)
                {
                    c.kind = None;
                }
            }
            assert_eq!(back, patch, "{written}");
        };
        fn given_kind(patch: &EntityPatch, c: &AttributePatch) -> bool {
            patch.attributes.iter().any(|(_, i)| matches!(i, InstancePatch::Change(p) if p.value == c.value && p.kind.is_some()))
        }
        check(
            PatchForm::Merge,
            json!({
                "type": ["A", "https://a.example/x/B"], "scope": "urn:ngsi-ld:null", "expiresAt": "2099-01-01T00:00:00Z", "gone": "urn:ngsi-ld:null",
                "p": {"value": {"a": "urn:ngsi-ld:null", "b": 1}, "unitCode": "urn:ngsi-ld:null", "observedAt": "2026-01-01T00:00:00Z",
                      "s": {"type": "Property", "value": 3}, "t": "urn:ngsi-ld:null"},
                "m": [{"value": 1}, {"type": "Property", "value": "urn:ngsi-ld:null", "datasetId": "urn:d:1"}],
                "l": {"languageMap": {"en": "x", "de": "urn:ngsi-ld:null"}}, "r": {"object": ["urn:x:2", "urn:x:3"], "objectType": "A"},
                "v": {"vocab": ["a", "b"]}, "j": {"json": {"x": null}}, "li": {"valueList": [1, "a"]}, "lr": {"objectList": ["urn:x:2"]},
                "only": {"observedAt": "2026-01-01T00:00:00Z"},
            }),
        );
        check(PatchForm::SimplifiedMerge, json!({"p": 1, "r": "urn:x:2", "l": {"languageMap": {"en": "x"}}, "gone": "urn:ngsi-ld:null"}));
        check(
            PatchForm::Instances,
            json!({"p": 1, "g": {"type": "Point", "coordinates": [1, 2]}, "r": {"object": "urn:x:2"}, "scope": ["/A", "/B"], "gone": "urn:ngsi-ld:null"}),
        );
    }
}
