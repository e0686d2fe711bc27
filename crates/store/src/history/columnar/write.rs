//! Facts to sheets, merged sheets to files.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Float64Builder, StringBuilder, StringDictionaryBuilder, TimestampMicrosecondArray,
    TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, Field, Float64Type, Int32Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use entity::{Attribute, Instant, Iri};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;
use serde::{Deserialize, Serialize};

use super::super::value::SeenByName;
use super::super::{Erasure, HistoryError, Kept};
use super::cell::{self, exact_number, is_whole};
use super::recent::{EntityRows, Facts, RowKey, Values};
use super::segment::{OBSERVED, RECORDED};
use super::sheet::{Sheet, Sheets};

/// Format version of the files. 1: without erasures, which a program that knows only this version would not see; 2: without what entities
/// became, which such a program would take for damage; 3: without what was restated, likewise; 4: the one described here.
pub(super) const FORMAT_VERSION: u32 = 4;
/// Footer key of the format version.
pub(super) const VERSION_KEY: &str = "conurb.history.version";
/// Footer key of the [`Footer`].
pub(super) const FOOTER_KEY: &str = "conurb.history.table";

/// The key columns of every file; the attributes' columns follow.
pub(super) const KEY_COLUMNS: [&str; 5] = ["entity_id", "dataset_id", "observed_at", "recorded_at", "deleted"];

/// Rows of a row group: what one entity's query decodes the keys of at most, and what a scan holds of one column at once.
const ROW_GROUP_ROWS: usize = 65_536;
/// Rows of a page: the grain at which a query skips.
const PAGE_ROWS: usize = 4_096;
/// Rows converted at once.
const BATCH_ROWS: usize = 8_192;
/// So many values of a column are looked at to see whether they repeat.
const SAMPLE_ROWS: usize = 8_192;
/// Rows of a file, at most: it is built in memory.
pub(super) const FILE_ROWS_MAX: u64 = 4 << 20;

/// What the footer says about the table.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Footer {
    pub(super) entity_type: Iri,
    pub(super) columns: Arc<Vec<FileColumn>>,
    pub(super) seen: SeenByName,
    /// What was erased from the table, in files without rows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) erasures: Vec<Arc<Erasure>>,
    /// Since when the table is kept, in files without rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) kept: Option<Kept>,
    /// Written with all effort: once more would change nothing.
    #[serde(default)]
    pub(super) thorough: bool,
}

impl Footer {
    /// Has the file no rows, but says something of the table?
    pub(super) const fn is_note(&self) -> bool {
        !self.erasures.is_empty() || self.kept.is_some()
    }
}

/// Which physical columns an attribute has in a file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct FileColumn {
    pub(super) name: Iri,
    pub(super) number: bool,
    pub(super) text: bool,
    pub(super) meta: bool,
    /// Whole numbers are integers, unless their meta cell says otherwise.
    pub(super) integers: bool,
}

impl FileColumn {
    /// The column of bulk rows, whose numbers are floats.
    pub(super) const fn of_bulk(name: Iri, number: bool, meta: bool) -> Self {
        Self { name, number, text: !number, meta, integers: false }
    }

    /// Names of the physical columns. `|` cannot be in an IRI, so that they never meet another attribute's.
    pub(super) fn number_name(&self) -> String {
        self.name.to_string()
    }

    pub(super) fn text_name(&self) -> String {
        format!("{}|text", self.name)
    }

    pub(super) fn meta_name(&self) -> String {
        format!("{}|meta", self.name)
    }
}

/// The columns that these facts need, all or only those of `attributes`.
pub(super) fn columns_for(facts: &Facts, attributes: Option<&BTreeSet<&Iri>>) -> Vec<FileColumn> {
    #[derive(Default)]
    struct Count {
        n_integers: usize,
        n_whole_floats: usize,
        n_numbers: usize,
        text: bool,
        meta: bool,
    }
    let mut counts: BTreeMap<&Iri, Count> = BTreeMap::new();
    for (key, (name, attribute)) in facts.entities.values().flat_map(|rows| rows.iter()).flat_map(|(k, vs)| vs.iter().map(move |v| (k, v)))
    {
        if attributes.is_some_and(|wanted| !wanted.contains(name)) {
            continue;
        }
        let count = counts.entry(name).or_default();
        match exact_number(&attribute.value) {
            None => count.text = true,
            Some((f, is_integer)) => {
                count.n_numbers += 1;
                count.n_integers += usize::from(is_integer);
                count.n_whole_floats += usize::from(!is_integer && is_whole(f));
            }
        }
        count.meta = count.meta || has_meta(attribute, key.recorded_at);
    }
    let column = |(name, count): (&Iri, Count)| FileColumn {
        name: name.clone(),
        number: count.n_numbers > 0,
        text: count.text,
        meta: count.meta || (count.n_integers > 0 && count.n_whole_floats > 0),
        integers: count.n_integers >= count.n_whole_floats,
    };
    counts.into_iter().map(column).collect()
}

/// Is there something besides value and times (leaving aside integers among floats)?
fn has_meta(attribute: &Attribute, recorded_at: Instant) -> bool {
    attribute.created_at != recorded_at
        || attribute.modified_at != recorded_at
        || attribute.unit_code.is_some()
        || attribute.qualifiers.is_some()
        || !attribute.sub_attributes.is_empty()
        || !matches!(attribute.value, entity::AttributeValue::Property(_))
}

/// The schema of a file with these attribute columns.
pub(super) fn schema_of(columns: &[FileColumn]) -> SchemaRef {
    let instant = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let few = || DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let types = [(few(), false), (few(), true), (instant(), true), (instant(), false), (few(), true)];
    let mut fields: Vec<Field> = KEY_COLUMNS.iter().zip(types).map(|(name, (kind, nullable))| Field::new(*name, kind, nullable)).collect();
    for column in columns {
        if column.number {
            fields.push(Field::new(column.number_name(), DataType::Float64, true));
        }
        if column.text {
            fields.push(Field::new(column.text_name(), DataType::Utf8, true));
        }
        if column.meta {
            fields.push(Field::new(column.meta_name(), few(), true));
        }
    }
    Arc::new(Schema::new(fields))
}

/// The rows of a layer of facts as sheets of `columns`: whole entities, until there are enough rows.
pub(super) fn sheets_of(facts: Facts, columns: Vec<FileColumn>, entity_type: Iri) -> Sheets {
    let columns = Arc::new(columns);
    let schema = schema_of(&columns);
    let mut entities = facts.into_sorted().into_iter();
    Box::new(std::iter::from_fn(move || {
        let column_idx_by_name: HashMap<&Iri, usize> = columns.iter().enumerate().map(|(idx, c)| (&c.name, idx)).collect();
        let gathered: Vec<(Iri, Arc<EntityRows>)> = {
            let mut n_rows = 0;
            let mut gathered = Vec::new();
            while n_rows < BATCH_ROWS
                && let Some((entity, rows)) = entities.next()
            {
                n_rows += rows.len();
                gathered.push((entity, rows));
            }
            gathered
        };
        if gathered.is_empty() {
            return None;
        }
        let mut batch = BatchBuilder::new(&columns);
        for (entity, rows) in &gathered {
            for (key, values) in rows.iter() {
                batch.push(entity, key, values, &column_idx_by_name);
            }
        }
        let refused = |e: ArrowError| HistoryError::Columnar { entity_type: entity_type.clone(), reason: e.to_string() };
        Some(batch.finish(&schema).map(|batch| Sheet { batch, columns: Arc::clone(&columns) }).map_err(refused))
    }))
}

struct BatchBuilder<'a> {
    n_rows: usize,
    entity_id: StringDictionaryBuilder<Int32Type>,
    dataset_id: StringDictionaryBuilder<Int32Type>,
    observed_at: TimestampMicrosecondBuilder,
    recorded_at: TimestampMicrosecondBuilder,
    deleted: StringDictionaryBuilder<Int32Type>,
    attributes: Vec<AttributeBuilder<'a>>,
    /// The values of the row at hand, by column.
    row: Vec<Option<&'a Attribute>>,
}

struct AttributeBuilder<'a> {
    column: &'a FileColumn,
    number: Float64Builder,
    text: StringBuilder,
    meta: StringDictionaryBuilder<Int32Type>,
}

impl<'a> BatchBuilder<'a> {
    fn new(columns: &'a [FileColumn]) -> Self {
        let builder = |column| AttributeBuilder {
            column,
            number: Float64Builder::new(),
            text: StringBuilder::new(),
            meta: StringDictionaryBuilder::new(),
        };
        Self {
            n_rows: 0,
            entity_id: StringDictionaryBuilder::new(),
            dataset_id: StringDictionaryBuilder::new(),
            observed_at: TimestampMicrosecondBuilder::new().with_timezone("UTC"),
            recorded_at: TimestampMicrosecondBuilder::new().with_timezone("UTC"),
            deleted: StringDictionaryBuilder::new(),
            attributes: columns.iter().map(builder).collect(),
            row: vec![None; columns.len()],
        }
    }

    fn push(&mut self, entity: &Iri, key: &RowKey, values: &'a Values, column_idx_by_name: &HashMap<&Iri, usize>) {
        self.n_rows += 1;
        self.entity_id.append_value(entity.as_str());
        self.dataset_id.append_option(key.dataset_id.as_ref().map(Iri::as_str));
        self.observed_at.append_option(key.observed_at.map(Instant::micros));
        self.recorded_at.append_value(key.recorded_at.micros());
        self.deleted.append_option(key.mark.as_deref());
        for (name, attribute) in values {
            if let Some(&idx) = column_idx_by_name.get(name) {
                self.row[idx] = Some(attribute);
            }
        }
        for (builder, attribute) in self.attributes.iter_mut().zip(&mut self.row) {
            builder.push(attribute.take(), key.recorded_at);
        }
    }

    fn finish(mut self, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
        let mut arrays: Vec<ArrayRef> = vec![
            Arc::new(self.entity_id.finish()),
            Arc::new(self.dataset_id.finish()),
            Arc::new(self.observed_at.finish()),
            Arc::new(self.recorded_at.finish()),
            Arc::new(self.deleted.finish()),
        ];
        for mut a in self.attributes {
            if a.column.number {
                arrays.push(Arc::new(a.number.finish()));
            }
            if a.column.text {
                arrays.push(Arc::new(a.text.finish()));
            }
            if a.column.meta {
                arrays.push(Arc::new(a.meta.finish()));
            }
        }
        RecordBatch::try_new(Arc::clone(schema), arrays)
    }
}

impl AttributeBuilder<'_> {
    fn push(&mut self, attribute: Option<&Attribute>, recorded_at: Instant) {
        let cell = attribute.map(|a| cell::encode(a, recorded_at, self.column.integers));
        if self.column.number {
            self.number.append_option(cell.as_ref().and_then(|c| c.number));
        }
        if self.column.text {
            self.text.append_option(cell.as_ref().and_then(|c| c.text.as_deref()));
        }
        if self.column.meta {
            self.meta.append_option(cell.as_ref().and_then(|c| c.meta.as_deref()));
        }
    }
}

/// How hard to try to make a file small.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Effort {
    /// For a file that will soon be merged into another.
    Quick,
    /// For a file that stays.
    Thorough,
}

impl Effort {
    fn compression(self) -> Compression {
        let level = match self {
            Self::Quick => 1,
            Self::Thorough => 9,
        };
        Compression::ZSTD(ZstdLevel::try_new(level).expect("1 to 22 are zstd levels"))
    }
}

/// A file that is being built.
pub(super) struct SegmentWriter {
    footer: Footer,
    effort: Effort,
    /// There once the first rows are: they decide about encodings.
    writer: Option<ArrowWriter<Vec<u8>>>,
    n_rows: u64,
    observed: Option<TimeRange>,
    recorded: Option<TimeRange>,
}

/// A file that has been built.
pub(super) struct Built {
    pub(super) bytes: Vec<u8>,
    pub(super) n_rows: u64,
    pub(super) observed: Option<TimeRange>,
    pub(super) recorded: TimeRange,
}

impl SegmentWriter {
    pub(super) const fn new(footer: Footer, effort: Effort) -> Self {
        Self { footer, effort, writer: None, n_rows: 0, observed: None, recorded: None }
    }

    pub(super) const fn n_rows(&self) -> u64 {
        self.n_rows
    }

    /// Adds rows, which come after all others.
    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<(), HistoryError> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let footer = &self.footer;
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => {
                let properties = properties(footer, batch, self.effort);
                let writer = ArrowWriter::try_new(Vec::new(), schema_of(&footer.columns), Some(properties));
                none.insert(writer.map_err(|e| refused(&e, &footer.entity_type))?)
            }
        };
        writer.write(batch).map_err(|e| refused(&e, &footer.entity_type))?;
        self.n_rows += batch.num_rows() as u64;
        let times = |idx: usize| batch.column(idx).as_primitive::<TimestampMicrosecondType>();
        let range = |times: &TimestampMicrosecondArray| {
            Some((Instant::from_micros(arrow::compute::min(times)?), Instant::from_micros(arrow::compute::max(times)?)))
        };
        self.observed = wider(self.observed, range(times(OBSERVED)));
        self.recorded = wider(self.recorded, range(times(RECORDED)));
        Ok(())
    }

    /// The bytes of the file; none if there is no row.
    pub(super) fn finish(self) -> Result<Option<Built>, HistoryError> {
        let (Some(writer), Some(recorded)) = (self.writer, self.recorded) else { return Ok(None) };
        let bytes = writer.into_inner().map_err(|e| refused(&e, &self.footer.entity_type))?;
        Ok(Some(Built { bytes, n_rows: self.n_rows, observed: self.observed, recorded }))
    }
}

/// A file without rows that says what was erased and since when the table is kept; none if there is nothing to say.
pub(super) fn note_file(entity_type: &Iri, erasures: Vec<Arc<Erasure>>, kept: Option<Kept>) -> Result<Option<Built>, HistoryError> {
    let times = || erasures.iter().map(|e| e.recorded_at).chain(kept.iter().flat_map(Kept::times));
    let (Some(min), Some(max)) = (times().min(), times().max()) else { return Ok(None) };
    let (columns, seen) = (Arc::default(), SeenByName::new());
    let footer = Footer { entity_type: entity_type.clone(), columns, seen, erasures, kept, thorough: true };
    let schema = schema_of(&footer.columns);
    let properties = properties(&footer, &RecordBatch::new_empty(Arc::clone(&schema)), Effort::Quick);
    let writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties)).map_err(|e| refused(&e, entity_type))?;
    let bytes = writer.into_inner().map_err(|e| refused(&e, entity_type))?;
    Ok(Some(Built { bytes, n_rows: 0, observed: None, recorded: (min, max) }))
}

fn properties(footer: &Footer, first: &RecordBatch, effort: Effort) -> WriterProperties {
    let path = |name: &str| ColumnPath::new(vec![name.to_owned()]);
    let key_value = |key: &str, value: String| KeyValue::new(key.to_owned(), value);
    let mut p: WriterPropertiesBuilder = WriterProperties::builder()
        .set_created_by(concat!("conurb ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(effort.compression())
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_write_batch_size(PAGE_ROWS)
        // Ids share long beginnings: cut ones would prune nothing.
        .set_statistics_truncate_length(None)
        .set_column_index_truncate_length(None)
        // Only the columns that queries prune by have statistics.
        .set_statistics_enabled(EnabledStatistics::None)
        .set_key_value_metadata(Some(vec![
            key_value(VERSION_KEY, FORMAT_VERSION.to_string()),
            key_value(FOOTER_KEY, serde_json::to_string(footer).expect("a footer is JSON")),
        ]));
    // How many rows are marks, and how many have a `datasetId`.
    for name in ["deleted", "dataset_id"] {
        p = p.set_column_statistics_enabled(path(name), EnabledStatistics::Chunk);
    }
    for name in ["entity_id", "observed_at", "recorded_at"] {
        p = p.set_column_statistics_enabled(path(name), EnabledStatistics::Page);
    }
    // Their encodings leave nothing to compress, and each column that is compressed costs a reader a decompressor: 25 µs, as much as decoding
    // the page itself.
    for name in ["entity_id", "dataset_id", "deleted"] {
        p = p.set_column_compression(path(name), Compression::UNCOMPRESSED);
    }
    let n = first.num_rows().min(SAMPLE_ROWS);
    // Observed times step evenly; recorded ones are often the same for a whole batch.
    let recorded = first.column(RECORDED).as_primitive::<TimestampMicrosecondType>().slice(0, n);
    let n_recorded = recorded.values().iter().collect::<HashSet<_>>().len();
    for (name, repetitive) in [("observed_at", false), ("recorded_at", n_recorded * 8 <= n)] {
        p = p.set_column_dictionary_enabled(path(name), repetitive).set_column_encoding(path(name), Encoding::DELTA_BINARY_PACKED);
    }
    for column in footer.columns.iter().filter(|c| c.number) {
        let name = column.number_name();
        let repetitive = first.column_by_name(&name).is_some_and(|a| is_repetitive(&a.as_primitive::<Float64Type>().slice(0, n)));
        // The encoding is also what a dictionary that grows too large falls back to.
        p = p.set_column_encoding(path(&name), Encoding::BYTE_STREAM_SPLIT).set_column_dictionary_enabled(path(&name), repetitive);
    }
    p.build()
}

/// Do numbers repeat enough for a dictionary? Otherwise their bytes are split into streams.
fn is_repetitive(sample: &Float64Array) -> bool {
    let distinct: HashSet<u64> = sample.iter().flatten().map(f64::to_bits).collect();
    distinct.len() * 2 <= sample.len() - sample.null_count()
}

fn refused(error: &ParquetError, entity_type: &Iri) -> HistoryError {
    HistoryError::Columnar { entity_type: entity_type.clone(), reason: error.to_string() }
}

/// Earliest and latest.
pub(super) type TimeRange = (Instant, Instant);

fn wider(a: Option<TimeRange>, b: Option<TimeRange>) -> Option<TimeRange> {
    match (a, b) {
        (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
        (a, b) => a.or(b),
    }
}
