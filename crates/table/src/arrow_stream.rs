//! Arrow IPC streams that came over the network.

use std::io::Cursor;

use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamReader;

use crate::read::{Batches, ReadError};

/// Before a message: that its length follows (the form since Arrow 0.15).
const CONTINUES: [u8; 4] = [0xff; 4];

/// Checks that no message claims more than there is: the library reserves what a message claims.
fn check_lengths(bytes: &[u8]) -> Result<(), ReadError> {
    let damaged = |at: usize, why: &str| ReadError::Form { what: format!("the Arrow stream is damaged at byte {at}: {why}") };
    let mut at = 0;
    while at < bytes.len() {
        let number = |at: usize| bytes.get(at..at + 4).and_then(|b| b.try_into().ok());
        let mut head: [u8; 4] = number(at).ok_or_else(|| damaged(at, "it is cut off"))?;
        if head == CONTINUES {
            at += 4;
            head = number(at).ok_or_else(|| damaged(at, "it is cut off"))?;
        }
        at += 4;
        let n_meta = u32::from_le_bytes(head) as usize;
        if n_meta == 0 {
            return Ok(());
        }
        let meta = bytes.get(at..).and_then(|rest| rest.get(..n_meta)).ok_or_else(|| damaged(at, "a message is longer than the stream"))?;
        let message = arrow::ipc::root_as_message(meta).map_err(|e| damaged(at, &format!("a message cannot be read: {e}")))?;
        at += n_meta;
        let n_body = usize::try_from(message.bodyLength()).map_err(|_| damaged(at, "a length is negative"))?;
        if bytes.len() - at < n_body {
            return Err(damaged(at, "a message is longer than the stream"));
        }
        at += n_body;
    }
    Ok(())
}

pub(crate) fn open(bytes: Vec<u8>) -> Result<(SchemaRef, Batches), ReadError> {
    check_lengths(&bytes)?;
    let reader = StreamReader::try_new(Cursor::new(bytes), None)
        .map_err(|e| ReadError::Form { what: format!("the body is not an Arrow IPC stream: {e}") })?;
    Ok((reader.schema(), Box::new(reader)))
}
