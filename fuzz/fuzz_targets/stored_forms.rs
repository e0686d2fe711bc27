//! Stored entities and changes, damaged in whatever way: an error or a value that reads back, never a panic.
#![no_main]

use entity::codec::{Skim, decode_delta, decode_entity, encode_delta, encode_entity};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(entity) = decode_entity(data) {
        assert_eq!(decode_entity(&encode_entity(&entity)).expect("what was written reads back"), entity);
    }
    if let Ok((delta, _)) = decode_delta(data) {
        // Recorded times are not written: they are those of the record.
        let (mut bytes, mut again) = (Vec::new(), Vec::new());
        encode_delta(&delta, &mut bytes);
        encode_delta(&decode_delta(&bytes).expect("what was written reads back").0, &mut again);
        assert_eq!(again, bytes);
    }
    let _ = skim(data);
});

/// Goes through an entity as a start does.
fn skim(data: &[u8]) -> Result<(), entity::codec::CodecError> {
    let mut skim = Skim::of(data)?;
    skim.types()?;
    skim.scopes()?;
    while let Some(attribute) = skim.next_attribute()? {
        attribute.name()?;
        attribute.instances()?;
    }
    Ok(())
}
