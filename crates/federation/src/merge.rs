//! One answer out of many: the entities of all cities, and of each city what it contributed or why it did not.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, HashMap};

use entity::{Attribute, AttributeValue, Attributes, CONURB_NS, Entity, Instant, Iri, Series};
use policy::{CityName, Shared};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{Evolution, Outcome, Past, TimeProperty};

/// Local name, in conurb's namespace, of the attribute that says where an entity came from.
pub const PROVENANCE: &str = "provenance";

/// What came of asking one city, the own one included.
#[derive(Clone, PartialEq, Debug)]
pub struct Contribution {
    /// Which city.
    pub city: CityName,
    /// It is the one that merges.
    pub local: bool,
    /// When the answer was there.
    pub received_at: Instant,
    /// How long it took, in microseconds; none if the city was not asked.
    pub latency_us: Option<u64>,
    /// What came.
    pub result: CityResult,
}

/// What came of asking one city.
#[derive(Clone, PartialEq, Debug)]
pub enum CityResult {
    /// It answered.
    Answered(Outcome),
    /// It could not be reached, or is known to be down.
    Unreachable {
        /// Why, in the user's terms.
        reason: String,
    },
    /// What it sent could not be used.
    Unusable {
        /// Why.
        reason: String,
    },
}

/// What a city contributed to an answer, for the user.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// Which city.
    pub city: CityName,
    /// It is the one that was asked by the user.
    pub local: bool,
    /// How it went.
    pub status: SourceStatus,
    /// Entities that it gave; for a past: instances.
    pub count: usize,
    /// It has more than was asked for.
    pub truncated: bool,
    /// How long it took, in milliseconds.
    pub ms: Option<f64>,
    /// The agreements that its answer rests on.
    pub agreements: Vec<Iri>,
    /// Why it did not answer, or not with data.
    pub detail: Option<String>,
}

/// How asking a city went.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceStatus {
    /// It gave what it may.
    Ok,
    /// Its agreements do not permit it.
    Denied,
    /// It did not answer.
    Unreachable,
    /// It answered with a failure or something unusable.
    Error,
}

/// Entities of several cities.
#[derive(Clone, PartialEq, Debug)]
pub struct MergedEntities {
    /// By id; each with the attribute [`PROVENANCE`], a JsonProperty `{"city", "agreement", "receivedAt"}` (`agreement` null for the own
    /// city's), or an array of such if several cities or agreements gave it.
    pub entities: Vec<Entity>,
    /// By name of city.
    pub sources: Vec<Source>,
}

/// One entity's past from several cities.
#[derive(Clone, PartialEq, Debug)]
pub struct MergedPast {
    /// What was found; none if no city knows the entity.
    pub past: Option<Past>,
    /// By name of city.
    pub sources: Vec<Source>,
}

/// A version of an entity, as one city gave it.
struct Version {
    city: CityName,
    received_at: Instant,
    shared: Shared,
}

/// Merges the answers to a question about entities. The order of `contributions` does not matter.
///
/// Several versions of one entity become one (ETSI GS CIM 009 V1.9.1, clauses 4.5.5.2 and 4.5.5.3): types and scopes are united; of each
/// attribute and `datasetId` the unexpired instance with the newest `observedAt` wins, then the one with the newest `modifiedAt` (one with
/// `observedAt` before one without); where the standard leaves it open, the city whose name comes first.
#[must_use]
pub fn merge_entities(contributions: Vec<Contribution>, now: Instant) -> MergedEntities {
    let mut sources: Vec<Source> = contributions.iter().map(source).collect();
    sources.sort_by(|a, b| a.city.cmp(&b.city));
    let mut by_id: BTreeMap<Iri, Vec<Version>> = BTreeMap::new();
    for c in contributions {
        if let CityResult::Answered(Outcome::Entities { entities, .. }) = c.result {
            for shared in entities {
                let id = shared.entity.id.clone();
                by_id.entry(id).or_default().push(Version { city: c.city.clone(), received_at: c.received_at, shared });
            }
        }
    }
    MergedEntities { entities: by_id.into_values().map(|versions| merge_versions(versions, now)).collect(), sources }
}

fn source(c: &Contribution) -> Source {
    let mut source = Source {
        city: c.city.clone(),
        local: c.local,
        status: SourceStatus::Ok,
        count: 0,
        truncated: false,
        #[expect(clippy::cast_precision_loss, reason = "milliseconds for people")]
        ms: c.latency_us.map(|us| us as f64 / 1_000.0),
        agreements: Vec::new(),
        detail: None,
    };
    let (status, detail) = match &c.result {
        CityResult::Answered(Outcome::Entities { agreements, entities, truncated }) => {
            source.count = entities.len();
            source.truncated = *truncated;
            source.agreements.clone_from(agreements);
            (SourceStatus::Ok, None)
        }
        CityResult::Answered(Outcome::Evolution { agreements, past }) => {
            source.count = past.iter().flat_map(|p| p.attributes.values()).map(Vec::len).sum();
            source.truncated = past.as_ref().is_some_and(|p| p.cut_at.is_some());
            source.agreements.clone_from(agreements);
            (SourceStatus::Ok, None)
        }
        CityResult::Answered(Outcome::Denied { reason, .. }) => (SourceStatus::Denied, Some(reason)),
        CityResult::Answered(Outcome::Failed { reason }) | CityResult::Unusable { reason } => (SourceStatus::Error, Some(reason)),
        CityResult::Unreachable { reason } => (SourceStatus::Unreachable, Some(reason)),
    };
    source.status = status;
    source.detail = detail.cloned();
    source
}

fn provenance_of(versions: &[Version]) -> Attribute {
    let mut entries: Vec<Value> = Vec::new();
    for v in versions {
        let entry = |agreement: Option<&Iri>| {
            let mut entry =
                json!({"city": v.city.as_str(), "agreement": agreement.map(Iri::as_str), "receivedAt": v.received_at.to_string()});
            if is_simulated(&v.shared.entity) {
                entry["simulated"] = true.into();
            }
            entry
        };
        let agreements = &v.shared.agreements;
        let new = if agreements.is_empty() { vec![entry(None)] } else { agreements.iter().map(|a| entry(Some(a))).collect() };
        entries.extend(new);
    }
    entries.dedup();
    let json = if entries.len() == 1 { entries.remove(0) } else { Value::Array(entries) };
    Attribute::new(AttributeValue::Json(json))
}

/// The entity's own provenance says that a simulation made it: that is passed on, whoever says it.
fn is_simulated(entity: &Entity) -> bool {
    let own = entity.attribute(&format!("{CONURB_NS}{PROVENANCE}")).map(|a| &a.value);
    matches!(own, Some(AttributeValue::Json(value)) if value.get("simulated") == Some(&Value::Bool(true)))
}

fn merge_versions(mut versions: Vec<Version>, now: Instant) -> Entity {
    let provenance = Iri::known(&format!("{CONURB_NS}{PROVENANCE}"));
    if versions.len() > 1 {
        // The text decides only between two answers of one city at one instant; it makes the result independent of their order.
        versions.sort_by_cached_key(|v| (v.city.clone(), v.received_at, serde_json::to_string(&v.shared).unwrap_or_default()));
    }
    let says_where_from = provenance_of(&versions);
    let several = versions.len() > 1;
    let mut entities = versions.into_iter().map(|v| v.shared.entity);
    let mut merged = entities.next().expect("an entity has a version");
    if several {
        let all: Vec<Entity> = std::iter::once(merged).chain(entities).collect();
        merged = merge_entity(all, now);
    }
    // What a peer says about where its data came from is not ours to vouch for.
    merged.attributes.shift_remove(&provenance);
    merged.put(provenance, says_where_from);
    merged
}

/// The versions, at least one, in an order that decides where nothing else does.
fn merge_entity(versions: Vec<Entity>, now: Instant) -> Entity {
    let first = &versions[0];
    let expires: Option<Vec<Instant>> = versions.iter().map(|v| v.expires_at).collect();
    let mut merged = Entity {
        id: first.id.clone(),
        types: Vec::new(),
        scopes: Vec::new(),
        attributes: Attributes::default(),
        created_at: versions.iter().map(|v| v.created_at).min().unwrap_or_default(),
        modified_at: versions.iter().map(|v| v.modified_at).max().unwrap_or_default(),
        // Gone if any version lacks it, else the latest.
        expires_at: expires.and_then(|list| list.into_iter().max()),
    };
    for mut version in versions {
        inherit_expiry(&mut version);
        for t in version.types {
            if !merged.types.contains(&t) {
                merged.types.push(t);
            }
        }
        for s in version.scopes {
            if !merged.scopes.contains(&s) {
                merged.scopes.push(s);
            }
        }
        for (name, instances) in version.attributes {
            for instance in instances.into_iter().filter(|i| expiry(i).is_none_or(|at| at > now)) {
                let present = merged.instance(name.as_str(), instance.dataset_id.as_ref());
                if present.is_none_or(|p| newness(&instance) > newness(p)) {
                    merged.put(name.clone(), instance);
                }
            }
        }
    }
    merged
}

fn newness(a: &Attribute) -> (Option<Instant>, Instant) {
    (a.observed_at, a.modified_at)
}

fn expiry(a: &Attribute) -> Option<Instant> {
    a.qualifiers.as_ref()?.expires_at
}

/// An attribute lives no longer than its entity.
fn inherit_expiry(version: &mut Entity) {
    let Some(at) = version.expires_at else { return };
    for a in version.attributes.values_mut().flatten() {
        let qualifiers = a.qualifiers.get_or_insert_default();
        qualifiers.expires_at = Some(qualifiers.expires_at.map_or(at, |own| own.min(at)));
    }
}

/// Merges the answers to a question about one entity's past. The order of `contributions` does not matter.
///
/// Of instances of one attribute and `datasetId` with the same `observedAt` (without one: the same `modifiedAt`) the one recorded last wins,
/// then the one of the city whose name comes first. Where an answer was cut, all are cut at the same instant, so that the series is complete
/// up to there.
#[must_use]
pub fn merge_pasts(mut contributions: Vec<Contribution>, question: &Evolution) -> MergedPast {
    contributions.sort_by(|a, b| a.city.cmp(&b.city));
    let sources = contributions.iter().map(source).collect();
    let mut pasts: Vec<Past> = contributions
        .into_iter()
        .filter_map(|c| match c.result {
            CityResult::Answered(Outcome::Evolution { past, .. }) => past,
            _ => None,
        })
        .collect();
    if pasts.len() <= 1 {
        return MergedPast { past: pasts.pop(), sources };
    }
    let newest_first = question.last_n.is_some();
    let cuts = pasts.iter().filter_map(|p| p.cut_at);
    let cut_at = if newest_first { cuts.max() } else { cuts.min() };
    let mut merged = Past { id: pasts[0].id.clone(), types: Vec::new(), attributes: Series::new(), cut_at };
    let mut by_name: BTreeMap<Iri, Vec<Attribute>> = BTreeMap::new();
    for past in pasts {
        for t in past.types {
            if !merged.types.contains(&t) {
                merged.types.push(t);
            }
        }
        for (name, instances) in past.attributes {
            by_name.entry(name).or_default().extend(instances);
        }
    }
    for (name, instances) in by_name {
        let series = merge_series(instances, question, cut_at);
        if !series.is_empty() {
            merged.attributes.insert(name, series);
        }
    }
    MergedPast { past: Some(merged), sources }
}

fn merge_series(instances: Vec<Attribute>, question: &Evolution, cut_at: Option<Instant>) -> Vec<Attribute> {
    let time = |a: &Attribute| match question.time_property {
        TimeProperty::ObservedAt => a.observed_at.unwrap_or(a.modified_at),
        TimeProperty::ModifiedAt => a.modified_at,
        TimeProperty::CreatedAt => a.created_at,
    };
    let newest_first = question.last_n.is_some();
    // By `datasetId`, whether it has `observedAt`, and that time.
    let mut kept: HashMap<(Option<Iri>, bool, Instant), Attribute> = HashMap::new();
    for a in instances {
        let key = (a.dataset_id.clone(), a.observed_at.is_some(), a.observed_at.unwrap_or(a.modified_at));
        match kept.get(&key) {
            Some(present) if present.modified_at >= a.modified_at => {}
            _ => drop(kept.insert(key, a)),
        }
    }
    let beyond = |a: &Attribute| cut_at.is_some_and(|cut| if newest_first { time(a) < cut } else { time(a) > cut });
    let mut series: Vec<Attribute> = kept.into_values().filter(|a| !beyond(a)).collect();
    series.sort_by(|a, b| {
        let by_time = if newest_first { Reverse(time(a)).cmp(&Reverse(time(b))) } else { time(a).cmp(&time(b)) };
        let rest = |a: &Attribute| (a.dataset_id.clone(), a.observed_at, a.modified_at);
        if by_time == Ordering::Equal { rest(a).cmp(&rest(b)) } else { by_time }
    });
    if let Some(n) = question.last_n {
        let mut n_by_dataset: HashMap<Option<Iri>, u32> = HashMap::new();
        series.retain(|a| {
            let seen = n_by_dataset.entry(a.dataset_id.clone()).or_default();
            *seen += 1;
            *seen <= n
        });
    }
    series
}

#[cfg(test)]
mod tests;
