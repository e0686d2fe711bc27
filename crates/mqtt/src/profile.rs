//! Device profiles: from a JSON payload to an entity observation, written as data, not code.
//!
//! A profile is a JSON document ([`ProfileSpec`]):
//!
//! ```json
//! { "id": "air-quality",
//!   "description": { "en": "Air-quality station", "zh": "空气质量监测站" },
//!   "topic": "devices/air-quality/{device}",
//!   "entityType": "AirQualityObserved",
//!   "entityId": "urn:ngsi-ld:AirQualityObserved:{city}:{station}",
//!   "time": { "path": "time" },
//!   "location": { "lon": "lon", "lat": "lat" },
//!   "attributes": [
//!     { "name": "pm25", "path": "pm25", "unitCode": "GQ", "min": 0, "max": 2000 },
//!     { "name": "name", "languages": { "en": "name_en", "zh": "name_zh" }, "timed": false } ] }
//! ```
//!
//! [`Profile::compile`] turns its short names into IRIs, [`Profile::decode`] turns a payload into an [`Entity`], [`Profiles`] finds the
//! profile of a topic. A member that is missing or `null` is an attribute that is not reported; members that no profile names are
//! ignored; anything else that is not as the profile says is an error that names the member, what was expected and what was found.
//!
//! A payload with `"simulated": true` gives an entity with the JsonProperty `provenance` of conurb's namespace, so that nobody takes a
//! simulated value for a measured one.

mod decode;
mod spec;
mod template;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use entity::{Entity, Instant, Iri};
use smol_str::SmolStr;

use self::template::{IdTemplate, TopicPattern};
use crate::topic::{Qos, Subscriptions, TopicFilter, TopicName};
use crate::{Reason, Refusal};

pub use self::spec::{AttributeSpec, Kind, LocationSpec, ProfileSpec, TimeFormat, TimeSpec};

/// How far ahead of the node's clock a device's time may be if its profile does not say, in seconds. An hour forgives a wrong daylight
/// saving time; more would let one device hide its later reports behind a value from the future.
pub const FUTURE_SKEW_S_DEFAULT: u32 = 3_600;

/// The most attributes of a profile.
pub const ATTRIBUTES_MAX: usize = 256;

/// The most names in a path into a payload.
pub const PATH_NAMES_MAX: usize = 8;

/// The profiles that come with conurb.
const BUILT_IN: [&str; 5] = [
    include_str!("../profiles/air-quality.json"),
    include_str!("../profiles/meter.json"),
    include_str!("../profiles/parking.json"),
    include_str!("../profiles/traffic.json"),
    include_str!("../profiles/weather.json"),
];

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// Not JSON, or not of the form of a profile.
    #[error("not a device profile")]
    Json {
        /// What the parser found, and where.
        source: serde_json::Error,
    },
    /// A member that profiles do not have.
    #[error("{place} has the unknown member `{found}` (did you mean `{nearest}`?)")]
    UnknownMember {
        /// Where.
        place: String,
        /// Its name.
        found: String,
        /// The known name that is most like it.
        nearest: &'static str,
    },
    /// The id is not of the form of an id.
    #[error("`{found}` is not a profile id (expected lowercase letters, digits and `-`)")]
    Id {
        /// The id as found.
        found: String,
    },
    /// The topic is not a topic with variables.
    #[error("profile `{profile}`: topic `{topic}`: {why}")]
    Topic {
        /// The profile.
        profile: String,
        /// Its topic.
        topic: String,
        /// What is wrong.
        why: String,
    },
    /// The entity id is not an IRI with variables.
    #[error("profile `{profile}`: entity id `{template}`: {why}")]
    EntityId {
        /// The profile.
        profile: String,
        /// Its entity id.
        template: String,
        /// What is wrong.
        why: String,
    },
    /// A short name that has no meaning in the context.
    #[error("profile `{profile}`: name `{name}`: {why}")]
    Name {
        /// The profile.
        profile: String,
        /// The name.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// A path into the payload that cannot be.
    #[error(
        "profile `{profile}`: `{path}` is not a path into a payload (expected 1 to {PATH_NAMES_MAX} member names with `.` between them)"
    )]
    Path {
        /// The profile.
        profile: String,
        /// The path.
        path: String,
    },
    /// An attribute that says something impossible.
    #[error("profile `{profile}`: attribute `{attribute}`: {why}")]
    Attribute {
        /// The profile.
        profile: String,
        /// The attribute's short name.
        attribute: String,
        /// What is wrong.
        why: String,
    },
    /// More attributes than [`ATTRIBUTES_MAX`].
    #[error("profile `{profile}` has {found} attributes (expected 1 to {ATTRIBUTES_MAX})")]
    AttributeCount {
        /// The profile.
        profile: String,
        /// How many.
        found: usize,
    },
    /// Two profiles of one name.
    #[error("there are two profiles `{id}`")]
    DuplicateId {
        /// The name.
        id: String,
    },
    /// Two profiles for the same topics.
    #[error("profiles `{first}` (topic `{first_topic}`) and `{second}` (topic `{second_topic}`) would decode the same topics")]
    TopicConflict {
        /// One profile.
        first: String,
        /// Its topic.
        first_topic: String,
        /// The other profile.
        second: String,
        /// Its topic.
        second_topic: String,
    },
}

/// Why a payload is not an observation.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// No profile for the topic.
    #[error("no device profile decodes topic `{topic}`")]
    NoProfile {
        /// The topic.
        topic: TopicName,
    },
    /// The payload is not JSON.
    #[error("the payload is not JSON: {source}")]
    Json {
        /// What the parser found, with line and column.
        source: serde_json::Error,
    },
    /// The payload is JSON, but no object.
    #[error("expected the payload to be a JSON object, found {found}")]
    NotAnObject {
        /// What it is.
        found: String,
    },
    /// A member of the wrong type.
    #[error("member `{path}`: expected {expected}, found {found}")]
    Type {
        /// The member.
        path: String,
        /// What the profile wants.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// A value outside its range.
    #[error("member `{path}`: expected {range}, found {found}")]
    Range {
        /// The member.
        path: String,
        /// The range, with scale and offset if there are any.
        range: String,
        /// The value.
        found: String,
    },
    /// A time that cannot be.
    #[error("member `{path}`: expected {expected}, found `{found}`")]
    Time {
        /// The member.
        path: String,
        /// What the profile wants.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// A time too far ahead of the node's clock.
    #[error("member `{path}`: {found} is {ahead_s} s ahead of the node's clock, more than the {limit_s} s that are allowed")]
    Future {
        /// The member.
        path: String,
        /// The time.
        found: Instant,
        /// How far ahead, in seconds.
        ahead_s: i64,
        /// How far it may be, in seconds.
        limit_s: u32,
    },
    /// A place that cannot be.
    #[error("members `{lon}` and `{lat}`: {why}")]
    Location {
        /// The member with the longitude.
        lon: String,
        /// The member with the latitude.
        lat: String,
        /// What is wrong.
        why: String,
    },
    /// A part of the entity's id is missing.
    #[error("the entity's id needs `{variable}`: expected {expected}, found {found}")]
    Id {
        /// The variable.
        variable: String,
        /// What is wanted.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// The id is not an IRI after all.
    #[error("the entity's id is impossible")]
    Iri {
        /// Why.
        source: entity::IriError,
    },
    /// Nothing that the profile knows.
    #[error("the payload has none of the members of profile `{profile}` (expected e.g. `{example}`)")]
    Nothing {
        /// The profile.
        profile: String,
        /// A member that it knows.
        example: String,
    },
}

impl DecodeError {
    /// The reason code that a device hears.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::NoProfile { .. } => Reason::TopicNameInvalid,
            _ => Reason::PayloadFormatInvalid,
        }
    }
}

impl From<&DecodeError> for Refusal {
    fn from(e: &DecodeError) -> Self {
        Self::new(e.reason(), e.to_string())
    }
}

/// A profile, ready to decode.
#[derive(Clone, Debug)]
pub struct Profile {
    id: String,
    description: BTreeMap<String, String>,
    topic_text: String,
    topic: TopicPattern,
    entity_type: Iri,
    entity_id: IdTemplate,
    time: Option<Time>,
    location: Option<Location>,
    attributes: Vec<Mapping>,
    location_name: Iri,
    provenance_name: Iri,
}

/// A path into a payload, and as it was written.
#[derive(Clone, Debug)]
struct Path {
    text: String,
    names: Vec<String>,
}

#[derive(Clone, Debug)]
struct Time {
    path: Path,
    format: TimeFormat,
    future_skew_s: u32,
}

#[derive(Clone, Debug)]
struct Location {
    lon: Path,
    lat: Path,
    timed: bool,
}

#[derive(Clone, Debug)]
struct Mapping {
    name: Iri,
    source: Source,
    unit_code: Option<SmolStr>,
    timed: bool,
}

#[derive(Clone, Debug)]
enum Source {
    Any(Path),
    Text(Path),
    Flag(Path),
    Number { path: Path, min: f64, max: f64, scale: f64, offset: f64 },
    Languages(Vec<(SmolStr, Path)>),
}

impl Profile {
    /// Checks a profile and turns its short names into IRIs with `expand`, which says why a name has no meaning.
    ///
    /// # Errors
    /// What in the profile cannot be.
    pub fn compile(spec: &ProfileSpec, expand: &dyn Fn(&str) -> Result<Iri, String>) -> Result<Self, ProfileError> {
        let id_ok = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if spec.id.is_empty() || !spec.id.chars().all(id_ok) {
            return Err(ProfileError::Id { found: spec.id.clone() });
        }
        if spec.attributes.is_empty() || spec.attributes.len() > ATTRIBUTES_MAX {
            return Err(ProfileError::AttributeCount { profile: spec.id.clone(), found: spec.attributes.len() });
        }
        let path = |text: &str| Path::parse(&spec.id, text);
        let name = |name: &str| {
            expand(name).map(|iri| iri.interned()).map_err(|why| ProfileError::Name {
                profile: spec.id.clone(),
                name: name.to_owned(),
                why,
            })
        };
        let time = spec.time.as_ref().map(|t| {
            let future_skew_s = t.future_skew_seconds.unwrap_or(FUTURE_SKEW_S_DEFAULT);
            Ok(Time { path: path(&t.path)?, format: t.format, future_skew_s })
        });
        let location = spec.location.as_ref().map(|l| Ok(Location { lon: path(&l.lon)?, lat: path(&l.lat)?, timed: l.timed }));
        let location_name = Iri::known(entity::LOCATION).interned();
        let mut attributes: Vec<Mapping> = Vec::new();
        for a in &spec.attributes {
            let mapping = Mapping {
                name: name(&a.name)?,
                source: source_of(&spec.id, a)?,
                unit_code: a.unit_code.as_deref().map(SmolStr::new),
                timed: a.timed,
            };
            let taken = attributes.iter().any(|m| m.name == mapping.name) || (spec.location.is_some() && mapping.name == location_name);
            if taken {
                let why = format!("another attribute is `{}` too", mapping.name);
                return Err(ProfileError::Attribute { profile: spec.id.clone(), attribute: a.name.clone(), why });
            }
            attributes.push(mapping);
        }
        Ok(Self {
            id: spec.id.clone(),
            description: spec.description.clone(),
            topic_text: spec.topic.clone(),
            topic: TopicPattern::parse(&spec.id, &spec.topic)?,
            entity_type: name(&spec.entity_type)?,
            entity_id: IdTemplate::parse(&spec.id, &spec.entity_id)?,
            time: time.transpose()?,
            location: location.transpose()?,
            attributes,
            location_name,
            provenance_name: Iri::known(&format!("{}provenance", entity::CONURB_NS)).interned(),
        })
    }

    /// The observation in a payload that arrived at `arrived_at` on `topic`.
    ///
    /// Numbers without scale and offset stay exactly the payload's JSON numbers. The range holds after scale and offset.
    ///
    /// # Errors
    /// What in the payload is not as the profile says.
    pub fn decode(&self, topic: &TopicName, payload: &[u8], arrived_at: Instant) -> Result<Entity, DecodeError> {
        decode::decode(self, topic, payload, arrived_at)
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What it is for, by language tag.
    #[must_use]
    pub const fn description(&self) -> &BTreeMap<String, String> {
        &self.description
    }

    /// The type of its entities.
    #[must_use]
    pub const fn entity_type(&self) -> &Iri {
        &self.entity_type
    }

    /// The attributes that it can report, without location and provenance.
    pub fn attribute_names(&self) -> impl Iterator<Item = &Iri> {
        self.attributes.iter().map(|m| &m.name)
    }

    /// Which topics it decodes.
    #[must_use]
    pub fn topic_filter(&self) -> TopicFilter {
        self.topic.filter()
    }

    /// Does it decode this topic?
    #[must_use]
    pub fn matches(&self, topic: &TopicName) -> bool {
        self.topic.matches(topic)
    }

    /// The value of a variable of its topic, for example which device published: `{device}`.
    #[must_use]
    pub fn topic_variable<'t>(&self, topic: &'t TopicName, variable: &str) -> Option<&'t str> {
        self.topic.value_in(topic, variable)
    }
}

impl Path {
    fn parse(profile: &str, text: &str) -> Result<Self, ProfileError> {
        let names: Vec<String> = text.split('.').map(str::to_owned).collect();
        if names.len() > PATH_NAMES_MAX || names.iter().any(String::is_empty) {
            return Err(ProfileError::Path { profile: profile.to_owned(), path: text.to_owned() });
        }
        Ok(Self { text: text.to_owned(), names })
    }
}

fn source_of(profile: &str, a: &AttributeSpec) -> Result<Source, ProfileError> {
    let error = |why: String| Err(ProfileError::Attribute { profile: profile.to_owned(), attribute: a.name.clone(), why });
    let numeric = a.unit_code.is_some() || [a.min, a.max, a.scale, a.offset].iter().any(Option::is_some);
    let Some(path) = &a.path else {
        if a.languages.is_empty() {
            return error("expected `path` or `languages`, found neither".to_owned());
        }
        if numeric || a.kind.is_some() {
            return error("`languages` has texts: a kind, unit, range, scale or offset has no meaning for it".to_owned());
        }
        let paths = a.languages.iter().map(|(tag, path)| Ok((SmolStr::new(tag), Path::parse(profile, path)?)));
        return Ok(Source::Languages(paths.collect::<Result<_, ProfileError>>()?));
    };
    if !a.languages.is_empty() {
        return error("expected `path` or `languages`, found both".to_owned());
    }
    let path = Path::parse(profile, path)?;
    match (a.kind, numeric) {
        (None, false) => Ok(Source::Any(path)),
        (Some(Kind::String), false) => Ok(Source::Text(path)),
        (Some(Kind::Boolean), false) => Ok(Source::Flag(path)),
        (Some(Kind::String | Kind::Boolean), true) => error("a unit, range, scale or offset is for numbers only".to_owned()),
        (None | Some(Kind::Number), _) => {
            let (min, max) = (a.min.unwrap_or(f64::NEG_INFINITY), a.max.unwrap_or(f64::INFINITY));
            if min > max {
                return error(format!("the range from {min} to {max} is empty"));
            }
            let (scale, offset) = (a.scale.unwrap_or(1.0), a.offset.unwrap_or(0.0));
            if scale == 0.0 {
                return error("a scale of 0 makes every value the same".to_owned());
            }
            Ok(Source::Number { path, min, max, scale, offset })
        }
    }
}

/// The profiles that come with conurb, not compiled yet: for a set in which an operator's own replace some of them.
///
/// # Errors
/// One of them is damaged.
pub fn built_in_specs() -> Result<Vec<ProfileSpec>, ProfileError> {
    BUILT_IN.iter().map(|json| ProfileSpec::parse(json)).collect()
}

/// A set of profiles of which each topic has at most one.
#[derive(Debug, Default)]
pub struct Profiles {
    profiles: Vec<Profile>,
    by_topic: Subscriptions<usize>,
}

impl Profiles {
    /// A set of profiles.
    ///
    /// # Errors
    /// Two have the same id or could decode the same topic.
    pub fn new(profiles: Vec<Profile>) -> Result<Self, ProfileError> {
        let mut by_topic = Subscriptions::new();
        for (i, second) in profiles.iter().enumerate() {
            for first in &profiles[..i] {
                if first.id == second.id {
                    return Err(ProfileError::DuplicateId { id: first.id.clone() });
                }
                if first.topic.overlaps(&second.topic) {
                    return Err(ProfileError::TopicConflict {
                        first: first.id.clone(),
                        first_topic: first.topic_text.clone(),
                        second: second.id.clone(),
                        second_topic: second.topic_text.clone(),
                    });
                }
            }
            by_topic.subscribe(i, &second.topic_filter(), Qos::AtMostOnce);
        }
        Ok(Self { profiles, by_topic })
    }

    /// The profiles that come with conurb: air quality, meters, parking, traffic, weather.
    ///
    /// # Errors
    /// `expand` does not know one of their names.
    pub fn built_in(expand: &dyn Fn(&str) -> Result<Iri, String>) -> Result<Self, ProfileError> {
        let compiled = built_in_specs()?.into_iter().map(|spec| Profile::compile(&spec, expand));
        Self::new(compiled.collect::<Result<_, _>>()?)
    }

    /// The profile that decodes `topic`.
    #[must_use]
    pub fn find(&self, topic: &TopicName) -> Option<&Profile> {
        let (i, _) = self.by_topic.matches(topic).into_iter().next()?;
        // A filter is a little wider than its pattern where the first level is a variable and the topic begins with `$`: it matches none.
        self.profiles.get(i)
    }

    /// The observation in a payload that arrived at `arrived_at` on `topic`.
    ///
    /// # Errors
    /// No profile decodes the topic, or the payload is not as the profile says.
    pub fn decode(&self, topic: &TopicName, payload: &[u8], arrived_at: Instant) -> Result<Entity, DecodeError> {
        self.find(topic).ok_or_else(|| DecodeError::NoProfile { topic: topic.clone() })?.decode(topic, payload, arrived_at)
    }

    /// All of them, in the order in which they were given.
    pub fn iter(&self) -> impl Iterator<Item = &Profile> {
        self.profiles.iter()
    }
}
