//! Batches to files.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch;
use entity::Instant;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::Format;

/// Rows of one row group of Parquet: what a writer keeps in memory.
const ROW_GROUP_ROWS: usize = 100_000;

/// Why a table cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the table: {what}")]
pub struct WriteError {
    what: String,
}

impl From<ArrowError> for WriteError {
    fn from(e: ArrowError) -> Self {
        Self { what: e.to_string() }
    }
}

impl From<parquet::errors::ParquetError> for WriteError {
    fn from(e: parquet::errors::ParquetError) -> Self {
        Self { what: e.to_string() }
    }
}

/// Writes batches of one schema; the bytes are taken out in between, so that a table of any size needs little memory.
pub struct Writer {
    schema: SchemaRef,
    kind: Kind,
}

enum Kind {
    Csv(csv::Writer<Vec<u8>>),
    Parquet(Box<ArrowWriter<Vec<u8>>>),
    Arrow(StreamWriter<Vec<u8>>),
}

impl Writer {
    /// A writer for batches of this schema, whose names become the names of the columns.
    pub fn new(format: Format, schema: SchemaRef) -> Result<Self, WriteError> {
        let kind = match format {
            Format::Csv => {
                let mut csv = csv::Writer::from_writer(Vec::new());
                csv.write_record(schema.fields().iter().map(|f| f.name())).map_err(|e| WriteError { what: e.to_string() })?;
                Kind::Csv(csv)
            }
            Format::Parquet => {
                let level = ZstdLevel::try_new(3)?;
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(level))
                    .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
                    .build();
                Kind::Parquet(Box::new(ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), Some(properties))?))
            }
            Format::Arrow => Kind::Arrow(StreamWriter::try_new(Vec::new(), &schema)?),
        };
        Ok(Self { schema, kind })
    }

    /// A writer for batches of this schema with other names for the columns.
    pub fn named(format: Format, schema: &Schema, name: impl Fn(&str) -> &str) -> Result<Self, WriteError> {
        let fields: Vec<_> = schema.fields().iter().map(|f| f.as_ref().clone().with_name(name(f.name()))).collect();
        Self::new(format, Arc::new(Schema::new(fields)))
    }

    /// Adds rows. A column whose type has become another one since the beginning is converted; errors: it cannot be.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), WriteError> {
        let mut columns = Vec::with_capacity(self.schema.fields().len());
        for (field, column) in self.schema.fields().iter().zip(batch.columns()) {
            columns.push(if column.data_type() == field.data_type() { Arc::clone(column) } else { cast(column, field.data_type())? });
        }
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        match &mut self.kind {
            Kind::Csv(csv) => write_csv(csv, &batch),
            Kind::Parquet(parquet) => Ok(parquet.write(&batch)?),
            Kind::Arrow(stream) => Ok(stream.write(&batch)?),
        }
    }

    /// The bytes so far, which are then forgotten.
    pub fn take(&mut self) -> Result<Vec<u8>, WriteError> {
        Ok(match &mut self.kind {
            Kind::Csv(csv) => {
                csv.flush().map_err(|e| WriteError { what: e.to_string() })?;
                let bytes = csv.get_ref().clone();
                // The writer gives no way to its bytes but a new one, which writes no header by itself.
                *csv = csv::Writer::from_writer(Vec::new());
                bytes
            }
            Kind::Parquet(parquet) => std::mem::take(parquet.inner_mut()),
            Kind::Arrow(stream) => std::mem::take(stream.get_mut()),
        })
    }

    /// Ends the table; the last bytes.
    pub fn finish(mut self) -> Result<Vec<u8>, WriteError> {
        match self.kind {
            Kind::Csv(_) => self.take(),
            Kind::Parquet(parquet) => Ok(parquet.into_inner()?),
            Kind::Arrow(ref mut stream) => {
                stream.finish()?;
                self.take()
            }
        }
    }
}

/// One column as text, by row.
enum Cells<'a> {
    Number(&'a arrow::array::Float64Array),
    Bool(&'a arrow::array::BooleanArray),
    Time(&'a arrow::array::TimestampMicrosecondArray),
    Text(ArrayRef),
}

fn write_csv(csv: &mut csv::Writer<Vec<u8>>, batch: &RecordBatch) -> Result<(), WriteError> {
    let cells = batch.columns().iter().map(|column| {
        Ok(match column.data_type() {
            DataType::Float64 => Cells::Number(column.as_primitive::<Float64Type>()),
            DataType::Boolean => Cells::Bool(column.as_boolean()),
            DataType::Timestamp(..) if column.as_primitive_opt::<TimestampMicrosecondType>().is_some() => {
                Cells::Time(column.as_primitive())
            }
            _ => Cells::Text(cast(column, &DataType::Utf8)?),
        })
    });
    let cells = cells.collect::<Result<Vec<_>, WriteError>>()?;
    let mut text = String::new();
    for row in 0..batch.num_rows() {
        for cell in &cells {
            text.clear();
            let field: &str = match cell {
                Cells::Number(a) if a.is_valid(row) => {
                    push(&mut text, &a.value(row));
                    &text
                }
                Cells::Bool(a) if a.is_valid(row) => {
                    if a.value(row) {
                        "true"
                    } else {
                        "false"
                    }
                }
                Cells::Time(a) if a.is_valid(row) => {
                    push(&mut text, &Instant::from_micros(a.value(row)));
                    &text
                }
                Cells::Text(a) if a.is_valid(row) => a.as_string::<i32>().value(row),
                _ => "",
            };
            csv.write_field(field).map_err(|e| WriteError { what: e.to_string() })?;
        }
        csv.write_record(None::<&[u8]>).map_err(|e| WriteError { what: e.to_string() })?;
    }
    Ok(())
}

fn push(text: &mut String, value: &dyn std::fmt::Display) {
    // Writing to a string does not fail.
    let _ = std::fmt::Write::write_fmt(text, format_args!("{value}"));
}
