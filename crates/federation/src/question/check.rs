//! Checks of what came from another city and was read: names, instants, sizes. Deserialising alone does not make them sure, since the words
//! of `entity` are read back from our own files without being parsed again.

use std::ops::Deref;

use entity::{Attribute, AttributeValue, Comparison, Entity, Filter, Instant, Iri, Operand, Scope, ScopePattern, Target, TypeSelector};
use serde_json::Value;

use super::{
    Answer, ENTITIES_MAX, Evolution, FILTER_DEPTH_MAX, FILTER_NODES_MAX, ID_CHARS_MAX, INSTANCES_MAX, Kind, MessageError, NAMES_MAX,
    Outcome, PATTERNS_MAX, Past, Question, TEXT_CHARS_MAX,
};

type Checked = Result<(), MessageError>;

/// Members of the JSON of a filter whose value is a regular expression.
const PATTERN_MEMBERS: [&str; 3] = ["Matches", "NotMatches", "IdPattern"];

/// The number of regular expressions, before they are compiled.
pub(super) fn patterns(json: &str) -> Checked {
    let value: Value = serde_json::from_str(json).map_err(|e| MessageError::Form { what: "question", reason: e.to_string() })?;
    let found = count_patterns(&value);
    limit("the filter", found, "regular expressions", PATTERNS_MAX)
}

fn count_patterns(value: &Value) -> usize {
    match value {
        Value::Array(list) => list.iter().map(count_patterns).sum(),
        Value::Object(map) => map.iter().map(|(k, v)| usize::from(PATTERN_MEMBERS.contains(&k.as_str())) + count_patterns(v)).sum(),
        _ => 0,
    }
}

pub(super) fn question(q: &Question) -> Checked {
    id(&q.id)?;
    let mut n_nodes = 0;
    filter(&q.filter, 1, &mut n_nodes)?;
    if let Some(selector) = &q.types {
        types(selector, 1, &mut n_nodes)?;
    }
    if let Some(names) = &q.attributes {
        limit("attributes", names.len(), "names", NAMES_MAX)?;
        iris("attributes", names)?;
    }
    within("limit", q.limit, ENTITIES_MAX)?;
    match &q.kind {
        Kind::Entities => Ok(()),
        Kind::Evolution(e) => evolution(e),
    }
}

fn evolution(e: &Evolution) -> Checked {
    iri("the entity", &e.entity)?;
    if let Some(interval) = &e.interval {
        instant("the start of the interval", interval.start)?;
        instant("the end of the interval", interval.end)?;
        if interval.end <= interval.start {
            return Err(MessageError::Value {
                member: "the end of the interval",
                found: interval.end.to_string(),
                expected: format!("an instant after its start `{}`", interval.start),
            });
        }
    }
    e.as_of.map_or(Ok(()), |i| instant("asOf", i))?;
    e.last_n.map_or(Ok(()), |n| within("lastN", n, INSTANCES_MAX))?;
    within("instancesMax", e.instances_max, INSTANCES_MAX)
}

pub(super) fn answer(a: &Answer) -> Checked {
    id(&a.question)?;
    instant("answeredAt", a.answered_at)?;
    match &a.outcome {
        Outcome::Entities { agreements, entities, .. } => {
            iris("agreements", agreements)?;
            limit("the answer", entities.len(), "entities", ENTITIES_MAX as usize)?;
            entities.iter().try_for_each(|shared| {
                iris("agreements", &shared.agreements)?;
                entity(&shared.entity)
            })
        }
        Outcome::Evolution { agreements, past: p } => {
            iris("agreements", agreements)?;
            p.as_ref().map_or(Ok(()), past)
        }
        Outcome::Denied { code, reason, reason_zh } => [code, reason, reason_zh].into_iter().try_for_each(|t| text("the reason", t)),
        Outcome::Failed { reason } => text("the reason", reason),
    }
}

fn entity(e: &Entity) -> Checked {
    iri("an entity's id", &e.id)?;
    iris("an entity's type", &e.types)?;
    if e.types.is_empty() {
        return Err(MessageError::Value { member: "an entity's type", found: String::new(), expected: "at least one type".into() });
    }
    e.scopes.iter().try_for_each(scope)?;
    instant("createdAt", e.created_at)?;
    instant("modifiedAt", e.modified_at)?;
    e.expires_at.map_or(Ok(()), |i| instant("expiresAt", i))?;
    attributes(&e.attributes)
}

fn past(p: &Past) -> Checked {
    iri("an entity's id", &p.id)?;
    iris("an entity's type", &p.types)?;
    let n_instances = p.attributes.values().map(Vec::len).sum();
    limit("the past", n_instances, "instances", INSTANCES_MAX as usize)?;
    p.cut_at.map_or(Ok(()), |i| instant("cutAt", i))?;
    attributes(&p.attributes)
}

/// The depth is bounded by the JSON parser, which stops at 128 levels.
fn attributes<'a>(all: impl IntoIterator<Item = (&'a Iri, &'a (impl Deref<Target = [Attribute]> + 'a))>) -> Checked {
    all.into_iter().try_for_each(|(name, instances)| {
        iri("an attribute's name", name)?;
        instances.iter().try_for_each(attribute)
    })
}

fn attribute(a: &Attribute) -> Checked {
    match &a.value {
        AttributeValue::Relationship(list) | AttributeValue::ListRelationship(list) => iris("a relationship's object", list)?,
        AttributeValue::Vocab(list) => iris("a vocab term", list)?,
        AttributeValue::Property(_)
        | AttributeValue::Geo(_)
        | AttributeValue::Language(_)
        | AttributeValue::Json(_)
        | AttributeValue::List(_) => {}
    }
    a.dataset_id.as_ref().map_or(Ok(()), |d| iri("datasetId", d))?;
    a.observed_at.map_or(Ok(()), |i| instant("observedAt", i))?;
    instant("createdAt", a.created_at)?;
    instant("modifiedAt", a.modified_at)?;
    if let Some(q) = &a.qualifiers {
        iris("objectType", &q.object_types)?;
        q.value_type.as_ref().map_or(Ok(()), |t| iri("valueType", t))?;
        q.expires_at.map_or(Ok(()), |i| instant("expiresAt", i))?;
    }
    attributes(&a.sub_attributes)
}

fn filter(f: &Filter, depth: usize, n_nodes: &mut usize) -> Checked {
    node(depth, n_nodes)?;
    match f {
        Filter::And(list) | Filter::Or(list) => list.iter().try_for_each(|f| filter(f, depth + 1, n_nodes)),
        Filter::Not(f) => filter(f, depth + 1, n_nodes),
        Filter::Type(selector) => types(selector, depth + 1, n_nodes),
        Filter::Id(list) => {
            limit("a condition on the id", list.len(), "ids", ENTITIES_MAX as usize)?;
            iris("an id", list)
        }
        Filter::HasAnyOf(list) => {
            limit("a condition on attributes", list.len(), "names", NAMES_MAX)?;
            iris("an attribute's name", list)
        }
        Filter::Scope(pattern) => scope_pattern(pattern),
        // The asker puts targets in its place before it asks.
        Filter::Linked(_) => Err(MessageError::Form {
            what: "question",
            reason: "a condition on linked entities cannot be asked of another city".to_owned(),
        }),
        Filter::IdPattern(_) => Ok(()),
        Filter::Value(target, comparison) => {
            if let Target::Attribute(path) = target {
                iri("an attribute's name", &path.attribute)?;
                limit("a path", path.subs.len() + path.keys.len(), "steps", FILTER_DEPTH_MAX)?;
                iris("a sub-attribute's name", &path.subs)?;
            }
            operands(comparison)
        }
        Filter::Geo(condition) => iri("a GeoProperty's name", &condition.property),
    }
}

fn operands(comparison: &Comparison) -> Checked {
    let one = |o: &Operand| match o {
        Operand::Instant(i) => instant("an operand", *i),
        _ => Ok(()),
    };
    match comparison {
        Comparison::Equal(list) | Comparison::NotEqual(list) => {
            limit("a comparison", list.len(), "operands", FILTER_NODES_MAX)?;
            list.iter().try_for_each(one)
        }
        Comparison::Between(a, b) | Comparison::NotBetween(a, b) => one(a).and_then(|()| one(b)),
        Comparison::Order(_, o) => one(o),
        Comparison::Exists | Comparison::Matches(_) | Comparison::NotMatches(_) => Ok(()),
    }
}

fn types(selector: &TypeSelector, depth: usize, n_nodes: &mut usize) -> Checked {
    node(depth, n_nodes)?;
    match selector {
        TypeSelector::Any => Ok(()),
        TypeSelector::Is(t) => iri("a type", t),
        TypeSelector::Or(list) | TypeSelector::And(list) => list.iter().try_for_each(|s| types(s, depth + 1, n_nodes)),
    }
}

fn node(depth: usize, n_nodes: &mut usize) -> Checked {
    *n_nodes += 1;
    limit("the filter", depth, "levels", FILTER_DEPTH_MAX)?;
    limit("the filter", *n_nodes, "conditions", FILTER_NODES_MAX)
}

fn limit(member: &'static str, found: usize, of: &'static str, max: usize) -> Checked {
    if found > max { Err(MessageError::Limit { member, found, of, max }) } else { Ok(()) }
}

fn within(member: &'static str, found: u32, max: u32) -> Checked {
    if (1..=max).contains(&found) {
        Ok(())
    } else {
        Err(MessageError::Value { member, found: found.to_string(), expected: format!("1 to {max}") })
    }
}

fn text(member: &'static str, found: &str) -> Checked {
    limit(member, found.chars().count(), "characters", TEXT_CHARS_MAX)
}

fn wrong(member: &'static str, found: &str, expected: &str) -> MessageError {
    MessageError::Value { member, found: found.chars().take(80).collect(), expected: expected.to_owned() }
}

fn id(found: &str) -> Checked {
    let ok = (1..=ID_CHARS_MAX).contains(&found.len()) && found.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if ok { Ok(()) } else { Err(wrong("the question's id", found, "1 to 64 letters, digits, `-` or `_`")) }
}

fn iri(member: &'static str, found: &Iri) -> Checked {
    match found.as_str().parse::<Iri>() {
        Ok(_) => Ok(()),
        Err(_) => Err(wrong(member, found.as_str(), "an absolute URI")),
    }
}

fn iris(member: &'static str, found: &[Iri]) -> Checked {
    found.iter().try_for_each(|i| iri(member, i))
}

fn scope(found: &Scope) -> Checked {
    match found.as_str().parse::<Scope>() {
        Ok(parsed) if parsed == *found => Ok(()),
        _ => Err(wrong("a scope", found.as_str(), "levels such as `/Madrid/Gardens`")),
    }
}

fn scope_pattern(found: &ScopePattern) -> Checked {
    let value = serde_json::to_value(found).unwrap_or_default();
    let text = value.as_str().unwrap_or_default();
    match text.parse::<ScopePattern>() {
        Ok(parsed) if parsed == *found => Ok(()),
        _ => Err(wrong("a scope pattern", text, "levels such as `/Madrid/#`")),
    }
}

fn instant(member: &'static str, found: Instant) -> Checked {
    // What cannot be written as a date-time must not come in.
    if Instant::from_micros(found.micros()) == found {
        Ok(())
    } else {
        Err(wrong(member, &found.micros().to_string(), "microseconds since 1970 within the years 1 to 9999"))
    }
}
