//! Well-known binary: how geometries lie in columns, and the extended form with a reference system (EWKB) that PostGIS writes.

use geo::{Coord, Geometry, GeometryCollection, LineString, MultiLineString, MultiPoint, MultiPolygon, Point, Polygon};

/// The most positions one geometry may have.
pub(crate) const POSITIONS_MAX: usize = 1_000_000;
/// How deep collections may lie in collections.
const DEPTH_MAX: usize = 16;

/// Bits of the kind in EWKB: a third coordinate, a fourth, a reference system.
const HAS_Z: u32 = 0x8000_0000;
const HAS_M: u32 = 0x4000_0000;
const HAS_SRID: u32 = 0x2000_0000;

/// Why bytes are not a geometry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WkbError {
    /// They end too early.
    #[error("a geometry in WKB ends too early, at byte {at}")]
    Short {
        /// Where more was expected.
        at: usize,
    },
    /// A byte or kind that WKB does not know.
    #[error("not a geometry in WKB: {what} {found} at byte {at}")]
    Unknown {
        /// What is unknown.
        what: &'static str,
        /// As found.
        found: u32,
        /// Where.
        at: usize,
    },
    /// More than [`POSITIONS_MAX`] positions, or collections nested deeper than allowed.
    #[error("a geometry has more than {POSITIONS_MAX} positions or {DEPTH_MAX} levels")]
    TooLarge,
    /// Text that should be hexadecimal digits.
    #[error("not hexadecimal digits")]
    Hex,
}

/// Reads WKB or EWKB: the shape in two dimensions, and the reference system if one is given. Further coordinates are dropped.
pub(crate) fn read(bytes: &[u8]) -> Result<(Geometry<f64>, Option<i32>), WkbError> {
    let mut reader = Reader { bytes, at: 0, n_positions: 0 };
    reader.geometry(0)
}

struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
    n_positions: usize,
}

/// The head of one geometry.
struct Head {
    little: bool,
    kind: u32,
    n_dimensions: usize,
    srid: Option<i32>,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], WkbError> {
        let end = self.at + N;
        let found = self.bytes.get(self.at..end).ok_or(WkbError::Short { at: self.bytes.len() })?;
        self.at = end;
        Ok(found.try_into().expect("a slice of N bytes"))
    }

    fn number(&mut self, little: bool) -> Result<u32, WkbError> {
        let four = self.take::<4>()?;
        Ok(if little { u32::from_le_bytes(four) } else { u32::from_be_bytes(four) })
    }

    fn head(&mut self) -> Result<Head, WkbError> {
        let at = self.at;
        let [order] = self.take::<1>()?;
        let little = match order {
            0 => false,
            1 => true,
            found => return Err(WkbError::Unknown { what: "byte order", found: found.into(), at }),
        };
        let code = self.number(little)?;
        let srid = if code & HAS_SRID == 0 { None } else { Some(i32::from_ne_bytes(self.number(little)?.to_ne_bytes())) };
        let plain = code & !(HAS_Z | HAS_M | HAS_SRID);
        // ISO writes further dimensions as thousands, EWKB as bits.
        let (kind, iso) = (plain % 1_000, plain / 1_000);
        let further = match iso {
            0 => usize::from(code & HAS_Z != 0) + usize::from(code & HAS_M != 0),
            1 | 2 => 1,
            3 => 2,
            _ => return Err(WkbError::Unknown { what: "kind", found: plain, at }),
        };
        Ok(Head { little, kind, n_dimensions: 2 + further, srid })
    }

    fn coord(&mut self, head: &Head) -> Result<Coord<f64>, WkbError> {
        let mut values = [0.0; 2];
        for i in 0..head.n_dimensions {
            let eight = self.take::<8>()?;
            let value = if head.little { f64::from_le_bytes(eight) } else { f64::from_be_bytes(eight) };
            if let Some(slot) = values.get_mut(i) {
                *slot = value;
            }
        }
        self.n_positions += 1;
        if self.n_positions > POSITIONS_MAX {
            return Err(WkbError::TooLarge);
        }
        Ok(Coord { x: values[0], y: values[1] })
    }

    fn line(&mut self, head: &Head) -> Result<LineString<f64>, WkbError> {
        let n = self.number(head.little)?;
        // Grows with what is really there: the count may be a lie.
        let mut coords = Vec::with_capacity((n as usize).min(1_024));
        for _ in 0..n {
            coords.push(self.coord(head)?);
        }
        Ok(LineString(coords))
    }

    fn polygon(&mut self, head: &Head) -> Result<Polygon<f64>, WkbError> {
        let n = self.number(head.little)?;
        let mut rings = Vec::new();
        for _ in 0..n {
            rings.push(self.line(head)?);
        }
        if rings.is_empty() {
            return Ok(Polygon::new(LineString(Vec::new()), Vec::new()));
        }
        let exterior = rings.remove(0);
        Ok(Polygon::new(exterior, rings))
    }

    fn parts(&mut self, head: &Head, depth: usize) -> Result<Vec<Geometry<f64>>, WkbError> {
        if depth >= DEPTH_MAX {
            return Err(WkbError::TooLarge);
        }
        let n = self.number(head.little)?;
        let mut parts = Vec::new();
        for _ in 0..n {
            parts.push(self.geometry(depth + 1)?.0);
        }
        Ok(parts)
    }

    fn geometry(&mut self, depth: usize) -> Result<(Geometry<f64>, Option<i32>), WkbError> {
        let at = self.at;
        let head = self.head()?;
        let stranger = || WkbError::Unknown { what: "part of kind", found: head.kind, at };
        let geometry = match head.kind {
            1 => {
                let c = self.coord(&head)?;
                // An empty point is written as a point without numbers.
                if c.x.is_nan() && c.y.is_nan() { Geometry::MultiPoint(MultiPoint(Vec::new())) } else { Geometry::Point(Point(c)) }
            }
            2 => Geometry::LineString(self.line(&head)?),
            3 => Geometry::Polygon(self.polygon(&head)?),
            4 => {
                let point = |g| Point::try_from(g).map_err(|_| stranger());
                Geometry::MultiPoint(MultiPoint(self.parts(&head, depth)?.into_iter().map(point).collect::<Result<_, _>>()?))
            }
            5 => {
                let line = |g| LineString::try_from(g).map_err(|_| stranger());
                Geometry::MultiLineString(MultiLineString(self.parts(&head, depth)?.into_iter().map(line).collect::<Result<_, _>>()?))
            }
            6 => {
                let polygon = |g| Polygon::try_from(g).map_err(|_| stranger());
                Geometry::MultiPolygon(MultiPolygon(self.parts(&head, depth)?.into_iter().map(polygon).collect::<Result<_, _>>()?))
            }
            7 => Geometry::GeometryCollection(GeometryCollection::from(self.parts(&head, depth)?)),
            found => return Err(WkbError::Unknown { what: "kind", found, at }),
        };
        Ok((geometry, head.srid))
    }
}

/// Writes WKB, little-endian, in two dimensions.
pub(crate) fn write(geometry: &Geometry<f64>) -> Vec<u8> {
    let mut out = Vec::with_capacity(21);
    put(&mut out, geometry);
    out
}

fn put(out: &mut Vec<u8>, geometry: &Geometry<f64>) {
    match geometry {
        Geometry::Point(p) => put_point(out, p.0),
        Geometry::Line(l) => put_line(out, &LineString(vec![l.start, l.end])),
        Geometry::LineString(l) => put_line(out, l),
        Geometry::Polygon(p) => put_polygon(out, p),
        Geometry::Rect(r) => put_polygon(out, &r.to_polygon()),
        Geometry::Triangle(t) => put_polygon(out, &t.to_polygon()),
        Geometry::MultiPoint(m) => {
            put_head(out, 4);
            put_count(out, m.0.len());
            m.0.iter().for_each(|p| put_point(out, p.0));
        }
        Geometry::MultiLineString(m) => {
            put_head(out, 5);
            put_count(out, m.0.len());
            m.0.iter().for_each(|l| put_line(out, l));
        }
        Geometry::MultiPolygon(m) => {
            put_head(out, 6);
            put_count(out, m.0.len());
            m.0.iter().for_each(|p| put_polygon(out, p));
        }
        Geometry::GeometryCollection(c) => {
            put_head(out, 7);
            put_count(out, c.len());
            c.iter().for_each(|g| put(out, g));
        }
    }
}

fn put_head(out: &mut Vec<u8>, kind: u32) {
    out.push(1);
    out.extend(kind.to_le_bytes());
}

fn put_count(out: &mut Vec<u8>, n: usize) {
    out.extend(u32::try_from(n).expect("within POSITIONS_MAX").to_le_bytes());
}

fn put_coord(out: &mut Vec<u8>, c: Coord<f64>) {
    out.extend(c.x.to_le_bytes());
    out.extend(c.y.to_le_bytes());
}

fn put_point(out: &mut Vec<u8>, c: Coord<f64>) {
    put_head(out, 1);
    put_coord(out, c);
}

fn put_coords(out: &mut Vec<u8>, line: &LineString<f64>) {
    put_count(out, line.0.len());
    line.0.iter().for_each(|&c| put_coord(out, c));
}

fn put_line(out: &mut Vec<u8>, line: &LineString<f64>) {
    put_head(out, 2);
    put_coords(out, line);
}

fn put_polygon(out: &mut Vec<u8>, polygon: &Polygon<f64>) {
    put_head(out, 3);
    if polygon.exterior().0.is_empty() {
        return put_count(out, 0);
    }
    put_count(out, 1 + polygon.interiors().len());
    put_coords(out, polygon.exterior());
    polygon.interiors().iter().for_each(|ring| put_coords(out, ring));
}

/// WKB with the reference system, as PostGIS sends it. What has one already, or is to have none (0), stays as it is.
pub(crate) fn with_srid(wkb: &[u8], srid: i32) -> Vec<u8> {
    let little = wkb.first() == Some(&1);
    let Some(four) = wkb.get(1..5).and_then(|b| <[u8; 4]>::try_from(b).ok()).filter(|_| srid != 0) else { return wkb.to_vec() };
    let code = if little { u32::from_le_bytes(four) } else { u32::from_be_bytes(four) };
    if code & HAS_SRID != 0 {
        return wkb.to_vec();
    }
    // PostGIS's form of further dimensions.
    let (kind, iso) = ((code & !(HAS_Z | HAS_M)) % 1_000, (code & !(HAS_Z | HAS_M)) / 1_000);
    let bits = match iso {
        1 => HAS_Z,
        2 => HAS_M,
        3 => HAS_Z | HAS_M,
        _ => code & (HAS_Z | HAS_M),
    };
    let code = kind | bits | HAS_SRID;
    let mut out = Vec::with_capacity(wkb.len() + 4);
    out.push(wkb[0]);
    out.extend(if little { code.to_le_bytes() } else { code.to_be_bytes() });
    out.extend(if little { srid.to_le_bytes() } else { srid.to_be_bytes() });
    out.extend(&wkb[5..]);
    out
}

/// Upper-case hexadecimal digits, as PostGIS writes them.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    bytes.iter().flat_map(|b| [DIGITS[usize::from(b >> 4)] as char, DIGITS[usize::from(b & 15)] as char]).collect()
}

/// The bytes of hexadecimal digits.
pub(crate) fn from_hex(text: &str) -> Result<Vec<u8>, WkbError> {
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok()).ok_or(WkbError::Hex);
    if !text.len().is_multiple_of(2) {
        return Err(WkbError::Hex);
    }
    text.as_bytes().chunks_exact(2).map(|pair| Ok(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ewkb_is_what_postgis_writes() {
        // Worked out by hand from PostGIS's description of EWKB: order, kind with the bit for a reference system, 4326, two numbers.
        let point = Geometry::Point(Point::new(116.5, 39.25));
        let ewkb = with_srid(&write(&point), 4326);
        assert_eq!(to_hex(&ewkb), "0101000020E61000000000000000205D400000000000A04340");
        assert_eq!(read(&ewkb).unwrap(), (point, Some(4326)));
        assert_eq!(with_srid(&ewkb, 3857), ewkb);
        assert_eq!(from_hex(&to_hex(&ewkb)).unwrap(), ewkb);
    }

    #[test]
    fn third_and_fourth_coordinates_and_big_endian_are_read() {
        // ISO WKB of POINT ZM (1 2 3 4), big-endian, and EWKB of POINT Z, little-endian.
        let numbers = |n: usize, big: bool| {
            let bytes = (1..=n).flat_map(move |i| if big { (i as f64).to_be_bytes() } else { (i as f64).to_le_bytes() });
            bytes.collect::<Vec<u8>>()
        };
        let iso = [&[0][..], &3_001_u32.to_be_bytes(), &numbers(4, true)].concat();
        let extended = [&[1][..], &(1 | HAS_Z).to_le_bytes(), &numbers(3, false)].concat();
        for bytes in [iso, extended] {
            assert_eq!(read(&bytes).unwrap().0, Geometry::Point(Point::new(1.0, 2.0)));
        }
    }

    #[test]
    fn what_is_not_wkb_is_refused() {
        assert_eq!(read(&[]), Err(WkbError::Short { at: 0 }));
        assert!(matches!(read(&[7, 0, 0, 0, 0]), Err(WkbError::Unknown { what: "byte order", .. })));
        assert!(matches!(read(&[1, 99, 0, 0, 0]), Err(WkbError::Unknown { what: "kind", found: 99, .. })));
        // A count that promises more than there is.
        assert!(matches!(read(&[1, 2, 0, 0, 0, 255, 255, 255, 255]), Err(WkbError::Short { .. })));
        // Collections in collections without end.
        let nested = [1_u8, 7, 0, 0, 0, 1, 0, 0, 0].repeat(40);
        assert_eq!(read(&nested), Err(WkbError::TooLarge));
        assert_eq!(from_hex("0g"), Err(WkbError::Hex));
        assert_eq!(from_hex("天坛"), Err(WkbError::Hex));
    }

    fn shape() -> impl Strategy<Value = Geometry<f64>> {
        let coord = || (-180.0..180.0, -90.0..90.0).prop_map(|(x, y)| Coord { x, y });
        let line = move || proptest::collection::vec(coord(), 2..6).prop_map(LineString);
        let polygon = move || {
            (proptest::collection::vec(coord(), 3..6), proptest::collection::vec(line(), 0..2))
                .prop_map(|(e, holes)| Polygon::new(LineString(e), holes))
        };
        let leaf = prop_oneof![
            coord().prop_map(|c| Geometry::Point(Point(c))),
            line().prop_map(Geometry::LineString),
            polygon().prop_map(Geometry::Polygon),
            proptest::collection::vec(coord().prop_map(Point), 1..4).prop_map(|p| Geometry::MultiPoint(MultiPoint(p))),
            proptest::collection::vec(line(), 1..3).prop_map(|l| Geometry::MultiLineString(MultiLineString(l))),
            proptest::collection::vec(polygon(), 1..3).prop_map(|p| Geometry::MultiPolygon(MultiPolygon(p))),
        ];
        leaf.prop_recursive(2, 8, 3, |inner| {
            proptest::collection::vec(inner, 1..3).prop_map(|g| Geometry::GeometryCollection(GeometryCollection::from(g)))
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(geometry in shape()) {
            prop_assert_eq!(read(&write(&geometry)).unwrap(), (geometry.clone(), None));
            prop_assert_eq!(read(&with_srid(&write(&geometry), 4326)).unwrap(), (geometry, Some(4326)));
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = read(&bytes);
            let _ = with_srid(&bytes, 4326);
        }
    }
}
