//! Tables of what a node has: its history, or the present.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanBuilder, Float64Builder, StringBuilder};
use arrow::compute::{filter_record_batch, is_not_null};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;

use crate::write::{WriteError, Writer};
use crate::{BATCH_ROWS_MAX, DATASET_ID, Format, OBSERVED_AT, UNIT_CODE};

/// What a column holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ColumnType {
    /// Numbers.
    Number,
    /// Truth values.
    Bool,
    /// Text, or JSON as text.
    Text,
}

/// A column of an attribute.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExportColumn {
    /// Its name in the file.
    pub name: String,
    /// What it holds.
    pub kind: ColumnType,
    /// Unit code, if it is always the same.
    pub unit_code: Option<String>,
}

/// One value of a row.
#[derive(Clone, PartialEq, Debug)]
pub enum Cell {
    /// No value.
    Null,
    /// A number.
    Number(f64),
    /// A truth value.
    Bool(bool),
    /// Text.
    Text(String),
}

impl ColumnType {
    const fn data_type(self) -> DataType {
        match self {
            Self::Number => DataType::Float64,
            Self::Bool => DataType::Boolean,
            Self::Text => DataType::Utf8,
        }
    }
}

fn fields(columns: &[ExportColumn]) -> impl Iterator<Item = Field> {
    columns.iter().map(|c| {
        let metadata = c.unit_code.iter().map(|u| (UNIT_CODE.to_owned(), u.clone())).collect::<HashMap<_, _>>();
        Field::new(&c.name, c.kind.data_type(), true).with_metadata(metadata)
    })
}

/// Writes a history: `id`, `observedAt`, `datasetId`, then the attributes.
pub struct HistoryExport {
    writer: Writer,
    schema: SchemaRef,
}

impl HistoryExport {
    /// A table with these attributes.
    pub fn new(format: Format, columns: &[ExportColumn]) -> Result<Self, WriteError> {
        let mut all = vec![
            Field::new("id", DataType::Utf8, false),
            Field::new("observedAt", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
            Field::new(DATASET_ID, DataType::Utf8, true),
        ];
        all.extend(fields(columns));
        let schema = Arc::new(Schema::new(all));
        Ok(Self { writer: Writer::new(format, Arc::clone(&schema))?, schema })
    }

    /// Adds rows as the history gives them: `entity_id`, `dataset_id`, `observed_at`, `recorded_at`, then the attributes in the order of the columns.
    /// Rows without observed time are no observations and are left out. Gives the number of rows written.
    pub fn push(&mut self, batch: &RecordBatch) -> Result<usize, WriteError> {
        let observed = is_not_null(batch.column_by_name(OBSERVED_AT).unwrap_or_else(|| batch.column(0)))?;
        let batch = filter_record_batch(batch, &observed)?;
        let mut columns: Vec<ArrayRef> = [0, 2, 1].map(|i| Arc::clone(batch.column(i))).into();
        for (i, field) in self.schema.fields().iter().enumerate().skip(3) {
            columns.push(arrow::compute::cast(batch.column(i + 1), field.data_type())?);
        }
        self.writer.write(&RecordBatch::try_new(Arc::clone(&self.schema), columns)?)?;
        Ok(batch.num_rows())
    }

    /// The bytes so far, which are then forgotten.
    pub fn take(&mut self) -> Result<Vec<u8>, WriteError> {
        self.writer.take()
    }

    /// Ends the table; the last bytes.
    pub fn finish(self) -> Result<Vec<u8>, WriteError> {
        self.writer.finish()
    }
}

/// Writes the present: `id`, then the attributes, a row per entity.
pub struct LatestExport {
    writer: Writer,
    schema: SchemaRef,
    ids: StringBuilder,
    columns: Vec<Builder>,
    n_rows: usize,
}

enum Builder {
    Number(Float64Builder),
    Bool(BooleanBuilder),
    Text(StringBuilder),
}

impl Builder {
    fn of(kind: ColumnType) -> Self {
        match kind {
            ColumnType::Number => Self::Number(Float64Builder::new()),
            ColumnType::Bool => Self::Bool(BooleanBuilder::new()),
            ColumnType::Text => Self::Text(StringBuilder::new()),
        }
    }

    fn push(&mut self, cell: Cell) {
        match (self, cell) {
            (Self::Number(b), Cell::Number(n)) => b.append_value(n),
            (Self::Number(b), _) => b.append_null(),
            (Self::Bool(b), Cell::Bool(v)) => b.append_value(v),
            (Self::Bool(b), _) => b.append_null(),
            (Self::Text(b), Cell::Text(t)) => b.append_value(t),
            (Self::Text(b), Cell::Number(n)) => b.append_value(n.to_string()),
            (Self::Text(b), Cell::Bool(v)) => b.append_value(v.to_string()),
            (Self::Text(b), Cell::Null) => b.append_null(),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Number(b) => Arc::new(b.finish()),
            Self::Bool(b) => Arc::new(b.finish()),
            Self::Text(b) => Arc::new(b.finish()),
        }
    }
}

impl LatestExport {
    /// A table with these attributes.
    pub fn new(format: Format, columns: &[ExportColumn]) -> Result<Self, WriteError> {
        let mut all = vec![Field::new("id", DataType::Utf8, false)];
        all.extend(fields(columns));
        let schema = Arc::new(Schema::new(all));
        let writer = Writer::new(format, Arc::clone(&schema))?;
        let builders = columns.iter().map(|c| Builder::of(c.kind)).collect();
        Ok(Self { writer, schema, ids: StringBuilder::new(), columns: builders, n_rows: 0 })
    }

    /// Adds a row: the entity's id and a cell for each column. A cell of another kind than its column has is left empty, in a column of text it becomes text.
    pub fn push(&mut self, id: &str, cells: impl IntoIterator<Item = Cell>) -> Result<(), WriteError> {
        self.ids.append_value(id);
        let mut cells = cells.into_iter();
        for column in &mut self.columns {
            column.push(cells.next().unwrap_or(Cell::Null));
        }
        self.n_rows += 1;
        if self.n_rows >= BATCH_ROWS_MAX { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), WriteError> {
        if self.n_rows == 0 {
            return Ok(());
        }
        self.n_rows = 0;
        let mut columns: Vec<ArrayRef> = vec![Arc::new(self.ids.finish())];
        columns.extend(self.columns.iter_mut().map(Builder::finish));
        self.writer.write(&RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }

    /// The bytes so far, which are then forgotten.
    pub fn take(&mut self) -> Result<Vec<u8>, WriteError> {
        self.writer.take()
    }

    /// Ends the table; the last bytes.
    pub fn finish(mut self) -> Result<Vec<u8>, WriteError> {
        self.flush()?;
        self.writer.finish()
    }
}
