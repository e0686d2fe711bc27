//! What the catalogs show: the tables of `public` with their columns, a little out of date, and numbers for everything.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::datatypes::{DataType, Field, SchemaRef, TimeUnit};
use tokio::time::Instant;

use super::Tables;
use crate::engine::CATALOG;
use crate::geometry::Reference;

/// How long what the catalogs show may be out of date. Describing a table takes a dozen statements that each ask for the columns of every
/// table, and finding those out means looking at every entity.
const LISTING_AGE_MAX: Duration = Duration::from_secs(2);

/// The schema of PostgreSQL's own tables.
pub(super) const PG_CATALOG_OID: i32 = 11;
/// The schema of the tables.
pub(super) const PUBLIC_OID: i32 = 2200;
/// The schema of the standard's catalogs.
pub(super) const INFORMATION_SCHEMA_OID: i32 = 13_283;
/// The only database.
pub(super) const DATABASE_OID: i32 = 16_384;
/// The role that owns everything, and the one that is logged in.
pub(super) const OWNER_OID: i32 = 10;

/// The number of the type `geometry`. PostGIS has another one in each database; clients ask `pg_type` for it, or know the type by its name.
pub(crate) const GEOMETRY_OID: i32 = 90_001;
/// The number of the type `geography`.
pub(crate) const GEOGRAPHY_OID: i32 = 90_003;

/// The number of a role.
pub(super) fn role_number(name: &str) -> i32 {
    if name == CATALOG { OWNER_OID } else { OWNER_OID + 1 }
}

/// A table of `public`.
#[derive(Debug)]
pub(super) struct Relation {
    pub(super) oid: i32,
    pub(super) name: String,
    /// Of what is remarked upon it.
    pub(super) about: String,
    pub(super) schema: SchemaRef,
    /// The index of its primary key, if it has one: on its first column, `id`.
    pub(super) key: Option<Key>,
}

/// A primary key.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: String,
    /// The number of its index.
    pub(super) index_oid: i32,
    /// The number of its constraint.
    pub(super) constraint_oid: i32,
}

/// The tables of `public` at one moment.
pub(super) type Snapshot = Arc<Vec<Relation>>;

/// Finds out which tables there are, and remembers it for a moment.
pub(crate) struct Directory {
    tables: Arc<Tables>,
    seen: Mutex<Option<(Instant, Snapshot)>>,
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Directory").finish_non_exhaustive()
    }
}

impl Directory {
    pub(crate) fn new(tables: Arc<Tables>) -> Self {
        Self { tables, seen: Mutex::default() }
    }

    /// The tables now. Cost, unless it was asked a moment ago: looks at every entity.
    pub(super) fn snapshot(&self) -> Snapshot {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, snapshot)) = &*seen
            && at.elapsed() < LISTING_AGE_MAX
        {
            return snapshot.clone();
        }
        let mut taken = HashSet::new();
        let mut relations = Vec::new();
        for (name, entity_type, is_history, schema) in self.tables.described_all() {
            let key = (!is_history).then(|| Key {
                name: format!("{name}_pkey"),
                index_oid: number(&format!("index {name}"), &mut taken),
                constraint_oid: number(&format!("constraint {name}"), &mut taken),
            });
            let what = if is_history { "history of the entities of type" } else { "entities of type" };
            let oid = number(&format!("table {name}"), &mut taken);
            relations.push(Relation { oid, name, about: format!("{what} {entity_type}"), schema, key });
        }
        let snapshot = Arc::new(relations);
        *seen = Some((Instant::now(), snapshot.clone()));
        snapshot
    }

    /// The same on a thread that may wait.
    pub(super) async fn snapshot_aside(self: &Arc<Self>) -> Snapshot {
        let directory = self.clone();
        tokio::task::spawn_blocking(move || directory.snapshot()).await.unwrap_or_default()
    }
}

/// A number for an object: the same in every session and at every start, so that what a client remembers stays true.
pub(super) fn number(what: &str, taken: &mut HashSet<i32>) -> i32 {
    // FNV-1a. Above everything that PostgreSQL numbers itself, below what does not fit a signed number.
    let hash = what.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let mut number = i32::try_from(hash & 0x3fff_ffff | 0x4000_0000).unwrap_or(i32::MAX);
    while !taken.insert(number) {
        number = 0x4000_0000 | (number.wrapping_add(1) & 0x3fff_ffff);
    }
    number
}

/// A type as the catalogs and the wire know it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TypeInfo {
    pub(crate) oid: i32,
    /// In `pg_type`.
    pub(crate) name: &'static str,
    /// As SQL writes it.
    pub(crate) sql: &'static str,
    /// In bytes, -1 if it varies.
    pub(crate) len: i16,
}

/// The type of a column.
pub(crate) fn type_of(field: &Field) -> TypeInfo {
    let of = |oid, name, sql, len| TypeInfo { oid, name, sql, len };
    if let Some(reference) = Reference::of(field) {
        return if reference.on_earth {
            of(GEOGRAPHY_OID, "geography", "geography", -1)
        } else {
            of(GEOMETRY_OID, "geometry", "geometry", -1)
        };
    }
    match field.data_type() {
        DataType::Boolean => of(16, "bool", "boolean", 1),
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => of(21, "int2", "smallint", 2),
        DataType::Int32 | DataType::UInt16 => of(23, "int4", "integer", 4),
        DataType::Int64 | DataType::UInt32 => of(20, "int8", "bigint", 8),
        DataType::Float16 | DataType::Float32 => of(700, "float4", "real", 4),
        DataType::Float64 => of(701, "float8", "double precision", 8),
        DataType::Decimal128(..) | DataType::UInt64 => of(1700, "numeric", "numeric", -1),
        DataType::Date32 | DataType::Date64 => of(1082, "date", "date", 4),
        DataType::Timestamp(TimeUnit::Second | TimeUnit::Millisecond | TimeUnit::Microsecond | TimeUnit::Nanosecond, Some(_)) => {
            of(1184, "timestamptz", "timestamp with time zone", 8)
        }
        DataType::Timestamp(..) => of(1114, "timestamp", "timestamp without time zone", 8),
        DataType::Time32(_) | DataType::Time64(_) => of(1083, "time", "time without time zone", 8),
        DataType::Interval(_) | DataType::Duration(_) => of(1186, "interval", "interval", 16),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => of(17, "bytea", "bytea", -1),
        DataType::List(item) if item.data_type() == &DataType::Int16 => of(1005, "_int2", "smallint[]", -1),
        DataType::List(item) if item.data_type() == &DataType::Int32 => of(1007, "_int4", "integer[]", -1),
        DataType::List(_) => of(1009, "_text", "text[]", -1),
        _ => of(25, "text", "text", -1),
    }
}

/// What a geometry's column may hold, as PostGIS packs it into a number: the reference system, and any kind of geometry.
pub(super) fn modifier_of(field: &Field) -> i32 {
    Reference::of(field).map_or(-1, |r| if r.srid == 0 { -1 } else { r.srid << 8 })
}

/// What is remarked upon a column: its unit and its full name.
pub(super) fn remark(field: &Field) -> Option<String> {
    let of = |key: &str| field.metadata().get(key);
    match (of("unit_code"), of("iri")) {
        (Some(unit), Some(iri)) => Some(format!("unit {unit}; {iri}")),
        (Some(unit), None) => Some(format!("unit {unit}")),
        (None, iri) => iri.cloned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_always_the_same_and_never_used_twice() {
        let mut taken = HashSet::new();
        let first = number("table Road", &mut taken);
        assert_eq!(first, number("table Road", &mut HashSet::new()));
        assert_ne!(first, number("table Road", &mut taken));
        assert!(first > 90_003);
    }

    #[test]
    fn a_column_of_places_is_a_geometry_with_its_reference_system() {
        let field = Reference { srid: 4326, on_earth: false }.field("location");
        assert_eq!((type_of(&field).oid, modifier_of(&field)), (GEOMETRY_OID, 4326 << 8));
        let field = Field::new("bytes", DataType::Binary, true);
        assert_eq!((type_of(&field).name, modifier_of(&field)), ("bytea", -1));
    }
}
