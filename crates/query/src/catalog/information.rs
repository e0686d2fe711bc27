//! The schema `information_schema` of the SQL standard, as PostgreSQL fills it.

use arrow::record_batch::RecordBatch;
use datafusion::error::Result;

use super::columns::Columns;
use super::directory::{Key, Relation, type_of};
use super::relations::SystemRelation;
use crate::engine::{CATALOG, SCHEMA};

/// The views that there are.
pub(super) const VIEWS: [&str; 16] = [
    "check_constraints",
    "column_privileges",
    "columns",
    "constraint_column_usage",
    "domains",
    "information_schema_catalog_name",
    "key_column_usage",
    "parameters",
    "referential_constraints",
    "routines",
    "schemata",
    "sequences",
    "table_constraints",
    "table_privileges",
    "tables",
    "views",
];

/// A view by its name. `system` are the tables of the catalogs themselves.
pub(super) fn view(name: &str, tables: &[Relation], system: &[SystemRelation], owner: &str) -> Option<Result<RecordBatch>> {
    Some(match name {
        "columns" => columns(tables),
        "tables" => self::tables(tables, system),
        "schemata" => schemata(owner),
        "table_constraints" => table_constraints(tables),
        "key_column_usage" => key_column_usage(tables),
        "constraint_column_usage" => constraint_column_usage(tables),
        "table_privileges" => table_privileges(tables, owner),
        "column_privileges" => column_privileges(tables, owner),
        "information_schema_catalog_name" => Columns::new(1).all_text("catalog_name", CATALOG).finish(),
        _ => return nothing(name),
    })
}

/// Views of things that there are none of.
fn nothing(name: &str) -> Option<Result<RecordBatch>> {
    let names: &[&str] = match name {
        "views" => {
            &["table_catalog", "table_schema", "table_name", "view_definition", "check_option", "is_updatable", "is_insertable_into"]
        }
        "sequences" => &["sequence_catalog", "sequence_schema", "sequence_name", "data_type", "start_value", "increment"],
        "domains" => &["domain_catalog", "domain_schema", "domain_name", "data_type", "udt_name"],
        "check_constraints" => &["constraint_catalog", "constraint_schema", "constraint_name", "check_clause"],
        "referential_constraints" => &[
            "constraint_catalog",
            "constraint_schema",
            "constraint_name",
            "unique_constraint_catalog",
            "unique_constraint_schema",
            "unique_constraint_name",
            "match_option",
            "update_rule",
            "delete_rule",
        ],
        // Functions are in pg_proc; what is theirs by the standard would be as long and say no more.
        "routines" => {
            &["specific_catalog", "specific_schema", "specific_name", "routine_schema", "routine_name", "routine_type", "data_type"]
        }
        "parameters" => &["specific_catalog", "specific_schema", "specific_name", "ordinal_position", "parameter_name", "data_type"],
        _ => return None,
    };
    Some(names.iter().fold(Columns::new(0), |columns, name| columns.no_text(name)).finish())
}

fn tables(tables: &[Relation], system: &[SystemRelation]) -> Result<RecordBatch> {
    let own = tables.iter().map(|t| (SCHEMA, t.name.as_str(), "BASE TABLE"));
    let theirs = system.iter().map(|t| (t.namespace_name(), t.name.as_str(), if t.is_table() { "BASE TABLE" } else { "VIEW" }));
    let rows: Vec<_> = own.chain(theirs).collect();
    Columns::new(rows.len())
        .all_text("table_catalog", CATALOG)
        .text("table_schema", rows.iter().map(|r| r.0))
        .text("table_name", rows.iter().map(|r| r.1))
        .text("table_type", rows.iter().map(|r| r.2))
        .no_text("self_referencing_column_name")
        .no_text("reference_generation")
        .no_text("user_defined_type_catalog")
        .no_text("user_defined_type_schema")
        .no_text("user_defined_type_name")
        .all_text("is_insertable_into", "NO")
        .all_text("is_typed", "NO")
        .no_text("commit_action")
        .finish()
}

fn columns(tables: &[Relation]) -> Result<RecordBatch> {
    let mut rows = Vec::new();
    for table in tables {
        rows.extend(table.schema.fields().iter().enumerate().map(|(i, field)| (table, i, field, type_of(field))));
    }
    let is_own = |sql: &str| matches!(sql, "geometry" | "geography");
    Columns::new(rows.len())
        .all_text("table_catalog", CATALOG)
        .all_text("table_schema", SCHEMA)
        .text("table_name", rows.iter().map(|r| &r.0.name))
        .text("column_name", rows.iter().map(|r| r.2.name()))
        .int("ordinal_position", rows.iter().map(|r| i32::try_from(r.1 + 1).unwrap_or(i32::MAX)))
        .no_text("column_default")
        .text("is_nullable", rows.iter().map(|r| if r.2.is_nullable() { "YES" } else { "NO" }))
        .text("data_type", rows.iter().map(|r| if is_own(r.3.sql) { "USER-DEFINED" } else { r.3.sql }))
        .no_int("character_maximum_length")
        .maybe_int("character_octet_length", rows.iter().map(|r| (r.3.name == "text").then_some(1 << 30)))
        .maybe_int("numeric_precision", rows.iter().map(|r| precision(r.3.name)))
        .maybe_int("numeric_precision_radix", rows.iter().map(|r| precision(r.3.name).map(|_| 2)))
        .maybe_int("numeric_scale", rows.iter().map(|r| r.3.name.starts_with("int").then_some(0)))
        .maybe_int("datetime_precision", rows.iter().map(|r| r.3.name.starts_with("time").then_some(6)))
        .no_text("interval_type")
        .no_text("character_set_name")
        .no_text("collation_catalog")
        .no_text("collation_schema")
        .no_text("collation_name")
        .no_text("domain_catalog")
        .no_text("domain_schema")
        .no_text("domain_name")
        .all_text("udt_catalog", CATALOG)
        .text("udt_schema", rows.iter().map(|r| if is_own(r.3.sql) { SCHEMA } else { "pg_catalog" }))
        .text("udt_name", rows.iter().map(|r| r.3.name))
        .text("dtd_identifier", rows.iter().map(|r| (r.1 + 1).to_string()))
        .all_text("is_self_referencing", "NO")
        .all_text("is_identity", "NO")
        .no_text("identity_generation")
        .all_text("is_generated", "NEVER")
        .no_text("generation_expression")
        .all_text("is_updatable", "NO")
        .finish()
}

/// Of a number, in binary digits.
fn precision(type_name: &str) -> Option<i32> {
    match type_name {
        "int2" => Some(16),
        "int4" => Some(32),
        "int8" => Some(64),
        "float4" => Some(24),
        "float8" => Some(53),
        _ => None,
    }
}

fn schemata(owner: &str) -> Result<RecordBatch> {
    Columns::new(3)
        .all_text("catalog_name", CATALOG)
        .text("schema_name", ["information_schema", "pg_catalog", SCHEMA])
        .all_text("schema_owner", owner)
        .no_text("default_character_set_catalog")
        .no_text("default_character_set_schema")
        .no_text("default_character_set_name")
        .no_text("sql_path")
        .finish()
}

/// The tables that have a key, with it.
fn keyed(tables: &[Relation]) -> Vec<(&Relation, &Key)> {
    tables.iter().filter_map(|t| t.key.as_ref().map(|k| (t, k))).collect()
}

/// What constraints are called, and which table each is about.
fn constraints(rows: &[(&Relation, &Key)]) -> Columns {
    Columns::new(rows.len())
        .all_text("constraint_catalog", CATALOG)
        .all_text("constraint_schema", SCHEMA)
        .text("constraint_name", rows.iter().map(|r| &r.1.name))
        .all_text("table_catalog", CATALOG)
        .all_text("table_schema", SCHEMA)
        .text("table_name", rows.iter().map(|r| &r.0.name))
}

fn table_constraints(tables: &[Relation]) -> Result<RecordBatch> {
    let rows = keyed(tables);
    constraints(&rows)
        .all_text("constraint_type", "PRIMARY KEY")
        .all_text("is_deferrable", "NO")
        .all_text("initially_deferred", "NO")
        .all_text("enforced", "YES")
        .all_text("nulls_distinct", "YES")
        .finish()
}

fn key_column_usage(tables: &[Relation]) -> Result<RecordBatch> {
    let rows = keyed(tables);
    constraints(&rows)
        .text("column_name", rows.iter().map(|r| r.0.schema.field(0).name()))
        .all_int("ordinal_position", 1)
        .no_int("position_in_unique_constraint")
        .finish()
}

fn constraint_column_usage(tables: &[Relation]) -> Result<RecordBatch> {
    let rows = keyed(tables);
    Columns::new(rows.len())
        .all_text("table_catalog", CATALOG)
        .all_text("table_schema", SCHEMA)
        .text("table_name", rows.iter().map(|r| &r.0.name))
        .text("column_name", rows.iter().map(|r| r.0.schema.field(0).name()))
        .all_text("constraint_catalog", CATALOG)
        .all_text("constraint_schema", SCHEMA)
        .text("constraint_name", rows.iter().map(|r| &r.1.name))
        .finish()
}

/// What may be done with every table that can be seen.
fn table_privileges(tables: &[Relation], owner: &str) -> Result<RecordBatch> {
    Columns::new(tables.len())
        .all_text("grantor", CATALOG)
        .all_text("grantee", owner)
        .all_text("table_catalog", CATALOG)
        .all_text("table_schema", SCHEMA)
        .text("table_name", tables.iter().map(|t| &t.name))
        .all_text("privilege_type", "SELECT")
        .all_text("is_grantable", "NO")
        .all_text("with_hierarchy", "YES")
        .finish()
}

fn column_privileges(tables: &[Relation], owner: &str) -> Result<RecordBatch> {
    let rows: Vec<_> = tables.iter().flat_map(|t| t.schema.fields().iter().map(move |f| (t, f))).collect();
    Columns::new(rows.len())
        .all_text("grantor", CATALOG)
        .all_text("grantee", owner)
        .all_text("table_catalog", CATALOG)
        .all_text("table_schema", SCHEMA)
        .text("table_name", rows.iter().map(|r| &r.0.name))
        .text("column_name", rows.iter().map(|r| r.1.name()))
        .all_text("privilege_type", "SELECT")
        .all_text("is_grantable", "NO")
        .finish()
}
