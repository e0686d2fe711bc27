//! CSV to typed columns.
//!
//! A column's kind is that of all its values in the first batch: numbers, truth values, or text. Numbers with leading zeros are codes, so text.
//! A value of another kind later on is an error, not a change of mind: what is in the store already has the first kind.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{ArrayRef, BooleanBuilder, Float64Builder, StringBuilder};
use csv::ByteRecord;

use crate::layout::Layout;
use crate::read::{ReadError, Roles};
use crate::{BATCH_ROWS_MAX, COLUMNS_MAX, FIELD_BYTES_MAX, quoted};

/// Bytes of one row; an unclosed quotation mark would otherwise take in the whole file.
const ROW_BYTES_MAX: usize = 4 << 20;
/// Bytes of one batch, so that long rows make short batches.
const BATCH_BYTES_MAX: usize = 32 << 20;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Number,
    Bool,
    Text,
}

/// Counts what was read since the last whole row.
struct Metered<R> {
    inner: R,
    n_bytes: Arc<AtomicUsize>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.n_bytes.load(Ordering::Relaxed) > ROW_BYTES_MAX {
            return Err(io::Error::other(format!(
                "a row is longer than the limit of {ROW_BYTES_MAX} bytes (a quotation mark that is not closed?)"
            )));
        }
        let n = self.inner.read(buffer)?;
        self.n_bytes.fetch_add(n, Ordering::Relaxed);
        Ok(n)
    }
}

/// One batch of typed columns: ids and times as text, attributes without those that have had no value so far.
pub(crate) struct CsvBatch {
    pub(crate) ids: Vec<Option<String>>,
    pub(crate) times: Vec<Option<String>>,
    /// By the number of the attribute in the roles.
    pub(crate) attributes: Vec<(usize, ArrayRef)>,
}

pub(crate) struct CsvRows {
    csv: csv::Reader<Metered<Box<dyn Read + Send>>>,
    n_bytes: Arc<AtomicUsize>,
    pub(crate) roles: Roles,
    kinds: Vec<Option<Kind>>,
    nulls: Vec<Vec<u8>>,
    /// Rows that were looked at to learn the kinds.
    ahead: VecDeque<ByteRecord>,
    ended: bool,
    /// Rows read so far.
    n_read: u64,
}

impl CsvRows {
    /// Reads the header and as much as is needed to learn the kinds.
    pub(crate) fn open(read: Box<dyn Read + Send>, layout: &Layout) -> Result<Self, ReadError> {
        let n_bytes = Arc::new(AtomicUsize::new(0));
        let metered = Metered { inner: read, n_bytes: Arc::clone(&n_bytes) };
        let mut csv = csv::ReaderBuilder::new().has_headers(true).buffer_capacity(256 << 10).from_reader(metered);
        let header: Vec<String> = csv.headers().map_err(|e| wrong(&e, 0))?.iter().map(|name| name.trim().to_owned()).collect();
        n_bytes.store(0, Ordering::Relaxed);
        if header.len() > COLUMNS_MAX {
            return Err(ReadError::Limit { what: format!("{} columns are more than the limit of {COLUMNS_MAX}", header.len()) });
        }
        let roles = Roles::find(&header, layout)?;
        let kinds = roles.attributes.iter().map(|a| layout.text.contains(&a.name).then_some(Kind::Text)).collect();
        let nulls = layout.nulls.iter().map(|n| n.clone().into_bytes()).collect();
        let mut rows = Self { csv, n_bytes, roles, kinds, nulls, ahead: VecDeque::new(), ended: false, n_read: 0 };
        rows.ahead = rows.records()?.into();
        rows.learn(0);
        Ok(rows)
    }

    /// Passes over rows; fewer if there are fewer.
    pub(crate) fn skip(&mut self, n_rows: u64) -> Result<(), ReadError> {
        let n_ahead = usize::try_from(n_rows).unwrap_or(usize::MAX).min(self.ahead.len());
        self.ahead.drain(..n_ahead);
        let mut record = ByteRecord::new();
        for _ in n_ahead as u64..n_rows {
            if !self.record(&mut record)? {
                break;
            }
        }
        Ok(())
    }

    fn record(&mut self, record: &mut ByteRecord) -> Result<bool, ReadError> {
        if self.ended {
            return Ok(false);
        }
        let found = self.csv.read_byte_record(record).map_err(|e| wrong(&e, self.n_read + 1))?;
        self.n_bytes.store(0, Ordering::Relaxed);
        self.ended = !found;
        self.n_read += u64::from(found);
        Ok(found)
    }

    fn records(&mut self) -> Result<Vec<ByteRecord>, ReadError> {
        let mut records = Vec::new();
        let mut n_bytes = 0;
        while records.len() < BATCH_ROWS_MAX && n_bytes < BATCH_BYTES_MAX {
            let mut record = ByteRecord::with_capacity(96, 8);
            if !self.record(&mut record)? {
                break;
            }
            n_bytes += record.as_slice().len();
            records.push(record);
        }
        Ok(records)
    }

    fn is_null(&self, value: &[u8]) -> bool {
        value.is_empty() || self.nulls.iter().any(|n| n == value)
    }

    /// Decides the kind of columns that have none yet, from the rows that were read ahead, starting with the `from`th.
    fn learn(&mut self, from: usize) {
        for (i, attribute) in self.roles.attributes.iter().enumerate() {
            if self.kinds[i].is_some() {
                continue;
            }
            let values = || self.ahead.iter().skip(from).filter_map(|r| r.get(attribute.column)).map(trimmed).filter(|v| !self.is_null(v));
            if values().next().is_some() {
                self.kinds[i] = Some(if values().all(|v| number(v).is_some()) {
                    Kind::Number
                } else if values().all(|v| truth(v).is_some()) {
                    Kind::Bool
                } else {
                    Kind::Text
                });
            }
        }
    }

    /// The next rows, the first of which is row `first_row` (from 0) of the table; none at the end.
    pub(crate) fn batch(&mut self, first_row: u64) -> Result<Option<CsvBatch>, ReadError> {
        if self.ahead.is_empty() {
            self.ahead = self.records()?.into();
        }
        if self.ahead.is_empty() {
            return Ok(None);
        }
        self.learn(0);
        let records = std::mem::take(&mut self.ahead);
        let texts = |column: usize, name: &str| -> Result<Vec<Option<String>>, ReadError> {
            let text = |(i, record): (usize, &ByteRecord)| {
                let value = trimmed(record.get(column).unwrap_or_default());
                if self.is_null(value) {
                    return Ok(None);
                }
                utf8(value, first_row + i as u64, name).map(|t| Some(t.to_owned()))
            };
            records.iter().enumerate().map(text).collect()
        };
        let ids = texts(self.roles.id, &self.roles.id_name)?;
        let times = texts(self.roles.time, &self.roles.time_name)?;
        if let Some(column) = self.roles.dataset_id
            && let Some(i) = records.iter().position(|r| r.get(column).is_some_and(|v| !self.is_null(trimmed(v))))
        {
            return Err(ReadError::dataset_id(first_row + i as u64));
        }
        let mut attributes = Vec::new();
        for (i, attribute) in self.roles.attributes.iter().enumerate() {
            let Some(kind) = self.kinds[i] else { continue };
            let values = records.iter().map(|r| Some(trimmed(r.get(attribute.column).unwrap_or_default())).filter(|v| !self.is_null(v)));
            attributes.push((i, column(kind, values, records.len(), first_row, &attribute.column_name)?));
        }
        Ok(Some(CsvBatch { ids, times, attributes }))
    }
}

fn column<'a>(
    kind: Kind,
    values: impl Iterator<Item = Option<&'a [u8]>>,
    n_rows: usize,
    first_row: u64,
    name: &str,
) -> Result<ArrayRef, ReadError> {
    let wrong = |i: usize, value: &[u8], expected: &'static str| ReadError::Value {
        row: first_row + i as u64 + 1,
        column: name.to_owned(),
        found: quoted(&String::from_utf8_lossy(value)),
        expected,
    };
    let values = values.enumerate();
    Ok(match kind {
        Kind::Number => {
            let mut builder = Float64Builder::with_capacity(n_rows);
            for (i, value) in values {
                match value {
                    None => builder.append_null(),
                    Some(v) => builder.append_value(number(v).ok_or_else(|| {
                        wrong(i, v, "a number as in the rows before (declare the column as text if it is one, or the value as missing)")
                    })?),
                }
            }
            Arc::new(builder.finish())
        }
        Kind::Bool => {
            let mut builder = BooleanBuilder::with_capacity(n_rows);
            for (i, value) in values {
                match value {
                    None => builder.append_null(),
                    Some(v) => builder.append_value(truth(v).ok_or_else(|| wrong(i, v, "`true` or `false` as in the rows before"))?),
                }
            }
            Arc::new(builder.finish())
        }
        Kind::Text => {
            let mut builder = StringBuilder::with_capacity(n_rows, n_rows * 16);
            for (i, value) in values {
                match value {
                    None => builder.append_null(),
                    Some(v) => builder.append_value(utf8(v, first_row + i as u64, name)?),
                }
            }
            Arc::new(builder.finish())
        }
    })
}

fn trimmed(value: &[u8]) -> &[u8] {
    value.trim_ascii()
}

fn utf8<'a>(value: &'a [u8], row: u64, column: &str) -> Result<&'a str, ReadError> {
    if value.len() > FIELD_BYTES_MAX {
        let what = format!("row {}, column `{column}`: {} bytes are more than the limit of {FIELD_BYTES_MAX}", row + 1, value.len());
        return Err(ReadError::Limit { what });
    }
    std::str::from_utf8(value).map_err(|_| ReadError::Value {
        row: row + 1,
        column: column.to_owned(),
        found: quoted(&String::from_utf8_lossy(value)),
        expected: "text in UTF-8",
    })
}

/// A finite number in the usual notation; leading zeros mean a code.
fn number(value: &[u8]) -> Option<f64> {
    let digits = value.strip_prefix(b"-").unwrap_or(value);
    let is_number_like = digits.first().is_some_and(|b| b.is_ascii_digit() || *b == b'.');
    let is_code = digits.len() > 1 && digits[0] == b'0' && digits[1].is_ascii_digit();
    if !is_number_like || is_code {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok().filter(|n: &f64| n.is_finite())
}

fn truth(value: &[u8]) -> Option<bool> {
    if value.eq_ignore_ascii_case(b"true") {
        Some(true)
    } else if value.eq_ignore_ascii_case(b"false") {
        Some(false)
    } else {
        None
    }
}

fn wrong(error: &csv::Error, row: u64) -> ReadError {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            ReadError::Form { what: format!("row {row} has {len} fields; the header has {expected_len}") }
        }
        csv::ErrorKind::Io(e) => ReadError::Io(io::Error::new(e.kind(), e.to_string())),
        _ if row == 0 => ReadError::Form { what: format!("the CSV header cannot be read: {error}") },
        _ => ReadError::Form { what: format!("row {row} cannot be read: {error}") },
    }
}
