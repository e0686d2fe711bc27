//! The live table against a plain walk over a sorted map, over random cities, conditions, checkpoints and budgets.

use std::collections::BTreeMap;

use entity::{
    Attribute, AttributeValue, CompareOp, Comparison, Filter, GeoCondition, GeoRelation, Geometry, Instant, LOCATION, Operand, Path,
    Pattern, Target, TypeSelector, Value,
};
use indexmap::IndexMap;
use proptest::prelude::*;
use serde_json::json;

use super::judge::has_words;
use super::order::{Plain, compare};
use super::words::words_of;
use super::*;
use crate::state::{Manifest, MemoryDocuments};

fn iri(s: &str) -> Iri {
    Iri::known(&format!("https://example.org/{s}"))
}

fn id(n: u16) -> Iri {
    Iri::known(&format!("urn:x:{n:05}"))
}

/// A table over documents in memory, with a model beside it.
struct City {
    table: LiveTable,
    documents: Arc<dyn Documents>,
    budget: Budget,
    model: BTreeMap<Iri, Arc<Entity>>,
    clock_us: i64,
}

impl City {
    fn new(total_bytes: usize) -> Self {
        let documents: Arc<dyn Documents> = Arc::new(MemoryDocuments::default());
        let budget = Budget { total_bytes };
        let table = LiveTable::open(Space::City, Arc::clone(&documents), budget).unwrap();
        Self { table, documents, budget, model: BTreeMap::new(), clock_us: 0 }
    }

    /// Puts in or removes an entity, at the next recorded time.
    fn apply(&mut self, mut e: Entity, gone: bool) {
        self.clock_us += 1;
        e.modified_at = Instant::from_micros(self.clock_us);
        let e = Arc::new(e);
        self.table.apply([(e.id.clone(), (!gone).then(|| Arc::clone(&e)))]);
        if gone {
            self.model.remove(&e.id);
        } else {
            self.model.insert(e.id.clone(), e);
        }
    }

    fn checkpoint(&self) {
        let frozen = self.table.freeze();
        self.documents.checkpoint(&mut frozen.changed(), &Manifest::default()).unwrap();
        self.table.thaw();
    }

    fn reopen(&mut self) {
        self.checkpoint();
        self.table = LiveTable::open(Space::City, Arc::clone(&self.documents), self.budget).unwrap();
    }

    /// What a plain walk gives.
    fn walk(&self, request: &PageRequest<'_>) -> Vec<Arc<Entity>> {
        let words = request.text.map(words_of);
        let fits = |e: &&Arc<Entity>| {
            request.filter.matches(e)
                && request.after.is_none_or(|a| e.id.as_str() > a)
                && request.now.is_none_or(|now| e.expires_at.is_none_or(|at| at > now))
                && words.as_ref().is_none_or(|w| !w.is_empty() && has_words(e, w))
        };
        let mut all: Vec<_> = self.model.values().filter(fits).cloned().collect();
        if let Some(o) = &request.order_by {
            let value = |e: &Entity| Plain::of_entity(e, &o.attribute);
            all.sort_by(|a, b| compare((value(a).as_ref(), a.id.as_str()), (value(b).as_ref(), b.id.as_str()), o.direction));
        }
        all
    }

    fn check(&self, request: &PageRequest<'_>) {
        let want = self.walk(request);
        let page = self.table.try_page(request).unwrap();
        let told = || format!("{request:?}\n{}", self.table.explain(request).unwrap());
        let shown: Vec<_> = want.iter().skip(request.offset).take(request.limit).cloned().collect();
        assert_eq!(page.entities, shown, "{}", told());
        assert_eq!(page.total, request.count.then_some(want.len()), "{}", told());
        assert_eq!(page.more, want.len() > request.offset + request.limit, "{}", told());
    }
}

fn arb_value() -> impl Strategy<Value = AttributeValue> {
    let small = || prop_oneof![(-4i32..5).prop_map(f64::from), -4.0..4.0f64, Just(-0.0)];
    let text = || prop_oneof!["[a-c]{1,2}", Just("北京古城".to_owned()), Just("Old Town".to_owned()), "x{70}"];
    let time = || {
        prop_oneof![
            (0i64..5).prop_map(|s| Instant::from_secs(s).to_string()),
            Just("1970-01-01T00:00:02.5Z".to_owned()),
            Just("1970-01-01T00:00:02.500Z".to_owned()),
            Just("1970-01-03".to_owned()),
        ]
    };
    let target = || (0u16..6).prop_map(id);
    prop_oneof![
        4 => small().prop_map(|n| AttributeValue::Property(Value::from(n))),
        1 => (-4i64..5).prop_map(|n| AttributeValue::Property(Value::from(n))),
        1 => any::<bool>().prop_map(|b| AttributeValue::Property(Value::Bool(b))),
        3 => text().prop_map(|t| AttributeValue::Property(Value::String(t))),
        2 => time().prop_map(|t| AttributeValue::Property(Value::String(t))),
        1 => small().prop_map(|n| AttributeValue::Property(json!({"@type": "T", "@value": n}))),
        1 => time().prop_map(|t| AttributeValue::Property(json!({"@type": "DateTime", "@value": t}))),
        1 => proptest::collection::vec(small(), 0..3).prop_map(|l| AttributeValue::Property(Value::from(l))),
        1 => small().prop_map(|n| AttributeValue::Property(json!({"key": n}))),
        2 => proptest::collection::vec(target(), 1..3).prop_map(AttributeValue::Relationship),
        1 => proptest::collection::vec(target(), 1..3).prop_map(AttributeValue::ListRelationship),
        1 => proptest::collection::vec(target(), 1..3).prop_map(AttributeValue::Vocab),
        1 => (text(), text()).prop_map(|(a, b)| AttributeValue::Language(IndexMap::from([("en".into(), a.into()), ("zh".into(), b.into())]))),
        1 => proptest::collection::vec(small().prop_map(Value::from), 0..3).prop_map(AttributeValue::List),
        1 => small().prop_map(|n| AttributeValue::Json(Value::from(n))),
    ]
}

fn arb_geometry() -> impl Strategy<Value = Geometry> {
    // A coarse grid, so that shapes touch, equal and contain each other.
    let at = || (0u8..5, 0u8..5).prop_map(|(x, y)| (116.0 + f64::from(x) / 10.0, 39.0 + f64::from(y) / 10.0));
    let geometry = |v: Value| Geometry::from_json(v).unwrap();
    prop_oneof![
        3 => at().prop_map(|(x, y)| Geometry::point(x, y)),
        1 => at().prop_map(move |(x, y)| geometry(json!({"type": "Point", "coordinates": [x, y, 12.0]}))),
        1 => (at(), at()).prop_filter("a line has a length", |(a, b)| a != b)
            .prop_map(move |((a, b), (c, d))| geometry(json!({"type": "LineString", "coordinates": [[a, b], [c, d]]}))),
        1 => (at(), 1u8..3, 1u8..3).prop_map(move |((x, y), w, h)| {
            let (e, n) = (x + f64::from(w) / 10.0, y + f64::from(h) / 10.0);
            geometry(json!({"type": "Polygon", "coordinates": [[[x, y], [e, y], [e, n], [x, n], [x, y]]]}))
        }),
    ]
}

const NAMES: [&str; 4] = ["v", "w", "name", "refersTo"];

fn arb_attribute() -> impl Strategy<Value = (usize, Attribute)> {
    (
        0..NAMES.len(),
        arb_value(),
        proptest::option::weighted(0.2, 0u8..2),
        proptest::option::of(0i64..4),
        proptest::option::weighted(0.2, 0u8..2),
    )
        .prop_map(|(name, value, dataset, observed, unit)| {
            let mut a = Attribute::new(value);
            a.dataset_id = dataset.map(|d| iri(&format!("d{d}")));
            a.observed_at = observed.map(Instant::from_secs);
            a.unit_code = unit.map(|u| format!("U{u}").into());
            (name, a)
        })
}

fn arb_entity() -> impl Strategy<Value = Entity> {
    let types =
        prop_oneof![3 => Just(vec!["A"]), 2 => Just(vec!["B"]), 1 => Just(vec!["A", "B"]), 1 => Just(vec!["B", "A"]), 1 => Just(vec!["C"])];
    let scopes = proptest::sample::subsequence(vec!["/a", "/a/b", "/a/b/c", "/d"], 0..3);
    let places = proptest::collection::vec(arb_geometry(), 0..3);
    let expires = proptest::option::weighted(0.15, 0i64..4);
    (0u16..40, types, scopes, proptest::collection::vec(arb_attribute(), 0..5), places, expires).prop_map(
        |(n, types, scopes, attributes, places, expires)| {
            let mut e = Entity::new(id(n), iri(types[0]));
            e.types.extend(types[1..].iter().map(|t| iri(t)));
            e.scopes = scopes.into_iter().map(|s| s.parse().unwrap()).collect();
            for (name, a) in attributes {
                e.put(iri(NAMES[name]), a);
            }
            for (i, g) in places.into_iter().enumerate() {
                let mut a = Attribute::new(AttributeValue::Geo(g));
                a.dataset_id = (i > 0).then(|| iri("other"));
                e.put(Iri::known(LOCATION), a);
            }
            e.expires_at = expires.map(Instant::from_secs);
            e
        },
    )
}

fn arb_operand() -> impl Strategy<Value = Operand> {
    prop_oneof![
        3 => prop_oneof![(-4i32..5).prop_map(f64::from), -4.0..4.0f64].prop_map(Operand::Number),
        2 => prop_oneof!["[a-c]{1,2}", Just("Old Town".to_owned()), "x{70}"].prop_map(Operand::Text),
        1 => any::<bool>().prop_map(Operand::Bool),
        2 => prop_oneof![(0i64..5).prop_map(Instant::from_secs), Just(Instant::from_micros(2_500_000))].prop_map(Operand::Instant),
        1 => Just(Operand::Text("1970-01-01T00:00:02Z".to_owned())),
        1 => Just(Operand::Date("1970-01-02".to_owned())),
        1 => Just(Operand::Time("00:00:02Z".to_owned())),
        2 => (0u16..6).prop_map(|n| Operand::Uri(id(n).to_string())),
    ]
}

fn arb_comparison() -> impl Strategy<Value = Comparison> {
    let op = prop_oneof![Just(CompareOp::Lt), Just(CompareOp::Le), Just(CompareOp::Gt), Just(CompareOp::Ge)];
    let list = || proptest::collection::vec(arb_operand(), 1..3);
    prop_oneof![
        1 => Just(Comparison::Exists),
        1 => list().prop_map(Comparison::Equal),
        1 => list().prop_map(Comparison::NotEqual),
        1 => (arb_operand(), arb_operand()).prop_map(|(a, b)| Comparison::Between(a, b)),
        1 => (arb_operand(), arb_operand()).prop_map(|(a, b)| Comparison::NotBetween(a, b)),
        3 => (op, arb_operand()).prop_map(|(op, o)| Comparison::Order(op, o)),
        1 => Just(Comparison::Matches(Pattern::new("^[aO]").unwrap())),
        1 => Just(Comparison::NotMatches(Pattern::new("b").unwrap())),
    ]
}

fn arb_condition() -> impl Strategy<Value = Filter> {
    let path = (0..NAMES.len(), 0u8..8).prop_map(|(n, form)| {
        let mut path = Path::of(iri(NAMES[n]));
        match form {
            0 => path.member = Some("observedAt".to_owned()),
            1 => path.member = Some("unitCode".to_owned()),
            2 => path.keys = vec!["key".to_owned()],
            3 => path.subs = vec![iri("sub")],
            _ => {}
        }
        Target::Attribute(path)
    });
    let target = prop_oneof![8 => path, 1 => Just(Target::EntityModifiedAt)];
    let relation = prop_oneof![
        2 => (1.0..40_000.0f64).prop_map(GeoRelation::NearMax),
        1 => (1.0..40_000.0f64).prop_map(GeoRelation::NearMin),
        1 => Just(GeoRelation::Within),
        1 => Just(GeoRelation::Contains),
        1 => Just(GeoRelation::Intersects),
        1 => Just(GeoRelation::Equals),
        1 => Just(GeoRelation::Disjoint),
        1 => Just(GeoRelation::Overlaps),
    ];
    let property = prop_oneof![4 => Just(Iri::known(LOCATION)), 1 => Just(iri("v"))];
    prop_oneof![
        4 => (target, arb_comparison()).prop_map(|(t, c)| Filter::Value(t, c)),
        3 => (property, relation, arb_geometry()).prop_map(|(property, relation, reference)| Filter::Geo(GeoCondition { property, relation, reference })),
        1 => proptest::collection::vec(0u16..40, 1..4).prop_map(|ids| Filter::Id(ids.into_iter().map(id).collect())),
        1 => Just(Filter::IdPattern(Pattern::new("[02468]$").unwrap())),
        2 => prop_oneof![Just("/a"), Just("/a/#"), Just("/+/b"), Just("/d"), Just("/#")].prop_map(|p| Filter::Scope(p.parse().unwrap())),
        1 => Just(Filter::HasAnyOf(vec![iri("w"), iri("nothing")])),
    ]
}

fn arb_filter() -> impl Strategy<Value = Filter> {
    let is = |t: &str| TypeSelector::Is(iri(t));
    let by_type = prop_oneof![
        3 => Just(is("A")),
        1 => Just(TypeSelector::Or(vec![is("A"), is("B")])),
        1 => Just(TypeSelector::And(vec![is("A"), is("B")])),
        1 => Just(TypeSelector::Or(vec![is("C"), TypeSelector::Any])),
        1 => Just(TypeSelector::Any),
    ];
    let nested = arb_condition().prop_recursive(2, 6, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Filter::And),
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Filter::Or),
            inner.prop_map(|f| Filter::Not(Box::new(f))),
        ]
    });
    (by_type, proptest::collection::vec(nested, 0..3)).prop_map(|(t, list)| list.into_iter().fold(Filter::Type(t), Filter::and))
}

#[derive(Clone, Debug)]
enum Step {
    Put(Box<Entity>),
    Remove(u16),
    Checkpoint,
    Reopen,
    FailedCheckpoint,
}

fn arb_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        40 => arb_entity().prop_map(|e| Step::Put(Box::new(e))),
        8 => (0u16..40).prop_map(Step::Remove),
        2 => Just(Step::Checkpoint),
        1 => Just(Step::Reopen),
        1 => Just(Step::FailedCheckpoint),
    ]
}

/// A budget that holds everything, and one in which nothing stays.
fn arb_budget() -> impl Strategy<Value = usize> {
    prop_oneof![Just(64 << 20), Just(0), Just(40_000)]
}

fn arb_texts() -> impl Strategy<Value = Option<&'static str>> {
    proptest::option::weighted(0.2, prop_oneof![Just("古城"), Just("town OLD"), Just("a"), Just("北"), Just(" ,"), Just("nowhere")])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// The indexes never change an answer: every page is what a plain walk over all entities gives.
    #[test]
    fn a_page_is_what_a_plain_walk_gives(
        steps in proptest::collection::vec(arb_step(), 0..120), budget in arb_budget(),
        filters in proptest::collection::vec(arb_filter(), 1..8),
        offset in 0usize..5, limit in 0usize..10, count in any::<bool>(), after in proptest::option::of(0u16..40), text in arb_texts(),
        order in proptest::option::of((0..NAMES.len(), any::<bool>())), now in proptest::option::of(0i64..4),
    ) {
        let mut city = City::new(budget);
        for step in steps {
            match step {
                Step::Put(e) => city.apply(*e, false),
                Step::Remove(n) => city.apply(Entity::new(id(n), iri("A")), true),
                Step::Checkpoint => city.checkpoint(),
                Step::Reopen => city.reopen(),
                Step::FailedCheckpoint => drop(city.table.freeze()),
            }
        }
        prop_assert_eq!(city.table.len(), city.model.len());
        for (i, e) in &city.model {
            let found = city.table.try_get(i.as_str()).unwrap();
            prop_assert_eq!(found.as_ref(), Some(e));
        }
        let after = after.map(id);
        let order_by = order.map(|(n, up)| OrderBy {
            attribute: iri(NAMES[n]), direction: if up { Direction::Ascending } else { Direction::Descending },
        });
        for filter in &filters {
            city.check(&PageRequest {
                filter, offset, limit, count, after: after.as_ref().map(Iri::as_str), order_by: order_by.clone(), text, now: now.map(Instant::from_secs),
            });
            city.check(&PageRequest { count: true, ..PageRequest::of(filter, limit) });
            city.check(&PageRequest { order_by: order_by.clone(), ..PageRequest::of(filter, limit) });
        }
    }

    /// Columns say the same as documents.
    #[test]
    fn scanned_columns_are_what_the_documents_say(
        steps in proptest::collection::vec(arb_step(), 0..80), budget in arb_budget(), filter in arb_filter(),
    ) {
        let mut city = City::new(budget);
        for step in steps {
            match step {
                Step::Put(e) => city.apply(*e, false),
                Step::Remove(n) => city.apply(Entity::new(id(n), iri("A")), true),
                Step::Checkpoint | Step::FailedCheckpoint => city.checkpoint(),
                Step::Reopen => city.reopen(),
            }
        }
        check_scan(&city, &filter);
    }
}

fn check_scan(city: &City, filter: &Filter) {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{Float64Type, TimestampMicrosecondType};
    let of_type = iri("A");
    let attributes: Vec<Iri> = NAMES.iter().map(|n| iri(n)).chain([Iri::known(LOCATION), iri("nothing")]).collect();
    let known = city.table.columns(&of_type);
    let scan = city.table.scan_columns(&of_type, &attributes, filter);
    assert_eq!(scan.schema().fields().len(), 6 + attributes.len());
    let batches: Vec<_> = scan.map(Result::unwrap).collect();
    let want: Vec<_> = city.model.values().filter(|e| e.types.contains(&of_type) && filter.matches(e)).collect();
    assert_eq!(batches.iter().map(|b| b.num_rows()).sum::<usize>(), want.len());
    let mut rows = batches.iter().flat_map(|b| (0..b.num_rows()).map(move |i| (b, i)));
    for e in want {
        let (batch, i) = rows.next().unwrap();
        assert_eq!(batch.column(0).as_string::<i32>().value(i), e.id.as_str());
        assert_eq!(batch.column(2).as_primitive::<TimestampMicrosecondType>().value(i), e.modified_at.micros());
        let observed = e.attributes.values().flatten().filter_map(|a| a.observed_at).max();
        let found = batch.column(3).as_primitive::<TimestampMicrosecondType>();
        assert_eq!(found.is_valid(i).then(|| Instant::from_micros(found.value(i))), observed);
        for (n, attribute) in attributes.iter().enumerate() {
            let value = e.attributes.get(attribute).and_then(|i| columns::shown(i)).map(|a| plain(&a.value));
            let array = batch.column(6 + n);
            let kind = known.iter().find(|c| c.name == *attribute).map(|c| c.kind);
            let found = array.is_valid(i).then(|| match kind {
                Some(crate::history::ColumnKind::Number) => Value::from(array.as_primitive::<Float64Type>().value(i)),
                Some(crate::history::ColumnKind::Bool) => Value::from(array.as_boolean().value(i)),
                Some(crate::history::ColumnKind::Text) => Value::from(array.as_string::<i32>().value(i)),
                _ => serde_json::from_str(array.as_string::<i32>().value(i)).unwrap(),
            });
            let same = match (&found, &value) {
                (Some(Value::Number(a)), Some(Value::Number(b))) => a.as_f64() == b.as_f64(),
                (a, b) => a == b,
            };
            assert!(same, "{attribute} of {}: {found:?}, expected {value:?}", e.id);
        }
    }
}

fn plain(value: &AttributeValue) -> Value {
    crate::history::value::plain_of(value)
}

fn station(n: u32, value: f64) -> Entity {
    let e = Entity::new(Iri::known(&format!("urn:x:{n:06}")), iri("Station"));
    e.with(iri("v"), Attribute::property(value)).with(iri("k"), Attribute::property(f64::from(n % 7)))
}

fn greater_than(attribute: &str, value: f64) -> Filter {
    Filter::Value(Target::Attribute(Path::of(iri(attribute))), Comparison::Order(CompareOp::Gt, Operand::Number(value)))
}

fn stations() -> Filter {
    Filter::Type(TypeSelector::Is(iri("Station")))
}

#[test]
fn a_scan_longer_than_a_chunk_misses_nothing() {
    let table = LiveTable::default();
    let typed = |n: u32| {
        let mut e = station(n, 1.0);
        e.types = if n.is_multiple_of(3) { vec![iri("A"), iri("B")] } else { vec![iri("B")] };
        Arc::new(e)
    };
    table.apply((0..10_000).map(typed).map(|e| (e.id.clone(), Some(e))));
    let both = Filter::Type(TypeSelector::Or(vec![TypeSelector::Is(iri("A")), TypeSelector::Is(iri("B"))]));
    let page = table.page(&PageRequest::of(&both, 20_000));
    assert_eq!(page.entities.len(), 10_000);
    assert!(page.entities.is_sorted_by(|a, b| a.id < b.id));
    assert_eq!(table.of_type(&iri("A")).len(), 3_334);
    assert_eq!(table.types(), [(iri("A"), 3_334), (iri("B"), 10_000)]);
}

#[test]
fn values_that_are_asked_for_often_are_ordered_and_stay_right() {
    let mut city = City::new(64 << 20);
    for n in 0..5_000 {
        city.apply(station(n, f64::from(n * 7_919 % 5_000)), false);
    }
    city.reopen();
    let rare = stations().and(greater_than("v", 4_990.0));
    let request = PageRequest::of(&rare, 20);
    for _ in 1..ASKED_MIN {
        assert!(city.table.explain(&request).unwrap().source.starts_with("walk of type Station"));
    }
    // The one that makes it often.
    city.check(&request);
    city.table.wait_for_builds();
    let report = city.table.explain(&request).unwrap();
    assert_eq!(report.automatic_indexes, [AutoReport { entity_type: iri("Station"), attribute: iri("v"), entries: 5_000 }]);
    assert_eq!(report.source, "ordered values of v of Station");
    assert_eq!((report.estimated, report.looked_at, report.documents_read), (9, 9, 9));
    city.check(&request);
    // Changes keep the order: new, changed, gone, no longer a number, no longer of the type.
    city.apply(station(6_000, 4_999.5), false);
    city.apply(station(11, 4_995.5), false);
    city.apply(station(12, 0.0), true);
    city.apply(station(13, 0.0).with(iri("v"), Attribute::property(json!([4_999]))), false);
    city.apply(station(14, 0.0).with(iri("v"), Attribute::property("much")), false);
    let mut other = station(15, 4_999.9);
    other.types = vec![iri("Other")];
    city.apply(other, false);
    for limit in [0, 1, 5, 100] {
        city.check(&PageRequest { count: limit == 5, ..PageRequest::of(&rare, limit) });
    }
    assert_eq!(city.table.explain(&request).unwrap().source, "ordered values of v of Station");
}

#[test]
fn an_order_is_walked_when_there_is_one() {
    let mut city = City::new(64 << 20);
    for n in 0..5_000 {
        city.apply(station(n, f64::from(n * 7_919 % 5_000) - 2_500.0), false);
    }
    let all = stations();
    let ordered = |attribute: &str, direction| PageRequest {
        order_by: Some(OrderBy { attribute: iri(attribute), direction }),
        ..PageRequest::of(&all, 20)
    };
    for _ in 0..=ASKED_MIN {
        city.check(&ordered("v", Direction::Descending));
        city.check(&ordered("k", Direction::Ascending));
    }
    city.table.wait_for_builds();
    assert_eq!(city.table.automatic_indexes().len(), 2);
    for direction in [Direction::Ascending, Direction::Descending] {
        for attribute in ["v", "k"] {
            for offset in [0, 700, 4_990] {
                city.check(&PageRequest { offset, ..ordered(attribute, direction) });
            }
        }
        let report = city.table.explain(&ordered("v", direction)).unwrap();
        assert_eq!(report.source, "ordered values of v of Station, in order");
        assert!(report.looked_at < 1_000, "{report}");
    }
    // One without a value comes last, and the walk of the index alone does not find it.
    city.apply(Entity::new(Iri::known("urn:x:none"), iri("Station")), false);
    city.check(&PageRequest { offset: 4_990, ..ordered("v", Direction::Descending) });
}

/// Values change while their order is being made: none is lost, none is found twice.
#[test]
fn an_order_made_while_data_change_is_right() {
    let mut city = City::new(64 << 20);
    for n in 0..20_000 {
        city.apply(station(n, f64::from(n)), false);
    }
    let some = stations().and(greater_than("v", 19_000.0));
    for _ in 0..ASKED_MIN {
        let _ = city.table.page(&PageRequest::of(&some, 1));
    }
    for n in 0..3_000 {
        let at = n * 6;
        match n % 3 {
            0 => city.apply(station(at, f64::from(30_000 - at)), false),
            1 => city.apply(station(at, 0.0), true),
            _ => city.apply(station(20_000 + n, f64::from(n * 20)), false),
        }
    }
    city.table.wait_for_builds();
    assert_eq!(city.table.automatic_indexes().len(), 1);
    for low in [0.0, 15_000.0, 19_000.0, 29_999.0] {
        city.check(&PageRequest { count: true, ..PageRequest::of(&stations().and(greater_than("v", low)), 50) });
    }
}

#[test]
fn whoever_points_at_an_entity_is_found() {
    let mut city = City::new(64 << 20);
    for n in 0..2_000 {
        let target = if n % 500 == 3 { 7 } else { n + 10_000 };
        let to = |t: u32| Attribute::new(AttributeValue::Relationship(vec![Iri::known(&format!("urn:x:{t:06}"))]));
        city.apply(station(n, 1.0).with(iri("refStation"), to(target)), false);
    }
    city.reopen();
    let points_at =
        Filter::Value(Target::Attribute(Path::of(iri("refStation"))), Comparison::Equal(vec![Operand::Uri("urn:x:000007".to_owned())]));
    let request = PageRequest { count: true, ..PageRequest::of(&points_at, 10) };
    city.check(&request);
    let report = city.table.explain(&request).unwrap();
    assert_eq!((report.looked_at, report.returned), (4, 4), "{report}");
    let found: Vec<_> = city.table.referrers(&Iri::known("urn:x:000007"), 10).unwrap().into_iter().map(|e| e.id.to_string()).collect();
    assert_eq!(found, ["urn:x:000003", "urn:x:000503", "urn:x:001003", "urn:x:001503"]);
}

#[test]
fn names_are_found_by_their_words() {
    let mut city = City::new(64 << 20);
    for (n, name) in ["Old Town Station", "New Town", "北京古城公园", "Station"].into_iter().enumerate() {
        city.apply(station(u32::try_from(n).unwrap(), 1.0).with(iri("name"), Attribute::property(name)), false);
    }
    let found = |city: &City, text: &str| -> Vec<String> {
        let all = Filter::all();
        city.table
            .page(&PageRequest { text: Some(text), ..PageRequest::of(&all, 10) })
            .entities
            .iter()
            .map(|e| e.id.local_name().to_owned())
            .collect()
    };
    assert_eq!(found(&city, "town"), ["000000", "000001"]);
    assert_eq!(found(&city, "STATION old"), ["000000"]);
    assert_eq!(found(&city, "古城"), ["000002"]);
    assert_eq!(found(&city, "城古"), [] as [&str; 0]);
    city.apply(station(0, 1.0).with(iri("name"), Attribute::property("Renamed")), false);
    city.reopen();
    assert_eq!(found(&city, "town"), ["000001"]);
    assert_eq!(found(&city, "renamed"), ["000000"]);
}

/// A reader pages through while a writer changes, adds and removes: what is there all the time is seen exactly once.
#[test]
fn paging_is_stable_while_data_change() {
    let mut city = City::new(0);
    for n in 0..6_000 {
        city.apply(station(n, f64::from(n % 10)), false);
    }
    city.reopen();
    let (reading, documents) = (city.table.clone(), Arc::clone(&city.documents));
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut city = city;
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                n += 1;
                // Odd ones come and go; even ones change, but always satisfy the condition.
                let odd = n * 2_741 % 3_000 * 2 + 1;
                city.apply(station(odd, 5.0), n % 2 == 0);
                city.apply(station(n * 7_919 % 3_000 * 2, f64::from(n % 10)), false);
                if n % 500 == 0 {
                    let frozen = city.table.freeze();
                    documents.checkpoint(&mut frozen.changed(), &Manifest::default()).unwrap();
                    city.table.thaw();
                }
            }
        });
        let filter = stations().and(greater_than("v", -1.0));
        for _ in 0..5 {
            let mut seen: Vec<Iri> = Vec::new();
            loop {
                let after = seen.last().cloned();
                let page =
                    reading.try_page(&PageRequest { after: after.as_ref().map(Iri::as_str), ..PageRequest::of(&filter, 100) }).unwrap();
                seen.extend(page.entities.iter().map(|e| e.id.clone()));
                if !page.more {
                    break;
                }
            }
            assert!(seen.is_sorted_by(|a, b| a < b), "each once, in order");
            let n_even = seen.iter().filter(|i| i.as_str().ends_with(['0', '2', '4', '6', '8'])).count();
            assert_eq!(n_even, 3_000);
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn what_is_rare_is_found_by_its_column() {
    let mut city = City::new(64 << 20);
    for n in 0..20_000_u32 {
        let mut e = station(n * 7_919 % 20_000, f64::from(n % 1_000));
        match n % 4_000 {
            // No numbers, and several instances: only the documents know.
            17 => e.put(iri("v"), Attribute::property("text")),
            18 => {
                let mut other = Attribute::property(5_000);
                other.dataset_id = Some(iri("second"));
                e.put(iri("v"), other);
            }
            19 => drop(e.attributes.shift_remove(&iri("v"))),
            _ => {}
        }
        city.apply(e, n % 500 == 499);
    }
    for reopened in [false, true] {
        if reopened {
            city.reopen();
        }
        let mut is_first = true;
        for filter in [
            stations().and(greater_than("v", 997.0)),
            stations().and(Filter::Value(Target::Attribute(Path::of(iri("v"))), Comparison::Equal(vec![Operand::Text("text".into())]))),
            stations().and(greater_than("v", 4_999.0)),
            stations().and(greater_than("v", 1e9)),
        ] {
            let request = PageRequest::of(&filter, 7);
            for (offset, after) in [(0, None), (5, None), (0, Some("urn:x:Station:1")), (3, Some("urn:x:Station:3")), (1_000, None)] {
                city.check(&PageRequest { offset, after, ..request.clone() });
                city.check(&PageRequest { offset, after, count: true, ..request.clone() });
            }
            let order_by = Some(OrderBy { attribute: iri("v"), direction: Direction::Descending });
            city.check(&PageRequest { order_by, ..request.clone() });
            // Of the first there are so many that a walk finds them soon.
            let source = city.table.explain(&request).unwrap().source;
            let by_value = ["column v of Station", "ordered values of v of Station"].contains(&source.as_str());
            assert!(by_value || is_first, "{source}");
            is_first = false;
            check_scan(&city, &filter);
        }
    }
}

#[test]
fn a_small_budget_keeps_memory_small_and_answers_right() {
    let total = 2 << 20;
    let mut city = City::new(total);
    for n in 0..4_000 {
        city.apply(station(n, f64::from(n)).with(iri("text"), Attribute::property("x".repeat(500))), false);
        if city.table.wants_checkpoint() {
            city.checkpoint();
        }
    }
    let (index_bytes, unwritten_bytes) = city.table.memory_bytes();
    assert!(unwritten_bytes <= total / 4, "{unwritten_bytes}");
    assert!(index_bytes < total, "{index_bytes}");
    city.check(&PageRequest::of(&stations().and(greater_than("v", 3_990.0)), 20));
    assert!(city.table.core.cache.weight() <= (total / 4) as u64);
}

#[test]
fn a_type_with_very_many_attributes_is_answered_from_documents() {
    let mut city = City::new(64 << 20);
    let mut e = station(1, 1.0);
    for n in 0..COLUMNS_PER_TYPE_MAX + 20 {
        e.put(iri(&format!("a{n}")), Attribute::property(f64::from(u32::try_from(n).unwrap())));
    }
    city.apply(e, false);
    city.apply(station(2, 2.0), false);
    for n in [3, COLUMNS_PER_TYPE_MAX + 10] {
        city.check(&PageRequest { count: true, ..PageRequest::of(&stations().and(greater_than(&format!("a{n}"), 1.0)), 5) });
    }
    assert_eq!(city.table.columns(&iri("Station")).len(), COLUMNS_PER_TYPE_MAX + 22);
}

#[test]
fn a_document_that_is_gone_is_an_error_and_not_an_answer() {
    let documents: Arc<dyn Documents> = Arc::new(MemoryDocuments::default());
    let e = Arc::new(station(1, 1.0));
    documents
        .checkpoint(
            &mut std::iter::once((Space::City, e.id.clone(), Some(crate::state::Document::Whole(Arc::clone(&e))))),
            &Manifest::default(),
        )
        .unwrap();
    let table = LiveTable::open(Space::City, Arc::clone(&documents), Budget { total_bytes: 0 }).unwrap();
    documents.checkpoint(&mut std::iter::once((Space::City, e.id.clone(), None)), &Manifest::default()).unwrap();
    assert!(matches!(table.try_get(e.id.as_str()), Err(DocumentsError::Missing { .. })));
    assert!(matches!(table.try_page(&PageRequest::of(&stations(), 5)), Err(DocumentsError::Missing { .. })));
}
