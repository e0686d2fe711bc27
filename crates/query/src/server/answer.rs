//! Rows as PostgreSQL sends them.
//!
//! The protocol crate encodes everything but geometries, which go out as PostGIS sends them, EWKB of type `geometry`, in hexadecimal digits or bytes,
//! and numbers with a fraction as texts (see [`crate::floats`]).

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::dataframe::DataFrame;
use datafusion::error::DataFusionError;
use datafusion_postgres::arrow_pg::datatypes::{arrow_schema_to_pg_fields, encode_recordbatch};
use datafusion_postgres::pgwire::api::Type;
use datafusion_postgres::pgwire::api::portal::Format;
use datafusion_postgres::pgwire::api::results::{FieldFormat, FieldInfo, QueryResponse};
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::data::DataRow;
use datafusion_postgres::pgwire::types::format::FormatOptions;
use futures::StreamExt;

use crate::catalog::{GEOGRAPHY_OID, GEOMETRY_OID};
use crate::dialect::shown_name;
use crate::floats;
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
    let encoder = Encoder::new(frame.schema().as_arrow(), format, options)?;
    let told = encoder.told.clone();
    let batches = frame.execute_stream().await.map_err(engine_error)?;
    Ok(QueryResponse::new(told, batches.flat_map(move |batch| futures::stream::iter(encoder.encode(batch)))))
}

/// Writes the rows of an answer.
pub(super) struct Encoder {
    /// What the client is told of the columns.
    pub(super) told: Arc<Vec<FieldInfo>>,
    /// What each column becomes.
    shown: Vec<Shown>,
    /// How they are encoded after that.
    encoded: Arc<Vec<FieldInfo>>,
}

type Encoded = Box<dyn Iterator<Item = PgWireResult<DataRow>> + Send + Sync>;

impl Encoder {
    pub(super) fn new(schema: &Schema, format: &Format, options: FormatOptions) -> PgWireResult<Self> {
        let extra_digits = options.extra_float_digits;
        let options = Some(Arc::new(options));
        let told = Arc::new(fields(schema, format, options.clone())?);
        let shown: Vec<Shown> = (schema.fields().iter().zip(told.iter()))
            .map(|(field, info)| {
                let as_text = info.format() == FieldFormat::Text;
                match Reference::of(field).filter(|_| is_geometry(field)) {
                    Some(Reference { srid, .. }) if as_text => Shown::Hex { srid },
                    Some(Reference { srid, .. }) => Shown::Bytes { srid },
                    None if as_text && floats::is_written(field.data_type()) => Shown::Number { extra_digits },
                    None => Shown::AsItIs,
                }
            })
            .collect();
        let plain: Vec<Field> = (schema.fields().iter().zip(&shown))
            .map(|(field, shown)| match shown {
                Shown::Hex { .. } => Field::new(field.name(), DataType::Utf8, true),
                Shown::Bytes { .. } => Field::new(field.name(), DataType::Binary, true),
                Shown::Number { .. } => Field::new(field.name(), floats::type_of_texts(field.data_type()), true),
                Shown::AsItIs => field.as_ref().clone(),
            })
            .collect();
        let encoded = Arc::new(arrow_schema_to_pg_fields(&Schema::new(plain), format, options)?);
        Ok(Self { told, shown, encoded })
    }

    pub(super) fn encode(&self, batch: Result<RecordBatch, DataFusionError>) -> Encoded {
        let unchanged = self.shown.iter().all(|s| matches!(s, Shown::AsItIs));
        match batch.and_then(|b| if unchanged { Ok(b) } else { changed(&b, &self.shown) }) {
            Ok(batch) => encode_recordbatch(self.encoded.clone(), batch),
            Err(error) => Box::new(std::iter::once(Err(engine_error(error)))),
        }
    }
}

/// What a column of an answer becomes before the protocol crate encodes it.
#[derive(Clone, Copy)]
enum Shown {
    AsItIs,
    /// Geometries in hexadecimal digits.
    Hex {
        srid: i32,
    },
    /// Geometries in bytes.
    Bytes {
        srid: i32,
    },
    /// Numbers with a fraction, or lists of them, as texts.
    Number {
        extra_digits: i8,
    },
}

fn changed(batch: &RecordBatch, shown: &[Shown]) -> Result<RecordBatch, DataFusionError> {
    let mut fields = Vec::with_capacity(shown.len());
    let mut columns = Vec::with_capacity(shown.len());
    for ((column, field), shown) in batch.columns().iter().zip(batch.schema().fields()).zip(shown) {
        let column = match *shown {
            Shown::AsItIs => column.clone(),
            Shown::Hex { srid } => geometry::ewkb_hex(column, srid),
            Shown::Bytes { srid } => geometry::ewkb(column, srid),
            Shown::Number { extra_digits } => floats::texts(column, extra_digits)?,
        };
        fields.push(match shown {
            Shown::AsItIs => field.as_ref().clone(),
            _ => Field::new(field.name(), column.data_type().clone(), true),
        });
        columns.push(column);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?)
}

pub(super) fn engine_error(error: DataFusionError) -> PgWireError {
    PgWireError::ApiError(Box::new(error))
}
