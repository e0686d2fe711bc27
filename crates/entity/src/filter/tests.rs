use super::*;
use serde_json::json;

fn n(s: &str) -> Iri {
    Iri::known(&format!("https://example.org/{s}"))
}

fn station() -> Entity {
    let lang = [("en", "Gucheng"), ("zh", "古城")].map(|(k, v)| (k.into(), json!(v)));
    let mut pm25 = Attribute::property(42.5).observed("2014-01-01T00:00:00Z".parse().unwrap());
    pm25.unit_code = Some("GQ".into());
    pm25.sub_attributes.insert(n("reliability"), Attribute::property(0.9).into());
    let mut e = Entity::new(Iri::known("urn:ngsi-ld:Station:1"), n("Station"))
        .with(n("pm25"), pm25)
        .with(n("name"), Attribute::new(AttributeValue::Language(lang.into_iter().collect())))
        .with(n("tags"), Attribute::property(json!(["a", "b"])))
        .with(n("address"), Attribute::property(json!({"city": "Beijing", "no": 7})))
        .with(n("owner"), Attribute::new(AttributeValue::Relationship(vec![Iri::known("urn:x:1")])))
        .with(n("since"), Attribute::property(json!({"@type": "DateTime", "@value": "2010-01-01T00:00:00Z"})))
        .with(Iri::known(crate::LOCATION), Attribute::new(AttributeValue::Geo(Geometry::point(116.225, 39.9279))));
    e.scopes = vec!["/CN/11".parse().unwrap()];
    e
}

fn on(attribute: &str, comparison: Comparison) -> Filter {
    Filter::Value(Target::Attribute(Path::of(n(attribute))), comparison)
}

#[track_caller]
fn check(filter: Filter, want: bool) {
    assert_eq!(filter.matches(&station()), want, "{filter:?}");
    let text = serde_json::to_string(&filter).unwrap();
    assert_eq!(serde_json::from_str::<Filter>(&text).unwrap(), filter, "a question travels unchanged");
}

#[test]
fn comparisons_follow_clause_4_9() {
    use Comparison::*;
    use Operand::*;
    check(on("pm25", Exists), true);
    check(on("nothing", Exists), false);
    check(on("pm25", Order(CompareOp::Gt, Number(40.0))), true);
    check(on("pm25", Order(CompareOp::Gt, Number(42.5))), false);
    check(on("pm25", Order(CompareOp::Ge, Number(42.5))), true);
    check(on("pm25", Order(CompareOp::Lt, Text("x".into()))), false);
    check(on("pm25", NotEqual(vec![Text("x".into())])), true);
    check(on("nothing", NotEqual(vec![Number(1.0)])), false);
    check(on("pm25", Between(Number(42.5), Number(43.0))), true);
    check(on("pm25", NotBetween(Number(0.0), Number(43.0))), false);
    check(on("tags", Equal(vec![Text("b".into())])), true);
    check(on("tags", NotEqual(vec![Text("b".into())])), false);
    check(on("name", Equal(vec![Text("古城".into())])), true);
    check(on("name", Matches(Pattern::new("^Gu").unwrap())), true);
    check(on("name", NotMatches(Pattern::new("^Gu").unwrap())), false);
    check(on("pm25", NotMatches(Pattern::new("x").unwrap())), false);
    check(on("owner", Equal(vec![Uri("urn:x:1".into())])), true);
    check(on("owner", Order(CompareOp::Gt, Uri("urn:x:0".into()))), false);
    check(on("since", Order(CompareOp::Lt, Instant("2014-01-01T00:00:00Z".parse().unwrap()))), true);
}

#[test]
fn paths_reach_sub_attributes_members_and_json() {
    use Comparison::*;
    let path = |subs: &[&str], member: Option<&str>, keys: &[&str], attribute: &str| {
        Target::Attribute(Path {
            attribute: n(attribute),
            subs: subs.iter().map(|s| n(s)).collect(),
            member: member.map(str::to_owned),
            keys: keys.iter().map(|k| (*k).to_owned()).collect(),
        })
    };
    check(Filter::Value(path(&["reliability"], None, &[], "pm25"), Order(CompareOp::Ge, Operand::Number(0.9))), true);
    check(
        Filter::Value(path(&[], Some("observedAt"), &[], "pm25"), Equal(vec![Operand::Instant("2014-01-01T00:00:00Z".parse().unwrap())])),
        true,
    );
    check(Filter::Value(path(&[], Some("unitCode"), &[], "pm25"), Equal(vec![Operand::Text("GQ".into())])), true);
    check(Filter::Value(path(&[], None, &["city"], "address"), Equal(vec![Operand::Text("Beijing".into())])), true);
    check(Filter::Value(path(&[], None, &["street"], "address"), Exists), false);
    check(Filter::Value(path(&[], None, &["zh"], "name"), Equal(vec![Operand::Text("Gucheng".into())])), false);
}

#[test]
fn types_ids_scopes_and_attributes() {
    check(Filter::Type(TypeSelector::Or(vec![TypeSelector::Is(n("X")), TypeSelector::Is(n("Station"))])), true);
    check(Filter::Type(TypeSelector::And(vec![TypeSelector::Is(n("X")), TypeSelector::Is(n("Station"))])), false);
    check(Filter::Id(vec![Iri::known("urn:ngsi-ld:Station:2")]), false);
    check(Filter::IdPattern(Pattern::new("Station:[0-9]$").unwrap()), true);
    check(Filter::Scope("/CN/#".parse().unwrap()), true);
    check(Filter::HasAnyOf(vec![n("no2"), n("pm25")]), true);
    check(Filter::all(), true);
    check(Filter::none(), false);
    check(Filter::Not(Box::new(Filter::none())), true);
}

#[test]
fn geo_relations_follow_clause_4_10() {
    use GeoRelation::*;
    let square = json!({"type": "Polygon", "coordinates": [[[116.0, 39.5], [117.0, 39.5], [117.0, 40.5], [116.0, 40.5], [116.0, 39.5]]]});
    let far = json!({"type": "Polygon", "coordinates": [[[10.0, 39.5], [11.0, 39.5], [11.0, 40.5], [10.0, 39.5]]]});
    let here = json!({"type": "Point", "coordinates": [116.225, 39.9279]});
    let near = json!({"type": "Point", "coordinates": [116.225, 39.9369]}); // 1.0008 km north
    geo(Within, &square, true);
    geo(Intersects, &square, true);
    geo(Disjoint, &square, false);
    geo(Disjoint, &far, true);
    geo(Within, &far, false);
    geo(Equals, &here, true);
    geo(NearMax(1001.5), &near, true);
    geo(NearMax(999.0), &near, false);
    geo(NearMin(999.0), &near, true);
    geo(NearMax(1.0), &square, true);
    // About 85.3 km per degree of longitude at this latitude.
    geo(NearMax(18_000.0), &json!({"type": "LineString", "coordinates": [[116.0, 39.0], [116.0, 41.0]]}), false);
    geo(NearMax(20_000.0), &json!({"type": "LineString", "coordinates": [[116.0, 39.0], [116.0, 41.0]]}), true);

    #[track_caller]
    fn geo(relation: GeoRelation, reference: &Value, want: bool) {
        let reference = Geometry::from_json(reference.clone()).unwrap();
        check(Filter::Geo(GeoCondition { property: Iri::known(crate::LOCATION), relation, reference }), want);
    }
    let no_place = Entity::new(Iri::known("urn:x:1"), n("Station"));
    let condition = GeoCondition { property: Iri::known(crate::LOCATION), relation: Disjoint, reference: Geometry::point(0.0, 0.0) };
    assert!(!Filter::Geo(condition).matches(&no_place), "no place matches nothing, not even disjoint");
}

#[test]
fn a_monstrous_pattern_is_refused() {
    assert!(Pattern::new("(a{1000}){1000}").is_err());
    assert!(Pattern::new("(").is_err());
}

proptest::proptest! {
    /// The short way for points gives what the topology gives: inside, outside, in corners, on edges and in holes.
    #[test]
    fn a_point_lies_to_a_polygon_as_the_topology_says(
        radii in proptest::collection::vec(1_u32..40, 3..9),
        hole in proptest::bool::ANY,
        x in -45_i32..45,
        y in -45_i32..45,
        corner in proptest::option::of(proptest::prelude::any::<proptest::sample::Index>()),
        between in proptest::sample::select(vec![0.0, 0.5]),
    ) {
        let ring = |scale: f64| -> Vec<[f64; 2]> {
            let n = radii.len() as f64;
            let corners = radii.iter().enumerate().map(|(i, r)| {
                let angle = std::f64::consts::TAU * i as f64 / n;
                [scale * f64::from(*r) * angle.cos(), scale * f64::from(*r) * angle.sin()]
            });
            let mut ring: Vec<_> = corners.collect();
            ring.push(ring[0]);
            ring
        };
        let mut rings = vec![ring(1.0)];
        if hole {
            rings.push(ring(0.25));
        }
        let polygon = Geometry::from_json(serde_json::json!({"type": "Polygon", "coordinates": rings})).unwrap();
        let [lon, lat] = match corner {
            // A corner, or the middle of an edge, of the polygon or of its hole.
            Some(at) => {
                let ring = &rings[rings.len() - 1];
                let i = at.index(ring.len() - 1);
                let (a, b) = (ring[i], ring[i + 1]);
                [a[0] + (b[0] - a[0]) * between, a[1] + (b[1] - a[1]) * between]
            }
            None => [f64::from(x) / 2.0, f64::from(y) / 2.0],
        };
        let point = geo::Geometry::Point(geo::Point::new(lon, lat));
        let matrix = relate(&point, polygon.shape()).unwrap();
        for (relation, want) in [
            (GeoRelation::Within, matrix.is_within()),
            (GeoRelation::Contains, matrix.is_contains()),
            (GeoRelation::Intersects, matrix.is_intersects()),
            (GeoRelation::Equals, matrix.is_equal_topo()),
            (GeoRelation::Disjoint, matrix.is_disjoint()),
            (GeoRelation::Overlaps, matrix.is_overlaps()),
        ] {
            let condition = GeoCondition { property: Iri::known(crate::LOCATION), relation, reference: polygon.clone() };
            proptest::prop_assert_eq!(condition.holds_at(lon, lat), want, "{:?} of {} {} and {:?}", condition.relation, lon, lat, rings);
        }
    }
}
