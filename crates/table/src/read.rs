//! Rows of observations from a file.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, StringArray, TimestampMicrosecondArray};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use entity::Iri;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::reader::ChunkReader;

use crate::csv_rows::CsvRows;
use crate::layout::Layout;
use crate::{BATCH_ROWS_MAX, COLUMNS_MAX, DATASET_ID, ENTITY_ID, OBSERVED_AT, UNIT_CODE, arrow_stream, quoted, time};

/// Why a table cannot be read. Rows are counted from 1, a header is not a row.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is not what it says it is.
    #[error("{what}")]
    Form {
        /// What is wrong, and where.
        what: String,
    },
    /// A column is missing, double, or of a kind that cannot be an observation.
    #[error("column `{column}`: {what}")]
    Column {
        /// Which one.
        column: String,
        /// What is wrong.
        what: String,
    },
    /// One value is wrong.
    #[error("row {row}, column `{column}`: found `{found}`, expected {expected}")]
    Value {
        /// Which row.
        row: u64,
        /// Which column.
        column: String,
        /// What is there, shortened.
        found: String,
        /// What should be.
        expected: &'static str,
    },
    /// An id or a time is missing.
    #[error("row {row}, column `{column}`: there is no value; each row needs one")]
    Missing {
        /// Which row.
        row: u64,
        /// Which column.
        column: String,
    },
    /// A named limit.
    #[error("{what}")]
    Limit {
        /// Which limit and how it was exceeded.
        what: String,
    },
    /// The bytes cannot be had.
    #[error("cannot read on")]
    Io(#[source] std::io::Error),
}

impl ReadError {
    pub(crate) fn dataset_id(row: u64) -> Self {
        Self::Column {
            column: DATASET_ID.to_owned(),
            what: format!("row {} names an instance; rows of observations are of the default instance (use NGSI-LD JSON lines)", row + 1),
        }
    }
}

/// One column that is an attribute.
pub(crate) struct AttributeColumn {
    /// Position in the file.
    pub(crate) column: usize,
    /// As the file calls it.
    pub(crate) column_name: String,
    /// As the attribute is called.
    pub(crate) name: String,
}

/// Which column of a file is what.
pub(crate) struct Roles {
    pub(crate) id: usize,
    pub(crate) id_name: String,
    pub(crate) time: usize,
    pub(crate) time_name: String,
    pub(crate) dataset_id: Option<usize>,
    pub(crate) attributes: Vec<AttributeColumn>,
}

impl Roles {
    pub(crate) fn find(header: &[String], layout: &Layout) -> Result<Self, ReadError> {
        let column = |name: &str, what: &str| {
            header.iter().position(|h| h == name).ok_or_else(|| {
                let there: Vec<_> = header.iter().take(20).map(|h| format!("`{}`", quoted(h))).collect();
                let what = format!("expected as the column of the {what}, found the columns {}", there.join(", "));
                ReadError::Column { column: name.to_owned(), what }
            })
        };
        let (id, time) = (column(&layout.id, "ids")?, column(&layout.time, "observed times")?);
        let dataset_id = header.iter().position(|h| h == DATASET_ID);
        let mut attributes: Vec<AttributeColumn> = Vec::new();
        for (i, name) in header.iter().enumerate() {
            if i == id || i == time || Some(i) == dataset_id {
                continue;
            }
            let Some(attribute) = layout.attribute(name) else { continue };
            let fault = |what: String| ReadError::Column { column: name.clone(), what };
            if attribute.is_empty() {
                return Err(fault(format!("column {} has no name", i + 1)));
            }
            if attributes.iter().any(|a| a.name == attribute) {
                return Err(fault(format!("there are two columns for the attribute `{attribute}`")));
            }
            attributes.push(AttributeColumn { column: i, column_name: name.clone(), name: attribute.to_owned() });
        }
        if attributes.is_empty() {
            return Err(ReadError::Form { what: "there is no column of an attribute, only ids and times".to_owned() });
        }
        for (what, names) in [("a unit", layout.units.keys().collect::<Vec<_>>()), ("text", layout.text.iter().collect())] {
            if let Some(name) = names.into_iter().find(|n| !attributes.iter().any(|a| a.name == **n)) {
                return Err(ReadError::Column {
                    column: name.clone(),
                    what: format!("declared as having {what}, but there is no such attribute"),
                });
            }
        }
        Ok(Self { id, id_name: layout.id.clone(), time, time_name: layout.time.clone(), dataset_id, attributes })
    }
}

pub(crate) type Batches = Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>> + Send>;

/// Where rows come from.
pub struct Source(Kind);

enum Kind {
    Csv(Box<dyn Read + Send>),
    Columnar { schema: SchemaRef, batches: Batches, n_rows: Option<u64> },
}

impl Source {
    /// CSV with a header, read as it comes.
    pub fn csv(read: impl Read + Send + 'static) -> Self {
        Self(Kind::Csv(Box::new(read)))
    }

    /// A Parquet file. Errors: it is none.
    pub fn parquet(file: impl ChunkReader + 'static) -> Result<Self, ReadError> {
        let not_parquet =
            |e: parquet::errors::ParquetError| ReadError::Form { what: format!("this is not a Parquet file that can be read: {e}") };
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(not_parquet)?;
        let n_rows = u64::try_from(builder.metadata().file_metadata().num_rows()).ok();
        let schema = Arc::clone(builder.schema());
        let reader = builder.with_batch_size(BATCH_ROWS_MAX).build().map_err(not_parquet)?;
        Ok(Self(Kind::Columnar { schema, batches: Box::new(reader), n_rows }))
    }

    /// An Arrow IPC stream. Errors: it is none, or is cut off.
    pub fn arrow(bytes: Vec<u8>) -> Result<Self, ReadError> {
        let (schema, batches) = arrow_stream::open(bytes)?;
        Ok(Self(Kind::Columnar { schema, batches, n_rows: None }))
    }

    /// Rows in it, where that is known beforehand.
    #[must_use]
    pub const fn n_rows(&self) -> Option<u64> {
        match &self.0 {
            Kind::Csv(_) => None,
            Kind::Columnar { n_rows, .. } => *n_rows,
        }
    }
}

/// Some rows of a table.
#[derive(Clone, Debug)]
pub struct Rows {
    /// Number of the first one in the table, from 0.
    pub first_row: u64,
    /// At most [`BATCH_ROWS_MAX`] rows, with the columns that the crate's page describes.
    pub batch: RecordBatch,
}

/// Reads observations, batch by batch.
pub struct Reader {
    input: Input,
    layout: Layout,
    /// Names of the attributes in the batches, by the number of the attribute in the roles.
    names: Vec<String>,
    next_row: u64,
    /// Ids that were found to be absolute IRIs.
    checked: HashSet<String>,
    failed: bool,
}

enum Input {
    Csv(Box<CsvRows>),
    Columnar { roles: Roles, units: HashMap<String, String>, batches: Batches, rest: Option<RecordBatch> },
}

/// Ids that a reader remembers as checked.
const CHECKED_IDS_MAX: usize = 100_000;

impl Reader {
    /// Opens a table and passes over its first `skip_rows` rows. `name` gives the name that an attribute has in the batches.
    ///
    /// Errors: a column is missing, double, of an impossible kind, or has a name that `name` refuses.
    pub fn open(source: Source, layout: Layout, name: &dyn Fn(&str) -> Result<String, String>, skip_rows: u64) -> Result<Self, ReadError> {
        let mut input = match source.0 {
            Kind::Csv(read) => Input::Csv(Box::new(CsvRows::open(read, &layout)?)),
            Kind::Columnar { schema, batches, .. } => {
                if schema.fields().len() > COLUMNS_MAX {
                    let what = format!("{} columns are more than the limit of {COLUMNS_MAX}", schema.fields().len());
                    return Err(ReadError::Limit { what });
                }
                let header: Vec<String> = schema.fields().iter().map(|f| f.name().clone()).collect();
                let roles = Roles::find(&header, &layout)?;
                for a in &roles.attributes {
                    check_type(&a.column_name, schema.field(a.column).data_type())?;
                }
                let unit = |a: &AttributeColumn| Some((a.name.clone(), schema.field(a.column).metadata().get(UNIT_CODE)?.clone()));
                let units = roles.attributes.iter().filter_map(unit).collect();
                Input::Columnar { roles, units, batches, rest: None }
            }
        };
        let roles = input.roles();
        let named = |a: &AttributeColumn| name(&a.name).map_err(|what| ReadError::Column { column: a.column_name.clone(), what });
        let names = roles.attributes.iter().map(named).collect::<Result<Vec<_>, _>>()?;
        input.skip(skip_rows)?;
        Ok(Self { input, layout, names, next_row: skip_rows, checked: HashSet::new(), failed: false })
    }

    /// The next rows; none at the end.
    fn read(&mut self) -> Result<Option<Rows>, ReadError> {
        let first_row = self.next_row;
        let Self { input, layout, names, checked, .. } = self;
        let batch = match input {
            Input::Csv(rows) => {
                let Some(found) = rows.batch(first_row)? else { return Ok(None) };
                let ids = StringArray::from(found.ids);
                let times = StringArray::from(found.times);
                let attributes = found.attributes.into_iter().map(|(i, array)| (i, array, None));
                assemble(
                    Parts { ids: &ids, times: &times, attributes: attributes.collect() },
                    &rows.roles,
                    layout,
                    names,
                    checked,
                    first_row,
                )?
            }
            Input::Columnar { roles, units, batches, rest } => {
                let Some(batch) = next_columnar(batches, rest)? else { return Ok(None) };
                if let Some(i) = roles.dataset_id
                    && let Some(row) = (0..batch.num_rows()).find(|&row| batch.column(i).is_valid(row))
                {
                    return Err(ReadError::dataset_id(first_row + row as u64));
                }
                let ids = text_column(batch.column(roles.id), &roles.id_name, "ids: text")?;
                let times = Arc::clone(batch.column(roles.time));
                let mut attributes = Vec::new();
                for (i, a) in roles.attributes.iter().enumerate() {
                    if let Some(array) = attribute_column(batch.column(a.column), &a.column_name, first_row)? {
                        attributes.push((i, array, units.get(&a.name).cloned()));
                    }
                }
                assemble(Parts { ids: ids.as_string(), times: &times, attributes }, roles, layout, names, checked, first_row)?
            }
        };
        self.next_row += batch.num_rows() as u64;
        Ok(Some(Rows { first_row, batch }))
    }
}

impl Iterator for Reader {
    type Item = Result<Rows, ReadError>;

    /// After an error there is nothing more.
    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let rows = self.read();
        self.failed = rows.is_err();
        rows.transpose()
    }
}

impl Input {
    fn roles(&self) -> &Roles {
        match self {
            Self::Csv(rows) => &rows.roles,
            Self::Columnar { roles, .. } => roles,
        }
    }

    fn skip(&mut self, n_rows: u64) -> Result<(), ReadError> {
        match self {
            Self::Csv(rows) => rows.skip(n_rows),
            Self::Columnar { batches, rest, .. } => {
                let mut left = n_rows;
                while left > 0 {
                    let Some(batch) = next_columnar(batches, rest)? else { return Ok(()) };
                    let n = batch.num_rows() as u64;
                    if left < n {
                        let left = left as usize;
                        let tail = batch.slice(left, batch.num_rows() - left);
                        *rest = Some(match rest.take() {
                            Some(more) => concat_batches(&tail.schema(), [&tail, &more]).map_err(|e| broken(&e))?,
                            None => tail,
                        });
                        return Ok(());
                    }
                    left -= n;
                }
                Ok(())
            }
        }
    }
}

fn broken(error: &ArrowError) -> ReadError {
    ReadError::Form { what: format!("the columns cannot be read: {error}") }
}

fn next_columnar(batches: &mut Batches, rest: &mut Option<RecordBatch>) -> Result<Option<RecordBatch>, ReadError> {
    loop {
        let batch = match rest.take() {
            Some(batch) => batch,
            None => match batches.next() {
                Some(batch) => batch.map_err(|e| broken(&e))?,
                None => return Ok(None),
            },
        };
        if batch.num_rows() > BATCH_ROWS_MAX {
            *rest = Some(batch.slice(BATCH_ROWS_MAX, batch.num_rows() - BATCH_ROWS_MAX));
            return Ok(Some(batch.slice(0, BATCH_ROWS_MAX)));
        }
        if batch.num_rows() > 0 {
            return Ok(Some(batch));
        }
    }
}

/// The columns of a batch before they are checked.
struct Parts<'a> {
    ids: &'a StringArray,
    times: &'a dyn Array,
    /// By the number of the attribute; with the unit that the file gives it.
    attributes: Vec<(usize, ArrayRef, Option<String>)>,
}

fn assemble(
    parts: Parts<'_>,
    roles: &Roles,
    layout: &Layout,
    names: &[String],
    checked: &mut HashSet<String>,
    first_row: u64,
) -> Result<RecordBatch, ReadError> {
    let ids = ids(parts.ids, roles, layout, checked, first_row)?;
    let times = times(parts.times, roles, layout, first_row)?;
    let mut fields = vec![
        Field::new(ENTITY_ID, DataType::Utf8, false),
        Field::new(OBSERVED_AT, DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false),
    ];
    let mut columns: Vec<ArrayRef> = vec![ids, times];
    for (i, array, unit) in parts.attributes {
        let mut field = Field::new(&names[i], array.data_type().clone(), true);
        if let Some(unit) = layout.units.get(&roles.attributes[i].name).cloned().or(unit) {
            field = field.with_metadata(HashMap::from([(UNIT_CODE.to_owned(), unit)]));
        }
        fields.push(field);
        columns.push(array);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|e| broken(&e))
}

fn ids(found: &StringArray, roles: &Roles, layout: &Layout, checked: &mut HashSet<String>, first_row: u64) -> Result<ArrayRef, ReadError> {
    let missing = |i: usize| ReadError::Missing { row: first_row + i as u64 + 1, column: roles.id_name.clone() };
    let with_prefix: Option<StringArray> =
        (!layout.id_prefix.is_empty()).then(|| found.iter().map(|id| id.map(|id| format!("{}{id}", layout.id_prefix))).collect());
    let ids = with_prefix.as_ref().unwrap_or(found);
    for (i, id) in ids.iter().enumerate() {
        let id = id.ok_or_else(|| missing(i))?;
        if !checked.contains(id) {
            id.parse::<Iri>().map_err(|_| ReadError::Value {
                row: first_row + i as u64 + 1,
                column: roles.id_name.clone(),
                found: quoted(id),
                expected: "an absolute URI such as `urn:ngsi-ld:Type:name` (a prefix can be given for shorter ids)",
            })?;
            if checked.len() < CHECKED_IDS_MAX {
                checked.insert(id.to_owned());
            }
        }
    }
    Ok(Arc::new(ids.clone()))
}

fn times(found: &dyn Array, roles: &Roles, layout: &Layout, first_row: u64) -> Result<ArrayRef, ReadError> {
    let fault = |i: usize, found: &str, expected: &'static str| ReadError::Value {
        row: first_row + i as u64 + 1,
        column: roles.time_name.clone(),
        found: quoted(found),
        expected,
    };
    let times: TimestampMicrosecondArray = match found.data_type() {
        DataType::Utf8 => {
            let texts: &StringArray = found.as_string();
            let mut times = Vec::with_capacity(texts.len());
            for (i, text) in texts.iter().enumerate() {
                let text = text.ok_or_else(|| ReadError::Missing { row: first_row + i as u64 + 1, column: roles.time_name.clone() })?;
                times.push(time::parse(text, layout.utc_offset).ok_or_else(|| {
                    fault(
                        i,
                        text,
                        "a time such as `2024-01-01T00:00:00Z` (times without a zone need to be told how far they are ahead of UTC)",
                    )
                })?);
            }
            times.into()
        }
        DataType::LargeUtf8 | DataType::Utf8View | DataType::Dictionary(..) => {
            let texts = text_column(found, &roles.time_name, "times: text or timestamps")?;
            return times(texts.as_ref(), roles, layout, first_row);
        }
        DataType::Timestamp(_, zone) => {
            let ahead_us = match (zone, layout.utc_offset) {
                (Some(_), _) => 0,
                (None, Some(offset)) => i64::from(offset.0) * 1_000_000,
                (None, None) => {
                    let what = "timestamps without a zone: say how far they are ahead of UTC".to_owned();
                    return Err(ReadError::Column { column: roles.time_name.clone(), what });
                }
            };
            let target = DataType::Timestamp(TimeUnit::Microsecond, zone.clone());
            let micros = cast(found, &target).map_err(|e| broken(&e))?;
            let micros = micros.as_primitive::<TimestampMicrosecondType>();
            let range = entity::Instant::MIN.micros()..=entity::Instant::MAX.micros();
            let mut times = Vec::with_capacity(micros.len());
            for (i, us) in micros.iter().enumerate() {
                let us = us.ok_or_else(|| ReadError::Missing { row: first_row + i as u64 + 1, column: roles.time_name.clone() })?;
                let us = us.saturating_sub(ahead_us);
                if !range.contains(&us) {
                    return Err(fault(i, &us.to_string(), "a time between the years 1 and 9999"));
                }
                times.push(us);
            }
            times.into()
        }
        other => {
            let what = format!("expected text or timestamps, found {other}");
            return Err(ReadError::Column { column: roles.time_name.clone(), what });
        }
    };
    Ok(Arc::new(times.with_timezone("UTC")))
}

fn text_column(array: &dyn Array, name: &str, expected: &str) -> Result<ArrayRef, ReadError> {
    let is_text = |t: &DataType| matches!(t, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    match array.data_type() {
        t if is_text(t) => {}
        DataType::Dictionary(_, values) if is_text(values) => {}
        other => return Err(ReadError::Column { column: name.to_owned(), what: format!("expected {expected}, found {other}") }),
    }
    cast(array, &DataType::Utf8).map_err(|e| broken(&e))
}

/// Can a column of this type be an attribute?
fn check_type(name: &str, data_type: &DataType) -> Result<(), ReadError> {
    let plain = match data_type {
        DataType::Dictionary(_, values) => values.as_ref(),
        other => other,
    };
    let possible = plain.is_numeric()
        || matches!(plain, DataType::Boolean | DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null);
    if possible {
        return Ok(());
    }
    let what = format!("expected numbers, truth values or text, found {data_type} (leave the column out, or convert it)");
    Err(ReadError::Column { column: name.to_owned(), what })
}

/// A column as `Float64`, `Boolean` or `Utf8`; none if it can have no value. NaN is no value (that is how pandas writes it), infinity is an error.
fn attribute_column(array: &ArrayRef, name: &str, first_row: u64) -> Result<Option<ArrayRef>, ReadError> {
    check_type(name, array.data_type())?;
    let plain = match array.data_type() {
        DataType::Dictionary(_, values) => values.as_ref().clone(),
        other => other.clone(),
    };
    match plain {
        DataType::Null => Ok(None),
        DataType::Boolean => Ok(Some(Arc::clone(array))),
        t if t.is_numeric() => {
            let numbers = cast(array, &DataType::Float64).map_err(|e| broken(&e))?;
            let values = numbers.as_primitive::<Float64Type>();
            if values.values().iter().all(|v| v.is_finite()) {
                return Ok(Some(numbers));
            }
            let mut finite = Vec::with_capacity(values.len());
            for (i, value) in values.iter().enumerate() {
                if value.is_some_and(f64::is_infinite) {
                    let (row, column) = (first_row + i as u64 + 1, name.to_owned());
                    return Err(ReadError::Value { row, column, found: "infinity".to_owned(), expected: "a finite number" });
                }
                finite.push(value.filter(|v| !v.is_nan()));
            }
            Ok(Some(Arc::new(Float64Array::from(finite))))
        }
        _ => text_column(array, name, "text").map(Some),
    }
}
