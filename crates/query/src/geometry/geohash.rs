//! Geohashes: a place as a text, of which a beginning is a larger place around it.
//!
//! Source: G. Niemeyer's description; the letters and the order of bits as in PostGIS.

use datafusion::error::{DataFusionError, Result};
use geo::{BoundingRect, Geometry};

const LETTERS: &[u8; 32] = b"0123456789bcdefghjkmnpqrstuvwxyz";
/// More characters say nothing more about a number of 64 bits.
const CHARACTERS_MAX: usize = 20;

/// The geohash of a geometry in degrees: of a point with as many characters as are asked for, of anything else the longest one that has all of it.
/// None if it is empty.
///
/// Errors: it is not in degrees, or the number of characters is not between 1 and 20.
pub(super) fn of(geometry: &Geometry<f64>, n_characters: Option<f64>) -> Result<Option<String>> {
    let Some(rect) = geometry.bounding_rect() else { return Ok(None) };
    let (low, high) = (rect.min(), rect.max());
    if low.x < -180.0 || high.x > 180.0 || low.y < -90.0 || high.y > 90.0 {
        let reason = format!("ST_GeoHash needs degrees, found a geometry from ({}, {}) to ({}, {})", low.x, low.y, high.x, high.y);
        return Err(DataFusionError::Execution(reason));
    }
    let most = match n_characters {
        None => CHARACTERS_MAX,
        Some(n) if n >= 1.0 && n <= CHARACTERS_MAX as f64 => n as usize,
        Some(n) => return Err(DataFusionError::Execution(format!("ST_GeoHash gives 1 to {CHARACTERS_MAX} characters, not {n}"))),
    };
    let (first, second) = (encode(low.x, low.y, most), encode(high.x, high.y, most));
    let same = first.bytes().zip(second.bytes()).take_while(|(a, b)| a == b).count();
    Ok(Some(first[..same].to_owned()))
}

fn encode(lon: f64, lat: f64, n_characters: usize) -> String {
    let (mut lons, mut lats) = ((-180.0, 180.0), (-90.0, 90.0));
    let mut hash = String::with_capacity(n_characters);
    let mut even = true;
    for _ in 0..n_characters {
        let mut letter = 0;
        for _ in 0..5 {
            let (value, bounds) = if even { (lon, &mut lons) } else { (lat, &mut lats) };
            let middle = f64::midpoint(bounds.0, bounds.1);
            letter <<= 1;
            if value >= middle {
                letter |= 1;
                bounds.0 = middle;
            } else {
                bounds.1 = middle;
            }
            even = !even;
        }
        hash.push(char::from(LETTERS[letter]));
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use geo::{line_string, point};

    #[test]
    fn geohashes_are_those_of_postgis() {
        // ST_GeoHash's documentation, and PostGIS 3.3 for the second one.
        let place = Geometry::Point(point!(x: -126.0, y: 48.0));
        assert_eq!(of(&place, None).unwrap().unwrap(), "c0w3hf1s70w3hf1s70w3");
        assert_eq!(of(&place, Some(5.0)).unwrap().unwrap(), "c0w3h");
        assert_eq!(of(&Geometry::Point(point!(x: 116.2, y: 39.9)), Some(8.0)).unwrap().unwrap(), "wx4dupw6");
        let line = line_string![(x: 116.2, y: 39.9), (x: 116.21, y: 39.9)];
        let around = of(&Geometry::LineString(line), None).unwrap().unwrap();
        assert!("wx4dupw6".starts_with(&around), "{around}");
    }

    #[test]
    fn what_is_not_in_degrees_is_refused() {
        let place = Geometry::Point(point!(x: 12_935_000.0, y: 4_850_000.0));
        assert!(of(&place, None).unwrap_err().to_string().contains("needs degrees"));
        assert!(of(&Geometry::Point(point!(x: 1.0, y: 1.0)), Some(0.0)).is_err());
    }
}
