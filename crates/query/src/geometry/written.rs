//! Texts that stand for geometries besides well-known text: with a reference system in front, as hexadecimal digits, as boxes.

use datafusion::common::exec_err;
use datafusion::error::Result;
use geo::Rect;

/// `BOX(1 2,3 4)` or `BOX3D(1 2 0,3 4 0)`, as PostGIS writes boxes; none if it is something else.
pub(super) fn box_of(text: &str) -> Option<Rect<f64>> {
    let text = text.trim();
    let (head, corners) = text.strip_suffix(')')?.split_once('(')?;
    if !["BOX", "BOX2D", "BOX3D"].iter().any(|kind| head.trim().eq_ignore_ascii_case(kind)) {
        return None;
    }
    let corner = |text: &str| -> Option<geo::Coord> {
        let mut numbers = text.split_whitespace().map(|n| n.parse::<f64>().ok().filter(|n| n.is_finite()));
        Some(geo::Coord { x: numbers.next()??, y: numbers.next()?? })
    };
    let (low, high) = corners.split_once(',')?;
    Some(Rect::new(corner(low)?, corner(high)?))
}

/// EWKB in hexadecimal digits?
pub(super) fn is_hex(text: &str) -> bool {
    text.len() > 8 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// `SRID=4326;` in front of WKT.
pub(super) fn split_srid(text: &str) -> Result<(Option<i32>, &str)> {
    let trimmed = text.trim();
    let Some((head, rest)) = trimmed.split_once(';') else { return Ok((None, trimmed)) };
    match head.trim().to_ascii_uppercase().strip_prefix("SRID=").and_then(|n| n.trim().parse().ok()) {
        Some(srid) => Ok((Some(srid), rest)),
        None => exec_err!("not a geometry: `{head};` (expected SRID=<number>; before the text)"),
    }
}
