//! What there is, and what the server can do: the metadata calls of Flight SQL.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow_flight::error::FlightError;
use arrow_flight::sql::metadata::{SqlInfoData, SqlInfoDataBuilder, XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder};
use arrow_flight::sql::{
    Command, CommandGetTableTypes, Nullable, Searchable, SqlInfo, SqlNullOrdering, SqlSupportedCaseSensitivity, SqlSupportedTransaction,
    XdbcDataType,
};
use tonic::Status;

use super::status;
use crate::engine::{CATALOG, Engine, Limits, SCHEMA};

/// What a metadata call calls the tables of entities and history.
const TABLE: &str = "TABLE";
/// What it calls those of the catalogs.
const SYSTEM_TABLE: &str = "SYSTEM TABLE";

/// The answers that are the same for everybody.
pub(super) struct Descriptions {
    info: SqlInfoData,
    types: XdbcTypeInfoData,
}

impl Descriptions {
    pub(super) fn new(limits: &Limits) -> Result<Self, FlightError> {
        Ok(Self { info: server_info(limits)?, types: types()? })
    }

    /// The columns of the answer to a metadata call; none for any other call.
    pub(super) fn schema(&self, command: &Command) -> Option<SchemaRef> {
        Some(match command {
            Command::CommandGetCatalogs(c) => c.into_builder().schema(),
            Command::CommandGetDbSchemas(c) => c.clone().into_builder().schema(),
            Command::CommandGetTables(c) => c.clone().into_builder().schema(),
            Command::CommandGetTableTypes(c) => c.into_builder().schema(),
            Command::CommandGetSqlInfo(_) => self.info.schema(),
            Command::CommandGetXdbcTypeInfo(_) => self.types.schema(),
            Command::CommandGetPrimaryKeys(_) => Arc::new(primary_keys()),
            Command::CommandGetExportedKeys(_) | Command::CommandGetImportedKeys(_) | Command::CommandGetCrossReference(_) => {
                Arc::new(foreign_keys())
            }
            _ => return None,
        })
    }

    /// The answer to a metadata call; none for any other call.
    pub(super) async fn answer(&self, command: Command, engine: &Engine) -> Result<Option<RecordBatch>, Status> {
        let schema = self.schema(&command);
        let answer = match command {
            Command::CommandGetCatalogs(command) => {
                let mut builder = command.into_builder();
                builder.append(CATALOG);
                builder.build()
            }
            Command::CommandGetDbSchemas(command) => {
                let mut builder = command.into_builder();
                for schema in schemas(engine) {
                    builder.append(CATALOG, schema);
                }
                builder.build()
            }
            Command::CommandGetTables(command) => tables(command, engine).await?,
            Command::CommandGetTableTypes(command) => table_types(command),
            Command::CommandGetSqlInfo(command) => self.info.record_batch(command.info),
            Command::CommandGetXdbcTypeInfo(command) => self.types.record_batch(command.data_type),
            // There are no keys: an id may be in the tables of several types.
            Command::CommandGetPrimaryKeys(_)
            | Command::CommandGetExportedKeys(_)
            | Command::CommandGetImportedKeys(_)
            | Command::CommandGetCrossReference(_) => Ok(RecordBatch::new_empty(schema.expect("keys have columns"))),
            _ => return Ok(None),
        };
        answer.map(Some).map_err(Status::from)
    }
}

fn schemas(engine: &Engine) -> Vec<String> {
    engine.context().catalog(CATALOG).map(|catalog| catalog.schema_names()).unwrap_or_default()
}

async fn tables(command: arrow_flight::sql::CommandGetTables, engine: &Engine) -> Result<Result<RecordBatch, FlightError>, Status> {
    let wanted_types = command.table_types.clone();
    let wanted = |table_type: &str| wanted_types.is_empty() || wanted_types.iter().any(|t| t == table_type);
    let include_schema = command.include_schema;
    // Columns of tables that are not asked for need not be found out. The builder, which decides, knows escapes as well.
    let name_pattern = command.table_name_filter_pattern.clone().filter(|pattern| !pattern.contains('\\'));
    let mut builder = command.into_builder();
    let Some(catalog) = engine.context().catalog(CATALOG) else { return Ok(builder.build()) };
    for schema_name in catalog.schema_names() {
        let table_type = if schema_name == SCHEMA { TABLE } else { SYSTEM_TABLE };
        let Some(schema) = catalog.schema(&schema_name).filter(|_| wanted(table_type)) else { continue };
        for table_name in schema.table_names() {
            if name_pattern.as_deref().is_some_and(|pattern| !like(&table_name, pattern)) {
                continue;
            }
            let columns = if include_schema {
                // None: it has gone since it was listed.
                let Some(table) = schema.table(&table_name).await.map_err(status::of_engine)? else { continue };
                table.schema()
            } else {
                Arc::new(Schema::empty())
            };
            builder.append(CATALOG, &schema_name, &table_name, table_type, &columns).map_err(Status::from)?;
        }
    }
    Ok(builder.build())
}

/// Does a name match a pattern with `%` for any text and `_` for any character?
fn like(name: &str, pattern: &str) -> bool {
    let (name, pattern): (Vec<char>, Vec<char>) = (name.chars().collect(), pattern.chars().collect());
    // Which beginnings of the name the pattern so far matches.
    let mut matched = vec![false; name.len() + 1];
    matched[0] = true;
    for p in pattern {
        if p == '%' {
            let first = matched.iter().position(|&m| m).unwrap_or(matched.len());
            matched[first..].fill(true);
        } else {
            for i in (1..=name.len()).rev() {
                matched[i] = matched[i - 1] && (p == '_' || p == name[i - 1]);
            }
            matched[0] = false;
        }
    }
    matched[name.len()]
}

fn table_types(command: CommandGetTableTypes) -> Result<RecordBatch, FlightError> {
    let mut builder = command.into_builder();
    builder.append(TABLE);
    builder.append(SYSTEM_TABLE);
    builder.build()
}

fn server_info(limits: &Limits) -> Result<SqlInfoData, FlightError> {
    let mut info = SqlInfoDataBuilder::new();
    info.append(SqlInfo::FlightSqlServerName, "conurb");
    info.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    info.append(SqlInfo::FlightSqlServerArrowVersion, arrow::ARROW_VERSION);
    // Statements change nothing; rows come in by ingestion alone.
    info.append(SqlInfo::FlightSqlServerReadOnly, true);
    info.append(SqlInfo::FlightSqlServerSql, true);
    info.append(SqlInfo::FlightSqlServerSubstrait, false);
    info.append(SqlInfo::FlightSqlServerTransaction, SqlSupportedTransaction::None as i32);
    info.append(SqlInfo::FlightSqlServerCancel, true);
    info.append(SqlInfo::FlightSqlServerBulkIngestion, true);
    info.append(SqlInfo::FlightSqlServerIngestTransactionsSupported, false);
    let timeout_ms = i32::try_from(limits.statement_time.as_millis()).unwrap_or(i32::MAX);
    info.append(SqlInfo::FlightSqlServerStatementTimeout, timeout_ms);
    info.append(SqlInfo::FlightSqlServerTransactionTimeout, 0i32);
    info.append(SqlInfo::SqlDdlCatalog, false);
    info.append(SqlInfo::SqlDdlSchema, false);
    info.append(SqlInfo::SqlDdlTable, false);
    info.append(SqlInfo::SqlIdentifierCase, SqlSupportedCaseSensitivity::SqlCaseSensitivityLowercase as i32);
    info.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    info.append(SqlInfo::SqlQuotedIdentifierCase, SqlSupportedCaseSensitivity::SqlCaseSensitivityUnknown as i32);
    info.append(SqlInfo::SqlAllTablesAreSelectable, true);
    info.append(SqlInfo::SqlNullOrdering, SqlNullOrdering::SqlNullsSortedHigh as i32);
    info.append(SqlInfo::SqlSupportsColumnAliasing, true);
    info.append(SqlInfo::SqlNullPlusNullIsNull, true);
    info.append(SqlInfo::SqlSupportsTableCorrelationNames, true);
    info.append(SqlInfo::SqlSupportsExpressionsInOrderBy, true);
    info.append(SqlInfo::SqlSupportsOrderByUnrelated, true);
    info.append(SqlInfo::SqlSupportsNonNullableColumns, true);
    info.append(SqlInfo::SqlSchemaTerm, "schema");
    info.append(SqlInfo::SqlCatalogTerm, "database");
    info.append(SqlInfo::SqlCatalogAtStart, true);
    info.append(SqlInfo::SqlCorrelatedSubqueriesSupported, true);
    info.append(SqlInfo::SqlTransactionsSupported, false);
    info.append(SqlInfo::SqlSavepointsSupported, false);
    info.append(SqlInfo::SqlNamedParametersSupported, false);
    info.build()
}

/// The types that columns of tables have.
fn types() -> Result<XdbcTypeInfoData, FlightError> {
    let mut types = XdbcTypeInfoDataBuilder::new();
    let kind = |name: &str, data_type: XdbcDataType| XdbcTypeInfo {
        type_name: name.to_owned(),
        data_type,
        sql_data_type: data_type,
        nullable: Nullable::NullabilityNullable,
        searchable: Searchable::Full,
        local_type_name: Some(name.to_owned()),
        ..XdbcTypeInfo::default()
    };
    let quoted = |info: XdbcTypeInfo| XdbcTypeInfo { literal_prefix: Some("'".to_owned()), literal_suffix: Some("'".to_owned()), ..info };
    let number = |info: XdbcTypeInfo, digits: i32, radix: i32| XdbcTypeInfo {
        column_size: Some(digits),
        num_prec_radix: Some(radix),
        unsigned_attribute: Some(false),
        auto_increment: Some(false),
        ..info
    };
    types.append(kind("boolean", XdbcDataType::XdbcBit));
    types.append(number(kind("bigint", XdbcDataType::XdbcBigint), 19, 10));
    types.append(number(kind("integer", XdbcDataType::XdbcInteger), 10, 10));
    types.append(number(kind("double precision", XdbcDataType::XdbcDouble), 53, 2));
    types.append(quoted(XdbcTypeInfo { case_sensitive: true, ..kind("text", XdbcDataType::XdbcVarchar) }));
    types.append(quoted(kind("timestamp with time zone", XdbcDataType::XdbcTimestamp)));
    types.append(quoted(kind("date", XdbcDataType::XdbcDate)));
    types.append(quoted(kind("bytea", XdbcDataType::XdbcVarbinary)));
    types.build()
}

/// Source: FlightSql.proto, `CommandGetPrimaryKeys`.
fn primary_keys() -> Schema {
    Schema::new(vec![
        Field::new("catalog_name", DataType::Utf8, true),
        Field::new("db_schema_name", DataType::Utf8, true),
        Field::new("table_name", DataType::Utf8, false),
        Field::new("column_name", DataType::Utf8, false),
        Field::new("key_name", DataType::Utf8, true),
        Field::new("key_sequence", DataType::Int32, false),
    ])
}

/// Source: FlightSql.proto, `CommandGetExportedKeys`, `CommandGetImportedKeys` and `CommandGetCrossReference`.
fn foreign_keys() -> Schema {
    let column = |side: &str, name: &str, nullable: bool| Field::new(format!("{side}_{name}"), DataType::Utf8, nullable);
    let mut fields = Vec::new();
    for side in ["pk", "fk"] {
        fields.push(column(side, "catalog_name", true));
        fields.push(column(side, "db_schema_name", true));
        fields.push(column(side, "table_name", false));
        fields.push(column(side, "column_name", false));
    }
    fields.push(Field::new("key_sequence", DataType::Int32, false));
    fields.push(Field::new("fk_key_name", DataType::Utf8, true));
    fields.push(Field::new("pk_key_name", DataType::Utf8, true));
    fields.push(Field::new("update_rule", DataType::UInt8, false));
    fields.push(Field::new("delete_rule", DataType::UInt8, false));
    Schema::new(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_sql() {
        for (name, pattern, want) in [
            ("Road", "Road", true),
            ("Road", "%", true),
            ("Road", "R%", true),
            ("Road", "%oa%", true),
            ("Road", "R__d", true),
            ("Road", "Road%", true),
            ("Road", "%%d", true),
            ("Road", "road", false),
            ("Road", "Roa", false),
            ("Road", "_Road", false),
            ("Road", "", false),
            ("", "%", true),
            ("城市", "_市", true),
        ] {
            assert_eq!(like(name, pattern), want, "{name} like {pattern}");
        }
    }
}
