//! Observations in bulk: a batch of columns that the history keeps as columns, without an [`Attribute`] per value.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, Float64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Float64Type, TimeUnit, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use entity::{Attribute, Instant, Iri, IriError, Value};

use super::{Fact, What};

/// Rows of one [`BulkRows`], at most: what a writer hands in at once, and what is sorted in memory at once.
pub const BULK_ROWS_MAX: usize = 1_000_000;
/// Attributes of one [`BulkRows`], at most: a table so wide is a mistake.
pub const BULK_ATTRIBUTES_MAX: usize = 1_000;
/// Key of a field's metadata under which the unit code of its column stands.
pub const UNIT_CODE_KEY: &str = "unit_code";

const ENTITY_ID: &str = "entity_id";
const OBSERVED_AT: &str = "observed_at";
const N_KEYS: usize = 2;

/// Observations of entities of one type, which were recorded together, as columns.
///
/// Columns: `entity_id` (Utf8), `observed_at` (Timestamp µs, UTC), then attributes named by their full IRI: `Float64`, `Boolean` or
/// `Utf8` (a text Property), null where there is no value. The unit code of a column is in its field's metadata ([`UNIT_CODE_KEY`]).
/// It means the same as one [`What::Value`] per value, row by row: so of two rows with one entity and observed time the later one counts.
#[derive(Clone, Debug)]
pub struct BulkRows {
    entity_type: Iri,
    recorded_at: Instant,
    batch: RecordBatch,
    attributes: Arc<[Iri]>,
    entities: Arc<[Iri]>,
    /// For each row the index of its entity in `entities`.
    entity_idxs: Arc<[u32]>,
}

/// Why a batch is not one of bulk rows. Rows are counted from 0.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BulkRowsError {
    /// A key column is missing or of another type.
    #[error("column {idx} must be `{want}`, found {found}")]
    KeyColumn {
        /// Its place.
        idx: usize,
        /// Name and type that it must have.
        want: &'static str,
        /// What is there.
        found: String,
    },
    /// A row has no entity or time.
    #[error("row {row} has no `{column}`")]
    KeyMissing {
        /// Which row.
        row: usize,
        /// Which column.
        column: &'static str,
    },
    /// What should name an entity or attribute is no IRI.
    #[error("{place} is not an absolute IRI")]
    NotAnIri {
        /// Row or column.
        place: String,
        /// Why.
        #[source]
        source: IriError,
    },
    /// A time that cannot be written.
    #[error("`observed_at` of row {row} is {micros} µs since 1970, outside the years 1 to 9999")]
    Time {
        /// Which row.
        row: usize,
        /// What is there.
        micros: i64,
    },
    /// An attribute has a type that no value has.
    #[error("column `{column}` is {found}, expected Float64, Boolean or Utf8")]
    Type {
        /// Which column.
        column: String,
        /// Its type.
        found: String,
    },
    /// Two columns have one name.
    #[error("there are two columns `{column}`")]
    Twice {
        /// Their name.
        column: String,
    },
    /// A number that JSON does not have.
    #[error("column `{column}` of row {row} is {value}, which is not a number that can be kept")]
    NotFinite {
        /// Which column.
        column: String,
        /// Which row.
        row: usize,
        /// What is there.
        value: String,
    },
    /// More rows or columns than are taken at once.
    #[error("a batch of {found} {what} is larger than the limit of {max}")]
    TooLarge {
        /// `rows` or `attributes`.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many there may be.
        max: usize,
    },
}

/// A column of values.
#[derive(Clone, Copy, Debug)]
pub enum BulkColumn<'a> {
    /// Numbers.
    Number(&'a Float64Array),
    /// Truth values.
    Bool(&'a BooleanArray),
    /// Texts.
    Text(&'a StringArray),
}

impl BulkRows {
    /// Checks a batch.
    ///
    /// Errors: a column is missing, misnamed or of another type, a row has no entity or time, an id is no IRI, a number is not finite,
    /// or the batch is larger than [`BULK_ROWS_MAX`] or [`BULK_ATTRIBUTES_MAX`].
    pub fn new(entity_type: Iri, recorded_at: Instant, batch: RecordBatch) -> Result<Self, BulkRowsError> {
        let too_large = |what, found, max| if found > max { Err(BulkRowsError::TooLarge { what, found, max }) } else { Ok(()) };
        too_large("rows", batch.num_rows(), BULK_ROWS_MAX)?;
        too_large("attributes", batch.num_columns().saturating_sub(N_KEYS), BULK_ATTRIBUTES_MAX)?;
        check_key(&batch, 0, ENTITY_ID, "entity_id: Utf8", |t| *t == DataType::Utf8)?;
        let is_utc = |zone: &str| matches!(zone, "UTC" | "Z" | "+00:00");
        let is_time = |t: &DataType| matches!(t, DataType::Timestamp(TimeUnit::Microsecond, Some(zone)) if is_utc(zone));
        check_key(&batch, 1, OBSERVED_AT, "observed_at: Timestamp(µs, UTC)", is_time)?;
        let times = batch.column(1).as_primitive::<TimestampMicrosecondType>().values();
        let is_written = |us: &i64| Instant::from_micros(*us).micros() == *us;
        if let Some(row) = times.iter().position(|us| !is_written(us)) {
            return Err(BulkRowsError::Time { row, micros: times[row] });
        }
        let attributes = attributes_of(&batch)?;
        let (entities, entity_idxs) = entities_of(batch.column(0).as_string())?;
        Ok(Self {
            entity_type,
            recorded_at,
            batch,
            attributes: attributes.into(),
            entities: entities.into(),
            entity_idxs: entity_idxs.into(),
        })
    }

    /// The type of all these entities.
    #[must_use]
    pub const fn entity_type(&self) -> &Iri {
        &self.entity_type
    }

    /// When the node learned it.
    #[must_use]
    pub const fn recorded_at(&self) -> Instant {
        self.recorded_at
    }

    /// The same rows, learned at another time.
    #[must_use]
    pub fn recorded(self, recorded_at: Instant) -> Self {
        Self { recorded_at, ..self }
    }

    /// The columns as they were given.
    #[must_use]
    pub const fn batch(&self) -> &RecordBatch {
        &self.batch
    }

    /// The entities, each once, in the order of their first rows.
    #[must_use]
    pub fn entities(&self) -> &[Iri] {
        &self.entities
    }

    /// For each row the index of its entity in [`Self::entities`].
    #[must_use]
    pub fn entity_idxs(&self) -> &[u32] {
        &self.entity_idxs
    }

    /// Observed time of each row, microseconds since 1970.
    #[must_use]
    pub fn observed_us(&self) -> &[i64] {
        self.times().values()
    }

    /// The attributes, in the order of their columns.
    #[must_use]
    pub fn attributes(&self) -> &[Iri] {
        &self.attributes
    }

    /// The values of an attribute, by its index in [`Self::attributes`].
    ///
    /// # Panics
    /// If there is no such attribute.
    #[must_use]
    pub fn column(&self, attribute_idx: usize) -> BulkColumn<'_> {
        let array = self.batch.column(N_KEYS + attribute_idx);
        match array.data_type() {
            DataType::Float64 => BulkColumn::Number(array.as_primitive::<Float64Type>()),
            DataType::Boolean => BulkColumn::Bool(array.as_boolean()),
            _ => BulkColumn::Text(array.as_string()),
        }
    }

    /// The unit code of an attribute, by its index in [`Self::attributes`].
    ///
    /// # Panics
    /// If there is no such attribute.
    #[must_use]
    pub fn unit_code(&self, attribute_idx: usize) -> Option<&str> {
        let schema = self.batch.schema_ref();
        schema.field(N_KEYS + attribute_idx).metadata().get(UNIT_CODE_KEY).map(String::as_str).filter(|unit| !unit.is_empty())
    }

    /// The value of a row, if it has one.
    ///
    /// # Panics
    /// If there is no such attribute or row.
    #[must_use]
    pub fn value(&self, attribute_idx: usize, row: usize) -> Option<Value> {
        match self.column(attribute_idx) {
            BulkColumn::Number(a) => a.is_valid(row).then(|| Value::from(a.value(row))),
            BulkColumn::Bool(a) => a.is_valid(row).then(|| Value::from(a.value(row))),
            BulkColumn::Text(a) => a.is_valid(row).then(|| Value::from(a.value(row))),
        }
    }

    /// The same as facts, row by row: what the batch means, for engines that keep no columns and for few rows.
    pub fn facts(&self) -> impl Iterator<Item = Fact> + '_ {
        (0..self.batch.num_rows()).flat_map(move |row| {
            (0..self.attributes.len()).filter_map(move |idx| {
                let instance = Attribute {
                    observed_at: Some(Instant::from_micros(self.observed_us()[row])),
                    unit_code: self.unit_code(idx).map(Into::into),
                    created_at: self.recorded_at,
                    modified_at: self.recorded_at,
                    ..Attribute::property(self.value(idx, row)?)
                };
                Some(Fact {
                    entity_type: self.entity_type.clone(),
                    entity: self.entities[self.entity_idxs[row] as usize].clone(),
                    recorded_at: self.recorded_at,
                    what: What::Value { name: self.attributes[idx].clone(), instance: Arc::new(instance) },
                })
            })
        })
    }

    fn times(&self) -> &TimestampMicrosecondArray {
        self.batch.column(1).as_primitive::<TimestampMicrosecondType>()
    }
}

fn check_key(
    batch: &RecordBatch,
    idx: usize,
    name: &'static str,
    want: &'static str,
    is_type: impl Fn(&DataType) -> bool,
) -> Result<(), BulkRowsError> {
    let Some(field) = batch.schema_ref().fields().get(idx) else {
        return Err(BulkRowsError::KeyColumn { idx, want, found: "nothing".to_owned() });
    };
    if field.name() != name || !is_type(field.data_type()) {
        return Err(BulkRowsError::KeyColumn { idx, want, found: format!("`{}: {}`", field.name(), field.data_type()) });
    }
    let column = batch.column(idx);
    if column.null_count() == 0 {
        return Ok(());
    }
    let row = (0..column.len()).find(|&row| column.is_null(row)).unwrap_or_default();
    Err(BulkRowsError::KeyMissing { row, column: name })
}

fn attributes_of(batch: &RecordBatch) -> Result<Vec<Iri>, BulkRowsError> {
    let mut names = Vec::new();
    let mut seen = HashSet::new();
    for (field, array) in batch.schema_ref().fields().iter().zip(batch.columns()).skip(N_KEYS) {
        let column = field.name();
        let name: Iri =
            column.parse().map_err(|source| BulkRowsError::NotAnIri { place: format!("the name of column `{column}`"), source })?;
        if !seen.insert(column) {
            return Err(BulkRowsError::Twice { column: column.clone() });
        }
        match array.data_type() {
            DataType::Float64 => {
                let numbers = array.as_primitive::<Float64Type>();
                let is_wrong = |row: &usize| numbers.is_valid(*row) && !numbers.value(*row).is_finite();
                if !numbers.values().iter().all(|f| f.is_finite())
                    && let Some(row) = (0..numbers.len()).find(is_wrong)
                {
                    return Err(BulkRowsError::NotFinite { column: column.clone(), row, value: numbers.value(row).to_string() });
                }
            }
            DataType::Boolean | DataType::Utf8 => {}
            other => return Err(BulkRowsError::Type { column: column.clone(), found: other.to_string() }),
        }
        names.push(name);
    }
    Ok(names)
}

/// The distinct ids in the order of their first rows, and for each row which it is.
fn entities_of(ids: &StringArray) -> Result<(Vec<Iri>, Vec<u32>), BulkRowsError> {
    let mut entities: Vec<Iri> = Vec::new();
    let mut idx_by_id: HashMap<&str, u32> = HashMap::new();
    // Rows come entity by entity or time by time: the id is mostly the one of the row before, or the one that followed it last time.
    let mut next: Vec<u32> = Vec::new();
    let mut idxs = Vec::with_capacity(ids.len());
    let mut last = 0_u32;
    for row in 0..ids.len() {
        let id = ids.value(row);
        let is = |idx: u32| entities.get(idx as usize).is_some_and(|known| known.as_str() == id);
        let follower = next.get(last as usize).copied().unwrap_or_default();
        let idx = if is(last) {
            last
        } else if is(follower) {
            follower
        } else if let Some(&idx) = idx_by_id.get(id) {
            idx
        } else {
            let entity = id.parse().map_err(|source| BulkRowsError::NotAnIri { place: format!("`entity_id` of row {row}"), source })?;
            let idx = u32::try_from(entities.len()).expect("a batch has fewer rows");
            entities.push(entity);
            next.push(0);
            idx_by_id.insert(id, idx);
            idx
        };
        if idx != last {
            next[last as usize] = idx;
        }
        last = idx;
        idxs.push(idx);
    }
    Ok((entities, idxs))
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array};
    use arrow::datatypes::{Field, Schema};

    use super::*;

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        let fields: Vec<Field> = columns.iter().map(|(n, a)| Field::new(*n, a.data_type().clone(), true)).collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|(_, a)| a).collect()).unwrap()
    }

    fn ids(ids: &[Option<&str>]) -> ArrayRef {
        Arc::new(ids.iter().copied().collect::<StringArray>())
    }

    fn times(us: &[Option<i64>]) -> ArrayRef {
        Arc::new(us.iter().copied().collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
    }

    fn numbers(values: &[Option<f64>]) -> ArrayRef {
        Arc::new(values.iter().copied().collect::<Float64Array>())
    }

    #[test]
    fn what_is_wrong_with_a_batch_is_said_with_its_place() {
        let id = || ids(&[Some("urn:a:1"), Some("urn:a:2")]);
        let time = || times(&[Some(1), Some(2)]);
        let number = || numbers(&[Some(1.5), None]);
        check(vec![], "column 0 must be `entity_id: Utf8`, found nothing");
        check(vec![("id", id())], "column 0 must be `entity_id: Utf8`, found `id: Utf8`");
        check(vec![("entity_id", id())], "column 1 must be `observed_at: Timestamp(µs, UTC)`, found nothing");
        check(
            vec![("entity_id", id()), ("observed_at", Arc::new(Int64Array::from(vec![1, 2])))],
            "column 1 must be `observed_at: Timestamp(µs, UTC)`, found `observed_at: Int64`",
        );
        check(vec![("entity_id", ids(&[Some("urn:a:1"), None])), ("observed_at", time())], "row 1 has no `entity_id`");
        check(vec![("entity_id", id()), ("observed_at", times(&[None, Some(1)]))], "row 0 has no `observed_at`");
        check(
            vec![("entity_id", ids(&[Some("urn:a:1"), Some("x")])), ("observed_at", time())],
            "`entity_id` of row 1 is not an absolute IRI",
        );
        let far = times(&[Some(1), Some(i64::MAX)]);
        check(
            vec![("entity_id", id()), ("observed_at", far)],
            "`observed_at` of row 1 is 9223372036854775807 µs since 1970, outside the years 1 to 9999",
        );
        let keys = || vec![("entity_id", id()), ("observed_at", time())];
        let with = |more: Vec<(&'static str, ArrayRef)>| keys().into_iter().chain(more).collect();
        check(with(vec![("pm25", number())]), "the name of column `pm25` is not an absolute IRI");
        check(with(vec![("urn:x", number()), ("urn:x", number())]), "there are two columns `urn:x`");
        check(with(vec![("urn:x", Arc::new(Int64Array::from(vec![1, 2])))]), "column `urn:x` is Int64, expected Float64, Boolean or Utf8");
        check(
            with(vec![("urn:x", numbers(&[Some(1.0), Some(f64::NAN)]))]),
            "column `urn:x` of row 1 is NaN, which is not a number that can be kept",
        );

        #[track_caller]
        fn check(columns: Vec<(&str, ArrayRef)>, want: &str) {
            let batch = if columns.is_empty() { RecordBatch::new_empty(Arc::new(Schema::empty())) } else { batch(columns) };
            let error = BulkRows::new(Iri::known("urn:t:1"), Instant::default(), batch).unwrap_err();
            assert_eq!(error.to_string(), want);
        }
    }

    #[test]
    fn rows_are_grouped_by_entity_however_they_come() {
        check(&[0, 1, 2, 0, 1, 2, 0, 2, 1, 1, 0]);
        check(&[0, 0, 0, 1, 1, 2]);
        check(&[]);

        fn check(order: &[u32]) {
            let names: Vec<String> = order.iter().map(|i| format!("urn:a:{i}")).collect();
            let ids: StringArray = names.iter().map(Some).collect();
            let (entities, idxs) = entities_of(&ids).unwrap();
            assert_eq!(idxs, order);
            assert!(entities.iter().enumerate().all(|(i, e)| e.as_str() == format!("urn:a:{i}")));
        }
    }
}
