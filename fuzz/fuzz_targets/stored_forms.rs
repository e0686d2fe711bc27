//! Stored entities and changes, damaged in whatever way: an error or a value that reads back, never a panic.
#![no_main]

use entity::codec::{decode_delta, decode_entity, encode_delta, encode_entity};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(entity) = decode_entity(data) {
        assert_eq!(decode_entity(&encode_entity(&entity)).expect("what was written reads back"), entity);
    }
    if let Ok((delta, _)) = decode_delta(data) {
        let mut bytes = Vec::new();
        encode_delta(&delta, &mut bytes);
        assert_eq!(decode_delta(&bytes).expect("what was written reads back").0, delta);
    }
});
