//! Records of the log: what one submission came to.
//!
//! ```text
//! changes = 1 space:u8 recorded_at_us:i64 n:u32 delta*                                             (little endian; a delta as in `entity::codec`)
//! rows    = 2 recorded_at_us:i64 type_bytes:u32 type ipc_bytes:u32 ipc n:u32 delta*                 (ipc: an Arrow stream of one batch)
//! erasure = 3 recorded_at_us:i64 json                                                              (what is taken out of the history)
//! old     = {"a":...,"s":...,"d":[...]}                                                             (JSON, written by earlier versions)
//! ```
//!
//! The deltas of rows are those of the present state alone; the history takes the batch itself.

use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch;
use entity::codec::{CodecError, decode_delta, encode_delta};
use entity::{Delta, Instant, Iri, IriError};
use serde::{Deserialize, Serialize};

use crate::history::Erasure;
use crate::state::Space;

const CHANGES: u8 = 1;
const ROWS: u8 = 2;
const ERASURE: u8 = 3;
const OLD: u8 = b'{';

/// What a record says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    pub(crate) recorded_at: Instant,
    pub(crate) space: Space,
    pub(crate) deltas: Vec<Delta>,
    /// Observations that came as columns, with the type of their entities.
    pub(crate) rows: Option<(Iri, RecordBatch)>,
    /// What is taken out of the history.
    pub(crate) erasure: Option<Erasure>,
}

/// Why bytes are not a record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A format that this program does not know.
    #[error("the record is of format {found}, which this program does not know; use a newer program")]
    Format {
        /// Its first byte.
        found: u8,
    },
    /// It ends too early, or goes on too long.
    #[error("the record is {what} at byte {at_byte}")]
    Length {
        /// `cut` or `too long`.
        what: &'static str,
        /// Where.
        at_byte: usize,
    },
    /// A space that there is not.
    #[error("the record is for space {found}, which there is not")]
    Space {
        /// What it says.
        found: u8,
    },
    /// A delta cannot be read.
    #[error("delta {idx} of the record cannot be read")]
    Delta {
        /// Which one.
        idx: usize,
        /// Why.
        #[source]
        source: CodecError,
    },
    /// A record of an earlier version cannot be read.
    #[error("the JSON of the record cannot be read")]
    Json(#[from] serde_json::Error),
    /// The type of rows is no IRI.
    #[error("the type of the rows in the record cannot be read")]
    Type(#[from] IriError),
    /// Rows cannot be read or written.
    #[error("the rows of the record cannot be read")]
    Rows(#[from] arrow::error::ArrowError),
}

/// A record of changes.
pub(crate) fn encode_changes(space: Space, recorded_at: Instant, deltas: &[&Delta]) -> Vec<u8> {
    // About what the id and each value take.
    let n_bytes: usize = deltas.iter().map(|d| 64 + 48 * (d.put.len() + d.late.len())).sum();
    let mut out = Vec::with_capacity(64 + n_bytes);
    out.push(CHANGES);
    out.push(space_byte(space));
    out.extend_from_slice(&recorded_at.micros().to_le_bytes());
    push_deltas(&mut out, deltas);
    out
}

/// A record of an erasure, recorded when it says.
pub(crate) fn encode_erasure(erasure: &Erasure) -> Vec<u8> {
    let mut out = vec![ERASURE];
    out.extend_from_slice(&erasure.recorded_at.micros().to_le_bytes());
    out.extend(serde_json::to_vec(erasure).expect("an erasure is JSON"));
    out
}

/// A record of rows on its way: all but the time and the deltas, which only the committer knows.
pub(crate) struct RowsDraft(Vec<u8>);

impl RowsDraft {
    /// Errors: the columns cannot be written.
    pub(crate) fn new(entity_type: &Iri, batch: &RecordBatch) -> Result<Self, RecordError> {
        let name = entity_type.as_str().as_bytes();
        let mut out = Vec::with_capacity(batch.get_array_memory_size() + name.len() + 1_024);
        out.push(ROWS);
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&(name.len() as u32).to_le_bytes());
        out.extend_from_slice(name);
        let at = out.len();
        out.extend_from_slice(&[0; 4]);
        let mut writer = StreamWriter::try_new(&mut out, batch.schema_ref())?;
        writer.write(batch)?;
        writer.finish()?;
        drop(writer);
        let ipc_bytes = (out.len() - at - 4) as u32;
        out[at..at + 4].copy_from_slice(&ipc_bytes.to_le_bytes());
        Ok(Self(out))
    }

    pub(crate) const fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn finish(mut self, recorded_at: Instant, deltas: &[&Delta]) -> Vec<u8> {
        self.0[1..9].copy_from_slice(&recorded_at.micros().to_le_bytes());
        push_deltas(&mut self.0, deltas);
        self.0
    }
}

fn push_deltas(out: &mut Vec<u8>, deltas: &[&Delta]) {
    out.extend_from_slice(&(deltas.len() as u32).to_le_bytes());
    for delta in deltas {
        encode_delta(delta, out);
    }
}

/// Reads a record of any format.
pub(crate) fn decode(bytes: &[u8]) -> Result<Record, RecordError> {
    let mut input = Input { bytes, at: 0 };
    match input.take(1)?[0] {
        OLD => {
            let Old { recorded_at, space, deltas } = serde_json::from_slice(bytes)?;
            Ok(Record { recorded_at, space, deltas, rows: None, erasure: None })
        }
        CHANGES => {
            let space = match input.take(1)?[0] {
                0 => Space::City,
                1 => Space::Node,
                found => return Err(RecordError::Space { found }),
            };
            let recorded_at = input.instant()?;
            Ok(Record { recorded_at, space, deltas: input.deltas()?, rows: None, erasure: None })
        }
        ROWS => {
            let recorded_at = input.instant()?;
            let len = input.u32()?;
            let name: Iri = String::from_utf8_lossy(input.take(len)?).parse()?;
            let len = input.u32()?;
            let mut stream = StreamReader::try_new(input.take(len)?, None)?;
            let batch = stream.next().ok_or(RecordError::Length { what: "cut", at_byte: input.at })??;
            Ok(Record { recorded_at, space: Space::City, deltas: input.deltas()?, rows: Some((name, batch)), erasure: None })
        }
        ERASURE => {
            let recorded_at = input.instant()?;
            let erasure = serde_json::from_slice(&bytes[input.at..])?;
            Ok(Record { recorded_at, space: Space::City, deltas: Vec::new(), rows: None, erasure: Some(erasure) })
        }
        found => Err(RecordError::Format { found }),
    }
}

/// When a record was recorded, without reading the rest of it.
pub(crate) fn recorded_at(bytes: &[u8]) -> Result<Instant, RecordError> {
    let mut input = Input { bytes, at: 0 };
    match input.take(1)?[0] {
        CHANGES => {
            input.take(1)?;
            input.instant()
        }
        ROWS | ERASURE => input.instant(),
        OLD => {
            #[derive(Deserialize)]
            struct Time {
                a: Instant,
            }
            Ok(serde_json::from_slice::<Time>(bytes)?.a)
        }
        found => Err(RecordError::Format { found }),
    }
}

const fn space_byte(space: Space) -> u8 {
    match space {
        Space::City => 0,
        Space::Node => 1,
    }
}

/// The form of earlier versions.
#[derive(Serialize, Deserialize)]
struct Old {
    #[serde(rename = "a")]
    recorded_at: Instant,
    #[serde(rename = "s")]
    space: Space,
    #[serde(rename = "d")]
    deltas: Vec<Delta>,
}

struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], RecordError> {
        let taken = self.at.checked_add(n).and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or(RecordError::Length { what: "cut", at_byte: self.bytes.len() })?;
        self.at += n;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<usize, RecordError> {
        Ok(u32::from_le_bytes(self.take(4)?.try_into().expect("four bytes")) as usize)
    }

    fn instant(&mut self) -> Result<Instant, RecordError> {
        Ok(Instant::from_micros(i64::from_le_bytes(self.take(8)?.try_into().expect("eight bytes"))))
    }

    /// All that is left.
    fn deltas(&mut self) -> Result<Vec<Delta>, RecordError> {
        let n = self.u32()?;
        // What is claimed is not believed before it is there.
        let mut deltas = Vec::with_capacity(n.min(4_096));
        for idx in 0..n {
            let (delta, used) = decode_delta(&self.bytes[self.at..]).map_err(|source| RecordError::Delta { idx, source })?;
            self.at += used;
            deltas.push(delta);
        }
        if self.at == self.bytes.len() { Ok(deltas) } else { Err(RecordError::Length { what: "too long", at_byte: self.at }) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};
    use entity::{Attribute, Command, Entity, resolve};
    use proptest::prelude::*;

    use super::*;

    fn delta(i: u32) -> Delta {
        let e = Entity::new(Iri::known(&format!("urn:ngsi-ld:Station:{i}")), Iri::known("https://example.org/Station"));
        let e = e.with(Iri::known("urn:a:b"), Attribute::property(f64::from(i) + 0.5).observed(Instant::from_secs(i.into())));
        resolve(Command::Create(e), None).unwrap().delta.unwrap()
    }

    fn batch() -> RecordBatch {
        let fields = [("entity_id", DataType::Utf8), ("urn:a:b", DataType::Float64)].map(|(n, t)| Field::new(n, t, true));
        let columns: Vec<ArrayRef> =
            vec![Arc::new(StringArray::from(vec!["urn:a:1", "urn:a:2"])), Arc::new(Float64Array::from(vec![Some(1.5), None]))];
        RecordBatch::try_new(Arc::new(Schema::new(fields.to_vec())), columns).unwrap()
    }

    #[test]
    fn records_of_every_format_read_back() {
        let recorded_at = Instant::from_micros(1_700_000_000_000_001);
        let deltas = vec![delta(1), delta(2)];
        let borrowed: Vec<&Delta> = deltas.iter().collect();
        let entity_type = Iri::known("https://example.org/Station");
        let changes = Record { recorded_at, space: Space::Node, deltas: deltas.clone(), rows: None, erasure: None };
        check(&encode_changes(Space::Node, recorded_at, &borrowed), &changes);
        let old = serde_json::to_vec(&Old { recorded_at, space: Space::Node, deltas: deltas.clone() }).unwrap();
        check(&old, &changes);
        let of_one = Erasure::of_entity(entity_type.clone(), Iri::known("urn:ngsi-ld:Station:1"), recorded_at);
        let erasure = Record { recorded_at, space: Space::City, deltas: Vec::new(), rows: None, erasure: Some(of_one.clone()) };
        check(&encode_erasure(&of_one), &erasure);
        let rows = Some((entity_type.clone(), batch()));
        let rows = Record { recorded_at, space: Space::City, deltas: deltas.clone(), rows, erasure: None };
        check(&RowsDraft::new(&entity_type, &batch()).unwrap().finish(recorded_at, &borrowed), &rows);

        #[track_caller]
        fn check(bytes: &[u8], want: &Record) {
            assert_eq!(decode(bytes).unwrap(), *want);
            assert_eq!(super::recorded_at(bytes).unwrap(), want.recorded_at);
            for n in 0..bytes.len() {
                assert!(decode(&bytes[..n]).is_err(), "cut at byte {n} and not noticed");
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), format in 0u8..5) {
            if let Some(first) = bytes.first_mut() { *first = format; }
            let _ = decode(&bytes);
        }
    }
}
