//! Geometries and geographic questions: GeoJSON in bodies, `georel`, `geometry` and `coordinates` in URLs.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ngsi::ContextStore;
use ngsi::decode;
use ngsi::query::{Endpoint, QueryParams};

fuzz_target!(|data: &[u8]| {
    thread_local!(static CONTEXTS: ContextStore = ContextStore::new(None, None).expect("the core context is embedded"));
    CONTEXTS.with(|contexts| {
        let context = contexts.core_context();
        let Ok(text) = std::str::from_utf8(data) else { return };
        if let Ok(value) = serde_json::from_str::<serde_json::Value>(text) {
            let entity = serde_json::json!({"id": "urn:x:1", "type": "A", "location": {"type": "GeoProperty", "value": value}});
            let _ = decode::entity(entity, context);
        }
        let mut lines = text.lines();
        let (georel, geometry, coordinates) = (lines.next(), lines.next(), lines.next());
        let (Some(georel), Some(geometry), Some(coordinates)) = (georel, geometry, coordinates) else { return };
        let pairs = [("type", "A"), ("georel", georel), ("geometry", geometry), ("coordinates", coordinates)];
        let pairs: Vec<(String, String)> = pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        if let Ok(params) = QueryParams::from_pairs(&pairs, context, Endpoint::QueryEntities) {
            let entity = br#"{"id": "urn:x:1", "type": "A", "location": {"type": "GeoProperty", "value": {"type": "Point", "coordinates": [1, 2]}}}"#;
            let entity = decode::json(entity).and_then(|v| decode::entity(v, context)).expect("it is an entity");
            let _ = params.filter.matches(&entity);
        }
    });
});
