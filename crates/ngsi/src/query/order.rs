//! `orderBy`, `collation`, `orderFrom` and `orderGeometry` (ETSI GS CIM 009 V1.9.1, clauses 4.23 and 5.2.43).

use entity::{Geometry, SortBy, SortKey, SortOrder};
use serde_json::Value;

use super::q;
use crate::context::Context;
use crate::decode::list_of_strings;
use crate::error::{Error, Result, described, shown};

/// The most keys in one order.
pub const SORT_KEYS_MAX: usize = 16;

/// The parameters as text.
#[derive(Debug, Clone, Default)]
pub(super) struct OrderText {
    pub(super) keys: Vec<String>,
    pub(super) collation: Option<String>,
    pub(super) coordinates: Option<String>,
    pub(super) geometry: Option<String>,
}

impl OrderText {
    /// From the member `ordering` of a query.
    pub(super) fn from_json(value: &Value) -> Result<Self> {
        let map = value.as_object().ok_or_else(|| Error::bad(format!("expected an object, found {}", described(value))))?;
        let mut text = Self::default();
        for (key, value) in map {
            let at = |e: Error| e.within(&shown(key));
            let string = || crate::decode::string(value).map(|s| Some(s.to_owned())).map_err(at);
            match key.as_str() {
                "orderBy" => text.keys = list_of_strings(value).map_err(at)?.into_iter().map(str::to_owned).collect(),
                "collation" => text.collation = string()?,
                "geometry" => text.geometry = string()?,
                "coordinates" => text.coordinates = Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned)),
                other => {
                    return Err(
                        super::unknown_member(other, &["orderBy", "collation", "coordinates", "geometry"], &[]).within(&shown(other))
                    );
                }
            }
        }
        if text.keys.is_empty() {
            return Err(Error::bad("the mandatory member `orderBy` is missing"));
        }
        Ok(text)
    }

    /// The order; none if none is asked for.
    pub(super) fn order(self, context: &Context) -> Result<Option<SortOrder>> {
        if self.keys.is_empty() {
            let others = [("collation", &self.collation), ("orderFrom", &self.coordinates), ("orderGeometry", &self.geometry)];
            return match others.into_iter().find(|(_, value)| value.is_some()) {
                Some((name, _)) => Err(Error::bad("goes with `orderBy` only").within(name)),
                None => Ok(None),
            };
        }
        if self.keys.len() > SORT_KEYS_MAX {
            return Err(Error::bad(format!("{} keys are more than the limit of {SORT_KEYS_MAX}", self.keys.len())).within("orderBy"));
        }
        let from = match (&self.coordinates, self.geometry.as_deref()) {
            (None, None) => None,
            (None, Some(_)) => return Err(Error::bad("goes with `orderFrom` only").within("orderGeometry")),
            (Some(text), kind) => {
                let coordinates: Value = serde_json::from_str(text)
                    .map_err(|_| Error::bad(format!("expected a JSON array, found `{}`", shown(text))).within("orderFrom"))?;
                let json = serde_json::json!({"type": kind.unwrap_or("Point"), "coordinates": coordinates});
                Some(Geometry::from_json(json).map_err(|e| Error::bad(e.to_string()).within("orderFrom"))?)
            }
        };
        let keys = self.keys.iter().map(|k| key(k, from.is_some(), context)).collect::<Result<_>>().map_err(|e| e.within("orderBy"))?;
        Ok(Some(SortOrder { keys, collation: self.collation, from }))
    }
}

/// `name`, `name;desc`, `attribute.sub[member];asc`, `location;dist-asc`.
fn key(text: &str, has_place: bool, context: &Context) -> Result<SortKey> {
    let (name, direction) = text.split_once(';').unwrap_or((text, "asc"));
    let (is_distance, descending) = match direction {
        "asc" => (false, false),
        "desc" => (false, true),
        "dist-asc" => (true, false),
        "dist-desc" => (true, true),
        other => {
            return Err(Error::bad(format!("`{}` is not a direction (expected asc, desc, dist-asc or dist-desc)", shown(other))));
        }
    };
    if is_distance && !has_place {
        return Err(Error::bad(format!("`{}` needs `orderFrom`", shown(text))));
    }
    let by = match name {
        "id" | "type" | "scope" if is_distance => return Err(Error::bad(format!("`{name}` is not a place"))),
        "id" => SortBy::Id,
        "type" => SortBy::Type,
        "scope" => SortBy::Scope,
        name if is_distance => SortBy::Distance(context.expand(name)?),
        name => SortBy::Value(q::value_path(name, context)?),
    };
    Ok(SortKey { by, descending })
}
