//! The schemas `pg_catalog` and `information_schema`.
//!
//! What is the same in every PostgreSQL – types, operators, functions – comes from the protocol crate's tables; what depends on the tables of
//! this city is found out when a statement is executed. Of what there is none of – triggers, policies, sequences – the tables are empty.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

use arrow::array::{ArrayRef, AsArray, BooleanArray, new_null_array};
use arrow::compute::{cast, concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Field, Int32Type, SchemaRef};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::catalog::{CatalogProviderList, MemTable, MemoryCatalogProviderList, SchemaProvider, TableProvider};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, SessionState, TaskContext};
use datafusion::logical_expr::Signature;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::context::EmptyContextProvider;
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::{
    PG_CATALOG_TABLES, PgCatalogSchemaProvider, PgCatalogStaticTables, PgCatalogTable,
};

use super::columns::Columns;
use super::directory::{
    DATABASE_OID, Directory, GEOGRAPHY_OID, GEOMETRY_OID, INFORMATION_SCHEMA_OID, OWNER_OID, PG_CATALOG_OID, PUBLIC_OID, Relation, number,
    type_of,
};
pub(crate) use super::relations::KNOWN_NUMBERS;
use super::relations::{self, SystemRelation};
use super::{Activities, activity, information, spatial};
use crate::engine::CATALOG;
use crate::parameters::{PARAMETERS, Parameters};

/// Tables of things that a node has none of. Statements over them are simplified: see [`crate::dialect`].
pub(crate) const EMPTY_TABLES: [&str; 45] = [
    "pg_attrdef",
    "pg_auth_members",
    // Texts are compared byte by byte, and in no other way.
    "pg_collation",
    "pg_db_role_setting",
    "pg_default_acl",
    "pg_depend",
    "pg_enum",
    "pg_event_trigger",
    "pg_extension",
    "pg_foreign_data_wrapper",
    "pg_foreign_server",
    "pg_foreign_table",
    "pg_inherits",
    "pg_init_privs",
    "pg_largeobject",
    "pg_largeobject_metadata",
    "pg_matviews",
    "pg_partitioned_table",
    "pg_policy",
    "pg_publication",
    "pg_publication_namespace",
    "pg_publication_rel",
    "pg_replication_origin",
    "pg_replication_slots",
    "pg_rewrite",
    "pg_seclabel",
    "pg_sequence",
    "pg_shdepend",
    "pg_shdescription",
    "pg_shseclabel",
    "pg_stat_gssapi",
    "pg_statistic",
    "pg_statistic_ext",
    "pg_statistic_ext_data",
    "pg_subscription",
    "pg_subscription_rel",
    "pg_trigger",
    "pg_ts_config",
    "pg_ts_dict",
    "pg_ts_parser",
    "pg_ts_template",
    "pg_user_mapping",
    "pg_views",
    "pg_conversion",
    "pg_amproc",
];

/// Tables of `pg_catalog` that are put together here.
pub(crate) const OWN_TABLES: [&str; 22] = [
    "geography_columns",
    "geometry_columns",
    "pg_attribute",
    "pg_authid",
    "pg_class",
    "pg_constraint",
    "pg_database",
    "pg_description",
    "pg_group",
    "pg_index",
    "pg_indexes",
    "pg_locks",
    "pg_namespace",
    "pg_prepared_xacts",
    "pg_roles",
    "pg_settings",
    "pg_stat_activity",
    "pg_stat_database",
    "pg_stat_user_tables",
    "pg_tables",
    "pg_user",
    "spatial_ref_sys",
];

/// A function as `pg_proc` shows it.
struct Listed {
    name: String,
    /// `f` function, `a` aggregate, `w` window function.
    kind: &'static str,
    arguments: Vec<i32>,
    result: i32,
}

/// What the catalogs of all sessions share.
#[derive(Debug)]
pub(crate) struct Statics {
    tables: HashMap<&'static str, RecordBatch>,
    /// Of functions: their arguments and their result, in words.
    pub(super) signatures: HashMap<i32, (String, String)>,
    /// Of types: their names in SQL.
    pub(super) type_names: HashMap<i32, String>,
    pub(super) system: Vec<SystemRelation>,
}

impl Statics {
    /// `state` is that of a session without tables, with all its functions.
    pub(crate) fn new(state: &SessionState) -> Result<Self> {
        let nobody: Arc<dyn CatalogProviderList> = Arc::new(MemoryCatalogProviderList::new());
        let given = PgCatalogSchemaProvider::try_new(nobody, Arc::new(PgCatalogStaticTables::try_new()?), EmptyContextProvider)?;
        let mut tables = HashMap::new();
        for &name in PG_CATALOG_TABLES.iter().filter(|name| **name == "pg_description" || !OWN_TABLES.contains(name)) {
            let batch = match given.build_table_by_name(name)? {
                Some(PgCatalogTable::Static(table)) => concat_batches(&table.schema(), table.data())?,
                Some(other) => RecordBatch::new_empty(other.schema()),
                None => continue,
            };
            tables.insert(name, without_grants(&if EMPTY_TABLES.contains(&name) { batch.slice(0, 0) } else { batch })?);
        }
        let append = |tables: &mut HashMap<&'static str, RecordBatch>, name: &'static str, more: RecordBatch| -> Result<()> {
            if let Some(batch) = tables.get_mut(name) {
                *batch = appended(batch, &more)?;
            }
            Ok(())
        };
        // The domains and views of the standard's catalogs are not there as types.
        if let Some(types) = tables.get_mut("pg_type")
            && let Some(namespaces) = types.column_by_name("typnamespace")
        {
            let own: BooleanArray = namespaces.as_primitive::<Int32Type>().iter().map(|n| Some(n == Some(PG_CATALOG_OID))).collect();
            *types = filter_record_batch(types, &own)?;
        }
        append(&mut tables, "pg_type", spatial::types()?)?;
        let type_names = type_names(&tables["pg_type"]);
        let listed = functions(state, &tables["pg_proc"]);
        append(&mut tables, "pg_proc", procedures(&listed)?)?;
        let signatures = signatures(&tables["pg_proc"], &type_names);

        let mut statics = Self { tables, signatures, type_names, system: Vec::new() };
        let mut named: Vec<(i32, String, SchemaRef)> = Vec::new();
        let names: BTreeSet<&str> = statics.tables.keys().copied().chain(OWN_TABLES).collect();
        for name in names {
            named.push((PG_CATALOG_OID, name.to_owned(), statics.pg_catalog(name, &[], "", &Parameters::default())?.schema()));
        }
        for name in information::VIEWS {
            if let Some(view) = information::view(name, &[], &[], "") {
                named.push((INFORMATION_SCHEMA_OID, name.to_owned(), view?.schema()));
            }
        }
        statics.system = SystemRelation::numbered(named);
        Ok(statics)
    }

    /// The number of a type by its name in `pg_type`.
    pub(super) fn type_named(&self, name: &str) -> Option<i32> {
        let pg_type = &self.tables["pg_type"];
        let (oids, names) = (pg_type.column_by_name("oid")?, pg_type.column_by_name("typname")?);
        let at = names.as_string::<i32>().iter().position(|n| n == Some(name))?;
        Some(oids.as_primitive::<Int32Type>().value(at))
    }

    /// A table of `pg_catalog`.
    fn pg_catalog(&self, name: &str, tables: &[Relation], principal: &str, parameters: &Parameters) -> Result<RecordBatch> {
        match name {
            "geography_columns" => relations::geometry_columns(tables, true),
            "geometry_columns" => relations::geometry_columns(tables, false),
            "spatial_ref_sys" => spatial::reference_systems(),
            "pg_attribute" => relations::pg_attribute(tables, &self.system),
            "pg_class" => relations::pg_class(tables, &self.system),
            "pg_constraint" => relations::pg_constraint(tables),
            "pg_database" => pg_database(),
            "pg_description" => appended(&self.tables["pg_description"], &relations::pg_description(tables)?),
            "pg_index" => relations::pg_index(tables),
            "pg_indexes" => relations::pg_indexes(tables),
            "pg_namespace" => relations::pg_namespace(),
            "pg_authid" | "pg_roles" => pg_roles(principal),
            "pg_group" => Columns::new(0).no_text("groname").no_int("grosysid").no_texts("grolist").finish(),
            "pg_user" => pg_user(principal),
            "pg_settings" => pg_settings(parameters),
            "pg_locks" => activity::pg_locks(),
            "pg_prepared_xacts" => activity::pg_prepared_xacts(),
            "pg_stat_database" => activity::pg_stat_database(),
            "pg_stat_activity" => activity::pg_stat_activity(&[]),
            "pg_stat_user_tables" => relations::pg_stat_user_tables(tables),
            "pg_tables" => relations::pg_tables(tables, CATALOG),
            other => Ok(self.tables[other].clone()),
        }
    }
}

/// Grants, which there are none of, as the lists that they are and not as texts.
fn without_grants(table: &RecordBatch) -> Result<RecordBatch> {
    let list = DataType::List(Arc::new(Field::new("item", DataType::Utf8, true)));
    let schema = table.schema();
    let (fields, columns): (Vec<Field>, Vec<ArrayRef>) = (schema.fields().iter().zip(table.columns()))
        .map(|(field, column)| match field.name().ends_with("acl") && field.data_type() == &DataType::Utf8 {
            true => (Field::new(field.name(), list.clone(), true), new_null_array(&list, table.num_rows())),
            false => (field.as_ref().clone(), column.clone()),
        })
        .unzip();
    Ok(RecordBatch::try_new(Arc::new(arrow::datatypes::Schema::new(fields)), columns)?)
}

/// More rows for a table: columns that the rows do not have are null.
fn appended(table: &RecordBatch, more: &RecordBatch) -> Result<RecordBatch> {
    let column = |field: &Arc<Field>| -> Result<ArrayRef> {
        Ok(match more.column_by_name(field.name()) {
            Some(values) => cast(values, field.data_type())?,
            None => new_null_array(field.data_type(), more.num_rows()),
        })
    };
    let columns = table.schema().fields().iter().map(column).collect::<Result<Vec<_>>>()?;
    let fields: Vec<_> = table.schema().fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
    let schema = Arc::new(arrow::datatypes::Schema::new(fields));
    let table = RecordBatch::try_new(schema.clone(), table.columns().to_vec())?;
    let more = RecordBatch::try_new(schema.clone(), columns)?;
    Ok(concat_batches(&schema, [&table, &more])?)
}

/// The names of types as SQL writes them.
fn type_names(pg_type: &RecordBatch) -> HashMap<i32, String> {
    const WORDS: [(&str, &str); 15] = [
        ("bool", "boolean"),
        ("bpchar", "character"),
        ("char", "\"char\""),
        ("float4", "real"),
        ("float8", "double precision"),
        ("int2", "smallint"),
        ("int4", "integer"),
        ("int8", "bigint"),
        ("time", "time without time zone"),
        ("timetz", "time with time zone"),
        ("timestamp", "timestamp without time zone"),
        ("timestamptz", "timestamp with time zone"),
        ("varbit", "bit varying"),
        ("varchar", "character varying"),
        ("any", "\"any\""),
    ];
    let word = |name: &str| WORDS.iter().find(|(short, _)| *short == name).map_or_else(|| name.to_owned(), |(_, word)| (*word).to_owned());
    let (Some(oids), Some(names), Some(items), Some(categories)) = (
        pg_type.column_by_name("oid"),
        pg_type.column_by_name("typname"),
        pg_type.column_by_name("typelem"),
        pg_type.column_by_name("typcategory"),
    ) else {
        return HashMap::new();
    };
    let (oids, items) = (oids.as_primitive::<Int32Type>(), items.as_primitive::<Int32Type>());
    let (names, categories) = (names.as_string::<i32>(), categories.as_string::<i32>());
    let plain: HashMap<i32, String> = (0..oids.len()).map(|i| (oids.value(i), word(names.value(i)))).collect();
    let mut all = plain.clone();
    for i in (0..oids.len()).filter(|&i| categories.value(i) == "A") {
        if let Some(item) = plain.get(&items.value(i)) {
            all.insert(oids.value(i), format!("{item}[]"));
        }
    }
    all
}

/// The functions of the engine that PostgreSQL itself does not have.
fn functions(state: &SessionState, pg_proc: &RecordBatch) -> Vec<Listed> {
    let known: BTreeSet<&str> = match pg_proc.column_by_name("proname") {
        Some(names) => names.as_string::<i32>().iter().flatten().collect(),
        None => BTreeSet::new(),
    };
    let is_ours = |name: &str| !known.contains(name) && !name.starts_with("__");
    // The first way to call it that its signature gives; functions that look at their arguments themselves give none.
    let list = |name: &str, kind: &'static str, signature: &Signature, result: &dyn Fn(&[DataType]) -> Result<DataType>| {
        let arguments = signature.type_signature.get_example_types().into_iter().next().unwrap_or_default();
        // Without arguments some look at the first one all the same.
        let result = if arguments.is_empty() { ANY } else { result(&arguments).map_or(ANY, |t| oid_of(&t)) };
        Listed { name: name.to_owned(), kind, arguments: arguments.iter().map(oid_of).collect(), result }
    };
    let mut listed = Vec::new();
    for (name, f) in state.scalar_functions().iter().filter(|(name, _)| is_ours(name)) {
        listed.push(match crate::geometry::signature_of(name) {
            Some((arguments, result)) => Listed { name: name.clone(), kind: "f", arguments, result },
            None => list(name, "f", f.signature(), &|types| f.return_type(types)),
        });
    }
    for (name, f) in state.aggregate_functions().iter().filter(|(name, _)| is_ours(name)) {
        listed.push(list(name, "a", f.signature(), &|types| f.return_type(types)));
    }
    for (name, f) in state.window_functions().iter().filter(|(name, _)| is_ours(name)) {
        listed.push(list(name, "w", f.signature(), &|_| datafusion::common::not_impl_err!("is not said by a window function")));
    }
    listed.sort_by(|a, b| (&a.name, a.kind).cmp(&(&b.name, b.kind)));
    listed.dedup_by(|a, b| a.name == b.name);
    listed
}

/// Any type.
const ANY: i32 = 2276;

fn oid_of(data_type: &DataType) -> i32 {
    type_of(&Field::new("", data_type.clone(), true)).oid
}

/// Our functions as rows of `pg_proc`.
fn procedures(listed: &[Listed]) -> Result<RecordBatch> {
    let mut taken = std::collections::HashSet::new();
    let text = |oids: &[i32]| oids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    Columns::new(listed.len())
        .oid("oid", listed.iter().map(|f| number(&format!("function {}", f.name), &mut taken)))
        .text("proname", listed.iter().map(|f| &f.name))
        .all_oid("pronamespace", PUBLIC_OID)
        .all_oid("proowner", OWNER_OID)
        .all_oid("prolang", 12)
        .all_int("procost", 1)
        .all_int("prorows", 0)
        .all_oid("provariadic", 0)
        .all_text("prosupport", "-")
        .text("prokind", listed.iter().map(|f| f.kind))
        .all_flag("prosecdef", false)
        .all_flag("proleakproof", false)
        .all_flag("proisstrict", false)
        .all_flag("proretset", false)
        .all_text("provolatile", "i")
        .all_text("proparallel", "s")
        .small("pronargs", listed.iter().map(|f| i16::try_from(f.arguments.len()).unwrap_or(i16::MAX)))
        .all_small("pronargdefaults", 0)
        .oid("prorettype", listed.iter().map(|f| f.result))
        .text("proargtypes", listed.iter().map(|f| text(&f.arguments)))
        .text("prosrc", listed.iter().map(|f| &f.name))
        .finish()
}

/// The arguments and the result of each function, in words.
fn signatures(pg_proc: &RecordBatch, type_names: &HashMap<i32, String>) -> HashMap<i32, (String, String)> {
    let (Some(oids), Some(arguments), Some(results)) =
        (pg_proc.column_by_name("oid"), pg_proc.column_by_name("proargtypes"), pg_proc.column_by_name("prorettype"))
    else {
        return HashMap::new();
    };
    let (oids, results) = (oids.as_primitive::<Int32Type>(), results.as_primitive::<Int32Type>());
    let Some(arguments) = arguments.as_string_opt::<i32>() else { return HashMap::new() };
    let word = |oid: i32| type_names.get(&oid).map_or("\"any\"", String::as_str);
    let row = |i: usize| {
        let of = arguments.value(i).split_whitespace().filter_map(|t| t.parse().ok()).map(word).collect::<Vec<_>>().join(", ");
        (oids.value(i), (of, word(results.value(i)).to_owned()))
    };
    (0..pg_proc.num_rows()).map(row).collect()
}

fn pg_database() -> Result<RecordBatch> {
    Columns::new(1)
        .all_oid("oid", DATABASE_OID)
        .all_text("datname", CATALOG)
        .all_oid("datdba", OWNER_OID)
        .all_int("encoding", 6)
        .all_text("datlocprovider", "c")
        .all_flag("datistemplate", false)
        .all_flag("datallowconn", true)
        .all_int("datconnlimit", -1)
        .all_int("datfrozenxid", 0)
        .all_int("datminmxid", 0)
        .all_oid("dattablespace", 1663)
        .all_text("datcollate", "C")
        .all_text("datctype", "C.UTF-8")
        .no_text("daticulocale")
        .no_text("daticurules")
        .no_text("datcollversion")
        .no_texts("datacl")
        .finish()
}

/// Roles: the owner of everything, and who is logged in.
fn roles(principal: &str) -> Vec<(i32, &str)> {
    let owner = std::iter::once((OWNER_OID, CATALOG));
    owner.chain((principal != CATALOG && !principal.is_empty()).then_some((OWNER_OID + 1, principal))).collect()
}

fn pg_roles(principal: &str) -> Result<RecordBatch> {
    let rows = roles(principal);
    Columns::new(rows.len())
        .text("rolname", rows.iter().map(|r| r.1))
        .all_flag("rolsuper", false)
        .all_flag("rolinherit", true)
        .all_flag("rolcreaterole", false)
        .all_flag("rolcreatedb", false)
        .all_flag("rolcanlogin", true)
        .all_flag("rolreplication", false)
        .all_int("rolconnlimit", -1)
        .all_text("rolpassword", "********")
        .no_text("rolvaliduntil")
        .all_flag("rolbypassrls", false)
        .no_texts("rolconfig")
        .oid("oid", rows.iter().map(|r| r.0))
        .finish()
}

fn pg_user(principal: &str) -> Result<RecordBatch> {
    let rows = roles(principal);
    Columns::new(rows.len())
        .text("usename", rows.iter().map(|r| r.1))
        .oid("usesysid", rows.iter().map(|r| r.0))
        .all_flag("usecreatedb", false)
        .all_flag("usesuper", false)
        .all_flag("userepl", false)
        .all_flag("usebypassrls", false)
        .all_text("passwd", "********")
        .no_text("valuntil")
        .no_texts("useconfig")
        .finish()
}

fn pg_settings(parameters: &Parameters) -> Result<RecordBatch> {
    let rows: Vec<_> = PARAMETERS.iter().map(|p| (p, parameters.get(p.name).unwrap_or_default())).collect();
    Columns::new(rows.len())
        .text("name", rows.iter().map(|r| r.0.name))
        .text("setting", rows.iter().map(|r| &r.1))
        .no_text("unit")
        .text("category", rows.iter().map(|r| if r.0.settable { "Client Connection Defaults" } else { "Preset Options" }))
        .text("short_desc", rows.iter().map(|r| r.0.about))
        .no_text("extra_desc")
        .text("context", rows.iter().map(|r| if r.0.settable { "user" } else { "internal" }))
        .all_text("vartype", "string")
        .text("source", rows.iter().map(|r| if r.1 == r.0.default { "default" } else { "session" }))
        .no_text("min_val")
        .no_text("max_val")
        .no_texts("enumvals")
        .text("boot_val", rows.iter().map(|r| r.0.default))
        .text("reset_val", rows.iter().map(|r| r.0.default))
        .no_text("sourcefile")
        .no_int("sourceline")
        .all_flag("pending_restart", false)
        .finish()
}

/// One of the two schemas, for one session.
#[derive(Clone, Debug)]
pub(crate) struct SystemSchema {
    pub(crate) is_information_schema: bool,
    pub(crate) statics: Arc<Statics>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) parameters: Parameters,
    pub(crate) principal: String,
    /// The sessions of the server, if it is one that has some.
    pub(crate) sessions: Arc<OnceLock<Arc<dyn Activities>>>,
}

impl SystemSchema {
    fn namespace(&self) -> i32 {
        if self.is_information_schema { INFORMATION_SCHEMA_OID } else { PG_CATALOG_OID }
    }

    fn find(&self, name: &str) -> Option<&SystemRelation> {
        self.statics.system.iter().find(|t| t.namespace == self.namespace() && t.name == name)
    }

    async fn rows(self, name: String) -> Result<RecordBatch> {
        if !self.is_information_schema && name == "pg_stat_activity" {
            return activity::pg_stat_activity(&self.sessions.get().map(|s| s.visible()).unwrap_or_default());
        }
        let tables = self.directory.snapshot_aside().await;
        if self.is_information_schema {
            let view = information::view(&name, &tables, &self.statics.system, &self.principal);
            return view.unwrap_or_else(|| datafusion::common::internal_err!("no view {name}"));
        }
        self.statics.pg_catalog(&name, &tables, &self.principal, &self.parameters)
    }
}

#[async_trait]
impl SchemaProvider for SystemSchema {
    fn table_names(&self) -> Vec<String> {
        self.statics.system.iter().filter(|t| t.namespace == self.namespace()).map(|t| t.name.clone()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let Some(relation) = self.find(name) else { return Ok(None) };
        let schema = relation.schema.clone();
        if !self.is_information_schema
            && !OWN_TABLES.contains(&name)
            && let Some(batch) = self.statics.tables.get(name)
        {
            return Ok(Some(Arc::new(MemTable::try_new(schema, vec![vec![batch.clone()]])?)));
        }
        let listing = Listing { schema: schema.clone(), of: self.clone(), name: name.to_owned() };
        Ok(Some(Arc::new(StreamingTable::try_new(schema, vec![Arc::new(listing)])?)))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.find(name).is_some()
    }
}

/// A table whose rows are found out when it is read, so that a prepared statement sees the present.
#[derive(Debug)]
struct Listing {
    schema: SchemaRef,
    of: SystemSchema,
    name: String,
}

impl PartitionStream for Listing {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _task: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = self.of.clone().rows(self.name.clone());
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), futures::stream::once(rows)))
    }
}

/// `pg_type`'s numbers of the types that only PostGIS has.
pub(crate) const SPATIAL_TYPES: [(i32, &str); 2] = [(GEOMETRY_OID, "geometry"), (GEOGRAPHY_OID, "geography")];
