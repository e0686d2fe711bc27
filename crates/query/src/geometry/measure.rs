//! How far, how long, how large: in the plane of the coordinates, and in metres on the Earth.
//!
//! On the Earth distances between points are exact on the WGS 84 ellipsoid (Karney) or the sphere (haversine). Distances to lines and areas take
//! the nearest position in a plane laid around the place and measure exactly to it: within 0.5 % up to some 200 km, which is as far as a city asks.

use geo::line_measures::LengthMeasurable;
use geo::{
    Area, BoundingRect, Centroid, ClosestPoint, Coord, Distance, Euclidean, Geodesic, GeodesicArea, Geometry, Haversine, Intersects,
    Length, MapCoords, Point, Rect,
};

/// Mean radius of the Earth in metres (IUGG), on which haversine distances are measured.
const RADIUS_M: f64 = 6_371_008.8;
/// Half the equator's diameter in metres (WGS 84), on which Web Mercator is drawn.
const EQUATOR_M: f64 = 6_378_137.0;

/// The figure of the Earth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Earth {
    /// The WGS 84 ellipsoid.
    Ellipsoid,
    /// A sphere of mean radius: a little faster, up to 0.5 % off.
    Sphere,
}

/// The distance in the units of the coordinates.
pub(crate) fn planar(a: &Geometry<f64>, b: &Geometry<f64>) -> f64 {
    Euclidean.distance(a, b)
}

/// The distance in metres between places in degrees. None if one is empty.
pub(crate) fn metres(a: &Geometry<f64>, b: &Geometry<f64>, earth: Earth) -> Option<f64> {
    let between = |p, q| match earth {
        Earth::Ellipsoid => Geodesic.distance(p, q),
        Earth::Sphere => Haversine.distance(p, q),
    };
    if let (Geometry::Point(p), Geometry::Point(q)) = (a, b) {
        return Some(between(*p, *q));
    }
    let middle = b.bounding_rect()?.center();
    a.bounding_rect()?;
    if a.intersects(b) {
        return Some(0.0);
    }
    // A plane with equal scales in both directions around the middle.
    let k = middle.y.to_radians().cos().max(1e-6);
    let flat = |g: &Geometry<f64>| g.map_coords(|c| Coord { x: (c.x - middle.x) * k, y: c.y });
    let lift = |p: Point<f64>| Point::new(p.x() / k + middle.x, p.y());
    let nearest = |to: &Geometry<f64>, from: Point<f64>| match to.closest_point(&from) {
        geo::Closest::Intersection(p) | geo::Closest::SinglePoint(p) => Some(p),
        geo::Closest::Indeterminate => None,
    };
    match (flat(a), flat(b)) {
        (Geometry::Point(p), other) => nearest(&other, p).map(|q| between(lift(p), lift(q))),
        (other, Geometry::Point(p)) => nearest(&other, p).map(|q| between(lift(p), lift(q))),
        (a, b) => Some(Euclidean.distance(&a, &b) * RADIUS_M.to_radians()),
    }
}

/// The length of all lines; 0 for points and areas. In metres if it is on the Earth.
pub(crate) fn length(geometry: &Geometry<f64>, on_earth: bool) -> f64 {
    match geometry {
        Geometry::Line(l) => line_length(l, on_earth),
        Geometry::LineString(l) => line_length(l, on_earth),
        Geometry::MultiLineString(m) => m.0.iter().map(|l| line_length(l, on_earth)).sum(),
        Geometry::GeometryCollection(c) => c.iter().map(|g| length(g, on_earth)).sum(),
        _ => 0.0,
    }
}

fn line_length(line: &impl LengthMeasurable<f64>, on_earth: bool) -> f64 {
    if on_earth { Geodesic.length(line) } else { Euclidean.length(line) }
}

/// The length of all outlines of areas.
pub(crate) fn perimeter(geometry: &Geometry<f64>, on_earth: bool) -> f64 {
    match geometry {
        Geometry::Polygon(p) => {
            let inner: f64 = p.interiors().iter().map(|ring| line_length(ring, on_earth)).sum();
            line_length(p.exterior(), on_earth) + inner
        }
        Geometry::MultiPolygon(m) => m.0.iter().map(|p| perimeter(&Geometry::Polygon(p.clone()), on_earth)).sum(),
        Geometry::GeometryCollection(c) => c.iter().map(|g| perimeter(g, on_earth)).sum(),
        _ => 0.0,
    }
}

/// The area, in square metres if it is on the Earth.
pub(crate) fn area(geometry: &Geometry<f64>, on_earth: bool) -> f64 {
    if on_earth { geometry.geodesic_area_unsigned() } else { geometry.unsigned_area() }
}

/// The centroid; none of an empty geometry.
pub(crate) fn centroid(geometry: &Geometry<f64>) -> Option<Point<f64>> {
    geometry.centroid()
}

/// The box in degrees that holds every place within `distance_m` metres of a geometry; none if the geometry is empty.
///
/// Never too small: at the poles and across the antimeridian it is the whole width of the Earth.
pub(crate) fn around(geometry: &Geometry<f64>, distance_m: f64) -> Option<Rect<f64>> {
    // The smallest length of a degree of latitude, at the equator, and room for the 0.5 % of `metres`.
    const METRES_PER_DEGREE_MIN: f64 = 110_574.0 * 0.99;
    let rect = geometry.bounding_rect()?;
    let degrees = distance_m.max(0.0) / METRES_PER_DEGREE_MIN;
    let (south, north) = ((rect.min().y - degrees).max(-90.0), (rect.max().y + degrees).min(90.0));
    let narrowest = south.abs().max(north.abs()).to_radians().cos();
    let wide = degrees / narrowest.max(1e-9);
    let (west, east) = (rect.min().x - wide, rect.max().x + wide);
    let whole = west < -180.0 || east > 180.0;
    let (west, east) = if whole { (-180.0, 180.0) } else { (west, east) };
    Some(Rect::new(Coord { x: west, y: south }, Coord { x: east, y: north }))
}

/// From one reference system to another; none if the way is not known. Known are 4326 and 4490 (CGCS2000, the same within a metre) in degrees, and 3857
/// (Web Mercator) in metres.
pub(crate) fn transform(geometry: &Geometry<f64>, from: i32, to: i32) -> Option<Geometry<f64>> {
    let degrees = |srid| matches!(srid, 4326 | 4490);
    let to_mercator = |c: Coord<f64>| Coord {
        x: EQUATOR_M * c.x.to_radians(),
        y: EQUATOR_M * (std::f64::consts::FRAC_PI_4 + c.y.to_radians() / 2.0).tan().ln(),
    };
    let from_mercator = |c: Coord<f64>| Coord {
        x: (c.x / EQUATOR_M).to_degrees(),
        y: (2.0 * (c.y / EQUATOR_M).exp().atan() - std::f64::consts::FRAC_PI_2).to_degrees(),
    };
    match (from, to) {
        (a, b) if a == b || degrees(a) && degrees(b) => Some(geometry.clone()),
        (a, 3857) if degrees(a) => Some(geometry.map_coords(to_mercator)),
        (3857, b) if degrees(b) => Some(geometry.map_coords(from_mercator)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use geo::{LineString, polygon};

    #[test]
    fn distances_on_the_earth_are_in_metres() {
        // Beijing and Shanghai are 1,067 km apart.
        let (beijing, shanghai) = (Geometry::Point(Point::new(116.4, 39.9)), Geometry::Point(Point::new(121.47, 31.23)));
        let m = metres(&beijing, &shanghai, Earth::Ellipsoid).unwrap();
        assert!((1_060_000.0..1_075_000.0).contains(&m), "{m}");
        let sphere = metres(&beijing, &shanghai, Earth::Sphere).unwrap();
        assert!((m - sphere).abs() / m < 0.006, "{m} {sphere}");
    }

    #[test]
    fn a_line_is_as_far_as_its_nearest_position() {
        let line = Geometry::LineString(LineString::from(vec![(116.0, 39.9), (116.2, 39.9)]));
        let north = Geometry::Point(Point::new(116.1, 39.909));
        let foot = Geometry::Point(Point::new(116.1, 39.9));
        let (to_line, to_foot) = (metres(&north, &line, Earth::Ellipsoid).unwrap(), metres(&north, &foot, Earth::Ellipsoid).unwrap());
        assert!((to_line - to_foot).abs() < 0.01, "{to_line} {to_foot}");
        assert_eq!(metres(&foot, &line, Earth::Ellipsoid).unwrap().round(), 0.0);
        let area = Geometry::Polygon(polygon![(x: 116.0, y: 39.0), (x: 117.0, y: 39.0), (x: 117.0, y: 40.0), (x: 116.0, y: 40.0)]);
        assert_eq!(metres(&north, &area, Earth::Ellipsoid), Some(0.0));
    }

    #[test]
    fn the_box_around_holds_what_is_near() {
        for (lon, lat) in [(116.4, 39.9), (0.0, 0.0), (25.0, 78.0), (179.9, 60.0)] {
            let centre = Geometry::Point(Point::new(lon, lat));
            for distance_m in [1.0, 500.0, 50_000.0] {
                let rect = around(&centre, distance_m).unwrap();
                for bearing in (0..360).step_by(10) {
                    use geo::Destination;
                    let edge = Geodesic.destination(Point::new(lon, lat), f64::from(bearing), distance_m);
                    assert!(rect.intersects(&edge), "{lon} {lat} {distance_m} {bearing}: {edge:?} {rect:?}");
                }
            }
        }
    }

    #[test]
    fn web_mercator_and_back() {
        let place = Geometry::Point(Point::new(116.4, 39.9));
        let Some(Geometry::Point(p)) = transform(&place, 4326, 3857) else { panic!() };
        // From epsg.io.
        assert!((p.x() - 12_957_588.7).abs() < 1.0 && (p.y() - 4_851_421.3).abs() < 400.0, "{p:?}");
        let Some(Geometry::Point(back)) = transform(&Geometry::Point(p), 3857, 4326) else { panic!() };
        assert!((back.x() - 116.4).abs() < 1e-9 && (back.y() - 39.9).abs() < 1e-9, "{back:?}");
        assert!(transform(&place, 4326, 2154).is_none());
    }
}
