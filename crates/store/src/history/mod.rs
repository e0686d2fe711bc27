//! What was true when.
//!
//! Each value carries two times: when it was observed (valid time) and when the node learned it (recorded time).
//! A correction is a second row with the same entity, attribute, `datasetId` and observed time and a later recorded time;
//! readers see the latest one, unless they ask for the city as it was known at an earlier recorded time.
//!
//! * [`columnar::ColumnarHistory`]: recent facts in memory, sealed ones in Parquet files. What a node uses.
//! * [`memory::MemoryHistory`]: a plain list, the model that every engine is held against.
//!
//! **When a value is a correction.** Two values of one attribute instance (entity, attribute, `datasetId`) with the same observed time
//! speak about the same moment: the one recorded last counts. Values without observed time are never corrections of each other: each is
//! what the node learned at its recorded time, and stays. Two values that agree in the recorded time too are one fact (a replay after a
//! crash, or twice the same attribute in one batch): the one appended last stays.
//!
//! **Deletions** are kept as facts with their recorded time; they end nothing in the past ([`History::deletions`] returns them).
//! **What an entity is** besides its attributes – types, scopes, when it expires – is kept whenever it became something else ([`About`]).
//! The values of an entity are in the table of its first type; what it became is in the table of each of its types, so that whoever looks
//! for the entities of a type finds it there. Deletions and these facts are called marks. [`entity_as_of`] puts an entity together again.
//!
//! **What is kept.** Where retention has removed values, questions as of a time before that are refused ([`HistoryError::NotKept`]).
//!
//! **Erasures** take facts out of the past again ([`Erasure`]); they too have a recorded time.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use entity::{Attribute, Instant, Iri};
use indexmap::IndexMap;

pub mod columnar;
pub mod memory;

mod about;
mod aggregate;
mod as_of;
mod bucket;
mod bulk;
mod erasure;
mod kept;
mod rollup;
pub(crate) mod value;
mod within;

pub use value::{kind_of, plain_of};

pub use about::{About, Marked};
pub use aggregate::{
    AGGREGATE_ATTRIBUTES_MAX, AGGREGATE_ROWS_MAX, AggregateQuery, Aggregates, Cell, Groups, Measure, ROWS_COLUMN, Reading, RollupUse,
    Sources,
};
pub use as_of::{AS_OF_INSTANCES_MAX, entity_as_of};
pub use bucket::Bucket;
pub use kept::Kept;
pub use rollup::{HistoryPolicy, Maintained, RULES_MAX, RetentionRule, Rollup, RollupRule, RollupWidth};
pub use within::{FirstIds, Within};

#[cfg(test)]
mod contract;

pub use bulk::{BULK_ATTRIBUTES_MAX, BULK_ROWS_MAX, BulkColumn, BulkRows, BulkRowsError, UNIT_CODE_KEY};
pub use erasure::{ERASURES_MAX, ErasedInstances, ErasedTimes, Erasure};

/// Rows of a [`RecordBatch`] that [`History::scan`] returns, at most.
pub const SCAN_BATCH_ROWS_MAX: usize = 8_192;

/// One fact to keep: an attribute instance that was recorded, or the end of something.
#[derive(Clone, PartialEq, Debug)]
pub struct Fact {
    /// The entity's first type: decides the table.
    pub entity_type: Iri,
    /// The entity.
    pub entity: Iri,
    /// When the node learned it.
    pub recorded_at: Instant,
    /// What it learned.
    pub what: What,
}

/// What was learned.
#[derive(Clone, PartialEq, Debug)]
pub enum What {
    /// An attribute instance had this value (its `created_at` and `modified_at` are set).
    Value {
        /// The attribute.
        name: Iri,
        /// The instance.
        instance: Arc<Attribute>,
    },
    /// The same of several attributes whose instances were observed at the same time under the same `datasetId`: what an entity reports
    /// together. A history takes it in; what it tells of is one [`What::Value`] for each.
    Values(Vec<(Iri, Arc<Attribute>)>),
    /// An attribute instance was removed.
    AttributeDeleted {
        /// The attribute.
        name: Iri,
        /// Which instance.
        dataset_id: Option<Iri>,
    },
    /// The present value of an attribute instance became one that was observed earlier than a value known before. Without this, such a value
    /// is a late one: it tells of the past, and is not what was known last.
    Restated {
        /// The attribute.
        name: Iri,
        /// Which instance.
        dataset_id: Option<Iri>,
        /// When the value was observed.
        observed_at: Instant,
    },
    /// The entity was removed.
    EntityDeleted,
    /// The entity is new, or its types, scopes or expiry became these. There is one such fact per entity and recorded time, in the table of
    /// each of the types.
    Became(About),
}

/// Which time a query speaks of (ETSI GS CIM 009 V1.9.1, clause 4.11).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TimeProperty {
    /// Valid time; values without it never match an interval (without an interval they are returned, placed at their recorded time).
    #[default]
    ObservedAt,
    /// When the instance was recorded.
    ModifiedAt,
    /// When the instance was first recorded (its `created_at`).
    CreatedAt,
}

/// A question about one entity's past.
#[derive(Clone, PartialEq, Debug)]
pub struct TemporalQuery {
    /// The entity.
    pub entity: Iri,
    /// Which attributes; none for all.
    pub attributes: Option<Vec<Iri>>,
    /// The interval `[start, end)` of the time property; none for all time.
    pub interval: Option<Range<Instant>>,
    /// Which time the interval speaks of.
    pub time_property: TimeProperty,
    /// Only the newest so many instances of each attribute and `datasetId`, newest first.
    pub last_n: Option<usize>,
    /// As it was known at this recorded time; none for now.
    pub as_of: Option<Instant>,
    /// At most so many instances in all; a longer answer is cut at one instant for all attributes and says so. All instances of an
    /// instant are returned or none, and the first instant always is, so an answer is longer than this if its first instant alone is.
    pub instances_max: usize,
}

impl TemporalQuery {
    /// Everything that is known now of an entity.
    #[must_use]
    pub const fn of(entity: Iri) -> Self {
        Self {
            entity,
            attributes: None,
            interval: None,
            time_property: TimeProperty::ObservedAt,
            last_n: None,
            as_of: None,
            instances_max: usize::MAX,
        }
    }
}

/// The end of an entity or of an attribute instance: the `deletedAt` of NGSI-LD.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Deletion {
    /// When it was recorded.
    pub deleted_at: Instant,
    /// The attribute; none if it was the entity.
    pub attribute: Option<Iri>,
    /// Which instance of the attribute; none for the default instance.
    pub dataset_id: Option<Iri>,
    /// The entity's type then.
    pub entity_type: Iri,
}

impl Deletion {
    /// The deletion that a fact is, if it is one.
    pub(super) fn of(fact: Fact) -> Option<Self> {
        let Fact { entity_type, recorded_at, what, .. } = fact;
        let (attribute, dataset_id) = match what {
            What::Value { .. } | What::Values(_) | What::Restated { .. } | What::Became(_) => return None,
            What::AttributeDeleted { name, dataset_id } => (Some(name), dataset_id),
            What::EntityDeleted => (None, None),
        };
        Some(Self { deleted_at: recorded_at, attribute, dataset_id, entity_type })
    }
}

/// One entity's past.
#[derive(Clone, PartialEq, Debug)]
pub struct Evolution {
    /// The entity.
    pub id: Iri,
    /// Its type: the one of the fact recorded last.
    pub entity_type: Iri,
    /// Instances by attribute (in the order of the names), in ascending time (with `last_n`: descending), equal times by recorded
    /// time, observed time and `datasetId`. The time is the time property asked for, or the recorded time of instances without it. Attributes without an instance
    /// are absent.
    pub attributes: IndexMap<Iri, Vec<Attribute>>,
    /// Set when the answer was cut: the time of the last instance returned (newest, or oldest with `last_n`).
    pub cut_at: Option<Instant>,
}

/// A column of a history table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AttributeColumn {
    /// The attribute.
    pub name: Iri,
    /// Its type in the table.
    pub kind: ColumnKind,
    /// Unit code seen with it, if it was always the same one.
    pub unit_code: Option<String>,
}

/// Type of a column.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColumnKind {
    /// Every value is a number: `Float64` (the nearest one of integers beyond 2^53).
    Number,
    /// Every value is a truth value: `Boolean`.
    Bool,
    /// Every value is a string, the single target of a Relationship or the single term of a VocabProperty: `Utf8`.
    Text,
    /// Anything else, or a mixture: JSON in `Utf8` (of a GeoProperty its GeoJSON, of a LanguageProperty its texts by tag).
    Json,
}

impl ColumnKind {
    /// The Arrow type of such a column.
    #[must_use]
    pub const fn data_type(self) -> DataType {
        match self {
            Self::Number => DataType::Float64,
            Self::Bool => DataType::Boolean,
            Self::Text | Self::Json => DataType::Utf8,
        }
    }
}

/// A history table as queries see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HistoryTable {
    /// The entity type.
    pub entity_type: Iri,
    /// Its attributes, by name.
    pub columns: Vec<AttributeColumn>,
}

impl HistoryTable {
    /// The schema of a [`History::scan`] for these attributes, in this order; one that the table does not have is an empty `Utf8` column.
    ///
    /// A column's kind widens when a value of another kind arrives, so the schema of the batches is the one that counts.
    #[must_use]
    pub fn scan_schema(&self, attributes: &[Iri]) -> SchemaRef {
        let instant = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let mut fields = vec![
            Field::new("entity_id", DataType::Utf8, false),
            Field::new("dataset_id", DataType::Utf8, true),
            Field::new("observed_at", instant(), true),
            Field::new("recorded_at", instant(), false),
        ];
        for name in attributes {
            let kind = self.columns.iter().find(|c| c.name == *name).map_or(ColumnKind::Text, |c| c.kind);
            fields.push(Field::new(name.as_str(), kind.data_type(), true));
        }
        Arc::new(Schema::new(fields))
    }
}

/// What to read of a history table. The answer has the columns `entity_id` (Utf8), `dataset_id` (Utf8, null for the default instance),
/// `observed_at`, `recorded_at` (Timestamp µs UTC; `observed_at` null where the source gave none), then the attributes asked for,
/// typed as their [`ColumnKind`]. One row per entity, `datasetId`, and observed time with the latest value known of each attribute; `recorded_at` is the latest.
/// Values without observed time are no corrections of each other: there is one row per recorded time of them. Which rows there are does not depend on the
/// attributes asked for (SQL counts rows without naming a column). Sorted by entity, observed time (none first, by recorded time) and `datasetId`.
#[derive(Clone, PartialEq, Debug)]
pub struct HistoryScan {
    /// The entity type.
    pub entity_type: Iri,
    /// Attributes to return, in this order.
    pub attributes: Vec<Iri>,
    /// Only these entities; none for all.
    pub entities: Option<Vec<Iri>>,
    /// Only this interval `[start, end)` of observed time; rows without observed time are then left out.
    pub observed: Option<Range<Instant>>,
    /// As it was known at this recorded time; none for now.
    pub as_of: Option<Instant>,
}

/// The batches of a [`History::stream`].
pub type ScanStream = Box<dyn Iterator<Item = Result<RecordBatch, HistoryError>> + Send>;

/// An immutable file of the history, as the manifest keeps it.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Segment {
    /// File name inside the history's folder.
    pub file: String,
    /// The entity type whose rows it holds.
    pub entity_type: Iri,
    /// Rows in it.
    pub n_rows: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// Earliest and latest observed time in it, if any.
    pub observed: Option<(Instant, Instant)>,
    /// Earliest and latest recorded time in it.
    pub recorded: (Instant, Instant),
    /// CRC-32C of the file.
    pub crc32c: u32,
    /// What it covers, if its rows are aggregates of other segments' rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollup: Option<Rollup>,
}

/// Why the history cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// A file cannot be read or written.
    #[error("cannot {action} history file `{path}`")]
    Io {
        /// `read`, `write`, ...
        action: &'static str,
        /// Which file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is not what the manifest says, or holds what it must not.
    #[error("history file `{path}` is damaged: {reason}")]
    Damaged {
        /// Which file.
        path: std::path::PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file was written by a newer version of this program.
    #[error(
        "history file `{path}` has format version {found}, newer than {supported}, the newest that this program reads; update the program"
    )]
    TooNew {
        /// Which file.
        path: std::path::PathBuf,
        /// Its version.
        found: u32,
        /// The newest version known here.
        supported: u32,
    },
    /// The question has no answer, or too large a one.
    #[error("{what}")]
    Refused {
        /// What is wrong with it.
        what: String,
    },
    /// Retention has removed what was known then.
    #[error("the history of `{entity_type}`{} is kept since {since}: what was known at {at} cannot be told any more",
        attribute.as_ref().map(|a| format!(", attribute `{a}`,")).unwrap_or_default())]
    NotKept {
        /// The table.
        entity_type: Iri,
        /// The attribute, if it is only about one.
        attribute: Option<Iri>,
        /// Since when it is kept.
        since: Instant,
        /// The time asked for.
        at: Instant,
    },
    /// An entity has more values than are looked at to put it together again.
    #[error("entity `{entity}` has more than {max} values; what it was like then cannot be put together")]
    TooLong {
        /// The entity.
        entity: Iri,
        /// The limit.
        max: usize,
    },
    /// There are too many erasures.
    #[error("history of `{entity_type}`: there are {max} erasures already; purge them first")]
    TooManyErasures {
        /// The table.
        entity_type: Iri,
        /// The limit.
        max: usize,
    },
    /// The columnar library refused.
    #[error("history of `{entity_type}`: {reason}")]
    Columnar {
        /// Which table.
        entity_type: Iri,
        /// What it said.
        reason: String,
    },
}

/// The history of a node. Recent facts are in memory (the log makes them durable) until [`History::seal`] writes them to immutable segments.
pub trait History: Send + Sync {
    /// Takes facts in; they are visible to readers at once.
    fn append(&self, facts: Vec<Fact>);

    /// Takes observations in as columns, which cost a fraction of as many facts and mean the same.
    fn append_rows(&self, rows: BulkRows) {
        self.append(rows.facts().collect());
    }

    /// Would [`History::erase`] take this in? Asked before it is made durable. Errors: there are [`ERASURES_MAX`] in the table.
    fn check_erasure(&self, erasure: &Erasure) -> Result<(), HistoryError>;

    /// Takes facts out of the history, for readers of now and later; durable as facts are. One that is known already is
    /// taken without effect, as a replay brings it. Errors: those of [`History::check_erasure`].
    fn erase(&self, erasure: Erasure) -> Result<(), HistoryError>;

    /// Removes what was erased before this call for good: it is not seen any more as of any time. Seals, and returns the list as
    /// [`History::seal`] does.
    fn purge(&self) -> Result<Vec<Segment>, HistoryError>;

    /// Hands over the facts other than values – ends, and what entities became – as known at a recorded time (none for now), in no
    /// order and some perhaps twice.
    fn visit_marks(&self, of: Marked<'_>, as_of: Option<Instant>, visit: &mut dyn FnMut(Fact)) -> Result<(), HistoryError>;

    /// Since when the history of a type is kept.
    fn kept(&self, _entity_type: &Iri) -> Kept {
        Kept::default()
    }

    /// The ends of an entity and of its attributes as known at a recorded time (none for now), in the order of time.
    fn deletions(&self, entity: &Iri, as_of: Option<Instant>) -> Result<Vec<Deletion>, HistoryError> {
        let mut found = Vec::new();
        self.visit_marks(Marked::Entity(entity), as_of, &mut |fact| found.extend(Deletion::of(fact)))?;
        found.sort();
        // What was replayed after a crash is in two layers.
        found.dedup();
        Ok(found)
    }

    /// How many facts are in memory only.
    fn n_recent(&self) -> usize;

    /// Writes the facts in memory to new segments and syncs them. Readers see every fact exactly once throughout. Returns the complete
    /// list of segments, for the manifest; the log may be trimmed only after that is durable.
    fn seal(&self) -> Result<Vec<Segment>, HistoryError>;

    /// Says that the list which [`History::seal`] returned last is durable. Only now what earlier lists named and this one does not is deleted
    /// (small segments become one in time). Without this call it stays until the history is opened again.
    fn committed(&self) {}

    /// One entity's past; none if it has none of it (not even outside the interval).
    fn evolution(&self, query: &TemporalQuery) -> Result<Option<Evolution>, HistoryError>;

    /// The tables, by entity type: one per type of which there is any fact.
    fn tables(&self) -> Vec<HistoryTable>;

    /// Count, sum, extremes and so on of the numbers of each bucket of time.
    ///
    /// This implementation looks at every row and says what the answer is; engines have faster ones.
    /// Errors: [`HistoryError::Refused`] for a question without an answer (an attribute named twice, an empty interval) or with one of more
    /// than [`AGGREGATE_ROWS_MAX`] rows; otherwise those of [`History::scan`].
    fn aggregate(&self, query: &AggregateQuery) -> Result<Aggregates, HistoryError> {
        query.check()?;
        let table = self.tables().into_iter().find(|t| t.entity_type == query.entity_type);
        let Some(table) = table else { return Ok(Aggregates { batches: Vec::new(), sources: Sources::default() }) };
        aggregate::over_scan(query, Groups::Numbers, &table, self.stream(&query.scan())?)
    }

    /// The same for SQL: unless known numbers are asked for ([`Groups::Known`]), what a [`History::scan`] at this moment would give, grouped. So
    /// values that retention has removed are not in it, even where a roll-up still knows them; with [`Groups::Rows`] there need be no attribute or measure. `take` is given the batches (of
    /// [`AggregateQuery::group_schema`]) as they are made, and ends the reading by answering false; an empty one now and then while
    /// nothing is complete. Rows are sorted as those of an aggregate are.
    ///
    /// Errors: those of [`History::aggregate`], but the answer may be longer if it has a row per entity.
    fn group(&self, query: &AggregateQuery, groups: Groups, take: &mut dyn FnMut(RecordBatch) -> bool) -> Result<Sources, HistoryError> {
        query.check_groups()?;
        let table = self.tables().into_iter().find(|t| t.entity_type == query.entity_type);
        let Some(table) = table else { return Ok(Sources::default()) };
        let answer = aggregate::over_scan(query, groups, &table, self.stream(&query.scan_of(groups))?)?;
        let _ = answer.batches.into_iter().all(take);
        Ok(answer.sources)
    }

    /// What [`History::stream`] would read now; none if this history has no files.
    fn reading(&self, _scan: &HistoryScan) -> Result<Option<Reading>, HistoryError> {
        Ok(None)
    }

    /// What [`History::group`] would read now; none if this history has no files.
    fn reading_of_groups(&self, _query: &AggregateQuery, _groups: Groups) -> Result<Option<Reading>, HistoryError> {
        Ok(None)
    }

    /// One of [`History::tables`].
    fn table(&self, entity_type: &Iri) -> Option<HistoryTable> {
        self.tables().into_iter().find(|t| t.entity_type == *entity_type)
    }

    /// Rolls up the days that are over at `now` and removes what is older than the policy says, as far as one pass goes. An engine that
    /// keeps all in memory has nothing to do. What was done is durable when the list of [`History::seal`] is.
    ///
    /// Errors: a file cannot be read or written, or the policy makes no sense; what was done before stays.
    fn maintain(&self, policy: &HistoryPolicy, _now: Instant) -> Result<Maintained, HistoryError> {
        policy.check()?;
        Ok(Maintained::default())
    }

    /// Reads a table, as batches of at most some 8,192 rows sorted by entity and observed time. Batches are made when they are asked for, so
    /// memory holds only a few; after an error there are none. The rows are those of the moment of this call, whatever is appended meanwhile.
    ///
    /// An engine has this or [`History::scan`]: each is made of the other.
    fn stream(&self, scan: &HistoryScan) -> Result<ScanStream, HistoryError> {
        Ok(Box::new(self.scan(scan)?.into_iter().map(Ok)))
    }

    /// The same with all batches in memory: for tests, and where the caller knows that there are few.
    fn scan(&self, scan: &HistoryScan) -> Result<Vec<RecordBatch>, HistoryError> {
        self.stream(scan)?.collect()
    }

    /// Ids of the entities of which anything is known in a table – those that have the type, and those that had it – as of a recorded time
    /// (none for now), in order; the first `max` of them.
    fn entity_ids(&self, entity_type: &Iri, as_of: Option<Instant>, max: usize) -> Result<Vec<Iri>, HistoryError> {
        let mut ids: BTreeSet<Iri> = BTreeSet::new();
        let mut add = |id: Iri| {
            ids.insert(id);
            if ids.len() > max {
                ids.pop_last();
            }
        };
        self.visit_marks(Marked::Type(entity_type), as_of, &mut |fact| add(fact.entity))?;
        let scan = HistoryScan { entity_type: entity_type.clone(), attributes: Vec::new(), entities: None, observed: None, as_of };
        let mut last = String::new();
        for batch in self.stream(&scan)? {
            for id in batch?.column(0).as_string::<i32>().iter().flatten() {
                if id == last {
                    continue;
                }
                last.clear();
                last.push_str(id);
                add(id.parse().map_err(|e: entity::IriError| HistoryError::Columnar {
                    entity_type: entity_type.clone(),
                    reason: format!("an entity is no IRI: {e}"),
                })?);
            }
        }
        Ok(ids.into_iter().collect())
    }

    /// The entities of a table that have values whose time is in an interval, as of a recorded time (none for now).
    ///
    /// Engines that know the times of their parts read only those that they must.
    fn entity_ids_within(
        &self,
        entity_type: &Iri,
        (property, interval): (TimeProperty, &Range<Instant>),
        as_of: Option<Instant>,
        max: usize,
    ) -> Result<Within, HistoryError> {
        let mut within = Within::new(max, property == TimeProperty::ObservedAt);
        self.visit_marks(Marked::Type(entity_type), as_of, &mut |fact| {
            if matches!(&fact.what, What::Became(about) if !about.is_at_home(entity_type)) {
                within.elsewhere.add(fact.entity);
            }
        })?;
        let columnar = |reason| HistoryError::Columnar { entity_type: entity_type.clone(), reason };
        let observed = (property == TimeProperty::ObservedAt).then(|| interval.clone());
        let scan = HistoryScan { entity_type: entity_type.clone(), attributes: Vec::new(), entities: None, observed, as_of };
        for batch in self.stream(&scan)? {
            let batch = batch?;
            let recorded = batch.column(3).as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
            for (id, recorded_us) in batch.column(0).as_string::<i32>().iter().zip(recorded.values()) {
                // What was recorded or created in the interval was not recorded before it.
                if property == TimeProperty::ObservedAt || *recorded_us >= interval.start.micros() {
                    within.here.add_text(id.unwrap_or_default()).map_err(columnar)?;
                }
            }
        }
        Ok(within)
    }

    /// How much the background work lags behind: 0 when it does not, from 1 on writers should be slowed down.
    fn pressure(&self) -> f32 {
        0.0
    }
}
