//! Type selections, scope queries, ids and places.

use entity::{Filter, GeoCondition, GeoRelation, Geometry, Iri, LOCATION, ScopePattern, TypeSelector};
use serde_json::Value;

use crate::context::Context;
use crate::decode::string;
use crate::error::{Error, Result, described, shown};

/// The longest type or scope selection, in bytes.
pub const SELECTION_BYTES_MAX: usize = 8 * 1024;

/// Parses a type selection (clause 4.17): `A|B` or `A,B` is "or", `(A;B)` is "and", `*` is every type.
///
/// Errors: [`crate::ErrorKind::BadRequestData`] with the position in characters.
pub fn parse_types(text: &str, context: &Context) -> Result<TypeSelector> {
    if text == "*" {
        return Ok(TypeSelector::Any);
    }
    parse_groups(text, &|name| context.expand(name).map(TypeSelector::Is), &TypeSelector::Or, &TypeSelector::And)
}

/// Parses a scope query (clause 4.19): `/A/+/C`, `/A/#`; `|` or `,` is "or", `(/A;/B)` is "and".
///
/// Errors: as [`parse_types`].
pub fn parse_scopes(text: &str) -> Result<Filter> {
    let leaf = |pattern: &str| {
        let pattern: ScopePattern = pattern.parse().map_err(|e: entity::ScopeError| Error::bad(e.to_string()))?;
        Ok(Filter::Scope(pattern))
    };
    parse_groups(text, &leaf, &Filter::Or, &Filter::And)
}

/// How deep groups may be nested; the standard's grammar has one level.
const GROUP_DEPTH_MAX: usize = 16;

fn parse_groups<T>(text: &str, leaf: &dyn Fn(&str) -> Result<T>, or: &dyn Fn(Vec<T>) -> T, and: &dyn Fn(Vec<T>) -> T) -> Result<T> {
    if text.len() > SELECTION_BYTES_MAX {
        return Err(Error::bad(format!("{} bytes are more than the limit of {SELECTION_BYTES_MAX}", text.len())));
    }
    let mut groups = Groups { text, position: 0, leaf, or, and };
    let found = groups.any_of(0)?;
    if groups.position < text.len() { Err(groups.error("expected `|`, `,` or the end")) } else { Ok(found) }
}

struct Groups<'a, T> {
    text: &'a str,
    position: usize,
    leaf: &'a dyn Fn(&str) -> Result<T>,
    or: &'a dyn Fn(Vec<T>) -> T,
    and: &'a dyn Fn(Vec<T>) -> T,
}

impl<T> Groups<'_, T> {
    fn error(&self, what: &str) -> Error {
        let n_chars = self.text[..self.position].chars().count();
        let rest = &self.text[self.position..];
        let found = if rest.is_empty() { "the end".to_owned() } else { format!("`{}`", shown(rest)) };
        Error::bad(format!("at character {}: {what}, found {found}", n_chars + 1))
    }

    fn next_is(&mut self, any_of: &[char]) -> bool {
        let found = self.text[self.position..].starts_with(any_of);
        if found {
            self.position += 1;
        }
        found
    }

    fn any_of(&mut self, depth: usize) -> Result<T> {
        let mut list = vec![self.all_of(depth)?];
        while self.next_is(&['|', ',']) {
            list.push(self.all_of(depth)?);
        }
        Ok(if list.len() == 1 { list.remove(0) } else { (self.or)(list) })
    }

    fn all_of(&mut self, depth: usize) -> Result<T> {
        let mut list = vec![self.item(depth)?];
        while self.next_is(&[';']) {
            list.push(self.item(depth)?);
        }
        Ok(if list.len() == 1 { list.remove(0) } else { (self.and)(list) })
    }

    fn item(&mut self, depth: usize) -> Result<T> {
        if self.next_is(&['(']) {
            if depth >= GROUP_DEPTH_MAX {
                return Err(self.error(&format!("parentheses are nested more than {GROUP_DEPTH_MAX} deep")));
            }
            let inner = self.any_of(depth + 1)?;
            return if self.next_is(&[')']) { Ok(inner) } else { Err(self.error("expected `)`")) };
        }
        let rest = &self.text[self.position..];
        let end = rest.find(['|', ',', ';', '(', ')']).unwrap_or(rest.len());
        if end == 0 {
            return Err(self.error("expected a name"));
        }
        let found = (self.leaf)(&rest[..end])?;
        self.position += end;
        Ok(found)
    }
}

/// The members of a geo-query as text, before they are checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GeoParameters {
    /// `near;maxDistance==2000`, `within`, ...
    pub georel: Option<String>,
    /// `Point`, `Polygon`, ...
    pub geometry: Option<String>,
    /// A JSON array.
    pub coordinates: Option<String>,
    /// The short or full name of the GeoProperty; `location` if there is none.
    pub geoproperty: Option<String>,
}

impl GeoParameters {
    /// The condition; none if no geo-query is asked (clause 4.10).
    ///
    /// Errors: [`crate::ErrorKind::BadRequestData`] naming the parameter.
    pub fn condition(&self, context: &Context) -> Result<Option<GeoCondition>> {
        let (georel, kind, coordinates) = match (&self.georel, &self.geometry, &self.coordinates) {
            (None, None, None) => return Ok(None),
            (Some(r), Some(g), Some(c)) => (r, g, c),
            (r, g, c) => {
                let missing: Vec<&str> = [("georel", r), ("geometry", g), ("coordinates", c)]
                    .into_iter()
                    .filter(|(_, value)| value.is_none())
                    .map(|(name, _)| name)
                    .collect();
                return Err(Error::bad(format!("a geo-query needs georel, geometry and coordinates; missing: {}", missing.join(", "))));
            }
        };
        let relation = relation(georel).map_err(|e| e.within("georel"))?;
        let coordinates: Value = serde_json::from_str(coordinates)
            .map_err(|_| Error::bad(format!("expected a JSON array, found `{}`", shown(coordinates))).within("coordinates"))?;
        let reference = Geometry::from_json(serde_json::json!({"type": kind, "coordinates": coordinates}))
            .map_err(|e| Error::bad(e.to_string()).within("geometry"))?;
        let property = match &self.geoproperty {
            Some(name) => context.expand(name).map_err(|e| e.within("geoproperty"))?,
            None => Iri::known(LOCATION),
        };
        Ok(Some(GeoCondition { property, relation, reference }))
    }

    /// From the members of a `geoQ` (clause 5.2.13): coordinates are an array, or a string that holds one.
    ///
    /// Errors: an unknown member, or one of a wrong type.
    pub fn from_json(value: &Value) -> Result<Self> {
        let map = value.as_object().ok_or_else(|| Error::bad(format!("expected an object, found {}", described(value))))?;
        let mut found = Self::default();
        for (key, value) in map {
            let text = || string(value).map(|s| Some(s.to_owned())).map_err(|e| e.within(key));
            match key.as_str() {
                "georel" => found.georel = text()?,
                "geometry" => found.geometry = text()?,
                "geoproperty" => found.geoproperty = text()?,
                "coordinates" => {
                    found.coordinates = match value {
                        Value::String(s) => Some(s.clone()),
                        Value::Array(_) => Some(value.to_string()),
                        other => return Err(Error::bad(format!("expected an array, found {}", described(other))).within(key)),
                    }
                }
                other => {
                    return Err(Error::bad(format!(
                        "unknown member `{}` (expected georel, geometry, coordinates, geoproperty)",
                        shown(other)
                    )));
                }
            }
        }
        Ok(found)
    }
}

fn relation(text: &str) -> Result<GeoRelation> {
    let (name, modifier) = text.split_once(';').map_or((text, None), |(n, m)| (n, Some(m)));
    let plain = match name {
        "near" => return near(modifier),
        "within" => GeoRelation::Within,
        "contains" => GeoRelation::Contains,
        "intersects" => GeoRelation::Intersects,
        "equals" => GeoRelation::Equals,
        "disjoint" => GeoRelation::Disjoint,
        "overlaps" => GeoRelation::Overlaps,
        other => {
            return Err(Error::bad(format!(
                "`{}` is not a relation (expected near, within, contains, intersects, equals, disjoint or overlaps)",
                shown(other)
            )));
        }
    };
    match modifier {
        None => Ok(plain),
        Some(m) => Err(Error::bad(format!("`{name}` takes no modifier, found `{}`", shown(m)))),
    }
}

fn near(modifier: Option<&str>) -> Result<GeoRelation> {
    let expected = || {
        Error::bad(format!(
            "`near` needs a distance in metres greater than 0, as `near;maxDistance==2000` or `near;minDistance==2000`, found `{}`",
            shown(modifier.unwrap_or_default())
        ))
    };
    let (name, distance) = modifier.and_then(|m| m.split_once("==")).ok_or_else(expected)?;
    let metres = distance.parse::<f64>().ok().filter(|m| m.is_finite() && *m > 0.0).ok_or_else(expected)?;
    match name {
        "maxDistance" => Ok(GeoRelation::NearMax(metres)),
        "minDistance" => Ok(GeoRelation::NearMin(metres)),
        _ => Err(expected()),
    }
}

/// The most ids in one request.
pub const IDS_MAX: usize = 1_000;

/// Parses a comma-separated list of entity ids.
///
/// Errors: one is not a URI; more than [`IDS_MAX`].
pub fn parse_ids(text: &str) -> Result<Vec<Iri>> {
    let ids: Vec<Iri> =
        text.split(',').map(|id| id.parse().map_err(|e: entity::IriError| Error::bad(e.to_string()))).collect::<Result<_>>()?;
    if ids.len() > IDS_MAX { Err(Error::bad(format!("{} ids are more than the limit of {IDS_MAX}", ids.len()))) } else { Ok(ids) }
}
