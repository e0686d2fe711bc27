//! An entity as it was known at an earlier time, put together again.
//!
//! An entity that has not changed since is what it is now, and so is each of its attributes. Of any other attribute instance the value counts
//! that was present then, unless it had been removed: the one observed last, or what it was restated to be since. Histories from before format 3 do not say what an entity became: as long as such an
//! entity has not become something else since, it is what it is now; otherwise it has one type, that of its table, and no scope.

use std::collections::BTreeMap;

use entity::{Entity, Instant, Iri};

use super::{About, Deletion, Evolution, Fact, History, HistoryError, Marked, TemporalQuery, What};

/// Instances of one entity that are looked at to put it together.
pub const AS_OF_INSTANCES_MAX: usize = 500_000;

/// The entity as it was known at `at`, if there was one; `present` is what it is now, if there is one now.
///
/// Cost: that of reading all its values up to then, unless it has not changed since.
/// Errors: [`HistoryError::TooLong`], [`HistoryError::NotKept`], and those of reading.
pub fn entity_as_of(history: &dyn History, id: &Iri, at: Instant, present: Option<&Entity>) -> Result<Option<Entity>, HistoryError> {
    if let Some(present) = present.filter(|e| e.modified_at <= at) {
        return Ok(Some(present.clone()));
    }
    let present = present.filter(|e| e.created_at <= at);
    let marks = Marks::of(history, id, Some(at))?;
    let ended_at = marks.deletions.iter().filter(|d| d.attribute.is_none()).map(|d| d.deleted_at).max();
    let about = marks.about.clone();
    // What was put with the same change as a removal came after it.
    if about.as_ref().is_some_and(|(since, _)| ended_at.is_some_and(|end| *since < end)) {
        return Ok(None);
    }
    let types = present.iter().flat_map(|e| &e.types).chain(about.iter().flat_map(|(_, a)| &a.types));
    for entity_type in types {
        history.kept(entity_type).check(entity_type, None, Some(at))?;
    }
    let all = TemporalQuery { as_of: Some(at), instances_max: AS_OF_INSTANCES_MAX, ..TemporalQuery::of(id.clone()) };
    let evolution = history.evolution(&all)?;
    if evolution.as_ref().is_some_and(|e| e.cut_at.is_some()) {
        return Err(HistoryError::TooLong { entity: id.clone(), max: AS_OF_INSTANCES_MAX });
    }
    let Some(entity_type) = evolution.as_ref().map(|e| &e.entity_type).or_else(|| present?.types.first()).cloned() else { return Ok(None) };
    let mut entity = Entity::new(id.clone(), entity_type);
    let mut times = marks.put(&mut entity, evolution, ended_at);
    if let Some(present) = present {
        put_unchanged(history, &mut entity, present, at)?;
        times.extend(present.attributes.values().flatten().map(|a| a.modified_at).filter(|t| *t <= at));
    }
    let about = match (about, present) {
        (Some((since, about)), _) => {
            times.push(since);
            Some(about)
        }
        // Histories from before format 3 do not say it; but had it become something else since, this would be known.
        (None, Some(present)) if Marks::of(history, id, None)?.about.is_none() => Some(About::of(present)),
        (None, _) => None,
    };
    match about {
        Some(about) => {
            (entity.types, entity.scopes, entity.created_at, entity.expires_at) =
                (about.types, about.scopes, about.created_at, about.expires_at);
        }
        // It was made and removed with one change.
        None if ended_at.is_some_and(|end| times.iter().all(|t| *t <= end)) => return Ok(None),
        None => {
            let created_at = entity.attributes.values().flatten().map(|a| a.created_at).min();
            let Some(created_at) = created_at.or(times.iter().min().copied()) else { return Ok(None) };
            entity.created_at = created_at;
        }
    }
    entity.modified_at = times.into_iter().max().unwrap_or(entity.created_at);
    Ok(Some(entity))
}

/// What is known of an entity besides values.
struct Marks {
    deletions: Vec<Deletion>,
    /// What it became last, and when.
    about: Option<(Instant, About)>,
    /// When an attribute instance was restated last, and when what it says since was observed.
    restated: BTreeMap<(Iri, Option<Iri>), (Instant, Instant)>,
}

impl Marks {
    fn of(history: &dyn History, id: &Iri, as_of: Option<Instant>) -> Result<Self, HistoryError> {
        let mut marks = Self { deletions: Vec::new(), about: None, restated: BTreeMap::new() };
        history.visit_marks(Marked::Entity(id), as_of, &mut |fact| match fact {
            Fact { what: What::Became(about), recorded_at, .. } => marks.about = marks.about.take().max(Some((recorded_at, about))),
            Fact { what: What::Restated { name, dataset_id, observed_at }, recorded_at, .. } => {
                let last = marks.restated.entry((name, dataset_id)).or_insert((recorded_at, observed_at));
                *last = (*last).max((recorded_at, observed_at));
            }
            other => marks.deletions.extend(Deletion::of(other)),
        })?;
        Ok(marks)
    }

    /// Puts what was present into the entity. Returns when it was changed since it was there.
    fn put(&self, entity: &mut Entity, evolution: Option<Evolution>, ended_at: Option<Instant>) -> Vec<Instant> {
        let mut removed: BTreeMap<(&Iri, Option<&Iri>), Instant> = BTreeMap::new();
        for d in &self.deletions {
            if let Some(name) = &d.attribute {
                let last = removed.entry((name, d.dataset_id.as_ref())).or_insert(d.deleted_at);
                *last = d.deleted_at.max(*last);
            }
        }
        let mut times: Vec<Instant> = self.deletions.iter().map(|d| d.deleted_at).filter(|t| ended_at.is_none_or(|end| *t > end)).collect();
        for (name, mut instances) in evolution.into_iter().flat_map(|e| e.attributes) {
            times.extend(instances.iter().map(|a| a.modified_at).filter(|t| ended_at.is_none_or(|end| *t >= end)));
            instances.retain(|a| {
                let is_before = |end: &Instant| a.modified_at < *end;
                if let Some((since, observed_at)) = self.restated.get(&(name.clone(), a.dataset_id.clone()))
                    && (a.modified_at < *since || (a.modified_at == *since && a.observed_at != Some(*observed_at)))
                {
                    return false;
                }
                !ended_at.as_ref().is_some_and(is_before) && !removed.get(&(&name, a.dataset_id.as_ref())).is_some_and(is_before)
            });
            instances.sort_by_key(|a| a.modified_at);
            for value in instances {
                // A value observed before the present one is late: it goes to the history only.
                let known = entity.instance(name.as_str(), value.dataset_id.as_ref());
                let is_late = known.is_some_and(|p| value.observed_at.is_some() && value.observed_at < p.observed_at);
                if !is_late {
                    entity.put(name.clone(), value);
                }
            }
        }
        times
    }
}

/// Puts what has not changed since `at`, whether or not the history still has it.
///
/// Errors: of an attribute that was there then and has changed since, retention has removed the value.
fn put_unchanged(history: &dyn History, entity: &mut Entity, present: &Entity, at: Instant) -> Result<(), HistoryError> {
    for (name, now) in present.attributes.iter().flat_map(|(name, list)| list.iter().map(move |a| (name, a))) {
        if now.modified_at <= at {
            entity.put(name.clone(), now.clone());
        } else if now.created_at <= at && entity.instance(name.as_str(), now.dataset_id.as_ref()).is_none() {
            for entity_type in &present.types {
                if !history.kept(entity_type).is_all() {
                    let (entity_type, attribute) = (entity_type.clone(), Some(name.clone()));
                    return Err(HistoryError::NotKept { entity_type, attribute, since: now.modified_at, at });
                }
            }
        }
    }
    Ok(())
}
