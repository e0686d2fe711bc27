//! The query language and the parameters of a URL.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ngsi::ContextStore;
use ngsi::query::{Endpoint, QOptions, QueryParams, parse_q, parse_scopes, parse_types};

fuzz_target!(|text: &str| {
    thread_local!(static CONTEXTS: ContextStore = ContextStore::new(None, None).expect("the core context is embedded"));
    CONTEXTS.with(|contexts| {
        let context = contexts.core_context();
        let _ = parse_q(text, QOptions { context, expand_values: &[] });
        let _ = parse_types(text, context);
        let _ = parse_scopes(text);
        let _ = ngsi::context::context_of_link_header(text);
        let pairs: Vec<(String, String)> = text.split('&').filter_map(|p| p.split_once('=')).map(|(a, b)| (a.into(), b.into())).collect();
        let _ = QueryParams::from_pairs(&pairs, context, Endpoint::QueryEntities);
        let _ = QueryParams::from_pairs(&pairs, context, Endpoint::RetrieveTemporal);
    });
});
