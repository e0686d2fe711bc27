//! Built-in outlines of cities, drawn by hand (about ±5 km): where simulated devices stand, and an overview for maps.
//!
//! They are no boundaries of record; each file says so in its `note`.

use std::sync::LazyLock;

use geo::{Contains, LineString, Point, Polygon};
use serde::Deserialize;

/// Key and GeoJSON text of each built-in outline.
pub const OUTLINES: [(&str, &str); 8] = [
    ("shanghai", include_str!("../outlines/shanghai.geojson")),
    ("suzhou", include_str!("../outlines/suzhou.geojson")),
    ("hangzhou", include_str!("../outlines/hangzhou.geojson")),
    ("nanjing", include_str!("../outlines/nanjing.geojson")),
    ("beijing", include_str!("../outlines/beijing.geojson")),
    ("guangzhou", include_str!("../outlines/guangzhou.geojson")),
    ("shenzhen", include_str!("../outlines/shenzhen.geojson")),
    ("chengdu", include_str!("../outlines/chengdu.geojson")),
];

static PARSED: LazyLock<Vec<Outline>> =
    LazyLock::new(|| OUTLINES.iter().map(|(key, text)| Outline::parse(key, text).expect("a test parses each built-in outline")).collect());

/// A city's outline and what is known about its centre.
#[derive(Debug, Clone)]
pub struct Outline {
    /// Lower-case key, as in topics and entity ids.
    pub key: String,
    /// English name.
    pub name_en: String,
    /// Chinese name.
    pub name_zh: String,
    /// Longitude of the centre, degrees, WGS-84.
    pub lon: f64,
    /// Latitude of the centre, degrees, WGS-84.
    pub lat: f64,
    /// Height of the centre above the sea, metres.
    pub elevation_m: f64,
    /// How the outline was made and how far it can be trusted.
    pub note: String,
    polygon_wgs84: Polygon<f64>,
}

/// No outline is built in for that key.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("no built-in outline of city `{key}`, expected one of {known}")]
pub struct UnknownCity {
    /// The key asked for.
    pub key: String,
    /// The keys that exist, comma-separated.
    pub known: String,
}

#[derive(Deserialize)]
struct Feature {
    properties: Properties,
    geometry: Geometry,
}

#[derive(Deserialize)]
struct Properties {
    key: String,
    name_en: String,
    name_zh: String,
    lon: f64,
    lat: f64,
    elevation_m: f64,
    note: String,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum Geometry {
    Polygon { coordinates: Vec<Vec<[f64; 2]>> },
}

/// The built-in outline of a city, by its key (`shanghai`, `suzhou`, …).
pub fn outline(key: &str) -> Result<&'static Outline, UnknownCity> {
    PARSED
        .iter()
        .find(|outline| outline.key == key)
        .ok_or_else(|| UnknownCity { key: key.to_owned(), known: OUTLINES.map(|(key, _)| key).join(", ") })
}

impl Outline {
    /// The outline as a polygon, longitude before latitude, degrees, WGS-84.
    pub fn polygon_wgs84(&self) -> &Polygon<f64> {
        &self.polygon_wgs84
    }

    /// Whether the point lies inside.
    pub fn contains(&self, lon: f64, lat: f64) -> bool {
        self.polygon_wgs84.contains(&Point::new(lon, lat))
    }

    fn parse(key: &str, text: &str) -> Result<Self, serde_json::Error> {
        let Feature { properties, geometry: Geometry::Polygon { coordinates } } = serde_json::from_str(text)?;
        assert_eq!(properties.key, key, "the outline's key is its file name");
        let mut rings = coordinates.into_iter().map(LineString::from);
        let exterior = rings.next().unwrap_or_else(|| LineString::new(Vec::new()));
        Ok(Self {
            key: properties.key,
            name_en: properties.name_en,
            name_zh: properties.name_zh,
            lon: properties.lon,
            lat: properties.lat,
            elevation_m: properties.elevation_m,
            note: properties.note,
            polygon_wgs84: Polygon::new(exterior, rings.collect()),
        })
    }
}

#[cfg(test)]
mod tests {
    use geo::line_intersection::line_intersection;
    use geo::{Area, CoordsIter, LineIntersection, Validation};

    use super::*;

    #[test]
    fn every_outline_is_closed_simple_and_holds_its_centre() {
        for (key, text) in OUTLINES {
            let raw: Feature = serde_json::from_str(text).unwrap();
            let Geometry::Polygon { coordinates } = raw.geometry;
            assert_eq!(coordinates.len(), 1, "{key}: one ring");
            assert_eq!(coordinates[0].first(), coordinates[0].last(), "{key}: closed");
            let outline = outline(key).unwrap();
            let n_vertices = outline.polygon_wgs84().coords_count() - 1;
            assert!((15..=30).contains(&n_vertices), "{key}: {n_vertices} vertices");
            assert!(outline.polygon_wgs84().is_valid(), "{key}: valid");
            assert!(outline.polygon_wgs84().signed_area() > 0.0, "{key}: counter-clockwise, RFC 7946 section 3.1.6");
            assert!(outline.contains(outline.lon, outline.lat), "{key}: centre inside");
            assert!(outline.note.contains("±5 km"), "{key}: accuracy stated");
            assert!(crossings(outline).is_empty(), "{key}: crosses itself at {:?}", crossings(outline));
        }
    }

    /// An oracle that shares nothing with `is_valid`: each pair of sides that are not neighbours.
    fn crossings(outline: &Outline) -> Vec<LineIntersection<f64>> {
        let sides: Vec<_> = outline.polygon_wgs84().exterior().lines().collect();
        let n = sides.len();
        let mut found = Vec::new();
        for i in 0..n {
            for j in i + 2..n {
                let neighbours = i == 0 && j == n - 1;
                if !neighbours {
                    found.extend(line_intersection(sides[i], sides[j]));
                }
            }
        }
        found
    }

    #[test]
    fn unknown_city_names_the_known_ones() {
        let error = outline("gotham").unwrap_err().to_string();
        assert!(error.contains("`gotham`") && error.contains("shanghai, suzhou"), "{error}");
    }
}
