//! The tables of `pg_catalog` that depend on which tables there are.

use std::collections::HashSet;

use arrow::datatypes::{Field, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::error::Result;

use super::columns::Columns;
use super::directory::{INFORMATION_SCHEMA_OID, OWNER_OID, PG_CATALOG_OID, PUBLIC_OID, Relation, modifier_of, number, remark, type_of};

/// Access methods, as PostgreSQL numbers them.
const HEAP: i32 = 2;
const BTREE: i32 = 403;
/// The operator class for texts in a btree.
const TEXT_OPS: i16 = 3126;
/// The collation that is the default.
const DEFAULT_COLLATION: i16 = 100;
/// `text`, whose values have a collation.
const TEXT: i32 = 25;

/// A table or view of the catalogs themselves.
#[derive(Debug)]
pub(super) struct SystemRelation {
    pub(super) oid: i32,
    pub(super) name: String,
    pub(super) namespace: i32,
    pub(super) schema: SchemaRef,
}

impl SystemRelation {
    /// Those of the two schemas of the catalogs, numbered.
    pub(super) fn numbered(tables: Vec<(i32, String, SchemaRef)>) -> Vec<Self> {
        let mut taken: HashSet<i32> = HashSet::new();
        let numbered = |(namespace, name, schema): (i32, String, SchemaRef)| {
            let known = KNOWN_NUMBERS.iter().find(|(known, _)| namespace == PG_CATALOG_OID && *known == name).map(|(_, oid)| *oid);
            let oid = known.unwrap_or_else(|| number(&format!("system {namespace} {name}"), &mut taken));
            Self { oid, name, namespace, schema }
        };
        tables.into_iter().map(numbered).collect()
    }

    /// A table, not a view?
    pub(super) fn is_table(&self) -> bool {
        KNOWN_NUMBERS.iter().any(|(known, _)| self.namespace == PG_CATALOG_OID && *known == self.name)
    }

    pub(super) fn namespace_name(&self) -> &'static str {
        if self.namespace == PG_CATALOG_OID { "pg_catalog" } else { "information_schema" }
    }
}

/// Tables of `pg_catalog` whose numbers never change: clients and the rows of other tables know them.
/// Source: `src/include/catalog/*.h` of PostgreSQL 16.
pub(crate) const KNOWN_NUMBERS: [(&str, i32); 44] = [
    ("pg_aggregate", 2600),
    ("pg_am", 2601),
    ("pg_amop", 2602),
    ("pg_amproc", 2603),
    ("pg_attrdef", 2604),
    ("pg_attribute", 1249),
    ("pg_auth_members", 1261),
    ("pg_authid", 1260),
    ("pg_cast", 2605),
    ("pg_class", 1259),
    ("pg_collation", 3456),
    ("pg_constraint", 2606),
    ("pg_conversion", 2607),
    ("pg_database", 1262),
    ("pg_default_acl", 826),
    ("pg_depend", 2608),
    ("pg_description", 2609),
    ("pg_enum", 3501),
    ("pg_event_trigger", 3466),
    ("pg_extension", 3079),
    ("pg_foreign_data_wrapper", 2328),
    ("pg_foreign_server", 1417),
    ("pg_foreign_table", 3118),
    ("pg_index", 2610),
    ("pg_inherits", 2611),
    ("pg_language", 2612),
    ("pg_namespace", 2615),
    ("pg_opclass", 2616),
    ("pg_operator", 2617),
    ("pg_opfamily", 2753),
    ("pg_policy", 3256),
    ("pg_proc", 1255),
    ("pg_publication", 6104),
    ("pg_range", 3541),
    ("pg_rewrite", 2618),
    ("pg_sequence", 2224),
    ("pg_shdescription", 2396),
    ("pg_statistic", 2619),
    ("pg_statistic_ext", 3381),
    ("pg_subscription", 6100),
    ("pg_tablespace", 1213),
    ("pg_trigger", 2620),
    ("pg_ts_config", 3602),
    ("pg_type", 1247),
];

/// One row of `pg_class`.
struct Class<'a> {
    oid: i32,
    name: &'a str,
    namespace: i32,
    kind: &'static str,
    method: i32,
    n_columns: usize,
    has_index: bool,
}

pub(super) fn pg_class(tables: &[Relation], system: &[SystemRelation]) -> Result<RecordBatch> {
    let mut rows = Vec::new();
    for table in tables {
        let (name, n_columns) = (table.name.as_str(), table.schema.fields().len());
        let has_index = table.key.is_some();
        rows.push(Class { oid: table.oid, name, namespace: PUBLIC_OID, kind: "r", method: HEAP, n_columns, has_index });
        if let Some(key) = &table.key {
            let name = key.name.as_str();
            rows.push(Class { oid: key.index_oid, name, namespace: PUBLIC_OID, kind: "i", method: BTREE, n_columns: 1, has_index: false });
        }
    }
    for table in system {
        let kind = if table.is_table() { "r" } else { "v" };
        let (name, namespace) = (table.name.as_str(), table.namespace);
        let (method, n_columns) = (if kind == "r" { HEAP } else { 0 }, table.schema.fields().len());
        rows.push(Class { oid: table.oid, name, namespace, kind, method, n_columns, has_index: false });
    }
    Columns::new(rows.len())
        .oid("oid", rows.iter().map(|r| r.oid))
        .text("relname", rows.iter().map(|r| r.name))
        .oid("relnamespace", rows.iter().map(|r| r.namespace))
        .all_oid("reltype", 0)
        .all_oid("reloftype", 0)
        .all_oid("relowner", OWNER_OID)
        .oid("relam", rows.iter().map(|r| r.method))
        .oid("relfilenode", rows.iter().map(|r| r.oid))
        .all_oid("reltablespace", 0)
        .all_int("relpages", 0)
        // As for a table that was never analysed.
        .real("reltuples", rows.iter().map(|_| -1.0))
        .all_int("relallvisible", 0)
        .all_oid("reltoastrelid", 0)
        .flag("relhasindex", rows.iter().map(|r| r.has_index))
        .all_flag("relisshared", false)
        .all_text("relpersistence", "p")
        .text("relkind", rows.iter().map(|r| r.kind))
        .small("relnatts", rows.iter().map(|r| i16::try_from(r.n_columns).unwrap_or(i16::MAX)))
        .all_small("relchecks", 0)
        .all_flag("relhasrules", false)
        .all_flag("relhastriggers", false)
        .all_flag("relhassubclass", false)
        .all_flag("relrowsecurity", false)
        .all_flag("relforcerowsecurity", false)
        .all_flag("relispopulated", true)
        .all_text("relreplident", "d")
        .all_flag("relispartition", false)
        .all_oid("relrewrite", 0)
        .all_int("relfrozenxid", 0)
        .all_int("relminmxid", 0)
        .no_texts("relacl")
        .no_texts("reloptions")
        .no_text("relpartbound")
        .finish()
}

pub(super) fn pg_attribute(tables: &[Relation], system: &[SystemRelation]) -> Result<RecordBatch> {
    let mut rows: Vec<(i32, usize, &Field)> = Vec::new();
    for table in tables {
        rows.extend(table.schema.fields().iter().enumerate().map(|(i, field)| (table.oid, i + 1, field.as_ref())));
        if let Some(key) = &table.key {
            rows.push((key.index_oid, 1, table.schema.field(0)));
        }
    }
    for table in system {
        rows.extend(table.schema.fields().iter().enumerate().map(|(i, field)| (table.oid, i + 1, field.as_ref())));
    }
    let types: Vec<_> = rows.iter().map(|(_, _, field)| type_of(field)).collect();
    Columns::new(rows.len())
        .oid("attrelid", rows.iter().map(|r| r.0))
        .text("attname", rows.iter().map(|r| r.2.name()))
        .oid("atttypid", types.iter().map(|t| t.oid))
        .small("attlen", types.iter().map(|t| t.len))
        .small("attnum", rows.iter().map(|r| i16::try_from(r.1).unwrap_or(i16::MAX)))
        .all_int("attcacheoff", -1)
        .int("atttypmod", rows.iter().map(|r| modifier_of(r.2)))
        .small("attndims", types.iter().map(|t| i16::from(t.sql.ends_with("[]"))))
        .flag("attbyval", types.iter().map(|t| t.len > 0 && t.len <= 8))
        .text("attalign", types.iter().map(|t| if t.len == 8 { "d" } else { "i" }))
        .text("attstorage", types.iter().map(|t| if t.len < 0 { "x" } else { "p" }))
        .all_text("attcompression", "")
        .flag("attnotnull", rows.iter().map(|r| !r.2.is_nullable()))
        .all_flag("atthasdef", false)
        .all_flag("atthasmissing", false)
        .all_text("attidentity", "")
        .all_text("attgenerated", "")
        .all_flag("attisdropped", false)
        .all_flag("attislocal", true)
        .all_small("attinhcount", 0)
        .all_small("attstattarget", -1)
        .oid("attcollation", types.iter().map(|t| if t.oid == TEXT { i32::from(DEFAULT_COLLATION) } else { 0 }))
        .no_texts("attacl")
        .no_texts("attoptions")
        .no_texts("attfdwoptions")
        .no_text("attmissingval")
        .finish()
}

pub(super) fn pg_index(tables: &[Relation]) -> Result<RecordBatch> {
    let rows: Vec<_> = tables.iter().filter_map(|t| t.key.as_ref().map(|k| (t, k))).collect();
    Columns::new(rows.len())
        .oid("indexrelid", rows.iter().map(|(_, key)| key.index_oid))
        .oid("indrelid", rows.iter().map(|(table, _)| table.oid))
        .all_small("indnatts", 1)
        .all_small("indnkeyatts", 1)
        .all_flag("indisunique", true)
        .all_flag("indnullsnotdistinct", false)
        .all_flag("indisprimary", true)
        .all_flag("indisexclusion", false)
        .all_flag("indimmediate", true)
        .all_flag("indisclustered", false)
        .all_flag("indisvalid", true)
        .all_flag("indcheckxmin", false)
        .all_flag("indisready", true)
        .all_flag("indislive", true)
        .all_flag("indisreplident", false)
        .smalls("indkey", rows.iter().map(|_| Some([1])))
        .smalls("indcollation", rows.iter().map(|_| Some([DEFAULT_COLLATION])))
        .smalls("indclass", rows.iter().map(|_| Some([TEXT_OPS])))
        .smalls("indoption", rows.iter().map(|_| Some([0])))
        .no_text("indexprs")
        .no_text("indpred")
        .finish()
}

pub(super) fn pg_constraint(tables: &[Relation]) -> Result<RecordBatch> {
    let rows: Vec<_> = tables.iter().filter_map(|t| t.key.as_ref().map(|k| (t, k))).collect();
    Columns::new(rows.len())
        .oid("oid", rows.iter().map(|(_, key)| key.constraint_oid))
        .text("conname", rows.iter().map(|(_, key)| &key.name))
        .all_oid("connamespace", PUBLIC_OID)
        .all_text("contype", "p")
        .all_flag("condeferrable", false)
        .all_flag("condeferred", false)
        .all_flag("convalidated", true)
        .oid("conrelid", rows.iter().map(|(table, _)| table.oid))
        .all_oid("contypid", 0)
        .oid("conindid", rows.iter().map(|(_, key)| key.index_oid))
        .all_oid("conparentid", 0)
        .all_oid("confrelid", 0)
        .all_text("confupdtype", " ")
        .all_text("confdeltype", " ")
        .all_text("confmatchtype", " ")
        .all_flag("conislocal", true)
        .all_small("coninhcount", 0)
        .all_flag("connoinherit", true)
        .smalls("conkey", rows.iter().map(|_| Some([1])))
        .smalls::<[i16; 0]>("confkey", rows.iter().map(|_| None))
        .smalls::<[i16; 0]>("conpfeqop", rows.iter().map(|_| None))
        .smalls::<[i16; 0]>("conppeqop", rows.iter().map(|_| None))
        .smalls::<[i16; 0]>("conffeqop", rows.iter().map(|_| None))
        .smalls::<[i16; 0]>("confdelsetcols", rows.iter().map(|_| None))
        .smalls::<[i16; 0]>("conexclop", rows.iter().map(|_| None))
        .no_text("conbin")
        .finish()
}

/// What is remarked upon tables and columns: their IRIs, and the units of columns.
pub(super) fn pg_description(tables: &[Relation]) -> Result<RecordBatch> {
    let mut rows = Vec::new();
    for table in tables {
        rows.push((table.oid, 0, table.about.clone()));
        for (i, field) in table.schema.fields().iter().enumerate() {
            rows.extend(remark(field).map(|text| (table.oid, i32::try_from(i + 1).unwrap_or(i32::MAX), text)));
        }
    }
    Columns::new(rows.len())
        .oid("objoid", rows.iter().map(|r| r.0))
        .all_oid("classoid", 1259)
        .int("objsubid", rows.iter().map(|r| r.1))
        .text("description", rows.iter().map(|r| &r.2))
        .finish()
}

pub(super) fn pg_tables(tables: &[Relation], owner: &str) -> Result<RecordBatch> {
    Columns::new(tables.len())
        .all_text("schemaname", "public")
        .text("tablename", tables.iter().map(|t| &t.name))
        .all_text("tableowner", owner)
        .no_text("tablespace")
        .flag("hasindexes", tables.iter().map(|t| t.key.is_some()))
        .all_flag("hasrules", false)
        .all_flag("hastriggers", false)
        .all_flag("rowsecurity", false)
        .finish()
}

pub(super) fn pg_indexes(tables: &[Relation]) -> Result<RecordBatch> {
    let rows: Vec<_> = tables.iter().filter_map(|t| t.key.as_ref().map(|k| (t, k))).collect();
    Columns::new(rows.len())
        .all_text("schemaname", "public")
        .text("tablename", rows.iter().map(|(table, _)| &table.name))
        .text("indexname", rows.iter().map(|(_, key)| &key.name))
        .no_text("tablespace")
        .text("indexdef", rows.iter().map(|(table, _)| index_definition(table)))
        .finish()
}

/// The statement that would make the index of a table's key.
pub(super) fn index_definition(table: &Relation) -> String {
    let index = table.key.as_ref().map_or("", |k| &k.name);
    format!("CREATE UNIQUE INDEX \"{index}\" ON public.\"{}\" USING btree (id)", table.name)
}

/// Scans, and so on, are not counted: there are no numbers.
pub(super) fn pg_stat_user_tables(tables: &[Relation]) -> Result<RecordBatch> {
    let columns = Columns::new(tables.len())
        .oid("relid", tables.iter().map(|t| t.oid))
        .all_text("schemaname", "public")
        .text("relname", tables.iter().map(|t| &t.name));
    ["seq_scan", "seq_tup_read", "idx_scan", "idx_tup_fetch", "n_tup_ins", "n_tup_upd", "n_tup_del", "n_live_tup", "n_dead_tup"]
        .into_iter()
        .fold(columns, |columns, name| columns.long(name, tables.iter().map(|_| None)))
        .finish()
}

pub(super) fn geometry_columns(tables: &[Relation], on_earth: bool) -> Result<RecordBatch> {
    let wanted = if on_earth { super::directory::GEOGRAPHY_OID } else { super::directory::GEOMETRY_OID };
    let mut rows = Vec::new();
    for table in tables {
        rows.extend(table.schema.fields().iter().filter(|f| type_of(f).oid == wanted).map(|f| (table, f)));
    }
    Columns::new(rows.len())
        .all_text("f_table_catalog", crate::engine::CATALOG)
        .all_text("f_table_schema", "public")
        .text("f_table_name", rows.iter().map(|(table, _)| &table.name))
        .text(if on_earth { "f_geography_column" } else { "f_geometry_column" }, rows.iter().map(|(_, field)| field.name()))
        .all_int("coord_dimension", 2)
        .int("srid", rows.iter().map(|(_, field)| modifier_of(field).max(0) >> 8))
        .all_text("type", "GEOMETRY")
        .finish()
}

pub(super) fn pg_namespace() -> Result<RecordBatch> {
    let rows = [(PG_CATALOG_OID, "pg_catalog"), (PUBLIC_OID, "public"), (INFORMATION_SCHEMA_OID, "information_schema")];
    Columns::new(rows.len())
        .oid("oid", rows.iter().map(|r| r.0))
        .text("nspname", rows.iter().map(|r| r.1))
        .all_oid("nspowner", OWNER_OID)
        .no_texts("nspacl")
        .finish()
}
