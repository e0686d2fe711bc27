//! NGSI-LD bodies: entities, batches, subscriptions. What is read must also be written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ngsi::encode::Document;
use ngsi::{ContextStore, View, decode, encode};

fuzz_target!(|data: &[u8]| {
    thread_local!(static CONTEXTS: ContextStore = ContextStore::new(None, None).expect("the core context is embedded"));
    CONTEXTS.with(|contexts| {
        let context = contexts.core_context();
        let Ok(value) = decode::json(data) else { return };
        if let Ok(entity) = decode::entity(value.clone(), context) {
            let written = encode::entity(&entity, &View::default(), context, Document::Json);
            let again = decode::json(&written).and_then(|v| decode::entity(v, context)).expect("what we write we read");
            assert_eq!(again.attributes, entity.attributes);
        }
        let _ = decode::evolution(value.clone(), context);
        let _ = decode::subscription(value, context);
        if let Ok(body) = decode::body(data, decode::MediaType::LdJson, None, contexts) {
            let _ = decode::batch(body);
        }
    });
});
