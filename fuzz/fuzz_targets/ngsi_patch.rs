//! NGSI-LD patches of all forms, applied to an entity that has every kind of attribute: whatever is read can be resolved and applied.
#![no_main]

use entity::{Command, Entity, Instant, MergeOptions, PatchMode};
use libfuzzer_sys::fuzz_target;
use ngsi::ContextStore;
use ngsi::decode::{self, PatchForm};

const PRESENT: &[u8] = br#"{"id": "urn:x:1", "type": "A", "scope": "/a",
    "p": [{"type": "Property", "value": {"a": {"b": [1, "x"]}}, "unitCode": "CEL", "s": {"type": "Property", "value": 1}},
          {"type": "Property", "value": 2, "datasetId": "urn:x:d"}],
    "location": {"type": "GeoProperty", "value": {"type": "Point", "coordinates": [1, 2]}},
    "r": {"type": "Relationship", "object": ["urn:x:2"]}, "l": {"type": "LanguageProperty", "languageMap": {"en": "a"}},
    "v": {"type": "VocabProperty", "vocab": "x"}, "j": {"type": "JsonProperty", "json": {"k": null}},
    "vl": {"type": "ListProperty", "valueList": [1]}, "rl": {"type": "ListRelationship", "objectList": [{"object": "urn:x:3"}]}}"#;

fuzz_target!(|data: &[u8]| {
    thread_local!(static CONTEXTS: ContextStore = ContextStore::new(None, None).expect("the core context is embedded"));
    CONTEXTS.with(|contexts| {
        let context = contexts.core_context();
        let Ok(value) = decode::json(data) else { return };
        let present: Entity = decode::json(PRESENT).and_then(|v| decode::entity(v, context)).expect("it is an entity");
        for (form, mode) in [
            (PatchForm::Instances, PatchMode::Update),
            (PatchForm::Replacement, PatchMode::Replace),
            (PatchForm::Members, PatchMode::Partial),
            (PatchForm::Merge, PatchMode::Merge(MergeOptions::default())),
            (PatchForm::SimplifiedMerge, PatchMode::Merge(MergeOptions::default())),
        ] {
            let Ok(patch) = decode::entity_patch(value.clone(), &present.id, form, context) else { continue };
            if let Ok(resolved) = entity::resolve(Command::Patch { patch, mode }, Some(&present))
                && let Some(mut delta) = resolved.delta
            {
                let _ = delta.apply(Some(present.clone()), Instant::from_secs(1));
            }
        }
    });
});
