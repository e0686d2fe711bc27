//! The JSON form of a profile.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::ProfileError;

/// A device profile as it is written down; see the [module](super) for its meaning.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProfileSpec {
    /// Its name: lowercase letters, digits and `-`.
    pub id: String,
    /// What it is for, by language tag.
    #[serde(default)]
    pub description: BTreeMap<String, String>,
    /// Which topics it decodes: levels, of which `{x}` stands for any one and is the variable `x`.
    pub topic: String,
    /// The short name of the entity type.
    pub entity_type: String,
    /// The entity's id: an IRI in which `{x}` stands for a topic variable or else a member of the payload.
    pub entity_id: String,
    /// Where the time of the observation is; without it, the time of arrival is taken.
    #[serde(default)]
    pub time: Option<TimeSpec>,
    /// Where the place is.
    #[serde(default)]
    pub location: Option<LocationSpec>,
    /// What is observed.
    pub attributes: Vec<AttributeSpec>,
}

/// Where the time of the observation is.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TimeSpec {
    /// The payload's member.
    pub path: String,
    /// How it is written.
    #[serde(default)]
    pub format: TimeFormat,
    /// How far ahead of the node's clock it may be, in seconds; [`super::FUTURE_SKEW_S_DEFAULT`] if not given.
    #[serde(default)]
    pub future_skew_seconds: Option<u32>,
}

/// How a time is written.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimeFormat {
    /// RFC 3339 with `Z` or an offset from UTC: `2024-05-01T08:00:00+08:00`.
    #[default]
    DateTime,
    /// Seconds since 1970, whole or not.
    UnixSeconds,
    /// Milliseconds since 1970.
    UnixMilliseconds,
}

/// Where the place is: WGS 84, degrees.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocationSpec {
    /// The member with the longitude.
    pub lon: String,
    /// The member with the latitude.
    pub lat: String,
    /// The place was observed at the payload's time: the device moves.
    #[serde(default)]
    pub timed: bool,
}

/// One attribute of the entity.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttributeSpec {
    /// Its short name.
    pub name: String,
    /// The payload's member, or a path to it through objects: `data.pm25`. Either this or `languages`.
    #[serde(default)]
    pub path: Option<String>,
    /// The members with a text in several languages, by language tag.
    #[serde(default)]
    pub languages: BTreeMap<String, String>,
    /// What the member must be; a number if a unit, range, scale or offset is given, else any JSON value.
    #[serde(default)]
    pub kind: Option<Kind>,
    /// UN/CEFACT common code of the unit.
    #[serde(default)]
    pub unit_code: Option<String>,
    /// The least possible value, after scale and offset.
    #[serde(default)]
    pub min: Option<f64>,
    /// The greatest possible value, after scale and offset.
    #[serde(default)]
    pub max: Option<f64>,
    /// value = member × scale + offset.
    #[serde(default)]
    pub scale: Option<f64>,
    /// value = member × scale + offset.
    #[serde(default)]
    pub offset: Option<f64>,
    /// The value was observed at the payload's time; otherwise it describes the device. True if not given.
    #[serde(default = "yes")]
    pub timed: bool,
}

const fn yes() -> bool {
    true
}

/// What a member of a payload must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A JSON number.
    Number,
    /// A JSON string.
    String,
    /// `true` or `false`.
    Boolean,
}

const MEMBERS: [&str; 8] = ["id", "description", "topic", "entityType", "entityId", "time", "location", "attributes"];
const TIME_MEMBERS: [&str; 3] = ["path", "format", "futureSkewSeconds"];
const LOCATION_MEMBERS: [&str; 3] = ["lon", "lat", "timed"];
const ATTRIBUTE_MEMBERS: [&str; 10] = ["name", "path", "languages", "kind", "unitCode", "min", "max", "scale", "offset", "timed"];

impl ProfileSpec {
    /// Reads a profile.
    ///
    /// # Errors
    /// No JSON, a member of the wrong type, or a member that profiles do not have.
    pub fn parse(json: &str) -> Result<Self, ProfileError> {
        let value: Value = serde_json::from_str(json).map_err(|source| ProfileError::Json { source })?;
        // By hand, not by `deny_unknown_fields`: a person who mistyped wants to hear the nearest name, and where.
        check_members(&value, "the profile", &MEMBERS)?;
        check_members(&value["time"], "`time`", &TIME_MEMBERS)?;
        check_members(&value["location"], "`location`", &LOCATION_MEMBERS)?;
        for (i, attribute) in value["attributes"].as_array().into_iter().flatten().enumerate() {
            let place = attribute["name"].as_str().map_or_else(|| format!("attribute {}", i + 1), |n| format!("attribute `{n}`"));
            check_members(attribute, &place, &ATTRIBUTE_MEMBERS)?;
        }
        serde_json::from_value(value).map_err(|source| ProfileError::Json { source })
    }
}

fn check_members(value: &Value, place: &str, known: &[&'static str]) -> Result<(), ProfileError> {
    for member in value.as_object().into_iter().flat_map(|o| o.keys()) {
        if !known.contains(&member.as_str()) {
            let nearest = known.iter().min_by_key(|k| strsim::osa_distance(k, member));
            return Err(ProfileError::UnknownMember {
                place: place.to_owned(),
                found: member.clone(),
                nearest: nearest.expect("there are known members"),
            });
        }
    }
    Ok(())
}
