//! The present entities in memory.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};

use entity::{Entity, Filter, GeoRelation, Iri, TypeSelector};
use rstar::primitives::{GeomWithData, Rectangle};
use rstar::{AABB, RTree};

type Placed = GeomWithData<Rectangle<[f64; 2]>, Iri>;

/// Entities looked at under one read lock: long scans let writers in between.
const CHUNK_ENTITIES: usize = 2_048;

/// The present entities of a space: by id, by type, by place (GeoProperty `location`).
///
/// Readers take entities out as `Arc`s and work without the lock; a page is ordered by id, so paging is stable while data change.
#[derive(Default)]
pub struct LiveTable {
    inner: RwLock<Inner>,
}

#[derive(Default)]
struct Inner {
    by_id: HashMap<Iri, Arc<Entity>>,
    by_type: HashMap<Iri, BTreeMap<Iri, Arc<Entity>>>,
    places: RTree<Placed>,
}

/// Which entities, and which part of them.
#[derive(Clone, Debug)]
pub struct PageRequest<'a> {
    /// The condition.
    pub filter: &'a Filter,
    /// Entities to skip, in the order of ids.
    pub offset: usize,
    /// Entities to return.
    pub limit: usize,
    /// Count all matches, not only as many as needed to know whether there are more.
    pub count: bool,
}

/// A page of entities.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Page {
    /// The entities, ordered by id.
    pub entities: Vec<Arc<Entity>>,
    /// Are there more behind them?
    pub more: bool,
    /// How many match in all, if it was asked.
    pub total: Option<usize>,
}

impl LiveTable {
    /// The entity with this id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Arc<Entity>> {
        self.read(|inner| inner.by_id.get(id).cloned())
    }

    /// How many entities there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.read(|inner| inner.by_id.len())
    }

    /// Is there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The types that have entities, each with how many, sorted.
    #[must_use]
    pub fn types(&self) -> Vec<(Iri, usize)> {
        let mut types: Vec<_> = self.read(|inner| inner.by_type.iter().map(|(t, m)| (t.clone(), m.len())).collect());
        types.sort();
        types
    }

    /// All entities of a type, ordered by id.
    #[must_use]
    pub fn of_type(&self, entity_type: &Iri) -> Vec<Arc<Entity>> {
        self.read(|inner| inner.by_type.get(entity_type).map(|m| m.values().cloned().collect()).unwrap_or_default())
    }

    /// Answers a query.
    #[must_use]
    pub fn page(&self, request: &PageRequest<'_>) -> Page {
        let mut collector = Collector { request, page: Page::default(), n_matched: 0 };
        match self.plan(request.filter) {
            Plan::Candidates(mut found) => {
                found.sort_by(|a, b| a.id.cmp(&b.id));
                found.dedup_by(|a, b| a.id == b.id);
                for e in found {
                    if !collector.offer(e) {
                        break;
                    }
                }
            }
            Plan::Scan(types) => self.scan_types(&types, &mut collector),
        }
        collector.finish()
    }

    fn plan(&self, filter: &Filter) -> Plan {
        for condition in filter.conjuncts() {
            if let Filter::Id(ids) = condition {
                return Plan::Candidates(self.read(|inner| ids.iter().filter_map(|id| inner.by_id.get(id).cloned()).collect()));
            }
        }
        for condition in filter.conjuncts() {
            if let Filter::Geo(geo) = condition
                && geo.property.as_str() == entity::LOCATION
                && let Some(envelope) = search_box(geo)
            {
                return Plan::Candidates(self.read(|inner| {
                    inner.places.locate_in_envelope_intersecting(&envelope).filter_map(|p| inner.by_id.get(&p.data).cloned()).collect()
                }));
            }
        }
        let named = filter.conjuncts().find_map(|c| match c {
            Filter::Type(s) if !matches!(s, TypeSelector::Any) => Some(s.names()),
            _ => None,
        });
        Plan::Scan(named.unwrap_or_else(|| self.types().into_iter().map(|(t, _)| t).collect()))
    }

    /// Walks entities of several types in the order of ids, a chunk under each lock.
    fn scan_types(&self, types: &[Iri], collector: &mut Collector<'_>) {
        let mut after: Option<Iri> = None;
        loop {
            let chunk = self.read(|inner| inner.chunk_after(types, after.as_ref()));
            let Some(last) = chunk.last() else { return };
            after = Some(last.id.clone());
            for e in chunk {
                if !collector.offer(e) {
                    return;
                }
            }
        }
    }

    /// Puts in, replaces or (none) removes entities; all at once for readers.
    pub fn apply(&self, changes: impl IntoIterator<Item = (Iri, Option<Arc<Entity>>)>) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        for (id, entity) in changes {
            inner.replace(&id, entity);
        }
    }

    fn read<T>(&self, f: impl FnOnce(&Inner) -> T) -> T {
        f(&self.inner.read().unwrap_or_else(PoisonError::into_inner))
    }
}

enum Plan {
    Candidates(Vec<Arc<Entity>>),
    Scan(Vec<Iri>),
}

struct Collector<'a> {
    request: &'a PageRequest<'a>,
    page: Page,
    n_matched: usize,
}

impl Collector<'_> {
    /// Takes an entity into account; false when nothing more is needed.
    fn offer(&mut self, entity: Arc<Entity>) -> bool {
        if self.request.filter.matches(&entity) {
            self.n_matched += 1;
            if self.n_matched > self.request.offset {
                if self.page.entities.len() < self.request.limit {
                    self.page.entities.push(entity);
                } else {
                    self.page.more = true;
                }
            }
        }
        self.request.count || !self.page.more
    }

    fn finish(self) -> Page {
        Page { total: self.request.count.then_some(self.n_matched), ..self.page }
    }
}

impl Inner {
    fn replace(&mut self, id: &Iri, entity: Option<Arc<Entity>>) {
        let before = match &entity {
            Some(e) => self.by_id.insert(id.clone(), Arc::clone(e)),
            None => self.by_id.remove(id),
        };
        let place_before = before.as_ref().and_then(|e| place_of(e));
        let place_now = entity.as_ref().and_then(|e| place_of(e));
        let moved = match (&place_before, &place_now) {
            (Some(a), Some(b)) => a.geom() != b.geom(),
            (None, None) => false,
            _ => true,
        };
        if moved {
            if let Some(p) = place_before {
                self.places.remove(&p);
            }
            if let Some(p) = place_now {
                self.places.insert(p);
            }
        }
        if let Some(before) = &before {
            for t in &before.types {
                if !entity.as_ref().is_some_and(|e| e.types.contains(t))
                    && let Some(of_type) = self.by_type.get_mut(t)
                {
                    of_type.remove(id);
                    if of_type.is_empty() {
                        self.by_type.remove(t);
                    }
                }
            }
        }
        if let Some(e) = entity {
            for t in &e.types {
                self.by_type.entry(t.clone()).or_default().insert(id.clone(), Arc::clone(&e));
            }
        }
    }

    /// The next entities of any of the types, in the order of ids, each once.
    fn chunk_after(&self, types: &[Iri], after: Option<&Iri>) -> Vec<Arc<Entity>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let ranges = types.iter().filter_map(|t| self.by_type.get(t)).map(|m| m.range::<Iri, _>((from, Bound::Unbounded)));
        if types.len() == 1 {
            return ranges.flatten().take(CHUNK_ENTITIES).map(|(_, e)| Arc::clone(e)).collect();
        }
        // Each type offers its next chunk; of the union the smallest ids are certain to be complete.
        let mut found: BTreeMap<&Iri, &Arc<Entity>> = BTreeMap::new();
        for range in ranges {
            found.extend(range.take(CHUNK_ENTITIES));
        }
        found.into_values().take(CHUNK_ENTITIES).map(Arc::clone).collect()
    }
}

fn place_of(entity: &Entity) -> Option<Placed> {
    let [west, south, east, north] = entity.location()?.bbox();
    Some(GeomWithData::new(Rectangle::from_corners([west, south], [east, north]), entity.id.clone()))
}

/// A box, in degrees, outside of which no entity can satisfy the condition; none if there is no such box.
fn search_box(geo: &entity::GeoCondition) -> Option<AABB<[f64; 2]>> {
    let [west, south, east, north] = geo.reference.bbox();
    let margin_m = match geo.relation {
        GeoRelation::NearMax(m) => m,
        GeoRelation::Within | GeoRelation::Contains | GeoRelation::Intersects | GeoRelation::Equals | GeoRelation::Overlaps => 0.0,
        GeoRelation::NearMin(_) | GeoRelation::Disjoint => return None,
    };
    // 1 % more than needed: the sphere's degree is 111.195 km.
    let lat_margin = margin_m / 110_000.0;
    let cos = north.abs().max(south.abs()).min(89.0).to_radians().cos();
    let lon_margin = lat_margin / cos;
    if lon_margin > 90.0 || west - lon_margin < -180.0 || east + lon_margin > 180.0 {
        // Reaches around the pole or over the date line: no single box.
        return None;
    }
    Some(AABB::from_corners([west - lon_margin, south - lat_margin], [east + lon_margin, north + lat_margin]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use entity::{Attribute, AttributeValue, CompareOp, Comparison, GeoCondition, Geometry, Operand, Path, Target};
    use proptest::prelude::*;

    fn iri(s: &str) -> Iri {
        Iri::known(&format!("https://example.org/{s}"))
    }

    fn station(i: u16, types: &[&str], value: f64, lon: f64, lat: f64) -> Arc<Entity> {
        let mut e = Entity::new(iri(&format!("id{i:05}")), iri(types[0]))
            .with(iri("v"), Attribute::property(value))
            .with(Iri::known(entity::LOCATION), Attribute::new(AttributeValue::Geo(Geometry::point(lon, lat))));
        e.types.extend(types[1..].iter().map(|t| iri(t)));
        Arc::new(e)
    }

    fn arb_station() -> impl Strategy<Value = Arc<Entity>> {
        let types = prop_oneof![Just(vec!["A"]), Just(vec!["B"]), Just(vec!["A", "B"]), Just(vec!["C"])];
        (0u16..40, types, 0.0..10.0f64, 116.0..117.0f64, 39.0..40.0f64).prop_map(|(i, t, v, lon, lat)| station(i, &t, v, lon, lat))
    }

    fn arb_filter() -> impl Strategy<Value = Filter> {
        let by_value = (0.0..10.0f64)
            .prop_map(|v| Filter::Value(Target::Attribute(Path::of(iri("v"))), Comparison::Order(CompareOp::Gt, Operand::Number(v))));
        let by_type = prop_oneof![
            Just(TypeSelector::Is(iri("A"))),
            Just(TypeSelector::Or(vec![TypeSelector::Is(iri("A")), TypeSelector::Is(iri("B"))])),
            Just(TypeSelector::Any)
        ];
        let by_place = (116.0..117.0f64, 39.0..40.0f64, 1.0..60_000.0f64).prop_map(|(lon, lat, m)| {
            Filter::Geo(GeoCondition {
                property: Iri::known(entity::LOCATION),
                relation: GeoRelation::NearMax(m),
                reference: Geometry::point(lon, lat),
            })
        });
        let by_id = proptest::collection::vec(0u16..40, 1..4)
            .prop_map(|ids| Filter::Id(ids.into_iter().map(|i| iri(&format!("id{i:05}"))).collect()));
        (proptest::option::of(by_value), by_type, proptest::option::of(by_place), proptest::option::weighted(0.2, by_id))
            .prop_map(|(v, t, p, i)| [v, p, i].into_iter().flatten().fold(Filter::Type(t), Filter::and))
    }

    proptest! {
        /// The indexes never change an answer: every page is what a plain walk over all entities gives.
        #[test]
        fn a_page_is_what_a_plain_walk_gives(
            changes in proptest::collection::vec((arb_station(), proptest::bool::weighted(0.2)), 0..80),
            filter in arb_filter(), offset in 0usize..5, limit in 0usize..10,
        ) {
            let table = LiveTable::default();
            let mut model = BTreeMap::new();
            for (e, gone) in changes {
                table.apply([(e.id.clone(), (!gone).then(|| Arc::clone(&e)))]);
                if gone { model.remove(&e.id); } else { model.insert(e.id.clone(), e); }
            }
            let matching: Vec<_> = model.into_values().filter(|e| filter.matches(e)).collect();
            let page = table.page(&PageRequest { filter: &filter, offset, limit, count: true });
            prop_assert_eq!(page.total, Some(matching.len()));
            prop_assert_eq!(page.more, matching.len() > offset + limit);
            prop_assert_eq!(page.entities, matching.into_iter().skip(offset).take(limit).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_scan_longer_than_a_chunk_misses_nothing() {
        let table = LiveTable::default();
        table.apply(
            (0..5000).map(|i| station(i, if i % 3 == 0 { &["A", "B"] } else { &["B"] }, 1.0, 1.0, 1.0)).map(|e| (e.id.clone(), Some(e))),
        );
        let both = Filter::Type(TypeSelector::Or(vec![TypeSelector::Is(iri("A")), TypeSelector::Is(iri("B"))]));
        let page = table.page(&PageRequest { filter: &both, offset: 0, limit: 10_000, count: true });
        assert_eq!(page.entities.len(), 5000);
        assert!(page.entities.is_sorted_by(|a, b| a.id < b.id));
    }
}
