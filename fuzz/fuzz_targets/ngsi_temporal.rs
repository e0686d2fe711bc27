//! Questions about the past in URLs, and instants and durations in them.
#![no_main]

use entity::Instant;
use libfuzzer_sys::fuzz_target;
use ngsi::ContextStore;
use ngsi::query::{Endpoint, QueryParams};

fuzz_target!(|data: &[u8]| {
    thread_local!(static CONTEXTS: ContextStore = ContextStore::new(None, None).expect("the core context is embedded"));
    CONTEXTS.with(|contexts| {
        let Ok(text) = std::str::from_utf8(data) else { return };
        if let Ok(at) = text.parse::<Instant>() {
            assert_eq!(at.to_string().parse::<Instant>(), Ok(at), "an instant reads back");
        }
        let pairs: Vec<(String, String)> =
            text.lines().filter_map(|l| l.split_once('=')).map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        for endpoint in [Endpoint::QueryTemporal, Endpoint::RetrieveTemporal] {
            let _ = QueryParams::from_pairs(&pairs, contexts.core_context(), endpoint);
        }
    });
});
