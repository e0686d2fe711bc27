//! From a payload to an entity.

use std::borrow::Cow;
use std::fmt;

use entity::{Attribute, AttributeValue, Entity, Geometry, Instant, Iri};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Number, Value, json};

use super::{DecodeError, Location, Mapping, Path, Profile, Source, Time, TimeFormat};
use crate::topic::TopicName;

/// How much of a wrong value an error quotes, in characters.
const QUOTED_CHARS_MAX: usize = 40;

/// The member that says whether a payload is simulated.
const SIMULATED: &str = "simulated";

/// Up to so many members are looked through one after the other.
const MEMBERS_UNSORTED_MAX: usize = 32;

/// The members of a payload. Mostly a handful: a map of them would cost more than all that is looked for in it.
struct Members<'a> {
    /// More than [`MEMBERS_UNSORTED_MAX`] are sorted by name; of those with the same name the last one counts.
    list: Vec<(Cow<'a, str>, Value)>,
}

impl Members<'_> {
    fn get(&self, name: &str) -> Option<&Value> {
        let found = if self.list.len() > MEMBERS_UNSORTED_MAX {
            self.list[..self.list.partition_point(|(n, _)| n.as_ref() <= name)].last().filter(|(n, _)| n == name)
        } else {
            self.list.iter().rev().find(|(n, _)| n == name)
        };
        found.map(|(_, value)| value)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfObject;
        impl<'de> Visitor<'de> for OfObject {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Members<'de>, A::Error> {
                let mut list = Vec::with_capacity(8);
                while let Some((Name(name), value)) = members.next_entry()? {
                    list.push((name, value));
                }
                if list.len() > MEMBERS_UNSORTED_MAX {
                    // Stable: what came last stays last of its name.
                    list.sort_by(|(a, _): &(Cow<'_, str>, Value), (b, _)| a.cmp(b));
                }
                Ok(Members { list })
            }
        }
        deserializer.deserialize_map(OfObject)
    }
}

/// A name, copied only if it is written with escapes.
#[derive(serde::Deserialize)]
#[serde(transparent)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

pub(super) fn decode(profile: &Profile, topic: &TopicName, payload: &[u8], arrived_at: Instant) -> Result<Entity, DecodeError> {
    // Looked at once: that each of its texts is UTF-8 need not be asked then. What is not UTF-8 is no JSON, which the parser says where.
    let members = match std::str::from_utf8(payload) {
        Ok(text) => serde_json::from_str::<Members<'_>>(text),
        Err(_) => serde_json::from_slice(payload),
    };
    let members = members.map_err(|source| match serde_json::from_slice(payload) {
        Ok(Value::Object(_)) => DecodeError::Json { source },
        Ok(other) => DecodeError::NotAnObject { found: describe(&other) },
        Err(source) => DecodeError::Json { source },
    })?;
    let id = profile.entity_id.fill(|variable| id_part(profile, topic, &members, variable))?;
    let id: Iri = id.parse().map_err(|source| DecodeError::Iri { source })?;
    let observed_at = match &profile.time {
        Some(time) => time_of(time, &members, arrived_at)?,
        None => arrived_at,
    };
    let mut entity = Entity::new(id, profile.entity_type.clone());
    entity.attributes.reserve(profile.attributes.len() + 1);
    if let Some(location) = &profile.location
        && let Some(geometry) = place_of(location, &members)?
    {
        let mut attribute = Attribute::new(AttributeValue::Geo(geometry));
        attribute.observed_at = location.timed.then_some(observed_at);
        entity.attributes.insert(profile.location_name.clone(), attribute.into());
    }
    for mapping in &profile.attributes {
        if let Some(value) = value_of(&mapping.source, &members)? {
            let mut attribute = Attribute::new(value);
            attribute.observed_at = mapping.timed.then_some(observed_at);
            attribute.unit_code.clone_from(&mapping.unit_code);
            entity.attributes.insert(mapping.name.clone(), attribute.into());
        }
    }
    if entity.attributes.is_empty() {
        let example = profile.attributes.first().map_or_else(String::new, example_path);
        return Err(DecodeError::Nothing { profile: profile.id.clone(), example });
    }
    if simulated(&members)? {
        entity.put(profile.provenance_name.clone(), Attribute::new(AttributeValue::Json(json!({ SIMULATED: true }))));
    }
    Ok(entity)
}

fn id_part(profile: &Profile, topic: &TopicName, members: &Members<'_>, variable: &str) -> Result<String, DecodeError> {
    let error = |expected, found| Err(DecodeError::Id { variable: variable.to_owned(), expected, found });
    if profile.topic.has(variable) {
        return match profile.topic.value_in(topic, variable) {
            Some(level) => Ok(level.to_owned()),
            None => error("a level of the topic", "an empty one".to_owned()),
        };
    }
    match members.get(variable) {
        Some(Value::String(s)) if !s.is_empty() => Ok(s.clone()),
        // Only whole numbers: 1.0 and 1 would name two entities.
        Some(Value::Number(n)) if !n.is_f64() => Ok(n.to_string()),
        Some(other) => error("a member that is a string or a whole number", describe(other)),
        None => error("a member that is a string or a whole number", "none".to_owned()),
    }
}

/// The member at a path; none if it is missing or null on the way.
fn find<'a>(path: &Path, members: &'a Members<'_>) -> Result<Option<&'a Value>, DecodeError> {
    let mut names = path.names.iter();
    let mut found = names.next().and_then(|first| members.get(first));
    for name in names {
        found = match found {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Object(inner)) => inner.get(name),
            Some(other) => {
                let expected = "objects on the way";
                return Err(DecodeError::Type { path: path.text.clone(), expected, found: describe(other) });
            }
        };
    }
    Ok(found.filter(|v| !v.is_null()))
}

fn wrong_type(path: &Path, expected: &'static str, found: &Value) -> DecodeError {
    DecodeError::Type { path: path.text.clone(), expected, found: describe(found) }
}

fn number<'a>(path: &Path, members: &'a Members<'_>) -> Result<Option<&'a Number>, DecodeError> {
    match find(path, members)? {
        None => Ok(None),
        Some(Value::Number(n)) => Ok(Some(n)),
        Some(other) => Err(wrong_type(path, "a number", other)),
    }
}

fn text<'a>(path: &Path, members: &'a Members<'_>) -> Result<Option<&'a str>, DecodeError> {
    match find(path, members)? {
        None => Ok(None),
        Some(Value::String(s)) => Ok(Some(s)),
        Some(other) => Err(wrong_type(path, "a string", other)),
    }
}

/// A JSON number as a float. Without arbitrary precision each JSON number that is read has one.
fn float(n: &Number) -> f64 {
    n.as_f64().unwrap_or(f64::NAN)
}

fn value_of(source: &Source, members: &Members<'_>) -> Result<Option<AttributeValue>, DecodeError> {
    let value = match source {
        Source::Any(path) => find(path, members)?.cloned(),
        Source::Text(path) => text(path, members)?.map(Value::from),
        Source::Flag(path) => match find(path, members)? {
            None => None,
            Some(flag @ Value::Bool(_)) => Some(flag.clone()),
            Some(other) => return Err(wrong_type(path, "true or false", other)),
        },
        Source::Number { path, min, max, scale, offset } => match number(path, members)? {
            None => None,
            Some(n) => Some(scaled(path, n, [*min, *max], *scale, *offset)?),
        },
        Source::Languages(paths) => {
            let mut texts = Vec::with_capacity(paths.len());
            for (tag, path) in paths {
                if let Some(s) = text(path, members)? {
                    texts.push((tag.clone(), Value::from(s)));
                }
            }
            return Ok((!texts.is_empty()).then(|| AttributeValue::Language(texts.into_iter().collect())));
        }
    };
    Ok(value.map(AttributeValue::Property))
}

/// The value of a number after scale and offset, checked against its range.
fn scaled(path: &Path, n: &Number, range: [f64; 2], scale: f64, offset: f64) -> Result<Value, DecodeError> {
    let [min, max] = range;
    let unscaled = scale == 1.0 && offset == 0.0;
    let value = if unscaled { float(n) } else { tidy_sum(float(n) * scale, offset) };
    let number = if unscaled { Some(n.clone()) } else { Number::from_f64(value) };
    match number.filter(|_| (min..=max).contains(&value)) {
        Some(number) => Ok(Value::Number(number)),
        None => {
            let limits = match (min.is_finite(), max.is_finite()) {
                (true, true) => format!("a value from {min} to {max}"),
                (true, false) => format!("a value of at least {min}"),
                (false, true) => format!("a value of at most {max}"),
                (false, false) => "a finite value".to_owned(),
            };
            let how = if unscaled { String::new() } else { format!(" after × {scale} + {offset}") };
            let found = if unscaled { n.to_string() } else { format!("{value} (sent as {n})") };
            Err(DecodeError::Range { path: path.text.clone(), range: format!("{limits}{how}"), found })
        }
    }
}

/// `a + b` as a person would write it: 512 × 0.1 - 40 is 11.2, not 11.200000000000003. The digits beyond the fifteenth of the
/// larger summand are noise of binary fractions.
fn tidy_sum(a: f64, b: f64) -> f64 {
    let sum = a + b;
    let magnitude = a.abs().max(b.abs());
    if !sum.is_finite() || magnitude == 0.0 {
        return sum;
    }
    // Between -308 and 308: no cut.
    let decimals = 14 - magnitude.log10().floor() as i32;
    match usize::try_from(decimals) {
        Ok(decimals) => format!("{sum:.decimals$}").parse().unwrap_or(sum),
        // Fifteen digits and more before the decimal point: nothing to tidy.
        Err(_) => sum,
    }
}

fn time_of(time: &Time, members: &Members<'_>, arrived_at: Instant) -> Result<Instant, DecodeError> {
    let observed_at = match time.format {
        TimeFormat::DateTime => match text(&time.path, members)? {
            None => return Ok(arrived_at),
            Some(s) => date_time(s).ok_or_else(|| DecodeError::Time {
                path: time.path.text.clone(),
                expected: "a date-time such as `2024-05-01T08:00:00Z` or `2024-05-01T16:00:00+08:00`",
                found: quote(s),
            })?,
        },
        TimeFormat::UnixSeconds | TimeFormat::UnixMilliseconds => match number(&time.path, members)? {
            None => return Ok(arrived_at),
            Some(n) => {
                let us_per_unit = if time.format == TimeFormat::UnixSeconds { 1_000_000 } else { 1_000 };
                unix_time(n, us_per_unit).ok_or_else(|| DecodeError::Time {
                    path: time.path.text.clone(),
                    expected: if us_per_unit == 1_000 { "milliseconds since 1970" } else { "seconds since 1970" },
                    found: n.to_string(),
                })?
            }
        },
    };
    let ahead_us = observed_at.micros_since(arrived_at);
    if ahead_us > i64::from(time.future_skew_s) * 1_000_000 {
        return Err(DecodeError::Future {
            path: time.path.text.clone(),
            found: observed_at,
            ahead_s: ahead_us / 1_000_000,
            limit_s: time.future_skew_s,
        });
    }
    Ok(observed_at)
}

fn date_time(s: &str) -> Option<Instant> {
    let at = match s.parse::<Instant>() {
        Ok(at) => at,
        // Devices write local time with its offset too; an instant needs one of the two.
        Err(_) => Instant::from_micros(s.parse::<jiff::Timestamp>().ok()?.as_microsecond()),
    };
    writable(at.micros()).then_some(at)
}

fn unix_time(n: &Number, us_per_unit: i64) -> Option<Instant> {
    let us = match n.as_i64() {
        Some(whole) => whole.checked_mul(us_per_unit)?,
        // Floats hold microseconds of our century exactly enough; what does not fit becomes i64::MAX and is refused.
        None => (float(n) * us_per_unit as f64).round() as i64,
    };
    writable(us).then(|| Instant::from_micros(us))
}

/// `Instant` clamps; a time that would be clamped is not what the device said.
fn writable(us: i64) -> bool {
    (Instant::MIN.micros()..=Instant::MAX.micros()).contains(&us)
}

fn place_of(location: &Location, members: &Members<'_>) -> Result<Option<Geometry>, DecodeError> {
    let error = |why: String| DecodeError::Location { lon: location.lon.text.clone(), lat: location.lat.text.clone(), why };
    match (number(&location.lon, members)?, number(&location.lat, members)?) {
        (None, None) => Ok(None),
        (Some(_), None) => Err(error(format!("expected both or neither, found no `{}`", location.lat.text))),
        (None, Some(_)) => Err(error(format!("expected both or neither, found no `{}`", location.lon.text))),
        (Some(lon), Some(lat)) => {
            let point = json!({ "type": "Point", "coordinates": [lon, lat] });
            Geometry::from_json(point).map(Some).map_err(|e| error(e.to_string()))
        }
    }
}

fn simulated(members: &Members<'_>) -> Result<bool, DecodeError> {
    match members.get(SIMULATED) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(simulated)) => Ok(*simulated),
        Some(other) => Err(DecodeError::Type { path: SIMULATED.to_owned(), expected: "true or false", found: describe(other) }),
    }
}

fn example_path(mapping: &Mapping) -> String {
    match &mapping.source {
        Source::Any(p) | Source::Text(p) | Source::Flag(p) | Source::Number { path: p, .. } => p.text.clone(),
        Source::Languages(paths) => paths.first().map_or_else(String::new, |(_, p)| p.text.clone()),
    }
}

/// What a value is, in words, with as much of it as a person needs.
fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(b) => format!("`{b}`"),
        Value::Number(n) => format!("the number `{n}`"),
        Value::String(s) => format!("the string `{}`", quote(s)),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

fn quote(s: &str) -> String {
    let mut quoted: String = s.chars().take(QUOTED_CHARS_MAX).flat_map(char::escape_debug).collect();
    if s.chars().nth(QUOTED_CHARS_MAX).is_some() {
        quoted.push('…');
    }
    quoted
}
