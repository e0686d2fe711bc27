//! Entities for receivers of earlier versions of the standard (clause 4.3.6.8).

use entity::{Attribute, AttributeValue, Entity, Instances, SubAttributes};
use serde_json::Value;

/// The entity as a receiver of version `major.minor` understands it: what that version does not have is written in what it has, or left out.
#[must_use]
pub fn downgraded(mut e: Entity, version: (u32, u32)) -> Entity {
    if version >= (1, 9) {
        return e;
    }
    e.expires_at = None;
    if version < (1, 4) {
        e.scopes.clear();
    }
    if version < (1, 3) {
        e.types.truncate(1);
    }
    for instances in e.attributes.values_mut() {
        *instances = older_instances(instances, version);
    }
    e
}

fn older_instances(instances: &Instances, version: (u32, u32)) -> Instances {
    if version < (1, 3) {
        // One has no name for the others: the default one, or the first.
        let one = instances.iter().find(|i| i.dataset_id.is_none()).or_else(|| instances.first());
        return one.map(|i| older(i.clone(), version)).into_iter().collect::<Vec<_>>().into();
    }
    instances.iter().map(|i| older(i.clone(), version)).collect::<Vec<_>>().into()
}

fn older(mut a: Attribute, version: (u32, u32)) -> Attribute {
    let is_language = matches!(a.value, AttributeValue::Language(_));
    if version < (1, 8) && !is_language || version < (1, 4) {
        a.value = older_value(a.value);
    }
    if let Some(qualifiers) = &mut a.qualifiers {
        qualifiers.expires_at = None;
        qualifiers.value_type = None;
        if version < (1, 8) {
            qualifiers.object_types.clear();
        }
    }
    if version < (1, 3) {
        (a.dataset_id, a.observed_at, a.unit_code) = (None, None, None);
    }
    let mut subs = SubAttributes::default();
    for (name, instances) in &a.sub_attributes {
        subs.insert(name.clone(), older_instances(instances, version));
    }
    a.sub_attributes = subs;
    a
}

fn older_value(value: AttributeValue) -> AttributeValue {
    let texts = |list: &[entity::Iri]| match list {
        [one] => Value::from(one.as_str()),
        many => many.iter().map(entity::Iri::as_str).collect(),
    };
    match value {
        AttributeValue::Language(map) => AttributeValue::Property(serde_json::to_value(map).expect("a language map is JSON")),
        AttributeValue::Vocab(list) => AttributeValue::Property(texts(&list)),
        AttributeValue::Json(json) => AttributeValue::Property(json),
        AttributeValue::List(list) => AttributeValue::Property(Value::Array(list)),
        AttributeValue::ListRelationship(list) => AttributeValue::Relationship(list),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::{self, Document};
    use crate::{ContextStore, View, decode};
    use serde_json::json;

    #[test]
    fn each_version_gets_what_it_knows() {
        let contexts = ContextStore::new(None, None).unwrap();
        let core = contexts.core_context();
        let full = json!({
            "id": "urn:x:1", "type": ["A", "B"], "scope": "/S", "expiresAt": "2099-01-01T00:00:00Z",
            "p": {"type": "Property", "value": 1, "unitCode": "CEL", "observedAt": "2026-01-01T00:00:00Z", "valueType": "T",
                  "v": {"type": "VocabProperty", "vocab": "w"}},
            "m": [{"type": "Property", "value": 1, "datasetId": "urn:d:1"}, {"type": "Property", "value": 2}],
            "l": {"type": "LanguageProperty", "languageMap": {"en": "x"}},
            "li": {"type": "ListProperty", "valueList": [1]},
            "lr": {"type": "ListRelationship", "objectList": [{"object": "urn:x:2"}]},
            "r": {"type": "Relationship", "object": "urn:x:2", "objectType": "A"},
        });
        let e = decode::entity(full, core).unwrap();
        let as_of = |version| -> Value {
            serde_json::from_slice(&encode::entity(&downgraded(e.clone(), version), &View::default(), core, Document::Json)).unwrap()
        };
        let now: Value = as_of((1, 9));
        assert_eq!(now["scope"], "/S");
        assert_eq!(now["p"]["valueType"], "T");
        let v8 = as_of((1, 8));
        assert!(v8["p"].get("valueType").is_none());
        assert_eq!((&v8["p"]["v"]["type"], &v8["r"]["objectType"]), (&json!("VocabProperty"), &json!("A")));
        let v6 = as_of((1, 6));
        assert_eq!(v6["p"]["v"]["type"], "Property");
        assert_eq!(v6["li"], json!({"type": "Property", "value": [1]}));
        assert_eq!(v6["lr"], json!({"type": "Relationship", "object": "urn:x:2"}));
        assert!(v6["r"].get("objectType").is_none());
        assert_eq!((&v6["l"]["type"], &v6["scope"]), (&json!("LanguageProperty"), &json!("/S")));
        let v2 = as_of((1, 2));
        assert_eq!((&v2["l"]["type"], &v2["type"], v2.get("scope")), (&json!("Property"), &json!("A"), None));
        assert_eq!(v2["m"], json!({"type": "Property", "value": 2}));
        assert!(v2["p"].get("unitCode").is_none() && v2["p"].get("observedAt").is_none());
    }
}
