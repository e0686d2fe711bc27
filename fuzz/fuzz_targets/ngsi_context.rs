//! JSON-LD contexts that clients give us, and the names that they make: what a name is made short to means the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ngsi::ContextStore;
use ngsi::context::{context_of_link_header, local_id};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = (context_of_link_header(text), local_id(text));
    let (context, names) = text.split_once('\n').unwrap_or((text, ""));
    let Ok(context) = serde_json::from_str::<serde_json::Value>(context) else { return };
    let contexts = ContextStore::new(None, None).expect("the core context is embedded");
    let _ = (contexts.missing(&context), contexts.named(&context));
    let _ = contexts.insert("https://example.org/c.jsonld", &serde_json::json!({ "@context": context }).to_string());
    let Ok(resolved) = contexts.resolve(&context) else { return };
    for name in names.split_whitespace() {
        if let Ok(iri) = resolved.expand(name) {
            let short = resolved.compact(&iri).into_owned();
            assert_eq!(resolved.expand(&short).as_ref(), Ok(&iri), "`{name}` as `{short}`");
        }
    }
    // What is written as the context of an answer reads back to the same one.
    let again = contexts.resolve(&resolved.json()).expect("what we write we read");
    assert_eq!(again.n_terms(), resolved.n_terms());
});
