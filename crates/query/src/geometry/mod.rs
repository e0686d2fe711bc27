//! Geometries in SQL: how they lie in columns, and the `ST_` functions over them.
//!
//! A geometry is well-known binary in a binary column whose field carries the GeoArrow extension `geoarrow.wkb` with its reference system, so
//! Arrow clients know what it is. One representation for all kinds of geometry can be compared, grouped, joined and sorted like
//! any other value, which the native layouts of GeoArrow cannot. A reference system of 0 means that it is not known.
//!
//! * [`wkb`] reads and writes the bytes.
//! * [`functions`] are the functions that are usual in PostGIS, computed by the crate `geo`.
//! * [`adapter`] brings in the remaining ones of the crate `geodatafusion`, whose layouts are its own affair.
//! * [`geohash`] writes a place as a geohash.
//! * [`settle`] finds out reference systems that are parameters of a statement.
//! * [`written`] are the texts that stand for geometries.
//! * [`measure`] are distances, lengths and areas, in the plane and on the Earth.

mod adapter;
mod functions;
mod geohash;
pub(crate) mod measure;
mod settle;
pub(crate) mod wkb;
mod written;

use std::collections::HashMap;
use std::sync::Arc;

pub(crate) use settle::settle;

use arrow::array::{ArrayRef, AsArray, BinaryBuilder, StringBuilder};
use arrow::datatypes::{DataType, Field};
use datafusion::error::{DataFusionError, Result};
use datafusion::prelude::SessionContext;
use entity::Geometry;

/// The reference system of everything that a node keeps: WGS 84, longitude first.
pub(crate) const WGS84: i32 = 4326;
/// Keys of a field's metadata.
const EXTENSION_NAME: &str = "ARROW:extension:name";
const EXTENSION_METADATA: &str = "ARROW:extension:metadata";
const WKB_EXTENSION: &str = "geoarrow.wkb";

/// What is known of a column of geometries besides their bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Reference {
    /// The EPSG code, 0 if it is not known.
    pub(crate) srid: i32,
    /// Measured on the Earth in metres (PostGIS's type `geography`) instead of in the plane.
    pub(crate) on_earth: bool,
}

impl Reference {
    /// Of a field; none if it is no geometry.
    pub(crate) fn of(field: &Field) -> Option<Self> {
        if field.metadata().get(EXTENSION_NAME).is_none_or(|name| name != WKB_EXTENSION) {
            return None;
        }
        let text = field.metadata().get(EXTENSION_METADATA).map_or("{}", String::as_str);
        let details: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
        let srid = match &details["crs"] {
            serde_json::Value::String(code) if code == "OGC:CRS84" => WGS84,
            serde_json::Value::String(code) => code.strip_prefix("EPSG:").and_then(|c| c.parse().ok()).unwrap_or(0),
            projjson => projjson["id"]["code"].as_i64().and_then(|c| c.try_into().ok()).unwrap_or(0),
        };
        Some(Self { srid, on_earth: details["edges"].is_string() })
    }

    /// The metadata of a field with such geometries.
    fn metadata(self) -> HashMap<String, String> {
        let mut details = serde_json::Map::new();
        if self.srid != 0 {
            details.insert("crs".to_owned(), format!("EPSG:{}", self.srid).into());
            details.insert("crs_type".to_owned(), "authority_code".into());
        }
        if self.on_earth {
            details.insert("edges".to_owned(), "karney".into());
        }
        let mut metadata = HashMap::from([(EXTENSION_NAME.to_owned(), WKB_EXTENSION.to_owned())]);
        if !details.is_empty() {
            metadata.insert(EXTENSION_METADATA.to_owned(), serde_json::Value::Object(details).to_string());
        }
        metadata
    }

    /// A field with such geometries.
    pub(crate) fn field(self, name: &str) -> Field {
        Field::new(name, DataType::Binary, true).with_metadata(self.metadata())
    }
}

/// The field of a column with places as the node keeps them. `iri` is the attribute's full name.
pub(crate) fn place_field(name: &str, iri: &str) -> Field {
    let field = Reference { srid: WGS84, on_earth: false }.field(name);
    let mut metadata = field.metadata().clone();
    metadata.insert("iri".to_owned(), iri.to_owned());
    field.with_metadata(metadata)
}

/// A column of places from their GeoJSON, as the history keeps them. What is no geometry becomes null: an attribute `location` may
/// have been something else at some time.
pub(crate) fn places_of_json(texts: &ArrayRef) -> ArrayRef {
    let mut builder = BinaryBuilder::new();
    for text in texts.as_string::<i32>() {
        let place = text.and_then(|t| serde_json::from_str(t).ok()).and_then(|json| Geometry::from_json(json).ok());
        builder.append_option(place.map(|g| wkb::write(g.shape())));
    }
    Arc::new(builder.finish())
}

/// A column of geometries as PostGIS sends it: the bytes with their reference system, in hexadecimal digits.
pub(crate) fn ewkb_hex(column: &ArrayRef, srid: i32) -> ArrayRef {
    let mut builder = StringBuilder::new();
    for wkb in column.as_binary::<i32>() {
        builder.append_option(wkb.map(|w| wkb::to_hex(&wkb::with_srid(w, srid))));
    }
    Arc::new(builder.finish())
}

/// The same in bytes, for clients that ask for the binary format.
pub(crate) fn ewkb(column: &ArrayRef, srid: i32) -> ArrayRef {
    let mut builder = BinaryBuilder::new();
    for wkb in column.as_binary::<i32>() {
        builder.append_option(wkb.map(|w| wkb::with_srid(w, srid)));
    }
    Arc::new(builder.finish())
}

/// Makes all functions known to a session.
///
/// Errors: only if the crate `geodatafusion` lacks what the adapter is built on.
pub(crate) fn register(context: &SessionContext) -> Result<()> {
    let adapted = adapter::Adapter::new()?;
    for function in adapted.functions() {
        context.register_udf(function);
    }
    // Ours win over those of the same name.
    for function in functions::all(&Arc::new(adapted)) {
        context.register_udf(function);
    }
    Ok(())
}

/// The arguments and the answer of a function, as numbers of types in `pg_type`; none if it is not one of ours.
pub(crate) fn signature_of(name: &str) -> Option<(Vec<i32>, i32)> {
    functions::signature_of(name)
}

/// Says in the engine's terms what is wrong with a value.
fn wrong(reason: impl std::fmt::Display) -> DataFusionError {
    DataFusionError::Execution(reason.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_system_travels_with_the_field() {
        for reference in [
            Reference { srid: WGS84, on_earth: false },
            Reference { srid: WGS84, on_earth: true },
            Reference { srid: 3857, on_earth: false },
            Reference::default(),
        ] {
            assert_eq!(Reference::of(&reference.field("g")), Some(reference));
        }
        assert_eq!(Reference::of(&Field::new("g", DataType::Binary, true)), None);
        let projjson = r#"{"crs":{"type":"GeographicCRS","id":{"authority":"EPSG","code":4490}},"crs_type":"projjson"}"#;
        let metadata = [(EXTENSION_NAME, WKB_EXTENSION), (EXTENSION_METADATA, projjson)].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let field = Field::new("g", DataType::Binary, true).with_metadata(metadata.into());
        assert_eq!(Reference::of(&field).unwrap().srid, 4490);
    }
}
