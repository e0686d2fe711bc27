//! Rows to record batches, record batches to a file that is there completely or not at all.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Builder, StringBuilder, StringDictionaryBuilder, TimestampMicrosecondBuilder};
use arrow::compute::{max, min};
use arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
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
use super::super::{HistoryError, Segment};
use super::cell::{self, exact_number, is_whole};
use super::recent::{RowKey, Table, Values};

/// Format version of the files. 1: the one described here.
pub(super) const FORMAT_VERSION: u32 = 1;
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
/// More distinct numbers than this are not worth a dictionary: at 8 bytes each it would outgrow its page limit (1 MiB).
const DICTIONARY_NUMBERS_MAX: usize = 65_536;

/// What the footer says about the table.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Footer {
    pub(super) entity_type: Iri,
    pub(super) columns: Vec<FileColumn>,
    pub(super) seen: SeenByName,
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
    /// Numbers repeat enough for a dictionary; otherwise their bytes are split into streams.
    #[serde(skip)]
    repetitive: bool,
}

impl FileColumn {
    /// A column of numbers and nothing else.
    pub(super) const fn number(name: Iri, repetitive: bool) -> Self {
        Self { name, number: true, text: false, meta: false, integers: false, repetitive }
    }

    /// The same, its numbers written as those of a file that was read are.
    pub(super) const fn with_repetitive(mut self, repetitive: bool) -> Self {
        self.repetitive = repetitive;
        self
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

/// The columns that `table` needs, all or only those of `attributes`.
pub(super) fn columns_for(table: &Table, attributes: Option<&BTreeSet<&Iri>>) -> Vec<FileColumn> {
    #[derive(Default)]
    struct Count {
        n_integers: usize,
        n_whole_floats: usize,
        n_numbers: usize,
        distinct: HashSet<u64>,
        text: bool,
        meta: bool,
    }
    let mut counts: BTreeMap<&Iri, Count> = BTreeMap::new();
    for (key, (name, attribute)) in table.entities.values().flat_map(|rows| rows.iter()).flat_map(|(k, vs)| vs.iter().map(move |v| (k, v)))
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
                if count.distinct.len() <= DICTIONARY_NUMBERS_MAX {
                    count.distinct.insert(f.to_bits());
                }
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
        repetitive: count.distinct.len() <= DICTIONARY_NUMBERS_MAX && count.distinct.len() * 2 <= count.n_numbers,
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

/// Calls `take` with the rows of `table`, in order, as batches of `columns`.
pub(super) fn for_each_batch<E: From<ArrowError>>(
    table: &Table,
    columns: &[FileColumn],
    mut take: impl FnMut(RecordBatch) -> Result<(), E>,
) -> Result<(), E> {
    let schema = schema_of(columns);
    let column_idx_by_name: HashMap<&Iri, usize> = columns.iter().enumerate().map(|(idx, c)| (&c.name, idx)).collect();
    let mut batch = BatchBuilder::new(columns);
    for (entity, rows) in &table.entities {
        for (key, values) in rows.iter() {
            batch.push(entity, key, values, &column_idx_by_name);
            if batch.n_rows == BATCH_ROWS {
                take(batch.finish(&schema)?)?;
                batch = BatchBuilder::new(columns);
            }
        }
    }
    if batch.n_rows > 0 {
        take(batch.finish(&schema)?)?;
    }
    Ok(())
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
        self.deleted.append_option(key.deleted.as_deref());
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

/// Writes `table` to a new file of `dir`, synced and under its final name.
pub(super) fn write_segment(dir: &Path, file: &str, entity_type: &Iri, table: &Table) -> Result<Segment, HistoryError> {
    let columns = columns_for(table, None);
    let footer = Footer { entity_type: entity_type.clone(), columns, seen: table.seen.clone() };
    let path = dir.join(file);
    let temporary = dir.join(format!("{file}.tmp"));
    let io_error = |action, path: &Path| {
        let path = path.to_owned();
        move |source| HistoryError::Io { action, path, source }
    };
    let out = File::create(&temporary).map_err(io_error("create", &temporary))?;
    let written = write_rows(Checksummed { out, bytes: 0, crc32c: 0 }, table, &footer).map_err(|e| refused(e, entity_type, &temporary))?;
    written.out.sync_all().map_err(io_error("sync", &temporary))?;
    fs::rename(&temporary, &path).map_err(io_error("rename", &temporary))?;
    let (observed, recorded) = time_ranges(table);
    Ok(Segment {
        file: file.to_owned(),
        entity_type: entity_type.clone(),
        n_rows: table.n_rows() as u64,
        bytes: written.bytes,
        observed,
        recorded,
        crc32c: written.crc32c,
        rollup: None,
    })
}

fn write_rows(out: Checksummed, table: &Table, footer: &Footer) -> Result<Checksummed, ParquetError> {
    let mut writer = ArrowWriter::try_new(out, schema_of(&footer.columns), Some(properties(footer)))?;
    for_each_batch(table, &footer.columns, |batch| writer.write(&batch))?;
    writer.into_inner()
}

/// A file that is written batch by batch; it is there under its name when [`FileWriter::finish`] returns, or not at all.
pub(super) struct FileWriter {
    writer: ArrowWriter<Checksummed>,
    path: PathBuf,
    temporary: PathBuf,
    file: String,
    entity_type: Iri,
    n_rows: u64,
    observed: Option<TimeRange>,
    recorded: Option<TimeRange>,
}

impl FileWriter {
    pub(super) fn create(dir: &Path, file: &str, footer: &Footer) -> Result<Self, HistoryError> {
        let temporary = dir.join(format!("{file}.tmp"));
        let out = File::create(&temporary).map_err(|source| HistoryError::Io { action: "create", path: temporary.clone(), source })?;
        let checksummed = Checksummed { out, bytes: 0, crc32c: 0 };
        let writer = ArrowWriter::try_new(checksummed, schema_of(&footer.columns), Some(properties(footer)))
            .map_err(|e| refused(e, &footer.entity_type, &temporary))?;
        let entity_type = footer.entity_type.clone();
        let (path, file) = (dir.join(file), file.to_owned());
        Ok(Self { writer, path, temporary, file, entity_type, n_rows: 0, observed: None, recorded: None })
    }

    /// Rows that come after all earlier ones, in the columns of the footer.
    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<(), HistoryError> {
        let range = |idx: usize| {
            let times = batch.column(idx).as_primitive::<TimestampMicrosecondType>();
            Some((Instant::from_micros(min(times)?), Instant::from_micros(max(times)?)))
        };
        let wider = |known: Option<TimeRange>, new: Option<TimeRange>| match (known, new) {
            (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
            (a, b) => a.or(b),
        };
        self.observed = wider(self.observed, range(2));
        self.recorded = wider(self.recorded, range(3));
        self.n_rows += batch.num_rows() as u64;
        self.writer.write(batch).map_err(|e| refused(e, &self.entity_type, &self.temporary))
    }

    pub(super) const fn n_rows(&self) -> u64 {
        self.n_rows
    }

    /// Gives up: nothing stays.
    pub(super) fn abandon(self) {
        // What cannot be removed now is removed when the folder is opened next.
        let _ = fs::remove_file(&self.temporary);
    }

    /// Errors: it could not be written; what is there of it is removed when the folder is opened next.
    pub(super) fn finish(self) -> Result<Segment, HistoryError> {
        let Self { writer, path, temporary, file, entity_type, n_rows, observed, recorded } = self;
        let io_error = |action, path: &Path| {
            let path = path.to_owned();
            move |source| HistoryError::Io { action, path, source }
        };
        let written = writer.into_inner().map_err(|e| refused(e, &entity_type, &temporary))?;
        written.out.sync_all().map_err(io_error("sync", &temporary))?;
        fs::rename(&temporary, &path).map_err(io_error("rename", &temporary))?;
        let recorded = recorded.expect("a file has rows");
        Ok(Segment { file, entity_type, n_rows, bytes: written.bytes, observed, recorded, crc32c: written.crc32c, rollup: None })
    }
}

fn properties(footer: &Footer) -> WriterProperties {
    let path = |name: &str| ColumnPath::new(vec![name.to_owned()]);
    let key_value = |key: &str, value: String| KeyValue::new(key.to_owned(), value);
    let mut p: WriterPropertiesBuilder = WriterProperties::builder()
        .set_created_by(concat!("conurb ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3).expect("3 is a zstd level")))
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
    for name in ["entity_id", "observed_at", "recorded_at"] {
        p = p.set_column_statistics_enabled(path(name), EnabledStatistics::Page);
    }
    for name in ["observed_at", "recorded_at"] {
        p = p.set_column_dictionary_enabled(path(name), false).set_column_encoding(path(name), Encoding::DELTA_BINARY_PACKED);
    }
    for column in footer.columns.iter().filter(|c| c.number) {
        let path = path(&column.number_name());
        // The encoding is also what a dictionary that grows too large falls back to.
        p = p.set_column_encoding(path.clone(), Encoding::BYTE_STREAM_SPLIT).set_column_dictionary_enabled(path, column.repetitive);
    }
    p.build()
}

fn refused(error: ParquetError, entity_type: &Iri, path: &Path) -> HistoryError {
    match error {
        ParquetError::External(source) => match source.downcast::<io::Error>() {
            Ok(source) => HistoryError::Io { action: "write", path: path.to_owned(), source: *source },
            Err(other) => HistoryError::Columnar { entity_type: entity_type.clone(), reason: other.to_string() },
        },
        other => HistoryError::Columnar { entity_type: entity_type.clone(), reason: other.to_string() },
    }
}

type TimeRange = (Instant, Instant);

/// Earliest and latest observed and recorded time.
fn time_ranges(table: &Table) -> (Option<TimeRange>, TimeRange) {
    let wider = |range: Option<TimeRange>, at: Instant| Some(range.map_or((at, at), |(min, max)| (min.min(at), max.max(at))));
    let (mut observed, mut recorded) = (None, None);
    for key in table.entities.values().flat_map(|rows| rows.keys()) {
        recorded = wider(recorded, key.recorded_at);
        if let Some(at) = key.observed_at {
            observed = wider(observed, at);
        }
    }
    (observed, recorded.expect("a table has rows"))
}

/// A file that knows its length and checksum.
struct Checksummed {
    out: File,
    bytes: u64,
    crc32c: u32,
}

impl Write for Checksummed {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.out.write(buf)?;
        self.bytes += n as u64;
        self.crc32c = crc32c::crc32c_append(self.crc32c, &buf[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
