//! Stored entities and changes, damaged in whatever way: an error or a value that reads back, never a panic.
#![no_main]

use entity::codec::{Skim, TermForm, decode_deltas, decode_entity, encode_deltas, encode_entity};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(entity) = decode_entity(data) {
        assert_eq!(decode_entity(&encode_entity(&entity)).expect("what was written reads back"), entity);
    }
    for (form, n) in [(TermForm::Full, 1), (TermForm::Once, 1), (TermForm::Once, 3)] {
        if let Ok((deltas, _)) = decode_deltas(data, n, form) {
            // Recorded times are not written: they are those of the record.
            let (mut bytes, mut again) = (Vec::new(), Vec::new());
            encode_deltas(&deltas.iter().collect::<Vec<_>>(), &mut bytes);
            let (read, n_bytes) = decode_deltas(&bytes, n, TermForm::Once).expect("what was written reads back");
            assert_eq!(n_bytes, bytes.len());
            encode_deltas(&read.iter().collect::<Vec<_>>(), &mut again);
            assert_eq!(again, bytes);
        }
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
