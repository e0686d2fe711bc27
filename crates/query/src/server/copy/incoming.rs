//! Observations that arrive by `COPY "T_history" (...) FROM STDIN`.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanBuilder, Float64Builder, StringBuilder, TimestampMicrosecondBuilder};
use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::record_batch::RecordBatch;
use entity::{Instant, Iri};

use super::split::{Record, Splitter};
use super::{Form, copy_error};
use crate::error::QueryError;
use crate::pushdown::{ID, OBSERVED_AT};
use crate::{Sink, SinkError};

/// Rows that are handed on together, and are recorded together or not at all.
const BATCH_ROWS: usize = 10_000;

/// What a column of the data is.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Column {
    Id,
    ObservedAt,
    Attribute { name: String, iri: String, kind: DataType, unit_code: Option<String> },
}

/// A COPY in progress.
pub(in crate::server) struct Incoming {
    sink: Arc<dyn Sink>,
    entity_type: Iri,
    columns: Vec<Column>,
    splitter: Splitter,
    /// The line with names is still to come.
    header: bool,
    records: Vec<Record>,
    n_recorded: u64,
    /// The first error; everything after it is passed over.
    failed: Option<QueryError>,
}

impl Incoming {
    /// A COPY into the history of a type, whose table has this schema.
    ///
    /// Errors: [`QueryError::Copy`] for columns that are not there, or cannot be written.
    pub(in crate::server) fn new(
        sink: Arc<dyn Sink>,
        entity_type: Iri,
        table: &Schema,
        names: &[String],
        form: Form,
    ) -> Result<Self, QueryError> {
        if names.is_empty() {
            return Err(copy_error("name the columns, as in COPY \"T_history\" (id, observed_at, pm25) FROM STDIN"));
        }
        let columns = names.iter().map(|name| column(table, name)).collect::<Result<Vec<_>, _>>()?;
        for needed in [Column::Id, Column::ObservedAt] {
            match columns.iter().filter(|c| **c == needed).count() {
                1 => {}
                _ => return Err(copy_error("the columns id and observed_at are needed, once each")),
            }
        }
        let mut seen = HashMap::new();
        for name in names {
            if seen.insert(name, ()).is_some() {
                return Err(copy_error(format!("column \"{name}\" is named twice")));
            }
        }
        if columns.len() == 2 {
            return Err(copy_error("name at least one attribute"));
        }
        let header = form.header;
        Ok(Self { sink, entity_type, columns, splitter: Splitter::new(form), header, records: Vec::new(), n_recorded: 0, failed: None })
    }

    pub(in crate::server) fn n_columns(&self) -> usize {
        self.columns.len()
    }

    /// Takes a piece of the data; whole batches are recorded. An error is kept until the end: the client listens only then.
    pub(in crate::server) async fn data(&mut self, piece: &[u8]) {
        if self.failed.is_none()
            && let Err(error) = self.take(piece).await
        {
            self.failed = Some(error);
        }
    }

    async fn take(&mut self, piece: &[u8]) -> Result<(), QueryError> {
        let read = self.splitter.feed(piece, &mut self.records);
        self.skip_header();
        while self.records.len() >= BATCH_ROWS {
            let later = self.records.split_off(BATCH_ROWS);
            let batch = std::mem::replace(&mut self.records, later);
            self.record(&batch).await?;
        }
        read.map_err(|e| self.told(e))
    }

    fn skip_header(&mut self) {
        if self.header && !self.records.is_empty() {
            self.records.remove(0);
            self.header = false;
        }
    }

    /// The end of the data: the number of rows recorded, all of them durable.
    ///
    /// Errors: the first one; it says how many rows before it are recorded.
    pub(in crate::server) async fn finish(mut self) -> Result<u64, QueryError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let read = self.splitter.finish(&mut self.records);
        self.skip_header();
        read.map_err(|e| self.told(e))?;
        let last = std::mem::take(&mut self.records);
        for batch in last.chunks(BATCH_ROWS) {
            self.record(batch).await?;
        }
        Ok(self.n_recorded)
    }

    /// How many rows are recorded, whatever becomes of the rest.
    pub(in crate::server) fn n_recorded(&self) -> u64 {
        self.n_recorded
    }

    fn told(&self, error: QueryError) -> QueryError {
        match error {
            QueryError::CopyRow { line, column, reason, .. } => QueryError::CopyRow { line, column, reason, n_recorded: self.n_recorded },
            other => other,
        }
    }

    async fn record(&mut self, records: &[Record]) -> Result<(), QueryError> {
        let batch = batch(&self.columns, records).map_err(|e| self.told(e))?;
        let n_rows = batch.num_rows() as u64;
        match self.sink.append(&self.entity_type, batch).await {
            Ok(_) => {
                self.n_recorded += n_rows;
                Ok(())
            }
            Err(SinkError::Invalid { row, column, reason }) => {
                let line = row.and_then(|r| records.get(r)).or(records.first()).map_or(0, |r| r.line);
                let named = column.map(|c| self.short_name(&c));
                Err(QueryError::CopyRow { line, column: named, reason, n_recorded: self.n_recorded })
            }
            Err(error) => Err(QueryError::CopySink { error, n_recorded: self.n_recorded }),
        }
    }

    /// The name that the client knows a column by.
    fn short_name(&self, sunk: &str) -> String {
        let known = self.columns.iter().find_map(|c| match c {
            Column::Attribute { name, iri, .. } if iri == sunk => Some(name.clone()),
            _ => None,
        });
        known.unwrap_or_else(|| if sunk == "entity_id" { ID.to_owned() } else { sunk.to_owned() })
    }
}

fn column(table: &Schema, name: &str) -> Result<Column, QueryError> {
    match name {
        ID => return Ok(Column::Id),
        OBSERVED_AT => return Ok(Column::ObservedAt),
        "recorded_at" | "dataset_id" => {
            return Err(copy_error(format!("column \"{name}\" cannot be written: the node fills it in")));
        }
        _ => {}
    }
    let Ok(field) = table.field_with_name(name) else {
        let known = table.fields().iter().skip(4).map(|f| format!("\"{}\"", f.name())).collect::<Vec<_>>().join(", ");
        return Err(copy_error(format!("column \"{name}\" does not exist (expected id, observed_at, {known})")));
    };
    let is_json = field.metadata().get("kind").is_some_and(|k| k == "json");
    let iri = field.metadata().get("iri").cloned();
    match (field.data_type(), iri) {
        (kind @ (DataType::Float64 | DataType::Boolean | DataType::Utf8), Some(iri)) if !is_json => {
            Ok(Column::Attribute { name: name.to_owned(), iri, kind: kind.clone(), unit_code: field.metadata().get("unit_code").cloned() })
        }
        _ => Err(copy_error(format!("column \"{name}\" cannot be written by COPY: only numbers, truth values and texts can"))),
    }
}

/// The records as a batch in the sink's columns.
fn batch(columns: &[Column], records: &[Record]) -> Result<RecordBatch, QueryError> {
    let mut fields = vec![Field::new("entity_id", DataType::Utf8, false)];
    fields.push(Field::new("observed_at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false));
    let mut arrays: Vec<Option<ArrayRef>> = vec![None, None];
    for record in records {
        if record.values.len() != columns.len() {
            let reason = format!("{} values (expected {})", record.values.len(), columns.len());
            return Err(QueryError::CopyRow { line: record.line, column: None, reason, n_recorded: 0 });
        }
    }
    for (i, column) in columns.iter().enumerate() {
        let values = records.iter().map(|r| (r.line, r.values[i].as_deref()));
        match column {
            Column::Id => arrays[0] = Some(ids(values)?),
            Column::ObservedAt => arrays[1] = Some(times(values)?),
            Column::Attribute { name, iri, kind, unit_code } => {
                let metadata = unit_code.iter().map(|u| ("unit_code".to_owned(), u.clone())).collect();
                fields.push(Field::new(iri, kind.clone(), true).with_metadata(metadata));
                arrays.push(Some(attribute(name, kind, values)?));
            }
        }
    }
    let arrays: Option<Vec<ArrayRef>> = arrays.into_iter().collect();
    let arrays = arrays.ok_or_else(|| copy_error("the columns id and observed_at are needed, once each"))?;
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(|e| copy_error(e.to_string()))
}

fn wrong(line: u64, column: &str, reason: String) -> QueryError {
    QueryError::CopyRow { line, column: Some(column.to_owned()), reason, n_recorded: 0 }
}

fn ids<'v>(values: impl Iterator<Item = (u64, Option<&'v str>)>) -> Result<ArrayRef, QueryError> {
    let mut builder = StringBuilder::new();
    for (line, value) in values {
        let value = value.ok_or_else(|| wrong(line, ID, "no value (expected the id of an entity)".to_owned()))?;
        let id: Iri = value.parse().map_err(|e: entity::IriError| wrong(line, ID, e.to_string()))?;
        builder.append_value(id.as_str());
    }
    Ok(Arc::new(builder.finish()))
}

/// A time as ISO 8601 or PostgreSQL writes it, in microseconds; without a zone it is UTC.
fn micros(text: &str) -> Option<i64> {
    let parsed = text.parse::<Instant>().ok().map(Instant::micros);
    // The parser knows zones with minutes only; PostgreSQL leaves them out.
    let zoned = |t: &str| t.len() > 3 && matches!(t.as_bytes()[t.len() - 3], b'+' | b'-') && t.contains(':');
    let full = if zoned(text) { format!("{text}:00") } else { text.to_owned() };
    parsed.or_else(|| string_to_timestamp_nanos(&full).ok().map(|ns| ns.div_euclid(1_000)))
}

fn times<'v>(values: impl Iterator<Item = (u64, Option<&'v str>)>) -> Result<ArrayRef, QueryError> {
    let mut builder = TimestampMicrosecondBuilder::new();
    for (line, value) in values {
        let value = value.ok_or_else(|| wrong(line, OBSERVED_AT, "no value (expected a time)".to_owned()))?;
        let expected = || wrong(line, OBSERVED_AT, format!("`{value}` is not a time (expected one such as 2014-01-01T00:00:00Z)"));
        builder.append_value(micros(value.trim()).ok_or_else(expected)?);
    }
    Ok(Arc::new(builder.finish().with_timezone("UTC")))
}

fn attribute<'v>(name: &str, kind: &DataType, values: impl Iterator<Item = (u64, Option<&'v str>)>) -> Result<ArrayRef, QueryError> {
    match kind {
        DataType::Float64 => {
            let mut builder = Float64Builder::new();
            for (line, value) in values {
                let number = value.map(|v| {
                    let parsed = v.trim().parse::<f64>().ok().filter(|n| n.is_finite());
                    parsed.ok_or_else(|| wrong(line, name, format!("`{v}` is not a number")))
                });
                builder.append_option(number.transpose()?);
            }
            Ok(Arc::new(builder.finish()))
        }
        DataType::Boolean => {
            let mut builder = BooleanBuilder::new();
            for (line, value) in values {
                let flag = value.map(|v| match v.trim().to_ascii_lowercase().as_str() {
                    "t" | "true" | "1" | "yes" | "on" | "y" => Ok(true),
                    "f" | "false" | "0" | "no" | "off" | "n" => Ok(false),
                    _ => Err(wrong(line, name, format!("`{v}` is not a truth value (expected true or false)"))),
                });
                builder.append_option(flag.transpose()?);
            }
            Ok(Arc::new(builder.finish()))
        }
        _ => {
            let mut builder = StringBuilder::new();
            values.for_each(|(_, v)| builder.append_option(v));
            Ok(Arc::new(builder.finish()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_the_ways_they_are_written() {
        let noon = micros("2014-01-01T12:00:00Z").unwrap();
        for text in [
            "2014-01-01 12:00:00+00",
            "2014-01-01 12:00:00",
            "2014-01-01T20:00:00+08:00",
            "2014-01-01 20:00:00+08",
            "2014-01-01 12:00:00.000000+00",
        ] {
            assert_eq!(micros(text), Some(noon), "{text}");
        }
        assert_eq!(micros("2014-01-01").unwrap(), noon - 12 * 3_600_000_000);
        for text in ["noon", "", "2014-13-01", "12"] {
            assert_eq!(micros(text), None, "{text}");
        }
    }
}
