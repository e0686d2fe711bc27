//! Geometries in WGS 84, longitude first.

use std::sync::Arc;

use geo::{BoundingRect, CoordsIter};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// The most positions one geometry may have; a city outline has thousands, a mistake has millions.
pub const POSITIONS_MAX: usize = 100_000;

/// A checked geometry: point, line, polygon or several of one kind; WGS 84, longitude then latitude, degrees. Cheap to clone.
///
/// Keeps the GeoJSON it came from, so that what was given is what is returned (third coordinates included).
#[derive(Clone, Debug)]
pub struct Geometry {
    json: Arc<Value>,
    shape: Arc<geo::Geometry<f64>>,
}

/// Why a JSON value is not a geometry.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum GeometryError {
    /// Not GeoJSON.
    #[error("not a GeoJSON geometry: {reason}")]
    Form {
        /// What the parser found.
        reason: String,
    },
    /// A kind of geometry that NGSI-LD excludes.
    #[error("geometry type `{found}` is not allowed (expected Point, MultiPoint, LineString, MultiLineString, Polygon or MultiPolygon)")]
    Kind {
        /// The type as found.
        found: String,
    },
    /// A coordinate off the Earth.
    #[error(
        "position [{lon}, {lat}] is impossible: longitude must be within -180..180 and latitude within -90..90 (longitude comes first)"
    )]
    OffEarth {
        /// Longitude as found.
        lon: f64,
        /// Latitude as found.
        lat: f64,
    },
    /// A line or ring with too few positions, or a ring that does not close.
    #[error("{what}")]
    Shape {
        /// What is wrong.
        what: &'static str,
    },
    /// More than [`POSITIONS_MAX`] positions.
    #[error("{found} positions are more than the limit of {POSITIONS_MAX}")]
    TooLarge {
        /// How many.
        found: usize,
    },
}

impl Geometry {
    /// A point.
    ///
    /// # Panics
    /// If it is not on the Earth: for positions of our own making.
    #[must_use]
    pub fn point(lon: f64, lat: f64) -> Self {
        Self::of_plain_point([lon, lat]).expect("a position on the Earth")
    }

    /// The point whose GeoJSON is `{"type": "Point", "coordinates": [lon, lat]}`; none if it is not on the Earth.
    pub(crate) fn of_plain_point([lon, lat]: [f64; 2]) -> Option<Self> {
        if !(-180.0..=180.0).contains(&lon) || !(-90.0..=90.0).contains(&lat) {
            return None;
        }
        let json = serde_json::json!({"type": "Point", "coordinates": [lon, lat]});
        Some(Self { json: Arc::new(json), shape: Arc::new(geo::Point::new(lon, lat).into()) })
    }

    /// The coordinates, if [`Self::of_plain_point`] makes exactly this geometry of them.
    pub(crate) fn plain_point(&self) -> Option<[f64; 2]> {
        let Value::Object(members) = self.json.as_ref() else { return None };
        let coordinates = members.get("coordinates")?.as_array()?;
        let (Some(Value::String(kind)), [lon, lat], 2) = (members.get("type"), coordinates.as_slice(), members.len()) else { return None };
        // Written as floating-point numbers and with the type first: integers and another order are kept as they were given.
        let is_plain = kind == "Point" && lon.is_f64() && lat.is_f64() && members.keys().next().is_some_and(|k| k == "type");
        if is_plain { Some([lon.as_f64()?, lat.as_f64()?]) } else { None }
    }

    /// Does this object read as a geometry, of a type that NGSI-LD knows?
    #[must_use]
    pub fn looks_like_one(value: &Value) -> bool {
        const TYPES: [&str; 6] = ["Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon"];
        value.get("type").and_then(Value::as_str).is_some_and(|t| TYPES.contains(&t)) && value.get("coordinates").is_some()
    }

    /// Checks a GeoJSON geometry object.
    pub fn from_json(json: Value) -> Result<Self, GeometryError> {
        let parsed =
            serde_json::from_value::<geojson::Geometry>(json.clone()).map_err(|e| GeometryError::Form { reason: e.to_string() })?;
        check_rings(&parsed.value)?;
        let shape = geo::Geometry::<f64>::try_from(&parsed.value).map_err(|e| GeometryError::Form { reason: e.to_string() })?;
        if let geo::Geometry::GeometryCollection(_) = shape {
            return Err(GeometryError::Kind { found: "GeometryCollection".into() });
        }
        let n_positions = shape.coords_count();
        if n_positions > POSITIONS_MAX {
            return Err(GeometryError::TooLarge { found: n_positions });
        }
        if n_positions == 0 {
            return Err(GeometryError::Shape { what: "a geometry needs at least one position" });
        }
        if let Some(c) = shape.coords_iter().find(|c| !(-180.0..=180.0).contains(&c.x) || !(-90.0..=90.0).contains(&c.y)) {
            return Err(GeometryError::OffEarth { lon: c.x, lat: c.y });
        }
        Ok(Self { json: Arc::new(json), shape: Arc::new(shape) })
    }

    /// The GeoJSON object as it was given.
    #[must_use]
    pub fn json(&self) -> &Value {
        &self.json
    }

    /// The shape for computing.
    #[must_use]
    pub fn shape(&self) -> &geo::Geometry<f64> {
        &self.shape
    }

    /// The position if it is a point.
    #[must_use]
    pub fn as_point(&self) -> Option<geo::Point<f64>> {
        match *self.shape {
            geo::Geometry::Point(p) => Some(p),
            _ => None,
        }
    }

    /// The bounding box: `[west, south, east, north]`, degrees.
    #[must_use]
    pub fn bbox(&self) -> [f64; 4] {
        let r = self.shape.bounding_rect().expect("a checked geometry has a position");
        [r.min().x, r.min().y, r.max().x, r.max().y]
    }

    /// The same geometry with every coordinate rounded to `decimals` decimals of a degree (one decimal is about 11 km of latitude).
    ///
    /// Third coordinates are dropped: they would say more than the rounded place.
    #[must_use]
    pub fn rounded(&self, decimals: u8) -> Self {
        use geo::MapCoords;
        let k = 10f64.powi(i32::from(decimals));
        let shape = self.shape.map_coords(|c| geo::Coord { x: (c.x * k).round() / k, y: (c.y * k).round() / k });
        let json = serde_json::to_value(geojson::Geometry::from(&shape)).expect("a geometry is JSON");
        Self { json: Arc::new(json), shape: Arc::new(shape) }
    }
}

fn check_rings(value: &geojson::GeometryValue) -> Result<(), GeometryError> {
    use geojson::GeometryValue as V;
    let line = |l: &Vec<geojson::Position>| {
        if l.len() < 2 { Err(GeometryError::Shape { what: "a LineString needs at least two positions" }) } else { Ok(()) }
    };
    let ring = |r: &Vec<geojson::Position>| match (r.first(), r.last()) {
        (Some(a), Some(b)) if r.len() >= 4 && a == b => Ok(()),
        _ => Err(GeometryError::Shape { what: "a Polygon ring needs at least four positions, the last equal to the first" }),
    };
    match value {
        V::LineString { coordinates } => line(coordinates),
        V::MultiLineString { coordinates } => coordinates.iter().try_for_each(line),
        V::Polygon { coordinates } => coordinates.iter().try_for_each(ring),
        V::MultiPolygon { coordinates } => coordinates.iter().flatten().try_for_each(ring),
        _ => Ok(()),
    }
}

impl PartialEq for Geometry {
    fn eq(&self, other: &Self) -> bool {
        self.json == other.json
    }
}

impl Serialize for Geometry {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.json.serialize(s)
    }
}

impl<'de> Deserialize<'de> for Geometry {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::from_json(Value::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn impossible_geometries_are_refused_with_the_reason() {
        check(json!({"type": "Point", "coordinates": [200.0, 0.0]}), "longitude must be within");
        check(json!({"type": "Point", "coordinates": [0.0, 91.0]}), "latitude within");
        check(json!({"type": "Point", "coordinates": []}), "GeoJSON");
        check(json!({"type": "Point", "coordinates": ["a", 1]}), "GeoJSON");
        check(json!({"type": "Pint", "coordinates": [1, 1]}), "GeoJSON");
        check(json!({"type": "LineString", "coordinates": [[1, 1]]}), "two positions");
        check(json!({"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 1]]]}), "last equal to the first");
        check(json!({"type": "GeometryCollection", "geometries": []}), "not allowed");
        check(json!("Point"), "GeoJSON");

        #[track_caller]
        fn check(value: Value, want: &str) {
            let error = Geometry::from_json(value).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
    }

    #[test]
    fn rounding_coarsens_every_coordinate() {
        let g = Geometry::from_json(json!({"type": "Point", "coordinates": [116.2254, 39.9279, 50.0]})).unwrap();
        assert_eq!(g.rounded(1).json(), &json!({"type": "Point", "coordinates": [116.2, 39.9]}));
    }
}
