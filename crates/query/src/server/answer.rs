//! Rows as PostgreSQL sends them.
//!
//! The protocol crate encodes everything but geometries: those go out as PostGIS sends them, EWKB of type `geometry`, in hexadecimal digits or bytes.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::dataframe::DataFrame;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::Expr;
use datafusion_postgres::arrow_pg::datatypes::df::deserialize_parameters_with_server_types;
use datafusion_postgres::arrow_pg::datatypes::{arrow_schema_to_pg_fields, encode_recordbatch};
use datafusion_postgres::pgwire::api::Type;
use datafusion_postgres::pgwire::api::portal::{Format, Portal};
use datafusion_postgres::pgwire::api::results::{FieldFormat, FieldInfo, QueryResponse};
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::data::DataRow;
use datafusion_postgres::pgwire::types::format::FormatOptions;
use futures::StreamExt;

use crate::catalog::{GEOGRAPHY_OID, GEOMETRY_OID};
use crate::dialect::shown_name;
use crate::geometry::{self, Reference};

fn geometry_type(reference: Reference) -> Type {
    let (name, oid) = if reference.on_earth { ("geography", GEOGRAPHY_OID) } else { ("geometry", GEOMETRY_OID) };
    Type::new(name.to_owned(), oid.unsigned_abs(), Type::TEXT.kind().clone(), "public".to_owned())
}

/// The fields of an answer as the client is told.
pub(super) fn fields(schema: &Schema, format: &Format, options: Option<Arc<FormatOptions>>) -> PgWireResult<Vec<FieldInfo>> {
    let mut fields = arrow_schema_to_pg_fields(schema, format, options)?;
    for (info, field) in fields.iter_mut().zip(schema.fields()) {
        let geometry = Reference::of(field).filter(|_| is_geometry(field)).map(geometry_type);
        let data_type = geometry.unwrap_or_else(|| info.datatype().clone());
        *info = FieldInfo::new(shown_name(info.name()).to_owned(), None, None, data_type, info.format());
    }
    Ok(fields)
}

fn is_geometry(field: &Field) -> bool {
    field.data_type() == &DataType::Binary && Reference::of(field).is_some()
}

/// Starts a statement; its rows are computed while they are fetched.
pub(super) async fn rows(frame: DataFrame, format: &Format, options: FormatOptions) -> PgWireResult<QueryResponse> {
    let options = Some(Arc::new(options));
    let schema = frame.schema().as_arrow().clone();
    let told = Arc::new(fields(&schema, format, options.clone())?);
    // What each geometry becomes, and how the batch is encoded after that.
    let places: Vec<Option<Place>> = (schema.fields().iter().zip(told.iter()))
        .map(|(field, info)| {
            let srid = Reference::of(field).filter(|_| is_geometry(field))?.srid;
            Some(Place { srid, hex: info.format() == FieldFormat::Text })
        })
        .collect();
    let plain: Vec<Field> = (schema.fields().iter().zip(&places))
        .map(|(field, place)| match place {
            Some(place) => Field::new(field.name(), if place.hex { DataType::Utf8 } else { DataType::Binary }, true),
            None => field.as_ref().clone(),
        })
        .collect();
    let plain = Schema::new(plain);
    let encoded = Arc::new(arrow_schema_to_pg_fields(&plain, format, options)?);
    let unchanged = places.iter().all(Option::is_none);

    let batches = frame.execute_stream().await.map_err(engine_error)?;
    let data_rows = batches.flat_map(move |batch| {
        type Rows = Box<dyn Iterator<Item = PgWireResult<DataRow>> + Send + Sync>;
        let rows: Rows = match batch.and_then(|b| if unchanged { Ok(b) } else { with_places(&b, &places) }) {
            Ok(batch) => encode_recordbatch(encoded.clone(), batch),
            Err(error) => Box::new(std::iter::once(Err(engine_error(error)))),
        };
        futures::stream::iter(rows)
    });
    Ok(QueryResponse::new(told, data_rows))
}

/// A column of geometries in an answer.
#[derive(Clone, Copy)]
struct Place {
    srid: i32,
    hex: bool,
}

fn with_places(batch: &RecordBatch, places: &[Option<Place>]) -> Result<RecordBatch, DataFusionError> {
    let mut fields = Vec::with_capacity(places.len());
    let mut columns = Vec::with_capacity(places.len());
    for ((column, field), place) in batch.columns().iter().zip(batch.schema().fields()).zip(places) {
        let column = match place {
            None => column.clone(),
            Some(Place { srid, hex: true }) => geometry::ewkb_hex(column, *srid),
            Some(Place { srid, hex: false }) => geometry::ewkb(column, *srid),
        };
        fields.push(match place {
            None => field.as_ref().clone(),
            Some(_) => Field::new(field.name(), column.data_type().clone(), true),
        });
        columns.push(column);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?)
}

/// A prepared statement's plan with the values that were bound to it.
pub(super) fn bound<S: Clone>(plan: &LogicalPlan, portal: &Portal<S>, wire_types: &[Type]) -> PgWireResult<LogicalPlan> {
    let inferred = parameter_types(plan).map_err(engine_error)?;
    // A statement may have lost some of its parameters: those of queries without rows.
    let n_parameters = inferred.iter().map(|(place, _)| *place).max().unwrap_or(0).max(portal.parameter_len());
    let mut data_types: Vec<Option<&DataType>> = vec![None; n_parameters];
    let mut wire: Vec<Option<&Type>> = vec![Some(&Type::TEXT); n_parameters];
    for (k, (place, data_type)) in inferred.iter().enumerate() {
        if let Some(at) = place.checked_sub(1) {
            data_types[at] = data_type.as_ref();
            wire[at] = wire_types.get(k);
        }
    }
    let inferred = data_types;
    let values = deserialize_parameters_with_server_types(portal, &inferred, &wire)?;
    plan.clone().replace_params_with_values(&values).map_err(engine_error)
}

/// The types of the parameters `$1`, `$2`, ... as far as they are known: from what they are compared with, or from a cast.
fn parameter_types(plan: &LogicalPlan) -> Result<Vec<(usize, Option<DataType>)>, DataFusionError> {
    let mut types: HashMap<String, Option<DataType>> = plan.get_parameter_types()?;
    plan.apply_with_subqueries(|node| {
        for expr in node.expressions() {
            expr.apply(|e| {
                if let Expr::Cast(cast) = e
                    && let Expr::Placeholder(placeholder) = &*cast.expr
                {
                    let known = types.entry(placeholder.id.clone()).or_default();
                    known.get_or_insert_with(|| cast.field.data_type().clone());
                }
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    let mut ordered: Vec<(usize, Option<DataType>)> =
        types.into_iter().map(|(id, t)| (id.trim_start_matches('$').parse().unwrap_or(0), t)).collect();
    ordered.sort_by_key(|(i, _)| *i);
    Ok(ordered)
}

fn engine_error(error: DataFusionError) -> PgWireError {
    PgWireError::ApiError(Box::new(error))
}
