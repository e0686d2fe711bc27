//! Functions that clients ask about the catalogs, and small ones of PostgreSQL that the engine lacks.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int32Array, Int32Builder, Int64Array, ListArray, ListBuilder, StringArray, StringBuilder,
    StructArray, new_null_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{cast, concat};
use arrow::datatypes::{DataType, Field, Fields, Int32Type, Int64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility};
use datafusion::prelude::SessionContext;

use super::directory::{Directory, GEOGRAPHY_OID, GEOMETRY_OID, INFORMATION_SCHEMA_OID, PG_CATALOG_OID, PUBLIC_OID, remark, type_of};
use super::relations::{KNOWN_NUMBERS, index_definition};
use super::system::Statics;
use crate::dialect::with_backslash;
use crate::engine::CATALOG;
use crate::floats;
use crate::parameters::SERVER_VERSION;

type Compute = dyn Fn(&[ArrayRef], usize) -> Result<ArrayRef> + Send + Sync;

/// A function of any arguments.
struct Anything {
    name: String,
    signature: Signature,
    result: DataType,
    compute: Box<Compute>,
}

impl std::fmt::Debug for Anything {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Anything").field("name", &self.name).finish_non_exhaustive()
    }
}

// A session has one function of a name.
impl PartialEq for Anything {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Anything {}

impl Hash for Anything {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Anything {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.result.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let n_rows = args.number_rows;
        let columns = args.args.into_iter().map(|a| a.into_array(n_rows)).collect::<Result<Vec<_>>>()?;
        Ok(ColumnarValue::Array((self.compute)(&columns, n_rows)?))
    }
}

/// A function of any number of arguments of any types, computed a batch at a time; it may answer differently for the next statement.
pub(crate) fn function(
    name: &str,
    result: DataType,
    compute: impl Fn(&[ArrayRef], usize) -> Result<ArrayRef> + Send + Sync + 'static,
) -> ScalarUDF {
    let volatility = if name == "set_config" { Volatility::Volatile } else { Volatility::Stable };
    let signature = Signature::one_of(vec![TypeSignature::Nullary, TypeSignature::VariadicAny], volatility);
    ScalarUDF::from(Anything { name: name.to_owned(), signature, result, compute: Box::new(compute) })
}

/// One that is the same for every row.
fn constant(name: &str, value: &str) -> ScalarUDF {
    let value = value.to_owned();
    function(name, DataType::Utf8, move |_, n| Ok(Arc::new(StringArray::from_iter_values(std::iter::repeat_n(&value, n)))))
}

/// One that always says the same truth value.
fn flag(name: &str, value: bool) -> ScalarUDF {
    function(name, DataType::Boolean, move |_, n| Ok(Arc::new(BooleanArray::from(vec![value; n]))))
}

/// One that knows nothing about anything.
fn unknown(name: &str, result: DataType) -> ScalarUDF {
    let of = result.clone();
    function(name, result, move |_, n| Ok(new_null_array(&of, n)))
}

/// One of the number of an object, given as the first argument.
fn by_oid(name: &str, of: impl Fn(i32, usize, &[ArrayRef]) -> Option<String> + Send + Sync + 'static) -> ScalarUDF {
    function(name, DataType::Utf8, move |args, n| {
        let oids = numbers(args.first(), n)?;
        let mut texts = StringBuilder::new();
        for i in 0..n {
            texts.append_option(oids.is_valid(i).then(|| of(oids.value(i), i, args)).flatten());
        }
        Ok(Arc::new(texts.finish()))
    })
}

/// One of a text, given as the first argument.
fn by_text(name: &str, result: DataType, of: impl Fn(&str) -> Result<Option<i64>> + Send + Sync + 'static) -> ScalarUDF {
    let to = result.clone();
    function(name, result, move |args, n| {
        let texts = texts(args.first(), n)?;
        let values = (0..n).map(|i| if texts.is_valid(i) { of(texts.value(i)) } else { Ok(None) });
        let values: Int64Array = values.collect::<Result<Vec<_>>>()?.into_iter().collect();
        Ok(cast(&values, &to)?)
    })
}

fn numbers(argument: Option<&ArrayRef>, n: usize) -> Result<Int32Array> {
    match argument {
        Some(argument) => Ok(cast(argument, &DataType::Int32)?.as_primitive::<Int32Type>().clone()),
        None => Ok(Int32Array::new_null(n)),
    }
}

fn texts(argument: Option<&ArrayRef>, n: usize) -> Result<StringArray> {
    match argument {
        Some(argument) => Ok(cast(argument, &DataType::Utf8)?.as_string::<i32>().clone()),
        None => Ok(StringArray::new_null(n)),
    }
}

/// The value of a further argument in a row, if it is a whole number.
fn further(args: &[ArrayRef], at: usize, row: usize) -> Option<i64> {
    let column = cast(args.get(at)?, &DataType::Int64).ok()?;
    let column = column.as_primitive::<Int64Type>();
    column.is_valid(row).then(|| column.value(row))
}

/// Makes them known to a session without tables: what is the same for everybody.
pub(crate) fn register_common(context: &SessionContext) {
    for name in [
        "pg_collation_is_visible",
        "pg_conversion_is_visible",
        "pg_function_is_visible",
        "pg_opclass_is_visible",
        "pg_operator_is_visible",
        "pg_opfamily_is_visible",
        "pg_statistics_obj_is_visible",
        "pg_ts_config_is_visible",
        "pg_ts_dict_is_visible",
        "pg_ts_parser_is_visible",
        "pg_ts_template_is_visible",
        "pg_type_is_visible",
    ] {
        context.register_udf(flag(name, true));
    }
    for name in
        ["pg_is_in_recovery", "pg_is_other_temp_schema", "row_security_active", "pg_relation_is_publishable", "pg_is_wal_replay_paused"]
    {
        context.register_udf(flag(name, false));
    }
    // Their sizes and definitions are not known, or there are none.
    for name in [
        "pg_database_size",
        "pg_indexes_size",
        "pg_relation_size",
        "pg_sequence_last_value",
        "pg_table_size",
        "pg_tablespace_size",
        "pg_total_relation_size",
    ] {
        context.register_udf(unknown(name, DataType::Int64));
    }
    for name in [
        "pg_get_function_arg_default",
        "pg_get_expr",
        "pg_get_functiondef",
        "pg_get_function_sqlbody",
        "pg_get_partition_constraintdef",
        "pg_get_partkeydef",
        "pg_get_ruledef",
        "pg_get_serial_sequence",
        "pg_get_statisticsobjdef",
        "pg_get_triggerdef",
        "pg_get_viewdef",
        "pg_tablespace_location",
        "shobj_description",
        "inet_server_addr",
        "inet_client_addr",
        "pg_relation_filepath",
    ] {
        context.register_udf(unknown(name, DataType::Utf8));
    }
    for name in [
        "has_any_column_privilege",
        "has_column_privilege",
        "has_database_privilege",
        "has_foreign_data_wrapper_privilege",
        "has_function_privilege",
        "has_language_privilege",
        "has_schema_privilege",
        "has_sequence_privilege",
        "has_server_privilege",
        "has_table_privilege",
        "has_tablespace_privilege",
        "has_type_privilege",
        "pg_has_role",
    ] {
        context.register_udf(function(name, DataType::Boolean, |args, n| {
            let asked = texts(args.last(), n)?;
            Ok(Arc::new((0..n).map(|i| asked.is_valid(i).then(|| is_reading(asked.value(i)))).collect::<BooleanArray>()))
        }));
    }
    context.register_udf(constant("version", &format!("PostgreSQL {SERVER_VERSION}")));
    context.register_udf(constant("postgis_version", "3.3 USE_GEOS=0 USE_PROJ=0 USE_STATS=0"));
    context.register_udf(constant("postgis_lib_version", "3.3.0"));
    context
        .register_udf(constant("postgis_full_version", &format!("POSTGIS=\"3.3.0\" (imitated by conurb {})", env!("CARGO_PKG_VERSION"))));
    context.register_udf(constant("pg_client_encoding", "UTF8"));
    context.register_udf(constant("getdatabaseencoding", "UTF8"));
    context.register_udf(function("pg_my_temp_schema", DataType::Int32, |_, n| Ok(Arc::new(Int32Array::from(vec![0; n])))));
    context.register_udf(by_oid("pg_encoding_to_char", |encoding, _, _| (encoding == 6).then(|| "UTF8".to_owned())));
    context.register_udf(by_text("pg_char_to_encoding", DataType::Int32, |name| {
        Ok(Some(if name.eq_ignore_ascii_case("utf8") { 6 } else { -1 }))
    }));
    // What PostGIS packs into the modifier of a type: see `directory::modifier_of`.
    context.register_udf(function("postgis_typmod_srid", DataType::Int32, |args, n| {
        Ok(Arc::new(numbers(args.first(), n)?.iter().map(|m| m.map(|m| m.max(0) >> 8)).collect::<Int32Array>()))
    }));
    context.register_udf(function("postgis_typmod_dims", DataType::Int32, |args, n| {
        Ok(Arc::new(numbers(args.first(), n)?.iter().map(|m| m.map(|_| 2)).collect::<Int32Array>()))
    }));
    context.register_udf(by_oid("postgis_typmod_type", |_, _, _| Some("Geometry".to_owned())));
    // Readers and writers do not wait for each other.
    context.register_udf(function("pg_blocking_pids", DataType::List(Arc::new(Field::new("item", DataType::Int32, true))), |_, n| {
        let mut lists = ListBuilder::new(Int32Builder::new());
        (0..n).for_each(|_| lists.append_value([]));
        Ok(Arc::new(lists.finish()))
    }));
    context.register_udf(by_oid("pg_get_userbyid", |_, _, _| Some(CATALOG.to_owned())));
    context.register_udf(function("pg_size_pretty", DataType::Utf8, |args, n| {
        let bytes = match args.first() {
            Some(argument) => cast(argument, &DataType::Int64)?.as_primitive::<Int64Type>().clone(),
            None => Int64Array::new_null(n),
        };
        Ok(Arc::new(bytes.iter().map(|b| b.map(pretty)).collect::<StringArray>()))
    }));
    context.register_udf(function("__like_pattern", DataType::Utf8, |args, n| {
        let (patterns, characters) = (texts(args.first(), n)?, texts(args.get(1), n)?);
        let rows = (0..n).map(|i| patterns.is_valid(i).then(|| with_backslash(patterns.value(i), characters.value(i))));
        Ok(Arc::new(rows.collect::<StringArray>()))
    }));
    context.register_udf(function("quote_ident", DataType::Utf8, |args, n| {
        let names = texts(args.first(), n)?;
        Ok(Arc::new(names.iter().map(|name| name.map(quoted)).collect::<StringArray>()))
    }));
    context.register_udf(function("pg_typeof", DataType::Utf8, |args, n| {
        let named = args.first().map_or("unknown", |a| type_of(&Field::new("", a.data_type().clone(), true)).sql);
        Ok(Arc::new(StringArray::from_iter_values(std::iter::repeat_n(named, n))))
    }));
    for (name, as_null) in [("quote_literal", None), ("quote_nullable", Some("NULL"))] {
        context.register_udf(function(name, DataType::Utf8, move |args, n| {
            let texts = texts(args.first(), n)?;
            let quoted =
                texts.iter().map(|t| t.map_or_else(|| as_null.map(str::to_owned), |t| Some(format!("'{}'", t.replace('\'', "''")))));
            Ok(Arc::new(quoted.collect::<StringArray>()))
        }));
    }
    let numbers_of =
        |list: &ArrayRef| -> Result<ArrayRef> { Ok(cast(list, &DataType::List(Arc::new(Field::new("item", DataType::Int32, true))))?) };
    let subscripts = DataType::List(Arc::new(Field::new("item", DataType::Int32, true)));
    context.register_udf(function("__subscripts", subscripts, move |args, n| {
        let mut lists = ListBuilder::new(Int32Builder::new());
        let lengths = lengths(args.first(), n);
        lengths.into_iter().for_each(|length| lists.append_option(length.map(|l| (1..=l).map(Some))));
        Ok(Arc::new(lists.finish()))
    }));
    let pair = Fields::from(vec![Field::new("x", DataType::Int32, true), Field::new("n", DataType::Int32, true)]);
    let expanded = DataType::List(Arc::new(Field::new("item", DataType::Struct(pair.clone()), true)));
    context.register_udf(function("__expanded", expanded, move |args, n| {
        let Some(argument) = args.first() else {
            return Err(DataFusionError::Execution("_pg_expandarray takes a list of numbers".to_owned()));
        };
        let lists = numbers_of(argument)?;
        let lists = lists.as_list::<i32>();
        let positions = (0..n).flat_map(|i| 1..=lists.value_length(i)).collect::<Int32Array>();
        let values = (0..n).map(|i| lists.value(i)).collect::<Vec<_>>();
        let values = concat(&values.iter().map(|v| v.as_ref() as &dyn Array).collect::<Vec<_>>())?;
        let offsets = OffsetBuffer::from_lengths((0..n).map(|i| usize::try_from(lists.value_length(i)).unwrap_or(0)));
        let pairs = StructArray::try_new(pair.clone(), vec![values, Arc::new(positions)], None)?;
        let item = Arc::new(Field::new("item", DataType::Struct(pair.clone()), true));
        Ok(Arc::new(ListArray::try_new(item, offsets, Arc::new(pairs), lists.nulls().cloned())?))
    }));
    for name in ["json_build_object", "jsonb_build_object"] {
        context.register_udf(function(name, DataType::Utf8, json_build_object));
    }
}

/// How long each list is.
fn lengths(argument: Option<&ArrayRef>, n: usize) -> Vec<Option<i32>> {
    match argument.and_then(|a| a.as_list_opt::<i32>()) {
        Some(lists) => (0..n).map(|i| lists.is_valid(i).then(|| lists.value_length(i))).collect(),
        None => vec![None; n],
    }
}

/// May a session do this? It may read.
fn is_reading(privilege: &str) -> bool {
    privilege.split(',').any(|p| {
        let p = p.trim().to_ascii_uppercase();
        matches!(p.as_str(), "SELECT" | "USAGE" | "CONNECT" | "EXECUTE" | "MEMBER")
    })
}

/// A number of bytes, for people. As PostgreSQL: the next unit from 10 of it on.
fn pretty(bytes: i64) -> String {
    const UNITS: [&str; 6] = ["bytes", "kB", "MB", "GB", "TB", "PB"];
    let (mut n, mut unit) = (bytes as f64, 0);
    while n.abs() >= 10.0 * 1024.0 && unit + 1 < UNITS.len() {
        n = (n / 1024.0).round();
        unit += 1;
    }
    format!("{n} {}", UNITS[unit])
}

fn json_build_object(args: &[ArrayRef], n: usize) -> Result<ArrayRef> {
    if args.len() % 2 == 1 {
        return Err(DataFusionError::Execution("json_build_object takes names and values in turn".to_owned()));
    }
    let options = FormatOptions::default();
    let are_numbers: Vec<bool> = args.iter().map(|a| a.data_type().is_numeric()).collect();
    let args = args.iter().map(|a| if a.data_type().is_floating() { floats::texts(a, floats::SHORTEST) } else { Ok(a.clone()) });
    let args = args.collect::<Result<Vec<_>>>()?;
    let formats = args.iter().map(|a| ArrayFormatter::try_new(a, &options)).collect::<std::result::Result<Vec<_>, _>>()?;
    let value = |i: usize, row: usize| -> serde_json::Value {
        if args[i].is_null(row) {
            return serde_json::Value::Null;
        }
        let text = formats[i].value(row).to_string();
        let is_plain = are_numbers[i] || args[i].data_type() == &DataType::Boolean;
        match serde_json::from_str(&text) {
            Ok(plain) if is_plain => plain,
            _ => text.into(),
        }
    };
    let objects = (0..n).map(|row| {
        let members = (0..args.len()).step_by(2).map(|i| (formats[i].value(row).to_string(), value(i + 1, row)));
        Some(serde_json::Value::Object(members.collect()).to_string())
    });
    Ok(Arc::new(objects.collect::<StringArray>()))
}

/// Makes those known that depend on which tables there are.
pub(crate) fn register(context: &SessionContext, directory: &Arc<Directory>, statics: &Arc<Statics>) {
    let known = statics.clone();
    context.register_udf(by_oid("format_type", move |oid, row, args| {
        let name = known.type_names.get(&oid).map_or("???", String::as_str);
        let modifier = further(args, 1, row).unwrap_or(-1);
        let srid = modifier >> 8;
        Some(if matches!(oid, GEOMETRY_OID | GEOGRAPHY_OID) && modifier > 0 { format!("{name}(Geometry,{srid})") } else { name.to_owned() })
    }));
    for (name, which) in [("pg_get_function_arguments", 0), ("pg_get_function_identity_arguments", 0), ("pg_get_function_result", 1)] {
        let known = statics.clone();
        context.register_udf(by_oid(name, move |oid, _, _| {
            known.signatures.get(&oid).map(|(arguments, result)| if which == 0 { arguments.clone() } else { result.clone() })
        }));
    }
    let known = directory.clone();
    context.register_udf(by_oid("pg_get_indexdef", move |oid, row, args| {
        let snapshot = known.snapshot();
        let table = snapshot.iter().find(|t| t.key.as_ref().is_some_and(|k| k.index_oid == oid))?;
        match further(args, 1, row).unwrap_or(0) {
            0 => Some(index_definition(table)),
            1 => Some(table.schema.field(0).name().clone()),
            _ => Some(String::new()),
        }
    }));
    let known = directory.clone();
    context.register_udf(by_oid("pg_get_constraintdef", move |oid, _, _| {
        let snapshot = known.snapshot();
        let table = snapshot.iter().find(|t| t.key.as_ref().is_some_and(|k| k.constraint_oid == oid))?;
        Some(format!("PRIMARY KEY ({})", table.schema.field(0).name()))
    }));
    let known = directory.clone();
    context.register_udf(by_oid("col_description", move |oid, row, args| {
        let snapshot = known.snapshot();
        let table = snapshot.iter().find(|t| t.oid == oid)?;
        let at = usize::try_from(further(args, 1, row)?).ok()?.checked_sub(1)?;
        table.schema.fields().get(at).and_then(|f| remark(f))
    }));
    let known = directory.clone();
    context
        .register_udf(by_oid("obj_description", move |oid, _, _| known.snapshot().iter().find(|t| t.oid == oid).map(|t| t.about.clone())));
    let known = statics.clone();
    context.register_udf(function("pg_table_is_visible", DataType::Boolean, move |args, n| {
        let oids = numbers(args.first(), n)?;
        let hidden = |oid: i32| known.system.iter().any(|t| t.oid == oid && t.namespace == INFORMATION_SCHEMA_OID);
        Ok(Arc::new((0..n).map(|i| oids.is_valid(i).then(|| !hidden(oids.value(i)))).collect::<BooleanArray>()))
    }));
    register_casts(context, directory, statics);
}

/// What casts to and from `regclass` and its relatives become: see [`crate::dialect`].
fn register_casts(context: &SessionContext, directory: &Arc<Directory>, statics: &Arc<Statics>) {
    for (name, strict) in [("__regclass", true), ("to_regclass", false)] {
        let (tables, system) = (directory.clone(), statics.clone());
        context.register_udf(by_text(name, DataType::Int32, move |text| {
            if let Ok(oid) = text.parse::<i32>() {
                return Ok(Some(oid.into()));
            }
            let (schema, name) = parts(text);
            let own = || tables.snapshot().iter().find(|t| t.name == name).map(|t| t.oid);
            let index = || tables.snapshot().iter().filter_map(|t| t.key.as_ref()).find(|k| k.name == name).map(|k| k.index_oid);
            let theirs = |namespace: i32| system.system.iter().find(|t| t.namespace == namespace && t.name == name).map(|t| t.oid);
            let found = match schema.as_deref() {
                Some("pg_catalog") => theirs(PG_CATALOG_OID),
                Some("information_schema") => theirs(INFORMATION_SCHEMA_OID),
                Some("public") => own().or_else(index),
                None => known_number(&name).or_else(own).or_else(index).or_else(|| theirs(PG_CATALOG_OID)),
                Some(_) => None,
            };
            match found {
                Some(oid) => Ok(Some(oid.into())),
                None if strict => Err(DataFusionError::Plan(format!("relation \"{text}\" does not exist"))),
                None => Ok(None),
            }
        }));
    }
    for (name, strict) in [("__regtype", true), ("to_regtype", false)] {
        let known = statics.clone();
        context.register_udf(by_text(name, DataType::Int32, move |text| {
            let (_, name) = parts(text);
            let plain = known.type_named(&name).or_else(|| known.type_names.iter().find(|(_, n)| **n == text).map(|(oid, _)| *oid));
            match plain.or_else(|| text.parse().ok()) {
                Some(oid) => Ok(Some(oid.into())),
                None if strict => Err(DataFusionError::Plan(format!("type \"{text}\" does not exist"))),
                None => Ok(None),
            }
        }));
    }
    context.register_udf(by_text("__regnamespace", DataType::Int32, |text| match parts(text).1.as_str() {
        "pg_catalog" => Ok(Some(PG_CATALOG_OID.into())),
        "public" => Ok(Some(PUBLIC_OID.into())),
        "information_schema" => Ok(Some(INFORMATION_SCHEMA_OID.into())),
        other => other.parse().map(Some).map_err(|_| DataFusionError::Plan(format!("schema \"{text}\" does not exist"))),
    }));
    let (tables, system) = (directory.clone(), statics.clone());
    context.register_udf(by_oid("__regclass_text", move |oid, _, _| {
        if oid == 0 {
            return Some("-".to_owned());
        }
        let snapshot = tables.snapshot();
        let own = snapshot.iter().find(|t| t.oid == oid).map(|t| t.name.clone());
        let index = || snapshot.iter().filter_map(|t| t.key.as_ref()).find(|k| k.index_oid == oid).map(|k| k.name.clone());
        let theirs = || system.system.iter().find(|t| t.oid == oid).map(|t| t.name.clone());
        Some(own.or_else(index).or_else(theirs).map_or_else(|| oid.to_string(), |name| quoted(&name)))
    }));
    let known = statics.clone();
    context.register_udf(by_oid("__regtype_text", move |oid, _, _| {
        Some(known.type_names.get(&oid).cloned().unwrap_or_else(|| if oid == 0 { "-".to_owned() } else { oid.to_string() }))
    }));
    context.register_udf(by_oid("__regnamespace_text", |oid, _, _| {
        Some(match oid {
            PG_CATALOG_OID => "pg_catalog".to_owned(),
            PUBLIC_OID => "public".to_owned(),
            INFORMATION_SCHEMA_OID => "information_schema".to_owned(),
            other => other.to_string(),
        })
    }));
}

fn known_number(name: &str) -> Option<i32> {
    KNOWN_NUMBERS.iter().find(|(known, _)| *known == name).map(|(_, oid)| *oid)
}

/// Words that cannot be names without double quotes.
/// Source: PostgreSQL 16, appendix C, the reserved ones.
const RESERVED: [&str; 40] = [
    "all",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "both",
    "case",
    "cast",
    "check",
    "column",
    "constraint",
    "create",
    "default",
    "desc",
    "distinct",
    "else",
    "end",
    "except",
    "false",
    "for",
    "from",
    "grant",
    "group",
    "having",
    "in",
    "limit",
    "not",
    "null",
    "offset",
    "on",
    "or",
    "order",
    "primary",
    "select",
    "table",
    "then",
    "true",
    "user",
    "where",
];

/// A name as it has to be written.
fn quoted(name: &str) -> String {
    let plain =
        name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') && !name.starts_with(|c: char| c.is_ascii_digit());
    if plain && !RESERVED.contains(&name) { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// The schema, if it is named, and the name in `schema.name`; each may be in double quotes.
fn parts(text: &str) -> (Option<String>, String) {
    let mut names = vec![String::new()];
    let mut inside = false;
    let mut characters = text.trim().chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '"' if inside && characters.peek() == Some(&'"') => {
                characters.next();
                names.last_mut().expect("never empty").push('"');
            }
            '"' => inside = !inside,
            '.' if !inside => names.push(String::new()),
            c if inside => names.last_mut().expect("never empty").push(c),
            c => names.last_mut().expect("never empty").extend(c.to_lowercase()),
        }
    }
    let name = names.pop().unwrap_or_default();
    (names.pop(), name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        assert_eq!(parts("Road"), (None, "road".to_owned()));
        assert_eq!(parts("\"Road\""), (None, "Road".to_owned()));
        assert_eq!(parts("public.\"A.B\"\"C\""), (Some("public".to_owned()), "A.B\"C".to_owned()));
        assert_eq!(
            (quoted("road_2"), quoted("Road"), quoted("a\"b")),
            ("road_2".to_owned(), "\"Road\"".to_owned(), "\"a\"\"b\"".to_owned())
        );
    }

    #[test]
    fn sizes_are_said_as_postgresql_says_them() {
        let said: Vec<String> = [0, 10_239, 10_240, 123_456_789, -20_480, 1 << 40].into_iter().map(pretty).collect();
        assert_eq!(said, ["0 bytes", "10239 bytes", "10 kB", "118 MB", "-20 kB", "1024 GB"]);
    }

    #[test]
    fn a_session_may_read_and_nothing_else() {
        assert!(is_reading("select") && is_reading("SELECT, INSERT") && is_reading("USAGE"));
        assert!(!is_reading("INSERT") && !is_reading("create"));
    }
}
